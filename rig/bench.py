# SPDX-License-Identifier: GPL-2.0
"""`rig bench`: measurements beside their targets.

A file bench/NAME_bench.py has a function run(bench), which boots guests, measures, and tells its argument what it found.
"""
import sys
from pathlib import Path
from typing import Any, Optional, TextIO

from . import images, kernel, paths, topology, unittests
from .runs import new_run_directory
from .ui import RigError, say, step
from .vm import Options, Vm

BENCHES = paths.REPO / "bench"


class Bench:
    """One run of one benchmark. `kernel` is the variant that its guests boot."""

    def __init__(self, name: str, variant: str, directory: Path, stream: TextIO = sys.stdout) -> None:
        self.name = name
        self.kernel = variant
        self.missed = 0
        self._directory = directory
        self._guests = 0
        self._stream = stream

    def guest(self, topology_name: str, **options: Any) -> Vm:
        """A booted guest; use it as a context manager. `options` are those of vm.Options."""
        self._guests += 1
        guest = Vm(topology.get(topology_name), images.artefacts(self.kernel), self._directory / f"guest{self._guests}",
                   Options(**options))
        try:
            with step(f"boot topology {topology_name}"):
                guest.boot()
        except BaseException:
            guest.close()
            raise
        return guest

    def show(self, what: str, value: float, unit: str, *, at_least: Optional[float] = None,
             at_most: Optional[float] = None) -> None:
        """Print a measured value; one with `at_least` or `at_most` has a target, in the same unit, and met it or missed it."""
        verdict = ""
        if at_least is not None or at_most is not None:
            met = value >= at_least if at_least is not None else value <= (at_most or 0)
            limit = f">= {at_least:.4g}" if at_least is not None else f"<= {at_most:.4g}"
            verdict = f"{limit:>12}  {'met' if met else 'MISSED'}"
            self.missed += not met
        print(f"{self.name:<8} {what:<50} {value:>10.4g} {unit:<12} {verdict}".rstrip(), file=self._stream, flush=True)


def names() -> list[str]:
    """The benchmarks there are."""
    return sorted(path.stem.removesuffix("_bench") for path in BENCHES.glob("*_bench.py"))


def choose_kernel() -> str:
    """The release kernel where it is built or in the cache, so that nothing has to be compiled; else the debug kernel."""
    return "release" if kernel.at_hand("release") else "debug"


def run(wanted: str, variant: str, check: bool = False) -> int:
    """Run the benchmark `wanted`, or all. Returns the exit status: 1 when `check` is set and a target was missed."""
    chosen = [name for name in names() if not wanted or name == wanted]
    if not chosen:
        raise RigError(f"there is no benchmark '{wanted}'", f"the benchmarks are: {', '.join(names())}")
    directory = new_run_directory()
    missed = 0
    for name in chosen:
        module = unittests.load(BENCHES / f"{name}_bench.py", f"hmm_p2p_bench.{name}")
        bench = Bench(name, variant, directory / name)
        print(f"{name}: kernel {variant}", flush=True)
        module.run(bench)
        missed += bench.missed
    say(f"  targets missed: {missed}; logs: {directory}")
    return 1 if check and missed else 0
