# SPDX-License-Identifier: GPL-2.0
"""RDMA on GPU memory: peer to peer, as it is today, and beside host memory and software RDMA.

One guest with a GPU and two HCAs below one switch. The client is guest/src/odp.c, with both ends in the same kind of memory.
"Today" is the series with its aliases switched off: what an HCA touches migrates to host memory. There the GPU gets its
memory back before each transfer, by SVM_BIND: no GPU kernel runs here that could want it.
"""
from dataclasses import dataclass, field
from typing import Iterable, Optional, Sequence

from rig import gpu, rdma
from rig.bench import Bench
from rig.gpu import HUGE, PAGE, Counters
from rig.measured import Line, Spread
from rig.odp import GPU_COUNTERS, Client
from rig.perftest import ALIAS_SWITCH
from rig.ui import step
from rig.vm import CommandFailed, Vm

SERVER, CLIENT = "importer", "remote"
SIZES = (8, 64, 512, 4096, 32768, 1 << 18, 1 << 20, 8 << 20)
DEPTH = 16
ROUNDS = 5
RATE_ROUNDS = 25    # of the rates with a target: now and then one is twice the other, even for the same memory
PING_PONG_PER_P2P = 10.0
P2P_PER_HOST = 0.9
TARGET_SIZES = (4096, 1 << 20)
FAULTS = 256
TRACED = ("mlx5_odp_raise", "mlx5_odp_resume", "mlx5_umr", "mlx5_send_complete")


