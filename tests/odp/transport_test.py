# SPDX-License-Identifier: GPL-2.0
"""ODP by the transport scheme, in which a page fault names the request and the driver finds the memory in its work queue entry."""
from collections import Counter

from rig import odp
from rig.odp import ATOMIC, INTO, OUT_OF
from rig.testlib import Test, case

RAISED = "mlx5_odp_raise"
WORK_REQUEST, RDMA, MEMORY = "0", "1", "2"
"""Sub-types of the event of a page fault (MLX5_PFAULT_SUBTYPE_*). The last one is the memory scheme."""


def faults(t: Test) -> Counter[str]:
    """How many page faults there were so far, by their sub-type."""
    words = [text.split() for _, name, text in t.vm.traced() if name == RAISED]
    return Counter(each[each.index("type") + 1] for each in words)


@case(topology="switch:hca-transport", timeout=900, full=True, trace=[RAISED])
def everything(t: Test) -> None:
    odp.provide(t.vm)
    client = odp.Client(t.vm)
    for options in ((), ("-i",), ("-r",)):
        for operation in (*INTO, *OUT_OF, ATOMIC):
            before = faults(t)
            odp.check_operation(t, client, operation, 8, options)
            seen = faults(t) - before
            # A receive and what the requester has is in a work request; what it accesses remotely is not.
            kind = WORK_REQUEST if operation in (*odp.AT_REQUESTER, "recv") else RDMA
            t.equal(set(seen), {kind}, f"page faults of {operation} {options}: {dict(seen)}; sub-types")
    odp.check_operation(t, client, "recv", 8, ["-q", "srq"])
    for advice in ("0", "1", "2"):
        before = faults(t)
        odp.check_operation(t, client, "read", 8, ["-a", advice])
        t.equal(faults(t), before, f"page faults after prefetching with advice {advice}")
    for options in ((), ("-i",)):
        for operation in ("write", "read", "recv", "send"):
            result = client.run("transfer", "-k", "odp", *options, operation)
            expected = odp.traffic(client, operation, 8 * odp.PAGE, False)
            t.equal({name: result[name] for name in expected}, expected, f"payload of {operation} of system memory")
        for kind, rounds in (("dontneed", 20), ("touch", 8), ("fork", 8)):
            odp.check_race(t, client, kind, rounds, *options)
    t.equal(faults(t)[MEMORY], 0, "page faults by the memory scheme")
    t.equal(t.vm.qom_get("importer", "dma-errors"), 0, "failed DMA")
    t.no_guest_errors()
