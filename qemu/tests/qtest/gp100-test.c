/*
 * QTest of the GP100 GPU: registers, interrupts, page tables, BAR1 windows,
 * channels and the copy engine, driven as a driver would drive them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * VRAM is a shared file, so what the GPU did to it is seen without the GPU's
 * help.  Page tables, instance blocks and pushbuffers are made by hand.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "hw/pci/pci_regs.h"
#include "qobject/qdict.h"
#include "gp100-driver.h"
#include "vtd-tables.h"
#include "../../hw/misc/p2pdev/p2pdev_regs.h"

#define DEVFN           (8 << 3)
#define ECAM            0xb0000000ull
#define BAR0            0xe0000000ull
#define BAR1            0x1000000000ull
#define BAR2            0x2000000000ull
#define BAR0_SIZE       0x1000000
#define BAR2_SIZE       0x2000000
#define VRAM_SIZE       (64 * MiB)
#define BAR1_SIZE       (64 * MiB)

/* A port with native hotplug, and another GPU, "gpu2", beside that at 8.0 */
#define PORT            "-global ICH9-LPC.acpi-pci-hotplug-with-bridge-" \
                        "support=off " \
                        "-device pcie-root-port,id=rp,chassis=1,addr=2.0 "
#define SECOND          "-device gp100,id=gpu2,addr=9.0,vram-size=64M," \
                        "bar1-size=64M "
#define PORT_DEVFN      (2 << 3)
#define SECOND_DEVFN    (9 << 3)

/* Of a port: BAR0, as base and limit */
#define BAR0_WINDOW     0xe0f0e000

/* Guest memory that tests use, above what firmware touches */
#define SYS_MSI         0x100000
#define SYS_BUF         0x200000
#define SYS_TABLES      0x300000

/*
 * Let @ns pass.  A timer hands its work to a bottom half, which has run by the
 * time the second of two further requests is served.
 */
static void step(Gpu *g, int64_t ns)
{
    qtest_clock_step(g->qts, ns);
    qtest_readl(g->qts, SYS_BUF);
    qtest_readl(g->qts, SYS_BUF);
}

/* PCI configuration space, by the legacy ports */

static void cfg_select(Gpu *g, unsigned offset)
{
    qtest_outl(g->qts, 0xcf8, 0x80000000u | g->bdf << 8 | (offset & ~3));
}

static uint32_t cfg_readl(Gpu *g, unsigned offset)
{
    cfg_select(g, offset);
    return qtest_inl(g->qts, 0xcfc);
}

static void cfg_writel(Gpu *g, unsigned offset, uint32_t val)
{
    cfg_select(g, offset);
    qtest_outl(g->qts, 0xcfc, val);
}

static void cfg_writew(Gpu *g, unsigned offset, uint16_t val)
{
    cfg_select(g, offset);
    qtest_outw(g->qts, 0xcfc + (offset & 2), val);
}

static unsigned cfg_cap(Gpu *g, uint8_t id)
{
    unsigned at = cfg_readl(g, PCI_CAPABILITY_LIST) & 0xff;

    while (at && (cfg_readl(g, at) & 0xff) != id) {
        at = cfg_readl(g, at) >> 8 & 0xff;
    }
    g_assert_cmpuint(at, !=, 0);
    return at;
}

static void ecam_enable(Gpu *g)
{
    qtest_outl(g->qts, 0xcf8, 0x80000060);
    qtest_outl(g->qts, 0xcfc, (uint32_t)ECAM | 1);
}

/*
 * What is behind the port, and in its window, is on bus 1, where cfg_...() go
 * then.  @window: base and limit, as in the port's registers.  Where the
 * register is that switches the slot's power.
 */
static uint64_t port_enable(Gpu *g, uint32_t window)
{
    uint64_t slot;

    ecam_enable(g);
    g->bdf = PORT_DEVFN;
    cfg_writel(g, PCI_PRIMARY_BUS, 1 << 16 | 1 << 8);
    cfg_writel(g, PCI_MEMORY_BASE, window);
    cfg_writew(g, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    slot = ECAM + (PORT_DEVFN << 12) + cfg_cap(g, PCI_CAP_ID_EXP) +
           PCI_EXP_SLTCTL;
    g->bdf = 1 << 8;
    return slot;
}

static void msi_enable(Gpu *g, uint32_t addr, uint16_t data)
{
    unsigned cap = cfg_cap(g, PCI_CAP_ID_MSI);

    cfg_writel(g, cap + PCI_MSI_ADDRESS_LO, addr);
    cfg_writel(g, cap + PCI_MSI_ADDRESS_HI, 0);
    cfg_writew(g, cap + PCI_MSI_DATA_64, data);
    cfg_writew(g, cap + PCI_MSI_FLAGS, PCI_MSI_FLAGS_ENABLE);
}

/* @slot: from port_enable() */
static void msi_unplugs(Gpu *g, uint64_t slot)
{
    msi_enable(g, slot, PCI_EXP_SLTCTL_PWR_OFF | PCI_EXP_SLTCTL_PWR_IND_OFF);
}

static uint64_t bar2(Gpu *g)
{
    return g->bar1 + (BAR2 - BAR1);
}

static void gpu_enable(Gpu *g)
{
    cfg_writel(g, PCI_BASE_ADDRESS_0, g->bar0);
    cfg_writel(g, PCI_BASE_ADDRESS_1, g->bar1);
    cfg_writel(g, PCI_BASE_ADDRESS_2, g->bar1 >> 32);
    cfg_writel(g, PCI_BASE_ADDRESS_3, bar2(g));
    cfg_writel(g, PCI_BASE_ADDRESS_4, bar2(g) >> 32);
    cfg_writew(g, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

/* SECOND, of the same machine as @g */
static Gpu second_enable(Gpu *g)
{
    Gpu second = {
        .qts = g->qts,
        .bar0 = BAR0 + BAR0_SIZE,
        .bar1 = BAR1 + (BAR2 - BAR1) / 2,
        .bdf = SECOND_DEVFN,
    };

    gpu_enable(&second);
    return second;
}

/* Every access to BAR2 faults, and a fault is an interrupt. */
static void fault_in_bar2(Gpu *g)
{
    wr(g, PBUS_BAR2_BLOCK, UINT32_MAX);
    wr(g, PFIFO_INTR_EN, PFIFO_INTR_MMU_FAULT);
    wr(g, PMC_INTR_EN_SET, UINT32_MAX);
}

/* @place: of the GPU, "bus=" or "addr="; @devices: options in front of it */
static Gpu *gpu_start_at(const char *devices, const char *place,
                         const char *props)
{
    Gpu *g = g_new0(Gpu, 1);
    int fd;

    g->bar0 = BAR0;
    g->bar1 = BAR1;
    fd = g_file_open_tmp("gp100-XXXXXX", &g->path, NULL);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, VRAM_SIZE), ==, 0);
    g->vram = mmap(NULL, VRAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    g_assert(g->vram != MAP_FAILED);
    close(fd);
    g->qts = qtest_initf("-M q35 -nodefaults -m 64M %s "
                         "-object memory-backend-file,id=vram,share=on,"
                         "size=%u,mem-path=%s "
                         "-device gp100,id=gpu,%s,memdev=vram,"
                         "bar1-size=%u%s", devices, (unsigned)VRAM_SIZE,
                         g->path, place, (unsigned)BAR1_SIZE, props);
    return g;
}

/* The same at 8.0, enabled */
static Gpu *gpu_start_beside(const char *devices, const char *props)
{
    Gpu *g = gpu_start_at(devices, "addr=8.0", props);

    g->bdf = DEVFN;
    gpu_enable(g);
    return g;
}

static Gpu *gpu_start(const char *props)
{
    return gpu_start_beside("", props);
}

static void gpu_stop(Gpu *g)
{
    qtest_quit(g->qts);
    munmap(g->vram, VRAM_SIZE);
    unlink(g->path);
    g_free(g->path);
    g_free(g);
}

static uint64_t counter(Gpu *g, const char *name)
{
    bool second = g->bdf == SECOND_DEVFN;
    QDict *r = qtest_qmp(g->qts, "{'execute': 'qom-get', 'arguments': "
                         "{'path': %s, 'property': %s}}",
                         second ? "/machine/peripheral/gpu2" :
                                  "/machine/peripheral/gpu", name);
    uint64_t val;

    g_assert(qdict_haskey(r, "return"));
    val = qdict_get_int(r, "return");
    qobject_unref(r);
    return val;
}

static void set(Gpu *g, const char *name, uint32_t val)
{
    qtest_qmp_assert_success(g->qts, "{'execute': 'qom-set', 'arguments': "
                             "{'path': '/machine/peripheral/gpu', "
                             "'property': %s, 'value': %u}}", name, val);
}

/* Ask for something through a string property.  Is it accepted? */
static bool ask(Gpu *g, const char *property, const char *value)
{
    QDict *r = qtest_qmp(g->qts, "{'execute': 'qom-set', 'arguments': "
                         "{'path': '/machine/peripheral/gpu', "
                         "'property': %s, 'value': %s}}", property, value);
    bool ok = qdict_haskey(r, "return");

    qobject_unref(r);
    return ok;
}

static void check_answer(Gpu *g, const char *property, const char *expected)
{
    QDict *r = qtest_qmp(g->qts, "{'execute': 'qom-get', 'arguments': "
                         "{'path': '/machine/peripheral/gpu', "
                         "'property': %s}}", property);

    g_assert_cmpstr(qdict_get_str(r, "return"), ==, expected);
    qobject_unref(r);
}

static uint32_t bar1(Gpu *g, uint64_t va)
{
    return qtest_readl(g->qts, BAR1 + va);
}

/* Tests */

static void test_identity(void)
{
    Gpu *g = gpu_start("");
    uint8_t rom[4096], sum = 0;
    unsigned i;

    g_assert_cmphex(cfg_readl(g, 0), ==, 0x15f810de);
    g_assert_cmphex(cfg_readl(g, 8) >> 8, ==, 0x030200);
    cfg_writel(g, PCI_BASE_ADDRESS_0, UINT32_MAX);
    g_assert_cmphex(cfg_readl(g, PCI_BASE_ADDRESS_0), ==, 0xff000000);
    cfg_writel(g, PCI_BASE_ADDRESS_1, UINT32_MAX);
    g_assert_cmphex(cfg_readl(g, PCI_BASE_ADDRESS_1), ==, 0xfc00000c);
    cfg_writel(g, PCI_BASE_ADDRESS_3, UINT32_MAX);
    g_assert_cmphex(cfg_readl(g, PCI_BASE_ADDRESS_3), ==, 0xfe00000c);
    gpu_enable(g);

    g_assert_cmphex(rd(g, PMC_BOOT_0), ==, 0x130000a1);
    wr(g, PMC_BOOT_0, 0);
    g_assert_cmphex(rd(g, PMC_BOOT_0), ==, 0x130000a1);
    g_assert_cmpuint(rd(g, FBPA0_MEM_MIB), ==, VRAM_SIZE / MiB);
    g_assert_cmphex(rd(g, PTOP_DEVICE_INFO), ==, 0x8000004f);
    g_assert_cmphex(rd(g, PTOP_DEVICE_INFO + 4), ==, 0x801040ad);
    g_assert_cmphex(rd(g, PTOP_DEVICE_INFO + 8), ==, 0x00028c3e);
    g_assert_cmphex(rd(g, PTOP_DEVICE_INFO + 12), ==, 0);

    qtest_memread(g->qts, BAR0 + PROM_BASE, rom, sizeof(rom));
    for (i = 0; i < sizeof(rom); i++) {
        sum += rom[i];
    }
    g_assert_cmpuint(sum, ==, 0);
    g_assert_cmphex(lduw_le_p(rom), ==, 0xaa55);
    g_assert(!memcmp(rom + lduw_le_p(rom + 0x18), "PCIR\xde\x10\xf8\x15", 8));
    gpu_stop(g);
}

/* What VRAM cannot be, and where a GPU cannot be. */
static void test_refused(void)
{
    static const struct {
        const char *bus, *memdev, *error;
    } cases[] = {
        { "rp", "ro", "read-only" },
        { "bridge", "rw", "PCI Express slot" },
    };
    g_autofree char *path = NULL;
    QTestState *qts;
    int fd = g_file_open_tmp("gp100-XXXXXX", &path, NULL);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, VRAM_SIZE), ==, 0);
    close(fd);
    qts = qtest_initf("-M q35 -nodefaults -m 64M "
                      "-device pcie-root-port,id=rp,chassis=1 "
                      "-device pci-bridge,id=bridge,chassis_nr=2 "
                      "-object memory-backend-ram,id=rw,size=%u "
                      "-object memory-backend-file,id=ro,readonly=on,"
                      "size=%u,mem-path=%s", (unsigned)VRAM_SIZE,
                      (unsigned)VRAM_SIZE, path);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        QDict *r = qtest_qmp(qts, "{'execute': 'device_add', 'arguments': "
                             "{'driver': 'gp100', 'bus': %s, 'memdev': %s}}",
                             cases[i].bus, cases[i].memdev);
        const char *desc;

        g_assert(qdict_haskey(r, "error"));
        desc = qdict_get_str(qdict_get_qdict(r, "error"), "desc");
        if (!strstr(desc, cases[i].error)) {
            g_error("%s", desc);
        }
        qobject_unref(r);
    }
    qtest_quit(qts);
    unlink(path);
}

