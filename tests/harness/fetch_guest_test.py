# SPDX-License-Identifier: GPL-2.0
"""The guest image's parts that need no package: lists, lock files, cpio archives, module order."""
import os
import stat
import tempfile
import unittest
from pathlib import Path
from typing import Optional
from unittest import mock

from rig import compiler, download, guest, packages, paths, tools
from rig.apt import Package
from rig.ui import RigError

DIGEST = "ab" * 32


def package(name: str, version: str, digest: str = DIGEST) -> Package:
    return Package(name, version, "amd64", f"pool/{name}.deb", 7, digest)


class Locks(unittest.TestCase):
    def test_list(self) -> None:
        self.assertEqual(packages.parse_list("# head\nbash\n\n-udev  # no daemon\nkmod # modules\n"), (["bash", "kmod"], ["udev"]))

    def test_round_trip(self) -> None:
        lock = packages.Lock({"packages": DIGEST}, {"packages": [package("a", "1:2-3"), package("b", "1")]})
        text = packages.format_lock(lock)
        self.assertEqual(packages.parse_lock(text), lock)
        self.assertEqual(packages.format_lock(packages.parse_lock(text)), text)

    def test_malformed_line_is_named(self) -> None:
        with self.assertRaisesRegex(RigError, "line 2"):
            packages.parse_lock("# head\npackages bash 5\n")

    def test_differences(self) -> None:
        old = [package("a", "1"), package("b", "1"), package("c", "1"), package("d", "1")]
        new = [package("a", "1"), package("b", "2"), package("d", "1", "cd" * 32), package("e", "5")]
        self.assertEqual(packages.differences(old, new), ["b 1 is now 2", "c 1 is not needed any more", "d 1 has another sha256 now", "e 5 is new"])

    def test_committed_lock_is_of_the_lists(self) -> None:
        lock = packages.parse_lock(packages.LOCK.read_text(encoding="utf-8"))
        for name, path in packages.LISTS.items():
            self.assertTrue(lock.holds(name), f"{path.name} was edited without a new lock: rig/rig fetch --update-lock")
            wanted, left_out = packages.parse_list(path.read_text(encoding="utf-8"))
            have = {p.name for p in lock.packages[name]}
            self.assertLessEqual(set(wanted), have)
            self.assertFalse(have & set(left_out))

    def test_programs_link_against_what_the_guest_has(self) -> None:
        lock = packages.parse_lock(packages.LOCK.read_text(encoding="utf-8"))
        image, sysroot = ({p.name: p.version for p in lock.packages[name]} for name in ("packages", "sysroot"))
        for name in ("libc6", "libibverbs1", "librdmacm1t64", "libnuma1"):
            self.assertEqual(image[name], sysroot[name])

    def test_drift_is_reported_and_used(self) -> None:
        with tempfile.TemporaryDirectory() as top, mock.patch.object(packages, "DRIFTED", Path(top) / "guest" / "packages.lock"), \
             mock.patch.object(packages, "_download", side_effect=[RigError("404"), [Path("new.deb")]]), \
             mock.patch.object(packages, "_resolve", return_value=[package("bash", "99")]), mock.patch.object(download, "locked"), \
             mock.patch.object(download, "cached", return_value=None), mock.patch.object(packages.fetch, "archive"), \
             mock.patch.object(packages, "say") as said:
            self.assertEqual(packages.debs("packages"), [Path("new.deb")])
            self.assertEqual(packages.parse_lock((Path(top) / "guest/packages.lock").read_text()).packages["packages"], [package("bash", "99")])
        self.assertRegex(said.call_args_list[0].args[0], r"bash \S+ is now 99")


