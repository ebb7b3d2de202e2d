/*
 * DMA of a PCI function, routed and translated the way its requests are
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/bswap.h"
#include "qemu/error-report.h"
#include "qemu/host-utils.h"
#include "qemu/log.h"
#include "qemu/main-loop.h"
#include "qemu/range.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "exec/address-spaces.h"
#include "hw/boards.h"
#include "hw/pci/p2p_dma.h"
#include "hw/pci/pci.h"
#include "hw/pci/pci_bridge.h"
#include "hw/pci/pci_bus.h"
#include "hw/pci/pci_host.h"
#include "hw/pci/pcie.h"
#include "trace.h"

/*
 * Translations are cached per 4 KiB page, the smallest translation unit
 * (STU 0): an entry of a huge page would have to be found by every
 * invalidation that touches a part of it.
 */
#define ATC_PAGE_BITS   12
#define ATC_PAGE_SIZE   (1ULL << ATC_PAGE_BITS)
#define ATC_PAGE_MASK   (~(ATC_PAGE_SIZE - 1))
#define ATC_SLOT_BITS   13
#define ATC_SLOTS       (1u << ATC_SLOT_BITS)

/* Bounds what is lost when MMIO fails in the middle, and the bounce buffer */
#define MMIO_PIECE      4096

struct P2PDmaAtcEntry {
    uint64_t tag;   /* page of the IOVA | IOMMU_RO | IOMMU_WO; 0: empty */
    uint64_t page;  /* translated */
};

/* A range of the function's address space that an IOMMU translates */
struct P2PDmaIommu {
    IOMMUNotifier n;
    P2PDma *dma;
    MemoryRegion *mr;
    hwaddr offset_within_as;
    QLIST_ENTRY(P2PDmaIommu) next;
};

typedef enum Route {
    ROUTE_ROOT,
    ROUTE_SWITCH,
    ROUTE_ATS,
} Route;

/*
 * A piece of RAM, of the machine or in a BAR, that a request reached.
 *
 * To find out where a request goes takes longer than to copy a page.  The
 * answer is the same for every address of the piece, until the memory map or
 * the ACS of a port changes; then all pieces are dropped.
 */
struct P2PDmaPiece {
    uint64_t start;
    uint64_t len;           /* 0: no piece */
    bool bus;               /* untranslated bus addresses, not physical ones */
    Route route;            /* of bus addresses */
    AddressSpace *as;
    P2PDmaTarget target;
    MemoryRegionCache ram;
};

#define PIECES          16
#define PIECE_MAX_BYTES (1ULL << 48)

/*
 * The first run of a request that lies in one region of one address space.
 * @host, its memory, is set if it is part of a piece.  @piece is valid until
 * the next request is resolved, @host until the memory map can change.
 */
typedef struct Run {
    AddressSpace *as;
    hwaddr addr;
    uint64_t len;
    Route route;
    P2PDmaTarget target;
    bool direct;
    uint8_t *host;
    P2PDmaPiece *piece;
} Run;

const char *p2p_dma_result_name(P2PDmaResult result)
{
    static const char *const names[] = {
        [P2P_DMA_OK] = "ok",
        [P2P_DMA_ERR_MASTER] = "bus master disabled",
        [P2P_DMA_ERR_RANGE] = "address range",
        [P2P_DMA_ERR_ALIGN] = "alignment",
        [P2P_DMA_ERR_DECODE] = "unsupported request",
        [P2P_DMA_ERR_ATS] = "no translation",
        [P2P_DMA_ERR_TARGET] = "target error",
        [P2P_DMA_ERR_INJECTED] = "injected",
    };

    return result < ARRAY_SIZE(names) ? names[result] : "unknown";
}

static const char *const route_names[] = {
    [ROUTE_ROOT] = "root",
    [ROUTE_SWITCH] = "switch",
    [ROUTE_ATS] = "ats",
};

static const char *const target_names[P2P_DMA_TARGET__MAX] = {
    [P2P_DMA_TARGET_HOST] = "host",
    [P2P_DMA_TARGET_PEER] = "peer",
    [P2P_DMA_TARGET_OWN] = "own",
    [P2P_DMA_TARGET_OTHER] = "other",
    [P2P_DMA_TARGET_FAILED] = "failed",
};

static const char *direction_name(bool is_write)
{
    return is_write ? "write" : "read";
}

/* For traces; a function that was unplugged is on no bus */
static uint16_t bdf(const P2PDma *dma)
{
    return DEVICE(dma->dev)->parent_bus ? pci_get_bdf(dma->dev) : 0;
}

/* Work */

typedef struct WorkLater {
    GDestroyNotify fn;
    gpointer opaque;
    QSIMPLEQ_ENTRY(WorkLater) next;
} WorkLater;

static unsigned work_depth;
static QSIMPLEQ_HEAD(, WorkLater) work_later =
    QSIMPLEQ_HEAD_INITIALIZER(work_later);

void p2p_work_begin(void)
{
    work_depth++;
}

void p2p_work_end(void)
{
    WorkLater *later;

    /* It counts as work until the last is done, so that these keep in order */
    while (work_depth == 1 && (later = QSIMPLEQ_FIRST(&work_later))) {
        QSIMPLEQ_REMOVE_HEAD(&work_later, next);
        later->fn(later->opaque);
        g_free(later);
    }
    work_depth--;
}

bool p2p_work_active(void)
{
    return work_depth;
}

void p2p_work_after(GDestroyNotify fn, gpointer opaque)
{
    WorkLater *later;

    if (!work_depth) {
        fn(opaque);
        return;
    }
    later = g_new(WorkLater, 1);
    *later = (WorkLater) { .fn = fn, .opaque = opaque };
    QSIMPLEQ_INSERT_TAIL(&work_later, later, next);
}

/* The main loop touches the guard of a bottom half when that has returned */
static void work_release(void *obj)
{
    aio_bh_schedule_oneshot(qemu_get_aio_context(), object_unref, obj);
}

