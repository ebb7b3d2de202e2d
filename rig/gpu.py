# SPDX-License-Identifier: GPL-2.0
"""A GPU of a guest, from both sides: nouveau in the guest, VRAM and the model's counters on the host.

VRAM is a memfd of QEMU (rig/topologies.toml), which is mapped here: what is found in it does not depend on anything that
the guest says.
"""
import array
import contextlib
import itertools
import mmap
import os
import re
import struct
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Iterable, Iterator, Mapping, NamedTuple, Optional, Sequence

from . import pci
from .dialogue import Dialogue
from .ui import RigError
from .vm import Vm

PAGE = 4096
HUGE = 2 << 20
PROGRAM = "/opt/hmm-p2p/bin/svm"
CMDLINE = "nouveau.modeset=2 nouveau.config=MmuDebugBufferSize=4096"
"""What guests with a GPU should have on the kernel's command line: no display, and less to clear while binding."""

_FIRMWARE = "/lib/firmware/nvidia/gp100/gr"

seeds: Iterator[int] = itertools.count(1)
"""Seeds of patterns that nothing else has."""

_WORDS = PAGE // 8
_MASK = (1 << 64) - 1


def _word(seed: int, index: int) -> int:
    return ((seed << 40) ^ index * 0x9e3779b1) & _MASK


