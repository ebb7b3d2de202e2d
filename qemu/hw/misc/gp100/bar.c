/*
 * GP100: BAR1 and BAR2, the CPU's and the peers' views of VRAM through the
 * GPU's page tables.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * BAR2 is MMIO: every access is translated.  So is BAR1, except for windows:
 * where BAR1's page tables hold valid large pages of VRAM, the memory region
 * of VRAM itself is mapped over the MMIO region.  A peer's DMA there costs no
 * more than DMA to RAM and may use a pointer to it.  Windows follow the page
 * tables the way a TLB does: at an invalidation of BAR1's page directory.
 */

#include "qemu/osdep.h"
#include "gp100.h"
#include "trace.h"

#define USERD_GP_PUT            0x8c

static uint64_t userd_base(GP100State *s, bool *valid)
{
    uint32_t reg = gp100_reg(s, PFIFO_USERD_BASE);

    *valid = reg & USERD_BASE_VALID;
    return (uint64_t)(reg & USERD_BASE_ADDR) << 12;
}

/* Does a write of [@offset, @offset + @size) reach a channel's GP_PUT? */
static bool is_doorbell(GP100State *s, uint64_t offset, unsigned size)
{
    bool valid;
    uint64_t base = userd_base(s, &valid), in;

    if (!valid || offset < base ||
        offset - base >= GP100_CHANNELS * GP100_USERD_SIZE) {
        return false;
    }
    in = (offset - base) % GP100_USERD_SIZE;
    return in < USERD_GP_PUT + 4 && in + size > USERD_GP_PUT;
}

static MemTxResult bar_access(GP100State *s, GP100Bar *bar, unsigned unit,
                              uint64_t *faults, hwaddr offset, void *buf,
                              unsigned size, bool write)
{
    GP100FaultType fault;
    uint64_t va;

    if (!bar->virt) {
        bool ok = write ? gp100_phys_write(s, GP100_APER_VRAM, offset, buf,
                                           size)
                        : gp100_phys_read(s, GP100_APER_VRAM, offset, buf,
                                          size);

        gp100_did(s, GP100_EVENT_BAR_LINEAR, ok);
        if (ok) {
            return MEMTX_OK;
        }
        gp100_guest_error(s, "BAR unit %u: 0x%" HWADDR_PRIx
                          " is outside VRAM", unit, offset);
        ++*faults;
        return MEMTX_DECODE_ERROR;
    }
    fault = write ? gp100_virt_write(s, &bar->space, offset, buf, size, &va)
                  : gp100_virt_read(s, &bar->space, offset, buf, size, &va);
    gp100_did(s, GP100_EVENT_BAR_VIRTUAL, fault == GP100_FAULT_NONE);
    if (fault == GP100_FAULT_NONE) {
        return MEMTX_OK;
    }
    ++*faults;
    gp100_mmu_fault(s, unit, &bar->space, va, write, fault);
    return MEMTX_DECODE_ERROR;
}

static MemTxResult bar1_read(void *opaque, hwaddr addr, uint64_t *data,
                             unsigned size, MemTxAttrs attrs)
{
    GP100State *s = opaque;
    uint8_t buf[8];
    MemTxResult r;

    s->stats.bar1_reads++;
    r = bar_access(s, &s->bar1, GP100_UNIT_BAR1, &s->stats.bar1_faults,
                   addr, buf, size, false);
    *data = r == MEMTX_OK ? ldn_le_p(buf, size) : UINT64_MAX;
    trace_gp100_bar1_read(addr, *data, size, attrs.requester_id, r);
    return r;
}

static MemTxResult bar1_write(void *opaque, hwaddr addr, uint64_t data,
                              unsigned size, MemTxAttrs attrs)
{
    GP100State *s = opaque;
    uint8_t buf[8];
    MemTxResult r;

    s->stats.bar1_writes++;
    stn_le_p(buf, size, data);
    r = bar_access(s, &s->bar1, GP100_UNIT_BAR1, &s->stats.bar1_faults,
                   addr, buf, size, true);
    trace_gp100_bar1_write(addr, data, size, attrs.requester_id, r);
    if (r == MEMTX_OK && is_doorbell(s, addr, size)) {
        gp100_did(s, GP100_EVENT_PFIFO_DOORBELL, true);
        gp100_fifo_kick(s);
    }
    return r;
}

static MemTxResult bar2_read(void *opaque, hwaddr addr, uint64_t *data,
                             unsigned size, MemTxAttrs attrs)
{
    GP100State *s = opaque;
    uint8_t buf[8];
    MemTxResult r;

    r = bar_access(s, &s->bar2, GP100_UNIT_BAR2, &s->stats.bar2_faults,
                   addr, buf, size, false);
    *data = r == MEMTX_OK ? ldn_le_p(buf, size) : UINT64_MAX;
    trace_gp100_bar2_read(addr, *data, size, r);
    return r;
}