void p2p_work_keep(Object *obj)
{
    object_ref(obj);
    p2p_work_after(work_release, obj);
}

/*
 * Address Translation Cache: direct mapped.  The hash spreads buffers that
 * start at equal offsets of aligned IOVA blocks.
 */

static P2PDmaAtcEntry *atc_slot(P2PDma *dma, uint64_t page)
{
    uint64_t hash = (page >> ATC_PAGE_BITS) * 0x9e3779b97f4a7c15ULL;

    return &dma->atc[hash >> (64 - ATC_SLOT_BITS)];
}

static bool atc_lookup(P2PDma *dma, uint64_t page, bool is_write,
                       uint64_t *translated)
{
    P2PDmaAtcEntry *e = atc_slot(dma, page);

    if ((e->tag & ATC_PAGE_MASK) != page ||
        !(e->tag & (is_write ? IOMMU_WO : IOMMU_RO))) {
        return false;
    }
    *translated = e->page;
    return true;
}

/*
 * Only the direction that was asked for is known to be allowed: what
 * address_space_get_iotlb_entry() returns as permission is always RW.
 */
static void atc_fill(P2PDma *dma, uint64_t page, bool is_write,
                     uint64_t translated)
{
    P2PDmaAtcEntry *e = atc_slot(dma, page);
    uint64_t perm = is_write ? IOMMU_WO : IOMMU_RO;

    if ((e->tag & ATC_PAGE_MASK) == page && e->page == translated) {
        perm |= e->tag;
    }
    e->tag = page | perm;
    e->page = translated;
}

static unsigned atc_drop_one(P2PDmaAtcEntry *e)
{
    bool valid = e->tag != 0;

    e->tag = 0;
    return valid;
}

/* @last is the last byte of the range, so that all of 2^64 can be named */
static unsigned atc_drop(P2PDma *dma, uint64_t first, uint64_t last)
{
    uint64_t page = first & ATC_PAGE_MASK;
    uint64_t pages = ((last - page) >> ATC_PAGE_BITS) + 1;
    unsigned dropped = 0;
    unsigned i;

    if (pages >= ATC_SLOTS) {
        for (i = 0; i < ATC_SLOTS; i++) {
            P2PDmaAtcEntry *e = &dma->atc[i];
            uint64_t p = e->tag & ATC_PAGE_MASK;

            if (p >= page && p <= last) {
                dropped += atc_drop_one(e);
            }
        }
        return dropped;
    }
    for (; pages; pages--, page += ATC_PAGE_SIZE) {
        P2PDmaAtcEntry *e = atc_slot(dma, page);

        if ((e->tag & ATC_PAGE_MASK) == page) {
            dropped += atc_drop_one(e);
        }
    }
    return dropped;
}

/* Address Translation Service */

bool p2p_dma_ats_enabled(const P2PDma *dma)
{
    return dma->ats_enabled && !QLIST_EMPTY(&dma->ats_iommus);
}

static void ats_refuse(P2PDma *dma, Error *err)
{
    warn_report_once("%s: ATS stays disabled: %s", dma->dev->name,
                     error_get_pretty(err));
    error_free(err);
    pci_word_test_and_clear_mask(dma->dev->config + dma->ats_cap + PCI_ATS_CTRL,
                                 PCI_ATS_CTRL_ENABLE);
    dma->ats_enabled = false;
}

static void ats_invalidate(IOMMUNotifier *n, IOMMUTLBEntry *entry)
{
    P2PDmaIommu *iommu = container_of(n, P2PDmaIommu, n);
    P2PDma *dma = iommu->dma;
    uint64_t first = entry->iova + iommu->offset_within_as;
    unsigned dropped = atc_drop(dma, first, first + entry->addr_mask);

    dma->stats.ats_invalidations++;
    trace_p2p_dma_ats_invalidate(dma->dev->name, bdf(dma), first,
                                 entry->addr_mask, dropped);
}

static void ats_region_add(MemoryListener *listener,
                           MemoryRegionSection *section)
{
    P2PDma *dma = container_of(listener, P2PDma, ats_listener);
    P2PDmaIommu *iommu;
    Error *err = NULL;
    Int128 end;
    int idx;

    if (!dma->ats_enabled || !memory_region_is_iommu(section->mr)) {
        return;
    }
    /* From here on the range is translated, perhaps it was not before */
    atc_drop(dma, 0, UINT64_MAX);

    iommu = g_new0(P2PDmaIommu, 1);
    iommu->dma = dma;
    iommu->mr = section->mr;
    iommu->offset_within_as = section->offset_within_address_space -
                              section->offset_within_region;
    end = int128_sub(int128_add(int128_make64(section->offset_within_region),
                                section->size), int128_one());
    idx = memory_region_iommu_attrs_to_index(IOMMU_MEMORY_REGION(section->mr),
                                             MEMTXATTRS_UNSPECIFIED);
    iommu_notifier_init(&iommu->n, ats_invalidate,
                        IOMMU_NOTIFIER_DEVIOTLB_UNMAP,
                        section->offset_within_region, int128_get64(end), idx);
    if (memory_region_register_iommu_notifier(section->mr, &iommu->n, &err)) {
        g_free(iommu);
        ats_refuse(dma, err);
        return;
    }
    QLIST_INSERT_HEAD(&dma->ats_iommus, iommu, next);
}

static void ats_iommu_free(P2PDmaIommu *iommu)
{
    memory_region_unregister_iommu_notifier(iommu->mr, &iommu->n);
    QLIST_REMOVE(iommu, next);
    g_free(iommu);
}

static void ats_region_del(MemoryListener *listener,
                           MemoryRegionSection *section)
{
    P2PDma *dma = container_of(listener, P2PDma, ats_listener);
    P2PDmaIommu *iommu, *next;

    if (!memory_region_is_iommu(section->mr)) {
        return;
    }
    atc_drop(dma, 0, UINT64_MAX);
    QLIST_FOREACH_SAFE(iommu, &dma->ats_iommus, next, next) {
        if (iommu->mr == section->mr &&
            iommu->n.start == section->offset_within_region) {
            ats_iommu_free(iommu);
        }
    }
}

