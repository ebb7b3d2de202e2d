/*
 * A tiny driver of the GP100 GPU for qtests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Page tables, instance blocks and pushbuffers are made by hand, in VRAM's
 * first MiB; all channels share one address space, which is also BAR1's.
 */
#ifndef TESTS_QTEST_GP100_DRIVER_H
#define TESTS_QTEST_GP100_DRIVER_H

#include "qemu/units.h"
#include "libqtest.h"
#include "../../hw/misc/gp100/regs.h"

#define GPU_VENDOR      0x10de
#define GPU_DEVICE      0x15f8

/* What is where in VRAM; for channels, that of channel 0 */
#define V_INST          0x010000        /* 0x1000 bytes */
#define V_PD3           0x020000
#define V_PD2           0x021000
#define V_PD1           0x022000
#define V_PD0           0x023000
#define V_SPT           0x024000
#define V_LPT           0x025000
#define V_RUNLIST       0x026000        /* two entries */
#define V_USERD         0x028000        /* 0x200 bytes */
#define V_GPFIFO        0x030000        /* 0x100 bytes */
#define V_PUSH          0x031000        /* 0x400 bytes */
#define V_SEM           0x032000
#define V_DATA          0x400000

/* The virtual addresses at which they appear */
#define VA_LOW          0x000000        /* 2 MiB, the first large page */
#define VA_SMALL        0x200000        /* small and big pages */
#define VA_LARGE        0x400000        /* large pages from here */

#define SPACE_SIZE      (64 * MiB)
#define GPU_CHANNELS    4               /* at most; ids from 0 */
#define GP_ENTRIES      16
#define GROUP(chid)     (8 + (chid))    /* of channels; each has its own */

/* Page table entries */
#define PDE(addr)       ((addr) >> 4 | 1 << 1)          /* table in VRAM */
#define PDE_SYS(addr)   ((addr) >> 4 | 2 << 1)          /* in system memory */
#define PTE(addr)       ((addr) >> 4 | 1)               /* page in VRAM */
#define PTE_SYS(addr)   ((addr) >> 4 | 2 << 1 | 1)
#define PTE_RO          (1 << 6)
#define PTE_SPARSE      (1 << 3)
#define PTE_NO_SMALL    (1 << 5)

/* Method headers */
#define INC(subch, mthd, n)     (1u << 29 | (n) << 16 | (subch) << 13 | \
                                 (mthd) >> 2)
#define IMM(subch, mthd, data)  (4u << 29 | (data) << 16 | (subch) << 13 | \
                                 (mthd) >> 2)
#define CE_SUBCH        4
#define CE_CLASS        0xc0b5

/* LAUNCH_DMA */
#define L_COPY          (2 | 1 << 2 | 1 << 7 | 1 << 8)
#define L_MULTI         (1 << 9)
#define L_REMAP         (1 << 10)
#define L_SRC_PHYS      (1 << 12)
#define L_DST_PHYS      (1 << 13)

/*
 * A GPU.  @vram is a mapping of VRAM's memory; if it is NULL, VRAM is reached
 * through PRAMIN, and no access may cross a MiB.
 */
typedef struct Gpu {
    QTestState *qts;
    uint64_t bar0;
    uint64_t bar1;
    uint8_t *vram;
    char *path;                 /* of VRAM's memory, for who made it */
    uint16_t bdf;               /* whose configuration space cfg_...() reach */
} Gpu;

/* What is to be submitted to channel @chid next; push_init() comes first. */
typedef struct Push {
    unsigned chid;
    uint64_t at;                /* where it goes in VRAM */
    unsigned words;
    uint32_t word[256];
} Push;

/* Registers */
uint32_t rd(Gpu *g, uint32_t reg);
void wr(Gpu *g, uint32_t reg, uint32_t val);

/* VRAM, little-endian */
void v_write(Gpu *g, uint64_t addr, const void *buf, size_t len);
void v_zero(Gpu *g, uint64_t addr, size_t len);
uint32_t v_ldl(Gpu *g, uint64_t addr);
void v_stl(Gpu *g, uint64_t addr, uint32_t val);
void v_stq(Gpu *g, uint64_t addr, uint64_t val);

/* Page table entry @i of the tables at V_PD0, V_SPT and V_LPT */
void set_large(Gpu *g, unsigned i, uint64_t pte);
void set_small(Gpu *g, unsigned i, uint64_t pte);
void set_big(Gpu *g, unsigned i, uint64_t pte);
void invalidate(Gpu *g, uint64_t pdb);
/* The address space: page 0 is VRAM 0, then tables at VA_SMALL. */
void make_space(Gpu *g);
void bind_bar1(Gpu *g);

/*
 * Set channel @chid up anew, bind and enable it, and put it on the runlist
 * behind those with smaller ids.  make_space() and bind_bar1() come first.
 */
void channel_init(Gpu *g, unsigned chid);
void push_init(Push *p, unsigned chid);
void push(Push *p, uint32_t word);
void push_sem(Push *p, uint64_t va, uint32_t payload, uint32_t op);
void push_copy(Push *p, uint64_t src, uint64_t dst, uint32_t pitch_in,
               uint32_t pitch_out, uint32_t length, uint32_t count,
               uint32_t launch);
/* Make the channel's next GP entry of what was pushed.  The GP_PUT for it. */
unsigned push_entry(Gpu *g, Push *p);
/* Write GP_PUT through BAR1, as a driver does: the write is the doorbell. */
void set_put(Gpu *g, unsigned chid, uint32_t put);
/* Both: submit what was pushed. */
void kick(Gpu *g, Push *p);

#endif
