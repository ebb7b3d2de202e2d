# SPDX-License-Identifier: GPL-2.0
"""Reproducible squashfs images."""
from pathlib import Path

from . import paths
from .proc import run


def make(directory: Path, image: Path) -> None:
    """Pack `directory` into `image`: same files, same bytes. Uncompressed, since a guest under TCG reads faster so."""
    temporary = image.with_name(image.name + ".new")
    temporary.unlink(missing_ok=True)
    run(["mksquashfs", directory, temporary, "-noappend", "-no-progress", "-quiet", "-all-root",
         "-mkfs-time", "0", "-all-time", "0", "-no-xattrs", "-noI", "-noD", "-noF", "-processors", "2"],
        log=paths.LOGS / "squashfs.log", what=f"packing {image.name}")
    temporary.rename(image)
