# SPDX-License-Identifier: GPL-2.0
"""The hmm-p2p rig: fetch pinned inputs, build them, boot guests, run tests."""
