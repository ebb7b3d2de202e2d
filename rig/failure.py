# SPDX-License-Identifier: GPL-2.0
"""What can go wrong with a guest, for those who use one and must not lose what they have because of it."""
from .agent import AgentError
from .qmp import QmpError
from .vm import CommandFailed, VmFailure

GUEST = (VmFailure, AgentError, CommandFailed, QmpError)
"""Everything that the methods of a Vm raise when the guest, or a command in it, fails."""

_SHOWN_LINES = 40


def explain(error: BaseException) -> list[str]:
    """Lines to show: what happened, and behind "  | " what the guest or the command had to say about it."""
    evidence: list[str] = []
    if isinstance(error, VmFailure):
        return [f"{error.kind}: {error}", *_quoted(error.evidence[:_SHOWN_LINES])]
    if isinstance(error, CommandFailed):
        evidence = (error.completed.stdout + error.completed.stderr).splitlines()[-_SHOWN_LINES:]
    return [str(error) or type(error).__name__, *_quoted(evidence)]


def _quoted(lines: list[str]) -> list[str]:
    return ["  | " + line for line in lines]
