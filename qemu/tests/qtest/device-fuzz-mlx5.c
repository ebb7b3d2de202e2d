/*
 * Random use of device models: two mlx5 HCAs on one subnet
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Commands, work requests and doorbells are made to be valid, field by field,
 * and then damaged now and then: only what gets past the first check reaches
 * the second.
 */
#include "qemu/osdep.h"
#include "qemu/units.h"
#include "hw/pci/pci_regs.h"
#include "device-fuzz.h"
#include "mlx5-driver.h"
#include "vtd-tables.h"

enum {
    POOL_PAGES = 96,            /* that queues are made in, again and again */
    MAX_KNOWN = 16,
    MAX_QPS = 16,
    MAX_TOKENS = 64,
    MAX_WQE = 1024,
    VARIANT = 0x42,             /* low byte of every key */
    RQ_OFFSET_OF_SQ = QUEUE * RQ_STRIDE,
    QKEY = 0x11,
    GSI_QPN = 1,
};

#define UMR_VA      0x555500000000ull
#define TABLES      0xf000000ull

/* What fields of commands and descriptors refer to. */
typedef enum Kind {
    ANY, PD, UAR, XRCD, EQ, CQ, MKEY, QP, SRQ, XSRQ, RMP, KINDS,
} Kind;

typedef struct Known {
    uint32_t id[MAX_KNOWN];
    unsigned count;             /* ever; all but the first are forgotten */
    unsigned first;             /* from the start of the round */
} Known;

typedef struct FuzzQp {
    Qp qp;
    unsigned service;
} FuzzQp;

typedef struct Side {
    Hca *h;
    Known known[KINDS];
    FuzzQp qps[MAX_QPS];
    unsigned num_qps;
    uint32_t first_pd;
    uint32_t first_mkey;        /* all memory; four for UMR follow */
    Queue faults;
    uint64_t tokens[MAX_TOKENS];
    unsigned num_tokens;
    uint32_t first_xsrq;
    uint16_t srq_pi;
    uint64_t srq_dbr;
    uint64_t srq_wqes;
} Side;

typedef struct Both {
    Side side[2];
    VtdTables vtd;
} Both;

/* ------------------------------------------------------------------ */
/* Fields by name */

typedef struct Layout {
    const char *name;
    const Mlx5Field *field;
    unsigned count;
} Layout;

#define FUZZ_FIELD(l_, name_, offset_, lsb_, width_) \
    { .name = #name_, .offset = offset_, .lsb = lsb_, .width = width_ },
#define FUZZ_LAYOUT(l_, list_)                                      \
    static const Mlx5Field fields_##l_[] = { list_(FUZZ_FIELD) };   \
    static const Layout layout_##l_ = {                             \
        #l_, fields_##l_, ARRAY_SIZE(fields_##l_)                   \
    };

FUZZ_LAYOUT(obj, MLX5_FIELDS_OBJ)
FUZZ_LAYOUT(cmd, MLX5_FIELDS_CMD)
FUZZ_LAYOUT(pages, MLX5_FIELDS_PAGES)
FUZZ_LAYOUT(query_issi_out, MLX5_FIELDS_QUERY_ISSI_OUT)
FUZZ_LAYOUT(eqc, MLX5_FIELDS_EQC)
FUZZ_LAYOUT(create_eq_in, MLX5_FIELDS_CREATE_EQ_IN)
FUZZ_LAYOUT(cqc, MLX5_FIELDS_CQC)
FUZZ_LAYOUT(qpc, MLX5_FIELDS_QPC)
FUZZ_LAYOUT(ads, MLX5_FIELDS_ADS)
FUZZ_LAYOUT(create_qp_in, MLX5_FIELDS_CREATE_QP_IN)
FUZZ_LAYOUT(mkc, MLX5_FIELDS_MKC)
FUZZ_LAYOUT(create_mkey_in, MLX5_FIELDS_CREATE_MKEY_IN)
FUZZ_LAYOUT(page_fault_resume_in, MLX5_FIELDS_PAGE_FAULT_RESUME_IN)
FUZZ_LAYOUT(vport_in, MLX5_FIELDS_VPORT_IN)
FUZZ_LAYOUT(hca_vport_context, MLX5_FIELDS_HCA_VPORT_CONTEXT)
FUZZ_LAYOUT(access_register_in, MLX5_FIELDS_ACCESS_REGISTER_IN)
FUZZ_LAYOUT(ptys_reg, MLX5_FIELDS_PTYS_REG)
FUZZ_LAYOUT(cmd_hca_cap, MLX5_FIELDS_CMD_HCA_CAP)
FUZZ_LAYOUT(srqc, MLX5_FIELDS_SRQC)
FUZZ_LAYOUT(wq, MLX5_FIELDS_WQ)
FUZZ_LAYOUT(wqe_ctrl, MLX5_FIELDS_WQE_CTRL)
FUZZ_LAYOUT(wqe_data, MLX5_FIELDS_WQE_DATA)
FUZZ_LAYOUT(wqe_raddr, MLX5_FIELDS_WQE_RADDR)
FUZZ_LAYOUT(wqe_atomic, MLX5_FIELDS_WQE_ATOMIC)
FUZZ_LAYOUT(wqe_xrc, MLX5_FIELDS_WQE_XRC)
FUZZ_LAYOUT(wqe_av, MLX5_FIELDS_WQE_AV)
FUZZ_LAYOUT(wqe_umr, MLX5_FIELDS_WQE_UMR)

static uint64_t random_page(Fuzz *f, const Side *s)
{
    return s->h->pool_start + fuzz_below(f, POOL_PAGES) * 4096;
}

static uint64_t known(Fuzz *f, const Side *s, Kind kind)
{
    const Known *k = &s->known[kind];

    return k->count ? k->id[fuzz_below(f, MIN(k->count, MAX_KNOWN))] :
                      fuzz_value(f, 8);
}

static void remember(Side *s, Kind kind, uint32_t id)
{
    Known *k = &s->known[kind];

    k->id[k->count < MAX_KNOWN ? k->count :
          k->first + k->count % (MAX_KNOWN - k->first)] = id;
    k->count++;
}

/* What a command is about: seldom one of those that all the rest needs. */
static uint64_t known_later(Fuzz *f, const Side *s, Kind kind)
{
    const Known *k = &s->known[kind];
    unsigned count = MIN(k->count, MAX_KNOWN);

    if (fuzz_chance(f, 1)) {
        return known(f, s, kind);
    }
    return count == k->first ? fuzz_value(f, 24) :
           k->id[k->first + fuzz_below(f, count - k->first)];
}

