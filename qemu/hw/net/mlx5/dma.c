/*
 * mlx5 HCA: access to guest memory
 *
 * Routing, IOMMU and ATS are the business of hw/pci/p2p_dma.c.  Payload is
 * accounted apart from queues and commands, so that a test can tell which
 * memory the data of its work requests came from and went to.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "mlx5.h"
#include "trace.h"

static bool dma_failed(Mlx5State *s, P2PDmaResult result, uint64_t addr,
                       uint64_t len)
{
    trace_mlx5_dma_error(s->parent_obj.name, addr, len,
                         p2p_dma_result_name(result));
    s->stats.dma_errors++;
    return false;
}

bool mlx5_dma_read(Mlx5State *s, uint64_t addr, void *buf, uint64_t len)
{
    P2PDmaResult result = p2p_dma_read(&s->dma, addr, buf, len,
                                       P2P_DMA_UNTRANSLATED, NULL);

    return result == P2P_DMA_OK || dma_failed(s, result, addr, len);
}

bool mlx5_dma_write(Mlx5State *s, uint64_t addr, const void *buf,
                    uint64_t len)
{
    P2PDmaResult result = p2p_dma_write(&s->dma, addr, buf, len,
                                        P2P_DMA_UNTRANSLATED, NULL);

    return result == P2P_DMA_OK || dma_failed(s, result, addr, len);
}

bool mlx5_dma_read_be32(Mlx5State *s, uint64_t addr, uint32_t *value)
{
    uint8_t buf[4];

    if (!mlx5_dma_read(s, addr, buf, sizeof(buf))) {
        return false;
    }
    *value = ldl_be_p(buf);
    return true;
}

void mlx5_count_payload(Mlx5State *s, const P2PDmaStats *before)
{
    const P2PDmaStats *now = &s->dma.stats;
    P2PDmaStats *data = &s->stats.data;

    for (unsigned i = 0; i < P2P_DMA_TARGET__MAX; i++) {
        data->read[i] += now->read[i] - before->read[i];
        data->written[i] += now->written[i] - before->written[i];
    }
    data->routed += now->routed - before->routed;
}

/* Whether a test wants the next payload transfer of @s to fail. */
static bool data_injected(Mlx5State *s, uint64_t addr, uint64_t len)
{
    return mlx5_inject(&s->inject.fail_data) &&
           !dma_failed(s, P2P_DMA_ERR_INJECTED, addr, len);
}

bool mlx5_run_read_list(Mlx5State *s, const Mlx5Run *run, void *buf,
                        uint64_t len)
{
    P2PDmaResult result = p2p_dma_read(&s->dma, run->addr, buf, len,
                                       run->mode, NULL);

    return result == P2P_DMA_OK || dma_failed(s, result, run->addr, len);
}

bool mlx5_run_read(Mlx5State *s, const Mlx5Run *run, void *buf, uint64_t len)
{
    P2PDmaStats before = s->dma.stats;
    P2PDmaResult result;

    if (data_injected(s, run->addr, len)) {
        return false;
    }
    result = p2p_dma_read(&s->dma, run->addr, buf, len, run->mode, NULL);
    mlx5_count_payload(s, &before);
    return result == P2P_DMA_OK || dma_failed(s, result, run->addr, len);
}

bool mlx5_run_write(Mlx5State *s, const Mlx5Run *run, const void *buf,
                    uint64_t len)
{
    P2PDmaResult result;

    if (data_injected(s, run->addr, len)) {
        return false;
    }
    result = p2p_dma_write(&s->dma, run->addr, buf, len, run->mode, NULL);
    return result == P2P_DMA_OK || dma_failed(s, result, run->addr, len);
}

bool mlx5_run_copy(Mlx5State *dst_hca, const Mlx5Run *dst,
                   Mlx5State *src_hca, const Mlx5Run *src,
                   uint64_t len, bool *dst_failed)
{
    P2PDmaEnd to = { .dma = &dst_hca->dma, .addr = dst->addr,
                     .mode = dst->mode };
    P2PDmaEnd from = { .dma = &src_hca->dma, .addr = src->addr,
                       .mode = src->mode };
    P2PDmaFault fault = { 0 };
    P2PDmaResult result;

    *dst_failed = false;
    if (data_injected(src_hca, src->addr, len)) {
        return false;
    }
    *dst_failed = true;
    if (dst_hca != src_hca && data_injected(dst_hca, dst->addr, len)) {
        return false;
    }
    result = p2p_dma_copy(&to, &from, len, &fault);
    if (result != P2P_DMA_OK) {
        *dst_failed = fault.is_write;
        return dma_failed(fault.is_write ? dst_hca : src_hca, result,
                          fault.addr, len - fault.done);
    }
    return true;
}

bool mlx5_run_atomic(Mlx5State *s, const Mlx5Run *run, P2PDmaAtomicOp op,
                     uint64_t operand, uint64_t compare, uint64_t *old)
{
    P2PDmaEnd end = { .dma = &s->dma, .addr = run->addr, .mode = run->mode };
    P2PDmaStats before = s->dma.stats;
    P2PDmaResult result;

    if (data_injected(s, run->addr, 8)) {
        return false;
    }
    result = p2p_dma_atomic(&end, op, 8, operand, compare, old);
    mlx5_count_payload(s, &before);
    return result == P2P_DMA_OK || dma_failed(s, result, run->addr, 8);
}
