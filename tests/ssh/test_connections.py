"""Getting in: configuration, jumps, keys, host keys, accounts without a shell; and what is said when it fails."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncssh
import pytest
from tests.ssh.far import SSHD, Client, FarDirectory, Server, free_port, job, other_shell, output, start, start_server

from qwex.backends.ssh import SSHBackend, check
from qwex.errors import AccessRefused, HostKeyError, QwexError, Unreachable
from qwex.model.places import Place

pytestmark = [pytest.mark.ssh, pytest.mark.skipif(SSHD is None, reason="configures a real sshd")]

Starter = Callable[..., Server]


@pytest.fixture
def another() -> Iterator[Starter]:
    """Starts further servers, with lines of configuration."""
    servers: list[Server] = []

    def begin(extra: str = "", *, sftp: bool = True) -> Server:
        servers.append(start_server(Path(tempfile.mkdtemp(prefix="qwex-sshd-")), extra=extra, sftp=sftp))
        return servers[-1]

    yield begin
    for one in servers:
        one.stop()
        shutil.rmtree(one.folder)


def trusting(home: Path, server: Server) -> None:
    with (home / ".ssh/known_hosts").open("a") as file:
        file.write(f"[127.0.0.1]:{server.port} {(server.folder / 'host.pub').read_text()}")
    shutil.copy(server.key, home / f".ssh/key-{server.port}")
    with (home / ".ssh/config").open("a") as file:
        file.write(f"Host h{server.port}\n HostName 127.0.0.1\n Port {server.port}\n User {server.user.pw_name}\n")
        file.write(f" IdentityFile ~/.ssh/key-{server.port}\n IdentityFile ~/.ssh/is-not-there\n")


async def says(backend: SSHBackend, *argv: str) -> bytes:
    one = job(*argv)
    handles = await start(backend, one)
    return (await output(backend, handles[one.run_id]))[0]


def place_of(server: Server, directory: Path, **terms: object) -> Place:
    return Place("h", "ssh", f"h{server.port}", directory=str(directory), **terms)  # type: ignore[arg-type]


@pytest.mark.parametrize("sftp", [True, False])
async def test_alias_of_ssh_config_with_and_without_sftp(
    client: Client, another: Starter, ssh_home: Path, sftp: bool
) -> None:
    server = another(sftp=sftp)
    trusting(ssh_home, server)
    with FarDirectory(server) as directory:
        async with client.open(place_of(server, directory)) as backend:
            assert await says(backend, "echo", "hi") == b"hi\n"


async def test_proxy_jump_and_proxy_command(client: Client, another: Starter, server: Server, ssh_home: Path) -> None:
    inner = another()
    trusting(ssh_home, inner)
    trusting(ssh_home, server)
    ahead = f"Host h{inner.port}\n ProxyJump h{server.port}\n"
    config = ssh_home / ".ssh/config"
    plain = config.read_text()
    config.write_text(ahead + plain)
    with FarDirectory(inner) as directory:
        async with client.open(place_of(inner, directory)) as backend:
            assert await says(backend, "echo", "jumped") == b"jumped\n"
        config.write_text(f"Match originalhost h{inner.port}\n ProxyCommand socat - TCP:%h:%p\n" + plain)
        if shutil.which("socat"):
            async with client.open(place_of(inner, directory)) as backend:
                assert await says(backend, "echo", "piped") == b"piped\n"


async def test_unknown_host_key_is_asked_and_recorded(client: Client, server: Server, ssh_home: Path) -> None:
    known = ssh_home / ".ssh/known_hosts"
    before = known.read_text()
    known.unlink()
    with pytest.raises(HostKeyError, match="unknown: ssh-ed25519 SHA256:") as caught:
        async with client.open():
            pass
    assert "qwex host add" in (caught.value.hint or "")
    client.answer = True
    async with client.open() as backend:
        await check(backend)
    assert "SHA256:" in client.asked[-1]
    assert str(client.paths.state / "known_hosts") in client.said[-1]
    assert not known.exists()
    client.asked.clear()
    async with client.open():
        pass
    assert client.asked == []
    assert before.split()[2] in (client.paths.state / "known_hosts").read_text()


async def test_changed_host_key_refuses_and_names_the_line(client: Client, server: Server, ssh_home: Path) -> None:
    known = ssh_home / ".ssh/known_hosts"
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    known.write_text(f"# mine\nnot a line\n[127.0.0.1]:{server.port} {other}")
    client.answer = True
    with pytest.raises(HostKeyError, match="has changed") as caught:
        async with client.open():
            pass
    assert f"{known} line 3" in caught.value.message
    assert client.asked == []


async def test_strict_host_key_checking_is_honoured(client: Client, ssh_home: Path) -> None:
    (ssh_home / ".ssh/known_hosts").unlink()
    client.answer = True
    (ssh_home / ".ssh/config").write_text("StrictHostKeyChecking yes\n")
    with pytest.raises(HostKeyError, match="forbids"):
        async with client.open():
            pass
    (ssh_home / ".ssh/config").write_text("StrictHostKeyChecking accept-new\n")
    async with client.open():
        assert client.asked == []


async def test_refused_key(client: Client, ssh_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    key = ssh_home / ".ssh/id_ed25519"
    key.unlink()
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(key)
    with pytest.raises(AccessRefused, match="refuses to let you in") as caught:
        async with client.open():
            pass
    assert str(key) in caught.value.message


async def test_key_with_a_passphrase(client: Client, ssh_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    key = ssh_home / ".ssh/id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", str(key)], check=True)
    with pytest.raises(AccessRefused, match="passphrase") as caught:
        async with client.open():
            pass
    assert "ssh-add" in (caught.value.hint or "")


async def test_nobody_listens(client: Client) -> None:
    port = free_port()
    with pytest.raises(Unreachable, match=f"127.0.0.1:{port} .connection refused") as caught:
        async with client.open(Place("x", "ssh", "127.0.0.1", "me", port)):
            pass
    assert caught.value.hint


async def test_unknown_name(client: Client) -> None:
    with pytest.raises(Unreachable, match="no machine is known"):
        async with client.open(Place("x", "ssh", "no-such-host.invalid")):
            pass


async def test_a_server_that_says_nothing(client: Client, ssh_home: Path) -> None:
    (ssh_home / ".ssh/config").write_text("ConnectTimeout 1\n")
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(Unreachable):
        async with client.open(Place("x", "ssh", "127.0.0.1", "me", silent.getsockname()[1])):
            pass


ACCOUNTS = {
    "nologin": ("ForceCommand /usr/sbin/nologin", "not available"),
    "sftp only": ("ForceCommand internal-sftp", "no POSIX shell|ended a request"),
    "no session": ("MaxSessions 0", "runs no command"),
}


@pytest.mark.parametrize("kind", ACCOUNTS)
async def test_accounts_without_a_shell(client: Client, another: Starter, ssh_home: Path, kind: str) -> None:
    lines, words = ACCOUNTS[kind]
    server = another(lines)
    trusting(ssh_home, server)
    with pytest.raises(QwexError, match=words):
        async with client.open(place_of(server, Path(".qwex"))) as backend:
            await check(backend)


LOGIN_SHELLS = {
    "noisy": 'echo Welcome; echo to >&2; eval "$SSH_ORIGINAL_COMMAND"',
    "fish": 'exec fish -c "$SSH_ORIGINAL_COMMAND"',
    "csh": 'exec csh -c "$SSH_ORIGINAL_COMMAND"',
    "zsh": 'exec zsh -c "$SSH_ORIGINAL_COMMAND"',
}


@pytest.mark.parametrize("shell", LOGIN_SHELLS)
async def test_login_shells(client: Client, another: Starter, ssh_home: Path, shell: str) -> None:
    if shell != "noisy" and not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    server = another(f"ForceCommand {LOGIN_SHELLS[shell]}")
    trusting(ssh_home, server)
    with FarDirectory(server) as directory:
        async with client.open(place_of(server, directory)) as backend:
            assert await says(backend, "echo", "it's", "$HOME") == b"it's $HOME\n"


async def test_environment_of_the_login_shell(client: Client, another: Starter, ssh_home: Path) -> None:
    server = another()
    trusting(ssh_home, server)
    with FarDirectory(server) as directory:
        place = place_of(server, directory / "q", login_shell=True, env=(("HOME", str(directory)),))
        (directory / ".profile").write_text("export FROM_PROFILE=yes\n")
        async with client.open(place) as backend:
            assert (await says(backend, "sh", "-c", 'echo "$FROM_PROFILE" "$HOME" "$#"', "-x", "a b")).split() == [
                b"yes", str(directory).encode(), b"1",
            ]  # fmt: skip


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox", "mksh", "ksh"])
async def test_every_shell_runs_the_far_side(
    client: Client, another: Starter, ssh_home: Path, tmp_path: Path, shell: str
) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    server = another()
    server.stop()
    server = start_server(server.folder, extra=other_shell(server.folder, shell))
    trusting(ssh_home, server)
    try:
        with FarDirectory(server) as directory:
            async with client.open(place_of(server, directory)) as backend:
                odd = 'it\'s\n\udcff -x \\ "$HOME" *'
                assert await says(backend, "printf", "%s|", odd, "", "-n") == os.fsencode(odd) + b"||-n|"
                from tests.ssh.test_runs import test_codes, test_retries, test_time_limit
                from tests.ssh.test_workspaces import test_differences_make_the_same_tree, test_results_are_what_changed

                from qwex.model.states import Reason

                await test_codes(backend, "kill -KILL $$", 137, Reason.SIGNAL)
                await test_retries(backend)
                await test_time_limit(backend)
                await test_results_are_what_changed(backend, tmp_path)
                (tmp_path / "more").mkdir()
                there = Client(place_of(server, directory), client.paths, tmp_path)
                await test_differences_make_the_same_tree(backend, there, tmp_path / "more", 7)
    finally:
        server.stop()
