# SPDX-License-Identifier: GPL-2.0
"""Another device reads and writes memory of a process in VRAM through nouveau's BAR1 windows, or not, by topology."""
from typing import Callable, Iterable

from rig import gpu
from rig.dialogue import Dialogue
from rig.gpu import HUGE, PAGE, Buffer, Counters, Vram
from rig.testlib import Test, case

REACHABLE = ("switch", "host-bridge")
COPIES = ("ce-launches", "bar1-faults", "guest-errors")
ROUTES = ("dma-read-host-bytes", "dma-write-host-bytes", "dma-read-peer-bytes", "dma-write-peer-bytes")
WINDOWS = 64  # half of a BAR1 of 256 MiB


def alias_case(fabrics: Iterable[str], full: Iterable[str] = (), **options: object) -> Callable:
    """A case with a GPU and an importer, for each of several fabrics; in those of `full` it is not a part of make test."""
    def topologies(names: Iterable[str]) -> list[str]:
        return [f"{fabric}:gpu+importer" for fabric in names]

    # As much memory as more_than_fits needs, so that one guest does for all.
    return case(**{"topology": topologies(fabrics), "full": topologies(full), "timeout": 300,  # type: ignore[arg-type]
                   "memory": "3G", "cmdline": gpu.CMDLINE, **options})


def process(t: Test) -> Dialogue:
    """A process with a GPU and an importer."""
    address = t.vm.pci_address("importer")
    t.vm.run(f"modprobe test_hmm_importer && echo hmm_importer >/sys/bus/pci/devices/{address}/driver_override && "
             f"if ! [ -e /sys/bus/pci/devices/{address}/driver ]; then echo {address} >/sys/bus/pci/drivers_probe; fi")
    client = gpu.process(t.vm)
    client.ask("importer", "/dev/hmm_importer0")
    return client


class State:
    """What the importer has mapped of a buffer, in pages."""

    def __init__(self, words: list[str]) -> None:
        self.mapped, self.bus, self.bridge, self.other = map(int, words)

    def aliases(self, t: Test) -> int:
        """Pages mapped as aliases, in the way that the topology demands."""
        kinds = {"bus-addr": self.bus, "host-bridge": self.bridge}
        expected = kinds.get(t.topology.mapping_type, 0)
        t.equal(self.bus + self.bridge, expected, "aliases of any mapping type")
        return expected


def imported(buffer: Buffer, flags: str = "fwp") -> State:
    return State(buffer.client.ask("import", buffer.address, buffer.size, flags, timeout=120))


def state(buffer: Buffer) -> State:
    return State(buffer.client.ask("state", buffer.address, buffer.size))


@alias_case(REACHABLE, full=["host-bridge"])
def in_place(t: Test) -> None:
    """DMA reads and writes each page of a buffer where it is, small pages and huge ones."""
    client = process(t)
    with Vram(t.vm) as vram:
        for huge in (False, True):
            buffer = Buffer(client, 2 * HUGE, huge=huge)
            buffer.bind()
            before = vram.find(buffer.seed, buffer.pages)
            t.equal(len(before), buffer.pages, "pages of the pattern in VRAM")
            copies, routes = Counters(t.vm, "gpu", COPIES), Counters(t.vm, "importer", ROUTES)

            t.equal(imported(buffer).aliases(t), buffer.pages, "pages mapped as aliases")
            t.equal(client.number("dma-check", buffer.address, buffer.size, buffer.seed, timeout=120), buffer.size,
                    "bytes that the importer reads as they are")
            t.equal(routes.moved()["dma-read-peer-bytes"], buffer.size, "bytes that it read from the GPU")

            written = next(gpu.seeds)
            t.equal(client.number("dma-fill", buffer.address, buffer.size, written, timeout=120), buffer.size,
                    "bytes that the importer wrote")
            t.equal(routes.moved()["dma-write-peer-bytes"], buffer.size, "bytes that it wrote to the GPU")
            t.equal(vram.find(written, buffer.pages), before, "where in VRAM the written pages are")
            t.equal(buffer.resident(), buffer.pages, "pages that are still in VRAM")
            t.equal(copies.moved(), dict.fromkeys(COPIES, 0), "what the GPU did meanwhile")

            buffer.seed = written
            t.equal(buffer.matching(), buffer.size, "bytes that the CPU sees as written")
    client.close()


