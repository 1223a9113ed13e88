"""Who owns which fields of an object, and taking over those that were written without server-side apply.

As the real provider does before an update: what `kubectl` or an older Pulumi wrote becomes the provider's own, so that a field that the
program no longer names is removed, and none of it is a conflict. Format: `metadata.managedFields` of Kubernetes.
"""

from typing import Any, Final

from tests.lab.providers.kubernetes.objects import metadata
from tests.lab.providers.wire import Tree

OWN: Final = ("pulumi-kubernetes", "pulumi-resource-kubernetes")
ADOPTED: Final = (
    ("kubectl", "Apply"),
    ("kubectl", "Update"),
    ("before-first-apply", "Update"),
    *((name, "Update") for name in OWN),
)


def is_own_update(entry: Tree) -> bool:
    """Was it written by this provider without server-side apply?"""
    return entry.get("operation") == "Update" and entry.get("manager") in OWN


def _adoptable(entry: Tree) -> bool:
    manager = str(entry.get("manager", ""))
    of_object = not entry.get("subresource")
    return of_object and any(
        manager.startswith(prefix) and entry.get("operation") == operation for prefix, operation in ADOPTED
    )


def adoption(live: Tree, manager: str) -> list[Tree] | None:
    """The managed fields with all that is adoptable under `manager`; None when there is nothing to adopt."""
    entries: list[Tree] = metadata(live).get("managedFields") or []
    taken = [entry for entry in entries if _adoptable(entry) and entry.get("manager") != manager]
    if not taken:
        return None
    own = next((entry for entry in entries if _is(entry, manager)), None) or {**taken[0]}
    fields: Any = own.get("fieldsV1") or {}
    for entry in taken:
        fields = _joined(fields, entry.get("fieldsV1") or {})
    mine = {**own, "manager": manager, "operation": "Apply", "fieldsV1": fields}
    return [mine, *(entry for entry in entries if entry not in taken and not _is(entry, manager))]


def _is(entry: Tree, manager: str) -> bool:
    return entry.get("manager") == manager and entry.get("operation") == "Apply" and not entry.get("subresource")


def owned_by_others(live: Tree, path: tuple[str | int, ...], manager: str) -> bool:
    """Does somebody else manage the field at a path of keys, and `manager` not?"""
    entries: list[Tree] = metadata(live).get("managedFields") or []
    own, others = ([each for each in entries if (each.get("manager") == manager) is mine] for mine in (True, False))
    return any(_manages(entry, path) for entry in others) and not any(_manages(entry, path) for entry in own)


def _manages(entry: Tree, path: tuple[str | int, ...]) -> bool:
    fields: Any = entry.get("fieldsV1")
    for key in path:
        fields = fields.get(f"f:{key}") if isinstance(fields, dict) else None
    return fields is not None


def _joined(one: Tree, other: Tree) -> Tree:
    both = {**one}
    for key, value in other.items():
        both[key] = _joined(both[key], value) if key in both else value
    return both