static uint64_t random_key(Fuzz *f, const Side *s)
{
    return fuzz_chance(f, 3) ? 0x200 : known(f, s, MKEY) << 8 | VARIANT;
}

/* Where data may be: behind a UMR mkey, in memory, anywhere. */
static uint64_t random_data(Fuzz *f)
{
    switch (fuzz_below(f, 8)) {
    case 0:
        return fuzz_address(f);
    case 1 ... 3:
        return UMR_VA + fuzz_below(f, 16 * 4096);
    case 4:
        return BUF_A + fuzz_below(f, 256) * 8;
    default:
        return (fuzz_chance(f, 50) ? BUF_A : BUF_B) + fuzz_below(f, 64 * KiB);
    }
}

static uint64_t random_length(Fuzz *f)
{
    switch (fuzz_below(f, 8)) {
    case 0:
        /* Gigabytes take their time, even more so from registers. */
        return fuzz_chance(f, 5) ? fuzz_value(f, 31) : fuzz_value(f, 16);
    case 1:
        return fuzz_below(f, 64 * KiB);
    case 2 ... 3:
        return 8;
    default:
        return fuzz_below(f, 4096);
    }
}

#define GENERATOR(name_, value_)                                \
    static uint64_t gen_##name_(Fuzz *f, const Side *s)         \
    {                                                           \
        return value_;                                          \
    }

GENERATOR(zero, 0)
GENERATOR(one, 1)
GENERATOR(often, fuzz_chance(f, 90))
GENERATOR(seldom, fuzz_chance(f, 10))
GENERATOR(half, fuzz_chance(f, 50))
GENERATOR(small, fuzz_below(f, 16))
GENERATOR(two_bits, fuzz_below(f, 4))
GENERATOR(log, LOG_QUEUE)
GENERATOR(any, fuzz_value(f, 64))
GENERATOR(bits, fuzz_bits(f))
GENERATOR(pd, known(f, s, PD))
GENERATOR(uar, known(f, s, UAR))
GENERATOR(eq, known(f, s, EQ))
GENERATOR(cq, known(f, s, CQ))
GENERATOR(qp, known(f, s, QP))
GENERATOR(xrcd, known(f, s, XRCD))
GENERATOR(key, random_key(f, s))
GENERATOR(data, random_data(f))
GENERATOR(length, random_length(f))
GENERATOR(lid, 1 + fuzz_below(f, 2))
GENERATOR(qkey, QKEY)
GENERATOR(variant, VARIANT)
GENERATOR(any_qpn, 0xffffff)
/* Seldom a table of several pages */
GENERATOR(octwords, fuzz_below(f, fuzz_chance(f, 90) ? 64 : 1024))
GENERATOR(xlt_offset, fuzz_chance(f, 70) ? 0 : gen_octwords(f, s))

static uint64_t gen_srq(Fuzz *f, const Side *s)
{
    static const Kind kinds[] = { SRQ, XSRQ, RMP };

    return known(f, s, kinds[fuzz_below(f, ARRAY_SIZE(kinds))]);
}

static uint64_t gen_dbr(Fuzz *f, const Side *s)
{
    return random_page(f, s) + fuzz_below(f, 64) * 8;
}

static uint64_t gen_service(Fuzz *f, const Side *s)
{
    static const uint8_t services[] = {
        MLX5_ST_RC, MLX5_ST_RC, MLX5_ST_UC, MLX5_ST_UD, MLX5_ST_XRC,
        MLX5_ST_QP0, MLX5_ST_QP1, MLX5_ST_REG_UMR,
    };

    return services[fuzz_below(f, ARRAY_SIZE(services))];
}

static uint64_t gen_register(Fuzz *f, const Side *s)
{
    static const uint16_t registers[] = {
        MLX5_REG_PMTU, MLX5_REG_PTYS, MLX5_REG_PPCNT, MLX5_REG_PVLC,
        MLX5_REG_NODE_DESC, MLX5_REG_HOST_ENDIANNESS,
    };

    return registers[fuzz_below(f, ARRAY_SIZE(registers))];
}

static uint64_t gen_start(Fuzz *f, const Side *s)
{
    return fuzz_chance(f, 80) ? UMR_VA : fuzz_address(f);
}

static uint64_t gen_page_shift(Fuzz *f, const Side *s)
{
    return fuzz_chance(f, 90) ? 12 : fuzz_value(f, 6);
}

static uint64_t gen_umr_flags(Fuzz *f, const Side *s)
{
    static const uint8_t flags[] = {
        0, MLX5_UMR_CHECK_IS_FREE, MLX5_UMR_CHECK_NOT_FREE,
    };

    return flags[fuzz_below(f, ARRAY_SIZE(flags))] |
           (fuzz_chance(f, 80) ? MLX5_UMR_OFFSET_EN : 0) |
           (fuzz_chance(f, 30) ? MLX5_UMR_INLINE : 0);
}

static uint64_t gen_mkey_mask(Fuzz *f, const Side *s)
{
    uint64_t all = MLX5_MKEY_MASK_LEN | MLX5_MKEY_MASK_START_ADDR |
                   MLX5_MKEY_MASK_PD | MLX5_MKEY_MASK_KEY |
                   MLX5_MKEY_MASK_LR | MLX5_MKEY_MASK_LW | MLX5_MKEY_MASK_RR |
                   MLX5_MKEY_MASK_RW | MLX5_MKEY_MASK_A |
                   MLX5_MKEY_MASK_FREE | MLX5_MKEY_MASK_QPN |
                   MLX5_MKEY_MASK_PAGE_SIZE | MLX5_MKEY_MASK_PAGE_SIZE_5 |
                   MLX5_MKEY_MASK_EN_RINVAL;

    return fuzz_chance(f, 60) ? all : all & fuzz_bits(f);
}

