# SPDX-License-Identifier: GPL-2.0
"""hmm_range_fault(): instructions for each page, with and without the series, and by aliases.

QEMU counts instructions (-icount), so that the figures do not depend on the host; what interrupts do in between is in them. The
provider is the simulated GPU of the kernel's own tests. guest/src/hmm_walk.c says what is walked.
"""
from dataclasses import dataclass
from typing import Sequence

from rig import pci
from rig.bench import Bench
from rig.measured import Spread
from rig.ui import RigError, step
from rig.vm import Vm

BASE = True
PAGES = 4096
WALKS = 15
DRIVERS = {"provider": "hmm_dmirror", "importer": "hmm_importer"}
SIZES = {"small": "4 KiB pages", "huge": "2 MiB pages"}
WAYS = {"system": (PAGES, 0, 0), "owner": (PAGES, PAGES, 0), "alias": (PAGES, 0, PAGES), "migration": (PAGES, 0, 0)}
"""What has to be found: pages, of these device-private ones, of these aliases."""

PATCHED_PER_BASE = 1.01
ALIAS_PER_OWNER = {"small": 1.25, "huge": 1.1}
MIGRATION_PER_ALIAS = 20


@dataclass(frozen=True)
class Walk:
    """What a walk costs for each page, and how often the provider was asked for aliases in it."""
    per_page: Spread
    calls: float


def run(bench: Bench) -> None:
    with bench.guest("switch", base=True, smp=1, icount=True) as vm:
        vm.run(["modprobe", "hmm_bench"])
        before = {size: walks(vm, size)["system"] for size in SIZES}
    with bench.guest("switch", smp=1, icount=True) as vm:
        vm.run("modprobe -a hmm_bench test_hmm test_hmm_importer")
        for role, driver in DRIVERS.items():
            pci.bind(vm, driver, vm.pci_address(role))
        after = {size: walks(vm, size, *DRIVERS) for size in SIZES}
    for size, pages in SIZES.items():
        walk = after[size]
        bench.show(f"system memory, {pages}, base kernel", before[size].per_page, "instr/page")
        bench.show(f"system memory, {pages}", walk["system"].per_page, "instr/page")
        bench.show("... / base kernel", ratio(walk["system"], before[size]), "", at_most=PATCHED_PER_BASE)
        bench.show(f"device-private memory of the caller, {pages}", walk["owner"].per_page, "instr/page")
        bench.show(f"aliases, {pages}", walk["alias"].per_page, "instr/page")
        bench.show("... / memory of the caller", ratio(walk["alias"], walk["owner"]), "", at_most=ALIAS_PER_OWNER[size])
        bench.show(f"... calls of p2p_page for {PAGES >> 8} MiB in one piece", walk["alias"].calls, "", at_most=1)
        bench.show(f"migration to system memory, {pages}", walk["migration"].per_page, "instr/page")
        bench.show("... / aliases", ratio(walk["migration"], walk["alias"]), "", at_least=MIGRATION_PER_ALIAS)


def walks(vm: Vm, size: str, *roles: str) -> dict[str, Walk]:
    """The walks by their way; those of private memory only with the roles of provider and importer."""
    with step(f"walk {PAGES} pages {WALKS} times, {SIZES[size]}"):
        said = vm.run(["hmm_walk", size, str(PAGES), str(WALKS), *map(vm.pci_address, roles)], timeout=600).stdout
    return dict(parse(line) for line in said.splitlines())


def parse(line: str) -> tuple[str, Walk]:
    """A way of walking, and what it cost. Raises RigError where the walk found something else than it should."""
    way, *words = line.split()
    present, private, alias, calls, *cycles = map(int, words)
    if (present, private, alias) != WAYS[way]:
        raise RigError(f"{way}: of {PAGES} pages {present} were found, {private} of them device-private and {alias} aliases")
    # The first walk also fills caches of the kernel, such as that of how two devices are connected.
    return way, Walk(per_page(cycles[1:]), calls / len(cycles))


def per_page(cycles: Sequence[int]) -> Spread:
    return Spread.of([count / PAGES for count in cycles])


def ratio(one: Walk, other: Walk) -> Spread:
    """That of the medians, and the least and the most that any two walks give."""
    some, others = one.per_page, other.per_page
    return Spread(some.median / others.median, some.low / others.high, some.high / others.low)
