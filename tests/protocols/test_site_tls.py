"""Tests of the site behind TLS, over real sockets."""

import os
from random import Random
from typing import Any

from twisted.internet import reactor as _reactor  # noqa: TID251 - these are its tests
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    wrapClientTLS,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from protocols.deferreds import starting
from protocols.files import files
from protocols.limits import Limits
from protocols.principal import OwnDevice, Principal
from protocols.site import PeerSite
from protocols.tls import chain_end, principal_of
from tests.kit import House
from tests.protocols.test_files import FakeSource, leaves_of

reactor: Any = _reactor


class Client(Protocol):
    """Keeps what it gets, and fires once a marker came or the end."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.lost: Deferred[None] = Deferred()
        self._marker = b""
        self._seen: Deferred[None] | None = None

    def ask(self, target: str, *headers: str, method: str = "GET") -> None:
        """Send a request."""
        lines = (f"{method} {target} HTTP/1.1", "Host: peer", *headers, "", "")
        self.wire.write("\r\n".join(lines).encode())

    def until(self, marker: bytes) -> Deferred[None]:
        """Wait until this came."""
        self._marker, self._seen = marker, Deferred()
        self._check()
        return self._seen

    @property
    def wire(self) -> Any:
        """The TLS transport."""
        return self.transport

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self.got += data
        self._check()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is over."""
        self.lost.callback(None)

    def _check(self) -> None:
        if self._seen is not None and self._marker in self.got[-1_000_000:]:
            seen, self._seen = self._seen, None
            seen.callback(None)


class TlsTests(TestCase):
    """Two devices of one house, a site on 127.0.0.1 between them."""

    timeout = 20

    def setUp(self) -> Deferred[None]:  # type: ignore[override]  # trial waits
        """Listen."""
        return self._listen()

    @starting
    async def _listen(self) -> None:
        house = House.new(reactor.seconds())
        self.device, self.other = house.device(), house.device()
        self.callers: list[Principal] = []
        self.source = FakeSource()
        self.clients: list[Client] = []
        self.site = PeerSite(
            reactor,
            files(self.source),
            principal_of,
            chain_end,
            Limits(),
            self.callers.append,
        )
        secure = TLSMemoryBIOFactory(self.device.called(), False, self.site)
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        self.port = await endpoint.listen(secure)
        self.plain = await endpoint.listen(self.site)

    def tearDown(self) -> Deferred[None]:  # type: ignore[override]  # trial waits
        """Stop listening; every connection and every file is gone then."""
        return self._stop()

    @starting
    async def _stop(self) -> None:
        await self.port.stopListening()
        await self.plain.stopListening()
        await self.site.close()
        for each in self.clients:
            if not each.lost.called:
                each.wire.abortConnection()
                await each.lost
        self.assertEqual(self.source.open_files, 0)

    def call(self, creator: Any = None) -> Deferred[Client]:
        """Call the device."""
        port = self.port.getHost().port
        endpoint = wrapClientTLS(
            creator or self.other.caller(self.device),
            TCP4ClientEndpoint(reactor, "127.0.0.1", port),
        )
        return self._connect(endpoint)

    @starting
    async def _connect(self, endpoint: Any) -> Client:
        client: Client = await endpoint.connect(Factory.forProtocol(Client))
        self.clients.append(client)
        return client

    def add(self, data: bytes) -> str:
        """Share content."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(data)
        return f"/files/{self.source.add(path, 'name', leaves_of(data))}"

    def sparse(self) -> str:
        """Share a hole of a gibibyte."""
        target = self.add(bytes(0))
        (path, _), *_ = self.source.paths.values()
        leaves = leaves_of(bytes(1 << 20))
        hole = type(leaves)(1 << 30, leaves.hashes * 1024)
        os.truncate(path, 1 << 30)
        return target.rpartition("/")[0] + f"/{self.source.add(path, 'hole', hole)}"

    @starting
    async def test_files(self) -> None:
        """Two files over one connection, byte for byte, for an own device."""
        contents = [Random(n).randbytes(3_000_000) for n in range(2)]
        client = await self.call()
        for data in contents:
            client.ask(self.add(data))
            await client.until(b"\r\n\r\n" + data[:100])
            await client.until(data[-100:])
            self.assertTrue(bytes(client.got).endswith(data))
        (caller,) = self.callers
        self.assertIsInstance(caller, OwnDevice)
        self.assertEqual(getattr(caller, "node", None), self.other.node)

    @starting
    async def test_foreign(self) -> None:
        """A device of another house gets no byte."""
        foreign = House.new(reactor.seconds()).device()
        client = await self.call(self.other.caller(self.device, tub=foreign.leaf()))
        client.ask("/files/")
        await client.lost
        self.assertEqual((bytes(client.got), self.callers), (b"", []))

    @starting
    async def test_plaintext(self) -> None:
        """A site without TLS in front of it says nothing."""
        port = self.plain.getHost().port
        client = await self._connect(TCP4ClientEndpoint(reactor, "127.0.0.1", port))
        client.ask("/files/")
        await client.lost
        self.assertEqual((bytes(client.got), self.callers), (b"", []))

    @starting
    async def test_leaves_in_the_middle(self) -> None:
        """A caller who goes in the middle of a file leaves no file open."""
        client = await self.call()
        client.ask(self.sparse())
        await client.until(b"\r\n\r\n\0")
        self.assertEqual(self.source.open_files, 1)
        client.wire.abortConnection()
        await client.lost
        await self.site.close()
        self.assertEqual(self.source.open_files, 0)

    @starting
    async def test_ends_tls_alone(self) -> None:
        """A caller who ends TLS but keeps TCP open is cut, and the file closed."""
        client = await self.call()
        client.ask(self.sparse())
        await client.until(b"\r\n\r\n\0")
        tls = client.wire
        tls.getHandle().shutdown()
        tls.transport.write(tls.getHandle().bio_read(2**15))
        tls.dataReceived = lambda data: None  # takes what comes, and stays
        await client.lost
        self.assertEqual(self.source.open_files, 0)

    @starting
    async def test_stops_reading(self) -> None:
        """A caller who reads no more is cut, and others are served meanwhile."""
        self.site.limits = Limits(stall_s=0.3)
        client = await self.call()
        client.ask(self.sparse())
        await client.until(b"\r\n\r\n\0")
        client.wire.pauseProducing()
        other = await self.call()
        other.ask("/files/")
        await other.until(b'"next":null}')
        self.assertEqual(self.source.open_files, 1)
        await self.source.closed
        client.wire.resumeProducing()
        await client.lost
        self.assertFalse(other.lost.called)

    @starting
    async def test_unwanted_body(self) -> None:
        """The answer reaches a caller who is still sending a body."""
        client = await self.call()
        client.ask("/files/", "Content-Length: 10000000000", method="PUT")
        client.wire.write(bytes(500_000))
        await client.until(b'"reason"')
        self.assertTrue(client.got.startswith(b"HTTP/1.1 405 "))
        await client.lost
