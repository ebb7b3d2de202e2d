# SPDX-License-Identifier: GPL-2.0
"""What the cases of tests/e2e have in common: guests with a GPU and two HCAs."""
from typing import Callable, Iterable

from . import gpu, p2pmap, perftest, rdma
from .testlib import Test, case

SERVER, CLIENT = "importer", "remote"
FABRICS = ("switch", "host-bridge", "unreachable")
EVERYWHERE = tuple(fabric + iommu for fabric in FABRICS for iommu in ("", "+iommu", "+ats"))


def vram_case(topologies: Iterable[str], devices: str = "gpu+two-hcas", **options: object) -> Callable:
    """A case with the set `devices`, for each of several wirings."""
    return case(**{"topology": [f"{name}:{devices}" for name in topologies], "timeout": 300,  # type: ignore[arg-type]
                   "cmdline": gpu.CMDLINE, **options})


def prepare(t: Test) -> str:
    """The HCAs and the GPU have their drivers; returns the GPU's render node. The kernel connects them as it should."""
    rdma.load(t.vm)
    if t.vm.run("test -e /sys/module/nouveau", check=False).status:
        t.equal(p2pmap.types_of_bar(t.vm, "gpu", 1, (SERVER, CLIENT)),
                dict.fromkeys((SERVER, CLIENT), t.topology.mapping_type), "mapping types of the GPU's BAR for the HCAs")
    t.vm.write(perftest.ALIAS_SWITCH, "Y\n")
    return gpu.bind(t.vm)
