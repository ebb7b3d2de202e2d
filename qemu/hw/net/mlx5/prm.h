/*
 * mlx5 HCA: programming interface constants
 *
 * Numbers that the driver (Linux drivers/net/ethernet/mellanox/mlx5/core and
 * drivers/infiniband/hw/mlx5) and libmlx5 share with the device.  Field
 * positions are in fields.h; nothing here depends on QEMU.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_MLX5_PRM_H
#define HW_MLX5_PRM_H

/* Command opcodes, bits 31:16 of the first input dword. */
typedef enum Mlx5Opcode {
    MLX5_OP_QUERY_HCA_CAP = 0x100,
    MLX5_OP_QUERY_ADAPTER = 0x101,
    MLX5_OP_INIT_HCA = 0x102,
    MLX5_OP_TEARDOWN_HCA = 0x103,
    MLX5_OP_ENABLE_HCA = 0x104,
    MLX5_OP_DISABLE_HCA = 0x105,
    MLX5_OP_QUERY_PAGES = 0x107,
    MLX5_OP_MANAGE_PAGES = 0x108,
    MLX5_OP_SET_HCA_CAP = 0x109,
    MLX5_OP_QUERY_ISSI = 0x10a,
    MLX5_OP_SET_ISSI = 0x10b,
    MLX5_OP_CREATE_MKEY = 0x200,
    MLX5_OP_QUERY_MKEY = 0x201,
    MLX5_OP_DESTROY_MKEY = 0x202,
    MLX5_OP_QUERY_SPECIAL_CONTEXTS = 0x203,
    MLX5_OP_PAGE_FAULT_RESUME = 0x204,
    MLX5_OP_CREATE_EQ = 0x301,
    MLX5_OP_DESTROY_EQ = 0x302,
    MLX5_OP_QUERY_EQ = 0x303,
    MLX5_OP_CREATE_CQ = 0x400,
    MLX5_OP_DESTROY_CQ = 0x401,
    MLX5_OP_QUERY_CQ = 0x402,
    MLX5_OP_MODIFY_CQ = 0x403,
    MLX5_OP_CREATE_QP = 0x500,
    MLX5_OP_DESTROY_QP = 0x501,
    MLX5_OP_RST2INIT_QP = 0x502,
    MLX5_OP_INIT2RTR_QP = 0x503,
    MLX5_OP_RTR2RTS_QP = 0x504,
    MLX5_OP_RTS2RTS_QP = 0x505,
    MLX5_OP_SQERR2RTS_QP = 0x506,
    MLX5_OP_2ERR_QP = 0x507,
    MLX5_OP_2RST_QP = 0x50a,
    MLX5_OP_QUERY_QP = 0x50b,
    MLX5_OP_INIT2INIT_QP = 0x50e,
    MLX5_OP_CREATE_SRQ = 0x700,
    MLX5_OP_DESTROY_SRQ = 0x701,
    MLX5_OP_QUERY_SRQ = 0x702,
    MLX5_OP_ARM_SRQ = 0x703,
    MLX5_OP_CREATE_XRC_SRQ = 0x705,
    MLX5_OP_DESTROY_XRC_SRQ = 0x706,
    MLX5_OP_QUERY_XRC_SRQ = 0x707,
    MLX5_OP_ARM_XRC_SRQ = 0x708,
    MLX5_OP_QUERY_HCA_VPORT_CONTEXT = 0x762,
    MLX5_OP_MODIFY_HCA_VPORT_CONTEXT = 0x763,
    MLX5_OP_QUERY_HCA_VPORT_GID = 0x764,
    MLX5_OP_QUERY_HCA_VPORT_PKEY = 0x765,
    MLX5_OP_QUERY_VPORT_COUNTER = 0x770,
    MLX5_OP_ALLOC_PD = 0x800,
    MLX5_OP_DEALLOC_PD = 0x801,
    MLX5_OP_ALLOC_UAR = 0x802,
    MLX5_OP_DEALLOC_UAR = 0x803,
    MLX5_OP_ACCESS_REG = 0x805,
    MLX5_OP_ATTACH_TO_MCG = 0x806,
    MLX5_OP_DETACH_FROM_MCG = 0x807,
    MLX5_OP_ALLOC_XRCD = 0x80e,
    MLX5_OP_DEALLOC_XRCD = 0x80f,
    MLX5_OP_CREATE_RMP = 0x90c,
    MLX5_OP_MODIFY_RMP = 0x90d,
    MLX5_OP_DESTROY_RMP = 0x90e,
    MLX5_OP_QUERY_RMP = 0x90f,
} Mlx5Opcode;

