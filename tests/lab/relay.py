"""A slow and lossy line, for kernels with and without netem: `relay.py PORT TAP DELAY_MS LOSS_PCT`.

Frames that come in at the network interface PORT leave by the new interface TAP, and the other way round, each
DELAY_MS later, or never. Says `ready` on standard output once TAP is up; ends with its parent. Needs root.
"""

from __future__ import annotations

import collections
import ctypes
import errno
import fcntl
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Direction", "main"]

# linux/if_tun.h, linux/if_packet.h, sys/prctl.h
TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 = 0x01, 0x02, 0x04
SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 15, 23
ETH_P_ALL = 3
PR_SET_PDEATHSIG = 1

FRAME = 10 + 65536 + 64  # what describes unfinished checksums and segments, the largest packet, its Ethernet header
BURST = 64  # frames taken from one side before the other has its turn
QUEUE = 4096  # frames on the way; more are lost, as on any line


@dataclass
class Direction:
    """Frames on their way: `put` may lose one, `due` gives those whose time has come, in their order."""

    delay: float
    loss: float
    chance: Callable[[], float] = random.random
    frames: collections.deque[tuple[float, bytes]] = field(default_factory=collections.deque)

    def put(self, now: float, frame: bytes) -> None:
        if self.chance() >= self.loss and len(self.frames) < QUEUE:
            self.frames.append((now + self.delay, frame))

    def due(self, now: float) -> list[bytes]:
        ready = []
        while self.frames and self.frames[0][0] <= now:
            ready.append(self.frames.popleft()[1])
        return ready

    def wait(self, now: float) -> float | None:
        """Seconds until the next one is due; None when there is none."""
        return max(0.0, self.frames[0][0] - now) if self.frames else None


def _tap(name: str) -> int:
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    fcntl.ioctl(tap, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    return tap


def _port(name: str) -> int:
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    raw.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    raw.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
    raw.bind((name, ETH_P_ALL))
    raw.setblocking(False)
    return raw.detach()


def _send(side: int, frame: bytes) -> None:
    try:
        os.write(side, frame)
    except OSError as error:
        # Full: lost, as on any line. Down: the machine or the bridge is going away, and the parent ends this.
        if error.errno not in (errno.EAGAIN, errno.ENOBUFS, errno.ENETDOWN, errno.ENXIO, errno.EIO):
            print(f"a frame of {len(frame)} bytes was refused: {error.strerror}", file=sys.stderr, flush=True)


def _take(side: int) -> bytes | None:
    try:
        return os.read(side, FRAME)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.ENETDOWN):
            return None
        raise


def _run(port: int, tap: int, delay: float, loss: float) -> None:
    lines = {port: (Direction(delay, loss), tap), tap: (Direction(delay, loss), port)}
    poll = select.epoll()
    for side in lines:
        poll.register(side, select.EPOLLIN)
    while True:
        now = time.monotonic()
        waits = [wait for line, _ in lines.values() if (wait := line.wait(now)) is not None]
        for side, _ in poll.poll(min(waits) if waits else None):
            line = lines[side][0]
            for _ in range(BURST):
                if (frame := _take(side)) is None:
                    break
                line.put(time.monotonic(), frame)
        now = time.monotonic()
        for line, out in lines.values():
            for frame in line.due(now):
                _send(out, frame)


def main(argv: list[str]) -> None:
    """Until it is killed, or its parent is."""
    name, tap_name, delay_ms, loss_pct = argv
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    tap = _tap(tap_name)
    port = _port(name)
    print("ready", flush=True)
    _run(port, tap, float(delay_ms) / 1000, float(loss_pct) / 100)


if __name__ == "__main__":
    main(sys.argv[1:])
