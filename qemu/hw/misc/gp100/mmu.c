/*
 * GP100: the GPU's MMU, page table format "version 2".
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Format: NVIDIA's dev_mmu_ver2 manual as used by nouveau (vmmgp100.c).
 *
 *   level   VA bits   entries   entry
 *   PD3     48:47     4         8 bytes
 *   PD2     46:38     512       8 bytes
 *   PD1     37:29     512       8 bytes
 *   PD0     28:21     256       16 bytes: a 2 MiB page, or two tables
 *   PT      20:16     32        8 bytes, 64 KiB pages (big)
 *           20:12     512       8 bytes, 4 KiB pages (small)
 *
 * Translations are cached and leave the cache only by an invalidation, so
 * that a driver which forgets one reads and writes stale pages here too.
 * Faulting lookups are not cached.
 */

#include "qemu/osdep.h"
#include "gp100.h"
#include "trace.h"

#define VA_BITS             49

/* Instance block */
#define INST_PDB_LO         0x200
#define INST_PDB_HI         0x204
#define INST_LIMIT_LO       0x208
#define INST_LIMIT_HI       0x20c
#define INST_SIZE           0x1000
#define   PDB_TARGET          0x00000003
#define   PDB_REPLAY          0x00000010  /* faults of the texture unit */
#define   PDB_VER2            0x00000400
#define   PDB_ADDR            0xfffffffffffff000ull

/* Page directory entries; PD0's big table is aligned to 256 bytes only */
#define PDE_APERTURE(e)     (((e) >> 1) & 3)
#define PDE_VOL             (1u << 3)
#define PDE_ADDR(e)         (((e) & 0x003fffffffffff00ull) << 4)
#define PDE_BIG_ADDR(e)     (((e) & 0x003ffffffffffff0ull) << 4)
#define PDE_IS_PTE          1u

/* Page table entries */
#define PTE_VALID           1u
#define PTE_APERTURE(e)     (((e) >> 1) & 3)
#define PTE_VOL             (1u << 3)   /* and not valid: sparse */
#define PTE_PRIV            (1u << 5)   /* and not valid: no small page */
#define PTE_RO              (1u << 6)
#define PTE_VRAM_ADDR(e)    ((((e) >> 8) & 0x1ffffffull) << 12)
#define PTE_SYS_ADDR(e)     ((((e) >> 8) & 0x3fffffffffffull) << 12)

static const unsigned tlb_shift[GP100_TLB_SHIFTS] = {
    GP100_LARGE_SHIFT, 16, 12,
};

bool gp100_space_load(GP100State *s, GP100Space *space, uint64_t inst)
{
    uint32_t lo;

    memset(space, 0, sizeof(*space));
    space->inst = inst;
    if (!gp100_vram(s, inst, INST_SIZE)) {
        gp100_guest_error(s, "instance block 0x%" PRIx64 " is outside VRAM",
                          inst);
        return false;
    }
    lo = gp100_vram_ldl(s, inst + INST_PDB_LO);
    space->pdb = (uint64_t)gp100_vram_ldl(s, inst + INST_PDB_HI) << 32 | lo;
    space->pdb &= PDB_ADDR | PDB_TARGET;
    space->limit =
        (uint64_t)gp100_vram_ldl(s, inst + INST_LIMIT_HI) << 32 |
        (gp100_vram_ldl(s, inst + INST_LIMIT_LO) | 0xfff);
    space->limit = MIN(space->limit, MAKE_64BIT_MASK(0, VA_BITS));
    if (!(lo & PDB_VER2)) {
        gp100_guest_error(s, "instance block 0x%" PRIx64 " has no version 2 "
                          "page directory (0x%08" PRIx32 ")", inst, lo);
        return false;
    }
    space->replay = lo & PDB_REPLAY;
    space->valid = true;
    trace_gp100_space_load(inst, space->pdb, space->limit);
    return true;
}

