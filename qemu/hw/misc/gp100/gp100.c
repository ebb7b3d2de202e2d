/*
 * NVIDIA Pascal GPU, GP100 (Tesla P100 PCIe).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The PCI device: properties, counters, BARs, reset.  There is no graphics
 * engine, no display and no firmware: host channels, one copy engine and the
 * MMU, which is what migrating memory to VRAM and back takes.
 *
 * Usage (see docs/system/devices/gp100.rst for all properties):
 *
 *   -object memory-backend-file,id=vram,size=2G,share=on,mem-path=/dev/shm/v
 *   -device gp100,memdev=vram,bar1-size=4G
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/module.h"
#include "hw/pci/msi.h"
#include "hw/pci/p2p_dma.h"
#include "hw/pci/pci_device.h"
#include "hw/qdev-properties.h"
#include "migration/vmstate.h"
#include "gp100.h"
#include "trace.h"

#define GP100_DEVICE_ID         0x15f8
#define GP100_REVISION          0xa1
#define GP100_SUBSYSTEM_ID      0x118f

#define GP100_CAP_PM            0x60
#define GP100_CAP_MSI           0x68
#define GP100_CAP_EXP           0x78
#define GP100_CONF_HDA          0x488   /* bit 25: no audio function */

/* BARs by PCI index, each 64-bit one takes two */
enum { GP100_BAR_REGS = 0, GP100_BAR_VRAM = 1, GP100_BAR_INST = 3 };

static const struct {
    const char *name;
    size_t offset;
} stats[] = {
#define STAT(name, field) { name, offsetof(GP100State, stats.field) }
    STAT("ce-launches", ce_launches),
    STAT("ce-bytes-h2d", ce_bytes_h2d),
    STAT("ce-bytes-d2h", ce_bytes_d2h),
    STAT("ce-bytes-d2d", ce_bytes_d2d),
    STAT("ce-bytes-h2h", ce_bytes_h2h),
    STAT("ce-bytes-fill", ce_bytes_fill),
    STAT("ce-errors", ce_errors),
    STAT("ce-ns", ce_ns),
    STAT("gp-entries", gp_entries),
    STAT("methods", methods),
    STAT("semaphore-releases", sem_releases),
    STAT("semaphore-acquires", sem_acquires),
    STAT("nonstall-irqs", nonstall_irqs),
    STAT("msi-sent", msi_sent),
    STAT("tlb-invalidates", tlb_invalidates),
    STAT("tlb-hits", tlb_hits),
    STAT("tlb-misses", tlb_misses),
    STAT("bar1-reads", bar1_reads),
    STAT("bar1-writes", bar1_writes),
    STAT("bar1-faults", bar1_faults),
    STAT("bar1-window-count", bar1_windows),
    STAT("bar1-window-bytes", bar1_window_bytes),
    STAT("bar1-window-rest", bar1_window_rest),
    STAT("bar2-faults", bar2_faults),
    STAT("mmu-faults", mmu_faults),
    STAT("replayable-faults", replayable_faults),
    STAT("fault-replays", fault_replays),
    STAT("unknown-regs", unknown_regs),
    STAT("guest-errors", guest_errors),
#undef STAT
};

static bool check_size(const char *name, uint64_t size, uint64_t min,
                       uint64_t max, bool pow2, Error **errp)
{
    if (size < min || size > max || size % GP100_LARGE_SIZE ||
        (pow2 && !is_power_of_2(size))) {
        error_setg(errp, "gp100: %s of 0x%" PRIx64 " bytes: must be %s "
                   "from %" PRIu64 " MiB to %" PRIu64 " MiB", name, size,
                   pow2 ? "a power of two" : "a multiple of 2 MiB",
                   min / MiB, max / MiB);
        return false;
    }
    return true;
}

