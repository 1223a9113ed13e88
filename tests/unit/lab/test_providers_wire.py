"""The wire's marked values, and what is done with them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.lab.providers.protocol import struct_pb2
from tests.lab.providers.wire import (
    MARK,
    OUTPUT,
    SECRET,
    UNKNOWN,
    UNKNOWN_STRING,
    UNKNOWNS,
    Secret,
    copy_secrecy,
    decode,
    encode,
    has_secret,
    has_unknown,
    reveal,
)


def struct(tree: dict[str, Any]) -> Any:
    made = struct_pb2.Struct()
    made.update(tree)
    return made


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({}, {}),
        ({"a": "text", "b": True, "c": None}, {"a": "text", "b": True}),
        ({"whole": 3.0, "part": 0.5, "below": -2.0}, {"whole": 3, "part": 0.5, "below": -2}),
        ({"list": [1.0, None, {"x": "y"}]}, {"list": [1, None, {"x": "y"}]}),
        ({"a": UNKNOWN_STRING}, {"a": UNKNOWN}),
        ({"a": {MARK: SECRET, "value": "s"}}, {"a": Secret("s")}),
        ({"a": {MARK: SECRET, "value": {"b": UNKNOWN_STRING}}}, {"a": Secret({"b": UNKNOWN})}),
        ({"a": {MARK: OUTPUT, "value": 1.0}}, {"a": 1}),
        ({"a": {MARK: OUTPUT}}, {"a": UNKNOWN}),
        ({"a": {MARK: OUTPUT, "secret": True, "value": "s"}}, {"a": Secret("s")}),
        ({"a": {MARK: "some asset", "text": "t"}}, {"a": {MARK: "some asset", "text": "t"}}),
    ],
)
def test_decode(written: dict[str, Any], meant: dict[str, Any]) -> None:
    assert decode(struct(written)) == meant


@pytest.mark.parametrize("mark", sorted(UNKNOWNS))
def test_every_kind_of_unknown_is_one(mark: str) -> None:
    assert decode(struct({"a": mark})) == {"a": UNKNOWN}


leaves = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text() | st.just(UNKNOWN)
trees = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | inner.map(Secret))


@settings(deadline=None, max_examples=50)  # the machine may be busy
@given(st.dictionaries(st.text(), trees))
def test_what_is_encoded_is_decoded_again(tree: dict[str, Any]) -> None:
    def without_nulls(value: Any) -> Any:
        match value:
            case dict():
                return {key: without_nulls(item) for key, item in value.items() if item is not None}
            case list():
                return [without_nulls(item) for item in value]
            case Secret():
                return Secret(without_nulls(value.value))
        return value

    assert decode(encode(tree)) == without_nulls(tree)


def test_without_secrets_the_bare_values_are_written() -> None:
    assert decode(encode({"a": Secret({"b": Secret("c")})}, secrets=False)) == {"a": {"b": "c"}}


def test_what_is_no_property_is_refused() -> None:
    with pytest.raises(TypeError, match="object"):
        encode({"a": object()})


def test_a_secret_does_not_print_itself() -> None:
    assert "hush" not in f"{Secret('hush')} {Secret('hush')!r} {[Secret('hush')]}"


def test_reveal_keeps_what_is_unknown() -> None:
    assert reveal({"a": Secret([Secret("b"), UNKNOWN]), "c": 1}) == {"a": ["b", UNKNOWN], "c": 1}


def test_secrets_and_unknowns_are_found_at_any_depth() -> None:
    assert has_unknown({"a": [{"b": Secret([UNKNOWN])}]})
    assert not has_unknown({"a": ["unknown", None]})
    assert has_secret([{"a": [Secret(1)]}])
    assert not has_secret({"a": "Secret"})


@pytest.mark.parametrize(
    ("into", "like", "then"),
    [
        ({"a": "x"}, {"a": Secret("y")}, {"a": Secret("x")}),
        ({"a": {"b": "x", "c": "z"}}, {"a": {"b": Secret("y")}}, {"a": {"b": Secret("x"), "c": "z"}}),
        ({"a": ["x", "z"]}, {"a": ["x", Secret("y")]}, {"a": Secret(["x", "z"])}),
        ({"a": {"b": "x"}}, {"a": Secret({"b": "x"})}, {"a": Secret({"b": "x"})}),
        ({"a": "x"}, {"b": Secret("y")}, {"a": "x"}),
        ({"a": Secret("x")}, {"a": Secret("y")}, {"a": Secret("x")}),
    ],
)
def test_secrecy_is_copied_by_key(into: dict[str, Any], like: dict[str, Any], then: dict[str, Any]) -> None:
    copy_secrecy(into, like)
    assert into == then
