/*
 * mlx5 HCA: an InfiniBand host channel adapter
 *
 * A model of what the mlx5 drivers of Linux and rdma-core need of a
 * ConnectX-5: see docs/system/devices/mlx5.rst.  This file is the PCI
 * function: properties, BARs, reset, and the bottom half that does the work.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/log.h"
#include "qemu/module.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "hw/pci/msix.h"
#include "hw/pci/pci_ids.h"
#include "hw/pci/pcie.h"
#include "hw/qdev-properties.h"
#include "migration/vmstate.h"
#include "mlx5.h"
#include "trace.h"

enum {
    PCI_VENDOR_MELLANOX = 0x15b3,
    PCI_DEVICE_CONNECTX5 = 0x1017,
    PCI_SUBSYSTEM_CONNECTX5 = 0x0007,
    PCI_CLASS_INFINIBAND = 0x0207,
    BAR0_BYTES = 16 * MiB,
    MSIX_BAR = 4,
    ISEG_BYTES = 0x2010,
    ATS_CAP_OFFSET = 0x100,
    FIRST_EQ = 1, MAX_EQS = 64,
    FIRST_PD = 1,
    FIRST_XRCD = 1,
    FIRST_CQ = 0x80,
    FIRST_QP = 0x40,
    FIRST_SRQ = 0x40,
    /* 1 is the scatter list terminator, 2 the null mkey. */
    FIRST_MKEY = 16,
    MAX_LID = 0xbfff,
    MAX_DELIVERED = 256,        /* MSI-X vectors at a time */
};

/*
 * An EUI-64 with the OUI that QEMU uses for its MAC addresses, of the subnet
 * and the LID there.
 */
#define GUID_OUI 0x525400ull
#define GUID_UNNAMED_SUBNET 0x000500

/*
 * The HCA that works just now.  HCAs reach into each other's objects, so none
 * may start while another is at it: its DMA may ring the doorbell of a third,
 * or of a device that answers with DMA to a doorbell.
 */
static Mlx5State *working;

/*
 * A message-signaled interrupt is a write to wherever the guest says: it may
 * ring a doorbell, or reset or unplug any HCA by the configuration of a port.
 * So those of the HCAs are delivered when nobody is at work, which lets the
 * work be done first.  Messages of other devices can come at any time.
 */
static QTAILQ_HEAD(, Mlx5State) firing = QTAILQ_HEAD_INITIALIZER(firing);
static bool delivering;

static void fire_forget(Mlx5State *s)
{
    if (s->fire) {
        s->fire = 0;
        QTAILQ_REMOVE(&firing, s, fire_entry);
    }
}

static void deliver_vectors(void)
{
    Mlx5State *s;

    p2p_work_begin();
    delivering = true;
    /* Bounded, as interrupts may lead to interrupts. */
    for (unsigned i = 0; i < MAX_DELIVERED && (s = QTAILQ_FIRST(&firing));
         i++) {
        unsigned vector = ctz64(s->fire);

        if (s->fire == 1ull << vector) {
            fire_forget(s);
        } else {
            s->fire &= ~(1ull << vector);
        }
        if (msix_enabled(&s->parent_obj)) {
            msix_notify(&s->parent_obj, vector);
        }
    }
    delivering = false;
    QTAILQ_FOREACH(s, &firing, fire_entry) {
        mlx5_schedule(s);
    }
    p2p_work_end();
}

void mlx5_fire(Mlx5State *s, unsigned vector)
{
    if (!s->fire) {
        QTAILQ_INSERT_TAIL(&firing, s, fire_entry);
    }
    s->fire |= 1ull << vector;
    if (!working && !delivering) {
        deliver_vectors();
    }
}

void mlx5_schedule(Mlx5State *s)
{
    if (s != working && s->bh) {
        qemu_bh_schedule(s->bh);
    }
}

void mlx5_run(Mlx5State *s)
{
    bool more;

    if (working || delivering) {
        mlx5_schedule(s);
        return;
    }
    /* Whatever is left to do is about to be forgotten. */
    if (s->dma.stopped) {
        return;
    }
    p2p_work_begin();
    working = s;
    more = mlx5_cmd_run(s);
    mlx5_cq_run_arms(s);
    more |= mlx5_requester_run(s);
    /* What was completed just now may have been armed meanwhile. */
    mlx5_cq_run_arms(s);
    working = NULL;
    if (more) {
        mlx5_schedule(s);
    }
    deliver_vectors();
    p2p_work_end();
}

static void mlx5_bh(void *opaque)
{
    mlx5_run(opaque);
}

