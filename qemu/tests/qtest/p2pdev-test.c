/*
 * QTest testcase for p2pdev and the P2P DMA unit
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include "qemu/cutils.h"
#include "qemu/units.h"
#include "hw/pci/pci_regs.h"
#include "qobject/qdict.h"
#include "libqtest.h"
#include "pcie-topology.h"
#include "vtd-tables.h"
#include "../../hw/misc/p2pdev/p2pdev_regs.h"

/* Guest RAM: 256 MiB */
#define TABLES      0x1000000
#define BUF_A       0x2000000
#define BUF_B       0x4000000
#define MSI_TARGET  0x6000000
#define RAM_END     0x10000000
#define NOWHERE     0x700000000ULL  /* below the 64-bit BARs */
#define ECAM        0xb0000000ULL
#define IOAPIC_INDEX    0xfec00000ULL
#define IOAPIC_DATA     0xfec00010ULL
#define IOVA        0x100000ULL

#define Q35         "-machine q35 -m 256 -nodefaults "
#define VTD         "-device intel-iommu,intremap=off,device-iotlb=on "
#define SWITCH      "-device pcie-root-port,id=rp,chassis=1,addr=2.0 " \
                    "-device x3130-upstream,id=up,bus=rp " \
                    "-device xio3130-downstream,id=d0,bus=up,chassis=2 " \
                    "-device xio3130-downstream,id=d1,bus=up,chassis=3 "
#define PORTS       "-device pcie-root-port,id=d0,chassis=1,addr=2.0 " \
                    "-device pcie-root-port,id=d1,chassis=2,addr=3.0 "
#define DEV0(opt)   "-device p2pdev,id=dev0,bus=d0" opt " "
#define DEV1(opt)   "-device p2pdev,id=dev1,bus=d1" opt " "
#define TWO         DEV0() DEV1()

/* Vendor and device */
#define ROOT_PORT       0x1b36, 0x000c
#define XIO3130_PORT    0x104c, 0x8233

#define CTRL(dst, src) \
    (P2PDEV_SPACE_##dst << P2PDEV_CTRL_DST_SHIFT | \
     P2PDEV_SPACE_##src << P2PDEV_CTRL_SRC_SHIFT)
#define ATOMIC(op, dst) \
    (P2PDEV_OP_##op << P2PDEV_CTRL_OP_SHIFT | \
     P2PDEV_SPACE_##dst << P2PDEV_CTRL_DST_SHIFT)

typedef struct Rig {
    QTestState *qts;
    PcieTopology topo;
    VtdTables vtd;
    PcieFunction *dev[2];
} Rig;

static Rig *rig_start(const char *args)
{
    Rig *r = g_new0(Rig, 1);
    unsigned i;

    r->qts = qtest_init(args);
    pcie_topology_init(&r->topo, r->qts);
    for (i = 0; i < 2 && (i == 0 || strstr(args, "id=dev1")); i++) {
        r->dev[i] = pcie_find(&r->topo, P2PDEV_VENDOR_ID, P2PDEV_DEVICE_ID, i);
    }
    if (strstr(args, "intel-iommu")) {
        vtd_init(&r->vtd, r->qts, TABLES);
    }
    return r;
}

static void rig_stop(Rig *r)
{
    qtest_quit(r->qts);
    g_free(r);
}

/* Registers */

static uint32_t reg32(Rig *r, unsigned dev, unsigned reg)
{
    return qtest_readl(r->qts, r->dev[dev]->bar[P2PDEV_REG_BAR] + reg);
}

static uint64_t reg64(Rig *r, unsigned dev, unsigned reg)
{
    return qtest_readq(r->qts, r->dev[dev]->bar[P2PDEV_REG_BAR] + reg);
}

static void set32(Rig *r, unsigned dev, unsigned reg, uint32_t val)
{
    qtest_writel(r->qts, r->dev[dev]->bar[P2PDEV_REG_BAR] + reg, val);
}

static void set64(Rig *r, unsigned dev, unsigned reg, uint64_t val)
{
    qtest_writeq(r->qts, r->dev[dev]->bar[P2PDEV_REG_BAR] + reg, val);
}

static uint64_t mem(Rig *r, unsigned dev)
{
    return r->dev[dev]->bar[P2PDEV_MEM_BAR];
}

static void start(Rig *r, unsigned dev, uint32_t ctrl, uint64_t dst,
                  uint64_t src, uint64_t len)
{
    set64(r, dev, P2PDEV_DST, dst);
    set64(r, dev, P2PDEV_SRC, src);
    set64(r, dev, P2PDEV_LEN, len);
    set32(r, dev, P2PDEV_CTRL, ctrl | P2PDEV_CTRL_START);
}

static void step_ms(Rig *r, unsigned ms)
{
    qtest_clock_step(r->qts, ms * 1000000LL);
}

/* The engine runs in the main loop, which each register access lets turn */
static uint32_t wait_done(Rig *r, unsigned dev)
{
    gint64 end = g_get_monotonic_time() + 60 * G_TIME_SPAN_SECOND;
    uint32_t status;

    do {
        status = reg32(r, dev, P2PDEV_STATUS);
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    } while (status & P2PDEV_STATUS_BUSY);
    g_assert_cmphex(status & P2PDEV_STATUS_DONE, ==, P2PDEV_STATUS_DONE);
    return status;
}

/* All bytes are moved; with delay-ms, the delay has begun */
static void wait_moved(Rig *r, unsigned dev, uint64_t len)
{
    gint64 end = g_get_monotonic_time() + 60 * G_TIME_SPAN_SECOND;

    while (reg64(r, dev, P2PDEV_DONE_LEN) != len) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    }
}

static void run_ok(Rig *r, unsigned dev, uint32_t ctrl, uint64_t dst,
                   uint64_t src, uint64_t len)
{
    start(r, dev, ctrl, dst, src, len);
    g_assert_cmphex(wait_done(r, dev), ==, P2PDEV_STATUS_DONE);
    g_assert_cmphex(reg64(r, dev, P2PDEV_DONE_LEN), ==, len);
}

static void expect_error(Rig *r, unsigned dev, uint32_t kind, bool is_dst,
                         uint64_t addr, uint64_t done)
{
    g_assert_cmphex(wait_done(r, dev), ==,
                    P2PDEV_STATUS_DONE | P2PDEV_STATUS_ERROR |
                    (is_dst ? P2PDEV_STATUS_ERR_DST : 0) |
                    kind << P2PDEV_STATUS_ERR_SHIFT);
    g_assert_cmphex(reg64(r, dev, P2PDEV_ERR_ADDR), ==, addr);
    g_assert_cmphex(reg64(r, dev, P2PDEV_DONE_LEN), ==, done);
}

/* Counters of a p2pdev since the last look */

typedef struct Counters {
    uint64_t rd_host, rd_peer, rd_own, rd_other, rd_failed;
    uint64_t wr_host, wr_peer, wr_own, wr_other, wr_failed;
    uint64_t routed;
    uint64_t hits, misses, invalidations, faults;
} Counters;

static const struct {
    const char *name;
    size_t offset;
} counter_names[] = {
    { "dma-read-host-bytes", offsetof(Counters, rd_host) },
    { "dma-read-peer-bytes", offsetof(Counters, rd_peer) },
    { "dma-read-own-bytes", offsetof(Counters, rd_own) },
    { "dma-read-other-bytes", offsetof(Counters, rd_other) },
    { "dma-read-failed-bytes", offsetof(Counters, rd_failed) },
    { "dma-write-host-bytes", offsetof(Counters, wr_host) },
    { "dma-write-peer-bytes", offsetof(Counters, wr_peer) },
    { "dma-write-own-bytes", offsetof(Counters, wr_own) },
    { "dma-write-other-bytes", offsetof(Counters, wr_other) },
    { "dma-write-failed-bytes", offsetof(Counters, wr_failed) },
    { "dma-routed-bytes", offsetof(Counters, routed) },
    { "ats-hits", offsetof(Counters, hits) },
    { "ats-misses", offsetof(Counters, misses) },
    { "ats-invalidations", offsetof(Counters, invalidations) },
    { "ats-faults", offsetof(Counters, faults) },
};

/* Names every counter that should have moved; all others must not have */
static void expect_counters(Rig *r, const char *id, Counters *before,
                            Counters delta)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(counter_names); i++) {
        uint64_t *old = (void *)before + counter_names[i].offset;
        uint64_t *add = (void *)&delta + counter_names[i].offset;
        uint64_t now = qom_uint(r->qts, id, counter_names[i].name);

        if (now - *old != *add) {
            g_error("%s of %s moved by %" PRIu64 ", expected %" PRIu64,
                    counter_names[i].name, id, now - *old, *add);
        }
        *old = now;
    }
}

#define EXPECT_COUNTERS(r, id, before, ...) \
    expect_counters(r, id, before, (Counters) { __VA_ARGS__ })

/* Data */

static void fill(Rig *r, uint64_t addr, uint64_t len, uint32_t seed)
{
    g_autofree uint8_t *buf = g_malloc(len);
    GRand *rand = g_rand_new_with_seed(seed);
    uint64_t i;

    for (i = 0; i < len; i++) {
        buf[i] = g_rand_int(rand);
    }
    g_rand_free(rand);
    qtest_bufwrite(r->qts, addr, buf, len);
}

