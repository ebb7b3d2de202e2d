# SPDX-License-Identifier: GPL-2.0
"""The benchmarks' report is well formed whatever was measured, refers to nothing outside, and says what was missed."""
import html.parser
import io
import math
import re
import tempfile
import unittest
import xml.etree.ElementTree
from pathlib import Path

from rig import bench_page
from rig.bench import Bench
from rig.measured import Line, Plot, Section, Spread, Value

NASTY = """<script>alert("x")</script> & 'quotes' </svg>"""
MACHINE = {"processor": "An & <old> CPU", "accelerator": "tcg"}
VOID = {"meta", "br", "hr", "img", "link", "input"}
GOOD = Spread(2.0, 1.0, 4.0)
UNKNOWN = Spread.of([])


class Structure(html.parser.HTMLParser):
    """Notes elements that are not closed in their order, and every attribute."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(page)
        self.close()
        self.wrong += self.open

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"/{tag}")


def section(*items: object) -> Section:
    return Section("name", "title", "release", list(items))  # type: ignore[arg-type]


class Page(unittest.TestCase):
    def check(self, *items: object) -> str:
        page = bench_page.page(MACHINE, [section(*items)], [("a step", 12.0)])
        found = Structure(page)
        self.assertEqual(found.wrong, [])
        self.assertNotIn("script", found.tags)
        self.assertFalse({"link", "img", "iframe", "object"} & set(found.tags))
        self.assertEqual([name for name, _ in found.attributes if re.match(r"src|href|xlink|on", name)], [])
        self.assertNotRegex(page, r"url\(|@import|nan|inf(?!o)")
        for element in re.findall(r"<svg.*?</svg>", page, re.S):
            xml.etree.ElementTree.fromstring(element)
        return page

    def test_emulated_and_the_machine_are_on_it(self) -> None:
        page = self.check()
        self.assertIn('class="stamp">emulated<', page)
        self.assertIn("An &amp; &lt;old&gt; CPU", page)
        self.assertIn("a step", page)

    def test_names_are_escaped_everywhere(self) -> None:
        page = self.check(Value(NASTY, 1, NASTY), NASTY, Plot(NASTY, NASTY, NASTY, [Line(NASTY, [(8, GOOD)])]))
        self.assertNotIn("<script", page)
        self.assertGreaterEqual(page.count("&lt;script&gt;"), 8)

    def test_targets(self) -> None:
        page = self.check(Value("a", 1, "s", at_least=2), Value("b", 3, "s", at_least=2), Value("c", 1, "s"))
        self.assertEqual((page.count('class="missed"'), page.count('class="met"')), (1, 1))

    def test_what_could_not_be_measured(self) -> None:
        for unknown in (math.nan, math.inf):
            page = self.check(Value("a", unknown, "s", at_least=2, spread=UNKNOWN))
            self.assertIn('<td class="n">-</td>', page)
        page = self.check(Plot("p", "x", "y", [Line("a", [(8, GOOD), (64, UNKNOWN)]), Line("b", [(64, GOOD)])]))
        self.assertEqual(page.count("<circle"), 2)

    def test_plots_that_a_logarithm_cannot_show(self) -> None:
        plots: list[list[Line]] = [[], [Line("a", [])], [Line("a", [(8, UNKNOWN)])],
                                   [Line("a", [(8, Spread(0, 0, 0)), (0, GOOD)])], [Line("a", [(8, Spread(-1, -1, -1))])]]
        for lines in plots:
            self.assertIn("nothing to plot", self.check(Plot("p", "x", "y", lines)))

    def test_points_are_inside_the_plot(self) -> None:
        samples: list[list[tuple[float, Spread]]] = [
            [(8, GOOD)], [(8, GOOD), (1 << 23, Spread(1e6, 1e-6, 1e9))], [(1, Spread(5, 5, 5)), (2, Spread(5, 5, 5))]]
        for points in samples:
            page = self.check(Plot("p", "x", "y", [Line("a", points)]))
            for x, y in re.findall(r'<circle cx="([-\d.]+)" cy="([-\d.]+)"', page):
                self.assertTrue(60 <= float(x) <= 760 and 10 <= float(y) <= 360, (x, y))

    def test_more_lines_than_colours_differ(self) -> None:
        page = self.check(Plot("p", "x", "y", [Line(str(n), [(8, GOOD), (64, GOOD)]) for n in range(20)]))
        styles = re.findall(r'<polyline points="[^"]*" ([^/]*)/>', page)
        self.assertEqual((len(styles), len(set(styles))), (20, 20))

    def test_sizes(self) -> None:
        page = self.check(Plot("p", "x", "y", [Line("a", [(8, GOOD), (4096, GOOD), (8 << 20, GOOD), (1500, GOOD)])]))
        for words in (">8 B<", ">4 KiB<", ">8 MiB<", ">1500 B<"):
            self.assertIn(words, page)


class Text(unittest.TestCase):
    def test_figures(self) -> None:
        for value, words in ((0, "0"), (1.23456, "1.235"), (9999.4, "9999"), (12345.6, "12346"), (2e10, "20000000000"),
                             (-12345.6, "-12346"), (1e-9, "1e-09"), (math.nan, "-"), (math.inf, "-"), (None, "-")):
            self.assertEqual(bench_page.figure(value), words)

    def test_the_same_numbers(self) -> None:
        plot = Plot("rate", "size", "GB/s", [Line("one", [(8, Spread(2.5, 2, 3)), (4096, UNKNOWN)]), Line("two", [(4096, Spread(7, 7, 7))])])
        value = Value("v", 12.5, "us", at_most=10, spread=Spread(12.5, 11, 13))
        lines = bench_page.text(MACHINE, [section(value, "A remark. " * 20, plot)]).splitlines()
        self.assertIn("emulated", lines[0])
        self.assertIn("MISSED", next(line for line in lines if line.startswith("v ")))
        self.assertIn("(11 to 13)", next(line for line in lines if line.startswith("v ")))
        self.assertEqual([line.split() for line in lines if re.match(r"  (8 B|4 KiB) ", line)],
                         [["8", "B", "2.5", "-"], ["4", "KiB", "-", "7"]])
        self.assertTrue(any("up to 20%" in line for line in lines))
        self.assertLessEqual(max(len(line) for line in lines if "remark" in line), 75)


class Collecting(unittest.TestCase):
    def test_misses_and_items(self) -> None:
        stream = io.StringIO()
        with tempfile.TemporaryDirectory() as directory:
            bench = Bench("name", "debug", Path(directory), stream)
        bench.show("good", 2, "s", at_least=1)
        bench.show("bad", Spread.of([3, 1, 2]), "s", at_most=1)
        bench.show("unknown", math.nan, "s", at_most=1)
        bench.show("none", 0, "s")
        bench.plot("p", "x", "y", [Line("a", [(8, GOOD)])])
        bench.remark("words")
        self.assertEqual(bench.missed, 2)
        self.assertEqual(len(bench.section.items), 6)
        self.assertEqual(len(re.findall("MISSED", stream.getvalue())), 2)
        self.assertEqual(bench.section.items[1].value, 2)  # type: ignore[union-attr]


if __name__ == "__main__":
    unittest.main()
