/*
 * p2pdev: a PCI Express function with memory and a DMA engine, for tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * It is at once "some device with memory that others want to reach" (BAR 2)
 * and "some device that does DMA".  docs/system/devices/p2pdev.rst describes
 * the programming model.
 */

#include "qemu/osdep.h"
#include "qemu/log.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/range.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "exec/address-spaces.h"
#include "hw/pci/msi.h"
#include "hw/pci/p2p_dma.h"
#include "hw/pci/pci_device.h"
#include "hw/pci/pcie.h"
#include "hw/qdev-properties.h"
#include "migration/vmstate.h"
#include "system/hostmem.h"
#include "p2pdev_regs.h"
#include "trace.h"

#define TYPE_P2PDEV "p2pdev"
OBJECT_DECLARE_SIMPLE_TYPE(P2PDev, P2PDEV)

#define P2PDEV_MEM_SIZE_DEFAULT (16 * MiB)

/* Moved per bottom half, so that the main loop keeps turning */
#define P2PDEV_CHUNK            (256 * KiB)

enum {
    REG_ID,
    REG_VER,
    REG_CAPS,
    REG_MEM_SIZE,
    REG_SRC,
    REG_DST,
    REG_LEN,
    REG_CTRL,
    REG_STATUS,
    REG_DONE_LEN,
    REG_ERR_ADDR,
    REG_FINISHED,
    REG_OPERAND,
    REG_COMPARE,
    REG_RESULT,
    REG_COUNT,
};

typedef struct P2PDevReg {
    const char *name;
    uint8_t offset;
    uint8_t width;      /* bytes */
    uint64_t rw;        /* bits that keep what is written */
    uint64_t w1c;       /* bits that writing 1 clears */
    uint64_t trigger;   /* bits that start something and read as 0 */
} P2PDevReg;

#define CTRL_FIELDS \
    ((P2PDEV_CTRL_SPACE_MASK << P2PDEV_CTRL_SRC_SHIFT) | \
     (P2PDEV_CTRL_SPACE_MASK << P2PDEV_CTRL_DST_SHIFT) | \
     (P2PDEV_CTRL_OP_MASK << P2PDEV_CTRL_OP_SHIFT))

static const P2PDevReg p2pdev_regs[REG_COUNT] = {
    [REG_ID]       = { "ID",       P2PDEV_ID,       4 },
    [REG_VER]      = { "VER",      P2PDEV_VER,      4 },
    [REG_CAPS]     = { "CAPS",     P2PDEV_CAPS,     4 },
    [REG_MEM_SIZE] = { "MEM_SIZE", P2PDEV_MEM_SIZE, 8 },
    [REG_SRC]      = { "SRC",      P2PDEV_SRC,      8, .rw = UINT64_MAX },
    [REG_DST]      = { "DST",      P2PDEV_DST,      8, .rw = UINT64_MAX },
    [REG_LEN]      = { "LEN",      P2PDEV_LEN,      8, .rw = UINT64_MAX },
    [REG_CTRL]     = { "CTRL",     P2PDEV_CTRL,     4,
                       .rw = P2PDEV_CTRL_IRQ_EN | CTRL_FIELDS,
                       .trigger = P2PDEV_CTRL_START | P2PDEV_CTRL_ABORT |
                                  P2PDEV_CTRL_RESET },
    [REG_STATUS]   = { "STATUS",   P2PDEV_STATUS,   4,
                       .w1c = P2PDEV_STATUS_DONE | P2PDEV_STATUS_ERROR |
                              P2PDEV_STATUS_REJECTED },
    [REG_DONE_LEN] = { "DONE_LEN", P2PDEV_DONE_LEN, 8 },
    [REG_ERR_ADDR] = { "ERR_ADDR", P2PDEV_ERR_ADDR, 8 },
    [REG_FINISHED] = { "FINISHED", P2PDEV_FINISHED, 4 },
    [REG_OPERAND]  = { "OPERAND",  P2PDEV_OPERAND,  8, .rw = UINT64_MAX },
    [REG_COMPARE]  = { "COMPARE",  P2PDEV_COMPARE,  8, .rw = UINT64_MAX },
    [REG_RESULT]   = { "RESULT",   P2PDEV_RESULT,   8 },
};

