"""The node directory: who may look into it, and writes that a crash can't tear.

Every file is written to a temporary name, fsynced and renamed, so it is there
whole or not at all. Whoever writes holds the directory's lock; the next holder
sweeps away what a crash left half-written.
"""

import errno
import fcntl
import os
import secrets
import shlex
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from node.errors import Failed, Untrusted

READ_LIMIT: Final = 1 << 20
"""The largest file of the directory that is read whole, in bytes."""

MARKER: Final = ".init"
"""Stands in a directory while an init is under way, so that it can be repeated."""

_SUN_PATH = 107  # bytes that fit into sockaddr_un on Linux, without the NUL
_LEFTOVER = ".wherry-new"


class NoNode(Failed):
    """There is no node in the directory."""

    def __init__(self, path: Path, *, interrupted: bool = False) -> None:
        super().__init__(
            f"there is no node in {path}",
            "an init was interrupted" if interrupted else "",
            f"Make it with: wherry init --dir {shlex.quote(str(path))}",
        )


class Locked(Failed):
    """Another process holds the lock.

    Attributes:
        pid: that process, or None if it is not known.
    """

    def __init__(self, path: Path, pid: int | None) -> None:
        holder = f"process {pid}" if pid else "another process"
        super().__init__(
            f"{path} is in use",
            f"by {holder}",
            "If that is the node, stop it with: wherry down",
        )
        self.pid = pid


def resolve(option: str | None, env: Mapping[str, str]) -> Path:
    """Say which directory is meant.

    Args:
        option: the value of ``--dir``, if given.
        env: the environment.

    Returns:
        ``option``, else ``$WHERRY_DIR``, else ``$XDG_DATA_HOME/wherry`` (with
        its default ``~/.local/share``), as an absolute path.
    """
    chosen = option or env.get("WHERRY_DIR")
    if chosen:
        return Path(os.path.abspath(os.path.expanduser(chosen)))
    data = env.get("XDG_DATA_HOME", "")
    if not os.path.isabs(data):  # the XDG specification: ignore relative ones
        home = env.get("HOME") or os.path.expanduser("~")
        data = os.path.join(home, ".local", "share")
    return Path(os.path.abspath(data)) / "wherry"


