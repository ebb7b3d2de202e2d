# SPDX-License-Identifier: GPL-2.0
"""The guest's agent, run here on a socket instead of a virtio port, and built with the sanitizers."""
import os
import random
import select
import signal
import socket
import struct
import subprocess
import tempfile
import time
import unittest
from pathlib import Path
from typing import Callable, Optional

from rig import agent, paths

SOURCE = paths.REPO / "guest" / "src" / "agent.c"
PATIENCE = 60  # seconds; nothing here takes more than one on an idle machine

_scratch = tempfile.TemporaryDirectory()
_program = Path(_scratch.name) / "agent"


def setUpModule() -> None:
    subprocess.run(["cc", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined",
                    "-fno-sanitize-recover=all", "-o", _program, SOURCE], check=True)


def tearDownModule() -> None:
    _scratch.cleanup()


def processes_with(token: str) -> list[int]:
    """The processes that have `token` in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and token.encode() in (entry / "environ").read_bytes() \
                    and (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                found.append(int(entry.name))
        except OSError:
            continue
    return found


class AgentCase(unittest.TestCase):
    def setUp(self) -> None:
        self.socket, theirs = socket.socketpair()
        self.addCleanup(self.socket.close)
        self.token = f"RIG_TEST_TOKEN={os.getpid()}-{random.random()}"
        name, value = self.token.split("=")
        self.errors = open(Path(_scratch.name) / "stderr", "w+b")
        self.addCleanup(self.errors.close)
        self.child = subprocess.Popen([_program, "--fd", str(theirs.fileno())], pass_fds=[theirs.fileno()],
                                      env={**os.environ, name: value, "ASAN_OPTIONS": "detect_leaks=0"},
                                      stdin=subprocess.DEVNULL, stderr=self.errors)
        theirs.close()
        self.addCleanup(self.end)
        # As in vm.py, sending never waits: both ends would wait for each other when much goes in both directions.
        self.socket.setblocking(False)
        self.outgoing = bytearray()
        self.agent = agent.Agent(self.outgoing.extend)

    def end(self) -> None:
        """The agent ends by itself, and well, when its host goes."""
        self.socket.close()
        try:
            status = self.child.wait(PATIENCE)
        finally:
            self.child.kill()
        self.errors.seek(0)
        self.assertEqual((status, self.errors.read().decode()), (0, ""))

    def pump(self, until: Callable[[], object]) -> None:
        """Pass on what the agent sends until a condition holds."""
        limit = time.monotonic() + PATIENCE
        while not until():
            self.step(limit - time.monotonic())

    def step(self, patience: float) -> None:
        readable, writable, _ = select.select([self.socket], [self.socket] if self.outgoing else [], [], max(patience, 0))
        self.assertTrue(readable or writable, "the agent does not answer")
        if writable:
            del self.outgoing[:self.socket.send(self.outgoing)]
        if readable:
            data = self.socket.recv(65536)
            self.assertTrue(data, "the agent went away")
            self.agent.received(data)

    def greet(self) -> None:
        self.agent.greet()
        self.pump(lambda: self.agent.hello)

    def run_command(self, *argv: str, stdin: Optional[bytes] = None, **options) -> agent.Operation:
        operation = self.agent.execute(argv, stdin=stdin is not None, **options)
        if stdin is not None:
            self.agent.stdin(operation, stdin)
            self.agent.stdin(operation, b"")
        self.pump(lambda: operation.done)
        return operation.result()


class Commands(AgentCase):
    def setUp(self) -> None:
        super().setUp()
        self.greet()

    def test_hello(self) -> None:
        assert self.agent.hello
        self.assertEqual(self.agent.hello["release"], os.uname().release)
        self.assertEqual(self.agent.hello["protocol"], str(agent.PROTOCOL))

    def test_output_and_status(self) -> None:
        done = self.run_command("sh", "-c", "echo out; echo err >&2; exit 7")
        self.assertEqual((bytes(done.stdout), bytes(done.stderr), done.status), (b"out\n", b"err\n", 7))

    def test_signal(self) -> None:
        self.assertEqual(self.run_command("sh", "-c", "kill -SEGV $$").status, -signal.SIGSEGV)

    def test_environment_and_directory(self) -> None:
        done = self.run_command("sh", "-c", "echo $A $PWD", env={"A": "b=c d"}, cwd="/proc")
        self.assertEqual(bytes(done.stdout), b"b=c d /proc\n")

    def test_no_such_program(self) -> None:
        with self.assertRaisesRegex(agent.AgentError, "cannot run /no/such: No such file"):
            self.run_command("/no/such")

    def test_no_such_directory(self) -> None:
        with self.assertRaisesRegex(agent.AgentError, "No such file"):
            self.run_command("true", cwd="/no/such")

    def test_stdin(self) -> None:
        data = random.Random(1).randbytes(3_000_000)
        self.assertEqual(bytes(self.run_command("cat", stdin=data).stdout), data)

    def test_a_command_that_reads_nothing(self) -> None:
        self.assertEqual(self.run_command("true", stdin=b"x" * 300_000).status, 0)

    def test_much_output_is_complete_before_the_status(self) -> None:
        done = self.run_command("sh", "-c", "head -c 20000000 /dev/zero; head -c 3000000 /dev/zero >&2")
        self.assertEqual((len(done.stdout), len(done.stderr)), (20_000_000, 3_000_000))

    def test_many_at_once(self) -> None:
        slow = self.agent.execute(["sleep", "1000"])
        fast = [self.agent.execute(["sh", "-c", f"echo {n}; exit {n}"]) for n in range(40)]
        self.pump(lambda: all(o.done for o in fast))
        self.assertEqual([(o.status, bytes(o.stdout)) for o in fast], [(n, b"%d\n" % n) for n in range(40)])
        self.assertFalse(slow.done)
        self.agent.kill(slow, signal.SIGTERM)
        self.pump(lambda: slow.done)
        self.assertEqual(slow.status, -signal.SIGTERM)

    def test_more_than_it_can_run(self) -> None:
        started = [self.agent.execute(["sleep", "1000"]) for _ in range(70)]
        self.pump(lambda: sum(o.done for o in started) == 6)
        self.assertTrue(all(o.error and "running already" in str(o.error) for o in started if o.done))

    def test_what_a_command_leaves_behind_is_killed(self) -> None:
        done = self.run_command("sh", "-c", "sleep 1000 & echo $!")
        pid = int(done.stdout)
        self.gone(lambda: pid in processes_with(self.token))

    def test_files(self) -> None:
        path = f"{_scratch.name}/file"
        data = random.Random(2).randbytes(1_000_000)
        put = self.agent.put(path, data, 0o640)
        self.pump(lambda: put.done)
        put.result()
        self.assertEqual(Path(path).read_bytes(), data)
        self.assertEqual(os.stat(path).st_mode & 0o7777, 0o640)
        get = self.agent.get(path)
        self.pump(lambda: get.done)
        self.assertEqual(bytes(get.result().stdout), data)

    def test_files_that_fail(self) -> None:
        for start, words in ((lambda: self.agent.get("/no/such"), "cannot read /no/such"),
                             (lambda: self.agent.get("/"), "Is a directory"),
                             (lambda: self.agent.put("/no/such/file", b"x", 0o644), "cannot write"),
                             (lambda: self.agent.put("/dev/full", b"x" * 100_000, 0o644), "No space left")):
            with self.subTest(words=words):
                operation = start()
                self.pump(lambda: operation.done)
                with self.assertRaisesRegex(agent.AgentError, words):
                    operation.result()

    def test_a_file_without_a_size(self) -> None:
        get = self.agent.get("/proc/self/status")
        self.pump(lambda: get.done)
        self.assertIn(b"Name:\tagent\n", get.result().stdout)

    def test_a_new_host_gets_nothing_of_the_last_one(self) -> None:
        self.agent.execute(["sh", "-c", "while :; do echo old; done"])
        other = agent.Agent(self.outgoing.extend)
        self.agent = other
        self.greet()
        done = self.run_command("echo", "new")
        self.assertEqual(bytes(done.stdout), b"new\n")

    def test_commands_end_with_their_host(self) -> None:
        operation = self.agent.execute(["sh", "-c", "echo started; sleep 1000 & sleep 1000"])
        self.pump(lambda: operation.stdout)
        self.end()
        self.gone(lambda: processes_with(self.token))

    def gone(self, left: Callable[[], object]) -> None:
        """A process that was killed takes a moment to end."""
        limit = time.monotonic() + PATIENCE
        while found := left():
            self.assertLess(time.monotonic(), limit, f"still running: {found}")
            time.sleep(0.05)


class Malformed(AgentCase):
    def setUp(self) -> None:
        super().setUp()
        self.greet()

    def lives(self) -> None:
        self.assertEqual(bytes(self.run_command("echo", "alive").stdout), b"alive\n")

    def test_garbage(self) -> None:
        self.outgoing.extend(b"garbage RIG RIGRIG1 and more" * 1000)
        self.lives()
        self.assertTrue(self.agent.complaints)

    def test_a_length_beyond_the_limit(self) -> None:
        self.outgoing.extend(struct.pack("<4sB3sII", b"RIG1", agent.EXEC, b"\0\0\0", 1, 65537))
        self.lives()
        self.assertEqual(self.agent.complaints, ["malformed frame header"])

    def test_payloads_that_lie(self) -> None:
        bad = [
            (agent.HELLO, b""), (agent.HELLO, b"123456789"), (agent.EXEC, b""), (agent.EXEC, b"\1\0\0\0"),
            (agent.EXEC, struct.pack("<III", 0, 0, 0) + b"\0"),
            (agent.EXEC, struct.pack("<III", 1, 0, 0) + b"\0ls"),
            (agent.EXEC, struct.pack("<III", 2, 0, 0) + b"\0ls\0"),
            (agent.EXEC, struct.pack("<III", 0xffffffff, 0xffffffff, 0) + b"\0ls\0"),
            (agent.EXEC, struct.pack("<III", 1, 0, 0xfe) + b"\0ls\0"),
            (agent.EXEC, struct.pack("<III", 1, 0, 0) + b"\0ls\0extra\0"),
            (agent.KILL, b"123"), (agent.PUT, b""), (agent.PUT, b"\0\0\0\0name"), (agent.PUT, b"\0\0\0\0a\0b\0"),
            (agent.GET, b""), (agent.GET, b"name"), (agent.GET, b"a\0b\0"), (99, b"unknown"), (255, b""),
        ]
        for kind, payload in bad:
            with self.subTest(kind=kind, payload=payload):
                complaints = len(self.agent.complaints)
                operation = self.agent._start("bad", kind, payload)
                self.lives()
                self.assertTrue(operation.error or len(self.agent.complaints) == complaints + 1, "it was not refused")

    def test_an_id_in_use(self) -> None:
        payload = struct.pack("<III", 2, 0, 0) + b"\0sleep\0001000\0"
        self.outgoing.extend(agent.encode(agent.EXEC, 777, payload) * 2 + agent.encode(agent.EXEC, 0, payload))
        self.lives()
        self.assertEqual(len(self.agent.complaints), 1, self.agent.complaints)

    def test_random_frames(self) -> None:
        # Kinds that run programs or touch files get payloads that cannot be valid (no NUL at the end).
        rng = random.Random(20261122)
        for _ in range(3000):
            kind = rng.choice([agent.HELLO, agent.DATA, agent.EXEC, agent.STDIN, agent.KILL, agent.PUT, agent.GET,
                               agent.PING, agent.STDOUT, rng.randrange(24, 256)])
            payload = rng.randbytes(rng.choice([0, 1, 4, 8, 12, 100, 5000]))
            if kind in (agent.EXEC, agent.PUT, agent.GET):
                payload += b"x"
            frame = bytearray(agent.encode(kind, rng.randrange(0, 4), payload))
            if rng.random() < 0.3:
                frame[rng.randrange(8)] ^= 1 << rng.randrange(8)  # magic, type, or the bytes that must be zero
            if agent.EXEC <= frame[4] <= agent.POWEROFF and frame[4] != kind:
                continue
            self.outgoing.extend(frame)
            while self.outgoing:
                self.step(PATIENCE)
        self.outgoing.extend(bytes(70000))  # ends whatever frame it thinks it is in
        self.agent = agent.Agent(self.outgoing.extend)
        self.greet()
        self.lives()

    def test_it_ends_in_the_middle_of_a_frame(self) -> None:
        self.outgoing.extend(agent.encode(agent.PUT, 1, b"abc")[:10])
        self.pump(lambda: not self.outgoing)
        self.end()


class HostSide(unittest.TestCase):
    def test_frames_are_found_in_any_pieces_and_after_garbage(self) -> None:
        stream = b"noise" + agent.encode(agent.DONE, 1, b"abc") + b"RIG" + agent.encode(agent.DONE, 2)
        for size in (1, 2, 3, 16, 1000):
            decoder = agent.Decoder()
            frames = [f for at in range(0, len(stream), size) for f in decoder.feed(stream[at:at + size])]
            self.assertEqual(frames, [(agent.DONE, 1, b"abc"), (agent.DONE, 2, b"")])
            self.assertEqual(decoder.skipped, 8)

    def test_limits(self) -> None:
        sent = agent.Agent(lambda data: None)
        with self.assertRaises(agent.AgentError):
            sent.execute(["x" * 70000])
        with self.assertRaises(agent.AgentError):
            sent.execute(["a\0b"])
        with self.assertRaises(agent.AgentError):
            sent.get("")


if __name__ == "__main__":
    unittest.main()
