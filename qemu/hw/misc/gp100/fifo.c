/*
 * GP100: PFIFO, the host's scheduler: channels, the runlist, interrupts.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A channel runs when it is bound to an instance block, enabled, on the
 * runlist, and the runlist is not blocked.  Scheduling events (doorbell,
 * enable, runlist submission, unblocking) run all such channels in turn, in
 * the context of the event, up to a budget; a bottom half does the rest.
 * So a short command is complete before the doorbell write returns.
 */

#include "qemu/osdep.h"
#include "hw/pci/p2p_dma.h"
#include "gp100.h"
#include "trace.h"

/* Work for one scheduling event or bottom half. */
#define RUN_METHODS             4096
#define RUN_BYTES               (8 * MiB)

/* How often a semaphore is looked at again. */
#define RETRY_NS                (200 * SCALE_US)

/* Runlist entries, 8 bytes */
#define RUNLIST_COUNT           0x0000ffff
#define RUNLIST_ID(v)           extract32(v, 20, 4)
#define RUNLIST_ENTRY_TSG       (1u << 13)
#define RUNLIST_ENTRY_COUNT(w)  extract32(w, 26, 6) /* of channels, of a TSG */
#define RUNLIST_ENTRY_CHID      0x00000fff
#define RUNLIST_MAX             (2 * GP100_CHANNELS)

#define PREEMPT_PENDING         (1u << 20)

/* The bit of the only runlist in registers that have one for each. */
static uint32_t runlist_bit(GP100State *s)
{
    return 1u << s->ce_runlist;
}

uint32_t gp100_fifo_intr(GP100State *s)
{
    uint32_t intr = gp100_reg(s, PFIFO_INTR);

    if (gp100_reg(s, PFIFO_FAULT_UNITS)) {
        intr |= PFIFO_INTR_MMU_FAULT;
    }
    if (gp100_pbdma_intr(s)) {
        intr |= PFIFO_INTR_PBDMA;
    }
    if (gp100_reg(s, PFIFO_RUNLIST_INTR)) {
        intr |= PFIFO_INTR_RUNLIST;
    }
    return intr;
}

void gp100_fifo_nonstall(GP100State *s)
{
    if (s->drop_nonstall) {
        s->drop_nonstall--;
        trace_gp100_nonstall(true);
        gp100_did(s, GP100_EVENT_PFIFO_NONSTALL, false);
        return;
    }
    trace_gp100_nonstall(false);
    gp100_did(s, GP100_EVENT_PFIFO_NONSTALL, true);
    s->stats.nonstall_irqs++;
    gp100_reg_set(s, PFIFO_INTR,
                  gp100_reg(s, PFIFO_INTR) | PFIFO_INTR_NONSTALL);
    gp100_irq_update(s);
}

/* The group that the runlist says channel @chid is in, or -1. */
static int channel_group(GP100State *s, unsigned chid)
{
    for (unsigned i = 0; i < s->fifo.runlist_len; i++) {
        if (s->fifo.runlist[i].chid == chid) {
            return s->fifo.runlist[i].group;
        }
    }
    return -1;
}

/*
 * What nouveau needs to find the channel, see gf100_fifo_intr_sched_ctxsw() and
 * gk104_engn_status().  The runlist stays stopped when the interrupt has been
 * acknowledged, until PFIFO_ERROR_SCHED is written.
 */
void gp100_fifo_ctxsw_timeout(GP100State *s, unsigned chid)
{
    int group = channel_group(s, chid);
    uint32_t status = ENGINE_STATUS_BUSY | ENGINE_STATUS_CTXSW |
                      ENGINE_STATUS_LOAD;

    status |= group < 0 ? ENGINE_STATUS_NEXT(chid)
                        : ENGINE_STATUS_NEXT(group) | ENGINE_STATUS_NEXT_TSG;
    trace_gp100_ctxsw_timeout(chid, status);
    gp100_did(s, GP100_EVENT_PFIFO_CTXSW_TIMEOUT, true);
    gp100_reg_set(s, PFIFO_ENGINE_STATUS, status);
    gp100_reg_set(s, PFIFO_SCHED_ERROR, SCHED_ERROR_CTXSW_TIMEOUT);
    gp100_reg_set(s, PFIFO_ERROR_SCHED,
                  gp100_reg(s, PFIFO_ERROR_SCHED) | runlist_bit(s));
    gp100_reg_set(s, PFIFO_INTR, gp100_reg(s, PFIFO_INTR) | PFIFO_INTR_SCHED);
    gp100_irq_update(s);
}

