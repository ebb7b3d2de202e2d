/*
 * GP100: reporting of MMU faults.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Non-replayable faults (BARs, host, copy engine) are one record for each
 * unit in PFIFO's registers.  Replayable faults go to a buffer in BAR2; on
 * Pascal only the graphics engine faults replayably.  There is none, but a test
 * can ask for an access as if by one, see access.c.
 */

#include "qemu/osdep.h"
#include "gp100.h"
#include "trace.h"

#define FAULT_UNITS             32
#define FAULT_BUFFER_ENTRIES    0x80
#define FAULT_BUFFER_ENABLE     1u

/* Words of an entry, as in NVIDIA's clb069.h */
enum {
    ENTRY_INST_LO, ENTRY_INST_HI, ENTRY_ADDR_LO, ENTRY_ADDR_HI,
    ENTRY_TIME_LO, ENTRY_TIME_HI, ENTRY_RESERVED, ENTRY_INFO, ENTRY_WORDS
};
#define ENTRY_INFO_GPC(g)       ((g) << 24)
#define ENTRY_INFO_VALID        (1u << 31)

/*
 * The interrupt stays up until the driver has taken the faults out of the
 * buffer, which nouveau leaves to a thread.  Messages that follow each other
 * without a pause would keep that thread from running.
 */
#define FAULT_MESSAGE_NS        (1 * SCALE_MS)

#define FAULT_INFO_HUB          (1u << 20)
#define FAULT_INFO_WRITE        (1u << 16)
#define FAULT_INFO_CLIENT(c)    ((c) << 8)

/* Hub client ids, as PFIFO names the source of a fault. */
static unsigned fault_client(unsigned unit)
{
    switch (unit) {
    case GP100_UNIT_CE0:
        return 0x01;
    case GP100_UNIT_HOST0:
        return 0x06;            /* HOST */
    default:
        return 0x07;            /* HOST_CPU: through a BAR */
    }
}

static void count_fault(GP100State *s, unsigned unit, GP100FaultType type)
{
    static const struct {
        GP100FaultType type;
        GP100Event event;
    } types[] = {
        { GP100_FAULT_PDE, GP100_EVENT_FAULT_PDE },
        { GP100_FAULT_PTE, GP100_EVENT_FAULT_PTE },
        { GP100_FAULT_VA_LIMIT, GP100_EVENT_FAULT_VA_LIMIT },
        { GP100_FAULT_UNBOUND_INST, GP100_EVENT_FAULT_UNBOUND_INST },
        { GP100_FAULT_RO, GP100_EVENT_FAULT_RO },
        { GP100_FAULT_APERTURE, GP100_EVENT_FAULT_APERTURE },
        { GP100_FAULT_BUS, GP100_EVENT_FAULT_BUS },
    };
    static const struct {
        unsigned unit;
        GP100Event event;
    } units[] = {
        { GP100_UNIT_BAR1, GP100_EVENT_FAULT_OF_BAR1 },
        { GP100_UNIT_BAR2, GP100_EVENT_FAULT_OF_BAR2 },
        { GP100_UNIT_HOST0, GP100_EVENT_FAULT_OF_HOST },
        { GP100_UNIT_CE0, GP100_EVENT_FAULT_OF_CE },
    };

    s->stats.mmu_faults++;
    for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
        if (types[i].type == type) {
            gp100_did(s, types[i].event, true);
        }
    }
    for (unsigned i = 0; i < ARRAY_SIZE(units); i++) {
        if (units[i].unit == unit) {
            gp100_did(s, units[i].event, true);
        }
    }
}

void gp100_mmu_fault(GP100State *s, unsigned unit, const GP100Space *space,
                     uint64_t va, bool write, GP100FaultType type)
{
    uint32_t units = gp100_reg(s, PFIFO_FAULT_UNITS);
    uint32_t info;

    /* The PCI bus refusing an address has no fault type of its own. */
    info = type < 0 ? GP100_FAULT_APERTURE : type;
    info |= FAULT_INFO_HUB | FAULT_INFO_CLIENT(fault_client(unit));
    if (write) {
        info |= FAULT_INFO_WRITE;
    }
    count_fault(s, unit, type);
    trace_gp100_mmu_fault(unit, space->inst, va, write, type);

    /* The first fault of a unit stays until the driver has seen it. */
    if (!(units & (1u << unit))) {
        gp100_reg_set(s, PFIFO_FAULT_INST + unit * 16, space->inst >> 12);
        gp100_reg_set(s, PFIFO_FAULT_LO + unit * 16, va);
        gp100_reg_set(s, PFIFO_FAULT_HI + unit * 16, va >> 32);
        gp100_reg_set(s, PFIFO_FAULT_INFO + unit * 16, info);
        gp100_reg_set(s, PFIFO_FAULT_UNITS, units | (1u << unit));
    }
    gp100_irq_update(s);
}

bool gp100_fault_buffer_enabled(GP100State *s)
{
    return gp100_reg(s, PFIFO_FAULT_BUF_LO) & FAULT_BUFFER_ENABLE;
}

