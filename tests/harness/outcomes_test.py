# SPDX-License-Identifier: GPL-2.0
"""The runner tells every way apart in which a case can end: it runs samples/outcomes_sample.py and is judged by its words."""
import io
import re
from pathlib import Path
from typing import Iterable

from rig import ktap
from rig.report import AllowedSkip, SkipList
from rig.suite import Suite, discover
from rig.testlib import Test, case

SAMPLES = Path(__file__).parent / "samples"
SKIPS = [AllowedSkip(name="*", reason="allowed: *", because="the samples say so")]

# What the result line of each sample must look like: pass or fail, and the reason.
EXPECTED = {
    "passes": (ktap.PASS, r""),
    "fails": (ktap.FAIL, r"output of echo: expected 'goodbye\\n', saw 'hello\\n'"),
    "command_fails": (ktap.FAIL, r"'echo told you >&2; exit 3' exited with status 3"),
    "command_dies": (ktap.FAIL, r"'kill -SEGV \$\$' was killed by signal 11 .*"),
    "raises": (ktap.FAIL, r"ZeroDivisionError: .*"),
    "skips": (ktap.FAIL, r"skipped, which tests/skips.toml does not allow: not today"),
    "skips_as_allowed": (ktap.SKIP, r"allowed: not today either"),
    "subtests": (ktap.FAIL, r"1 of 3 subtests failed"),
    "subtests_truncated": (ktap.FAIL, r"1 of 2 subtests failed"),
    "subtests_all_pass_but_status": (ktap.FAIL, r"1 of 2 subtests failed"),
    "oopses": (ktap.FAIL, r"splat: oops: kernel BUG at .*"),
    "passes_after_oops": (ktap.PASS, r""),
    "qemu_crashes_at_its_end": (ktap.FAIL, r"QEMU exit: QEMU was killed by signal 6 .*"),
    "hangs": (ktap.FAIL, r"hang: 'sh' did not end within \d+ s"),
    "panics": (ktap.FAIL, r"panic: the guest's kernel panicked: Kernel panic - not syncing: sysrq triggered crash"),
    "loses_agent": (ktap.FAIL, r"lost connection: .*its agent closed the port.*"),
    "loses_qemu": (ktap.FAIL, r"QEMU exit: QEMU was killed by signal 9 .*"),
    "reboots": (ktap.FAIL, r"reset: the guest reset itself without a panic.*"),
    "powers_off": (ktap.FAIL, r"power off: the guest powered off by itself"),
    "needs_no_guest": (ktap.PASS, r""),
    "skips_on_the_host": (ktap.SKIP, r"allowed: nothing to do"),
    "host_ktap": (ktap.PASS, r""),
    "host_program_hangs": (ktap.FAIL, r"hang: 'sleep 1000' did not end within \d+ s"),
    "host_program_is_missing": (ktap.FAIL, r"skipped, which tests/skips.toml does not allow: needs no-such-program on the host"),
}
SUBTESTS = {
    "subtests": [(ktap.PASS, "a"), (ktap.SKIP, "b"), (ktap.FAIL, "c")],
    "subtests_truncated": [(ktap.PASS, "a"), (ktap.FAIL, "output")],
    "subtests_all_pass_but_status": [(ktap.PASS, "a"), (ktap.FAIL, "output")],
    "host_ktap": [(ktap.PASS, "x")],
}
SLOW = ("reboots", "powers_off")


def run(t: Test, names: Iterable[str]) -> tuple[int, str]:
    """Run samples the way `rig test` does: (exit status, what it printed)."""
    out = io.StringIO()
    wanted = {f"outcomes/{name}" for name in names}
    chosen = [c for c in discover(SAMPLES, "*_sample.py") if c.name in wanted]
    t.equal({c.name for c in chosen}, wanted, "samples that there are")
    suite = Suite(chosen, t.directory, t.artefacts, jobs=1, stream=out, skips=SkipList(SKIPS))
    t.on_abort(suite.stop)
    status = suite.run()
    (t.directory / "output.ktap").write_text(out.getvalue())
    return status, out.getvalue()


def judge(t: Test, names: Iterable[str]) -> str:
    """Run samples and compare each verdict with EXPECTED; returns what was printed."""
    status, output = run(t, names)
    *body, last = output.splitlines()
    parser = ktap.parse(body)
    t.equal(parser.problems, [], "problems of the printed KTAP")
    for result in parser.results:
        name = result.name.removeprefix("outcomes/")
        wanted, reason = EXPECTED[name]
        right = result.status == wanted and bool(re.fullmatch(reason, result.reason))
        t.result(name, right, f"{result.status}: {result.reason}", result.diagnostics)
        children = [(c.status, c.name) for c in result.children]
        t.equal(children, SUBTESTS.get(name, []), f"subtests of {name}")
    leaves = [leaf.status for r in parser.results for leaf in r.leaves()]
    t.equal(last, f"{leaves.count(ktap.PASS)} passed, {leaves.count(ktap.FAIL)} failed, {leaves.count(ktap.SKIP)} skipped",
            "last line")
    t.equal(status, 1, "exit status of a run with failures")
    consoles = sorted(t.directory.glob("guest-*/console.log"))
    t.check(consoles and all(c.stat().st_size for c in consoles), "every guest's console log is kept")
    return output


@case(timeout=1200)
def told_apart(t: Test) -> None:
    output = judge(t, [name for name in EXPECTED if name not in SLOW])
    t.check("sysrq: Show backtrace of all active CPUs" in output, "a hang shows what the CPUs were doing")


@case(timeout=600, full=True)
def told_apart_too(t: Test) -> None:
    judge(t, SLOW)


@case(timeout=300)
def good_runs_succeed(t: Test) -> None:
    status, output = run(t, ["host_ktap"])
    t.equal((status, output.splitlines()[-1]), (0, "1 passed, 0 failed, 0 skipped"), "a run without failures")


@case(timeout=300)
def an_allowed_skip_alone_proves_nothing(t: Test) -> None:
    status, output = run(t, ["skips_on_the_host"])
    t.equal((status, output.splitlines()[-1]), (1, "0 passed, 0 failed, 1 skipped"), "a run in which nothing passed")