static void test_strict(void)
{
    Gpu *g = gpu_start("");

    wr(g, 0x555550, 0x12345678);
    g_assert_cmphex(rd(g, 0x555550), ==, 0x12345678);
    g_assert_cmpuint(counter(g, "unknown-regs"), ==, 2);
    g_assert_cmphex(qtest_readb(g->qts, BAR0 + 0x555551), ==, 0x56);
    gpu_stop(g);

    g = gpu_start(",strict=on");
    wr(g, 0x555550, 0x12345678);
    g_assert_cmphex(rd(g, 0x555550), ==, 0xbadf1100);
    g_assert_cmpuint(counter(g, "unknown-regs"), ==, 2);
    g_assert_cmpuint(counter(g, "guest-errors"), ==, 1);
    gpu_stop(g);
}

static void test_ptimer(void)
{
    Gpu *g = gpu_start("");
    uint32_t then;

    wr(g, PTIMER_TIME_1, 5);
    wr(g, PTIMER_TIME_0, 0x1000);
    g_assert_cmphex(rd(g, PTIMER_TIME_1), ==, 5);
    then = rd(g, PTIMER_TIME_0);
    step(g, 3200);
    g_assert_cmpuint(rd(g, PTIMER_TIME_0) - then, ==, 3200);

    wr(g, PTIMER_ALARM_0, rd(g, PTIMER_TIME_0) + 6400);
    wr(g, PTIMER_INTR_EN, 1);
    step(g, 3200);
    g_assert_cmphex(rd(g, PTIMER_INTR), ==, 0);
    step(g, 3300);
    g_assert_cmphex(rd(g, PTIMER_INTR), ==, 1);
    g_assert_cmphex(rd(g, PMC_INTR), ==, PMC_LEAF0_PTIMER);
    wr(g, PTIMER_INTR, 1);
    g_assert_cmphex(rd(g, PMC_INTR), ==, 0);
    gpu_stop(g);
}

/* Make the timer request an interrupt, and take the request back. */
static void raise_timer(Gpu *g)
{
    wr(g, PTIMER_ALARM_0, rd(g, PTIMER_TIME_0) + 64);
    wr(g, PTIMER_INTR_EN, 1);
    step(g, 128);
}

static uint32_t msi_take(Gpu *g)
{
    uint32_t val = qtest_readl(g->qts, SYS_MSI);

    qtest_writel(g->qts, SYS_MSI, 0);
    return val;
}

/* The order in which nouveau handles an interrupt must lose nothing. */
static void test_msi(void)
{
    Gpu *g = gpu_start("");
    unsigned cap = cfg_cap(g, PCI_CAP_ID_MSI);

    qtest_writel(g->qts, SYS_MSI, 0);
    msi_enable(g, SYS_MSI, 0x1234);

    raise_timer(g);
    g_assert_cmphex(msi_take(g), ==, 0);        /* leaf is off */
    wr(g, PMC_INTR_EN_SET, UINT32_MAX);
    g_assert_cmphex(msi_take(g), ==, 0x1234);
    g_assert_cmphex(rd(g, PMC_INTR_EN), ==, UINT32_MAX);

    /* One message for each arming, however long the request lasts. */
    wr(g, PMC_INTR_EN_SET, UINT32_MAX);
    g_assert_cmphex(msi_take(g), ==, 0);

    /* Disable, rearm, do not serve, enable: it comes again. */
    wr(g, PMC_INTR_EN_CLEAR, UINT32_MAX);
    wr(g, XVE_MSI_REARM, 0);
    g_assert_cmphex(msi_take(g), ==, 0);
    wr(g, PMC_INTR_EN_SET, UINT32_MAX);
    g_assert_cmphex(msi_take(g), ==, 0x1234);

    /* The same, served: it does not. */
    wr(g, PMC_INTR_EN_CLEAR, UINT32_MAX);
    wr(g, XVE_MSI_REARM, 0);
    wr(g, PTIMER_INTR, 1);
    wr(g, PMC_INTR_EN_SET, UINT32_MAX);
    g_assert_cmphex(msi_take(g), ==, 0);
    g_assert_cmpuint(counter(g, "msi-sent"), ==, 2);

    /* Without an enabled MSI capability: INTx, a level. */
    cfg_writew(g, cap + PCI_MSI_FLAGS, 0);
    raise_timer(g);
    g_assert_cmphex(cfg_readl(g, PCI_COMMAND) >> 16 & PCI_STATUS_INTERRUPT,
                    !=, 0);

    /* MSI takes the level away, and its end brings it back. */
    cfg_writew(g, cap + PCI_MSI_FLAGS, PCI_MSI_FLAGS_ENABLE);
    g_assert_cmphex(msi_take(g), ==, 0x1234);   /* still armed */
    g_assert_cmphex(cfg_readl(g, PCI_COMMAND) >> 16 & PCI_STATUS_INTERRUPT,
                    ==, 0);
    cfg_writew(g, cap + PCI_MSI_FLAGS, 0);
    g_assert_cmphex(cfg_readl(g, PCI_COMMAND) >> 16 & PCI_STATUS_INTERRUPT,
                    !=, 0);
    wr(g, PTIMER_INTR, 1);
    g_assert_cmphex(cfg_readl(g, PCI_COMMAND) >> 16 & PCI_STATUS_INTERRUPT,
                    ==, 0);
    g_assert_cmpuint(counter(g, "msi-sent"), ==, 3);
    gpu_stop(g);
}

static void test_pramin(void)
{
    Gpu *g = gpu_start("");

    wr(g, PBUS_BAR0_WINDOW, 0x300000 >> 16);
    qtest_writel(g->qts, BAR0 + PRAMIN_BASE + 0x1234, 0xcafe0001);
    g_assert_cmphex(v_ldl(g, 0x301234), ==, 0xcafe0001);
    v_stl(g, 0x3ffffc, 0xcafe0002);
    g_assert_cmphex(rd(g, PRAMIN_BASE + 0xffffc), ==, 0xcafe0002);

    /* Outside VRAM */
    wr(g, PBUS_BAR0_WINDOW, VRAM_SIZE >> 16);
    g_assert_cmphex(rd(g, PRAMIN_BASE), ==, UINT32_MAX);
    wr(g, PRAMIN_BASE, 1);
    wr(g, PBUS_BAR0_WINDOW, UINT32_MAX);
    g_assert_cmphex(rd(g, PRAMIN_BASE + 0xffffc), ==, UINT32_MAX);
    g_assert_cmpuint(counter(g, "guest-errors"), ==, 4);
    gpu_stop(g);
}

/* Every kind of page table entry, seen through BAR1 without windows. */
static void check_walk(const char *props, bool cached)
{
    Gpu *g = gpu_start(props);
    uint64_t faults;

    make_space(g);
    v_stl(g, V_DATA, 0x11111111);
    v_stl(g, V_DATA + 0x1000, 0x22222222);
    v_stl(g, V_DATA + 0x13004, 0x33333333);
    bind_bar1(g);

    set_small(g, 1, PTE(V_DATA + 0x1000));
    g_assert_cmphex(bar1(g, VA_SMALL + 0x1000), ==, 0x22222222);
    qtest_writel(g->qts, BAR1 + VA_SMALL + 0x1ffc, 0x44444444);
    g_assert_cmphex(v_ldl(g, V_DATA + 0x1ffc), ==, 0x44444444);

    /* an access across the end of a page */
    set_small(g, 2, PTE(V_DATA));
    invalidate(g, V_PD3);
    g_assert_cmphex(qtest_readq(g->qts, BAR1 + VA_SMALL + 0x1ffc), ==,
                    0x1111111144444444ull);

    /* a big page hides the small pages below it */
    set_big(g, 0, PTE(V_DATA + 0x10000));
    invalidate(g, V_PD3);
    g_assert_cmphex(bar1(g, VA_SMALL + 0x3004), ==, 0x33333333);

    /* sparse: reads are 0, writes go nowhere, and it is no fault */
    faults = counter(g, "mmu-faults");
    set_big(g, 0, PTE_SPARSE);
    invalidate(g, V_PD3);
    qtest_writel(g->qts, BAR1 + VA_SMALL + 0x1000, 0x55555555);
    g_assert_cmphex(bar1(g, VA_SMALL + 0x1000), ==, 0);
    g_assert_cmphex(v_ldl(g, V_DATA + 0x1000), ==, 0x22222222);
    g_assert_cmpuint(counter(g, "mmu-faults"), ==, faults);

    /* invalid big page that rules small ones out; then one that does not */
    set_big(g, 0, PTE_NO_SMALL);
    invalidate(g, V_PD3);
    g_assert_cmphex(bar1(g, VA_SMALL + 0x1000), ==, UINT32_MAX);
    g_assert_cmpuint(counter(g, "mmu-faults"), ==, faults + 1);
    set_big(g, 0, 0);
    invalidate(g, V_PD3);
    g_assert_cmphex(bar1(g, VA_SMALL + 0x1000), ==, 0x22222222);

    /* read-only */
    set_small(g, 1, PTE(V_DATA + 0x1000) | PTE_RO);
    invalidate(g, V_PD3);
    wr(g, PFIFO_FAULT_UNITS, UINT32_MAX);
    qtest_writel(g->qts, BAR1 + VA_SMALL + 0x1000, 0x66666666);
    g_assert_cmphex(v_ldl(g, V_DATA + 0x1000), ==, 0x22222222);
    g_assert_cmphex(rd(g, PFIFO_FAULT_UNITS), ==, 1 << 4);
    g_assert_cmphex(rd(g, PFIFO_FAULT_INST + 0x40), ==, V_INST >> 12);
    g_assert_cmphex(rd(g, PFIFO_FAULT_LO + 0x40), ==, VA_SMALL + 0x1000);
    g_assert_cmphex(rd(g, PFIFO_FAULT_INFO + 0x40) & 0x1f, ==, 6);
    g_assert_cmphex(rd(g, PFIFO_INTR), ==, PFIFO_INTR_MMU_FAULT);
    wr(g, PFIFO_FAULT_UNITS, 1 << 4);
    g_assert_cmphex(rd(g, PFIFO_INTR), ==, 0);

    /* system memory */
    qtest_writel(g->qts, SYS_BUF + 8, 0x77777777);
    set_small(g, 3, PTE_SYS(SYS_BUF));
    g_assert_cmphex(bar1(g, VA_SMALL + 0x3008), ==, 0x77777777);

    /* a page outside VRAM, tables outside VRAM, beyond the limit */
    faults = counter(g, "bar1-faults");
    set_small(g, 4, PTE(VRAM_SIZE));
    g_assert_cmphex(bar1(g, VA_SMALL + 0x4000), ==, UINT32_MAX);
    v_stq(g, V_PD0 + 32, PDE(VRAM_SIZE - 0x100));
    v_stq(g, V_PD0 + 40, PDE(VRAM_SIZE * 4));
    g_assert_cmphex(bar1(g, VA_LARGE), ==, UINT32_MAX);
    v_stq(g, V_INST + 0x208, VA_SMALL - 1);
    bind_bar1(g);
    g_assert_cmphex(bar1(g, VA_SMALL), ==, UINT32_MAX);
    g_assert_cmpuint(counter(g, "bar1-faults"), ==, faults + 3);
    v_stq(g, V_INST + 0x208, BAR1_SIZE - 1);
    bind_bar1(g);

    /* a translation stays until the right page directory is invalidated */
    v_stl(g, V_DATA + 0x5000, 0x88888888);
    v_stl(g, V_DATA + 0x6000, 0x99999999);
    set_small(g, 5, PTE(V_DATA + 0x5000));
    g_assert_cmphex(bar1(g, VA_SMALL + 0x5000), ==, 0x88888888);
    set_small(g, 5, PTE(V_DATA + 0x6000));
    invalidate(g, V_PD3 + 0x1000);
    g_assert_cmphex(bar1(g, VA_SMALL + 0x5000), ==,
                    cached ? 0x88888888 : 0x99999999);
    invalidate(g, V_PD3);
    g_assert_cmphex(bar1(g, VA_SMALL + 0x5000), ==, 0x99999999);
    gpu_stop(g);
}

static void test_walk(void)
{
    check_walk(",bar1-windows=off", true);
}

static void test_walk_no_tlb(void)
{
    check_walk(",bar1-windows=off,tlb=off", false);
}

