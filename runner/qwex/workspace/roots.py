"""Directories nobody means to send."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from qwex.workspace.faults import shown

__all__ = ["guard"]

_UNIX = "bin boot dev etc home lib lib64 media mnt opt proc root run sbin srv sys tmp usr var var/tmp"
_MACOS = "Applications Library System Users Volumes private private/etc private/tmp private/var private/var/tmp"
_SYSTEM = frozenset(f"/{name}" for name in f"{_UNIX} {_MACOS}".split())
_NEVER_BELOW = ("/proc", "/sys", "/dev", "/etc", "/boot")


def _home_of(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        return None


def guard(root: Path) -> str | None:
    """Why sending ``root`` needs a person's word, as a sentence; None when it does not.

    The home directory or one above it, another user's home, the root directory, the system's own and shared directories.
    """
    place = os.path.realpath(root)
    named = shown(place)
    if place == "/":
        return "/ is the whole machine"
    homes = {
        os.path.realpath(home) for home in (os.path.expanduser("~"), _home_of(os.getuid())) if home and home != "/"
    }
    if place in homes:
        return f"{named} is your home directory"
    if place in _SYSTEM or place == os.path.realpath(os.environ.get("TMPDIR") or "/tmp"):
        return f"{named} is a directory of the system"
    if any(place.startswith(one + "/") and not place.startswith("/dev/shm/") for one in _NEVER_BELOW):
        return f"{named} is a directory of the system"
    if any(home.startswith(place + "/") for home in homes):
        return f"{named} contains your home directory"
    if os.path.dirname(place) in ("/home", "/Users"):
        return f"{named} is another user's home directory"
    return None
