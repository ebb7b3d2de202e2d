# SPDX-License-Identifier: GPL-2.0
"""`rig run` and `rig shell`: one guest for one command, or for a person at a terminal."""
import os
import select
import sys
import termios
import tty
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence

from . import failure, images, machine, topology
from .agent import AgentError
from .machine import Options
from .runs import new_run_directory
from .ui import say
from .vm import GuestOff, Vm, VmFailure

EXIT_STATUS = {
    "splat": 201, "hang": 202, "lost connection": 203, "QEMU exit": 204, "panic": 205, "reset": 206, "power off": 207,
    "boot timeout": 208, "failure": 209,
}
"""What `rig run` exits with when the guest failed; no shell uses these (a signal is 128 plus at most 64)."""

NOT_RUN = 127
"""What it exits with when there is no such command in the guest, as a shell does."""

SHELL = "rig.shell=1"
"""What the guest's init wants on the kernel's command line for a shell on the console."""

_ESCAPE = 0x01  # Ctrl-A, as in QEMU's own terminal


def run_command(name: str, command: Sequence[str], *, kernel: str = "release", build: bool = True, timeout: float = 600,
                **options: Any) -> int:
    """Boot topology `name`, run `command` in it, and return its exit status (128 plus the signal that killed it).

    One argument is a shell command line, several are a program and its arguments. The command's output is ours, and the
    directory that the rig was started in is /host there, read-only. A guest that failed gives a status of EXIT_STATUS, and
    says on stderr what happened. `build`: bring the guest's image up to date. `options` are those of machine.Options.
    """
    def on_output(data: bytes, is_stderr: bool) -> None:
        stream = sys.stderr.buffer if is_stderr else sys.stdout.buffer
        stream.write(data)
        stream.flush()

    options.setdefault("share", Path.cwd())
    try:
        with _guest(name, kernel, build, options) as guest:
            guest.boot()
            try:
                status = guest.run(command[0] if len(command) == 1 else list(command), timeout=timeout, check=False,
                                   on_output=on_output).status
            except AgentError as error:
                say(f"rig: {error}")
                status = NOT_RUN
            guest.mark("end of the command")
            guest.check()
    except VmFailure as error:
        return _explain(error)
    return status if status >= 0 else 128 - status


def shell(name: str, *, kernel: str = "release", build: bool = True, **options: Any) -> int:
    """Boot topology `name` with a shell on the terminal; the directory that the rig was started in is /host there.

    Ctrl-A x ends the guest, as does the end of the shell. Ctrl-A Ctrl-A is a Ctrl-A for the guest.
    """
    options.setdefault("share", Path.cwd())
    options["cmdline"] = f"{options.get('cmdline', '')} {SHELL}".strip()
    try:
        with _guest(name, kernel, build, options) as guest:
            say(f"  topology {name}, kernel {kernel}, {options['share']} is /host; Ctrl-A x quits")
            guest.attach_console(_to_terminal)
            with _raw_terminal():
                try:
                    guest.boot()
                    _match_size(guest)
                    _forward_keys(guest)
                except GuestOff:
                    pass  # the shell ended, and init powered the guest off
                except VmFailure as error:
                    guest.attach_console(None)
                    return _explain(error, "\r\n")
                finally:
                    guest.attach_console(None)
            if splats := guest.new_splats():
                say("\n  the kernel reported: " + "; ".join(map(str, splats)) + f"\n  the console is in {guest.console.path}")
                return EXIT_STATUS["splat"]
    except VmFailure as error:     # when it was ended
        return _explain(error)
    return 0


def print_command_line(name: str, *, kernel: str = "release", build: bool = True) -> None:
    """Print the shell command that boots the guest of `shell()` without the rig."""
    print(machine.by_hand(topology.get(name), images.artefacts(kernel, build), Options(cmdline=SHELL, share=Path.cwd())))


@contextmanager
def _guest(name: str, kernel: str, build: bool, options: dict[str, Any]) -> Iterator[Vm]:
    chosen = topology.get(name)
    with Vm(chosen, images.artefacts(kernel, build), new_run_directory() / "guest", replace(Options(), **options)) as guest:
        yield guest


def _explain(error: VmFailure, newline: str = "\n") -> int:
    if isinstance(error.__cause__, BrokenPipeError):
        raise error.__cause__  # whoever reads our output has seen enough
    sys.stdout.flush()
    sys.stderr.write("rig: " + newline.join(failure.explain(error)) + newline)
    return EXIT_STATUS.get(error.kind, EXIT_STATUS["failure"])


def _to_terminal(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


@contextmanager
def _raw_terminal() -> Iterator[None]:
    """Every key to the guest, as it is typed; the terminal is put back whatever happens."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setraw(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _match_size(guest: Vm) -> None:
    """A serial port does not tell the guest how large the terminal is."""
    if sys.stdout.isatty():
        size = os.get_terminal_size(sys.stdout.fileno())
        guest.run(f"stty rows {size.lines} cols {size.columns} </dev/console", check=False)


def _forward_keys(guest: Vm) -> None:
    """Until Ctrl-A x; raises GuestOff when the guest goes first. End of file on stdin is Ctrl-D for the guest."""
    escaped = False
    source: Optional[int] = sys.stdin.fileno()
    while True:
        if guest.failure:
            guest.check()
        # The guest's end has no descriptor to wait for here: look for it a few times a second.
        ready, _, _ = select.select([source] if source is not None else [], [], [], 0.2)
        if not ready or source is None:
            continue
        keys = os.read(source, 4096)
        if not keys:
            guest.type(b"\x04")
            source = None
            continue
        if not sys.stdin.isatty():
            guest.type(keys)
            continue
        typed = bytearray()
        for key in keys:
            if escaped:
                escaped = False
                if key in b"xX":
                    return
                if key == _ESCAPE:
                    typed.append(key)
            elif key == _ESCAPE:
                escaped = True
            else:
                typed.append(key)
        if typed:
            guest.type(bytes(typed))