/* Large pages of BAR1 are RAM, as long as the page tables say so. */
static void test_windows(void)
{
    Gpu *g = gpu_start("");
    uint64_t reads;

    make_space(g);
    set_large(g, 0, 0);
    set_large(g, 2, PTE(0x400000));
    set_large(g, 3, PTE(0x600000));
    set_large(g, 4, PTE(0x200000));
    set_large(g, 5, PTE(VRAM_SIZE));            /* not VRAM: no window */
    set_large(g, 6, PTE(0x800000) | PTE_RO);    /* writes must fault */
    v_stl(g, 0x600000, 0xa0a0a0a0);
    v_stl(g, 0x200010, 0xb0b0b0b0);
    bind_bar1(g);
    g_assert_cmpuint(counter(g, "bar1-window-count"), ==, 2);
    g_assert_cmpuint(counter(g, "bar1-window-bytes"), ==, 6 * MiB);
    reads = counter(g, "bar1-reads");
    g_assert_cmphex(bar1(g, 0x600000), ==, 0xa0a0a0a0);
    g_assert_cmphex(bar1(g, 0x800010), ==, 0xb0b0b0b0);
    qtest_writel(g->qts, BAR1 + 0x5ffffc, 0xc0c0c0c0);
    g_assert_cmphex(v_ldl(g, 0x5ffffc), ==, 0xc0c0c0c0);
    g_assert_cmpuint(counter(g, "bar1-reads"), ==, reads);
    g_assert_cmpuint(counter(g, "bar1-writes"), ==, 0);

    /* 2 MiB read-only is MMIO */
    qtest_writel(g->qts, BAR1 + 0xc00000, 1);
    g_assert_cmpuint(counter(g, "bar1-faults"), ==, 1);

    /* Nothing changes before the invalidation, everything with it. */
    set_large(g, 2, 0);
    set_large(g, 4, PTE(0x600000));
    g_assert_cmphex(bar1(g, 0x5ffffc), ==, 0xc0c0c0c0);
    invalidate(g, V_PD3 + 0x1000);
    g_assert_cmpuint(counter(g, "bar1-window-bytes"), ==, 6 * MiB);
    invalidate(g, V_PD3);
    g_assert_cmpuint(counter(g, "bar1-window-count"), ==, 2);
    g_assert_cmpuint(counter(g, "bar1-window-bytes"), ==, 4 * MiB);
    g_assert_cmphex(bar1(g, 0x5ffffc), ==, UINT32_MAX);
    g_assert_cmpuint(counter(g, "bar1-faults"), ==, 2);
    g_assert_cmphex(bar1(g, 0x800000), ==, 0xa0a0a0a0);
    g_assert_cmphex(bar1(g, 0x600000), ==, 0xa0a0a0a0);

    /* Doorbells are never RAM. */
    wr(g, PFIFO_USERD_BASE, 1u << 28 | 0x800000 >> 12);
    g_assert_cmpuint(counter(g, "bar1-window-bytes"), ==, 2 * MiB);

    /* Physical mode, and reset: no windows, linear VRAM. */
    wr(g, PBUS_BAR1_BLOCK, 0);
    g_assert_cmpuint(counter(g, "bar1-window-count"), ==, 0);
    g_assert_cmphex(bar1(g, 0x200010), ==, 0xb0b0b0b0);
    bind_bar1(g);
    g_assert_cmpuint(counter(g, "bar1-window-count"), ==, 1);
    qtest_system_reset(g->qts);
    g_assert_cmpuint(counter(g, "bar1-window-count"), ==, 0);
    gpu_stop(g);
}

/*
 * Page tables decide how many windows there are, but not that QEMU runs out of
 * sections.  All 512 MiB of BAR1 have the same page directory here.
 */
static void test_window_limit(void)
{
    const uint64_t size = 16 * GiB, last = size - 4 * MiB;
    Gpu *g = gpu_start(",bar1-size=16G");
    uint64_t reads;

    make_space(g);
    v_stq(g, V_INST + 0x208, size - 1);
    for (unsigned i = 0; i < size / (512 * MiB); i++) {
        v_stq(g, V_PD1 + 8 * i, PDE(V_PD0));
    }
    for (unsigned i = 0; i < 256; i++) {
        set_large(g, i, i % 2 ? 0 : PTE(V_DATA));
    }
    v_stl(g, V_DATA, 0xdada0001);
    bind_bar1(g);
    g_assert_cmpuint(counter(g, "bar1-window-count"), ==, 1536);
    g_assert_cmpuint(counter(g, "bar1-window-rest"), ==, 4096 - 1536);
    reads = counter(g, "bar1-reads");
    g_assert_cmphex(bar1(g, 0), ==, 0xdada0001);
    g_assert_cmpuint(counter(g, "bar1-reads"), ==, reads);
    g_assert_cmphex(bar1(g, last), ==, 0xdada0001);
    g_assert_cmpuint(counter(g, "bar1-reads"), ==, reads + 1);

    /* Without gaps one more fits in for each. */
    for (unsigned i = 0; i < 256; i++) {
        set_large(g, i, PTE(V_DATA));
    }
    invalidate(g, V_PD3);
    g_assert_cmpuint(counter(g, "bar1-window-count"), ==, 3071);
    g_assert_cmpuint(counter(g, "bar1-window-rest"), ==, 8192 - 3071);

    /* What is not used any more can be used again. */
    for (unsigned i = 0; i < 256; i++) {
        set_large(g, i, i == 0 ? PTE(V_DATA) : 0);
    }
    invalidate(g, V_PD3);
    g_assert_cmpuint(counter(g, "bar1-window-count"), ==, 32);
    g_assert_cmpuint(counter(g, "bar1-window-rest"), ==, 0);
    gpu_stop(g);
}

/* Channels */

/* Channel 0, ready to run, in the space of BAR1 */
static Push make_channel(Gpu *g)
{
    Push p;

    make_space(g);
    v_zero(g, V_SEM, 0x1000);
    bind_bar1(g);
    channel_init(g, 0);
    g_assert_cmphex(rd(g, CCSR_CHANNEL), ==, 1);
    g_assert_cmphex(rd(g, PFIFO_RUNLIST_INTR), ==, 1);
    wr(g, PFIFO_RUNLIST_INTR, 1);
    push_init(&p, 0);
    push(&p, INC(CE_SUBCH, 0, 1));
    push(&p, CE_CLASS);
    return p;
}

/* Channel 1, ready to run, beside channel 0 */
static Push make_second(Gpu *g)
{
    Push q;

    channel_init(g, 1);
    wr(g, PFIFO_RUNLIST_INTR, 1);
    push_init(&q, 1);
    push(&q, INC(CE_SUBCH, 0, 1));
    push(&q, CE_CLASS);
    return q;
}

static void test_channel(void)
{
    Gpu *g = gpu_start("");
    Push p = make_channel(g);

    push_sem(&p, V_SEM, 0x1001, 2);
    push(&p, 0);                             /* NOP */
    push(&p, INC(0, 0x20, 1));               /* NON_STALL_INTERRUPT */
    push(&p, 0);
    kick(g, &p);
    g_assert_cmphex(v_ldl(g, V_SEM), ==, 0x1001);
    g_assert_cmphex(rd(g, PFIFO_INTR), ==, PFIFO_INTR_NONSTALL);
    g_assert_cmphex(rd(g, PMC_INTR), ==, 0);
    wr(g, PFIFO_INTR_EN, UINT32_MAX);
    g_assert_cmphex(rd(g, PMC_INTR), ==, PMC_LEAF0_PFIFO);
    wr(g, PFIFO_INTR, PFIFO_INTR_NONSTALL);
    g_assert_cmphex(rd(g, PMC_INTR), ==, 0);
    g_assert_cmpuint(v_ldl(g, V_USERD + 0x88), ==, 1);  /* GP_GET */

    /* An acquire that does not hold waits, and what follows it, too. */
    push_sem(&p, V_SEM + 16, 5, 4 | 1 << 24);        /* >= 5 */
    push_sem(&p, V_SEM + 32, 0x2002, 2 | 1 << 24);
    kick(g, &p);
    v_stl(g, V_SEM + 16, 4);
    step(g, 1000000);
    g_assert_cmphex(v_ldl(g, V_SEM + 32), ==, 0);
    v_stl(g, V_SEM + 16, 6);
    step(g, 1000000);
    g_assert_cmphex(v_ldl(g, V_SEM + 32), ==, 0x2002);

    /* A blocked runlist and a disabled channel do not run. */
    wr(g, PFIFO_SCHED_DISABLE, 1);
    push_sem(&p, V_SEM, 0x3003, 2);
    kick(g, &p);
    g_assert_cmphex(v_ldl(g, V_SEM), ==, 0x1001);
    wr(g, PFIFO_SCHED_DISABLE, 0);
    g_assert_cmphex(v_ldl(g, V_SEM), ==, 0x3003);
    wr(g, CCSR_CHANNEL, 1 << 11);
    g_assert_cmpuint(v_ldl(g, V_INST + 0x14), ==, 3);   /* saved GP_GET */
    push_sem(&p, V_SEM, 0x4004, 2);
    kick(g, &p);
    g_assert_cmphex(v_ldl(g, V_SEM), ==, 0x3003);

    /* Rebinding continues from what was saved. */
    wr(g, PFIFO_PREEMPT, 0);
    g_assert_cmphex(rd(g, PFIFO_PREEMPT) & 1 << 20, ==, 0);
    wr(g, CCSR_INST, 0);
    wr(g, CCSR_INST, 1u << 31 | V_INST >> 12);
    wr(g, CCSR_CHANNEL, 1 << 10);
    g_assert_cmphex(v_ldl(g, V_SEM), ==, 0x4004);
    g_assert_cmpuint(counter(g, "gp-entries"), ==, 4);
    g_assert_cmpuint(counter(g, "guest-errors"), ==, 0);
    gpu_stop(g);
}

/* The copy engine's runlist is the one that there is, whichever it is. */
static void test_runlist(void)
{
    Gpu *g = gpu_start(",ce-runlist=5");
    Push p;

    g_assert_cmphex(rd(g, PTOP_DEVICE_INFO + 8) >> 21 & 0xf, ==, 5);
    g_assert_cmphex(rd(g, PFIFO_PBDMA_MAP), ==, 1 << 5);
    make_space(g);
    v_zero(g, V_SEM, 0x1000);
    bind_bar1(g);
    channel_init(g, 0);                         /* on runlist 0 */
    g_assert_cmphex(rd(g, PFIFO_RUNLIST_INTR), ==, 0);
    g_assert_cmpuint(counter(g, "guest-errors"), ==, 1);
    push_init(&p, 0);
    push_sem(&p, V_SEM, 0x1001, 2);
    kick(g, &p);
    g_assert_cmphex(v_ldl(g, V_SEM), ==, 0);
    wr(g, PFIFO_RUNLIST, 5 << 20 | 2);
    g_assert_cmphex(rd(g, PFIFO_RUNLIST_INTR), ==, 1 << 5);
    g_assert_cmphex(v_ldl(g, V_SEM), ==, 0x1001);

    wr(g, PFIFO_SCHED_DISABLE, 1 << 5);
    push_sem(&p, V_SEM, 0x2002, 2);
    kick(g, &p);
    g_assert_cmphex(v_ldl(g, V_SEM), ==, 0x1001);
    wr(g, PFIFO_SCHED_DISABLE, 1);
    g_assert_cmphex(v_ldl(g, V_SEM), ==, 0x2002);

    set(g, "hang-copies", 1);
    push(&p, INC(CE_SUBCH, 0, 1));
    push(&p, CE_CLASS);
    push_copy(&p, V_DATA, V_DATA + 0x1000, 0, 0, 0x1000, 1,
              L_COPY | L_SRC_PHYS | L_DST_PHYS);
    kick(g, &p);
    g_assert_cmphex(rd(g, PFIFO_ERROR_SCHED), ==, 1 << 5);
    gpu_stop(g);
}

/* USERD tells how far a channel is, in both ways that drivers know. */
static void test_userd(void)
{
    const uint64_t above = 4 * GiB;             /* the same memory again */
    Gpu *g = gpu_start("");
    Push p = make_channel(g);
    uint64_t end;
    uint32_t put;

    v_stq(g, V_PD1 + 8 * (above / (512 * MiB)), PDE(V_PD0));
    wr(g, CCSR_INST, 0);
    v_stq(g, V_INST + 0x208, 2 * above - 1);
    wr(g, CCSR_INST, CCSR_INST_BIND | V_INST >> 12);
    push_sem(&p, V_SEM, 0x7117, 2);
    end = above + p.at + 4 * p.words;
    put = push_entry(g, &p);
    v_stl(g, V_GPFIFO + 4, v_ldl(g, V_GPFIFO + 4) | above >> 32);
    set_put(g, 0, put);
    g_assert_cmphex(v_ldl(g, V_SEM), ==, 0x7117);
    g_assert_cmphex(v_ldl(g, V_USERD + 0x44), ==, (uint32_t)end);
    g_assert_cmphex(v_ldl(g, V_USERD + 0x60), ==, end >> 32);
    g_assert_cmphex(v_ldl(g, V_USERD + 0x58), ==, (uint32_t)end);
    g_assert_cmphex(v_ldl(g, V_USERD + 0x5c), ==, 1u << 31 | end >> 32);
    gpu_stop(g);
}

/* A lost non-stalling interrupt is lost, and the next one is not. */
static void test_drop_nonstall(void)
{
    Gpu *g = gpu_start("");
    Push p = make_channel(g);

    set(g, "drop-nonstall", 1);
    for (uint32_t i = 0; i < 2; i++) {
        push_sem(&p, V_SEM, 0xb000 + i, 2);
        push(&p, INC(0, 0x20, 1));
        push(&p, 0);
        kick(g, &p);
        g_assert_cmphex(v_ldl(g, V_SEM), ==, 0xb000 + i);
        g_assert_cmphex(rd(g, PFIFO_INTR), ==, i ? PFIFO_INTR_NONSTALL : 0);
        g_assert_cmpuint(counter(g, "nonstall-irqs"), ==, i);
        g_assert_cmpuint(counter(g, "drop-nonstall"), ==, 0);
    }
    gpu_stop(g);
}

