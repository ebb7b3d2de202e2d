/*
 * mlx5 HCA: copying between scatter/gather lists
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "mlx5.h"

enum {
    /* What a run costs at least, in bytes of the budget. */
    RUN_COST = 512,
};

/* The run at the cursor; inline data has none. */
static Mlx5Xlt cursor_run(Mlx5Cursor *c, uint64_t len, Mlx5Run *run,
                          Mlx5Fault *fault)
{
    const Mlx5Sge *sge;

    while (c->index < c->num_sge && c->offset == c->sge[c->index].len) {
        c->index++;
        c->offset = 0;
    }
    if (c->index == c->num_sge) {
        return MLX5_XLT_DENIED;
    }
    sge = &c->sge[c->index];
    /* The whole rest of the entry, so that a fault can announce it. */
    return mlx5_mkey_translate(c->hca, &c->req, sge->key,
                               sge->addr + c->offset,
                               MIN(len, sge->len - c->offset), run, fault);
}

Mlx5Copy mlx5_cursor_copy(Mlx5Cursor *dst, Mlx5Cursor *src, uint64_t *len,
                          uint64_t *budget, Mlx5Fault *fault)
{
    while (*len) {
        Mlx5Run from = { 0 }, to;
        bool dst_failed = true;
        uint64_t n;

        if (*budget < RUN_COST) {
            return MLX5_COPY_MORE;
        }
        if (!src->inline_data) {
            switch (cursor_run(src, *len, &from, fault)) {
            case MLX5_XLT_OK:
                break;
            case MLX5_XLT_FAULT:
                return MLX5_COPY_SRC_FAULT;
            default:
                return MLX5_COPY_SRC_ERROR;
            }
        }
        switch (cursor_run(dst, *len, &to, fault)) {
        case MLX5_XLT_OK:
            break;
        case MLX5_XLT_FAULT:
            return MLX5_COPY_DST_FAULT;
        default:
            return MLX5_COPY_DST_ERROR;
        }
        n = MIN(to.len, *budget);
        if (src->inline_data) {
            if (!mlx5_run_write(dst->hca, &to, src->inline_data + src->offset,
                                n)) {
                return MLX5_COPY_DST_ERROR;
            }
        } else {
            n = MIN(n, from.len);
            if (!mlx5_run_copy(dst->hca, &to, src->hca, &from, n,
                               &dst_failed)) {
                return dst_failed ? MLX5_COPY_DST_ERROR : MLX5_COPY_SRC_ERROR;
            }
        }
        src->offset += n;
        dst->offset += n;
        *len -= n;
        *budget -= MIN(*budget, MAX(n, RUN_COST));
    }
    return MLX5_COPY_DONE;
}

Mlx5Xlt mlx5_cursor_read(const Mlx5Cursor *c, uint8_t *buf, uint64_t len,
                         Mlx5Fault *fault)
{
    Mlx5Cursor at = *c;

    if (at.inline_data) {
        memcpy(buf, at.inline_data, len);
        return MLX5_XLT_OK;
    }
    while (len) {
        Mlx5Run run;
        Mlx5Xlt xlt = cursor_run(&at, len, &run, fault);

        if (xlt != MLX5_XLT_OK) {
            return xlt;
        }
        if (!mlx5_run_read(at.hca, &run, buf, run.len)) {
            return MLX5_XLT_DENIED;
        }
        at.offset += run.len;
        buf += run.len;
        len -= run.len;
    }
    return MLX5_XLT_OK;
}
