/*
 * mlx5 HCA: queue memory, a list of guest pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "mlx5.h"

bool mlx5_context_charge(Mlx5State *s, uint64_t bytes)
{
    if (bytes > s->context_mem - s->context_used) {
        return false;
    }
    s->context_used += bytes;
    return true;
}

void mlx5_context_uncharge(Mlx5State *s, uint64_t bytes)
{
    s->context_used -= bytes;
}

bool mlx5_buffer_init(Mlx5State *s, Mlx5Buffer *b, const uint8_t *pas,
                      size_t pas_bytes, unsigned page_shift,
                      unsigned page_offset, uint64_t size)
{
    uint64_t offset, num_pages;

    if (page_shift < 12 || page_shift > 40) {
        return false;
    }
    offset = (uint64_t)page_offset << (page_shift - 6);
    if (offset > UINT32_MAX) {
        return false;
    }
    num_pages = DIV_ROUND_UP(offset + size, 1ull << page_shift);
    if (!size || num_pages > pas_bytes / 8 ||
        !mlx5_context_charge(s, num_pages * 8)) {
        return false;
    }
    b->pages = g_new(uint64_t, num_pages);
    for (uint64_t i = 0; i < num_pages; i++) {
        b->pages[i] = ldq_be_p(pas + i * 8) & ~0xfffull;
    }
    b->num_pages = num_pages;
    b->offset = offset;
    b->page_shift = page_shift;
    b->size = size;
    return true;
}

void mlx5_buffer_fini(Mlx5State *s, Mlx5Buffer *b)
{
    if (b->pages) {
        mlx5_context_uncharge(s, b->num_pages * 8);
        g_free(b->pages);
        memset(b, 0, sizeof(*b));
    }
}

static bool buffer_rw(Mlx5State *s, const Mlx5Buffer *b, uint64_t offset,
                      void *buf, uint32_t len, bool write)
{
    const uint64_t page_size = 1ull << b->page_shift;

    if (offset > b->size || len > b->size - offset) {
        return false;
    }
    offset += b->offset;
    while (len) {
        uint64_t in_page = offset & (page_size - 1);
        uint32_t n = MIN(len, page_size - in_page);
        uint64_t addr = b->pages[offset >> b->page_shift] + in_page;

        if (!(write ? mlx5_dma_write(s, addr, buf, n) :
                      mlx5_dma_read(s, addr, buf, n))) {
            return false;
        }
        buf = (uint8_t *)buf + n;
        offset += n;
        len -= n;
    }
    return true;
}

bool mlx5_buffer_read(Mlx5State *s, const Mlx5Buffer *b, uint64_t offset,
                      void *buf, uint32_t len)
{
    return buffer_rw(s, b, offset, buf, len, false);
}

bool mlx5_buffer_write(Mlx5State *s, const Mlx5Buffer *b, uint64_t offset,
                       const void *buf, uint32_t len)
{
    return buffer_rw(s, b, offset, (void *)buf, len, true);
}

bool mlx5_buffer_publish(Mlx5State *s, const Mlx5Buffer *b, uint64_t offset,
                         const uint8_t *entry, uint32_t len)
{
    if (!mlx5_buffer_write(s, b, offset, entry, len - 1)) {
        return false;
    }
    /* A CPU that sees the last byte must see the rest. */
    smp_wmb();
    return mlx5_buffer_write(s, b, offset + len - 1, entry + len - 1, 1);
}
