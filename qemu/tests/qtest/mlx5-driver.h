/*
 * A tiny driver of the mlx5 HCA for qtests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Functions that create something abort the test when the device refuses.
 * Queues and page lists come from fixed places of guest memory, of which the
 * machine needs 256 MiB.
 */
#ifndef TESTS_QTEST_MLX5_DRIVER_H
#define TESTS_QTEST_MLX5_DRIVER_H

#include "qemu/bswap.h"
#include "libqtest.h"
#include "../../hw/net/mlx5/fields.h"
#include "../../hw/net/mlx5/prm.h"

/* Guest memory for data, beyond what the driver uses itself. */
#define BUF_A       0x8000000ull
#define BUF_B       0x9000000ull

enum {
    MLX5_PCI_VENDOR = 0x15b3,
    MLX5_PCI_DEVICE = 0x1017,
    ISEG_CMDIF_REV = 0x4,
    ISEG_CMDQ_ADDR_H = 0x10,
    ISEG_CMDQ_ADDR_L = 0x14,
    ISEG_CMD_DBELL = 0x18,
    ISEG_INITIALIZING = 0x1fc,
    ISEG_HEALTH_COUNTER = 0x1010,
    UAR_CQ_ARM = 0x20,
    UAR_EQ_ARM = 0x40,
    UAR_SEND = 0x800,
    TOKEN = 0x5a,
    LOG_QUEUE = 4,              /* entries of every queue */
    QUEUE = 1 << LOG_QUEUE,
    RQ_STRIDE = 16,
    SRQ_STRIDE = 32,
    MAX_BLOCKS = 16,
    PAS = 0x110,                /* page list of the CREATE commands */
};

typedef struct Hca {
    QTestState *qts;
    const char *id;             /* of the device, for QOM */
    uint16_t lid;
    uint64_t bar;
    uint64_t cmdq;
    uint64_t mailboxes;
    uint64_t pool_start;
    uint64_t pool;              /* queues, given out in order */
    uint32_t uar;
    uint8_t out[MAX_BLOCKS * MLX5_CMD_BLOCK_BYTES];
    unsigned delivery;
} Hca;

/* A ring that the device writes. */
typedef struct Queue {
    uint32_t id;
    uint64_t addr;
    uint64_t dbr;
    uint32_t ci;
    unsigned log_size;
    unsigned entry_bytes;
} Queue;

typedef struct Qp {
    uint32_t id;
    uint16_t lid;
    uint64_t rq;
    uint64_t sq;
    uint64_t dbr;
    uint16_t sq_pi;
    uint16_t rq_pi;
} Qp;

/**
 * hca_attach: begin to use an HCA, whose PCI function is enabled
 * @id: its QEMU id
 * @bar: address of its BAR 0
 * @lid: what its "lid" property is
 * @index: 0 or 1, which of the two places in guest memory it uses
 *
 * Returns: to be freed with g_free()
 */
Hca *hca_attach(QTestState *qts, const char *id, uint64_t bar, uint16_t lid,
                unsigned index);

/* Registers, big endian. */
uint32_t hca_read(Hca *h, uint64_t offset);
void hca_write(Hca *h, uint64_t offset, uint32_t value);
void hca_write64(Hca *h, uint64_t offset, uint64_t value);
void hca_set_cmdq(Hca *h, uint64_t addr);
/* Guest memory, aligned to a page. */
uint64_t pool_alloc(Hca *h, uint64_t bytes);
void put_be32(Hca *h, uint64_t addr, uint32_t value);
/* One QOM counter of the device. */
uint64_t hca_counter(Hca *h, const char *name);
/* Write one of the device's properties for error injection. */
void hca_inject(Hca *h, const char *name, uint64_t value);

/* Mailboxes of one direction of one slot. */
uint64_t mailbox_addr(const Hca *h, unsigned slot, bool output,
                      unsigned block);
