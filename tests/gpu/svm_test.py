# SPDX-License-Identifier: GPL-2.0
"""Memory of a process in VRAM, by nouveau's shared virtual memory: where it is, and that it comes back as it was."""
import contextlib
import functools
import re
import signal
import time
from typing import Callable, Iterator

from rig import gpu, kmemleak, pci
from rig.dialogue import Dialogue
from rig.gpu import HUGE, PAGE, Buffer, Counters, Vram
from rig.testlib import Test, case
from rig.vm import CommandFailed

COPIES = ("ce-bytes-h2d", "ce-bytes-d2h", "ce-bytes-fill", "ce-errors")
CHUNK = (256 << 20) // PAGE  # how many pages nouveau adds at once


def svm_case(**options: object) -> Callable:
    """A case with a GPU and a process that has opened it. All of them share one guest, unless they say otherwise."""
    def declare(function: Callable[[Test, Dialogue], None]) -> Callable[[Test], None]:
        @functools.wraps(function)
        def run(t: Test) -> None:
            client = gpu.process(t.vm)
            function(t, client)
            client.close()
            t.equal(t.vm.qom_get("gpu", "unknown-regs"), 0, "accesses to registers that the model does not have")
        return case(**{"topology": "switch:gpu", "timeout": 240, "cmdline": gpu.CMDLINE,  # type: ignore[arg-type]
                       **options})(run)
    return declare


def in_vram(t: Test, client: Dialogue, size: int = HUGE, **options: object) -> Buffer:
    """A buffer that was migrated to VRAM as a whole; `options` are those of Buffer."""
    buffer = Buffer(client, size, **options)  # type: ignore[arg-type]
    migrate(t, buffer)
    return buffer


def migrate(t: Test, buffer: Buffer) -> None:
    """Migrate all of `buffer` to VRAM."""
    buffer.bind()
    t.equal(buffer.resident(), buffer.pages, "pages that are not mapped by the CPU")


def both(t: Test, client: Dialogue) -> Iterator[Buffer]:
    """A buffer of small pages in VRAM, then one that is a huge page."""
    for huge in (False, True):
        yield in_vram(t, client, huge=huge)


def await_copies(t: Test) -> None:
    """Wait until the copy engine has something to do."""
    copies = t.vm.qom_get("gpu", "ce-launches")
    while t.vm.qom_get("gpu", "ce-launches") == copies:
        t.vm.run(["true"])


def rebound(t: Test, client: Dialogue) -> None:
    """Unbind the driver and bind it again: it starts without a chunk."""
    client.ask("close")
    gpu.unbind(t.vm)
    client.ask("gpu", gpu.bind(t.vm))


@contextlib.contextmanager
def no_huge_pages(t: Test) -> Iterator[None]:
    """Meanwhile the kernel has no free huge page."""
    t.vm.run("cd /sys/kernel/debug/fail_page_alloc && echo 9 >min-order && echo N >ignore-gfp-wait && "
             "echo N >ignore-gfp-highmem && echo 0 >verbose && echo -1 >times && echo 100 >probability")
    try:
        yield
    finally:
        t.vm.run("echo 0 >/sys/kernel/debug/fail_page_alloc/probability")


def check_resident(t: Test, buffer: Buffer, vram: Vram) -> dict[int, int]:
    """All of `buffer` is in VRAM; returns where."""
    found = vram.find(buffer.seed, buffer.pages)
    t.equal(len(found), buffer.pages, "pages of the pattern in VRAM")
    return found


def check_intact(t: Test, buffer: Buffer) -> None:
    t.equal(buffer.matching(), buffer.size, "bytes that the CPU finds as it left them")


@svm_case()
def small_pages(t: Test, client: Dialogue) -> None:
    """More than one push buffer's worth of copies of 4 KiB each: none of them is lost."""
    with Vram(t.vm) as vram:
        buffer = Buffer(client, 8 << 20)
        copies = Counters(t.vm, "gpu", COPIES)
        migrate(t, buffer)
        check_resident(t, buffer, vram)
        t.equal(copies.moved(), {"ce-bytes-h2d": buffer.size, "ce-bytes-d2h": 0, "ce-bytes-fill": 0, "ce-errors": 0},
                "what the copy engine did to migrate to VRAM")
        check_intact(t, buffer)
        t.equal(copies.moved(), {"ce-bytes-h2d": 0, "ce-bytes-d2h": buffer.size, "ce-bytes-fill": 0, "ce-errors": 0},
                "what the copy engine did to migrate back")


