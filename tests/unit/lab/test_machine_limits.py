"""The host's limits are raised for the first lab and are what they were after the last."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.lab import limits, records

INSTANCES, WATCHES = limits.WANTED


@pytest.fixture(autouse=True)
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings of a kernel with one low and one sufficient limit, and no labs."""
    settings, labs = tmp_path / "sys", tmp_path / "labs"
    labs.mkdir()
    (settings / INSTANCES).parent.mkdir(parents=True)
    (settings / INSTANCES).write_text("128\n")
    (settings / WATCHES).write_text("1000000\n")
    monkeypatch.setattr(limits, "SETTINGS", settings)
    monkeypatch.setattr(records, "ROOT", labs)
    return settings


def test_only_what_is_low_is_raised_and_the_last_lab_restores_it(kernel: Path) -> None:
    for lab in ("aaaaaa", "bbbbbb"):
        records.Record(lab).create("owner", "")
        limits.lift()
    assert (kernel / INSTANCES).read_text() == "8192\n"
    assert (kernel / WATCHES).read_text() == "1000000\n"
    for lab, after in (("aaaaaa", "8192\n"), ("bbbbbb", "128\n")):
        (records.ROOT / lab / "lab.json").unlink()
        (records.ROOT / lab).rmdir()
        limits.restore()
        assert (kernel / INSTANCES).read_text() == after
    assert list(records.ROOT.iterdir()) == []


def test_what_somebody_else_set_since_stays(kernel: Path) -> None:
    limits.lift()
    (kernel / INSTANCES).write_text("20000\n")
    limits.restore()
    assert (kernel / INSTANCES).read_text() == "20000\n"


def test_nothing_to_raise_leaves_no_trace(kernel: Path) -> None:
    (kernel / INSTANCES).write_text("9000\n")
    limits.lift()
    limits.restore()
    assert (kernel / INSTANCES).read_text() == "9000\n"
    assert list(records.ROOT.iterdir()) == []
