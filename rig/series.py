# SPDX-License-Identifier: GPL-2.0
"""Compiling the series in other ways than for the guests: each patch by itself, other configurations, i386.

Only objects that the series has to do with are compiled: of the C files that it changes, and of those beside them that use a
header that it changes.
"""
import os
import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterable, Mapping, Optional

from . import compiler, kernel, paths, tree
from .git import git
from .proc import run
from .ui import RigError

ROOT = paths.BUILD / "patches"
WORK = ROOT / "linux"
LOG = paths.LOGS / "patches.log"

# Besides the directories that the series changes something in: the other driver with on-demand paging.
_USERS = ("drivers/infiniband/sw/rxe",)
# The objects that a directory's Makefile lists in a configuration, in its own and composite objects.
_LIST = """include .config
obj := $(dir)
src := $(srctree)/$(dir)
include $(firstword $(wildcard $(src)/Kbuild $(src)/Makefile))
.DEFAULT_GOAL := list
list: ; @:
$(info $(foreach v,$(filter %-y %-m %-objs,$(.VARIABLES)),$($(v))))
"""
_COMPLAINT = re.compile(r"(?i)^\S.*?(\b(warning|error): |\.o\] error \d)|^(warning|error): ")
_PLACE = re.compile(r":\d+(?=[: ])")


@dataclass(frozen=True)
class Configuration:
    """How to configure a kernel: fragments of linux/configs without the options that are to be `off`, and an architecture."""
    name: str
    fragments: tuple[str, ...] = kernel.VARIANTS["debug"].fragments
    off: tuple[str, ...] = ()
    arch: str = "x86_64"


DEBUG = Configuration("debug")
OTHERS = (
    Configuration("release", kernel.VARIANTS["release"].fragments),
    *(Configuration(f"without {option}", off=(option,))
      for option in ("PCI_P2PDMA", "DEVICE_PRIVATE", "TRANSPARENT_HUGEPAGE", "MEMORY_HOTPLUG")),
    Configuration("i386", off=("64BIT",), arch="i386"),
)
"""In these the series is compiled as a whole."""

# What depends on none of the above: without it kconfig has dropped more than it was told to.
_KEPT = {"HMM_MIRROR", "INFINIBAND_ON_DEMAND_PAGING", "MLX5_INFINIBAND", "DRM_NOUVEAU"}


class Builder:
    """Compiles objects of commits of build/linux in one configuration, in a work tree and an object directory of its own.

    `flags` are make's: W=1 for the compiler's less usual warnings and those of kernel-doc, C=1 for sparse.
    """

    def __init__(self, configuration: Configuration, *flags: str) -> None:
        self.configuration = configuration
        self.compiled: list[str] = []
        """The C files of the last build()."""
        self._flags = flags
        self._objects = ROOT / "kernel" / configuration.arch / "objects"

    def build(self, commit: str, files: Iterable[str], anew: bool = False) -> Counter[str]:
        """Compile those of the C `files` that `commit` has, and that the configuration uses.

        Returns what make and its programs complained of, each without line numbers, and how often. A file that is up to date
        since the last build says nothing, unless it is compiled `anew`.
        """
        said: Counter[str] = Counter()

        def note(line: str) -> None:
            if _COMPLAINT.match(line):
                said[self._plain(line)] += 1

        checkout(commit)
        self._configure(note)
        self.compiled = self._used(files)
        objects = [file.removesuffix(".c") + ".o" for file in self.compiled]
        for name in objects if anew else ():
            (self._objects / name).unlink(missing_ok=True)
        try:
            self._make(note, "--keep-going", *self._flags, *objects)
        except RigError:
            if not errors(said):
                raise
        return said

    def _configure(self, note: Callable[[str], None]) -> None:
        off = self.configuration.off
        wanted = [line for name in self.configuration.fragments
                  for line in (kernel.CONFIGS / f"{name}.config").read_text(encoding="utf-8").splitlines()
                  if line.partition("=")[0].removeprefix("CONFIG_") not in off]
        wanted += ["CONFIG_HMM_KUNIT_TEST=m", *(f"# CONFIG_{option} is not set" for option in off)]
        self._objects.mkdir(parents=True, exist_ok=True)
        seed = self._objects / "fragments.config"
        seed.write_text("\n".join(wanted) + "\n", encoding="utf-8")
        self._make(note, "allnoconfig", env={"KCONFIG_ALLCONFIG": str(seed)})
        on = set(re.findall(r"^CONFIG_(\w+)=[ym]$", (self._objects / ".config").read_text(encoding="utf-8"), re.M))
        if wrong := on & set(off) | _KEPT - on:
            raise RigError(f"configuration '{self.configuration.name}': kconfig has decided otherwise on {', '.join(sorted(wrong))}")

    def _used(self, files: Iterable[str]) -> list[str]:
        """Those of `files` whose objects some Makefile at or above their place lists."""
        there = sorted(name for name in files if (WORK / name).exists())
        listing = ROOT / "list.mk"
        listing.write_text(_LIST, encoding="utf-8")
        objects: set[str] = set()
        for place in {str(parent) for name in there for parent in list(Path(name).parents)[:-1]}:
            if _makefile(Path(place)) and not _is_included(place):
                run(["make", "-rRs", "-f", listing, f"dir={place}", f"srctree={WORK}"], cwd=self._objects, log=LOG,
                    on_line=lambda line: objects.update(f"{place}/{word}" for word in line.split()))
        return [name for name in there if name.removesuffix(".c") + ".o" in objects]

    def _make(self, note: Callable[[str], None], *arguments: str, env: Optional[Mapping[str, str]] = None) -> None:
        run(["make", "-C", WORK, f"O={self._objects}", f"ARCH={self.configuration.arch}", f"-j{compiler.jobs()}",
             f"CC={compiler.command()}", "LOCALVERSION=", "KBUILD_BUILD_TIMESTAMP=2026-01-01", *arguments], log=LOG,
            on_line=note, env={**compiler.environment(ROOT), **(env or {})}, what=f"compiling in configuration '{self.configuration.name}'")

    def _plain(self, line: str) -> str:
        """A complaint that is the same wherever the tree is, and when lines were added above."""
        for root in (str(WORK), os.path.relpath(WORK, self._objects)):
            line = line.replace(f"{root}/", "")
        return _PLACE.sub("", line)


