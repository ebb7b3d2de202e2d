# SPDX-License-Identifier: GPL-2.0
"""Finds the tests, boots guests for them, runs them, as many at once as cores permit.

Cases that ask for the same guest share it, one after the other, until one of them breaks it: whoever comes next then gets
a new one. A case is judged by what it says, and by what the guest's kernel said in the meantime.
"""
import fnmatch
import io
import os
import queue
import re
import resource
import shutil
import sys
import threading
import time
import traceback
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Callable, Optional, Sequence, TextIO

from . import images, ktap, paths, topology, ui, unittests
from .agent import AgentError
from .machine import Artefacts, Options
from .qmp import QmpError
from .report import Report, SkipList
from .runs import new_run_directory
from .testlib import Case, Failed, Skipped, Test
from .ui import RigError, Spent
from .vm import CommandFailed, KernelSplat, Vm, VmFailure, timeout_factor

TESTS = paths.REPO / "tests"
_UNITTEST_SECONDS = 600
_SHOWN_LINES = 60
_GUEST_MEMORY = 3 << 30
"""What a guest takes of the host, in bytes; few tests fill all that a guest has."""


def discover(root: Path = TESTS, glob: str = "*_test.py") -> list[Case]:
    """The cases of all test files below `root`, in the order of their files and of their declaration.

    A case's name is its file without "_test.py", then the function, then the topology if it has several:
    "topology/mapping_type/computed@switch+iommu". The unittest classes of a file are one case with the file's name; the
    variables TIMEOUT (seconds) and FULL of the file apply to it.
    """
    found = []
    suffix = glob.lstrip("*").removesuffix(".py")
    for path in sorted(root.rglob(glob)):
        place = path.relative_to(root).with_suffix("").as_posix().removesuffix(suffix)
        try:
            module = unittests.load(path, "hmm_p2p_tests." + place.replace("/", "."))
        except Exception as err:
            raise RigError(f"{path} cannot be loaded: {err}", "".join(traceback.format_exc(limit=-3))) from err
        cases = [replace(c, name=f"{place}/{c.name}") for c in getattr(module, "__cases__", [])]
        if unittests.cases_in(module):
            seconds = getattr(module, "TIMEOUT", _UNITTEST_SECONDS)
            cases.append(Case(name=place, function=_unittest_case(path), topology="", kernel="", timeout=seconds,
                              options=Options(), fresh=False, full=getattr(module, "FULL", False), needs=()))
        if not cases:
            raise RigError(f"{path} declares no test", "use the decorator rig.testlib.case, or unittest.TestCase")
        found += cases
    for one in found:
        if one.topology:
            topology.get(one.topology)  # a wrong name is better said now
    return found


def select(cases: Sequence[Case], pattern: str = "", full: bool = False) -> list[Case]:
    """The cases whose name contains `pattern` (a glob when it has * or ?). Raises RigError when there are none.

    The long ones only with `full`, or when the pattern is the whole name.
    """
    def matches(name: str) -> bool:
        return fnmatch.fnmatchcase(name, pattern) if set("*?") & set(pattern) else pattern in name

    matching = [c for c in cases if matches(c.name)]
    chosen = [c for c in matching if full or not c.full or c.name == pattern]
    if matching and not chosen:
        shown = [*(c.name for c in matching[:3]), *(["..."] if len(matching) > 3 else [])]
        raise RigError(f"only long tests match '{pattern}': {', '.join(shown)}",
                       "long tests: add --full, or give the whole name of one")
    if not chosen:
        raise RigError(f"no test matches '{pattern}'", "rig/rig test --list --full shows the names of all")
    return chosen


def list_tests(pattern: str = "", full: bool = False) -> int:
    """Print the names of the selected tests."""
    for one in select(discover(), pattern, full):
        print(one.name + (f"  ({one.topology}, {one.kernel})" if one.topology else ""))
    return 0


def run_tests(pattern: str = "", jobs: int = 0, full: bool = False, build: bool = True) -> int:
    """`rig test`: run the selected tests. Returns the exit status: 0 only when something passed and nothing failed.

    `build`: bring the guests' images up to date.
    """
    cases = discover()
    chosen = select(cases, pattern, full)
    if not build:
        images.check_built(dict.fromkeys(one.kernel for one in chosen if one.topology))
    directory = new_run_directory()
    jobs = jobs or guests_at_once()
    # A timeout is for what hangs, not for a guest that gets half of a core; rigs that tests start inherit this.
    os.environ["RIG_TIMEOUT_FACTOR"] = str(timeout_factor() * max(1.0, jobs * Options.smp / _cores()))
    with open(directory / "results.ktap", "w", encoding="utf-8") as copy:
        suite = Suite(chosen, directory, partial(images.artefacts, build=build), jobs=jobs, stream=Tee(sys.stdout, copy),
                      skips=SkipList.load(TESTS / "skips.toml"), complete=len(chosen) == len(cases))
        return suite.run()


