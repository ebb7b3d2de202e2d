/*
 * mlx5 HCA: the sending side of queue pairs
 *
 * Work requests are copied in, parsed once and executed in order, in slices:
 * a slice ends when its budget of bytes is used up, when a translation is
 * absent (page fault), or when the other side has nothing posted or does not
 * answer.  There are no packets: delivery is reliable and in order by
 * construction, and every slice translates and copies in one go.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/log.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "mlx5.h"
#include "trace.h"

enum {
    DBR_SEND = 4,
    AV_BYTES = 48,
    RADDR_BYTES = 16,
    ATOMIC_BYTES = 16,
    XRC_BYTES = 16,
    INLINE_LEN_MASK = 0x3ff,
    GRH_BYTES = 40,
    GRH_NEXT_IBA = 0x1b,
    UD_MTU = 4096,
    SLICE_BYTES = 1 * MiB,          /* of one QP */
    SLICE_REQUESTS = 64,
    RUN_BYTES = 4 * MiB,            /* of the bottom half */
    RUN_QPS = 256,
    FLUSH_MAX = 256,
    MAX_MSG = 1u << 30,
    RNR_RETRY_INFINITE = 7,
};

#define RNR_POLL_MIN_NS     (50 * SCALE_US)
#define RNR_POLL_MAX_NS     (1 * SCALE_MS)
#define FAULT_BUSY_NS       (1 * SCALE_MS)
#define FLUSH_POLL_MIN_NS   (1 * SCALE_MS)
#define FLUSH_POLL_MAX_NS   NANOSECONDS_PER_SECOND
#define ACK_TIMEOUT_UNIT_NS 4096
#define WAIT_FOREVER        INT64_MAX
#define INJECT_MAX_NS       (3600 * NANOSECONDS_PER_SECOND)

/* RNR NAK timer codes (InfiniBand specification, table 45) in us. */
static const uint32_t rnr_timer_us[32] = {
    655360, 10, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640, 960, 1280,
    1920, 2560, 3840, 5120, 7680, 10240, 15360, 20480, 30720, 40960, 61440,
    81920, 122880, 163840, 245760, 327680, 491520,
};

/* How a step of a work request ended. */
typedef enum Step {
    STEP_DONE,
    STEP_MORE,          /* slice used up */
    STEP_WAIT,          /* for a timer, a fault or nothing more to do */
    STEP_FAILED,        /* with a syndrome */
} Step;

static const char *hca_name(const Mlx5Qp *qp)
{
    return qp->hca->parent_obj.name;
}

static bool service_connected(const Mlx5Qp *qp)
{
    return qp->service == MLX5_ST_RC || qp->service == MLX5_ST_UC ||
           qp->service == MLX5_ST_XRC;
}

static bool service_datagram(const Mlx5Qp *qp)
{
    return qp->service == MLX5_ST_UD || qp->service == MLX5_ST_QP0 ||
           qp->service == MLX5_ST_QP1;
}

/* Lost messages of the others are not noticed by the sender. */
static bool service_reliable(const Mlx5Qp *qp)
{
    return qp->service == MLX5_ST_RC || qp->service == MLX5_ST_XRC;
}

/* ------------------------------------------------------------------ */
/* Waiting */

/* Deleting a timer that is not armed walks the list of all that are. */
static void timer_stop(QEMUTimer *timer)
{
    if (timer_pending(timer)) {
        timer_del(timer);
    }
}

static void wait_end(Mlx5Qp *qp)
{
    qp->wait = MLX5_WAIT_NONE;
    timer_stop(qp->timer);
    if (qp->fault) {
        mlx5_odp_cancel(qp->fault);
        qp->fault = NULL;
    }
}

void mlx5_qp_wake(Mlx5Qp *qp)
{
    wait_end(qp);
    mlx5_qp_kick(qp);
}

void mlx5_qp_delay(Mlx5Qp *qp, Mlx5Wait wait, uint64_t ns)
{
    qp->wait = wait;
    qp->wait_deadline = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) +
                        MIN(ns, INJECT_MAX_NS);
    trace_mlx5_wait(hca_name(qp), qp->obj.id, wait, ns);
    timer_mod(qp->timer, qp->wait_deadline);
}

/* Whether an injected delay is not over yet. */
static bool wait_injected(Mlx5Qp *qp)
{
    if (qp->wait != MLX5_WAIT_DELAY && qp->wait != MLX5_WAIT_COMPLETE) {
        return false;
    }
    if (qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) < qp->wait_deadline) {
        timer_mod(qp->timer, qp->wait_deadline);
        return true;
    }
    wait_end(qp);
    return false;
}

void mlx5_requester_abort(Mlx5Qp *qp)
{
    wait_end(qp);
    qp->fault_result = MLX5_FAULT_RETRY;
    qp->send.valid = false;
}

/*
 * Try again from time to time until @timeout ns have passed since the first
 * try; false when that time is over.
 */
static bool wait_poll(Mlx5Qp *qp, Mlx5Wait wait, int64_t timeout,
                      int64_t min_period, int64_t max_period)
{
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);

    if (qp->wait != wait) {
        qp->wait = wait;
        qp->wait_period = min_period;
        qp->wait_deadline = timeout == WAIT_FOREVER ? INT64_MAX :
                            now + timeout;
        trace_mlx5_wait(hca_name(qp), qp->obj.id, wait, timeout);
    }
    if (now >= qp->wait_deadline) {
        wait_end(qp);
        return false;
    }
    timer_mod(qp->timer, MIN(now + qp->wait_period, qp->wait_deadline));
    qp->wait_period = MIN(qp->wait_period * 2, max_period);
    return true;
}

