# SPDX-License-Identifier: GPL-2.0
"""The examples of libibverbs, which verify nothing but that every message arrives, and perftest."""
from rig import rdma
from rig.testlib import Test, case

TWO = "switch:two-hcas"

PINGPONG = (
    "ibv_rc_pingpong -n 20 -c",
    "ibv_rc_pingpong -n 20 -e -c",
    "ibv_rc_pingpong -n 20 -o -c",
    "ibv_rc_pingpong -n 20 -O -c",
    "ibv_rc_pingpong -n 20 -o -P -e",
    "ibv_rc_pingpong -n 20 -N",
    "ibv_rc_pingpong -n 20 -s 1048576 -o",
    "ibv_uc_pingpong -n 20",
    "ibv_uc_pingpong -n 20 -e",
    "ibv_ud_pingpong -n 20",
    "ibv_ud_pingpong -n 20 -e",
    "ibv_srq_pingpong -n 20 -q 8",
    "ibv_srq_pingpong -n 20 -q 8 -e -o",
    "ibv_xsrq_pingpong -n 20",
    "ibv_xsrq_pingpong -n 20 -e",
)

PERFTEST = (
    "ib_write_bw -n 20 -s 65536 --odp",
    "ib_write_lat -n 20 -s 8",
    "ib_read_bw -n 20 -s 65536 --odp",
    "ib_read_lat -n 20 -s 4096",
    "ib_send_bw -n 20 -s 65536 --odp",
    "ib_send_lat -n 20 -s 64 -e",
    "ib_atomic_bw -n 20 --odp",
    "ib_atomic_lat -n 20",
    "ib_write_bw -n 10 -s 4096 -q 100",
    "ib_send_bw -n 10 -s 4096 -b",
    "ib_atomic_bw -n 10 -q 8 -b --odp",
)

TOOLS = ("write", "read", "send")
PERFTEST_ALL = (
    *(f"ib_{tool}_{kind} -a -n 10{odp}" for tool in TOOLS for kind in ("bw", "lat") for odp in ("", " --odp")),
    *(f"ib_atomic_{kind} -n 100 -A {op}{odp}" for kind in ("bw", "lat") for op in ("FETCH_AND_ADD", "CMP_AND_SWAP")
      for odp in ("", " --odp")),
    *(f"ib_{tool}_bw -n 20 -s 65536 -b{odp}" for tool in TOOLS for odp in ("", " --odp")),
    *(f"ib_{tool}_bw -n 10 -s 4096 -q 200{odp}" for tool in TOOLS for odp in ("", " --odp")),
    *(f"ib_atomic_bw -n 20{how}{odp}" for how in (" -b", " -q 200", " -b -q 8") for odp in ("", " --odp")),
    # perftest has no -e for WRITE.
    *(f"ib_{tool}_bw -n 20 -s 4096 -e" for tool in ("read", "send")),
    *(f"ib_send_{kind} -n 20 -s 1024 -c {service}" for kind in ("bw", "lat") for service in ("UD", "UC")),
    *(f"ib_write_{kind} -n 20 -s 1024 -c UC" for kind in ("bw", "lat")),
    "ib_send_bw -n 20 -s 4096 -r 64 --use-srq -q 4",
    "ib_write_bw -n 20 -s 64 -I 64",
)


@case(topology=TWO, timeout=300)
def pingpong(t: Test) -> None:
    first, second = rdma.load(t.vm)
    rdma.pairs(t, PINGPONG, first, second)
    t.no_guest_errors()
    t.equal(rdma.complaints(t.vm), [], "what the driver says of the health of the HCAs")


@case(topology=TWO, timeout=300)
def perftest(t: Test) -> None:
    first, second = rdma.load(t.vm)
    rdma.pairs(t, PERFTEST, first, second)
    t.no_guest_errors()
    t.equal(rdma.complaints(t.vm), [], "what the driver says of the health of the HCAs")


@case(topology=TWO, timeout=600, full=True)
def loopback(t: Test) -> None:
    first, _ = rdma.load(t.vm)
    rdma.pairs(t, PINGPONG + PERFTEST, first, first)
    t.no_guest_errors()


@case(topology=TWO, timeout=3600, full=True)
def perftest_all(t: Test) -> None:
    first, second = rdma.load(t.vm)
    rdma.pairs(t, PERFTEST_ALL, first, second)
    rdma.pairs(t, PERFTEST_ALL, first, first)
    t.no_guest_errors()
