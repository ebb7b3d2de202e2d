/*
 * mlx5 HCA: layouts of commands, contexts, registers and descriptors
 *
 * One line per field: F(layout, name, offset, lsb, width).  @offset is the
 * byte offset of the big-endian dword that holds the field, @lsb the position
 * of its lowest bit there; a width of 64 means the big-endian quadword at
 * @offset.  The same lists give access (fget(), fset()) and names for traces.
 * Offsets are those of Linux include/linux/mlx5/mlx5_ifc.h, device.h and qp.h.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_MLX5_FIELDS_H
#define HW_MLX5_FIELDS_H

#include "qemu/bswap.h"
#include "qemu/bitops.h"

typedef struct Mlx5Field {
    const char *name;
    uint16_t offset;
    uint8_t lsb;
    uint8_t width;
} Mlx5Field;

typedef struct Mlx5Layout {
    const char *name;
    const Mlx5Field *fields;
    unsigned num_fields;
} Mlx5Layout;

/* Header of every command and every answer. */
#define MLX5_FIELDS_CMD(F)                          \
    F(cmd, opcode,                  0x00, 16, 16)   \
    F(cmd, uid,                     0x00,  0, 16)   \
    F(cmd, op_mod,                  0x04,  0, 16)   \
    F(cmd, status,                  0x00, 24,  8)   \
    F(cmd, syndrome,                0x04,  0, 32)

/* One entry of the command queue; the own byte is its last byte. */
#define MLX5_FIELDS_CMDQ_ENTRY(F)                   \
    F(cmdq_entry, type,             0x00, 24,  8)   \
    F(cmdq_entry, input_length,     0x04,  0, 32)   \
    F(cmdq_entry, input_mailbox,    0x08,  0, 64)   \
    F(cmdq_entry, output_mailbox,   0x30,  0, 64)   \
    F(cmdq_entry, output_length,    0x38,  0, 32)   \
    F(cmdq_entry, token,            0x3c, 24,  8)   \
    F(cmdq_entry, signature,        0x3c, 16,  8)   \
    F(cmdq_entry, delivery,         0x3c,  1,  7)   \
    F(cmdq_entry, own,              0x3c,  0,  1)

#define MLX5_FIELDS_MAILBOX(F)                      \
    F(mailbox, next,                0x230, 0, 64)   \
    F(mailbox, block_num,           0x238, 0, 32)   \
    F(mailbox, token,               0x23c, 16, 8)

/* The number of the object a command is about, for commands with no more. */
#define MLX5_FIELDS_OBJ(F)                          \
    F(obj, id,                      0x08,  0, 24)   \
    F(obj, rmp_state,               0x08, 28,  4)   \
    F(obj, lwm,                     0x0c,  0, 16)

