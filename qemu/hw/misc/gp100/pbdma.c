/*
 * GP100: the PBDMA: fetches pushbuffers and executes host methods.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Formats: NVIDIA's clb06f/cl906f class headers and dev_ram manual.  GP
 * entries and pushbuffers are guest memory, reached through the channel's
 * address space, and are copied before they are looked at.
 */

#include "qemu/osdep.h"
#include "gp100.h"
#include "trace.h"

/* RAMFC: the channel's part of its instance block */
#define RAMFC_GP_PUT            0x00
#define RAMFC_USERD_LO          0x08
#define RAMFC_USERD_HI          0x0c
#define RAMFC_GP_GET            0x14
#define RAMFC_GP_BASE_LO        0x48
#define RAMFC_GP_BASE_HI        0x4c

/*
 * Where the channel is within a segment, and what its methods left behind.
 * Hardware saves that in RAMFC, too (a driver does not repeat SET_OBJECT after
 * a suspend), but where is not documented.  This part of RAMFC is not written
 * by drivers, except that they clear it for a new channel.
 */
#define RAMFC_PB_VA_LO          0x100
#define RAMFC_PB_VA_HI          0x104
#define RAMFC_PB_WORDS          0x108
#define RAMFC_METHOD            0x10c
#define   RAMFC_METHOD_ADDR       0x00003ffc
#define   RAMFC_METHOD_ONCE       (1u << 16)
#define   RAMFC_METHOD_FIXED      (1u << 17)
#define   RAMFC_METHOD_SUBCH(v)   extract32(v, 20, 3)
#define   RAMFC_ACQUIRING         (1u << 24)
#define RAMFC_METHOD_LEFT       0x110
#define RAMFC_SUBCH_CLASS       0x114   /* 8 */
#define RAMFC_SEM               0x134   /* 4 */
#define RAMFC_CE                0x144   /* see ce_state */

/* The methods of the copy engine whose data later launches use. */
static const struct {
    uint16_t first, count;
} ce_state[] = {
    { 0x240, 3 },                       /* semaphore */
    { 0x260, 2 },                       /* physical modes */
    { 0x400, 8 },                       /* addresses, pitches, size */
    { 0x700, 3 },                       /* remapping */
};

/* USERD, one for each channel */
#define USERD_GET               0x44
#define USERD_TOP_LEVEL_GET     0x58
#define USERD_TOP_LEVEL_GET_HI  0x5c    /* bit 31: valid */
#define USERD_GET_HI            0x60
#define USERD_GP_GET            0x88
#define USERD_GP_PUT            0x8c

/* GP entries, two words */
#define GP_VA_LO                0xfffffffc
#define GP_VA_HI                0x000000ff
#define GP_LENGTH(w)            extract32(w, 10, 21)
#define GP_LENGTH_MASK          0x001fffff

/* Method headers */
#define HDR_OP(h)               extract32(h, 29, 3)
#define HDR_OLD_OP(h)           extract32(h, 16, 2)
#define HDR_OLD_COUNT(h)        extract32(h, 18, 11)
#define HDR_OLD_METHOD(h)       ((h) & 0x1ffc)
#define HDR_COUNT(h)            extract32(h, 16, 13)
#define HDR_COUNT_MASK          0x1fff
#define HDR_SUBCH(h)            extract32(h, 13, 3)
#define HDR_METHOD(h)           (extract32(h, 0, 12) * 4)

#define HOST_METHODS_END        0x100

/* SEMAPHORED */
#define SEM_OP(d)               extract32(d, 0, 5)
#define   SEM_ACQUIRE             1
#define   SEM_RELEASE             2
#define   SEM_ACQUIRE_GEQ         4
#define   SEM_ACQUIRE_AND         8
#define SEM_SIZE_4BYTE          (1u << 24)

#define FETCH_WORDS             64

