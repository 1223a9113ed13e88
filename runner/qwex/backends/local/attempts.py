"""One attempt of a task as processes: a small shell in its own session, and the job below it.

The shell claims the attempt (``shell``, made exclusively), runs the job, and writes down its exit code there, so that the truth is
on disk whatever happens to the worker. Signals go to the process group; the shell survives those that it can and the job gets its
defaults. The shell's own standard error is closed off: it would announce how the job died.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from qwex.adapters import machine
from qwex.backends.local.clock import Clock
from qwex.backends.local.layout import AttemptFiles
from qwex.model.jobs import StdinMode
from qwex.model.states import Reason, State
from qwex.store.entries import Claim

__all__ = ["Attempt", "OomCount", "Trace", "begin", "ended_as", "kill_strays", "marks", "task_environment", "trace"]

_SHELL = (
    'set -C; echo $$ >"$1" || exit 125; trap : HUP INT QUIT TERM USR1 USR2 ALRM; s=$1; shift; exec 3>&2 2>/dev/null; '
    '(exec "$@" 2>&3 3>&-); c=$?; echo $c >>"$s"; exit $c'
)
_NAME = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*")
_DEFAULTS = [one for one in signal.valid_signals() if one not in (signal.SIGKILL, signal.SIGSTOP)]
_LAUNCHER = str(Path(__file__).with_name("launcher.py"))
_CLAIM_PATIENCE = 2.0


@dataclass(slots=True, eq=False)
class Attempt:
    """A leased task that has been begun. Times are of the monotonic clock.

    ``pid`` is the shell's, and its process group's. ``child``: it is this process's own. ``ending``: why it is being ended.
    ``watch`` is a descriptor that tells the end of an adopted one. ``writer`` keeps the fifo of live input open.
    """

    claim: Claim
    files: AttemptFiles
    pid: int
    began: float
    child: bool = True
    ending: Reason = Reason.NONE
    killed: bool = False
    suspended: float | None = None
    paused: float = 0.0
    watch: int | None = None
    writer: int | None = None
    oom_kills: int = 0
    sizes: tuple[int, int] = (0, 0)
    marks: frozenset[bytes] = field(default_factory=frozenset)

    @property
    def key(self) -> tuple[int, int]:
        return self.claim.seq, self.claim.index

    def signal(self, number: int) -> None:
        machine.signal_tree(self.pid, number)

    def note_growth(self, epoch: float) -> None:
        """Add a line to ``times`` when the output grew. Nothing is written for a job that is silent."""
        try:
            sizes = os.stat(self.files.out).st_size, os.stat(self.files.err).st_size
            if sizes != self.sizes:
                with open(self.files.times, "ab") as file:
                    file.write(b"%.3f %d %d\n" % (epoch, *sizes))
                self.sizes = sizes
        except FileNotFoundError:
            return  # somebody removed the logs: then there is nothing to find in them

    def close_input(self) -> None:
        """The job sees the end of its live input, once no client writes to it either."""
        if self.writer is not None:
            os.close(self.writer)
            self.writer = None

    def close(self) -> None:
        self.close_input()
        if self.watch is not None:
            os.close(self.watch)
            self.watch = None


class OomCount:
    """The kernel's count of processes killed for want of memory, looked at once a second at most."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._at, self._count = float("-inf"), 0

    def recent(self) -> int:
        now = self._clock.monotonic()
        if now - self._at > 1:
            self._at, self._count = now, machine.oom_kills()
        return self._count


def kill_strays(running: Mapping[int, Attempt]) -> None:
    """Orphans of our jobs are our children (subreaper): those whose attempt has ended are killed.

    One that shows no attempt in its environment cannot be told apart, and goes when nothing runs any more.
    """
    for pid in machine.children(os.getpid()):
        if pid in running:
            continue
        seen = machine.environment_of(pid)
        if any(one.marks <= seen for one in running.values()):
            continue
        if not running or any(mark.startswith(b"QWEX_ATTEMPT=") for mark in seen):
            machine.kill(pid)


def task_environment(base: Mapping[bytes, bytes], claim: Claim, work: str) -> dict[bytes, bytes]:
    """The submitter's environment and what Qwex adds. GPUs not asked for stay as visible as the submitter had them."""
    env = dict(base)
    env[b"PWD"] = os.fsencode(work)
    env[b"QWEX_RUN_ID"] = claim.run_id.encode()
    env[b"QWEX_TASK_INDEX"] = b"%d" % claim.index
    env[b"QWEX_TASK_COUNT"] = b"%d" % len(claim.spec.indexes)
    env[b"QWEX_ATTEMPT"] = b"%d" % claim.attempt
    if claim.gpus:
        env[b"CUDA_VISIBLE_DEVICES"] = ",".join(map(str, claim.gpus)).encode()
    return env


def _argv(claim: Claim, env: Mapping[bytes, bytes], env_file: str) -> list[str]:
    command = ["/bin/sh", "-c", claim.spec.argv[0]] if claim.spec.shell else list(claim.spec.argv)
    if command[0].startswith("-") or not all(map(_NAME.fullmatch, env)):
        command = [sys.executable, "-I", "-S", _LAUNCHER, env_file, *command]
    return command


