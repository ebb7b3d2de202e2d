# SPDX-License-Identifier: GPL-2.0
"""KTAP (Documentation/dev-tools/ktap.rst), read and written.

Read: KTAP 1, TAP 12 to 14, subtests (indented, or prefixed with "# " as run_kselftest.sh does), the directives SKIP,
TODO, XFAIL, XPASS, ERROR and TIMEOUT. A program that stops in the middle must not look like a success, therefore a
missing plan, a number out of order, or fewer results than planned are problems, and a problem counts as a failure.

A test that "fails as expected" (XFAIL, TODO) has not passed: it is reported as skipped, with the directive as its reason,
and so needs an entry in the list of allowed skips.
"""
import re
from dataclasses import dataclass, field
from typing import Iterable, Iterator, Optional, TextIO

PASS, FAIL, SKIP = "pass", "fail", "skip"

_VERSION = re.compile(r"(KTAP version \d+|TAP version \d+)\s*$")
_SUBTEST = re.compile(r"# Subtest: (.*)$")
_PLAN = re.compile(r"1\.\.(\d+)\s*(?:#\s*(.*))?$")
_RESULT = re.compile(r"(not )?ok\b(?:\s+(\d+))?(?:\s*-(?=\s))?(?:\s+(.*))?$")
_BAIL = re.compile(r"Bail out!\s*(.*)$")
_HASH = re.compile(r"(?:^|\s+)(?<!\\)#\s*")
_DIRECTIVE = re.compile(r"(SKIP|TODO|XFAIL|XPASS|ERROR|TIMEOUT)\b[:\s]*(.*)$", re.IGNORECASE)
_DEEPER = re.compile(r"(?:\s|# )+")
_KEPT_DIAGNOSTICS = 60


@dataclass
class Result:
    """One test: `status` is PASS, FAIL or SKIP; `reason` says why it was skipped or failed, where the program said so."""
    name: str
    status: str
    reason: str = ""
    diagnostics: list[str] = field(default_factory=list)
    children: list["Result"] = field(default_factory=list)

    def leaves(self, prefix: str = "") -> Iterator["Result"]:
        """The tests that count: those without subtests, and parents that failed although none of their subtests did."""
        name = f"{prefix}{self.name}"
        if not self.children:
            yield Result(name, self.status, self.reason, self.diagnostics)
            return
        leaves = [leaf for child in self.children for leaf in child.leaves(name + ".")]
        yield from leaves
        if self.status == FAIL and all(leaf.status != FAIL for leaf in leaves):
            yield Result(name, FAIL, self.reason or "failed although no subtest did", self.diagnostics)


