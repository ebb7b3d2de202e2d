# SPDX-License-Identifier: GPL-2.0
"""The guest's console: kept whole in a file, split into lines, and searched for everything that says "the kernel is ill".

The guests boot with printk.time=1, so a kernel message is recognised by its time stamp wherever it stands in a line; what
a program writes to the console is never taken for a kernel message.
"""
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Optional

from .ui import say

# "[   12.345678] ", with CONFIG_PRINTK_CALLER also "[   12.345678][  T123] ".
_STAMP = re.compile(r"\[\s*\d+\.\d{6}\](?:\[\s*[TC]\d+\])? ")

PATTERNS: list[tuple[str, str]] = [
    # kind, how the message begins (a regular expression, matched right after the time stamp). The first match counts, so
    # the specific ones stand first. Every pattern has a golden line in tests/harness/console_test.py.
    ("panic", r"Kernel panic - not syncing"),
    ("panic", r"PANIC: "),
    ("KASAN", r"BUG: KASAN: "),
    ("KCSAN", r"BUG: KCSAN: "),
    ("KMSAN", r"BUG: KMSAN: "),
    ("KFENCE", r"BUG: KFENCE: "),
    ("UBSAN", r"UBSAN: "),
    ("soft lockup", r"(watchdog: )?BUG: soft lockup"),
    ("hard lockup", r"(watchdog: |NMI watchdog: )?(CPU\d+: )?Watchdog detected hard LOCKUP"),
    ("workqueue lockup", r"(workqueue: )?BUG: workqueue lockup"),
    ("RCU stall", r"(rcu: )?INFO: \S+ (self-)?detected (expedited )?stalls?\b"),
    ("RCU stall", r"(rcu: )?\S+ kthread (starved for|timer wakeup didn't happen for) \d+ jiffies"),
    ("CSD lock", r"(smp: )?csd: (Detected|CSD lock)"),
    ("hung task", r"INFO: task .* blocked.* for more than \d+ seconds"),
    ("hung task", r"INFO: task .* (is )?blocked on an? "),
    ("lockdep", r"WARNING: possible (circular locking|recursive locking|irq lock inversion)( dependency)? detected"),
    ("lockdep", r"WARNING: \S+-safe -> \S+-unsafe lock order detected"),
    ("lockdep", r"WARNING: (inconsistent lock state|chain_key collision|Nested lock was not taken|bad unlock balance|"
                r"bad contention|held lock freed|lock held when returning|.* still has locks held)"),
    ("lockdep", r"\[ BUG: Invalid wait context \]"),
    ("lockdep", r"BUG: MAX_(STACK_TRACE_ENTRIES|LOCKDEP_\w+|LOCK_DEPTH) too low"),
    ("lockdep", r"INFO: (trying to register non-static key|lockdep is turned off)"),
    ("RCU usage", r"WARNING: suspicious RCU usage"),
    ("atomic sleep", r"BUG: sleeping function called from invalid context"),
    ("atomic sleep", r"BUG: scheduling while atomic"),
    ("bad page", r"BUG: Bad (page|rss-counter) "),
    ("bad page", r"(BUG: non-zero pgtables_bytes|page dumped because: )"),
    ("slab", r"BUG [^:]+ \([^)]*\): "),
    ("list", r"list_(add|del) corruption"),
    ("refcount", r"refcount_t: "),
    ("debug object", r"ODEBUG: (?!selftest|out of memory)"),
    ("DMA-API", r"(\S+ \S+: )?DMA-API: (?!preallocated|debugging enabled)"),
    ("resource", r"(resource: )?Trying to free nonexistent resource "),
    ("kmemleak", r"kmemleak: \d+ new suspected memory leaks"),
    ("oops", r"BUG: (unable to handle|kernel NULL pointer|\S+ stack guard page)"),
    ("oops", r"kernel BUG at "),
    ("oops", r"Oops: |Oops - "),
    ("oops", r"(general protection fault|divide error|invalid opcode|stack segment|double fault|int3|traps: PANIC)[:,]"),
    ("oops", r"Bad pagetable: |(\S+: )?Corrupted page table at address"),
    ("stack", r"Thread overran stack, or stack corrupted|stack-protector: "),
    ("out of memory", r"(\S+ invoked oom-killer|Out of memory: Killed process|.*page allocation failure: order)"),
    ("IOMMU fault", r"DMAR: \[(DMA|INTR|PASID)"),
    ("WARNING", r"WARNING: "),
    ("BUG", r"BUG: "),
    ("stack trace", r"Call Trace:"),
]
"""What makes a run fail when it appears on the console, in order of precedence."""

