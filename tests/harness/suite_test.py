# SPDX-License-Identifier: GPL-2.0
"""How the suite spreads its groups of cases over the cores."""
import inspect
import io
import os
import tempfile
import threading
import types
import unittest
from dataclasses import replace
from pathlib import Path
from typing import Callable, Optional, Sequence
from unittest import mock

from rig import paths, suite
from rig.machine import Artefacts, Options
from rig.report import SkipList
from rig.testlib import Case, Test, case
from rig.ui import RigError


def a_case(name: str, timeout: float, function: Callable[[Test], None]) -> Case:
    return Case(name=name, function=function, topology="", kernel="", timeout=timeout, options=Options(), fresh=False, full=False,
                needs=())


def no_artefacts(kernel: str) -> Artefacts:
    raise AssertionError("no case here has a guest")


class Order(unittest.TestCase):
    def run_suite(self, cases: Sequence[Case], jobs: int) -> list[str]:
        out = io.StringIO()
        with tempfile.TemporaryDirectory() as scratch:
            status = suite.Suite(cases, Path(scratch), no_artefacts, jobs=jobs, stream=out, skips=SkipList()).run()
        self.assertEqual(status, 0, out.getvalue())
        return out.getvalue().splitlines()

    def test_what_may_take_longest_begins(self) -> None:
        begun: list[str] = []
        cases = [a_case(f"t{seconds}", seconds, lambda t: begun.append(t.case.name)) for seconds in (5, 300, 60, 7)]
        self.run_suite(cases, 1)
        self.assertEqual(begun, ["t300", "t60", "t7", "t5"])

    def test_as_many_at_once_as_jobs(self) -> None:
        together = threading.Barrier(2)
        self.run_suite([a_case(f"t{n}", 60, lambda t: self.assertIsNotNone(together.wait(60))) for n in range(2)], 2)

    def test_the_seconds_are_told(self) -> None:
        lines = self.run_suite([a_case("t", 60, lambda t: None)], 1)
        self.assertRegex("\n".join(lines), r"#  +seconds +of CPU\n#   t +\d+\.\d\n#   tests in all +\d+\.\d +\d+\.\d\n1 passed")


class GuestsAtOnce(unittest.TestCase):
    def guests(self, cores: int, gigabytes: float) -> int:
        meminfo = f"MemTotal:       999 kB\nMemAvailable:   {int(gigabytes * (1 << 20))} kB\n"
        with mock.patch.object(os, "sched_getaffinity", return_value=set(range(cores))), \
                mock.patch.object(Path, "read_text", return_value=meminfo):
            return suite.guests_at_once()

    def test_one_for_each_core_that_has_memory(self) -> None:
        for cores, gigabytes, expected in ((1, 16, 1), (2, 16, 2), (16, 64, 16), (16, 10, 3), (2, 1, 1)):
            with self.subTest(cores=cores, gigabytes=gigabytes):
                self.assertEqual(self.guests(cores, gigabytes), expected)

    def test_timeouts_grow_with_them(self) -> None:
        seen: list[float] = []

        def note(t: Test) -> None:
            seen.append(float(os.environ["RIG_TIMEOUT_FACTOR"]))

        for jobs, wished, expected in ((2, None, 2.0), (1, None, 1.0), (2, "3", 6.0)):
            with self.subTest(jobs=jobs, wished=wished), tempfile.TemporaryDirectory() as scratch, \
                    mock.patch.dict(os.environ), mock.patch.object(os, "sched_getaffinity", return_value={0, 1}), \
                    mock.patch.object(suite, "discover", return_value=[a_case("t", 1, note)]), \
                    mock.patch.object(suite, "new_run_directory", return_value=Path(scratch)):
                set_factor(wished)
                suite.run_tests("t", jobs=jobs)
                self.assertEqual(seen.pop(), expected)


class NoBuild(unittest.TestCase):
    def test_what_is_missing_is_said_once(self) -> None:
        """For the guests of all cases, in which none is started."""
        cases = [replace(a_case(f"t{n}", 1, lambda t: None), topology="plain", kernel=kernel) for n, kernel in enumerate(("debug", "stock", "debug"))]
        with tempfile.TemporaryDirectory() as scratch, mock.patch.object(paths, "BUILD", Path(scratch)), \
                mock.patch.object(suite, "discover", return_value=cases), mock.patch.object(suite, "Suite", side_effect=AssertionError("run")), \
                self.assertRaisesRegex(RigError, "build them: rig/rig build --kernel debug && rig/rig build --kernel stock$"):
            suite.run_tests(build=False)


def set_factor(value: Optional[str]) -> None:
    os.environ.pop("RIG_TIMEOUT_FACTOR", None)
    if value:
        os.environ["RIG_TIMEOUT_FACTOR"] = value


if __name__ == "__main__":
    unittest.main()


class Full(unittest.TestCase):
    """What `make test` leaves to `make test-full`."""

    def chosen(self, full: bool | list[str]) -> list[str]:
        module = types.ModuleType("scratch")
        with mock.patch.object(inspect, "getmodule", return_value=module):
            case(topology=["switch", "host-bridge"], full=full)(lambda t: None)
        return [c.topology for c in module.__dict__["__cases__"] if not c.full]

    def test_all_or_some_topologies(self) -> None:
        self.assertEqual(self.chosen(False), ["switch", "host-bridge"])
        self.assertEqual(self.chosen(["host-bridge"]), ["switch"])
        self.assertEqual(self.chosen(True), [])

    def test_a_topology_that_the_case_has_not(self) -> None:
        with self.assertRaisesRegex(RigError, "unreachable is none of the case's topologies"):
            self.chosen(["unreachable"])