static Step wait_rnr(Mlx5Qp *qp, const Mlx5Qp *peer, Mlx5Syndrome *syndrome)
{
    unsigned retries = fget(qpc, qp->ctx, rnr_retry);
    int64_t timer = rnr_timer_us[fget(qpc, peer->ctx, min_rnr_nak)];
    int64_t timeout = retries == RNR_RETRY_INFINITE ? WAIT_FOREVER :
                      retries * timer * SCALE_US;

    if (wait_poll(qp, MLX5_WAIT_RNR, timeout, RNR_POLL_MIN_NS,
                  RNR_POLL_MAX_NS)) {
        return STEP_WAIT;
    }
    *syndrome = MLX5_SYND_RNR_RETRY;
    return STEP_FAILED;
}

static Step wait_peer(Mlx5Qp *qp, Mlx5Syndrome *syndrome)
{
    unsigned code = fget(ads, mlx5_qp_path(qp), ack_timeout);
    int64_t timeout = WAIT_FOREVER;
    int64_t period = 100 * SCALE_MS;

    if (code) {
        period = ACK_TIMEOUT_UNIT_NS * (1ll << code);
        timeout = period * (1 + fget(qpc, qp->ctx, retry_count));
    }
    period = MAX(period, SCALE_MS);
    if (wait_poll(qp, MLX5_WAIT_PEER, timeout, period, period)) {
        return STEP_WAIT;
    }
    *syndrome = MLX5_SYND_TRANSPORT_RETRY;
    return STEP_FAILED;
}

/* Whatever arrived so far is sent again when the peer comes back. */
static Step peer_gone(Mlx5Qp *qp, Mlx5Syndrome *syndrome)
{
    /* What its driver said of it is not about who may come in its place. */
    if (qp->fault_result == MLX5_FAULT_REMOTE_ERROR) {
        qp->fault_result = MLX5_FAULT_RETRY;
    }
    qp->send.started = false;
    return service_reliable(qp) ? wait_peer(qp, syndrome) : STEP_DONE;
}

static Step wait_fault(Mlx5Qp *qp, Mlx5State *hca, const Mlx5Fault *fault,
                       bool remote, Mlx5Syndrome *syndrome)
{
    if (hca->dma.stopped) {
        return peer_gone(qp, syndrome);
    }
    switch (mlx5_odp_raise(qp, hca, fault, remote)) {
    case MLX5_RAISE_OK:
        timer_stop(qp->timer);
        qp->wait = MLX5_WAIT_FAULT;
        return STEP_WAIT;
    case MLX5_RAISE_BUSY:
        wait_poll(qp, MLX5_WAIT_BUSY, WAIT_FOREVER, FAULT_BUSY_NS,
                  FAULT_BUSY_NS);
        return STEP_WAIT;
    default:
        if (remote && !service_reliable(qp)) {
            return STEP_DONE;
        }
        *syndrome = remote ? MLX5_SYND_REMOTE_ACCESS : MLX5_SYND_LOCAL_PROT;
        return STEP_FAILED;
    }
}

/* ------------------------------------------------------------------ */
/* Fetching and parsing */

/* Copy @len bytes of the send queue from WQEBB counter @wqebb on. */
static bool sq_read(Mlx5Qp *qp, uint16_t wqebb, uint8_t *buf, uint32_t len)
{
    while (len) {
        uint32_t index = wqebb++ & (qp->sq_wqebbs - 1);
        uint32_t n = MIN(len, MLX5_WQEBB);

        if (!mlx5_buffer_read(qp->hca, &qp->buf,
                              qp->sq_offset + (uint64_t)index * MLX5_WQEBB,
                              buf, n)) {
            return false;
        }
        buf += n;
        len -= n;
    }
    return true;
}

/* Is anything posted?  Reads the doorbell record when it seems not. */
static bool sq_posted(Mlx5Qp *qp)
{
    uint32_t counter;

    if (qp->sq_ci != qp->sq_pi) {
        return true;
    }
    if (!qp->has_sq ||
        !mlx5_dma_read_be32(qp->hca, fget(qpc, qp->ctx, dbr_addr) + DBR_SEND,
                            &counter)) {
        return false;
    }
    /* The requests were written before the record. */
    smp_rmb();
    if ((uint16_t)(counter - qp->sq_ci) > qp->sq_wqebbs) {
        mlx5_guest_error(qp->hca, "QP 0x%x: send counter 0x%x is more than "
                         "a queue ahead of 0x%x", qp->obj.id, counter,
                         qp->sq_ci);
        mlx5_qp_to_error(qp);
        return false;
    }
    qp->sq_pi = counter;
    return qp->sq_ci != qp->sq_pi;
}

/*
 * Copy the request at sq_ci into qp->send and decode its control segment.  On
 * failure raw_len is 0 if its length is not known; it counts as one WQEBB then.
 */
static bool send_fetch(Mlx5Qp *qp)
{
    Mlx5Send *send = &qp->send;
    const uint8_t *ctrl = send->raw;
    uint32_t ds, len;

    send->valid = true;
    send->done = false;
    send->started = false;
    send->raw_len = 0;
    send->wqebbs = 1;
    send->opcode = 0;
    send->index = qp->sq_ci;
    if (!sq_read(qp, qp->sq_ci, send->raw, MLX5_WQEBB)) {
        return false;
    }
    ds = fget(wqe_ctrl, ctrl, ds);
    send->opcode = fget(wqe_ctrl, ctrl, opcode);
    if (fget(wqe_ctrl, ctrl, qpn) != qp->obj.id) {
        return false;
    }
    /* The largest request has one more than the field can say. */
    len = ds ? ds * MLX5_SEG_BYTES : MLX5_MAX_SQ_WQE;
    if (DIV_ROUND_UP(len, MLX5_WQEBB) > (uint16_t)(qp->sq_pi - qp->sq_ci)) {
        return false;
    }
    send->raw_len = len;
    send->wqebbs = DIV_ROUND_UP(len, MLX5_WQEBB);
    if (send->wqebbs > 1 &&
        !sq_read(qp, qp->sq_ci + 1, send->raw + MLX5_WQEBB,
                 send->raw_len - MLX5_WQEBB)) {
        return false;
    }
    send->index = fget(wqe_ctrl, ctrl, index);
    send->imm = fget(wqe_ctrl, ctrl, imm);
    send->signaled = fget(wqe_ctrl, ctrl, ce) >= 2;
    send->event = fget(wqe_ctrl, ctrl, ce) == 3;
    send->solicited = fget(wqe_ctrl, ctrl, solicited);
    return true;
}

