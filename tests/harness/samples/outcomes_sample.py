# SPDX-License-Identifier: GPL-2.0
"""One case for each way a case can end. Not part of the suite: tests/harness/outcomes_test.py runs it and judges.

What breaks its guest, and needs nothing of our kernel, does so on the distribution's, which boots in a third of the time.
"""
import os
import resource
import signal

from rig.testlib import Test, case


@case(topology="plain", memory="1G")
def passes(t: Test) -> None:
    t.equal(t.vm.run("echo hello").stdout, "hello\n", "output of echo")


@case(topology="plain", memory="1G")
def fails(t: Test) -> None:
    t.equal(t.vm.run("echo hello").stdout, "goodbye\n", "output of echo")


@case(topology="plain", memory="1G")
def command_fails(t: Test) -> None:
    t.vm.run("echo told you >&2; exit 3")


@case(topology="plain", memory="1G")
def command_dies(t: Test) -> None:
    t.vm.run("kill -SEGV $$")


@case(topology="plain", memory="1G")
def raises(t: Test) -> None:
    print(1 // 0)


@case(topology="plain", memory="1G")
def skips(t: Test) -> None:
    t.skip("not today")


@case(topology="plain", memory="1G")
def skips_as_allowed(t: Test) -> None:
    t.skip("allowed: not today either")


@case(topology="plain", memory="1G")
def subtests(t: Test) -> None:
    t.guest_ktap("printf 'KTAP version 1\n1..3\nok 1 a\nok 2 b # SKIP allowed: no b\nnot ok 3 c\n'; exit 1")


@case(topology="plain", memory="1G")
def subtests_truncated(t: Test) -> None:
    t.guest_ktap("printf 'KTAP version 1\n1..3\nok 1 a\n'")


@case(topology="plain", memory="1G")
def subtests_all_pass_but_status(t: Test) -> None:
    t.guest_ktap("printf 'KTAP version 1\n1..1\nok 1 a\n'; exit 1")


@case(topology="plain", memory="1G")
def oopses(t: Test) -> None:
    t.vm.run("modprobe lkdtm; echo BUG > /sys/kernel/debug/provoke-crash/DIRECT", check=False)


@case(topology="plain", memory="1G")
def passes_after_oops(t: Test) -> None:
    t.equal(t.vm.run("cat /proc/sys/kernel/tainted").stdout, "0\n", "taint of a fresh guest")


@case(topology="plain", memory="1G")
def qemu_crashes_at_its_end(t: Test) -> None:
    """The last one in its guest, all of which passes."""
    pid, close = t.vm.pid, t.vm.close
    resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))

    def crash() -> None:
        delattr(t.vm, "close")
        os.kill(pid, signal.SIGABRT)
        close()

    setattr(t.vm, "close", crash)


@case(topology="plain", kernel="stock", memory="1G", timeout=6)
def hangs(t: Test) -> None:
    t.vm.run("while :; do sleep 1; done")


@case(topology="plain", kernel="stock", memory="1G")
def panics(t: Test) -> None:
    t.vm.run("echo c > /proc/sysrq-trigger")


@case(topology="plain", kernel="stock", memory="1G")
def loses_agent(t: Test) -> None:
    t.vm.run("kill -9 $PPID; sleep 60")


@case(topology="plain", kernel="stock", memory="1G")
def loses_qemu(t: Test) -> None:
    operation = t.vm.start("sleep 60")
    os.kill(t.vm.pid, signal.SIGKILL)
    t.vm.wait(operation)


@case(topology="plain", kernel="stock", memory="1G")
def reboots(t: Test) -> None:
    t.vm.run("echo b > /proc/sysrq-trigger; sleep 60")


@case(topology="plain", kernel="stock", memory="1G")
def powers_off(t: Test) -> None:
    t.vm.run("echo o > /proc/sysrq-trigger; sleep 60")


@case()
def needs_no_guest(t: Test) -> None:
    t.check(t.host(["true"]).status == 0, "true is true")


@case()
def host_ktap(t: Test) -> None:
    t.host_ktap(["printf", r"TAP version 13\n1..1\nok 1 x\n"])


@case(timeout=2)
def host_program_hangs(t: Test) -> None:
    t.host(["sleep", "1000"])


@case(needs=["no-such-program"])
def host_program_is_missing(t: Test) -> None:
    t.fail("this must not run")


@case()
def skips_on_the_host(t: Test) -> None:
    t.skip("allowed: nothing to do")
