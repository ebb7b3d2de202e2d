# SPDX-License-Identifier: GPL-2.0
"""Kernels for the guest: configuration from fragments, incremental builds, modules as an image.

A variant is a source (the series, or the base without it) and a list of configuration fragments. What a variant needs
at run time lies in build/kernel/<variant>/products: bzImage, and layer.squashfs, a layer of the guest's file system with
the modules (the kernel's and those of guest/modules) and the kernel's selftests.
"""
import inspect
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from . import compiler, guest, paths, products, squashfs, tree
from .proc import run
from .ui import RigError, say, step

CONFIGS = paths.REPO / "linux" / "configs"
MODULES = paths.REPO / "guest" / "modules"


@dataclass(frozen=True)
class Variant:
    """A kernel to build: `series`, `base` or `mutants` source, and the fragments in linux/configs that make its configuration.

    `cmdline` is what it is booted with where a guest's own command line says nothing else.
    """
    source: str
    fragments: tuple[str, ...]
    cmdline: str = ""


SELFTESTS = (("mm", "hmm-tests", ("vm_util.c", "hugepage_settings.c")),
             ("hmm", "hmm_p2p", ()))
"""The kernel's selftests that the guest gets: target, program, and the target's files that are linked to it."""
PRELOADS = (("hmm", "odp_vram"),)
"""Libraries among the selftests that programs of the guest are run with: target and name."""

_COMMON = ("base", "rdma", "nouveau")
_SERIES = _COMMON + ("series",)
# kmemleak takes half of a boot's time, and finds only what somebody asks it to scan for: such a test boots with kmemleak=on.
_DEBUG = "kmemleak=off"
VARIANTS = {
    "release": Variant("series", _SERIES),
    "debug": Variant("series", _SERIES + ("debug", "series-debug"), _DEBUG),
    "kcsan": Variant("series", _SERIES + ("kcsan", "series-debug")),
    "base-release": Variant("base", _COMMON),
    "base-debug": Variant("base", _COMMON + ("debug",), _DEBUG),
    "mutants": Variant("mutants", _SERIES + ("debug", "series-debug"), _DEBUG),    # see rig/mutations.py
}


def image(variant: str) -> Path:
    """The bzImage of `variant`."""
    return _products(variant) / "bzImage"


def layer(variant: str) -> Path:
    """A squashfs with usr/lib/modules of `variant`, and the kernel's selftests in opt/hmm-p2p/selftests/<target>."""
    return _products(variant) / "layer.squashfs"


def release(variant: str) -> str:
    """The kernel release string (uname -r) of `variant`."""
    return (_products(variant) / "release").read_text().strip()


def build(variant: str) -> None:
    """Bring the products of `variant` up to date: from the cache if it has them, else by an incremental build."""
    if variant not in VARIANTS:
        raise RigError(f"there is no kernel variant '{variant}'", f"the variants are: {', '.join(VARIANTS)}")
    known = (tree.TREE / ".git").exists() or bool(os.environ.get("KERNEL_SRC"))
    if known:
        _bring_up_tree(variant)
    stamp = _products(variant) / products.STAMP
    key = _key(variant)
    if key and products.stamp_matches(stamp, key) and all(p.exists() for p in _files(variant)):
        say(f"  kernel {variant}: up to date")
        return
    if key and products.take("kernel", key, _products(variant)):
        say(f"  kernel {variant}: taken from the cache")
        return
    if not known:
        _bring_up_tree(variant)
        key = _key(variant)
    source = _source(variant)
    stamp.unlink(missing_ok=True)
    _products(variant).mkdir(parents=True, exist_ok=True)
    configure(variant, source)
    modules = _compile(variant, source)
    _check_configuration(variant)   # make may have changed it
    _pack(variant, source, modules)
    if key and key == _key(variant):    # compiling takes long enough to edit something meanwhile
        stamp.write_text(key)
        products.keep("kernel", key, [*_files(variant), stamp])
    elif key:
        say(f"  kernel {variant}: its sources changed meanwhile; it is used as it is, and brought up to date the next time")


def at_hand(variant: str) -> bool:
    """Whether `build()` would find the products of `variant` made, or in the cache, and compile nothing."""
    if os.environ.get("KERNEL_SRC") and not (tree.TREE / ".git").exists():
        return False    # what it compiles is not known yet
    key = _key(variant)
    return bool(key) and (products.stamp_matches(_products(variant) / products.STAMP, key) or products.has("kernel", key))


