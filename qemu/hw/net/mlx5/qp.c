/*
 * mlx5 HCA: queue pairs, their context and state machine
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/log.h"
#include "qemu/timer.h"
#include "mlx5.h"
#include "trace.h"

enum {
    QPC_PRIMARY_PATH = 0x18,
    RQ_STRIDE_SHIFT = 4,
    QP_EVENT_TYPE_QP = 0,
    QPN_ANY_STATE = 0xff,
    SYND_QP_PARAM = 0x250001,
    SYND_QP_PAGES = 0x250002,
    SYND_QP_NO_RES = 0x250003,
    SYND_QP_ID = 0x250004,
    SYND_QP_BUSY = 0x250005,
    SYND_QP_STATE = 0x250006,
};

/*
 * What a state transition takes from its QP context: the driver sends a
 * context with zeros in everything else (Linux infiniband/hw/mlx5/qp.c,
 * __mlx5_ib_modify_qp() and opt_mask).
 */
typedef struct QpField {
    const Mlx5Field *field;
    uint8_t base;           /* of the structure that holds the field */
    uint32_t opt;           /* opt_param_mask bit, 0: always taken */
} QpField;

#define QPC(name_, opt_) { MLX5_FIELD(qpc, name_), 0, opt_ }
#define PATH(name_, opt_) { MLX5_FIELD(ads, name_), QPC_PRIMARY_PATH, opt_ }

static const QpField rst2init_fields[] = {
    QPC(pd, 0),
    QPC(rre, 0),
    QPC(rwe, 0),
    QPC(rae, 0),
    QPC(atomic_mode, 0),
    QPC(q_key, 0),
    QPC(rlky, 0),
    QPC(pm_state, 0),
    PATH(pkey_index, 0),
    PATH(vhca_port_num, 0),
    { }
};

static const QpField init2init_fields[] = {
    QPC(rre, MLX5_QP_OPT_RRE),
    QPC(rae, MLX5_QP_OPT_RAE),
    QPC(atomic_mode, MLX5_QP_OPT_RAE),
    QPC(rwe, MLX5_QP_OPT_RWE),
    QPC(q_key, MLX5_QP_OPT_QKEY),
    PATH(pkey_index, MLX5_QP_OPT_PKEY),
    PATH(vhca_port_num, MLX5_QP_OPT_PORT),
    { }
};

static const QpField init2rtr_fields[] = {
    QPC(mtu, 0),
    QPC(log_msg_max, 0),
    QPC(remote_qpn, 0),
    QPC(next_rcv_psn, 0),
    QPC(log_rra_max, 0),
    QPC(min_rnr_nak, 0),
    PATH(grh, 0),
    PATH(mlid, 0),
    PATH(rlid, 0),
    PATH(src_addr_index, 0),
    PATH(stat_rate, 0),
    PATH(hop_limit, 0),
    PATH(tclass, 0),
    PATH(flow_label, 0),
    PATH(rgid_high, 0),
    PATH(rgid_low, 0),
    PATH(sl, 0),
    QPC(rre, MLX5_QP_OPT_RRE),
    QPC(rae, MLX5_QP_OPT_RAE),
    QPC(atomic_mode, MLX5_QP_OPT_RAE),
    QPC(rwe, MLX5_QP_OPT_RWE),
    QPC(q_key, MLX5_QP_OPT_QKEY),
    PATH(pkey_index, MLX5_QP_OPT_PKEY),
    { }
};

static const QpField rtr2rts_fields[] = {
    QPC(next_send_psn, 0),
    QPC(retry_count, 0),
    QPC(rnr_retry, 0),
    QPC(log_sra_max, 0),
    /* The rest of the path is zero in this command. */
    PATH(ack_timeout, 0),
    QPC(rre, MLX5_QP_OPT_RRE),
    QPC(rae, MLX5_QP_OPT_RAE),
    QPC(atomic_mode, MLX5_QP_OPT_RAE),
    QPC(rwe, MLX5_QP_OPT_RWE),
    QPC(min_rnr_nak, MLX5_QP_OPT_RNR_TIMEOUT),
    QPC(q_key, MLX5_QP_OPT_QKEY),
    { }
};

