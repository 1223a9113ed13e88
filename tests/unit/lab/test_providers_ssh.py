"""Commands and copies over a real SSH server on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.lab.providers.command.provider import Command
from tests.lab.providers.provider import Naming, Refused, Urn
from tests.lab.providers.wire import MARK, UNKNOWN, Secret, reveal
from tests.sshd import Server, installed

pytestmark = [pytest.mark.ssh, pytest.mark.skipif(installed() is None, reason="no sshd is installed")]

Tree = dict[str, Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that takes two variables from its clients."""
    with Server(tmp_path_factory.mktemp("sshd"), extra="AcceptEnv GREETING PULUMI_COMMAND_STDOUT\n") as server:
        yield server


@pytest.fixture
def connection(server: Server) -> Tree:
    """How to connect to it, its host key checked."""
    return {
        "host": "127.0.0.1",
        "port": server.port,
        "user": server.user,
        "privateKey": server.key.read_text(),
        "hostKey": (server.directory / "host.pub").read_text(),
        "dialErrorLimit": 1,
    }


@pytest.fixture
def said() -> list[str]:
    """What the provider told the engine."""
    return []


@pytest.fixture
def provider(said: list[str]) -> Command:
    """A command provider whose messages are kept."""
    return Command(lambda severity, message, urn="", passing=False: said.append(message))


def create(provider: Command, kind: str, inputs: Tree, preview: bool = False) -> tuple[str, Tree]:
    """Checks and creates, as the engine does."""
    urn = Urn(f"urn:pulumi:s::p::command:remote:{kind}::there")
    checked, failures = provider.check(urn, {}, inputs, Naming())
    assert failures == []
    return provider.create(urn, checked, 0, preview)


def test_a_command_runs_there_and_its_outputs_are_secret_as_the_connection_is(
    provider: Command, connection: Tree, said: list[str]
) -> None:
    inputs = {
        "connection": connection,
        "create": 'cat; echo "$SSH_CONNECTION" >&2',
        "stdin": "in\n",
        "logging": "stdout",
    }
    identity, state = create(provider, "Command", inputs)
    assert identity.startswith("there")
    assert state["stdout"] == Secret("in")
    assert str(connection["port"]) in state["stderr"].value
    assert isinstance(state["connection"], Secret)
    assert said == ["in"]


def test_a_failure_shows_the_status_and_what_was_said(provider: Command, connection: Tree) -> None:
    with pytest.raises(Refused, match=r'exited with status 3: running "echo why >&2; exit 3":\nwhy'):
        create(provider, "Command", {"connection": connection, "create": "echo why >&2; exit 3"})


def test_a_variable_that_the_server_takes_arrives(provider: Command, connection: Tree) -> None:
    inputs = {"connection": connection, "create": "echo $GREETING", "environment": {"GREETING": "two\nlines"}}
    assert reveal(create(provider, "Command", inputs)[1])["stdout"] == "two lines"


def test_a_variable_that_the_server_refuses_is_an_error(provider: Command, connection: Tree) -> None:
    with pytest.raises(Refused, match=r'could not set environment variable "OTHER"\. .*AcceptEnv'):
        create(provider, "Command", {"connection": connection, "create": "true", "environment": {"OTHER": "x"}})


def test_the_last_output_is_told_where_the_server_takes_it(
    provider: Command, connection: Tree, said: list[str]
) -> None:
    urn = Urn("urn:pulumi:s::p::command:remote:Command::there")
    state = {"connection": connection, "delete": 'test "$PULUMI_COMMAND_STDOUT" = o', "stdout": "o", "stderr": "e"}
    provider.delete(urn, "x", state, 0)
    assert any("PULUMI_COMMAND_STDERR" in line for line in said)
    assert not any("PULUMI_COMMAND_STDOUT" in line for line in said)


def test_a_wrong_host_key_is_refused(provider: Command, connection: Tree, server: Server) -> None:
    wrong = {**connection, "hostKey": (server.directory / "key.pub").read_text()}
    with pytest.raises(Refused, match="after 1 failed attempts"):
        create(provider, "Command", {"connection": wrong, "create": "true"})


def test_a_host_key_that_is_not_given_is_not_checked(provider: Command, connection: Tree) -> None:
    unchecked = {key: value for key, value in connection.items() if key != "hostKey"}
    assert reveal(create(provider, "Command", {"connection": unchecked, "create": "echo in"})[1])["stdout"] == "in"


