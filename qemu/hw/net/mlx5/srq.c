/*
 * mlx5 HCA: shared receive queues
 *
 * CREATE_SRQ (ISSI 0), CREATE_RMP and CREATE_XRC_SRQ (ISSI 1) make the same
 * object from different contexts.  Its free work requests form a list that
 * starts in each request (Linux infiniband/hw/mlx5/srq.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/log.h"
#include "mlx5.h"
#include "trace.h"

enum {
    RMP_WQ = 0x20 + 0x30,               /* the wq inside CREATE_RMP */
    RMP_PAS = RMP_WQ + 0xc0,
    MODIFY_RMP_LWM_MASK = 0x14,
    SRQ_STRIDE_SHIFT = 4,
    SYND_SRQ_PARAM = 0x270001,
    SYND_SRQ_NO_RES = 0x270002,
    SYND_SRQ_ID = 0x270003,
    SYND_SRQ_BUSY = 0x270004,
};

void mlx5_srq_free(gpointer opaque)
{
    Mlx5Srq *srq = opaque;

    if (srq->cq) {
        srq->cq->obj.refs--;
    }
    mlx5_buffer_fini(srq->hca, &srq->buf);
    g_free(srq);
}

Mlx5Srq *mlx5_srq_find(Mlx5State *s, uint32_t id)
{
    return mlx5_table_get(&s->srqs, id);
}

/* Where the parts of a queue's description are in the command. */
typedef struct SrqShape {
    unsigned log_size;
    unsigned log_stride;
    unsigned page_shift;
    unsigned page_offset;
    uint32_t pas;
} SrqShape;

static Mlx5Status srq_create(Mlx5State *s, Mlx5Cmd *cmd, Mlx5Srq *srq,
                             const SrqShape *shape)
{
    srq->hca = s;
    srq->num_wqes = 1u << shape->log_size;
    srq->stride = 1u << shape->log_stride;
    if (srq->stride < MLX5_SEG_BYTES || srq->dbr_addr & 7 ||
        shape->log_size > mlx5_cap_gen(s, log_max_srq_sz) ||
        cmd->in_len < shape->pas ||
        !mlx5_buffer_init(s, &srq->buf, cmd->in + shape->pas,
                          cmd->in_len - shape->pas, shape->page_shift,
                          shape->page_offset,
                          (uint64_t)srq->num_wqes << shape->log_stride)) {
        mlx5_guest_error(s, "SRQ of 2^%u requests of 2^%u bytes",
                         shape->log_size, shape->log_stride);
        mlx5_srq_free(srq);
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_PARAM, SYND_SRQ_PARAM);
    }
    if (!mlx5_table_add(&s->srqs, &srq->obj)) {
        mlx5_srq_free(srq);
        return mlx5_cmd_fail(cmd, MLX5_STATUS_NO_RES, SYND_SRQ_NO_RES);
    }
    fset(obj, cmd->out, id, srq->obj.id);
    trace_mlx5_srq_create(s->parent_obj.name, srq->obj.id, srq->num_wqes,
                          srq->stride);
    return MLX5_STATUS_OK;
}

static Mlx5Status cmd_create_srq(Mlx5State *s, Mlx5Cmd *cmd)
{
    const uint8_t *ctx = cmd->in + MLX5_CMD_CTX;
    const SrqShape shape = {
        .log_size = fget(srqc, ctx, log_srq_size),
        .log_stride = fget(srqc, ctx, log_rq_stride) + SRQ_STRIDE_SHIFT,
        .page_shift = fget(srqc, ctx, log_page_size) + 12,
        .page_offset = fget(srqc, ctx, page_offset),
        .pas = MLX5_CMD_PAS,
    };
    uint32_t cqn = fget(srqc, ctx, cqn);
    Mlx5Srq *srq = g_new0(Mlx5Srq, 1);

    mlx5_layout_trace("CREATE_SRQ", &mlx5_layout_srqc, ctx);
    srq->kind = fget(cmd, cmd->in, opcode);
    srq->pd = fget(srqc, ctx, pd);
    srq->xrcd = fget(srqc, ctx, xrcd);
    srq->dbr_addr = fget(srqc, ctx, dbr_addr);
    srq->hca = s;
    if (cqn) {
        srq->cq = mlx5_table_get(&s->cqs, cqn);
        if (!srq->cq) {
            mlx5_srq_free(srq);
            return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_PARAM, SYND_SRQ_PARAM);
        }
        srq->cq->obj.refs++;
    }
    return srq_create(s, cmd, srq, &shape);
}

