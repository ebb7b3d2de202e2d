/*
 * Random use of the gp100 GPU: channels with page tables and pushbuffers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Each round begins with channels that work.  Jobs are submitted to them while
 * all that they consist of is changed: what a driver would write, what it would
 * not, and where somebody else has written.  What stopped a channel is mended
 * now and then, or nothing would happen any more.
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "hw/pci/pci_regs.h"
#include "device-fuzz.h"
#include "gp100-driver.h"

enum {
    VRAM_SIZE = 64 * MiB,
    SYS = 0x1000000,            /* guest memory */
    SYS_SIZE = 256 * KiB,
    SYS_MSI = SYS + SYS_SIZE - 4 * KiB,
    TABLE_SIZE = 0x1000,        /* of page tables; V_LPT's is smaller */
};

typedef struct State {
    Gpu g;
    uint64_t bar2;
    Push push[GPU_CHANNELS];
} State;

static uint64_t page_of(Fuzz *f, uint64_t start, uint64_t size)
{
    return start + fuzz_below(f, size / (4 * KiB)) * 4 * KiB;
}

/* Mostly that of a page that exists. */
static uint64_t random_pte(Fuzz *f)
{
    uint64_t ro = fuzz_chance(f, 10) ? PTE_RO : 0;

    switch (fuzz_below(f, 16)) {
    case 0:
        return 0;
    case 1:
        return PTE_SPARSE;
    case 2:
        return PTE_NO_SMALL;
    case 3:
        return 1 << 1 | 1;                      /* of a peer */
    case 4:
        return fuzz_value(f, 64);
    case 5:
        return PTE_SYS(fuzz_address(f) & ~0xfffull) | ro;
    case 6:
        return PTE(VRAM_SIZE - fuzz_below(f, 4) * 4 * KiB) | ro;
    case 7 ... 10:
        return PTE_SYS(page_of(f, SYS, SYS_SIZE)) | ro;
    default:
        return PTE(page_of(f, V_DATA, 4 * MiB)) | ro;
    }
}

static uint64_t random_pde(Fuzz *f)
{
    static const uint32_t tables[] = { V_PD2, V_PD1, V_PD0, V_LPT, V_SPT };

    switch (fuzz_below(f, 6)) {
    case 0:
        return 0;
    case 1:
        return PTE_SPARSE;
    case 2:
        return fuzz_value(f, 64);
    case 3:
        return page_of(f, SYS, SYS_SIZE) >> 4 | 2 << 1; /* system memory */
    default:
        return PDE(tables[fuzz_below(f, ARRAY_SIZE(tables))]);
    }
}

/* The address space as a driver leaves it, with pages of each kind. */
static void good_space(Fuzz *f, State *s)
{
    uint64_t small[256], big[16];

    for (unsigned i = 0; i < ARRAY_SIZE(small); i++) {
        small[i] = cpu_to_le64(i % 8 ? random_pte(f) : PTE_SPARSE);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(big); i++) {
        big[i] = cpu_to_le64(i % 4 ? PTE(V_DATA + i * 64 * KiB) :
                             random_pte(f));
    }
    make_space(&s->g);
    v_write(&s->g, V_SPT, small, sizeof(small));
    v_write(&s->g, V_LPT + 16 * 8, big, sizeof(big));
    for (unsigned i = 2; i < 8; i++) {
        set_large(&s->g, i, i % 2 ? PTE(i * 2 * MiB) : random_pte(f));
    }
    invalidate(&s->g, V_PD3);
}

static uint64_t random_va(Fuzz *f)
{
    switch (fuzz_below(f, 12)) {
    case 0:
        return fuzz_value(f, 49);
    case 1:
        return SPACE_SIZE - fuzz_below(f, 64);  /* at the limit */
    case 2:
        return VA_LOW + fuzz_below(f, 2 * MiB);
    case 3 ... 6:
        return VA_LARGE + fuzz_below(f, 12 * MiB);
    default:
        return VA_SMALL + fuzz_below(f, 2 * MiB);
    }
}

static uint64_t random_sem_va(Fuzz *f)
{
    return fuzz_chance(f, 95) ? V_SEM + fuzz_below(f, 16) * 16 : random_va(f);
}