/*
 * What a channel was doing when it was taken off the hardware is in its
 * instance block: a suspend resets the rest.  Here it waits in the middle of a
 * segment, after methods that what follows relies on.
 */
static void test_channel_resume(void)
{
    Gpu *g = gpu_start("");
    Push p = make_channel(g);

    v_stl(g, V_DATA, 0xc0c0c0c0);
    push(&p, INC(CE_SUBCH, 0x400, 8));
    push(&p, 0);
    push(&p, V_DATA);
    push(&p, 0);
    push(&p, V_DATA + 0x100);
    push(&p, 0);
    push(&p, 0);
    push(&p, 4);
    push(&p, 0);
    push_sem(&p, V_SEM + 16, 5, 4 | 1 << 24);        /* >= 5 */
    push(&p, INC(CE_SUBCH, 0x300, 1));
    push(&p, L_COPY | L_SRC_PHYS | L_DST_PHYS);
    push_sem(&p, V_SEM, 0xd00d, 2);
    kick(g, &p);
    wr(g, CCSR_INST, 0);
    wr(g, PMC_ENABLE, ~(PMC_UNIT_PFIFO | PMC_UNIT_CE0));
    wr(g, PMC_ENABLE, UINT32_MAX);

    wr(g, PFIFO_USERD_BASE, 1u << 28 | V_USERD >> 12);
    wr(g, CCSR_INST, 1u << 31 | V_INST >> 12);
    wr(g, CCSR_CHANNEL, 1 << 10);
    wr(g, PFIFO_RUNLIST_BASE, V_RUNLIST >> 12);
    wr(g, PFIFO_RUNLIST, 2);
    step(g, 1000000);
    g_assert_cmphex(v_ldl(g, V_SEM), ==, 0);
    g_assert_cmphex(v_ldl(g, V_DATA + 0x100), ==, 0);
    v_stl(g, V_SEM + 16, 5);
    step(g, 1000000);
    g_assert_cmphex(v_ldl(g, V_SEM), ==, 0xd00d);
    g_assert_cmphex(v_ldl(g, V_DATA + 0x100), ==, 0xc0c0c0c0);
    g_assert_cmpuint(counter(g, "guest-errors"), ==, 0);
    gpu_stop(g);
}

static void pattern(uint8_t *buf, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++) {
        buf[i] = i * 7 + (i >> 8) * 13 + seed;
    }
}

static void test_copy(void)
{
    Gpu *g = gpu_start("");
    Push p = make_channel(g);
    g_autofree uint8_t *in = g_malloc(0x3000), *out = g_malloc(0x3000);
    unsigned i;

    /* host to VRAM, physical: 260 SRC_PHYS_MODE coherent system memory */
    pattern(in, 0x3000, 1);
    qtest_memwrite(g->qts, SYS_BUF, in, 0x3000);
    push(&p, IMM(CE_SUBCH, 0x260, 1));
    push(&p, IMM(CE_SUBCH, 0x264, 0));
    push_copy(&p, SYS_BUF + 3, V_DATA + 5, 0, 0, 0x2ff0, 0,
              L_COPY | L_SRC_PHYS | L_DST_PHYS);
    kick(g, &p);
    g_assert(!memcmp(g->vram + V_DATA + 5, in + 3, 0x2ff0));
    g_assert_cmpuint(counter(g, "ce-bytes-h2d"), ==, 0x2ff0);

    /* and back */
    push(&p, IMM(CE_SUBCH, 0x260, 0));
    push(&p, IMM(CE_SUBCH, 0x264, 2));
    push_copy(&p, V_DATA + 5, SYS_BUF + 0x10000, 0, 0, 0x2ff0, 0,
              L_COPY | L_SRC_PHYS | L_DST_PHYS);
    kick(g, &p);
    qtest_memread(g->qts, SYS_BUF + 0x10000, out, 0x2ff0);
    g_assert(!memcmp(out, in + 3, 0x2ff0));
    g_assert_cmpuint(counter(g, "ce-bytes-d2h"), ==, 0x2ff0);

    /* virtual, several lines, across small pages that are not adjacent */
    pattern(g->vram + V_DATA, 0x3000, 2);
    set_small(g, 0, PTE(V_DATA));
    set_small(g, 1, PTE(V_DATA + 0x2000));
    set_small(g, 2, PTE_SYS(SYS_BUF));
    set_small(g, 3, PTE(V_DATA + 0x8000));
    push_copy(&p, VA_SMALL + 0xf00, VA_SMALL + 0x2f80, 0x300, 0x50, 0x40,
              5, L_COPY | L_MULTI);
    kick(g, &p);
    qtest_memread(g->qts, SYS_BUF, out, 0x1000);
    for (i = 0; i < 5 * 0x40; i++) {
        unsigned line = i / 0x40, from = 0xf00 + line * 0x300 + i % 0x40;
        unsigned to = 0x2f80 + line * 0x50 + i % 0x40;
        uint8_t want, got;

        want = from < 0x1000 ? g->vram[V_DATA + from]
                             : g->vram[V_DATA + from + 0x1000];
        got = to < 0x3000 ? out[to - 0x2000]
                          : g->vram[V_DATA + 0x8000 + to - 0x3000];
        g_assert_cmphex(got, ==, want);
    }

    /* fill: two 4 byte constants for each 8 byte element */
    push(&p, INC(CE_SUBCH, 0x700, 3));
    push(&p, 0x01020304);
    push(&p, 0x05060708);
    push(&p, 1 << 24 | 3 << 16 | 5 << 4 | 4);
    push(&p, IMM(CE_SUBCH, 0x264, 0));
    push_copy(&p, 0, V_DATA, 0, 0, 0x200, 0,
              L_COPY | L_REMAP | L_DST_PHYS);
    kick(g, &p);
    for (i = 0; i < 0x1000; i += 8) {
        g_assert_cmphex(ldq_le_p(g->vram + V_DATA + i), ==,
                        0x0506070801020304ull);
    }
    g_assert_cmpuint(counter(g, "ce-bytes-fill"), ==, 0x1000);
    g_assert_cmpuint(counter(g, "ce-launches"), ==, 4);
    g_assert_cmpuint(counter(g, "guest-errors"), ==, 0);
    g_assert_cmpuint(counter(g, "mmu-faults"), ==, 0);
    gpu_stop(g);
}

/*
 * System memory may be the GPU's own BAR1, and so the VRAM of the other side.
 * Here two windows follow each other that are not neighbours in VRAM: the
 * copy is right if all of the source was read before any of it was written.
 */
static void test_copy_own_bar(void)
{
    static const struct {
        const char *name;
        uint64_t src, dst;
        uint64_t src_vram[2], dst_vram[2];  /* of the first half, the second */
        uint32_t src_mode, dst_mode;
    } cases[] = {
        { "from BAR1", BAR1 + 0x5ff800, 0x7ffc00,
          { 0x5ff800, 0x800000 }, { 0x7ffc00, 0x800400 }, 1, 0 },
        { "to BAR1", 0x5ff400, BAR1 + 0x5ff800,
          { 0x5ff400, 0x5ffc00 }, { 0x5ff800, 0x800000 }, 0, 2 },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        Gpu *g = gpu_start("");
        Push p = make_channel(g);
        uint8_t want[0x1000];

        g_test_message("%s", cases[i].name);
        set_large(g, 2, PTE(0x400000));
        set_large(g, 3, PTE(0x800000));
        invalidate(g, V_PD3);
        g_assert_cmpuint(counter(g, "bar1-window-count"), ==, 2);
        pattern(g->vram + 0x400000, 0x600000, 3);
        memcpy(want, g->vram + cases[i].src_vram[0], 0x800);
        memcpy(want + 0x800, g->vram + cases[i].src_vram[1], 0x800);

        push(&p, IMM(CE_SUBCH, 0x260, cases[i].src_mode));
        push(&p, IMM(CE_SUBCH, 0x264, cases[i].dst_mode));
        push_copy(&p, cases[i].src, cases[i].dst, 0, 0, sizeof(want), 0,
                  L_COPY | L_SRC_PHYS | L_DST_PHYS);
        kick(g, &p);
        g_assert_cmpuint(counter(g, "ce-errors"), ==, 0);
        g_assert(!memcmp(g->vram + cases[i].dst_vram[0], want, 0x800));
        g_assert(!memcmp(g->vram + cases[i].dst_vram[1], want + 0x800, 0x800));
        gpu_stop(g);
    }
}

/* Neither a copy nor a semaphore must configure the GPU that works on it. */
static void test_config_space(void)
{
    static const uint32_t modes[][2] = { { 0, 1 }, { 2, 0 } };
    const uint64_t command = ECAM + (DEVFN << 12) + 4;

    for (unsigned i = 0; i < ARRAY_SIZE(modes) + 1; i++) {
        bool sem = i == ARRAY_SIZE(modes);
        Gpu *g = gpu_start("");
        Push p = make_channel(g);

        ecam_enable(g);
        g_assert_cmphex(qtest_readw(g->qts, command) & 6, ==, 6);
        v_stl(g, V_DATA, 0);
        if (sem) {
            set_small(g, 0, PTE_SYS(command & ~0xfffull));
            push_sem(&p, VA_SMALL + 4, 0, 2 | 1 << 24);
        } else {
            push(&p, IMM(CE_SUBCH, 0x260, modes[i][0]));
            push(&p, IMM(CE_SUBCH, 0x264, modes[i][1]));
            push_copy(&p, modes[i][0] ? command : V_DATA,
                      modes[i][1] ? command : V_DATA, 0, 0, 4, 0,
                      L_COPY | L_SRC_PHYS | L_DST_PHYS);
        }
        kick(g, &p);
        g_assert_cmphex(qtest_readw(g->qts, command) & 6, ==, 6);
        g_assert_cmphex(v_ldl(g, V_DATA), ==, 0);
        g_assert_cmpuint(counter(g, "ce-errors"), ==, !sem);
        g_assert_cmpuint(counter(g, "mmu-faults"), ==, sem);
        if (!sem) {
            g_assert_cmphex(rd(g, CE_LAUNCHERR), ==, 0xb);
        }
        gpu_stop(g);
    }
}

/* A delayed copy has no effect before its time, nor has what follows it. */
static void test_copy_delay(void)
{
    Gpu *g = gpu_start("");
    Push p = make_channel(g);

    set(g, "copy-delay-us", 100);
    v_stl(g, V_DATA, 0xd0d0d0d0);
    push_copy(&p, V_DATA, V_DATA + 0x100, 0, 0, 4, 0,
              L_COPY | L_SRC_PHYS | L_DST_PHYS);
    push_sem(&p, V_SEM, 0x5005, 2);
    kick(g, &p);
    wr(g, PFIFO_PREEMPT, 0);
    g_assert_cmphex(rd(g, PFIFO_PREEMPT), ==, 1 << 20);
    step(g, 90 * 1000);
    g_assert_cmphex(v_ldl(g, V_DATA + 0x100), ==, 0);
    g_assert_cmphex(v_ldl(g, V_SEM), ==, 0);
    step(g, 20 * 1000);
    g_assert_cmphex(v_ldl(g, V_DATA + 0x100), ==, 0xd0d0d0d0);
    g_assert_cmphex(v_ldl(g, V_SEM), ==, 0x5005);
    g_assert_cmphex(rd(g, PFIFO_PREEMPT), ==, 0);
    gpu_stop(g);
}

/* A rebound channel takes its copy along, and all that waited for it. */
static void test_copy_rebound(void)
{
    Gpu *g = gpu_start("");
    Push p = make_channel(g);
    uint32_t put;

    set(g, "copy-delay-us", 100);
    v_stl(g, V_DATA, 0xe0e0e0e0);
    push_copy(&p, V_DATA, V_DATA + 0x100, 0, 0, 4, 0,
              L_COPY | L_SRC_PHYS | L_DST_PHYS);
    kick(g, &p);
    step(g, 50 * 1000);
    wr(g, CCSR_INST, 0);
    wr(g, CCSR_INST, 1u << 31 | V_INST >> 12);
    g_assert_cmphex(rd(g, PFIFO_PREEMPT), ==, 0);
    g_assert_cmpuint(counter(g, "guest-errors"), ==, 1);

    /* Work without a doorbell: nobody looks for it when the delay is over. */
    push_sem(&p, V_SEM, 0xa00a, 2);
    put = push_entry(g, &p);
    v_stl(g, V_USERD + 0x8c, put);
    step(g, 200 * 1000);
    g_assert_cmphex(v_ldl(g, V_SEM), ==, 0);
    g_assert_cmphex(v_ldl(g, V_DATA + 0x100), ==, 0);
    set_put(g, 0, put);
    g_assert_cmphex(v_ldl(g, V_SEM), ==, 0xa00a);
    g_assert_cmphex(v_ldl(g, V_DATA + 0x100), ==, 0);
    gpu_stop(g);
}