static void expect_equal(Rig *r, uint64_t a, uint64_t b, uint64_t len)
{
    g_autofree uint8_t *x = g_malloc(len);
    g_autofree uint8_t *y = g_malloc(len);
    uint64_t i;

    qtest_bufread(r->qts, a, x, len);
    qtest_bufread(r->qts, b, y, len);
    for (i = 0; i < len && x[i] == y[i]; i++) {
        ;
    }
    if (i < len) {
        g_error("0x%" PRIx64 " has 0x%02x and 0x%" PRIx64 " has 0x%02x, after %"
                PRIu64 " equal bytes", a + i, x[i], b + i, y[i], i);
    }
}

static void expect_zero(Rig *r, uint64_t addr, uint64_t len)
{
    g_autofree uint8_t *buf = g_malloc(len);

    qtest_bufread(r->qts, addr, buf, len);
    g_assert(buffer_is_zero(buf, len));
}

/* Tests */

static void test_registers(void)
{
    Rig *r = rig_start(Q35 PORTS DEV0(",size=2M") DEV1(",ats=on"));
    uint16_t bdf = r->dev[0]->bdf;
    uint32_t bar2 = pcie_readl(&r->topo, bdf, PCI_BASE_ADDRESS_2);

    g_assert_cmphex(pcie_readw(&r->topo, bdf, PCI_CLASS_DEVICE), ==, 0x0580);
    g_assert_cmphex(bar2 & ~PCI_BASE_ADDRESS_MEM_MASK, ==,
                    PCI_BASE_ADDRESS_MEM_PREFETCH |
                    PCI_BASE_ADDRESS_MEM_TYPE_64);
    g_assert_cmphex(r->dev[0]->bar_size[0], ==, P2PDEV_REG_BAR_SIZE);
    g_assert_cmphex(r->dev[0]->bar_size[2], ==, 2 * MiB);
    g_assert_cmphex(r->dev[1]->bar_size[2], ==, 16 * MiB);
    g_assert_cmphex(pcie_ext_cap(&r->topo, bdf, PCI_EXT_CAP_ID_ATS), ==, 0);
    g_assert_cmphex(pcie_ext_cap(&r->topo, r->dev[1]->bdf, PCI_EXT_CAP_ID_ATS),
                    ==, P2PDEV_ATS_CAP);

    g_assert_cmphex(reg32(r, 0, P2PDEV_ID), ==, P2PDEV_MAGIC);
    g_assert_cmphex(reg32(r, 0, P2PDEV_VER), ==, P2PDEV_VERSION);
    g_assert_cmphex(reg32(r, 0, P2PDEV_CAPS), ==, P2PDEV_CAPS_MSI);
    g_assert_cmphex(reg32(r, 1, P2PDEV_CAPS), ==,
                    P2PDEV_CAPS_MSI | P2PDEV_CAPS_ATS);
    g_assert_cmphex(reg64(r, 0, P2PDEV_MEM_SIZE), ==, 2 * MiB);
    g_assert_cmphex(reg32(r, 0, P2PDEV_STATUS), ==, 0);

    /* Halves of a 64-bit register */
    set64(r, 0, P2PDEV_SRC, 0x1122334455667788ULL);
    g_assert_cmphex(reg32(r, 0, P2PDEV_SRC), ==, 0x55667788);
    g_assert_cmphex(reg32(r, 0, P2PDEV_SRC + 4), ==, 0x11223344);
    set32(r, 0, P2PDEV_SRC + 4, 0xaabbccdd);
    g_assert_cmphex(reg64(r, 0, P2PDEV_SRC), ==, 0xaabbccdd55667788ULL);

    /* What has no effect: read-only and reserved bits, bad sizes, holes */
    set32(r, 0, P2PDEV_ID, 0);
    set64(r, 0, P2PDEV_MEM_SIZE, 0);
    set32(r, 0, P2PDEV_STATUS, UINT32_MAX);
    set32(r, 0, P2PDEV_CTRL, ~(P2PDEV_CTRL_START | P2PDEV_CTRL_ABORT |
                               P2PDEV_CTRL_RESET));
    g_assert_cmphex(reg32(r, 0, P2PDEV_ID), ==, P2PDEV_MAGIC);
    g_assert_cmphex(reg64(r, 0, P2PDEV_MEM_SIZE), ==, 2 * MiB);
    g_assert_cmphex(reg32(r, 0, P2PDEV_STATUS), ==, 0);
    g_assert_cmphex(reg32(r, 0, P2PDEV_CTRL), ==, 0x3f8);
    g_assert_cmphex(reg64(r, 0, P2PDEV_CTRL), ==, 0);
    g_assert_cmphex(reg32(r, 0, 0x100), ==, 0);
    set64(r, 0, P2PDEV_CTRL, 0);
    set32(r, 0, 0x100, 1);
    g_assert_cmphex(reg32(r, 0, P2PDEV_CTRL), ==, 0x3f8);

    set32(r, 0, P2PDEV_CTRL, P2PDEV_CTRL_RESET);
    g_assert_cmphex(reg32(r, 0, P2PDEV_CTRL), ==, 0);
    g_assert_cmphex(reg64(r, 0, P2PDEV_SRC), ==, 0);
    g_assert_cmphex(reg64(r, 0, P2PDEV_MEM_SIZE), ==, 2 * MiB);
    rig_stop(r);
}

static void test_copy(void)
{
    static const uint64_t lengths[] = { 1, 7, 4096, 256 * KiB, 3 * MiB + 13 };
    Rig *r = rig_start(Q35 PORTS DEV0(",size=8M"));
    Counters c = { 0 };
    uint32_t version;
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(lengths); i++) {
        uint64_t n = lengths[i];

        /* RAM -> memory -> elsewhere in the memory -> RAM -> RAM -> BAR */
        fill(r, BUF_A + 5, n, i);
        run_ok(r, 0, CTRL(LOCAL, BUS), 3, BUF_A + 5, n);
        expect_equal(r, mem(r, 0) + 3, BUF_A + 5, n);
        EXPECT_COUNTERS(r, "dev0", &c, .rd_host = n);

        run_ok(r, 0, CTRL(LOCAL, LOCAL), 4 * MiB + 1, 3, n);
        EXPECT_COUNTERS(r, "dev0", &c, 0);

        qtest_memset(r->qts, BUF_B, 0, n + 2);
        run_ok(r, 0, CTRL(BUS, LOCAL), BUF_B + 1, 4 * MiB + 1, n);
        expect_equal(r, BUF_B + 1, BUF_A + 5, n);
        expect_zero(r, BUF_B, 1);
        expect_zero(r, BUF_B + 1 + n, 1);
        EXPECT_COUNTERS(r, "dev0", &c, .wr_host = n);

        run_ok(r, 0, CTRL(BUS, BUS), BUF_A + 8 * MiB, BUF_B + 1, n);
        expect_equal(r, BUF_A + 8 * MiB, BUF_A + 5, n);
        EXPECT_COUNTERS(r, "dev0", &c, .rd_host = n, .wr_host = n);

        /* Its own BAR by bus address: the root port turns the request around */
        qtest_memset(r->qts, mem(r, 0), 0, n);
        run_ok(r, 0, CTRL(BUS, BUS), mem(r, 0), BUF_B + 1, n);
        expect_equal(r, mem(r, 0), BUF_A + 5, n);
        EXPECT_COUNTERS(r, "dev0", &c, .rd_host = n, .wr_own = n, .routed = n);
    }

    /* MMIO at one end and at both: the I/O APIC, whose register 1 is RO */
    qtest_writel(r->qts, IOAPIC_INDEX, 1);
    version = qtest_readl(r->qts, IOAPIC_DATA);
    run_ok(r, 0, CTRL(BUS, BUS), BUF_B, IOAPIC_DATA, 4);
    g_assert_cmphex(qtest_readl(r->qts, BUF_B), ==, version);
    EXPECT_COUNTERS(r, "dev0", &c, .rd_other = 4, .wr_host = 4);
    run_ok(r, 0, CTRL(BUS, BUS), IOAPIC_INDEX, IOAPIC_DATA, 4);
    g_assert_cmphex(qtest_readl(r->qts, IOAPIC_INDEX), ==, version & 0xff);
    EXPECT_COUNTERS(r, "dev0", &c, .rd_other = 4, .wr_other = 4);
    rig_stop(r);
}

/* A request must not configure the function that sent it */
static void test_config_space(void)
{
    Rig *r = rig_start(Q35 PORTS DEV0());
    uint64_t command = ECAM + (r->dev[0]->bdf << 12) + PCI_COMMAND;
    uint16_t before = qtest_readw(r->qts, command);

    g_assert_cmphex(before & PCI_COMMAND_MASTER, ==, PCI_COMMAND_MASTER);
    qtest_memset(r->qts, BUF_A, 0, 4);
    start(r, 0, CTRL(BUS, BUS), command, BUF_A, 4);
    expect_error(r, 0, P2PDEV_ERR_DECODE, true, command, 0);
    g_assert_cmphex(qtest_readw(r->qts, command), ==, before);
    start(r, 0, CTRL(BUS, BUS), BUF_A, command, 4);
    expect_error(r, 0, P2PDEV_ERR_DECODE, false, command, 0);
    run_ok(r, 0, CTRL(BUS, LOCAL), BUF_A, 0, 4);
    rig_stop(r);
}

