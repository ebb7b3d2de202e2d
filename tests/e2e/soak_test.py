# SPDX-License-Identifier: GPL-2.0
"""RDMA into VRAM while memory, processes, drivers and the machine do what they can to it; all content is verified.

The soak consists of episodes: one process from its start to its end (`odp race`), and what happens to it meanwhile. What that
is depends on a seed alone, though not the timing. RIG_SEED=N is another one (default 1), RIG_EPISODE=N does that episode alone,
and RIG_SOAK_SECONDS=N is for how long (default 1200). It goes on until all events and all disturbances have been there.
"""
import itertools
import os
import random
import re
import signal
import time
from collections import Counter
from typing import Callable, Iterable

from rig import gpu, odp, rdma
from rig.agent import Operation
from rig.e2e import CLIENT, SERVER, prepare, vram_case
from rig.environment import number
from rig.gpu import PAGE, Counters
from rig.testlib import Test
from rig.vm import Vm, timeout_factor

SECONDS = 1200
WAIT_SECONDS = 240
DISTURBANCES = ("touch", "split", "pageout", "fork", "dontneed", "munmap", "mremap")
GROUP = "/sys/fs/cgroup/soak"
FILL = "/dev/shm/fill"
# What the HCAs and the GPU count that must stay as it is.
ERRORS = {SERVER: ("dma-errors", "guest-errors"), CLIENT: ("dma-errors", "guest-errors"),
          "gpu": ("ce-errors", "bar1-faults", "guest-errors")}
ENDLESS = 1000000


class Episode:
    """Traffic of one process, with what disturbs its memory, and the generator of what else happens."""

    def __init__(self, t: Test, seed: int, number: int) -> None:
        self.t, self.random = t, random.Random(f"{seed}-{number}")
        self.event = event_of(seed, number)
        kinds = self.random.sample(DISTURBANCES, self.random.randint(1, 4))
        huge = self.random.random() < 0.5
        options = ["-n", "512", "-t"] if huge else ["-n", "64"]
        options += [option for option in ("-i", "-r") if self.random.random() < 0.5]
        # Those to whom something happens go on until they are told to end.
        self.rounds = self.random.randint(5, 15) * (1 if huge else 2) if self.event is nothing else ENDLESS
        # Drivers may have been bound anew since, and devices have got other names.
        self.client = odp.Client(t.vm, *self.random.choice(((CLIENT, SERVER), (SERVER, CLIENT), (SERVER, SERVER))), "gpu")
        self.command = self.client.command("race", "-S", str(self.random.randrange(1 << 31)), *options, ",".join(kinds),
                                           str(self.rounds))
        self.said: Counter[str] = Counter()
        self.payload = {role: odp.data_counters(t.vm, role) for role in sorted(set(self.client.hcas))}
        self.process: Operation = t.vm.start(f"echo $$ >{GROUP}/cgroup.procs && exec {' '.join(self.command)}")

    def under_way(self, places: tuple[str, ...] = ("peer", "host")) -> None:
        """Wait until some data has been written to the memory that is disturbed, where it is in one of `places`."""
        written = Counters(self.t.vm, self.client.hcas[1], tuple(f"data-write-{place}-bytes" for place in places))
        left = PAGE * self.random.randint(1, 8)

        def lacking() -> str:
            nonlocal left
            left -= sum(written.moved().values())
            return "" if left <= 0 or self.process.done else f"there is no traffic to {' or '.join(places)}"

        self.wait_while(lacking)
        self.t.check(not self.process.done, f"the process is at work ({rdma.output(self.process)})")

    def says(self, words: str) -> None:
        """Wait until the process has said so."""
        self.wait_while(lambda: "" if self.process.done or words in rdma.output(self.process) else f"it does not say '{words}'")
        self.t.check(words in rdma.output(self.process), f"it says '{words}' ({rdma.output(self.process)})")

    def wait_while(self, problem: Callable[[], str]) -> None:
        """Wait until there is no problem any more. This is for what the guest does not tell by itself."""
        deadline = time.monotonic() + WAIT_SECONDS * timeout_factor()
        while what := problem():
            self.t.check(time.monotonic() < deadline, f"{what} ({rdma.output(self.process)})")
            self.t.vm.check()
            time.sleep(0.05)

    def finish(self) -> None:
        """To its end, which has to be a good one: all was transferred, and each byte once."""
        if self.rounds == ENDLESS:
            self.tell(signal.SIGTERM)
        self.end()
        transfers = self.said["transfers"]
        moved: Counter[str] = Counter()
        for role, counters in self.payload.items():
            for name, count in odp.moved(counters).items():
                moved[f"{role} {name.split()[0]}"] += count
        requester, responder = self.client.hcas
        # A transfer is a READ, a WRITE and a READ of a page.
        expected: Counter[str] = Counter()
        for end, (read, write) in ((requester, (1, 2)), (responder, (2, 1))):
            expected[f"{end} read"] += read * transfers * PAGE
            expected[f"{end} write"] += write * transfers * PAGE
        self.t.equal(dict(moved), dict(expected), "payload")

    def tell(self, signo: int, answer: str = "") -> None:
        """Send a signal, and wait for what it is to say then."""
        self.t.check(not self.process.done, f"the process is at work ({rdma.output(self.process)})")
        self.t.vm.kill(self.process, signo)
        if answer:
            self.says(answer)

    def end(self) -> None:
        """Wait for a good end, where it says what it did: transfers, and how often each disturbance."""
        self.t.vm.wait(self.process, WAIT_SECONDS)
        said = rdma.output(self.process)
        self.t.equal(self.process.status, 0, f"exit status of {' '.join(self.command)} ({said})")
        self.said.update({name: int(count) for name, count in re.findall(r"^race (\w+) (\d+)$", said, re.M)})
        self.t.check("transfers" in self.said, f"it says what it did: {said}")


