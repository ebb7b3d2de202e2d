/*
 * QTest testcase for the mlx5 HCA
 *
 * Commands, event and completion queues, queue pairs in loopback, memory keys
 * and page faults, and what a hostile guest would do.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/units.h"
#include "hw/pci/pci_regs.h"
#include "mlx5-driver.h"
#include "pcie-topology.h"

#define NOWHERE     0x700000000ull
#define ECAM        0xb0000000ull
#define SECOND_NS   1000000000ull

enum {
    /* The lowest bits of the command queue's address, for good ... */
    LOG_CMDQ_SZ = 5 << 4 | 6,
    /* ... and after a reset: the interface is disabled. */
    FRESH_CMDQ_ADDR_L = 1 << 8 | LOG_CMDQ_SZ,
    PCI_D0 = 0,
    PCI_D3hot = 3,
};

static Hca *hca_start(const char *options)
{
    QTestState *qts = qtest_initf("-machine q35 -m 256 -nodefaults "
                                  "-device mlx5,id=hca,addr=4.0%s", options);
    PcieTopology t;

    pcie_topology_init(&t, qts);
    return hca_attach(qts, "hca", pcie_find(&t, MLX5_PCI_VENDOR,
                                            MLX5_PCI_DEVICE, 0)->bar[0],
                      1, 0);
}

static void hca_stop(Hca *h)
{
    qtest_quit(h->qts);
    g_free(h);
}

/* ------------------------------------------------------------------ */
/* The PCI function */

static void test_properties(void)
{
    QTestState *qts = qtest_init("-machine q35 -m 256 -nodefaults "
        "-device pcie-root-port,id=rp,chassis=1 "
        "-device mlx5,id=hca0,addr=4.0 -device mlx5,id=hca1,addr=5.0 "
        "-device mlx5,id=east,addr=6.0,subnet=east "
        "-device mlx5,id=west,addr=7.0,subnet=west "
        "-device mlx5,id=own,addr=8.0,guid=0x1122334455667788");

    expect_refusal(qts, "\"vectors\"", "{ 'driver': 'mlx5', 'bus': 'rp', "
                   "'vectors': 65 }");
    expect_refusal(qts, "has LID 2", "{ 'driver': 'mlx5', 'bus': 'rp', "
                   "'lid': 2 }");
    /* LIDs are those of a subnet, GUIDs are unique. */
    g_assert_cmpuint(qom_uint(qts, "east", "lid"), ==, 1);
    g_assert_cmpuint(qom_uint(qts, "west", "lid"), ==, 1);
    g_assert_cmphex(qom_uint(qts, "hca0", "guid"), ==, 0x5254000005000001);
    g_assert_cmphex(qom_uint(qts, "hca1", "guid"), ==, 0x5254000005000002);
    g_assert_cmphex(qom_uint(qts, "east", "guid"), !=,
                    qom_uint(qts, "hca0", "guid"));
    g_assert_cmphex(qom_uint(qts, "east", "guid"), !=,
                    qom_uint(qts, "west", "guid"));
    expect_refusal(qts, "has GUID 0x1122334455667788", "{ 'driver': 'mlx5', "
                   "'bus': 'rp', 'guid': 1234605616436508552 }");
    expect_refusal(qts, "has GUID 0x5254000005000002", "{ 'driver': 'mlx5', "
                   "'bus': 'rp', 'subnet': 'north', "
                   "'guid': 5932366609237671938 }");
    qtest_quit(qts);
}

/* ------------------------------------------------------------------ */
/* Commands */

static void test_iseg(void)
{
    Hca *h = hca_start("");
    uint32_t count = hca_read(h, ISEG_HEALTH_COUNTER);

    g_assert_cmphex(hca_read(h, ISEG_CMDIF_REV) >> 16, ==, 5);
    g_assert_cmphex(hca_read(h, ISEG_CMDQ_ADDR_L), ==, FRESH_CMDQ_ADDR_L);
    g_assert_cmphex(hca_read(h, ISEG_INITIALIZING), ==, 0);
    /* One byte, as the driver's health poll reads it. */
    g_assert_cmphex(qtest_readb(h->qts, h->bar + ISEG_CMDIF_REV + 1), ==, 5);
    hca_set_cmdq(h, 0x123456000ull);
    g_assert_cmphex(hca_read(h, ISEG_CMDQ_ADDR_H), ==, 1);
    g_assert_cmphex(hca_read(h, ISEG_CMDQ_ADDR_L), ==,
                    0x23456000 | LOG_CMDQ_SZ);
    qtest_clock_step(h->qts, 1000 * 1000 * 1000);
    g_assert_cmpuint(hca_read(h, ISEG_HEALTH_COUNTER), >, count);
    hca_stop(h);
}

static void test_cmd_status(void)
{
    Hca *h = hca_start("");
    uint8_t in[16] = { 0 };

    hca_set_cmdq(h, h->cmdq);
    g_assert_cmphex(cmd_simple(h, 0xfff, 0), ==, MLX5_STATUS_BAD_OP);
    g_assert_cmphex(fget(cmd, h->out, syndrome), !=, 0);
    g_assert_cmphex(cmd_simple(h, MLX5_OP_QUERY_PAGES, 0), ==,
                    MLX5_STATUS_BAD_SYS_STATE);
    g_assert_cmphex(cmd_simple(h, MLX5_OP_ENABLE_HCA, 0), ==, MLX5_STATUS_OK);
    g_assert_cmphex(cmd_simple(h, MLX5_OP_QUERY_PAGES, 0), ==,
                    MLX5_STATUS_OK);
    g_assert_cmphex(cmd_simple(h, MLX5_OP_ALLOC_PD, 0), ==,
                    MLX5_STATUS_BAD_SYS_STATE);
    g_assert_cmphex(cmd_simple(h, MLX5_OP_INIT_HCA, 0), ==, MLX5_STATUS_OK);
    g_assert_cmphex(cmd_simple(h, MLX5_OP_ALLOC_PD, 0), ==, MLX5_STATUS_OK);
    g_assert_cmphex(cmd_simple(h, MLX5_OP_DEALLOC_PD,
                               fget(obj, h->out, id)), ==, MLX5_STATUS_OK);
    g_assert_cmphex(cmd_simple(h, MLX5_OP_DEALLOC_PD, 1234), ==,
                    MLX5_STATUS_BAD_RES);
    g_assert_cmphex(cmd_simple(h, MLX5_OP_CREATE_CQ, 0), ==,
                    MLX5_STATUS_BAD_INPUT_LEN);
    g_assert_cmphex(cmd_exec(h, in, sizeof(in), MLX5_OP_QUERY_ADAPTER, 16),
                    ==, MLX5_STATUS_BAD_OUTPUT_LEN);
    g_assert_cmpuint(hca_counter(h, "guest-errors"), >=, 6);
    hca_stop(h);
}

static void test_cmd_mailbox(void)
{
    Hca *h = hca_start("");
    uint8_t in[16 + 4 * MLX5_CMD_BLOCK_BYTES] = { 0 };

    hca_init(h);
    /* Nine blocks out. */
    g_assert_cmphex(cmd_exec(h, in, 16, MLX5_OP_QUERY_HCA_CAP, 4112), ==,
                    MLX5_STATUS_OK);
    g_assert_cmphex(h->delivery, ==, MLX5_DELIVERY_OK);
    g_assert_cmpuint(fget(cmd_hca_cap, h->out + 16, num_ports), ==, 1);
    g_assert_cmpuint(fget(cmd_hca_cap, h->out + 16, pg), ==, 1);
    /* There are no multicast groups to attach to. */
    g_assert_cmpuint(fget(cmd_hca_cap, h->out + 16, log_max_mcg), ==, 0);
    /* Four blocks in: the node description is in the first. */
    fset(access_register_in, in, register_id, MLX5_REG_NODE_DESC);
    memcpy(in + 16, "written by a test", 17);
    g_assert_cmphex(cmd_exec(h, in, sizeof(in), MLX5_OP_ACCESS_REG,
                             sizeof(in)), ==, MLX5_STATUS_OK);
    fset(cmd, in, op_mod, 1);
    memset(in + 16, 0, 17);
    g_assert_cmphex(cmd_exec(h, in, sizeof(in), MLX5_OP_ACCESS_REG,
                             sizeof(in)), ==, MLX5_STATUS_OK);
    g_assert_cmpstr((char *)h->out + 16, ==, "written by a test");
    /* A capability group that no driver may ask for. */
    memset(in, 0, sizeof(in));
    fset(cmd, in, op_mod, 1 << 1);
    g_assert_cmphex(cmd_exec(h, in, 16, MLX5_OP_QUERY_HCA_CAP, 4112), ==,
                    MLX5_STATUS_BAD_PARAM);
    hca_stop(h);
}

/* Run one broken command and return how it was not delivered. */
static unsigned cmd_broken(Hca *h, void (*damage)(Hca *h, uint8_t *entry))
{
    uint8_t in[16 + 3 * MLX5_CMD_BLOCK_BYTES] = { 0 };
    uint8_t entry[MLX5_CMD_ENTRY_BYTES];

    fset(cmd, in, opcode, MLX5_OP_QUERY_HCA_CAP);
    cmd_write(h, 0, in, sizeof(in), 4112);
    qtest_memread(h->qts, h->cmdq, entry, sizeof(entry));
    damage(h, entry);
    qtest_memwrite(h->qts, h->cmdq, entry, sizeof(entry));
    hca_write(h, ISEG_CMD_DBELL, 1);
    cmd_finish(h, 0, 16);
    return h->delivery;
}

static void damage_none(Hca *h, uint8_t *entry)
{
}

static void damage_type(Hca *h, uint8_t *entry)
{
    fset(cmdq_entry, entry, type, 3);
}

static void damage_token(Hca *h, uint8_t *entry)
{
    qtest_writeb(h->qts, mailbox_addr(h, 0, false, 2) + 0x23d, TOKEN ^ 1);
}

static void damage_loop(Hca *h, uint8_t *entry)
{
    uint8_t next[8];

    stq_be_p(next, mailbox_addr(h, 0, false, 0));
    qtest_memwrite(h->qts, mailbox_addr(h, 0, false, 1) + 0x230, next, 8);
}

static void damage_short_chain(Hca *h, uint8_t *entry)
{
    uint8_t next[8] = { 0 };

    qtest_memwrite(h->qts, mailbox_addr(h, 0, false, 0) + 0x230, next, 8);
}

static void damage_short_output(Hca *h, uint8_t *entry)
{
    fset(cmdq_entry, entry, output_mailbox, 0);
}

static void damage_in_pointer(Hca *h, uint8_t *entry)
{
    fset(cmdq_entry, entry, input_mailbox, h->mailboxes + 8);
}

static void damage_out_pointer(Hca *h, uint8_t *entry)
{
    fset(cmdq_entry, entry, output_mailbox, h->mailboxes + 8);
}

static void damage_unreachable(Hca *h, uint8_t *entry)
{
    fset(cmdq_entry, entry, input_mailbox, NOWHERE);
}

static void damage_in_length(Hca *h, uint8_t *entry)
{
    fset(cmdq_entry, entry, input_length, UINT32_MAX);
}

static void damage_out_length(Hca *h, uint8_t *entry)
{
    fset(cmdq_entry, entry, output_length, UINT32_MAX);
}

static void damage_no_length(Hca *h, uint8_t *entry)
{
    fset(cmdq_entry, entry, input_length, 0);
}

static void test_cmd_delivery(void)
{
    static const struct {
        void (*damage)(Hca *h, uint8_t *entry);
        Mlx5Delivery delivery;
    } cases[] = {
        { damage_none, MLX5_DELIVERY_OK },
        { damage_type, MLX5_DELIVERY_DESCRIPTOR },
        { damage_token, MLX5_DELIVERY_TOKEN },
        { damage_loop, MLX5_DELIVERY_BLOCK_NUM },
        { damage_short_chain, MLX5_DELIVERY_IN_LENGTH },
        { damage_short_output, MLX5_DELIVERY_OUT_LENGTH },
        { damage_in_pointer, MLX5_DELIVERY_IN_PTR },
        { damage_out_pointer, MLX5_DELIVERY_OUT_PTR },
        { damage_unreachable, MLX5_DELIVERY_FW },
        { damage_in_length, MLX5_DELIVERY_IN_LENGTH },
        { damage_out_length, MLX5_DELIVERY_OUT_LENGTH },
        { damage_no_length, MLX5_DELIVERY_IN_LENGTH },
    };
    Hca *h = hca_start("");

    hca_init(h);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        g_assert_cmphex(cmd_broken(h, cases[i].damage), ==,
                        cases[i].delivery);
    }
    /* None of that did harm. */
    g_assert_cmphex(cmd_simple(h, MLX5_OP_ALLOC_PD, 0), ==, MLX5_STATUS_OK);
    hca_stop(h);
}

static void test_cmd_doorbell(void)
{
    Hca *h = hca_start("");
    uint8_t in[16] = { 0 };
    uint32_t pd[3];

    hca_init(h);
    fset(cmd, in, opcode, MLX5_OP_ALLOC_PD);
    cmd_write(h, 3, in, 16, 16);
    cmd_write(h, 7, in, 16, 16);
    cmd_write(h, 31, in, 16, 16);
    /* An entry that software owns stays as it is. */
    cmd_write(h, 5, in, 16, 16);
    qtest_writeb(h->qts, h->cmdq + 5 * MLX5_CMD_ENTRY_BYTES + 0x3f, 0);
    qtest_writel(h->qts, h->cmdq + 5 * MLX5_CMD_ENTRY_BYTES + 0x28, 0x12345678);
    hca_write(h, ISEG_CMD_DBELL, 1u << 3 | 1u << 5 | 1u << 7 | 1u << 31);
    for (unsigned i = 0; i < 3; i++) {
        static const unsigned slots[] = { 3, 7, 31 };

        g_assert_cmphex(cmd_finish(h, slots[i], 16), ==, MLX5_STATUS_OK);
        pd[i] = fget(obj, h->out, id);
    }
    g_assert_cmpuint(pd[0], !=, pd[1]);
    g_assert_cmpuint(pd[1], !=, pd[2]);
    g_assert_cmphex(qtest_readl(h->qts, h->cmdq + 5 * MLX5_CMD_ENTRY_BYTES +
                                0x28), ==, 0x12345678);
    /* A queue that is not there: nothing happens, nothing breaks. */
    hca_set_cmdq(h, NOWHERE);
    hca_write(h, ISEG_CMD_DBELL, UINT32_MAX);
    hca_set_cmdq(h, h->cmdq);
    g_assert_cmphex(cmd_simple(h, MLX5_OP_ALLOC_PD, 0), ==, MLX5_STATUS_OK);
    hca_stop(h);
}

/* Numbers go round; when none is left, the one that comes back is found. */
static void test_cmd_numbers(void)
{
    enum { FIRST = 16, END = 4096 };
    Hca *h = hca_start("");

    hca_init(h);
    g_assert_cmpuint(h->uar, ==, FIRST);
    g_assert_cmpuint(cmd_alloc(h, MLX5_OP_ALLOC_UAR), ==, FIRST + 1);
    g_assert_cmphex(cmd_simple(h, MLX5_OP_DEALLOC_UAR, FIRST + 1), ==,
                    MLX5_STATUS_OK);
    for (unsigned i = FIRST + 2; i < END; i++) {
        g_assert_cmpuint(cmd_alloc(h, MLX5_OP_ALLOC_UAR), ==, i);
    }
    g_assert_cmpuint(cmd_alloc(h, MLX5_OP_ALLOC_UAR), ==, FIRST + 1);
    for (unsigned i = 0; i < 2; i++) {
        static const uint32_t gone[] = { 1000, 500 };

        g_assert_cmphex(cmd_simple(h, MLX5_OP_ALLOC_UAR, 0), ==,
                        MLX5_STATUS_NO_RES);
        g_assert_cmphex(cmd_simple(h, MLX5_OP_DEALLOC_UAR, gone[i]), ==,
                        MLX5_STATUS_OK);
        g_assert_cmpuint(cmd_alloc(h, MLX5_OP_ALLOC_UAR), ==, gone[i]);
    }
    g_assert_cmphex(cmd_simple(h, MLX5_OP_TEARDOWN_HCA, 0), ==,
                    MLX5_STATUS_OK);
    hca_init(h);
    g_assert_cmpuint(h->uar, ==, FIRST);
    hca_stop(h);
}

/* ------------------------------------------------------------------ */
/* Queues */

static void test_cmd_event(void)
{
    Hca *h = hca_start("");
    uint8_t eqe[MLX5_EQE_BYTES];
    Queue eq;

    hca_init(h);
    eq = eq_create(h, 1ull << MLX5_EVENT_CMD);
    /* Its creation is polled. */
    g_assert_false(ring_poll(h, &eq, eqe, sizeof(eqe)));
    /* More than a lap, so that the owner bit turns. */
    for (unsigned i = 0; i < QUEUE * 2 + 3; i++) {
        g_assert_cmphex(cmd_simple(h, MLX5_OP_ALLOC_PD, 0), ==,
                        MLX5_STATUS_OK);
        ring_wait(h, &eq, eqe, sizeof(eqe));
        g_assert_cmphex(fget(eqe, eqe, type), ==, MLX5_EVENT_CMD);
        g_assert_cmphex(fget(eqe, eqe, cmd_vector), ==, 1);
        eq_arm(h, &eq, eq.ci);
    }
    /* Unread events pile up to a full queue, then get lost. */
    for (unsigned i = 0; i < QUEUE + 3; i++) {
        g_assert_cmphex(cmd_simple(h, MLX5_OP_ALLOC_PD, 0), ==,
                        MLX5_STATUS_OK);
    }
    for (unsigned i = 0; i < QUEUE; i++) {
        ring_wait(h, &eq, eqe, sizeof(eqe));
    }
    g_assert_false(ring_poll(h, &eq, eqe, sizeof(eqe)));
    g_assert_cmpuint(hca_counter(h, "guest-errors"), ==, 3);
    hca_stop(h);
}