static const QpField rts2rts_fields[] = {
    QPC(rre, MLX5_QP_OPT_RRE),
    QPC(rae, MLX5_QP_OPT_RAE),
    QPC(atomic_mode, MLX5_QP_OPT_RAE),
    QPC(rwe, MLX5_QP_OPT_RWE),
    QPC(min_rnr_nak, MLX5_QP_OPT_RNR_TIMEOUT),
    QPC(q_key, MLX5_QP_OPT_QKEY),
    PATH(pkey_index, MLX5_QP_OPT_PKEY),
    { }
};

static const QpField no_fields[] = {
    { }
};

typedef struct QpTransition {
    uint16_t opcode;
    uint8_t from;           /* QPN_ANY_STATE: all */
    Mlx5QpState to;
    const QpField *fields;
} QpTransition;

static const QpTransition transitions[] = {
    { MLX5_OP_RST2INIT_QP, MLX5_QP_RST, MLX5_QP_INIT, rst2init_fields },
    { MLX5_OP_INIT2INIT_QP, MLX5_QP_INIT, MLX5_QP_INIT, init2init_fields },
    { MLX5_OP_INIT2RTR_QP, MLX5_QP_INIT, MLX5_QP_RTR, init2rtr_fields },
    { MLX5_OP_RTR2RTS_QP, MLX5_QP_RTR, MLX5_QP_RTS, rtr2rts_fields },
    { MLX5_OP_RTS2RTS_QP, MLX5_QP_RTS, MLX5_QP_RTS, rts2rts_fields },
    { MLX5_OP_SQERR2RTS_QP, MLX5_QP_SQER, MLX5_QP_RTS, rts2rts_fields },
    { MLX5_OP_2ERR_QP, QPN_ANY_STATE, MLX5_QP_ERR, no_fields },
    { MLX5_OP_2RST_QP, QPN_ANY_STATE, MLX5_QP_RST, no_fields },
};

const uint8_t *mlx5_qp_path(const Mlx5Qp *qp)
{
    return qp->ctx + QPC_PRIMARY_PATH;
}

static void qp_timer(void *opaque)
{
    Mlx5Qp *qp = opaque;

    mlx5_qp_kick(qp);
}

static void qp_queue(Mlx5Qp *qp)
{
    if (!qp->queued) {
        qp->queued = true;
        QTAILQ_INSERT_TAIL(&qp->hca->work, qp, work_entry);
    }
}

void mlx5_qp_kick(Mlx5Qp *qp)
{
    qp_queue(qp);
    mlx5_schedule(qp->hca);
}

void mlx5_qp_free(gpointer opaque)
{
    Mlx5Qp *qp = opaque;

    mlx5_requester_abort(qp);
    mlx5_odp_peer_left(qp);
    if (qp->queued) {
        QTAILQ_REMOVE(&qp->hca->work, qp, work_entry);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(qp->hca->management); i++) {
        if (qp->hca->management[i] == qp) {
            qp->hca->management[i] = NULL;
        }
    }
    timer_free(qp->timer);
    if (qp->send_cq) {
        qp->send_cq->obj.refs--;
    }
    if (qp->recv_cq) {
        qp->recv_cq->obj.refs--;
    }
    if (qp->srq) {
        qp->srq->obj.refs--;
    }
    mlx5_buffer_fini(qp->hca, &qp->buf);
    mlx5_context_uncharge(qp->hca, sizeof(*qp));
    g_free(qp);
}

static bool service_known(unsigned service)
{
    switch (service) {
    case MLX5_ST_RC:
    case MLX5_ST_UC:
    case MLX5_ST_UD:
    case MLX5_ST_XRC:
    case MLX5_ST_QP0:
    case MLX5_ST_QP1:
    case MLX5_ST_REG_UMR:
        return true;
    default:
        return false;
    }
}

