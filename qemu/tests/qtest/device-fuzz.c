/*
 * Random use of device models
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * One test per machine of the table below.  It does random things to the
 * machine's devices: register accesses, writes to the memory that they read,
 * configuration, the passing of time, and what the device's own file
 * (device-fuzz-*.c) knows about how it is used.  A finding is a QEMU that
 * ends, or does not answer; with --enable-asan also what ASan finds.
 *
 * Environment: FUZZ_SECONDS (of each test, default 5), FUZZ_SEED (default 1),
 * FUZZ_ROUND (do only this round: what a finding says is all it takes to see
 * it again).
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/host-utils.h"
#include "hw/pci/pci_regs.h"
#include "qobject/qdict.h"
#include "device-fuzz.h"

enum {
    STEPS = 3000,               /* of a round, which begins with a reset */
    MIN_SECONDS = 5,
    HANG_SECONDS = 120,         /* that one step may take */
    MAX_CLOCK_NS = 100 * 1000 * 1000,
};

static const uint32_t p2pdev_ids[] = { 0x1af4u << 16 | 0x10f2, 0 };

/* Rows without a file of their own know only that the device has BARs. */
static const FuzzDevice *const devices[] = {
    &fuzz_mlx5,
    &fuzz_mlx5_iommu,
    &fuzz_gp100,
    &(const FuzzDevice) {
        .name = "p2pdev",
        .options = "-machine q35 -m 256 -nodefaults "
                   "-device p2pdev,size=16M,addr=4.0 -device p2pdev,addr=5.0",
        .ids = p2pdev_ids,
        .memory = { { 0x1000000, 0x10000 } },
    },
};

/* Where it is, for the message about a finding. */
static struct {
    const char *device;
    uint64_t seed;
    uint64_t round;
    uint64_t step;
} at;

/* ------------------------------------------------------------------ */
/* Random numbers */

