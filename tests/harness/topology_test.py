# SPDX-License-Identifier: GPL-2.0
"""The table of topologies is checked when it is read, and becomes the QEMU arguments that it says."""
import contextlib
import io
import tempfile
import unittest
from pathlib import Path

from rig import machine, topology
from rig.ui import RigError

GOOD = """
[cpu]
some = "Westmere"
[fabric.f]
cpu = "some"
mapping-type = "bus-addr"
devices = ["bridge,id=p0", "bridge,id=p1"]
ports = ["p0", "p1"]
[fabric.bare]
cpu = "some"
[iommu.none]
[iommu.ats]
devices = ["intel-iommu"]
cmdline = "intel_iommu=on"
ats = true
[[set.two]]
role = "provider"
driver = "dev"
properties = ["size=1M"]
ats-property = "ats=on"
[[set.two]]
role = "importer"
driver = "dev"
[[set.three]]
role = "a"
driver = "x"
[[set.three]]
role = "b"
driver = "x"
[[set.three]]
role = "c"
driver = "x"
"""


class Tables(unittest.TestCase):
    def table(self, text: str) -> topology.Table:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "t.toml"
            path.write_text(text)
            return topology.Table(path)

    def test_names(self) -> None:
        self.assertEqual(self.table(GOOD).names(), ["f", "f+ats", "bare", "bare+ats"])

    def test_arguments(self) -> None:
        chosen = self.table(GOOD).get("f+ats")
        self.assertEqual(chosen.devices, ("intel-iommu", "bridge,id=p0", "bridge,id=p1",
                                          "dev,id=provider,bus=p0,size=1M,ats=on", "dev,id=importer,bus=p1"))
        self.assertEqual((chosen.cpu, chosen.mapping_type, chosen.cmdline, chosen.roles),
                         ("Westmere", "bus-addr", "intel_iommu=on", ("provider", "importer")))

    def test_without_ats_no_device_has_it(self) -> None:
        self.assertNotIn("ats", " ".join(self.table(GOOD).get("f").devices))

    def test_a_fabric_without_ports_has_no_devices(self) -> None:
        self.assertEqual(self.table(GOOD).get("bare").devices, ())

    def test_a_device_may_name_its_port_and_need_an_object(self) -> None:
        text = GOOD.replace('role = "importer"\n', 'role = "importer"\nport = 0\nobjects = ["memory,id=m"]\n')
        found = self.table(text).get("f:two")
        self.assertEqual((found.devices[-1], found.objects), ("dev,id=importer,bus=p0", ("memory,id=m",)))

    def test_wrong_names(self) -> None:
        for name, words in (("g", "known: f, f(?s:.*):SET behind it: two, three"), ("f+atz", "did you mean 'f.ats'"), ("f:four", "no device set 'four'"),
                            ("f:three", "c wants port 2 of the fabric's 2"), ("", "no topology")):
            with self.subTest(name=name), self.assertRaisesRegex(RigError, words):
                self.table(GOOD).get(name)

    def test_wrong_tables(self) -> None:
        for old, new, words in (('cpu = "some"\nmap', 'cpu = "other"\nmap', "cpu must be one of"),
                                ('"bus-addr"', '"bus"', "mapping-type must be one of"),
                                ('mapping-type = "bus-addr"\n', "", "needs mapping-type exactly when it has ports"),
                                ("ats = true", "atz = true", "unknown keys"),
                                ('role = "importer"\n', "", "needs role and driver"),
                                ("[cpu]", "[cpu", "not valid TOML")):
            with self.subTest(new=new), self.assertRaisesRegex(RigError, words):
                self.table(GOOD.replace(old, new))

    def test_the_list_has_every_name_and_set(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            topology.print_table()
        lines = [line.split() for line in said.getvalue().splitlines()]
        self.assertLessEqual({*topology.names(), *topology.table().sets}, {words[0] for words in lines if words})
        self.assertIn(["two-hcas", "importer", "(mlx5),", "remote", "(mlx5)"], lines)

    def test_ours_is_good(self) -> None:
        for name in topology.names():
            self.assertTrue(topology.get(name).description)
        self.assertEqual({topology.get(n).mapping_type for n in topology.names()}, {"", *topology.MAPPING_TYPES})


class CommandLine(unittest.TestCase):
    def test_a_guest_overrides_the_defaults_of_its_kernel(self) -> None:
        words = machine.kernel_command_line("kmemleak=off quiet", "intel_iommu=on", "kmemleak=on x").split()
        self.assertEqual(words[-4:], ["quiet", "intel_iommu=on", "kmemleak=on", "x"])
        self.assertNotIn("kmemleak=off", words)
        self.assertIn("kmemleak=off", machine.kernel_command_line("kmemleak=off", "x", "").split())


if __name__ == "__main__":
    unittest.main()
