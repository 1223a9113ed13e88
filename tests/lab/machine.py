"""A machine of the lab: a container that runs systemd and sshd, and that programs cannot tell from a small server."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.lab import faults
from tests.lab.docker import ID, OWNER, DockerError, docker, inspect
from tests.lab.host import engine_api
from tests.lab.network import Network, mac
from tests.lab.waiting import until

if TYPE_CHECKING:
    from tests.lab.lab import Lab

__all__ = ["Machine", "MachineError", "Result", "flags"]

BOOT = 60.0  # seconds
NOWHERE = "198.51.100.53"  # a documentation address (RFC 5737): names from outside are asked of nobody
WORKING = ("containerd", "kubelet", "etcd", "rancher")  # below /var/lib: must not lie on an overlay


class MachineError(Exception):
    """A command on a machine failed, or the machine cannot do what was asked; the message says which and why."""


class Result(NamedTuple):
    """How a command ended, `returncode` as a shell reports it, and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


def flags(lacking: Sequence[str], disk: Path | None) -> list[str]:
    """What `docker create` needs for a machine of its own: capabilities, devices, cgroups, and where its disks are.

    Never `--privileged`: that would bring the host's devices, and an engine which lacks a capability refuses it.
    `lacking`: capabilities that the machine must not ask for. `disk`: its own limited disk on the host.
    """
    given = ["--cap-add=ALL", *(f"--cap-drop={name}" for name in lacking)]
    given += [f"--security-opt={name}" for name in ("seccomp=unconfined", "apparmor=unconfined", "label=disable")]
    given += ["--security-opt=systempaths=unconfined", "--cgroupns=private", "--env=container=docker"]
    given += ["--device=/dev/net/tun", "--device=/dev/kmsg", "--tmpfs=/run:rw,nosuid,nodev,exec,mode=755"]
    given += ["--shm-size=1g", "--log-opt=max-size=1m"]
    given += [f"--dns={NOWHERE}", "--dns-option=timeout:1", "--dns-option=attempts:1"]
    if disk is not None:
        return [*given, f"--volume={disk}:/.disk"]
    return [*given, *(f"--volume=/var/lib/{name}" for name in WORKING)]