/*
 * Follow the Enable bit.  ats_as is set while the listener is registered,
 * which it stays when ats_refuse() was called from inside it.  The cache has
 * something to forget only if there is a region to take away.
 */
static void ats_update(P2PDma *dma)
{
    bool enable = pci_get_word(dma->dev->config + dma->ats_cap +
                               PCI_ATS_CTRL) & PCI_ATS_CTRL_ENABLE;

    if (enable == dma->ats_enabled && (enable || !dma->ats_as)) {
        return;
    }
    if (dma->ats_as) {
        memory_listener_unregister(&dma->ats_listener);
        dma->ats_as = NULL;
    }
    dma->ats_enabled = enable;
    if (enable) {
        dma->ats_as = pci_device_iommu_address_space(dma->dev);
        memory_listener_register(&dma->ats_listener, dma->ats_as);
    }
    trace_p2p_dma_ats_enable(dma->dev->name, bdf(dma), dma->ats_enabled,
                             !QLIST_EMPTY(&dma->ats_iommus));
}

void p2p_dma_config_write(P2PDma *dma, uint32_t address, int len)
{
    if (dma->ats_cap &&
        ranges_overlap(address, len, dma->ats_cap + PCI_ATS_CTRL, 2)) {
        ats_update(dma);
    }
}

static void ats_off(P2PDma *dma)
{
    if (dma->ats_cap) {
        pci_set_word(dma->dev->config + dma->ats_cap + PCI_ATS_CTRL, 0);
        ats_update(dma);
    }
}

/* Unless it was unplugged meanwhile */
static void dma_restart(void *opaque)
{
    P2PDma *dma = opaque;

    dma->stopped = !dma->pieces;
}

void p2p_dma_reset(P2PDma *dma)
{
    ats_off(dma);
    dma->stopped = true;
    p2p_work_after(dma_restart, dma);
}

bool p2p_dma_init_ats(P2PDma *dma, uint16_t offset, Error **errp)
{
    if (!pci_is_express(dma->dev) ||
        !pci_bus_is_express(pci_get_bus(dma->dev))) {
        error_setg(errp, "ATS needs a PCI Express bus: plug the device into a "
                   "root port or a downstream port, or set ats=off");
        return false;
    }
    pcie_ats_init(dma->dev, offset, true);
    dma->ats_cap = offset;
    dma->atc = g_new0(P2PDmaAtcEntry, ATC_SLOTS);
    dma->ats_listener = (MemoryListener) {
        .name = "p2p-dma-ats",
        .region_add = ats_region_add,
        .region_del = ats_region_del,
    };
    return true;
}

/* Pieces */

static void piece_drop(P2PDmaPiece *piece)
{
    if (piece->len) {
        address_space_cache_destroy(&piece->ram);
        piece->len = 0;
    }
}

static void pieces_drop(P2PDma *dma)
{
    for (unsigned i = 0; i < PIECES; i++) {
        piece_drop(&dma->pieces[i]);
    }
}

/* Called for a change of any address space, not only of the one listened to */
static void map_commit(MemoryListener *listener)
{
    P2PDma *dma = container_of(listener, P2PDma, map_listener);

    dma->map_changes++;
    pieces_drop(dma);
}

static bool piece_has(const P2PDmaPiece *piece, bool bus, uint64_t addr,
                      bool is_write)
{
    return addr - piece->start < piece->len && piece->bus == bus &&
           (piece->ram.is_write || !is_write);
}

static P2PDmaPiece *piece_find(P2PDma *dma, bool bus, uint64_t addr,
                               bool is_write)
{
    P2PDmaPiece *recent = dma->recent[is_write];

    if (recent && piece_has(recent, bus, addr, is_write)) {
        return recent;
    }
    for (unsigned i = 0; i < PIECES; i++) {
        if (piece_has(&dma->pieces[i], bus, addr, is_write)) {
            dma->recent[is_write] = &dma->pieces[i];
            return &dma->pieces[i];
        }
    }
    return NULL;
}

static void run_use_piece(Run *run, P2PDmaPiece *piece)
{
    uint64_t offset = run->addr - piece->start;

    run->as = piece->as;
    run->target = piece->target;
    run->direct = true;
    run->len = MIN(run->len, piece->len - offset);
    run->host = piece->ram.ptr + offset;
    run->piece = piece;
}

void p2p_dma_init(P2PDma *dma, PCIDevice *dev)
{
    PCIBus *bus = pci_get_bus(dev);

    dma->dev = dev;
    dma->stopped = false;
    QLIST_INIT(&dma->ats_iommus);
    dma->ports = g_ptr_array_new();
    for (; bus->parent_dev && !pci_bus_is_root(bus);
         bus = pci_get_bus(bus->parent_dev)) {
        g_ptr_array_add(dma->ports, bus->parent_dev);
    }
    dma->pieces = g_new0(P2PDmaPiece, PIECES);
    dma->map_listener = (MemoryListener) {
        .name = "p2p-dma-map",
        .commit = map_commit,
    };
    memory_listener_register(&dma->map_listener, &address_space_memory);
}

/*
 * What is freed here is used by no request on the stack any more, because each
 * looks at dma->stopped after what could have led here.
 */
void p2p_dma_exit(P2PDma *dma)
{
    dma->stopped = true;
    if (dma->pieces) {
        memory_listener_unregister(&dma->map_listener);
        pieces_drop(dma);
        g_free(dma->pieces);
        dma->pieces = NULL;
        memset(dma->recent, 0, sizeof(dma->recent));
        g_ptr_array_free(dma->ports, true);
        dma->ports = NULL;
        p2p_work_keep(OBJECT(dma->dev));
    }
    if (dma->atc) {
        ats_off(dma);
        dma->ats_cap = 0;
        g_free(dma->atc);
        dma->atc = NULL;
    }
}

