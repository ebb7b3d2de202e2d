/*
 * GP100: accesses that a test has the graphics engine make.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * There is no graphics engine that could run a program, and no other engine's
 * faults are replayable.  So a test says through the property "access" what
 * such a program would read or write, one word at a time: it goes the way of
 * the copy engine's virtual addresses, and where it faults it waits, like a
 * warp, for the driver to replay or to cancel it.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "hw/pci/p2p_dma.h"
#include "gp100.h"
#include "trace.h"

/* The address space of what is bound to channel @chid at this time. */
static bool channel_space(GP100State *s, unsigned chid, GP100Space *space)
{
    uint32_t inst = s->fifo.chan[chid].inst;

    memset(space, 0, sizeof(*space));
    return (inst & CCSR_INST_BIND) &&
           gp100_space_load(s, space, (uint64_t)(inst & CCSR_INST_PTR) << 12);
}

static bool replayable(GP100State *s, const GP100Space *space,
                       GP100FaultType fault)
{
    return space->replay && gp100_fault_buffer_enabled(s) &&
           (fault == GP100_FAULT_PDE || fault == GP100_FAULT_PTE ||
            fault == GP100_FAULT_RO);
}

/* Its fault goes to the buffer, which can be anywhere, too. */
static void access_report(GP100State *s)
{
    GP100Access *a = &s->access;
    GP100Space space;

    if (!channel_space(s, a->chid, &space) ||
        !gp100_fault_buffer_enabled(s)) {
        a->state = GP100_ACCESS_FAULT;
        return;
    }
    a->state = GP100_ACCESS_WAITING;
    if (!gp100_fault_buffer_add(s, &space, a->va, a->write, a->fault) &&
        a->state == GP100_ACCESS_WAITING) {
        a->state = GP100_ACCESS_UNREPORTED;
    }
}

/* What it accesses can be anything, also what resets or unplugs the GPU. */
static void access_run(GP100State *s)
{
    GP100Access *a = &s->access;
    GP100Space space;
    uint64_t word = cpu_to_le64(a->value), fault_va;

    p2p_work_begin();
    a->state = GP100_ACCESS_RUNNING;
    channel_space(s, a->chid, &space);
    if (a->write) {
        a->fault = gp100_virt_write(s, &space, a->va, &word, sizeof(word),
                                    &fault_va);
    } else {
        a->fault = gp100_virt_read(s, &space, a->va, &word, sizeof(word),
                                   &fault_va);
    }
    trace_gp100_access(a->chid, a->va, a->write, le64_to_cpu(word), a->fault);
    if (!DEVICE(s)->realized || a->state != GP100_ACCESS_RUNNING) {
        /* unplugged or reset by what it accessed */
    } else if (a->fault == GP100_FAULT_NONE) {
        a->value = le64_to_cpu(word);
        a->state = GP100_ACCESS_DONE;
    } else if (replayable(s, &space, a->fault)) {
        access_report(s);
    } else {
        a->state = GP100_ACCESS_FAULT;
    }
    p2p_work_end();
}

static void access_bh(void *opaque)
{
    GP100State *s = opaque;

    p2p_work_begin();
    if (s->access.state == GP100_ACCESS_RUNNING) {
        access_run(s);
    } else if (s->access.state == GP100_ACCESS_UNREPORTED) {
        access_report(s);
    }
    p2p_work_end();
}

void gp100_access_report(GP100State *s)
{
    if (s->access.state == GP100_ACCESS_UNREPORTED) {
        qemu_bh_schedule(s->access.bh);
    }
}

void gp100_access_replay(GP100State *s, uint32_t val)
{
    GP100Access *a = &s->access;
    unsigned how = MMU_INVALIDATE_REPLAY(val);

    if (how == 0) {
        return;
    }
    trace_gp100_access_replay(how);
    s->stats.fault_replays += how == REPLAY_START ||
                              how == REPLAY_START_ACK_ALL;
    if (a->state != GP100_ACCESS_WAITING &&
        a->state != GP100_ACCESS_UNREPORTED) {
        return;
    }
    switch (how) {
    case REPLAY_START:
    case REPLAY_START_ACK_ALL:
        /* As a bottom half, which has a re-entrancy guard. */
        a->state = GP100_ACCESS_RUNNING;
        qemu_bh_schedule(a->bh);
        break;
    case REPLAY_CANCEL_TARGETED:
        if ((val & MMU_INVALIDATE_HUB) ||
            MMU_INVALIDATE_GPC(val) != GP100_ACCESS_GPC ||
            MMU_INVALIDATE_CLIENT(val) != GP100_ACCESS_CLIENT) {
            break;
        }
        /* fall through */
    case REPLAY_CANCEL_GLOBAL:
        a->state = GP100_ACCESS_CANCELLED;
        break;
    default:
        gp100_guest_error(s, "replay %u", how);
    }
}

void gp100_access_reset(GP100State *s)
{
    GP100Access *a = &s->access;

    qemu_bh_cancel(a->bh);
    if (a->state == GP100_ACCESS_RUNNING || a->state == GP100_ACCESS_WAITING ||
        a->state == GP100_ACCESS_UNREPORTED) {
        a->state = GP100_ACCESS_RESET;
    }
}

