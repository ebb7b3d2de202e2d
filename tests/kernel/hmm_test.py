# SPDX-License-Identifier: GPL-2.0
"""The kernel's own HMM tests (tools/testing/selftests/mm/hmm-tests.c) with its simulated devices (lib/test_hmm.c)."""
from rig.testlib import Test, case

PROGRAM = "/opt/hmm-p2p/selftests/mm/hmm-tests"


def run(t: Test, arguments: str) -> None:
    """Run the program, or those of its cases that `arguments` say, or that the case was limited to."""
    arguments = " ".join(f"-t {name}" for name in t.case.only) or arguments
    # What the program would otherwise skip: its huge page cases want some reserved. It opens the devices by these names.
    t.vm.run("echo 32 >/proc/sys/vm/nr_hugepages; modprobe test_hmm; ls /dev/hmm_dmirror0 /dev/hmm_dmirror1")
    parser = t.guest_ktap(f"{PROGRAM} {arguments}")
    private = [r for r in parser.results if "_device_private." in r.name]
    t.check(private, "hmm-tests has device-private cases")
    t.vm.run("modprobe -r test_hmm")


@case(topology="switch", timeout=600)
def selftest(t: Test) -> None:
    run(t, "-T benchmark_thp_migration -T migrate_multiple")


@case(topology="switch", timeout=200, full=True)
def many_times(t: Test) -> None:
    """What others do once, ten times."""
    run(t, "-t migrate_multiple")


@case(topology="plain", memory="4G", timeout=200, full=True)
def benchmark(t: Test) -> None:
    """It measures, and fails only for what the other cases find sooner. On the debug kernel it leaves out the largest size."""
    run(t, "-t benchmark_thp_migration")
