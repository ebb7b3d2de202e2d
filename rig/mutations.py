# SPDX-License-Identifier: GPL-2.0
"""Mutations: proof that the tests of the series fail when the series is wrong.

Each tests/mutations/<name>.patch breaks the series in one way, and its head names the test that has to fail then:

    SPDX-License-Identifier: GPL-2.0
    Breaks: what goes wrong, in words
    Test: a name as in `rig test --list`
    Only: names of cases of the selftest to which the test is limited (where it can be), of which each has to fail
    Says: a regular expression that must be found in what a failed (sub)test says

`Only` or `Says` is needed: a failure for another reason proves nothing. With both, the cases of `Only` need not be what fails: a
kernel that crashes lets none of them end. `Untested`, in place of `Test`, says why no test can
tell; such a mutation is compiled, and the run mentions it.

All of them are compiled into one kernel (variant `mutants`): what a patch breaks it breaks while `MUTATION(<name>)` is true,
with '_' for each '-' of its name, and writing that to /sys/module/hmm/parameters/mutation makes it so. One build is enough for
all, and few guests: before each mutation the test has to pass without it, in a guest in which others were tried before. A
patch need not include anything, and may not add or delete a file.
"""
import difflib
import inspect
import re
import sys
import tempfile
import threading
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Optional, Sequence, TextIO

from . import images, kernel, ktap, paths, products, tree
from .git import IDENTITY, attempt, git
from .report import Report, SkipList
from .runs import new_run_directory
from .suite import Suite, Tee, discover, guests_at_once
from .testlib import Case, Test
from .ui import RigError

MUTATIONS = paths.REPO / "tests" / "mutations"
VARIANT = "mutants"
PARAMETER = "/sys/module/hmm/parameters/mutation"
WORK = paths.BUILD / "mutants" / "linux"

_HEADER = "include/linux/hmm_mutation.h"
_HEADER_TEXT = """/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _LINUX_HMM_MUTATION_H
#define _LINUX_HMM_MUTATION_H

#include <linux/types.h>

/* Whether the kernel was told to break this. */
#define MUTATION(name) hmm_mutation(#name)
bool hmm_mutation(const char *name);

#endif
"""
_INCLUDE = "#include <linux/hmm_mutation.h>\n"
_SWITCH = "mm/hmm.c"
_SWITCH_TEXT = """
#include <linux/moduleparam.h>

static char hmm_mutation_chosen[64];
module_param_string(mutation, hmm_mutation_chosen, sizeof(hmm_mutation_chosen), 0644);

bool hmm_mutation(const char *name)
{
	static const char *told;

	if (strcmp(name, hmm_mutation_chosen))
		return false;
	if (told != name) {
		told = name;
		pr_info("hmm_mutation: %s is reached\\n", name);
	}
	return true;
}
EXPORT_SYMBOL(hmm_mutation);
"""


@dataclass(frozen=True)
class Mutation:
    """A patch of tests/mutations, and what its head says. `test` is empty when no test can tell, and `untested` says why."""
    name: str
    path: Path
    breaks: str
    test: str
    only: tuple[str, ...]
    says: str
    untested: str

    @property
    def switch(self) -> str:
        """What the kernel knows it by."""
        return self.name.replace("-", "_")


def load(directory: Path = MUTATIONS) -> list[Mutation]:
    """The mutations in `directory`, by name. Raises RigError when a head is not as the head of this file says."""
    return [_parse(path) for path in sorted(directory.glob("*.patch"))]


def _parse(path: Path) -> Mutation:
    head, _, diff = path.read_text(encoding="utf-8").partition("\ndiff --git ")
    fields: dict[str, str] = {}
    key = ""
    for line in head.splitlines():
        if match := re.match(r"([A-Z][\w-]+): (.*)", line):
            key = match[1]
            if key in fields:
                raise RigError(f"{path}: two lines {key}")
            fields[key] = match[2].strip()
        elif key and line.startswith(" "):
            fields[key] += " " + line.strip()
        elif line:
            raise RigError(f"{path}: the head has a line that is none of its fields: {line}", "see the head of rig/mutations.py")
    fields.pop("SPDX-License-Identifier", None)
    if unknown := fields.keys() - {"Breaks", "Test", "Only", "Says", "Untested"}:
        raise RigError(f"{path}: unknown fields {', '.join(sorted(unknown))}", "see the head of rig/mutations.py")
    mutation = Mutation(path.stem, path, fields.get("Breaks", ""), fields.get("Test", ""),
                        tuple(fields.get("Only", "").split()), fields.get("Says", ""), fields.get("Untested", ""))
    if not mutation.breaks or bool(mutation.test) == bool(mutation.untested):
        raise RigError(f"{path}: Breaks, and either Test or Untested are needed")
    if mutation.test and not mutation.only and not mutation.says:
        raise RigError(f"{path}: Only or Says is needed, so that a failure for another reason does not count")
    if re.search(r"^(deleted|new) file mode", diff, re.M):
        raise RigError(f"{path}: a mutation changes files, but does not add or delete them")
    if set(re.findall(r"^\+.*?\bMUTATION\((\w+)\)", diff, re.M)) != {mutation.switch}:
        raise RigError(f"{path}: what it does must depend on MUTATION({mutation.switch}), and on nothing else of that kind")
    return mutation