static void test_peer(const void *opaque)
{
    bool below_switch = opaque;
    Rig *r = rig_start(below_switch ? Q35 SWITCH TWO : Q35 PORTS TWO);
    uint64_t n = 1 * MiB + 4096;
    uint64_t routed = below_switch ? n : 0;
    Counters c = { 0 }, peer = { 0 };

    fill(r, mem(r, 0), n, 1);
    run_ok(r, 0, CTRL(BUS, LOCAL), mem(r, 1) + 4096, 0, n);
    expect_equal(r, mem(r, 1) + 4096, mem(r, 0), n);
    EXPECT_COUNTERS(r, "dev0", &c, .wr_peer = n, .routed = routed);

    run_ok(r, 0, CTRL(LOCAL, BUS), 8 * MiB, mem(r, 1) + 4096, n);
    expect_equal(r, mem(r, 0) + 8 * MiB, mem(r, 0), n);
    EXPECT_COUNTERS(r, "dev0", &c, .rd_peer = n, .routed = routed);

    run_ok(r, 0, CTRL(BUS, BUS), BUF_A, mem(r, 1) + 4096, n);
    expect_equal(r, BUF_A, mem(r, 0), n);
    EXPECT_COUNTERS(r, "dev0", &c, .rd_peer = n, .wr_host = n,
                    .routed = routed);

    /* Registers of the peer, whose own DMA was not involved in anything */
    run_ok(r, 0, CTRL(BUS, BUS), BUF_A,
           r->dev[1]->bar[P2PDEV_REG_BAR] + P2PDEV_ID, 4);
    g_assert_cmphex(qtest_readl(r->qts, BUF_A), ==, P2PDEV_MAGIC);
    EXPECT_COUNTERS(r, "dev0", &c, .rd_peer = 4, .wr_host = 4,
                    .routed = below_switch ? 4 : 0);
    EXPECT_COUNTERS(r, "dev1", &peer, 0);

    /* A window that is closed does not claim anything */
    if (below_switch) {
        PcieFunction *port = pcie_find(&r->topo, XIO3130_PORT, 1);

        pcie_writew(&r->topo, port->bdf, PCI_COMMAND, PCI_COMMAND_MASTER);
        start(r, 0, CTRL(BUS, LOCAL), mem(r, 1), 0, n);
        expect_error(r, 0, P2PDEV_ERR_DECODE, true, mem(r, 1), 0);
        EXPECT_COUNTERS(r, "dev0", &c, .wr_failed = 256 * KiB);
    }
    rig_stop(r);
}

/* A transfer that leaves a peer's BAR meets what is behind it */
static void test_straddle(void)
{
    Rig *r = rig_start(Q35 SWITCH DEV0() DEV1(",size=1M"));
    uint64_t end = mem(r, 1) + 1 * MiB;
    uint64_t regs = r->dev[1]->bar[P2PDEV_REG_BAR];
    uint16_t port = pcie_find(&r->topo, XIO3130_PORT, 1)->bdf;
    Counters c = { 0 };

    start(r, 0, CTRL(BUS, LOCAL), end - 4096, 0, 8192);
    expect_error(r, 0, P2PDEV_ERR_DECODE, true, end, 4096);
    EXPECT_COUNTERS(r, "dev0", &c, .wr_peer = 4096, .routed = 4096,
                    .wr_failed = 4096);

    start(r, 0, CTRL(LOCAL, BUS), 0, regs + P2PDEV_REG_BAR_SIZE - 8, 16);
    expect_error(r, 0, P2PDEV_ERR_DECODE, false, regs + P2PDEV_REG_BAR_SIZE, 8);
    EXPECT_COUNTERS(r, "dev0", &c, .rd_peer = 8, .routed = 8, .rd_failed = 8);

    /* From RAM into the peer's registers, now right behind it */
    pcie_writew(&r->topo, port, PCI_MEMORY_BASE, RAM_END >> 16);
    pcie_writew(&r->topo, port, PCI_MEMORY_LIMIT, RAM_END >> 16);
    pcie_writel(&r->topo, r->dev[1]->bdf, PCI_BASE_ADDRESS_0, RAM_END);
    qtest_writel(r->qts, RAM_END - 4, 0x12345678);
    run_ok(r, 0, CTRL(LOCAL, BUS), 0, RAM_END - 4, 8);
    g_assert_cmphex(qtest_readl(r->qts, mem(r, 0)), ==, 0x12345678);
    g_assert_cmphex(qtest_readl(r->qts, mem(r, 0) + 4), ==, P2PDEV_MAGIC);
    EXPECT_COUNTERS(r, "dev0", &c, .rd_host = 4, .rd_peer = 4, .routed = 4);
    rig_stop(r);
}

/* One RAM object is BAR of one device, and a file on the host */
static void test_memdev(void)
{
    g_autofree char *name = NULL;
    g_autofree char *args = NULL;
    int fd = g_file_open_tmp("p2pdev-test-XXXXXX", &name, NULL);
    Counters c = { 0 };
    uint8_t *host;
    Rig *r;

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, 2 * MiB), ==, 0);
    host = mmap(NULL, 2 * MiB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    g_assert(host != MAP_FAILED);
    args = g_strdup_printf(Q35 PORTS DEV0() "-object memory-backend-file,"
                           "id=m,size=2M,share=on,mem-path=%s "
                           DEV1(",memdev=m"), name);
    r = rig_start(args);
    g_assert_cmphex(r->dev[1]->bar_size[2], ==, 2 * MiB);

    fill(r, mem(r, 0), 64 * KiB, 7);
    run_ok(r, 0, CTRL(BUS, LOCAL), mem(r, 1) + 1 * MiB, 0, 64 * KiB);
    qtest_bufwrite(r->qts, BUF_A, host + 1 * MiB, 64 * KiB);
    expect_equal(r, BUF_A, mem(r, 0), 64 * KiB);
    EXPECT_COUNTERS(r, "dev0", &c, .wr_peer = 64 * KiB);

    host[5] = 0x5a;
    run_ok(r, 1, CTRL(BUS, LOCAL), BUF_A, 5, 1);
    g_assert_cmphex(qtest_readb(r->qts, BUF_A), ==, 0x5a);

    rig_stop(r);
    munmap(host, 2 * MiB);
    close(fd);
    unlink(name);
}

