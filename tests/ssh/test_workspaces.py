"""Trees there and results back: exact, small, and never half."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

import pytest
from tests.ssh.far import Client, Files, ended, job, output, quiet, source_of, start

from qwex.backends.ssh import SSHBackend
from qwex.errors import BackendError, WorkspaceError
from qwex.model.jobs import ArrayRange
from qwex.model.states import State
from qwex.model.trees import EMPTY, Entry, Kind, Tree

pytestmark = pytest.mark.ssh

CONTENTS = [b"", b"a\n", b"b" * 700, b"c" * 5000, bytes(range(256)) * 8]
NAMES = [b"a", b"b", b"-rf", b" x ", b"new\nline", b"\xff\xfe", b"'q\"", b"$HOME", b"long" * 40, b".hidden", b"*"]


def scribble(root: bytes, chance: random.Random, steps: int) -> None:
    """Change a directory at random: files, modes, links, directories, moves, removals."""
    for _ in range(steps):
        folders = [root] + [os.path.join(where, one) for where, down, _ in os.walk(root) for one in down]
        folders = [one for one in folders if not os.path.islink(one)]
        path = os.path.join(chance.choice(folders), chance.choice(NAMES))
        everything = [os.path.join(where, one) for where, down, up in os.walk(root) for one in down + up]
        match chance.randrange(7):
            case 0 | 1:
                if not os.path.lexists(path):
                    Path(os.fsdecode(path)).write_bytes(chance.choice(CONTENTS))
            case 2:
                if not os.path.lexists(path) and len(path) < 700:
                    os.mkdir(path)
            case 3:
                if not os.path.lexists(path):
                    os.symlink(chance.choice([b"a", b"../x y", b"/nowhere", b"t" * 150]), path)
            case 4:
                if everything:
                    other = chance.choice(everything)
                    if not os.path.islink(other):
                        os.chmod(
                            other,
                            chance.choice([0o700, 0o755]) if os.path.isdir(other) else chance.choice([0o600, 0o755]),
                        )
            case 5:
                if everything and not os.path.lexists(path):
                    other = chance.choice(everything)
                    if not path.startswith(other + b"/"):
                        os.rename(other, path)
            case 6:
                if everything:
                    other = chance.choice(everything)
                    if os.path.isdir(other) and not os.path.islink(other):
                        if chance.random() < 0.3:
                            os.system(b"rm -rf -- '" + other.replace(b"'", b"'\\''") + b"'")
                    else:
                        os.unlink(other)


def as_there(client: Client, digest: str) -> Tree:
    tree = source_of(Path(client.place.directory) / "trees" / digest / "t").tree
    return Tree.of(Entry(one.path, one.kind, one.mode, one.size, one.digest) for one in tree.entries)


@pytest.mark.parametrize("seed", range(4))
async def test_differences_make_the_same_tree(backend: SSHBackend, client: Client, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    root = tmp_path / "ws"
    root.mkdir()
    sent = []
    for steps in (30, 6, 12, 3, 25):
        scribble(os.fsencode(root), chance, steps)
        source = source_of(root)
        if source.tree.digest:
            handles = await start(backend, job("true", source=source))
            await ended(backend, handles)
            sent.append(source.tree.digest)
            assert as_there(client, source.tree.digest).digest == source.tree.digest
    # Earlier trees, which share files with later ones, are as they were.
    for digest in sent:
        assert as_there(client, digest).digest == digest


async def test_job_sees_the_tree_and_cannot_change_it(backend: SSHBackend, client: Client, tmp_path: Path) -> None:
    root = tmp_path / "ws"
    root.mkdir()
    (root / "a").write_bytes(b"same" * 100)
    (root / "b").write_bytes(b"same" * 100)
    source = source_of(root)
    first = job("sh", "-c", "echo more >>a; cmp a b >/dev/null || echo apart; cat b | wc -c", source=source)
    handles = await start(backend, first)
    assert (await output(backend, handles[first.run_id]))[0].split() == [b"apart", b"400"]
    await ended(backend, handles)
    assert as_there(client, source.tree.digest).digest == source.tree.digest


async def test_results_are_what_changed(backend: SSHBackend, tmp_path: Path) -> None:
    root = tmp_path / "ws"
    (root / "sub/deep").mkdir(parents=True)
    for name in ("kept", "edited", "touched", "moded", "removed", "sub/deep/x"):
        (root / name).write_text(name)
    (root / "link").symlink_to("kept")
    script = """
    echo more >>edited; touch touched; chmod 755 moded; rm removed; printf new >"sub/new