/* A transfer, latched at START */
typedef struct P2PDevJob {
    uint64_t src;
    uint64_t dst;
    uint64_t len;
    uint64_t operand;
    uint64_t compare;
    uint8_t op;
    uint8_t src_space;
    uint8_t dst_space;
    uint64_t done;
    /* the outcome, while its announcement is delayed */
    uint8_t error;
    bool error_is_dst;
} P2PDevJob;

struct P2PDev {
    PCIDevice parent_obj;

    MemoryRegion regs_mr;
    MemoryRegion mem_bar;
    MemoryRegion own_mem;       /* unless a memory backend is given */
    MemoryRegion *mem;
    AddressSpace local_as;      /* the engine's view of the memory */
    P2PDma dma;
    QEMUBH *bh;
    QEMUTimer *delay_timer;

    uint64_t reg[REG_COUNT];
    P2PDevJob job;

    HostMemoryBackend *hostmem;
    uint64_t size;
    bool ats;
    uint32_t delay_ms;
};

static const char *space_name(unsigned space)
{
    static const char *const names[] = {
        [P2PDEV_SPACE_BUS] = "bus",
        [P2PDEV_SPACE_ATS] = "ats",
        [P2PDEV_SPACE_LOCAL] = "local",
    };

    return space < ARRAY_SIZE(names) ? names[space] : "reserved";
}

static const char *op_name(unsigned op)
{
    static const char *const names[] = {
        [P2PDEV_OP_COPY] = "copy",
        [P2PDEV_OP_FETCH_ADD] = "fetch-add",
        [P2PDEV_OP_SWAP] = "swap",
        [P2PDEV_OP_COMPARE_SWAP] = "compare-swap",
    };

    return names[op & P2PDEV_CTRL_OP_MASK];
}

static uint16_t bdf(P2PDev *s)
{
    return pci_get_bdf(PCI_DEVICE(s));
}

static bool p2pdev_busy(const P2PDev *s)
{
    return s->reg[REG_STATUS] & P2PDEV_STATUS_BUSY;
}

/* DMA engine */

static uint8_t error_kind(P2PDmaResult result)
{
    switch (result) {
    case P2P_DMA_OK:
        return P2PDEV_ERR_NONE;
    case P2P_DMA_ERR_MASTER:
        return P2PDEV_ERR_MASTER;
    case P2P_DMA_ERR_RANGE:
        return P2PDEV_ERR_RANGE;
    case P2P_DMA_ERR_ALIGN:
        return P2PDEV_ERR_ALIGN;
    case P2P_DMA_ERR_DECODE:
        return P2PDEV_ERR_DECODE;
    case P2P_DMA_ERR_ATS:
        return P2PDEV_ERR_ATS;
    case P2P_DMA_ERR_INJECTED:
        return P2PDEV_ERR_INJECTED;
    default:
        return P2PDEV_ERR_TARGET;
    }
}

static void p2pdev_complete(P2PDev *s)
{
    PCIDevice *pci = PCI_DEVICE(s);
    const P2PDevJob *job = &s->job;
    uint64_t status = s->reg[REG_STATUS];

    status &= ~(uint64_t)P2PDEV_STATUS_BUSY;
    status |= P2PDEV_STATUS_DONE;
    if (job->error) {
        status |= P2PDEV_STATUS_ERROR;
        status |= job->error << P2PDEV_STATUS_ERR_SHIFT;
        status |= job->error_is_dst ? P2PDEV_STATUS_ERR_DST : 0;
        s->reg[REG_ERR_ADDR] = (job->error_is_dst ? job->dst : job->src) +
                               job->done;
    }
    s->reg[REG_STATUS] = status;
    s->reg[REG_FINISHED] = (uint32_t)(s->reg[REG_FINISHED] + 1);

    if ((s->reg[REG_CTRL] & P2PDEV_CTRL_IRQ_EN) && msi_enabled(pci)) {
        trace_p2pdev_irq(bdf(s));
        msi_notify(pci, 0);
    }
}

