# SPDX-License-Identifier: GPL-2.0
"""The kernel's own HMM tests (tools/testing/selftests/mm/hmm-tests.c) with its simulated devices (lib/test_hmm.c)."""
import re
from typing import Sequence

from rig.testlib import Test, case

PROGRAM = "/opt/hmm-p2p/selftests/mm/hmm-tests"


def private(listed: str, only: Sequence[str] = (), without: Sequence[str] = ()) -> set[str]:
    """The names of the device-private cases in what the program prints for -l: of the tests `only`, if there are any, and of none
    of `without`.

    Each fixture is a block of columns (fixture, variant, test), of which the last two are lists of their own.
    """
    found = set()
    for block in re.split(r"^(?:#|-----).*\n", listed, flags=re.M):
        rows = [(row[:20].strip(), row[21:46].strip(), row[47:].strip()) for row in block.splitlines()]
        for variant in (row[1] for row in rows if row[1].endswith("_device_private")):
            found |= {f"{rows[0][0]}.{variant}.{row[2]}" for row in rows if row[2]}
    return {name for name in found if (not only or name.split(".")[-1] in only) and name.split(".")[-1] not in without}


def run(t: Test, only: Sequence[str] = (), without: Sequence[str] = ()) -> None:
    """Run the program, or those of its tests that are said, or that the case was limited to."""
    only = t.case.only or only
    listed = private(t.vm.run([PROGRAM, "-l"], check=False).stderr, only, () if only else without)
    t.check(listed, "hmm-tests has device-private cases")
    arguments = [word for name in only for word in ("-t", name)] or [word for name in without for word in ("-T", name)]
    # What the program would otherwise skip: its huge page cases want some reserved. It opens the devices by these names.
    t.vm.run("echo 32 >/proc/sys/vm/nr_hugepages; modprobe test_hmm; ls /dev/hmm_dmirror0 /dev/hmm_dmirror1")
    parser = t.guest_ktap([PROGRAM, *arguments])
    t.equal(sorted(listed - {r.name for r in parser.results}), [], "device-private cases that did not run")
    t.vm.run("modprobe -r test_hmm")


@case(topology="switch", timeout=600)
def selftest(t: Test) -> None:
    run(t, without=("benchmark_thp_migration", "migrate_multiple"))


@case(topology="switch", timeout=200, full=True)
def many_times(t: Test) -> None:
    """What others do once, ten times."""
    run(t, only=("migrate_multiple",))


@case(topology="plain", memory="4G", timeout=200, full=True)
def benchmark(t: Test) -> None:
    """It measures, and fails only for what the other cases find sooner. On the debug kernel it leaves out the largest size."""
    run(t, only=("benchmark_thp_migration",))
