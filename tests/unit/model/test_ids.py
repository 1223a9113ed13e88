from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwex.model.ids import ALPHABET, EPOCH, fresh_ids, is_id, split_ref


def test_ids_ascend_within_a_second_and_across_seconds() -> None:
    early = list(islice(fresh_ids(EPOCH + 1000), 2000))
    late = list(islice(fresh_ids(EPOCH + 1000.5), 10))
    assert early + late == sorted(set(early + late))
    assert all(is_id(one) for one in early)


def test_a_clock_before_the_epoch_still_gives_ids() -> None:
    assert is_id(next(fresh_ids(0)))


def test_an_id_is_a_reference_to_itself_and_to_its_elements() -> None:
    one = next(fresh_ids(EPOCH + 5e8))
    assert split_ref(one) == (one, None)
    assert split_ref(f"{one.upper()}.12") == (one, 12)
    assert split_ref("last.3") == ("last", 3)


def looks_like_one(text: str) -> bool:
    prefix, dot, task = text.lower().partition(".")
    named = prefix == "last" or (0 < len(prefix) <= 9 and set(prefix) <= set(ALPHABET))
    return named and (not dot or (task.isascii() and task.isdigit()))


@given(st.text(st.sampled_from(ALPHABET + ".ilouA-")) | st.text(max_size=12))
def test_anything_is_a_reference_or_is_refused_with_the_form(text: str) -> None:
    if not looks_like_one(text):
        with pytest.raises(ValueError, match="ids look like"):
            split_ref(text)
    else:
        prefix, task = split_ref(text)
        assert text.lower().startswith(prefix)
        assert task is None or task >= 0


@pytest.mark.parametrize("text", ["", "x.", ".7", "a.b", "lasts", "a b", "-1", "a" * 10])
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(ValueError, match="is not a run id"):
        split_ref(text)
