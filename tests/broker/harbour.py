"""A network in memory: nodes that are called, and a handler that records dials."""

from collections.abc import Callable
from random import Random
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, IOPump, connect
from zope.interface import implementer

from broker.broker import Broker
from broker.generation import Credentials
from broker.merge import PeerRecord, SourcedHint
from broker.routes import Policy
from protocols.hint import Hint
from protocols.nodeid import NodeID
from protocols.tls import CalledConnections
from protocols.tub import Tub
from tests.kit import Device, House, today

EVENTS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
COMMENT = b"b\r\n: comment\n\n\r\n"


def answer(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """Spell an HTTP answer."""
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


class Call(Protocol):
    """One connection, as the called node sees it."""

    def __init__(self, berth: "Berth") -> None:
        self.berth = berth
        self.heads: list[bytes] = []
        self.received = b""
        self.leaf: Any = None
        self.server_name: bytes | None = None
        self.over = False

    def dataReceived(self, data: bytes) -> None:
        """Record it, and answer every head that is whole."""
        handle: Any = self.transport.getHandle()  # type: ignore[union-attr]
        self.leaf = handle.get_peer_certificate(as_cryptography=True)
        self.server_name = handle.get_servername()
        self.received += data
        *heads, _ = self.received.split(b"\r\n\r\n")
        for head in heads[len(self.heads) :]:
            self.heads.append(head)
            self.say(self.berth.answers(head.split(b" ")[1]))

    def say(self, data: bytes | None) -> None:
        """Send something, or hang up."""
        assert self.transport is not None
        if data is None:
            self.transport.loseConnection()
        else:
            self.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Note it."""
        self.over = True


class Mute(Call):
    """One connection to somebody who never says a word."""

    def dataReceived(self, data: bytes) -> None:
        """Record it."""
        self.received += data


def lifeline(target: bytes) -> bytes | None:
    """Let everybody in, and answer everything with its own target."""
    return EVENTS + COMMENT if target == b"/events" else answer(target)


@define(eq=False)
class Berth:
    """A node that is called."""

    device: Device
    caller: Device
    answers: Callable[[bytes], bytes | None] = lifeline
    calls: list[Call] = field(factory=list)
    speaks_tls: bool = True
    shows_itself: bool = False

    @property
    def node(self) -> NodeID:
        """Its node id."""
        return self.device.node

    @property
    def live(self) -> list[Call]:
        """The connections that are up."""
        return [call for call in self.calls if not call.over]

    def drop(self) -> None:
        """Hang up on everybody."""
        for call in self.live:
            assert call.transport is not None
            call.transport.loseConnection()

    def build(self) -> Call:
        """Take a connection."""
        self.calls.append(Call(self) if self.speaks_tls else Mute(self))
        return self.calls[-1]


@implementer(IStreamClientEndpoint)
@define(eq=False)
class Endpoint:
    """Where a hint leads to in the network in memory."""

    net: "Net"
    hint: Hint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect to whatever is there now."""
        self.net.dials.append((self.net.clock.seconds(), self.hint.text))
        there = self.net.places.get(self.hint.text)
        if isinstance(there, Exception):
            return fail(there)
        if there is None:
            return Deferred(lambda _: self.net.cancelled.append(self.hint.text))
        return succeed(self.net.join(protocolFactory, there))


class Address:
    """Nowhere in particular."""


@define(eq=False)
class Net:
    """The network: a hint that leads nowhere is never answered."""

    clock: Clock = field(factory=Clock)
    places: dict[str, Berth | Exception | None] = field(factory=dict)
    dials: list[tuple[float, str]] = field(factory=list)
    cancelled: list[str] = field(factory=list)
    pumps: list[IOPump] = field(factory=list)
    cut: bool = False
    server_clock: Clock = field(factory=Clock)

    def handler(self, hint: Hint) -> IStreamClientEndpoint:
        """The handler that records dials."""
        return Endpoint(self, hint)

    def join(self, factory: IProtocolFactory, berth: Berth) -> IProtocol:
        """Connect a caller to a node."""
        called: Any = Factory.forProtocol(berth.build)
        if berth.speaks_tls:
            tls = berth.device.called()
            if berth.shows_itself:
                tls = CalledConnections(lambda _: "own", berth.device.faces())
            called = TLSMemoryBIOFactory(tls, False, called, clock=self.server_clock)
        client: Any = factory.buildProtocol(IAddress(Address(), None))
        server: Any = called.buildProtocol(None)
        ends = FakeTransport(server, True), FakeTransport(client, False)
        self.pumps.append(connect(server, ends[0], client, ends[1], greet=False))
        made: IProtocol = client
        return made

    def flush(self) -> None:
        """Carry bytes until nothing moves any more."""
        moved = True
        while moved:
            self.clock.advance(0)
            self.server_clock.advance(0)
            moved = not self.cut and any([pump.pump() for pump in self.pumps])
            due = [
                c
                for c in self.clock.getDelayedCalls()
                if c.getTime() <= self.clock.seconds()
            ]
            moved = moved or bool(due or self.server_clock.getDelayedCalls())

    def advance(self, seconds: float, step: float = 0.125) -> None:
        """Let time pass, and carry what is sent meanwhile."""
        self.flush()
        for _ in range(round(seconds / step)):
            self.clock.advance(step)
            self.flush()


@define(eq=False)
class Harbour:
    """One user's devices on a network: one that calls, others that are called."""

    net: Net = field(factory=Net)
    house: House = field(factory=lambda: House.new(today()))
    tubs: list[Tub] = field(factory=list)
    policy: Policy = field(factory=lambda: Policy(interfaces=("eth0",)))
    caller: Device = field(init=False)
    devices: dict[NodeID, Device] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.caller = self.house.device()

    def berth(self, *places: str, house: House | None = None) -> Berth:
        """Put a new node at these places."""
        berth = Berth((house or self.house).device(), self.caller)
        self.net.places.update(dict.fromkeys(places, berth))
        self.devices[berth.node] = berth.device
        return berth

    def issue(self, record: PeerRecord) -> Credentials:
        """Mint a Tub for a call to one of our devices."""
        tub = self.caller.leaf()
        self.tubs.append(tub)
        called = self.devices[record.node]
        return Credentials(self.caller.caller(called, tub=tub), tub.label)

    def broker(self, seed: int = 1) -> Broker:
        """Make a broker on the network."""
        return Broker(
            self.net.clock,
            self.issue,
            {"tcp": self.net.handler},
            lambda: self.policy,
            Random(seed),
        )


def record(
    node: NodeID, *hints: str, nickname: str | None = "nas", own: bool = True
) -> PeerRecord:
    """Make a record whose hints come from a card."""
    sourced = tuple(SourcedHint(Hint.parse(hint), "card") for hint in hints)
    return PeerRecord(node, nickname, own, sourced)
