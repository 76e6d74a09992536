"""One connection generation: a fresh outbound Tub to one peer, and all it carries.

Everything that could join two peers, or two calls to one peer, lives and dies
here: the Tub, the route, the connections, their pool, the HTTP client.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn, TypeVar

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.web.iweb import IResponse
from zope.interface import implementer

from broker import link
from broker.errors import NoAnswer, RequestFailed, RouteRefused, explain, unwrap
from broker.events import FIRST_BYTE_S, PATH, Lifeline, check_answer
from broker.handlers import Handlers, dial
from broker.http import Requests
from broker.link import Link
from broker.merge import PeerRecord
from broker.race import race
from broker.routes import Route
from protocols.deferreds import starting

T = TypeVar("T")

ANSWER_S: Final = 60.0
"""How long a connected peer may take to begin an answer, in seconds."""


@frozen
class Credentials:
    """A fresh outbound Tub, ready for one generation.

    Attributes:
        connections: makes the TLS with this Tub and the pin of the peer.
        label: a few hex digits of the Tub's key, for the user.
    """

    connections: IOpenSSLClientConnectionCreator
    label: str


Issuer = Callable[[PeerRecord], Credentials]
"""Mints the Tub of one generation to this peer; called once for each.

It raises `broker.errors.NoTub`, with the reason in words for the user, if there
is no identity to call this peer with.
"""


class Generation:
    """The connections to one peer that share one outbound Tub.

    Owner: a peer. It is opened once and must be closed, whether or not opening
    it worked; after that it dials nothing any more.

    Args:
        record: the peer.
        issuer: mints the Tub.
        handlers: for the routes.
        clock: for all time limits.
        lost: called with why when the peer is gone after it was connected.
        report: called with each route that was tried and how it went.

    Attributes:
        credentials: our Tub, once there is one.
        route: the route that has won, once one has.
    """

    def __init__(
        self,
        record: PeerRecord,
        issuer: Issuer,
        handlers: Handlers,
        clock: IReactorTime,
        lost: Callable[[BaseException], None],
        report: Callable[[Route, str], None],
    ) -> None:
        self.credentials: Credentials | None = None
        self.route: Route | None = None
        self._record = record
        self._issuer = issuer
        self._handlers = handlers
        self._clock = clock
        self._report = report
        self._lifeline = Lifeline(clock, lost)
        self._requests = Requests(_Endpoint(self._connect), clock)
        self._won: Link | None = None
        self._links: set[Link] = set()
        self._pending: set[Deferred[Any]] = set()
        self._closed = False
        self._gone: list[Deferred[None]] = []

    def open(self, routes: Sequence[Route]) -> Deferred[None]:
        """Race the routes and wait for the first byte of the lifeline.

        Args:
            routes: the allowed ones, in their order.

        Returns:
            A Deferred that fires when the peer has let us in. It fails with
            `RaceFailed`, or with what went wrong after a route had won.
        """
        return self._tracked(self._open(routes))

    @starting
    async def _open(self, routes: Sequence[Route]) -> None:
        self.credentials = self._issuer(self._record)
        self.route, won = await race(routes, self._dial, self._clock)
        self._won = won
        asking = self._requests.request(b"GET", PATH, {"Accept": "text/event-stream"})
        response = await self._in_time(asking, FIRST_BYTE_S)
        check_answer(response)
        response.deliverBody(self._lifeline)
        await self._in_time(self._lifeline.first, FIRST_BYTE_S)

    @starting
    async def request(
        self, method: bytes, path: str, headers: Mapping[str, str]
    ) -> IResponse:
        """Send a request; see `broker.peer.Peer.request`."""
        asking = self._requests.request(method, path, headers)
        try:
            return await self._in_time(asking, ANSWER_S)
        except Exception as problem:
            why = explain(problem)
            if isinstance(unwrap(problem), CancelledError):
                if not self._closed:
                    raise CancelledError from None
                why = "the connection was lost"
            raise RequestFailed(f"{self._record.name}: {why}") from problem

    def _connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect an HTTP protocol, first of all on the link that has won."""
        return self._tracked(self._adopt(factory))

    @starting
    async def _adopt(self, factory: IProtocolFactory) -> IProtocol:
        taken, self._won = self._won, None
        if self.route is None or self._closed:
            raise RequestFailed("this connection is closed")
        if taken is None or taken.lost:
            taken = await self._dial(self.route)
        protocol = taken.adopt(factory)
        if protocol is None:
            raise RequestFailed("there is no protocol for the connection")
        return protocol

    @starting
    async def _dial(self, route: Route) -> Link:
        if self.credentials is None:
            raise RouteRefused("nothing is dialled without a Tub")
        try:
            endpoint = dial(route, self._handlers)
            connections = self.credentials.connections
            made = await link.connect(endpoint, connections, self._link, self._clock)
        except Exception as problem:
            self._report(route, explain(problem))
            raise
        self._report(route, "answered")
        return made

    def _in_time(self, answer: Deferred[T], seconds: float) -> Deferred[T]:
        return answer.addTimeout(seconds, self._clock, _no_answer)

    def _tracked(self, doing: Deferred[T]) -> Deferred[T]:
        """Have ``close`` cancel this if it isn't done by then."""
        self._pending.add(doing)

        def done(result: T) -> T:
            self._pending.discard(doing)
            return result

        return doing.addBoth(done)

    def _link(self) -> Link:
        made = Link(self._lifeline.heard, self._ended)
        self._links.add(made)
        return made

    def close(self) -> Deferred[None]:
        """Cut everything.

        Returns:
            A Deferred that fires when every connection is gone; never fails.
        """
        self._closed = True
        self._lifeline.stop()
        for pending in list(self._pending):
            pending.cancel()
        for each in list(self._links):
            each.abort()
        gone: Deferred[None] = Deferred()
        self._gone.append(gone)
        self._check_gone()
        return gone

    def _ended(self, each: Link) -> None:
        self._links.discard(each)
        self._check_gone()

    def _check_gone(self) -> None:
        if self._closed and not self._links:
            # Not before: an answer that ends while its connection is being cut
            # would put it into the pool again.
            self._requests.close()
            waiting, self._gone = self._gone, []
            for each in waiting:
                each.callback(None)


def _no_answer(result: object, seconds: float) -> NoReturn:
    raise NoAnswer(f"gave no answer in {seconds:g} s")


@implementer(IStreamClientEndpoint)
class _Endpoint:
    """A function as the endpoint that Twisted's Agent wants."""

    def __init__(
        self, connect: Callable[[IProtocolFactory], Deferred[IProtocol]]
    ) -> None:
        self._connect = connect

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect."""
        return self._connect(protocolFactory)