static GP100Event error_event(uint32_t intr)
{
    switch (intr) {
    case PBDMA_INTR_0_GPPTR:
        return GP100_EVENT_PBDMA_ERROR_GPPTR;
    case PBDMA_INTR_0_PBENTRY:
        return GP100_EVENT_PBDMA_ERROR_PBENTRY;
    case PBDMA_INTR_0_METHOD:
        return GP100_EVENT_PBDMA_ERROR_METHOD;
    case PBDMA_INTR_0_DEVICE:
        return GP100_EVENT_PBDMA_ERROR_DEVICE;
    case PBDMA_INTR_0_SEMAPHORE:
        return GP100_EVENT_PBDMA_ERROR_SEMAPHORE;
    default:
        g_assert_not_reached();
    }
}

void gp100_pbdma_error(GP100State *s, unsigned chid, uint32_t intr,
                       uint32_t method, uint32_t data)
{
    GP100Channel *ch = &s->fifo.chan[chid];

    gp100_did(s, error_event(intr), true);
    gp100_guest_error(s, "channel %u: PBDMA interrupt 0x%08" PRIx32
                      ", method 0x%04" PRIx32 ", data 0x%08" PRIx32,
                      chid, intr, method, data);
    ch->wait = GP100_WAIT_PBDMA;
    gp100_reg_set(s, PBDMA_INTR_0, gp100_reg(s, PBDMA_INTR_0) | intr);
    gp100_reg_set(s, PBDMA_METHOD0, method | ch->subch << 16);
    gp100_reg_set(s, PBDMA_DATA0, data);
    gp100_reg_set(s, PBDMA_CHANNEL, chid);
    gp100_irq_update(s);
}

/* An access of the host on behalf of a channel faulted. */
static void host_fault(GP100State *s, GP100Channel *ch, uint64_t va,
                       bool write, GP100FaultType fault)
{
    ch->wait = GP100_WAIT_ERROR;
    gp100_mmu_fault(s, GP100_UNIT_HOST0, &ch->space, va, write, fault);
}

void gp100_pbdma_save(GP100State *s, unsigned chid)
{
    GP100Channel *ch = &s->fifo.chan[chid];
    uint64_t inst = (uint64_t)(ch->inst & CCSR_INST_PTR) << 12;
    uint64_t at = inst + RAMFC_CE;

    gp100_vram_stl(s, inst + RAMFC_GP_GET, ch->gp_get);
    gp100_vram_stl(s, inst + RAMFC_GP_PUT, ch->gp_put);
    gp100_vram_stl(s, inst + RAMFC_PB_VA_LO, ch->pb_va);
    gp100_vram_stl(s, inst + RAMFC_PB_VA_HI, ch->pb_va >> 32);
    gp100_vram_stl(s, inst + RAMFC_PB_WORDS, ch->pb_words);
    gp100_vram_stl(s, inst + RAMFC_METHOD, ch->method | ch->subch << 20 |
                   (ch->method_once ? RAMFC_METHOD_ONCE : 0) |
                   (ch->method_step ? 0 : RAMFC_METHOD_FIXED) |
                   (ch->wait == GP100_WAIT_ACQUIRE ? RAMFC_ACQUIRING : 0));
    gp100_vram_stl(s, inst + RAMFC_METHOD_LEFT, ch->method_left);
    for (unsigned i = 0; i < ARRAY_SIZE(ch->subch_class); i++) {
        gp100_vram_stl(s, inst + RAMFC_SUBCH_CLASS + 4 * i,
                       ch->subch_class[i]);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(ch->sem); i++) {
        gp100_vram_stl(s, inst + RAMFC_SEM + 4 * i, ch->sem[i]);
    }
    for (unsigned r = 0; r < ARRAY_SIZE(ce_state); r++) {
        for (unsigned i = 0; i < ce_state[r].count; i++, at += 4) {
            gp100_vram_stl(s, at, ch->ce[ce_state[r].first / 4 + i]);
        }
    }
}

