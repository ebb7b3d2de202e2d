/*
 * mlx5 HCA: page faults, memory scheme
 *
 * A request that meets an absent translation is suspended; the driver learns
 * the mkey, address and number of pages from an event, fills the translation
 * through UMR and resumes by token (Linux infiniband/hw/mlx5/odp.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/log.h"
#include "mlx5.h"
#include "trace.h"

enum {
    PF_SUB_TYPE_MEMORY = 2,
    PF_FLAG_LAST = 1 << 7,
    PF_PAGE_SHIFT = 12,
    PF_MAX_POST_PAGES = 256,
    /* The driver's event queue has room for more. */
    PF_MAX_PENDING = 2048,
};

#define PF_TOKEN_MASK 0xffffffffffffull

Mlx5Raise mlx5_odp_raise(Mlx5Qp *qp, Mlx5State *hca, const Mlx5Fault *fault,
                         bool remote)
{
    Mlx5Eq *eq = mlx5_event_eq(hca, MLX5_EVENT_PAGE_FAULT);
    const uint64_t first = fault->va >> PF_PAGE_SHIFT;
    const uint64_t last = (fault->va + MAX(fault->len, 1) - 1) >>
                          PF_PAGE_SHIFT;
    uint8_t eqe[MLX5_EQE_BYTES] = { 0 };
    Mlx5PendingFault *pending;

    if (!eq) {
        trace_mlx5_odp_no_eq(hca->parent_obj.name, fault->key, fault->va);
        return MLX5_RAISE_REFUSED;
    }
    if (g_hash_table_size(hca->faults) >= PF_MAX_PENDING) {
        return MLX5_RAISE_BUSY;
    }
    pending = g_new0(Mlx5PendingFault, 1);
    pending->token = hca->next_token++ & PF_TOKEN_MASK;
    pending->hca = hca;
    pending->qp = qp;
    pending->remote = remote;
    g_hash_table_insert(hca->faults, &pending->token, pending);
    qp->fault = pending;

    /*
     * The driver resolves one page if it cannot get all; a demand range in
     * the middle of a page would spill into the next one.
     */
    fset(eqe, eqe, pf_flags, PF_FLAG_LAST);
    fset(eqe, eqe, pf_post_pages, MIN(last - first, PF_MAX_POST_PAGES));
    fset(eqe, eqe, pf_token_47_32, pending->token >> 32);
    fset(eqe, eqe, pf_token_31_0, pending->token);
    fset(eqe, eqe, pf_demand_pages, 1);
    fset(eqe, eqe, pf_mkey, fault->key);
    fset(eqe, eqe, pf_va, first << PF_PAGE_SHIFT);
    trace_mlx5_odp_raise(hca->parent_obj.name, pending->token, fault->key,
                         fault->va, last - first, qp->obj.id, remote);
    hca->stats.faults++;
    mlx5_eq_post(hca, eq, MLX5_EVENT_PAGE_FAULT, PF_SUB_TYPE_MEMORY, eqe);
    return MLX5_RAISE_OK;
}

void mlx5_odp_free(gpointer opaque)
{
    Mlx5PendingFault *pending = opaque;
    Mlx5Qp *qp = pending->qp;

    if (qp) {
        qp->fault = NULL;
        qp->fault_result = pending->resolved ? MLX5_FAULT_RETRY :
                           pending->remote ? MLX5_FAULT_REMOTE_ERROR :
                           MLX5_FAULT_LOCAL_ERROR;
        mlx5_qp_wake(qp);
    }
    g_free(pending);
}

/* The driver's later resume of this token is then one of nobody's. */
void mlx5_odp_cancel(Mlx5PendingFault *pending)
{
    pending->qp = NULL;
    g_hash_table_remove(pending->hca->faults, &pending->token);
}

static Mlx5Status cmd_page_fault_resume(Mlx5State *s, Mlx5Cmd *cmd)
{
    uint64_t token = fget(page_fault_resume_in, cmd->in, token_47_32) << 32 |
                     fget(page_fault_resume_in, cmd->in, token_31_0);
    bool error = fget(page_fault_resume_in, cmd->in, error);
    Mlx5PendingFault *pending = g_hash_table_lookup(s->faults, &token);

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
