# SPDX-License-Identifier: GPL-2.0
"""What the user sees: errors that say what to do, and the progress of long steps.

On a terminal a running step shows a live line; in a log each step is one line when it ends. Both go to stderr, so that
stdout carries only results (KTAP, tables).
"""
import sys
import time
from contextlib import contextmanager
from typing import Iterator, NamedTuple


class RigError(Exception):
    """An error the user can act on: `what` went wrong, and `hint`, what to do about it."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}\n  {self.hint}" if self.hint else self.what


class Step:
    """A step in progress. `update()` changes the live line and is cheap enough to call often."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.start = time.monotonic()
        self.live = sys.stderr.isatty()
        self.note = ""
        self._shown = 0.0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start

    def update(self, text: str) -> None:
        """Show `text` beside the title; at most ten times a second, and only on a terminal."""
        now = time.monotonic()
        if self.live and now - self._shown >= 0.1:
            self._shown = now
            sys.stderr.write(f"\r\033[K  {self.title}: {text} ({self.seconds:.0f} s)")
            sys.stderr.flush()

    def finish(self, verdict: str) -> None:
        clear = "\r\033[K" if self.live else ""
        note = f" ({self.note})" if self.note else ""
        sys.stderr.write(f"{clear}  {self.title}: {verdict}{note}, {self.seconds:.1f} s\n")
        sys.stderr.flush()


class Spent(NamedTuple):
    """What something took: seconds, and seconds of CPU time where that is known (0 where not)."""
    title: str
    seconds: float
    cpu: float = 0


STEP_SECONDS: list[Spent] = []
"""What every step that ended took, in order; `rig test` prints them."""


@contextmanager
def step(title: str) -> Iterator[Step]:
    """Report a long step. Set `.note` on the yielded Step to add a remark to its closing line."""
    current = Step(title)
    if current.live:
        current.update("...")
    try:
        yield current
    except BaseException:
        current.finish("FAILED")
        raise
    finally:
        STEP_SECONDS.append(Spent(title, current.seconds))
    current.finish("done")


def say(text: str) -> None:
    """One line of information on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