static void test_errors(void)
{
    Rig *r = rig_start(Q35 PORTS TWO);
    uint64_t size = reg64(r, 0, P2PDEV_MEM_SIZE);
    uint32_t finished = reg32(r, 0, P2PDEV_FINISHED);
    uint16_t bdf = r->dev[0]->bdf;
    Counters c = { 0 };

    /* Nothing to do is done at once, wherever it points */
    run_ok(r, 0, CTRL(BUS, BUS), NOWHERE, NOWHERE, 0);
    run_ok(r, 0, CTRL(LOCAL, BUS), size, UINT64_MAX, 0);
    g_assert_cmpuint(reg32(r, 0, P2PDEV_FINISHED), ==, finished + 2);

    /* Refused before any request */
    start(r, 0, CTRL(LOCAL, BUS), size - 8, BUF_A, 9);
    expect_error(r, 0, P2PDEV_ERR_RANGE, true, size - 8, 0);
    start(r, 0, CTRL(BUS, LOCAL), BUF_A, size + 1, 0);
    expect_error(r, 0, P2PDEV_ERR_RANGE, false, size + 1, 0);
    start(r, 0, CTRL(BUS, LOCAL), BUF_A, 8, UINT64_MAX - 7);
    expect_error(r, 0, P2PDEV_ERR_RANGE, false, 8, 0);
    start(r, 0, CTRL(BUS, LOCAL), UINT64_MAX, 0, 2);
    expect_error(r, 0, P2PDEV_ERR_RANGE, true, UINT64_MAX, 0);
    start(r, 0, CTRL(BUS, BUS), BUF_A, UINT64_MAX - 1, 3);
    expect_error(r, 0, P2PDEV_ERR_RANGE, false, UINT64_MAX - 1, 0);
    start(r, 0, CTRL(BUS, BUS), BUF_A + 99, BUF_A, 100);
    expect_error(r, 0, P2PDEV_ERR_OVERLAP, true, BUF_A + 99, 0);
    start(r, 0, CTRL(LOCAL, LOCAL), 0, 0, 1);
    expect_error(r, 0, P2PDEV_ERR_OVERLAP, true, 0, 0);
    start(r, 0, 3 << P2PDEV_CTRL_SRC_SHIFT, BUF_A, 0, 1);
    expect_error(r, 0, P2PDEV_ERR_SPACE, false, 0, 0);
    start(r, 0, 3 << P2PDEV_CTRL_DST_SHIFT, 0, BUF_A, 1);
    expect_error(r, 0, P2PDEV_ERR_SPACE, true, 0, 0);
    run_ok(r, 0, CTRL(BUS, BUS), BUF_A + 100, BUF_A, 100);
    EXPECT_COUNTERS(r, "dev0", &c, .rd_host = 100, .wr_host = 100);

    /* Nobody there */
    start(r, 0, CTRL(BUS, BUS), BUF_A, NOWHERE, 4096);
    expect_error(r, 0, P2PDEV_ERR_DECODE, false, NOWHERE, 0);
    EXPECT_COUNTERS(r, "dev0", &c, .rd_failed = 4096);
    start(r, 0, CTRL(BUS, BUS), NOWHERE, BUF_A, 4096);
    expect_error(r, 0, P2PDEV_ERR_DECODE, true, NOWHERE, 0);
    EXPECT_COUNTERS(r, "dev0", &c, .wr_failed = 4096);
    /* The last byte of all, after which there is nothing to count to */
    start(r, 0, CTRL(BUS, LOCAL), UINT64_MAX, 0, 1);
    expect_error(r, 0, P2PDEV_ERR_DECODE, true, UINT64_MAX, 0);
    start(r, 0, CTRL(LOCAL, BUS), 0, UINT64_MAX, 1);
    expect_error(r, 0, P2PDEV_ERR_DECODE, false, UINT64_MAX, 0);
    EXPECT_COUNTERS(r, "dev0", &c, .wr_failed = 1, .rd_failed = 1);

    /* Its own registers: the device model does not let itself be reentered */
    start(r, 0, CTRL(BUS, BUS), BUF_A, r->dev[0]->bar[P2PDEV_REG_BAR], 4);
    expect_error(r, 0, P2PDEV_ERR_TARGET, false,
                 r->dev[0]->bar[P2PDEV_REG_BAR], 0);
    EXPECT_COUNTERS(r, "dev0", &c, .rd_failed = 4);

    /* No bus mastering: also not by way of a bridge */
    pcie_writew(&r->topo, bdf, PCI_COMMAND, PCI_COMMAND_MEMORY);
    start(r, 0, CTRL(LOCAL, BUS), 0, BUF_A, 16);
    expect_error(r, 0, P2PDEV_ERR_MASTER, false, BUF_A, 0);
    start(r, 0, CTRL(BUS, LOCAL), mem(r, 0), 4096, 16);
    expect_error(r, 0, P2PDEV_ERR_MASTER, true, mem(r, 0), 0);
    EXPECT_COUNTERS(r, "dev0", &c, .rd_failed = 16, .wr_failed = 16);
    run_ok(r, 0, CTRL(LOCAL, LOCAL), 0, 4096, 16);
    pcie_writew(&r->topo, bdf, PCI_COMMAND,
                PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);

    /* Injected: after 1 MiB and a bit */
    qom_set_uint(r->qts, "dev0", "dma-fail-after", 1 * MiB + 100);
    start(r, 0, CTRL(BUS, LOCAL), BUF_A, 0, 2 * MiB);
    expect_error(r, 0, P2PDEV_ERR_INJECTED, true, BUF_A + 1 * MiB + 100,
                 1 * MiB + 100);
    EXPECT_COUNTERS(r, "dev0", &c, .wr_host = 1 * MiB + 100,
                    .wr_failed = 256 * KiB - 100);
    start(r, 0, CTRL(LOCAL, BUS), 0, BUF_A, 1);
    expect_error(r, 0, P2PDEV_ERR_INJECTED, false, BUF_A, 0);
    EXPECT_COUNTERS(r, "dev0", &c, .rd_failed = 1);
    qom_set_uint(r->qts, "dev0", "dma-fail-after", 200);
    run_ok(r, 0, CTRL(BUS, BUS), BUF_A, BUF_B, 100);
    run_ok(r, 0, CTRL(BUS, BUS), BUF_A, BUF_B, 100);
    start(r, 0, CTRL(BUS, BUS), BUF_A, BUF_B, 1);
    expect_error(r, 0, P2PDEV_ERR_INJECTED, false, BUF_B, 0);

    /* An error does not stick */
    qom_set_uint(r->qts, "dev0", "dma-fail-after", 1 * GiB);
    run_ok(r, 0, CTRL(LOCAL, BUS), 0, BUF_A, 16);
    set32(r, 0, P2PDEV_STATUS, P2PDEV_STATUS_DONE);
    g_assert_cmphex(reg32(r, 0, P2PDEV_STATUS), ==, 0);
    rig_stop(r);
}