/* Which function does a bus address belong to? */

typedef struct BarSearch {
    hwaddr addr;
    PCIDevice *found;
} BarSearch;

static void bar_search_device(PCIBus *bus, PCIDevice *dev, void *opaque)
{
    BarSearch *search = opaque;
    int i;

    for (i = 0; !search->found && i < PCI_NUM_REGIONS; i++) {
        const PCIIORegion *r = &dev->io_regions[i];

        if (r->size && !(r->type & PCI_BASE_ADDRESS_SPACE_IO) &&
            r->addr != PCI_BAR_UNMAPPED &&
            range_covers_byte(r->addr, r->size, search->addr)) {
            search->found = dev;
        }
    }
}

static void bar_search_bus(PCIBus *bus, void *opaque)
{
    pci_for_each_device_under_bus(bus, bar_search_device, opaque);
}

/*
 * The owner of a region tells whose it is, unless it is a memory backend: one
 * backend can be RAM of the machine or, even through an alias, a BAR.  Then the
 * address decides; bus addresses are physical addresses on every machine that
 * this unit is used with.  RAM of the machine is recognised first, as it is
 * what nearly every request is for and the search visits all devices.
 */
static P2PDmaTarget classify(P2PDma *dma, MemoryRegion *mr, hwaddr addr)
{
    Object *owner = memory_region_owner(mr);
    BarSearch search = { .addr = addr };
    PCIBus *bus = pci_get_bus(dma->dev);

    if (mr == current_machine->ram ||
        (mr->container && mr->container == current_machine->ram)) {
        return P2P_DMA_TARGET_HOST;
    }
    if (owner == OBJECT(dma->dev)) {
        return P2P_DMA_TARGET_OWN;
    }
    if (owner && object_dynamic_cast(owner, TYPE_PCI_DEVICE)) {
        return P2P_DMA_TARGET_PEER;
    }
    while (bus->parent_dev) {
        bus = pci_get_bus(bus->parent_dev);
    }
    pci_for_each_bus(bus, bar_search_bus, &search);
    if (search.found) {
        return search.found == dma->dev ? P2P_DMA_TARGET_OWN
                                        : P2P_DMA_TARGET_PEER;
    }
    return memory_region_is_ram(mr) ? P2P_DMA_TARGET_HOST
                                    : P2P_DMA_TARGET_OTHER;
}

/* Routing */

static bool acs_control(const PCIDevice *port, uint16_t bits)
{
    return port->exp.acs_cap &&
           (pci_get_word(port->config + port->exp.acs_cap + PCI_ACS_CTRL) &
            bits);
}

/*
 * Find the first bridge above the function that turns the request around.  A
 * bridge whose ACS redirects peer-to-peer requests (or their completions)
 * sends it up to the root complex instead, as
 * drivers/pci/p2pdma.c:calc_map_type_and_dist() of Linux assumes.  run->len is
 * cut where another route begins.
 */
static bool route_in_switch(P2PDma *dma, uint64_t addr, Run *run)
{
    for (unsigned i = 0; i < dma->ports->len; i++) {
        PCIDevice *port = g_ptr_array_index(dma->ports, i);
        PCIBridge *bridge = PCI_BRIDGE(port);
        MemoryRegionSection section;

        if (acs_control(port, PCI_ACS_RR | PCI_ACS_CR)) {
            return false;
        }
        section = memory_region_find(&bridge->address_space_mem, addr,
                                     run->len);
        if (section.mr) {
            memory_region_unref(section.mr);
            if (section.offset_within_address_space == addr) {
                run->as = &bridge->as_mem;
                run->addr = addr;
                run->route = ROUTE_SWITCH;
                return true;
            }
            run->len = section.offset_within_address_space - addr;
        }
    }
    return false;
}

/* Requests with a non-default Address Type do not pass such a port */
static bool translation_blocked(P2PDma *dma)
{
    for (unsigned i = 0; i < dma->ports->len; i++) {
        if (acs_control(g_ptr_array_index(dma->ports, i), PCI_ACS_TB)) {
            return true;
        }
    }
    return false;
}

/*
 * Nobody tells when software changes ACS.  The first port that redirects ends
 * the search of route_in_switch(): its position is all that pieces depend on.
 */
static void check_acs(P2PDma *dma)
{
    unsigned first = 0;

    while (first < dma->ports->len &&
           !acs_control(g_ptr_array_index(dma->ports, first),
                        PCI_ACS_RR | PCI_ACS_CR)) {
        first++;
    }
    if (first != dma->first_redirect) {
        dma->first_redirect = first;
        pieces_drop(dma);
    }
}

static P2PDmaResult route_by_ats(P2PDma *dma, uint64_t addr, bool is_write,
                                 Run *run)
{
    uint64_t page = addr & ATC_PAGE_MASK;
    uint64_t translated;

    if (translation_blocked(dma)) {
        goto fault;
    }
    if (atc_lookup(dma, page, is_write, &translated)) {
        dma->stats.ats_hits++;
    } else {
        IOMMUTLBEntry entry;

        dma->stats.ats_misses++;
        WITH_RCU_READ_LOCK_GUARD() {
            entry = address_space_get_iotlb_entry(dma->ats_as, page, is_write,
                                                  MEMTXATTRS_UNSPECIFIED);
        }
        if (dma->stopped) {
            return P2P_DMA_ERR_MASTER;
        }
        /* The interrupt range is in the address space, but not translated */
        if (entry.perm == IOMMU_NONE ||
            entry.target_as != &address_space_memory) {
            goto fault;
        }
        translated = (entry.translated_addr & ~entry.addr_mask) |
                     (page & entry.addr_mask);
        atc_fill(dma, page, is_write, translated);
        trace_p2p_dma_ats_translate(dma->dev->name, bdf(dma), page, is_write,
                                    translated);
    }
    run->as = &address_space_memory;
    run->addr = translated + (addr - page);
    run->len = MIN(run->len, ATC_PAGE_SIZE - (addr - page));
    run->route = ROUTE_ATS;
    return P2P_DMA_OK;

fault:
    dma->stats.ats_faults++;
    return P2P_DMA_ERR_ATS;
}

