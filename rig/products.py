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
    """Put the product `kind`/`key` at `destination` if it is cached; whether it was."""
    stored = PRODUCTS / kind / key
    if not stored.is_dir():
        return False
    os.utime(stored)
    destination.mkdir(parents=True, exist_ok=True)
    for file in stored.iterdir():
        temporary = destination / f".{file.name}.new"
        shutil.copy2(file, temporary)
        temporary.rename(destination / file.name)
    return True


def has(kind: str, key: str) -> bool:
    """Whether the product `kind`/`key` is cached."""
    return (PRODUCTS / kind / key).is_dir()


def keep(kind: str, key: str, files: Iterable[Path]) -> None:
    """Store copies of `files` as the product `kind`/`key`, and forget the products of that kind not used for longest."""
    shelf = PRODUCTS / kind
    shelf.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=shelf, prefix=".new-"))
    try:
        for file in files:
            shutil.copy2(file, scratch / file.name)
        scratch.chmod(0o755)
        if not (shelf / key).exists():
            scratch.rename(shelf / key)
    except OSError:
        pass        # a cache that cannot be written costs time, not results
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for old in sorted((p for p in shelf.iterdir() if not p.name.startswith(".")),
                      key=lambda p: p.stat().st_mtime, reverse=True)[_KEEP:]:
        shutil.rmtree(old, ignore_errors=True)


def stamp_matches(stamp: Path, key: str) -> bool:
    """Whether `stamp` says that what lies beside it was made from `key`."""
    try:
        return stamp.read_text() == key
    except OSError:
        return False