/* Whoever had the device before may have left without a word. */
static void test_cmd_owner_gone(void)
{
    Hca *h = hca_start("");
    uint8_t eqe[MLX5_EQE_BYTES];
    Queue dead, eq;

    hca_init(h);
    dead = eq_create(h, 1ull << MLX5_EVENT_CMD);
    cmd_alloc(h, MLX5_OP_ALLOC_PD);
    ring_wait(h, &dead, eqe, sizeof(eqe));
    hca_init(h);
    /* Not where the other one was. */
    pool_alloc(h, QUEUE * MLX5_EQE_BYTES);
    eq = eq_create(h, 1ull << MLX5_EVENT_CMD);
    g_assert_cmphex(eq.addr, !=, dead.addr);
    cmd_alloc(h, MLX5_OP_ALLOC_PD);
    ring_wait(h, &eq, eqe, sizeof(eqe));
    g_assert_cmphex(fget(eqe, eqe, type), ==, MLX5_EVENT_CMD);
    g_assert_false(ring_poll(h, &dead, eqe, sizeof(eqe)));
    hca_stop(h);
}

static void post_send(Hca *h, Qp *qp, uint32_t key, uint64_t addr,
                      uint32_t len)
{
    uint8_t wqe[256] = { 0 };

    fset(wqe_ctrl, wqe, opcode, MLX5_WQE_SEND);
    qp_post(h, qp, wqe, 16 + data_seg(wqe + 16, key, addr, len));
}

static void post_rdma(Hca *h, Qp *qp, unsigned opcode, uint32_t key,
                      uint64_t addr, uint32_t len, uint32_t rkey,
                      uint64_t raddr)
{
    uint8_t wqe[256] = { 0 };
    uint32_t n = 16;

    fset(wqe_ctrl, wqe, opcode, opcode);
    n += raddr_seg(wqe + n, rkey, raddr);
    n += data_seg(wqe + n, key, addr, len);
    qp_post(h, qp, wqe, n);
}

static void post_atomic(Hca *h, Qp *qp, unsigned opcode, uint32_t key,
                        uint64_t addr, uint32_t rkey, uint64_t raddr,
                        uint64_t swap_add, uint64_t compare)
{
    uint8_t wqe[256] = { 0 };
    uint32_t n = 16;

    fset(wqe_ctrl, wqe, opcode, opcode);
    n += raddr_seg(wqe + n, rkey, raddr);
    fset(wqe_atomic, wqe + n, swap_add, swap_add);
    fset(wqe_atomic, wqe + n, compare, compare);
    n += 16;
    n += data_seg(wqe + n, key, addr, 8);
    qp_post(h, qp, wqe, n);
}

static void cqe_check(const uint8_t *cqe, unsigned opcode, const Qp *qp,
                      unsigned syndrome)
{
    g_assert_cmphex(fget(cqe, cqe, opcode), ==, opcode);
    g_assert_cmphex(fget(cqe, cqe, qpn), ==, qp->id);
    if (opcode == MLX5_CQE_REQ_ERR || opcode == MLX5_CQE_RESP_ERR) {
        g_assert_cmphex(fget(cqe, cqe, syndrome), ==, syndrome);
    }
}

typedef struct Umr {
    unsigned flags;
    uint64_t mask;
    bool free;
    uint64_t start;
    uint64_t len;
    uint32_t offset;            /* first entry that changes */
    uint32_t num;               /* a multiple of 8, or 0 */
    uint64_t entry[16];
} Umr;

static void post_umr(Hca *h, Qp *qp, uint32_t key, uint32_t lkey,
                     uint32_t pd, const Umr *umr)
{
    uint8_t wqe[256] = { 0 };
    uint8_t *ctrl = wqe + 16, *mkc = wqe + 64;
    uint64_t list = pool_alloc(h, 4096);
    uint32_t n = 128;

    fset(wqe_ctrl, wqe, opcode, MLX5_WQE_UMR);
    fset(wqe_ctrl, wqe, imm, key);
    fset(wqe_umr, ctrl, flags, umr->flags);
    fset(wqe_umr, ctrl, mkey_mask, umr->mask);
    fset(wqe_umr, ctrl, xlt_octowords, umr->num / 2);
    fset(wqe_umr, ctrl, xlt_offset, umr->offset / 2);
    fset(mkc, mkc, free, umr->free);
    fset(mkc, mkc, pd, pd);
    fset(mkc, mkc, lr, 1);
    fset(mkc, mkc, lw, 1);
    fset(mkc, mkc, rr, 1);
    fset(mkc, mkc, rw, 1);
    fset(mkc, mkc, en_rinval, 1);
    fset(mkc, mkc, mkey_7_0, key & 0xff);
    fset(mkc, mkc, start_addr, umr->start);
    fset(mkc, mkc, len, umr->len);
    fset(mkc, mkc, log_page_size, 12);
    for (unsigned i = 0; i < umr->num; i++) {
        uint8_t entry[8];

        stq_be_p(entry, umr->entry[i]);
        qtest_memwrite(h->qts, list + i * 8, entry, 8);
    }
    if (umr->num) {
        n += data_seg(wqe + n, lkey, list, umr->num * 8);
    }
    qp_post(h, qp, wqe, n);
}

/* Two connected RC QPs, a UMR QP, their queues and a key for all memory. */
typedef struct Rig {
    Hca *h;
    uint32_t pd;
    uint32_t key;
    Queue async;
    Queue faults;
    Queue cq[2];
    Queue umr_cq;
    Qp qp[2];
    Qp umr;
} Rig;

static Rig *rig_start_with(const char *options)
{
    Rig *r = g_new0(Rig, 1);

    r->h = hca_start(options);
    hca_init(r->h);
    r->pd = cmd_alloc(r->h, MLX5_OP_ALLOC_PD);
    r->key = mkey_create_pa(r->h, r->pd);
    r->async = eq_create(r->h, 1ull << MLX5_EVENT_WQ_ACCESS_ERROR |
                               1ull << MLX5_EVENT_WQ_INVAL_REQ |
                               1ull << MLX5_EVENT_WQ_CATAS_ERROR |
                               1ull << MLX5_EVENT_CQ_ERROR);
    r->faults = eq_create(r->h, 1ull << MLX5_EVENT_PAGE_FAULT);
    for (unsigned i = 0; i < 2; i++) {
        r->cq[i] = cq_create(r->h, &r->async);
        r->qp[i] = qp_create(r->h, MLX5_ST_RC, r->pd, &r->cq[i]);
    }
    qp_connect(r->h, &r->qp[0], r->pd, &r->qp[1]);
    qp_connect(r->h, &r->qp[1], r->pd, &r->qp[0]);
    r->umr_cq = cq_create(r->h, &r->async);
    r->umr = qp_create(r->h, MLX5_ST_REG_UMR, 0, &r->umr_cq);
    qp_connect(r->h, &r->umr, r->pd, &r->umr);
    return r;
}

static Rig *rig_start(void)
{
    return rig_start_with("");
}

static void rig_stop(Rig *r)
{
    hca_stop(r->h);
    g_free(r);
}

static void fill(Rig *r, uint64_t addr, uint32_t len, uint8_t seed)
{
    g_autofree uint8_t *buf = g_malloc(len);

    for (uint32_t i = 0; i < len; i++) {
        buf[i] = seed + i * 7 + (i >> 8);
    }
    qtest_memwrite(r->h->qts, addr, buf, len);
}

static void check_same(Rig *r, uint64_t a, uint64_t b, uint32_t len)
{
    g_autofree uint8_t *x = g_malloc(len);
    g_autofree uint8_t *y = g_malloc(len);

    qtest_memread(r->h->qts, a, x, len);
    qtest_memread(r->h->qts, b, y, len);
    g_assert_cmpmem(x, len, y, len);
}

/* Wait for a send completion of QP 0. */
static void expect_send(Rig *r, unsigned syndrome)
{
    uint8_t cqe[MLX5_CQE_BYTES];

    cq_wait(r->h, &r->cq[0], cqe);
    cqe_check(cqe, syndrome ? MLX5_CQE_REQ_ERR : MLX5_CQE_REQ, &r->qp[0],
              syndrome);
}

/* Wait for an asynchronous event, and check what it is about. */
static void expect_event(Rig *r, unsigned type, const Mlx5Field *field,
                         uint32_t number)
{
    uint8_t eqe[MLX5_EQE_BYTES];

    ring_wait(r->h, &r->async, eqe, sizeof(eqe));
    g_assert_cmphex(fget(eqe, eqe, type), ==, type);
    g_assert_cmphex(mlx5_field_get(eqe, field), ==, number);
}

/* The context of a QP as the device has it, until the next command. */
static const uint8_t *qp_query(Rig *r, const Qp *qp)
{
    uint8_t in[16] = { 0 };

    fset(obj, in, id, qp->id);
    g_assert_cmphex(cmd_exec(r->h, in, sizeof(in), MLX5_OP_QUERY_QP, PAS), ==,
                    MLX5_STATUS_OK);
    return r->h->out + 0x18;
}

static void test_send(void)
{
    Rig *r = rig_start();
    uint8_t cqe[MLX5_CQE_BYTES], eqe[MLX5_EQE_BYTES];

    /* More messages than the queues have entries, odd sizes and offsets. */
    for (unsigned i = 0; i < QUEUE * 2 + 5; i++) {
        uint32_t len = i * 611 + 1;

        fill(r, BUF_A + i, len, i);
        post_recv(r->h, &r->qp[1], r->key, BUF_B + 3 * i, len + i);
        post_send(r->h, &r->qp[0], r->key, BUF_A + i, len);
        expect_send(r, 0);
        cq_wait(r->h, &r->cq[1], cqe);
        cqe_check(cqe, MLX5_CQE_RESP_SEND, &r->qp[1], 0);
        g_assert_cmpuint(fget(cqe, cqe, byte_count), ==, len);
        check_same(r, BUF_A + i, BUF_B + 3 * i, len);
    }
    /* Armed before the completion, and armed after it. */
    for (unsigned late = 0; late < 2; late++) {
        if (!late) {
            cq_arm(r->h, &r->cq[1], r->cq[1].ci);
        }
        post_recv(r->h, &r->qp[1], r->key, BUF_B, 64);
        post_send(r->h, &r->qp[0], r->key, BUF_A, 64);
        expect_send(r, 0);
        if (late) {
            g_assert_false(ring_poll(r->h, &r->async, eqe, sizeof(eqe)));
            cq_arm(r->h, &r->cq[1], r->cq[1].ci);
        }
        expect_event(r, MLX5_EVENT_COMP, MLX5_FIELD(eqe, comp_cqn),
                     r->cq[1].id);
        cq_wait(r->h, &r->cq[1], cqe);
    }
    g_assert_cmpuint(hca_counter(r->h, "guest-errors"), ==, 0);
    rig_stop(r);
}

static void test_rdma(void)
{
    Rig *r = rig_start();
    uint8_t old[8];

    fill(r, BUF_A, 300000, 1);
    post_rdma(r->h, &r->qp[0], MLX5_WQE_WRITE, r->key, BUF_A, 300000, r->key,
              BUF_B + 5);
    expect_send(r, 0);
    check_same(r, BUF_A, BUF_B + 5, 300000);

    fill(r, BUF_B, 70000, 9);
    post_rdma(r->h, &r->qp[0], MLX5_WQE_READ, r->key, BUF_A + 1, 70000,
              r->key, BUF_B);
    expect_send(r, 0);
    check_same(r, BUF_B, BUF_A + 1, 70000);

    qtest_writeq(r->h->qts, BUF_B, 1000);
    post_atomic(r->h, &r->qp[0], MLX5_WQE_FETCH_ADD, r->key, BUF_A, r->key,
                BUF_B, 23, 0);
    expect_send(r, 0);
    g_assert_cmpuint(qtest_readq(r->h->qts, BUF_B), ==, 1023);
    qtest_memread(r->h->qts, BUF_A, old, 8);
    g_assert_cmpuint(ldq_le_p(old), ==, 1000);
    post_atomic(r->h, &r->qp[0], MLX5_WQE_CMP_SWAP, r->key, BUF_A, r->key,
                BUF_B, 7, 1000);
    expect_send(r, 0);
    g_assert_cmpuint(qtest_readq(r->h->qts, BUF_B), ==, 1023);
    post_atomic(r->h, &r->qp[0], MLX5_WQE_CMP_SWAP, r->key, BUF_A, r->key,
                BUF_B, 7, 1023);
    expect_send(r, 0);
    g_assert_cmpuint(qtest_readq(r->h->qts, BUF_B), ==, 7);
    g_assert_cmpuint(hca_counter(r->h, "guest-errors"), ==, 0);
    rig_stop(r);
}

/* Source and destination of a request that overlap, at any alignment. */
static void test_overlap(void)
{
    enum { MAX_LEN = 40, SHIFT = 9, AREA = 128 };
    Rig *r = rig_start();
    QTestState *qts = r->h->qts;

    for (int shift = -SHIFT; shift <= SHIFT; shift++) {
        for (uint32_t len = 1; len <= MAX_LEN; len++) {
            const uint32_t from = 32 + len % 8, to = from + shift;
            uint8_t want[AREA], have[AREA];

            fill(r, BUF_A, AREA, len);
            qtest_memread(qts, BUF_A, want, AREA);
            memmove(want + to, want + from, len);
            post_rdma(r->h, &r->qp[0], MLX5_WQE_WRITE, r->key, BUF_A + from,
                      len, r->key, BUF_A + to);
            expect_send(r, 0);
            qtest_memread(qts, BUF_A, have, AREA);
            g_assert_cmpmem(have, AREA, want, AREA);
        }
    }
    rig_stop(r);
}

/* Both QPs of a connection that a request broke are in the error state. */
static void test_errors(void)
{
    static const struct {
        unsigned opcode;
        uint32_t key_xor;
        uint32_t rkey_xor;
        unsigned syndrome;
    } cases[] = {
        { MLX5_WQE_WRITE, 0, 1, MLX5_SYND_REMOTE_ACCESS },
        { MLX5_WQE_WRITE, 0, 1 << 20, MLX5_SYND_REMOTE_ACCESS },
        { MLX5_WQE_READ, 0, 1, MLX5_SYND_REMOTE_ACCESS },
        { MLX5_WQE_WRITE, 1, 0, MLX5_SYND_LOCAL_PROT },
        { MLX5_WQE_READ, 1, 0, MLX5_SYND_LOCAL_PROT },
        { 0x7f, 0, 0, MLX5_SYND_LOCAL_QP_OP },
    };
    uint8_t cqe[MLX5_CQE_BYTES];

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        Rig *r = rig_start();

        post_rdma(r->h, &r->qp[0], cases[i].opcode, r->key ^ cases[i].key_xor,
                  BUF_A, 4096, r->key ^ cases[i].rkey_xor, BUF_B);
        expect_send(r, cases[i].syndrome);
        /* What is posted afterwards is flushed, on both queues. */
        post_send(r->h, &r->qp[0], r->key, BUF_A, 1);
        expect_send(r, MLX5_SYND_WR_FLUSH);
        post_recv(r->h, &r->qp[0], r->key, BUF_A, 1);
        cq_wait(r->h, &r->cq[0], cqe);
        cqe_check(cqe, MLX5_CQE_RESP_ERR, &r->qp[0], MLX5_SYND_WR_FLUSH);
        rig_stop(r);
    }
}

/* The largest request that the capabilities allow, which fills the queue. */
static void test_largest_request(void)
{
    enum { PIECES = MLX5_MAX_SQ_WQE / MLX5_SEG_BYTES - 2, PIECE = 24 };
    Rig *r = rig_start();
    uint8_t wqe[MLX5_MAX_SQ_WQE] = { 0 };
    uint32_t n = 16;

    fset(wqe_ctrl, wqe, opcode, MLX5_WQE_WRITE);
    n += raddr_seg(wqe + n, r->key, BUF_B);
    for (unsigned i = 0; i < PIECES; i++) {
        n += data_seg(wqe + n, r->key, BUF_A + i * PIECE, PIECE);
    }
    g_assert_cmpuint(n, ==, sizeof(wqe));
    for (unsigned i = 0; i < 2; i++) {
        fill(r, BUF_A, PIECES * PIECE, i);
        qp_post(r->h, &r->qp[0], wqe, sizeof(wqe));
        expect_send(r, 0);
        check_same(r, BUF_A, BUF_B, PIECES * PIECE);
    }
    /* Flushed as a whole, or with a key that fails, as any other. */
    data_seg(wqe + 32, r->key ^ 1, BUF_A, PIECE);
    qp_post(r->h, &r->qp[0], wqe, sizeof(wqe));
    expect_send(r, MLX5_SYND_LOCAL_PROT);
    for (unsigned i = 0; i < 2; i++) {
        qp_post(r->h, &r->qp[0], wqe, sizeof(wqe));
        expect_send(r, MLX5_SYND_WR_FLUSH);
    }
    rig_stop(r);
}

/*
 * What a queue in the error state flushes: requests of known length, and one
 * completion for all that follows a request whose length is not known.
 */
