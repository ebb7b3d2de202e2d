# SPDX-License-Identifier: GPL-2.0
"""What the rig takes from its environment, and what it does not."""
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from rig import environment, paths
from rig.git import git
from rig.ui import RigError


class Directories(unittest.TestCase):
    def test_relative_paths_begin_where_the_rig_was_started(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            said = subprocess.run([sys.executable, "-B", "-c", "from rig import paths; print(paths.BUILD); print(paths.DOWNLOADS)"],
                                  env={**os.environ, "PYTHONPATH": str(paths.REPO), "RIG_BUILD": "here", "XDG_CACHE_HOME": "there"},
                                  cwd=scratch, stdout=subprocess.PIPE, text=True, check=True).stdout
            here = os.path.realpath(scratch)
            self.assertEqual(said.split(), [f"{here}/here", f"{here}/there/hmm-p2p/downloads"])

    def test_a_user_without_a_home(self) -> None:
        program = ("import os, pwd, runpy, sys; os.environ.pop('HOME', None)\n"
                   "def nobody(uid): raise KeyError(uid)\n"
                   "pwd.getpwuid = nobody; sys.argv = ['rig', 'topologies']; runpy.run_path(sys.orig_argv[-1], run_name='__main__')")
        for cache, status, words in (("", 1, r"^rig: error: .*\n  set XDG_CACHE_HOME"), ("/there", 0, "^$")):
            with self.subTest(cache=cache):
                done = subprocess.run([sys.executable, "-B", "-c", program, paths.REPO / "rig" / "rig"], env={**os.environ, "XDG_CACHE_HOME": cache},
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
                self.assertEqual(done.returncode, status)
                self.assertRegex(done.stderr, words)


class Numbers(unittest.TestCase):
    def number(self, given: str, default: float) -> float:
        with mock.patch.dict(os.environ, {"RIG_N": given}):
            return environment.number("RIG_N", default)

    def test_numbers(self) -> None:
        self.assertEqual([self.number("", 7), self.number("3", 7), self.number("1.5", 1.0)], [7, 3, 1.5])

    def test_others(self) -> None:
        for given, default, words in (("1.5", 1, "whole number of at least 0"), ("-1", 1, "whole number"), ("3x", 1.0, "RIG_N=3x is not a number"),
                                      ("inf", 1.0, "number")):
            with self.subTest(given=given), self.assertRaisesRegex(RigError, words):
                self.number(given, default)


class Git(unittest.TestCase):
    def test_a_checkout_of_another_user(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            git(Path(scratch), "init", "-q", "--initial-branch=main")
            # As if the files belonged to somebody else: git's own tests have no other way either without root.
            foreign = {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}
            self.assertEqual(git(Path(scratch), "symbolic-ref", "HEAD", env=foreign), "refs/heads/main")

    def test_what_git_says_on_stdout_alone(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            git(Path(scratch), "init", "-q")
            with self.assertRaisesRegex(RigError, "failed in .*\n(?s:.*)nothing to commit"):
                git(Path(scratch), "commit", "-m", "empty", env={"GIT_AUTHOR_NAME": "dev", "GIT_AUTHOR_EMAIL": "dev@example.invalid"})


if __name__ == "__main__":
    unittest.main()
