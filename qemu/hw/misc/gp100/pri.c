/*
 * GP100: BAR0, the register space.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Every unit describes its registers in a table.  What no table describes is
 * unknown: it is counted and traced, and either behaves as memory (a driver
 * may set up parts of the chip that are not modelled) or, with strict=on,
 * answers as hardware answers an access that no unit claims.
 */

#include "qemu/osdep.h"
#include "qemu/log.h"
#include "qemu/units.h"
#include "gp100.h"
#include "trace.h"

/* What the PRI hub returns when nobody decodes the address. */
#define PRI_ERROR               0xbadf1100

#define PRI_WORDS               (GP100_BAR0_SIZE / 4)

static const GP100Unit *const units[] = {
    &gp100_pmc, &gp100_pbus, &gp100_ptimer, &gp100_fuse, &gp100_fb,
    &gp100_mmu, &gp100_fault, &gp100_fifo, &gp100_pbdma, &gp100_ce,
    &gp100_board,
};

typedef struct PriEntry {
    const GP100Unit *unit;
    const GP100Reg *reg;
} PriEntry;

/* All registers of all units; pri_index holds 1 + the position in here. */
static GArray *pri_entries;
static uint16_t *pri_index;

static uint32_t reg_addr(const GP100Reg *reg, unsigned i)
{
    return reg->addr + i * (reg->stride ?: 4);
}

static unsigned reg_count(const GP100Reg *reg)
{
    return reg->count ?: 1;
}

/* Once, for all devices. */
static void pri_init_index(void)
{
    if (pri_index) {
        return;
    }
    pri_index = g_new0(uint16_t, PRI_WORDS);
    pri_entries = g_array_new(false, false, sizeof(PriEntry));
    for (unsigned u = 0; u < ARRAY_SIZE(units); u++) {
        for (unsigned r = 0; r < units[u]->num_regs; r++) {
            PriEntry e = { units[u], &units[u]->regs[r] };

            g_array_append_val(pri_entries, e);
            for (unsigned i = 0; i < reg_count(e.reg); i++) {
                uint32_t word = reg_addr(e.reg, i) / 4;

                /* The tables are constant; two owners are a bug in them. */
                g_assert(word < PRI_WORDS && pri_index[word] == 0);
                pri_index[word] = pri_entries->len;
            }
        }
    }
}

static const PriEntry *pri_find(uint32_t addr, unsigned *i)
{
    unsigned n = pri_index[addr / 4];
    const PriEntry *e;

    if (n == 0) {
        return NULL;
    }
    e = &g_array_index(pri_entries, PriEntry, n - 1);
    *i = (addr - e->reg->addr) / (e->reg->stride ?: 4);
    return e;
}

void gp100_unit_reset_regs(GP100State *s, const GP100Unit *unit)
{
    for (unsigned r = 0; r < unit->num_regs; r++) {
        const GP100Reg *reg = &unit->regs[r];

        for (unsigned i = 0; i < reg_count(reg); i++) {
            gp100_reg_set(s, reg_addr(reg, i), reg->reset);
        }
    }
}

void gp100_pri_reset(GP100State *s)
{
    /* Untouched pages of the register file must stay untouched. */
    g_free(s->regs);
    s->regs = g_new0(uint32_t, PRI_WORDS);
    for (unsigned u = 0; u < ARRAY_SIZE(units); u++) {
        gp100_unit_reset_regs(s, units[u]);
        if (units[u]->reset) {
            units[u]->reset(s);
        }
    }
}

void gp100_guest_error_(GP100State *s, const char *func, const char *fmt, ...)
{
    g_autofree char *msg = NULL;
    va_list ap;

    s->stats.guest_errors++;
    if (!qemu_loglevel_mask(LOG_GUEST_ERROR) &&
        !trace_event_get_state_backends(TRACE_GP100_GUEST_ERROR)) {
        return;
    }
    va_start(ap, fmt);
    msg = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    trace_gp100_guest_error(func, msg);
    qemu_log_mask(LOG_GUEST_ERROR, "gp100: %s: %s\n", func, msg);
}

static uint32_t pri_read_word(GP100State *s, uint32_t addr)
{
    unsigned i;
    const PriEntry *e = pri_find(addr, &i);
    uint32_t val;

    if (!e) {
        s->stats.unknown_regs++;
        val = s->strict ? PRI_ERROR : gp100_reg(s, addr);
        trace_gp100_unknown_read(addr, val);
        return val;
    }
    val = e->reg->read ? e->reg->read(s, i) : gp100_reg(s, addr);
    trace_gp100_reg_read(e->unit->name, e->reg->name, i, addr, val);
    return val;
}

static void pri_write_word(GP100State *s, uint32_t addr, uint32_t val)
{
    unsigned i;
    const PriEntry *e = pri_find(addr, &i);
    uint32_t now;

    if (!e) {
        s->stats.unknown_regs++;
        trace_gp100_unknown_write(addr, val);
        if (s->strict) {
            gp100_guest_error(s, "write 0x%08" PRIx32 " to unknown register "
                              "0x%06" PRIx32, val, addr);
        } else {
            gp100_reg_set(s, addr, val);
        }
        return;
    }
    trace_gp100_reg_write(e->unit->name, e->reg->name, i, addr, val);
    now = gp100_reg(s, addr);
    now = (now & ~e->reg->wmask) | (val & e->reg->wmask);
    now &= ~(val & e->reg->w1c);
    gp100_reg_set(s, addr, now);
    if (e->reg->write) {
        e->reg->write(s, i, val);
    }
}