static bool gp100_realize_vram(GP100State *s, Error **errp)
{
    uint64_t size;

    if (s->memdev) {
        if (host_memory_backend_is_mapped(s->memdev)) {
            error_setg(errp, "gp100: memory backend '%s' is already in use",
                       object_get_canonical_path_component(OBJECT(s->memdev)));
            return false;
        }
        s->vram_mr = host_memory_backend_get_memory(s->memdev);
        if (memory_region_is_rom(s->vram_mr)) {
            error_setg(errp, "gp100: memory backend '%s' is read-only",
                       object_get_canonical_path_component(OBJECT(s->memdev)));
            return false;
        }
        size = memory_region_size(s->vram_mr);
    } else {
        size = s->vram_prop;
    }
    if (!check_size("VRAM", size, 64 * MiB, GP100_VRAM_MAX, false, errp)) {
        return false;
    }
    if (s->memdev) {
        host_memory_backend_set_mapped(s->memdev, true);
    } else {
        if (!memory_region_init_ram_nomigrate(&s->vram_own, OBJECT(s),
                                              "gp100-vram", size, errp)) {
            return false;
        }
        s->vram_mr = &s->vram_own;
    }
    return true;
}

static void gp100_realize(PCIDevice *dev, Error **errp)
{
    GP100State *s = GP100(dev);

    if (!check_size("bar1-size", s->bar1_prop, 64 * MiB, GP100_VRAM_MAX, true,
                    errp)) {
        return;
    }
    if (s->ce_runlist >= GP100_RUNLISTS) {
        error_setg(errp, "gp100: ce-runlist is %u: must be below %u",
                   s->ce_runlist, GP100_RUNLISTS);
        return;
    }
    if (!pci_bus_is_express(pci_get_bus(dev))) {
        error_setg(errp, "gp100: needs a PCI Express slot");
        return;
    }
    if (!gp100_realize_vram(s, errp)) {
        return;
    }
    if (msi_init(dev, GP100_CAP_MSI, 1, true, false, errp) < 0) {
        goto fail;
    }
    if (pcie_endpoint_cap_init(dev, GP100_CAP_EXP) < 0) {
        error_setg(errp, "gp100: no room for the PCI Express capability");
        goto fail_msi;
    }
    if (pci_pm_init(dev, GP100_CAP_PM, errp) < 0) {
        goto fail_exp;
    }
    pci_set_word(dev->config + GP100_CAP_PM + PCI_PM_CTRL,
                 PCI_PM_CTRL_NO_SOFT_RESET);
    pci_set_word(dev->wmask + GP100_CAP_PM + PCI_PM_CTRL,
                 PCI_PM_CTRL_STATE_MASK);
    pci_config_set_interrupt_pin(dev->config, 1);
    pci_set_word(dev->config + PCI_SUBSYSTEM_VENDOR_ID, PCI_VENDOR_ID_NVIDIA);
    pci_set_word(dev->config + PCI_SUBSYSTEM_ID, GP100_SUBSYSTEM_ID);
    pci_set_long(dev->config + GP100_CONF_HDA, 1u << 25);

    s->regs = g_new0(uint32_t, GP100_BAR0_SIZE / 4);
    s->vbios = g_malloc0(GP100_VBIOS_SIZE);
    gp100_vbios_build(s->vbios, PCI_VENDOR_ID_NVIDIA, GP100_DEVICE_ID);

    gp100_fb_realize(s);
    gp100_pri_realize(s);
    gp100_bar_realize(s);
    gp100_fifo_realize(s);
    gp100_ce_realize(s);
    gp100_ptimer_realize(s);
    gp100_fault_realize(s);
    gp100_access_realize(s);

    pci_register_bar(dev, GP100_BAR_REGS, PCI_BASE_ADDRESS_SPACE_MEMORY,
                     &s->bar0);
    pci_register_bar(dev, GP100_BAR_VRAM,
                     PCI_BASE_ADDRESS_SPACE_MEMORY |
                     PCI_BASE_ADDRESS_MEM_PREFETCH |
                     PCI_BASE_ADDRESS_MEM_TYPE_64, &s->bar1.container);
    pci_register_bar(dev, GP100_BAR_INST,
                     PCI_BASE_ADDRESS_SPACE_MEMORY |
                     PCI_BASE_ADDRESS_MEM_PREFETCH |
                     PCI_BASE_ADDRESS_MEM_TYPE_64, &s->bar2.mmio);
    return;

fail_exp:
    pcie_cap_exit(dev);
fail_msi:
    msi_uninit(dev);
fail:
    if (s->memdev) {
        host_memory_backend_set_mapped(s->memdev, false);
    }
}

