"""What passes between the queue and the worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from qwex.model.jobs import Condition, JobSpec
from qwex.model.states import Reason, State

__all__ = ["Candidate", "Claim", "Outcome", "Parent"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A task that could start now, and what it needs."""

    seq: int
    index: int
    run_id: str
    cpus: float
    mem: int
    gpus: int
    gpu_product: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A leased task: attempt number ``attempt`` of it is this worker's. ``started`` in Unix seconds.

    ``failures``: attempts that ended before it. Numbers may have gaps, where one was leased and never began.
    """

    seq: int
    index: int
    run_id: str
    attempt: int
    started: float
    spec: JobSpec
    gpus: tuple[int, ...] = ()
    state: State = State.RUNNING
    want: str = ""
    failures: int = 0


class Outcome(NamedTuple):
    """How an attempt ended. ``retry_in`` seconds from now the next one may start; None: this was the last."""

    claim: Claim
    state: State
    reason: Reason
    detail: str
    exit_code: int | None
    ended: float
    retry_in: float | None = None
    result_bytes: int = 0
    result_files: int = 0


class Parent(NamedTuple):
    """A run that another one waits for."""

    run_id: str
    name: str
    state: State
    condition: Condition