/* Translate here, so that the target is known by its physical address */
static P2PDmaResult route_by_root(P2PDma *dma, uint64_t addr, bool is_write,
                                  Run *run)
{
    AddressSpace *as = pci_device_iommu_address_space(dma->dev);

    run->as = as;
    run->addr = addr;
    run->route = ROUTE_ROOT;
    if (as != &address_space_memory) {
        IOMMUTLBEntry entry;

        WITH_RCU_READ_LOCK_GUARD() {
            entry = address_space_get_iotlb_entry(as, addr, is_write,
                                                  MEMTXATTRS_UNSPECIFIED);
        }
        if (dma->stopped) {
            return P2P_DMA_ERR_MASTER;
        }
        if (entry.perm == IOMMU_NONE) {
            return P2P_DMA_ERR_DECODE;
        }
        if (entry.target_as != as) {
            hwaddr offset = addr & entry.addr_mask;

            run->as = entry.target_as;
            run->addr = (entry.translated_addr & ~entry.addr_mask) | offset;
            /* Not addr_mask + 1 - offset, which wraps for a mask of all ones */
            run->len = MIN(run->len - 1, entry.addr_mask - offset) + 1;
        }
    }
    return P2P_DMA_OK;
}

bool p2p_dma_region_is_config(MemoryRegion *mr)
{
    Object *owner = memory_region_owner(mr);

    return owner && (object_dynamic_cast(owner, TYPE_PCI_HOST_BRIDGE) ||
                     object_dynamic_cast(owner, TYPE_PCI_BRIDGE));
}

/*
 * How many of the @len > 0 bytes at @addr are what is at the first of them:
 * one region, as far as it is visible, or nothing
 */
static hwaddr mmio_room(AddressSpace *as, hwaddr addr, hwaddr len)
{
    MemoryRegionSection section = memory_region_find(as->root, addr, len);

    if (!section.mr) {
        return len;
    }
    memory_region_unref(section.mr);
    return section.offset_within_address_space > addr
           ? section.offset_within_address_space - addr
           : int128_get64(section.size);
}

/*
 * Keep what was found out about RAM.  @run: a resolved direct run in @mr;
 * @bus: its address is the one on the bus
 */
static void piece_add(P2PDma *dma, Run *run, MemoryRegion *mr, bool bus,
                      bool is_write)
{
    Run wide = { .len = MIN(PIECE_MAX_BYTES, UINT64_MAX - run->addr) };
    P2PDmaPiece *piece = NULL, found = {
        .start = run->addr,
        .bus = bus,
        .route = run->route,
        .as = run->as,
        .target = run->target,
    };
    uint64_t end;

    if (bus) {
        /* Up to the next window of a port */
        route_in_switch(dma, run->addr, &wide);
    }
    found.len = address_space_cache_init(
        &found.ram, run->as, run->addr, wide.len,
        memory_access_is_direct(mr, true, MEMTXATTRS_UNSPECIFIED));
    end = found.start + found.len;
    /* What began further up in the same memory, or whose turn it is */
    for (unsigned i = 0; i < PIECES; i++) {
        P2PDmaPiece *p = &dma->pieces[i];

        if (p->len && p->bus == bus && p->start + p->len == end) {
            piece = p;
        }
    }
    if (!piece) {
        piece = &dma->pieces[dma->next_piece++ % PIECES];
    }
    piece_drop(piece);
    *piece = found;
    dma->recent[is_write] = piece;
    run_use_piece(run, piece);
}

/*
 * Find out where the first run of a request of @len > 0 bytes goes.  The IOMMU
 * may have to read page tables for that, which can be in MMIO.
 */
static P2PDmaResult resolve(P2PDma *dma, uint64_t addr, uint64_t len,
                            bool is_write, P2PDmaMode mode, Run *run)
{
    const bool ats = mode == P2P_DMA_ATS && p2p_dma_ats_enabled(dma);
    P2PDmaResult result = P2P_DMA_OK;
    P2PDmaPiece *piece = NULL;
    MemoryRegion *mr;
    hwaddr xlat, plen;
    bool bus;

    if (dma->stopped || !dma->dev->enabled ||
        !(pci_get_word(dma->dev->config + PCI_COMMAND) & PCI_COMMAND_MASTER)) {
        return P2P_DMA_ERR_MASTER;
    }
    if (addr + (len - 1) < addr) {
        return P2P_DMA_ERR_RANGE;
    }
    if (!dma->fail_after) {
        return P2P_DMA_ERR_INJECTED;
    }
    run->len = MIN(len, dma->fail_after);
    run->host = NULL;
    run->piece = NULL;

    check_acs(dma);
    if (!ats) {
        piece = piece_find(dma, true, addr, is_write);
    }
    if (piece) {
        run->addr = addr;
        run->route = piece->route;
        run_use_piece(run, piece);
        goto done;
    }
    if (ats) {
        result = route_by_ats(dma, addr, is_write, run);
    } else if (!route_in_switch(dma, addr, run)) {
        result = route_by_root(dma, addr, is_write, run);
    }
    if (result != P2P_DMA_OK) {
        return result;
    }
    bus = run->route == ROUTE_SWITCH ||
          (run->route == ROUTE_ROOT &&
           run->as == pci_device_iommu_address_space(dma->dev));
    if (!bus && run->as == &address_space_memory) {
        piece = piece_find(dma, false, run->addr, is_write);
        if (piece) {
            run_use_piece(run, piece);
            goto done;
        }
    }

    plen = run->len;
    WITH_RCU_READ_LOCK_GUARD() {
        mr = address_space_translate(run->as, run->addr, &xlat, &plen, is_write,
                                     MEMTXATTRS_UNSPECIFIED);
        run->direct = memory_access_is_direct(mr, is_write,
                                              MEMTXATTRS_UNSPECIFIED);
        if (!run->direct && p2p_dma_region_is_config(mr)) {
            return P2P_DMA_ERR_DECODE;
        }
        run->target = classify(dma, mr, run->addr);
        /* What makes no progress would be tried for ever */
        if (!plen) {
            return P2P_DMA_ERR_DECODE;
        }
        /* Unlike that of RAM, the length of MMIO is not cut by the region */
        if (!run->direct) {
            plen = mmio_room(run->as, run->addr, MIN(plen, MMIO_PIECE));
        }
        run->len = plen;
        if (run->direct && (bus || run->as == &address_space_memory)) {
            piece_add(dma, run, mr, bus, is_write);
        }
    }

done:
    /* The requester ID takes time to find. */
    if (trace_event_get_state_backends(TRACE_P2P_DMA_REQUEST)) {
        trace_p2p_dma_request(dma->dev->name, bdf(dma),
                              direction_name(is_write), addr, run->len,
                              route_names[run->route],
                              target_names[run->target]);
    }
    return P2P_DMA_OK;
}