@dataclass(frozen=True)
class _Edit:
    """Lines `start` to `end` (from 0, end excluded) of a file are replaced by `lines`."""
    start: int
    end: int
    lines: tuple[str, ...]
    of: Mutation


def merge(mutations: Sequence[Mutation], commit: str) -> dict[str, str]:
    """The files of `commit` that `mutations` change, with all of them applied, and the switch itself: path to content.

    Each has to apply by itself, and no two may change the same lines.
    """
    edits: dict[str, list[_Edit]] = {}
    before: dict[str, str] = {}

    def original(name: str) -> str:
        if name not in before:
            before[name] = git(tree.TREE, "show", f"{commit}:{name}") + "\n"
        return before[name]

    for mutation in mutations:
        names = re.findall(r"^diff --git a/(.*) b/.*$", mutation.path.read_text(encoding="utf-8"), re.M)
        with tempfile.TemporaryDirectory() as scratch:
            for name in names:
                file = Path(scratch) / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(original(name), encoding="utf-8")
            done = attempt(Path(scratch), "apply", "--whitespace=nowarn", str(mutation.path),
                           env={"GIT_CEILING_DIRECTORIES": str(Path(scratch).parent)})
            if done.returncode:
                raise RigError(f"{mutation.path.relative_to(paths.REPO)} does not apply to the series:\n{done.stderr.strip()}")
            for name in names:
                after = (Path(scratch) / name).read_text(encoding="utf-8").splitlines(keepends=True)
                changes = difflib.SequenceMatcher(None, original(name).splitlines(keepends=True), after, autojunk=False)
                edits.setdefault(name, []).extend(_Edit(i1, i2, tuple(after[j1:j2]), mutation)
                                                  for tag, i1, i2, j1, j2 in changes.get_opcodes() if tag != "equal")
    original(_SWITCH)
    result = {_HEADER: _HEADER_TEXT}
    for name, text in before.items():
        lines = text.splitlines(keepends=True)
        ordered = sorted(edits.get(name, []), key=lambda e: (e.start, e.end, e.of.name))
        for first, second in zip(ordered, ordered[1:]):
            if second.start < first.end:    # what is only added, at the same place, is no conflict
                raise RigError(f"{first.of.path.name} and {second.of.path.name} change the same line of {name}",
                               "have one of them work by another line")
        for edit in reversed(ordered):
            lines[edit.start:edit.end] = edit.lines
        result[name] = _INCLUDE + "".join(lines) + (_SWITCH_TEXT if name == _SWITCH else "")
    return result


def source() -> Path:
    """A work tree of the series with all mutations in it, each of which is off."""
    tree.have_work_tree(WORK, mutated_commit())
    return WORK


def mutated_commit() -> str:
    """A commit on top of the series, in the repository of build/linux, that has all mutations."""
    series = tree.series_commit()
    with tempfile.TemporaryDirectory(dir=paths.BUILD) as scratch:
        index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
        git(tree.TREE, "read-tree", series, env=index)
        for name, text in merge(load(), series).items():
            blob = git(tree.TREE, "hash-object", "-w", "--stdin", data=text)
            git(tree.TREE, "update-index", "--add", "--cacheinfo", f"100644,{blob},{name}", env=index)
        made = git(tree.TREE, "write-tree", env=index)
    author = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER")
              for what, value in (("NAME", IDENTITY[0]), ("EMAIL", IDENTITY[1]), ("DATE", "2026-01-01T00:00:00 +0000"))}
    return git(tree.TREE, "commit-tree", made, "-p", series, "-m", "Mutations", env=author)


def digest() -> str:
    """A hash of what the kernel with the mutations is compiled from."""
    return products.digest(tree.content_digest(), *(m.path for m in load()), inspect.getsource(merge), _HEADER_TEXT, _SWITCH_TEXT)


class _Verdicts(Report):
    """A report about mutations: one passes when its test fails in the way that it names, and passes without it.

    A guest of its own may be done with a mutation before the other guest has come to the test without it: such a result waits.
    """

    def __init__(self, stream: TextIO, planned: int, skips: SkipList, mutations: dict[str, Mutation]) -> None:
        super().__init__(stream, planned, skips)
        self._mutations = mutations
        self._order = threading.RLock()
        self._unbroken: dict[str, bool] = {}
        self._waiting: dict[str, tuple[ktap.Result, Optional[float]]] = {}

    def result(self, result: ktap.Result, seconds: Optional[float] = None) -> ktap.Result:
        name = result.name.partition("/")[2]
        mutation = self._mutations.get(result.name)
        with self._order:
            if not mutation:
                result = super().result(result, seconds)
                self._unbroken[name] = result.status == ktap.PASS
                if name in self._waiting:
                    self.result(*self._waiting.pop(name))
                return result
            if name not in self._unbroken:
                self._waiting[name] = result, seconds
                return result
            if self._unbroken[name]:
                result = judge(mutation, result)
            else:
                result = ktap.Result(result.name, ktap.FAIL, "proves nothing, as the test does not pass without it")
            return super().result(result, seconds)

    def _known_as(self, name: str) -> str:
        return self._mutations[f"mutation/{name.partition('/')[2]}"].test


