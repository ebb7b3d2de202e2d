# SPDX-License-Identifier: GPL-2.0
"""The guest: an initramfs and a stack of squashfs images, built without root and without touching the host.

The images are layers that guest/init/early.c stacks under a tmpfs in the order of the virtio disks: the packages, what is
ours (guest/files, the programs of guest/src, what the caller adds), the kernel's modules. Each is rebuilt only when its
inputs changed, and the same inputs give the same bytes.
"""
import fcntl
import gzip
import hashlib
import io
import json
import lzma
import os
import re
import shutil
import stat
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterable, Iterator, Mapping, Optional, Sequence

from . import compiler, download, packages, proc, products, room, squashfs, unpack
from .packages import GUEST
from .paths import BUILD, LOGS
from .ui import RigError, step

OUT = BUILD / "guest"
BIN = "opt/hmm-p2p/bin"
"""Where our programs are in the guest."""

EARLY_MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "virtio_rng", "squashfs", "overlay", "9pnet_virtio", "9p")
"""What the initramfs loads where the kernel has it as a module; ours have all of it built in."""

_MOUNT_POINTS = ("dev", "proc", "sys", "run", "tmp", "host", "mnt", "root")
_USR_MERGE = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
# Links that maintainer scripts would make.
_LINKS = {"usr/bin/sh": "dash", "usr/bin/awk": "mawk", "etc/mtab": "/proc/self/mounts"}
# Commands that busybox serves where no package brings them.
_APPLETS = ("clear", "cpio", "gunzip", "gzip", "hexdump", "less", "nc", "reset", "tar", "time", "vi", "wget", "xxd", "zcat")
_INIT_APPLETS = ("halt", "poweroff", "reboot")
_UNWANTED = tuple(f"./usr/share/{name}/*" for name in ("bash-completion", "bug", "doc", "doc-base", "i18n", "info", "lintian",
                                                      "locale", "man", "zsh"))
_CFLAGS = ("-std=gnu11", "-O2", "-g0", "-Wall", "-Wextra")


@dataclass(frozen=True)
class Image:
    """What a machine boots: the initramfs and the layers, lowest first."""
    initramfs: Path
    layers: tuple[Path, ...]


def build(extra_dirs: Optional[Mapping[str, Path]] = None, modules: Optional[Path] = None, only: Sequence[str] = ()) -> Image:
    """Build what is out of date and return the image.

    `extra_dirs` maps directories of the guest ("opt/hmm-p2p/tests") to ones of the host whose content goes there.
    `modules` is an INSTALL_MOD_PATH (it has lib/modules/RELEASE) of the kernel that will boot; with `only`, names of
    modules, just these and what they depend on go in (a distribution's kernel has thousands).
    """
    layers = [packages_layer(), _own_layer(extra_dirs or {})]
    source = _modules_dir(modules, only) if modules else None
    if source:
        layers.append(_modules_layer(source))
    return Image(_initramfs(source), tuple(layers))


def built(release: str = "") -> Image:
    """Where `build()` has put the image, out of date or not there as it may be; with modules that of the kernel `release`."""
    modules = (OUT / f"modules-{release}.squashfs",) if release else ()
    return Image(_initramfs_file(release), (OUT / "packages.squashfs", OUT / "own.squashfs", *modules))


def _initramfs_file(release: str) -> Path:
    return OUT / (f"initramfs-{release}.cpio" if release else "initramfs.cpio")


def packages_layer() -> Path:
    """The squashfs image of the distribution's packages."""
    debs = packages.debs("packages")

    def make(work: Path) -> None:
        root = work / "root"
        _directory(root)
        _unpack(debs, root)
        for name in _MOUNT_POINTS:
            _directory(root / name)
        links = {**_LINKS, **{f"usr/bin/{name}": "busybox" for name in _APPLETS},
                 **{f"usr/sbin/{name}": "../bin/busybox" for name in _INIT_APPLETS}}
        for name, target in links.items():
            if not os.path.lexists(root / name):
                (root / name).symlink_to(target)
        squashfs.make(root, work / "out")
    return _up_to_date(OUT / "packages.squashfs", [*(d.name for d in debs), *packages_digest(debs), _LINKS, _APPLETS, _UNWANTED, squashfs.recipe()], make,
                       shared=True)


def packages_digest(debs: Sequence[Path]) -> list[str]:
    """The sha256 of each package, from the stamps of the download cache."""
    return [d.with_name(d.name + ".ok").read_text().split()[0] if d.with_name(d.name + ".ok").exists() else download.sha256_of(d)
            for d in debs]


