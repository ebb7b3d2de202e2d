# SPDX-License-Identifier: GPL-2.0
"""What the documentation names is there: patches by their subjects, pages and their sections, files, and tests."""
import re
import unittest
from pathlib import Path
from typing import Iterable, Iterator

from rig import paths, suite, tree
from rig.testlib import Case
from rig.ui import RigError

PAGES = [paths.REPO / "README.md", *sorted((paths.REPO / "docs").glob("*.md"))]
# The commits of others are cited with their hash in front.
CITED = re.compile(r'`([^`\n]+)`|(?<![0-9a-f]{12} \()"([^"]+)"')


def subjects() -> list[str]:
    """The subjects of all patches."""
    found = []
    for patch in tree.patch_files():
        head = patch.read_text(encoding="utf-8").partition("\n\n")[0]
        found.append(re.sub(r"\n ", " ", re.search(r"^Subject: \[PATCH\] (.*(?:\n .*)*)", head, re.M)[1]))  # type: ignore[index]
    return found


def cited(text: str, known: list[str]) -> Iterator[str]:
    """What `text` cites by the form of a subject, of a part of the kernel that some patch is about."""
    parts = {subject.partition(":")[0].partition("/")[0] for subject in known}
    for match in CITED.finditer(text):
        words = " ".join((match[1] or match[2]).split())
        if found := re.match(r"([\w-]+)[\w/-]*: \w", words):
            if found[1] in parts:
                yield words


def headings(text: str) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    return {re.sub(r"[^\w\- ]", "", found.lower()).replace(" ", "-") for found in re.findall(r"^#+ (.*)$", text, re.M)}


def broken_links(text: str, page: Path) -> Iterator[str]:
    """The links of `page`, which has `text`, to files of the repository, or sections of them, that are not there."""
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in link:
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            if not target.exists() or anchor and anchor not in headings(target.read_text(encoding="utf-8")):
                yield link


def missing_files(text: str) -> Iterator[str]:
    """The words in backquotes that begin like a path of the repository and lead nowhere. NAME stands for any name."""
    tops = "|".join(re.escape(path.name) for path in paths.REPO.iterdir() if path.is_dir() and path != paths.BUILD)
    for span in re.findall(r"`([^`\n]+)`", text):
        for word in span.split():
            if re.match(f"({tops})/", word) and not any(paths.REPO.glob(word.replace("NAME", "*").rstrip("/"))):
                yield word


def missing_tests(text: str, cases: list[Case]) -> Iterator[str]:
    """The names FAMILY/FILE/CASE that no test has (an `example` needs none), and what `rig/rig test` is shown with in vain."""
    names = {case.name for case in cases}
    families = "|".join(sorted({name.partition("/")[0] for name in names}))
    for name in re.findall(rf"(?<![\w/.])(?:{families})/(?!example/)\w+/\w+(?:@[\w:+-]+)?(?![\w/]|\.\w)", text):
        if not names & {name, *(known for known in names if known.startswith(f"{name}@"))}:
            yield name
    for pattern in re.findall(r"rig/rig test (?!-|PATTERN)([^\s`]+)", text):
        try:
            suite.select(cases, pattern, full=True)
        except RigError:
            yield pattern


class Subjects(unittest.TestCase):
    def test_every_cited_patch_is_there(self) -> None:
        known = subjects()
        for page in PAGES:
            for words in cited(page.read_text(encoding="utf-8"), known):
                with self.subTest(page=Path(page).name, words=words):
                    self.assertTrue(any(subject.startswith(words) for subject in known), "no patch's subject begins like this")

    def test_what_is_a_citation(self) -> None:
        text = ('`mm/hmm: fix it` and ("mm: add\na thing"), 10b9feee2d0d ("mm/hmm: of others"), `odp_vram: DEREG: x`, `mm/hmm_p2p.h`, '
                '`drm: tell`')
        self.assertEqual(list(cited(text, ["mm/hmm: fix it all", "drm/nouveau: x"])), ["mm/hmm: fix it", "mm: add a thing", "drm: tell"])


class Names(unittest.TestCase):
    def nothing(self, what: str, page: Path, found: Iterable[str]) -> None:
        with self.subTest(page=page.name):
            self.assertEqual(list(found), [], f"{what} that are not there")

    def test_what_is_named_is_there(self) -> None:
        cases = suite.discover()
        for page in PAGES:
            text = page.read_text(encoding="utf-8")
            self.nothing("links", page, broken_links(text, page))
            self.nothing("files", page, missing_files(text))
            self.nothing("tests", page, missing_tests(text, cases))

    def test_what_is_not_there(self) -> None:
        page = paths.REPO / "docs" / "testing.md"
        self.assertEqual(list(broken_links("# A `b`: c\n[x](design.md#kernels) [x](desing.md) [x](#a-b-c) [x](design.md#kernel) [x](https://a.invalid/b)", page)),
                         ["desing.md", "#a-b-c", "design.md#kernel"])
        self.assertEqual(list(missing_files("`rig/vm.py` `rig/rig test` `rig/wm.py` `git am linux/patches/*.patch tests/odb/*_test.py` `mm/hmm.c` `bench/NAME_bench.py` rig/x")),
                         ["rig/wm.py", "tests/odb/*_test.py"])
        cases = suite.discover()
        self.assertEqual(list(missing_tests("checks/docs checks/docs/x gpu/svm/discarded_often. `gpu/svm/discarded_often@odd` topology/example/x kernel/time/clock.c\n"
                                            "    rig/rig test no-such\n    rig/rig test --list\n    rig/rig test hmm", cases)),
                         ["checks/docs/x", "gpu/svm/discarded_often@odd", "no-such"])


if __name__ == "__main__":
    unittest.main()
