# SPDX-License-Identifier: GPL-2.0
"""The mutations fit the series: their patches apply, together, and the tests that they name exist (rig/mutations.py)."""
import io
import unittest

from rig import ktap, mutations, suite, tree
from rig.report import SkipList


class Mutations(unittest.TestCase):
    def test_they_apply(self) -> None:
        merged = mutations.merge(mutations.load(), tree.series_commit())
        for mutation in mutations.load():
            self.assertTrue(any(f"MUTATION({mutation.switch})" in text for text in merged.values()), mutation.name)

    def test_they_name_tests(self) -> None:
        mutations.check(mutations.load(), suite.discover())


class Verdicts(unittest.TestCase):
    """A test that fails is no proof unless it fails as the mutation says."""

    def judged(self, seen: ktap.Result, only: tuple[str, ...] = (), says: str = "") -> tuple[str, str]:
        mutation = mutations.Mutation("m", mutations.MUTATIONS / "m.patch", "it", "a/test", only, says, "")
        result = mutations.judge(mutation, seen)
        return result.status, result.reason

    def test_survivor(self) -> None:
        passed = ktap.Result("a/test", ktap.PASS, children=[ktap.Result("hmm_p2p.one", ktap.PASS)])
        self.assertEqual(self.judged(passed, ("one",)), (ktap.FAIL, "survived: the test passes"))

    def test_named_subtests_have_to_fail(self) -> None:
        failed = ktap.Result("a/test", ktap.FAIL, children=[ktap.Result("hmm_p2p.one", ktap.FAIL), ktap.Result("hmm_p2p.two", ktap.PASS)])
        self.assertEqual(self.judged(failed, ("one",))[0], ktap.PASS)
        self.assertEqual(self.judged(failed, ("one", "two"))[0], ktap.FAIL)

    def test_crash_of_a_named_subtest(self) -> None:
        crashed = ktap.Result("a/test", ktap.FAIL, "splat: KASAN: slab-out-of-bounds in one()")
        self.assertEqual(self.judged(crashed, ("one",), "KASAN")[0], ktap.PASS)
        self.assertEqual(self.judged(crashed, ("one",), "bad page")[0], ktap.FAIL)
        self.assertEqual(self.judged(crashed, ("one",))[0], ktap.FAIL)

    def test_reason(self) -> None:
        failed = ktap.Result("a/test", ktap.FAIL, "private pages: expected 8, saw 0")
        self.assertEqual(self.judged(failed, says="private pages")[0], ktap.PASS)
        self.assertEqual(self.judged(failed, says="copies")[0], ktap.FAIL)
        diagnosed = ktap.Result("a/test", ktap.FAIL, children=[ktap.Result("x", ktap.FAIL, diagnostics=["# private pages"])])
        self.assertEqual(self.judged(diagnosed, says="private pages")[0], ktap.PASS)

    def test_no_boot_is_no_proof(self) -> None:
        failed = ktap.Result("a/test", ktap.FAIL, "boot timeout: private pages")
        self.assertEqual(self.judged(failed, says="private pages"), (ktap.FAIL, "the guest did not boot"))

    def test_unbroken_has_to_pass(self) -> None:
        """Whichever of the two is done first."""
        mutation = mutations.Mutation("m", mutations.MUTATIONS / "m.patch", "it", "a/test", (), "words", "")
        for status, counts in ((ktap.PASS, (2, 0)), (ktap.FAIL, (0, 2))):
            results = ktap.Result("unbroken/m", status), ktap.Result("mutation/m", ktap.FAIL, "words")
            for order in (results, results[::-1]):
                with self.subTest(status=status, first=order[0].name):
                    verdicts = mutations._Verdicts(io.StringIO(), 2, SkipList(), {"mutation/m": mutation})
                    for result in order:
                        verdicts.result(result)
                    self.assertEqual((verdicts.passed, verdicts.failed), counts)


if __name__ == "__main__":
    unittest.main()