static void test_flush_malformed(void)
{
    enum { POSTED = 4, OTHERS = 2 };    /* one of which is another QP's */
    Rig *r = rig_start();
    uint8_t wqe[MLX5_WQEBB] = { 0 }, cqe[MLX5_CQE_BYTES];
    Qp *qp = &r->qp[0];

    g_assert_cmphex(cmd_simple(r->h, MLX5_OP_2ERR_QP, qp->id), ==,
                    MLX5_STATUS_OK);
    fset(wqe_ctrl, wqe, opcode, 0x7f);
    for (unsigned i = 0; i < POSTED; i++) {
        qp_queue(r->h, qp, wqe, 16);
    }
    fset(wqe_ctrl, wqe, qpn, qp->id + 1);
    qtest_memwrite(r->h->qts, qp->sq + OTHERS * MLX5_WQEBB, wqe, 16);
    hca_write64(r->h, r->h->uar * 4096 + UAR_SEND, (uint64_t)qp->id << 8);
    for (unsigned i = 0; i <= OTHERS; i++) {
        cq_wait(r->h, &r->cq[0], cqe);
        cqe_check(cqe, MLX5_CQE_REQ_ERR, qp, MLX5_SYND_WR_FLUSH);
        g_assert_cmpuint(fget(cqe, cqe, wqe_counter), ==, i);
    }
    /* That was all. */
    fset(wqe_ctrl, wqe, opcode, MLX5_WQE_NOP);
    qp_post(r->h, qp, wqe, 16);
    cq_wait(r->h, &r->cq[0], cqe);
    g_assert_cmpuint(fget(cqe, cqe, wqe_counter), ==, POSTED);
    rig_stop(r);
}

/* Take permissions for remote operations from a QP. */
static void qp_forbid(Rig *r, const Qp *qp, uint32_t opt)
{
    uint8_t in[PAS] = { 0 };

    g_assert_cmphex(qp_command(r->h, qp, MLX5_OP_RTS2RTS_QP, in, opt), ==,
                    MLX5_STATUS_OK);
}

/*
 * What a QP does not permit at all is an invalid request, whatever its key;
 * what a key does not allow is an access error.
 */
static void test_permission(void)
{
    static const struct {
        unsigned opcode;
        uint32_t opt;           /* the permission that it needs */
    } cases[] = {
        { MLX5_WQE_WRITE, MLX5_QP_OPT_RWE },
        { MLX5_WQE_WRITE_IMM, MLX5_QP_OPT_RWE },
        { MLX5_WQE_READ, MLX5_QP_OPT_RRE },
        { MLX5_WQE_FETCH_ADD, MLX5_QP_OPT_RAE },
        { MLX5_WQE_CMP_SWAP, MLX5_QP_OPT_RAE },
    };
    enum { ALL = MLX5_QP_OPT_RWE | MLX5_QP_OPT_RRE | MLX5_QP_OPT_RAE };

    for (unsigned i = 0; i < ARRAY_SIZE(cases) * 4; i++) {
        const bool forbidden = i & 1, bad_key = i & 2;
        const unsigned opcode = cases[i / 4].opcode;
        const uint32_t opt = cases[i / 4].opt;
        Rig *r = rig_start();
        uint32_t rkey = r->key ^ bad_key;
        uint8_t eqe[MLX5_EQE_BYTES];

        qp_forbid(r, &r->qp[1], forbidden ? opt : ALL & ~opt);
        post_recv(r->h, &r->qp[1], r->key, BUF_B, 8);
        if (opt == MLX5_QP_OPT_RAE) {
            post_atomic(r->h, &r->qp[0], opcode, r->key, BUF_A, rkey, BUF_B,
                        1, 2);
        } else {
            post_rdma(r->h, &r->qp[0], opcode, r->key, BUF_A, 8, rkey, BUF_B);
        }
        expect_send(r, forbidden ? MLX5_SYND_REMOTE_INVALID_REQ :
                       bad_key ? MLX5_SYND_REMOTE_ACCESS : 0);
        if (forbidden || bad_key) {
            expect_event(r, forbidden ? MLX5_EVENT_WQ_INVAL_REQ :
                                        MLX5_EVENT_WQ_ACCESS_ERROR,
                         MLX5_FIELD(eqe, qp_srq_id), r->qp[1].id);
        }
        g_assert_false(ring_poll(r->h, &r->async, eqe, sizeof(eqe)));
        rig_stop(r);
    }
}

static void test_rnr(void)
{
    Rig *r = rig_start();
    uint8_t cqe[MLX5_CQE_BYTES];

    /* Too late, but the sender waits. */
    post_send(r->h, &r->qp[0], r->key, BUF_A, 100);
    post_recv(r->h, &r->qp[1], r->key, BUF_B, 100);
    expect_send(r, 0);
    cq_wait(r->h, &r->cq[1], cqe);
    /* Never: the retry counter runs out. */
    post_send(r->h, &r->qp[0], r->key, BUF_A, 100);
    expect_send(r, MLX5_SYND_RNR_RETRY);
    rig_stop(r);

    /* Too short for the message. */
    r = rig_start();
    post_recv(r->h, &r->qp[1], r->key, BUF_B, 99);
    post_send(r->h, &r->qp[0], r->key, BUF_A, 100);
    expect_send(r, MLX5_SYND_REMOTE_INVALID_REQ);
    cq_wait(r->h, &r->cq[1], cqe);
    cqe_check(cqe, MLX5_CQE_RESP_ERR, &r->qp[1], MLX5_SYND_LOCAL_LENGTH);
    rig_stop(r);

    /* Nobody there. */
    r = rig_start();
    g_assert_cmphex(cmd_simple(r->h, MLX5_OP_DESTROY_QP, r->qp[1].id), ==,
                    MLX5_STATUS_OK);
    post_send(r->h, &r->qp[0], r->key, BUF_A, 100);
    expect_send(r, MLX5_SYND_TRANSPORT_RETRY);
    rig_stop(r);
}

/*
 * The receive queue of a QP in the error state is looked at often right after
 * 2ERR, which is when it is drained, and ever more seldom while nothing comes.
 */
static void test_flush_poll(void)
{
    enum { STEP_NS = 1000 * 1000, STEPS = 8000, POLL_BYTES = 3 * 4 };
    Rig *r = rig_start();
    uint8_t cqe[MLX5_CQE_BYTES];
    uint64_t read;

    for (unsigned late = 0; late < 2; late++) {
        unsigned waited = 0;

        g_assert_cmphex(cmd_simple(r->h, MLX5_OP_2ERR_QP, r->qp[0].id), ==,
                        MLX5_STATUS_OK);
        post_recv(r->h, &r->qp[0], r->key, BUF_A, 1);
        while (!ring_poll(r->h, &r->cq[0], cqe, sizeof(cqe))) {
            g_assert_cmpuint(++waited, <=, 4);
            qtest_clock_step(r->h->qts, STEP_NS);
            g_usleep(1000);
        }
        cqe_check(cqe, MLX5_CQE_RESP_ERR, &r->qp[0], MLX5_SYND_WR_FLUSH);

        read = hca_counter(r->h, "dma-read-host-bytes");
        for (unsigned i = 0; i < STEPS; i++) {
            qtest_clock_step(r->h->qts, STEP_NS);
        }
        g_assert_cmpuint(hca_counter(r->h, "dma-read-host-bytes") - read, <=,
                         20 * POLL_BYTES);
    }
    /* Who posts without 2ERR waits for a second at most. */
    post_recv(r->h, &r->qp[0], r->key, BUF_A, 1);
    qtest_clock_step(r->h->qts, SECOND_NS);
    cq_wait(r->h, &r->cq[0], cqe);
    cqe_check(cqe, MLX5_CQE_RESP_ERR, &r->qp[0], MLX5_SYND_WR_FLUSH);
    rig_stop(r);
}

/* A QP that fails tells when it takes no more from its SRQ. */
static void test_last_wqe(void)
{
    Rig *r = rig_start();
    Queue events = eq_create(r->h, 1ull << MLX5_EVENT_SRQ_LAST_WQE);
    uint32_t xrcd = cmd_alloc(r->h, MLX5_OP_ALLOC_XRCD);
    uint32_t srq = xrc_srq_create(r->h, xrcd, r->pd, &r->cq[0],
                                  pool_alloc(r->h, QUEUE * SRQ_STRIDE),
                                  pool_alloc(r->h, 8));
    uint8_t in[PAS + 8] = { 0 }, eqe[MLX5_EQE_BYTES];
    uint8_t *ctx = in + 0x18;
    Qp qp = { .lid = r->h->lid };

    fset(qpc, ctx, st, MLX5_ST_RC);
    fset(qpc, ctx, no_sq, 1);
    fset(qpc, ctx, rq_type, MLX5_RQ_SRQ);
    fset(qpc, ctx, srqn_rmpn_xrqn, srq);
    fset(qpc, ctx, cqn_snd, r->cq[0].id);
    fset(qpc, ctx, cqn_rcv, r->cq[0].id);
    g_assert_cmphex(cmd_exec(r->h, in, sizeof(in), MLX5_OP_CREATE_QP, 16), ==,
                    MLX5_STATUS_OK);
    qp.id = fget(obj, r->h->out, id);
    /* Not of one that never received. */
    g_assert_cmphex(cmd_simple(r->h, MLX5_OP_2ERR_QP, qp.id), ==,
                    MLX5_STATUS_OK);
    g_assert_cmphex(cmd_simple(r->h, MLX5_OP_2RST_QP, qp.id), ==,
                    MLX5_STATUS_OK);
    qp_connect(r->h, &qp, r->pd, &r->qp[0]);
    g_assert_false(ring_poll(r->h, &events, eqe, sizeof(eqe)));
    g_assert_cmphex(cmd_simple(r->h, MLX5_OP_2ERR_QP, qp.id), ==,
                    MLX5_STATUS_OK);
    ring_wait(r->h, &events, eqe, sizeof(eqe));
    g_assert_cmphex(fget(eqe, eqe, type), ==, MLX5_EVENT_SRQ_LAST_WQE);
    g_assert_cmphex(fget(eqe, eqe, qp_srq_id), ==, qp.id);
    /* Once. */
    g_assert_cmphex(cmd_simple(r->h, MLX5_OP_2ERR_QP, qp.id), ==,
                    MLX5_STATUS_OK);
    qtest_clock_step(r->h->qts, SECOND_NS);
    g_assert_false(ring_poll(r->h, &events, eqe, sizeof(eqe)));
    rig_stop(r);
}

static void set_qkey(Rig *r, const Qp *qp, uint32_t qkey)
{
    uint8_t in[PAS] = { 0 };

    fset(qpc, in + 0x18, q_key, qkey);
    g_assert_cmphex(qp_command(r->h, qp, MLX5_OP_RTS2RTS_QP, in,
                               MLX5_QP_OPT_QKEY), ==, MLX5_STATUS_OK);
}

static void post_datagram_from(Rig *r, Qp *qp, uint32_t lkey, uint64_t addr,
                               uint32_t len, uint32_t qkey, uint32_t qpn)
{
    uint8_t wqe[256] = { 0 };
    uint8_t *av = wqe + 16;

    fset(wqe_ctrl, wqe, opcode, MLX5_WQE_SEND);
    fset(wqe_av, av, qkey, qkey);
    fset(wqe_av, av, extended, 1);
    fset(wqe_av, av, dqpn, qpn);
    fset(wqe_av, av, rlid, r->h->lid);
    qp_post(r->h, qp, wqe, 64 + data_seg(wqe + 64, lkey, addr, len));
}

/* Send 256 bytes from BUF_A, behind @lkey. */
static void post_datagram(Rig *r, Qp *qp, uint32_t lkey, uint32_t qkey,
                          uint32_t qpn)
{
    post_datagram_from(r, qp, lkey, BUF_A, 256, qkey, qpn);
}

static void two_qps(Rig *r, unsigned service, Queue *cq, Qp *qp)
{
    for (unsigned i = 0; i < 2; i++) {
        cq[i] = cq_create(r->h, &r->async);
        qp[i] = qp_create(r->h, service, r->pd, &cq[i]);
    }
    qp_connect(r->h, &qp[0], r->pd, &qp[1]);
    qp_connect(r->h, &qp[1], r->pd, &qp[0]);
}

/* The global route is in what is asked of a QP, and before a datagram. */
static void test_global_route(void)
{
    enum { TCLASS = 0xa5, FLOW_LABEL = 0x54321, HOPS = 0x3f, GRH = 40 };
    Rig *r = rig_start();
    Queue cq = cq_create(r->h, &r->async), ud_cq = cq_create(r->h, &r->async);
    Qp rc = qp_create(r->h, MLX5_ST_RC, r->pd, &cq);
    Qp ud = qp_create(r->h, MLX5_ST_UD, r->pd, &ud_cq);
    uint8_t in[PAS] = { 0 }, wqe[256] = { 0 }, grh[GRH];
    uint8_t *path = in + 0x18 + 0x18, *av = wqe + 16;
    uint8_t cqe[MLX5_CQE_BYTES];

    g_assert_cmphex(qp_command(r->h, &rc, MLX5_OP_RST2INIT_QP, in, 0), ==,
                    MLX5_STATUS_OK);
    fset(ads, path, grh, 1);
    fset(ads, path, hop_limit, HOPS);
    fset(ads, path, tclass, TCLASS);
    fset(ads, path, flow_label, FLOW_LABEL);
    g_assert_cmphex(qp_command(r->h, &rc, MLX5_OP_INIT2RTR_QP, in, 0), ==,
                    MLX5_STATUS_OK);
    memset(in, 0, sizeof(in));
    g_assert_cmphex(qp_command(r->h, &rc, MLX5_OP_RTR2RTS_QP, in, 0), ==,
                    MLX5_STATUS_OK);
    path = qp_query(r, &rc) + 0x18;
    g_assert_cmphex(fget(ads, path, grh), ==, 1);
    g_assert_cmphex(fget(ads, path, hop_limit), ==, HOPS);
    g_assert_cmphex(fget(ads, path, tclass), ==, TCLASS);
    g_assert_cmphex(fget(ads, path, flow_label), ==, FLOW_LABEL);

    qp_connect(r->h, &ud, r->pd, &ud);
    post_recv(r->h, &ud, r->key, BUF_B, 256 + GRH);
    fset(wqe_ctrl, wqe, opcode, MLX5_WQE_SEND);
    fset(wqe_av, av, extended, 1);
    fset(wqe_av, av, dqpn, ud.id);
    fset(wqe_av, av, rlid, r->h->lid);
    fset(wqe_av, av, grh, 1);
    fset(wqe_av, av, hop_limit, HOPS);
    fset(wqe_av, av, tclass, TCLASS);
    fset(wqe_av, av, flow_label, FLOW_LABEL);
    qp_post(r->h, &ud, wqe, 64 + data_seg(wqe + 64, r->key, BUF_A, 256));
    cq_wait(r->h, &ud_cq, cqe);
    cqe_check(cqe, MLX5_CQE_RESP_SEND, &ud, 0);
    g_assert_cmphex(fget(cqe, cqe, grh), ==, 1);
    qtest_memread(r->h->qts, BUF_B, grh, sizeof(grh));
    g_assert_cmphex(ldl_be_p(grh), ==, 6u << 28 | TCLASS << 20 | FLOW_LABEL);
    g_assert_cmphex(grh[7], ==, HOPS);
    rig_stop(r);
}

/* A send error of a datagram stops the send queue only, until it is told. */
static void test_send_error(void)
{
    Rig *r = rig_start();
    Queue cq[2];
    Qp ud[2];
    uint8_t in[PAS] = { 0 }, cqe[MLX5_CQE_BYTES];

    two_qps(r, MLX5_ST_UD, cq, ud);
    post_datagram(r, &ud[0], r->key ^ 1, 0, ud[1].id);
    cq_wait(r->h, &cq[0], cqe);
    cqe_check(cqe, MLX5_CQE_REQ_ERR, &ud[0], MLX5_SYND_LOCAL_PROT);
    post_datagram(r, &ud[0], r->key, 0, ud[1].id);
    cq_wait(r->h, &cq[0], cqe);
    cqe_check(cqe, MLX5_CQE_REQ_ERR, &ud[0], MLX5_SYND_WR_FLUSH);

    post_recv(r->h, &ud[0], r->key, BUF_B, 256 + 40);
    post_datagram(r, &ud[1], r->key, 0, ud[0].id);
    cq_wait(r->h, &cq[1], cqe);
    cqe_check(cqe, MLX5_CQE_REQ, &ud[1], 0);
    cq_wait(r->h, &cq[0], cqe);
    cqe_check(cqe, MLX5_CQE_RESP_SEND, &ud[0], 0);

    g_assert_cmphex(qp_command(r->h, &ud[0], MLX5_OP_SQERR2RTS_QP, in, 0), ==,
                    MLX5_STATUS_OK);
    post_datagram(r, &ud[0], r->key, 0, ud[1].id);
    cq_wait(r->h, &cq[0], cqe);
    cqe_check(cqe, MLX5_CQE_REQ, &ud[0], 0);
    rig_stop(r);
}

/* A datagram that is too long is lost; the request serves the next one. */
static void test_datagram_too_long(void)
{
    enum { SHORT = 100, LONG = 256, GRH = 40, LOST = -1 };
    static const struct {
        uint32_t len;
        int index;              /* of the request that takes it */
    } sent[] = {
        { LONG, LOST }, { SHORT + 1, LOST }, { SHORT, 0 }, { LONG, 1 },
    };
    Rig *r = rig_start();
    uint8_t cqe[MLX5_CQE_BYTES];
    Queue cq[2];
    Qp ud[2];

    two_qps(r, MLX5_ST_UD, cq, ud);
    post_recv(r->h, &ud[1], r->key, BUF_B, SHORT + GRH);
    post_recv(r->h, &ud[1], r->key, BUF_B, LONG + GRH);
    for (unsigned i = 0; i < ARRAY_SIZE(sent); i++) {
        fill(r, BUF_A, LONG, i);
        post_datagram_from(r, &ud[0], r->key, BUF_A, sent[i].len, 0, ud[1].id);
        cq_wait(r->h, &cq[0], cqe);
        cqe_check(cqe, MLX5_CQE_REQ, &ud[0], 0);
        if (sent[i].index == LOST) {
            g_assert_false(ring_poll(r->h, &cq[1], cqe, sizeof(cqe)));
            continue;
        }
        cq_wait(r->h, &cq[1], cqe);
        cqe_check(cqe, MLX5_CQE_RESP_SEND, &ud[1], 0);
        g_assert_cmpint(fget(cqe, cqe, wqe_counter), ==, sent[i].index);
        g_assert_cmpuint(fget(cqe, cqe, byte_count), ==, sent[i].len + GRH);
        check_same(r, BUF_A, BUF_B + GRH, sent[i].len);
    }
    rig_stop(r);
}