static MemTxResult bar2_write(void *opaque, hwaddr addr, uint64_t data,
                              unsigned size, MemTxAttrs attrs)
{
    GP100State *s = opaque;
    uint8_t buf[8];
    MemTxResult r;

    stn_le_p(buf, size, data);
    r = bar_access(s, &s->bar2, GP100_UNIT_BAR2, &s->stats.bar2_faults,
                   addr, buf, size, true);
    trace_gp100_bar2_write(addr, data, size, r);
    return r;
}

static const MemoryRegionOps bar1_ops = {
    .read_with_attrs = bar1_read,
    .write_with_attrs = bar1_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = { .min_access_size = 1, .max_access_size = 8, .unaligned = true },
    .impl = { .min_access_size = 1, .max_access_size = 8, .unaligned = true },
};

static const MemoryRegionOps bar2_ops = {
    .read_with_attrs = bar2_read,
    .write_with_attrs = bar2_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = { .min_access_size = 1, .max_access_size = 8, .unaligned = true },
    .impl = { .min_access_size = 1, .max_access_size = 8, .unaligned = true },
};

/*
 * QEMU aborts when an address space has 4096 sections or more.  A window is
 * one section, and another is the MMIO before it, unless it follows the window
 * before.  All GPUs of the machine share a budget, which leaves the rest of
 * the machine a quarter; it is enough for 6 GiB in pages that are in any order,
 * without a gap between them.
 */
#define WINDOW_SECTIONS         3072
static unsigned sections_left = WINDOW_SECTIONS;

/*
 * Append a large page to the runs in @windows.  false: that takes more sections
 * than there are.
 */
static bool window_add_page(GP100State *s, GArray *windows, uint64_t offset,
                            uint64_t vram)
{
    GP100Window *last = windows->len
        ? &g_array_index(windows, GP100Window, windows->len - 1) : NULL;
    bool follows = last && last->offset + last->size == offset;
    unsigned sections = follows ? 1 : 2;

    if (follows && last->vram + last->size == vram) {
        last->size += GP100_LARGE_SIZE;
    } else {
        GP100Window w = { offset, vram, GP100_LARGE_SIZE };

        if (sections > sections_left) {
            return false;
        }
        sections_left -= sections;
        s->bar1.sections += sections;
        g_array_append_val(windows, w);
    }
    return true;
}

/* No windows yet, and what the present ones take of the budget given back. */
static GArray *windows_new(GP100State *s)
{
    sections_left += s->bar1.sections;
    s->bar1.sections = 0;
    s->stats.bar1_window_rest = 0;
    return g_array_new(false, true, sizeof(GP100Window));
}

/*
 * The runs of large VRAM pages that BAR1's page tables describe now.  NULL: who
 * comes later knows better.  Page tables in system memory may be the registers
 * of a device, which has BAR1 bound anew, or the function unplugged; what the
 * runs took of the budget was given back then.
 */
static GArray *windows_scan(GP100State *s)
{
    GArray *windows = windows_new(s);
    unsigned binds = s->bar1.binds;
    g_autofree GP100Pd0Cache *cache = g_new(GP100Pd0Cache, 1);
    bool userd_valid;
    uint64_t userd = userd_base(s, &userd_valid);
    uint64_t userd_end = userd + GP100_CHANNELS * GP100_USERD_SIZE;

    if (!s->use_windows || !s->bar1.virt || !s->bar1.space.valid) {
        return windows;
    }
    GP100_PD0_CACHE_INIT(cache);
    for (uint64_t offset = 0; offset < s->bar1.size;
         offset += GP100_LARGE_SIZE) {
        uint64_t vram = gp100_large_page(s, &s->bar1.space,
                                         offset >> GP100_LARGE_SHIFT, cache);

        if (!DEVICE(s)->realized || s->bar1.binds != binds) {
            g_array_free(windows, true);
            return NULL;
        }
        /* Doorbells are MMIO. */
        if (vram != UINT64_MAX &&
            !(userd_valid && offset < userd_end &&
              userd < offset + GP100_LARGE_SIZE) &&
            !window_add_page(s, windows, offset, vram)) {
            s->stats.bar1_window_rest++;
        }
    }
    return windows;
}