@dataclass(frozen=True)
class Memory:
    """A kind of memory at both ends, and how often each round transfers: at most `count` messages, and `bytes` in all."""
    name: str
    options: Sequence[str]
    aliases: bool = True
    ping_pong: bool = False
    rxe: bool = False
    huge: bool = False
    count: int = 30000
    bytes: int = 1 << 30

    def times(self, size: int) -> int:
        return max(1, min(self.count, self.bytes // size))


PINNED = Memory("host memory, pinned", ("-k", "pinned", "-l", "pinned"))
HOST = Memory("host memory, ODP", ("-k", "odp", "-l", "odp"))
P2P = Memory("VRAM, peer to peer", ("-l", "private"))
P2P_BIND = Memory("VRAM, peer to peer, SVM_BIND before each", ("-l", "private"), ping_pong=True, count=50, bytes=32 << 20)
TODAY = Memory("VRAM today, small pages", ("-l", "private"), aliases=False, ping_pong=True, count=20, bytes=8 << 20)
TODAY_HUGE = Memory("VRAM today, huge pages", ("-l", "private"), aliases=False, ping_pong=True, huge=True, count=20,
                    bytes=32 << 20)
RXE = Memory("host memory, rxe", ("-k", "pinned", "-l", "pinned"), rxe=True, count=200, bytes=8 << 20)
MEMORIES = (PINNED, HOST, P2P, P2P_BIND, TODAY, TODAY_HUGE, RXE)


@dataclass
class Measured:
    """Of one kind of memory, by the size of the message, a sample for each round: what a transfer takes one by one (us), what the
    SVM_BIND before it takes of that, and the rate of many at once (GB/s)."""
    memory: Memory
    times: dict[int, list[float]] = field(default_factory=dict)
    binds: dict[int, list[float]] = field(default_factory=dict)
    rates: dict[int, list[float]] = field(default_factory=dict)


def ratios(some: Sequence[float], others: Sequence[float]) -> Spread:
    """Round by round: what disturbs the machine for a while disturbs both."""
    return Spread.of([one / other for one, other in zip(some, others)])


def run(bench: Bench) -> None:
    with bench.guest("switch:gpu+two-hcas", cmdline=gpu.CMDLINE, memory="3G") as vm:
        bench.show("boot: QEMU started to the first command", vm.boot_seconds, "s")
        rdma.load(vm)
        client = Client(vm, CLIENT, SERVER, "gpu")
        rxe = software_client(vm)
        every = [Measured(memory) for memory in MEMORIES if rxe or not memory.rxe]
        traffic: dict[str, int] = {}
        for size in SIZES:
            with step(f"WRITE of {size} bytes, {ROUNDS} rounds of {len(every)} kinds of memory, {RATE_ROUNDS} of two"):
                for _ in range(ROUNDS):
                    for one in every:
                        measure(one, rxe if one.memory.rxe and rxe else client, size, traffic)
                for _ in range(RATE_ROUNDS - ROUNDS):
                    for one in every:
                        if one.memory in (HOST, P2P):
                            measure_rate(one, client, size, traffic)
        show(bench, {one.memory.name: one for one in every}, traffic)
        if not rxe:
            bench.remark("The guest has no rxe.")
        first_megabyte(bench, client)
        dma_buf(bench, client)
    # Tracing takes time, so that nothing else is measured with it.
    with bench.guest("switch:gpu+two-hcas", cmdline=gpu.CMDLINE, trace=TRACED) as vm:
        rdma.load(vm)
        page_faults(bench, Client(vm, CLIENT, SERVER, "gpu"))


def software_client(vm: Vm) -> Optional[Client]:
    """The client on a software RDMA device, None where the guest has none."""
    try:
        return Client(vm, device=rdma.make_rxe(vm))
    except CommandFailed:
        return None


def numbers(client: Client, memory: Memory, pages: int, arguments: Iterable[object], options: Sequence[str] = (),
            counted: Optional[dict[str, int]] = None) -> dict[str, list[int]]:
    """What `odp measure` prints, by name; `counted` gets how far counters moved meanwhile."""
    client.guest.write(ALIAS_SWITCH, "Y\n" if memory.aliases else "N\n")
    found: dict[str, list[int]] = {}
    words = [*memory.options, *(["-p"] if memory.ping_pong else []), *(["-t"] if memory.huge else []), *options]
    seen = client.run("measure", "-n", str(pages), *words, *map(str, arguments), timeout=300, every=found)
    if counted is not None:
        for name, value in seen.items():
            counted[name] = counted.get(name, 0) + value
    return found


def transfer_round(one: Measured, client: Client, size: int, depth: int, traffic: dict[str, int]) -> dict[str, list[int]]:
    """A round of transfers of one size, `depth` of them at once. Those peer to peer add to `traffic`."""
    memory, count = one.memory, one.memory.times(size)
    pages = -(-size // PAGE)
    if memory.huge:
        pages = -(-size // HUGE) * HUGE // PAGE
    counted = traffic if memory is P2P else None
    found = numbers(client, memory, pages, ("write", size, count, depth, 1), counted=counted)
    if counted is not None:
        # It migrates both ends to VRAM once, before it measures.
        counted["copied"] = counted.get("copied", 0) - 2 * pages * PAGE
    return found


def measure_rate(one: Measured, client: Client, size: int, traffic: dict[str, int]) -> None:
    """A round of transfers of one size, many at once."""
    found = transfer_round(one, client, size, DEPTH, traffic)
    one.rates.setdefault(size, []).append(size * one.memory.times(size) / found["all"][0])


def measure(one: Measured, client: Client, size: int, traffic: dict[str, int]) -> None:
    """A round of transfers of one size, one by one and many at once."""
    count = one.memory.times(size)
    found = transfer_round(one, client, size, 1, traffic)
    one.times.setdefault(size, []).append(found["all"][0] / count / 1e3)
    if one.memory.ping_pong:
        one.binds.setdefault(size, []).append(found["bind"][0] / count / 1e3)
        one.rates.setdefault(size, []).append(size * count / found["all"][0])
    else:
        measure_rate(one, client, size, traffic)


def show(bench: Bench, every: dict[str, Measured], traffic: dict[str, int]) -> None:
    def lines(of: str) -> list[Line]:
        return [Line(name, [(size, Spread.of(samples)) for size, samples in sorted(getattr(one, of).items())])
                for name, one in every.items()]

    bench.plot("RDMA WRITE, one at a time", "size", "us for each, from posting to completion", lines("times"))
    bench.plot(f"RDMA WRITE, {DEPTH} at a time", "size", "GB/s", lines("rates"))
    bench.remark('Where there is an SVM_BIND before each transfer, only one is on its way at a time, and its time is included. '
                 'Both ends are migrated.')
    p2p, today = every[P2P.name], (every[TODAY.name], every[TODAY_HUGE.name])
    for size in SIZES:
        for one in today:
            bench.show(f"{one.memory.name}, {size} B / peer to peer", ratios(one.times[size], p2p.times[size]), "",
                       at_least=PING_PONG_PER_P2P)
    for size in TARGET_SIZES:
        for one in today:
            bench.show(f"{one.memory.name}, {size} B: one transfer", Spread.of(one.times[size]), "us")
            bench.show("... of this the SVM_BIND of both ends", Spread.of(one.binds[size]), "us")
            bench.show("... / peer to peer with the same SVM_BIND", ratios(one.times[size], every[P2P_BIND.name].times[size]), "")
    for size in SIZES:
        ratio = ratios(p2p.rates[size], every[HOST.name].rates[size])
        bench.show(f"rate of peer to peer / host memory with ODP, {size} B", ratio, "", at_least=P2P_PER_HOST)
    bench.show("peer to peer, all transfers: payload from or to VRAM", (traffic["read peer"] + traffic["write peer"]) / (1 << 20), "MiB")
    bench.show("... payload from or to host memory", traffic["read host"] + traffic["write host"], "bytes", at_most=0)
    copied = traffic["copied"] + traffic["gpu ce-bytes-h2d"] + traffic["gpu ce-bytes-d2h"]
    bench.show("... copied by the GPU, but for filling VRAM before", copied, "bytes", at_most=0)


def first_megabyte(bench: Bench, client: Client) -> None:
    """What the first transfers of 1 MiB cost that have to fault everything in."""
    count, pages = 8, (8 << 20) // PAGE
    for memory in (HOST, P2P, TODAY):
        faults = {role: Counters(client.guest, role, ("page-faults",)) for role in client.hcas}
        client.guest.write(ALIAS_SWITCH, "Y\n" if memory.aliases else "N\n")
        seen = client.run("measure", "-n", str(pages), *memory.options, "-l", "pinned", "-f", "-o", str(1 << 20), "write",
                          str(1 << 20), str(count), "1", "0")
        raised = sum(counter.moved()["page-faults"] for counter in faults.values())
        name = f"first transfer, {memory.name}"
        bench.show(f"{name}: page faults", raised / count, "for 1 MiB")
        for what, value in (("written to VRAM by the HCA", seen[f"{SERVER} write peer"]),
                            ("written to host memory by the HCA", seen[f"{SERVER} write host"]),
                            ("copied by the GPU to host memory", seen["gpu ce-bytes-d2h"])):
            bench.show(f"... {what}", value / count / (1 << 20), "MiB for 1 MiB")
    client.guest.write(ALIAS_SWITCH, "Y\n")


def dma_buf(bench: Bench, client: Client) -> None:
    """A region of a dma-buf of a buffer object that nouveau has put in VRAM."""
    counted: dict[str, int] = {}
    memory = Memory("dma-buf", ("-k", "dmabuf", "-l", "pinned"))
    try:
        numbers(client, memory, 256, ("write", 1 << 20, 20, 1, 1), counted=counted)
    except CommandFailed as failed:
        bench.remark(f"dma-buf of a buffer object in VRAM: {str(failed).splitlines()[-1].strip()}")
        return
    bench.show("dma-buf of a buffer in VRAM: payload to VRAM", counted["write peer"], "bytes")
    bench.show("... payload to host memory", counted["write host"], "bytes")


def page_faults(bench: Bench, client: Client) -> None:
    """What it takes to serve the fault of an HCA that touches a page for the first time, and its parts."""
    for memory, kind in ((HOST, "present in host memory"), (P2P, "in VRAM, peer to peer"), (TODAY, "in VRAM today, migrates")):
        engine = Counters(client.guest, "gpu", ("ce-ns", "ce-launches", *GPU_COUNTERS))
        target = Memory(memory.name, ["-k", "private" if memory is not HOST else "odp", "-l", "pinned"], aliases=memory.aliases)
        before = len(client.guest.traced())
        with step(f"page faults: {kind}"):
            found = numbers(client, target, FAULTS, ("write", 8, FAULTS, 1, ROUNDS), ("-f", "-o", str(PAGE)))
        moved = engine.moved()
        each = [(first - again) / FAULTS / 1e3 for first, again in zip(found["first"], found["again"])]
        bench.show(f"fault of 4 KiB {kind}: all", Spread.of(each), "us")
        for name, part in parts(client.guest.traced()[before:]).items():
            bench.show(f"... {name}", part, "us")
        if memory is TODAY:
            # All rounds, and the one before them, migrate each page there and back.
            bench.show("... the GPU's copies, there and back", moved["ce-ns"] / (ROUNDS + 1) / FAULTS / 1e3, "us")
    bench.remark('"All" is the mean time of a transfer that faults less that of the same one once more, and its range that of the '
                 "rounds. The parts are what the HCA's model sees of each fault, without the lowest and the highest tenth: from the "
                 "event to the first update of the translation the driver gets an interrupt, its worker runs, hmm_range_fault() "
                 "finds or migrates the page, and it is mapped for DMA. All of it includes what writing the trace takes.")


def parts(events: Sequence[tuple[float, str, str]]) -> dict[str, Spread]:
    """The times between the steps of faults that come one after the other."""
    steps = {"event to the update of the translation": ("mlx5_odp_raise", "mlx5_umr"),
             "update to the driver's resume": ("mlx5_umr", "mlx5_odp_resume"),
             "resume to the completion of the transfer": ("mlx5_odp_resume", "mlx5_send_complete")}
    found: dict[str, list[float]] = {name: [] for name in steps}
    when: dict[str, float] = {}
    for seconds, event, _ in events:
        if event == "mlx5_odp_raise":
            when = {event: seconds}
        for name, (begin, end) in steps.items():
            # An update may need several work requests; the first counts.
            if event == end and begin in when and end not in when:
                found[name].append((seconds - when[begin]) * 1e6)
                when[event] = seconds
    return {name: _middle(times) for name, times in found.items()}


def _middle(times: Sequence[float]) -> Spread:
    """The median, and the range without the lowest and the highest tenth."""
    ordered = sorted(times)
    tenth = len(ordered) // 10
    return Spread.of(ordered[tenth:len(ordered) - tenth])