/* What is not listed is 0, and what is listed for a layout counts there only. */
static const struct {
    const char *field;
    uint64_t (*generate)(Fuzz *f, const Side *s);
    const char *layout;
} generators[] = {
    { "log_page_size", gen_page_shift, "mkc" },
    { "log_page_size_4_0", gen_page_shift, "mkc" },
    { "qpn", gen_any_qpn, "mkc" },
    { "len", gen_octwords, "mkc" },
    { "addr", gen_data, "wqe_data" },
    { "st", gen_service, "qpc" },
    { "flags", gen_umr_flags, "wqe_umr" },
    { "index", gen_small, "vport_in" },
    { "pd", gen_pd, NULL },
    { "uar_page", gen_uar, NULL },
    { "c_eqn_or_apu_element", gen_eq, NULL },
    { "cqn_snd", gen_cq, NULL },
    { "cqn_rcv", gen_cq, NULL },
    { "cqn", gen_cq, NULL },
    { "srqn_rmpn_xrqn", gen_srq, NULL },
    { "srqn", gen_srq, NULL },
    { "xrcd", gen_xrcd, NULL },
    { "remote_qpn", gen_qp, NULL },
    { "dqpn", gen_qp, NULL },
    { "rlid", gen_lid, NULL },
    { "rq_type", gen_two_bits, NULL },
    { "no_sq", gen_seldom, NULL },
    { "log_cq_size", gen_log, NULL },
    { "log_eq_size", gen_log, NULL },
    { "log_rq_size", gen_log, NULL },
    { "log_sq_size", gen_log, NULL },
    { "log_srq_size", gen_log, NULL },
    { "log_wq_sz", gen_log, NULL },
    { "log_rq_stride", gen_two_bits, NULL },
    { "log_wq_stride", gen_small, NULL },
    { "intr", gen_small, NULL },
    { "dbr_addr", gen_dbr, NULL },
    { "event_bitmask_0", gen_bits, NULL },
    { "mtu", gen_two_bits, NULL },
    { "ack_timeout", gen_small, NULL },
    { "retry_count", gen_two_bits, NULL },
    { "rnr_retry", gen_two_bits, NULL },
    { "min_rnr_nak", gen_small, NULL },
    { "fre", gen_often, NULL },
    { "rre", gen_often, NULL },
    { "rwe", gen_often, NULL },
    { "rae", gen_often, NULL },
    { "atomic_mode", gen_one, NULL },
    { "q_key", gen_qkey, NULL },
    { "qkey", gen_qkey, NULL },
    { "opt_param_mask", gen_bits, NULL },
    { "op_mod", gen_small, NULL },
    { "current_issi", gen_half, NULL },
    { "register_id", gen_register, NULL },
    { "local_port", gen_one, NULL },
    { "port_num", gen_one, NULL },
    { "proto_mask", gen_one, NULL },
    { "field_select", gen_any, NULL },
    { "cap_mask1", gen_any, NULL },
    { "cap_mask1_field_select", gen_any, NULL },
    { "lwm", gen_small, NULL },
    { "access_mode_1_0", gen_two_bits, NULL },
    { "access_mode_4_2", gen_zero, NULL },
    { "lr", gen_often, NULL },
    { "lw", gen_often, NULL },
    { "rr", gen_often, NULL },
    { "rw", gen_often, NULL },
    { "a", gen_often, NULL },
    { "umr_en", gen_often, NULL },
    { "en_rinval", gen_often, NULL },
    { "free", gen_half, NULL },
    { "mkey_7_0", gen_variant, NULL },
    { "length64", gen_often, NULL },
    { "start_addr", gen_start, NULL },
    { "ma_translation_mode", gen_half, NULL },
    { "translations_octword_size", gen_octwords, NULL },
    { "translations_octword_actual_size", gen_small, NULL },
    { "pg_access", gen_half, NULL },
    { "token_31_0", gen_small, NULL },
    { "error", gen_half, NULL },
    { "byte_count", gen_length, NULL },
    { "lkey", gen_key, NULL },
    { "rkey", gen_key, NULL },
    { "raddr", gen_data, NULL },
    { "swap_add", gen_any, NULL },
    { "compare", gen_any, NULL },
    { "extended", gen_often, NULL },
    { "grh", gen_half, NULL },
    { "sl", gen_small, NULL },
    { "imm", gen_any, NULL },
    { "ce", gen_two_bits, NULL },
    { "solicited", gen_half, NULL },
    { "xlt_octowords", gen_small, NULL },
    { "xlt_offset", gen_xlt_offset, NULL },
    { "mkey_mask", gen_mkey_mask, NULL },
};

static void fill_layout(Fuzz *f, const Side *s, const Layout *l, uint8_t *buf)
{
    for (unsigned i = 0; i < l->count; i++) {
        for (unsigned g = 0; g < ARRAY_SIZE(generators); g++) {
            if (!strcmp(generators[g].field, l->field[i].name) &&
                (!generators[g].layout ||
                 !strcmp(generators[g].layout, l->name))) {
                mlx5_field_set(buf, &l->field[i],
                               generators[g].generate(f, s));
                break;
            }
        }
    }
}

/* Break one field. */
static void damage_layout(Fuzz *f, const Layout *l, uint8_t *buf)
{
    const Mlx5Field *field = &l->field[fuzz_below(f, l->count)];

    mlx5_field_set(buf, field, field->width == 64 && fuzz_chance(f, 50) ?
                   fuzz_address(f) : fuzz_value(f, field->width));
}

/* ------------------------------------------------------------------ */
/* Commands */

typedef struct Part {
    const Layout *layout;
    uint16_t offset;
} Part;

typedef struct Command {
    uint16_t opcode;
    uint16_t in_len;
    uint16_t out_len;
    Kind about;                 /* the object whose number is at 8 */
    Kind creates;
    uint8_t pages;              /* of the list at PAS */
    Part part[3];
    uint8_t weight;             /* 0: 1 */
} Command;

#define CTX(l_) { &layout_##l_, MLX5_CTX }
#define IN(l_) { &layout_##l_, 0 }

enum { MLX5_CTX = 0x10, MLX5_QPC = 0x18, MLX5_PATH = 0x30, MLX5_RMP_WQ = 0x50 };

#define QP_PARTS { IN(create_qp_in), { &layout_qpc, MLX5_QPC }, \
                   { &layout_ads, MLX5_PATH } }

