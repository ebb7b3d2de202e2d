/*
 * DMA of a PCI function, routed and translated the way its requests are
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * pci_dma_read() and its relatives hand every request to the IOMMU, because
 * QEMU does not model the switches and root ports between a function and the
 * root complex.  On hardware an untranslated request whose address lies in a
 * window of such a bridge is turned around there and reaches the peer without
 * ever meeting the IOMMU, unless Access Control Services redirect it (PCIe
 * Base Specification 6.0, section 6.12).  A request that was translated
 * through the Address Translation Service (section 10) carries a physical
 * address and must not be translated again.  P2PDma models both, and counts
 * what was reached, so that a test can prove where the bytes went.
 *
 * One P2PDma is embedded in the state of each function that uses it.
 *
 * Units: all addresses, lengths and counters are in bytes; addresses are bus
 * addresses as the function puts them into a request.
 *
 * Locking: every function here must be called with the BQL held, and the data
 * functions while the device's MemReentrancyGuard is engaged: from a bottom
 * half made with it (qemu_bh_new_guarded()) or from a handler of the device's
 * MMIO.  A target may be MMIO, whose handler then runs inside the call.  An ATS
 * invalidation arrives under the BQL as well, so that it finds a request of
 * this unit in flight only if that is what reached the IOMMU's registers.
 *
 * Nothing here can be made to abort by a guest.  Work is proportional to the
 * length given; callers bound the length that they pass per invocation.
 *
 * Lifetime: what a request reaches may be the doorbell of another device, which
 * then sends requests or an interrupt of its own, and an interrupt's message
 * goes wherever the guest says, to configuration space as well.  So any
 * function of the machine can be reset or unplugged within any request or
 * message, also those whose code is on the stack.  The rule for all of them:
 *
 * - What goes on after a request or a message is done between p2p_work_begin()
 *   and p2p_work_end(); each data function here is such work by itself.
 * - Whatever work may have pointers to is freed through p2p_work_after() or
 *   together with the function, which p2p_work_keep() keeps.
 * - On the bus, reset and unplug take effect at once: the unit is stopped until
 *   the work has ended, and work that sees this has nothing left to do.
 */

#ifndef HW_PCI_P2P_DMA_H
#define HW_PCI_P2P_DMA_H

#include "exec/memory.h"
#include "qemu/queue.h"
#include "qom/object.h"

/**
 * P2PDmaMode: the Address Type that the caller wants for a request
 *
 * @P2P_DMA_UNTRANSLATED: the address is what the driver got from its DMA API.
 *     Switches and root ports may route it, otherwise the IOMMU translates it.
 * @P2P_DMA_ATS: the function first asks for a translation, then sends a
 *     translated request.  An address that the IOMMU does not translate is an
 *     error (P2P_DMA_ERR_ATS); in particular a raw bus address of a peer fails.
 *     While the guest has not set ATS Enable, or while no IOMMU translates for
 *     the function, such a request is an untranslated one.
 */
typedef enum P2PDmaMode {
    P2P_DMA_UNTRANSLATED,
    P2P_DMA_ATS,
} P2PDmaMode;

/**
 * P2PDmaResult: outcome of a data function; everything but OK is a failure
 *
 * @P2P_DMA_OK: all bytes were transferred
 * @P2P_DMA_ERR_MASTER: Bus Master Enable is off, the function has no power, or
 *     the unit is stopped
 * @P2P_DMA_ERR_RANGE: address plus length wraps around 2^64
 * @P2P_DMA_ERR_ALIGN: size or alignment of an atomic operation
 * @P2P_DMA_ERR_DECODE: nobody claimed the request, or the IOMMU blocked it
 *     (to the requester both are an Unsupported Request completion), or it went
 *     to configuration space or to registers of a bridge: a function must not
 *     reset or remove itself in the middle of its work
 * @P2P_DMA_ERR_ATS: the translation request got no translation, or ACS
 *     Translation Blocking is set in a port on the way
 * @P2P_DMA_ERR_TARGET: the target was reached and refused the access
 * @P2P_DMA_ERR_INJECTED: the test's budget (dma-fail-after) is used up
 */
