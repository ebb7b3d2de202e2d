# SPDX-License-Identifier: GPL-2.0
"""The qtests of our device models (qemu/tests/qtest): every program is a case, every test in it counts."""
from typing import Callable

from rig import qemu
from rig.testlib import Test, case


def runs(program: str) -> Callable[[Test], None]:
    def run(t: Test) -> None:
        t.host_ktap([qemu.qtest_program(program), "--tap", "-k"], cwd=t.directory,
                    env={"QTEST_QEMU_BINARY": str(qemu.binary())})
    run.__name__ = program.removesuffix("-test")
    run.__module__ = __name__
    return run


for name in qemu.qtests():
    case(timeout=900)(runs(name))