class NodeDirectory:
    """One node directory and the only way to its small files.

    Attributes:
        path: absolute.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.abspath(path))
        self._counting = threading.Lock()
        self._depth = 0
        self._lock_fd = -1
        self._socket_fd = -1

    @property
    def settings(self) -> Path:
        """``node.yaml``; written last, so where it stands there is a whole node."""
        return self.path / "node.yaml"

    @property
    def override(self) -> Path:
        """``override.yaml``."""
        return self.path / "override.yaml"

    @property
    def peers(self) -> Path:
        """``peers.yaml``."""
        return self.path / "peers.yaml"

    @property
    def private(self) -> Path:
        """``private/``, where the keys are."""
        return self.path / "private"

    @property
    def control_socket(self) -> Path:
        """``control.sock``, there while the node runs."""
        return self.path / "control.sock"

    @property
    def lock_file(self) -> Path:
        """``lock``, which holds the process id of the last holder."""
        return self.path / "lock"

    def exists(self) -> bool:
        """Say whether there is a whole node; looks, and judges nothing."""
        return os.path.isfile(self.settings)

    def check(self) -> None:
        """Refuse a directory that is not ours alone.

        Raises:
            NoNode: it does not exist.
            Untrusted: it, or ``private/``, is another user's, readable by
                others, or not a directory.
        """
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            raise NoNode(self.path) from None
        except OSError as error:
            raise _failed("look at", self.path, error) from None
        _check_ours(self.path, found, directory=True)
        with suppress(FileNotFoundError):
            _check_ours(self.private, os.lstat(self.private), directory=True)

    def require(self) -> None:
        """Refuse to go on unless `check` passes and there is a whole node."""
        self.check()
        if not self.exists():
            raise NoNode(self.path, interrupted=self.has(MARKER))

    def make(self) -> None:
        """Make the directory, 0700, and the ones above it, if they are missing."""
        self._make(self.path)

    def make_folder(self, name: str) -> None:
        """Make a folder in it, 0700, if it is missing."""
        self._make(self.path / name)

    def _make(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                path.mkdir(mode=0o700)
                _sync_directory(path.parent)
        except OSError as error:
            raise _failed("make", path, error) from None
        self.check()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory; nothing is written in it without.

        One object may take it again while it holds it, which changes nothing.
        The lock is the kernel's and ends with the process, however that ends.

        Raises:
            Locked: another process, or another object, holds it.
            NoNode, Untrusted: as `check`.
        """
        with self._counting:
            if self._depth == 0:
                self._lock_fd = self._acquire()
            self._depth += 1
        try:
            yield
        finally:
            with self._counting:
                self._depth -= 1
                if self._depth == 0:
                    os.close(self._lock_fd)
                    self._lock_fd = -1

    def _acquire(self) -> int:
        self.check()
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            descriptor = os.open(self.lock_file, flags, 0o600)
        except OSError as error:
            raise _failed("open", self.lock_file, error) from None
        try:
            _check_ours(self.lock_file, os.fstat(descriptor))
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                text = os.pread(descriptor, 20, 0).strip()
                raise Locked(self.path, int(text) if text.isdigit() else None) from None
            with suppress(OSError):  # it is for a message only; the disk may be full
                pid = b"%d\n" % os.getpid()
                os.pwrite(descriptor, pid, 0)
                os.ftruncate(descriptor, len(pid))
            self._sweep()
        except OSError as error:
            os.close(descriptor)
            raise _failed("lock", self.path, error) from None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _sweep(self) -> None:
        """Remove what a crash left half-written; it may hold a key."""
        if self.exists():
            self.path.joinpath(MARKER).unlink(missing_ok=True)
        for folder in (self.path, self.private):
            if folder.is_dir():
                for entry in folder.iterdir():
                    if entry.name.endswith(_LEFTOVER) and _is_regular(entry):
                        entry.unlink()

    def has(self, relative: str) -> bool:
        """Say whether a file is there; a link or a folder of its name counts."""
        return os.path.lexists(self.path / relative)

    def is_own_litter(self, name: str) -> bool:
        """Say whether a file tells nothing of a node: the lock, or a leftover."""
        return name == self.lock_file.name or name.endswith(_LEFTOVER)

    def names(self) -> list[str]:
        """List what is in the directory itself, sorted."""
        try:
            return sorted(os.listdir(self.path))
        except OSError as error:
            raise _failed("read", self.path, error) from None

    def read_file(self, relative: str, limit: int = READ_LIMIT) -> bytes | None:
        """Read a whole file, or give None if there is none.

        Args:
            relative: its path below the directory.
            limit: more bytes than this are refused.

        Raises:
            Untrusted: a link, another user's, one that others may write, or
                (in ``private/``) one that others may read.
            Failed: it can't be read or is too large.
        """
        with self._opened(relative) as file:
            if file is None:
                return None
            data = file.read(limit + 1)
        if len(data) > limit:
            raise Failed(f"{self.path / relative} is too large", f"over {limit} bytes")
        return data

    def read_chunks(self, relative: str, size: int) -> Iterator[bytes]:
        """Read a file of any size in pieces, all but the last one of ``size`` bytes.

        It is not there: there are no pieces. Raises as `read_file` does.
        """
        with self._opened(relative) as file:
            while file is not None and (chunk := file.read(size)):
                yield chunk

    @contextmanager
    def _opened(self, relative: str) -> Iterator[BinaryIO | None]:
        """Open a file that is ours for reading; None if there is none."""
        path = self.path / relative
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            descriptor = os.open(path, flags)
        except FileNotFoundError:
            yield None
            return
        except OSError as error:
            raise _failed("read", path, error) from None
        try:
            secret = self.private in path.parents
            _check_ours(path, os.fstat(descriptor), secret=secret)
            with open(descriptor, "rb", closefd=False) as file:
                yield file
        except OSError as error:
            raise _failed("read", path, error) from None
        finally:
            os.close(descriptor)

    def write_file(self, relative: str, data: bytes, mode: int = 0o600) -> None:
        """Put a whole file in place of whatever has its name, or change nothing.

        Call it with the lock held.

        Args:
            relative: its path below the directory.
            data: all of it.
            mode: its permissions, whatever the umask is.

        Raises:
            Failed: it can't be written; nothing is left behind.
        """
        path = self.path / relative
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_LEFTOVER}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(fresh, flags, 0o600)
            try:
                with open(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fchmod(descriptor, mode)
                    os.fsync(descriptor)
                os.rename(fresh, path)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(fresh)
                raise
            _sync_directory(path.parent)
        except OSError as error:
            raise _failed("write", path, error) from None

    def remove(self, relative: str) -> None:
        """Remove a file for good; it may be gone already. Call with the lock held."""
        path = self.path / relative
        try:
            with suppress(FileNotFoundError):
                path.unlink()
            _sync_directory(path.parent)
        except OSError as error:
            raise _failed("remove", path, error) from None

    def socket_address(self) -> str:
        """Give the control socket's address, for binding and for connecting.

        A Unix socket's path has room for 107 bytes. A longer one is reached
        through a descriptor of the directory, which this object keeps open.
        """
        path = str(self.control_socket)
        if len(os.fsencode(path)) <= _SUN_PATH:
            return path
        if self._socket_fd < 0:
            flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
            try:
                self._socket_fd = os.open(self.path, flags)
            except OSError as error:
                raise _failed("open", self.path, error) from None
        return f"/proc/self/fd/{self._socket_fd}/{self.control_socket.name}"

    def close(self) -> None:
        """Close the descriptor behind `socket_address`; it may be asked for again."""
        if self._socket_fd >= 0:
            os.close(self._socket_fd)
            self._socket_fd = -1


def _is_regular(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)


def _check_ours(
    path: Path, found: os.stat_result, *, directory: bool = False, secret: bool = True
) -> None:
    """Refuse what others own, write, or (if it is secret) read."""
    wanted = stat.S_ISDIR if directory else stat.S_ISREG
    if not wanted(found.st_mode):
        kind = "directory" if directory else "regular file"
        raise Untrusted(f"{path} is refused", f"it is not a {kind}")
    if found.st_uid != os.geteuid():
        raise Untrusted(
            f"{path} is refused",
            f"it belongs to user {found.st_uid}, not to you (user {os.geteuid()})",
        )
    if found.st_mode & (0o077 if secret else 0o022):
        raise Untrusted(
            f"{path} is refused",
            f"others can {'read' if secret else 'write'} it"
            f" (mode {stat.S_IMODE(found.st_mode):04o})",
            f"Take that away with: chmod {'go-rwx' if secret else 'go-w'} {shlex.quote(str(path))}",
        )


def _failed(verb: str, path: Path, error: OSError) -> Failed | Untrusted:
    if error.errno == errno.ELOOP:
        return Untrusted(f"{path} is refused", "it is a symbolic link")
    do = "Free some space and try again" if error.errno == errno.ENOSPC else ""
    return Failed(f"cannot {verb} {path}", os.strerror(error.errno or 0), do)


def _sync_directory(path: Path) -> None:
    """Make a rename in a directory outlast a power failure."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