/* Page table memory: apertures as in PDEs, where 0 means no table. */
static bool pt_read(GP100State *s, unsigned pde_aper, uint64_t addr,
                    void *buf, unsigned len)
{
    switch (pde_aper) {
    case 1:
        return gp100_phys_read(s, GP100_APER_VRAM, addr, buf, len);
    case 2:
        return gp100_phys_read(s, GP100_APER_SYS_COH, addr, buf, len);
    case 3:
        return gp100_phys_read(s, GP100_APER_SYS_NCOH, addr, buf, len);
    default:
        return false;
    }
}

/* The target of a page directory, as a PDE would give it. */
static unsigned pdb_pde_aperture(uint64_t pdb)
{
    static const unsigned aper[] = { 1, 0, 2, 3 };

    return aper[pdb & PDB_TARGET];
}

/* What a lookup found: a page, in the terms of the TLB. */
typedef struct Page {
    uint64_t addr;
    unsigned shift;
    uint8_t aper;
    bool ro;
} Page;

static GP100FaultType page_from_pte(uint64_t pte, unsigned shift, Page *page)
{
    page->shift = shift;
    page->aper = PTE_APERTURE(pte);
    page->ro = pte & PTE_RO;
    if (page->aper == GP100_APER_PEER) {
        return GP100_FAULT_APERTURE;
    }
    page->addr = page->aper == GP100_APER_VRAM ? PTE_VRAM_ADDR(pte)
                                               : PTE_SYS_ADDR(pte);
    page->addr &= ~MAKE_64BIT_MASK(0, shift);
    return GP100_FAULT_NONE;
}

static GP100FaultType page_sparse(unsigned shift, Page *page)
{
    page->addr = 0;
    page->shift = shift;
    page->aper = GP100_APER_SPARSE;
    page->ro = false;
    return GP100_FAULT_NONE;
}

/* Find the PD0 entry of @va: two words. */
static GP100FaultType walk_to_pd0(GP100State *s, const GP100Space *space,
                                  uint64_t va, unsigned *pde_aper,
                                  uint64_t *table, bool *sparse)
{
    static const struct {
        unsigned shift, bits;
    } levels[] = { { 47, 2 }, { 38, 9 }, { 29, 9 } };

    *sparse = false;
    *pde_aper = pdb_pde_aperture(space->pdb);
    *table = space->pdb & PDB_ADDR;
    for (unsigned l = 0; l < ARRAY_SIZE(levels); l++) {
        uint64_t i = extract64(va, levels[l].shift, levels[l].bits);
        uint64_t pde;

        if (!pt_read(s, *pde_aper, *table + i * 8, &pde, 8)) {
            return GP100_FAULT_PDE;
        }
        pde = le64_to_cpu(pde);
        *pde_aper = PDE_APERTURE(pde);
        if (*pde_aper == 0) {
            *sparse = pde & PDE_VOL;
            return GP100_FAULT_PDE;
        }
        *table = PDE_ADDR(pde);
    }
    return GP100_FAULT_NONE;
}

static GP100FaultType walk(GP100State *s, const GP100Space *space,
                           uint64_t va, Page *page)
{
    unsigned aper;
    uint64_t table, pd0[2], pte;
    bool sparse;
    GP100FaultType fault;

    fault = walk_to_pd0(s, space, va, &aper, &table, &sparse);
    if (fault != GP100_FAULT_NONE) {
        return sparse ? page_sparse(GP100_LARGE_SHIFT, page) : fault;
    }
    table += extract64(va, 21, 8) * 16;
    if (!pt_read(s, aper, table, pd0, 16)) {
        return GP100_FAULT_PDE;
    }
    pd0[0] = le64_to_cpu(pd0[0]);
    pd0[1] = le64_to_cpu(pd0[1]);
    if (pd0[0] & PDE_IS_PTE) {
        return page_from_pte(pd0[0], GP100_LARGE_SHIFT, page);
    }

    /* A big page wins over a small one, and can rule the small one out. */
    aper = PDE_APERTURE(pd0[0]);
    if (aper) {
        uint64_t at = PDE_BIG_ADDR(pd0[0]) + extract64(va, 16, 5) * 8;

        if (!pt_read(s, aper, at, &pte, 8)) {
            return GP100_FAULT_PTE;
        }
        pte = le64_to_cpu(pte);
        if (pte & PTE_VALID) {
            return page_from_pte(pte, 16, page);
        }
        if (pte & PTE_VOL) {
            return page_sparse(16, page);
        }
        if (pte & PTE_PRIV) {
            return GP100_FAULT_PTE;
        }
    } else if (pd0[0] & PDE_VOL) {
        return page_sparse(GP100_LARGE_SHIFT, page);
    }

    aper = PDE_APERTURE(pd0[1]);
    if (!aper) {
        return PDE_APERTURE(pd0[0]) ? GP100_FAULT_PTE : GP100_FAULT_PDE;
    }
    if (!pt_read(s, aper, PDE_ADDR(pd0[1]) + extract64(va, 12, 9) * 8,
                 &pte, 8)) {
        return GP100_FAULT_PTE;
    }
    pte = le64_to_cpu(pte);
    if (pte & PTE_VALID) {
        return page_from_pte(pte, 12, page);
    }
    return (pte & PTE_VOL) ? page_sparse(12, page) : GP100_FAULT_PTE;
}

