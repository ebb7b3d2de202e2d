# SPDX-License-Identifier: GPL-2.0
"""`rig bench` keeps what it has measured, whatever befalls the benchmark after it, and the report of one is not that of all."""
import contextlib
import io
import tempfile
import unittest
from pathlib import Path
from types import ModuleType
from typing import Callable
from unittest import mock

from rig import bench
from rig.agent import AgentError
from rig.bench import Bench
from rig.qmp import QmpError
from rig.ui import RigError
from rig.vm import CommandFailed, Completed, QemuExit

ERRORS = (CommandFailed(Completed("modprobe mlx5_ib", 1, "", "no module", 0)), AgentError(2, "cannot run it: modprobe"),
          QmpError("qom-get", {"desc": "no modprobe here"}), QemuExit("QEMU was killed in modprobe"), RigError("modprobe is odd"))


class Run(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.top = Path(scratch.name)
        for name, value in (("REPORTS", self.top / "bench"), ("new_run_directory", lambda: self.top),
                            ("describe_machine", lambda variant, build: {})):
            patcher = mock.patch.object(bench, name, value)
            patcher.start()
            self.addCleanup(patcher.stop)

    def run_these(self, wanted: str = "", check: bool = False, **functions: Callable[[Bench], None]) -> tuple[int, str]:
        """Run benchmarks by these names; the exit status, and what was said on stderr."""
        modules = {}
        for name, function in functions.items():
            modules[name] = ModuleType(name, "Title.")
            modules[name].run = function  # type: ignore[attr-defined]
        with mock.patch.object(bench, "load", return_value=modules), contextlib.redirect_stdout(io.StringIO()), \
                contextlib.redirect_stderr(io.StringIO()) as said:
            return bench.run(wanted, "release", check), said.getvalue()

    def report(self, name: str = "report") -> str:
        self.assertTrue((self.top / "bench" / f"{name}.html").exists())
        return (self.top / "bench" / f"{name}.txt").read_text(encoding="utf-8")

    @staticmethod
    def good(one: Bench) -> None:
        one.show("something good", 12.5, "GB/s", at_least=20)

    def test_targets(self) -> None:
        self.assertEqual([self.run_these(check=check, good=self.good)[0] for check in (False, True)], [0, 1])

    def test_what_is_measured_outlives_a_failure(self) -> None:
        for error in ERRORS:
            def bad(one: Bench) -> None:
                one.show("the first half", 3, "us")
                raise error
            with self.subTest(error=error):
                status, said = self.run_these(good=self.good, bad=bad, other=self.good)
                self.assertEqual(status, 1)
                self.assertRegex(said, "modprobe(?s:.*)not finished: bad\n")
                self.assertRegex(self.report(), "(?s)12.5.*the first half.*not finished: [^\n]*modprobe.*other: Title.*12.5")

    def test_an_interrupt_loses_nothing(self) -> None:
        with self.assertRaises(KeyboardInterrupt):
            self.run_these(good=self.good, bad=mock.Mock(side_effect=KeyboardInterrupt))
        self.assertRegex(self.report(), "(?s)12.5.*not finished: KeyboardInterrupt")

    def test_one_has_a_report_of_its_own(self) -> None:
        self.run_these(good=self.good, other=self.good)
        before = self.report()
        self.run_these("good", good=self.good)
        self.assertEqual(self.report(), before)
        self.assertNotIn("other", self.report("report-good"))


if __name__ == "__main__":
    unittest.main()
