# SPDX-License-Identifier: GPL-2.0
"""Topologies: names such as "switch+ats" become QEMU arguments. The data is in topologies.toml, next to this file."""
import difflib
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .ui import RigError

TABLE = Path(__file__).with_name("topologies.toml")

MAPPING_TYPES = ("bus-addr", "host-bridge", "not-supported")

_KEYS = {
    "fabric": {"description", "cpu", "mapping-type", "devices", "ports"},
    "iommu": {"description", "machine", "devices", "cmdline", "ats"},
    "device": {"role", "driver", "properties", "ats-property", "objects", "port"},
}


@dataclass(frozen=True)
class Topology:
    """A machine that can be booted."""
    name: str
    fabric: str
    iommu: str
    description: str
    cpu: str
    machine: str
    """Extra properties of -machine, or ""."""
    devices: tuple[str, ...]
    """Arguments of -device in their order: the IOMMU first, as QEMU requires."""
    objects: tuple[str, ...]
    """Arguments of -object that the devices refer to."""
    cmdline: str
    """What the kernel's command line needs, or ""."""
    mapping_type: str
    """What pci_p2pdma must compute between the devices in the ports (MAPPING_TYPES); "" where there are no ports."""
    roles: tuple[str, ...]
    """QEMU ids of the test devices: "provider", "importer" ..."""


class Table:
    """The parsed and checked content of a topologies.toml."""

    def __init__(self, path: Path = TABLE) -> None:
        self.path = path
        try:
            data = tomllib.loads(path.read_text())
        except tomllib.TOMLDecodeError as err:
            raise RigError(f"{path} is not valid TOML: {err}") from err
        self.cpus: dict[str, str] = data.get("cpu", {})
        self.fabrics: dict[str, dict[str, Any]] = data.get("fabric", {})
        self.iommus: dict[str, dict[str, Any]] = data.get("iommu", {})
        self.sets: dict[str, list[dict[str, Any]]] = data.get("set", {})
        self._check()

    def _wrong(self, what: str) -> RigError:
        return RigError(f"{self.path}: {what}", "see the comments at the head of that file")

    def _check(self) -> None:
        if not self.fabrics or not self.iommus or not self.sets:
            raise self._wrong("needs at least one [fabric.*], [iommu.*] and [set.*]")
        for name, fabric in self.fabrics.items():
            if extra := fabric.keys() - _KEYS["fabric"]:
                raise self._wrong(f"[fabric.{name}] has unknown keys {sorted(extra)}")
            if fabric.get("cpu") not in self.cpus:
                raise self._wrong(f"[fabric.{name}]: cpu must be one of {sorted(self.cpus)}")
            if ("mapping-type" in fabric) != bool(fabric.get("ports")):
                raise self._wrong(f"[fabric.{name}] needs mapping-type exactly when it has ports")
            if fabric.get("mapping-type", MAPPING_TYPES[0]) not in MAPPING_TYPES:
                raise self._wrong(f"[fabric.{name}]: mapping-type must be one of {MAPPING_TYPES}")
        for name, iommu in self.iommus.items():
            if extra := iommu.keys() - _KEYS["iommu"]:
                raise self._wrong(f"[iommu.{name}] has unknown keys {sorted(extra)}")
        for name, devices in self.sets.items():
            for device in devices:
                if extra := device.keys() - _KEYS["device"]:
                    raise self._wrong(f"[[set.{name}]] has unknown keys {sorted(extra)}")
                if not device.get("role") or not device.get("driver"):
                    raise self._wrong(f"[[set.{name}]] needs role and driver")

    def names(self) -> list[str]:
        """Every topology with its default set of devices."""
        default = next(iter(self.iommus))
        return [fabric if iommu == default else f"{fabric}+{iommu}"
                for fabric in self.fabrics for iommu in self.iommus]

    def get(self, name: str) -> Topology:
        """The topology called `name`. Raises RigError, which lists those there are, when there is none."""
        wiring, _, chosen = name.partition(":")
        fabric_name, plus, iommu_name = wiring.partition("+")
        fabric = self.fabrics.get(fabric_name)
        iommu_name = iommu_name if plus else next(iter(self.iommus))
        iommu = self.iommus.get(iommu_name)
        if fabric is None or iommu is None:
            close = difflib.get_close_matches(name, self.names(), 1)
            raise RigError(f"there is no topology {name!r}",
                           (f"did you mean {close[0]!r}? " if close else "") + "known: " + ", ".join(self.names())
                           + "; with other devices, by :SET behind it: " + ", ".join(self.sets))
        if chosen and chosen not in self.sets:
            raise RigError(f"topology {name!r}: there is no device set {chosen!r}", "known: " + ", ".join(self.sets))
        ports = fabric.get("ports", [])
        members = self.sets[chosen or next(iter(self.sets))] if ports else []
        inserted = []
        for position, member in enumerate(members):
            slot = member.get("port", position)
            if not 0 <= slot < len(ports):
                raise self._wrong(f"topology {name!r}: {member['role']} wants port {slot} of the fabric's {len(ports)}")
            parts = [member["driver"], f"id={member['role']}", f"bus={ports[slot]}", *member.get("properties", [])]
            if iommu.get("ats") and "ats-property" in member:
                parts.append(member["ats-property"])
            inserted.append(",".join(parts))
        return Topology(
            name=name, fabric=fabric_name, iommu=iommu_name,
            description=f"{fabric.get('description', '')}; {iommu.get('description', '')}",
            cpu=self.cpus[fabric["cpu"]], machine=iommu.get("machine", ""),
            devices=(*iommu.get("devices", []), *fabric.get("devices", []), *inserted),
            objects=tuple(each for member in members for each in member.get("objects", [])),
            cmdline=iommu.get("cmdline", ""), mapping_type=fabric.get("mapping-type", ""),
            roles=tuple(m["role"] for m in members))


@cache
def table() -> Table:
    """The repository's own table, read once."""
    return Table()


def print_table() -> None:
    """Print the topologies, and the sets of devices, with what they are (`rig topologies`)."""
    known = [get(name) for name in names()]
    width = max(map(len, (*names(), *table().sets)))
    for t in known:
        print(f"{t.name:<{width}}  {t.mapping_type or '-':<13}  {t.description}")
    print("\nThe devices in the ports are those of the first of these sets, or of another one by :SET behind the name (switch:hca):\n")
    for name, members in table().sets.items():
        print(f"{name:<{width}}  " + (", ".join(f"{member['role']} ({member['driver']})" for member in members) or "none"))


def names() -> list[str]:
    return table().names()


def get(name: str) -> Topology:
    return table().get(name)