/* Decode the data segments from @offset on. */
static bool send_parse_data(Mlx5Send *send, uint32_t offset)
{
    send->num_sge = 0;
    send->is_inline = false;
    send->len = 0;
    while (offset < send->raw_len) {
        const uint8_t *seg = send->raw + offset;
        uint32_t count = fget(wqe_data, seg, byte_count);

        if (count & MLX5_SEG_INLINE) {
            count &= INLINE_LEN_MASK;
            if (send->num_sge || offset + 4 + count > send->raw_len) {
                return false;
            }
            memcpy(send->inline_data + send->len, seg + 4, count);
            send->is_inline = true;
            offset += ROUND_UP(4 + count, MLX5_SEG_BYTES);
        } else {
            if (send->is_inline) {
                return false;
            }
            send->sge[send->num_sge++] = (Mlx5Sge) {
                .key = fget(wqe_data, seg, lkey),
                .len = count ? count : MLX5_SEG_INLINE,
                .addr = fget(wqe_data, seg, addr),
            };
            count = count ? count : MLX5_SEG_INLINE;
            offset += MLX5_SEG_BYTES;
        }
        send->len += count;
    }
    return send->len <= MAX_MSG;
}

/* Which segments each opcode has. */
enum {
    HAS_RADDR = 1 << 0,
    HAS_ATOMIC = 1 << 1,
    HAS_DATA = 1 << 2,
    ON_CONNECTED = 1 << 3,
    ON_RELIABLE = 1 << 4,
    ON_DATAGRAM = 1 << 5,
    TAKES_RECV = 1 << 6,
    HAS_IMM = 1 << 7,
};

static const struct {
    const char *name;
    uint16_t shape;         /* 0: a request that moves no message */
} send_ops[MLX5_WQE_OPCODES] = {
    [MLX5_WQE_NOP] = { "NOP", 0 },
    [MLX5_WQE_UMR] = { "UMR", 0 },
    [MLX5_WQE_SEND] = { "SEND", HAS_DATA | ON_CONNECTED | ON_DATAGRAM |
                                TAKES_RECV },
    [MLX5_WQE_SEND_IMM] = { "SEND_IMM", HAS_DATA | ON_CONNECTED |
                                        ON_DATAGRAM | TAKES_RECV | HAS_IMM },
    [MLX5_WQE_SEND_INV] = { "SEND_INV", HAS_DATA | ON_RELIABLE | TAKES_RECV },
    [MLX5_WQE_WRITE] = { "WRITE", HAS_RADDR | HAS_DATA | ON_CONNECTED },
    [MLX5_WQE_WRITE_IMM] = { "WRITE_IMM", HAS_RADDR | HAS_DATA |
                                          ON_CONNECTED | TAKES_RECV |
                                          HAS_IMM },
    [MLX5_WQE_READ] = { "READ", HAS_RADDR | HAS_DATA | ON_RELIABLE },
    [MLX5_WQE_CMP_SWAP] = { "CMP_SWAP", HAS_RADDR | HAS_ATOMIC | HAS_DATA |
                                        ON_RELIABLE },
    [MLX5_WQE_FETCH_ADD] = { "FETCH_ADD", HAS_RADDR | HAS_ATOMIC | HAS_DATA |
                                          ON_RELIABLE },
};

static unsigned send_shape(const Mlx5Send *send)
{
    return send->opcode < MLX5_WQE_OPCODES ? send_ops[send->opcode].shape : 0;
}

/* Whether a QP like @qp may send requests of this shape. */
static bool shape_suits(const Mlx5Qp *qp, unsigned shape)
{
    return (shape & ON_DATAGRAM && service_datagram(qp)) ||
           (shape & ON_CONNECTED && service_connected(qp)) ||
           (shape & ON_RELIABLE && service_reliable(qp));
}

void mlx5_requester_counts(const Mlx5State *s, GString *text)
{
    static const struct {
        const char *name;
        Mlx5Service service;
    } services[] = {
        { "RC.", MLX5_ST_RC }, { "UC.", MLX5_ST_UC }, { "UD.", MLX5_ST_UD },
        { "XRC.", MLX5_ST_XRC }, { "QP0.", MLX5_ST_QP0 },
        { "QP1.", MLX5_ST_QP1 }, { "UMR.", MLX5_ST_REG_UMR },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(services); i++) {
        const Mlx5Qp like = { .service = services[i].service };

        for (unsigned op = 0; op < MLX5_WQE_OPCODES; op++) {
            if (send_ops[op].name && (!send_ops[op].shape ||
                                      shape_suits(&like, send_ops[op].shape))) {
                mlx5_count_append(text, services[i].name, send_ops[op].name,
                                  &s->stats.requests[like.service][op]);
            }
        }
    }
}

