# SPDX-License-Identifier: GPL-2.0
"""The compiler that builds use, through ccache when it is installed.

Builds always name the plain compiler. ccache comes in through PATH, under the compiler's name: make and meson record the
commands that they ran, and a machine that gets ccache after its first build, or loses it, must not compile everything anew.
"""
import os
import shutil
import subprocess
from pathlib import Path

from . import paths
from .ui import RigError


def jobs() -> int:
    """How many compile jobs to run at once: the cores this process may use."""
    return len(os.sched_getaffinity(0))


def command() -> str:
    """The C compiler as a command line: $RIG_CC, or gcc. Only with `environment()` does it go through ccache."""
    return os.environ.get("RIG_CC") or "gcc"


def environment(root: Path = paths.BUILD) -> dict[str, str]:
    """Variables for a build: ccache keeps its files in the shared cache and ignores where `root` is, which has source and objects.

    In its depend mode ccache does not preprocess what it then compiles anyway: a first build costs little more with it.
    A compiler that $RIG_CC names by a path, or with options, is used without ccache.
    """
    return {
        "PATH": f"{_masquerade()}:{os.environ.get('PATH', os.defpath)}",
        "CCACHE_DIR": str(paths.CACHE / "ccache"),
        "CCACHE_BASEDIR": str(root),
        "CCACHE_NOHASHDIR": "1",
        "CCACHE_DEPEND": "1",
        "CCACHE_SLOPPINESS": "include_file_mtime,include_file_ctime",
        "CCACHE_MAXSIZE": os.environ.get("CCACHE_MAXSIZE", "8G"),
        "LC_ALL": "C.UTF-8",
    }


def identity() -> str:
    """The compiler's own description of itself: part of the key of everything it built."""
    try:
        said = subprocess.run([*command().split(), "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as err:
        given = os.environ.get("RIG_CC")
        raise RigError(f"the C compiler cannot be run: {f'RIG_CC={given}' if given else command()}: {getattr(err, 'strerror', '') or err}",
                       "name another compiler, or unset RIG_CC" if given else "'rig/rig tools' installs it; RIG_CC= names another one") from err
    return said.partition("\n")[0]


def _masquerade() -> Path:
    """A directory for the front of PATH, in which the compiler's name leads to ccache where there is ccache."""
    directory, name, ccache = paths.BUILD / "ccache", command(), shutil.which("ccache")
    directory.mkdir(parents=True, exist_ok=True)
    link = directory / name
    if ccache and link.parent == directory and " " not in name and not (link.is_symlink() and os.readlink(link) == ccache):
        new = directory / f".{name}.{os.getpid()}"
        new.symlink_to(ccache)
        new.replace(link)
    return directory
