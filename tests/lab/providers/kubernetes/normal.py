"""One shape for inputs that the API server stores alike, so that a spelling is not taken for a change.

The real provider passes known kinds through their Go types; here the effects that matter are spelled out.
Custom resources are left as they are, as there.
"""

import base64
import binascii
import re
from decimal import Decimal
from typing import Any, Final

from tests.lab.providers.kubernetes.objects import metadata
from tests.lab.providers.wire import Tree, has_unknown

READ_ONLY: Final = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "uid",
)

_K8S_IO: Final = (
    "admissionregistration apiextensions apiregistration authentication authorization certificates coordination discovery "
    "events flowcontrol.apiserver internal.apiserver networking node rbac.authorization resource scheduling storage"
)
_GROUPS: Final = frozenset(
    {"", "apps", "autoscaling", "batch", "extensions", "policy", *(f"{name}.k8s.io" for name in _K8S_IO.split())}
)

_DROPPED_EMPTY: Final = frozenset(
    [
        "annotations",
        "labels",
        "matchLabels",
        "nodeSelector",
        "limits",
        "requests",
        "hard",
        "data",
        "stringData",
        "binaryData",
        "parameters",
    ]
)
_KEPT_EMPTY: Final = frozenset({"rules", "subjects"})
_QUANTITIES: Final = frozenset(
    ["limits", "requests", "hard", "capacity", "overhead", "default", "defaultRequest", "min", "max"]
)
_QUANTITY: Final = re.compile(r"([+-]?\d+(?:\.\d*)?|[+-]?\.\d+)(?:([eE][+-]?\d+)|(m|u|n|k|[KMGTPE]i|[MGTPE])?)")
_SCALES: Final[dict[str, Decimal]] = {
    **{suffix: Decimal(10) ** power for suffix, power in {"n": -9, "u": -6, "m": -3, "": 0, "k": 3}.items()},
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("MGTPE", 2)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", 1)},
}


def is_built_in(api_version: str) -> bool:
    """Does the API server itself define the kinds of this version?"""
    return api_version.rpartition("/")[0] in _GROUPS


def normal(obj: Tree) -> Tree:
    """A copy of an object in the one shape; read-only metadata is left out."""
    copy: Tree = {**obj}
    if isinstance(obj.get("metadata"), dict):
        copy["metadata"] = {key: value for key, value in metadata(obj).items() if key not in READ_ONLY}
    api_version = str(obj.get("apiVersion", ""))
    if has_unknown(copy) or not is_built_in(api_version):
        return copy
    if obj.get("kind") == "CustomResourceDefinition":
        copy.pop("status", None)
        if isinstance(spec := copy.get("spec"), dict) and spec.get("preserveUnknownFields") is False:
            copy["spec"] = {key: value for key, value in spec.items() if key != "preserveUnknownFields"}
        return copy
    if obj.get("kind") == "Secret" and api_version == "v1":
        copy = _secret(copy)
    return dict(_without_empty(copy))


def _secret(obj: Tree) -> Tree:
    """stringData written into data, as the API server does, and data's base64 without line breaks."""
    data = {key: _base64_again(value) for key, value in (obj.get("data") or {}).items()}
    for key, value in (obj.get("stringData") or {}).items():
        data[key] = base64.b64encode(str(value).encode()).decode()
    rest = {key: value for key, value in obj.items() if key not in ("data", "stringData")}
    return {**rest, "data": data} if data else rest


def _base64_again(value: Any) -> Any:
    """What is not base64 stays as it is: the API server will say so."""
    try:
        return base64.b64encode(base64.b64decode("".join(str(value).split()), validate=True)).decode()
    except binascii.Error:
        return value


def _without_empty(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        parts = {name: _without_empty(item, name) for name, item in value.items()}
        return {name: item for name, item in parts.items() if not _vanishes(name, item)}
    if isinstance(value, list):
        return [_without_empty(item) for item in value]
    return value


def _vanishes(key: str, value: Any) -> bool:
    return (
        value is None
        or (value == {} and key in _DROPPED_EMPTY)
        or (value == [] and isinstance(value, list) and key not in _KEPT_EMPTY)
    )


def amount(text: Any) -> Decimal | None:
    """A quantity's value (`500m` is 0.5, `1Ki` 1024), or None where the text is none.

    Format: k8s.io/apimachinery/pkg/api/resource, Quantity.
    """
    match = _QUANTITY.fullmatch(str(text))
    if isinstance(text, bool) or not match:
        return None
    number, exponent, suffix = match.groups()
    return Decimal(number + (exponent or "")) * (Decimal(1) if exponent else _SCALES[suffix or ""])


def same_quantity(path: tuple[str | int, ...], old: Any, new: Any) -> bool:
    """Are two spellings of a resource amount (`0.5` and `500m` under `requests`) the same?"""
    if not (set(path) & _QUANTITIES) and path[-1:] not in (("sizeLimit",), ("divisor",), ("storage",)):
        return False
    left, right = amount(old), amount(new)
    return left is not None and left == right


def pruned(live: Any, shape: Any) -> Any:
    """A live value with only what `shape` also has: what the cluster added is nobody's change."""
    if isinstance(live, dict) and isinstance(shape, dict):
        return {key: pruned(value, shape[key]) for key, value in live.items() if key in shape}
    if isinstance(live, list) and isinstance(shape, list):
        if live and shape and type(live[0]) is not type(shape[0]):
            return live
        return [pruned(value, like) for value, like in zip(live, shape, strict=False)]
    return live


def dashed(key: str) -> str:
    """`x_kubernetes_preserve_unknown_fields` as Kubernetes writes it; the SDKs cannot have dashes."""
    return key.replace("_", "-") if key.startswith("x_kubernetes_") else key


def underscored(key: str) -> str:
    """The reverse of `dashed`."""
    return key.replace("-", "_") if key.startswith("x-kubernetes-") else key
