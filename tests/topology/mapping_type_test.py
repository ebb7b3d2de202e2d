# SPDX-License-Identifier: GPL-2.0
"""The kernel computes, in every topology, the P2P mapping type that rig/topologies.toml says."""
from rig import p2pmap
from rig.p2pmap import DEVICES
from rig.testlib import Test, case

WIRINGS = ("switch", "host-bridge", "unreachable")


def provider_bar(t: Test, address: str) -> range:
    """BAR 2 of the provider as the guest's resource file has it."""
    start, end, _ = t.vm.read(f"{DEVICES}/{address}/resource").decode().splitlines()[2].split()
    return range(int(start, 16), int(end, 16) + 1)


def check_mapping(t: Test) -> None:
    provider, importer = t.vm.pci_address("provider"), t.vm.pci_address("importer")
    p2pmap.bind(t.vm, provider, importer)
    seen, address = p2pmap.ask(t.vm, provider, importer)
    t.equal(seen, t.topology.mapping_type, f"mapping type from {provider} to {importer} in {t.topology.name}")

    # The address must be of the kind that the type promises.
    bar = provider_bar(t, provider)
    where = f"{address:#x}, provider's BAR {bar.start:#x}-{bar.stop - 1:#x}"
    translated = t.topology.iommu != "none"
    t.equal(t.vm.run(["test", "-e", f"{DEVICES}/{importer}/iommu"], check=False).status == 0, translated,
            "the importer is behind an IOMMU")
    if seen == "not-supported":
        t.equal(address, 0, "DMA address of an unsupported pair")
    elif seen == "bus-addr" or not translated:
        t.check(address in bar, f"an untranslated DMA address lies in the provider's BAR: {where}")
    else:
        t.check(address and address not in bar, f"the IOMMU's address is not the provider's own: {where}")


@case(topology=[w + v for w in WIRINGS for v in ("", "+iommu")], timeout=120)
def computed(t: Test) -> None:
    check_mapping(t)


@case(topology=[w + "+ats" for w in WIRINGS], timeout=120, full=True)
def computed_with_ats(t: Test) -> None:
    check_mapping(t)