static void p2pdev_delay_over(void *opaque)
{
    p2pdev_complete(opaque);
}

static void p2pdev_finish(P2PDev *s, uint8_t error, bool error_is_dst)
{
    s->job.error = error;
    s->job.error_is_dst = error_is_dst;
    trace_p2pdev_finish(bdf(s), s->job.done, error ? "with error" : "ok");

    if (s->delay_ms) {
        timer_mod(s->delay_timer, qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL) +
                                  s->delay_ms);
    } else {
        p2pdev_complete(s);
    }
}

static bool range_valid(const P2PDev *s, unsigned space, uint64_t addr,
                        uint64_t len)
{
    uint64_t size = s->reg[REG_MEM_SIZE];

    if (space == P2PDEV_SPACE_LOCAL) {
        return addr <= size && len <= size - addr;
    }
    return !len || addr + (len - 1) >= addr;
}

/* Checks that need no bus access.  Returns an error kind. */
static uint8_t job_check(const P2PDev *s, bool *is_dst)
{
    const P2PDevJob *job = &s->job;

    *is_dst = true;
    if (job->op != P2PDEV_OP_COPY) {
        return job->dst_space >= P2PDEV_SPACE_LOCAL ? P2PDEV_ERR_SPACE
                                                    : P2PDEV_ERR_NONE;
    }
    *is_dst = false;
    if (job->src_space > P2PDEV_SPACE_LOCAL) {
        return P2PDEV_ERR_SPACE;
    }
    if (!range_valid(s, job->src_space, job->src, job->len)) {
        return P2PDEV_ERR_RANGE;
    }
    *is_dst = true;
    if (job->dst_space > P2PDEV_SPACE_LOCAL) {
        return P2PDEV_ERR_SPACE;
    }
    if (!range_valid(s, job->dst_space, job->dst, job->len)) {
        return P2PDEV_ERR_RANGE;
    }
    if (job->src_space == job->dst_space && job->len &&
        ranges_overlap(job->src, job->len, job->dst, job->len)) {
        return P2PDEV_ERR_OVERLAP;
    }
    return P2PDEV_ERR_NONE;
}

static P2PDmaMode space_mode(unsigned space)
{
    return space == P2PDEV_SPACE_ATS ? P2P_DMA_ATS : P2P_DMA_UNTRANSLATED;
}

/* Part of the local memory; job_check() has found it to be inside */
static void *local_map(P2PDev *s, uint64_t offset, uint64_t len, bool is_write)
{
    hwaddr mapped = len;
    void *p = address_space_map(&s->local_as, offset, &mapped, is_write,
                                MEMTXATTRS_UNSPECIFIED);

    if (p && mapped != len) {
        address_space_unmap(&s->local_as, p, mapped, is_write, 0);
        p = NULL;
    }
    return p;
}

static void local_unmap(P2PDev *s, void *p, uint64_t len, bool is_write)
{
    if (p) {
        address_space_unmap(&s->local_as, p, len, is_write, len);
    }
}

static P2PDmaResult p2pdev_copy(P2PDev *s, uint64_t len, P2PDmaFault *fault)
{
    const P2PDevJob *job = &s->job;
    bool src_local = job->src_space == P2PDEV_SPACE_LOCAL;
    bool dst_local = job->dst_space == P2PDEV_SPACE_LOCAL;
    P2PDmaEnd src = { &s->dma, job->src + job->done,
                      space_mode(job->src_space) };
    P2PDmaEnd dst = { &s->dma, job->dst + job->done,
                      space_mode(job->dst_space) };
    P2PDmaResult result = P2P_DMA_OK;
    void *from = NULL;
    void *to = NULL;

    if (!src_local && !dst_local) {
        return p2p_dma_copy(&dst, &src, len, fault);
    }

    if (src_local) {
        from = local_map(s, src.addr, len, false);
    }
    if (dst_local) {
        to = local_map(s, dst.addr, len, true);
    }
    if ((src_local && !from) || (dst_local && !to)) {
        *fault = (P2PDmaFault) { .is_write = from || !src_local };
        result = P2P_DMA_ERR_TARGET;
    } else if (!src_local) {
        result = p2p_dma_read(&s->dma, src.addr, to, len, src.mode, fault);
    } else if (!dst_local) {
        result = p2p_dma_write(&s->dma, dst.addr, from, len, dst.mode, fault);
    } else {
        memmove(to, from, len);
    }
    local_unmap(s, to, len, true);
    local_unmap(s, from, len, false);
    return result;
}

