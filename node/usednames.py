"""The one-use server names that are used up, kept over a restart.

Without them, who has watched the network could ask again after a restart and
be shown the certificate.
"""

import errno
import os
from collections import deque
from collections.abc import Callable

from twisted.logger import Logger

from node.directory import NodeDirectory
from protocols.callname import RECORD, split_records

_log = Logger()

FILE = "private/used-names"
MOST = 1 << 20
"""How many records are read at most; `CallNames` never keeps as many."""

_CHUNK = RECORD << 16


class UsedNames:
    """A file of a few bytes a call; old days go at a start, and once a day.

    Owner: the node, which holds the directory's lock.

    Args:
        directory: where the file is.
        seconds: gives the time since the epoch.

    Attributes:
        records: what was kept before.
        failing: why the last record could not be kept, or None.
    """

    def __init__(self, directory: NodeDirectory, seconds: Callable[[], float]) -> None:
        self._directory = directory
        self._seconds = seconds
        self._file = -1
        self._day = self._today()
        self.failing: str | None = None
        self.records = self._drop_old_days()

    def _today(self) -> int:
        return int(self._seconds() // 86400)

    def _drop_old_days(self) -> list[bytes]:
        """Write the file anew with what is still good, and give that."""
        now, good = self._seconds(), deque[bytes](maxlen=MOST)
        for chunk in self._directory.read_chunks(FILE, _CHUNK):
            good += split_records(chunk, now)
        self._directory.write_file(FILE, b"".join(good))
        self.close()  # what is open now is the old file, which has no name any more
        self._open()
        return list(good)

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(self._directory.path / FILE, flags)

    def keep(self, record: bytes) -> None:
        """Keep one more record.

        On a full disk the name is still used up in memory, so the node goes on
        being called and says what is wrong.
        """
        if self._day != self._today():
            self._day = self._today()
            with _log.failuresHandled("dropping used server names of old days"):
                self._drop_old_days()
        try:
            if self._file < 0:
                self._open()
            kept = os.write(self._file, record)
            if kept < len(record):
                # Half a record would shift all that come after it.
                os.ftruncate(self._file, os.fstat(self._file).st_size - kept)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.failing = None
        except OSError as error:
            if self.failing is None:
                _log.error("cannot keep used server names: {error}", error=error)
            self.failing = error.strerror

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
