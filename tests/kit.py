"""Tools that several tests share: a house of devices, and TLS in memory."""

import datetime
from collections.abc import Callable
from typing import Any

from attrs import define, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    ITransport,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, IOPump, connect
from zope.interface import implementer

from protocols import callname, certificates
from protocols.certificates import Key
from protocols.nodeid import NodeID
from protocols.principal import Trust
from protocols.tls import CalledConnections, CallerConnections, Face
from protocols.tub import Tub, mint

DAY = 86_400.0
NONCES = (number.to_bytes(8, "big") for number in range(1 << 62))


def today() -> float:
    """The real time: OpenSSL looks at no other clock."""
    return datetime.datetime.now(datetime.UTC).timestamp()


@frozen
class House:
    """One user: a user CA, from which devices are made."""

    key: Key
    ca: x509.Certificate
    now: float

    @classmethod
    def new(cls, now: float) -> "House":
        """Make a user CA."""
        key = certificates.new_key()
        return cls(key, certificates.user_ca(key, now), now)

    def device(self, names: tuple[str, ...] = ()) -> "Device":
        """Admit a new device."""
        server, own = certificates.new_key(), certificates.new_key()
        node = NodeID.of_key(server.public_key())
        ca = certificates.device_ca(
            own.public_key(), node, names, self.ca, self.key, self.now
        )
        return Device(self, node, server, own, ca, names)


@frozen
class Device:
    """One device of a house, able to be called and to call."""

    house: House
    node: NodeID
    server: Key
    key: Key
    ca: x509.Certificate
    names: tuple[str, ...]

    def leaf(self) -> Tub:
        """A fresh outbound Tub under the device CA."""
        return mint(self.ca, self.key, self.house.now)

    def faces(self, people: Trust | None = None) -> dict[str, Face]:
        """What each class of server names is shown."""
        now, public = self.house.now, self.server.public_key()
        others = people or Trust()
        own = certificates.device_server(public, self.node, self.ca, self.key, now)
        faces = {
            "own": Face(Tub(self.server, (own, self.ca)), Trust(user_ca=self.house.ca)),
            "others": Face(
                Tub(
                    self.server,
                    (certificates.self_signed_server(self.server, self.node, now),),
                ),
                others,
            ),
        }
        if self.names:
            named = certificates.named_server(
                public, self.names, self.ca, self.key, now
            )
            faces["named"] = Face(
                Tub(self.server, (named, self.ca)), Trust(user_ca=self.house.ca)
            )
        return faces

    def secret(self, kind: str) -> bytes:
        """What a caller of this class knows."""
        if kind == "own":
            return callname.own_secret(self.node, certificates.key_id(self.house.ca))
        return callname.public_secret(self.node)

    def name(self, kind: str) -> str:
        """A server name of this class; one-use names are fresh."""
        if kind == "named":
            return self.names[0]
        return callname.make(self.secret(kind), self.house.now, next(NONCES))

    def called(self, people: Trust | None = None) -> CalledConnections:
        """The called side's TLS."""
        kinds = ("own", "others")
        names = callname.CallNames({kind: self.secret(kind) for kind in kinds})

        def choose(name: str) -> str | None:
            if name in self.names:
                return "named"
            return names.take(name, self.house.now)

        return CalledConnections(choose, self.faces(people))

    def caller(
        self, to: "Device", kind: str = "own", tub: Tub | None = None
    ) -> CallerConnections:
        """The calling side's TLS to another device."""
        return CallerConnections(
            tub or self.leaf(),
            to.node,
            lambda: to.name(kind),
            self.house.ca if kind == "own" else None,
        )


@implementer(IHandshakeListener)
class Recorder(Protocol):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.done = False
        self.data = b""
        self.lost: Failure | None = None

    def handshakeCompleted(self) -> None:
        """The handshake is over, as this end sees it."""
        self.done = True

    def dataReceived(self, data: bytes) -> None:
        """Keep the data."""
        self.data += data

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008
        """Keep the reason."""
        self.lost = reason


@define
class Wire:
    """One TLS connection in memory."""

    client: Recorder
    server: Recorder
    client_tls: Any
    server_tls: Any
    client_handle: SSL.Connection
    server_handle: SSL.Connection
    pump: IOPump
    clock: Clock

    @property
    def transport(self) -> ITransport:
        """The called side's TLS transport."""
        return self.server_tls  # type: ignore[no-any-return]

    def flush(self) -> None:
        """Carry bytes until nothing moves any more."""
        while True:
            self.clock.advance(0)
            if not self.pump.pump() and not self.clock.getDelayedCalls():
                return


def forge(good: Tub) -> Tub:
    """The same leaf over another key, signed by nobody who may."""
    key, leaf = certificates.new_key(), good.chain[0]
    builder = (
        x509.CertificateBuilder()
        .subject_name(leaf.subject)
        .issuer_name(leaf.issuer)
        .public_key(key.public_key())
        .serial_number(leaf.serial_number)
        .not_valid_before(leaf.not_valid_before_utc)
        .not_valid_after(leaf.not_valid_after_utc)
    )
    for each in leaf.extensions:
        builder = builder.add_extension(each.value, each.critical)
    forged = builder.sign(certificates.new_key(), hashes.SHA256())
    return Tub(key, (forged, *good.chain[1:]))


def wire(called: Any, caller: Any, clock: Clock | None = None) -> Wire:
    """Connect two TLS ends in memory and run the handshake to its end."""
    clock = clock or Clock()

    def end(creator: Any, is_client: bool) -> tuple[Recorder, Any]:
        recorder = Recorder()
        factory = TLSMemoryBIOFactory(
            creator, is_client, Factory.forProtocol(lambda: recorder), clock=clock
        )
        return recorder, factory.buildProtocol(None)

    server, server_tls = end(called, False)
    client, client_tls = end(caller, True)
    pump = connect(
        server_tls,
        FakeTransport(server_tls, isServer=True),
        client_tls,
        FakeTransport(client_tls, isServer=False),
        greet=False,
    )
    # Twisted drops its handles with the connection; what they saw is asked after.
    handles = client_tls.getHandle(), server_tls.getHandle()
    result = Wire(client, server, client_tls, server_tls, *handles, pump, clock)
    result.flush()
    return result


@implementer(IOpenSSLClientConnectionCreator)
@frozen
class Connections:
    """A connection creator from a function."""

    make: Callable[[], SSL.Connection]

    def clientConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        """Make one."""
        return self.make()


def raw_caller(prepare: Callable[[SSL.Context], None], name: str | None) -> Connections:
    """A client that does as it pleases: no pin, any version, any certificate."""
    context = SSL.Context(SSL.TLS_METHOD)
    prepare(context)

    def make() -> SSL.Connection:
        connection = SSL.Connection(context, None)
        if name is not None:
            connection.set_tlsext_host_name(name.encode("ascii"))
        return connection

    return Connections(make)
