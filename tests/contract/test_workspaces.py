"""What every kind of place must do with files: each attempt in its own copy of the snapshot, and what it changed comes home."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.contract.ground import Ground, silent

from qwex.backends.base import Source, Submission
from qwex.config import Paths
from qwex.model.jobs import parse_array
from qwex.model.states import State
from qwex.workspace.scan import scan
from qwex.workspace.snapshot import identify, keep

FILES = {
    "main.py": b"print('hi')\n",
    "data/a b.txt": b"one\n",
    "data/\udcff": b"two\n",
    "-n": b"",
    "run.sh": b"#!/bin/sh\necho $0\n",
}


@pytest.fixture
def source(project: Path) -> Source:
    for name, content in FILES.items():
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_bytes(content)
    (project / "run.sh").chmod(0o755)
    (project / "link").symlink_to("data/a b.txt")
    (project / "empty").mkdir()
    paths = Paths.from_environment()
    looked = scan(project)
    return keep(looked, identify(looked, paths), paths)


def below(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


async def test_a_job_finds_the_snapshot(ground: Ground, source: Source, project: Path) -> None:
    for name in FILES:
        (project / name).unlink()  # later edits are not seen
    run = await ground.script(
        "cat main.py data/*; ./run.sh; readlink link; test -d empty && ls -A",
        source=source,
        snapshot=source.tree.digest,
    )
    output = await ground.output(run)
    listed = b"-n\ndata\nempty\nlink\nmain.py\nrun.sh\n"
    assert output.out == b"print('hi')\none\ntwo\n./run.sh\ndata/a b.txt\n" + listed
    assert (await ground.end(run)).result_files == 0


async def test_the_directory_a_job_starts_in(ground: Ground, source: Source) -> None:
    run = await ground.script("cat 'a b.txt'; pwd -P", source=source, snapshot=source.tree.digest, cwd="data")
    lines = (await ground.output(run)).out.splitlines()
    assert lines[0] == b"one"
    assert lines[1].endswith(b"/data")


@pytest.mark.parametrize(("code", "state"), [(0, State.SUCCEEDED), (5, State.FAILED)])
async def test_what_a_job_changed_comes_home(
    ground: Ground, source: Source, tmp_path: Path, code: int, state: State
) -> None:
    run = await ground.script(
        f"echo more >>'data/a b.txt'; mkdir -p out/deep; printf result >out/deep/x; touch main.py; rm -- -n; "
        f"ln -s nowhere out/l; exit {code}",
        source=source,
        snapshot=source.tree.digest,
    )
    end = await ground.end(run)
    assert (end.state, end.result_files) == (state, 3)
    assert end.result_bytes in (15, 22)  # whether a link's target counts is the place's own business
    (handle,) = run.values()
    assert await ground.backend.results(handle, tmp_path, silent, most=10) is None
    for name in ("first", "second"):
        into = tmp_path / name
        into.mkdir()
        fetched = await ground.backend.results(handle, into, silent)
        assert fetched is not None
        assert fetched.paths == (b"data/a b.txt", b"out/deep/x", b"out/l")
        assert below(into) == {"data/a b.txt": b"one\nmore\n", "out/deep/x": b"result"}
        assert (into / "out/l").readlink() == Path("nowhere")


async def test_results_of_a_cancelled_job(ground: Ground, source: Source, tmp_path: Path) -> None:
    into = tmp_path / "into"
    into.mkdir()
    run = await ground.script("echo half >half; echo ready; sleep 60", source=source, snapshot=source.tree.digest)
    await ground.first_line(run)
    await ground.backend.cancel(run)
    assert (await ground.end(run)).state is State.CANCELLED
    await ground.backend.results(next(iter(run.values())), into, silent)
    assert (into / "half").read_text() == "half\n"


async def test_only_what_out_names(ground: Ground, source: Source, tmp_path: Path) -> None:
    into = tmp_path / "into"
    into.mkdir()
    run = await ground.script(
        "echo 1 >a.csv; echo 2 >b.log", source=source, snapshot=source.tree.digest, out=("*.csv",)
    )
    await ground.end(run)
    fetched = await ground.backend.results(next(iter(run.values())), into, silent)
    assert fetched is not None
    assert fetched.paths == (b"a.csv",)


async def test_elements_and_attempts_do_not_disturb_each_other(ground: Ground, source: Source, tmp_path: Path) -> None:
    into = tmp_path / "into"
    into.mkdir()
    run = await ground.script(
        "test ! -e made || exit 9; echo $QWEX_TASK_INDEX >made; test $QWEX_ATTEMPT = 2 -o $QWEX_TASK_INDEX = 3",
        source=source,
        snapshot=source.tree.digest,
        array=parse_array("2-3"),
        retries=1,
    )
    end = await ground.end(run)
    assert end.state is State.SUCCEEDED
    fetched = await ground.backend.results(next(iter(run.values())), into, silent)
    assert fetched is not None
    assert fetched.paths == (b"2/made", b"3/made")
    assert below(into) == {"2/made": b"2\n", "3/made": b"3\n"}


async def test_without_a_snapshot_results_come_home_too(ground: Ground, tmp_path: Path) -> None:
    into = tmp_path / "into"
    into.mkdir()
    run = await ground.script("echo x >x; mkdir d; echo y >d/y")
    await ground.end(run)
    await ground.backend.results(next(iter(run.values())), into, silent)
    assert below(into) == {"x": b"x\n", "d/y": b"y\n"}


async def test_many_runs_of_one_snapshot(ground: Ground, source: Source) -> None:
    entries = [ground.record("cat", "main.py", snapshot=source.tree.digest) for _ in range(5)]
    runs = await ground.backend.submit([Submission(one[0], one[1], source) for one in entries], silent)
    for run_id, handle in runs.items():
        assert (await ground.output({run_id: handle})).out == FILES["main.py"]
