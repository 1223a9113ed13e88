"""What the state records of an object: the object as the API server returned it, and beside it what the program asked.

Shape: the object's own fields, `__inputs`, `__initialApiVersion` and `__fieldManager`, as the real provider writes them,
so that a stack may pass between the two.
"""

from dataclasses import dataclass
from typing import Final

from tests.lab.providers.kubernetes.normal import dashed, underscored
from tests.lab.providers.kubernetes.objects import LAST_APPLIED, Kind, kind_of, metadata
from tests.lab.providers.wire import Secret, Tree, copy_secrecy, reveal, walk

INPUTS: Final = "__inputs"
API_VERSION: Final = "__initialApiVersion"
FIELD_MANAGER: Final = "__fieldManager"

SECRET: Final = Kind("v1", "Secret")


@dataclass(frozen=True)
class Checkpoint:
    """A recorded object, without secret marks: as last seen, as asked for, and by which field manager."""

    live: Tree
    inputs: Tree
    api_version: str
    manager: str


def manifest(bag: Tree) -> Tree:
    """Inputs as Kubernetes reads them: no secret marks, dashes where they belong."""
    tree = walk(reveal(bag), lambda leaf: leaf, dashed)
    return dict(tree)


def properties(obj: Tree, like: Tree) -> Tree:
    """An object as properties, secret where `like` is; all that a Secret holds is secret in any case."""
    found: Tree = walk(obj, lambda leaf: leaf, underscored)
    hide(found)
    copy_secrecy(found, like)
    return found


def hide(obj: Tree) -> None:
    """Marks what a Secret holds as secret: its data, and the copy of them that `kubectl apply` leaves in an annotation."""
    if obj.get("kind") != SECRET.kind:
        return
    for key in ("data", "stringData"):
        if key in obj and not isinstance(obj[key], Secret):
            obj[key] = Secret(obj[key])
    annotations = metadata(obj).get("annotations")
    if isinstance(annotations, dict) and isinstance(annotations.get(LAST_APPLIED), str):
        annotations[LAST_APPLIED] = Secret(annotations[LAST_APPLIED])


def write(live: Tree, inputs: Tree, like: Tree, api_version: str, manager: str) -> Tree:
    """The state for an object that is `live` and was asked for as `inputs`; `like` says what is secret."""
    return {
        **properties(live, like),
        INPUTS: properties(inputs, like),
        API_VERSION: api_version,
        FIELD_MANAGER: manager,
    }


def read(state: Tree) -> Checkpoint:
    """What a state recorded; of an empty state, empty objects."""
    plain = manifest(state)
    inputs = plain.pop(INPUTS, {})
    api_version = plain.pop(API_VERSION, "") or kind_of(inputs).api_version
    manager = plain.pop(FIELD_MANAGER, "")
    return Checkpoint(plain, inputs, str(api_version), str(manager))
