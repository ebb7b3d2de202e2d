# SPDX-License-Identifier: GPL-2.0
"""qemu/patches go exactly where they belong, or nothing of QEMU is changed."""
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from rig import fetch, paths, products, qemu
from rig.ui import RigError

ORIGINAL = "one\ntwo\nthree\nfour\n"
PATCH = "--- a/meson.build\n+++ b/meson.build\n@@ -2 +2,2 @@\n two\n+ours\n"


class Wiring(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.top = Path(scratch.name)
        self.source, self.patches = self.top / "source", self.top / "patches"
        self.source.mkdir()
        self.patches.mkdir()
        for target, name, value in ((qemu, "SOURCE", self.source), (qemu, "PATCHES", self.patches),
                                    (qemu, "_LOG", self.top / "log"), (paths, "REPO", self.top)):
            patcher = mock.patch.object(target, name, value)
            patcher.start()
            self.addCleanup(patcher.stop)
        (self.top / "source-pinned").write_text(products.digest(repr(sorted(fetch.QEMU.pin.items()))))
        (self.source / "meson.build").write_text(ORIGINAL)

    def wired(self, patch: str) -> str:
        (self.patches / "0001-wire.patch").write_text(patch)
        qemu._prepare_source()
        return (self.source / "meson.build").read_text()

    def test_a_changed_patch_replaces_its_old_self(self) -> None:
        self.assertEqual(self.wired(PATCH), "one\ntwo\nours\nthree\nfour\n")
        self.assertEqual(self.wired(PATCH.replace("ours", "mine")), "one\ntwo\nmine\nthree\nfour\n")

    def test_a_patch_that_does_not_fit_changes_nothing(self) -> None:
        self.wired(PATCH)
        with self.assertRaisesRegex(RigError, "patches/0001-wire.patch does not apply to QEMU"):
            self.wired(PATCH.replace(" two", " deux"))
        self.assertEqual((self.source / "meson.build").read_text(), ORIGINAL)


if __name__ == "__main__":
    unittest.main()
