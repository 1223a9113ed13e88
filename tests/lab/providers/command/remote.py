"""Running a command over SSH, as `command:remote:Command` does."""

import asyncio
from contextlib import AsyncExitStack
from typing import Final

import asyncssh
from tests.lab.providers.command.local import Captured, heard, previous
from tests.lab.providers.command.ssh import Say, dial
from tests.lab.providers.provider import Refused
from tests.lab.providers.wire import Tree

ADVICE: Final = (
    "This only works if your SSH server is configured to accept these variables via AcceptEnv. Alternatively, if a "
    "Bash-like shell runs the command on the remote host, you could prefix the command itself with the variables in the "
    "form 'VAR=value command'"
)


async def run(command: str, inputs: Tree, outputs: Tree, say: Say) -> Tree:
    """Runs a command on the other machine to its end: its streams. `inputs` and `outputs` are without secret marks.

    Raises Refused with the exit status and both streams when it fails, and for a variable that the server does not take.
    """
    async with AsyncExitStack() as stack:
        connection = await dial(stack, inputs["connection"], say)
        wanted = {str(key): str(value) for key, value in inputs.get("environment", {}).items()}
        told = previous(inputs, outputs)
        refused = await _refused(connection, {**wanted, **told})
        for key in refused:
            if key in wanted:
                raise Refused(f'could not set environment variable "{key}". {ADVICE}')
            say(f"Unable to set '{key}'. {ADVICE}")
        environment = {key: value for key, value in {**wanted, **told}.items() if key not in refused}
        return await _run(connection, command, inputs, environment, say)


async def _refused(connection: asyncssh.SSHClientConnection, environment: dict[str, str]) -> list[str]:
    """The variables that do not arrive. A server does not say so to this client: it is asked by a command."""
    if not environment:
        return []
    answer = await connection.run("env -0 || env", env=environment, stdin=asyncssh.DEVNULL)
    arrived = {line.partition("=")[0] for line in str(answer.stdout).replace("\0", "\n").splitlines()}
    return [key for key in environment if key not in arrived]


async def _run(
    connection: asyncssh.SSHClientConnection, command: str, inputs: Tree, environment: dict[str, str], say: Say
) -> Tree:
    captured = Captured()
    logging = inputs.get("logging")
    async with connection.create_process(command, env=environment, errors="replace") as process:
        if inputs.get("stdin"):
            process.stdin.write(inputs["stdin"])
        process.stdin.write_eof()
        await asyncio.gather(
            *(
                _read(stream, name, captured, say if heard(logging, name) else None)
                for name, stream in (("stdout", process.stdout), ("stderr", process.stderr))
            )
        )
        await process.wait(check=False)
    if process.exit_status != 0:
        how = (
            f"Process exited with status {process.exit_status}" if process.exit_signal is None else "killed by a signal"
        )
        raise Refused(f'{how}: running "{command}":\n{captured.together}')
    return captured.outputs


async def _read(stream: asyncssh.SSHReader[str], name: str, captured: Captured, say: Say | None) -> None:
    while line := await stream.readline():
        captured.add(name, line)
        if say:
            say(line.rstrip("\n"))