static bool qp_set_cq(Mlx5State *s, uint32_t cqn, Mlx5Cq **cq)
{
    *cq = mlx5_table_get(&s->cqs, cqn);
    if (*cq) {
        (*cq)->obj.refs++;
    }
    /* 0 is for queues that complete nothing. */
    return *cq || !cqn;
}

static Mlx5Status cmd_create_qp(Mlx5State *s, Mlx5Cmd *cmd)
{
    static uint64_t serial;
    const uint8_t *ctx = cmd->in + MLX5_CMD_QPC;
    unsigned service = fget(qpc, ctx, st);
    unsigned rq_type = fget(qpc, ctx, rq_type);
    uint32_t uar = fget(qpc, ctx, uar_page);
    uint64_t rq_bytes = 0, sq_bytes = 0;
    Mlx5Qp *qp;

    mlx5_layout_trace("CREATE_QP", &mlx5_layout_qpc, ctx);
    /* Only send queues have a doorbell; an XRC target names no UAR. */
    if (!service_known(service) || fget(qpc, ctx, dbr_addr) & 7 ||
        (!fget(qpc, ctx, no_sq) && !mlx5_table_get(&s->uars, uar))) {
        mlx5_guest_error(s, "CREATE_QP: service 0x%x, UAR 0x%x", service,
                         uar);
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_PARAM, SYND_QP_PARAM);
    }
    if (!mlx5_context_charge(s, sizeof(*qp))) {
        return mlx5_cmd_fail(cmd, MLX5_STATUS_LIMIT, SYND_QP_NO_RES);
    }
    qp = g_new0(Mlx5Qp, 1);
    qp->hca = s;
    qp->serial = ++serial;
    qp->service = service;
    qp->uar = uar;
    qp->timer = timer_new_ns(QEMU_CLOCK_VIRTUAL, qp_timer, qp);
    memcpy(qp->ctx, ctx, sizeof(qp->ctx));
    fset(qpc, qp->ctx, state, MLX5_QP_RST);

    if (rq_type == MLX5_RQ_OWN) {
        qp->has_rq = true;
        qp->rq_wqes = 1u << fget(qpc, ctx, log_rq_size);
        qp->rq_stride = 1u << (fget(qpc, ctx, log_rq_stride) +
                               RQ_STRIDE_SHIFT);
        rq_bytes = (uint64_t)qp->rq_wqes * qp->rq_stride;
    } else if (rq_type == MLX5_RQ_SRQ) {
        qp->srq = mlx5_srq_find(s, fget(qpc, ctx, srqn_rmpn_xrqn));
        if (!qp->srq) {
            goto bad_param;
        }
        qp->srq->obj.refs++;
    }
    if (!fget(qpc, ctx, no_sq)) {
        qp->has_sq = true;
        qp->sq_wqebbs = 1u << fget(qpc, ctx, log_sq_size);
        qp->sq_offset = rq_bytes;
        sq_bytes = (uint64_t)qp->sq_wqebbs * MLX5_WQEBB;
    }
    if (!qp_set_cq(s, fget(qpc, ctx, cqn_snd), &qp->send_cq) ||
        !qp_set_cq(s, fget(qpc, ctx, cqn_rcv), &qp->recv_cq)) {
        goto bad_param;
    }
    if (rq_bytes + sq_bytes &&
        !mlx5_buffer_init(s, &qp->buf, cmd->in + MLX5_CMD_PAS,
                          cmd->in_len - MLX5_CMD_PAS,
                          fget(qpc, ctx, log_page_size) + 12,
                          fget(qpc, ctx, page_offset),
                          rq_bytes + sq_bytes)) {
        mlx5_qp_free(qp);
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_PARAM, SYND_QP_PAGES);
    }
    if (!mlx5_table_add(&s->qps, &qp->obj)) {
        mlx5_qp_free(qp);
        return mlx5_cmd_fail(cmd, MLX5_STATUS_NO_RES, SYND_QP_NO_RES);
    }
    if (service == MLX5_ST_QP0 || service == MLX5_ST_QP1) {
        s->management[service == MLX5_ST_QP1] = qp;
    }
    fset(obj, cmd->out, id, qp->obj.id);
    trace_mlx5_qp_create(s->parent_obj.name, qp->obj.id, service,
                         qp->sq_wqebbs, qp->rq_wqes);
    return MLX5_STATUS_OK;

