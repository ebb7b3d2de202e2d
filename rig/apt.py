# SPDX-License-Identifier: GPL-2.0
"""A private apt: packages and sources of another Debian suite, with the system's own package state untouched.

apt does what it is good at (proxies, credentials, mirrors, signatures, dependency resolution); all of its state (sources
list, index lists, caches, dpkg status) lives in one directory that a plain user may own. The mirror is the one that the
machine is already configured for.
"""
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Callable, Iterable, Iterator, Mapping, Optional, Sequence

from . import proc, room
from .paths import CACHE, LOGS
from .ui import RigError, step

SUITE = "trixie"
ARCHITECTURE = "amd64"
KEYRINGS = ("/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp",
            "/usr/share/keyrings/debian-archive-trixie-stable.gpg", "/usr/share/keyrings/debian-archive-trixie-automatic.gpg")
LISTS_ROOM = 200 << 20
"""Bytes that the index lists and apt's caches of them take, with a margin. apt-get hangs when the disk fills up."""
UPDATE_TIMEOUT = 1200.0
"""Seconds after which an update counts as hung."""
HELPER = "/usr/lib/apt/apt-helper"

# Code names and aliases of Debian's suites: what tells Debian's mirror from a third party's in apt's configuration.
_DEBIAN_SUITES = frozenset("bullseye bookworm trixie forky duke sid oldoldstable oldstable stable testing unstable".split())

_CONFIG = """\
Dir::Etc::SourceList "{state}/debian.sources";
Dir::Etc::SourceParts "{state}/none";
Dir::Etc::Preferences "{state}/preferences";
Dir::Etc::PreferencesParts "{state}/none";
Dir::State "{state}";
Dir::State::Lists "{state}/lists";
Dir::State::status "{state}/status";
Dir::Cache "{state}/cache";
Dir::Cache::archives "archives";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "srcpkgcache.bin";
Dir::Log "{state}/log";
#clear APT::Architectures;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Update::Error-Mode "any";
APT::Sandbox::User "{user}";
Acquire::Languages "none";
Acquire::Retries "1";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
"""

# Machines without a security mirror must resolve the same versions as machines with one: from there only what is
# named with its version.
_PREFERENCES = """\
Package: *
Pin: release l=Debian-Security
Pin-Priority: 50
"""


@dataclass(frozen=True)
class Package:
    """One file of the archive: `uri` is a full URI or a path below the root of an archive, `size` is in bytes, `sha256`
    is what the signed index says."""
    name: str
    version: str
    architecture: str
    uri: str
    size: int
    sha256: str

    @property
    def file(self) -> str:
        """The file's name as apt spells it, for a .deb `NAME_VERSION_ARCH.deb` with an epoch's colon as %3a."""
        return deb_name(self.name, self.version, self.architecture)


def deb_name(package: str, version: str, architecture: str) -> str:
    """The name under which apt stores a .deb."""
    return f"{package}_{version.replace(':', '%3a')}_{architecture}.deb"


def debian_mirrors(targets: Iterable[str]) -> dict[str, str]:
    """Debian's mirrors in the output of `apt-get indextargets`, one `URI|SUITE` a line.

    Returns the URI of the archive under "archive" and that of the security archive, where there is one, under
    "security"; nothing for a machine that is not configured for Debian.
    """
    found: dict[str, str] = {}
    archives: dict[str, set[str]] = {}
    for line in targets:
        uri, bar, suite = line.strip().partition("|")
        if not bar:
            continue
        suite = suite.rstrip("/")
        if suite.endswith(("-security", "/updates")):
            kind, base = "security", re.split(r"-security|/", suite)[0]
        else:
            kind, base = "archive", suite.split("-")[0]
        if base not in _DEBIAN_SUITES:
            continue
        if kind == "security":
            found.setdefault(kind, uri)
        else:
            archives.setdefault(uri, set()).add(suite)

    def likelihood(uri: str) -> tuple[bool, bool]:
        # A vendor may call its suite like Debian's, but has no updates of it.
        return any(f"{suite}-updates" in archives[uri] for suite in archives[uri]), uri.rstrip("/").endswith("/debian")
    if archives:
        found["archive"] = max(archives, key=likelihood)    # the first of equals
    return found


def sources_stanzas(mirrors: Mapping[str, str], keyring: str, suite: str = SUITE) -> str:
    """The deb822 sources list for `suite` with its updates, backports and, where there is a mirror, security."""
    suites = {"archive": f"{suite} {suite}-updates {suite}-backports", "security": f"{suite}-security"}
    return "\n".join(
        f"Types: {kind}\nURIs: {uri}\nSuites: {suites[which]}\nComponents: main\nTargets: {target}\nSigned-By: {keyring}\n"
        for which, uri in sorted(mirrors.items()) for kind, target in (("deb", "Packages"), ("deb-src", "Sources")))