class _Level:
    """The results at one depth of nesting; `prefix` is what every line of it starts with."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.name = ""
        self.announced = ""  # TAP 14: the "# Subtest:" line in front of an indented block
        self.plan: Optional[int] = None
        self.plan_reason = ""
        self.results: list[Result] = []
        self.diagnostics: list[str] = []
        self.problems: list[str] = []

    def check(self) -> list[str]:
        """What is wrong with this level once it has ended."""
        where = f" in the subtests of {self.name}" if self.name else ""
        problems = [p + where for p in self.problems]
        if self.plan is None:
            # KUnit's parameterised tests have none; the result of their parent shows that they are complete
            if not self.prefix:
                problems.append("no plan (1..N)")
        elif len(self.results) != self.plan:
            problems.append(f"planned {self.plan} tests, saw {len(self.results)}{where}")
        return problems


class Parser:
    """Feed it lines as they come; `finish()` once there are no more.

    `results` are those of the outermost level. `problems` says what is wrong with the stream itself.
    """

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.problems: list[str] = []
        self._levels = [_Level("")]
        self._seen = False
        self._orphans: list[Result] = []
        self._bailed = False

    def feed(self, line: str) -> None:
        line = line.rstrip("\r\n")
        if self._bailed:
            return
        if self._open_level(line):
            return
        for depth in range(len(self._levels) - 1, -1, -1):
            level = self._levels[depth]
            if not line.startswith(level.prefix):
                continue
            rest = line[len(level.prefix):]
            if match := _RESULT.match(rest):
                self._result(depth, match)
                return
            if match := _PLAN.match(rest):
                self._close_below(depth, "")
                if level.plan is not None:
                    level.problems.append("a second plan")
                level.plan = int(match[1])
                level.plan_reason = match[2] or ""
                self._seen = True
                return
            if match := _BAIL.match(rest):
                self.problems.append(f"bailed out: {match[1] or 'no reason given'}")
                self._bailed = True
                return
        self._levels[-1].diagnostics.append(line)

    def finish(self) -> None:
        """The stream has ended: judge it."""
        if self._bailed:
            for level in reversed(self._levels[1:]):
                self._orphans[:0] = level.results
        else:
            while len(self._levels) > 1:
                level = self._levels.pop()
                self.problems.append("truncated: subtests without the result of their parent")
                self.problems += level.check()
                self._orphans[:0] = level.results
            top = self._levels[0]
            if not self._seen:
                self.problems.append("no KTAP in the output")
            else:
                self.problems += top.check()
            if top.plan == 0 and not top.results:
                self._orphans.append(Result("all", SKIP, _directive(top.plan_reason)[1] or "the plan is empty"))
        self.results = self._levels[0].results + self._orphans

    def _open_level(self, line: str) -> bool:
        """A version line (or TAP 14's "# Subtest:") opens a level when it stands deeper than the current one."""
        current = self._levels[-1]
        if not line.startswith(current.prefix):
            return False
        rest = line[len(current.prefix):]
        if _VERSION.match(rest):
            if current.results or current.plan is not None:
                current.problems.append("a second version line")
            self._seen = True
            return True
        if match := _SUBTEST.match(rest):
            if current.prefix and not current.name and not current.results:
                current.name = match[1]
            else:
                current.announced = match[1]
            return True
        if match := _DEEPER.match(rest):
            inner, deeper = rest[match.end():], match[0]
            subtest = _SUBTEST.match(rest[match.end() - 2:]) if deeper.endswith("# ") and len(deeper) > 2 else None
            if subtest:
                deeper = deeper[:-2]
            if subtest or _VERSION.match(inner):
                level = _Level(current.prefix + deeper)
                level.name = subtest[1] if subtest else ""
                self._levels.append(level)
                self._seen = True
                return True
            if current.announced and (_PLAN.match(inner) or _RESULT.match(inner)):
                level = _Level(current.prefix + deeper)
                level.name, current.announced = current.announced, ""
                self._levels.append(level)
        return False

    def _close_below(self, depth: int, parent: str) -> list[Result]:
        """End the levels deeper than `depth`; returns the results of the one right below it."""
        children: list[Result] = []
        while len(self._levels) - 1 > depth:
            level = self._levels.pop()
            level.name = level.name or parent
            if len(self._levels) - 1 > depth:
                self.problems.append("truncated: subtests without the result of their parent")
            self.problems += level.check()
            children = level.results + children
            self._levels[-1].diagnostics += level.diagnostics
        return children

    def _result(self, depth: int, match: re.Match) -> None:
        level = self._levels[depth]
        failed, number, text = bool(match[1]), match[2], match[3] or ""
        parts = _HASH.split(text, maxsplit=1)
        name, remark = parts[0].strip(), parts[1] if len(parts) > 1 else ""
        kind, reason = _directive(remark)
        children = self._close_below(depth, name)
        expected = len(level.results) + 1
        if number and int(number) != expected:
            level.problems.append(f"test {number} ({name}) where number {expected} was due")
        status = FAIL if failed else PASS
        if kind == "SKIP":
            status = SKIP
        elif kind in ("TODO", "XFAIL"):
            status, reason = SKIP, f"{kind}: {reason}"
        elif kind in ("ERROR", "TIMEOUT"):
            status, reason = FAIL, f"{kind}: {reason}"
        result = Result(name or reason or f"test {expected}", status, reason if kind or failed else "",
                        level.diagnostics[-_KEPT_DIAGNOSTICS:], children)
        level.diagnostics = []
        level.results.append(result)
        self._seen = True


def _directive(remark: str) -> tuple[str, str]:
    """(directive in capitals or "", the rest) of what follows the hash sign."""
    match = _DIRECTIVE.match(remark.strip())
    return (match[1].upper(), match[2].strip()) if match else ("", remark.strip())


def parse(lines: Iterable[str]) -> Parser:
    """Parse a whole output; a string is split into lines."""
    parser = Parser()
    for line in lines.splitlines() if isinstance(lines, str) else lines:
        parser.feed(line)
    parser.finish()
    return parser


class Writer:
    """Prints KTAP 1. Indentation of subtests is two spaces per level, diagnostics stand before the result they explain."""

    def __init__(self, stream: TextIO, planned: int) -> None:
        self._stream = stream
        self._number = 0
        self._stream.write(f"KTAP version 1\n1..{planned}\n")
        self._stream.flush()

    def result(self, result: Result, remark: str = "") -> None:
        """Print one result of the outermost level with its subtests."""
        self._number += 1
        self._print(result, self._number, "", remark)
        self._stream.flush()

    def diagnostic(self, text: str) -> None:
        for line in text.splitlines():
            self._stream.write(f"# {line}\n")
        self._stream.flush()

    def _print(self, result: Result, number: int, indent: str, remark: str = "") -> None:
        write = self._stream.write
        if result.children:
            write(f"{indent}  KTAP version 1\n{indent}  1..{len(result.children)}\n")
            for n, child in enumerate(result.children, 1):
                self._print(child, n, indent + "  ")
        if result.status == FAIL:
            for line in result.diagnostics:
                write(f"{indent}# {line.removeprefix('# ')}\n")
        verdict = "not ok" if result.status == FAIL else "ok"
        tail = {SKIP: f" # SKIP {_flat(result.reason)}", FAIL: f" # {_flat(result.reason)}" if result.reason else ""}
        remark = f" # {remark}" if remark and not tail.get(result.status) else ""
        write(f"{indent}{verdict} {number} {_flat(result.name)}{tail.get(result.status, '')}{remark}\n")


def _flat(text: str) -> str:
    """One line, without the hash sign that would start a directive."""
    return " ".join(text.replace("#", "no.").split())
