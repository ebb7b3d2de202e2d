# SPDX-License-Identifier: GPL-2.0
"""Where things are: the checkout, its build directory, and the shared cache.

Everything below BUILD and CACHE can be made again: a build needs nothing that exists only there. ($RIG_BUILD and
$XDG_CACHE_HOME move them. Only commits in build/linux that were not exported with `make patches` exist nowhere else.)
"""
import os
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
BUILD = Path(os.environ.get("RIG_BUILD") or REPO / "build").absolute()
LOGS = BUILD / "logs"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "hmm-p2p"
DOWNLOADS = CACHE / "downloads"
