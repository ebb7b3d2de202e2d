/*
 * mlx5 HCA: copying between scatter/gather lists
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "mlx5.h"

enum {
    /* That are translated at a time. */
    AHEAD_RUNS = 64,
};

/* Translated pieces of the memory from a cursor on. */
typedef struct Ahead {
    Mlx5Run run[AHEAD_RUNS];
    Mlx5Runs runs;
    unsigned next;
} Ahead;

static void ahead_init(Ahead *ahead)
{
    ahead->runs = (Mlx5Runs) { .max = AHEAD_RUNS, .run = ahead->run };
    ahead->next = 0;
}

/* The run at the cursor, of which something is left; inline data has none. */
static Mlx5Xlt cursor_run(Mlx5Cursor *c, uint64_t len, Ahead *ahead,
                          Mlx5Run **run, uint64_t *budget, Mlx5Fault *fault)
{
    const Mlx5Sge *sge;
    Mlx5Xlt xlt;

    if (ahead->next < ahead->runs.num && !ahead->run[ahead->next].len) {
        ahead->next++;
    }
    if (ahead->next == ahead->runs.num) {
        while (c->index < c->num_sge && c->offset == c->sge[c->index].len) {
            c->index++;
            c->offset = 0;
        }
        if (c->index == c->num_sge) {
            return MLX5_XLT_DENIED;
        }
        sge = &c->sge[c->index];
        /* The whole rest of the entry, so that a fault can announce it. */
        xlt = mlx5_mkey_translate(c->hca, &c->req, sge->key,
                                  sge->addr + c->offset,
                                  MIN(len, sge->len - c->offset),
                                  &ahead->runs, fault);
        mlx5_charge(budget, ahead->runs.cost);
        if (xlt != MLX5_XLT_OK) {
            return xlt;
        }
        ahead->next = 0;
    }
    *run = &ahead->run[ahead->next];
    return MLX5_XLT_OK;
}

static void cursor_advance(Mlx5Cursor *c, Mlx5Run *run, uint64_t len)
{
    run->addr += len;
    run->len -= len;
    c->offset += len;
}

static Mlx5Copy copy_runs(Mlx5Cursor *dst, Mlx5Cursor *src, uint64_t *len,
                          uint64_t *budget, Mlx5Fault *fault)
{
    Ahead from_ahead, to_ahead;

    ahead_init(&from_ahead);
    ahead_init(&to_ahead);
    while (*len) {
        Mlx5Run inlined = { .len = *len }, *from = &inlined, *to;
        bool dst_failed = true;
        uint64_t n;

        if (*budget < MLX5_MIN_COST) {
            return MLX5_COPY_MORE;
        }
        if (!src->inline_data) {
            switch (cursor_run(src, *len, &from_ahead, &from, budget, fault)) {
            case MLX5_XLT_OK:
                break;
            case MLX5_XLT_FAULT:
                return MLX5_COPY_SRC_FAULT;
            default:
                return MLX5_COPY_SRC_DENIED;
            }
        }
        switch (cursor_run(dst, *len, &to_ahead, &to, budget, fault)) {
        case MLX5_XLT_OK:
            break;
        case MLX5_XLT_FAULT:
            return MLX5_COPY_DST_FAULT;
        default:
            return MLX5_COPY_DST_DENIED;
        }
        /* Some progress, whatever it cost to get here */
        n = MIN(MIN(from->len, to->len), MAX(*budget, MLX5_MIN_COST));
        if (src->inline_data) {
            if (!mlx5_run_write(dst->hca, to, src->inline_data + src->offset,
                                n)) {
                return MLX5_COPY_DST_ERROR;
            }
        } else if (!mlx5_run_copy(dst->hca, to, src->hca, from, n,
                                  &dst_failed)) {
            return dst_failed ? MLX5_COPY_DST_ERROR : MLX5_COPY_SRC_ERROR;
        }
        cursor_advance(src, from, n);
        cursor_advance(dst, to, n);
        *len -= n;
        mlx5_charge(budget, MAX(n, MLX5_MIN_COST));
    }
    return MLX5_COPY_DONE;
}

/*
 * Nothing can change a translation meanwhile: no command and no work request
 * is executed within the transfer of another.
 */
Mlx5Copy mlx5_cursor_copy(Mlx5Cursor *dst, Mlx5Cursor *src, uint64_t *len,
                          uint64_t *budget, Mlx5Fault *fault)
{
    Mlx5State *to = dst->hca, *from = src->inline_data ? NULL : src->hca;
    P2PDmaStats before = to->dma.stats, from_before;
    Mlx5Copy result;

    if (from && from != to) {
        from_before = from->dma.stats;
    }
    result = copy_runs(dst, src, len, budget, fault);
    mlx5_count_payload(to, &before);
    if (from && from != to) {
        mlx5_count_payload(from, &from_before);
    }
    return result;
}

Mlx5Xlt mlx5_cursor_read(const Mlx5Cursor *c, uint8_t *buf, uint64_t len,
                         uint64_t *budget, Mlx5Fault *fault)
{
    Mlx5Cursor at = *c;
    Ahead ahead;

    if (at.inline_data) {
        memcpy(buf, at.inline_data, len);
        return MLX5_XLT_OK;
    }
    ahead_init(&ahead);
    while (len) {
        Mlx5Run *run;
        Mlx5Xlt xlt = cursor_run(&at, len, &ahead, &run, budget, fault);
        uint64_t n;

        if (xlt != MLX5_XLT_OK) {
            return xlt;
        }
        if (*budget < MLX5_MIN_COST) {
            return MLX5_XLT_DENIED;
        }
        n = run->len;
        if (!mlx5_run_read(at.hca, run, buf, n)) {
            return MLX5_XLT_DENIED;
        }
        mlx5_charge(budget, MAX(n, MLX5_MIN_COST));
        cursor_advance(&at, run, n);
        buf += n;
        len -= n;
    }
    return MLX5_XLT_OK;
}