def finish(what: str, argv: Sequence[str], stdin: bytes | str | None, check: bool, timeout: float) -> Result:
    """Run on the host; MachineError naming `what` after `timeout` seconds, or when it ends with another code than 0."""
    try:
        done = subprocess.run(
            argv,
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise MachineError(f"{what}: not finished within {timeout:g} s") from error
    code = done.returncode if done.returncode >= 0 else 128 - done.returncode
    result = Result(code, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
    if check and code != 0:
        said = result.stderr.strip() or result.stdout.strip() or "no output"
        raise MachineError(f"{what}: exit status {code}: {said[-4000:]}")
    return result


@dataclass(eq=False)
class Machine:
    """Made by `Lab.machine`. `run` is root at the console, which works without a network; `ssh` is a user from outside."""

    lab: Lab
    name: str
    container: str
    network: Network
    address: str
    key: Path
    known_hosts: Path
    disk: int | None = None
    user: str = "debian"
    host_key: str = ""
    patience: float = BOOT  # seconds that a boot may take

    def __post_init__(self) -> None:
        self.faults: list[faults.Fault] = []
        self.console: dict[str, str] = {}  # environment of everything that `run` starts

    # -- life ----------------------------------------------------------------------------------------------------

    def create(self, image: str, labels: Mapping[str, str], options: Sequence[str]) -> None:
        """Make it, switched off, with the lab's client key let in."""
        argv = ["create", f"--name={self.container}", f"--hostname={self.name}"]
        argv += [f"--label={name}={value}" for name, value in labels.items()]
        argv += [f"--network={self.network.full_name}", f"--network-alias={self.name}", f"--ip={self.address}"]
        if engine_api() >= (1, 44):  # older engines do not take it, and give this very one by themselves
            argv += [f"--mac-address={mac(self.address)}"]
        docker(*argv, *options, image)
        docker("cp", "--archive", "-", f"{self.container}:/", input=self.lab.authorized)

    def power_on(self) -> None:
        """Start and wait until SSH answers. Address, host keys and disks are the same as before."""
        if self.state() == "paused":
            self.unpause()
        docker("start", self.container)
        for fault in list(self.faults):
            fault.machine_started()
        self.wait()

    def wait(self) -> None:
        """Until a login over SSH works; MachineError with the machine's last words when it does not."""
        try:
            if not self.host_key:
                self.host_key = until(f"{self.name}'s host key", self._read_host_key, self.patience, every=0.1)
                self.known_hosts.write_text(f"{self.address} {self.host_key}\n")
            until(
                f"{self.name} at {self.address} to be reachable by SSH",
                self._answers,
                self.patience,
                every=0.1,
            )
        except TimeoutError as error:
            raise MachineError(f"{error}\n{self._last_words()}") from error

    def _read_host_key(self) -> str:
        name = "/etc/ssh/ssh_host_ed25519_key.pub"
        try:
            line = self.run("cat", name, check=False, timeout=5)
        except MachineError:  # a console opened while the machine was changing its root may hang
            return ""
        return " ".join(line.stdout.split()[:2]) if line.returncode == 0 and line.stdout.endswith("\n") else ""

    def _answers(self) -> bool:
        try:
            return self.ssh("true", check=False, timeout=10).returncode == 0
        except MachineError:
            return False

    def _last_words(self) -> str:
        said = [f"{self.container} is {self.state()}"]
        for argv in (
            ["docker", "logs", "--tail=20", self.container],
            ["docker", "exec", self.container, "systemctl", "list-jobs", "--no-pager"],
            ["docker", "exec", self.container, "journalctl", "--boot", "--no-pager", "--lines=20"],
        ):
            done = finish(" ".join(argv), argv, None, False, 10)
            said.append((done.stdout + done.stderr).strip())
        return "\n".join(line for line in said if line)

    def facts(self) -> dict[str, Any]:
        """What Docker knows about it."""
        return inspect("container", [self.container])[0]

    def state(self) -> str:
        """`running`, `paused`, `exited`, `created` or `gone`."""
        try:
            return docker("container", "inspect", "--format", "{{.State.Status}}", self.container)
        except DockerError as error:
            if "No such container" in str(error):
                return "gone"
            raise

    # -- commands and files --------------------------------------------------------------------------------------

    def run(
        self,
        *argv: str,
        input: bytes | str | None = None,  # noqa: A002
        check: bool = True,
        timeout: float = 60,
    ) -> Result:
        """As root, without a terminal. What is not finished after `timeout` seconds is killed inside, a MachineError here."""
        command = ["docker", "exec", *(f"--env={key}={value}" for key, value in self.console.items())]
        command += ["--interactive"] if input is not None else []
        command += [self.container, "timeout", "--signal=KILL", f"{timeout:g}", *argv]
        return finish(f"{self.name}: {shlex.join(argv)}", command, input, check, timeout + 5)

    def ssh(
        self,
        *argv: str,
        input: bytes | str | None = None,  # noqa: A002
        check: bool = True,
        timeout: float = 60,
    ) -> Result:
        """As the ordinary user, over the network, with the host key verified. 255 is SSH's own failure."""
        command = ["ssh", *self.ssh_options(), f"{self.user}@{self.address}", shlex.join(argv)]
        return finish(f"{self.name} (ssh): {shlex.join(argv)}", command, input, check, timeout)

    def ssh_options(self) -> list[str]:
        """For `ssh`, `scp` and what calls them."""
        options = {"IdentitiesOnly": "yes", "BatchMode": "yes", "StrictHostKeyChecking": "yes", "ConnectTimeout": "5"}
        options |= {"UserKnownHostsFile": str(self.known_hosts), "GlobalKnownHostsFile": "/dev/null"}
        return ["-F", "/dev/null", "-i", str(self.key), *(f"-o{key}={value}" for key, value in options.items())]

    def put(self, local: Path | bytes, remote: str, mode: int = 0o644) -> None:
        """A file of root's at `remote`, in place all at once; its directories are made."""
        script = 'mkdir -p "$(dirname "$1")" && cat >"$1.part" && chmod "$2" "$1.part" && mv -f "$1.part" "$1"'
        command = ["docker", "exec", "--interactive", self.container, "sh", "-c", script, "sh", remote, f"{mode:o}"]
        what = f"{self.name}: writing {remote}"
        if isinstance(local, bytes):
            finish(what, command, local, True, 120)
            return
        with local.open("rb") as file:
            done = subprocess.run(command, stdin=file, capture_output=True, check=False, timeout=300)
        if done.returncode != 0:
            raise MachineError(f"{what}: {done.stderr.decode(errors='replace').strip()}")

    def read(self, remote: str) -> str:
        """A file's text; MachineError when it is not there."""
        return self.run("cat", remote).stdout

    # -- faults: each returns at once or when it took effect, can be a `with` block, and ends with the lab at the latest --

    def power_off(self) -> faults.Fault:
        """An orderly shutdown, as by `systemctl poweroff`; back by `power_on` or at the end of the `with` block."""
        self.run("systemctl", "poweroff", check=False)  # the console may close before it answers
        until(f"{self.name} to be off", lambda: self.state() in ("exited", "gone"), within=90, every=0.1)
        return self._fault(faults.Powerless(self))

    def power_cut(self) -> faults.Fault:
        """All its processes are gone at once. What was not yet written by them is lost; the kernel's buffers are the host's."""
        if self.state() == "paused":
            self.unpause()
        docker("kill", "--signal=KILL", self.container)
        until(f"{self.name} to be off", lambda: self.state() in ("exited", "gone"), within=30, every=0.05)
        return self._fault(faults.Powerless(self))

    def pause(self) -> faults.Fault:
        """Freeze every process, as a host that swaps or a suspended VM does: connections stay open and nothing answers."""
        docker("pause", self.container)
        return self._fault(faults.Paused(self))

    def unpause(self) -> None:
        """Go on; nothing to do when it is not paused."""
        self.faults = [fault for fault in self.faults if not isinstance(fault, faults.Paused)]
        if self.state() == "paused":
            docker("unpause", self.container)

    def fill_disk(self, path: str = "/", leave: int = 0) -> faults.Fault:
        """Use up the file system at `path` but for `leave` bytes (to the nearest block). Only on a disk of its own.

        MachineError for a machine made without `disk=…`, whose file systems are the host's.
        """
        return self._fault(faults.Filled(self, path, leave))

    def move_clock(self, seconds: float) -> faults.Fault:
        """Programs that start from now on see a clock that many seconds ahead (or behind, when negative).

        A machine shares the host's clock, which never moves. What is shifted is what dynamically linked programs are told:
        everything in a new SSH session, everything `run` starts, every service that is (re)started. Programs that already
        run, systemd itself, statically linked programs (most of Go's) and the kernel (which dates files) keep the host's time.
        """
        return self._fault(faults.Moved(self, seconds))

    def cut_from(self, other: Machine) -> faults.Fault:
        """No packet passes between the two, in either direction; each still reaches all others."""
        return self._fault(faults.Cut(self, other))

    def join_with(self, other: Machine) -> None:
        """End a cut, whichever of the two it was made from."""
        for one, far in ((self, other), (other, self)):
            for fault in [each for each in one.faults if isinstance(each, faults.Cut) and each.other is far]:
                fault.undo()

    def netem(self, delay_ms: float = 0, loss_pct: float = 0) -> faults.Fault:
        """Every packet to and from the machine takes `delay_ms` longer (a round trip twice that) or is lost, at that rate."""
        for fault in [each for each in self.faults if isinstance(each, faults.Slow)]:
            fault.undo()
        return self._fault(faults.Slow(self, delay_ms, loss_pct))

    def _fault(self, fault: faults.Fault) -> faults.Fault:
        fault.start()
        self.faults.append(fault)
        return fault


def labels(lab: str, owner: str, name: str) -> dict[str, str]:
    """What the machine's container carries."""
    return {ID: lab, OWNER: owner, "qwex.lab.machine": name}