#define MLX5_FIELDS_CMD_HCA_CAP(F)                              \
    F(cmd_hca_cap, page_request_disable,    0x00, 25,  1)       \
    F(cmd_hca_cap, log_max_srq_sz,          0x10, 24,  8)       \
    F(cmd_hca_cap, log_max_qp_sz,           0x10, 16,  8)       \
    F(cmd_hca_cap, log_max_qp,              0x10,  0,  5)       \
    F(cmd_hca_cap, log_max_srq,             0x14, 16,  5)       \
    F(cmd_hca_cap, log_max_cq_sz,           0x18, 16,  8)       \
    F(cmd_hca_cap, relaxed_ordering_write_umr, 0x18, 15, 1)     \
    F(cmd_hca_cap, relaxed_ordering_read_umr, 0x18, 14, 1)      \
    F(cmd_hca_cap, log_max_cq,              0x18,  0,  5)       \
    F(cmd_hca_cap, log_max_eq_sz,           0x1c, 24,  8)       \
    F(cmd_hca_cap, relaxed_ordering_write,  0x1c, 23,  1)       \
    F(cmd_hca_cap, log_max_mkey,            0x1c, 16,  6)       \
    F(cmd_hca_cap, log_max_eq,              0x1c,  0,  4)       \
    F(cmd_hca_cap, max_indirection,         0x20, 24,  8)       \
    F(cmd_hca_cap, fixed_buffer_size,       0x20, 23,  1)       \
    F(cmd_hca_cap, log_max_mrw_sz,          0x20, 16,  7)       \
    F(cmd_hca_cap, umr_extended_translation_offset, 0x20, 7, 1) \
    F(cmd_hca_cap, null_mkey,               0x20,  6,  1)       \
    F(cmd_hca_cap, log_max_klm_list_size,   0x20,  0,  6)       \
    F(cmd_hca_cap, log_max_ra_req_qp,       0x28, 16,  6)       \
    F(cmd_hca_cap, log_max_ra_res_qp,       0x28,  0,  6)       \
    F(cmd_hca_cap, vport_counters,          0x30, 30,  1)       \
    F(cmd_hca_cap, pkey_table_size,         0x30,  0, 16)       \
    F(cmd_hca_cap, ib_virt,                 0x34, 29,  1)       \
    F(cmd_hca_cap, local_ca_ack_delay,      0x34, 16,  5)       \
    F(cmd_hca_cap, port_type,               0x34,  8,  2)       \
    F(cmd_hca_cap, num_ports,               0x34,  0,  8)       \
    F(cmd_hca_cap, log_max_msg,             0x38, 24,  5)       \
    F(cmd_hca_cap, umr_fence,               0x40, 20,  2)       \
    F(cmd_hca_cap, cmdif_checksum,          0x40, 14,  2)       \
    F(cmd_hca_cap, atomic,                  0x40,  1,  1)       \
    F(cmd_hca_cap, cq_oi,                   0x44, 31,  1)       \
    F(cmd_hca_cap, cq_resize,               0x44, 30,  1)       \
    F(cmd_hca_cap, pg,                      0x44, 24,  1)       \
    F(cmd_hca_cap, qkv,                     0x44,  9,  1)       \
    F(cmd_hca_cap, pkv,                     0x44,  8,  1)       \
    F(cmd_hca_cap, xrc,                     0x44,  3,  1)       \
    F(cmd_hca_cap, ud,                      0x44,  2,  1)       \
    F(cmd_hca_cap, uc,                      0x44,  1,  1)       \
    F(cmd_hca_cap, rc,                      0x44,  0,  1)       \
    F(cmd_hca_cap, log_pg_sz,               0x48,  0,  8)       \
    F(cmd_hca_cap, log_bf_reg_size,         0x4c, 16,  5)       \
    F(cmd_hca_cap, max_wqe_sz_sq,           0x50,  0, 16)       \
    F(cmd_hca_cap, max_wqe_sz_rq,           0x54,  0, 16)       \
    F(cmd_hca_cap, log_max_mcg,             0x60,  0,  8)       \
    F(cmd_hca_cap, relaxed_ordering_read,   0x64, 21,  1)       \
    F(cmd_hca_cap, log_max_pd,              0x64, 16,  5)       \
    F(cmd_hca_cap, log_max_xrcd,            0x64,  0,  5)       \
    F(cmd_hca_cap, log_max_rmp,             0x70, 24,  5)       \
    F(cmd_hca_cap, qp_latency_sensitive_disable, 0x74, 13, 1)   \
    F(cmd_hca_cap, ats,                     0x8c, 30,  1)       \
    F(cmd_hca_cap, log_uar_page_sz,         0x90,  0, 16)       \
    F(cmd_hca_cap, device_frequency_khz,    0x9c,  0, 32)       \
    F(cmd_hca_cap, num_of_uars_per_page,    0xa4,  0, 32)

#define MLX5_FIELDS_ODP_CAP(F)                      \
    F(odp_cap, transport_rc,        0x10,  0, 32)   \
    F(odp_cap, transport_ud,        0x18,  0, 32)   \
    F(odp_cap, transport_xrc,       0x1c,  0, 32)   \
    F(odp_cap, page_prefetch,       0x48, 26,  1)   \
    F(odp_cap, memory_rc,           0x50,  0, 32)   \
    F(odp_cap, memory_ud,           0x58,  0, 32)   \
    F(odp_cap, memory_xrc,          0x5c,  0, 32)   \
    F(odp_cap, mem_page_fault,      0xc0, 31,  1)

#define MLX5_FIELDS_ATOMIC_CAPS(F)                                          \
    F(atomic_caps, atomic_req_8B_endianness_mode,             0x08, 30, 2)  \
    F(atomic_caps, supported_atomic_req_8B_endianness_mode_1, 0x08, 25, 1)  \
    F(atomic_caps, atomic_operations,                         0x10, 0, 16)  \
    F(atomic_caps, atomic_size_qp,                            0x14, 0, 16)

