# SPDX-License-Identifier: GPL-2.0
"""One rig at a time changes the build directory; running guests and tests needs no lock."""
import fcntl
from contextlib import contextmanager
from typing import Iterator

from . import paths
from .ui import say


@contextmanager
def build_directory() -> Iterator[None]:
    """Hold the build directory's lock; waits, and says so, while another rig holds it. The kernel drops it on exit."""
    paths.BUILD.mkdir(parents=True, exist_ok=True)
    with open(paths.BUILD / ".lock", "w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"  waiting for another rig that is building in {paths.BUILD}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
