# SPDX-License-Identifier: GPL-2.0
"""The repository's own files: licences, shell, Python, nothing that belongs to one machine."""
import re
import shutil
import subprocess
import unittest
from pathlib import Path

from rig import paths
from rig.git import git

# Licence texts, patches, and formats that have no comments.
NO_SPDX = re.compile(r"^(COPYING|linux/patches/.*|linux/cover-letter\.txt|guest/packages\.lock|guest/files/etc/.*|"
                     r"qemu/patches/.*|tests/harness/samples/.*)$")
# A home directory, spelt so that this line is not one.
HOMES = r"/home/[a-z]+/|/roo[t]/\.|/wor[k]/"


def tracked() -> list[Path]:
    """Every file of the repository that git would commit."""
    names = git(paths.REPO, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    return [paths.REPO / name for name in names if name and (paths.REPO / name).is_file()]


def name(file: Path) -> str:
    return file.relative_to(paths.REPO).as_posix()


def first_line(file: Path) -> str:
    with open(file, encoding="utf-8", errors="replace") as text:
        return text.readline()


class Licences(unittest.TestCase):
    def test_every_file_names_its_licence(self) -> None:
        for file in tracked():
            if NO_SPDX.match(name(file)):
                continue
            with self.subTest(file=name(file)):
                head = file.read_text(encoding="utf-8", errors="replace")[:2000]
                wanted = "GPL-2.0-or-later" if name(file).startswith("qemu/") else "GPL-2.0"
                self.assertRegex(head, rf"SPDX-License-Identifier: {re.escape(wanted)}(\s|$)")


@unittest.skipUnless(shutil.which("shellcheck"), "shellcheck is not installed")
class Shell(unittest.TestCase):
    def test_shellcheck(self) -> None:
        scripts = [f for f in tracked() if re.match(r"#!.*\b(ba|da)?sh\b", first_line(f))]
        self.assertTrue(scripts)
        done = subprocess.run(["shellcheck", "--severity=style", *map(str, scripts)], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


class Python(unittest.TestCase):
    @unittest.skipUnless(shutil.which("mypy"), "mypy is not installed")
    def test_types(self) -> None:
        done = subprocess.run([shutil.which("mypy") or "mypy", "--no-incremental", "--cache-dir=/dev/null",
                               "--check-untyped-defs", "--explicit-package-bases", "--namespace-packages",
                               "--python-version=3.11", "rig", "tests", "bench"], cwd=paths.REPO, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_syntax(self) -> None:
        for file in tracked():
            if file.suffix == ".py" or re.match(r"#!.*\bpython3", first_line(file)):
                with self.subTest(file=name(file)):
                    compile(file.read_text(encoding="utf-8"), name(file), "exec")


class Portable(unittest.TestCase):
    def test_no_place_of_one_machine(self) -> None:
        here = re.compile(HOMES + "|" + re.escape(str(paths.REPO)))
        for file in tracked():
            with self.subTest(file=name(file)):
                self.assertIsNone(here.search(file.read_text(encoding="utf-8", errors="replace")))


if __name__ == "__main__":
    unittest.main()