/* Status of an executed command, bits 31:24 of the first output dword. */
typedef enum Mlx5Status {
    MLX5_STATUS_OK = 0x00,
    MLX5_STATUS_INTERNAL = 0x01,
    MLX5_STATUS_BAD_OP = 0x02,
    MLX5_STATUS_BAD_PARAM = 0x03,
    MLX5_STATUS_BAD_SYS_STATE = 0x04,
    MLX5_STATUS_BAD_RES = 0x05,
    MLX5_STATUS_RES_BUSY = 0x06,
    MLX5_STATUS_LIMIT = 0x08,
    MLX5_STATUS_BAD_RES_STATE = 0x09,
    MLX5_STATUS_BAD_INDEX = 0x0a,
    MLX5_STATUS_NO_RES = 0x0f,
    MLX5_STATUS_BAD_QP_STATE = 0x10,
    MLX5_STATUS_BAD_SIZE = 0x40,
    MLX5_STATUS_BAD_INPUT_LEN = 0x50,
    MLX5_STATUS_BAD_OUTPUT_LEN = 0x51,
} Mlx5Status;

/* Delivery status of a command queue entry: the transport, not the command. */
typedef enum Mlx5Delivery {
    MLX5_DELIVERY_OK = 0x00,
    MLX5_DELIVERY_TOKEN = 0x02,
    MLX5_DELIVERY_BLOCK_NUM = 0x03,
    MLX5_DELIVERY_OUT_PTR = 0x04,
    MLX5_DELIVERY_IN_PTR = 0x05,
    MLX5_DELIVERY_FW = 0x06,
    MLX5_DELIVERY_IN_LENGTH = 0x07,
    MLX5_DELIVERY_OUT_LENGTH = 0x08,
    MLX5_DELIVERY_DESCRIPTOR = 0x10,
} Mlx5Delivery;

/* Event types: byte 1 of an EQE and bit numbers of an EQ's event mask. */
typedef enum Mlx5Event {
    MLX5_EVENT_COMP = 0x00,
    MLX5_EVENT_COMM_EST = 0x02,
    MLX5_EVENT_SQ_DRAINED = 0x03,
    MLX5_EVENT_CQ_ERROR = 0x04,
    MLX5_EVENT_WQ_CATAS_ERROR = 0x05,
    MLX5_EVENT_PORT_CHANGE = 0x09,
    MLX5_EVENT_CMD = 0x0a,
    MLX5_EVENT_PAGE_FAULT = 0x0c,
    MLX5_EVENT_WQ_INVAL_REQ = 0x10,
    MLX5_EVENT_WQ_ACCESS_ERROR = 0x11,
    MLX5_EVENT_SRQ_LAST_WQE = 0x13,
    MLX5_EVENT_SRQ_LIMIT = 0x14,
} Mlx5Event;

/* Capability groups of QUERY_HCA_CAP and SET_HCA_CAP. */
enum {
    MLX5_CAP_GENERAL = 0,
    MLX5_CAP_ODP = 2,
    MLX5_CAP_ATOMIC = 3,
    MLX5_CAP_TYPES = 4,
    MLX5_CAP_BYTES = 256,
};

