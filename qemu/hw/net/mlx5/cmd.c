/*
 * mlx5 HCA: command queue
 *
 * 32 entries of 64 bytes in one guest page; inputs and outputs beyond 16
 * bytes continue in chained mailboxes (Linux core/cmd.c, struct
 * mlx5_cmd_layout and struct mlx5_cmd_prot_block).  The driver polls the own
 * byte until an event queue subscribed to MLX5_EVENT_CMD.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/log.h"
#include "qemu/units.h"
#include "mlx5.h"
#include "trace.h"

enum {
    CMDQ_TYPE_PCI = 7,
    ENTRY_INPUT = 0x10,
    ENTRY_OUTPUT = 0x20,
    ENTRY_OWN = 0x3f,
    CMD_MAX_INPUT = 8 * MiB,
    CMD_MAX_OUTPUT = 64 * KiB,
    /* Mailbox bytes moved in one run of the bottom half. */
    RUN_BUDGET = 4 * MiB,
    SYND_UNKNOWN_OPCODE = 0x1e0001,
    SYND_SYS_STATE = 0x1e0002,
    SYND_INPUT_LEN = 0x1e0003,
    SYND_OUTPUT_LEN = 0x1e0004,
};

static const Mlx5CmdDesc *const cmd_tables[] = {
    mlx5_cmds_hca, mlx5_cmds_alloc, mlx5_cmds_port, mlx5_cmds_eq,
    mlx5_cmds_cq, mlx5_cmds_mkey, mlx5_cmds_qp, mlx5_cmds_srq,
    mlx5_cmds_odp,
};

/* @number: the command's place in all tables, which statistics are kept by */
static const Mlx5CmdDesc *cmd_find(uint16_t opcode, unsigned *number)
{
    *number = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(cmd_tables); i++) {
        for (const Mlx5CmdDesc *d = cmd_tables[i]; d->handler; d++) {
            if (d->opcode == opcode) {
                return d;
            }
            ++*number;
        }
    }
    return NULL;
}

void mlx5_cmd_counts(const Mlx5State *s, GString *text)
{
    unsigned number = 0;

    for (unsigned i = 0; i < ARRAY_SIZE(cmd_tables); i++) {
        for (const Mlx5CmdDesc *d = cmd_tables[i]; d->handler; d++) {
            mlx5_count_append(text, d->name, "", &s->stats.cmds[number++]);
        }
    }
    assert(number <= ARRAY_SIZE(s->stats.cmds));
}

/*
 * Walk a mailbox chain: copy @len bytes out of it (input) or into it
 * (output).  The expected block number bounds the walk of a looping chain.
 */
static Mlx5Delivery cmd_mailboxes(Mlx5State *s, uint64_t addr, uint8_t token,
                                  uint8_t *data, uint32_t len, bool output)
{
    uint8_t block[MLX5_CMD_MAILBOX_BYTES];

    for (uint32_t num = 0; len; num++) {
        uint32_t n = MIN(len, MLX5_CMD_BLOCK_BYTES);

        if (!addr) {
            return output ? MLX5_DELIVERY_OUT_LENGTH : MLX5_DELIVERY_IN_LENGTH;
        }
        if (addr & (MLX5_CMD_BLOCK_BYTES - 1)) {
            return output ? MLX5_DELIVERY_OUT_PTR : MLX5_DELIVERY_IN_PTR;
        }
        if (!mlx5_dma_read(s, addr, block, sizeof(block))) {
            return MLX5_DELIVERY_FW;
        }
        if (fget(mailbox, block, token) != token) {
            return MLX5_DELIVERY_TOKEN;
        }
        if (fget(mailbox, block, block_num) != num) {
            return MLX5_DELIVERY_BLOCK_NUM;
        }
        if (!output) {
            memcpy(data, block, n);
        } else if (!mlx5_dma_write(s, addr, data, n)) {
            return MLX5_DELIVERY_FW;
        }
        data += n;
        len -= n;
        addr = fget(mailbox, block, next);
    }
    return MLX5_DELIVERY_OK;
}

static Mlx5Status cmd_execute(Mlx5State *s, Mlx5Cmd *cmd,
                              const Mlx5CmdDesc *desc)
{
    if (!desc) {
        mlx5_guest_error(s, "unknown command 0x%x",
                         (unsigned)fget(cmd, cmd->in, opcode));
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_OP, SYND_UNKNOWN_OPCODE);
    }
    if ((desc->phase >= MLX5_PHASE_ENABLED && !s->hca_enabled) ||
        (desc->phase >= MLX5_PHASE_INITIALIZED && !s->hca_initialized)) {
        mlx5_guest_error(s, "%s before %s", desc->name,
                         s->hca_enabled ? "INIT_HCA" : "ENABLE_HCA");
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_SYS_STATE, SYND_SYS_STATE);
    }
    if (cmd->in_len < desc->min_in) {
        mlx5_guest_error(s, "%s: input of %u bytes, needs %u", desc->name,
                         cmd->in_len, desc->min_in);
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_INPUT_LEN, SYND_INPUT_LEN);
    }
    if (cmd->out_len < desc->min_out) {
        mlx5_guest_error(s, "%s: output of %u bytes, needs %u", desc->name,
                         cmd->out_len, desc->min_out);
        return mlx5_cmd_fail(cmd, MLX5_STATUS_BAD_OUTPUT_LEN,
                             SYND_OUTPUT_LEN);
    }
    return desc->handler(s, cmd);
}

