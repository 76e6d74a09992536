"""Content on its way into the store: copied and hashed in one pass."""

import os
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import Factory, define, field, frozen

from node.errors import Failed
from node.stores.durable import settle
from node.stores.leaffile import LeafReader, write_at
from protocols.fileid import (
    HASH_SIZE,
    MAX_SIZE,
    FileID,
    Leaves,
    leaf_hash,
    zero_leaf_hash,
)

Progress = Callable[[int], None]
Likely = Callable[[int, bytes], list[bytes]]


class SourceChanged(Failed):
    """A file was written to while it was read."""


class NotShareable(Failed):
    """Something that is not a regular file, or is too large."""


@frozen
class Copy:
    """A whole copy that nobody sees yet."""

    id: FileID
    leaves: Leaves
    path: Path


@define
class Incoming:
    """Copies and the names for them, until they are moved to their places.

    Attributes:
        folder: where they wait; on the same file system as their places.
        copies: by id.
        names: (id, name, media type) in the order of their arrival.
    """

    folder: Path
    copies: dict[FileID, Copy] = field(init=False, default=Factory(dict))
    names: list[tuple[FileID, str, str]] = field(init=False, default=Factory(list))

    @property
    def size(self) -> int:
        """Bytes that the copies make up, holes included."""
        return sum(copy.leaves.size for copy in self.copies.values())

    def take(self, fd: int, likely: Likely, progress: Progress) -> FileID:
        """Read an open file to its end; copy it unless it is held already.

        Args:
            fd: stays the caller's.
            likely: gives the leaf hashes of contents that are held, by size
                and first leaf hash.
            progress: called with the bytes done, after each leaf.

        Raises:
            NotShareable: not a regular file, or too large.
            SourceChanged: it was written to meanwhile.
        """
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            raise NotShareable("it is not a regular file")
        if before.st_size > MAX_SIZE:
            raise NotShareable(f"it is larger than {MAX_SIZE} bytes")
        reader = LeafReader(fd, before.st_size)
        leaves = _held(reader, likely, progress)
        if leaves is None:
            copy = self._copy(reader, progress)
            leaves = copy.leaves
            if copy.id in self.copies:
                copy.path.unlink()
            else:
                self.copies[copy.id] = copy
        after = os.fstat(fd)
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise _changed()
        return leaves.id

    def _copy(self, reader: LeafReader, progress: Progress) -> Copy:
        hashes = bytearray()
        target, name = tempfile.mkstemp(dir=self.folder)
        try:
            for index in range(reader.count):
                start, stop = reader.span(index)
                data = reader.read(index)
                if data is None:  # zeros: leave a hole
                    hashes += zero_leaf_hash(stop - start)
                elif len(data) < stop - start:
                    raise _changed()
                else:
                    hashes += leaf_hash(data)
                    write_at(target, start, data)
                progress(stop)
            os.ftruncate(target, reader.size)
        except BaseException:
            os.unlink(name)
            raise
        finally:
            os.close(target)
        leaves = Leaves(reader.size, bytes(hashes))
        return Copy(leaves.id, leaves, Path(name))

    def move(self, places: Mapping[FileID, Path]) -> None:
        """Move copies to their places and forget all the rest.

        On return what was moved survives a power cut. The caller writes down
        beforehand what it is about to move, and afterwards that it is there.
        """
        moving = [(self.copies[id].path, place) for id, place in places.items()]
        if moving:
            settle([path for path, _ in moving])
            folders = {place.parent for _, place in moving}
            for folder in folders:
                folder.mkdir(mode=0o700, exist_ok=True)
            for path, place in moving:
                path.rename(place)
            settle([*folders, *{folder.parent for folder in folders}])
        self.discard()

    def discard(self) -> None:
        """Delete all copies that were not moved."""
        for copy in self.copies.values():
            copy.path.unlink(missing_ok=True)
        self.copies.clear()


def _held(reader: LeafReader, likely: Likely, progress: Progress) -> Leaves | None:
    """Find out whether this content is held, reading no more than needed."""
    hashes = reader.hash(0) if reader.count else b""
    candidates = likely(reader.size, hashes)
    for index in range(1, reader.count):
        if not candidates:
            return None
        leaf = reader.hash(index)
        at = slice(index * HASH_SIZE, (index + 1) * HASH_SIZE)
        candidates = [held for held in candidates if held[at] == leaf]
        hashes += leaf
        progress(reader.span(index)[1])
    return Leaves(reader.size, hashes) if candidates else None


def _changed() -> SourceChanged:
    return SourceChanged("it was written to while it was read", do="Share it again.")
