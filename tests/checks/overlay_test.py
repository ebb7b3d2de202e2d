# SPDX-License-Identifier: GPL-2.0
"""QEMU's own lists name every file of the overlay: MAINTAINERS, and the manual's table of contents."""
import fnmatch
import re
import unittest
from pathlib import Path

from rig import qemu


def added(line: str) -> list[str]:
    """What group 1 of the pattern `line` is in the lines that the wiring patches add."""
    return [name for patch in sorted(qemu.PATCHES.glob("*.patch"))
            for name in re.findall(rf"^\+{line}$", patch.read_text(encoding="utf-8"), re.M)]


def files() -> list[str]:
    """The files that are linked into QEMU's tree, by their names there."""
    return sorted(file.relative_to(qemu.OVERLAY).as_posix() for root in ("hw", "include", "docs", "tests")
                  for file in (qemu.OVERLAY / root).rglob("*") if file.is_file())


def covers(pattern: str, name: str) -> bool:
    """Whether an F: line names the file: "dir/" is all below it, and * and ? match no slash."""
    if pattern.endswith("/"):
        return name.startswith(pattern)
    return pattern.count("/") == name.count("/") and fnmatch.fnmatchcase(name, pattern)


class Lists(unittest.TestCase):
    def test_every_file_is_in_MAINTAINERS(self) -> None:
        patterns = added(r"F: (\S+)")
        for name in files():
            with self.subTest(file=name):
                self.assertTrue(any(covers(pattern, name) for pattern in patterns), "no F: line names it")
        for pattern in patterns:
            with self.subTest(pattern=pattern):
                self.assertTrue(any(covers(pattern, name) for name in files()), "it names no file of ours")

    def test_every_document_is_in_the_manual(self) -> None:
        documents = [Path(name).name for name in files() if name.startswith("docs/system/devices/")]
        self.assertEqual(sorted(added(r"   devices/(\S+)")), documents)


if __name__ == "__main__":
    unittest.main()
