# SPDX-License-Identifier: GPL-2.0
"""However the rig is ended in the middle, no process of it is left, and the next run works."""
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable, Mapping, Sequence

from rig import paths
from rig.testlib import Test, case

# Where the tests run in the background of a shell, SIGINT is ignored, and that is inherited.
RIG = ["env", "--default-signal=INT", sys.executable, str(paths.REPO / "rig" / "rig")]


def processes_with(token: str) -> dict[int, str]:
    """The living processes that inherited `token` in their environment, and their command lines."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if not entry.name.isdigit() or token.encode() not in (entry / "environ").read_bytes():
                continue
            if (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX":
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
    return found


def wait_for(t: Test, condition: Callable[[], object], what: str) -> None:
    while not condition():
        t.check(t.remaining > 0, what)
        time.sleep(0.05)


def end_in_the_middle(t: Test, signo: int, arguments: list[str], busy: str = " -name rig-", env: Mapping[str, str] = {},
                      rig: Sequence[str] = RIG) -> int:
    """Start the rig, send it a signal once a process with `busy` in its command line runs, check that nothing is left.

    Returns the rig's exit status. What is looked for by default is a guest, not the short-lived QEMU that finds out
    whether KVM works.
    """
    variable, value = "RIG_TEST_TOKEN", f"{os.getpid()}-{random.random()}"
    token = f"{variable}={value}"
    with open(t.directory / "rig.log", "ab") as log:
        child = subprocess.Popen([*rig, *arguments], env={**os.environ, **env, variable: value}, stdin=subprocess.DEVNULL,
                                 stdout=log, stderr=log, start_new_session=True)
    t.on_abort(child.kill)
    try:
        def is_busy() -> bool:
            t.check(child.poll() is None, f"the rig ended before {busy!r} ran; see {t.directory}/rig.log")
            return any(busy in command for command in processes_with(token).values())

        wait_for(t, is_busy, f"{busy!r} runs")
        child.send_signal(signo)
        status = child.wait(timeout=max(t.remaining, 1))
        if signo == signal.SIGKILL:
            # Nobody is left to clean up: the kernel kills the children for us, which takes it a moment.
            wait_for(t, lambda: not processes_with(token), "the children die with the rig")
        t.equal(processes_with(token), {}, "processes left")
        return status
    finally:
        child.kill()
        for pid in processes_with(token):
            os.kill(pid, signal.SIGKILL)


RUN = ["run", "--no-build", "--kernel", "debug", "plain", "--", "sleep", "1000"]


@case(timeout=120)
def run_and_ctrl_c(t: Test) -> None:
    t.equal(end_in_the_middle(t, signal.SIGINT, RUN), 130, "exit status")


@case(timeout=120)
def run_and_sigterm(t: Test) -> None:
    t.equal(end_in_the_middle(t, signal.SIGTERM, RUN), 130, "exit status")


@case(timeout=120)
def run_and_sigkill(t: Test) -> None:
    t.equal(end_in_the_middle(t, signal.SIGKILL, RUN), -signal.SIGKILL, "exit status")


@case(timeout=120)
def tests_and_ctrl_c(t: Test) -> None:
    status = end_in_the_middle(t, signal.SIGINT, ["test", "--no-build", "topology/mapping_type/computed@switch"])
    t.equal(status, 130, "exit status")
    t.check("interrupted: " in (t.directory / "rig.log").read_text(), "the run says that it was interrupted")


def unpack_and(t: Test, signo: int, expected: int) -> None:
    """End the rig while it unpacks the kernel; the next one, ended likewise, finds the same state and not twice the files."""
    with tempfile.TemporaryDirectory() as build:
        for _ in range(2):
            status = end_in_the_middle(t, signo, ["tree"], busy="tar -x -p -C", env={"RIG_BUILD": build})
            t.equal(status, expected, "exit status")
            left = [p.name for p in Path(build).iterdir() if p.name != ".lock"]
            if signo == signal.SIGKILL:
                t.check(len(left) <= 1, f"only what the last one unpacked is left, not {left}")
            else:
                t.equal(left, [], "files left in the build directory")


@case(timeout=120)
def unpack_and_ctrl_c(t: Test) -> None:
    unpack_and(t, signal.SIGINT, 130)


@case(timeout=120)
def unpack_and_sigkill(t: Test) -> None:
    unpack_and(t, signal.SIGKILL, -signal.SIGKILL)


@case(timeout=120)
def compile_and_ctrl_c(t: Test) -> None:
    """What was compiled before the end stays, and the next run goes on."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        source.mkdir()
        (source / "Makefile").write_text("all: first second\nfirst:\n\t@echo one >$@\nsecond: first\n\t@test -e go || sleep 1000\n\t@echo two >$@\n")
        program = ("import sys; from pathlib import Path; from rig import cli, proc; "
                   f"cli._tree = lambda options: proc.run(['make', '-C', {str(source)!r}], log=Path({scratch!r}) / 'log'); "
                   "sys.exit(cli.main(['tree']))")
        arguments = ["env", "--default-signal=INT", sys.executable, "-B", "-c", program]
        where = {"PYTHONPATH": str(paths.REPO)}
        t.equal(end_in_the_middle(t, signal.SIGINT, arguments, busy="sleep 1000", env=where, rig=[]), 130, "exit status")
        t.equal(sorted(p.name for p in source.iterdir()), ["Makefile", "first"], "what was made")
        (source / "go").touch()
        t.host(arguments, env=where)
        t.check((source / "second").exists(), "the next run goes on")
