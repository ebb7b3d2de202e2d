# SPDX-License-Identifier: GPL-2.0
"""The programs and libraries of the host that the builds need, and how to get them on Debian.

Each row is a probe and the package that satisfies it. What is missing is installed where that needs no question (root,
or sudo without a password); otherwise the one command that installs it is printed.
"""
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import Iterable, Sequence

from . import proc
from .paths import LOGS
from .ui import RigError, say, step

# System administration tools are not on a plain user's PATH.
_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


@dataclass(frozen=True)
class Tool:
    """`probe` is "NAME" (a command), "lib NAME" (pkg-config), "header NAME" (#include) or "python NAME" (a module)."""
    probe: str
    package: str
    needed_for: str
    optional: bool = False


TOOLS = (
    Tool("gcc", "gcc", "kernel, QEMU, guest"),
    Tool("header stdio.h", "libc6-dev", "kernel, QEMU"),
    Tool("make", "make", "kernel"),
    Tool("ld", "binutils", "kernel, QEMU, guest"),
    Tool("flex", "flex", "kernel"),
    Tool("bison", "bison", "kernel"),
    Tool("bc", "bc", "kernel"),
    Tool("perl", "perl", "kernel, checkpatch"),
    Tool("rsync", "rsync", "kernel headers"),
    Tool("header gelf.h", "libelf-dev", "kernel (objtool)"),
    Tool("header openssl/evp.h", "libssl-dev", "kernel"),
    Tool("depmod", "kmod", "kernel modules"),
    Tool("git", "git", "kernel tree, patches"),
    Tool("patch", "patch", "QEMU source"),
    Tool("xz", "xz-utils", "sources"),
    Tool("dpkg-deb", "dpkg", "sources, guest"),
    Tool("pkg-config", "pkg-config", "QEMU"),
    Tool("ninja", "ninja-build", "QEMU"),
    Tool("python ensurepip", "python3-venv", "QEMU (configure)"),
    Tool("lib glib-2.0", "libglib2.0-dev", "QEMU"),
    Tool("header zlib.h", "zlib1g-dev", "QEMU"),
    Tool("header attr/xattr.h", "libattr1-dev", "QEMU (host directory in the guest)"),
    Tool("mksquashfs", "squashfs-tools", "guest"),
    Tool("ccache", "ccache", "faster rebuilds", optional=True),
    Tool("shellcheck", "shellcheck", "make check", optional=True),
    Tool("mypy", "mypy", "make check", optional=True),
    Tool("sparse", "sparse", "make check", optional=True),
)


def present(tool: Tool) -> bool:
    """Whether the machine has what `tool` probes for."""
    kind, _, name = tool.probe.rpartition(" ")
    if not kind:
        return shutil.which(name, path=_PATH) is not None
    if kind == "lib":
        return _succeeds(["pkg-config", "--exists", name])
    if kind == "header":
        return _succeeds(["gcc", "-E", "-x", "c", "-"], f"#include <{name}>\n")
    if kind == "python":
        return _succeeds(["python3", "-c", f"import {name}"])
    raise ValueError(f"unknown probe: {tool.probe}")


def missing(tools: Iterable[Tool] = TOOLS) -> list[Tool]:
    """The tools that the machine lacks, in the order of the table."""
    return [tool for tool in tools if not present(tool)]


def install_command(tools: Sequence[Tool]) -> list[str]:
    """The command that installs what `tools` lack, without its sudo."""
    return ["apt-get", "install", "-y", "--no-install-recommends", *sorted({tool.package for tool in tools})]


def privilege() -> list[str] | None:
    """What to put before a command to run it as root without a question: nothing, sudo, or None when there is no way."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") and _succeeds(["sudo", "-n", "true"]):
        return ["sudo", "-n"]
    return None


def ensure(optional: bool = False) -> None:
    """Make sure that everything needed is there; `optional` tools are installed too, if that needs no question.

    Raises RigError with the command to type when something needed is missing and cannot be installed from here.
    """
    lacking = missing()
    needed = [tool for tool in lacking if not tool.optional]
    wanted = lacking if optional else needed
    if not wanted:
        return
    command = install_command(wanted)
    how = privilege()
    if how is None or not shutil.which("apt-get"):
        if not needed:
            say(f"  without {', '.join(t.package for t in wanted)} some checks are skipped; to install: sudo {shlex.join(command)}")
            return
        raise RigError("missing build tools: " + ", ".join(f"{t.package} (for {t.needed_for})" for t in needed),
                       _advice(install_command(needed)))
    quiet = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_MODE": "a"}
    prefix = [*how, "env", *(f"{k}={v}" for k, v in quiet.items())]
    with step(f"install {len(command) - 4} packages") as current:
        current.note = " ".join(command[4:])
        for argv in (["apt-get", "update", "-q"], command):
            proc.run([*prefix, *argv], log=LOGS / "tools.log", what=shlex.join(argv),
                     hint=f"to do it by hand: {shlex.join(command)}", on_line=current.update)
    still = [tool for tool in missing() if not tool.optional]
    if still:
        raise RigError("still missing after apt-get install: " + ", ".join(f"{t.probe} (package {t.package})" for t in still),
                       f"is another one first on PATH? ({sys.executable})" if any(t.probe.startswith("python") for t in still) else
                       "install them in another way")


def _advice(command: Sequence[str]) -> str:
    if not shutil.which("apt-get"):
        return "this machine has no apt-get: install them with its package manager, or use Debian 12 or newer"
    return f"install them and run again:\n  sudo {shlex.join(command)}"


def _succeeds(argv: Sequence[str], text: str = "") -> bool:
    try:
        return subprocess.run(argv, input=text.encode(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0
    except FileNotFoundError:
        return False
