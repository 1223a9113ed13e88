"""What every use case is given: settings, paths, the user to talk to, the record of runs, and open places."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from qwex.config import Paths, Settings, load

if TYPE_CHECKING:
    from qwex.backends.base import Backend
    from qwex.model.places import Place
    from qwex.store import RunStore

__all__ = ["Context", "Opener", "Reporter"]


class Reporter(Protocol):
    """The person in front of it. Every text is one line without a newline; none of these may raise."""

    def note(self, text: str) -> None:
        """Something they will want to know."""
        ...

    def warn(self, text: str) -> None:
        """Something they should look at."""
        ...

    def progress(self, what: str, done: int, total: int) -> None:
        """Bytes done of ``total`` (0 while unknown). Called often, from any thread; ``done == total`` ends the bar."""
        ...

    def confirm(self, question: str) -> bool:
        """Ask; False when nobody can be asked."""
        ...


Opener = Callable[["Place", "Context"], "Backend"]


def _registry(place: Place, ctx: Context) -> Backend:
    from qwex.backends.registry import open_backend

    return open_backend(place, ctx.paths, ctx.settings, ctx.reporter.note, ctx.reporter.confirm)


@dataclass
class Context:
    """One command's surroundings: ``async with Context.open(directory, reporter) as ctx``.

    ``directory`` is where the user stands, ``settings.root`` the project around it. The store and each place are opened at first
    use and at most once, so that a command has one connection per place; leaving the context closes them.
    Belongs to one thread and one event loop.
    """

    settings: Settings
    paths: Paths
    reporter: Reporter
    env: Mapping[str, str]
    directory: Path
    opener: Opener = _registry
    _store: RunStore | None = None
    _places: dict[str, Backend] = field(default_factory=dict)
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)

    @classmethod
    def open(
        cls, directory: Path, reporter: Reporter, env: Mapping[str, str] = os.environ, opener: Opener = _registry
    ) -> Context:
        """ConfigError when a configuration file cannot be used. Nothing else is touched yet."""
        start = Path(os.path.abspath(directory))
        return cls(load(start, env), Paths.from_environment(env), reporter, env, start, opener)

    @property
    def store(self) -> RunStore:
        """The record of runs. StoreError when it cannot be opened; a damaged one is put aside and said so."""
        if self._store is None:
            from qwex.store import RunStore

            self._store = RunStore.open(self.paths.state / "runs.db")
            if self._store.notice:
                self.reporter.warn(self._store.notice)
        return self._store

    async def backend(self, place: Place) -> Backend:
        """The place, connected. PlaceError when it cannot be."""
        async with self._locks.setdefault(place.name, asyncio.Lock()):
            if place.name not in self._places:
                backend = self.opener(place, self)
                self._places[place.name] = await backend.__aenter__()
            return self._places[place.name]

    def connected(self, place: Place) -> bool:
        return place.name in self._places

    async def drop(self, place: Place, broken: Backend | None) -> None:
        """Forget a connection that broke, unless somebody has replaced it already; the next ``backend`` opens another."""
        if broken is not None and self._places.get(place.name) is broken:
            del self._places[place.name]
            await broken.__aexit__(None, None, None)

    def close(self) -> None:
        """Close the store. Enough when no place was opened."""
        if self._store is not None:
            self._store.close()
            self._store = None

    async def aclose(self) -> None:
        while self._places:
            _, backend = self._places.popitem()
            await backend.__aexit__(None, None, None)
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
