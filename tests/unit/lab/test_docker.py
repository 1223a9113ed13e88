"""Docker's command: its answers, its refusals, and what a lab finds by label."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.lab.docker import DockerError, docker, labelled


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `docker` that does what is written into it."""
    path = tmp_path / "bin" / "docker"
    path.parent.mkdir()
    path.touch(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")
    return path


def test_an_answer(program: Path) -> None:
    program.write_text('#!/bin/sh\necho "$@"; cat; echo\n')
    assert docker("ps", "-a", input=b"given") == "ps -a\ngiven"


def test_a_refusal_names_the_command(program: Path) -> None:
    program.write_text("#!/bin/sh\necho no such thing >&2; exit 3\n")
    with pytest.raises(DockerError, match=r"^docker rm x: no such thing$"):
        docker("rm", "x")


def test_a_silent_refusal_names_its_status(program: Path) -> None:
    program.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(DockerError, match=r"^docker rm x: exit status 3$"):
        docker("rm", "x")


def test_no_answer(program: Path) -> None:
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(DockerError, match=r"docker ps: no answer within 0\.2 s"):
        docker("ps", timeout=0.2)


def test_objects_by_label(program: Path) -> None:
    program.write_text(
        "#!/bin/sh\nprintf 'qwexlab-abcdef-lan\\tabcdef\\tboot:1:2\\nqwexlab-123456-lan\\t123456\\t\\n'\n"
    )
    assert labelled("network") == {
        "qwexlab-abcdef-lan": {"qwex.lab": "abcdef", "qwex.lab.owner": "boot:1:2"},
        "qwexlab-123456-lan": {"qwex.lab": "123456", "qwex.lab.owner": ""},
    }


def test_no_objects(program: Path) -> None:
    program.write_text("#!/bin/sh\n")
    assert labelled("volume", "abcdef") == {}