#define MLX5_FIELDS_QUERY_ISSI_OUT(F)                       \
    F(query_issi_out, current_issi,         0x08, 0, 16)    \
    F(query_issi_out, supported_issi_dw0,   0x6c, 0, 32)

#define MLX5_FIELDS_PAGES(F)                        \
    F(pages, function_id,           0x08,  0, 16)   \
    F(pages, num_entries,           0x0c,  0, 32)

#define MLX5_FIELDS_QUERY_ADAPTER_OUT(F)                    \
    F(query_adapter_out, ieee_vendor_id,    0x28, 0, 24)

#define MLX5_FIELDS_SPECIAL_CONTEXTS(F)                             \
    F(special_contexts, dump_fill_mkey,             0x08, 0, 32)    \
    F(special_contexts, resd_lkey,                  0x0c, 0, 32)    \
    F(special_contexts, null_mkey,                  0x10, 0, 32)    \
    F(special_contexts, terminate_scatter_list_mkey, 0x14, 0, 32)

#define MLX5_FIELDS_EQC(F)                          \
    F(eqc, status,                  0x00, 28,  4)   \
    F(eqc, oi,                      0x00, 17,  1)   \
    F(eqc, st,                      0x00,  8,  4)   \
    F(eqc, page_offset,             0x08,  6,  6)   \
    F(eqc, log_eq_size,             0x0c, 24,  5)   \
    F(eqc, uar_page,                0x0c,  0, 24)   \
    F(eqc, intr,                    0x14,  0, 12)   \
    F(eqc, log_page_size,           0x18, 24,  5)   \
    F(eqc, consumer_counter,        0x28,  0, 24)   \
    F(eqc, producer_counter,        0x2c,  0, 24)

#define MLX5_FIELDS_CREATE_EQ_IN(F)                 \
    F(create_eq_in, event_bitmask_0, 0x58, 0, 64)

#define MLX5_FIELDS_CQC(F)                          \
    F(cqc, status,                  0x00, 28,  4)   \
    F(cqc, cqe_sz,                  0x00, 21,  3)   \
    F(cqc, oi,                      0x00, 17,  1)   \
    F(cqc, st,                      0x00,  8,  4)   \
    F(cqc, page_offset,             0x08,  6,  6)   \
    F(cqc, log_cq_size,             0x0c, 24,  5)   \
    F(cqc, uar_page,                0x0c,  0, 24)   \
    F(cqc, c_eqn_or_apu_element,    0x14,  0, 32)   \
    F(cqc, log_page_size,           0x18, 24,  5)   \
    F(cqc, consumer_counter,        0x28,  0, 24)   \
    F(cqc, producer_counter,        0x2c,  0, 24)   \
    F(cqc, dbr_addr,                0x38,  0, 64)

#define MLX5_FIELDS_QPC(F)                          \
    F(qpc, state,                   0x00, 28,  4)   \
    F(qpc, st,                      0x00, 16,  8)   \
    F(qpc, pm_state,                0x00, 11,  2)   \
    F(qpc, pd,                      0x04,  0, 24)   \
    F(qpc, mtu,                     0x08, 29,  3)   \
    F(qpc, log_msg_max,             0x08, 24,  5)   \
    F(qpc, log_rq_size,             0x08, 19,  4)   \
    F(qpc, log_rq_stride,           0x08, 16,  3)   \
    F(qpc, no_sq,                   0x08, 15,  1)   \
    F(qpc, log_sq_size,             0x08, 11,  4)   \
    F(qpc, rlky,                    0x08,  4,  1)   \
    F(qpc, uar_page,                0x0c,  0, 24)   \
    F(qpc, user_index,              0x10,  0, 24)   \
    F(qpc, log_page_size,           0x14, 24,  5)   \
    F(qpc, remote_qpn,              0x14,  0, 24)   \
    F(qpc, log_sra_max,             0x70, 21,  3)   \
    F(qpc, retry_count,             0x70, 16,  3)   \
    F(qpc, rnr_retry,               0x70, 13,  3)   \
    F(qpc, fre,                     0x70, 11,  1)   \
    F(qpc, next_send_psn,           0x78,  0, 24)   \
    F(qpc, cqn_snd,                 0x7c,  0, 24)   \
    F(qpc, deth_sqpn,               0x80,  0, 24)   \
    F(qpc, log_rra_max,             0x90, 21,  3)   \
    F(qpc, atomic_mode,             0x90, 16,  4)   \
    F(qpc, rre,                     0x90, 15,  1)   \
    F(qpc, rwe,                     0x90, 14,  1)   \
    F(qpc, rae,                     0x90, 13,  1)   \
    F(qpc, page_offset,             0x90,  6,  6)   \
    F(qpc, min_rnr_nak,             0x94, 24,  5)   \
    F(qpc, next_rcv_psn,            0x94,  0, 24)   \
    F(qpc, xrcd,                    0x98,  0, 24)   \
    F(qpc, cqn_rcv,                 0x9c,  0, 24)   \
    F(qpc, dbr_addr,                0xa0,  0, 64)   \
    F(qpc, q_key,                   0xa8,  0, 32)   \
    F(qpc, rq_type,                 0xac, 24,  3)   \
    F(qpc, srqn_rmpn_xrqn,          0xac,  0, 24)   \
    F(qpc, hw_sq_wqebb_counter,     0xb4, 16, 16)   \
    F(qpc, sw_sq_wqebb_counter,     0xb4,  0, 16)   \
    F(qpc, hw_rq_counter,           0xb8,  0, 32)   \
    F(qpc, sw_rq_counter,           0xbc,  0, 32)

