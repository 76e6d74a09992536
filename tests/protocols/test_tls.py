"""Tests of protocols.tls and protocols.principal, over TLS in memory."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL, crypto
from twisted.trial.unittest import SynchronousTestCase

from protocols import certificates, tls
from protocols.nodeid import NodeID
from protocols.principal import (
    OwnDevice,
    Person,
    Principal,
    Refused,
    Stranger,
    Trust,
    identify,
)
from protocols.tls import (
    BadServerCertificate,
    CalledConnections,
    CallerConnections,
    Face,
    WrongKey,
    chain_end,
    principal_of,
)
from protocols.tub import Tub, mint
from tests.kit import (
    DAY,
    Connections,
    Device,
    House,
    Wire,
    forge,
    raw_caller,
    today,
    wire,
)

NAMED = "nas.home"
KINDS = ("own", "others", "named")
Prepare = Callable[[SSL.Context], None]


def show(tub: Tub, *extra: x509.Certificate) -> Prepare:
    """Prepare a client that shows a certificate and checks nothing."""

    def prepare(context: SSL.Context) -> None:
        context.use_privatekey(tub.key)
        context.use_certificate(tub.chain[0])
        for each in (*tub.chain[1:], *extra):
            context.add_extra_chain_cert(each)

    return prepare


class TLSTests(SynchronousTestCase):
    """What the tests below have in common."""

    def setUp(self) -> None:
        self.now = today()
        self.house = House.new(self.now)
        self.nas = self.house.device((NAMED,))
        self.laptop = self.house.device()
        self.guest = House.new(self.now).device()
        self.friend_key = certificates.new_key()
        self.friend = certificates.pairwise_ca(self.friend_key, self.now)
        self.people = Trust(people=((self.friend, "bob"),))

    def friend_leaf(self) -> Tub:
        """A leaf of the one person that the nas knows."""
        return mint(self.friend, self.friend_key, self.now)

    def call(
        self,
        name: str | None,
        prepare: Prepare,
        called: CalledConnections | None = None,
    ) -> Wire:
        """Call the nas with a client that does as it pleases."""
        return wire(called or self.nas.called(self.people), raw_caller(prepare, name))

    def assert_refused(self, connection: Wire, *, shown: bool | None = None) -> None:
        """The called side let nobody in, and told the caller with an alert."""
        self.assertFalse(connection.server.done)
        assert connection.client.lost is not None
        assert connection.server.lost is not None
        connection.client.lost.trap(SSL.Error)
        self.assertIn(
            "alert", str(connection.client.lost.value).replace("tlsv1 ", "alert ")
        )
        with self.assertRaises(Refused):
            principal_of(connection.transport)
        if shown is not None:
            certificate = connection.client_handle.get_peer_certificate()
            self.assertEqual(certificate is not None, shown)

    def assert_let_in(self, connection: Wire, who: Principal) -> None:
        """The called side knows who is calling, and bytes go both ways."""
        self.assertTrue(connection.server.done)
        self.assertEqual(principal_of(connection.transport), who)
        connection.client_tls.write(b"ping")
        connection.server_tls.write(b"pong")
        connection.flush()
        self.assertEqual(
            (connection.server.data, connection.client.data), (b"ping", b"pong")
        )

    def own(self, device: Device) -> OwnDevice:
        """The principal of an own device."""
        return OwnDevice(device.node, certificates.key_id(device.ca))


class CalledTests(TLSTests):
    """Who gets in, and who gets an alert."""

    def test_own_device(self) -> None:
        """An own device gets in by its one-use name and by a plain name."""
        for kind in ("own", "named"):
            connection = self.call(self.nas.name(kind), show(self.laptop.leaf()))
            self.assert_let_in(connection, self.own(self.laptop))

    def test_person(self) -> None:
        """A person gets in by the names made from the card."""
        connection = self.call(self.nas.name("others"), show(self.friend_leaf()))
        self.assert_let_in(connection, Person("bob"))

    def test_classes_apart(self) -> None:
        """Each class of names lets only its own callers in."""
        self.assert_refused(
            self.call(self.nas.name("others"), show(self.laptop.leaf()))
        )
        for kind in ("own", "named"):
            self.assert_refused(
                self.call(self.nas.name(kind), show(self.friend_leaf()))
            )

    def test_no_certificate(self) -> None:
        """Without a certificate nobody gets in, by whatever name."""
        for kind in KINDS:
            self.assert_refused(self.call(self.nas.name(kind), lambda context: None))

    def test_foreign(self) -> None:
        """A certificate of another house, and a self-signed one."""
        for kind in KINDS:
            for tub in (self.guest.leaf(), mint(None, None, self.now)):
                self.assert_refused(self.call(self.nas.name(kind), show(tub)))

    def test_our_authorities_appended(self) -> None:
        """A foreign leaf isn't helped by our CAs in what it sends."""
        for kind in KINDS:
            prepare = show(self.guest.leaf(), self.laptop.ca, self.house.ca)
            self.assert_refused(self.call(self.nas.name(kind), prepare))

    def bad_leaves(self) -> dict[str, Tub]:
        """Leaves of the laptop and of bob, each with one thing wrong."""
        leaves: dict[str, Tub] = {}
        for who, ca, key in (
            ("laptop", self.laptop.ca, self.laptop.key),
            ("bob", self.friend, self.friend_key),
        ):
            chain = () if who == "bob" else (ca,)
            old = mint(ca, key, self.now - 5 * DAY)
            soon = mint(ca, key, self.now + 5 * DAY)
            fresh = certificates.new_key()
            bare = (
                x509.CertificateBuilder()
                .subject_name(ca.subject)
                .issuer_name(ca.subject)
                .public_key(fresh.public_key())
                .serial_number(7)
                .not_valid_before(ca.not_valid_before_utc)
                .not_valid_after(ca.not_valid_after_utc)
                .sign(key, hashes.SHA256())
            )
            server = certificates.named_server(
                fresh.public_key(), [certificates.CALLER], ca, key, self.now
            )
            leaves |= {
                f"{who}, expired": old,
                f"{who}, not yet valid": soon,
                f"{who}, forged": forge(mint(ca, key, self.now)),
                f"{who}, a server's": Tub(fresh, (server, *chain)),
            }
            # Passes OpenSSL, which asks nothing of a leaf that says nothing.
            leaves[f"{who}, no usage"] = Tub(fresh, (bare, *chain))
        return leaves

    def test_bad_leaves(self) -> None:
        """Expired, early, forged, for servers, for nothing: nobody gets in."""
        for label, tub in self.bad_leaves().items():
            for kind in KINDS:
                connection = self.call(self.nas.name(kind), show(tub))
                if "no usage" in label:
                    self.assertRaises(Refused, principal_of, connection.transport)
                else:
                    self.assert_refused(connection)

    def test_self_issued_authority(self) -> None:
        """A path length doesn't count self-issued CAs; the known shapes do."""
        key = certificates.new_key()
        laptop = self.laptop
        rogue = certificates.device_ca(
            key.public_key(), laptop.node, (), laptop.ca, laptop.key, self.now
        )
        tub = mint(rogue, key, self.now)
        for kind in KINDS:
            connection = self.call(self.nas.name(kind), show(tub, laptop.ca))
            self.assertRaises(Refused, principal_of, connection.transport)

    def test_no_or_unknown_name(self) -> None:
        """Without the right name there is an alert and no certificate."""
        other = self.guest.name("own")
        for name in (None, "nas.example", other, "caller.wherry.internal", "x" * 200):
            connection = self.call(name, show(self.laptop.leaf()))
            self.assert_refused(connection, shown=False)
        self.assertEqual(
            len(self.flushLoggedErrors()), 0, "a wrong name is no error of ours"
        )

    def test_name_twice(self) -> None:
        """A one-use name shows the certificate once."""
        called = self.nas.called(self.people)
        for kind, tub in (("own", self.laptop.leaf()), ("others", self.friend_leaf())):
            name = self.nas.name(kind)
            self.assertTrue(self.call(name, show(tub), called).server.done)
            self.assert_refused(self.call(name, show(tub), called), shown=False)

    def test_hello_retry(self) -> None:
        """A HelloRetryRequest asks for the name twice; it counts once."""

        called = self.nas.called()
        # A group whose key share no caller sends before it is asked to.
        called._first.set_tmp_ecdh(crypto.get_elliptic_curve("secp384r1"))
        asked: list[str] = []
        choose = called._choose

        def spy(name: str) -> str | None:
            asked.append(name)
            return choose(name)

        called._choose = spy
        servername = SSL.Connection.get_servername
        with patch.object(
            tls._Inbound, "get_servername", autospec=True, side_effect=servername
        ) as hellos:
            connection = self.call(
                self.nas.name("own"), show(self.laptop.leaf()), called
            )
        self.assert_let_in(connection, self.own(self.laptop))
        self.assertEqual((hellos.call_count, len(asked)), (2, 1))

    def test_tls12(self) -> None:
        """TLS 1.2 is refused, with the right name and certificate too."""

        def old(context: SSL.Context) -> None:
            show(self.laptop.leaf())(context)
            context.set_max_proto_version(SSL.TLS1_2_VERSION)

        for kind in KINDS:
            self.assert_refused(self.call(self.nas.name(kind), old), shown=False)

    def test_alpn(self) -> None:
        """http/1.1 is chosen, h2 alone is refused, none at all is taken."""
        for offered, chosen in (
            ([b"h2", b"http/1.1"], b"http/1.1"),
            ([], b""),
            ([b"h2"], None),
        ):

            def prepare(context: SSL.Context, offered: list[bytes] = offered) -> None:
                show(self.laptop.leaf())(context)
                if offered:
                    context.set_alpn_protos(offered)

            connection = self.call(self.nas.name("own"), prepare)
            if chosen is None:
                self.assert_refused(connection)
            else:
                handle = connection.server_tls.getHandle()
                self.assertEqual(handle.get_alpn_proto_negotiated(), chosen)

    def test_no_authorities_named(self) -> None:
        """A caller isn't told whose certificates would be taken."""
        connection = self.call(self.nas.name("own"), show(self.laptop.leaf()))
        self.assertEqual(connection.client_tls.getHandle().get_client_ca_list(), [])

    def test_nothing_resumes(self) -> None:
        """A session from one connection leads to a full handshake in the next."""
        sessions: list[SSL.Session] = []
        context = SSL.Context(SSL.TLS_METHOD)
        show(self.laptop.leaf())(context)
        called = self.nas.called(self.people)

        def resuming() -> SSL.Connection:
            connection = SSL.Connection(context, None)
            connection.set_tlsext_host_name(self.nas.name("own").encode())
            if sessions:
                connection.set_session(sessions[0])
            return connection

        for _ in range(2):
            connection = wire(called, Connections(resuming))
            self.assert_let_in(connection, self.own(self.laptop))
            handle = connection.client_tls.getHandle()
            reused = SSL._lib.SSL_session_reused(handle._ssl)  # type: ignore[attr-defined]
            self.assertFalse(reused)
            session = handle.get_session()
            assert session is not None
            sessions.append(session)

    def test_without_set_verify(self) -> None:
        """A build that forgets set_verify lets nobody in, not everybody."""
        with patch.object(SSL.Connection, "set_verify"):
            for kind in KINDS:
                for prepare in (
                    show(self.laptop.leaf()),
                    show(self.friend_leaf()),
                    lambda context: None,
                ):
                    self.assertFalse(
                        self.call(self.nas.name(kind), prepare).server.done
                    )

    def test_natural_mistake(self) -> None:
        """Negative control: a first context that doesn't verify lets all in."""
        with (
            patch.object(SSL.Connection, "set_verify"),
            patch.object(tls, "_REQUIRE", SSL.VERIFY_NONE),
        ):
            connection = self.call(self.nas.name("own"), lambda context: None)
        self.assertTrue(connection.server.done)
        self.assertRaises(Refused, principal_of, connection.transport)

    def test_callback_that_fails(self) -> None:
        """When judging itself fails, the caller is refused."""
        with patch.object(tls, "_key_digest", side_effect=RuntimeError):
            tub = mint(None, None, self.now)
            connection = self.call(self.nas.name("own"), show(tub))
        self.assert_refused(connection)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_new_faces(self) -> None:
        """A change of people counts from the next connection on."""
        called = self.nas.called()
        tub = self.friend_leaf()
        self.assert_refused(self.call(self.nas.name("others"), show(tub), called))
        called.show(self.nas.faces(self.people))
        connection = self.call(self.nas.name("others"), show(tub), called)
        self.assert_let_in(connection, Person("bob"))
        called.show(self.nas.faces())
        self.assert_refused(self.call(self.nas.name("others"), show(tub), called))

    def test_end_of_chain(self) -> None:
        """The first end of the chain is the leaf's."""
        tub = self.laptop.leaf()
        connection = self.call(self.nas.name("own"), show(tub))
        self.assertEqual(
            chain_end(connection.transport),
            tub.chain[0].not_valid_after_utc.timestamp(),
        )