static uint32_t engine_stuck(uint32_t id)
{
    return ENGINE_STATUS_BUSY | ENGINE_STATUS_CTXSW | ENGINE_STATUS_LOAD | id;
}

/*
 * An engine that hangs is reported with the channel that it hangs at, stops the
 * runlist, and goes on once it was reset: what nouveau does to recover, from
 * gf100_fifo_intr_sched() to nvkm_runl_rc().
 */
static void test_copy_hang(void)
{
    const uint32_t unit = 0x15;
    const uint32_t stuck = engine_stuck(ENGINE_STATUS_NEXT(GROUP(1)) |
                                        ENGINE_STATUS_NEXT_TSG);
    Gpu *g = gpu_start("");
    Push p = make_channel(g), q = make_second(g);

    wr(g, PFIFO_INTR_EN, ~PFIFO_INTR_NONSTALL);
    v_stl(g, V_DATA, 0xd1d1d1d1);
    set(g, "hang-copies", 1);
    push_copy(&q, V_DATA, V_DATA + 0x100, 0, 0, 4, 0,
              L_COPY | L_SRC_PHYS | L_DST_PHYS);
    push_sem(&q, V_SEM + 16, 0xb00b, 2);
    kick(g, &q);
    g_assert_cmpuint(counter(g, "hang-copies"), ==, 0);
    g_assert_cmphex(rd(g, PMC_INTR), ==, PMC_LEAF0_PFIFO);
    g_assert_cmphex(rd(g, PFIFO_INTR), ==, PFIFO_INTR_SCHED);
    g_assert_cmphex(rd(g, PFIFO_SCHED_ERROR), ==, SCHED_ERROR_CTXSW_TIMEOUT);
    g_assert_cmphex(rd(g, PFIFO_ERROR_SCHED), ==, 1);
    g_assert_cmphex(rd(g, PFIFO_ENGINE_STATUS), ==, stuck);
    g_assert_cmphex(rd(g, PFIFO_PREEMPT), ==, 1 << 20);

    /* Acknowledged, it hangs all the same, and nobody else runs. */
    wr(g, PFIFO_INTR, PFIFO_INTR_SCHED);
    g_assert_cmphex(rd(g, PMC_INTR), ==, 0);
    push_sem(&p, V_SEM, 0xc00c, 2);
    kick(g, &p);
    g_assert_cmphex(v_ldl(g, V_SEM), ==, 0);

    /* A fault that the driver triggers tells it to take the channel down. */
    wr(g, PFIFO_FAULT_TRIGGER, FAULT_TRIGGER_ENABLE | unit);
    g_assert_cmphex(rd(g, PFIFO_FAULT_TRIGGER), ==,
                    FAULT_TRIGGER_ENABLE | unit);
    g_assert_cmphex(rd(g, PFIFO_INTR), ==, PFIFO_INTR_MMU_FAULT);
    g_assert_cmphex(rd(g, PFIFO_FAULT_UNITS), ==, 1 << unit);
    g_assert_cmphex(rd(g, PFIFO_FAULT_INST + unit * 16), ==,
                    (V_INST + 0x1000) >> 12);
    wr(g, PFIFO_FAULT_TRIGGER, unit);
    wr(g, PFIFO_FAULT_UNITS, 1 << unit);
    g_assert_cmphex(rd(g, PFIFO_INTR), ==, 0);
    g_assert_cmphex(rd(g, PFIFO_ENGINE_STATUS), ==, stuck);
    wr(g, CCSR_CHANNEL + 8, CCSR_ENABLE_CLR);
    wr(g, PFIFO_ERROR_SCHED, 1);
    g_assert_cmphex(rd(g, PFIFO_ERROR_SCHED), ==, 0);
    g_assert_cmphex(v_ldl(g, V_SEM), ==, 0);

    /* Only a reset gets the engine to work, */
    wr(g, PMC_ENABLE, ~PMC_UNIT_CE0);
    wr(g, PMC_ENABLE, UINT32_MAX);
    g_assert_cmphex(rd(g, PFIFO_ENGINE_STATUS), ==, 0);
    g_assert_cmphex(rd(g, PFIFO_PREEMPT), ==, 0);
    wr(g, PFIFO_RUNLIST, 2);
    g_assert_cmphex(v_ldl(g, V_SEM), ==, 0xc00c);
    push_copy(&p, V_DATA, V_DATA + 0x200, 0, 0, 4, 0,
              L_COPY | L_SRC_PHYS | L_DST_PHYS);
    kick(g, &p);
    g_assert_cmphex(v_ldl(g, V_DATA + 0x200), ==, 0xd1d1d1d1);
    g_assert_cmphex(v_ldl(g, V_DATA + 0x100), ==, 0);
    g_assert_cmphex(v_ldl(g, V_SEM + 16), ==, 0);

    /* ... and only ERROR_SCHED the runlist. */
    set(g, "hang-copies", 1);
    push_copy(&p, V_DATA, V_DATA + 0x300, 0, 0, 4, 0,
              L_COPY | L_SRC_PHYS | L_DST_PHYS);
    push_sem(&p, V_SEM, 0xe00e, 2);
    kick(g, &p);
    wr(g, PMC_ENABLE, ~PMC_UNIT_CE0);
    wr(g, PMC_ENABLE, UINT32_MAX);
    step(g, 1000);
    g_assert_cmphex(v_ldl(g, V_SEM), ==, 0xc00c);
    wr(g, PFIFO_ERROR_SCHED, 1);
    g_assert_cmphex(v_ldl(g, V_SEM), ==, 0xe00e);
    g_assert_cmpuint(counter(g, "guest-errors"), ==, 0);

    /* A channel without a group is named itself. */
    q = make_second(g);
    v_stl(g, V_RUNLIST + 16, 1);
    wr(g, PFIFO_RUNLIST, 3);
    set(g, "hang-copies", 1);
    push_copy(&q, V_DATA, V_DATA, 0, 0, 4, 0,
              L_COPY | L_SRC_PHYS | L_DST_PHYS);
    kick(g, &q);
    g_assert_cmphex(rd(g, PFIFO_ENGINE_STATUS), ==,
                    engine_stuck(ENGINE_STATUS_NEXT(1)));
    gpu_stop(g);
}

/* A fault can be triggered at any time, and ends the copy under way. */
static void test_fault_trigger(void)
{
    const uint32_t unit = 0x15;
    Gpu *g = gpu_start("");
    Push p = make_channel(g), q = make_second(g);

    wr(g, PFIFO_FAULT_TRIGGER, FAULT_TRIGGER_ENABLE | unit);
    g_assert_cmphex(rd(g, PFIFO_FAULT_UNITS), ==, 1 << unit);
    g_assert_cmphex(rd(g, PFIFO_FAULT_INST + unit * 16), ==, 0);
    wr(g, PFIFO_FAULT_UNITS, 1 << unit);

    /* There is only one engine, with one unit. */
    wr(g, PFIFO_FAULT_TRIGGER, FAULT_TRIGGER_ENABLE | 4);
    wr(g, PFIFO_FAULT_TRIGGER + 4, FAULT_TRIGGER_ENABLE | unit);
    g_assert_cmphex(rd(g, PFIFO_FAULT_UNITS), ==, 0);
    g_assert_cmpuint(counter(g, "guest-errors"), ==, 2);

    set(g, "copy-delay-us", 100);
    v_stl(g, V_DATA, 0xd2d2d2d2);
    push_copy(&p, V_DATA, V_DATA + 0x100, 0, 0, 4, 0,
              L_COPY | L_SRC_PHYS | L_DST_PHYS);
    push_sem(&p, V_SEM, 0xf00f, 2);
    kick(g, &p);
    push_sem(&q, V_SEM + 16, 0xf11f, 2);
    kick(g, &q);
    g_assert_cmphex(v_ldl(g, V_SEM + 16), ==, 0);
    wr(g, PFIFO_FAULT_TRIGGER, FAULT_TRIGGER_ENABLE | unit);
    g_assert_cmphex(rd(g, PFIFO_FAULT_INST + unit * 16), ==, V_INST >> 12);
    g_assert_cmphex(rd(g, PFIFO_PREEMPT), ==, 0);
    g_assert_cmpuint(counter(g, "ce-errors"), ==, 1);
    g_assert_cmphex(v_ldl(g, V_SEM + 16), ==, 0xf11f);
    step(g, 200 * 1000);
    g_assert_cmphex(v_ldl(g, V_DATA + 0x100), ==, 0);
    g_assert_cmphex(v_ldl(g, V_SEM), ==, 0);
    gpu_stop(g);
}

/* Run one bad launch on a fresh channel; it must not touch what follows. */
static Gpu *bad_launch(uint64_t src, uint64_t dst, uint32_t len,
                       uint32_t launch, bool inject)
{
    Gpu *g = gpu_start("");
    Push p = make_channel(g);

    set(g, "fail-copies", inject);
    push_copy(&p, src, dst, 0, 0, len, 0, launch);
    push_sem(&p, V_SEM, 0x6006, 2);
    kick(g, &p);
    g_assert_cmphex(v_ldl(g, V_SEM), ==, 0);
    g_assert_cmpuint(counter(g, "ce-errors"), ==, 1);
    return g;
}

static void test_copy_errors(void)
{
    Gpu *g;

    /* physical address outside VRAM; also one that overflows */
    g = bad_launch(VRAM_SIZE - 4, V_DATA, 8, L_COPY | L_SRC_PHYS | L_DST_PHYS,
                   false);
    g_assert_cmphex(rd(g, CE_INTR), ==, CE_INTR_LAUNCHERR);
    g_assert_cmphex(rd(g, CE_LAUNCHERR), ==, 3);
    g_assert_cmphex(rd(g, PMC_INTR), ==, PMC_LEAF0_CE0);
    wr(g, CE_INTR, CE_INTR_LAUNCHERR);
    g_assert_cmphex(rd(g, PMC_INTR), ==, 0);
    gpu_stop(g);
    g = bad_launch(0x1ffffffffffffull, V_DATA, UINT32_MAX,
                   L_COPY | L_SRC_PHYS | L_DST_PHYS, false);
    g_assert_cmphex(rd(g, CE_LAUNCHERR), ==, 3);
    gpu_stop(g);

    /* block-linear layout */
    g = bad_launch(V_DATA, V_DATA, 8, 2 | L_SRC_PHYS | L_DST_PHYS, false);
    g_assert_cmphex(rd(g, CE_LAUNCHERR), ==, 0xd);
    gpu_stop(g);

    /* injected */
    g = bad_launch(V_DATA, V_DATA, 8, L_COPY | L_SRC_PHYS | L_DST_PHYS, true);
    g_assert_cmphex(rd(g, CE_LAUNCHERR), ==, 0xc);
    gpu_stop(g);

    /* no page: a fault of unit CE0 */
    g = bad_launch(VA_SMALL, V_DATA, 8, L_COPY | L_DST_PHYS, false);
    g_assert_cmphex(rd(g, PFIFO_FAULT_UNITS), ==, 1 << 0x15);
    g_assert_cmphex(rd(g, PFIFO_FAULT_LO + 0x150), ==, VA_SMALL);
    g_assert_cmphex(rd(g, PFIFO_FAULT_INFO + 0x150) & 0x1f, ==, 2);
    gpu_stop(g);
}

/* The most work a launch can ask for must not stop the machine. */
static void test_copy_endless(void)
{
    Gpu *g = gpu_start("");
    Push p = make_channel(g);

    push_copy(&p, V_DATA, V_DATA + 64, 0, 0, 1, UINT32_MAX,
              L_COPY | L_MULTI | L_SRC_PHYS | L_DST_PHYS);
    kick(g, &p);
    g_assert_cmphex(rd(g, PFIFO_PREEMPT) & 1 << 20, !=, 0);
    wr(g, PMC_ENABLE, ~PMC_UNIT_CE0);
    g_assert_cmphex(rd(g, PFIFO_PREEMPT) & 1 << 20, ==, 0);
    gpu_stop(g);
}

/*
 * A copy may ring another GPU's doorbell again and again.  What that GPU has to
 * do, which is endless here, is not part of the copy.
 */
static void test_copy_to_doorbell(void)
{
    enum { LINES = 16 };
    Gpu *g = gpu_start_beside(SECOND, "");
    Gpu second = second_enable(g);
    Push p = make_channel(g), q = make_channel(&second);
    const uint64_t doorbell = second.bar0 + PFIFO_SCHED_DISABLE;

    wr(&second, PFIFO_SCHED_DISABLE, 1);
    push_copy(&q, V_DATA, V_DATA + 2 * MiB, 0, 0, 1 * MiB, UINT32_MAX,
              L_COPY | L_MULTI | L_SRC_PHYS | L_DST_PHYS);
    kick(&second, &q);

    /* It may run after each line but the last, which forbids it. */
    v_zero(g, V_DATA, 4 * LINES);
    v_stl(g, V_DATA + 4 * (LINES - 1), 1);
    push(&p, IMM(CE_SUBCH, 0x264, 1));
    push_copy(&p, V_DATA, doorbell, 4, 0, 4, LINES,
              L_COPY | L_MULTI | L_SRC_PHYS | L_DST_PHYS);
    push_sem(&p, V_SEM, 0xd11d, 2);
    kick(g, &p);
    g_assert_cmphex(v_ldl(g, V_SEM), ==, 0xd11d);
    g_assert_cmphex(rd(&second, PFIFO_SCHED_DISABLE), ==, 1);
    g_assert_cmpuint(counter(&second, "ce-launches"), ==, 0);
    g_assert_cmpuint(counter(&second, "ce-bytes-d2d"), ==, 0);

    /* It does run, later. */
    push_copy(&p, V_DATA, doorbell, 0, 0, 4, 0,
              L_COPY | L_SRC_PHYS | L_DST_PHYS);
    kick(g, &p);
    step(g, 1);
    g_assert_cmpuint(counter(&second, "ce-bytes-d2d"), !=, 0);
    gpu_stop(g);
}

