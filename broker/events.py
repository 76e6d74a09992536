"""The lifeline: a peer's ``/events``, which being up is what "connected" means.

In TLS 1.3 the caller's handshake ends before the called side has judged it, so
that only the first byte of this stream says that it has let us in.
"""

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.iweb import IResponse

from broker.errors import Denied, NotEvents, Silent
from broker.http import discard

PATH: Final = "/events"
TYPE: Final = b"text/event-stream"

FIRST_BYTE_S: Final = 15.0
"""How long a peer may take to let us in, in seconds."""

SILENCE_S: Final = 30.0
"""After this long without a byte the link is dead, in seconds; a peer that is
there says something every 25."""


def check_answer(response: IResponse) -> None:
    """Refuse an answer that is no stream of events; its connection is closed.

    Raises:
        Denied: the peer doesn't let us in.
        NotEvents: it is no Wherry, or not well.
    """
    types = response.headers.getRawHeaders(b"Content-Type", [b""])
    media_type = types[0].partition(b";")[0].strip().lower()
    if response.code == 200 and media_type == TYPE:
        return
    discard(response)
    if response.code in (401, 403):
        raise Denied("it knows who we are and does not let us in")
    if response.code in (429, 503):
        raise NotEvents(f"is busy and refused another connection ({response.code})")
    raise NotEvents(f"answered {PATH} as no Wherry does (status {response.code})")


class Lifeline(Protocol):
    """Receives the stream; what it says is nothing but that the peer is there.

    Owner: a generation. It lives until ``ended`` is called or it is stopped.

    Args:
        clock: for the time of silence.
        ended: called once with why, after the first byte has come and the
            stream is over.
        silence_s: how long a live peer may be silent, in seconds.

    Attributes:
        first: fires at the first byte, or fails with why none came.
    """

    def __init__(
        self,
        clock: IReactorTime,
        ended: Callable[[BaseException], None],
        silence_s: float = SILENCE_S,
    ) -> None:
        self.first: Deferred[None] = Deferred(lambda _: self.stop())
        self._clock = clock
        self._ended = ended
        self._silence_s = silence_s
        self._heard = clock.seconds()
        self._timer: IDelayedCall | None = None
        self._over = False

    def heard(self) -> None:
        """Note a sign of life, on this or another connection to the peer.

        It costs no timer: the running one looks at the time when it is due.
        """
        self._heard = self._clock.seconds()

    def dataReceived(self, data: bytes) -> None:
        """Take the first byte as the peer's word that we are let in."""
        self.heard()
        if not self.first.called:
            self._watch(self._silence_s)
            self.first.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The stream is over, whatever the reason."""
        if reason.check(ResponseDone):
            self._end(NotEvents("ended the stream of events"))
        else:
            self._end(reason.value or NotEvents("the stream of events is over"))

    def stop(self) -> None:
        """Listen no more; ``ended`` is not called."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _watch(self, seconds: float) -> None:
        self._timer = self._clock.callLater(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        silent = self._clock.seconds() - self._heard
        if silent >= self._silence_s:
            self._end(Silent(f"sent nothing for {silent:.0f} s"))
        else:
            self._watch(self._silence_s - silent)

    def _end(self, problem: BaseException) -> None:
        if self._over:
            return
        self.stop()
        if self.first.called:
            self._ended(problem)
        else:
            self.first.errback(problem)
