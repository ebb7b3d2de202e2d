/*
 * mlx5 HCA: completion queues
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/log.h"
#include "qemu/timer.h"
#include "mlx5.h"
#include "trace.h"

enum {
    CQ_INDEX_MASK = 0xffffff,
    CQC_STATUS_OVERFLOW = 0x9,
    CQC_STATUS_WRITE_FAIL = 0xa,
    CQC_ST_ARMED = 0x9,
    CQC_ST_FIRED = 0xa,
    CQE_SIZE_128 = 1,
    MODIFY_RESIZE = 1,
    CQ_ERROR_OVERRUN = 1,
    CQ_ERROR_ACCESS = 2,
    SYND_CQ_PARAM = 0x210001,
    SYND_CQ_PAGES = 0x210002,
    SYND_CQ_NO_RES = 0x210003,
    SYND_CQ_ID = 0x210004,
    SYND_CQ_BUSY = 0x210005,
    SYND_CQ_OP_MOD = 0x210006,
    SYND_CQ_SIZE = 0x210007,
    SYND_CQ_STATE = 0x210008,
};

void mlx5_cq_free(gpointer opaque)
{
    Mlx5Cq *cq = opaque;

    if (cq->arm_pending) {
        QTAILQ_REMOVE(&cq->hca->arms, cq, arm_entry);
    }
    if (cq->eq) {
        cq->eq->obj.refs--;
    }
    mlx5_buffer_fini(cq->hca, &cq->buf);
    g_free(cq);
}

static bool cq_buffer_init(Mlx5Cq *cq, Mlx5Buffer *buf, const Mlx5Cmd *cmd,
                           uint32_t log_size)
{
    const uint8_t *ctx = cmd->in + MLX5_CMD_CTX;

    return mlx5_buffer_init(cq->hca, buf, cmd->in + MLX5_CMD_PAS,
                            cmd->in_len - MLX5_CMD_PAS,
                            fget(cqc, ctx, log_page_size) + 12,
                            fget(cqc, ctx, page_offset),
                            (uint64_t)cq->stride << log_size);
}

static Mlx5Status cmd_create_cq(Mlx5State *s, Mlx5Cmd *cmd)
{
    const uint8_t *ctx = cmd->in + MLX5_CMD_CTX;
    uint32_t log_size = fget(cqc, ctx, log_cq_size);
    uint32_t uar = fget(cqc, ctx, uar_page);
    Mlx5Eq *eq = mlx5_table_get(&s->eqs, fget(cqc, ctx,
                                              c_eqn_or_apu_element));
    Mlx5Cq *cq;

    mlx5_layout_trace("CREATE_CQ", &mlx5_layout_cqc, ctx);
    if (!eq || log_size > mlx5_cap_gen(s, log_max_cq_sz) ||
        fget(cqc, ctx, cqe_sz) > CQE_SIZE_128 ||
        !mlx5_table_get(&s->uars, uar) || fget(cqc, ctx, dbr_addr) & 7) {
        mlx5_guest_error(s, "CREATE_CQ: EQ 0x%x, log size %u, UAR 0x%x, "
                         "CQE size code %u",
                         (unsigned)fget(cqc, ctx, c_eqn_or_apu_element),
                         log_size, uar, (unsigned)fget(cqc, ctx, cqe_sz));
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_PARAM, SYND_CQ_PARAM);
    }
    cq = g_new0(Mlx5Cq, 1);
    cq->hca = s;
    cq->log_size = log_size;
    cq->stride = MLX5_CQE_BYTES << fget(cqc, ctx, cqe_sz);
    cq->uar = uar;
    cq->dbr_addr = fget(cqc, ctx, dbr_addr);
    memcpy(cq->ctx, ctx, sizeof(cq->ctx));
    if (!cq_buffer_init(cq, &cq->buf, cmd, log_size)) {
        mlx5_cq_free(cq);
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_PARAM, SYND_CQ_PAGES);
    }
    if (!mlx5_table_add(&s->cqs, &cq->obj)) {
        mlx5_cq_free(cq);
        return mlx5_cmd_fail(cmd, MLX5_STATUS_NO_RES, SYND_CQ_NO_RES);
    }
    cq->eq = eq;
    eq->obj.refs++;
    fset(obj, cmd->out, id, cq->obj.id);
    trace_mlx5_cq_create(s->parent_obj.name, cq->obj.id, 1u << log_size,
                         eq->obj.id);
    return MLX5_STATUS_OK;
}

static Mlx5Status cmd_destroy_cq(Mlx5State *s, Mlx5Cmd *cmd)
{
    Mlx5Cq *cq = mlx5_table_get(&s->cqs, fget(obj, cmd->in, id));

    if (!cq) {
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_RES, SYND_CQ_ID);
    }
    if (cq->obj.refs) {
        mlx5_guest_error(s, "DESTROY_CQ 0x%x: QPs use it", cq->obj.id);
        return mlx5_cmd_fail(cmd, MLX5_STATUS_RES_BUSY, SYND_CQ_BUSY);
    }
    mlx5_table_remove(&s->cqs, cq->obj.id);
    return MLX5_STATUS_OK;
}

static Mlx5Status cmd_query_cq(Mlx5State *s, Mlx5Cmd *cmd)
{
    Mlx5Cq *cq = mlx5_table_get(&s->cqs, fget(obj, cmd->in, id));
    uint8_t *ctx = cmd->out + MLX5_CMD_CTX;

    if (!cq) {
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_RES, SYND_CQ_ID);
    }
    memcpy(ctx, cq->ctx, sizeof(cq->ctx));
    fset(cqc, ctx, st, cq->armed ? CQC_ST_ARMED : CQC_ST_FIRED);
    fset(cqc, ctx, producer_counter, cq->pi);
    fset(cqc, ctx, consumer_counter, cq->ci);
    return MLX5_STATUS_OK;
}

static void cq_fail(Mlx5State *s, Mlx5Cq *cq, unsigned status,
                    unsigned syndrome)
{
    uint8_t eqe[MLX5_EQE_BYTES] = { 0 };

    mlx5_guest_error(s, "CQ 0x%x fails: %s", cq->obj.id,
                     syndrome == CQ_ERROR_OVERRUN ? "overrun" :
                     "memory is unreachable");
    cq->error = true;
    fset(cqc, cq->ctx, status, status);
    fset(eqe, eqe, cq_error_cqn, cq->obj.id);
    fset(eqe, eqe, cq_error_syndrome, syndrome);
    mlx5_event_post(s, MLX5_EVENT_CQ_ERROR, 0, eqe);
}

static void cq_notify(Mlx5State *s, Mlx5Cq *cq)
{
    uint8_t eqe[MLX5_EQE_BYTES] = { 0 };

    cq->armed = false;
    fset(eqe, eqe, comp_cqn, cq->obj.id);
    mlx5_eq_post(s, cq->eq, MLX5_EVENT_COMP, 0, eqe);
}

/* Entries that software has not consumed, as far as the HCA knows. */
static uint32_t cq_used(const Mlx5Cq *cq)
{
    return (cq->pi - cq->ci) & CQ_INDEX_MASK;
}

