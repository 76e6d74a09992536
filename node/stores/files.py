"""The file store: content under the hash of itself, and an index of its names.

Content lies in ``files/XX/REST`` below the node directory, where ``XX`` and
``REST`` make up its id. The index, ``files/index.sqlite``, is the authority:
content without a row in it does not exist, whatever lies on the disk, so that a
crash at any moment leaves either a whole file that is shared or nothing.

One process at a time may open a store (the lock of the node directory sees to
that); in it, any thread may use it.
"""

import mimetypes
import os
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import Factory, define, field, frozen

from node.stores.incoming import Incoming
from node.stores.index import Index, Row, Run, StoreDamaged, StoreFull, translated
from protocols.fileid import HASH_SIZE, FileID, Leaves
from protocols.filename import check_name

_VERSION = 1
_SCHEMA = """
CREATE TABLE contents (
    id TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    first BLOB NOT NULL,  -- the first leaf hash: finds content that we hold
    hashes BLOB NOT NULL
);
CREATE INDEX contents_likely ON contents (size, first);
CREATE TABLE entries (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL REFERENCES contents (id),
    name TEXT NOT NULL,
    media_type TEXT NOT NULL,
    UNIQUE (name, id)
);
CREATE INDEX entries_id ON entries (id);
-- Ids whose file may, for the moment, lie on the disk without a row in
-- contents. What a crash leaves of them is deleted at the next start.
CREATE TABLE unsettled (id TEXT PRIMARY KEY);
"""
_ENTRIES = (
    "SELECT row, id, name, size, media_type FROM entries JOIN contents USING (id) "
)
_HELD = "SELECT 1 FROM contents WHERE id = ?"

# A batch becomes visible in groups: so much is lost at most by a kill.
_GROUP_FILES = 512
_GROUP_BYTES = 1 << 30


@frozen
class Entry:
    """One name of one content.

    Attributes:
        row: number that grows with each entry; pages go by it.
        id: the content.
        name: a name that ``protocols.filename.check_name`` has passed.
        size: in bytes.
        media_type: such as ``text/plain``; a guess from the name.
    """

    row: int
    id: FileID
    name: str
    size: int
    media_type: str