static const Command commands[] = {
    { MLX5_OP_QUERY_HCA_CAP, 16, 4112, ANY, ANY, 0, { IN(cmd) } },
    { MLX5_OP_SET_HCA_CAP, 272, 16, ANY, ANY, 0, { IN(cmd),
                                                   CTX(cmd_hca_cap) } },
    { MLX5_OP_QUERY_ADAPTER, 16, 272 },
    { MLX5_OP_INIT_HCA, 16, 16 },
    { MLX5_OP_QUERY_PAGES, 16, 16, ANY, ANY, 0, { IN(pages) } },
    { MLX5_OP_MANAGE_PAGES, 16, 16, ANY, ANY, 0, { IN(pages) } },
    { MLX5_OP_QUERY_ISSI, 16, 112 },
    { MLX5_OP_SET_ISSI, 16, 16, ANY, ANY, 0, { IN(query_issi_out) } },
    { MLX5_OP_QUERY_SPECIAL_CONTEXTS, 16, 32 },
    { MLX5_OP_CREATE_MKEY, PAS, 16, ANY, MKEY, 8,
      { CTX(mkc), IN(create_mkey_in) }, 4 },
    { MLX5_OP_QUERY_MKEY, 16, 304, MKEY },
    { MLX5_OP_DESTROY_MKEY, 16, 16, MKEY },
    { MLX5_OP_PAGE_FAULT_RESUME, 16, 16, ANY, ANY, 0,
      { IN(page_fault_resume_in) }, 4 },
    { MLX5_OP_CREATE_EQ, PAS, 16, ANY, EQ, 4, { CTX(eqc),
                                                IN(create_eq_in) } },
    { MLX5_OP_DESTROY_EQ, 16, 16, EQ },
    { MLX5_OP_QUERY_EQ, 16, 272, EQ },
    { MLX5_OP_CREATE_CQ, PAS, 16, ANY, CQ, 4, { CTX(cqc) }, 2 },
    { MLX5_OP_DESTROY_CQ, 16, 16, CQ },
    { MLX5_OP_QUERY_CQ, 16, 272, CQ },
    { MLX5_OP_MODIFY_CQ, PAS, 16, CQ, ANY, 4, { CTX(cqc), IN(cmd) } },
    { MLX5_OP_CREATE_QP, PAS, 16, ANY, QP, 4, QP_PARTS, 4 },
    { MLX5_OP_DESTROY_QP, 16, 16, QP },
    { MLX5_OP_RST2INIT_QP, PAS, 16, QP, ANY, 0, QP_PARTS, 2 },
    { MLX5_OP_INIT2INIT_QP, PAS, 16, QP, ANY, 0, QP_PARTS },
    { MLX5_OP_INIT2RTR_QP, PAS, 16, QP, ANY, 0, QP_PARTS, 2 },
    { MLX5_OP_RTR2RTS_QP, PAS, 16, QP, ANY, 0, QP_PARTS, 2 },
    { MLX5_OP_RTS2RTS_QP, PAS, 16, QP, ANY, 0, QP_PARTS },
    { MLX5_OP_SQERR2RTS_QP, PAS, 16, QP, ANY, 0, QP_PARTS },
    { MLX5_OP_2ERR_QP, 16, 16, QP },
    { MLX5_OP_2RST_QP, 16, 16, QP },
    { MLX5_OP_QUERY_QP, 16, 464, QP },
    { MLX5_OP_CREATE_SRQ, PAS, 16, ANY, SRQ, 4, { CTX(srqc) }, 2 },
    { MLX5_OP_DESTROY_SRQ, 16, 16, SRQ },
    { MLX5_OP_QUERY_SRQ, 16, 272, SRQ },
    { MLX5_OP_ARM_SRQ, 16, 16, SRQ, ANY, 0, { IN(obj) } },
    { MLX5_OP_CREATE_XRC_SRQ, PAS, 16, ANY, XSRQ, 4, { CTX(srqc) }, 2 },
    { MLX5_OP_DESTROY_XRC_SRQ, 16, 16, XSRQ },
    { MLX5_OP_QUERY_XRC_SRQ, 16, 272, XSRQ },
    { MLX5_OP_ARM_XRC_SRQ, 16, 16, XSRQ, ANY, 0, { IN(obj) } },
    { MLX5_OP_CREATE_RMP, PAS, 16, ANY, RMP, 4,
      { { &layout_wq, MLX5_RMP_WQ } }, 2 },
    { MLX5_OP_MODIFY_RMP, PAS, 16, RMP, ANY, 0,
      { { &layout_wq, MLX5_RMP_WQ } } },
    { MLX5_OP_DESTROY_RMP, 16, 16, RMP },
    { MLX5_OP_QUERY_RMP, 16, 272, RMP },
    { MLX5_OP_QUERY_HCA_VPORT_CONTEXT, 16, 528, ANY, ANY, 0,
      { IN(vport_in) } },
    { MLX5_OP_MODIFY_HCA_VPORT_CONTEXT, 528, 16, ANY, ANY, 0,
      { IN(vport_in), CTX(hca_vport_context) } },
    { MLX5_OP_QUERY_HCA_VPORT_GID, 16, 144, ANY, ANY, 0, { IN(vport_in) } },
    { MLX5_OP_QUERY_HCA_VPORT_PKEY, 16, 528, ANY, ANY, 0, { IN(vport_in) } },
    { MLX5_OP_QUERY_VPORT_COUNTER, 32, 528, ANY, ANY, 0, { IN(vport_in) } },
    { MLX5_OP_ALLOC_PD, 16, 16, ANY, PD },
    { MLX5_OP_DEALLOC_PD, 16, 16, PD },
    { MLX5_OP_ALLOC_UAR, 16, 16, ANY, UAR },
    { MLX5_OP_DEALLOC_UAR, 16, 16, UAR },
    { MLX5_OP_ACCESS_REG, 272, 272, ANY, ANY, 0,
      { IN(cmd), IN(access_register_in), CTX(ptys_reg) } },
    { MLX5_OP_ALLOC_XRCD, 16, 16, ANY, XRCD },
    { MLX5_OP_DEALLOC_XRCD, 16, 16, XRCD },
    /* Everything is gone then, until the next round. */
    { MLX5_OP_ENABLE_HCA, 16, 16, ANY, ANY, 0, { IN(pages) } },
    { MLX5_OP_TEARDOWN_HCA, 16, 16 },
    { MLX5_OP_DISABLE_HCA, 16, 16 },
};

/* The last of them, which end the fun */
enum { ENDS = 3, OTHERS = ARRAY_SIZE(commands) - ENDS };

static const Command *random_command(Fuzz *f)
{
    const Command *c = &commands[fuzz_below(f, ARRAY_SIZE(commands))];

    if (c >= &commands[OTHERS]) {
        if (fuzz_chance(f, 3)) {
            return c;
        }
        c = &commands[0];
    }
    while (fuzz_below(f, 4) >= MAX(c->weight, 1)) {
        c = &commands[fuzz_below(f, OTHERS)];
    }
    return c;
}

/* Keep the place of a new queue pair's queues, to post requests there. */
static void remember_qp(Side *s, uint32_t id, const uint8_t *in)
{
    const uint8_t *ctx = in + MLX5_QPC;
    uint64_t page = ldq_be_p(in + PAS) & ~0xfffull;
    FuzzQp *q = &s->qps[s->num_qps++ % MAX_QPS];

    *q = (FuzzQp) {
        .qp = {
            .id = id,
            .lid = s->h->lid,
            .rq = page,
            .sq = page + (fget(qpc, ctx, rq_type) != MLX5_RQ_OWN ? 0 :
                          1ull << (fget(qpc, ctx, log_rq_size) +
                                   fget(qpc, ctx, log_rq_stride) + 4)),
            .dbr = fget(qpc, ctx, dbr_addr),
        },
        .service = fget(qpc, ctx, st),
    };
}

