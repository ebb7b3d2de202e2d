# SPDX-License-Identifier: GPL-2.0
"""`make demo`: RDMA on GPU memory with the distribution's perftest, with and without the series' P2P, and what the devices
say about it."""
from . import failure, gpu, images, p2pmap, perftest, rdma, runs, topology
from .machine import Options
from .perftest import Run
from .ui import say, step
from .vm import Vm, VmFailure

TOPOLOGY = "switch:gpu+two-hcas"
KERNEL = "release"
SERVER, CLIENT = "importer", "remote"
# Tool, size of the messages, number of them.
BANDWIDTH = ("ib_write_bw", 1 << 20, 200)
LATENCIES = (("ib_read_lat", 4096, 200), ("ib_send_lat", 4096, 200))


def run(kernel: str = KERNEL) -> int:
    """Run the demo on a kernel variant, which must be built. Returns the exit status."""
    directory = runs.new_run_directory()
    guest = Vm(topology.get(TOPOLOGY), images.artefacts(kernel), directory / "guest", Options(cmdline=gpu.CMDLINE))
    try:
        with guest:
            wrong = _demonstrate(guest)
            guest.mark("end of the demo")
            guest.check()
            guest.shutdown()
    except failure.GUEST as error:
        say("rig: " + "\n".join(failure.explain(error)))
        if not isinstance(error, VmFailure):    # which names it
            say(f"  the console is in {guest.console.path}")
        return 1
    for line in wrong:
        _show(f"FAILED: {line}")
    if not wrong:
        _show("\nAll of this is as it should be. Times and rates are the emulator's.")
    return 1 if wrong else 0


def _demonstrate(guest: Vm) -> list[str]:
    """Show everything, from the boot on; returns what is not as it should be."""
    with step(f"boot topology {TOPOLOGY}"):
        guest.boot()
    with step("load drivers"):
        rdma.load(guest)
        types = p2pmap.types_of_bar(guest, "gpu", 1, (SERVER, CLIENT))
        node = gpu.bind(guest)
    _show(f"\n{guest.run('uname -sr').stdout.strip()}, booted in {guest.boot_seconds:.1f} s, with a GPU and two HCAs:\n")
    _show(_indent(guest.run("lspci -tv").stdout))
    expected = guest.topology.mapping_type
    wrong = [f"P2P mapping type of the GPU's BAR for {role}: expected {expected}, saw {seen}"
             for role, seen in types.items() if seen != expected]
    return wrong + traffic(guest, node, types)


def traffic(guest: Vm, node: str, types: dict[str, str]) -> list[str]:
    """Show what perftest does in a guest with drivers: `node` is the GPU's render node, and `types` has the mapping types of its
    BAR by the HCAs' roles, if they are to be shown. Returns what is not as it should be. P2P is switched off afterwards."""
    _title("ODP on GPU memory: the HCAs reach it peer to peer")
    wrong = _measure(guest, node, types, BANDWIDTH, True, proof=True)
    for latency in LATENCIES:
        wrong += _measure(guest, node, types, latency, True)

    _title("The same with P2P switched off (ib_core.odp_alias=0): what an HCA touches migrates to host memory")
    guest.write(perftest.ALIAS_SWITCH, "N\n")
    wrong += _measure(guest, node, {}, BANDWIDTH, False, proof=True)
    return wrong


def _measure(guest: Vm, node: str, types: dict[str, str], what: tuple[str, int, int], p2p: bool, proof: bool = False) -> list[str]:
    """Run a test of perftest, print what it says and the proof. Returns what is not as it should be."""
    tool, size, iterations = what
    with step(tool):
        done = perftest.run(guest, tool, size, iterations, SERVER, CLIENT, node=node)
    _show(f"\n  $ LD_PRELOAD=odp_vram.so {' '.join(done.command)} --payload_file_path=FILE -d {done.client.device} SERVER\n")
    _show(_indent(_table(done.client.output)))
    if proof:
        _show()
        _show(_indent(_proof(done, types)))
    else:
        _show(_indent(_summary(done)))
    return [f"{tool}: {line}" for line in (done.against_p2p() if p2p else done.against_host())]


def _table(output: str) -> str:
    """perftest's own table: what follows its list of settings and addresses."""
    lines = output.splitlines()
    heads = [number for number, line in enumerate(lines) if line.lstrip().startswith("#bytes")]
    return "\n".join(line for line in lines[heads[0]:] if not line.startswith("---")) if heads else output.strip()


def _proof(run_: Run, types: dict[str, str]) -> str:
    def row(name: str, server: object, client: object) -> str:
        return f"{name:<50} {server!s:>16} {client!s:>16}"

    def both(name: str, *counters: str) -> str:
        return row(name, *(sum(end.moved[counter] for counter in counters) for end in run_.ends))

    def region(name: str, counter: str) -> str:
        return row(name, *(end.region.get(counter, "-") for end in run_.ends))

    def pages(when: int) -> list[str]:
        return [f"{end.resident[when]} of {end.pages}" for end in run_.ends]

    lines = [row("", f"server ({run_.server.device})", f"client ({run_.client.device})"),
             "told by the device models, for the time of the traffic:",
             both("  payload that the HCA moved from or to VRAM", "data-read-peer-bytes", "data-write-peer-bytes"),
             both("  payload that it moved from or to host memory", "data-read-host-bytes", "data-write-host-bytes"),
             both("  page faults that it raised", "page-faults"),
             f"  the GPU copied {run_.migration['ce-bytes-h2d']} bytes to VRAM before, and in the traffic "
             f"{run_.copies['ce-bytes-d2h']} bytes to host memory by {run_.copies['ce-launches']} copies",
             "told by the guest's kernel:"]
    if types:
        lines.append(row("  P2P mapping type", *(types[end.role] for end in run_.ends)))
    lines += [row("  pages of the buffer in VRAM before the traffic", *pages(0)),
              row("  pages of the buffer in VRAM after the traffic", *pages(1)),
              region("  pages mapped as aliases", "alias_pages"),
              "read by the host from VRAM, where the buffer of the server was:"]
    for sent, found, before in run_.arrived():
        lines.append(f"  CRC-32 before the traffic {perftest.checksum(before)}, after it {perftest.checksum(found)}, "
                     f"of what the client sent {perftest.checksum(sent)}")
    return "\n".join(lines)


def _summary(run_: Run) -> str:
    """The proof in one line, for a test whose message goes from VRAM to VRAM."""
    vram, host = (sum(end.moved[f"data-{direction}-{place}-bytes"] for end in run_.ends for direction in ("read", "write"))
                  for place in ("peer", "host"))
    crcs = ", ".join(f"{perftest.checksum(found)} ({'as' if found == sent else 'NOT as'} sent)" for sent, found, _ in run_.arrived())
    return (f"\nboth HCAs: {vram} bytes of payload from or to VRAM, {host} from or to host memory; copies by the GPU: "
            f"{run_.copies['ce-launches']}; CRC-32 in VRAM: {crcs}")


def _show(text: str = "") -> None:
    """Print in the right order with the steps, which go to stderr."""
    print(text, flush=True)


def _title(text: str) -> None:
    _show(f"\n{text}\n{'=' * len(text)}")


def _indent(text: str) -> str:
    return "\n".join("  " + line for line in text.rstrip("\n").splitlines())
