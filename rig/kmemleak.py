# SPDX-License-Identifier: GPL-2.0
"""Memory of the guest's kernel that nothing refers to any more, in guests that are booted with kmemleak=on."""
from rig.vm import Vm

_FILE = "/sys/kernel/debug/kmemleak"


def found(vm: Vm) -> str:
    """What kmemleak reports now: empty if there is no leak. Takes two scans, as it reports only what is older than 5 s."""
    vm.run(f"echo scan >{_FILE}; sleep 6; echo scan >{_FILE}", timeout=300)
    return vm.read(_FILE).decode()
