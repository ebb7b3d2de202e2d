# SPDX-License-Identifier: GPL-2.0
"""Drivers, devices and processes that go in the middle of traffic: no kernel report, no hang, and the next run works."""
import signal
import time

from rig import rdma
from rig.agent import Operation
from rig.testlib import Test, case

TWO = "switch:two-hcas"
TRAFFIC = ("ib_write_bw", "-s", "65536", "-D", "300", "--odp")
ROLE = "importer"


def begin_traffic(t: Test, server: str, client: str) -> tuple[Operation, Operation]:
    """Both sides of a long perftest, of which data have arrived."""
    before = t.vm.qom_get(ROLE, "tx-octets")
    sides = rdma.start_pair(t.vm, TRAFFIC, server, client)
    # The other role's counter would do too, but that one may go.
    deadline = time.monotonic() + 60
    while t.vm.qom_get(ROLE, "tx-octets") < before + 65536 * 100:
        t.check(not sides[1].done, f"the traffic runs: {rdma.output(sides[1])}")
        t.check(time.monotonic() < deadline, "there is traffic within a minute")
    return sides


def end_traffic(t: Test, sides: tuple[Operation, Operation]) -> None:
    """The tools have lost their device, or are about to: end what still runs."""
    for side in sides:
        if not side.done:
            t.vm.kill(side, signal.SIGKILL)
    for side in sides:
        t.vm.wait(side, 60)


def works(t: Test) -> None:
    first, second = rdma.load(t.vm)
    rdma.pairs(t, ("ibv_rc_pingpong -n 20 -o -c", "ib_write_bw -n 20 -s 65536 --odp"), second, first)


@case(topology=TWO, timeout=1200, full=True)
def rebound(t: Test) -> None:
    """The driver comes and goes, every fifth time under traffic."""
    for number in range(20):
        first, second = rdma.load(t.vm)
        sides = begin_traffic(t, second, first) if number % 5 == 0 else None
        rdma.rebind(t.vm, ROLE)
        if sides:
            end_traffic(t, sides)
    works(t)


@case(topology=TWO, timeout=900, full=True)
def reloaded(t: Test) -> None:
    """The drivers are unloaded and loaded again; also when the kernel has forgotten one of the devices meanwhile."""
    for again in range(3):
        rdma.load(t.vm)
        t.vm.run(["modprobe", "-r", *reversed(rdma.DRIVERS), "mlx5_core"], timeout=300)
        t.equal(t.vm.run("grep -w mlx5_core /proc/modules", check=False).stdout, "", "the driver of the HCAs")
        if again:
            rdma.rescan(t.vm, ROLE)
    works(t)


@case(topology=TWO, timeout=900, full=True)
def removed(t: Test) -> None:
    """The kernel forgets the device, under traffic, and finds it again."""
    first, second = rdma.load(t.vm)
    sides = begin_traffic(t, second, first)
    rdma.rescan(t.vm, ROLE)
    end_traffic(t, sides)
    works(t)


@case(topology=TWO, timeout=240)
def killed(t: Test) -> None:
    """kill -9 of both processes leaves nothing that disturbs the next."""
    first, second = rdma.load(t.vm)
    for _ in range(3):
        sides = begin_traffic(t, second, first)
        for side in sides:
            t.vm.kill(side, signal.SIGKILL)
        for side in sides:
            t.equal(t.vm.wait(side, 60).status, -signal.SIGKILL, "exit status")
    works(t)


@case(topology=TWO, timeout=900, full=True, fresh=True)
def unplugged(t: Test) -> None:
    """The device is pulled out of its slot under traffic, and another one is plugged in."""
    first, second = rdma.load(t.vm)
    sides = begin_traffic(t, second, first)
    rdma.unplug(t.vm, ROLE)
    end_traffic(t, sides)
    rdma.plug(t.vm, ROLE)
    works(t)


def driver_commands(t: Test, *names: str) -> dict[str, int]:
    """How often the HCA's driver has given a command with success, of those that it begins and ends with."""
    counts = dict(each.split("=") for each in t.vm.qom_get(ROLE, "command-counts").split())
    return {name: int(counts[name].split("/")[0]) for name in names}


@case(topology=TWO, timeout=900, full=True, fresh=True)
def reset(t: Test) -> None:
    """The function is reset under traffic and under the driver, which is not told: it sees it, begins anew, and all works again."""
    names = ("ENABLE_HCA", "INIT_HCA", "TEARDOWN_HCA", "DISABLE_HCA", "DESTROY_QP")
    first, second = rdma.load(t.vm)
    sides = begin_traffic(t, second, first)
    before = driver_commands(t, *names)
    rdma.reset(t.vm, ROLE)
    # Whatever the driver had is gone with the reset: it has begun again and has had nothing to end.
    expected = {**before, "ENABLE_HCA": before["ENABLE_HCA"] + 1, "INIT_HCA": before["INIT_HCA"] + 1}
    t.equal(driver_commands(t, *names), expected, "the driver's commands")
    end_traffic(t, sides)
    works(t)
    rdma.rebind(t.vm, ROLE)
    works(t)
