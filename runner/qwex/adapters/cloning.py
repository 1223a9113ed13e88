"""Copies that the file system makes itself: shared extents where it can (reflinks), else within the kernel. Linux; elsewhere: no."""

from __future__ import annotations

import errno
import os
import sys

__all__ = ["clone", "copy_range"]

_FICLONE = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int)
_CANNOT = {
    errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV, errno.EPERM, errno.EBADF, errno.ETXTBSY, errno.EIO,
}  # fmt: skip
_refused: set[tuple[int, int]] = set()


def clone(source: int, target: int) -> bool:
    """Make ``target`` (open for writing, empty) share the content of ``source``, holes included. False: it cannot be done here.

    A pair of file systems that refused is not asked again by this process. OSError for a full disk.
    """
    if sys.platform != "linux":
        return False
    import fcntl

    pair = (os.fstat(source).st_dev, os.fstat(target).st_dev)
    if pair[0] != pair[1] or pair in _refused:
        return False
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        _refused.add(pair)
        return False
    return True


def copy_range(source: int, target: int, offset: int, length: int) -> int:
    """Copy bytes from and to ``offset`` without passing them through this process. How many were; fewer: go on by reading."""
    if sys.platform != "linux":
        return 0
    done = 0
    while done < length:
        try:
            count = os.copy_file_range(source, target, min(length - done, 1 << 30), offset + done, offset + done)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            return done
        if count == 0:
            return done
        done += count
    return done