file"; mkdir -p out/empty; ln -s kept out/alias; printf '\\377' >"$(printf 'odd\\377')"; ln -sf edited link; mkfifo pipe
    """
    one = job("sh", "-c", script, source=source_of(root))
    handles = await start(backend, one)
    seen = (await ended(backend, handles))[one.run_id]
    into = tmp_path / "into"
    into.mkdir()
    fetched = await backend.results(handles[one.run_id], into, quiet)
    assert fetched is not None
    names = {b"edited", b"moded", b"sub/new\nfile", b"out/alias", b"odd\xff", b"link"}
    assert {path for path in fetched.paths if not os.path.isdir(os.path.join(os.fsencode(into), path))} == names
    assert seen.result_files == len(names)
    assert (into / "edited").read_text() == "editedmore\n"
    assert stat.S_IMODE((into / "moded").stat().st_mode) == 0o755
    assert os.readlink(into / "link") == "edited"


async def test_results_wait_when_they_are_large(backend: SSHBackend, tmp_path: Path) -> None:
    one = job("sh", "-c", "head -c 100000 /dev/zero >big; exit 3")
    handles = await start(backend, one)
    await ended(backend, handles)
    into = tmp_path / "into"
    into.mkdir()
    assert await backend.results(handles[one.run_id], into, quiet, most=99999) is None
    assert list(into.iterdir()) == []
    fetched = await backend.results(handles[one.run_id], into, quiet, most=100000)
    assert fetched is not None
    assert (fetched.size, fetched.paths) == (100000, (b"big",))


async def test_results_by_pattern(backend: SSHBackend, tmp_path: Path) -> None:
    one = job("sh", "-c", "mkdir -p d; echo 1 >a.csv; echo 2 >b.txt; echo 3 >d/c.csv", out=("*.csv", "!a.csv"))
    handles = await start(backend, one)
    await ended(backend, handles)
    into = tmp_path / "into"
    into.mkdir()
    fetched = await backend.results(handles[one.run_id], into, quiet)
    assert fetched is not None
    assert fetched.paths == (b"d/c.csv",)
    assert [path.name for path in into.rglob("*") if path.is_file()] == ["c.csv"]


async def test_results_of_an_array_and_of_a_cancelled_run(backend: SSHBackend, tmp_path: Path) -> None:
    many = job("sh", "-c", "echo $QWEX_TASK_INDEX >n", array=ArrayRange((2, 5)))
    stopped = job("sh", "-c", "echo part >part; touch ready; sleep 100")
    handles = await start(backend, many, stopped)
    await ended(backend, {many.run_id: handles[many.run_id]})
    async for seen in backend.watch({stopped.run_id: handles[stopped.run_id]}):
        if seen[stopped.run_id].state is State.RUNNING:
            break
    while b"ready" not in (await executed(backend, handles[stopped.run_id], tmp_path)):
        continue
    await backend.cancel({stopped.run_id: handles[stopped.run_id]})
    await ended(backend, handles)
    for name in ("many", "stopped"):
        (tmp_path / name).mkdir()
    await backend.results(handles[many.run_id], tmp_path / "many", quiet)
    await backend.results(handles[stopped.run_id], tmp_path / "stopped", quiet)
    assert (tmp_path / "many/2/n").read_text() == "2\n"
    assert (tmp_path / "many/5/n").read_text() == "5\n"
    assert (tmp_path / "stopped/part").read_text() == "part\n"


async def executed(backend: SSHBackend, handle: dict[str, object], tmp_path: Path) -> bytes:
    """What ``ls`` prints in the job's directory."""
    null, out = os.open(os.devnull, os.O_RDWR), os.open(tmp_path / "ls", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        await backend.execute(handle, ("ls",), 0, null, out, null, False)
    finally:
        os.close(null)
        os.close(out)
    return (tmp_path / "ls").read_bytes()


async def test_a_job_that_removes_its_own_directory(backend: SSHBackend, tmp_path: Path) -> None:
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws/a").write_text("a")
    one = job("sh", "-c", 'echo x >new; rm -rf "$PWD"; exit 4', source=source_of(tmp_path / "ws"))
    handles = await start(backend, one)
    seen = (await ended(backend, handles))[one.run_id]
    assert (seen.exit_code, seen.result_files) == (4, 0)
    (tmp_path / "into").mkdir()
    fetched = await backend.results(handles[one.run_id], tmp_path / "into", quiet)
    assert fetched is not None
    assert fetched.paths == ()


async def test_sparse_files_stay_sparse(backend: SSHBackend, client: Client, tmp_path: Path) -> None:
    (tmp_path / "ws").mkdir()
    big = tmp_path / "ws/big"
    with big.open("wb") as file:
        file.seek(300 << 20)
        file.write(b"middle")
        file.truncate(5 << 30)
    source = sparse_source(big)
    one = job(
        "sh", "-c", "wc -c <big; dd if=big bs=1 skip=314572800 count=6 2>/dev/null; du -k big | cut -f1", source=source
    )
    handles = await start(backend, one)
    size, *words = (await output(backend, handles[one.run_id]))[0].split()
    assert int(size) == 5 << 30
    assert words[0].startswith(b"middle")
    assert int(words[0].removeprefix(b"middle")) < 10_000


def sparse_source(big: Path) -> Files:
    """A made-up digest: hashing 5 GiB of nothing is another test's work."""
    digest = "ab" * 32
    entry = Entry(b"big", Kind.FILE, 0o644, big.stat().st_size, digest, big.stat().st_mtime_ns)
    return Files(Tree.of([entry]), {digest: big})


async def test_a_file_that_changed_is_noticed_and_nothing_is_left(
    backend: SSHBackend, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws/a").write_text("before")
    source = source_of(tmp_path / "ws")
    (tmp_path / "ws/a").write_text("after!")
    one = job("true", source=source)
    with pytest.raises(WorkspaceError, match="a changed"):
        await start(backend, one)
    assert await backend.observe({one.run_id: {"run": one.run_id}}) == {}
    assert not (Path(client.place.directory) / "trees" / source.tree.digest).exists()
    (tmp_path / "ws/a").write_text("before")
    await ended(backend, await start(backend, one))


async def test_nothing_is_sent_twice(backend: SSHBackend, client: Client, tmp_path: Path) -> None:
    root = tmp_path / "ws"
    (root / "one").mkdir(parents=True)
    for number in range(20):
        (root / "one" / str(number)).write_bytes(os.urandom(50_000))
    first = source_of(root)
    await start(backend, job("true", source=first))
    (root / "one").rename(root / "two")
    (root / "two/0").write_bytes(os.urandom(10))
    told: list[int] = []
    await backend.submit([job("true", source=source_of(root))], lambda what, done, total: told.append(total))
    assert told == [10]


async def test_an_empty_workspace(backend: SSHBackend) -> None:
    one = job("ls", "-A", source=Files(EMPTY, {}))
    handles = await start(backend, one)
    assert await output(backend, handles[one.run_id]) == (b"", b"")
    assert (await ended(backend, handles))[one.run_id].state is State.SUCCEEDED


async def test_a_source_that_is_gone(backend: SSHBackend, tmp_path: Path) -> None:
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws/a").write_text("x")
    one = job("true", source=source_of(tmp_path / "ws"))
    with pytest.raises(BackendError, match="neither here nor"):
        await start(backend, type(one)(one.run_id, one.spec))
