/*
 * A tiny driver of the mlx5 HCA for qtests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "pcie-topology.h"
#include "mlx5-driver.h"

/* Guest memory of the first HCA, and how far that of the next is. */
#define CMDQ            0x1000000ull
#define MAILBOXES       0x1010000ull
#define CMD_BYTES       0x200000ull
#define POOL            0x2000000ull
#define POOL_BYTES      0x2000000ull

Hca *hca_attach(QTestState *qts, const char *id, uint64_t bar, uint16_t lid,
                unsigned index)
{
    Hca *h = g_new0(Hca, 1);

    h->qts = qts;
    h->id = id;
    h->bar = bar;
    h->lid = lid;
    h->cmdq = CMDQ + index * CMD_BYTES;
    h->mailboxes = MAILBOXES + index * CMD_BYTES;
    h->pool_start = POOL + index * POOL_BYTES;
    g_assert_cmphex(h->pool_start + POOL_BYTES, <=, BUF_A);
    return h;
}

uint32_t hca_read(Hca *h, uint64_t offset)
{
    return bswap32(qtest_readl(h->qts, h->bar + offset));
}

void hca_write(Hca *h, uint64_t offset, uint32_t value)
{
    qtest_writel(h->qts, h->bar + offset, bswap32(value));
}

void hca_write64(Hca *h, uint64_t offset, uint64_t value)
{
    qtest_writeq(h->qts, h->bar + offset, bswap64(value));
}

void hca_set_cmdq(Hca *h, uint64_t addr)
{
    hca_write(h, ISEG_CMDQ_ADDR_H, addr >> 32);
    hca_write(h, ISEG_CMDQ_ADDR_L, addr);
}

uint64_t pool_alloc(Hca *h, uint64_t bytes)
{
    uint64_t addr = h->pool;

    h->pool += ROUND_UP(bytes, 4096);
    g_assert_cmpuint(h->pool, <=, h->pool_start + POOL_BYTES);
    return addr;
}

uint64_t hca_counter(Hca *h, const char *name)
{
    return qom_uint(h->qts, h->id, name);
}

void hca_inject(Hca *h, const char *name, uint64_t value)
{
    qom_set_uint(h->qts, h->id, name, value);
}

uint64_t mailbox_addr(const Hca *h, unsigned slot, bool output,
                      unsigned block)
{
    return h->mailboxes + ((slot * 2 + output) * MAX_BLOCKS + block) * 1024;
}

static void mailbox_chain(Hca *h, unsigned slot, bool output,
                          const uint8_t *data, uint32_t len)
{
    unsigned num = DIV_ROUND_UP(len, MLX5_CMD_BLOCK_BYTES);

    g_assert_cmpuint(num, <=, MAX_BLOCKS);
    for (unsigned i = 0; i < num; i++) {
        uint8_t block[MLX5_CMD_MAILBOX_BYTES] = { 0 };

        if (data) {
            memcpy(block, data + i * MLX5_CMD_BLOCK_BYTES,
                   MIN(MLX5_CMD_BLOCK_BYTES, len - i * MLX5_CMD_BLOCK_BYTES));
        }
        if (i + 1 < num) {
            fset(mailbox, block, next, mailbox_addr(h, slot, output, i + 1));
        }
        fset(mailbox, block, block_num, i);
        fset(mailbox, block, token, TOKEN);
        qtest_memwrite(h->qts, mailbox_addr(h, slot, output, i), block,
                       sizeof(block));
    }
}

void cmd_write(Hca *h, unsigned slot, const uint8_t *in, uint32_t in_len,
               uint32_t out_len)
{
    uint8_t entry[MLX5_CMD_ENTRY_BYTES] = { 0 };

    fset(cmdq_entry, entry, type, 7);
    fset(cmdq_entry, entry, input_length, in_len);
    fset(cmdq_entry, entry, output_length, out_len);
    memcpy(entry + 0x10, in, MIN(in_len, 16));
    if (in_len > 16) {
        fset(cmdq_entry, entry, input_mailbox, mailbox_addr(h, slot, false, 0));
        mailbox_chain(h, slot, false, in + 16, in_len - 16);
    }
    if (out_len > 16) {
        fset(cmdq_entry, entry, output_mailbox, mailbox_addr(h, slot, true, 0));
        mailbox_chain(h, slot, true, NULL, out_len - 16);
    }
    fset(cmdq_entry, entry, token, TOKEN);
    fset(cmdq_entry, entry, own, 1);
    qtest_memwrite(h->qts, h->cmdq + slot * sizeof(entry), entry,
                   sizeof(entry));
}

