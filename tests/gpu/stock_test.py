# SPDX-License-Identifier: GPL-2.0
"""The GPU under nouveau of the kernel that the distribution ships: no firmware, none of our patches, and no SVM.

What moves between VRAM and the host there are buffers of the driver, which TTM evicts with the copy engine.
"""
import functools
from typing import Callable, Iterator

from rig import gpu, pci
from rig.dialogue import Dialogue
from rig.gpu import Buffer, Counters, Vram
from rig.testlib import Test, case

VRAM = 1 << 30
BUFFER = 32 << 20
INTX = gpu.CMDLINE.replace("nouveau.config=", "nouveau.config=NvMSI=0,")


def stock_case(**options: object) -> Callable:
    """A case with a GPU, and a process that has opened it."""
    def declare(function: Callable[[Test, Dialogue], None]) -> Callable[[Test], None]:
        @functools.wraps(function)
        def run(t: Test) -> None:
            client = gpu.plain_process(t.vm)
            function(t, client)
            client.close()
            t.no_guest_errors()
        return case(**{"topology": "switch:gpu", "kernel": "stock", "timeout": 240,  # type: ignore[arg-type]
                       "cmdline": gpu.CMDLINE, **options})(run)
    return declare


def evict(t: Test, client: Dialogue, count: int) -> Iterator[Buffer]:
    """Make buffers for which VRAM is too small by `count`: the copy engine evicts as many, and none changes."""
    copies = Counters(t.vm, "gpu", ("ce-bytes-d2h", "ce-errors"))
    buffers = [Buffer(client, BUFFER, gem=True) for _ in range(VRAM // BUFFER + count)]
    moved = copies.moved()
    t.check(moved["ce-bytes-d2h"] >= count * BUFFER, f"{moved['ce-bytes-d2h']} bytes were evicted by the copy engine")
    t.equal(moved["ce-errors"], 0, "copies that failed")
    for buffer in buffers:
        t.equal(buffer.matching(), buffer.size, "bytes that the CPU finds as it left them")
        yield buffer


def interrupts(t: Test) -> tuple[str, int]:
    """The kind of nouveau's interrupt in /proc/interrupts, and how many there were."""
    for line in t.vm.read("/proc/interrupts").decode().splitlines():
        words = line.split()
        if words[-1] == "nvkm":
            return words[-3], sum(int(word) for word in words[1:] if word.isdigit())
    t.fail("nouveau has no interrupt")


def check_interrupt(t: Test, kind: str) -> None:
    """nouveau's interrupt is of that kind, and tells of an access to BAR1 where nothing is (by QEMU's monitor)."""
    found, before = interrupts(t)
    t.check(found.startswith(kind), f"the interrupt is {kind}, not {found}")
    bar1 = t.vm.read(f"{pci.DEVICES}/{t.vm.pci_address('gpu')}/resource").decode().splitlines()[1].split()
    t.vm.qmp("human-monitor-command", command_line=f"xp /1wx {int(bar1[1], 0) - 3:#x}")
    t.vm.run("until dmesg | grep -q 'fault .* engine 04 .BAR1.'; do sleep 0.1; done")
    t.check(interrupts(t)[1] > before, "there were more interrupts")


@stock_case()
def binds(t: Test, client: Dialogue) -> None:
    """nouveau finds all that it looks for."""
    log = t.vm.run(["dmesg"]).stdout
    for text in ("NVIDIA GP100 (130000a1)", "bios: version 86.00.00.00.01", "fb: 1024 MiB", "using COPY for buffer copies"):
        t.check(text in log, f"nouveau says '{text}'")
    t.equal(t.vm.qom_get("gpu", "unknown-regs"), 0, "accesses to registers that the model does not have")
    t.check(t.vm.run("grep -qw nouveau_dmem_migrate_vma /proc/kallsyms", check=False).status, "this nouveau has no SVM")


@stock_case()
def msi(t: Test, client: Dialogue) -> None:
    check_interrupt(t, "PCI-MSI")
    t.check(t.vm.qom_get("gpu", "msi-sent") > 0, "the GPU sent messages")


@stock_case(cmdline=INTX)
def intx(t: Test, client: Dialogue) -> None:
    check_interrupt(t, "IO-APIC")
    t.equal(t.vm.qom_get("gpu", "msi-sent"), 0, "messages that the GPU sent")
    t.equal(Buffer(client, BUFFER, gem=True).matching(), BUFFER, "bytes that the CPU finds in VRAM as it left them")


@stock_case()
def evicted(t: Test, client: Dialogue) -> None:
    """Buffers that VRAM has no room for: TTM evicts others, by the copy engine and through BAR1."""
    for _ in evict(t, client, 4):
        pass


@stock_case()
def suspend(t: Test, client: Dialogue) -> None:
    """The guest sleeps: what was in VRAM, which loses it, is in host memory."""
    buffers = [Buffer(client, BUFFER, gem=True) for _ in range(2)]
    with Vram(t.vm, VRAM) as vram:
        t.equal(len(vram.find(buffers[0].seed, buffers[0].pages)), buffers[0].pages, "pages of a buffer in VRAM")
        t.vm.suspend()
        t.equal(len(vram.find(buffers[0].seed, buffers[0].pages)), 0, "pages of it in VRAM afterwards")
    for buffer in buffers:
        t.equal(buffer.matching(), buffer.size, "bytes that the CPU finds as it left them")
    Buffer(client, BUFFER, gem=True)


def rebind(t: Test, client: Dialogue, times: int) -> None:
    """Unbind and bind nouveau so many times, and use the GPU each time."""
    for _ in range(times):
        client.ask("close")
        gpu.unbind(t.vm)
        client.ask("open", gpu.bind(t.vm))
        buffer = Buffer(client, BUFFER, gem=True)
        t.equal(buffer.matching(), buffer.size, "bytes that the CPU finds as it left them")
        client.ask("unmap", buffer.address, buffer.size)


@stock_case()
def rebound(t: Test, client: Dialogue) -> None:
    rebind(t, client, 3)


@stock_case(full=True, timeout=900)
def rebound_often(t: Test, client: Dialogue) -> None:
    rebind(t, client, 20)
