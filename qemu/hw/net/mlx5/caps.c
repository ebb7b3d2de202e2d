/*
 * mlx5 HCA: capabilities
 *
 * What is not listed here is 0.  That keeps the driver's optional parts
 * (Ethernet, flow steering, eswitch, RoCE, DEVX ...) off, whatever the kernel
 * was built with.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/log.h"
#include "mlx5.h"
#include "trace.h"

enum {
    SYND_CAP_TYPE = 0x1b0001,
    SYND_CAP_VALUE = 0x1b0002,
};

/* Per-transport ODP capabilities. */
enum {
    ODP_SEND = 1u << 31,
    ODP_RECEIVE = 1u << 30,
    ODP_WRITE = 1u << 29,
    ODP_READ = 1u << 28,
    ODP_ATOMIC = 1u << 27,
    ODP_SRQ_RECEIVE = 1u << 26,
    ODP_RC = ODP_SEND | ODP_RECEIVE | ODP_WRITE | ODP_READ | ODP_ATOMIC |
             ODP_SRQ_RECEIVE,
    ATOMIC_CMP_SWAP = 1 << 0,
    ATOMIC_FETCH_ADD = 1 << 1,
};

typedef struct CapValue {
    const Mlx5Field *field;
    uint32_t value;
} CapValue;

#define GEN(name_, value_) { MLX5_FIELD(cmd_hca_cap, name_), value_ }
#define ODP(name_, value_) { MLX5_FIELD(odp_cap, name_), value_ }
#define ATOMIC(name_, value_) { MLX5_FIELD(atomic_caps, name_), value_ }

static const CapValue general_caps[] = {
    GEN(num_ports, 1),
    GEN(port_type, 0),                  /* InfiniBand */
    GEN(ib_virt, 1),                    /* vport commands, not MAD_IFC */
    GEN(vport_counters, 1),
    GEN(page_request_disable, 1),
    GEN(rc, 1),
    GEN(uc, 1),
    GEN(ud, 1),
    GEN(xrc, 1),                        /* mlx5_ib insists on XRC domains */
    GEN(atomic, 1),
    GEN(pg, 1),
    GEN(cq_oi, 1),
    GEN(cq_resize, 1),
    /* The internal timer and the time stamps of completions are in ns. */
    GEN(device_frequency_khz, 1000 * 1000),
    GEN(pkv, 1),
    GEN(qkv, 1),
    /* The three that implicit ODP needs. */
    GEN(fixed_buffer_size, 1),
    GEN(null_mkey, 1),
    GEN(umr_extended_translation_offset, 1),
    GEN(umr_fence, 2),                  /* none needed: executed in order */
    GEN(max_indirection, 4),
    GEN(log_max_klm_list_size, 18),
    GEN(log_max_mkey, 20),
    GEN(log_max_qp, 17),
    GEN(log_max_cq, 17),
    GEN(log_max_srq, 16),
    GEN(log_max_rmp, 16),
    GEN(log_max_pd, 16),
    GEN(log_max_xrcd, 16),
    GEN(log_max_eq, 6),
    GEN(log_max_qp_sz, 15),
    GEN(log_max_cq_sz, 22),
    GEN(log_max_srq_sz, 15),
    GEN(log_max_eq_sz, 22),
    GEN(log_max_ra_req_qp, 4),
    GEN(log_max_ra_res_qp, 4),
    GEN(log_max_msg, 30),
    GEN(log_pg_sz, 12),
    GEN(max_wqe_sz_sq, MLX5_MAX_SQ_WQE),
    GEN(max_wqe_sz_rq, MLX5_MAX_RQ_WQE),
    GEN(local_ca_ack_delay, 16),
    GEN(qp_latency_sensitive_disable, 1),
    /* BlueFlame is off (bf 0), but the driver divides by this size. */
    GEN(log_bf_reg_size, 9),
    GEN(num_of_uars_per_page, 1),
};

static const CapValue relaxed_ordering_caps[] = {
    GEN(relaxed_ordering_write, 1),
    GEN(relaxed_ordering_read, 1),
    GEN(relaxed_ordering_write_umr, 1),
    GEN(relaxed_ordering_read_umr, 1),
};

/*
 * The driver takes the memory scheme if it is offered together with prefetch
 * (Linux core/main.c, handle_hca_cap_odp()).  The caps_max are off until the
 * driver asks for them.
 */
static const CapValue odp_caps[] = {
    ODP(page_prefetch, 1),
    ODP(memory_rc, ODP_RC),
    ODP(memory_ud, ODP_SEND),
    ODP(memory_xrc, ODP_RC),
};

static const CapValue odp_caps_max[] = {
    ODP(mem_page_fault, 1),
};

static const CapValue odp_transport_caps[] = {
    ODP(transport_rc, ODP_RC & ~ODP_SRQ_RECEIVE),
    ODP(transport_ud, ODP_SEND),
};

static const CapValue odp_transport_caps_max[] = {
    ODP(transport_rc, ODP_RC),
    ODP(transport_ud, ODP_SEND),
    ODP(transport_xrc, ODP_RC),
};

static const CapValue atomic_caps[] = {
    ATOMIC(supported_atomic_req_8B_endianness_mode_1, 1),
    ATOMIC(atomic_operations, ATOMIC_CMP_SWAP | ATOMIC_FETCH_ADD),
    ATOMIC(atomic_size_qp, 8),
};

static const CapValue atomic_caps_max[] = {
    ATOMIC(atomic_req_8B_endianness_mode, 1),
};