/* The device's bottom half has run when it gave the entry back. */
static void cmd_wait(Hca *h, unsigned slot)
{
    for (unsigned i = 0; i < 1000; i++) {
        if (!(qtest_readb(h->qts, h->cmdq + slot * MLX5_CMD_ENTRY_BYTES +
                          0x3f) & 1)) {
            return;
        }
        g_usleep(1000);
    }
    g_assert_not_reached();
}

unsigned cmd_finish(Hca *h, unsigned slot, uint32_t out_len)
{
    uint8_t entry[MLX5_CMD_ENTRY_BYTES];

    cmd_wait(h, slot);
    qtest_memread(h->qts, h->cmdq + slot * sizeof(entry), entry,
                  sizeof(entry));
    h->delivery = fget(cmdq_entry, entry, delivery);
    memset(h->out, 0, sizeof(h->out));
    memcpy(h->out, entry + 0x20, 16);
    for (uint32_t done = 16; done < out_len; done += MLX5_CMD_BLOCK_BYTES) {
        qtest_memread(h->qts, mailbox_addr(h, slot, true, (done - 16) /
                                           MLX5_CMD_BLOCK_BYTES),
                      h->out + done, MIN(MLX5_CMD_BLOCK_BYTES,
                                         out_len - done));
    }
    return fget(cmd, h->out, status);
}

unsigned cmd_exec(Hca *h, uint8_t *in, uint32_t in_len, unsigned opcode,
                  uint32_t out_len)
{
    fset(cmd, in, opcode, opcode);
    cmd_write(h, 0, in, in_len, out_len);
    hca_write(h, ISEG_CMD_DBELL, 1);
    return cmd_finish(h, 0, out_len);
}

unsigned cmd_simple(Hca *h, unsigned opcode, uint32_t id)
{
    uint8_t in[16] = { 0 };

    fset(obj, in, id, id);
    return cmd_exec(h, in, sizeof(in), opcode, 16);
}

uint32_t cmd_alloc(Hca *h, unsigned opcode)
{
    g_assert_cmphex(cmd_simple(h, opcode, 0), ==, MLX5_STATUS_OK);
    return fget(obj, h->out, id);
}

void hca_init(Hca *h)
{
    hca_set_cmdq(h, h->cmdq);
    h->pool = h->pool_start;
    g_assert_cmphex(cmd_simple(h, MLX5_OP_ENABLE_HCA, 0), ==, MLX5_STATUS_OK);
    g_assert_cmphex(cmd_simple(h, MLX5_OP_INIT_HCA, 0), ==, MLX5_STATUS_OK);
    h->uar = cmd_alloc(h, MLX5_OP_ALLOC_UAR);
}

void put_be32(Hca *h, uint64_t addr, uint32_t value)
{
    uint8_t buf[4];

    stl_be_p(buf, value);
    qtest_memwrite(h->qts, addr, buf, sizeof(buf));
}

Queue eq_create(Hca *h, uint64_t events)
{
    uint8_t in[PAS + 8] = { 0 };
    uint8_t *ctx = in + 0x10;
    uint8_t eqe[MLX5_EQE_BYTES] = { 0 };
    Queue eq = { .addr = pool_alloc(h, QUEUE * MLX5_EQE_BYTES),
                 .log_size = LOG_QUEUE, .entry_bytes = MLX5_EQE_BYTES };

    eqe[MLX5_EQE_BYTES - 1] = 1;
    for (unsigned i = 0; i < QUEUE; i++) {
        qtest_memwrite(h->qts, eq.addr + i * sizeof(eqe), eqe, sizeof(eqe));
    }
    fset(eqc, ctx, log_eq_size, LOG_QUEUE);
    fset(eqc, ctx, uar_page, h->uar);
    fset(create_eq_in, in, event_bitmask_0, events);
    stq_be_p(in + PAS, eq.addr);
    g_assert_cmphex(cmd_exec(h, in, sizeof(in), MLX5_OP_CREATE_EQ, 16), ==,
                    MLX5_STATUS_OK);
    eq.id = fget(obj, h->out, id);
    return eq;
}