/* All of @words are among those of a string property. */
static void check_counts(Gpu *g, const char *property,
                         const char *const *words)
{
    QDict *r = qtest_qmp(g->qts, "{'execute': 'qom-get', 'arguments': "
                         "{'path': '/machine/peripheral/gpu', "
                         "'property': %s}}", property);
    g_auto(GStrv) counts = g_strsplit(qdict_get_str(r, "return"), " ", 0);

    for (; *words; words++) {
        if (!g_strv_contains((const char *const *)counts, *words)) {
            g_error("%s: no %s in %s", property, *words,
                    qdict_get_str(r, "return"));
        }
    }
    qobject_unref(r);
}

/* What was done is counted, with success and without. */
static void test_counts(void)
{
    Gpu *g = gpu_start("");
    Push p = make_channel(g);

    push_copy(&p, V_DATA, V_DATA + 64, 0, 0, 4, 0,
              L_COPY | L_SRC_PHYS | L_DST_PHYS);
    push_sem(&p, V_SEM, 1, 2);
    kick(g, &p);
    check_counts(g, "method-counts", (const char *const []) {
        "HOST.SET_OBJECT=1/0", "HOST.SEMAPHORE=4/0", "HOST.WFI=0/0",
        "CE.OFFSET_PITCH_LINE=8/0", "CE.LAUNCH_DMA=1/0", "CE.SET_REMAP=0/0",
        NULL
    });
    check_counts(g, "event-counts", (const char *const []) {
        "PFIFO_DOORBELL=1/0", "PBDMA_LOAD=1/0", "PBDMA_ENTRY=1/0",
        "PBDMA_INC=4/0", "PBDMA_RELEASE=0/0", "PBDMA_RELEASE_STAMP=1/0",
        "CE_SRC_PHYSICAL=1/0", "CE_LINES=0/0", "CE_D2D=1/0",
        "CE_ERROR_CONFIG=0/0", NULL
    });
    push_copy(&p, V_DATA, V_DATA + 64, 0, 0, 4, 2,      /* block-linear */
              2 | L_MULTI | L_SRC_PHYS | L_DST_PHYS);
    kick(g, &p);
    check_counts(g, "method-counts", (const char *const []) {
        "CE.LAUNCH_DMA=1/1", NULL
    });
    check_counts(g, "event-counts", (const char *const []) {
        "CE_SRC_PHYSICAL=1/1", "CE_LINES=0/1", "CE_ERROR_CONFIG=1/0", NULL
    });
    gpu_stop(g);
}

/* As nouveau does, see gf100_runq_intr() and gf100_fifo_intr_pbdma(). */
static void ack_pbdma(Gpu *g)
{
    uint32_t stat = rd(g, PBDMA_INTR_0) & rd(g, PBDMA_INTR_EN_0);

    wr(g, PBDMA_METHOD0, 0x80600008);
    wr(g, PBDMA_INTR_0, stat);
    wr(g, PFIFO_PBDMA_INTR, 1);
}

static void test_bad_methods(void)
{
    static const struct {
        uint32_t header, intr;
    } cases[] = {
        { INC(0, 0x3c, 1), PBDMA_INTR_0_METHOD },
        { INC(3, 0x300, 1), PBDMA_INTR_0_DEVICE },      /* no object */
        { INC(CE_SUBCH, 0x900, 1), PBDMA_INTR_0_DEVICE },
        { IMM(2, 0, 0x1fff), PBDMA_INTR_0_DEVICE },     /* unknown class */
        { 6u << 29, PBDMA_INTR_0_PBENTRY },
        { IMM(0, 0x1c, 3), PBDMA_INTR_0_SEMAPHORE },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        Gpu *g = gpu_start("");
        Push p = make_channel(g);

        push(&p, cases[i].header);
        push(&p, 0);
        push_sem(&p, V_SEM, 0x7007, 2);
        kick(g, &p);
        g_assert_cmphex(rd(g, PBDMA_INTR_0), ==, cases[i].intr);
        g_assert_cmphex(rd(g, PFIFO_INTR), ==, PFIFO_INTR_PBDMA);
        g_assert_cmphex(v_ldl(g, V_SEM), ==, 0);

        /* PFIFO's register is no latch. */
        wr(g, PFIFO_PBDMA_INTR, UINT32_MAX);
        g_assert_cmphex(rd(g, PFIFO_PBDMA_INTR), ==, 1);
        wr(g, PBDMA_INTR_EN_0, 0);
        g_assert_cmphex(rd(g, PFIFO_INTR), ==, 0);
        wr(g, PBDMA_INTR_EN_0, UINT32_MAX);
        g_assert_cmphex(rd(g, PFIFO_INTR), ==, PFIFO_INTR_PBDMA);

        /* Cleared, it goes on with what follows. */
        ack_pbdma(g);
        g_assert_cmphex(rd(g, PFIFO_INTR), ==, 0);
        g_assert_cmphex(v_ldl(g, V_SEM), ==, 0x7007);
        gpu_stop(g);
    }
}

/* An error stops the PBDMA, and so all channels, until it is cleared. */
static void test_two_errors(void)
{
    Gpu *g = gpu_start("");
    Push p = make_channel(g), q = make_second(g);

    push(&p, INC(0, 0x3c, 1));
    push(&p, 0xbad0);
    push_sem(&p, V_SEM, 0xe000, 2);
    kick(g, &p);
    push(&q, INC(0, 0x40, 1));
    push(&q, 0xbad1);
    push_sem(&q, V_SEM + 16, 0xe001, 2);
    kick(g, &q);
    g_assert_cmphex(rd(g, PBDMA_CHANNEL), ==, 0);
    g_assert_cmphex(rd(g, PBDMA_METHOD0), ==, 0x3c);
    g_assert_cmphex(rd(g, PBDMA_DATA0), ==, 0xbad0);

    /* Whichever runs first, it stops at the second error. */
    ack_pbdma(g);
    g_assert_cmphex(rd(g, PBDMA_INTR_0), ==, PBDMA_INTR_0_METHOD);
    g_assert_cmphex(rd(g, PBDMA_CHANNEL), ==, 1);
    g_assert_cmphex(rd(g, PBDMA_METHOD0), ==, 0x40);
    g_assert_cmphex(rd(g, PBDMA_DATA0), ==, 0xbad1);
    g_assert_cmphex(v_ldl(g, V_SEM + 16), ==, 0);
    ack_pbdma(g);
    g_assert_cmphex(v_ldl(g, V_SEM), ==, 0xe000);
    g_assert_cmphex(v_ldl(g, V_SEM + 16), ==, 0xe001);
    g_assert_cmphex(rd(g, PFIFO_INTR), ==, 0);
    gpu_stop(g);
}

/* State that makes no sense is refused, and the device goes on. */
static void test_bad_setup(void)
{
    Gpu *g = gpu_start("");
    Push p = make_channel(g);

    wr(g, CCSR_INST, 1u << 31 | BAR_BLOCK_PTR);         /* outside VRAM */
    g_assert_cmphex(rd(g, PFIFO_FAULT_UNITS), ==, 1 << 6);
    g_assert_cmphex(rd(g, PFIFO_FAULT_INST + 0x60), ==, BAR_BLOCK_PTR);
    wr(g, PFIFO_FAULT_UNITS, UINT32_MAX);
    wr(g, PFIFO_RUNLIST, 0xffff);
    wr(g, PFIFO_RUNLIST, 5 << 20 | 1);
    wr(g, PFIFO_RUNLIST_BASE, RUNLIST_BASE_PTR);
    wr(g, PFIFO_RUNLIST, 8);
    wr(g, PBUS_BAR2_BLOCK, UINT32_MAX);
    g_assert_cmphex(qtest_readl(g->qts, BAR2), ==, UINT32_MAX);
    qtest_writel(g->qts, BAR2 + 0x1fffffc, 1);
    g_assert_cmpuint(counter(g, "bar2-faults"), ==, 2);

    /* GP_PUT beyond the ring, USERD outside VRAM */
    wr(g, CCSR_INST, 1u << 31 | V_INST >> 12);
    set_put(g, 0, 16);
    g_assert_cmphex(rd(g, PBDMA_INTR_0), ==, PBDMA_INTR_0_GPPTR);
    v_stl(g, V_INST + 0x0c, 0xffff);
    v_stl(g, V_USERD + 0x8c, 0);
    ack_pbdma(g);
    g_assert_cmphex(rd(g, PBDMA_INTR_0), ==, 0);
    wr(g, CCSR_INST, 1u << 31 | V_INST >> 12);
    g_assert_cmphex(rd(g, PBDMA_INTR_0), ==, PBDMA_INTR_0_GPPTR);

    /* The same channel works once its setup is right. */
    ack_pbdma(g);
    g_assert_cmphex(rd(g, PBDMA_INTR_0), ==, PBDMA_INTR_0_GPPTR);
    v_stl(g, V_INST + 0x0c, 0);
    ack_pbdma(g);
    g_assert_cmphex(rd(g, PBDMA_INTR_0), ==, 0);
    v_stl(g, V_INST + 0x14, 0);
    wr(g, CCSR_INST, 0);
    v_stl(g, V_INST + 0x14, 0);
    wr(g, CCSR_INST, 1u << 31 | V_INST >> 12);
    push_sem(&p, V_SEM, 0x8008, 2);
    kick(g, &p);
    g_assert_cmphex(v_ldl(g, V_SEM), ==, 0x8008);
    gpu_stop(g);
}

/*
 * A message can be addressed to the registers of the slot and so unplug the
 * GPU, here in the middle of a pushbuffer: what follows does not happen.
 */
static void test_unplug_by_message(void)
{
    Gpu *g = gpu_start_at(PORT, "bus=rp", "");
    uint64_t slot = port_enable(g, BAR0_WINDOW);
    Push p;

    gpu_enable(g);
    msi_unplugs(g, slot);

    /* BAR1 is not in a window of the port: PFIFO is told in another way. */
    p = make_channel(g);
    wr(g, PFIFO_INTR_EN, PFIFO_INTR_NONSTALL);
    wr(g, PMC_INTR_EN_SET, UINT32_MAX);
    push(&p, INC(0, 0x20, 1));               /* NON_STALL_INTERRUPT */
    push(&p, 0);
    push_sem(&p, V_SEM, 0xf00f, 2);
    v_stl(g, V_USERD + 0x8c, push_entry(g, &p));
    wr(g, CCSR_CHANNEL, 1 << 10);
    qtest_qmp_eventwait(g->qts, "DEVICE_DELETED");
    g_assert_cmphex(v_ldl(g, V_SEM), ==, 0);
    step(g, 1000000);
    g_assert_cmphex(v_ldl(g, V_SEM), ==, 0);
    g_assert_cmphex(cfg_readl(g, 0), ==, UINT32_MAX);
    gpu_stop(g);
}

/*
 * One access to the end of BAR2 and to what follows it: a message of its first
 * part unplugs the device that the second part is for.
 */
static void test_unplug_neighbour(void)
{
    const uint64_t end = BAR0 + 3 * BAR2_SIZE;

    for (unsigned write = 0; write < 2; write++) {
        Gpu *g = gpu_start_beside(PORT "-device p2pdev,id=dev,bus=rp", "");
        uint64_t slot = port_enable(g, (end >> 16) * 0x10001);
        uint8_t buf[12] = { 0 };

        cfg_writel(g, PCI_BASE_ADDRESS_0, end);
        cfg_writew(g, PCI_COMMAND, PCI_COMMAND_MEMORY);
        g->bdf = DEVFN;
        cfg_writel(g, PCI_BASE_ADDRESS_3, end - BAR2_SIZE);
        cfg_writel(g, PCI_BASE_ADDRESS_4, 0);
        g_assert_cmphex(qtest_readl(g->qts, end + P2PDEV_ID), ==,
                        P2PDEV_MAGIC);

        fault_in_bar2(g);
        msi_unplugs(g, slot);
        if (write) {
            qtest_memwrite(g->qts, end - 8, buf, sizeof(buf));
        } else {
            qtest_memread(g->qts, end - 8, buf, sizeof(buf));
            g_assert_cmphex((uint32_t)ldl_le_p(buf + 8), ==, UINT32_MAX);
        }
        g_assert_cmpuint(counter(g, "bar2-faults"), ==, 1);
        qtest_qmp_eventwait(g->qts, "DEVICE_DELETED");
        gpu_stop(g);
    }
}

/*
 * BAR1's page tables lead into a device that, when it is read, unplugs the GPU:
 * in the middle of the search for windows.  None of them is left, nor is what
 * they take of the machine's budget.
 */