def parse_uris(output: str) -> list[tuple[str, str, int, str]]:
    """The (URI, file name, bytes, sha256) of each line of apt's --print-uris; sha256 is "" where apt gave another hash."""
    found = []
    for uri, name, size, digest in re.findall(r"^'([^']+)' (\S+) (\d+) ?(\S*)$", output, re.MULTILINE):
        found.append((uri, name, int(size), digest[7:].lower() if digest.startswith("SHA256:") else ""))
    return found


def parse_stanzas(text: str) -> Iterator[dict[str, str]]:
    """The stanzas of a Debian control file as dictionaries; continuation lines are kept, joined by newlines."""
    for block in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        key = ""
        for line in block.splitlines():
            if line[:1] in (" ", "\t"):
                if key:
                    fields[key] += "\n" + line.strip()
            elif ":" in line:
                key, _, value = line.partition(":")
                fields[key] = value.strip()
        if fields:
            yield fields


def parse_madison(output: str) -> list[tuple[str, str]]:
    """The (version, suite) pairs in the output of `apt-cache madison`."""
    rows = (line.split("|") for line in output.splitlines())
    return [(row[1].strip(), row[2].split()[1].split("/")[0]) for row in rows if len(row) == 3 and len(row[2].split()) > 1]


def find_keyring() -> str:
    """The file with the Debian archive's public keys; RIG_DEBIAN_KEYRING names another one."""
    given = os.environ.get("RIG_DEBIAN_KEYRING")
    for path in (given,) if given else KEYRINGS:
        if os.path.isfile(path):
            if re.search(r"\s", path):
                raise RigError(f"apt cannot use the keyring '{path}': its path has a space", "copy it to a path without one")
            return path
    raise RigError(f"no Debian archive keyring: {given or KEYRINGS[0]} does not exist",
                   "install it with 'apt-get install debian-archive-keyring', or set RIG_DEBIAN_KEYRING to the file")


@cache
def find_mirrors() -> dict[str, str]:
    """Debian's mirrors as apt is configured on this machine; RIG_DEBIAN_MIRROR names another archive."""
    given = os.environ.get("RIG_DEBIAN_MIRROR")
    if given:
        return {"archive": given}
    if not shutil.which("apt-get") or not os.path.exists(HELPER):
        raise RigError("this machine has no apt, and the inputs come from Debian's archive",
                       "use Debian 12 or newer, or a container of it")
    output = _query(["apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI)|$(RELEASE)"])
    mirrors = debian_mirrors(output.splitlines())
    if "archive" not in mirrors:
        raise RigError("apt on this machine is not configured for a Debian mirror",
                       "set RIG_DEBIAN_MIRROR to the URI of one (and RIG_DEBIAN_KEYRING if its keys are elsewhere)")
    return mirrors


def _without_passwords(mirrors: Mapping[str, str]) -> list[str]:
    """The URIs of `mirrors` to show."""
    return [re.sub(r"//[^/]*@", "//", uri) for _, uri in sorted(mirrors.items())]


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}


def _query(argv: Sequence[str], cwd: Optional[Path] = None) -> str:
    done = subprocess.run(argv, env=_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, cwd=cwd, check=False)
    if done.returncode:
        raise RigError(f"'{' '.join(argv[:2])}' failed: {_complaints(done.stderr) or f'exit status {done.returncode}'}")
    return done.stdout


def _complaints(output: str) -> str:
    """The errors in apt's output, each once, without apt's own advice."""
    lines = [line[3:].strip() for line in output.splitlines() if line.startswith(("E: ", "W: ", "Err:"))]
    errors = [line[3:].strip() for line in output.splitlines() if line.startswith("E: ")]
    told = list(dict.fromkeys(errors or lines))
    return "; ".join(told[:2]) + (f"; and {len(told) - 2} more" if len(told) > 2 else "")


