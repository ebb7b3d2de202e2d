# SPDX-License-Identifier: GPL-2.0
"""What test files import: the `case` decorator, and `Test`, which every case gets as its argument.

docs/testing.md shows how a test file looks.
"""
import inspect
import os
import subprocess
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Iterable, Mapping, NoReturn, Optional, Sequence

from . import ktap, proc, topology
from .machine import Artefacts, Options
from .ui import RigError
from .vm import Completed, KernelSplat, Vm, timeout_factor

DEFAULT_KERNEL = "debug"
_LONGEST_POLL = 2e6
"""Seconds; poll() takes milliseconds, in an int."""


class Failed(Exception):
    """The case does not hold; the message says what was seen and what was expected."""


class Skipped(Exception):
    """The case cannot run here; the message says why. Only skips in tests/skips.toml are accepted."""


@dataclass(frozen=True)
class Case:
    """A test as declared. `topology` is "" for one that needs no guest.

    `only` are the cases of the selftest that it runs which are of interest, where it can run some; () are all of them.
    """
    name: str
    function: Callable[["Test"], None]
    topology: str
    kernel: str
    timeout: float
    options: Options
    fresh: bool
    full: bool
    needs: tuple[str, ...]
    only: tuple[str, ...] = ()

    @property
    def boot_key(self) -> tuple:
        """Cases with equal keys may share a guest."""
        return (self.topology, self.kernel, self.options)


def case(*, topology: str | Iterable[str] = "", kernel: str = DEFAULT_KERNEL, timeout: float = 120,
         memory: str = Options.memory, smp: int = Options.smp, cmdline: str = "", devices: Sequence[str] = (),
         share: Optional[Path] = None, trace: Sequence[str] = (), fresh: bool = False, full: bool | Sequence[str] = False,
         needs: Sequence[str] = ()) -> Callable[[Callable], Callable]:
    """Declare a function a test case.

    topology: the guest it runs in; several names make a case for each; none: no guest (t.vm is not there)
    kernel: the kernel variant of that guest
    timeout: seconds for the whole case, without the boot
    memory, smp, cmdline, devices, share, trace: see machine.Options
    fresh: boot a guest for this case alone
    full: too long for `make test`, runs in `make test-full`; or those of the topologies where it does not run in `make test`
    needs: programs of the host without which the case is skipped
    """
    topologies = (topology,) if isinstance(topology, str) else tuple(topology)
    full_in = (topologies if full else ()) if isinstance(full, bool) else tuple(full)
    if unknown := set(full_in) - set(topologies):
        raise RigError(f"full: {', '.join(sorted(unknown))} is none of the case's topologies")

    def declare(function: Callable) -> Callable:
        module = inspect.getmodule(function)
        found = module.__dict__.setdefault("__cases__", [])
        for chosen in topologies:
            found.append(Case(
                name=function.__name__ + (f"@{chosen}" if chosen and len(topologies) > 1 else ""), function=function,
                topology=chosen, kernel=kernel, timeout=timeout,
                options=Options(memory=memory, smp=smp, cmdline=cmdline, devices=tuple(devices), share=share,
                                trace=tuple(trace)),
                fresh=fresh, full=chosen in full_in, needs=tuple(needs)))
        return function

    return declare


