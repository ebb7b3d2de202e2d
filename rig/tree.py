# SPDX-License-Identifier: GPL-2.0
"""The kernel tree: base commit, the series on top of it, and the round trip to linux/patches.

`linux/patches` is the only source of the series. `make tree` turns it into commits on branch `series` of build/linux,
`make patches` turns those commits back into the same bytes. The base commit is the same on every machine, because
everything that goes into its hash is fixed here.

Nothing is ever thrown away: a tree with edits or commits that linux/patches does not hold is left as it is, with an
error that says so, and each time the series branch moves its old tip stays reachable as refs/hmm-p2p/previous/<n>.
"""
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterable, Iterator

from . import fetch, paths, room
from .git import IDENTITY, attempt, git, succeeds
from .ui import RigError, say, step

TREE = paths.BUILD / "linux"
PATCHES = paths.REPO / "linux" / "patches"
COVER_LETTER = paths.REPO / "linux" / "cover-letter.txt"
COVER_OUTPUT = "0000-cover-letter.txt"
BRANCH = "series"
BASE = "base"
APPLIED = "refs/hmm-p2p/applied"
PREVIOUS = "refs/hmm-p2p/previous"

_AM = "am-"
_BASE_DATE = "2026-01-01T00:00:00 +0000"
_FORMAT = ("--zero-commit", "--no-signature", "--no-numbered", "--no-base", "--no-thread", "--no-attach",
           "--no-notes", "--no-ext-diff", "--no-textconv", "--no-renames", "--no-color", "--no-encode-email-headers",
           "--diff-algorithm=histogram", "--no-indent-heuristic", "--unified=3", "--full-index",
           "--stat=75", "--stat-graph-width=30", "--src-prefix=a/", "--dst-prefix=b/")


def base_commit() -> str:
    """The hash that the base commit has when it is made of Debian's package (linux/BASE)."""
    return fetch.KERNEL.pin["commit"]


def base_found() -> str:
    """The hash of the base commit that build/linux has, whatever it was made of; the pinned one while there is none."""
    return git(TREE, "rev-parse", BASE) if (TREE / ".git").exists() else base_commit()


def base_origin() -> str:
    """What the base commit of build/linux was made of, in words; '' where that was not recorded."""
    return git(TREE, "config", "--default", "", "--get", "hmm-p2p.baseOrigin")


def patch_files() -> list[Path]:
    """The patches of the series in order."""
    return sorted(PATCHES.glob("[0-9]*.patch"))


def series_digest() -> str:
    """A hash of the base's name and of every patch: the identity of the source that `make tree` yields."""
    digest = hashlib.sha256(base_commit().encode())
    for patch in patch_files():
        digest.update(b"\0" + patch.name.encode() + b"\0" + patch.read_bytes())
    return digest.hexdigest()


def content_digest() -> str:
    """A hash of the base's name and of every patch's diff: what a kernel is compiled from. Messages do not matter.

    It is the base that there really is: KERNEL_SRC may have other files than Debian's package.
    """
    digest = hashlib.sha256(base_found().encode())
    for patch in patch_files():
        _, _, diff = patch.read_bytes().partition(b"\ndiff --git ")
        digest.update(b"\0" + diff)
    return digest.hexdigest()


