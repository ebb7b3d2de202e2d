# SPDX-License-Identifier: GPL-2.0
"""The guest's Debian packages: what is asked for (guest/*.list), what that came to (guest/packages.lock), the .debs.

The lock file makes builds the same everywhere and, with a warm cache, independent of the network. A distribution drops
old versions, so a lock cannot be obeyed for ever: then the lists are resolved anew from the signed archive, the
difference is reported, and the result stays in build/ until somebody commits it as the new lock.
"""
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

from . import apt, download, fetch
from .paths import BUILD, REPO
from .ui import RigError, say

GUEST = REPO / "guest"
LISTS = {"packages": GUEST / "packages.list", "sysroot": GUEST / "sysroot.list"}
"""The name of each image of packages and the list that it is resolved from."""
LOCK = GUEST / "packages.lock"
DRIFTED = BUILD / "guest" / "packages.lock"

_HEADER = """\
# SPDX-License-Identifier: GPL-2.0
# What guest/*.list came to, written by 'rig/rig fetch --update-lock'.
# list NAME SHA256-OF-LIST, then: NAME PACKAGE VERSION ARCHITECTURE SIZE SHA256 PATH
"""


@dataclass(frozen=True)
class Lock:
    """A lock file: for each list its sha256 when it was resolved, and the packages."""
    lists: dict[str, str]
    packages: dict[str, list[apt.Package]]

    def holds(self, name: str) -> bool:
        """Whether the list called `name` is still what was resolved."""
        return self.lists.get(name) == list_digest(LISTS[name])


def parse_list(text: str) -> tuple[list[str], list[str]]:
    """The packages that a list asks for, and those that it leaves out."""
    words = [line.split("#", 1)[0].strip() for line in text.splitlines()]
    return [w for w in words if w and not w.startswith("-")], [w[1:] for w in words if w.startswith("-")]


def list_digest(path: Path) -> str:
    """A hash of what a list says, comments and order apart."""
    wanted, left_out = parse_list(path.read_text(encoding="utf-8"))
    return hashlib.sha256(" ".join(sorted(wanted) + ["-"] + sorted(left_out)).encode()).hexdigest()


def parse_lock(text: str, path: Path = LOCK) -> Lock:
    """Read a lock file's text; raises RigError that names the line when it is malformed."""
    lists: dict[str, str] = {}
    packages: dict[str, list[apt.Package]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        if words[0] == "list" and len(words) == 3:
            lists[words[1]] = words[2]
        elif len(words) == 7 and words[4].isdigit() and len(words[5]) == 64:
            packages.setdefault(words[0], []).append(apt.Package(words[1], words[2], words[3], words[6], int(words[4]), words[5]))
        else:
            raise RigError(f"{path}, line {number}: not a list or a package: {line}", "restore it with 'git checkout', or run 'rig/rig fetch --update-lock'")
    return Lock(lists, packages)


def format_lock(lock: Lock) -> str:
    """The text of a lock file, the same for the same packages."""
    lines = [f"list {name} {digest}" for name, digest in sorted(lock.lists.items())]
    for name, packages in sorted(lock.packages.items()):
        lines += [f"{name} {p.name} {p.version} {p.architecture} {p.size} {p.sha256} {p.uri}" for p in sorted(packages, key=lambda p: p.name)]
    return _HEADER + "\n".join(lines) + "\n"


def differences(old: Sequence[apt.Package], new: Sequence[apt.Package]) -> list[str]:
    """How two resolutions differ, one line for each package."""
    before, after = {p.name: p for p in old}, {p.name: p for p in new}
    lines = []
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            lines.append(f"{name} {before[name].version} is not needed any more")
        elif name not in before:
            lines.append(f"{name} {after[name].version} is new")
        elif before[name].version != after[name].version:
            lines.append(f"{name} {before[name].version} is now {after[name].version}")
        elif before[name].sha256 != after[name].sha256:
            lines.append(f"{name} {before[name].version} has another sha256 now")
    return lines


def debs(name: str) -> list[Path]:
    """The verified .debs of the list called `name`, sorted by package; downloads those that are not in the cache.

    Raises RigError when they can neither be had as locked nor resolved anew.
    """
    committed = _read(LOCK)
    locks = [lock for lock in (committed, _read(DRIFTED)) if lock.holds(name)]
    for lock in locks:
        if all(download.cached(_pinned(p)) for p in lock.packages[name]):
            if lock is not committed:
                _report(committed, lock, name)
            return _download(name, lock)
    with download.locked():
        reason = f"{LOCK.relative_to(REPO)} is not of this list"
        for lock in locks:
            try:
                return _download(name, lock)
            except download.Corrupt:
                raise
            except RigError as err:
                reason = str(err)
        try:
            fetch.archive().update(force=True)
            found = _resolve(name)
        except RigError as err:
            raise RigError(f"could not get the guest's packages ({name}). Tried:\n    as locked: {reason}\n    resolved anew: {err}",
                           "check the network; with a filled cache none is needed") from err
        drifted = _read(DRIFTED)
        lock = Lock({**drifted.lists, name: list_digest(LISTS[name])}, {**drifted.packages, name: found})
        DRIFTED.parent.mkdir(parents=True, exist_ok=True)
        _write(DRIFTED, lock)
        _report(committed, lock, name)
        return _download(name, lock)


def update_lock() -> list[str]:
    """Resolve all lists anew from the archive and write guest/packages.lock. Returns how it differs from before."""
    with download.locked():
        fetch.archive().update(force=True)
        old = _read(LOCK)
        new = Lock({name: list_digest(path) for name, path in LISTS.items()}, {name: _resolve(name) for name in LISTS})
    _write(LOCK, new)
    return [f"{name}: {line}" for name in LISTS for line in differences(old.packages.get(name, []), new.packages[name])]


def _resolve(name: str) -> list[apt.Package]:
    wanted, left_out = parse_list(LISTS[name].read_text(encoding="utf-8"))
    return [p for p in fetch.archive().resolve(wanted) if p.name not in left_out]


def _report(committed: Lock, lock: Lock, name: str) -> None:
    lines = differences(committed.packages.get(name, []), lock.packages[name])
    if lines:
        say(f"  {LOCK.relative_to(REPO)} cannot be obeyed; in the list '{name}' instead:\n" + "\n".join("    " + line for line in lines))
        say("  'rig/rig fetch --update-lock' writes the new versions to the lock file")


def _download(name: str, lock: Lock) -> list[Path]:
    packages = lock.packages[name]
    missing = any(download.cached(_pinned(p)) is None for p in packages)
    files = [(_pinned(p), fetch.archive().address(p.uri) if missing else "") for p in packages]
    return download.obtain(f"guest packages ({name})", files, fetch.archive().transfer)


def _pinned(package: apt.Package) -> download.Pinned:
    return download.Pinned(package.file, package.sha256, package.size)


def _read(path: Path) -> Lock:
    try:
        return parse_lock(path.read_text(encoding="utf-8"), path)
    except FileNotFoundError:
        return Lock({}, {})


def _write(path: Path, lock: Lock) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(format_lock(lock), encoding="utf-8")
    part.rename(path)
