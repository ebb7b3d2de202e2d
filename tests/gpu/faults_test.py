# SPDX-License-Identifier: GPL-2.0
"""Page faults of the GPU: nouveau maps the memory of a process on the GPU, and takes it away when it goes elsewhere.

Nothing runs on the model's graphics engine. What a program there would access, a test asks for (gpu.Engine).
"""
import functools
from typing import Callable

from rig import gpu
from rig.dialogue import Dialogue
from rig.gpu import HUGE, PAGE, Buffer, Counters, Engine, Vram
from rig.testlib import Test, case

FAULTS = ("replayable-faults",)


def fault_case(**options: object) -> Callable:
    """A case with a process and a channel in its address space. They share the guest of tests/gpu/svm_test.py."""
    def declare(function: Callable[[Test, Dialogue, Engine], None]) -> Callable[[Test], None]:
        @functools.wraps(function)
        def run(t: Test) -> None:
            with gpu.graphics(t.vm):
                client = gpu.process(t.vm)
                try:
                    function(t, client, Engine(client))
                finally:
                    # Unbinding the driver with a process's channel is an oops of nouveau.
                    if gpu.usable(t.vm):
                        client.close()
        return case(**{"topology": "switch:gpu", "timeout": 240, "cmdline": gpu.CMDLINE,  # type: ignore[arg-type]
                       **options})(run)
    return declare


def word(buffer: Buffer, offset: int) -> int:
    return gpu.word_of_pattern(buffer.seed, offset)


def check_page(t: Test, engine: Engine, address: int, kind: str, size: int, what: str) -> int:
    """The GPU maps `address` by a page of such a kind and size. Returns what address that is there."""
    page = engine.lookup(address)
    t.check(page is not None and page[0] == kind and page[2] == size, f"{what} is a page of {kind}, of {size} bytes, not {page}")
    return page.address if page else -1


def check_gone(t: Test, engine: Engine, buffer: Buffer, offsets: range, what: str) -> None:
    """The GPU maps nothing of these pages."""
    there = [f"{offset:#x}: {page}" for offset in offsets if (page := engine.lookup(buffer.address + offset))]
    t.check(not there, f"{len(there)} of {len(offsets)} pages of {what} are mapped, the first one is at {', '.join(there[:1])}")


def mapped(t: Test, client: Dialogue, engine: Engine, kind: str = "system", size: int = HUGE, offset: int = 0) -> Buffer:
    """A buffer that ends with a huge page, which the GPU has mapped as such."""
    buffer = Buffer(client, size, huge=True, offset=offset)
    if kind == "vram":
        buffer.bind()
        t.equal(buffer.resident(), buffer.pages, "pages that are not mapped by the CPU")
    at = size - HUGE
    t.equal(engine.read(buffer.address + at), word(buffer, at), "what the GPU reads of a huge page")
    check_page(t, engine, buffer.address + at + HUGE - PAGE, kind, HUGE, "the end of a huge page")
    return buffer


@fault_case()
def system_memory(t: Test, client: Dialogue, engine: Engine) -> None:
    """Memory of the system is mapped where the GPU faults: each side sees what the other one wrote."""
    for huge in (False, True):
        buffer, faults = Buffer(client, HUGE, huge=huge), Counters(t.vm, "gpu", FAULTS)
        t.equal(engine.lookup(buffer.address), None, "what is mapped on the GPU at first")
        for offset in (PAGE * 7 + 8, PAGE * 300):
            t.equal(engine.read(buffer.address + offset), word(buffer, offset), "what the GPU reads")
            check_page(t, engine, buffer.address + offset, "system", HUGE if huge else PAGE, "what was read")
        t.equal(faults.moved()["replayable-faults"], 1 if huge else 2, "faults for two pages")
        value = next(gpu.seeds)
        engine.write(buffer.address + PAGE * 300 + 16, value)
        t.equal(client.number("peek", buffer.address + PAGE * 300 + 16), value, "what the CPU reads of what the GPU wrote")
        buffer.fill()
        t.equal(engine.read(buffer.address + PAGE * 300), word(buffer, PAGE * 300), "what the GPU reads of what the CPU wrote")
        t.equal(faults.moved()["replayable-faults"], 0, "faults on what is mapped")