/* Execute what is in slot 0, if the device wants to; true on success. */
static bool command_done(Side *s)
{
    uint8_t entry[MLX5_CMD_ENTRY_BYTES];

    hca_write(s->h, ISEG_CMD_DBELL, 1);
    qtest_memread(s->h->qts, s->h->cmdq, entry, sizeof(entry));
    memcpy(s->h->out, entry + 0x20, 16);
    return !fget(cmdq_entry, entry, own) &&
           !fget(cmdq_entry, entry, delivery) &&
           fget(cmd, s->h->out, status) == MLX5_STATUS_OK;
}

static void fuzz_command(Fuzz *f, Side *s)
{
    const Command *c = random_command(f);
    uint8_t in[1024] = { 0 };
    uint32_t in_len = c->in_len + c->pages * 8, out_len = c->out_len;

    for (unsigned i = 0; i < ARRAY_SIZE(c->part) && c->part[i].layout; i++) {
        fill_layout(f, s, c->part[i].layout, in + c->part[i].offset);
    }
    for (unsigned i = 0; i < c->pages; i++) {
        uint64_t page = random_page(f, s);

        stq_be_p(in + PAS + i * 8, c->creates == MKEY ? page | 3 : page);
    }
    if (c->about != ANY) {
        fset(obj, in, id, c->in_len == 16 ? known_later(f, s, c->about) :
                                            known(f, s, c->about));
    }
    if (fuzz_chance(f, 30) && c->part[0].layout) {
        unsigned parts = 0;

        while (parts < ARRAY_SIZE(c->part) && c->part[parts].layout) {
            parts++;
        }
        parts = fuzz_below(f, parts);
        damage_layout(f, c->part[parts].layout, in + c->part[parts].offset);
    }
    if (fuzz_chance(f, 5)) {
        in_len = fuzz_value(f, 10);
        out_len = fuzz_value(f, 12);
    }
    fset(cmd, in, opcode, fuzz_chance(f, 1) ? fuzz_value(f, 12) : c->opcode);
    cmd_write(s->h, 0, in, in_len, out_len);
    if (fuzz_chance(f, 4)) {
        /* The entry itself, or a mailbox */
        qtest_writeb(f->qts, fuzz_chance(f, 50) ?
                     s->h->cmdq + fuzz_below(f, MLX5_CMD_ENTRY_BYTES) :
                     mailbox_addr(s->h, 0, fuzz_chance(f, 50),
                                  fuzz_below(f, 3)) + 0x230 +
                     fuzz_below(f, 16), fuzz_value(f, 8));
    }
    if (command_done(s) && c->creates != ANY) {
        uint32_t id = fget(obj, s->h->out, id);

        remember(s, c->creates, id);
        if (c->creates == QP) {
            remember_qp(s, id, in);
        }
    }
}

/* ------------------------------------------------------------------ */
/* Queue pairs */

static FuzzQp *random_qp(Fuzz *f, Side *s)
{
    return &s->qps[fuzz_below(f, MIN(s->num_qps, MAX_QPS))];
}

/* One step of @qp towards RTS, with what other steps need to succeed. */
static void qp_step(Fuzz *f, Side *s, FuzzQp *q, unsigned opcode,
                    uint32_t remote, uint16_t lid)
{
    uint8_t in[PAS] = { 0 };
    uint8_t *ctx = in + MLX5_QPC;

    fill_layout(f, s, &layout_qpc, ctx);
    fset(obj, in, id, q->qp.id);
    fset(create_qp_in, in, opt_param_mask, MLX5_QP_OPT_RRE | MLX5_QP_OPT_RWE |
                                           MLX5_QP_OPT_RAE);
    if (fuzz_chance(f, 90)) {
        fset(qpc, ctx, pd, s->first_pd);
    }
    fset(qpc, ctx, remote_qpn, remote);
    fset(ads, in + MLX5_PATH, rlid, lid);
    fset(ads, in + MLX5_PATH, ack_timeout, 8);
    fset(cmd, in, opcode, opcode);
    cmd_write(s->h, 0, in, sizeof(in), 16);
    command_done(s);
}

static uint32_t add(Fuzz *f, const Side *s, uint8_t *wqe, uint32_t at,
                    const Layout *l, uint32_t len)
{
    if (at + len > MAX_WQE) {
        return at;
    }
    fill_layout(f, s, l, wqe + at);
    if (fuzz_chance(f, 3)) {
        damage_layout(f, l, wqe + at);
    }
    return at + len;
}

/* Where a request succeeds: all memory by its address, or pages of a UMR. */
static void good_place(Fuzz *f, const Side *s, uint64_t *key, uint64_t *addr)
{
    bool umr = fuzz_chance(f, 30);

    *key = s->first_mkey + (umr ? 1 + fuzz_below(f, 4) : 0);
    *key = *key << 8 | VARIANT;
    *addr = (umr ? UMR_VA : fuzz_chance(f, 50) ? BUF_A : BUF_B) +
            fuzz_below(f, 32 * KiB) * 8 % (umr ? 32 * KiB : 64 * KiB);
}

static void make_good(Fuzz *f, const Side *s, uint8_t *data, uint8_t *raddr)
{
    uint64_t key, addr;

    if (data && fuzz_chance(f, 70)) {
        good_place(f, s, &key, &addr);
        fset(wqe_data, data, lkey, key);
        fset(wqe_data, data, addr, addr);
    }
    if (raddr && fuzz_chance(f, 80)) {
        good_place(f, s, &key, &addr);
        fset(wqe_raddr, raddr, rkey, key);
        fset(wqe_raddr, raddr, raddr, addr);
    }
}

static uint32_t add_data(Fuzz *f, const Side *s, uint8_t *wqe, uint32_t at)
{
    uint32_t len = fuzz_below(f, 60) + 1;

    if (fuzz_chance(f, 20)) {
        if (fuzz_chance(f, 95)) {
            stl_be_p(wqe + at, MLX5_SEG_INLINE | len);
        } else {
            stl_be_p(wqe + at, MLX5_SEG_INLINE | fuzz_value(f, 31));
        }
        return at + ROUND_UP(len + 4, 16);
    }
    for (unsigned n = fuzz_chance(f, 5) ? fuzz_below(f, 60) :
                      1 + fuzz_below(f, 3); n; n--) {
        at = add(f, s, wqe, at, &layout_wqe_data, 16);
        make_good(f, s, wqe + at - 16, NULL);
    }
    return at;
}

