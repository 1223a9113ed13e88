"""What a machine is given, how its line delays and loses, who owns a lab, how much of a log is kept, the command's usage."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from tests.lab import __main__ as command
from tests.lab import records
from tests.lab.logs import tail
from tests.lab.machine import flags
from tests.lab.relay import Direction


def test_a_machine_gets_what_the_engine_can_give_and_not_the_hosts_clock() -> None:
    given = flags(["SYS_RESOURCE", "SYS_TIME"], None)
    assert "--privileged" not in given
    assert {"--cap-add=ALL", "--cap-drop=SYS_RESOURCE", "--cap-drop=SYS_TIME", "--cgroupns=private"} <= set(given)
    assert [one for one in given if one.startswith("--volume")] == [
        f"--volume=/var/lib/{name}" for name in ("containerd", "kubelet", "etcd", "rancher")
    ]


def test_a_disk_takes_the_place_of_volumes() -> None:
    assert [one for one in flags([], Path("/d")) if one.startswith("--volume")] == ["--volume=/d:/.disk"]


def test_a_line_delays_in_order() -> None:
    line = Direction(delay=2.0, loss=0.0)
    assert line.wait(0) is None
    line.put(10.0, b"a")
    line.put(11.0, b"b")
    assert (line.due(11.9), line.wait(11.5)) == ([], 0.5)
    assert line.due(12.0) == [b"a"]
    assert line.due(99.0) == [b"b"]


def test_a_line_loses_at_its_rate() -> None:
    chances = iter([0.29, 0.30, 0.0, 0.99])
    line = Direction(delay=0.0, loss=0.3, chance=lambda: next(chances))
    for frame in (b"a", b"b", b"c", b"d"):
        line.put(0.0, frame)
    assert line.due(0.0) == [b"b", b"d"]


def test_a_line_without_loss_loses_nothing() -> None:
    line = Direction(delay=0.0, loss=0.0, chance=lambda: 0.0)
    line.put(0.0, b"a")
    assert line.due(0.0) == [b"a"]


def test_an_owner_is_one_process_and_no_later_one() -> None:
    mine = records.me()
    boot, pid, start = mine.split(":")
    assert records.alive(mine)
    assert not records.alive(f"{boot}:{pid}:{int(start) + 1}")
    assert not records.alive(f"another-boot:{pid}:{start}")
    assert records.alive(records.keep())
    assert not records.alive("another-boot:keep:")
    assert not any(records.alive(garbage) for garbage in ("", "x", f"{boot}:", f"{boot}:x:y"))


def test_a_dead_process_owns_nothing() -> None:
    child = subprocess.Popen(["sleep", "60"])
    owner = records.process(child.pid)
    assert records.alive(owner)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not records.alive(owner)  # ended, though its parent has not asked yet
    child.wait()
    assert not records.alive(owner)


def test_records_are_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "ROOT", tmp_path)
    assert records.Record.ids() == []
    record = records.Record("abcdef")
    assert record.read() == {}
    record.create("owner", "label")
    record.update(processes=["x"])
    assert record.read() == {"owner": "owner", "label": "label", "processes": ["x"]}
    assert records.Record.ids() == ["abcdef"]
    with pytest.raises(FileExistsError):
        record.create("owner", "label")


def test_the_end_of_a_long_log_is_kept() -> None:
    assert tail(b"one\ntwo\n", 8) == b"one\ntwo\n"
    assert tail(b"one\ntwo\nthree\n", 8) == b"[8 bytes left out]\nthree\n"


@pytest.mark.parametrize("argv", [[], ["fly"], ["up", "--servers"], ["status", "--yaml"], ["shell"]])
def test_wrong_usage_is_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(argv)
    assert ended.value.code == 2
    assert "usage: python -m tests.lab" in capsys.readouterr().err


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("docker", "build", "up", "down", "shell", "status"):
        with pytest.raises(SystemExit) as ended:
            command.main([name, "--help"])
        assert ended.value.code == 0
        assert len(capsys.readouterr().out.splitlines()) > 3


def test_what_cannot_run_is_1_and_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "unavailable", lambda: "the lab needs root")
    assert command.main(["status"]) == 1
    assert capsys.readouterr().err == "error: the lab needs root\n"