static P2PDmaResult from_memtx(MemTxResult r)
{
    if (r == MEMTX_OK) {
        return P2P_DMA_OK;
    }
    return r & MEMTX_DECODE_ERROR ? P2P_DMA_ERR_DECODE : P2P_DMA_ERR_TARGET;
}

/* Counting */

static void count(P2PDma *dma, const Run *run, bool is_write, uint64_t len)
{
    uint64_t *bytes = is_write ? dma->stats.written : dma->stats.read;

    bytes[run->target] += len;
    if (run->route == ROUTE_SWITCH) {
        dma->stats.routed += len;
    }
}

static void charge(P2PDma *dma, uint64_t len)
{
    if (dma->fail_after != P2P_DMA_NO_LIMIT) {
        dma->fail_after -= MIN(dma->fail_after, len);
    }
}

static void fail(P2PDma *dma, P2PDmaResult result, uint64_t addr,
                 bool is_write, uint64_t done, uint64_t left,
                 P2PDmaFault *fault)
{
    uint64_t *bytes = is_write ? dma->stats.written : dma->stats.read;

    bytes[P2P_DMA_TARGET_FAILED] += left;
    if (fault) {
        *fault = (P2PDmaFault) {
            .addr = addr,
            .done = done,
            .is_write = is_write,
        };
    }
    trace_p2p_dma_fault(dma->dev->name, bdf(dma), direction_name(is_write),
                        addr, p2p_dma_result_name(result));
    qemu_log_mask(LOG_GUEST_ERROR, "%s: DMA %s at 0x%" PRIx64 " failed: %s\n",
                  dma->dev->name, direction_name(is_write), addr,
                  p2p_dma_result_name(result));
}

/* Data functions */

/* @run was the last one to be resolved, if it is written to */
static void host_wrote(const Run *run, uint64_t len)
{
    /* Dirty bits, and code that was translated from there */
    address_space_cache_invalidate(&run->piece->ram,
                                   run->addr - run->piece->start, len);
}

/*
 * memmove(), which stores in any order, but for the last bytes: who polls them
 * on another CPU and sees them change finds all the others there.  As many as
 * one store can have at that address, so that their last is not seen first.
 */
static void move_last_last(uint8_t *dst, const uint8_t *src, uint64_t len)
{
    const uintptr_t end = (uintptr_t)dst + len;
    const uint64_t last = MIN(pow2floor(MIN(len, 8)), end & -end);
    uint64_t value = 0;

    /* What is moved before may overlap it. */
    memcpy(&value, src + len - last, last);
    memmove(dst, src, len - last);
    smp_wmb(); /* against the reader that saw the last bytes */
    dst += len - last;
    switch (last) {
    case 8:
        qatomic_set((uint64_t *)dst, value);
        break;
    case 4:
        qatomic_set((uint32_t *)dst, ldl_he_p(&value));
        break;
    case 2:
        qatomic_set((uint16_t *)dst, lduw_he_p(&value));
        break;
    default:
        qatomic_set(dst, ldub_p(&value));
        break;
    }
}

/* @buf may be the very memory, of a device that reaches its own by the bus */
static void host_rw(const Run *run, uint8_t *buf, bool is_write)
{
    if (is_write) {
        move_last_last(run->host, buf, run->len);
        host_wrote(run, run->len);
    } else {
        memmove(buf, run->host, run->len);
    }
}

/*
 * Access MMIO at @run, up to *@len > 0 bytes.  What a handler takes in one call
 * is an access of its own, for which the memory map of that moment counts: one
 * may unplug the very device, whose handlers must not be called any more.  When
 * the map has changed, where the rest goes has to be found out anew; *@len is
 * what was done.
 */
static P2PDmaResult mmio_rw(const P2PDma *dma, const Run *run, uint8_t *buf,
                            uint64_t *len, bool is_write)
{
    const MemTxAttrs attrs = MEMTXATTRS_UNSPECIFIED;
    const unsigned map = dma->map_changes;
    uint64_t done = 0;

    do {
        const hwaddr addr = run->addr + done;
        hwaddr xlat, plen = *len - done;
        MemoryRegion *mr;
        MemTxResult r;
        int part;

        WITH_RCU_READ_LOCK_GUARD() {
            mr = address_space_translate(run->as, addr, &xlat, &plen, is_write,
                                         attrs);
            part = memory_access_size(mr, MIN(*len - done, 8), xlat);
        }
        r = address_space_rw(run->as, addr, attrs, buf + done, part, is_write);
        if (r != MEMTX_OK) {
            return from_memtx(r);
        }
        done += part;
    } while (done < *len && !dma->stopped && dma->map_changes == map);
    *len = done;
    return P2P_DMA_OK;
}