/* Address path, at 0x18 (primary) and 0x44 (secondary) of a QP context. */
#define MLX5_FIELDS_ADS(F)                          \
    F(ads, pkey_index,              0x00,  0, 16)   \
    F(ads, grh,                     0x04, 23,  1)   \
    F(ads, mlid,                    0x04, 16,  7)   \
    F(ads, rlid,                    0x04,  0, 16)   \
    F(ads, ack_timeout,             0x08, 27,  5)   \
    F(ads, src_addr_index,          0x08, 16,  8)   \
    F(ads, stat_rate,               0x08,  8,  4)   \
    F(ads, hop_limit,               0x08,  0,  8)   \
    F(ads, tclass,                  0x0c, 20,  8)   \
    F(ads, flow_label,              0x0c,  0, 20)   \
    F(ads, rgid_high,               0x10,  0, 64)   \
    F(ads, rgid_low,                0x18,  0, 64)   \
    F(ads, sl,                      0x24, 24,  4)   \
    F(ads, vhca_port_num,           0x24, 16,  8)

#define MLX5_FIELDS_CREATE_QP_IN(F)                     \
    F(create_qp_in, input_qpn,          0x08, 0, 24)    \
    F(create_qp_in, opt_param_mask,     0x10, 0, 32)

#define MLX5_FIELDS_MKC(F)                          \
    F(mkc, free,                    0x00, 30,  1)   \
    F(mkc, access_mode_4_2,         0x00, 26,  3)   \
    F(mkc, relaxed_ordering_write,  0x00, 18,  1)   \
    F(mkc, small_fence_on_rdma_read_response, 0x00, 16, 1) \
    F(mkc, umr_en,                  0x00, 15,  1)   \
    F(mkc, a,                       0x00, 14,  1)   \
    F(mkc, rw,                      0x00, 13,  1)   \
    F(mkc, rr,                      0x00, 12,  1)   \
    F(mkc, lw,                      0x00, 11,  1)   \
    F(mkc, lr,                      0x00, 10,  1)   \
    F(mkc, access_mode_1_0,         0x00,  8,  2)   \
    F(mkc, ma_translation_mode,     0x00,  4,  2)   \
    F(mkc, qpn,                     0x04,  8, 24)   \
    F(mkc, mkey_7_0,                0x04,  0,  8)   \
    F(mkc, length64,                0x0c, 31,  1)   \
    F(mkc, en_rinval,               0x0c, 24,  1)   \
    F(mkc, pd,                      0x0c,  0, 24)   \
    F(mkc, start_addr,              0x10,  0, 64)   \
    F(mkc, len,                     0x18,  0, 64)   \
    F(mkc, bsf_octword_size,        0x20,  0, 32)   \
    F(mkc, translations_octword_size, 0x34, 0, 32)  \
    F(mkc, relaxed_ordering_read,   0x38,  6,  1)   \
    F(mkc, log_page_size,           0x38,  0,  6)   \
    F(mkc, log_page_size_5,         0x38,  5,  1)   \
    F(mkc, log_page_size_4_0,       0x38,  0,  5)

#define MLX5_FIELDS_CREATE_MKEY_IN(F)                                   \
    F(create_mkey_in, pg_access,                        0x0c, 31,  1)   \
    F(create_mkey_in, mkey_umem_valid,                  0x0c, 30,  1)   \
    F(create_mkey_in, translations_octword_actual_size, 0x60,  0, 32)