def word_of_pattern(seed: int, offset: int) -> int:
    """The 8 bytes at `offset` of what guest/src/svm.c fills memory with."""
    return _word(seed, offset // 8)


def page_of_pattern(seed: int, number: int) -> bytes:
    """Page `number` of what guest/src/svm.c fills memory with."""
    return array.array("Q", (_word(seed, i) for i in range(number * _WORDS, (number + 1) * _WORDS))).tobytes()


class Vram:
    """The host's view of a GPU's VRAM. A context manager."""

    def __init__(self, guest: Vm, size: int = 1 << 30) -> None:
        for link in Path(f"/proc/{guest.pid}/fd").iterdir():
            try:
                if os.readlink(link).startswith("/memfd:memory-backend-memfd") and link.stat().st_size == size:
                    self._fd = os.open(link, os.O_RDONLY)
                    break
            except FileNotFoundError:
                continue
        else:
            raise RigError(f"QEMU has no memfd of {size} bytes for VRAM")
        self._map = mmap.mmap(self._fd, size, prot=mmap.PROT_READ)
        self.size = size

    def __enter__(self) -> "Vram":
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self._map.close()
        os.close(self._fd)

    def find(self, seed: int, pages: int) -> dict[int, int]:
        """Where in VRAM the first `pages` pages of a pattern are, whole: page number to address.

        A page that is there more than once has the lowest address; use a seed once.
        """
        wanted = {_word(seed, number * _WORDS): number for number in range(pages)}
        found: dict[int, int] = {}
        for start, end in self._data():
            with memoryview(self._map) as raw, raw[start:end] as part, part.cast("Q") as words, words[::_WORDS] as heads:
                hits = [(index, wanted[head]) for index, head in enumerate(heads.tolist()) if head in wanted]
            for index, number in hits:
                at = start + index * PAGE
                if number not in found and self._map[at:at + PAGE] == page_of_pattern(seed, number):
                    found[number] = at
        return found

    def where(self, pages: Sequence[bytes]) -> list[list[int]]:
        """The addresses in VRAM of each of `pages`, which are whole pages of any content."""
        wanted: dict[bytes, list[int]] = {}
        for number, page in enumerate(pages):
            wanted.setdefault(page[:8], []).append(number)
        found: list[list[int]] = [[] for _ in pages]
        for start, end in self._data():
            for at in range(start, end, PAGE):
                for number in wanted.get(self._map[at:at + 8], ()):
                    if self._map[at:at + PAGE] == pages[number]:
                        found[number].append(at)
        return found

    def read(self, addresses: Iterable[int]) -> bytes:
        """The content of the pages at `addresses`, one behind the other."""
        return b"".join(self._map[at:at + PAGE] for at in addresses)

    def _data(self) -> list[tuple[int, int]]:
        """The parts that were ever written."""
        parts, end = [], 0
        while end < self.size:
            try:
                start = os.lseek(self._fd, end, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(self._fd, start, os.SEEK_HOLE)
            parts.append((start, end))
        return parts


def bind(guest: Vm, role: str = "gpu") -> str:
    """Load nouveau, see to it that it drives the GPU, and return the GPU's render node (/dev/dri/renderD128)."""
    address = guest.pci_address(role)
    guest.run(f"modprobe nouveau && if ! [ -e {pci.DEVICES}/{address}/driver ]; then "
              f"echo {address} >/sys/bus/pci/drivers/nouveau/bind; fi", timeout=180)
    return node(guest, role)


def unbind(guest: Vm, role: str = "gpu") -> None:
    """Take the GPU from nouveau."""
    guest.run(f"echo {guest.pci_address(role)} >/sys/bus/pci/drivers/nouveau/unbind", timeout=180)


def node(guest: Vm, role: str = "gpu") -> str:
    """The render node of a GPU that nouveau drives. Raises RigError if there is none."""
    address = guest.pci_address(role)
    names = guest.run(f"ls {pci.DEVICES}/{address}/drm", check=False).stdout.split()
    for name in names:
        if name.startswith("renderD"):
            return f"/dev/dri/{name}"
    raise RigError(f"nouveau does not drive {address}: there is {names or 'no DRM device'}")


def dmem(guest: Vm, role: str = "gpu") -> dict[str, int]:
    """The numbers in nouveau's debugfs file dmem."""
    text = guest.read(f"/sys/kernel/debug/dri/{guest.pci_address(role)}/dmem").decode()
    return {key: int(value) for key, value in re.findall(r"^(.*): (\d+)$", text, re.M)}


def bar1_bytes(guest: Vm) -> int:
    """How much of VRAM is mapped in BAR1 by large pages, which is a part of QEMU's memory map (bar.c of the model)."""
    tree = guest.qmp("human-monitor-command", command_line="info mtree")
    windows = set(re.findall(r"([0-9a-f]{16})-([0-9a-f]{16}) .*: alias gp100-bar1-window-", tree))
    return sum(int(end, 16) + 1 - int(start, 16) for start, end in windows)


def usable(guest: Vm) -> bool:
    """Whether to clean up in a guest: not if it is gone, nor if something has crashed in it, for which nouveau may wait for ever."""
    return not guest.failure and not guest.new_splats()


@contextlib.contextmanager
def graphics(guest: Vm, role: str = "gpu") -> Iterator[None]:
    """Meanwhile nouveau drives a GPU with a graphics engine, without which it lets no process make a channel.

    The model has no such engine, nor is there firmware for one. But nouveau does not start it before it is used: the engine's
    name and files of zeroes are enough.
    """
    files = {f"{name}_{part}": bytes(256) for name in ("fecs", "gpccs") for part in ("inst", "data", "sig")}
    # A header and the descriptor of 256 bytes of code, of which only what nouveau looks at is not 0
    files.update({f"{name}_bl": struct.pack("<12I", 0, 0, 0, 24, 48, 0, 0, 0, 0, 256, 0, 0) + bytes(256)
                  for name in ("fecs", "gpccs")})
    files.update({f"sw_{name}": bytes(16) for name in ("ctx", "nonctx", "bundle_init", "method_init")})
    bind(guest, role)
    unbind(guest, role)
    guest.run(f"mkdir -p {_FIRMWARE}")
    for name, data in files.items():
        guest.write(f"{_FIRMWARE}/{name}.bin", data)
    guest.qom_set(role, "graphics", True)
    try:
        bind(guest, role)
        yield
    finally:
        if usable(guest):
            unbind(guest, role)
            guest.qom_set(role, "graphics", False)
            guest.run(f"rm -r {_FIRMWARE}")
            bind(guest, role)


class GpuPage(NamedTuple):
    """What the GPU's page tables have for an address."""
    kind: str       # "vram" or "system"
    address: int    # in VRAM or for DMA, of the byte that was asked for
    size: int       # of the page
    writable: bool


class Engine:
    """A channel of a process in whose address space the model's graphics engine reads and writes, as a program of it would.

    An access that faults waits until nouveau has mapped the memory and has had the GPU replay it.
    """

    def __init__(self, client: Dialogue, role: str = "gpu") -> None:
        self._guest, self._role = client.guest, role
        self._channel = client.number("channel")

    def read(self, address: int) -> int:
        """The 8 bytes at `address`."""
        return self._access(f"read {self._channel} {address:#x}")

    def write(self, address: int, value: int) -> None:
        """Write 8 bytes."""
        self._access(f"write {self._channel} {address:#x} {value:#x}")

    def read_while(self, address: int, replays: int) -> Optional[int]:
        """The 8 bytes at `address`; None if the access still faults after having been replayed so often: see finish()."""
        before = self._guest.qom_get(self._role, "fault-replays")
        self._guest.qom_set(self._role, "access", f"read {self._channel} {address:#x}")
        while self._guest.qom_get(self._role, "fault-replays") - before < replays:
            if self._guest.qom_get(self._role, "access") != "waiting":
                return self.finish()
            self._pause()
        return None

    def finish(self) -> int:
        """Wait for the end of the access, and return what was there."""
        while (answer := self._guest.qom_get(self._role, "access")) == "waiting":
            self._pause()
        word, _, value = answer.partition(" ")
        if word != "done":
            raise RigError(f"the GPU's access ended by '{answer}'")
        return int(value, 16)

    def _pause(self) -> None:
        self._guest.check()  # nobody handles a fault if the handler is dead
        self._guest.run("sleep 0.05")

    def _access(self, request: str) -> int:
        self._guest.qom_set(self._role, "access", request)
        return self.finish()

    def lookup(self, address: int) -> Optional[GpuPage]:
        """What the page tables have for `address`, without an access; None if nothing."""
        self._guest.qom_set(self._role, "lookup", f"{self._channel} {address:#x}")
        words = self._guest.qom_get(self._role, "lookup").split()
        return GpuPage(words[0], int(words[1], 16), int(words[2]), words[3] == "rw") if len(words) == 4 else None


class Counters:
    """How far QOM counters moved since this object was made or asked last."""

    def __init__(self, guest: Vm, role: str, names: tuple[str, ...]) -> None:
        self._guest, self._role, self._names = guest, role, names
        self._last = self._read()

    def _read(self) -> Counter[str]:
        return Counter({name: self._guest.qom_get(self._role, name) for name in self._names})

    def moved(self) -> Mapping[str, int]:
        now = self._read()
        last, self._last = self._last, now
        return {name: now[name] - last[name] for name in self._names}


def process(guest: Vm, role: str = "gpu") -> Dialogue:
    """A process (guest/src/svm.c) whose memory can be migrated to VRAM."""
    return _process(guest, role, "gpu")


def plain_process(guest: Vm, role: str = "gpu") -> Dialogue:
    """The same program with the GPU open, and no more than that: for buffers of the driver, which need no SVM."""
    return _process(guest, role, "open")


def _process(guest: Vm, role: str, command: str) -> Dialogue:
    render_node = bind(guest, role)
    client = Dialogue(guest, [PROGRAM])
    client.ask(command, render_node)
    return client


def make_buffers(driver: Dialogue, count: int, size: int = HUGE) -> None:
    """Have a process make so many buffers that nobody looks at, one right after the other."""
    for _ in range(count):
        driver.tell("gem", size)
    for _ in range(count):
        driver.answer(120)


class Buffer:
    """Memory of such a process, filled with a pattern of its own."""

    def __init__(self, client: Dialogue, size: int, *, huge: bool = False, offset: int = 0, gem: bool = False) -> None:
        """Anonymous memory, or with `gem` a buffer object that nouveau has put in VRAM."""
        self.client, self.size, self.pages = client, size, size // PAGE
        self.address = client.number("gem" if gem else "map-huge" if huge else "map", size, offset)
        self.seed = 0
        self.fill()

    def fill(self) -> None:
        """Have the CPU write a new pattern."""
        self.seed = next(seeds)
        self.client.ask("fill", self.address, self.size, self.seed, timeout=120)

    def bind(self) -> None:
        """Migrate it to VRAM, as far as that is possible."""
        self.client.ask("bind", self.address, self.size, timeout=120)

    def resident(self) -> int:
        """The number of pages that the CPU cannot access directly."""
        return self.client.number("vram", self.address, self.size)

    def matching(self) -> int:
        """The number of bytes, from the start on, that the CPU sees as filled."""
        return self.client.number("check", self.address, self.size, self.seed, timeout=120)
