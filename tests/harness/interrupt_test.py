# SPDX-License-Identifier: GPL-2.0
"""However the rig is ended in the middle, no process of it is left, and the next run works."""
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable

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


def end_in_the_middle(t: Test, signo: int, arguments: list[str]) -> int:
    """Start the rig, send it a signal once QEMU runs, check that nothing is left; its exit status."""
    variable, value = "RIG_TEST_TOKEN", f"{os.getpid()}-{random.random()}"
    token = f"{variable}={value}"
    with open(t.directory / "rig.log", "ab") as log:
        child = subprocess.Popen([*RIG, *arguments], env={**os.environ, variable: value}, stdin=subprocess.DEVNULL,
                                 stdout=log, stderr=log, start_new_session=True)
    t.on_abort(child.kill)
    try:
        def guest_runs() -> bool:
            t.check(child.poll() is None, f"the rig ended before its guest was there; see {t.directory}/rig.log")
            # not the short-lived QEMU that finds out whether KVM works
            return any(" -name rig-" in command for command in processes_with(token).values())

        wait_for(t, guest_runs, "the guest starts")
        child.send_signal(signo)
        status = child.wait(timeout=max(t.remaining, 1))
        if signo == signal.SIGKILL:
            # Nobody is left to clean up: the kernel kills QEMU for us, which takes it a moment.
            wait_for(t, lambda: not processes_with(token), "QEMU dies with the rig")
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