/* Whoever sends to QP1 needs its Q_Key, as to any other QP. */
static void test_qkey(void)
{
    enum { OWN_KEY = 1u << 31, QP1_KEY = 0x80010000u };
    static const struct {
        uint32_t own;
        uint32_t key;           /* in the address vector */
        bool delivered;
    } cases[] = {
        { 5, 5, false },
        { 5, QP1_KEY, false },  /* which asks for its own */
        { 5, 0, false },
        { QP1_KEY, OWN_KEY, true },
    };
    Rig *r = rig_start();
    Queue cq = cq_create(r->h, &r->async), ud_cq = cq_create(r->h, &r->async);
    Qp qp1 = qp_create(r->h, MLX5_ST_QP1, r->pd, &cq);
    Qp ud = qp_create(r->h, MLX5_ST_UD, r->pd, &ud_cq);
    uint8_t cqe[MLX5_CQE_BYTES];

    qp_connect(r->h, &qp1, r->pd, &qp1);
    qp_connect(r->h, &ud, r->pd, &qp1);
    set_qkey(r, &qp1, QP1_KEY);
    post_recv(r->h, &qp1, r->key, BUF_B, 256 + 40);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        set_qkey(r, &ud, cases[i].own);
        post_datagram(r, &ud, r->key, cases[i].key, 1);
        cq_wait(r->h, &ud_cq, cqe);
        cqe_check(cqe, MLX5_CQE_REQ, &ud, 0);
        /* It was delivered before it completed, or never is. */
        g_assert_cmpint(ring_poll(r->h, &cq, cqe, sizeof(cqe)), ==,
                        cases[i].delivered);
    }
    cqe_check(cqe, MLX5_CQE_RESP_SEND, &qp1, 0);
    rig_stop(r);
}

/* A datagram to its sender arrives, before the sender has sent it. */
static void expect_to_itself(Rig *r, Qp *qp, Queue *cq, uint32_t qkey,
                             uint32_t qpn)
{
    uint8_t cqe[MLX5_CQE_BYTES];

    fill(r, BUF_A, 256, qpn);
    post_recv(r->h, qp, r->key, BUF_B, 256 + 40);
    post_datagram(r, qp, r->key, qkey, qpn);
    cq_wait(r->h, cq, cqe);
    cqe_check(cqe, MLX5_CQE_RESP_SEND, qp, 0);
    g_assert_cmphex(fget(cqe, cqe, rqpn), ==, qpn);
    cq_wait(r->h, cq, cqe);
    cqe_check(cqe, MLX5_CQE_REQ, qp, 0);
    check_same(r, BUF_A, BUF_B + 40, 256);
}

static void test_to_itself(void)
{
    enum { QKEY = 0x1234 };
    Rig *r = rig_start();
    Queue cq = cq_create(r->h, &r->async), ud_cq = cq_create(r->h, &r->async);
    Qp qp1 = qp_create(r->h, MLX5_ST_QP1, r->pd, &cq);
    Qp ud = qp_create(r->h, MLX5_ST_UD, r->pd, &ud_cq);

    qp_connect(r->h, &qp1, r->pd, &qp1);
    qp_connect(r->h, &ud, r->pd, &ud);
    set_qkey(r, &qp1, QKEY);
    set_qkey(r, &ud, QKEY);
    expect_to_itself(r, &ud, &ud_cq, QKEY, ud.id);
    expect_to_itself(r, &qp1, &cq, QKEY, 1);
    rig_stop(r);
}

/* Have @n requests of @qp, which is connected to itself, complete. */
static void post_many(Rig *r, Qp *qp, unsigned n)
{
    while (n--) {
        post_rdma(r->h, qp, MLX5_WQE_WRITE, r->key, BUF_A, 8, r->key, BUF_B);
    }
}

static void expect_many(Rig *r, Queue *cq, const Qp *qp, unsigned n)
{
    uint8_t cqe[MLX5_CQE_BYTES];

    while (n--) {
        cq_wait(r->h, cq, cqe);
        cqe_check(cqe, MLX5_CQE_REQ, qp, 0);
    }
}

static void expect_psns(Rig *r, const Qp *qp, uint32_t send, uint32_t recv)
{
    const uint8_t *ctx = qp_query(r, qp);

    g_assert_cmphex(fget(qpc, ctx, next_send_psn), ==, send);
    g_assert_cmphex(fget(qpc, ctx, next_rcv_psn), ==, recv);
}

static void qp_reset(Rig *r, Qp *qp)
{
    g_assert_cmphex(cmd_simple(r->h, MLX5_OP_2RST_QP, qp->id), ==,
                    MLX5_STATUS_OK);
    qp->sq_pi = qp->rq_pi = 0;
    put_be32(r->h, qp->dbr, 0);
    put_be32(r->h, qp->dbr + 4, 0);
}

/*
 * PSNs count packets of 4096 bytes.  Who has others than a reliable QP expects
 * does not reach it; an unreliable QP takes them over.
 */
static void test_psn(void)
{
    enum { FIRST = 0xfffffd, BACK = 0x123456, MASK = 0xffffff };
    static const struct {
        unsigned opcode;
        uint32_t len;
        uint32_t packets;
    } sent[] = {
        { MLX5_WQE_SEND, 0x1001, 2 },
        { MLX5_WQE_WRITE, 0x1000, 1 },
        { MLX5_WQE_READ, 0x4800, 5 },
        { MLX5_WQE_FETCH_ADD, 8, 1 },
        { MLX5_WQE_WRITE_IMM, 1, 1 },
    };
    Rig *r = rig_start();
    uint8_t cqe[MLX5_CQE_BYTES];
    uint32_t psn = FIRST;
    Queue cq[2];
    Qp *qp = r->qp, uc[2];

    for (unsigned i = 0; i < 2; i++) {
        qp_reset(r, &qp[i]);
    }
    qp_connect_psn(r->h, &qp[0], r->pd, &qp[1], FIRST, BACK);
    qp_connect_psn(r->h, &qp[1], r->pd, &qp[0], BACK, FIRST);
    for (unsigned i = 0; i < ARRAY_SIZE(sent); i++) {
        const bool takes = sent[i].opcode == MLX5_WQE_SEND ||
                           sent[i].opcode == MLX5_WQE_WRITE_IMM;

        if (takes) {
            post_recv(r->h, &qp[1], r->key, BUF_B, sent[i].len);
        }
        if (sent[i].opcode == MLX5_WQE_SEND) {
            post_send(r->h, &qp[0], r->key, BUF_A, sent[i].len);
        } else if (sent[i].opcode == MLX5_WQE_FETCH_ADD) {
            post_atomic(r->h, &qp[0], sent[i].opcode, r->key, BUF_A, r->key,
                        BUF_B, 1, 0);
        } else {
            post_rdma(r->h, &qp[0], sent[i].opcode, r->key, BUF_A,
                      sent[i].len, r->key, BUF_B);
        }
        expect_send(r, 0);
        if (takes) {
            cq_wait(r->h, &r->cq[1], cqe);
        }
        psn = (psn + sent[i].packets) & MASK;
        expect_psns(r, &qp[0], psn, BACK);
        expect_psns(r, &qp[1], BACK, psn);
    }

    /* A new connection of the one is none of the other's. */
    qp_reset(r, &qp[1]);
    expect_psns(r, &qp[1], 0, 0);
    qp_connect_psn(r->h, &qp[1], r->pd, &qp[0], BACK, FIRST);
    post_recv(r->h, &qp[1], r->key, BUF_B, 64);
    fill(r, BUF_A, 64, 1);
    fill(r, BUF_B, 64, 2);
    fill(r, BUF_B + 64, 64, 2);
    post_send(r->h, &qp[0], r->key, BUF_A, 64);
    expect_send(r, MLX5_SYND_TRANSPORT_RETRY);
    check_same(r, BUF_B, BUF_B + 64, 64);
    qp_reset(r, &qp[0]);
    qp_connect_psn(r->h, &qp[0], r->pd, &qp[1], FIRST, BACK);
    post_send(r->h, &qp[0], r->key, BUF_A, 64);
    expect_send(r, 0);
    cq_wait(r->h, &r->cq[1], cqe);
    cqe_check(cqe, MLX5_CQE_RESP_SEND, &qp[1], 0);
    check_same(r, BUF_A, BUF_B, 64);

    two_qps(r, MLX5_ST_UC, cq, uc);
    qp_reset(r, &uc[0]);
    qp_connect_psn(r->h, &uc[0], r->pd, &uc[1], FIRST, 0);
    post_rdma(r->h, &uc[0], MLX5_WQE_WRITE, r->key, BUF_A, 0x4000, r->key,
              BUF_B);
    expect_many(r, &cq[0], &uc[0], 1);
    expect_psns(r, &uc[0], (FIRST + 4) & MASK, 0);
    expect_psns(r, &uc[1], 0, (FIRST + 4) & MASK);
    rig_stop(r);
}

static void test_cqe_size(void)
{
    Rig *r = rig_start();
    Queue cq = cq_create_sized(r->h, &r->async, 2, 128);
    Qp qp = qp_create(r->h, MLX5_ST_RC, r->pd, &cq);

    qp_connect(r->h, &qp, r->pd, &qp);
    for (unsigned i = 0; i < 5; i++) {
        post_many(r, &qp, 2);
        expect_many(r, &cq, &qp, 2);
    }
    rig_stop(r);
}

/*
 * A QP one of whose completions finds its CQ full is in the error state, and
 * nobody is told that what it did not report has been done.
 */
static void test_cq_overrun(void)
{
    enum { LOG_SIZE = 1, SIZE = 1 << LOG_SIZE, SENDER = 0, RECEIVER = 1 };
    static const struct {
        unsigned service;
        unsigned small;         /* whose CQ is */
        unsigned syndrome;      /* of the last request */
    } cases[] = {
        { MLX5_ST_RC, RECEIVER, MLX5_SYND_REMOTE_OP },
        { MLX5_ST_UC, RECEIVER, 0 },
        { MLX5_ST_RC, SENDER, 0 },
        { MLX5_ST_UC, SENDER, 0 },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        Rig *r = rig_start();
        uint8_t cqe[MLX5_CQE_BYTES], eqe[MLX5_EQE_BYTES];
        const unsigned small = cases[i].small;
        Queue cq[2];
        Qp qp[2];

        for (unsigned j = 0; j < 2; j++) {
            cq[j] = cq_create_sized(r->h, &r->async,
                                    j == small ? LOG_SIZE : LOG_QUEUE,
                                    MLX5_CQE_BYTES);
            qp[j] = qp_create(r->h, cases[i].service, r->pd, &cq[j]);
        }
        qp_connect(r->h, &qp[SENDER], r->pd, &qp[RECEIVER]);
        qp_connect(r->h, &qp[RECEIVER], r->pd, &qp[SENDER]);
        for (unsigned j = 0; j <= SIZE; j++) {
            post_recv(r->h, &qp[RECEIVER], r->key, BUF_B, 64);
            post_send(r->h, &qp[SENDER], r->key, BUF_A, 64);
        }
        if (small == RECEIVER) {
            expect_many(r, &cq[SENDER], &qp[SENDER], SIZE);
            cq_wait(r->h, &cq[SENDER], cqe);
            cqe_check(cqe, cases[i].syndrome ? MLX5_CQE_REQ_ERR :
                      MLX5_CQE_REQ, &qp[SENDER], cases[i].syndrome);
        }
        expect_event(r, MLX5_EVENT_CQ_ERROR, MLX5_FIELD(eqe, cq_error_cqn),
                     cq[small].id);
        expect_event(r, MLX5_EVENT_WQ_CATAS_ERROR,
                     MLX5_FIELD(eqe, qp_srq_id), qp[small].id);
        g_assert_cmphex(fget(qpc, qp_query(r, &qp[small]), state), ==,
                        MLX5_QP_ERR);
        /* What is flushed then does not fail it once more. */
        post_recv(r->h, &qp[small], r->key, BUF_B, 64);
        qtest_clock_step(r->h->qts, SECOND_NS);
        g_assert_false(ring_poll(r->h, &r->async, eqe, sizeof(eqe)));
        rig_stop(r);
    }
}

/* What was not read stays in the old buffer, up to an entry that says so. */
static void expect_resize(Rig *r, Queue old, Queue *cq, const Qp *qp,
                          unsigned left)
{
    uint8_t cqe[MLX5_CQE_BYTES];

    expect_many(r, &old, qp, left);
    ring_wait(r->h, &old, cqe, sizeof(cqe));
    g_assert_cmphex(fget(cqe, cqe, opcode), ==, MLX5_CQE_RESIZE_CQ);
    cq->ci = old.ci;
    put_be32(r->h, cq->dbr, cq->ci);
}

static void test_cq_resize(void)
{
    Rig *r = rig_start();
    Queue cq = cq_create_sized(r->h, &r->async, 2, MLX5_CQE_BYTES), old;
    Queue none = { .id = 0xfff };
    Qp qp = qp_create(r->h, MLX5_ST_RC, r->pd, &cq);
    uint8_t cqe[MLX5_CQE_BYTES];

    qp_connect(r->h, &qp, r->pd, &qp);
    post_many(r, &qp, 3);
    old = cq;
    for (unsigned i = 0; i < 3; i++) {
        ring_wait(r->h, &old, cqe, sizeof(cqe));
    }
    old = cq;
    g_assert_cmphex(cq_resize(r->h, &cq, 3, MLX5_CQE_BYTES), ==,
                    MLX5_STATUS_OK);
    expect_resize(r, old, &cq, &qp, 3);
    /* More than the old one has room for, and then around the new one. */
    post_many(r, &qp, 7);
    expect_many(r, &cq, &qp, 7);
    post_many(r, &qp, 4);
    expect_many(r, &cq, &qp, 4);
    old = cq;
    g_assert_cmphex(cq_resize(r->h, &cq, 1, MLX5_CQE_BYTES), ==,
                    MLX5_STATUS_OK);
    expect_resize(r, old, &cq, &qp, 0);
    for (unsigned i = 0; i < 3; i++) {
        post_many(r, &qp, 1);
        expect_many(r, &cq, &qp, 1);
    }

    /* What is refused leaves the CQ as it was. */
    g_assert_cmphex(cq_resize(r->h, &none, 3, MLX5_CQE_BYTES), ==,
                    MLX5_STATUS_BAD_RES);
    g_assert_cmphex(cmd_simple(r->h, MLX5_OP_MODIFY_CQ, cq.id), ==,
                    MLX5_STATUS_BAD_INPUT_LEN);
    g_assert_cmphex(cq_resize(r->h, &cq, 3, 128), ==, MLX5_STATUS_BAD_PARAM);
    g_assert_cmphex(cq_resize(r->h, &cq, 8, MLX5_CQE_BYTES), ==,
                    MLX5_STATUS_BAD_PARAM);
    post_many(r, &qp, 2);
    old = cq;
    for (unsigned i = 0; i < 2; i++) {
        ring_wait(r->h, &old, cqe, sizeof(cqe));
    }
    g_assert_cmphex(cq_resize(r->h, &cq, 3, MLX5_CQE_BYTES), ==,
                    MLX5_STATUS_BAD_SIZE);
    expect_many(r, &cq, &qp, 2);
    rig_stop(r);
}

static void umr_exec(Rig *r, uint32_t key, const Umr *umr, unsigned syndrome)
{
    uint8_t cqe[MLX5_CQE_BYTES];

    post_umr(r->h, &r->umr, key, r->key, r->pd, umr);
    cq_wait(r->h, &r->umr_cq, cqe);
    cqe_check(cqe, syndrome ? MLX5_CQE_REQ_ERR : MLX5_CQE_REQ, &r->umr,
              syndrome);
}

/* Turn a free mkey into one for @pages pages at @start. */
static void umr_enable(Rig *r, uint32_t key, uint64_t start, uint32_t pages,
                       const uint64_t *entries)
{
    Umr umr = {
        .flags = MLX5_UMR_CHECK_IS_FREE | MLX5_UMR_OFFSET_EN,
        .mask = MLX5_MKEY_MASK_FREE | MLX5_MKEY_MASK_KEY | MLX5_MKEY_MASK_PD |
                MLX5_MKEY_MASK_LEN | MLX5_MKEY_MASK_START_ADDR |
                MLX5_MKEY_MASK_PAGE_SIZE | MLX5_MKEY_MASK_LR |
                MLX5_MKEY_MASK_LW | MLX5_MKEY_MASK_RR | MLX5_MKEY_MASK_RW,
        .start = start,
        .len = pages * 4096,
        .num = 8,
    };

    memcpy(umr.entry, entries, pages * 8);
    umr_exec(r, key, &umr, 0);
}

static void test_umr(void)
{
    const uint64_t va = 0x7f0000400000ull;
    const uint64_t rw = MLX5_MTT_READ | MLX5_MTT_WRITE;
    const uint64_t entries[] = {
        (BUF_B + 0x3000) | rw, (BUF_B + 0x1000) | rw, (BUF_B + 0x2000) | rw,
    };
    const Umr revoke = {
        .flags = MLX5_UMR_INLINE,
        .mask = MLX5_MKEY_MASK_FREE | MLX5_MKEY_MASK_PD,
        .free = true,
    };
    Rig *r = rig_start();
    uint32_t key = mkey_create_umr(r->h, 8);

    umr_enable(r, key, va, 3, entries);
    fill(r, BUF_A, 3 * 4096, 77);
    post_rdma(r->h, &r->qp[0], MLX5_WQE_WRITE, r->key, BUF_A, 3 * 4096, key,
              va);
    expect_send(r, 0);
    check_same(r, BUF_A, BUF_B + 0x3000, 4096);
    check_same(r, BUF_A + 4096, BUF_B + 0x1000, 2 * 4096);
    /* Enabling twice is what CHECK_IS_FREE is for. */
    umr_exec(r, key, &revoke, 0);
    umr_enable(r, key, va, 3, entries);
    post_rdma(r->h, &r->qp[0], MLX5_WQE_READ, r->key, BUF_A, 4096, key,
              va + 4096);
    expect_send(r, 0);
    umr_exec(r, key, &revoke, 0);
    post_rdma(r->h, &r->qp[0], MLX5_WQE_READ, r->key, BUF_A, 4096, key, va);
    expect_send(r, MLX5_SYND_REMOTE_ACCESS);
    umr_exec(r, key, &(Umr) { .flags = MLX5_UMR_CHECK_NOT_FREE },
             MLX5_SYND_LOCAL_PROT);
    rig_stop(r);
}