def sysroot() -> Path:
    """The directory with the headers and libraries that programs for the guest are built against."""
    debs = packages.debs("sysroot")

    def make(work: Path) -> None:
        (work / "out").mkdir()
        for name, target in _USR_MERGE.items():
            (work / "out" / target).mkdir(parents=True, exist_ok=True)
            (work / "out" / name).symlink_to(target)
        _unpack(debs, work / "out")
    return _up_to_date(OUT / "sysroot", [*(d.name for d in debs), *packages_digest(debs)], make)


def cross_compiler() -> list[str]:
    """The command that compiles and links a C program for the guest: the host's compiler with the guest's sysroot."""
    root = sysroot()
    libraries = root / "usr" / "lib" / "x86_64-linux-gnu"
    # gcc looks for startup files and libraries beside itself before it looks in a sysroot; -B and -L come first. The
    # guest's loader searches the same directory by itself, so nothing needs an rpath.
    return ["env", "-u", "CPATH", "-u", "C_INCLUDE_PATH", "-u", "LIBRARY_PATH", *compiler.command().split(),
            f"--sysroot={root}", f"-B{libraries}", f"-L{libraries}"]


def programs() -> Path:
    """The directory with the program of every guest/src/*.c, rebuilt when a source or the compiler changed.

    A comment line `Link: -lNAME ...` in a source names the libraries that it needs.
    """
    sources = sorted((GUEST / "src").glob("*.c"))
    headers = sorted((GUEST / "src").glob("*.h"))
    cc = cross_compiler()

    def make(work: Path) -> None:
        (work / "out").mkdir()
        for source in sources:
            proc.run([*cc, *_CFLAGS, f"-ffile-prefix-map={GUEST}=guest", f"-ffile-prefix-map={work}=.", "-Wl,--build-id=none",
                      "-o", work / "out" / source.stem, source, *link_flags(source.read_text(encoding="utf-8"))],
                     log=LOGS / "guest.log", env=compiler.environment(), what=f"compiling guest/src/{source.name}")
    return _up_to_date(OUT / "programs", [[[p.name, p.read_text(encoding="utf-8")] for p in sources + headers], compiler.identity(), _CFLAGS,
                                          (OUT / "sysroot.key").read_text(encoding="ascii")], make)


def link_flags(source: str) -> list[str]:
    """The libraries that a C source asks for in a comment line `Link: -lNAME ...`."""
    found = re.search(r"^[ \t/*]*Link:((?:[ \t]+-l\S+)+)[ \t]*$", source, re.MULTILINE)
    return found.group(1).split() if found else []


def load_order(needs: Mapping[str, Sequence[str]], names: Iterable[str]) -> list[str]:
    """The paths of the modules called `names` and of all they depend on, in the order to load them.

    `needs` is what `parse_modules_dep()` returns; names that it does not have (built in) are passed over.
    """
    by_name = {module_name(path): path for path in needs}
    order: dict[str, None] = {}

    def add(path: str) -> None:
        for needed in reversed(needs[path]):
            if needed not in order:
                add(needed)
        order[path] = None
    for name in names:
        if name in by_name:
            add(by_name[name])
    return list(order)


def parse_modules_dep(text: str) -> dict[str, list[str]]:
    """modules.dep: each module's path and the paths that it depends on, nearest first."""
    found = {}
    for line in text.splitlines():
        path, colon, needed = line.partition(":")
        if colon:
            found[path.strip()] = needed.split()
    return found


def module_name(path: str) -> str:
    """A module's name from its path: kernel/fs/9p/9p.ko.xz is 9p; dashes count as underscores."""
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def cpio(entries: Iterable[tuple[str, int, bytes]]) -> bytes:
    """A newc cpio archive of (path, mode, content) with root as owner and no times, plus the nodes of /dev/console and
    /dev/null, which making files would need root for."""
    nodes = [("dev/console", stat.S_IFCHR | 0o600, b"", (5, 1)), ("dev/null", stat.S_IFCHR | 0o666, b"", (1, 3)),
             ("TRAILER!!!", 0, b"", (0, 0))]
    out = io.BytesIO()
    for inode, (name, mode, content, device) in enumerate([*((*entry, (0, 0)) for entry in entries), *nodes], 1):
        path = name.encode() + b"\0"
        fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(path), 0)
        out.write(b"070701" + b"".join(b"%08X" % field for field in fields) + path)
        out.write(b"\0" * (-out.tell() % 4) + content)
        out.write(b"\0" * (-out.tell() % 4))
    return out.getvalue()


