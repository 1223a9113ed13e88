"""What this machine gives to jobs, what of it is taken, and who is next.

A suspended task gives back its CPUs and keeps its memory and GPUs, which its stopped processes still hold; once continued it has its
CPUs again at once, and nothing new starts until the sum fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from qwex.adapters import machine
from qwex.adapters.machine import Gpu
from qwex.backends.local.configuration import Configuration
from qwex.model.jobs import Resources
from qwex.model.units import size_text
from qwex.store.entries import Candidate

__all__ = ["PATIENCE", "Capacity", "Free", "Turns", "never_fits", "pick"]

PATIENCE = 30.0
"""Seconds the first in the queue is overtaken by smaller ones; then what it lacks is kept for it."""

_FEW = 1e-9


@dataclass(frozen=True, slots=True)
class Capacity:
    """All there is: CPUs, bytes, GPUs."""

    cpus: float
    mem: int
    gpus: tuple[Gpu, ...] = ()

    @classmethod
    def of(cls, chosen: Configuration) -> Capacity:
        """What the machine has, as far as the settings do not say otherwise."""
        found = machine.gpus()
        return cls(
            chosen.cpus or machine.cpus(),
            machine.memory() if chosen.mem is None else chosen.mem,
            found if chosen.gpus is None else found[: chosen.gpus],
        )

    def suiting(self, product: str) -> tuple[Gpu, ...]:
        """GPUs whose product's name holds ``product``, whatever the case."""
        return tuple(gpu for gpu in self.gpus if product.lower() in gpu.product.lower())


@dataclass(slots=True)
class Free:
    """What is not taken. CPUs and memory may be below zero after a limit was lowered or a task continued."""

    cpus: float
    mem: int
    gpus: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, capacity: Capacity) -> Free:
        return cls(capacity.cpus, capacity.mem, {gpu.index for gpu in capacity.gpus})

    def copy(self) -> Free:
        return Free(self.cpus, self.mem, set(self.gpus))

    def take(self, need: Resources, gpus: Iterable[int], *, cpus: bool = True) -> None:
        self.cpus -= need.cpus if cpus else 0
        self.mem -= need.mem
        self.gpus.difference_update(gpus)

    def give(self, need: Resources, gpus: Iterable[int], *, cpus: bool = True) -> None:
        self.cpus += need.cpus if cpus else 0
        self.mem += need.mem
        self.gpus.update(gpus)


def never_fits(need: Resources | Candidate, capacity: Capacity) -> str:
    """Why this can never run here, "" when it can."""
    if need.cpus > capacity.cpus + _FEW:
        return f"it asks for {need.cpus:g} CPUs, and this machine gives {capacity.cpus:g}"
    if need.mem > capacity.mem:
        return f"it asks for {size_text(need.mem)} of memory, and this machine gives {size_text(capacity.mem)}"
    if need.gpus > len(found := capacity.suiting(need.gpu_product)):
        what = f"{need.gpus} {need.gpu_product}".strip()
        return f"it asks for {what} GPUs, and this machine has {len(found) or 'none'}"
    return ""


def pick(
    candidates: Iterable[Candidate], free: Free, capacity: Capacity, waited: Callable[[Candidate], float]
) -> tuple[list[tuple[Candidate, tuple[int, ...]]], list[tuple[Candidate, str]], Candidate | None]:
    """Who starts now with which GPUs, who never can and why, and who is first among those that wait for resources.

    ``candidates`` come by priority then age, and are read no further than there are CPUs left. Smaller ones may overtake the first
    that does not fit; when that one ``waited`` longer than PATIENCE seconds, its share is set aside: nobody behind it takes of
    what it lacks, nor so much of the rest that it would lack that too.
    """
    free = free.copy()
    chosen: list[tuple[Candidate, tuple[int, ...]]] = []
    refused: list[tuple[Candidate, str]] = []
    first: Candidate | None = None
    for one in candidates:
        if free.cpus <= _FEW:
            if first is None:
                first = one
            break
        gpus = _gpus(one, free, capacity)
        if gpus is not None and one.cpus <= free.cpus + _FEW and one.mem <= free.mem:
            chosen.append((one, gpus))
            free.cpus -= one.cpus
            free.mem -= one.mem
            free.gpus.difference_update(gpus)
        elif why := never_fits(one, capacity):
            refused.append((one, why))
        elif first is None:
            first = one
            if waited(one) > PATIENCE:
                free.cpus -= one.cpus
                free.mem -= one.mem
                suiting = [gpu.index for gpu in capacity.suiting(one.gpu_product) if gpu.index in free.gpus]
                free.gpus.difference_update(suiting[: one.gpus])
    return chosen, refused, first


class Turns:
    """``pick`` again and again, with the memory of who has been first in vain since when. ``now`` is a monotonic clock."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._first: tuple[int, int] | None = None
        self._since = 0.0

    def pick(
        self, candidates: Iterable[Candidate], free: Free, capacity: Capacity
    ) -> tuple[list[tuple[Candidate, tuple[int, ...]]], list[tuple[Candidate, str]]]:
        """Who starts, and who never can."""
        chosen, refused, first = pick(candidates, free, capacity, self._waited)
        key = (first.seq, first.index) if first else None
        if key != self._first:
            self._first, self._since = key, self._now()
        return chosen, refused

    def _waited(self, one: Candidate) -> float:
        return self._now() - self._since if (one.seq, one.index) == self._first else 0.0


def _gpus(one: Candidate, free: Free, capacity: Capacity) -> tuple[int, ...] | None:
    """The GPUs it would get, None when there are too few."""
    if not one.gpus:
        return ()
    suiting: Sequence[int] = [gpu.index for gpu in capacity.suiting(one.gpu_product) if gpu.index in free.gpus]
    return tuple(suiting[: one.gpus]) if len(suiting) >= one.gpus else None
