/*
 * PCI Express hierarchies of the q35 machine for qtests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/pci/pci_regs.h"
#include "qapi/error.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "pcie-topology.h"

#define PCIEXBAR        0x60            /* of the q35 host bridge */
#define ECAM            0xb0000000ULL
#define MEM32_START     0xc0000000ULL   /* up to the I/O APIC */
#define MEM32_END       0xfe000000ULL
#define MEM64_START     (32ULL << 30)
#define HEADER_MULTI_FUNCTION   0x80    /* in the header type */
#define WINDOW_ALIGN    (1ULL << 20)    /* granularity of a bridge window */

static uint64_t ecam(uint16_t bdf, unsigned offset)
{
    g_assert_cmpuint(offset, <, 4096);
    return ECAM + ((uint64_t)bdf << 12) + offset;
}

uint8_t pcie_readb(PcieTopology *t, uint16_t bdf, unsigned offset)
{
    return qtest_readb(t->qts, ecam(bdf, offset));
}

uint16_t pcie_readw(PcieTopology *t, uint16_t bdf, unsigned offset)
{
    return qtest_readw(t->qts, ecam(bdf, offset));
}

uint32_t pcie_readl(PcieTopology *t, uint16_t bdf, unsigned offset)
{
    return qtest_readl(t->qts, ecam(bdf, offset));
}

void pcie_writeb(PcieTopology *t, uint16_t bdf, unsigned offset, uint8_t val)
{
    qtest_writeb(t->qts, ecam(bdf, offset), val);
}

void pcie_writew(PcieTopology *t, uint16_t bdf, unsigned offset, uint16_t val)
{
    qtest_writew(t->qts, ecam(bdf, offset), val);
}

void pcie_writel(PcieTopology *t, uint16_t bdf, unsigned offset, uint32_t val)
{
    qtest_writel(t->qts, ecam(bdf, offset), val);
}

unsigned pcie_cap(PcieTopology *t, uint16_t bdf, uint8_t id)
{
    unsigned offset = pcie_readb(t, bdf, PCI_CAPABILITY_LIST);

    while (offset && pcie_readb(t, bdf, offset + PCI_CAP_LIST_ID) != id) {
        offset = pcie_readb(t, bdf, offset + PCI_CAP_LIST_NEXT);
    }
    return offset;
}

unsigned pcie_ext_cap(PcieTopology *t, uint16_t bdf, uint16_t id)
{
    unsigned offset = PCI_CFG_SPACE_SIZE;

    while (offset) {
        uint32_t header = pcie_readl(t, bdf, offset);

        if (header && PCI_EXT_CAP_ID(header) == id) {
            return offset;
        }
        offset = PCI_EXT_CAP_NEXT(header);
    }
    return 0;
}

static uint64_t take(uint64_t *next, uint64_t size)
{
    uint64_t addr = ROUND_UP(*next, size);

    *next = addr + size;
    return addr;
}

static void assign_bars(PcieTopology *t, PcieFunction *f)
{
    unsigned i;

    for (i = 0; i < PCIE_BARS; i++) {
        unsigned reg = PCI_BASE_ADDRESS_0 + 4 * i;
        uint64_t mask;
        bool is64;

        pcie_writel(t, f->bdf, reg, UINT32_MAX);
        mask = pcie_readl(t, f->bdf, reg);
        if (!mask || (mask & PCI_BASE_ADDRESS_SPACE_IO)) {
            continue;
        }
        is64 = (mask & PCI_BASE_ADDRESS_MEM_TYPE_MASK) ==
               PCI_BASE_ADDRESS_MEM_TYPE_64;
        mask &= PCI_BASE_ADDRESS_MEM_MASK;
        if (is64) {
            pcie_writel(t, f->bdf, reg + 4, UINT32_MAX);
            mask |= (uint64_t)pcie_readl(t, f->bdf, reg + 4) << 32;
        } else {
            mask |= ~(uint64_t)UINT32_MAX;
        }
        f->bar_size[i] = -mask;
        f->bar[i] = take(is64 ? &t->next_mem64 : &t->next_mem32,
                         f->bar_size[i]);
        pcie_writel(t, f->bdf, reg, f->bar[i]);
        if (is64) {
            pcie_writel(t, f->bdf, reg + 4, f->bar[i] >> 32);
            i++;
        }
    }
}

static void scan_bus(PcieTopology *t, uint8_t bus);

/* Windows cover what the devices behind the bridge take; empty ones are off */
static void assign_windows(PcieTopology *t, PcieFunction *f)
{
    uint8_t secondary = ++t->last_bus;
    uint64_t base32, base64, last32, last64;

    t->next_mem32 = base32 = ROUND_UP(t->next_mem32, WINDOW_ALIGN);
    t->next_mem64 = base64 = ROUND_UP(t->next_mem64, WINDOW_ALIGN);
    pcie_writeb(t, f->bdf, PCI_PRIMARY_BUS, f->bdf >> 8);
    pcie_writeb(t, f->bdf, PCI_SECONDARY_BUS, secondary);
    pcie_writeb(t, f->bdf, PCI_SUBORDINATE_BUS, 0xff);
    scan_bus(t, secondary);
    pcie_writeb(t, f->bdf, PCI_SUBORDINATE_BUS, t->last_bus);

    t->next_mem32 = ROUND_UP(t->next_mem32, WINDOW_ALIGN);
    t->next_mem64 = ROUND_UP(t->next_mem64, WINDOW_ALIGN);
    g_assert_cmpuint(t->next_mem32, <=, MEM32_END);
    last32 = t->next_mem32 - WINDOW_ALIGN;
    last64 = t->next_mem64 - WINDOW_ALIGN;
    if (t->next_mem32 == base32) {
        base32 = 0xfff00000;
        last32 = 0;
    }
    if (t->next_mem64 == base64) {
        base64 = 0xfff00000;
        last64 = 0;
    }
    pcie_writew(t, f->bdf, PCI_MEMORY_BASE, base32 >> 16);
    pcie_writew(t, f->bdf, PCI_MEMORY_LIMIT, last32 >> 16);
    pcie_writew(t, f->bdf, PCI_PREF_MEMORY_BASE, base64 >> 16);
    pcie_writew(t, f->bdf, PCI_PREF_MEMORY_LIMIT, last64 >> 16);
    pcie_writel(t, f->bdf, PCI_PREF_BASE_UPPER32, base64 >> 32);
    pcie_writel(t, f->bdf, PCI_PREF_LIMIT_UPPER32, last64 >> 32);
}

