/*
 * GP100: PMC (identification, interrupt tree, unit resets), PBUS, fuses and
 * the table of engines (PTOP).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/pci/msi.h"
#include "gp100.h"
#include "trace.h"

/*
 * The interrupt rule.  A leaf is the OR of what its units request, masked by
 * the leaf's enables.  INTx follows that level.  MSI is a single shot: it is
 * sent when the level is high while armed, and armed again by a write to
 * XVE_MSI_REARM.  Enabling leaves evaluates the level again, so that a
 * request which stays up is never lost, whatever the order of the two.
 */
static uint32_t pmc_pending(GP100State *s, unsigned leaf)
{
    uint32_t intr = 0;

    if (leaf != 0) {
        return 0;
    }
    if (gp100_reg(s, CE_INTR) & gp100_reg(s, CE_INTR_EN)) {
        intr |= PMC_LEAF0_CE0;
    }
    if (gp100_fifo_intr(s) & gp100_reg(s, PFIFO_INTR_EN)) {
        intr |= PMC_LEAF0_PFIFO;
    }
    if (gp100_fault_buffer_pending(s)) {
        intr |= PMC_LEAF0_FAULT;
    }
    if (gp100_reg(s, PTIMER_INTR) & gp100_reg(s, PTIMER_INTR_EN)) {
        intr |= PMC_LEAF0_PTIMER;
    }
    if (gp100_reg(s, PBUS_INTR) & gp100_reg(s, PBUS_INTR_EN)) {
        intr |= PMC_LEAF0_PBUS;
    }
    return intr;
}

void gp100_irq_update(GP100State *s)
{
    PCIDevice *dev = PCI_DEVICE(s);
    uint32_t intr = pmc_pending(s, 0);
    bool level = intr & gp100_reg(s, PMC_INTR_EN);

    if (!DEVICE(s)->realized) {
        return;
    }
    if (msi_enabled(dev)) {
        if (level && s->msi_armed &&
            ((intr & gp100_reg(s, PMC_INTR_EN)) != PMC_LEAF0_FAULT ||
             gp100_fault_message_due(s))) {
            s->msi_armed = false;
            s->stats.msi_sent++;
            gp100_did(s, GP100_EVENT_PMC_MSI, true);
            trace_gp100_msi(intr);
            msi_notify(dev, 0);
        }
    } else {
        trace_gp100_intx(intr, level);
        if (level) {
            gp100_did(s, GP100_EVENT_PMC_INTX, true);
        }
        pci_set_irq(dev, level);
    }
}

void gp100_irq_write(GP100State *s, unsigned i, uint32_t val)
{
    gp100_irq_update(s);
}

static uint32_t pmc_intr_read(GP100State *s, unsigned i)
{
    return pmc_pending(s, i);
}

static void pmc_intr_en_set(GP100State *s, unsigned i, uint32_t val)
{
    s->regs[PMC_INTR_EN / 4 + i] |= val;
    gp100_irq_update(s);
}

static void pmc_intr_en_clear(GP100State *s, unsigned i, uint32_t val)
{
    s->regs[PMC_INTR_EN / 4 + i] &= ~val;
    gp100_irq_update(s);
}

/* A write with a unit's enable bit clear makes the unit forget its state. */
static void pmc_enable_write(GP100State *s, unsigned i, uint32_t val)
{
    static const struct {
        uint32_t bit;
        GP100Event event;
        const GP100Unit *unit[3];
    } resets[] = {
        { PMC_UNIT_PFIFO, GP100_EVENT_PMC_RESET_PFIFO,
          { &gp100_fifo, &gp100_pbdma, &gp100_fault } },
        { PMC_UNIT_CE0, GP100_EVENT_PMC_RESET_CE, { &gp100_ce } },
    };

    for (unsigned r = 0; r < ARRAY_SIZE(resets); r++) {
        if (val & resets[r].bit) {
            continue;
        }
        gp100_did(s, resets[r].event, true);
        for (unsigned u = 0; u < ARRAY_SIZE(resets[r].unit); u++) {
            const GP100Unit *unit = resets[r].unit[u];

            if (unit) {
                trace_gp100_unit_reset(unit->name);
                gp100_unit_reset_regs(s, unit);
                if (unit->reset) {
                    unit->reset(s);
                }
            }
        }
    }
    gp100_irq_update(s);
    /* Channels may have waited for a copy that is forgotten now. */
    if (!(val & PMC_UNIT_CE0)) {
        gp100_fifo_kick_later(s);
    }
}