#define MLX5_FIELDS_PAGE_FAULT_RESUME_IN(F)                 \
    F(page_fault_resume_in, error,          0x08, 31,  1)   \
    F(page_fault_resume_in, page_fault_type, 0x08, 24, 3)   \
    F(page_fault_resume_in, wq_number,      0x08,  0, 24)   \
    F(page_fault_resume_in, token_47_32,    0x08,  0, 16)   \
    F(page_fault_resume_in, token_31_0,     0x0c,  0, 32)

#define MLX5_FIELDS_VPORT_IN(F)                     \
    F(vport_in, other_vport,        0x08, 31,  1)   \
    F(vport_in, port_num,           0x08, 16,  4)   \
    F(vport_in, vport_number,       0x08,  0, 16)   \
    F(vport_in, index,              0x0c,  0, 16)   \
    F(vport_in, clear,              0x18, 31,  1)

#define MLX5_FIELDS_HCA_VPORT_CONTEXT(F)                            \
    F(hca_vport_context, field_select,              0x00,  0, 32)   \
    F(hca_vport_context, has_smi,                   0x20, 30,  1)   \
    F(hca_vport_context, port_physical_state,       0x20, 12,  4)   \
    F(hca_vport_context, port_state,                0x20,  4,  4)   \
    F(hca_vport_context, vport_state,               0x20,  0,  4)   \
    F(hca_vport_context, system_image_guid,         0x28,  0, 64)   \
    F(hca_vport_context, port_guid,                 0x30,  0, 64)   \
    F(hca_vport_context, node_guid,                 0x38,  0, 64)   \
    F(hca_vport_context, cap_mask1,                 0x40,  0, 32)   \
    F(hca_vport_context, cap_mask1_field_select,    0x44,  0, 32)   \
    F(hca_vport_context, lid,                       0x60, 16, 16)   \
    F(hca_vport_context, subnet_timeout,            0x60,  0,  5)   \
    F(hca_vport_context, sm_lid,                    0x64, 16, 16)

#define MLX5_FIELDS_ACCESS_REGISTER_IN(F)                   \
    F(access_register_in, register_id,      0x08,  0, 16)   \
    F(access_register_in, argument,         0x0c,  0, 32)

#define MLX5_FIELDS_PTYS_REG(F)                             \
    F(ptys_reg, local_port,                 0x00, 16,  8)   \
    F(ptys_reg, proto_mask,                 0x00,  0,  3)   \
    F(ptys_reg, ib_link_width_capability,   0x10, 16, 16)   \
    F(ptys_reg, ib_proto_capability,        0x10,  0, 16)   \
    F(ptys_reg, ib_link_width_oper,         0x28, 16, 16)   \
    F(ptys_reg, ib_proto_oper,              0x28,  0, 16)

#define MLX5_FIELDS_PMTU_REG(F)                     \
    F(pmtu_reg, local_port,         0x00, 16,  8)   \
    F(pmtu_reg, max_mtu,            0x04, 16, 16)   \
    F(pmtu_reg, admin_mtu,          0x08, 16, 16)   \
    F(pmtu_reg, oper_mtu,           0x0c, 16, 16)

#define MLX5_FIELDS_PVLC_REG(F)                     \
    F(pvlc_reg, local_port,         0x00, 16,  8)   \
    F(pvlc_reg, vl_hw_cap,          0x04,  0,  4)   \
    F(pvlc_reg, vl_operational,     0x0c,  0,  4)

/* Packet and octet counts of one traffic class, 16 bytes each. */
#define MLX5_FIELDS_VPORT_COUNTERS(F)                               \
    F(vport_counters, received_unicast_packets,     0x30, 0, 64)    \
    F(vport_counters, received_unicast_octets,      0x38, 0, 64)    \
    F(vport_counters, transmitted_unicast_packets,  0x40, 0, 64)    \
    F(vport_counters, transmitted_unicast_octets,   0x48, 0, 64)

