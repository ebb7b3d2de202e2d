/*
 * mlx5 HCA: memory keys and their translation
 *
 * An mkey is a context and, unless it maps physical addresses, a translation
 * table that CREATE_MKEY or UMR work requests fill.  Tables are kept in pages
 * that exist only where something but zeros was written: an implicit ODP
 * region's tables are large and nearly empty.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/log.h"
#include "qemu/cutils.h"
#include "mlx5.h"
#include "trace.h"

enum {
    XLT_PAGE = 4096,
    OCTWORD = 16,
    MTT_BYTES = 8,
    KLM_BYTES = 16,
    /* UMR rounds up to 64 bytes and may write that far past the end. */
    XLT_SLACK = 64,
    MAX_XLT_OCTWORDS = 1 << 24,
    KLMS_PER_PAGE = XLT_PAGE / KLM_BYTES,
    ANY_QPN = 0xffffff,
    KLM_BCOUNT_MASK = 0x7fffffff,
    MAX_RUN_PAGES = 512,
    MIN_PAGE_SHIFT = 12,
    SYND_MKEY_PARAM = 0x230001,
    SYND_MKEY_LIST = 0x230002,
    SYND_MKEY_MEM = 0x230003,
    SYND_MKEY_NO_RES = 0x230004,
    SYND_MKEY_ID = 0x230005,
};

/* A part of a translation table. */
typedef struct Mlx5XltPage {
    uint64_t klm_bytes;         /* that its entries cover, if they are KLMs */
    uint8_t data[XLT_PAGE];
} Mlx5XltPage;

static uint64_t xlt_bytes(const Mlx5Mkey *mk)
{
    return (uint64_t)mk->xlt_octwords * OCTWORD + XLT_SLACK;
}

static uint64_t xlt_num_pages(const Mlx5Mkey *mk)
{
    return DIV_ROUND_UP(xlt_bytes(mk), XLT_PAGE);
}

static uint64_t mkey_context_bytes(const Mlx5Mkey *mk)
{
    return sizeof(*mk) + xlt_num_pages(mk) * sizeof(*mk->xlt);
}

void mlx5_mkey_free(gpointer opaque)
{
    Mlx5Mkey *mk = opaque;

    for (uint64_t i = 0; i < xlt_num_pages(mk); i++) {
        if (mk->xlt[i]) {
            g_free(mk->xlt[i]);
            mlx5_context_uncharge(mk->hca, sizeof(**mk->xlt));
        }
    }
    g_free(mk->xlt);
    mlx5_context_uncharge(mk->hca, mkey_context_bytes(mk));
    g_free(mk);
}

static uint32_t klm_bytes(const uint8_t *entry)
{
    return ldl_be_p(entry) & KLM_BCOUNT_MASK;
}

static uint64_t klms_bytes(const uint8_t *entries, uint64_t len)
{
    uint64_t bytes = 0;

    for (; len >= KLM_BYTES; entries += KLM_BYTES, len -= KLM_BYTES) {
        bytes += klm_bytes(entries);
    }
    return bytes;
}

/* Always whole octowords: so are KLMs. */
bool mlx5_mkey_xlt_write(Mlx5Mkey *mk, uint64_t offset, const uint8_t *data,
                         uint64_t len)
{
    if (offset > xlt_bytes(mk) || len > xlt_bytes(mk) - offset) {
        return false;
    }
    while (len) {
        Mlx5XltPage **page = &mk->xlt[offset / XLT_PAGE];
        uint64_t n = MIN(len, XLT_PAGE - offset % XLT_PAGE);

        if (!*page && !buffer_is_zero(data, n)) {
            if (!mlx5_context_charge(mk->hca, sizeof(**page))) {
                return false;
            }
            *page = g_new0(Mlx5XltPage, 1);
        }
        if (*page) {
            uint8_t *to = (*page)->data + offset % XLT_PAGE;

            if (mk->mode == MLX5_MKEY_KLM) {
                (*page)->klm_bytes += klms_bytes(data, n) - klms_bytes(to, n);
            }
            memcpy(to, data, n);
        }
        data += n;
        offset += n;
        len -= n;
    }
    return true;
}

