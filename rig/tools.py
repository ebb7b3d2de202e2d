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

from . import download, proc
from .paths import LOGS
from .ui import RigError, say, step

# System administration tools are not on a plain user's PATH.
_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


CHECKS = "make check"
MACHINE = "x86_64"
"""What kernel, QEMU's KVM and the guest's packages are for; nothing here compiles for another machine."""


@dataclass(frozen=True)
class Tool:
    """`probe` is "NAME" (a command), "lib NAME" (pkg-config), "header NAME" (#include) or "python NAME" (a module).

    `without` says what is lost where it is missing; "" for what no build can do without.
    """
    probe: str
    package: str
    needed_for: str
    without: str = ""


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
    Tool("ccache", "ccache", "rebuilds", without="rebuilds take longer"),
    Tool("shellcheck", "shellcheck", CHECKS, without="some checks are skipped"),
    Tool("mypy", "mypy", CHECKS, without="some checks are skipped"),
    Tool("sparse", "sparse", CHECKS, without="some checks are skipped"),
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


def ensure(checks: bool = False, builds: bool = True) -> None:
    """Make sure that everything needed is there. What is only useful is installed too if that needs no question, and so
    is what only checks use, with `checks`. `builds`: for more than the series and its patches, which any machine can edit.

    Raises RigError with the command to type when something needed is missing and cannot be installed from here.
    """
    if builds and os.uname().machine != MACHINE:
        raise RigError(f"kernel, QEMU and guest are built on {MACHINE} only, and this machine is {os.uname().machine}",
                       "rig/rig tree and rig/rig patches work here")
    wanted = [tool for tool in missing() if checks or tool.needed_for != CHECKS]
    if not wanted:
        return
    needed = [tool for tool in wanted if not tool.without]
    how = privilege()
    if how is None or not shutil.which("apt-get"):
        if needed:
            raise RigError("missing build tools: " + ", ".join(f"{t.package} (for {t.needed_for})" for t in needed),
                           _advice(install_command(needed)))
        _do_without(wanted)
        return
    try:
        with download.locked():     # apt does not wait for another apt
            _install([tool for tool in wanted if not present(tool)], how)
    except RigError:
        if needed:
            raise
        _do_without(wanted)
        return
    still = [tool for tool in missing() if not tool.without]
    if still:
        raise RigError("still missing after apt-get install: " + ", ".join(f"{t.probe} (package {t.package})" for t in still),
                       f"is another one first on PATH? ({sys.executable})" if any(t.probe.startswith("python") for t in still) else
                       "install them in another way")


def _install(tools: Sequence[Tool], how: Sequence[str]) -> None:
    if not tools:
        return
    command = install_command(tools)
    prefix = [*how, "env", "DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_MODE=a"]
    with step(f"install {len(command) - 4} packages") as current:
        current.note = " ".join(command[4:])
        # Right after its start a machine may be updating itself.
        for argv in (["apt-get", "update", "-q"], ["apt-get", "-o", "DPkg::Lock::Timeout=300", *command[1:]]):
            proc.run([*prefix, *argv], log=LOGS / "tools.log", what=shlex.join(argv),
                     hint=f"to do it by hand: {shlex.join(command)}", on_line=current.update)


def _do_without(tools: Sequence[Tool]) -> None:
    losses = ", ".join(dict.fromkeys(tool.without for tool in tools))
    names = ", ".join(tool.package for tool in tools)
    say(f"  without {names} {losses}; to install: " + (f"sudo {shlex.join(install_command(tools))}" if shutil.which("apt-get")
                                                       else "use the machine's package manager"))


def _advice(command: Sequence[str]) -> str:
    if not shutil.which("apt-get"):
        return "this machine has no apt-get: install them with its package manager, or use Debian 12 or newer"
    return f"install them and run again:\n  sudo {shlex.join(command)}"


def _succeeds(argv: Sequence[str], text: str = "") -> bool:
    try:
        return subprocess.run(argv, input=text.encode(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0
    except FileNotFoundError:
        return False
