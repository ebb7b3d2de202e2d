/*
 * GP100: copy engine, class PASCAL_DMA_COPY_A.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Method names and fields: NVIDIA's clc0b5.h.  Only pitch layouts are
 * implemented; a launch that needs a block-linear layout is refused.
 *
 * A launch may ask for any amount of work, so it is carried out in steps
 * that each respect a budget.  Where the hardware's outcome is undefined
 * (overlapping source and destination) a step behaves like memmove().
 */

#include "qemu/osdep.h"
#include "qemu/range.h"
#include "gp100.h"
#include "trace.h"

#define CE_SEMAPHORE_A          0x240
#define CE_SEMAPHORE_B          0x244
#define CE_SEMAPHORE_PAYLOAD    0x248
#define CE_SRC_PHYS_MODE        0x260
#define CE_DST_PHYS_MODE        0x264
#define CE_LAUNCH_DMA           0x300
#define   LAUNCH_TRANSFER(l)      extract32(l, 0, 2)
#define   LAUNCH_TRANSFER_MASK    (3u << 0)
#define   LAUNCH_SEMAPHORE(l)     extract32(l, 3, 2)
#define   LAUNCH_SEMAPHORE_MASK   (3u << 3)
#define     SEMAPHORE_FOUR_WORDS    2
#define   LAUNCH_INTERRUPT(l)     extract32(l, 5, 2)
#define   LAUNCH_INTERRUPT_MASK   (3u << 5)
#define     INTERRUPT_BLOCKING      1
#define     INTERRUPT_NON_BLOCKING  2
#define   LAUNCH_SRC_PITCH        (1u << 7)
#define   LAUNCH_DST_PITCH        (1u << 8)
#define   LAUNCH_MULTI_LINE       (1u << 9)
#define   LAUNCH_REMAP            (1u << 10)
#define   LAUNCH_SRC_PHYSICAL     (1u << 12)
#define   LAUNCH_DST_PHYSICAL     (1u << 13)
#define   LAUNCH_REDUCTION        (1u << 19)
#define CE_OFFSET_IN_UPPER      0x400
#define CE_OFFSET_OUT_UPPER     0x408
#define CE_PITCH_IN             0x410
#define CE_PITCH_OUT            0x414
#define CE_LINE_LENGTH_IN       0x418
#define CE_LINE_COUNT           0x41c
#define CE_REMAP_CONST_A        0x700
#define CE_REMAP_CONST_B        0x704
#define CE_REMAP_COMPONENTS     0x708
#define   REMAP_DST(c, i)         extract32(c, 4 * (i), 3)
#define     REMAP_CONST_A           4
#define     REMAP_NO_WRITE          6
#define   REMAP_SIZE(c)           (extract32(c, 16, 2) + 1)
#define   REMAP_NUM_SRC(c)        (extract32(c, 20, 2) + 1)
#define   REMAP_NUM_DST(c)        (extract32(c, 24, 2) + 1)
#define OFFSET_UPPER_MASK       0x0001ffff

/* CE_LAUNCHERR */
typedef enum CeLaunchError {
    CE_ERR_RECT_OUT_OF_BOUNDS = 0x3,
    CE_ERR_INVALID_VALUE = 0x9,
    CE_ERR_INVALID_OPERATION = 0xb,
    CE_ERR_NO_RESOURCES = 0xc,
    CE_ERR_INVALID_CONFIG = 0xd,
} CeLaunchError;

/* A step moves at most this much before it looks at its budget again. */
#define CE_CHUNK                (1 * MiB)
/* What setting up a chunk costs, in bytes of budget. */
#define CE_CHUNK_COST           512
/* The same of a call to another device's handler, which moves 8 at most. */
#define CE_MMIO_COST            512

static const struct {
    uint16_t first, last;
    const char *name;
} methods[] = {
    { 0x100, 0x100, "NOP" },
    { 0x140, 0x140, "PM_TRIGGER" },
    { CE_SEMAPHORE_A, CE_SEMAPHORE_PAYLOAD, "SET_SEMAPHORE" },
    { 0x254, 0x25c, "SET_RENDER_ENABLE" },
    { CE_SRC_PHYS_MODE, CE_DST_PHYS_MODE, "SET_PHYS_MODE" },
    { CE_LAUNCH_DMA, CE_LAUNCH_DMA, "LAUNCH_DMA" },
    { CE_OFFSET_IN_UPPER, CE_LINE_COUNT, "OFFSET_PITCH_LINE" },
    { CE_REMAP_CONST_A, CE_REMAP_COMPONENTS, "SET_REMAP" },
    { 0x70c, 0x744, "SET_BLOCK_LINEAR" },
};

