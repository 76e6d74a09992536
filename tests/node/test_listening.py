"""Tests of node.listening, over real sockets of loopback."""

from pathlib import Path

from twisted.internet import reactor  # noqa: TID251 - over real sockets
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from node.errors import Failed
from node.hints import Place
from node.listening import OpenPort
from tests.kit import House, today


class OpenPortTests(TestCase):
    """Listening on the endpoints of the settings."""

    def setUp(self) -> None:
        called = House.new(today()).device().called()
        site = Factory.forProtocol(Protocol)
        site.noisy = False
        self.port = OpenPort(reactor, reactor, called, site)
        self.addCleanup(self.port.close)

    async def test_several(self) -> None:
        """Several endpoints at once, of several kinds."""
        path = Path(self.mktemp()).absolute()
        await self.port.open(
            ["tcp:0:interface=127.0.0.1", "tcp6:0:interface=\\:\\:1", f"unix:{path}"]
        )
        four, six = self.port.places
        self.assertEqual((four.host, six.host), ("127.0.0.1", "::1"))
        self.assertEqual(
            self.port.listening,
            [
                f"tcp:{four.port}:interface=127.0.0.1",
                f"tcp6:{six.port}:interface=\\:\\:1",
                f"unix:{path}",
            ],
        )

    async def test_wildcard(self) -> None:
        """The default endpoint takes IPv4 callers too."""
        await self.port.open(["tcp6:0"])
        (place,) = self.port.places
        self.assertEqual(place, Place("::", place.port))
        self.assertEqual(self.port.listening, [f"tcp6:{place.port}"])
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", place.port)
        caller = await endpoint.connect(Factory.forProtocol(Protocol))
        assert isinstance(caller, Protocol)
        assert caller.transport is not None
        caller.transport.loseConnection()

    async def test_taken(self) -> None:
        """A port that somebody has is an error, and nothing stays open."""
        await self.port.open(["tcp:0:interface=127.0.0.1"])
        (taken,) = self.port.listening
        other = OpenPort(
            reactor,
            reactor,
            House.new(today()).device().called(),
            Factory.forProtocol(Protocol),
        )
        with self.assertRaises(Failed) as caught:
            await other.open(["tcp:0:interface=127.0.0.1", taken])
        self.assertIn(
            f"cannot listen on {taken}: Address already in use", str(caught.exception)
        )
        self.assertEqual(other.listening, [])

    async def test_nonsense(self) -> None:
        """What is no endpoint is named as such."""
        for text in ("nonsense:1", "tcp:http-alt-nope", "tcp:1:nonsense=2", "tcp"):
            with self.assertRaises(Failed) as caught:
                await self.port.open([text])
            self.assertIn(f"{text} is not a Twisted endpoint", str(caught.exception))
