# SPDX-License-Identifier: GPL-2.0
"""QEMU with our devices: the pinned source, the wiring patches, and the overlay linked into it.

The overlay (qemu/hw, qemu/include, qemu/docs, qemu/tests) lies in QEMU's own layout. Its files are symbolic links in
the build tree, so that an edit in the checkout is what the next incremental build compiles. Only qemu/patches edits
files of QEMU itself.
"""
import os
import re
import shutil
import textwrap
from pathlib import Path
from typing import Sequence

from . import compiler, fetch, paths, products
from .git import attempt
from .proc import run
from .ui import RigError, step

OVERLAY = paths.REPO / "qemu"
PATCHES = OVERLAY / "patches"
SOURCE = paths.BUILD / "qemu" / "source"
OBJECTS = paths.BUILD / "qemu" / "objects"
ASAN_OBJECTS = paths.BUILD / "qemu" / "objects-asan"
_OVERLAY_ROOTS = ("hw", "include", "docs", "tests")
_LOG = paths.LOGS / "qemu.log"

_CONFIGURE = ("--target-list=x86_64-softmmu", "--without-default-features", "--enable-system", "--enable-tcg",
              "--enable-kvm", "--enable-attr", "--enable-virtfs", "--enable-pie", "--disable-docs",
              "--disable-install-blobs", "--disable-download")


def binary() -> Path:
    """The qemu-system-x86_64 with our devices."""
    return OBJECTS / "qemu-system-x86_64"


def qtests() -> list[str]:
    """The names of our qtest programs (tests/qtest/<name> under the build directory): those that a patch wires up."""
    wired = "".join(re.findall(r"^\+.*$", "".join(p.read_text(encoding="utf-8") for p in _patches()), re.M))
    return sorted(p.stem for p in (OVERLAY / "tests" / "qtest").glob("*-test.c") if f"'{p.stem}'" in wired)


def qtest_program(name: str) -> Path:
    """The built qtest program `name`; run it with QTEST_QEMU_BINARY set to `binary()`."""
    return OBJECTS / "tests" / "qtest" / name


def build() -> None:
    """Bring the QEMU binary and our qtests up to date with the pinned source, the patches and the overlay."""
    _prepare_source()
    _link_overlay()
    _compile(OBJECTS, _CONFIGURE, ["qemu-system-x86_64", *(f"tests/qtest/{name}" for name in qtests())], "QEMU")


def build_fuzzer() -> None:
    """The same for a QEMU with AddressSanitizer, and for the program that fuzzes it, both in ASAN_OBJECTS."""
    _prepare_source()
    _link_overlay()
    _compile(ASAN_OBJECTS, (*_CONFIGURE, "--enable-asan"), ["qemu-system-x86_64", "tests/qtest/device-fuzz"], "QEMU with ASan")


def _compile(objects: Path, options: Sequence[str], targets: Sequence[str], title: str) -> None:
    env = compiler.environment()
    meson = fetch.meson()
    if meson:
        env["PYTHONPATH"] = str(meson)
    firmware = fetch.firmware_dir()
    # The path, because a copy of a checkout would go on compiling the source of the original.
    key = products.digest("configure", str(SOURCE), *options, compiler.command(), meson is None)
    stamp = objects / "configured"
    if not (products.stamp_matches(stamp, key) and (objects / "build.ninja").exists()):
        shutil.rmtree(objects, ignore_errors=True)
        objects.mkdir(parents=True)
        with step(f"configure {title}"):
            run([SOURCE / "configure", *options, f"--cc={compiler.command()}"],
                cwd=objects, log=_LOG, env=env, what=f"configuring {title}")
        stamp.write_text(key)
    with step(f"compile {title}") as current:
        counted = ""

        def progress(line: str) -> None:
            nonlocal counted
            if found := re.match(r"\[(\d+/\d+)\]", line):
                counted = found[1]
                current.update(counted)

        run(["ninja", f"-j{compiler.jobs()}", *targets], cwd=objects, log=_LOG, env=env, on_line=progress,
            what=f"building {title}")
        current.note = counted.split("/")[-1] + " steps" if counted else "nothing to do"
    # Where a QEMU that runs from its build directory looks for data. (An absolute --firmwarepath would be in a header
    # that every file includes, and no two checkouts could share compiled objects.)
    data = objects / "qemu-bundle" / "usr" / "local" / "share" / "qemu"
    data.mkdir(parents=True, exist_ok=True)
    for file in sorted(filter(Path.is_file, firmware.iterdir())):
        shutil.copy2(file, data / file.name)