QEMU_BUILD_BUG_ON(ARRAY_SIZE(methods) > GP100_CE_METHOD_NAMES);

void gp100_ce_counts(const GP100State *s, GString *text)
{
    for (unsigned i = 0; i < ARRAY_SIZE(methods); i++) {
        gp100_count_append(text, "CE.", methods[i].name,
                           &s->stats.ce_methods[i]);
    }
}

/* Count the launch that has ended for all that it was. */
static void ce_count(GP100State *s, bool good)
{
    static const struct {
        uint32_t mask, value;
        GP100Event event;
    } kinds[] = {
        { LAUNCH_SRC_PHYSICAL, 0, GP100_EVENT_CE_SRC_VIRTUAL },
        { LAUNCH_SRC_PHYSICAL, LAUNCH_SRC_PHYSICAL,
          GP100_EVENT_CE_SRC_PHYSICAL },
        { LAUNCH_DST_PHYSICAL, 0, GP100_EVENT_CE_DST_VIRTUAL },
        { LAUNCH_DST_PHYSICAL, LAUNCH_DST_PHYSICAL,
          GP100_EVENT_CE_DST_PHYSICAL },
        { LAUNCH_MULTI_LINE, LAUNCH_MULTI_LINE, GP100_EVENT_CE_LINES },
        { LAUNCH_REMAP, LAUNCH_REMAP, GP100_EVENT_CE_REMAP },
        { LAUNCH_TRANSFER_MASK, 0, GP100_EVENT_CE_NO_TRANSFER },
        { LAUNCH_SEMAPHORE_MASK, 1 << 3, GP100_EVENT_CE_RELEASE },
        { LAUNCH_SEMAPHORE_MASK, SEMAPHORE_FOUR_WORDS << 3,
          GP100_EVENT_CE_RELEASE_STAMP },
        { LAUNCH_INTERRUPT_MASK, INTERRUPT_BLOCKING << 5,
          GP100_EVENT_CE_BLOCKING_INTR },
        { LAUNCH_INTERRUPT_MASK, INTERRUPT_NON_BLOCKING << 5,
          GP100_EVENT_CE_NON_BLOCKING_INTR },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
        if ((s->ce.launch & kinds[i].mask) == kinds[i].value) {
            gp100_did(s, kinds[i].event, good);
        }
    }
}

static GP100Event ce_error_event(CeLaunchError error)
{
    switch (error) {
    case CE_ERR_RECT_OUT_OF_BOUNDS:
        return GP100_EVENT_CE_ERROR_BOUNDS;
    case CE_ERR_INVALID_VALUE:
        return GP100_EVENT_CE_ERROR_VALUE;
    case CE_ERR_INVALID_OPERATION:
        return GP100_EVENT_CE_ERROR_OPERATION;
    case CE_ERR_NO_RESOURCES:
        return GP100_EVENT_CE_ERROR_RESOURCES;
    case CE_ERR_INVALID_CONFIG:
        return GP100_EVENT_CE_ERROR_CONFIG;
    }
    g_assert_not_reached();
}

static void ce_raise(GP100State *s, uint32_t intr)
{
    gp100_reg_set(s, CE_INTR, gp100_reg(s, CE_INTR) | intr);
    gp100_irq_update(s);
}

static void ce_launch_error(GP100State *s, CeLaunchError error)
{
    gp100_guest_error(s, "channel %u: launch error %u", s->ce.chid, error);
    gp100_did(s, ce_error_event(error), true);
    ce_count(s, false);
    s->stats.ce_errors++;
    s->ce.busy = false;
    s->fifo.chan[s->ce.chid].wait = GP100_WAIT_ERROR;
    gp100_reg_set(s, CE_LAUNCHERR, error);
    ce_raise(s, CE_INTR_LAUNCHERR);
}

static void ce_fault(GP100State *s, uint64_t va, bool write,
                     GP100FaultType fault)
{
    if (fault == GP100_FAULT_BUS) {
        ce_launch_error(s, CE_ERR_INVALID_OPERATION);
        return;
    }
    ce_count(s, false);
    s->stats.ce_errors++;
    s->ce.busy = false;
    s->fifo.chan[s->ce.chid].wait = GP100_WAIT_ERROR;
    gp100_mmu_fault(s, GP100_UNIT_CE0, &s->ce.space, va, write, fault);
}