static void test_unplug_within_scan(void)
{
    enum { GOOD = 11 };                 /* page directories, of 256 pages */
    const uint64_t size = 16 * GiB;
    Gpu *g = gpu_start_at(PORT SECOND, "bus=rp", ",bar1-size=16G");
    uint64_t slot = port_enable(g, BAR0_WINDOW);
    Gpu second = second_enable(g);

    gpu_enable(g);
    fault_in_bar2(&second);
    msi_unplugs(&second, slot);
    make_space(g);
    v_stq(g, V_INST + 0x208, size - 1);
    for (unsigned i = 0; i < GOOD + 2; i++) {
        v_stq(g, V_PD1 + 8 * i, i == GOOD ? PDE_SYS(bar2(&second)) :
                                            PDE(V_PD0));
    }
    for (unsigned i = 0; i < 256; i++) {
        set_large(g, i, PTE(V_DATA));
    }
    bind_bar1(g);
    g_assert_cmphex(cfg_readl(g, 0), ==, UINT32_MAX);

    /* The next GPU in the slot needs nearly all of the budget. */
    qtest_writew(g->qts, slot, PCI_EXP_SLTCTL_PWR_IND_ON);
    qtest_qmp_device_add(g->qts, "gp100", "gpu", "{'bus': 'rp', "
                         "'memdev': 'vram', 'bar1-size': %" PRIu64 "}", size);
    gpu_enable(g);
    v_stq(g, V_PD1 + 8 * GOOD, 0);
    v_stq(g, V_PD1 + 8 * (GOOD + 1), 0);
    bind_bar1(g);
    g_assert_cmpuint(counter(g, "bar1-window-count"), ==, GOOD * 256);
    g_assert_cmpuint(counter(g, "bar1-window-rest"), ==, 0);
    qtest_qmp_eventwait(g->qts, "DEVICE_DELETED");
    gpu_stop(g);
}

/* DMA of p2pdev, whose BAR 0 is at @dev; returns its status when it is done. */
static uint32_t peer_dma(Gpu *g, uint64_t dev, uint64_t src, uint64_t dst,
                         uint64_t len, uint32_t spaces)
{
    gint64 end = g_get_monotonic_time() + 60 * G_TIME_SPAN_SECOND;
    uint32_t status;

    qtest_writel(g->qts, dev + P2PDEV_STATUS, P2PDEV_STATUS_DONE |
                 P2PDEV_STATUS_ERROR | P2PDEV_STATUS_REJECTED);
    qtest_writeq(g->qts, dev + P2PDEV_SRC, src);
    qtest_writeq(g->qts, dev + P2PDEV_DST, dst);
    qtest_writeq(g->qts, dev + P2PDEV_LEN, len);
    qtest_writel(g->qts, dev + P2PDEV_CTRL, P2PDEV_CTRL_START | spaces);
    do {
        status = qtest_readl(g->qts, dev + P2PDEV_STATUS);
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    } while (status & P2PDEV_STATUS_BUSY);
    return status;
}

/*
 * A peer reads and writes VRAM through BAR1, be it a window or not.  Where the
 * page tables have nothing, it gets an error, which is counted, and so is what
 * remains of a request that begins where they have something.
 */
static void test_peer(void)
{
    const char *props[] = { "", ",bar1-windows=off" };
    const uint32_t to_peer = P2PDEV_SPACE_LOCAL << P2PDEV_CTRL_DST_SHIFT;
    const uint32_t from_peer = P2PDEV_SPACE_LOCAL << P2PDEV_CTRL_SRC_SHIFT;
    const uint64_t dev = BAR0 + BAR0_SIZE;

    for (unsigned n = 0; n < ARRAY_SIZE(props); n++) {
        Gpu *g = gpu_start_beside("-device p2pdev,id=dev,addr=9.0", props[n]);
        const uint64_t there = BAR1 + 4 * MiB, gone = there + 2 * MiB;
        uint64_t faults;
        uint32_t status;

        g->bdf = 9 << 3;
        cfg_writel(g, PCI_BASE_ADDRESS_0, dev);
        cfg_writew(g, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
        g->bdf = DEVFN;
        make_space(g);
        set_large(g, 2, PTE(V_DATA));
        set_large(g, 3, 0);
        bind_bar1(g);
        faults = counter(g, "bar1-faults");

        v_stl(g, V_DATA + 8, 0x600dda7a);
        g_assert_cmphex(peer_dma(g, dev, there + 8, 0, 4, to_peer), ==,
                        P2PDEV_STATUS_DONE);
        g_assert_cmphex(peer_dma(g, dev, 0, there + 16, 4, from_peer), ==,
                        P2PDEV_STATUS_DONE);
        g_assert_cmphex(v_ldl(g, V_DATA + 16), ==, 0x600dda7a);
        g_assert_cmpuint(counter(g, "bar1-faults"), ==, faults);

        status = peer_dma(g, dev, gone + 8, 0, 4, to_peer);
        g_assert_cmphex(status & (P2PDEV_STATUS_ERROR | P2PDEV_STATUS_ERR_DST),
                        ==, P2PDEV_STATUS_ERROR);
        g_assert_cmpuint(counter(g, "bar1-faults"), ==, faults + 1);
        status = peer_dma(g, dev, 0, gone + 8, 4, from_peer);
        g_assert_cmphex(status & (P2PDEV_STATUS_ERROR | P2PDEV_STATUS_ERR_DST),
                        ==, P2PDEV_STATUS_ERROR | P2PDEV_STATUS_ERR_DST);
        g_assert_cmpuint(counter(g, "bar1-faults"), ==, faults + 2);
        status = peer_dma(g, dev, gone - 64, 0, 128, to_peer);
        g_assert_cmphex(status & P2PDEV_STATUS_ERROR, ==, P2PDEV_STATUS_ERROR);
        g_assert_cmpuint(counter(g, "bar1-faults"), >, faults + 2);

        /* What is mapped is still within reach. */
        g_assert_cmphex(peer_dma(g, dev, there + 16, 0, 4, to_peer), ==,
                        P2PDEV_STATUS_DONE);
        gpu_stop(g);
    }
}

/*
 * The IOMMU's tables are where BAR1 is, whose page tables the GPU reads by DMA,
 * which the IOMMU translates.  It must not get as far as that.
 */
static void test_iommu_tables(void)
{
    enum { ROOT, CONTEXT, TOP, TABLES };
    const uint64_t dev = BAR0 + BAR0_SIZE;

    for (unsigned i = 0; i < TABLES; i++) {
        Gpu *g = gpu_start_beside("-device intel-iommu,intremap=off "
                                  "-device p2pdev,id=dev,addr=9.0", "");
        uint32_t status;
        VtdTables v;

        g->bdf = 9 << 3;
        cfg_writel(g, PCI_BASE_ADDRESS_0, dev);
        cfg_writew(g, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
        vtd_init(&v, g->qts, SYS_TABLES);
        if (i == TOP) {
            v.top = BAR1;
        }
        vtd_attach(&v, g->bdf, false);
        if (i == CONTEXT) {
            qtest_writeq(g->qts, v.root, BAR1 | 1);
        }
        if (i == ROOT) {
            v.root = BAR1;
        }
        g->bdf = DEVFN;
        make_space(g);
        v_stq(g, V_INST + 0x200, SYS_BUF | 1 << 10 | 1 << 11 | 2);
        bind_bar1(g);
        vtd_enable(&v);

        status = peer_dma(g, dev, SYS_BUF, 0, 4,
                          P2PDEV_SPACE_LOCAL << P2PDEV_CTRL_DST_SHIFT);
        g_assert_cmphex(status, ==,
                        P2PDEV_STATUS_DONE | P2PDEV_STATUS_ERROR |
                        P2PDEV_ERR_DECODE << P2PDEV_STATUS_ERR_SHIFT);
        g_assert_cmpuint(counter(g, "bar1-reads"), ==, 0);
        gpu_stop(g);
    }
}

/* Random accesses all over the device, with tables made of random words. */
static void test_random(void)
{
    const char *props[] = { "", ",strict=on", ",tlb=off,bar1-windows=off" };

    for (unsigned n = 0; n < ARRAY_SIZE(props); n++) {
        Gpu *g = gpu_start(props[n]);
        GRand *r = g_rand_new_with_seed(1000 + n);

        make_channel(g);
        for (unsigned i = 0; i < 20000; i++) {
            static const uint32_t regs[] = {
                PBUS_BAR1_BLOCK, PBUS_BAR2_BLOCK, PBUS_BAR0_WINDOW,
                MMU_INVALIDATE, MMU_INVALIDATE_PDB, PFIFO_RUNLIST,
                PFIFO_RUNLIST_BASE, PFIFO_USERD_BASE, PFIFO_PREEMPT,
                PFIFO_SCHED_DISABLE, CCSR_INST, CCSR_CHANNEL, PMC_ENABLE,
                PFIFO_FAULT_BUF_LO, PFIFO_FAULT_BUF_GET, PTIMER_ALARM_0,
                PTIMER_TIME_0, PTIMER_INTR_EN, XVE_MSI_REARM, PMC_INTR_EN_SET,
            };
            uint32_t val = g_rand_int(r);

            /* Half of the values are small, or bits with a meaning. */
            if (val & 1) {
                val = (val & 2) ? val & 0xff : 1u << (val >> 27) |
                                               V_INST >> 12;
            }
            switch (g_rand_int_range(r, 0, 8)) {
            case 0:
                wr(g, g_rand_int(r) & 0xfffffc, val);
                break;
            case 1:
                rd(g, g_rand_int(r) & 0xfffffc);
                break;
            case 2:
            case 3:
                wr(g, regs[g_rand_int_range(r, 0, ARRAY_SIZE(regs))], val);
                break;
            case 4:
                v_stl(g, V_INST + (g_rand_int(r) & 0x23ffc), val);
                break;
            case 5:
                qtest_writel(g->qts, BAR1 + (g_rand_int(r) & 0x3fffffc), val);
                break;
            case 6:
                qtest_readq(g->qts, BAR2 + (g_rand_int(r) & 0x1fffff8));
                break;
            case 7:
                set_put(g, g_rand_int(r) & 0xff, val & 15);
                break;
            }
        }
        step(g, 1000000);
        g_assert_cmphex(rd(g, PMC_BOOT_0), ==, 0x130000a1);
        g_rand_free(r);
        gpu_stop(g);
    }
}

/* A reset forgets everything but VRAM. */
/* Where the fault buffer is, in VRAM and in BAR2 */
#define FAULT_BUFFER    0x40000
#define FAULT_ENTRIES   128
#define REPLAY(how)     (MMU_INVALIDATE_TRIGGER | MMU_INVALIDATE_ALL_PDB | \
                         (how) << 3 | 1)

/* A bottom half does it. */
static void replay(Gpu *g, uint32_t val)
{
    wr(g, MMU_INVALIDATE, val);
    step(g, 1);
}

/* As nouveau does, see nouveau_svm_fault() */
static void take_fault(Gpu *g, uint64_t va, uint32_t info)
{
    uint32_t get = rd(g, PFIFO_FAULT_BUF_GET);
    uint64_t at = FAULT_BUFFER + get * 32;

    g_assert_cmphex(rd(g, PMC_INTR) & PMC_LEAF0_FAULT, !=, 0);
    g_assert_cmphex(v_ldl(g, at), ==, V_INST);
    g_assert_cmphex(v_ldl(g, at + 4), ==, 0);
    g_assert_cmphex(v_ldl(g, at + 8), ==, va);
    g_assert_cmphex(v_ldl(g, at + 12), ==, 0);
    g_assert_cmphex(v_ldl(g, at + 28), ==, info | 1u << 31 | 1 << 8);
    wr(g, PFIFO_FAULT_BUF_GET, (get + 1) % FAULT_ENTRIES);
}

static Gpu *make_faults(void)
{
    Gpu *g = gpu_start("");

    make_channel(g);
    wr(g, PBUS_BAR2_BLOCK, BAR_BLOCK_VIRTUAL | V_INST >> 12);
    v_stl(g, V_INST + 0x200, v_ldl(g, V_INST + 0x200) | 1 << 4);
    wr(g, PFIFO_FAULT_BUF_LO, FAULT_BUFFER);
    wr(g, PFIFO_FAULT_BUF_LO, FAULT_BUFFER | 1);
    return g;
}

/* An access as if by the graphics engine, whose faults are replayed. */
static void test_replay(void)
{
    Gpu *g = make_faults();
    const uint32_t word = 0x12345678;

    v_stl(g, V_DATA + 8, word);
    check_answer(g, "access", "none");
    g_assert_true(ask(g, "lookup", "0 0x200008"));
    check_answer(g, "lookup", "none");
    g_assert_true(ask(g, "access", "read 0 0x200008"));
    check_answer(g, "access", "waiting");
    g_assert_false(ask(g, "access", "read 0 0x200008"));
    take_fault(g, VA_SMALL, 2);
    g_assert_cmphex(rd(g, PMC_INTR) & PMC_LEAF0_FAULT, ==, 0);

    /* Nothing has changed: the replay faults again. */
    replay(g, REPLAY(REPLAY_START));
    take_fault(g, VA_SMALL, 2);
    set_small(g, 0, PTE(V_DATA) | PTE_RO);
    replay(g, REPLAY(0));
    check_answer(g, "access", "waiting");
    replay(g, REPLAY(REPLAY_START));
    check_answer(g, "access", "done 0x12345678");
    check_answer(g, "lookup", "vram 0x400008 4096 ro");
    g_assert_cmpuint(counter(g, "replayable-faults"), ==, 2);
    g_assert_cmpuint(counter(g, "fault-replays"), ==, 2);

    g_assert_true(ask(g, "access", "write 0 0x200010 0x99"));
    take_fault(g, VA_SMALL, 6 | 1 << 16);
    set_small(g, 0, PTE_SYS(SYS_BUF));
    replay(g, REPLAY(REPLAY_START_ACK_ALL));
    check_answer(g, "access", "done 0x99");
    g_assert_cmphex(qtest_readq(g->qts, SYS_BUF + 16), ==, 0x99);
    check_answer(g, "lookup", "system 0x200008 4096 rw");

    /* The driver gives up. */
    g_assert_true(ask(g, "access", "read 0 0x201000"));
    take_fault(g, VA_SMALL + 0x1000, 2);
    replay(g, REPLAY(REPLAY_CANCEL_TARGETED) | MMU_INVALIDATE_HUB | 1 << 9);
    replay(g, REPLAY(REPLAY_CANCEL_TARGETED) | 2 << 9);
    replay(g, REPLAY(REPLAY_CANCEL_TARGETED) | 1 << 15 | 1 << 9);
    replay(g, REPLAY(7));
    check_answer(g, "access", "waiting");
    replay(g, REPLAY(REPLAY_CANCEL_TARGETED) | 1 << 9);
    check_answer(g, "access", "cancelled");
    g_assert_true(ask(g, "access", "read 0 0x201000"));
    replay(g, REPLAY(REPLAY_CANCEL_GLOBAL));
    check_answer(g, "access", "cancelled");

    /* What cannot be replayed */
    g_assert_true(ask(g, "access", "read 0 0x20000000000"));
    check_answer(g, "access", "fault 3");
    g_assert_true(ask(g, "access", "read 1 0x200000"));
    check_answer(g, "access", "fault 4");
    set_small(g, 0, PTE_SYS(1ull << 45));
    invalidate(g, V_PD3);
    g_assert_true(ask(g, "access", "read 0 0x200000"));
    check_answer(g, "access", "fault -2");
    wr(g, PFIFO_FAULT_BUF_LO, 0);
    g_assert_true(ask(g, "access", "read 0 0x201000"));
    check_answer(g, "access", "fault 2");
    gpu_stop(g);
}

/* Without room in the buffer a fault waits for that. */
static void test_full_buffer(void)
{
    Gpu *g = make_faults();

    g_assert_true(ask(g, "access", "read 0 0x200000"));
    for (unsigned i = 0; i < FAULT_ENTRIES + 10; i++) {
        replay(g, REPLAY(REPLAY_START));
    }
    g_assert_cmpuint(counter(g, "replayable-faults"), ==, FAULT_ENTRIES - 1);
    for (unsigned i = 0; i < FAULT_ENTRIES; i++) {
        take_fault(g, VA_SMALL, 2);
        step(g, 1);
    }
    g_assert_cmpuint(counter(g, "replayable-faults"), ==, FAULT_ENTRIES);
    g_assert_cmphex(rd(g, PMC_INTR) & PMC_LEAF0_FAULT, ==, 0);
    set_small(g, 0, PTE(V_DATA));
    replay(g, REPLAY(REPLAY_START));
    check_answer(g, "access", "done 0x0");

    /* A reset of the unit, an unbound channel, a buffer that is nowhere */
    g_assert_true(ask(g, "access", "read 0 0x201000"));
    wr(g, PMC_ENABLE, ~PMC_UNIT_PFIFO);
    check_answer(g, "access", "reset");
    wr(g, PMC_ENABLE, UINT32_MAX);
    wr(g, CCSR_INST, CCSR_INST_BIND | V_INST >> 12);
    wr(g, PFIFO_FAULT_BUF_LO, FAULT_BUFFER | 1);
    g_assert_true(ask(g, "access", "read 0 0x201000"));
    check_answer(g, "access", "waiting");
    wr(g, CCSR_INST, 0);
    replay(g, REPLAY(REPLAY_START));
    check_answer(g, "access", "fault 4");
    wr(g, CCSR_INST, CCSR_INST_BIND | V_INST >> 12);
    wr(g, PFIFO_FAULT_BUF_HI, 0xffffffff);
    g_assert_true(ask(g, "access", "read 0 0x201000"));
    check_answer(g, "access", "waiting");
    g_assert_cmphex(rd(g, PFIFO_FAULT_UNITS), ==, 1 << 5);
    g_assert_true(ask(g, "access", "forget"));
    check_answer(g, "access", "none");
    gpu_stop(g);
}

static void test_bad_access(void)
{
    static const char *const bad[] = {
        "", "read", "read 0", "read 0 x", "read -1 0", "read 256 0",
        "read 0 4", "read 0 0 0", "write 0 0", "write 0 0 x",
        "write 0 0 0 0", "touch 0 0", "forget 0", "  ", "write",
    };
    Gpu *g = make_faults();

    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        g_assert_false(ask(g, "access", bad[i]));
    }
    g_assert_false(ask(g, "lookup", ""));
    g_assert_false(ask(g, "lookup", "0"));
    g_assert_false(ask(g, "lookup", "256 0"));
    g_assert_false(ask(g, "lookup", "0 0 0"));
    check_answer(g, "access", "none");
    gpu_stop(g);
}

