# SPDX-License-Identifier: GPL-2.0
"""RDMA on device-private memory by guest/src/odp.c: what it says, and what the HCAs and the GPU counted meanwhile.

The memory belongs to the simulated GPU of lib/test_hmm or, in a topology with a GPU, is VRAM that nouveau migrates to.
"""
from collections import Counter
from typing import Mapping, Optional, Sequence

from . import gpu, p2pmap, rdma
from .gpu import PAGE, Counters
from .perftest import ALIAS_SWITCH
from .testlib import Test
from .vm import Vm

# What goes to the device-private memory and what comes from there, and the operations where the requester has it.
INTO = ("write", "read-in", "recv")
OUT_OF = ("read", "write-out", "send")
AT_REQUESTER = ("read-in", "write-out", "send")
ATOMIC = "atomic"

CHILD_BLOCKS = 1 << 18
"""A child of an implicit region covers 1 GiB with a memory key for as many pages."""

DATA = [f"{direction} {place}" for direction in ("read", "write") for place in ("host", "peer")]
ROUTES = ("data-routed-bytes", "ats-hits", "ats-misses", "ats-invalidations", "umrs")
"""What else an HCA counts: payload that a switch turned around, and what it asked the IOMMU for by ATS."""
GPU_COUNTERS = ("ce-bytes-h2d", "ce-bytes-d2h", "ce-errors", "bar1-faults", "guest-errors")
# An atomic is 8 bytes in each direction at its target, and what was there before at its requester; each page gets two.
_ATOMIC_BYTES = 16
# Each datagram that is received has them in front, and holds a page.
_GRH_BYTES = 40


class Client:
    """The program between two HCAs (or one and itself), by their roles, with the memory of a GPU if one has that role.

    `device` is a verbs device that is no HCA, and takes their place: then nothing is counted.
    """

    def __init__(self, guest: Vm, requester: str = "importer", responder: str = "importer", gpu_role: str = "", *,
                 device: str = "") -> None:
        self.guest, self.gpu = guest, gpu_role
        self.hcas: tuple[str, ...] = () if device else (requester, responder)
        self._options: list[str] = []
        for name in [device, device] if device else [rdma.device(guest, role) for role in self.hcas]:
            self._options += ["-d", name]
        if gpu_role:
            self._options += ["-g", gpu.bind(guest, gpu_role)]

    def command(self, verb: str, *arguments: str) -> list[str]:
        """The words that run it."""
        return ["odp", verb, *self._options, *arguments]

    def run(self, verb: str, *arguments: str, timeout: float = 120,
            every: Optional[dict[str, list[int]]] = None) -> dict[str, int]:
        """Run it, and return its numbers by "OPERATION NAME"; how far counters moved, by "HCA DIRECTION PLACE", and "DIRECTION
        PLACE" for all HCAs together; by the names in ROUTES, for all HCAs together; and by "gpu COUNTER". Of what it says
        several times, this has the last; `every` gets all.
        """
        roles = sorted(set(self.hcas))
        hcas = {role: data_counters(self.guest, role) for role in roles}
        routes = [Counters(self.guest, role, ROUTES) for role in roles]
        engine = Counters(self.guest, self.gpu, GPU_COUNTERS) if self.gpu else None
        lines = self.guest.run(self.command(verb, *arguments), timeout=timeout).stdout.splitlines()
        seen: Counter[str] = Counter()
        for name, _, value in (line.rpartition(" ") for line in lines):
            seen[name] = int(value)
            if every is not None:
                every.setdefault(name, []).append(int(value))
        for role in roles:
            for name, count in moved(hcas[role]).items():
                seen[f"{role} {name}"] = count
                seen[name] += count
        for counters in routes:
            seen.update(counters.moved())
        if engine:
            for name, count in engine.moved().items():
                seen[f"gpu {name}"] = count
        return dict(seen)


def data_counters(guest: Vm, role: str) -> Counters:
    """The payload that an HCA moves; see moved()."""
    return Counters(guest, role, tuple(f"data-{name.replace(' ', '-')}-bytes" for name in DATA))


def moved(counters: Counters) -> dict[str, int]:
    """How far such counters have moved, by "DIRECTION PLACE"."""
    return dict(zip(DATA, counters.moved().values()))


def provide(guest: Vm) -> None:
    """The HCA has its driver, and the provider's BAR is the memory of a simulated GPU."""
    rdma.load(guest)
    guest.run("modprobe test_hmm")
    provider = guest.pci_address("provider")
    driver = f"{p2pmap.DEVICES}/{provider}/driver"
    if guest.run(["test", "-e", driver], check=False).status:
        guest.write(f"{p2pmap.DEVICES}/{provider}/driver_override", "hmm_dmirror\n")
        guest.write("/sys/bus/pci/drivers_probe", provider)
    guest.write(ALIAS_SWITCH, "Y\n")


