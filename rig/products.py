# SPDX-License-Identifier: GPL-2.0
"""Built products kept by a hash of their inputs, in the cache that all checkouts share.

A product is a directory of files. It is stored and taken out whole, so a half-written one is never seen; losing the
cache loses only time.
"""
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Iterable

from . import paths

PRODUCTS = paths.CACHE / "products"
STAMP = "key"
"""The file of a product that says what it was made from; not every product has one."""
_KEEP = 12


def digest(*parts: object) -> str:
    """A hash of `parts`: strings and bytes as they are, paths by their names and contents (directories with all files)."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            files = sorted(p for p in part.rglob("*") if p.is_file()) if part.is_dir() else [part]
            for file in files:
                name = file.relative_to(part).as_posix() if part.is_dir() else file.name
                total.update(b"\0f" + name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
        else:
            data = part if isinstance(part, bytes) else str(part).encode()
            total.update(b"\0s" + hashlib.sha256(data).digest())
    return total.hexdigest()


def take(kind: str, key: str, destination: Path) -> bool:
    """Put the product `kind`/`key` at `destination` if it is cached; whether it was.

    Where its files include a stamp, `key`, an end in the middle leaves none: the files of two products never pass for one.
    """
    stored = PRODUCTS / kind / key
    if not stored.is_dir():
        return False
    try:
        os.utime(stored)
    except OSError:
        pass        # a cache that we may only read still serves
    destination.mkdir(parents=True, exist_ok=True)
    copies: list[Path] = []
    try:
        for file in stored.iterdir():
            copies.append(destination / f".{file.name}.new")
            shutil.copy2(file, copies[-1])
    except BaseException as err:
        for copy in copies:
            copy.unlink(missing_ok=True)
        if isinstance(err, FileNotFoundError) and not stored.is_dir():
            return False    # another rig has just forgotten it
        raise
    (destination / STAMP).unlink(missing_ok=True)
    for copy in sorted(copies, key=lambda c: c.name == f".{STAMP}.new"):
        copy.rename(destination / copy.name.removeprefix(".").removesuffix(".new"))
    return True


def has(kind: str, key: str) -> bool:
    """Whether the product `kind`/`key` is cached."""
    return (PRODUCTS / kind / key).is_dir()


def keep(kind: str, key: str, files: Iterable[Path]) -> None:
    """Store copies of `files` as the product `kind`/`key`, and forget the products of that kind not used for longest."""
    shelf = PRODUCTS / kind
    try:
        shelf.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=shelf, prefix=".new-", ignore_cleanup_errors=True) as scratch:
            whole = Path(scratch) / key
            whole.mkdir()
            for file in files:
                shutil.copy2(file, whole / file.name)
            if not (shelf / key).exists():
                whole.rename(shelf / key)
            for old in sorted((p for p in shelf.iterdir() if not p.name.startswith(".")),
                              key=lambda p: p.stat().st_mtime, reverse=True)[_KEEP:]:
                old.rename(Path(scratch) / old.name)    # so that nobody takes half of it
    except OSError:
        pass        # a cache that cannot be written costs time, not results


def mirror(source: Path, copy: Path) -> None:
    """Make `copy` hold the files of the directory `source` and no others. A file that is the same keeps its time stamp."""
    wanted = {file.relative_to(source) for file in source.rglob("*") if file.is_file()}
    for file in [f for f in copy.rglob("*") if not f.is_dir()]:
        if file.relative_to(copy) not in wanted:
            file.unlink()
    for name in sorted(wanted):
        if not (copy / name).exists() or (copy / name).read_bytes() != (source / name).read_bytes():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, copy / name)


def stamp_matches(stamp: Path, key: str) -> bool:
    """Whether `stamp` says that what lies beside it was made from `key`."""
    try:
        return stamp.read_text() == key
    except OSError:
        return False
