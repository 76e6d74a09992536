"""A file that comes in leaf by leaf, beside the place where it will stand.

Until every leaf is verified there is only ``.NAME.ID.wherry-part`` in the target
folder (with the first characters of the id); it grows, survives a crash, and is
looked through when the download goes on.
"""

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import field, frozen

from node.beneath import descend, open_file, open_folder
from node.errors import Failed, Integrity, Untrusted, Usage
from node.stores.durable import is_full
from node.stores.leaffile import LeafReader, write_at
from protocols.errors import excerpt
from protocols.fileid import FileID, Leaves, leaf_hash, zero_leaf_hash
from protocols.filename import MAX_PART_BYTES

PART_SUFFIX = ".wherry-part"

_NO_LINK = {errno.ELOOP, errno.ENOTDIR}


class TargetExists(Failed):
    """Another file, or something else, has the name."""


class TargetBusy(Failed):
    """Somebody is fetching the same file to the same place."""


class TargetFull(Failed):
    """The disk is full; what has come so far is kept."""


class TargetRefused(Untrusted):
    """The way to the target leads through a link, or the name is not allowed."""


class WrongLeaf(Integrity):
    """A leaf that doesn't have the hash that it should have."""


def _check_target(_: object, __: object, name: str) -> None:
    parts = name.split("/")
    if "\0" in name or not {"", ".", ".."}.isdisjoint(parts):
        raise Usage(f"{excerpt(name)} can't be the name of a file")
    if any(len(os.fsencode(part)) > MAX_PART_BYTES for part in parts):
        raise Usage(f"{excerpt(name)} is too long for the name of a file")
    if name.endswith(PART_SUFFIX):
        raise TargetRefused(f"{name} is refused", "unfinished downloads are named so")


@frozen
class Target:
    """Where a file goes.

    Attributes:
        folder: chosen by the user; it exists, and links on its way are fine.
        name: below the folder; may come from a peer, so no part of it may
            lead elsewhere. It may be hard to read, for the user may have chosen
            it; names of peers passed `check_name` when they came in.
    """

    folder: Path
    name: str = field(validator=_check_target)

    @property
    def path(self) -> Path:
        """The place itself."""
        return self.folder / self.name