/* ------------------------------------------------------------------ */
/* Jobs */

static void add_semaphore(Fuzz *f, Push *p)
{
    static const uint32_t ops[] = { 1, 2, 2, 4, 8 };
    uint32_t op = ops[fuzz_below(f, ARRAY_SIZE(ops))];

    if (fuzz_chance(f, 3)) {
        op = fuzz_value(f, 5);
    }
    push_sem(p, random_sem_va(f), fuzz_below(f, 4),
             op | (fuzz_chance(f, 50) ? 1 << 24 : 0));
}

/* Methods of the copy engine that a later launch uses */
static void add_ce_state(Fuzz *f, Push *p)
{
    switch (fuzz_below(f, 6)) {
    case 0:
        push(p, INC(CE_SUBCH, 0x240, 3));
        push(p, 0);
        push(p, random_sem_va(f));
        push(p, fuzz_below(f, 4));
        break;
    case 1:
        push(p, INC(CE_SUBCH, 0x700, 3));
        push(p, fuzz_value(f, 32));
        push(p, fuzz_value(f, 32));
        push(p, fuzz_chance(f, 60) ? 1 << 24 | fuzz_below(f, 4) << 16 |
                                     5 << 4 | 4 : fuzz_bits(f) & 0x03336777);
        break;
    case 2:
        push(p, IMM(CE_SUBCH, fuzz_chance(f, 50) ? 0x100 : 0x140, 0));
        break;
    case 3:
        push(p, IMM(CE_SUBCH, 0x254 + fuzz_below(f, 3) * 4, 0));
        break;
    case 4:
        push(p, IMM(CE_SUBCH, 0x70c + fuzz_below(f, 15) * 4, 1));
        break;
    default:
        push(p, INC(CE_SUBCH, 0, 1));
        push(p, CE_CLASS);
        break;
    }
}

/* One side of a copy: if @phys, what SET_PHYS_MODE at @mthd says. */
static uint64_t add_side(Fuzz *f, Push *p, unsigned mthd, bool phys)
{
    unsigned mode;

    if (!phys) {
        return random_va(f);
    }
    mode = fuzz_chance(f, 95) ? fuzz_below(f, 3) : 3;
    push(p, IMM(CE_SUBCH, mthd, mode));
    if (fuzz_chance(f, 5)) {
        return fuzz_address(f);
    }
    return mode ? SYS + fuzz_below(f, SYS_SIZE - 64 * KiB)
                : V_DATA + fuzz_below(f, 8 * MiB);
}

static void add_copy(Fuzz *f, Push *p)
{
    uint32_t launch = L_COPY | fuzz_below(f, 3) << 3 | fuzz_below(f, 3) << 5;
    uint32_t length = fuzz_below(f, 8 * KiB), lines = fuzz_below(f, 5);
    uint64_t src, dst;

    launch |= fuzz_chance(f, 30) ? L_MULTI : 0;
    launch |= fuzz_chance(f, 20) ? L_REMAP : 0;
    launch |= fuzz_chance(f, 50) ? L_SRC_PHYS : 0;
    launch |= fuzz_chance(f, 50) ? L_DST_PHYS : 0;
    if (fuzz_chance(f, 5)) {
        launch ^= 1u << fuzz_below(f, 20);
    }
    if (fuzz_chance(f, 5)) {
        launch &= ~3;                           /* only the semaphore */
    }
    if (fuzz_chance(f, 2)) {
        length = fuzz_value(f, 32);
        lines = fuzz_value(f, 32);
    }
    src = add_side(f, p, 0x260, launch & L_SRC_PHYS);
    dst = add_side(f, p, 0x264, launch & L_DST_PHYS);
    push_copy(p, src, dst, fuzz_below(f, 16 * KiB), fuzz_below(f, 16 * KiB),
              length, lines, launch);
}

static void add_host_method(Fuzz *f, Push *p)
{
    static const uint8_t methods[] = {
        0x00, 0x04, 0x08, 0x20, 0x20, 0x20, 0x24, 0x28, 0x34, 0x50, 0x78, 0x7c,
        0x80,
    };
    unsigned mthd = methods[fuzz_below(f, ARRAY_SIZE(methods))];

    if (fuzz_chance(f, 5)) {
        mthd = fuzz_below(f, 0x1000) * 4;
    }
    push(p, INC(fuzz_below(f, 8), mthd, 1));
    push(p, mthd ? fuzz_value(f, 32) : CE_CLASS);
}

