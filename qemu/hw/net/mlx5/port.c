/*
 * mlx5 HCA: the port and its virtual port
 *
 * One InfiniBand port, 4X EDR, always active, with a LID that a property (or
 * the fabric) gives it: no subnet manager is needed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/log.h"
#include "mlx5.h"

enum {
    NUM_GIDS = 8,
    NUM_PKEYS = 128,
    PKEY_WHOLE_TABLE = 0xffff,
    REG_DATA = 0x10,
    ACCESS_REG_READ = 1,
    PORT_PHYSICAL_LINK_UP = 5,
    PORT_ACTIVE = 4,
    IB_WIDTH_4X = 1 << 2,
    IB_SPEED_EDR = 1 << 5,
    PTYS_IB = 1,
    MTU_BYTES = 4096,
    VL_COUNT_CODE = 4,
    SYND_PORT = 0x1d0001,
    SYND_INDEX = 0x1d0002,
    SYND_REGISTER = 0x1d0003,
    SYND_REG_LEN = 0x1d0004,
};

static Mlx5Status vport_check(Mlx5State *s, Mlx5Cmd *cmd)
{
    uint32_t port = fget(vport_in, cmd->in, port_num);

    if (fget(vport_in, cmd->in, other_vport) || port > 1) {
        mlx5_guest_error(s, "command 0x%x for another vport or port %u",
                         (unsigned)fget(cmd, cmd->in, opcode), port);
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_PARAM, SYND_PORT);
    }
    return MLX5_STATUS_OK;
}

static Mlx5Status cmd_query_vport_context(Mlx5State *s, Mlx5Cmd *cmd)
{
    uint8_t *ctx = cmd->out + MLX5_CMD_CTX;
    Mlx5Status status = vport_check(s, cmd);

    if (status != MLX5_STATUS_OK) {
        return status;
    }
    fset(hca_vport_context, ctx, port_physical_state, PORT_PHYSICAL_LINK_UP);
    fset(hca_vport_context, ctx, port_state, PORT_ACTIVE);
    fset(hca_vport_context, ctx, vport_state, PORT_ACTIVE);
    fset(hca_vport_context, ctx, system_image_guid, s->guid);
    fset(hca_vport_context, ctx, port_guid, s->guid);
    fset(hca_vport_context, ctx, node_guid, s->guid);
    fset(hca_vport_context, ctx, cap_mask1, s->port_cap_mask);
    fset(hca_vport_context, ctx, cap_mask1_field_select, UINT32_MAX);
    fset(hca_vport_context, ctx, lid, s->lid);
    fset(hca_vport_context, ctx, subnet_timeout, 18);
    return MLX5_STATUS_OK;
}

static Mlx5Status cmd_modify_vport_context(Mlx5State *s, Mlx5Cmd *cmd)
{
    const uint8_t *ctx = cmd->in + MLX5_CMD_CTX;
    uint32_t mask = fget(hca_vport_context, ctx, cap_mask1_field_select);
    Mlx5Status status = vport_check(s, cmd);

    if (status != MLX5_STATUS_OK) {
        return status;
    }
    s->port_cap_mask = (s->port_cap_mask & ~mask) |
                       (fget(hca_vport_context, ctx, cap_mask1) & mask);
    return MLX5_STATUS_OK;
}

static Mlx5Status cmd_query_gid(Mlx5State *s, Mlx5Cmd *cmd)
{
    uint32_t index = fget(vport_in, cmd->in, index);
    uint8_t *gid = cmd->out + MLX5_CMD_CTX;
    Mlx5Status status = vport_check(s, cmd);

    if (status != MLX5_STATUS_OK) {
        return status;
    }
    if (index >= NUM_GIDS) {
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_INDEX, SYND_INDEX);
    }
    stw_be_p(cmd->out + 0x0c, 1);
    /* Every GID has the subnet's prefix; the GUID table has one entry. */
    stq_be_p(gid, MLX5_GID_PREFIX);
    stq_be_p(gid + 8, index ? 0 : s->guid);
    return MLX5_STATUS_OK;
}