def begin(claim: Claim, files: AttemptFiles, base: Mapping[bytes, bytes], run_directory: str, now: float) -> Attempt:
    """Start the attempt in its ``work`` directory, which is there. OSError when that cannot be done."""
    cwd = os.path.normpath(os.path.join(files.work, claim.spec.cwd))
    env = task_environment(base, claim, cwd)
    writer = None
    stdin = "/dev/null"
    if claim.spec.stdin is StdinMode.FILE:
        stdin = run_directory + "/stdin"
    elif claim.spec.stdin is StdinMode.LIVE:
        stdin = files.fifo
        os.mkfifo(stdin, 0o600)
        # Neither side may block: a reader first, then the writer that keeps the job from seeing an early end, then no reader.
        reader = os.open(stdin, os.O_RDONLY | os.O_NONBLOCK)
        writer = os.open(stdin, os.O_WRONLY | os.O_NONBLOCK)
        os.close(reader)
    try:
        os.chdir(cwd)
        pid = os.posix_spawn(
            "/bin/sh",
            ["/bin/sh", "-c", _SHELL, "qwex", files.shell, *_argv(claim, env, run_directory + "/env")],
            env,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, stdin, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, files.out, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                (os.POSIX_SPAWN_OPEN, 2, files.err, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=_DEFAULTS,
        )
    except OSError:
        if writer is not None:
            os.close(writer)
        raise
    finally:
        os.chdir("/")
    return Attempt(claim, files, pid, now, writer=writer, marks=marks(claim))


def marks(claim: Claim) -> frozenset[bytes]:
    """What the environment of every process of this attempt holds, unless it cleared it."""
    return frozenset(
        (
            b"QWEX_RUN_ID=%s" % claim.run_id.encode(),
            b"QWEX_TASK_INDEX=%d" % claim.index,
            b"QWEX_ATTEMPT=%d" % claim.attempt,
        )
    )


class Trace(NamedTuple):
    """What a former worker's attempt left: ``begun`` is False when it never began and never will."""

    begun: bool
    code: int | None = None
    pid: int | None = None
    ended: float | None = None


def trace(files: AttemptFiles) -> Trace:
    """Find out about an attempt that some former worker leased.

    When its shell has not claimed the attempt yet, this claims it, and the shell, should there be one, gives up.
    """
    try:
        os.close(os.open(files.shell, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileNotFoundError:
        return Trace(begun=False)
    except FileExistsError:
        pass
    else:
        return Trace(begun=False)
    pid = next(iter(_numbers(files.shell)), None)
    deadline = time.monotonic() + _CLAIM_PATIENCE
    while pid is None and time.monotonic() < deadline:  # made and written are two moments
        time.sleep(0.005)
        pid = next(iter(_numbers(files.shell)), None)
    # Looked at before the code: a shell seen alive may write that next, one seen dead has written it.
    alive = pid is not None and _is_shell_of(pid, files)
    written = _numbers(files.shell)
    if len(written) > 1:
        return Trace(True, code=written[1], ended=os.stat(files.shell).st_mtime)
    return Trace(True, pid=pid if alive else None)


def _numbers(path: str) -> list[int]:
    """The complete lines of a shell's file: its pid, and the exit code once there is one."""
    with open(path, "rb") as file:
        return [int(line) for line in file.read().split(b"\n")[:-1] if line.isdigit()]


def _is_shell_of(pid: int, files: AttemptFiles) -> bool:
    """Pids are used again; the name of the attempt's own file among the arguments of its shell is not."""
    return os.fsencode(files.shell) in machine.command_line(pid)


def ended_as(attempt: Attempt, code: int | None) -> tuple[State, Reason, str, int | None]:
    """State, reason, detail and exit code of an attempt that ended with ``code`` (None: nobody knows)."""
    if attempt.ending is Reason.CANCELLED_BY_USER:
        return State.CANCELLED, attempt.ending, "", code
    if attempt.ending is Reason.TIME_LIMIT:
        return State.FAILED, attempt.ending, f"after {attempt.claim.spec.time_limit:g} s", code
    if code is None:
        reason = attempt.ending if attempt.ending is not Reason.NONE else Reason.WORKER_DIED
        return State.LOST, reason, "its end was not seen", None
    if code == 0:
        return State.SUCCEEDED, Reason.NONE, "", 0
    if code == 128 + signal.SIGKILL and not attempt.killed and machine.oom_kills() > attempt.oom_kills:
        return State.FAILED, Reason.OUT_OF_MEMORY, "the kernel killed it for want of memory", code
    if 128 < code < 128 + signal.NSIG and code - 128 in {one.value for one in signal.Signals}:
        return State.FAILED, Reason.SIGNAL, signal.Signals(code - 128).name, code
    special = {127: Reason.COMMAND_NOT_FOUND, 126: Reason.COMMAND_NOT_EXECUTABLE}
    return State.FAILED, special.get(code, Reason.EXIT_CODE), "", code