static Mlx5Status cmd_create_rmp(Mlx5State *s, Mlx5Cmd *cmd)
{
    const uint8_t *wq = cmd->in + RMP_WQ;
    const SrqShape shape = {
        .log_size = fget(wq, wq, log_wq_sz),
        .log_stride = fget(wq, wq, log_wq_stride),
        .page_shift = fget(wq, wq, log_wq_pg_sz) + 12,
        .page_offset = fget(wq, wq, page_offset),
        .pas = RMP_PAS,
    };
    Mlx5Srq *srq = g_new0(Mlx5Srq, 1);

    mlx5_layout_trace("CREATE_RMP", &mlx5_layout_wq, wq);
    srq->kind = MLX5_OP_CREATE_RMP;
    srq->pd = fget(wq, wq, pd);
    srq->dbr_addr = fget(wq, wq, dbr_addr);
    return srq_create(s, cmd, srq, &shape);
}

/* The SRQ a command names, if it was made by command @kind. */
static Mlx5Srq *srq_get(Mlx5State *s, Mlx5Cmd *cmd, Mlx5Opcode kind)
{
    Mlx5Srq *srq = mlx5_srq_find(s, fget(obj, cmd->in, id));

    return srq && srq->kind == kind ? srq : NULL;
}

static Mlx5Status srq_destroy(Mlx5State *s, Mlx5Cmd *cmd, Mlx5Opcode kind)
{
    Mlx5Srq *srq = srq_get(s, cmd, kind);

    if (!srq) {
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_RES, SYND_SRQ_ID);
    }
    if (srq->obj.refs) {
        mlx5_guest_error(s, "SRQ 0x%x destroyed while QPs use it",
                         srq->obj.id);
        return mlx5_cmd_fail(cmd, MLX5_STATUS_RES_BUSY, SYND_SRQ_BUSY);
    }
    mlx5_responder_forget(s, srq);
    mlx5_table_remove(&s->srqs, srq->obj.id);
    return MLX5_STATUS_OK;
}

static Mlx5Status cmd_destroy_srq(Mlx5State *s, Mlx5Cmd *cmd)
{
    return srq_destroy(s, cmd, MLX5_OP_CREATE_SRQ);
}

static Mlx5Status cmd_destroy_xrc_srq(Mlx5State *s, Mlx5Cmd *cmd)
{
    return srq_destroy(s, cmd, MLX5_OP_CREATE_XRC_SRQ);
}

static Mlx5Status cmd_destroy_rmp(Mlx5State *s, Mlx5Cmd *cmd)
{
    return srq_destroy(s, cmd, MLX5_OP_CREATE_RMP);
}

static Mlx5Status srq_arm(Mlx5Cmd *cmd, Mlx5Srq *srq, uint32_t lwm)
{
    if (!srq) {
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_RES, SYND_SRQ_ID);
    }
    srq->lwm = lwm;
    return MLX5_STATUS_OK;
}

static Mlx5Status cmd_arm_srq(Mlx5State *s, Mlx5Cmd *cmd)
{
    return srq_arm(cmd, srq_get(s, cmd, MLX5_OP_CREATE_SRQ),
                   fget(obj, cmd->in, lwm));
}

static Mlx5Status cmd_arm_xrc_srq(Mlx5State *s, Mlx5Cmd *cmd)
{
    return srq_arm(cmd, srq_get(s, cmd, MLX5_OP_CREATE_XRC_SRQ),
                   fget(obj, cmd->in, lwm));
}

static Mlx5Status cmd_modify_rmp(Mlx5State *s, Mlx5Cmd *cmd)
{
    Mlx5Srq *srq = srq_get(s, cmd, MLX5_OP_CREATE_RMP);

    if (srq && !(ldl_be_p(cmd->in + MODIFY_RMP_LWM_MASK) & 1)) {
        return MLX5_STATUS_OK;
    }
    return srq_arm(cmd, srq, fget(wq, cmd->in + RMP_WQ, lwm));
}

