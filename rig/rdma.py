# SPDX-License-Identifier: GPL-2.0
"""Helpers for tests that use an HCA of the guest: drivers, device names, programs that come in pairs."""
import itertools
from typing import Any, Sequence

from .agent import Operation
from .pci import DEVICES
from .testlib import Test
from .vm import Vm

DRIVER = "/sys/bus/pci/drivers/mlx5_core"
DRIVERS = ("mlx5_ib", "ib_uverbs", "rdma_ucm")
ports = itertools.count(20000)
"""TCP ports that nothing in a guest has used."""
# perftest computes rates from the time stamp counter, which it compares with the clock before. On a busy host the two do
# not fit; it then does all its traffic, says this instead of a rate, and exits with 1.
UNCALIBRATED = "Can't produce a report"
# And then the other side says this, where both have something to report.
UNREPORTED = "Couldn't read reports"


def load(vm: Vm) -> list[str]:
    """Load the drivers; returns, when the ports are active, the verbs devices ("mlx5_0") in the order of the roles."""
    vm.run(["modprobe", "-a", *DRIVERS])
    # After the guest has slept, drivers are bound to what a resumed device has by a work item (drivers/base/dd.c).
    for role in hcas(vm):
        vm.run(f"until [ -d /sys/bus/pci/devices/{vm.pci_address(role)}/infiniband ]; do sleep 0.1; done")
    names = [device(vm, role) for role in hcas(vm)]
    for name in names:
        # The port's state reaches sysfs through a work item of ib_core's cache.
        vm.run(f"until grep -q ACTIVE /sys/class/infiniband/{name}/ports/1/state; do sleep 0.1; done")
    return names


def hcas(vm: Vm) -> list[str]:
    """The roles in the guest's topology that are HCAs."""
    return [role for role in vm.topology.roles if any(d.startswith(f"mlx5,id={role},") for d in vm.topology.devices)]


def device(vm: Vm, role: str) -> str:
    """The verbs device of the HCA in `role`."""
    return vm.run(["ls", f"/sys/bus/pci/devices/{vm.pci_address(role)}/infiniband"]).stdout.strip()


def rebind(vm: Vm, role: str) -> None:
    """Take the HCA in `role` from its driver, whatever goes on, and give it back."""
    for verb in ("unbind", "bind"):
        vm.write(f"{DRIVER}/{verb}", vm.pci_address(role), timeout=300)


def reset(vm: Vm, role: str) -> None:
    """Reset the function of an HCA under its driver, which is not told; returns when that has seen it and has begun anew.

    Not twice within a minute: the driver gives up then (MLX5_FW_REPORTER_PF_GRACEFUL_PERIOD), until it is bound anew.
    """
    address = vm.pci_address(role)

    def recoveries() -> int:
        return sum(address in line and "health recovery succeeded" in line for line in vm.console.lines)

    before = recoveries()
    vm.write(f"{DEVICES}/{address}/reset", "1", timeout=300)
    vm.wait_until(lambda: recoveries() > before, "the driver did not begin anew")


def rescan(vm: Vm, role: str) -> None:
    """Have the guest's kernel forget the function of an HCA, whatever goes on, and look for it again."""
    vm.write(f"{DEVICES}/{vm.pci_address(role)}/remove", "1", timeout=300)
    vm.write("/sys/bus/pci/rescan", "1", timeout=300)


def unplug(vm: Vm, role: str) -> None:
    """Pull the HCA in `role` out of its slot."""
    before = len(vm.events("DEVICE_DELETED"))
    vm.qmp("device_del", id=role)
    # There is an event for each object that goes with it, too, which has no id.
    vm.wait_until(lambda: any(event.get("device") == role for event in vm.events("DEVICE_DELETED")[before:]),
                  "the guest did not let the device go", 300)


