# SPDX-License-Identifier: GPL-2.0
"""KTAP of every dialect that the kernel's tests speak is read as it was meant, and broken KTAP never passes."""
import io
import unittest

from rig import ktap

P, F, S = ktap.PASS, ktap.FAIL, ktap.SKIP


def read(text: str) -> tuple[list[tuple[str, str]], list[str]]:
    """((status, name) of every test that counts, problems)."""
    parser = ktap.parse(text)
    return [(leaf.status, leaf.name) for r in parser.results for leaf in r.leaves()], parser.problems


class Dialects(unittest.TestCase):
    def good(self, text: str, *expected: tuple[str, str]) -> None:
        self.assertEqual(read(text), (list(expected), []))

    def test_ktap(self) -> None:
        self.good("KTAP version 1\n1..2\nok 1 a\nnot ok 2 b\n", (P, "a"), (F, "b"))

    def test_tap13_of_kselftest(self) -> None:
        self.good("TAP version 13\n1..3\n# Starting 3 tests from 1 test cases.\n#  RUN           f.a ...\n#            OK  f.a\n"
                  "ok 1 f.a\n#  RUN           f.b ...\n#      SKIP      no device\nok 2 f.b # SKIP no device\n"
                  "# f.c: Test terminated by assertion\nnot ok 3 f.c\n# FAILED: 2 / 3 tests passed.\n"
                  "# Totals: pass:1 fail:1 xfail:0 xpass:0 skip:1 error:0\n", (P, "f.a"), (S, "f.b"), (F, "f.c"))

    def test_tap12_of_glib_has_no_version(self) -> None:
        self.good("# random seed: R02S12\n1..2\n# Start of x86_64 tests\nok 1 /x86_64/p2pdev/a\nok 2 /x86_64/p2pdev/b # SKIP no\n",
                  (P, "/x86_64/p2pdev/a"), (S, "/x86_64/p2pdev/b"))

    def test_tap14_subtests(self) -> None:
        self.good("TAP version 14\n1..2\n# Subtest: outer\n    1..2\n    ok 1 - a\n    not ok 2 - b\nnot ok 1 - outer\nok 2 - c\n",
                  (P, "outer.a"), (F, "outer.b"), (P, "c"))

    def test_nested_ktap(self) -> None:
        self.good("KTAP version 1\n1..1\n  KTAP version 1\n  1..3\n    KTAP version 1\n    1..1\n    # t: starts\n    ok 1 t\n"
                  "  ok 1 first\n    KTAP version 1\n    1..2\n    ok 1 t # SKIP no\n    ok 2 u\n  ok 2 second\n"
                  "    KTAP version 1\n    1..1\n    not ok 1 t\n  not ok 3 third\nnot ok 1 main\n",
                  (P, "main.first.t"), (S, "main.second.t"), (P, "main.second.u"), (F, "main.third.t"))

    def test_kunit_parameters_have_no_plan(self) -> None:
        self.good("KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: suite\n    # module: m\n    1..2\n"
                  "        KTAP version 1\n        # Subtest: many\n        ok 1 x=1\n        ok 2 x=2\n    ok 1 many\n"
                  "    ok 2 other\n# suite: pass:2 fail:0 skip:0 total:2\nok 1 suite\n",
                  (P, "suite.many.x=1"), (P, "suite.many.x=2"), (P, "suite.other"))

    def test_run_kselftest_prefixes_its_tests(self) -> None:
        self.good("TAP version 13\n1..2\n# timeout set to 45\n# selftests: mm: hmm-tests\n# TAP version 13\n# 1..2\n# ok 1 a\n"
                  "# # a remark\n# not ok 2 b\nnot ok 1 selftests: mm: hmm-tests # exit=1\nok 2 selftests: mm: other # SKIP\n",
                  (P, "selftests: mm: hmm-tests.a"), (F, "selftests: mm: hmm-tests.b"), (S, "selftests: mm: other"))

    def test_kernel_messages_in_between(self) -> None:
        self.good("KTAP version 1\n1..1\n[    1.0] something: ok 1 not a result\nrandom text\n  ok 7 indented, so not ours\nok 1 a\n",
                  (P, "a"))

    def test_the_plan_may_come_last(self) -> None:
        self.good("TAP version 13\nok 1 a\nok 2 b\n1..2\n", (P, "a"), (P, "b"))

    def test_everything_skipped(self) -> None:
        parser = ktap.parse("TAP version 13\n1..0 # SKIP must be run as root\n")
        self.assertEqual([(r.status, r.reason) for r in parser.results], [(S, "must be run as root")])
        self.assertEqual(parser.problems, [])


