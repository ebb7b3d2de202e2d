# SPDX-License-Identifier: GPL-2.0
"""What the rig takes from its environment, and what it does not."""
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from rig import paths
from rig.git import git


class Directories(unittest.TestCase):
    def test_relative_paths_begin_where_the_rig_was_started(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            said = subprocess.run([sys.executable, "-B", "-c", "from rig import paths; print(paths.BUILD); print(paths.DOWNLOADS)"],
                                  env={**os.environ, "PYTHONPATH": str(paths.REPO), "RIG_BUILD": "here", "XDG_CACHE_HOME": "there"},
                                  cwd=scratch, stdout=subprocess.PIPE, text=True, check=True).stdout
            here = os.path.realpath(scratch)
            self.assertEqual(said.split(), [f"{here}/here", f"{here}/there/hmm-p2p/downloads"])


class Git(unittest.TestCase):
    def test_a_checkout_of_another_user(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            git(Path(scratch), "init", "-q", "--initial-branch=main")
            # As if the files belonged to somebody else: git's own tests have no other way either without root.
            foreign = {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}
            self.assertEqual(git(Path(scratch), "symbolic-ref", "HEAD", env=foreign), "refs/heads/main")


if __name__ == "__main__":
    unittest.main()
