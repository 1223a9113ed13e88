"""What this machine is and what runs on it. Linux and macOS differ here and nowhere else.

Nothing is cached: the caller keeps what it needs. A question the system does not answer gives an empty or zero value, as said
at each function; nothing here raises for it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from qwex.adapters import process

__all__ = [
    "Gpu",
    "alive",
    "become_subreaper",
    "boot_id",
    "children",
    "command_line",
    "cpus",
    "descendants",
    "environment_of",
    "gpus",
    "kill",
    "kill_marked",
    "memory",
    "oom_kills",
    "owned_processes",
    "signal_tree",
    "started",
    "watch",
]

LINUX = sys.platform == "linux"
_PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup")
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER, <linux/prctl.h>


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: its index as CUDA_VISIBLE_DEVICES counts, and the product's name as the driver gives it."""

    index: int
    product: str


def _text(path: Path) -> str:
    """The file's text, or "" when it cannot be read: not this system, not this cgroup version, or the process has gone."""
    try:
        return path.read_text(errors="surrogateescape")
    except OSError:
        return ""


def _bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _cgroup(controller: str) -> list[Path]:
    """This process's cgroup and those above it, the nearest first; version 2 (``""``) or the version 1 ``controller``."""
    for line in _text(_PROC / "self/cgroup").splitlines():
        _, controllers, name = line.split(":", 2)
        if controller == controllers or (controller and controller in controllers.split(",")):
            base = _CGROUP / controllers if controller else _CGROUP
            own = base / name.lstrip("/")
            return [own, *(one for one in own.parents if one.is_relative_to(base))]
    return []


def cpus() -> float:
    """How many CPUs this process may use: affinity, and the tightest quota of its cgroups. May be a fraction."""
    count = float(len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1)
    for group in _cgroup(""):
        quota, _, period = _text(group / "cpu.max").strip().partition(" ")
        if quota.isdigit() and period.isdigit():
            count = min(count, int(quota) / int(period))
    for group in _cgroup("cpu"):
        quota, period = _text(group / "cpu.cfs_quota_us").strip(), _text(group / "cpu.cfs_period_us").strip()
        if quota.isdigit() and period.isdigit() and int(quota) and int(period):
            count = min(count, int(quota) / int(period))
    return count


def memory() -> int:
    """Bytes of memory this process may use: that of the machine, or the tightest limit of its cgroups."""
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    files = [group / "memory.max" for group in _cgroup("")]
    files += [group / "memory.limit_in_bytes" for group in _cgroup("memory")]
    return min([size, *(int(text) for file in files if (text := _text(file).strip()).isdigit())])


def gpus(env: Mapping[str, str] = os.environ) -> tuple[Gpu, ...]:
    """NVIDIA GPUs, by ``nvidia-smi``; CUDA_VISIBLE_DEVICES narrows them when it lists indexes. None where there is no driver."""
    if not shutil.which("nvidia-smi", path=env.get("PATH")):
        return ()
    try:
        answer = process.run(["nvidia-smi", "--query-gpu=index,name", "--format=csv,noheader"], env=env, timeout=20)
    except (process.ProgramMissing, process.TookTooLong):
        return ()
    if answer.code:
        return ()
    found = []
    for line in answer.out.decode(errors="replace").splitlines():
        index, comma, product = line.partition(",")
        if comma and index.strip().isdigit():
            found.append(Gpu(int(index), product.strip()))
    visible = env.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return tuple(found)
    wanted = [part.strip() for part in visible.split(",")]
    if all(part.isdigit() for part in wanted):
        return tuple(gpu for gpu in found if str(gpu.index) in wanted)
    return () if visible.strip() in {"", "-1", "NoDevFiles"} else tuple(found)


def boot_id() -> str:
    """Changes when the machine is started anew. "" when the system does not tell."""
    if LINUX:
        return _text(_PROC / "sys/kernel/random/boot_id").strip()
    return _answer(["sysctl", "-n", "kern.boottime"]).decode(errors="replace").strip()


def _answer(argv: list[str]) -> bytes:
    try:
        done = process.run(argv, timeout=20)
    except (process.ProgramMissing, process.TookTooLong):
        return b""
    return done.out if done.code == 0 else b""