@fault_case()
def untouched(t: Test, client: Dialogue, engine: Engine) -> None:
    """What the CPU has not touched is zero for the GPU, which gets a page of its own when it writes."""
    for kind in ("map", "map-huge"):
        address, value = client.number(kind, HUGE), next(gpu.seeds)
        t.equal(engine.read(address + 8), 0, f"what the GPU reads ({kind})")
        engine.write(address + 8, value)
        t.equal(client.number("peek", address + 8), value, f"what the CPU reads ({kind})")
        t.equal(client.number("zero", address + PAGE, HUGE - PAGE), HUGE - PAGE, f"zeroes behind ({kind})")


@fault_case()
def video_memory(t: Test, client: Dialogue, engine: Engine) -> None:
    """Memory in VRAM is mapped there, and is no more when the CPU gets it back, with what the GPU wrote."""
    for huge in (False, True):
        buffer = Buffer(client, HUGE, huge=huge)
        size, offset, value = HUGE if huge else PAGE, PAGE * 9 + 8, next(gpu.seeds)
        t.equal(engine.read(buffer.address + offset), word(buffer, offset), "what the GPU reads of the system's memory")
        buffer.bind()
        t.equal(buffer.resident(), buffer.pages, "pages that are not mapped by the CPU")
        t.equal(engine.lookup(buffer.address + offset), None, "what is mapped after the migration to VRAM")
        t.equal(engine.read(buffer.address + offset), word(buffer, offset), "what the GPU reads of VRAM")
        at = check_page(t, engine, buffer.address + offset, "vram", size, "what was read")
        with Vram(t.vm) as vram:
            t.equal(vram.find(buffer.seed, buffer.pages)[9] + 8, at, "where the host finds it")
        engine.write(buffer.address + offset, value)
        t.equal(buffer.resident(), buffer.pages, "pages in VRAM after the GPU's accesses")

        t.equal(client.number("peek", buffer.address + offset), value, "what the CPU reads of what the GPU wrote")
        t.equal(engine.lookup(buffer.address + offset), None, "what is mapped after the migration back")
        t.equal(engine.read(buffer.address + offset), value, "what the GPU reads after the migration back")
        check_page(t, engine, buffer.address + offset, "system", size, "what was read then")


PART = range(100 * PAGE, 300 * PAGE, PAGE)
REST = range(300 * PAGE, HUGE, PAGE)


@fault_case()
def discarded_in_part(t: Test, client: Dialogue, engine: Engine) -> None:
    """A part of a huge page is discarded, and the rest of it later: the GPU does not find the old pages there."""
    for kind in ("system", "vram"):
        for again in (False, True):
            buffer = mapped(t, client, engine, kind)
            client.ask("discard", buffer.address + PART.start, len(PART) * PAGE)
            check_gone(t, engine, buffer, PART, f"what was discarded in {kind}")
            if again:
                t.equal(engine.read(buffer.address + PART.start + 8), 0, f"what the GPU reads of what was discarded in {kind}")
                t.equal(engine.read(buffer.address + 8), word(buffer, 8), f"what the GPU reads before it in {kind}")
                t.equal(engine.read(buffer.address + REST.start), word(buffer, REST.start), f"what it reads behind it in {kind}")
            client.ask("discard", buffer.address, HUGE)
            check_gone(t, engine, buffer, range(0, HUGE, PAGE), f"a huge page that was discarded as a whole in {kind}")
            for offset in (0, PART.start, REST.start):
                t.equal(engine.read(buffer.address + offset), 0, f"what the GPU reads in the end of {kind}")
            client.ask("unmap", buffer.address, HUGE)
            check_gone(t, engine, buffer, range(0, HUGE, PAGE), f"a huge page of {kind} that was unmapped")


@fault_case()
def migrated_in_part(t: Test, client: Dialogue, engine: Engine) -> None:
    """A part of a huge page goes to VRAM and comes back: what either side writes is there for the other one."""
    buffer = mapped(t, client, engine)
    client.ask("bind", buffer.address + PART.start, len(PART) * PAGE)
    t.equal(buffer.resident(), len(PART), "pages that are not mapped by the CPU")
    check_gone(t, engine, buffer, PART, "what went to VRAM")
    values = {}
    for offset, kind in ((0, "system"), (PART.start, "vram"), (PART.start + PAGE, "vram"), (REST.start, "system")):
        t.equal(engine.read(buffer.address + offset), word(buffer, offset), f"what the GPU reads at {offset:#x}")
        check_page(t, engine, buffer.address + offset, kind, PAGE, f"what was read at {offset:#x}")
        values[offset] = next(gpu.seeds)
        engine.write(buffer.address + offset, values[offset])
    for offset, value in values.items():
        t.equal(client.number("peek", buffer.address + offset), value, f"what the CPU reads at {offset:#x}")
    check_gone(t, engine, buffer, range(PART.start, PART.start + 2 * PAGE, PAGE), "what came back")
    buffer.fill()
    for offset in values:
        t.equal(engine.read(buffer.address + offset), word(buffer, offset), f"what the GPU reads at {offset:#x} in the end")
        check_page(t, engine, buffer.address + offset, "system", PAGE, f"what was read at {offset:#x} in the end")