/* splitmix64: every state is a good one. */
uint64_t fuzz_bits(Fuzz *f)
{
    uint64_t z = f->rng += 0x9e3779b97f4a7c15ull;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

uint64_t fuzz_below(Fuzz *f, uint64_t n)
{
    return fuzz_bits(f) % n;
}

bool fuzz_chance(Fuzz *f, unsigned percent)
{
    return fuzz_below(f, 100) < percent;
}

uint64_t fuzz_value(Fuzz *f, unsigned bits)
{
    uint64_t mask = bits < 64 ? (1ull << bits) - 1 : UINT64_MAX;
    uint64_t value = fuzz_bits(f);

    switch (fuzz_below(f, 6)) {
    case 0:
        value = fuzz_below(f, 4);
        break;
    case 1:
        value = -1 - fuzz_below(f, 3);
        break;
    case 2:
        value = (1ull << fuzz_below(f, bits)) - 1 + fuzz_below(f, 3);
        break;
    case 3:
        value >>= fuzz_below(f, 64);
        break;
    }
    return value & mask;
}

static const PcieFunction *random_function(Fuzz *f)
{
    const PcieTopology *t = &f->topology;
    unsigned first = fuzz_below(f, t->count);

    for (unsigned i = 0; i < t->count; i++) {
        const PcieFunction *fn = &t->fn[(first + i) % t->count];

        for (const uint32_t *id = f->device->ids; *id; id++) {
            if (*id == ((uint32_t)fn->vendor << 16 | fn->device)) {
                return fn;
            }
        }
    }
    g_error("%s has none of its functions", f->device->name);
}

/* Most registers are in the first pages, some at the end. */
static uint64_t random_register(Fuzz *f, uint64_t *size)
{
    const PcieFunction *fn = random_function(f);
    unsigned bar = fuzz_below(f, PCIE_BARS);

    while (!fn->bar_size[bar]) {
        bar = (bar + 1) % PCIE_BARS;
    }
    *size = fn->bar_size[bar];
    return fn->bar[bar] + fuzz_value(f, ctz64(*size));
}

static uint64_t random_memory(Fuzz *f)
{
    unsigned count = 0;

    while (count < ARRAY_SIZE(f->device->memory) &&
           f->device->memory[count].size) {
        count++;
    }
    count = fuzz_below(f, count);
    return f->device->memory[count].start +
           fuzz_below(f, f->device->memory[count].size);
}

uint64_t fuzz_address(Fuzz *f)
{
    uint64_t size;

    switch (fuzz_below(f, 10)) {
    case 0:
        return fuzz_value(f, 64);
    case 1:
        return fuzz_value(f, 32);
    case 2:
        return random_register(f, &size);
    default:
        return random_memory(f) & ~(fuzz_chance(f, 80) ? 7ull : 0);
    }
}

/* ------------------------------------------------------------------ */
/* What can be done to any device */

static void step_register(Fuzz *f)
{
    uint64_t size;
    uint64_t addr = random_register(f, &size);
    unsigned shift = fuzz_below(f, 4);
    uint64_t value = fuzz_chance(f, 20) ? fuzz_address(f) : fuzz_value(f, 64);

    if (fuzz_chance(f, 90)) {
        addr &= ~((1ull << shift) - 1);
    }
    if (fuzz_chance(f, 40)) {
        switch (shift) {
        case 0:
            qtest_readb(f->qts, addr);
            break;
        case 1:
            qtest_readw(f->qts, addr);
            break;
        case 2:
            qtest_readl(f->qts, addr);
            break;
        default:
            qtest_readq(f->qts, addr);
            break;
        }
        return;
    }
    switch (shift) {
    case 0:
        qtest_writeb(f->qts, addr, value);
        break;
    case 1:
        qtest_writew(f->qts, addr, value);
        break;
    case 2:
        qtest_writel(f->qts, addr, value);
        break;
    default:
        qtest_writeq(f->qts, addr, value);
        break;
    }
}

static void step_memory(Fuzz *f)
{
    unsigned size = 1 << fuzz_below(f, 4);
    uint8_t bytes[8];

    stq_be_p(bytes, fuzz_chance(f, 30) ? fuzz_address(f) : fuzz_value(f, 64));
    qtest_memwrite(f->qts, random_memory(f) & ~(size - 1ull),
                   bytes + 8 - size, size);
}

/* Turn something off or on again, or write anything anywhere. */
static void step_config(Fuzz *f)
{
    const PcieFunction *fn = random_function(f);
    PcieTopology *t = &f->topology;
    unsigned offset;

    switch (fuzz_below(f, 4)) {
    case 0:
        pcie_writew(t, fn->bdf, PCI_COMMAND, fuzz_value(f, 16));
        break;
    case 1:
        offset = pcie_ext_cap(t, fn->bdf, PCI_EXT_CAP_ID_ATS);
        if (offset) {
            pcie_writew(t, fn->bdf, offset + PCI_ATS_CTRL, fuzz_value(f, 16));
        }
        break;
    case 2:
        offset = pcie_cap(t, fn->bdf, PCI_CAP_ID_PM);
        if (offset) {
            pcie_writew(t, fn->bdf, offset + PCI_PM_CTRL, fuzz_value(f, 2));
        }
        break;
    default:
        offset = fuzz_value(f, 12) & ~3;
        /* The BARs stay, or there is nothing to fuzz. */
        if (offset < PCI_BASE_ADDRESS_0 || offset > PCI_BASE_ADDRESS_5) {
            pcie_writel(t, fn->bdf, offset, fuzz_value(f, 32));
        }
        break;
    }
    if (fuzz_chance(f, 70)) {
        offset = pcie_cap(t, fn->bdf, PCI_CAP_ID_PM);
        if (offset) {
            pcie_writew(t, fn->bdf, offset + PCI_PM_CTRL, 0);
        }
        pcie_writew(t, fn->bdf, PCI_COMMAND,
                    PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    }
}

static void step(Fuzz *f)
{
    unsigned what = fuzz_below(f, 1000);

    if (what < 10) {
        step_config(f);
    } else if (what < 40) {
        qtest_clock_step(f->qts, 1 + fuzz_value(f, 32) % MAX_CLOCK_NS);
    } else if (what < 120) {
        step_memory(f);
    } else if (what < 200 || !f->device->step) {
        step_register(f);
    } else {
        f->device->step(f, f->state);
    }
}

/* ------------------------------------------------------------------ */
/* Rounds */

/* Sum the "NAME=GOOD/BAD" of a device up, and say what never happened. */
static void report_counts(Fuzz *f, const char *which)
{
    g_auto(GStrv) names = g_strsplit(which, ".", 2);
    g_autofree char *path = g_strdup_printf("/machine/peripheral/%s",
                                            names[0]);
    g_autoptr(GString) good = g_string_new(NULL);
    g_autoptr(GString) bad_only = g_string_new(NULL);
    g_autoptr(GString) never = g_string_new(NULL);
    QDict *rsp = qtest_qmp(f->qts, "{ 'execute': 'qom-get', 'arguments': "
                           "{ 'path': %s, 'property': %s } }", path,
                           names[1]);
    g_auto(GStrv) words = g_strsplit(qdict_get_str(rsp, "return"), " ", 0);

    for (char **word = words; *word; word++) {
        g_auto(GStrv) parts = g_strsplit_set(*word, "=/", 3);

        g_string_append_printf(strcmp(parts[1], "0") ? good :
                               strcmp(parts[2], "0") ? bad_only : never,
                               " %s", *word);
    }
    g_test_message("%s %s good:%s", at.device, which, good->str);
    g_test_message("%s %s only bad:%s", at.device, which, bad_only->str);
    g_test_message("%s %s never:%s", at.device, which, never->str);
    qobject_unref(rsp);
}

static void say_where(void *opaque)
{
    fprintf(stderr, "finding: FUZZ_SEED=%" PRIu64 " FUZZ_ROUND=%" PRIu64
            " %s, step %" PRIu64 "\n", at.seed, at.round, at.device, at.step);
}

static void hung(int signo)
{
    say_where(NULL);
    fprintf(stderr, "QEMU did not answer for %d s\n", HANG_SECONDS);
    abort();
}

static uint64_t environment(const char *name, uint64_t value)
{
    const char *text = g_getenv(name);

    return text ? g_ascii_strtoull(text, NULL, 0) : value;
}

static void fuzz(const void *opaque)
{
    const FuzzDevice *device = opaque;
    const char *only = g_getenv("FUZZ_ROUND");
    gint64 begin = g_get_monotonic_time();
    gint64 end = begin + G_USEC_PER_SEC * environment("FUZZ_SECONDS",
                                                      MIN_SECONDS);
    const struct sigaction action = { .sa_handler = hung };
    Fuzz f = { .device = device };
    uint64_t executions = 0;

    at.device = device->name;
    at.seed = environment("FUZZ_SEED", 1);
    at.round = environment("FUZZ_ROUND", 0);
    f.qts = qtest_init(device->options);
    qtest_add_abrt_handler(say_where, NULL);
    sigaction(SIGALRM, &action, NULL);
    do {
        f.rng = at.seed;
        f.rng = fuzz_bits(&f) + at.round;
        at.step = 0;
        alarm(HANG_SECONDS);
        qtest_system_reset(f.qts);
        for (unsigned i = 0; i < ARRAY_SIZE(device->memory); i++) {
            if (device->memory[i].size) {
                qtest_memset(f.qts, device->memory[i].start, 0,
                             device->memory[i].size);
            }
        }
        pcie_topology_init(&f.topology, f.qts);
        f.state = device->start ? device->start(&f) : NULL;
        for (at.step = 1; at.step <= STEPS; at.step++) {
            alarm(HANG_SECONDS);
            step(&f);
            if (!only && g_get_monotonic_time() >= end) {
                break;
            }
        }
        executions += MIN(at.step, STEPS);
        if (device->stop) {
            device->stop(f.state);
        }
        at.round++;
    } while (!only && g_get_monotonic_time() < end);
    alarm(0);

    g_test_message("%s executions: %" PRIu64 " in %" PRIu64 " rounds and %d s, "
                   "FUZZ_SEED=%" PRIu64, device->name, executions, at.round,
                   (int)((g_get_monotonic_time() - begin) / G_USEC_PER_SEC),
                   at.seed);
    for (const char *const *c = device->counts; c && *c; c++) {
        report_counts(&f, *c);
    }
    qtest_remove_abrt_handler(NULL);
    qtest_quit(f.qts);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < ARRAY_SIZE(devices); i++) {
        g_autofree char *path = g_strdup_printf("/fuzz/%s", devices[i]->name);

        qtest_add_data_func(path, devices[i], fuzz);
    }
    return g_test_run();
}