/* Entries do not cross pages, and @offset is within the table. */
static const uint8_t *xlt_entry(const Mlx5Mkey *mk, uint64_t offset)
{
    static const uint8_t absent[KLM_BYTES];
    const Mlx5XltPage *page = mk->xlt[offset / XLT_PAGE];

    return page ? page->data + offset % XLT_PAGE : absent;
}

static Mlx5Status cmd_create_mkey(Mlx5State *s, Mlx5Cmd *cmd)
{
    const uint8_t *ctx = cmd->in + MLX5_CMD_CTX;
    uint32_t octwords = fget(mkc, ctx, translations_octword_size);
    uint32_t listed = fget(create_mkey_in, cmd->in,
                           translations_octword_actual_size);
    unsigned mode = fget(mkc, ctx, access_mode_1_0) |
                    fget(mkc, ctx, access_mode_4_2) << 2;
    Mlx5Mkey *mk;

    mlx5_layout_trace("CREATE_MKEY", &mlx5_layout_mkc, ctx);
    if (mode > MLX5_MKEY_KSM || octwords > MAX_XLT_OCTWORDS ||
        (mode == MLX5_MKEY_KLM &&
         octwords > 1u << mlx5_cap_gen(s, log_max_klm_list_size)) ||
        fget(create_mkey_in, cmd->in, mkey_umem_valid)) {
        mlx5_guest_error(s, "CREATE_MKEY: mode %u, %u octowords", mode,
                         octwords);
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_PARAM, SYND_MKEY_PARAM);
    }
    if (listed > octwords || listed > (cmd->in_len - MLX5_CMD_PAS) / OCTWORD) {
        mlx5_guest_error(s, "CREATE_MKEY: list of %u octowords is too long",
                         listed);
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_PARAM, SYND_MKEY_LIST);
    }
    mk = g_new0(Mlx5Mkey, 1);
    mk->hca = s;
    mk->mode = mode;
    mk->xlt_octwords = mode == MLX5_MKEY_PA ? 0 : octwords;
    if (!mlx5_context_charge(s, mkey_context_bytes(mk))) {
        g_free(mk);
        return mlx5_cmd_fail(cmd, MLX5_STATUS_LIMIT, SYND_MKEY_MEM);
    }
    mk->xlt = g_new0(Mlx5XltPage *, xlt_num_pages(mk));
    memcpy(mk->ctx, ctx, sizeof(mk->ctx));
    if (listed && mode == MLX5_MKEY_MTT &&
        !fget(create_mkey_in, cmd->in, pg_access)) {
        /* Without pg_access the list carries addresses only. */
        for (uint64_t i = 0; i < (uint64_t)listed * OCTWORD; i += MTT_BYTES) {
            uint8_t *entry = cmd->in + MLX5_CMD_PAS + i;

            stq_be_p(entry, (ldq_be_p(entry) & ~(uint64_t)MLX5_MTT_FLAGS) |
                            MLX5_MTT_READ | MLX5_MTT_WRITE);
        }
    }
    if (!mlx5_mkey_xlt_write(mk, 0, cmd->in + MLX5_CMD_PAS,
                             mode == MLX5_MKEY_PA ? 0 :
                             (uint64_t)listed * OCTWORD)) {
        mlx5_mkey_free(mk);
        return mlx5_cmd_fail(cmd, MLX5_STATUS_LIMIT, SYND_MKEY_MEM);
    }
    if (!mlx5_table_add(&s->mkeys, &mk->obj)) {
        mlx5_mkey_free(mk);
        return mlx5_cmd_fail(cmd, MLX5_STATUS_NO_RES, SYND_MKEY_NO_RES);
    }
    fset(obj, cmd->out, id, mk->obj.id);
    trace_mlx5_mkey_create(s->parent_obj.name, mk->obj.id, mode, octwords,
                           fget(mkc, ctx, free));
    return MLX5_STATUS_OK;
}

