# SPDX-License-Identifier: GPL-2.0
"""Asks a guest's kernel for the P2P mapping type of two of its devices, by the module guest/modules/p2pmap."""
from .vm import Vm

DEVICES = "/sys/bus/pci/devices"


def bind(guest: Vm, *functions: str) -> None:
    """Make PCI functions of the guest (by address, 0000:03:00.0) devices of the module's driver."""
    guest.run("modprobe p2pmap")
    for function in functions:
        guest.write(f"{DEVICES}/{function}/driver_override", "p2pmap\n")
        guest.write("/sys/bus/pci/drivers_probe", function)


def ask(guest: Vm, provider: str, importer: str) -> tuple[str, int]:
    """The mapping type, as rig/topologies.toml names it, for memory of `provider` (which must be bound) and DMA of
    `importer`, and the DMA address that the importer would use (0: none)."""
    guest.write(f"{DEVICES}/{provider}/p2pmap/client", importer)
    mapping_type = guest.read(f"{DEVICES}/{provider}/p2pmap/type").decode().strip()
    return mapping_type, int(guest.read(f"{DEVICES}/{provider}/p2pmap/dma_address").decode(), 16)