bad_param:
    mlx5_guest_error(s, "CREATE_QP: CQ 0x%x, CQ 0x%x or SRQ 0x%x",
                     (unsigned)fget(qpc, ctx, cqn_snd),
                     (unsigned)fget(qpc, ctx, cqn_rcv),
                     (unsigned)fget(qpc, ctx, srqn_rmpn_xrqn));
    mlx5_qp_free(qp);
    return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_PARAM, SYND_QP_PARAM);
}

static Mlx5Status cmd_destroy_qp(Mlx5State *s, Mlx5Cmd *cmd)
{
    Mlx5Qp *qp = mlx5_table_get(&s->qps, fget(obj, cmd->in, id));

    if (!qp) {
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_RES, SYND_QP_ID);
    }
    trace_mlx5_qp_destroy(s->parent_obj.name, qp->obj.id);
    mlx5_table_remove(&s->qps, qp->obj.id);
    return MLX5_STATUS_OK;
}

bool mlx5_qp_receives(const Mlx5Qp *qp)
{
    return qp->state == MLX5_QP_RTR || qp->state == MLX5_QP_RTS ||
           qp->state == MLX5_QP_SQD || qp->state == MLX5_QP_SQER;
}

static void qp_set_state(Mlx5Qp *qp, Mlx5QpState state)
{
    trace_mlx5_qp_state(qp->hca->parent_obj.name, qp->obj.id, qp->state,
                        state);
    /* An XRC target takes nothing from the SRQ it was created with. */
    qp->last_wqe = state == MLX5_QP_ERR && qp->srq &&
                   qp->service != MLX5_ST_XRC &&
                   (qp->last_wqe || mlx5_qp_receives(qp));
    qp->state = state;
    qp->flush_period = 0;
    fset(qpc, qp->ctx, state, state);
    if (!mlx5_qp_receives(qp)) {
        mlx5_odp_peer_left(qp);
    }
}

void mlx5_qp_to_error(Mlx5Qp *qp)
{
    if (qp->state != MLX5_QP_ERR) {
        qp_set_state(qp, MLX5_QP_ERR);
        mlx5_qp_kick(qp);
    }
}

void mlx5_qp_to_send_error(Mlx5Qp *qp)
{
    if (qp->state == MLX5_QP_RTS) {
        qp_set_state(qp, MLX5_QP_SQER);
        mlx5_qp_kick(qp);
    }
}

/* Forget everything posted; the driver cleans its CQs itself. */
static void qp_reset(Mlx5Qp *qp)
{
    mlx5_requester_abort(qp);
    qp->sq_ci = qp->sq_pi = qp->rq_ci = 0;
    fset(qpc, qp->ctx, next_send_psn, 0);
    fset(qpc, qp->ctx, next_rcv_psn, 0);
    qp->recv.valid = false;
    qp->recv.srq = NULL;
}

static void qp_take_fields(Mlx5Qp *qp, const QpField *f, const uint8_t *ctx,
                           uint32_t opt)
{
    for (; f->field; f++) {
        if (!f->opt || f->opt & opt) {
            mlx5_field_set(qp->ctx + f->base, f->field,
                           mlx5_field_get(ctx + f->base, f->field));
        }
    }
}

