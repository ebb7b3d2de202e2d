/*
 * mlx5 HCA: event queues
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/log.h"
#include "mlx5.h"
#include "trace.h"

enum {
    EQ_INDEX_MASK = 0xffffff,
    EQC_ST_ARMED = 0x9,
    EQC_ST_FIRED = 0xa,
    SYND_EQ_PARAM = 0x1f0001,
    SYND_EQ_PAGES = 0x1f0002,
    SYND_EQ_NO_RES = 0x1f0003,
    SYND_EQ_ID = 0x1f0004,
    SYND_EQ_BUSY = 0x1f0005,
};

void mlx5_eq_free(gpointer opaque)
{
    Mlx5Eq *eq = opaque;

    mlx5_buffer_fini(eq->hca, &eq->buf);
    g_free(eq);
}

static Mlx5Status cmd_create_eq(Mlx5State *s, Mlx5Cmd *cmd)
{
    const uint8_t *ctx = cmd->in + MLX5_CMD_CTX;
    uint32_t log_size = fget(eqc, ctx, log_eq_size);
    uint32_t vector = fget(eqc, ctx, intr);
    uint32_t uar = fget(eqc, ctx, uar_page);
    Mlx5Eq *eq;

    mlx5_layout_trace("CREATE_EQ", &mlx5_layout_eqc, ctx);
    if (log_size > mlx5_cap_gen(s, log_max_eq_sz) ||
        vector >= s->num_vectors || !mlx5_table_get(&s->uars, uar)) {
        mlx5_guest_error(s, "CREATE_EQ: log size %u, vector %u, UAR 0x%x",
                         log_size, vector, uar);
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_PARAM, SYND_EQ_PARAM);
    }
    eq = g_new0(Mlx5Eq, 1);
    eq->hca = s;
    eq->log_size = log_size;
    eq->vector = vector;
    eq->uar = uar;
    eq->event_mask = fget(create_eq_in, cmd->in, event_bitmask_0);
    memcpy(eq->ctx, ctx, sizeof(eq->ctx));
    if (!mlx5_buffer_init(s, &eq->buf, cmd->in + MLX5_CMD_PAS,
                          cmd->in_len - MLX5_CMD_PAS,
                          fget(eqc, ctx, log_page_size) + 12,
                          fget(eqc, ctx, page_offset),
                          (uint64_t)MLX5_EQE_BYTES << log_size)) {
        mlx5_eq_free(eq);
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_PARAM, SYND_EQ_PAGES);
    }
    if (!mlx5_table_add(&s->eqs, &eq->obj)) {
        mlx5_eq_free(eq);
        return mlx5_cmd_fail(cmd, MLX5_STATUS_NO_RES, SYND_EQ_NO_RES);
    }
    fset(obj, cmd->out, id, eq->obj.id);
    trace_mlx5_eq_create(s->parent_obj.name, eq->obj.id, 1u << log_size,
                         vector, eq->event_mask);
    return MLX5_STATUS_OK;
}

static Mlx5Status cmd_destroy_eq(Mlx5State *s, Mlx5Cmd *cmd)
{
    Mlx5Eq *eq = mlx5_table_get(&s->eqs, fget(obj, cmd->in, id));

    if (!eq) {
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_RES, SYND_EQ_ID);
    }
    if (eq->obj.refs) {
        mlx5_guest_error(s, "DESTROY_EQ 0x%x: CQs use it", eq->obj.id);
        return mlx5_cmd_fail(cmd, MLX5_STATUS_RES_BUSY, SYND_EQ_BUSY);
    }
    mlx5_table_remove(&s->eqs, eq->obj.id);
    return MLX5_STATUS_OK;
}

static Mlx5Status cmd_query_eq(Mlx5State *s, Mlx5Cmd *cmd)
{
    Mlx5Eq *eq = mlx5_table_get(&s->eqs, fget(obj, cmd->in, id));
    uint8_t *ctx = cmd->out + MLX5_CMD_CTX;

    if (!eq) {
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_RES, SYND_EQ_ID);
    }
    memcpy(ctx, eq->ctx, sizeof(eq->ctx));
    fset(eqc, ctx, st, eq->armed ? EQC_ST_ARMED : EQC_ST_FIRED);
    fset(eqc, ctx, consumer_counter, eq->ci);
    fset(eqc, ctx, producer_counter, eq->pi);
    return MLX5_STATUS_OK;
}

static void eq_fire(Mlx5State *s, Mlx5Eq *eq)
{
    eq->armed = false;
    trace_mlx5_eq_fire(s->parent_obj.name, eq->obj.id, eq->vector);
    mlx5_fire(s, eq->vector);
}

void mlx5_eq_post(Mlx5State *s, Mlx5Eq *eq, Mlx5Event type,
                  unsigned sub_type, uint8_t *eqe)
{
    const uint32_t size = 1u << eq->log_size;

    if (s->dma.stopped) {
        return;
    }
    if (((eq->pi - eq->ci) & EQ_INDEX_MASK) >= size) {
        mlx5_guest_error(s, "EQ 0x%x overflows, event 0x%x lost",
                         eq->obj.id, type);
        return;
    }
    fset(eqe, eqe, type, type);
    fset(eqe, eqe, sub_type, sub_type);
    eqe[MLX5_EQE_BYTES - 1] = (eq->pi >> eq->log_size) & 1;
    trace_mlx5_eqe(s->parent_obj.name, eq->obj.id, eq->pi, type, sub_type);
    if (!mlx5_buffer_publish(s, &eq->buf,
                             (uint64_t)(eq->pi & (size - 1)) * MLX5_EQE_BYTES,
                             eqe, MLX5_EQE_BYTES)) {
        mlx5_guest_error(s, "EQ 0x%x: memory is unreachable", eq->obj.id);
        return;
    }
    eq->pi = (eq->pi + 1) & EQ_INDEX_MASK;
    s->stats.events++;
    if (eq->armed) {
        eq_fire(s, eq);
    }
}

Mlx5Eq *mlx5_event_eq(Mlx5State *s, Mlx5Event type)
{
    GHashTableIter it;
    gpointer value;

    g_hash_table_iter_init(&it, s->eqs.objs);
    while (g_hash_table_iter_next(&it, NULL, &value)) {
        Mlx5Eq *eq = value;

        if (eq->event_mask & 1ull << type) {
            return eq;
        }
    }
    return NULL;
}

bool mlx5_event_post(Mlx5State *s, Mlx5Event type, unsigned sub_type,
                     uint8_t *eqe)
{
    Mlx5Eq *eq = mlx5_event_eq(s, type);

    if (!eq) {
        return false;
    }
    mlx5_eq_post(s, eq, type, sub_type, eqe);
    return true;
}

void mlx5_eq_doorbell(Mlx5State *s, uint32_t uar, uint32_t value, bool arm)
{
    Mlx5Eq *eq = mlx5_table_get(&s->eqs, value >> 24);
    uint32_t ci = value & EQ_INDEX_MASK;

    if (!eq || eq->uar != uar) {
        mlx5_guest_error(s, "EQ doorbell 0x%08x in UAR 0x%x: no such EQ",
                         value, uar);
        return;
    }
    trace_mlx5_eq_doorbell(s->parent_obj.name, eq->obj.id, ci, arm);
    if (((eq->pi - ci) & EQ_INDEX_MASK) > 1u << eq->log_size) {
        mlx5_guest_error(s, "EQ 0x%x: consumer 0x%x is ahead of producer "
                         "0x%x", eq->obj.id, ci, eq->pi);
        return;
    }
    eq->ci = ci;
    if (!arm) {
        return;
    }
    /*
     * Handlers stop after a budget of entries and re-arm (Linux core/eq.c):
     * unread entries must then interrupt again.
     */
    if (eq->ci != eq->pi) {
        eq_fire(s, eq);
    } else {
        eq->armed = true;
    }
}

const Mlx5CmdDesc mlx5_cmds_eq[] = {
    { MLX5_OP_CREATE_EQ, "CREATE_EQ", MLX5_PHASE_INITIALIZED,
      MLX5_CMD_PAS, 0x10, cmd_create_eq },
    { MLX5_OP_DESTROY_EQ, "DESTROY_EQ", MLX5_PHASE_INITIALIZED,
      0x10, 0x10, cmd_destroy_eq },
    { MLX5_OP_QUERY_EQ, "QUERY_EQ", MLX5_PHASE_INITIALIZED,
      0x10, MLX5_CMD_PAS, cmd_query_eq },
    { }
};