static Mlx5Status cmd_destroy_mkey(Mlx5State *s, Mlx5Cmd *cmd)
{
    uint32_t index = fget(obj, cmd->in, id);

    if (!mlx5_table_get(&s->mkeys, index)) {
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_RES, SYND_MKEY_ID);
    }
    mlx5_table_remove(&s->mkeys, index);
    trace_mlx5_mkey_destroy(s->parent_obj.name, index);
    return MLX5_STATUS_OK;
}

static Mlx5Status cmd_query_mkey(Mlx5State *s, Mlx5Cmd *cmd)
{
    Mlx5Mkey *mk = mlx5_table_get(&s->mkeys, fget(obj, cmd->in, id));

    if (!mk) {
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_RES, SYND_MKEY_ID);
    }
    memcpy(cmd->out + MLX5_CMD_CTX, mk->ctx, sizeof(mk->ctx));
    return MLX5_STATUS_OK;
}

Mlx5Mkey *mlx5_mkey_lookup(Mlx5State *s, uint32_t key)
{
    Mlx5Mkey *mk = mlx5_table_get(&s->mkeys, key >> 8);

    return mk && fget(mkc, mk->ctx, mkey_7_0) == (key & 0xff) ? mk : NULL;
}

static bool mkey_allows(const Mlx5Mkey *mk, Mlx5Access access)
{
    return !((access & MLX5_ACCESS_LOCAL_READ && !fget(mkc, mk->ctx, lr)) ||
             (access & MLX5_ACCESS_LOCAL_WRITE && !fget(mkc, mk->ctx, lw)) ||
             (access & MLX5_ACCESS_REMOTE_READ && !fget(mkc, mk->ctx, rr)) ||
             (access & MLX5_ACCESS_REMOTE_WRITE && !fget(mkc, mk->ctx, rw)) ||
             (access & MLX5_ACCESS_ATOMIC && !fget(mkc, mk->ctx, a)));
}

static P2PDmaMode mkey_mode(const Mlx5Mkey *mk)
{
    return fget(mkc, mk->ctx, ma_translation_mode) ? P2P_DMA_ATS :
                                                     P2P_DMA_UNTRANSLATED;
}

/* The mkey behind @key, if @req may use it for all of the range. */
static Mlx5Mkey *mkey_get(Mlx5State *s, const Mlx5Requestor *req,
                          uint32_t key, uint64_t va, uint64_t len)
{
    Mlx5Mkey *mk = mlx5_mkey_lookup(s, key);
    const char *why = NULL;
    uint32_t qpn;

    if (!mk) {
        why = "no such key";
        goto denied;
    }
    qpn = fget(mkc, mk->ctx, qpn);
    if (fget(mkc, mk->ctx, free)) {
        why = "free";
    } else if (!req->any_pd && fget(mkc, mk->ctx, pd) != req->pd) {
        why = "protection domain";
    } else if (qpn != ANY_QPN && qpn != req->qpn) {
        why = "QP number";
    } else if (!mkey_allows(mk, req->access)) {
        why = "permission";
    } else if (!fget(mkc, mk->ctx, length64)) {
        uint64_t start = fget(mkc, mk->ctx, start_addr);
        uint64_t size = fget(mkc, mk->ctx, len);

        if (va < start || va - start > size || len > size - (va - start)) {
            why = "bounds";
        }
    } else if (va + len < va) {
        why = "bounds";
    }
denied:
    if (why) {
        trace_mlx5_mkey_denied(s->parent_obj.name, key, va, len, req->access,
                               why);
        return NULL;
    }
    return mk;
}

bool mlx5_mkey_check(Mlx5State *s, const Mlx5Requestor *req, uint32_t key,
                     uint64_t va, uint64_t len)
{
    return mkey_get(s, req, key, va, len) != NULL;
}

