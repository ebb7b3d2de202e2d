# SPDX-License-Identifier: GPL-2.0
"""`rig fuzz`: random use of the device models under AddressSanitizer (qemu/tests/qtest/device-fuzz.c).

Each machine of the program's table gets an equal part of the time. A finding ends that machine's part; the output names
the seed and the round that show it again. That a device can do something that it was never made to do is a finding, too.
"""
import re
from typing import Iterable

from . import paths, proc, qemu
from .ui import RigError, say, step

_PROGRAM = qemu.ASAN_OBJECTS / "tests" / "qtest" / "device-fuzz"
_SOURCES = qemu.OVERLAY / "tests" / "qtest"
_LOG = paths.LOGS / "fuzz.log"
# Memory that QEMU holds when it exits is not what is looked for.
_ASAN_OPTIONS = "detect_leaks=0"


def machines() -> list[str]:
    """The machines of the program's table."""
    return [name.rpartition("/")[2] for name in _run("-l") if "/fuzz/" in name]


def check(only: str) -> None:
    """Raise RigError when no source of the program has a machine of that name, which is soon told; '' stands for all."""
    names = re.findall(r'^ +\.name = "([\w-]+)",$', "".join(p.read_text(encoding="utf-8") for p in sorted(_SOURCES.glob("device-fuzz*.c"))), re.M)
    if only and only not in names:
        raise _unknown(only, names)


def _unknown(only: str, names: Iterable[str]) -> RigError:
    return RigError(f"there is no machine '{only}' to fuzz", f"the machines are: {', '.join(names)}")


def run(seconds: int, seed: int, only: str = "") -> int:
    """Fuzz for `seconds` in all. Returns the exit status: 1 when something was found, or never reached."""
    names = [name for name in machines() if not only or name == only]
    if not names:
        raise _unknown(only, machines())
    found, share = 0, max(1, seconds // len(names))
    for name in names:
        try:
            with step(f"fuzz {name}"):
                output = _run("--tap", "-p", f"/x86_64/fuzz/{name}", seconds=share, seed=seed)
            for line in output:
                if line.startswith(f"# {name} "):
                    print(line[2:], flush=True)
            if missing := never_reached(output):
                raise RigError(f"{name}: {len(missing)} of what the model can do never happened: {' '.join(missing)}",
                               f"{share} s may be too short; otherwise device-fuzz must learn to do it")
        except RigError as finding:
            found += 1
            print(finding, flush=True)
    say(f"  machines with a finding: {found} of {len(names)}")
    return 1 if found else 0


def never_reached(output: Iterable[str]) -> list[str]:
    """What the lines of the program say that a device was never made to do, in any way."""
    return [word.partition("=")[0] for line in output if (said := re.match(r"# \S+ \S+ never:(.*)", line))
            for word in said[1].split()]


def _run(*arguments: str, seconds: int = 0, seed: int = 1) -> list[str]:
    """The lines that the program writes. Raises RigError when it fails."""
    lines: list[str] = []
    if not _PROGRAM.exists():
        raise RigError(f"{_PROGRAM} does not exist", "rig/rig fuzz without --no-build builds it")
    proc.run([_PROGRAM, *arguments], log=_LOG, on_line=lines.append,
             env={"QTEST_QEMU_BINARY": str(qemu.ASAN_OBJECTS / "qemu-system-x86_64"), "ASAN_OPTIONS": _ASAN_OPTIONS,
                  "FUZZ_SECONDS": str(seconds), "FUZZ_SEED": str(seed)}, what="fuzzing")
    return lines
