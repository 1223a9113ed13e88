"""`qwex init`."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwex.errors import UsageError, WorkspaceError
from qwex.services.starting import init


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "qwex.toml").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        init(tmp_path)
    assert (tmp_path / "qwex.toml").read_text() == "mine"


def test_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match=r"qwex\.toml cannot be written"):
        init(tmp_path / "gone")