/* Registers reachable with ACCESS_REG. */
enum {
    MLX5_REG_PMTU = 0x5003,
    MLX5_REG_PTYS = 0x5004,
    MLX5_REG_PPCNT = 0x5008,
    MLX5_REG_PVLC = 0x500f,
    MLX5_REG_NODE_DESC = 0x6001,
    MLX5_REG_HOST_ENDIANNESS = 0x7004,
};

/* QP service types. */
typedef enum Mlx5Service {
    MLX5_ST_RC = 0x0,
    MLX5_ST_UC = 0x1,
    MLX5_ST_UD = 0x2,
    MLX5_ST_XRC = 0x3,
    MLX5_ST_QP0 = 0x7,
    MLX5_ST_QP1 = 0x8,
    MLX5_ST_REG_UMR = 0xc,
    MLX5_ST_NUM,                /* one past the last */
} Mlx5Service;

typedef enum Mlx5QpState {
    MLX5_QP_RST = 0,
    MLX5_QP_INIT = 1,
    MLX5_QP_RTR = 2,
    MLX5_QP_RTS = 3,
    MLX5_QP_SQER = 4,
    MLX5_QP_SQD = 5,
    MLX5_QP_ERR = 6,
} Mlx5QpState;

/* Where a QP's receive WQEs come from. */
enum {
    MLX5_RQ_OWN = 0,
    MLX5_RQ_SRQ = 1,
    MLX5_RQ_NONE = 3,
};

/* opt_param_mask of the QP state transitions. */
enum {
    MLX5_QP_OPT_RRE = 1 << 1,
    MLX5_QP_OPT_RAE = 1 << 2,
    MLX5_QP_OPT_RWE = 1 << 3,
    MLX5_QP_OPT_PKEY = 1 << 4,
    MLX5_QP_OPT_QKEY = 1 << 5,
    MLX5_QP_OPT_RNR_TIMEOUT = 1 << 6,
    MLX5_QP_OPT_PRIMARY_PATH = 1 << 7,
    MLX5_QP_OPT_SRA_MAX = 1 << 8,
    MLX5_QP_OPT_RRA_MAX = 1 << 9,
    MLX5_QP_OPT_RETRY_COUNT = 1 << 12,
    MLX5_QP_OPT_RNR_RETRY = 1 << 13,
    MLX5_QP_OPT_ACK_TIMEOUT = 1 << 14,
    MLX5_QP_OPT_PORT = 1 << 16,
};

/* Send queue opcodes, byte 3 of the control segment. */
typedef enum Mlx5WqeOpcode {
    MLX5_WQE_NOP = 0x00,
    MLX5_WQE_SEND_INV = 0x01,
    MLX5_WQE_WRITE = 0x08,
    MLX5_WQE_WRITE_IMM = 0x09,
    MLX5_WQE_SEND = 0x0a,
    MLX5_WQE_SEND_IMM = 0x0b,
    MLX5_WQE_READ = 0x10,
    MLX5_WQE_CMP_SWAP = 0x11,
    MLX5_WQE_FETCH_ADD = 0x12,
    MLX5_WQE_UMR = 0x25,
    MLX5_WQE_OPCODES,           /* one past the last */
} Mlx5WqeOpcode;

typedef enum Mlx5CqeOpcode {
    MLX5_CQE_REQ = 0x0,
    MLX5_CQE_RESP_WRITE_IMM = 0x1,
    MLX5_CQE_RESP_SEND = 0x2,
    MLX5_CQE_RESP_SEND_IMM = 0x3,
    MLX5_CQE_RESP_SEND_INV = 0x4,
    MLX5_CQE_RESIZE_CQ = 0x5,
    MLX5_CQE_REQ_ERR = 0xd,
    MLX5_CQE_RESP_ERR = 0xe,
} Mlx5CqeOpcode;