static uint32_t add_umr(Fuzz *f, Side *s, uint8_t *wqe, uint32_t at)
{
    uint8_t *seg = wqe + 128;

    fset(wqe_ctrl, wqe, imm, fuzz_chance(f, 30) ? random_key(f, s) :
         (s->first_mkey + 1 + fuzz_below(f, 4)) << 8 | VARIANT);
    add(f, s, wqe, at, &layout_wqe_umr, 48);
    add(f, s, wqe, at + 48, &layout_mkc, 64);
    if (fuzz_chance(f, 70)) {
        fset(mkc, wqe + 64, len, 64 * KiB);
    }
    if (fget(wqe_umr, wqe + 16, flags) & MLX5_UMR_INLINE) {
        for (unsigned i = 0; i < 8; i++) {
            stq_be_p(seg + i * 8, (fuzz_chance(f, 70) ? BUF_A + i * 4096 :
                                   fuzz_address(f)) | fuzz_below(f, 4));
        }
        return 128 + 64;
    }
    add(f, s, wqe, 128, &layout_wqe_data, 16);
    if (fuzz_chance(f, 80)) {
        /* Entries of a table, for MTTs as well as for KLMs and KSMs */
        uint64_t list = random_page(f, s);

        for (unsigned i = 0; i < 16; i++) {
            uint8_t entry[8];

            stq_be_p(entry, fuzz_chance(f, 70) ?
                     (BUF_A + fuzz_below(f, 64) * 4096) | 3 :
                     fuzz_chance(f, 50) ? random_key(f, s) : fuzz_address(f));
            qtest_memwrite(f->qts, list + i * 8, entry, 8);
        }
        fset(wqe_data, seg, addr, list);
        fset(wqe_data, seg, lkey, s->first_mkey << 8 | VARIANT);
        fset(wqe_data, seg, byte_count, 4096);
    }
    return 128 + 16;
}

static void fuzz_send(Fuzz *f, Side *s, FuzzQp *q)
{
    static const uint8_t opcodes[] = {
        MLX5_WQE_NOP, MLX5_WQE_SEND_INV, MLX5_WQE_WRITE, MLX5_WQE_WRITE_IMM,
        MLX5_WQE_SEND, MLX5_WQE_SEND_IMM, MLX5_WQE_READ, MLX5_WQE_CMP_SWAP,
        MLX5_WQE_FETCH_ADD, MLX5_WQE_UMR,
    };
    uint8_t wqe[MAX_WQE + 256] = { 0 };
    uint8_t opcode = opcodes[fuzz_below(f, ARRAY_SIZE(opcodes))];
    uint32_t len = 16, done;

    if (q->service == MLX5_ST_REG_UMR && fuzz_chance(f, 90)) {
        opcode = MLX5_WQE_UMR;
    }
    if ((q->service == MLX5_ST_UD || q->service == MLX5_ST_QP0 ||
         q->service == MLX5_ST_QP1) && fuzz_chance(f, 90)) {
        opcode = fuzz_chance(f, 50) ? MLX5_WQE_SEND : MLX5_WQE_SEND_IMM;
    }
    add(f, s, wqe, 0, &layout_wqe_ctrl, 16);
    if (opcode == MLX5_WQE_UMR) {
        len = add_umr(f, s, wqe, len);
    } else if (opcode != MLX5_WQE_NOP) {
        if (opcode == MLX5_WQE_SEND_INV) {
            fset(wqe_ctrl, wqe, imm, gen_key(f, s));
        }
        if (q->service == MLX5_ST_XRC) {
            len = add(f, s, wqe, len, &layout_wqe_xrc, 16);
            if (fuzz_chance(f, 80)) {
                fset(wqe_xrc, wqe + 16, srqn, s->first_xsrq);
            }
        }
        if (q->service == MLX5_ST_UD || q->service == MLX5_ST_QP0 ||
            q->service == MLX5_ST_QP1) {
            len = add(f, s, wqe, len, &layout_wqe_av, 48);
            if (fuzz_chance(f, 20)) {
                fset(wqe_av, wqe + 16, dqpn, fuzz_below(f, 2));
            }
        }
        if (opcode >= MLX5_WQE_READ || opcode == MLX5_WQE_WRITE ||
            opcode == MLX5_WQE_WRITE_IMM) {
            len = add(f, s, wqe, len, &layout_wqe_raddr, 16);
            make_good(f, s, NULL, wqe + len - 16);
        }
        if (opcode > MLX5_WQE_READ) {
            len = add(f, s, wqe, len, &layout_wqe_atomic, 16);
            len = add(f, s, wqe, len, &layout_wqe_data, 16);
            make_good(f, s, wqe + len - 16, NULL);
            if (fuzz_chance(f, 90)) {
                fset(wqe_data, wqe + len - 16, byte_count, 8);
            }
        } else {
            len = add_data(f, s, wqe, len);
        }
    }
    len = MIN(ROUND_UP(len, 16), 63 * 16);
    fset(wqe_ctrl, wqe, opcode, fuzz_chance(f, 2) ? fuzz_value(f, 8) : opcode);
    fset(wqe_ctrl, wqe, index, q->qp.sq_pi);
    fset(wqe_ctrl, wqe, qpn, q->qp.id);
    fset(wqe_ctrl, wqe, ds, fuzz_chance(f, 98) ? len / 16 : fuzz_value(f, 6));
    for (done = 0; done < len; done += MLX5_WQEBB) {
        qtest_memwrite(f->qts, q->qp.sq + (q->qp.sq_pi++ & (QUEUE - 1)) *
                       MLX5_WQEBB, wqe + done, MIN(len - done, MLX5_WQEBB));
    }
    put_be32(s->h, q->qp.dbr + 4, fuzz_chance(f, 98) ? q->qp.sq_pi :
                                                       fuzz_value(f, 16));
    hca_write64(s->h, (fuzz_chance(f, 90) ? s->h->uar : known(f, s, UAR)) *
                4096 + UAR_SEND, ldq_be_p(wqe));
}

static void fuzz_recv(Fuzz *f, Side *s, FuzzQp *q)
{
    uint8_t seg[SRQ_STRIDE] = { 0 };

    if (q->service == MLX5_ST_XRC || fuzz_chance(f, 10)) {
        stw_be_p(seg + 2, fuzz_chance(f, 90) ? fuzz_below(f, QUEUE) :
                                               fuzz_value(f, 16));
        add(f, s, seg, 16, &layout_wqe_data, 16);
        make_good(f, s, seg + 16, NULL);
        qtest_memwrite(f->qts, s->srq_wqes + fuzz_below(f, QUEUE) * SRQ_STRIDE,
                       seg, sizeof(seg));
        put_be32(s->h, s->srq_dbr, fuzz_chance(f, 98) ? ++s->srq_pi :
                                                        fuzz_value(f, 16));
        return;
    }
    add(f, s, seg, 0, &layout_wqe_data, 16);
    make_good(f, s, seg, NULL);
    qtest_memwrite(f->qts, q->qp.rq + (q->qp.rq_pi++ & (QUEUE - 1)) * RQ_STRIDE,
                   seg, 16);
    put_be32(s->h, q->qp.dbr, fuzz_chance(f, 98) ? q->qp.rq_pi :
                                                   fuzz_value(f, 16));
}

