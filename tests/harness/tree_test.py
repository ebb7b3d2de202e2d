# SPDX-License-Identifier: GPL-2.0
"""`make tree` and `make patches` on a tree of three lines: exact both ways, and no way to lose work."""
import subprocess
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from rig import paths, tree
from rig.git import git
from rig.ui import RigError

AUTHOR = {"GIT_AUTHOR_NAME": "A U Thor", "GIT_AUTHOR_EMAIL": "thor@example.invalid",
          "GIT_AUTHOR_DATE": "2026-02-03T04:05:06 +0100", "GIT_COMMITTER_DATE": "2026-02-03T04:05:06 +0100"}


class TreeCase(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.top = Path(scratch.name)
        self.tree = self.top / "build" / "linux"
        self.patches = self.top / "linux" / "patches"
        self.tree.mkdir(parents=True)
        self.patches.mkdir(parents=True)
        git(self.tree, "init", "-q", "--initial-branch=base")
        for key, value in (("user.name", "dev"), ("user.email", "dev@example.invalid")):
            git(self.tree, "config", key, value)
        (self.tree / "file.c").write_text("one\ntwo\nthree\n")
        git(self.tree, "add", "-A")
        git(self.tree, "commit", "-q", "-m", "base", env=AUTHOR)
        git(self.tree, "switch", "-q", "-c", "series")
        for target, name, value in ((tree, "TREE", self.tree), (tree, "PATCHES", self.patches),
                                    (tree, "COVER_LETTER", self.top / "linux" / "cover-letter.txt"),
                                    (paths, "BUILD", self.top / "build"), (paths, "REPO", self.top)):
            patcher = mock.patch.object(target, name, value)
            patcher.start()
            self.addCleanup(patcher.stop)

    def commit(self, text: str, subject: str) -> str:
        (self.tree / "file.c").write_text(text)
        git(self.tree, "commit", "-q", "-a", "-m", f"{subject}\n\nBecause.", env=AUTHOR)
        return self.head()

    def head(self) -> str:
        return git(self.tree, "rev-parse", "HEAD")

    def content(self) -> str:
        return (self.tree / "file.c").read_text()

    def refused(self, words: str) -> None:
        before = self.head(), self.content()
        with self.assertRaisesRegex(RigError, words):
            tree.make_tree()
        self.assertEqual((self.head(), self.content()), before)


class RoundTrip(TreeCase):
    def test_patches_come_out_as_they_went_in(self) -> None:
        self.commit("one\n2\nthree\n", "spell two as a digit")
        self.commit("one\n2\n3\n", "spell three as a digit")
        tree.make_patches()
        names = [p.name for p in tree.patch_files()]
        self.assertEqual(names, ["0001-spell-two-as-a-digit.patch", "0002-spell-three-as-a-digit.patch"])
        self.assertEqual(tree.round_trip(), [])
        self.assertIn("From 0000000000000000000000000000000000000000", (self.patches / names[0]).read_text())

    def test_an_edited_patch_is_noticed(self) -> None:
        self.commit("one\n2\nthree\n", "spell two as a digit")
        tree.make_patches()
        patch = tree.patch_files()[0]
        patch.write_text(patch.read_text().replace("[PATCH] spell", "[PATCH 1/1] spell"))
        self.assertEqual(tree.round_trip(), [patch.name])

    def test_stale_patches_go(self) -> None:
        self.commit("one\n2\nthree\n", "first name")
        tree.make_patches()
        git(self.tree, "commit", "-q", "--amend", "-m", "second name")
        tree.make_patches()
        self.assertEqual([p.name for p in self.patches.iterdir()], ["0001-second-name.patch"])

    def test_the_cover_letter_does_not_stop_git_am(self) -> None:
        (self.top / "linux" / "cover-letter.txt").write_text("the subject\n\nThe text.\n")
        self.commit("one\n2\nthree\n", "spell two as a digit")
        tree.make_patches()
        self.assertIn("Subject: [PATCH] the subject", (self.patches / tree.COVER_OUTPUT).read_text())
        self.assertEqual(tree.round_trip(), [])
        git(self.tree, "switch", "-q", "-c", "user", "base")
        subprocess.run(f"git -C '{self.tree}' am -q '{self.patches}'/*.patch", shell=True, check=True)
        self.assertEqual(self.content(), "one\n2\nthree\n")


class NothingIsLost(TreeCase):
    def setUp(self) -> None:
        super().setUp()
        self.commit("one\n2\nthree\n", "spell two as a digit")
        tree.make_patches()
        tree.make_tree()

    def test_nothing_to_do(self) -> None:
        before = self.head()
        tree.make_tree()
        self.assertEqual(self.head(), before)

    def test_changed_patches_are_applied_and_the_old_tip_is_kept(self) -> None:
        old = self.head()
        patch = tree.patch_files()[0]
        patch.write_text(patch.read_text().replace("+2", "+II"))
        tree.make_tree()
        self.assertEqual(self.content(), "one\nII\nthree\n")
        kept = git(self.tree, "for-each-ref", "--format=%(objectname)", tree.PREVIOUS).split()
        self.assertIn(old, kept)

    def test_commits_that_were_not_exported(self) -> None:
        self.commit("one\n2\n3\n", "precious")
        self.refused("precious")

    def test_edits(self) -> None:
        patch = tree.patch_files()[0]
        patch.write_text(patch.read_text().replace("+2", "+II"))
        (self.tree / "file.c").write_text("edited\n")
        self.refused("not committed")

    def test_files_that_git_does_not_know(self) -> None:
        patch = tree.patch_files()[0]
        patch.write_text(patch.read_text().replace("+2", "+II"))
        (self.tree / "new.c").write_text("new\n")
        self.refused("new.c")

    def test_a_patch_that_does_not_apply(self) -> None:
        patch = tree.patch_files()[0]
        patch.write_text(patch.read_text().replace("-two", "-deux"))
        self.refused(r"0001-spell-two-as-a-digit\.patch does not apply")
        self.assertEqual(git(self.tree, "worktree", "list").count("\n"), 0)

    def test_another_branch(self) -> None:
        git(self.tree, "switch", "-q", "-c", "mine", "base")
        self.commit("mine\n", "mine")
        self.refused("on branch mine")

    def test_an_unfinished_am(self) -> None:
        (Path(git(self.tree, "rev-parse", "--absolute-git-dir")) / "rebase-apply").mkdir()
        self.refused("git am is in progress")

    def test_clean_keeps_what_exists_nowhere_else(self) -> None:
        tree.refuse_if_unsaved()
        git(self.tree, "switch", "-q", "-c", "mine")
        self.commit("one\n2\n3\n", "precious")
        git(self.tree, "switch", "-q", "series")
        with self.assertRaisesRegex(RigError, "'mine'"):
            tree.refuse_if_unsaved()

    def test_a_merge_is_not_exported(self) -> None:
        git(self.tree, "switch", "-q", "-c", "side", "base")
        (self.tree / "side.c").write_text("side\n")
        git(self.tree, "add", "-A")
        git(self.tree, "commit", "-q", "-m", "side", env=AUTHOR)
        git(self.tree, "switch", "-q", "series")
        git(self.tree, "merge", "-q", "--no-ff", "-m", "merge", "side", env=AUTHOR)
        with self.assertRaisesRegex(RigError, "merge commit"):
            tree.make_patches()


if __name__ == "__main__":
    unittest.main()