class Landing:
    """One file on its way to its target.

    The calls go ``begin``, then ``look`` until nothing is left to look at; then,
    unless ``kept``, ``write`` for each leaf of ``missing``, and ``finish``. Each
    blocks (call it in a thread) but is short, except for ``finish``, which waits
    for the disk. ``close`` may come at any time and from any thread; it doesn't
    wait, and keeps what is there for the next time.

    Attributes:
        target: where the file will stand.
        leaves: its leaf hashes.
        kept: whether it stood there already.
        have: bytes that are verified, whole leaves of zeros among them, which
            need no transfer.
        found: how many of them were there before.

    Args:
        target: where the file will stand.
        id: the file.
        leaves: its leaf hashes, checked against the id.
        force: replace another file that stands there.
        umask: what the new file's mode leaves out.
    """

    def __init__(
        self, target: Target, id: FileID, leaves: Leaves, *, force: bool, umask: int
    ) -> None:
        self.target = target
        self.leaves = leaves
        self.kept = False
        self.have = 0
        self.found = 0
        self._id = id
        self._force = force
        self._umask = umask
        *self._parents, self._name = target.name.split("/")
        self._part = part_name(self._name, id)
        self._folder = self._fd = -1
        self._comparing = False
        self._looked = 0
        self._good = bytearray(leaves.count)
        self._busy = threading.Lock()
        self._closing = False

    # Before the transfer

    def begin(self) -> None:
        """Open what is there: the file itself, or what came of it before.

        Raises:
            TargetExists: something else stands there and ``force`` is not set.
            TargetRefused: a part of the way is a link.
            TargetBusy: another process or transfer has the same target.
            Failed: the folder is missing or can't be written to.
        """
        with self._working():
            top = open_folder(self.target.folder)
            try:
                mode = 0o777 & ~self._umask
                self._folder = descend(top, self._parents, make_mode=mode)
            finally:
                os.close(top)
            there = self._standing()
            if there is not None and self._may_be_same(there):
                self._fd = open_file(self._folder, self._name)
                self._comparing = True
            else:
                self._refuse_other(there)
                self._open_part()

    def look(self, limit: int = 64) -> int:
        """Verify the next leaves of what is there.

        Args:
            limit: how many, at most.

        Returns:
            How many are still to be looked at. At 0 it is known what is
            ``missing``, or that the file is there already and ``kept``.
        """
        with self._working():
            reader = LeafReader(self._fd, self.leaves.size)
            there = os.fstat(self._fd).st_size
            stop = min(self._looked + limit, self.leaves.count)
            for index in range(self._looked, stop):
                if self._is_there(reader, index, there):
                    self._mark(index)
                    first, last = self.leaves.span(index)
                    self.found += last - first if first < there else 0
                elif self._comparing:
                    self._turn_to_part()
                    return self.leaves.count
            self._looked = stop
            if stop < self.leaves.count:
                return self.leaves.count - stop
            self.kept = self._comparing
            self._check_room()
            return 0

    def _is_there(self, reader: LeafReader, index: int, there: int) -> bool:
        start, stop = self.leaves.span(index)
        wanted = self.leaves.leaf(index)
        if start >= there:
            # Past the end of what came so far. It will be zeros when the file
            # gets its full size, and that may be all that it should be.
            return wanted == zero_leaf_hash(stop - start)
        return reader.hash(index) == wanted

    def _turn_to_part(self) -> None:
        """The file that stands there is another one: make a new one beside it."""
        self._refuse_other(self._standing())
        os.close(self._fd)
        self._comparing, self._fd = False, -1
        self._looked = self.have = self.found = 0
        self._good = bytearray(self.leaves.count)
        self._open_part()

    def missing(self) -> list[range]:
        """Give the leaves that have to come, in runs."""
        runs, start = [], 0
        while (start := self._good.find(0, start)) >= 0:
            stop = self._good.find(1, start)
            stop = self.leaves.count if stop < 0 else stop
            runs.append(range(start, stop))
            start = stop
        return runs

    # The transfer

    def write(self, index: int, data: bytes | bytearray) -> None:
        """Take one leaf.

        Raises:
            WrongLeaf: it is not the one; nothing was written.
            TargetFull: the disk is full.
        """
        with self._working():
            start, stop = self.leaves.span(index)
            if len(data) != stop - start or leaf_hash(data) != self.leaves.leaf(index):
                raise WrongLeaf(f"leaf {index} of {self._id.short} is wrong")
            write_at(self._fd, start, data)
            self._mark(index)

    def finish(self) -> None:
        """Give the verified file its name, durably.

        Raises:
            TargetExists: something took the name meanwhile.
            ValueError: leaves are missing still.
        """
        with self._working():
            if self.missing():
                raise ValueError("not all leaves are there")
            if self.kept:
                return
            os.ftruncate(self._fd, self.leaves.size)
            os.fchmod(self._fd, 0o666 & ~self._umask)
            os.fsync(self._fd)
            self._refuse_other(self._standing())
            part = os.stat(self._part, dir_fd=self._folder, follow_symlinks=False)
            if not os.path.samestat(part, os.fstat(self._fd)):
                raise TargetRefused(
                    f"{self.target.path} is refused",
                    "something else has taken the place of what came",
                )
            os.rename(
                self._part, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder
            )
            os.close(self._fd)
            self._fd = -1
            os.fsync(self._folder)

    def close(self) -> None:
        """Let go of everything; an unfinished part stays for the next time."""
        self._closing = True
        if self._busy.acquire(blocking=False):
            try:
                self._let_go()
            finally:
                self._busy.release()

    # Inside

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Hold off ``close`` for the time of one call, and name its errors."""
        try:
            with self._busy:
                if self._closing:
                    raise Failed(f"{self.target.path} was given up")
                yield
        except OSError as error:
            raise self._named(error) from error
        finally:
            if self._closing:
                self.close()

    def _named(self, error: OSError) -> Failed | Untrusted:
        path = self.target.path
        if is_full(error):
            return self._full()
        ours = {*self._parents, self._name, self._part}
        if error.errno in _NO_LINK and error.filename in ours:
            return TargetRefused(
                f"{path} is refused", f"{error.filename} is a link, or not a folder"
            )
        return Failed(f"{path} can't be written", error.strerror or str(error))

    def _full(self) -> TargetFull:
        return TargetFull(
            "the disk is full",
            f"{self.target.path} does not fit",
            "Free some space and run it again; what has come is kept.",
        )

    def _standing(self) -> os.stat_result | None:
        """See what has the final name; a link is not followed."""
        try:
            return os.stat(self._name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _may_be_same(self, there: os.stat_result) -> bool:
        return stat.S_ISREG(there.st_mode) and there.st_size == self.leaves.size

    def _refuse_other(self, there: os.stat_result | None) -> None:
        if there is None:
            return
        if not stat.S_ISREG(there.st_mode):
            # Not with force either: it may be a device of the whole machine.
            raise TargetExists(
                f"{self.target.path} is {_kind(there.st_mode)}",
                do="Choose another name with -o.",
            )
        if not self._force:
            raise TargetExists(
                f"{self.target.path} exists and is another file",
                do="Replace it with --force, or choose another name with -o.",
            )

    def _open_part(self) -> None:
        while (fd := self._locked_part()) < 0:
            pass  # whoever held it has just finished, and it is gone
        if os.fstat(fd).st_size > self.leaves.size:
            os.ftruncate(fd, self.leaves.size)
        self._fd = fd

    def _locked_part(self) -> int:
        """Open the part for us alone; -1 if it lost its name meanwhile."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(self._part, flags, 0o600, dir_fd=self._folder)
        try:
            there = os.fstat(fd)
            own = there.st_uid == os.geteuid() and there.st_nlink <= 1
            if not stat.S_ISREG(there.st_mode) or not own:
                raise TargetRefused(
                    f"{self.target.folder / self._part} is refused",
                    "it is not a part that you fetched",
                )
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise TargetBusy(f"{self.target.path} is being fetched") from None
            named = os.stat(self._part, dir_fd=self._folder, follow_symlinks=False)
            if os.path.samestat(named, there):
                return fd
        except FileNotFoundError:
            pass  # from os.stat: it has no name any more
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return -1

    def _check_room(self) -> None:
        """Refuse early what can't fit."""
        disk = os.fstatvfs(self._fd)
        room = disk.f_bavail * disk.f_frsize
        if disk.f_blocks and self.leaves.size - self.have > room:
            raise self._full()

    def _mark(self, index: int) -> None:
        if not self._good[index]:
            self._good[index] = 1
            start, stop = self.leaves.span(index)
            self.have += stop - start

    def _let_go(self) -> None:
        if self._fd >= 0:
            if not self._comparing and os.fstat(self._fd).st_size == 0:
                with suppress(FileNotFoundError):
                    os.unlink(self._part, dir_fd=self._folder)
            os.close(self._fd)
        if self._folder >= 0:
            os.close(self._folder)
        self._fd = self._folder = -1


def part_name(name: str, id: FileID) -> str:
    """Name the unfinished file; a long name is cut so that it fits."""
    end = f".{id.text[:8]}{PART_SUFFIX}"
    room = MAX_PART_BYTES - len(end) - 1
    return f".{os.fsencode(name)[:room].decode('utf-8', 'ignore')}{end}"


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a link" if stat.S_ISLNK(mode) else "no regular file"