/* Queue pairs fail all the time: connect two of them anew, and use them. */
static void fuzz_revive(Fuzz *f, Both *both)
{
    static const uint16_t steps[] = {
        MLX5_OP_2RST_QP, MLX5_OP_RST2INIT_QP, MLX5_OP_INIT2INIT_QP,
        MLX5_OP_INIT2RTR_QP, MLX5_OP_RTR2RTS_QP, MLX5_OP_RTS2RTS_QP,
    };
    Side *s[2] = {
        &both->side[fuzz_below(f, 2)], &both->side[fuzz_below(f, 2)],
    };
    FuzzQp *q[2];

    for (unsigned i = 0; i < 2; i++) {
        q[i] = random_qp(f, s[i]);
        /* Both of one kind, or there is no connection. */
        for (unsigned n = 0; i && n < MAX_QPS &&
             q[1]->service != q[0]->service; n++) {
            q[1] = &s[1]->qps[n % MIN(s[1]->num_qps, MAX_QPS)];
        }
    }
    for (unsigned step = 0; step < ARRAY_SIZE(steps); step++) {
        for (unsigned i = 0; i < 2; i++) {
            qp_step(f, s[i], q[i], steps[step], q[!i]->qp.id, q[!i]->qp.lid);
            q[i]->qp.sq_pi = q[i]->qp.rq_pi = 0;
            put_be32(s[i]->h, q[i]->qp.dbr, 0);
            put_be32(s[i]->h, q[i]->qp.dbr + 4, 0);
        }
    }
    for (unsigned i = 0; i < 3; i++) {
        fuzz_recv(f, s[1], q[1]);
        fuzz_send(f, s[0], q[0]);
    }
}

/* ------------------------------------------------------------------ */
/* The rest */

static void fuzz_doorbell(Fuzz *f, Side *s)
{
    uint64_t uar = known(f, s, UAR) * 4096;

    switch (fuzz_below(f, 6)) {
    case 0 ... 1:
        hca_write64(s->h, uar + UAR_CQ_ARM,
                    fuzz_value(f, 32) << 32 | known(f, s, CQ));
        break;
    case 2 ... 3:
        hca_write(s->h, uar + (fuzz_chance(f, 70) ? UAR_EQ_ARM : 0x48),
                  known(f, s, EQ) << 24 | fuzz_value(f, 24));
        break;
    case 4:
        hca_write64(s->h, uar + UAR_SEND + fuzz_below(f, 8) * 0x100,
                    known(f, s, QP) << 8);
        break;
    default:
        hca_write64(s->h, uar + fuzz_value(f, 12), fuzz_value(f, 64));
        break;
    }
}

/* Look for a page fault, and resume one. */
static void fuzz_resume(Fuzz *f, Side *s)
{
    uint8_t eqe[MLX5_EQE_BYTES], in[16] = { 0 };
    uint64_t token;

    while (ring_poll(s->h, &s->faults, eqe, sizeof(eqe))) {
        s->tokens[s->num_tokens++ % MAX_TOKENS] =
            fget(eqe, eqe, sub_type) == 2 ?
            fget(eqe, eqe, pf_token_47_32) << 32 |
            fget(eqe, eqe, pf_token_31_0) :
            fget(eqe, eqe, sub_type) == 1 ? fget(eqe, eqe, pf_number) :
            fget(eqe, eqe, pf_wqe_token);
    }
    hca_write(s->h, s->h->uar * 4096 + UAR_EQ_ARM,
              s->faults.id << 24 | (s->faults.ci & 0xffffff));
    if (!s->num_tokens) {
        return;
    }
    token = s->tokens[fuzz_below(f, MIN(s->num_tokens, MAX_TOKENS))];
    fset(page_fault_resume_in, in, token_47_32, token >> 32);
    fset(page_fault_resume_in, in, token_31_0, token);
    fset(page_fault_resume_in, in, error, fuzz_chance(f, 20));
    fset(cmd, in, opcode, MLX5_OP_PAGE_FAULT_RESUME);
    cmd_write(s->h, 0, in, sizeof(in), 16);
    command_done(s);
}

static void fuzz_inject(Fuzz *f, Side *s)
{
    static const char *const names[] = {
        "inject-drop-completions", "inject-completion-delay",
        "inject-fault-delay", "inject-fail-data", "inject-fail-umrs",
    };

    /* For one step in four. */
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        hca_inject(s->h, names[i], fuzz_chance(f, 5) ? fuzz_below(f, 1000) : 0);
    }
}

static void mlx5_step(Fuzz *f, void *opaque)
{
    Both *both = opaque;
    Side *s = &both->side[fuzz_below(f, 2)];
    unsigned what = fuzz_below(f, 100);

    if (what < 30) {
        fuzz_command(f, s);
    } else if (what < 65) {
        fuzz_send(f, s, random_qp(f, s));
    } else if (what < 75) {
        fuzz_recv(f, s, random_qp(f, s));
    } else if (what < 82) {
        fuzz_revive(f, both);
    } else if (what < 90) {
        fuzz_resume(f, s);
    } else if (what < 99) {
        fuzz_doorbell(f, s);
    } else {
        fuzz_inject(f, s);
    }
}

static void add_qp(Side *s, unsigned service, uint32_t pd, const Queue *cq)
{
    FuzzQp *q = &s->qps[s->num_qps++];

    q->service = service;
    q->qp = qp_create(s->h, service, pd, cq);
    remember(s, QP, q->qp.id);
}

