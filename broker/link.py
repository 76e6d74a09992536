"""One TLS connection to a peer, from its handshake to its end.

Routes are raced up to the end of the TLS handshake with the right pin; the
connection that has won is then *adopted* by the HTTP client, so that it carries
the first request and nothing is dialled twice.
"""

import re
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

from broker.errors import HandshakeTimeout, NotHTTP
from protocols.deferreds import starting

HANDSHAKE_S: Final = 10.0
"""How long a TLS handshake may take, in seconds."""

HEAD_LIMIT: Final = 64 * 1024
"""How long the head of an answer may be, in bytes; Twisted limits its lines only."""


_STATUS: Final = b"HTTP/1.1 200 "
_STATUSES: Final = re.compile(rb"HTTP/1\.[01] [2-5][0-9][0-9][ \r\n]")


class _Head:
    """Watches the head of one answer as it comes."""

    def __init__(self) -> None:
        self._start = b""
        self._left = HEAD_LIMIT
        self._tail = b""
        self._over = False

    def fault(self, data: bytes) -> str | None:
        """Say what is wrong with the head, if anything is with this data.

        We never send ``Expect``, so interim answers (1xx) are wrong: Twisted
        would log and skip each of them, and look for another head after it.
        """
        if self._over:
            return None
        self._start += data[: len(_STATUS) - len(self._start)]
        if not _STATUSES.fullmatch(self._start + _STATUS[len(self._start) :]):
            if self._start.startswith(b"HTTP/1.1 1"):
                return "sent an interim answer, which was not asked for"
            return "answered with something else than HTTP"
        seen = self._tail + data
        self._over = b"\n\n" in seen or b"\n\r\n" in seen
        self._left -= len(data)
        self._tail = seen[-2:]
        if self._left < 0 and not self._over:
            return f"the head of its answer is longer than {HEAD_LIMIT >> 10} KiB"
        return None


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
        self._parser: object = None
        self._head = _Head()
        self._fault: Failure | None = None

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
        if self._adopter is None or self._fault is not None:
            self.abort()
            return
        # Each answer has a parser of its own. The state of the HTTP client does
        # not tell: the end of one answer may have asked for the next already.
        parser = getattr(self._adopter, "_parser", None)
        if parser is not self._parser:
            self._parser, self._head = parser, _Head()
        fault = self._head.fault(data)
        if fault is not None:
            self._fault = Failure(NotHTTP(fault))
            self.abort()
            return
        self._adopter.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell whoever waits or listens, then the owner."""
        self.lost = True
        reason = self._fault or reason
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
