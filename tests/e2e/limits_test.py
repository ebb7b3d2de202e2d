# SPDX-License-Identifier: GPL-2.0
"""More memory than BAR1 has windows for, or than can migrate in the time that HMM gives its callers."""
from rig import gpu, odp
from rig.e2e import CLIENT, SERVER, prepare, vram_case
from rig.gpu import HUGE, PAGE
from rig.testlib import Test

BUFFER = 1 << 30
# Each page of an ODP region is a mapping of its own. The kernel complains if it was told of fewer.
CMDLINE = f"{gpu.CMDLINE} dma_debug_entries=400000"


@vram_case(["switch"], "large-gpu+two-hcas", memory="4G", cmdline=CMDLINE, full=True, timeout=1800)
def larger_than_bar1(t: Test) -> None:
    """1 GiB with a BAR1 of 256 MiB: what has a window is reached there, and the rest, and only it, falls back."""
    prepare(t)
    client = odp.Client(t.vm, CLIENT, SERVER, "gpu")
    declined = gpu.dmem(t.vm)["aliases declined"]
    seen = client.run("transfer", "-n", str(BUFFER // PAGE), "-t", "write", timeout=t.remaining)
    t.note(str(seen))
    view = gpu.dmem(t.vm)
    fits = view["windows"] * HUGE
    t.check(0 < fits < BUFFER, "some of the buffer fits, and not all")
    t.equal((seen["write private"], seen["write alias_pages"]), 2 * (fits // PAGE,), "pages still private, aliases")
    t.equal((seen[f"{SERVER} write peer"], seen[f"{SERVER} write host"]), (fits, BUFFER - fits), "bytes to VRAM and host memory")
    t.equal((seen["gpu ce-bytes-h2d"], seen["gpu ce-bytes-d2h"]), (BUFFER, BUFFER), "bytes that were migrated, there and back")
    t.check(view["aliases declined"] > declined, "nouveau declined to give an alias")


@vram_case(["unreachable"])
def longer_than_the_timeout(t: Test) -> None:
    """16 MiB of small pages fall back, which takes this kernel longer than HMM_RANGE_DEFAULT_TIMEOUT, a second.

    Where a machine does it in less, the case tells nothing about the timeout, and the mutation says so by surviving.
    """
    prepare(t)
    client = odp.Client(t.vm, CLIENT, SERVER, "gpu")
    for prefetched in ((), ("-a", "1")):
        odp.check_operation(t, client, "write", (16 << 20) // PAGE, prefetched)