/* Who may change keys: the kernel, and its RC QPs those of their PD. */
static void test_umr_privilege(void)
{
    static const struct {
        bool user;
        bool other_pd;
        unsigned syndrome;
    } cases[] = {
        { false, false, 0 },
        { false, true, MLX5_SYND_LOCAL_PROT },
        { true, false, MLX5_SYND_LOCAL_QP_OP },
    };
    const uint64_t entries[] = { BUF_B | 3 };
    const Umr revoke = {
        .flags = MLX5_UMR_INLINE,
        .mask = MLX5_MKEY_MASK_FREE,
        .free = true,
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        Rig *r = rig_start();
        uint32_t pd = cases[i].other_pd ?
                      cmd_alloc(r->h, MLX5_OP_ALLOC_PD) : r->pd;
        Queue cq = cq_create(r->h, &r->async);
        Qp qp = (cases[i].user ? qp_create_user : qp_create)
                (r->h, MLX5_ST_RC, pd, &cq);
        uint32_t key = mkey_create_umr(r->h, 8);
        uint8_t cqe[MLX5_CQE_BYTES];

        umr_enable(r, key, 0, 1, entries);
        qp_connect(r->h, &qp, pd, &qp);
        post_umr(r->h, &qp, key, r->key, r->pd, &revoke);
        cq_wait(r->h, &cq, cqe);
        cqe_check(cqe, cases[i].syndrome ? MLX5_CQE_REQ_ERR : MLX5_CQE_REQ,
                  &qp, cases[i].syndrome);
        /* The key is as good as it was, or gone. */
        post_rdma(r->h, &r->qp[0], MLX5_WQE_WRITE, r->key, BUF_A, 4096, key,
                  0);
        expect_send(r, cases[i].syndrome ? 0 : MLX5_SYND_REMOTE_ACCESS);
        rig_stop(r);
    }
}

/* A key of @len bytes at 0 with a list of @octwords in the command. */
static uint32_t mkey_create_list(Rig *r, unsigned mode, unsigned page_shift,
                                 uint64_t len, const uint8_t *list,
                                 uint32_t octwords)
{
    g_autofree uint8_t *in = g_malloc0(PAS + octwords * 16);
    uint8_t *ctx = in + 0x10;

    fset(mkc, ctx, pd, r->pd);
    fset(mkc, ctx, len, len);
    fset(mkc, ctx, access_mode_1_0, mode);
    fset(mkc, ctx, log_page_size, page_shift);
    fset(mkc, ctx, translations_octword_size, octwords);
    fset(create_mkey_in, in, translations_octword_actual_size, octwords);
    memcpy(in + PAS, list, octwords * 16);
    return mkey_create(r->h, in, PAS + octwords * 16);
}

static void klm_set(uint8_t *entry, uint32_t len, uint32_t key, uint64_t va)
{
    stl_be_p(entry, len);
    stl_be_p(entry + 4, key);
    stq_be_p(entry + 8, va);
}

/* A key of @len bytes at 0 that are those at @addr, in @pieces. */
static uint32_t mkey_create_pieces(Rig *r, uint64_t addr, uint32_t len,
                                   uint32_t pieces)
{
    g_autofree uint8_t *list = g_malloc0(pieces * 16);
    uint32_t piece = len / pieces;

    for (unsigned i = 0; i < pieces; i++) {
        klm_set(list + i * 16, i + 1 < pieces ? piece : len - i * piece,
                r->key, addr + i * piece);
    }
    return mkey_create_list(r, MLX5_MKEY_KLM, 0, len, list, pieces);
}

static void umr_klms(Rig *r, uint32_t key, uint32_t index, const uint8_t *klm)
{
    uint64_t list = pool_alloc(r->h, 64);
    uint8_t wqe[256] = { 0 }, cqe[MLX5_CQE_BYTES];

    qtest_memwrite(r->h->qts, list, klm, 64);
    fset(wqe_ctrl, wqe, opcode, MLX5_WQE_UMR);
    fset(wqe_ctrl, wqe, imm, key);
    fset(wqe_umr, wqe + 16, flags, MLX5_UMR_OFFSET_EN);
    fset(wqe_umr, wqe + 16, xlt_octowords, 4);
    fset(wqe_umr, wqe + 16, xlt_offset, index & 0xffff);
    fset(wqe_umr, wqe + 16, xlt_offset_47_16, index >> 16);
    qp_post(r->h, &r->umr, wqe, 128 + data_seg(wqe + 128, r->key, list, 64));
    cq_wait(r->h, &r->umr_cq, cqe);
    cqe_check(cqe, MLX5_CQE_REQ, &r->umr, 0);
}

/* As many KLMs as the capability says, changed one after the other. */
static void test_klm_list(void)
{
    static const struct {
        uint32_t index;
        uint32_t len;
    } klms[] = {
        /* In the order in which they are written */
        { (1 << 18) - 4, 300 }, { 4, 100 }, { 5000, 999 }, { 250, 0 },
        { 5000, 200 }, { 1000, 500 }, { 1000, 0 },
    };
    Rig *r = rig_start();
    uint8_t in[PAS + 8] = { 0 }, *ctx = in + 0x10;
    uint32_t list_size, key;

    g_assert_cmphex(cmd_exec(r->h, in, 16, MLX5_OP_QUERY_HCA_CAP, 4112), ==,
                    MLX5_STATUS_OK);
    list_size = 1u << fget(cmd_hca_cap, r->h->out + 16, log_max_klm_list_size);
    g_assert_cmpuint(list_size, ==, klms[0].index + 4);
    memset(in, 0, sizeof(in));
    fset(mkc, ctx, umr_en, 1);
    fset(mkc, ctx, pd, r->pd);
    fset(mkc, ctx, len, 600);
    fset(mkc, ctx, access_mode_1_0, MLX5_MKEY_KLM);
    fset(mkc, ctx, translations_octword_size, list_size + 1);
    g_assert_cmphex(cmd_exec(r->h, in, sizeof(in), MLX5_OP_CREATE_MKEY, 16),
                    ==, MLX5_STATUS_BAD_PARAM);
    fset(mkc, ctx, translations_octword_size, list_size);
    key = mkey_create(r->h, in, sizeof(in));
    for (unsigned i = 0; i < ARRAY_SIZE(klms); i++) {
        uint8_t list[64] = { 0 };

        klm_set(list, klms[i].len, r->key, BUF_B + klms[i].index);
        umr_klms(r, key, klms[i].index, list);
    }
    fill(r, BUF_A, 600, 7);
    post_rdma(r->h, &r->qp[0], MLX5_WQE_WRITE, r->key, BUF_A, 600, key, 0);
    expect_send(r, 0);
    check_same(r, BUF_A, BUF_B + 4, 100);
    check_same(r, BUF_A + 100, BUF_B + 5000, 200);
    check_same(r, BUF_A + 300, BUF_B + klms[0].index, 300);
    rig_stop(r);
}

/* Nothing is translated in smaller pieces than the adapter's pages. */
static void test_page_shift(void)
{
    static const struct {
        unsigned mode;
        unsigned shift;
        unsigned syndrome;
    } cases[] = {
        { MLX5_MKEY_MTT, 12, 0 },
        { MLX5_MKEY_MTT, 11, MLX5_SYND_REMOTE_ACCESS },
        { MLX5_MKEY_KSM, 12, 0 },
        { MLX5_MKEY_KSM, 11, MLX5_SYND_REMOTE_ACCESS },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        Rig *r = rig_start();
        uint8_t list[16] = { 0 };
        uint32_t key;

        if (cases[i].mode == MLX5_MKEY_KSM) {
            klm_set(list, 0, r->key, BUF_B);
        } else {
            stq_be_p(list, BUF_B);
        }
        key = mkey_create_list(r, cases[i].mode, cases[i].shift, 64, list, 1);
        post_rdma(r->h, &r->qp[0], MLX5_WQE_WRITE, r->key, BUF_A, 64, key, 0);
        expect_send(r, cases[i].syndrome);
        rig_stop(r);
    }
}

/* The list of a UMR, in one piece and in so many that it takes too long. */
static void test_umr_pieces(void)
{
    enum { OCTWORDS = 488, BYTES = OCTWORDS * 16 };
    static const struct {
        uint32_t pieces;
        unsigned syndrome;
    } cases[] = {
        { 1, 0 },
        { OCTWORDS, MLX5_SYND_LOCAL_PROT },
    };
    Rig *r = rig_start();
    uint32_t target = mkey_create_umr(r->h, OCTWORDS * 2);
    uint64_t addr = pool_alloc(r->h, BYTES);

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        uint8_t wqe[256] = { 0 }, cqe[MLX5_CQE_BYTES];
        uint32_t lkey = mkey_create_pieces(r, addr, BYTES, cases[i].pieces);

        fset(wqe_ctrl, wqe, opcode, MLX5_WQE_UMR);
        fset(wqe_ctrl, wqe, imm, target);
        fset(wqe_umr, wqe + 16, xlt_octowords, OCTWORDS);
        qp_post(r->h, &r->umr, wqe, 128 + data_seg(wqe + 128, lkey, 0,
                                                   BYTES));
        cq_wait(r->h, &r->umr_cq, cqe);
        cqe_check(cqe, cases[i].syndrome ? MLX5_CQE_REQ_ERR : MLX5_CQE_REQ,
                  &r->umr, cases[i].syndrome);
    }
    rig_stop(r);
}

/* A datagram is read, and written, in one go: not for ever. */
static void test_datagram_pieces(void)
{
    enum { MANY = 488, BYTES = MANY, GRH = 40 };
    static const struct {
        uint32_t send, recv;    /* pieces of the sender's, the receiver's list */
        bool sent, received;
    } cases[] = {
        { 4, 4, true, true },
        { MANY, 4, false, false },
        { 4, MANY, true, false },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        Rig *r = rig_start();
        uint32_t from = mkey_create_pieces(r, BUF_A, BYTES, cases[i].send);
        uint32_t to = mkey_create_pieces(r, BUF_B, BYTES + GRH, cases[i].recv);
        uint8_t cqe[MLX5_CQE_BYTES];
        Queue cq[2];
        Qp ud[2];

        two_qps(r, MLX5_ST_UD, cq, ud);
        fill(r, BUF_A, BYTES, i);
        post_recv(r->h, &ud[1], to, 0, BYTES + GRH);
        post_datagram_from(r, &ud[0], from, 0, BYTES, 0, ud[1].id);
        cq_wait(r->h, &cq[0], cqe);
        cqe_check(cqe, cases[i].sent ? MLX5_CQE_REQ : MLX5_CQE_REQ_ERR, &ud[0],
                  MLX5_SYND_LOCAL_PROT);
        if (!cases[i].sent) {
            g_assert_false(ring_poll(r->h, &cq[1], cqe, sizeof(cqe)));
        } else {
            cq_wait(r->h, &cq[1], cqe);
            cqe_check(cqe, cases[i].received ? MLX5_CQE_RESP_SEND :
                      MLX5_CQE_RESP_ERR, &ud[1], MLX5_SYND_LOCAL_PROT);
        }
        if (cases[i].received) {
            check_same(r, BUF_A, BUF_B + GRH, BYTES);
        }
        rig_stop(r);
    }
}

/* SEND_INV frees a key of the receiver's, if that allows it. */
static void test_invalidate(void)
{
    static const struct {
        uint64_t mask;
        bool other_pd;
        bool allowed;
    } cases[] = {
        { MLX5_MKEY_MASK_EN_RINVAL, false, true },
        { 0, false, false },
        { MLX5_MKEY_MASK_EN_RINVAL | MLX5_MKEY_MASK_PD, true, false },
    };
    const uint64_t entries[] = { (BUF_B + 0x1000) | 3 };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        Rig *r = rig_start();
        uint32_t key = mkey_create_umr(r->h, 8);
        uint32_t pd = cases[i].other_pd ?
                      cmd_alloc(r->h, MLX5_OP_ALLOC_PD) : r->pd;
        const Umr change = {
            .flags = MLX5_UMR_INLINE,
            .mask = cases[i].mask,
        };
        uint8_t wqe[256] = { 0 }, cqe[MLX5_CQE_BYTES];

        umr_enable(r, key, 0, 1, entries);
        post_umr(r->h, &r->umr, key, r->key, pd, &change);
        cq_wait(r->h, &r->umr_cq, cqe);
        cqe_check(cqe, MLX5_CQE_REQ, &r->umr, 0);

        post_recv(r->h, &r->qp[1], r->key, BUF_B, 64);
        fset(wqe_ctrl, wqe, opcode, MLX5_WQE_SEND_INV);
        fset(wqe_ctrl, wqe, imm, key);
        qp_post(r->h, &r->qp[0], wqe, 16 + data_seg(wqe + 16, r->key, BUF_A,
                                                    64));
        expect_send(r, cases[i].allowed ? 0 : MLX5_SYND_REMOTE_OP);
        cq_wait(r->h, &r->cq[1], cqe);
        if (cases[i].allowed) {
            cqe_check(cqe, MLX5_CQE_RESP_SEND_INV, &r->qp[1], 0);
            g_assert_cmphex(fget(cqe, cqe, immediate), ==, key);
            post_rdma(r->h, &r->qp[0], MLX5_WQE_WRITE, r->key, BUF_A, 64, key,
                      0);
            expect_send(r, MLX5_SYND_REMOTE_ACCESS);
        } else {
            cqe_check(cqe, MLX5_CQE_RESP_ERR, &r->qp[1],
                      MLX5_SYND_LOCAL_ACCESS);
        }
        rig_stop(r);
    }
}

/*
 * What is wrong with an unreliable message is nobody's trouble: the sender
 * does not hear of it, and the receiver goes on, with the same request.
 */
static void test_unreliable_spoilt(void)
{
    enum { SHORT = 64, LONG = 100, PAGES = 2 };
    static const struct {
        unsigned opcode;
        uint32_t key_xor;
        bool other_pd;
        uint64_t raddr;
        uint32_t forbid;
    } cases[] = {
        { .opcode = MLX5_WQE_SEND },            /* too long */
        { .opcode = MLX5_WQE_WRITE, .key_xor = 1 },
        { .opcode = MLX5_WQE_WRITE_IMM, .key_xor = 1 << 20 },
        { .opcode = MLX5_WQE_WRITE, .other_pd = true },
        { .opcode = MLX5_WQE_WRITE_IMM, .raddr = PAGES * 4096 - LONG + 1 },
        { .opcode = MLX5_WQE_WRITE, .raddr = 4096 },    /* absent */
        { .opcode = MLX5_WQE_WRITE_IMM, .forbid = MLX5_QP_OPT_RWE },
    };
    const uint64_t entries[PAGES] = { BUF_B | 3 };
    uint8_t cqe[MLX5_CQE_BYTES], eqe[MLX5_EQE_BYTES];
    Rig *r = rig_start();
    uint32_t key = mkey_create_umr(r->h, 8);
    uint32_t other = mkey_create_pa(r->h, cmd_alloc(r->h, MLX5_OP_ALLOC_PD));
    Queue cq[2];
    Qp uc[2];

    umr_enable(r, key, 0, PAGES, entries);
    /* Nobody wants to hear of page faults. */
    g_assert_cmphex(cmd_simple(r->h, MLX5_OP_DESTROY_EQ, r->faults.id), ==,
                    MLX5_STATUS_OK);
    two_qps(r, MLX5_ST_UC, cq, uc);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        const uint32_t rkey = cases[i].other_pd ? other : key;

        post_recv(r->h, &uc[1], r->key, BUF_B, SHORT);
        qp_forbid(r, &uc[1], cases[i].forbid);
        if (cases[i].opcode == MLX5_WQE_SEND) {
            post_send(r->h, &uc[0], r->key, BUF_A, LONG);
        } else {
            post_rdma(r->h, &uc[0], cases[i].opcode, r->key, BUF_A, LONG,
                      rkey ^ cases[i].key_xor, cases[i].raddr);
        }
        cq_wait(r->h, &cq[0], cqe);
        cqe_check(cqe, MLX5_CQE_REQ, &uc[0], 0);
        g_assert_false(ring_poll(r->h, &cq[1], cqe, sizeof(cqe)));
        g_assert_false(ring_poll(r->h, &r->async, eqe, sizeof(eqe)));

        fill(r, BUF_A, SHORT, i);
        post_send(r->h, &uc[0], r->key, BUF_A, SHORT);
        cq_wait(r->h, &cq[0], cqe);
        cqe_check(cqe, MLX5_CQE_REQ, &uc[0], 0);
        cq_wait(r->h, &cq[1], cqe);
        cqe_check(cqe, MLX5_CQE_RESP_SEND, &uc[1], 0);
        g_assert_cmpuint(fget(cqe, cqe, wqe_counter), ==, i);
        check_same(r, BUF_A, BUF_B, SHORT);
    }

    /* A bad request to receive is the receiver's own fault. */
    post_recv(r->h, &uc[1], r->key ^ 1, BUF_B, SHORT);
    post_send(r->h, &uc[0], r->key, BUF_A, SHORT);
    cq_wait(r->h, &cq[0], cqe);
    cqe_check(cqe, MLX5_CQE_REQ, &uc[0], 0);
    cq_wait(r->h, &cq[1], cqe);
    cqe_check(cqe, MLX5_CQE_RESP_ERR, &uc[1], MLX5_SYND_LOCAL_PROT);
    rig_stop(r);
}