static bool channel_runnable(GP100State *s, unsigned chid)
{
    GP100Channel *ch = &s->fifo.chan[chid];

    return (ch->inst & CCSR_INST_BIND) && ch->enabled &&
           ch->wait != GP100_WAIT_ERROR &&
           !gp100_reg(s, PBDMA_INTR_0) &&       /* stops all channels */
           !(gp100_reg(s, PFIFO_SCHED_DISABLE) & runlist_bit(s)) &&
           !(gp100_reg(s, PFIFO_ERROR_SCHED) & runlist_bit(s));
}

/* Take a channel off the hardware: what it reached goes to its RAMFC. */
static void channel_save(GP100State *s, unsigned chid)
{
    if (s->fifo.chan[chid].loaded) {
        gp100_did(s, GP100_EVENT_PBDMA_SAVE, true);
        gp100_pbdma_save(s, chid);
    }
}

static void fifo_run(GP100State *s)
{
    GP100Fifo *f = &s->fifo;
    GP100Budget budget = { RUN_METHODS, RUN_BYTES };
    unsigned idle = 0;
    bool waiting = false;

    /* Nothing that a channel does may schedule channels from within. */
    if (f->running) {
        return;
    }
    f->running = true;
    p2p_work_begin();
    while (DEVICE(s)->realized && budget.methods > 0 && budget.bytes > 0) {
        unsigned chid;

        if (s->ce.busy) {
            if (s->ce.delayed || s->ce.hung) {
                break;
            }
            gp100_ce_step(s, &budget);
            idle = 0;
            continue;
        }
        if (idle >= f->runlist_len) {
            break;
        }
        f->next %= f->runlist_len;
        chid = f->runlist[f->next++].chid;
        idle++;
        if (!channel_runnable(s, chid)) {
            continue;
        }
        if (gp100_pbdma_run(s, chid, &budget)) {
            idle = 0;
        }
        waiting |= f->chan[chid].wait == GP100_WAIT_ACQUIRE;
    }
    f->running = false;

    if (!DEVICE(s)->realized) {
        /* unplugged meanwhile */
    } else if (budget.methods <= 0 || budget.bytes <= 0) {
        gp100_did(s, GP100_EVENT_PFIFO_CONTINUE, true);
        qemu_bh_schedule(f->bh);
    } else if (waiting) {
        timer_mod(f->retry, qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) + RETRY_NS);
    }
    p2p_work_end();
}

/* For a doorbell that another device has rung, that device's budget pays. */
void gp100_fifo_kick(GP100State *s)
{
    if (p2p_work_active()) {
        gp100_fifo_kick_later(s);
    } else {
        fifo_run(s);
    }
}

void gp100_fifo_kick_later(GP100State *s)
{
    qemu_bh_schedule(s->fifo.bh);
}

static void fifo_run_bh(void *opaque)
{
    fifo_run(opaque);
}

/* Timers have no re-entrancy guard; the bottom half does. */
static void fifo_retry(void *opaque)
{
    GP100State *s = opaque;

    gp100_did(s, GP100_EVENT_PFIFO_RETRY, true);
    gp100_fifo_kick_later(s);
}

/* Registers */

static uint32_t fifo_intr_read(GP100State *s, unsigned i)
{
    return gp100_fifo_intr(s);
}

static void fifo_kick_write(GP100State *s, unsigned i, uint32_t val)
{
    gp100_fifo_kick(s);
}

static void fifo_userd_base_write(GP100State *s, unsigned i, uint32_t val)
{
    gp100_bar1_update_windows(s, UINT64_MAX);
}

static bool runlist_load(GP100State *s, uint32_t val)
{
    GP100Fifo *f = &s->fifo;
    uint32_t base = gp100_reg(s, PFIFO_RUNLIST_BASE);
    uint64_t addr = (uint64_t)(base & RUNLIST_BASE_PTR) << 12;
    unsigned count = val & RUNLIST_COUNT;
    g_autofree uint32_t *entries = NULL;
    unsigned in_group = 0;
    int group = -1;

    trace_gp100_runlist(RUNLIST_ID(val), addr, count);
    if (RUNLIST_ID(val) != s->ce_runlist) {
        gp100_guest_error(s, "no runlist %u", RUNLIST_ID(val));
        return false;
    }
    if (count > RUNLIST_MAX) {
        gp100_guest_error(s, "runlist of %u entries", count);
        return false;
    }
    entries = g_new(uint32_t, 2 * count);
    if (count && !gp100_phys_read(s, RUNLIST_BASE_TARGET(base), addr, entries,
                                  8ull * count)) {
        gp100_guest_error(s, "runlist at 0x%" PRIx64 " cannot be read", addr);
        return false;
    }
    f->runlist_len = 0;
    for (unsigned e = 0; e < count; e++) {
        uint32_t w = le32_to_cpu(entries[2 * e]);
        unsigned chid = w & RUNLIST_ENTRY_CHID;

        if (w & RUNLIST_ENTRY_TSG) {
            group = chid;       /* time slices mean nothing here */
            in_group = RUNLIST_ENTRY_COUNT(w);
            continue;
        }
        if (in_group) {
            in_group--;
        } else {
            group = -1;
        }
        if (chid >= GP100_CHANNELS || f->runlist_len == GP100_CHANNELS) {
            gp100_guest_error(s, "runlist entry %u: channel %u", e, chid);
            continue;
        }
        f->runlist[f->runlist_len++] = (GP100RunlistEntry) { chid, group };
    }
    return true;
}

