# SPDX-License-Identifier: GPL-2.0
"""bench/e2e_bench.py takes the right times from the HCA's trace, and leaves alone what belongs to no fault."""
import unittest

from rig import unittests
from rig.bench import BENCHES
from rig.measured import Spread
from rig.vm import parse_trace

e2e = unittests.load(BENCHES / "e2e_bench.py", "hmm_p2p_bench.e2e")
UPDATE, RESUME, REST = ("event to the update of the translation", "update to the driver's resume",
                        "resume to the completion of the transfer")


def trace(*events: tuple[int, str]) -> list[tuple[float, str, str]]:
    return [(microseconds / 1e6, f"mlx5_{name}", "") for microseconds, name in events]


class Parts(unittest.TestCase):
    def check(self, found: dict[str, Spread], **expected: list[float]) -> None:
        for name, key in ((UPDATE, "update"), (RESUME, "resume"), (REST, "rest")):
            wanted = Spread.of(expected[key])
            if not expected[key]:
                self.assertFalse(found[name].known, name)
                continue
            for part in ("median", "low", "high"):
                self.assertAlmostEqual(getattr(found[name], part), getattr(wanted, part), 6, name)

    def test_two_faults(self) -> None:
        events = trace((0, "odp_raise"), (10, "umr"), (12, "umr"), (15, "odp_resume"), (16, "send_complete"),
                       (100, "odp_raise"), (130, "umr"), (140, "odp_resume"), (143, "send_complete"))
        self.check(e2e.parts(events), update=[10, 30], resume=[5, 10], rest=[1, 3])

    def test_what_is_no_part_of_a_fault(self) -> None:
        events = trace((0, "umr"), (1, "send_complete"), (2, "odp_resume"), (10, "odp_raise"), (14, "umr"), (15, "odp_resume"),
                       (17, "send_complete"), (30, "send_complete"), (31, "umr"))
        self.check(e2e.parts(events), update=[4], resume=[1], rest=[2])

    def test_a_fault_without_an_end(self) -> None:
        self.check(e2e.parts(trace((0, "odp_raise"), (50, "odp_raise"), (51, "umr"))), update=[1], resume=[], rest=[])
        self.check(e2e.parts([]), update=[], resume=[], rest=[])

    def test_outliers_are_left_out(self) -> None:
        events = [event for number in range(20) for event in trace((1000 * number, "odp_raise"),
                                                                  (1000 * number + (900 if number == 7 else 10), "umr"))]
        self.check(e2e.parts(events), update=[10], resume=[], rest=[])


class Trace(unittest.TestCase):
    def test_lines(self) -> None:
        lines = ["4242@1700000000.000123:mlx5_umr mlx5 QP 0x48 key 0x1", "mlx5: BAD command 0x999", "1@2.5:x y",
                 "12@x:no event", "7@3.000001:mlx5_reset "]
        self.assertEqual([parse_trace(line) for line in lines],
                         [(1700000000.000123, "mlx5_umr", "mlx5 QP 0x48 key 0x1"), None, (2.5, "x", "y"), None, (3.000001, "mlx5_reset", "")])


if __name__ == "__main__":
    unittest.main()