/*
 * A message or what another device did because of an access may have unplugged
 * the GPU from within its own code.  As long as that can be on the stack the
 * state stays, and does nothing any more.
 */
static void gp100_exit(PCIDevice *dev)
{
    GP100State *s = GP100(dev);

    gp100_ptimer_stop(s);
    gp100_access_stop(s);
    gp100_fault_stop(s);
    gp100_ce_abort(s);
    gp100_fifo_stop(s);
    gp100_bar_stop(s);
    gp100_pri_stop(s);
    pcie_cap_exit(dev);
    msi_uninit(dev);
    if (s->memdev) {
        host_memory_backend_set_mapped(s->memdev, false);
    }
    p2p_work_keep(OBJECT(s));
}

/* Also of an instance that was never realized */
static void gp100_instance_finalize(Object *obj)
{
    GP100State *s = GP100(obj);

    gp100_ptimer_finalize(s);
    gp100_access_finalize(s);
    gp100_fault_finalize(s);
    gp100_ce_finalize(s);
    gp100_fifo_finalize(s);
    gp100_bar_finalize(s);
    g_free(s->vbios);
    g_free(s->regs);
}

/* Enabling or disabling MSI changes who is told of a pending interrupt. */
static void gp100_config_write(PCIDevice *dev, uint32_t addr, uint32_t val,
                               int len)
{
    pci_default_write_config(dev, addr, val, len);
    gp100_irq_update(GP100(dev));
}

/*
 * VRAM keeps its contents, as on hardware, except in a machine that slept: in
 * S3 slots have no power, and a driver that left something in VRAM lost it.
 */
static void gp100_reset_hold(Object *obj, ResetType type)
{
    GP100State *s = GP100(obj);

    trace_gp100_reset(type);
    if (type == RESET_TYPE_WAKEUP) {
        gp100_fb_power_cycle(s);
    }
    /* The units must not see windows that the page tables of before make. */
    gp100_bar_reset(s);
    gp100_pri_reset(s);
    gp100_irq_update(s);
}

static const Property gp100_properties[] = {
    DEFINE_PROP_LINK("memdev", GP100State, memdev, TYPE_MEMORY_BACKEND,
                     HostMemoryBackend *),
    DEFINE_PROP_SIZE("vram-size", GP100State, vram_prop, 2 * GiB),
    DEFINE_PROP_SIZE("bar1-size", GP100State, bar1_prop, 4 * GiB),
    DEFINE_PROP_BOOL("strict", GP100State, strict, false),
    DEFINE_PROP_BOOL("bar1-windows", GP100State, use_windows, true),
    DEFINE_PROP_BOOL("tlb", GP100State, use_tlb, true),
    DEFINE_PROP_UINT8("ce-runlist", GP100State, ce_runlist, 0),
};

static const VMStateDescription gp100_vmstate = {
    .name = TYPE_GP100,
    .unmigratable = 1,
};

void gp100_count_append(GString *text, const char *prefix, const char *name,
                        const GP100Count *count)
{
    g_string_append_printf(text, "%s%s%s=%" PRIu64 "/%" PRIu64,
                           text->len ? " " : "", prefix, name, count->good,
                           count->bad);
}