/* The guest may have written anything there: take only what can be. */
static void load_state(GP100State *s, GP100Channel *ch, uint64_t inst)
{
    uint32_t method = gp100_vram_ldl(s, inst + RAMFC_METHOD);
    uint64_t at = inst + RAMFC_CE;

    ch->pb_va = (uint64_t)(gp100_vram_ldl(s, inst + RAMFC_PB_VA_HI) &
                           GP_VA_HI) << 32 |
                (gp100_vram_ldl(s, inst + RAMFC_PB_VA_LO) & GP_VA_LO);
    ch->pb_words = GP_LENGTH_MASK & gp100_vram_ldl(s, inst + RAMFC_PB_WORDS);
    ch->method = method & RAMFC_METHOD_ADDR;
    ch->method_once = method & RAMFC_METHOD_ONCE;
    ch->method_step = method & RAMFC_METHOD_FIXED ? 0 : 4;
    ch->subch = RAMFC_METHOD_SUBCH(method);
    ch->method_left = HDR_COUNT_MASK &
                      gp100_vram_ldl(s, inst + RAMFC_METHOD_LEFT);
    if (method & RAMFC_ACQUIRING) {
        ch->wait = GP100_WAIT_ACQUIRE;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(ch->subch_class); i++) {
        ch->subch_class[i] = gp100_vram_ldl(s, inst + RAMFC_SUBCH_CLASS +
                                            4 * i);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(ch->sem); i++) {
        ch->sem[i] = gp100_vram_ldl(s, inst + RAMFC_SEM + 4 * i);
    }
    for (unsigned r = 0; r < ARRAY_SIZE(ce_state); r++) {
        for (unsigned i = 0; i < ce_state[r].count; i++, at += 4) {
            ch->ce[ce_state[r].first / 4 + i] = gp100_vram_ldl(s, at);
        }
    }
}

static bool channel_load(GP100State *s, unsigned chid)
{
    GP100Channel *ch = &s->fifo.chan[chid];
    uint64_t inst = (uint64_t)(ch->inst & CCSR_INST_PTR) << 12;
    GP100Channel new = { .inst = ch->inst, .enabled = ch->enabled };
    uint32_t hi;

    if (!gp100_space_load(s, &new.space, inst)) {
        ch->space = new.space;
        host_fault(s, ch, 0, false, GP100_FAULT_UNBOUND_INST);
        return false;
    }
    hi = gp100_vram_ldl(s, inst + RAMFC_GP_BASE_HI);
    new.gp_base = (uint64_t)(hi & 0xff) << 32 |
                  (gp100_vram_ldl(s, inst + RAMFC_GP_BASE_LO) & ~7u);
    new.gp_mask = (1u << extract32(hi, 16, 5)) - 1;
    new.gp_get = gp100_vram_ldl(s, inst + RAMFC_GP_GET) & new.gp_mask;
    new.gp_put = gp100_vram_ldl(s, inst + RAMFC_GP_PUT) & new.gp_mask;
    new.userd = (uint64_t)gp100_vram_ldl(s, inst + RAMFC_USERD_HI) << 32 |
                (gp100_vram_ldl(s, inst + RAMFC_USERD_LO) & ~0x1ffu);
    new.loaded = true;
    load_state(s, &new, inst);
    *ch = new;
    trace_gp100_channel_load(chid, inst, ch->gp_base, ch->gp_mask, ch->gp_get);
    if (!gp100_vram(s, ch->userd, GP100_USERD_SIZE)) {
        ch->loaded = false;
        gp100_pbdma_error(s, chid, PBDMA_INTR_0_GPPTR, 0, 0);
        return false;
    }
    return true;
}

bool gp100_pbdma_load(GP100State *s, unsigned chid)
{
    bool ok = channel_load(s, chid);

    gp100_did(s, GP100_EVENT_PBDMA_LOAD, ok);
    return ok;
}

static bool sem_satisfied(GP100State *s, GP100Channel *ch, uint64_t va,
                          uint32_t op, uint32_t payload)
{
    uint32_t val;
    uint64_t fault_va;
    GP100FaultType fault;

    fault = gp100_virt_read(s, &ch->space, va, &val, 4, &fault_va);
    if (fault != GP100_FAULT_NONE) {
        host_fault(s, ch, fault_va, false, fault);
        return false;
    }
    val = le32_to_cpu(val);
    switch (op) {
    case SEM_ACQUIRE:
        return val == payload;
    case SEM_ACQUIRE_GEQ:
        return (int32_t)(val - payload) >= 0;
    default:
        return val & payload;
    }
}