def nothing(one: Episode) -> None:
    """No more than what the process does to its own memory."""
    one.finish()


def pressure(one: Episode) -> None:
    """The process's memory is reclaimed again and again, while some other memory is in use; meanwhile all of it is moved around.

    To move all memory takes so long that it is done once.
    """
    vm, share = one.t.vm, one.random.randint(20, 40) / 100
    one.under_way()
    before = swapped_out(vm)
    # 64 pages at once, and then some time for page faults; see give_way() of guest/src/odp.c.
    reclaim = f"for i in $(seq {one.random.randint(5, 15)}); do echo 256K >{GROUP}/memory.reclaim; sleep 0.5; done"
    hog = vm.start(f"dd if=/dev/zero of={FILL} bs=1M count=$(awk '/MemAvailable/ {{print int($2 * {share} / 1024)}}' "
                   f"/proc/meminfo) && {reclaim}; echo 3 >/proc/sys/vm/drop_caches; echo 1 >/proc/sys/vm/compact_memory; "
                   f"{reclaim}; rm {FILL}")
    vm.wait(hog, WAIT_SECONDS)
    one.t.equal(hog.status, 0, f"exit status of what uses memory up ({rdma.output(hog)})")
    one.finish()
    one.t.note(f"  {swapped_out(vm) - before} pages were swapped out")


def killed(one: Episode) -> None:
    """The process is killed in the middle of traffic."""
    one.under_way()
    one.tell(signal.SIGKILL)
    one.t.vm.wait(one.process, WAIT_SECONDS)
    one.t.equal(one.process.status, -signal.SIGKILL, f"how it ended ({rdma.output(one.process)})")


def gpu_unbound(one: Episode) -> None:
    """The GPU's driver is unbound with the process's memory in VRAM, and bound again; then there is traffic to VRAM as before.

    The process lets the GPU go, before or afterwards.
    """
    one.under_way()
    closes_late = one.random.random() < 0.5
    if not closes_late:
        one.tell(signal.SIGUSR1, "gpu closed")
    gpu.unbind(one.t.vm)
    if closes_late:
        one.tell(signal.SIGUSR1, "gpu closed")
    gpu.bind(one.t.vm)
    one.tell(signal.SIGUSR2, "gpu open")
    one.under_way(("peer",))
    one.finish()


def hca_unbound(one: Episode) -> None:
    """An HCA's driver is unbound in the middle of traffic, which is lost, and bound again. The memory is as it was."""
    address = one.t.vm.pci_address(one.random.choice(one.client.hcas))
    one.under_way()
    one.tell(signal.SIGHUP)
    for verb in ("unbind", "bind"):
        one.t.vm.write(f"/sys/bus/pci/drivers/mlx5_core/{verb}", address, timeout=300)
    one.tell(signal.SIGTERM)
    one.end()


