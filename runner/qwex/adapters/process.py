"""The one runner of outside programs: argument lists only, never a shell string."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from qwex.errors import QwexError

__all__ = ["Finished", "ProgramMissing", "TookTooLong", "run", "spawn"]

Argument = str | bytes | os.PathLike[str]


class ProgramMissing(QwexError):
    """A program that Qwex needs is not on PATH, or may not be executed."""

    code = "program-missing"


class TookTooLong(QwexError):
    """A program was killed after its time."""

    code = "took-too-long"


class Finished(NamedTuple):
    """How a program ended: ``code`` as a shell reports it (128 + n for signal n), and all it wrote."""

    code: int
    out: bytes
    err: bytes


def _missing(argv: Sequence[Argument], cwd: Path | str | None, error: OSError) -> QwexError:
    if cwd is not None and not os.path.isdir(cwd):
        return QwexError(f"{os.fsdecode(argv[0])} cannot run in {cwd}: no such directory")
    if isinstance(error, FileNotFoundError):
        return ProgramMissing(f"{os.fsdecode(argv[0])} is not installed or not on PATH", hint="install it")
    return ProgramMissing(f"{os.fsdecode(argv[0])} cannot be started: {error.strerror}")


def run(
    argv: Sequence[Argument],
    *,
    cwd: Path | str | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    timeout: float | None = None,
) -> Finished:
    """Run to the end and keep the output. ``env`` replaces the environment; no ``stdin`` means none at all.

    ProgramMissing when it cannot be started, TookTooLong after ``timeout`` seconds (it is killed then).
    A code other than 0 is the caller's to judge.
    """
    try:
        done = subprocess.run(
            argv,
            cwd=cwd,
            env=env,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TookTooLong(f"{os.fsdecode(argv[0])} did not finish within {timeout:g} s and was killed") from error
    except OSError as error:
        raise _missing(argv, cwd, error) from error
    return Finished(done.returncode if done.returncode >= 0 else 128 - done.returncode, done.stdout, done.stderr)


def spawn(
    argv: Sequence[Argument],
    *,
    cwd: Path | str | None = None,
    env: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
    session: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a program and return at once; the caller waits for it. ``session``: apart from this terminal."""
    try:
        return subprocess.Popen(
            argv, cwd=cwd, env=env, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=session
        )
    except OSError as error:
        raise _missing(argv, cwd, error) from error
