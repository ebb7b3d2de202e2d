# SPDX-License-Identifier: GPL-2.0
"""Unmodified perftest between two HCAs with both buffers in a GPU's memory: where the bytes went, told by the devices."""
import io
import re
from contextlib import redirect_stdout

import rig.demo
from rig import perftest
from rig.e2e import CLIENT, SERVER, prepare, vram_case
from rig.perftest import Run
from rig.testlib import Test
from rig.ui import RigError

THP = "/sys/kernel/mm/transparent_hugepage/enabled"


def run(t: Test, node: str, tool: str, size: int, iterations: int, *options: str) -> Run:
    done = perftest.run(t.vm, tool, size, iterations, SERVER, CLIENT, *options, node=node)
    t.note(f"{' '.join(done.command)}: GPU before the traffic {dict(done.migration)}, in the traffic {dict(done.copies)}")
    for end in done.ends:
        t.note(f"  {end.role}: {dict(end.moved)}, {dict(end.region)}, {end.resident} of {end.pages} pages")
    return done


def check(t: Test, done: Run) -> None:
    """The bytes went as the topology demands."""
    what = " ".join(done.command)
    if t.topology.mapping_type == "not-supported":
        t.equal(done.against_host(), [], what)
        return
    t.equal(done.against_p2p(), [], what)
    # From the outside, too, the two mapping types differ: only a switch delivers without the root complex.
    if t.topology.iommu != "ats":
        for end in done.ends:
            t.equal(end.moved["data-routed-bytes"], sum(done.expected(end)) if t.topology.mapping_type == "bus-addr" else 0,
                    f"{what}: bytes of {end.role} that did not get to the root complex")


@vram_case(["switch"])
def in_place(t: Test) -> None:
    """All payload goes between the HCAs and VRAM, where it stays."""
    node = prepare(t)
    for tool, size in (("ib_write_bw", 65536), ("ib_read_lat", 4096), ("ib_send_lat", 4096)):
        check(t, run(t, node, tool, size, 20))


@vram_case(["switch"])
def demo(t: Test) -> None:
    """What `make demo` shows once there are drivers, and what it says of it."""
    node, shown = prepare(t), io.StringIO()
    try:
        with redirect_stdout(shown):
            wrong = rig.demo.traffic(t.vm, node, {SERVER: "bus-addr", CLIENT: "bus-addr"})
    finally:
        t.vm.write(perftest.ALIAS_SWITCH, "Y\n")
    t.note(shown.getvalue())
    t.equal(wrong, [], "what is not as it should be")
    size, count = rig.demo.BANDWIDTH[1:]
    rows = [re.split(r"  +", line.strip()) for line in shown.getvalue().splitlines()]
    for place, columns in (("VRAM", [[str(size * count)] * 2, ["0"] * 2]), ("host memory", [["0"] * 2, [str(size * count)] * 2])):
        t.equal([row[1:] for row in rows if row[0].endswith(f"moved from or to {place}")], columns, f"what it says of {place}")


@vram_case(["switch"], full=True)
def switched_off(t: Test) -> None:
    """With ib_core.odp_alias=0 the same payload goes to host memory, and VRAM keeps what it had."""
    node = prepare(t)
    t.vm.write(perftest.ALIAS_SWITCH, "N\n")
    try:
        t.equal(run(t, node, "ib_write_bw", 65536, 20).against_host(), [], "ib_write_bw")
    finally:
        t.vm.write(perftest.ALIAS_SWITCH, "Y\n")


@vram_case(["switch"])
def refused(t: Test) -> None:
    """What is not in VRAM is not measured: the preload library says why, and the connection fails."""
    node = prepare(t)
    t.vm.run("echo 8 >/proc/sys/vm/nr_hugepages")
    for chosen, options, words in (("/dev/null", (), "/dev/null is not a device of nouveau"),
                                   ("/dev/dri/none", (), "cannot open /dev/dri/none: No such file"),
                                   (node, ("--use_hugepages",), "the rest is no private anonymous memory")):
        try:
            run(t, chosen, "ib_write_bw", 65536, 20, *options)
        except RigError as error:
            t.result(words, words in str(error) and "Failed to modify QP" in str(error), "it failed otherwise",
                     str(error).splitlines())
        else:
            t.result(words, False, "perftest did not fail")


@vram_case(["host-bridge", "unreachable", *(w + v for w in ("switch", "host-bridge", "unreachable") for v in ("+iommu", "+ats"))],
           full=True, timeout=600)
def everywhere(t: Test) -> None:
    """Every tool of perftest that leaves the buffer alone, in every topology."""
    node = prepare(t)
    for tool in perftest.TOOLS:
        for size in (4096, 1 << 20) if tool.endswith("_bw") else (4096,):
            check(t, run(t, node, tool, size, 20))


@vram_case(["switch", "host-bridge+iommu"], full=True, timeout=600)
def huge_pages(t: Test) -> None:
    """The same with buffers of huge pages."""
    node = prepare(t)
    t.vm.write(THP, "always\n")
    try:
        for tool in ("ib_write_bw", "ib_read_bw"):
            check(t, run(t, node, tool, 8 << 20, 10))
    finally:
        t.vm.write(THP, "madvise\n")