bool ring_poll(Hca *h, Queue *q, uint8_t *entry, uint32_t size)
{
    uint32_t index = q->ci & ((1u << q->log_size) - 1);

    /* With entries of 128 bytes, all is in the second half. */
    g_assert_cmpuint(size, <=, q->entry_bytes);
    qtest_memread(h->qts, q->addr + (index + 1) * q->entry_bytes - size, entry,
                  size);
    if ((entry[size - 1] & 1) != ((q->ci >> q->log_size) & 1)) {
        return false;
    }
    q->ci++;
    return true;
}

void ring_wait(Hca *h, Queue *q, uint8_t *entry, uint32_t size)
{
    for (unsigned i = 0; i < 1000; i++) {
        if (ring_poll(h, q, entry, size)) {
            return;
        }
        /* Virtual time for the device's timers, real time for its BH. */
        qtest_clock_step(h->qts, 100 * 1000);
        g_usleep(200);
    }
    g_assert_not_reached();
}

/* A buffer without entries, and what the context says of it. */
static uint64_t cq_buffer(Hca *h, uint8_t *in, unsigned log_size,
                          unsigned entry_bytes)
{
    uint64_t addr = pool_alloc(h, (uint64_t)entry_bytes << log_size);

    for (unsigned i = 1; i <= 1u << log_size; i++) {
        qtest_writeb(h->qts, addr + i * entry_bytes - 1, 0xf1);
    }
    fset(cqc, in + 0x10, cqe_sz, entry_bytes / MLX5_CQE_BYTES - 1);
    fset(cqc, in + 0x10, log_cq_size, log_size);
    stq_be_p(in + PAS, addr);
    return addr;
}

unsigned cq_resize(Hca *h, Queue *cq, unsigned log_size, unsigned entry_bytes)
{
    uint8_t in[PAS + 8] = { 0 };
    uint64_t addr = cq_buffer(h, in, log_size, entry_bytes);
    unsigned status;

    fset(cmd, in, op_mod, 1);
    fset(obj, in, id, cq->id);
    status = cmd_exec(h, in, sizeof(in), MLX5_OP_MODIFY_CQ, 16);
    if (status == MLX5_STATUS_OK) {
        cq->addr = addr;
        cq->log_size = log_size;
    }
    return status;
}

Queue cq_create(Hca *h, const Queue *eq)
{
    return cq_create_sized(h, eq, LOG_QUEUE, MLX5_CQE_BYTES);
}

Queue cq_create_sized(Hca *h, const Queue *eq, unsigned log_size,
                      unsigned entry_bytes)
{
    uint8_t in[PAS + 8] = { 0 };
    uint8_t *ctx = in + 0x10;
    Queue cq = { .addr = cq_buffer(h, in, log_size, entry_bytes),
                 .dbr = pool_alloc(h, 8),
                 .log_size = log_size, .entry_bytes = entry_bytes };

    fset(cqc, ctx, uar_page, h->uar);
    fset(cqc, ctx, c_eqn_or_apu_element, eq->id);
    fset(cqc, ctx, dbr_addr, cq.dbr);
    g_assert_cmphex(cmd_exec(h, in, sizeof(in), MLX5_OP_CREATE_CQ, 16), ==,
                    MLX5_STATUS_OK);
    cq.id = fget(obj, h->out, id);
    return cq;
}

void cq_wait(Hca *h, Queue *cq, uint8_t *cqe)
{
    ring_wait(h, cq, cqe, MLX5_CQE_BYTES);
    put_be32(h, cq->dbr, cq->ci & 0xffffff);
}

void cq_arm(Hca *h, const Queue *cq, uint32_t ci)
{
    hca_write64(h, h->uar * 4096 + UAR_CQ_ARM, (uint64_t)ci << 32 | cq->id);
}

void eq_arm(Hca *h, const Queue *eq, uint32_t ci)
{
    hca_write(h, h->uar * 4096 + UAR_EQ_ARM, eq->id << 24 | ci);
}

unsigned qp_command(Hca *h, const Qp *qp, unsigned opcode,
                    uint8_t *in, uint32_t opt)
{
    fset(obj, in, id, qp->id);
    fset(create_qp_in, in, opt_param_mask, opt);
    return cmd_exec(h, in, PAS, opcode, 16);
}