/*
 * Registers are 32 bits wide.  Narrower reads are parts of a register.
 * Narrower writes (byte-wide VGA registers) make sense only where a
 * register has no side effects.
 */
static uint64_t pri_read(void *opaque, hwaddr addr, unsigned size)
{
    uint32_t word = pri_read_word(opaque, addr & ~3);

    return extract32(word, (addr & 3) * 8, size * 8);
}

static void pri_write(void *opaque, hwaddr addr, uint64_t val, unsigned size)
{
    GP100State *s = opaque;
    uint32_t base = addr & ~3;
    unsigned i;
    const PriEntry *e;

    if (size < 4) {
        e = pri_find(base, &i);
        if (e && (e->reg->write || e->reg->w1c)) {
            gp100_guest_error(s, "%u byte write to %s", size, e->reg->name);
            return;
        }
        val = deposit32(gp100_reg(s, base), (addr & 3) * 8, size * 8, val);
    }
    pri_write_word(s, base, val);
}

static const MemoryRegionOps pri_ops = {
    .read = pri_read,
    .write = pri_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = { .min_access_size = 1, .max_access_size = 8 },
    .impl = { .min_access_size = 1, .max_access_size = 4 },
};

static uint64_t prom_read(void *opaque, hwaddr addr, unsigned size)
{
    GP100State *s = opaque;

    return addr < GP100_VBIOS_SIZE ? ldn_le_p(s->vbios + addr, size) : 0;
}

static void prom_write(void *opaque, hwaddr addr, uint64_t val, unsigned size)
{
    gp100_guest_error(opaque, "write to PROM at 0x%" HWADDR_PRIx, addr);
}

static const MemoryRegionOps prom_ops = {
    .read = prom_read,
    .write = prom_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = { .min_access_size = 1, .max_access_size = 8 },
    .impl = { .min_access_size = 1, .max_access_size = 8 },
};

/* PRAMIN: 1 MiB of VRAM, at the address in PBUS_BAR0_WINDOW. */
static uint64_t pramin_addr(GP100State *s, hwaddr addr)
{
    uint32_t win = gp100_reg(s, PBUS_BAR0_WINDOW);

    return ((uint64_t)(win & BAR0_WINDOW_BASE) << 16) + addr;
}

static uint64_t pramin_read(void *opaque, hwaddr addr, unsigned size)
{
    GP100State *s = opaque;
    uint64_t phys = pramin_addr(s, addr);
    void *p = gp100_vram(s, phys, size);
    uint64_t val;

    gp100_did(s, GP100_EVENT_BAR_PRAMIN, p);
    if (!p) {
        gp100_guest_error(s, "PRAMIN read of VRAM 0x%" PRIx64, phys);
        return UINT64_MAX;
    }
    val = ldn_le_p(p, size);
    trace_gp100_pramin_read(phys, val, size);
    return val;
}

static void pramin_write(void *opaque, hwaddr addr, uint64_t val,
                         unsigned size)
{
    GP100State *s = opaque;
    uint64_t phys = pramin_addr(s, addr);
    void *p = gp100_vram(s, phys, size);

    gp100_did(s, GP100_EVENT_BAR_PRAMIN, p);
    if (!p) {
        gp100_guest_error(s, "PRAMIN write to VRAM 0x%" PRIx64, phys);
        return;
    }
    trace_gp100_pramin_write(phys, val, size);
    stn_le_p(p, size, val);
}

static const MemoryRegionOps pramin_ops = {
    .read = pramin_read,
    .write = pramin_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = { .min_access_size = 1, .max_access_size = 8 },
    .impl = { .min_access_size = 1, .max_access_size = 8 },
};

void gp100_pri_realize(GP100State *s)
{
    Object *o = OBJECT(s);

    pri_init_index();
    memory_region_init(&s->bar0, o, "gp100-bar0", GP100_BAR0_SIZE);
    memory_region_init_io(&s->pri, o, &pri_ops, s, "gp100-pri",
                          GP100_BAR0_SIZE);
    memory_region_init_io(&s->prom, o, &prom_ops, s, "gp100-prom", PROM_SIZE);
    memory_region_init_io(&s->pramin, o, &pramin_ops, s, "gp100-pramin",
                          PRAMIN_SIZE);
    memory_region_add_subregion(&s->bar0, 0, &s->pri);
    memory_region_add_subregion_overlap(&s->bar0, PROM_BASE, &s->prom, 1);
    memory_region_add_subregion_overlap(&s->bar0, PRAMIN_BASE, &s->pramin, 1);
}

/* A subregion is a reference to its owner, which would keep itself for ever. */
void gp100_pri_stop(GP100State *s)
{
    memory_region_del_subregion(&s->bar0, &s->pri);
    memory_region_del_subregion(&s->bar0, &s->prom);
    memory_region_del_subregion(&s->bar0, &s->pramin);
}
