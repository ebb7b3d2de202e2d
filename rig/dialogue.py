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
        self.operation = guest.start(command, stdin=True, on_output=self._on_output)

    def ask(self, command: str, *arguments: object, timeout: float = 60) -> list[str]:
        """Send a command and return the words of the answer after "ok". Raises Refused, and every VmFailure."""
        line = " ".join([command, *(hex(a) if isinstance(a, int) else str(a) for a in arguments)])
        answered = len(self.answers)
        self.guest.send(self.operation, line.encode() + b"\n")
        self.guest.wait_until(lambda: len(self.answers) > answered or self.operation.done, f"'{line}' was not answered",
                              timeout)
        if len(self.answers) == answered:
            raise Refused(f"'{self.operation.title}' ended instead of answering '{line}': {self.operation.result()}")
        verdict, _, rest = self.answers[-1].partition(" ")
        if verdict != "ok":
            raise Refused(f"'{line}' was answered by '{self.answers[-1]}'")
        return rest.split()

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
