/*
 * A tiny driver of the GP100 GPU for qtests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/host-utils.h"
#include "gp100-driver.h"

#define INST(chid)      (V_INST + (chid) * 0x1000)
#define USERD(chid)     (V_USERD + (chid) * 0x200)
#define GPFIFO(chid)    (V_GPFIFO + (chid) * 0x100)
#define PUSH(chid)      (V_PUSH + (chid) * PUSH_SIZE)
#define PUSH_SIZE       0x400
#define RUNLIST(chid)   (V_RUNLIST + (chid) * 16)

#define USERD_GP_PUT    0x8c

uint32_t rd(Gpu *g, uint32_t reg)
{
    return qtest_readl(g->qts, g->bar0 + reg);
}

void wr(Gpu *g, uint32_t reg, uint32_t val)
{
    qtest_writel(g->qts, g->bar0 + reg, val);
}

/* Where VRAM at @addr is in PRAMIN, from now on. */
static uint64_t pramin(Gpu *g, uint64_t addr, size_t len)
{
    g_assert_cmpuint(addr % PRAMIN_SIZE + len, <=, PRAMIN_SIZE);
    wr(g, PBUS_BAR0_WINDOW, (addr & ~(PRAMIN_SIZE - 1ull)) >> 16);
    return g->bar0 + PRAMIN_BASE + addr % PRAMIN_SIZE;
}

void v_write(Gpu *g, uint64_t addr, const void *buf, size_t len)
{
    if (g->vram) {
        memcpy(g->vram + addr, buf, len);
    } else {
        qtest_memwrite(g->qts, pramin(g, addr, len), buf, len);
    }
}

void v_zero(Gpu *g, uint64_t addr, size_t len)
{
    if (g->vram) {
        memset(g->vram + addr, 0, len);
    } else {
        qtest_memset(g->qts, pramin(g, addr, len), 0, len);
    }
}

uint32_t v_ldl(Gpu *g, uint64_t addr)
{
    return g->vram ? ldl_le_p(g->vram + addr)
                   : qtest_readl(g->qts, pramin(g, addr, 4));
}

void v_stl(Gpu *g, uint64_t addr, uint32_t val)
{
    val = cpu_to_le32(val);
    v_write(g, addr, &val, sizeof(val));
}

void v_stq(Gpu *g, uint64_t addr, uint64_t val)
{
    val = cpu_to_le64(val);
    v_write(g, addr, &val, sizeof(val));
}

void set_large(Gpu *g, unsigned i, uint64_t pte)
{
    v_stq(g, V_PD0 + i * 16, pte);
    v_stq(g, V_PD0 + i * 16 + 8, 0);
}

void set_small(Gpu *g, unsigned i, uint64_t pte)
{
    v_stq(g, V_SPT + i * 8, pte);
}

void set_big(Gpu *g, unsigned i, uint64_t pte)
{
    v_stq(g, V_LPT + i * 8, pte);
}

void invalidate(Gpu *g, uint64_t pdb)
{
    wr(g, MMU_INVALIDATE_PDB, pdb >> 12 << 4);
    wr(g, MMU_INVALIDATE_PDB_HI, 0);
    wr(g, MMU_INVALIDATE, MMU_INVALIDATE_TRIGGER | 1);
}

/* The part of an instance block that says where the page tables are */
static void inst_set_space(Gpu *g, uint64_t inst)
{
    v_stq(g, inst + 0x200, V_PD3 | 1 << 10 | 1 << 11);
    v_stq(g, inst + 0x208, SPACE_SIZE - 1);
}

void make_space(Gpu *g)
{
    v_zero(g, V_INST, V_SEM - V_INST);
    inst_set_space(g, V_INST);
    v_stq(g, V_PD3, PDE(V_PD2));
    v_stq(g, V_PD2, PDE(V_PD1));
    v_stq(g, V_PD1, PDE(V_PD0));
    set_large(g, 0, PTE(0));
    v_stq(g, V_PD0 + 16, PDE(V_LPT));
    v_stq(g, V_PD0 + 24, PDE(V_SPT));
}

