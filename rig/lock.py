# SPDX-License-Identifier: GPL-2.0
"""One rig at a time changes the build directory; running guests and tests needs no lock."""
import fcntl
import os
import sys
import time
from contextlib import contextmanager
from typing import Iterator, TextIO

from . import paths
from .ui import say

NAME = ".lock"
"""The file in the build directory."""


@contextmanager
def build_directory() -> Iterator[None]:
    """Hold the build directory's lock; waits, and says for whom, while another rig holds it. The kernel drops it on exit."""
    with _locked() as file:
        file.truncate(0)
        file.write(f"process {os.getpid()}, {' '.join(['rig', *sys.argv[1:2]])}, since {time.strftime('%H:%M:%S')}")
        file.flush()
        yield


def _locked() -> TextIO:
    path = paths.BUILD / NAME
    while True:
        paths.BUILD.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            say(f"  waiting for another rig that is building in {paths.BUILD} ({file.read().strip() or 'which has just begun'})")
            fcntl.flock(file, fcntl.LOCK_EX)
        # `rig clean` deletes the file that others wait for: the lock of that excludes nobody.
        if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            return file
        file.close()