/* Write an entry that the device owns, without ringing the doorbell. */
void cmd_write(Hca *h, unsigned slot, const uint8_t *in, uint32_t in_len,
               uint32_t out_len);
/* Status of a completed command; its output is in h->out. */
unsigned cmd_finish(Hca *h, unsigned slot, uint32_t out_len);
unsigned cmd_exec(Hca *h, uint8_t *in, uint32_t in_len, unsigned opcode,
                  uint32_t out_len);
/* A command of 16 bytes about object @id, with an answer of 16 bytes. */
unsigned cmd_simple(Hca *h, unsigned opcode, uint32_t id);
/* Create an object that needs no parameters; its number. */
uint32_t cmd_alloc(Hca *h, unsigned opcode);
/* Bring the device up, and get a doorbell page. */
void hca_init(Hca *h);

Queue eq_create(Hca *h, uint64_t events);
Queue cq_create(Hca *h, const Queue *eq);
/* One of other than the usual size, with entries of 64 or 128 bytes. */
Queue cq_create_sized(Hca *h, const Queue *eq, unsigned log_size,
                      unsigned entry_bytes);
/*
 * Move a CQ to a new buffer of @log_size, with an entry size of the command's
 * own; its status. What is still in the old buffer is for the caller.
 */
unsigned cq_resize(Hca *h, Queue *cq, unsigned log_size, unsigned entry_bytes);
/* The next entry of a ring, if the device has written it. */
bool ring_poll(Hca *h, Queue *q, uint8_t *entry, uint32_t size);
void ring_wait(Hca *h, Queue *q, uint8_t *entry, uint32_t size);
/* Wait for a completion and consume it. */
void cq_wait(Hca *h, Queue *cq, uint8_t *cqe);
void cq_arm(Hca *h, const Queue *cq, uint32_t ci);
/* An EQ that has events behind @ci has an interrupt at once. */
void eq_arm(Hca *h, const Queue *eq, uint32_t ci);

/* A QP of the kernel's, which may post UMRs. */
Qp qp_create(Hca *h, unsigned service, uint32_t pd, const Queue *cq);
/* A QP of a process's, which may not. */
Qp qp_create_user(Hca *h, unsigned service, uint32_t pd, const Queue *cq);
unsigned qp_command(Hca *h, const Qp *qp, unsigned opcode, uint8_t *in,
                    uint32_t opt);
/* Bring a QP up to RTS, connected to @remote. */
void qp_connect(Hca *h, const Qp *qp, uint32_t pd, const Qp *remote);
/* The same with other packet sequence numbers than 0. */
void qp_connect_psn(Hca *h, const Qp *qp, uint32_t pd, const Qp *remote,
                    uint32_t send_psn, uint32_t recv_psn);
/* Finish the control segment of @wqe, copy it to the queue, count it. */
void qp_queue(Hca *h, Qp *qp, uint8_t *wqe, uint32_t len);
/* The same, and ring. */
void qp_post(Hca *h, Qp *qp, uint8_t *wqe, uint32_t len);
void post_recv(Hca *h, Qp *qp, uint32_t key, uint64_t addr, uint32_t len);
/* Write a segment; its length. */
uint32_t data_seg(uint8_t *seg, uint32_t key, uint64_t addr, uint32_t len);
uint32_t raddr_seg(uint8_t *seg, uint32_t key, uint64_t addr);

/* An mkey with all permissions and the context in @in; the key. */
uint32_t mkey_create(Hca *h, uint8_t *in, uint32_t in_len);
/* Everything, by physical address. */
uint32_t mkey_create_pa(Hca *h, uint32_t pd);
/* A free mkey for UMR with room for @pages translations. */
uint32_t mkey_create_umr(Hca *h, uint32_t pages);

uint32_t xrc_srq_create(Hca *h, uint32_t xrcd, uint32_t pd, const Queue *cq,
                        uint64_t wqes, uint64_t dbr);
Qp xrc_target_create(Hca *h, uint32_t xrcd, uint32_t srq, const Queue *cq);

#endif
