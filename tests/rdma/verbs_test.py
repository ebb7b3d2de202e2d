# SPDX-License-Identifier: GPL-2.0
"""guest/src/verbs.c: every operation, every byte and every completion status, in loopback and between two HCAs."""
from rig import rdma
from rig.testlib import Test, case

PROGRAM = "/opt/hmm-p2p/bin/verbs"
TWO = "switch:two-hcas"


@case(topology=TWO, timeout=300)
def two_hcas(t: Test) -> None:
    t.guest_ktap([PROGRAM, *rdma.load(t.vm)])


@case(topology=TWO, timeout=300, full=True)
def loopback(t: Test) -> None:
    first, _ = rdma.load(t.vm)
    t.guest_ktap([PROGRAM, first, first])