/* Memory that was reached a moment ago, and is no longer where it was */
static void test_gone(void)
{
    Rig *r = rig_start(Q35 PORTS TWO);
    uint16_t bdf = r->dev[1]->bdf;
    Counters c = { 0 };

    fill(r, mem(r, 0), 4096, 3);
    run_ok(r, 0, CTRL(BUS, LOCAL), mem(r, 1), 0, 4096);
    run_ok(r, 0, CTRL(LOCAL, BUS), 0, mem(r, 1), 4096);
    EXPECT_COUNTERS(r, "dev0", &c, .wr_peer = 4096, .rd_peer = 4096);
    pcie_writew(&r->topo, bdf, PCI_COMMAND, PCI_COMMAND_MASTER);
    start(r, 0, CTRL(BUS, LOCAL), mem(r, 1), 0, 4096);
    expect_error(r, 0, P2PDEV_ERR_DECODE, true, mem(r, 1), 0);
    start(r, 0, CTRL(LOCAL, BUS), 0, mem(r, 1), 4096);
    expect_error(r, 0, P2PDEV_ERR_DECODE, false, mem(r, 1), 0);
    EXPECT_COUNTERS(r, "dev0", &c, .wr_failed = 4096, .rd_failed = 4096);
    pcie_writew(&r->topo, bdf, PCI_COMMAND,
                PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    fill(r, mem(r, 0), 4096, 4);
    run_ok(r, 0, CTRL(BUS, LOCAL), mem(r, 1), 0, 4096);
    expect_equal(r, mem(r, 0), mem(r, 1), 4096);
    rig_stop(r);
}

static void test_busy(void)
{
    Rig *r = rig_start(Q35 PORTS DEV0());

    qom_set_uint(r->qts, "dev0", "delay-ms", 10);
    fill(r, BUF_A, 8192, 3);
    start(r, 0, CTRL(LOCAL, BUS), 0, BUF_A, 4096);
    wait_moved(r, 0, 4096);
    step_ms(r, 9);
    g_assert_cmphex(reg32(r, 0, P2PDEV_STATUS), ==, P2PDEV_STATUS_BUSY);

    /* A second START is refused and changes nothing */
    start(r, 0, CTRL(LOCAL, BUS), 8192, BUF_A + 4096, 4096);
    g_assert_cmphex(reg32(r, 0, P2PDEV_STATUS), ==,
                    P2PDEV_STATUS_BUSY | P2PDEV_STATUS_REJECTED);
    step_ms(r, 1);
    g_assert_cmphex(reg32(r, 0, P2PDEV_STATUS), ==,
                    P2PDEV_STATUS_DONE | P2PDEV_STATUS_REJECTED);
    g_assert_cmpuint(reg32(r, 0, P2PDEV_FINISHED), ==, 1);
    expect_equal(r, mem(r, 0), BUF_A, 4096);
    expect_zero(r, mem(r, 0) + 8192, 4096);
    set32(r, 0, P2PDEV_STATUS, P2PDEV_STATUS_REJECTED);
    g_assert_cmphex(reg32(r, 0, P2PDEV_STATUS), ==, P2PDEV_STATUS_DONE);

    /* ABORT ends a transfer, and does nothing when there is none */
    start(r, 0, CTRL(LOCAL, BUS), 0, BUF_A, 4096);
    wait_moved(r, 0, 4096);
    set32(r, 0, P2PDEV_CTRL, P2PDEV_CTRL_ABORT);
    g_assert_cmphex(reg32(r, 0, P2PDEV_STATUS), ==,
                    P2PDEV_STATUS_DONE | P2PDEV_STATUS_ERROR |
                    P2PDEV_ERR_ABORTED << P2PDEV_STATUS_ERR_SHIFT);
    set32(r, 0, P2PDEV_CTRL, P2PDEV_CTRL_ABORT);
    step_ms(r, 100);
    g_assert_cmpuint(reg32(r, 0, P2PDEV_FINISHED), ==, 2);

    /* ABORT wins over START, RESET over both; RESET is silent */
    set32(r, 0, P2PDEV_CTRL, P2PDEV_CTRL_ABORT | P2PDEV_CTRL_START);
    g_assert_cmphex(reg32(r, 0, P2PDEV_STATUS) & P2PDEV_STATUS_BUSY, ==, 0);
    start(r, 0, CTRL(LOCAL, BUS), 0, BUF_A, 4096);
    wait_moved(r, 0, 4096);
    set32(r, 0, P2PDEV_CTRL, P2PDEV_CTRL_RESET | P2PDEV_CTRL_START);
    g_assert_cmphex(reg32(r, 0, P2PDEV_STATUS), ==, 0);
    step_ms(r, 100);
    g_assert_cmphex(reg32(r, 0, P2PDEV_STATUS), ==, 0);
    g_assert_cmpuint(reg32(r, 0, P2PDEV_FINISHED), ==, 0);

    qom_set_uint(r->qts, "dev0", "delay-ms", 0);
    run_ok(r, 0, CTRL(LOCAL, BUS), 0, BUF_A, 4096);
    rig_stop(r);
}

static void enable_msi(Rig *r, unsigned dev, uint32_t addr, uint16_t data)
{
    uint16_t bdf = r->dev[dev]->bdf;
    unsigned cap = pcie_cap(&r->topo, bdf, PCI_CAP_ID_MSI);

    g_assert_cmphex(cap, !=, 0);
    pcie_writel(&r->topo, bdf, cap + PCI_MSI_ADDRESS_LO, addr);
    pcie_writel(&r->topo, bdf, cap + PCI_MSI_ADDRESS_HI, 0);
    pcie_writew(&r->topo, bdf, cap + PCI_MSI_DATA_64, data);
    pcie_writew(&r->topo, bdf, cap + PCI_MSI_FLAGS, PCI_MSI_FLAGS_ENABLE);
}

static void test_msi(void)
{
    Rig *r = rig_start(Q35 PORTS DEV0());

    /* An MSI is a write, here to RAM */
    run_ok(r, 0, CTRL(LOCAL, BUS) | P2PDEV_CTRL_IRQ_EN, 0, BUF_A, 64);
    g_assert_cmphex(qtest_readl(r->qts, MSI_TARGET), ==, 0);
    enable_msi(r, 0, MSI_TARGET, 0xbeef);
    run_ok(r, 0, CTRL(LOCAL, BUS), 0, BUF_A, 64);
    g_assert_cmphex(qtest_readl(r->qts, MSI_TARGET), ==, 0);
    run_ok(r, 0, CTRL(LOCAL, BUS) | P2PDEV_CTRL_IRQ_EN, 0, BUF_A, 64);
    g_assert_cmphex(qtest_readl(r->qts, MSI_TARGET), ==, 0xbeef);

    /* Also for failures */
    qtest_writel(r->qts, MSI_TARGET, 0);
    start(r, 0, CTRL(LOCAL, BUS) | P2PDEV_CTRL_IRQ_EN, 0, NOWHERE, 64);
    expect_error(r, 0, P2PDEV_ERR_DECODE, false, NOWHERE, 0);
    g_assert_cmphex(qtest_readl(r->qts, MSI_TARGET), ==, 0xbeef);
    rig_stop(r);
}

static void test_atomics(void)
{
    Rig *r = rig_start(Q35 SWITCH TWO);
    const uint64_t targets[] = { BUF_A, mem(r, 1) + 64 };
    Counters c = { 0 };
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(targets); i++) {
        uint64_t at = targets[i];

        qtest_writeq(r->qts, at, 0xfffffffffffffffdULL);
        set64(r, 0, P2PDEV_OPERAND, 5);
        run_ok(r, 0, ATOMIC(FETCH_ADD, BUS), at, 0, 8);
        g_assert_cmphex(reg64(r, 0, P2PDEV_RESULT), ==, 0xfffffffffffffffdULL);
        g_assert_cmphex(qtest_readq(r->qts, at), ==, 2);

        /* The upper half is not touched, not even by a carry */
        qtest_writeq(r->qts, at, 0x11111111fffffffeULL);
        run_ok(r, 0, ATOMIC(FETCH_ADD, BUS), at, 0, 4);
        g_assert_cmphex(reg64(r, 0, P2PDEV_RESULT), ==, 0xfffffffe);
        g_assert_cmphex(qtest_readq(r->qts, at), ==, 0x1111111100000003ULL);

        set64(r, 0, P2PDEV_COMPARE, 0x1111111100000004ULL);
        set64(r, 0, P2PDEV_OPERAND, 0x77);
        run_ok(r, 0, ATOMIC(COMPARE_SWAP, BUS), at, 0, 8);
        g_assert_cmphex(reg64(r, 0, P2PDEV_RESULT), ==, 0x1111111100000003ULL);
        g_assert_cmphex(qtest_readq(r->qts, at), ==, 0x1111111100000003ULL);
        set64(r, 0, P2PDEV_COMPARE, 0x1111111100000003ULL);
        run_ok(r, 0, ATOMIC(COMPARE_SWAP, BUS), at, 0, 8);
        g_assert_cmphex(qtest_readq(r->qts, at), ==, 0x77);
        /* 32 bits: the upper half of the operands does not count */
        set64(r, 0, P2PDEV_COMPARE, 0x9900000077ULL);
        set64(r, 0, P2PDEV_OPERAND, 0x9900000088ULL);
        run_ok(r, 0, ATOMIC(COMPARE_SWAP, BUS), at, 0, 4);
        g_assert_cmphex(qtest_readq(r->qts, at), ==, 0x88);

        set64(r, 0, P2PDEV_OPERAND, 0x123456789abcdef0ULL);
        run_ok(r, 0, ATOMIC(SWAP, BUS), at, 0, 8);
        g_assert_cmphex(reg64(r, 0, P2PDEV_RESULT), ==, 0x88);
        g_assert_cmphex(qtest_readq(r->qts, at), ==, 0x123456789abcdef0ULL);
    }
    EXPECT_COUNTERS(r, "dev0", &c, .rd_host = 40, .wr_host = 40, .rd_peer = 40,
                    .wr_peer = 40, .routed = 80);

    /* MMIO: two registers of the peer */
    set64(r, 1, P2PDEV_SRC, 40);
    set64(r, 0, P2PDEV_OPERAND, 2);
    run_ok(r, 0, ATOMIC(FETCH_ADD, BUS),
           r->dev[1]->bar[P2PDEV_REG_BAR] + P2PDEV_SRC, 0, 8);
    g_assert_cmphex(reg64(r, 0, P2PDEV_RESULT), ==, 40);
    g_assert_cmphex(reg64(r, 1, P2PDEV_SRC), ==, 42);

    start(r, 0, ATOMIC(SWAP, BUS), BUF_A + 4, 0, 8);
    expect_error(r, 0, P2PDEV_ERR_ALIGN, true, BUF_A + 4, 0);
    start(r, 0, ATOMIC(SWAP, BUS), BUF_A, 0, 2);
    expect_error(r, 0, P2PDEV_ERR_ALIGN, true, BUF_A, 0);
    start(r, 0, ATOMIC(SWAP, BUS), BUF_A, 0, (1ULL << 32) + 8);
    expect_error(r, 0, P2PDEV_ERR_ALIGN, true, BUF_A, 0);
    start(r, 0, ATOMIC(SWAP, LOCAL), 0, 0, 8);
    expect_error(r, 0, P2PDEV_ERR_SPACE, true, 0, 0);
    start(r, 0, ATOMIC(SWAP, BUS), NOWHERE, 0, 8);
    expect_error(r, 0, P2PDEV_ERR_DECODE, true, NOWHERE, 0);
    rig_stop(r);
}

/* IOVA -> a buffer and the peer's memory; all else faults */
static void iommu_on(Rig *r, bool ats)
{
    vtd_attach(&r->vtd, r->dev[0]->bdf, ats);
    vtd_map(&r->vtd, IOVA, BUF_A, 64 * KiB, VTD_READ | VTD_WRITE);
    vtd_map(&r->vtd, IOVA + 1 * MiB, mem(r, 1), 64 * KiB,
            VTD_READ | VTD_WRITE);
    vtd_enable(&r->vtd);
}

static void test_iommu(const void *opaque)
{
    bool below_switch = opaque;
    Rig *r = rig_start(below_switch ? Q35 VTD SWITCH TWO : Q35 VTD PORTS TWO);
    Counters c = { 0 };
    uint64_t n = 64 * KiB;

    iommu_on(r, false);
    fill(r, mem(r, 0), n, 4);

    /* Host memory: by IOVA only */
    run_ok(r, 0, CTRL(BUS, LOCAL), IOVA, 0, n);
    expect_equal(r, BUF_A, mem(r, 0), n);
    EXPECT_COUNTERS(r, "dev0", &c, .wr_host = n);
    start(r, 0, CTRL(BUS, LOCAL), BUF_A, 0, n);
    expect_error(r, 0, P2PDEV_ERR_DECODE, true, BUF_A, 0);
    EXPECT_COUNTERS(r, "dev0", &c, .wr_failed = n);

    /* The peer by IOVA: by way of the root complex */
    run_ok(r, 0, CTRL(BUS, LOCAL), IOVA + 1 * MiB, 0, n);
    expect_equal(r, mem(r, 1), mem(r, 0), n);
    EXPECT_COUNTERS(r, "dev0", &c, .wr_peer = n);

    /* The peer by raw bus address: the switch delivers it, the IOMMU does not */
    qtest_memset(r->qts, mem(r, 1), 0, n);
    start(r, 0, CTRL(BUS, LOCAL), mem(r, 1), 0, n);
    if (below_switch) {
        g_assert_cmphex(wait_done(r, 0), ==, P2PDEV_STATUS_DONE);
        expect_equal(r, mem(r, 1), mem(r, 0), n);
        EXPECT_COUNTERS(r, "dev0", &c, .wr_peer = n, .routed = n);
    } else {
        expect_error(r, 0, P2PDEV_ERR_DECODE, true, mem(r, 1), 0);
        expect_zero(r, mem(r, 1), n);
        EXPECT_COUNTERS(r, "dev0", &c, .wr_failed = n);
    }

    /* One page of several is missing; one is read-only */
    vtd_map(&r->vtd, IOVA + 8192, 0, 4096, 0);
    vtd_map(&r->vtd, IOVA, BUF_A, 4096, VTD_READ);
    vtd_flush_iotlb(&r->vtd);
    start(r, 0, CTRL(LOCAL, BUS), 0, IOVA + 100, n);
    expect_error(r, 0, P2PDEV_ERR_DECODE, false, IOVA + 8192, 8192 - 100);
    EXPECT_COUNTERS(r, "dev0", &c, .rd_host = 8192 - 100,
                    .rd_failed = n - 8192 + 100);
    start(r, 0, CTRL(BUS, LOCAL), IOVA, 0, 4096);
    expect_error(r, 0, P2PDEV_ERR_DECODE, true, IOVA, 0);
    rig_stop(r);
}