_SPLAT = [(kind, re.compile(pattern)) for kind, pattern in PATTERNS]

FATAL_KINDS = frozenset({"panic"})
"""Kinds after which the guest does not run on."""

# A report goes on for so many lines at most, and ends early at its end marker.
_REPORT_LINES = 80
_REPORT_END = re.compile(r"---\[ end (trace|Kernel panic)")


@dataclass
class Splat:
    """One report of the kernel about itself: its kind, its first line, and what followed."""
    kind: str
    title: str
    lines: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.kind}: {self.title}"


def message(line: str) -> Optional[str]:
    """The kernel message in a console line, without its time stamp; None when there is none."""
    found = _STAMP.search(line)
    return line[found.end():] if found else None


def classify(line: str) -> Optional[tuple[str, str]]:
    """(kind, message) when a console line starts a report, otherwise None."""
    text = message(line)
    if text is None:
        return None
    for kind, pattern in _SPLAT:
        if pattern.match(text):
            return kind, text
    return None


class Console:
    """Collects what the guest writes to its console.

    `feed()` is called by one thread; the other members may be read by any thread at any time (lists only grow).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[str] = []
        self.splats: list[Splat] = []
        self._file: Optional[BinaryIO] = open(path, "ab", buffering=0)
        self._partial = b""
        self._report: Optional[Splat] = None
        self._quiet = False

    def feed(self, data: bytes) -> None:
        """Take what the guest wrote, whole lines or not."""
        self._write(data)
        *whole, self._partial = (self._partial + data).split(b"\n")
        for raw in whole:
            self._line(raw.decode(errors="replace").rstrip("\r"))

    def note(self, text: str) -> None:
        """Put a line of the rig's own into the file (it is never taken for the guest's)."""
        self._write(f"\n### rig: {text}\n".encode())

    def ignore_reports(self) -> None:
        """From now on stack traces are our own doing (SysRq): keep them in the file, report nothing."""
        self._quiet = True
        self._report = None

    def tail(self, count: int = 20) -> list[str]:
        """The last lines, with the unfinished one."""
        last = self.lines[-count:]
        return last + [self._partial.decode(errors="replace")] if self._partial.strip() else last

    def close(self) -> None:
        if self._partial:
            self._line(self._partial.decode(errors="replace"))
            self._partial = b""
        if self._file:
            self._file.close()
            self._file = None

    def _write(self, data: bytes) -> None:
        if not self._file:
            return
        try:
            self._file.write(data)
        except OSError as err:  # a full disk: what the guest says is judged all the same
            say(f"  {self.path}: {err.strerror}; what comes is not kept")
            self._file.close()
            self._file = None

    def _line(self, line: str) -> None:
        self.lines.append(line)
        if self._quiet:
            return
        report = self._report
        found = classify(line)
        if report:
            report.lines.append(line)
            if found and found[0] in FATAL_KINDS and report.kind not in FATAL_KINDS:
                # an oops that became a panic is a panic, and keeps the lines that explain it
                report.kind = found[0]
                report.title = f"{found[1]} (after {report.title})"
            if len(report.lines) >= _REPORT_LINES or _REPORT_END.search(line):
                self._report = None
        elif found:
            self._report = Splat(*found, [line])
            self.splats.append(self._report)
