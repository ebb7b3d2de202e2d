# SPDX-License-Identifier: GPL-2.0
"""The command line of `rig/rig`. Each verb's help says what it does; the Makefile's targets call these."""
import argparse
import contextlib
import os
import signal
import sys
from typing import Callable, Optional, Sequence

from . import paths, room
from .ui import RigError, say

Handler = Callable[[argparse.Namespace], Optional[int]]


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the verb that `argv` names; the exit status of the rig."""
    # Some of the programs that the rig calls are where only root's PATH leads.
    os.environ["PATH"] = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
    options = _parser().parse_args(argv)
    for signo in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signo, _interrupt)
    try:
        _check_environment()
        return options.handler(options) or 0
    except RigError as error:
        print(f"rig: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nrig: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever reads our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where Python puts the rest when it ends
        return 128 + signal.SIGPIPE
    except OSError as error:
        said = room.explained(error, paths.BUILD)
        if not said and not error.filename and not error.strerror:
            raise
        said = said or RigError(f"{error.filename or 'I/O'}: {error.strerror}", "nothing was lost; run the command again when this is mended")
        print(f"rig: error: {said}", file=sys.stderr)
        return 1


def _interrupt(signo: int, frame: object) -> None:
    raise KeyboardInterrupt


def _check_environment() -> None:
    from . import vm
    vm.timeout_factor()
    # Neither the kernel's nor QEMU's makefiles can cope with these characters in a path.
    bad = set(str(paths.BUILD)) & set(" :\t\n")
    if bad:
        raise RigError(f"the kernel and QEMU cannot be built in a path with spaces or colons: {paths.BUILD}",
                       "set RIG_BUILD to a directory without them, e.g. RIG_BUILD=/var/tmp/hmm-p2p-build")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rig/rig", description="Build, boot and test the hmm-p2p series without hardware.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, handler: Handler, text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        sub.set_defaults(handler=handler)
        return sub

    verb("tools", _tools, "install the build tools that are missing (or print the command that does)")
    sub = verb("fetch", _fetch, "download and verify every pinned input")
    sub.add_argument("--update-lock", action="store_true",
                     help="take the guest packages that the archive has now, and record them in guest/packages.lock")
    verb("tree", _tree, "make build/linux: the base kernel with linux/patches applied")
    verb("patches", _patches, "write the commits of build/linux to linux/patches")

    sub = verb("build", _build, "build what a guest needs: kernel, QEMU, image")
    sub.add_argument("what", nargs="*", choices=[[], "kernel", "qemu", "guest"], metavar="kernel|qemu|guest",
                     help="what to build (default: all three)")
    _kernel_option(sub)

    sub = verb("run", _run, "run a command in a guest, where /host is this directory; exits with its status")
    _guest_options(sub)
    sub.add_argument("--timeout", type=_seconds, default=600, help="seconds that the command may take (default 600; inf: no end)")
    sub.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="the command and its arguments")

    sub = verb("shell", _shell, "an interactive shell in a guest (Ctrl-A x quits)")
    _guest_options(sub)

    sub = verb("command", _command, "print the QEMU command line that boots the guest of 'shell' without the rig")
    _guest_options(sub)

    sub = verb("test", _test, "run the tests whose names contain PATTERN")
    sub.add_argument("pattern", nargs="?", default="", metavar="PATTERN")
    sub.add_argument("--list", action="store_true", help="print the names of the tests and stop")
    sub.add_argument("--jobs", type=_count, default=0, help="guests to run at once (default: one for each core that has 3 GiB of memory)")
    sub.add_argument("--full", action="store_true", help="also the long tests")
    sub.add_argument("--no-build", action="store_true", help="build and download nothing: use what was built before")

    sub = verb("bench", _bench, "measure, and print each value beside its target")
    sub.add_argument("name", nargs="?", default="", metavar="NAME", help="one benchmark of bench/ (default: all)")
    sub.add_argument("--check", action="store_true", help="exit with status 1 when a target is missed")
    sub.add_argument("--no-build", action="store_true", help="build and download nothing: use what was built before")
    _kernel_option(sub, "release if it needs no compiling or for hmm, else debug")

    sub = verb("fuzz", _fuzz, "use the device models at random under AddressSanitizer; exits with 1 when something is found")
    sub.add_argument("--seconds", type=int, default=600, help="time for all machines together (default 600)")
    sub.add_argument("--seed", type=int, default=1, help="of the random numbers (default 1)")
    sub.add_argument("--machine", default="", help="only this machine of qemu/tests/qtest/device-fuzz.c")
    sub.add_argument("--no-build", action="store_true", help="build and download nothing: use what was built before")

    verb("topologies", _topologies, "list the topologies that run and shell know")
    sub = verb("mutations", _mutations, "prove that the tests fail when the series is broken (tests/mutations)")
    sub.add_argument("pattern", nargs="?", default="", metavar="PATTERN",
                     help="only those with PATTERN in their name or in that of their test")
    sub.add_argument("--list", action="store_true", help="print them and stop")
    sub.add_argument("--jobs", type=_count, default=0, help="guests to run at once (default: as for test)")
    sub.add_argument("--no-build", action="store_true", help="build and download nothing: use what was built before")

    sub = verb("demo", _demo, "RDMA on GPU memory with perftest, peer to peer and not, and what the devices say about it")
    _kernel_option(sub)
    verb("check", _check, "the checks that need no guest: round trip, checkpatch, shellcheck, Python")
    sub = verb("clean", _clean, "delete build/ (refused while build/linux holds work that is not in linux/patches)")
    sub.add_argument("--cache", action="store_true", help="also the shared cache of downloads and compiled files")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is not a number of at least 1")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not value > 0:   # nor NaN
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return value


def _kernel_option(parser: argparse.ArgumentParser, default: str = "release") -> None:
    from . import images
    parser.add_argument("--kernel", default="", choices=["", *images.KERNELS], metavar="VARIANT",
                        help=f"kernel variant: {', '.join(images.KERNELS)} (default {default})")


def _guest_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("topology", help="a topology's name (see 'rig/rig topologies')")
    _kernel_option(parser, "release, or debug if only that is built")
    parser.add_argument("--no-build", action="store_true", help="build and download nothing: use what was built before")


def _tools(options: argparse.Namespace) -> None:
    from . import tools
    tools.ensure(checks=options.verb == "tools", builds=options.verb == "tools")


def _fetch(options: argparse.Namespace) -> None:
    from . import fetch, packages
    _tools(options)
    if options.update_lock:
        for line in packages.update_lock():
            say(line)
    fetch.all_inputs()


def _tree(options: argparse.Namespace) -> None:
    from . import lock, tree
    _tools(options)
    with lock.build_directory():
        tree.make_tree()


def _patches(options: argparse.Namespace) -> None:
    from . import lock, tree
    with lock.build_directory():
        tree.make_patches()


def build(what: Sequence[str] = (), variant: str = "release", checks: bool = False) -> None:
    """Bring kernel, QEMU and guest image up to date, or those of them that `what` names. `checks`: all that `make test` needs
    beside them, too: tools, and the kernels of distributions."""
    from . import guest, images, lock, qemu, stock, tools, tree
    tools.ensure(checks)
    wanted = what or ("qemu", "kernel", "guest")
    with lock.build_directory():
        if checks:
            tree.make_base()
            for name in stock.VARIANTS:     # first: a network that is missing is better known before all else is compiled
                images.build_kernel(name)
        if "qemu" in wanted:
            qemu.build()
        if "kernel" in wanted:
            images.build_kernel(variant)
        if "guest" in wanted:
            guest.build()


def _build(options: argparse.Namespace) -> None:
    build(options.what, options.kernel or "release")


def _either_kernel(options: argparse.Namespace) -> str:
    from . import images, tools
    if not options.no_build:
        tools.ensure()  # a kernel is known by its compiler, too
    return images.choose_kernel(build=not options.no_build)


def _run(options: argparse.Namespace) -> int:
    from . import session
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise RigError("there is no command to run", "rig/rig run TOPOLOGY -- COMMAND [ARGUMENT...]")
    if command == options.command and command[0].startswith("-"):
        raise RigError(f"{command[0]} stands after the topology, where the command begins",
                       "rig/rig run [OPTION...] TOPOLOGY -- COMMAND [ARGUMENT...]")
    return session.run_command(options.topology, command, kernel=_ready(options), build=not options.no_build, timeout=options.timeout)


def _shell(options: argparse.Namespace) -> int:
    from . import session
    return session.shell(options.topology, kernel=_ready(options), build=not options.no_build)


def _command(options: argparse.Namespace) -> None:
    from . import session
    session.print_command_line(options.topology, kernel=_ready(options), build=not options.no_build)


def _ready(options: argparse.Namespace) -> str:
    """Bring up to date what a guest is booted from that has _guest_options(). Returns its kernel variant."""
    from . import topology
    topology.get(options.topology)  # a wrong name is better said before the build
    variant = options.kernel or _either_kernel(options)
    if not options.no_build:
        build(variant=variant)
    return variant


def _test(options: argparse.Namespace) -> int:
    from . import suite
    if options.list:
        return suite.list_tests(options.pattern, full=options.full)
    suite.select(suite.discover(), options.pattern, options.full)  # likewise
    if not options.no_build:
        build(variant="debug", checks=True)
    return suite.run_tests(options.pattern, jobs=options.jobs, full=options.full, build=not options.no_build)


def _mutations(options: argparse.Namespace) -> int:
    from . import mutations
    if options.list:
        return mutations.list_all(options.pattern)
    mutations.select(options.pattern)   # likewise
    if not options.no_build:
        build(variant=mutations.VARIANT)
    return mutations.run(options.pattern, jobs=options.jobs, build=not options.no_build)


def _bench(options: argparse.Namespace) -> int:
    from . import bench, tools
    if not options.no_build:
        tools.ensure()  # as in _either_kernel()
    variant = options.kernel or bench.choose_kernel(options.name)
    if not options.no_build:
        for each in bench.kernels(options.name, variant):
            build(variant=each)
    return bench.run(options.name, variant, check=options.check, build=not options.no_build)


def _fuzz(options: argparse.Namespace) -> int:
    from . import fuzz, lock, qemu, tools
    fuzz.check(options.machine)
    if not options.no_build:
        tools.ensure()
        with lock.build_directory():
            qemu.build_fuzzer()
    return fuzz.run(options.seconds, options.seed, options.machine)


def _topologies(options: argparse.Namespace) -> None:
    from . import topology
    topology.print_table()


def _demo(options: argparse.Namespace) -> int:
    from . import demo
    variant = options.kernel or demo.KERNEL
    build(variant=variant)
    return demo.run(variant)


def _check(options: argparse.Namespace) -> int:
    from . import lock, suite, tools, tree
    tools.ensure(checks=True, builds=False)
    with lock.build_directory():
        tree.make_base()
    return suite.run_tests("checks")


def _clean(options: argparse.Namespace) -> None:
    from . import guest, lock, tree
    with lock.build_directory():
        tree.refuse_if_unsaved()
        for path in paths.BUILD.iterdir():
            if path.name != lock.NAME:
                guest.remove(path)
        # Last, as it keeps others out. Who waits for it makes the directory anew.
        (paths.BUILD / lock.NAME).unlink()
        with contextlib.suppress(OSError):
            paths.BUILD.rmdir()
    if options.cache and paths.CACHE.exists():
        guest.remove(paths.CACHE)
    say(f"  deleted {paths.BUILD}" + (f" and {paths.CACHE}" if options.cache else ""))
