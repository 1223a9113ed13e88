"""What the worker does with leased tasks, from the lease to the recorded outcome."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import selectors
import shutil
import signal
from collections.abc import Callable, Mapping
from functools import partial

from qwex.adapters import machine
from qwex.backends.local import attempts, pruning, trees
from qwex.backends.local.attempts import Attempt
from qwex.backends.local.capacity import Capacity, Free, Turns
from qwex.backends.local.clock import Clock, Timers
from qwex.backends.local.configuration import Configuration
from qwex.backends.local.hub import Hub
from qwex.backends.local.inputs import Inputs
from qwex.backends.local.layout import Layout, environment_text, parse_environment, socket_path
from qwex.errors import QwexError, StoreError
from qwex.model.states import Reason, State
from qwex.store.database import Database
from qwex.store.entries import Candidate, Claim, Outcome
from qwex.store.queue import LONGEST_BACKOFF, Queue

__all__ = ["Supervisor"]

_LOOK_AROUND = 30.0  # seconds between looks at what nobody tells: a removed socket, a replaced database
_GROWTH = 2.0  # seconds between the lines of `times`
_SLOW_WATCH = 1.0  # seconds between looks at adopted processes where the system does not tell of their end
_FULL_DISK_PAUSE = 1.0
_COMPANY = 0.003

Key = tuple[int, int]


class Supervisor:
    """The worker's state. ``run`` returns when it has left; the caller holds the lock until then."""

    def __init__(
        self,
        setup: Configuration,
        selector: selectors.BaseSelector,
        waker: int,
        clock: Clock,
        log: Callable[[str], None],
    ) -> None:
        self._setup, self._selector, self._clock, self._log = setup, selector, clock, log
        self._layout = Layout.of(setup.paths)
        self._lease = secrets.token_hex(8)
        self._database = Database(self._layout.database)
        self._queue = Queue(self._database, self._on_change)
        self._timers = Timers(clock)
        self._by_key: dict[Key, Attempt] = {}
        self._inputs = Inputs(self._by_key.values(), self._timers)
        self._hub = Hub(
            selector,
            socket_path(setup.paths.state),
            self._on_poke,
            lambda line: self._inputs.offered(line, self._hub),
            self._inputs.gone,
        )
        self._copier = trees.Copier(setup.paths, waker)
        self._capacity = Capacity.of(setup)
        self._free = Free.of(self._capacity)
        self._leased: dict[Key, Claim] = {}
        self._running: dict[int, Attempt] = {}
        self._early: dict[Key, str] = {}
        self._outcomes: list[Outcome] = []
        self._states: list[tuple[Claim, State]] = []
        self._parsed: tuple[bytes, dict[bytes, bytes]] = (b"", {})
        self._turns = Turns(clock.monotonic)
        self._growing = False
        self._oom_count = attempts.OomCount(clock)
        self._dirty = True
        self._stopping = False
        self._idle_since: float | None = None
        self._due = self._timers.after(0, lambda: None)

    def stop(self) -> None:
        """Leave at the next opportunity; safe in a signal handler."""
        self._stopping = True

    def run(self) -> None:
        self._hub.open()
        self._log(f"starts: {self._capacity.cpus:g} CPUs, {len(self._capacity.gpus)} GPUs")
        self.adopt()
        self._timers.after(_LOOK_AROUND, self._look_around)
        while not self._stopping:
            self._turn()
        self._hub.close()
        self._copier.close()
        self._database.close()
        self._log("leaves")

    def _turn(self) -> None:
        for key, events in self._selector.select(self._wait()):
            key.data(events)
        self._timers.run()
        for prepared in self._copier.finished():
            prepared()
        # New jobs are started before the old ones are cleared away: their outcomes are recorded while the new ones run.
        ended = self._reap()
        if self._dirty or self._outcomes or self._states or ended:
            self._tick()  # an outcome alone comes here after _COMPANY seconds without an event
        for attempt, code in ended:
            self._clear(attempt, code, self._clock.wall())
        self._leave_when_idle()

    def _wait(self) -> float | None:
        """Seconds to wait for events. While other jobs run, an outcome may wait a moment for company in its transaction."""
        until = self._timers.wait()
        if self._dirty or self._states or (self._outcomes and not self._running):
            return 0
        if self._outcomes:
            return _COMPANY if until is None else min(until, _COMPANY)
        return until

    # Leases

    def _tick(self) -> None:
        outcomes, states, self._outcomes, self._states = self._outcomes, self._states, [], []
        self._dirty = False
        refused: list[tuple[Candidate, str]] = []

        def choose() -> list[tuple[Candidate, tuple[int, ...]]]:
            if self._free.cpus <= 0:
                return []
            chosen, never = self._turns.pick(self._queue.candidates(), self._free, self._capacity)
            refused.extend(never)
            return chosen

        try:
            claims = self._queue.tick(self._lease, self._clock.wall(), outcomes, choose, states)
            if refused:
                self._queue.refuse(refused, self._clock.wall())
                self._dirty = True
            due = self._queue.next_due(self._clock.wall())
        except StoreError as error:
            if self._database.replaced():
                self._abandon()
                return
            self._log(error.message)
            self._outcomes, self._states = outcomes + self._outcomes, states + self._states
            self._later(_FULL_DISK_PAUSE)
            return
        for outcome in outcomes:
            self._leased.pop((outcome.claim.seq, outcome.claim.index), None)
        for claim in claims:
            self._prepare(claim)
        if due is not None:
            self._due.cancel()
            self._due = self._timers.after(due, self._set_dirty)

    def _set_dirty(self) -> None:
        self._dirty = True

    def _later(self, seconds: float) -> None:
        self._timers.after(seconds, self._set_dirty)

    def _on_change(self, changed: Mapping[str, State]) -> None:
        for run_id, state in changed.items():
            if state.final:
                pruning.remove_private(self._layout.run(run_id))
        self._hub.tell(changed)

    # From the lease to the process

    def _prepare(self, claim: Claim) -> None:
        key = (claim.seq, claim.index)
        self._leased[key] = claim
        self._free.take(claim.spec.resources, claim.gpus)
        files = self._layout.attempt(claim.run_id, claim.index, claim.attempt)
        self._copier.prepare(claim, files, partial(self._prepared, claim))

    def _prepared(self, claim: Claim, error: Exception | None) -> None:
        """The workspace is there: start the job, unless it was cancelled meanwhile."""
        key = (claim.seq, claim.index)
        files = self._layout.attempt(claim.run_id, claim.index, claim.attempt)
        early = self._early.pop(key, "")
        if early == "cancel":
            self._unbegun(claim, State.CANCELLED, Reason.CANCELLED_BY_USER, "")
            return
        if error is None:
            try:
                if not os.path.isdir(os.path.join(files.work, claim.spec.cwd)):
                    os.makedirs(os.path.join(files.work, claim.spec.cwd))
                attempt = attempts.begin(
                    claim, files, self._environment(claim), self._layout.run(claim.run_id), self._clock.monotonic()
                )
            except (OSError, QwexError) as failed:
                error = failed
        if error is not None:
            self._not_started(claim, error)
            return
        attempt.oom_kills = self._oom_count.recent()
        self._started(attempt)
        self._arm(attempt)
        self._inputs.begun(attempt, self._hub)
        if early:
            self._obey()

    def _started(self, attempt: Attempt) -> None:
        self._running[attempt.pid] = self._by_key[attempt.key] = attempt
        if not self._growing:
            self._growing = True
            self._timers.after(_GROWTH, self._note_growth)

    def _not_started(self, claim: Claim, error: Exception) -> None:
        if isinstance(error, OSError) and error.errno in (errno.EAGAIN, errno.ENOMEM):
            self._log(f"{claim.run_id}.{claim.index} is put back: {error.strerror}")
            self._free.give(claim.spec.resources, claim.gpus)
            self._leased.pop((claim.seq, claim.index), None)
            self._queue.give_back(claim, self._lease, self._clock.wall())
            self._later(_FULL_DISK_PAUSE)
            return
        if isinstance(error, OSError) and error.errno == errno.E2BIG:
            self._unbegun(
                claim, State.FAILED, Reason.COMMAND_NOT_EXECUTABLE, "the arguments and environment are too long"
            )
            return
        text = error.message if isinstance(error, QwexError) else str(error)
        self._unbegun(claim, State.FAILED, Reason.WORKSPACE_FAILED, text)

    def _unbegun(self, claim: Claim, state: State, reason: Reason, detail: str) -> None:
        """An attempt that ends without a process."""
        self._free.give(claim.spec.resources, claim.gpus)
        files = self._layout.attempt(claim.run_id, claim.index, claim.attempt)
        shutil.rmtree(files.work, ignore_errors=True)
        self._record(claim, state, reason, detail, None, self._clock.wall())

    def _environment(self, claim: Claim) -> dict[bytes, bytes]:
        """Runs of one call have the same, mostly: it is taken apart once."""
        text = environment_text(self._layout.run(claim.run_id) + "/env")
        if text != self._parsed[0]:
            self._parsed = text, parse_environment(text)
        return self._parsed[1]

    def _arm(self, attempt: Attempt) -> None:
        if limit := attempt.claim.spec.time_limit:
            left = attempt.began + attempt.paused + limit - self._clock.monotonic()
            self._timers.after(max(0.0, left), partial(self._check_limit, attempt))

    def _check_limit(self, attempt: Attempt) -> None:
        if (
            self._running.get(attempt.pid) is not attempt
            or attempt.ending is not Reason.NONE
            or attempt.suspended is not None
        ):
            return
        if attempt.began + attempt.paused + attempt.claim.spec.time_limit > self._clock.monotonic():
            self._arm(attempt)  # it was suspended for a while
            return
        self._end(attempt, Reason.TIME_LIMIT)

    # What clients want of running tasks

    def _on_poke(self) -> None:
        self._dirty = True
        if self._database.replaced():
            self._abandon()
            return
        self._hub.tell_all()
        self._obey()

    def _obey(self) -> None:
        try:
            wanted = self._queue.wanted()
        except StoreError as error:
            self._log(error.message)
            return
        for seq, index, want in wanted:
            attempt = self._by_key.get((seq, index))
            if attempt is None and (seq, index) in self._leased:
                self._early[seq, index] = want  # obeyed when its workspace is there
            elif attempt is None:
                continue
            elif want == "cancel" and attempt.ending is Reason.NONE:
                self._end(attempt, Reason.CANCELLED_BY_USER)
            elif want == "suspend" and attempt.suspended is None:
                attempt.signal(signal.SIGSTOP)
                attempt.suspended = self._clock.monotonic()
                self._free.cpus += attempt.claim.spec.resources.cpus
                self._states.append((attempt.claim, State.SUSPENDED))
            elif want == "resume" and attempt.suspended is not None:
                self._continue(attempt)
                self._arm(attempt)
                self._states.append((attempt.claim, State.RUNNING))

    def _continue(self, attempt: Attempt) -> None:
        if attempt.suspended is not None:
            attempt.signal(signal.SIGCONT)
            attempt.paused += self._clock.monotonic() - attempt.suspended
            attempt.suspended = None
            self._free.cpus -= attempt.claim.spec.resources.cpus

    def _end(self, attempt: Attempt, reason: Reason) -> None:
        """TERM now, KILL after the grace. The reason is written down first, for a successor."""
        attempt.ending = reason
        if reason is Reason.TIME_LIMIT:
            try:
                self._queue.intend(attempt.claim, self._lease, "time-limit")
            except StoreError as error:
                self._log(error.message)
        attempt.signal(signal.SIGTERM)
        self._continue(attempt)
        self._timers.after(attempt.claim.spec.grace, partial(self._kill, attempt))

    def _kill(self, attempt: Attempt) -> None:
        if self._running.get(attempt.pid) is attempt:
            attempt.killed = True
            attempt.signal(signal.SIGKILL)

    # From the end of the process to the outcome

    def _reap(self) -> list[tuple[Attempt, int | None]]:
        """Processes that ended; what they held of the machine is free again."""
        ended: list[tuple[Attempt, int | None]] = []
        while True:
            try:
                # Looked at before it is waited for: while it is a zombie nobody else can have its process group's number.
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                break
            if info is None:
                break
            attempt = self._running.pop(info.si_pid, None)
            if attempt is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(info.si_pid, signal.SIGKILL)
                status = info.si_status if info.si_code == os.CLD_EXITED else 128 + info.si_status
                ended.append((attempt, status))
            os.waitpid(info.si_pid, 0)
        if ended or not self._running:
            attempts.kill_strays(self._running)
        for attempt, _ in ended:
            self._release(attempt)
        return ended

    def _release(self, attempt: Attempt) -> None:
        self._by_key.pop(attempt.key, None)
        claim = attempt.claim
        self._free.give(claim.spec.resources, claim.gpus, cpus=attempt.suspended is None)

    def _adopted_ended(self, attempt: Attempt, events: int = 0) -> None:
        if self._running.pop(attempt.pid, None) is not attempt:
            return
        if attempt.watch is not None:
            self._selector.unregister(attempt.watch)
        machine.kill_marked(attempt.pid, attempt.marks)
        found = attempts.trace(attempt.files)
        code = 128 + signal.SIGKILL if found.code is None and attempt.killed else found.code
        self._release(attempt)
        self._clear(attempt, code, found.ended or self._clock.wall())

    def _clear(self, attempt: Attempt, code: int | None, ended: float) -> None:
        if attempt.sizes != (0, 0):
            attempt.note_growth(ended)
        attempt.close()
        claim = attempt.claim
        verdict = attempts.ended_as(attempt, code)
        self._copier.gather(claim, attempt.files, partial(self._gathered, claim, verdict, ended))

    def _gathered(
        self,
        claim: Claim,
        verdict: tuple[State, Reason, str, int | None],
        ended: float,
        results: tuple[int, int],
        error: Exception | None,
    ) -> None:
        state, reason, detail, code = verdict
        if error is not None:
            text = error.message if isinstance(error, QwexError) else str(error)
            detail = f"{detail}; its results could not be kept: {text}".removeprefix("; ")
            self._log(f"{claim.run_id}.{claim.index}: {detail}")
        self._record(claim, state, reason, detail, code, ended, results)

    def _record(
        self,
        claim: Claim,
        state: State,
        reason: Reason,
        detail: str,
        code: int | None,
        ended: float,
        results: tuple[int, int] = (0, 0),
    ) -> None:
        again = state in (State.FAILED, State.LOST) and claim.failures < claim.spec.retries
        retry_in = min(2.0**claim.failures, LONGEST_BACKOFF) if again else None
        self._outcomes.append(Outcome(claim, state, reason, detail, code, ended, retry_in, *results))

    # Taking up what a former worker left

    def adopt(self) -> None:
        """Every lease of a former worker: finished with its exit code, watched on, put back, or lost. Never left as running."""
        boot = machine.boot_id()
        restarted = self._queue.fact("boot") not in (None, boot)
        self._queue.set_fact("boot", boot)
        for claim in self._queue.take_over(self._lease):
            key = (claim.seq, claim.index)
            self._leased[key] = claim
            files = self._layout.attempt(claim.run_id, claim.index, claim.attempt)
            found = attempts.trace(files)
            self._log(f"takes up {claim.run_id}.{claim.index}: {found}")
            self._free.take(claim.spec.resources, claim.gpus)
            if not found.begun and claim.want == "cancel":
                self._unbegun(claim, State.CANCELLED, Reason.CANCELLED_BY_USER, "")
                continue
            if not found.begun:
                self._free.give(claim.spec.resources, claim.gpus)
                del self._leased[key]
                shutil.rmtree(files.work, ignore_errors=True)
                self._queue.give_back(claim, self._lease, self._clock.wall())
                continue
            elapsed = max(0.0, self._clock.wall() - claim.started)
            attempt = Attempt(claim, files, found.pid or 0, self._clock.monotonic() - elapsed, child=False)
            attempt.marks = attempts.marks(claim)
            attempt.oom_kills = machine.oom_kills()
            if claim.state is State.SUSPENDED:
                attempt.suspended = self._clock.monotonic()
                self._free.cpus += claim.spec.resources.cpus
            if found.pid is not None:
                self._watch(attempt)
                continue
            if not restarted:
                machine.kill_marked(None, attempt.marks)
            if claim.want in ("cancel", "time-limit"):
                attempt.ending = Reason.CANCELLED_BY_USER if claim.want == "cancel" else Reason.TIME_LIMIT
            elif found.code is None and restarted:
                attempt.ending = Reason.HOST_RESTARTED
            self._release(attempt)
            self._clear(attempt, found.code, found.ended or self._clock.wall())
        self._on_poke()
        self._tick()  # before the first client is answered: it shall see the truth

    def _watch(self, attempt: Attempt) -> None:
        self._started(attempt)
        attempt.watch = machine.watch(attempt.pid)
        if attempt.watch is not None:
            self._selector.register(attempt.watch, selectors.EVENT_READ, partial(self._adopted_ended, attempt))
        else:
            self._timers.after(_SLOW_WATCH, partial(self._look_after, attempt))
        if attempt.claim.want == "time-limit":
            self._end(attempt, Reason.TIME_LIMIT)
        self._arm(attempt)

    def _look_after(self, attempt: Attempt) -> None:
        if not machine.alive(attempt.pid):
            self._adopted_ended(attempt)
        elif self._running.get(attempt.pid) is attempt:
            self._timers.after(_SLOW_WATCH, partial(self._look_after, attempt))

    # Now and then

    def _note_growth(self) -> None:
        epoch = self._clock.wall()
        for attempt in self._running.values():
            attempt.note_growth(epoch)
        self._growing = bool(self._running)
        if self._growing:
            self._timers.after(_GROWTH, self._note_growth)

    def _look_around(self) -> None:
        if self._database.replaced():
            self._abandon()
        elif self._hub.lost():
            self._hub.reopen()
        self._timers.after(_LOOK_AROUND, self._look_around)

    def _abandon(self) -> None:
        """The records were replaced: nobody knows of these jobs any more, so none of them may go on."""
        self._log(f"{self._layout.database} was replaced: ends {len(self._running)} jobs and leaves")
        for attempt in self._running.values():
            attempt.signal(signal.SIGKILL)
        self._stopping = True

    def _leave_when_idle(self) -> None:
        if self._leased or self._outcomes or self._dirty or self._hub.clients:
            self._idle_since = None
            return
        now = self._clock.monotonic()
        if self._idle_since is None:
            self._idle_since = now
            self._timers.after(self._setup.idle, lambda: None)
        if now - self._idle_since < self._setup.idle or self._queue.busy():
            return
        pruning.prune(self._setup.paths, self._queue, self._setup.keep_days, self._clock.wall(), self._log)
        # Whoever submits commits before it calls: after the socket is closed either its run is seen here, or its call fails
        # and it starts another worker, which waits for the lock.
        self._hub.close()
        if self._queue.busy():
            self._hub.open()
            self._dirty = True
        else:
            self._stopping = True
