# SPDX-License-Identifier: GPL-2.0
"""What the documentation says of the series is there: patches are cited by subjects that they have."""
import re
import unittest
from pathlib import Path
from typing import Iterator

from rig import paths, tree

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


class Subjects(unittest.TestCase):
    def test_every_cited_patch_is_there(self) -> None:
        known = subjects()
        pages = [paths.REPO / "README.md", *sorted((paths.REPO / "docs").glob("*.md"))]
        for page in pages:
            for words in cited(page.read_text(encoding="utf-8"), known):
                with self.subTest(page=Path(page).name, words=words):
                    self.assertTrue(any(subject.startswith(words) for subject in known), "no patch's subject begins like this")

    def test_what_is_a_citation(self) -> None:
        text = ('`mm/hmm: fix it` and ("mm: add\na thing"), 10b9feee2d0d ("mm/hmm: of others"), `odp_vram: DEREG: x`, `mm/hmm_p2p.h`, '
                '`drm: tell`')
        self.assertEqual(list(cited(text, ["mm/hmm: fix it all", "drm/nouveau: x"])), ["mm/hmm: fix it", "mm: add a thing", "drm: tell"])


if __name__ == "__main__":
    unittest.main()