/* Out of the bounds of the key, although the table has entries there. */
static void test_bounds(void)
{
    const uint64_t va = 0x10000;
    const uint64_t entries[] = { BUF_B | 3, (BUF_B + 0x1000) | 3 };
    static const struct {
        int64_t offset;
        uint32_t len;
        unsigned syndrome;
    } cases[] = {
        { 0, 8192, 0 },
        { 8191, 1, 0 },
        { 0, 8193, MLX5_SYND_REMOTE_ACCESS },
        { 8192, 1, MLX5_SYND_REMOTE_ACCESS },
        { -1, 2, MLX5_SYND_REMOTE_ACCESS },
        { INT64_MAX, 4096, MLX5_SYND_REMOTE_ACCESS },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        Rig *r = rig_start();
        uint32_t key = mkey_create_umr(r->h, 8);

        umr_enable(r, key, va, 2, entries);
        post_rdma(r->h, &r->qp[0], MLX5_WQE_WRITE, r->key, BUF_A,
                  cases[i].len, key, va + cases[i].offset);
        expect_send(r, cases[i].syndrome);
        rig_stop(r);
    }
}

static uint64_t fault_wait(Rig *r, uint32_t key, uint64_t va)
{
    uint8_t eqe[MLX5_EQE_BYTES];

    ring_wait(r->h, &r->faults, eqe, sizeof(eqe));
    hca_write(r->h, r->h->uar * 4096 + UAR_EQ_ARM,
              r->faults.id << 24 | r->faults.ci);
    g_assert_cmphex(fget(eqe, eqe, type), ==, MLX5_EVENT_PAGE_FAULT);
    g_assert_cmphex(fget(eqe, eqe, sub_type), ==, 2);
    g_assert_cmphex(fget(eqe, eqe, pf_mkey), ==, key);
    g_assert_cmphex(fget(eqe, eqe, pf_va), ==, va);
    g_assert_cmpuint(fget(eqe, eqe, pf_demand_pages), ==, 1);
    return fget(eqe, eqe, pf_token_47_32) << 32 |
           fget(eqe, eqe, pf_token_31_0);
}

static void fault_resume(Rig *r, uint64_t token, bool error)
{
    uint8_t in[16] = { 0 };

    fset(page_fault_resume_in, in, token_47_32, token >> 32);
    fset(page_fault_resume_in, in, token_31_0, token);
    fset(page_fault_resume_in, in, error, error);
    g_assert_cmphex(cmd_exec(r->h, in, sizeof(in), MLX5_OP_PAGE_FAULT_RESUME,
                             16), ==, MLX5_STATUS_OK);
}

/* No page fault resolves what a datagram finds absent: its receiver fails. */
static void test_datagram_absent(void)
{
    const uint64_t va = 0x555500000000ull;
    const uint64_t entries[4] = { 0 };
    Rig *r = rig_start();
    uint32_t key = mkey_create_umr(r->h, 8);
    uint8_t cqe[MLX5_CQE_BYTES];
    Queue cq[2];
    Qp ud[2];

    umr_enable(r, key, va, 4, entries);
    two_qps(r, MLX5_ST_UD, cq, ud);
    post_recv(r->h, &ud[1], key, va, 4096);
    post_datagram(r, &ud[0], r->key, 0, ud[1].id);
    cq_wait(r->h, &cq[0], cqe);
    cqe_check(cqe, MLX5_CQE_REQ, &ud[0], 0);
    cq_wait(r->h, &cq[1], cqe);
    cqe_check(cqe, MLX5_CQE_RESP_ERR, &ud[1], MLX5_SYND_LOCAL_PROT);
    g_assert_cmpuint(hca_counter(r->h, "page-faults"), ==, 0);
    rig_stop(r);
}

/*
 * The driver knows nothing of faults of the null key: no request may name it,
 * only entries of implicit regions.
 */
static void test_null_key(void)
{
    enum { NULL_KEY = 0x200, SHIFT = 30, INDEX = 3 };
    const uint64_t va = (uint64_t)INDEX << SHIFT | 0x5000;
    uint8_t cqe[MLX5_CQE_BYTES], list[(INDEX + 1) * 16];
    Rig *r = rig_start();
    uint32_t key;

    post_rdma(r->h, &r->qp[0], MLX5_WQE_WRITE, NULL_KEY, BUF_A, 64, r->key,
              BUF_B);
    expect_send(r, MLX5_SYND_LOCAL_PROT);
    g_assert_cmpuint(hca_counter(r->h, "page-faults"), ==, 0);
    rig_stop(r);

    r = rig_start();
    post_rdma(r->h, &r->qp[0], MLX5_WQE_READ, r->key, BUF_A, 64, NULL_KEY,
              BUF_B);
    expect_send(r, MLX5_SYND_REMOTE_ACCESS);
    g_assert_cmpuint(hca_counter(r->h, "page-faults"), ==, 0);
    rig_stop(r);

    r = rig_start();
    post_recv(r->h, &r->qp[1], NULL_KEY, BUF_B, 64);
    post_send(r->h, &r->qp[0], r->key, BUF_A, 64);
    expect_send(r, MLX5_SYND_REMOTE_OP);
    cq_wait(r->h, &r->cq[1], cqe);
    cqe_check(cqe, MLX5_CQE_RESP_ERR, &r->qp[1], MLX5_SYND_LOCAL_PROT);
    g_assert_cmpuint(hca_counter(r->h, "page-faults"), ==, 0);
    rig_stop(r);

    r = rig_start();
    for (unsigned i = 0; i <= INDEX; i++) {
        klm_set(list + i * 16, 0, NULL_KEY, (uint64_t)i << SHIFT);
    }
    key = mkey_create_list(r, MLX5_MKEY_KSM, SHIFT, 4ull << SHIFT, list,
                           INDEX + 1);
    post_rdma(r->h, &r->qp[0], MLX5_WQE_WRITE, key, va, 64, r->key, BUF_B);
    fault_resume(r, fault_wait(r, NULL_KEY, va), true);
    expect_send(r, MLX5_SYND_LOCAL_PROT);
    rig_stop(r);
}

static void map_page(Rig *r, uint32_t key, const uint64_t *entries)
{
    Umr umr = {
        .flags = MLX5_UMR_CHECK_NOT_FREE | MLX5_UMR_OFFSET_EN,
        .num = 8,
    };

    memcpy(umr.entry, entries, 4 * 8);
    umr_exec(r, key, &umr, 0);
}

static void test_page_fault(void)
{
    const uint64_t va = 0x555500000000ull;
    uint64_t entries[4] = { 0, (BUF_B + 0x1000) | 3, 0, 0 };
    Rig *r = rig_start();
    uint32_t key = mkey_create_umr(r->h, 8);
    uint64_t token;

    umr_enable(r, key, va, 4, entries);
    fill(r, BUF_A, 4 * 4096, 5);
    post_rdma(r->h, &r->qp[0], MLX5_WQE_WRITE, r->key, BUF_A + 100,
              3 * 4096, key, va + 100);
    token = fault_wait(r, key, va);
    /* Resumed without a mapping: it faults again. */
    fault_resume(r, token, false);
    token = fault_wait(r, key, va);
    entries[0] = BUF_B | 3;
    map_page(r, key, entries);
    fault_resume(r, token + 1000, false);
    fault_resume(r, token, false);
    /* Two pages on; the entry is read-only first. */
    token = fault_wait(r, key, va + 2 * 4096);
    entries[2] = (BUF_B + 0x2000) | MLX5_MTT_READ;
    map_page(r, key, entries);
    fault_resume(r, token, false);
    token = fault_wait(r, key, va + 2 * 4096);
    entries[2] |= MLX5_MTT_WRITE;
    map_page(r, key, entries);
    fault_resume(r, token, false);
    token = fault_wait(r, key, va + 3 * 4096);
    entries[3] = (BUF_B + 0x3000) | 3;
    map_page(r, key, entries);
    fault_resume(r, token, false);
    expect_send(r, 0);
    check_same(r, BUF_A + 100, BUF_B + 100, 3 * 4096);

    /* Invalidated again, and this time the driver gives up. */
    entries[1] = 0;
    map_page(r, key, entries);
    post_rdma(r->h, &r->qp[0], MLX5_WQE_READ, r->key, BUF_A, 4096, key,
              va + 4096);
    token = fault_wait(r, key, va + 4096);
    fault_resume(r, token, true);
    expect_send(r, MLX5_SYND_REMOTE_OP);
    rig_stop(r);

    /* A QP that goes away while it waits. */
    r = rig_start();
    key = mkey_create_umr(r->h, 8);
    memset(entries, 0, sizeof(entries));
    umr_enable(r, key, va, 4, entries);
    post_rdma(r->h, &r->qp[0], MLX5_WQE_READ, key, va, 4096, r->key, BUF_B);
    token = fault_wait(r, key, va);
    g_assert_cmphex(cmd_simple(r->h, MLX5_OP_DESTROY_QP, r->qp[0].id), ==,
                    MLX5_STATUS_OK);
    fault_resume(r, token, false);
    rig_stop(r);
}

/* The transport scheme: the event names the operation or the request. */
static uint64_t transport_fault(Rig *r, unsigned sub_type, unsigned type,
                                uint32_t committed, uint8_t *eqe)
{
    ring_wait(r->h, &r->faults, eqe, MLX5_EQE_BYTES);
    g_assert_cmphex(fget(eqe, eqe, type), ==, MLX5_EVENT_PAGE_FAULT);
    g_assert_cmpuint(fget(eqe, eqe, sub_type), ==, sub_type);
    g_assert_cmpuint(fget(eqe, eqe, pf_type), ==, type);
    g_assert_cmpuint(fget(eqe, eqe, pf_committed), ==, committed);
    return sub_type ? fget(eqe, eqe, pf_number) :
                      fget(eqe, eqe, pf_wqe_token);
}

static void transport_resume(Rig *r, uint64_t token, unsigned type,
                             uint32_t number, bool error)
{
    uint8_t in[16] = { 0 };

    fset(page_fault_resume_in, in, page_fault_type, type);
    fset(page_fault_resume_in, in, wq_number, number);
    fset(page_fault_resume_in, in, token_31_0, token);
    fset(page_fault_resume_in, in, error, error);
    g_assert_cmphex(cmd_exec(r->h, in, sizeof(in), MLX5_OP_PAGE_FAULT_RESUME,
                             16), ==, MLX5_STATUS_OK);
}

static void test_transport_fault(void)
{
    const uint64_t va = 0x555500000000ull;
    uint64_t entries[4] = { BUF_B | 3, 0, 0, 0 };
    Rig *r = rig_start_with(",transport-faults=on");
    uint32_t key = mkey_create_umr(r->h, 8);
    uint8_t eqe[MLX5_EQE_BYTES];
    uint16_t index;
    uint64_t token;

    umr_enable(r, key, va, 4, entries);
    fill(r, BUF_A, 2 * 4096, 5);
    /* The responder of an RDMA write, after the first page. */
    post_rdma(r->h, &r->qp[0], MLX5_WQE_WRITE, r->key, BUF_A, 2 * 4096, key,
              va);
    token = transport_fault(r, 1, 2, 4096, eqe);
    g_assert_cmphex(fget(eqe, eqe, pf_rdma_key), ==, key);
    g_assert_cmphex(fget(eqe, eqe, pf_rdma_va), ==, va);
    g_assert_cmpuint(fget(eqe, eqe, pf_rdma_length), ==, 2 * 4096);
    entries[1] = (BUF_B + 0x1000) | 3;
    map_page(r, key, entries);
    transport_resume(r, token, 2, token, false);
    expect_send(r, 0);
    check_same(r, BUF_A, BUF_B, 2 * 4096);
    /* The initiator's own memory, with the request's place in the queue. */
    index = r->qp[0].sq_pi;
    post_rdma(r->h, &r->qp[0], MLX5_WQE_READ, key, va + 2 * 4096, 4096,
              r->key, BUF_A);
    token = transport_fault(r, 0, 3, 0, eqe);
    g_assert_cmpuint(fget(eqe, eqe, pf_wqe_index), ==, index);
    g_assert_cmphex(fget(eqe, eqe, pf_number), ==, r->qp[0].id);
    entries[2] = (BUF_B + 0x2000) | 3;
    map_page(r, key, entries);
    transport_resume(r, token, 3, r->qp[0].id, false);
    expect_send(r, 0);
    check_same(r, BUF_A, BUF_B + 0x2000, 4096);
    /* A receive request; the driver cannot resolve it. */
    post_recv(r->h, &r->qp[1], key, va + 3 * 4096, 4096);
    post_send(r->h, &r->qp[0], r->key, BUF_A, 100);
    token = transport_fault(r, 0, 2, 0, eqe);
    g_assert_cmphex(fget(eqe, eqe, pf_number), ==, r->qp[1].id);
    g_assert_cmpuint(fget(eqe, eqe, pf_wqe_index), ==, 0);
    transport_resume(r, token, 2, r->qp[1].id, true);
    expect_send(r, MLX5_SYND_REMOTE_OP);
    rig_stop(r);
}

/*
 * A request that waits for a page of a QP that goes away does not wait for its
 * driver, which forgets the fault with the QP.
 */
static void test_responder_gone(void)
{
    static const struct {
        const char *options;
        unsigned opcode;
    } cases[] = {
        { "", MLX5_OP_2RST_QP },
        { "", MLX5_OP_2ERR_QP },
        { "", MLX5_OP_DESTROY_QP },
        { ",transport-faults=on", MLX5_OP_2RST_QP },
        { ",transport-faults=on", MLX5_OP_DESTROY_QP },
    };
    const uint64_t va = 0x555500000000ull;
    const uint64_t entries[4] = { 0 };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        Rig *r = rig_start_with(cases[i].options);
        uint32_t key = mkey_create_umr(r->h, 8);
        uint8_t eqe[MLX5_EQE_BYTES];

        umr_enable(r, key, va, 4, entries);
        post_recv(r->h, &r->qp[1], key, va, 4096);
        post_send(r->h, &r->qp[0], r->key, BUF_A, 100);
        ring_wait(r->h, &r->faults, eqe, sizeof(eqe));
        g_assert_cmphex(fget(eqe, eqe, type), ==, MLX5_EVENT_PAGE_FAULT);
        g_assert_cmphex(cmd_simple(r->h, cases[i].opcode, r->qp[1].id), ==,
                        MLX5_STATUS_OK);
        expect_send(r, MLX5_SYND_TRANSPORT_RETRY);
        rig_stop(r);
    }
}

/*
 * What the driver says of a fault is about the QP that had it, not about the
 * one that comes in its place: here when the QP goes before the fault is
 * resumed, and between that and the effect.
 */
static void test_responder_replaced(void)
{
    const uint64_t va = 0x555500000000ull;

    for (unsigned before = 0; before < 2; before++) {
        Rig *r = rig_start();
        uint32_t key = mkey_create_umr(r->h, 8);
        uint64_t entries[4] = { 0 }, token;
        uint8_t cqe[MLX5_CQE_BYTES];

        umr_enable(r, key, va, 4, entries);
        fill(r, BUF_A, 64, 5);
        post_rdma(r->h, &r->qp[0], MLX5_WQE_WRITE, r->key, BUF_A, 64, key, va);
        token = fault_wait(r, key, va);
        entries[0] = BUF_B | 3;
        map_page(r, key, entries);
        if (before) {
            g_assert_cmphex(cmd_simple(r->h, MLX5_OP_2RST_QP, r->qp[1].id), ==,
                            MLX5_STATUS_OK);
            fault_resume(r, token, true);
        } else {
            hca_inject(r->h, "inject-fault-delay", SECOND_NS);
            fault_resume(r, token, true);
            g_assert_cmphex(cmd_simple(r->h, MLX5_OP_2RST_QP, r->qp[1].id), ==,
                            MLX5_STATUS_OK);
            qtest_clock_step(r->h->qts, SECOND_NS);
        }
        g_assert_false(ring_poll(r->h, &r->cq[0], cqe, sizeof(cqe)));
        qp_connect(r->h, &r->qp[1], r->pd, &r->qp[0]);
        expect_send(r, 0);
        check_same(r, BUF_A, BUF_B, 64);
        rig_stop(r);
    }
}

/* ------------------------------------------------------------------ */
/* XRC */

static void post_xrc_send(Hca *h, Qp *qp, uint32_t srq, uint32_t key,
                          uint64_t addr, uint32_t len)
{
    uint8_t wqe[256] = { 0 };

    fset(wqe_ctrl, wqe, opcode, MLX5_WQE_SEND);
    fset(wqe_xrc, wqe + 16, srqn, srq);
    qp_post(h, qp, wqe, 32 + data_seg(wqe + 32, key, addr, len));
}