static Mlx5Status cmd_query_pkey(Mlx5State *s, Mlx5Cmd *cmd)
{
    uint32_t index = fget(vport_in, cmd->in, index);
    uint32_t num = index == PKEY_WHOLE_TABLE ? NUM_PKEYS : 1;
    Mlx5Status status = vport_check(s, cmd);

    if (status != MLX5_STATUS_OK) {
        return status;
    }
    if (index != PKEY_WHOLE_TABLE && index >= NUM_PKEYS) {
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_INDEX, SYND_INDEX);
    }
    /* One 16-bit key in the low half of each dword. */
    if (cmd->out_len < MLX5_CMD_CTX + num * 4) {
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_OUTPUT_LEN, SYND_INDEX);
    }
    if (index == 0 || index == PKEY_WHOLE_TABLE) {
        stl_be_p(cmd->out + MLX5_CMD_CTX, MLX5_PKEY_DEFAULT);
    }
    return MLX5_STATUS_OK;
}

static Mlx5Status cmd_query_vport_counter(Mlx5State *s, Mlx5Cmd *cmd)
{
    Mlx5Status status = vport_check(s, cmd);

    if (status != MLX5_STATUS_OK) {
        return status;
    }
    fset(vport_counters, cmd->out, received_unicast_packets,
         s->stats.rx_packets);
    fset(vport_counters, cmd->out, received_unicast_octets,
         s->stats.rx_octets);
    fset(vport_counters, cmd->out, transmitted_unicast_packets,
         s->stats.tx_packets);
    fset(vport_counters, cmd->out, transmitted_unicast_octets,
         s->stats.tx_octets);
    return MLX5_STATUS_OK;
}

uint64_t mlx5_port_packets(const Mlx5Qp *qp, uint64_t len)
{
    /* Codes 1 to 5: 256 to 4096 bytes. */
    unsigned code = fget(qpc, qp->ctx, mtu);
    uint64_t mtu = 128ull << MIN(code, 5);

    return len ? DIV_ROUND_UP(len, mtu) : 1;
}

void mlx5_port_count(Mlx5State *tx, Mlx5State *rx, const Mlx5Qp *qp,
                     uint64_t len, bool response)
{
    uint64_t packets = mlx5_port_packets(qp, len);

    if (response) {
        Mlx5State *swap = tx;

        tx = rx;
        rx = swap;
    }
    if (tx) {
        tx->stats.tx_packets += packets;
        tx->stats.tx_octets += len;
    }
    if (rx) {
        rx->stats.rx_packets += packets;
        rx->stats.rx_octets += len;
    }
}

/* Registers; @in and @out are the register's data. */

static void reg_ptys(Mlx5State *s, uint8_t *out)
{
    fset(ptys_reg, out, local_port, 1);
    fset(ptys_reg, out, proto_mask, PTYS_IB);
    fset(ptys_reg, out, ib_link_width_capability, IB_WIDTH_4X);
    fset(ptys_reg, out, ib_proto_capability, IB_SPEED_EDR);
    fset(ptys_reg, out, ib_link_width_oper, IB_WIDTH_4X);
    fset(ptys_reg, out, ib_proto_oper, IB_SPEED_EDR);
}

static void reg_pmtu(Mlx5State *s, uint8_t *out)
{
    fset(pmtu_reg, out, local_port, 1);
    fset(pmtu_reg, out, max_mtu, MTU_BYTES);
    fset(pmtu_reg, out, admin_mtu, MTU_BYTES);
    fset(pmtu_reg, out, oper_mtu, MTU_BYTES);
}

static void reg_pvlc(Mlx5State *s, uint8_t *out)
{
    fset(pvlc_reg, out, local_port, 1);
    fset(pvlc_reg, out, vl_hw_cap, VL_COUNT_CODE);
    fset(pvlc_reg, out, vl_operational, VL_COUNT_CODE);
}

