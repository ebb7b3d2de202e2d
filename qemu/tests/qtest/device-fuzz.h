/*
 * Random use of device models: what devices tell the fuzzer about themselves
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TESTS_QTEST_DEVICE_FUZZ_H
#define TESTS_QTEST_DEVICE_FUZZ_H

#include "libqtest.h"
#include "pcie-topology.h"

typedef struct Fuzz {
    QTestState *qts;
    PcieTopology topology;
    uint64_t rng;               /* state of the random numbers */
    const struct FuzzDevice *device;
    void *state;                /* what the device's start returned */
} Fuzz;

/**
 * FuzzDevice: a machine with devices to fuzz
 *
 * @name: of the test, /fuzz/NAME
 * @options: of QEMU, the machine included
 * @ids: PCI functions to fuzz, as vendor << 16 | device, ended by 0
 * @memory: guest memory that the devices read descriptors from; random bytes
 *     are written there
 * @counts: string properties "NAME=GOOD/BAD ..." of QEMU devices, as
 *     "ID.PROPERTY", ended by NULL: what the devices did, of all they can do.
 *     May be NULL.
 * @start: called after each reset, with functions enumerated and enabled:
 *     bring the devices into a state where much can happen.  Returns what the
 *     others get.  May be NULL.
 * @step: do one thing that a driver would do, with random errors.  Must not
 *     wait for a device that does not answer.  May be NULL.
 * @stop: free what @start returned
 */
typedef struct FuzzDevice {
    const char *name;
    const char *options;
    const uint32_t *ids;
    struct {
        uint64_t start;
        uint64_t size;
    } memory[4];
    const char *const *counts;
    void *(*start)(Fuzz *f);
    void (*step)(Fuzz *f, void *state);
    void (*stop)(void *state);
} FuzzDevice;

/* 64 random bits; all that is random comes from here. */
uint64_t fuzz_bits(Fuzz *f);
/* Below @n, which is not 0. */
uint64_t fuzz_below(Fuzz *f, uint64_t n);
/* True in @percent of 100 cases. */
bool fuzz_chance(Fuzz *f, unsigned percent);
/* A number of @bits bits, often one at which things break. */
uint64_t fuzz_value(Fuzz *f, unsigned bits);
/* An address: of the devices' memory, of a BAR, or anything. */
uint64_t fuzz_address(Fuzz *f);

extern const FuzzDevice fuzz_gp100, fuzz_mlx5, fuzz_mlx5_iommu;

#endif