static Mlx5Status cmd_modify_qp(Mlx5State *s, Mlx5Cmd *cmd)
{
    Mlx5Qp *qp = mlx5_table_get(&s->qps, fget(obj, cmd->in, id));
    unsigned opcode = fget(cmd, cmd->in, opcode);
    const QpTransition *t = transitions;

    if (!qp) {
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_RES, SYND_QP_ID);
    }
    while (t->opcode != opcode) {
        t++;
    }
    if (t->from != QPN_ANY_STATE && t->from != qp->state) {
        mlx5_guest_error(s, "QP 0x%x: command 0x%x in state %u", qp->obj.id,
                         opcode, qp->state);
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_QP_STATE, SYND_QP_STATE);
    }
    if (t->fields->field) {
        mlx5_layout_trace("MODIFY_QP", &mlx5_layout_qpc,
                          cmd->in + MLX5_CMD_QPC);
        mlx5_layout_trace("MODIFY_QP", &mlx5_layout_ads,
                          cmd->in + MLX5_CMD_QPC + QPC_PRIMARY_PATH);
    }
    qp_take_fields(qp, t->fields, cmd->in + MLX5_CMD_QPC,
                   fget(create_qp_in, cmd->in, opt_param_mask));
    if (t->to == MLX5_QP_RST) {
        qp_reset(qp);
    }
    qp_set_state(qp, t->to);
    /* There may be something to send, or to flush. */
    mlx5_qp_kick(qp);
    return MLX5_STATUS_OK;
}

static Mlx5Status cmd_query_qp(Mlx5State *s, Mlx5Cmd *cmd)
{
    Mlx5Qp *qp = mlx5_table_get(&s->qps, fget(obj, cmd->in, id));
    uint8_t *ctx = cmd->out + MLX5_CMD_QPC;

    if (!qp) {
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_RES, SYND_QP_ID);
    }
    memcpy(ctx, qp->ctx, sizeof(qp->ctx));
    fset(qpc, ctx, hw_sq_wqebb_counter, qp->sq_ci);
    fset(qpc, ctx, sw_sq_wqebb_counter, qp->sq_pi);
    fset(qpc, ctx, hw_rq_counter, qp->rq_ci);
    return MLX5_STATUS_OK;
}

void mlx5_qp_doorbell(Mlx5State *s, uint32_t uar, uint32_t qpn)
{
    Mlx5Qp *qp = mlx5_table_get(&s->qps, qpn);

    s->stats.doorbells++;
    if (!qp || qp->uar != uar) {
        mlx5_guest_error(s, "send doorbell in UAR 0x%x for QP 0x%x", uar,
                         qpn);
        return;
    }
    trace_mlx5_qp_doorbell(s->parent_obj.name, qpn);
    qp_queue(qp);
}

void mlx5_qp_event(Mlx5Qp *qp, Mlx5Event event)
{
    uint8_t eqe[MLX5_EQE_BYTES] = { 0 };

    fset(eqe, eqe, qp_srq_type, QP_EVENT_TYPE_QP);
    fset(eqe, eqe, qp_srq_id, qp->obj.id);
    mlx5_event_post(qp->hca, event, 0, eqe);
}

bool mlx5_qp_cq_post(Mlx5Qp *qp, Mlx5Cq *cq, uint8_t *cqe, bool solicited)
{
    if (mlx5_cq_post(qp->hca, cq, cqe, solicited)) {
        return true;
    }
    /* What nobody is told of must not look as if it had been done. */
    if (qp->state != MLX5_QP_ERR) {
        mlx5_qp_event(qp, MLX5_EVENT_WQ_CATAS_ERROR);
        mlx5_qp_to_error(qp);
    }
    return false;
}