static bool cq_read_ci(Mlx5State *s, Mlx5Cq *cq)
{
    uint32_t ci;

    if (!mlx5_dma_read_be32(s, cq->dbr_addr, &ci)) {
        cq_fail(s, cq, CQC_STATUS_WRITE_FAIL, CQ_ERROR_ACCESS);
        return false;
    }
    cq->ci = ci & CQ_INDEX_MASK;
    return true;
}

/* Write the next entry. With 128 bytes, it is in the second half of them. */
static bool cq_publish(Mlx5State *s, Mlx5Cq *cq, uint8_t *cqe)
{
    uint64_t index = cq->pi & ((1u << cq->log_size) - 1);

    fset(cqe, cqe, own, (cq->pi >> cq->log_size) & 1);
    trace_mlx5_cqe(s->parent_obj.name, cq->obj.id, cq->pi,
                   fget(cqe, cqe, opcode), fget(cqe, cqe, qpn),
                   fget(cqe, cqe, wqe_counter));
    if (!mlx5_buffer_publish(s, &cq->buf,
                             (index + 1) * cq->stride - MLX5_CQE_BYTES,
                             cqe, MLX5_CQE_BYTES)) {
        cq_fail(s, cq, CQC_STATUS_WRITE_FAIL, CQ_ERROR_ACCESS);
        return false;
    }
    cq->pi = (cq->pi + 1) & CQ_INDEX_MASK;
    return true;
}

bool mlx5_cq_post(Mlx5State *s, Mlx5Cq *cq, uint8_t *cqe, bool solicited)
{
    const uint32_t size = 1u << cq->log_size;
    unsigned opcode = fget(cqe, cqe, opcode);

    if (s->dma.stopped) {
        return true;
    }
    if (cq->error) {
        return false;
    }
    if (cq_used(cq) >= size && !fget(cqc, cq->ctx, oi)) {
        if (!cq_read_ci(s, cq)) {
            return false;
        }
        if (cq_used(cq) >= size) {
            cq_fail(s, cq, CQC_STATUS_OVERFLOW, CQ_ERROR_OVERRUN);
            return false;
        }
    }
    if (opcode != MLX5_CQE_REQ_ERR && opcode != MLX5_CQE_RESP_ERR) {
        fset(cqe, cqe, timestamp, qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL));
    }
    if (!cq_publish(s, cq, cqe)) {
        return false;
    }
    if (solicited) {
        cq->solicited_pi = cq->pi;
    }
    s->stats.completions++;
    if (cq->armed && (solicited || !cq->armed_solicited)) {
        cq_notify(s, cq);
    }
    return true;
}

/*
 * Move to another buffer. What software has not consumed stays in the old one,
 * for software to copy; an entry of its own kind follows, and is the last there
 * (mlx5_cq_resize_copy_cqes() of libmlx5).
 */
