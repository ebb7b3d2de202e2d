/*
 * mlx5 HCA: page faults
 *
 * A request that meets an absent translation is suspended; an event tells the
 * driver, which fills the translation through UMR and resumes the request by
 * its token (Linux infiniband/hw/mlx5/odp.c).  In the memory scheme the event
 * names the mkey, the address and the number of pages.  In the transport
 * scheme it names the work request, which the driver reads from the queue, or
 * the key and range of the RDMA operation, and how many bytes are done.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/log.h"
#include "mlx5.h"
#include "trace.h"

enum {
    PF_SUB_TYPE_WQE = 0,
    PF_SUB_TYPE_RDMA = 1,
    PF_SUB_TYPE_MEMORY = 2,
    /* Whose request it is, transport scheme. */
    PF_TYPE_SRQ = 0,
    PF_TYPE_SEND_WRITE = 1,
    PF_TYPE_RESPONDER = 2,
    PF_TYPE_READ_ATOMIC = 3,
    PF_FLAG_LAST = 1 << 7,
    PF_PAGE_SHIFT = 12,
    PF_MAX_POST_PAGES = 256,
    /* The driver's event queue has room for more. */
    PF_MAX_PENDING = 2048,
    PF_PACKET_BYTES = 4096,
};

#define PF_TOKEN_MASK           0xffffffffffffull
#define PF_TRANSPORT_TOKEN_MASK 0xffffffull

static unsigned memory_event(const Mlx5Fault *fault, uint64_t token,
                             uint8_t *eqe)
{
    const uint64_t first = fault->va >> PF_PAGE_SHIFT;
    const uint64_t last = (fault->va + MAX(fault->len, 1) - 1) >>
                          PF_PAGE_SHIFT;

    /*
     * The driver resolves one page if it cannot get all; a demand range in
     * the middle of a page would spill into the next one.
     */
    fset(eqe, eqe, pf_flags, PF_FLAG_LAST);
    fset(eqe, eqe, pf_post_pages, MIN(last - first, PF_MAX_POST_PAGES));
    fset(eqe, eqe, pf_token_47_32, token >> 32);
    fset(eqe, eqe, pf_token_31_0, token);
    fset(eqe, eqe, pf_demand_pages, 1);
    fset(eqe, eqe, pf_mkey, fault->key);
    fset(eqe, eqe, pf_va, first << PF_PAGE_SHIFT);
    return PF_SUB_TYPE_MEMORY;
}

static unsigned transport_event(const Mlx5PendingFault *pending, uint8_t *eqe)
{
    const Mlx5Qp *qp = pending->qp, *peer = pending->peer;
    const uint64_t token = pending->token;
    const bool remote = pending->remote;
    const Mlx5Send *send = &qp->send;
    const bool reads = send->opcode == MLX5_WQE_READ || send->atomic;
    const uint32_t committed = send->started ? send->len - send->left : 0;
    const uint32_t packet = MIN(send->len - committed, PF_PACKET_BYTES);

    fset(eqe, eqe, pf_committed, committed);
    if (remote && send->raddr) {
        fset(eqe, eqe, pf_rdma_key, send->remote_sge.key);
        fset(eqe, eqe, pf_rdma_packet_length, packet);
        fset(eqe, eqe, pf_rdma_length, send->len);
        fset(eqe, eqe, pf_rdma_va, send->remote_sge.addr);
        fset(eqe, eqe, pf_type, PF_TYPE_RESPONDER);
        fset(eqe, eqe, pf_number, token);
        return PF_SUB_TYPE_RDMA;
    }
    fset(eqe, eqe, pf_wqe_packet_length, packet);
    fset(eqe, eqe, pf_wqe_token, token);
    if (!remote) {
        fset(eqe, eqe, pf_wqe_index, qp->sq_ci);
        fset(eqe, eqe, pf_type, reads ? PF_TYPE_READ_ATOMIC :
                                        PF_TYPE_SEND_WRITE);
        fset(eqe, eqe, pf_number, qp->obj.id);
        return PF_SUB_TYPE_WQE;
    }
    fset(eqe, eqe, pf_wqe_index, peer->recv.index);
    fset(eqe, eqe, pf_type, peer->recv.srq ? PF_TYPE_SRQ : PF_TYPE_RESPONDER);
    fset(eqe, eqe, pf_number, peer->recv.srq ? peer->recv.srq->obj.id :
                                               peer->obj.id);
    return PF_SUB_TYPE_WQE;
}

static uint64_t token_mask(const Mlx5State *s)
{
    return s->transport_faults ? PF_TRANSPORT_TOKEN_MASK : PF_TOKEN_MASK;
}

