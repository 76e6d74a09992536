"""The called side's HTTP: connections with a principal, and limits on each of them.

A connection serves nothing before the end of its TLS handshake, where it is
decided who is calling. So a site that is put on a plaintext port by mistake
stays mute.
"""

from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHandshakeListener,
    IReactorTime,
    ITCPTransport,
    ITransport,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import RESPONSES, HTTPChannel, datetimeToString
from zope.interface import implementer

from protocols.errors import ProtocolError
from protocols.keepalive import bottom, keep_alive
from protocols.limits import Limits, Place, Places
from protocols.principal import Principal
from protocols.request import PeerRequest, Refusal, Resource, bad_request

_log = Logger()

_EARLY = 1 << 14  # bytes of the next requests that we read before it is their turn
_FAREWELL = 1 << 20  # bytes that a caller may still send once we said goodbye


class Timer:
    """One delayed call at a time."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._call: IDelayedCall | None = None

    @property
    def running(self) -> bool:
        """Whether something will be called."""
        return self._call is not None and self._call.active()

    def start(self, seconds: float, then: Callable[[], object]) -> None:
        """Call ``then`` after so many seconds, and nothing that was set before."""
        self.stop()
        self._call = self._clock.callLater(max(0, seconds), then)

    def stop(self) -> None:
        """Call nothing."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None


class Phase(Enum):
    """Where a connection is; each phase but one has a deadline."""

    HANDSHAKE = auto()  # until TLS is up
    IDLE = auto()  # no request begun
    READING = auto()  # from the first byte of a request to its last
    ANSWERING = auto()  # no deadline: `PeerChannel.pauseProducing` has its own
    CLOSING = auto()  # the last answer is on its way out