/*
 * Where byte @offset of @side's line is.  Physical addresses need no
 * translation; whether they exist is found out by the access.
 */
static GP100FaultType side_resolve(GP100State *s, const GP100CopySide *side,
                                   uint64_t offset, bool write, GP100Xlat *x)
{
    uint64_t addr = side->addr + offset;

    if (!side->phys) {
        return gp100_translate(s, &s->ce.space, addr, write, x);
    }
    x->addr = addr;
    x->aper = side->aper;
    x->left = UINT64_MAX;
    x->ro = false;
    return GP100_FAULT_NONE;
}

/*
 * Is any of @n bytes of system memory at @addr the same memory as VRAM at
 * @vram?  It may be where the address is in this GPU's own BAR1.
 */
static bool sys_is_vram(GP100State *s, uint64_t addr, uint64_t vram,
                        uint64_t n, bool write)
{
    AddressSpace *as = pci_get_address_space(PCI_DEVICE(s));

    RCU_READ_LOCK_GUARD();
    for (uint64_t left = n; left;) {
        hwaddr at, len = left;
        MemoryRegion *mr = address_space_translate(as, addr, &at, &len, write,
                                                   MEMTXATTRS_UNSPECIFIED);

        if (mr == s->vram_mr && ranges_overlap(at, len, vram, n)) {
            return true;
        }
        /* The length of MMIO is not cut where the region, or a page, ends. */
        if (!memory_region_is_ram(mr)) {
            len = MIN(left, 4 * KiB - addr % (4 * KiB));
        }
        addr += len;
        left -= len;
    }
    return false;
}

/*
 * Can @x be the buffer from or to which @n bytes of @other go?  Not if they
 * overlap: DMA is carried out in pieces, and no piece is a memmove().
 */
static bool is_buffer(GP100State *s, const GP100Xlat *x,
                      const GP100Xlat *other, uint64_t n, bool write)
{
    bool sys = other->aper == GP100_APER_SYS_COH ||
               other->aper == GP100_APER_SYS_NCOH;

    return x->aper == GP100_APER_VRAM &&
           !(sys && sys_is_vram(s, other->addr, x->addr, n, write));
}

/* Is @x an address of VRAM that does not exist? */
static bool vram_missing(GP100State *s, const GP100Xlat *x, uint64_t n)
{
    return x->aper == GP100_APER_VRAM && !gp100_vram(s, x->addr, n);
}

static void count_bytes(GP100State *s, GP100Aperture src, GP100Aperture dst,
                        uint64_t n)
{
    bool from_vram = src == GP100_APER_VRAM, to_vram = dst == GP100_APER_VRAM;

    if (from_vram && to_vram) {
        s->stats.ce_bytes_d2d += n;
        gp100_did(s, GP100_EVENT_CE_D2D, true);
    } else if (from_vram) {
        s->stats.ce_bytes_d2h += n;
        gp100_did(s, GP100_EVENT_CE_D2H, true);
    } else if (to_vram) {
        s->stats.ce_bytes_h2d += n;
        gp100_did(s, GP100_EVENT_CE_H2D, true);
    } else {
        s->stats.ce_bytes_h2h += n;
        gp100_did(s, GP100_EVENT_CE_H2H, true);
    }
}

/* Move up to @max bytes of the current line.  How many, or 0: it failed. */
static uint64_t copy_chunk(GP100State *s, uint64_t max)
{
    GP100Ce *ce = &s->ce;
    GP100Xlat src, dst;
    GP100FaultType fault;
    uint64_t n;
    void *p;
    bool ok;

    fault = side_resolve(s, &ce->src, ce->done, false, &src);
    if (fault != GP100_FAULT_NONE) {
        ce_fault(s, ce->src.addr + ce->done, false, fault);
        return 0;
    }
    fault = side_resolve(s, &ce->dst, ce->done, true, &dst);
    if (fault != GP100_FAULT_NONE) {
        ce_fault(s, ce->dst.addr + ce->done, true, fault);
        return 0;
    }
    n = MIN(max, MIN(src.left, dst.left));

    if (is_buffer(s, &dst, &src, n, false)) {
        p = gp100_vram(s, dst.addr, n);
        ok = p && gp100_phys_read(s, src.aper, src.addr, p, n);
    } else if (is_buffer(s, &src, &dst, n, true)) {
        p = gp100_vram(s, src.addr, n);
        ok = p && gp100_phys_write(s, dst.aper, dst.addr, p, n);
    } else {
        n = MIN(n, sizeof(ce->bounce[0]));
        p = ce->bounce[0];
        ok = gp100_phys_read(s, src.aper, src.addr, p, n) &&
             gp100_phys_write(s, dst.aper, dst.addr, p, n);
    }
    if (!ok) {
        ce_launch_error(s, vram_missing(s, &src, n) || vram_missing(s, &dst, n)
                           ? CE_ERR_RECT_OUT_OF_BOUNDS
                           : CE_ERR_INVALID_OPERATION);
        return 0;
    }
    count_bytes(s, src.aper, dst.aper, n);
    return n;
}