/* Fewer tokens are in use at a time than there are. */
static uint64_t token_new(Mlx5State *s)
{
    uint64_t token;

    do {
        token = s->next_token++ & token_mask(s);
    } while (g_hash_table_contains(s->faults, &token));
    return token;
}

Mlx5Raise mlx5_odp_raise(Mlx5Qp *qp, Mlx5State *hca, const Mlx5Fault *fault,
                         bool remote)
{
    Mlx5Eq *eq = mlx5_event_eq(hca, MLX5_EVENT_PAGE_FAULT);
    uint8_t eqe[MLX5_EQE_BYTES] = { 0 };
    Mlx5PendingFault *pending;
    unsigned sub_type;

    if (!eq) {
        trace_mlx5_odp_no_eq(hca->parent_obj.name, fault->key, fault->va);
        return MLX5_RAISE_REFUSED;
    }
    if (g_hash_table_size(hca->faults) >= PF_MAX_PENDING) {
        return MLX5_RAISE_BUSY;
    }
    pending = g_new0(Mlx5PendingFault, 1);
    pending->token = token_new(hca);
    pending->hca = hca;
    pending->qp = qp;
    pending->remote = remote;
    if (remote) {
        pending->peer = mlx5_responder_find(qp);
    }
    if (pending->peer) {
        pending->peer->remote_fault = pending;
    }
    g_hash_table_insert(hca->faults, &pending->token, pending);
    qp->fault = pending;

    sub_type = hca->transport_faults ?
               transport_event(pending, eqe) :
               memory_event(fault, pending->token, eqe);
    trace_mlx5_odp_raise(hca->parent_obj.name, pending->token, sub_type,
                         fault->key, fault->va, fault->len, qp->obj.id,
                         remote);
    hca->stats.faults++;
    mlx5_eq_post(hca, eq, MLX5_EVENT_PAGE_FAULT, sub_type, eqe);
    return MLX5_RAISE_OK;
}

void mlx5_odp_free(gpointer opaque)
{
    Mlx5PendingFault *pending = opaque;
    Mlx5Qp *qp = pending->qp;

    if (pending->peer) {
        pending->peer->remote_fault = NULL;
    }
    if (qp) {
        qp->fault = NULL;
        qp->fault_result = pending->resolved ? MLX5_FAULT_RETRY :
                           pending->remote ? MLX5_FAULT_REMOTE_ERROR :
                           MLX5_FAULT_LOCAL_ERROR;
        if (pending->hca->inject.fault_delay) {
            mlx5_qp_delay(qp, MLX5_WAIT_DELAY,
                          pending->hca->inject.fault_delay);
        } else {
            mlx5_qp_wake(qp);
        }
    }
    g_free(pending);
}

/* The driver's later resume of this token is then one of nobody's. */
void mlx5_odp_cancel(Mlx5PendingFault *pending)
{
    pending->qp = NULL;
    g_hash_table_remove(pending->hca->faults, &pending->token);
}

/* Its driver does not resume a fault of a queue pair that it has destroyed. */
void mlx5_odp_peer_left(Mlx5Qp *qp)
{
    Mlx5PendingFault *pending = qp->remote_fault;

    if (pending) {
        pending->resolved = true;
        g_hash_table_remove(pending->hca->faults, &pending->token);
    }
}

void mlx5_odp_forget(Mlx5State *s)
{
    GHashTableIter it;
    gpointer value;

    g_hash_table_iter_init(&it, s->faults);
    while (g_hash_table_iter_next(&it, NULL, &value)) {
        Mlx5PendingFault *pending = value;

        pending->resolved = true;
    }
    g_hash_table_remove_all(s->faults);
}

static Mlx5Status cmd_page_fault_resume(Mlx5State *s, Mlx5Cmd *cmd)
{
    uint64_t token = fget(page_fault_resume_in, cmd->in, token_47_32) << 32 |
                     fget(page_fault_resume_in, cmd->in, token_31_0);
    bool error = fget(page_fault_resume_in, cmd->in, error);
    Mlx5PendingFault *pending;

    /* In the transport scheme the upper bits hold the queue's number. */
    token &= token_mask(s);
    pending = g_hash_table_lookup(s->faults, &token);
    trace_mlx5_odp_resume(s->parent_obj.name, token, error, pending != NULL);
    if (pending) {
        pending->resolved = !error;
        g_hash_table_remove(s->faults, &token);
    }
    return MLX5_STATUS_OK;
}

const Mlx5CmdDesc mlx5_cmds_odp[] = {
    { MLX5_OP_PAGE_FAULT_RESUME, "PAGE_FAULT_RESUME", MLX5_PHASE_INITIALIZED,
      0x10, 0x10, cmd_page_fault_resume },
    { }
};