/* CREATE_SRQ and CREATE_XRC_SRQ context. */
#define MLX5_FIELDS_SRQC(F)                         \
    F(srqc, state,                  0x00, 28,  4)   \
    F(srqc, log_srq_size,           0x00, 24,  4)   \
    F(srqc, log_rq_stride,          0x04, 24,  3)   \
    F(srqc, xrcd,                   0x04,  0, 24)   \
    F(srqc, page_offset,            0x08, 26,  6)   \
    F(srqc, cqn,                    0x08,  0, 24)   \
    F(srqc, log_page_size,          0x10, 24,  6)   \
    F(srqc, pd,                     0x18,  0, 24)   \
    F(srqc, lwm,                    0x1c, 16, 16)   \
    F(srqc, wqe_cnt,                0x1c,  0, 16)   \
    F(srqc, dbr_addr,               0x28,  0, 64)

/* CREATE_RMP: the work queue description inside an RMP context. */
#define MLX5_FIELDS_WQ(F)                           \
    F(wq, wq_type,                  0x00, 28,  4)   \
    F(wq, page_offset,              0x04, 16,  5)   \
    F(wq, lwm,                      0x04,  0, 16)   \
    F(wq, pd,                       0x08,  0, 24)   \
    F(wq, dbr_addr,                 0x10,  0, 64)   \
    F(wq, log_wq_stride,            0x20, 16,  4)   \
    F(wq, log_wq_pg_sz,             0x20,  8,  5)   \
    F(wq, log_wq_sz,                0x20,  0,  5)

/* Event queue entry. */
#define MLX5_FIELDS_EQE(F)                          \
    F(eqe, type,                    0x00, 16,  8)   \
    F(eqe, sub_type,                0x00,  0,  8)   \
    F(eqe, cmd_vector,              0x20,  0, 32)   \
    F(eqe, cq_error_cqn,            0x20,  0, 32)   \
    F(eqe, cq_error_syndrome,       0x28,  0,  8)   \
    F(eqe, port,                    0x28, 28,  4)   \
    F(eqe, qp_srq_type,             0x34, 24,  8)   \
    F(eqe, qp_srq_id,               0x38,  0, 24)   \
    F(eqe, comp_cqn,                0x38,  0, 24)   \
    F(eqe, pf_flags,                0x20, 24,  8)   \
    F(eqe, pf_post_pages,           0x20,  0, 16)   \
    F(eqe, pf_pre_pages,            0x24, 16, 16)   \
    F(eqe, pf_token_47_32,          0x24,  0, 16)   \
    F(eqe, pf_token_31_0,           0x28,  0, 32)   \
    F(eqe, pf_demand_pages,         0x2c, 12, 20)   \
    F(eqe, pf_mkey,                 0x30,  0, 32)   \
    F(eqe, pf_va,                   0x34,  0, 64)   \
    F(eqe, pf_committed,            0x20,  0, 32)   \
    F(eqe, pf_wqe_index,            0x24,  0, 16)   \
    F(eqe, pf_wqe_packet_length,    0x28,  0, 16)   \
    F(eqe, pf_wqe_token,            0x2c,  0, 32)   \
    F(eqe, pf_rdma_key,             0x24,  0, 32)   \
    F(eqe, pf_rdma_packet_length,   0x28,  0, 16)   \
    F(eqe, pf_rdma_length,          0x2c,  0, 32)   \
    F(eqe, pf_rdma_va,              0x30,  0, 64)   \
    F(eqe, pf_type,                 0x38, 24,  3)   \
    F(eqe, pf_number,               0x38,  0, 24)

/* Completion queue entry, good and bad. */
#define MLX5_FIELDS_CQE(F)                          \
    F(cqe, ml_path,                 0x10, 16,  8)   \
    F(cqe, slid,                    0x14,  0, 16)   \
    F(cqe, grh,                     0x18, 28,  2)   \
    F(cqe, sl,                      0x18, 24,  4)   \
    F(cqe, rqpn,                    0x18,  0, 24)   \
    F(cqe, srqn,                    0x20,  0, 24)   \
    F(cqe, immediate,               0x24,  0, 32)   \
    F(cqe, byte_count,              0x2c,  0, 32)   \
    F(cqe, timestamp,               0x30,  0, 64)   \
    F(cqe, vendor_syndrome,         0x34,  8,  8)   \
    F(cqe, syndrome,                0x34,  0,  8)   \
    F(cqe, wqe_opcode,              0x38, 24,  8)   \
    F(cqe, qpn,                     0x38,  0, 24)   \
    F(cqe, wqe_counter,             0x3c, 16, 16)   \
    F(cqe, opcode,                  0x3c,  4,  4)   \
    F(cqe, own,                     0x3c,  0,  1)

