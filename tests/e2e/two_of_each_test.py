# SPDX-License-Identifier: GPL-2.0
"""Two GPUs and two HCAs."""
from collections import Counter

from rig import gpu, odp, rdma
from rig.e2e import CLIENT, SERVER, prepare, vram_case
from rig.gpu import HUGE, PAGE
from rig.testlib import Test


def check_two(t: Test, sizes: dict[str, int]) -> None:
    """Two processes, each with its GPU and both HCAs, in opposite directions, at the same time."""
    operations = (*odp.INTO, *odp.OUT_OF, odp.ATOMIC)
    clients = [odp.Client(t.vm, CLIENT, SERVER, "gpu"), odp.Client(t.vm, SERVER, CLIENT, "gpu1")]
    hcas = {role: odp.data_counters(t.vm, role) for role in (SERVER, CLIENT)}
    engines = [gpu.Counters(t.vm, client.gpu, odp.GPU_COUNTERS) for client in clients]
    running = [t.vm.start(client.command("transfer", "-n", str(sizes[client.gpu] // PAGE), "-t", *operations))
               for client in clients]
    expected: Counter[str] = Counter()
    for client, process in zip(clients, running):
        t.vm.wait(process, t.remaining)
        t.equal(process.status, 0, f"exit status with {client.gpu} ({rdma.output(process)})")
        said = process.stdout.decode().splitlines()
        for operation in operations:
            t.check(f"{operation} private {sizes[client.gpu] // PAGE}" in said, f"{operation} left {client.gpu}'s pages in place")
            expected.update(odp.traffic(client, operation, sizes[client.gpu], True))
    seen = {f"{role} {name}": moved for role in hcas for name, moved in odp.moved(hcas[role]).items()}
    t.equal(seen, dict(expected), "payload")
    for client, engine in zip(clients, engines):
        size = len(operations) * sizes[client.gpu]
        t.equal(engine.moved(), dict.fromkeys(odp.GPU_COUNTERS, 0) | {"ce-bytes-h2d": size, "ce-bytes-d2h": size}, client.gpu)


@vram_case(["switch", "host-bridge+iommu"], "two-gpus+two-hcas", memory="3G", full=True, timeout=600)
def both_at_once(t: Test) -> None:
    prepare(t)
    check_two(t, {"gpu": 2 * HUGE, "gpu1": HUGE})
    for role in (SERVER, CLIENT):
        t.equal(t.vm.qom_get(role, "dma-errors"), 0, f"failed DMA of {role}")
