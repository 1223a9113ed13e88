"""Results come home whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.services.fake import Cluster, Recorder, begin, gone

from qwex.errors import Unreachable, WorkspaceError
from qwex.model.jobs import ArrayRange
from qwex.model.states import Reason, State
from qwex.services.context import Context
from qwex.services.results import Pulled, pull
from qwex.services.submission import Request, submit


async def test_pull_into_the_project_and_elsewhere_and_again(ctx: Context, cluster: Cluster, project: Path) -> None:
    run = begin(ctx, cluster)
    cluster.finish(run.id, sub__a_txt=b"12", b_txt=b"3")
    for into, where in ((None, project / "qwex-runs" / run.id), (Path("here"), project / "here")):
        for _ in range(2):
            assert await pull(ctx, run, into) == Pulled(where, 2, 3)
            assert {str(path.relative_to(where)) for path in where.rglob("*")} == {"b.txt", "sub", "sub/a.txt"}
    assert ctx.store.get(run.id).pulled == str(project / "here")
    assert (project / "qwex-runs/.gitignore").read_text() == "*\n"


async def test_large_results_wait_until_asked_for(ctx: Context, cluster: Cluster) -> None:
    ctx.settings = ctx.settings.overridden({"results.limit": "3"})
    run = begin(ctx, cluster)
    cluster.finish(run.id, a_txt=b"1234")
    pulled = await pull(ctx, run)
    assert (pulled.directory, pulled.waiting) == (None, True)
    assert (await pull(ctx, run, whatever_size=True)).files == 1


async def test_no_results(ctx: Context, cluster: Cluster, project: Path) -> None:
    run = begin(ctx, cluster)
    cluster.finish(run.id)
    assert await pull(ctx, run) == Pulled(None, 0, 0)
    assert ctx.store.get(run.id).pulled == ""


async def test_nothing_half_is_left(ctx: Context, cluster: Cluster, project: Path) -> None:
    run = begin(ctx, cluster)
    cluster.finish(run.id, a_txt=b"1234")
    dead = project / "qwex-runs" / f".{run.id}-dead"
    dead.mkdir(parents=True)
    (dead / "half").write_text("x")
    cluster.faults = {"fetched": [gone()]}
    with pytest.raises(Unreachable):
        await pull(ctx, run)
    assert [path.name for path in (project / "qwex-runs").iterdir()] == [".gitignore"]


async def test_directory_that_cannot_be_written(ctx: Context, cluster: Cluster, project: Path) -> None:
    run = begin(ctx, cluster)
    cluster.finish(run.id, a_txt=b"1234")
    (project / "qwex-runs").write_text("a file")
    with pytest.raises(WorkspaceError, match="qwex-runs cannot be written"):
        await pull(ctx, run)


async def test_project_that_is_gone(ctx: Context, cluster: Cluster, project: Path, tmp_path: Path) -> None:
    run = begin(ctx, cluster, root=str(tmp_path / "gone"))
    cluster.finish(run.id, a_txt=b"1234")
    assert (await pull(ctx, run)).directory == project / "qwex-runs" / run.id


async def test_sync_back_spares_what_was_edited_meanwhile(ctx: Context, cluster: Cluster, project: Path) -> None:
    (project / "kept.txt").write_text("old")
    (project / "edited.txt").write_text("old")
    (run,) = await submit(ctx, [Request(("true",), on="gpu1")])
    (project / "edited.txt").write_text("by hand")
    cluster.finish(run.id, kept_txt=b"by the job", edited_txt=b"by the job", new_txt=b"new")
    pulled = await pull(ctx, run, sync_back=True)
    beside = project / f"edited.txt.qwex-{run.id}"
    assert pulled.conflicts == ((project / "edited.txt", beside),)
    assert (project / "edited.txt").read_text() == "by hand"
    assert {path.name: path.read_text() for path in project.glob("*.txt*")} == {
        "kept.txt": "by the job",
        "edited.txt": "by hand",
        "new.txt": "new",
        beside.name: "by the job",
    }
    assert (project / "qwex-runs" / run.id / "edited.txt").read_text() == "by the job"


async def test_arrays_are_not_put_into_the_tree(ctx: Context, cluster: Cluster, said: Recorder, project: Path) -> None:
    run = begin(ctx, cluster, array=ArrayRange((1, 2)))
    cluster.finish(run.id, State.SUCCEEDED, Reason.NONE, 0, **{"1__a_txt": b"1", "2__a_txt": b"2"})
    pulled = await pull(ctx, run, sync_back=True)
    assert (pulled.files, pulled.conflicts) == (2, ())
    assert (project / "qwex-runs" / run.id / "2/a.txt").read_text() == "2"
    assert len(said.warnings) == 1
