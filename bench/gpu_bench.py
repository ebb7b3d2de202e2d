# SPDX-License-Identifier: GPL-2.0
"""The GPU: migrating memory to VRAM and back, beside a memcpy of the same bytes on the host.

What such a migration takes is the copies, which the model makes, and what the guest does before and after each (page tables,
commands, waiting). Only the first is the model's, which counts the time it takes (its counter ce-ns).
"""
import ctypes
import mmap
import time

from rig import gpu
from rig.bench import Bench
from rig.gpu import Buffer, Counters
from rig.measured import Spread
from rig.ui import RigError, step
from rig.vm import Vm

BYTES = 256 << 20
ROUNDS = 5
COPIES_PER_MEMCPY = 4.0
KINDS = (("huge pages", True, BYTES), ("small pages", False, BYTES // 8))


def run(bench: Bench) -> None:
    with bench.guest("switch:gpu", cmdline=gpu.CMDLINE) as vm:
        results = [migration(vm, huge, size) for _, huge, size in KINDS]
    memcpy = memcpy_seconds(BYTES)
    bench.show("memcpy of 256 MiB on the host", memcpy, "s")
    for (kind, huge, size), rounds in zip(KINDS, results):
        name = f"{size >> 20} MiB to VRAM and back, {kind}"
        same = 2 * memcpy.median * size / BYTES
        bench.show(f"{name}: all", Spread.of([wall for wall, _ in rounds]), "s")
        bench.show("... of this the guest's own work", Spread.of([wall - copies for wall, copies in rounds]), "s")
        bench.show("... of this the copies", Spread.of([copies for _, copies in rounds]), "s")
        bench.show("... copies / memcpy of as many bytes", Spread.of([copies / same for _, copies in rounds]), "",
                   at_most=COPIES_PER_MEMCPY if huge else None)


def migration(vm: Vm, huge: bool, size: int) -> list[tuple[float, float]]:
    """Seconds that it takes to migrate `size` bytes to VRAM and back, and those of them that the copies take, round by round."""
    client = gpu.process(vm)
    buffer = Buffer(client, size, huge=huge)
    copies = Counters(vm, "gpu", ("ce-ns", "ce-bytes-h2d", "ce-bytes-d2h"))
    rounds = []
    with step(f"migrate {size >> 20} MiB, {ROUNDS} times"):
        # The first round is another one's: VRAM gets its memory from the host with it.
        for number in range(ROUNDS + 1):
            copies.moved()
            begin = time.monotonic()
            buffer.bind()
            middle = time.monotonic()
            if buffer.resident() != buffer.pages:
                raise RigError(f"only {buffer.resident()} of {buffer.pages} pages are in VRAM")
            again = time.monotonic()
            client.ask("touch", buffer.address, size, timeout=120)
            seconds = middle - begin + time.monotonic() - again
            moved = copies.moved()
            if (moved["ce-bytes-h2d"], moved["ce-bytes-d2h"]) != (size, size):
                raise RigError(f"the copy engine moved {moved} instead of {size} bytes to VRAM and back")
            if number:
                rounds.append((seconds, moved["ce-ns"] / 1e9))
    client.close()
    return rounds


def memcpy_seconds(size: int) -> Spread:
    """Seconds of this host's memcpy of so many bytes."""
    source, target = (mmap.mmap(-1, size) for _ in range(2))
    at = [ctypes.addressof(ctypes.c_char.from_buffer(area)) for area in (source, target)]
    ctypes.memset(at[0], 1, size)
    times = []
    for _ in range(ROUNDS + 1):
        begin = time.perf_counter()
        ctypes.memmove(at[1], at[0], size)
        times.append(time.perf_counter() - begin)
    return Spread.of(times[1:])