static void fifo_runlist_submit(GP100State *s, unsigned i, uint32_t val)
{
    bool ok = runlist_load(s, val);

    gp100_did(s, GP100_EVENT_PFIFO_RUNLIST, ok);
    if (!ok) {
        return;
    }
    gp100_reg_set(s, PFIFO_RUNLIST_INTR,
                  gp100_reg(s, PFIFO_RUNLIST_INTR) | runlist_bit(s));
    gp100_irq_update(s);
    gp100_fifo_kick(s);
}

/*
 * Channels stop between methods, so there is nothing to stop here but a copy
 * that is under way: the preemption is pending until it ends.
 */
static void fifo_preempt_write(GP100State *s, unsigned i, uint32_t val)
{
    trace_gp100_preempt(val);
    gp100_did(s, GP100_EVENT_PFIFO_PREEMPT, true);
    for (unsigned c = 0; c < GP100_CHANNELS; c++) {
        channel_save(s, c);
    }
}

static uint32_t fifo_preempt_read(GP100State *s, unsigned i)
{
    return gp100_reg(s, PFIFO_PREEMPT) | (s->ce.busy ? PREEMPT_PENDING : 0);
}

static uint32_t fifo_pbdma_map_read(GP100State *s, unsigned i)
{
    return runlist_bit(s);
}

/* Nobody asks what an engine that works is at. */
static uint32_t fifo_engine_status_read(GP100State *s, unsigned i)
{
    return i == 0 && s->ce.hung ? gp100_reg(s, PFIFO_ENGINE_STATUS) : 0;
}

/* To get a channel off the engine, see gf100_engn_mmu_fault_trigger(). */
static void fifo_fault_trigger_write(GP100State *s, unsigned i, uint32_t val)
{
    if (!(val & FAULT_TRIGGER_ENABLE)) {
        return;
    }
    trace_gp100_fault_trigger(i, val & FAULT_TRIGGER_UNIT);
    if (i != 0 || (val & FAULT_TRIGGER_UNIT) != GP100_UNIT_CE0) {
        gp100_did(s, GP100_EVENT_PFIFO_FAULT_TRIGGER, false);
        gp100_guest_error(s, "engine %u has no fault unit 0x%" PRIx32, i,
                          val & FAULT_TRIGGER_UNIT);
        return;
    }
    gp100_did(s, GP100_EVENT_PFIFO_FAULT_TRIGGER, true);
    gp100_ce_trigger_fault(s);
}

static void ccsr_inst_write(GP100State *s, unsigned chid, uint32_t val)
{
    GP100Channel *ch = &s->fifo.chan[chid];

    trace_gp100_channel_bind(chid, val);
    gp100_did(s, GP100_EVENT_PFIFO_BIND, !(s->ce.busy && s->ce.chid == chid));
    if (s->ce.busy && s->ce.chid == chid) {
        gp100_guest_error(s, "channel %u rebound during a copy", chid);
        gp100_ce_abort(s);
    }
    channel_save(s, chid);
    ch->inst = val;
    ch->loaded = false;
    ch->wait = GP100_WAIT_NONE;
    gp100_fifo_kick(s);
}

static uint32_t ccsr_channel_read(GP100State *s, unsigned chid)
{
    uint32_t val = gp100_reg(s, CCSR_CHANNEL + chid * 8) & CCSR_RUNLIST;

    return val | (s->fifo.chan[chid].enabled ? CCSR_ENABLED : 0);
}

static void ccsr_channel_write(GP100State *s, unsigned chid, uint32_t val)
{
    GP100Channel *ch = &s->fifo.chan[chid];

    if (val & CCSR_ENABLE_CLR) {
        gp100_did(s, GP100_EVENT_PFIFO_DISABLE, true);
        ch->enabled = false;
        channel_save(s, chid);
    } else if (val & CCSR_ENABLE_SET) {
        gp100_did(s, GP100_EVENT_PFIFO_ENABLE, true);
        ch->enabled = true;
    }
    trace_gp100_channel_enable(chid, ch->enabled);
    gp100_fifo_kick(s);
}