def traffic(client: Client, operation: str, size: int, private: bool, headers: int = 0) -> dict[str, int]:
    """The payload that an operation on `size` bytes has to move, by HCA, direction and place; `private`: by aliases. What is
    received is preceded by so many bytes of `headers`."""
    here = client.hcas[0 if operation in AT_REQUESTER else 1]
    there = client.hcas[1 if operation in AT_REQUESTER else 0]
    place = "peer" if private else "host"
    expected: Counter[str] = Counter({f"{role} {name}": 0 for role in client.hcas for name in DATA})
    if operation == ATOMIC:
        atomics = size // PAGE * _ATOMIC_BYTES
        expected[f"{here} read {place}"] += atomics
        expected[f"{here} write {place}"] += atomics
        expected[f"{there} write host"] += atomics
    else:
        direction, other = ("write", "read") if operation in INTO else ("read", "write")
        expected[f"{here} {direction} {place}"] += size
        expected[f"{there} {other} host"] += size + headers
    return dict(expected)


def uses_ats(t: Test, options: Sequence[str]) -> bool:
    """Whether regions that the client has with these options translate by ATS (mlx5_umem_needs_ats())."""
    return t.topology.iommu == "ats" and "-r" in options


def check_routes(t: Test, seen: Mapping[str, int], options: Sequence[str], what: str) -> None:
    """What an operation sent where, as the client's options say."""
    by_ats = uses_ats(t, options)
    # A raw bus address goes no further than the switch. What the IOMMU has translated is a physical address, which the model
    # has go to the root.
    routed = seen["read peer"] + seen["write peer"] if t.topology.fabric == "switch" and not by_ats else 0
    t.equal(seen["data-routed-bytes"], routed, f"payload of {what} that the switch turned around")
    requests = seen["ats-hits"] + seen["ats-misses"]
    if t.topology.iommu != "ats":
        t.equal(requests, 0, f"ATS requests of {what} without ATS")
    elif "-i" not in options:
        # The driver's own memory key, by which the HCA reads the lists of UMRs, always translates by ATS (mlx5_ib_get_dma_mr()).
        # Here a list is within a page, and that of the implicit key is not.
        t.equal(requests > seen["umrs"], by_ats, f"{what} looks up by ATS what is in no list: {requests} requests, {seen['umrs']} UMRs")


def check_operation(t: Test, client: Client, operation: str, pages: int = 8, options: Sequence[str] = (),
                    reachable: Optional[bool] = None) -> dict[str, int]:
    """One operation on private memory of so many pages: it is as the topology (or `reachable`) says where the data went, and
    where the pages are. Content is verified by the program. Returns what was seen."""
    if reachable is None:
        reachable = t.topology.mapping_type != "not-supported"
    there = pages if reachable else 0
    seen = client.run("transfer", "-n", str(pages), *options, operation)
    t.note(f"{operation} {' '.join(options)}: {seen}")
    t.equal(seen[f"{operation} private"], there, f"private pages after {operation}")
    t.equal(seen[f"{operation} alias_pages"], there, f"alias_pages of {operation}")
    t.equal(seen[f"{operation} alias_fallbacks"], 0, f"alias_fallbacks of {operation}")
    expected = traffic(client, operation, pages * PAGE, reachable, pages * _GRH_BYTES if "ud" in options else 0)
    t.equal({name: seen[name] for name in expected}, expected, f"payload of {operation}")
    check_routes(t, seen, options, operation)
    if client.gpu:
        # To VRAM before, and back once: by the CPU that verifies or by the HCA that cannot reach it.
        t.equal({name: seen[f"gpu {name}"] for name in GPU_COUNTERS},
                dict.fromkeys(GPU_COUNTERS, 0) | {"ce-bytes-h2d": pages * PAGE, "ce-bytes-d2h": pages * PAGE},
                f"the GPU in {operation}")
    return seen


def check_race(t: Test, client: Client, kind: str, rounds: int, *options: str) -> None:
    """So many invalidations of one kind, and as many transfers of which each byte is verified by the program."""
    seen = client.run("race", "-n", "64" if "-t" not in options else "512", *options, kind, str(rounds), timeout=t.remaining)
    t.note(f"{kind} {' '.join(options)}: {seen}")
    t.check(min(seen["race transfers"], seen["race disturbed"]) >= rounds, "both threads did what was asked")
    t.check(seen["race alias_pages"] > 0, "aliases were in use")
    check_routes(t, seen, options, "race")
    if uses_ats(t, options):
        # All aliases that the region had have gone in the end, from the HCA's cache, too.
        t.check(seen["ats-invalidations"] >= seen["race alias_pages"], f"the HCA's cache was invalidated: {seen}")
        t.check(seen["ats-hits"] > 0, "the HCA used its cache")
