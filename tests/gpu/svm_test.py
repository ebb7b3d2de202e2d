# SPDX-License-Identifier: GPL-2.0
"""Memory of a process in VRAM, by nouveau's shared virtual memory: where it is, and that it comes back as it was."""
from typing import Callable

from rig import gpu
from rig.gpu import HUGE, PAGE, Buffer, Counters, Vram
from rig.testlib import Test, case

COPIES = ("ce-bytes-h2d", "ce-bytes-d2h", "ce-bytes-fill", "ce-errors")


def svm_case(**options: object) -> Callable:
    """A case with a GPU. All of them share one guest, unless they say otherwise."""
    return case(**{"topology": "switch:gpu", "timeout": 240, "cmdline": gpu.CMDLINE, **options})  # type: ignore[arg-type]


def check_resident(t: Test, buffer: Buffer, vram: Vram) -> dict[int, int]:
    """All of `buffer` is in VRAM; returns where."""
    t.equal(buffer.resident(), buffer.pages, "pages that are not mapped by the CPU")
    found = vram.find(buffer.seed, buffer.pages)
    t.equal(len(found), buffer.pages, "pages of the pattern in VRAM")
    return found


def check_intact(t: Test, buffer: Buffer) -> None:
    t.equal(buffer.matching(), buffer.size, "bytes that the CPU finds as it left them")


@svm_case()
def small_pages(t: Test) -> None:
    """More than one push buffer's worth of copies of 4 KiB each: none of them is lost."""
    client = gpu.process(t.vm)
    with Vram(t.vm) as vram:
        buffer = Buffer(client, 8 << 20)
        copies = Counters(t.vm, "gpu", COPIES)
        buffer.bind()
        check_resident(t, buffer, vram)
        t.equal(copies.moved(), {"ce-bytes-h2d": buffer.size, "ce-bytes-d2h": 0, "ce-bytes-fill": 0, "ce-errors": 0},
                "what the copy engine did to migrate to VRAM")
        check_intact(t, buffer)
        t.equal(copies.moved(), {"ce-bytes-h2d": 0, "ce-bytes-d2h": buffer.size, "ce-bytes-fill": 0, "ce-errors": 0},
                "what the copy engine did to migrate back")
    client.close()


@svm_case()
def huge_pages(t: Test) -> None:
    """Huge pages go and come back as such, even if the range does not begin with one."""
    client = gpu.process(t.vm)
    with Vram(t.vm) as vram:
        buffer = Buffer(client, 3 * HUGE + 16 * PAGE, huge=True, offset=HUGE - 16 * PAGE)
        t.equal(client.number("huge", buffer.address, buffer.size), 3 * HUGE, "bytes in huge pages before")
        copies = Counters(t.vm, "gpu", ("ce-launches", *COPIES))
        buffer.bind()
        found = check_resident(t, buffer, vram)
        for first in (16, 16 + 512, 16 + 1024):
            t.check(all(found[first + i] == found[first] + i * PAGE for i in range(512)), "a huge page is in one piece")
            t.equal(found[first] % HUGE, 0, "alignment of a huge page")
        t.equal(copies.moved()["ce-launches"], 3 + 16, "copies: one for each huge page, one for each small page")
        check_intact(t, buffer)
        t.equal(client.number("huge", buffer.address, buffer.size), 3 * HUGE, "bytes in huge pages after")
    client.close()


@svm_case()
def holes(t: Test) -> None:
    """What was never touched is zeroes, before and after."""
    client = gpu.process(t.vm)
    for kind in ("map", "map-huge"):
        address = client.number(kind, 2 * HUGE)
        client.ask("fill", address + HUGE, 8 * PAGE, 1)
        client.ask("discard", address + HUGE + 4 * PAGE, 4 * PAGE)
        client.ask("bind", address, 2 * HUGE)
        t.check(client.number("vram", address, 2 * HUGE) >= 512, "holes become zeroed memory in VRAM")
        t.equal(client.number("zero", address, HUGE), HUGE, f"zeroes in what was not touched ({kind})")
        t.equal(client.number("check", address + HUGE, HUGE, 1), 4 * PAGE, f"bytes that were written ({kind})")
        t.equal(client.number("zero", address + HUGE + 4 * PAGE, HUGE - 4 * PAGE), HUGE - 4 * PAGE, f"zeroes behind ({kind})")
    client.close()


