# SPDX-License-Identifier: GPL-2.0
"""`rig fuzz` fails when a device has never been made to do something that it can do."""
import contextlib
import io
import unittest
from unittest import mock

from rig import fuzz
from rig.ui import RigError

DONE = ["# gp100 executions: 9 in 1 rounds and 1 s, FUZZ_SEED=1", "# gp100 gpu.method-counts good: HOST.NOP=3/0",
        "# gp100 gpu.method-counts only bad: CE.NOP=0/2", "# gp100 gpu.method-counts never:", "ok 1 /x86_64/fuzz/gp100"]
LEFT = [line + " CE.LAUNCH_DMA=0/0 HOST.WFI=0/0" if line.endswith("never:") else line for line in DONE]
LIST = ["/x86_64/fuzz/gp100", "/x86_64/fuzz/p2pdev"]


class Reached(unittest.TestCase):
    def run_with(self, output: list[str]) -> tuple[int, str]:
        """The exit status and what is printed, when each machine writes `output`."""
        printed = io.StringIO()
        with mock.patch.object(fuzz, "_run", lambda *arguments, **_: LIST if arguments == ("-l",) else output), \
                contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            status = fuzz.run(4, 1)
        return status, printed.getvalue()

    def test_all_is_reached(self) -> None:
        status, printed = self.run_with(DONE)
        self.assertEqual(status, 0)
        self.assertIn("gp100 gpu.method-counts only bad: CE.NOP=0/2", printed)

    def test_something_is_not(self) -> None:
        status, printed = self.run_with(LEFT)
        self.assertEqual(status, 1)
        self.assertIn("2 of what the model can do never happened: CE.LAUNCH_DMA HOST.WFI", printed)
        self.assertIn("gp100 executions: 9", printed)

    def test_a_machine_that_there_is_not(self) -> None:
        with mock.patch.object(fuzz, "_run", lambda *_, **__: LIST), self.assertRaisesRegex(RigError, "gp100, p2pdev"):
            fuzz.run(4, 1, "gp104")


if __name__ == "__main__":
    unittest.main()
