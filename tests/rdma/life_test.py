# SPDX-License-Identifier: GPL-2.0
"""Drivers, devices and processes that go in the middle of traffic: no kernel report, no hang, and the next run works."""
import signal
import time
from typing import Any

from rig import rdma
from rig.agent import Operation
from rig.testlib import Test, case

TWO = "switch:two-hcas"
DRIVER = "/sys/bus/pci/drivers/mlx5_core"
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


def rebind(t: Test, address: str) -> None:
    t.vm.write(f"{DRIVER}/unbind", address, timeout=300)
    t.vm.write(f"{DRIVER}/bind", address, timeout=300)


@case(topology=TWO, timeout=1200, full=True)
def rebound(t: Test) -> None:
    """The driver comes and goes, every fifth time under traffic."""
    address = t.vm.pci_address(ROLE)
    for number in range(20):
        first, second = rdma.load(t.vm)
        sides = begin_traffic(t, second, first) if number % 5 == 0 else None
        rebind(t, address)
        if sides:
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
    argument = next(d for d in t.topology.devices if d.startswith(f"mlx5,id={ROLE},"))
    t.vm.qmp("device_del", id=ROLE)
    t.vm.wait_until(lambda: any(e.get("device") == ROLE for e in t.vm.events("DEVICE_DELETED")),
                    "the guest did not let the device go", 300)
    end_traffic(t, sides)
    driver, *properties = argument.split(",")
    pairs = (each.split("=") for each in properties)
    switch: dict[str, Any] = {"on": True, "off": False}
    values = {name: int(value) if value.isdigit() else switch.get(value, value) for name, value in pairs}
    t.vm.qmp("device_add", driver=driver, **values)
    address = t.vm.pci_address(ROLE)
    t.vm.run(f"until ls -d /sys/bus/pci/devices/*/infiniband | grep -q {address} ; do sleep 0.5; done", timeout=300)
    works(t)


@case(topology=TWO, timeout=1800, full=True, fresh=True)
def reset(t: Test) -> None:
    """The function is reset under the driver, which does not expect that; bound anew it works again."""
    address = t.vm.pci_address(ROLE)
    first, second = rdma.load(t.vm)
    sides = begin_traffic(t, second, first)
    t.vm.write(f"/sys/bus/pci/devices/{address}/reset", "1", timeout=300)
    end_traffic(t, sides)
    rebind(t, address)
    works(t)
