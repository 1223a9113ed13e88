"""A job's output as something to go through, with ``for`` and with ``async for``."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from qwex.backends.base import LogChunk, LogRequest, Stream
from qwex.services.following import logs

if TYPE_CHECKING:
    from qwex.sdk.client import Client

__all__ = ["Lines", "Pieces"]

_T = TypeVar("_T")


class _Output(ABC, Generic[_T]):
    def __init__(self, client: Client, run_id: str, request: LogRequest, stream: Stream | None) -> None:
        self._client, self._run_id, self._request, self._stream = client, run_id, request, stream

    def __iter__(self) -> Iterator[_T]:
        source = self._pieces()
        try:
            while (piece := self._client._call(_next(source))) is not None:
                yield piece
        finally:
            self._client._call(_close(source))

    async def __aiter__(self) -> AsyncIterator[_T]:
        source = self._pieces()
        try:
            while (piece := await asyncio.wrap_future(self._client._start(_next(source)))) is not None:
                yield piece
        finally:
            await asyncio.wrap_future(self._client._start(_close(source)))

    async def _chunks(self) -> AsyncIterator[LogChunk]:
        async for chunk in logs(self._client._context, self._run_id, self._request):
            if self._stream is None or chunk.stream is self._stream:
                yield chunk

    @abstractmethod
    def _pieces(self) -> AsyncIterator[_T]: ...


class Lines(_Output[str]):
    """Lines without their ends, decoded as UTF-8 (what is none is replaced). Can be gone through as often as wanted."""

    def bytes(self) -> Pieces:
        """The same as bytes, as they came."""
        return Pieces(self._client, self._run_id, self._request, self._stream)

    async def _pieces(self) -> AsyncIterator[str]:
        begun: dict[tuple[str, Stream], bytes] = {}
        async for chunk in self._chunks():
            key = (chunk.key, chunk.stream)
            *whole, rest = (begun.pop(key, b"") + chunk.data).split(b"\n")
            if rest:
                begun[key] = rest
            for line in whole:
                yield line.decode("utf-8", "replace")
        for rest in begun.values():
            yield rest.decode("utf-8", "replace")


class Pieces(_Output[bytes]):
    """Bytes as the job wrote them, in pieces of no particular size."""

    async def _pieces(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks():
            yield chunk.data


async def _next(source: AsyncIterator[_T]) -> _T | None:
    return await anext(source, None)


async def _close(source: AsyncIterator[_T]) -> None:
    if close := getattr(source, "aclose", None):
        await close()
