# SPDX-License-Identifier: GPL-2.0
"""qemu/patches go exactly where they belong, or nothing of QEMU is changed."""
import os
import shutil
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

    def test_a_file_that_no_patch_touches_any_more_is_compiled_anew(self) -> None:
        os.utime(self.source / "meson.build", (1, 1))
        self.wired(PATCH)
        (self.source / "other.build").write_text(ORIGINAL)
        patched = (self.source / "meson.build").stat().st_mtime_ns
        self.wired(PATCH.replace("meson.build", "other.build"))
        self.assertEqual((self.source / "meson.build").read_text(), ORIGINAL)
        self.assertGreaterEqual((self.source / "meson.build").stat().st_mtime_ns, patched)

    def test_one_that_was_never_patched_is_not(self) -> None:
        self.wired(PATCH)
        (self.patches / "0001-wire.patch").unlink()
        qemu._prepare_source()
        os.utime(self.source / "meson.build", (1, 1))
        qemu._restore_originals()
        self.assertEqual((self.source / "meson.build").stat().st_mtime, 1)

    def test_half_an_original_is_none(self) -> None:
        with mock.patch.object(Path, "rename", side_effect=KeyboardInterrupt), self.assertRaises(KeyboardInterrupt):
            self.wired(PATCH)
        self.assertFalse((self.top / "source-originals" / "meson.build").exists())
        self.assertEqual(self.wired(PATCH), "one\ntwo\nours\nthree\nfour\n")

    def test_a_source_that_comes_too_late_is_mentioned(self) -> None:
        (self.top / "source-origin").write_text("QEMU_SRC=/there")
        for given, times in (("/there", 0), ("/elsewhere", 1)):
            with mock.patch.dict(os.environ, {"QEMU_SRC": given}), mock.patch.object(fetch, "say") as say:
                self.wired(PATCH)
                self.assertEqual(say.call_count, times)

    def test_a_copy_leaves_the_overlay_of_the_original_alone(self) -> None:
        overlay = self.top / "overlay"
        (overlay / "hw").mkdir(parents=True)
        (overlay / "hw" / "old.c").touch()
        with mock.patch.object(qemu, "OVERLAY", overlay):
            qemu._link_overlay()
            copy = self.top / "copy" / "source"
            shutil.copytree(self.source, copy, symlinks=True)
            shutil.copy(self.top / "source-overlay", copy.with_name("source-overlay"))
            (overlay / "hw" / "old.c").rename(overlay / "hw" / "new.c")
            with mock.patch.object(qemu, "SOURCE", copy):
                qemu._link_overlay()
            self.assertEqual([p.name for p in (copy / "hw").iterdir()], ["new.c"])
            self.assertTrue((self.source / "hw" / "old.c").is_symlink())

    def test_a_copy_is_configured_anew(self) -> None:
        sources: list[Path] = []

        def run(argv: list[object], cwd: Path, **options: object) -> None:
            if argv[0] != "ninja":
                sources.append(Path(str(argv[0])).parent)
                (cwd / "build.ninja").touch()

        (self.top / "firmware" / "keymaps").mkdir(parents=True)    # as QEMU's pc-bios has it
        (self.top / "firmware" / "bios.bin").touch()
        with mock.patch.object(qemu, "run", run), mock.patch.object(fetch, "meson", return_value=None), \
             mock.patch.object(fetch, "firmware_dir", return_value=self.top / "firmware"):
            for source in (self.source, self.source, self.top / "moved"):
                with mock.patch.object(qemu, "SOURCE", source):
                    qemu._compile(self.top / "objects", (), [], "QEMU")
        self.assertEqual(sources, [self.source, self.top / "moved"])
        self.assertEqual([p.name for p in (self.top / "objects").rglob("*") if p.name in ("bios.bin", "keymaps")], ["bios.bin"])


if __name__ == "__main__":
    unittest.main()
