/*
 * PCI Express hierarchies of the q35 machine for qtests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Does what a guest's firmware and PCI core do: opens the ECAM window, numbers
 * the buses, gives addresses to BARs and bridge windows.  Unlike libqos it sees
 * functions below switches and extended configuration space.
 */

#ifndef TESTS_QTEST_PCIE_TOPOLOGY_H
#define TESTS_QTEST_PCIE_TOPOLOGY_H

#include "libqtest.h"

/* For the machine: ports plug and unplug by their registers, not by ACPI */
#define NATIVE_HOTPLUG \
    "-global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off "

#define PCIE_MAX_FUNCTIONS  32
#define PCIE_BARS           6

typedef struct PcieFunction {
    uint16_t bdf;               /* bus << 8 | devfn, the requester ID */
    uint16_t vendor;
    uint16_t device;
    bool bridge;
    uint64_t bar[PCIE_BARS];    /* bus address; upper half of a pair: 0 */
    uint64_t bar_size[PCIE_BARS];
} PcieFunction;

typedef struct PcieTopology {
    QTestState *qts;
    PcieFunction fn[PCIE_MAX_FUNCTIONS];
    unsigned count;
    uint64_t next_mem32;
    uint64_t next_mem64;
    uint8_t last_bus;
} PcieTopology;

/**
 * pcie_topology_init: enumerate everything and switch on memory decoding and
 * bus mastering
 * @t: filled in, functions in the order in which they are found (depth first)
 * @qts: a q35 machine
 *
 * Functions on bus 0 get addresses only if they are bridges or if their vendor
 * and device match nothing of the chipset (class code host bridge, ISA, SATA,
 * SMBus are left alone).  Aborts the test when something does not fit.
 */
void pcie_topology_init(PcieTopology *t, QTestState *qts);

/** pcie_find: the @nth function (from 0) with this ID; aborts without one */
PcieFunction *pcie_find(PcieTopology *t, uint16_t vendor, uint16_t device,
                        unsigned nth);

/* Configuration space; @offset up to 4095 */
uint8_t pcie_readb(PcieTopology *t, uint16_t bdf, unsigned offset);
uint16_t pcie_readw(PcieTopology *t, uint16_t bdf, unsigned offset);
uint32_t pcie_readl(PcieTopology *t, uint16_t bdf, unsigned offset);
void pcie_writeb(PcieTopology *t, uint16_t bdf, unsigned offset, uint8_t val);
void pcie_writew(PcieTopology *t, uint16_t bdf, unsigned offset, uint16_t val);
void pcie_writel(PcieTopology *t, uint16_t bdf, unsigned offset, uint32_t val);

/** pcie_cap: offset of a capability, 0 if there is none */
unsigned pcie_cap(PcieTopology *t, uint16_t bdf, uint8_t id);

/** pcie_ext_cap: offset of an extended capability, 0 if there is none */
unsigned pcie_ext_cap(PcieTopology *t, uint16_t bdf, uint16_t id);

/** qom_uint: value of an integer property of a device given by its id */
uint64_t qom_uint(QTestState *qts, const char *id, const char *property);

/** qom_set_uint: set an integer property of a device given by its id */
void qom_set_uint(QTestState *qts, const char *id, const char *property,
                  uint64_t value);

/**
 * expect_refusal: have a device not be added
 * @text: what the error mentions
 * @args: of device_add, as JSON
 */
void expect_refusal(QTestState *qts, const char *text, const char *args);

#endif
