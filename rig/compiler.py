# SPDX-License-Identifier: GPL-2.0
"""The compiler that builds use, through ccache when it is installed."""
import os
import shutil
import subprocess

from . import paths


def jobs() -> int:
    """How many compile jobs to run at once: the cores this process may use."""
    return len(os.sched_getaffinity(0))


def command() -> str:
    """The C compiler as a command line: `ccache gcc`, or $RIG_CC (or gcc) alone where there is no ccache."""
    compiler = os.environ.get("RIG_CC", "gcc")
    return f"ccache {compiler}" if shutil.which("ccache") else compiler


def environment() -> dict[str, str]:
    """Variables for a build: ccache keeps its files in the shared cache and ignores where the checkout is.

    In its depend mode ccache does not preprocess what it then compiles anyway: a first build costs little more with it.
    """
    return {
        "CCACHE_DIR": str(paths.CACHE / "ccache"),
        "CCACHE_BASEDIR": str(paths.BUILD),
        "CCACHE_NOHASHDIR": "1",
        "CCACHE_DEPEND": "1",
        "CCACHE_SLOPPINESS": "include_file_mtime,include_file_ctime",
        "CCACHE_MAXSIZE": os.environ.get("CCACHE_MAXSIZE", "8G"),
        "LC_ALL": "C.UTF-8",
    }


def identity() -> str:
    """The compiler's own description of itself: part of the key of everything it built."""
    return subprocess.run([os.environ.get("RIG_CC", "gcc"), "--version"], capture_output=True, text=True,
                          check=True).stdout.splitlines()[0]