/* Send work request: control segment. */
#define MLX5_FIELDS_WQE_CTRL(F)                     \
    F(wqe_ctrl, opmod,              0x00, 24,  8)   \
    F(wqe_ctrl, index,              0x00,  8, 16)   \
    F(wqe_ctrl, opcode,             0x00,  0,  8)   \
    F(wqe_ctrl, qpn,                0x04,  8, 24)   \
    F(wqe_ctrl, ds,                 0x04,  0,  6)   \
    F(wqe_ctrl, fence,              0x08,  5,  3)   \
    F(wqe_ctrl, ce,                 0x08,  2,  2)   \
    F(wqe_ctrl, solicited,          0x08,  1,  1)   \
    F(wqe_ctrl, imm,                0x0c,  0, 32)

#define MLX5_FIELDS_WQE_DATA(F)                     \
    F(wqe_data, byte_count,         0x00,  0, 32)   \
    F(wqe_data, lkey,               0x04,  0, 32)   \
    F(wqe_data, addr,               0x08,  0, 64)

#define MLX5_FIELDS_WQE_RADDR(F)                    \
    F(wqe_raddr, raddr,             0x00,  0, 64)   \
    F(wqe_raddr, rkey,              0x08,  0, 32)

#define MLX5_FIELDS_WQE_ATOMIC(F)                   \
    F(wqe_atomic, swap_add,         0x00,  0, 64)   \
    F(wqe_atomic, compare,          0x08,  0, 64)

/* The SRQ that a request on an XRC QP is for. */
#define MLX5_FIELDS_WQE_XRC(F)                      \
    F(wqe_xrc, srqn,                0x00,  0, 24)

/* Address vector of a UD request. */
#define MLX5_FIELDS_WQE_AV(F)                       \
    F(wqe_av, qkey,                 0x00,  0, 32)   \
    F(wqe_av, extended,             0x08, 31,  1)   \
    F(wqe_av, dqpn,                 0x08,  0, 24)   \
    F(wqe_av, sl,                   0x0c, 24,  4)   \
    F(wqe_av, mlid,                 0x0c, 16,  7)   \
    F(wqe_av, rlid,                 0x0c,  0, 16)   \
    F(wqe_av, tclass,               0x18,  8,  8)   \
    F(wqe_av, hop_limit,            0x18,  0,  8)   \
    F(wqe_av, grh,                  0x1c, 30,  1)   \
    F(wqe_av, flow_label,           0x1c,  0, 20)

#define MLX5_FIELDS_WQE_UMR(F)                      \
    F(wqe_umr, flags,               0x00, 24,  8)   \
    F(wqe_umr, xlt_octowords,       0x04, 16, 16)   \
    F(wqe_umr, xlt_offset,          0x04,  0, 16)   \
    F(wqe_umr, mkey_mask,           0x08,  0, 64)   \
    F(wqe_umr, xlt_offset_47_16,    0x10,  0, 32)

/* Doorbell pages: CQ arm. */
#define MLX5_FIELDS_CQ_DOORBELL(F)                  \
    F(cq_doorbell, sn,              0x00, 28,  2)   \
    F(cq_doorbell, solicited,       0x00, 24,  1)   \
    F(cq_doorbell, ci,              0x00,  0, 24)   \
    F(cq_doorbell, cqn,             0x04,  0, 24)

