# SPDX-License-Identifier: GPL-2.0
"""What a test run prints: KTAP as results come, the seconds, and the line that counts."""
import fnmatch
import threading
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Sequence, TextIO

from . import ktap
from .ui import RigError, Spent


@dataclass
class AllowedSkip:
    """A skip that does not fail the run: glob patterns for the test's name and its reason, and why that is right."""
    name: str
    reason: str
    because: str
    used: bool = False


class SkipList:
    """The committed list of allowed skips (tests/skips.toml)."""

    def __init__(self, entries: Sequence[AllowedSkip] = ()) -> None:
        self.entries = list(entries)

    @classmethod
    def load(cls, path: Path) -> "SkipList":
        """Raises RigError when the file is not as its head says."""
        try:
            data = tomllib.loads(path.read_text()).get("skip", [])
        except tomllib.TOMLDecodeError as err:
            raise RigError(f"{path} is not valid TOML: {err}") from err
        for entry in data:
            if entry.keys() != {"name", "reason", "because"} or not all(isinstance(v, str) and v for v in entry.values()):
                raise RigError(f"{path}: an entry is not made of name, reason and because: {entry}",
                               "see the comment at the head of that file")
        return cls([AllowedSkip(**entry) for entry in data])

    def allows(self, name: str, reason: str) -> bool:
        found = False
        for entry in self.entries:
            if fnmatch.fnmatchcase(name, entry.name) and fnmatch.fnmatchcase(reason, entry.reason):
                entry.used = found = True
        return found

    def apply(self, result: ktap.Result, name: str) -> None:
        """Make a failure of every skip in `result` (called `name`) that is not allowed, and of the parents of one."""
        for child in result.children:
            self.apply(child, f"{name}.{child.name}")
            if child.status == ktap.FAIL:
                result.status = ktap.FAIL
        if result.status == ktap.SKIP and not self.allows(name, result.reason):
            result.status = ktap.FAIL
            result.reason = f"skipped, which tests/skips.toml does not allow: {result.reason}"


class Report:
    """Prints results to `stream`, from any thread, and counts them."""

    def __init__(self, stream: TextIO, planned: int, skips: SkipList) -> None:
        self.passed = self.failed = self.skipped = 0
        self.failures: list[ktap.Result] = []
        self._stream = stream
        self._skips = skips
        self._lock = threading.Lock()
        self._planned = planned
        self._writer = ktap.Writer(stream, planned)

    def result(self, result: ktap.Result, seconds: Optional[float] = None) -> ktap.Result:
        """Judge the skips of a case's result, print it, count it; returns it as judged."""
        self._skips.apply(result, self._known_as(result.name))
        with self._lock:
            self._writer.result(result, f"{seconds:.1f} s" if seconds is not None else "")
            for leaf in result.leaves():
                if leaf.status == ktap.PASS:
                    self.passed += 1
                elif leaf.status == ktap.SKIP:
                    self.skipped += 1
                else:
                    self.failed += 1
                    self.failures.append(leaf)
        return result

    def _known_as(self, name: str) -> str:
        """The name by which the list of skips knows the case `name`."""
        return name

    def diagnostic(self, text: str) -> None:
        with self._lock:
            self._writer.diagnostic(text)

    def finish(self, spent: Sequence[Spent], complete: bool) -> int:
        """Print what each step took, the failures again, and the last line. Returns the exit status of the run.

        `complete`: every case of the suite was selected, so that an allowed skip which never happened is worth a remark.
        """
        with self._lock:
            out = self._writer.diagnostic
            if complete:
                for entry in self._skips.entries:
                    if not entry.used:
                        out(f"skips.toml: nothing was skipped as {entry.name} ({entry.reason})")
            width = max((len(each.title) for each in spent), default=0)
            if spent:
                out(f"  {'':<{width}}  seconds   of CPU")
            for each in spent:
                out(f"  {each.title:<{width}} {each.seconds:8.1f}" + (f" {each.cpu:8.1f}" if each.cpu else ""))
            for leaf in self.failures:
                out(f"failed: {leaf.name}" + (f": {leaf.reason}" if leaf.reason else ""))
            self._stream.write(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped\n")
            self._stream.flush()
            return 1 if self.failed or not self.passed else 0