static uint64_t bar0_read(void *opaque, hwaddr offset, unsigned size)
{
    Mlx5State *s = opaque;

    /* Doorbell pages are write-only. */
    return offset < ISEG_BYTES ? mlx5_iseg_read(s, offset, size) : 0;
}

static void bar0_write(void *opaque, hwaddr offset, uint64_t value,
                       unsigned size)
{
    Mlx5State *s = opaque;

    if (offset < MLX5_FIRST_UAR * MLX5_UAR_BYTES) {
        mlx5_iseg_write(s, offset, value, size);
    } else {
        mlx5_uar_write(s, offset, value, size);
    }
}

static const MemoryRegionOps bar0_ops = {
    .read = bar0_read,
    .write = bar0_write,
    .endianness = DEVICE_BIG_ENDIAN,
    .valid = { .min_access_size = 1, .max_access_size = 8 },
    .impl = { .min_access_size = 1, .max_access_size = 8 },
};

void mlx5_hca_teardown(Mlx5State *s)
{
    fire_forget(s);
    /* Users before what they use. */
    mlx5_table_clear(&s->qps);
    mlx5_table_clear(&s->srqs);
    mlx5_table_clear(&s->cqs);
    mlx5_table_clear(&s->eqs);
    mlx5_table_clear(&s->mkeys);
    mlx5_table_clear(&s->pds);
    mlx5_table_clear(&s->xrcds);
    mlx5_table_clear(&s->uars);
    /* Only requests of other HCAs can still wait, and find nobody now. */
    mlx5_odp_forget(s);
    s->hca_initialized = false;
}

static void hca_forget(void *opaque)
{
    Mlx5State *s = opaque;

    mlx5_hca_teardown(s);
    mlx5_iseg_reset(s);
    mlx5_caps_reset(s);
    s->hca_enabled = false;
    s->issi = 0;
    s->port_cap_mask = 0;
    memset(s->node_desc, 0, sizeof(s->node_desc));
    snprintf((char *)s->node_desc, sizeof(s->node_desc), "QEMU mlx5 LID %u",
             s->lid);
}

/*
 * An HCA at work, be it this or another, has pointers to this one's objects:
 * so long they stay, but nothing of them is found or reaches memory any more.
 */
static void mlx5_reset(DeviceState *dev)
{
    Mlx5State *s = MLX5(dev);

    trace_mlx5_reset(s->parent_obj.name);
    qemu_bh_cancel(s->bh);
    p2p_work_after(hca_forget, s);
    p2p_dma_reset(&s->dma);
}

static void mlx5_config_write(PCIDevice *dev, uint32_t address,
                              uint32_t value, int len)
{
    Mlx5State *s = MLX5(dev);

    pci_default_write_config(dev, address, value, len);
    pcie_cap_flr_write_config(dev, address, value, len);
    p2p_dma_config_write(&s->dma, address, len);
}

static uint64_t mlx5_default_guid(const Mlx5State *s)
{
    uint32_t subnet = s->subnet ? g_str_hash(s->subnet) : GUID_UNNAMED_SUBNET;

    return GUID_OUI << 40 | (uint64_t)extract32(subnet, 0, 24) << 16 | s->lid;
}

static bool mlx5_check_properties(Mlx5State *s, Error **errp)
{
    if (s->num_vectors < 2 || s->num_vectors > MLX5_MAX_VECTORS) {
        error_setg(errp, "\"vectors\" must be between 2 and %d",
                   MLX5_MAX_VECTORS);
        return false;
    }
    if (s->lid > MAX_LID) {
        error_setg(errp, "\"lid\" must be between 1 and 0x%x, or 0 to have "
                   "one chosen", MAX_LID);
        return false;
    }
    if (s->lid && mlx5_fabric_find(s, s->lid)) {
        error_setg(errp, "another mlx5 device of subnet \"%s\" has LID %u: "
                   "give each its own \"lid\"", s->subnet ? s->subnet : "",
                   s->lid);
        return false;
    }
    if (!s->lid) {
        s->lid = mlx5_fabric_free_lid(s->subnet);
    }
    if (!s->guid) {
        s->guid = mlx5_default_guid(s);
    }
    if (mlx5_fabric_has_guid(s->guid)) {
        error_setg(errp, "another mlx5 device has GUID 0x%016" PRIx64 ": give "
                   "each its own \"guid\"", s->guid);
        return false;
    }
    return true;
}