/* Every layout: L(name, list). */
#define MLX5_LAYOUTS(L)                                             \
    L(cmd, MLX5_FIELDS_CMD)                                         \
    L(cmdq_entry, MLX5_FIELDS_CMDQ_ENTRY)                           \
    L(mailbox, MLX5_FIELDS_MAILBOX)                                 \
    L(obj, MLX5_FIELDS_OBJ)                                         \
    L(cmd_hca_cap, MLX5_FIELDS_CMD_HCA_CAP)                         \
    L(odp_cap, MLX5_FIELDS_ODP_CAP)                                 \
    L(atomic_caps, MLX5_FIELDS_ATOMIC_CAPS)                         \
    L(query_issi_out, MLX5_FIELDS_QUERY_ISSI_OUT)                   \
    L(pages, MLX5_FIELDS_PAGES)                                     \
    L(query_adapter_out, MLX5_FIELDS_QUERY_ADAPTER_OUT)             \
    L(special_contexts, MLX5_FIELDS_SPECIAL_CONTEXTS)               \
    L(eqc, MLX5_FIELDS_EQC)                                         \
    L(create_eq_in, MLX5_FIELDS_CREATE_EQ_IN)                       \
    L(cqc, MLX5_FIELDS_CQC)                                         \
    L(qpc, MLX5_FIELDS_QPC)                                         \
    L(ads, MLX5_FIELDS_ADS)                                         \
    L(create_qp_in, MLX5_FIELDS_CREATE_QP_IN)                       \
    L(mkc, MLX5_FIELDS_MKC)                                         \
    L(create_mkey_in, MLX5_FIELDS_CREATE_MKEY_IN)                   \
    L(page_fault_resume_in, MLX5_FIELDS_PAGE_FAULT_RESUME_IN)       \
    L(vport_in, MLX5_FIELDS_VPORT_IN)                               \
    L(hca_vport_context, MLX5_FIELDS_HCA_VPORT_CONTEXT)             \
    L(access_register_in, MLX5_FIELDS_ACCESS_REGISTER_IN)           \
    L(ptys_reg, MLX5_FIELDS_PTYS_REG)                               \
    L(pmtu_reg, MLX5_FIELDS_PMTU_REG)                               \
    L(pvlc_reg, MLX5_FIELDS_PVLC_REG)                               \
    L(vport_counters, MLX5_FIELDS_VPORT_COUNTERS)                   \
    L(srqc, MLX5_FIELDS_SRQC)                                       \
    L(wq, MLX5_FIELDS_WQ)                                           \
    L(eqe, MLX5_FIELDS_EQE)                                         \
    L(cqe, MLX5_FIELDS_CQE)                                         \
    L(wqe_ctrl, MLX5_FIELDS_WQE_CTRL)                               \
    L(wqe_data, MLX5_FIELDS_WQE_DATA)                               \
    L(wqe_raddr, MLX5_FIELDS_WQE_RADDR)                             \
    L(wqe_atomic, MLX5_FIELDS_WQE_ATOMIC)                           \
    L(wqe_xrc, MLX5_FIELDS_WQE_XRC)                                 \
    L(wqe_av, MLX5_FIELDS_WQE_AV)                                   \
    L(wqe_umr, MLX5_FIELDS_WQE_UMR)                                 \
    L(cq_doorbell, MLX5_FIELDS_CQ_DOORBELL)

#define MLX5_FIELD_DEFINE(layout_, name_, offset_, lsb_, width_)        \
    static const Mlx5Field mlx5_f_##layout_##_##name_ = {               \
        .name = #name_, .offset = offset_, .lsb = lsb_, .width = width_ \
    };
#define MLX5_LAYOUT_DECLARE(layout_, list_) \
    list_(MLX5_FIELD_DEFINE)                \
    extern const Mlx5Layout mlx5_layout_##layout_;

MLX5_LAYOUTS(MLX5_LAYOUT_DECLARE)

#define MLX5_FIELD(layout_, name_) (&mlx5_f_##layout_##_##name_)

/* Read or write one field of the big-endian structure at @buf. */
#define fget(layout_, buf_, name_) \
    mlx5_field_get(buf_, MLX5_FIELD(layout_, name_))
#define fset(layout_, buf_, name_, value_) \
    mlx5_field_set(buf_, MLX5_FIELD(layout_, name_), value_)
/* Copy one field from @src to @dst, two structures of the same layout. */
#define fcopy(layout_, dst_, src_, name_) \
    fset(layout_, dst_, name_, fget(layout_, src_, name_))

static inline uint64_t mlx5_field_get(const void *buf, const Mlx5Field *f)
{
    const uint8_t *p = (const uint8_t *)buf + f->offset;

    if (f->width == 64) {
        return ldq_be_p(p);
    }
    return extract32(ldl_be_p(p), f->lsb, f->width);
}

/* The value is cut to the width of the field. */
static inline void mlx5_field_set(void *buf, const Mlx5Field *f,
                                  uint64_t value)
{
    uint8_t *p = (uint8_t *)buf + f->offset;

    if (f->width == 64) {
        stq_be_p(p, value);
    } else {
        stl_be_p(p, deposit32(ldl_be_p(p), f->lsb, f->width, value));
    }
}

/*
 * mlx5_layout_trace: emit one mlx5_field trace event per non-zero field
 * @owner: what the structure belongs to, for example a command's name
 *
 * Costs one test when the event is off.
 */
void mlx5_layout_trace(const char *owner, const Mlx5Layout *layout,
                       const void *buf);

#endif