static Mlx5Status cmd_modify_cq(Mlx5State *s, Mlx5Cmd *cmd)
{
    const uint8_t *ctx = cmd->in + MLX5_CMD_CTX;
    uint32_t log_size = fget(cqc, ctx, log_cq_size);
    Mlx5Cq *cq = mlx5_table_get(&s->cqs, fget(obj, cmd->in, id));
    uint8_t cqe[MLX5_CQE_BYTES] = { 0 };
    Mlx5Buffer buf = { 0 };

    if (!cq) {
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_RES, SYND_CQ_ID);
    }
    if (fget(cmd, cmd->in, op_mod) != MODIFY_RESIZE) {
        mlx5_guest_error(s, "MODIFY_CQ 0x%x: op_mod %u is not modelled",
                         cq->obj.id, (unsigned)fget(cmd, cmd->in, op_mod));
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_OP, SYND_CQ_OP_MOD);
    }
    mlx5_layout_trace("MODIFY_CQ", &mlx5_layout_cqc, ctx);
    if (log_size > mlx5_cap_gen(s, log_max_cq_sz) ||
        fget(cqc, ctx, cqe_sz) != fget(cqc, cq->ctx, cqe_sz)) {
        mlx5_guest_error(s, "MODIFY_CQ 0x%x: log size %u, CQE size code %u",
                         cq->obj.id, log_size,
                         (unsigned)fget(cqc, ctx, cqe_sz));
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_PARAM, SYND_CQ_PARAM);
    }
    if (cq->error || !cq_read_ci(s, cq)) {
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_RES_STATE, SYND_CQ_STATE);
    }
    if (cq_used(cq) >= 1u << cq->log_size || cq_used(cq) > 1u << log_size) {
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_SIZE, SYND_CQ_SIZE);
    }
    if (!cq_buffer_init(cq, &buf, cmd, log_size)) {
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_PARAM, SYND_CQ_PAGES);
    }
    fset(cqe, cqe, opcode, MLX5_CQE_RESIZE_CQ);
    if (!cq_publish(s, cq, cqe)) {
        mlx5_buffer_fini(s, &buf);
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_RES_STATE, SYND_CQ_STATE);
    }
    mlx5_buffer_fini(s, &cq->buf);
    cq->buf = buf;
    cq->log_size = log_size;
    fset(cqc, cq->ctx, log_cq_size, log_size);
    fset(cqc, cq->ctx, log_page_size, fget(cqc, ctx, log_page_size));
    fset(cqc, cq->ctx, page_offset, fget(cqc, ctx, page_offset));
    trace_mlx5_cq_resize(s->parent_obj.name, cq->obj.id, 1u << log_size);
    return MLX5_STATUS_OK;
}

void mlx5_cq_doorbell(Mlx5State *s, uint32_t uar, const uint8_t *db)
{
    uint32_t cqn = fget(cq_doorbell, db, cqn);
    Mlx5Cq *cq = mlx5_table_get(&s->cqs, cqn);

    if (!cq || cq->uar != uar) {
        mlx5_guest_error(s, "CQ doorbell in UAR 0x%x for CQ 0x%x", uar, cqn);
        return;
    }
    cq->arm_value = ldl_be_p(db);
    if (!cq->arm_pending) {
        cq->arm_pending = true;
        QTAILQ_INSERT_TAIL(&s->arms, cq, arm_entry);
    }
}

/*
 * Arming a CQ that has entries which software has not seen fires at once:
 * mlx5_ib_arm_cq() and libmlx5 rely on it.
 */
void mlx5_cq_run_arms(Mlx5State *s)
{
    Mlx5Cq *cq;

    while ((cq = QTAILQ_FIRST(&s->arms))) {
        uint8_t db[4];
        uint32_t latest;

        QTAILQ_REMOVE(&s->arms, cq, arm_entry);
        cq->arm_pending = false;
        stl_be_p(db, cq->arm_value);
        cq->ci = fget(cq_doorbell, db, ci);
        cq->armed = true;
        cq->armed_solicited = fget(cq_doorbell, db, solicited);
        latest = cq->armed_solicited ? cq->solicited_pi : cq->pi;
        trace_mlx5_cq_arm(s->parent_obj.name, cq->obj.id, cq->ci, cq->pi,
                          cq->armed_solicited);
        /* Between ci and pi, that is: neither read nor long past. */
        if (((latest - cq->ci - 1) & CQ_INDEX_MASK) < 1u << cq->log_size) {
            cq_notify(s, cq);
        }
    }
}

const Mlx5CmdDesc mlx5_cmds_cq[] = {
    { MLX5_OP_CREATE_CQ, "CREATE_CQ", MLX5_PHASE_INITIALIZED,
      MLX5_CMD_PAS, 0x10, cmd_create_cq },
    { MLX5_OP_DESTROY_CQ, "DESTROY_CQ", MLX5_PHASE_INITIALIZED,
      0x10, 0x10, cmd_destroy_cq },
    { MLX5_OP_QUERY_CQ, "QUERY_CQ", MLX5_PHASE_INITIALIZED,
      0x10, MLX5_CMD_PAS, cmd_query_cq },
    { MLX5_OP_MODIFY_CQ, "MODIFY_CQ", MLX5_PHASE_INITIALIZED,
      MLX5_CMD_PAS, 0x10, cmd_modify_cq },
    { }
};
