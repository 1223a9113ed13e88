"""A place that is asked again when its connection breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from qwex.errors import Unreachable

if TYPE_CHECKING:
    from qwex.backends.base import Backend
    from qwex.model.places import Place
    from qwex.services.context import Context

__all__ = ["Connection"]

_T = TypeVar("_T")
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0


class Connection:
    """The way to one place for as long as it takes.

    A connection that was never made raises Unreachable at once; one that breaks later is noted once, tried again with
    growing pauses, and noted when it is back.
    """

    def __init__(self, ctx: Context, place: Place) -> None:
        self._ctx = ctx
        self.place = place
        self._made = ctx.connected(place)
        self._broken = False
        self._pause = _FIRST_PAUSE
        self._backend: Backend | None = None

    async def open(self) -> Backend:
        """The place. Waits while it cannot be reached, if it once could be."""
        while True:
            try:
                self._backend = await self._ctx.backend(self.place)
            except Unreachable as error:
                if not self._made:
                    raise
                await self.broke(error)
                continue
            self._made = True
            return self._backend

    def works(self) -> None:
        """Something came through."""
        self._pause = _FIRST_PAUSE
        if self._broken:
            self._broken = False
            self._ctx.reporter.note(f"connected to {self.place.name} again")

    async def broke(self, error: Unreachable) -> None:
        """Say so, and wait before the next try."""
        await self._ctx.drop(self.place, self._backend)
        if not self._broken:
            self._broken = True
            self._ctx.reporter.note(f"{error.message}; what runs there goes on, and the connection is tried again")
        await asyncio.sleep(self._pause)
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    async def ask(self, question: Callable[[Backend], Awaitable[_T]]) -> _T:
        """The answer, however often the connection breaks. The question must be one that can be repeated."""
        while True:
            backend = await self.open()
            try:
                answer = await question(backend)
            except Unreachable as error:
                await self.broke(error)
                continue
            self.works()
            return answer
