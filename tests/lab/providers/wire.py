"""Pulumi's property values as Python values, and back.

On the wire a property bag is a protobuf `Struct` in which a few things are written as marked strings or maps:
secrets, values not known before the update runs, and assets. The marks are fixed by the engine
(`sdk/go/common/resource/properties.go` and `plugin/rpc.go` of pulumi 3.216).
A decoded bag is a dict of str, bool, int, float, list, dict, `Secret` and `UNKNOWN`; an asset stays the marked map it is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from tests.lab.providers.protocol import struct_pb2

Tree = dict[str, Any]

MARK: Final = "4dabf18193072939515e22adb298388d"
SECRET: Final = "1b47061264138c4ac30d75fd1eb44270"
OUTPUT: Final = "d0e6a833031e9bbcd3f4e8bde6ca49a4"
ASSET: Final = "c44067f5952c0a294b673a41bacd8c17"
ARCHIVE: Final = "0def7320c3a5731c473e5ecbe6d01bc7"

UNKNOWN_STRING: Final = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
UNKNOWNS: Final = frozenset(
    {
        UNKNOWN_STRING,
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",  # bool
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",  # number
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",  # array
        "030794c1-ac77-496b-92df-f27374a8bd58",  # asset
        "e48ece36-62e2-4504-bad9-02848725956a",  # archive
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",  # object
    }
)


class Unknown(Enum):
    """The one value that is not known yet; it equals nothing but itself."""

    UNKNOWN = "unknown"


UNKNOWN: Final = Unknown.UNKNOWN


@dataclass(frozen=True)
class Secret:
    """A value that the state encrypts and the output masks; not printed by its repr either."""

    value: Any

    def __repr__(self) -> str:
        return "Secret(…)"


def decode(struct: Any) -> Tree:
    """The property bag in a protobuf Struct; nulls in maps are left out, whole numbers become int."""
    return {key: _decode(value) for key, value in struct.fields.items() if value.WhichOneof("kind") != "null_value"}


def _decode(value: Any) -> Any:
    match value.WhichOneof("kind"):
        case "string_value":
            text = value.string_value
            return UNKNOWN if text in UNKNOWNS else text
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() else number
        case "bool_value":
            return value.bool_value
        case "list_value":
            return [_decode(item) for item in value.list_value.values]
        case "struct_value":
            return _unmark(decode(value.struct_value))
    return None


def _unmark(tree: Tree) -> Any:
    match tree.get(MARK):
        case str(mark) if mark == SECRET:
            return Secret(tree.get("value"))
        case str(mark) if mark == OUTPUT:
            value = tree.get("value", UNKNOWN)
            return Secret(value) if tree.get("secret") else value
    return tree


def encode(tree: Mapping[str, Any], secrets: bool = True) -> Any:
    """The protobuf Struct for a property bag; `secrets=False` writes the values without their mark."""
    struct = struct_pb2.Struct()
    _fill(struct, tree, secrets)
    return struct


def _fill(struct: Any, tree: Mapping[str, Any], secrets: bool) -> None:
    for key, value in tree.items():
        if value is not None:
            _encode(struct.fields[key], value, secrets)


def _encode(into: Any, value: Any, secrets: bool) -> None:
    match value:
        case None:
            into.null_value = 0
        case Secret():
            if secrets:
                _fill(into.struct_value, {MARK: SECRET, "value": value.value}, secrets)
            else:
                _encode(into, value.value, secrets)
        case Unknown():
            into.string_value = UNKNOWN_STRING
        case bool():
            into.bool_value = value
        case int() | float():
            into.number_value = value
        case str():
            into.string_value = value
        case Mapping():
            into.struct_value.SetInParent()
            _fill(into.struct_value, value, secrets)
        case Sequence():
            into.list_value.SetInParent()
            for item in value:
                _encode(into.list_value.values.add(), item, secrets)
        case _:
            raise TypeError(f"a property cannot be a {type(value).__name__}")


def walk(value: Any, leaf: Callable[[Any], Any], key: Callable[[str], str] = str) -> Any:
    """A copy of a value with `leaf` applied to what is neither map nor list, and `key` to the maps' keys."""
    if isinstance(value, dict):
        return {key(name): walk(item, leaf, key) for name, item in value.items()}
    if isinstance(value, list):
        return [walk(item, leaf, key) for item in value]
    return leaf(value)


def reveal(value: Any) -> Any:
    """A copy without secret marks; unknown values stay."""
    return walk(value, lambda leaf: reveal(leaf.value) if isinstance(leaf, Secret) else leaf)


def _some(value: Any, test: Callable[[Any], bool]) -> bool:
    if test(value):
        return True
    if isinstance(value, Secret):
        return _some(value.value, test)
    if isinstance(value, dict):
        return any(_some(item, test) for item in value.values())
    return isinstance(value, list) and any(_some(item, test) for item in value)


def has_unknown(value: Any) -> bool:
    """Is any part of it not known yet?"""
    return _some(value, lambda part: part is UNKNOWN)


def has_secret(value: Any) -> bool:
    """Is any part of it secret?"""
    return _some(value, lambda part: isinstance(part, Secret))


def copy_secrecy(into: Tree, like: Tree) -> None:
    """Marks as secret in `into` what is secret in `like`: maps by key, a list as a whole as soon as one item is."""
    for key, model in like.items():
        if key not in into or isinstance(into[key], Secret):
            continue
        if isinstance(into[key], dict) and isinstance(model, dict):
            copy_secrecy(into[key], model)
        elif has_secret(model):
            into[key] = Secret(into[key])