static const GP100Reg pmc_regs[] = {
    { PMC_BOOT_0, "BOOT_0", .reset = 0x130000a1 },
    { PMC_BOOT_1, "BOOT_1" },
    { PMC_INTR, "INTR", .count = 2, .read = pmc_intr_read },
    { PMC_INTR_EN, "INTR_EN", .count = 2 },
    { PMC_INTR_EN_SET, "INTR_EN_SET", .count = 2, .write = pmc_intr_en_set },
    { PMC_INTR_EN_CLEAR, "INTR_EN_CLEAR", .count = 2,
      .write = pmc_intr_en_clear },
    { 0x00017c, "INTR_LTC_EN" },
    { PMC_INTR_LTC, "INTR_LTC" },
    { PMC_ENABLE, "ENABLE", .wmask = UINT32_MAX, .write = pmc_enable_write },
    { PMC_ENABLE_PB, "ENABLE_PB", .wmask = UINT32_MAX },
    { 0x121c4c, "PRI_RING_INTR", .count = 4 },
};

const GP100Unit gp100_pmc = {
    .name = "PMC", .regs = pmc_regs, .num_regs = ARRAY_SIZE(pmc_regs),
};

static void pbus_bar1_block_write(GP100State *s, unsigned i, uint32_t val)
{
    gp100_bar1_bind(s, val);
}

static void pbus_bar2_block_write(GP100State *s, unsigned i, uint32_t val)
{
    gp100_bar2_bind(s, val);
}

static void pbus_window_write(GP100State *s, unsigned i, uint32_t val)
{
    if (val & BAR0_WINDOW_TARGET) {
        gp100_guest_error(s, "BAR0 window 0x%08" PRIx32 " is not VRAM", val);
    }
}

static void xve_msi_rearm_write(GP100State *s, unsigned i, uint32_t val)
{
    s->msi_armed = true;
    gp100_irq_update(s);
}

static void pbus_reset(GP100State *s)
{
    s->msi_armed = true;
}

static const GP100Reg pbus_regs[] = {
    { PBUS_INTR, "INTR", .w1c = UINT32_MAX, .write = gp100_irq_write },
    { PBUS_INTR_EN, "INTR_EN", .wmask = UINT32_MAX, .write = gp100_irq_write },
    { 0x009084, "FAULT_ADDR", .wmask = UINT32_MAX },
    { 0x009088, "FAULT_DATA", .wmask = UINT32_MAX },
    { PBUS_BAR0_WINDOW, "BAR0_WINDOW", .wmask = UINT32_MAX,
      .write = pbus_window_write },
    { PBUS_BAR1_BLOCK, "BAR1_BLOCK", .wmask = UINT32_MAX,
      .write = pbus_bar1_block_write },
    { PBUS_BIND_STATUS, "BIND_STATUS" },
    { PBUS_BAR2_BLOCK, "BAR2_BLOCK", .wmask = UINT32_MAX,
      .write = pbus_bar2_block_write },
    { PBUS_IFB_BLOCK, "IFB_BLOCK", .wmask = UINT32_MAX },
    { XVE_ROM_SHADOW, "XVE_ROM_SHADOW", .wmask = UINT32_MAX },
    { 0x088488, "XVE_HDA", .wmask = UINT32_MAX },
    { XVE_MSI_REARM, "XVE_MSI_REARM", .write = xve_msi_rearm_write },
};

const GP100Unit gp100_pbus = {
    .name = "PBUS", .regs = pbus_regs, .num_regs = ARRAY_SIZE(pbus_regs),
    .reset = pbus_reset,
};

/*
 * PTOP_DEVICE_INFO: a list of engines, each a chain of words whose two low
 * bits give the kind: 1 data (PRI base, fault id, instance), 2 enum (engine,
 * runlist, interrupt, reset numbers), 3 type.  Bit 31 continues the chain.
 * One logical copy engine is all this GPU has, and on request the name of a
 * graphics engine.
 */
