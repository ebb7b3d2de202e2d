# SPDX-License-Identifier: GPL-2.0
"""tests/kernel/hmm_test.py knows from the program's own list which cases have to run."""
import unittest
from unittest import mock

from rig import ktap, unittests
from rig.suite import TESTS
from rig.testlib import Failed

hmm = unittests.load(TESTS / "kernel" / "hmm_test.py", "hmm_p2p_tests.kernel.hmm")
LISTED = """\
# FIXTURE            VARIANT                   TEST
global
--------------------------------------------------------------------------------
hmm                  hmm_device_private        open_close
                     hmm_device_coherent       migrate
                                               migrate_multiple
--------------------------------------------------------------------------------
hmm2                 hmm2_device_private       migrate_mixed
                     hmm2_device_coherent
"""
ALL = {"hmm.hmm_device_private.open_close", "hmm.hmm_device_private.migrate", "hmm.hmm_device_private.migrate_multiple",
       "hmm2.hmm2_device_private.migrate_mixed"}


class Cases(unittest.TestCase):
    def test_all_of_each_fixture(self) -> None:
        self.assertEqual(hmm.private(LISTED), ALL)

    def test_some(self) -> None:
        self.assertEqual(hmm.private(LISTED, only=("migrate",)), {"hmm.hmm_device_private.migrate"})
        self.assertEqual(hmm.private(LISTED, without=("open_close", "migrate_mixed")),
                         {"hmm.hmm_device_private.migrate", "hmm.hmm_device_private.migrate_multiple"})

    def run_with(self, ran: set[str], without: tuple[str, ...]) -> mock.Mock:
        t = mock.Mock()
        t.case.only = ()
        t.vm.run.return_value.stderr = LISTED
        t.guest_ktap.return_value.results = [ktap.Result(name, ktap.PASS) for name in ran]
        t.equal.side_effect = lambda seen, expected, what: self.fail_unless(seen == expected, what)
        hmm.run(t, without=without)
        return t

    def fail_unless(self, right: bool, what: str) -> None:
        if not right:
            raise Failed(what)

    def test_each_has_to_run(self) -> None:
        t = self.run_with(ALL - {"hmm.hmm_device_private.migrate_multiple"}, without=("migrate_multiple",))
        self.assertEqual(t.guest_ktap.call_args.args[0], [hmm.PROGRAM, "-T", "migrate_multiple"])
        with self.assertRaisesRegex(Failed, "did not run"):
            self.run_with(ALL - {"hmm2.hmm2_device_private.migrate_mixed"}, without=("migrate_multiple",))


if __name__ == "__main__":
    unittest.main()