static void sem_release(GP100State *s, GP100Channel *ch, uint64_t va,
                        uint32_t payload, bool stamp)
{
    uint64_t fault_va;
    GP100FaultType fault = gp100_semaphore_write(s, &ch->space, va, payload,
                                                 stamp, &fault_va);

    gp100_did(s, stamp ? GP100_EVENT_PBDMA_RELEASE_STAMP
                       : GP100_EVENT_PBDMA_RELEASE,
              fault == GP100_FAULT_NONE);
    if (fault != GP100_FAULT_NONE) {
        host_fault(s, ch, fault_va, true, fault);
    }
}

static uint64_t sem_va(GP100Channel *ch)
{
    return (uint64_t)(ch->sem[0] & 0xff) << 32 | (ch->sem[1] & ~3u);
}

static GP100Event acquire_event(uint32_t op)
{
    return op == SEM_ACQUIRE ? GP100_EVENT_PBDMA_ACQUIRE
         : op == SEM_ACQUIRE_GEQ ? GP100_EVENT_PBDMA_ACQUIRE_GEQ
         : GP100_EVENT_PBDMA_ACQUIRE_AND;
}

/* Try the acquire in SEMAPHORED; park the channel when it does not hold. */
static void sem_acquire(GP100State *s, unsigned chid)
{
    GP100Channel *ch = &s->fifo.chan[chid];
    bool parked = ch->wait == GP100_WAIT_ACQUIRE;

    if (sem_satisfied(s, ch, sem_va(ch), SEM_OP(ch->sem[3]), ch->sem[2])) {
        /* What the channel reads next was written before the payload. */
        smp_rmb();
        ch->wait = GP100_WAIT_NONE;
        s->stats.sem_acquires++;
        gp100_did(s, acquire_event(SEM_OP(ch->sem[3])), true);
        trace_gp100_semaphore(chid, sem_va(ch), ch->sem[2], ch->sem[3],
                              parked ? "acquired after waiting" : "acquired");
    } else if (ch->wait == GP100_WAIT_ERROR) {
        gp100_did(s, acquire_event(SEM_OP(ch->sem[3])), false);
    } else if (!parked) {
        ch->wait = GP100_WAIT_ACQUIRE;
        gp100_did(s, GP100_EVENT_PBDMA_WAIT, true);
        trace_gp100_semaphore(chid, sem_va(ch), ch->sem[2], ch->sem[3],
                              "waits");
    }
}

static void host_semaphore(GP100State *s, unsigned chid, uint32_t mthd,
                           uint32_t data)
{
    GP100Channel *ch = &s->fifo.chan[chid];

    ch->sem[(mthd - 0x10) / 4] = data;
    if (mthd != 0x1c) {
        return;
    }
    switch (SEM_OP(data)) {
    case SEM_RELEASE:
        trace_gp100_semaphore(chid, sem_va(ch), ch->sem[2], data, "release");
        sem_release(s, ch, sem_va(ch), ch->sem[2], !(data & SEM_SIZE_4BYTE));
        break;
    case SEM_ACQUIRE:
    case SEM_ACQUIRE_GEQ:
    case SEM_ACQUIRE_AND:
        sem_acquire(s, chid);
        break;
    default:
        gp100_pbdma_error(s, chid, PBDMA_INTR_0_SEMAPHORE, mthd, data);
    }
}

static void host_set_object(GP100State *s, unsigned chid, uint32_t mthd,
                            uint32_t data)
{
    GP100Channel *ch = &s->fifo.chan[chid];

    if ((data & 0xffff) != GP100_CLASS_CE) {
        gp100_pbdma_error(s, chid, PBDMA_INTR_0_DEVICE, mthd, data);
        return;
    }
    ch->subch_class[ch->subch] = data;
}

static void host_nonstall(GP100State *s, unsigned chid, uint32_t mthd,
                          uint32_t data)
{
    gp100_fifo_nonstall(s);
}

/* Ordering and cache control, which have no effect in the model. */
static void host_nop(GP100State *s, unsigned chid, uint32_t mthd,
                     uint32_t data)
{
}

