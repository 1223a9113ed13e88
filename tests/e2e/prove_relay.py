"""The relay's two promises, kept by real processes: ``just prove-relay``.

1. In a fresh clone, with a fresh home, README's first command runs the example here, and its results come home.
2. The same example on a real SSH server with nothing installed: detached, followed, the connection cut and the client killed in
   between, followed again from the byte where it stopped, its results home. Once with SFTP, once without.

Says on stderr what it does; the last line, on stdout, is figures. Exit code 0 only if everything held.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.e2e.readme import commands  # noqa: E402
from tests.sshd import Server, installed  # noqa: E402

POINTS = 20


def say(text: str) -> None:
    """On stderr, at once."""
    sys.stderr.write(f"-- {text}\n")
    sys.stderr.flush()


class Newcomer:
    """A clone and a home that nobody has used before."""

    def __init__(self, place: Path) -> None:
        self.clone, self.home = place / "qwex", place / "home"
        self.home.mkdir()
        subprocess.run(["git", "-c", "safe.directory=*", "clone", "-q", str(ROOT), str(self.clone)], check=True)
        kept = ("PATH", "LANG", "USER", "LOGNAME", "PIP_", "SSL_", "REQUESTS_", "http", "HTTP", "no_proxy", "NO_PROXY")
        self.env = {name: value for name, value in os.environ.items() if name.startswith(kept)} | {
            "HOME": str(self.home)
        }
        own = ROOT / ".venv/bin"  # the path of a person who has not made an environment yet
        self.env["PATH"] = ":".join(part for part in self.env["PATH"].split(":") if Path(part) != own)

    def shell(self, command: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["bash", "-euc", command],
            cwd=self.clone,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """``qwex`` in the background."""
        return subprocess.Popen(
            [str(self.clone / ".venv/bin/qwex"), *words],
            bufsize=0,  # what readline has read ahead, communicate would not see
            cwd=self.clone,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def qwex(self, *words: str) -> bytes:
        """What ``qwex`` prints; it has to succeed."""
        process = self.start(*words)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, f"qwex {' '.join(words)}: exit {process.returncode}\n{err.decode()}"
        return out

    def last(self) -> dict[str, Any]:
        runs: list[dict[str, Any]] = json.loads(self.qwex("list", "--limit", "1", "--json"))
        return runs[0]

    def results(self, run: str) -> float:
        """Check the files of the example that came home; the estimate of pi in them."""
        home = self.clone / "qwex-runs" / run
        with (home / "pi.csv").open() as table:
            rows = list(csv.DictReader(table))
        assert len(rows) == POINTS, rows
        estimate = float(rows[-1]["estimate"])
        assert abs(estimate - math.pi) < 0.01, estimate
        assert (home / "pi.svg").read_text().startswith("<svg")
        return estimate


def check_output(out: bytes) -> None:
    """Every line of the example's output once, in order."""
    percents = [int(one) for one in re.findall(rb"^ *(\d+)%", out, re.MULTILINE)]
    assert percents == [share * 100 // POINTS for share in range(1, POINTS + 1)], out.decode()
    assert out.endswith(b"see pi.csv and pi.svg\n"), out[-200:]


def here(newcomer: Newcomer) -> dict[str, float]:
    """README's first command."""
    start = time.monotonic()
    done = newcomer.shell(commands()[0])
    whole = time.monotonic() - start
    assert done.returncode == 0, done.stderr.decode()
    check_output(done.stdout)
    run = newcomer.last()
    assert run["state"] == "succeeded", run
    say(
        f"here: pi = {newcomer.results(run['id'])} in qwex-runs/{run['id']}; from the clone to its result {whole:.1f} s"
    )
    return {"clone_to_result_s": round(whole, 1), "job_s": round(run["ended"] - run["started"], 1)}


def over_ssh(newcomer: Newcomer, place: Path, *, sftp: bool) -> dict[str, float]:
    """Detached, the connection cut, the client killed, followed again, home."""
    with Server(place, sftp=sftp) as server:
        keys = newcomer.home / ".ssh"
        keys.mkdir(mode=0o700, exist_ok=True)
        with (keys / "known_hosts").open("a") as known:
            known.write(server.known)
        (keys / "config").write_text(
            f"Host box\n  HostName 127.0.0.1\n  Port {server.port}\n  User {server.user}\n  IdentityFile {server.key}\n"
        )
        start = time.monotonic()
        newcomer.qwex("batch", "--on", "box", "--detach", "python3", "examples/pi.py")
        submitted = time.monotonic() - start
        run = newcomer.last()["id"]

        follower = newcomer.start("logs", "--follow", "--resume", run)
        assert follower.stdout is not None
        seen = b"".join(follower.stdout.readline() for _ in range(3))
        cut = server.cut()
        assert cut, "there was no connection to cut"
        seen += b"".join(follower.stdout.readline() for _ in range(4))
        say(f"over SSH: cut {cut} processes of the connection; the client came back by itself")
        follower.terminate()
        rest, err = follower.communicate(timeout=120)
        seen += rest
        assert follower.returncode == 143, err
        seen += newcomer.qwex("logs", "--follow", "--resume", run)
        check_output(seen)
        newcomer.qwex("wait", run)
        newcomer.qwex("pull", run)
        assert newcomer.last()["state"] == "succeeded"
        say(f"over SSH{'' if sftp else ' without SFTP'}: pi = {newcomer.results(run)}, every line once")

        start = time.monotonic()
        assert newcomer.qwex("batch", "--on", "box", "echo", "quick") == b"quick\n"
        trivial = time.monotonic() - start
        newcomer.qwex("host", "add", "box-to-purge", "box")
        newcomer.qwex("host", "remove", "--purge", "--yes", "box-to-purge")
    return {"submit_s": round(submitted, 2), "trivial_s": round(trivial, 2)}


def main() -> None:
    """Keep both promises."""
    if installed() is None:
        sys.exit("error: no SSH server is installed\nhint: install openssh-server")
    with tempfile.TemporaryDirectory(prefix="qwex-prove-") as directory:
        place = Path(directory)
        newcomer = Newcomer(place)
        figures: dict[str, object] = {"here": here(newcomer)}
        figures["ssh"] = over_ssh(newcomer, place / "with-sftp", sftp=True)
        figures["ssh_without_sftp"] = over_ssh(newcomer, place / "without-sftp", sftp=False)
    sys.stdout.write(f"relay proven: {json.dumps(figures)}\n")


if __name__ == "__main__":
    main()