def configure(variant: str, source: Path) -> None:
    """Make .config from the fragments on top of allnoconfig, and insist that every line of them took effect."""
    # Each time, as Kconfig files may have changed: make would take their defaults then. Where nothing did, .config stays as it is.
    seed = _seed(variant)
    seed.parent.mkdir(parents=True, exist_ok=True)
    seed.write_text("".join(f.read_text(encoding="utf-8") for f in _fragments(variant)), encoding="utf-8")
    with step(f"configure kernel {variant}"):
        _make(variant, source, "allnoconfig", env={"KCONFIG_ALLCONFIG": str(seed)})
    _check_configuration(variant)


def _fragments(variant: str) -> list[Path]:
    return [CONFIGS / f"{name}.config" for name in VARIANTS[variant].fragments]


def _seed(variant: str) -> Path:
    """What .config was made of: the fragments as they were then."""
    return _objects(variant) / "fragments.config"


def _check_configuration(variant: str) -> None:
    lost = dropped_options(_seed(variant).read_text(encoding="utf-8"), (_objects(variant) / ".config").read_text(encoding="utf-8"))
    if lost:
        raise RigError(f"kernel {variant}: kconfig did not take these lines of {', '.join(f.name for f in _fragments(variant))}:\n"
                       + "\n".join("    " + line for line in lost),
                       "a dependency is missing or the symbol is gone: see 'depends on' in the symbol's Kconfig")


def dropped_options(fragment: str, config: str) -> list[str]:
    """The settings of `fragment` that the final `config` does not have. Of a symbol set twice the last setting counts."""
    wanted: dict[str, str] = {}
    for line in fragment.splitlines():
        if found := re.match(r"(CONFIG_\w+)=(.+)$", line) or re.match(r"# (CONFIG_\w+) is not (set)$", line):
            wanted[found[1]] = "n" if found[2] == "set" else found[2]
    actual = dict(re.findall(r"^(CONFIG_\w+)=(.+)$", config, re.M))
    return [f"{symbol}={value} (it is {actual.get(symbol, 'n')})" for symbol, value in wanted.items()
            if actual.get(symbol, "n") != value]


def _compile(variant: str, source: Path) -> list[Path]:
    """Compile the kernel, its modules and those of guest/modules; returns the object directories of the latter."""
    objects = _objects(variant)
    total = _estimate(objects)
    with step(f"compile kernel {variant}") as current:
        count = 0

        def progress(line: str) -> None:
            nonlocal count
            if re.match(r"  (CC|AS|LD|AR|HOSTCC)\b", line):
                count += 1
                current.update(f"{count}/{total}" if total >= count else str(count))

        _make(variant, source, "bzImage", "modules", on_line=progress)
        # From a copy: the checkout may have spaces in its path, with which kbuild, which looks through links, cannot cope.
        products.mirror(MODULES, objects / "guest-sources")
        modules = []
        for kbuild in sorted((objects / "guest-sources").glob("*/Kbuild")):
            out = objects / "guest-modules" / kbuild.parent.name
            out.mkdir(parents=True, exist_ok=True)
            _make(variant, source, f"M={kbuild.parent}", f"MO={out}", "modules", on_line=progress)
            modules.append(out)
        current.note = f"{count} files"
        if count > total:
            (objects / "files-compiled").write_text(str(count))
    return modules


def _pack(variant: str, source: Path, modules: list[Path]) -> None:
    objects, out = _objects(variant), _products(variant)
    with step(f"pack kernel {variant}"):
        root = objects / "root"
        shutil.rmtree(root, ignore_errors=True)
        version = (objects / "include" / "config" / "kernel.release").read_text().strip()
        _make(variant, source, f"INSTALL_MOD_PATH={root / 'usr'}", "INSTALL_MOD_STRIP=1", "DEPMOD=true",
              "modules_install")
        installed = root / "usr" / "lib" / "modules" / version
        for built in modules:
            # This lists the objects of the last build; a *.ko may be older.
            for name in (built / "modules.order").read_text(encoding="utf-8").split():
                (installed / "updates").mkdir(exist_ok=True)
                shutil.copy2((built / name).with_suffix(".ko"), installed / "updates")
        (installed / "build").unlink(missing_ok=True)
        run(["depmod", "-b", root / "usr", version], log=_log(variant))
        _selftests(variant, source, root / "opt" / "hmm-p2p" / "selftests")
        squashfs.make(root, out / "layer.squashfs", plain_modes=True)
        shutil.copy2(objects / "arch" / "x86" / "boot" / "bzImage", out / "bzImage")
        (out / "release").write_text(version + "\n")


