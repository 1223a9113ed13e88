"""Real virtual machines under the real limactl, booted from the bundle's Debian disk.

Without hardware virtualisation QEMU emulates the processor: a boot takes more than a minute instead of seconds. limactl
refuses root, so for root the machines belong to an account made for them and removed with them. Everything is below one
directory with a short name, for the paths of its sockets may have 107 letters.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import pwd
import secrets
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from tests.lab.bundle import Bundle
from tests.lab.machine import Result, finish
from tests.lab.records import alive, me
from tests.lab.waiting import until

__all__ = ["VM", "Lima", "LimaError", "lacking", "processes", "sweep", "template"]

PREFIX = "qwexlab-"
ROOT = Path("/tmp")
QEMU = "qemu-system-x86_64"
PROGRAMS = {QEMU: "qemu-system-x86", "qemu-img": "qemu-utils", "ssh": "openssh-client", "ssh-keygen": "openssh-client"}
EMULATED = f"{QEMU} -machine q35,accel=tcg -cpu max"
BOOT = 600  # seconds; several times what an idle machine of two cores needs
ACCELERATED_BOOT = 20.0  # seconds
LABEL = "cloudimg-rootfs"  # of the disk's file system, see images/vm/customize.sh


class LimaError(Exception):
    """limactl or a machine's SSH refused, or a machine did not come up; the message says which and what was answered."""


def lacking() -> str | None:
    """Why no machine can be booted here, in one line; None when it can."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return f"the lab's Lima machine needs Linux on x86_64, this is {platform.system()} on {platform.machine()}"
    if absent := [f"{name} (Debian: {package})" for name, package in PROGRAMS.items() if shutil.which(name) is None]:
        return f"the lab's Lima machine needs programs that are not installed: {', '.join(absent)}"
    return None


def template(images: Path, *, provision: Sequence[str] = (), **settings: Any) -> dict[str, Any]:
    """A Lima template that boots the disk in `images`. `provision`: scripts run as root at every boot; `settings` win."""
    return {
        "minimumLimaVersion": "1.0.0",
        "vmType": "qemu",
        "arch": "x86_64",
        "plain": True,
        "cpus": 2,
        "memory": "1GiB",
        "disk": "6GiB",
        "images": [
            {
                "location": str(images / "disk.qcow2"),
                "arch": "x86_64",
                "kernel": {
                    "location": str(images / "vmlinuz"),
                    "cmdline": f"root=LABEL={LABEL} rw console=ttyS0 net.ifnames=0",
                },
                "initrd": {"location": str(images / "initrd")},
            }
        ],
        "mounts": [],
        "containerd": {"system": False, "user": False},
        "firmware": {"legacyBIOS": True},  # the kernel is handed over, there is nothing for a UEFI to find
        "provision": [{"mode": "system", "script": script} for script in provision],
        **settings,
    }


@dataclass(frozen=True)
class Account:
    """Who runs limactl. `options` go to `subprocess`."""

    name: str
    uid: int
    own: bool  # made for the lab
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def create(cls, name: str, home: Path) -> Account:
        """The one that runs this process; for root a new one called `name`. LimaError when it cannot be made."""
        if os.geteuid() != 0:
            return cls(pwd.getpwuid(os.geteuid()).pw_name, os.geteuid(), False)
        made = [
            "useradd",
            "--system",
            "--user-group",
            "--shell=/bin/sh",
            f"--home-dir={home}",
            "--no-create-home",
            name,
        ]
        done = subprocess.run(made, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise LimaError(f"{shlex.join(made)}: {done.stderr.strip()}")
        entry = pwd.getpwnam(name)
        groups = [os.stat("/dev/kvm").st_gid] if os.path.exists("/dev/kvm") else []
        options = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": [gid for gid in groups if gid]}
        return cls(name, entry.pw_uid, True, options)

    def remove(self) -> None:
        """Forget it; nothing to do for an account that was there before. Its processes must have ended."""
        if self.own:
            _forget(self.name)


def _forget(name: str) -> None:
    # By force, for without it processes that have ended, but that nobody has asked about yet, count as running.
    done = subprocess.run(["userdel", "--force", name], capture_output=True, text=True, check=False)
    if _exists(name):
        raise LimaError(f"userdel {name}: {done.stderr.strip()}")


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def processes(directory: Path) -> dict[int, str]:
    """Command lines, by number, of its account's running processes that name it: machines, host agents, connections."""
    found = {}
    home = directory / "lima"
    uid = (home if home.exists() else directory).stat().st_uid if directory.exists() else None
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                # Empty for one that has ended and waits for its parent to ask.
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                mine = uid in (None, entry.stat().st_uid) and int(entry.name) != os.getpid()
                if mine and f"{directory}/" in command:
                    found[int(entry.name)] = command
    return found


def _end(directory: Path) -> None:
    """Kill what works in that directory."""

    def ended() -> bool:
        left = processes(directory)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    until(f"the processes in {directory} to end", ended, within=20)


