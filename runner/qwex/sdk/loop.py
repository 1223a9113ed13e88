"""The one event loop behind every client, in a thread of its own.

So the same code serves scripts, threads and notebooks, in which a loop is running already; nothing exists twice as sync and async.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

__all__ = ["Loop"]

_T = TypeVar("_T")


class Loop:
    """Runs coroutines in a daemon thread until ``close``, or until nobody holds it any more."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="qwex", daemon=True).start()
        self._finalizer = weakref.finalize(self, self._loop.call_soon_threadsafe, self._loop.stop)

    @property
    def open(self) -> bool:
        return self._finalizer.alive

    def start(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        """Begin it; from any thread. RuntimeError once closed."""
        if not self.open:
            work.close()
            raise RuntimeError("this client is closed")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Its result. Ctrl-C while waiting cancels it."""
        future = self.start(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        self._finalizer()