@svm_case()
def gaps_and_parts(t: Test) -> None:
    """A range with several VMAs and nothing between them, and a part of a huge page."""
    client = gpu.process(t.vm)
    buffer = Buffer(client, 2 * HUGE, huge=True)
    client.ask("bind", buffer.address + 100 * PAGE, 200 * PAGE)
    t.equal(buffer.resident(), 200, "pages of a part of a huge page")
    check_intact(t, buffer)
    client.ask("unmap", buffer.address + HUGE, 16 * PAGE)
    buffer.bind()
    t.equal(client.number("vram", buffer.address, HUGE), 512, "pages before the gap")
    t.equal(client.number("vram", buffer.address + HUGE + 16 * PAGE, HUGE - 16 * PAGE), 512 - 16, "pages behind the gap")
    t.equal(client.number("check", buffer.address, HUGE, buffer.seed), HUGE, "bytes before the gap")
    client.close()


@svm_case()
def read_only(t: Test) -> None:
    client = gpu.process(t.vm)
    for huge in (False, True):
        buffer = Buffer(client, HUGE, huge=huge)
        client.ask("protect", buffer.address, HUGE, "r")
        buffer.bind()
        t.equal(buffer.resident(), 512, f"pages of a read-only VMA, huge: {huge}")
        check_intact(t, buffer)
        buffer.bind()
        client.ask("protect", buffer.address, HUGE, "w")
        buffer.fill()
        check_intact(t, buffer)
    client.close()


@svm_case()
def split_by_protection(t: Test) -> None:
    """A huge page in VRAM whose page table entry is split: each page has its own contents."""
    client = gpu.process(t.vm)
    buffer = Buffer(client, HUGE, huge=True)
    buffer.bind()
    client.ask("protect", buffer.address + 3 * PAGE, PAGE, "r")
    t.equal(buffer.resident(), 512, "pages in VRAM after the split")
    # Not the first page of the huge one first: with that, the pages become independent of each other.
    t.equal(client.number("check", buffer.address + 5 * PAGE, PAGE, buffer.seed, 5 * PAGE), PAGE, "bytes of page 5")
    check_intact(t, buffer)
    client.close()


