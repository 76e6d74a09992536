"""``/events``: the lifeline, a server-sent event stream that stays open.

Its first byte tells the caller that they were let in, which TLS 1.3 alone does
not; its silence tells them that we are gone.
"""

from random import Random

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from zope.interface import implementer

from protocols.request import PeerRequest, Resource, anyone

PERIOD_S = 25.0
"""The longest silence on the stream, in seconds."""

_JITTER = 0.2  # of the period, so that no two streams keep a common beat
_COMMENT = b": wherry\n\n"


@implementer(IPushProducer)
class Lifeline:
    """One open stream. It lives until the connection is gone.

    Args:
        request: what it answers.
        clock: for the time between two comments.
        draw: for their jitter.
    """

    def __init__(self, request: PeerRequest, clock: IReactorTime, draw: Random) -> None:
        self._request = request
        self._clock = clock
        self._draw = draw
        self._paused = False
        self._next: IDelayedCall | None = None
        request.registerProducer(self, True)
        self._speak()

    def _speak(self) -> None:
        wait = PERIOD_S * (1 - self._draw.uniform(0, _JITTER))
        self._next = self._clock.callLater(wait, self._speak)
        if not self._paused:
            self._request.write(_COMMENT)

    def pauseProducing(self) -> None:
        """Say nothing: what was said has not left yet."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Speak again, when it is time."""
        self._paused = False

    def stopProducing(self) -> None:
        """Nobody listens any more."""
        if self._next is not None and self._next.active():
            self._next.cancel()


def events(clock: IReactorTime, draw: Random) -> list[Resource]:
    """Make ``/events``."""

    def listen(request: PeerRequest) -> None:
        request.begin(200, {"Content-Type": "text/event-stream"})
        if request.method == b"HEAD":
            request.finish()
        else:
            Lifeline(request, clock, draw)

    return [Resource("/events", "GET HEAD", anyone, listen)]
