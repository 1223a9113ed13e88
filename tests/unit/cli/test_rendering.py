"""Runs in words, columns and JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qwex.cli.config import value_text
from qwex.cli.listing import list_table
from qwex.cli.logs import moment
from qwex.cli.preview import preview
from qwex.cli.records import run_record
from qwex.cli.rendering import command_text, cut, state_text, table, width
from qwex.cli.status import status_text
from qwex.config import SETTINGS
from qwex.errors import UsageError
from qwex.model.jobs import Dependency, JobSpec, Resources, parse_array
from qwex.model.places import Place
from qwex.model.runs import Attempt, Observation, Run, Task
from qwex.model.states import Reason, State
from qwex.services.runs import Status
from qwex.services.submission import Plan

NOW = 1_763_934_209.0


def run(last: Observation, **changes: Any) -> Run:
    spec = JobSpec(("python", "train.py", "two words"), root="/home/ada/project")
    whole = Run("1p4c8zq0a", "gpu1", "ada", NOW - 90, spec, {}, last, NOW)
    return whole._replace(**changes)


@pytest.mark.parametrize(
    ("seen", "text"),
    [
        (Observation(State.RUNNING), "running"),
        (Observation(State.FAILED, Reason.EXIT_CODE, exit_code=3), "failed (exit code 3)"),
        (Observation(State.FAILED, Reason.SIGNAL, exit_code=137), "failed (SIGKILL)"),
        (Observation(State.FAILED, Reason.OUT_OF_MEMORY, exit_code=137), "failed (out of memory)"),
        (Observation(State.RUNNING, Reason.HOST_UNREACHABLE), "running? (host unreachable)"),
        (Observation(State.QUEUED, Reason.WAITING_FOR_SLOT), "queued (waits for room)"),
        (Observation(State.CANCELLED, Reason.CANCELLED_BY_USER, exit_code=143), "cancelled (by you)"),
    ],
)
def test_a_state_says_why(seen: Observation, text: str) -> None:
    assert state_text(seen) == text


def test_every_reason_has_words() -> None:
    silent = [one for one in Reason if one is not Reason.NONE and "(" not in state_text(Observation(State.LOST, one))]
    assert not silent


def test_list_fits_the_terminal_and_is_whole_in_a_pipe() -> None:
    runs = [
        run(Observation(State.RUNNING, started=NOW - 61)),
        run(Observation(State.RUNNING, Reason.HOST_UNREACHABLE, "no answer", started=NOW - 3700), id="1p4c8zq0b"),
        run(
            Observation(State.RUNNING, detail="3 running, 7 succeeded", started=NOW - 5),
            spec=JobSpec(("fit",), name="s" * 60, array=parse_array("0-9")),
        ),
    ]
    wide = list_table(runs, NOW, columns=None, colour=False)
    assert wide.splitlines()[1].split("  ")[0] == "1p4c8zq0a"
    assert "python train.py 'two words'" in wide
    assert "running? (host unreachable)" in wide
    assert "running (3 running, 7 succeeded)" in wide
    assert "1m30s" in wide
    narrow = list_table(runs, NOW, columns=90, colour=False)
    assert max(map(len, narrow.splitlines())) <= 90
    assert "…" in narrow
    assert "\x1b[36mrunning" in list_table(runs, NOW, columns=None, colour=True)
    assert list_table([], NOW, columns=80, colour=False) == ""


def test_columns_stand_under_each_other_whatever_the_script() -> None:
    rows = [["日本", "x"], ["a", "y"], ["é", "z"]]
    assert [width(cells[0]) for cells in table(rows)] == [4, 4, 4]
    assert cut("日本語", 4) == "日…"
    assert cut("short", 5) == "short"


def test_commands_are_shown_as_one_would_type_them() -> None:
    assert command_text(JobSpec(("a b", "--x", "it's"))) == "'a b' --x 'it'\"'\"'s'"
    assert command_text(JobSpec(("echo $HOME | wc\n",), shell=True)) == "echo $HOME | wc\\n"


def test_status_shows_what_there_is() -> None:
    attempts = (
        Attempt(1, State.FAILED, Reason.EXIT_CODE, exit_code=1, started=NOW - 80, ended=NOW - 70),
        Attempt(2, State.SUCCEEDED, exit_code=0, started=NOW - 60, ended=NOW - 10),
    )
    last = Observation(
        State.SUCCEEDED,
        exit_code=0,
        started=NOW - 80,
        ended=NOW - 10,
        tasks=(Task(0, State.SUCCEEDED, exit_code=0, attempts=attempts),),
        result_bytes=2048,
        result_files=3,
    )
    whole = run(last)
    spec = whole.spec.replace(
        resources=Resources(2, 4 << 30, 1, "a100"), time_limit=3600, retries=1, after=(Dependency("1p4c8zq09"),)
    )
    text = status_text(Status(whole._replace(spec=spec), None, ((spec.after[0], None),), (whole,)), NOW, colour=False)
    for line in (
        "state      succeeded",
        "needs      2 CPUs, 4 GiB memory, 1 GPU a100, 1h00m at most, 1 retries",
        "waits for  1p4c8zq09:ok (no longer recorded)",
        "needed by  1p4c8zq0a",
        "time       1m10s",
        "results    3 files, 2 KiB; `qwex pull 1p4c8zq0a` fetches them",
        "  attempt 1  failed (exit code 1)  10s",
        "  attempt 2  succeeded             50s",
    ):
        assert line in text.splitlines()


def test_status_of_an_array_and_of_an_element() -> None:
    tasks = tuple(Task(at, State.FAILED, Reason.EXIT_CODE, exit_code=at) for at in range(1, 41))
    whole = run(Observation(State.FAILED, Reason.EXIT_CODE, "40 failed", 1, tasks=tasks))
    whole = whole._replace(spec=whole.spec.replace(array=parse_array("1-40")))
    text = status_text(Status(whole, None, (), ()), NOW, colour=False)
    assert "  1p4c8zq0a.30  failed (exit code 30)" in text.splitlines()
    assert "  and 10 more: `qwex status --json 1p4c8zq0a` has all" in text.splitlines()
    one = status_text(Status(whole, 7, (), ()), NOW, colour=False)
    assert "run        1p4c8zq0a.7" in one.splitlines()
    assert "state      failed (exit code 7)" in one.splitlines()


def test_records_are_json_and_keep_their_names() -> None:
    record = run_record(run(Observation(State.RUNNING, Reason.HOST_UNREACHABLE)), tasks=True)
    assert json.loads(json.dumps(record))["known"] is False
    documented = (Path(__file__).parents[3] / "runner/docs/commands.md").read_text().partition("## JSON")[2]
    assert not [name for name in record if f"`{name}`" not in documented]


def test_a_preview_names_what_is_sent_and_what_is_not() -> None:
    spec = JobSpec(("python", "x.py"), env=(("TOKENS", "7"),), secrets=("KEY",), time_limit=60)
    sent = Plan(
        Place("gpu1", "ssh"), (spec,), Path("/p"), 2, 3 << 20, ((b"data\xff.bin", 3 << 20),), (b".venv/",), False
    )
    text = preview(sent)
    assert "would send 2 files, 3 MiB" in text
    assert "   3 MiB  data\\xff.bin\n" in text
    assert "left out by ignore rules (they stay behind; --include sends some along)\n  .venv/\n" in text
    assert "would run on gpu1" in text
    assert "env         TOKENS" in text
    assert "7" not in text.partition("env")[2].partition("\n")[0]


@pytest.mark.parametrize("text", ["90s", "10m", "0:00", "2025-11-23", "2025-11-23T14:30", "2025-11-23T14:30:00+01:00"])
def test_moments(text: str) -> None:
    import time

    assert moment(text) <= time.time()


def test_moments_are_what_they_say() -> None:
    assert moment("2025-11-23T14:30:00+00:00") == 1763908200


@pytest.mark.parametrize("text", ["", "tomorrow", "25:00", "2025-13-01"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(UsageError, match="is no time"):
        moment(text)


def test_every_setting_can_be_shown() -> None:
    shown = {one.name: value_text(one, one.default) for one in SETTINGS}
    assert shown["results.limit"] == "1 GiB"
    assert shown["local.cpus"] == "detected"
    assert shown["run.gpus"] == "0"
    assert shown["run.shell"] == "false"
    by_name = {one.name: one for one in SETTINGS}
    assert value_text(by_name["run.env"], (("A", "1"), ("B", "2"))) == "A=1, B=2"
    assert value_text(by_name["run.gpus"], (2, "a100")) == "a100:2"
