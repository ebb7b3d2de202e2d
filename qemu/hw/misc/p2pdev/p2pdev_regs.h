/*
 * Registers of the p2pdev test device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * docs/system/devices/p2pdev.rst describes them.  This file has no other
 * dependency than <stdint.h>'s types, so that tests can include it.
 */

#ifndef HW_MISC_P2PDEV_REGS_H
#define HW_MISC_P2PDEV_REGS_H

/* docs/specs/pci-ids.rst: for experiments, needs no registration */
#define P2PDEV_VENDOR_ID        0x1af4
#define P2PDEV_DEVICE_ID        0x10f2

#define P2PDEV_REG_BAR          0
#define P2PDEV_REG_BAR_SIZE     0x1000
#define P2PDEV_MEM_BAR          2

#define P2PDEV_MEM_SIZE_MIN     (1ULL << 20)
#define P2PDEV_MEM_SIZE_MAX     (1ULL << 36)

/* Extended configuration space */
#define P2PDEV_ATS_CAP          0x100

#define P2PDEV_MAGIC            0x44503250  /* "P2PD" */
#define P2PDEV_VERSION          1

/* Offsets in BAR 0; 64-bit registers can be accessed in halves */
#define P2PDEV_ID               0x00
#define P2PDEV_VER              0x04
#define P2PDEV_CAPS             0x08
#define P2PDEV_MEM_SIZE         0x10
#define P2PDEV_SRC              0x18
#define P2PDEV_DST              0x20
#define P2PDEV_LEN              0x28
#define P2PDEV_CTRL             0x30
#define P2PDEV_STATUS           0x34
#define P2PDEV_DONE_LEN         0x38
#define P2PDEV_ERR_ADDR         0x40
#define P2PDEV_FINISHED         0x48
#define P2PDEV_OPERAND          0x50
#define P2PDEV_COMPARE          0x58
#define P2PDEV_RESULT           0x60

#define P2PDEV_CAPS_ATS         (1u << 0)
#define P2PDEV_CAPS_MSI         (1u << 1)

#define P2PDEV_CTRL_START       (1u << 0)
#define P2PDEV_CTRL_ABORT       (1u << 1)
#define P2PDEV_CTRL_RESET       (1u << 2)
#define P2PDEV_CTRL_IRQ_EN      (1u << 3)
#define P2PDEV_CTRL_SRC_SHIFT   4
#define P2PDEV_CTRL_DST_SHIFT   6
#define P2PDEV_CTRL_SPACE_MASK  3u

#define P2PDEV_CTRL_OP_SHIFT    8
#define P2PDEV_CTRL_OP_MASK     3u

/* Operations; all but COPY are atomic operations on LEN (4, 8) bytes at DST */
#define P2PDEV_OP_COPY          0u
#define P2PDEV_OP_FETCH_ADD     1u
#define P2PDEV_OP_SWAP          2u
#define P2PDEV_OP_COMPARE_SWAP  3u

/* Address spaces */
#define P2PDEV_SPACE_BUS        0u  /* untranslated requests */
#define P2PDEV_SPACE_ATS        1u  /* translated requests, by way of ATS */
#define P2PDEV_SPACE_LOCAL      2u  /* offset in the device's own memory */

#define P2PDEV_STATUS_BUSY      (1u << 0)
#define P2PDEV_STATUS_DONE      (1u << 1)   /* write 1 to clear */
#define P2PDEV_STATUS_ERROR     (1u << 2)   /* write 1 to clear */
#define P2PDEV_STATUS_REJECTED  (1u << 3)   /* write 1 to clear */
#define P2PDEV_STATUS_ERR_DST   (1u << 4)
#define P2PDEV_STATUS_ERR_SHIFT 8

/* Error kinds */
#define P2PDEV_ERR_NONE         0x00
#define P2PDEV_ERR_MASTER       0x01
#define P2PDEV_ERR_RANGE        0x02
#define P2PDEV_ERR_DECODE       0x03
#define P2PDEV_ERR_ATS          0x04
#define P2PDEV_ERR_TARGET       0x05
#define P2PDEV_ERR_INJECTED     0x06
#define P2PDEV_ERR_ALIGN        0x07
#define P2PDEV_ERR_SPACE        0x10
#define P2PDEV_ERR_OVERLAP      0x11
#define P2PDEV_ERR_ABORTED      0x12

#endif
