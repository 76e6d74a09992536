"""A caller in memory: a connection to a site, with the back-pressure of TCP."""

from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IConsumer, IPushProducer, ITransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from protocols.limits import Limits
from protocols.nodeid import NodeID
from protocols.principal import OwnDevice, Principal
from protocols.request import Resource
from protocols.site import PeerChannel, PeerSite

NODE = NodeID.of_spki(b"the caller's node")
DEVICE = OwnDevice(NODE, b"key")


@implementer(ITransport, IConsumer, IPushProducer)
class Wire:
    """The called side's transport; it pauses its producer as Twisted's TCP does.

    Attributes:
        waiting: written, but not taken by the caller yet.
        peak: the most that ever waited.
        reading: whether the called side reads.
    """

    LIMIT = 2**16

    def __init__(self, clock: Clock, host: str) -> None:
        self.clock = clock
        self.host = host
        self.waiting = bytearray()
        self.peak = 0
        self.reading = True
        self.disconnecting = False
        self.lost = False
        self.aborted = False
        self.paused = False
        self.producer: Any = None
        self.protocol: PeerChannel

    def write(self, data: bytes) -> None:
        if self.disconnecting or self.aborted or self.lost:
            return
        self.waiting += data
        self.peak = max(self.peak, len(self.waiting))
        if self.producer is not None and len(self.waiting) > self.LIMIT:
            self.paused = True
            self.producer.pauseProducing()

    def writeSequence(self, data: Sequence[bytes]) -> None:  # type: ignore[override]
        self.write(b"".join(data))

    def take(self, most: int) -> bytes:
        """Take what waits, as the caller's end does."""
        taken = bytes(self.waiting[:most])
        del self.waiting[:most]
        if not self.waiting and not self.aborted:
            if self.producer is not None and self.paused:
                self.paused = False
                self.producer.resumeProducing()
            elif self.disconnecting:
                self.lose(ConnectionDone())
        return taken

    def lose(self, why: Exception) -> None:
        """Lose the connection."""
        if not self.lost:
            self.lost = True
            if self.producer is not None:
                self.producer.stopProducing()
            self.protocol.connectionLost(Failure(why))

    def loseConnection(self) -> None:
        self.disconnecting = True

    def abortConnection(self) -> None:
        if not self.aborted:
            self.aborted = True
            self.clock.callLater(0, self.lose, ConnectionAborted())

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = True

    def stopProducing(self) -> None:
        self.loseConnection()

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", self.host, 50000)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.1", 8443)


@frozen
class Answer:
    """One answer, as the caller read it."""

    status: int
    headers: dict[str, str]
    body: bytes


class Caller:
    """The calling end of one connection; it is let in at once unless told not to."""

    def __init__(
        self, site: PeerSite, clock: Clock, host: str = "192.0.2.7", let_in: bool = True
    ) -> None:
        self.clock = clock
        self.wire = Wire(clock, host)
        self.channel = site.buildProtocol(None)
        self.wire.protocol = self.channel
        self.got = bytearray()
        self.channel.makeConnection(self.wire)
        if let_in:
            self.channel.handshakeCompleted()

    def say(self, data: bytes) -> None:
        """Send bytes."""
        if not self.wire.lost and not self.wire.aborted:
            self.channel.dataReceived(data)

    def ask(self, target: str, *headers: str, method: str = "GET") -> None:
        """Send a request of HTTP/1.1."""
        lines = (f"{method} {target} HTTP/1.1", "Host: peer", *headers, "", "")
        self.say("\r\n".join(lines).encode())

    def take(self, most: int | None = None) -> bytes:
        """Take what waits: all that will ever come, or a bounded number of bytes."""
        if most is not None:
            self.got += self.wire.take(most)
            return bytes(self.got)
        while self.wire.waiting or self.wire.paused or self.wire.disconnecting:
            self.got += self.wire.take(2**20)
            if self.wire.lost:
                break
        self.clock.advance(0)
        return bytes(self.got)

    def answers(self, *methods: str) -> list[Answer]:
        """Read all answers that came; name the methods if one of them was HEAD."""
        data, self.got = self.take(), bytearray()
        found: list[Answer] = []
        while data:
            method = methods[len(found)] if len(found) < len(methods) else "GET"
            answer, data = _answer(data, method)
            found.append(answer)
        return found

    def answer(self, target: str, *headers: str, method: str = "GET") -> Answer:
        """Ask, and read the one answer."""
        self.ask(target, *headers, method=method)
        (answer,) = self.answers(method)
        return answer

    @property
    def lost(self) -> bool:
        """Whether the connection is gone."""
        self.clock.advance(0)
        return self.wire.lost


def _answer(data: bytes, method: str) -> tuple[Answer, bytes]:
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        raise AssertionError(f"half an answer: {data[:200]!r}")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if name.lower() in headers:
            raise AssertionError(f"{name} stands there twice")
        headers[name.lower()] = value
    status = int(first.split()[1])
    length = int(headers.get("content-length", "0"))
    if method == "HEAD" or status in (204, 304):
        length = 0
    elif headers.get("transfer-encoding") == "chunked":
        return Answer(status, headers, _chunks(rest)), b""
    elif "content-length" not in headers:
        length = len(rest)
    if len(rest) < length:
        raise AssertionError(f"{len(rest)} of {length} bytes came")
    return Answer(status, headers, rest[:length]), rest[length:]


def _chunks(data: bytes) -> bytes:
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        body += data[: int(size, 16)]
        data = data[int(size, 16) + 2 :]
    return body


def make_site(
    clock: Clock,
    resources: Sequence[Resource],
    limits: Limits | None = None,
    principal_of: Callable[[Any], Principal] = lambda _: DEVICE,
    chain_end: Callable[[Any], float] = lambda _: 1e9,
    on_call: Callable[[Principal], None] = lambda _: None,
) -> PeerSite:
    """Make a site that lets everybody in as the same device, unless told not to."""
    return PeerSite(
        clock, resources, principal_of, chain_end, limits or Limits(), on_call
    )