/* Completion syndromes of an error CQE; 0 is success. */
typedef enum Mlx5Syndrome {
    MLX5_SYND_OK = 0x00,
    MLX5_SYND_LOCAL_LENGTH = 0x01,
    MLX5_SYND_LOCAL_QP_OP = 0x02,
    MLX5_SYND_LOCAL_PROT = 0x04,
    MLX5_SYND_WR_FLUSH = 0x05,
    MLX5_SYND_MW_BIND = 0x06,
    MLX5_SYND_LOCAL_ACCESS = 0x11,
    MLX5_SYND_REMOTE_INVALID_REQ = 0x12,
    MLX5_SYND_REMOTE_ACCESS = 0x13,
    MLX5_SYND_REMOTE_OP = 0x14,
    MLX5_SYND_TRANSPORT_RETRY = 0x15,
    MLX5_SYND_RNR_RETRY = 0x16,
} Mlx5Syndrome;

/* mkey access modes. */
typedef enum Mlx5AccessMode {
    MLX5_MKEY_PA = 0,
    MLX5_MKEY_MTT = 1,
    MLX5_MKEY_KLM = 2,
    MLX5_MKEY_KSM = 3,
} Mlx5AccessMode;

/* Flags in the low bits of an MTT entry. */
enum {
    MLX5_MTT_READ = 1 << 0,
    MLX5_MTT_WRITE = 1 << 1,
    MLX5_MTT_FLAGS = 7,
};

/* UMR control segment: flags byte and mkey_mask bits. */
enum {
    MLX5_UMR_INLINE = 1 << 7,
    MLX5_UMR_CHECK_MASK = 3 << 5,
    MLX5_UMR_CHECK_IS_FREE = 1 << 5,
    MLX5_UMR_CHECK_NOT_FREE = 2 << 5,
    MLX5_UMR_OFFSET_EN = 1 << 4,
};

#define MLX5_MKEY_MASK_LEN            (1ull << 0)
#define MLX5_MKEY_MASK_PAGE_SIZE      (1ull << 1)
#define MLX5_MKEY_MASK_START_ADDR     (1ull << 6)
#define MLX5_MKEY_MASK_PD             (1ull << 7)
#define MLX5_MKEY_MASK_EN_RINVAL      (1ull << 8)
#define MLX5_MKEY_MASK_KEY            (1ull << 13)
#define MLX5_MKEY_MASK_QPN            (1ull << 14)
#define MLX5_MKEY_MASK_LR             (1ull << 17)
#define MLX5_MKEY_MASK_LW             (1ull << 18)
#define MLX5_MKEY_MASK_RR             (1ull << 19)
#define MLX5_MKEY_MASK_RW             (1ull << 20)
#define MLX5_MKEY_MASK_A              (1ull << 21)
#define MLX5_MKEY_MASK_SMALL_FENCE    (1ull << 23)
#define MLX5_MKEY_MASK_RO_WRITE       (1ull << 25)
#define MLX5_MKEY_MASK_FREE           (1ull << 29)
#define MLX5_MKEY_MASK_PAGE_SIZE_5    (1ull << 42)
#define MLX5_MKEY_MASK_RO_READ        (1ull << 47)

/* An inline data segment, and the lkey that ends a scatter list. */
#define MLX5_SEG_INLINE     0x80000000u
#define MLX5_SEG_TERMINATOR 0x00000100u

/* Sizes fixed by the interface. */
enum {
    MLX5_CMD_ENTRY_BYTES = 64,
    MLX5_CMD_INLINE_BYTES = 16,
    MLX5_CMD_BLOCK_BYTES = 512,
    MLX5_CMD_MAILBOX_BYTES = 576,
    MLX5_CQE_BYTES = 64,
    MLX5_EQE_BYTES = 64,
    MLX5_WQEBB = 64,
    MLX5_SEG_BYTES = 16,
    MLX5_MAX_SQ_WQE = 1024,
    MLX5_MAX_RQ_WQE = 512,
    MLX5_QPC_BYTES = 232,
    MLX5_MKC_BYTES = 64,
    MLX5_UAR_BYTES = 4096,
    MLX5_AV_RGID = 0x20,
};

#endif
