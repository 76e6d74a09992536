"""An index in SQLite that several threads read while one writes."""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from node.errors import Failed
from node.stores.durable import is_full

Row = tuple[Any, ...]
Run = Callable[..., sqlite3.Cursor]


class StoreFull(Failed):
    """The disk, or the user's share of it, is full."""


class StoreDamaged(Failed):
    """A store does not hold what its index says, or its index is unreadable."""


@contextmanager
def translated(where: Path) -> Iterator[None]:
    """Turn full disks and a broken index into errors for the user.

    Args:
        where: what to name in them.
    """
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            raise _full(where) from error
        raise StoreDamaged(
            f"{where} can't be used",
            str(error),
            "If the disk is in order, move the file away and share your files again.",
        ) from error
    except OSError as error:
        if is_full(error):
            raise _full(where) from error
        raise


def _full(where: Path) -> StoreFull:
    return StoreFull(
        "the disk is full",
        f"no room left in {where.parent}",
        "Nothing was kept of it; free some space and try again.",
    )


class Index:
    """One SQLite file: a connection that writes, and one that reads beside it.

    In the write-ahead mode that is used here neither waits for the other, so
    a node goes on serving while a large share is written down.

    Args:
        path: the file; made if missing, for the owner alone.
        schema: statements that make the tables.
        version: kept as ``user_version``; another one found is refused.
    """

    def __init__(self, path: Path, schema: str, version: int) -> None:
        self.path = path
        self.writing = threading.RLock()
        self._reading = threading.Lock()
        self._closed = False
        with translated(path):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._writer = self._connect()
            self._prepare(schema, version)
            self._reader = self._connect()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def _prepare(self, schema: str, version: int) -> None:
        (found,) = self._writer.execute("PRAGMA user_version").fetchone()
        if found == 0:
            # One transaction: a crash leaves an empty file or a whole index.
            statements = f"BEGIN; {schema} PRAGMA user_version = {version}; COMMIT;"
            self._writer.executescript(statements)
        elif found != version:
            self._writer.close()
            raise StoreDamaged(
                f"{self.path} has version {found}, this Wherry knows {version}",
                do="Use the newer Wherry that wrote it.",
            )

    def read(self, query: str, values: Sequence[object] = ()) -> list[Row]:
        """Run one query beside whatever is being written."""
        with self._reading, translated(self.path):
            self._check_open()
            return self._reader.execute(query, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[Run]:
        """Write all of it or nothing; gives the function that runs a statement."""
        with self.writing, translated(self.path):
            self._check_open()
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer.execute
                self._writer.execute("COMMIT")
            except BaseException:
                # SQLite itself rolls back after some errors, such as a full disk.
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    def _check_open(self) -> None:
        """Tell work that outlives the node from a damaged index."""
        if self._closed:
            raise Failed("the store is closed", "the node has stopped")

    def close(self) -> None:
        """Close both connections."""
        with self._reading, self.writing:
            self._closed = True
            self._reader.close()
            self._writer.close()
