"""The one-use server names that are used up, kept over a restart.

Without them, who has watched the network could ask again after a restart and
be shown the certificate.
"""

import errno
import os

from twisted.logger import Logger

from node.directory import NodeDirectory
from protocols.callname import split_records

_log = Logger()

FILE = "private/used-names"
_LIMIT = 16 << 20


class UsedNames:
    """An append-only file of a few bytes a call; old days go at the next start.

    Owner: the node, which holds the directory's lock.

    Attributes:
        records: what was kept before.
        failing: why the last record could not be kept, or None.
    """

    def __init__(self, directory: NodeDirectory, now: float) -> None:
        data = directory.read_file(FILE, _LIMIT) or b""
        self.records = split_records(data, now)
        directory.write_file(FILE, b"".join(self.records))
        self.failing: str | None = None
        self._file = os.open(
            directory.path / FILE, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        )

    def keep(self, record: bytes) -> None:
        """Keep one more record.

        On a full disk the name is still used up in memory, so the node goes on
        being called and says what is wrong.
        """
        try:
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
        os.close(self._file)