static void fifo_reset(GP100State *s)
{
    GP100Fifo *f = &s->fifo;

    memset(f->chan, 0, sizeof(f->chan));
    f->runlist_len = 0;
    f->next = 0;
    gp100_ce_abort(s);
    qemu_bh_cancel(f->bh);
    timer_del(f->retry);
    gp100_bar1_update_windows(s, UINT64_MAX);
}

#define PLAIN(a, n)     { a, n, .wmask = UINT32_MAX }

static const GP100Reg fifo_regs[] = {
    { PFIFO_PBDMA_NUM, "PBDMA_NUM", .reset = 1 },
    { PFIFO_CHANNEL_NUM, "CHANNEL_NUM", .reset = GP100_CHANNELS },
    { PFIFO_INTR, "INTR", .w1c = UINT32_MAX, .read = fifo_intr_read,
      .write = gp100_irq_write },
    { PFIFO_INTR_EN, "INTR_EN", .wmask = UINT32_MAX,
      .write = gp100_irq_write },
    PLAIN(0x002200, "ENABLE"),
    PLAIN(0x002204, "PBDMA_ENABLE"),
    { PFIFO_USERD_BASE, "USERD_BASE", .wmask = UINT32_MAX,
      .write = fifo_userd_base_write },
    { PFIFO_RUNLIST_BASE, "RUNLIST_BASE", .wmask = UINT32_MAX },
    { PFIFO_RUNLIST, "RUNLIST", .wmask = UINT32_MAX,
      .write = fifo_runlist_submit },
    { PFIFO_RUNLIST_STATUS, "RUNLIST_STATUS", .count = 16, .stride = 8 },
    { PFIFO_PBDMA_MAP, "PBDMA_MAP", .read = fifo_pbdma_map_read },
    { PFIFO_BIND_ERROR, "BIND_ERROR" },
    { PFIFO_SCHED_ERROR, "SCHED_ERROR" },
    { PFIFO_CHSW_ERROR, "CHSW_ERROR", .w1c = UINT32_MAX },
    { PFIFO_ERROR_SCHED, "ERROR_SCHED", .w1c = UINT32_MAX,
      .write = fifo_kick_write },
    { PFIFO_SCHED_DISABLE, "SCHED_DISABLE", .wmask = UINT32_MAX,
      .write = fifo_kick_write },
    { PFIFO_PREEMPT, "PREEMPT", .wmask = ~PREEMPT_PENDING,
      .read = fifo_preempt_read, .write = fifo_preempt_write },
    { PFIFO_ENGINE_STATUS, "ENGINE_STATUS", .count = 16, .stride = 8,
      .read = fifo_engine_status_read },
    { PFIFO_RUNLIST_INTR, "RUNLIST_INTR", .w1c = UINT32_MAX,
      .write = gp100_irq_write },
    PLAIN(PFIFO_ENGINE_INTR_EN, "ENGINE_INTR_EN"),
    { PFIFO_FAULT_TRIGGER, "FAULT_TRIGGER", .count = 16,
      .wmask = UINT32_MAX, .write = fifo_fault_trigger_write },
    { CCSR_INST, "CCSR_INST", .count = GP100_CHANNELS, .stride = 8,
      .wmask = UINT32_MAX, .write = ccsr_inst_write },
    { CCSR_CHANNEL, "CCSR_CHANNEL", .count = GP100_CHANNELS, .stride = 8,
      .wmask = CCSR_RUNLIST, .read = ccsr_channel_read,
      .write = ccsr_channel_write },
};

const GP100Unit gp100_fifo = {
    .name = "PFIFO", .regs = fifo_regs, .num_regs = ARRAY_SIZE(fifo_regs),
    .reset = fifo_reset,
};

void gp100_fifo_realize(GP100State *s)
{
    s->fifo.bh = qemu_bh_new_guarded(fifo_run_bh, s,
                                     &DEVICE(s)->mem_reentrancy_guard);
    s->fifo.retry = timer_new_ns(QEMU_CLOCK_VIRTUAL, fifo_retry, s);
}

void gp100_fifo_stop(GP100State *s)
{
    qemu_bh_cancel(s->fifo.bh);
    timer_del(s->fifo.retry);
}

void gp100_fifo_finalize(GP100State *s)
{
    g_clear_pointer(&s->fifo.bh, qemu_bh_delete);
    timer_free(s->fifo.retry);
}
