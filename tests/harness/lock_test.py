# SPDX-License-Identifier: GPL-2.0
"""The lock of the build directory excludes others, also after `rig clean` has deleted what they wait for."""
import argparse
import fcntl
import tempfile
import threading
import unittest
from pathlib import Path
from unittest import mock

from rig import cli, guest, lock, paths, tree


class Lock(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.build = Path(scratch.name) / "build"
        self.waiting = threading.Event()
        for target, name, value in ((paths, "BUILD", self.build), (lock, "say", self.said), (cli, "say", lambda text: None)):
            patcher = mock.patch.object(target, name, value)
            patcher.start()
            self.addCleanup(patcher.stop)

    def said(self, text: str) -> None:
        self.words = text
        self.waiting.set()

    def is_held(self) -> bool:
        with open(self.build / lock.NAME, encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    def wait_in_thread(self) -> tuple[threading.Thread, list[bool]]:
        """A thread that takes the lock, and notes whether that keeps others out. Returns when it waits."""
        found: list[bool] = []

        def take() -> None:
            with lock.build_directory():
                found.append((self.build / lock.NAME).exists() and self.is_held())

        thread = threading.Thread(target=take)
        thread.start()
        self.assertTrue(self.waiting.wait(30))
        return thread, found

    def test_who_waits_is_told_for_whom(self) -> None:
        with lock.build_directory():
            thread, found = self.wait_in_thread()
            self.assertRegex(self.words, r"waiting for another rig .*\(process \d+, rig.*, since \d\d:\d\d:\d\d\)")
        thread.join()
        self.assertEqual(found, [True])
        self.assertFalse(self.is_held())

    def test_a_deleted_lock_is_no_lock(self) -> None:
        with lock.build_directory():
            thread, found = self.wait_in_thread()
            guest.remove(self.build)
        thread.join()
        self.assertEqual(found, [True])

    def clean(self) -> None:
        with mock.patch.object(tree, "refuse_if_unsaved"):
            cli._clean(argparse.Namespace(cache=False))

    def test_clean_deletes_what_is_read_only_too(self) -> None:
        (self.build / "deep").mkdir(parents=True)
        (self.build / "deep" / "file").touch()
        (self.build / "deep").chmod(0o500)
        self.clean()
        self.assertFalse(self.build.exists())

    def test_clean_does_not_claim_what_it_has_not_done(self) -> None:
        (self.build / "file").mkdir(parents=True)
        with mock.patch.object(guest, "remove", side_effect=PermissionError), mock.patch.object(cli, "say") as said, \
             self.assertRaises(PermissionError):
            self.clean()
        said.assert_not_called()
        self.assertFalse(self.is_held())


if __name__ == "__main__":
    unittest.main()
