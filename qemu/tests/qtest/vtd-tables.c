/*
 * Second-level page tables and the invalidation queue of intel-iommu, for
 * qtests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitops.h"
#include "qemu/host-utils.h"
#include "vtd-tables.h"

#define VTD_BASE        0xfed90000ULL
#define VTD_GCMD        0x18
#define VTD_GSTS        0x1c
#define VTD_RTADDR      0x20
#define VTD_IQH         0x80
#define VTD_IQT         0x88
#define VTD_IQA         0x90

#define VTD_CMD_TE      BIT(31)
#define VTD_CMD_SRTP    BIT(30)
#define VTD_CMD_QIE     BIT(26)

#define LEVELS          3
#define ADDRESS_WIDTH   1   /* encoding of 3 levels in a context entry */
#define DOMAIN          1
#define QUEUE_ENTRIES   256 /* one page */

#define INV_IOTLB       0x2
#define INV_DEV_IOTLB   0x3
#define INV_GLOBAL      (1 << 4)

static uint64_t new_page(VtdTables *v)
{
    uint64_t page = v->next_page;

    v->next_page += VTD_PAGE_SIZE;
    qtest_memset(v->qts, page, 0, VTD_PAGE_SIZE);
    return page;
}

/* Follow a table entry, making the next table if there is none */
static uint64_t next_table(VtdTables *v, uint64_t entry, uint64_t flags)
{
    uint64_t val = qtest_readq(v->qts, entry);

    if (!val) {
        val = new_page(v) | flags;
        qtest_writeq(v->qts, entry, val);
    }
    return val & ~(uint64_t)(VTD_PAGE_SIZE - 1);
}

/* One-shot commands are acknowledged, switches stay on: the bits are equal */
static void command(VtdTables *v, uint32_t bit)
{
    uint32_t on = qtest_readl(v->qts, VTD_BASE + VTD_GSTS) &
                  (VTD_CMD_TE | VTD_CMD_QIE);

    qtest_writel(v->qts, VTD_BASE + VTD_GCMD, on | bit);
    g_assert_cmphex(qtest_readl(v->qts, VTD_BASE + VTD_GSTS) & bit, ==, bit);
}

void vtd_init(VtdTables *v, QTestState *qts, uint64_t ram)
{
    *v = (VtdTables) { .qts = qts, .next_page = ram };
    v->root = new_page(v);
    v->top = new_page(v);
    v->queue = new_page(v);
}

void vtd_attach(VtdTables *v, uint16_t bdf, bool ats)
{
    uint64_t context = next_table(v, v->root + (bdf >> 8) * 16, 1);
    uint64_t entry = context + (bdf & 0xff) * 16;

    qtest_writeq(v->qts, entry + 8, DOMAIN << 8 | ADDRESS_WIDTH);
    qtest_writeq(v->qts, entry, v->top | (ats ? 1 << 2 : 0) | 1);
}

void vtd_enable(VtdTables *v)
{
    qtest_writeq(v->qts, VTD_BASE + VTD_IQA, v->queue);
    command(v, VTD_CMD_QIE);
    qtest_writeq(v->qts, VTD_BASE + VTD_RTADDR, v->root);
    command(v, VTD_CMD_SRTP);
    command(v, VTD_CMD_TE);
}

void vtd_map(VtdTables *v, uint64_t iova, uint64_t addr, uint64_t size,
             unsigned perm)
{
    uint64_t done;

    for (done = 0; done < size; done += VTD_PAGE_SIZE) {
        uint64_t table = v->top;
        int level;

        for (level = LEVELS - 1; level > 0; level--) {
            unsigned i = extract64(iova + done, 12 + 9 * level, 9);

            table = next_table(v, table + i * 8, VTD_READ | VTD_WRITE);
        }
        qtest_writeq(v->qts, table + extract64(iova + done, 12, 9) * 8,
                     perm ? (addr + done) | perm : 0);
    }
}

static void invalidate(VtdTables *v, uint64_t lo, uint64_t hi)
{
    qtest_writeq(v->qts, v->queue + v->tail * 16, lo);
    qtest_writeq(v->qts, v->queue + v->tail * 16 + 8, hi);
    v->tail = (v->tail + 1) % QUEUE_ENTRIES;
    qtest_writeq(v->qts, VTD_BASE + VTD_IQT, v->tail << 4);
    g_assert_cmphex(qtest_readq(v->qts, VTD_BASE + VTD_IQH), ==,
                    v->tail << 4);
}

void vtd_flush_iotlb(VtdTables *v)
{
    invalidate(v, INV_IOTLB | INV_GLOBAL, 0);
}

void vtd_flush_dev_iotlb(VtdTables *v, uint16_t bdf, uint64_t iova,
                         uint64_t pages)
{
    uint64_t hi = iova;

    g_assert(is_power_of_2(pages));
    if (pages > 1) {
        /* The lowest zero bit of the page number gives the size */
        hi |= (pages / 2 - 1) * VTD_PAGE_SIZE | 1;
    }
    invalidate(v, INV_DEV_IOTLB | (uint64_t)bdf << 32, hi);
}
