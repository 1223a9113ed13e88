"""Running a command on this machine, as `command:local` does."""

import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event, Lock, Thread
from typing import IO

from tests.lab.providers.provider import Refused
from tests.lab.providers.wire import Tree

Say = Callable[[str], None]


@dataclass
class Captured:
    """Both streams apart, and together in the order they came."""

    stdout: list[str] = field(default_factory=list)
    stderr: list[str] = field(default_factory=list)
    both: list[str] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    def add(self, stream: str, line: str) -> None:
        """Takes a line, with its end, of `stdout` or `stderr`."""
        with self._lock:
            (self.stdout if stream == "stdout" else self.stderr).append(line)
            self.both.append(line)

    @property
    def outputs(self) -> Tree:
        """The resource's outputs: each stream without the last line's end."""
        return {"stdout": "".join(self.stdout).removesuffix("\n"), "stderr": "".join(self.stderr).removesuffix("\n")}

    @property
    def together(self) -> str:
        """Both streams as they came, for an error message."""
        return "".join(self.both)


def heard(logging: str | None, stream: str) -> bool:
    """Is a stream shown while the command runs? By default both are: beware of secrets."""
    return logging in (None, "stdoutAndStderr", stream)


def previous(inputs: Tree, outputs: Tree) -> dict[str, str]:
    """The environment that tells a command what the one before it wrote, unless it does not want to know."""
    if inputs.get("addPreviousOutputInEnv") is False:
        return {}
    return {f"PULUMI_COMMAND_{key.upper()}": str(outputs[key]) for key in ("stdout", "stderr") if outputs.get(key)}


def exit_text(code: int) -> str:
    """How a process ended, in the words of the real provider."""
    if code >= 0:
        return f"exit status {code}"
    return f"signal: {(signal.strsignal(-code) or str(-code)).lower()}"


def run(command: str, inputs: Tree, outputs: Tree, say: Say, cancelled: Event) -> Tree:
    """Runs a command to its end: its streams. `inputs` and `outputs` are without secret marks.

    Raises Refused with the exit status and both streams when it fails, cannot be started, or is cancelled; then it and
    what it started are killed.
    """
    interpreter = inputs.get("interpreter") or ["/bin/sh", "-c"]
    environment = {**os.environ, **inputs.get("environment", {}), **previous(inputs, outputs)}
    try:
        process = subprocess.Popen(
            [*interpreter, command],
            cwd=inputs.get("dir"),
            env=environment,
            stdin=subprocess.PIPE if inputs.get("stdin") else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as fault:
        raise Refused(f'{fault}: running "{command}":\n') from fault
    captured = Captured()
    assert process.stdout is not None
    assert process.stderr is not None
    readers = [
        Thread(target=_read, args=(stream, name, captured, say if heard(inputs.get("logging"), name) else None))
        for name, stream in (("stdout", process.stdout), ("stderr", process.stderr))
    ]
    if process.stdin is not None:
        readers.append(Thread(target=_feed, args=(process.stdin, inputs["stdin"])))
    for reader in readers:
        reader.start()
    code = _ended(process, cancelled)
    for reader in readers:
        reader.join()
    if cancelled.is_set() and code != 0:
        raise Refused(f'cancelled: {exit_text(code)}: running "{command}":\n{captured.together}')
    if code != 0:
        raise Refused(f'{exit_text(code)}: running "{command}":\n{captured.together}')
    return captured.outputs


def _read(stream: IO[str], name: str, captured: Captured, say: Say | None) -> None:
    with stream:
        for line in stream:
            captured.add(name, line)
            if say:
                say(line.rstrip("\n"))


def _feed(stream: IO[str], text: str) -> None:
    """A command may end before it has read its input."""
    try:
        with stream:
            stream.write(text)
    except BrokenPipeError:
        return


def _ended(process: subprocess.Popen[str], cancelled: Event) -> int:
    while True:
        try:
            return process.wait(0.1)
        except subprocess.TimeoutExpired:
            if cancelled.is_set():
                os.killpg(process.pid, signal.SIGKILL)
                return process.wait()
