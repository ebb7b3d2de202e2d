/*
 * mlx5 HCA: objects that are no more than a number
 *
 * Protection domains, XRC domains and UAR pages.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/log.h"
#include "mlx5.h"

enum {
    SYND_NO_RES = 0x1c0001,
    SYND_BAD_ID = 0x1c0002,
    SYND_BUSY = 0x1c0003,
};

static Mlx5Status obj_alloc(Mlx5Table *t, Mlx5Cmd *cmd, size_t bytes)
{
    Mlx5Obj *obj = g_malloc0(bytes);

    if (!mlx5_table_add(t, obj)) {
        g_free(obj);
        return mlx5_cmd_fail(cmd, MLX5_STATUS_NO_RES, SYND_NO_RES);
    }
    fset(obj, cmd->out, id, obj->id);
    return MLX5_STATUS_OK;
}

static Mlx5Status obj_dealloc(Mlx5State *s, Mlx5Table *t, Mlx5Cmd *cmd)
{
    uint32_t id = fget(obj, cmd->in, id);
    Mlx5Obj *obj = mlx5_table_get(t, id);

    if (!obj) {
        mlx5_guest_error(s, "freeing object 0x%x that does not exist", id);
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_RES, SYND_BAD_ID);
    }
    if (obj->refs) {
        mlx5_guest_error(s, "freeing object 0x%x that is in use", id);
        return mlx5_cmd_fail(cmd, MLX5_STATUS_RES_BUSY, SYND_BUSY);
    }
    mlx5_table_remove(t, id);
    return MLX5_STATUS_OK;
}

static Mlx5Status cmd_alloc_pd(Mlx5State *s, Mlx5Cmd *cmd)
{
    return obj_alloc(&s->pds, cmd, sizeof(Mlx5Obj));
}

static Mlx5Status cmd_dealloc_pd(Mlx5State *s, Mlx5Cmd *cmd)
{
    return obj_dealloc(s, &s->pds, cmd);
}

static Mlx5Status cmd_alloc_uar(Mlx5State *s, Mlx5Cmd *cmd)
{
    return obj_alloc(&s->uars, cmd, sizeof(Mlx5Uar));
}

static Mlx5Status cmd_dealloc_uar(Mlx5State *s, Mlx5Cmd *cmd)
{
    return obj_dealloc(s, &s->uars, cmd);
}

static Mlx5Status cmd_alloc_xrcd(Mlx5State *s, Mlx5Cmd *cmd)
{
    return obj_alloc(&s->xrcds, cmd, sizeof(Mlx5Obj));
}

static Mlx5Status cmd_dealloc_xrcd(Mlx5State *s, Mlx5Cmd *cmd)
{
    return obj_dealloc(s, &s->xrcds, cmd);
}

const Mlx5CmdDesc mlx5_cmds_alloc[] = {
    { MLX5_OP_ALLOC_PD, "ALLOC_PD", MLX5_PHASE_INITIALIZED,
      0x10, 0x10, cmd_alloc_pd },
    { MLX5_OP_DEALLOC_PD, "DEALLOC_PD", MLX5_PHASE_INITIALIZED,
      0x10, 0x10, cmd_dealloc_pd },
    { MLX5_OP_ALLOC_UAR, "ALLOC_UAR", MLX5_PHASE_INITIALIZED,
      0x10, 0x10, cmd_alloc_uar },
    { MLX5_OP_DEALLOC_UAR, "DEALLOC_UAR", MLX5_PHASE_INITIALIZED,
      0x10, 0x10, cmd_dealloc_uar },
    { MLX5_OP_ALLOC_XRCD, "ALLOC_XRCD", MLX5_PHASE_INITIALIZED,
      0x10, 0x10, cmd_alloc_xrcd },
    { MLX5_OP_DEALLOC_XRCD, "DEALLOC_XRCD", MLX5_PHASE_INITIALIZED,
      0x10, 0x10, cmd_dealloc_xrcd },
    { }
};
