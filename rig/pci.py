# SPDX-License-Identifier: GPL-2.0
"""Binds PCI functions of a guest to drivers that have no table of devices."""
from .vm import Vm

DEVICES = "/sys/bus/pci/devices"


def bind(guest: Vm, driver: str, *functions: str) -> None:
    """Make PCI functions of the guest (by address, 0000:03:00.0) devices of `driver`, which must be loaded, whatever driver
    they have now. Raises CommandFailed where one is not afterwards."""
    for function in functions:
        release(guest, function)
        guest.write(f"{DEVICES}/{function}/driver_override", f"{driver}\n")
        guest.write("/sys/bus/pci/drivers_probe", function)
        guest.run(f'test "$(basename "$(readlink {DEVICES}/{function}/driver)")" = {driver}')


def release(guest: Vm, *functions: str) -> None:
    """Take PCI functions of the guest from their driver, if they have one, and leave them without."""
    for function in functions:
        if guest.run(["test", "-e", f"{DEVICES}/{function}/driver"], check=False).status == 0:
            guest.write(f"{DEVICES}/{function}/driver/unbind", function)
        guest.write(f"{DEVICES}/{function}/driver_override", "\n")