bool mlx5_mkey_invalidate(Mlx5State *s, const Mlx5Requestor *req,
                          uint32_t key)
{
    Mlx5Mkey *mk = mlx5_mkey_lookup(s, key);
    uint32_t qpn = mk ? fget(mkc, mk->ctx, qpn) : 0;

    if (!mk || !fget(mkc, mk->ctx, en_rinval) ||
        fget(mkc, mk->ctx, pd) != req->pd ||
        (qpn != ANY_QPN && qpn != req->qpn)) {
        trace_mlx5_mkey_denied(s->parent_obj.name, key, 0, 0, req->access,
                               "invalidation");
        return false;
    }
    fset(mkc, mk->ctx, free, 1);
    return true;
}

static Mlx5Xlt xlt_fault(Mlx5State *s, uint32_t key, uint64_t va,
                         uint64_t len, Mlx5Fault *fault)
{
    *fault = (Mlx5Fault) { .key = key, .va = va, .len = len };
    trace_mlx5_mkey_fault(s->parent_obj.name, key, va, len);
    return MLX5_XLT_FAULT;
}

static Mlx5Xlt xlt_denied(Mlx5State *s, const Mlx5Requestor *req,
                          uint32_t key, uint64_t va, uint64_t len,
                          const char *why)
{
    trace_mlx5_mkey_denied(s->parent_obj.name, key, va, len, req->access, why);
    return MLX5_XLT_DENIED;
}

/* Pages that follow each other in the address space of the bus are one run. */
static Mlx5Xlt mtt_runs(Mlx5State *s, const Mlx5Requestor *req,
                        const Mlx5Mkey *mk, uint32_t key, uint64_t va,
                        uint64_t len, Mlx5Runs *runs, Mlx5Fault *fault)
{
    const bool write = req->access & (MLX5_ACCESS_LOCAL_WRITE |
                                      MLX5_ACCESS_REMOTE_WRITE |
                                      MLX5_ACCESS_ATOMIC);
    const unsigned flag = write ? MLX5_MTT_WRITE : MLX5_MTT_READ;
    const unsigned shift = fget(mkc, mk->ctx, log_page_size);
    const uint64_t mask = (1ull << shift) - 1;
    const P2PDmaMode mode = mkey_mode(mk);
    const uint64_t num = (uint64_t)mk->xlt_octwords * OCTWORD / MTT_BYTES;
    uint64_t index = (va >> shift) -
                     (fget(mkc, mk->ctx, start_addr) >> shift);
    uint64_t offset = va & mask;
    Mlx5Run *run = NULL;

    if (shift < MIN_PAGE_SHIFT || index >= num) {
        return xlt_denied(s, req, key, va, len, "translation table");
    }
    for (unsigned i = 0; i < MAX_RUN_PAGES && len && index < num; i++) {
        uint64_t entry = ldq_be_p(xlt_entry(mk, index++ * MTT_BYTES));
        uint64_t addr = (entry & ~(uint64_t)MLX5_MTT_FLAGS & ~mask) + offset;
        uint64_t n = MIN(len, mask - offset + 1);

        if (!(entry & flag)) {
            break;
        }
        if (run && run->addr + run->len == addr) {
            run->len += n;
        } else if (runs->num < runs->max) {
            run = &runs->run[runs->num++];
            *run = (Mlx5Run) { .addr = addr, .len = n, .mode = mode };
        } else {
            break;
        }
        offset = 0;
        len -= n;
    }
    return run ? MLX5_XLT_OK : xlt_fault(s, key, va, len, fault);
}

/*
 * The entry of a KLM key that covers @offset, which becomes one within it, or
 * NULL.  @cost grows by the bytes of the table that were searched in vain; of
 * what comes before the page with the entry, only the sums are looked at.
 */