void mlx5_qp_send_cqe(Mlx5Qp *qp, unsigned opcode, uint32_t index,
                      uint32_t len, Mlx5Syndrome syndrome, bool solicited)
{
    uint8_t cqe[MLX5_CQE_BYTES] = { 0 };

    if (!qp->send_cq) {
        return;
    }
    if (syndrome == MLX5_SYND_OK) {
        fset(cqe, cqe, byte_count, len);
        fset(cqe, cqe, opcode, MLX5_CQE_REQ);
    } else {
        fset(cqe, cqe, syndrome, syndrome);
        fset(cqe, cqe, opcode, MLX5_CQE_REQ_ERR);
    }
    fset(cqe, cqe, wqe_opcode, opcode);
    fset(cqe, cqe, qpn, qp->obj.id);
    fset(cqe, cqe, wqe_counter, index);
    mlx5_qp_cq_post(qp, qp->send_cq, cqe,
                    solicited || syndrome != MLX5_SYND_OK);
}

Mlx5Cq *mlx5_qp_recv_cq(Mlx5Qp *qp, Mlx5Srq *srq)
{
    return srq && qp->service == MLX5_ST_XRC ? srq->cq : qp->recv_cq;
}

void mlx5_qp_recv_error(Mlx5Qp *qp, Mlx5Srq *srq, uint32_t index,
                        Mlx5Syndrome syndrome)
{
    uint8_t cqe[MLX5_CQE_BYTES] = { 0 };
    Mlx5Cq *cq = mlx5_qp_recv_cq(qp, srq);

    if (!cq) {
        return;
    }
    fset(cqe, cqe, syndrome, syndrome);
    fset(cqe, cqe, opcode, MLX5_CQE_RESP_ERR);
    fset(cqe, cqe, qpn, qp->obj.id);
    fset(cqe, cqe, wqe_counter, index);
    if (srq) {
        fset(cqe, cqe, srqn, srq->obj.id);
    }
    mlx5_qp_cq_post(qp, cq, cqe, true);
}

const Mlx5CmdDesc mlx5_cmds_qp[] = {
    { MLX5_OP_CREATE_QP, "CREATE_QP", MLX5_PHASE_INITIALIZED,
      MLX5_CMD_PAS, 0x10, cmd_create_qp },
    { MLX5_OP_DESTROY_QP, "DESTROY_QP", MLX5_PHASE_INITIALIZED,
      0x10, 0x10, cmd_destroy_qp },
    { MLX5_OP_RST2INIT_QP, "RST2INIT_QP", MLX5_PHASE_INITIALIZED,
      MLX5_CMD_PAS, 0x10, cmd_modify_qp },
    { MLX5_OP_INIT2INIT_QP, "INIT2INIT_QP", MLX5_PHASE_INITIALIZED,
      MLX5_CMD_PAS, 0x10, cmd_modify_qp },
    { MLX5_OP_INIT2RTR_QP, "INIT2RTR_QP", MLX5_PHASE_INITIALIZED,
      MLX5_CMD_PAS, 0x10, cmd_modify_qp },
    { MLX5_OP_RTR2RTS_QP, "RTR2RTS_QP", MLX5_PHASE_INITIALIZED,
      MLX5_CMD_PAS, 0x10, cmd_modify_qp },
    { MLX5_OP_RTS2RTS_QP, "RTS2RTS_QP", MLX5_PHASE_INITIALIZED,
      MLX5_CMD_PAS, 0x10, cmd_modify_qp },
    { MLX5_OP_SQERR2RTS_QP, "SQERR2RTS_QP", MLX5_PHASE_INITIALIZED,
      MLX5_CMD_PAS, 0x10, cmd_modify_qp },
    { MLX5_OP_2ERR_QP, "2ERR_QP", MLX5_PHASE_INITIALIZED,
      0x10, 0x10, cmd_modify_qp },
    { MLX5_OP_2RST_QP, "2RST_QP", MLX5_PHASE_INITIALIZED,
      0x10, 0x10, cmd_modify_qp },
    { MLX5_OP_QUERY_QP, "QUERY_QP", MLX5_PHASE_INITIALIZED,
      0x10, MLX5_CMD_PAS, cmd_query_qp },
    { }
};