@define
class OpenFile:
    """Content that is being read; close it after use.

    Attributes:
        fd: to be read with positions of one's own (``os.pread``).
        id: the content.
        size: in bytes.
        name: the oldest of its names.
        media_type: the one that goes with the name.
    """

    fd: int
    id: FileID
    size: int
    name: str
    media_type: str
    _load: Callable[[FileID], Leaves] = field(repr=False)

    @property
    def leaves(self) -> Leaves:
        """The leaf hashes, read from the index at each use."""
        return self._load(self.id)

    def close(self) -> None:
        """Give the descriptor back; more than once does no harm."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class FileStore:
    """The files that a node holds. Owned by the node, or by one command.

    Args:
        root: the node directory; ``files/`` is made in it.

    Raises:
        StoreFull: no room even for the index.
        StoreDamaged: the index can't be read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "files"
        self._incoming = self.folder / "incoming"
        with translated(self.folder):
            self.folder.mkdir(mode=0o700, exist_ok=True)
            self._incoming.mkdir(mode=0o700, exist_ok=True)
        self._index = Index(self.folder / "index.sqlite", _SCHEMA, _VERSION)
        for leftover in self._incoming.iterdir():
            leftover.unlink()
        self._sweep()

    def close(self) -> None:
        """Close the index. Files that are open stay so until they are closed."""
        self._index.close()

    def path(self, id: FileID) -> Path:
        """Say where content lies, or would lie."""
        return self.folder / id.text[:2] / id.text[2:]

    # Reading

    def entries(
        self,
        after: int = 0,
        limit: int = 1000,
        name: str | None = None,
        under: str | None = None,
    ) -> list[Entry]:
        """List one page of entries, oldest first.

        Args:
            after: the last row of the page before.
            limit: entries on a page, at most.
            name: only those with exactly this name.
            under: only those below this folder.
        """
        # The plus keeps SQLite from going through all rows to find a folder's.
        query = _ENTRIES + ("WHERE row > ?" if under is None else "WHERE +row > ?")
        values: list[object] = [after]
        if name is not None:
            query += " AND name = ?"
            values.append(name)
        if under is not None:
            # "0" is the character that follows "/": the range of all below it.
            query += " AND name > ? AND name < ?"
            values += [under + "/", under + "0"]
        rows = self._index.read(query + " ORDER BY row LIMIT ?", [*values, limit])
        return [_entry(row) for row in rows]

    def find(self, id: FileID) -> list[Entry]:
        """List the entries of one content, oldest first; none if it isn't held."""
        rows = self._index.read(_ENTRIES + "WHERE id = ? ORDER BY row", [id.text])
        return [_entry(row) for row in rows]

    def open(self, id: FileID) -> OpenFile | None:
        """Open content for reading, or give None if it isn't held.

        Raises:
            StoreDamaged: it should be there and is not, or not whole.
        """
        entries = self.find(id)
        if not entries:
            return None
        entry = entries[0]
        try:
            fd = os.open(self.path(id), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise _damaged(self.path(id), "it is gone") from None
        there = os.fstat(fd)
        if there.st_size != entry.size or not stat.S_ISREG(there.st_mode):
            os.close(fd)
            raise _damaged(self.path(id), "it is not what was stored")
        return OpenFile(fd, id, entry.size, entry.name, entry.media_type, self.leaves)

    def leaves(self, id: FileID) -> Leaves:
        """Give the leaf hashes of content that is held (``KeyError`` if not)."""
        query = "SELECT size, hashes FROM contents WHERE id = ?"
        for size, hashes in self._index.read(query, [id.text]):
            return Leaves(size, hashes)
        raise KeyError(id)

    # Writing

    def add(
        self,
        path: Path,
        name: str,
        media_type: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Entry:
        """Copy one regular file into the store.

        Content that is held already takes no space again, and the same name
        for it gives the same entry. Blocks; call it in a thread.

        Args:
            path: what to copy; a link at its end is refused.
            name: what to call it.
            media_type: guessed from the name if left out.
            progress: called with the bytes done so far, after each leaf; what
                it raises ends the work and leaves nothing behind.

        Raises:
            StoreFull: no room; nothing is left behind.
            SourceChanged: the file was written to meanwhile.
            NotShareable: not a regular file.
            Malformed: a name that can't be shared.
            OSError: the file can't be read.
        """
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            with self.batch() as batch:
                batch.add(fd, name, media_type, progress)
        finally:
            os.close(fd)
        return batch.entries[-1]

    @contextmanager
    def batch(self) -> Iterator["Batch"]:
        """Add many files at less cost each.

        They become visible in groups, the last one at the end. A disk that
        gets full takes the whole batch back, any other error only what was
        not visible yet.
        """
        batch = Batch(self, Incoming(self._incoming))
        try:
            with translated(self.folder):
                yield batch
                batch.publish()
        except BaseException as error:
            batch.discard(everything=isinstance(error, StoreFull))
            raise

    def remove(self, rows: Collection[int]) -> None:
        """Remove entries, and content that no entry names any more."""
        with self._index.transaction() as run:
            for row in rows:
                gone = run("DELETE FROM entries WHERE row = ? RETURNING id", [row])
                for (id,) in gone.fetchall():
                    if run("SELECT 1 FROM entries WHERE id = ?", [id]).fetchall():
                        continue
                    run("INSERT OR IGNORE INTO unsettled VALUES (?)", [id])
                    run("DELETE FROM contents WHERE id = ?", [id])
        self._sweep()

    def likely(self, size: int, first: bytes) -> list[bytes]:
        """Give the leaf hashes of contents of this size with this first leaf."""
        query = "SELECT hashes FROM contents WHERE size = ? AND first = ?"
        return [hashes for (hashes,) in self._index.read(query, [size, first])]

    def settle(self, incoming: Incoming) -> list[tuple[Entry, bool]]:
        """Make what has come in durable, then visible.

        Returns:
            The entries in the order of their arrival, each with whether it is
            a new one.
        """
        with self._index.writing:
            with self._index.transaction() as run:
                fresh = [
                    copy
                    for id, copy in incoming.copies.items()
                    if not run(_HELD, [id.text]).fetchall()
                ]
                for copy in fresh:
                    run("INSERT OR IGNORE INTO unsettled VALUES (?)", [copy.id.text])
            incoming.move({copy.id: self.path(copy.id) for copy in fresh})
            with self._index.transaction() as run:
                for copy in fresh:
                    id, size, hashes = (
                        copy.id.text,
                        copy.leaves.size,
                        copy.leaves.hashes,
                    )
                    row = [id, size, hashes[:HASH_SIZE], hashes]
                    run("INSERT INTO contents VALUES (?, ?, ?, ?)", row)
                    run("DELETE FROM unsettled WHERE id = ?", [id])
                return [_enter(run, *name) for name in incoming.names]

    def _sweep(self) -> None:
        """Delete files of content that has no row."""
        with self._index.transaction() as run:
            for (id,) in run("SELECT id FROM unsettled").fetchall():
                if not run(_HELD, [id]).fetchall():
                    self.path(FileID(id)).unlink(missing_ok=True)
            run("DELETE FROM unsettled")


@define
class Batch:
    """Files that are being added together; made by ``FileStore.batch``.

    Attributes:
        entries: what is visible, in the order of the calls of ``add``.
        new_bytes: how much of it the store did not hold before.
    """

    _store: FileStore
    _incoming: Incoming
    entries: list[Entry] = field(init=False, default=Factory(list))
    new_bytes: int = field(init=False, default=0)
    _new_rows: list[int] = field(init=False, default=Factory(list))

    def add(
        self,
        fd: int,
        name: str,
        media_type: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Take one open regular file, as ``FileStore.add`` does.

        After an error of this one file (``SourceChanged``, ``NotShareable``,
        ``Malformed``, ``OSError``) the batch can go on with others.
        """
        check_name(name)
        with translated(self._store.folder):
            id = self._incoming.take(fd, self._store.likely, progress or _quietly)
            self._incoming.names.append((id, name, media_type or guess_type(name)))
            if (
                len(self._incoming.names) >= _GROUP_FILES
                or self._incoming.size >= _GROUP_BYTES
            ):
                self.publish()

    def publish(self) -> None:
        """Make all that was added so far visible."""
        self.new_bytes += self._incoming.size
        for entry, new in self._store.settle(self._incoming):
            self.entries.append(entry)
            if new:
                self._new_rows.append(entry.row)
        self._incoming.names.clear()

    def discard(self, *, everything: bool) -> None:
        """Take back what is not visible yet, or all that this batch added."""
        self._incoming.discard()
        if everything:
            self._store.remove(self._new_rows)


def guess_type(name: str) -> str:
    """Guess a media type from a name; compressed content is just bytes."""
    kind, encoding = mimetypes.guess_type(name)
    return kind if kind and not encoding else "application/octet-stream"


def _quietly(_: int) -> None:
    """Report progress to nobody."""


def _entry(row: Row) -> Entry:
    number, id, name, size, media_type = row
    return Entry(number, FileID(id), name, size, media_type)


def _enter(run: Run, id: FileID, name: str, media_type: str) -> tuple[Entry, bool]:
    """Give the entry of a name, made if it is not there yet."""
    insert = "INSERT OR IGNORE INTO entries (id, name, media_type) VALUES (?, ?, ?)"
    new = run(insert, [id.text, name, media_type]).rowcount == 1
    (row,) = run(_ENTRIES + "WHERE name = ? AND id = ?", [name, id.text]).fetchall()
    return _entry(row), new


def _damaged(path: Path, why: str) -> StoreDamaged:
    return StoreDamaged(f"{path} is damaged", why, "Share the file again.")
