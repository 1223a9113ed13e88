"""The annotation `pulumi.com/waitFor`: what a program itself wants an object to have become.

`condition=NAME[=STATUS]`, `jsonpath={PATH}[=VALUE]`, or a JSON list of these, all of which must hold.
Of JSONPath only what names one place: keys, `['quoted keys']` and indexes.
"""

import json
import re
from typing import Any, Final

from tests.lab.providers.kubernetes.api import Cluster
from tests.lab.providers.kubernetes.objects import conditions
from tests.lab.providers.kubernetes.readiness import Probe, Progress
from tests.lab.providers.provider import Refused
from tests.lab.providers.wire import Tree

_JSONPATH: Final = re.compile(r"jsonpath=\{(?P<path>[^}]*)\}(?:=(?P<value>.*))?", re.DOTALL)
_STEP: Final = re.compile(r"\.([\w-]+)|\[(\d+)\]|\['([^']+)'\]")


def probe_for(text: str) -> Probe:
    """What tells whether an object has become as the annotation says. Raises Refused when it cannot be read."""
    try:
        parsed = json.loads(text)
    except ValueError:
        parsed = text
    expressions = [str(each) for each in parsed] if isinstance(parsed, list) else [text]
    if not expressions:
        raise Refused("at least one condition must be specified")
    probes = [_one(expression) for expression in expressions]

    def every(cluster: Cluster, obj: Tree) -> Progress:
        states = [probe(cluster, obj) for probe in probes]
        reasons = [reason for state in states for reason in state.reasons]
        return Progress(all(state.ready for state in states), "; ".join(reasons), reasons)

    return every


def _one(expression: str) -> Probe:
    if expression.startswith("condition="):
        wanted, _, status = expression.removeprefix("condition=").partition("=")
        return _condition(wanted, status or "True")
    if expression.startswith("jsonpath=") and (match := _JSONPATH.fullmatch(expression)):
        return _path(expression, match["path"], match["value"])
    raise Refused(f'expected a "jsonpath=" or "condition=" prefix, got {json.dumps(expression)}')


def _condition(wanted: str, status: str) -> Probe:
    def probe(cluster: Cluster, obj: Tree) -> Progress:
        found = next((state for kind, state in conditions(obj).items() if kind.lower() == wanted.lower()), {})
        ready = str(found.get("status", "")).lower() == status.lower()
        text = f'Waiting for condition "{wanted}" to be "{status}"'
        return Progress(ready, text, [] if ready else [f"{text}: it is {found.get('status') or 'not set'}"])

    return probe


def _path(expression: str, path: str, value: str | None) -> Probe:
    steps = _steps(expression, path)

    def probe(cluster: Cluster, obj: Tree) -> Progress:
        found = _at(obj, steps)
        ready = found is not None if value is None else _text(found) == value.strip("\"'")
        return Progress(ready, f"Waiting for {expression}", [] if ready else [f"{expression}: it is {_text(found)}"])

    return probe


def _steps(expression: str, path: str) -> list[str | int]:
    steps: list[str | int] = []
    at = 0
    while at < len(path):
        match = _STEP.match(path, at)
        if not match:
            raise Refused(f"the stand-in cannot read {expression!r}: only keys and indexes, such as {{.status.phase}}")
        key, index, quoted = match.groups()
        steps.append(int(index) if index is not None else key or quoted)
        at = match.end()
    return steps


def _at(value: Any, steps: list[str | int]) -> Any:
    for step in steps:
        if isinstance(step, int):
            value = value[step] if isinstance(value, list) and step < len(value) else None
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