static P2PDmaResult p2pdev_atomic(P2PDev *s, uint64_t *old)
{
    static const P2PDmaAtomicOp ops[] = {
        [P2PDEV_OP_FETCH_ADD] = P2P_DMA_FETCH_ADD,
        [P2PDEV_OP_SWAP] = P2P_DMA_SWAP,
        [P2PDEV_OP_COMPARE_SWAP] = P2P_DMA_COMPARE_SWAP,
    };
    const P2PDevJob *job = &s->job;
    P2PDmaEnd dst = { &s->dma, job->dst, space_mode(job->dst_space) };

    /* A size that does not fit is 0, which is as invalid as any other */
    return p2p_dma_atomic(&dst, ops[job->op], job->len <= 8 ? job->len : 0,
                          job->operand, job->compare, old);
}

/* Each request may make another device reset or unplug this one */
static void p2pdev_work(P2PDev *s)
{
    P2PDevJob *job = &s->job;
    uint64_t len = MIN(job->len - job->done, P2PDEV_CHUNK);
    P2PDmaFault fault = { 0 };
    P2PDmaResult result;
    uint64_t old = 0;

    if (job->error) {
        p2pdev_finish(s, job->error, job->error_is_dst);
        return;
    }
    if (job->op != P2PDEV_OP_COPY) {
        result = p2pdev_atomic(s, &old);
        if (s->dma.stopped) {
            return;
        }
        if (result == P2P_DMA_OK) {
            s->reg[REG_RESULT] = old;
            job->done = job->len;
            s->reg[REG_DONE_LEN] = job->done;
        }
        p2pdev_finish(s, error_kind(result), result != P2P_DMA_OK);
        return;
    }
    if (len) {
        result = p2pdev_copy(s, len, &fault);
        if (s->dma.stopped) {
            return;
        }
        job->done += result == P2P_DMA_OK ? len : fault.done;
        s->reg[REG_DONE_LEN] = job->done;
        if (result != P2P_DMA_OK) {
            p2pdev_finish(s, error_kind(result), fault.is_write);
            return;
        }
    }
    if (job->done < job->len) {
        qemu_bh_schedule(s->bh);
    } else {
        p2pdev_finish(s, P2PDEV_ERR_NONE, false);
    }
}

static void p2pdev_bh(void *opaque)
{
    p2p_work_begin();
    p2pdev_work(opaque);
    p2p_work_end();
}

static void p2pdev_start(P2PDev *s)
{
    uint32_t ctrl = s->reg[REG_CTRL];
    P2PDevJob *job = &s->job;

    if (p2pdev_busy(s)) {
        s->reg[REG_STATUS] |= P2PDEV_STATUS_REJECTED;
        qemu_log_mask(LOG_GUEST_ERROR, "p2pdev: START while busy is ignored\n");
        return;
    }
    *job = (P2PDevJob) {
        .src = s->reg[REG_SRC],
        .dst = s->reg[REG_DST],
        .len = s->reg[REG_LEN],
        .operand = s->reg[REG_OPERAND],
        .compare = s->reg[REG_COMPARE],
        .op = (ctrl >> P2PDEV_CTRL_OP_SHIFT) & P2PDEV_CTRL_OP_MASK,
        .src_space = (ctrl >> P2PDEV_CTRL_SRC_SHIFT) & P2PDEV_CTRL_SPACE_MASK,
        .dst_space = (ctrl >> P2PDEV_CTRL_DST_SHIFT) & P2PDEV_CTRL_SPACE_MASK,
    };
    trace_p2pdev_start(bdf(s), op_name(job->op),
                       space_name(job->dst_space), job->dst,
                       space_name(job->src_space), job->src, job->len);
    job->error = job_check(s, &job->error_is_dst);
    if (job->error) {
        qemu_log_mask(LOG_GUEST_ERROR, "p2pdev: invalid transfer, error kind "
                      "0x%02x of the %s\n", job->error,
                      job->error_is_dst ? "destination" : "source");
    }
    s->reg[REG_STATUS] &= P2PDEV_STATUS_REJECTED;
    s->reg[REG_STATUS] |= P2PDEV_STATUS_BUSY;
    s->reg[REG_DONE_LEN] = 0;
    s->reg[REG_ERR_ADDR] = 0;
    s->reg[REG_RESULT] = 0;
    qemu_bh_schedule(s->bh);
}

