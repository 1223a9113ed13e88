"""Kubernetes objects as plain trees: what they are called, and what their annotations ask of the provider."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from tests.lab.providers.provider import Refused, Urn
from tests.lab.providers.wire import UNKNOWN, Tree

AUTONAMED: Final = "pulumi.com/autonamed"
SKIP_AWAIT: Final = "pulumi.com/skipAwait"
WAIT_FOR: Final = "pulumi.com/waitFor"
TIMEOUT_SECONDS: Final = "pulumi.com/timeoutSeconds"
PATCH_FORCE: Final = "pulumi.com/patchForce"
PATCH_FIELD_MANAGER: Final = "pulumi.com/patchFieldManager"
DELETION_PROPAGATION: Final = "pulumi.com/deletionPropagationPolicy"
LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"

DEFAULT_TIMEOUT: Final = 600.0
"""Seconds that the real provider waits for an object, and for its end."""


@dataclass(frozen=True)
class Kind:
    """A type of object: `v1` `Namespace`, `apps/v1` `Deployment`."""

    api_version: str
    kind: str

    @property
    def group(self) -> str:
        """The API group; empty for the core."""
        return self.api_version.rpartition("/")[0]

    def __str__(self) -> str:
        return f"{self.api_version}/{self.kind}"


def kind_of(obj: Tree) -> Kind:
    """The type an object says it is."""
    return Kind(str(obj.get("apiVersion", "")), str(obj.get("kind", "")))


def kind_of_urn(urn: Urn) -> Kind:
    """The type in a token such as `kubernetes:core/v1:Namespace`; a patch resource's is that of what it patches."""
    try:
        _, api_version, kind = urn.type.split(":")
    except ValueError as odd:
        raise Refused(f"not the type of a Kubernetes object: {urn.type}") from odd
    group, _, version = api_version.rpartition("/")
    return Kind(version if group in ("", "core") else api_version, kind)


def is_patch(urn: Urn, obj: Tree) -> bool:
    """Is it one of the resources that own a few fields of somebody else's object?"""
    kind = kind_of_urn(urn).kind
    return kind == "CustomResourcePatch" or (kind.endswith("Patch") and not str(obj.get("kind", "")).endswith("Patch"))


def metadata(obj: Tree) -> Tree:
    """An object's metadata; empty when it has none."""
    found = obj.get("metadata")
    return found if isinstance(found, dict) else {}


def name(obj: Tree) -> str:
    """Its name; empty when it has none or it is not known yet."""
    found = metadata(obj).get("name")
    return found if isinstance(found, str) else ""


def namespace(obj: Tree) -> str:
    """Its namespace; empty when it has none or it is not known yet."""
    found = metadata(obj).get("namespace")
    return found if isinstance(found, str) else ""


def is_named(obj: Tree) -> bool:
    """Has it a name, be it one that is not known yet?"""
    return metadata(obj).get("name") is UNKNOWN or bool(name(obj))


def set_metadata(obj: Tree, key: str, value: str) -> None:
    """Sets a field of the metadata, making the metadata if need be; an empty value removes the field."""
    if value:
        obj.setdefault("metadata", {})[key] = value
    else:
        metadata(obj).pop(key, None)


def annotation(obj: Tree, key: str) -> str:
    """An annotation's value; empty when there is none or it is not known yet."""
    found = metadata(obj).get("annotations")
    value = found.get(key) if isinstance(found, dict) else None
    return value if isinstance(value, str) else ""


def says_true(obj: Tree, key: str) -> bool:
    """Is an annotation "true"?"""
    return annotation(obj, key) == "true"


def annotate(obj: Tree, key: str, value: str) -> None:
    """Sets an annotation."""
    annotations = obj.setdefault("metadata", {}).setdefault("annotations", {})
    if isinstance(annotations, dict):
        annotations[key] = value


def identity(obj: Tree) -> str:
    """Its id in the state: `namespace/name`, or `name` where there is no namespace."""
    return f"{namespace(obj)}/{name(obj)}" if namespace(obj) else name(obj)


def parse_identity(text: str) -> tuple[str, str]:
    """The namespace (may be empty) and name of an id."""
    where, _, what = text.rpartition("/")
    if not what:
        raise Refused(f"failed to read resource because of a failure to parse resource name from request ID: {text}")
    return where, what


def timeout(obj: Tree, asked: float) -> float:
    """Seconds to wait: `customTimeouts` before the annotation before the default."""
    if asked:
        return asked
    written = annotation(obj, TIMEOUT_SECONDS)
    return float(written) if written.isdigit() else DEFAULT_TIMEOUT


def propagation(obj: Tree) -> str:
    """How a delete treats what the object owns; Foreground unless an annotation says otherwise."""
    policies = {"orphan": "Orphan", "background": "Background"}
    return policies.get(annotation(obj, DELETION_PROPAGATION).lower(), "Foreground")


def pluck(tree: Any, *path: str) -> Any:
    """What lies at a path of keys; None where there is nothing."""
    for key in path:
        if not isinstance(tree, dict):
            return None
        tree = tree.get(key)
    return tree


def conditions(obj: Tree) -> dict[str, Tree]:
    """An object's status conditions by type."""
    found = pluck(obj, "status", "conditions")
    return {str(condition.get("type")): condition for condition in found} if isinstance(found, list) else {}


def owned_by(obj: Tree, owner: Tree) -> bool:
    """Does it name the owner, by uid, among its owner references?"""
    uid = metadata(owner).get("uid")
    return any(reference.get("uid") == uid for reference in metadata(obj).get("ownerReferences", []))


def finalizers(obj: Tree) -> list[str]:
    """What may hold up its deletion, a namespace's own finalizers included."""
    own = metadata(obj).get("finalizers") or []
    return [*own, *(pluck(obj, "spec", "finalizers") or [] if obj.get("kind") == "Namespace" else [])]


def manifests(documents: Iterator[Any]) -> list[Tree]:
    """Those of some decoded YAML documents that are objects; empty ones are common in manifests."""
    return [each for each in documents if isinstance(each, dict) and each.get("kind") and each.get("apiVersion")]