def make_base() -> None:
    """Create build/linux with the base commit on branches `base` and `series`, unless it is there already."""
    if (TREE / ".git").exists():
        if not succeeds(TREE, "cat-file", "-e", f"{BASE}^{{commit}}"):
            raise RigError(f"{TREE} has no branch '{BASE}'",
                           f"move {TREE} away if you need it, or delete it; then run 'make tree'")
        _refuse_old_base()
        _forget_work_trees()
        fetch.say_if_ignored(fetch.KERNEL, base_origin(), TREE)
        return
    if TREE.exists():
        raise RigError(f"{TREE} exists but is not a git repository", "move it away, then run 'make tree'")
    unfinished = TREE.with_name(TREE.name + ".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    origin = fetch.unpack_kernel(unfinished)
    with _discarded_on_failure(unfinished), step("commit the base kernel") as current:
        git(unfinished, "init", "--quiet", "--object-format=sha1", f"--initial-branch={BASE}")
        for key, value in (("core.autocrlf", "false"), ("core.fileMode", "true"), ("gc.auto", "0"),
                           ("core.untrackedCache", "true"), ("hmm-p2p.baseOrigin", origin)):
            git(unfinished, "config", key, value)
        git(unfinished, "add", "--all", "--force")
        git(unfinished, "commit", "--quiet", "--no-gpg-sign", "--no-verify", "-m", _base_subject(), env={
            "GIT_AUTHOR_NAME": IDENTITY[0], "GIT_AUTHOR_EMAIL": IDENTITY[1],
            "GIT_AUTHOR_DATE": _BASE_DATE, "GIT_COMMITTER_DATE": _BASE_DATE})
        found = git(unfinished, "rev-parse", "HEAD")
        if found != base_commit() and origin.startswith("Debian's"):
            raise RigError(f"the base commit is {found}, but linux/BASE says {base_commit()}",
                           "after a change of the pinned package, put this hash into linux/BASE")
        git(unfinished, "switch", "--quiet", "-c", BRANCH)
        current.note = found[:12]
        if found != base_commit():
            say(f"  tree: the base made of {origin} differs from the one made of Debian's package ({base_commit()[:12]})")
    unfinished.rename(TREE)


@contextmanager
def _discarded_on_failure(directory: Path) -> Iterator[None]:
    """Nobody has use for a half-made tree, and it may be what fills the disk."""
    try:
        yield
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def make_tree() -> None:
    """Bring branch `series` of build/linux to what linux/patches says. Loses neither commits nor edits."""
    make_base()
    _refuse_unfinished()
    digest, patches = series_digest(), patch_files()
    head = git(TREE, "rev-parse", "HEAD")
    target = _apply(patches)
    if head == target:
        say(f"  tree: build/linux has the {len(patches)} patches of linux/patches")
        _remember(target, digest)
        return
    _refuse_edits()
    branch = attempt(TREE, "symbolic-ref", "--short", "-q", "HEAD").stdout.strip()
    if branch != BRANCH:
        raise RigError(f"build/linux is on {'branch ' + branch if branch else 'no branch'}, not on '{BRANCH}'",
                       f"git -C build/linux switch {BRANCH}; then run 'make tree' again")
    if head not in (_applied(), git(TREE, "rev-parse", BASE)) and not _exported(head):
        mine = git(TREE, "log", "--oneline", "--no-decorate", "-10", f"{BASE}..HEAD")
        raise RigError(
            f"build/linux has commits that are not in linux/patches; its newest:\n{_indent(mine)}",
            "'make patches' writes them to linux/patches; or keep them aside with "
            "'git -C build/linux branch mine' and discard them from this branch with "
            f"'git -C build/linux reset --keep {_applied() or BASE}', then run 'make tree' again")
    _keep_previous(head)
    git(TREE, "reset", "--quiet", "--keep", target)
    _remember(target, digest)
    say(f"  tree: build/linux now has the {len(patches)} patches of linux/patches")


def follow_patches() -> None:
    """Like `make_tree()`, but leaves a tree that somebody works in as it is, and says so."""
    head = git(TREE, "rev-parse", "HEAD")
    if head not in (_applied(), git(TREE, "rev-parse", BASE)) or source_id() == "":
        say("  tree: build/linux is used as it is, with commits or edits that linux/patches does not have")
    elif source_id() != applied_id():
        make_tree()


def make_patches() -> None:
    """Write the commits of build/linux above its base to linux/patches, replacing what is there.

    Edits of linux/patches that only its files hold are not replaced: then it is an error.
    """
    if not (TREE / ".git").exists():
        raise RigError("there is no build/linux to write patches from", "run 'make tree' first")
    _refuse_unfinished()
    _refuse_edits()
    head = git(TREE, "rev-parse", "HEAD")
    if not succeeds(TREE, "merge-base", "--is-ancestor", BASE, head):
        raise RigError("build/linux is not based on the base commit",
                       f"rebase your commits onto branch '{BASE}' first")
    if git(TREE, "rev-list", "--merges", f"{BASE}..{head}"):
        raise RigError("the series contains a merge commit", "make it linear: git -C build/linux rebase base")
    with tempfile.TemporaryDirectory(dir=paths.BUILD) as scratch:
        made = export(head, Path(scratch))
        PATCHES.mkdir(parents=True, exist_ok=True)
        stale = [p for p in PATCHES.iterdir() if re.match(r"\d+-.*\.(patch|txt)$", p.name)
                 and p.name not in {m.name for m in made}]
        fresh = [new for new in made if not (PATCHES / new.name).exists() or (PATCHES / new.name).read_bytes() != new.read_bytes()]
        if stale or fresh:
            _refuse_edited_patches()
        for new in fresh:
            shutil.copyfile(new, PATCHES / new.name)
        for old in stale:
            old.unlink()
    _remember(head, series_digest())
    say(f"  patches: linux/patches holds the {len(patch_files())} commits of build/linux")


def export(commit: str, directory: Path) -> list[Path]:
    """Write base..`commit` of build/linux as patches (and the cover letter) into `directory`; returns the files."""
    cover: list[str] = []
    if COVER_LETTER.exists() and git(TREE, "rev-list", f"{BASE}..{commit}"):
        cover = ["--cover-letter", "--cover-from-description=none"]
    git(TREE, "format-patch", "--quiet", *_FORMAT, *cover, "-o", str(directory), f"{BASE}..{commit}")
    letter = directory / "0000-cover-letter.patch"
    if letter.exists():
        subject, _, blurb = COVER_LETTER.read_text(encoding="utf-8").partition("\n")
        text = letter.read_text(encoding="utf-8")
        text = re.sub(r"^Date: .*$", "Date: " + git(TREE, "log", "-1", "--format=%aD", commit), text, count=1, flags=re.M)
        text = text.replace("*** SUBJECT HERE ***", subject, 1).replace("*** BLURB HERE ***", blurb.strip(), 1)
        # `git am` stops at a mail without a diff, so that the letter must not match linux/patches/*.patch.
        letter.unlink()
        (directory / COVER_OUTPUT).write_text(text, encoding="utf-8")
    return sorted(directory.iterdir())


def round_trip() -> list[str]:
    """Apply linux/patches to the base and export the result; the names of the files that come out different."""
    make_base()
    target = _apply(patch_files())
    with tempfile.TemporaryDirectory(dir=paths.BUILD) as scratch:
        made = {p.name: p.read_bytes() for p in export(target, Path(scratch))}
    kept = {p.name: p.read_bytes() for p in PATCHES.iterdir() if re.match(r"\d+-.*\.(patch|txt)$", p.name)}
    return sorted(name for name in made.keys() | kept.keys() if made.get(name) != kept.get(name))


def source_id() -> str:
    """What build/linux holds: a hash of its commit, or '' when it has edits (then nothing built from it is cached)."""
    if git(TREE, "status", "--porcelain", "--untracked-files=normal"):
        return ""
    return git(TREE, "rev-parse", "HEAD^{tree}")


def refuse_if_unsaved() -> None:
    """Raise RigError when build/linux holds edits or commits, under any name, that linux/patches does not."""
    if not (TREE / ".git").exists():
        return
    _refuse_unfinished()
    _refuse_edits()
    loose = git(TREE, "ls-files", "--others", "--ignored", "--exclude-standard", "--", "*.patch")
    if loose:
        raise RigError(f"build/linux has patches that its .gitignore hides:\n{_indent(loose, 10)}", "move them elsewhere, or delete them")
    names = [*([] if succeeds(TREE, "symbolic-ref", "-q", "HEAD") else ["HEAD"]),
             *git(TREE, "for-each-ref", "--format=%(refname)", "refs/heads", "refs/stash").splitlines(),
             # What else has a tag came with a fetch, or is older than the base.
             *git(TREE, "for-each-ref", "--format=%(refname)", f"--contains={BASE}", "refs/tags").splitlines()]
    for name in names:
        commit = git(TREE, "rev-parse", f"{name}^{{commit}}")
        if any(succeeds(TREE, "merge-base", "--is-ancestor", commit, safe) for safe in (BASE, _applied()) if safe) or _exported(commit):
            continue
        kind, short = name.removeprefix("refs/").partition("/")[0], name.split("/", 2)[-1]
        called, hint = {
            "HEAD": ("the detached HEAD", f"export it ('make patches'), or leave it with 'git -C build/linux switch {BRANCH}'"),
            "stash": ("the stash", "bring it back with 'git -C build/linux stash pop', or delete it with 'git -C build/linux stash drop'"),
            "tags": (f"tag '{short}'", f"delete it with 'git -C build/linux tag -d {short}'"),
            "heads": (f"branch '{short}'", f"export them ('make patches' with {short} checked out), or delete it with "
                                           f"'git -C build/linux branch -D {short}'")}[kind]
        raise RigError(f"{called} in build/linux holds commits that are not in linux/patches", hint + ", if you do not need it")


def applied_id() -> str:
    """`source_id()` of the commit that linux/patches gives; '' when it was not made here."""
    if _applied_series() != series_digest() or not _applied():
        return ""
    return git(TREE, "rev-parse", f"{_applied()}^{{tree}}")


def series_commit() -> str:
    """The commit that linux/patches gives on the base. build/linux, which may hold other work, is left alone."""
    make_base()
    return _applied() if applied_id() else _apply(patch_files())


def _apply(patches: Iterable[Path]) -> str:
    """The commit that `git am` makes of `patches` on the base. Works beside build/linux and leaves its files alone.

    Only the files that the patches name are checked out, which takes a second where the whole tree takes a minute, and
    the build's time stamps stay as they are.
    """
    patches = list(patches)
    if not patches:
        return git(TREE, "rev-parse", BASE)
    with tempfile.TemporaryDirectory(dir=paths.BUILD, prefix=_AM) as scratch, _in_use(Path(scratch)):
        work = Path(scratch) / "work"
        git(TREE, "worktree", "add", "--quiet", "--no-checkout", "--detach", str(work), BASE)
        try:
            touched = sorted({"/" + name for patch in patches for name in _touched(patch)})
            git(work, "sparse-checkout", "set", "--no-cone", "--stdin", data="\n".join(touched) + "\n")
            git(work, "read-tree", "-m", "-u", "HEAD")
            done = attempt(work, "-c", "commit.gpgsign=false", "-c", "core.autocrlf=false", "am", "--quiet",
                           "--no-3way", "--keep-cr", "--committer-date-is-author-date", *(str(p) for p in patches))
            if done.returncode:
                next_file = Path(git(work, "rev-parse", "--absolute-git-dir")) / "rebase-apply" / "next"
                number = int(next_file.read_text()) if next_file.exists() else 1
                failed = patches[number - 1]
                # The rest is git's advice for a tree that is not there any more.
                said = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("error: ", "fatal: "))]
                if any(map(room.says_full, said)):
                    raise room.full(work)
                raise RigError(
                    f"{failed.relative_to(paths.REPO)} does not apply:\n{_indent(chr(10).join(said))}",
                    "build/linux is unchanged. To mend the patch by hand: git -C build/linux switch -c mend base && "
                    f"git -C build/linux am -3 {PATCHES}/*.patch")
            return git(work, "rev-parse", "HEAD")
        finally:
            attempt(TREE, "worktree", "remove", "--force", str(work))