typedef enum P2PDmaResult {
    P2P_DMA_OK,
    P2P_DMA_ERR_MASTER,
    P2P_DMA_ERR_RANGE,
    P2P_DMA_ERR_ALIGN,
    P2P_DMA_ERR_DECODE,
    P2P_DMA_ERR_ATS,
    P2P_DMA_ERR_TARGET,
    P2P_DMA_ERR_INJECTED,
} P2PDmaResult;

/**
 * P2PDmaFault: where a failed transfer stopped
 *
 * @addr: first bus address that was not transferred
 * @done: bytes transferred before it
 * @is_write: the write side failed (for copies: the destination)
 *
 * A target that is MMIO is accessed in pieces of at most 4 KiB; bytes of the
 * failing piece may have reached it although they are not counted in @done.
 */
typedef struct P2PDmaFault {
    uint64_t addr;
    uint64_t done;
    bool is_write;
} P2PDmaFault;

/**
 * P2PDmaTarget: what a byte was read from or written to
 *
 * @P2P_DMA_TARGET_HOST: RAM of the machine
 * @P2P_DMA_TARGET_PEER: a BAR (or another region) of another PCI function
 * @P2P_DMA_TARGET_OWN: a BAR of the function itself
 * @P2P_DMA_TARGET_OTHER: anything else, such as an interrupt controller
 * @P2P_DMA_TARGET_FAILED: not transferred; the remainder of a failed call
 */
typedef enum P2PDmaTarget {
    P2P_DMA_TARGET_HOST,
    P2P_DMA_TARGET_PEER,
    P2P_DMA_TARGET_OWN,
    P2P_DMA_TARGET_OTHER,
    P2P_DMA_TARGET_FAILED,
    P2P_DMA_TARGET__MAX,
} P2PDmaTarget;

/**
 * P2PDmaStats: counters since the device was created; no reset clears them
 *
 * @read: bytes read, by target
 * @written: bytes written, by target
 * @routed: bytes, of both directions, that a switch or a root port routed to
 *     their target without the root complex (a subset of the counters above)
 * @ats_hits: lookups that the translation cache answered.  There is one lookup
 *     per 4 KiB page, direction and request, and another where the other end of
 *     a copy continues elsewhere.
 * @ats_misses: lookups that led to a translation request
 * @ats_invalidations: invalidation requests received for the function.  The
 *     IOMMU's address space can consist of several ranges (intel-iommu's has a
 *     hole for interrupts): a request is counted for each range it touches.
 * @ats_faults: ATS requests refused (P2P_DMA_ERR_ATS)
 */
typedef struct P2PDmaStats {
    uint64_t read[P2P_DMA_TARGET__MAX];
    uint64_t written[P2P_DMA_TARGET__MAX];
    uint64_t routed;
    uint64_t ats_hits;
    uint64_t ats_misses;
    uint64_t ats_invalidations;
    uint64_t ats_faults;
} P2PDmaStats;

/** P2P_DMA_NO_LIMIT: value of P2PDma.fail_after that never fails a request */
#define P2P_DMA_NO_LIMIT UINT64_MAX

typedef struct P2PDmaAtcEntry P2PDmaAtcEntry;
typedef struct P2PDmaIommu P2PDmaIommu;
typedef struct P2PDmaPiece P2PDmaPiece;

/**
 * P2PDma: DMA state of one function
 *
 * @dev: the function
 * @stats: counters, may be read directly
 * @fail_after: error injection: bytes that may still be moved, then every
 *     request fails.  A copy within one function counts its bytes once.
 * @stopped: may be read: every request fails (P2P_DMA_ERR_MASTER), because the
 *     function was reset while work was on the stack, until that has ended, or
 *     was unplugged
 *
 * The other members are private.
 */
typedef struct P2PDma {
    PCIDevice *dev;
    P2PDmaStats stats;
    uint64_t fail_after;
    bool stopped;

    uint16_t ats_cap;
    bool ats_enabled;
    AddressSpace *ats_as;
    MemoryListener ats_listener;
    QLIST_HEAD(, P2PDmaIommu) ats_iommus;
    P2PDmaAtcEntry *atc;

    GPtrArray *ports;           /* above the function, the nearest first */
    unsigned first_redirect;    /* of these, by ACS */
    MemoryListener map_listener;
    unsigned map_changes;
    P2PDmaPiece *pieces;
    P2PDmaPiece *recent[2];     /* used by a read, by a write */
    unsigned next_piece;
} P2PDma;

