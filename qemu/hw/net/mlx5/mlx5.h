/*
 * mlx5 HCA: device state and the interfaces between its parts
 *
 * One file per hardware object (eq.c, cq.c, qp.c, mkey.c ...).  Everything
 * below runs under the big QEMU lock.  Doorbells only record what was written,
 * except that one of an event queue may send an interrupt; commands, work
 * requests and all DMA belong to mlx5_run() in hca.c, which does a bounded
 * amount of it right after the doorbell, in the thread of the virtual CPU, and
 * leaves the rest to the device's bottom half.
 *
 * Any DMA and any interrupt can reset or unplug any HCA (hw/pci/p2p_dma.h says
 * how).  Pointers to objects stay valid all the same until mlx5_run() returns;
 * loops look at s->dma.stopped, and what has effects outside does nothing then.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_MLX5_MLX5_H
#define HW_MLX5_MLX5_H

#include "hw/pci/pci_device.h"
#include "hw/pci/p2p_dma.h"
#include "qemu/hbitmap.h"
#include "qemu/queue.h"
#include "qom/object.h"
#include "fields.h"
#include "prm.h"

#define TYPE_MLX5 "mlx5"
OBJECT_DECLARE_SIMPLE_TYPE(Mlx5State, MLX5)

enum {
    MLX5_MAX_VECTORS = 64,
    MLX5_FIRST_UAR = 16,
    MLX5_NULL_MKEY = 0x200,
    MLX5_MAX_SGE = 64,
    MLX5_PKEY_DEFAULT = 0xffff,
};

/* Subnet prefix of every port: link local. */
#define MLX5_GID_PREFIX 0xfe80000000000000ull