@alias_case(REACHABLE, full=["host-bridge"])
def gone(t: Test) -> None:
    """From the moment when a page is migrated back, its alias cannot be used."""
    client = process(t)
    for huge in (False, True):
        buffer = Buffer(client, HUGE, huge=huge)
        buffer.bind()
        t.equal(imported(buffer).aliases(t), 512, "pages mapped as aliases")
        t.equal(client.number("check", buffer.address, PAGE, buffer.seed), PAGE, "bytes of the page that the CPU touches")
        left = 0 if huge else 511
        t.equal(state(buffer).mapped, left, "pages that are still mapped")
        t.equal(client.number("dma-check", buffer.address, PAGE, buffer.seed), 0, "bytes of it that the importer gets")
        t.equal(imported(buffer).aliases(t), left, "pages mapped as aliases after the next fault")
        t.equal(client.number("dma-check", buffer.address, HUGE, buffer.seed), HUGE, "bytes that it reads from both")

        client.ask("discard", buffer.address, HUGE)
        t.equal(state(buffer).mapped, 0, "pages that are mapped after the memory was discarded")
    client.close()


@alias_case(REACHABLE, full=["host-bridge"])
def read_only(t: Test) -> None:
    """The importer does not get to write what the process may not."""
    client = process(t)
    buffer = Buffer(client, HUGE)
    buffer.bind()
    client.ask("protect", buffer.address, HUGE, "r")
    t.equal(imported(buffer, "fp").aliases(t), 512, "pages mapped as aliases for reading")
    t.equal(client.number("dma-fill", buffer.address, HUGE, next(gpu.seeds)), 0, "bytes that the importer wrote")
    t.equal(client.number("dma-check", buffer.address, HUGE, buffer.seed), HUGE, "bytes that it reads")
    client.close()


@alias_case(["unreachable"])
def fallback(t: Test) -> None:
    """Where the importer cannot reach the GPU, the memory migrates, and DMA goes to the host."""
    client = process(t)
    for huge in (False, True):
        buffer = Buffer(client, HUGE, huge=huge)
        buffer.bind()
        routes = Counters(t.vm, "importer", ROUTES)
        now = imported(buffer)
        t.equal((now.aliases(t), now.mapped), (0, 512), "aliases, and pages mapped")
        t.equal(client.number("dma-check", buffer.address, HUGE, buffer.seed), HUGE, "bytes that the importer reads")
        t.equal(routes.moved()["dma-read-peer-bytes"], 0, "bytes that it read from the GPU")
        t.equal(buffer.resident(), 0, "pages that are left in VRAM")
    client.close()


@alias_case(["switch"], timeout=600)
def more_than_fits(t: Test) -> None:
    """With more memory in VRAM than BAR1 has windows, the rest of it migrates, and nothing else."""
    client = process(t)
    buffer = Buffer(client, (WINDOWS + 16) * HUGE, huge=True)
    buffer.bind()
    t.equal(buffer.resident(), buffer.pages, "pages in VRAM")
    view = gpu.dmem(t.vm)
    t.equal((view["windows"], view["windows mapped"], view["pages in use with alias"]), (WINDOWS, WINDOWS, WINDOWS * 512),
            "windows, windows mapped, pages in use with alias")
    now = imported(buffer)
    t.equal((now.aliases(t), now.other), (WINDOWS * 512, 16 * 512), "aliases, and pages of host memory")
    t.equal(buffer.resident(), WINDOWS * 512, "pages that are still in VRAM")
    t.equal(client.number("dma-check", buffer.address, buffer.size, buffer.seed, timeout=300), buffer.size,
            "bytes that the importer reads")
    t.check(gpu.dmem(t.vm)["aliases declined"] > view["aliases declined"], "nouveau declined to give an alias")

    client.ask("discard", buffer.address, buffer.size)
    later = Buffer(client, 2 * HUGE, huge=True)
    later.bind()
    t.equal(gpu.dmem(t.vm)["pages in use with alias"], later.pages, "pages with an alias that were allocated with most of VRAM free")
    client.close()


