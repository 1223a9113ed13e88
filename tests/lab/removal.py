"""Removing a lab by what carries its id: the same for one that is closed and for one whose process was killed."""

from __future__ import annotations

import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.lab import limits
from tests.lab.docker import ID, OWNER, DockerError, docker, labelled
from tests.lab.network import bridges, command, sealed, unseal
from tests.lab.records import ROOT, Record, alive, host_lock, stop
from tests.lab.waiting import until

__all__ = ["labs", "remove", "remove_container", "sweep"]


def remove_container(name: str) -> None:
    """Kill it and throw away its disks; paused or already gone will do."""
    subprocess.run(["docker", "unpause", name], capture_output=True, check=False)  # a frozen one cannot be killed
    try:
        docker("rm", "--force", "--volumes", name)
    except DockerError as error:
        if "No such container" in str(error):
            return
        if "already in progress" not in str(error):
            raise
        until(f"{name} to be removed", lambda: not docker("ps", "-aq", "--filter", f"name=^{name}$"), within=30)


def cuts(lab: str) -> str:
    """The name of the bridge chain that holds that lab's cut lines."""
    return f"QX-{lab}"


def _mounts(below: Path) -> list[str]:
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [point for point in reversed(points) if Path(point).is_relative_to(below)]


def _join_all(lab: str) -> None:
    exists = subprocess.run(["ebtables", "-L", cuts(lab)], capture_output=True, check=False)
    if exists.returncode == 0:
        command("ebtables", "-D", "FORWARD", "-j", cuts(lab))
        command("ebtables", "-F", cuts(lab))
        command("ebtables", "-X", cuts(lab))


def remove(lab: str) -> None:
    """Leave nothing of that lab: processes, containers and their disks, networks, rules, mounts, files.

    DockerError or NetworkError when something cannot be removed; the record stays then, for another try.
    """
    record = Record(lab)
    for owner in record.read().get("processes", []):
        stop(owner)
    with ThreadPoolExecutor(8) as workers:
        list(workers.map(remove_container, labelled("container", lab)))
    for network in labelled("network", lab):
        docker("network", "rm", network)
    if volumes := list(labelled("volume", lab)):
        docker("volume", "rm", "--force", *volumes)
    unseal(lab)
    _join_all(lab)
    for point in _mounts(record.directory):
        command("umount", point)
    shutil.rmtree(record.directory, ignore_errors=not record.directory.exists())


def labs() -> dict[str, str]:
    """The owner of every lab that anything is left of; empty where none is known."""
    found: dict[str, str] = {}
    for kind in ("container", "network", "volume"):
        for labels in labelled(kind).values():
            found[labels[ID]] = labels[OWNER]
    for bridge in sealed():
        found.setdefault(bridge.removeprefix(bridges(""))[:6], "")
    for lab in Record.ids():
        owner = Record(lab).read().get("owner", "")
        found[lab] = str(owner) or found.get(lab, "")
    return {lab: owner for lab, owner in found.items() if re.fullmatch(r"[0-9a-f]{6}", lab)}


def sweep() -> list[str]:
    """Remove every lab whose owner is dead, never another; their ids."""
    if not ROOT.exists() and not labelled("container"):
        return []
    with host_lock():  # a lab takes it for being written down, so that none is seen half made
        dead = [lab for lab, owner in labs().items() if not alive(owner)]
        for lab in dead:
            remove(lab)
        limits.restore()
    return dead