/* Each form of a header, with NOPs */
static void add_header(Fuzz *f, Push *p)
{
    unsigned count = fuzz_below(f, 4);
    uint32_t headers[] = {
        0,
        3u << 29 | count << 16 | 0x08 >> 2,     /* not increasing */
        5u << 29 | count << 16 | 0x08 >> 2,     /* increasing once */
        0u << 29 | count << 18 | 0x78,          /* the old forms */
        2u << 29 | count << 18 | 0x08,
        0u << 29 | 1 << 16,                     /* subdevice mask */
        fuzz_chance(f, 30) ? 7u << 29 : 0,      /* end of the segment */
        fuzz_chance(f, 30) ? 6u << 29 : 0,
        fuzz_chance(f, 30) ? fuzz_value(f, 32) : 0,
    };

    push(p, headers[fuzz_below(f, ARRAY_SIZE(headers))]);
    while (count--) {
        push(p, 0);
    }
}

static void fuzz_submit(Fuzz *f, State *s)
{
    Push *p = &s->push[fuzz_below(f, GPU_CHANNELS)];
    unsigned put;

    for (unsigned n = 1 + fuzz_below(f, 4); n; n--) {
        unsigned what = fuzz_below(f, 100);

        if (what < 50) {
            add_copy(f, p);
        } else if (what < 65) {
            add_semaphore(f, p);
        } else if (what < 80) {
            add_ce_state(f, p);
        } else if (what < 90) {
            add_host_method(f, p);
        } else {
            add_header(f, p);
        }
    }
    if (fuzz_chance(f, 10)) {
        p->word[fuzz_below(f, p->words)] = fuzz_value(f, 32);
    }
    put = push_entry(&s->g, p);
    if (fuzz_chance(f, 3)) {
        v_stl(&s->g, V_GPFIFO + p->chid * 0x100 + fuzz_below(f, 64) * 4,
              fuzz_value(f, 32));
    }
    if (fuzz_chance(f, 2)) {
        put = fuzz_value(f, 32);
    }
    set_put(&s->g, p->chid, put);
}

/* ------------------------------------------------------------------ */
/* What jobs need */

static void fuzz_tables(Fuzz *f, State *s)
{
    static const uint32_t directories[] = { V_PD3, V_PD2, V_PD1 };
    Gpu *g = &s->g;

    switch (fuzz_below(f, 8)) {
    case 0:
        v_stq(g, directories[fuzz_below(f, ARRAY_SIZE(directories))] +
                 (fuzz_chance(f, 80) ? 0 : fuzz_below(f, TABLE_SIZE / 8) * 8),
              random_pde(f));
        break;
    case 1:
        v_stq(g, V_PD0 + fuzz_below(f, 32) * 8, random_pde(f));
        break;
    case 2 ... 3:
        set_large(g, 1 + fuzz_below(f, SPACE_SIZE / (2 * MiB) - 1),
                  random_pte(f));
        break;
    case 4:
        set_big(g, fuzz_below(f, 32), random_pte(f));
        break;
    default:
        set_small(g, fuzz_below(f, 512), random_pte(f));
        break;
    }
    if (fuzz_chance(f, 60)) {
        invalidate(g, fuzz_chance(f, 90) ? V_PD3 : fuzz_address(f));
    } else if (fuzz_chance(f, 20)) {
        wr(g, MMU_INVALIDATE, MMU_INVALIDATE_TRIGGER | fuzz_value(f, 8));
    }
}

