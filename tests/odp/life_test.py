# SPDX-License-Identifier: GPL-2.0
"""What an HCA accesses by aliases, its process, its driver or the HCA goes in the middle of traffic: no kernel report, no hang,
no page or region is left, and what comes next works."""
import signal
import time
from contextlib import contextmanager
from typing import Callable, Iterator

from rig import odp, pci, rdma
from rig.agent import Operation
from rig.gpu import PAGE
from rig.testlib import Test, case
from rig.vm import timeout_factor

HCA = "switch:hca"
ROLE = "importer"
ENDLESS = 1000000000
WAIT_SECONDS = 60


# With "race", the memory moves between the GPU and the system all the time while it is accessed and verified; with "measure", it
# stays where it is, and there are no page faults.
ARGUMENTS = {"race": ("touch", str(ENDLESS)), "measure": ("write", str(PAGE), str(ENDLESS), "1", "1")}


class Traffic:
    """guest/src/odp.c, which goes on until it is told to end."""

    def __init__(self, t: Test, verb: str, *options: str) -> None:
        self.t = t
        odp.provide(t.vm)
        self.process: Operation = t.vm.start(odp.Client(t.vm).command(verb, "-n", "64", *options, *ARGUMENTS[verb]))
        self.under_way()

    def output(self) -> str:
        return rdma.output(self.process)

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for what the process has to do."""
        deadline = time.monotonic() + WAIT_SECONDS * timeout_factor()
        while not condition():
            self.t.check(not self.process.done, f"{what}, and does not end (status {self.process.status}): {self.output()}")
            self.t.check(time.monotonic() < deadline, f"{what}: {self.output()}")
            time.sleep(0.05)

    def under_way(self, place: str = "peer") -> None:
        """Wait until data has been written to the memory, by aliases unless told otherwise."""
        counters = odp.data_counters(self.t.vm, ROLE)
        self.wait_for(lambda: odp.moved(counters)[f"write {place}"] >= 4 * PAGE, f"the process writes to memory of the {place}")

    def tell(self, signo: int, answer: str = "") -> None:
        self.t.vm.kill(self.process, signo)
        self.wait_for(lambda: answer in self.output(), f"it says {answer!r}")

    def end(self, signo: int, status: int) -> None:
        """Have it end. A race looks at all of its memory first with SIGTERM, where all must be as it was written."""
        self.t.vm.kill(self.process, signo)
        self.t.equal(self.t.vm.wait(self.process, WAIT_SECONDS).status, status, f"how it ended ({self.output()})")


@contextmanager
def traffic(t: Test, verb: str = "race", *options: str) -> Iterator[Traffic]:
    """Traffic, which has ended afterwards."""
    one = Traffic(t, verb, *options)
    try:
        yield one
    finally:
        if not one.process.done and not t.vm.failure:
            t.vm.kill(one.process, signal.SIGKILL)
            t.vm.wait(one.process, WAIT_SECONDS)


def nothing_left(t: Test) -> None:
    """All traffic has ended: nothing is left of it, and what comes next goes where it should."""
    rdma.load(t.vm)
    t.equal(regions(t), "", "memory regions that are left")
    # The GPU's memory goes only when nobody has a page of it any more.
    release_memory(t)
    odp.provide(t.vm)
    odp.check_operation(t, odp.Client(t.vm), "write")


def regions(t: Test) -> str:
    """Those of processes; a page fault that is being handled may have one a little longer than its process."""
    command = "rdma resource show mr | grep ' pid ' || :"
    deadline = time.monotonic() + WAIT_SECONDS * timeout_factor()
    while (left := t.vm.run(command).stdout) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def release_memory(t: Test) -> None:
    """Unbind the GPU's driver."""
    pci.release(t.vm, t.vm.pci_address("provider"))


def lose_hca(t: Test, lose: Callable[[], None]) -> None:
    """The HCA goes in the middle of traffic. Requests end with an error or never; the memory is as it was."""
    with traffic(t) as one:
        one.tell(signal.SIGHUP)
        lose()
        one.end(signal.SIGTERM, 0)
        t.note(one.output())
    nothing_left(t)


@case(topology=HCA, timeout=120)
def killed(t: Test) -> None:
    errors = t.vm.qom_get(ROLE, "dma-errors")
    with traffic(t) as one, traffic(t, "race", "-i") as other:
        command = "rdma statistic show mr | grep -o 'alias_pages [1-9]' | wc -l"
        other.wait_for(lambda: t.vm.run(command).stdout == "2\n", "both have aliases")
        for each in (one, other):
            each.end(signal.SIGKILL, -signal.SIGKILL)
    nothing_left(t)
    t.equal(t.vm.qom_get(ROLE, "dma-errors"), errors, "failed DMA")


@case(topology=HCA, timeout=120)
def memory_goes(t: Test) -> None:
    """The GPU's driver is unbound: what was private comes back, and the traffic goes on there until the GPU is back."""
    errors = t.vm.qom_get(ROLE, "dma-errors")
    with traffic(t) as one:
        release_memory(t)
        one.under_way("host")
        one.tell(signal.SIGUSR1, "gpu closed")
        odp.provide(t.vm)
        one.tell(signal.SIGUSR2, "gpu open")
        one.under_way()
        one.end(signal.SIGTERM, 0)
    nothing_left(t)
    t.equal(t.vm.qom_get(ROLE, "dma-errors"), errors, "failed DMA")


@case(topology=HCA, timeout=300, full=True)
def unbound(t: Test) -> None:
    lose_hca(t, lambda: rdma.rebind(t.vm, ROLE))


@case(topology=HCA, timeout=900, full=True, fresh=True)
def reset(t: Test) -> None:
    """The function is reset under the driver, which is not told; it begins anew, and bound anew it works, too."""
    with traffic(t, "measure") as one:
        rdma.reset(t.vm, ROLE)
        one.end(signal.SIGKILL, -signal.SIGKILL)
    rdma.rebind(t.vm, ROLE)
    nothing_left(t)


@case(topology=HCA, timeout=900, full=True, fresh=True)
def removed(t: Test) -> None:
    """The kernel forgets the device, and finds it again."""
    lose_hca(t, lambda: rdma.rescan(t.vm, ROLE))


@case(topology=HCA, timeout=900, full=True, fresh=True)
def unplugged(t: Test) -> None:
    """The device is pulled out of its slot, and another one is plugged in."""
    def lose() -> None:
        rdma.unplug(t.vm, ROLE)
        rdma.plug(t.vm, ROLE)

    lose_hca(t, lose)
