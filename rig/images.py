# SPDX-License-Identifier: GPL-2.0
"""What a guest is booted from, gathered from the modules that build it."""
from functools import cache

from . import guest, kernel, qemu
from .vm import Artefacts


@cache
def artefacts(variant: str) -> Artefacts:
    """The files for a guest with the kernel `variant`; the disks are the layers of its file system, lowest first.

    The guest image is brought up to date here; of QEMU and the kernel, booting says when they are missing.
    """
    image = guest.build()
    layers = [*image.layers, kernel.layer(variant)]
    return Artefacts(qemu=qemu.binary(), kernel=kernel.image(variant), initrd=image.initramfs,
                     disks=tuple((layer.stem, layer) for layer in layers), cmdline=kernel.VARIANTS[variant].cmdline)
