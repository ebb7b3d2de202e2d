/*
 * mlx5 HCA: the emulated subnet
 *
 * HCAs whose "subnet" property has the same value reach each other by LID.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "mlx5.h"

enum { MAX_UNICAST_LID = 0xbfff };

static QTAILQ_HEAD(, Mlx5State) fabric = QTAILQ_HEAD_INITIALIZER(fabric);

static Mlx5State *fabric_lookup(const char *subnet, uint16_t lid)
{
    Mlx5State *s;

    QTAILQ_FOREACH(s, &fabric, fabric_entry) {
        if (s->lid == lid && !g_strcmp0(s->subnet, subnet)) {
            return s;
        }
    }
    return NULL;
}

void mlx5_fabric_attach(Mlx5State *s)
{
    QTAILQ_INSERT_TAIL(&fabric, s, fabric_entry);
}

void mlx5_fabric_detach(Mlx5State *s)
{
    QTAILQ_REMOVE(&fabric, s, fabric_entry);
}

Mlx5State *mlx5_fabric_find(Mlx5State *s, uint16_t lid)
{
    Mlx5State *found = fabric_lookup(s->subnet, lid);

    /* One that is being reset does not answer. */
    return found && !found->dma.stopped ? found : NULL;
}

uint16_t mlx5_fabric_free_lid(const char *subnet)
{
    for (uint16_t lid = 1; lid <= MAX_UNICAST_LID; lid++) {
        if (!fabric_lookup(subnet, lid)) {
            return lid;
        }
    }
    return 0;
}

bool mlx5_fabric_has_guid(uint64_t guid)
{
    Mlx5State *s;

    QTAILQ_FOREACH(s, &fabric, fabric_entry) {
        if (s->guid == guid) {
            return true;
        }
    }
    return false;
}