/* A fault that stays in the buffer does not keep the guest from working. */
static void test_fault_message(void)
{
    Gpu *g = make_faults();

    qtest_writel(g->qts, SYS_MSI, 0);
    msi_enable(g, SYS_MSI, 0x1234);
    wr(g, PMC_INTR_EN_SET, UINT32_MAX);
    step(g, 1);
    g_assert_true(ask(g, "access", "read 0 0x200000"));
    g_assert_cmphex(msi_take(g), ==, 0x1234);
    wr(g, XVE_MSI_REARM, 0);
    g_assert_cmphex(msi_take(g), ==, 0);
    step(g, 1000000);
    g_assert_cmphex(msi_take(g), ==, 0x1234);
    wr(g, XVE_MSI_REARM, 0);
    g_assert_cmphex(msi_take(g), ==, 0);

    /* Other interrupts are not held back. */
    raise_timer(g);
    g_assert_cmphex(msi_take(g), ==, 0x1234);
    wr(g, PTIMER_INTR, 1);

    /* None for a fault that was taken meanwhile */
    wr(g, XVE_MSI_REARM, 0);
    take_fault(g, VA_SMALL, 2);
    step(g, 2000000);
    g_assert_cmphex(msi_take(g), ==, 0);
    gpu_stop(g);
}

/* The table of engines has the graphics engine where a test wants it. */
static void test_graphics(void)
{
    Gpu *g = gpu_start(",ce-runlist=5");

    g_assert_cmphex(rd(g, PTOP_DEVICE_INFO + 12), ==, 0);
    qtest_qmp_assert_success(g->qts, "{'execute': 'qom-set', 'arguments': "
                             "{'path': '/machine/peripheral/gpu', "
                             "'property': 'graphics', 'value': true}}");
    g_assert_cmphex(rd(g, PTOP_DEVICE_INFO + 12), ==, 0x80000003);
    g_assert_cmphex(rd(g, PTOP_DEVICE_INFO + 16), ==, 0x80400005);
    g_assert_cmphex(rd(g, PTOP_DEVICE_INFO + 20), ==,
                    1 << 26 | 5 << 21 | 12 << 15 | 12 << 9 | 0x3e);
    g_assert_cmphex(rd(g, PTOP_DEVICE_INFO + 24), ==, 0);
    gpu_stop(g);
}

static void test_reset(void)
{
    Gpu *g = gpu_start("");
    Push p = make_channel(g);

    wr(g, PMC_INTR_EN_SET, UINT32_MAX);
    v_stl(g, V_DATA, 0xf0f0f0f0);
    qtest_system_reset(g->qts);
    gpu_enable(g);
    g_assert_cmphex(v_ldl(g, V_DATA), ==, 0xf0f0f0f0);
    g_assert_cmphex(rd(g, PMC_INTR_EN), ==, 0);
    g_assert_cmphex(rd(g, CCSR_CHANNEL), ==, 0);
    g_assert_cmphex(rd(g, PBUS_BAR1_BLOCK), ==, 0);
    push_sem(&p, V_SEM, 0x9009, 2);
    kick(g, &p);
    g_assert_cmphex(v_ldl(g, V_SEM), ==, 0);
    p = make_channel(g);
    push_sem(&p, V_SEM, 0x9009, 2);
    kick(g, &p);
    g_assert_cmphex(v_ldl(g, V_SEM), ==, 0x9009);
    gpu_stop(g);
}

/* A machine that sleeps takes VRAM's power, too. */
static void test_sleep(void)
{
    Gpu *g = gpu_start("");
    const unsigned lpc = 31 << 3, pm_base = 0x600;

    qtest_outl(g->qts, 0xcf8, 0x80000000u | lpc << 8 | 0x40);
    qtest_outl(g->qts, 0xcfc, pm_base);
    qtest_outl(g->qts, 0xcf8, 0x80000000u | lpc << 8 | 0x44);
    qtest_outb(g->qts, 0xcfc, 0x80);                    /* ACPI_EN */
    wr(g, PMC_INTR_EN_SET, UINT32_MAX);
    v_stl(g, V_DATA, 0xf0f0f0f0);
    qtest_outw(g->qts, pm_base + 4, 1 << 13 | 1 << 10); /* SLP_EN, S3 */
    qtest_qmp_eventwait(g->qts, "SUSPEND");
    g_assert_cmphex(v_ldl(g, V_DATA), ==, 0xf0f0f0f0);
    qtest_qmp_assert_success(g->qts, "{'execute': 'system_wakeup'}");
    qtest_qmp_eventwait(g->qts, "WAKEUP");
    g_assert_cmphex(v_ldl(g, V_DATA), ==, 0);
    gpu_enable(g);
    g_assert_cmphex(rd(g, PMC_INTR_EN), ==, 0);
    gpu_stop(g);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("gp100/identity", test_identity);
    qtest_add_func("gp100/refused", test_refused);
    qtest_add_func("gp100/strict", test_strict);
    qtest_add_func("gp100/ptimer", test_ptimer);
    qtest_add_func("gp100/interrupt", test_msi);
    qtest_add_func("gp100/pramin", test_pramin);
    qtest_add_func("gp100/mmu/walk", test_walk);
    qtest_add_func("gp100/mmu/walk-without-tlb", test_walk_no_tlb);
    qtest_add_func("gp100/bar1/windows", test_windows);
    qtest_add_func("gp100/bar1/window-limit", test_window_limit);
    qtest_add_func("gp100/bar1/peer", test_peer);
    qtest_add_func("gp100/channel/run", test_channel);
    qtest_add_func("gp100/channel/runlist", test_runlist);
    qtest_add_func("gp100/channel/userd", test_userd);
    qtest_add_func("gp100/channel/resume", test_channel_resume);
    qtest_add_func("gp100/channel/drop-nonstall", test_drop_nonstall);
    qtest_add_func("gp100/channel/bad-methods", test_bad_methods);
    qtest_add_func("gp100/channel/two-errors", test_two_errors);
    qtest_add_func("gp100/channel/bad-setup", test_bad_setup);
    qtest_add_func("gp100/copy/data", test_copy);
    qtest_add_func("gp100/copy/own-bar", test_copy_own_bar);
    qtest_add_func("gp100/copy/config-space", test_config_space);
    qtest_add_func("gp100/copy/delay", test_copy_delay);
    qtest_add_func("gp100/copy/rebound", test_copy_rebound);
    qtest_add_func("gp100/copy/hang", test_copy_hang);
    qtest_add_func("gp100/copy/trigger-fault", test_fault_trigger);
    qtest_add_func("gp100/copy/errors", test_copy_errors);
    qtest_add_func("gp100/copy/endless", test_copy_endless);
    qtest_add_func("gp100/copy/to-doorbell", test_copy_to_doorbell);
    qtest_add_func("gp100/fault/replay", test_replay);
    qtest_add_func("gp100/fault/full-buffer", test_full_buffer);
    qtest_add_func("gp100/fault/bad-access", test_bad_access);
    qtest_add_func("gp100/fault/message", test_fault_message);
    qtest_add_func("gp100/graphics", test_graphics);
    qtest_add_func("gp100/counts", test_counts);
    qtest_add_func("gp100/unplug-by-message", test_unplug_by_message);
    qtest_add_func("gp100/unplug-neighbour", test_unplug_neighbour);
    qtest_add_func("gp100/unplug-within-scan", test_unplug_within_scan);
    qtest_add_func("gp100/iommu-tables", test_iommu_tables);
    qtest_add_func("gp100/random", test_random);
    qtest_add_func("gp100/reset", test_reset);
    qtest_add_func("gp100/sleep", test_sleep);
    return g_test_run();
}