static bool send_parse(Mlx5Qp *qp)
{
    Mlx5Send *send = &qp->send;
    unsigned shape = send_shape(send);
    uint32_t offset = MLX5_SEG_BYTES;

    send->xrc = send->av = send->raddr = send->atomic = NULL;
    send->len = 0;
    if (send->opcode == MLX5_WQE_NOP || send->opcode == MLX5_WQE_UMR) {
        return true;
    }
    if (!shape_suits(qp, shape)) {
        return false;
    }
    if (qp->service == MLX5_ST_XRC) {
        send->xrc = send->raw + offset;
        offset += XRC_BYTES;
    }
    if (service_datagram(qp)) {
        send->av = send->raw + offset;
        offset += AV_BYTES;
    }
    if (shape & HAS_RADDR) {
        send->raddr = send->raw + offset;
        offset += RADDR_BYTES;
    }
    if (shape & HAS_ATOMIC) {
        send->atomic = send->raw + offset;
        offset += ATOMIC_BYTES;
    }
    return offset <= send->raw_len && send_parse_data(send, offset);
}

/* ------------------------------------------------------------------ */
/* Executing */

static void cursor_local(Mlx5Qp *qp, Mlx5Access access)
{
    Mlx5Send *send = &qp->send;

    send->local = (Mlx5Cursor) {
        .hca = qp->hca,
        .req = { .pd = fget(qpc, qp->ctx, pd), .qpn = qp->obj.id,
                 .access = access },
        .sge = send->sge,
        .inline_data = send->is_inline ? send->inline_data : NULL,
        .num_sge = send->num_sge,
    };
}

/* The SRQ that a message for @peer names or that @peer has, or NULL. */
static Mlx5Srq *peer_srq(const Mlx5Send *send, const Mlx5Qp *peer)
{
    return send->xrc ? mlx5_srq_find(peer->hca,
                                     fget(wqe_xrc, send->xrc, srqn)) :
                       peer->srq;
}

/*
 * Who reaches the memory of the receiving side: receive requests belong to
 * the protection domain of their SRQ, and so does everything that comes in
 * over an XRC target QP, which has none that counts.
 */
static Mlx5Requestor peer_requestor(const Mlx5Send *send, const Mlx5Qp *peer,
                                    Mlx5Access access)
{
    const Mlx5Srq *srq = send->xrc || access == MLX5_ACCESS_LOCAL_WRITE ?
                         peer_srq(send, peer) : NULL;

    return (Mlx5Requestor) {
        .pd = srq ? srq->pd : fget(qpc, peer->ctx, pd),
        .qpn = peer->obj.id,
        .access = access,
    };
}

static void cursor_remote(Mlx5Qp *qp, Mlx5Qp *peer, const Mlx5Sge *sge,
                          uint32_t num_sge, Mlx5Access access)
{
    qp->send.remote = (Mlx5Cursor) {
        .hca = peer->hca,
        .req = peer_requestor(&qp->send, peer, access),
        .sge = sge,
        .num_sge = num_sge,
    };
}

static Step remote_fail(Mlx5Qp *qp, Mlx5Qp *peer, Mlx5Syndrome here,
                        Mlx5Syndrome there, Mlx5Event event,
                        Mlx5Syndrome *syndrome)
{
    /* It did not refuse; it was reset within the request. */
    if (peer->hca->dma.stopped) {
        return peer_gone(qp, syndrome);
    }
    /*
     * An unreliable message that its sender spoilt is dropped: the receiver
     * fails for what is its own fault only, and the sender hears of neither.
     */
    if (service_reliable(qp) || here == MLX5_SYND_REMOTE_OP) {
        mlx5_responder_fail(peer, there, event);
    }
    if (!service_reliable(qp)) {
        return STEP_DONE;
    }
    *syndrome = here;
    return STEP_FAILED;
}

/* Go on copying between the local and the remote cursor. */
static Step step_copy(Mlx5Qp *qp, Mlx5Qp *peer, bool to_local,
                      uint64_t *budget, Mlx5Syndrome *syndrome)
{
    Mlx5Send *send = &qp->send;
    Mlx5Cursor *dst = to_local ? &send->local : &send->remote;
    Mlx5Cursor *src = to_local ? &send->remote : &send->local;
    Mlx5Fault fault;
    bool remote, denied = false;

    switch (mlx5_cursor_copy(dst, src, &send->left, budget, &fault)) {
    case MLX5_COPY_DONE:
        return STEP_DONE;
    case MLX5_COPY_MORE:
        return STEP_MORE;
    case MLX5_COPY_SRC_FAULT:
        remote = to_local;
        return wait_fault(qp, src->hca, &fault, remote, syndrome);
    case MLX5_COPY_DST_FAULT:
        remote = !to_local;
        return wait_fault(qp, dst->hca, &fault, remote, syndrome);
    case MLX5_COPY_SRC_DENIED:
        denied = true;
        /* fall through */
    case MLX5_COPY_SRC_ERROR:
        remote = to_local;
        break;
    case MLX5_COPY_DST_DENIED:
        denied = true;
        /* fall through */
    default:
        remote = !to_local;
        break;
    }
    if (!remote) {
        *syndrome = MLX5_SYND_LOCAL_PROT;
        return STEP_FAILED;
    }
    /* A receive buffer that its key denies is the receiver's own error. */
    return remote_fail(qp, peer,
                       send->raddr && denied ? MLX5_SYND_REMOTE_ACCESS :
                                               MLX5_SYND_REMOTE_OP,
                       MLX5_SYND_LOCAL_PROT,
                       send->raddr ? MLX5_EVENT_WQ_ACCESS_ERROR :
                                     MLX5_EVENT_COMP, syndrome);
}

static bool send_delivered(Mlx5Qp *qp, Mlx5Qp *peer, Mlx5CqeOpcode opcode)
{
    Mlx5Send *send = &qp->send;
    const Mlx5RecvInfo info = {
        .opcode = opcode,
        .len = send->len,
        .imm = send->imm,
        .slid = qp->hca->lid,
        .source_qpn = qp->obj.id,
        .sl = fget(ads, mlx5_qp_path(qp), sl),
        .grh = fget(ads, mlx5_qp_path(qp), grh),
        .solicited = send->solicited,
    };

    return mlx5_responder_complete(peer, &info);
}