/* Read or write @n bytes of one side, page by page. */
static bool side_access(GP100State *s, const GP100CopySide *side,
                        uint64_t offset, uint8_t *buf, uint64_t n, bool write)
{
    while (n) {
        GP100Xlat x;
        GP100FaultType fault = side_resolve(s, side, offset, write, &x);
        uint64_t part;

        if (fault != GP100_FAULT_NONE) {
            ce_fault(s, side->addr + offset, write, fault);
            return false;
        }
        part = MIN(n, x.left);
        if (!(write ? gp100_phys_write(s, x.aper, x.addr, buf, part)
                    : gp100_phys_read(s, x.aper, x.addr, buf, part))) {
            ce_launch_error(s, vram_missing(s, &x, part)
                               ? CE_ERR_RECT_OUT_OF_BOUNDS
                               : CE_ERR_INVALID_OPERATION);
            return false;
        }
        offset += part;
        buf += part;
        n -= part;
    }
    return true;
}

/*
 * Remapping: elements of 1..4 components are put together from components
 * of the source element and two constants.  @max and the result are bytes of
 * the destination.
 */
static uint64_t remap_chunk(GP100State *s, uint64_t max)
{
    GP100Ce *ce = &s->ce;
    uint32_t c = ce->remap_components;
    unsigned size = REMAP_SIZE(c);
    unsigned src_size = size * REMAP_NUM_SRC(c);
    unsigned dst_size = size * REMAP_NUM_DST(c);
    uint8_t *in = ce->bounce[0], *out = ce->bounce[1];
    uint64_t elements = MIN(max, sizeof(ce->bounce[1])) / dst_size;
    uint64_t first = ce->done / dst_size;
    bool need_src = false, need_dst = false;
    uint8_t konst[2][4];

    elements = MIN(elements, sizeof(ce->bounce[0]) / src_size);
    elements = MAX(elements, 1);
    stl_le_p(konst[0], ce->remap_const[0]);
    stl_le_p(konst[1], ce->remap_const[1]);
    for (unsigned i = 0; i < REMAP_NUM_DST(c); i++) {
        need_src |= REMAP_DST(c, i) < REMAP_CONST_A;
        need_dst |= REMAP_DST(c, i) == REMAP_NO_WRITE;
    }
    if (need_src && !side_access(s, &ce->src, first * src_size, in,
                                 elements * src_size, false)) {
        return 0;
    }
    if (need_dst && !side_access(s, &ce->dst, ce->done, out,
                                 elements * dst_size, false)) {
        return 0;
    }
    for (uint64_t e = 0; e < elements; e++) {
        for (unsigned i = 0; i < REMAP_NUM_DST(c); i++) {
            unsigned from = REMAP_DST(c, i);
            uint8_t *to = out + e * dst_size + i * size;

            if (from < REMAP_CONST_A) {
                memcpy(to, in + e * src_size + from * size, size);
            } else if (from < REMAP_NO_WRITE) {
                memcpy(to, konst[from - REMAP_CONST_A], size);
            }
        }
    }
    if (!side_access(s, &ce->dst, ce->done, out, elements * dst_size, true)) {
        return 0;
    }
    s->stats.ce_bytes_fill += elements * dst_size;
    return elements * dst_size;
}

/* A remapped element must not name a source component that is not there. */
static bool remap_valid(uint32_t c)
{
    for (unsigned i = 0; i < REMAP_NUM_DST(c); i++) {
        unsigned from = REMAP_DST(c, i);

        if (from > REMAP_NO_WRITE ||
            (from < REMAP_CONST_A && from >= REMAP_NUM_SRC(c))) {
            return false;
        }
    }
    return true;
}