static P2PDmaResult transfer(P2PDma *dma, uint64_t addr, uint8_t *buf,
                             uint64_t len, bool is_write, P2PDmaMode mode,
                             P2PDmaFault *fault)
{
    P2PDmaResult result = P2P_DMA_OK;
    uint64_t done = 0;

    smp_mb(); /* as dma_memory_rw() does */
    p2p_work_begin();
    while (done < len) {
        Run run;

        result = resolve(dma, addr + done, len - done, is_write, mode, &run);
        if (result == P2P_DMA_OK && run.host) {
            host_rw(&run, buf + done, is_write);
        } else if (result == P2P_DMA_OK) {
            result = mmio_rw(dma, &run, buf + done, &run.len, is_write);
        }
        if (result != P2P_DMA_OK) {
            fail(dma, result, addr + done, is_write, done, len - done, fault);
            break;
        }
        count(dma, &run, is_write, run.len);
        charge(dma, run.len);
        done += run.len;
    }
    p2p_work_end();
    return result;
}

P2PDmaResult p2p_dma_read(P2PDma *dma, uint64_t addr, void *buf, uint64_t len,
                          P2PDmaMode mode, P2PDmaFault *fault)
{
    return transfer(dma, addr, buf, len, false, mode, fault);
}

P2PDmaResult p2p_dma_write(P2PDma *dma, uint64_t addr, const void *buf,
                           uint64_t len, P2PDmaMode mode, P2PDmaFault *fault)
{
    return transfer(dma, addr, (uint8_t *)buf, len, true, mode, fault);
}

/*
 * MMIO to MMIO.  Not a part of copy_run(), which would clear the buffer (as QEMU
 * is compiled) each time that it moves a page from RAM to RAM.
 */
static __attribute__((noinline)) P2PDmaResult
copy_mmio(const P2PDma *dst_dma, const Run *dst, const P2PDma *src_dma,
          const Run *src, uint64_t *len, bool *is_write)
{
    uint8_t bounce[MMIO_PIECE];
    P2PDmaResult result;

    *is_write = false;
    result = mmio_rw(src_dma, src, bounce, len, false);
    if (result != P2P_DMA_OK) {
        return result;
    }
    *is_write = true;
    if (dst_dma->stopped) {
        return P2P_DMA_ERR_MASTER;
    }
    return mmio_rw(dst_dma, dst, bounce, len, true);
}

/*
 * Move the run that both ends have in common, *@len bytes, or what mmio_rw()
 * does of it.  RAM to RAM is a single move.  Otherwise one end is MMIO,
 * whose handler may change the memory map: a direct other end is mapped, which
 * holds it, and serves as the buffer of the access.  On failure *@is_write
 * tells which end failed.
 */
static P2PDmaResult copy_run(const P2PDma *dst_dma, const Run *dst,
                             const P2PDma *src_dma, const Run *src,
                             uint64_t *len, bool *is_write)
{
    const MemTxAttrs attrs = MEMTXATTRS_UNSPECIFIED;
    P2PDmaResult result;
    hwaddr mapped = *len;
    void *p;

    if (src->host && dst->host) {
        move_last_last(dst->host, src->host, *len);
        host_wrote(dst, *len);
        return P2P_DMA_OK;
    }
    if (src->direct) {
        *is_write = true;
        p = address_space_map(src->as, src->addr, &mapped, false, attrs);
        if (!p || mapped != *len) {
            result = P2P_DMA_ERR_TARGET;
            *is_write = false;
        } else {
            result = mmio_rw(dst_dma, dst, p, len, true);
        }
        if (p) {
            address_space_unmap(src->as, p, mapped, false, mapped);
        }
        return result;
    }

    if (dst->direct) {
        *is_write = false;
        p = address_space_map(dst->as, dst->addr, &mapped, true, attrs);
        if (!p || mapped != *len) {
            result = P2P_DMA_ERR_TARGET;
            *is_write = true;
        } else {
            result = mmio_rw(src_dma, src, p, len, false);
        }
        if (p) {
            address_space_unmap(dst->as, p, mapped, true, mapped);
        }
        return result;
    }

    return copy_mmio(dst_dma, dst, src_dma, src, len, is_write);
}

P2PDmaResult p2p_dma_copy(const P2PDmaEnd *dst, const P2PDmaEnd *src,
                          uint64_t len, P2PDmaFault *fault)
{
    P2PDmaResult result = P2P_DMA_OK;
    uint64_t done = 0;

    smp_mb(); /* as dma_memory_rw() does */
    p2p_work_begin();
    while (done < len) {
        bool is_write = false;
        Run from, to;

        result = resolve(src->dma, src->addr + done, len - done, false,
                         src->mode, &from);
        if (result == P2P_DMA_OK) {
            is_write = true;
            result = resolve(dst->dma, dst->addr + done, from.len, true,
                             dst->mode, &to);
        }
        if (result == P2P_DMA_OK && src->dma->stopped) {
            is_write = false;
            result = P2P_DMA_ERR_MASTER;
        }
        if (result == P2P_DMA_OK) {
            result = copy_run(dst->dma, &to, src->dma, &from, &to.len,
                              &is_write);
        }
        if (result != P2P_DMA_OK) {
            const P2PDmaEnd *end = is_write ? dst : src;

            fail(end->dma, result, end->addr + done, is_write, done,
                 len - done, fault);
            break;
        }
        count(src->dma, &from, false, to.len);
        count(dst->dma, &to, true, to.len);
        charge(src->dma, to.len);
        if (dst->dma != src->dma) {
            charge(dst->dma, to.len);
        }
        done += to.len;
    }
    p2p_work_end();
    return result;
}

static uint64_t atomic_result(P2PDmaAtomicOp op, uint64_t old,
                              uint64_t operand, uint64_t compare)
{
    switch (op) {
    case P2P_DMA_FETCH_ADD:
        return old + operand;
    case P2P_DMA_COMPARE_SWAP:
        return old == compare ? operand : old;
    case P2P_DMA_SWAP:
    default:
        return operand;
    }
}

