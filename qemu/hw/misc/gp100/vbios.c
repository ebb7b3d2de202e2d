/*
 * GP100: the video BIOS image in the PROM.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Nothing executes it.  It is the smallest set of tables that a driver needs
 * to accept the board: a PCI expansion ROM header, the BIT directory, and
 * the tables that BIT points to.  What requires each of them, in nouveau:
 *
 *  'i'  version string         nouveau_bios.c, parse_bit_i_tbl_entry()
 *  'I'  init script tables     devinit/gm200.c, gm200_devinit_post()
 *  'P'  performance: rammap    fb/ramgp100.c, gp100_ram_init()
 *  'p'  PMU applications       devinit/gm200.c, pmu_load()
 *  'M'  memory type            subdev/bios/M0203.c
 *  DCB  display outputs, none  subdev/bios/dcb.c
 */

#include "qemu/osdep.h"
#include "gp100.h"

/* Where things are in the image. */
enum {
    AT_PCIR     = 0x040,
    AT_BIT      = 0x080,
    AT_BIT_i    = 0x100,
    AT_BIT_I    = 0x120,
    AT_BIT_P    = 0x140,    /* drivers read 0x60 bytes, whatever its length */
    AT_BIT_p    = 0x1a0,
    AT_BIT_M    = 0x1a8,
    AT_RAMMAP   = 0x1c0,
    AT_PMU      = 0x1e0,
    AT_DCB      = 0x200,
    AT_M0203    = 0x230,
    AT_PMU_APP  = 0x400,
};

#define BIT_ENTRY(n, id, version, len, at)      \
    { AT_BIT + 12 + 6 * (n), 1, id },           \
    { AT_BIT + 13 + 6 * (n), 1, version },      \
    { AT_BIT + 14 + 6 * (n), 2, len },          \
    { AT_BIT + 16 + 6 * (n), 2, at }

static const struct {
    uint16_t at;
    uint8_t size;
    uint32_t val;
} image[] = {
    /* PCI expansion ROM header */
    { 0x000, 2, 0xaa55 },
    { 0x002, 1, GP100_VBIOS_SIZE / 512 },
    { 0x003, 1, 0xcb },                     /* retf */
    { 0x018, 2, AT_PCIR },
    { 0x036, 2, AT_DCB },

    { AT_PCIR + 0x00, 4, 0x52494350 },      /* "PCIR" */
    { AT_PCIR + 0x0a, 2, 0x18 },            /* length of this structure */
    { AT_PCIR + 0x0d, 3, 0x030200 },        /* class: 3D controller */
    { AT_PCIR + 0x10, 2, GP100_VBIOS_SIZE / 512 },
    { AT_PCIR + 0x14, 1, 0x00 },            /* x86 code */
    { AT_PCIR + 0x15, 1, 0x80 },            /* last image */

    /* BIT header and directory */
    { AT_BIT + 0x00, 4, 0x4942b8ff },       /* ff b8 "BI" */
    { AT_BIT + 0x04, 2, 0x0054 },           /* "T" 00 */
    { AT_BIT + 0x06, 2, 0x0100 },           /* version 1.00 */
    { AT_BIT + 0x08, 1, 12 },               /* header size */
    { AT_BIT + 0x09, 1, 6 },                /* entry size */
    { AT_BIT + 0x0a, 1, 5 },                /* entries */
    BIT_ENTRY(0, 'i', 2, 0x10, AT_BIT_i),
    BIT_ENTRY(1, 'I', 1, 0x1c, AT_BIT_I),
    BIT_ENTRY(2, 'P', 2, 0x18, AT_BIT_P),
    BIT_ENTRY(3, 'p', 2, 0x04, AT_BIT_p),
    BIT_ENTRY(4, 'M', 2, 0x05, AT_BIT_M),

    /* 'i': version 86.00.00.00.01, least significant part first */
    { AT_BIT_i + 0x03, 1, 0x86 },
    { AT_BIT_i + 0x04, 1, 0x01 },

    /* 'P', 'p', 'M': pointers to the tables below */
    { AT_BIT_P + 0x04, 4, AT_RAMMAP },
    { AT_BIT_p + 0x00, 4, AT_PMU },
    { AT_BIT_M + 0x03, 2, AT_M0203 },

    /* rammap: a header without entries */
    { AT_RAMMAP + 0x00, 1, 0x11 },
    { AT_RAMMAP + 0x01, 1, 0x15 },

    /* PMU applications: one, of type "devinit", that is empty */
    { AT_PMU + 0x00, 4, 0x01060401 },       /* version, header, entry, count */
    { AT_PMU + 0x04, 1, 0x04 },
    { AT_PMU + 0x06, 4, AT_PMU_APP },

    /* DCB 4.1 without outputs */
    { AT_DCB + 0x00, 4, 0x08001a41 },       /* version, header, count, entry */
    { AT_DCB + 0x06, 4, 0x4edcbdcb },

    /* Memory type by strap: strap 0 is HBM2 */
    { AT_M0203 + 0x00, 4, 0x01020710 },
    { AT_M0203 + 0x07, 1, 0x06 },
};

void gp100_vbios_build(uint8_t rom[GP100_VBIOS_SIZE], uint16_t vendor,
                       uint16_t device)
{
    uint8_t sum = 0;

    memset(rom, 0, GP100_VBIOS_SIZE);
    for (unsigned i = 0; i < ARRAY_SIZE(image); i++) {
        for (unsigned b = 0; b < image[i].size; b++) {
            rom[image[i].at + b] = image[i].val >> (8 * b);
        }
    }
    stw_le_p(rom + AT_PCIR + 4, vendor);
    stw_le_p(rom + AT_PCIR + 6, device);

    for (unsigned i = 0; i < GP100_VBIOS_SIZE - 1; i++) {
        sum += rom[i];
    }
    rom[GP100_VBIOS_SIZE - 1] = -sum;
}
