/*
 * mlx5 HCA: UMR work requests, which change an mkey from the send queue
 *
 * Linux drivers/infiniband/hw/mlx5/umr.c builds them.  Executed in one step,
 * in order with the queue's other requests, under the big QEMU lock: once the
 * completion is written no DMA through the old translation can be in flight.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/log.h"
#include "mlx5.h"
#include "trace.h"

enum {
    /* Offsets in the WQE, after the control segment. */
    UMR_CTRL = 16,
    UMR_MKEY = 16 + 48,
    UMR_DATA = 16 + 48 + 64,
    OCTWORD = 16,
    /*
     * What finding the list may cost: those of the driver are in one piece,
     * and a request is not interrupted.
     */
    MAX_LIST_COST = 1 << 20,
};

/* mkey context fields that each mkey_mask bit updates. */
static const struct {
    uint64_t mask;
    const Mlx5Field *field;
} umr_fields[] = {
    { MLX5_MKEY_MASK_LEN, MLX5_FIELD(mkc, len) },
    { MLX5_MKEY_MASK_LEN, MLX5_FIELD(mkc, length64) },
    { MLX5_MKEY_MASK_PAGE_SIZE, MLX5_FIELD(mkc, log_page_size_4_0) },
    { MLX5_MKEY_MASK_PAGE_SIZE_5, MLX5_FIELD(mkc, log_page_size_5) },
    { MLX5_MKEY_MASK_START_ADDR, MLX5_FIELD(mkc, start_addr) },
    { MLX5_MKEY_MASK_PD, MLX5_FIELD(mkc, pd) },
    { MLX5_MKEY_MASK_KEY, MLX5_FIELD(mkc, mkey_7_0) },
    { MLX5_MKEY_MASK_QPN, MLX5_FIELD(mkc, qpn) },
    { MLX5_MKEY_MASK_LR, MLX5_FIELD(mkc, lr) },
    { MLX5_MKEY_MASK_LW, MLX5_FIELD(mkc, lw) },
    { MLX5_MKEY_MASK_RR, MLX5_FIELD(mkc, rr) },
    { MLX5_MKEY_MASK_RW, MLX5_FIELD(mkc, rw) },
    { MLX5_MKEY_MASK_A, MLX5_FIELD(mkc, a) },
    { MLX5_MKEY_MASK_SMALL_FENCE,
      MLX5_FIELD(mkc, small_fence_on_rdma_read_response) },
    { MLX5_MKEY_MASK_RO_WRITE, MLX5_FIELD(mkc, relaxed_ordering_write) },
    { MLX5_MKEY_MASK_RO_READ, MLX5_FIELD(mkc, relaxed_ordering_read) },
    { MLX5_MKEY_MASK_FREE, MLX5_FIELD(mkc, free) },
    { MLX5_MKEY_MASK_EN_RINVAL, MLX5_FIELD(mkc, en_rinval) },
};

static bool umr_mask_valid(uint64_t mask)
{
    for (unsigned i = 0; i < ARRAY_SIZE(umr_fields); i++) {
        mask &= ~umr_fields[i].mask;
    }
    return !mask;
}

/* Read the translation data of @send into @buf, @len bytes. */
static bool umr_read_list(Mlx5Qp *qp, const Mlx5Send *send, uint8_t *buf,
                          uint64_t len, bool is_inline, uint64_t *budget)
{
    const uint8_t *seg = send->raw + UMR_DATA;
    const Mlx5Requestor req = {
        .pd = fget(qpc, qp->ctx, pd),
        .qpn = qp->obj.id,
        .access = MLX5_ACCESS_LOCAL_READ,
        .any_pd = qp->service == MLX5_ST_REG_UMR,
    };
    uint64_t va, cost = 0;

    mlx5_charge(budget, len);
    if (is_inline) {
        if (send->raw_len < UMR_DATA + len) {
            return false;
        }
        memcpy(buf, seg, len);
        return true;
    }
    if (send->raw_len < UMR_DATA + MLX5_SEG_BYTES ||
        fget(wqe_data, seg, byte_count) < len) {
        return false;
    }
    va = fget(wqe_data, seg, addr);
    while (len) {
        Mlx5Fault fault;
        Mlx5Run run;
        Mlx5Runs runs = { .max = 1, .run = &run };
        Mlx5Xlt xlt = mlx5_mkey_translate(qp->hca, &req,
                                          fget(wqe_data, seg, lkey), va, len,
                                          &runs, &fault);

        cost += runs.cost + MLX5_MIN_COST;
        mlx5_charge(budget, runs.cost + MLX5_MIN_COST);
        if (xlt != MLX5_XLT_OK || cost > MAX_LIST_COST ||
            !mlx5_run_read_list(qp->hca, &run, buf, run.len)) {
            return false;
        }
        buf += run.len;
        va += run.len;
        len -= run.len;
    }
    return true;
}

