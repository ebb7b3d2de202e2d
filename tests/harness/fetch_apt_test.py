# SPDX-License-Identifier: GPL-2.0
"""What the private apt makes of apt's output, with no apt and no network."""
import contextlib
import io
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from rig import apt
from rig.ui import RigError

URIS = """\
NOTICE: 'qemu' packaging is maintained in the 'Git' version control system at:
'http://mirror.invalid/debian/pool/main/q/qemu/qemu_1%2bds-1.dsc' qemu_1+ds-1.dsc 12 SHA256:AB12
'http://mirror.invalid/debian/pool/main/k/kmod/kmod_34.2-2_amd64.deb' kmod_34.2-2_amd64.deb 95704 MD5Sum:9edb
"""


class Mirrors(unittest.TestCase):
    def test_debian(self) -> None:
        found = apt.debian_mirrors(["http://one.invalid/debian/|bookworm", "http://one.invalid/debian/|bookworm-updates",
                                    "http://two.invalid/security/|bookworm-security"])
        self.assertEqual(found, {"archive": "http://one.invalid/debian/", "security": "http://two.invalid/security/"})

    def test_others_are_not_debian(self) -> None:
        self.assertEqual(apt.debian_mirrors(["http://u.invalid/ubuntu/|noble", "https://deb.invalid/node_20.x/|nodistro", "", "junk"]), {})

    def test_third_party_beside_debian(self) -> None:
        found = apt.debian_mirrors(["https://x.invalid/sdk/|cloud-sdk", "http://m.invalid/debian|stable", "http://m.invalid/s|stable/updates"])
        self.assertEqual(found, {"archive": "http://m.invalid/debian", "security": "http://m.invalid/s"})

    def test_third_party_with_a_suite_of_debians_name(self) -> None:
        vendor, flat = "https://x.invalid/repos/azure-cli/|bookworm", "https://y.invalid/|stable"
        for debian, expected in ((["http://m.invalid/deb/|bookworm", "http://m.invalid/deb/|bookworm-updates"], "http://m.invalid/deb/"),
                                 (["http://m.invalid/debian/|bookworm"], "http://m.invalid/debian/"),
                                 (["http://m.invalid/deb/|bookworm"], "https://x.invalid/repos/azure-cli/")):
            with self.subTest(debian=debian):
                self.assertEqual(apt.debian_mirrors([vendor, flat, *debian]), {"archive": expected})

    def test_a_failed_update_names_the_mirrors(self) -> None:
        mirrors = {"archive": "http://me:secret@m.invalid/debian/", "security": "http://s.invalid/"}
        with tempfile.TemporaryDirectory() as scratch, mock.patch.object(apt, "find_mirrors", return_value=mirrors), \
             mock.patch.object(apt, "find_keyring", return_value="/k.gpg"), mock.patch.object(apt.room, "need"), \
             mock.patch.object(apt.proc, "run", side_effect=RigError("E: no Release file")), \
             contextlib.redirect_stderr(io.StringIO()), self.assertRaises(RigError) as caught:
            apt.Archive(Path(scratch)).update()
        self.assertRegex(str(caught.exception), "no Release file\n.*http://m.invalid/debian/ and http://s.invalid/; RIG_DEBIAN_MIRROR= names")

    def test_no_debian_mirror_is_an_error_that_says_what_to_set(self) -> None:
        with mock.patch.object(apt, "_query", return_value="http://u.invalid/ubuntu/|noble\n"), \
             mock.patch.object(apt.shutil, "which", return_value="/usr/bin/apt-get"), \
             mock.patch.object(apt.os.path, "exists", return_value=True), mock.patch.dict(apt.os.environ, clear=True), \
             self.assertRaisesRegex(RigError, "RIG_DEBIAN_MIRROR"):
            apt.find_mirrors.__wrapped__()

    def test_missing_keyring(self) -> None:
        with mock.patch.dict(apt.os.environ, {"RIG_DEBIAN_KEYRING": "/nonexistent.gpg"}), self.assertRaisesRegex(RigError, "/nonexistent.gpg"):
            apt.find_keyring()

    def test_sources(self) -> None:
        text = apt.sources_stanzas({"archive": "http://a.invalid/", "security": "http://s.invalid/"}, "/k.gpg", "trixie")
        stanzas = list(apt.parse_stanzas(text))
        self.assertEqual([(s["Types"], s["Suites"]) for s in stanzas],
                         [("deb", "trixie trixie-updates trixie-backports"), ("deb-src", "trixie trixie-updates trixie-backports"),
                          ("deb", "trixie-security"), ("deb-src", "trixie-security")])
        self.assertTrue(all(s["Signed-By"] == "/k.gpg" for s in stanzas))


class Output(unittest.TestCase):
    def test_uris(self) -> None:
        self.assertEqual([row[1:] for row in apt.parse_uris(URIS)],
                         [("qemu_1+ds-1.dsc", 12, "ab12"), ("kmod_34.2-2_amd64.deb", 95704, "")])

    def test_madison(self) -> None:
        text = "linux-source-7.3 | 7.3.4-1~bpo13+1 | http://m.invalid/debian trixie-backports/main amd64 Packages\nN: noise\n"
        self.assertEqual(apt.parse_madison(text), [("7.3.4-1~bpo13+1", "trixie-backports")])

    def test_stanzas(self) -> None:
        text = "Package: a\nDescription: one\n two\nSize: 5\n\n\nPackage: b\n"
        self.assertEqual(list(apt.parse_stanzas(text)), [{"Package": "a", "Description": "one\ntwo", "Size": "5"}, {"Package": "b"}])

    def test_deb_name(self) -> None:
        self.assertEqual(apt.deb_name("zlib1g", "1:1.3-1+b1", "amd64"), "zlib1g_1%3a1.3-1+b1_amd64.deb")


if __name__ == "__main__":
    unittest.main()