def sweep() -> list[str]:
    """Remove what killed processes left: directories, accounts and their machines; their names."""
    found = {path.name for path in ROOT.glob(f"{PREFIX}*") if (path / "owner").is_file()}
    dead = sorted(name for name in found if not alive((ROOT / name / "owner").read_text()))
    for name in dead:
        _end(ROOT / name)
        if os.geteuid() == 0 and _exists(name):
            _forget(name)
        shutil.rmtree(ROOT / name)
    return dead


class Lima:
    """A LIMA_HOME of its own (`home`), with the limactl of the bundle (`program`) and the account that runs it."""

    def __init__(self, bundle: Bundle) -> None:
        self.id = secrets.token_hex(3)
        self.directory = ROOT / f"{PREFIX}{self.id}"
        self.home, self.images = self.directory / "lima", self.directory / "images"
        self.program = self.directory / "bin" / "limactl"
        self.vms: dict[str, VM] = {}
        self._bundle = bundle
        self.account: Account | None = None
        self.accelerated = False

    @classmethod
    def create(cls, bundle: Bundle) -> Lima:
        """Ready to boot machines. LimaError when this host cannot (see `lacking`)."""
        if reason := lacking():
            raise LimaError(reason)
        sweep()
        lima = cls(bundle)
        try:
            lima._create()
        except BaseException:
            lima.close()
            raise
        return lima

    def _create(self) -> None:
        self.directory.mkdir(mode=0o711)
        (self.directory / "owner").write_text(me())
        user_home = self.directory / "home"
        for directory in (user_home, self.home, self.images, self.program.parent):
            directory.mkdir(mode=0o700)
        for name in ("disk.qcow2", "vmlinuz", "initrd"):
            _take(self._bundle.path(f"lab/vm/{name}"), self.images / name)
        _take(self._bundle.path("lima/limactl"), self.program)
        self.account = Account.create(self.directory.name, user_home)
        if self.account.own:
            for directory in (user_home, self.home, self.images, self.program.parent):
                os.chown(directory, self.account.uid, self.account.options["group"])
        self.accelerated = self._accelerates()

    @property
    def environment(self) -> dict[str, str]:
        """Whole: nothing of the caller's, such as a proxy, gets into a machine."""
        assert self.account is not None
        path = f"{self.program.parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        found = {"HOME": str(self.directory / "home"), "USER": self.account.name, "LOGNAME": self.account.name}
        found |= {"LIMA_HOME": str(self.home), "PATH": path, "LC_ALL": "C.UTF-8"}
        return found if self.accelerated else {**found, "QEMU_SYSTEM_X86_64": EMULATED}

    def run(self, *argv: str | Path, check: bool = True, timeout: float = 60, log: Path | None = None) -> Result:
        """Run a command as the account in its environment. LimaError when it fails or takes longer."""
        assert self.account is not None
        words = [os.fspath(word) for word in argv]
        try:
            # A detached child must not hold our end of a pipe open: what limactl starts keeps its output.
            with (log or Path(os.devnull)).open("ab") as said:
                done = subprocess.run(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=said if log else subprocess.PIPE,
                    env=self.environment,
                    cwd=self.directory,
                    timeout=timeout,
                    check=False,
                    **self.account.options,
                )
        except subprocess.TimeoutExpired as error:
            raise LimaError(f"{shlex.join(words)}: not finished within {timeout:g} s") from error
        errors = log.read_text(errors="replace") if log else done.stderr.decode(errors="replace")
        if check and done.returncode != 0:
            raise LimaError(f"{shlex.join(words)}: exit status {done.returncode}: {errors.strip()[-4000:]}")
        return Result(done.returncode, done.stdout.decode(errors="replace"), errors)

    def limactl(self, *argv: str, check: bool = True, timeout: float = 60, log: Path | None = None) -> Result:
        """limactl as a script calls it: no questions."""
        return self.run(self.program, "--tty=false", *argv, check=check, timeout=timeout, log=log)

    def _accelerates(self) -> bool:
        """Whether KVM truly boots a kernel here, as far as its first program; a /dev/kvm that is there proves nothing."""
        assert self.account is not None
        argv = [
            QEMU,
            "-machine",
            "q35,accel=kvm",
            "-cpu",
            "host",
            "-m",
            "512",
            "-nographic",
            "-no-reboot",
            "-nodefaults",
        ]
        argv += ["-kernel", str(self.images / "vmlinuz"), "-initrd", str(self.images / "initrd")]
        argv += ["-serial", "stdio", "-append", "console=ttyS0 panic=-1 rdinit=/bin/reboot"]
        try:
            done = self.run(*argv, check=False, timeout=ACCELERATED_BOOT)
        except LimaError:
            return False
        return done.returncode == 0 and "Restarting system" in done.stdout

    def list(self) -> list[dict[str, Any]]:
        """What `limactl list --json` says, one entry a machine."""
        return [json.loads(line) for line in self.limactl("list", "--json").stdout.splitlines()]

    def create_vm(self, name: str = "node", *, provision: Sequence[str] = (), **settings: Any) -> VM:
        """A machine that was never started. LimaError when there is one of that name, or limactl refuses a setting."""
        file = self.directory / f"{name}.yaml"
        file.write_text(yaml.safe_dump(template(self.images, provision=provision, **settings)))
        file.chmod(0o644)
        self.limactl("create", f"--name={name}", str(file), timeout=120)
        vm = self.vms[name] = VM(self, name)
        return vm

    def close(self) -> None:
        """Leave nothing: machines, processes, account, directory."""
        errors: list[Exception] = []
        for vm in list(self.vms.values()):
            try:
                vm.delete()
            except LimaError as error:
                errors.append(error)
        if self.directory.exists():
            _end(self.directory)
            shutil.rmtree(self.directory)
        if self.account is not None:
            self.account.remove()
        if errors:
            raise ExceptionGroup(f"the machines of {self.directory} were not deleted in good order", errors)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _take(source: Path, to: Path) -> None:
    """The same file under another name where that can be; the account may have no way to the bundle."""
    try:
        os.link(source, to)
    except OSError:
        shutil.copy2(source, to)