void bind_bar1(Gpu *g)
{
    wr(g, PBUS_BAR1_BLOCK, BAR_BLOCK_VIRTUAL | V_INST >> 12);
}

void channel_init(Gpu *g, unsigned chid)
{
    g_assert_cmpuint(chid, <, GPU_CHANNELS);
    /* Unbound first: where the channel is goes to its instance block. */
    wr(g, CCSR_INST + 8 * chid, 0);
    v_zero(g, INST(chid), 0x200);
    v_zero(g, USERD(chid), 0x200);
    inst_set_space(g, INST(chid));
    v_stl(g, INST(chid) + 0x08, USERD(chid));
    v_stl(g, INST(chid) + 0x48, GPFIFO(chid));
    v_stl(g, INST(chid) + 0x4c, ctz32(GP_ENTRIES) << 16);
    v_stl(g, RUNLIST(chid), 1 << 26 | 1 << 13 | GROUP(chid));
    v_stl(g, RUNLIST(chid) + 8, chid);
    v_stl(g, RUNLIST(chid) + 12, INST(chid) >> 12);
    wr(g, PFIFO_USERD_BASE, USERD_BASE_VALID | V_USERD >> 12);
    wr(g, PBDMA_INTR_EN_0, UINT32_MAX);
    wr(g, CCSR_INST + 8 * chid, CCSR_INST_BIND | INST(chid) >> 12);
    wr(g, CCSR_CHANNEL + 8 * chid, CCSR_ENABLE_SET);
    wr(g, PFIFO_RUNLIST_BASE, V_RUNLIST >> 12);
    wr(g, PFIFO_RUNLIST, 2 * (chid + 1));
}

void push_init(Push *p, unsigned chid)
{
    p->chid = chid;
    p->at = PUSH(chid);
    p->words = 0;
}

void push(Push *p, uint32_t word)
{
    g_assert_cmpuint(p->words, <, PUSH_SIZE / 4);
    p->word[p->words++] = cpu_to_le32(word);
}

void push_sem(Push *p, uint64_t va, uint32_t payload, uint32_t op)
{
    push(p, INC(0, 0x10, 4));
    push(p, va >> 32);
    push(p, va);
    push(p, payload);
    push(p, op);
}

void push_copy(Push *p, uint64_t src, uint64_t dst, uint32_t pitch_in,
               uint32_t pitch_out, uint32_t length, uint32_t count,
               uint32_t launch)
{
    push(p, INC(CE_SUBCH, 0x400, 8));
    push(p, src >> 32);
    push(p, src);
    push(p, dst >> 32);
    push(p, dst);
    push(p, pitch_in);
    push(p, pitch_out);
    push(p, length);
    push(p, count);
    push(p, INC(CE_SUBCH, 0x300, 1));
    push(p, launch);
}

unsigned push_entry(Gpu *g, Push *p)
{
    uint32_t put = v_ldl(g, USERD(p->chid) + USERD_GP_PUT) % GP_ENTRIES;
    uint64_t entry = GPFIFO(p->chid) + put * 8;

    if (p->at + 4 * p->words > PUSH(p->chid) + PUSH_SIZE) {
        p->at = PUSH(p->chid);
    }
    v_write(g, p->at, p->word, 4 * p->words);
    v_stl(g, entry, p->at);
    v_stl(g, entry + 4, p->words << 10);
    p->at += 4 * p->words;
    p->words = 0;
    return (put + 1) % GP_ENTRIES;
}

void set_put(Gpu *g, unsigned chid, uint32_t put)
{
    qtest_writel(g->qts, g->bar1 + USERD(chid) + USERD_GP_PUT, put);
}

void kick(Gpu *g, Push *p)
{
    set_put(g, p->chid, push_entry(g, p));
}
