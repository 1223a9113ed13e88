"""Where a run goes."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Capabilities", "Place"]


class Place(NamedTuple):
    """A place to run: ``kind`` names the backend. For ``ssh``: ``host`` is an address or an ssh_config alias.

    ``slots`` 0 means: as many as the machine has CPUs. ``directory`` is absolute or relative to the remote home.
    """

    name: str
    kind: str = "local"
    host: str = ""
    user: str = ""
    port: int = 0
    slots: int = 0
    directory: str = ".qwex"
    login_shell: bool = False
    env: tuple[tuple[str, str], ...] = ()


class Capabilities(NamedTuple):
    """What a place can do; services compare it with a spec before they submit. None: not known before asking.

    ``cpus``, ``mem`` (bytes) and ``gpus`` are the most one task may ask for.
    """

    cpus: float | None = None
    mem: int | None = None
    gpus: int | None = None
    arrays: bool = True
    dependencies: bool = True
    priorities: bool = True
    suspend: bool = True
    live_stdin: bool = True
    execute: bool = True