/* Claim a receive request of @peer, or say why that cannot be. */
static Step send_claim(Mlx5Qp *qp, Mlx5Qp *peer, Mlx5Syndrome *syndrome)
{
    switch (mlx5_responder_take(peer, peer_srq(&qp->send, peer))) {
    case MLX5_TAKE_EMPTY:
        return service_reliable(qp) ? wait_rnr(qp, peer, syndrome) :
                                      STEP_WAIT;
    case MLX5_TAKE_ERROR:
        return remote_fail(qp, peer, MLX5_SYND_REMOTE_OP,
                           MLX5_SYND_LOCAL_QP_OP,
                           MLX5_EVENT_WQ_CATAS_ERROR, syndrome);
    default:
        break;
    }
    if (qp->wait == MLX5_WAIT_RNR) {
        wait_end(qp);
    }
    return STEP_DONE;
}

/* Whether @peer lets others do that to its memory at all. */
static bool remote_permitted(const Mlx5Qp *peer, Mlx5Access access)
{
    switch (access) {
    case MLX5_ACCESS_REMOTE_WRITE:
        return fget(qpc, peer->ctx, rwe);
    case MLX5_ACCESS_REMOTE_READ:
        return fget(qpc, peer->ctx, rre);
    default:
        return fget(qpc, peer->ctx, rae);
    }
}

/* Check a request's remote range. */
static bool remote_allowed(Mlx5Qp *qp, Mlx5Qp *peer, Mlx5Access access)
{
    Mlx5Send *send = &qp->send;
    const Mlx5Requestor req = peer_requestor(send, peer, access);

    send->remote_sge = (Mlx5Sge) {
        .key = fget(wqe_raddr, send->raddr, rkey),
        .addr = fget(wqe_raddr, send->raddr, raddr),
        .len = send->len,
    };
    return !send->len || mlx5_mkey_check(peer->hca, &req, send->remote_sge.key,
                                         send->remote_sge.addr, send->len);
}

static Mlx5Access send_remote_access(const Mlx5Send *send)
{
    if (!send->raddr) {
        return MLX5_ACCESS_LOCAL_WRITE;     /* into the receiver's buffers */
    }
    if (send->atomic) {
        return MLX5_ACCESS_ATOMIC;
    }
    return send->opcode == MLX5_WQE_READ ? MLX5_ACCESS_REMOTE_READ :
                                           MLX5_ACCESS_REMOTE_WRITE;
}

/* First step of a message: check, claim, and place the cursors. */
static Step message_start(Mlx5Qp *qp, Mlx5Qp *peer, Mlx5Syndrome *syndrome)
{
    Mlx5Send *send = &qp->send;
    const unsigned shape = send_shape(send);
    const Mlx5Access access = send_remote_access(send);

    if (send->atomic && (send->num_sge != 1 || send->len != 8)) {
        *syndrome = MLX5_SYND_LOCAL_LENGTH;
        return STEP_FAILED;
    }
    if (send->opcode == MLX5_WQE_READ && send->is_inline) {
        *syndrome = MLX5_SYND_LOCAL_QP_OP;
        return STEP_FAILED;
    }
    if (send->raddr && (!remote_permitted(peer, access) ||
                        (send->atomic &&
                         fget(wqe_raddr, send->raddr, raddr) & 7))) {
        return remote_fail(qp, peer, MLX5_SYND_REMOTE_INVALID_REQ,
                           MLX5_SYND_LOCAL_QP_OP, MLX5_EVENT_WQ_INVAL_REQ,
                           syndrome);
    }
    if (send->xrc) {
        const Mlx5Srq *srq = peer_srq(send, peer);

        /* Nor may one begin in what a message to another SRQ left claimed. */
        if (!srq || srq->xrcd != fget(qpc, peer->ctx, xrcd) ||
            (shape & TAKES_RECV && peer->recv.valid &&
             peer->recv.srq != srq)) {
            return remote_fail(qp, peer, MLX5_SYND_REMOTE_INVALID_REQ,
                               MLX5_SYND_LOCAL_QP_OP, MLX5_EVENT_WQ_INVAL_REQ,
                               syndrome);
        }
    }
    if (send->raddr && !remote_allowed(qp, peer, access)) {
        return remote_fail(qp, peer, MLX5_SYND_REMOTE_ACCESS,
                           MLX5_SYND_LOCAL_ACCESS, MLX5_EVENT_WQ_ACCESS_ERROR,
                           syndrome);
    }
    if (shape & TAKES_RECV) {
        Step step = send_claim(qp, peer, syndrome);

        if (step != STEP_DONE || !peer->recv.valid) {
            return step;
        }
        if (!send->raddr && send->len > peer->recv.len) {
            return remote_fail(qp, peer, MLX5_SYND_REMOTE_INVALID_REQ,
                               MLX5_SYND_LOCAL_LENGTH, MLX5_EVENT_COMP,
                               syndrome);
        }
    }
    cursor_local(qp, access == MLX5_ACCESS_REMOTE_READ || send->atomic ?
                 MLX5_ACCESS_LOCAL_WRITE : MLX5_ACCESS_LOCAL_READ);
    if (send->raddr) {
        cursor_remote(qp, peer, &send->remote_sge, 1, access);
    } else {
        cursor_remote(qp, peer, peer->recv.sge, peer->recv.num_sge, access);
    }
    send->left = send->len;
    send->started = true;
    send->peer_serial = peer->serial;
    return STEP_DONE;
}

/*
 * Do the remote part of an atomic operation once and turn its result into
 * the source of the copy back.
 */