/* What the page tables say, in the words of the documentation. */
static char *describe_page(GP100State *s, unsigned chid, uint64_t va)
{
    static const char *const names[] = {
        [GP100_APER_VRAM] = "vram", [GP100_APER_PEER] = "peer",
        [GP100_APER_SYS_COH] = "system", [GP100_APER_SYS_NCOH] = "system",
        [GP100_APER_SPARSE] = "sparse",
    };
    GP100Space space;
    GP100Xlat x;
    uint64_t size;

    channel_space(s, chid, &space);
    if (gp100_walk(s, &space, va, &x, &size) != GP100_FAULT_NONE) {
        return g_strdup("none");
    }
    return g_strdup_printf("%s 0x%" PRIx64 " %" PRIu64 " %s", names[x.aper],
                           x.addr, size, x.ro ? "ro" : "rw");
}

char *gp100_access_get(Object *obj, Error **errp)
{
    GP100State *s = GP100(obj);
    GP100Access *a = &s->access;

    switch (a->state) {
    case GP100_ACCESS_DONE:
        return g_strdup_printf("done 0x%" PRIx64, a->value);
    case GP100_ACCESS_FAULT:
        return g_strdup_printf("fault %d", a->fault);
    case GP100_ACCESS_CANCELLED:
        return g_strdup("cancelled");
    case GP100_ACCESS_RESET:
        return g_strdup("reset");
    case GP100_ACCESS_NONE:
        return g_strdup("none");
    default:
        return g_strdup("waiting");
    }
}

static bool parse_number(const char *word, uint64_t *number)
{
    return word && qemu_strtou64(word, NULL, 0, number) == 0;
}

/* CHANNEL and ADDRESS, which words 1 and 2 of a request are. */
static bool parse_place(char **words, uint64_t *chid, uint64_t *va,
                        Error **errp)
{
    if (!parse_number(words[1], chid) || !parse_number(words[2], va)) {
        error_setg(errp, "gp100: a channel and an address are missing");
        return false;
    }
    if (*chid >= GP100_CHANNELS) {
        error_setg(errp, "gp100: there is no channel %" PRIu64, *chid);
        return false;
    }
    return true;
}

void gp100_access_set(Object *obj, const char *value, Error **errp)
{
    GP100State *s = GP100(obj);
    GP100Access *a = &s->access;
    g_auto(GStrv) words = g_strsplit(value, " ", 5);
    uint64_t chid, va, data = 0;
    bool write = words[0] && !strcmp(words[0], "write");

    if (!DEVICE(s)->realized) {
        error_setg(errp, "gp100: the device is not plugged in");
        return;
    }
    if (words[0] && !strcmp(words[0], "forget") && !words[1]) {
        gp100_access_reset(s);
        a->state = GP100_ACCESS_NONE;
        return;
    }
    if (!words[0] || (!write && strcmp(words[0], "read"))) {
        error_setg(errp, "gp100: access is neither read, write nor forget");
        return;
    }
    if (!parse_place(words, &chid, &va, errp)) {
        return;
    }
    if (va % sizeof(uint64_t) || (write && !parse_number(words[3], &data)) ||
        words[3 + write]) {
        error_setg(errp, "gp100: access is not read CHANNEL ADDRESS or "
                   "write CHANNEL ADDRESS VALUE, of 8 aligned bytes");
        return;
    }
    if (a->state == GP100_ACCESS_RUNNING ||
        a->state == GP100_ACCESS_WAITING ||
        a->state == GP100_ACCESS_UNREPORTED) {
        error_setg(errp, "gp100: the last access has not ended");
        return;
    }
    a->chid = chid;
    a->va = va;
    a->write = write;
    a->value = data;
    access_run(s);
}

char *gp100_lookup_get(Object *obj, Error **errp)
{
    GP100State *s = GP100(obj);

    return DEVICE(s)->realized
        ? describe_page(s, s->access.lookup_chid, s->access.lookup_va)
        : g_strdup("none");
}

void gp100_lookup_set(Object *obj, const char *value, Error **errp)
{
    GP100State *s = GP100(obj);
    g_autofree char *all = g_strconcat("lookup ", value, NULL);
    g_auto(GStrv) words = g_strsplit(all, " ", 4);
    uint64_t chid, va;

    if (!parse_place(words, &chid, &va, errp)) {
        return;
    }
    if (words[3]) {
        error_setg(errp, "gp100: lookup is not CHANNEL ADDRESS");
    } else {
        s->access.lookup_chid = chid;
        s->access.lookup_va = va;
    }
}

void gp100_access_realize(GP100State *s)
{
    s->access.bh = qemu_bh_new_guarded(access_bh, s,
                                       &DEVICE(s)->mem_reentrancy_guard);
}

void gp100_access_stop(GP100State *s)
{
    gp100_access_reset(s);
}

void gp100_access_finalize(GP100State *s)
{
    g_clear_pointer(&s->access.bh, qemu_bh_delete);
}
