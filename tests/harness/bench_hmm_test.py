# SPDX-License-Identifier: GPL-2.0
"""bench/hmm_bench.py reads what the guest's program says, and refuses walks that found something else than they should."""
import unittest

from rig import unittests
from rig.bench import BENCHES
from rig.measured import Spread
from rig.ui import RigError

hmm = unittests.load(BENCHES / "hmm_bench.py", "hmm_p2p_bench.hmm")
PAGES = hmm.PAGES


class Lines(unittest.TestCase):
    def test_the_first_walk_is_left_out(self) -> None:
        way, walk = hmm.parse(f"alias {PAGES} 0 {PAGES} 8 {900 * PAGES} {3 * PAGES} {2 * PAGES} {7 * PAGES}")
        self.assertEqual((way, walk.per_page, walk.calls), ("alias", Spread(3, 2, 7), 2))

    def test_what_was_found(self) -> None:
        for line in (f"alias {PAGES} 0 {PAGES - 1} 1 5 5", f"alias {PAGES} {PAGES} 0 1 5 5", f"owner {PAGES} 0 0 0 5 5",
                     f"system {PAGES - 1} 0 0 0 5 5", f"migration {PAGES} {PAGES} 0 0 5 5"):
            with self.subTest(line), self.assertRaisesRegex(RigError, line.split()[0]):
                hmm.parse(line)

    def test_ratio(self) -> None:
        one, other = hmm.Walk(Spread(6, 4, 9), 1), hmm.Walk(Spread(3, 2, 4), 1)
        self.assertEqual(hmm.ratio(one, other), Spread(2, 1, 4.5))


if __name__ == "__main__":
    unittest.main()
