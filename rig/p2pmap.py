# SPDX-License-Identifier: GPL-2.0
"""Asks a guest's kernel for the P2P mapping type of two of its devices, by the module guest/modules/p2pmap."""
from typing import Sequence

from . import pci
from .pci import DEVICES
from .vm import Vm


def bind(guest: Vm, *functions: str) -> None:
    """Make PCI functions of the guest (by address, 0000:03:00.0) devices of the module's driver."""
    guest.run("modprobe p2pmap")
    pci.bind(guest, "p2pmap", *functions)


def ask(guest: Vm, provider: str, importer: str) -> tuple[str, int]:
    """The mapping type, as rig/topologies.toml names it, for memory of `provider` (which must be bound) and DMA of
    `importer`, and the DMA address that the importer would use (0: none)."""
    guest.write(f"{DEVICES}/{provider}/p2pmap/client", importer)
    mapping_type = guest.read(f"{DEVICES}/{provider}/p2pmap/type").decode().strip()
    return mapping_type, int(guest.read(f"{DEVICES}/{provider}/p2pmap/dma_address").decode(), 16)


def types_of_bar(guest: Vm, provider: str, bar: int, importers: Sequence[str]) -> dict[str, str]:
    """The mapping types for memory in a BAR of a device and DMA of others, by their roles. The provider must have no driver,
    and has none afterwards; the importers must have theirs. Nobody may use the module meanwhile."""
    guest.run(["modprobe", "p2pmap", f"bar={bar}"])
    address = guest.pci_address(provider)
    pci.bind(guest, "p2pmap", address)
    types = {role: ask(guest, address, guest.pci_address(role))[0] for role in importers}
    pci.release(guest, address)
    guest.run(["rmmod", "p2pmap"])
    return types
