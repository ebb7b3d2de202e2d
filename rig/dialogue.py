# SPDX-License-Identifier: GPL-2.0
"""Talks with a program in a guest that answers each line of its input by one line: "ok WORDS" or "error WHAT: WHY"."""
from typing import Sequence

from .ui import RigError
from .vm import Vm


class Refused(RigError):
    """The program answered "error"."""


class Dialogue:
    """A running program and what was said. It ends with `close()`, or with the guest."""

    def __init__(self, guest: Vm, command: Sequence[str]) -> None:
        self.guest = guest
        self._rest = b""
        self.answers: list[str] = []
        self._told: list[str] = []      # what is not answered, as far as answer() was called
        self._awaited = 0               # how often that was
        self.operation = guest.start(command, stdin=True, on_output=self._on_output)

    def tell(self, command: str, *arguments: object) -> None:
        """Send a command; `answer()` gets what is answered to it, in the order of the commands."""
        self._told.append(" ".join([command, *(hex(a) if isinstance(a, int) else str(a) for a in arguments)]))
        self.guest.send(self.operation, self._told[-1].encode() + b"\n")

    def answer(self, timeout: float = 60) -> list[str]:
        """Return the words after "ok" of the next answer. Raises Refused, and every VmFailure."""
        line = self._told.pop(0)
        self._awaited += 1
        self.guest.wait_until(lambda: len(self.answers) >= self._awaited or self.operation.done, f"'{line}' was not answered",
                              timeout)
        if len(self.answers) < self._awaited:
            raise Refused(f"'{self.operation.title}' ended instead of answering '{line}': {self.operation.result()}")
        verdict, _, rest = self.answers[self._awaited - 1].partition(" ")
        if verdict != "ok":
            raise Refused(f"'{line}' was answered by '{self.answers[self._awaited - 1]}'")
        return rest.split()

    def ask(self, command: str, *arguments: object, timeout: float = 60) -> list[str]:
        """Send a command and return the words of the answer after "ok". Raises Refused, and every VmFailure."""
        self.tell(command, *arguments)
        return self.answer(timeout)

    def number(self, command: str, *arguments: object, timeout: float = 60) -> int:
        """The same for a command that answers by one number."""
        words = self.ask(command, *arguments, timeout=timeout)
        if len(words) != 1:
            raise Refused(f"'{command}' was answered by {words} instead of a number")
        return int(words[0], 0)

    def close(self, timeout: float = 60) -> None:
        """End the program's input and wait for its end."""
        if not self.operation.done:
            self.guest.send(self.operation, b"")
            self.guest.wait(self.operation, timeout)

    def _on_output(self, data: bytes, is_stderr: bool) -> None:
        if not is_stderr:
            *whole, self._rest = (self._rest + data).split(b"\n")
            self.answers += [line.decode(errors="replace") for line in whole]