bool gp100_fault_buffer_add(GP100State *s, const GP100Space *space,
                            uint64_t va, bool write, GP100FaultType type)
{
    uint32_t put = gp100_reg(s, PFIFO_FAULT_BUF_PUT);
    uint32_t next = (put + 1) % FAULT_BUFFER_ENTRIES;
    uint64_t at = (uint64_t)gp100_reg(s, PFIFO_FAULT_BUF_HI) << 32 |
                  (gp100_reg(s, PFIFO_FAULT_BUF_LO) & ~0xfffu);
    uint64_t now = gp100_ptimer_now(s), fault_va;
    uint32_t entry[ENTRY_WORDS] = {
        [ENTRY_INST_LO] = space->inst,          /* aperture 0: VRAM */
        [ENTRY_INST_HI] = space->inst >> 32,
        [ENTRY_ADDR_LO] = va & ~0xfffull,
        [ENTRY_ADDR_HI] = va >> 32,
        [ENTRY_TIME_LO] = now,
        [ENTRY_TIME_HI] = now >> 32,
        [ENTRY_INFO] = ENTRY_INFO_VALID | ENTRY_INFO_GPC(GP100_ACCESS_GPC) |
                       FAULT_INFO_CLIENT(GP100_ACCESS_CLIENT) | type |
                       (write ? FAULT_INFO_WRITE : 0),
    };

    if (next == gp100_reg(s, PFIFO_FAULT_BUF_GET)) {
        return false;
    }
    at += put * sizeof(entry);
    for (unsigned i = 0; i < ENTRY_WORDS; i++) {
        entry[i] = cpu_to_le32(entry[i]);
    }
    type = gp100_virt_write(s, &s->bar2.space, at, entry, sizeof(entry),
                            &fault_va);
    if (!DEVICE(s)->realized) {
        return true;
    }
    if (type != GP100_FAULT_NONE) {
        /* The driver finds an entry that is not valid. */
        gp100_mmu_fault(s, GP100_UNIT_BAR2, &s->bar2.space, fault_va, true,
                        type);
    }
    s->stats.replayable_faults++;
    trace_gp100_fault_buffer(put, space->inst, va, write);
    gp100_reg_set(s, PFIFO_FAULT_BUF_PUT, next);
    gp100_irq_update(s);
    return true;
}

bool gp100_fault_message_due(GP100State *s)
{
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);

    if (s->fault_message_ns && now - s->fault_message_ns < FAULT_MESSAGE_NS) {
        timer_mod(s->fault_message, s->fault_message_ns + FAULT_MESSAGE_NS);
        return false;
    }
    s->fault_message_ns = now;
    return true;
}

static void fault_message_expired(void *opaque)
{
    gp100_irq_update(opaque);
}

void gp100_fault_realize(GP100State *s)
{
    s->fault_message = timer_new_ns(QEMU_CLOCK_VIRTUAL, fault_message_expired,
                                    s);
}

void gp100_fault_stop(GP100State *s)
{
    timer_del(s->fault_message);
}

void gp100_fault_finalize(GP100State *s)
{
    timer_free(s->fault_message);
}

bool gp100_fault_buffer_pending(GP100State *s)
{
    return gp100_fault_buffer_enabled(s) &&
           gp100_reg(s, PFIFO_FAULT_BUF_GET) !=
           gp100_reg(s, PFIFO_FAULT_BUF_PUT);
}

/* Disabling the buffer empties it. */
static void fault_buf_lo_write(GP100State *s, unsigned i, uint32_t val)
{
    if (!(val & FAULT_BUFFER_ENABLE)) {
        gp100_reg_set(s, PFIFO_FAULT_BUF_GET, 0);
        gp100_reg_set(s, PFIFO_FAULT_BUF_PUT, 0);
    }
    gp100_irq_update(s);
}

static void fault_buf_get_write(GP100State *s, unsigned i, uint32_t val)
{
    if (val >= FAULT_BUFFER_ENTRIES) {
        gp100_guest_error(s, "fault buffer GET %" PRIu32, val);
        gp100_reg_set(s, PFIFO_FAULT_BUF_GET, val % FAULT_BUFFER_ENTRIES);
    }
    gp100_irq_update(s);
    gp100_access_report(s);
}

static const GP100Reg fault_regs[] = {
    { PFIFO_FAULT_UNITS, "FAULT_UNITS", .w1c = UINT32_MAX,
      .write = gp100_irq_write },
    { PFIFO_FAULT_INST, "FAULT_INST", .count = FAULT_UNITS, .stride = 16 },
    { PFIFO_FAULT_LO, "FAULT_LO", .count = FAULT_UNITS, .stride = 16 },
    { PFIFO_FAULT_HI, "FAULT_HI", .count = FAULT_UNITS, .stride = 16 },
    { PFIFO_FAULT_INFO, "FAULT_INFO", .count = FAULT_UNITS, .stride = 16 },
    { PFIFO_FAULT_BUF_LO, "FAULT_BUF_LO", .wmask = UINT32_MAX,
      .write = fault_buf_lo_write },
    { PFIFO_FAULT_BUF_HI, "FAULT_BUF_HI", .wmask = UINT32_MAX },
    { PFIFO_FAULT_BUF_SIZE, "FAULT_BUF_SIZE", .reset = FAULT_BUFFER_ENTRIES },
    { PFIFO_FAULT_BUF_GET, "FAULT_BUF_GET", .wmask = UINT32_MAX,
      .write = fault_buf_get_write },
    { PFIFO_FAULT_BUF_PUT, "FAULT_BUF_PUT" },
};

const GP100Unit gp100_fault = {
    .name = "FAULT", .regs = fault_regs, .num_regs = ARRAY_SIZE(fault_regs),
    .reset = gp100_access_reset,
};
