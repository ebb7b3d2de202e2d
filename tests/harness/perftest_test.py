# SPDX-License-Identifier: GPL-2.0
"""What rig/perftest.py says about a run: nothing about a right one, and each way to be wrong has its words."""
import unittest
from dataclasses import replace
from typing import Any

from rig.gpu import PAGE
from rig.perftest import GPU_COUNTERS, HCA_COUNTERS, End, Run

SIZE, COUNT = PAGE, 20
BEFORE, SENT = b"b" * PAGE, b"s" * PAGE


def end(device: str, vram: bytes, **moved: int) -> End:
    counters = dict.fromkeys(HCA_COUNTERS, 0) | {f"data-{name.replace('_', '-')}-bytes": value for name, value in moved.items()}
    return End(device, device, moved=counters, region={"alias_pages": 2, "alias_fallbacks": 0}, pages=2, resident=(2, 2),
               content=(SENT if device == "client" else BEFORE) * 2, where=[0, PAGE], vram=vram)


def p2p() -> Run:
    """A write whose bytes all went from VRAM to VRAM."""
    return Run(["ib_write_bw"], SIZE, COUNT, end("server", BEFORE + SENT, write_peer=SIZE * COUNT),
               end("client", SENT * 2, read_peer=SIZE * COUNT), {}, dict.fromkeys(GPU_COUNTERS, 0))


def host() -> Run:
    """The same through host memory."""
    run = Run(["ib_write_bw"], SIZE, COUNT, end("server", BEFORE * 2, write_host=SIZE * COUNT),
              end("client", SENT * 2, read_host=SIZE * COUNT), {},
              dict.fromkeys(GPU_COUNTERS, 0) | {"ce-launches": 2, "ce-bytes-d2h": 2 * PAGE})
    for each in run.ends:
        each.resident, each.region = (2, 1), {"alias_pages": 0, "alias_fallbacks": 0}
    return run


class Judgement(unittest.TestCase):
    def test_right_runs(self) -> None:
        self.assertEqual((p2p().against_p2p(), host().against_host()), ([], []))

    def test_one_is_not_the_other(self) -> None:
        self.assertGreater(len(host().against_p2p()), 5)
        self.assertGreater(len(p2p().against_host()), 5)

    def changed(self, run: Run, which: str, name: str, value: Any) -> Run:
        one = getattr(run, which)
        setattr(run, which, replace(one, moved={**one.moved, name: value}) if name in HCA_COUNTERS else replace(one, **{name: value}))
        return run

    def test_each_way_to_be_wrong(self) -> None:
        for which, name, value, words in (
                ("server", "data-write-peer-bytes", SIZE * COUNT - 1, "server: write in VRAM: expected 81920, saw 81919"),
                ("server", "data-read-peer-bytes", 1, "server: read in VRAM"),
                ("client", "data-read-host-bytes", 64, "client: read in host memory: expected 0, saw 64"),
                ("client", "dma-errors", 1, "client: failed DMA"),
                ("client", "resident", (2, 1), "client: pages in VRAM"),
                ("client", "region", {"alias_pages": 1, "alias_fallbacks": 1}, "client: fallbacks"),
                ("client", "region", {"alias_pages": 0, "alias_fallbacks": 0}, "client: the region has aliases"),
                ("server", "vram", BEFORE * 2, "checksum of what has arrived")):
            with self.subTest(words):
                wrong = self.changed(p2p(), which, name, value).against_p2p()
                self.assertEqual(len(wrong), 1)
                self.assertIn(words, wrong[0])

    def test_the_gpu_must_rest(self) -> None:
        run = p2p()
        run.copies = {**run.copies, "ce-launches": 1}
        self.assertEqual(len(run.against_p2p()), 1)

    def test_without_p2p_vram_stays_as_it_was(self) -> None:
        wrong = self.changed(host(), "server", "vram", BEFORE + SENT).against_host()
        self.assertEqual(len(wrong), 1)


if __name__ == "__main__":
    unittest.main()