static void fuzz_instance(Fuzz *f, State *s)
{
    static const uint16_t fields[] = {
        0x00, 0x08, 0x0c, 0x14, 0x48, 0x4c, 0x200, 0x204, 0x208, 0x20c,
    };
    unsigned chid = fuzz_below(f, GPU_CHANNELS);
    uint64_t inst = V_INST + chid * 0x1000;
    /* Half of them where the model keeps its part of a channel's state */
    unsigned field = fuzz_chance(f, 50) ?
                     fields[fuzz_below(f, ARRAY_SIZE(fields))] :
                     0x100 + fuzz_below(f, 33) * 4;
    Gpu *g = &s->g;

    wr(g, CCSR_INST + chid * 8, 0);
    v_stl(g, inst + field, fuzz_value(f, 32));
    if (fuzz_chance(f, 3)) {
        inst = fuzz_address(f);
    }
    wr(g, CCSR_INST + chid * 8,
       CCSR_INST_BIND | (uint32_t)(inst >> 12) % (1u << 28));
}

static void fuzz_runlist(Fuzz *f, State *s)
{
    unsigned count = 2 * GPU_CHANNELS;
    Gpu *g = &s->g;

    switch (fuzz_below(f, 4)) {
    case 0:
        v_stl(g, V_RUNLIST + fuzz_below(f, 4 * GPU_CHANNELS) * 4,
              fuzz_value(f, 32));
        break;
    case 1:
        count = fuzz_value(f, 24);
        break;
    case 2:
        wr(g, PFIFO_RUNLIST_BASE, fuzz_chance(f, 50) ? fuzz_value(f, 32) :
                                  3u << 28 | SYS >> 12);
        break;
    }
    wr(g, PFIFO_RUNLIST, count);
}

static void fuzz_schedule(Fuzz *f, State *s)
{
    unsigned chid = fuzz_below(f, GPU_CHANNELS);
    Gpu *g = &s->g;

    switch (fuzz_below(f, 10)) {
    case 0 ... 1:
        wr(g, PFIFO_SCHED_DISABLE, 1);
        if (fuzz_chance(f, 90)) {
            fuzz_submit(f, s);
            wr(g, PFIFO_SCHED_DISABLE, 0);
        }
        break;
    case 2 ... 3:
        wr(g, CCSR_CHANNEL + chid * 8, CCSR_ENABLE_CLR);
        if (fuzz_chance(f, 80)) {
            wr(g, CCSR_CHANNEL + chid * 8, CCSR_ENABLE_SET);
        }
        break;
    case 4 ... 5:
        wr(g, PFIFO_PREEMPT, fuzz_value(f, 32));
        break;
    case 6:
        wr(g, PMC_ENABLE, ~(fuzz_chance(f, 20) ? PMC_UNIT_PFIFO :
                            PMC_UNIT_CE0));
        wr(g, PMC_ENABLE, UINT32_MAX);
        break;
    case 7:
        wr(g, PFIFO_FAULT_TRIGGER + fuzz_below(f, 2) * 4,
           FAULT_TRIGGER_ENABLE | (fuzz_chance(f, 80) ? 0x15 :
                                   fuzz_value(f, 5)));
        break;
    case 8:
        wr(g, PFIFO_USERD_BASE, fuzz_chance(f, 50) ? fuzz_value(f, 29) :
                                USERD_BASE_VALID | V_USERD >> 12);
        break;
    case 9:
        wr(g, fuzz_chance(f, 50) ? PBUS_BAR1_BLOCK : PBUS_BAR2_BLOCK,
           fuzz_chance(f, 50) ? BAR_BLOCK_VIRTUAL | V_INST >> 12 :
           fuzz_value(f, 32));
        break;
    }
}

/* As a driver serves its interrupts, or not quite */
static void fuzz_interrupt(Fuzz *f, State *s)
{
    Gpu *g = &s->g;

    switch (fuzz_below(f, 8)) {
    case 0:
        wr(g, PMC_INTR_EN_CLEAR, UINT32_MAX);
        wr(g, XVE_MSI_REARM, 0);
        wr(g, PMC_INTR_EN_SET, fuzz_chance(f, 90) ? UINT32_MAX :
                               fuzz_value(f, 32));
        break;
    case 1:
        wr(g, PFIFO_INTR_EN, fuzz_chance(f, 70) ? UINT32_MAX :
                             fuzz_value(f, 32));
        wr(g, PBDMA_INTR_EN_0, fuzz_chance(f, 90) ? UINT32_MAX :
                               fuzz_value(f, 32));
        break;
    case 2:
        wr(g, PTIMER_ALARM_0, rd(g, PTIMER_TIME_0) + fuzz_value(f, 20));
        wr(g, PTIMER_INTR_EN, fuzz_chance(f, 80));
        break;
    case 3:
        wr(g, PFIFO_FAULT_BUF_LO, fuzz_value(f, 32));
        wr(g, PFIFO_FAULT_BUF_GET, fuzz_value(f, 8));
        break;
    default:
        wr(g, PFIFO_FAULT_UNITS, rd(g, PFIFO_FAULT_UNITS));
        wr(g, PBDMA_INTR_0, rd(g, PBDMA_INTR_0));
        wr(g, PFIFO_RUNLIST_INTR, UINT32_MAX);
        wr(g, PFIFO_INTR, rd(g, PFIFO_INTR));
        wr(g, CE_INTR, rd(g, CE_INTR));
        wr(g, PTIMER_INTR, 1);
        break;
    }
}

