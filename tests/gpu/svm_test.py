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
def fork(t: Test) -> None:
    """A child and its parent share pages in VRAM until one of them writes."""
    client = gpu.process(t.vm)
    for huge in (False, True):
        buffer = Buffer(client, HUGE, huge=huge)
        buffer.bind()
        t.equal(client.number("fork", buffer.address, HUGE, buffer.seed, next(gpu.seeds)), HUGE, "bytes that the child sees")
        check_intact(t, buffer)
    client.close()
