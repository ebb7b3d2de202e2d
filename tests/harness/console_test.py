# SPDX-License-Identifier: GPL-2.0
"""Every kind of report that the kernel can make is found on the console, and ordinary messages are not taken for one."""
import re
import tempfile
import unittest
from pathlib import Path

from rig import console

STAMP = "[   12.345678] "
CALLER = "[   12.345678][  T123] "

# What the kernel prints (its format strings, filled in), and the kind that must be found.
REPORTS = [
    ("panic", "Kernel panic - not syncing: Fatal exception"),
    ("panic", "PANIC: double fault, error_code: 0x0"),
    ("KASAN", "BUG: KASAN: slab-use-after-free in hmm_range_fault+0x12/0x34"),
    ("KCSAN", "BUG: KCSAN: data-race in a / b"),
    ("KMSAN", "BUG: KMSAN: uninit-value in foo+0x1/0x2"),
    ("KFENCE", "BUG: KFENCE: out-of-bounds read in foo+0x1/0x2"),
    ("UBSAN", "UBSAN: array-index-out-of-bounds in mm/hmm.c:12:3"),
    ("soft lockup", "watchdog: BUG: soft lockup - CPU#1 stuck for 121s! [test:99]"),
    ("hard lockup", "watchdog: CPU1: Watchdog detected hard LOCKUP on cpu 0"),
    ("workqueue lockup", "BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 31s!"),
    ("workqueue lockup", "workqueue: BUG: workqueue lockup - pool cpus=0"),
    ("RCU stall", "rcu: INFO: rcu_preempt self-detected stall on CPU"),
    ("RCU stall", "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:"),
    ("RCU stall", "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-... }"),
    ("RCU stall", "rcu: rcu_preempt kthread starved for 2100 jiffies! g1 f0x0 RCU_GP_WAIT_FQS(5)"),
    ("CSD lock", "smp: csd: Detected non-responsive CSD lock (#1) on CPU#0"),
    ("hung task", "INFO: task kworker/0:1:12 blocked for more than 122 seconds."),
    ("hung task", "INFO: task a:1 blocked in I/O wait for more than 122 seconds."),
    ("hung task", "INFO: task a:1 is blocked on a mutex likely owned by task b:2."),
    ("lockdep", "WARNING: possible circular locking dependency detected"),
    ("lockdep", "WARNING: possible recursive locking detected"),
    ("lockdep", "WARNING: possible irq lock inversion dependency detected"),
    ("lockdep", "WARNING: SOFTIRQ-safe -> SOFTIRQ-unsafe lock order detected"),
    ("lockdep", "WARNING: inconsistent lock state"),
    ("lockdep", "WARNING: bad unlock balance detected!"),
    ("lockdep", "WARNING: held lock freed!"),
    ("lockdep", "WARNING: lock held when returning to user space!"),
    ("lockdep", "WARNING: a/12 still has locks held!"),
    ("lockdep", "[ BUG: Invalid wait context ]"),
    ("lockdep", "BUG: MAX_LOCKDEP_CHAINS too low!"),
    ("lockdep", "INFO: trying to register non-static key."),
    ("RCU usage", "WARNING: suspicious RCU usage"),
    ("atomic sleep", "BUG: sleeping function called from invalid context at mm/hmm.c:1"),
    ("atomic sleep", "BUG: scheduling while atomic: a/1/0x2"),
    ("bad page", "BUG: Bad page state in process a  pfn:00123"),
    ("bad page", "BUG: Bad page map in process a  pte:1 pmd:2"),
    ("bad page", "BUG: Bad rss-counter state mm:1 type:MM_ANONPAGES val:1 Comm:a Pid:1"),
    ("bad page", "BUG: non-zero pgtables_bytes on freeing mm: 4096"),
    ("bad page", "page dumped because: VM_BUG_ON_FOLIO(1)"),
    ("slab", "BUG kmalloc-64 (Not tainted): Redzone overwritten"),
    ("slab", "BUG foo_cache (Tainted: G    B  ): Objects remaining on __kmem_cache_shutdown()"),
    ("list", "list_add corruption. prev->next should be next (1), but was 2. (prev=3)."),
    ("refcount", "refcount_t: underflow; use-after-free."),
    ("debug object", "ODEBUG: free active (active state 0) object: 1 object type: timer_list hint: foo+0x0/0x1"),
    ("DMA-API", "DMA-API: debugging out of memory - disabling"),
    ("DMA-API", "p2pmap 0000:01:00.0: DMA-API: device driver tries to free DMA memory it has not allocated"),
    ("resource", "resource: Trying to free nonexistent resource <0x00000fffe0000000-0x00000fffe3ffffff>"),
    ("kmemleak", "kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)"),
    ("oops", "BUG: unable to handle page fault for address: ffffffff00000000"),
    ("oops", "BUG: kernel NULL pointer dereference, address: 0000000000000000"),
    ("oops", "BUG: TASK stack guard page was hit at 1 (stack is 2..3)"),
    ("oops", "kernel BUG at mm/hmm.c:123!"),
    ("oops", "Oops: 0002 [#1] SMP KASAN PTI"),
    ("oops", "Oops: general protection fault, probably for non-canonical address 0xdead: 0000 [#1]"),
    ("oops", "general protection fault, maybe for address 0x1: 0000 [#1]"),
    ("oops", "divide error: 0000 [#1] SMP"),
    ("oops", "hmm-tests: Corrupted page table at address 7f0000000000"),
    ("stack", "Thread overran stack, or stack corrupted"),
    ("out of memory", "hmm-tests invoked oom-killer: gfp_mask=0x1, order=0"),
    ("out of memory", "a: page allocation failure: order:4, mode:0x1"),
    ("IOMMU fault", "DMAR: [DMA Write NO_PASID] Request device [01:00.0] fault addr 0x1 [fault reason 0x05]"),
    ("WARNING", "WARNING: mm/hmm.c:12 at hmm_range_fault+0x1/0x2, CPU#0: test/12"),
    ("WARNING", "WARNING: CPU: 0 PID: 12 at mm/hmm.c:12 hmm_range_fault+0x1/0x2"),
    ("BUG", "BUG: something that did not exist when this was written"),
    ("stack trace", "Call Trace:"),
]

