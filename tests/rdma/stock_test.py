# SPDX-License-Identifier: GPL-2.0
"""The HCA under the kernel that the distribution ships, which has none of our patches and every option of mlx5."""
from rig import rdma
from rig.testlib import Test, case

COMMANDS = (
    "ibv_rc_pingpong -n 20",
    "ibv_rc_pingpong -n 20 -e -o",
    "ibv_rc_pingpong -n 20 -O -P",
    "ibv_ud_pingpong -n 20",
    "ibv_srq_pingpong -n 20 -q 3",
    "ib_write_bw -n 20 -s 65536 --odp",
)


@case(topology="switch:two-hcas", kernel="stock", timeout=180)
def traffic(t: Test) -> None:
    t.vm.run(["modprobe", "ib_ipoib"])
    first, second = rdma.load(t.vm)
    for symbol in ("mlx5e_open", "mlx5_eswitch_init", "ipoib_add_one"):
        t.check(t.vm.run(["grep", "-qw", symbol, "/proc/kallsyms"], check=False).status == 0, f"this kernel has {symbol}()")
    clocks = t.vm.run("cat /sys/class/ptp/*/clock_name").stdout.split()
    t.equal(clocks, ["mlx5_ptp"] * 2, "the PTP clocks of the HCAs")
    rdma.pairs(t, COMMANDS, first, first)
    rdma.pairs(t, COMMANDS, first, second)
    t.no_guest_errors()