static void test_xrc(void)
{
    Rig *r = rig_start();
    uint32_t xrcd = cmd_alloc(r->h, MLX5_OP_ALLOC_XRCD);
    uint32_t other = cmd_alloc(r->h, MLX5_OP_ALLOC_XRCD);
    uint64_t wqes = pool_alloc(r->h, QUEUE * 32), dbr = pool_alloc(r->h, 8);
    uint8_t cqe[MLX5_CQE_BYTES], wqe[32] = { 0 };
    uint32_t srq = xrc_srq_create(r->h, xrcd, r->pd, &r->cq[1], wqes, dbr);
    uint32_t stranger = xrc_srq_create(r->h, other, r->pd, &r->cq[1],
                                       pool_alloc(r->h, QUEUE * 32),
                                       pool_alloc(r->h, 8));
    Qp target = xrc_target_create(r->h, xrcd, srq, &r->umr_cq);
    Qp initiator = qp_create(r->h, MLX5_ST_XRC, r->pd, &r->cq[0]);

    qp_connect(r->h, &initiator, r->pd, &target);
    qp_connect(r->h, &target, 0, &initiator);
    data_seg(wqe + 16, r->key, BUF_B, 1000);
    qtest_memwrite(r->h->qts, wqes, wqe, sizeof(wqe));
    put_be32(r->h, dbr, 1);
    fill(r, BUF_A, 1000, 3);
    post_xrc_send(r->h, &initiator, srq, r->key, BUF_A, 1000);
    cq_wait(r->h, &r->cq[0], cqe);
    cqe_check(cqe, MLX5_CQE_REQ, &initiator, 0);
    /* Completes where the SRQ says, with both numbers. */
    cq_wait(r->h, &r->cq[1], cqe);
    cqe_check(cqe, MLX5_CQE_RESP_SEND, &target, 0);
    g_assert_cmphex(fget(cqe, cqe, srqn), ==, srq);
    check_same(r, BUF_A, BUF_B, 1000);
    /* An SRQ of another XRC domain. */
    post_xrc_send(r->h, &initiator, stranger, r->key, BUF_A, 8);
    cq_wait(r->h, &r->cq[0], cqe);
    cqe_check(cqe, MLX5_CQE_REQ_ERR, &initiator,
              MLX5_SYND_REMOTE_INVALID_REQ);
    rig_stop(r);
}

/*
 * An initiator is reset within a message that waits for a page of the receive
 * request; what it sends then to another SRQ is not for that request.
 */
static void test_xrc_other_srq(void)
{
    const uint64_t va = 0x555500000000ull;
    const uint64_t entries[4] = { 0 };
    Rig *r = rig_start();
    uint32_t xrcd = cmd_alloc(r->h, MLX5_OP_ALLOC_XRCD);
    uint32_t key = mkey_create_umr(r->h, 8);
    uint8_t cqe[MLX5_CQE_BYTES], wqe[32] = { 0 };
    uint64_t wqes[2], dbr[2];
    uint32_t srq[2], pd[2];
    Qp target, initiator;

    for (unsigned i = 0; i < 2; i++) {
        wqes[i] = pool_alloc(r->h, QUEUE * SRQ_STRIDE);
        dbr[i] = pool_alloc(r->h, 8);
        pd[i] = i ? cmd_alloc(r->h, MLX5_OP_ALLOC_PD) : r->pd;
        srq[i] = xrc_srq_create(r->h, xrcd, pd[i], &r->cq[1], wqes[i], dbr[i]);
        data_seg(wqe + 16, i ? mkey_create_pa(r->h, pd[i]) : key,
                 i ? BUF_B : va, 1000);
        qtest_memwrite(r->h->qts, wqes[i], wqe, sizeof(wqe));
        put_be32(r->h, dbr[i], 1);
    }
    umr_enable(r, key, va, 4, entries);
    target = xrc_target_create(r->h, xrcd, srq[0], &r->umr_cq);
    initiator = qp_create(r->h, MLX5_ST_XRC, r->pd, &r->cq[0]);
    qp_connect(r->h, &initiator, r->pd, &target);
    qp_connect(r->h, &target, 0, &initiator);

    post_xrc_send(r->h, &initiator, srq[0], r->key, BUF_A, 1000);
    fault_wait(r, key, va);
    g_assert_cmphex(cmd_simple(r->h, MLX5_OP_2RST_QP, initiator.id), ==,
                    MLX5_STATUS_OK);
    initiator.sq_pi = 0;
    put_be32(r->h, initiator.dbr + 4, 0);
    qp_connect(r->h, &initiator, r->pd, &target);
    post_xrc_send(r->h, &initiator, srq[1], r->key, BUF_A, 1000);
    cq_wait(r->h, &r->cq[0], cqe);
    cqe_check(cqe, MLX5_CQE_REQ_ERR, &initiator,
              MLX5_SYND_REMOTE_INVALID_REQ);
    cq_wait(r->h, &r->cq[1], cqe);
    cqe_check(cqe, MLX5_CQE_RESP_ERR, &target, MLX5_SYND_LOCAL_QP_OP);
    g_assert_cmphex(fget(cqe, cqe, srqn), ==, srq[0]);
    rig_stop(r);
}

/* ------------------------------------------------------------------ */
/* Error injection */

static void test_inject(void)
{
    Rig *r = rig_start();
    uint8_t cqe[MLX5_CQE_BYTES];
    const uint64_t entries[] = { BUF_B | 3 };
    uint32_t key = mkey_create_umr(r->h, 8);

    /* Dropped: the work is done all the same. */
    hca_inject(r->h, "inject-drop-completions", 1);
    fill(r, BUF_A, 64, 1);
    post_rdma(r->h, &r->qp[0], MLX5_WQE_WRITE, r->key, BUF_A, 64, r->key,
              BUF_B);
    post_rdma(r->h, &r->qp[0], MLX5_WQE_WRITE, r->key, BUF_A, 64, r->key,
              BUF_B + 4096);
    cq_wait(r->h, &r->cq[0], cqe);
    g_assert_cmpuint(fget(cqe, cqe, wqe_counter), ==, 1);
    check_same(r, BUF_A, BUF_B, 64);
    g_assert_cmpuint(hca_counter(r->h, "inject-drop-completions"), ==, 0);

    /* Delayed by a second of virtual time. */
    hca_inject(r->h, "inject-completion-delay", SECOND_NS);
    post_rdma(r->h, &r->qp[0], MLX5_WQE_WRITE, r->key, BUF_A, 64, r->key,
              BUF_B + 8192);
    check_same(r, BUF_A, BUF_B + 8192, 64);
    qtest_clock_step(r->h->qts, SECOND_NS - 1000000);
    g_assert_false(ring_poll(r->h, &r->cq[0], cqe, sizeof(cqe)));
    hca_inject(r->h, "inject-completion-delay", 0);
    qtest_clock_step(r->h->qts, 2000000);
    expect_send(r, 0);

    /* A UMR fails, and the next one does not. */
    hca_inject(r->h, "inject-fail-umrs", 1);
    umr_exec(r, key, &(Umr) { .flags = MLX5_UMR_CHECK_IS_FREE },
             MLX5_SYND_LOCAL_PROT);
    g_assert_cmphex(cmd_simple(r->h, MLX5_OP_2RST_QP, r->umr.id), ==,
                    MLX5_STATUS_OK);
    r->umr.sq_pi = 0;
    put_be32(r->h, r->umr.dbr + 4, 0);
    qp_connect(r->h, &r->umr, r->pd, &r->umr);
    umr_enable(r, key, 0, 1, entries);

    hca_inject(r->h, "inject-fail-data", 1);
    post_rdma(r->h, &r->qp[0], MLX5_WQE_WRITE, r->key, BUF_A, 64, r->key,
              BUF_B);
    expect_send(r, MLX5_SYND_LOCAL_PROT);
    g_assert_cmpuint(hca_counter(r->h, "inject-fail-data"), ==, 0);
    rig_stop(r);
}

static void test_inject_fault_delay(void)
{
    const uint64_t va = 0x555500000000ull;
    uint64_t entries[4] = { 0 };
    Rig *r = rig_start();
    uint32_t key = mkey_create_umr(r->h, 8);
    uint8_t cqe[MLX5_CQE_BYTES];
    uint64_t token;

    umr_enable(r, key, va, 4, entries);
    post_rdma(r->h, &r->qp[0], MLX5_WQE_WRITE, r->key, BUF_A, 64, key, va);
    token = fault_wait(r, key, va);
    entries[0] = BUF_B | 3;
    map_page(r, key, entries);
    hca_inject(r->h, "inject-fault-delay", SECOND_NS);
    fault_resume(r, token, false);
    qtest_clock_step(r->h->qts, SECOND_NS - 1000000);
    g_assert_false(ring_poll(r->h, &r->cq[0], cqe, sizeof(cqe)));
    qtest_clock_step(r->h->qts, 2000000);
    expect_send(r, 0);
    rig_stop(r);
}

/* ------------------------------------------------------------------ */
/* The power state, and resets of the function */

/* What was there before is there after D3hot. */
static void test_power_state(void)
{
    Rig *r = rig_start();
    PcieFunction *f;
    unsigned pmcsr;
    PcieTopology t;

    pcie_topology_init(&t, r->h->qts);
    f = pcie_find(&t, MLX5_PCI_VENDOR, MLX5_PCI_DEVICE, 0);
    pmcsr = pcie_cap(&t, f->bdf, PCI_CAP_ID_PM) + PCI_PM_CTRL;
    g_assert_cmphex(pcie_readw(&t, f->bdf, pmcsr), ==,
                    PCI_PM_CTRL_NO_SOFT_RESET);
    pcie_writew(&t, f->bdf, pmcsr, PCI_D3hot);
    g_assert_cmphex(pcie_readw(&t, f->bdf, pmcsr), ==,
                    PCI_PM_CTRL_NO_SOFT_RESET | PCI_D3hot);
    g_assert_cmphex(hca_read(r->h, ISEG_CMDIF_REV), ==, 0);
    pcie_writew(&t, f->bdf, pmcsr, PCI_D0);
    g_assert_cmphex(hca_read(r->h, ISEG_CMDIF_REV) >> 16, ==, 5);
    g_assert_cmphex(cmd_simple(r->h, MLX5_OP_DESTROY_QP, r->qp[0].id), ==,
                    MLX5_STATUS_OK);
    rig_stop(r);
}

/* Have the function reset itself, and let its driver use it again. */
static void function_reset(Hca *h)
{
    PcieFunction *f;
    PcieTopology t;
    unsigned cap;

    pcie_topology_init(&t, h->qts);
    f = pcie_find(&t, MLX5_PCI_VENDOR, MLX5_PCI_DEVICE, 0);
    cap = pcie_cap(&t, f->bdf, PCI_CAP_ID_EXP);
    g_assert_cmphex(pcie_readl(&t, f->bdf, cap + PCI_EXP_DEVCAP) &
                    PCI_EXP_DEVCAP_FLR, !=, 0);
    pcie_writew(&t, f->bdf, cap + PCI_EXP_DEVCTL, PCI_EXP_DEVCTL_BCR_FLR);
    g_assert_cmphex(pcie_readw(&t, f->bdf, PCI_COMMAND), ==, 0);
    pcie_topology_init(&t, h->qts);
}

static void test_function_reset(void)
{
    enum { SLOT = 3 };
    Rig *r = rig_start();
    uint8_t in[16] = { 0 }, entry[MLX5_CMD_ENTRY_BYTES];
    Hca *h = r->h;

    /* A message waits for a receive request; one of a driver's is at 0. */
    post_send(h, &r->qp[0], r->key, BUF_A, 100);
    fset(cmd, in, opcode, MLX5_OP_ENABLE_HCA);
    cmd_write(h, SLOT, in, sizeof(in), 16);
    qtest_memread(h->qts, h->cmdq + SLOT * sizeof(entry), entry,
                  sizeof(entry));
    qtest_memwrite(h->qts, SLOT * sizeof(entry), entry, sizeof(entry));

    function_reset(h);
    g_assert_cmphex(hca_read(h, ISEG_CMDQ_ADDR_L), ==, FRESH_CMDQ_ADDR_L);
    /* A driver that does not know of it yet gets no answer. */
    hca_write(h, ISEG_CMD_DBELL, 1 << SLOT);
    g_assert_cmphex(qtest_readb(h->qts, h->cmdq + SLOT * sizeof(entry) + 0x3f),
                    ==, 1);
    /* Nor does anybody who is where the queue is not. */
    g_assert_cmphex(qtest_readb(h->qts, SLOT * sizeof(entry) + 0x3f), ==, 1);
    g_assert_cmpuint(hca_counter(h, "guest-errors"), ==, 1);

    hca_init(h);
    g_assert_cmphex(hca_read(h, ISEG_CMDQ_ADDR_L), ==,
                    (uint32_t)h->cmdq | LOG_CMDQ_SZ);
    g_assert_cmphex(cmd_simple(h, MLX5_OP_DESTROY_QP, r->qp[0].id), ==,
                    MLX5_STATUS_BAD_RES);
    rig_stop(r);
}

/* ------------------------------------------------------------------ */
/* Hostile guests */

/* A request must not configure the device that works on it. */
static void test_config_space(void)
{
    const uint64_t command = ECAM + (4 << 15) + 4;
    Rig *r = rig_start();

    qtest_outl(r->h->qts, 0xcf8, 0x80000060);
    qtest_outl(r->h->qts, 0xcfc, ECAM | 1);
    g_assert_cmphex(qtest_readw(r->h->qts, command) & 4, ==, 4);
    qtest_memset(r->h->qts, BUF_A, 0, 16);
    post_rdma(r->h, &r->qp[0], MLX5_WQE_WRITE, r->key, BUF_A, 2, r->key,
              command);
    expect_send(r, MLX5_SYND_REMOTE_OP);
    g_assert_cmphex(qtest_readw(r->h->qts, command) & 4, ==, 4);
    rig_stop(r);
}

/* Nor by way of what is before the configuration space. */
static void test_config_space_before(void)
{
    enum { INTX_DISABLE = 1 << 10 };
    const uint64_t command = ECAM + 4;
    Rig *r = rig_start();
    uint16_t before;

    qtest_outl(r->h->qts, 0xcf8, 0x80000060);
    qtest_outl(r->h->qts, 0xcfc, ECAM | 1);
    before = qtest_readw(r->h->qts, command);
    qtest_writew(r->h->qts, command, before ^ INTX_DISABLE);
    g_assert_cmphex(qtest_readw(r->h->qts, command), ==,
                    before ^ INTX_DISABLE);
    qtest_writew(r->h->qts, command, before);
    qtest_memset(r->h->qts, BUF_A, 0, 16);
    qtest_writew(r->h->qts, BUF_A + 12, before ^ INTX_DISABLE);
    post_rdma(r->h, &r->qp[0], MLX5_WQE_WRITE, r->key, BUF_A, 16, r->key,
              ECAM - 8);
    expect_send(r, MLX5_SYND_REMOTE_OP);
    g_assert_cmphex(qtest_readw(r->h->qts, command), ==, before);
    rig_stop(r);
}

/* Two HCAs, each with a key for all memory, and their QPs connected. */
typedef struct Pair {
    QTestState *qts;
    PcieTopology t;
    PcieFunction *f[2];
    Hca *h[2];
    uint32_t pd[2];
    uint32_t key[2];
    Queue eq[2];
    Queue cq[2];
    Qp qp[2];
} Pair;

/* @where: what the machine has besides, and where the HCAs are */
static Pair *pair_start(const char *machine, const char *const where[2])
{
    Pair *p = g_new0(Pair, 1);

    p->qts = qtest_initf("-machine q35 -m 256 -nodefaults %s "
                         "-device mlx5,id=hca0,lid=1,%s "
                         "-device mlx5,id=hca1,lid=2,%s",
                         machine, where[0], where[1]);
    pcie_topology_init(&p->t, p->qts);
    for (unsigned i = 0; i < 2; i++) {
        Hca *h;

        p->f[i] = pcie_find(&p->t, MLX5_PCI_VENDOR, MLX5_PCI_DEVICE, i);
        h = hca_attach(p->qts, i ? "hca1" : "hca0", p->f[i]->bar[0], i + 1, i);
        p->h[i] = h;
        hca_init(h);
        p->pd[i] = cmd_alloc(h, MLX5_OP_ALLOC_PD);
        p->key[i] = mkey_create_pa(h, p->pd[i]);
        p->eq[i] = eq_create(h, 1ull << MLX5_EVENT_CQ_ERROR);
        p->cq[i] = cq_create(h, &p->eq[i]);
        p->qp[i] = qp_create(h, MLX5_ST_RC, p->pd[i], &p->cq[i]);
    }
    qp_connect(p->h[0], &p->qp[0], p->pd[0], &p->qp[1]);
    qp_connect(p->h[1], &p->qp[1], p->pd[1], &p->qp[0]);
    return p;
}

static void pair_stop(Pair *p)
{
    g_free(p->h[1]);
    hca_stop(p->h[0]);
    g_free(p);
}

/* The other side is gone while a request waits for its page. */
static void test_peer_gone(void)
{
    static const char *const where[] = { "addr=4.0", "addr=5.0" };
    Pair *p = pair_start("", where);
    uint8_t in[PAS + 16] = { 0 };       /* with entries that are absent */
    uint8_t *ctx = in + 0x10;
    uint8_t cqe[MLX5_CQE_BYTES], eqe[MLX5_EQE_BYTES];
    uint32_t absent_key;
    Queue faults;

    faults = eq_create(p->h[1], 1ull << MLX5_EVENT_PAGE_FAULT);
    fset(mkc, ctx, pd, p->pd[1]);
    fset(mkc, ctx, len, 4096);
    fset(mkc, ctx, access_mode_1_0, MLX5_MKEY_MTT);
    fset(mkc, ctx, log_page_size, 12);
    fset(mkc, ctx, translations_octword_size, 1);
    fset(create_mkey_in, in, translations_octword_actual_size, 1);
    fset(create_mkey_in, in, pg_access, 1);
    absent_key = mkey_create(p->h[1], in, sizeof(in));

    post_rdma(p->h[0], &p->qp[0], MLX5_WQE_WRITE, p->key[0], BUF_A, 64,
              absent_key, 0);
    ring_wait(p->h[1], &faults, eqe, sizeof(eqe));
    g_assert_cmphex(fget(eqe, eqe, type), ==, MLX5_EVENT_PAGE_FAULT);
    g_assert_cmphex(cmd_simple(p->h[1], MLX5_OP_TEARDOWN_HCA, 0), ==,
                    MLX5_STATUS_OK);
    cq_wait(p->h[0], &p->cq[0], cqe);
    cqe_check(cqe, MLX5_CQE_REQ_ERR, &p->qp[0], MLX5_SYND_TRANSPORT_RETRY);
    pair_stop(p);
}