@fault_case()
def touched(t: Test, client: Dialogue, engine: Engine) -> None:
    """The CPU touches a huge page that the GPU has mapped in VRAM, as a whole and where its page table entry was split."""
    for split in (False, True):
        buffer = mapped(t, client, engine, "vram")
        if split:
            client.ask("protect", buffer.address + PART.start, PAGE, "r")
            t.equal(engine.read(buffer.address + 8), word(buffer, 8), "what the GPU reads after the split")
        client.ask("touch", buffer.address + PART.start, PAGE)
        check_gone(t, engine, buffer, PART[:1], "what the CPU touched")
        if not split:
            check_gone(t, engine, buffer, range(0, HUGE, PAGE), "a huge page that the CPU touched")
        t.equal(buffer.matching(), HUGE, "bytes that the CPU finds as it left them")
        check_gone(t, engine, buffer, range(0, HUGE, PAGE), "what the CPU has read")
        t.equal(engine.read(buffer.address + REST.start), word(buffer, REST.start), "what the GPU reads then")


@fault_case()
def small_beside_huge(t: Test, client: Dialogue, engine: Engine) -> None:
    """The GPU maps small pages beside a huge one, before and after it: all of them can be unmapped."""
    size, first = HUGE + 16 * PAGE, 15 * PAGE
    for small_first in (True, False):
        buffer = Buffer(client, size, huge=True, offset=HUGE - 16 * PAGE)
        for offset in (first, first + PAGE) if small_first else (first + PAGE, first):
            t.equal(engine.read(buffer.address + offset), word(buffer, offset), "what the GPU reads")
        check_page(t, engine, buffer.address + first, "system", PAGE, "a small page")
        check_page(t, engine, buffer.address + first + PAGE, "system", HUGE, "a huge page")
        client.ask("discard", buffer.address, size)
        check_gone(t, engine, buffer, range(0, size, PAGE), "a small and a huge page")
        for offset in (first, first + PAGE):
            t.equal(engine.read(buffer.address + offset), 0, "what the GPU reads in the end")
        client.ask("unmap", buffer.address, size)


def fill_vram(t: Test, driver: Dialogue) -> None:
    """Have a process make buffers until no page of VRAM is free.

    What is evicted then is what was made first. That is more than was asked for, as it takes a moment to get free: these are
    small buffers, and as many are made once more.
    """
    copies = Counters(t.vm, "gpu", ("ce-bytes-d2h",))
    gpu.make_buffers(driver, 2048, PAGE)
    gpu.make_buffers(driver, ((1 << 30) - (64 << 20)) // HUGE, HUGE)
    for size, together in ((16 * PAGE, 32), (PAGE, 1)):
        while not (evicted := copies.moved()["ce-bytes-d2h"]):
            gpu.make_buffers(driver, together, size)
    gpu.make_buffers(driver, evicted // PAGE - 1, PAGE)
    t.equal(copies.moved()["ce-bytes-d2h"], 0, "bytes evicted for buffers that should have fitted")


@fault_case()
def no_room_for_tables(t: Test, client: Dialogue, engine: Engine) -> None:
    """VRAM is full, so that there are no page tables: the GPU faults until there is room, and finds what is there then."""
    size = 32 * HUGE
    for discarded in (False, True):
        buffer = Buffer(client, size)
        driver = gpu.plain_process(t.vm)
        try:
            fill_vram(t, driver)
            # Some are in nvkm's caches.
            for offset in range(0, size, HUGE):
                value = engine.read_while(buffer.address + offset, 10)
                if value is None:
                    break
                t.equal(value, word(buffer, offset), "what the GPU reads while there are page tables")
            t.check(value is None, "no access had to wait for page tables")
            if discarded:
                client.ask("discard", buffer.address, size)
        finally:
            if gpu.usable(t.vm):
                driver.close()
        t.equal(engine.finish(), 0 if discarded else word(buffer, offset), "what the GPU reads when there is room again")
        client.ask("unmap", buffer.address, size)
