/*
 * mlx5 HCA: doorbell pages
 *
 * An 8-byte doorbell may be written as two dwords, the second of which takes
 * effect (Linux include/linux/mlx5/doorbell.h on 32-bit hosts).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/log.h"
#include "mlx5.h"
#include "trace.h"

enum {
    UAR_CQ_DOORBELL = 0x20,
    UAR_EQ_ARM = 0x40,
    UAR_EQ_UPDATE = 0x48,
    UAR_SEND = 0x800,
    /* Send doorbells repeat: four registers with two halves each. */
    UAR_SEND_STRIDE = 0x100,
};

void mlx5_uar_write(Mlx5State *s, hwaddr offset, uint64_t value,
                    unsigned size)
{
    const uint32_t page = offset / MLX5_UAR_BYTES;
    const uint32_t reg = offset % MLX5_UAR_BYTES;
    Mlx5Uar *uar = mlx5_table_get(&s->uars, page);
    uint8_t db[8];

    trace_mlx5_uar_write(s->parent_obj.name, page, reg, size, value);
    if (!uar || size < 4) {
        mlx5_guest_error(s, "%u-byte write to UAR 0x%x, offset 0x%x%s", size,
                         page, reg, uar ? "" : ": not allocated");
        return;
    }
    if (reg == UAR_EQ_ARM || reg == UAR_EQ_UPDATE) {
        if (size == 4) {
            mlx5_eq_doorbell(s, page, value, reg == UAR_EQ_ARM);
        }
        return;
    }
    if (size == 4 && !(reg & 4)) {
        uar->latch = value;
        return;
    }
    stq_be_p(db, size == 8 ? value : (uint64_t)uar->latch << 32 | value);
    if ((reg & ~7u) == UAR_CQ_DOORBELL) {
        mlx5_cq_doorbell(s, page, db);
        mlx5_run(s);
    } else if (reg >= UAR_SEND && (reg & ~7u) % UAR_SEND_STRIDE == 0) {
        /* The first bytes of the last control segment. */
        mlx5_qp_doorbell(s, page, fget(wqe_ctrl, db, qpn));
        mlx5_run(s);
    } else {
        mlx5_guest_error(s, "write to UAR 0x%x, offset 0x%x", page, reg);
    }
}