static void mlx5_tables_init(Mlx5State *s)
{
    mlx5_table_init(&s->uars, MLX5_FIRST_UAR, BAR0_BYTES / MLX5_UAR_BYTES,
                    g_free);
    mlx5_table_init(&s->pds, FIRST_PD, 1 << 16, g_free);
    mlx5_table_init(&s->xrcds, FIRST_XRCD, 1 << 16, g_free);
    mlx5_table_init(&s->eqs, FIRST_EQ, MAX_EQS, mlx5_eq_free);
    mlx5_table_init(&s->cqs, FIRST_CQ, 1 << 17, mlx5_cq_free);
    mlx5_table_init(&s->mkeys, FIRST_MKEY, 1 << 20, mlx5_mkey_free);
    mlx5_table_init(&s->qps, FIRST_QP, 1 << 17, mlx5_qp_free);
    mlx5_table_init(&s->srqs, FIRST_SRQ, 1 << 16, mlx5_srq_free);
    s->faults = g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL,
                                      mlx5_odp_free);
}

static void mlx5_realize(PCIDevice *dev, Error **errp)
{
    Mlx5State *s = MLX5(dev);
    int ret;

    if (!mlx5_check_properties(s, errp)) {
        return;
    }
    dev->config[PCI_INTERRUPT_PIN] = 0;
    memory_region_init_io(&s->bar0, OBJECT(s), &bar0_ops, s, "mlx5-bar0",
                          BAR0_BYTES);
    pci_register_bar(dev, 0, PCI_BASE_ADDRESS_SPACE_MEMORY |
                     PCI_BASE_ADDRESS_MEM_TYPE_64 |
                     PCI_BASE_ADDRESS_MEM_PREFETCH, &s->bar0);
    ret = pcie_endpoint_cap_init(dev, 0);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "cannot add the PCI Express capability");
        return;
    }
    pcie_cap_flr_init(dev);
    if (pci_pm_init(dev, 0, errp) < 0 ||
        msix_init_exclusive_bar(dev, s->num_vectors, MSIX_BAR, errp) < 0) {
        return;
    }
    pci_set_word(dev->config + dev->pm_cap + PCI_PM_CTRL,
                 PCI_PM_CTRL_NO_SOFT_RESET);
    pci_set_word(dev->wmask + dev->pm_cap + PCI_PM_CTRL,
                 PCI_PM_CTRL_STATE_MASK);
    for (unsigned i = 0; i < s->num_vectors; i++) {
        msix_vector_use(dev, i);
    }
    p2p_dma_init(&s->dma, dev);
    if (s->ats && !p2p_dma_init_ats(&s->dma, ATS_CAP_OFFSET, errp)) {
        p2p_dma_exit(&s->dma);
        msix_uninit_exclusive_bar(dev);
        return;
    }
    QTAILQ_INIT(&s->work);
    QTAILQ_INIT(&s->arms);
    mlx5_tables_init(s);
    s->bh = qemu_bh_new_guarded(mlx5_bh, s,
                                &DEVICE(s)->mem_reentrancy_guard);
    mlx5_fabric_attach(s);
}

static void mlx5_exit(PCIDevice *dev)
{
    Mlx5State *s = MLX5(dev);

    mlx5_fabric_detach(s);
    g_clear_pointer(&s->bh, qemu_bh_delete);
    p2p_work_after(hca_forget, s);
    p2p_dma_exit(&s->dma);
    msix_unuse_all_vectors(dev);
    msix_uninit_exclusive_bar(dev);
}

/* Also of an instance that was never realized */
static void mlx5_instance_finalize(Object *obj)
{
    Mlx5State *s = MLX5(obj);

    mlx5_table_fini(&s->qps);
    mlx5_table_fini(&s->srqs);
    mlx5_table_fini(&s->cqs);
    mlx5_table_fini(&s->eqs);
    mlx5_table_fini(&s->mkeys);
    mlx5_table_fini(&s->pds);
    mlx5_table_fini(&s->xrcds);
    mlx5_table_fini(&s->uars);
    g_clear_pointer(&s->faults, g_hash_table_destroy);
}

/* Read-only counters; those of p2p_dma.c cover queues and commands too. */
static const struct {
    const char *name;
    size_t offset;
} counters[] = {
#define COUNTER(name_, member_) { name_, offsetof(Mlx5Stats, member_) }
    COUNTER("guest-errors", guest_errors),
    COUNTER("commands", commands),
    COUNTER("completions", completions),
    COUNTER("events", events),
    COUNTER("doorbells", doorbells),
    COUNTER("page-faults", faults),
    COUNTER("umrs", umrs),
    COUNTER("dma-errors", dma_errors),
    COUNTER("tx-packets", tx_packets),
    COUNTER("tx-octets", tx_octets),
    COUNTER("rx-packets", rx_packets),
    COUNTER("rx-octets", rx_octets),
    COUNTER("data-read-host-bytes", data.read[P2P_DMA_TARGET_HOST]),
    COUNTER("data-read-peer-bytes", data.read[P2P_DMA_TARGET_PEER]),
    COUNTER("data-write-host-bytes", data.written[P2P_DMA_TARGET_HOST]),
    COUNTER("data-write-peer-bytes", data.written[P2P_DMA_TARGET_PEER]),
    COUNTER("data-routed-bytes", data.routed),
#undef COUNTER
};