static Mlx5Status srq_query(Mlx5State *s, Mlx5Cmd *cmd, Mlx5Opcode kind)
{
    Mlx5Srq *srq = srq_get(s, cmd, kind);
    uint8_t *ctx = cmd->out + MLX5_CMD_CTX;

    if (!srq) {
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_RES, SYND_SRQ_ID);
    }
    if (kind == MLX5_OP_CREATE_RMP) {
        uint8_t *wq = cmd->out + RMP_WQ;

        fset(wq, wq, log_wq_sz, ctz32(srq->num_wqes));
        fset(wq, wq, log_wq_stride, ctz32(srq->stride));
        fset(wq, wq, pd, srq->pd);
        fset(wq, wq, lwm, srq->lwm);
    } else {
        fset(srqc, ctx, log_srq_size, ctz32(srq->num_wqes));
        fset(srqc, ctx, log_rq_stride, ctz32(srq->stride) -
                                       SRQ_STRIDE_SHIFT);
        fset(srqc, ctx, pd, srq->pd);
        fset(srqc, ctx, lwm, srq->lwm);
    }
    return MLX5_STATUS_OK;
}

static Mlx5Status cmd_query_srq(Mlx5State *s, Mlx5Cmd *cmd)
{
    return srq_query(s, cmd, MLX5_OP_CREATE_SRQ);
}

static Mlx5Status cmd_query_xrc_srq(Mlx5State *s, Mlx5Cmd *cmd)
{
    return srq_query(s, cmd, MLX5_OP_CREATE_XRC_SRQ);
}

static Mlx5Status cmd_query_rmp(Mlx5State *s, Mlx5Cmd *cmd)
{
    return srq_query(s, cmd, MLX5_OP_CREATE_RMP);
}

const Mlx5CmdDesc mlx5_cmds_srq[] = {
    { MLX5_OP_CREATE_SRQ, "CREATE_SRQ", MLX5_PHASE_INITIALIZED,
      MLX5_CMD_PAS, 0x10, cmd_create_srq },
    { MLX5_OP_DESTROY_SRQ, "DESTROY_SRQ", MLX5_PHASE_INITIALIZED,
      0x10, 0x10, cmd_destroy_srq },
    { MLX5_OP_QUERY_SRQ, "QUERY_SRQ", MLX5_PHASE_INITIALIZED,
      0x10, MLX5_CMD_PAS, cmd_query_srq },
    { MLX5_OP_ARM_SRQ, "ARM_SRQ", MLX5_PHASE_INITIALIZED,
      0x10, 0x10, cmd_arm_srq },
    { MLX5_OP_CREATE_XRC_SRQ, "CREATE_XRC_SRQ", MLX5_PHASE_INITIALIZED,
      MLX5_CMD_PAS, 0x10, cmd_create_srq },
    { MLX5_OP_DESTROY_XRC_SRQ, "DESTROY_XRC_SRQ", MLX5_PHASE_INITIALIZED,
      0x10, 0x10, cmd_destroy_xrc_srq },
    { MLX5_OP_QUERY_XRC_SRQ, "QUERY_XRC_SRQ", MLX5_PHASE_INITIALIZED,
      0x10, MLX5_CMD_PAS, cmd_query_xrc_srq },
    { MLX5_OP_ARM_XRC_SRQ, "ARM_XRC_SRQ", MLX5_PHASE_INITIALIZED,
      0x10, 0x10, cmd_arm_xrc_srq },
    { MLX5_OP_CREATE_RMP, "CREATE_RMP", MLX5_PHASE_INITIALIZED,
      MLX5_CMD_PAS, 0x10, cmd_create_rmp },
    { MLX5_OP_MODIFY_RMP, "MODIFY_RMP", MLX5_PHASE_INITIALIZED,
      MLX5_CMD_PAS, 0x10, cmd_modify_rmp },
    { MLX5_OP_DESTROY_RMP, "DESTROY_RMP", MLX5_PHASE_INITIALIZED,
      0x10, 0x10, cmd_destroy_rmp },
    { MLX5_OP_QUERY_RMP, "QUERY_RMP", MLX5_PHASE_INITIALIZED,
      0x10, MLX5_CMD_PAS, cmd_query_rmp },
    { }
};
