# SPDX-License-Identifier: GPL-2.0
"""Each patch of the series compiles without a new warning, and so does all of it in other configurations and on i386."""
import unittest
from collections import Counter

from rig import series, tree

FULL = True
TIMEOUT = 3 * 3600


class Builds(unittest.TestCase):
    def setUp(self) -> None:
        self.found: list[str] = []

    def note(self, place: str, configuration: series.Configuration, new: Counter[str]) -> None:
        self.found += [f"{place}, configuration '{configuration.name}': {line}" for line in sorted(new)]

    def verdict(self) -> None:
        if self.found:
            self.fail("\n".join([*self.found, f"(the log is {series.LOG})"]))

    def each_patch(self, *flags: str) -> None:
        """What the base kernel's files complain of is not new, nor is what an earlier patch was blamed for."""
        builder, files = series.Builder(series.DEBUG, *flags), series.sources()
        known = builder.build(tree.BASE, files, anew=True)
        self.assertEqual(series.errors(known), [], "the base kernel compiles")
        for commit in series.commits():
            said = builder.build(commit, files)
            self.note(series.subject(commit), series.DEBUG, said - known)
            known |= said
        self.verdict()
        self.assertLessEqual(set(series.changed(".c")), set(builder.compiled), "all that the series changes was compiled")

    def test_each_patch(self) -> None:
        self.each_patch("W=1")

    def test_each_patch_with_sparse(self) -> None:
        if not series.sparse_is_valid():
            self.skipTest("scripts/checker-valid.sh does not accept the installed sparse")
        self.each_patch("C=1")

    def test_other_configurations(self) -> None:
        files = series.sources()
        for configuration in series.OTHERS:
            builder = series.Builder(configuration, "W=1")
            said = builder.build(tree.series_commit(), files, anew=True)
            # Most often there is nothing that would have to be compared.
            self.note("the series", configuration, said - builder.build(tree.BASE, files, anew=True) if said else said)
        self.verdict()


if __name__ == "__main__":
    unittest.main()
