/*
 * mlx5 HCA: initialization segment, the first pages of BAR 0
 *
 * Layout: struct mlx5_init_seg and struct health_buffer in Linux
 * include/linux/mlx5/device.h.  All registers are big endian.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/log.h"
#include "qemu/timer.h"
#include "mlx5.h"
#include "trace.h"

enum {
    ISEG_FW_REV = 0x0,
    ISEG_CMDIF_REV_FW_SUB = 0x4,
    ISEG_CMDQ_ADDR_H = 0x10,
    ISEG_CMDQ_ADDR_L_SZ = 0x14,
    ISEG_CMD_DBELL = 0x18,
    ISEG_INITIALIZING = 0x1fc,
    ISEG_HEALTH_FW_VER = 0x230,
    ISEG_HEALTH_HW_ID = 0x234,
    ISEG_INTERNAL_TIMER_H = 0x1000,
    ISEG_INTERNAL_TIMER_L = 0x1004,
    ISEG_HEALTH_COUNTER = 0x1010,
    ISEG_REAL_TIME_H = 0x1040,
    ISEG_REAL_TIME_L = 0x1044,
    ISEG_IEEE1588_CLK = 0x2000,
    ISEG_IEEE1588_CLK_TYPE = 0x2008,
    ISEG_CLR_INTX = 0x200c,
};

enum {
    FW_MAJOR = 16,
    FW_MINOR = 35,
    FW_SUBMINOR = 4030,
    CMD_IF_REV = 5,
    HW_ID_CONNECTX5 = 0x20d,
    LOG_CMDQ_ENTRIES = 5,
    LOG_CMDQ_STRIDE = 6,
};

/* MLX5_INITIAL_SEG_NIC_INTERFACE_... in Linux include/linux/mlx5/mlx5_ifc.h */
enum {
    NIC_INTERFACE_FULL_DRIVER = 0,
    NIC_INTERFACE_DISABLED = 1,
};

static uint32_t iseg_register(Mlx5State *s, hwaddr offset)
{
    switch (offset) {
    case ISEG_FW_REV:
        return FW_MINOR << 16 | FW_MAJOR;
    case ISEG_CMDIF_REV_FW_SUB:
        return CMD_IF_REV << 16 | FW_SUBMINOR;
    case ISEG_CMDQ_ADDR_H:
        return s->iseg.addr_h;
    case ISEG_CMDQ_ADDR_L_SZ:
        return (s->iseg.cmdq_addr & 0xfffff000) | s->iseg.nic_state << 8 |
               LOG_CMDQ_ENTRIES << 4 | LOG_CMDQ_STRIDE;
    case ISEG_HEALTH_FW_VER:
        return FW_MAJOR << 24 | FW_MINOR << 16 | FW_SUBMINOR;
    case ISEG_HEALTH_HW_ID:
        return HW_ID_CONNECTX5;
    case ISEG_INTERNAL_TIMER_H:
    case ISEG_REAL_TIME_H:
        return qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) >> 32;
    case ISEG_INTERNAL_TIMER_L:
    case ISEG_REAL_TIME_L:
        return qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
    case ISEG_HEALTH_COUNTER:
        /* health.c: poll_health() wants it to have moved after 2 s. */
        return qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL) / 100;
    default:
        /* Among them "initializing": 0, the firmware is up. */
        return 0;
    }
}

uint64_t mlx5_iseg_read(Mlx5State *s, hwaddr offset, unsigned size)
{
    uint64_t value = iseg_register(s, offset & ~3ull);

    if (size == 8) {
        value = value << 32 | iseg_register(s, (offset & ~3ull) + 4);
    } else {
        value = extract32(value, (4 - (offset & 3) - size) * 8, size * 8);
    }
    trace_mlx5_iseg_read(s->parent_obj.name, offset, size, value);
    return value;
}

void mlx5_iseg_write(Mlx5State *s, hwaddr offset, uint64_t value,
                     unsigned size)
{
    trace_mlx5_iseg_write(s->parent_obj.name, offset, size, value);
    if (size != 4) {
        mlx5_guest_error(s, "%u-byte write to init segment 0x%" HWADDR_PRIx,
                         size, offset);
        return;
    }
    switch (offset) {
    case ISEG_CMDQ_ADDR_H:
        s->iseg.addr_h = value;
        break;
    case ISEG_CMDQ_ADDR_L_SZ:
        s->iseg.cmdq_addr = (uint64_t)s->iseg.addr_h << 32 |
                            (value & 0xfffff000);
        s->iseg.nic_state = extract32(value, 8, 3);
        break;
    case ISEG_CMD_DBELL:
        /* There is no command queue: its driver has not seen the reset yet. */
        if (s->iseg.nic_state != NIC_INTERFACE_FULL_DRIVER) {
            mlx5_guest_error(s, "command doorbell 0x%08x, interface state %u",
                             (uint32_t)value, s->iseg.nic_state);
            break;
        }
        s->cmd_doorbell |= value;
        mlx5_run(s);
        break;
    case ISEG_IEEE1588_CLK ... ISEG_CLR_INTX:
        break;
    default:
        mlx5_guest_error(s, "write to read-only init segment 0x%" HWADDR_PRIx,
                         offset);
        break;
    }
}

void mlx5_iseg_reset(Mlx5State *s)
{
    /*
     * The driver's health poll takes this state for the end of a reset, and
     * begins anew; with the command queue's address it writes another one
     * (Linux core/health.c, mlx5_health_check_fatal_sensors(), and core/cmd.c,
     * mlx5_cmd_enable()).
     */
    s->iseg = (Mlx5Iseg) { .nic_state = NIC_INTERFACE_DISABLED };
    s->cmd_doorbell = 0;
}