static void window_map(GP100State *s, GP100Window *w)
{
    g_autofree char *name = g_strdup_printf("gp100-bar1-window-%" PRIx64,
                                            w->offset);

    w->mr = g_new0(MemoryRegion, 1);
    memory_region_init_alias(w->mr, OBJECT(s), name, s->vram_mr, w->vram,
                             w->size);
    memory_region_add_subregion_overlap(&s->bar1.container, w->offset, w->mr,
                                        1);
    trace_gp100_window_map(w->offset, w->vram, w->size);
    gp100_did(s, GP100_EVENT_BAR_WINDOW_MAP, true);
}

static void window_unmap(GP100State *s, GP100Window *w)
{
    trace_gp100_window_unmap(w->offset, w->vram, w->size);
    gp100_did(s, GP100_EVENT_BAR_WINDOW_UNMAP, true);
    memory_region_del_subregion(&s->bar1.container, w->mr);
    object_unparent(OBJECT(w->mr));
    g_free(w->mr);
}

static bool window_same(const GP100Window *a, const GP100Window *b)
{
    return a->offset == b->offset && a->vram == b->vram && a->size == b->size;
}

/* Replace the windows by @new.  Those that stay are not touched. */
static void windows_set(GP100State *s, GArray *new)
{
    GArray *old = s->bar1.windows;
    unsigned o = 0, n = 0;

    memory_region_transaction_begin();
    while (o < old->len || n < new->len) {
        GP100Window *wo = o < old->len
            ? &g_array_index(old, GP100Window, o) : NULL;
        GP100Window *wn = n < new->len
            ? &g_array_index(new, GP100Window, n) : NULL;

        if (wo && wn && window_same(wo, wn)) {
            wn->mr = wo->mr;
            o++;
            n++;
        } else if (wo && (!wn || wo->offset <= wn->offset)) {
            window_unmap(s, wo);
            o++;
        } else {
            window_map(s, wn);
            n++;
        }
    }
    memory_region_transaction_commit();

    g_array_free(old, true);
    s->bar1.windows = new;
    s->stats.bar1_windows = new->len;
    s->stats.bar1_window_bytes = 0;
    for (n = 0; n < new->len; n++) {
        s->stats.bar1_window_bytes +=
            g_array_index(new, GP100Window, n).size;
    }
}

void gp100_bar1_update_windows(GP100State *s, uint64_t pdb)
{
    GArray *new;

    if (!DEVICE(s)->realized ||
        (pdb != UINT64_MAX && s->bar1.virt && pdb != s->bar1.space.pdb)) {
        return;
    }
    new = windows_scan(s);
    if (new) {
        windows_set(s, new);
    }
}

static void bar_bind(GP100State *s, GP100Bar *bar, uint32_t block)
{
    bar->binds++;
    bar->virt = block & BAR_BLOCK_VIRTUAL;
    bar->space.valid = false;
    if (!bar->virt) {
        return;
    }
    if (block & BAR_BLOCK_TARGET) {
        gp100_guest_error(s, "BAR instance block 0x%08" PRIx32
                          " is not in VRAM", block);
        return;
    }
    gp100_space_load(s, &bar->space, (uint64_t)(block & BAR_BLOCK_PTR) << 12);
}

void gp100_bar1_bind(GP100State *s, uint32_t block)
{
    trace_gp100_bar_bind(1, block);
    bar_bind(s, &s->bar1, block);
    gp100_bar1_update_windows(s, UINT64_MAX);
}

void gp100_bar2_bind(GP100State *s, uint32_t block)
{
    trace_gp100_bar_bind(2, block);
    bar_bind(s, &s->bar2, block);
}

void gp100_bar_reset(GP100State *s)
{
    gp100_bar1_bind(s, 0);
    gp100_bar2_bind(s, 0);
}

void gp100_bar_realize(GP100State *s)
{
    Object *o = OBJECT(s);

    s->bar1.size = s->bar1_prop;
    s->bar2.size = GP100_BAR2_SIZE;
    s->bar1.windows = windows_new(s);
    memory_region_init(&s->bar1.container, o, "gp100-bar1", s->bar1.size);
    memory_region_init_io(&s->bar1.mmio, o, &bar1_ops, s, "gp100-bar1-mmio",
                          s->bar1.size);
    memory_region_add_subregion_overlap(&s->bar1.container, 0, &s->bar1.mmio,
                                        0);
    memory_region_init_io(&s->bar2.mmio, o, &bar2_ops, s, "gp100-bar2",
                          s->bar2.size);
}

void gp100_bar_stop(GP100State *s)
{
    windows_set(s, windows_new(s));
    memory_region_del_subregion(&s->bar1.container, &s->bar1.mmio);
}

void gp100_bar_finalize(GP100State *s)
{
    g_clear_pointer(&s->bar1.windows, g_array_unref);
}
