from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwex.model.jobs import ArrayRange, Condition, Dependency, JobSpec, Resources, StdinMode, parse_array


@pytest.mark.parametrize(
    ("text", "indexes", "limit"),
    [
        ("0-3", (0, 1, 2, 3), 0),
        ("0-99%10", tuple(range(100)), 10),
        ("9,1,5-6,5", (1, 5, 6, 9), 0),
        ("0-100:25", (0, 25, 50, 75, 100), 0),
        ("7", (7,), 0),
    ],
)
def test_arrays(text: str, indexes: tuple[int, ...], limit: int) -> None:
    assert parse_array(text) == ArrayRange(indexes, limit)


@pytest.mark.parametrize("text", ["", "a", "3-1", "1-", "-1", "0-9%", "0-9%0", "0-9:0", "0-9%x", "1,,2", "0-999999999"])
def test_what_is_no_array(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not an array|asks for more than"):
        parse_array(text)


@given(st.sets(st.integers(0, 50), min_size=1), st.integers(0, 5))
def test_an_array_reads_back_from_its_text(indexes: set[int], limit: int) -> None:
    array = ArrayRange(tuple(sorted(indexes)), limit)
    assert parse_array(str(array)) == array


odd = st.binary(min_size=1, max_size=8).map(lambda raw: raw.replace(b"\0", b"-").decode("utf-8", "surrogateescape"))


@given(argv=st.lists(odd, min_size=1).map(tuple), name=odd, gpus=st.integers(0, 8), secrets=st.lists(odd).map(tuple))
def test_a_spec_survives_json(argv: tuple[str, ...], name: str, gpus: int, secrets: tuple[str, ...]) -> None:
    spec = JobSpec(
        argv,
        name=name,
        resources=Resources(gpus=gpus),
        array=parse_array("0-9%2"),
        after=(Dependency("1p4c8zq0a", Condition.ANY),),
        env=(("A", name),),
        secrets=secrets,
        stdin=StdinMode.FILE,
    )
    assert JobSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
