"""Live input: which client feeds which running attempt.

A job with live input reads a fifo. The worker keeps a writer open, so that the job sees no early end, until the client that has the
input comes and goes; when none comes within some seconds, or its input went to an earlier attempt, the job sees the end at once.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from qwex.backends.local.attempts import Attempt
from qwex.backends.local.clock import Timers
from qwex.backends.local.hub import Hub, Line

__all__ = ["Inputs"]

_PATIENCE = 10.0  # seconds a job waits for a client that has its input


class Inputs:
    """Told of attempts that begin, and of clients that come and go. ``running`` is the supervisor's own view of what runs."""

    def __init__(self, running: Collection[Attempt], timers: Timers) -> None:
        self._running, self._timers = running, timers

    def begun(self, attempt: Attempt, hub: Hub) -> None:
        """Tell the client that has input for this attempt to write it."""
        if attempt.writer is None:
            return
        line = hub.feeder(attempt.claim.run_id, attempt.claim.index)
        if line is None:
            self._timers.after(_PATIENCE, partial(self._expect, attempt, hub))
        elif line.fed:
            attempt.close_input()
        else:
            line.fed = True
            hub.say(line, f"go {attempt.claim.attempt}")

    def _expect(self, attempt: Attempt, hub: Hub) -> None:
        if hub.feeder(attempt.claim.run_id, attempt.claim.index) is None:
            attempt.close_input()

    def offered(self, line: Line, hub: Hub) -> None:
        """A client has input for a task: let it begin when that runs, or say that it comes too late."""
        attempt = self._fed(line)
        if attempt is not None and attempt.writer is not None:
            self.begun(attempt, hub)
        elif attempt is not None:
            hub.say(line, "end")

    def gone(self, line: Line) -> None:
        """The client left: that is the end of the input."""
        if line.fed and (attempt := self._fed(line)) is not None:
            attempt.close_input()

    def _fed(self, line: Line) -> Attempt | None:
        return next((one for one in self._running if (one.claim.run_id, one.claim.index) == line.feeds), None)
