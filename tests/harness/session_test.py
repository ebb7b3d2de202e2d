# SPDX-License-Identifier: GPL-2.0
"""`rig run` and `rig shell` as a person uses them: exit statuses, output, and a terminal."""
import os
import pty
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from rig import paths
from rig.session import EXIT_STATUS
from rig.testlib import Test, case

RIG = [sys.executable, str(paths.REPO / "rig" / "rig")]
# What needs nothing of our kernel runs on the distribution's, which boots in a third of the time.
GUEST = ["--no-build", "--kernel", "stock", "plain"]


@case(timeout=600)
def run_passes_on_output_and_status(t: Test) -> None:
    program = f"/host/{Path(__file__).relative_to(paths.REPO)}"
    done = t.host([*RIG, "run", *GUEST, "--", "sh", "-c", 'echo "$1"; echo err >&2; head -n 1 "$2"; exit 5', "sh", "a  b",
                   program], cwd=paths.REPO, check=False)
    t.equal((done.stdout, done.status), ("a  b\n# SPDX-License-Identifier: GPL-2.0\n", 5), "stdout and exit status")
    t.check("err\n" in done.stderr, "stderr is passed on")


@case(timeout=600, full=True)
def run_tells_a_hang(t: Test) -> None:
    done = t.host([*RIG, "run", "--timeout", "5", *GUEST, "--", "sleep 1000"], check=False)
    t.equal(done.status, EXIT_STATUS["hang"], "exit status")
    t.check("hang: 'sh' did not end within" in done.stderr and "sysrq: Show backtrace" in done.stderr, "it says so")


@case(timeout=600, full=True)
def run_tells_a_splat(t: Test) -> None:
    done = t.host([*RIG, "run", "--no-build", "--kernel", "debug", "plain", "--",
                   "modprobe lkdtm; echo WARNING > /sys/kernel/debug/provoke-crash/DIRECT; echo done"], check=False)
    t.equal((done.stdout, done.status), ("done\n", EXIT_STATUS["splat"]), "stdout and exit status")


class Terminal:
    """A program of the host at a terminal of its own. A context manager, which ends it."""

    def __init__(self, t: Test, argv: list[str], directory: str) -> None:
        self._t = t
        self._ours, theirs = pty.openpty()
        self._seen = bytearray()
        self._child = subprocess.Popen(argv, cwd=directory, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
        os.close(theirs)
        t.on_abort(self._child.kill)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._ours)
        self._child.send_signal(signal.SIGTERM)
        self._child.wait()

    def wait_for(self, text: bytes) -> None:
        """Wait until it has shown `text`."""
        while text not in self._seen:
            ready, _, _ = select.select([self._ours], [], [], max(self._t.remaining, 0))
            self._t.check(ready, f"it shows {text!r}; it showed {bytes(self._seen[-500:])!r}")
            try:
                self._seen.extend(os.read(self._ours, 4096))
            except OSError:     # nobody has the terminal open any more
                self._t.fail(f"it ended without showing {text!r}; it showed {bytes(self._seen[-500:])!r}")

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def status(self) -> int:
        """Its exit status, when it has ended."""
        return self._child.wait(timeout=max(self._t.remaining, 1))


@case(timeout=600)
def shell_at_a_terminal(t: Test) -> None:
    """Types into the shell, sees the directory of the host, quits with Ctrl-A x."""
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "from-the-host").write_text("hello")
        with Terminal(t, [*RIG, "shell", *GUEST], directory) as terminal:
            terminal.wait_for(b"# ")  # the prompt, or something in the boot messages: the kernel keeps what is typed early
            terminal.type(b"echo $((6 * 7)) $(cat /host/from-the-host)\n")
            terminal.wait_for(b"42 hello")
            terminal.type(b"\x01x")
            t.equal(terminal.status(), 0, "exit status")


@case(timeout=600)
def command_boots_without_the_rig(t: Test) -> None:
    """What `rig command` prints is pasted into a shell: the guest has its devices and a console, and QEMU its monitor."""
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "from-the-host").write_text("hello")
        command = t.host([*RIG, "command", "--no-build", "--kernel", "stock", "switch:gpu+two-hcas"], cwd=Path(directory)).stdout
        with Terminal(t, ["sh", "-c", f"exec {command}"], "/") as terminal:   # it is QEMU that has to end
            terminal.wait_for(b"# ")
            terminal.type(b"echo $((6 * 7)) $(cat /host/from-the-host) $(lspci | grep -c -e NVIDIA -e Mellanox)\n")
            terminal.wait_for(b"42 hello 3")
            terminal.type(b"\x01cqom-get importer data-write-peer-bytes\n")
            terminal.wait_for(b"\n0\r")
            terminal.type(b"\x01c\npoweroff\n")
            terminal.wait_for(b"Power down")
            t.equal(terminal.status(), 0, "exit status")
