"""``import qwex`` over a place in memory."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.services.fake import Cluster

import qwex
from qwex.errors import UnknownName, UsageError
from qwex.model.states import Reason, State
from qwex.sdk import Client, Job


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def client(project: Path, home: Path, cluster: Cluster) -> Iterator[Client]:
    with Client(project) as opened:
        opened._context.opener = cluster.opener
        yield opened


def finish(client: Client, cluster: Cluster, job: Job, code: int = 0, output: bytes = b"", **files: bytes) -> None:
    """End a job, in the thread in which its place lives."""

    async def work() -> None:
        cluster.write(job.id, output)
        cluster.finish(
            job.id, State.FAILED if code else State.SUCCEEDED, Reason.EXIT_CODE if code else Reason.NONE, code, **files
        )

    client._call(work())


def test_a_job_from_beginning_to_end(client: Client, cluster: Cluster, project: Path) -> None:
    job = client.batch(
        ["python", "-c", "x y"], name="n", cpus=2, mem="1G", time=90, gpus=0, env={"A": "1"}, secrets={"T": "hush"}
    )
    submission = cluster.jobs[job.id].submission
    assert (submission.spec.argv, submission.spec.shell, submission.spec.time_limit) == (
        ("python", "-c", "x y"),
        False,
        90.0,
    )
    assert (submission.secrets, dict(submission.spec.env)) == ({"T": "hush"}, {"A": "1"})
    assert (job.state, job.exit_code, job.name, job.place) == (State.RUNNING, None, "n", "local")
    assert "running" in repr(job)
    finish(client, cluster, job, 3, b"one\ntw\xc3\xb6", a_txt=b"12")
    assert job.wait(timeout=10) is job
    assert (job.state, job.reason, job.exit_code) == (State.FAILED, Reason.EXIT_CODE, 3)
    assert list(job.logs()) == ["one", "twö"]
    assert b"".join(job.logs().bytes()) == b"one\ntw\xc3\xb6"
    assert list(job.logs(stream="err")) == []
    assert job.results == project / "qwex-runs" / job.id
    assert (project / "qwex-runs" / job.id / "a.txt").read_bytes() == b"12"
    assert cluster.calls.count("results") == 1
    assert job.results == project / "qwex-runs" / job.id
    assert cluster.calls.count("results") == 1
    assert job.pull("there") == project / "there"


def test_text_is_a_script_and_stdin_is_kept(client: Client, cluster: Cluster) -> None:
    job = client.batch("a | b", stdin=b"\0in", after=client.batch(["first"]))
    submission = cluster.jobs[job.id].submission
    assert (submission.spec.argv, submission.spec.shell) == (("a | b",), True)
    assert submission.stdin is not None
    assert submission.stdin.read_bytes() == b"\0in"
    assert len(submission.spec.after) == 1


def test_many_at_once_over_one_connection(client: Client, cluster: Cluster) -> None:
    jobs = client.batch_many([["echo", str(number)] for number in range(20)])
    assert cluster.calls.count("open") == cluster.calls.count("submit") == 1
    assert [cluster.jobs[job.id].submission.spec.argv[1] for job in jobs] == [str(number) for number in range(20)]
    for job in jobs:
        finish(client, cluster, job)
    client.wait(jobs)
    assert {job.exit_code for job in jobs} == {0}
    client.wait([])


def test_wait_gives_up_in_time(client: Client) -> None:
    job = client.batch(["sleep"])
    with pytest.raises(TimeoutError, match=r"1 of 1 jobs have not ended after 0\.01 s"):
        job.wait(timeout=0.01)


def test_jobs_are_found_again(client: Client, cluster: Cluster) -> None:
    job = client.batch(["x"])
    assert client.get("last").id == client.get(job.id[:8]).id == job.id
    assert [one.id for one in client.list(states=["running"])] == [job.id]
    client.get("last").cancel()
    assert job.state is State.CANCELLED
    assert "cancelled" in job.why()
    with pytest.raises(UnknownName):
        client.get("zzz")


async def test_inside_a_running_loop(client: Client, cluster: Cluster) -> None:
    job = client.batch(["x"])

    async def read() -> list[str]:
        return [line async for line in job.logs(follow=True)]

    reading = asyncio.create_task(read())
    waiting = asyncio.gather(job, client.get(job.id))
    finish(client, cluster, job, 0, b"a\nb\n")
    assert await reading == ["a", "b"]
    assert [one.exit_code for one in await waiting] == [0, 0]


def test_from_several_threads(client: Client, cluster: Cluster) -> None:
    jobs: list[Job] = []
    threads = [threading.Thread(target=lambda: jobs.append(client.batch(["x"]))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({job.id for job in jobs}) == len(cluster.jobs) == 8
    assert cluster.calls.count("open") == 1


def test_reading_can_be_left_early(client: Client, cluster: Cluster) -> None:
    job = client.batch(["x"])
    finish(client, cluster, job, 0, b"a\nb\n")
    for line in job.logs(follow=True):
        assert line == "a"
        break
    assert list(job.logs()) == ["a", "b"]


def test_wrong_options_are_named(client: Client) -> None:
    wrong: Any = {"cpu": 2}
    with pytest.raises(UsageError, match="'cpu' is no option"):
        client.batch(["x"], **wrong)
    with pytest.raises(UsageError, match="--mem: 'lots'"):
        client.batch(["x"], mem="lots")


def test_closed_client(project: Path) -> None:
    client = Client(project)
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.list()


def test_names_of_the_package() -> None:
    assert (qwex.Client, qwex.Job) == (Client, Job)
    assert set(dir(qwex)) == {"Client", "Job", "__version__"}
    with pytest.raises(AttributeError, match="Klient"):
        _ = qwex.Klient


def test_importing_the_package_imports_nothing_else() -> None:
    code = (
        "import sys, qwex; print(sorted(name for name in sys.modules if name.startswith('qwex') or name == 'asyncio'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['qwex', 'qwex.version']"