static const struct {
    const char *name;
    size_t offset;
} injections[] = {
#define INJECTION(name_, member_) { name_, offsetof(Mlx5Inject, member_) }
    INJECTION("inject-drop-completions", drop_completions),
    INJECTION("inject-completion-delay", completion_delay),
    INJECTION("inject-fault-delay", fault_delay),
    INJECTION("inject-fail-data", fail_data),
    INJECTION("inject-fail-umrs", fail_umrs),
#undef INJECTION
};

void mlx5_count_append(GString *text, const char *prefix, const char *name,
                       const Mlx5Count *count)
{
    g_string_append_printf(text, "%s%s%s=%" PRIu64 "/%" PRIu64,
                           text->len ? " " : "", prefix, name, count->good,
                           count->bad);
}

static char *get_command_counts(Object *obj, Error **errp)
{
    GString *text = g_string_new(NULL);

    mlx5_cmd_counts(MLX5(obj), text);
    return g_string_free(text, false);
}

static char *get_request_counts(Object *obj, Error **errp)
{
    GString *text = g_string_new(NULL);

    mlx5_requester_counts(MLX5(obj), text);
    return g_string_free(text, false);
}

static void mlx5_instance_init(Object *obj)
{
    Mlx5State *s = MLX5(obj);

    for (unsigned i = 0; i < ARRAY_SIZE(counters); i++) {
        object_property_add_uint64_ptr(obj, counters[i].name,
            (uint64_t *)((uint8_t *)&s->stats + counters[i].offset),
            OBJ_PROP_FLAG_READ);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(injections); i++) {
        object_property_add_uint64_ptr(obj, injections[i].name,
            (uint64_t *)((uint8_t *)&s->inject + injections[i].offset),
            OBJ_PROP_FLAG_READWRITE);
    }
    object_property_add_str(obj, "command-counts", get_command_counts, NULL);
    object_property_add_str(obj, "request-counts", get_request_counts, NULL);
    p2p_dma_add_properties(&s->dma, obj);
}

static const Property mlx5_properties[] = {
    DEFINE_PROP_UINT16("lid", Mlx5State, lid, 0),
    DEFINE_PROP_STRING("subnet", Mlx5State, subnet),
    DEFINE_PROP_UINT64("guid", Mlx5State, guid, 0),
    DEFINE_PROP_UINT32("vectors", Mlx5State, num_vectors, 32),
    DEFINE_PROP_SIZE("context-mem", Mlx5State, context_mem, 1 * GiB),
    DEFINE_PROP_BOOL("relaxed-ordering", Mlx5State, relaxed_ordering, false),
    DEFINE_PROP_BOOL("ats", Mlx5State, ats, false),
    DEFINE_PROP_BOOL("transport-faults", Mlx5State, transport_faults, false),
};

static const VMStateDescription mlx5_vmstate = {
    .name = TYPE_MLX5,
    .unmigratable = 1,
};

static void mlx5_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    PCIDeviceClass *pc = PCI_DEVICE_CLASS(klass);

    pc->realize = mlx5_realize;
    pc->exit = mlx5_exit;
    pc->config_write = mlx5_config_write;
    pc->vendor_id = PCI_VENDOR_MELLANOX;
    pc->device_id = PCI_DEVICE_CONNECTX5;
    pc->subsystem_vendor_id = PCI_VENDOR_MELLANOX;
    pc->subsystem_id = PCI_SUBSYSTEM_CONNECTX5;
    pc->class_id = PCI_CLASS_INFINIBAND;
    dc->desc = "ConnectX-5 class InfiniBand HCA";
    dc->vmsd = &mlx5_vmstate;
    device_class_set_props(dc, mlx5_properties);
    device_class_set_legacy_reset(dc, mlx5_reset);
    set_bit(DEVICE_CATEGORY_NETWORK, dc->categories);
}

static const TypeInfo mlx5_info = {
    .name = TYPE_MLX5,
    .parent = TYPE_PCI_DEVICE,
    .instance_size = sizeof(Mlx5State),
    .instance_init = mlx5_instance_init,
    .instance_finalize = mlx5_instance_finalize,
    .class_init = mlx5_class_init,
    .interfaces = (InterfaceInfo[]) {
        { INTERFACE_PCIE_DEVICE },
        { }
    },
};

static void mlx5_register_types(void)
{
    type_register_static(&mlx5_info);
}

type_init(mlx5_register_types)
