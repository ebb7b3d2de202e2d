# SPDX-License-Identifier: GPL-2.0
"""The HCA: bandwidth beside a memcpy of the host, latency beside rxe in the same guest, and what it costs when idle."""
import ctypes
import os
import re
import time
from functools import partial
from typing import Callable

from rig import rdma
from rig.bench import Bench
from rig.measured import Spread
from rig.ui import RigError, step
from rig.vm import Vm

MESSAGE = 1 << 20
MESSAGES = 30000    # a second or more: of less, much is how it begins
ROUNDS = 3
COPY_SECONDS = 1
IDLE_SECONDS = 10
ATTEMPTS = 3
BANDWIDTH_PER_MEMCPY = 0.5
BANDWIDTH_PER_RXE = 100
LATENCY_PER_RXE = 0.5
IDLE_CORE_PERCENT = 1.0
# A memcpy of the host has its memory in one piece. So has a guest with a buffer in huge pages; else it may be in any pages of
# 4 KiB, each of which is a transfer of its own.
IN_ONE_PIECE = "--use_hugepages"
HUGE_PAGES = 16     # more than both ends need
# What is shown, and the options of ib_write_bw: between two HCAs, and with one and itself.
BANDWIDTHS: dict[str, tuple[list[str], bool]] = {
    "ib_write_bw, 1 MiB, huge pages": ([IN_ONE_PIECE], False),
    "ib_write_bw, 1 MiB, huge pages, --odp": ([IN_ONE_PIECE, "--odp"], False),
    "ib_write_bw, 1 MiB, huge pages, loopback": ([IN_ONE_PIECE], True),
    "ib_write_bw, 1 MiB": ([], False),
    "ib_write_bw, 1 MiB, --odp": (["--odp"], False),
    "ib_write_bw, 1 MiB, loopback": ([], True),
}


def run(bench: Bench) -> None:
    with bench.guest("switch:two-hcas") as vm:
        without = idle_core_percent(vm)
        first, second = rdma.load(vm)
        loaded = idle_core_percent(vm)
        rxe = rdma.make_rxe(vm)
        vm.write("/proc/sys/vm/nr_hugepages", f"{HUGE_PAGES}\n")
        ways: dict[str, Callable[[], float]] = {
            "memcpy": memcpy_gigabytes,
            **{name: partial(bandwidth, vm, MESSAGES, first if loopback else second, first, *options)
               for name, (options, loopback) in BANDWIDTHS.items()},
            "rxe": lambda: bandwidth(vm, 30, rxe, rxe),
            "latency": lambda: median_latency(vm, 2000, second, first),
            "rxe latency": lambda: median_latency(vm, 500, rxe, rxe)}
        # Round by round: what disturbs the machine for a while disturbs all of them.
        rounds = [{name: way() for name, way in ways.items()} for _ in range(ROUNDS)]

    def of(name: str) -> Spread:
        return Spread.of([each[name] for each in rounds])

    half = BANDWIDTH_PER_MEMCPY * of("memcpy").median
    bench.show("memcpy of 1 MiB on the host", of("memcpy"), "GB/s")
    for name in BANDWIDTHS:
        bench.show(name, of(name), "GB/s", at_least=half)
    bench.show("ib_write_bw, 1 MiB, rxe", of("rxe"), "GB/s")
    bench.show("ib_write_bw, 1 MiB, HCA / rxe", Spread.of([each["ib_write_bw, 1 MiB"] / each["rxe"] for each in rounds]), "",
               at_least=BANDWIDTH_PER_RXE)
    bench.show("ib_write_lat, 8 B, median, rxe", of("rxe latency"), "us")
    bench.show("ib_write_lat, 8 B, median", of("latency"), "us", at_most=LATENCY_PER_RXE * of("rxe latency").median)
    bench.show("QEMU while the guest is idle, drivers not loaded", without, "% of a core")
    bench.show("... more with drivers, ports active", loaded - without, "% of a core", at_most=IDLE_CORE_PERCENT)


def memcpy_gigabytes() -> float:
    """GB/s of this host's memcpy from one buffer of 1 MiB to another, over a second: what else runs slows it down as it does
    QEMU."""
    source, target = ctypes.create_string_buffer(b"\1" * MESSAGE, MESSAGE), ctypes.create_string_buffer(MESSAGE)
    begin, copied = time.perf_counter(), 0
    while time.perf_counter() - begin < COPY_SECONDS:
        ctypes.memmove(target, source, MESSAGE)
        copied += MESSAGE
    return copied / (time.perf_counter() - begin) / 1e9


def bandwidth(vm: Vm, count: int, server: str, client: str, *options: str) -> float:
    """GB/s that ib_write_bw reports for `count` messages."""
    row = perftest(vm, ["ib_write_bw", "-F", "-s", str(MESSAGE), "-n", str(count), *options], server, client)
    return float(row[3]) * (1 << 20) / 1e9


def median_latency(vm: Vm, count: int, server: str, client: str) -> float:
    """Microseconds that ib_write_lat reports as typical for `count` messages of 8 bytes."""
    return float(perftest(vm, ["ib_write_lat", "-F", "-s", "8", "-n", str(count)], server, client)[4])


def perftest(vm: Vm, command: list[str], server: str, client: str) -> list[str]:
    """The words of the one row of numbers that the client prints."""
    title = f"{' '.join(command)} ({client})"
    for _ in range(ATTEMPTS):
        with step(title):
            begun, done = rdma.run_pair(vm, command, server, client)
        said = rdma.output(begun) + rdma.output(done)
        if rdma.UNCALIBRATED not in said:
            break
    rows = [line.split() for line in rdma.output(done).splitlines() if re.match(r" +\d+ +\d+ ", line)]
    if begun.status or done.status or len(rows) != 1:
        raise RigError(f"{title}: exit status {begun.status} (server), {done.status} (client)", said)
    return rows[0]


def idle_core_percent(vm: Vm) -> float:
    """How much of one core of the host QEMU takes while nothing runs in the guest."""
    time.sleep(2)
    with step(f"{IDLE_SECONDS} s idle"):
        begin, before = time.monotonic(), cpu_seconds(vm.pid)
        time.sleep(IDLE_SECONDS)
        return 100 * (cpu_seconds(vm.pid) - before) / (time.monotonic() - begin)


def cpu_seconds(pid: int) -> float:
    """Processor time of a process of the host, with all its threads."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
