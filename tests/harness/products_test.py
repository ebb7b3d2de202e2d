# SPDX-License-Identifier: GPL-2.0
"""The cache of products: whole or not at all, and only a matter of time."""
import errno
import os
import shutil
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from rig import guest, products


class Products(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.top = Path(scratch.name)
        self.patch(products, "PRODUCTS", self.top / "cache")

    def patch(self, target: object, name: str, value: object) -> None:
        patcher = mock.patch.object(target, name, value)
        patcher.start()
        self.addCleanup(patcher.stop)

    def product(self, key: str) -> Path:
        """A directory with the files of a product that was made from `key`."""
        made = self.top / f"made-{key}"
        made.mkdir()
        for name in ("image", "key", "layer"):
            (made / name).write_text(key)
        return made

    def keep(self, key: str) -> None:
        products.keep("kernel", key, sorted(self.product(key).iterdir()))

    def shelf(self) -> set[str]:
        return {path.name for path in (self.top / "cache" / "kernel").iterdir()}

    @staticmethod
    def content(directory: Path) -> dict[str, str]:
        return {path.name: path.read_text() for path in directory.iterdir()}


class Keeping(Products):
    def test_comes_out_as_it_went_in(self) -> None:
        self.keep("one")
        self.assertTrue(products.take("kernel", "one", self.top / "out"))
        self.assertEqual(self.content(self.top / "out"), dict.fromkeys(("image", "key", "layer"), "one"))
        self.assertFalse(products.take("kernel", "other", self.top / "out"))

    def test_the_oldest_are_forgotten(self) -> None:
        for number in range(products._KEEP + 2):
            self.keep(str(number))
            os.utime(self.top / "cache" / "kernel" / str(number), (number, number))
        self.keep("last")
        self.assertEqual(self.shelf(), {"last", *(str(n) for n in range(3, products._KEEP + 2))})

    def test_a_cache_that_cannot_be_written_keeps_nothing(self) -> None:
        (self.top / "cache").write_text("in the way")
        self.keep("one")

    def test_the_stamp_of_a_guest_image_does_not_wait_for_the_cache(self) -> None:
        dest = self.top / "guest" / "packages.squashfs"

        def make(work: Path) -> None:
            (work / "out").write_text("image")

        with mock.patch.object(products, "keep", side_effect=KeyboardInterrupt), self.assertRaises(KeyboardInterrupt):
            guest._up_to_date(dest, "inputs", make, shared=True)
        self.assertEqual(guest._up_to_date(dest, "inputs", lambda work: self.fail("made again"), shared=True).read_text(), "image")


class Taking(Products):
    def setUp(self) -> None:
        super().setUp()
        self.keep("new")
        self.out = self.product("old")

    def interrupt(self, name: str, number: int, error: BaseException) -> None:
        """Have the `number`th call of shutil's or Path's `name` fail while the product is taken."""
        target: object = shutil if hasattr(shutil, name) else Path
        real, calls = getattr(target, name), 0

        def failing(*arguments: object, **options: object) -> object:
            nonlocal calls
            calls += 1
            if calls == number:
                raise error
            return real(*arguments, **options)

        with mock.patch.object(target, name, failing), self.assertRaises(type(error)):
            products.take("kernel", "new", self.out)

    def test_a_full_disk_changes_nothing(self) -> None:
        for number in (1, 2, 3):
            self.interrupt("copy2", number, OSError(errno.ENOSPC, "full"))
            self.assertEqual(self.content(self.out), dict.fromkeys(("image", "key", "layer"), "old"))

    def test_files_of_two_products_have_no_stamp(self) -> None:
        for number in (1, 2, 3):
            self.interrupt("rename", number, KeyboardInterrupt())
            self.assertFalse((self.out / "key").exists())
        self.assertTrue(products.take("kernel", "new", self.out))
        self.assertEqual(self.content(self.out), dict.fromkeys(("image", "key", "layer"), "new"))

    def test_a_cache_that_may_only_be_read_serves(self) -> None:
        real = os.utime

        def utime(path: Path, *arguments: Any, **options: Any) -> None:
            if self.top / "cache" in Path(path).parents:
                raise OSError(errno.EROFS, "read-only")
            real(path, *arguments, **options)

        with mock.patch.object(os, "utime", utime):
            self.assertTrue(products.take("kernel", "new", self.top / "out"))

    def test_one_that_is_forgotten_meanwhile(self) -> None:
        def forgotten(*arguments: object) -> None:
            shutil.rmtree(self.top / "cache" / "kernel" / "new")
            raise FileNotFoundError(errno.ENOENT, "gone")

        with mock.patch.object(shutil, "copy2", forgotten):
            self.assertFalse(products.take("kernel", "new", self.out))
        self.assertEqual(self.content(self.out), dict.fromkeys(("image", "key", "layer"), "old"))


if __name__ == "__main__":
    unittest.main()