def judge(mutation: Mutation, seen: ktap.Result) -> ktap.Result:
    """Whether `seen`, the result of the mutation's test, is the failure that the mutation has to cause."""
    def verdict(why: str) -> ktap.Result:
        return ktap.Result(seen.name, ktap.FAIL if why else ktap.PASS, why, [mutation.breaks, *(_lines(failed) if why else ())])

    failed = [leaf for leaf in seen.leaves() if leaf.status == ktap.FAIL]
    if not failed and seen.status == ktap.FAIL:
        failed = [seen]
    if any(leaf.reason.startswith("boot timeout") for leaf in failed):
        return verdict("the guest did not boot")
    if not failed:
        return verdict("survived: the test passes" if seen.status == ktap.PASS else f"the test was skipped: {seen.reason}")
    for name in () if mutation.says else mutation.only:
        if not any(leaf.name.split(".")[-1] == name for leaf in failed):
            return verdict(f"survived: {name} does not fail, but something else does")
    if mutation.says and not re.search(mutation.says, "\n".join(_lines(failed))):
        return verdict(f"the test fails, but nothing says '{mutation.says}'")
    return verdict("")


def _lines(results: Sequence[ktap.Result]) -> list[str]:
    return [line for one in results for line in (one.reason, *one.diagnostics)]


def _case(declared: Case, mutation: Mutation, broken: bool) -> Case:
    """The test of a mutation as a case of a run of its own, with the mutation (`broken`) or without it."""
    def function(t: Test) -> None:
        if not broken:
            return declared.function(t)
        t.vm.write(PARAMETER, mutation.switch)
        try:
            declared.function(t)
        finally:
            if not t.vm.failure:
                t.vm.write(PARAMETER, "none")

    # The tests of kernel/ load their drivers anew. What other broken drivers have done stays with the guest.
    fresh = declared.fresh or broken and not mutation.test.startswith("kernel/")
    return replace(declared, name=f"{'mutation' if broken else 'unbroken'}/{mutation.name}", function=function, kernel=VARIANT,
                   only=mutation.only, fresh=fresh)


def check(mutations: Sequence[Mutation], cases: Sequence[Case]) -> None:
    """Raise RigError when a mutation names a test that is not there, or that does not run our own kernel."""
    declared = {one.name: one for one in cases}
    for mutation in mutations:
        if mutation.test and (mutation.test not in declared or declared[mutation.test].kernel != "debug"):
            raise RigError(f"{mutation.path.name}: there is no test '{mutation.test}' with the debug kernel",
                           "rig/rig test --list --full shows the names of all")


def select(pattern: str) -> list[Mutation]:
    """The mutations whose name, or the name of whose test, contains `pattern`. Raises RigError when there are none."""
    chosen = [m for m in load() if pattern in m.name or pattern in m.test]
    if not chosen:
        raise RigError(f"no mutation matches '{pattern}'", "rig/rig mutations --list shows all")
    return chosen


def list_all(pattern: str = "") -> int:
    """Print each mutation, what it breaks, and the test that must fail."""
    for mutation in select(pattern):
        print(f"{mutation.name}: {mutation.breaks}\n    {mutation.test or 'no test: ' + mutation.untested} {' '.join(mutation.only)}".rstrip())
    return 0


def run(pattern: str = "", jobs: int = 0, build: bool = True) -> int:
    """`rig mutations`: prove the selected ones. The last line counts; the exit status is 0 when all were caught. `build`: as for
    `rig test`."""
    cases = discover()
    chosen = select(pattern)
    check(chosen, cases)
    declared = {one.name: one for one in cases}
    planned, broken = [], {}
    for mutation in (m for m in chosen if m.test):
        planned += [_case(declared[mutation.test], mutation, with_it) for with_it in (False, True)]
        broken[planned[-1].name] = mutation
    if not build:
        images.check_built([VARIANT])
    directory = new_run_directory()
    with open(directory / "results.ktap", "w", encoding="utf-8") as copy:
        stream = Tee(sys.stdout, copy)
        report = _Verdicts(stream, len(planned), SkipList.load(paths.REPO / "tests" / "skips.toml"), broken)
        for mutation in chosen:
            if mutation.untested:
                report.diagnostic(f"{mutation.name} is not tested: {mutation.untested}")
        suite = Suite(planned, directory, partial(images.artefacts, build=build), jobs=jobs or guests_at_once(), stream=stream, report=report)
        return suite.run()


assert VARIANT in kernel.VARIANTS