def wiring_lines() -> int:
    """How many lines the wiring patches add to and remove from QEMU's own files."""
    return sum(len(re.findall(r"^[+-](?![+-]{2} )", p.read_text(encoding="utf-8"), re.M)) for p in _patches())


def _patches() -> list[Path]:
    return sorted(PATCHES.glob("[0-9]*.patch"))


def _prepare_source() -> None:
    pinned = products.digest(repr(sorted(fetch.QEMU.pin.items())))
    if not products.stamp_matches(_state("pinned"), pinned):
        fresh = SOURCE.with_name("source.new")
        shutil.rmtree(fresh, ignore_errors=True)
        origin = fetch.unpack_qemu(fresh)
        for state in ("pinned", "origin", "wired", "overlay"):
            _state(state).unlink(missing_ok=True)
        shutil.rmtree(_state("originals"), ignore_errors=True)
        shutil.rmtree(SOURCE, ignore_errors=True)
        fresh.rename(SOURCE)
        _state("origin").write_text(origin)
        _state("pinned").write_text(pinned)
    fetch.say_if_ignored(fetch.QEMU, _state("origin").read_text() if _state("origin").exists() else "", SOURCE)
    wiring = products.digest(*_patches())
    if products.stamp_matches(_state("wired"), wiring):
        return
    _state("wired").unlink(missing_ok=True)
    _restore_originals()
    for patch in _patches():
        for name in re.findall(r"^--- a/(\S+)", patch.read_text(encoding="utf-8"), re.M):
            _save_original(name)
        # Not patch(1): with its fuzz a hunk of one line of context fits anywhere, and without it only at the end of a file.
        done = attempt(SOURCE, "apply", "--unidiff-zero", str(patch), env={"GIT_CEILING_DIRECTORIES": str(SOURCE.parent)})
        if done.returncode:
            _restore_originals()
            raise RigError(f"{patch.relative_to(paths.REPO)} does not apply to QEMU:\n{textwrap.indent(done.stderr.strip(), '    ')}",
                           "bring the patch up to date with the pinned source")
    _state("wired").write_text(wiring)


def _state(name: str) -> Path:
    """A file or directory beside the source tree that says what was done to it."""
    return SOURCE.with_name(f"source-{name}")


def _save_original(name: str) -> None:
    original, saved = SOURCE / name, _state("originals") / name
    if not original.is_file():
        raise RigError(f"a wiring patch edits {name}, which QEMU does not have",
                       "new files belong into the overlay, not into qemu/patches")
    if not saved.exists():
        saved.parent.mkdir(parents=True, exist_ok=True)
        copy = _state("original.new")   # an end in the middle must not leave half an original
        shutil.copy2(original, copy)
        copy.rename(saved)


def _restore_originals() -> None:
    for saved in _state("originals").rglob("*"):
        original = SOURCE / saved.relative_to(_state("originals"))
        if saved.is_file() and not (original.exists() and original.read_bytes() == saved.read_bytes()):
            # Not its old time stamp: ninja would take what it compiled of the patched file for newer.
            shutil.copy(saved, original)


def _link_overlay() -> None:
    """Make the source tree hold a link for every overlay file and for nothing else of ours."""
    wanted = {}
    for root in _OVERLAY_ROOTS:
        for file in sorted((OVERLAY / root).rglob("*")):
            if file.is_file() and not file.name.startswith("."):
                wanted[SOURCE / file.relative_to(OVERLAY)] = file
    listing = _state("overlay")
    known = [SOURCE / name for name in listing.read_text().split("\0") if name] if listing.exists() else []
    for link in known:
        if link.is_relative_to(SOURCE) and link not in wanted and link.is_symlink():
            link.unlink()
    listing.write_text("\0".join(os.fspath(link.relative_to(SOURCE)) for link in wanted))
    for link, file in wanted.items():
        if link.is_symlink() and link.resolve() == file:
            continue
        if link.exists() and not link.is_symlink():
            raise RigError(f"{file.relative_to(paths.REPO)} would replace a file of QEMU itself",
                           "edit files of QEMU with a patch in qemu/patches")
        link.unlink(missing_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
