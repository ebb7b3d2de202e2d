# SPDX-License-Identifier: GPL-2.0
"""What a person types: nothing is taken for something else, and what is wrong is said before anything is built."""
import contextlib
import io
import math
import os
import runpy
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from rig import bench, cli, compiler, fuzz, guest, images, kernel, lock, mutations, paths, proc, qemu, session, stock, suite, tools, tree
from rig.ui import RigError


class Words(unittest.TestCase):
    def setUp(self) -> None:
        self.build = self.patch(cli, "build")
        self.run_command = self.patch(session, "run_command", return_value=7)
        self.run_tests = self.patch(suite, "run_tests", return_value=0)

    def patch(self, target: object, name: str, **options: Any) -> mock.Mock:
        patcher = mock.patch.object(target, name, **options)
        self.addCleanup(patcher.stop)
        return patcher.start()

    def refused(self, line: str, words: str) -> None:
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            try:
                failed = cli.main(line.split()) != 0
            except SystemExit as usage:
                failed = bool(usage.code)
        self.assertTrue(failed)
        self.assertRegex(said.getvalue(), words)
        for action in (self.build, self.run_command, self.run_tests):
            action.assert_not_called()

    def test_options_come_before_the_topology(self) -> None:
        self.assertEqual(cli.main("run --kernel debug --timeout 5 plain -- ls -l --kernel x".split()), 7)
        self.run_command.assert_called_once_with("plain", ["ls", "-l", "--kernel", "x"], kernel="debug", build=True, timeout=5)

    def test_the_kernel_that_is_at_hand(self) -> None:
        self.patch(tools, "ensure")
        at_hand, image = self.patch(kernel, "at_hand"), self.patch(kernel, "image")
        self.patch(images, "say")
        for current, built, options, expected in (
                ("release debug", "release debug", "", "release"), ("debug", "debug", "", "debug"), ("", "", "", "release"),
                ("debug", "release debug", "", "debug"),                # the release kernel is an old one
                ("", "debug", "", "debug"),                             # edits that are not committed
                ("release", "debug", "--no-build", "debug"),            # the release kernel is in the cache only
                ("debug", "debug", "--kernel release", "release")):
            with self.subTest(current=current, built=built, options=options):
                at_hand.side_effect = lambda variant: variant in current.split()
                image.side_effect = lambda variant: mock.Mock(exists=lambda: variant in built.split())
                cli.main(f"run {options} plain -- true".split())
                self.assertEqual(self.run_command.call_args.kwargs["kernel"], expected)
                if "--no-build" not in options:
                    self.assertEqual(self.build.call_args.kwargs, {"variant": expected})

    def test_options_behind_the_topology_are_no_command(self) -> None:
        for line in ("run plain --kernel debug -- true", "run plain --timeout 5 -- true", "run plain --no-build"):
            with self.subTest(line=line):
                self.refused(line, "stands after the topology")

    def test_nothing_to_run(self) -> None:
        for line in ("run plain", "run plain --"):
            with self.subTest(line=line):
                self.refused(line, "no command to run")

    def test_names_that_do_not_exist(self) -> None:
        for line, words in (("run nowhere -- true", "no topology 'nowhere'"), ("shell nowhere", "no topology 'nowhere'"),
                            ("run --kernel odd plain -- true", "invalid choice: 'odd'"), ("test no-such-test", "no test matches"), ("test e2e/soak", "only long tests(?s:.*)add --full")):
            with self.subTest(line=line):
                self.refused(line, words)

    def test_what_does_not_exist_is_said_before_anything_is_built(self) -> None:
        self.patch(tools, "ensure")
        self.patch(lock, "build_directory")
        fuzzer = self.patch(qemu, "build_fuzzer", side_effect=AssertionError("built"))
        self.patch(mutations, "run", side_effect=AssertionError("run"))
        for line, words in (("mutations no-such-mutation", "no mutation matches"), ("fuzz --machine gp104", "no machine 'gp104'(?s:.*)gp100, mlx5, mlx5-iommu, p2pdev")):
            with self.subTest(line=line):
                self.refused(line, words)
        fuzzer.assert_not_called()

    def test_counts(self) -> None:
        for line in ("test --jobs -1", "test --jobs 0", "mutations --jobs x"):
            with self.subTest(line=line):
                self.refused(line, "argument --jobs: .* is not a number of at least 1")

    def test_seconds(self) -> None:
        for given in ("nan", "0", "-1", "-inf", "5s"):
            with self.subTest(given=given):
                self.refused(f"run --timeout={given} plain -- true", f"argument --timeout: {given} is not a number of seconds above 0")
        cli.main("run --kernel debug --timeout inf plain -- true".split())
        self.assertEqual(self.run_command.call_args.kwargs["timeout"], math.inf)

    def test_numbers_of_the_environment(self) -> None:
        for given in ("3x", "nan", "0", "-1", "inf", "1e400"):
            with self.subTest(given=given), mock.patch.dict(os.environ, {"RIG_TIMEOUT_FACTOR": given}):
                self.refused("run plain -- true", f"RIG_TIMEOUT_FACTOR={given} is not a number of at least 0.01")

    def test_no_build_is_not_to_blame_on_tools(self) -> None:
        self.patch(fuzz, "_PROGRAM", new=paths.REPO / "nowhere")
        self.refused("fuzz --no-build", "does not exist\n.*rig/rig fuzz without --no-build")

    def test_no_build_builds_nothing(self) -> None:
        """Nor does it download: what is missing is said, once, before a guest is started."""
        for each in (guest, stock, kernel, qemu):
            for name in ("build", "guest_image", "_root"):
                if hasattr(each, name):
                    self.patch(each, name, side_effect=AssertionError("built"))
        self.patch(tools, "ensure", side_effect=AssertionError("installed"))
        self.patch(session, "Vm", side_effect=AssertionError("booted"))
        with tempfile.TemporaryDirectory() as scratch, mock.patch.object(paths, "BUILD", Path(scratch)), \
             mock.patch.object(guest, "OUT", Path(scratch) / "guest"), mock.patch.object(qemu, "OBJECTS", Path(scratch) / "qemu"):
            for line, variants in (("shell --no-build --kernel debug plain", ["debug"]), ("command --no-build --kernel stock plain", ["stock"]),
                                   ("shell --no-build plain", ["release"]), ("mutations --no-build", ["mutants"]),
                                   ("bench --no-build --kernel debug hmm", ["debug", "base-debug"])):
                with self.subTest(line=line):
                    images.artefacts.cache_clear()
                    commands = " && ".join(f"rig/rig build --kernel {variant}" for variant in variants)
                    self.refused(line, f"with --no-build nothing is built(?s:.*)qemu-system-x86_64\n(?s:.*)\n  build them: {commands}\n$")
        images.artefacts.cache_clear()

    def test_hints_are_commands(self) -> None:
        self.refused("run plain", "\n  rig/rig run TOPOLOGY")
        self.refused("run", "usage: rig/rig run")
        with self.assertRaisesRegex(RigError, "'rig/rig tools'"):
            proc.run(["/nonexistent/program"], log=paths.LOGS / "test.log")