class StrangerTests(TLSTests):
    """A node that lets strangers in, or one key."""

    def test_strangers(self) -> None:
        """Everybody is a stranger but who is known, and forged is not known."""
        called = self.nas.called(Trust(people=self.people.people, strangers=True))
        forged = forge(self.friend_leaf())
        old = mint(self.friend, self.friend_key, self.now - 5 * DAY)
        for tub, who in (
            (self.friend_leaf(), Person("bob")),
            (mint(None, None, self.now), Stranger()),
            (self.guest.leaf(), Stranger()),
            (forged, Stranger()),
            (old, Stranger()),
        ):
            connection = self.call(self.nas.name("others"), show(tub), called)
            self.assert_let_in(connection, who)

    def test_forged_looks_good(self) -> None:
        """Negative control: without the clean flag the forged leaf is bob."""
        called = self.nas.called(Trust(people=self.people.people, strangers=True))
        forged = forge(self.friend_leaf())
        connection = self.call(self.nas.name("others"), show(forged), called)
        handle = connection.server_tls.getHandle()
        chain = handle.get_verified_chain(as_cryptography=True)
        trust = Trust(people=self.people.people)
        self.assertEqual(identify(trust, chain, chain[0], clean=True), Person("bob"))
        self.assertRaises(Refused, identify, trust, chain, chain[0], clean=False)

    def test_no_certificate(self) -> None:
        """A stranger still shows a certificate."""
        called = self.nas.called(Trust(strangers=True))
        self.assert_refused(
            self.call(self.nas.name("others"), lambda context: None, called)
        )

    def test_allowed_key(self) -> None:
        """One leaf key is let in under a name; others are not."""
        tub = mint(None, None, self.now)
        trust = Trust(allowed={certificates.key_id(tub.chain[0]): "cam"})
        called = self.nas.called(trust)
        self.assert_let_in(
            self.call(self.nas.name("others"), show(tub), called), Person("cam")
        )
        other = mint(None, None, self.now)
        self.assert_refused(self.call(self.nas.name("others"), show(other), called))

    def test_allowed_key_with_a_chain(self) -> None:
        """What certifies the key makes no difference, and helps no other key."""
        tub, other = self.guest.leaf(), self.guest.leaf()
        trust = Trust(allowed={certificates.key_id(tub.chain[0]): "cam"})
        called = self.nas.called(trust)
        for extra in ((), (self.guest.house.ca,)):
            name = self.nas.name("others")
            connection = self.call(name, show(tub, *extra), called)
            self.assert_let_in(connection, Person("cam"))
            name = self.nas.name("others")
            self.assert_refused(self.call(name, show(other, *extra), called))