def tree_digest(top: Path) -> str:
    """A hash of everything below a directory: paths, modes, contents, link targets; not times or owners."""
    total = hashlib.sha256()
    for path in sorted(top.rglob("*")):
        facts = path.lstat()
        if stat.S_ISLNK(facts.st_mode):
            content = os.readlink(path)
        elif stat.S_ISREG(facts.st_mode):
            content = download.sha256_of(path)
        else:
            content = ""
        total.update(json.dumps([os.fspath(path.relative_to(top)), stat.S_IFMT(facts.st_mode), facts.st_mode & 0o777, content]).encode())
    return total.hexdigest()


def _own_layer(extra_dirs: Mapping[str, Path]) -> Path:
    """The layer over the packages: guest/files, our programs, what the caller adds."""
    built = programs()
    parts = {"": GUEST / "files", BIN: built, **{name.strip("/"): Path(path) for name, path in extra_dirs.items()}}
    for name, path in parts.items():
        if not path.is_dir():
            raise RigError(f"{path} is not a directory, and the guest image needs it for /{name}")

    def make(work: Path) -> None:
        root = work / "root"
        for name, path in parts.items():
            shutil.copytree(path, root / name, symlinks=True, dirs_exist_ok=True)
        (root / "usr/sbin").mkdir(parents=True, exist_ok=True)
        (root / "usr/sbin/init").symlink_to(f"/{BIN}/init")
        squashfs.make(root, work / "out", plain_modes=True)
    return _up_to_date(OUT / "own.squashfs", [{name: tree_digest(path) for name, path in sorted(parts.items())}, squashfs.recipe()], make)


def _up_to_date(dest: Path, inputs: object, make: Callable[[Path], None], shared: bool = False) -> Path:
    """`dest`, made by `make` (which leaves it as `out` in the directory it is given) unless `inputs` are unchanged.

    A `shared` one, which must be a file, is also kept in the cache for other checkouts.
    """
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True, default=os.fspath).encode()).hexdigest()
    stamp = dest.with_name(dest.name + ".key")
    if dest.exists() and products.stamp_matches(stamp, key):
        return dest
    with room.errors(dest), build_lock(dest):
        if dest.exists() and products.stamp_matches(stamp, key):
            return dest
        stamp.unlink(missing_ok=True)
        taken = shared and products.take(f"guest-{dest.stem}", key, dest.parent)
        if not taken:
            with step(f"guest {dest.name}") as shown:
                work = dest.with_name(f".{dest.name}.part")
                remove(work)
                work.mkdir(parents=True)
                try:
                    make(work)
                    if dest.is_dir():
                        remove(dest)
                    (work / "out").rename(dest)
                finally:
                    remove(work)
                if dest.is_file():
                    shown.note = f"{dest.stat().st_size / 1e6:.1f} MB"
        stamp.write_text(key, encoding="ascii")
        if shared and not taken:
            products.keep(f"guest-{dest.stem}", key, [dest])
    return dest