/**
 * P2PDmaEnd: one end of a copy
 *
 * @dma: function that sends the request
 * @addr: bus address
 * @mode: Address Type
 */
typedef struct P2PDmaEnd {
    P2PDma *dma;
    uint64_t addr;
    P2PDmaMode mode;
} P2PDmaEnd;

/**
 * P2PDmaAtomicOp: PCIe AtomicOps (section 6.15 of the specification)
 *
 * @P2P_DMA_FETCH_ADD: new = old + operand
 * @P2P_DMA_SWAP: new = operand
 * @P2P_DMA_COMPARE_SWAP: new = old == compare ? operand : old
 */
typedef enum P2PDmaAtomicOp {
    P2P_DMA_FETCH_ADD,
    P2P_DMA_SWAP,
    P2P_DMA_COMPARE_SWAP,
} P2PDmaAtomicOp;

/**
 * p2p_work_begin: work begins, which can be within other work
 *
 * In the thread that holds the BQL; see Lifetime above.
 */
void p2p_work_begin(void);

/**
 * p2p_work_end: the work that began last ends
 *
 * If it is the outermost, what was left for later is done now.
 */
void p2p_work_end(void);

/**
 * p2p_work_active: whether the caller is called by work of some device
 *
 * What has a budget of its own does it later then, or budgets multiply.
 */
bool p2p_work_active(void);

/**
 * p2p_work_after: call @fn(@opaque) when no work is on the stack
 * @fn: sends neither requests nor messages
 * @opaque: exists until then
 *
 * That is now, or when the outermost work ends, in the order of the calls.
 */
void p2p_work_after(GDestroyNotify fn, gpointer opaque);

/**
 * p2p_work_keep: keep a device that is being unplugged
 * @obj: the device, called from its exit
 *
 * It is kept until neither work nor the bottom half that did it can be on the
 * stack.  (An access to its MMIO keeps it, too: by the memory map in use.)
 */
void p2p_work_keep(Object *obj);

/**
 * p2p_dma_add_properties: make the counters visible over QOM
 * @dma: the P2PDma inside @owner
 * @owner: the device; must be called from its instance_init, which also takes
 *     the limit of @fail_after off
 *
 * Read-only, uint64: dma-{read,write}-{host,peer,own,other,failed}-bytes,
 * dma-routed-bytes, ats-hits, ats-misses, ats-invalidations, ats-faults.
 * Read-only, bool: ats-enabled.
 * Read and write, uint64: dma-fail-after (@fail_after).
 */
void p2p_dma_add_properties(P2PDma *dma, Object *owner);

/**
 * p2p_dma_init: prepare for requests; called from the function's realize
 * @dma: zero-initialised except for what properties have set
 * @dev: the function
 */
void p2p_dma_init(P2PDma *dma, PCIDevice *dev);

/**
 * p2p_dma_init_ats: add an ATS extended capability
 * @dma: initialised
 * @offset: offset of the capability in extended configuration space,
 *     PCI_EXT_CAP_ATS_SIZEOF bytes are taken.  Extended capabilities must be
 *     added in ascending order of their offsets.
 * @errp: set when @dev is not on a PCI Express bus
 *
 * Returns: true on success
 */
bool p2p_dma_init_ats(P2PDma *dma, uint16_t offset, Error **errp);

/**
 * p2p_dma_exit: drop everything; called from the function's exit
 * @dma: initialised, or zero
 *
 * The caller has deleted its bottom halves and timers.  A request of the unit
 * may be on the stack: it fails then, and the function is kept, as by
 * p2p_work_keep().
 */
void p2p_dma_exit(P2PDma *dma);

/**
 * p2p_dma_reset: ATS off and translation cache empty, as after Conventional or
 * Function Level Reset
 * @dma: initialised
 *
 * Within work the unit is stopped until that ends: nothing of what was begun
 * before the reset is to happen after it.
 */
