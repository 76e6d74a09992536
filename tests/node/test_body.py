"""Tests of node.body, over real connections of Twisted's HTTP client."""

from collections.abc import Callable

from twisted.internet import reactor as real_reactor  # noqa: TID251 - real sockets
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from broker.http import Requests
from node.body import Pieces, Stalled, WrongLength
from protocols.deferreds import starting
from tests.node.sources import answer


class RawServer(Protocol):
    """Answers each connection's first bytes with other bytes, and watches it."""

    def __init__(self, script: Callable[["RawServer"], None]) -> None:
        self.script = script
        self.lost: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.script(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        assert self.transport is not None
        self.transport.write(data)


class SocketTests(TestCase):
    timeout = 5
    """A body from a real peer, which says what it likes."""

    @starting
    async def serve(self, script: Callable[[RawServer], None]) -> None:
        """Listen, and make ``self.requests`` lead there."""
        self.servers: list[RawServer] = []

        def build() -> RawServer:
            self.servers.append(RawServer(script))
            return self.servers[-1]

        endpoint = TCP4ServerEndpoint(real_reactor, 0, interface="127.0.0.1")
        port = await endpoint.listen(Factory.forProtocol(build))
        self.addCleanup(port.stopListening)
        where = TCP4ClientEndpoint(real_reactor, "127.0.0.1", port.getHost().port)
        self.requests = Requests(where, real_reactor)
        self.addCleanup(self.all_gone)

    @starting
    async def all_gone(self) -> None:
        """Close what is idle, and wait for the servers to see it."""
        await self.turn()
        self.requests.close()
        for server in self.servers:
            await server.lost

    @starting
    async def body(self, *lengths: int) -> Pieces:
        """Ask for the body in pieces."""
        response = await self.requests.request(b"GET", "/", {})
        pieces = Pieces(lengths, real_reactor, 30)
        response.deliverBody(pieces)
        return pieces

    def turn(self) -> Deferred[None]:
        """Let the reactor do what is waiting."""
        return deferLater(real_reactor, 0, lambda: None)

    @starting
    async def test_whole(self) -> None:
        """Pieces come in order, and the connection is there for the next request."""
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n"
        data = bytes(range(200)) * 1000
        await self.serve(lambda server: server.send(head + data))
        for _ in range(2):
            pieces = await self.body(65536, 65536, 68928)
            got = [await pieces.piece() for _ in range(3)]
            pieces.stop()
            self.assertEqual(b"".join(got), data)
            await self.turn()  # the last piece is there a moment before the end
        self.assertEqual(len(self.servers), 1)

    @starting
    async def test_stop(self) -> None:
        """Stopping half-way closes the connection, though more was on its way."""
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n"
        await self.serve(lambda server: server.send(head + bytes(1 << 20)))
        pieces = await self.body(*[65536] * 100)
        await pieces.piece()
        pieces.stop()
        await self.servers[0].lost

    @starting
    async def test_stop_while_paused(self) -> None:
        """So it does while nobody reads."""
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n"
        await self.serve(lambda server: server.send(head + bytes(1 << 24)))
        pieces = await self.body(*[65536] * 100)
        while not pieces._paused:
            await self.turn()
        pieces.stop()
        await self.servers[0].lost

    @starting
    async def test_breaks_off(self) -> None:
        """A connection that ends early fails the piece that isn't whole."""

        def script(server: RawServer) -> None:
            server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n" + b"x" * 15)
            assert server.transport is not None
            server.transport.loseConnection()

        await self.serve(script)
        pieces = await self.body(10, 10)
        self.assertEqual(await pieces.piece(), b"x" * 10)
        with self.assertRaises(Exception) as caught:
            await pieces.piece()
        self.assertNotIsInstance(caught.exception, Stalled)
        pieces.stop()

    @starting
    async def test_more_than_it_said(self) -> None:
        """What comes after the said length belongs to no answer."""
        await self.serve(
            lambda server: server.send(
                b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n" + b"x" * 1000
            )
        )
        pieces = await self.body(10)
        self.assertEqual(await pieces.piece(), b"x" * 10)
        pieces.stop()

    @starting
    async def test_chunks_beyond(self) -> None:
        """A chunked answer that goes on beyond the pieces is ended."""
        chunk = b"400\r\n" + bytes(1024) + b"\r\n"
        await self.serve(
            lambda server: server.send(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 3
            )
        )
        pieces = await self.body(1024)
        self.assertEqual(await pieces.piece(), bytes(1024))
        await self.servers[0].lost
        pieces.stop()


class TimeTests(SynchronousTestCase):
    """Time limits, in memory."""

    def test_no_timer_left(self) -> None:
        """Whatever happens, no timer is left."""
        for data, lengths in ((b"1234", [2, 2]), (b"1234", [2]), (b"1234", [2, 4])):
            clock = Clock()
            pieces = Pieces(lengths, clock, 60)
            answer(200, data).deliverBody(pieces)
            pieces.stop()
            self.assertEqual(clock.getDelayedCalls(), [])

    def test_failures(self) -> None:
        """Too little and too much are told apart from silence."""
        for data, lengths in ((b"1234", [5]), (b"1234567", [5, 1])):
            pieces = Pieces(lengths, Clock(), 60)
            answer(200, data).deliverBody(pieces)
            last = [pieces.piece() for _ in range(len(lengths))][-1]
            if len(data) < sum(lengths):
                self.failureResultOf(last, WrongLength)
            else:
                self.successResultOf(last)