@svm_case()
def huge_pages(t: Test, client: Dialogue) -> None:
    """Huge pages go and come back as such, even if the range does not begin with one."""
    with Vram(t.vm) as vram:
        buffer = Buffer(client, 3 * HUGE + 16 * PAGE, huge=True, offset=HUGE - 16 * PAGE)
        t.equal(client.number("huge", buffer.address, buffer.size), 3 * HUGE, "bytes in huge pages before")
        copies = Counters(t.vm, "gpu", ("ce-launches", *COPIES))
        migrate(t, buffer)
        found = check_resident(t, buffer, vram)
        for first in (16, 16 + 512, 16 + 1024):
            t.check(all(found[first + i] == found[first] + i * PAGE for i in range(512)), "a huge page is in one piece")
            t.equal(found[first] % HUGE, 0, "alignment of a huge page")
        t.equal(copies.moved()["ce-launches"], 3 + 16, "copies: one for each huge page, one for each small page")
        check_intact(t, buffer)
        t.equal(client.number("huge", buffer.address, buffer.size), 3 * HUGE, "bytes in huge pages after")


@svm_case()
def holes(t: Test, client: Dialogue) -> None:
    """What was never touched is zeroes, before and after."""
    for kind in ("map", "map-huge"):
        address, seed = client.number(kind, 2 * HUGE), next(gpu.seeds)
        client.ask("fill", address + HUGE, 8 * PAGE, seed)
        client.ask("discard", address + HUGE + 4 * PAGE, 4 * PAGE)
        client.ask("bind", address, 2 * HUGE)
        t.check(client.number("vram", address, 2 * HUGE) >= 512, "holes become zeroed memory in VRAM")
        with Vram(t.vm) as vram:
            t.equal(sorted(vram.find(seed, 8)), [0, 1, 2, 3], f"pages of the pattern in VRAM ({kind})")
        t.equal(client.number("zero", address, HUGE), HUGE, f"zeroes in what was not touched ({kind})")
        t.equal(client.number("check", address + HUGE, HUGE, seed), 4 * PAGE, f"bytes that were written ({kind})")
        t.equal(client.number("zero", address + HUGE + 4 * PAGE, HUGE - 4 * PAGE), HUGE - 4 * PAGE, f"zeroes behind ({kind})")


@svm_case()
def gaps_and_parts(t: Test, client: Dialogue) -> None:
    """A range with several VMAs and nothing between them, and a part of a huge page."""
    buffer = Buffer(client, 2 * HUGE, huge=True)
    client.ask("bind", buffer.address + 100 * PAGE, 200 * PAGE)
    t.equal(buffer.resident(), 200, "pages of a part of a huge page")
    with Vram(t.vm) as vram:
        t.equal(sorted(vram.find(buffer.seed, buffer.pages)), list(range(100, 300)), "pages of the pattern in VRAM")
    check_intact(t, buffer)
    buffer.fill()
    client.ask("unmap", buffer.address + HUGE, 16 * PAGE)
    buffer.bind()
    with Vram(t.vm) as vram:
        t.equal(sorted(vram.find(buffer.seed, buffer.pages)), [*range(512), *range(512 + 16, 1024)],
                "pages of the pattern in VRAM, without the gap")
    t.equal(client.number("vram", buffer.address, HUGE), 512, "pages before the gap")
    t.equal(client.number("vram", buffer.address + HUGE + 16 * PAGE, HUGE - 16 * PAGE), 512 - 16, "pages behind the gap")
    t.equal(client.number("check", buffer.address, HUGE, buffer.seed), HUGE, "bytes before the gap")


@svm_case()
def read_only(t: Test, client: Dialogue) -> None:
    """A VMA that the process may not write, not even what is in VRAM of it."""
    for huge in (False, True):
        buffer = Buffer(client, HUGE, huge=huge)
        client.ask("protect", buffer.address, HUGE, "r")
        migrate(t, buffer)
        with Vram(t.vm) as vram:
            check_resident(t, buffer, vram)
        check_intact(t, buffer)
        buffer.bind()
        client.ask("protect", buffer.address, HUGE, "w")
        buffer.fill()
        check_intact(t, buffer)


@svm_case()
def split_by_protection(t: Test, client: Dialogue) -> None:
    """A huge page in VRAM whose page table entry is split: each page has its own contents."""
    buffer = in_vram(t, client, huge=True)
    client.ask("protect", buffer.address + 3 * PAGE, PAGE, "r")
    t.equal(buffer.resident(), 512, "pages in VRAM after the split")
    # Not the first page of the huge one first: with that, the pages become independent of each other.
    t.equal(client.number("touch", buffer.address + 5 * PAGE, PAGE), 1, "page faults for page 5")
    t.equal(client.number("check", buffer.address + 5 * PAGE, PAGE, buffer.seed, 5 * PAGE), PAGE, "bytes of page 5")
    check_intact(t, buffer)


