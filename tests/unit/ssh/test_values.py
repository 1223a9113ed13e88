"""What needs no server: histories, listings, plans of uploads, the script itself."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from qwex.backends.base import Submission
from qwex.backends.ssh.explain import explain
from qwex.backends.ssh.history import History
from qwex.backends.ssh.remote import script
from qwex.backends.ssh.results import listed
from qwex.backends.ssh.specs import files_of, quote
from qwex.backends.ssh.uploads import member, plan, shared, stream
from qwex.errors import BackendError, UsageError
from qwex.model.jobs import JobSpec, parse_array
from qwex.model.places import Place
from qwex.model.states import Reason, State
from qwex.model.trees import EMPTY, Entry, Kind, Tree

HISTORIES = [
    (b"Q 1\n", State.QUEUED, Reason.WAITING_FOR_RUN, None),
    (b"Q 1\nG\n", State.QUEUED, Reason.WAITING_FOR_SLOT, None),
    (b"Q 1\nG\nP\n", State.HELD, Reason.HELD_BY_USER, None),
    (b"Q 1\nG\nS 0 1 5\n", State.RUNNING, Reason.NONE, None),
    (b"Q 1\nG\nS 0 1 5\nP\n", State.SUSPENDED, Reason.NONE, None),
    (b"Q 1\nG\nS 0 1 5\nE 0 1 0 exit 5 6 0 0\nF succeeded 6\n", State.SUCCEEDED, Reason.NONE, 0),
    (b"Q 1\nG\nS 0 1 5\nE 0 1 2 exit 5 6 0 0\nE 0 1 2 exit 5 6 0 0\nF failed 6\n", State.FAILED, Reason.EXIT_CODE, 2),
    (b"Q 1\nG\nS 0 1 5\nE 0 1 2 exit 5 6 0 0\nR 0 2 9\n", State.QUEUED, Reason.WAITING_TO_RETRY, None),
    (b"Q 1\nG\nS 0 1 5\nE 0 1 2 exit 5 6 0 0\nR 0 2 9\nA 0 2\n", State.QUEUED, Reason.WAITING_FOR_SLOT, None),
    (b"Q 1\nG\nS 0 1 5\nE 0 1 143 cancelled 5 6 0 0\nF cancelled 6\n", State.CANCELLED, Reason.CANCELLED_BY_USER, 143),
    (b"Q 1\nG\nC 0\nF cancelled 6\n", State.CANCELLED, Reason.CANCELLED_BY_USER, None),
    (b"Q 1\nD abc failed\nF cancelled 6\n", State.CANCELLED, Reason.DEPENDENCY_FAILED, None),
    (b"Q 1\nG\nS 0 1 5\nE 0 1 1 lost 5 6 0 0\nF lost 6\n", State.LOST, Reason.WORKER_DIED, None),
    (b"Q 1\nG\nS 0 1 5\nE 0 1 1 restarted 5 6 0 0\nF lost 6\n", State.LOST, Reason.HOST_RESTARTED, None),
    (b"Q 1\nG\nS 0 1 5\nE 0 1 143 time-limit 5 6 0 0\nF failed 6\n", State.FAILED, Reason.TIME_LIMIT, 143),
    (b"Q 1\nG\nS 0 1 5\nE 0 1 137 memory 5 6 0 0\nF failed 6\n", State.FAILED, Reason.OUT_OF_MEMORY, 137),
    (b"Q 1\nG\nS 0 1 5\nE 0 1 137 exit 5 6 0 0\nF failed 6\n", State.FAILED, Reason.SIGNAL, 137),
]


@pytest.mark.parametrize(("text", "state", "reason", "code"), HISTORIES)
def test_histories_however_they_are_cut(text: bytes, state: State, reason: Reason, code: int | None) -> None:
    for step in (1, 7, len(text)):
        history = History((0,))
        for at in range(0, len(text), step):
            history.feed(text[at : at + step])
        seen = history.observation()
        assert (seen.state, seen.reason, seen.exit_code) == (state, reason, code)
        assert history.size == len(text)


def test_history_of_an_array() -> None:
    history = History(range(5), limit=1)
    history.feed(b"Q 1\nG\nS 0 1 5\nE 0 1 0 exit 5 6 2 30\nS 1 1 6\nC 3-4\n")
    seen = history.observation()
    assert [task.state for task in seen.tasks] == ["succeeded", "running", "queued", "cancelled", "cancelled"]
    assert seen.tasks[2].reason is Reason.ARRAY_LIMIT


def test_listing_of_results_pairs_sorted_names_with_sizes() -> None:
    answer = b"b 2\n10\n20\n./0/z\0./0/a\nb\0b 1\n5\n./1/x\0.\n"
    assert listed(answer) == {b"0/a\nb": 10, b"0/z": 20, b"1/x": 5}
    assert listed(b".\n") == {}
    with pytest.raises(BackendError):
        listed(b"b 2\n10\n20\n./0/z\0")


def entry(path: bytes, digest: str = "aa", mode: int = 0o644, size: int = 3) -> Entry:
    return Entry(path, Kind.FILE, mode, size, digest)


def test_moves_and_copies_send_no_content() -> None:
    base = Tree.of([entry(b"a", "11"), entry(b"b", "22"), entry(b"c", "33")])
    swapped = Tree.of([entry(b"a", "22"), entry(b"b", "11"), entry(b"copy", "33"), entry(b"moded", "33", 0o755)])
    upload = plan(swapped, base)
    assert upload.size == 0
    assert [path for path, _, _ in upload.hard] == [b"copy"]
    assert shared(swapped, base) > 0


def test_equal_content_is_sent_once() -> None:
    upload = plan(Tree.of([entry(b"a"), entry(b"b"), entry(b"c", mode=0o755)]), EMPTY)
    assert [name for name, _ in upload.files] == [b"t/a", b"t/c"]


def test_the_tar_is_one_python_reads() -> None:
    long = b"d" * 90 + b"/" + b"e" * 90
    tree = Tree.of(
        [Entry(b"d" * 90, Kind.DIRECTORY, 0o755, 0, ""), entry(long, size=0), Entry(b"l", Kind.LINK, 0, 0, b"to".hex())]
    )
    data = b"".join(stream(plan(tree, EMPTY), None, b"END", lambda count: None))
    _, _, tar = data.partition(b"END\n")
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        names = {one.name: one for one in archive}
    assert names.keys() == {"t/" + "d" * 90, "t/" + long.decode(), "t/l", "after"}
    assert names["t/l"].linkname == "to"


def test_header_of_a_member() -> None:
    head = member(b"x", 5, 0o4755, 12)
    with tarfile.open(fileobj=io.BytesIO(head + b"12345".ljust(512, b"\0") + bytes(1024))) as archive:
        (one,) = archive
    assert (one.name, one.size, one.mode, one.mtime) == ("x", 5, 0o4755, 12)


def test_specs() -> None:
    spec = JobSpec(("a", "it's"), array=parse_array("0-4,9%2"), priority=7, env=(("A", "1"),))
    files = {one.name: one.data for one in files_of(Submission("run", spec), Place("p", env=(("A", "0"), ("B", "2"))))}
    assert files["job"] == b"export A='1'\nexport B='2'\nset -- 'a' 'it'\\''s'\n"
    assert b"todo='0-4 9'" in files["spec"].splitlines()
    assert b"priority='0999993'" in files["spec"].splitlines()
    with pytest.raises(UsageError, match=r"A\.B"):
        list(files_of(Submission("run", JobSpec(("a",), env=(("A.B", ""),))), Place("p")))
    assert quote(b"'") == b"''\\'''"


def test_why_names_who_is_ahead() -> None:
    history = History((0,))
    history.feed(b"Q 1\nG\n")
    lines = ["slots 2 1", "active aaa.0.1 1 -", "queue bbb 2 0 0", "queue ccc 1 0 0", "now 5"]
    sentence, *evidence = explain("ccc", history.observation(), lines, "gpu1")
    assert sentence == "ccc waits for 1 free slot on gpu1, number 2 in the queue"
    assert any("aaa.0 uses 1" in line for line in evidence)


def test_the_script_is_plain_and_clean(tmp_path: Path) -> None:
    text, digest = script()
    assert re.fullmatch(r"[0-9a-f]{64}", digest)
    assert text.isascii()
    file = tmp_path / "remote.sh"
    file.write_bytes(text)
    for shell in ("dash", "bash", "busybox", "mksh", "ksh", "zsh"):
        if found := shutil.which(shell):
            words = [found, "sh"] if shell == "busybox" else [found]
            assert subprocess.run([*words, "-n", str(file)], capture_output=True, check=False).returncode == 0
    if shutil.which("shellcheck"):
        checked = subprocess.run(
            ["shellcheck", "-s", "sh", "-S", "warning", str(file)], capture_output=True, text=True, check=False
        )
        assert checked.stdout == ""
