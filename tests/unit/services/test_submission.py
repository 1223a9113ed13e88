"""From a request to a run at its place, whatever breaks in between."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.unit.services.fake import Cluster, Recorder, begin, gone, open_context

from qwex.backends.base import Submission
from qwex.errors import BackendError, UnknownName, Unreachable, UnsupportedHere, UsageError, WorkspaceError
from qwex.model.jobs import Condition, Dependency, JobSpec, StdinMode
from qwex.model.places import Capabilities
from qwex.model.runs import Run
from qwex.model.states import Reason, State
from qwex.services import recovery, runs
from qwex.services.context import Context
from qwex.services.submission import Request, plan, submit


@pytest.fixture
def files(project: Path) -> Path:
    """Three files of 3 KiB, an ignored directory and an ignored file."""
    (project / ".gitignore").write_text(".venv/\n*.log\n")
    (project / "main.py").write_bytes(b"x" * 2048)
    (project / "sub").mkdir()
    (project / "sub/data.csv").write_bytes(b"y" * 1024)
    (project / ".venv/bin").mkdir(parents=True)
    (project / ".venv/bin/python").write_bytes(b"z")
    (project / "old.log").write_bytes(b"z")
    return project


def sent(cluster: Cluster, run: Run) -> Submission:
    return cluster.jobs[run.id].submission


@pytest.mark.usefixtures("files")
async def test_what_a_place_has_already_is_told_apart(ctx: Context, cluster: Cluster, said: Recorder) -> None:
    cluster.carries = 2000
    await submit(ctx, [Request(("true",), on="gpu1")])
    assert said.notes[0].startswith("sent 3 files, 3.01 KiB to gpu1 (1.95 KiB new); left out")


@pytest.mark.usefixtures("files")
async def test_a_run_is_recorded_submitted_and_known_by_its_handle(
    ctx: Context, cluster: Cluster, said: Recorder
) -> None:
    (run,) = await submit(ctx, [Request(("python", "main.py"), on="gpu1")])
    assert run == ctx.store.get(run.id)
    assert run.handle == {"run": run.id}
    source = sent(cluster, run).source
    assert source is not None
    assert [entry.path for entry in source.tree.entries] == [b".gitignore", b"main.py", b"sub/data.csv"]
    assert run.spec.snapshot == source.tree.digest
    assert sent(cluster, run).links == {}
    assert said.notes == ["sent 3 files, 3.01 KiB to gpu1; left out .venv/, old.log"]
    assert cluster.calls == ["open", "submit", "submitted"]


async def test_ignored_paths_are_linked_where_files_are_shared(
    ctx: Context, cluster: Cluster, said: Recorder, files: Path
) -> None:
    (run,) = await submit(ctx, [Request(("true",))])
    assert sent(cluster, run).links == {
        b".venv": os.fsencode(files / ".venv"),
        b"old.log": os.fsencode(files / "old.log"),
    }
    assert said.notes == ["sent 3 files, 3.01 KiB to local; left out .venv/, old.log (linked)"]


async def test_edits_after_submission_are_not_seen(ctx: Context, cluster: Cluster, files: Path) -> None:
    (run,) = await submit(ctx, [Request(("true",))])
    (files / "main.py").write_text("edited")
    source = sent(cluster, run).source
    assert source is not None
    digest = next(entry.digest for entry in source.tree.entries if entry.path == b"main.py")
    assert source.locate(digest).read_bytes() == b"x" * 2048


async def test_results_of_earlier_runs_are_not_sent(ctx: Context, cluster: Cluster, files: Path) -> None:
    (files / "qwex-runs/1").mkdir(parents=True)
    (files / "qwex-runs/1/out").write_text("x")
    described = await plan(ctx, [Request(("true",))])
    assert (described.files, described.ignored) == (3, (b".venv/", b"old.log"))


async def test_plan_does_nothing(ctx: Context, cluster: Cluster, files: Path, home: Path) -> None:
    described = await plan(ctx, [Request(("a", "b"), on="gpu1", secrets=("TOKEN=hush",), include=("old.log",))])
    text = json.dumps(described.to_json())
    assert described.files == 4
    assert described.largest[0] == (b"main.py", 2048)
    assert "hush" not in text
    assert json.loads(text)["workspace"]["left_out"] == [".venv/"]
    assert json.loads(text)["jobs"][0]["argv"] == ["a", "b"]
    assert cluster.calls == []
    assert ctx.store.list() == []


async def test_empty_directory_can_be_sent(ctx: Context, cluster: Cluster, said: Recorder) -> None:
    (run,) = await submit(ctx, [Request(("true",))])
    assert run.spec.snapshot == ""
    assert said.notes == ["sent 0 files, 0 B to local"]


async def test_secrets_travel_beside_the_record(ctx: Context, cluster: Cluster, home: Path) -> None:
    (run,) = await submit(ctx, [Request(("true",), on="gpu1", secrets=("TOKEN=hush-hush",))])
    assert sent(cluster, run).secrets == {"TOKEN": "hush-hush"}
    kept = [path for path in home.rglob("*") if path.is_file() and b"hush-hush" in path.read_bytes()]
    assert kept == []


async def test_home_directory_is_sent_only_when_confirmed(home: Path, cluster: Cluster) -> None:
    asked = Recorder()
    async with open_context(home, home, cluster, asked) as ctx:
        with pytest.raises(WorkspaceError, match="not sent unasked"):
            await submit(ctx, [Request(("true",), on="local")])
        assert (len(asked.questions), ctx.store.list(), cluster.jobs) == (1, [], {})
        await submit(ctx, [Request(("true",), yes=True)])
        asked.answers = [True]
        await submit(ctx, [Request(("true",))])
    assert len(cluster.jobs) == 2


async def test_large_workspaces_say_what_is_large(ctx: Context, files: Path, said: Recorder) -> None:
    ctx.settings = ctx.settings.overridden({"workspace.large": "2K"})
    await submit(ctx, [Request(("true",))])
    assert said.notes[0].startswith("the workspace has 3.01 KiB: main.py (2 KiB), sub/data.csv (1 KiB)")


@pytest.mark.parametrize(
    ("request_", "can", "words"),
    [
        (Request(("x",), cpus="16"), Capabilities(cpus=8), "has 8 CPUs, and the job asks for 16"),
        (Request(("x",), mem="4G"), Capabilities(mem=1 << 30), "has 1 GiB of memory, and the job asks for 4 GiB"),
        (Request(("x",), gpus="a100:2"), Capabilities(gpus=0), "has no GPUs, and the job asks for 2 a100"),
        (Request(("x",), array="0-3"), Capabilities(arrays=False), "has no arrays"),
        (Request(("x",), priority="3"), Capabilities(priorities=False), "has no priorities"),
    ],
)
async def test_what_a_place_cannot_do_is_said_before_anything_is_recorded(
    ctx: Context, cluster: Cluster, request_: Request, can: Capabilities, words: str
) -> None:
    cluster.can = can
    with pytest.raises(UnsupportedHere, match=words):
        await submit(ctx, [request_])
    assert ctx.store.list() == []


@pytest.mark.parametrize(
    ("requests", "words"),
    [
        ([], "nothing to submit"),
        ([Request(("a",)), Request(("b",), on="gpu1")], "one place"),
        (
            [Request(("a",), name="a", needs=("b",)), Request(("b",), name="b", needs=("a",))],
            "wait for each other: a → b → a|b → a → b",
        ),
        ([Request(("a",), name="a", needs=("c",)), Request(("b",), name="b")], "a needs 'c'"),
        (
            [Request(("a",), name="a"), Request(("a",), name="a"), Request(("b",), needs=("a",))],
            "two jobs are called 'a'",
        ),
        ([Request(("a",), stdin=0), Request(("b",), stdin=0)], "one job only"),
    ],
)
async def test_calls_that_make_no_sense(ctx: Context, cluster: Cluster, requests: list[Request], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        await submit(ctx, requests)
    assert (ctx.store.list(), cluster.calls) == ([], [])


async def test_unknown_place(ctx: Context) -> None:
    with pytest.raises(UnknownName, match="'nowhere'"):
        await submit(ctx, [Request(("true",), on="nowhere")])


async def test_a_graph_is_one_submission(ctx: Context, cluster: Cluster) -> None:
    report, train, prepare = await submit(
        ctx,
        [
            Request(("r",), name="report", needs=("train:any", "prepare")),
            Request(("t",), name="train", needs=("prepare",)),
            Request(("p",), name="prepare"),
        ],
    )
    assert cluster.calls.count("submit") == 1
    assert train.spec.after == (Dependency(prepare.id),)
    assert report.spec.after == (Dependency(train.id, Condition.ANY), Dependency(prepare.id))
    assert sent(cluster, report).spec.after == report.spec.after


async def test_failed_submission_ends_the_record_with_its_reason(ctx: Context, cluster: Cluster) -> None:
    cluster.faults = {"submit": [BackendError("the disk there is full")]}
    with pytest.raises(BackendError, match="the disk there is full"):
        await submit(ctx, [Request(("true",), on="gpu1")])
    (run,) = ctx.store.list()
    assert (run.state, run.last.reason) == (State.FAILED, Reason.SUBMISSION_FAILED)
    assert run.last.detail == "the disk there is full"


async def test_host_that_does_not_answer_leaves_no_record(ctx: Context, cluster: Cluster) -> None:
    cluster.faults = {"open": [gone("no SSH server answers at gpu1:22")]}
    with pytest.raises(Unreachable, match="no SSH server answers"):
        await submit(ctx, [Request(("true",), on="gpu1")])
    assert ctx.store.list() == []


@pytest.mark.parametrize("where", ["submit", "submitted"])
async def test_connection_that_breaks_while_submitting_is_tried_once_more(
    ctx: Context, cluster: Cluster, where: str
) -> None:
    cluster.faults = {where: [gone()]}
    (run,) = await submit(ctx, [Request(("true",), on="gpu1")])
    assert list(cluster.jobs) == [run.id]
    assert ctx.store.get(run.id).handle == {"run": run.id}


async def test_broken_submission_is_found_by_the_next_command(ctx: Context, cluster: Cluster) -> None:
    cluster.faults = {"submitted": [gone(), gone()]}
    with pytest.raises(Unreachable, match="it may have started there"):
        await submit(ctx, [Request(("true",), on="gpu1")])
    (run,) = await runs.list_runs(ctx)
    assert (run.state, run.handle) == (State.RUNNING, {"run": run.id})
    assert list(cluster.jobs) == [run.id]


async def test_interrupted_submission_is_withdrawn(ctx: Context, cluster: Cluster) -> None:
    cluster.hang = {"submitted"}
    submitting = asyncio.create_task(submit(ctx, [Request(("true",), on="gpu1")]))
    async with asyncio.timeout(10):
        while "submitted" not in cluster.calls:
            await asyncio.wait({submitting}, timeout=0.01)
    submitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await submitting
    (run,) = ctx.store.list()
    assert (run.state, run.last.reason) == (State.CANCELLED, Reason.CANCELLED_BY_USER)
    assert cluster.jobs[run.id].last.state is State.CANCELLED


def abandoned(ctx: Context, **spec: Any) -> Run:
    """As a client leaves it that was killed between the record and the handle."""
    (run,) = ctx.store.add([(JobSpec(("true",), **spec), "gpu1", "u")], 0)
    return run


async def test_run_of_a_living_submitter_is_left_alone(ctx: Context, cluster: Cluster) -> None:
    run = abandoned(ctx)
    with recovery.submitting(ctx.paths):
        assert (await runs.list_runs(ctx))[0].state is State.QUEUED
        with pytest.raises(UsageError, match="being submitted at this moment"):
            await runs.cancel(ctx, [run.id])
    assert cluster.jobs == {}


async def test_abandoned_run_is_taken_up_while_its_content_is_there(
    ctx: Context, cluster: Cluster, files: Path
) -> None:
    (before,) = await submit(ctx, [Request(("true",), on="gpu1")])
    run = abandoned(ctx, snapshot=before.spec.snapshot, root=str(files))
    (taken, _) = await runs.list_runs(ctx)
    assert (taken.id, taken.state, taken.handle) == (run.id, State.RUNNING, {"run": run.id})
    source = cluster.jobs[run.id].submission.source
    assert source is not None
    assert source.tree.digest == before.spec.snapshot


async def test_abandoned_run_ends_when_its_content_is_gone(ctx: Context, cluster: Cluster, files: Path) -> None:
    run = abandoned(ctx, snapshot="0" * 64, root=str(files))
    (ended,) = await runs.list_runs(ctx)
    assert (ended.state, ended.last.reason) == (State.FAILED, Reason.SUBMISSION_FAILED)
    assert "the snapshot 000000000000 is gone" in ctx.store.get(run.id).last.detail
    assert cluster.jobs == {}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"secrets": ("TOKEN",)}, "its secrets were not kept"),
        ({"stdin": StdinMode.LIVE}, "its standard input is gone"),
        ({"stdin": StdinMode.FILE}, "its standard input is gone"),
    ],
)
async def test_abandoned_run_ends_when_what_it_needs_is_gone(
    ctx: Context, cluster: Cluster, spec: dict[str, Any], words: str
) -> None:
    abandoned(ctx, **spec)
    (ended,) = await runs.list_runs(ctx)
    assert ended.state is State.FAILED
    assert words in ended.last.detail


async def test_abandoned_run_that_its_place_has_is_found_whatever_is_gone(ctx: Context, cluster: Cluster) -> None:
    known = begin(ctx, cluster, snapshot="0" * 64, secrets=("TOKEN",))
    ctx.store.set_handles({known.id: {}})
    (run,) = await runs.list_runs(ctx)
    assert (run.state, run.handle) == (State.RUNNING, {"run": run.id})


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ({"attached": True}, StdinMode.LIVE),
        ({"attached": True, "retries": "1"}, StdinMode.FILE),
        ({"attached": True, "array": "0-1"}, StdinMode.FILE),
        ({}, StdinMode.FILE),
    ],
)
async def test_piped_input(ctx: Context, cluster: Cluster, options: dict[str, Any], mode: StdinMode) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"a\0b\n")
    os.close(writing)
    try:
        (run,) = await submit(ctx, [Request(("cat",), on="gpu1", stdin=reading, **options)])
    finally:
        os.close(reading)
    kept = sent(cluster, run).stdin
    assert run.spec.stdin is mode
    assert (kept and kept.read_bytes()) == (b"a\0b\n" if mode is StdinMode.FILE else None)
    assert kept is None or kept.stat().st_mode & 0o777 == 0o600


async def test_input_from_a_file_is_kept_as_it_was(ctx: Context, cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"before")
    with open(tmp_path / "in") as file:
        (run,) = await submit(ctx, [Request(("cat",), stdin=file.fileno())])
    (tmp_path / "in").write_bytes(b"after")
    kept = sent(cluster, run).stdin
    assert kept is not None
    assert kept.read_bytes() == b"before"


async def test_no_input(ctx: Context, cluster: Cluster) -> None:
    leader, follower = os.openpty()
    closed = os.dup(0)
    os.close(closed)
    with open(os.devnull) as null:
        for fd in (null.fileno(), follower, closed, None):
            (run,) = await submit(ctx, [Request(("cat",), stdin=fd)])
            assert run.spec.stdin is StdinMode.NONE
    os.close(leader)
    os.close(follower)


async def test_rerun_takes_the_same_snapshot_or_a_fresh_one(ctx: Context, cluster: Cluster, files: Path) -> None:
    (run,) = await submit(ctx, [Request(("true",), cpus="0.5", name="n")])
    (files / "main.py").write_text("edited")
    same = await runs.rerun(ctx, run.id)
    fresh = await runs.rerun(ctx, run.id, fresh=True)
    assert (same.spec, same.id != run.id) == (run.spec, True)
    assert fresh.spec.snapshot not in {"", run.spec.snapshot}
    assert fresh.spec.replace(snapshot=run.spec.snapshot) == run.spec
    assert sent(cluster, same).links.keys() == {b".venv", b"old.log"}


async def test_rerun_elsewhere_needs_the_content_unchanged(ctx: Context, cluster: Cluster, files: Path) -> None:
    (run,) = await submit(ctx, [Request(("true",), on="gpu1")])
    assert (await runs.rerun(ctx, run.id)).spec == run.spec
    (files / "main.py").write_text("edited")
    with pytest.raises(WorkspaceError, match="has changed since"):
        await runs.rerun(ctx, run.id)


async def test_rerun_reads_the_same_input_and_needs_its_secrets_again(
    ctx: Context, cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "in").write_bytes(b"input")
    with open(tmp_path / "in") as file:
        (run,) = await submit(ctx, [Request(("cat",), on="gpu1", stdin=file.fileno())])
    again = sent(cluster, await runs.rerun(ctx, run.id)).stdin
    assert again is not None
    assert again.read_bytes() == b"input"
    (hidden,) = await submit(ctx, [Request(("cat",), on="gpu1", secrets=("TOKEN=x",))])
    with pytest.raises(UsageError, match="secrets that are not in the environment: TOKEN"):
        await runs.rerun(ctx, hidden.id)
