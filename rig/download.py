# SPDX-License-Identifier: GPL-2.0
"""The download cache: files that are what their sha256 says, or an error.

A file is written as NAME.part and gets its name only when its hash is right. A stamp beside it (NAME.ok: sha256, size,
mtime) saves hashing it again on every run; a file that changed since is hashed again.
"""
import errno
import fcntl
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator, Optional, Sequence

from . import room
from .paths import CACHE, DOWNLOADS
from .ui import RigError, Step, say, step

Transfer = Callable[[Sequence[tuple[str, Path]], Callable[[], None]], None]
"""Gets each (URI, path), appending to a path that exists where it can; calls the second argument now and then."""


class Corrupt(RigError):
    """A file is not what it was pinned to be. Never worked around: the user decides."""


@dataclass(frozen=True)
class Pinned:
    """A file with its name in the cache and its sha256. `size` is in bytes, 0 where it is not known."""
    name: str
    sha256: str
    size: int = 0


def sha256_of(path: Path) -> str:
    """The sha256 of a file's content, in lower case hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def locked() -> Iterator[None]:
    """Hold the cache's lock: one process at a time changes it. Says so when it has to wait. Not recursive."""
    with room.errors(CACHE):
        CACHE.mkdir(parents=True, exist_ok=True)
        lock = open(CACHE / "lock", "a+", encoding="utf-8")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            say(f"  waiting for another rig that uses {CACHE} (process {lock.read().strip() or 'unknown'})")
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def cached(file: Pinned) -> Optional[Path]:
    """The verified file, or None when it is not in the cache. Raises Corrupt when its content is wrong."""
    path = DOWNLOADS / file.name
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    stamp, line = path.with_name(path.name + ".ok"), f"{file.sha256} {facts.st_size} {facts.st_mtime_ns}\n"
    try:
        if stamp.read_text() == line:
            return path
    except FileNotFoundError:
        pass
    found = sha256_of(path)
    if found != file.sha256:
        raise Corrupt(f"{path} is corrupt or not the file that is pinned:\n    expected sha256 {file.sha256}\n    found    sha256 {found}",
                      f"remove it and run again: rm '{path}'")
    with room.errors(path):
        try:
            stamp.write_text(line)
        except OSError as err:
            if err.errno not in (errno.EACCES, errno.EROFS):    # a cache that we may only read still serves
                raise
    return path


def obtain(title: str, files: Sequence[tuple[Pinned, str]], transfer: Transfer) -> list[Path]:
    """Get the files that are not in the cache yet from their URIs, verify them, and return all paths in order.

    Goes on where an interrupted download stopped; when what comes out of that is wrong, downloads from the start once.
    Raises Corrupt for a file that arrives with another hash, RigError when it does not arrive. Call with the lock held.
    """
    missing = [(file, uri) for file, uri in files if cached(file) is None]
    if missing:
        with room.errors(DOWNLOADS), step(title) as current:
            DOWNLOADS.mkdir(parents=True, exist_ok=True)
            resumed = [(file, uri) for file, uri in missing if _part(file).exists()]
            room.need(DOWNLOADS, sum(_missing_bytes(file) for file, _ in missing))
            _transfer([(file, uri) for file, uri in missing if not _matches(file)], transfer, current)
            again = [(file, uri) for file, uri in resumed if not _matches(file)]
            for file, _ in again:
                _part(file).unlink(missing_ok=True)
            _transfer(again, transfer, current)
            for file, uri in missing:
                _accept(file, uri)
            current.note = f"{sum((DOWNLOADS / file.name).stat().st_size for file, _ in missing) / 1e6:.1f} MB"
    return [path for file, _ in files if (path := cached(file)) is not None]


def over_https(files: Sequence[tuple[str, Path]], progress: Callable[[], None]) -> None:
    """A Transfer for upstream's servers; honours http_proxy, https_proxy and no_proxy."""
    for uri, path in files:
        have = path.stat().st_size if path.exists() else 0
        request = urllib.request.Request(uri, headers={"Range": f"bytes={have}-"} if have else {})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                with open(path, "ab" if answer.status == 206 else "wb") as out:
                    while block := answer.read(1 << 18):
                        out.write(block)
                        progress()
                if answer.length:   # http.client takes a short body for its end
                    raise ConnectionError(f"{answer.length} bytes short")
        except urllib.error.HTTPError as err:
            if err.code != 416:     # the part is already as long as the file: its hash decides
                raise RigError(f"{uri}: {err.code} {err.reason}") from err
        except urllib.error.URLError as err:
            raise RigError(f"{uri}: {err.reason}") from err
        except (TimeoutError, ConnectionError, http.client.HTTPException) as err:
            raise RigError(f"{uri}: the connection broke ({err or type(err).__name__})", "run again, it goes on from there") from err


def _part(file: Pinned) -> Path:
    return DOWNLOADS / (file.name + ".part")


def _matches(file: Pinned) -> bool:
    return _part(file).exists() and sha256_of(_part(file)) == file.sha256


def _transfer(files: Sequence[tuple[Pinned, str]], transfer: Transfer, current: Step) -> None:
    if not files:
        return
    parts = [_part(file) for file, _ in files]
    total = sum(file.size for file, _ in files)

    def progress() -> None:
        have = sum(part.stat().st_size for part in parts if part.exists())
        current.update(f"{have / 1e6:.1f}" + (f" of {total / 1e6:.1f} MB" if total else " MB"))

    try:
        transfer([(uri, _part(file)) for file, uri in files], progress)
    except RigError as err:
        if room.says_full(err.what):
            raise room.full(DOWNLOADS) from err
        raise


def _missing_bytes(file: Pinned) -> int:
    part = _part(file)
    return max(file.size - (part.stat().st_size if part.exists() else 0), 0)


def _accept(file: Pinned, uri: str) -> None:
    """Give a complete part its name if its content is right."""
    part = _part(file)
    if not part.exists():
        raise RigError(f"{uri} did not arrive", "run again")
    found = sha256_of(part)
    if found != file.sha256:
        size = part.stat().st_size
        part.unlink()
        raise Corrupt(f"{uri} has the wrong content ({size} bytes), refused:\n    expected sha256 {file.sha256}\n    found    sha256 {found}",
                      "a proxy or a mirror may have tampered with it or be out of step: try again later or from another network")
    with open(part, "rb") as whole:
        os.fsync(whole.fileno())
    part.rename(DOWNLOADS / file.name)
