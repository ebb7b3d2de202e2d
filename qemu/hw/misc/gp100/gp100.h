/*
 * NVIDIA Pascal GPU (GP100): state of the model and the calls between units.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Everything runs under the BQL.  Units talk to each other only through
 * the functions declared here.
 */

#ifndef HW_MISC_GP100_H
#define HW_MISC_GP100_H

#include "hw/pci/pci_device.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "system/hostmem.h"
#include "regs.h"

#define TYPE_GP100 "gp100"
OBJECT_DECLARE_SIMPLE_TYPE(GP100State, GP100)

#define GP100_BAR0_SIZE         (16 * MiB)
#define GP100_BAR2_SIZE         (32 * MiB)
#define GP100_VRAM_MAX          (128 * GiB) /* 25 page number bits of a PTE */
#define GP100_CHANNELS          256
#define GP100_USERD_SIZE        0x200       /* bytes for each channel */
#define GP100_RUNLISTS          16
#define GP100_LARGE_SHIFT       21
#define GP100_LARGE_SIZE        (1ull << GP100_LARGE_SHIFT)

/* Report a guest mistake: trace, count, and log with -d guest_errors. */
#define gp100_guest_error(s, fmt, ...)                                  \
    gp100_guest_error_(s, __func__, fmt, ## __VA_ARGS__)

/* pri.c: registers */

/*
 * One register, or @count of them @stride bytes apart (0: 4 bytes).
 * A write changes the bits in @wmask, clears the 1 bits among @w1c and then
 * calls @write with the value the guest wrote.  @read, where given, computes
 * the value instead of returning what is stored.
 */
typedef struct GP100Reg {
    uint32_t addr;
    const char *name;
    uint16_t count;
    uint16_t stride;
    uint32_t reset;
    uint32_t wmask;
    uint32_t w1c;
    uint32_t (*read)(GP100State *s, unsigned i);
    void (*write)(GP100State *s, unsigned i, uint32_t val);
} GP100Reg;

/* A hardware unit: its registers and what a reset of the unit does. */
typedef struct GP100Unit {
    const char *name;
    const GP100Reg *regs;
    unsigned num_regs;
    void (*reset)(GP100State *s);
} GP100Unit;

extern const GP100Unit gp100_pmc, gp100_pbus, gp100_ptimer, gp100_fuse,
                       gp100_fb, gp100_mmu, gp100_fault, gp100_fifo,
                       gp100_pbdma, gp100_ce, gp100_board;

/* mmu.c: address translation */

typedef enum GP100Aperture {
    GP100_APER_VRAM = 0,
    GP100_APER_PEER = 1,
    GP100_APER_SYS_COH = 2,
    GP100_APER_SYS_NCOH = 3,
    GP100_APER_SPARSE,          /* reads are 0, writes are dropped */
} GP100Aperture;

/* Fault reasons, as in the INFO.TYPE field of PFIFO's fault registers. */
typedef enum GP100FaultType {
    GP100_FAULT_PDE = 0x00,
    GP100_FAULT_PTE = 0x02,
    GP100_FAULT_VA_LIMIT = 0x03,
    GP100_FAULT_UNBOUND_INST = 0x04,
    GP100_FAULT_RO = 0x06,
    GP100_FAULT_APERTURE = 0x0a,
    GP100_FAULT_NONE = -1,
    GP100_FAULT_BUS = -2,       /* translated, but the PCI bus said no */
} GP100FaultType;

/* An address space: what an instance block says about page tables. */
typedef struct GP100Space {
    bool valid;
    uint64_t inst;              /* VRAM address of the instance block */
    uint64_t pdb;               /* page directory: address | aperture */
    uint64_t limit;             /* last valid virtual address */
    bool replay;                /* the graphics engine's faults replay */
} GP100Space;

/* A translated virtual address. */
typedef struct GP100Xlat {
    uint64_t addr;              /* of the byte asked for */
    uint64_t left;              /* bytes up to the end of the page */
    GP100Aperture aper;
    bool ro;
} GP100Xlat;

#define GP100_TLB_SHIFTS        3
#define GP100_TLB_ENTRIES       2048
#define GP100_TLB_GENS          64

typedef struct GP100TlbEntry {
    uint64_t pdb;
    uint64_t vpn;
    uint64_t addr;
    uint32_t gen;
    uint8_t aper;
    bool valid;
    bool ro;
} GP100TlbEntry;

typedef struct GP100Mmu {
    GP100TlbEntry tlb[GP100_TLB_SHIFTS][GP100_TLB_ENTRIES];
    /* An entry is stale once the generation of its page directory moved on. */
    uint32_t gen[GP100_TLB_GENS];
} GP100Mmu;

/* pbdma.c, fifo.c, ce.c: channels */

#define GP100_CE_METHODS        (0x800 / 4)

/* Why a channel does not proceed. */
typedef enum GP100ChannelWait {
    GP100_WAIT_NONE,
    GP100_WAIT_ACQUIRE,         /* a semaphore has not reached its value */
    GP100_WAIT_PBDMA,           /* until the PBDMA's interrupt is cleared */
    GP100_WAIT_ERROR,           /* until the driver takes the channel down */
} GP100ChannelWait;

typedef struct GP100Channel {
    uint32_t inst;              /* CCSR_INST as written */
    bool enabled;
    bool loaded;                /* the fields below mirror RAMFC */
    GP100ChannelWait wait;
    GP100Space space;
    uint64_t userd;             /* VRAM address */
    uint64_t gp_base;           /* GPU virtual address */
    uint32_t gp_mask;           /* entries - 1 */
    uint32_t gp_get;
    uint32_t gp_put;
    /* the pushbuffer segment of the current GP entry */
    uint64_t pb_va;
    uint32_t pb_words;
    /* the method header that is being executed */
    uint32_t method;            /* byte address */
    uint32_t method_left;
    uint32_t method_step;       /* added to the address after each word */
    bool method_once;           /* ... but only after the first word */
    uint8_t subch;
    /* state that methods leave behind */
    uint16_t subch_class[8];
    uint32_t sem[4];            /* SEMAPHOREA..D */
    uint32_t ce[GP100_CE_METHODS];
} GP100Channel;

/* Bounds one run of the scheduler; a run stops when either is used up. */
typedef struct GP100Budget {
    int64_t methods;
    int64_t bytes;
} GP100Budget;

typedef struct GP100RunlistEntry {
    uint16_t chid;
    int16_t group;                      /* that the channel is in, or -1 */
} GP100RunlistEntry;

typedef struct GP100Fifo {
    GP100Channel chan[GP100_CHANNELS];
    GP100RunlistEntry runlist[GP100_CHANNELS];
    unsigned runlist_len;
    unsigned next;                      /* round robin position */
    bool running;
    QEMUBH *bh;                         /* continues after a used up budget */
    QEMUTimer *retry;                   /* polls unsatisfied acquires */
} GP100Fifo;

/* One side of a copy. */
typedef struct GP100CopySide {
    uint64_t addr;              /* of the current line */
    int64_t pitch;
    bool phys;
    GP100Aperture aper;         /* if phys */
} GP100CopySide;

/* The copy engine: one launch at a time, resumable. */
typedef struct GP100Ce {
    bool busy;
    bool delayed;               /* copy-delay-us has not passed yet */
    bool hung;                  /* until the engine is reset */
    unsigned chid;
    uint32_t launch;            /* LAUNCH_DMA */
    GP100Space space;
    GP100CopySide src, dst;
    uint64_t line_bytes;        /* that are written to the destination */
    uint64_t lines;
    uint64_t done;              /* bytes of the current line */
    bool remap;
    uint32_t remap_components;
    uint32_t remap_const[2];
    QEMUTimer *delay;
    uint8_t bounce[2][64 * KiB];
} GP100Ce;

/* access.c, fault.c: accesses that a test has the graphics engine make */

typedef enum GP100AccessState {
    GP100_ACCESS_NONE,
    GP100_ACCESS_RUNNING,
    GP100_ACCESS_UNREPORTED,    /* it faulted, and the buffer has no room */
    GP100_ACCESS_WAITING,       /* it faulted, and waits for a replay */
    GP100_ACCESS_DONE,
    GP100_ACCESS_FAULT,         /* ... that cannot be replayed */
    GP100_ACCESS_CANCELLED,
    GP100_ACCESS_RESET,
} GP100AccessState;

typedef struct GP100Access {
    GP100AccessState state;
    GP100FaultType fault;
    unsigned chid;
    bool write;
    uint64_t va;
    uint64_t value;             /* written, or in the end read */
    QEMUBH *bh;                 /* replays it */
    unsigned lookup_chid;       /* the property lookup, another thing */
    uint64_t lookup_va;
} GP100Access;

/* bar.c: BAR1 and BAR2 */

/* A run of large VRAM pages of BAR1 that is mapped as RAM. */
typedef struct GP100Window {
    uint64_t offset;            /* in BAR1 */
    uint64_t vram;
    uint64_t size;
    MemoryRegion *mr;
} GP100Window;

typedef struct GP100Bar {
    MemoryRegion container;
    MemoryRegion mmio;
    GP100Space space;
    uint64_t size;
    bool virt;                  /* translated, not linear VRAM */
    GArray *windows;            /* of GP100Window, by offset */
    unsigned sections;          /* what they take of the machine's budget */
    unsigned binds;             /* how often it was bound, modulo 2^32 */
} GP100Bar;

/* gp100.c: the device */

/* How often something was done, with success and without. */
typedef struct GP100Count {
    uint64_t good;
    uint64_t bad;
} GP100Count;

/*
 * What the GPU can do, besides methods, so that a test can tell what it has
 * made it do: each is counted, under its name, in the property event-counts.
 */
#define GP100_EVENTS(e)                                                 \
    e(PMC_MSI), e(PMC_INTX), e(PMC_RESET_PFIFO), e(PMC_RESET_CE),       \
    e(PTIMER_ALARM),                                                    \
    e(BAR_PRAMIN), e(BAR_LINEAR), e(BAR_VIRTUAL), e(BAR_WINDOW_MAP),    \
    e(BAR_WINDOW_UNMAP),                                                \
    e(MMU_INVALIDATE_PDB), e(MMU_INVALIDATE_ALL), e(MMU_LARGE_PAGE),    \
    e(MMU_BIG_PAGE), e(MMU_SMALL_PAGE), e(MMU_VRAM), e(MMU_SYSTEM),     \
    e(MMU_SPARSE),                                                      \
    e(FAULT_PDE), e(FAULT_PTE), e(FAULT_VA_LIMIT),                      \
    e(FAULT_UNBOUND_INST), e(FAULT_RO), e(FAULT_APERTURE),              \
    e(FAULT_BUS), e(FAULT_OF_BAR1), e(FAULT_OF_BAR2),                   \
    e(FAULT_OF_HOST), e(FAULT_OF_CE),                                   \
    e(PFIFO_RUNLIST), e(PFIFO_BIND), e(PFIFO_ENABLE),                   \
    e(PFIFO_DISABLE), e(PFIFO_PREEMPT), e(PFIFO_DOORBELL),              \
    e(PFIFO_RETRY), e(PFIFO_CONTINUE), e(PFIFO_NONSTALL),               \
    e(PFIFO_CTXSW_TIMEOUT), e(PFIFO_FAULT_TRIGGER),                     \
    e(PBDMA_LOAD), e(PBDMA_SAVE), e(PBDMA_ENTRY), e(PBDMA_INC),         \
    e(PBDMA_NON_INC), e(PBDMA_IMMEDIATE), e(PBDMA_INC_ONCE),            \
    e(PBDMA_END), e(PBDMA_OLD_INC), e(PBDMA_OLD_NON_INC),               \
    e(PBDMA_RELEASE), e(PBDMA_RELEASE_STAMP), e(PBDMA_ACQUIRE),         \
    e(PBDMA_ACQUIRE_GEQ), e(PBDMA_ACQUIRE_AND), e(PBDMA_WAIT),          \
    e(PBDMA_ERROR_GPPTR), e(PBDMA_ERROR_PBENTRY),                       \
    e(PBDMA_ERROR_METHOD), e(PBDMA_ERROR_DEVICE),                       \
    e(PBDMA_ERROR_SEMAPHORE), e(PBDMA_GO_ON),                           \
    e(CE_SRC_VIRTUAL), e(CE_SRC_PHYSICAL), e(CE_DST_VIRTUAL),           \
    e(CE_DST_PHYSICAL), e(CE_LINES), e(CE_REMAP), e(CE_NO_TRANSFER),    \
    e(CE_RELEASE), e(CE_RELEASE_STAMP), e(CE_BLOCKING_INTR),            \
    e(CE_NON_BLOCKING_INTR), e(CE_DELAY), e(CE_H2D), e(CE_D2H),         \
    e(CE_D2D), e(CE_H2H), e(CE_ERROR_BOUNDS), e(CE_ERROR_VALUE),        \
    e(CE_ERROR_OPERATION), e(CE_ERROR_RESOURCES), e(CE_ERROR_CONFIG)

typedef enum GP100Event {
#define GP100_EVENT_ENUM(name) GP100_EVENT_##name
    GP100_EVENTS(GP100_EVENT_ENUM),
#undef GP100_EVENT_ENUM
    GP100_EVENT_NUM
} GP100Event;

#define GP100_HOST_METHODS      16      /* entries of the tables, at most */
#define GP100_CE_METHOD_NAMES   16

/* Counters are read-only QOM properties; the names are in gp100.c. */
typedef struct GP100Stats {
    GP100Count events[GP100_EVENT_NUM];
    GP100Count host_methods[GP100_HOST_METHODS];
    GP100Count ce_methods[GP100_CE_METHOD_NAMES];
    uint64_t ce_launches;
    uint64_t ce_bytes_h2d;
    uint64_t ce_bytes_d2h;
    uint64_t ce_bytes_d2d;
    uint64_t ce_bytes_h2h;
    uint64_t ce_bytes_fill;
    uint64_t ce_errors;
    uint64_t ce_ns;             /* of the host's time */
    uint64_t gp_entries;
    uint64_t methods;
    uint64_t sem_releases;
    uint64_t sem_acquires;
    uint64_t nonstall_irqs;
    uint64_t msi_sent;
    uint64_t tlb_invalidates;
    uint64_t tlb_hits;
    uint64_t tlb_misses;
    uint64_t bar1_reads;
    uint64_t bar1_writes;
    uint64_t bar1_faults;
    uint64_t bar1_windows;      /* how many exist now */
    uint64_t bar1_window_bytes;
    uint64_t bar1_window_rest;  /* pages left out, now: too many windows */
    uint64_t bar2_faults;
    uint64_t mmu_faults;
    uint64_t replayable_faults;
    uint64_t fault_replays;
    uint64_t unknown_regs;
    uint64_t guest_errors;
} GP100Stats;

struct GP100State {
    PCIDevice parent_obj;

    /* properties */
    HostMemoryBackend *memdev;
    uint64_t vram_prop;
    uint64_t bar1_prop;
    bool strict;
    bool use_windows;
    bool use_tlb;
    uint8_t ce_runlist;
    bool graphics;
    uint32_t copy_delay_us;
    uint32_t fail_copies;
    uint32_t hang_copies;
    uint32_t drop_nonstall;

    MemoryRegion bar0;
    MemoryRegion pri;
    MemoryRegion prom;
    MemoryRegion pramin;
    MemoryRegion vram_own;
    MemoryRegion *vram_mr;
    uint8_t *vram;
    uint64_t vram_size;
    uint64_t sys_mmio;          /* accesses to other devices by DMA */

    uint32_t *regs;             /* BAR0, one word for each register */
    uint8_t *vbios;
    bool msi_armed;
    int64_t ptimer_offset;
    QEMUTimer *ptimer_alarm;
    GP100Mmu mmu;
    GP100Bar bar1;
    GP100Bar bar2;
    GP100Fifo fifo;
    GP100Ce ce;
    GP100Access access;
    QEMUTimer *fault_message;
    int64_t fault_message_ns;   /* when the last one was sent */
    GP100Stats stats;
};

static inline void gp100_count(GP100Count *count, bool good)
{
    if (good) {
        count->good++;
    } else {
        count->bad++;
    }
}

static inline void gp100_did(GP100State *s, GP100Event event, bool good)
{
    gp100_count(&s->stats.events[event], good);
}

/* Append "PREFIXNAME=GOOD/BAD" to the words in @text. */
void gp100_count_append(GString *text, const char *prefix, const char *name,
                        const GP100Count *count);

/* pri.c */

/* Create the BAR0 regions; @s->regs and @s->vbios must exist. */
void gp100_pri_realize(GP100State *s);
/* Take the regions out of BAR0. */
void gp100_pri_stop(GP100State *s);
/* Set every register of every unit to its reset value. */
void gp100_pri_reset(GP100State *s);
/* Set the registers of one unit to their reset values. */
void gp100_unit_reset_regs(GP100State *s, const GP100Unit *unit);

static inline uint32_t gp100_reg(GP100State *s, uint32_t addr)
{
    return s->regs[addr / 4];
}

static inline void gp100_reg_set(GP100State *s, uint32_t addr, uint32_t val)
{
    s->regs[addr / 4] = val;
}

void gp100_guest_error_(GP100State *s, const char *func, const char *fmt, ...)
    G_GNUC_PRINTF(3, 4);

/* pmc.c */

/*
 * Recompute the interrupt tree and signal the host if its rules say so.  The
 * message may go to a slot's registers and have the GPU unplugged; its state is
 * there as long as the caller runs, see hw/pci/p2p_dma.h.
 */
void gp100_irq_update(GP100State *s);
/* For @write of registers that only take part in the interrupt tree. */
void gp100_irq_write(GP100State *s, unsigned i, uint32_t val);

/* ptimer.c */

/* The GPU's clock, in nanoseconds. */
uint64_t gp100_ptimer_now(GP100State *s);
void gp100_ptimer_realize(GP100State *s);
/* No alarm expires after this. */
void gp100_ptimer_stop(GP100State *s);
void gp100_ptimer_finalize(GP100State *s);

/* vbios.c */
#define GP100_VBIOS_SIZE        4096

/* Fill @rom with a VBIOS image for PCI device @vendor:@device. */
void gp100_vbios_build(uint8_t rom[GP100_VBIOS_SIZE], uint16_t vendor,
                       uint16_t device);

/* fb.c */

/*
 * Pointer to @len bytes of VRAM at @addr, or NULL when they are not all
 * inside.  Valid as long as the device is realized.
 */
void *gp100_vram(GP100State *s, uint64_t addr, uint64_t len);
/* Little-endian words of VRAM.  Outside: 0 is read, writes are dropped. */
uint32_t gp100_vram_ldl(GP100State *s, uint64_t addr);
void gp100_vram_stl(GP100State *s, uint64_t addr, uint32_t val);
/* Read @len bytes at @addr of @aper; false when any of it is unreachable. */
bool gp100_phys_read(GP100State *s, GP100Aperture aper, uint64_t addr,
                     void *buf, uint64_t len);
bool gp100_phys_write(GP100State *s, GP100Aperture aper, uint64_t addr,
                      const void *buf, uint64_t len);
void gp100_fb_realize(GP100State *s);
/* Lose what is in VRAM: it reads as 0. */
void gp100_fb_power_cycle(GP100State *s);

/* mmu.c */

/* Load @space from the instance block at VRAM address @inst. */
bool gp100_space_load(GP100State *s, GP100Space *space, uint64_t inst);
/* Translate @va; GP100_FAULT_NONE and *@x, or the reason of the fault. */
GP100FaultType gp100_translate(GP100State *s, const GP100Space *space,
                               uint64_t va, bool write, GP100Xlat *x);
/*
 * Copy @len bytes from or to @va.  Stops at the first page that faults and
 * stores its address in *@fault_va.
 */
GP100FaultType gp100_virt_read(GP100State *s, const GP100Space *space,
                               uint64_t va, void *buf, uint64_t len,
                               uint64_t *fault_va);
GP100FaultType gp100_virt_write(GP100State *s, const GP100Space *space,
                                uint64_t va, const void *buf, uint64_t len,
                                uint64_t *fault_va);
/*
 * Write @payload to the semaphore at @va, with a time stamp behind it if
 * @stamp, after all that the GPU wrote before.  As gp100_virt_write().
 */
GP100FaultType gp100_semaphore_write(GP100State *s, const GP100Space *space,
                                     uint64_t va, uint32_t payload, bool stamp,
                                     uint64_t *fault_va);
/*
 * Look @va up in the page tables, as they are now: the address, and the size of
 * its page.  Nothing is cached.
 */
GP100FaultType gp100_walk(GP100State *s, const GP100Space *space, uint64_t va,
                          GP100Xlat *x, uint64_t *page_size);
/*
 * If the @index-th large page of @space is a valid, writable large page of
 * VRAM that lies wholly inside VRAM: its address, otherwise UINT64_MAX.
 * @cache keeps the page directory between calls with ascending @index;
 * initialize it with GP100_PD0_CACHE_INIT.
 */
typedef struct GP100Pd0Cache {
    uint64_t index;
    bool present;
    uint8_t data[0x1000];
} GP100Pd0Cache;
#define GP100_PD0_CACHE_INIT(c) ((c)->index = UINT64_MAX)
uint64_t gp100_large_page(GP100State *s, const GP100Space *space,
                          uint64_t index, GP100Pd0Cache *cache);

/* fault.c */

/* MMU clients, by the unit number that PFIFO reports. */
enum {
    GP100_UNIT_GRAPHICS = 0x00,
    GP100_UNIT_BAR1 = 0x04,
    GP100_UNIT_BAR2 = 0x05,
    GP100_UNIT_HOST0 = 0x06,
    GP100_UNIT_CE0 = 0x15,
};

/* Record a non-replayable fault and raise PFIFO's interrupt. */
void gp100_mmu_fault(GP100State *s, unsigned unit, const GP100Space *space,
                     uint64_t va, bool write, GP100FaultType type);
bool gp100_fault_buffer_pending(GP100State *s);
/* Is the buffer for replayable faults there? */
bool gp100_fault_buffer_enabled(GP100State *s);
/*
 * Put a fault of the graphics engine into the buffer, and raise its interrupt.
 * false: there is no room.
 */
bool gp100_fault_buffer_add(GP100State *s, const GP100Space *space,
                            uint64_t va, bool write, GP100FaultType type);
/*
 * May a message be sent that says only that there are faults in the buffer?  If
 * not, then the interrupt tree is evaluated again when it may.
 */
bool gp100_fault_message_due(GP100State *s);
void gp100_fault_realize(GP100State *s);
void gp100_fault_stop(GP100State *s);
void gp100_fault_finalize(GP100State *s);

/* access.c */

/* The QOM property access. */
char *gp100_access_get(Object *obj, Error **errp);
void gp100_access_set(Object *obj, const char *value, Error **errp);
/* The QOM property lookup. */
char *gp100_lookup_get(Object *obj, Error **errp);
void gp100_lookup_set(Object *obj, const char *value, Error **errp);
/* An invalidation, @val of MMU_INVALIDATE, may replay or cancel faults. */
void gp100_access_replay(GP100State *s, uint32_t val);
/* There may be room in the buffer for faults. */
void gp100_access_report(GP100State *s);
void gp100_access_reset(GP100State *s);
void gp100_access_realize(GP100State *s);
void gp100_access_stop(GP100State *s);
void gp100_access_finalize(GP100State *s);

/* What a GPC's texture unit is called in faults and when they are cancelled. */
#define GP100_ACCESS_GPC        0
#define GP100_ACCESS_CLIENT     1       /* T1_0 */

/* bar.c */
void gp100_bar_realize(GP100State *s);
/* Unmap all windows, and take BAR1 apart. */
void gp100_bar_stop(GP100State *s);
void gp100_bar_finalize(GP100State *s);
void gp100_bar_reset(GP100State *s);
void gp100_bar1_bind(GP100State *s, uint32_t block);
void gp100_bar2_bind(GP100State *s, uint32_t block);
/* The page tables of page directory @pdb (or any: UINT64_MAX) changed. */
void gp100_bar1_update_windows(GP100State *s, uint64_t pdb);

/* fifo.c */

/* PFIFO_INTR: what is latched and what is derived from other registers. */
uint32_t gp100_fifo_intr(GP100State *s);
/* Does the PBDMA request an interrupt? */
bool gp100_pbdma_intr(GP100State *s);
void gp100_fifo_realize(GP100State *s);
/* No bottom half runs channels after this. */
void gp100_fifo_stop(GP100State *s);
void gp100_fifo_finalize(GP100State *s);
/*
 * Run whatever can run; bounded, the rest follows in a bottom half.
 * The GPU may be unplugged when this returns: what it wrote can have made
 * another device do that.  Its state is still there.
 */
void gp100_fifo_kick(GP100State *s);
/* The same, but never inside the caller. */
void gp100_fifo_kick_later(GP100State *s);
/* Raise the non-stalling interrupt. */
void gp100_fifo_nonstall(GP100State *s);
/*
 * The copy engine does not get channel @chid loaded: stop the runlist and raise
 * the scheduler's interrupt.
 */
void gp100_fifo_ctxsw_timeout(GP100State *s, unsigned chid);

/* pbdma.c */

/* Load channel state from RAMFC.  false: the instance block is unusable. */
bool gp100_pbdma_load(GP100State *s, unsigned chid);
/* Save to RAMFC all that is needed to go on later from where the channel is. */
void gp100_pbdma_save(GP100State *s, unsigned chid);
/*
 * Run channel @chid until it waits, needs the copy engine to finish, is out
 * of work or @budget is used up.  false: it could not do anything.
 */
bool gp100_pbdma_run(GP100State *s, unsigned chid, GP100Budget *budget);
/* What methods of the host were executed, as gp100_count_append() says it. */
void gp100_pbdma_counts(const GP100State *s, GString *text);
/* Stop the PBDMA with interrupt @intr, on behalf of channel @chid. */
void gp100_pbdma_error(GP100State *s, unsigned chid, uint32_t intr,
                       uint32_t method, uint32_t data);

/* ce.c */
#define GP100_CLASS_CE          0xc0b5

void gp100_ce_realize(GP100State *s);
void gp100_ce_finalize(GP100State *s);
/* Execute method @mthd of a copy channel.  false: no such method. */
bool gp100_ce_method(GP100State *s, unsigned chid, uint32_t mthd,
                     uint32_t data);
/* The same as gp100_pbdma_counts(), for the copy engine's methods. */
void gp100_ce_counts(const GP100State *s, GString *text);
/* Proceed with the current launch until it is done or @budget is used up. */
void gp100_ce_step(GP100State *s, GP100Budget *budget);
/* Forget the current launch, if any: it has no further effect. */
void gp100_ce_abort(GP100State *s);
/*
 * Raise an MMU fault of the engine, whatever it does.  A copy under way ends
 * with it; an engine that hangs goes on hanging.
 */
void gp100_ce_trigger_fault(GP100State *s);

#endif