/* Error counters of the port: nothing is ever lost here. */
static void reg_ppcnt(Mlx5State *s, uint8_t *out)
{
}

static void reg_node_desc(Mlx5State *s, uint8_t *out)
{
    /* 64 bytes, not necessarily terminated. */
    memcpy(out, s->node_desc, sizeof(s->node_desc));
}

static void reg_node_desc_write(Mlx5State *s, const uint8_t *in)
{
    memcpy(s->node_desc, in, sizeof(s->node_desc));
}

static void reg_host_endianness_write(Mlx5State *s, const uint8_t *in)
{
    /* Little-endian hosts only; the driver asks for nothing else. */
}

static const struct {
    uint16_t id;
    uint32_t bytes;
    void (*read)(Mlx5State *s, uint8_t *out);
    void (*write)(Mlx5State *s, const uint8_t *in);
} registers[] = {
    { MLX5_REG_PTYS, 0x40, reg_ptys },
    { MLX5_REG_PMTU, 0x10, reg_pmtu },
    { MLX5_REG_PVLC, 0x10, reg_pvlc },
    { MLX5_REG_PPCNT, 0x100, reg_ppcnt },
    { MLX5_REG_NODE_DESC, 0x40, reg_node_desc, reg_node_desc_write },
    { MLX5_REG_HOST_ENDIANNESS, 0x10, NULL, reg_host_endianness_write },
};

static Mlx5Status cmd_access_reg(Mlx5State *s, Mlx5Cmd *cmd)
{
    uint32_t id = fget(access_register_in, cmd->in, register_id);
    bool read = fget(cmd, cmd->in, op_mod) == ACCESS_REG_READ;

    for (unsigned i = 0; i < ARRAY_SIZE(registers); i++) {
        if (registers[i].id != id) {
            continue;
        }
        if (read ? !registers[i].read : !registers[i].write) {
            break;
        }
        if (cmd->in_len < REG_DATA + registers[i].bytes ||
            cmd->out_len < REG_DATA + registers[i].bytes) {
            return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_INPUT_LEN,
                                 SYND_REG_LEN);
        }
        if (read) {
            registers[i].read(s, cmd->out + REG_DATA);
        } else {
            registers[i].write(s, cmd->in + REG_DATA);
        }
        return MLX5_STATUS_OK;
    }
    mlx5_guest_error(s, "%s of unknown register 0x%x",
                     read ? "read" : "write", id);
    return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_OP, SYND_REGISTER);
}

const Mlx5CmdDesc mlx5_cmds_port[] = {
    { MLX5_OP_QUERY_HCA_VPORT_CONTEXT, "QUERY_HCA_VPORT_CONTEXT",
      MLX5_PHASE_INITIALIZED, 0x10, 0x210, cmd_query_vport_context },
    { MLX5_OP_MODIFY_HCA_VPORT_CONTEXT, "MODIFY_HCA_VPORT_CONTEXT",
      MLX5_PHASE_INITIALIZED, 0x210, 0x10, cmd_modify_vport_context },
    { MLX5_OP_QUERY_HCA_VPORT_GID, "QUERY_HCA_VPORT_GID",
      MLX5_PHASE_INITIALIZED, 0x10, 0x20, cmd_query_gid },
    { MLX5_OP_QUERY_HCA_VPORT_PKEY, "QUERY_HCA_VPORT_PKEY",
      MLX5_PHASE_INITIALIZED, 0x10, 0x14, cmd_query_pkey },
    { MLX5_OP_QUERY_VPORT_COUNTER, "QUERY_VPORT_COUNTER",
      MLX5_PHASE_INITIALIZED, 0x20, 0x210, cmd_query_vport_counter },
    { MLX5_OP_ACCESS_REG, "ACCESS_REG", MLX5_PHASE_ENABLED,
      0x10, 0x10, cmd_access_reg },
    { }
};