/*
 * Fields that SET_HCA_CAP may change, to at most their maximum; of a field
 * that holds several @flags, each may be taken or left.
 */
static const struct {
    unsigned type;
    const Mlx5Field *field;
    bool flags;
} writable_caps[] = {
    { MLX5_CAP_GENERAL, MLX5_FIELD(cmd_hca_cap, log_max_qp) },
    { MLX5_CAP_GENERAL, MLX5_FIELD(cmd_hca_cap, pkey_table_size) },
    { MLX5_CAP_GENERAL, MLX5_FIELD(cmd_hca_cap, cmdif_checksum) },
    { MLX5_CAP_GENERAL, MLX5_FIELD(cmd_hca_cap, log_uar_page_sz) },
    { MLX5_CAP_ODP, MLX5_FIELD(odp_cap, mem_page_fault) },
    { MLX5_CAP_ODP, MLX5_FIELD(odp_cap, transport_rc), .flags = true },
    { MLX5_CAP_ODP, MLX5_FIELD(odp_cap, transport_ud), .flags = true },
    { MLX5_CAP_ODP, MLX5_FIELD(odp_cap, transport_xrc), .flags = true },
    { MLX5_CAP_ATOMIC,
      MLX5_FIELD(atomic_caps, atomic_req_8B_endianness_mode) },
};

static const Mlx5Layout *const cap_layouts[MLX5_CAP_TYPES] = {
    [MLX5_CAP_GENERAL] = &mlx5_layout_cmd_hca_cap,
    [MLX5_CAP_ODP] = &mlx5_layout_odp_cap,
    [MLX5_CAP_ATOMIC] = &mlx5_layout_atomic_caps,
};

static void caps_fill(uint8_t *caps, const CapValue *values, unsigned num)
{
    for (unsigned i = 0; i < num; i++) {
        mlx5_field_set(caps, values[i].field, values[i].value);
    }
}

#define CAPS_FILL(caps_, values_) \
    caps_fill(caps_, values_, ARRAY_SIZE(values_))

void mlx5_caps_reset(Mlx5State *s)
{
    memset(s->cap_max, 0, sizeof(s->cap_max));
    CAPS_FILL(s->cap_max[MLX5_CAP_GENERAL], general_caps);
    if (s->relaxed_ordering) {
        CAPS_FILL(s->cap_max[MLX5_CAP_GENERAL], relaxed_ordering_caps);
    }
    fset(cmd_hca_cap, s->cap_max[MLX5_CAP_GENERAL], ats, s->ats);
    if (s->transport_faults) {
        CAPS_FILL(s->cap_max[MLX5_CAP_ODP], odp_transport_caps);
    } else {
        CAPS_FILL(s->cap_max[MLX5_CAP_ODP], odp_caps);
    }
    CAPS_FILL(s->cap_max[MLX5_CAP_ATOMIC], atomic_caps);
    memcpy(s->cap_cur, s->cap_max, sizeof(s->cap_cur));
    if (s->transport_faults) {
        CAPS_FILL(s->cap_max[MLX5_CAP_ODP], odp_transport_caps_max);
    } else {
        CAPS_FILL(s->cap_max[MLX5_CAP_ODP], odp_caps_max);
    }
    CAPS_FILL(s->cap_max[MLX5_CAP_ATOMIC], atomic_caps_max);
}

Mlx5Status mlx5_caps_query(Mlx5State *s, Mlx5Cmd *cmd)
{
    unsigned op_mod = fget(cmd, cmd->in, op_mod);
    unsigned type = op_mod >> 1;

    if (type >= MLX5_CAP_TYPES || !cap_layouts[type]) {
        /* The capability bit that makes a driver ask for it is 0. */
        mlx5_guest_error(s, "query of capability group 0x%x", type);
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_PARAM, SYND_CAP_TYPE);
    }
    memcpy(cmd->out + MLX5_CMD_CTX,
           op_mod & 1 ? s->cap_cur[type] : s->cap_max[type], MLX5_CAP_BYTES);
    return MLX5_STATUS_OK;
}

Mlx5Status mlx5_caps_set(Mlx5State *s, Mlx5Cmd *cmd)
{
    const uint8_t *caps = cmd->in + MLX5_CMD_CTX;
    unsigned type = fget(cmd, cmd->in, op_mod) >> 1;

    if (type >= MLX5_CAP_TYPES || !cap_layouts[type]) {
        mlx5_guest_error(s, "setting capability group 0x%x", type);
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_PARAM, SYND_CAP_TYPE);
    }
    mlx5_layout_trace("SET_HCA_CAP", cap_layouts[type], caps);
    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned i = 0; i < ARRAY_SIZE(writable_caps); i++) {
            const Mlx5Field *f = writable_caps[i].field;
            uint64_t value = mlx5_field_get(caps, f);
            uint64_t max;

            if (writable_caps[i].type != type) {
                continue;
            }
            /* Check all of them before changing any. */
            max = mlx5_field_get(s->cap_max[type], f);
            if (pass == 0 &&
                (writable_caps[i].flags ? value & ~max : value > max)) {
                mlx5_guest_error(s, "capability %s = %" PRIu64
                                 " is beyond its maximum", f->name, value);
                return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_PARAM,
                                     SYND_CAP_VALUE);
            }
            if (pass == 1) {
                mlx5_field_set(s->cap_cur[type], f, value);
            }
        }
    }
    return MLX5_STATUS_OK;
}
