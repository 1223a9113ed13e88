"""Limits of the host's kernel that all machines share, raised while there is a lab.

Every systemd, kubelet and containerd watches files; they all run as the host's root, and its usual 128 watchers are gone
with some twenty machines. A service then fails with `Too many open files`, or a machine does not boot.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.lab import records
from tests.lab.host import HostError

__all__ = ["WANTED", "lift", "restore"]

SETTINGS = Path("/proc/sys")
WANTED = {"fs/inotify/max_user_instances": 8192, "fs/inotify/max_user_watches": 524288}


def _before() -> Path:
    return records.ROOT / "limits.json"


def lift() -> None:
    """Raise what is too low, after writing down what it was. With the host's lock held; HostError when the kernel refuses."""
    low = {name: now for name, want in WANTED.items() if (now := int((SETTINGS / name).read_text())) < want}
    if not low:
        return
    known = json.loads(_before().read_text()) if _before().exists() else {}
    part = _before().with_suffix(".part")
    part.write_text(json.dumps({**low, **known}))
    part.replace(_before())
    for name in low:
        try:
            (SETTINGS / name).write_text(f"{WANTED[name]}\n")
        except OSError as error:
            raise HostError(f"{name.replace('/', '.')} must be {WANTED[name]}, it cannot be set: {error}") from error


def restore() -> None:
    """As it was, once no lab is written down any more. With the host's lock held."""
    if records.Record.ids() or not _before().exists():
        return
    for name, value in json.loads(_before().read_text()).items():
        if int((SETTINGS / name).read_text()) == WANTED[name]:  # else somebody else set it since
            (SETTINGS / name).write_text(f"{value}\n")
    _before().unlink()