def test_a_wrong_key_is_refused_and_not_shown(provider: Command, connection: Tree) -> None:
    with pytest.raises(Refused) as caught:
        create(provider, "Command", {"connection": {**connection, "privateKey": "hush"}, "create": "true"})
    assert "hush" not in str(caught.value)


def test_no_server_is_an_error_after_the_attempts_that_were_asked_for(
    provider: Command, connection: Tree, said: list[str]
) -> None:
    nowhere = {**connection, "port": 1, "dialErrorLimit": 2}
    with pytest.raises(Refused, match="after 2 failed attempts: ssh: "):
        create(provider, "Command", {"connection": nowhere, "create": "true"})
    assert said == ["Dial 1/2 failed: retrying", "Dial 2/2 failed: retrying"]


def test_a_proxy_is_gone_through(provider: Command, connection: Tree) -> None:
    inputs = {"connection": {**connection, "proxy": connection}, "create": "echo through"}
    assert reveal(create(provider, "Command", inputs)[1])["stdout"] == "through"


def test_a_preview_connects_to_nothing(provider: Command, connection: Tree) -> None:
    inputs = {"connection": {**connection, "port": 1}, "create": "true"}
    assert create(provider, "Command", inputs, preview=True)[1]["stdout"] == Secret(UNKNOWN)


def test_a_cancelled_provider_dials_no_more(provider: Command, connection: Tree) -> None:
    provider.cancel()
    with pytest.raises(Refused, match="cancelled"):
        create(provider, "Command", {"connection": {**connection, "port": 1, "dialErrorLimit": -1}, "create": "true"})


def asset(**fields: str) -> Tree:
    return {MARK: "c44067f5952c0a294b673a41bacd8c17", "hash": "h", **fields}


@pytest.mark.parametrize(
    ("source", "target", "then"),
    [
        ("file", "new", {"new": "text"}),
        ("file", "deep/new", {"deep/new": "text"}),
        ("file", "dir", {"dir/file": "text"}),
        ("folder", "dir", {"dir/folder/a": "1", "dir/folder/sub/b": "2"}),
        ("folder/", "dir", {"dir/a": "1", "dir/sub/b": "2"}),
        ("folder", "new", {"new/folder/a": "1", "new/folder/sub/b": "2"}),
    ],
)
def test_what_is_copied_where(
    provider: Command, connection: Tree, tmp_path: Path, source: str, target: str, then: dict[str, str]
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for path, text in {"file": "text", "folder/a": "1", "folder/sub/b": "2"}.items():
        (here / path).parent.mkdir(parents=True, exist_ok=True)
        (here / path).write_text(text)
    (there / "dir").mkdir(parents=True)
    inputs = {"connection": connection, "source": asset(path=f"{here}/{source}"), "remotePath": f"{there}/{target}"}
    create(provider, "CopyToRemote", inputs)
    found = {str(path.relative_to(there)): path.read_text() for path in there.rglob("*") if path.is_file()}
    assert found == then


def test_text_is_copied_to_a_file_only(provider: Command, connection: Tree, tmp_path: Path) -> None:
    inputs = {"connection": connection, "source": asset(text="hello"), "remotePath": f"{tmp_path}/a/b"}
    create(provider, "CopyToRemote", inputs)
    assert (tmp_path / "a/b").read_text() == "hello"
    with pytest.raises(Refused, match="is a directory"):
        create(provider, "CopyToRemote", {**inputs, "remotePath": str(tmp_path)})


def test_what_has_not_changed_is_not_copied_again(provider: Command, connection: Tree, tmp_path: Path) -> None:
    urn = Urn("urn:pulumi:s::p::command:remote:CopyToRemote::there")
    inputs = {"connection": connection, "source": asset(text="hello"), "remotePath": f"{tmp_path}/a"}
    provider.update(urn, "x", inputs, {**inputs, "connection": {**connection, "dialErrorLimit": 2}}, [], 0, False)
    assert not (tmp_path / "a").exists()
    provider.update(urn, "x", inputs, {**inputs, "source": asset(text="other")}, [], 0, False)
    assert (tmp_path / "a").read_text() == "other"


def test_the_older_copy_takes_one_file(provider: Command, connection: Tree, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("text")
    inputs = {"connection": connection, "localPath": f"{tmp_path}/a", "remotePath": f"{tmp_path}/b"}
    create(provider, "CopyFile", inputs)
    assert (tmp_path / "b").read_text() == "text"
    with pytest.raises(Refused, match="No such file"):
        create(provider, "CopyFile", {**inputs, "localPath": f"{tmp_path}/none"})
