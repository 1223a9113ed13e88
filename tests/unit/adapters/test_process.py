from __future__ import annotations

import sys
from pathlib import Path

import pytest

from qwex.adapters.process import ProgramMissing, TookTooLong, run, spawn
from qwex.errors import QwexError


def test_arguments_input_output_and_code(tmp_path: Path) -> None:
    code = "import os, sys; os.write(1, sys.stdin.buffer.read() + os.fsencode(sys.argv[1])); os.write(2, b'e'); sys.exit(3)"
    done = run([sys.executable, "-c", code, b"a \xff'"], stdin=b"in\0", cwd=tmp_path)
    assert (done.code, done.out, done.err) == (3, b"in\0a \xff'", b"e")


def test_no_input_unless_given() -> None:
    assert run(["cat"]).out == b""


def test_the_environment_is_replaced() -> None:
    assert run(["/usr/bin/env"], env={"ONLY": "this"}).out == b"ONLY=this\n"


def test_signals_read_as_in_a_shell() -> None:
    assert run(["sh", "-c", "kill -9 $$"]).code == 137


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProgramMissing, match="no-such-program"):
        run(["no-such-program"])
    (tmp_path / "file").touch(0o644)
    with pytest.raises(ProgramMissing, match="cannot be started"):
        spawn([str(tmp_path / "file")])
    with pytest.raises(QwexError, match="no such directory"):
        run(["true"], cwd=tmp_path / "gone")


def test_too_long() -> None:
    with pytest.raises(TookTooLong, match=r"sleep did not finish within 0\.1 s"):
        run(["sleep", "60"], timeout=0.1)