HARMLESS = [
    STAMP + "Linux version 7.3.4 (rig@rig)",
    STAMP + "DMA-API: preallocated 65536 debug entries",
    STAMP + "DMA-API: debugging enabled by kernel config",
    STAMP + "Lock dependency validator: Copyright (c) 2006 Red Hat, Inc.",
    STAMP + "rcu: \tRCU lockdep checking is enabled.",
    STAMP + "kmemleak: Kernel memory leak detector initialized (mem pool available: 15000)",
    STAMP + "kmemleak: Automatic memory scanning thread started",
    STAMP + "Kernel command line: panic=-1 WARNING: BUG: not the beginning of the message",
    STAMP + "traps: a[12] general protection fault ip:1 sp:2 error:0 in a[3,4]",
    STAMP + "DMAR: Intel(R) Virtualization Technology for Directed I/O",
    STAMP + "a[12]: segfault at 0 ip 1 sp 2 error 4 in a[3,4]",
    STAMP + "watchdog: Delayed init of the lockup detector failed: -19",
    STAMP + "ODEBUG: selftest passed",
    # what programs write is not the kernel's
    "BUG: KASAN: slab-use-after-free in a test's own output",
    "ok 1 Call Trace:",
    "### rig: panic: WARNING: ",
]


class Patterns(unittest.TestCase):
    def test_reports(self) -> None:
        for kind, text in REPORTS:
            for line in (STAMP + text, CALLER + text, "login: " + STAMP + text):
                with self.subTest(line=line):
                    self.assertEqual(console.classify(line), (kind, text))

    def test_every_pattern_is_exercised(self) -> None:
        for kind, pattern in console.PATTERNS:
            with self.subTest(pattern=pattern):
                self.assertTrue(any(k == kind and re.match(pattern, text) for k, text in REPORTS))

    def test_harmless_lines(self) -> None:
        for line in HARMLESS:
            with self.subTest(line=line):
                self.assertIsNone(console.classify(line))


class Stream(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.path = Path(scratch.name) / "console.log"
        self.console = console.Console(self.path)
        self.addCleanup(self.console.close)

    def feed(self, text: str) -> None:
        for at in range(0, len(text), 7):  # no boundary of a read is a boundary of a line
            self.console.feed(text[at:at + 7].encode())

    def test_one_report_is_one_splat(self) -> None:
        lines = ["BUG: unable to handle page fault for address: 0", "#PF: supervisor write", "Oops: 0002 [#1] SMP",
                 "Call Trace:", " foo+0x1/0x2", "---[ end trace 0000000000000000 ]---", "all is well"]
        self.feed("".join(f"{STAMP}{line}\r\n" for line in lines))
        self.assertEqual([s.kind for s in self.console.splats], ["oops"])
        self.assertEqual(len(self.console.splats[0].lines), 6)

    def test_two_reports_are_two_splats(self) -> None:
        one = [STAMP + "WARNING: a.c:1 at f+0x1/0x2, CPU#0: t/1", STAMP + "---[ end trace 0 ]---"]
        self.feed("\n".join(one + one) + "\n")
        self.assertEqual(len(self.console.splats), 2)

    def test_an_oops_that_ends_in_a_panic_is_a_panic(self) -> None:
        self.feed(f"{STAMP}kernel BUG at a.c:1!\n{STAMP}Kernel panic - not syncing: Fatal exception\n")
        self.assertEqual([s.kind for s in self.console.splats], ["panic"])
        self.assertIn("kernel BUG at a.c:1!", self.console.splats[0].title)

    def test_a_line_without_its_end_counts_at_the_end(self) -> None:
        self.feed(f"{STAMP}BUG: cut off")
        self.assertEqual(self.console.splats, [])
        self.console.close()
        self.assertEqual([s.kind for s in self.console.splats], ["BUG"])

    def test_stacks_that_we_asked_for_are_no_splat(self) -> None:
        self.console.ignore_reports()
        self.feed(f"{STAMP}sysrq: Show Blocked State\n{STAMP}Call Trace:\n")
        self.assertEqual(self.console.splats, [])

    def test_the_file_has_every_byte(self) -> None:
        self.feed("a\r\nb\0\n\nc")
        self.console.close()
        self.assertEqual(self.path.read_bytes(), b"a\r\nb\0\n\nc")


if __name__ == "__main__":
    unittest.main()