def _selftests(variant: str, source: Path, out: Path) -> None:
    """Compile the kernel's own tests that the guest runs: programs static, so that they do not depend on the guest's libc."""
    selftests = source / "tools" / "testing" / "selftests"
    for target, program, libraries in SELFTESTS:
        if VARIANTS[variant].source == "base" and not (selftests / target).is_dir():
            continue
        (out / target).mkdir(parents=True)
        run([*compiler.command().split(), "-static", "-O2", "-Wall", "-D_GNU_SOURCE", "-U_FORTIFY_SOURCE",
             "-isystem", source / "tools" / "include" / "uapi", "-I", source, "-I", selftests,
             "-o", out / target / program, selftests / target / f"{program}.c",
             *(selftests / target / library for library in libraries), "-lrt", "-lpthread", "-lm"],
            log=_log(variant), env=compiler.environment(), what=f"compiling selftest {target}/{program}")
    for target, name in PRELOADS:
        if VARIANTS[variant].source == "base" and not (selftests / target).is_dir():
            continue
        # These share a process with the guest's libraries, whose headers they need.
        run([*guest.cross_compiler(), "-shared", "-fPIC", "-O2", "-Wall", "-D_GNU_SOURCE", "-Wl,--build-id=none",
             "-o", out / target / f"{name}.so", selftests / target / f"{name}.c"],
            log=_log(variant), env=compiler.environment(), what=f"compiling selftest {target}/{name}")


def _make(variant: str, source: Path, *targets: str, on_line=None, env=None) -> None:
    # A fixed build identity makes the same input give the same image, here and on any other machine.
    run(["make", "-C", source, f"O={_objects(variant)}", "ARCH=x86_64", f"-j{compiler.jobs()}",
         f"CC={compiler.command()}", "LOCALVERSION=", "KBUILD_BUILD_TIMESTAMP=2026-01-01", "KBUILD_BUILD_USER=rig",
         "KBUILD_BUILD_HOST=rig", "KBUILD_BUILD_VERSION=1", *targets],
        log=_log(variant), on_line=on_line, env={**compiler.environment(_root(variant)), **(env or {})},
        what=f"building kernel {variant}")


def _source(variant: str) -> Path:
    """The source tree of `variant`; makes it when it is missing. The series as it is checked out, edits included."""
    if VARIANTS[variant].source == "series":
        return tree.TREE
    if VARIANTS[variant].source == "mutants":
        from . import mutations
        return mutations.source()
    base = _root(variant) / "linux"
    with step("check out the base kernel"):
        tree.have_work_tree(base, tree.BASE)
    return base


def _bring_up_tree(variant: str) -> None:
    """Make build/linux, and have it follow linux/patches where `variant` is compiled from it."""
    tree.make_base()
    if VARIANTS[variant].source == "series":
        tree.follow_patches()


def _key(variant: str) -> str:
    """A hash of all inputs of the products, or '' when the tree has edits that no hash stands for."""
    kind = VARIANTS[variant].source
    if kind == "base":
        source = tree.base_found()
    elif kind == "mutants":
        from . import mutations
        source = mutations.digest()
    elif (tree.TREE / ".git").exists():
        source = tree.source_id()
        if not source:
            return ""
        if source == tree.applied_id():
            source = tree.content_digest()
    else:
        source = tree.content_digest()
    steps: tuple[Callable[..., object], ...] = (configure, _compile, _pack, _selftests, _make)
    return products.digest(source, *_fragments(variant), MODULES, SELFTESTS, PRELOADS, *map(inspect.getsource, steps), squashfs.recipe(),
                           compiler.identity())


def _estimate(objects: Path) -> int:
    try:
        return int((objects / "files-compiled").read_text())
    except (OSError, ValueError):
        return 0


def _root(variant: str) -> Path:
    """Where source and objects are. The way from these to those is the same for all variants: ccache tells files apart by
    it, and most files are the same in all sources."""
    return paths.BUILD if VARIANTS[variant].source == "series" else paths.BUILD / VARIANTS[variant].source


def _objects(variant: str) -> Path:
    return _root(variant) / "kernel" / variant / "objects"


def _products(variant: str) -> Path:
    return paths.BUILD / "kernel" / variant / "products"


def _files(variant: str) -> list[Path]:
    return [image(variant), layer(variant), _products(variant) / "release"]


def _log(variant: str) -> Path:
    return paths.LOGS / f"kernel-{variant}.log"
