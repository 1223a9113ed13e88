"""Layers, their sources, and what a wrong file says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qwex.config import SETTINGS, Paths, check_host, load, parse_gpus
from qwex.errors import ConfigError
from qwex.model.places import Place


def user_file(home: Path, text: str) -> Path:
    file = home / ".config/qwex/config.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def environment(home: Path, **more: str) -> dict[str, str]:
    return {"HOME": str(home), **more}


def test_every_setting_has_a_default_without_any_file(tmp_path: Path, home: Path) -> None:
    settings = load(tmp_path, environment(home))
    assert {setting.name: settings.get(setting.name) for setting in SETTINGS} == {
        one.name: one.default for one in SETTINGS
    }
    assert {settings.source(setting.name) for setting in SETTINGS} == {"default"}
    assert settings.root == tmp_path
    assert settings.files == ()


def test_each_layer_overrides_the_one_before_and_says_so(tmp_path: Path, home: Path) -> None:
    user = user_file(home, '[run]\ncpus = 2\nmem = "1G"\ntime = 60\nretries = 1\n')
    project = tmp_path / "qwex.toml"
    project.write_text('[run]\nmem = "2G"\ntime = "1h"\nretries = 2\n')
    settings = load(tmp_path, environment(home, QWEX_RUN_TIME="90", QWEX_RUN_RETRIES="3")).overridden(
        {"run.retries": "4"}
    )
    got = {
        name: (settings.get(name), settings.source(name))
        for name in ("run.cpus", "run.mem", "run.time", "run.retries", "run.gpus")
    }
    assert got == {
        "run.cpus": (2.0, str(user)),
        "run.mem": (2 << 30, str(project)),
        "run.time": (90.0, "environment QWEX_RUN_TIME"),
        "run.retries": (4, "command line"),
        "run.gpus": ((0, ""), "default"),
    }


def test_place_has_a_short_variable_and_an_empty_one_says_nothing(tmp_path: Path, home: Path) -> None:
    assert load(tmp_path, environment(home, QWEX_ON="gpu1")).get("run.on") == "gpu1"
    assert load(tmp_path, environment(home, QWEX_ON="")).get("run.on") == "local"


def test_root_is_the_nearest_directory_above_with_a_project_file(tmp_path: Path, home: Path) -> None:
    below = tmp_path / "src/deep"
    below.mkdir(parents=True)
    (tmp_path / "qwex.toml").write_text("")
    assert load(below, environment(home)).root == tmp_path
    (tmp_path / "src/qwex.toml").write_text("")
    assert load(below, environment(home)).root == tmp_path / "src"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="files of others are made by root only")
def test_project_file_above_that_belongs_to_a_stranger_is_passed_over(tmp_path: Path, home: Path) -> None:
    below = tmp_path / "mine"
    below.mkdir()
    (tmp_path / "qwex.toml").write_text("[run]\ncpus = 9\n")
    os.chown(tmp_path / "qwex.toml", 4321, -1)
    assert load(below, environment(home)).root == below
    os.chown(below, 4321, -1)
    assert load(below, environment(home)).root == tmp_path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[run]\ncpu = 2\n", ["qwex.toml", "run.cpu", "did you mean 'run.cpus'?"]),
        ("[runs]\ncpus = 2\n", ["qwex.toml", "'runs'", "did you mean 'run'?"]),
        ("run = 3\n", ["run cannot be 3", "[run]"]),
        ("[run]\ncpus = 0\n", ["run.cpus cannot be 0", "above 0"]),
        ("[run]\ncpus = true\n", ["run.cpus", "number"]),
        ("[run]\ncpus = nan\n", ["run.cpus", "number"]),
        ('[run]\nmem = "lots"\n', ["run.mem cannot be 'lots'", "512M"]),
        ("[run]\nmem = 1.5\n", ["run.mem", "size"]),
        ("[run]\ntime = true\n", ["run.time", "duration"]),
        ('[run]\ngpus = "a100:x"\n', ["run.gpus", "a100:2"]),
        ("[run]\nretries = -1\n", ["run.retries", "0 or more"]),
        ("[run]\nenv = 3\n", ["run.env", "table"]),
        ('[run.env]\n"A-B" = "1"\n', ["run.env", "table"]),
        ('[run]\nsecrets = ["A=1"]\n', ["run.secrets", "names"]),
        ('[run]\nshell = "maybe"\n', ["run.shell", "true or false"]),
        ("[run]\nout = [1]\n", ["run.out", "list"]),
        ('[run]\non_interrupt = "stop"\n', ["run.on_interrupt", '"detach" or "cancel"']),
        ('[results]\ndirectory = "../x"\n', ["results.directory", "project"]),
        ("[hosts]\ngpu1 = 3\n", ["hosts.gpu1", "[hosts.gpu1]"]),
        ("[hosts.gpu1]\nslot = 3\n", ["hosts.gpu1.slot", "did you mean 'hosts.gpu1.slots'?"]),
        ("[hosts.gpu1]\nport = 70000\n", ["hosts.gpu1.port", "65535"]),
        ('[hosts.gpu1]\nhost = "-oProxyCommand=x"\n', ["hosts.gpu1.host", "dash"]),
        ('[hosts.gpu1]\ndirectory = "/"\n', ["hosts.gpu1.directory", "relative"]),
        ('[hosts.gpu1]\ndirectory = "a/../.."\n', ["hosts.gpu1.directory", "relative"]),
        ("[hosts.local]\n", ["hosts.local", "'local'"]),
        ('[hosts."a b"]\n', ["hosts.a b", "letters"]),
        ("[run\n", ["is not TOML"]),
    ],
)
def test_wrong_files_are_named_with_key_and_remedy(tmp_path: Path, home: Path, text: str, words: list[str]) -> None:
    (tmp_path / "qwex.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, environment(home))
    said = f"{caught.value.message} {caught.value.hint}"
    assert all(word in said for word in words), said
    assert str(tmp_path) in said


def test_wrong_variable_is_named(tmp_path: Path, home: Path) -> None:
    with pytest.raises(ConfigError, match=r"environment QWEX_RUN_MEM: run\.mem cannot be 'x'"):
        load(tmp_path, environment(home, QWEX_RUN_MEM="x"))


def test_file_that_is_no_text_is_an_error(tmp_path: Path, home: Path) -> None:
    (tmp_path / "qwex.toml").write_bytes(b"# \xff\n")
    with pytest.raises(ConfigError, match="not UTF-8: byte 2"):
        load(tmp_path, environment(home))


def test_directory_in_the_place_of_a_file_is_an_error(tmp_path: Path, home: Path) -> None:
    (tmp_path / "qwex.toml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path, environment(home))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, (0, "")),
        (2, (2, "")),
        ("3", (3, "")),
        ("a100", (1, "a100")),
        ("a100:2", (2, "a100")),
        ("RTX 4090:1", (1, "RTX 4090")),
    ],
)
def test_gpus(value: object, expected: tuple[int, str]) -> None:
    assert parse_gpus(value) == expected


@pytest.mark.parametrize("value", [-1, True, "", ":", ":2", "a100:", "a/b", "99999", 1.5])
def test_gpus_that_are_none(value: object) -> None:
    with pytest.raises(ValueError, match="a100:2"):
        parse_gpus(value)


def test_hosts_become_places(tmp_path: Path, home: Path) -> None:
    user = user_file(
        home, '[hosts.gpu1]\n[hosts.box]\nhost = "10.0.0.7"\nuser = "ada"\nport = 2222\nslots = 2\nenv = { A = 1 }\n'
    )
    settings = load(tmp_path, environment(home))
    assert settings.hosts == {
        "gpu1": Place("gpu1", "ssh", "gpu1"),
        "box": Place("box", "ssh", "10.0.0.7", "ada", 2222, 2, env=(("A", "1"),)),
    }
    assert settings.source("hosts.box") == str(user)


def test_host_directory_loses_its_slash() -> None:
    assert check_host("a", {"directory": "scratch/qwex/"}, "file").directory == "scratch/qwex"
    assert check_host("a", {"directory": "/scratch/me/qwex/"}, "file").directory == "/scratch/me/qwex"


def test_paths_follow_xdg_and_pass_over_relative_ones(tmp_path: Path) -> None:
    paths = Paths.from_environment({"HOME": "/h", "XDG_STATE_HOME": str(tmp_path), "XDG_CACHE_HOME": "relative"})
    assert (paths.state, paths.config, paths.cache) == (
        tmp_path / "qwex",
        Path("/h/.config/qwex"),
        Path("/h/.cache/qwex"),
    )


def test_toml_reader_is_imported_only_for_a_file(tmp_path: Path, home: Path) -> None:
    import subprocess
    import sys

    code = "import sys; from pathlib import Path; from qwex.config import load; load(Path('.')); print('tomllib' in sys.modules)"
    for expected in ("False", "True"):
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected
        (tmp_path / "qwex.toml").write_text("")