static bool gp100_get_graphics(Object *obj, Error **errp)
{
    return GP100(obj)->graphics;
}

static void gp100_set_graphics(Object *obj, bool value, Error **errp)
{
    GP100(obj)->graphics = value;
}

static char *gp100_get_event_counts(Object *obj, Error **errp)
{
    static const char *const names[] = {
#define GP100_EVENT_NAME(name) #name
        GP100_EVENTS(GP100_EVENT_NAME)
#undef GP100_EVENT_NAME
    };
    GString *text = g_string_new(NULL);

    for (unsigned i = 0; i < GP100_EVENT_NUM; i++) {
        gp100_count_append(text, "", names[i], &GP100(obj)->stats.events[i]);
    }
    return g_string_free(text, false);
}

static char *gp100_get_method_counts(Object *obj, Error **errp)
{
    GString *text = g_string_new(NULL);

    gp100_pbdma_counts(GP100(obj), text);
    gp100_ce_counts(GP100(obj), text);
    return g_string_free(text, false);
}

/* Counters and the knobs that a test turns while the guest runs. */
static void gp100_instance_init(Object *obj)
{
    GP100State *s = GP100(obj);

    for (unsigned i = 0; i < ARRAY_SIZE(stats); i++) {
        object_property_add_uint64_ptr(
            obj, stats[i].name, (uint64_t *)((char *)s + stats[i].offset),
            OBJ_PROP_FLAG_READ);
    }
    object_property_add_str(obj, "event-counts", gp100_get_event_counts, NULL);
    object_property_add_str(obj, "method-counts", gp100_get_method_counts,
                            NULL);
    object_property_add_uint32_ptr(obj, "copy-delay-us", &s->copy_delay_us,
                                   OBJ_PROP_FLAG_READWRITE);
    object_property_add_uint32_ptr(obj, "fail-copies", &s->fail_copies,
                                   OBJ_PROP_FLAG_READWRITE);
    object_property_add_uint32_ptr(obj, "hang-copies", &s->hang_copies,
                                   OBJ_PROP_FLAG_READWRITE);
    object_property_add_uint32_ptr(obj, "drop-nonstall", &s->drop_nonstall,
                                   OBJ_PROP_FLAG_READWRITE);
    object_property_add_bool(obj, "graphics", gp100_get_graphics,
                             gp100_set_graphics);
    object_property_add_str(obj, "access", gp100_access_get, gp100_access_set);
    object_property_add_str(obj, "lookup", gp100_lookup_get, gp100_lookup_set);
}

static void gp100_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    PCIDeviceClass *pc = PCI_DEVICE_CLASS(klass);
    ResettableClass *rc = RESETTABLE_CLASS(klass);

    pc->realize = gp100_realize;
    pc->exit = gp100_exit;
    pc->config_write = gp100_config_write;
    pc->vendor_id = PCI_VENDOR_ID_NVIDIA;
    pc->device_id = GP100_DEVICE_ID;
    pc->revision = GP100_REVISION;
    pc->class_id = PCI_CLASS_DISPLAY_3D;
    dc->desc = "NVIDIA Pascal GPU (GP100): MMU, channels and a copy engine";
    dc->vmsd = &gp100_vmstate;
    rc->phases.hold = gp100_reset_hold;
    device_class_set_props(dc, gp100_properties);
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
}

static const TypeInfo gp100_info = {
    .name = TYPE_GP100,
    .parent = TYPE_PCI_DEVICE,
    .instance_size = sizeof(GP100State),
    .instance_init = gp100_instance_init,
    .instance_finalize = gp100_instance_finalize,
    .class_init = gp100_class_init,
    .interfaces = (InterfaceInfo[]) {
        { INTERFACE_PCIE_DEVICE },
        { },
    },
};

static void gp100_register_types(void)
{
    type_register_static(&gp100_info);
}

type_init(gp100_register_types)
