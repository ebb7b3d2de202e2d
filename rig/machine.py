# SPDX-License-Identifier: GPL-2.0
"""The machine that a guest is: QEMU's command line but for how the host talks to the guest, which rig/vm.py adds; or the whole of
it, for people."""
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Sequence

from . import accel
from .topology import Topology

# What every guest gets on its kernel command line. The runner depends on all of it:
_CMDLINE = (
    "console=ttyS0 ignore_loglevel printk.time=1 printk.devkmsg=on "  # every message reaches the console, and is recognised
    "panic=-1 "                        # a panic resets the machine, which ends QEMU (-no-reboot) with a reason
    "sysrq_always_enabled "            # evidence about a hang
    # vCPUs are threads that share the host's cores with a compiler: what would be a lockup on hardware may only be that
    "watchdog_thresh=60 rcupdate.rcu_cpu_stall_timeout=100 "
    # While jiffies are still the clock the watchdog of the TSC can deadlock with the stop_machine() that changes the clock:
    # with its interrupts off, the CPU that counts jiffies waits for the other CPU or for a timeout in jiffies.
    "tsc=nowatchdog "
    "no_timer_check "                  # on a busy host the boot-time test of the timer interrupt can fail (a panic)
)


@dataclass(frozen=True)
class Artefacts:
    """What a guest is booted from. `disks` are read-only images; the guest sees their names as the disks' serial numbers.

    `cmdline` are parameters for the kernel that those of Options replace.
    """
    qemu: Path
    kernel: Path
    initrd: Path
    disks: tuple[tuple[str, Path], ...] = ()
    qemu_args: tuple[str, ...] = ()
    cmdline: str = ""


@dataclass(frozen=True)
class Options:
    """How to boot, beyond the topology. `share` is a directory of the host that the guest sees, read-only, as 9p tag "host".
    `trace` are patterns of QEMU's trace events that go to qemu.log with the time, as "THREAD@SECONDS:EVENT WORDS".
    With `icount` the guest's clocks count instructions, one a nanosecond, so that what it measures does not depend on the host;
    this takes emulation, and one CPU."""
    memory: str = "2G"
    smp: int = 2
    cmdline: str = ""
    devices: tuple[str, ...] = ()
    share: Optional[Path] = None
    trace: tuple[str, ...] = ()
    icount: bool = False


def command_line(topology: Topology, files: Artefacts, options: Options, devices: Sequence[str] = ()) -> list[str]:
    """QEMU and its arguments. `devices` are further arguments of -device, by which the host talks to the guest."""
    argv = [
        str(files.qemu), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-name", f"rig-{topology.name}", "-machine", "q35" + (f",{topology.machine}" if topology.machine else ""),
        *(accel.COUNTING if options.icount else ("-accel", accel.choose(files.qemu, files.kernel))),
        "-cpu", topology.cpu, "-smp", str(options.smp), "-m", options.memory,
        *files.qemu_args,
        *(word for each in topology.objects for word in ("-object", each)),
        "-kernel", str(files.kernel), "-initrd", str(files.initrd),
        "-append", kernel_command_line(files.cmdline, topology.cmdline, options.cmdline),
    ]
    inserted = [*topology.devices, *devices, "virtio-rng-pci,addr=0x4"]
    for number, (name, path) in enumerate(files.disks):
        argv += ["-drive", f"if=none,id={name},format=raw,read-only=on,file={_quoted(path)}"]
        inserted.append(f"virtio-blk-pci,drive={name},serial={name},addr={0x5 + number:#x}")
    if options.share:
        argv += ["-fsdev", f"local,id=host,security_model=none,readonly=on,path={_quoted(options.share)}"]
        inserted.append("virtio-9p-pci,fsdev=host,mount_tag=host,addr=0xf")
    for device in (*inserted, *options.devices):
        argv += ["-device", device]
    return argv


def by_hand(topology: Topology, files: Artefacts, options: Options) -> str:
    """The shell command that boots this guest without the rig, with its console, and QEMU's monitor behind it, on the terminal."""
    lines: list[list[str]] = []
    for word in (*command_line(topology, files, options), "-serial", "mon:stdio"):
        if not lines or word.startswith("-"):
            lines.append([])
        lines[-1].append(word)
    return " \\\n    ".join(map(shlex.join, lines))


def kernel_command_line(defaults: str, *more: str) -> str:
    """What every guest gets, `more`, and those of the `defaults` whose parameter `more` does not set."""
    words = " ".join(more).split()
    set_by_more = {word.partition("=")[0] for word in words}
    kept = [word for word in defaults.split() if word.partition("=")[0] not in set_by_more]
    return " ".join([*_CMDLINE.split(), *kept, *words])


def _quoted(path: Path) -> str:
    """A path as a value of a QEMU option, where a comma is written twice."""
    return str(path).replace(",", ",,")
