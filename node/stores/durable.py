"""Putting files and folders on the disk itself, few or many at a time."""

import ctypes
import errno
import os
from collections.abc import Sequence
from pathlib import Path

# Up to here one fsync each is cheaper than flushing the whole file system.
_FEW = 16

_libc = ctypes.CDLL(None, use_errno=True)


def is_full(error: BaseException) -> bool:
    """Say whether an error means that there is no room left on a disk."""
    return isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}


def settle(paths: Sequence[Path]) -> None:
    """Return when the files or folders at these paths survive a power cut.

    Args:
        paths: all on one file system.

    Raises:
        OSError: the disk failed, or has no room for what was written.
    """
    if len(paths) > _FEW:
        _sync_file_system(paths[0])
        return
    for path in paths:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _sync_file_system(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(fd)
