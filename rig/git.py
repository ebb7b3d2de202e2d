# SPDX-License-Identifier: GPL-2.0
"""Git as the rig uses it: no configuration of the user or the system, one identity, fixed dates."""
import os
import subprocess
from pathlib import Path
from typing import Mapping, Optional

from . import proc, room
from .ui import RigError

IDENTITY = ("hmm-p2p developers", "developers@hmm-p2p.invalid")

_ISOLATED = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
    # The files may be another user's, for instance in a container; what is built there is run anyway.
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
    "GIT_COMMITTER_NAME": IDENTITY[0],
    "GIT_COMMITTER_EMAIL": IDENTITY[1],
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_EDITOR": "false",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
}


def environment(extra: Optional[Mapping[str, str]] = None) -> dict[str, str]:
    """The environment of a git that depends on nothing but its arguments and the repository."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    return {**inherited, **_ISOLATED, **(extra or {})}


def attempt(repo: Path, *args: str, env: Optional[Mapping[str, str]] = None,
            data: Optional[str] = None) -> subprocess.CompletedProcess:
    """Run git in `repo` and return the completed process, whatever its exit status."""
    argv = ["git", "-C", str(repo), *args]
    child = proc.spawn(argv, env=environment(env), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       stdin=subprocess.DEVNULL if data is None else subprocess.PIPE)
    try:
        out, err = child.communicate(data)
    finally:
        proc.reap(child)
    return subprocess.CompletedProcess(argv, child.returncode, out, err)


def git(repo: Path, *args: str, env: Optional[Mapping[str, str]] = None, data: Optional[str] = None) -> str:
    """Run git in `repo` and return its output without the final newline; RigError when it fails (room.Full: for want of room)."""
    done = attempt(repo, *args, env=env, data=data)
    if done.returncode and room.says_full(done.stderr):
        raise room.full(repo)
    if done.returncode:
        raise RigError(f"git {' '.join(args[:3])} failed in {repo}:\n{done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.rstrip("\n")


def succeeds(repo: Path, *args: str) -> bool:
    """Whether git, run in `repo`, exits with 0."""
    return attempt(repo, *args).returncode == 0