static const struct {
    uint32_t first, last;
    const char *name;
    void (*exec)(GP100State *s, unsigned chid, uint32_t mthd, uint32_t data);
} host_methods[] = {
    { 0x00, 0x00, "SET_OBJECT", host_set_object },
    { 0x04, 0x04, "ILLEGAL", NULL },
    { 0x08, 0x08, "NOP", host_nop },
    { 0x10, 0x1c, "SEMAPHORE", host_semaphore },
    { 0x20, 0x20, "NON_STALL_INTERRUPT", host_nonstall },
    { 0x24, 0x24, "FB_FLUSH", host_nop },
    { 0x28, 0x34, "MEM_OP", host_nop },
    { 0x50, 0x50, "SET_REFERENCE", host_nop },
    { 0x78, 0x78, "WFI", host_nop },
    { 0x7c, 0x7c, "CRC_CHECK", host_nop },
    { 0x80, 0x80, "YIELD", host_nop },
};
QEMU_BUILD_BUG_ON(ARRAY_SIZE(host_methods) > GP100_HOST_METHODS);

void gp100_pbdma_counts(const GP100State *s, GString *text)
{
    for (unsigned i = 0; i < ARRAY_SIZE(host_methods); i++) {
        if (host_methods[i].exec) {
            gp100_count_append(text, "HOST.", host_methods[i].name,
                               &s->stats.host_methods[i]);
        }
    }
}

static void exec_method(GP100State *s, unsigned chid, uint32_t mthd,
                        uint32_t data)
{
    GP100Channel *ch = &s->fifo.chan[chid];

    s->stats.methods++;
    if (mthd < HOST_METHODS_END) {
        for (unsigned i = 0; i < ARRAY_SIZE(host_methods); i++) {
            if (mthd >= host_methods[i].first && mthd <= host_methods[i].last &&
                host_methods[i].exec) {
                trace_gp100_host_method(chid, ch->subch, host_methods[i].name,
                                        mthd, data);
                host_methods[i].exec(s, chid, mthd, data);
                gp100_count(&s->stats.host_methods[i],
                            ch->wait != GP100_WAIT_PBDMA &&
                            ch->wait != GP100_WAIT_ERROR);
                return;
            }
        }
        gp100_pbdma_error(s, chid, PBDMA_INTR_0_METHOD, mthd, data);
        return;
    }
    if (ch->subch_class[ch->subch] != GP100_CLASS_CE ||
        !gp100_ce_method(s, chid, mthd, data)) {
        gp100_pbdma_error(s, chid, PBDMA_INTR_0_DEVICE, mthd, data);
    }
}

/* Start executing the method header @hdr. */
static void exec_header(GP100State *s, unsigned chid, uint32_t hdr)
{
    GP100Channel *ch = &s->fifo.chan[chid];
    unsigned op = HDR_OP(hdr);

    if (hdr == 0) {
        return;
    }
    ch->subch = HDR_SUBCH(hdr);
    ch->method = HDR_METHOD(hdr);
    ch->method_left = HDR_COUNT(hdr);
    ch->method_step = 4;
    ch->method_once = false;
    switch (op) {
    case 0:                             /* increasing, old form */
    case 2:                             /* not increasing, old form */
        ch->method_left = 0;
        if (HDR_OLD_OP(hdr) == 0) {
            ch->method = HDR_OLD_METHOD(hdr);
            ch->method_left = HDR_OLD_COUNT(hdr);
            ch->method_step = op == 0 ? 4 : 0;
            gp100_did(s, op == 0 ? GP100_EVENT_PBDMA_OLD_INC
                                 : GP100_EVENT_PBDMA_OLD_NON_INC, true);
        } else if (op == 2) {
            gp100_pbdma_error(s, chid, PBDMA_INTR_0_PBENTRY, 0, hdr);
        }                               /* else: subdevice masks */
        break;
    case 1:                             /* increasing */
        gp100_did(s, GP100_EVENT_PBDMA_INC, true);
        break;
    case 3:                             /* not increasing */
        gp100_did(s, GP100_EVENT_PBDMA_NON_INC, true);
        ch->method_step = 0;
        break;
    case 4:                             /* the count is the data */
        gp100_did(s, GP100_EVENT_PBDMA_IMMEDIATE, true);
        ch->method_left = 0;
        exec_method(s, chid, ch->method, HDR_COUNT(hdr));
        break;
    case 5:                             /* increasing once */
        gp100_did(s, GP100_EVENT_PBDMA_INC_ONCE, true);
        ch->method_once = true;
        break;
    case 7:                             /* end of the segment */
        gp100_did(s, GP100_EVENT_PBDMA_END, true);
        ch->method_left = 0;
        ch->pb_words = 0;
        break;
    default:
        ch->method_left = 0;
        gp100_pbdma_error(s, chid, PBDMA_INTR_0_PBENTRY, 0, hdr);
    }
}