/* Nothing of the current transfer happens after this */
static void p2pdev_stop(P2PDev *s)
{
    if (p2pdev_busy(s)) {
        trace_p2pdev_stop(bdf(s), s->job.done);
    }
    qemu_bh_cancel(s->bh);
    timer_del(s->delay_timer);
}

static void p2pdev_abort(P2PDev *s)
{
    if (p2pdev_busy(s)) {
        p2pdev_stop(s);
        s->job.error = P2PDEV_ERR_ABORTED;
        s->job.error_is_dst = false;
        p2pdev_complete(s);
    }
}

static void p2pdev_reset_regs(P2PDev *s)
{
    p2pdev_stop(s);
    memset(s->reg, 0, sizeof(s->reg));
    memset(&s->job, 0, sizeof(s->job));
    s->reg[REG_ID] = P2PDEV_MAGIC;
    s->reg[REG_VER] = P2PDEV_VERSION;
    s->reg[REG_CAPS] = P2PDEV_CAPS_MSI | (s->ats ? P2PDEV_CAPS_ATS : 0);
    s->reg[REG_MEM_SIZE] = memory_region_size(s->mem);
}

/* Registers */

/* The register that an access lies in; *part is the offset within it */
static const P2PDevReg *find_reg(hwaddr addr, unsigned size, unsigned *part)
{
    int i;

    for (i = 0; i < REG_COUNT; i++) {
        const P2PDevReg *r = &p2pdev_regs[i];

        if (addr >= r->offset && addr + size <= r->offset + r->width) {
            *part = addr - r->offset;
            return r;
        }
    }
    qemu_log_mask(LOG_GUEST_ERROR, "p2pdev: no register at 0x%" HWADDR_PRIx
                  " for an access of %u bytes\n", addr, size);
    return NULL;
}

/*
 * An access that found the registers in the memory map may get here when they
 * were unplugged, by another part of the same access or by another CPU.
 */
static uint64_t p2pdev_reg_read(void *opaque, hwaddr addr, unsigned size)
{
    P2PDev *s = opaque;
    unsigned part;
    const P2PDevReg *r = find_reg(addr, size, &part);
    uint64_t val;

    if (!DEVICE(s)->realized) {
        return UINT64_MAX;
    }
    if (!r) {
        return 0;
    }
    val = extract64(s->reg[r - p2pdev_regs], part * 8, size * 8);
    trace_p2pdev_reg_read(bdf(s), r->name, part, size, val);
    return val;
}

static void p2pdev_reg_write(void *opaque, hwaddr addr, uint64_t val,
                             unsigned size)
{
    P2PDev *s = opaque;
    unsigned part;
    const P2PDevReg *r = find_reg(addr, size, &part);
    uint64_t *reg, written, bits;

    if (!r || !DEVICE(s)->realized) {
        return;
    }
    trace_p2pdev_reg_write(bdf(s), r->name, part, size, val);
    reg = &s->reg[r - p2pdev_regs];
    written = MAKE_64BIT_MASK(part * 8, size * 8);
    bits = deposit64(0, part * 8, size * 8, val);
    if (bits & ~(r->rw | r->w1c | r->trigger)) {
        qemu_log_mask(LOG_GUEST_ERROR, "p2pdev: write of 0x%" PRIx64
                      " to read-only or reserved bits of %s\n", bits, r->name);
    }
    *reg = (*reg & ~(r->rw & written)) | (bits & r->rw);
    *reg &= ~(bits & r->w1c);

    bits &= r->trigger;
    if (bits & P2PDEV_CTRL_RESET) {
        p2pdev_reset_regs(s);
    } else if (bits & P2PDEV_CTRL_ABORT) {
        p2pdev_abort(s);
    } else if (bits & P2PDEV_CTRL_START) {
        p2pdev_start(s);
    }
}