@contextmanager
def _in_use(directory: Path) -> Iterator[None]:
    """Keep `_forget_work_trees()` off `directory`. The kernel drops the lock when the rig is killed."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _forget_work_trees() -> None:
    """Delete the work trees of `_apply()` that a rig which was killed has left."""
    for left in paths.BUILD.glob(f"{_AM}*"):
        try:
            if time.time() - left.stat().st_mtime < 60:
                continue    # it may not be locked yet
            descriptor = os.open(left, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            attempt(TREE, "worktree", "remove", "--force", "--force", str(left / "work"))
            shutil.rmtree(left, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(descriptor)


def have_work_tree(work: Path, commit: str) -> None:
    """Have `commit`, and no edits of its files, in a work tree of build/linux at `work`.

    Files that do not differ keep their time stamps. One that another repository made, or that a `git worktree add` which was
    killed left half made, is made anew.
    """
    if not _is_work_tree(work):
        shutil.rmtree(work, ignore_errors=True)
        git(TREE, "worktree", "prune")
        # Twice: the entry of one that was half made is locked.
        git(TREE, "worktree", "add", "--quiet", "--force", "--force", "--detach", str(work), commit)
    git(work, "checkout", "--quiet", "--detach", "--force", commit)


def _is_work_tree(work: Path) -> bool:
    """Whether `git worktree add` has made `work` from build/linux and come to its end: until then its entry is locked."""
    try:
        entry = Path((work / ".git").read_text(encoding="utf-8").removeprefix("gitdir: ").rstrip("\n"))
        return (entry.resolve().parent.parent == (TREE / ".git").resolve() and not (entry / "locked").exists()
                and Path((entry / "gitdir").read_text(encoding="utf-8").rstrip("\n")).resolve() == (work / ".git").resolve())
    except OSError:
        return False


def _touched(patch: Path) -> set[str]:
    names = re.findall(r"^diff --git a/(.*) b/(.*)$", patch.read_text(encoding="utf-8", errors="replace"), re.M)
    return {name for pair in names for name in pair}


def _refuse_old_base() -> None:
    """linux/BASE may have moved since build/linux was made. Of a source that is not Debian's only the version has to be right."""
    found, version, origin = base_found(), fetch.KERNEL.pin["version"], base_origin()
    if found == base_commit():
        return
    if not origin.startswith("Debian's") and git(TREE, "log", "-1", "--format=%s", BASE) == _base_subject():
        return
    raise RigError(f"build/linux has another base ({found[:12]}, made of {origin or 'something else'}) than linux/BASE names "
                   f"(Linux {version}, {base_commit()[:12]})",
                   "if it has commits that linux/patches lacks, write them there with 'rig/rig patches'; then move build/linux away, and "
                   "run 'make tree'")


