"""Named hosts, and the file they are in."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.services.fake import Cluster, Recorder, gone

from qwex.backends.ssh.upkeep import HostFacts
from qwex.errors import ConfigError, UnknownName, Unreachable, UsageError
from qwex.model.jobs import JobSpec
from qwex.model.places import Capabilities
from qwex.services import hosts
from qwex.services.context import Context

OTHERS = (
    '# mine\n[run]\ncpus = 2 # two\n\n# the big one\n[hosts.big]\nhost = "big.example.org"\nport = 22\n\n# last words\n'
)


def test_a_host_is_appended() -> None:
    text = hosts.with_host(
        OTHERS, "gpu.1", {"host": "10.0.0.7", "port": 2222, "login_shell": True, "env": {"A": 'q"\\'}}
    )
    assert text.startswith(OTHERS)
    assert tomllib.loads(text)["hosts"]["gpu.1"] == {
        "host": "10.0.0.7",
        "port": 2222,
        "login_shell": True,
        "env": {"A": 'q"\\'},
    }


@pytest.mark.parametrize("text", ["", "x = 1", "x = 1\n"])
def test_a_host_is_appended_to_anything(text: str) -> None:
    assert tomllib.loads(hosts.with_host(text, "a", {"host": "b"}))["hosts"] == {"a": {"host": "b"}}


def test_what_is_appended_is_taken_out_again() -> None:
    with_two = hosts.with_host(hosts.with_host(OTHERS, "a", {"host": "x"}), "b", {"host": "y", "env": {"K": "v"}})
    assert hosts.without_host(hosts.without_host(with_two, "b"), "a").rstrip() == OTHERS.rstrip()


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("[hosts.a]\nport = 1\n# of b\n[hosts.b]\nport = 2\n", "# of b\n[hosts.b]\nport = 2\n"),
        ('[ hosts . "a" ] # x\nport = 1\n[hosts.a.env]\nA = "1"\n[run]\ncpus = 1\n', "[run]\ncpus = 1\n"),
        ("[hosts.ab]\n[hosts.a]\n", "[hosts.ab]\n"),
        ("[hosts]\n[hosts.a]\n", "[hosts]\n"),
    ],
)
def test_taking_out(text: str, left: str) -> None:
    assert hosts.without_host(text, "a") == left


@pytest.mark.parametrize(
    "text",
    [
        "hosts.a.port = 1\n",
        "[hosts]\na = { port = 1 }\n",
        '[hosts.a]\nenv = { A = """\n[run]\n""" }\n',
    ],
)
def test_what_cannot_be_cut_safely_is_left_alone(text: str) -> None:
    with pytest.raises(ConfigError, match="cannot edit safely"):
        hosts.without_host(text, "a")


async def test_add_asks_the_host_first_and_keeps_the_file(ctx: Context, cluster: Cluster, home: Path) -> None:
    cluster.can = Capabilities(cpus=8)
    file = home / ".config/qwex/config.toml"
    file.chmod(0o640)
    before = file.read_text()
    result = await hosts.add(ctx, "box", "ada@10.0.0.8:2222", {"slots": 2})
    assert (result.capabilities, result.problem) == (cluster.can, "")
    assert cluster.calls == ["open", "capabilities"]
    assert file.read_text().startswith(before)
    assert file.stat().st_mode & 0o777 == 0o640
    place = ctx.settings.hosts["box"]
    assert (place.host, place.user, place.port, place.slots) == ("10.0.0.8", "ada", 2222, 2)
    assert [name for name, _ in hosts.list_hosts(ctx)] == [ctx.settings.hosts["gpu1"], place]


async def test_add_follows_a_link_and_makes_a_private_file(ctx: Context, home: Path) -> None:
    file = home / ".config/qwex/config.toml"
    file.unlink()
    file.symlink_to(home / "dotfiles.toml")
    await hosts.add(ctx, "box", "10.0.0.8", probe=False)
    assert file.is_symlink()
    assert (home / "dotfiles.toml").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in home.iterdir() if path.name.startswith(".dotfiles")] == []


async def test_add_does_not_record_what_does_not_answer(ctx: Context, cluster: Cluster) -> None:
    cluster.faults["open"] = [gone("no SSH server answers")]
    with pytest.raises(Unreachable, match="no SSH server answers"):
        await hosts.add(ctx, "box", "10.0.0.8")
    assert "box" not in ctx.settings.hosts


@pytest.mark.parametrize(
    ("name", "target", "words"),
    [
        ("gpu1", "x", "called 'gpu1' already"),
        ("local", "x", "local"),
        ("a b", "x", "letters"),
        ("a", "u@", "not a machine"),
    ],
)
async def test_add_refuses(ctx: Context, name: str, target: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        await hosts.add(ctx, name, target)


async def test_check_says_what_is_wrong(ctx: Context, cluster: Cluster) -> None:
    (good,) = await hosts.check(ctx)
    assert (good.place.name, good.problem) == ("gpu1", "")
    await ctx.drop(good.place, await ctx.backend(good.place))
    cluster.faults["open"] = [Unreachable("no answer", hint="switch it on")]
    (bad,) = await hosts.check(ctx, ["gpu1"])
    assert (bad.problem, bad.remedy) == ("no answer", "switch it on")


async def test_remove_purges_first(ctx: Context, cluster: Cluster) -> None:
    await hosts.remove(ctx, "gpu1", purge=True)
    assert cluster.purged == ["gpu1"]
    assert ctx.settings.hosts == {}
    with pytest.raises(UnknownName):
        await hosts.remove(ctx, "gpu1")


async def test_remove_asks_while_runs_go_on(ctx: Context, said: Recorder) -> None:
    ctx.store.add([(JobSpec(("a",)), "gpu1", "u")], 0)
    with pytest.raises(UsageError, match="1 runs go on at gpu1"):
        await hosts.remove(ctx, "gpu1")
    said.answers = [True]
    await hosts.remove(ctx, "gpu1")
    assert ctx.settings.hosts == {}


async def test_remove_leaves_the_projects_file_alone(ctx: Context, project: Path) -> None:
    (project / "qwex.toml").write_text("[hosts.lab]\n")
    from qwex.config import load

    ctx.settings = load(project, ctx.env)
    with pytest.raises(ConfigError, match=r"qwex\.toml"):
        await hosts.remove(ctx, "lab")


def test_what_will_be_trouble_is_said() -> None:
    good = HostFacts(
        address="a:22",
        os="Linux",
        machine="x86_64",
        hostname="a",
        shell="sh",
        directory="/home/a/.qwex",
        tools=(),
        slots=4,
        free_slots=4,
        gpus=(),
        free_disk=5 << 30,
        writable=True,
        skew=0.2,
        host_key=("ssh-ed25519", "SHA256:x"),
        queue={},
    )
    assert hosts.concerns(good) == ()
    assert hosts.concerns(replace(good, writable=False, free_disk=1 << 20, skew=-90)) == (
        "/home/a/.qwex there cannot be written",
        "its disk has 1 MiB left",
        "its clock is 1m30s behind",
    )
