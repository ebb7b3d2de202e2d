# SPDX-License-Identifier: GPL-2.0
"""Reproducible squashfs images."""
import inspect
from pathlib import Path

from . import paths
from .proc import run


def make(directory: Path, image: Path, plain_modes: bool = False) -> None:
    """Pack `directory` into `image`: same files, same bytes. Uncompressed, since a guest under TCG reads faster so.

    With `plain_modes` everything is readable by all and writable by its owner, as it would be had the user no umask.
    """
    if plain_modes:
        for path in (directory, *directory.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    temporary = image.with_name(image.name + ".new")
    temporary.unlink(missing_ok=True)
    run(["mksquashfs", directory, temporary, "-noappend", "-no-progress", "-quiet", "-all-root",
         "-mkfs-time", "0", "-all-time", "0", "-no-xattrs", "-noI", "-noD", "-noF", "-processors", "2"],
        log=paths.LOGS / "squashfs.log", what=f"packing {image.name}")
    temporary.chmod(0o644)
    temporary.rename(image)


def recipe() -> str:
    """What an image depends on besides the files in it."""
    return inspect.getsource(make)