@alias_case(["switch"])
def unbind(t: Test) -> None:
    """Before nouveau is unbound, the importer loses its aliases; with nouveau bound again all is as before."""
    client = process(t)
    buffer = Buffer(client, 2 * HUGE, huge=True)
    buffer.bind()
    t.equal(imported(buffer).aliases(t), buffer.pages, "pages mapped as aliases")
    client.ask("close")
    gpu.unbind(t.vm)
    t.equal(state(buffer).mapped, 0, "pages that are mapped afterwards")
    t.equal(buffer.matching(), buffer.size, "bytes that are as they were")

    client.ask("gpu", gpu.bind(t.vm))
    buffer.bind()
    t.equal(imported(buffer).aliases(t), buffer.pages, "pages mapped as aliases in the end")
    t.equal(client.number("dma-check", buffer.address, buffer.size, buffer.seed), buffer.size, "bytes that the importer reads")
    client.close()


@alias_case(["switch"], full=["switch"], timeout=600)
def unbind_while_in_use(t: Test) -> None:
    """As long as the importer has an alias, there is a window behind it: it loses its aliases before nouveau unmaps those."""
    client = process(t)
    buffer = Buffer(client, WINDOWS * HUGE, huge=True)
    buffer.bind()
    t.equal(imported(buffer).aliases(t), buffer.pages, "pages mapped as aliases")
    client.ask("close")
    faults, routes = Counters(t.vm, "gpu", ("bar1-faults",)), Counters(t.vm, "importer", ROUTES)

    # The importer reads all of it, which takes longer than nouveau needs to begin.
    client.tell("dma-check", buffer.address, buffer.size, buffer.seed)
    gpu.unbind(t.vm)
    answer, read = int(client.answer(300)[0]), routes.moved()["dma-read-peer-bytes"]
    t.check(0 < read < buffer.size, f"the importer was reading when nouveau was unbound: {read} bytes came from the GPU")
    t.equal(faults.moved()["bar1-faults"], 0, "accesses to windows that are not mapped")
    # It stops where it has no alias any more; up to there the data is right.
    t.equal(answer, read, "bytes that the importer reads")
    t.equal(buffer.matching(), buffer.size, "bytes that are as they were")
    gpu.bind(t.vm)
    client.close()


@alias_case(["switch"])
def suspend(t: Test) -> None:
    """When the guest has slept, no alias and no window is left; new ones are as good."""
    client = process(t)
    buffer = Buffer(client, 2 * HUGE, huge=True)
    for level in ("devices", "none"):
        buffer.bind()
        t.equal(imported(buffer).aliases(t), buffer.pages, f"pages mapped as aliases ({level})")
        t.check(gpu.bar1_bytes(t.vm) >= buffer.size, "VRAM is mapped in BAR1")
        t.vm.suspend(level)
        t.equal(state(buffer).mapped, 0, f"pages mapped afterwards ({level})")
        t.equal(gpu.dmem(t.vm)["windows mapped"], 0, f"windows mapped afterwards ({level})")
        t.equal(gpu.bar1_bytes(t.vm), 0, f"bytes of the parts of VRAM that are left in BAR1 ({level})")
    buffer.bind()
    faults = Counters(t.vm, "gpu", ("bar1-faults",))
    t.equal(imported(buffer).aliases(t), buffer.pages, "pages mapped as aliases in the end")
    t.equal(client.number("dma-check", buffer.address, buffer.size, buffer.seed), buffer.size, "bytes that the importer reads")
    t.equal(faults.moved()["bar1-faults"], 0, "accesses to windows that are not mapped")
    client.close()


@alias_case(["switch"])
def aperture(t: Test) -> None:
    """By a parameter nouveau gives peers another part of BAR1, or none; where there is no window, memory migrates."""
    for size, windows in ((16, 8), (0, 0), (-1, WINDOWS)):
        t.vm.run(f"modprobe -r nouveau && modprobe nouveau p2p_aperture={size}", timeout=180)
        client = process(t)
        try:
            t.equal(gpu.dmem(t.vm)["windows"], windows, f"windows with p2p_aperture={size}")
            buffer = Buffer(client, 10 * HUGE, huge=True)
            buffer.bind()
            t.equal(buffer.resident(), buffer.pages, "pages in VRAM")
            aliases = min(windows, 10) * 512
            t.equal(imported(buffer).aliases(t), aliases, f"aliases with p2p_aperture={size}")
            t.equal(buffer.resident(), aliases, "pages that are still in VRAM")
            t.equal(client.number("dma-check", buffer.address, buffer.size, buffer.seed), buffer.size,
                    "bytes that the importer reads")
        finally:
            if gpu.usable(t.vm):
                client.close()
