# SPDX-License-Identifier: GPL-2.0
"""The host's end of the connection to guest/src/agent.c, which runs commands in the guest.

The wire format is described at the head of agent.c. This module turns frames into commands and transfers; it knows no
thread: the owner (vm.Vm) calls `received()` with what arrived, holding the condition that the waiters wait on.
"""
import errno
import os
import struct
from dataclasses import dataclass, field
from typing import Callable, Iterator, Mapping, Optional, Sequence

PORT_NAME = "org.hmm-p2p.rig"
PROTOCOL = 1
MAX_PAYLOAD = 65536

HELLO, DATA = 1, 2
EXEC, STDIN, KILL, PUT, GET, PING, MARK, POWEROFF = range(16, 24)
STDOUT, STDERR, EXIT, DONE, ERROR = range(32, 37)

EXEC_STDIN = 1

_HEADER = struct.Struct("<4sB3sII")
_MAGIC = b"RIG1"


def encode(kind: int, ident: int = 0, payload: bytes = b"") -> bytes:
    """One frame. Raises ValueError when the payload is longer than MAX_PAYLOAD."""
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"a frame carries at most {MAX_PAYLOAD} bytes, not {len(payload)}")
    return _HEADER.pack(_MAGIC, kind, b"\0\0\0", ident, len(payload)) + payload


class Decoder:
    """Turns a stream into (type, id, payload). Bytes that are no frame are skipped and counted in `skipped`."""

    def __init__(self) -> None:
        self._buffer = b""
        self.skipped = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            magic, kind, zero, ident, length = _HEADER.unpack_from(self._buffer)
            if magic != _MAGIC or zero != b"\0\0\0" or length > MAX_PAYLOAD:
                start = self._buffer.find(_MAGIC, 1)
                drop = start if start > 0 else max(1, len(self._buffer) - len(_MAGIC) + 1)
                self.skipped += drop
                self._buffer = self._buffer[drop:]
                continue
            if len(self._buffer) < _HEADER.size + length:
                return
            payload = self._buffer[_HEADER.size:_HEADER.size + length]
            self._buffer = self._buffer[_HEADER.size + length:]
            yield kind, ident, payload