static const MemoryRegionOps p2pdev_reg_ops = {
    .read = p2pdev_reg_read,
    .write = p2pdev_reg_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid.min_access_size = 4,
    .valid.max_access_size = 8,
    .impl.min_access_size = 4,
    .impl.max_access_size = 8,
};

/* Device */

static void p2pdev_config_write(PCIDevice *pci, uint32_t addr, uint32_t val,
                                int len)
{
    P2PDev *s = P2PDEV(pci);

    pci_default_write_config(pci, addr, val, len);
    pcie_cap_flr_write_config(pci, addr, val, len);
    p2p_dma_config_write(&s->dma, addr, len);
}

static void p2pdev_reset_hold(Object *obj, ResetType type)
{
    P2PDev *s = P2PDEV(obj);

    p2pdev_reset_regs(s);
    p2p_dma_reset(&s->dma);
}

static bool p2pdev_init_mem(P2PDev *s, Error **errp)
{
    uint64_t size = s->size;

    if (s->hostmem) {
        const char *id = object_get_canonical_path_component(
                             OBJECT(s->hostmem));

        if (host_memory_backend_is_mapped(s->hostmem)) {
            error_setg(errp, "memdev '%s' is already in use", id);
            return false;
        }
        s->mem = host_memory_backend_get_memory(s->hostmem);
        if (size && size != memory_region_size(s->mem)) {
            error_setg(errp, "property 'size' differs from the size of memdev "
                       "'%s': leave it out", id);
            return false;
        }
        size = memory_region_size(s->mem);
    } else if (!size) {
        size = P2PDEV_MEM_SIZE_DEFAULT;
    }
    if (!is_power_of_2(size) || size < P2PDEV_MEM_SIZE_MIN ||
        size > P2PDEV_MEM_SIZE_MAX) {
        error_setg(errp, "the size must be a power of two between 1 MiB and "
                   "64 GiB");
        return false;
    }
    if (!s->hostmem) {
        if (!memory_region_init_ram_nomigrate(&s->own_mem, OBJECT(s),
                                              "p2pdev-mem", size, errp)) {
            return false;
        }
        s->mem = &s->own_mem;
    }
    return true;
}

static void p2pdev_realize(PCIDevice *pci, Error **errp)
{
    P2PDev *s = P2PDEV(pci);

    if (!pci_bus_is_express(pci_get_bus(pci))) {
        error_setg(errp, "p2pdev needs a PCI Express bus: plug it into a root "
                   "port or a downstream port");
        return;
    }
    if (!p2pdev_init_mem(s, errp)) {
        return;
    }
    if (pcie_endpoint_cap_init(pci, 0) < 0) {
        error_setg(errp, "cannot add the PCI Express capability");
        return;
    }
    pcie_cap_flr_init(pci);
    p2p_dma_init(&s->dma, pci);
    if (s->ats && !p2p_dma_init_ats(&s->dma, P2PDEV_ATS_CAP, errp)) {
        goto fail;
    }
    if (msi_init(pci, 0, 1, true, false, errp) < 0) {
        goto fail;
    }

    memory_region_init_io(&s->regs_mr, OBJECT(s), &p2pdev_reg_ops, s,
                          "p2pdev-regs", P2PDEV_REG_BAR_SIZE);
    pci_register_bar(pci, P2PDEV_REG_BAR, PCI_BASE_ADDRESS_SPACE_MEMORY,
                     &s->regs_mr);
    /*
     * The BAR is a container, so that it moves and the memory in it does not:
     * the memory is also the root of an address space, which must start at 0.
     */
    memory_region_init(&s->mem_bar, OBJECT(s), "p2pdev-bar2",
                       memory_region_size(s->mem));
    memory_region_add_subregion(&s->mem_bar, 0, s->mem);
    pci_register_bar(pci, P2PDEV_MEM_BAR, PCI_BASE_ADDRESS_SPACE_MEMORY |
                     PCI_BASE_ADDRESS_MEM_PREFETCH |
                     PCI_BASE_ADDRESS_MEM_TYPE_64, &s->mem_bar);
    address_space_init(&s->local_as, s->mem, "p2pdev-local");
    if (s->hostmem) {
        host_memory_backend_set_mapped(s->hostmem, true);
    }

    s->bh = qemu_bh_new_guarded(p2pdev_bh, s, &DEVICE(s)->mem_reentrancy_guard);
    s->delay_timer = timer_new_ms(QEMU_CLOCK_VIRTUAL, p2pdev_delay_over, s);
    p2pdev_reset_regs(s);
    return;

fail:
    p2p_dma_exit(&s->dma);
    pcie_cap_exit(pci);
}

