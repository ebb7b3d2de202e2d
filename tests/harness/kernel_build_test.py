# SPDX-License-Identifier: GPL-2.0
"""A kernel is what its key says, or has none: with a make, and a few other programs, that only pretend."""
import os
import tempfile
import unittest
from pathlib import Path
from typing import Callable
from unittest import mock

from rig import kernel, paths, products, squashfs, tree
from rig.ui import RigError

VARIANT = "debug"


class Build(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.top = Path(scratch.name)
        self.modules, self.configs = self.top / "with space" / "modules", self.top / "configs"
        self.configs.mkdir()
        for name in kernel.VARIANTS[VARIANT].fragments:
            (self.configs / f"{name}.config").write_text("CONFIG_A=y\n")
        for name in ("first", "second"):
            self.module(name)
        self.config = "CONFIG_A=y\n"
        self.while_compiling: Callable[[], None] = lambda: None
        self.built: list[str] = []
        for target, attribute, value in (
                (paths, "BUILD", self.top / "build"), (paths, "LOGS", self.top), (products, "PRODUCTS", self.top / "cache"),
                (tree, "TREE", self.top / "build" / "linux"), (kernel, "MODULES", self.modules), (kernel, "CONFIGS", self.configs),
                (kernel, "_make", self.make), (kernel, "_selftests", mock.Mock()), (kernel, "run", mock.Mock()),
                (kernel, "_bring_up_tree", mock.Mock()), (squashfs, "make", self.squashfs), (kernel, "say", mock.Mock()),
                (kernel.inspect, "getsource", lambda function: "source")):
            patcher = mock.patch.object(target, attribute, value)
            patcher.start()
            self.addCleanup(patcher.stop)
        self.objects, self.products = kernel._objects(VARIANT), kernel._products(VARIANT)

    def module(self, name: str) -> None:
        (self.modules / name).mkdir(parents=True)
        (self.modules / name / "Kbuild").write_text(f"obj-m := {name}.o\n")
        (self.modules / name / f"{name}.c").write_text("/* one */\n")

    def make(self, variant: str, source: Path, *targets: str, **options: object) -> None:
        given = dict(target.split("=", 1) for target in targets if "=" in target)
        if "allnoconfig" in targets:
            (self.objects / ".config").write_text(self.config)
        elif "bzImage" in targets:
            self.while_compiling()
            for name, text in (("arch/x86/boot/bzImage", "image"), ("include/config/kernel.release", "7.3.4\n")):
                (self.objects / name).parent.mkdir(parents=True, exist_ok=True)
                (self.objects / name).write_text(text)
        elif "modules_install" in targets:
            (Path(given["INSTALL_MOD_PATH"]) / "lib" / "modules" / "7.3.4").mkdir(parents=True)
        else:
            module, out = Path(given["M"]), Path(given["MO"])
            self.assertNotIn(" ", os.fspath(module.resolve()))
            objects = [line.split()[-1] for line in (module / "Kbuild").read_text().splitlines()]
            for name in objects:
                (out / name).with_suffix(".ko").write_text((module / name).with_suffix(".c").read_text())
            (out / "modules.order").write_text("".join(f"{name}\n" for name in objects))
            self.built += [module.name]

    @staticmethod
    def squashfs(root: Path, out: Path, **options: object) -> None:
        out.write_text(" ".join(sorted(path.name for path in root.rglob("*.ko"))))

    def layer(self) -> str:
        kernel.build(VARIANT)
        return kernel.layer(VARIANT).read_text()

    def is_kept(self) -> bool:
        return kernel.at_hand(VARIANT) and products.has("kernel", kernel._key(VARIANT))

    def test_what_was_built_is_kept(self) -> None:
        self.assertEqual(self.layer(), "first.ko second.ko")
        self.assertTrue(self.is_kept())
        self.built.clear()
        self.layer()
        self.assertEqual(self.built, [])

    def test_edits_while_it_is_compiled_are_not_in_it(self) -> None:
        def edit_module() -> None:
            (self.modules / "first" / "first.c").write_text("/* two */\n")

        def edit_fragment() -> None:
            (self.configs / "debug.config").write_text("CONFIG_A=y\nCONFIG_B=y\n")
            self.config += "CONFIG_B=y\n"

        for edit in (edit_module, edit_fragment):
            with self.subTest(edit=edit.__name__):
                (self.modules / "second" / "second.c").write_text(f"/* before {edit.__name__} */\n")
                self.while_compiling = edit
                self.layer()
                self.assertFalse(self.is_kept())
                self.while_compiling = lambda: None
                self.built.clear()
                self.layer()
                self.assertTrue(self.built)
                self.assertTrue(self.is_kept())

    def test_a_module_that_is_gone_is_not_packed(self) -> None:
        self.layer()
        for file in (self.modules / "first").iterdir():
            file.unlink()
        (self.modules / "first").rmdir()
        (self.modules / "second" / "second.c").rename(self.modules / "second" / "third.c")
        (self.modules / "second" / "Kbuild").write_text("obj-m := third.o\n")
        self.assertEqual(self.layer(), "third.ko")

    def test_kconfig_that_changed_drops_nothing_silently(self) -> None:
        self.layer()
        (self.modules / "first" / "first.c").write_text("/* two */\n")     # something to build
        self.config = ""
        with self.assertRaisesRegex(RigError, "CONFIG_A=y"):
            self.layer()

    def test_nor_does_make(self) -> None:
        def syncconfig() -> None:
            (self.objects / ".config").write_text("")

        self.while_compiling = syncconfig
        with self.assertRaisesRegex(RigError, "CONFIG_A=y"):
            self.layer()
        self.assertFalse(self.is_kept())

    def test_a_source_that_the_user_names_is_looked_at_first(self) -> None:
        self.layer()
        with mock.patch.dict(os.environ, {"KERNEL_SRC": "/there"}), \
             mock.patch.object(kernel, "_bring_up_tree", side_effect=RigError("looked at")):
            self.assertFalse(kernel.at_hand(VARIANT))
            with self.assertRaisesRegex(RigError, "looked at"):
                kernel.build(VARIANT)


class Mirror(unittest.TestCase):
    def test_what_is_the_same_keeps_its_time(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            source, copy = Path(scratch) / "source", Path(scratch) / "copy"
            (source / "deep").mkdir(parents=True)
            for name in ("same", "deep/changed", "gone"):
                (source / name).write_text("one")
            products.mirror(source, copy)
            os.utime(copy / "same", (1, 1))
            (source / "deep" / "changed").write_text("two")
            (source / "gone").unlink()
            products.mirror(source, copy)
            self.assertEqual({p.relative_to(copy).as_posix(): p.read_text() for p in copy.rglob("*") if p.is_file()},
                             {"same": "one", "deep/changed": "two"})
            self.assertEqual((copy / "same").stat().st_mtime, 1)


if __name__ == "__main__":
    unittest.main()