class Images(unittest.TestCase):
    def test_cpio(self) -> None:
        archive = guest.cpio([("bin", stat.S_IFDIR | 0o755, b""), ("bin/tool", stat.S_IFREG | 0o755, b"12345"), ("odd", stat.S_IFREG | 0o644, b"")])
        found, at = [], 0
        while at < len(archive):
            self.assertEqual((at % 4, archive[at:at + 6]), (0, b"070701"))
            fields = [int(archive[at + 6 + 8 * n:at + 14 + 8 * n], 16) for n in range(13)]
            name = archive[at + 110:at + 110 + fields[11] - 1].decode()
            data = at + 110 + fields[11] + -(110 + fields[11]) % 4
            found.append((name, fields[1], fields[2:4], fields[9:11], archive[data:data + fields[6]]))
            at = data + fields[6] + -fields[6] % 4
        self.assertEqual(found[1], ("bin/tool", stat.S_IFREG | 0o755, [0, 0], [0, 0], b"12345"))
        self.assertEqual(found[3], ("dev/console", stat.S_IFCHR | 0o600, [0, 0], [5, 1], b""))
        self.assertEqual([row[0] for row in found], ["bin", "bin/tool", "odd", "dev/console", "dev/null", "TRAILER!!!"])

    def test_load_order(self) -> None:
        text = "kernel/a.ko.xz: kernel/b.ko.xz kernel/c.ko.xz\nkernel/b.ko.xz: kernel/c.ko.xz\nkernel/c.ko.xz:\nkernel/virtio-net.ko:\n"
        needs = guest.parse_modules_dep(text)
        self.assertEqual(guest.load_order(needs, ["a", "virtio_net", "built_in"]),
                         ["kernel/c.ko.xz", "kernel/b.ko.xz", "kernel/a.ko.xz", "kernel/virtio-net.ko"])

    def test_link_flags(self) -> None:
        self.assertEqual(guest.link_flags("/*\n * Link: -libverbs -lnuma\n */\n"), ["-libverbs", "-lnuma"])
        self.assertEqual(guest.link_flags("// Link: see the manual -lx\n"), [])

    def test_tree_digest(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            top = Path(name)
            (top / "file").write_text("1")
            first = guest.tree_digest(top)
            os.utime(top / "file", (1, 1))
            self.assertEqual(guest.tree_digest(top), first)
            (top / "file").chmod(0o755)
            second = guest.tree_digest(top)
            (top / "link").symlink_to("file")
            self.assertEqual(len({first, second, guest.tree_digest(top)}), 3)

    def test_two_kernels_are_refused(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            for release in ("1", "2"):
                (Path(name) / "lib" / "modules" / release).mkdir(parents=True)
            with self.assertRaisesRegex(RigError, "more than one"):
                guest.build(modules=Path(name))


class Tools(unittest.TestCase):
    LACKING = tools.Tool("no-such-command-anywhere", "no-such-package", "this test")

    def test_probes(self) -> None:
        self.assertFalse(tools.present(self.LACKING))
        self.assertTrue(tools.present(tools.Tool("sh", "dash", "")))
        self.assertTrue(tools.present(tools.Tool("python os", "python3", "")))
        self.assertFalse(tools.present(tools.Tool("python no_such_module", "python3", "")))
        with self.assertRaises(ValueError):
            tools.present(tools.Tool("smell roses", "flora", ""))

    def test_without_privilege_the_command_is_printed(self) -> None:
        with mock.patch.object(tools, "TOOLS", (self.LACKING,)), mock.patch.object(tools, "missing", return_value=[self.LACKING]), \
             mock.patch.object(tools, "privilege", return_value=None), mock.patch.object(tools.proc, "run") as run, \
             self.assertRaisesRegex(RigError, "sudo apt-get install -y --no-install-recommends no-such-package"):
            tools.ensure()
        run.assert_not_called()

    def test_still_missing_after_install(self) -> None:
        with mock.patch.object(tools, "missing", return_value=[self.LACKING]), mock.patch.object(tools, "privilege", return_value=[]), \
             mock.patch.object(download, "locked"), mock.patch.object(tools.proc, "run") as run, \
             self.assertRaisesRegex(RigError, "still missing"):
            tools.ensure()
        self.assertEqual([call.args[0][-1] for call in run.call_args_list], ["-q", "no-such-package"])
        self.assertIn("DPkg::Lock::Timeout=300", run.call_args.args[0])

    def test_another_machine_can_only_edit_the_series(self) -> None:
        arm = os.uname_result(("Linux", "host", "6.1", "#1", "aarch64"))
        with mock.patch.object(os, "uname", return_value=arm), mock.patch.object(tools, "missing", return_value=[]):
            tools.ensure(builds=False)
            with self.assertRaisesRegex(RigError, "x86_64 only, and this machine is aarch64"):
                tools.ensure()

    def test_what_is_only_useful_is_installed_or_done_without(self) -> None:
        useful = tools.Tool("no-such-command-anywhere", "no-such-package", "rebuilds", without="rebuilds take longer")
        ways: list[tuple[Optional[list[str]], Optional[RigError], int]] = [([], None, 2), ([], RigError("no network"), 1), (None, None, 0)]
        for how, outcome, calls in ways:
            with self.subTest(how=how, outcome=outcome), mock.patch.object(tools, "missing", return_value=[useful]), \
                 mock.patch.object(tools, "privilege", return_value=how), mock.patch.object(download, "locked"), \
                 mock.patch.object(tools, "say") as said, mock.patch.object(tools.proc, "run", side_effect=outcome) as run:
                tools.ensure()
                self.assertEqual(run.call_count, calls)
                if calls < 2:
                    self.assertRegex(said.call_args.args[0], "without no-such-package rebuilds take longer; to install: sudo apt-get")

    def test_what_checks_use_is_only_for_them(self) -> None:
        checker = tools.Tool("no-such-command-anywhere", "no-such-package", tools.CHECKS, without="some checks are skipped")
        with mock.patch.object(tools, "missing", return_value=[checker]), mock.patch.object(tools, "privilege", return_value=[]), \
             mock.patch.object(download, "locked"), mock.patch.object(tools.proc, "run") as run:
            tools.ensure()
            run.assert_not_called()
            tools.ensure(checks=True)
            self.assertEqual(run.call_count, 2)


class Compiler(unittest.TestCase):
    def test_ccache_that_comes_and_goes_changes_no_command(self) -> None:
        with tempfile.TemporaryDirectory() as top, mock.patch.object(paths, "BUILD", Path(top)), \
             mock.patch.dict(os.environ, {"RIG_CC": "some-compiler"}):
            for there in (None, "/bin/true", None):
                with mock.patch.object(compiler.shutil, "which", return_value=there):
                    self.assertEqual(compiler.command(), "some-compiler")
                    first = Path(compiler.environment()["PATH"].split(":")[0])
                    self.assertEqual(first, Path(top) / "ccache")
            self.assertEqual(os.readlink(first / "some-compiler"), "/bin/true")

    def test_compiler_of_a_path_goes_without(self) -> None:
        with tempfile.TemporaryDirectory() as top, mock.patch.object(paths, "BUILD", Path(top)), \
             mock.patch.object(compiler.shutil, "which", return_value="/bin/true"):
            for name in ("/usr/bin/gcc", "gcc -m64"):
                with mock.patch.dict(os.environ, {"RIG_CC": name}):
                    compiler.environment()
            self.assertEqual(list((Path(top) / "ccache").iterdir()), [])


if __name__ == "__main__":
    unittest.main()
