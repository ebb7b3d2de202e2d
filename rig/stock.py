# SPDX-License-Identifier: GPL-2.0
"""Kernels as a distribution ships them: nothing of ours in them, to prove that the device models need nothing of ours.

A variant names packages that linux/BASE pins and the modules that a guest gets of them (a distribution has thousands).
They are downloaded and verified like every other input, unpacked under build/stock, and never compiled.
"""
import shutil
from dataclasses import dataclass
from pathlib import Path

from . import fetch, guest, paths, products, room, unpack
from .ui import RigError, step


@dataclass(frozen=True)
class Stock:
    """A kernel of a distribution: the key of its packages in linux/BASE, and the modules to take (with what they need)."""
    pin: str
    modules: tuple[str, ...]


VARIANTS = {
    "stock": Stock("stock", (
        "mlx5_core", "mlx5_ib", "ib_ipoib", "ib_uverbs", "ib_umad", "rdma_ucm", "rdma_rxe",
        "nouveau",
        "dummy", "zram")),
}


def image(variant: str) -> Path:
    """The kernel image of `variant`; downloads and unpacks it where it is not there yet."""
    found = _images(_root(variant))
    if len(found) != 1:
        raise RigError(f"the packages of kernel {variant} have {len(found)} kernel images", "see its line in linux/BASE")
    return found[0]


def built(variant: str) -> tuple[Path, guest.Image]:
    """Where the kernel image and the guest's image of `variant` are, out of date or not there as they may be."""
    found = _images(_place(variant))
    return (found[0], guest.built(found[0].parent.name)) if found else (_place(variant) / "vmlinuz", guest.built())


def guest_image(variant: str) -> guest.Image:
    """The guest's image with the modules of `variant`: its initramfs loads the drivers of the guest's disks."""
    return guest.build(modules=_root(variant), only=VARIANTS[variant].modules)


def _place(variant: str) -> Path:
    return paths.BUILD / "stock" / variant


def _images(root: Path) -> list[Path]:
    return sorted((root / "usr" / "lib" / "modules").glob("*/vmlinuz"))


def _root(variant: str) -> Path:
    """The directory with the content of the packages of `variant`."""
    pins = fetch.KERNEL.pin[VARIANTS[variant].pin]
    root = _place(variant)
    stamp = root.with_name(f"{variant}.key")
    key = products.digest(*(pin["sha256"] for pin in pins))
    if root.is_dir() and products.stamp_matches(stamp, key):
        return root
    with room.errors(root), guest.build_lock(root):     # tests may ask for it at the same time
        if root.is_dir() and products.stamp_matches(stamp, key):
            return root
        debs = [fetch.deb(pin, fetch.KERNEL.base) for pin in pins]
        work = root.with_name(f".{variant}.part")
        with step(f"unpack kernel {variant}"):
            for old in (root, work):
                shutil.rmtree(old, ignore_errors=True)
            stamp.unlink(missing_ok=True)
            work.mkdir(parents=True)
            for package in debs:
                unpack.deb(package, work, exclude=("./usr/share/*",))
            work.rename(root)
            stamp.write_text(key, encoding="ascii")
    return root