static void exec_word(GP100State *s, unsigned chid, uint32_t word)
{
    GP100Channel *ch = &s->fifo.chan[chid];
    uint32_t mthd = ch->method;

    if (ch->method_left == 0) {
        exec_header(s, chid, word);
        return;
    }
    ch->method_left--;
    /* The 12 bits of a header name no word beyond this. */
    ch->method = (ch->method + ch->method_step) & 0x3ffc;
    if (ch->method_once) {
        ch->method_step = 0;
    }
    exec_method(s, chid, mthd, word);
}

/* Execute words of the current segment. */
static void run_segment(GP100State *s, unsigned chid, GP100Budget *budget)
{
    GP100Channel *ch = &s->fifo.chan[chid];
    uint32_t buf[FETCH_WORDS];
    unsigned n = MIN(ch->pb_words, FETCH_WORDS);
    uint64_t fault_va;
    GP100FaultType fault;

    fault = gp100_virt_read(s, &ch->space, ch->pb_va, buf, 4 * n, &fault_va);
    if (fault != GP100_FAULT_NONE) {
        host_fault(s, ch, fault_va, false, fault);
        return;
    }
    for (unsigned i = 0; i < n && ch->pb_words; i++) {
        ch->pb_va += 4;
        ch->pb_words--;
        budget->methods--;
        exec_word(s, chid, le32_to_cpu(buf[i]));
        if (ch->wait != GP100_WAIT_NONE || s->ce.busy ||
            budget->methods <= 0 || !DEVICE(s)->realized) {
            return;
        }
    }
}

/* Take the next GP entry; false when there is none. */
static bool next_entry(GP100State *s, unsigned chid)
{
    GP100Channel *ch = &s->fifo.chan[chid];
    uint32_t put = gp100_vram_ldl(s, ch->userd + USERD_GP_PUT);
    uint32_t e[2];
    uint64_t va, fault_va;
    GP100FaultType fault;

    if (put > ch->gp_mask) {
        gp100_did(s, GP100_EVENT_PBDMA_ENTRY, false);
        gp100_pbdma_error(s, chid, PBDMA_INTR_0_GPPTR, 0, put);
        return false;
    }
    ch->gp_put = put;
    if (ch->gp_get == ch->gp_put) {
        return false;
    }
    va = ch->gp_base + 8ull * ch->gp_get;
    fault = gp100_virt_read(s, &ch->space, va, e, 8, &fault_va);
    gp100_did(s, GP100_EVENT_PBDMA_ENTRY, fault == GP100_FAULT_NONE);
    if (fault != GP100_FAULT_NONE) {
        host_fault(s, ch, fault_va, false, fault);
        return false;
    }
    e[0] = le32_to_cpu(e[0]);
    e[1] = le32_to_cpu(e[1]);
    ch->pb_va = (uint64_t)(e[1] & GP_VA_HI) << 32 | (e[0] & GP_VA_LO);
    ch->pb_words = GP_LENGTH(e[1]);
    ch->gp_get = (ch->gp_get + 1) & ch->gp_mask;
    s->stats.gp_entries++;
    trace_gp100_gp_entry(chid, ch->gp_get, ch->gp_put, ch->pb_va,
                         ch->pb_words);
    return true;
}

