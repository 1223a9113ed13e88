"""The one place where the lab waits: by asking again, never by sleeping and hoping."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(what: str, probe: Callable[[], T], within: float, every: float = 0.2) -> T:
    """The first truthy value of `probe`, asked every `every` seconds; TimeoutError naming `what` after `within` seconds."""
    deadline = time.monotonic() + within
    while True:
        if value := probe():
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {within:g} s")
        time.sleep(every)
