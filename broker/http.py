"""HTTP to one peer: what is sent is the same for all, what comes is bounded.

A treq client by default keeps cookies, asks for gzip and inflates what comes,
follows redirects and buffers bodies. Towards a peer each of these is a leak, a
lever or a bomb, so all are off, and the agent below it lets only a fixed set of
headers out, in one order.
"""

from collections.abc import Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final, cast

from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IPushProducer,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool, ResponseDone
from twisted.web.error import SchemeNotSupported
from twisted.web.http_headers import Headers
from twisted.web.iweb import (
    UNKNOWN_LENGTH,
    IAgent,
    IAgentEndpointFactory,
    IBodyProducer,
    IResponse,
)
from zope.interface import implementer

from broker.errors import RequestFailed, ResponseTooLarge

HOST: Final = b"peer.wherry.internal"
"""What every peer is called in a URL; it says nothing about which one it is."""

PASSED: Final = (b"Accept", b"Range")
"""The request headers that callers may set, in the order in which they are sent."""

IDLE_S: Final = 60
"""How long an idle connection is kept for the next request, in seconds."""

IDLE_CONNECTIONS: Final = 4


class Requests:
    """The requests to one peer in one connection generation.

    Owner: a generation; its pool, client and cookie-less jar are used by
    nothing else.

    Args:
        endpoint: connects to the peer.
        clock: for the pool's and the client's timeouts.
    """

    def __init__(self, endpoint: IStreamClientEndpoint, clock: IReactorTime) -> None:
        self._clock = clock
        self._pool = HTTPConnectionPool(clock, persistent=True)
        self._pool.cachedConnectionTimeout = IDLE_S
        self._pool.maxPersistentPerHost = IDLE_CONNECTIONS
        agent = Agent.usingEndpointFactory(clock, _OnlyPeer(endpoint), self._pool)
        no_cookies = DefaultCookiePolicy(allowed_domains=[])
        self._client = HTTPClient(_PlainAgent(agent), IndexableCookieJar(no_cookies))

    def request(
        self, method: bytes, path: str, headers: Mapping[str, str]
    ) -> Deferred[IResponse]:
        """Send a request without a body.

        Args:
            method: such as ``b"GET"``.
            path: the target with its query, percent-encoded, from the ``/`` on.
            headers: of `PASSED` alone.

        Returns:
            A Deferred that fires with the head of the answer, whatever its
            status; the body is unbuffered. It fails as Twisted's client does.

        Raises:
            ValueError: a path or header that must not be sent.
        """
        if not path.startswith("/") or not path.isascii() or "#" in path:
            raise ValueError(f"not a percent-encoded path: {path!a}")
        chosen = {name.encode("ascii").title() for name in headers}
        if not chosen <= set(PASSED):
            raise ValueError(f"headers that must not be sent: {sorted(headers)}")
        answer = self._client.request(
            method.decode("ascii"),
            f"https://{HOST.decode('ascii')}{path}",
            headers=Headers({name: [value] for name, value in headers.items()}),
            allow_redirects=False,
            unbuffered=True,
            reactor=cast(Any, self._clock),  # it needs nothing but the time
        )
        return cast("Deferred[IResponse]", answer)

    def close(self) -> None:
        """Forget all idle connections."""
        self._pool.closeCachedConnections()


@implementer(IAgentEndpointFactory)
class _OnlyPeer:
    """Leads to one peer and nowhere else, whatever a URL says."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """Give the peer's endpoint."""
        if (uri.scheme, uri.host, uri.port) != (b"https", HOST, 443):
            raise SchemeNotSupported("only the peer itself is called")
        return self._endpoint


@implementer(IAgent)
class _PlainAgent:
    """Sends the fixed headers alone and takes no encoded answer."""

    def __init__(self, agent: IAgent) -> None:
        self._agent = agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """Send a request without what treq added to it."""
        plain = Headers()
        plain.addRawHeader(b"Host", HOST)
        for name in PASSED:
            for value in (headers or plain).getRawHeaders(name, ()):
                plain.addRawHeader(name, value)
        answer: Deferred[IResponse] = self._agent.request(
            method, uri, plain, bodyProducer
        )
        return answer.addCallback(_refuse_encoded)


def _refuse_encoded(response: IResponse) -> IResponse:
    """Treq would inflate what nobody asked to be deflated."""
    if response.headers.getRawHeaders(b"Content-Encoding"):
        response.deliverBody(_Discard())
        raise RequestFailed("the answer is compressed, which was not asked for")
    return response


class _Discard(Protocol):
    """Ends an answer, and with it its connection."""

    def connectionMade(self) -> None:
        """Stop the answer where it is."""
        cast(IPushProducer, self.transport).stopProducing()


def discard(response: IResponse) -> None:
    """Give an answer up without reading its body; its connection is closed."""
    response.deliverBody(_Discard())


class _Reader(Protocol):
    """Collects a body up to a limit."""

    def __init__(self, limit: int) -> None:
        self.result: Deferred[bytes] = Deferred(lambda _: self._stop())
        self._limit = limit
        self._left = limit
        self._body = bytearray()  # not a list: tiny chunks would fill the memory

    def dataReceived(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left >= 0:
            self._body += data
        elif not self.result.called:
            self._body.clear()
            self._stop()
            self.result.errback(ResponseTooLarge(self._limit))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.result.called:
            return
        if reason.check(ResponseDone):
            self.result.callback(bytes(self._body))
        else:
            self.result.errback(reason)

    def _stop(self) -> None:
        cast(IPushProducer, self.transport).stopProducing()


def read_body(response: IResponse, limit: int) -> Deferred[bytes]:
    """Read an answer's body, and not a byte more than its reader can take.

    Args:
        response: an unbuffered answer.
        limit: how many bytes are taken.

    Returns:
        A Deferred that fires with the whole body. It fails with
        `ResponseTooLarge`, or with what broke the answer off; cancelling it
        closes the connection.
    """
    reader = _Reader(limit)
    if response.length is not UNKNOWN_LENGTH and response.length > limit:
        discard(response)
        reader.result.errback(ResponseTooLarge(limit))
    else:
        response.deliverBody(reader)
    return reader.result