static const uint8_t *klm_find(const Mlx5Mkey *mk, uint64_t *offset,
                               uint64_t *cost)
{
    const uint64_t num = mk->xlt_octwords;
    uint64_t index, end;

    for (index = 0; index < num; index += KLMS_PER_PAGE) {
        const Mlx5XltPage *page = mk->xlt[index / KLMS_PER_PAGE];
        uint64_t bytes = page ? page->klm_bytes : 0;

        if (*offset < bytes) {
            break;
        }
        *offset -= bytes;
        *cost += KLM_BYTES;
    }
    for (end = MIN(num, index + KLMS_PER_PAGE); index < end; index++) {
        const uint8_t *entry = xlt_entry(mk, index * KLM_BYTES);

        if (*offset < klm_bytes(entry)) {
            return entry;
        }
        *offset -= klm_bytes(entry);
        *cost += KLM_BYTES;
    }
    return NULL;
}

/*
 * One step through an indirect mkey: @key, @va become those of the mkey
 * below, @len is cut to what that entry covers, and @cost grows by the bytes
 * of the table that were searched in vain.
 */
static bool indirect_step(const Mlx5Mkey *mk, uint32_t *key, uint64_t *va,
                          uint64_t *len, uint64_t *cost)
{
    const uint64_t start = fget(mkc, mk->ctx, start_addr);
    const uint8_t *entry;
    uint64_t offset, left;

    if (mk->mode == MLX5_MKEY_KSM) {
        const unsigned shift = fget(mkc, mk->ctx, log_page_size);
        const uint64_t mask = (1ull << shift) - 1;
        uint64_t index = (*va >> shift) - (start >> shift);

        if (shift < MIN_PAGE_SHIFT || index >= mk->xlt_octwords) {
            return false;
        }
        entry = xlt_entry(mk, index * KLM_BYTES);
        offset = *va & mask;
        left = mask - offset + 1;
    } else {
        offset = *va - start;
        entry = klm_find(mk, &offset, cost);
        if (!entry) {
            return false;
        }
        left = klm_bytes(entry) - offset;
    }
    *key = ldl_be_p(entry + 4);
    *va = ldq_be_p(entry + 8) + offset;
    *len = MIN(*len, left);
    return true;
}

Mlx5Xlt mlx5_mkey_translate(Mlx5State *s, const Mlx5Requestor *req,
                            uint32_t key, uint64_t va, uint64_t len,
                            Mlx5Runs *runs, Mlx5Fault *fault)
{
    const unsigned max_depth = mlx5_cap_gen(s, max_indirection);

    runs->num = 0;
    runs->cost = 0;
    for (unsigned depth = 0; depth <= max_depth; depth++) {
        Mlx5Mkey *mk;

        /*
         * The driver lets entries of implicit regions point there. It is no
         * key that a request may name: of its faults the driver knows nothing.
         */
        if (depth && key == MLX5_NULL_MKEY) {
            return xlt_fault(s, key, va, len, fault);
        }
        mk = mkey_get(s, req, key, va, len);
        if (!mk) {
            return MLX5_XLT_DENIED;
        }
        switch (mk->mode) {
        case MLX5_MKEY_PA:
            runs->run[runs->num++] = (Mlx5Run) {
                .addr = va, .len = len, .mode = mkey_mode(mk),
            };
            return MLX5_XLT_OK;
        case MLX5_MKEY_MTT:
            return mtt_runs(s, req, mk, key, va, len, runs, fault);
        default:
            if (!indirect_step(mk, &key, &va, &len, &runs->cost)) {
                return xlt_denied(s, req, key, va, len, "translation table");
            }
        }
    }
    return xlt_denied(s, req, key, va, len, "too many levels");
}

const Mlx5CmdDesc mlx5_cmds_mkey[] = {
    { MLX5_OP_CREATE_MKEY, "CREATE_MKEY", MLX5_PHASE_INITIALIZED,
      MLX5_CMD_PAS, 0x10, cmd_create_mkey },
    { MLX5_OP_DESTROY_MKEY, "DESTROY_MKEY", MLX5_PHASE_INITIALIZED,
      0x10, 0x10, cmd_destroy_mkey },
    { MLX5_OP_QUERY_MKEY, "QUERY_MKEY", MLX5_PHASE_INITIALIZED,
      0x10, MLX5_CMD_PAS, cmd_query_mkey },
    { }
};
