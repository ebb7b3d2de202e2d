# SPDX-License-Identifier: GPL-2.0
"""Unpacking packages and tarballs into a directory that exists, as any user: owners are not restored, nothing is run.

All functions raise RigError when a tool fails or is missing, OSError(ENOSPC) when the disk is full.
"""
import contextlib
import errno
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Mapping, Optional, Sequence

from . import proc, room
from .ui import RigError

Command = Sequence[str | os.PathLike[str]]


def deb(package: Path, dest: Path, exclude: Sequence[str] = ()) -> None:
    """The files of a .deb, with their modes and times. `exclude` holds tar's patterns of paths, which begin with './'."""
    pipe(f"unpacking {package.name}", ["dpkg-deb", "--fsys-tarfile", package],
         [*_tar(dest), "--delay-directory-restore", *(f"--exclude={pattern}" for pattern in exclude)])


def tarball(path: Path, dest: Path, *members: str) -> None:
    """The content of the one directory in a tarball; or only `members`, with their whole paths."""
    pipe(f"unpacking {path.name}", [*_tar(dest), *([] if members else ["--strip-components=1"]), "-a", "-f", path, *members])


def tarball_in_deb(package: Path, member: str, dest: Path) -> None:
    """The content of the one directory in the .tar.xz that the .deb has as `member`."""
    pipe(f"unpacking {package.name}", ["dpkg-deb", "--fsys-tarfile", package], ["tar", "-x", "-O", "./" + member],
         ["xz", "-dc", "-T0"], [*_tar(dest), "--strip-components=1"])


def debian_patches(packaging: Path, tree: Path) -> None:
    """Apply the patches of a Debian source package (the .debian.tar) to its unpacked original source."""
    tarball(packaging, tree, "debian/patches")
    patches = (tree / "debian" / "patches").resolve()     # patch -d changes directory first
    for name in patch_series((patches / "series").read_text(encoding="utf-8")):
        pipe(f"applying {name}", ["patch", "-p1", "-f", "-s", "--no-backup-if-mismatch", "-d", tree, "-i", patches / name])
    shutil.rmtree(tree / "debian")


def patch_series(text: str) -> list[str]:
    """The patches that a quilt series file names, in order."""
    names = (line.split("#", 1)[0].split() for line in text.splitlines())
    return [words[0] for words in names if words]


def pipe(what: str, *commands: Command, env: Optional[Mapping[str, str]] = None) -> None:
    """Run a pipeline, in the environment `env` if it is given. `what` begins the error when any of it fails."""
    children: list[subprocess.Popen] = []
    with contextlib.ExitStack() as stack:
        errors = [stack.enter_context(tempfile.TemporaryFile()) for _ in commands]
        try:
            for argv, stderr in zip(commands, errors):
                before = children[-1].stdout if children else None
                children.append(proc.spawn(argv, stdin=before or subprocess.DEVNULL, stderr=stderr,
                                           stdout=subprocess.DEVNULL if argv is commands[-1] else subprocess.PIPE,
                                           env={**(os.environ if env is None else env), "LC_ALL": "C"}))
                if before:
                    before.close()      # the child has it; without this the one before would not get SIGPIPE
            failed = [child.wait() != 0 for child in children]
        except FileNotFoundError as err:
            raise RigError(f"{what}: {err.filename} is not installed", "run 'rig/rig tools' to install the build tools") from err
        finally:
            for child in children:
                proc.reap(child)
        complaints = []
        for argv, stderr, bad in zip(commands, errors, failed):
            stderr.seek(0)
            text = stderr.read().decode(errors="replace").strip()
            if bad and text:    # who failed without a word only lost its reader
                complaints.append(f"{os.fspath(argv[0])}: {'; '.join(text.splitlines()[:3])}")
        if any(map(room.says_full, complaints)):
            raise OSError(errno.ENOSPC, what)
        if any(failed):
            raise RigError(f"{what} failed: {complaints[0] if complaints else 'a tool ended without a word'}")


def _tar(dest: Path) -> list[str | os.PathLike[str]]:
    # Without -p the modes would depend on the user's umask, and what root unpacks would differ.
    return ["tar", "-x", "-p", "-C", dest, "--no-same-owner"]
