"""The command provider: what its inputs may be, what a change does, and local commands run for real."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from tests.lab.providers.command import local, schema
from tests.lab.providers.command.provider import Command
from tests.lab.providers.provider import Change, Naming, Refused, Urn
from tests.lab.providers.wire import MARK, UNKNOWN, Secret, reveal
from tests.lab.waiting import until

Tree = dict[str, Any]

LOCAL = "command:local:Command"
REMOTE = "command:remote:Command"
COPY = "command:remote:CopyToRemote"
FILE = "command:remote:CopyFile"

TEXT = {MARK: "an asset", "text": "t", "hash": "h"}
THERE = {"connection": {"host": "h"}, "source": TEXT, "remotePath": "/x"}


def urn(token: str) -> Urn:
    return Urn(f"urn:pulumi:s::p::{token}::cmd")


@pytest.fixture
def said() -> list[str]:
    """What a provider told the engine."""
    return []


@pytest.fixture
def provider(said: list[str]) -> Command:
    """A command provider whose messages are kept."""
    return Command(lambda severity, message, urn="", passing=False: said.append(message))


@pytest.mark.parametrize(
    ("token", "inputs", "properties"),
    [
        (LOCAL, {}, []),
        (LOCAL, {"create": "true", "environment": {"A": "b"}, "triggers": [1, "a", {}]}, []),
        (LOCAL, {"create": 1}, ["create"]),
        (LOCAL, {"create": True}, ["create"]),
        (LOCAL, {"crate": "x"}, ["crate"]),
        (LOCAL, {"create": UNKNOWN, "stdin": Secret("x")}, []),
        (LOCAL, {"logging": "all"}, ["logging"]),
        (LOCAL, {"assetPaths": ["*"]}, ["assetPaths"]),
        (LOCAL, {"archivePaths": ["*"]}, ["archivePaths"]),
        (REMOTE, {"create": "x"}, ["connection"]),
        (REMOTE, {"connection": {}}, ["connection.host"]),
        (REMOTE, {"connection": Secret({"host": "h", "port": "22"})}, ["connection.port"]),
        (REMOTE, {"connection": {"host": "h", "proxy": {"user": "u"}}}, ["connection.proxy.host"]),
        (REMOTE, {"connection": {"host": "h", "key": "k"}}, ["connection.key"]),
        (REMOTE, {"connection": UNKNOWN}, []),
        (COPY, THERE, []),
        (COPY, {**THERE, "source": {"path": "x"}}, ["source"]),
        (FILE, {"connection": {"host": "h"}, "localPath": "a"}, ["remotePath"]),
    ],
)
def test_faults_name_their_property(provider: Command, token: str, inputs: Tree, properties: list[str]) -> None:
    _, failures = provider.check(urn(token), {}, inputs, Naming())
    assert [failure.property for failure in failures] == properties
    assert all(failure.property in failure.reason for failure in failures)


def test_what_has_no_assets_says_that_it_stands_in(provider: Command) -> None:
    _, (failure,) = provider.check(urn(LOCAL), {}, {"assetPaths": ["*"]}, Naming())
    assert "pulumi-resource-command is stood in for" in failure.reason


def test_a_connection_gets_its_defaults_and_is_secret(provider: Command) -> None:
    given = {"host": "h", "password": "hush", "proxy": {"host": "p", "privateKey": "hush too"}}
    inputs, _ = provider.check(urn(REMOTE), {}, {"connection": given}, Naming())
    assert isinstance(inputs["connection"], Secret)
    assert "hush" not in repr(inputs)
    defaults = {"user": "root", "port": 22, "dialErrorLimit": 10, "perDialTimeout": 15}
    proxy = {**defaults, "host": "p", "privateKey": "hush too"}
    assert reveal(inputs["connection"]) == {**defaults, "host": "h", "password": "hush", "proxy": proxy}


@pytest.mark.parametrize(
    ("token", "old", "new", "expected"),
    [
        (LOCAL, {"create": "a", "stdout": "x"}, {"create": "a"}, {}),
        (LOCAL, {"create": "a"}, {"create": "b"}, {"create": (Change.UPDATE, False)}),
        (LOCAL, {"create": "a"}, {"create": Secret("a")}, {}),
        (LOCAL, {"create": "a"}, {"create": UNKNOWN}, {"create": (Change.UPDATE, False)}),
        (LOCAL, {"create": "a"}, {"create": "a", "dir": "/"}, {"dir": (Change.ADD, False)}),
        (LOCAL, {"dir": "/"}, {}, {"dir": (Change.DELETE, False)}),
        (LOCAL, {"triggers": [1]}, {"triggers": [2]}, {"triggers": (Change.UPDATE, True)}),
        (LOCAL, {}, {"triggers": [2]}, {"triggers": (Change.ADD, True)}),
        (REMOTE, {"triggers": [1]}, {"triggers": []}, {"triggers": (Change.UPDATE, True)}),
        (COPY, {"remotePath": "/a"}, {"remotePath": "/b"}, {"remotePath": (Change.UPDATE, False)}),
        (COPY, {"triggers": [1]}, {"triggers": [2]}, {"triggers": (Change.UPDATE, True)}),
        (FILE, {"remotePath": "/a"}, {"remotePath": "/b"}, {"remotePath": (Change.UPDATE, True)}),
    ],
)
def test_what_a_change_does(provider: Command, token: str, old: Tree, new: Tree, expected: Tree) -> None:
    found = provider.diff(urn(token), old, new, [])
    assert {path: (each.change, each.replaces) for path, each in found.properties.items()} == expected


def test_what_is_ignored_is_no_change(provider: Command) -> None:
    assert provider.diff(urn(LOCAL), {"create": "a"}, {"create": "b"}, ["create"]).properties == {}


def test_an_unknown_type_names_the_known_ones(provider: Command) -> None:
    with pytest.raises(Refused, match=LOCAL):
        provider.check(urn("command:local:Nothing"), {}, {}, Naming())
    with pytest.raises(Refused, match="command:local:run"):
        provider.invoke("command:local:walk", {})


def test_a_command_is_run_with_what_it_is_given(provider: Command, tmp_path: Path, said: list[str]) -> None:
    inputs = {
        "create": 'cat; echo "$A" >&2; pwd',
        "stdin": "in\n",
        "environment": {"A": "b"},
        "dir": str(tmp_path),
        "logging": "stderr",
    }
    identity, state = provider.create(urn(LOCAL), inputs, 0, preview=False)
    assert identity.startswith("cmd")
    assert state == {**inputs, "stdout": f"in\n{tmp_path}", "stderr": "b"}
    assert said == ["b"]


@pytest.mark.parametrize(
    ("logging", "heard"),
    [
        (None, {"out", "err"}),
        ("stdoutAndStderr", {"out", "err"}),
        ("stdout", {"out"}),
        ("stderr", {"err"}),
        ("none", set()),
    ],
)
def test_what_is_shown_while_it_runs(provider: Command, said: list[str], logging: str | None, heard: set[str]) -> None:
    provider.create(urn(LOCAL), {"create": "echo out; echo err >&2", "logging": logging}, 0, preview=False)
    assert set(said) == heard


def test_an_interpreter_takes_the_command_as_its_last_argument(provider: Command) -> None:
    inputs = {"create": "print(6 * 7)", "interpreter": ["python3", "-c"]}
    assert provider.create(urn(LOCAL), inputs, 0, preview=False)[1]["stdout"] == "42"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"create": "echo out; echo err >&2; exit 3"}, r'exit status 3: running ".*":\n(out\nerr|err\nout)\n'),
        ({"create": "kill -9 $$"}, "signal: killed"),
        ({"create": "x", "interpreter": ["/no/such/shell"]}, "No such file"),
        ({"create": "x", "dir": "/no/such/place"}, "No such file"),
    ],
)
def test_a_failure_shows_how_and_what_was_said(provider: Command, inputs: Tree, message: str) -> None:
    with pytest.raises(Refused, match=message):
        provider.create(urn(LOCAL), inputs, 0, preview=False)


def test_a_preview_runs_nothing_and_knows_nothing(provider: Command, tmp_path: Path) -> None:
    inputs = {"create": f"touch {tmp_path}/made", "update": f"touch {tmp_path}/made"}
    assert provider.create(urn(LOCAL), inputs, 0, preview=True)[1] == {**inputs, "stdout": UNKNOWN, "stderr": UNKNOWN}
    found = provider.update(urn(LOCAL), "x", {"stdout": "s"}, inputs, [], 0, preview=True)
    assert found == {**inputs, "stdout": UNKNOWN, "stderr": UNKNOWN}
    assert list(tmp_path.iterdir()) == []


def test_outputs_are_secret_as_soon_as_an_input_is(provider: Command) -> None:
    inputs = {"create": "echo $A", "environment": {"A": Secret("hush")}}
    state = provider.create(urn(LOCAL), inputs, 0, preview=False)[1]
    assert state["stdout"] == Secret("hush")
    preview = provider.create(urn(LOCAL), inputs, 0, preview=True)[1]
    assert preview["stdout"] == Secret(UNKNOWN)


def test_without_a_command_nothing_is_run(provider: Command) -> None:
    assert provider.create(urn(LOCAL), {}, 0, preview=False)[1] == {"stdout": "", "stderr": ""}


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({"create": "echo create $PULUMI_COMMAND_STDOUT $PULUMI_COMMAND_STDERR"}, "create o e"),
        ({"create": "echo create", "update": "echo update $PULUMI_COMMAND_STDOUT"}, "update o"),
        ({"create": "echo create $PULUMI_COMMAND_STDOUT", "addPreviousOutputInEnv": False}, "create"),
    ],
)
def test_an_update_knows_what_the_run_before_said(provider: Command, inputs: Tree, expected: str) -> None:
    old = {"create": "x", "stdout": "o", "stderr": "e"}
    assert provider.update(urn(LOCAL), "x", old, inputs, [], 0, preview=False)["stdout"] == expected


def test_an_update_without_a_command_keeps_the_outputs(provider: Command) -> None:
    found = provider.update(urn(LOCAL), "x", {"stdout": "o", "stderr": "e"}, {}, [], 0, preview=False)
    assert found == {"stdout": "o", "stderr": "e"}


def test_a_delete_runs_its_command_with_the_last_output(provider: Command, tmp_path: Path) -> None:
    state = {"delete": 'echo "$PULUMI_COMMAND_STDOUT" > gone', "dir": str(tmp_path), "stdout": Secret("o")}
    provider.delete(urn(LOCAL), "x", state, 0)
    assert (tmp_path / "gone").read_text() == "o\n"
    provider.delete(urn(LOCAL), "x", {"create": "exit 1"}, 0)


def test_a_function_runs_at_once(provider: Command) -> None:
    result, failures = provider.invoke("command:local:run", {"command": "echo hi"})
    assert (result["stdout"], failures) == ("hi", [])
    assert [each.property for each in provider.invoke("command:local:run", {})[1]] == ["command"]
    assert provider.invoke("command:local:run", {"command": UNKNOWN})[0]["stdout"] is UNKNOWN


def test_a_read_changes_nothing(provider: Command) -> None:
    assert provider.read(urn(LOCAL), "x", {"create": "a"}, {"stdout": "o"}) == ({"create": "a"}, {"stdout": "o"})


def test_a_command_that_does_not_read_its_input_is_no_failure() -> None:
    inputs = {"stdin": "x" * 1_000_000}
    assert local.run("true", inputs, {}, lambda line: None, Event()) == {"stdout": "", "stderr": ""}


def test_cancelling_ends_the_command_and_what_it_started(tmp_path: Path) -> None:
    cancelled = Event()
    errors: list[Refused] = []

    def work() -> None:
        try:
            local.run(f"sleep 600 & echo $! > {tmp_path}/pid; wait", {}, {}, lambda line: None, cancelled)
        except Refused as refused:
            errors.append(refused)

    thread = Thread(target=work)
    thread.start()
    file = tmp_path / "pid"
    pid = int(until("the command's child", lambda: file.exists() and file.read_text().strip(), 10))
    cancelled.set()
    thread.join(10)
    assert not thread.is_alive()
    assert "cancelled" in str(errors[0])
    until("the child's end", lambda: not _alive(pid), 10)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_every_required_input_is_an_input() -> None:
    for shape in (*schema.RESOURCES.values(), *schema.FUNCTIONS.values()):
        assert shape.required | shape.replacing | shape.secret <= set(shape.inputs)
