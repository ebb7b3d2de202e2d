# SPDX-License-Identifier: GPL-2.0
"""`make tree` and `make patches` on a tree of three lines: exact both ways, and no way to lose work."""
import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from rig import fetch, paths, tree
from rig.git import git, succeeds
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
        git(self.tree, "commit", "-q", "-m", f"Linux {fetch.KERNEL.pin['version']}", env=AUTHOR)
        git(self.tree, "switch", "-q", "-c", "series")
        for target, name, place in ((tree, "TREE", self.tree), (tree, "PATCHES", self.patches),
                                    (tree, "COVER_LETTER", self.top / "linux" / "cover-letter.txt"),
                                    (paths, "BUILD", self.top / "build"), (paths, "REPO", self.top)):
            patcher = mock.patch.object(target, name, place)
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
        self.not_cleaned("'mine'(?s:.*)branch -D mine")

    def test_clean_keeps_what_has_another_name_than_a_branch(self) -> None:
        git(self.tree, "switch", "-q", "--detach")
        self.commit("one\n2\n3\n", "precious")
        self.not_cleaned("the detached HEAD(?s:.*)'make patches'")
        git(self.tree, "tag", "-a", "-m", "tag", "mine")
        git(self.tree, "switch", "-q", "series")
        self.not_cleaned("tag 'mine'(?s:.*)tag -d mine")
        git(self.tree, "tag", "-d", "mine")
        tree.refuse_if_unsaved()
        (self.tree / "file.c").write_text("one\n2\nIII\n")
        git(self.tree, "stash", "-q")
        self.not_cleaned("the stash(?s:.*)stash pop(?s:.*)stash drop")

    def test_clean_takes_what_linux_patches_has_by_any_name(self) -> None:
        self.commit("one\n2\n3\n", "spell three as a digit")
        git(self.tree, "branch", "half", "HEAD~1")
        git(self.tree, "tag", "whole")
        tree.make_patches()
        tree.refuse_if_unsaved()

    def test_clean_keeps_patches_that_git_does_not_show(self) -> None:
        (self.tree / ".gitignore").write_text("*.patch\n*.o\n")
        git(self.tree, "add", "-A")
        git(self.tree, "commit", "-q", "-m", "ignore", env=AUTHOR)
        tree.make_patches()
        (self.tree / "file.o").touch()
        tree.refuse_if_unsaved()
        (self.tree / "mine.patch").touch()
        self.not_cleaned("mine.patch")

    def not_cleaned(self, words: str) -> None:
        with self.assertRaisesRegex(RigError, words):
            tree.refuse_if_unsaved()

    def test_patches_that_were_edited_by_hand_are_not_replaced(self) -> None:
        git(self.top, "init", "-q")
        git(self.top, "add", "linux")
        git(self.top, "commit", "-q", "-m", "patches", env=AUTHOR)
        patch = tree.patch_files()[0]
        ours = patch.read_text()
        patch.write_text(ours.replace("Because.", "For a reason."))
        with self.assertRaisesRegex(RigError, f"has changed(?s:.*){patch.name}"):
            tree.make_patches()
        self.assertIn("For a reason.", patch.read_text())
        git(self.top, "commit", "-q", "-a", "-m", "edited", env=AUTHOR)
        tree.make_patches()
        self.assertEqual(patch.read_text(), ours)

    def test_what_make_patches_wrote_it_replaces(self) -> None:
        git(self.top, "init", "-q")
        self.commit("one\n2\n3\n", "spell three as a digit")
        tree.make_patches()
        self.commit("I\n2\n3\n", "spell one in the Roman way")
        tree.make_patches()
        self.assertEqual(len(tree.patch_files()), 3)

    def test_a_commit_that_comes_after_the_export_is_not_safe(self) -> None:
        export = tree.export

        def and_another(commit: str, directory: Path) -> list[Path]:
            made = export(commit, directory)
            self.commit("precious\n", "precious")
            return made

        self.commit("one\n2\n3\n", "spell three as a digit")
        with mock.patch.object(tree, "export", and_another):
            tree.make_patches()
        self.not_cleaned("'series'")

    def test_a_merge_is_not_exported(self) -> None:
        git(self.tree, "switch", "-q", "-c", "side", "base")
        (self.tree / "side.c").write_text("side\n")
        git(self.tree, "add", "-A")
        git(self.tree, "commit", "-q", "-m", "side", env=AUTHOR)
        git(self.tree, "switch", "-q", "series")
        git(self.tree, "merge", "-q", "--no-ff", "-m", "merge", "side", env=AUTHOR)
        with self.assertRaisesRegex(RigError, "merge commit"):
            tree.make_patches()