#define DEVICE_INFO_CHAIN                   (1u << 31)
#define DEVICE_INFO_TYPE(type)              ((type) << 2 | 3)
#define DEVICE_INFO_DATA(inst, pri, fault)  \
    ((inst) << 26 | (pri) | (fault) << 3 | 1 << 2 | 1)
#define DEVICE_INFO_ENUM(engine, runlist, intr, reset)  \
    ((engine) << 26 | (runlist) << 21 | (intr) << 15 | (reset) << 9 | \
     1 << 5 | 1 << 4 | 1 << 3 | 1 << 2 | 2)
#define DEVICE_TYPE_GRAPHICS                0x00
#define DEVICE_TYPE_LCE                     0x13

static uint32_t ptop_device_info_read(GP100State *s, unsigned i)
{
    /* The second is there only with the property graphics. */
    const uint32_t info[] = {
        DEVICE_INFO_CHAIN | DEVICE_INFO_TYPE(DEVICE_TYPE_LCE),
        DEVICE_INFO_CHAIN | DEVICE_INFO_DATA(0, 0x104000, GP100_UNIT_CE0),
        DEVICE_INFO_ENUM(0, (uint32_t)s->ce_runlist, 5, 6),
        DEVICE_INFO_CHAIN | DEVICE_INFO_TYPE(DEVICE_TYPE_GRAPHICS),
        DEVICE_INFO_CHAIN | DEVICE_INFO_DATA(0, 0x400000, GP100_UNIT_GRAPHICS),
        DEVICE_INFO_ENUM(1, (uint32_t)s->ce_runlist, 12, 12),
    };

    return i < (s->graphics ? 6 : 3) ? info[i] : 0;
}

/*
 * Floor sweeping: one partition of memory with one L2 slice.  The display is
 * fused off, as on every GP100 board.  Devinit reports that the VBIOS has
 * run, so a driver does not execute its scripts.
 */
static const GP100Reg fuse_regs[] = {
    { 0x021000, "FUSE", .count = 0xa00 / 4 },
    { FUSE_CE_DISABLE, "CE_DISABLE" },
    { FUSE_DISPLAY_DISABLE, "DISPLAY_DISABLE", .reset = 1 },
    { FUSE_FBPA_DISABLE, "FBPA_DISABLE" },
    { FUSE_FBP_DISABLE, "FBP_DISABLE" },
    { FUSE_LTC_DISABLE, "LTC_DISABLE" },
    { PTOP_DEVINIT_STATUS, "DEVINIT_STATUS", .reset = DEVINIT_DONE },
    { PTOP_FBP_NUM, "FBP_NUM", .reset = 1 },
    { PTOP_LTC_PER_FBP, "LTC_PER_FBP", .reset = 1 },
    { PTOP_FBPA_PER_FBP, "FBPA_PER_FBP", .reset = 1 },
    { PTOP_DEVICE_INFO, "DEVICE_INFO", .count = PTOP_DEVICE_INFO_NUM,
      .read = ptop_device_info_read },
    { STRAP, "STRAP" },
};

const GP100Unit gp100_fuse = {
    .name = "FUSE", .regs = fuse_regs, .num_regs = ARRAY_SIZE(fuse_regs),
};

/*
 * Units of the board that drivers poke at but that nothing is attached to:
 * GPIO and AUX interrupts, the temperature sensor (0: there is none), the
 * VGA CRTC lock.
 */
static const GP100Reg board_regs[] = {
    { 0x00dc00, "GPIO_INTR_0", .w1c = UINT32_MAX },
    { 0x00dc08, "GPIO_INTR_EN_0", .wmask = UINT32_MAX },
    { 0x00dc60, "AUX_INTR", .w1c = UINT32_MAX },
    { 0x00dc68, "AUX_INTR_EN", .wmask = UINT32_MAX },
    { 0x00dc80, "GPIO_INTR_1", .w1c = UINT32_MAX },
    { 0x00dc88, "GPIO_INTR_EN_1", .wmask = UINT32_MAX },
    { 0x020460, "THERM_SENSOR" },
    { 0x6013d4, "VGA_CRTC", .wmask = UINT32_MAX },
};

const GP100Unit gp100_board = {
    .name = "BOARD", .regs = board_regs, .num_regs = ARRAY_SIZE(board_regs),
};
