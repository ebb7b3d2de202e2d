# SPDX-License-Identifier: GPL-2.0
"""Runs the unittest cases of one file and prints KTAP: python3 -m rig.unittests FILE

The suite runs such files in a process of their own: they may patch the rig's modules, and can be killed when they hang.
"""
import importlib.util
import sys
import traceback
import unittest
from pathlib import Path
from types import ModuleType

from . import ktap


class _Result(unittest.TestResult):
    """Collects one ktap.Result per test method, with its subTests below it."""

    def __init__(self) -> None:
        super().__init__()
        self.collected: list[ktap.Result] = []
        self._current = ktap.Result("", ktap.PASS)

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._current = ktap.Result(_name(test), ktap.PASS)

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        self.collected.append(self._current)

    def _fail(self, test: unittest.TestCase, err) -> None:
        text = traceback.format_exception(*err)
        self._note(test).diagnostics += "".join(text).splitlines()
        self._note(test).reason = str(err[1]).strip().splitlines()[0] if str(err[1]).strip() else err[0].__name__
        self._note(test).status = ktap.FAIL

    def _note(self, test: unittest.TestCase) -> ktap.Result:
        # setUpClass and the module's setUp fail outside of any test
        if not isinstance(test, unittest.TestCase) and (not self.collected or self.collected[-1].name != str(test)):
            self.collected.append(ktap.Result(str(test), ktap.PASS))
        return self._current if isinstance(test, unittest.TestCase) else self.collected[-1]

    def addError(self, test, err) -> None:
        super().addError(test, err)
        self._fail(test, err)

    def addFailure(self, test, err) -> None:
        super().addFailure(test, err)
        self._fail(test, err)

    def addSubTest(self, test, subtest, err) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._fail(test, err)
            self._current.reason = f"{subtest._subDescription()} {self._current.reason}"

    def addSkip(self, test, reason) -> None:
        super().addSkip(test, reason)
        self._note(test).status, self._note(test).reason = ktap.SKIP, reason

    def addExpectedFailure(self, test, err) -> None:
        super().addExpectedFailure(test, err)
        self._note(test).status, self._note(test).reason = ktap.SKIP, "XFAIL: expected failure"

    def addUnexpectedSuccess(self, test) -> None:
        super().addUnexpectedSuccess(test)
        self._note(test).status, self._note(test).reason = ktap.FAIL, "unexpected success"


def _name(test: unittest.TestCase) -> str:
    return f"{type(test).__name__}.{test._testMethodName}"


def cases_in(module: ModuleType) -> list[type[unittest.TestCase]]:
    """The TestCase classes that `module` itself defines, in their order."""
    return [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, unittest.TestCase)
            and value.__module__ == module.__name__]


def load(path: Path, name: str) -> ModuleType:
    """Import the file `path` as the module `name`."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def main(path: str) -> int:
    loader = unittest.TestLoader()
    suite = unittest.TestSuite(loader.loadTestsFromTestCase(c) for c in cases_in(load(Path(path), "test_file")))
    result = _Result()
    # What tests print must not mix with the results.
    stdout, sys.stdout = sys.stdout, sys.stderr
    suite.run(result)
    sys.stdout = stdout
    writer = ktap.Writer(stdout, len(result.collected))
    for one in result.collected:
        writer.result(one)
    return 0 if all(r.status != ktap.FAIL for r in result.collected) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