class VM:
    """Made by `Lima.create_vm`. Where it is reached changes with every start, its host key too: Lima's guests do that."""

    def __init__(self, lima: Lima, name: str) -> None:
        self.lima, self.name = lima, name
        self.directory = lima.home / name
        self.key = lima.home / "_config" / "user"
        self.known_hosts = lima.directory / f"{name}.known_hosts"
        self.address, self.port, self.user, self.host_key = "", 0, "", ""

    def facts(self) -> dict[str, Any]:
        """`limactl list --json` of it; LimaError when it is gone."""
        for found in self.lima.list():
            if found["name"] == self.name:
                return found
        raise LimaError(f"limactl knows no machine {self.name}")

    @property
    def status(self) -> str:
        """`Running`, `Stopped`, `Broken`, `Uninitialized`."""
        return str(self.facts()["status"])

    def start(self) -> None:
        """Boot; on return it is reachable by SSH and has run its scripts. LimaError with the console's last lines if not."""
        log = self.lima.directory / f"{self.name}.start.log"
        log.unlink(missing_ok=True)
        log.touch()
        try:
            self.lima.limactl("start", f"--timeout={BOOT}s", self.name, timeout=BOOT + 30, log=log)
        except LimaError as error:
            raise LimaError(f"{error}\n{self.console()[-2000:]}") from error
        found = self.facts()
        self.address, self.port = str(found["sshAddress"]), int(found["sshLocalPort"])
        self.user = str(found["config"]["user"]["name"])
        self.host_key = " ".join(self.ssh("cat", "/etc/ssh/ssh_host_ed25519_key.pub").stdout.split()[:2])
        self.known_hosts.write_text(f"[{self.address}]:{self.port} {self.host_key}\n")

    def ssh(self, *argv: str, check: bool = True, timeout: float = 120) -> Result:
        """Run in the guest as its ordinary user (sudo without a password), over Lima's SSH. LimaError when that fails."""
        config = self.directory / "ssh.config"
        return self.lima.run(
            "ssh", "-F", config, f"lima-{self.name}", "--", shlex.join(argv), check=check, timeout=timeout
        )

    def ssh_options(self) -> list[str]:
        """For an `ssh` of one's own to `address`, with the host key verified."""
        options = {"IdentitiesOnly": "yes", "BatchMode": "yes", "StrictHostKeyChecking": "yes", "Port": str(self.port)}
        options |= {"UserKnownHostsFile": str(self.known_hosts), "GlobalKnownHostsFile": "/dev/null"}
        return ["-F", "/dev/null", "-i", str(self.key), *(f"-o{key}={value}" for key, value in options.items())]

    def login(self, *argv: str, check: bool = True, timeout: float = 120) -> Result:
        """Like `ssh`, but as anyone on this host would reach it: by address, port, key and known host key."""
        command = ["ssh", *self.ssh_options(), f"{self.user}@{self.address}", shlex.join(argv)]
        return finish(f"{self.name} (ssh): {shlex.join(argv)}", command, None, check, timeout)

    def console(self) -> str:
        """What it wrote to its serial line since it was started."""
        try:
            return (self.directory / "serial.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def stop(self, *, force: bool = False) -> None:
        """Shut it down in order; with `force`, cut its power."""
        self.lima.limactl("stop", *(["--force"] if force else []), self.name, timeout=240)

    def delete(self) -> None:
        """Remove it with its disk, running or not."""
        if self.directory.exists():
            self.lima.limactl("delete", "--force", self.name, timeout=120)
        self.lima.vms.pop(self.name, None)

    def collect(self, to: Path) -> None:
        """Write its console and its host agent's logs into that directory."""
        to.mkdir(parents=True, exist_ok=True)
        for path in [*self.directory.glob("*.log"), self.lima.directory / f"{self.name}.start.log"]:
            if path.is_file():
                shutil.copyfile(path, to / path.name)
