# SPDX-License-Identifier: GPL-2.0
"""The preload library odp_vram.so knows of all memory for on-demand paging, however it was registered, and of no other."""
import re

from rig import odp, perftest
from rig.e2e import SERVER, prepare, vram_case
from rig.gpu import PAGE
from rig.testlib import Test

SIZE = 16 * PAGE
REGISTERS = ("ibv_reg_mr", "ibv_reg_mr_iova", "ibv_reg_mr_iova2", "rereg-moved", "rereg-on")


def run(t: Test, node: str, function: str) -> tuple[str, dict[str, int]]:
    """guest/src/registrations.c with the library. Returns what both say, and where the HCA found the payload."""
    counters = odp.data_counters(t.vm, SERVER)
    done = t.vm.run(["registrations", function],
                    env={"LD_PRELOAD": perftest.LIBRARY, "ODP_VRAM_NODE": node, "ODP_VRAM_VERBOSE": "1"})
    said = done.stdout + done.stderr
    t.note(f"{function}: {said}")
    return said, odp.moved(counters)


@vram_case(["switch"])
def registrations(t: Test) -> None:
    node = prepare(t)
    # All of it is written and read once; what is at the other end is in host memory.
    in_vram = {f"{direction} {place}": SIZE for direction in ("read", "write") for place in ("peer", "host")}
    for function in REGISTERS:
        said, payload = run(t, node, function)
        region = re.findall(r"^region (\S+)-(\S+)$", said, re.M)
        pages = re.findall(r"^odp_vram: (\w+): 0x(\S+)-0x(\S+): (\d+) of (\d+) pages in VRAM$", said, re.M)
        t.equal([each[1:] for each in pages], [(*region[0], "16", "16")] * len(pages), f"{function}: what the library moves")
        # It looks before each of the two queue pairs goes to RTR and to RTS, and at the end.
        t.equal([each[0] for each in pages], ["RTR", "RTS"] * 2 + ["DEREG"], f"{function}: when it does")
        t.equal(payload, in_vram, f"{function}: payload")
    said, payload = run(t, node, "rereg-off")
    # The queue pairs are connected twice, the first time before there is a region.
    t.equal((said.count("no memory region has IBV_ACCESS_ON_DEMAND"), said.count("of 16 pages")), (8, 0), "it moves nothing that is pinned")
    t.equal((payload["write peer"], payload["write host"]), (0, 2 * SIZE), "rereg-off: payload that was written")
