# SPDX-License-Identifier: GPL-2.0
"""A running guest: QEMU, its monitor, the guest's console and the agent in it, and a verdict when any of them fails.

Every way in which a guest can disappoint is an exception of its own (the subclasses of VmFailure), with its own words,
the path of the console log and what was last on the console. A failed guest stays failed: every later call raises the
same exception, and whoever wants to go on boots another.

Nothing here uses the file system for sockets: QEMU inherits one end of a socket pair for its monitor, the console and
the agent, so that no path can be too long, left over, or opened by somebody else.
"""
import collections
import fcntl
import os
import re
import select
import signal
import socket
import subprocess
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Mapping, NoReturn, Optional, Sequence

from . import environment, machine, proc, room
from .agent import PORT_NAME, Agent, Operation
from .console import FATAL_KINDS, Console, Splat
from .machine import Artefacts, Options
from .qmp import Qmp, QmpError, Request
from .topology import Topology
from .ui import RigError

def timeout_factor() -> float:
    """$RIG_TIMEOUT_FACTOR, which multiplies every timeout of a guest: for machines much slower than two cores of 2020 or so."""
    return environment.number("RIG_TIMEOUT_FACTOR", 1.0, least=0.01)


# A boot is given up when the console has been silent for so long (a machine busy with other work boots slowly, but it
# talks), or after so long in all.
BOOT_SILENT_SECONDS = 240
BOOT_SECONDS = 1200
COMMAND_SECONDS = 60
QMP_SECONDS = 60
MARK_SECONDS = 60
# A command that goes on after the kernel complained is given so long to end: the complaint is what matters.
AFTER_SPLAT_SECONDS = 20
# Between a first sign of an end (the agent's port closed, a panic on the console) and QEMU's exit, which says which it was.
SETTLE_SECONDS = 5

# What QEMU dies by when it crashes, and nobody sends it to end it.
_CRASHES = frozenset({signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV})

_TRACED = re.compile(r"\d+@(\d+\.\d+):(\w+) (.*)")


def parse_trace(line: str) -> Optional[tuple[float, str, str]]:
    """Seconds of the host's clock, name and words of a trace event in QEMU's log; None for another line."""
    found = _TRACED.match(line)
    return (float(found[1]), found[2], found[3]) if found else None



class VmFailure(RigError):
    """A guest is of no more use. `kind` is one word or two that tell the ways apart; `evidence` are lines to show."""
    kind = "failure"

    def __init__(self, what: str, console: Optional[Path] = None, evidence: Sequence[str] = ()) -> None:
        super().__init__(what, f"the console is in {console}" if console else "")
        self.console = console
        self.evidence = list(evidence)


class BootTimeout(VmFailure):
    """The agent did not come up."""
    kind = "boot timeout"


class CommandHung(VmFailure):
    """A command made no end within its time; stacks and registers were collected, and the guest was killed."""
    kind = "hang"


class AgentLost(VmFailure):
    """The agent closed its port while the guest went on."""
    kind = "lost connection"


class KernelSplat(VmFailure):
    """The kernel reported a fault of its own and went on."""
    kind = "splat"

    def __init__(self, what: str, console: Optional[Path], splats: Sequence[Splat]) -> None:
        super().__init__(what, console, [line for s in splats for line in s.lines])
        self.splats = list(splats)


class GuestPanic(VmFailure):
    """The kernel panicked."""
    kind = "panic"


class GuestReset(VmFailure):
    """The guest reset itself without a panic (triple fault, reboot)."""
    kind = "reset"


class GuestOff(VmFailure):
    """The guest powered off without being asked to."""
    kind = "power off"


class QemuExit(VmFailure):
    """QEMU ended by itself, or was killed."""
    kind = "QEMU exit"


class Interrupted(VmFailure):
    """Somebody called abort()."""
    kind = "interrupted"


class ShutDown(VmFailure):
    """Somebody called close() or shutdown(), and all was well."""
    kind = "shut down"


