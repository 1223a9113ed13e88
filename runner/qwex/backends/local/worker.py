"""The process that runs this user's local jobs: ``python -m qwex.backends.local.worker CONFIGURATION`` (JSON).

One per state directory, which its lock makes sure of; whoever submits starts it, its socket wakes it, and it leaves when there has
been nothing to do for a while. One thread does everything but the copying of large workspaces. Each turn of its loop gathers what
happened (ends of processes, words from clients, timers) and then makes at most one transaction: outcomes, and the next leases.

It may be killed at any moment: leases, intentions and outcomes are in the database, exit codes in files, and the next worker
goes on from there (``Supervisor.adopt``). TERM makes it leave at once; jobs go on and are taken up by the next one.
"""

from __future__ import annotations

import fcntl
import os
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress

from qwex.adapters import machine
from qwex.backends.local.clock import Clock
from qwex.backends.local.configuration import Configuration
from qwex.backends.local.layout import Layout, socket_path
from qwex.backends.local.supervisor import Supervisor
from qwex.errors import QwexError

__all__ = ["main", "serve"]

_LOG_LIMIT = 1 << 20
_LOCK_PATIENCE = 30.0


def _log(text: str) -> None:
    with suppress(OSError):  # on a full disk the jobs matter, and the log does not
        sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} [{os.getpid()}] {text}\n")
        sys.stderr.flush()


def _lock(layout: Layout) -> int | None:
    """The lock's descriptor; None when another worker is there to stay. One that is just leaving is waited for."""
    fd = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + _LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                if probe.connect_ex(os.fspath(socket_path(layout.state))) == 0 or time.monotonic() > deadline:
                    os.close(fd)
                    return None
            time.sleep(0.02)


def serve(setup: Configuration, clock: Clock | None = None) -> None:
    """Be the worker until there is nothing to do. Returns at once when there is one already."""
    layout = Layout.of(setup.paths)
    lock = _lock(layout)
    if lock is None:
        return
    if os.fstat(2).st_size > _LOG_LIMIT:
        os.ftruncate(2, 0)
    with suppress(OSError):  # a full disk; only people and `doctor` read it
        layout.pid.write_text(f"{os.getpid()}\n")
    machine.become_subreaper()
    selector = selectors.DefaultSelector()
    awake, waker = os.pipe()
    os.set_blocking(awake, False)
    os.set_blocking(waker, False)
    supervisor = Supervisor(setup, selector, waker, clock or Clock(), _log)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: supervisor.stop())
    selector.register(awake, selectors.EVENT_READ, lambda events: _drain(awake))
    try:
        supervisor.run()
    finally:
        signal.set_wakeup_fd(-1)
        layout.pid.unlink(missing_ok=True)
        os.close(lock)


def _drain(fd: int) -> None:
    try:
        while os.read(fd, 4096):
            continue
    except BlockingIOError:
        return


def main() -> None:
    """Entry of the module."""
    # A worker started from inside a job is no part of that job.
    for name in ("QWEX_RUN_ID", "QWEX_TASK_INDEX", "QWEX_TASK_COUNT", "QWEX_ATTEMPT"):
        os.environ.pop(name, None)
    try:
        serve(Configuration.from_text(sys.argv[1]))
    except QwexError as error:
        _log(f"leaves: {error.message}")
        sys.exit(1)


if __name__ == "__main__":
    main()