static bool ce_semaphore_release(GP100State *s)
{
    GP100Ce *ce = &s->ce;
    GP100Channel *ch = &s->fifo.chan[ce->chid];
    uint64_t va, fault_va;
    GP100FaultType fault;

    va = (uint64_t)(ch->ce[CE_SEMAPHORE_A / 4] & OFFSET_UPPER_MASK) << 32 |
         ch->ce[CE_SEMAPHORE_B / 4];
    fault = gp100_semaphore_write(
        s, &ce->space, va, ch->ce[CE_SEMAPHORE_PAYLOAD / 4],
        LAUNCH_SEMAPHORE(ce->launch) == SEMAPHORE_FOUR_WORDS, &fault_va);
    if (fault != GP100_FAULT_NONE) {
        ce_fault(s, fault_va, true, fault);
        return false;
    }
    return true;
}

static void ce_complete(GP100State *s)
{
    GP100Ce *ce = &s->ce;

    if (LAUNCH_SEMAPHORE(ce->launch) && !ce_semaphore_release(s)) {
        return;
    }
    ce->busy = false;
    ce_count(s, true);
    trace_gp100_ce_done(ce->chid, ce->launch);
    switch (LAUNCH_INTERRUPT(ce->launch)) {
    case INTERRUPT_BLOCKING:
        ce_raise(s, CE_INTR_BLOCKPIPE);
        break;
    case INTERRUPT_NON_BLOCKING:
        ce_raise(s, CE_INTR_NONBLOCKPIPE);
        break;
    }
}

void gp100_ce_step(GP100State *s, GP100Budget *budget)
{
    GP100Ce *ce = &s->ce;
    int64_t begin = get_clock();

    while (ce->busy && ce->lines && budget->bytes > 0) {
        uint64_t max = MIN(ce->line_bytes - ce->done, CE_CHUNK);
        uint64_t mmio = s->sys_mmio;
        uint64_t n = ce->remap ? remap_chunk(s, max) : copy_chunk(s, max);

        if (n == 0) {
            return;                     /* the error has been reported */
        }
        budget->bytes -= n + CE_CHUNK_COST +
                         CE_MMIO_COST * (s->sys_mmio - mmio);
        ce->done += n;
        if (ce->done >= ce->line_bytes) {
            ce->done = 0;
            ce->lines--;
            ce->src.addr += ce->src.pitch;
            ce->dst.addr += ce->dst.pitch;
        }
    }
    if (ce->busy && ce->lines == 0) {
        ce_complete(s);
    }
    s->stats.ce_ns += get_clock() - begin;
}

static bool ce_side(GP100Channel *ch, uint32_t launch, GP100CopySide *side,
                    uint32_t physical, unsigned offset, unsigned pitch,
                    unsigned mode)
{
    static const GP100Aperture targets[] = {
        GP100_APER_VRAM, GP100_APER_SYS_COH, GP100_APER_SYS_NCOH,
        GP100_APER_PEER,
    };

    side->addr =
        (uint64_t)(ch->ce[offset / 4] & OFFSET_UPPER_MASK) << 32 |
        ch->ce[offset / 4 + 1];
    side->pitch = (int32_t)ch->ce[pitch / 4];
    side->phys = launch & physical;
    side->aper = targets[ch->ce[mode / 4] & 3];
    return !(side->phys && side->aper == GP100_APER_PEER);
}

static void ce_delay_expired(void *opaque)
{
    GP100State *s = opaque;

    s->ce.delayed = false;
    gp100_did(s, GP100_EVENT_CE_DELAY, true);
    gp100_fifo_kick_later(s);
}

