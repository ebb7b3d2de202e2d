# SPDX-License-Identifier: GPL-2.0
"""Room on the disk: errors about it that say what to do."""
import errno
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from .paths import CACHE
from .ui import RigError



def need(where: Path, size: int) -> None:
    """Raise RigError unless the disk that holds `where` (which need not exist yet) has `size` bytes free."""
    free = _free(where)
    if free < size:
        raise RigError(f"the disk that holds {where} is full: {-(-size >> 20)} MiB needed, {free >> 20} MiB free", _hint(where))


def full(where: Path) -> RigError:
    """The error for a disk that became full while `where` was written."""
    return RigError(f"the disk that holds {where} is full ({_free(where) >> 20} MiB free)", _hint(where))


@contextmanager
def errors(where: Path) -> Iterator[None]:
    """Turn the file system's errors about `where` (full, read-only, not ours) into ones that say what to do."""
    try:
        yield
    except OSError as err:
        if err.errno in (errno.ENOSPC, errno.EDQUOT):
            raise full(where) from err
        if err.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise RigError(f"cannot write {err.filename or where}: {err.strerror}",
                           "make it writable" + (", or set XDG_CACHE_HOME to a directory that is" if where.is_relative_to(CACHE) else "")) from err
        raise


def _hint(where: Path) -> str:
    return "free some space" + (", or set XDG_CACHE_HOME to a directory on another disk" if where.is_relative_to(CACHE) else "")


def _free(where: Path) -> int:
    while not where.exists():
        where = where.parent
    return shutil.disk_usage(where).free
