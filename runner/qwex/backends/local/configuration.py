"""What a worker is told by whoever starts it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from qwex.config import Paths, Settings

__all__ = ["Configuration"]


@dataclass(frozen=True, slots=True)
class Configuration:
    """``cpus``, ``mem`` (bytes), ``gpus`` None: what the machine has. ``idle`` in seconds."""

    state: str
    config: str
    cache: str
    cpus: float | None = None
    mem: int | None = None
    gpus: int | None = None
    idle: float = 60.0
    keep_days: float = 30.0

    @classmethod
    def of(cls, paths: Paths, settings: Settings) -> Configuration:
        """Those of whoever starts the worker: they hold as long as it lives."""
        directories = str(paths.state), str(paths.config), str(paths.cache)
        return cls(
            *directories, *(settings.get(f"local.{name}") for name in ("cpus", "mem", "gpus", "idle", "keep_days"))
        )

    @property
    def paths(self) -> Paths:
        return Paths(Path(self.state), Path(self.config), Path(self.cache))

    def to_text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Configuration:
        return cls(**json.loads(text))