static uint64_t atomic_host32(uint32_t *p, P2PDmaAtomicOp op, uint64_t operand,
                              uint64_t compare)
{
    uint32_t seen = qatomic_read(p);
    uint32_t old;

    do {
        uint32_t new;

        old = seen;
        new = cpu_to_le32(atomic_result(op, le32_to_cpu(old), operand,
                                        compare));
        seen = qatomic_cmpxchg(p, old, new);
    } while (seen != old);
    return le32_to_cpu(old);
}

static uint64_t atomic_host64(uint64_t *p, P2PDmaAtomicOp op, uint64_t operand,
                              uint64_t compare)
{
    uint64_t seen = qatomic_read__nocheck(p);
    uint64_t old;

    do {
        uint64_t new;

        old = seen;
        new = cpu_to_le64(atomic_result(op, le64_to_cpu(old), operand,
                                        compare));
        seen = qatomic_cmpxchg__nocheck(p, old, new);
    } while (seen != old);
    return le64_to_cpu(old);
}

static P2PDmaResult atomic_mmio(const P2PDma *dma, const Run *run,
                                P2PDmaAtomicOp op, unsigned size,
                                uint64_t operand, uint64_t compare,
                                uint64_t *old)
{
    uint64_t len = size;
    uint8_t buf[8];
    P2PDmaResult result = mmio_rw(dma, run, buf, &len, false);

    if (result == P2P_DMA_OK && dma->stopped) {
        result = P2P_DMA_ERR_MASTER;
    }
    if (result == P2P_DMA_OK && len == size) {
        *old = ldn_le_p(buf, size);
        stn_le_p(buf, size, atomic_result(op, *old, operand, compare));
        result = mmio_rw(dma, run, buf, &len, true);
    }
    return result == P2P_DMA_OK && len != size ? P2P_DMA_ERR_TARGET : result;
}

P2PDmaResult p2p_dma_atomic(const P2PDmaEnd *end, P2PDmaAtomicOp op,
                            unsigned size, uint64_t operand, uint64_t compare,
                            uint64_t *old)
{
    P2PDma *dma = end->dma;
    bool is_write = false;
    P2PDmaResult result;
    uint64_t value = 0;
    Run run;

    if ((size != 4 && size != 8) || !QEMU_IS_ALIGNED(end->addr, size)) {
        fail(dma, P2P_DMA_ERR_ALIGN, end->addr, true, 0, size, NULL);
        return P2P_DMA_ERR_ALIGN;
    }
    if (size == 4) {
        operand = (uint32_t)operand;
        compare = (uint32_t)compare;
    }

    smp_mb(); /* as dma_memory_rw() does */
    p2p_work_begin();
    /* An AtomicOp needs both permissions */
    result = resolve(dma, end->addr, size, false, end->mode, &run);
    if (result == P2P_DMA_OK) {
        is_write = true;
        result = resolve(dma, end->addr, size, true, end->mode, &run);
    }
    if (result == P2P_DMA_OK && run.len < size) {
        result = dma->fail_after < size ? P2P_DMA_ERR_INJECTED
                                        : P2P_DMA_ERR_TARGET;
    }
    if (result == P2P_DMA_OK && run.direct) {
        hwaddr mapped = size;
        void *p = address_space_map(run.as, run.addr, &mapped, true,
                                    MEMTXATTRS_UNSPECIFIED);

        if (!p || mapped != size || !QEMU_PTR_IS_ALIGNED(p, size)) {
            result = P2P_DMA_ERR_TARGET;
            mapped = p ? mapped : 0;
        } else if (size == 4) {
            value = atomic_host32(p, op, operand, compare);
        } else {
            value = atomic_host64(p, op, operand, compare);
        }
        if (p) {
            address_space_unmap(run.as, p, mapped, true,
                                result == P2P_DMA_OK ? size : 0);
        }
    } else if (result == P2P_DMA_OK) {
        result = atomic_mmio(dma, &run, op, size, operand, compare, &value);
    }
    if (result == P2P_DMA_OK) {
        count(dma, &run, false, size);
        count(dma, &run, true, size);
        charge(dma, size);
        *old = value;
    } else {
        fail(dma, result, end->addr, is_write, 0, size, NULL);
    }
    p2p_work_end();
    return result;
}

/* QOM */

static void get_ats_enabled(Object *obj, Visitor *v, const char *name,
                            void *opaque, Error **errp)
{
    bool value = p2p_dma_ats_enabled(opaque);

    visit_type_bool(v, name, &value, errp);
}

void p2p_dma_add_properties(P2PDma *dma, Object *owner)
{
    const struct {
        const char *name;
        uint64_t *value;
    } counters[] = {
        { "dma-routed-bytes", &dma->stats.routed },
        { "ats-hits", &dma->stats.ats_hits },
        { "ats-misses", &dma->stats.ats_misses },
        { "ats-invalidations", &dma->stats.ats_invalidations },
        { "ats-faults", &dma->stats.ats_faults },
    };
    unsigned i;

    for (i = 0; i < P2P_DMA_TARGET__MAX; i++) {
        g_autofree char *rd = g_strdup_printf("dma-read-%s-bytes",
                                              target_names[i]);
        g_autofree char *wr = g_strdup_printf("dma-write-%s-bytes",
                                              target_names[i]);

        object_property_add_uint64_ptr(owner, rd, &dma->stats.read[i],
                                       OBJ_PROP_FLAG_READ);
        object_property_add_uint64_ptr(owner, wr, &dma->stats.written[i],
                                       OBJ_PROP_FLAG_READ);
    }
    for (i = 0; i < ARRAY_SIZE(counters); i++) {
        object_property_add_uint64_ptr(owner, counters[i].name,
                                       counters[i].value, OBJ_PROP_FLAG_READ);
    }
    object_property_add(owner, "ats-enabled", "bool", get_ats_enabled, NULL,
                        NULL, dma);
    dma->fail_after = P2P_DMA_NO_LIMIT;
    object_property_add_uint64_ptr(owner, "dma-fail-after", &dma->fail_after,
                                   OBJ_PROP_FLAG_READWRITE);
}
