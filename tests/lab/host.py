"""What the lab needs of the machine it runs on: said in one line when it is not there, never a stack of errors."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from tests.lab.docker import DockerError, docker
from tests.lab.waiting import until

__all__ = [
    "CAPABILITIES",
    "KEPT_FROM_MACHINES",
    "HostError",
    "engine",
    "engine_api",
    "engine_lacks",
    "missing_capabilities",
    "required",
    "start_docker",
    "unavailable",
]

DISK = 6 << 30  # bytes free where Docker keeps its files: two nodes with their images, and room to spare
MEMORY = 2 << 30  # bytes available: a two-node cluster with Kueue
PROGRAMS = {"docker": "docker", "ip": "iproute2", "iptables": "iptables", "ebtables": "iptables or ebtables"}
PROGRAMS |= {"ssh": "openssh-client", "ssh-keygen": "openssh-client", "mkfs.ext4": "e2fsprogs", "mount": "mount"}
ENGINE_START = 60.0  # seconds
PIDFILE = Path("/run/docker.pid")

# By number, as in /proc/<pid>/status (linux/capability.h).
NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
CAPABILITIES = NAMES.split()

# These act on the host's kernel, not on the machine: its clock, its modules, its ports.
KEPT_FROM_MACHINES = ("SYS_TIME", "SYS_MODULE", "SYS_RAWIO")


class HostError(Exception):
    """This machine cannot run the lab; the message is one line that says why and what to do."""


def required() -> bool:
    """Whether the lab must run here (`QWEX_LAB=required`): then what is missing is a failure, not a reason to skip."""
    return os.environ.get("QWEX_LAB") == "required"


def engine() -> str | None:
    """The Docker engine's version, None when no engine answers."""
    try:
        return docker("version", "--format", "{{.Server.Version}}", timeout=20)
    except DockerError:
        return None


@cache
def engine_api() -> tuple[int, ...]:
    """The version of the interface that command and engine speak to each other, such as (1, 41)."""
    return tuple(int(part) for part in docker("version", "--format", "{{.Client.APIVersion}}").split("."))


def missing_capabilities(status: str) -> list[str]:
    """Which capabilities a process lacks, from the text of its /proc/<pid>/status."""
    bounds = next(line for line in status.splitlines() if line.startswith("CapBnd:"))
    bits = int(bounds.split()[1], 16)
    return [name for number, name in enumerate(CAPABILITIES) if not bits >> number & 1]


def engine_lacks() -> list[str]:
    """Capabilities the engine itself lacks: it cannot give them to a machine, and refuses to start one that asks."""
    try:
        pid = PIDFILE.read_text().strip()
    except FileNotFoundError:
        pid = "self"
    return missing_capabilities(Path(f"/proc/{pid}/status").read_text())


def _available_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    raise HostError("/proc/meminfo has no MemAvailable: the kernel is older than 3.14")


def unavailable(need: str = "docker") -> str | None:
    """Why the lab cannot run here, in one line; None when it can.

    `need`: `docker` for machines and networks (the engine must run), `build` for what goes before (the engine may be down).
    """
    if os.uname().sysname != "Linux":
        return "the lab needs Linux (its networks and machines are made of Linux kernel features)"
    if os.geteuid() != 0:
        return "the lab needs root (networks, mounts, other processes' namespaces): run it with sudo"
    if absent := [f"{name} ({package})" for name, package in PROGRAMS.items() if shutil.which(name) is None]:
        return f"the lab needs programs that are not installed: {', '.join(absent)}"
    if not os.path.exists("/dev/net/tun"):
        return "the lab needs /dev/net/tun: load the tun module"
    if (memory := _available_memory()) < MEMORY:
        return f"the lab needs {MEMORY >> 20} MiB of memory, {memory >> 20} MiB are available"
    if need == "build":
        return None
    if engine() is None:
        return "the lab needs a running Docker engine: python -m tests.lab docker starts it"
    return _engine_unfit()


def _engine_unfit() -> str | None:
    root = docker("info", "--format", "{{.DockerRootDir}}")
    if not os.path.isdir(root):
        return f"the lab needs a Docker engine on this machine (its directory {root} is not here)"
    if "name=rootless" in docker("info", "--format", "{{.SecurityOptions}}"):
        return "the lab needs a Docker engine that runs as root; this one is rootless"
    if (free := shutil.disk_usage(root).free) < DISK:
        return f"the lab needs {DISK >> 30} GiB free in {root}, {free / 2**30:.1f} GiB are"
    if "overlay" not in Path("/proc/filesystems").read_text():
        return "the lab needs the kernel's overlay file system: load the overlay module"
    return None


def start_docker() -> str:
    """Start the engine unless one answers; its version. HostError when it is not installed or does not come up."""
    if version := engine():
        return version
    if (program := shutil.which("dockerd")) is None:
        raise HostError("no Docker engine is installed: install docker.io or docker-ce")
    if os.geteuid() != 0:
        raise HostError("starting the Docker engine needs root")
    log = Path("/var/log/dockerd.log")
    if Path("/run/systemd/system").is_dir():
        subprocess.run(["systemctl", "start", "docker"], check=False, capture_output=True)
        told = "journalctl -u docker"
    else:
        if not _runs(PIDFILE):
            PIDFILE.unlink(missing_ok=True)  # left by an engine that was killed, it would stop a new one
        with log.open("ab") as out:
            subprocess.Popen([program], stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
        told = str(log)
    try:
        return until("the Docker engine to answer", lambda: engine() or "", within=ENGINE_START)
    except TimeoutError as error:
        raise HostError(f"the Docker engine does not come up within {ENGINE_START:g} s: see {told}") from error


def _runs(pidfile: Path) -> bool:
    """Whether the process that a pid file names is there."""
    try:
        return Path(f"/proc/{pidfile.read_text().strip()}").exists()
    except FileNotFoundError:
        return False
