# SPDX-License-Identifier: GPL-2.0
"""The series' tests of P2PDMA aliases (tools/testing/selftests/hmm), and what the devices say about them from outside."""
from collections.abc import Iterator
from contextlib import contextmanager

from rig import kmemleak, pci
from rig.testlib import Test, case
from rig.vm import Vm

PROGRAM = "/opt/hmm-p2p/selftests/hmm/hmm_p2p"
WIRINGS = ("switch", "host-bridge", "unreachable")
EVERYWHERE = [wiring + translated for wiring in WIRINGS for translated in ("", "+iommu")]
DRIVERS = {"provider": "hmm_dmirror", "importer": "hmm_importer"}
"""By role without its number."""

PAGE = 4096
PAYLOAD = 2 * PAGE
"""What the selftest's case read_write has the importer read, and then write."""


@contextmanager
def devices(vm: Vm, *roles: str, dma_bits: int = 64) -> Iterator[None]:
    """The test drivers on the devices `roles`, or all those of the guest's topology; none of it is left afterwards, as others
    use the guest, too. `dma_bits` is how wide the DMA addresses of the importer are."""
    functions = [(vm.pci_address(role), DRIVERS[role.rstrip("0123456789")]) for role in roles or vm.topology.roles]
    vm.run(f"modprobe test_hmm && modprobe test_hmm_importer dma_bits={dma_bits}")
    for function, driver in functions:
        pci.bind(vm, driver, function)
    try:
        yield
    finally:
        if not vm.failure:
            pci.release(vm, *(function for function, _ in functions))
            vm.run("modprobe -r test_hmm_importer test_hmm")


def reaches(t: Test) -> bool:
    """Whether the importer can reach the provider: rig/topologies.toml says so, and not the code that is tested."""
    return t.topology.mapping_type != "not-supported"


def expect(reachable: bool) -> dict[str, str]:
    """What tells the program whether there have to be aliases."""
    return {"HMM_P2P_EXPECT": "alias" if reachable else "migrate"}


def selftest(t: Test, arguments: str = "") -> None:
    """Run the program, or those of its cases that `arguments` say, or that the case was limited to."""
    arguments = " ".join(f"-t {name}" for name in t.case.only) or arguments
    with devices(t.vm):
        t.guest_ktap(f"{PROGRAM} {arguments}", timeout=max(t.remaining - 20, 20), env=expect(reaches(t)))


def moved(t: Test, role: str) -> dict[str, int]:
    """What a p2pdev has moved by DMA so far, by where it went."""
    return {f"{way} {what}": t.vm.qom_get(role, f"dma-{way}-{what}-bytes")
            for way in ("read", "write") for what in ("host", "peer", "own", "other", "failed")}


LONG = ("memory_full", "alternating")
"""Thousands of small pages, which move in the same way everywhere."""


@case(topology=EVERYWHERE, timeout=180, full=["host-bridge", "unreachable+iommu"])
def aliases(t: Test) -> None:
    selftest(t, "" if t.topology.name == "switch" else " ".join(f"-T {name}" for name in LONG))


@case(topology=[name for name in EVERYWHERE if name != "switch"], timeout=180, full=True)
def aliases_of_many(t: Test) -> None:
    selftest(t, " ".join(f"-t {name}" for name in LONG))


@case(topology="switch", timeout=180, smp=1, cmdline="numa=fake=2 numa_balancing=enable")
def numa_balancing(t: Test) -> None:
    selftest(t, "-t numa_balancing")


@case(topology=["switch", "host-bridge+iommu"], timeout=600, full=True, cmdline="kmemleak=on")
def leaks(t: Test) -> None:
    """Twice: what is only kept for next time is not lost."""
    for _ in range(2):
        selftest(t, " ".join(f"-T {name}" for name in LONG))
    t.equal(kmemleak.found(t.vm), "", "what kmemleak found")


@case(topology=[w + "+ats" for w in WIRINGS], timeout=180, full=True)
def aliases_with_ats(t: Test) -> None:
    selftest(t)


