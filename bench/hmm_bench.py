# SPDX-License-Identifier: GPL-2.0
"""hmm_range_fault(): instructions for each page, with and without the series, and for device-private memory by its aliases.

QEMU counts instructions (-icount), so that the figures do not depend on the host. They still differ from walk to walk, by
what interrupts do in between: the smallest counts, and the spread of the others is shown. The simulated GPU of the kernel's
own tests is the provider.
"""
from rig import kernel, pci
from rig.bench import Bench
from rig.ui import RigError
from rig.vm import Vm

PAGES = 4096
WALKS = 15
DRIVERS = {"provider": "hmm_dmirror", "importer": "hmm_importer"}

PATCHED_PER_BASE = 1.01
ALIAS_PER_OWNER = {"small": 1.25, "huge": 1.1}
MIGRATION_PER_ALIAS = 20
NAMES = {"small": "4 KiB pages", "huge": "2 MiB pages"}


class Walks:
    """What guest/src/hmm_walk.c says."""

    def __init__(self, vm: Vm, kind: str, walks: int = WALKS) -> None:
        command = ["hmm_walk", kind, str(PAGES), str(walks)]
        if "-" in kind:
            command += [vm.pci_address("provider"), vm.pci_address("importer")]
        lines = dict(line.split(" ", 1) for line in vm.run(command, timeout=600).stdout.splitlines())
        # The first walk also fills caches of the kernel, such as that of how two devices are connected.
        self.each = sorted(int(word) for word in lines["cycles"].split()[1 if walks > 1 else 0:])
        self.present, self.private, self.alias = (int(lines[name]) for name in ("present", "private", "alias"))
        self.calls = int(lines["calls"]) / walks
        what = {"-owner": (PAGES, PAGES, 0), "-alias": (PAGES, 0, PAGES)}.get(kind[len(kind.split("-")[0]):], (PAGES, 0, 0))
        if (self.present, self.private, self.alias) != what:
            raise RigError(f"{kind}: {self.present} pages, of them {self.private} device-private and {self.alias} aliases")

    @property
    def per_page(self) -> float:
        return self.each[0] / PAGES

    @property
    def spread(self) -> float:
        """By how much the median is above the smallest, in percent."""
        return 100 * (self.each[len(self.each) // 2] / self.each[0] - 1)


def run(bench: Bench) -> None:
    base = f"base-{bench.kernel}"
    if not kernel.image(base).exists():
        raise RigError("there is no kernel without the series to compare with", f"rig/rig build kernel --kernel {base}")
    with bench.guest("switch", kernel=base, smp=1, icount=True) as vm:
        vm.run(["modprobe", "hmm_bench"])
        before = {size: Walks(vm, size) for size in NAMES}
    with bench.guest("switch", smp=1, icount=True) as vm:
        vm.run("modprobe -a hmm_bench test_hmm test_hmm_importer")
        for role, driver in DRIVERS.items():
            pci.bind(vm, driver, vm.pci_address(role))
        after = {size: Walks(vm, size) for size in NAMES}
        owner = {size: Walks(vm, f"{size}-owner") for size in NAMES}
        alias = {size: Walks(vm, f"{size}-alias") for size in NAMES}
        migration = {size: Walks(vm, f"{size}-migrate", 1) for size in NAMES}
    for size, name in NAMES.items():
        bench.show(f"system memory, {name}, base kernel", before[size].per_page, "instr/page")
        bench.show(f"system memory, {name}", after[size].per_page, "instr/page")
        bench.show(f"system memory, {name}, patched / base", after[size].per_page / before[size].per_page, "",
                   at_most=PATCHED_PER_BASE)
        bench.show(f"the caller's device-private memory, {name}", owner[size].per_page, "instr/page")
        bench.show(f"aliases, {name}", alias[size].per_page, "instr/page")
        bench.show(f"aliases / the caller's, {name}", alias[size].per_page / owner[size].per_page, "", at_most=ALIAS_PER_OWNER[size])
        bench.show(f"calls of p2p_page for {PAGES >> 8} MiB in one piece, {name}", alias[size].calls, "", at_most=1)
        bench.show(f"migration to system memory, {name}", migration[size].per_page, "instr/page")
        bench.show(f"migration / aliases, {name}", migration[size].per_page / alias[size].per_page, "", at_least=MIGRATION_PER_ALIAS)
        bench.show(f"largest spread of the walks, {name}", max(w[size].spread for w in (before, after, owner, alias)), "%")
