"""Docker through its own command, and nothing else: argument lists in, text out."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["ID", "OWNER", "DockerError", "docker", "inspect", "labelled"]

ID = "qwex.lab"  # on every container, network and volume: the id of the lab it belongs to
OWNER = "qwex.lab.owner"  # beside it: who keeps that lab alive, see `records`


class DockerError(Exception):
    """Docker refused, or did not answer in time; the message is the command and what Docker said."""


def docker(*argv: str, input: bytes | None = None, timeout: float = 120) -> str:  # noqa: A002
    """The command's standard output without the last newline. DockerError unless it ends with 0 within `timeout` seconds."""
    command = ["docker", *argv]
    try:
        done = subprocess.run(command, input=input, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise DockerError(f"docker {argv[0]}: no answer within {timeout:g} s") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip() or f"exit status {done.returncode}"
        raise DockerError(f"{' '.join(command)}: {said}")
    return done.stdout.decode(errors="replace").rstrip("\n")


def inspect(kind: str, names: Sequence[str]) -> list[dict[str, Any]]:
    """What Docker knows about containers, networks, volumes or images; DockerError when one is not there."""
    return list(json.loads(docker(kind, "inspect", *names))) if names else []


def labelled(kind: str, lab: str | None = None) -> dict[str, Mapping[str, str]]:
    """The labels of every container, network or volume that belongs to that lab, or to any, by name."""
    listing = [kind, "ls", "--filter", f"label={ID}={lab}" if lab else f"label={ID}"]
    if kind == "container":
        listing += ["--all", "--no-trunc"]
    name = "{{.Names}}" if kind == "container" else "{{.Name}}"
    form = f'{name}\t{{{{.Label "{ID}"}}}}\t{{{{.Label "{OWNER}"}}}}'
    rows = [line.split("\t") for line in docker(*listing, "--format", form).splitlines()]
    return {row[0]: {ID: row[1], OWNER: row[2]} for row in rows}
