# SPDX-License-Identifier: GPL-2.0
"""What ODP regions do with ordinary memory: what is mapped is counted, freed, and nowhere else."""
import time
from typing import Callable

from rig import odp, rdma
from rig.testlib import Test, case


def children_in_use(t: Test) -> int:
    for line in t.vm.run("frmr_pools").stdout.splitlines():
        words = line.split()
        if words[words.index("blocks") + 1] == str(odp.CHILD_BLOCKS):
            return int(words[words.index("in_use") + 1])
    return 0


@case(topology="switch:hca", timeout=120)
def empty_children_go(t: Test) -> None:
    """When the last page of a child of an implicit region is unmapped, the child is destroyed."""
    rdma.load(t.vm)
    count = 4
    fifo = "/tmp/odp-children"
    t.vm.run(["mkfifo", fifo])
    t.vm.write("/tmp/odp-children.out", "")
    running = t.vm.start(f"exec odp children {count} <>{fifo} >/tmp/odp-children.out")
    try:
        wait_for(t, lambda: t.vm.read("/tmp/odp-children.out") == b"filled\n", "the client to fill the children")
        t.equal(children_in_use(t), count, "children with pages")
        t.vm.run(f"echo >{fifo}")
        # They are destroyed by a work queue, at a time of its own.
        wait_for(t, lambda: children_in_use(t) == 0, "the empty children to be destroyed")
        t.vm.run(f"echo >{fifo}")
        t.equal(t.vm.wait(running, 60).status, 0, "exit status of the client")
    finally:
        t.vm.run(["rm", "-f", fifo])


def wait_for(t: Test, condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        t.check(time.monotonic() < deadline, f"waited 30 seconds for {what}")
        time.sleep(0.2)


@case(topology="switch:hca", timeout=120)
def absent_pages(t: Test) -> None:
    """The MTTs of absent pages in a large region hold nothing that an earlier part of the update has left."""
    rdma.load(t.vm)
    t.vm.run("odp absent")


@case(topology="switch:hca", timeout=120)
def discarded_pages(t: Test) -> None:
    """A request for a page that was discarded a moment ago finds zeros, also while the child of an implicit region goes."""
    rdma.load(t.vm)
    t.vm.run("odp discarded 20")
    t.vm.run("odp discarded -i 20")


@case(topology="switch:hca", timeout=180)
def deregistered_amid_faults(t: Test) -> None:
    """An implicit region that is deregistered while its page faults are handled leaves nothing behind, and nothing uses it."""
    rdma.load(t.vm)
    numbers = t.vm.run("odp deregistered 60", timeout=t.remaining).stdout
    t.note(numbers)
    done, failed = (int(line.split()[-1]) for line in numbers.splitlines())
    t.check(done and failed, f"some requests came before and some after: {done} were done, {failed} failed")
    t.equal(children_in_use(t), 0, "children that are left")