static void p2pdev_exit(PCIDevice *pci)
{
    P2PDev *s = P2PDEV(pci);

    p2pdev_reset_regs(s);
    qemu_bh_delete(s->bh);
    timer_free(s->delay_timer);
    p2p_dma_exit(&s->dma);
    msi_uninit(pci);
    pcie_cap_exit(pci);
    address_space_destroy(&s->local_as);
    memory_region_del_subregion(&s->mem_bar, s->mem);
    if (s->hostmem) {
        host_memory_backend_set_mapped(s->hostmem, false);
    }
}

static void p2pdev_instance_init(Object *obj)
{
    P2PDev *s = P2PDEV(obj);

    p2p_dma_add_properties(&s->dma, obj);
    object_property_add_uint32_ptr(obj, "delay-ms", &s->delay_ms,
                                   OBJ_PROP_FLAG_READWRITE);
}

static const Property p2pdev_properties[] = {
    DEFINE_PROP_SIZE("size", P2PDev, size, 0),
    DEFINE_PROP_LINK("memdev", P2PDev, hostmem, TYPE_MEMORY_BACKEND,
                     HostMemoryBackend *),
    DEFINE_PROP_BOOL("ats", P2PDev, ats, false),
};

static const VMStateDescription p2pdev_vmstate = {
    .name = TYPE_P2PDEV,
    .unmigratable = 1,
};

static void p2pdev_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    PCIDeviceClass *pc = PCI_DEVICE_CLASS(klass);
    ResettableClass *rc = RESETTABLE_CLASS(klass);

    pc->realize = p2pdev_realize;
    pc->exit = p2pdev_exit;
    pc->config_write = p2pdev_config_write;
    pc->vendor_id = P2PDEV_VENDOR_ID;
    pc->device_id = P2PDEV_DEVICE_ID;
    pc->revision = P2PDEV_VERSION;
    pc->class_id = PCI_CLASS_MEMORY_OTHER;
    dc->desc = "peer-to-peer DMA test device";
    dc->vmsd = &p2pdev_vmstate;
    rc->phases.hold = p2pdev_reset_hold;
    device_class_set_props(dc, p2pdev_properties);
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    object_class_property_set_description(klass, "size",
        "bytes of memory in BAR 2, a power of two (default: 16 MiB, or the "
        "size of memdev)");
    object_class_property_set_description(klass, "memdev",
        "memory backend to show in BAR 2");
    object_class_property_set_description(klass, "ats",
        "offer the Address Translation Service");
}

static const TypeInfo p2pdev_types[] = {
    {
        .name = TYPE_P2PDEV,
        .parent = TYPE_PCI_DEVICE,
        .instance_size = sizeof(P2PDev),
        .instance_init = p2pdev_instance_init,
        .class_init = p2pdev_class_init,
        .interfaces = (InterfaceInfo[]) {
            { INTERFACE_PCIE_DEVICE },
            { }
        },
    },
};

DEFINE_TYPES(p2pdev_types)
