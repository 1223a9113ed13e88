"""Notes, warnings, questions and progress."""

from __future__ import annotations

import os
import pty
import sys
import time

import pytest

from qwex.cli.terminal import Terminal, coloured, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünïcode", "plain ünïcode"),
        ("two\nlines\tand \x1b[31mred", "two\\nlines\\tand \\x1b[31mred"),
        (os.fsdecode(b"no \xff utf-8"), "no \\xff utf-8"),
    ],
)
def test_nothing_a_terminal_would_obey(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_everything_goes_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    terminal.note("sent")
    terminal.warn("careful")
    terminal.error("no", "try yes")
    assert capfd.readouterr() == ("", "qwex: sent\nwarning: careful\nerror: no\nhint: try yes\n")


def test_quiet_keeps_warnings_and_errors(capfd: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    terminal.quiet = True
    terminal.note("sent")
    terminal.warn("careful")
    terminal.error("no")
    assert capfd.readouterr().err == "warning: careful\nerror: no\n"


def test_nobody_is_asked_where_nobody_is(capfd: pytest.CaptureFixture[str]) -> None:
    assert Terminal().confirm("Really?") is False
    agreeing = Terminal()
    agreeing.agree = True
    assert agreeing.confirm("Really?") is True
    assert capfd.readouterr().err == ""


def test_telling_nobody_is_no_error() -> None:
    kept = os.dup(2)
    read, write = os.pipe()
    os.close(read)
    os.dup2(write, 2)
    os.close(write)
    try:
        Terminal().note("anyone?")
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def test_what_is_quick_shows_no_progress(capfd: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    for done in range(0, 101, 10):
        terminal.progress("uploading", done, 100)
    assert capfd.readouterr().err == ""


def test_what_takes_long_is_said_in_plain_lines(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    terminal = Terminal()
    for done in range(20):
        now[0] += 1
        terminal.progress("uploading", done << 20, 20 << 20)
    now[0] += 1
    terminal.progress("uploading", 20 << 20, 20 << 20)
    said = capfd.readouterr().err.splitlines()
    assert said == [f"qwex: uploading: {done * 5}%, {done} MiB of 20 MiB" for done in (5, 10, 15)]


def test_colour_only_on_a_terminal_that_has_some_and_if_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    parent, child = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert coloured(child)
    with open(os.devnull, "wb") as nowhere:
        assert not coloured(nowhere.fileno())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not coloured(child)
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not coloured(child)
    os.close(parent)
    os.close(child)


def on_a_terminal(script: str, typed: bytes = b"") -> bytes:
    """What ``script`` shows on a terminal of its own where ``typed`` is typed."""
    pid, fd = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        os.execv(sys.executable, [sys.executable, "-c", script])
    if typed:
        os.write(fd, typed)
    shown = b""
    try:
        while data := os.read(fd, 65536):
            shown += data
    except OSError:  # its last process has ended (Linux says EIO)
        pass
    os.close(fd)
    os.waitpid(pid, 0)
    return shown


@pytest.mark.parametrize(
    ("typed", "answer"), [(b"y\n", b"True"), (b"Yes\n", b"True"), (b"\n", b"False"), (b"no\n", b"False")]
)
def test_a_question_is_asked_on_the_terminal(typed: bytes, answer: bytes) -> None:
    script = "from qwex.cli.terminal import Terminal; import sys; sys.stdout.write(str(Terminal().confirm('Send it?')))"
    shown = on_a_terminal(script, typed)
    assert b"Send it? [y/N] " in shown
    assert shown.endswith(answer)


def test_a_bar_is_shown_on_a_terminal_and_notes_stand_above_it() -> None:
    script = (
        "import time\n"
        "from qwex.cli import terminal\n"
        "now = [0.0]\n"
        "time.monotonic = lambda clock=time.monotonic: clock() + now[0]\n"
        "one = terminal.Terminal()\n"
        "one.progress('uploading [a]', 0, 100 << 20)\n"
        "now[0] += 2\n"
        "one.progress('uploading [a]', 50 << 20, 100 << 20)\n"
        "one.note('reconnected')\n"
        "one.progress('uploading [a]', 100 << 20, 100 << 20)\n"
    )
    shown = on_a_terminal(script)
    assert b"uploading [a]" in shown
    assert b"qwex: reconnected\r\n" in shown
    assert shown.endswith(b"\x1b[?25h") or b"\x1b[?25h" in shown  # the cursor is visible again
