"""Going down a folder tree by descriptors, never through a link."""

import os
from collections.abc import Sequence
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_folder(path: Path) -> int:
    """Open a folder that the user chose; links on the way are theirs and fine."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def descend(top: int, parts: Sequence[str], *, make_mode: int | None = None) -> int:
    """Open a folder below another one, refusing links on the way.

    Args:
        top: descriptor of the folder to start from; stays the caller's.
        parts: the names on the way, none of them ``..``.
        make_mode: make folders that are missing, with this mode (whatever the
            process's umask is); None: a missing one is an error.

    Returns:
        A descriptor that the caller closes.

    Raises:
        OSError: with the part as file name; ``ENOTDIR`` or ``ELOOP`` for a link.
    """
    fd = os.dup(top)
    try:
        for part in parts:
            below = _open_or_make(fd, part, make_mode)
            os.close(fd)
            fd = below
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open_or_make(fd: int, part: str, make_mode: int | None) -> int:
    try:
        return os.open(part, _FOLDER, dir_fd=fd)
    except FileNotFoundError:
        if make_mode is None:
            raise
    try:
        os.mkdir(part, 0o700, dir_fd=fd)
    except FileExistsError:  # somebody else was faster
        return os.open(part, _FOLDER, dir_fd=fd)
    made = os.open(part, _FOLDER, dir_fd=fd)
    os.fchmod(made, make_mode)
    os.fsync(fd)
    return made


def open_file(folder: int, name: str) -> int:
    """Open what should be a regular file in a folder, for reading.

    Links are refused and pipes don't block; whether it is a regular file is
    for the caller to see by ``fstat``.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return os.open(name, flags, dir_fd=folder)