def suspended(one: Episode) -> None:
    """All devices are suspended in the middle of traffic, which is lost with the HCAs. The memory is as it was."""
    one.under_way()
    one.tell(signal.SIGHUP)
    one.t.vm.suspend("devices")
    one.tell(signal.SIGTERM)
    one.end()


# And how often they come in a deck.
EVENTS: dict[Callable[[Episode], None], int] = {nothing: 4, pressure: 2, killed: 2, gpu_unbound: 2, hca_unbound: 1, suspended: 1}


def event_of(seed: int, number: int) -> Callable[[Episode], None]:
    """What happens in an episode. Events are drawn from a deck, so that all come as often as they should."""
    deck = [event for event, count in EVENTS.items() for _ in range(count)]
    random.Random(f"{seed}-deck-{number // len(deck)}").shuffle(deck)
    return deck[number % len(deck)]


def swapped_out(vm: Vm) -> int:
    return int(vm.run("awk '/^pswpout / {print $2}' /proc/vmstat").stdout)


def left_over(t: Test) -> str:
    """What is left of processes, "" for nothing."""
    if pages := gpu.dmem(t.vm)["pages in use"]:
        return f"{pages} pages of VRAM are left in use"
    # Those of the kernel have no process.
    objects = t.vm.run("for kind in ctx pd cq qp mr srq; do rdma resource show $kind; done | grep ' pid ' || :").stdout
    return f"objects of the HCAs are left:\n{objects}" if objects else ""


def episode(t: Test, seed: int, number: int) -> Episode:
    """One process, and what happened to it. Nothing of it is left afterwards."""
    one = Episode(t, seed, number)
    title = f"episode {number}: {one.event.__name__}: {' '.join(one.command)}"
    t.note(title)
    t.vm.mark(title)
    begin = time.monotonic()
    try:
        one.event(one)
    finally:
        if not one.process.done and not t.vm.failure:
            t.vm.kill(one.process, signal.SIGKILL)
            t.vm.wait(one.process, WAIT_SECONDS)
    rdma.load(t.vm)
    # A page fault that was being handled may have the memory a little longer than the process, and a child its files.
    one.wait_while(lambda: left_over(t))
    t.vm.check()
    t.note(f"  {time.monotonic() - begin:.0f} s: {' '.join(rdma.output(one.process).split())}")
    return one


@vram_case(["switch", "host-bridge+ats"], full=True, timeout=3600, fresh=True)
def everything(t: Test) -> None:
    seed, seconds = number("RIG_SEED", 1), number("RIG_SOAK_SECONDS", float(SECONDS))
    only = os.environ.get("RIG_EPISODE")
    episodes: Iterable[int] = [number("RIG_EPISODE", 0)] if only else itertools.count()
    prepare(t)
    t.vm.run("modprobe zram num_devices=1 && echo 256M >/sys/block/zram0/disksize && mkswap /dev/zram0 && swapon /dev/zram0")
    t.vm.run(f"echo +memory >/sys/fs/cgroup/cgroup.subtree_control && mkdir {GROUP}")
    errors = {role: Counters(t.vm, role, names) for role, names in ERRORS.items()}
    payload = {role: odp.data_counters(t.vm, role) for role in (SERVER, CLIENT)}
    swapped = swapped_out(t.vm)
    begin, done = time.monotonic(), dict.fromkeys((*(event.__name__ for event in EVENTS), *DISTURBANCES), 0)
    for index in episodes:
        t.note(f"again: RIG_SEED={seed} RIG_EPISODE={index} rig/rig test {t.case.name}")
        one = episode(t, seed, index)
        for what, count in ((one.event.__name__, 1), *((name, one.said[name]) for name in DISTURBANCES)):
            done[what] += count
        # Everything that may happen has happened in the end.
        if time.monotonic() - begin > seconds and all(done.values()):
            break
    for role, counters in errors.items():
        t.equal(counters.moved(), dict.fromkeys(ERRORS[role], 0), f"errors of {role}")
    moved: Counter[str] = Counter()
    for counters in payload.values():
        moved.update(odp.moved(counters))
    swapped = swapped_out(t.vm) - swapped
    t.check(only or moved["write peer"] and moved["write host"], f"data went to VRAM and to host memory: {dict(moved)}")
    t.check(swapped or not done["pressure"], "pages were swapped out")
    t.result(f"seed {seed}: " + ", ".join(f"{count} {name}" for name, count in done.items()) +
             f"; {swapped} pages swapped out; {dict(moved)}", True)