bool gp100_pbdma_run(GP100State *s, unsigned chid, GP100Budget *budget)
{
    GP100Channel *ch = &s->fifo.chan[chid];
    bool progress = false;

    if (!ch->loaded && !gp100_pbdma_load(s, chid)) {
        return false;
    }
    if (ch->wait == GP100_WAIT_ACQUIRE) {
        sem_acquire(s, chid);
    }
    while (ch->wait == GP100_WAIT_NONE && !s->ce.busy &&
           budget->methods > 0 && budget->bytes > 0 && DEVICE(s)->realized) {
        if (ch->pb_words) {
            run_segment(s, chid, budget);
        } else {
            if (!next_entry(s, chid)) {
                break;
            }
            budget->methods--;          /* entries without words cost, too */
        }
        progress = true;
    }
    if (progress) {
        gp100_vram_stl(s, ch->userd + USERD_GP_GET, ch->gp_get);
        /* Where it is in the push buffer: what drivers look at differs. */
        gp100_vram_stl(s, ch->userd + USERD_GET, ch->pb_va);
        gp100_vram_stl(s, ch->userd + USERD_GET_HI, ch->pb_va >> 32);
        gp100_vram_stl(s, ch->userd + USERD_TOP_LEVEL_GET, ch->pb_va);
        gp100_vram_stl(s, ch->userd + USERD_TOP_LEVEL_GET_HI,
                       BIT(31) | ch->pb_va >> 32);
    }
    return progress;
}

/* Registers */

bool gp100_pbdma_intr(GP100State *s)
{
    return (gp100_reg(s, PBDMA_INTR_0) & gp100_reg(s, PBDMA_INTR_EN_0)) ||
           (gp100_reg(s, PBDMA_INTR_1) & gp100_reg(s, PBDMA_INTR_EN_1));
}

/*
 * The PBDMA goes on behind what it stopped at: nouveau puts a NOP into METHOD0
 * first, and disables the channel of an error that it takes for fatal.
 */
static void pbdma_intr_0_write(GP100State *s, unsigned i, uint32_t val)
{
    GP100Channel *ch = &s->fifo.chan[gp100_reg(s, PBDMA_CHANNEL)];

    gp100_irq_update(s);
    if (gp100_reg(s, PBDMA_INTR_0)) {
        return;
    }
    if (ch->wait == GP100_WAIT_PBDMA) {
        ch->wait = GP100_WAIT_NONE;
        gp100_did(s, GP100_EVENT_PBDMA_GO_ON, true);
    }
    gp100_fifo_kick(s);
}

static uint32_t pbdma_fifo_intr_read(GP100State *s, unsigned i)
{
    return gp100_pbdma_intr(s);
}

static const GP100Reg pbdma_regs[] = {
    { PFIFO_PBDMA_INTR, "PBDMA_INTR", .read = pbdma_fifo_intr_read },
    { PFIFO_PBDMA_STATUS, "PBDMA_STATUS" },
    { PBDMA_METHOD0, "METHOD0", .wmask = UINT32_MAX },
    { PBDMA_DATA0, "DATA0", .wmask = UINT32_MAX },
    { PBDMA_INTR_0, "INTR_0", .w1c = UINT32_MAX, .write = pbdma_intr_0_write },
    { PBDMA_INTR_EN_0, "INTR_EN_0", .wmask = UINT32_MAX,
      .write = gp100_irq_write },
    { PBDMA_CHANNEL, "CHANNEL" },
    { PBDMA_ACQUIRE, "ACQUIRE", .wmask = UINT32_MAX },
    { PBDMA_CONTROL, "CONTROL", .wmask = UINT32_MAX },
    { PBDMA_INTR_1, "INTR_1", .w1c = UINT32_MAX, .write = gp100_irq_write },
    { PBDMA_INTR_EN_1, "INTR_EN_1", .wmask = UINT32_MAX,
      .write = gp100_irq_write },
    { 0x040150, "HCE_DATA", .count = 2 },
};

const GP100Unit gp100_pbdma = {
    .name = "PBDMA", .regs = pbdma_regs, .num_regs = ARRAY_SIZE(pbdma_regs),
};