static void fuzz_bars(Fuzz *f, State *s)
{
    uint64_t va = random_va(f) % SPACE_SIZE;
    Gpu *g = &s->g;

    switch (fuzz_below(f, 5)) {
    case 0:
        qtest_readq(g->qts, g->bar1 + va);
        break;
    case 1:
        qtest_writeq(g->qts, g->bar1 + va, fuzz_value(f, 64));
        break;
    case 2:
        qtest_readl(g->qts, s->bar2 + va % (32 * MiB));
        break;
    case 3:
        qtest_writel(g->qts, s->bar2 + va % (32 * MiB), fuzz_value(f, 32));
        break;
    case 4:
        wr(g, PBUS_BAR0_WINDOW, fuzz_value(f, 11));
        rd(g, PRAMIN_BASE + va % PRAMIN_SIZE / 4 * 4);
        break;
    }
}

/* What an acquire may wait for */
static void fuzz_semaphores(Fuzz *f, State *s)
{
    uint32_t words[16 * 4];

    for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
        words[i] = cpu_to_le32(fuzz_below(f, 4));
    }
    v_write(&s->g, V_SEM, words, sizeof(words));
}

static void fuzz_inject(Fuzz *f, State *s)
{
    static const char *const names[] = {
        "copy-delay-us", "fail-copies", "hang-copies", "drop-nonstall",
    };

    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        qom_set_uint(f->qts, "gpu", names[i],
                     fuzz_chance(f, 20) ? fuzz_below(f, 5) : 0);
    }
}

/* Refused while the last one has not ended */
static void ask_access(Fuzz *f, const char *value)
{
    qobject_unref(qtest_qmp(f->qts, "{'execute': 'qom-set', 'arguments': "
                            "{'path': '/machine/peripheral/gpu', "
                            "'property': 'access', 'value': %s}}", value));
}

/* Accesses as if by the graphics engine, and what a driver does about them */
static void fuzz_access(Fuzz *f, State *s)
{
    Gpu *g = &s->g;
    uint64_t va = random_va(f) & ~7ull;
    unsigned chid = fuzz_below(f, GPU_CHANNELS);
    uint64_t inst = V_INST + chid * 0x1000;
    g_autofree char *value = NULL;

    switch (fuzz_below(f, 6)) {
    case 0:
        v_stl(g, inst + 0x200, v_ldl(g, inst + 0x200) | 1 << 4);
        wr(g, PFIFO_FAULT_BUF_HI, fuzz_chance(f, 90) ? 0 : fuzz_value(f, 17));
        wr(g, PFIFO_FAULT_BUF_LO, (fuzz_chance(f, 80) ? 0x40000 :
                                   fuzz_value(f, 26)) | 1);
        break;
    case 1:
        wr(g, PFIFO_FAULT_BUF_GET, fuzz_chance(f, 80) ?
                                   rd(g, PFIFO_FAULT_BUF_PUT) :
                                   fuzz_value(f, 8));
        break;
    case 2:
        wr(g, MMU_INVALIDATE, MMU_INVALIDATE_TRIGGER | 3 |
           (fuzz_chance(f, 70) ? REPLAY_START : fuzz_below(f, 8)) << 3 |
           fuzz_below(f, 3) << 9);
        break;
    default:
        value = fuzz_chance(f, 50)
            ? g_strdup_printf("read %u 0x%" PRIx64, chid, va)
            : g_strdup_printf("write %u 0x%" PRIx64 " 0x%" PRIx64, chid, va,
                              fuzz_value(f, 64));
        ask_access(f, fuzz_chance(f, 95) ? value : "forget");
        break;
    }
}

