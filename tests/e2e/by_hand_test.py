# SPDX-License-Identifier: GPL-2.0
"""What docs/by-hand.md has people type in the guest does what it says."""
import re
import textwrap

from rig import paths
from rig.e2e import prepare, vram_case
from rig.perftest import ALIAS_SWITCH
from rig.testlib import Test

PAGE = paths.REPO / "docs" / "by-hand.md"
AGAIN = 3
"""How many of the commands are typed again when P2P is off, counted from the last."""


def typed() -> tuple[list[str], str]:
    """The commands of the section about the demo: those that measure, and the one that switches P2P off."""
    section = PAGE.read_text(encoding="utf-8").partition("\n## The demo\n")[2].partition("\n## ")[0]
    blocks = [textwrap.dedent(block).strip() for block in re.findall(r"\n\n((?:    .+\n)+)", section)]
    return blocks[1].splitlines(), blocks[2]


def resident(t: Test, commands: list[str]) -> list[tuple[int, int]]:
    """What the preload library says at the end of client and server: the pages in VRAM, and all pages."""
    done = t.vm.run("\n".join([*commands, "wait", "unset LD_PRELOAD", "cat server.log"]), cwd="/tmp", timeout=t.remaining)
    t.note(done.stdout + done.stderr)
    found = re.findall(r"odp_vram: DEREG: \S+ (\d+) of (\d+) pages in VRAM", done.stderr + done.stdout)
    t.equal(len(found), 2, "reports of the preload library")
    return [(int(there), int(pages)) for there, pages in found]


@vram_case(["switch"])
def demo(t: Test) -> None:
    prepare(t)
    commands, switch_off = typed()
    t.check(commands[0].startswith("modprobe ") and switch_off.endswith(ALIAS_SWITCH), "the page has the commands that this is about")
    setting = next(line for line in commands if line.startswith("export "))
    for there, pages in resident(t, commands):
        t.equal((there, there > 0), (pages, True), "pages that the HCA left in VRAM")
    try:
        for there, pages in resident(t, [switch_off, setting, *commands[-AGAIN:]]):
            t.check(there < pages, f"with P2P off some of {pages} pages leave VRAM: {there} are there")
    finally:
        t.vm.write(ALIAS_SWITCH, "Y\n")
