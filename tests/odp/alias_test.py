# SPDX-License-Identifier: GPL-2.0
"""ODP regions reach device-private memory by its aliases: where the data went is read from the HCA's own counters."""
from rig import odp, rdma
from rig.gpu import PAGE
from rig.odp import ATOMIC, INTO, OUT_OF
from rig.perftest import ALIAS_SWITCH
from rig.testlib import Test, case

WIRINGS = ("switch", "host-bridge", "unreachable")
EVERYWHERE = [wiring + translated + ":hca" for wiring in WIRINGS for translated in ("", "+iommu", "+ats")]
DIFFERENT = ("switch:hca", "host-bridge+iommu:hca", "switch+ats:hca")
"""Between them: below a switch and through a host bridge, without an IOMMU, with one, and with ATS."""
FAIL_MAP = "/sys/kernel/debug/fail_hmm_p2p_map"


def prepare(t: Test) -> odp.Client:
    odp.provide(t.vm)
    return odp.Client(t.vm)


def ats_regions(t: Test) -> dict[str, int]:
    """How many memory keys that translate by ATS the driver has made, for explicit regions and for children of implicit ones."""
    pools = [dict(zip(words[::2], map(int, words[1::2])))
             for words in map(str.split, t.vm.run("frmr_pools").stdout.splitlines())]
    keys = {"explicit": 0, "children": 0}
    for pool in pools:
        if pool["ats"]:
            keys["children" if pool["blocks"] == odp.CHILD_BLOCKS else "explicit"] += pool["in_use"] + pool["queued"]
    return keys


@case(topology=EVERYWHERE, timeout=240, full=[name for name in EVERYWHERE if name not in DIFFERENT])
def matrix(t: Test) -> None:
    client = prepare(t)
    for operation in (*INTO, *OUT_OF, ATOMIC):
        odp.check_operation(t, client, operation)
    odp.check_operation(t, client, "write", 8, ["-s"])
    odp.check_operation(t, client, "write", 8, ["-R"])
    odp.check_operation(t, client, "write", 8, ["-i"])
    odp.check_operation(t, client, "read", 8, ["-i"])
    # One that had it, which was taken away again, is in the pool.
    t.equal(ats_regions(t), {"explicit": t.topology.iommu == "ats", "children": 0}, "memory keys that translate by ATS without relaxed ordering")
    # What perftest asks for: with ATS, such a region has nothing but the IOMMU's addresses.
    for options in (["-r"], ["-r", "-i"]):
        for operation in ("write", "read"):
            odp.check_operation(t, client, operation, 8, options)
    t.equal([keys > 0 for keys in ats_regions(t).values()], [t.topology.iommu == "ats"] * 2, "memory keys that translate by ATS exist")
    t.equal(t.vm.qom_get("importer", "dma-errors"), 0, "failed DMA")


@case(topology="switch:hca", timeout=120)
def huge_pages(t: Test) -> None:
    odp.check_operation(t, prepare(t), "write", 512, ["-t"])


@case(topology="switch:hca", timeout=120)
def software_device(t: Test) -> None:
    """rxe, which copies by the CPU, never gets an alias: what it accesses migrates."""
    odp.provide(t.vm)
    # What fits in a packet is a page then, and with requests of another size it has parts of two.
    device = rdma.make_rxe(t.vm, mtu=4500)
    try:
        client = odp.Client(t.vm, device=device)
        for operation in ("write", "read", "recv", "send"):
            seen = client.run("transfer", "-m", "5000", operation)
            t.note(f"{operation}: {seen}")
            t.equal(seen[f"{operation} private"], 0, f"private pages after {operation}")
            t.equal(seen.get(f"{operation} alias_pages", 0), 0, f"alias_pages of {operation}")
    finally:
        rdma.remove_rxe(t.vm)


@case(topology="switch:hca", timeout=120)
def switched_off(t: Test) -> None:
    """With ib_core.odp_alias=0 all device-private memory migrates, and on again it does not."""
    client = prepare(t)
    t.vm.write(ALIAS_SWITCH, "N\n")
    try:
        seen = client.run("transfer", "write")
    finally:
        t.vm.write(ALIAS_SWITCH, "Y\n")
    t.equal((seen["write private"], seen["write alias_pages"], seen["write peer"]), (0, 0, 0), "aliases when off")
    odp.check_operation(t, client, "write")


@case(topology="switch:hca", timeout=120)
def prefetched(t: Test) -> None:
    """Each advice maps aliases and leaves the pages where they are; the transfer then needs no fault for reading."""
    client = prepare(t)
    for advice in ("0", "1", "2"):
        seen = client.run("transfer", "-a", advice, "read")
        t.note(f"advice {advice}: {seen}")
        t.equal((seen["prefetch private"], seen["prefetch alias_pages"]), (8, 8), f"aliases by advice {advice}")
        t.equal((seen["read page_faults"], seen["read peer"]), (0, 8 * PAGE), f"the transfer after advice {advice}")