/* Two functions of one slot: the root port's ACS decides */
static void test_acs(void)
{
    Rig *r = rig_start(Q35 VTD PORTS DEV0(",addr=0.0,multifunction=on")
                       "-device p2pdev,id=dev1,bus=d0,addr=0.1 ");
    uint16_t port = pcie_find(&r->topo, ROOT_PORT, 0)->bdf;
    unsigned acs = pcie_ext_cap(&r->topo, port, PCI_EXT_CAP_ID_ACS);
    const uint16_t redirect[] = { PCI_ACS_RR, PCI_ACS_CR };
    uint64_t n = 4096;
    Counters c = { 0 };
    unsigned i;

    g_assert_cmphex(acs, !=, 0);
    g_assert_cmphex(r->dev[0]->bdf + 1, ==, r->dev[1]->bdf);
    iommu_on(r, false);
    fill(r, mem(r, 0), n, 5);

    run_ok(r, 0, CTRL(BUS, LOCAL), mem(r, 1), 0, n);
    expect_equal(r, mem(r, 1), mem(r, 0), n);
    EXPECT_COUNTERS(r, "dev0", &c, .wr_peer = n, .routed = n);

    pcie_writew(&r->topo, port, acs + PCI_ACS_CTRL, PCI_ACS_SV | PCI_ACS_UF);
    run_ok(r, 0, CTRL(BUS, LOCAL), mem(r, 1), 0, n);
    EXPECT_COUNTERS(r, "dev0", &c, .wr_peer = n, .routed = n);

    for (i = 0; i < ARRAY_SIZE(redirect); i++) {
        pcie_writew(&r->topo, port, acs + PCI_ACS_CTRL, redirect[i]);
        start(r, 0, CTRL(BUS, LOCAL), mem(r, 1), 0, n);
        expect_error(r, 0, P2PDEV_ERR_DECODE, true, mem(r, 1), 0);
        EXPECT_COUNTERS(r, "dev0", &c, .wr_failed = n);
        run_ok(r, 0, CTRL(BUS, LOCAL), IOVA + 1 * MiB, 0, n);
        EXPECT_COUNTERS(r, "dev0", &c, .wr_peer = n);
    }
    rig_stop(r);
}

/* ACS of the root port does not matter to what the switch below it routes */
static void test_acs_above_switch(void)
{
    Rig *r = rig_start(Q35 VTD SWITCH TWO);
    uint16_t port = pcie_find(&r->topo, ROOT_PORT, 0)->bdf;
    unsigned acs = pcie_ext_cap(&r->topo, port, PCI_EXT_CAP_ID_ACS);
    Counters c = { 0 };

    iommu_on(r, false);
    pcie_writew(&r->topo, port, acs + PCI_ACS_CTRL,
                PCI_ACS_SV | PCI_ACS_RR | PCI_ACS_CR | PCI_ACS_UF);
    run_ok(r, 0, CTRL(BUS, LOCAL), mem(r, 1), 0, 4096);
    EXPECT_COUNTERS(r, "dev0", &c, .wr_peer = 4096, .routed = 4096);
    rig_stop(r);
}

static void set_ats(Rig *r, bool enable)
{
    pcie_writew(&r->topo, r->dev[0]->bdf, P2PDEV_ATS_CAP + PCI_ATS_CTRL,
                enable ? PCI_ATS_CTRL_ENABLE : 0);
}

static bool ats_enable_bit(Rig *r)
{
    return pcie_readw(&r->topo, r->dev[0]->bdf, P2PDEV_ATS_CAP + PCI_ATS_CTRL) &
           PCI_ATS_CTRL_ENABLE;
}

static bool ats_enabled(Rig *r)
{
    QDict *rsp = qtest_qmp(r->qts, "{ 'execute': 'qom-get', 'arguments': "
                           "{ 'path': '/machine/peripheral/dev0', "
                           "'property': 'ats-enabled' } }");
    bool value = qdict_get_bool(rsp, "return");

    qobject_unref(rsp);
    return value;
}

static void test_ats(void)
{
    Rig *r = rig_start(Q35 VTD SWITCH DEV0(",ats=on") DEV1());
    uint16_t bdf = r->dev[0]->bdf;
    uint64_t n = 64 * KiB, pages = n / 4096;
    Counters c = { 0 };

    iommu_on(r, true);
    fill(r, mem(r, 0), n, 6);

    /* Not enabled by the guest: an untranslated request */
    g_assert(!ats_enabled(r));
    run_ok(r, 0, CTRL(ATS, LOCAL), IOVA, 0, n);
    run_ok(r, 0, CTRL(ATS, LOCAL), mem(r, 1), 0, n);
    EXPECT_COUNTERS(r, "dev0", &c, .wr_host = n, .wr_peer = n, .routed = n);

    set_ats(r, true);
    g_assert(ats_enable_bit(r));
    g_assert(ats_enabled(r));
    qtest_memset(r->qts, BUF_A, 0, n);
    run_ok(r, 0, CTRL(ATS, LOCAL), IOVA, 0, n);
    expect_equal(r, BUF_A, mem(r, 0), n);
    EXPECT_COUNTERS(r, "dev0", &c, .wr_host = n, .misses = pages);
    run_ok(r, 0, CTRL(ATS, LOCAL), IOVA, 0, n);
    EXPECT_COUNTERS(r, "dev0", &c, .wr_host = n, .hits = pages);
    /* The other direction was never asked for */
    run_ok(r, 0, CTRL(LOCAL, ATS), 0, IOVA, n);
    EXPECT_COUNTERS(r, "dev0", &c, .rd_host = n, .misses = pages);
    run_ok(r, 0, CTRL(LOCAL, ATS), 0, IOVA, n);
    EXPECT_COUNTERS(r, "dev0", &c, .rd_host = n, .hits = pages);

    /* The peer by IOVA, with both directions in one copy */
    run_ok(r, 0, CTRL(ATS, ATS), IOVA + 1 * MiB, IOVA, n);
    expect_equal(r, mem(r, 1), mem(r, 0), n);
    EXPECT_COUNTERS(r, "dev0", &c, .rd_host = n, .wr_peer = n, .hits = pages,
                    .misses = pages);

    /* A raw bus address is no IOVA, although the switch would know it */
    start(r, 0, CTRL(ATS, LOCAL), mem(r, 1), 0, n);
    expect_error(r, 0, P2PDEV_ERR_ATS, true, mem(r, 1), 0);
    EXPECT_COUNTERS(r, "dev0", &c, .wr_failed = n, .misses = 1, .faults = 1);
    /* Nor is the interrupt range, which is in the address space as it is */
    start(r, 0, CTRL(ATS, LOCAL), 0xfee00000, 0, 4);
    expect_error(r, 0, P2PDEV_ERR_ATS, true, 0xfee00000, 0);
    EXPECT_COUNTERS(r, "dev0", &c, .wr_failed = 4, .misses = 1, .faults = 1);
    /* An untranslated request is still possible */
    run_ok(r, 0, CTRL(BUS, LOCAL), mem(r, 1), 0, n);
    EXPECT_COUNTERS(r, "dev0", &c, .wr_peer = n, .routed = n);

    /* A translation lives until it is invalidated, but not longer */
    vtd_map(&r->vtd, IOVA, 0, n, 0);
    vtd_flush_iotlb(&r->vtd);
    run_ok(r, 0, CTRL(LOCAL, ATS), 0, IOVA, n);
    EXPECT_COUNTERS(r, "dev0", &c, .rd_host = n, .hits = pages);
    vtd_flush_dev_iotlb(&r->vtd, bdf, IOVA + 4096, 1);
    EXPECT_COUNTERS(r, "dev0", &c, .invalidations = 1);
    start(r, 0, CTRL(LOCAL, ATS), 0, IOVA, n);
    expect_error(r, 0, P2PDEV_ERR_ATS, false, IOVA + 4096, 4096);
    EXPECT_COUNTERS(r, "dev0", &c, .rd_host = 4096, .rd_failed = n - 4096,
                    .hits = 1, .misses = 1, .faults = 1);
    run_ok(r, 0, CTRL(LOCAL, ATS), 0, IOVA + 8192, n - 8192);
    EXPECT_COUNTERS(r, "dev0", &c, .rd_host = n - 8192, .hits = pages - 2);
    vtd_flush_dev_iotlb(&r->vtd, bdf, IOVA, pages);
    EXPECT_COUNTERS(r, "dev0", &c, .invalidations = 1);
    start(r, 0, CTRL(LOCAL, ATS), 0, IOVA + n - 4096, 4096);
    expect_error(r, 0, P2PDEV_ERR_ATS, false, IOVA + n - 4096, 0);
    EXPECT_COUNTERS(r, "dev0", &c, .rd_failed = 4096, .misses = 1,
                    .faults = 1);
    /* Others' translations stay; a huge request drops them too */
    run_ok(r, 0, CTRL(ATS, LOCAL), IOVA + 1 * MiB, 0, 4096);
    EXPECT_COUNTERS(r, "dev0", &c, .wr_peer = 4096, .hits = 1);
    vtd_flush_dev_iotlb(&r->vtd, bdf, 0, 1 << 18);
    run_ok(r, 0, CTRL(ATS, LOCAL), IOVA + 1 * MiB, 0, 4096);
    EXPECT_COUNTERS(r, "dev0", &c, .wr_peer = 4096, .misses = 1,
                    .invalidations = 1);

    /* Permissions: a cached read does not permit a write */
    vtd_map(&r->vtd, IOVA, BUF_A, 4096, VTD_READ);
    run_ok(r, 0, CTRL(LOCAL, ATS), 0, IOVA, 4096);
    start(r, 0, CTRL(ATS, LOCAL), IOVA, 0, 4096);
    expect_error(r, 0, P2PDEV_ERR_ATS, true, IOVA, 0);
    EXPECT_COUNTERS(r, "dev0", &c, .rd_host = 4096, .wr_failed = 4096,
                    .misses = 2, .faults = 1);
    /* Nor an atomic operation, which needs both */
    start(r, 0, ATOMIC(FETCH_ADD, ATS), IOVA, 0, 8);
    expect_error(r, 0, P2PDEV_ERR_ATS, true, IOVA, 0);
    EXPECT_COUNTERS(r, "dev0", &c, .wr_failed = 8, .hits = 1, .misses = 1,
                    .faults = 1);

    /* Disabling forgets everything, and the IOMMU does the work again */
    set_ats(r, false);
    g_assert(!ats_enabled(r));
    run_ok(r, 0, CTRL(ATS, LOCAL), IOVA + 1 * MiB, 0, n);
    EXPECT_COUNTERS(r, "dev0", &c, .wr_peer = n);
    set_ats(r, true);
    run_ok(r, 0, CTRL(ATS, LOCAL), IOVA + 1 * MiB, 0, n);
    EXPECT_COUNTERS(r, "dev0", &c, .wr_peer = n, .misses = pages);

    /* So does Function Level Reset */
    pcie_writew(&r->topo, bdf, pcie_cap(&r->topo, bdf, PCI_CAP_ID_EXP) +
                PCI_EXP_DEVCTL, PCI_EXP_DEVCTL_BCR_FLR);
    g_assert(!ats_enable_bit(r));
    g_assert(!ats_enabled(r));
    rig_stop(r);
}

