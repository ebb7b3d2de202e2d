/*
 * mlx5 HCA: layout tables for traces
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "fields.h"
#include "trace.h"

#define MLX5_FIELD_ENTRY(layout_, name_, offset_, lsb_, width_)         \
    { .name = #name_, .offset = offset_, .lsb = lsb_, .width = width_ },
#define MLX5_LAYOUT_DEFINE(layout_, list_)                              \
    static const Mlx5Field mlx5_fields_##layout_[] = {                  \
        list_(MLX5_FIELD_ENTRY)                                         \
    };                                                                  \
    const Mlx5Layout mlx5_layout_##layout_ = {                          \
        .name = #layout_,                                               \
        .fields = mlx5_fields_##layout_,                                \
        .num_fields = ARRAY_SIZE(mlx5_fields_##layout_),                \
    };

MLX5_LAYOUTS(MLX5_LAYOUT_DEFINE)

void mlx5_layout_trace(const char *owner, const Mlx5Layout *layout,
                       const void *buf)
{
    if (!trace_event_get_state_backends(TRACE_MLX5_FIELD)) {
        return;
    }
    for (unsigned i = 0; i < layout->num_fields; i++) {
        const Mlx5Field *f = &layout->fields[i];
        uint64_t value = mlx5_field_get(buf, f);

        if (value) {
            trace_mlx5_field(owner, layout->name, f->name, value);
        }
    }
}