static Step atomic_execute(Mlx5Qp *qp, Mlx5Qp *peer, uint64_t *budget,
                           Mlx5Syndrome *syndrome)
{
    Mlx5Send *send = &qp->send;
    Mlx5Cursor *c = &send->remote;
    Mlx5Fault fault;
    uint64_t old;
    Mlx5Run run;
    Mlx5Runs runs = { .max = 1, .run = &run };
    Mlx5Xlt xlt;

    if (c->inline_data) {
        return STEP_DONE;
    }
    xlt = mlx5_mkey_translate(c->hca, &c->req, send->remote_sge.key,
                              send->remote_sge.addr, 8, &runs, &fault);
    mlx5_charge(budget, runs.cost);
    switch (xlt) {
    case MLX5_XLT_OK:
        break;
    case MLX5_XLT_FAULT:
        return wait_fault(qp, c->hca, &fault, true, syndrome);
    default:
        return remote_fail(qp, peer, MLX5_SYND_REMOTE_ACCESS,
                           MLX5_SYND_LOCAL_ACCESS, MLX5_EVENT_WQ_ACCESS_ERROR,
                           syndrome);
    }
    if (run.len != 8 ||
        !mlx5_run_atomic(c->hca, &run,
                         send->opcode == MLX5_WQE_FETCH_ADD ?
                         P2P_DMA_FETCH_ADD : P2P_DMA_COMPARE_SWAP,
                         fget(wqe_atomic, send->atomic, swap_add),
                         fget(wqe_atomic, send->atomic, compare), &old)) {
        return remote_fail(qp, peer, MLX5_SYND_REMOTE_OP,
                           MLX5_SYND_LOCAL_PROT, MLX5_EVENT_WQ_ACCESS_ERROR,
                           syndrome);
    }
    /* Host endianness mode: the 8 bytes arrive as they were in memory. */
    stq_le_p(send->inline_data, old);
    c->inline_data = send->inline_data;
    return STEP_DONE;
}

/*
 * The PSN behind the message.  Both sides take it when the message is over, the
 * responder first: by one reckoning with one MTU, so that they always agree.
 */
static uint32_t psn_behind(const Mlx5Qp *qp)
{
    return fget(qpc, qp->ctx, next_send_psn) +
           mlx5_port_packets(qp, qp->send.len);
}

/* A message on a connected QP. */
static Step step_message(Mlx5Qp *qp, uint64_t *budget, Mlx5Syndrome *syndrome)
{
    Mlx5Send *send = &qp->send;
    const unsigned shape = send_shape(send);
    Mlx5Qp *peer = mlx5_responder_find(qp);
    Step step;

    if (!peer) {
        return peer_gone(qp, syndrome);
    }
    if (qp->wait == MLX5_WAIT_PEER || qp->wait == MLX5_WAIT_BUSY) {
        wait_end(qp);
    }
    if (qp->fault_result == MLX5_FAULT_REMOTE_ERROR) {
        return remote_fail(qp, peer, MLX5_SYND_REMOTE_OP,
                           MLX5_SYND_LOCAL_PROT, MLX5_EVENT_WQ_ACCESS_ERROR,
                           syndrome);
    }
    if (!send->started || send->peer_serial != peer->serial ||
        (shape & TAKES_RECV && !peer->recv.valid)) {
        send->started = false;
        step = message_start(qp, peer, syndrome);
        if (step != STEP_DONE) {
            /* An unreliable message that nobody waits for is gone. */
            return step == STEP_WAIT && !service_reliable(qp) &&
                   qp->wait == MLX5_WAIT_NONE ? STEP_DONE : step;
        }
        if (!send->started) {
            return STEP_DONE;
        }
    }
    if (send->atomic) {
        step = atomic_execute(qp, peer, budget, syndrome);
        if (step != STEP_DONE || !send->remote.inline_data) {
            return step;
        }
    }
    step = step_copy(qp, peer, send->atomic ||
                     send->opcode == MLX5_WQE_READ, budget, syndrome);
    if (step != STEP_DONE || send->left) {
        return step;
    }
    if (send->opcode == MLX5_WQE_SEND_INV) {
        /* The key of a range of the peer's own, not of its receive queue. */
        const Mlx5Requestor req = peer_requestor(send, peer,
                                                 MLX5_ACCESS_REMOTE_WRITE);

        if (!mlx5_mkey_invalidate(peer->hca, &req, send->imm)) {
            return remote_fail(qp, peer, MLX5_SYND_REMOTE_OP,
                               MLX5_SYND_LOCAL_ACCESS,
                               MLX5_EVENT_WQ_ACCESS_ERROR, syndrome);
        }
    }
    if (shape & TAKES_RECV &&
        !send_delivered(qp, peer,
                        send->raddr ? MLX5_CQE_RESP_WRITE_IMM :
                        send->opcode == MLX5_WQE_SEND_IMM ?
                        MLX5_CQE_RESP_SEND_IMM :
                        send->opcode == MLX5_WQE_SEND_INV ?
                        MLX5_CQE_RESP_SEND_INV : MLX5_CQE_RESP_SEND)) {
        return remote_fail(qp, peer, MLX5_SYND_REMOTE_OP,
                           MLX5_SYND_LOCAL_QP_OP, MLX5_EVENT_COMP, syndrome);
    }
    mlx5_port_count(qp->hca, peer->hca, qp, send->len,
                    send->opcode == MLX5_WQE_READ);
    fset(qpc, peer->ctx, next_rcv_psn, psn_behind(qp));
    return STEP_DONE;
}

/* The header that precedes a datagram in the receiver's buffer. */
static void grh_build(const Mlx5Qp *qp, const uint8_t *av, uint32_t len,
                      uint8_t *grh)
{
    memset(grh, 0, GRH_BYTES);
    stl_be_p(grh, 6u << 28 | fget(wqe_av, av, tclass) << 20 |
                  fget(wqe_av, av, flow_label));
    stw_be_p(grh + 4, len);
    grh[6] = GRH_NEXT_IBA;
    grh[7] = fget(wqe_av, av, hop_limit);
    stq_be_p(grh + 8, MLX5_GID_PREFIX);
    stq_be_p(grh + 16, qp->hca->guid);
    memcpy(grh + 24, av + MLX5_AV_RGID, 16);
}

