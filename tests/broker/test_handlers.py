"""Tests of broker.handlers."""

import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from broker.errors import RouteRefused
from broker.handlers import dial, tcp_handler
from broker.merge import PeerRecord, SourcedHint
from broker.routes import Policy, Route, plan_routes
from override.override import Local
from protocols.deferreds import starting
from protocols.hint import Hint
from protocols.nodeid import NodeID


def route(text: str, verdict: Any = "allowed") -> Route:
    """A route to a place."""
    hint = Hint.parse(text)
    return Route(hint, hint.route_kind, verdict, "because", "card")


class DialTests(SynchronousTestCase):
    """The one dial point."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.handlers = {"tcp": tcp_handler(self.reactor)}
        self.factory = Factory.forProtocol(Protocol)

    def test_addresses(self) -> None:
        """Addresses are called as they stand, a scoped one with its interface."""
        for text, host in (
            ("tcp:192.168.1.9:8443", "192.168.1.9"),
            ("tcp:[2001:db8::1]:8443", "2001:db8::1"),
            ("tcp:[fe80::1%eth0]:8443", "fe80::1%eth0"),
        ):
            endpoint = dial(route(text), self.handlers)
            verifyObject(IStreamClientEndpoint, endpoint)
            endpoint.connect(self.factory)
            self.assertEqual(self.reactor.tcpClients.pop()[:2], (host, 8443))

    def test_name(self) -> None:
        """A name goes through the reactor's resolver."""
        dial(route("tcp:nas.example.org:8443"), self.handlers).connect(self.factory)
        self.reactor.advance(1)
        self.assertEqual(len(self.reactor.tcpClients), 1)

    def test_refused(self) -> None:
        """Nothing of a refused route reaches the reactor."""
        with self.assertRaisesRegex(RouteRefused, "because"):
            dial(route("tcp:192.168.1.9:8443", "refused"), self.handlers)

    def test_no_handler(self) -> None:
        """A kind that nothing handles is refused, even if it is called allowed."""
        for text in (f"tor:{'a' * 56}.onion:1", "pigeon:roof"):
            with self.assertRaises(RouteRefused):
                dial(route(text), self.handlers)

    def test_unscoped(self) -> None:
        """A link-local address without one interface is never called."""
        for text in ("tcp:[fe80::1]:1", "tcp:[fe80::1%*]:1"):
            with self.assertRaisesRegex(RouteRefused, "interface"):
                dial(route(text), self.handlers)

    def test_foreign_hint(self) -> None:
        """The handler of tcp: takes nothing else, so no onion name is resolved."""
        onion = Hint.parse(f"tor:{'a' * 56}.onion:1")
        with self.assertRaises(RouteRefused):
            self.handlers["tcp"](onion)

    def test_plan_and_dial_agree(self) -> None:
        """What the user turned off can't be dialled, by whatever plan."""
        hint = SourcedHint(Hint.parse("tcp:192.168.1.9:1"), "card")
        record = PeerRecord(
            NodeID.of_spki(b""), "nas", True, (hint,), local=Local(tcp="off")
        )
        for planned in plan_routes(record, Policy()):
            with self.assertRaises(RouteRefused):
                dial(planned, self.handlers)
        self.assertEqual(self.reactor.tcpClients, [])


class KeepaliveTests(TestCase):
    """One test on a real socket."""

    @starting
    async def test_keepalive(self) -> None:
        """A dead link is noticed by the system within 30 s."""
        from twisted.internet import reactor  # noqa: TID251 - a real socket needs it

        made: Deferred[None] = Deferred()
        gone: Deferred[None] = Deferred()

        class Silent(Protocol):
            def connectionMade(self) -> None:
                made.callback(None)

            def connectionLost(self, reason: Any = None) -> None:
                gone.callback(None)

        server = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = await server.listen(Factory.forProtocol(Silent))
        self.addCleanup(port.stopListening)
        place = route(f"tcp:127.0.0.1:{port.getHost().port}")
        endpoint = dial(place, {"tcp": tcp_handler(reactor)})
        protocol: Any = await endpoint.connect(Factory.forProtocol(Protocol))
        handle = protocol.transport.getHandle()
        tcp = socket.IPPROTO_TCP
        self.assertTrue(handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        probes = handle.getsockopt(tcp, socket.TCP_KEEPCNT)
        pause = handle.getsockopt(tcp, socket.TCP_KEEPINTVL)
        idle = handle.getsockopt(tcp, socket.TCP_KEEPIDLE)
        self.assertLessEqual(idle + probes * pause, 30)
        self.assertLessEqual(handle.getsockopt(tcp, socket.TCP_USER_TIMEOUT), 30_000)
        await made
        protocol.transport.abortConnection()
        await gone
