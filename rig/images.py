# SPDX-License-Identifier: GPL-2.0
"""What a guest is booted from, gathered from the modules that build it."""
from functools import cache
from pathlib import Path
from typing import Iterable

from . import guest, kernel, qemu, stock
from .machine import Artefacts
from .ui import RigError, say

KERNELS = (*kernel.VARIANTS, *stock.VARIANTS)
"""Every kernel variant that a guest can be booted with: those that the rig compiles, and those of distributions."""


def choose_kernel(build: bool) -> str:
    """The kernel for a guest that may have either: release, or debug if only that is at hand, so that nobody waits for a kernel
    that he did not ask for. `build`: it will be brought up to date, and otherwise booted as it is."""
    candidates = ("release", "debug")
    chosen = next((v for v in candidates if build and kernel.at_hand(v)), "") or \
        next((v for v in candidates if kernel.image(v).exists()), candidates[0])
    if chosen != candidates[0]:
        say(f"  kernel {chosen}, as {candidates[0]} is not at hand (--kernel {candidates[0]} builds it)")
    return chosen


def build_kernel(variant: str) -> None:
    """Bring what a guest needs of the kernel `variant` up to date."""
    if variant in stock.VARIANTS:
        stock.guest_image(variant)
    else:
        kernel.build(variant)


@cache
def artefacts(variant: str, build: bool = True) -> Artefacts:
    """The files for a guest with the kernel `variant`; the disks are the layers of its file system, lowest first.

    The guest image, and a distribution's kernel, are brought up to date here; of QEMU and our own kernels, booting says
    when they are missing. Without `build` all is taken as it is, and RigError says what is missing.
    """
    _known(variant)
    if not build:
        check_built([variant])
        return _built(variant)
    if variant in stock.VARIANTS:
        return _artefacts(variant, stock.image(variant), stock.guest_image(variant))
    return _artefacts(variant, kernel.image(variant), guest.build())


def _known(variant: str) -> None:
    if variant not in KERNELS:
        raise RigError(f"there is no kernel variant '{variant}'", f"the variants are: {', '.join(KERNELS)}")


def check_built(variants: Iterable[str]) -> None:
    """Raise RigError, one for all of them, unless everything is there that guests with the kernels `variants` are booted from."""
    missing: dict[Path, str] = {}
    for variant in variants:
        _known(variant)
        files = _built(variant)
        for path in (files.qemu, files.kernel, files.initrd, *(path for _, path in files.disks)):
            if not path.exists():
                missing.setdefault(path, variant)
    if missing:
        raise RigError("with --no-build nothing is built, and these are missing:\n" + "\n".join(f"    {path}" for path in missing),
                       "build them: " + " && ".join(f"rig/rig build --kernel {variant}" for variant in dict.fromkeys(missing.values())))


def _built(variant: str) -> Artefacts:
    """What there is for a guest with the kernel `variant`, or would be."""
    start, image = stock.built(variant) if variant in stock.VARIANTS else (kernel.image(variant), guest.built())
    return _artefacts(variant, start, image)


def _artefacts(variant: str, start: Path, image: guest.Image) -> Artefacts:
    layers, cmdline = list(image.layers), ""
    if variant not in stock.VARIANTS:
        layers, cmdline = [*layers, kernel.layer(variant)], kernel.VARIANTS[variant].cmdline
    return Artefacts(qemu=qemu.binary(), kernel=start, initrd=image.initramfs,
                     disks=tuple((_serial(layer.stem), layer) for layer in layers), cmdline=cmdline)


def _serial(name: str) -> str:
    """A disk's name as QEMU takes it for an id and the virtio serial number: at most 20 letters, digits, '-', '.', '_'."""
    return "".join(c if c.isalnum() or c in "-._" else "-" for c in name)[:20]
