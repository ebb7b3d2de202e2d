# SPDX-License-Identifier: GPL-2.0
"""Where things are: the checkout, its build directory, and the shared cache.

Everything below BUILD and CACHE can be made again: a build needs nothing that exists only there. ($RIG_BUILD and
$XDG_CACHE_HOME move them. Only commits in build/linux that were not exported with `make patches` exist nowhere else.)
"""
import os
from pathlib import Path


def _cache() -> Path:
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "hmm-p2p"
    except RuntimeError:    # no HOME, and a user whom the system does not know, as in a container
        raise SystemExit("rig: error: this user has no home directory for the shared cache\n"
                         "  set XDG_CACHE_HOME to a directory for it, e.g. XDG_CACHE_HOME=/var/tmp/cache") from None


REPO = Path(__file__).resolve().parent.parent
BUILD = Path(os.environ.get("RIG_BUILD") or REPO / "build").absolute()
LOGS = BUILD / "logs"
CACHE = _cache()
DOWNLOADS = CACHE / "downloads"
