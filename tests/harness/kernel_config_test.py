# SPDX-License-Identifier: GPL-2.0
"""kconfig drops what it cannot satisfy without a word; the rig must not."""
import unittest

from rig.kernel import dropped_options


class DroppedOptions(unittest.TestCase):
    def test_everything_took_effect(self) -> None:
        self.assertEqual(dropped_options('CONFIG_A=y\nCONFIG_B=n\nCONFIG_S="x y"\n# CONFIG_C is not set\n# text\n',
                                         'CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_S="x y"\n'), [])

    def test_a_lost_option(self) -> None:
        self.assertEqual(dropped_options("CONFIG_KASAN=y\n", "# CONFIG_KASAN is not set\n"), ["CONFIG_KASAN=y (it is n)"])

    def test_an_option_that_came_back(self) -> None:
        self.assertEqual(dropped_options("CONFIG_SLUB_TINY=n\n", "CONFIG_SLUB_TINY=y\n"), ["CONFIG_SLUB_TINY=n (it is y)"])

    def test_a_module_made_builtin(self) -> None:
        self.assertEqual(dropped_options("CONFIG_X=m\n", "CONFIG_X=y\n"), ["CONFIG_X=m (it is y)"])

    def test_the_last_fragment_wins(self) -> None:
        self.assertEqual(dropped_options("CONFIG_X=m\nCONFIG_X=y\n", "CONFIG_X=y\n"), [])


if __name__ == "__main__":
    unittest.main()