class WorkTrees(TreeCase):
    def setUp(self) -> None:
        super().setUp()
        self.work = self.top / "build" / "base" / "linux"

    def have(self) -> str:
        tree.have_work_tree(self.work, tree.BASE)
        self.assertEqual(git(self.work, "status", "--porcelain"), "")
        return (self.work / "file.c").read_text()

    def test_edits_go_and_what_did_not_change_keeps_its_time(self) -> None:
        (self.tree / "other.c").write_text("other\n")
        git(self.tree, "add", "-A")
        git(self.tree, "commit", "-q", "-m", "other", env=AUTHOR)
        git(self.tree, "branch", "-q", "-f", "base")
        self.have()
        before = (self.work / "other.c").stat().st_mtime_ns
        (self.work / "file.c").write_text("edited\n")
        self.assertEqual(self.have(), "one\ntwo\nthree\n")
        self.assertEqual((self.work / "other.c").stat().st_mtime_ns, before)

    def test_half_made_ones(self) -> None:
        for name in (".git", "file.c"):
            with self.subTest(missing=name):
                self.have()
                entry = Path(git(self.work, "rev-parse", "--absolute-git-dir"))
                (entry / "locked").write_text("initializing")
                (entry / "index").unlink()
                (self.work / name).unlink()
                (self.work / "left.c").touch()
                self.assertEqual(self.have(), "one\ntwo\nthree\n")
                self.assertFalse((self.work / "left.c").exists())
                self.assertEqual(git(self.tree, "worktree", "list").count("\n"), 1)

    def test_a_copy_has_nothing_to_do_with_the_original(self) -> None:
        self.have()
        copy = self.top / "copy"
        shutil.copytree(self.top / "build", copy, symlinks=True)
        self.tree, self.work = copy / "linux", copy / "base" / "linux"
        with mock.patch.object(tree, "TREE", self.tree):
            self.have()
        self.assertEqual(Path(git(self.work, "rev-parse", "--absolute-git-dir")).parent.parent, self.tree / ".git")

    def test_what_a_killed_rig_has_left(self) -> None:
        for name in ("am-dead", "am-busy", "am-new"):
            git(self.tree, "worktree", "add", "-q", "--detach", str(self.top / "build" / name / "work"), "base")
            if name != "am-new":
                os.utime(self.top / "build" / name, (1, 1))
        with tree._in_use(self.top / "build" / "am-busy"):
            tree.make_base()
        self.assertEqual(sorted(p.name for p in (self.top / "build").glob("am-*")), ["am-busy", "am-new"])
        self.assertEqual(git(self.tree, "worktree", "list").count("\n"), 2)


class Bases(TreeCase):
    def test_another_base_is_another_kernel(self) -> None:
        with mock.patch.object(tree, "base_commit", return_value=git(self.tree, "rev-parse", "base")):
            pinned = tree.content_digest()
            self.commit("other\n", "another base")
            git(self.tree, "branch", "-q", "-f", "base")
            self.assertNotEqual(tree.content_digest(), pinned)
            with mock.patch.object(tree, "TREE", self.top / "none"):
                self.assertEqual(tree.content_digest(), pinned, "without a tree it is the pinned base")

    def test_linux_base_has_moved(self) -> None:
        self.commit("one\n2\nthree\n", "spell two as a digit")
        pin = fetch.KERNEL.pin
        ways: list[tuple[str, dict[str, str], bool]] = [
            ("Debian's linux-source 1", {"commit": git(self.tree, "rev-parse", "base")}, False),
            ("Debian's linux-source 1", {}, True),      # another revision of Debian's
            ("KERNEL_SRC=/there", {}, False), ("KERNEL_SRC=/there", {"version": "7.3.5"}, True)]
        for origin, now, old in ways:
            git(self.tree, "config", "hmm-p2p.baseOrigin", origin)
            with self.subTest(origin=origin, now=now), mock.patch.object(fetch.Project, "pin", {**pin, **now}):
                if old:
                    self.refused("has another base(?s:.*)'rig/rig patches'(?s:.*)move build/linux away")
                else:
                    tree.make_base()
        tree.make_patches()
        self.assertEqual(len(tree.patch_files()), 1)

    def test_the_author_of_commits_is_who_makes_them(self) -> None:
        def unpack(dest: Path) -> str:
            dest.mkdir()
            (dest / "file.c").write_text("one\n")
            return "KERNEL_SRC=/there"

        with mock.patch.object(tree, "TREE", self.top / "build" / "new"), mock.patch.object(fetch, "unpack_kernel", unpack):
            tree.make_base()
            self.assertFalse(succeeds(tree.TREE, "config", "user.name"))
            self.assertEqual(git(tree.TREE, "log", "-1", "--format=%an, %cn"), "hmm-p2p developers, hmm-p2p developers")
            for given, said in (("/there", ""), ("/elsewhere", "KERNEL_SRC is ignored: .* was made of KERNEL_SRC=/there")):
                with mock.patch.dict(os.environ, {"KERNEL_SRC": given}), mock.patch.object(fetch, "say") as say:
                    tree.make_base()
                    self.assertRegex(str(say.call_args), said if said else "^None$")


if __name__ == "__main__":
    unittest.main()
