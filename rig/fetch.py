# SPDX-License-Identifier: GPL-2.0
"""The pinned inputs: base kernel, base QEMU with its firmware, meson. linux/BASE and qemu/BASE say which.

Each comes from the first of: what the user names (KERNEL_SRC, QEMU_SRC), Debian's archive, upstream's release. What the
user names is taken as it is, if its version is right; everything downloaded is verified against a pinned sha256 first.
Nothing is downloaded twice; with everything in the cache no network is needed.
"""
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Callable, Mapping, Optional, Sequence, TypeVar

from . import apt, download, git, room, unpack
from .paths import CACHE, REPO
from .ui import RigError, say, step

F = TypeVar("F")
T = TypeVar("T")

FIRMWARE_FILES = ("bios-256k.bin", "vgabios.bin", "vgabios-stdvga.bin", "linuxboot_dma.bin", "kvmvapic.bin")
"""What the rig's machines load; `firmware_dir()` has at least these."""


@dataclass(frozen=True)
class Project:
    """One of the two upstream projects: where its pin is, and how to recognise its source."""
    name: str
    base: Path
    variable: str
    version_of: Callable[[Path], str]
    needs: tuple[str, ...]
    built: tuple[str, ...]

    @property
    def pin(self) -> dict[str, Any]:
        """The content of the BASE file."""
        return read_base(self.base)