static unsigned tlb_gen_slot(uint64_t pdb)
{
    return (pdb >> 12 ^ pdb >> 20) % GP100_TLB_GENS;
}

static GP100TlbEntry *tlb_slot(GP100State *s, unsigned size, uint64_t pdb,
                               uint64_t va)
{
    uint64_t vpn = va >> tlb_shift[size];

    return &s->mmu.tlb[size][(vpn ^ pdb >> 12) % GP100_TLB_ENTRIES];
}

static GP100TlbEntry *tlb_find(GP100State *s, uint64_t pdb, uint64_t va,
                               unsigned *size)
{
    uint32_t gen = s->mmu.gen[tlb_gen_slot(pdb)];

    for (*size = 0; *size < GP100_TLB_SHIFTS; ++*size) {
        GP100TlbEntry *e = tlb_slot(s, *size, pdb, va);

        if (e->valid && e->gen == gen && e->pdb == pdb &&
            e->vpn == va >> tlb_shift[*size]) {
            return e;
        }
    }
    return NULL;
}

static void count_page(GP100State *s, unsigned size, GP100Aperture aper)
{
    static const GP100Event events[GP100_TLB_SHIFTS] = {
        GP100_EVENT_MMU_LARGE_PAGE, GP100_EVENT_MMU_BIG_PAGE,
        GP100_EVENT_MMU_SMALL_PAGE,
    };

    gp100_did(s, events[size], true);
    gp100_did(s, aper == GP100_APER_VRAM ? GP100_EVENT_MMU_VRAM
                 : aper == GP100_APER_SPARSE ? GP100_EVENT_MMU_SPARSE
                 : GP100_EVENT_MMU_SYSTEM, true);
}

static GP100TlbEntry *tlb_fill(GP100State *s, uint64_t pdb, uint64_t va,
                               const Page *page, unsigned *size)
{
    GP100TlbEntry *e;

    for (*size = 0; tlb_shift[*size] != page->shift; ++*size) {
        ;
    }
    count_page(s, *size, page->aper);
    e = tlb_slot(s, *size, pdb, va);
    *e = (GP100TlbEntry) {
        .pdb = pdb, .vpn = va >> page->shift, .addr = page->addr,
        .gen = s->mmu.gen[tlb_gen_slot(pdb)],
        .aper = page->aper, .valid = s->use_tlb, .ro = page->ro,
    };
    return e;
}

static void tlb_flush(GP100State *s, uint64_t pdb, bool all)
{
    s->stats.tlb_invalidates++;
    if (all) {
        for (unsigned i = 0; i < GP100_TLB_GENS; i++) {
            s->mmu.gen[i]++;
        }
    } else {
        s->mmu.gen[tlb_gen_slot(pdb)]++;
    }
}