class Archive:
    """Debian's archive seen through a private apt whose state is in the directory `state`.

    Not safe against two processes using the same `state` at once: callers hold `download.locked()`.
    """

    def __init__(self, state: Path = CACHE / "apt") -> None:
        self.state = state
        self.updated = False
        self._config = state / "apt.conf"
        self._ready = False

    def update(self, force: bool = False) -> None:
        """Get the index lists if there are none, or if `force`; at most once in the life of the object."""
        self._configure()
        if self.updated or (not force and any((self.state / "lists").glob("*_Packages*"))):
            return
        room.need(self.state, LISTS_ROOM)
        with step("package lists"):
            try:
                proc.run(self._argv("apt-get", "update", "-q"), log=LOGS / "fetch.log", env=_environment(),
                         what="apt-get update", timeout=UPDATE_TIMEOUT)
            except room.Full:
                raise
            except RigError as err:
                raise RigError(_why(err), "check the network, the proxy in apt's configuration, and the mirror, which is "
                               f"{' and '.join(_without_passwords(find_mirrors()))}; RIG_DEBIAN_MIRROR= names another one") from err
        self.updated = True

    def versions(self, package: str) -> list[tuple[str, str]]:
        """What the archive has of a binary or source package: (version, suite), newest first."""
        self._configure()
        return parse_madison(_query(self._argv("apt-cache", "madison", package)))

    def binary(self, package: str, version: str) -> Optional[Package]:
        """That version of a binary package, or None when the lists do not have it."""
        found = [p for p in self._show([f"{package}={version}"], missing_ok=True) if p.version == version]
        return found[0] if found else None

    def source(self, package: str, version: str) -> list[Package]:
        """The files of that version of a source package, with their URIs; empty when the lists do not have it."""
        self._configure()
        try:
            output = _query(self._argv("apt-get", "source", "-qq", "--download-only", "--print-uris", f"{package}={version}"),
                            cwd=self.state)
        except RigError:
            return []
        return [Package(name, version, "source", uri, size, digest) for uri, name, size, digest in parse_uris(output)]

    def resolve(self, packages: Sequence[str]) -> list[Package]:
        """Everything that an empty system needs to install `packages` (no recommendations), sorted by name."""
        self._configure()
        output = _query(self._argv("apt-get", "install", "-qq", "--print-uris", "-y", "--no-install-recommends", *packages))
        names = [name for _, name, _, _ in parse_uris(output)]
        wanted = []
        for name in names:
            package, version, _ = name.removesuffix(".deb").split("_")
            wanted.append(f"{package}={version.replace('%3a', ':')}")
        found = self._show(wanted)
        missing = set(names) - {p.file for p in found}
        if missing:
            raise RigError(f"apt resolved packages it cannot describe: {', '.join(sorted(missing))}")
        return sorted(found, key=lambda p: p.name)

    def address(self, path: str) -> str:
        """The URI of the file `path` (relative to the root of an archive: `pool/...`)."""
        mirrors = find_mirrors()
        # The security archive keeps its pool apart under this name; mirrors of it do, too.
        mirror = mirrors.get("security" if path.startswith("pool/updates/") else "archive", mirrors["archive"])
        return f"{mirror.rstrip('/')}/{path}"

    def transfer(self, files: Sequence[tuple[str, Path]], progress: Callable[[], None]) -> None:
        """Download each (URI, destination), going on where a destination is a beginning of its file.

        Nothing is verified here. `progress` is called a few times a second. Raises RigError with apt's reason.
        """
        self._configure()
        argv = self._argv(HELPER, "download-file", *(text for uri, path in files for text in (uri, os.fspath(path), "")))
        LOGS.mkdir(parents=True, exist_ok=True)
        with open(LOGS / "fetch.log", "a+", encoding="utf-8", errors="replace") as log:
            start = log.seek(0, os.SEEK_END)
            child = proc.spawn(argv, env=_environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            try:
                while True:
                    try:
                        status = child.wait(0.2)
                        break
                    except subprocess.TimeoutExpired:
                        progress()
            finally:
                proc.reap(child)
            if status:
                log.seek(start)
                raise RigError(_complaints(log.read()) or f"apt-helper ended with status {status}")

    def _show(self, wanted: Sequence[str], missing_ok: bool = False) -> list[Package]:
        self._configure()
        try:
            output = _query(self._argv("apt-cache", "show", *wanted))
        except RigError:
            if missing_ok:
                return []
            raise
        found = {}
        for fields in parse_stanzas(output):
            if f"{fields['Package']}={fields['Version']}" in wanted:
                package = Package(fields["Package"], fields["Version"], fields["Architecture"], fields["Filename"],
                                  int(fields["Size"]), fields["SHA256"].lower())
                found[package.name] = package
        return list(found.values())

    def _argv(self, tool: str, *arguments: str) -> list[str]:
        # With -c our settings are read after the system's, so they win; in APT_CONFIG they would be read first.
        return [tool, "-c", os.fspath(self._config), *arguments]

    def _configure(self) -> None:
        if self._ready:
            return
        if '"' in os.fspath(self.state):
            raise RigError(f"apt cannot work in '{self.state}': its path has a quotation mark", "set XDG_CACHE_HOME to another directory")
        mirrors, keyring = find_mirrors(), find_keyring()
        for name in ("lists/partial", "cache/archives/partial", "log", "none"):
            (self.state / name).mkdir(parents=True, exist_ok=True)
        (self.state / "status").touch()
        (self.state / "preferences").write_text(_PREFERENCES)
        (self.state / "debian.sources").write_text(sources_stanzas(mirrors, keyring))
        # apt run as root hands downloads to another user, who cannot reach a cache below /root.
        user = "root" if os.geteuid() == 0 else ""
        self._config.write_text(_CONFIG.format(state=self.state, architecture=ARCHITECTURE, user=user))
        self._ready = True


def _why(err: RigError) -> str:
    """What apt complained of in the log lines that a failed `proc.run()` quotes."""
    complaints = _complaints("\n".join(line.strip() for line in err.what.splitlines()))
    return f"apt-get update failed: {complaints}" if complaints else err.what
