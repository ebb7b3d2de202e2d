# SPDX-License-Identifier: GPL-2.0
"""docs/by-hand.md shows the command line that `rig command` prints."""
import os
import textwrap
import unittest
from pathlib import Path
from unittest import mock

from rig import guest, kernel, machine, paths, qemu, session, topology
from rig.machine import Artefacts, Options

PAGE = paths.REPO / "docs" / "by-hand.md"


def place(path: Path) -> Path:
    """Where a product is in a checkout that keeps its build directory in itself."""
    return Path("build") / path.relative_to(paths.BUILD)


class Page(unittest.TestCase):
    def test_command_line(self) -> None:
        disks = {"packages": guest.OUT / "packages.squashfs", "own": guest.OUT / "own.squashfs", "layer": kernel.layer("release")}
        files = Artefacts(qemu=place(qemu.binary()), kernel=place(kernel.image("release")), initrd=place(guest.OUT / "initramfs.cpio"),
                          disks=tuple((name, place(path)) for name, path in disks.items()))
        with mock.patch.dict(os.environ, {"RIG_ACCEL": "tcg"}):
            command = machine.by_hand(topology.get("switch:gpu+two-hcas"), files, Options(cmdline=session.SHELL, share=Path(".")))
        shown = "\n\n" + textwrap.indent(command, "    ") + "\n\n"
        self.assertTrue(shown in PAGE.read_text(encoding="utf-8"), f"it has not this:{shown}")


if __name__ == "__main__":
    unittest.main()