class Directives(unittest.TestCase):
    def one(self, line: str) -> tuple[str, str, str]:
        parser = ktap.parse("KTAP version 1\n1..1\n" + line + "\n")
        self.assertEqual(parser.problems, [])
        result = parser.results[0]
        return result.status, result.name, result.reason

    def test_all(self) -> None:
        for line, expected in (
                ("ok 1 a # SKIP why", (S, "a", "why")),
                ("not ok 1 a # SKIP why", (S, "a", "why")),
                ("ok 1 # SKIP why", (S, "why", "why")),
                ("ok 1 a # skip: why", (S, "a", "why")),
                ("not ok 1 a # TODO why", (S, "a", "TODO: why")),
                ("ok 1 a # XFAIL why", (S, "a", "XFAIL: why")),
                ("ok 1 a # XPASS", (P, "a", "")),
                ("not ok 1 a # TIMEOUT 45 seconds", (F, "a", "TIMEOUT: 45 seconds")),
                ("not ok 1 a # ERROR boom", (F, "a", "ERROR: boom")),
                ("not ok 1 a # error boom", (F, "a", "ERROR: boom")),
                ("ok 1 a # rcode=0", (P, "a", "")),
                ("not ok 1 a # exit=1", (F, "a", "exit=1")),
                ("ok 1 - a", (P, "a", "")),
                ("ok 1", (P, "test 1", "")),
                ("not ok", (F, "test 1", ""))):
            with self.subTest(line=line):
                self.assertEqual(self.one(line), expected)


class Broken(unittest.TestCase):
    def bad(self, text: str, problem: str) -> None:
        problems = read(text)[1]
        self.assertTrue(any(problem in p for p in problems), problems)

    def test_silence(self) -> None:
        self.bad("", "no KTAP")
        self.bad("Segmentation fault\n", "no KTAP")

    def test_only_a_version(self) -> None:
        self.bad("KTAP version 1\n", "no plan")

    def test_truncated(self) -> None:
        self.bad("KTAP version 1\n1..3\nok 1 a\nok 2 b\n", "planned 3 tests, saw 2")

    def test_more_than_planned(self) -> None:
        self.bad("KTAP version 1\n1..1\nok 1 a\nok 2 b\n", "planned 1 tests, saw 2")

    def test_no_plan(self) -> None:
        self.bad("KTAP version 1\nok 1 a\n", "no plan")

    def test_a_number_is_missing(self) -> None:
        self.bad("KTAP version 1\n1..2\nok 1 a\nok 3 c\n", "number 2 was due")

    def test_a_number_comes_twice(self) -> None:
        self.bad("KTAP version 1\n1..2\nok 1 a\nok 1 a\n", "number 2 was due")

    def test_bail_out(self) -> None:
        self.bad("TAP version 13\n1..2\nok 1 a\nBail out! no memory\n", "bailed out: no memory")

    def test_truncated_in_a_subtest(self) -> None:
        text = "KTAP version 1\n1..1\n  KTAP version 1\n  1..2\n  ok 1 a\n  not ok 2 b\n"
        self.bad(text, "truncated")
        self.assertEqual(read(text)[0], [(P, "a"), (F, "b")])

    def test_a_subtest_is_missing(self) -> None:
        self.bad("KTAP version 1\n1..1\n  KTAP version 1\n  1..2\n  ok 1 a\nok 1 parent\n", "planned 2 tests, saw 1")

    def test_a_parent_that_fails_alone_counts(self) -> None:
        results, problems = read("KTAP version 1\n1..1\n  KTAP version 1\n  1..1\n  ok 1 a\nnot ok 1 parent\n")
        self.assertEqual((results, problems), ([(P, "parent.a"), (F, "parent")], []))


class Written(unittest.TestCase):
    def test_what_we_print_is_read_back(self) -> None:
        out = io.StringIO()
        writer = ktap.Writer(out, 4)
        children = [ktap.Result("x", P), ktap.Result("y", S, "no y"), ktap.Result("z", F, "why", ["line 1", "# line 2"])]
        writer.result(ktap.Result("a", P), "1.0 s")
        writer.result(ktap.Result("b # with\nnoise", S, "no # b"))
        writer.result(ktap.Result("c", F, "broken\nbadly", ["diagnostic"], children))
        writer.diagnostic("several\nlines")
        writer.result(ktap.Result("d", F))
        results, problems = read(out.getvalue())
        self.assertEqual(problems, [])
        self.assertEqual(results, [(P, "a"), (S, "b no. with noise"), (P, "c.x"), (S, "c.y"), (F, "c.z"), (F, "d")])
        self.assertIn("# diagnostic\nnot ok 3 c # broken badly\n", out.getvalue())


if __name__ == "__main__":
    unittest.main()
