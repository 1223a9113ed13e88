"""Making, changing and removing one object, as the real provider does it: server-side apply unless told otherwise."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event
from typing import Final

from tests.lab.providers.kubernetes.api import IMMUTABLE, ApiError, Cluster, NoMatch
from tests.lab.providers.kubernetes.checkpoint import Checkpoint
from tests.lab.providers.kubernetes.managers import adoption, is_own_update, owned_by_others
from tests.lab.providers.kubernetes.normal import pruned
from tests.lab.providers.kubernetes.objects import (
    PATCH_FORCE,
    kind_of,
    metadata,
    name,
    namespace,
    propagation,
    says_true,
    set_metadata,
)
from tests.lab.providers.provider import Refused, parse_path, unique
from tests.lab.providers.wire import Tree

RETRIES: Final = 5
"""After 1, 2, 4, 8 and 16 seconds: for a kind or a namespace that is about to be made."""

HELP: Final = (
    "Server-Side Apply field conflict detected. See https://www.pulumi.com/registry/packages/kubernetes/how-to-guides/"
    "managing-resources-with-server-side-apply/#handle-field-conflicts-on-existing-resources for troubleshooting help."
)


@dataclass(frozen=True)
class Writer:
    """One cluster, and how to write to it; `say` shows a passing line."""

    cluster: Cluster
    cancelled: Event
    say: Callable[[str], None]
    server_side: bool = True
    force: bool | None = None

    def create(self, obj: Tree, manager: str, dry_run: bool) -> Tree:
        """Makes the object, or with server-side apply takes it over. Raises ApiError, or NoMatch for an unknown kind.

        What is missing, kind or namespace, is asked for again for half a minute; a preview does not wait.
        """
        wait = 1.0
        for attempt in range(RETRIES + 1):
            try:
                return self._create(obj, manager, dry_run)
            except (ApiError, NoMatch) as fault:
                lasting = isinstance(fault, ApiError) and fault.status != 404
                if lasting or dry_run or attempt == RETRIES:
                    raise
                self.say(f"Retry #{attempt}; creation failed: {fault}")
                self.cluster.forget()
                if self.cancelled.wait(wait):
                    raise Refused(f'Resource operation was cancelled for "{name(obj)}"') from fault
                wait *= 2
        raise AssertionError("the last attempt returns or raises")

    def _create(self, obj: Tree, manager: str, dry_run: bool) -> Tree:
        if not self.server_side:
            return self.cluster.create(obj, manager, dry_run)
        try:
            return self._apply(obj, None, manager, dry_run)
        except ApiError as refusal:
            if not (dry_run and refusal.status == 422 and IMMUTABLE in str(refusal)):
                raise
            # A preview of a replacement meets the object that will be gone by then: try it under another name.
            other = {**obj, "metadata": {**metadata(obj), "name": unique(name(obj)[:50])}}
            return self._apply(other, None, manager, dry_run)

    def _apply(self, obj: Tree, live: Tree | None, manager: str, dry_run: bool) -> Tree:
        try:
            return self.cluster.apply(obj, manager, self._forced(obj, live, dry_run), dry_run)
        except ApiError as refusal:
            if refusal.status != 409:
                raise
            cause = f'The resource managed by field manager "{manager}" had an apply conflict: {refusal}'
            raise ApiError(409, refusal.reason, f"{HELP}\n{cause}", refusal.details) from refusal

    def _forced(self, obj: Tree, live: Tree | None, dry_run: bool) -> bool:
        if says_true(obj, PATCH_FORCE):
            return True
        if self.force is not None:
            return self.force
        if live is None:
            return dry_run
        fields = metadata(live).get("managedFields") or []
        return not fields or (dry_run and any(is_own_update(each) for each in fields))

    def update(self, was: Checkpoint, obj: Tree, manager: str, ignore: list[str], dry_run: bool) -> Tree:
        """Changes the object. Raises ApiError, status 404 when it is gone, or NoMatch."""
        live = self.cluster.get(kind_of(obj), namespace(obj), name(was.live))
        if live is None:
            raise ApiError(404, "NotFound", f'{kind_of(obj)} "{name(was.live)}" not found')
        if obj.get("kind") == "CustomResourceDefinition":
            version = str(metadata(live).get("resourceVersion", ""))
            whole = {**obj, "metadata": {**metadata(obj), "resourceVersion": version}}
            return self.cluster.replace(whole, manager, dry_run)
        kept = _with_ignored(obj, live, ignore, manager)
        if self.server_side:
            adopted = None if dry_run else adoption(live, manager)
            if adopted is not None:
                live = self.cluster.set_managed_fields(live, adopted)
            return self._apply(kept, live, manager, dry_run)
        return self.cluster.merge(kept, merge_patch(pruned(live, was.inputs), kept), manager, dry_run)

    def delete(self, was: Checkpoint) -> bool:
        """Asks for the object's end; False when there was none, or not even its kind."""
        live = was.live
        try:
            self.cluster.delete(kind_of(live), namespace(live), name(live), propagation(was.inputs))
        except NoMatch:
            return False
        except ApiError as refusal:
            if refusal.status != 404:
                raise
            return False
        return True

    def relinquish(self, obj: Tree, manager: str) -> None:
        """Gives up all fields that a field manager owns; an object that is gone has none."""
        bare: Tree = {"apiVersion": obj.get("apiVersion"), "kind": obj.get("kind"), "metadata": {}}
        set_metadata(bare, "name", name(obj))
        set_metadata(bare, "namespace", namespace(obj))
        if self.cluster.get(kind_of(obj), namespace(obj), name(obj)) is not None:
            self.cluster.apply(bare, manager, force=False, dry_run=False)


def merge_patch(old: Tree, new: Tree) -> Tree:
    """The JSON merge patch (RFC 7386) that makes `old` into `new`; what `new` lacks is removed."""
    patch: Tree = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            if inner := merge_patch(before, value):
                patch[key] = inner
        elif value != before:
            patch[key] = value
    return patch


def _with_ignored(obj: Tree, live: Tree, ignore: list[str], manager: str) -> Tree:
    """The object with what the program ignores as the cluster has it, or not at all where it is somebody else's."""
    for text in ignore:
        path = parse_path(text)
        obj = _settled(obj, live, path, keep=not owned_by_others(live, path, manager))
    return obj


def _settled(obj: Tree, live: Tree, path: tuple[str | int, ...], keep: bool) -> Tree:
    head, rest = path[0], path[1:]
    if not isinstance(head, str) or head not in live:
        return obj
    if not rest:
        return {**obj, head: live[head]} if keep else {key: value for key, value in obj.items() if key != head}
    inner = obj.get(head)
    if not isinstance(live[head], dict) or (inner is None and not keep):
        return obj
    return {**obj, head: _settled(inner if isinstance(inner, dict) else {}, live[head], rest, keep)}
