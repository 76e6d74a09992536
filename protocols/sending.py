"""A stretch of bytes on its way to a caller, as fast as they take it."""

from collections.abc import Callable

from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from zope.interface import implementer

from protocols.request import PeerRequest

_log = Logger()

CHUNK = 64 * 1024
"""How many bytes are read and sent at a time. For 256 KiB, malloc now and then maps
and unmaps memory for every single read, which doubles the cost of a byte."""


@implementer(IPushProducer)
class Sending:
    """A stretch of bytes on its way to a caller, a chunk at a time.

    Owner: its request. It ends with the stretch or with the connection, and
    calls ``done`` once, whichever it is.

    Args:
        request: what it answers; its headers are settled.
        read: gives bytes: an offset, and how many at most.
        start: the offset of the first byte.
        stop: the offset after the last byte.
        done: gives back what ``read`` reads from.
    """

    def __init__(
        self,
        request: PeerRequest,
        read: Callable[[int, int], bytes],
        start: int,
        stop: int,
        done: Callable[[], object],
    ) -> None:
        self._request = request
        self._read = read
        self._at = start
        self._stop = stop
        self._done = done
        self._paused = self._ended = False
        self._busy = False
        request.registerProducer(self, True)
        self.resumeProducing()

    def pauseProducing(self) -> None:
        """Wait: the connection is behind."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Send until the connection is behind, or all is sent."""
        self._paused = False
        if self._busy:
            return  # from within a write: the loop below goes on
        self._busy = True
        while not self._paused and not self._ended:
            self._send()
        self._busy = False

    def _send(self) -> None:
        if self._at == self._stop:
            self.stopProducing()
            self._request.unregisterProducer()
            self._request.finish()
            return
        try:
            data = self._read(self._at, min(CHUNK, self._stop - self._at))
        except OSError:
            _log.failure("reading a file that is being sent")
            data = b""
        if data:
            self._at += len(data)
            self._request.write(data)
        else:
            # It is shorter than it was, or the disk fails. What was sent must
            # not look whole.
            self.stopProducing()
            self._request.cut()

    def stopProducing(self) -> None:
        """End here."""
        if not self._ended:
            self._ended = True
            self._done()
