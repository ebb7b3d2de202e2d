# SPDX-License-Identifier: GPL-2.0
"""The HCA: bandwidth beside a memcpy of the host, latency beside rxe in the same guest, and what it costs when idle."""
import ctypes
import os
import re
import statistics
import time

from rig import rdma
from rig.bench import Bench
from rig.ui import RigError, step
from rig.vm import Vm

MESSAGE = 1 << 20
COPY_SECONDS = 3
IDLE_SECONDS = 10
BANDWIDTH_PER_MEMCPY = 0.5
BANDWIDTH_PER_RXE = 100
LATENCY_PER_RXE = 0.5
IDLE_CORE_PERCENT = 1.0


def run(bench: Bench) -> None:
    with bench.guest("switch:two-hcas") as vm:
        without = idle_core_percent(vm)
        first, second = rdma.load(vm)
        loaded = idle_core_percent(vm)
        rxe = rdma.make_rxe(vm)
        copied = [memcpy_gigabytes()]
        pinned = bandwidth(vm, 3000, second, first)
        copied.append(memcpy_gigabytes())
        paged = bandwidth(vm, 3000, second, first, "--odp")
        copied.append(memcpy_gigabytes())
        loopback = bandwidth(vm, 3000, first, first)
        copied.append(memcpy_gigabytes())
        rxe_bandwidth = bandwidth(vm, 30, rxe, rxe)
        latency = median_latency(vm, 2000, second, first)
        rxe_latency = median_latency(vm, 500, rxe, rxe)
    memcpy = statistics.median(copied)
    bench.show("memcpy of 1 MiB on the host", memcpy, "GB/s")
    bench.show("ib_write_bw, 1 MiB", pinned, "GB/s", at_least=BANDWIDTH_PER_MEMCPY * memcpy)
    bench.show("ib_write_bw, 1 MiB, --odp", paged, "GB/s", at_least=BANDWIDTH_PER_MEMCPY * memcpy)
    bench.show("ib_write_bw, 1 MiB, loopback", loopback, "GB/s", at_least=BANDWIDTH_PER_MEMCPY * memcpy)
    bench.show("ib_write_bw, 1 MiB, rxe", rxe_bandwidth, "GB/s")
    bench.show("ib_write_bw, 1 MiB, HCA / rxe", pinned / rxe_bandwidth, "", at_least=BANDWIDTH_PER_RXE)
    bench.show("ib_write_lat, 8 B, median, rxe", rxe_latency, "us")
    bench.show("ib_write_lat, 8 B, median", latency, "us", at_most=LATENCY_PER_RXE * rxe_latency)
    bench.show("QEMU while the guest is idle, drivers not loaded", without, "% of a core")
    bench.show("... more with drivers, ports active", loaded - without, "% of a core", at_most=IDLE_CORE_PERCENT)


def memcpy_gigabytes() -> float:
    """GB/s of this host's memcpy from one buffer of 1 MiB to another, over some seconds: what else runs slows it down as it
    does QEMU."""
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
    with step(title):
        begun, done = rdma.run_pair(vm, command, server, client)
    rows = [line.split() for line in rdma.output(done).splitlines() if re.match(r" +\d+ +\d+ ", line)]
    if begun.status or done.status or len(rows) != 1:
        raise RigError(f"{title}: exit status {begun.status} (server), {done.status} (client)",
                       rdma.output(begun) + rdma.output(done))
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
