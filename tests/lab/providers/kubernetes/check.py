"""What a program's inputs become before they are compared or applied: named, placed, in the one shape."""

from tests.lab.providers.kubernetes.checkpoint import manifest
from tests.lab.providers.kubernetes.normal import normal
from tests.lab.providers.kubernetes.objects import (
    AUTONAMED,
    annotate,
    is_named,
    metadata,
    name,
    namespace,
    says_true,
    set_metadata,
)
from tests.lab.providers.provider import Failure, Naming, Refused, Urn, unique
from tests.lab.providers.wire import UNKNOWN, Tree

MANAGED_BY = "app.kubernetes.io/managed-by"


def faults(inputs: Tree) -> list[Failure]:
    """What no API server would take, by property; the rest is for the server itself to judge."""
    found = [
        Failure(key, f"{key} must be a text that is not empty")
        for key in ("apiVersion", "kind")
        if inputs.get(key) is not UNKNOWN and not (isinstance(inputs.get(key), str) and inputs[key])
    ]
    meta = inputs.get("metadata", {})
    if meta is not UNKNOWN and not isinstance(meta, dict):
        return [*found, Failure("metadata", "metadata must be a map")]
    for key in ("name", "namespace", "generateName"):
        value = metadata(inputs).get(key, "")
        if value is not UNKNOWN and not isinstance(value, str):
            found.append(Failure(f"metadata.{key}", f"metadata.{key} must be a text, not {value!r}"))
    for key in ("labels", "annotations"):
        for label, value in _map(metadata(inputs).get(key)).items():
            if value is not UNKNOWN and not isinstance(value, str):
                path = f'metadata.{key}["{label}"]'
                found.append(Failure(path, f"{path} must be a text, not {value!r}"))
    return found


def _map(value: object) -> Tree:
    return value if isinstance(value, dict) else {}


def settle(urn: Urn, olds: Tree, news: Tree, naming: Naming, *, server_side: bool, patch: bool) -> Tree:
    """Checked inputs, without secret marks and without a default namespace.

    Without a name an object keeps the one it was given before, or gets one of its own, and an annotation that says so.
    Raises Refused where the real provider does: `generateName` with server-side apply, a patch without a name.
    """
    old, new = manifest(olds), normal(manifest(news))
    new = {**new, "metadata": dict(metadata(new))} if isinstance(new.get("metadata", {}), dict) else new
    if patch and not is_named(new):
        raise Refused("patch resources require the `.metadata.name` field to be set")
    if metadata(new).get("generateName") and not is_named(new):
        if server_side:
            raise Refused("the `.metadata.generateName` field is not supported in Server-Side Apply mode")
        return new
    if not is_named(new):
        if old and says_true(old, AUTONAMED):
            set_metadata(new, "name", name(old))
        else:
            if naming.disabled:
                raise Refused("autonaming is disabled, resource requires the .metadata.name field to be set")
            set_metadata(new, "name", naming.proposal or unique(f"{urn.name}-", naming.seed))
        annotate(new, AUTONAMED, "true")
    if not server_side and (not old or MANAGED_BY in _map(metadata(old).get("labels"))):
        new["metadata"]["labels"] = {**_map(metadata(new).get("labels")), MANAGED_BY: "pulumi"}
    return new


def place(obj: Tree, namespaced: bool, default: str) -> Tree:
    """The object with the default namespace where it belongs in one and names none."""
    if namespaced and not namespace(obj) and metadata(obj).get("namespace") is not UNKNOWN:
        return {**obj, "metadata": {**metadata(obj), "namespace": default}}
    return obj