@case(topology=EVERYWHERE, timeout=60)
def every_byte_goes_where_it_should(t: Test) -> None:
    before, bystander = moved(t, "importer"), moved(t, "provider")
    routed = t.vm.qom_get("importer", "dma-routed-bytes")
    selftest(t, "-t read_write")
    seen = {name: count - before[name] for name, count in moved(t, "importer").items() if count != before[name]}

    # What the importer reads goes on to a buffer in host memory, and comes from there when it writes.
    buffer = {"write host": PAYLOAD, "read host": PAYLOAD}
    if not reaches(t):
        t.equal(seen, {name: 2 * count for name, count in buffer.items()}, "bytes that the importer moved")
    else:
        t.equal(seen, {**buffer, "read peer": PAYLOAD, "write peer": PAYLOAD}, "bytes that the importer moved")
    t.equal(moved(t, "provider"), bystander, "bytes that the provider moved")
    t.equal(t.vm.qom_get("importer", "dma-routed-bytes") - routed,
            2 * PAYLOAD if t.topology.mapping_type == "bus-addr" else 0, "bytes that turned around in the switch")


TWO_OF_EACH = "-t two_providers -t two_importers -t read_write"


@case(topology="host-bridge+iommu:pairs", timeout=180, full=True)
def two_of_each_elsewhere(t: Test) -> None:
    selftest(t, TWO_OF_EACH)


# Of no topology: just one test has two providers with different mapping types. The other one does not mind.
APART = ("pcie-root-port,id=port9,bus=pcie.0,addr=0x14,chassis=19,slot=19", "p2pdev,id=provider3,bus=port9,size=64M")


@case(topology="switch:pairs", timeout=180, devices=APART)
def two_of_each(t: Test) -> None:
    selftest(t, TWO_OF_EACH)


@case(topology="switch:pairs", timeout=180, devices=APART)
def one_out_of_reach(t: Test) -> None:
    """Of two providers in one walk, the importer reaches one and not the other."""
    with devices(t.vm, "provider", "provider3", "importer"):
        t.guest_ktap(f"{PROGRAM} -t two_providers", env=expect(reaches(t)))
    said = (t.directory / "output.ktap").read_text(encoding="utf-8")
    t.check("aliases are reachable" in said and "aliases of the second are not reachable" in said,
            "one provider is reachable, and one is not")


@case(topology=["switch", "host-bridge"], timeout=180)
def narrow_dma_mask(t: Test) -> None:
    """A BAR beyond what the importer can address is out of its reach, and nobody tries to map it."""
    # All of the guest's 2 GiB of memory are below its BARs.
    before = moved(t, "importer")
    with devices(t.vm, dma_bits=31):
        names = ("read_write", "huge", "partly_aliased", "window_full", "alternating", "huge_in_parts")
        t.guest_ktap(f"{PROGRAM} " + " ".join(f"-t {name}" for name in names), env=expect(False))
    after = moved(t, "importer")
    t.equal((after["read peer"] - before["read peer"], after["write peer"] - before["write peer"]), (0, 0),
            "bytes that the importer moved from and to the provider")


# edu moves 4 KiB at a time, and takes 100 ms for it.
@case(topology="switch:stock", timeout=180)
def stock_devices(t: Test) -> None:
    selftest(t, " ".join(f"-t {name}" for name in ("system_memory", "read_write", "snapshot", "partly_aliased", "huge", "map_failure",
                                                   "unbind_provider", "unbind_importer")))


@case(topology=["switch:stock", "switch+iommu:stock", "host-bridge:stock", "host-bridge+iommu:stock", "unreachable:stock"],
      timeout=180, full=True)
def stock_devices_elsewhere(t: Test) -> None:
    selftest(t)


@case(topology=["switch", "host-bridge+iommu"], timeout=240, full=True)
def long_stress(t: Test) -> None:
    with devices(t.vm):
        t.guest_ktap(f"{PROGRAM} -t stress", timeout=200, env={**expect(reaches(t)), "HMM_P2P_STRESS_SECONDS": "90"})