def guests_at_once() -> int:
    """One for each core, as what runs in a guest seldom keeps both of its CPUs busy; no more than there is memory for."""
    available = int(re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M)[1]) << 10  # type: ignore[index]
    return max(1, min(_cores(), available // _GUEST_MEMORY))


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _unittest_case(path: Path) -> Callable[[Test], None]:
    """A case that runs the unittest classes of a file, in a process of their own."""
    def run(test: Test) -> None:
        test.host_ktap([sys.executable, "-B", "-m", "rig.unittests", path], cwd=paths.REPO)
    return run


class Suite:
    """One test run. `artefacts(kernel)` says what guests are booted from; `skips` which skips are allowed, if
    there is no `report` of one's own."""

    def __init__(self, cases: Sequence[Case], directory: Path, artefacts: Callable[[str], Artefacts], *,
                 jobs: int = 1, stream: TextIO = sys.stdout, skips: Optional[SkipList] = None,
                 complete: bool = False, report: Optional[Report] = None) -> None:
        self.cases = list(cases)
        self.directory = directory
        self.artefacts = artefacts
        self.jobs = jobs
        self.report = report or Report(stream, len(self.cases), skips or SkipList())
        self.spent: list[Spent] = []
        self._complete = complete
        self._groups: queue.SimpleQueue[list[Case]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._active: set[Vm | Test] = set()
        self._running: dict[str, None] = {}
        self._lock = threading.Lock()
        self._done = 0
        self._guests = 0
        self._broken: Optional[BaseException] = None
        self._progress = ui.Step("tests")

    def run(self) -> int:
        """Run everything; returns the exit status. On Ctrl-C ends every guest, prints what there is, and raises."""
        cpu = _cpu_seconds()
        groups: dict[tuple, list[Case]] = {}
        for one in self.cases:
            key = one.boot_key if one.topology and not one.fresh else ("alone", one.name)
            groups.setdefault(key, []).append(one)
        # What may take long comes first, so that no core idles while the last group ends.
        for group in sorted(groups.values(), key=lambda group: -sum(one.timeout for one in group)):
            self._groups.put(group)
        workers = [threading.Thread(target=self._work, name=f"worker-{n}") for n in range(min(self.jobs, len(groups)))]
        interrupted = False
        try:
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        except KeyboardInterrupt:
            interrupted = True
            self.stop()
            for worker in workers:
                if worker.ident:
                    worker.join()
        self._clear_line()
        if self._broken:
            raise self._broken
        if interrupted:
            self.report.diagnostic(f"interrupted: {len(self.cases) - self._done} of {len(self.cases)} tests did not run")
        everything = Spent("tests in all", self._progress.seconds, _cpu_seconds() - cpu)
        status = self.report.finish([*ui.STEP_SECONDS, *self.spent, everything],
                                    self._complete and not interrupted)
        if interrupted:
            raise KeyboardInterrupt
        return status

    def stop(self) -> None:
        """Make `run()` end soon, from another thread: running cases are aborted, the rest is not started."""
        self._stopping.set()
        with self._lock:
            active = list(self._active)
        for one in active:
            one.abort()

    def _work(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    group = self._groups.get_nowait()
                except queue.Empty:
                    return
                self._run_group(group)
        except BaseException as err:  # a bug in the runner itself must not look like the end of the tests
            self._broken = self._broken or err
            self.stop()

    def _run_group(self, group: Sequence[Case]) -> None:
        guest: Optional[Vm] = None
        dead_on_arrival: Optional[RigError] = None
        begin = time.monotonic()
        boots = cpu = 0.0
        try:
            for one in group:
                if self._stopping.is_set():
                    return
                failure = dead_on_arrival
                if one.topology and guest is None and failure is None:
                    try:
                        guest = self._boot(one)
                        boots += guest.boot_seconds
                    except RigError as err:
                        # What does not boot now will not boot for the next case either.
                        failure = dead_on_arrival = err
                self._run_case(one, guest, failure, last=one is group[-1])
                if guest and guest.closed:
                    cpu += guest.cpu_seconds
                    guest = None
        finally:
            if guest:
                self._retire(guest)
                cpu += guest.cpu_seconds
            with self._lock:
                first = group[0]
                if first.topology:
                    what = f"{first.topology}, {first.kernel}: {len(group)} cases"
                    self.spent += [Spent(f"boot {what}", boots), Spent(f"run  {what}", time.monotonic() - begin - boots, cpu)]
                else:
                    self.spent.append(Spent(first.name, time.monotonic() - begin))

    def _boot(self, one: Case) -> Vm:
        with self._lock:
            self._guests += 1
            number = self._guests
        directory = self.directory / f"guest-{number:02d}-{one.topology}-{one.kernel}"
        guest = Vm(topology.get(one.topology), self.artefacts(one.kernel), directory, one.options)
        with self._lock:
            self._active.add(guest)
        self._show(f"boot {one.topology}", True)
        try:
            if self._stopping.is_set():
                guest.abort()
            guest.boot()
        except BaseException:
            self._retire(guest)
            raise
        finally:
            self._show(f"boot {one.topology}", False)
        return guest

    def _retire(self, guest: Vm) -> Optional[VmFailure]:
        """End a guest; returns what it came to that nobody was told of yet."""
        failure = guest.end()
        with self._lock:
            self._active.discard(guest)
        return failure

    def _run_case(self, one: Case, guest: Optional[Vm], failure: Optional[RigError], last: bool) -> None:
        directory = self.directory / one.name.replace("/", "-")
        directory.mkdir(parents=True, exist_ok=True)
        begin = time.monotonic()
        test = Test(one, directory, guest, self.artefacts)
        with self._lock:
            self._active.add(test)
        self._show(one.name, True)
        try:
            result = self._judge(one, test, guest, failure, last)
        finally:
            test.close()
            with self._lock:
                self._active.discard(test)
                self._done += not self._stopping.is_set()
            self._show(one.name, False)
        if self._stopping.is_set():
            return
        self._clear_line()
        self.report.result(result, time.monotonic() - begin)
        try:
            directory.rmdir()  # kept only when something is in it
        except OSError:
            pass

    def _judge(self, one: Case, test: Test, guest: Optional[Vm], failure: Optional[RigError], last: bool) -> ktap.Result:
        """Run the case; every way it can end becomes a result. After the `last` case, or when it is of no more use, the guest is
        ended, and how it ends counts."""
        status, reason, lines = ktap.PASS, "", []
        try:
            if failure:
                raise failure
            if missing := [tool for tool in one.needs if not shutil.which(tool)]:
                raise Skipped(f"needs {', '.join(missing)} on the host")
            if guest:
                guest.deadline = test.deadline
                guest.mark(f"start of {one.name}")
            one.function(test)
            if guest:
                guest.deadline = None
                guest.mark(f"end of {one.name}")
        except Skipped as skipped:
            status, reason = ktap.SKIP, str(skipped)
        except CommandFailed as failed:
            status, reason = ktap.FAIL, str(failed)
            lines = (failed.completed.stdout + failed.completed.stderr).splitlines()[-_SHOWN_LINES:]
        except VmFailure as failed:
            status, reason = ktap.FAIL, f"{failed.kind}: {failed.what}"
            lines = [*failed.evidence[:_SHOWN_LINES], failed.hint]
        except (Failed, AgentError, QmpError, RigError) as failed:
            status, reason = ktap.FAIL, str(failed)
        except Exception as err:
            status, reason = ktap.FAIL, f"{type(err).__name__}: {err}"
            lines = traceback.format_exc().splitlines()
        finally:
            if guest:
                guest.deadline = None
        if guest and status == ktap.FAIL and not guest.failure:
            # The case gave up; what the kernel has to say may be the cause.
            try:
                guest.mark(f"failure of {one.name}")
            except VmFailure as failed:
                reason += f"; then {failed.kind}: {failed.what}"
        if guest and (last or guest.failure or guest.new_splats()) and (end := self._retire(guest)):
            reason = f"{end.kind}: {end.what}" + (f" (and: {reason})" if status == ktap.FAIL else "")
            lines, status = [*end.evidence[:_SHOWN_LINES], end.hint, *lines], ktap.FAIL
        if guest and (splats := guest.new_splats()) and not isinstance(guest.failure, (KernelSplat,)):
            if not reason.startswith("panic"):
                splat = KernelSplat("; ".join(map(str, splats)), guest.console.path, splats)
                reason = f"{splat.kind}: {splat.what}" + (f" (and: {reason})" if status == ktap.FAIL else "")
                lines = [*splat.evidence[:_SHOWN_LINES], splat.hint, *lines]
            status = ktap.FAIL
        test.close()
        results, lines = test.results, [*test.notes[-_SHOWN_LINES:], *lines]
        broken = sum(r.status == ktap.FAIL for r in results)
        if status == ktap.PASS and broken:
            status, reason = ktap.FAIL, f"{broken} of {len(results)} subtests failed"
        elif status == ktap.FAIL and results:
            # subtests carry the count; the failure of the case itself is one more
            results = [*results, ktap.Result("case", ktap.FAIL, reason, lines)]
        elif status == ktap.PASS and results and all(r.status == ktap.SKIP for r in results):
            status, reason = ktap.SKIP, "every subtest was skipped"
        return ktap.Result(one.name, status, reason, lines, results)

    def _show(self, what: str, begins: bool) -> None:
        """The live line of a terminal: how many are done, and what runs."""
        with self._lock:
            if begins:
                self._running[what] = None
            else:
                self._running.pop(what, None)
            self._progress.update(f"{self._done}/{len(self.cases)} {', '.join(self._running)}")

    def _clear_line(self) -> None:
        if self._progress.live:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


def _cpu_seconds() -> float:
    """CPU time of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


class Tee(io.StringIO):
    """Writes to several streams."""

    def __init__(self, *streams: TextIO) -> None:
        super().__init__()
        self._streams = streams

    def write(self, text: str) -> int:
        for stream in self._streams:
            stream.write(text)
        return len(text)

    def flush(self) -> None:
        for stream in self._streams:
            stream.flush()