def _base_subject() -> str:
    return f"Linux {fetch.KERNEL.pin['version']}"


def _refuse_unfinished() -> None:
    git_dir = Path(git(TREE, "rev-parse", "--absolute-git-dir"))
    for name, verb in (("rebase-apply", "am"), ("rebase-merge", "rebase"), ("MERGE_HEAD", "merge"),
                       ("CHERRY_PICK_HEAD", "cherry-pick")):
        if (git_dir / name).exists():
            raise RigError(f"a git {verb} is in progress in build/linux",
                           f"finish it, or undo it with 'git -C build/linux {verb} --abort'")


def _refuse_edits() -> None:
    edits = git(TREE, "status", "--porcelain", "--untracked-files=normal")
    if edits:
        raise RigError(f"build/linux has changes that are not committed:\n{_indent(edits, 10)}",
                       "commit them (git -C build/linux commit), or put them aside (git -C build/linux stash -u)")


def _refuse_edited_patches() -> None:
    """linux/patches may be replaced by what build/linux has if it came from there, or if the project's repository has it."""
    if not patch_files() or _applied_series() == series_digest():
        return
    status = attempt(paths.REPO, "status", "--porcelain", "--untracked-files=all", "--", str(PATCHES))
    if status.returncode or status.stdout:
        raise RigError("linux/patches has changed since the last 'make tree' or 'make patches', and only the files have that:\n"
                       + _indent((status.stdout or status.stderr).rstrip(), 10),
                       "commit it, or move it elsewhere; then run 'make patches' again")
    say("  patches: linux/patches has changed since the last 'make tree' or 'make patches'; 'git diff' shows what this replaces")


