# SPDX-License-Identifier: GPL-2.0
"""QMP, the machine protocol of QEMU (docs/interop/qmp-spec.rst in its source).

Like agent.py this knows no thread: the owner calls `received()` with what arrived, holding the condition that the
waiters wait on.
"""
import json
from dataclasses import dataclass
from typing import Any, Callable, Optional


class QmpError(Exception):
    """QEMU refused a command; `error_class` is QMP's ("GenericError", "CommandNotFound", "DeviceNotFound" ...)."""

    def __init__(self, command: str, error: dict[str, Any]) -> None:
        super().__init__(f"{command}: {error.get('desc', error)}")
        self.error_class = error.get("class", "")


@dataclass
class Request:
    """A command under way: finished when `done`."""
    command: str
    done: bool = False
    value: Any = None
    error: Optional[QmpError] = None

    def result(self) -> Any:
        if self.error:
            raise self.error
        return self.value


class Qmp:
    """One QMP connection. `on_event` is called with (name, data) of every event, from within `received()`."""

    def __init__(self, send: Callable[[bytes], None], on_event: Callable[[str, dict], None]) -> None:
        self._send = send
        self._on_event = on_event
        self._buffer = b""
        self._requests: dict[int, Request] = {}
        self._last = 0
        self.greeting: Optional[dict] = None

    def received(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            if line.strip():
                self._message(json.loads(line))

    def start(self, command: str, arguments: Optional[dict[str, Any]] = None) -> Request:
        """Send a command; its answer makes the request `done`."""
        self._last += 1
        request = Request(command)
        self._requests[self._last] = request
        message: dict[str, Any] = {"execute": command, "id": self._last}
        if arguments:
            message["arguments"] = arguments
        self._send(json.dumps(message).encode() + b"\n")
        return request

    def _message(self, message: dict) -> None:
        if "QMP" in message:
            self.greeting = message["QMP"]
        elif "event" in message:
            self._on_event(message["event"], message.get("data", {}))
        else:
            request = self._requests.pop(message.get("id", 0), None)
            if request is None:
                return
            if "error" in message:
                request.error = QmpError(request.command, message["error"])
            request.value = message.get("return")
            request.done = True
