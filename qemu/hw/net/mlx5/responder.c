/*
 * mlx5 HCA: the receiving side of queue pairs
 *
 * Receive requests are posted without an MMIO write: a doorbell record in
 * memory counts them, and is read whenever one is needed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/log.h"
#include "mlx5.h"
#include "trace.h"

enum {
    DBR_RECV = 0,
    SRQ_NEXT_INDEX = 2,
    SRQ_LIST_SEG = 16,
    EVENT_RES_SRQ = 5,
};

/* Number of posted requests that were not taken; false on a bad record. */
static bool posted(Mlx5State *s, uint64_t dbr_addr, uint16_t taken,
                   uint32_t size, uint16_t *num)
{
    uint32_t counter;

    if (!mlx5_dma_read_be32(s, dbr_addr + DBR_RECV, &counter)) {
        return false;
    }
    /* The requests were written before the record. */
    smp_rmb();
    *num = counter - taken;
    return *num <= size;
}

static void recv_parse(Mlx5Recv *recv, const uint8_t *seg, uint32_t len)
{
    recv->num_sge = 0;
    recv->len = 0;
    for (; len >= MLX5_SEG_BYTES; seg += MLX5_SEG_BYTES,
                                  len -= MLX5_SEG_BYTES) {
        Mlx5Sge sge = {
            .key = fget(wqe_data, seg, lkey),
            .len = fget(wqe_data, seg, byte_count),
            .addr = fget(wqe_data, seg, addr),
        };

        if (sge.key == MLX5_SEG_TERMINATOR) {
            break;
        }
        if (sge.len) {
            recv->sge[recv->num_sge++] = sge;
            recv->len += sge.len;
        }
    }
}

static void srq_limit_event(Mlx5Srq *srq)
{
    uint8_t eqe[MLX5_EQE_BYTES] = { 0 };

    srq->lwm = 0;
    fset(eqe, eqe, qp_srq_type, EVENT_RES_SRQ);
    fset(eqe, eqe, qp_srq_id, srq->obj.id);
    mlx5_event_post(srq->hca, MLX5_EVENT_SRQ_LIMIT, 0, eqe);
}

static Mlx5Take take_srq(Mlx5Srq *srq, Mlx5Recv *recv)
{
    uint8_t wqe[MLX5_MAX_RQ_WQE];
    uint32_t len = MIN(srq->stride, sizeof(wqe));
    uint16_t num;

    if (!posted(srq->hca, srq->dbr_addr, srq->taken, srq->num_wqes, &num)) {
        return MLX5_TAKE_ERROR;
    }
    if (!num) {
        return MLX5_TAKE_EMPTY;
    }
    if (!mlx5_buffer_read(srq->hca, &srq->buf,
                          (uint64_t)srq->head * srq->stride, wqe, len)) {
        return MLX5_TAKE_ERROR;
    }
    recv_parse(recv, wqe + SRQ_LIST_SEG, len - SRQ_LIST_SEG);
    recv->index = srq->head;
    srq->taken++;
    srq->head = lduw_be_p(wqe + SRQ_NEXT_INDEX) & (srq->num_wqes - 1);
    if (num - 1 < srq->lwm) {
        srq_limit_event(srq);
    }
    return MLX5_TAKE_OK;
}

static Mlx5Take take_own(Mlx5Qp *qp, Mlx5Recv *recv)
{
    uint8_t wqe[MLX5_MAX_RQ_WQE];
    uint32_t len = MIN(qp->rq_stride, sizeof(wqe));
    uint16_t num;

    if (!posted(qp->hca, fget(qpc, qp->ctx, dbr_addr), qp->rq_ci,
                qp->rq_wqes, &num)) {
        return MLX5_TAKE_ERROR;
    }
    if (!num) {
        return MLX5_TAKE_EMPTY;
    }
    if (!mlx5_buffer_read(qp->hca, &qp->buf,
                          (uint64_t)(qp->rq_ci & (qp->rq_wqes - 1)) *
                          qp->rq_stride, wqe, len)) {
        return MLX5_TAKE_ERROR;
    }
    recv_parse(recv, wqe, len);
    recv->index = qp->rq_ci++;
    return MLX5_TAKE_OK;
}

Mlx5Take mlx5_responder_take(Mlx5Qp *qp, Mlx5Srq *srq)
{
    Mlx5Take take = MLX5_TAKE_EMPTY;

    if (qp->recv.valid) {
        return MLX5_TAKE_OK;
    }
    qp->recv.srq = srq;
    if (srq) {
        take = take_srq(srq, &qp->recv);
    } else if (qp->has_rq) {
        take = take_own(qp, &qp->recv);
    }
    if (take == MLX5_TAKE_ERROR) {
        mlx5_guest_error(qp->hca, "QP 0x%x: bad receive queue", qp->obj.id);
    }
    qp->recv.valid = take == MLX5_TAKE_OK;
    trace_mlx5_recv_take(qp->hca->parent_obj.name, qp->obj.id, take,
                         qp->recv.index, qp->recv.len);
    return take;
}

