"""Tests of broker.link."""

from typing import cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from broker.errors import HandshakeTimeout
from broker.link import Link, connect
from protocols.hint import Hint
from protocols.tls import WrongKey
from tests.broker.harbour import Harbour
from tests.kit import Device

PLACE = "tcp:192.168.1.9:1"


class LinkTests(SynchronousTestCase):
    """One connection, from the handshake to the end."""

    def setUp(self) -> None:
        self.harbour = Harbour()
        self.net = self.harbour.net
        self.nas = self.harbour.berth(PLACE)
        self.heard = 0
        self.ended: list[Link] = []
        self.addCleanup(lambda: self.assertEqual(self.net.clock.getDelayedCalls(), []))

    def make(self) -> Link:
        """Make a link whose owner is the test."""

        def heard() -> None:
            self.heard += 1

        return Link(heard, self.ended.append)

    def connect(self, to: Device | None = None) -> Deferred[Link]:
        """Connect to the nas, or to whom we take for it."""
        connections = self.harbour.caller.caller(to or self.nas.device)
        endpoint = self.net.handler(Hint.parse(PLACE))
        connecting = connect(endpoint, connections, self.make, self.net.clock)
        self.net.flush()
        return connecting

    def test_handshake(self) -> None:
        """It is there when the right key has answered."""
        link = self.successResultOf(self.connect())
        verifyObject(IHandshakeListener, link)
        self.assertFalse(link.lost)
        link.abort()
        self.net.flush()
        self.assertTrue(link.lost)
        self.assertEqual(self.ended, [link])
        link.abort()

    def test_wrong_key(self) -> None:
        """It never is when another one has, and our certificate has not left."""
        self.nas.shows_itself = True
        self.failureResultOf(self.connect(self.harbour.house.device()), WrongKey)
        self.assertEqual(len(self.ended), 1)
        self.assertEqual([call.leaf for call in self.nas.calls], [None])

    def test_adopt(self) -> None:
        """Who adopts it gets everything from then on, the end too."""
        link = self.successResultOf(self.connect())

        class Adopter(Protocol):
            data = b""
            over = False

            def dataReceived(self, data: bytes) -> None:
                self.data += data

            def connectionLost(self, reason: object = None) -> None:
                self.over = True

        adopter = cast(Adopter, link.adopt(Factory.forProtocol(Adopter)))
        self.nas.calls[0].say(b"HTTP/1.1 200 hello")
        self.net.flush()
        self.assertEqual((adopter.data, self.heard), (b"HTTP/1.1 200 hello", 1))
        with self.assertRaises(RuntimeError):
            link.adopt(Factory.forProtocol(Adopter))
        self.nas.drop()
        self.net.flush()
        self.assertTrue(adopter.over)
        self.assertEqual(self.ended, [link])

    def test_not_connected(self) -> None:
        """What was never connected can't be adopted, and aborting it is nothing."""
        link = self.make()
        link.abort()
        with self.assertRaises(RuntimeError):
            link.adopt(Factory.forProtocol(Protocol))

    def test_unasked(self) -> None:
        """Who speaks before they are asked is cut."""
        link = self.successResultOf(self.connect())
        self.nas.calls[0].say(b"hello")
        self.net.flush()
        self.assertTrue(link.lost)

    def test_silence(self) -> None:
        """Who doesn't do the handshake is cut after 10 s."""
        self.nas.speaks_tls = False
        connecting = self.connect()
        self.net.advance(9.75)
        self.assertNoResult(connecting)
        self.net.advance(0.25)
        self.failureResultOf(connecting, HandshakeTimeout)
        self.assertEqual(len(self.ended), 1)

    def test_cancel(self) -> None:
        """Giving up cuts the connection in the middle of the handshake."""
        self.nas.speaks_tls = False
        connecting = self.connect()
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.net.flush()
        self.assertEqual(len(self.ended), 1)
        self.assertEqual(self.nas.live, [])
