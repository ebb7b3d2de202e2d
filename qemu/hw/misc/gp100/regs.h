/*
 * Registers of a Pascal GPU (GP100) that the model gives a behaviour to.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Offsets are in BAR0.  Names follow NVIDIA's public manuals
 * (open-gpu-doc) and envytools' rnndb where those name the register,
 * otherwise the use that Linux' nouveau driver makes of it.
 */

#ifndef HW_MISC_GP100_REGS_H
#define HW_MISC_GP100_REGS_H

/* PMC: identification, interrupt tree, unit enables */
#define PMC_BOOT_0              0x000000
#define PMC_BOOT_1              0x000004
#define PMC_INTR                0x000100    /* two leaves, level, read-only */
#define PMC_INTR_EN             0x000140
#define PMC_INTR_EN_SET         0x000160
#define PMC_INTR_EN_CLEAR       0x000180
#define PMC_ENABLE              0x000200
#define   PMC_UNIT_CE0            (1u << 6)
#define   PMC_UNIT_PFIFO          (1u << 8)
#define   PMC_LEAF0_CE0           (1u << 5)
#define   PMC_LEAF0_PFIFO         (1u << 8)
#define   PMC_LEAF0_FAULT         (1u << 9)
#define   PMC_LEAF0_PTIMER        (1u << 20)
#define   PMC_LEAF0_PBUS          (1u << 28)
#define PMC_ENABLE_PB           0x000204
#define PMC_INTR_LTC            0x0001c0

/* PBUS: windows and BAR instance blocks */
#define PBUS_INTR               0x001100
#define PBUS_INTR_EN            0x001140
#define PBUS_BAR0_WINDOW        0x001700
#define   BAR0_WINDOW_BASE        0x00ffffff /* 64 KiB units */
#define   BAR0_WINDOW_TARGET      0x03000000
#define PBUS_BAR1_BLOCK         0x001704
#define PBUS_BIND_STATUS        0x001710
#define PBUS_BAR2_BLOCK         0x001714
#define PBUS_IFB_BLOCK          0x001718
#define   BAR_BLOCK_PTR           0x0fffffff /* 4 KiB units */
#define   BAR_BLOCK_TARGET        0x30000000
#define   BAR_BLOCK_VIRTUAL       0x80000000u

/* PFIFO */
#define PFIFO_PBDMA_NUM         0x002004
#define PFIFO_CHANNEL_NUM       0x002008
#define PFIFO_INTR              0x002100
#define   PFIFO_INTR_SCHED        (1u << 8)
#define   PFIFO_INTR_MMU_FAULT    (1u << 28)
#define   PFIFO_INTR_PBDMA        (1u << 29)
#define   PFIFO_INTR_RUNLIST      (1u << 30)
#define   PFIFO_INTR_NONSTALL     (1u << 31)
#define PFIFO_INTR_EN           0x002140
#define PFIFO_USERD_BASE        0x002254
#define   USERD_BASE_VALID        0x10000000
#define   USERD_BASE_ADDR         0x0fffffff /* 4 KiB units of BAR1 */
#define PFIFO_RUNLIST_BASE      0x002270
#define   RUNLIST_BASE_PTR        0x0fffffff
#define   RUNLIST_BASE_TARGET(v)  extract32(v, 28, 2) /* GP100Aperture */
#define PFIFO_RUNLIST           0x002274
#define PFIFO_RUNLIST_STATUS    0x002284    /* stride 8 */
#define PFIFO_PBDMA_MAP         0x002390
#define PFIFO_BIND_ERROR        0x00252c
#define PFIFO_SCHED_ERROR       0x00254c
#define   SCHED_ERROR_CTXSW_TIMEOUT 0x0a
#define PFIFO_CHSW_ERROR        0x00256c
#define PFIFO_FAULT_UNITS       0x00259c
#define PFIFO_PBDMA_INTR        0x0025a0
#define PFIFO_ERROR_SCHED       0x00262c    /* runlists that an error stopped */
#define PFIFO_SCHED_DISABLE     0x002630
#define PFIFO_PREEMPT           0x002634
#define PFIFO_ENGINE_STATUS     0x002640    /* stride 8 */
#define   ENGINE_STATUS_LOAD      (1u << 13)
#define   ENGINE_STATUS_CTXSW     (1u << 15) /* in progress */
#define   ENGINE_STATUS_NEXT(id)  ((uint32_t)(id) << 16)
#define   ENGINE_STATUS_NEXT_TSG  (1u << 28)
#define   ENGINE_STATUS_BUSY      (1u << 31)
#define PFIFO_FAULT_INST        0x002800    /* stride 16 */
#define PFIFO_FAULT_LO          0x002804
#define PFIFO_FAULT_HI          0x002808
#define PFIFO_FAULT_INFO        0x00280c
#define PFIFO_RUNLIST_INTR      0x002a00
#define PFIFO_ENGINE_INTR_EN    0x002a04
#define PFIFO_FAULT_TRIGGER     0x002a30
#define   FAULT_TRIGGER_UNIT      0x0000001f
#define   FAULT_TRIGGER_ENABLE    (1u << 8)
#define PFIFO_FAULT_BUF_LO      0x002a70
#define PFIFO_FAULT_BUF_HI      0x002a74
#define PFIFO_FAULT_BUF_SIZE    0x002a78
#define PFIFO_FAULT_BUF_GET     0x002a7c
#define PFIFO_FAULT_BUF_PUT     0x002a80
#define PFIFO_PBDMA_STATUS      0x003080

