# SPDX-License-Identifier: GPL-2.0
"""What a person types: nothing is taken for something else, and what is wrong is said before anything is built."""
import contextlib
import io
import os
import unittest
from typing import Any
from unittest import mock

from rig import cli, images, kernel, session, suite, tools


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
        self.run_command.assert_called_once_with("plain", ["ls", "-l", "--kernel", "x"], kernel="debug", timeout=5)

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

    def test_numbers_of_the_environment(self) -> None:
        for given in ("3x", "nan", "0"):
            with self.subTest(given=given), mock.patch.dict(os.environ, {"RIG_TIMEOUT_FACTOR": given}):
                self.refused("run plain -- true", f"RIG_TIMEOUT_FACTOR={given} is not a number of at least 0.01")


if __name__ == "__main__":
    unittest.main()
