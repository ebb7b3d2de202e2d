# SPDX-License-Identifier: GPL-2.0
"""Running other programs: logged, in their own process group, never left behind.

Every program started through this module is killed with its children when the rig ends, for whatever reason it ends
(an exception, Ctrl-C, SIGTERM), so that no stray QEMU or make survives a run.
"""
import atexit
import ctypes
import os
import shlex
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Mapping, Optional, Sequence

from . import room
from .paths import BUILD
from .ui import RigError

DEVNULL = subprocess.DEVNULL

_running: set[subprocess.Popen] = set()
_lock = threading.Lock()

# PDEATHSIG is sent when the *thread* that forked ends, so that all children are forked by one that lives as long as the rig.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")
# Resolved here: between fork and exec in a threaded program nothing may take a lock (an import would).
_prctl = ctypes.CDLL(None, use_errno=True).prctl
_PR_SET_PDEATHSIG = 1


def spawn(argv: Sequence[str | os.PathLike], **kwargs) -> subprocess.Popen:
    """Start `argv` in a process group of its own. The child also dies when the rig itself is killed (PDEATHSIG)."""
    return _spawner.submit(_fork, [os.fspath(a) for a in argv], kwargs).result()


def reap(child: subprocess.Popen, grace: float = 5.0) -> int:
    """End `child` and its process group: SIGTERM, after `grace` seconds SIGKILL. Returns its exit status."""
    if child.poll() is None:
        _signal_group(child, signal.SIGTERM)
        try:
            child.wait(grace)
        except subprocess.TimeoutExpired:
            pass
    _signal_group(child, signal.SIGKILL)
    status = child.wait()
    with _lock:
        _running.discard(child)
    return status


def run(argv: Sequence[str | os.PathLike], *, log: Path, cwd: Optional[Path] = None,
        env: Optional[Mapping[str, str]] = None, what: str = "", hint: str = "",
        on_line: Optional[Callable[[str], None]] = None, timeout: Optional[float] = None) -> None:
    """Run `argv` to its end with stdout and stderr in the file `log` (appended); `on_line` sees every line of it.

    `env` is added to the environment. `timeout` is in seconds. Raises RigError with the log's path and last lines when
    the program fails; `what` and `hint` give the error its words.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    tail: list[str] = []
    with open(log, "a", encoding="utf-8", errors="replace") as out:
        out.write("$ " + shlex.join(os.fspath(a) for a in argv) + "\n")
        out.flush()
        try:
            child = spawn(argv, cwd=cwd, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        except FileNotFoundError as err:
            raise RigError(f"cannot run {argv[0]}: {err.strerror}", "run 'rig/rig tools' to install the build tools") from err
        timed_out = threading.Event()

        def expire() -> None:
            timed_out.set()
            _signal_group(child, signal.SIGKILL)

        timer = threading.Timer(timeout, expire) if timeout else None
        if timer:
            timer.start()
        try:
            for line in child.stdout or ():
                out.write(line)
                tail = (tail + [line])[-15:]
                if on_line:
                    on_line(line.rstrip("\n"))
            status = child.wait()
        finally:
            if timer:
                timer.cancel()
            reap(child)
            if child.stdout:
                child.stdout.close()
    if status != 0 and (said := next((t.strip() for t in tail if room.says_full(t)), "")):
        raise room.full(cwd or BUILD, said)
    if status != 0 or timed_out.is_set():
        why = f"took more than {timeout:.0f} s" if timed_out.is_set() else f"exit status {status}"
        raise RigError(f"{what or os.fspath(argv[0])} failed ({why}); the log is {log}:\n" +
                       "".join("    " + t for t in tail).rstrip("\n"), hint)


def _fork(argv: list[str], kwargs: dict) -> subprocess.Popen:
    child = subprocess.Popen(argv, start_new_session=True, preexec_fn=_die_with_parent, **kwargs)
    with _lock:
        _running.add(child)  # here, so that Ctrl-C in the thread that waits for us loses nothing
    return child


def _signal_group(child: subprocess.Popen, signo: int) -> None:
    try:
        os.killpg(child.pid, signo)
    except (ProcessLookupError, PermissionError):
        pass


def _die_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@atexit.register
def kill_all() -> None:
    """Kill everything that `spawn()` started and nobody reaped."""
    with _lock:
        left = list(_running)
    for child in left:
        _signal_group(child, signal.SIGKILL)
        child.wait()
