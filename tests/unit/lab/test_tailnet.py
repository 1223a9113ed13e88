"""What headscale is told, without headscale."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from tests.lab.bundle import Bundle
from tests.lab.bundle.pins import LAB, pin
from tests.lab.bundle.tailnet_recipe import recipes
from tests.lab.lab import Lab
from tests.lab.machine import Machine, MachineError, Result
from tests.lab.network import Network
from tests.lab.tailnet import Tailnet, TailnetError, accept, settings

# Stands for headscale's command line: says what it was asked with, or answers from a file beside it.
PROGRAM = """#!/bin/sh
here=$(dirname "$0")
shift
echo "$*" >>"$here/asked"
case "$*" in
*refused*) echo "no such thing" >&2; exit 1 ;;
*"users list"*) cat "$here/users.json" ;;
*"users create"*) echo '{"id": 7, "name": "new"}' ;;
*"nodes list"*) cat "$here/nodes.json" ;;
*"preauthkeys create"*) echo '{"key": "secret"}' ;;
*) echo "done" ;;
esac
"""


@pytest.fixture
def tailnet(tmp_path: Path) -> Tailnet:
    (tmp_path / "headscale").write_text(PROGRAM)
    (tmp_path / "headscale").chmod(0o755)
    (tmp_path / "users.json").write_text("null")
    (tmp_path / "nodes.json").write_text("null")
    (tmp_path / "lab").mkdir()
    bundle = SimpleNamespace(path=lambda name: tmp_path / Path(name).name)
    lab = SimpleNamespace(directory=tmp_path / "lab")
    network = Network("lan", "lan", "lo", "127.0.0.0/24", "127.0.0.1")
    return Tailnet(cast(Lab, lab), cast(Bundle, bundle), network)


def asked(tailnet: Tailnet) -> list[str]:
    return (tailnet.program.parent / "asked").read_text().splitlines()


def nodes(tailnet: Tailnet, *found: dict[str, Any]) -> None:
    (tailnet.program.parent / "nodes.json").write_text(json.dumps(found))


class Recorded:
    """A machine that writes down what it is told to do; `tailscale up` fails where `fails`."""

    name = "m1"

    def __init__(self, fails: bool = False) -> None:
        self.files: dict[str, tuple[bytes, int]] = {}
        self.commands: list[tuple[str, ...]] = []
        self.fails = fails

    def put(self, content: bytes, remote: str, mode: int) -> None:
        self.files[remote] = content, mode

    def run(self, *argv: str, **_: object) -> Result:
        self.commands.append(argv)
        if self.fails and argv[:2] == ("tailscale", "up"):
            raise MachineError("backend error: authkey expired")
        return Result(0, "100.64.0.1\n", "")


def test_the_server_listens_at_one_address_only_and_asks_nobody(tailnet: Tailnet) -> None:
    written = yaml.safe_load(tailnet.config.read_text())
    assert tailnet.login_server == written["server_url"] == f"http://{written['listen_addr']}"
    listening = [written["listen_addr"], written["derp"]["server"]["stun_listen_addr"]]
    assert {address.rpartition(":")[0] for address in listening} == {"127.0.0.1"}
    assert (written["metrics_listen_addr"], written["grpc_listen_addr"]) == ("127.0.0.1:0", "127.0.0.1:0")
    assert written["derp"]["urls"] == []
    assert written["disable_check_updates"] is True
    assert tailnet.directory.stat().st_mode & 0o077 == 0


def test_two_of_one_lab_do_not_share_anything(tailnet: Tailnet) -> None:
    network = Network("lan", "lan", "lo", "127.0.0.0/24", "127.0.0.1")
    other = Tailnet(tailnet.lab, tailnet.bundle, network)
    assert other.directory != tailnet.directory
    assert other.login_server != tailnet.login_server


def test_all_its_files_are_in_its_directory(tmp_path: Path) -> None:
    written = settings(tmp_path, "127.0.0.1", 1, 2)
    paths = [written["noise"]["private_key_path"], written["derp"]["server"]["private_key_path"]]
    paths += [written["database"]["sqlite"]["path"], written["unix_socket"]]
    assert {Path(path).parent for path in paths} == {tmp_path}


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({}, ["--expiration=1h"]),
        ({"reusable": True}, ["--expiration=1h", "--reusable"]),
        ({"ephemeral": True, "expires": "5m"}, ["--expiration=5m", "--ephemeral"]),
        ({"tags": ("tag:a", "tag:b")}, ["--expiration=1h", "--tags=tag:a,tag:b"]),
    ],
)
def test_a_key_is_asked_for_as_wanted(tailnet: Tailnet, options: dict[str, Any], flags: list[str]) -> None:
    assert tailnet.auth_key(**options) == "secret"
    assert asked(tailnet)[-1].split() == ["--output=json", "preauthkeys", "create", "--user=7", *flags]


def test_a_user_that_is_known_is_not_created_again(tailnet: Tailnet) -> None:
    (tailnet.program.parent / "users.json").write_text('[{"id": 3, "name": "lab"}]')
    tailnet.auth_key()
    tailnet.auth_key()
    assert [line for line in asked(tailnet) if "users" in line] == ["--output=json users list"]
    assert asked(tailnet)[-1].split()[3] == "--user=3"


def test_nodes_are_told_by_their_number(tailnet: Tailnet) -> None:
    nodes(
        tailnet, {"id": 4, "given_name": "m1", "available_routes": ["10.0.0.0/8"], "approved_routes": ["10.1.0.0/16"]}
    )
    assert tailnet.routes("m1") == ["10.1.0.0/16"]
    tailnet.delete("m1")
    tailnet.expire("m1")
    tailnet.approve_routes("m1", ["10.0.0.0/8"])
    told = [line for line in asked(tailnet) if "--identifier=4" in line]
    assert told == [
        "nodes delete --identifier=4 --force",
        "nodes expire --identifier=4",
        "nodes approve-routes --identifier=4 --routes=10.0.0.0/8",
    ]


def test_an_unknown_node_is_named_with_those_there_are(tailnet: Tailnet) -> None:
    with pytest.raises(TailnetError, match="no node m1; it has none"):
        tailnet.delete("m1")
    nodes(tailnet, {"id": 4, "given_name": "m2"}, {"id": 5, "given_name": "m3"})
    with pytest.raises(TailnetError, match="no node m1; it has m2, m3"):
        tailnet.routes("m1")


def test_a_refusal_says_what_was_asked_and_answered(tailnet: Tailnet) -> None:
    with pytest.raises(TailnetError, match="headscale nodes refused: no such thing"):
        tailnet.tell("nodes", "refused")


def test_the_policy_is_handed_over_as_a_file(tailnet: Tailnet) -> None:
    tailnet.policy({"acls": [accept("tag:a", "tag:b:22")]})
    (line,) = asked(tailnet)
    file = Path(line.partition("--file=")[2])
    assert json.loads(file.read_text()) == {"acls": [{"action": "accept", "src": ["tag:a"], "dst": ["tag:b:22"]}]}


@pytest.mark.parametrize("fails", [False, True])
def test_a_key_is_on_no_command_line_and_gone_however_joining_ends(tailnet: Tailnet, fails: bool) -> None:
    machine = Recorded(fails)
    joining = cast(Machine, machine)
    if fails:
        with pytest.raises(MachineError):
            tailnet.join(joining, key="secret")
    else:
        assert tailnet.join(joining, key="secret", advertise_tags="tag:x", ssh=True) == "100.64.0.1"
    ((file, (content, mode)),) = machine.files.items()
    assert (content, mode) == (b"secret", 0o600)
    up, remove = machine.commands[:2]
    assert f"--auth-key=file:{file}" in up
    assert not any("secret" in word for command in machine.commands for word in command)
    assert remove == ("rm", "-f", file)
    if not fails:
        assert {"--advertise-tags=tag:x", "--ssh=true", "--accept-dns=false", "--hostname=m1"} <= set(up)


def test_the_pins_are_those_of_the_go_modules() -> None:
    for recipe in recipes():
        (module,) = recipe.inputs
        assert f"require {pin(recipe.name)['module']} {recipe.version}" in (module / "go.mod").read_text()
        assert (module / "go.sum").is_file()
        assert module.parent == LAB / "go"