static void side_start(Side *s)
{
    static const uint8_t services[] = {
        MLX5_ST_RC, MLX5_ST_RC, MLX5_ST_UC, MLX5_ST_UD, MLX5_ST_XRC,
        MLX5_ST_REG_UMR, MLX5_ST_QP1,
    };
    Hca *h = s->h;
    uint32_t pd, xrcd, srq;
    Queue eq, cq;
    Qp target;

    hca_init(h);
    remember(s, UAR, h->uar);
    pd = cmd_alloc(h, MLX5_OP_ALLOC_PD);
    s->first_pd = pd;
    remember(s, PD, pd);
    xrcd = cmd_alloc(h, MLX5_OP_ALLOC_XRCD);
    remember(s, XRCD, xrcd);
    s->first_mkey = mkey_create_pa(h, pd) >> 8;
    remember(s, MKEY, s->first_mkey);
    for (unsigned i = 0; i < 4; i++) {
        remember(s, MKEY, mkey_create_umr(h, 64) >> 8);
    }
    s->faults = eq_create(h, 1ull << MLX5_EVENT_PAGE_FAULT);
    remember(s, EQ, s->faults.id);
    eq = eq_create(h, ~(1ull << MLX5_EVENT_PAGE_FAULT));
    remember(s, EQ, eq.id);
    cq = cq_create(h, &eq);
    remember(s, CQ, cq.id);
    s->srq_wqes = pool_alloc(h, QUEUE * SRQ_STRIDE);
    s->srq_dbr = pool_alloc(h, 8);
    srq = xrc_srq_create(h, xrcd, pd, &cq, s->srq_wqes, s->srq_dbr);
    s->first_xsrq = srq;
    remember(s, XSRQ, srq);
    for (unsigned i = 0; i < ARRAY_SIZE(services); i++) {
        add_qp(s, services[i], pd, &cq);
    }
    target = xrc_target_create(h, xrcd, srq, &cq);
    remember(s, QP, target.id);
    s->qps[s->num_qps++] = (FuzzQp) { .qp = target, .service = MLX5_ST_XRC };
    g_assert_cmpuint(h->pool, <=, h->pool_start + POOL_PAGES * 4096);
    for (unsigned i = 0; i < KINDS; i++) {
        s->known[i].first = s->known[i].count;
        g_assert_cmpuint(s->known[i].first, <, MAX_KNOWN);
    }
}

static void *mlx5_start(Fuzz *f)
{
    static const char *const names[] = { "hca", "remote" };
    Both *both = g_new0(Both, 1);

    for (unsigned i = 0; i < 2; i++) {
        PcieFunction *fn = pcie_find(&f->topology, MLX5_PCI_VENDOR,
                                     MLX5_PCI_DEVICE, i);

        both->side[i].h = hca_attach(f->qts, names[i], fn->bar[0], i + 1, i);
        side_start(&both->side[i]);
    }
    return both;
}

/* The same behind an IOMMU that maps a part of memory, in part by ATS. */
static void *mlx5_start_iommu(Fuzz *f)
{
    Both *both = mlx5_start(f);

    vtd_init(&both->vtd, f->qts, TABLES);
    for (unsigned i = 0; i < 2; i++) {
        PcieFunction *fn = pcie_find(&f->topology, MLX5_PCI_VENDOR,
                                     MLX5_PCI_DEVICE, i);
        unsigned ats = pcie_ext_cap(&f->topology, fn->bdf,
                                    PCI_EXT_CAP_ID_ATS);

        vtd_attach(&both->vtd, fn->bdf, true);
        if (fuzz_chance(f, 80)) {
            pcie_writew(&f->topology, fn->bdf, ats + PCI_ATS_CTRL,
                        PCI_ATS_CTRL_ENABLE);
        }
    }
    vtd_map(&both->vtd, 0x1000000, 0x1000000, 4 * MiB, VTD_READ | VTD_WRITE);
    for (unsigned i = 0; i < 2; i++) {
        uint64_t pool = both->side[i].h->pool_start;

        vtd_map(&both->vtd, pool, pool, POOL_PAGES * 4096,
                VTD_READ | VTD_WRITE);
    }
    vtd_map(&both->vtd, BUF_A, BUF_A, 256 * KiB, VTD_READ | VTD_WRITE);
    vtd_map(&both->vtd, BUF_B, BUF_B, 128 * KiB, VTD_READ);
    vtd_enable(&both->vtd);
    return both;
}

/* Now and then change the mappings of the data. */
static void mlx5_step_iommu(Fuzz *f, void *opaque)
{
    Both *both = opaque;
    uint64_t page;

    if (!fuzz_chance(f, 2)) {
        mlx5_step(f, opaque);
        return;
    }
    page = (fuzz_chance(f, 50) ? BUF_A : BUF_B) + fuzz_below(f, 64) * 4096;
    vtd_map(&both->vtd, page, fuzz_chance(f, 50) ? page : BUF_A, 4096,
            fuzz_below(f, 4));
    vtd_flush_iotlb(&both->vtd);
    for (unsigned i = 0; i < 2; i++) {
        vtd_flush_dev_iotlb(&both->vtd,
                            pcie_find(&f->topology, MLX5_PCI_VENDOR,
                                      MLX5_PCI_DEVICE, i)->bdf, page, 1);
    }
}

static void mlx5_stop(void *opaque)
{
    Both *both = opaque;

    for (unsigned i = 0; i < 2; i++) {
        g_free(both->side[i].h);
    }
    g_free(both);
}

static const uint32_t mlx5_ids[] = {
    (uint32_t)MLX5_PCI_VENDOR << 16 | MLX5_PCI_DEVICE, 0
};
static const char *const mlx5_counts[] = {
    "hca.command-counts", "hca.request-counts", NULL
};

#define MLX5_MEMORY                                     \
    {                                                   \
        { 0x1000000, 0x400000 },                        \
        { 0x2000000, POOL_PAGES * 4096 },               \
        { 0x4000000, POOL_PAGES * 4096 },               \
        { BUF_A, 64 * KiB },                            \
    }

const FuzzDevice fuzz_mlx5 = {
    .name = "mlx5",
    .options = "-machine q35 -m 256 -nodefaults "
               "-device mlx5,id=hca,addr=4.0,lid=1,context-mem=64M "
               "-device mlx5,id=remote,addr=5.0,lid=2,context-mem=64M "
               "-device p2pdev,size=16M,addr=6.0",
    .ids = mlx5_ids,
    .memory = MLX5_MEMORY,
    .counts = mlx5_counts,
    .start = mlx5_start,
    .step = mlx5_step,
    .stop = mlx5_stop,
};

const FuzzDevice fuzz_mlx5_iommu = {
    .name = "mlx5-iommu",
    .options = "-machine q35,kernel-irqchip=split -m 256 -nodefaults "
               "-device intel-iommu,device-iotlb=on,intremap=off "
               "-device mlx5,id=hca,addr=4.0,lid=1,context-mem=64M,ats=on,"
               "transport-faults=on "
               "-device mlx5,id=remote,addr=5.0,lid=2,context-mem=64M,ats=on,"
               "transport-faults=on",
    .ids = mlx5_ids,
    .memory = MLX5_MEMORY,
    .counts = mlx5_counts,
    .start = mlx5_start_iommu,
    .step = mlx5_step_iommu,
    .stop = mlx5_stop,
};
