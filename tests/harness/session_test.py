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


@case(timeout=600)
def shell_at_a_terminal(t: Test) -> None:
    """Types into the shell, sees the directory of the host, quits with Ctrl-A x."""
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "from-the-host").write_text("hello")
        ours, theirs = pty.openpty()
        child = subprocess.Popen([*RIG, "shell", *GUEST], cwd=directory, stdin=theirs, stdout=theirs, stderr=theirs,
                                 start_new_session=True)
        os.close(theirs)
        t.on_abort(child.kill)
        seen = bytearray()

        def wait_for(text: bytes) -> None:
            while text not in seen:
                ready, _, _ = select.select([ours], [], [], max(t.remaining, 0))
                t.check(ready, f"the shell shows {text!r}; it showed {bytes(seen[-500:])!r}")
                seen.extend(os.read(ours, 4096))

        try:
            wait_for(b"# ")  # the prompt, or something in the boot messages: the kernel keeps what is typed early
            os.write(ours, b"echo $((6 * 7)) $(cat /host/from-the-host)\n")
            wait_for(b"42 hello")
            os.write(ours, b"\x01x")
            t.equal(child.wait(timeout=max(t.remaining, 1)), 0, "exit status")
        finally:
            os.close(ours)
            child.send_signal(signal.SIGTERM)
            child.wait()
