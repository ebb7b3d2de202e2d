/*
 * GP100: VRAM, and the registers of the memory partitions and the L2 cache.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * There is no cache in the model: flushes complete at once.
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "exec/cpu-common.h"
#include "hw/pci/p2p_dma.h"
#include "gp100.h"
#include "trace.h"

void *gp100_vram(GP100State *s, uint64_t addr, uint64_t len)
{
    if (addr > s->vram_size || len > s->vram_size - addr) {
        return NULL;
    }
    return s->vram + addr;
}

uint32_t gp100_vram_ldl(GP100State *s, uint64_t addr)
{
    void *p = gp100_vram(s, addr, 4);

    return p ? ldl_le_p(p) : 0;
}

void gp100_vram_stl(GP100State *s, uint64_t addr, uint32_t val)
{
    void *p = gp100_vram(s, addr, 4);

    if (p) {
        stl_le_p(p, val);
    }
}

/*
 * DMA.  What configures the PCI hierarchy is refused: the GPU must not unplug
 * or reset itself in the middle of its work.  Of MMIO as much as one call of
 * its handler takes is accessed at a time, which may even unplug the device
 * that it belongs to (hw/pci/p2p_dma.h).
 */
static bool sys_access(GP100State *s, uint64_t addr, void *buf, uint64_t len,
                       DMADirection dir)
{
    PCIDevice *dev = PCI_DEVICE(s);
    uint8_t *p = buf;

    while (len) {
        hwaddr at, n = len;
        bool refused = false;

        /* An access may have made another device unplug this one. */
        if (!DEVICE(s)->realized) {
            return false;
        }

        WITH_RCU_READ_LOCK_GUARD() {
            MemoryRegion *mr = address_space_translate(
                pci_get_address_space(dev), addr, &at, &n,
                dir == DMA_DIRECTION_FROM_DEVICE, MEMTXATTRS_UNSPECIFIED);

            if (!memory_region_is_ram(mr)) {
                n = memory_access_size(mr, MIN(len, 8), at);
                s->sys_mmio++;
                refused = p2p_dma_region_is_config(mr);
            }
        }
        if (refused || pci_dma_rw(dev, addr, p, n, dir,
                                  MEMTXATTRS_UNSPECIFIED) != MEMTX_OK) {
            return false;
        }
        addr += n;
        p += n;
        len -= n;
    }
    return true;
}

bool gp100_phys_read(GP100State *s, GP100Aperture aper, uint64_t addr,
                     void *buf, uint64_t len)
{
    void *p;

    switch (aper) {
    case GP100_APER_VRAM:
        p = gp100_vram(s, addr, len);
        if (p) {
            memmove(buf, p, len);
        }
        return p;
    case GP100_APER_SYS_COH:
    case GP100_APER_SYS_NCOH:
        return sys_access(s, addr, buf, len, DMA_DIRECTION_TO_DEVICE);
    case GP100_APER_SPARSE:
        memset(buf, 0, len);
        return true;
    default:
        return false;
    }
}

bool gp100_phys_write(GP100State *s, GP100Aperture aper, uint64_t addr,
                      const void *buf, uint64_t len)
{
    void *p;

    switch (aper) {
    case GP100_APER_VRAM:
        p = gp100_vram(s, addr, len);
        if (p) {
            memmove(p, buf, len);
        }
        return p;
    case GP100_APER_SYS_COH:
    case GP100_APER_SYS_NCOH:
        return sys_access(s, addr, (void *)buf, len,
                          DMA_DIRECTION_FROM_DEVICE);
    case GP100_APER_SPARSE:
        return true;
    default:
        return false;
    }
}

void gp100_fb_realize(GP100State *s)
{
    s->vram = memory_region_get_ram_ptr(s->vram_mr);
    s->vram_size = memory_region_size(s->vram_mr);
}

void gp100_fb_power_cycle(GP100State *s)
{
    /*
     * Unused pages of the host stay unused; not every backend can do that, and
     * it is not allowed while somebody (VFIO) has pinned the memory.
     */
    if (ram_block_discard_is_disabled() ||
        ram_block_discard_range(s->vram_mr->ram_block, 0, s->vram_size)) {
        memset(s->vram, 0, s->vram_size);
    }
    memory_region_set_dirty(s->vram_mr, 0, s->vram_size);
}

static uint32_t fbpa_mem_read(GP100State *s, unsigned i)
{
    return s->vram_size / MiB;
}

static const GP100Reg fb_regs[] = {
    { BAR_FLUSH, "BAR_FLUSH" },
    { LTC_FLUSH, "LTC_FLUSH" },
    { LTC_INVALIDATE, "LTC_INVALIDATE" },
    { FB_FLUSH_PAGE, "FLUSH_PAGE", .wmask = UINT32_MAX },
    { 0x100c14, "FLUSH_CTRL", .wmask = UINT32_MAX },
    { 0x10ecc0, "FBPA_ECC", .wmask = UINT32_MAX },
    { LTC_NUM, "LTC_NUM", .reset = 1 },
    { 0x14046c, "LTS_INTR" },
    { 0x17e26c, "CBC", .count = 4, .wmask = UINT32_MAX },
    { LTC_LTS_NUM, "LTS_NUM", .reset = 1u << 28 },
    { 0x17e338, "ZBC", .count = 6, .wmask = UINT32_MAX },
    { FBPA0_MEM_MIB, "FBPA0_MEM_MIB", .read = fbpa_mem_read },
    { 0x9a0160, "FBPA_CFG", .wmask = UINT32_MAX },
    { 0x9a0584, "FBPA_TRAINING", .wmask = UINT32_MAX },
    { 0x9a065c, "FBPA_MODE", .wmask = UINT32_MAX },
};

const GP100Unit gp100_fb = {
    .name = "FB", .regs = fb_regs, .num_regs = ARRAY_SIZE(fb_regs),
};