GP100FaultType gp100_translate(GP100State *s, const GP100Space *space,
                               uint64_t va, bool write, GP100Xlat *x)
{
    GP100TlbEntry *e;
    unsigned size;
    uint64_t offset;

    if (!space->valid) {
        return GP100_FAULT_UNBOUND_INST;
    }
    if (va > space->limit) {
        return GP100_FAULT_VA_LIMIT;
    }
    e = tlb_find(s, space->pdb, va, &size);
    if (e) {
        s->stats.tlb_hits++;
    } else {
        Page page = {};
        GP100FaultType fault;

        s->stats.tlb_misses++;
        fault = walk(s, space, va, &page);
        trace_gp100_walk(space->pdb, va, fault, page.addr, page.shift);
        if (fault != GP100_FAULT_NONE) {
            return fault;
        }
        e = tlb_fill(s, space->pdb, va, &page, &size);
    }
    if (write && e->ro) {
        return GP100_FAULT_RO;
    }
    offset = va & MAKE_64BIT_MASK(0, tlb_shift[size]);
    x->addr = e->addr + offset;
    x->left = (1ull << tlb_shift[size]) - offset;
    x->left = MIN(x->left, space->limit - va + 1);
    x->aper = e->aper;
    x->ro = e->ro;
    return GP100_FAULT_NONE;
}

static GP100FaultType virt_access(GP100State *s, const GP100Space *space,
                                  uint64_t va, void *buf, uint64_t len,
                                  bool write, uint64_t *fault_va)
{
    while (len) {
        GP100Xlat x;
        GP100FaultType fault = gp100_translate(s, space, va, write, &x);
        uint64_t n;
        bool ok;

        *fault_va = va;
        if (fault != GP100_FAULT_NONE) {
            return fault;
        }
        n = MIN(len, x.left);
        ok = write ? gp100_phys_write(s, x.aper, x.addr, buf, n)
                   : gp100_phys_read(s, x.aper, x.addr, buf, n);
        if (!ok) {
            return GP100_FAULT_BUS;
        }
        va += n;
        buf = (uint8_t *)buf + n;
        len -= n;
    }
    return GP100_FAULT_NONE;
}

GP100FaultType gp100_virt_read(GP100State *s, const GP100Space *space,
                               uint64_t va, void *buf, uint64_t len,
                               uint64_t *fault_va)
{
    return virt_access(s, space, va, buf, len, false, fault_va);
}

GP100FaultType gp100_virt_write(GP100State *s, const GP100Space *space,
                                uint64_t va, const void *buf, uint64_t len,
                                uint64_t *fault_va)
{
    return virt_access(s, space, va, (void *)buf, len, true, fault_va);
}

/* A waiter polls the payload: all else must be there before it. */
GP100FaultType gp100_semaphore_write(GP100State *s, const GP100Space *space,
                                     uint64_t va, uint32_t payload, bool stamp,
                                     uint64_t *fault_va)
{
    uint64_t now = cpu_to_le64(gp100_ptimer_now(s));
    uint64_t first = cpu_to_le64(payload);
    GP100FaultType fault = GP100_FAULT_NONE;

    if (stamp) {
        fault = gp100_virt_write(s, space, va + 8, &now, 8, fault_va);
    }
    if (fault == GP100_FAULT_NONE) {
        smp_wmb();
        fault = gp100_virt_write(s, space, va, &first, stamp ? 8 : 4,
                                 fault_va);
    }
    if (fault == GP100_FAULT_NONE) {
        s->stats.sem_releases++;
    }
    return fault;
}

GP100FaultType gp100_walk(GP100State *s, const GP100Space *space, uint64_t va,
                          GP100Xlat *x, uint64_t *page_size)
{
    Page page = {};
    GP100FaultType fault;

    if (!space->valid) {
        return GP100_FAULT_UNBOUND_INST;
    }
    if (va > space->limit) {
        return GP100_FAULT_VA_LIMIT;
    }
    fault = walk(s, space, va, &page);
    if (fault == GP100_FAULT_NONE) {
        *page_size = 1ull << page.shift;
        *x = (GP100Xlat) {
            .addr = page.addr + (va & (*page_size - 1)),
            .left = *page_size - (va & (*page_size - 1)),
            .aper = page.aper, .ro = page.ro,
        };
    }
    return fault;
}