/* Nobody hears of it. */
static Step datagram_lost(const Mlx5Qp *qp, const char *why)
{
    const uint8_t *av = qp->send.av;

    trace_mlx5_datagram_lost(hca_name(qp), qp->obj.id, fget(wqe_av, av, rlid),
                             fget(wqe_av, av, dqpn), why);
    return STEP_DONE;
}

/*
 * A datagram: read it here, then hand it over in one go.  What the receiver
 * cannot take at once is lost, as on a real fabric.
 */
static Step step_datagram(Mlx5Qp *qp, uint64_t *budget,
                          Mlx5Syndrome *syndrome)
{
    Mlx5Send *send = &qp->send;
    const uint8_t *av = send->av;
    uint8_t packet[GRH_BYTES + UD_MTU];
    /* Only lists of memory that were made to be expensive take more. */
    uint64_t len = send->len, left, room = SLICE_BYTES;
    uint32_t qkey = fget(wqe_av, av, qkey);
    Mlx5RecvInfo info;
    Mlx5Copy copied;
    Mlx5Fault fault;
    Mlx5Cursor src;
    Mlx5Qp *peer;
    Mlx5Xlt xlt;

    if (len > UD_MTU || !fget(wqe_av, av, extended)) {
        *syndrome = len > UD_MTU ? MLX5_SYND_LOCAL_LENGTH :
                                   MLX5_SYND_LOCAL_QP_OP;
        return STEP_FAILED;
    }
    cursor_local(qp, MLX5_ACCESS_LOCAL_READ);
    xlt = mlx5_cursor_read(&send->local, packet + GRH_BYTES, len, &room, &fault);
    mlx5_charge(budget, SLICE_BYTES - room);
    switch (xlt) {
    case MLX5_XLT_OK:
        break;
    case MLX5_XLT_FAULT:
        return wait_fault(qp, qp->hca, &fault, false, syndrome);
    default:
        *syndrome = MLX5_SYND_LOCAL_PROT;
        return STEP_FAILED;
    }
    grh_build(qp, av, len, packet);
    mlx5_port_count(qp->hca, NULL, qp, len, false);

    peer = mlx5_responder_find_datagram(qp, fget(wqe_av, av, rlid),
                                        fget(wqe_av, av, dqpn));
    if (!peer) {
        return datagram_lost(qp, "no such QP");
    }
    /* The top bit asks for the sending QP's own key. */
    if (qkey & 1u << 31) {
        qkey = fget(qpc, qp->ctx, q_key);
    }
    /* QP0 has none; that of QP1 (IB_QP1_QKEY) is for privileged senders. */
    if (peer->service != MLX5_ST_QP0 &&
        qkey != fget(qpc, peer->ctx, q_key)) {
        return datagram_lost(qp, "Q_Key");
    }
    if (mlx5_responder_take(peer, peer->srq) != MLX5_TAKE_OK) {
        return datagram_lost(qp, "nothing posted");
    }
    if (len + GRH_BYTES > peer->recv.len) {
        /* The request stays claimed for the next one. */
        return datagram_lost(qp, "too long");
    }
    cursor_remote(qp, peer, peer->recv.sge, peer->recv.num_sge,
                  MLX5_ACCESS_LOCAL_WRITE);
    src = (Mlx5Cursor) { .inline_data = packet };
    left = len + GRH_BYTES;
    /* In one go, even if it takes more than the slice has left */
    room = SLICE_BYTES;
    copied = mlx5_cursor_copy(&send->remote, &src, &left, &room, &fault);
    mlx5_charge(budget, SLICE_BYTES - room);
    /* No page fault is raised: receiving datagrams is not offered for ODP. */
    if (copied != MLX5_COPY_DONE) {
        mlx5_responder_fail(peer, MLX5_SYND_LOCAL_PROT, MLX5_EVENT_COMP);
        return STEP_DONE;
    }
    info = (Mlx5RecvInfo) {
        .opcode = send->opcode == MLX5_WQE_SEND_IMM ?
                  MLX5_CQE_RESP_SEND_IMM : MLX5_CQE_RESP_SEND,
        .len = len + GRH_BYTES,
        /* QP1 expects the P_Key there. */
        .imm = peer->service == MLX5_ST_QP1 ? MLX5_PKEY_DEFAULT : send->imm,
        .slid = qp->hca->lid,
        .source_qpn = qp->service == MLX5_ST_QP1 ? 1 :
                      qp->service == MLX5_ST_QP0 ? 0 : qp->obj.id,
        .sl = fget(wqe_av, av, sl),
        .grh = fget(wqe_av, av, grh),
        .solicited = send->solicited,
    };
    mlx5_port_count(NULL, peer->hca, qp, len, false);
    mlx5_responder_complete(peer, &info);
    return STEP_DONE;
}

static Step send_step(Mlx5Qp *qp, uint64_t *budget, Mlx5Syndrome *syndrome)
{
    Mlx5Send *send = &qp->send;
    Step step;

    if (qp->fault_result == MLX5_FAULT_LOCAL_ERROR) {
        *syndrome = MLX5_SYND_LOCAL_PROT;
        return STEP_FAILED;
    }
    switch (send->opcode) {
    case MLX5_WQE_NOP:
        return STEP_DONE;
    case MLX5_WQE_UMR:
        *syndrome = mlx5_umr_execute(qp, budget);
        return *syndrome == MLX5_SYND_OK ? STEP_DONE : STEP_FAILED;
    default:
        step = send->av ? step_datagram(qp, budget, syndrome) :
                          step_message(qp, budget, syndrome);
        if (step == STEP_DONE) {
            fset(qpc, qp->ctx, next_send_psn, psn_behind(qp));
        }
        return step;
    }
}