@implementer(IHandshakeListener)
class PeerChannel(HTTPChannel):
    """One inbound connection.

    Owner: its site. It lives until the transport is lost.

    Attributes:
        caller: who is calling; None until the handshake is over.
    """

    maxHeaders = 100
    requestFactory = PeerRequest
    timeOut = None  # each phase has a deadline instead
    caller: Principal | None = None

    def __init__(self, site: "PeerSite") -> None:
        super().__init__()
        self._site = site
        self._place: Place | None = None
        self._turned_away: Refusal | None = None
        self._phase = Phase.HANDSHAKE
        self._deadline = Timer(site.clock)
        self._stall = Timer(site.clock)
        self._expiry = Timer(site.clock)
        self._held: PeerRequest | None = None
        self._early = 0
        self._ignored = 0

    # -- coming in

    def connectionMade(self) -> None:
        """Wait for the handshake, if there is room for one more."""
        super().connectionMade()
        keep_alive(self.transport)
        self._place = self._site.arrived(self)
        if self._place is None:
            self.forceAbortClient()
        else:
            self._enter(Phase.HANDSHAKE)

    def handshakeCompleted(self) -> None:
        """Decide, once for the whole connection, who is calling."""
        if self._phase is not Phase.HANDSHAKE or self._place is None:
            return
        with _log.failuresHandled("deciding who is calling") as deciding:
            self._admit(self._place)
        if not deciding.succeeded:
            self.forceAbortClient()

    def _admit(self, place: Place) -> None:
        site = self._site
        try:
            caller, end = site.identify(self._wire)
        except ProtocolError as error:
            _log.info("refused a caller: {reason}", reason=str(error))
            self.forceAbortClient()
            return
        self.caller = caller
        self._expiry.start(end - site.clock.seconds(), self.forceAbortClient)
        if place.enter(caller):
            self._enter(Phase.IDLE)
            site.on_call(caller)
        else:
            reason = "this node has as many connections as it takes; try again later"
            self._turned_away = Refusal(503, "too_many_connections", reason)
            self._enter(Phase.READING)  # soon: a place for handshakes is in use

    @property
    def _wire(self) -> ITCPTransport:
        return cast(ITCPTransport, self.transport)

    # -- from phase to phase

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        limits, deadline = self._site.limits, self._deadline
        if phase is Phase.HANDSHAKE:
            deadline.start(limits.handshake_s, self.forceAbortClient)
        elif phase is Phase.IDLE:
            deadline.start(limits.idle_s, self.loseConnection)
        elif phase is Phase.READING:
            deadline.start(limits.headers_s, self._too_slow)
        elif phase is Phase.ANSWERING:
            deadline.stop()
        else:
            deadline.start(limits.stall_s, self.forceAbortClient)

    def dataReceived(self, data: bytes) -> None:
        """Take what came; nothing before the handshake or after goodbye counts."""
        if self._phase is Phase.HANDSHAKE:
            self.forceAbortClient()
        elif self._phase is Phase.CLOSING:
            self._ignored += len(data)
            if self._ignored > _FAREWELL:
                self.forceAbortClient()
        else:
            if self._phase is Phase.IDLE:
                self._enter(Phase.READING)
            super().dataReceived(data)

    def headerReceived(self, line: bytes) -> bool:
        """Take one header line; say whether it was good."""
        try:
            return bool(super().headerReceived(line))
        except ValueError:  # a Content-Length of more digits than int() reads
            self._respondToBadRequestAndDisconnect()
            return False

    def allHeadersReceived(self) -> None:
        """Decide the request, before any of its body is read.

        A body that nobody wants is never read: the answer goes out at once, and
        the connection ends.
        """
        request: PeerRequest = self.requests[-1]
        if self.caller is None:
            raise RuntimeError("a request before the handshake")
        if self._turned_away is not None:
            request.refuse(self._turned_away)
        line = self._command, self._path, self._version
        room = request.decide(self._site.resources, self.caller, line)
        unwanted = self.length is None or self.length > room
        if unwanted:
            request.refuse(_too_large(room, self.length))
            self.length = 0
            request.requestHeaders.removeHeader(b"Expect")
        super().allHeadersReceived()
        self.persistent = bool(
            self.persistent and not unwanted and self._turned_away is None
        )

    def allContentReceived(self) -> None:
        """Answer the request, once the answer before it has left."""
        self._enter(Phase.ANSWERING)
        super().allContentReceived()
        if self._stall.running:
            self._held = self.requests[-1]
        else:
            self._answer(self.requests[-1])

    def rawDataReceived(self, data: bytes) -> None:
        """Keep early requests for later; stop reading if there are too many.

        Twisted stops reading too, but not while the caller takes nothing.
        """
        super().rawDataReceived(data)
        if self._phase is Phase.ANSWERING:
            self._early += len(data)
            if self._early > _EARLY:
                self._networkProducer.pauseProducing()

    def _answer(self, request: PeerRequest) -> None:
        now = datetimeToString(self._site.clock.seconds())
        request.responseHeaders.setRawHeaders(b"Date", [now])
        if not self.persistent:
            request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        request.process()

    def requestDone(self, request: PeerRequest) -> None:
        """Wait for the next request, or close."""
        self._early = 0
        self._enter(Phase.IDLE)  # first: the next one may be in the buffer
        super().requestDone(request)

    # -- callers who take nothing

    def pauseProducing(self) -> None:
        """Wait for the caller to take what was sent, but not for ever."""
        if not self._stall.running:
            self._stall.start(self._site.limits.stall_s, self.forceAbortClient)
        super().pauseProducing()

    def resumeProducing(self) -> None:
        """Go on: what was sent has left."""
        self._stall.stop()
        super().resumeProducing()
        if self._held is not None:
            request, self._held = self._held, None
            self._answer(request)

    def write(self, data: bytes) -> None:
        """Send, unless TLS is over: it would swallow any amount without a sign."""
        if getattr(bottom(self._wire), "disconnecting", False):
            self.forceAbortClient()
        else:
            super().write(data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send, as `write` does."""
        self.write(b"".join(iovec))

    # -- going away

    def _too_slow(self) -> None:
        self._say_no(Refusal(408, "request_timeout", "the request took too long"))

    def _respondToBadRequestAndDisconnect(self) -> None:
        # Twisted's one hook for whatever is wrong with a request's form.
        self._say_no(bad_request("this is not a request of HTTP/1.1 or HTTP/1.0"))

    def lineLengthExceeded(self, line: bytes) -> None:
        """Refuse a line that does not end."""
        self._respondToBadRequestAndDisconnect()

    def _say_no(self, refusal: Refusal) -> None:
        """Answer what never became a request, and close."""
        head = (
            f"HTTP/1.1 {refusal.status} {RESPONSES[refusal.status].decode()}",
            "Connection: close",
            "Content-Type: application/json",
            f"Content-Length: {len(refusal.body)}",
            "\r\n",
        )
        self.write("\r\n".join(head).encode() + refusal.body)
        self.loseConnection()

    def loseConnection(self) -> None:
        """Say goodbye, and wait a while for the caller to do so too."""
        if self._phase is not Phase.CLOSING:
            self._enter(Phase.CLOSING)
            super().loseConnection()

    def forceAbortClient(self) -> None:
        """End the connection now."""
        self._enter(Phase.CLOSING)
        for request in self.requests:
            if request.producer is not None:
                request.producer.pauseProducing()
        self._wire.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End what was being answered, and give the place back."""
        super().connectionLost(reason)
        self._held = None
        for timer in (self._deadline, self._stall, self._expiry):
            timer.stop()
        if self._place is not None:
            self._place.leave()
        self._site.left(self)


def _too_large(room: int, length: int | None) -> Refusal:
    if room and length is None:
        return Refusal(411, "length_required", "a body needs a Content-Length here")
    reason = f"no body beyond {room} bytes" if room else "no body belongs here"
    return Refusal(413, "too_large", reason)


class PeerSite(Factory):
    """Serves resources to callers; put it behind the TLS of `protocols.tls`.

    Args:
        clock: for every limit.
        resources: what there is to ask for.
        principal_of: names the caller of a TLS transport after its handshake,
            or raises a `ProtocolError` to refuse them.
        chain_end: gives the time at which the caller's certificates begin to
            expire, which ends the connection.
        limits: what one caller may cost.
        on_call: told of everybody who came in.
    """

    noisy = False

    def __init__(
        self,
        clock: IReactorTime,
        resources: Sequence[Resource],
        principal_of: Callable[[ITransport], Principal],
        chain_end: Callable[[ITransport], float],
        limits: Limits,
        on_call: Callable[[Principal], None],
    ) -> None:
        self.clock = clock
        self.resources = resources
        self.limits = limits
        self._principal_of = principal_of
        self._chain_end = chain_end
        self._on_call = on_call
        self._places = Places(limits)
        self._channels: set[PeerChannel] = set()
        self._closing: list[Deferred[None]] | None = None

    def buildProtocol(self, addr: IAddress | None) -> PeerChannel:
        """Make the protocol of one inbound connection."""
        return PeerChannel(self)

    @property
    def callers(self) -> list[Principal]:
        """Who is on the line now, once for each connection."""
        return [each.caller for each in self._channels if each.caller is not None]

    def cut(self, whom: Callable[[Principal], bool]) -> int:
        """End the connections of those callers at once, and count them."""
        doomed = [each for each in self._channels if each.caller and whom(each.caller)]
        for channel in doomed:
            channel.forceAbortClient()
        return len(doomed)

    def close(self) -> Deferred[None]:
        """End every connection, and let nobody in any more.

        Returns:
            A Deferred that fires once all connections are gone.
        """
        closed: Deferred[None] = Deferred()
        self._closing = [*(self._closing or ()), closed]
        for channel in list(self._channels):
            channel.forceAbortClient()
        self._check_closed()
        return closed

    # -- from its channels

    def arrived(self, channel: PeerChannel) -> Place | None:
        """Take note of a connection, and find it a place while it lasts."""
        self._channels.add(channel)
        if self._closing is not None:
            return None
        host = getattr(channel.getPeer(), "host", "")
        return self._places.arrive(host, channel.forceAbortClient)

    def identify(self, transport: ITransport) -> tuple[Principal, float]:
        """Say who is calling, and until when they may."""
        return self._principal_of(transport), self._chain_end(transport)

    def on_call(self, caller: Principal) -> None:
        """Tell of a caller who came in."""
        with _log.failuresHandled("telling of a call"):
            self._on_call(caller)

    def left(self, channel: PeerChannel) -> None:
        """Forget a connection that is gone."""
        self._channels.discard(channel)
        self._check_closed()

    def _check_closed(self) -> None:
        if self._closing and not self._channels:
            waiting, self._closing = self._closing, []
            for each in waiting:
                each.callback(None)
