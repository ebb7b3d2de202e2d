/*
 * mlx5 HCA: commands of the function's life cycle
 *
 * Order of use: Linux core/main.c, mlx5_function_enable() and
 * mlx5_function_open().
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/log.h"
#include "mlx5.h"

enum {
    QUERY_ADAPTER_PSID = 0x100,
    PSID_BYTES = 16,
    IEEE_VENDOR_MELLANOX = 0x0002c9,
    SUPPORTED_ISSI = 1 << 1 | 1 << 0,
    SYND_ISSI = 0x1a0001,
    SYND_FUNCTION_ID = 0x1a0002,
    SYND_PAGES = 0x1a0003,
};

static Mlx5Status cmd_enable_hca(Mlx5State *s, Mlx5Cmd *cmd)
{
    if (fget(pages, cmd->in, function_id)) {
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_PARAM, SYND_FUNCTION_ID);
    }
    /* The last owner may be gone without TEARDOWN_HCA: killed, or crashed. */
    mlx5_hca_teardown(s);
    s->hca_enabled = true;
    return MLX5_STATUS_OK;
}

static Mlx5Status cmd_disable_hca(Mlx5State *s, Mlx5Cmd *cmd)
{
    mlx5_hca_teardown(s);
    s->hca_enabled = false;
    return MLX5_STATUS_OK;
}

static Mlx5Status cmd_init_hca(Mlx5State *s, Mlx5Cmd *cmd)
{
    s->hca_initialized = true;
    return MLX5_STATUS_OK;
}

static Mlx5Status cmd_teardown_hca(Mlx5State *s, Mlx5Cmd *cmd)
{
    mlx5_hca_teardown(s);
    return MLX5_STATUS_OK;
}

static Mlx5Status cmd_query_issi(Mlx5State *s, Mlx5Cmd *cmd)
{
    fset(query_issi_out, cmd->out, current_issi, s->issi);
    fset(query_issi_out, cmd->out, supported_issi_dw0, SUPPORTED_ISSI);
    return MLX5_STATUS_OK;
}

static Mlx5Status cmd_set_issi(Mlx5State *s, Mlx5Cmd *cmd)
{
    uint32_t issi = fget(query_issi_out, cmd->in, current_issi);

    if (issi > 1) {
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_PARAM, SYND_ISSI);
    }
    s->issi = issi;
    return MLX5_STATUS_OK;
}

/* The model keeps its contexts itself and never asks for guest pages. */
static Mlx5Status cmd_query_pages(Mlx5State *s, Mlx5Cmd *cmd)
{
    return MLX5_STATUS_OK;
}

static Mlx5Status cmd_manage_pages(Mlx5State *s, Mlx5Cmd *cmd)
{
    return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_PARAM, SYND_PAGES);
}

static Mlx5Status cmd_query_adapter(Mlx5State *s, Mlx5Cmd *cmd)
{
    static const char psid[PSID_BYTES + 1] = "QEMU_MLX50000001";

    fset(query_adapter_out, cmd->out, ieee_vendor_id, IEEE_VENDOR_MELLANOX);
    memcpy(cmd->out + QUERY_ADAPTER_PSID, psid, PSID_BYTES);
    return MLX5_STATUS_OK;
}

static Mlx5Status cmd_special_contexts(Mlx5State *s, Mlx5Cmd *cmd)
{
    fset(special_contexts, cmd->out, null_mkey, MLX5_NULL_MKEY);
    return MLX5_STATUS_OK;
}

const Mlx5CmdDesc mlx5_cmds_hca[] = {
    { MLX5_OP_ENABLE_HCA, "ENABLE_HCA", MLX5_PHASE_ANY,
      0x10, 0x0c, cmd_enable_hca },
    { MLX5_OP_DISABLE_HCA, "DISABLE_HCA", MLX5_PHASE_ANY,
      0x10, 0x0c, cmd_disable_hca },
    { MLX5_OP_QUERY_ISSI, "QUERY_ISSI", MLX5_PHASE_ENABLED,
      0x10, 0x70, cmd_query_issi },
    { MLX5_OP_SET_ISSI, "SET_ISSI", MLX5_PHASE_ENABLED,
      0x10, 0x10, cmd_set_issi },
    { MLX5_OP_QUERY_PAGES, "QUERY_PAGES", MLX5_PHASE_ENABLED,
      0x10, 0x10, cmd_query_pages },
    { MLX5_OP_MANAGE_PAGES, "MANAGE_PAGES", MLX5_PHASE_ENABLED,
      0x10, 0x10, cmd_manage_pages },
    { MLX5_OP_QUERY_HCA_CAP, "QUERY_HCA_CAP", MLX5_PHASE_ENABLED,
      0x10, 0x10 + MLX5_CAP_BYTES, mlx5_caps_query },
    { MLX5_OP_SET_HCA_CAP, "SET_HCA_CAP", MLX5_PHASE_ENABLED,
      0x10 + MLX5_CAP_BYTES, 0x10, mlx5_caps_set },
    { MLX5_OP_INIT_HCA, "INIT_HCA", MLX5_PHASE_ENABLED,
      0x10, 0x10, cmd_init_hca },
    { MLX5_OP_TEARDOWN_HCA, "TEARDOWN_HCA", MLX5_PHASE_ENABLED,
      0x10, 0x10, cmd_teardown_hca },
    { MLX5_OP_QUERY_ADAPTER, "QUERY_ADAPTER", MLX5_PHASE_ENABLED,
      0x10, 0x110, cmd_query_adapter },
    { MLX5_OP_QUERY_SPECIAL_CONTEXTS, "QUERY_SPECIAL_CONTEXTS",
      MLX5_PHASE_INITIALIZED, 0x10, 0x18, cmd_special_contexts },
    { }
};
