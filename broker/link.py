"""One TLS connection to a peer, from its handshake to its end.

Routes are raced up to the end of the TLS handshake with the right pin; the
connection that has won is then *adopted* by the HTTP client, so that it carries
the first request and nothing is dialled twice.
"""

from collections.abc import Callable
from typing import Final, cast

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import (
    IAddress,
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from broker.errors import HandshakeTimeout
from protocols.deferreds import starting

HANDSHAKE_S: Final = 10.0
"""How long a TLS handshake may take, in seconds."""

HEAD_LIMIT: Final = 64 * 1024
"""How long the head of an answer may be, in bytes; Twisted limits its lines only."""


class _Head:
    """Looks for the end of an answer's head."""

    def __init__(self) -> None:
        self._left = HEAD_LIMIT
        self._tail = b""
        self._over = False

    def takes(self, data: bytes) -> bool:
        """Whether the head is not too long with this data."""
        if not self._over:
            seen = self._tail + data
            self._over = b"\n\n" in seen or b"\n\r\n" in seen
            self._left -= len(data)
            self._tail = seen[-2:]
        return self._over or self._left >= 0


@implementer(IHandshakeListener)
class Link(Protocol):
    """Waits for the handshake, then passes everything on to who adopts it.

    Owner: the generation whose Tub it uses. It lives until ``ended`` is called.

    Args:
        heard: called for every piece of data that arrives.
        ended: called with this link once its connection is gone.

    Attributes:
        secured: fires with this link after the handshake, or fails with what
            ended the connection before; cancelling it cuts the connection.
        lost: whether the connection is gone.
    """

    def __init__(
        self, heard: Callable[[], None], ended: Callable[["Link"], None]
    ) -> None:
        self.secured: Deferred[Link] = Deferred(lambda _: self.abort())
        self.lost = False
        self._heard = heard
        self._ended = ended
        self._adopter: IProtocol | None = None
        self._head = _Head()

    def handshakeCompleted(self) -> None:
        """The other end has shown the right key; it has not judged ours yet."""
        if not self.secured.called:
            self.secured.callback(self)

    def adopt(self, factory: IProtocolFactory) -> IProtocol | None:
        """Put a protocol of ``factory`` on this connection, once."""
        if self._adopter is not None or self.transport is None:
            raise RuntimeError("this link is taken, or was never connected")
        protocol: IProtocol | None = factory.buildProtocol(self.transport.getPeer())
        if protocol is not None:
            self._adopter = protocol
            protocol.makeConnection(self.transport)
        return protocol

    def dataReceived(self, data: bytes) -> None:
        """Pass data on; nobody speaks before they are asked."""
        self._heard()
        if self._adopter is None or not self._head.takes(data):
            self.abort()
            return
        self._adopter.dataReceived(data)
        if getattr(self._adopter, "state", None) == "QUIESCENT":
            self._head = _Head()  # the answer is over, and another may come

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell whoever waits or listens, then the owner."""
        self.lost = True
        if not self.secured.called:
            self.secured.errback(reason)
        if self._adopter is not None:
            self._adopter.connectionLost(reason)
        self._ended(self)

    def abort(self) -> None:
        """Cut the connection without waiting for the other end."""
        if not self.lost and self.transport is not None:
            cast(TLSMemoryBIOProtocol, self.transport).abortConnection()


class _Links(Factory):
    noisy = False

    def __init__(self, make: Callable[[], Link]) -> None:
        self._make = make

    def buildProtocol(self, addr: IAddress | None) -> Link:
        return self._make()


@starting
async def connect(
    endpoint: IStreamClientEndpoint,
    connections: IOpenSSLClientConnectionCreator,
    make: Callable[[], Link],
    clock: IReactorTime,
    handshake_s: float = HANDSHAKE_S,
) -> Link:
    """Connect, and wait for the end of the TLS handshake.

    Args:
        endpoint: where to.
        connections: our Tub and the pin of who must answer.
        make: makes the link.
        clock: for the time limit.
        handshake_s: how long the handshake may take, in seconds.

    Returns:
        A Deferred that fires with a link that can be adopted. It fails as the
        endpoint does, with what ended the handshake, or with
        `HandshakeTimeout`; cancelling it cuts the connection.
    """
    secure = wrapClientTLS(connections, endpoint, clock)
    link = cast(Link, await secure.connect(_Links(make)))
    link.secured.addTimeout(handshake_s, clock, _too_slow)
    return await link.secured


def _too_slow(result: object, limit: float) -> object:
    raise HandshakeTimeout(f"no TLS handshake in {limit:g} s")
