from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwex.model.units import duration_text, parse_duration, parse_size, size_text


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("1024", 1024),
        ("512M", 512 << 20),
        ("4G", 4 << 30),
        ("4Gi", 4 << 30),
        ("1.5GiB", 3 << 29),
        (" 2 tb ", 2 << 40),
        ("7B", 7),
    ],
)
def test_sizes(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "G", "-1G", "1X", "1GG", "4 G B", "1e3", "٣"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("0.5", 0.5),
        ("90s", 90),
        ("1h30m", 5400),
        ("2d", 172800),
        ("1:30:00", 5400),
        ("30:00", 1800),
        ("1-00:00:00", 86400),
        ("1-12:00", 129600),
        ("1m0.5s", 60.5),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", " ", "h", "1x", "-5", "1h-5m", "5m1h", "1:99", "1:2:3:4", "inf", "nan"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@given(st.integers(0, 1 << 60))
def test_any_size_can_be_written_and_read_back_roughly(count: int) -> None:
    assert parse_size(size_text(count)) == pytest.approx(count, rel=0.01, abs=1)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.42, "0.4s"), (12, "12s"), (185, "3m05s"), (7620, "2h07m"), (356400, "4d03h")]
)
def test_durations_as_text(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