class Impostor:
    """Makes the called side's faces with one thing wrong."""

    def __init__(self, house: House, nas: Device) -> None:
        self.house = house
        self.nas = nas
        self.now = house.now

    def called(
        self, chain: tuple[x509.Certificate, ...], key: Any
    ) -> CalledConnections:
        """A called side that shows this chain, to everybody."""
        face = Face(Tub(key, chain), Trust(strangers=True))
        return CalledConnections(lambda name: "all", {"all": face})

    def own(
        self, now: float, names: list[str] | None = None, key: Any = None
    ) -> CalledConnections:
        """One that shows a server certificate under the nas's device CA."""
        key = key or self.nas.server
        leaf = certificates.named_server(
            key.public_key(),
            names or [certificates.server_name(self.nas.node)],
            self.nas.ca,
            self.nas.key,
            now,
        )
        return self.called((leaf, self.nas.ca), key)


class CallingTests(TLSTests):
    """Whom a caller takes for the node that it calls."""

    def setUp(self) -> None:
        super().setUp()
        self.impostor = Impostor(self.house, self.nas)

    def caller(self, kind: str = "own", tub: Tub | None = None) -> CallerConnections:
        """The laptop calls the nas."""
        return self.laptop.caller(self.nas, kind, tub)

    def assert_fails(
        self, called: CalledConnections, kind: str, error: type[Exception], words: str
    ) -> None:
        """The caller refuses, says why, and never showed its certificate."""
        connection = wire(called, self.caller(kind))
        self.assertFalse(connection.client.done)
        assert connection.client.lost is not None
        connection.client.lost.trap(error)
        self.assertIn(words, str(connection.client.lost.value))
        self.assertIsNone(connection.server_handle.get_peer_certificate())

    def test_good(self) -> None:
        """Negative control for what follows: an own device and a friend's node."""
        connection = wire(self.nas.called(self.people), self.caller())
        self.assert_let_in(connection, self.own(self.laptop))
        caller = self.caller("others", self.friend_leaf())
        connection = wire(self.nas.called(self.people), caller)
        self.assert_let_in(connection, Person("bob"))

    def test_control_impostor(self) -> None:
        """Negative control: the impostor with nothing wrong is taken."""
        connection = wire(self.impostor.own(self.now), self.caller())
        self.assertTrue(connection.client.done)

    def test_fresh_names(self) -> None:
        """Each connection of one Tub asks for a name of its own."""
        caller, called = self.caller(), self.nas.called()
        for _ in range(3):
            self.assertTrue(wire(called, caller).server.done)

    def test_wrong_pin(self) -> None:
        """Another key under the right CA is another node."""
        key = certificates.new_key()
        self.assert_fails(
            self.impostor.own(self.now, key=key), "own", WrongKey, "another key"
        )
        node = NodeID.of_key(key.public_key())
        leaf = certificates.self_signed_server(key, node, self.now)
        for kind in ("own", "others"):
            self.assert_fails(
                self.impostor.called((leaf,), key), kind, WrongKey, "another key"
            )

    def bare(self, key: certificates.Key) -> x509.Certificate:
        """A server certificate over this key without subjectAltName."""
        good = self.nas.faces()["own"].tub.chain[0]
        builder = (
            x509.CertificateBuilder()
            .subject_name(good.subject)
            .issuer_name(good.issuer)
            .public_key(key.public_key())
            .serial_number(good.serial_number)
            .not_valid_before(good.not_valid_before_utc)
            .not_valid_after(good.not_valid_after_utc)
        )
        for each in good.extensions:
            if not isinstance(each.value, x509.SubjectAlternativeName):
                builder = builder.add_extension(each.value, each.critical)
        return builder.sign(self.nas.key, hashes.SHA256())

    def test_no_name(self) -> None:
        """The right root and key without subjectAltName: refused all the same."""
        called = self.impostor.called(
            (self.bare(self.nas.server), self.nas.ca), self.nas.server
        )
        self.assert_fails(called, "own", BadServerCertificate, "node id as a name")

    def test_no_name_other_key(self) -> None:
        """The right root, no name, another key: where Twisted's own check opens."""
        key = certificates.new_key()
        called = self.impostor.called((self.bare(key), self.nas.ca), key)
        self.assert_fails(called, "own", WrongKey, "another key")

    def test_other_name(self) -> None:
        """A certificate with another node's name is refused."""
        name = certificates.server_name(self.laptop.node)
        self.assert_fails(
            self.impostor.own(self.now, [name]), "own", BadServerCertificate, "node id"
        )

    def test_expired(self) -> None:
        """An old certificate is refused, chained or self-signed."""
        old = self.now - 60 * DAY
        self.assert_fails(
            self.impostor.own(old), "own", BadServerCertificate, "expired"
        )
        leaf = certificates.self_signed_server(self.nas.server, self.nas.node, old)
        self.assert_fails(
            self.impostor.called((leaf,), self.nas.server),
            "others",
            BadServerCertificate,
            "expired",
        )

    def test_self_signed_own(self) -> None:
        """An own device must chain to the user CA: its bare key isn't enough."""
        (leaf,) = self.nas.faces()["others"].tub.chain
        self.assert_fails(
            self.impostor.called((leaf,), self.nas.server),
            "own",
            BadServerCertificate,
            "self-signed",
        )

    def test_chained_other(self) -> None:
        """Anybody else's must be self-signed: no other error passes."""
        self.assert_fails(
            self.impostor.own(self.now), "others", BadServerCertificate, "chain"
        )

    def test_foreign_authority(self) -> None:
        """The right key under another user's CA is refused."""
        guest = self.guest
        ca = certificates.device_ca(
            self.nas.key.public_key(),
            self.nas.node,
            (),
            guest.house.ca,
            guest.house.key,
            self.now,
        )
        leaf = certificates.device_server(
            self.nas.server.public_key(), self.nas.node, ca, self.nas.key, self.now
        )
        self.assert_fails(
            self.impostor.called((leaf, ca), self.nas.server),
            "own",
            BadServerCertificate,
            "chain",
        )

    def test_caller_certificate(self) -> None:
        """A certificate for callers doesn't make a server."""
        leaf = certificates.caller_leaf(
            self.nas.server.public_key(), self.nas.ca, self.nas.key, self.now
        )
        self.assert_fails(
            self.impostor.called((leaf, self.nas.ca), self.nas.server),
            "own",
            BadServerCertificate,
            "",
        )

    def test_failing_check(self) -> None:
        """Any exception in the callback refuses, and is logged."""
        for broken in ("_check_leaf", "server_name"):
            with patch.object(tls, broken, side_effect=RuntimeError):
                connection = wire(self.nas.called(), self.caller())
            self.assertFalse(connection.client.done)
            self.assertFalse(connection.server.done)
            self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_pin_left_out(self) -> None:
        """Negative control: without the comparison another key is taken."""
        called = self.impostor.own(self.now, key=certificates.new_key())
        with patch.object(tls, "_check_leaf"):
            connection = wire(called, self.caller())
        self.assertTrue(connection.client.done)

    def test_never_compared(self) -> None:
        """A handshake in which no callback ran is refused at its end."""
        with patch.object(CallerConnections, "_judge", crypto_true):
            connection = wire(self.nas.called(), self.caller())
        assert connection.client.lost is not None
        connection.client.lost.trap(BadServerCertificate)
        self.assertIn("never compared", str(connection.client.lost.value))

    def test_refusal_is_late(self) -> None:
        """In TLS 1.3 a caller is done before it learns that it was refused."""
        connection = wire(self.nas.called(), self.caller("own", self.guest.leaf()))
        self.assertTrue(connection.client.done)
        assert connection.client.lost is not None
        connection.client.lost.trap(SSL.Error)


def crypto_true(_: object, __: SSL.Connection, ___: crypto.X509, *____: int) -> bool:
    """A verify callback that looks at nothing."""
    return True
