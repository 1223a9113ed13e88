"""What separates a recorded object from new inputs, and what of it takes a new object."""

from collections.abc import Sequence
from typing import Any, Final

from tests.lab.providers.kubernetes.immutable import Path
from tests.lab.providers.kubernetes.normal import is_built_in, pruned, same_quantity
from tests.lab.providers.kubernetes.objects import AUTONAMED, is_named, name, namespace, says_true
from tests.lab.providers.provider import Change, Diff, PropertyChange, covers, parse_path, path_text
from tests.lab.providers.wire import UNKNOWN, Tree

MISSING: Final = object()


def compare(live: Tree, old: Tree, new: Tree, fixed: Sequence[Path], ignore: Sequence[str] = ()) -> Diff:
    """The difference between an object as last seen (`live`, made from the inputs `old`) and the inputs `new`.

    All three are normal and without secret marks; `fixed` are the paths that cannot change in place.
    Only fields that `old` or `new` name can differ: the rest is the cluster's own.
    """
    base = pruned(live, old)
    if name(new):
        base.setdefault("metadata", {})["name"] = name(live)
    changes: dict[Path, PropertyChange] = {}
    _walk((), base, new, fixed, is_built_in(str(new.get("apiVersion", ""))), changes)
    ignored = [parse_path(text) for text in ignore]
    kept = {
        path_text(path): change
        for path, change in changes.items()
        if not any(covers(pattern, path) for pattern in ignored)
    }
    same_place = is_named(new) and name(new) == name(live) and namespace(new) == namespace(live)
    diff = Diff(kept)
    return Diff(kept, delete_first=bool(diff.replaces) and same_place and not says_true(new, AUTONAMED))


def _walk(
    path: Path, old: Any, new: Any, fixed: Sequence[Path], known: bool, changes: dict[Path, PropertyChange]
) -> None:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            _walk((*path, key), old.get(key, MISSING), new.get(key, MISSING), fixed, known, changes)
    elif isinstance(old, list) and isinstance(new, list):
        for index in range(max(len(old), len(new))):
            left, right = (side[index] if index < len(side) else MISSING for side in (old, new))
            _walk((*path, index), left, right, fixed, known, changes)
    elif not _equal(old, new) and not (known and same_quantity(path, old, new)):
        change = Change.ADD if old is MISSING else Change.DELETE if new is MISSING else Change.UPDATE
        replaces = any(_touches(pattern, path, new) for pattern in fixed) or (path == ("metadata",) and new is MISSING)
        changes[path] = PropertyChange(change, replaces)


def _equal(old: Any, new: Any) -> bool:
    if new is UNKNOWN or isinstance(old, bool) != isinstance(new, bool):
        return False
    return bool(old == new)


def _touches(pattern: Path, path: Path, new: Any) -> bool:
    """Does a change at `path` change what lies at `pattern`: under it, or above it with it inside?"""
    if covers(pattern, path):
        return True
    return covers(pattern[: len(path)], path) and _holds(new, pattern[len(path) :])


def _holds(value: Any, path: Path) -> bool:
    if not path:
        return True
    if path[0] == "*":
        return isinstance(value, list) and any(_holds(item, path[1:]) for item in value)
    return isinstance(value, dict) and path[0] in value and _holds(value[path[0]], path[1:])
