"""What every kind of place must do with a run: the contract of ``qwex.backends.base.Backend``."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import pytest
from tests.contract.ground import Ground, advance, pieces, silent

from qwex.backends.base import Cursor, LogRequest, Stream, Submission
from qwex.errors import BackendError, QwexError
from qwex.model.jobs import Condition, Dependency, StdinMode, parse_array
from qwex.model.runs import Observation
from qwex.model.states import Reason, State


async def test_output_comes_stream_by_stream_byte_for_byte(ground: Ground) -> None:
    run = await ground.script(r"printf 'a\000\377\nno newline'; printf 'wrong\n' >&2")
    output = await ground.output(run)
    assert (output.out, output.err) == (b"a\0\xff\nno newline", b"wrong\n")
    assert await ground.end(run) == (await ground.backend.observe(run))[next(iter(run))]


@pytest.mark.parametrize(
    ("argv", "code", "reason"),
    [
        (["true"], 0, Reason.NONE),
        (["sh", "-c", "exit 7"], 7, Reason.EXIT_CODE),
        (["sh", "-c", "kill -9 $$"], 137, Reason.SIGNAL),
        (["sh", "-c", "kill -TERM $$"], 143, Reason.SIGNAL),
        (["no-such-command-here"], 127, Reason.COMMAND_NOT_FOUND),
        (["/"], 126, Reason.COMMAND_NOT_EXECUTABLE),
        (["exit", "3"], 127, Reason.COMMAND_NOT_FOUND),
        (["-n"], 127, Reason.COMMAND_NOT_FOUND),
    ],
)
async def test_how_a_command_ends(ground: Ground, argv: list[str], code: int, reason: Reason) -> None:
    run = await ground.start(*argv)
    output, end = await ground.output(run), await ground.end(run)
    assert (end.exit_code, end.reason) == (code, reason)
    assert end.state is (State.SUCCEEDED if code == 0 else State.FAILED)
    assert end.started is not None
    assert end.ended is not None
    assert end.ended >= end.started
    assert bool(output.err) == (code in (126, 127)), "a message where the command could not be run, and only there"


ARGUMENTS = [
    "",
    " ",
    "a b",
    "'",
    '"',
    "$HOME",
    "*",
    "a\nb",
    "-n",
    "--",
    "\\",
    "\\n",
    "é",
    "\udcff\udcfe",
    "#",
    "~",
    ";",
    "a=b",
]


async def test_arguments_arrive_exactly(ground: Ground) -> None:
    run = await ground.start("printf", r"%s\0", *ARGUMENTS)
    assert (await ground.output(run)).out == b"".join(os.fsencode(one) + b"\0" for one in ARGUMENTS)


async def test_shell_scripts(ground: Ground) -> None:
    run = await ground.start("echo $((6 * 7)) | cat; exit 3", shell=True)
    assert (await ground.output(run)).out == b"42\n"
    assert (await ground.end(run)).exit_code == 3


async def test_environment_and_secrets(ground: Ground) -> None:
    run = await ground.start(
        *("sh", "-c", 'printf "%s|%s|%s|%s" "$GIVEN" "$TOKEN" "$QWEX_RUN_ID" "$QWEX_ATTEMPT"'),
        env=(("GIVEN", "a b\n'\"$x"),),
        secrets={"TOKEN": "s3cr3t'$\n"},
    )
    assert (await ground.output(run)).out == b"a b\n'\"$x|s3cr3t'$\n|%s|1" % next(iter(run)).encode()
    await ground.end(run)
    assert "s3cr3t" not in str(ground.store.list())


async def test_standard_input_from_a_file(ground: Ground, tmp_path: Path) -> None:
    file = tmp_path / "input"
    file.write_bytes(b"one\0two\n")
    run = await ground.start("cat", stdin=StdinMode.FILE, stdin_file=file)
    assert (await ground.output(run)).out == b"one\0two\n"


async def test_without_standard_input(ground: Ground) -> None:
    run = await ground.start("cat")
    assert (await ground.end(run)).exit_code == 0


async def test_live_input(ground: Ground) -> None:
    run = await ground.start("cat", stdin=StdinMode.LIVE)
    (handle,) = run.values()
    large = b"x" * 300_000
    output, _ = await asyncio.gather(ground.output(run), ground.backend.feed(handle, pieces(b"a\n", large, b"\nend")))
    assert output.out == b"a\n" + large + b"\nend"


async def test_live_input_that_nobody_reads(ground: Ground) -> None:
    run = await ground.start("true", stdin=StdinMode.LIVE)
    (handle,) = run.values()
    await ground.backend.feed(handle, pieces(*[b"x" * 65536] * 50))
    assert (await ground.end(run)).exit_code == 0


async def test_a_second_submission_starts_nothing(ground: Ground, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    run_id, spec = ground.record("sh", "-c", f"echo started >>{trace}")
    one = Submission(run_id, spec)
    first = await ground.backend.submit([one], silent)
    assert await ground.backend.submit([one], silent) == first
    await ground.end(first)
    assert await ground.backend.submit([one], silent) == first
    await ground.end(first)
    assert trace.read_text() == "started\n"


async def test_arrays_run_every_index_within_their_limit(ground: Ground, tmp_path: Path) -> None:
    script = (
        f"cd {tmp_path}/running; mkdir $QWEX_TASK_INDEX; ls | wc -l; sleep 0.05; rmdir $QWEX_TASK_INDEX; "
        "test $QWEX_TASK_INDEX != 5"
    )
    (tmp_path / "running").mkdir()
    run = await ground.script(script, array=parse_array("1,3-5,9%2"))
    end = await ground.end(run)
    assert [task.index for task in end.tasks] == [1, 3, 4, 5, 9]
    assert [task.state for task in end.tasks] == [State.SUCCEEDED] * 3 + [State.FAILED, State.SUCCEEDED]
    assert (end.state, end.exit_code) == (State.FAILED, 1)
    output = await ground.output(run)
    assert {chunk.task for chunk in output.chunks} == {1, 3, 4, 5, 9}
    assert max(map(int, output.out.split())) <= 2
    only = await ground.output(run, LogRequest(task=4))
    assert {chunk.key for chunk in only.chunks} == {"4.1"}


@pytest.mark.parametrize(
    ("code", "condition", "state"),
    [
        (0, Condition.OK, State.SUCCEEDED),
        (1, Condition.OK, State.CANCELLED),
        (0, Condition.FAIL, State.CANCELLED),
        (1, Condition.FAIL, State.SUCCEEDED),
        (1, Condition.ANY, State.SUCCEEDED),
        (0, Condition.ANY, State.SUCCEEDED),
    ],
)
async def test_dependencies_of_one_call(ground: Ground, code: int, condition: Condition, state: State) -> None:
    first = ground.record("sh", "-c", f"sleep 0.1; exit {code}")
    second = ground.record("true", after=(Dependency(first[0], condition),))
    third = ground.record("true", after=(Dependency(second[0]),))
    runs = await ground.backend.submit([Submission(*first), Submission(*second), Submission(*third)], silent)
    end = await ground.end({second[0]: runs[second[0]]})
    last = await ground.end({third[0]: runs[third[0]]})
    assert end.state is last.state is state
    if state is State.CANCELLED:
        assert end.reason is last.reason is Reason.DEPENDENCY_FAILED
        assert end.started is None


async def test_dependencies_on_runs_that_ended(ground: Ground) -> None:
    first = await ground.script("exit 1")
    await ground.end(first)
    after = await ground.start("true", after=(Dependency(next(iter(first))),))
    assert (await ground.end(after)).reason is Reason.DEPENDENCY_FAILED
    after = await ground.start("true", after=(Dependency(next(iter(first)), Condition.ANY),))
    assert (await ground.end(after)).state is State.SUCCEEDED


async def test_retries_until_it_works(ground: Ground) -> None:
    run = await ground.script('echo try $QWEX_ATTEMPT; test "$QWEX_ATTEMPT" = 2', retries=5)
    end = await ground.end(run)
    assert end.state is State.SUCCEEDED
    assert [(one.number, one.exit_code) for one in end.tasks[0].attempts] == [(1, 1), (2, 0)]
    output = await ground.output(run)
    assert [(chunk.attempt, chunk.data) for chunk in output.chunks] == [(1, b"try 1\n"), (2, b"try 2\n")]
    assert (await ground.output(run, LogRequest(attempt=2))).out == b"try 2\n"


async def test_time_limit_and_a_job_that_ignores_term(ground: Ground) -> None:
    run = await ground.script("trap '' TERM; sleep 60 & wait; sleep 60", time_limit=0.3, grace=0.3)
    end = await ground.end(run)
    assert (end.state, end.reason) == (State.FAILED, Reason.TIME_LIMIT)
    assert end.ended is not None
    assert end.started is not None


async def test_cancel_lets_a_job_clean_up(ground: Ground) -> None:
    run = await ground.script("trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    assert await ground.first_line(run) == b"ready"
    await ground.backend.cancel(run)
    end = await ground.end(run)
    assert (end.state, end.reason) == (State.CANCELLED, Reason.CANCELLED_BY_USER)
    assert (await ground.output(run)).out == b"ready\nbye\n"
    await ground.backend.cancel(run)
    assert (await ground.end(run)).state is State.CANCELLED


async def test_cancel_kills_what_ignores_term(ground: Ground) -> None:
    run = await ground.script("trap '' TERM; echo ready; while :; do sleep 0.1; done", grace=0.2, retries=3)
    await ground.first_line(run)
    await ground.backend.cancel(run)
    end = await ground.end(run)
    assert end.state is State.CANCELLED
    assert len(end.tasks[0].attempts) == 1, "a cancelled run is not tried again"


async def test_cancel_one_element(ground: Ground) -> None:
    run = await ground.script("echo ready; test $QWEX_TASK_INDEX = 1 || sleep 60", array=parse_array("0-1"))
    await ground.until(run, lambda one: one.tasks[1].state.final)
    await ground.backend.cancel(run, [0])
    end = await ground.end(run)
    assert [task.state for task in end.tasks] == [State.CANCELLED, State.SUCCEEDED]


async def test_suspended_before_the_start(ground: Ground) -> None:
    first = await ground.start("sleep", "60")
    waiting = await ground.start("true", after=(Dependency(next(iter(first)), Condition.ANY),))
    await ground.backend.suspend(waiting)
    assert (await ground.until(waiting, lambda one: one.state is State.HELD)).reason is Reason.HELD_BY_USER
    await ground.backend.cancel(first)
    await ground.end(first)
    assert (await ground.backend.observe(waiting))[next(iter(waiting))].state is State.HELD
    assert "held" in (await ground.backend.why(next(iter(waiting.values()))))[0]
    await ground.backend.resume(waiting)
    assert (await ground.end(waiting)).state is State.SUCCEEDED


async def test_suspended_while_it_runs(ground: Ground, tmp_path: Path) -> None:
    go = tmp_path / "go"
    run = await ground.script(f"echo ready; while ! test -e {go}; do sleep 0.02; done; echo done")
    await ground.first_line(run)
    await ground.backend.suspend(run)
    await ground.until(run, lambda one: one.state is State.SUSPENDED)
    go.touch()
    await ground.backend.resume(run)
    assert (await ground.end(run)).state is State.SUCCEEDED
    assert (await ground.output(run)).out == b"ready\ndone\n"


async def test_a_suspended_run_can_be_cancelled(ground: Ground) -> None:
    run = await ground.script("echo ready; sleep 60")
    await ground.first_line(run)
    await ground.backend.suspend(run)
    await ground.until(run, lambda one: one.state is State.SUSPENDED)
    await ground.backend.cancel(run)
    assert (await ground.end(run)).state is State.CANCELLED


async def test_logs_go_on_where_a_cursor_stands(ground: Ground) -> None:
    run = await ground.script("for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; sleep 0.03; done")
    (handle,) = run.values()
    whole = {Stream.OUT: b"", Stream.ERR: b""}
    cursor: Cursor = {}
    while b"5" not in whole[Stream.OUT] or b"5" not in whole[Stream.ERR]:
        async for chunk in ground.backend.logs(handle, LogRequest(follow=True, cursor=cursor)):
            whole[chunk.stream] += chunk.data
            advance(cursor, [chunk])
            break  # the connection breaks after every chunk
    assert whole[Stream.OUT] == b"".join(b"out %d\n" % number for number in range(1, 6))
    assert whole[Stream.ERR] == b"".join(b"err %d\n" % number for number in range(1, 6))
    await ground.end(run)
    assert (await ground.output(run, LogRequest(cursor=cursor))).chunks == []


async def test_tail(ground: Ground) -> None:
    run = await ground.script("seq 1 1000; printf last; echo oops >&2")
    await ground.end(run)
    assert (await ground.output(run, LogRequest(tail=3))).out == b"999\n1000\nlast"
    assert (await ground.output(run, LogRequest(tail=1))).err == b"oops\n"
    assert (await ground.output(run, LogRequest(tail=0))).chunks == []
    assert (await ground.output(run, LogRequest(tail=9999))).out.startswith(b"1\n2\n")


async def test_logs_since(ground: Ground) -> None:
    run = await ground.script("echo old; sleep 4.5; echo new")
    end = await ground.end(run)
    assert end.ended is not None
    assert (await ground.output(run, LogRequest(since=0))).out == b"old\nnew\n"
    assert (await ground.output(run, LogRequest(since=end.ended - 1))).out == b"new\n"
    assert (await ground.output(run, LogRequest(since=end.ended + 60))).out == b""


async def test_logs_of_a_run_that_waits(ground: Ground) -> None:
    first = await ground.start("sleep", "60")
    waiting = await ground.start("echo", "hello", after=(Dependency(next(iter(first)), Condition.ANY),))
    assert (await ground.output(waiting, LogRequest())).chunks == []
    following = asyncio.ensure_future(ground.output(waiting))
    sentence = (await ground.backend.why(next(iter(waiting.values()))))[0]
    assert next(iter(first)) in sentence
    await ground.backend.cancel(first)
    assert (await following).out == b"hello\n"
    assert await ground.backend.why(next(iter(waiting.values()))) == []


async def test_ten_megabytes_without_a_newline(ground: Ground) -> None:
    run = await ground.script("head -c 10000000 /dev/zero")
    output = await ground.output(run)
    assert output.out == bytes(10_000_000)
    assert max(len(chunk.data) for chunk in output.chunks) <= 1 << 20


async def test_watch_says_everything_first_and_then_what_changed(ground: Ground) -> None:
    first, second = await ground.start("true"), await ground.script("sleep 0.3")
    await ground.end(first)
    seen: list[dict[str, Observation]] = [one async for one in ground.backend.watch({**first, **second})]
    assert seen[0].keys() == {*first, *second}
    assert all(one.keys() <= second.keys() for one in seen[1:])
    assert [one async for one in ground.backend.watch({})] in ([], [{}])


async def test_a_run_the_place_does_not_know(ground: Ground) -> None:
    known = await ground.start("true")
    await ground.end(known)
    assert (await ground.backend.observe({**known, "000000000": {"run": "000000000"}})).keys() == known.keys()


async def test_results_of_a_run_that_changed_nothing(ground: Ground, tmp_path: Path) -> None:
    run = await ground.start("true")
    await ground.end(run)
    into = tmp_path / "into"
    into.mkdir()
    fetched = await ground.backend.results(next(iter(run.values())), into, silent)
    assert fetched is not None
    assert (fetched.paths, fetched.size) == ((), 0)


async def test_execute_beside_a_running_task(ground: Ground, tmp_path: Path) -> None:
    run = await ground.script("echo here >marker; echo ready; sleep 60", env=(("COLOUR", "blue"),))
    await ground.first_line(run)
    (handle,) = run.values()
    with open(os.devnull) as nothing, open(tmp_path / "out", "wb") as out:
        files = nothing.fileno(), out.fileno(), out.fileno()
        command = ["sh", "-c", 'cat marker; echo "$COLOUR $QWEX_RUN_ID"; exit 9']
        assert await ground.backend.execute(handle, command, 0, *files, terminal=False) == 9
    assert (tmp_path / "out").read_text() == f"here\nblue {next(iter(run))}\n"
    await ground.backend.cancel(run)
    await ground.end(run)
    with open(os.devnull, "r+") as nothing:
        files = nothing.fileno(), nothing.fileno(), nothing.fileno()
        with pytest.raises(BackendError):
            await ground.backend.execute(handle, ["true"], 0, *files, terminal=False)


async def test_forget(ground: Ground) -> None:
    run = await ground.start("echo", "hello")
    await ground.end(run)
    await ground.backend.forget(run)
    with suppress(QwexError):  # a place may also say that it knows nothing of it
        assert (await ground.output(run, LogRequest())).chunks == []


async def test_what_a_job_leaves_behind_is_ended(ground: Ground, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    run = await ground.script(f"sleep 60 >/dev/null 2>&1 & echo $! >{file}")
    await ground.end(run)
    pid = int(file.read_text())
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"process {pid} is still there")


async def test_fifty_runs_of_one_call(ground: Ground) -> None:
    entries = [ground.record("sh", "-c", f"echo {number}") for number in range(50)]
    runs = await ground.backend.submit([Submission(*one) for one in entries], silent)
    last: dict[str, Observation] = {}
    async for changed in ground.backend.watch(runs):
        last.update(changed)
    assert {one.state for one in last.values()} == {State.SUCCEEDED}
    for number, (run_id, _) in enumerate(entries):
        assert (await ground.output({run_id: runs[run_id]})).out == b"%d\n" % number
