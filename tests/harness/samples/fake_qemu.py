#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Stands for QEMU with a guest in it, as far as rig/vm.py can tell: a monitor, a console, and an agent.

The commands of its guest: "echo WORD...", "splat" (a kernel report), "crash WHEN" (with WHEN = "now", or once it is ended).
"""
import json
import os
import re
import resource
import select
import signal
import socket
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from rig import agent  # noqa: E402

arguments = " ".join(sys.argv)
fds = {name: int(fd) for name, fd in re.findall(r"id=(qmp|agent),fd=(\d+)", arguments)}
console = int(re.findall(r"fd=(\d+),set=1", arguments)[0])
monitor, port = (socket.socket(fileno=fds[name]) for name in ("qmp", "agent"))
ends_by = "exit"


def end(*_: object) -> None:
    if ends_by == "crash":
        os.abort()
    os._exit(0)


def tell(**message: object) -> None:
    monitor.sendall(json.dumps(message).encode() + b"\n")


def say(text: str) -> None:
    os.write(console, f"[    1.000000] {text}\n".encode())


def execute(ident: int, payload: bytes) -> None:
    global ends_by
    _, program, *words = [each.decode() for each in payload[12:].split(b"\0")[:-1]]
    if program == "sh":
        program, *words = words[-1].split()
    if program == "echo":
        port.sendall(agent.encode(agent.STDOUT, ident, " ".join(words).encode() + b"\n"))
    elif program == "splat":
        say("BUG: this is only said")
    elif program == "crash":
        if words == ["now"]:
            os.abort()
        ends_by = "crash"
    else:
        port.sendall(agent.encode(agent.ERROR, ident, struct.pack("<I", 2) + f"cannot run {program}: No such file".encode()))
        return
    port.sendall(agent.encode(agent.EXIT, ident, struct.pack("<II", 0, 0)))


def serve_agent() -> None:
    for kind, ident, payload in decoder.feed(port.recv(65536)):
        if kind == agent.HELLO:
            port.sendall(agent.encode(agent.HELLO, 0, payload + b"protocol=1\n"))
        elif kind == agent.EXEC:
            execute(ident, payload)
        elif kind == agent.MARK:
            say(payload.decode().removeprefix("<5>").rstrip())
            port.sendall(agent.encode(agent.DONE, ident))
        elif kind == agent.POWEROFF:
            tell(event="SHUTDOWN", data={"reason": "guest-shutdown"})
            end()


def serve_monitor() -> None:
    data = monitor.recv(65536)
    if not data:
        end()
    for request in map(json.loads, data.splitlines()):
        tell(**{"return": {}, "id": request["id"]})
        if request["execute"] == "cont":
            tell(event="VSERPORT_CHANGE", data={"id": "agent", "open": True})


signal.signal(signal.SIGTERM, end)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
decoder = agent.Decoder()
while True:
    ready, _, _ = select.select([monitor, port], [], [])
    if monitor in ready:
        serve_monitor()
    if port in ready:
        serve_agent()