/* The chipset's own functions are where the firmware wants them */
static bool of_chipset(PcieTopology *t, uint16_t bdf)
{
    switch (pcie_readw(t, bdf, PCI_CLASS_DEVICE)) {
    case 0x0600: /* host bridge */
    case 0x0601: /* ISA bridge */
    case 0x0106: /* SATA */
    case 0x0c05: /* SMBus */
        return true;
    default:
        return false;
    }
}

static void scan_function(PcieTopology *t, uint16_t bdf)
{
    PcieFunction *f;
    uint8_t type = pcie_readb(t, bdf, PCI_HEADER_TYPE) & 0x7f;

    if (bdf >> 8 == 0 && of_chipset(t, bdf)) {
        return;
    }
    g_assert_cmpuint(t->count, <, PCIE_MAX_FUNCTIONS);
    f = &t->fn[t->count++];
    f->bdf = bdf;
    f->vendor = pcie_readw(t, bdf, PCI_VENDOR_ID);
    f->device = pcie_readw(t, bdf, PCI_DEVICE_ID);
    f->bridge = type == PCI_HEADER_TYPE_BRIDGE;
    if (f->bridge) {
        assign_windows(t, f);
    } else {
        assign_bars(t, f);
    }
    pcie_writew(t, bdf, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

static void scan_bus(PcieTopology *t, uint8_t bus)
{
    unsigned slot, fn;

    for (slot = 0; slot < 32; slot++) {
        uint16_t bdf = bus << 8 | slot << 3;
        bool multi;

        if (pcie_readw(t, bdf, PCI_VENDOR_ID) == 0xffff) {
            continue;
        }
        multi = pcie_readb(t, bdf, PCI_HEADER_TYPE) &
                HEADER_MULTI_FUNCTION;
        for (fn = 0; fn < (multi ? 8 : 1); fn++) {
            if (pcie_readw(t, bdf | fn, PCI_VENDOR_ID) != 0xffff) {
                scan_function(t, bdf | fn);
            }
        }
    }
}

void pcie_topology_init(PcieTopology *t, QTestState *qts)
{
    *t = (PcieTopology) {
        .qts = qts,
        .next_mem32 = MEM32_START,
        .next_mem64 = MEM64_START,
    };
    /* Through the ports, as the window is closed after reset; 256 MiB, on */
    qtest_outl(qts, 0xcf8, 0x80000000 | (PCIEXBAR + 4));
    qtest_outl(qts, 0xcfc, 0);
    qtest_outl(qts, 0xcf8, 0x80000000 | PCIEXBAR);
    qtest_outl(qts, 0xcfc, ECAM | 1);
    scan_bus(t, 0);
}

PcieFunction *pcie_find(PcieTopology *t, uint16_t vendor, uint16_t device,
                        unsigned nth)
{
    unsigned i;

    for (i = 0; i < t->count; i++) {
        PcieFunction *f = &t->fn[i];

        if (f->vendor == vendor && f->device == device && nth-- == 0) {
            return f;
        }
    }
    g_error("no such PCI function: %04x:%04x", vendor, device);
}

uint64_t qom_uint(QTestState *qts, const char *id, const char *property)
{
    g_autofree char *path = g_strdup_printf("/machine/peripheral/%s", id);
    QDict *rsp = qtest_qmp(qts, "{ 'execute': 'qom-get', 'arguments': "
                           "{ 'path': %s, 'property': %s } }", path, property);
    uint64_t value;

    g_assert(qdict_haskey(rsp, "return"));
    value = qdict_get_int(rsp, "return");
    qobject_unref(rsp);
    return value;
}

void qom_set_uint(QTestState *qts, const char *id, const char *property,
                  uint64_t value)
{
    g_autofree char *path = g_strdup_printf("/machine/peripheral/%s", id);

    qtest_qmp_assert_success(qts, "{ 'execute': 'qom-set', 'arguments': "
                             "{ 'path': %s, 'property': %s, 'value': %" PRIu64
                             " } }", path, property, value);
}

void expect_refusal(QTestState *qts, const char *text, const char *args)
{
    QDict *error = qtest_qmp_assert_failure_ref(
        qts, "{ 'execute': 'device_add', 'arguments': %p }",
        qobject_from_json(args, &error_abort));

    if (!strstr(qdict_get_str(error, "desc"), text)) {
        g_error("'%s' does not mention '%s'", qdict_get_str(error, "desc"),
                text);
    }
    qobject_unref(error);
}
