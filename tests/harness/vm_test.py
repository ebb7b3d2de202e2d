# SPDX-License-Identifier: GPL-2.0
"""What befalls a guest is told, whoever looks, also at its end: with samples/fake_qemu.py for QEMU and guest."""
import contextlib
import errno
import io
import math
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Callable, Sequence
from unittest import mock

from rig import demo, images, paths, session, suite, topology
from rig.agent import AgentError
from rig.machine import Artefacts, Options
from rig.qmp import QmpError
from rig.report import SkipList
from rig.testlib import Case, Test
from rig.ui import RigError
from rig.vm import CommandFailed, Completed, QemuExit, Vm, VmFailure

FAKE = Path(__file__).parent / "samples" / "fake_qemu.py"


def artefacts(kernel: str = "", build: bool = True) -> Artefacts:
    return Artefacts(qemu=FAKE, kernel=FAKE, initrd=FAKE)


class Scratch(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.top = Path(scratch.name)
        patcher = mock.patch.dict(os.environ, {"RIG_ACCEL": "tcg"})
        patcher.start()
        self.addCleanup(patcher.stop)

    def guest(self) -> Vm:
        return Vm(topology.get("plain"), artefacts(), self.top / "guest")


class Ends(Scratch):
    def test_all_is_well(self) -> None:
        with self.guest() as guest:
            self.assertEqual(guest.boot().run("echo hello").stdout, "hello\n")
        self.assertIsNone(guest.end())

    def test_timeouts_without_an_end(self) -> None:
        """They are longer than what Python can wait for."""
        for timeout, factor in ((math.inf, "1"), (1e10, "1"), (60, "1e8")):
            with self.subTest(timeout=timeout, factor=factor), mock.patch.dict(os.environ, {"RIG_TIMEOUT_FACTOR": factor}), self.guest() as guest:
                self.assertEqual(guest.boot().run("echo hello", timeout=timeout).stdout, "hello\n")

    def test_qemu_crashes_when_it_is_ended(self) -> None:
        with self.assertRaisesRegex(QemuExit, "killed by signal 6"), self.guest() as guest:
            guest.boot().run("crash later")
        self.assertIsNone(guest.end())   # once is enough

    def test_qemu_crashes_when_the_guest_powers_off(self) -> None:
        with self.assertRaisesRegex(QemuExit, "killed by signal 6"), self.guest() as guest:
            guest.boot().run("crash later")
            guest.shutdown()

    def test_an_orderly_power_off(self) -> None:
        with self.guest() as guest:
            guest.boot().shutdown()

    def test_another_error_is_not_hidden(self) -> None:
        with self.assertRaises(KeyError), self.guest() as guest:
            guest.boot().run("crash later")
            raise KeyError


class Served(Scratch):
    """The thread that serves the guest does not die unseen."""

    def test_output_that_cannot_be_passed_on(self) -> None:
        def on_output(data: bytes, is_stderr: bool) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with self.guest() as guest:
            guest.boot()
            with self.assertRaisesRegex(VmFailure, "nobody serves the guest any more: .* became full") as caught:
                guest.run("echo hello", on_output=on_output, timeout=20)
        self.assertEqual(caught.exception.kind, "failure")

    def test_a_console_log_that_cannot_be_written(self) -> None:
        with self.guest() as guest, open("/dev/full", "wb", buffering=0) as full, contextlib.redirect_stderr(io.StringIO()) as said:
            guest.boot()
            with mock.patch.object(guest.console, "_file", full):
                guest.run("splat")
                guest.mark("seen")
            self.assertEqual([splat.kind for splat in guest.take_splats()], ["BUG"])
        self.assertRegex(said.getvalue(), "console.log: No space left on device")

    def test_no_room_for_qemus_files(self) -> None:
        guest = self.guest()
        self.addCleanup(guest.close)
        (guest.directory / "qemu.cmdline").symlink_to("/dev/full")
        with self.assertRaisesRegex(RigError, "became full"):
            guest.boot()


class Sessions(Scratch):
    """What `rig run` exits with."""

    def run_command(self, *command: str) -> tuple[int, str]:
        with mock.patch.object(images, "artefacts", artefacts), mock.patch.object(session, "new_run_directory", return_value=self.top), \
                contextlib.redirect_stderr(io.StringIO()) as said:
            return session.run_command("plain", command), said.getvalue()

    def test_a_program_that_is_not_there(self) -> None:
        self.assertEqual(self.run_command("nosuchprog", "--option"), (session.NOT_RUN, "rig: cannot run nosuchprog: No such file\n"))

    def test_a_crash_at_the_end(self) -> None:
        status, said = self.run_command("crash later")
        self.assertEqual(status, session.EXIT_STATUS["QEMU exit"])
        self.assertRegex(said, "QEMU exit: QEMU was killed by signal 6")

    def test_a_reader_that_has_seen_enough(self) -> None:
        program = ("import sys; from pathlib import Path; from rig import cli, images, session; from rig.machine import Artefacts; "
                   f"fake = Path({str(FAKE)!r}); images.artefacts = lambda *given: Artefacts(qemu=fake, kernel=fake, initrd=fake); "
                   f"session.new_run_directory = lambda: Path({str(self.top)!r}); "
                   "sys.exit(cli.main(['run', '--no-build', '--kernel', 'debug', 'plain', '--', 'echo hello']))")
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run([sys.executable, "-B", "-c", program], cwd=paths.REPO, stdout=writer, stderr=subprocess.PIPE, text=True,
                              timeout=60, check=False)
        os.close(writer)
        self.assertEqual((done.returncode, done.stderr), (141, ""))


class Judged(Scratch):
    """What a case is charged with."""

    def verdicts(self, functions: Sequence[Callable[[Test], None]], topology_name: str = "plain") -> list[str]:
        """The lines of the results, as many cases as `functions` in one guest."""
        cases = [Case(name=function.__name__, function=function, topology=topology_name, kernel="", timeout=60, options=Options(),
                      fresh=False, full=False, needs=()) for function in functions]
        out = io.StringIO()
        suite.Suite(cases, self.top, artefacts, stream=out, skips=SkipList()).run()
        return [line for line in out.getvalue().splitlines() if line.lstrip().startswith(("ok", "not ok"))]

    def test_a_crash_at_the_end_of_the_last_case(self) -> None:
        def first(t: Test) -> None:
            t.vm.run("crash later")

        def second(t: Test) -> None:
            t.vm.run("echo hello")

        passed, failed = self.verdicts([first, second])
        self.assertRegex(passed, "^ok 1 first")
        self.assertRegex(failed, "^not ok 2 second # QEMU exit: QEMU was killed by signal 6")

    def test_a_program_of_the_host_that_may_take_for_ever(self) -> None:
        def says_hello(t: Test) -> None:
            t.equal(t.host(["echo", "hello"]).stdout, "hello\n", "output")

        with mock.patch.dict(os.environ, {"RIG_TIMEOUT_FACTOR": "1e8"}):
            self.assertRegex("\n".join(self.verdicts([says_hello], "")), "^ok 1 says_hello")

    def test_guests_of_a_cases_own(self) -> None:
        def splat(t: Test) -> None:
            with t.new_vm("plain") as guest:
                guest.boot().run("splat")
                guest.mark("seen")

        def provoked(t: Test) -> None:
            with t.new_vm("plain", name="other") as guest:
                guest.boot().run("splat")
                guest.mark("seen")
                guest.take_splats()

        def left(t: Test) -> None:
            t.new_vm("plain").boot().run("crash later")

        lines = "\n".join(self.verdicts([splat, provoked, left], ""))
        self.assertRegex(lines, r"not ok 1 guest own . splat: BUG: BUG: this is only said\nnot ok \d splat")
        self.assertRegex(lines, r"(?m)^ok \d provoked")
        self.assertRegex(lines, r"not ok 1 guest own . QEMU exit: QEMU was killed by signal 6.*\nnot ok \d left")


class Demo(Scratch):
    def test_a_command_that_fails_is_told(self) -> None:
        for error in (AgentError(2, "cannot run modprobe: No such file"), QmpError("modprobe", {"desc": "not found"}),
                      CommandFailed(Completed("modprobe mlx5_ib", 1, "", "no module", 0))):
            with self.subTest(error=error), mock.patch.object(images, "artefacts", artefacts), \
                    mock.patch.object(demo.runs, "new_run_directory", return_value=self.top), \
                    mock.patch.object(demo, "_demonstrate", side_effect=error), contextlib.redirect_stderr(io.StringIO()) as said:
                self.assertEqual(demo.run("debug"), 1)
                self.assertRegex(said.getvalue(), "modprobe.*(?s:.*)the console is in")


if __name__ == "__main__":
    unittest.main()
