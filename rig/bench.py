# SPDX-License-Identifier: GPL-2.0
"""`rig bench`: measurements beside their targets.

A file bench/NAME_bench.py has a function run(bench), which boots guests, measures, and tells its argument what it found. The
first line of its description is the benchmark's title. With BASE = True it may also boot the kernel without the series. All that
is told is printed at once, and kept in build/bench.
"""
import inspect
import os
from pathlib import Path
from types import ModuleType
from typing import Any, Optional, Sequence, TextIO

from . import accel, bench_page, failure, git, images, kernel, paths, topology, ui, unittests
from .machine import Options
from .measured import Item, Line, Plot, Section, Spread, Value
from .runs import new_run_directory
from .ui import RigError, say, step
from .vm import Vm

BENCHES = paths.REPO / "bench"
REPORTS = paths.BUILD / "bench"
"""Where the report of the last run of all benchmarks is: report.html, and report.txt with the same numbers; report-NAME.* are of the
last run of one."""


class Bench:
    """One run of one benchmark. `kernel` is the variant that its guests boot, from images that are brought up to date with `build`."""

    def __init__(self, name: str, variant: str, directory: Path, stream: Optional[TextIO] = None, title: str = "",
                 build: bool = True) -> None:
        self.name = name
        self.kernel = variant
        self.missed = 0
        self.section = Section(name, title, variant)
        self._build = build
        self._directory = directory
        self._guests = 0
        self._stream = stream

    def guest(self, topology_name: str, base: bool = False, **options: Any) -> Vm:
        """A booted guest; use it as a context manager. `base`: with the kernel without the series. `options` are those of
        machine.Options."""
        self._guests += 1
        variant = base_of(self.kernel) if base else self.kernel
        guest = Vm(topology.get(topology_name), images.artefacts(variant, self._build), self._directory / f"guest{self._guests}",
                   Options(**options))
        try:
            with step(f"boot topology {topology_name}" + (", base kernel" if base else "")):
                guest.boot()
        except BaseException:
            guest.close()
            raise
        return guest

    def show(self, what: str, value: float | Spread, unit: str, *, at_least: Optional[float] = None,
             at_most: Optional[float] = None) -> None:
        """Tell a measured value; one with `at_least` or `at_most` has a target, in the same unit, and met it or missed it.
        Not a number (NaN) is what could not be measured, and misses."""
        spread = value if isinstance(value, Spread) else None
        found = Value(what, value.median if isinstance(value, Spread) else value, unit, at_least, at_most, spread)
        self.missed += found.met is False
        self._tell(found, [bench_page.value_line(found)])

    def plot(self, title: str, x: str, y: str, lines: Sequence[Line]) -> None:
        """Tell points of several lines over one x, which is a number of bytes."""
        found = Plot(title, x, y, lines)
        self._tell(found, bench_page.plot_lines(found))

    def remark(self, words: str) -> None:
        """Say something that belongs to the numbers."""
        self._tell(words, [words])

    def _tell(self, item: Item, lines: Sequence[str]) -> None:
        self.section.items.append(item)
        for line in lines:
            print(f"{self.name:<8} {line}".rstrip(), file=self._stream, flush=True)


def names() -> list[str]:
    """The benchmarks there are."""
    return sorted(path.stem.removesuffix("_bench") for path in BENCHES.glob("*_bench.py"))


def choose_kernel(wanted: str) -> str:
    """The release kernel where it is built or in the cache, so that nothing has to be compiled; else the debug kernel, unless the
    benchmark `wanted` compares with the kernel without the series: what checks in the debug kernel cost would hide the rest."""
    return "release" if kernel.at_hand("release") or _compares(wanted) else "debug"


def base_of(variant: str) -> str:
    """The kernel variant that is `variant` without the series."""
    return f"base-{variant}"


def load(wanted: str) -> dict[str, ModuleType]:
    """The benchmark `wanted`, or all, by name."""
    chosen = [name for name in names() if not wanted or name == wanted]
    if not chosen:
        raise RigError(f"there is no benchmark '{wanted}'", f"the benchmarks are: {', '.join(names())}")
    return {name: unittests.load(BENCHES / f"{name}_bench.py", f"hmm_p2p_bench.{name}") for name in chosen}


def kernels(wanted: str, variant: str) -> list[str]:
    """The kernel variants that the guests of the benchmark `wanted`, or of all, boot."""
    return [variant, *([base_of(variant)] if _compares(wanted) else [])]


def _compares(wanted: str) -> bool:
    """Whether the benchmark `wanted`, or one of all, boots the kernel without the series, too."""
    return any(getattr(module, "BASE", False) for module in load(wanted).values())


def run(wanted: str, variant: str, check: bool = False, build: bool = True) -> int:
    """Run the benchmark `wanted`, or all. Returns the exit status: 1 when one could not be finished, and when `check` is set and a
    target was missed. The report has whatever was measured. `build`: bring the guests' images up to date."""
    if not build:
        images.check_built(kernels(wanted, variant))
    directory = new_run_directory()
    missed = 0
    given_up = []
    sections: list[Section] = []
    try:
        for name, module in load(wanted).items():
            bench = Bench(name, variant, directory / name, title=(inspect.getdoc(module) or name).splitlines()[0], build=build)
            sections.append(bench.section)
            print(f"{name}: kernel {variant}", flush=True)
            try:
                module.run(bench)
            except BaseException as error:
                bench.remark("This benchmark was not finished: " + failure.explain(error)[0].splitlines()[0])
                if not isinstance(error, (RigError, *failure.GUEST)):
                    raise
                given_up.append(name)
                say("rig: " + "\n".join(failure.explain(error)))
            missed += bench.missed
    finally:
        for path in report(variant, sections, wanted, build):
            print(path, flush=True)
    say(f"  targets missed: {missed}; logs: {directory}")
    if given_up:
        say(f"  not finished: {', '.join(given_up)}")
    return 1 if given_up or (check and missed) else 0


def report(variant: str, sections: Sequence[Section], wanted: str = "", build: bool = True) -> list[Path]:
    """Write the report of this process's measurements; one of its own if only the benchmark `wanted` was run. Returns its files."""
    machine = describe_machine(variant, build)
    steps = [(spent.title, spent.seconds) for spent in ui.STEP_SECONDS if spent.seconds >= 1]
    REPORTS.mkdir(parents=True, exist_ok=True)
    stem = f"report-{wanted}" if wanted else "report"
    written = []
    for name, content in ((f"{stem}.html", bench_page.page(machine, sections, steps)),
                          (f"{stem}.txt", bench_page.text(machine, sections, steps))):
        written.append(REPORTS / name)
        written[-1].write_text(content, encoding="utf-8")
    return written


def describe_machine(variant: str, build: bool = True) -> dict[str, str]:
    """What the numbers depend on: processor, memory, accelerator, and what was run."""
    files = images.artefacts(variant, build)
    processor = _field("/proc/cpuinfo", "model name") or "unknown"
    memory = int((_field("/proc/meminfo", "MemTotal") or "0").split()[0]) >> 10
    changed = " and changes" if git.attempt(paths.REPO, "status", "--porcelain").stdout else ""
    return {"processor": f"{processor}, {len(os.sched_getaffinity(0))} cores for this", "memory": f"{memory} MiB",
            "host": f"Linux {os.uname().release}", "accelerator": accel.choose(files.qemu, files.kernel),
            "kernel": variant,
            "hmm-p2p": git.attempt(paths.REPO, "rev-parse", "--short=12", "HEAD").stdout.strip() + changed}


def _field(path: str, name: str) -> str:
    """The first field of that name in a file of lines NAME: VALUE."""
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
