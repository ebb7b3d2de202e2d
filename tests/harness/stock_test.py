# SPDX-License-Identifier: GPL-2.0
"""The distribution's kernel is unpacked once, however many tests ask for it at the same time."""
import tempfile
import threading
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

from rig import fetch, paths, stock, unpack


class Root(unittest.TestCase):
    def test_two_that_find_nothing(self) -> None:
        unpacked: list[Path] = []
        both = threading.Barrier(2, timeout=1)

        def deb(pin: object, base: Path) -> Path:
            try:
                both.wait()     # where both get here both have found nothing
            except threading.BrokenBarrierError:
                pass
            return Path("a.deb")

        def deb_into(package: Path, work: Path, **options: object) -> None:
            (work / "file").touch()
            unpacked.append(work)

        with tempfile.TemporaryDirectory() as scratch, mock.patch.object(paths, "BUILD", Path(scratch)), \
             mock.patch.object(fetch, "deb", deb), mock.patch.object(unpack, "deb", deb_into), ThreadPoolExecutor(2) as pool:
            expected = len(fetch.KERNEL.pin["stock"])
            for root in pool.map(stock._root, ["stock", "stock"]):
                self.assertTrue((root / "file").exists())
            self.assertEqual(len(unpacked), expected)


if __name__ == "__main__":
    unittest.main()