/* PTIMER */
#define PTIMER_INTR             0x009100
#define PTIMER_INTR_EN          0x009140
#define PTIMER_NUMERATOR        0x009200
#define PTIMER_DENOMINATOR      0x009210
#define PTIMER_TIME_0           0x009400
#define PTIMER_TIME_1           0x009410
#define PTIMER_ALARM_0          0x009420

/* Fuses and floor sweeping */
#define FUSE_FBPA_DISABLE       0x021c14
#define FUSE_CE_DISABLE         0x021c00
#define FUSE_DISPLAY_DISABLE    0x021c04
#define FUSE_FBP_DISABLE        0x021d38
#define FUSE_LTC_DISABLE        0x021d70
#define PTOP_FBP_NUM            0x022438
#define PTOP_LTC_PER_FBP        0x022450
#define PTOP_FBPA_PER_FBP       0x022458
#define PTOP_DEVINIT_STATUS     0x02240c
#define   DEVINIT_DONE            (1u << 1)
#define PTOP_DEVICE_INFO        0x022700
#define   PTOP_DEVICE_INFO_NUM    64

/* PBDMA, one on GP100 as modelled */
#define PBDMA_METHOD0           0x0400c0
#define PBDMA_DATA0             0x0400c4
#define PBDMA_INTR_0            0x040108
#define   PBDMA_INTR_0_GPPTR      (1u << 14)
#define   PBDMA_INTR_0_PBENTRY    (1u << 18)
#define   PBDMA_INTR_0_METHOD     (1u << 21)
#define   PBDMA_INTR_0_DEVICE     (1u << 23)
#define   PBDMA_INTR_0_SEMAPHORE  (1u << 25)
#define PBDMA_INTR_EN_0         0x04010c
#define PBDMA_CHANNEL           0x040120
#define PBDMA_ACQUIRE           0x04012c
#define PBDMA_CONTROL           0x04013c
#define PBDMA_INTR_1            0x040148
#define PBDMA_INTR_EN_1         0x04014c

/* PFB, hub MMU, LTC */
#define BAR_FLUSH               0x070000
#define LTC_FLUSH               0x070004
#define LTC_INVALIDATE          0x070010
#define FB_FLUSH_PAGE           0x100c10
#define MMU_CTRL                0x100c80
#define   MMU_CTRL_FREE_SLOTS     0x00ff0000
#define   MMU_CTRL_FLUSH_IDLE     0x00008000
#define MMU_INVALIDATE_PDB      0x100cb8
#define MMU_INVALIDATE          0x100cbc
#define   MMU_INVALIDATE_ALL_PDB  (1u << 1)
#define   MMU_INVALIDATE_REPLAY(v) extract32(v, 3, 3)
#define     REPLAY_START            1
#define     REPLAY_START_ACK_ALL    2
#define     REPLAY_CANCEL_TARGETED  3
#define     REPLAY_CANCEL_GLOBAL    4
#define   MMU_INVALIDATE_CLIENT(v) extract32(v, 9, 6)
#define   MMU_INVALIDATE_GPC(v)   extract32(v, 15, 5)
#define   MMU_INVALIDATE_HUB      (1u << 20)
#define   MMU_INVALIDATE_TRIGGER  (1u << 31)
#define MMU_INVALIDATE_PDB_HI   0x100cec
#define STRAP                   0x101000
#define LTC_NUM                 0x12006c
#define LTC_LTS_NUM             0x17e280
#define FBPA0_MEM_MIB           0x90020c

/* Windows of BAR0 that are not registers */
#define PROM_BASE               0x300000
#define PROM_SIZE               0x100000
#define PRAMIN_BASE             0x700000
#define PRAMIN_SIZE             0x100000

/* PCI configuration space as seen in BAR0 */
#define XVE_ROM_SHADOW          0x088050
#define XVE_MSI_REARM           0x088704

/* Copy engine 0 */
#define CE_INTR_EN              0x10440c
#define CE_INTR                 0x104410
#define   CE_INTR_BLOCKPIPE       (1u << 0)
#define   CE_INTR_NONBLOCKPIPE    (1u << 1)
#define   CE_INTR_LAUNCHERR       (1u << 2)
#define CE_LAUNCHERR            0x104418

/* Channel control and status RAM, stride 8 */
#define CCSR_INST               0x800000
#define   CCSR_INST_BIND          (1u << 31)
#define   CCSR_INST_PTR           0x0fffffff
#define CCSR_CHANNEL            0x800004
#define   CCSR_ENABLED            (1u << 0)
#define   CCSR_ENABLE_SET         (1u << 10)
#define   CCSR_ENABLE_CLR         (1u << 11)
#define   CCSR_RUNLIST            0x000f0000

#endif
