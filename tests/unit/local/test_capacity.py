from __future__ import annotations

import pytest

from qwex.adapters.machine import Gpu
from qwex.backends.local.capacity import PATIENCE, Capacity, Free, Turns, never_fits, pick
from qwex.model.jobs import Resources
from qwex.store.entries import Candidate

GIB = 1 << 30
MACHINE = Capacity(8, 16 * GIB, (Gpu(0, "NVIDIA A100-SXM4"), Gpu(1, "NVIDIA A100-SXM4"), Gpu(3, "Tesla T4")))


def one(seq: int, cpus: float = 1, mem: int = 0, gpus: int = 0, product: str = "") -> Candidate:
    return Candidate(seq, 0, f"run{seq}", cpus, mem, gpus, product)


def chosen(candidates: list[Candidate], free: Free, waited: float = 0) -> list[int]:
    return [candidate.seq for candidate, _ in pick(candidates, free, MACHINE, lambda _: waited)[0]]


@pytest.mark.parametrize(
    ("candidates", "free", "expected"),
    [
        ([one(1), one(2), one(3)], Free(2, GIB), [1, 2]),
        ([one(1, 0.5), one(2, 0.5), one(3, 0.5)], Free(1.0, GIB), [1, 2]),
        ([one(1, 4), one(2, 1)], Free(2, GIB), [2]),
        ([one(1, 1, 4 * GIB), one(2, 1, GIB)], Free(2, 2 * GIB), [2]),
        ([one(1), one(2)], Free(-1, GIB), []),
        ([one(1, gpus=2, product="a100"), one(2, gpus=1)], Free(8, GIB, {1, 3}), [2]),
        ([one(1, gpus=1, product="t4"), one(2, gpus=1, product="t4")], Free(8, GIB, {0, 1, 3}), [1]),
    ],
)
def test_who_starts(candidates: list[Candidate], free: Free, expected: list[int]) -> None:
    assert chosen(candidates, free) == expected


def test_gpus_are_given_by_product_and_index() -> None:
    picked, _, _ = pick([one(1, gpus=1, product="T4"), one(2, gpus=2)], Free(8, GIB, {0, 1, 3}), MACHINE, lambda _: 0)
    assert [gpus for _, gpus in picked] == [(3,), (0, 1)]


def test_a_big_one_is_not_overtaken_for_ever() -> None:
    queue = [one(1, 8), *[one(seq) for seq in range(2, 9)]]
    free = Free(3, GIB)
    assert chosen(queue, free) == [2, 3, 4]
    assert chosen(queue, free, PATIENCE + 1) == []


def test_what_is_set_aside_is_only_what_the_first_one_needs() -> None:
    queue = [
        one(1, 2, gpus=2, product="a100"),
        one(2, 1, gpus=1, product="a100"),
        one(3, 1),
        one(4, 1, gpus=1, product="t4"),
    ]
    assert chosen(queue, Free(4, GIB, {0, 3}), PATIENCE + 1) == [3, 4]


def test_the_first_that_waits_is_told() -> None:
    _, _, first = pick([one(1), one(2, 8), one(3)], Free(2, GIB), MACHINE, lambda _: 0)
    assert first is not None
    assert first.seq == 2


@pytest.mark.parametrize(
    ("need", "why"),
    [
        (Resources(cpus=9), "9 CPUs"),
        (Resources(mem=17 * GIB), "17 GiB of memory"),
        (Resources(gpus=4), "4 GPUs"),
        (Resources(gpus=1, gpu_product="h100"), "1 h100 GPUs, and this machine has none"),
        (Resources(cpus=8, mem=16 * GIB, gpus=2, gpu_product="A100"), ""),
    ],
)
def test_what_never_fits(need: Resources, why: str) -> None:
    found = never_fits(need, MACHINE)
    assert why in found
    assert bool(found) == bool(why)


def test_what_never_fits_is_refused_and_blocks_nobody() -> None:
    picked, refused, first = pick([one(1, 99), one(2)], Free(2, GIB), MACHINE, lambda _: PATIENCE + 1)
    assert [candidate.seq for candidate, _ in picked] == [2]
    assert [candidate.seq for candidate, _ in refused] == [1]
    assert first is None


def test_the_time_of_the_first_one_runs_from_when_it_is_first() -> None:
    now = 0.0
    turns = Turns(lambda: now)
    queue = [one(1, 8), one(2)]

    def started() -> list[int]:
        return [candidate.seq for candidate, _ in turns.pick(queue, Free(3, GIB), MACHINE)[0]]

    assert started() == [2]
    now = PATIENCE - 1
    assert started() == [2]
    now = PATIENCE + 1
    assert started() == []
    queue.insert(0, one(3, 7))
    assert started() == [2], "another one is first now, and its time begins"
