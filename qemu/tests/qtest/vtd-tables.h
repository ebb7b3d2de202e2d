/*
 * Second-level page tables and the invalidation queue of intel-iommu, for
 * qtests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Intel Virtualization Technology for Directed I/O, revision 3.4, legacy mode:
 * one domain, 3-level tables (39 bits), 4 KiB pages.
 */

#ifndef TESTS_QTEST_VTD_TABLES_H
#define TESTS_QTEST_VTD_TABLES_H

#include "libqtest.h"

#define VTD_PAGE_SIZE   0x1000

#define VTD_READ        1
#define VTD_WRITE       2

typedef struct VtdTables {
    QTestState *qts;
    uint64_t next_page;     /* RAM for tables, taken page by page */
    uint64_t root;
    uint64_t top;
    uint64_t queue;
    unsigned tail;
} VtdTables;

/**
 * vtd_init: make empty tables
 * @v: filled in
 * @qts: a q35 machine with an intel-iommu
 * @ram: guest RAM to use, page aligned; a test needs less than 1 MiB
 */
void vtd_init(VtdTables *v, QTestState *qts, uint64_t ram);

/**
 * vtd_attach: let the tables translate for a function
 * @ats: allow translation requests (the IOMMU needs device-iotlb=on)
 */
void vtd_attach(VtdTables *v, uint16_t bdf, bool ats);

/** vtd_enable: translation on; everything that is not mapped faults */
void vtd_enable(VtdTables *v);

/**
 * vtd_map: map @size bytes, page aligned; @perm is 0 (unmap), VTD_READ and/or
 * VTD_WRITE.  Changing or removing a mapping needs vtd_flush_iotlb().
 */
void vtd_map(VtdTables *v, uint64_t iova, uint64_t addr, uint64_t size,
             unsigned perm);

/** vtd_flush_iotlb: invalidate what the IOMMU itself has cached */
void vtd_flush_iotlb(VtdTables *v);

/**
 * vtd_flush_dev_iotlb: send an invalidation request to a function
 * @iova: page aligned
 * @pages: a power of two
 */
void vtd_flush_dev_iotlb(VtdTables *v, uint16_t bdf, uint64_t iova,
                         uint64_t pages);

#endif