@dataclass
class Completed:
    """A command that ran to its end. `status` is its exit status, or minus the number of the signal that killed it."""
    command: str
    status: int
    stdout: str
    stderr: str
    seconds: float


class Vm:
    """One guest. A context manager: leaving it ends QEMU, whatever happened, and raises what end() returns.

    Any thread may call the methods; one thread inside waits for what QEMU sends.
    """

    def __init__(self, topology: Topology, artefacts: Artefacts, directory: Path, options: Options = Options()) -> None:
        self.topology = topology
        self.options = options
        self.directory = directory
        self.boot_seconds = 0.0
        self.cpu_seconds = 0.0
        """What QEMU used of the host's CPUs in its life; known when it has ended."""
        self.failure: Optional[VmFailure] = None
        self.deadline: Optional[float] = None
        """When (time.monotonic) what runs in the guest must have ended; None: each command has its own timeout only."""
        self._artefacts = artefacts
        self._told = False  # whether somebody was told of the failure
        self._changed = threading.Condition()
        self._ending = False
        self._agent_open = False
        self._asleep = False
        self._suspect: Optional[tuple[float, VmFailure]] = None
        self._shutdown_reason = ""
        self._events: collections.deque[tuple[str, dict]] = collections.deque(maxlen=1000)
        self._child: Optional[subprocess.Popen] = None
        self._thread: Optional[threading.Thread] = None
        self._exited = False
        self._wake, self._woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)[::-1]
        self._qmp_channel = _Channel(self._nudge)
        self._agent_channel = _Channel(self._nudge)
        self._console_channel = _Channel(self._nudge, self._console_received)
        self._channels = (self._qmp_channel, self._agent_channel, self._console_channel)
        self._qmp = Qmp(self._qmp_channel.send, self._event)
        self._agent = Agent(self._agent_channel.send)
        self._qmp_channel.sink, self._agent_channel.sink = self._qmp.received, self._agent.received
        self._on_console: Optional[Callable[[bytes], None]] = None
        self._marks = 0
        self._splats_taken = 0
        directory.mkdir(parents=True, exist_ok=True)
        self.console = Console(directory / "console.log")

    # Life -------------------------------------------------------------------------------------------------------

    def __enter__(self) -> "Vm":
        return self

    def __exit__(self, kind: object, *exc: object) -> None:
        failure = self.end()
        if failure and kind is None:
            raise failure

    def boot(self, timeout: float = BOOT_SECONDS) -> "Vm":
        """Start QEMU and wait until the agent answers. Raises BootTimeout or what else went wrong."""
        start = time.monotonic()
        self._launch()
        seen = -1
        while seen != len(self.console.lines) and (left := start + timeout * timeout_factor() - time.monotonic()) > 0:
            seen = len(self.console.lines)
            if self._wait(lambda: self._agent.hello is not None, min(left, BOOT_SILENT_SECONDS * timeout_factor())):
                self.boot_seconds = time.monotonic() - start
                return self
        self._hung(BootTimeout(f"topology {self.topology.name}: the guest's agent did not answer; gave up after "
                               f"{time.monotonic() - start:.0f} s", self.console.path))

    def shutdown(self, timeout: float = 60) -> None:
        """Power the guest off in an orderly way, then close(). Raises what came up on the way, a splat for instance."""
        try:
            with self._changed:
                self._check()
                self._ending = True
                self._agent.power_off()
            if not self._wait(lambda: self._exited, timeout * timeout_factor()):
                self._hung(CommandHung("the guest does not power off", self.console.path))
            self.check()
        finally:
            self.close()

    def close(self) -> None:
        """End QEMU now and free everything. May be called more than once."""
        with self._changed:
            self._ending = True
            child, self._child = self._child, None
        if child:
            self._account(child)
            proc.reap(child, grace=2)
        if self._thread:
            self._thread.join()
        with self._changed:
            for channel in self._channels:
                channel.close()
            if self._wake >= 0:
                os.close(self._wake)
                os.close(self._woken)
                self._wake = self._woken = -1
            self.console.close()
            self.failure = self.failure or ShutDown("this guest was shut down", self.console.path)
            self._changed.notify_all()

    def end(self) -> Optional[VmFailure]:
        """close(), and return what befell the guest that no call has raised: that QEMU crashed when it ended, for instance."""
        self.close()
        with self._changed:
            told, self._told = self._told, True
            return None if told or isinstance(self.failure, ShutDown) else self.failure

    def abort(self) -> None:
        """Make every call that waits for this guest raise Interrupted. Safe in any thread and at any time."""
        with self._changed:
            self.failure = self.failure or Interrupted("interrupted", self.console.path)
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._wake < 0

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        assert self._child is not None
        return self._child.pid

    # Commands ---------------------------------------------------------------------------------------------------

    def run(self, command: str | Sequence[str], *, timeout: float = COMMAND_SECONDS, check: bool = True, cwd: str = "",
            env: Optional[Mapping[str, str]] = None, stdin: bytes | str = b"",
            on_output: Optional[Callable[[bytes, bool], None]] = None) -> Completed:
        """Run a command in the guest to its end: a string by `sh -c`, a sequence as it is.

        `on_output(bytes, is_stderr)` sees its output as it comes. With `check` an exit status other than 0 raises
        CommandFailed. Raises CommandHung after `timeout` seconds, and every other VmFailure.
        """
        begin = time.monotonic()
        data = stdin.encode() if isinstance(stdin, str) else stdin
        operation = self.start(command, cwd=cwd, env=env, stdin=bool(data), on_output=on_output)
        if data:
            with self._changed:
                self._agent.stdin(operation, data)
                self._agent.stdin(operation, b"")
        self.wait(operation, timeout)
        done = Completed(command if isinstance(command, str) else " ".join(command), operation.status or 0,
                         operation.stdout.decode(errors="replace"), operation.stderr.decode(errors="replace"),
                         time.monotonic() - begin)
        if check and done.status != 0:
            raise CommandFailed(done)
        return done

    def start(self, command: str | Sequence[str], *, cwd: str = "", env: Optional[Mapping[str, str]] = None,
              stdin: bool = False, on_output: Optional[Callable[[bytes, bool], None]] = None) -> Operation:
        """Start a command and return at once; `wait()` for it, `kill()` it, or leave it to the end of the guest."""
        argv = ["sh", "-c", command] if isinstance(command, str) else list(command)
        with self._changed:
            self._check()
            return self._agent.execute(argv, cwd=cwd, env=env, stdin=stdin, on_output=on_output)

    def wait(self, operation: Operation, timeout: float = COMMAND_SECONDS) -> Operation:
        """Wait for the end of something started. Raises CommandHung, AgentError, or what befell the guest.

        It has `timeout` seconds, and no longer than until `deadline`.
        """
        self.wait_until(lambda: operation.done, f"'{operation.title}' did not end", timeout)
        return operation.result()

    def wait_until(self, condition: Callable[[], bool], complaint: str, timeout: float = COMMAND_SECONDS) -> None:
        """Wait until `condition` becomes true by what the guest sends; `complaint` says what it means if it does not.

        Raises CommandHung after `timeout` seconds or at `deadline`, a KernelSplat if one came first, or what befell the guest.
        """
        begin = time.monotonic()
        limit = begin + timeout * timeout_factor()
        if self.deadline is not None:
            limit = max(min(limit, self.deadline), begin + 1)
        splats = len(self.console.splats)
        if not self._wait(lambda: condition() or len(self.console.splats) > splats, limit - time.monotonic()):
            self._hung(CommandHung(f"{complaint} within {limit - begin:.0f} s", self.console.path))
        if not condition():
            rest = min(limit - time.monotonic(), AFTER_SPLAT_SECONDS * timeout_factor())
            if not self._wait(condition, rest):
                self._hung(self._splat_failure(self.console.splats[splats:]))

    def send(self, operation: Operation, data: bytes) -> None:
        """Pass `data` to the stdin of a command started with `stdin`; empty data closes it."""
        with self._changed:
            self._check()
            self._agent.stdin(operation, data)

    def kill(self, operation: Operation, signo: int = signal.SIGTERM) -> None:
        """Signal a started command's process group."""
        with self._changed:
            self._check()
            self._agent.kill(operation, signo)

    def read(self, path: str, timeout: float = 60) -> bytes:
        """The content of a file of the guest. Raises AgentError (an errno) when it cannot be read."""
        with self._changed:
            self._check()
            operation = self._agent.get(path)
        return bytes(self.wait(operation, timeout).stdout)

    def write(self, path: str, data: bytes | str, mode: int = 0o644, timeout: float = 60) -> None:
        """Write a file of the guest (sysfs too). Raises AgentError (an errno) when it cannot be written."""
        with self._changed:
            self._check()
            operation = self._agent.put(path, data.encode() if isinstance(data, str) else data, mode)
        self.wait(operation, timeout)

    def mark(self, text: str) -> None:
        """Write `text` to the guest's kernel log and wait until it is on the console.

        Whatever the kernel had to say before that has then been seen: call this before judging the console.
        """
        self._marks += 1
        token = f"rig mark {self._marks}: {text}"
        with self._changed:
            self._check()
            seen = len(self.console.lines)
            operation = self._agent.mark(token)
        self.wait(operation, MARK_SECONDS)

        def on_console() -> bool:
            nonlocal seen
            lines = self.console.lines
            while seen < len(lines):
                seen += 1
                if token in lines[seen - 1]:
                    return True
            return False

        if not self._wait(on_console, MARK_SECONDS * timeout_factor()):
            self._hung(CommandHung("a message to the kernel log did not appear on the console", self.console.path))

    def suspend(self, level: str = "none", timeout: float = 120) -> None:
        """Suspend the guest to RAM, and resume it.

        `level` is a word of the kernel's /sys/power/pm_test ("devices", "core" ...), with which it resumes by itself from
        there, or "none": then it sleeps (ACPI S3, which resets QEMU's devices) and is woken. Needs a kernel with PM_DEBUG for
        all but "none". Raises CommandFailed if the guest refuses.
        """
        if level != "none":
            self.write("/sys/power/pm_test", level)
            self.write("/sys/module/suspend/parameters/pm_test_delay", "1")
        slept = len(self.events("SUSPEND"))
        with self._changed:
            self._asleep = True
        try:
            operation = self.start("echo mem >/sys/power/state")
            if level == "none":
                self.wait_until(lambda: operation.done or len(self.events("SUSPEND")) > slept, "the guest does not sleep",
                                timeout)
                if not operation.done:
                    self.qmp("system_wakeup")
            self.wait(operation, timeout)
        finally:
            with self._changed:
                self._asleep = False
        if operation.status:
            raise CommandFailed(Completed(operation.title, operation.status, "", operation.stderr.decode(errors="replace"), 0))

    # Health -----------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise what has befallen the guest, a splat included; return when it is well as far as is known."""
        with self._changed:
            self._check()
            if splats := self.new_splats():
                raise self._splat_failure(splats)

    def new_splats(self) -> list[Splat]:
        """The splats that nobody has taken yet."""
        return self.console.splats[self._splats_taken:]

    def take_splats(self) -> list[Splat]:
        """The splats so far, which then no longer count: for tests that provoke one on purpose."""
        taken = self.new_splats()
        self._splats_taken += len(taken)
        return taken

    # The host's side ---------------------------------------------------------------------------------------------

    def qmp(self, command: str, timeout: float = QMP_SECONDS, **arguments: Any) -> Any:
        """Run a QMP command ("_" in the names of arguments stands for "-"). Raises QmpError when QEMU refuses."""
        request = self._qmp_start(command, {k.replace("_", "-"): v for k, v in arguments.items()})
        limit = timeout * timeout_factor()
        if not self._wait(lambda: request.done, limit):
            raise VmFailure(f"QEMU's monitor did not answer '{command}' within {limit:.0f} s", self.console.path)
        return request.result()

    def qom_get(self, path: str, name: str) -> Any:
        """A property of a QEMU object; `path` is a device's id or a QOM path."""
        return self.qmp("qom-get", path=path, property=name)

    def qom_set(self, path: str, name: str, value: Any) -> None:
        self.qmp("qom-set", path=path, property=name, value=value)

    def qom_list(self, path: str) -> dict[str, str]:
        """The properties of a QEMU object and their types."""
        return {p["name"]: p["type"] for p in self.qmp("qom-list", path=path)}

    def pci_address(self, device: str) -> str:
        """The guest's address ("0000:02:00.0") of the PCI device with the QEMU id `device`, as firmware numbered the buses."""
        def search(devices: list[dict]) -> Optional[str]:
            for one in devices:
                if one["qdev_id"] == device:
                    return f"0000:{one['bus']:02x}:{one['slot']:02x}.{one['function']:x}"
                if found := search(one.get("pci_bridge", {}).get("devices", [])):
                    return found
            return None

        for bus in self.qmp("query-pci"):
            if address := search(bus["devices"]):
                return address
        raise RigError(f"topology {self.topology.name} has no PCI device '{device}'",
                       f"its roles are: {', '.join(self.topology.roles) or 'none'}")

    def events(self, name: str) -> list[dict]:
        """The data of the QMP events called `name` so far (of the last thousand events)."""
        with self._changed:
            return [data for event, data in self._events if event == name]

    def guest_errors(self) -> list[str]:
        """What the device models logged about the guest's doings (QEMU's -d guest_errors)."""
        return [line for line in self._log() if not parse_trace(line)]

    def traced(self) -> list[tuple[float, str, str]]:
        """The trace events so far that Options.trace asked for, as parse_trace() has them."""
        return [event for line in self._log() if (event := parse_trace(line))]

    def _log(self) -> list[str]:
        path = self.directory / "qemu.log"
        return path.read_text(errors="replace").splitlines() if path.exists() else []

    # A terminal on the console (rig shell) ------------------------------------------------------------------------

    def attach_console(self, on_output: Optional[Callable[[bytes], None]]) -> None:
        """Pass what the guest writes to its console to `on_output` as well; None stops that."""
        with self._changed:
            self._on_console = on_output

    def type(self, data: bytes) -> None:
        """Send bytes to the guest's serial port."""
        with self._changed:
            self._console_channel.send(data)

    # Inside -------------------------------------------------------------------------------------------------------

    def _launch(self) -> None:
        for path in (self._artefacts.qemu, self._artefacts.kernel, self._artefacts.initrd,
                     *(p for _, p in self._artefacts.disks)):
            if not path.exists():
                raise RigError(f"{path} does not exist", "build it first: rig/rig build")
        theirs = [*self._qmp_channel.open_socket(), *self._agent_channel.open_socket(), *self._console_channel.open_pipes()]
        try:
            argv = self._command_line(*theirs)
            with room.errors(self.directory):
                (self.directory / "qemu.cmdline").write_text("\n".join(argv) + "\n")
                stderr = open(self.directory / "qemu.stderr", "wb")
            with stderr:
                try:
                    self._child = proc.spawn(argv, stdin=proc.DEVNULL, stdout=stderr, stderr=stderr, pass_fds=theirs)
                except OSError as err:
                    raise RigError(f"cannot run {argv[0]}: {err.strerror}", "build it: rig/rig build qemu") from err
        finally:
            for fd in theirs:
                os.close(fd)
        self._thread = threading.Thread(target=self._pump, name=f"vm-{self.topology.name}", daemon=True)
        self._thread.start()
        # QEMU waits (-S) until we listen, so that no event is missed.
        self.qmp("qmp_capabilities")
        self.qmp("cont")

    def _command_line(self, qmp: int, agent: int, console_output: int, console_input: int) -> list[str]:
        return [
            *machine.command_line(self.topology, self._artefacts, self.options,
                                  ("virtio-serial-pci,id=serial,addr=0x3",
                                   f"virtserialport,id=agent,chardev=agent,name={PORT_NAME}")),
            "-S", "-chardev", f"socket,id=qmp,fd={qmp}", "-mon", "chardev=qmp,mode=control",
            "-chardev", f"socket,id=agent,fd={agent}",
            "-add-fd", f"fd={console_output},set=1", "-add-fd", f"fd={console_input},set=2",
            "-chardev", "file,id=console,path=/dev/fdset/1,append=on,input-path=/dev/fdset/2", "-serial", "chardev:console",
            "-d", ",".join(["guest_errors", *(f"trace:{pattern}" for pattern in self.options.trace)]),
            "-D", str(self.directory / "qemu.log"), *(["-msg", "timestamp=on"] if self.options.trace else []),
        ]

    def _qmp_start(self, command: str, arguments: dict[str, Any]) -> Request:
        with self._changed:
            self._check()
            return self._qmp.start(command, arguments)

    def _check(self) -> None:
        if self.failure:
            self._told = True
            raise self.failure

    def _wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait for `condition`, False after `seconds`. Raises as soon as the guest has failed."""
        with self._changed:
            met = self._changed.wait_for(lambda: self.failure is not None or condition(), min(max(seconds, 0), threading.TIMEOUT_MAX))
            if condition():
                return True
            self._check()
            return met

    def _splat_failure(self, splats: Sequence[Splat]) -> KernelSplat:
        first = splats[0]
        more = f" (and {len(splats) - 1} more)" if len(splats) > 1 else ""
        return KernelSplat(f"kernel splat: {first}{more}", self.console.path, splats)

    def _fail(self, failure: VmFailure) -> None:
        """Record why the guest is of no use any more; only the first reason counts."""
        if self.failure is None:
            self.failure = failure
            self.console.note(f"{failure.kind}: {failure.what}")
        self._changed.notify_all()

    def _hung(self, failure: VmFailure) -> NoReturn:
        """Collect evidence from a guest that does not answer, kill it, and raise `failure`."""
        if self.failure is None and not self._exited:
            self.console.note(f"{failure.kind}: {failure.what}; collecting evidence")
            failure.evidence += self._evidence() or self.console.tail()
        with self._changed:
            self._fail(failure)
            self._told = True
        if self._child:
            proc.reap(self._child, grace=1)
        raise failure

    def _evidence(self) -> list[str]:
        """What the guest is doing: registers of all CPUs, then (SysRq over the serial port) its stacks. Lines to show."""
        try:
            registers = self.qmp("human-monitor-command", timeout=10, command_line="info registers -a")
            (self.directory / "registers.txt").write_text(registers)
            shown = ["registers of the CPUs: " + str(self.directory / "registers.txt")]
            shown += [line.strip() for line in registers.splitlines() if line.startswith(("RIP=", "EIP="))]
            with self._changed:
                self.console.ignore_reports()
            for key, meaning in (("l", "CPUs"), ("w", "blocked tasks"), ("t", "all tasks")):
                at = len(self.console.lines)
                self.qmp("chardev-send-break", timeout=10, id="console")
                self.type(key.encode())
                if not self._wait(lambda: any("sysrq:" in line for line in self.console.lines[at:]), 10):
                    shown.append("the guest does not answer SysRq: a CPU spins with interrupts off, or there is no kernel")
                    break
                self._until_quiet(2, 20)
                if key != "t":
                    shown += [f"SysRq-{key} ({meaning}):", *self.console.lines[at:at + 60]]
            return shown
        except (VmFailure, QmpError, OSError) as err:
            return [f"no more evidence: {err}"]

    def _until_quiet(self, quiet: float, limit: float) -> None:
        """Wait until the console has been silent for `quiet` seconds, `limit` at most."""
        end = time.monotonic() + limit
        count = -1
        while count != len(self.console.lines) and time.monotonic() < end:
            count = len(self.console.lines)
            self._wait(lambda: False, quiet)

    # The pump: the only reader of the sockets ------------------------------------------------------------------------

    def _pump(self) -> None:
        assert self._child is not None
        try:
            self._serve(self._child)
        except Exception as err:  # of those that get output of the guest, for instance; whoever waits for the guest has to know
            said = room.explained(err, self.directory) if isinstance(err, OSError) else None
            failure = VmFailure(f"nobody serves the guest any more: {said.what if said else f'{type(err).__name__}: {err}'}",
                                self.console.path, traceback.format_exc().splitlines())
            failure.__cause__ = err
            with self._changed:
                self._fail(failure)

    def _serve(self, child: subprocess.Popen) -> None:
        """Move data between QEMU and those who wait for it, until QEMU has ended."""
        pidfd = os.pidfd_open(child.pid)
        try:
            exited = False
            while True:
                poller = select.poll()
                poller.register(self._woken, select.POLLIN)
                if not exited:
                    poller.register(pidfd, select.POLLIN)
                with self._changed:
                    open_channels = {}
                    for channel in self._channels:
                        if channel.is_open:
                            open_channels[channel.reader] = channel
                            poller.register(channel.reader, select.POLLIN)
                            if channel.outgoing:
                                open_channels[channel.writer] = channel
                                poller.register(channel.writer, select.POLLOUT)
                # Once QEMU is gone: until nothing is left in the sockets.
                ready = dict(poller.poll(0 if exited else 1000))
                if exited and not any(ready.get(c.reader) for c in open_channels.values()):
                    break
                exited = exited or pidfd in ready
                with self._changed:
                    if self._woken in ready:
                        os.read(self._woken, 4096)
                    for fd, channel in open_channels.items():
                        if fd in ready and channel.is_open:
                            channel.transfer()
                    if self._suspect and time.monotonic() >= self._suspect[0]:
                        self._fail(self._suspect[1])
                    self._changed.notify_all()
            self._account(child)
            child.wait()
            with self._changed:
                self._exited = True
                if not self._ending or self._unexpected_end(child.returncode):
                    self._fail(self._why_exited(child.returncode))
                self._changed.notify_all()
        finally:
            os.close(pidfd)

    def _account(self, child: subprocess.Popen) -> None:
        """Note the CPU time of a QEMU that nobody waited for yet: afterwards nothing tells it apart from other children."""
        try:
            fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return
        self.cpu_seconds = max(self.cpu_seconds, sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK"))

    def _nudge(self) -> None:
        """Make the pump look at what there is to send."""
        if self._wake >= 0:
            try:
                os.write(self._wake, b"x")
            except BlockingIOError:
                pass  # it has plenty of reasons to look already

    def _unexpected_end(self, status: int) -> bool:
        """Whether QEMU ended by a panic or a reset, or crashed, although we were ending it."""
        return self._shutdown_reason == "guest-reset" or -status in _CRASHES

    def _why_exited(self, status: int) -> VmFailure:
        panic = self._panic()
        if panic:
            return GuestPanic(f"the guest's kernel panicked: {panic.title}", self.console.path, panic.lines)
        crashed = -status in _CRASHES
        if self._shutdown_reason == "guest-reset" and not crashed:
            return GuestReset("the guest reset itself without a panic (a triple fault, or a reboot)", self.console.path,
                              self.console.tail())
        if self._shutdown_reason == "guest-shutdown" and not crashed:
            return GuestOff("the guest powered off by itself", self.console.path, self.console.tail())
        how = f"was killed by signal {-status} ({signal.strsignal(-status)})" if status < 0 else f"exited with status {status}"
        said = [line for line in (self.directory / "qemu.stderr").read_text(errors="replace").splitlines()
                if "TCG doesn't support requested feature" not in line]
        return QemuExit(f"QEMU {how}" + (f": {said[-1]}" if said else ""), self.console.path, said or self.console.tail())

    def _panic(self) -> Optional[Splat]:
        return next((s for s in self.console.splats if s.kind in FATAL_KINDS), None)

    def _console_received(self, data: bytes) -> None:
        self.console.feed(data)
        if self._on_console:
            self._on_console(data)
        if not self._suspect and (panic := self._panic()):
            self._suspect = (time.monotonic() + SETTLE_SECONDS,
                             GuestPanic(f"the guest's kernel panicked: {panic.title}", self.console.path, panic.lines))

    def _event(self, name: str, data: dict) -> None:
        self._events.append((name, data))
        if name == "VSERPORT_CHANGE" and data.get("id") == "agent":
            if data["open"] and not self._agent_open:
                self._agent_open = True
                self._agent.greet()
            elif not data["open"] and self._agent_open and not (self._ending or self._suspect or self._asleep):
                # The machine may be about to panic or power off, which would be the better explanation.
                self._suspect = (time.monotonic() + SETTLE_SECONDS, AgentLost(
                    "the connection to the guest was lost: its agent closed the port, while the guest goes on",
                    self.console.path, self.console.tail()))
        elif name == "SHUTDOWN":
            self._shutdown_reason = data.get("reason", "")


class _Channel:
    """One connection to QEMU. The pump calls `transfer()`; sending never blocks, so that reading never stops."""

    def __init__(self, nudge: Callable[[], None], sink: Callable[[bytes], None] = lambda data: None) -> None:
        self.outgoing = bytearray()
        self.sink = sink
        self._nudge = nudge
        self.reader = self.writer = -1

    def open_socket(self) -> list[int]:
        """Returns QEMU's end, one descriptor."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.writer = ours.detach()
        self.reader = os.dup(self.writer)
        return [theirs.detach()]

    def open_pipes(self) -> list[int]:
        """Returns QEMU's ends, for its output and its input.

        A serial port writes single bytes, of which a socket holds only some hundreds; QEMU throws away what does not fit.
        """
        self.reader, output = os.pipe()
        for size in (1 << 20, 1 << 18):
            try:
                fcntl.fcntl(output, fcntl.F_SETPIPE_SZ, size)
                break
            except PermissionError:
                continue  # this user's share of pipe buffers is used up; what there is will do
        source, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        os.set_blocking(self.writer, False)
        return [output, source]

    @property
    def is_open(self) -> bool:
        return self.reader >= 0

    def send(self, data: bytes) -> None:
        self.outgoing += data
        self._nudge()

    def transfer(self) -> None:
        """Move what can be moved without waiting, in both directions; closes the channel when the other end has."""
        try:
            if self.outgoing:
                del self.outgoing[:os.write(self.writer, self.outgoing)]
        except BlockingIOError:
            pass
        except OSError:
            self.outgoing.clear()
        try:
            data = os.read(self.reader, 65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.sink(data)
        else:
            self.close()

    def close(self) -> None:
        for fd in {self.reader, self.writer} - {-1}:
            os.close(fd)
        self.reader = self.writer = -1


class CommandFailed(Exception):
    """A command in the guest ended with a status other than 0."""

    def __init__(self, completed: Completed) -> None:
        status = completed.status
        how = f"was killed by signal {-status} ({signal.strsignal(-status)})" if status < 0 else f"exited with status {status}"
        super().__init__(f"'{completed.command}' {how}")
        self.completed = completed
