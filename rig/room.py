# SPDX-License-Identifier: GPL-2.0
"""Room on the disk: errors about it that say what to do."""
import errno
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Optional

from .paths import BUILD, CACHE
from .ui import RigError


class Full(RigError):
    """A disk has not enough room. Nothing else is tried then: only the user can make some."""


def need(where: Path, size: int) -> None:
    """Raise Full unless the disk that holds `where` (which need not exist yet) has `size` bytes free."""
    free = _free(where)
    if free < size:
        raise Full(f"the disk that holds {where} is full: {-(-size >> 20)} MiB needed, {free >> 20} MiB free", _hint(where))


def full(where: Path, said: str = "") -> Full:
    """The error for a disk that became full while `where` was written; `said` is what a program said about it."""
    # How much is free now says nothing: what was half written is deleted by now.
    return Full(f"the disk that holds {where} became full" + (f":\n    {said}" if said else ""), _hint(where))


def says_full(text: str) -> bool:
    """Whether a program's complaint is that the disk is full."""
    return "No space left on device" in text or "Disk quota exceeded" in text


@contextmanager
def errors(where: Path) -> Iterator[None]:
    """Turn the file system's errors about `where` (full, read-only, not ours) into ones that say what to do."""
    try:
        yield
    except OSError as err:
        if said := explained(err, where):
            raise said from err
        raise


def explained(err: OSError, where: Path) -> Optional[RigError]:
    """What to do about an error of the file system that only the user can mend; None for others. `where` is what was
    written, for an error that does not name it."""
    named = err.filename2 or err.filename       # the second of two is what was written (a copy names its source first)
    path = Path(os.fsdecode(named)) if isinstance(named, (str, bytes)) else where
    if err.errno in (errno.ENOSPC, errno.EDQUOT):
        return full(path)
    if err.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return RigError(f"cannot read or write {path}: {err.strerror}", "change its permissions" + _elsewhere(path, "a directory of yours"))
    return None


def _hint(where: Path) -> str:
    return "free some space" + _elsewhere(where, "a directory on another disk")


def _elsewhere(where: Path, what: str) -> str:
    for variable, place in (("XDG_CACHE_HOME", CACHE), ("RIG_BUILD", BUILD)):
        if where.is_relative_to(place) or place.is_relative_to(where):
            return f", or set {variable} to {what}"
    return ""


def _free(where: Path) -> int:
    while not where.exists():
        where = where.parent
    return shutil.disk_usage(where).free