@case(topology="switch:hca", timeout=120)
def copy_on_write(t: Test) -> None:
    """A page that is shared with a child migrates when it is written, and is read by its alias."""
    client = prepare(t)
    seen = client.run("transfer", "-c", "write")
    t.equal((seen["write private"], seen["write peer"]), (0, 0), "writing shared pages")
    # A fault of a writable region asks for writing, whatever the device does. Advice 0 is about reading.
    seen = client.run("transfer", "-c", "-a", "0", "write-out")
    t.note(str(seen))
    t.equal((seen["prefetch private"], seen["write-out private"], seen["read peer"]), (8, 8, 8 * PAGE), "reading shared pages")


@case(topology="switch:hca", timeout=180, full=True)
def other_services(t: Test) -> None:
    """What the HCA says it can do with ODP by other means than RC: shared receive queues, XRC, and sending datagrams."""
    client = prepare(t)
    for service, operations in (("srq", ("recv", "send")), ("xrc", ("write", "read", "recv", "send", ATOMIC))):
        for operation in operations:
            odp.check_operation(t, client, operation, 8, ["-q", service])
    odp.check_operation(t, client, "send", 8, ["-q", "ud", "-m", str(PAGE)])


@case(topology=["switch:hca", "host-bridge:hca", "host-bridge+iommu:hca"], timeout=240,
      full=["host-bridge:hca", "host-bridge+iommu:hca"])
def mapping_fails(t: Test) -> None:
    """Where an alias cannot be mapped, this page alone goes to system memory, in the same fault."""
    client = prepare(t)
    for index in (0, 3, 7):
        settings = {"probability": "100", "times": "-1", "verbose": "0", "index": str(index), "index-filter": "Y"}
        for name, value in settings.items():
            t.vm.write(f"{FAIL_MAP}/{name}", value + "\n")
        try:
            for operation in ("write", "read", "send", "recv"):
                seen = client.run("transfer", operation)
                t.note(f"{operation} without page {index}: {seen}")
                t.equal(seen[f"{operation} private"], 7, "pages that stayed private")
                t.equal((seen[f"{operation} alias_pages"], seen[f"{operation} alias_fallbacks"]), (7, 1), "counters")
                direction = "write" if operation in INTO else "read"
                t.equal(seen[f"{direction} peer"], 7 * PAGE, "bytes that went by an alias")
        finally:
            t.vm.write(f"{FAIL_MAP}/probability", "0\n")
    for name in ("times", "probability"):
        t.vm.write(f"{FAIL_MAP}/{name}", "100\n" if name == "probability" else "-1\n")
    t.vm.write(f"{FAIL_MAP}/index-filter", "N\n")
    try:
        seen = client.run("transfer", "-n", "512", "-t", "write")
        t.note(f"all of a huge page: {seen}")
        t.equal((seen["write private"], seen["write alias_pages"], seen["write peer"]), (0, 0, 0), "every alias refused")
    finally:
        t.vm.write(f"{FAIL_MAP}/probability", "0\n")
    odp.check_operation(t, client, "write")


# How often each kind of invalidation is repeated in the quick set. A huge page has more to copy for each round.
ROUNDS = {"touch": 8, "dontneed": 30, "munmap": 30, "fork": 8, "split": 4}


def check_race(t: Test, client: odp.Client, kind: str, *options: str, factor: int = 1) -> None:
    odp.check_race(t, client, kind, ROUNDS[kind] * factor, *options)


@case(topology="switch:hca", timeout=300)
def invalidated(t: Test) -> None:
    """Data is right while pages move, vanish, are shared or split all the time."""
    client = prepare(t)
    for kind in ("touch", "dontneed", "fork"):
        check_race(t, client, kind)
    check_race(t, client, "split", "-t")


@case(topology="switch+ats:hca", timeout=120)
def invalidated_by_ats(t: Test) -> None:
    """The same where the HCA's cache has to be invalidated, too."""
    client = prepare(t)
    odp.check_race(t, client, "dontneed", 10, "-r")
    odp.check_race(t, client, "touch", 3, "-r", "-i")


@case(topology=["switch+iommu:hca", "switch+ats:hca", "host-bridge+ats:hca"], timeout=1800, full=True)
def invalidated_longer(t: Test) -> None:
    """With relaxed ordering as well where the region then translates by ATS."""
    client = prepare(t)
    for by in ((), ("-r",)) if t.topology.iommu == "ats" else ((),):
        for kind in ("touch", "dontneed", "munmap", "fork"):
            check_race(t, client, kind, *by, factor=4)
            check_race(t, client, kind, *by, "-i", factor=4)
        check_race(t, client, "split", "-t", *by, factor=4)
