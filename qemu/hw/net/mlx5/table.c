/*
 * mlx5 HCA: numbered objects
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "mlx5.h"

void mlx5_table_init(Mlx5Table *t, uint32_t first, uint32_t limit,
                     GDestroyNotify destroy)
{
    t->objs = g_hash_table_new_full(NULL, NULL, NULL, destroy);
    t->first = first;
    t->limit = limit;
    t->next = first;
}

void mlx5_table_fini(Mlx5Table *t)
{
    g_clear_pointer(&t->objs, g_hash_table_destroy);
}

bool mlx5_table_add(Mlx5Table *t, Mlx5Obj *obj)
{
    if (g_hash_table_size(t->objs) >= t->limit - t->first) {
        return false;
    }
    /*
     * Numbers go round, so that a stale number is noticed instead of
     * reaching a new object.
     */
    while (g_hash_table_contains(t->objs, GUINT_TO_POINTER(t->next))) {
        t->next = t->next + 1 < t->limit ? t->next + 1 : t->first;
    }
    obj->id = t->next;
    g_hash_table_insert(t->objs, GUINT_TO_POINTER(obj->id), obj);
    t->next = t->next + 1 < t->limit ? t->next + 1 : t->first;
    return true;
}

void mlx5_table_remove(Mlx5Table *t, uint32_t id)
{
    g_hash_table_remove(t->objs, GUINT_TO_POINTER(id));
}

void mlx5_table_clear(Mlx5Table *t)
{
    g_hash_table_remove_all(t->objs);
    t->next = t->first;
}