def started(pid: int) -> str:
    """When the process was started, in the system's own words: with the pid it names one process for ever. "" when it is gone."""
    if LINUX:
        # The second field, the program's name, may hold spaces and parentheses: count from its last parenthesis.
        fields = _text(_PROC / str(pid) / "stat").rpartition(")")[2].split()
        return fields[19] if len(fields) > 19 and fields[0] not in "ZX" else ""
    return _answer(["ps", "-o", "lstart=", "-p", str(pid)]).decode(errors="replace").strip()


def command_line(pid: int) -> bytes:
    """The process's arguments, separated by NUL (Linux) or spaces (macOS). b"" when it is gone or ended."""
    if LINUX:
        return _bytes(f"/proc/{pid}/cmdline")
    return _answer(["ps", "-ww", "-o", "args=", "-p", str(pid)]).strip()


def environment_of(pid: int) -> frozenset[bytes]:
    """``NAME=value`` as the process was started with. Empty when that cannot be seen."""
    return frozenset(_bytes(f"/proc/{pid}/environ").split(b"\0")) if LINUX else frozenset()


def children(pid: int) -> list[int]:
    """Direct children of the process's main thread, those that have just ended included. Only Linux tells cheaply: else empty."""
    return [int(one) for one in _bytes(f"/proc/{pid}/task/{pid}/children").split()] if LINUX else []


def _parents() -> dict[int, int]:
    """Every process's parent."""
    found = {}
    for line in _answer(["ps", "-A", "-o", "pid=,ppid="]).splitlines():
        child, parent = line.split()
        found[int(child)] = int(parent)
    return found


def descendants(pid: int) -> list[int]:
    """All below this process, nearest first."""
    found = [pid]
    if LINUX:
        for one in found:
            for thread in _listed(f"/proc/{one}/task"):
                found += [int(child) for child in _bytes(f"/proc/{one}/task/{thread}/children").split()]
        return found[1:]
    parents = _parents()
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def _listed(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def owned_processes(marks: Iterable[bytes]) -> list[int]:
    """This user's processes whose environment had all these ``NAME=value`` at their start. Linux; else empty."""
    wanted = frozenset(marks)
    return [
        int(name)
        for name in (_listed("/proc") if LINUX else ())
        if name.isdigit() and wanted <= environment_of(int(name))
    ]


def kill_marked(group: int | None, marks: Iterable[bytes]) -> None:
    """Kill what is left of a session whose leader has gone and been waited for by somebody else.

    Linux: whatever carries the ``marks`` in its environment. Elsewhere: the process group of that number, if it is known.
    """
    if LINUX:
        for pid in owned_processes(marks):
            kill(pid)
    elif group is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


def signal_tree(group: int, number: int) -> None:
    """Signal a process group and those below its leader that have left it. Processes that are gone or not ours are passed over."""
    apart = [one for one in descendants(group) if _group(one) != group]
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
    for one in apart:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(one, number)


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def oom_kills() -> int:
    """How many processes the kernel has killed for want of memory: in this cgroup, or since the start of the machine. 0 if unknown."""
    for file in [_cgroup_file("memory.events"), _PROC / "vmstat"]:
        for line in _text(file).splitlines() if file else ():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


def _cgroup_file(name: str) -> Path | None:
    own = _cgroup("")
    return own[0] / name if own else None


def become_subreaper() -> bool:
    """Let orphans below this process become its children (Linux). Whether it worked."""
    if not LINUX:
        return False
    import ctypes  # only the worker calls this, and everybody else would pay for it

    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(_SUBREAPER, 1, 0, 0, 0) == 0)


def watch(pid: int) -> int | None:
    """A file descriptor that becomes readable when the process ends, child or not; None where there is none: look now and then."""
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def alive(pid: int) -> bool:
    """Whether the process runs (one that ended and was not waited for does not)."""
    if LINUX:
        return bool(started(pid))
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _answer(["ps", "-o", "stat=", "-p", str(pid)]).strip().startswith(b"Z")


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Signal a process; one that is gone is passed over."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