class Test:
    """One run of one case: the guest, the checks, and what is to be reported."""

    def __init__(self, declared: Case, directory: Path, vm: Optional[Vm],
                 artefacts: Callable[[str], Artefacts]) -> None:
        self.case = declared
        self.directory = directory
        """A directory of this run for files that a case wants to keep."""
        self.results: list[ktap.Result] = []
        self.notes: list[str] = []
        self.deadline = time.monotonic() + declared.timeout * timeout_factor()
        self._vm = vm
        self._guest_errors = len(vm.guest_errors()) if vm else 0
        self.artefacts = artefacts
        """What a guest with a given kernel variant is booted from."""
        self._lock = threading.Lock()
        self._children: set[subprocess.Popen] = set()
        self._guests: set[Vm] = set()
        self._hooks: list[Callable[[], None]] = []
        self._aborted = False

    @property
    def vm(self) -> Vm:
        """The guest that the case asked for."""
        if self._vm is None:
            raise Failed("this case declares no topology and so has no guest")
        return self._vm

    @property
    def topology(self) -> topology.Topology:
        """The topology that the case runs in."""
        return self.vm.topology

    @property
    def remaining(self) -> float:
        """Seconds until the case's time is up."""
        return self.deadline - time.monotonic()

    # Verdicts ---------------------------------------------------------------------------------------------------

    def check(self, condition: object, what: str) -> None:
        """Fail the case unless `condition` holds; `what` is what should hold."""
        if not condition:
            raise Failed(what)

    def equal(self, seen: Any, expected: Any, what: str) -> None:
        """Fail the case unless `seen == expected`."""
        if seen != expected:
            raise Failed(f"{what}: expected {expected!r}, saw {seen!r}")

    def no_guest_errors(self) -> None:
        """Fail the case if a device model has called something that the guest did since the case began an error of the guest.

        What was there before is not the case's: a process whose device goes, for instance, rings doorbells of queue pairs that are gone.
        """
        errors = self.vm.guest_errors()[self._guest_errors:]
        if errors:
            self.fail(f"{len(errors)} times the guest did what a model calls an error, first '{errors[0]}'")

    def fail(self, why: str) -> NoReturn:
        raise Failed(why)

    def skip(self, why: str) -> NoReturn:
        """Give the case up as impossible here."""
        raise Skipped(why)

    def note(self, text: str) -> None:
        """Something to show if the case fails."""
        self.notes += text.splitlines() or [""]

    def result(self, name: str, passed: bool, why: str = "", diagnostics: Sequence[str] = ()) -> None:
        """Report a subtest; it counts by itself, and the case fails when any of its subtests does."""
        self.results.append(ktap.Result(name, ktap.PASS if passed else ktap.FAIL, why, list(diagnostics)))

    # Programs ---------------------------------------------------------------------------------------------------

    def guest_ktap(self, command: str | Sequence[str], *, timeout: Optional[float] = None,
                   env: Optional[Mapping[str, str]] = None, statuses: Sequence[int] = (0, 1)) -> ktap.Parser:
        """Run a program of the guest that speaks KTAP; its results become subtests of this case.

        An exit status that is not one of `statuses`, a signal, or a status other than 0 while every test passed, is a
        failure of its own.
        """
        parser = ktap.Parser()
        lines = _Lines(parser.feed)
        raw = self.directory / "output.ktap"
        with open(raw, "ab") as copy:
            def on_output(data: bytes, is_stderr: bool) -> None:
                copy.write(data)
                if not is_stderr:
                    lines.feed(data)

            done = None
            try:
                done = self.vm.run(command, timeout=timeout or self.remaining, check=False, env=env, on_output=on_output)
            finally:
                # What was reported before the guest died counts, and shows where it died.
                self._take(parser, lines, done, statuses)
        return parser

    def host_ktap(self, argv: Sequence[str | Path], *, env: Optional[Mapping[str, str]] = None,
                  cwd: Optional[Path] = None, statuses: Sequence[int] = (0, 1)) -> ktap.Parser:
        """The same for a program of the host, a qtest for instance."""
        parser = ktap.Parser()
        lines = _Lines(parser.feed)
        done = self.host(argv, env=env, cwd=cwd, check=False)
        lines.feed(done.stdout.encode())
        if done.status != 0:
            self.note(done.stderr)
        self._take(parser, lines, done, statuses)
        return parser

    def host(self, argv: Sequence[str | Path], *, env: Optional[Mapping[str, str]] = None, cwd: Optional[Path] = None,
             check: bool = True, stdin: str = "") -> Completed:
        """Run a program of the host, for as long as the case may take. With `check` a status other than 0 fails the case."""
        begin = time.monotonic()
        title = " ".join(map(str, argv))
        with self._lock:
            if self._aborted:
                raise KeyboardInterrupt
            try:
                child = proc.spawn(argv, env={**os.environ, **(env or {})}, cwd=cwd, stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace")
            except OSError as error:
                raise Failed(f"cannot run '{argv[0]}': {error.strerror}") from error
            self._children.add(child)
        try:
            out, err = child.communicate(stdin, timeout=min(max(self.remaining, 1), _LONGEST_POLL))
        except subprocess.TimeoutExpired:
            proc.reap(child, grace=1)
            out, err = child.communicate()
            self.note(out + err)
            raise Failed(f"hang: '{title}' did not end within {time.monotonic() - begin:.0f} s") from None
        finally:
            proc.reap(child, grace=1)
            self._children.discard(child)
        if check and child.returncode != 0:
            self.note(out + err)
            raise Failed(f"'{title}' exited with status {child.returncode}")
        return Completed(title, child.returncode, out, err, time.monotonic() - begin)

    def new_vm(self, topology_name: str, *, kernel: str = DEFAULT_KERNEL, name: str = "own", **options: Any) -> Vm:
        """A guest of the case's own, not booted yet: use it as a context manager. `options` are those of machine.Options."""
        guest = Vm(topology.get(topology_name), self.artefacts(kernel), self.directory / name,
                   replace(Options(), **options))
        with self._lock:
            self._guests.add(guest)
            if self._aborted:
                guest.abort()
        return guest

    def on_abort(self, hook: Callable[[], None]) -> None:
        """Have `hook` called, in another thread, when the run is interrupted."""
        with self._lock:
            self._hooks.append(hook)
            aborted = self._aborted
        if aborted:
            hook()

    def abort(self) -> None:
        """End whatever the case is waiting for; called from another thread on Ctrl-C."""
        with self._lock:
            self._aborted = True
            children, guests, hooks = list(self._children), list(self._guests), list(self._hooks)
        for hook in hooks:
            hook()
        for guest in guests:
            guest.abort()
        for child in children:
            proc.reap(child, grace=0.5)

    def close(self) -> None:
        """End what the case left running on the host. What its own guests complain of, and the case did not, is a failure."""
        while self._guests:
            with self._lock:
                guest = self._guests.pop()
            failure = guest.end()
            name = f"guest {guest.directory.name}"
            if failure:
                self.result(name, False, f"{failure.kind}: {failure.what}", failure.evidence)
            for splat in guest.new_splats():
                self.result(name, False, f"{KernelSplat.kind}: {splat}", splat.lines)

    def _take(self, parser: ktap.Parser, lines: "_Lines", done: Optional[Completed], statuses: Sequence[int]) -> None:
        lines.finish()
        parser.finish()
        self.results += parser.results
        problems = list(parser.problems)
        if done is not None:
            failed = any(r.status == ktap.FAIL for r in parser.results)
            if done.status not in statuses or (done.status != 0 and not failed):
                problems.append(f"exit status {done.status}" if done.status >= 0 else f"killed by signal {-done.status}")
            if done.stderr:
                self.note(done.stderr)
        for problem in problems:
            self.results.append(ktap.Result("output", ktap.FAIL, problem))


class _Lines:
    """Cuts a byte stream into lines."""

    def __init__(self, sink: Callable[[str], None]) -> None:
        self._sink = sink
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._sink(line.decode(errors="replace"))

    def finish(self) -> None:
        if self._rest:
            self._sink(self._rest.decode(errors="replace"))
            self._rest = b""
