"""How a run is doing, or how it ended, in a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwex.model.runs import Task
from qwex.model.states import Reason, State
from qwex.model.units import duration_text, size_text

if TYPE_CHECKING:
    from qwex.model.runs import Attempt, Observation, Run

__all__ = ["explain"]

_ENDS = {
    Reason.TIME_LIMIT: "it reached its time limit of {limit}",
    Reason.OUT_OF_MEMORY: "it ran out of memory",
    Reason.COMMAND_NOT_FOUND: "the command {command} was not found there",
    Reason.COMMAND_NOT_EXECUTABLE: "the command {command} may not be executed there",
    Reason.DEPENDENCY_FAILED: "a run it depends on did not end as it needs",
    Reason.CANCELLED_BY_USER: "it was cancelled",
    Reason.WORKSPACE_FAILED: "its workspace could not be unpacked",
    Reason.NEVER_FITS: "it asks for more than the place has",
    Reason.WORKER_DIED: "the worker died while it ran",
    Reason.HOST_RESTARTED: "the machine was restarted while it ran",
    Reason.SUBMISSION_FAILED: "it could not be submitted",
    Reason.UNKNOWN: "what became of it is not known",
}


def explain(run: Run, task: int | None, now: float) -> list[str]:
    """A sentence about the run, or the element ``task``, and evidence line by line. ``now`` in Unix seconds."""
    seen: Observation | Task = (
        next((one for one in run.last.tasks if one.index == task), run.last) if task is not None else run.last
    )
    name = run.id if task is None else f"{run.id}.{task}"
    lines = [f"{name} {_sentence(run, seen, now)}"]
    if seen.detail and seen.detail not in lines[0]:
        lines.append(seen.detail)
    attempts = _attempts(seen, run)
    if len(attempts) > 1:
        lines += [f"attempt {one.number}: {_outcome(one)}" for one in attempts]
    if run.pulled and run.state.final:
        lines.append(f"its results are in {run.pulled}")
    elif run.state.final and run.last.result_files:
        lines.append(
            f"its {run.last.result_files} results ({size_text(run.last.result_bytes or 0)}) wait: qwex pull {run.id}"
        )
    return lines


def _attempts(seen: Observation | Task, run: Run) -> tuple[Attempt, ...]:
    if isinstance(seen, Task):
        return seen.attempts
    return seen.tasks[0].attempts if len(seen.tasks) == 1 and run.spec.array is None else ()


def _sentence(run: Run, seen: Observation | Task, now: float) -> str:
    attempts = _attempts(seen, run)
    started = attempts[-1].started if attempts else run.last.started
    ended = attempts[-1].ended if attempts else run.last.ended
    if seen.state is State.RUNNING:
        since = f" for {duration_text(max(0.0, now - started))}" if started else ""
        return f"runs on {run.place}{since}" + (f", attempt {attempts[-1].number}" if len(attempts) > 1 else "")
    if seen.state is State.SUSPENDED:
        return f"is suspended on {run.place}: qwex resume {run.id} lets it go on"
    if not seen.state.final:
        return f"is {seen.state} on {run.place}" + (f" ({seen.reason})" if seen.reason is not Reason.NONE else "")
    after = f" after {duration_text(max(0.0, ended - started))}" if started and ended else ""
    if seen.state is State.SUCCEEDED:
        return f"succeeded{after}"
    return f"{'is' if seen.state is State.LOST else 'has'} {_word(seen.state)}{after}: {_cause(run, seen)}"


def _word(state: State) -> str:
    return "been cancelled" if state is State.CANCELLED else state.value


def _cause(run: Run, seen: Observation | Task) -> str:
    if seen.reason is Reason.EXIT_CODE:
        return f"its command ended with code {seen.exit_code}"
    if seen.reason is Reason.SIGNAL and seen.exit_code:
        return f"signal {seen.exit_code - 128} ended it"
    text = _ENDS.get(seen.reason, str(seen.reason))
    return text.format(limit=duration_text(run.spec.time_limit), command=repr(run.spec.argv[0]))


def _outcome(attempt: Attempt) -> str:
    code = f", code {attempt.exit_code}" if attempt.exit_code is not None else ""
    took = f" after {duration_text(attempt.ended - attempt.started)}" if attempt.started and attempt.ended else ""
    why = f" ({attempt.reason})" if attempt.reason is not Reason.NONE else ""
    return f"{attempt.state}{took}{code}{why}"
