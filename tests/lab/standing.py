"""The lab that stays after the command that started it: what `up`, `status` and `shell` work on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.lab import bundle, cluster
from tests.lab.docker import docker, labelled
from tests.lab.lab import Lab
from tests.lab.records import Record, alive
from tests.lab.removal import labs

__all__ = ["NotStanding", "is_kept", "shell", "status", "up"]


class NotStanding(Exception):
    """There is no such lab or machine."""


def is_kept(owner: str) -> bool:
    """Whether a lab with that owner stays until `down`."""
    return ":keep:" in owner


def up(servers: int, agents: int, kueue: bool, say: Callable[[str], None]) -> Lab:
    """Start one, unless one is up already (NotStanding says which); whatever fails, nothing of it is left."""
    if kept := [lab for lab, owner in labs().items() if is_kept(owner) and alive(owner)]:
        raise NotStanding(f"lab {kept[0]} is up already: python -m tests.lab down removes it")
    made = bundle.ready()
    lab = Lab.create(label="up", kept=True)
    try:
        say(f"lab {lab.id}: {servers} server(s), {agents} agent(s)")
        started = cluster.create(lab, made, servers=servers, agents=agents, kueue=kueue)
        lab.record.update(kubeconfig=str(started.kubeconfig))
    except BaseException:
        lab.close()
        raise
    return lab


def status() -> list[dict[str, Any]]:
    """Every lab on this machine: `id`, `label`, `owner` (kept, running, dead), `machines`, `kubeconfig` or None."""
    found = []
    for lab, owner in sorted(labs().items()):
        record = Record(lab).read()
        state = "dead" if not alive(owner) else "kept" if is_kept(owner) else f"of process {owner.split(':')[1]}"
        row = {"id": lab, "label": record.get("label", ""), "owner": state, "kubeconfig": record.get("kubeconfig")}
        found.append(row | {"machines": [_machine(lab, name) for name in sorted(labelled("container", lab))]})
    return found


def _machine(lab: str, container: str) -> dict[str, Any]:
    form = "{{.State.Status}}\t{{range .NetworkSettings.Networks}}{{.IPAMConfig.IPv4Address}}{{end}}"
    state, address = docker("container", "inspect", "--format", form, container).split("\t")
    used = None
    if state == "running":
        used = memory(container) >> 20
    name = container.removeprefix(f"qwexlab-{lab}-")
    return {"name": name, "address": address, "state": state, "memory_mib": used}


def memory(container: str) -> int:
    """Bytes of its processes' own memory, without the file cache that the kernel can take back."""
    script = ("cat /sys/fs/cgroup/memory/memory.stat 2>/dev/null || cat /sys/fs/cgroup/memory.stat; true",)
    lines = dict(line.split() for line in docker("exec", container, "sh", "-c", *script).splitlines())
    names = ("total_rss", "total_shmem") if "total_rss" in lines else ("anon", "shmem", "kernel_stack", "slab")
    return sum(int(lines.get(name, 0)) for name in names)


def shell(name: str, root: bool) -> list[str]:
    """The command that opens a shell on a machine of a lab that stays (or of the only one there is)."""
    owners = {lab: owner for lab, owner in labs().items() if alive(owner)}
    places = [lab for lab in owners if f"qwexlab-{lab}-{name}" in labelled("container", lab)]
    kept = [lab for lab in places if is_kept(owners[lab])] or places
    if not kept:
        known = ", ".join(m["name"] for lab in status() for m in lab["machines"]) or "none: python -m tests.lab up"
        raise NotStanding(f"no machine {name}; there are: {known}")
    if len(kept) > 1:
        raise NotStanding(f"machine {name} is in several labs: {', '.join(kept)}")
    container = f"qwexlab-{kept[0]}-{name}"
    if root:
        return ["docker", "exec", "--interactive", "--tty", container, "bash", "--login"]
    directory = Record(kept[0]).directory
    address = _machine(kept[0], container)["address"]
    options = ["-F", "/dev/null", "-i", str(directory / "key"), "-oIdentitiesOnly=yes", "-oStrictHostKeyChecking=yes"]
    known = f"-oUserKnownHostsFile={directory / 'machines' / name / 'known_hosts'}"
    return ["ssh", *options, known, f"debian@{address}"]
