# SPDX-License-Identifier: GPL-2.0
"""Pins, versions, and what a user may name as KERNEL_SRC: trees, repositories and tarballs of four lines."""
import io
import os
import subprocess
import tarfile
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from rig import download, fetch, unpack
from rig import git as git_module
from rig.ui import RigError

MAKEFILE = "# SPDX\nVERSION = {}\nPATCHLEVEL = {}\nSUBLEVEL = {}\nEXTRAVERSION = {}\nNAME = Test\n"


def make_tree(top: Path, version: str = "7.3.4") -> Path:
    """The least that passes for a kernel tree."""
    (top / "mm").mkdir(parents=True)
    (top / "mm" / "hmm.c").write_text("/* hmm */\n")
    (top / "Kconfig").touch()
    (top / "Makefile").write_text(MAKEFILE.format(*version.split("."), ""))
    return top


class Pins(unittest.TestCase):
    def test_base_files(self) -> None:
        for project in (fetch.KERNEL, fetch.QEMU):
            pin = project.pin
            pins = [pin["debian"], *pin.get("firmware", []), *pin.get("meson", [])]
            self.assertEqual(pin["tag"], "v" + pin["version"])
            self.assertEqual(fetch.upstream_version(pin["debian"]["version"]), pin["version"])
            self.assertTrue(pin["upstream"]["url"].endswith(f"-{pin['version']}.tar.xz"))
            for one in pins:
                self.assertRegex(one["sha256"], "^[0-9a-f]{64}$")

    def test_upstream_version(self) -> None:
        for debian, upstream in (("7.3.4-1~bpo13+1", "7.3.4"), ("1:10.0.13+ds-0+deb13u1", "10.0.13"), ("7.4~rc3-1~exp1", "7.4")):
            self.assertEqual(fetch.upstream_version(debian), upstream)

    def test_dsc(self) -> None:
        digest = "ab" * 32
        text = f"Files:\n 0123 5 x.orig.tar.xz\nChecksums-Sha256:\n {digest} 5 x.orig.tar.xz\n {digest} 6 x.orig.tar.xz.asc\n"
        self.assertEqual(fetch.dsc_files(text), [download.Pinned("x.orig.tar.xz", digest, 5)])

    def test_pinned_version_left_the_archive(self) -> None:
        archive = mock.Mock(updated=False)
        archive.versions.return_value = [("7.3.6-1~bpo13+1", "trixie-backports")]
        archive.binary.side_effect = lambda name, version: mock.Mock(sha256="cd" * 32) if version.startswith("7.3.6") else None
        with mock.patch.object(fetch, "archive", lambda: archive), mock.patch.object(download, "cached", return_value=None), \
             mock.patch.object(download, "locked"), self.assertRaises(RigError) as caught:
            fetch.deb(fetch.KERNEL.pin["debian"], fetch.KERNEL.base)
        archive.update.assert_called_with(force=True)
        for words in ("7.3.4-1~bpo13+1 has left", "7.3.6-1~bpo13+1", "linux/BASE", 'sha256 = "' + "cd" * 32, "version and tag to 7.3.6"):
            self.assertIn(words, str(caught.exception))

    def test_lists_that_are_older_than_the_archive(self) -> None:
        """The old lists still have the version, the archive has not: only an update tells what there is now."""
        pin = fetch.KERNEL.pin["debian"]
        for network in (True, False):
            archive = mock.Mock(updated=False)

            def update(force: bool = False) -> None:
                if force and not network:
                    raise RigError("no network")
                archive.updated = archive.updated or force

            archive.update.side_effect = update
            archive.binary.side_effect = lambda name, version: (
                mock.Mock(sha256="cd" * 32, size=5) if version.startswith("7.3.6") else
                None if archive.updated else mock.Mock(sha256=pin["sha256"], size=5))
            archive.versions.return_value = [("7.3.6-1~bpo13+1", "trixie-backports")]
            with self.subTest(network=network), mock.patch.object(fetch, "archive", lambda: archive), \
                 mock.patch.object(download, "cached", return_value=None), mock.patch.object(download, "locked"), \
                 mock.patch.object(download, "obtain", side_effect=RigError("404 Not Found")), \
                 self.assertRaisesRegex(RigError, "has left the archive.*7.3.6" if network else "404 Not Found"):
                fetch.deb(pin, fetch.KERNEL.base)

    def test_archive_offers_another_hash(self) -> None:
        archive = mock.Mock()
        archive.binary.return_value = mock.Mock(sha256="cd" * 32)
        with mock.patch.object(fetch, "archive", lambda: archive), mock.patch.object(download, "cached", return_value=None), \
             mock.patch.object(download, "locked"), self.assertRaisesRegex(download.Corrupt, "cd" * 32):
            fetch.deb(fetch.KERNEL.pin["debian"], fetch.KERNEL.base)

    def test_all_ways_fail(self) -> None:
        with mock.patch.object(fetch, "deb", side_effect=RigError("no network")), mock.patch.dict(os.environ, {"KERNEL_SRC": "", "KERNEL_SHA256": ""}), \
             self.assertRaises(RigError) as caught:
            fetch.kernel_source()
        for words in ("no network", "upstream's release", "KERNEL_SHA256", "set KERNEL_SRC"):
            self.assertIn(words, str(caught.exception))

    def test_corrupt_file_does_not_hide_behind_another_source(self) -> None:
        with mock.patch.object(fetch, "deb", side_effect=download.Corrupt("bad")), mock.patch.object(fetch, "_upstream") as upstream, \
             mock.patch.dict(os.environ, {"KERNEL_SRC": ""}), self.assertRaises(download.Corrupt):
            fetch.kernel_source()
        upstream.assert_not_called()