@svm_case()
def unmapped_in_part(t: Test) -> None:
    """Half of a huge page in VRAM is unmapped; the other half is intact, and all of VRAM is free in the end."""
    client = gpu.process(t.vm)
    before = gpu.dmem(t.vm)["pages in use"]
    buffer = Buffer(client, HUGE, huge=True)
    buffer.bind()
    client.ask("unmap", buffer.address + HUGE // 2, HUGE // 2)
    t.equal(client.number("check", buffer.address, HUGE // 2, buffer.seed), HUGE // 2, "bytes that are left")
    t.equal(gpu.dmem(t.vm)["pages in use"], before, "pages in use in the end")
    client.close()


@svm_case()
def fork(t: Test) -> None:
    """A child and its parent share pages in VRAM until one of them writes."""
    client = gpu.process(t.vm)
    for huge in (False, True):
        buffer = Buffer(client, HUGE, huge=huge)
        buffer.bind()
        t.equal(client.number("fork", buffer.address, HUGE, buffer.seed, next(gpu.seeds)), HUGE, "bytes that the child sees")
        check_intact(t, buffer)
    client.close()


@svm_case()
def closed(t: Test) -> None:
    """Pages that are still in VRAM when the process closes the GPU, and when it ends."""
    client = gpu.process(t.vm)
    before = gpu.dmem(t.vm)["pages in use"]
    buffers = [Buffer(client, HUGE, huge=huge) for huge in (False, True)]
    left = Buffer(client, HUGE, huge=True)
    for buffer in (*buffers, left):
        buffer.bind()
    client.ask("close")
    for buffer in buffers:
        t.equal(buffer.resident(), 512, "pages in VRAM with the GPU closed")
        t.equal(client.number("fork", buffer.address, HUGE, buffer.seed, next(gpu.seeds)), HUGE, "bytes that a child sees")
        check_intact(t, buffer)
    t.equal(gpu.dmem(t.vm)["pages in use"], before + 512, "pages that only their process can free")
    client.close()
    t.equal(gpu.dmem(t.vm)["pages in use"], before, "pages in use with the process gone")


@svm_case()
def threads(t: Test) -> None:
    """One thread migrates what another one reads all the time."""
    client = gpu.process(t.vm)
    for huge in (False, True):
        buffer = Buffer(client, HUGE, huge=huge)
        t.equal(client.number("race", buffer.address, HUGE, buffer.seed, 20, timeout=120), 0, "checks that failed")
    client.close()


@svm_case()
def two_processes(t: Test) -> None:
    """Two processes use the copy engine at the same time."""
    clients = [gpu.process(t.vm), gpu.process(t.vm)]
    buffers = [Buffer(client, 2 << 20) for client in clients]
    requests = [f"race {b.address:#x} {b.size:#x} {b.seed} 10\n".encode() for b in buffers]
    answered = [len(client.answers) for client in clients]
    for client, request in zip(clients, requests):
        t.vm.send(client.operation, request)
    for client, count in zip(clients, answered):
        t.vm.wait_until(lambda client=client, count=count: len(client.answers) > count, "a race did not end", 120)
        t.equal(client.answers[-1], "ok 0", "checks that failed")
        client.close()


@svm_case()
def no_huge_page(t: Test) -> None:
    """Without a free huge page, one in VRAM comes back as small pages."""
    client = gpu.process(t.vm)
    buffer = Buffer(client, HUGE, huge=True)
    buffer.bind()
    t.vm.run("cd /sys/kernel/debug/fail_page_alloc && echo 9 >min-order && echo N >ignore-gfp-wait && "
             "echo N >ignore-gfp-highmem && echo 0 >verbose && echo -1 >times && echo 100 >probability")
    try:
        check_intact(t, buffer)
        t.equal(client.number("huge", buffer.address, HUGE), 0, "bytes in huge pages after")
    finally:
        t.vm.run("echo 0 >/sys/kernel/debug/fail_page_alloc/probability")
    client.close()


@svm_case()
def slow_copies(t: Test) -> None:
    """Nobody uses a page before the copy engine is done, and copies that have to wait for room are not lost."""
    client = gpu.process(t.vm)
    t.vm.qom_set("gpu", "copy-delay-us", 200)
    try:
        for size, huge in ((8 << 20, False), (HUGE, True)):
            buffer = Buffer(client, size, huge=huge)
            buffer.bind()
            t.equal(buffer.resident(), buffer.pages, "pages that are not mapped by the CPU")
            check_intact(t, buffer)
    finally:
        t.vm.qom_set("gpu", "copy-delay-us", 0)
    client.close()


@svm_case(fresh=True)
def failed_copy(t: Test) -> None:
    """When the copy engine fails, pages stay where they are, with what is in them."""
    client = gpu.process(t.vm)
    buffer = Buffer(client, 16 * PAGE)
    t.vm.qom_set("gpu", "fail-copies", 1)
    buffer.bind()
    t.equal(buffer.resident(), 0, "pages in VRAM after a copy that failed")
    check_intact(t, buffer)
    client.close()


@svm_case()
def unbind(t: Test) -> None:
    """The driver is unbound with memory in VRAM, small and huge pages, and bound again."""
    client = gpu.process(t.vm)
    address = t.vm.pci_address("gpu")
    buffers = [Buffer(client, HUGE, huge=huge) for huge in (False, True)]
    for buffer in buffers:
        buffer.bind()
    client.ask("close")
    t.vm.run(f"echo {address} >/sys/bus/pci/drivers/nouveau/unbind", timeout=120)
    for buffer in buffers:
        t.equal(buffer.resident(), 0, "pages that are left in VRAM")
        check_intact(t, buffer)
    t.vm.run(f"echo {address} >/sys/bus/pci/drivers/nouveau/bind", timeout=120)
    client.ask("gpu", gpu.node(t.vm))
    for buffer in buffers:
        buffer.bind()
        t.equal(buffer.resident(), 512, "pages in VRAM after binding the driver again")
        check_intact(t, buffer)
    client.close()


@svm_case(topology="switch:two-gpus")
def two_gpus(t: Test) -> None:
    """A process for each of two GPUs: each one's memory is in its own VRAM."""
    for role, size in (("gpu", 1 << 30), ("gpu1", 768 << 20)):
        client = gpu.process(t.vm, role)
        with Vram(t.vm, size) as vram:
            buffer = Buffer(client, 2 << 20)
            buffer.bind()
            check_resident(t, buffer, vram)
            check_intact(t, buffer)
        client.close()


@svm_case(timeout=3600, full=True, cmdline=f"{gpu.CMDLINE} kmemleak=on")
def a_thousand_times(t: Test) -> None:
    """Nothing piles up: neither memory of the kernel nor pages of VRAM."""
    client = gpu.process(t.vm)
    buffers = [Buffer(client, HUGE, huge=huge) for huge in (False, True)]
    before = gpu.dmem(t.vm)["pages in use"]
    for _ in range(1000):
        for buffer in buffers:
            buffer.bind()
            check_intact(t, buffer)
    t.equal(gpu.dmem(t.vm)["pages in use"], before, "pages in use in the end")
    t.vm.run("echo scan >/sys/kernel/debug/kmemleak; sleep 6; echo scan >/sys/kernel/debug/kmemleak", timeout=300)
    t.equal(t.vm.read("/sys/kernel/debug/kmemleak").decode(), "", "what kmemleak found")
    client.close()