def _makefile(place: Path) -> str:
    """The text of the Makefile that kbuild takes in a directory of the work tree, "" if there is none."""
    return next((path.read_text(encoding="utf-8") for path in (WORK / place / "Kbuild", WORK / place / "Makefile") if path.exists()), "")


def _is_included(place: str) -> bool:
    """Whether the Makefile of a directory is part of one above, as those of nouveau's nvkm are: what it lists is as seen from there."""
    return any(f"/{place}".endswith(f"/{part}") for parent in list(Path(place).parents)[:-1]
               for part in re.findall(r"^include \$\(src\)/(\S+)/(?:Kbuild|Makefile)$", _makefile(parent), re.M))


def errors(said: Iterable[str]) -> list[str]:
    """Those complaints that are more than warnings."""
    return [line for line in said if re.search(r"(?i)\berror\b", line) and "warning" not in line.lower()]


def checkout(commit: str) -> None:
    """Have `commit` in the builders' work tree. Files that do not differ keep their time stamps."""
    tree.have_work_tree(WORK, commit)


def sparse_is_valid() -> bool:
    """Whether the kernel accepts the installed sparse, by the script with which its Makefile decides that."""
    checkout(tree.series_commit())
    done = subprocess.run(["sh", "scripts/checker-valid.sh", "sparse"], cwd=WORK, capture_output=True, text=True)
    return done.stdout.strip() == "1"


def commits() -> list[str]:
    """The commits of the series in order."""
    return git(tree.TREE, "rev-list", "--reverse", f"{tree.BASE}..{tree.series_commit()}").splitlines()


def subject(commit: str) -> str:
    return git(tree.TREE, "log", "-1", "--format=%s", commit)


def changed(suffix: str) -> list[str]:
    """The files of the kernel itself with that suffix that the series changes or adds."""
    return git(tree.TREE, "diff", "--name-only", "--diff-filter=d", tree.BASE, tree.series_commit(), "--", f"*{suffix}",
               ":!tools").splitlines()


def sources() -> list[str]:
    """The C files that the series changes or adds, and those in the same directories that include a header that it changes."""
    headers = "|".join(sorted({re.escape(Path(name).name) for name in changed(".h")}))
    places = sorted({str(Path(name).parent) for name in changed(".c")} | set(_USERS))
    last = tree.series_commit()
    users = git(tree.TREE, "grep", "-lE", rf'^#include [<"](.*/)?({headers})[>"]', last, "--",
                *(f":(glob){place}/*.c" for place in places)).splitlines()
    return sorted({*changed(".c"), *(line.partition(":")[2] for line in users)})
