"""Output on its way through: every byte, whatever the reader does, and signals all the while."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from qwex.backends.base import Stream
from qwex.cli import streaming
from qwex.cli.bridge import Signals, Stopped
from qwex.cli.output import OutputClosed, write_all
from qwex.cli.streaming import Sink, passing_on


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Where to read, and where to write. The test closes what it is done with."""
    ends = os.pipe()
    yield ends
    for fd in ends:
        with suppress(OSError):  # closed by the test
            os.close(fd)


def collect(fd: int, into: list[bytes]) -> threading.Thread:
    """Read ``fd`` to its end, beside the test."""

    def read() -> None:
        while data := os.read(fd, 1 << 16):
            into.append(data)

    thread = threading.Thread(target=read)
    thread.start()
    return thread


@pytest.mark.parametrize("blocking", [True, False])
def test_every_byte_arrives(pipe: tuple[int, int], blocking: bool) -> None:
    os.set_blocking(pipe[1], blocking)
    data = os.urandom(3_000_000)
    got: list[bytes] = []
    reader = collect(pipe[0], got)
    sink = Sink(Signals(), pipe[1])
    for start in range(0, len(data), 70_001):
        sink(Stream.OUT, data[start : start + 70_001])
    sink.close()
    assert os.get_blocking(pipe[1]) is blocking
    os.close(pipe[1])
    reader.join()
    assert b"".join(got) == data


def test_every_byte_arrives_where_a_pipe_cannot_be_opened_again(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "_again", lambda fd: None)
    data = os.urandom(1_000_000)
    got: list[bytes] = []
    reader = collect(pipe[0], got)
    sink = Sink(Signals(), pipe[1])
    sink(Stream.OUT, data)
    sink.close()
    os.close(pipe[1])
    reader.join()
    assert b"".join(got) == data


def test_a_reader_that_left_is_said_once(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    sink = Sink(Signals(), pipe[1])
    with pytest.raises(OutputClosed):
        sink(Stream.OUT, b"line\n")
    sink(Stream.OUT, b"more\n")


def test_a_reader_that_stands_still_does_not_hold_up_a_signal(pipe: tuple[int, int]) -> None:
    signals = Signals()
    sink = Sink(signals, pipe[1])
    timer = threading.Timer(0.2, signal.pthread_kill, (threading.main_thread().ident, signal.SIGTERM))

    async def follow() -> None:
        sink(Stream.OUT, b"x" * (1 << 20))  # nobody reads: it never fits

    async def work() -> None:
        await passing_on(signals, follow(), pipe[1])

    with signals.handled():
        timer.start()
        with pytest.raises(Stopped) as stopped:
            asyncio.run(work())
    assert stopped.value.exit_status == 143


def test_the_first_signal_lets_the_work_end_in_order() -> None:
    signals, tidied = Signals(), []

    async def follow() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            tidied.append(True)

    with signals.handled(), pytest.raises(Stopped) as stopped:
        asyncio.run(passing_on(signals, follow()))
    assert (stopped.value.number, stopped.value.exit_status, tidied) == (signal.SIGINT, 130, [True])


def test_the_second_signal_ends_what_does_not_end() -> None:
    script = (
        "import asyncio, os, signal, sys\n"
        "from qwex.cli.bridge import Signals, Stopped\n"
        "from qwex.cli.streaming import passing_on\n"
        "async def follow():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        await asyncio.Event().wait()\n"
        "    finally:\n"
        "        os.kill(os.getpid(), signal.SIGHUP)\n"
        "        os.read(os.pipe()[0], 1)  # would never return\n"
        "signals = Signals()\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever started the tests may have had it ignored\n"
        "with signals.handled():\n"
        "    try:\n"
        "        asyncio.run(passing_on(signals, follow()))\n"
        "    except Stopped as stopped:\n"
        "        sys.exit(stopped.exit_status)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, timeout=60)
    assert done.returncode == 129, done.stderr


def test_signals_are_as_they_were_afterwards() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with Signals().handled():
        assert signal.getsignal(signal.SIGTERM) is not before[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_an_ignored_signal_stays_ignored() -> None:
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals().handled():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, old)


def test_a_cancellation_that_is_no_signal_stays_one() -> None:
    async def give_up() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(passing_on(Signals(), give_up()))


def test_writing_to_a_full_pipe_waits(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    got: list[bytes] = []
    reader = collect(pipe[0], got)
    write_all(pipe[1], b"y" * 2_000_000)
    os.close(pipe[1])
    reader.join()
    assert sum(map(len, got)) == 2_000_000


def test_a_stopped_command_ends_with_the_number_of_its_signal() -> None:
    script = (
        "import asyncio, os, signal, sys\n"
        "import qwex.services.starting as starting\n"
        "from qwex.cli import bridge, terminal\n"
        "def init(directory):\n"
        "    async def work(ctx, signals):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        await asyncio.Event().wait()\n"
        "    return bridge.run(terminal.Terminal(), work)\n"
        "starting.init = init\n"
        "from qwex.cli.app import run\n"
        "sys.exit(run(['init']))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (143, "")


def test_a_reader_that_leaves_is_noticed_without_writing(pipe: tuple[int, int]) -> None:
    tidied = []

    async def silent() -> None:
        try:
            os.close(pipe[0])
            await asyncio.Event().wait()
        finally:
            tidied.append(True)

    with pytest.raises(OutputClosed):
        asyncio.run(passing_on(Signals(), silent(), pipe[1]))
    assert tidied == [True]