static void send_complete(Mlx5Qp *qp, Mlx5Syndrome syndrome)
{
    Mlx5Send *send = &qp->send;

    trace_mlx5_send_complete(hca_name(qp), qp->obj.id, send->opcode,
                             send->index, send->len, syndrome);
    if (send->opcode < MLX5_WQE_OPCODES) {
        mlx5_count(&qp->hca->stats.requests[qp->service][send->opcode],
                   syndrome == MLX5_SYND_OK);
    }
    wait_end(qp);
    qp->fault_result = MLX5_FAULT_RETRY;
    send->valid = false;
    qp->sq_ci += send->wqebbs;
    if ((syndrome != MLX5_SYND_OK || send->signaled) &&
        !mlx5_inject(&qp->hca->inject.drop_completions)) {
        mlx5_qp_send_cqe(qp, send->opcode, send->index, send->len, syndrome,
                         send->event);
    }
    if (syndrome == MLX5_SYND_OK || syndrome == MLX5_SYND_WR_FLUSH) {
        return;
    }
    if (service_datagram(qp) || qp->service == MLX5_ST_UC) {
        mlx5_qp_to_send_error(qp);
    } else {
        mlx5_qp_to_error(qp);
    }
}

/* One slice of a QP that may send; true when there is more to do at once. */
static bool requester_slice(Mlx5Qp *qp, uint64_t *total)
{
    uint64_t budget = SLICE_BYTES;
    bool more = false;

    for (unsigned i = 0; qp->state == MLX5_QP_RTS && !qp->hca->dma.stopped;
         i++) {
        Mlx5Syndrome syndrome = MLX5_SYND_OK;
        uint64_t before = budget;
        Step step = STEP_FAILED;

        if (i == SLICE_REQUESTS) {
            more = true;
            break;
        }
        if (wait_injected(qp)) {
            break;
        }
        if (qp->send.valid && qp->send.done) {
            send_complete(qp, qp->send.syndrome);
            continue;
        }
        if (!qp->send.valid) {
            if (!sq_posted(qp)) {
                break;
            }
            if (!send_fetch(qp) || !send_parse(qp)) {
                mlx5_guest_error(qp->hca, "QP 0x%x: bad send request 0x%x, "
                                 "opcode 0x%x", qp->obj.id, qp->sq_ci,
                                 qp->send.opcode);
                send_complete(qp, MLX5_SYND_LOCAL_QP_OP);
                break;
            }
            mlx5_layout_trace("WQE", &mlx5_layout_wqe_ctrl, qp->send.raw);
        }
        if (!budget) {
            more = true;
            break;
        }
        step = send_step(qp, &budget, &syndrome);
        if (before - budget < MLX5_MIN_COST) {
            mlx5_charge(&budget, MLX5_MIN_COST - (before - budget));
        }
        if (step == STEP_MORE || step == STEP_WAIT) {
            more = step == STEP_MORE;
            break;
        }
        syndrome = step == STEP_DONE ? MLX5_SYND_OK : syndrome;
        if (qp->hca->inject.completion_delay) {
            qp->send.done = true;
            qp->send.syndrome = syndrome;
            mlx5_qp_delay(qp, MLX5_WAIT_COMPLETE,
                          qp->hca->inject.completion_delay);
            break;
        }
        send_complete(qp, syndrome);
    }
    *total += SLICE_BYTES - budget;
    return more;
}

/* Complete what is posted to a QP, or a send queue, in the error state. */
static bool requester_flush(Mlx5Qp *qp, uint64_t *total)
{
    unsigned flushed = 0;
    bool more;

    mlx5_requester_abort(qp);
    for (unsigned i = 0; i < FLUSH_MAX && sq_posted(qp); i++) {
        if (!send_fetch(qp) && !qp->send.raw_len) {
            /* Where the next one begins is not known: it is for the rest. */
            qp->send.wqebbs = (uint16_t)(qp->sq_pi - qp->sq_ci);
        }
        send_complete(qp, MLX5_SYND_WR_FLUSH);
        flushed++;
    }
    more = sq_posted(qp);
    if (qp->state == MLX5_QP_ERR) {
        more |= mlx5_responder_flush(qp, FLUSH_MAX, &flushed);
    }
    *total += (uint64_t)flushed * MLX5_MIN_COST;
    if (!more && qp->state == MLX5_QP_ERR && qp->has_rq && qp->recv_cq) {
        /*
         * Receive requests are posted without a doorbell.  Who drains the
         * queue posts one right after 2ERR; later ones are rare.
         */
        qp->flush_period = flushed || !qp->flush_period ? FLUSH_POLL_MIN_NS :
                           MIN(qp->flush_period * 2, FLUSH_POLL_MAX_NS);
        timer_mod(qp->timer, qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) +
                             qp->flush_period);
    }
    return more;
}

bool mlx5_requester_run(Mlx5State *s)
{
    uint64_t bytes = 0;
    Mlx5Qp *qp;

    for (unsigned i = 0; !s->dma.stopped && (qp = QTAILQ_FIRST(&s->work));
         i++) {
        bool more = false;

        if (i == RUN_QPS || bytes >= RUN_BYTES) {
            return true;
        }
        QTAILQ_REMOVE(&s->work, qp, work_entry);
        qp->queued = false;
        if (qp->state == MLX5_QP_ERR || qp->state == MLX5_QP_SQER) {
            more = requester_flush(qp, &bytes);
        } else if (qp->state == MLX5_QP_RTS && qp->wait != MLX5_WAIT_FAULT) {
            more = requester_slice(qp, &bytes);
        }
        if (more) {
            mlx5_qp_kick(qp);
        }
    }
    return false;
}