static Qp qp_create_fre(Hca *h, unsigned service, uint32_t pd,
                        const Queue *cq, bool fre)
{
    uint8_t in[PAS + 8] = { 0 };
    uint8_t *ctx = in + 0x18;
    Qp qp = { .rq = pool_alloc(h, QUEUE * (RQ_STRIDE + MLX5_WQEBB)),
              .dbr = pool_alloc(h, 8) };

    qp.sq = qp.rq + QUEUE * RQ_STRIDE;
    fset(qpc, ctx, st, service);
    fset(qpc, ctx, pd, pd);
    fset(qpc, ctx, fre, fre);
    fset(qpc, ctx, log_rq_size, LOG_QUEUE);
    fset(qpc, ctx, log_sq_size, LOG_QUEUE);
    fset(qpc, ctx, uar_page, h->uar);
    fset(qpc, ctx, cqn_snd, cq->id);
    fset(qpc, ctx, cqn_rcv, cq->id);
    fset(qpc, ctx, dbr_addr, qp.dbr);
    stq_be_p(in + PAS, qp.rq);
    g_assert_cmphex(cmd_exec(h, in, sizeof(in), MLX5_OP_CREATE_QP, 16), ==,
                    MLX5_STATUS_OK);
    qp.id = fget(obj, h->out, id);
    qp.lid = h->lid;
    return qp;
}

Qp qp_create(Hca *h, unsigned service, uint32_t pd, const Queue *cq)
{
    return qp_create_fre(h, service, pd, cq, true);
}

Qp qp_create_user(Hca *h, unsigned service, uint32_t pd, const Queue *cq)
{
    return qp_create_fre(h, service, pd, cq, false);
}

void qp_connect(Hca *h, const Qp *qp, uint32_t pd, const Qp *remote)
{
    qp_connect_psn(h, qp, pd, remote, 0, 0);
}

void qp_connect_psn(Hca *h, const Qp *qp, uint32_t pd, const Qp *remote,
                    uint32_t send_psn, uint32_t recv_psn)
{
    uint8_t in[PAS] = { 0 };
    uint8_t *ctx = in + 0x18;
    uint8_t *path = ctx + 0x18;

    fset(qpc, ctx, pd, pd);
    fset(qpc, ctx, rwe, 1);
    g_assert_cmphex(qp_command(h, qp, MLX5_OP_RST2INIT_QP, in, 0), ==,
                    MLX5_STATUS_OK);
    memset(in, 0, sizeof(in));
    fset(qpc, ctx, mtu, 5);
    fset(qpc, ctx, remote_qpn, remote->id);
    fset(qpc, ctx, next_rcv_psn, recv_psn);
    fset(qpc, ctx, min_rnr_nak, 1);
    fset(qpc, ctx, rre, 1);
    fset(qpc, ctx, rwe, 1);
    fset(qpc, ctx, rae, 1);
    fset(qpc, ctx, atomic_mode, 3);
    fset(ads, path, rlid, remote->lid);
    g_assert_cmphex(qp_command(h, qp, MLX5_OP_INIT2RTR_QP, in,
                               MLX5_QP_OPT_RRE | MLX5_QP_OPT_RWE |
                               MLX5_QP_OPT_RAE), ==, MLX5_STATUS_OK);
    memset(in, 0, sizeof(in));
    fset(qpc, ctx, next_send_psn, send_psn);
    fset(qpc, ctx, retry_count, 1);
    fset(qpc, ctx, rnr_retry, 1);
    fset(ads, path, ack_timeout, 8);
    g_assert_cmphex(qp_command(h, qp, MLX5_OP_RTR2RTS_QP, in, 0), ==,
                    MLX5_STATUS_OK);
}

void qp_queue(Hca *h, Qp *qp, uint8_t *wqe, uint32_t len)
{
    fset(wqe_ctrl, wqe, index, qp->sq_pi);
    fset(wqe_ctrl, wqe, qpn, qp->id);
    fset(wqe_ctrl, wqe, ds, len / 16);
    fset(wqe_ctrl, wqe, ce, 2);
    for (uint32_t done = 0; done < len; done += MLX5_WQEBB) {
        qtest_memwrite(h->qts,
                       qp->sq + (qp->sq_pi++ & (QUEUE - 1)) * MLX5_WQEBB,
                       wqe + done, MIN(len - done, MLX5_WQEBB));
    }
    put_be32(h, qp->dbr + 4, qp->sq_pi);
}

void qp_post(Hca *h, Qp *qp, uint8_t *wqe, uint32_t len)
{
    qp_queue(h, qp, wqe, len);
    hca_write64(h, h->uar * 4096 + UAR_SEND, ldq_be_p(wqe));
}

