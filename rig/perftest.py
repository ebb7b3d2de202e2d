# SPDX-License-Identifier: GPL-2.0
"""perftest between two HCAs of a guest, its buffers in VRAM: what it says, and what was seen from outside the guest.

The programs are the distribution's. The preload library odp_vram.so, which comes with the series, moves their buffers to
VRAM, and holds both programs before and after their traffic, so that counters are read while nothing goes on.
"""
import re
import signal
import zlib
from dataclasses import dataclass, field
from typing import Mapping, Sequence

from . import gpu, rdma
from .agent import Operation
from .gpu import PAGE, Counters, Vram
from .ui import RigError
from .vm import Vm

LIBRARY = "/opt/hmm-p2p/selftests/hmm/odp_vram.so"
ALIAS_SWITCH = "/sys/module/ib_core/parameters/odp_alias"
"""The file of the guest that switches the aliases of device-private memory on and off ("Y", "N")."""

HCA_COUNTERS = ("data-read-host-bytes", "data-read-peer-bytes", "data-write-host-bytes", "data-write-peer-bytes",
                "data-routed-bytes", "page-faults", "dma-errors")
GPU_COUNTERS = ("ce-launches", "ce-bytes-h2d", "ce-bytes-d2h", "ce-errors", "bar1-faults")

# perftest repeats what it is given over the buffer. A period of so many words makes as many pages differ from each other.
_PAYLOAD_WORDS = (1021, 4099)
_ODP_LINE = re.compile(r"odp_vram: (\w+): 0x[0-9a-f]+-0x[0-9a-f]+: (\d+) of (\d+) pages in VRAM")


@dataclass(frozen=True)
class Tool:
    """A test of perftest: how often each iteration reads and writes the message at either end, and what ends up where."""
    server: tuple[int, int]
    client: tuple[int, int]
    arrives: tuple[tuple[str, int, str, int], ...]
    """Destination and source: an end, and which half of its buffer."""


# perftest sends from the first half of its buffer, and what is received, and what the other side accesses, is in the second.
_TO_SERVER, _TO_CLIENT = ("server", 1, "client", 0), ("client", 1, "server", 0)
_WRITE = Tool((0, 1), (1, 0), (_TO_SERVER,))
_READ = Tool((1, 0), (0, 1), (("client", 0, "server", 1),))
TOOLS = {
    "ib_write_bw": _WRITE,
    "ib_send_bw": _WRITE,
    "ib_read_bw": _READ,
    "ib_read_lat": _READ,
    "ib_send_lat": Tool((1, 1), (1, 1), (_TO_SERVER, _TO_CLIENT)),
}
"""Those that leave the buffer alone with the CPU. ib_write_lat polls it."""


class NotInVram(RigError):
    """The buffer was not in VRAM, or not all of it, when traffic was to start."""