bool mlx5_responder_complete(Mlx5Qp *qp, const Mlx5RecvInfo *info)
{
    uint8_t cqe[MLX5_CQE_BYTES] = { 0 };
    Mlx5Cq *cq = mlx5_qp_recv_cq(qp, qp->recv.srq);

    qp->recv.valid = false;
    if (!cq) {
        return true;
    }
    fset(cqe, cqe, slid, info->slid);
    fset(cqe, cqe, rqpn, info->source_qpn);
    fset(cqe, cqe, sl, info->sl);
    fset(cqe, cqe, grh, info->grh);
    fset(cqe, cqe, immediate, info->imm);
    fset(cqe, cqe, byte_count, info->len);
    fset(cqe, cqe, qpn, qp->obj.id);
    fset(cqe, cqe, wqe_counter, qp->recv.index);
    fset(cqe, cqe, opcode, info->opcode);
    if (qp->recv.srq) {
        fset(cqe, cqe, srqn, qp->recv.srq->obj.id);
    }
    return mlx5_qp_cq_post(qp, cq, cqe, info->solicited);
}

void mlx5_responder_fail(Mlx5Qp *qp, Mlx5Syndrome syndrome, Mlx5Event event)
{
    if (qp->recv.valid) {
        qp->recv.valid = false;
        mlx5_qp_recv_error(qp, qp->recv.srq, qp->recv.index, syndrome);
    }
    if (event != MLX5_EVENT_COMP) {
        mlx5_qp_event(qp, event);
    }
    mlx5_qp_to_error(qp);
}

bool mlx5_responder_flush(Mlx5Qp *qp, unsigned max, unsigned *flushed)
{
    if (qp->recv.valid) {
        qp->recv.valid = false;
        mlx5_qp_recv_error(qp, qp->recv.srq, qp->recv.index,
                           MLX5_SYND_WR_FLUSH);
    }
    if (qp->last_wqe) {
        qp->last_wqe = false;
        mlx5_qp_event(qp, MLX5_EVENT_SRQ_LAST_WQE);
    }
    if (!qp->has_rq || !qp->recv_cq) {
        return false;
    }
    for (unsigned i = 0; i < max; i++) {
        uint16_t num;

        if (!posted(qp->hca, fget(qpc, qp->ctx, dbr_addr), qp->rq_ci,
                    qp->rq_wqes, &num) || !num) {
            return false;
        }
        mlx5_qp_recv_error(qp, NULL, qp->rq_ci++, MLX5_SYND_WR_FLUSH);
        ++*flushed;
    }
    return true;
}

void mlx5_responder_forget(Mlx5State *s, const Mlx5Srq *srq)
{
    GHashTableIter it;
    gpointer value;

    g_hash_table_iter_init(&it, s->qps.objs);
    while (g_hash_table_iter_next(&it, NULL, &value)) {
        Mlx5Qp *qp = value;

        if (qp->recv.srq == srq) {
            qp->recv.valid = false;
            qp->recv.srq = NULL;
        }
    }
}

Mlx5Qp *mlx5_responder_find(Mlx5Qp *from)
{
    Mlx5State *hca = mlx5_fabric_find(from->hca,
                                      fget(ads, mlx5_qp_path(from), rlid));
    Mlx5Qp *qp;

    if (!hca) {
        return NULL;
    }
    qp = mlx5_table_get(&hca->qps, fget(qpc, from->ctx, remote_qpn));
    if (!qp || qp->service != from->service || !mlx5_qp_receives(qp) ||
        fget(qpc, qp->ctx, remote_qpn) != from->obj.id ||
        fget(ads, mlx5_qp_path(qp), rlid) != from->hca->lid) {
        return NULL;
    }
    /* The first packet of an unreliable message resynchronises. */
    if (from->service != MLX5_ST_UC &&
        fget(qpc, qp->ctx, next_rcv_psn) !=
        fget(qpc, from->ctx, next_send_psn)) {
        return NULL;
    }
    return qp;
}

Mlx5Qp *mlx5_responder_find_datagram(Mlx5Qp *from, uint16_t lid,
                                     uint32_t qpn)
{
    Mlx5State *hca = mlx5_fabric_find(from->hca, lid);
    Mlx5Qp *qp;

    if (!hca) {
        return NULL;
    }
    /* The management QPs have a number of their own inside the device. */
    qp = qpn < ARRAY_SIZE(hca->management) ? hca->management[qpn] :
         mlx5_table_get(&hca->qps, qpn);
    return qp && mlx5_qp_receives(qp) &&
           (qpn < ARRAY_SIZE(hca->management) ||
            qp->service == MLX5_ST_UD) ? qp : NULL;
}
