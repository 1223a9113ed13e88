"""Waiting for an object to become ready, and for one to be gone: until a deadline, or until the provider is cancelled."""

import time
from collections.abc import Callable
from threading import Event
from typing import Final

from tests.lab.providers.kubernetes.api import Cluster, NoMatch
from tests.lab.providers.kubernetes.expressions import probe_for
from tests.lab.providers.kubernetes.objects import (
    SKIP_AWAIT,
    WAIT_FOR,
    annotation,
    finalizers,
    kind_of,
    metadata,
    name,
    namespace,
    says_true,
)
from tests.lab.providers.kubernetes.readiness import probe_of
from tests.lab.providers.wire import Tree

POLL: Final = 0.3
"""Seconds between two looks."""


class NotReady(Exception):
    """It exists, but did not become what was waited for; `live` is how it was last seen."""

    def __init__(self, message: str, live: Tree, reasons: list[str]) -> None:
        super().__init__(message)
        self.live = live
        self.reasons = reasons


def until_ready(
    cluster: Cluster, inputs: Tree, made: Tree, within: float, cancelled: Event, say: Callable[[str], None]
) -> Tree:
    """The object as it is once ready. Raises NotReady after `within` seconds, or when the provider is cancelled."""
    if says_true(inputs, SKIP_AWAIT):
        return made
    expression = annotation(inputs, WAIT_FOR)
    probe = probe_for(expression) if expression else probe_of(kind_of(made))
    if probe is None:
        return made
    deadline = time.monotonic() + within
    live, said = made, ""
    while True:
        found = cluster.get(kind_of(made), namespace(made), name(made))
        if found is None:
            raise NotReady(f"'{name(made)}' was deleted while it was waited for", live, [])
        live = found
        progress = probe(cluster, live)
        if progress.ready:
            return live
        if progress.status and progress.status != said:
            said = progress.status
            say(said)
        if time.monotonic() > deadline:
            raise NotReady(f"'{name(live)}' timed out waiting to be Ready", live, progress.reasons)
        if cancelled.wait(POLL):
            raise NotReady(f'Resource operation was cancelled for "{name(live)}"', live, progress.reasons)


def until_gone(cluster: Cluster, doomed: Tree, within: float, cancelled: Event) -> None:
    """Returns once no object has the name, or one with another uid. Raises NotReady like `until_ready`."""
    deadline = time.monotonic() + within
    live = doomed
    while True:
        try:
            found = cluster.get(kind_of(doomed), namespace(doomed), name(doomed))
        except NoMatch:
            return
        if found is None or metadata(found).get("uid") != metadata(doomed).get("uid"):
            return
        live = found
        holding = finalizers(live)
        reasons = [f"finalizers might be preventing deletion ({', '.join(holding)})"] if holding else []
        if time.monotonic() > deadline:
            raise NotReady(f"'{name(live)}' is still there: timed out waiting for the condition", live, reasons)
        if cancelled.wait(POLL):
            raise NotReady(f'Resource operation was cancelled for "{name(live)}"', live, reasons)


def skips_end(inputs: Tree) -> bool:
    """Does `skipAwait` also cover the end of such an object? For the older kinds only, as there."""
    kinds = ("DaemonSet", "Deployment", "Job", "Namespace", "Pod", "ReplicationController", "StatefulSet")
    return says_true(inputs, SKIP_AWAIT) and inputs.get("kind") in kinds