@contextmanager
def build_lock(dest: Path) -> Iterator[None]:
    """One thread of one process at a time builds `dest` (two rigs may run at once)."""
    dest.parent.mkdir(parents=True, exist_ok=True)
    with open(dest.with_name(f".{dest.name}.lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _directory(path: Path) -> None:
    """Make a directory that is not there yet with the same mode for every umask."""
    if not path.exists():
        path.mkdir()
        path.chmod(0o755)


def _unpack(debs: Sequence[Path], root: Path) -> None:
    # base-files first: its links /bin, /lib ... must exist before something puts a file below them.
    for package in sorted(debs, key=lambda d: not d.name.startswith("base-files_")):
        unpack.deb(package, root, exclude=_UNWANTED)


def _modules_dir(modules: Path, only: Sequence[str] = ()) -> Path:
    """The lib/modules/RELEASE below `modules`, or a copy of it with `only` these, decompressed, and a modules.dep."""
    bases = dict.fromkeys((modules / name).resolve() for name in ("lib/modules", "usr/lib/modules"))
    found = [path for base in bases for path in sorted(base.glob("*")) if path.is_dir()]
    if len(found) != 1:
        raise RigError(f"{modules} has {'no' if not found else 'more than one'} lib/modules/RELEASE",
                       "give the INSTALL_MOD_PATH of one 'make modules_install'")
    source = found[0]
    if not only and (source / "modules.dep").exists() and not next(source.rglob("*.ko.*"), None):
        return source
    ignore = shutil.ignore_patterns("build", "source", "vmlinuz")

    def make(work: Path) -> None:
        whole, dest = (work / name / "lib" / "modules" / source.name for name in ("whole", "out"))
        shutil.copytree(source, whole, ignore=ignore, copy_function=os.symlink)
        _depmod(work / "whole", source.name)
        needs = parse_modules_dep((whole / "modules.dep").read_text(encoding="utf-8"))
        shutil.copytree(source, dest, ignore=shutil.ignore_patterns("build", "source", "vmlinuz", "*.ko", "*.ko.*"))
        for path in load_order(needs, (*EARLY_MODULES, *only)) if only else needs:
            (dest / (path.partition(".ko")[0] + ".ko")).write_bytes(_module_bytes(source / path))
        _depmod(work / "out", source.name)
    tree = _up_to_date(OUT / f"modules-{source.name}", [tree_digest(source), EARLY_MODULES, only], make)
    return tree / "lib" / "modules" / source.name


def _modules_layer(source: Path) -> Path:
    """The squashfs image with the modules of `source`, a lib/modules/RELEASE, for the guest's /lib/modules."""
    def make(work: Path) -> None:
        dest = work / "root" / "usr" / "lib" / "modules" / source.name
        shutil.copytree(source, dest, symlinks=True, ignore=shutil.ignore_patterns("build", "source"))
        squashfs.make(work / "root", work / "out", plain_modes=True)
    return _up_to_date(OUT / f"modules-{source.name}.squashfs", [tree_digest(source), squashfs.recipe()], make)


def _initramfs(source: Optional[Path]) -> Path:
    """The cpio archive with the program of guest/init/early.c, and the modules that the kernel needs to get to its disks."""
    early = GUEST / "init" / "early.c"
    cc = [*cross_compiler(), *_CFLAGS, "-static", "-s"]
    paths = []
    if source:
        needs = parse_modules_dep((source / "modules.dep").read_text(encoding="utf-8"))
        paths = [source / path for path in load_order(needs, EARLY_MODULES)]

    def make(work: Path) -> None:
        program = work / "init"
        proc.run([*cc, f"-ffile-prefix-map={GUEST}=guest", "-Wl,--build-id=none", "-o", program, early], log=LOGS / "guest.log",
                 env=compiler.environment(), what=f"compiling guest/init/{early.name}")
        entries: list[tuple[str, int, bytes]] = [(name, stat.S_IFDIR | 0o755, b"") for name in ("dev", "proc", "sys")]
        entries.append(("init", stat.S_IFREG | 0o755, program.read_bytes()))
        if paths:
            entries.append(("modules", stat.S_IFDIR | 0o755, b""))
            entries += [(f"modules/{path.name}", stat.S_IFREG | 0o644, path.read_bytes()) for path in paths]
            entries.append(("modules/order", stat.S_IFREG | 0o644, "".join(f"{path.name}\n" for path in paths).encode()))
        (work / "out").write_bytes(cpio(entries))
    inputs = [early.read_text(encoding="utf-8"), compiler.identity(), _CFLAGS, (OUT / "sysroot.key").read_text(encoding="ascii"), [[path.name, download.sha256_of(path)] for path in paths]]
    return _up_to_date(_initramfs_file(source.name if source and paths else ""), inputs, make)


def _depmod(base: Path, release: str) -> None:
    depmod = shutil.which("depmod") or shutil.which("depmod", path="/usr/sbin:/sbin")
    if not depmod:
        raise RigError("depmod is not installed", "install it with 'apt-get install kmod'")
    _output([depmod, "-b", os.fspath(base), release])


def _module_bytes(path: Path) -> bytes:
    """A compressed module's content."""
    content = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(content)
    if path.suffix == ".gz":
        return gzip.decompress(content)
    if path.suffix == ".zst":
        return subprocess.run(["zstd", "-dc"], input=content, stdout=subprocess.PIPE, check=True).stdout
    raise RigError(f"{path}: unknown compression", "use an uncompressed module, or one in xz, gzip or zstd")


def _output(argv: Sequence[str]) -> str:
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError as err:
        raise RigError(f"{argv[0]} is not installed", "run 'rig/rig tools' to install the build tools") from err
    if done.returncode:
        raise RigError(f"'{' '.join(argv)}' failed: {done.stderr.strip()}")
    return done.stdout


def remove(path: Path) -> None:
    """Remove a tree, read-only directories in it too."""
    if path.is_dir() and not path.is_symlink():
        for name, _, _ in os.walk(path):
            os.chmod(name, 0o700)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
