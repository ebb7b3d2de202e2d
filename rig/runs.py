# SPDX-License-Identifier: GPL-2.0
"""Where the logs of each run are kept: build/runs/<date>-<time>, the newest also as build/runs/latest."""
import itertools
import os
import shutil
import time
from pathlib import Path

from . import paths

RUNS = paths.BUILD / "runs"
_KEPT = 30


def new_run_directory() -> Path:
    """A new directory for the logs of one run. The oldest ones are deleted."""
    RUNS.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for suffix in itertools.chain([""], (f"-{n}" for n in itertools.count(2))):
        directory = RUNS / (stamp + suffix)
        try:
            directory.mkdir()
            break
        except FileExistsError:
            continue
    temporary = RUNS / f".latest-{os.getpid()}"
    temporary.symlink_to(directory.name)
    temporary.replace(RUNS / "latest")
    old = sorted(p for p in RUNS.iterdir() if p.is_dir() and not p.is_symlink())
    for path in old[:-_KEPT]:
        shutil.rmtree(path, ignore_errors=True)
    return directory