/* Execute one entry; returns the number of bytes moved. */
static uint64_t cmd_entry(Mlx5State *s, unsigned slot)
{
    const uint64_t addr = s->iseg.cmdq_addr + slot * MLX5_CMD_ENTRY_BYTES;
    const bool events = mlx5_event_eq(s, MLX5_EVENT_CMD) != NULL;
    g_autofree uint8_t *in = NULL;
    g_autofree uint8_t *out = NULL;
    uint8_t entry[MLX5_CMD_ENTRY_BYTES];
    uint8_t eqe[MLX5_EQE_BYTES] = { 0 };
    const Mlx5CmdDesc *desc = NULL;
    Mlx5Delivery delivery = MLX5_DELIVERY_OK;
    Mlx5Status status = MLX5_STATUS_OK;
    uint32_t in_len, out_len;
    unsigned number;
    uint8_t token;
    Mlx5Cmd cmd;

    if (!mlx5_dma_read(s, addr, entry, sizeof(entry))) {
        mlx5_guest_error(s, "command queue at 0x%" PRIx64 " is unreachable",
                         s->iseg.cmdq_addr);
        return 0;
    }
    if (!fget(cmdq_entry, entry, own)) {
        mlx5_guest_error(s, "doorbell for command %u that software owns",
                         slot);
        return 0;
    }
    /* The driver set the own bit after the rest of the entry. */
    smp_rmb();
    if (!mlx5_dma_read(s, addr, entry, sizeof(entry))) {
        return 0;
    }

    token = fget(cmdq_entry, entry, token);
    in_len = fget(cmdq_entry, entry, input_length);
    out_len = fget(cmdq_entry, entry, output_length);
    if (fget(cmdq_entry, entry, type) != CMDQ_TYPE_PCI) {
        delivery = MLX5_DELIVERY_DESCRIPTOR;
    } else if (in_len < MLX5_CMD_INLINE_BYTES / 2 || in_len > CMD_MAX_INPUT) {
        delivery = MLX5_DELIVERY_IN_LENGTH;
    } else if (out_len < MLX5_CMD_INLINE_BYTES / 2 ||
               out_len > CMD_MAX_OUTPUT) {
        delivery = MLX5_DELIVERY_OUT_LENGTH;
    }
    if (delivery != MLX5_DELIVERY_OK) {
        in_len = out_len = 0;
        goto done;
    }

    /* The fixed part is always there, so that handlers can look at it. */
    in = g_malloc0(MAX(in_len, MLX5_CMD_PAS));
    out = g_malloc0(MAX(out_len, MLX5_CMD_PAS));
    memcpy(in, entry + ENTRY_INPUT, MLX5_CMD_INLINE_BYTES);
    if (in_len > MLX5_CMD_INLINE_BYTES) {
        delivery = cmd_mailboxes(s, fget(cmdq_entry, entry, input_mailbox),
                                 token, in + MLX5_CMD_INLINE_BYTES,
                                 in_len - MLX5_CMD_INLINE_BYTES, false);
        if (delivery != MLX5_DELIVERY_OK) {
            goto done;
        }
    }

    cmd = (Mlx5Cmd) {
        .in = in, .in_len = in_len, .out = out, .out_len = out_len,
    };
    desc = cmd_find(fget(cmd, in, opcode), &number);
    trace_mlx5_cmd(s->parent_obj.name, slot, fget(cmd, in, opcode),
                   desc ? desc->name : "unknown", in_len, out_len);
    status = cmd_execute(s, &cmd, desc);
    s->stats.commands++;
    if (desc) {
        mlx5_count(&s->stats.cmds[number], status == MLX5_STATUS_OK);
    }
    if (status != MLX5_STATUS_OK) {
        memset(out, 0, out_len);
        fset(cmd, out, syndrome, cmd.syndrome);
    }
    fset(cmd, out, status, status);
    trace_mlx5_cmd_done(s->parent_obj.name, slot,
                        desc ? desc->name : "unknown", status, cmd.syndrome);

    memcpy(entry + ENTRY_OUTPUT, out, MLX5_CMD_INLINE_BYTES);
    if (out_len > MLX5_CMD_INLINE_BYTES) {
        delivery = cmd_mailboxes(s, fget(cmdq_entry, entry, output_mailbox),
                                 token, out + MLX5_CMD_INLINE_BYTES,
                                 out_len - MLX5_CMD_INLINE_BYTES, true);
    }
done:
    if (delivery != MLX5_DELIVERY_OK) {
        mlx5_guest_error(s, "command %u not delivered: status %u", slot,
                         delivery);
    }
    fset(cmdq_entry, entry, delivery, delivery);
    fset(cmdq_entry, entry, own, 0);
    if (!mlx5_dma_write(s, addr + ENTRY_OUTPUT, entry + ENTRY_OUTPUT,
                        MLX5_CMD_INLINE_BYTES)) {
        return in_len + out_len;
    }
    /* The driver may reuse the entry as soon as it sees the own byte. */
    smp_wmb();
    mlx5_dma_write(s, addr + ENTRY_OWN, entry + ENTRY_OWN, 1);
    /*
     * The commands that create and destroy the command EQ are polled:
     * mlx5_cmd_use_events() comes after the one and
     * mlx5_cmd_use_polling() before the other.
     */
    if (events && mlx5_event_eq(s, MLX5_EVENT_CMD)) {
        fset(eqe, eqe, cmd_vector, 1u << slot);
        mlx5_event_post(s, MLX5_EVENT_CMD, 0, eqe);
    }
    return in_len + out_len;
}

bool mlx5_cmd_run(Mlx5State *s)
{
    uint64_t bytes = 0;

    while (s->cmd_doorbell && !s->dma.stopped) {
        unsigned slot = ctz32(s->cmd_doorbell);

        if (bytes >= RUN_BUDGET) {
            return true;
        }
        s->cmd_doorbell &= ~(1u << slot);
        bytes += cmd_entry(s, slot);
    }
    return false;
}
