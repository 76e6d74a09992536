"""Reading a file leaf by leaf; holes in sparse files are told, not read."""

import errno
import os

from attrs import define, field

from protocols.fileid import LEAF_SIZE, leaf_count, leaf_hash, zero_leaf_hash

_ZEROS = bytes(LEAF_SIZE)


@define
class LeafReader:
    """The leaves of an open file, whose size is said beforehand.

    The descriptor stays the caller's. Nothing here keeps a position, so a
    reader may be used for any leaf at any time, in one thread at a time.

    Attributes:
        fd: an open, readable, regular file.
        size: bytes to divide into leaves; the file itself may have more or
            less, what is missing then simply doesn't match.
    """

    fd: int
    size: int
    _data_from: int = field(default=0, init=False)
    _data_known: int = field(default=-1, init=False)

    def span(self, index: int) -> tuple[int, int]:
        """Give the offsets at which a leaf starts and stops."""
        start = index * LEAF_SIZE
        return start, min(start + LEAF_SIZE, self.size)

    def read(self, index: int) -> bytes | None:
        """Read one leaf.

        Returns:
            Its bytes, fewer than the span if the file ends early; None for a
            whole leaf of zeros (found without reading if it is a hole).
        """
        start, stop = self.span(index)
        if self.is_hole(start, stop):
            return None
        data = read_at(self.fd, start, stop - start)
        zeros = _ZEROS if len(data) == LEAF_SIZE else _ZEROS[: len(data)]
        return None if len(data) == stop - start and data == zeros else data

    def hash(self, index: int) -> bytes:
        """Hash one leaf as it lies on disk."""
        data = self.read(index)
        start, stop = self.span(index)
        return zero_leaf_hash(stop - start) if data is None else leaf_hash(data)

    def is_hole(self, start: int, stop: int) -> bool:
        """Say whether nothing is stored between two offsets inside the file."""
        if not self._data_known <= start < self._data_from:
            self._data_known = start
            self._data_from = _next_data(self.fd, start)
        return stop <= self._data_from

    @property
    def count(self) -> int:
        """How many leaves the size makes."""
        return leaf_count(self.size)


def _next_data(fd: int, offset: int) -> int:
    """Find the next stored byte at or after an offset, or the end of the file."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # only a hole from here, or past the end
            return os.fstat(fd).st_size
        if error.errno in {errno.EINVAL, errno.EOPNOTSUPP}:
            return offset  # this file system doesn't tell: then read it
        raise


def read_at(fd: int, offset: int, length: int) -> bytes:
    """Read ``length`` bytes; fewer only if the file ends before."""
    data = os.pread(fd, length, offset)
    if len(data) == length or not data:
        return data
    pieces = [data]
    missing = length - len(data)
    while missing and (data := os.pread(fd, missing, offset + length - missing)):
        pieces.append(data)
        missing -= len(data)
    return b"".join(pieces)


def write_at(fd: int, offset: int, data: bytes | bytearray | memoryview) -> None:
    """Write everything, at an offset."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, offset)
        rest, offset = rest[written:], offset + written
