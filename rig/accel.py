# SPDX-License-Identifier: GPL-2.0
"""Which accelerator QEMU uses: KVM where it really works, otherwise TCG, which is the baseline everywhere."""
import os
import select
import threading
import time
from pathlib import Path

from . import paths, proc
from .ui import RigError

TCG = "tcg,thread=multi"
COUNTING = ("-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off")
"""QEMU's arguments for a guest whose clocks count instructions."""
_PROBE_SECONDS = 5
_lock = threading.Lock()


def choose(qemu: Path, kernel: Path) -> str:
    """The argument of -accel. $RIG_ACCEL = kvm or tcg overrides the choice. `kernel` is what the probe tries to boot."""
    wish = os.environ.get("RIG_ACCEL", "")
    if wish not in ("", "kvm", "tcg"):
        raise RigError(f"RIG_ACCEL is '{wish}'", "set it to kvm or tcg, or leave it unset")
    if wish == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise RigError("RIG_ACCEL asks for KVM, and /dev/kvm cannot be opened",
                       "check that it exists and that you may use it; without RIG_ACCEL the rig uses TCG")
    if wish == "kvm" or (not wish and os.access("/dev/kvm", os.R_OK | os.W_OK) and _kvm_works(qemu, kernel)):
        return "kvm"
    return TCG


def _kvm_works(qemu: Path, kernel: Path) -> bool:
    """What the probe says, asked once for each boot of this machine and each QEMU binary."""
    known = paths.BUILD / "kvm-probe"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    try:
        key = f"{boot} {qemu.resolve()} {qemu.stat().st_mtime_ns}"
    except OSError:
        return False
    with _lock:
        try:
            said, _, verdict = known.read_text().rpartition(" ")
            if said == key:
                return verdict == "yes"
        except OSError:
            pass
        works = _probe(qemu, kernel)
        known.parent.mkdir(parents=True, exist_ok=True)
        temporary = known.with_name(f".kvm-probe-{os.getpid()}")
        temporary.write_text(f"{key} {'yes' if works else 'no'}")
        temporary.replace(known)
        return works


def _probe(qemu: Path, kernel: Path) -> bool:
    """Whether a kernel unpacks itself and starts under KVM within a few seconds; on real hardware it takes a fraction of one.

    A /dev/kvm that opens proves nothing: where virtualisation is nested, or emulated in software, the firmware may run
    and a kernel crawl.
    """
    reader, writer = os.pipe()
    child = None
    try:
        child = proc.spawn([qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "q35",
                            "-accel", "kvm", "-m", "512M", "-kernel", kernel,
                            "-append", "console=ttyS0 earlyprintk=serial,ttyS0 panic=-1", "-add-fd", f"fd={writer},set=1",
                            "-chardev", "file,id=console,path=/dev/fdset/1,append=on", "-serial", "chardev:console"],
                           stdin=proc.DEVNULL, stdout=proc.DEVNULL, stderr=proc.DEVNULL, pass_fds=[writer])
        os.close(writer)
        writer = -1
        seen, end = b"", time.monotonic() + _PROBE_SECONDS
        while b"Linux version" not in seen:
            if not select.select([reader], [], [], max(end - time.monotonic(), 0))[0]:
                return False
            if not (data := os.read(reader, 4096)):
                return False  # QEMU gave up
            seen += data
        return True
    except OSError:
        return False
    finally:
        if child:
            proc.reap(child, grace=0.1)
        if writer >= 0:
            os.close(writer)
        os.close(reader)
