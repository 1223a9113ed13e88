"""A machine's own disk: a file of a fixed size with a file system in it, so that it can really be full."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.lab.network import command

__all__ = ["create", "remove"]


def create(place: Path, mebibytes: int) -> Path:
    """Where the new disk is mounted. The file takes room only as it is written to."""
    file, point = place / "disk.ext4", place / "disk"
    with file.open("wb") as out:
        os.truncate(out.fileno(), mebibytes << 20)
    command("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=1,nodiscard", str(file))
    point.mkdir()
    command("mount", "-o", "loop,noatime", str(file), str(point))  # the loop device goes with the mount
    return point


def remove(place: Path) -> None:
    """The disk and all else that was kept on the host for that machine."""
    if os.path.ismount(place / "disk"):
        command("umount", str(place / "disk"))
    if place.exists():
        shutil.rmtree(place)