/* ------------------------------------------------------------------ */

/* What a driver does when it loads, or after an error */
static void revive(Fuzz *f, State *s)
{
    Gpu *g = &s->g;

    wr(g, PFIFO_SCHED_DISABLE, 1);
    wr(g, PMC_ENABLE, ~PMC_UNIT_CE0);
    wr(g, PMC_ENABLE, UINT32_MAX);
    good_space(f, s);
    bind_bar1(g);
    wr(g, PBUS_BAR2_BLOCK, BAR_BLOCK_VIRTUAL | V_INST >> 12);
    wr(g, PFIFO_RUNLIST, 0);
    for (unsigned i = 0; i < GPU_CHANNELS; i++) {
        channel_init(g, i);
        push_init(&s->push[i], i);
        push(&s->push[i], INC(CE_SUBCH, 0, 1));
        push(&s->push[i], CE_CLASS);
    }
    fuzz_semaphores(f, s);
    wr(g, PBDMA_INTR_0, UINT32_MAX);
    wr(g, PFIFO_FAULT_UNITS, UINT32_MAX);
    wr(g, PFIFO_INTR_EN, UINT32_MAX);
    wr(g, PMC_INTR_EN_SET, UINT32_MAX);
    wr(g, PFIFO_ERROR_SCHED, 1);
    wr(g, PFIFO_SCHED_DISABLE, 0);
}

static void *gp100_start(Fuzz *f)
{
    const PcieFunction *fn = pcie_find(&f->topology, GPU_VENDOR, GPU_DEVICE,
                                       0);
    unsigned msi = pcie_cap(&f->topology, fn->bdf, PCI_CAP_ID_MSI);
    State *s = g_new0(State, 1);

    s->g.qts = f->qts;
    s->g.bar0 = fn->bar[0];
    s->g.bar1 = fn->bar[1];
    s->bar2 = fn->bar[3];
    if (fuzz_chance(f, 50)) {
        pcie_writel(&f->topology, fn->bdf, msi + PCI_MSI_ADDRESS_LO, SYS_MSI);
        pcie_writel(&f->topology, fn->bdf, msi + PCI_MSI_ADDRESS_HI, 0);
        pcie_writew(&f->topology, fn->bdf, msi + PCI_MSI_FLAGS,
                    PCI_MSI_FLAGS_ENABLE);
    }
    fuzz_inject(f, s);
    revive(f, s);
    return s;
}

static void gp100_step(Fuzz *f, void *opaque)
{
    static const struct {
        unsigned weight;
        void (*step)(Fuzz *f, State *s);
    } steps[] = {
        { 45, fuzz_submit },
        { 8, fuzz_tables },
        { 4, fuzz_instance },
        { 3, fuzz_runlist },
        { 8, fuzz_schedule },
        { 8, fuzz_interrupt },
        { 8, fuzz_bars },
        { 5, fuzz_semaphores },
        { 1, fuzz_inject },
        { 5, fuzz_access },
        { 5, revive },
    };
    unsigned what = fuzz_below(f, 100), i = 0;

    while (what >= steps[i].weight) {
        what -= steps[i++].weight;
    }
    steps[i].step(f, opaque);
}

static const uint32_t gp100_ids[] = { GPU_VENDOR << 16 | GPU_DEVICE, 0 };
static const char *const gp100_counts[] = {
    "gpu.method-counts", "gpu.event-counts", NULL
};

const FuzzDevice fuzz_gp100 = {
    .name = "gp100",
    .options = "-machine q35 -m 256 -nodefaults "
               "-device gp100,id=gpu,vram-size=64M,bar1-size=64M,addr=4.0 "
               "-device p2pdev,size=16M,addr=5.0",
    .ids = gp100_ids,
    .memory = { { SYS, SYS_SIZE } },
    .counts = gp100_counts,
    .start = gp100_start,
    .step = gp100_step,
    .stop = g_free,
};