/* Report something that only a broken or hostile guest does. */
#define mlx5_guest_error(s, fmt, ...)                                   \
    do {                                                                \
        qemu_log_mask(LOG_GUEST_ERROR, "mlx5 %s: " fmt "\n",            \
                      (s)->parent_obj.name, ## __VA_ARGS__);            \
        (s)->stats.guest_errors++;                                      \
    } while (0)

/* ------------------------------------------------------------------ */
/* table.c: numbered objects */

/* First member of every object that lives in a Mlx5Table. */
typedef struct Mlx5Obj {
    uint32_t id;
    uint32_t refs;          /* other objects that point here */
} Mlx5Obj;

typedef struct Mlx5Table {
    GHashTable *objs;
    HBitmap *free;          /* numbers without an object, less @first */
    uint32_t first;
    uint32_t limit;         /* one past the highest number */
    uint32_t next;
} Mlx5Table;

void mlx5_table_init(Mlx5Table *t, uint32_t first, uint32_t limit,
                     GDestroyNotify destroy);
void mlx5_table_fini(Mlx5Table *t);
/* Give @obj the next free number; false when all are taken. */
bool mlx5_table_add(Mlx5Table *t, Mlx5Obj *obj);
/* Forget and free the object with this number. */
void mlx5_table_remove(Mlx5Table *t, uint32_t id);
void mlx5_table_clear(Mlx5Table *t);

static inline void *mlx5_table_get(const Mlx5Table *t, uint32_t id)
{
    return g_hash_table_lookup(t->objs, GUINT_TO_POINTER(id));
}

/* uar.c: doorbell pages */
typedef struct Mlx5Uar {
    Mlx5Obj obj;
    uint32_t latch;         /* first half of an 8-byte doorbell */
} Mlx5Uar;

void mlx5_uar_write(Mlx5State *s, hwaddr offset, uint64_t value,
                    unsigned size);

/* ------------------------------------------------------------------ */
/* dma.c: guest memory */

/*
 * Queues, doorbell records and commands, always untranslated requests.  False
 * when any byte was refused; how much was transferred before is undefined.
 */
bool mlx5_dma_read(Mlx5State *s, uint64_t addr, void *buf, uint64_t len);
bool mlx5_dma_write(Mlx5State *s, uint64_t addr, const void *buf,
                    uint64_t len);
bool mlx5_dma_read_be32(Mlx5State *s, uint64_t addr, uint32_t *value);

/* A translated piece of an mkey's memory: data that work requests move. */
typedef struct Mlx5Run {
    uint64_t addr;
    uint64_t len;
    P2PDmaMode mode;
} Mlx5Run;

/* Consecutive pieces of an mkey's memory, @max > 0 of which have room. */
typedef struct Mlx5Runs {
    unsigned max;
    unsigned num;
    uint64_t cost;          /* bytes of tables searched for them */
    Mlx5Run *run;
} Mlx5Runs;

/* Translation data of a UMR work request, which are no payload. */
bool mlx5_run_read_list(Mlx5State *s, const Mlx5Run *run, void *buf,
                        uint64_t len);
/* Payload. */
bool mlx5_run_read(Mlx5State *s, const Mlx5Run *run, void *buf, uint64_t len);
bool mlx5_run_atomic(Mlx5State *s, const Mlx5Run *run, P2PDmaAtomicOp op,
                     uint64_t operand, uint64_t compare, uint64_t *old);
/*
 * Payload that the functions below move is counted by their caller: the DMA
 * statistics before it began go to mlx5_count_payload() when it has ended.
 */
void mlx5_count_payload(Mlx5State *s, const P2PDmaStats *before);
bool mlx5_run_write(Mlx5State *s, const Mlx5Run *run, const void *buf,
                    uint64_t len);
/* @dst_failed: on failure, whether the destination refused */
bool mlx5_run_copy(Mlx5State *dst_hca, const Mlx5Run *dst,
                   Mlx5State *src_hca, const Mlx5Run *src,
                   uint64_t len, bool *dst_failed);

/* ------------------------------------------------------------------ */
/* buffer.c: guest memory described by a page list (queues) */

typedef struct Mlx5Buffer {
    uint64_t *pages;
    uint32_t num_pages;
    uint32_t offset;        /* of byte 0 in the first page */
    uint8_t page_shift;
    uint64_t size;
} Mlx5Buffer;

/*
 * mlx5_buffer_init: take over a big-endian page list from a command
 * @pas: list in the command's input, @pas_bytes long
 * @page_offset: in units of 1/64 page
 * @size: bytes that the queue needs
 *
 * Returns false, with nothing allocated, if there is no such list, if it is too
 * short, or if context memory is used up.
 */
bool mlx5_buffer_init(Mlx5State *s, Mlx5Buffer *b, const uint8_t *pas,
                      size_t pas_bytes, unsigned page_shift,
                      unsigned page_offset, uint64_t size);
void mlx5_buffer_fini(Mlx5State *s, Mlx5Buffer *b);
bool mlx5_buffer_read(Mlx5State *s, const Mlx5Buffer *b, uint64_t offset,
                      void *buf, uint32_t len);
bool mlx5_buffer_write(Mlx5State *s, const Mlx5Buffer *b, uint64_t offset,
                       const void *buf, uint32_t len);
/* Write a queue entry so that its last byte becomes visible last. */
bool mlx5_buffer_publish(Mlx5State *s, const Mlx5Buffer *b, uint64_t offset,
                         const uint8_t *entry, uint32_t len);

/*
 * What the guest makes the model allocate for queue pairs, page lists and keys
 * is charged against the "context-mem" property; false when the limit is
 * reached.
 */
bool mlx5_context_charge(Mlx5State *s, uint64_t bytes);
void mlx5_context_uncharge(Mlx5State *s, uint64_t bytes);

/* ------------------------------------------------------------------ */
/* cmd.c: command queue */

typedef struct Mlx5Cmd {
    uint8_t *in;
    uint32_t in_len;
    uint8_t *out;
    uint32_t out_len;
    uint32_t syndrome;
} Mlx5Cmd;

/* How far the driver must have got for a command to be legal. */
typedef enum Mlx5Phase {
    MLX5_PHASE_ANY,
    MLX5_PHASE_ENABLED,         /* ENABLE_HCA */
    MLX5_PHASE_INITIALIZED,     /* INIT_HCA */
} Mlx5Phase;

typedef struct Mlx5CmdDesc {
    uint16_t opcode;
    const char *name;
    Mlx5Phase phase;
    uint32_t min_in;        /* bytes, header included */
    uint32_t min_out;
    Mlx5Status (*handler)(Mlx5State *s, Mlx5Cmd *cmd);
} Mlx5CmdDesc;

/* Leave a command with a status and the number that tells where and why. */
#define mlx5_cmd_fail(cmd_, status_, syndrome_) \
    ((cmd_)->syndrome = (syndrome_), (status_))

/* Execute entries whose doorbell bit is set; true when some are left. */
bool mlx5_cmd_run(Mlx5State *s);
/* How often each command was executed, as text. */
void mlx5_cmd_counts(const Mlx5State *s, GString *text);
/* One table per file that implements commands, ended by a NULL handler. */
extern const Mlx5CmdDesc mlx5_cmds_hca[];
extern const Mlx5CmdDesc mlx5_cmds_alloc[];
extern const Mlx5CmdDesc mlx5_cmds_port[];
extern const Mlx5CmdDesc mlx5_cmds_eq[];
extern const Mlx5CmdDesc mlx5_cmds_cq[];
extern const Mlx5CmdDesc mlx5_cmds_mkey[];
extern const Mlx5CmdDesc mlx5_cmds_qp[];
extern const Mlx5CmdDesc mlx5_cmds_srq[];
extern const Mlx5CmdDesc mlx5_cmds_odp[];

/* Offsets shared by the commands that carry a context and a page list. */
enum {
    MLX5_CMD_CTX = 0x10,
    MLX5_CMD_QPC = 0x18,
    MLX5_CMD_PAS = 0x110,
};

/* ------------------------------------------------------------------ */
/* iseg.c: initialization segment */

typedef struct Mlx5Iseg {
    uint64_t cmdq_addr;
    uint8_t nic_state;
    uint32_t addr_h;
} Mlx5Iseg;

uint64_t mlx5_iseg_read(Mlx5State *s, hwaddr offset, unsigned size);
void mlx5_iseg_write(Mlx5State *s, hwaddr offset, uint64_t value,
                     unsigned size);
void mlx5_iseg_reset(Mlx5State *s);

/* caps.c */
void mlx5_caps_reset(Mlx5State *s);
Mlx5Status mlx5_caps_query(Mlx5State *s, Mlx5Cmd *cmd);
Mlx5Status mlx5_caps_set(Mlx5State *s, Mlx5Cmd *cmd);
#define mlx5_cap_gen(s, name_) \
    fget(cmd_hca_cap, (s)->cap_cur[MLX5_CAP_GENERAL], name_)

/* ------------------------------------------------------------------ */
/* eq.c: event queues */

typedef struct Mlx5Eq {
    Mlx5Obj obj;
    Mlx5State *hca;
    Mlx5Buffer buf;
    uint8_t ctx[64];
    uint64_t event_mask;
    uint32_t log_size;
    uint32_t vector;
    uint32_t uar;
    uint32_t pi;
    uint32_t ci;
    bool armed;
} Mlx5Eq;

void mlx5_eq_free(gpointer opaque);
/*
 * Write an event to the EQ, or drop it with a guest error if the EQ is full or
 * its memory unreachable.
 */
void mlx5_eq_post(Mlx5State *s, Mlx5Eq *eq, Mlx5Event type,
                  unsigned sub_type, uint8_t *eqe);
/* Post to whichever EQ subscribed to @type; false when none did. */
bool mlx5_event_post(Mlx5State *s, Mlx5Event type, unsigned sub_type,
                     uint8_t *eqe);
Mlx5Eq *mlx5_event_eq(Mlx5State *s, Mlx5Event type);
void mlx5_eq_doorbell(Mlx5State *s, uint32_t uar, uint32_t value, bool arm);

/* ------------------------------------------------------------------ */
/* cq.c: completion queues */

typedef struct Mlx5Cq {
    Mlx5Obj obj;
    Mlx5Buffer buf;
    Mlx5Eq *eq;
    uint8_t ctx[64];
    uint32_t log_size;
    uint32_t stride;        /* bytes from one entry to the next */
    uint32_t uar;
    uint64_t dbr_addr;
    uint32_t pi;
    uint32_t ci;            /* as last read, or told by an arm doorbell */
    bool error;
    uint32_t solicited_pi;  /* producer index after the last solicited CQE */
    bool armed;
    bool armed_solicited;
    bool arm_pending;       /* doorbell seen, not yet acted upon */
    uint32_t arm_value;
    QTAILQ_ENTRY(Mlx5Cq) arm_entry;
    Mlx5State *hca;
} Mlx5Cq;

void mlx5_cq_free(gpointer opaque);
/*
 * @cqe has everything but the own bit and the time stamp.  @solicited: fires a
 * solicited arm.  False when the CQ is broken, or breaks because it is full or
 * its memory unreachable.
 */
bool mlx5_cq_post(Mlx5State *s, Mlx5Cq *cq, uint8_t *cqe, bool solicited);
void mlx5_cq_doorbell(Mlx5State *s, uint32_t uar, const uint8_t *db);
void mlx5_cq_run_arms(Mlx5State *s);

/* ------------------------------------------------------------------ */
/* mkey.c: memory keys and translation */

typedef struct Mlx5Mkey {
    Mlx5Obj obj;
    uint8_t ctx[MLX5_MKC_BYTES];
    Mlx5AccessMode mode;
    uint32_t xlt_octwords;  /* size of the translation table */
    struct Mlx5XltPage **xlt;   /* NULL: zeros */
    Mlx5State *hca;
} Mlx5Mkey;

typedef enum Mlx5Access {
    MLX5_ACCESS_LOCAL_READ = 1 << 0,
    MLX5_ACCESS_LOCAL_WRITE = 1 << 1,
    MLX5_ACCESS_REMOTE_READ = 1 << 2,
    MLX5_ACCESS_REMOTE_WRITE = 1 << 3,
    MLX5_ACCESS_ATOMIC = 1 << 4,
} Mlx5Access;

/* Who asks for a translation and what for. */
typedef struct Mlx5Requestor {
    uint32_t pd;
    uint32_t qpn;
    Mlx5Access access;
    bool any_pd;            /* the driver's own UMR QP has no PD */
} Mlx5Requestor;

typedef struct Mlx5Fault {
    uint32_t key;
    uint64_t va;            /* in the address space of @key */
    uint64_t len;           /* that the request still needs from @va on */
} Mlx5Fault;

typedef enum Mlx5Xlt {
    MLX5_XLT_OK,
    MLX5_XLT_FAULT,         /* not present: page fault */
    MLX5_XLT_DENIED,        /* key, PD, permission or bounds */
} Mlx5Xlt;

void mlx5_mkey_free(gpointer opaque);
/* Check key, PD, permission and bounds of a whole range. */
bool mlx5_mkey_check(Mlx5State *s, const Mlx5Requestor *req, uint32_t key,
                     uint64_t va, uint64_t len);
/* Free the key that a request of @req names, if it lets itself be. */
bool mlx5_mkey_invalidate(Mlx5State *s, const Mlx5Requestor *req,
                          uint32_t key);
/*
 * mlx5_mkey_translate: the contiguous runs at @va
 * @runs: filled in, except for its max
 *
 * On MLX5_XLT_OK the runs, of which there is at least one, cover between 1 and
 * @len bytes; on MLX5_XLT_FAULT @fault says what is missing at @va.
 */
Mlx5Xlt mlx5_mkey_translate(Mlx5State *s, const Mlx5Requestor *req,
                            uint32_t key, uint64_t va, uint64_t len,
                            Mlx5Runs *runs, Mlx5Fault *fault);
/* Translation table access in bytes; false when out of bounds or memory. */
bool mlx5_mkey_xlt_write(Mlx5Mkey *mk, uint64_t offset, const uint8_t *data,
                         uint64_t len);
Mlx5Mkey *mlx5_mkey_lookup(Mlx5State *s, uint32_t key);

/* ------------------------------------------------------------------ */
/* qp.c, requester.c, responder.c: queue pairs */

typedef struct Mlx5Sge {
    uint32_t key;
    uint32_t len;
    uint64_t addr;
} Mlx5Sge;

/* A position in a scatter/gather list or in inline data. */
typedef struct Mlx5Cursor {
    Mlx5State *hca;
    Mlx5Requestor req;
    const Mlx5Sge *sge;
    const uint8_t *inline_data;     /* instead of @sge */
    uint32_t num_sge;
    uint32_t index;
    uint32_t offset;                /* in sge[index] or inline_data */
} Mlx5Cursor;

typedef struct Mlx5Srq Mlx5Srq;
typedef struct Mlx5Qp Mlx5Qp;

/* A receive work request taken from a receive queue. */
typedef struct Mlx5Recv {
    bool valid;
    Mlx5Srq *srq;                   /* that it was taken from, or NULL */
    uint32_t index;                 /* for the CQE's wqe_counter */
    uint32_t num_sge;
    uint64_t len;
    Mlx5Sge sge[MLX5_MAX_RQ_WQE / MLX5_SEG_BYTES];
} Mlx5Recv;

/* A send work request, copied in and parsed once. */
typedef struct Mlx5Send {
    bool valid;
    uint8_t raw[MLX5_MAX_SQ_WQE];
    uint32_t raw_len;
    uint32_t wqebbs;
    uint8_t opcode;
    uint32_t index;                 /* for the CQE's wqe_counter */
    uint32_t imm;
    bool signaled;
    bool solicited;                 /* the receiver's completion */
    bool event;                     /* completion fires a solicited arm */
    const uint8_t *xrc;             /* segments inside @raw, or NULL */
    const uint8_t *av;
    const uint8_t *raddr;
    const uint8_t *atomic;
    uint32_t num_sge;
    Mlx5Sge sge[MLX5_MAX_SGE];
    bool is_inline;
    uint8_t inline_data[MLX5_MAX_SQ_WQE];   /* or an atomic's result */
    uint64_t len;
    /* Progress */
    bool done;                      /* waits for an injected delay */
    Mlx5Syndrome syndrome;          /* then */
    bool started;                   /* remote side checked and claimed */
    uint64_t peer_serial;
    uint64_t left;                  /* bytes still to copy */
    Mlx5Sge remote_sge;
    Mlx5Cursor local;
    Mlx5Cursor remote;
} Mlx5Send;

typedef enum Mlx5Wait {
    MLX5_WAIT_NONE,
    MLX5_WAIT_FAULT,
    MLX5_WAIT_RNR,
    MLX5_WAIT_PEER,
    MLX5_WAIT_BUSY,         /* too many page faults outstanding */
    MLX5_WAIT_DELAY,        /* injected, before the retry after a fault */
    MLX5_WAIT_COMPLETE,     /* injected, before the completion */
} Mlx5Wait;

/* What became of the page fault that a QP waited for. */
typedef enum Mlx5FaultResult {
    MLX5_FAULT_RETRY,
    MLX5_FAULT_LOCAL_ERROR,
    MLX5_FAULT_REMOTE_ERROR,
} Mlx5FaultResult;

typedef struct Mlx5PendingFault Mlx5PendingFault;

struct Mlx5Qp {
    Mlx5Obj obj;
    Mlx5State *hca;
    uint64_t serial;                /* never reused, unlike the number */
    uint8_t ctx[MLX5_QPC_BYTES];
    Mlx5Service service;
    Mlx5QpState state;
    Mlx5Buffer buf;
    Mlx5Cq *send_cq;
    Mlx5Cq *recv_cq;
    Mlx5Srq *srq;
    uint32_t uar;
    /* send queue, counters in WQEBBs */
    bool has_sq;
    uint32_t sq_wqebbs;
    uint64_t sq_offset;
    uint16_t sq_ci;
    uint16_t sq_pi;
    Mlx5Send send;
    Mlx5Wait wait;
    int64_t wait_deadline;          /* virtual ns; INT64_MAX: none */
    int64_t wait_period;
    QEMUTimer *timer;
    Mlx5PendingFault *fault;
    Mlx5FaultResult fault_result;
    /* receive queue, counters in WQEs */
    bool has_rq;
    uint32_t rq_wqes;
    uint32_t rq_stride;
    uint16_t rq_ci;
    int64_t flush_period;           /* virtual ns, in the error state */
    bool last_wqe;                  /* event due that its SRQ is unused now */
    Mlx5Recv recv;
    Mlx5PendingFault *remote_fault; /* that its requester waits for */
    /* scheduling */
    bool queued;
    QTAILQ_ENTRY(Mlx5Qp) work_entry;
};

void mlx5_qp_free(gpointer opaque);
void mlx5_qp_kick(Mlx5Qp *qp);
/* Stop whatever the requester waits for; the QP may run again. */
void mlx5_qp_wake(Mlx5Qp *qp);
/* Who calls it also calls mlx5_run(): the main loop need not be woken up. */
void mlx5_qp_doorbell(Mlx5State *s, uint32_t uar, uint32_t qpn);
void mlx5_qp_to_error(Mlx5Qp *qp);
/* The same for the send queue only; software may move it back to RTS. */
void mlx5_qp_to_send_error(Mlx5Qp *qp);
/* Whether @qp accepts what is sent to it. */
bool mlx5_qp_receives(const Mlx5Qp *qp);
/* Post an event about @qp. */
void mlx5_qp_event(Mlx5Qp *qp, Mlx5Event event);
/* Post to @cq, which @qp completes to; false when @qp has failed for it. */
bool mlx5_qp_cq_post(Mlx5Qp *qp, Mlx5Cq *cq, uint8_t *cqe, bool solicited);
/* Post a CQE for a send or receive work request of @qp. */
void mlx5_qp_send_cqe(Mlx5Qp *qp, unsigned opcode, uint32_t index,
                      uint32_t len, Mlx5Syndrome syndrome, bool solicited);
/* @srq: that the request was taken from, NULL for the QP's own queue */
void mlx5_qp_recv_error(Mlx5Qp *qp, Mlx5Srq *srq, uint32_t index,
                        Mlx5Syndrome syndrome);
/* Where receive requests from @srq, or of the QP's own queue, complete. */
Mlx5Cq *mlx5_qp_recv_cq(Mlx5Qp *qp, Mlx5Srq *srq);
/* Try again when @ns of virtual time have passed, not before. */
void mlx5_qp_delay(Mlx5Qp *qp, Mlx5Wait wait, uint64_t ns);
const uint8_t *mlx5_qp_path(const Mlx5Qp *qp);

/*
 * Run queued QPs in turn, a slice at a time, up to a budget; true when there is
 * more to do at once.
 */
bool mlx5_requester_run(Mlx5State *s);
/* How often each request was executed on each service, as text. */
void mlx5_requester_counts(const Mlx5State *s, GString *text);
/* Drop the work request in progress, with its fault and timer. */
void mlx5_requester_abort(Mlx5Qp *qp);

typedef enum Mlx5Take {
    MLX5_TAKE_OK,
    MLX5_TAKE_EMPTY,        /* nothing posted: RNR */
    MLX5_TAKE_ERROR,        /* queue memory unreachable or WQE malformed */
} Mlx5Take;

/*
 * Claim the next receive request, of @srq if there is one, into qp->recv,
 * unless one is claimed already: a message in progress, or one that a
 * datagram did not use.
 */
Mlx5Take mlx5_responder_take(Mlx5Qp *qp, Mlx5Srq *srq);

/* What a receive completion says besides the request it completes. */
typedef struct Mlx5RecvInfo {
    Mlx5CqeOpcode opcode;
    uint32_t len;
    uint32_t imm;
    uint16_t slid;
    uint32_t source_qpn;
    uint8_t sl;
    bool grh;
    bool solicited;
} Mlx5RecvInfo;

/* Complete qp->recv; false when that cannot be, and @qp has failed. */
bool mlx5_responder_complete(Mlx5Qp *qp, const Mlx5RecvInfo *info);
/*
 * Move @qp to the error state; a claimed receive request completes with
 * @syndrome and the driver gets @event, unless that is MLX5_EVENT_COMP.
 */
void mlx5_responder_fail(Mlx5Qp *qp, Mlx5Syndrome syndrome, Mlx5Event event);
/*
 * Flush up to @max receive requests, count them in @flushed; true when there
 * may be more.
 */
bool mlx5_responder_flush(Mlx5Qp *qp, unsigned max, unsigned *flushed);
/* Give up the receive requests that XRC QPs claimed from @srq. */
void mlx5_responder_forget(Mlx5State *s, const Mlx5Srq *srq);
/*
 * The QP that a connected QP's packets reach, or NULL.  One that expects other
 * PSNs than a reliable QP sends does not answer, as if it were not there.
 */
Mlx5Qp *mlx5_responder_find(Mlx5Qp *from);
/* The QP that takes datagrams for @qpn (0 and 1: management) at @lid. */
Mlx5Qp *mlx5_responder_find_datagram(Mlx5Qp *from, uint16_t lid,
                                     uint32_t qpn);

typedef enum Mlx5Copy {
    MLX5_COPY_DONE,         /* all @len bytes */
    MLX5_COPY_MORE,         /* budget used up */
    MLX5_COPY_SRC_FAULT,
    MLX5_COPY_DST_FAULT,
    MLX5_COPY_SRC_DENIED,   /* no key allows it */
    MLX5_COPY_DST_DENIED,
    MLX5_COPY_SRC_ERROR,    /* nobody answered at the bus address */
    MLX5_COPY_DST_ERROR,
} Mlx5Copy;

/* What a piece of data, a request or a completion costs at least, in bytes. */
#define MLX5_MIN_COST 512

/* Take @cost bytes from what a slice may still do. */
static inline void mlx5_charge(uint64_t *budget, uint64_t cost)
{
    *budget -= MIN(*budget, cost);
}

/*
 * mlx5_cursor_copy: move bytes from one cursor to the other
 * @len: bytes wanted; decremented by what was moved
 * @budget: bytes allowed in this slice; decremented likewise, and by what
 *          finding them cost
 * @fault: set for MLX5_COPY_SRC_FAULT and MLX5_COPY_DST_FAULT
 */
Mlx5Copy mlx5_cursor_copy(Mlx5Cursor *dst, Mlx5Cursor *src, uint64_t *len,
                          uint64_t *budget, Mlx5Fault *fault);

/*
 * Read @len bytes at the cursor, which stays where it is.  In one go: it fails
 * if it takes more than @budget.
 */
Mlx5Xlt mlx5_cursor_read(const Mlx5Cursor *c, uint8_t *buf, uint64_t len,
                         uint64_t *budget, Mlx5Fault *fault);

/* umr.c: apply a UMR work request, and take its cost from @budget */
Mlx5Syndrome mlx5_umr_execute(Mlx5Qp *qp, uint64_t *budget);

/* ------------------------------------------------------------------ */
/* srq.c: shared receive queues (SRQ, XRC SRQ, RMP) */

struct Mlx5Srq {
    Mlx5Obj obj;
    Mlx5State *hca;
    Mlx5Opcode kind;                /* the command that created it */
    uint8_t ctx[64];
    Mlx5Buffer buf;
    uint64_t dbr_addr;
    uint32_t pd;
    uint32_t xrcd;
    uint32_t num_wqes;
    uint32_t stride;
    Mlx5Cq *cq;                     /* of an XRC SRQ */
    uint16_t head;                  /* index of the next WQE */
    uint16_t taken;                 /* counter of WQEs taken */
    uint16_t lwm;
};

void mlx5_srq_free(gpointer opaque);
Mlx5Srq *mlx5_srq_find(Mlx5State *s, uint32_t id);

/* ------------------------------------------------------------------ */
/* odp.c: page faults */

struct Mlx5PendingFault {
    uint64_t token;
    Mlx5Qp *qp;             /* NULL: nobody waits any more */
    Mlx5State *hca;         /* that owns the mkey */
    Mlx5Qp *peer;           /* responder, if the fault is there and it exists */
    bool remote;            /* the fault is on the responder's side */
    bool resolved;
};

typedef enum Mlx5Raise {
    MLX5_RAISE_OK,
    MLX5_RAISE_BUSY,        /* too many outstanding, try again later */
    MLX5_RAISE_REFUSED,     /* the driver does not listen */
} Mlx5Raise;

/* Ask the driver of @hca to resolve @fault; @qp is woken when it has. */
Mlx5Raise mlx5_odp_raise(Mlx5Qp *qp, Mlx5State *hca, const Mlx5Fault *fault,
                         bool remote);
void mlx5_odp_cancel(Mlx5PendingFault *fault);
/* @qp does not receive any more: who waits for a fault of it need not. */
void mlx5_odp_peer_left(Mlx5Qp *qp);
/* @s loses its mkeys: whoever waits for one tries again. */
void mlx5_odp_forget(Mlx5State *s);
void mlx5_odp_free(gpointer opaque);

/* ------------------------------------------------------------------ */
/* port.c: port counters */

/* In how many packets of @qp's path MTU @len bytes are sent. */
uint64_t mlx5_port_packets(const Mlx5Qp *qp, uint64_t len);
/*
 * Count a message of @len bytes on the ports of @tx and @rx, either of which
 * may be NULL, in packets of @qp's path MTU.  @response: the data go back.
 */
void mlx5_port_count(Mlx5State *tx, Mlx5State *rx, const Mlx5Qp *qp,
                     uint64_t len, bool response);

/* ------------------------------------------------------------------ */
/* fabric.c: the emulated subnet */

void mlx5_fabric_attach(Mlx5State *s);
void mlx5_fabric_detach(Mlx5State *s);
/* The HCA with @lid on @s's subnet, or NULL; not one that is being reset. */
Mlx5State *mlx5_fabric_find(Mlx5State *s, uint16_t lid);
/* A LID that no HCA of the subnet uses; 0 when all are taken. */
uint16_t mlx5_fabric_free_lid(const char *subnet);
/* Whether an HCA of any subnet has @guid. */
bool mlx5_fabric_has_guid(uint64_t guid);

/* ------------------------------------------------------------------ */
/* hca.c: the PCI function */

/* How often something was done, with success and without. */
typedef struct Mlx5Count {
    uint64_t good;
    uint64_t bad;
} Mlx5Count;

static inline void mlx5_count(Mlx5Count *count, bool good)
{
    (*(good ? &count->good : &count->bad))++;
}

/* Append "PREFIXNAME=GOOD/BAD" to a list that is separated by spaces. */
void mlx5_count_append(GString *text, const char *prefix, const char *name,
                       const Mlx5Count *count);

typedef struct Mlx5Stats {
    uint64_t guest_errors;
    uint64_t commands;
    uint64_t completions;
    uint64_t events;
    uint64_t doorbells;
    uint64_t faults;
    uint64_t umrs;
    uint64_t dma_errors;
    P2PDmaStats data;           /* the part of dma.stats that is payload */
    uint64_t tx_packets;
    uint64_t tx_octets;
    uint64_t rx_packets;
    uint64_t rx_octets;
    Mlx5Count cmds[64];         /* in the order of cmd.c */
    Mlx5Count requests[MLX5_ST_NUM][MLX5_WQE_OPCODES];
} Mlx5Stats;

/*
 * Error injection, QOM properties that tests write.  Counts say how many of
 * the next ones are affected and go down to 0; times are virtual nanoseconds.
 */
typedef struct Mlx5Inject {
    uint64_t drop_completions;  /* work requests that complete silently */
    uint64_t completion_delay;  /* from the end of the work to its CQE */
    uint64_t fault_delay;       /* from the resume of a fault to the retry */
    uint64_t fail_data;         /* transfers of payload */
    uint64_t fail_umrs;
} Mlx5Inject;

/* Whether this is one of those that an injection count is for. */
static inline bool mlx5_inject(uint64_t *count)
{
    if (!*count) {
        return false;
    }
    --*count;
    return true;
}

struct Mlx5State {
    PCIDevice parent_obj;

    MemoryRegion bar0;
    P2PDma dma;
    QEMUBH *bh;
    Mlx5Stats stats;
    Mlx5Inject inject;

    /* properties */
    uint16_t lid;
    char *subnet;
    uint64_t guid;
    uint32_t num_vectors;
    uint64_t context_mem;
    bool relaxed_ordering;
    bool ats;
    bool transport_faults;

    Mlx5Iseg iseg;
    uint32_t cmd_doorbell;          /* entries whose bit was written */
    bool hca_enabled;
    bool hca_initialized;
    uint16_t issi;
    uint32_t port_cap_mask;
    uint8_t node_desc[64];
    uint8_t cap_max[MLX5_CAP_TYPES][MLX5_CAP_BYTES];
    uint8_t cap_cur[MLX5_CAP_TYPES][MLX5_CAP_BYTES];
    uint64_t context_used;

    Mlx5Table uars, pds, xrcds, eqs, cqs, mkeys, qps, srqs;
    GHashTable *faults;             /* token -> Mlx5PendingFault */
    uint64_t next_token;
    Mlx5Qp *management[2];          /* QP0 and QP1 */
    QTAILQ_HEAD(, Mlx5Qp) work;
    QTAILQ_HEAD(, Mlx5Cq) arms;
    uint64_t fire;                  /* MSI-X vectors to be delivered */
    QTAILQ_ENTRY(Mlx5State) fire_entry;     /* if there are any */
    QTAILQ_ENTRY(Mlx5State) fabric_entry;
};

/* Ask for a run of the bottom half, unless @s is at work or unplugged. */
void mlx5_schedule(Mlx5State *s);
/*
 * Work now; while an HCA is at work, or interrupts are delivered,
 * mlx5_schedule() instead.
 */
void mlx5_run(Mlx5State *s);
/* Deliver MSI-X vector @vector when no HCA is at work any more. */
void mlx5_fire(Mlx5State *s, unsigned vector);
/* Destroy every object: a reset, TEARDOWN_HCA, or a new owner. */
void mlx5_hca_teardown(Mlx5State *s);

#endif