static void ce_launch(GP100State *s, unsigned chid, uint32_t launch)
{
    GP100Ce *ce = &s->ce;
    GP100Channel *ch = &s->fifo.chan[chid];
    bool multi = launch & LAUNCH_MULTI_LINE;
    bool sides_ok;

    ce->chid = chid;
    ce->launch = launch;
    ce->space = ch->space;
    ce->busy = true;
    ce->delayed = false;
    ce->done = 0;
    ce->remap = launch & LAUNCH_REMAP;
    ce->remap_components = ch->ce[CE_REMAP_COMPONENTS / 4];
    ce->remap_const[0] = ch->ce[CE_REMAP_CONST_A / 4];
    ce->remap_const[1] = ch->ce[CE_REMAP_CONST_B / 4];
    s->stats.ce_launches++;

    sides_ok = ce_side(ch, launch, &ce->src, LAUNCH_SRC_PHYSICAL,
                       CE_OFFSET_IN_UPPER, CE_PITCH_IN, CE_SRC_PHYS_MODE);
    sides_ok &= ce_side(ch, launch, &ce->dst, LAUNCH_DST_PHYSICAL,
                        CE_OFFSET_OUT_UPPER, CE_PITCH_OUT, CE_DST_PHYS_MODE);
    ce->lines = multi ? ch->ce[CE_LINE_COUNT / 4] : 1;
    ce->line_bytes = ch->ce[CE_LINE_LENGTH_IN / 4];
    if (ce->remap) {
        ce->line_bytes *= REMAP_SIZE(ce->remap_components) *
                          REMAP_NUM_DST(ce->remap_components);
    } else if (multi && ce->src.pitch == ce->line_bytes &&
               ce->dst.pitch == ce->line_bytes) {
        ce->line_bytes *= ce->lines;    /* less than 2^64 */
        ce->lines = MIN(ce->lines, 1);
    }
    if (LAUNCH_TRANSFER(launch) == 0 || ce->line_bytes == 0) {
        ce->lines = 0;
    }
    trace_gp100_ce_launch(chid, launch, ce->src.addr, ce->dst.addr,
                          ce->line_bytes, ce->lines);

    if (s->fail_copies) {
        s->fail_copies--;
        ce_launch_error(s, CE_ERR_NO_RESOURCES);
    } else if (s->hang_copies) {
        s->hang_copies--;
        ce->hung = true;
        gp100_fifo_ctxsw_timeout(s, chid);
    } else if (LAUNCH_TRANSFER(launch) == 3 || LAUNCH_SEMAPHORE(launch) == 3 ||
               (launch & LAUNCH_REDUCTION) || !sides_ok) {
        ce_launch_error(s, CE_ERR_INVALID_VALUE);
    } else if (ce->lines &&
               (~launch & (LAUNCH_SRC_PITCH | LAUNCH_DST_PITCH))) {
        ce_launch_error(s, CE_ERR_INVALID_CONFIG);
    } else if (ce->lines && ce->remap && !remap_valid(ce->remap_components)) {
        ce_launch_error(s, CE_ERR_INVALID_CONFIG);
    } else if (s->copy_delay_us) {
        ce->delayed = true;
        timer_mod(ce->delay, qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) +
                  (int64_t)s->copy_delay_us * SCALE_US);
    }
}

bool gp100_ce_method(GP100State *s, unsigned chid, uint32_t mthd,
                     uint32_t data)
{
    for (unsigned i = 0; i < ARRAY_SIZE(methods); i++) {
        if (mthd < methods[i].first || mthd > methods[i].last) {
            continue;
        }
        trace_gp100_ce_method(chid, methods[i].name, mthd, data);
        s->fifo.chan[chid].ce[mthd / 4] = data;
        if (mthd == CE_LAUNCH_DMA) {
            ce_launch(s, chid, data);
        }
        gp100_count(&s->stats.ce_methods[i],
                    s->fifo.chan[chid].wait != GP100_WAIT_ERROR);
        return true;
    }
    return false;
}

void gp100_ce_abort(GP100State *s)
{
    s->ce.busy = false;
    s->ce.delayed = false;
    s->ce.hung = false;
    timer_del(s->ce.delay);
}

void gp100_ce_trigger_fault(GP100State *s)
{
    GP100Ce *ce = &s->ce;
    GP100Space space = { .valid = false };

    if (ce->busy) {
        space = ce->space;
    }
    if (ce->busy && !ce->hung) {
        gp100_ce_abort(s);
        ce_count(s, false);
        s->stats.ce_errors++;
        s->fifo.chan[ce->chid].wait = GP100_WAIT_ERROR;
    }
    gp100_mmu_fault(s, GP100_UNIT_CE0, &space, 0, false, GP100_FAULT_PDE);
    gp100_fifo_kick(s);
}

void gp100_ce_realize(GP100State *s)
{
    s->ce.delay = timer_new_ns(QEMU_CLOCK_VIRTUAL, ce_delay_expired, s);
}

void gp100_ce_finalize(GP100State *s)
{
    timer_free(s->ce.delay);
}

/* Registers */

/* Nobody writes INTR_EN, and yet drivers get interrupts: it resets to on. */
static const GP100Reg ce_regs[] = {
    { CE_INTR_EN, "INTR_EN", .wmask = 7, .reset = 7, .write = gp100_irq_write },
    { CE_INTR, "INTR", .w1c = UINT32_MAX, .write = gp100_irq_write },
    { CE_LAUNCHERR, "LAUNCHERR" },
};

const GP100Unit gp100_ce = {
    .name = "CE", .regs = ce_regs, .num_regs = ARRAY_SIZE(ce_regs),
    .reset = gp100_ce_abort,
};