def _exported(head: str) -> bool:
    """Whether linux/patches holds exactly what `head` holds."""
    count = len(patch_files())
    if len(git(TREE, "rev-list", f"--max-count={count + 1}", f"{BASE}..{head}").split()) != count:
        return False    # of a commit that was fetched, that may be the history of Linux
    with tempfile.TemporaryDirectory(dir=paths.BUILD) as scratch:
        made = [p for p in export(head, Path(scratch)) if p.suffix == ".patch"]
        return [p.read_bytes() for p in made] == [p.read_bytes() for p in patch_files()]


def _applied() -> str:
    return attempt(TREE, "rev-parse", "--verify", "--quiet", APPLIED).stdout.strip()


def _applied_series() -> str:
    """The `series_digest()` of the last 'make tree' or 'make patches'."""
    return git(TREE, "config", "--default", "", "--get", "hmm-p2p.appliedSeries")


def _remember(commit: str, digest: str) -> None:
    """Note that the patches with the `series_digest()` `digest` and `commit` are the same."""
    git(TREE, "update-ref", APPLIED, commit)
    git(TREE, "config", "hmm-p2p.appliedSeries", digest)


def _keep_previous(head: str) -> None:
    kept = git(TREE, "for-each-ref", "--format=%(objectname)", PREVIOUS).split()
    if head not in kept:
        git(TREE, "update-ref", f"{PREVIOUS}/{len(kept) + 1}", head)


def _indent(text: str, limit: int = 0) -> str:
    lines = text.splitlines()
    more = [f"... and {len(lines) - limit} more"] if limit and len(lines) > limit else []
    return "\n".join("    " + line for line in (lines[:limit] if limit else lines) + more)