class UserSource(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory(prefix="with space ")
        self.addCleanup(scratch.cleanup)
        self.top = Path(scratch.name)
        self.dest = self.top / "out" / "linux"

    def unpack(self, source: Path) -> str:
        with mock.patch.dict(os.environ, {"KERNEL_SRC": str(source)}):
            return fetch.unpack_kernel(self.dest)

    def refused(self, source: Path, words: str) -> None:
        with self.assertRaisesRegex(RigError, words):
            self.unpack(source)
        self.assertFalse(self.dest.exists())
        self.assertEqual(list(self.dest.parent.glob(".*")) if self.dest.parent.exists() else [], [], "left something behind")

    def test_tree(self) -> None:
        self.unpack(make_tree(self.top / "tree"))
        self.assertEqual((self.dest / "mm/hmm.c").read_text(), "/* hmm */\n")

    def test_tree_of_another_version(self) -> None:
        self.refused(make_tree(self.top / "tree", "7.3.5"), "Linux 7.3.5, and 7.3.4 is needed")

    def test_no_kernel(self) -> None:
        (self.top / "tree").mkdir()
        with mock.patch.object(unpack, "pipe") as copy:
            self.refused(self.top / "tree", "not a Linux source")
        copy.assert_not_called()

    def test_built_tree(self) -> None:
        tree = make_tree(self.top / "tree")
        (tree / ".config").touch()
        self.refused(tree, "mrproper")

    def test_nothing_there(self) -> None:
        self.refused(self.top / "nothing", "does not exist")

    def test_no_tarball(self) -> None:
        (self.top / "file.tar").write_text("not a tarball")
        self.refused(self.top / "file.tar", "neither a source tree nor a tarball")

    def test_dest_exists(self) -> None:
        self.dest.mkdir(parents=True)
        with self.assertRaisesRegex(RigError, "exists already"):
            self.unpack(make_tree(self.top / "tree"))

    def test_tarball(self) -> None:
        make_tree(self.top / "linux-7.3.4")
        with tarfile.open(self.top / "linux.tar.xz", "w:xz") as tar:
            tar.add(self.top / "linux-7.3.4", "linux-7.3.4")
        self.unpack(self.top / "linux.tar.xz")
        self.assertTrue((self.dest / "mm/hmm.c").exists())

    def test_truncated_tarball(self) -> None:
        tree = make_tree(self.top / "linux-7.3.4")
        (tree / "mm" / "noise").write_bytes(os.urandom(100000))
        whole = io.BytesIO()
        with tarfile.open(fileobj=whole, mode="w:xz") as tar:
            tar.add(tree, "linux-7.3.4")
        (self.top / "linux.tar.xz").write_bytes(whole.getvalue()[:60000])
        self.refused(self.top / "linux.tar.xz", "unpacking linux.tar.xz failed")

    def test_repository(self) -> None:
        tree = make_tree(self.top / "repository")

        def git(*args: str) -> None:
            subprocess.run(["git", "-C", tree, "-c", "user.name=dev", "-c", "user.email=dev@example.invalid", *args], check=True)
        git("init", "-q")
        git("add", "-A")
        git("commit", "-q", "-m", "base")
        self.refused(tree, "has no tag v7.3.4")
        git("tag", "v7.3.4")
        (tree / "mm" / "hmm.c").write_text("edited, not committed\n")
        # As if the files belonged to somebody else, which git accepts because the rig tells it to.
        with mock.patch.dict(git_module._ISOLATED, {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}):
            self.unpack(tree)
        self.assertEqual((self.dest / "mm/hmm.c").read_text(), "/* hmm */\n")
        self.assertFalse((self.dest / ".git").exists())

    def test_broken_repository(self) -> None:
        """One that git cannot use is not taken for a tree, nor for a part of the repository around it."""
        subprocess.run(["git", "init", "-q", self.top], check=True)
        tree = make_tree(self.top / "tree")
        (tree / ".git").write_text("gitdir: /nonexistent/worktrees/tree\n")
        self.refused(tree, "has a .git(?s:.*)/nonexistent/worktrees/tree(?s:.*)KERNEL_SRC")
        (tree / ".git").unlink()
        (tree / ".git").mkdir()
        self.refused(tree, "has a .git(?s:.*)not a git repository")


class Versions(unittest.TestCase):
    def test_linux(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            top = Path(name)
            self.assertEqual(fetch.linux_version(top), "")
            for text, version in ((MAKEFILE.format(7, 3, 4, ""), "7.3.4"), (MAKEFILE.format(7, 4, 0, "-rc1"), "7.4-rc1"), ("all:\n", "")):
                (top / "Makefile").write_text(text)
                self.assertEqual(fetch.linux_version(top), version)

    def test_series(self) -> None:
        self.assertEqual(unpack.patch_series("# head\na.patch\n\nb.diff -p1 # why\n"), ["a.patch", "b.diff"])


if __name__ == "__main__":
    unittest.main()
