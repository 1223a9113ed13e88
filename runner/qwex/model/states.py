"""What a run is doing (state) and why (reason): two separate things."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["FINAL", "Reason", "State"]


class State(StrEnum):
    """Where a run or one of its tasks stands. ``lost`` means: it was started and its end is not known."""

    QUEUED = "queued"
    HELD = "held"
    RUNNING = "running"
    SUSPENDED = "suspended"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"

    @property
    def final(self) -> bool:
        return self in FINAL


FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.LOST})


class Reason(StrEnum):
    """Why a run is in its state. ``none`` where the state says it all."""

    NONE = "none"
    # waiting
    WAITING_FOR_SLOT = "waiting-for-slot"  # the machine's CPUs, memory, GPUs or slots are in use
    WAITING_FOR_RUN = "waiting-for-run"  # a dependency has not ended
    WAITING_TO_RETRY = "waiting-to-retry"  # back-off after a failed attempt
    ARRAY_LIMIT = "array-limit"  # the %N of --array is reached
    HELD_BY_USER = "held-by-user"  # suspended before it started
    # ended
    EXIT_CODE = "exit-code"
    SIGNAL = "signal"
    TIME_LIMIT = "time-limit"
    OUT_OF_MEMORY = "out-of-memory"
    COMMAND_NOT_FOUND = "command-not-found"  # 127
    COMMAND_NOT_EXECUTABLE = "command-not-executable"  # 126
    DEPENDENCY_FAILED = "dependency-failed"
    CANCELLED_BY_USER = "cancelled-by-user"
    WORKSPACE_FAILED = "workspace-failed"  # the snapshot could not be unpacked (disk full, ...)
    NEVER_FITS = "never-fits"  # asks for more than the place has
    WORKER_DIED = "worker-died"
    HOST_RESTARTED = "host-restarted"
    SUBMISSION_FAILED = "submission-failed"
    # unknown
    HOST_UNREACHABLE = "host-unreachable"
    UNKNOWN = "unknown"