uint32_t data_seg(uint8_t *seg, uint32_t key, uint64_t addr,
                  uint32_t len)
{
    fset(wqe_data, seg, byte_count, len);
    fset(wqe_data, seg, lkey, key);
    fset(wqe_data, seg, addr, addr);
    return MLX5_SEG_BYTES;
}

uint32_t raddr_seg(uint8_t *seg, uint32_t key, uint64_t addr)
{
    fset(wqe_raddr, seg, raddr, addr);
    fset(wqe_raddr, seg, rkey, key);
    return MLX5_SEG_BYTES;
}

void post_recv(Hca *h, Qp *qp, uint32_t key, uint64_t addr,
               uint32_t len)
{
    uint8_t seg[MLX5_SEG_BYTES] = { 0 };

    data_seg(seg, key, addr, len);
    qtest_memwrite(h->qts, qp->rq + (qp->rq_pi++ & (QUEUE - 1)) * RQ_STRIDE,
                   seg, sizeof(seg));
    put_be32(h, qp->dbr, qp->rq_pi);
}

uint32_t mkey_create(Hca *h, uint8_t *in, uint32_t in_len)
{
    uint8_t *ctx = in + 0x10;

    fset(mkc, ctx, lr, 1);
    fset(mkc, ctx, lw, 1);
    fset(mkc, ctx, rr, 1);
    fset(mkc, ctx, rw, 1);
    fset(mkc, ctx, a, 1);
    fset(mkc, ctx, qpn, 0xffffff);
    fset(mkc, ctx, mkey_7_0, 0x42);
    g_assert_cmphex(cmd_exec(h, in, in_len, MLX5_OP_CREATE_MKEY, 16), ==,
                    MLX5_STATUS_OK);
    return fget(obj, h->out, id) << 8 | 0x42;
}

uint32_t mkey_create_pa(Hca *h, uint32_t pd)
{
    uint8_t in[PAS] = { 0 };

    fset(mkc, in + 0x10, pd, pd);
    fset(mkc, in + 0x10, length64, 1);
    return mkey_create(h, in, sizeof(in));
}

uint32_t mkey_create_umr(Hca *h, uint32_t pages)
{
    uint8_t in[PAS] = { 0 };
    uint8_t *ctx = in + 0x10;

    fset(mkc, ctx, free, 1);
    fset(mkc, ctx, umr_en, 1);
    fset(mkc, ctx, access_mode_1_0, MLX5_MKEY_MTT);
    fset(mkc, ctx, log_page_size, 12);
    fset(mkc, ctx, translations_octword_size, DIV_ROUND_UP(pages, 2));
    return mkey_create(h, in, sizeof(in));
}

uint32_t xrc_srq_create(Hca *h, uint32_t xrcd, uint32_t pd,
                        const Queue *cq, uint64_t wqes, uint64_t dbr)
{
    uint8_t in[PAS + 8] = { 0 };
    uint8_t *ctx = in + 0x10;

    fset(srqc, ctx, log_srq_size, LOG_QUEUE);
    fset(srqc, ctx, log_rq_stride, 1);          /* 32 bytes */
    fset(srqc, ctx, xrcd, xrcd);
    fset(srqc, ctx, cqn, cq->id);
    fset(srqc, ctx, pd, pd);
    fset(srqc, ctx, dbr_addr, dbr);
    stq_be_p(in + PAS, wqes);
    g_assert_cmphex(cmd_exec(h, in, sizeof(in), MLX5_OP_CREATE_XRC_SRQ, 16),
                    ==, MLX5_STATUS_OK);
    return fget(obj, h->out, id);
}

Qp xrc_target_create(Hca *h, uint32_t xrcd, uint32_t srq,
                     const Queue *cq)
{
    uint8_t in[PAS + 8] = { 0 };
    uint8_t *ctx = in + 0x18;
    Qp qp = { 0 };

    fset(qpc, ctx, st, MLX5_ST_XRC);
    fset(qpc, ctx, no_sq, 1);
    fset(qpc, ctx, rq_type, MLX5_RQ_SRQ);
    fset(qpc, ctx, srqn_rmpn_xrqn, srq);
    fset(qpc, ctx, xrcd, xrcd);
    fset(qpc, ctx, cqn_snd, cq->id);
    fset(qpc, ctx, cqn_rcv, cq->id);
    g_assert_cmphex(cmd_exec(h, in, sizeof(in), MLX5_OP_CREATE_QP, 16), ==,
                    MLX5_STATUS_OK);
    qp.id = fget(obj, h->out, id);
    qp.lid = h->lid;
    return qp;
}
