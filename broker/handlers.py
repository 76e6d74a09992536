"""Handlers turn a hint into an endpoint; `dial` is the one place that calls them.

Whatever must never be called is refused in `dial`, so that no second way around
it can grow.
"""

from collections.abc import Callable, Mapping

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
)
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IReactorTCP,
    IStreamClientEndpoint,
)
from zope.interface import implementer

from broker.errors import RouteRefused
from broker.routes import Route
from protocols.hint import ANY_INTERFACE, Hint
from protocols.keepalive import keep_alive

Handler = Callable[[Hint], IStreamClientEndpoint]
Handlers = Mapping[str, Handler]
"""The handler of each kind of hint, such as ``{"tcp": tcp_handler(reactor)}``."""

CONNECT_S = 10.0
"""How long a TCP connection may take to come up, in seconds."""


def dial(route: Route, handlers: Handlers) -> IStreamClientEndpoint:
    """Give the endpoint of a route that may be dialled.

    Raises:
        RouteRefused: its verdict is not ``allowed``, or nothing handles it.
    """
    if route.verdict != "allowed":
        raise RouteRefused(f"{route.hint} must not be dialled: {route.reason}")
    if route.hint.kind not in handlers:
        raise RouteRefused(f"{route.hint} can't be dialled: nothing handles it")
    return handlers[route.hint.kind](route.hint)


def tcp_handler(reactor: IReactorTCP, connect_s: float = CONNECT_S) -> Handler:
    """Make the handler of ``tcp:`` hints, which calls directly.

    Addresses are called as they stand, with their interface; only a name
    reaches the resolver.

    Args:
        reactor: where the connections are made.
        connect_s: how long one may take to come up, in seconds.
    """

    def endpoint(hint: Hint) -> IStreamClientEndpoint:
        if hint.kind != "tcp" or hint.host is None or hint.port is None:
            raise RouteRefused(f"{hint} is no place for a TCP connection")
        if hint.needs_scope or hint.scope == ANY_INTERFACE:
            raise RouteRefused(f"{hint} needs an interface")
        made: IStreamClientEndpoint
        if isIPAddress(hint.host):
            made = TCP4ClientEndpoint(reactor, hint.host, hint.port, connect_s)
        elif isIPv6Address(hint.host):
            place = f"{hint.host}%{hint.scope}" if hint.scope else hint.host
            made = TCP6ClientEndpoint(reactor, place, hint.port, connect_s)
        else:
            made = HostnameEndpoint(reactor, hint.host, hint.port, connect_s)
        return _LivelyEndpoint(made)

    return endpoint


@implementer(IStreamClientEndpoint)
class _LivelyEndpoint:
    """An endpoint whose connections notice within 30 s that their link is dead."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect as the wrapped endpoint does, with keepalive."""
        connecting: Deferred[IProtocol] = self._endpoint.connect(protocolFactory)
        return connecting.addCallback(_lively)


def _lively(protocol: IProtocol) -> IProtocol:
    keep_alive(getattr(protocol, "transport", None))
    return protocol