uint64_t gp100_large_page(GP100State *s, const GP100Space *space,
                          uint64_t index, GP100Pd0Cache *cache)
{
    uint64_t va = index << GP100_LARGE_SHIFT, pte;
    Page page = {};

    if (va + GP100_LARGE_SIZE - 1 > space->limit) {
        return UINT64_MAX;
    }
    if (cache->index != index >> 8) {
        unsigned aper;
        uint64_t table;
        bool sparse;

        cache->index = index >> 8;
        cache->present =
            walk_to_pd0(s, space, va, &aper, &table, &sparse) ==
            GP100_FAULT_NONE &&
            pt_read(s, aper, table, cache->data, sizeof(cache->data));
    }
    if (!cache->present) {
        return UINT64_MAX;
    }
    pte = ldq_le_p(cache->data + (index & 0xff) * 16);
    if (!(pte & PDE_IS_PTE) ||
        page_from_pte(pte, GP100_LARGE_SHIFT, &page) != GP100_FAULT_NONE ||
        page.aper != GP100_APER_VRAM || page.ro ||
        !gp100_vram(s, page.addr, GP100_LARGE_SIZE)) {
        return UINT64_MAX;
    }
    return page.addr;
}

/* MMU_INVALIDATE_PDB: bits 1:0 target, 31:4 the low address bits >> 12 << 4 */
static uint64_t invalidate_pdb(GP100State *s)
{
    uint64_t lo = gp100_reg(s, MMU_INVALIDATE_PDB);
    uint64_t hi = gp100_reg(s, MMU_INVALIDATE_PDB_HI);

    return ((hi << 32 | lo) & ~0xfull) << 8 | (lo & PDB_TARGET);
}

static void mmu_invalidate_write(GP100State *s, unsigned i, uint32_t val)
{
    uint64_t pdb;
    bool all = val & MMU_INVALIDATE_ALL_PDB;

    if (!(val & MMU_INVALIDATE_TRIGGER)) {
        return;
    }
    pdb = all ? UINT64_MAX : invalidate_pdb(s);
    trace_gp100_tlb_invalidate(pdb, val);
    gp100_did(s, all ? GP100_EVENT_MMU_INVALIDATE_ALL
                     : GP100_EVENT_MMU_INVALIDATE_PDB, true);
    tlb_flush(s, pdb, all);
    gp100_bar1_update_windows(s, pdb);
    gp100_access_replay(s, val);
}

/* An invalidation has finished before the write to MMU_INVALIDATE returns. */
static uint32_t mmu_ctrl_read(GP100State *s, unsigned i)
{
    return gp100_reg(s, MMU_CTRL) | MMU_CTRL_FREE_SLOTS | MMU_CTRL_FLUSH_IDLE;
}

static void mmu_reset(GP100State *s)
{
    tlb_flush(s, UINT64_MAX, true);
}

static const GP100Reg mmu_regs[] = {
    { MMU_CTRL, "CTRL", .wmask = ~(MMU_CTRL_FREE_SLOTS | MMU_CTRL_FLUSH_IDLE),
      .read = mmu_ctrl_read },
    { MMU_INVALIDATE_PDB, "INVALIDATE_PDB", .wmask = UINT32_MAX },
    { MMU_INVALIDATE, "INVALIDATE", .wmask = ~MMU_INVALIDATE_TRIGGER,
      .write = mmu_invalidate_write },
    { 0x100cc4, "DEBUG_CTRL", .wmask = UINT32_MAX },
    { 0x100cc8, "DEBUG_WR", .wmask = UINT32_MAX },
    { 0x100ccc, "DEBUG_RD", .wmask = UINT32_MAX },
    { MMU_INVALIDATE_PDB_HI, "INVALIDATE_PDB_HI", .wmask = UINT32_MAX },
    { 0x1fac80, "REMAP_CTRL", .wmask = UINT32_MAX },
    { 0x1facc4, "REMAP", .count = 3, .wmask = UINT32_MAX },
};

const GP100Unit gp100_mmu = {
    .name = "MMU", .regs = mmu_regs, .num_regs = ARRAY_SIZE(mmu_regs),
    .reset = mmu_reset,
};