@dataclass
class End:
    """One end of the connection: an HCA, a perftest that uses it, and that program's only ODP region."""
    role: str
    device: str
    """The verbs device ("mlx5_0")."""
    output: str = ""
    """What perftest printed."""
    moved: Mapping[str, int] = field(default_factory=dict)
    """How far the HCA's counters (HCA_COUNTERS) moved by the traffic."""
    region: Mapping[str, int] = field(default_factory=dict)
    """The region's counters after the traffic, from `rdma statistic show mr`."""
    pages: int = 0
    """Pages of the buffer."""
    resident: tuple[int, int] = (0, 0)
    """How many of them were in VRAM before and after the traffic, as the guest's kernel says."""
    content: bytes = b""
    """The buffer before it was migrated."""
    where: Sequence[int] = ()
    """The addresses of its pages in VRAM before the traffic, found by their content."""
    vram: bytes = b""
    """What VRAM held at these addresses after the traffic."""

    def half(self, of: bytes, which: int, size: int) -> bytes:
        """The first `size` bytes of a half of the buffer."""
        return of[which * len(of) // 2:][:size]


@dataclass
class Run:
    """A test of perftest, and what it did."""
    command: Sequence[str]
    size: int
    iterations: int
    server: End
    client: End
    migration: Mapping[str, int]
    """How far the GPU's counters (GPU_COUNTERS) moved from the start of the programs to that of the traffic."""
    copies: Mapping[str, int]
    """How far they moved by the traffic."""

    @property
    def tool(self) -> Tool:
        return TOOLS[self.command[0]]

    @property
    def ends(self) -> tuple[End, End]:
        return self.server, self.client

    def expected(self, end: End) -> tuple[int, int]:
        """The bytes of payload that its HCA has to read and to write."""
        reads, writes = self.tool.server if end is self.server else self.tool.client
        return reads * self.size * self.iterations, writes * self.size * self.iterations

    def arrived(self) -> list[tuple[bytes, bytes, bytes]]:
        """What was sent, what VRAM holds where it was to arrive, and what was there before the traffic."""
        found = []
        for destination, half, source, source_half in self.tool.arrives:
            to, begin = getattr(self, destination), getattr(self, source)
            found.append((begin.half(begin.content, source_half, self.size), to.half(to.vram, half, self.size),
                          to.half(to.content, half, self.size)))
        return found

    def against_p2p(self) -> list[str]:
        """What contradicts that all of the payload went from VRAM to VRAM, and nothing else happened."""
        wrong = _Wrong()
        for end in self.ends:
            reads, writes = self.expected(end)
            for direction, count in (("read", reads), ("write", writes)):
                wrong.unless(end.moved[f"data-{direction}-peer-bytes"], count, f"{end.device}: {direction} in VRAM")
                wrong.unless(end.moved[f"data-{direction}-host-bytes"], 0, f"{end.device}: {direction} in host memory")
            wrong.unless(end.resident, (end.pages, end.pages), f"{end.device}: pages in VRAM before and after the traffic")
            wrong.unless(end.region.get("alias_pages", 0) > 0, True, f"{end.device}: the region has aliases")
            wrong.unless(end.region.get("alias_fallbacks"), 0, f"{end.device}: fallbacks")
            wrong.unless(end.moved["dma-errors"], 0, f"{end.device}: failed DMA")
        wrong.unless(self.copies, dict.fromkeys(GPU_COUNTERS, 0), "the GPU in the traffic")
        for sent, found, _ in self.arrived():
            wrong.unless(checksum(found), checksum(sent), "checksum of what has arrived in VRAM")
        return wrong.found

    def against_host(self) -> list[str]:
        """What contradicts that all of it went through host memory, where it had to migrate."""
        wrong = _Wrong()
        for end in self.ends:
            reads, writes = self.expected(end)
            for direction, count in (("read", reads), ("write", writes)):
                wrong.unless(end.moved[f"data-{direction}-peer-bytes"], 0, f"{end.device}: {direction} in VRAM")
                wrong.unless(end.moved[f"data-{direction}-host-bytes"], count, f"{end.device}: {direction} in host memory")
            wrong.unless(end.resident[1] < end.pages, True, f"{end.device}: some pages left VRAM")
            wrong.unless(end.region.get("alias_pages"), 0, f"{end.device}: pages mapped as aliases")
        wrong.unless(self.copies["ce-bytes-d2h"] >= 2 * self.size, True, "the copy engine brought messages to host memory")
        for _, found, before in self.arrived():
            wrong.unless(checksum(found), checksum(before), "checksum of what is in VRAM still")
        return wrong.found


class _Wrong:
    """Collects what was expected and not seen."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def unless(self, seen: object, expected: object, what: str) -> None:
        if seen != expected:
            self.found.append(f"{what}: expected {expected}, saw {seen}")


def checksum(content: bytes) -> str:
    return f"{zlib.crc32(content):08x}"


class _Side:
    """A running program, and what is read from it and its HCA."""

    def __init__(self, guest: Vm, role: str, command: Sequence[str], directory: str, node: str, size: int) -> None:
        self.guest, self.directory = guest, directory
        self.end = End(role, rdma.device(guest, role))
        seed, count = next(gpu.seeds) * 0x9e3779b1, next(count for count in _PAYLOAD_WORDS if count * PAGE >= 2 * size)
        words = (f"0x{(seed + index * 0x85ebca6b) & 0xffffffff:08x}" for index in range(count))
        guest.run(["mkdir", directory])
        guest.run(["mkfifo", f"{directory}.hold"])
        guest.write(f"{directory}.payload", ",".join(words))
        self.operation: Operation = guest.start(
            [command[0], "-d", self.end.device, f"--payload_file_path={directory}.payload", *command[1:]],
            env={"LD_PRELOAD": LIBRARY, "ODP_VRAM_NODE": node, "ODP_VRAM_VERBOSE": "1", "ODP_VRAM_SAVE": directory,
                 "ODP_VRAM_HOLD": f"{directory}.hold"})

    def is_at(self, stage: str) -> bool:
        """Whether the library holds the program in `stage`."""
        return f"odp_vram: {stage}: waiting".encode() in self.operation.stderr

    def release(self) -> None:
        self.guest.run(f": >{self.directory}.hold")

    def output(self) -> str:
        return (self.operation.stdout + self.operation.stderr).decode(errors="replace")

    def resident(self, stage: str) -> tuple[int, int]:
        """The pages in VRAM, and those that the only region has, as the library reported them last in `stage`."""
        reports = [(int(there), int(pages)) for word, there, pages in _ODP_LINE.findall(self.output()) if word == stage]
        if not reports:
            raise RigError(f"the preload library said nothing about {stage}", self.output())
        return reports[-1]

    def load_content(self) -> None:
        """Read what the library saved, which must be one region."""
        names = self.guest.run(["ls", self.directory]).stdout.split()
        if len(names) != 1:
            raise RigError(f"the program on {self.end.device} has {len(names)} ODP regions instead of 1")
        self.end.content = self.guest.read(f"{self.directory}/{names[0]}")


def run(guest: Vm, tool: str, size: int, iterations: int, server: str, client: str, *options: str, node: str,
        timeout: float = 120) -> Run:
    """Run one of TOOLS between two HCAs, given by their roles, whose drivers are loaded, with messages of `size` bytes (4 KiB to
    8 MiB), and the buffers in the memory of the GPU that has the render node `node`.

    Raises NotInVram, RigError when a program fails, and every VmFailure.
    """
    command = [tool, "--odp", "-s", str(size), "-n", str(iterations), *options]
    if tool == "ib_send_lat":
        command += ["-I", "0"]  # what is sent inline is read by the CPU
    directory = guest.run(["mktemp", "-d"]).stdout.strip()
    port = next(rdma.ports)
    sides: list[_Side] = []
    before = {role: Counters(guest, role, HCA_COUNTERS) for role in (server, client)}
    copies = Counters(guest, "gpu", GPU_COUNTERS)
    try:
        sides.append(_Side(guest, server, [*command, "-p", str(port)], f"{directory}/server", node, size))
        rdma.wait_for_server(guest, sides[0].operation, port)
        sides.append(_Side(guest, client, [*command, "-p", str(port), "127.0.0.1"], f"{directory}/client", node, size))
        result = Run(command, size, iterations, sides[0].end, sides[1].end, {}, {})

        _until(sides, "RTR", timeout)
        with Vram(guest) as vram:
            for side in sides:
                _locate(side, vram)
            result.migration = copies.moved()
            for side in sides:
                before[side.end.role].moved()
            for side in sides:
                side.release()

            _until(sides, "DEREG", timeout)
            result.copies = copies.moved()
            for side in sides:
                side.end.moved = before[side.end.role].moved()
                side.end.region = regions(guest, side.end.device)
                side.end.vram = vram.read(side.end.where)
        for side in sides:
            side.release()
        for side in sides:
            guest.wait(side.operation, timeout)
            if side.operation.status and rdma.UNCALIBRATED not in side.output():
                raise RigError(f"{' '.join(command)} on {side.end.device}: exit status {side.operation.status}", side.output())
            side.end.output = side.operation.stdout.decode(errors="replace")
            side.end.resident = side.end.resident[0], side.resident("DEREG")[0]
        guest.run(["rm", "-r", directory])
        return result
    finally:
        for side in sides:
            if not side.operation.done and not guest.failure:
                guest.kill(side.operation, signal.SIGKILL)


def _until(sides: Sequence[_Side], stage: str, timeout: float) -> None:
    """Wait until the library holds both programs in `stage`. Raises RigError if one of them ends before."""
    guest = sides[0].guest
    guest.wait_until(lambda: all(side.is_at(stage) for side in sides) or any(side.operation.done for side in sides),
                     f"perftest did not get to {stage}", timeout)
    for side in sides:
        if side.operation.done:
            raise RigError(f"perftest on {side.end.device} ended too early, with status {side.operation.status}",
                           "\n  ".join(line for one in sides for line in one.output().splitlines()))


def _locate(side: _Side, vram: Vram) -> None:
    """See to it that the buffer is in VRAM, and find it there. Raises NotInVram."""
    end = side.end
    there, end.pages = side.resident("RTR")
    end.resident = (there, 0)
    if there < end.pages:
        raise NotInVram(f"only {there} of {end.pages} pages of the buffer for {end.device} are in VRAM when traffic starts")
    side.load_content()
    places = vram.where([end.content[at:at + PAGE] for at in range(0, len(end.content), PAGE)])
    if missing := sum(not place for place in places):
        raise NotInVram(f"{missing} of {end.pages} pages of the buffer for {end.device} are not to be found in VRAM")
    end.where = [place[0] for place in places]


def regions(guest: Vm, device: str) -> dict[str, int]:
    """The sums of the counters of a device's ODP regions ("alias_pages", "page_faults" ...)."""
    sums: dict[str, int] = {}
    for line in guest.run(["rdma", "statistic", "show", "mr"]).stdout.split("\ndev "):
        words = line.removeprefix("dev ").split()
        if words[:1] == [device]:
            for name, value in zip(words, words[1:]):
                if re.match(r"page_|alias_", name):
                    sums[name] = sums.get(name, 0) + int(value)
    return sums