void p2p_dma_reset(P2PDma *dma);

/**
 * p2p_dma_region_is_config: whether software configures the PCI hierarchy by
 * @mr: it belongs to a host bridge or to a bridge
 * @mr: a region without subregions, as address_space_translate() returns it
 *
 * For devices that do DMA without a P2PDma, which refuses requests to those.
 */
bool p2p_dma_region_is_config(MemoryRegion *mr);

/**
 * p2p_dma_config_write: follow a write to configuration space
 * @dma: initialised
 * @address: offset written
 * @len: bytes written
 *
 * Called by the function's config_write after pci_default_write_config().
 * When the IOMMU has no device IOTLB support the Enable bit does not stick and
 * a warning is printed, since invalidations would never arrive.
 */
void p2p_dma_config_write(P2PDma *dma, uint32_t address, int len);

/**
 * p2p_dma_ats_enabled: whether P2P_DMA_ATS requests ask for translations
 * @dma: initialised
 */
bool p2p_dma_ats_enabled(const P2PDma *dma);

/**
 * p2p_dma_read: read bus memory
 * @dma: initialised
 * @addr: bus address
 * @buf: @len bytes; undefined beyond the reported progress on failure
 * @len: bytes, 0 is allowed
 * @mode: Address Type
 * @fault: written on failure only; may be NULL
 *
 * Like dma_memory_rw(), each data function begins with a full memory barrier.
 * Data functions move contiguous runs of RAM in ascending address order, but
 * the bytes within one in any order, except that the last byte is stored last,
 * in one store with up to seven before it: a CPU that sees it change sees all
 * that precedes it.
 *
 * Returns: P2P_DMA_OK or why the transfer stopped
 */
P2PDmaResult p2p_dma_read(P2PDma *dma, uint64_t addr, void *buf, uint64_t len,
                          P2PDmaMode mode, P2PDmaFault *fault);

/**
 * p2p_dma_write: write bus memory
 * @dma: initialised
 * @addr: bus address
 * @buf: @len bytes
 * @len: bytes, 0 is allowed
 * @mode: Address Type
 * @fault: written on failure only; may be NULL
 *
 * Returns: P2P_DMA_OK or why the transfer stopped
 */
P2PDmaResult p2p_dma_write(P2PDma *dma, uint64_t addr, const void *buf,
                           uint64_t len, P2PDmaMode mode, P2PDmaFault *fault);

/**
 * p2p_dma_copy: read at one bus address and write at another
 * @dst: destination
 * @src: source; its function may be another one than the destination's
 * @len: bytes, 0 is allowed
 * @fault: written on failure only; may be NULL
 *
 * Runs that are contiguous at both ends go in ascending address order.  Where
 * both are RAM (of the machine or of a BAR) each is moved without a bounce
 * buffer; a source that overlaps a destination at a higher address is copied
 * correctly only within such a run.
 *
 * Returns: P2P_DMA_OK or why the transfer stopped
 */
P2PDmaResult p2p_dma_copy(const P2PDmaEnd *dst, const P2PDmaEnd *src,
                          uint64_t len, P2PDmaFault *fault);

/**
 * p2p_dma_atomic: atomic read-modify-write of a little-endian integer
 * @end: function, address (a multiple of @size) and Address Type
 * @op: operation
 * @size: 4 or 8
 * @operand: value to add or to store, the low @size bytes count
 * @compare: for P2P_DMA_COMPARE_SWAP
 * @old: on success the value before the operation
 *
 * RAM is changed by an atomic instruction of the host, so that the guest's
 * CPUs see it as atomic.  MMIO is read and written under the BQL.
 *
 * Returns: P2P_DMA_OK or the reason of the failure; nothing was changed then,
 * except by an MMIO target that failed in the middle
 */
P2PDmaResult p2p_dma_atomic(const P2PDmaEnd *end, P2PDmaAtomicOp op,
                            unsigned size, uint64_t operand, uint64_t compare,
                            uint64_t *old);

/**
 * p2p_dma_result_name: short text for traces and messages
 * @result: any value
 */
const char *p2p_dma_result_name(P2PDmaResult result);

#endif