@svm_case()
def unmapped_in_part(t: Test, client: Dialogue) -> None:
    """Half of a huge page in VRAM is unmapped; the other half is intact, and all of VRAM is free in the end."""
    before = gpu.dmem(t.vm)["pages in use"]
    buffer = in_vram(t, client, huge=True)
    client.ask("unmap", buffer.address + HUGE // 2, HUGE // 2)
    t.equal(client.number("check", buffer.address, HUGE // 2, buffer.seed), HUGE // 2, "bytes that are left")
    t.equal(gpu.dmem(t.vm)["pages in use"], before, "pages in use in the end")


@svm_case()
def fork(t: Test, client: Dialogue) -> None:
    """A child and its parent share pages in VRAM until one of them writes."""
    for buffer in both(t, client):
        t.equal(client.number("fork", buffer.address, HUGE, buffer.seed, next(gpu.seeds)), HUGE, "bytes that the child sees")
        check_intact(t, buffer)


@svm_case()
def closed(t: Test, client: Dialogue) -> None:
    """Pages that are still in VRAM when the process closes the GPU, and when it ends."""
    before = gpu.dmem(t.vm)["pages in use"]
    buffers = list(both(t, client))
    in_vram(t, client, huge=True)
    client.ask("close")
    for buffer in buffers:
        t.equal(buffer.resident(), 512, "pages in VRAM with the GPU closed")
        t.equal(client.number("fork", buffer.address, HUGE, buffer.seed, next(gpu.seeds)), HUGE, "bytes that a child sees")
        check_intact(t, buffer)
    t.equal(gpu.dmem(t.vm)["pages in use"], before + 512, "pages that only their process can free")
    client.close()
    t.equal(gpu.dmem(t.vm)["pages in use"], before, "pages in use with the process gone")


@svm_case()
def killed(t: Test, client: Dialogue) -> None:
    """A process that is killed while it migrates leaves nothing in VRAM."""
    before = gpu.dmem(t.vm)["pages in use"]
    buffers = list(both(t, client))
    client.tell("race", buffers[0].address, HUGE, buffers[0].seed, 1000000)
    await_copies(t)
    t.vm.kill(client.operation, signal.SIGKILL)
    t.equal(t.vm.wait(client.operation).status, -signal.SIGKILL, "how the process ended")
    t.equal(gpu.dmem(t.vm)["pages in use"], before, "pages in use with the process gone")


@svm_case()
def threads(t: Test, client: Dialogue) -> None:
    """One thread migrates what another one reads all the time."""
    for huge in (False, True):
        buffer = Buffer(client, HUGE, huge=huge)
        t.equal(client.number("race", buffer.address, HUGE, buffer.seed, 20, timeout=120), 0, "checks that failed")


def discard(t: Test, client: Dialogue, small: int, huge: int) -> None:
    """One thread discards what another one has just touched in VRAM: it is gone for good, and what is beside it is not."""
    before = gpu.dmem(t.vm)["pages in use"]
    # 480 pages in each round; 60 points in time for each of three parts of a huge page.
    for rounds, kind in ((small, "small"), (huge, "huge")):
        t.equal(client.number("discard-race", rounds, kind, timeout=200), 0, f"times that something else was found ({kind})")
    t.equal(gpu.dmem(t.vm)["pages in use"], before, "pages in use in the end")


@svm_case()
def discarded_while_touched(t: Test, client: Dialogue) -> None:
    discard(t, client, 1, 24)


@svm_case(full=True, timeout=480)
def discarded_often(t: Test, client: Dialogue) -> None:
    discard(t, client, 4, 192)


@svm_case()
def two_processes(t: Test, client: Dialogue) -> None:
    """Two processes use the copy engine at the same time."""
    clients = [client, gpu.process(t.vm)]
    for buffer in [Buffer(one, HUGE) for one in clients]:
        buffer.client.tell("race", buffer.address, buffer.size, buffer.seed, 10)
    for one in clients:
        t.equal(one.answer(120), ["0"], "checks that failed")
        one.close()


@svm_case()
def many_at_once(t: Test, client: Dialogue) -> None:
    """Threads push more copies than the push buffer has room for before any of them waits: all that is in there is submitted."""
    threads, rounds = 8, 3
    copies = Counters(t.vm, "gpu", ("ce-launches", "ce-errors"))
    missed, wrong = map(int, client.ask("bind-together", threads, HUGE, rounds, timeout=200))
    t.equal(missed, 0, f"times, of {threads * rounds}, that nothing of a thread's memory got to VRAM")
    t.equal(wrong, 0, "bytes that the CPU does not find as it left them")
    moved = copies.moved()
    t.equal(moved["ce-errors"], 0, "copies that failed")
    # Each takes 13 of its 16384 words.
    t.check(moved["ce-launches"] > rounds * 3 * 16384 // 13, f"{moved['ce-launches']} copies are 3 push buffers in each round")


@svm_case(full=True)
def with_buffers(t: Test, client: Dialogue) -> None:
    """TTM evicts buffers by the copy engine with which a process migrates memory at that time."""
    memory = in_vram(t, client)
    driver = gpu.plain_process(t.vm)
    try:
        buffers = [Buffer(driver, HUGE, gem=True) for _ in range(8)]
        # Of 1 GiB and besides the chunk some VRAM is left then. When it is used up, what was made first is evicted first.
        gpu.make_buffers(driver, ((1 << 30) - CHUNK * PAGE) // HUGE - 40)
        copies = Counters(t.vm, "gpu", COPIES)
        client.tell("race", memory.address, memory.size, memory.seed, 20)
        gpu.make_buffers(driver, 100)
        t.equal(client.answer(120), ["0"], "checks that failed")
        moved = copies.moved()
        t.equal(moved["ce-errors"], 0, "copies that failed")
        t.check(moved["ce-bytes-d2h"] > (20 + len(buffers)) * HUGE, f"no more than {moved['ce-bytes-d2h']} bytes left VRAM")
        for buffer in buffers:
            t.equal(buffer.matching(), buffer.size, "bytes of an evicted buffer that are as they were written")
        check_intact(t, memory)
    finally:
        if gpu.usable(t.vm):
            driver.close()


@svm_case()
def evicts_buffers(t: Test, client: Dialogue) -> None:
    """VRAM is full of buffers when the first page migrates: TTM evicts some of them to make room for a chunk."""
    rebound(t, client)
    driver = gpu.plain_process(t.vm)
    try:
        buffers = [Buffer(driver, HUGE, gem=True) for _ in range(4)]
        gpu.make_buffers(driver, 31, 32 << 20)
        copies = Counters(t.vm, "gpu", COPIES)
        with Vram(t.vm) as vram:
            for memory in both(t, client):
                check_resident(t, memory, vram)
                check_intact(t, memory)
        moved = copies.moved()
        t.equal(moved["ce-errors"], 0, "copies that failed")
        t.check(moved["ce-bytes-d2h"] >= CHUNK * PAGE // 2, f"no more than {moved['ce-bytes-d2h']} bytes left VRAM")
        for buffer in buffers:
            t.equal(buffer.matching(), buffer.size, "bytes of an evicted buffer that are as they were written")
    finally:
        if gpu.usable(t.vm):
            driver.close()


@svm_case()
def swapped(t: Test, client: Dialogue) -> None:
    """Memory that is swapped out does not migrate, and memory in VRAM is not swapped out."""
    t.vm.run("modprobe zram num_devices=1 && echo 256M >/sys/block/zram0/disksize && mkswap /dev/zram0 && swapon /dev/zram0")
    try:
        buffer = Buffer(client, HUGE)
        with Vram(t.vm) as vram:
            # Pages that another CPU has put aside for the LRU lists are not found there (lru_add_drain_all()).
            t.vm.run("echo 1 >/proc/sys/vm/drop_caches")
            client.ask("pageout", buffer.address, HUGE)
            t.equal(buffer.resident(), 512, "pages that are swapped out")
            buffer.bind()
            t.equal(len(vram.find(buffer.seed, buffer.pages)), 0, "pages of it that are in VRAM")
            check_intact(t, buffer)
            migrate(t, buffer)
            check_resident(t, buffer, vram)
            client.ask("pageout", buffer.address, HUGE)
            check_resident(t, buffer, vram)
            check_intact(t, buffer)
    finally:
        client.close()
        t.vm.run("swapoff /dev/zram0 && modprobe -r zram")


@svm_case()
def no_huge_page(t: Test, client: Dialogue) -> None:
    """Without a free huge page, one in VRAM comes back as small pages, and nothing is copied in vain."""
    buffer = in_vram(t, client, huge=True)
    with no_huge_pages(t):
        copies = Counters(t.vm, "gpu", COPIES)
        check_intact(t, buffer)
        t.equal(copies.moved(), {"ce-bytes-h2d": 0, "ce-bytes-d2h": HUGE, "ce-bytes-fill": 0, "ce-errors": 0},
                "bytes that were copied for it")
        t.equal(client.number("huge", buffer.address, HUGE), 0, "bytes in huge pages after")


@svm_case()
def unbind_without_huge_pages(t: Test, client: Dialogue) -> None:
    """The same when it has to come back, as the driver is unbound."""
    buffer = in_vram(t, client, huge=True)
    client.ask("close")
    with no_huge_pages(t):
        gpu.unbind(t.vm)
        t.equal(buffer.resident(), 0, "pages that are left in VRAM")
        t.equal(client.number("huge", buffer.address, HUGE), 0, "bytes in huge pages after")
        check_intact(t, buffer)
    client.ask("gpu", gpu.bind(t.vm))


@svm_case()
def one_chunk(t: Test, client: Dialogue) -> None:
    """Small and huge pages share a chunk, all of which is used, and 2 MiB of it can be either, again and again."""
    rebound(t, client)
    with Vram(t.vm) as vram:
        small = in_vram(t, client, 2 * HUGE)
        places = set(check_resident(t, small, vram).values())
        t.equal(max(places) + PAGE - min(places), small.size, "size of VRAM from the first of the small pages to the last")
        few = in_vram(t, client, 16 * PAGE)
        huge = in_vram(t, client, huge=True)
        t.equal(gpu.dmem(t.vm)["pages"], CHUNK, "pages that there are for small and huge ones")

        client.ask("unmap", small.address, small.size)
        later = in_vram(t, client, huge=True)
        t.check(places >= set(check_resident(t, later, vram).values()), "a huge page is where the small pages were")
        client.ask("unmap", later.address, later.size)
        last = in_vram(t, client)
        t.check(places & set(check_resident(t, last, vram).values()), "some small pages are where the huge page was")
    for buffer in (few, huge, last):
        check_intact(t, buffer)


@svm_case()
def first_chunk(t: Test, client: Dialogue) -> None:
    """Two processes that find no free page at the same time do not add a chunk each."""
    rebound(t, client)
    clients = [client, gpu.process(t.vm)]
    buffers = [Buffer(one, 16 * PAGE) for one in clients]
    for buffer in buffers:
        buffer.client.tell("bind", buffer.address, buffer.size)
    for buffer in buffers:
        buffer.client.answer()
        t.equal(buffer.resident(), buffer.pages, "pages that are not mapped by the CPU")
    t.equal(gpu.dmem(t.vm)["pages"], CHUNK, "pages that there are for both processes")
    for buffer in buffers:
        check_intact(t, buffer)
        buffer.client.close()


@svm_case()
def slow_copies(t: Test, client: Dialogue) -> None:
    """Nobody uses a page before the copy engine is done, and copies that have to wait for room are not lost."""
    t.vm.qom_set("gpu", "copy-delay-us", 200)
    try:
        # Once around the push buffer: the driver then waits for room where the GPU was when it got to the end.
        in_vram(t, client, 8 << 20)
        for size, huge in ((8 << 20, False), (HUGE, True)):
            check_intact(t, in_vram(t, client, size, huge=huge))
    finally:
        t.vm.qom_set("gpu", "copy-delay-us", 0)


@svm_case()
def failed_copy(t: Test, client: Dialogue) -> None:
    """When the copy engine fails, pages stay where they are, with what is in them, and are lost if they have to go."""
    buffer, there = Buffer(client, 16 * PAGE), list(both(t, client))
    t.vm.qom_set("gpu", "fail-copies", 1)
    buffer.bind()
    t.equal(buffer.resident(), 0, "pages in VRAM after a copy that failed")
    check_intact(t, buffer)

    # That was the end of the channel.
    for one in there:
        t.equal(client.number("readable", one.address, one.size), 0, "bytes that can be read of what cannot be copied")
        t.equal(one.resident(), one.pages, "pages that stay in VRAM as they cannot be copied")
    # Where the zeroes are going to be is free, and used last.
    dirt = Buffer(client, 32 << 20)
    client.ask("unmap", dirt.address, dirt.size)
    rebound(t, client)
    for one in there:
        t.equal(client.number("zero", one.address, one.size), one.size, "zeroes in pages that are lost")
        one.fill()
        migrate(t, one)
        check_intact(t, one)


@svm_case()
def failed_copy_back(t: Test, client: Dialogue) -> None:
    """When the copy engine fails at what the CPU touches, the CPU gets an error instead of memory that nothing was copied to."""
    for huge in (False, True):
        there = in_vram(t, client, huge=huge)
        t.vm.qom_set("gpu", "fail-copies", 1)
        t.equal(client.number("readable", there.address, there.size), 0, "bytes that can be read of what was not copied")
        t.equal(there.resident(), there.pages, "pages that stay in VRAM as they were not copied")
        t.equal(t.vm.qom_get("gpu", "fail-copies"), 0, "copies that are still to fail")
        rebound(t, client)


@svm_case()
def dead_channel_in_sleep(t: Test, client: Dialogue) -> None:
    """With the channel dead, the GPU does not sleep as long as a process has pages in VRAM, which would be lost. That does
    not concern TTM, which moves buffers by a channel of its own."""
    rebound(t, client)
    driver = gpu.plain_process(t.vm)
    try:
        buffer, there = Buffer(driver, HUGE, gem=True), in_vram(t, client, 16 * PAGE)
        failing = Buffer(client, 16 * PAGE)
        t.vm.qom_set("gpu", "fail-copies", 1)
        failing.bind()
        t.equal(failing.resident(), 0, "pages in VRAM after a copy that failed")

        with contextlib.suppress(CommandFailed):
            t.vm.suspend("devices")
            t.fail("the GPU sleeps with pages in VRAM that cannot be copied")
        t.equal(there.resident(), there.pages, "pages that stay in VRAM as they cannot be copied")
        t.equal(client.number("readable", there.address, there.size), 0, "bytes that can be read of what cannot be copied")
        t.check("pages of a dead GPU" in t.vm.run("dmesg").stdout, "the driver says why")

        client.ask("unmap", there.address, there.size)
        copies = Counters(t.vm, "gpu", COPIES)
        t.vm.suspend("devices")
        t.check(copies.moved()["ce-bytes-d2h"] >= buffer.size, "the copy engine has evicted the buffer")
        t.equal(buffer.matching(), buffer.size, "bytes of the buffer that are as they were written")
        failing.bind()
        t.equal(failing.resident(), 0, "pages in VRAM, to which nothing is copied any more")
        check_intact(t, failing)
    finally:
        if gpu.usable(t.vm):
            driver.close()
    rebound(t, client)
    migrate(t, failing)
    check_intact(t, failing)


@svm_case(full=True)
def slow_is_not_dead(t: Test, client: Dialogue) -> None:
    """Each of several copies takes long, so that the last one is waited for longer than the driver waits for a single one."""
    clients = [client, *(gpu.process(t.vm) for _ in range(3))]
    buffers = [in_vram(t, one, PAGE) for one in clients]
    for buffer in buffers:
        check_intact(t, buffer)
    t.vm.qom_set("gpu", "copy-delay-us", 7 * 1000000)
    try:
        for buffer in buffers:
            buffer.client.tell("bind", buffer.address, buffer.size)
        for buffer in buffers:
            buffer.client.answer(120)
    finally:
        t.vm.qom_set("gpu", "copy-delay-us", 0)
    for buffer in buffers:
        t.equal(buffer.resident(), buffer.pages, "pages that are not mapped by the CPU")
        check_intact(t, buffer)
    for one in clients[1:]:
        one.close()


@svm_case(full=True, fresh=True)
def lost_interrupt(t: Test, client: Dialogue) -> None:
    """The interrupt that says that a copy is done gets lost: the driver looks after its timeout, and finds the copy done."""
    buffer = Buffer(client, HUGE, huge=True)
    t.vm.qom_set("gpu", "copy-delay-us", 100000)
    t.vm.qom_set("gpu", "drop-nonstall", 1)
    try:
        migrate(t, buffer)
        t.equal(t.vm.qom_get("gpu", "drop-nonstall"), 0, "interrupts that are still to be lost")
    finally:
        t.vm.qom_set("gpu", "copy-delay-us", 0)
    check_intact(t, buffer)


@svm_case(fresh=True, full=True)
def dead_channel(t: Test, client: Dialogue) -> None:
    """A copy takes longer than the driver waits: it gives the channel up, nothing moves, and unbinding replaces what was in VRAM."""
    kept = list(both(t, client))
    size = sum(buffer.size for buffer in kept)
    moving = Buffer(client, 8 << 20)
    # The driver waits for 15 s. Not for ever, since it warns if it cannot get a channel off the engine when unbinding.
    t.vm.qom_set("gpu", "copy-delay-us", 20 * 1000000)
    try:
        # The first 2 MiB wait for room in the push buffer or for their fence, and the others for nothing.
        moving.bind()
    finally:
        t.vm.qom_set("gpu", "copy-delay-us", 0)
    t.equal(moving.resident(), 0, "pages that are said to be in VRAM though nothing was copied")
    check_intact(t, moving)
    t.equal(sum(buffer.resident() for buffer in kept), size // PAGE, "pages in VRAM that stay there")
    client.ask("close")
    gpu.unbind(t.vm)
    for buffer in kept:
        t.equal(buffer.resident(), 0, "pages that are left in VRAM")
        t.equal(client.number("zero", buffer.address, buffer.size), buffer.size, "zeroes instead of what is lost")
    said = t.vm.run("dmesg | grep 'of a dead GPU are lost'").stdout
    t.equal([line.split("DMEM: ")[1] for line in said.splitlines()],
            [f"{size // PAGE} pages of a dead GPU are lost"], "what the driver says about it")


def bound_anew(t: Test, client: Dialogue, lost: Buffer, other: Buffer) -> None:
    """Bind the driver anew, whose channel is dead: what it had in VRAM is lost, and everything works again."""
    rebound(t, client)
    t.equal(client.number("zero", lost.address, lost.size), lost.size, "zeroes instead of what is lost")
    for buffer in (other, lost):
        buffer.fill()
        migrate(t, buffer)
        check_intact(t, buffer)


@svm_case(fresh=True, full=True)
def hung_engine(t: Test, client: Dialogue) -> None:
    """The GPU's scheduler reports that the copy engine hangs: the driver kills the channel at once and resets the engine."""
    kept, moving = in_vram(t, client), Buffer(client, 8 << 20)
    t.vm.qom_set("gpu", "hang-copies", 1)
    moving.bind()
    t.equal(t.vm.qom_get("gpu", "hang-copies"), 0, "copies that are still to hang")
    t.equal(moving.resident(), 0, "pages that are said to be in VRAM though nothing was copied")
    check_intact(t, moving)
    said = t.vm.run("dmesg | grep -o -e 'SCHED_ERROR .*' -e 'channel [0-9]* killed' -e 'copy channel hangs'").stdout
    t.equal([re.sub(r"\d+ killed", "N killed", line) for line in said.splitlines()],
            ["SCHED_ERROR 0a [CTXSW_TIMEOUT]", "channel N killed"], "what the driver says about it")
    t.equal(kept.resident(), kept.pages, "pages in VRAM that stay there")

    # The engine works again, for whoever has a channel.
    bound_anew(t, client, kept, moving)


@svm_case(fresh=True, full=True)
def function_reset(t: Test, client: Dialogue) -> None:
    """The function is reset under the driver, which is not told: it gives its channel up, and bound anew all works again."""
    kept, moving = in_vram(t, client), Buffer(client, HUGE)
    t.vm.write(f"{pci.DEVICES}/{t.vm.pci_address('gpu')}/reset", "1")
    moving.bind()
    t.equal(moving.resident(), 0, "pages that are said to be in VRAM though nothing was copied")
    check_intact(t, moving)
    t.equal(client.number("readable", kept.address, kept.size), 0, "bytes that can be read of what cannot be copied")
    bound_anew(t, client, kept, moving)


def rebind(t: Test, client: Dialogue, times: int) -> None:
    """Unbind the driver with memory in VRAM, small and huge pages, and bind it again, so many times."""
    buffers = list(both(t, client))
    for _ in range(times):
        client.ask("close")
        gpu.unbind(t.vm)
        for buffer in buffers:
            t.equal(buffer.resident(), 0, "pages that are left in VRAM")
            check_intact(t, buffer)
        client.ask("gpu", gpu.bind(t.vm))
        for buffer in buffers:
            migrate(t, buffer)
    for buffer in buffers:
        check_intact(t, buffer)


@svm_case()
def unbind(t: Test, client: Dialogue) -> None:
    """The driver is unbound with memory in VRAM, small and huge pages, and bound again."""
    rebind(t, client, 1)


@svm_case(full=True)
def unbind_while_migrating(t: Test, client: Dialogue) -> None:
    """Unbinding the driver waits for what is being migrated to VRAM, and has it come back."""
    buffer = Buffer(client, 64 << 20)
    copies = Counters(t.vm, "gpu", COPIES)
    client.tell("bind", buffer.address, buffer.size)
    await_copies(t)
    t.check(copies.moved()["ce-bytes-h2d"] < buffer.size // 2, "most memory is still being migrated when the driver is unbound")
    gpu.unbind(t.vm)
    client.answer(120)
    t.equal(buffer.resident(), 0, "pages that are left in VRAM")
    check_intact(t, buffer)
    client.ask("close")
    client.ask("gpu", gpu.bind(t.vm))
    check_intact(t, in_vram(t, client))


@svm_case(timeout=1800, full=True, fresh=True)
def unbind_often(t: Test, client: Dialogue) -> None:
    """The same twenty times."""
    rebind(t, client, 20)


@svm_case()
def suspend(t: Test, client: Dialogue) -> None:
    """The guest sleeps with memory in VRAM: its devices do, all but one processor, and really (VRAM is lost then)."""
    buffers = list(both(t, client))
    for level in ("devices", "core", "none"):
        for buffer in buffers:
            migrate(t, buffer)
        t.vm.suspend(level)
        for buffer in buffers:
            t.equal(buffer.resident(), 0, f"pages in VRAM afterwards ({level})")
            check_intact(t, buffer)
    with Vram(t.vm) as vram:
        for buffer in buffers:
            migrate(t, buffer)
            check_resident(t, buffer, vram)
            check_intact(t, buffer)


@svm_case(full=True, cmdline=f"{gpu.CMDLINE} nouveau.runpm=1")
def runtime_suspend(t: Test, client: Dialogue) -> None:
    """The GPU sleeps when nobody uses it, but not with pages in VRAM, which the CPU may touch at any time."""
    power = f"{pci.DEVICES}/{t.vm.pci_address('gpu')}/power"
    t.vm.write(f"{power}/autosuspend_delay_ms", "100")
    for buffer in both(t, client):
        t.vm.run("sleep 2")
        t.equal(t.vm.read(f"{power}/runtime_status"), b"active\n", "runtime status with pages in VRAM")
        check_intact(t, buffer)
        t.vm.run(f"until grep -q suspended {power}/runtime_status; do sleep 0.1; done")


@svm_case(topology="switch:two-gpus")
def two_gpus(t: Test, client: Dialogue) -> None:
    """A process for each of two GPUs: each one's memory is in its own VRAM."""
    for one, size in ((client, 1 << 30), (gpu.process(t.vm, "gpu1"), 768 << 20)):
        with Vram(t.vm, size) as vram:
            buffer = in_vram(t, one, 2 << 20)
            check_resident(t, buffer, vram)
            check_intact(t, buffer)
        one.close()


@svm_case(topology="switch:two-gpus")
def other_runlist(t: Test, client: Dialogue) -> None:
    """A GPU whose copy engine is not on runlist 0: its interrupt, too, tells the driver that a copy is done."""
    other = gpu.process(t.vm, "gpu1")
    t.check(t.vm.qom_get("gpu1", "ce-runlist") > 0, "gpu1 has its copy engine on another runlist")
    buffer = Buffer(other, HUGE, huge=True)
    interrupts = Counters(t.vm, "gpu1", ("nonstall-irqs",))
    t.vm.qom_set("gpu1", "copy-delay-us", 100000)   # a copy that is done when the driver looks takes no interrupt
    try:
        start = time.monotonic()
        migrate(t, buffer)
        seconds = time.monotonic() - start
    finally:
        t.vm.qom_set("gpu1", "copy-delay-us", 0)
    t.check(interrupts.moved()["nonstall-irqs"] > 0, "the model has raised its interrupt")
    t.check(seconds < 12, f"the driver has waited for no timeout of 15 seconds: migrating took {seconds:.1f}")
    check_intact(t, buffer)
    other.close()


@svm_case(topology="switch+iommu:gpu", full=True, cmdline=f"{gpu.CMDLINE} iommu.forcedac=1")
def high_addresses(t: Test, client: Dialogue) -> None:
    """DMA addresses of more than 40 bits, as the IOMMU's are if they begin at the top: what is copied is from and to there."""
    dump = t.vm.read("/sys/kernel/debug/dma-api/dump").decode()
    mapped = [int(address, 16) for address in
              re.findall(rf"^\S+ {re.escape(t.vm.pci_address('gpu'))} .* D=([0-9a-f]+) ", dump, re.M)]
    # Not all: one page is mapped before the driver says how much the GPU can address.
    high = [address for address in mapped if address >= 1 << 40]
    t.check(len(high) > len(mapped) // 2, f"most DMA addresses of the GPU have more than 40 bits: {len(high)} of {len(mapped)} do")
    with Vram(t.vm) as vram:
        for huge in (False, True):
            buffer = Buffer(client, HUGE, huge=huge)
            copies = Counters(t.vm, "gpu", COPIES)
            migrate(t, buffer)
            check_resident(t, buffer, vram)
            check_intact(t, buffer)
            t.equal(copies.moved(), {"ce-bytes-h2d": HUGE, "ce-bytes-d2h": HUGE, "ce-bytes-fill": 0, "ce-errors": 0},
                    "what the copy engine did")


@svm_case(timeout=3600, full=True, cmdline=f"{gpu.CMDLINE} kmemleak=on")
def a_thousand_times(t: Test, client: Dialogue) -> None:
    """Nothing piles up: neither memory of the kernel nor pages of VRAM."""
    # Each small page comes back by a page fault of its own, which takes most of the time.
    buffers = [Buffer(client, 64 * PAGE), Buffer(client, HUGE, huge=True)]
    before = gpu.dmem(t.vm)["pages in use"]
    for _ in range(1000):
        for buffer in buffers:
            migrate(t, buffer)
            check_intact(t, buffer)
    t.equal(gpu.dmem(t.vm)["pages in use"], before, "pages in use in the end")
    t.equal(kmemleak.found(t.vm), "", "what kmemleak found")
