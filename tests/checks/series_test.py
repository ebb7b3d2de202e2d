# SPDX-License-Identifier: GPL-2.0
"""The series as files: the round trip is exact, every patch is in the form that upstream asks for."""
import re
import subprocess
import tempfile
import unittest
from collections import Counter
from pathlib import Path

from rig import paths, tree
from rig.git import git

IGNORED_TYPES = "UNKNOWN_COMMIT_ID,FILE_PATH_CHANGES"
# Only the person who submits a patch upstream can give these.
PERSONAL_TAGS = re.compile(r"^(Signed-off-by|Co-developed-by|Reviewed-by|Acked-by|Tested-by):", re.M)


def kernel_doc(commit: str, names: list[str], place: Path) -> Counter[str]:
    """What scripts/kernel-doc says about the files `names` of `commit`, which are copied to `place`."""
    there = set(git(tree.TREE, "ls-tree", "-r", "--name-only", commit, "--", *names).splitlines())
    for name in there:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(git(tree.TREE, "show", f"{commit}:{name}") + "\n", encoding="utf-8")
    done = subprocess.run([tree.TREE / "scripts" / "kernel-doc", "-none", "-Wall", *sorted(there)], cwd=place,
                          capture_output=True, text=True)
    lines = (done.stdout + done.stderr).splitlines()
    return Counter(re.sub(r"^(\w+: [^:]+):\d+", r"\1", line) for line in lines if line)


class RoundTrip(unittest.TestCase):
    def test_am_and_format_patch_reproduce_every_byte(self) -> None:
        self.assertEqual(tree.round_trip(), [], "run 'make tree' and 'make patches', and commit the result")

    def test_base_commit_is_the_pinned_one(self) -> None:
        found, origin = git(tree.TREE, "rev-parse", tree.BASE), tree.base_origin()
        if found != tree.base_commit() and origin and not origin.startswith("Debian's"):
            self.skipTest(f"build/linux was made of {origin}")
        self.assertEqual(found, tree.base_commit())


class Patches(unittest.TestCase):
    def test_there_are_patches(self) -> None:
        self.assertTrue(tree.patch_files())

    def test_checkpatch(self) -> None:
        # All in one go: checkpatch reads its lists for longer than it does a patch.
        done = subprocess.run(
            ["perl", tree.TREE / "scripts" / "checkpatch.pl", f"--root={tree.TREE}", "--strict", "--no-signoff", "--quiet",
             "--no-summary", f"--ignore={IGNORED_TYPES}", *tree.patch_files()], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout), (0, ""), done.stdout + done.stderr)

    def test_kernel_doc(self) -> None:
        """The comments of functions and structures say all that scripts/kernel-doc asks for, where the base's did."""
        names = [name for name in git(tree.TREE, "diff", "--name-only", "--diff-filter=d", tree.BASE, tree.series_commit(), "--",
                                      "*.[ch]").splitlines() if not name.startswith("tools/")]
        self.assertTrue(names)
        with tempfile.TemporaryDirectory() as place:
            said = [kernel_doc(commit, names, Path(place) / commit) for commit in (tree.BASE, tree.series_commit())]
        self.assertEqual(said[1] - said[0], Counter())

    def test_no_personal_tags(self) -> None:
        for patch in tree.patch_files():
            with self.subTest(patch=patch.name):
                self.assertIsNone(PERSONAL_TAGS.search(patch.read_text(encoding="utf-8")))

    def test_file_names_are_numbered_without_a_gap(self) -> None:
        numbers = [int(p.name[:4]) for p in tree.patch_files()]
        self.assertEqual(numbers, list(range(1, len(numbers) + 1)))


class Wiring(unittest.TestCase):
    def test_qemu_patches_only_wire(self) -> None:
        from rig import qemu
        self.assertLessEqual(qemu.wiring_lines(), 100, "new code belongs into the overlay, not into qemu/patches")
        for patch in sorted((paths.REPO / "qemu" / "patches").glob("*.patch")):
            with self.subTest(patch=patch.name):
                self.assertNotIn("--- /dev/null", patch.read_text(encoding="utf-8"))


if __name__ == "__main__":
    unittest.main()
