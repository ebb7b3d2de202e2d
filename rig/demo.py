# SPDX-License-Identifier: GPL-2.0
"""`make demo`: boot the patched kernel, show which devices it found and how they reach each other, run its HMM tests."""
import re

from . import images, ktap, p2pmap, runs, topology
from .ui import say, step
from .vm import Options, Vm, VmFailure

TOPOLOGIES = ("switch", "host-bridge", "unreachable")
HMM_TESTS = "/opt/hmm-p2p/selftests/mm/hmm-tests"
KERNEL = "release"


def run() -> int:
    """Run the demo on the release kernel, which must be built. Returns the exit status."""
    directory = runs.new_run_directory()
    try:
        for name in TOPOLOGIES:
            guest = Vm(topology.get(name), images.artefacts(KERNEL), directory / name, Options(memory="4G"))
            with guest:
                if not _show(guest, name):
                    return 1
                if name == TOPOLOGIES[0] and not _hmm_tests(guest):
                    return 1
                guest.mark("end of the demo")
                guest.check()
                guest.shutdown()
    except VmFailure as failure:
        say(f"rig: {failure.kind}: {failure}")
        for line in failure.evidence[:20]:
            say("  | " + line)
        return 1
    return 0


def _show(guest: Vm, name: str) -> bool:
    with step(f"boot topology {name}"):
        guest.boot()
    print(f"\n{name}: {guest.run('uname -sr').stdout.strip()}, booted in {guest.boot_seconds:.1f} s")
    print(_indent(guest.run("lspci -tv").stdout))
    provider, importer = guest.pci_address("provider"), guest.pci_address("importer")
    p2pmap.bind(guest, provider, importer)
    seen, address = p2pmap.ask(guest, provider, importer)
    expected = guest.topology.mapping_type
    how = f"at {address:#x}" if address else "not at all"
    print(f"  P2P mapping type of {provider}'s memory for {importer}: {seen} ({how}); expected: {expected}")
    return seen == expected


def _hmm_tests(guest: Vm) -> bool:
    guest.run("echo 32 >/proc/sys/vm/nr_hugepages; modprobe test_hmm")
    parser = ktap.Parser()
    with step("hmm-tests") as current:
        done = guest.run(HMM_TESTS, check=False, timeout=600)
        for line in done.stdout.splitlines():
            parser.feed(line)
        parser.finish()
        count = {status: sum(r.status == status for r in parser.results) for status in (ktap.PASS, ktap.FAIL, ktap.SKIP)}
        current.note = f"{count[ktap.PASS]} passed, {count[ktap.FAIL]} failed, {count[ktap.SKIP]} skipped"
    print(f"\n  hmm-tests on device-private memory: {current.note}")
    for result in parser.results:
        if result.status == ktap.FAIL:
            print(f"    not ok {result.name} {result.reason}")
        elif re.search(r"huge_partial_access|snapshot_huge", result.name):
            print(f"    {'ok' if result.status == ktap.PASS else 'skipped'} {result.name}")
    return done.status == 0 and count[ktap.PASS] > 0 and not count[ktap.FAIL] and not parser.problems


def _indent(text: str) -> str:
    return "\n".join("  " + line for line in text.rstrip().splitlines())