/* With PCI_BRIDGE_CONTROL, which is the upper half of a dword */
#define SECONDARY_RESET (1u << 22)

/* The @nth pcie-root-port */
static uint16_t find_port(PcieTopology *t, unsigned nth)
{
    return pcie_find(t, 0x1b36, 0x000c, nth)->bdf;
}

/* Have an MSI-X vector reset, or unplug, what is behind @port. */
static uint64_t aim_vector(PcieTopology *t, const PcieFunction *f,
                           unsigned vector, uint16_t port, bool unplug)
{
    unsigned cap = pcie_cap(t, f->bdf, PCI_CAP_ID_MSIX);
    uint32_t table = pcie_readl(t, f->bdf, cap + PCI_MSIX_TABLE);
    uint64_t entry = f->bar[table & PCI_MSIX_FLAGS_BIRMASK] +
                     (table & ~PCI_MSIX_FLAGS_BIRMASK) +
                     vector * PCI_MSIX_ENTRY_SIZE;
    uint64_t target = ECAM + (port << 12);

    target += unplug ? pcie_cap(t, port, PCI_CAP_ID_EXP) + PCI_EXP_SLTCTL :
                       PCI_INTERRUPT_LINE;
    qtest_writel(t->qts, entry + PCI_MSIX_ENTRY_LOWER_ADDR, target);
    qtest_writel(t->qts, entry + PCI_MSIX_ENTRY_UPPER_ADDR, 0);
    qtest_writel(t->qts, entry + PCI_MSIX_ENTRY_DATA,
                 unplug ? PCI_EXP_SLTCTL_PWR_OFF | PCI_EXP_SLTCTL_PWR_IND_OFF :
                          SECONDARY_RESET);
    pcie_writew(t, f->bdf, cap + PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_ENABLE);
    return entry;
}

/*
 * A request by which HCA 1 unmasks an interrupt of its own, whose message
 * resets or unplugs one of the two: in the middle of the work of HCA 0, which
 * sent the request.
 */
typedef struct Within {
    const char *name;
    unsigned victim;
    bool unplug;
    uint32_t len;       /* from the mask bit on, of the request */
} Within;

static const Within within[] = {
    { "reset-requester", 0, false, 4 },
    { "reset-responder", 1, false, 4 },
    { "unplug-requester", 0, true, 4 },
    { "unplug-responder", 1, true, 4 },
    { "unplug-target", 1, true, 36 },
};

static void test_within(const void *opaque)
{
    static const char *const where[] = { "bus=rp0", "bus=rp1" };
    const Within *w = opaque;
    Pair *p = pair_start(NATIVE_HOTPLUG
                         "-device pcie-root-port,id=rp0,chassis=1,addr=2.0 "
                         "-device pcie-root-port,id=rp1,chassis=2,addr=3.0",
                         where);
    uint16_t port = find_port(&p->t, w->victim);
    uint8_t wqe[256] = { 0 }, cqe[MLX5_CQE_BYTES];
    uint64_t entry;
    Queue events;

    entry = aim_vector(&p->t, p->f[1], 0, port, w->unplug);
    g_assert_cmphex(qtest_readl(p->qts, entry + PCI_MSIX_ENTRY_VECTOR_CTRL) &
                    PCI_MSIX_ENTRY_CTRL_MASKBIT, !=, 0);
    events = eq_create(p->h[1], 1ull << MLX5_EVENT_CMD);
    cmd_alloc(p->h[1], MLX5_OP_ALLOC_PD);
    eq_arm(p->h[1], &events, 0);

    /* Its mask bit is cleared; what follows in the queue has no effect. */
    qtest_memset(p->qts, BUF_A, 0, w->len);
    qtest_memset(p->qts, BUF_A + w->len, 0x5a, 8);
    qtest_memset(p->qts, BUF_B, 0, 8);
    fset(wqe_ctrl, wqe, opcode, MLX5_WQE_WRITE);
    raddr_seg(wqe + 16, p->key[1], entry + PCI_MSIX_ENTRY_VECTOR_CTRL);
    data_seg(wqe + 32, p->key[0], BUF_A, w->len);
    qp_queue(p->h[0], &p->qp[0], wqe, 48);
    raddr_seg(wqe + 16, p->key[1], BUF_B);
    data_seg(wqe + 32, p->key[0], BUF_A + w->len, 8);
    qp_post(p->h[0], &p->qp[0], wqe, 48);

    if (w->unplug) {
        qtest_qmp_eventwait(p->qts, "DEVICE_DELETED");
    } else {
        g_assert_cmphex(pcie_readw(&p->t, p->f[w->victim]->bdf, PCI_COMMAND),
                        ==, 0);
        pcie_writew(&p->t, port, PCI_BRIDGE_CONTROL, 0);
    }
    if (w->victim == 0) {
        qtest_clock_step(p->qts, SECOND_NS);
        g_assert_false(ring_poll(p->h[0], &p->cq[0], cqe, sizeof(cqe)));
    } else {
        /* All of the request, if that was all, was there before. */
        if (w->len == 4) {
            cq_wait(p->h[0], &p->cq[0], cqe);
            cqe_check(cqe, MLX5_CQE_REQ, &p->qp[0], 0);
        }
        cq_wait(p->h[0], &p->cq[0], cqe);
        cqe_check(cqe, MLX5_CQE_REQ_ERR, &p->qp[0],
                  MLX5_SYND_TRANSPORT_RETRY);
    }
    g_assert_cmphex(qtest_readq(p->qts, BUF_B), ==, 0);

    /* The other is as it was, and one that was reset like new. */
    g_assert_cmphex(cmd_simple(p->h[!w->victim], MLX5_OP_ALLOC_PD, 0), ==,
                    MLX5_STATUS_OK);
    if (w->unplug) {
        g_assert_cmphex(pcie_readl(&p->t, p->f[w->victim]->bdf, 0), ==,
                        UINT32_MAX);
    } else {
        pcie_topology_init(&p->t, p->qts);
        g_assert_cmphex(hca_read(p->h[w->victim], ISEG_CMDQ_ADDR_L), ==,
                        FRESH_CMDQ_ADDR_L);
        hca_init(p->h[w->victim]);
    }
    pair_stop(p);
}

/*
 * An interrupt whose message resets, or unplugs, the HCA that sends it.  The
 * latter from the bottom half, while no memory map knows the HCA any more.
 */
static void test_interrupt_ends(const void *opaque)
{
    const bool unplug = opaque;
    QTestState *qts = qtest_init("-machine q35 -m 256 -nodefaults "
                                 NATIVE_HOTPLUG
                                 "-device pcie-root-port,id=rp,chassis=1 "
                                 "-device mlx5,id=hca,bus=rp");
    uint8_t wqe[256] = { 0 }, cqe[MLX5_CQE_BYTES];
    PcieFunction *f;
    Queue eq, cq;
    PcieTopology t;
    uint64_t entry;
    uint32_t pd;
    Hca *h;
    Qp qp;

    pcie_topology_init(&t, qts);
    f = pcie_find(&t, MLX5_PCI_VENDOR, MLX5_PCI_DEVICE, 0);
    h = hca_attach(qts, "hca", f->bar[0], 1, 0);
    hca_init(h);
    pd = cmd_alloc(h, MLX5_OP_ALLOC_PD);
    eq = eq_create(h, 1ull << MLX5_EVENT_CQ_ERROR);
    cq = cq_create(h, &eq);
    qp = qp_create(h, MLX5_ST_RC, pd, &cq);
    qp_connect(h, &qp, pd, &qp);
    entry = aim_vector(&t, f, 0, find_port(&t, 0), unplug);
    qtest_writel(qts, entry + PCI_MSIX_ENTRY_VECTOR_CTRL, 0);

    /*
     * The first completion sends it, and those of the requests that follow
     * in the queue are written before the reset.
     */
    cq_arm(h, &cq, 0);
    eq_arm(h, &eq, 0);
    fset(wqe_ctrl, wqe, opcode, MLX5_WQE_NOP);
    for (unsigned i = 0; i < 3; i++) {
        qp_queue(h, &qp, wqe, 16);
    }
    if (unplug) {
        hca_inject(h, "inject-completion-delay", SECOND_NS);
    }
    hca_write64(h, h->uar * 4096 + UAR_SEND, ldq_be_p(wqe));
    if (unplug) {
        hca_inject(h, "inject-completion-delay", 0);
        pcie_writew(&t, f->bdf, PCI_COMMAND, PCI_COMMAND_MASTER);
        qtest_clock_step(qts, SECOND_NS);
        qtest_qmp_eventwait(qts, "DEVICE_DELETED");
        g_assert_cmphex(pcie_readl(&t, f->bdf, 0), ==, UINT32_MAX);
    } else {
        g_assert_cmphex(pcie_readl(&t, f->bdf, PCI_BASE_ADDRESS_0) &
                        PCI_BASE_ADDRESS_MEM_MASK, ==, 0);
    }
    for (unsigned i = 0; i < 3; i++) {
        ring_wait(h, &cq, cqe, sizeof(cqe));
        cqe_check(cqe, MLX5_CQE_REQ, &qp, 0);
    }
    hca_stop(h);
}

static void test_teardown(void)
{
    Rig *r = rig_start();

    /* With a request waiting, and objects in use. */
    post_send(r->h, &r->qp[0], r->key, BUF_A, 100);
    g_assert_cmphex(cmd_simple(r->h, MLX5_OP_DESTROY_CQ, r->cq[0].id), ==,
                    MLX5_STATUS_RES_BUSY);
    g_assert_cmphex(cmd_simple(r->h, MLX5_OP_DESTROY_EQ, r->async.id), ==,
                    MLX5_STATUS_RES_BUSY);
    g_assert_cmphex(cmd_simple(r->h, MLX5_OP_TEARDOWN_HCA, 0), ==,
                    MLX5_STATUS_OK);
    g_assert_cmphex(cmd_simple(r->h, MLX5_OP_DISABLE_HCA, 0), ==,
                    MLX5_STATUS_OK);
    hca_init(r->h);
    rig_stop(r);

    r = rig_start();
    post_send(r->h, &r->qp[0], r->key, BUF_A, 100);
    qtest_system_reset(r->h->qts);
    rig_stop(r);
}

static void test_wild_doorbells(void)
{
    Rig *r = rig_start();
    GRand *rand = g_rand_new_with_seed(4711);

    for (unsigned i = 0; i < 2000; i++) {
        uint32_t page = r->h->uar + g_rand_int_range(rand, -4, 4);
        uint32_t reg = g_rand_int_range(rand, 0, 0x1000) & ~7;
        uint64_t value = (uint64_t)g_rand_int(rand) << 32 | g_rand_int(rand);

        switch (g_rand_int_range(rand, 0, 4)) {
        case 0:
            hca_write(r->h, page * 4096 + reg, value);
            break;
        case 1:
            hca_write64(r->h, page * 4096 + reg, value);
            break;
        case 2:
            hca_write64(r->h, page * 4096 + UAR_CQ_ARM,
                        value << 32 | (r->cq[0].id + (value >> 62)));
            break;
        default:
            put_be32(r->h, r->qp[value & 1].dbr + 4, value);
            hca_write64(r->h, page * 4096 + UAR_SEND, r->qp[0].id << 8);
            break;
        }
    }
    g_rand_free(rand);
    g_assert_cmphex(cmd_simple(r->h, MLX5_OP_ALLOC_PD, 0), ==,
                    MLX5_STATUS_OK);
    rig_stop(r);
}

/* Random work requests, with valid keys often enough to get far. */
static void test_wild_requests(void)
{
    static const uint8_t opcodes[] = {
        MLX5_WQE_NOP, MLX5_WQE_SEND_INV, MLX5_WQE_WRITE, MLX5_WQE_WRITE_IMM,
        MLX5_WQE_SEND, MLX5_WQE_SEND_IMM, MLX5_WQE_READ, MLX5_WQE_CMP_SWAP,
        MLX5_WQE_FETCH_ADD, MLX5_WQE_UMR, 0x7f,
    };
    GRand *rand = g_rand_new_with_seed(42);

    for (unsigned round = 0; round < 20; round++) {
        Rig *r = rig_start();

        for (unsigned i = 0; i < 30; i++) {
            uint32_t len = g_rand_int_range(rand, 1, 16) * 16;
            uint8_t wqe[256];

            for (unsigned j = 0; j < sizeof(wqe); j += 4) {
                stl_be_p(wqe + j, g_rand_boolean(rand) ? r->key :
                                  g_rand_int(rand));
            }
            fset(wqe_ctrl, wqe, opcode,
                 opcodes[g_rand_int_range(rand, 0, ARRAY_SIZE(opcodes))]);
            qp_post(r->h, g_rand_boolean(rand) ? &r->qp[i & 1] : &r->umr,
                    wqe, len);
        }
        g_assert_cmphex(cmd_simple(r->h, MLX5_OP_ALLOC_PD, 0), ==,
                        MLX5_STATUS_OK);
        rig_stop(r);
    }
    g_rand_free(rand);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("/mlx5/properties", test_properties);
    qtest_add_func("/mlx5/iseg", test_iseg);
    qtest_add_func("/mlx5/cmd/status", test_cmd_status);
    qtest_add_func("/mlx5/cmd/mailbox", test_cmd_mailbox);
    qtest_add_func("/mlx5/cmd/delivery", test_cmd_delivery);
    qtest_add_func("/mlx5/cmd/doorbell", test_cmd_doorbell);
    qtest_add_func("/mlx5/cmd/numbers", test_cmd_numbers);
    qtest_add_func("/mlx5/cmd/event", test_cmd_event);
    qtest_add_func("/mlx5/cmd/owner-gone", test_cmd_owner_gone);
    qtest_add_func("/mlx5/qp/send", test_send);
    qtest_add_func("/mlx5/qp/rdma", test_rdma);
    qtest_add_func("/mlx5/qp/overlap", test_overlap);
    qtest_add_func("/mlx5/qp/errors", test_errors);
    qtest_add_func("/mlx5/qp/largest-request", test_largest_request);
    qtest_add_func("/mlx5/qp/flush-malformed", test_flush_malformed);
    qtest_add_func("/mlx5/qp/permission", test_permission);
    qtest_add_func("/mlx5/qp/rnr", test_rnr);
    qtest_add_func("/mlx5/qp/flush-poll", test_flush_poll);
    qtest_add_func("/mlx5/qp/last-wqe", test_last_wqe);
    qtest_add_func("/mlx5/qp/global-route", test_global_route);
    qtest_add_func("/mlx5/qp/send-error", test_send_error);
    qtest_add_func("/mlx5/qp/datagram-too-long", test_datagram_too_long);
    qtest_add_func("/mlx5/qp/qkey", test_qkey);
    qtest_add_func("/mlx5/qp/to-itself", test_to_itself);
    qtest_add_func("/mlx5/qp/unreliable-spoilt", test_unreliable_spoilt);
    qtest_add_func("/mlx5/qp/psn", test_psn);
    qtest_add_func("/mlx5/cq/cqe-size", test_cqe_size);
    qtest_add_func("/mlx5/cq/resize", test_cq_resize);
    qtest_add_func("/mlx5/cq/overrun", test_cq_overrun);
    qtest_add_func("/mlx5/mkey/umr", test_umr);
    qtest_add_func("/mlx5/mkey/umr-privilege", test_umr_privilege);
    qtest_add_func("/mlx5/mkey/invalidate", test_invalidate);
    qtest_add_func("/mlx5/mkey/page-shift", test_page_shift);
    qtest_add_func("/mlx5/mkey/umr-pieces", test_umr_pieces);
    qtest_add_func("/mlx5/mkey/datagram-pieces", test_datagram_pieces);
    qtest_add_func("/mlx5/mkey/bounds", test_bounds);
    qtest_add_func("/mlx5/mkey/klm-list", test_klm_list);
    qtest_add_func("/mlx5/odp/page-fault", test_page_fault);
    qtest_add_func("/mlx5/odp/datagram-absent", test_datagram_absent);
    qtest_add_func("/mlx5/odp/null-key", test_null_key);
    qtest_add_func("/mlx5/odp/transport", test_transport_fault);
    qtest_add_func("/mlx5/odp/peer-gone", test_peer_gone);
    qtest_add_func("/mlx5/odp/responder-gone", test_responder_gone);
    qtest_add_func("/mlx5/odp/responder-replaced", test_responder_replaced);
    qtest_add_func("/mlx5/xrc/srq", test_xrc);
    qtest_add_func("/mlx5/xrc/other-srq", test_xrc_other_srq);
    qtest_add_func("/mlx5/inject/requests", test_inject);
    qtest_add_func("/mlx5/inject/fault-delay", test_inject_fault_delay);
    qtest_add_func("/mlx5/function/power-state", test_power_state);
    qtest_add_func("/mlx5/function/reset", test_function_reset);
    qtest_add_func("/mlx5/hostile/config-space", test_config_space);
    qtest_add_func("/mlx5/hostile/config-space-before",
                   test_config_space_before);
    qtest_add_data_func("/mlx5/hostile/interrupt-resets", NULL,
                        test_interrupt_ends);
    qtest_add_data_func("/mlx5/hostile/interrupt-unplugs", (void *)1,
                        test_interrupt_ends);
    for (unsigned i = 0; i < ARRAY_SIZE(within); i++) {
        g_autofree char *name = g_strdup_printf("/mlx5/hostile/%s",
                                                within[i].name);

        qtest_add_data_func(name, &within[i], test_within);
    }
    qtest_add_func("/mlx5/hostile/teardown", test_teardown);
    qtest_add_func("/mlx5/hostile/doorbells", test_wild_doorbells);
    qtest_add_func("/mlx5/hostile/requests", test_wild_requests);
    return g_test_run();
}
