/*
 * GP100: PTIMER, the nanosecond clock and its alarm.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The clock is the virtual clock plus an offset that writes to TIME set.
 * The alarm compares the low 32 bits of the time, in units of 32 ns.
 */

#include "qemu/osdep.h"
#include "gp100.h"
#include "trace.h"

#define PTIMER_UNIT_MASK        (~(uint64_t)0x1f)

uint64_t gp100_ptimer_now(GP100State *s)
{
    return (qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) + s->ptimer_offset) &
           PTIMER_UNIT_MASK;
}

static void ptimer_arm(GP100State *s)
{
    uint32_t delta;

    if (!(gp100_reg(s, PTIMER_INTR_EN) & 1)) {
        timer_del(s->ptimer_alarm);
        return;
    }
    /* The next time the low half passes the alarm, up to 4.3 s from now. */
    delta = gp100_reg(s, PTIMER_ALARM_0) - (uint32_t)gp100_ptimer_now(s);
    timer_mod(s->ptimer_alarm,
              qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) + delta);
}

static void ptimer_expired(void *opaque)
{
    GP100State *s = opaque;

    trace_gp100_ptimer_alarm();
    gp100_did(s, GP100_EVENT_PTIMER_ALARM, true);
    gp100_reg_set(s, PTIMER_INTR, gp100_reg(s, PTIMER_INTR) | 1);
    gp100_irq_update(s);
}

static uint32_t ptimer_time_read(GP100State *s, unsigned i)
{
    uint64_t now = gp100_ptimer_now(s);

    return i ? now >> 32 : now;
}

/* Drivers write the high half first; the low half makes the time valid. */
static void ptimer_time_write(GP100State *s, unsigned i, uint32_t val)
{
    uint64_t time;

    if (i == 0) {
        time = (uint64_t)gp100_reg(s, PTIMER_TIME_1) << 32 | val;
        s->ptimer_offset = time - qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
        ptimer_arm(s);
    }
}

static void ptimer_alarm_write(GP100State *s, unsigned i, uint32_t val)
{
    ptimer_arm(s);
}

static void ptimer_intr_en_write(GP100State *s, unsigned i, uint32_t val)
{
    ptimer_arm(s);
    gp100_irq_update(s);
}

static void ptimer_reset(GP100State *s)
{
    timer_del(s->ptimer_alarm);
    s->ptimer_offset = 0;
}

static const GP100Reg ptimer_regs[] = {
    { PTIMER_INTR, "INTR", .w1c = UINT32_MAX, .write = gp100_irq_write },
    { PTIMER_INTR_EN, "INTR_EN", .wmask = 1, .write = ptimer_intr_en_write },
    { PTIMER_NUMERATOR, "NUMERATOR", .reset = 1, .wmask = 0xffff },
    { PTIMER_DENOMINATOR, "DENOMINATOR", .reset = 1, .wmask = 0xffff },
    { PTIMER_TIME_0, "TIME", .count = 2, .stride = 0x10, .wmask = UINT32_MAX,
      .read = ptimer_time_read, .write = ptimer_time_write },
    { PTIMER_ALARM_0, "ALARM_0", .wmask = UINT32_MAX & PTIMER_UNIT_MASK,
      .write = ptimer_alarm_write },
};

const GP100Unit gp100_ptimer = {
    .name = "PTIMER", .regs = ptimer_regs, .num_regs = ARRAY_SIZE(ptimer_regs),
    .reset = ptimer_reset,
};

void gp100_ptimer_realize(GP100State *s)
{
    s->ptimer_alarm = timer_new_ns(QEMU_CLOCK_VIRTUAL, ptimer_expired, s);
}

void gp100_ptimer_stop(GP100State *s)
{
    timer_del(s->ptimer_alarm);
}

void gp100_ptimer_finalize(GP100State *s)
{
    timer_free(s->ptimer_alarm);
}