/* ACS Translation Blocking in the port above */
static void test_ats_blocked(void)
{
    Rig *r = rig_start(Q35 VTD PORTS DEV0(",ats=on") DEV1());
    uint16_t port = pcie_find(&r->topo, ROOT_PORT, 0)->bdf;
    unsigned acs = pcie_ext_cap(&r->topo, port, PCI_EXT_CAP_ID_ACS);
    Counters c = { 0 };

    iommu_on(r, true);
    set_ats(r, true);
    pcie_writew(&r->topo, port, acs + PCI_ACS_CTRL, PCI_ACS_TB);
    start(r, 0, CTRL(ATS, LOCAL), IOVA, 0, 4096);
    expect_error(r, 0, P2PDEV_ERR_ATS, true, IOVA, 0);
    EXPECT_COUNTERS(r, "dev0", &c, .wr_failed = 4096, .faults = 1);
    pcie_writew(&r->topo, port, acs + PCI_ACS_CTRL, PCI_ACS_RR | PCI_ACS_CR);
    run_ok(r, 0, CTRL(ATS, LOCAL), IOVA, 0, 4096);
    rig_stop(r);
}

/* Enabled before translation is: the IOMMU's range appears later */
static void test_ats_late_iommu(void)
{
    Rig *r = rig_start(Q35 VTD PORTS DEV0(",ats=on") DEV1());
    Counters c = { 0 };

    set_ats(r, true);
    g_assert(ats_enable_bit(r));
    g_assert(!ats_enabled(r));
    run_ok(r, 0, CTRL(ATS, LOCAL), BUF_A, 0, 4096);
    EXPECT_COUNTERS(r, "dev0", &c, .wr_host = 4096);
    iommu_on(r, true);
    g_assert(ats_enabled(r));
    start(r, 0, CTRL(ATS, LOCAL), BUF_A, 0, 4096);
    expect_error(r, 0, P2PDEV_ERR_ATS, true, BUF_A, 0);
    run_ok(r, 0, CTRL(ATS, LOCAL), IOVA, 0, 4096);
    EXPECT_COUNTERS(r, "dev0", &c, .wr_host = 4096, .wr_failed = 4096,
                    .misses = 2, .faults = 1);

    /* System reset with ATS on: the guest finds it off */
    qtest_system_reset(r->qts);
    pcie_topology_init(&r->topo, r->qts);
    g_assert(!ats_enable_bit(r));
    g_assert(!ats_enabled(r));
    rig_stop(r);
}