def linux_version(tree: Path) -> str:
    """The version that a kernel tree's Makefile states, such as 7.3.4 or 7.4-rc1; "" when it is no kernel tree."""
    try:
        text = (tree / "Makefile").read_text(errors="replace")[:4000]
    except OSError:
        return ""
    values = dict(re.findall(r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION)[ \t]*=[ \t]*(\S*)[ \t]*$", text, re.MULTILINE))
    if not values.get("VERSION") or not values.get("PATCHLEVEL"):
        return ""
    sublevel = values.get("SUBLEVEL", "0")
    return values["VERSION"] + "." + values["PATCHLEVEL"] + (f".{sublevel}" if sublevel not in ("", "0") else "") + values.get("EXTRAVERSION", "")


def qemu_version(tree: Path) -> str:
    """The version in a QEMU tree's VERSION file; "" when there is none."""
    try:
        return (tree / "VERSION").read_text(errors="replace").strip()
    except OSError:
        return ""


KERNEL = Project("Linux", REPO / "linux" / "BASE", "KERNEL", linux_version, ("mm/hmm.c", "Kconfig"), (".config", "include/config"))
QEMU = Project("QEMU", REPO / "qemu" / "BASE", "QEMU", qemu_version, ("meson.build", "subprojects/keycodemapdb/meson.build"),
               ("config-host.mak", "build/build.ninja"))


@cache
def read_base(path: Path) -> dict[str, Any]:
    """A BASE file; raises RigError when it is not valid TOML or lacks the version."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as err:
        raise RigError(f"cannot read {path}: {err}", "restore it with 'git checkout'") from err
    if not isinstance(content.get("version"), str) or not isinstance(content.get("debian"), dict):
        raise RigError(f"{path} has no version or no debian line", "restore it with 'git checkout'")
    return content


def upstream_version(debian: str) -> str:
    """The upstream part of a Debian version: 1:10.0.13+ds-0+deb13u1 is 10.0.13."""
    return re.split(r"[+~-]", debian.split(":", 1)[-1], maxsplit=1)[0]


@cache
def archive() -> apt.Archive:
    """The private apt that all downloads of a run share."""
    return apt.Archive()


def deb(pin: Mapping[str, str], base: Path) -> Path:
    """The verified .deb that an inline table of a BASE file pins. Raises RigError when the archive has it no more."""
    file = download.Pinned(apt.deb_name(pin["package"], pin["version"], pin["architecture"]), pin["sha256"])
    found = download.cached(file)
    if found:
        return found
    with download.locked():
        found = download.cached(file)
        if found:
            return found

        def find() -> apt.Package:
            package = _look_up(lambda: archive().binary(pin["package"], pin["version"]))
            if package is None:
                raise _gone(pin, base)
            _same_hash(package.file, file.sha256, package.sha256)
            return package

        def obtain(package: apt.Package) -> Path:
            sized = download.Pinned(file.name, file.sha256, package.size)
            return download.obtain(file.name, [(sized, archive().address(package.uri))], archive().transfer)[0]
        return _current(find, obtain)


def source_package(pin: Mapping[str, str], base: Path) -> dict[str, Path]:
    """The verified files of a Debian source package: those of its .dsc, whose hash is pinned, by file name."""
    dsc = download.Pinned(f"{pin['package']}_{pin['version'].split(':', 1)[-1]}.dsc", pin["sha256"])
    path = download.cached(dsc)
    if path:
        files = dsc_files(path.read_text(encoding="utf-8"))
        have = {file.name: download.cached(file) for file in files}
        if all(have.values()):
            return {name: where for name, where in have.items() if where}
    with download.locked():

        def find() -> dict[str, apt.Package]:
            uris = {p.name: p for p in _look_up(lambda: archive().source(pin["package"], pin["version"])) or []}
            if dsc.name not in uris:
                raise _gone(pin, base)
            _same_hash(dsc.name, dsc.sha256, uris[dsc.name].sha256)
            return uris

        def obtain(uris: dict[str, apt.Package]) -> dict[str, Path]:
            path = download.obtain(dsc.name, [(dsc, uris[dsc.name].uri)], archive().transfer)[0]
            files = [file for file in dsc_files(path.read_text(encoding="utf-8")) if file.name in uris]
            paths = download.obtain(f"{pin['package']} source", [(file, uris[file.name].uri) for file in files], archive().transfer)
            return {where.name: where for where in paths}
        return _current(find, obtain)


def dsc_files(text: str) -> list[download.Pinned]:
    """The files with their sha256 and size that a .dsc lists, the detached signatures of upstream left out."""
    rows = re.findall(r"^ ([0-9a-f]{64}) (\d+) (\S+)$", text, re.MULTILINE)
    return [download.Pinned(name, digest, int(size)) for digest, size, name in rows if not name.endswith(".asc")]


def kernel_source() -> Path:
    """Where the base kernel comes from: the user's tree, repository or tarball, the .deb, or upstream's tarball."""
    return _source(KERNEL)[1]


def qemu_source() -> Path:
    """Likewise for QEMU; for Debian's source package, its original tarball."""
    return _source(QEMU)[1]


def unpack_kernel(dest: Path) -> str:
    """Put the clean source of the base kernel at `dest`, which must not exist; all of it or nothing. Returns where it
    came from, in words."""
    return _unpack(KERNEL, dest)


def unpack_qemu(dest: Path) -> str:
    """Put the clean source of the base QEMU (Debian's with Debian's patches) at `dest`, as `unpack_kernel()` does."""
    return _unpack(QEMU, dest)


def say_if_ignored(project: Project, origin: str, where: Path) -> None:
    """Say, once, that the source that the user names is not used, as `where` was made of `origin` before."""
    given = os.environ.get(f"{project.variable}_SRC")
    if given and origin != _given(project, given):
        _say_once(f"  {project.variable}_SRC is ignored: {where} was made of {origin or 'something else'}; move it away to have it made anew")


@cache
def _say_once(text: str) -> None:
    say(text)


def firmware_dir() -> Path:
    """A directory with the firmware that the rig's machines load (QEMU's --firmwarepath or -L).

    QEMU_FIRMWARE names one; otherwise it is made from Debian's packages, or from pc-bios of upstream's release.
    """
    given = os.environ.get("QEMU_FIRMWARE")
    if given:
        missing = [name for name in FIRMWARE_FILES if not (Path(given) / name).is_file()]
        if missing:
            raise RigError(f"QEMU_FIRMWARE={given} lacks {', '.join(missing)}", "name a directory that has them, or unset it")
        return Path(given)
    pins = QEMU.pin["firmware"]

    def from_debian() -> Path:
        return _collection("firmware", [deb(pin, QEMU.base) for pin in pins], _pick_firmware)

    def from_upstream() -> Path:
        return _collection("firmware", [_upstream(QEMU)], _pick_firmware)
    return _first("QEMU's firmware", [("Debian's archive", from_debian), ("upstream's release", from_upstream)],
                  "set QEMU_FIRMWARE to a directory with " + ", ".join(FIRMWARE_FILES))[1]


def meson(python: Optional[str] = None) -> Optional[Path]:
    """The directory to put on PYTHONPATH for QEMU's configure, or None where `python` (python3) has all it needs."""
    minimum = QEMU.pin["meson_minimum"]
    program = "import importlib.metadata as m; print(m.version('meson')); m.version('pycotap')"
    found = subprocess.run([python or shutil.which("python3") or sys.executable, "-c", program], stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    if found.returncode == 0 and _numbers(found.stdout) >= _numbers(minimum):
        return None
    return _collection("meson", [deb(pin, QEMU.base) for pin in QEMU.pin["meson"]], _pick_python)


def all_inputs() -> None:
    """Get everything that builds need, the guest's packages too, so that they need no network afterwards."""
    from . import packages      # which needs this module
    kernel_source()
    qemu_source()
    firmware_dir()
    meson()
    for pin in KERNEL.pin["stock"]:
        deb(pin, KERNEL.base)
    for name in packages.LISTS:
        packages.debs(name)
    say(f"  every pinned input is in {CACHE}")


# Where a source comes from: each way returns the path, or raises RigError with the reason why not.

def _source(project: Project) -> tuple[str, Path]:
    given = os.environ.get(f"{project.variable}_SRC")
    if given:
        path = Path(given).expanduser().resolve()
        if not path.exists():
            raise RigError(f"{project.variable}_SRC={given} does not exist", "name a tree, a git repository or a tarball, or unset it")
        return _given(project, given), path
    pin = project.pin["debian"]
    label = f"Debian's {pin['package']} {pin['version']}"

    def from_debian() -> Path:
        if "architecture" in pin:
            return deb(pin, project.base)
        return next(path for name, path in source_package(pin, project.base).items() if ".orig.tar." in name)
    return _first(f"{project.name} {project.pin['version']}",
                  [(label, from_debian), ("upstream's release", lambda: _upstream(project))],
                  f"set {project.variable}_SRC to a tree, a git repository with the tag {project.pin['tag']}, or a tarball of that version")


def _given(project: Project, value: str) -> str:
    return f"{project.variable}_SRC={value}"


def _upstream(project: Project) -> Path:
    pin = project.pin["upstream"]
    name, variable = pin["url"].rpartition("/")[2], f"{project.variable}_SHA256"
    digest = pin.get("sha256") or os.environ.get(variable, "").strip().lower()
    if not digest:
        raise RigError(f"{name} has no pinned sha256; look it up or compute it ({pin['check']}) and set {variable}")
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise RigError(f"{variable} is not a sha256 (64 hexadecimal digits): {digest}", f"take it from {pin['check']}")
    file = download.Pinned(name, digest)
    found = download.cached(file)
    if found:
        return found
    with download.locked():
        return download.obtain(name, [(file, pin["url"])], download.over_https)[0]


def _first(what: str, ways: Sequence[tuple[str, Callable[[], Path]]], hint: str) -> tuple[str, Path]:
    """The first way that works. A corrupt file ends the search, as it must not hide behind another source; so does a full disk."""
    reasons = []
    for label, way in ways:
        try:
            return label, way()
        except (download.Corrupt, room.Full):
            raise
        except RigError as err:
            reasons.append(f"    {label}: {str(err).strip()}".replace("\n", "\n      "))
    raise RigError(f"could not get {what}. Tried:\n" + "\n".join(reasons), hint)


def _look_up(query: Callable[[], Any]) -> Any:
    """Ask the package lists; if they do not know, once more after an update."""
    archive().update()
    found = query()
    if not found and not archive().updated:
        archive().update(force=True)
        found = query()
    return found


def _current(find: Callable[[], F], obtain: Callable[[F], T]) -> T:
    """What `obtain` makes of what `find` finds in the package lists. If it does not arrive, both once more after an update:
    the lists may name what has left the archive since."""
    found = find()
    try:
        return obtain(found)
    except (download.Corrupt, room.Full):
        raise
    except RigError as failed:
        if archive().updated:
            raise
        try:
            archive().update(force=True)
        except RigError:
            raise failed    # without a network the lists are not what is wrong
        return obtain(find())


def _same_hash(name: str, pinned: str, offered: str) -> None:
    if offered and offered != pinned:
        raise download.Corrupt(f"Debian's archive offers another {name}:\n    pinned  sha256 {pinned}\n    offered sha256 {offered}",
                               "the pin in BASE or the mirror is wrong: compare with another mirror before you change BASE")


def _gone(pin: Mapping[str, str], base: Path) -> RigError:
    """The error for a pinned version that the archive has no more: what is there now, and the line that moves to it."""
    package, place = pin["package"], base.relative_to(REPO)
    versions = archive().versions(package)
    if not versions:
        return RigError(f"{package} {pin['version']} is not in the archive, nor is any other version of it")
    new = dict(pin)
    new["version"] = versions[0][0]
    for version, _ in versions:     # prefer the pinned upstream version, then the newest
        if upstream_version(version) == upstream_version(pin["version"]):
            new["version"] = version
            break
    if "architecture" in pin:
        found = archive().binary(package, new["version"])
        new["sha256"] = found.sha256 if found else "?"
    else:
        new["sha256"] = next((f.sha256 for f in archive().source(package, new["version"]) if f.name.endswith(".dsc")), "?")
    line = "{ " + ", ".join(f'{key} = "{value}"' for key, value in new.items()) + " }"
    also = ""
    if upstream_version(new["version"]) != upstream_version(pin["version"]):
        also = f"\nand version and tag to {upstream_version(new['version'])} (the patches may need a rebase)"
    return RigError(f"{package} {pin['version']} has left the archive, which now has " +
                    ", ".join(dict.fromkeys(f"{version} ({suite})" for version, suite in versions)),
                    f"to move to it, replace its table in {place} by\n{line}{also}")


# Unpacking.

def _unpack(project: Project, dest: Path) -> str:
    if dest.exists() or dest.is_symlink():
        raise RigError(f"{dest} exists already", "remove it, or move it away, to unpack a clean tree there")
    label, path = _source(project)
    work = dest.with_name(f".{dest.name}.{os.getpid()}.part")
    with room.errors(dest), step(f"{project.name} source"):
        _discard_stale(dest)
        try:
            work.mkdir(parents=True)
            if path.is_dir():
                _copy_tree(project, path, work, label)
            else:
                _extract(project, path, work)
            _check_tree(project, work, label)
            work.rename(dest)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return label


def _discard_stale(dest: Path) -> None:
    """Remove what an unpacking that was killed left beside `dest`."""
    for left in dest.parent.glob(f".{dest.name}.*.part"):
        pid = left.name.split(".")[-2]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(left, ignore_errors=True)


def _copy_tree(project: Project, path: Path, work: Path, label: str) -> None:
    if _is_repository(project, path):
        tag = project.pin["tag"]
        if not git.succeeds(path, "rev-parse", "--verify", "--quiet", f"{tag}^{{commit}}"):
            raise RigError(f"the git repository {path} has no tag {tag}",
                           f"fetch it there with 'git fetch --tags', or set {project.variable}_SRC to a tree without .git or to a tarball")
        unpack.pipe(f"reading {tag} from {path}", ["git", "-C", path, "archive", "--format=tar", tag], ["tar", "-x", "-C", work],
                    env=git.environment())
        return
    _check_tree(project, path, label)   # what else it may be, it may be large
    for name in project.built:
        if (path / name).exists():
            raise RigError(f"{path} has been built in ({name} exists)", "name a clean source tree ('make mrproper' cleans a kernel's)")
    unpack.pipe(f"copying {path}", ["tar", "-c", "-C", path, "."], ["tar", "-x", "-C", work])


def _is_repository(project: Project, path: Path) -> bool:
    """Whether `path` is a git repository, with a work tree or bare. Raises RigError where it should be and git cannot use it."""
    has_work_tree = (path / ".git").exists()
    if not has_work_tree and not (path / "HEAD").exists():
        return False
    asked = git.attempt(path, "rev-parse", "--git-dir", env={"GIT_CEILING_DIRECTORIES": os.fspath(path.parent)})
    if asked.returncode and has_work_tree:
        raise RigError(f"{path} has a .git, and git cannot use it: {asked.stderr.strip()}",
                       f"mend it, or set {project.variable}_SRC to a tree without .git or to a tarball")
    return asked.returncode == 0


def _extract(project: Project, path: Path, work: Path) -> None:
    if path.suffix == ".deb":
        unpack.tarball_in_deb(path, project.pin["tarball"], work)
        return
    if not tarfile.is_tarfile(path):
        raise RigError(f"{path} is neither a source tree nor a tarball", f"set {project.variable}_SRC to one, or unset it")
    unpack.tarball(path, work)
    if path.parent == download.DOWNLOADS and ".orig.tar." in path.name:
        files = source_package(project.pin["debian"], project.base)
        unpack.debian_patches(next(file for name, file in files.items() if ".debian.tar." in name), work)


def _check_tree(project: Project, work: Path, label: str) -> None:
    version, found = project.pin["version"], project.version_of(work)
    if found != version:
        raise RigError(f"{label} is {f'{project.name} {found}' if found else f'not a {project.name} source'}, and {version} is needed",
                       f"set {project.variable}_SRC to {version}, or unset it")
    missing = [name for name in project.needs if not (work / name).exists()]
    if missing:
        raise RigError(f"{label} is incomplete: it lacks {', '.join(missing)}",
                       "name upstream's release tarball" + (", or run 'meson subprojects download' in a tree without .git" if project is QEMU else ""))


def _collection(name: str, sources: Sequence[Path], pick: Callable[[Path, Path], None]) -> Path:
    """A directory below the cache, made once from what `pick` takes out of each unpacked source."""
    key = "-".join(download.sha256_of(path)[:12] for path in sources)
    dest = CACHE / name / key
    if dest.is_dir():
        return dest
    with download.locked(), room.errors(dest):
        if dest.is_dir():
            return dest
        work = dest.with_name(dest.name + ".part")
        shutil.rmtree(work, ignore_errors=True)
        try:
            (work / "out").mkdir(parents=True)
            for path in sources:
                (work / "in").mkdir()
                if path.suffix == ".deb":
                    unpack.deb(path, work / "in")
                else:
                    unpack.tarball(path, work / "in")
                pick(work / "in", work / "out")
                shutil.rmtree(work / "in")
            (work / "out").rename(dest)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return dest


def _pick_firmware(tree: Path, out: Path) -> None:
    for where in ("usr/share/seabios", "usr/share/qemu", "pc-bios"):
        for pattern in ("bios-256k.bin", "vgabios*.bin", "linuxboot_dma.bin", "kvmvapic.bin"):
            for path in sorted((tree / where).glob(pattern)):
                shutil.copy2(path, out / path.name)


def _pick_python(tree: Path, out: Path) -> None:
    shutil.copytree(tree / "usr/lib/python3/dist-packages", out, dirs_exist_ok=True)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d+", version.strip())[:3])
