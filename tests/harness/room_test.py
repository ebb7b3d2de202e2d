# SPDX-License-Identifier: GPL-2.0
"""Errors of the file system that only the user can mend say which variable moves what they are about."""
import errno
import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from rig import fetch, proc, room
from rig.git import git
from rig.ui import RigError


class Errors(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.top = Path(scratch.name)
        for name in ("BUILD", "CACHE"):
            patcher = mock.patch.object(room, name, self.top / name / "hmm-p2p")
            patcher.start()
            self.addCleanup(patcher.stop)

    def error(self, number: int, named: Path | None, where: Path) -> str:
        with self.assertRaises(RigError) as caught, room.errors(where):
            raise OSError(number, os.strerror(number), *([os.fspath(named)] if named else []))
        return str(caught.exception)

    def test_the_variable_is_the_one_of_the_file(self) -> None:
        in_build, in_cache = room.BUILD / "logs" / "x.log", room.CACHE / "downloads" / "x"
        for number in (errno.EACCES, errno.EROFS, errno.ENOSPC):
            with self.subTest(number=number):
                self.assertRegex(self.error(number, in_build, in_cache), "logs/x.log.*(?s:.*), or set RIG_BUILD to a directory")
                self.assertRegex(self.error(number, in_cache, in_build), "downloads/x.*(?s:.*), or set XDG_CACHE_HOME to a directory")
                self.assertRegex(self.error(number, None, in_cache), "or set XDG_CACHE_HOME to a directory")

    def test_a_copy_fails_at_its_destination(self) -> None:
        with self.assertRaisesRegex(RigError, "set RIG_BUILD"), room.errors(self.top):
            raise OSError(errno.ENOSPC, "full", str(room.CACHE / "x"), None, str(room.BUILD / "x"))

    def test_a_directory_above(self) -> None:
        self.assertIn("XDG_CACHE_HOME", self.error(errno.EACCES, room.CACHE.parent, room.CACHE))

    def test_a_program_that_meets_a_full_disk(self) -> None:
        log, script = self.top / "log", "echo some text; echo 'cc: x.o: No space left on device'; echo more; exit 1"
        with mock.patch.object(proc, "BUILD", room.BUILD), self.assertRaises(room.Full) as caught:
            proc.run(["sh", "-c", script], log=log)
        self.assertRegex(str(caught.exception), r"became full:\n +cc: x.o: No space left on device\n.*set RIG_BUILD")
        with self.assertRaisesRegex(RigError, "exit status 1"):
            proc.run(["sh", "-c", "echo no such file; exit 1"], log=log)

    def test_git_on_a_full_disk(self) -> None:
        program = self.top / "bin" / "git"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\necho 'fatal: unable to write loose object file: No space left on device' >&2\nexit 128\n")
        program.chmod(0o755)
        with mock.patch.dict(os.environ, PATH=f"{program.parent}:{os.environ['PATH']}"), \
                self.assertRaisesRegex(room.Full, "became full\n.*set RIG_BUILD"):
            git(room.BUILD / "linux", "add", "--all")

    def test_a_full_disk_ends_the_search_for_a_source(self) -> None:
        def full() -> Path:
            raise room.full(room.CACHE)

        def other() -> Path:
            self.fail("another source was tried")

        with self.assertRaises(room.Full):
            fetch._first("the source", [("here", full), ("there", other)], "hint")

    def test_elsewhere_no_variable_helps(self) -> None:
        self.assertNotIn("set ", self.error(errno.EACCES, self.top / "else", room.CACHE))

    def test_other_errors_are_passed_on(self) -> None:
        with self.assertRaises(IsADirectoryError), room.errors(room.BUILD):
            raise OSError(errno.EISDIR, "Is a directory", "x")


if __name__ == "__main__":
    unittest.main()