Mlx5Syndrome mlx5_umr_execute(Mlx5Qp *qp, uint64_t *budget)
{
    const Mlx5Send *send = &qp->send;
    const uint8_t *ctrl = send->raw + UMR_CTRL;
    const uint8_t *mkc = send->raw + UMR_MKEY;
    Mlx5State *s = qp->hca;
    g_autofree uint8_t *list = NULL;
    uint64_t mask, offset, bytes;
    unsigned flags;
    Mlx5Mkey *mk;

    /* The driver lets its own queues, not those of processes, do this. */
    if (!fget(qpc, qp->ctx, fre)) {
        mlx5_guest_error(s, "QP 0x%x: UMR without fast registration enabled",
                         qp->obj.id);
        return MLX5_SYND_LOCAL_QP_OP;
    }
    if (send->raw_len < UMR_DATA) {
        mlx5_guest_error(s, "QP 0x%x: UMR of %u bytes is too short",
                         qp->obj.id, send->raw_len);
        return MLX5_SYND_LOCAL_QP_OP;
    }
    flags = fget(wqe_umr, ctrl, flags);
    mask = fget(wqe_umr, ctrl, mkey_mask);
    bytes = fget(wqe_umr, ctrl, xlt_octowords) * OCTWORD;
    offset = flags & MLX5_UMR_OFFSET_EN ?
             (fget(wqe_umr, ctrl, xlt_offset_47_16) << 16 |
              fget(wqe_umr, ctrl, xlt_offset)) * OCTWORD : 0;
    /* The variant part may be about to change: only the index counts. */
    mk = mlx5_table_get(&s->mkeys, send->imm >> 8);
    trace_mlx5_umr(s->parent_obj.name, qp->obj.id, send->imm, flags, mask,
                   offset, bytes);
    if (!mk || !fget(mkc, mk->ctx, umr_en)) {
        mlx5_guest_error(s, "QP 0x%x: UMR of mkey 0x%x, which %s",
                         qp->obj.id, send->imm,
                         mk ? "does not allow it" : "does not exist");
        return MLX5_SYND_LOCAL_PROT;
    }
    if (qp->service != MLX5_ST_REG_UMR &&
        fget(mkc, mk->ctx, pd) != fget(qpc, qp->ctx, pd)) {
        mlx5_guest_error(s, "QP 0x%x: UMR of mkey 0x%x, which is of another "
                         "protection domain", qp->obj.id, send->imm);
        return MLX5_SYND_LOCAL_PROT;
    }
    if (mlx5_inject(&s->inject.fail_umrs)) {
        return MLX5_SYND_LOCAL_PROT;
    }
    if (!umr_mask_valid(mask)) {
        mlx5_guest_error(s, "QP 0x%x: UMR with unknown mkey mask 0x%" PRIx64,
                         qp->obj.id, mask);
        return MLX5_SYND_MW_BIND;
    }
    if (((flags & MLX5_UMR_CHECK_MASK) == MLX5_UMR_CHECK_IS_FREE &&
         !fget(mkc, mk->ctx, free)) ||
        ((flags & MLX5_UMR_CHECK_MASK) == MLX5_UMR_CHECK_NOT_FREE &&
         fget(mkc, mk->ctx, free))) {
        mlx5_guest_error(s, "QP 0x%x: UMR of mkey 0x%x, which is%s free",
                         qp->obj.id, send->imm,
                         fget(mkc, mk->ctx, free) ? "" : " not");
        return MLX5_SYND_LOCAL_PROT;
    }
    if (bytes) {
        list = g_malloc(bytes);
        if (!umr_read_list(qp, send, list, bytes, flags & MLX5_UMR_INLINE,
                           budget) ||
            !mlx5_mkey_xlt_write(mk, offset, list, bytes)) {
            mlx5_guest_error(s, "QP 0x%x: UMR of mkey 0x%x, translation at "
                             "0x%" PRIx64 "+0x%" PRIx64, qp->obj.id,
                             send->imm, offset, bytes);
            return MLX5_SYND_LOCAL_PROT;
        }
    }
    for (unsigned i = 0; i < ARRAY_SIZE(umr_fields); i++) {
        if (mask & umr_fields[i].mask) {
            mlx5_field_set(mk->ctx, umr_fields[i].field,
                           mlx5_field_get(mkc, umr_fields[i].field));
        }
    }
    s->stats.umrs++;
    return MLX5_SYND_OK;
}