class Tools(unittest.TestCase):
    def test_bench_wants_them_before_it_asks_the_compiler(self) -> None:
        asked = mock.Mock()
        with mock.patch.object(cli, "build"), mock.patch.object(bench, "run", return_value=0), \
             mock.patch.object(tools, "ensure", asked.ensure), mock.patch.object(bench, "choose_kernel", asked.choose):
            cli.main(["bench"])
            cli.main(["bench", "--no-build"])
        self.assertEqual(asked.mock_calls, [mock.call.ensure(), mock.call.choose(""), mock.call.choose("")])

    def test_what_tests_need_of_the_network_comes_before_compiling(self) -> None:
        done = mock.Mock()
        with mock.patch.object(tools, "ensure"), mock.patch.object(lock, "build_directory"), mock.patch.object(tree, "make_base", done.base), \
             mock.patch.object(images, "build_kernel", done.kernel), mock.patch.object(qemu, "build", done.qemu), \
             mock.patch.object(guest, "build", done.guest):
            cli.build(variant="debug", checks=True)
        self.assertEqual(done.mock_calls, [mock.call.base(), mock.call.kernel("stock"), mock.call.qemu(), mock.call.kernel("debug"), mock.call.guest()])

    def test_a_compiler_that_there_is_not(self) -> None:
        for given, path, words in (("", "/nonexistent", "run: gcc: No such file.*\n.*'rig/rig tools' installs"),
                                   ("no-such-cc -m64", "/nonexistent", "RIG_CC=no-such-cc -m64: No such file.*\n.*unset RIG_CC"),
                                   ("false", os.environ["PATH"], "RIG_CC=false: .*exit status 1")):
            with self.subTest(given=given), mock.patch.dict(os.environ, {"RIG_CC": given, "PATH": path}), \
                 self.assertRaisesRegex(RigError, words):
                compiler.identity()

    def test_an_old_python(self) -> None:
        with mock.patch.object(sys, "version_info", (3, 9, 2)), self.assertRaisesRegex(SystemExit, "newer is needed(?s:.*)first on PATH"):
            runpy.run_path(str(paths.REPO / "rig" / "rig"))


if __name__ == "__main__":
    unittest.main()
