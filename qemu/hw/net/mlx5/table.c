/*
 * mlx5 HCA: numbered objects
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "mlx5.h"

static void all_free(Mlx5Table *t)
{
    hbitmap_set(t->free, 0, t->limit - t->first);
    t->next = t->first;
}

void mlx5_table_init(Mlx5Table *t, uint32_t first, uint32_t limit,
                     GDestroyNotify destroy)
{
    t->objs = g_hash_table_new_full(NULL, NULL, NULL, destroy);
    t->free = hbitmap_alloc(limit - first, 0);
    t->first = first;
    t->limit = limit;
    all_free(t);
}

void mlx5_table_fini(Mlx5Table *t)
{
    g_clear_pointer(&t->objs, g_hash_table_destroy);
    g_clear_pointer(&t->free, hbitmap_free);
}

/*
 * Numbers go round, so that a stale number is noticed instead of reaching a
 * new object.
 */
bool mlx5_table_add(Mlx5Table *t, Mlx5Obj *obj)
{
    const uint32_t size = t->limit - t->first;
    const uint32_t next = t->next - t->first;
    int64_t found = hbitmap_next_dirty(t->free, next, size - next);

    if (found < 0) {
        found = hbitmap_next_dirty(t->free, 0, next);
    }
    if (found < 0) {
        return false;
    }
    hbitmap_reset(t->free, found, 1);
    obj->id = t->first + found;
    g_hash_table_insert(t->objs, GUINT_TO_POINTER(obj->id), obj);
    t->next = obj->id + 1 < t->limit ? obj->id + 1 : t->first;
    return true;
}

void mlx5_table_remove(Mlx5Table *t, uint32_t id)
{
    if (g_hash_table_remove(t->objs, GUINT_TO_POINTER(id))) {
        hbitmap_set(t->free, id - t->first, 1);
    }
}

void mlx5_table_clear(Mlx5Table *t)
{
    g_hash_table_remove_all(t->objs);
    all_free(t);
}
