"""What a waiting run waits for over there: a sentence and its evidence."""

from __future__ import annotations

from collections.abc import Sequence

from qwex.model.runs import Observation
from qwex.model.states import Reason, State
from qwex.model.units import duration_text

__all__ = ["explain"]

_SHOWN = 10
_MUST = {"ok": "succeeded", "fail": "failed", "any": "ended"}


def explain(run: str, seen: Observation, lines: Sequence[str], where: str) -> list[str]:
    """From the far side's answer to ``why``. Empty when nothing of the run waits."""
    waiting = [task for task in seen.tasks if task.state in (State.QUEUED, State.HELD, State.SUSPENDED)]
    if not waiting:
        return []
    facts: dict[str, list[list[str]]] = {}
    for line in lines:
        name, *words = line.split()
        facts.setdefault(name, []).append(words)
    many = f"{len(waiting)} tasks of it wait; the first one: " if len(waiting) > 1 else ""
    task = waiting[0]
    if task.state is State.SUSPENDED:
        sentence, evidence = (
            "is suspended: its processes are stopped, its slots are free for others",
            [f"`qwex resume {run}` lets it go on"],
        )
    elif task.state is State.HELD:
        sentence, evidence = "is held", [f"`qwex resume {run}` lets it go on"]
    elif "after" in facts:
        parents = [words[0].partition(":") for words in facts["after"]]
        sentence = "waits for " + ", ".join(parent for parent, _, _ in parents[:_SHOWN])
        evidence = [
            f"{parent} must have {_MUST.get(condition, condition)}" for parent, _, condition in parents[:_SHOWN]
        ]
    elif task.reason is Reason.WAITING_TO_RETRY:
        dues = [int(words[1]) for words in facts.get("retry", [])]
        left = max(0, min(dues, default=0) - int(facts["now"][0][0]))
        last = task.attempts[-1]
        sentence = f"waits {duration_text(left)} before its next attempt"
        evidence = [f"attempt {last.number} ended: {last.reason}, exit code {last.exit_code}"]
    elif task.reason is Reason.ARRAY_LIMIT:
        sentence, evidence = "waits for a place: the array's limit of tasks at a time is reached", []
    else:
        sentence, evidence = _slots(run, facts, where)
    return [f"{run} {many}{sentence}", *evidence]


def _slots(run: str, facts: dict[str, list[list[str]]], where: str) -> tuple[str, list[str]]:
    total, free = (int(word) for word in facts["slots"][0])
    queue = facts.get("queue", [])
    mine = next((words for words in queue if words[0].split(".")[0] == run), None)
    ahead = [words for words in queue if words is not mine]
    need = int(mine[1]) if mine else 1
    gpus = int(mine[2]) if mine else 0
    evidence = [f"{where} has {total} slots, {max(0, free)} free; this needs {need}"]
    evidence += [
        f"{name.rpartition('.')[0]} uses {count}" + ("" if gpu == "-" else f" and GPU {gpu}")
        for name, count, gpu in facts.get("active", [])[:_SHOWN]
    ]
    evidence += [f"{words[0]} is ahead in the queue" for words in ahead[:_SHOWN]]
    place = f", number {len(ahead) + 1} in the queue" if ahead else ", next in the queue"
    if gpus and free >= need:
        count, taken = facts.get("gpus", [["0", ","]])[0]
        evidence.append(f"{count} GPUs there, {len(taken.strip(',').split(',')) if taken.strip(',') else 0} in use")
        return f"waits for {gpus} GPUs on {where}{place}", evidence
    return f"waits for {need} free {'slot' if need == 1 else 'slots'} on {where}{place}", evidence