class AgentError(Exception):
    """The agent could not do what was asked of it; `code` is an errno of the guest."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass
class Operation:
    """Something the agent is doing for us. Finished when `done`; `error` then says why it failed, if it did."""
    ident: int
    title: str
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    on_output: Optional[Callable[[bytes, bool], None]] = None
    done: bool = False
    status: Optional[int] = None
    """Exit status; a negative signal number when a signal ended it."""
    error: Optional[AgentError] = None

    def result(self) -> "Operation":
        """Self, once done. Raises what went wrong."""
        if self.error:
            raise self.error
        return self


class Agent:
    """The state of one connection. `send` takes the bytes of whole frames."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._decoder = Decoder()
        self._operations: dict[int, Operation] = {}
        self._last = 0
        self._nonce = b""
        self.hello: Optional[dict[str, str]] = None
        """What the agent said about itself and its kernel (protocol, release, version, machine, pid)."""
        self.complaints: list[str] = []
        """What it said about frames of ours that it did not understand; always empty unless there is a bug."""

    def greet(self) -> None:
        """Ask for HELLO. Everything that arrives before its answer belongs to nobody and is dropped."""
        self.hello = None
        self._nonce = os.urandom(8)
        self._send(encode(HELLO, 0, self._nonce))

    def received(self, data: bytes) -> None:
        for kind, ident, payload in self._decoder.feed(data):
            if kind == HELLO:
                if payload[:8] == self._nonce:
                    self.hello = dict(line.split("=", 1) for line in payload[8:].decode(errors="replace").splitlines())
                continue
            if self.hello is not None:
                self._frame(kind, ident, payload)

    def _frame(self, kind: int, ident: int, payload: bytes) -> None:
        operation = self._operations.get(ident)
        error = None
        if kind == ERROR and len(payload) >= 4:
            code, = struct.unpack_from("<I", payload)
            error = AgentError(code, payload[4:].decode(errors="replace") or os.strerror(code))
        if operation is None:
            if error and ident == 0:
                self.complaints.append(str(error))
            return
        if kind in (STDOUT, STDERR, DATA):
            (operation.stderr if kind == STDERR else operation.stdout).extend(payload)
            if operation.on_output:
                operation.on_output(payload, kind == STDERR)
            return
        if kind == EXIT and len(payload) == 8:
            signalled, value = struct.unpack("<II", payload)
            operation.status = -value if signalled else value
        elif error:
            operation.error = error
        elif kind != DONE:
            return
        operation.done = True
        del self._operations[ident]

    def _start(self, title: str, kind: int, payload: bytes,
               on_output: Optional[Callable[[bytes, bool], None]] = None) -> Operation:
        self._last += 1
        operation = Operation(self._last, title, on_output=on_output)
        frame = encode(kind, operation.ident, payload)
        self._operations[operation.ident] = operation
        self._send(frame)
        return operation

    def execute(self, argv: Sequence[str], *, cwd: str = "", env: Optional[Mapping[str, str]] = None, stdin: bool = False,
                on_output: Optional[Callable[[bytes, bool], None]] = None) -> Operation:
        """Start a command. With `stdin` its input comes from `stdin()`, otherwise from /dev/null."""
        strings = [cwd, *argv, *(f"{k}={v}" for k, v in (env or {}).items())]
        if not argv or any("\0" in s for s in strings):
            raise AgentError(errno.EINVAL, "a command needs a program, and no string of it may hold a NUL")
        payload = struct.pack("<III", len(argv), len(env or {}), EXEC_STDIN if stdin else 0)
        payload += b"".join(s.encode("utf-8", "surrogateescape") + b"\0" for s in strings)
        if len(payload) > MAX_PAYLOAD:
            raise AgentError(errno.E2BIG, f"the command and its environment are longer than {MAX_PAYLOAD} bytes")
        return self._start(argv[0], EXEC, payload, on_output)

    def stdin(self, operation: Operation, data: bytes) -> None:
        """Pass `data` to the command's stdin; empty data closes it."""
        if not data:
            self._send(encode(STDIN, operation.ident))
        for at in range(0, len(data), MAX_PAYLOAD):
            self._send(encode(STDIN, operation.ident, data[at:at + MAX_PAYLOAD]))

    def kill(self, operation: Operation, signo: int) -> None:
        """Signal the command's process group; nothing happens when it has ended."""
        self._send(encode(KILL, operation.ident, struct.pack("<I", signo)))

    def get(self, path: str) -> Operation:
        """Read a file of the guest; the content is the operation's stdout."""
        return self._start(f"get {path}", GET, _path(path))

    def put(self, path: str, data: bytes, mode: int) -> Operation:
        """Write a file of the guest."""
        operation = self._start(f"put {path}", PUT, struct.pack("<I", mode) + _path(path))
        for at in range(0, len(data), MAX_PAYLOAD):
            self._send(encode(DATA, operation.ident, data[at:at + MAX_PAYLOAD]))
        self._send(encode(DATA, operation.ident))
        return operation

    def mark(self, text: str) -> Operation:
        """Write a line to the guest's kernel log (level "notice")."""
        return self._start("mark", MARK, f"<5>{text}\n".encode()[:900])

    def ping(self) -> Operation:
        return self._start("ping", PING, b"")

    def power_off(self) -> Operation:
        return self._start("power off", POWEROFF, b"")


def _path(path: str) -> bytes:
    if not path or "\0" in path:
        raise AgentError(errno.EINVAL, "a path is not empty and holds no NUL")
    return path.encode("utf-8", "surrogateescape") + b"\0"