/* Work in flight and everything that can end it */
static void test_reset_in_flight(void)
{
    Rig *r = rig_start(Q35 PORTS TWO);
    uint16_t bdf = r->dev[0]->bdf;

    qom_set_uint(r->qts, "dev0", "delay-ms", 10);

    start(r, 0, CTRL(LOCAL, BUS) | P2PDEV_CTRL_IRQ_EN, 0, BUF_A, 4 * MiB);
    pcie_writew(&r->topo, bdf, pcie_cap(&r->topo, bdf, PCI_CAP_ID_EXP) +
                PCI_EXP_DEVCTL, PCI_EXP_DEVCTL_BCR_FLR);
    step_ms(r, 100);
    pcie_topology_init(&r->topo, r->qts);
    g_assert_cmphex(reg32(r, 0, P2PDEV_STATUS), ==, 0);
    g_assert_cmphex(reg32(r, 0, P2PDEV_CTRL), ==, 0);
    g_assert_cmpuint(reg32(r, 0, P2PDEV_FINISHED), ==, 0);

    start(r, 0, CTRL(LOCAL, BUS), 0, BUF_A, 4 * MiB);
    qtest_system_reset(r->qts);
    step_ms(r, 100);
    pcie_topology_init(&r->topo, r->qts);
    g_assert_cmphex(reg32(r, 0, P2PDEV_STATUS), ==, 0);
    g_assert_cmpuint(reg32(r, 0, P2PDEV_FINISHED), ==, 0);

    /* Memory decoding off in mid-transfer: the engine goes on, unseen */
    start(r, 0, CTRL(LOCAL, BUS), 0, BUF_A, 4 * MiB);
    pcie_writew(&r->topo, bdf, PCI_COMMAND, PCI_COMMAND_MASTER);
    pcie_writew(&r->topo, bdf, PCI_COMMAND,
                PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    wait_moved(r, 0, 4 * MiB);
    step_ms(r, 100);
    g_assert_cmphex(wait_done(r, 0), ==, P2PDEV_STATUS_DONE);
    rig_stop(r);
}

static void unplug(Rig *r, const char *id, uint16_t port)
{
    unsigned cap = pcie_cap(&r->topo, port, PCI_CAP_ID_EXP);

    qtest_qmp_device_del_send(r->qts, id);
    /* What the hotplug driver does about it: slot power off */
    pcie_writew(&r->topo, port, cap + PCI_EXP_SLTCTL,
                PCI_EXP_SLTCTL_PWR_IND_OFF | PCI_EXP_SLTCTL_PCC);
    qtest_qmp_eventwait(r->qts, "DEVICE_DELETED");
}

/* An IOMMU that could not tell us about invalidations */
static void test_ats_refused(void)
{
    Rig *r;
    unsigned i;

    /* glibc overwrites what is freed, so that nobody can still use it */
    g_setenv("MALLOC_PERTURB_", "85", true);
    r = rig_start(Q35 NATIVE_HOTPLUG "-device intel-iommu,intremap=off " PORTS
                  DEV0(",ats=on") DEV1());
    g_unsetenv("MALLOC_PERTURB_");
    iommu_on(r, false);
    for (i = 0; i < 3; i++) {
        set_ats(r, true);
        g_assert(!ats_enable_bit(r));
        g_assert(!ats_enabled(r));
    }
    run_ok(r, 0, CTRL(ATS, LOCAL), IOVA, 0, 4096);

    /* Once unplugged, it does not listen to changes of the memory map */
    unplug(r, "dev0", pcie_find(&r->topo, ROOT_PORT, 0)->bdf);
    pcie_writew(&r->topo, r->dev[1]->bdf, PCI_COMMAND, PCI_COMMAND_MASTER);
    pcie_writew(&r->topo, r->dev[1]->bdf, PCI_COMMAND,
                PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    run_ok(r, 1, CTRL(LOCAL, LOCAL), 0, 4096, 4096);
    rig_stop(r);
}

static void test_unplug_in_flight(void)
{
    Rig *r = rig_start(Q35 NATIVE_HOTPLUG VTD PORTS DEV0(",ats=on") DEV1());
    uint16_t port0 = pcie_find(&r->topo, ROOT_PORT, 0)->bdf;
    uint16_t port1 = pcie_find(&r->topo, ROOT_PORT, 1)->bdf;
    uint64_t peer = mem(r, 1);

    iommu_on(r, true);
    set_ats(r, true);

    /* The target goes, then nobody is there */
    unplug(r, "dev1", port1);
    start(r, 0, CTRL(ATS, LOCAL), IOVA + 1 * MiB, 0, 4096);
    expect_error(r, 0, P2PDEV_ERR_ATS, true, IOVA + 1 * MiB, 0);
    run_ok(r, 0, CTRL(ATS, LOCAL), IOVA, 0, 4096);
    g_assert_cmphex(qtest_readl(r->qts, peer), ==, 0);

    /* The requester goes, with a completion outstanding and ATS enabled */
    qom_set_uint(r->qts, "dev0", "delay-ms", 10);
    start(r, 0, CTRL(ATS, LOCAL), IOVA, 0, 64 * KiB);
    wait_moved(r, 0, 64 * KiB);
    g_assert_cmphex(reg32(r, 0, P2PDEV_STATUS), ==, P2PDEV_STATUS_BUSY);
    unplug(r, "dev0", port0);
    step_ms(r, 100);
    vtd_flush_dev_iotlb(&r->vtd, r->dev[0]->bdf, IOVA, 16);
    step_ms(r, 100);
    rig_stop(r);
}

/*
 * A request of dev0's that aborts a transfer of dev1's, which therefore sends
 * an interrupt, whose message resets or unplugs dev0: within the request.
 */
typedef struct Within {
    const char *name;
    bool unplug;
    bool atomic;        /* or a copy of which there is more to do */
} Within;

static const Within within[] = {
    { "reset-within-atomic", .atomic = true },
    { "unplug-within-atomic", .atomic = true, .unplug = true },
    { "unplug-within-copy", .unplug = true },
};

static void test_within(const void *opaque)
{
    enum { STOP = P2PDEV_CTRL_IRQ_EN | P2PDEV_CTRL_ABORT };
    const Within *w = opaque;
    Rig *r = rig_start(Q35 NATIVE_HOTPLUG PORTS TWO);
    uint64_t ctrl = r->dev[1]->bar[P2PDEV_REG_BAR] + P2PDEV_CTRL;
    uint16_t bdf = w->unplug ? pcie_find(&r->topo, ROOT_PORT, 0)->bdf
                             : r->dev[0]->bdf;
    uint64_t cap = ECAM + (bdf << 12) +
                   pcie_cap(&r->topo, bdf, PCI_CAP_ID_EXP);

    if (w->unplug) {
        enable_msi(r, 1, cap + PCI_EXP_SLTCTL,
                   PCI_EXP_SLTCTL_PWR_OFF | PCI_EXP_SLTCTL_PWR_IND_OFF);
    } else {
        enable_msi(r, 1, cap + PCI_EXP_DEVCTL, PCI_EXP_DEVCTL_BCR_FLR);
    }
    qom_set_uint(r->qts, "dev1", "delay-ms", 10);
    start(r, 1, CTRL(LOCAL, BUS), 0, BUF_A, 64);
    wait_moved(r, 1, 64);

    if (w->atomic) {
        set64(r, 0, P2PDEV_OPERAND, STOP);
        start(r, 0, ATOMIC(SWAP, BUS), ctrl, 0, 4);
    } else {
        qtest_writel(r->qts, RAM_END - 4, STOP);
        start(r, 0, CTRL(BUS, BUS), ctrl, RAM_END - 4, 8);
    }
    if (w->unplug) {
        qtest_qmp_eventwait(r->qts, "DEVICE_DELETED");
        g_assert_cmphex(pcie_readl(&r->topo, r->dev[0]->bdf, 0), ==,
                        UINT32_MAX);
    } else {
        wait_done(r, 1);
        step_ms(r, 100);
        pcie_topology_init(&r->topo, r->qts);
        g_assert_cmphex(reg32(r, 0, P2PDEV_STATUS), ==, 0);
        g_assert_cmphex(reg64(r, 0, P2PDEV_RESULT), ==, 0);
        g_assert_cmpuint(reg32(r, 0, P2PDEV_FINISHED), ==, 0);
        run_ok(r, 0, CTRL(LOCAL, BUS), 0, BUF_A, 4096);
    }
    step_ms(r, 100);
    qom_set_uint(r->qts, "dev1", "delay-ms", 0);
    run_ok(r, 1, CTRL(LOCAL, LOCAL), 0, 4096, 4096);
    rig_stop(r);
}

static void test_properties(void)
{
    QTestState *qts = qtest_init(Q35 PORTS
        "-device pcie-pci-bridge,id=conventional "
        "-object memory-backend-ram,id=odd,size=3M "
        "-object memory-backend-ram,id=used,size=1M "
        "-object memory-backend-ram,id=free,size=1M "
        DEV1(",memdev=used"));

    expect_refusal(qts, "power of two", "{ 'driver': 'p2pdev', 'bus': 'd0', "
                   "'size': 3145728 }");
    expect_refusal(qts, "power of two", "{ 'driver': 'p2pdev', 'bus': 'd0', "
                   "'size': 524288 }");
    expect_refusal(qts, "power of two", "{ 'driver': 'p2pdev', 'bus': 'd0', "
                   "'size': 137438953472 }");
    expect_refusal(qts, "power of two", "{ 'driver': 'p2pdev', 'bus': 'd0', "
                   "'memdev': 'odd' }");
    expect_refusal(qts, "already in use", "{ 'driver': 'p2pdev', 'bus': 'd0', "
                   "'memdev': 'used' }");
    expect_refusal(qts, "differs from the size of memdev", "{ 'driver': "
                   "'p2pdev', 'bus': 'd0', 'memdev': 'free', "
                   "'size': 2097152 }");
    expect_refusal(qts, "needs a PCI Express bus", "{ 'driver': 'p2pdev', "
                   "'bus': 'conventional', 'addr': '1' }");
    qtest_quit(qts);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    if (!qtest_has_machine("q35") || !qtest_has_device("p2pdev") ||
        !qtest_has_device("pcie-root-port")) {
        g_test_skip("p2pdev or its machine is not built");
        return 0;
    }
    qtest_add_func("p2pdev/registers", test_registers);
    qtest_add_func("p2pdev/properties", test_properties);
    qtest_add_func("p2pdev/copy", test_copy);
    qtest_add_func("p2pdev/config-space", test_config_space);
    qtest_add_func("p2pdev/memdev", test_memdev);
    qtest_add_func("p2pdev/errors", test_errors);
    qtest_add_func("p2pdev/gone", test_gone);
    qtest_add_func("p2pdev/busy", test_busy);
    qtest_add_func("p2pdev/msi", test_msi);
    qtest_add_data_func("p2pdev/peer/host-bridge", NULL, test_peer);
    qtest_add_func("p2pdev/reset-in-flight", test_reset_in_flight);
    for (unsigned i = 0; i < ARRAY_SIZE(within); i++) {
        g_autofree char *name = g_strdup_printf("p2pdev/%s", within[i].name);

        qtest_add_data_func(name, &within[i], test_within);
    }
    if (qtest_has_device("x3130-upstream")) {
        qtest_add_data_func("p2pdev/peer/switch", (void *)1, test_peer);
        qtest_add_func("p2pdev/straddle", test_straddle);
        qtest_add_func("p2pdev/atomics", test_atomics);
    }
    if (qtest_has_device("intel-iommu")) {
        qtest_add_data_func("p2pdev/iommu/host-bridge", NULL, test_iommu);
        qtest_add_func("p2pdev/iommu/acs", test_acs);
        qtest_add_func("p2pdev/ats/blocked", test_ats_blocked);
        qtest_add_func("p2pdev/ats/late-iommu", test_ats_late_iommu);
        qtest_add_func("p2pdev/ats/refused", test_ats_refused);
        qtest_add_func("p2pdev/unplug-in-flight", test_unplug_in_flight);
        if (qtest_has_device("x3130-upstream")) {
            qtest_add_data_func("p2pdev/iommu/switch", (void *)1, test_iommu);
            qtest_add_func("p2pdev/iommu/acs-above-switch",
                           test_acs_above_switch);
            qtest_add_func("p2pdev/ats/requests", test_ats);
        }
    }
    return g_test_run();
}
