# SPDX-License-Identifier: GPL-2.0
"""The KUnit tests of the series, each a module whose results the kernel shows in debugfs."""
from rig.testlib import Test, case

MODULES = {"hmm_kunit": "hmm_p2p"}
"""Module, and the suite that is in there."""


@case(topology="switch", timeout=60)
def kunit(t: Test) -> None:
    # Unless it is told to, KUnit neither has tests nor runs them.
    t.vm.run("modprobe kunit enable=1 autorun=1")
    for module, suite in MODULES.items():
        t.vm.run(["modprobe", module])
        t.guest_ktap(f"cat /sys/kernel/debug/kunit/{suite}/results", timeout=20)
        t.vm.run(["modprobe", "-r", module])
    t.check(len(t.results) >= len(MODULES), "there are results")
