"""The programs in ``runner/docs/sdk.md`` run, against the real local place."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from qwex.sdk import Options

DOCUMENT = (Path(__file__).parents[3] / "runner/docs/sdk.md").read_text()
PROGRAMS = [text for text in re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL) if len(text.splitlines()) > 1]


def test_every_option_is_documented() -> None:
    assert [name for name in Options.__annotations__ if name != "confirmed" and f"`{name}`" not in DOCUMENT] == []


@pytest.mark.parametrize(
    ("number", "said"), [(0, r"20 jobs, pi is about 3\.1\d\n"), (1, r"hello\nsucceeded 42\n"), (2, r"42\n")]
)
def test_programs_do_what_they_say(project: Path, number: int, said: str) -> None:
    text = PROGRAMS[number]
    program = text if text.startswith("import") else f"import qwex\n{text}"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=project, capture_output=True, text=True, check=False, timeout=120
    )
    assert re.fullmatch(said, done.stdout), done.stdout + done.stderr


def test_every_program_is_run() -> None:
    assert len(PROGRAMS) == 3