def plug(vm: Vm, role: str) -> None:
    """Put one like it there again; returns when the guest has a verbs device."""
    driver, *properties = next(d for d in vm.topology.devices if d.startswith(f"mlx5,id={role},")).split(",")
    switch: dict[str, Any] = {"on": True, "off": False}
    values = {name: int(value) if value.isdigit() else switch.get(value, value)
              for name, value in (each.split("=") for each in properties)}
    vm.qmp("device_add", driver=driver, **values)
    vm.run(f"until [ -d {DEVICES}/{vm.pci_address(role)}/infiniband ]; do sleep 0.5; done", timeout=300)


def complaints(vm: Vm) -> list[str]:
    """What the driver has said of the health of an HCA, which it looks at every two seconds; nothing is good."""
    return [line for line in vm.console.lines if "mlx5_core" in line and ("health" in line or "compromised" in line)]


def make_rxe(vm: Vm, mtu: int = 1500) -> str:
    """A software RDMA device on a network interface of the guest that leads nowhere; `mtu` is that interface's."""
    vm.run(f"modprobe -a dummy rdma_rxe && ip link add rig0 mtu {mtu} type dummy && ip address add 192.0.2.1/24 dev rig0 && "
           "ip link set rig0 up && rdma link add rxe_rig type rxe netdev rig0")
    vm.run("until grep -q ACTIVE /sys/class/infiniband/rxe_rig/ports/1/state; do sleep 0.1; done")
    return "rxe_rig"


def remove_rxe(vm: Vm) -> None:
    """Take away what make_rxe() has made."""
    vm.run("rdma link delete rxe_rig && ip link delete rig0")


def wait_for_server(vm: Vm, server: Operation, port: int) -> None:
    """Wait until a TCP port of the guest is listened to, or the server has ended."""
    # State 0A is LISTEN.
    listening = f"for i in 1 2 3 4 5; do grep -q ':{port:04X} .* 0A ' /proc/net/tcp /proc/net/tcp6 && exit; sleep 0.1; done; exit 1"
    while vm.run(listening, check=False).status and not server.done:
        pass


def start_pair(vm: Vm, command: Sequence[str], server: str, client: str) -> tuple[Operation, Operation]:
    """Start both sides of an example of libibverbs or of perftest between two verbs devices, over TCP in the guest."""
    port = str(next(ports))
    begun = vm.start([*command, "-d", server, "-p", port])
    wait_for_server(vm, begun, int(port))
    return begun, vm.start([*command, "-d", client, "-p", port, "127.0.0.1"])


def run_pair(vm: Vm, command: Sequence[str], server: str, client: str, timeout: float = 120) -> tuple[Operation, Operation]:
    """The same to their end; the server is killed when the client fails."""
    begun, done = start_pair(vm, command, server, client)
    vm.wait(done, timeout)
    if done.status:
        vm.kill(begun)
    vm.wait(begun, timeout)
    return begun, done


def output(operation: Operation) -> str:
    """What a program said."""
    return (operation.stdout + operation.stderr).decode(errors="replace")


def pair(t: Test, command: Sequence[str], server: str, client: str, timeout: float = 120) -> str:
    """Run both sides to their end. Returns what is wrong, "" when they exit with 0; their output is noted when they do not."""
    begun, done = run_pair(t.vm, command, server, client, timeout)
    said = [output(side) for side in (begun, done)]
    excuses = (UNCALIBRATED, UNREPORTED) if any(UNCALIBRATED in text for text in said) else ()
    if all(side.status == 0 or (side.status == 1 and any(excuse in text for excuse in excuses))
           for side, text in zip((begun, done), said)):
        return ""
    t.note(f"{' '.join(command)}: server, status {begun.status}:\n{output(begun)}\nclient, status {done.status}:\n{output(done)}")
    return f"exit status {begun.status} (server), {done.status} (client)"


def pairs(t: Test, commands: Sequence[str], server: str, client: str) -> None:
    """Run each of `commands` between two verbs devices, which may be the same; each is a subtest."""
    where = "loopback" if server == client else "two HCAs"
    for command in commands:
        why = pair(t, command.split(), server, client)
        t.result(f"{command.replace(' ', '_')}, {where}", not why, why)
