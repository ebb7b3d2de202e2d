# SPDX-License-Identifier: GPL-2.0
"""Each kind of RDMA operation on VRAM, in each way to map it: byte-exact, and as the HCAs and the GPU counted."""
import itertools
from typing import Iterable, NamedTuple

from rig import odp
from rig.e2e import CLIENT, EVERYWHERE, SERVER, prepare, vram_case
from rig.testlib import Failed, Test
from rig.vm import CommandFailed


class Cell(NamedTuple):
    operation: str
    huge: bool
    implicit: bool
    prefetch: bool
    relaxed: bool = False

    def __str__(self) -> str:
        return " ".join([self.operation, "huge" if self.huge else "small", "implicit" if self.implicit else "explicit",
                         "prefetched" if self.prefetch else "faulted", *(["relaxed"] if self.relaxed else [])])


OPERATIONS = (*odp.INTO, *odp.OUT_OF, odp.ATOMIC)
CELLS = [Cell(*values) for values in itertools.product(OPERATIONS, *3 * [(False, True)])]
# Each value of each property, and each pair of the last three.
QUICK = (Cell("write", False, False, False), Cell("read", True, True, False), Cell("send", False, True, True),
         Cell("recv", True, False, True), Cell("atomic", False, False, True), Cell("atomic", True, True, False),
         Cell("read-in", True, True, True), Cell("write-out", False, True, False))


def check(t: Test, cells: Iterable[Cell]) -> None:
    prepare(t)
    client = odp.Client(t.vm, CLIENT, SERVER, "gpu")
    for cell in cells:
        try:
            check_cell(t, client, cell)
        except Failed as failed:
            t.result(str(cell), False, str(failed))
        except CommandFailed as failed:
            t.result(str(cell), False, str(failed), failed.completed.stderr.splitlines())
        else:
            t.result(str(cell), True)
    for role in client.hcas:
        t.equal(t.vm.qom_get(role, "dma-errors"), 0, f"failed DMA of {role}")


def check_cell(t: Test, client: odp.Client, cell: Cell) -> None:
    options = [*(["-t"] if cell.huge else []), *(["-i"] if cell.implicit else []), *(["-a", "1"] if cell.prefetch else []),
               *(["-r"] if cell.relaxed else [])]
    seen = odp.check_operation(t, client, cell.operation, 512 if cell.huge else 8, options)
    # Only what nobody has fetched before is fetched by faults.
    t.equal(seen[f"{cell.operation} page_faults"] > 0, not cell.prefetch, "page faults were necessary")


@vram_case(["switch"])
def some(t: Test) -> None:
    check(t, QUICK)


@vram_case(EVERYWHERE, full=True, timeout=1800)
def all_of_it(t: Test) -> None:
    """With ATS also regions of relaxed ordering, which are those that translate by it."""
    check(t, CELLS)
    if t.topology.iommu == "ats":
        check(t, (cell._replace(relaxed=True) for cell in CELLS))
