"""TLS on both ends of a peer connection: who is shown what, and who is let in.

TLS 1.3 only, ALPN ``http/1.1`` only, nothing resumes, a client certificate is
always required. No verify callback lets an exception pass: when a check itself
fails, the connection is refused.

On the called side two OpenSSL contexts meet. The *first* one has no certificate
and denies everybody; verify mode and callback, protocol versions, options and
ticket settings are taken from it for good. The server-name callback swaps in
the *real* one for its certificate, chain, trust store and ALPN, and must then
call ``Connection.set_verify``: without that call nobody gets in.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen
from cryptography import x509
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import extract_patterns
from service_identity.hazmat import DNS_ID, verify_service_identity
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    ITransport,
)
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from protocols.certificates import server_name
from protocols.errors import ProtocolError
from protocols.nodeid import NodeID, spki
from protocols.principal import Principal, Refused, Trust, identify
from protocols.tub import Tub

_log = Logger()

ALPN = b"http/1.1"
_REQUIRE = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
_SELF_SIGNED = 18  # X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT
_INTERMEDIATES = 1  # the device CA

# What OpenSSL's X509_V_ERR_... numbers mean to somebody who calls a node.
_WORDS = {
    7: "its certificate's signature is forged",
    9: "its certificate is not yet valid (compare the clocks)",
    10: "its certificate has expired (compare the clocks)",
    18: "its certificate is self-signed, not one of your own devices'",
    19: "its certificate chains to another user's CA",
    20: "its certificate does not chain to your user CA",
    21: "its certificate does not chain to your user CA",
    26: "its certificate is not one for servers",
    47: "its certificate names more than its authority permits",
}

_Verify = Callable[[Any, crypto.X509, int, int, int], bool]


class WrongKey(ProtocolError):
    """The called node holds another key than its node id says.

    Attributes:
        expected: whom we called.
        actual: who answered.
    """

    def __init__(self, expected: NodeID, actual: NodeID) -> None:
        super().__init__(f"answered with another key: {expected} expected, {actual}")
        self.expected = expected
        self.actual = actual


class BadServerCertificate(ProtocolError):
    """The called node's certificate fails a check other than the key's."""


class _NoCommonProtocol(SSL.Error):
    """The caller offers ALPN protocols, none of which is http/1.1."""

    def __init__(self) -> None:
        # The shape of an OpenSSL error queue, which Twisted reads.
        super().__init__([("wherry", "", "no application protocol")])


def _context(verify: _Verify) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_verify(_REQUIRE, verify)
    context.set_verify_depth(_INTERMEDIATES)
    return context


def _show(context: SSL.Context, tub: Tub) -> None:
    context.use_privatekey(tub.key)
    context.use_certificate(tub.chain[0])
    for certificate in tub.chain[1:]:
        context.add_extra_chain_cert(certificate)


def _trust(context: SSL.Context, anchors: list[x509.Certificate]) -> None:
    store = context.get_cert_store()
    if store is None:
        raise ProtocolError("OpenSSL gave no trust store")
    for anchor in anchors:
        store.add_cert(crypto.X509.from_cryptography(anchor))


def _deny(*_: object) -> bool:
    return False


# --- the called side ---------------------------------------------------------


@frozen
class Face:
    """What one class of server names is shown, and whom it lets in."""

    tub: Tub
    trust: Trust


class _Inbound(SSL.Connection):
    """One inbound connection, from its ClientHello on.

    What is known of it stands here and not in the connection's app data, which
    Twisted takes for itself.

    Attributes:
        asked: the server name, once the first ClientHello came.
        face: what is shown; None refuses.
        clean: False once the verify callback has seen an error.
    """

    def __init__(self, context: SSL.Context) -> None:
        super().__init__(context, None)
        self.chosen = False
        self.asked: bytes | None = None
        self.face: tuple[SSL.Context, Trust] | None = None
        self.clean = True
        self.principal: Principal | None = None


@implementer(IOpenSSLServerConnectionCreator)
class CalledConnections:
    """Makes the TLS of inbound connections.

    Owner: the node. `show` replaces what is shown from the next connection on;
    contexts are never edited.

    Args:
        choose: gives the class of a server name (a key of ``faces``), or None
            to show nothing; called once a connection, with the name asked for.
        faces: what each class is shown.
    """

    def __init__(
        self,
        choose: Callable[[str], str | None],
        faces: Mapping[str, Face],
    ) -> None:
        self._choose = choose
        self._first = _context(_deny)
        self._first.set_tlsext_servername_callback(self._named)
        self._faces: dict[str, tuple[SSL.Context, Trust]] = {}
        self.show(faces)

    def show(self, faces: Mapping[str, Face]) -> None:
        """Show these certificates from now on, and let these callers in."""
        self._faces = {kind: (_real(each), each.trust) for kind, each in faces.items()}

    def serverConnectionForTLS(
        self, tlsProtocol: TLSMemoryBIOProtocol
    ) -> SSL.Connection:
        """Make the OpenSSL connection of one inbound transport."""
        return _Inbound(self._first)

    def _named(self, call: SSL.Connection) -> None:
        """Swap the real context in for a server name that is known.

        OpenSSL calls this twice on one connection after a HelloRetryRequest,
        so a one-use name is taken at the first of the two.
        """
        if not isinstance(call, _Inbound):
            return  # the first context goes on to refuse it
        asked = call.get_servername()
        if not call.chosen:
            call.chosen, call.asked = True, asked
            call.face = self._face(asked)
        elif asked != call.asked:
            call.face = None
        if call.face is None:
            # The first context again: no certificate, deny all, alert 40.
            call.set_context(self._first)
            call.set_verify(_REQUIRE, _deny)
            return
        call.set_context(call.face[0])
        call.set_verify(_REQUIRE, _judge_caller)

    def _face(self, asked: bytes | None) -> tuple[SSL.Context, Trust] | None:
        if asked is None:
            return None
        try:
            name = asked.decode("ascii")
        except UnicodeDecodeError:
            return None
        kind = self._choose(name)
        return None if kind is None else self._faces.get(kind)


def _real(face: Face) -> SSL.Context:
    context = _context(_deny)
    _show(context, face.tub)
    _trust(context, face.trust.anchors)
    context.set_alpn_select_callback(_select)
    return context


def _select(_: SSL.Connection, offered: list[bytes]) -> bytes:
    if ALPN not in offered:
        raise _NoCommonProtocol
    return ALPN


def _judge_caller(
    call: SSL.Connection, shown: crypto.X509, error: int, depth: int, ok: int
) -> bool:
    """OpenSSL's verify callback on the called side.

    pyOpenSSL clears the error when this returns True, so an error that is let
    pass is remembered here: one of them, and the chain proves nothing.
    """
    try:
        if not isinstance(call, _Inbound) or call.face is None:
            return False
        call.clean = call.clean and bool(ok) and not error
        trust = call.face[1]
        if call.clean or trust.strangers:
            return True
        if depth:
            return bool(trust.allowed)  # the leaf's key will decide
        return _key_digest(shown) in trust.allowed
    except Exception:  # noqa: BLE001 - whatever goes wrong in here: refuse
        _log.failure("judging a caller's certificate")
        return False


def _key_digest(certificate: crypto.X509) -> bytes:
    key = certificate.to_cryptography().public_key()
    return hashlib.sha256(spki(key)).digest()


def _call_of(transport: ITransport) -> _Inbound:
    call = transport.getHandle()  # type: ignore[attr-defined]
    if not isinstance(call, _Inbound):
        raise Refused("not a connection that was let in by TLS")
    return call


def principal_of(transport: ITransport) -> Principal:
    """Say who is calling, once the handshake is over.

    Args:
        transport: the TLS transport of an inbound connection.

    Raises:
        Refused: nobody who is let in.
    """
    call = _call_of(transport)
    if call.principal is None:
        if call.face is None:
            raise Refused("no server name was accepted")
        call.principal = identify(
            call.face[1],
            call.get_verified_chain(as_cryptography=True),
            call.get_peer_certificate(as_cryptography=True),
            clean=call.clean,
        )
    return call.principal


def chain_end(transport: ITransport) -> float:
    """Give the time at which the caller's certificates begin to expire.

    Returns:
        Seconds since the epoch: the earliest end in the verified chain.

    Raises:
        Refused: there is no verified chain.
    """
    chain = _call_of(transport).get_verified_chain(as_cryptography=True)
    if not chain:
        raise Refused("no verified certificate")
    return min(each.not_valid_after_utc.timestamp() for each in chain)


# --- the calling side --------------------------------------------------------


class _Outbound(SSL.Connection):
    """One outbound connection.

    Attributes:
        transport: to end it with a reason.
        pinned: whether the server's key has been compared.
    """

    def __init__(self, context: SSL.Context, transport: TLSMemoryBIOProtocol) -> None:
        super().__init__(context, None)
        self.transport = transport
        self.pinned = False


@implementer(IOpenSSLClientConnectionCreator)
class CallerConnections:
    """Makes the TLS of the connections of one outbound Tub to one node.

    Owner and lifetime: one connection generation to one peer; never shared.
    The called node's key is compared with its node id in the verify callback,
    before our certificate leaves. A failure reaches the protocol's
    ``connectionLost`` as `WrongKey` or `BadServerCertificate`.

    Args:
        tub: our identity in this generation.
        pin: the node that we call.
        name: gives a fresh one-use server name for each connection.
        user_ca: the anchor that an own device must chain to; None for anybody
            else, whose certificate must be self-signed.
    """

    def __init__(
        self,
        tub: Tub,
        pin: NodeID,
        name: Callable[[], str],
        user_ca: x509.Certificate | None,
    ) -> None:
        self._pin = pin
        self._name = name
        self._own = user_ca is not None
        self._context = _context(self._judge)
        _show(self._context, tub)
        _trust(self._context, [user_ca] if user_ca else [])
        self._context.set_alpn_protos([ALPN])
        self._context.set_info_callback(_insist)

    def clientConnectionForTLS(
        self, tlsProtocol: TLSMemoryBIOProtocol
    ) -> SSL.Connection:
        """Make the OpenSSL connection of one outbound transport."""
        connection = _Outbound(self._context, tlsProtocol)
        connection.set_tlsext_host_name(self._name().encode("ascii"))
        return connection

    def _judge(
        self,
        calling: _Outbound,
        shown: crypto.X509,
        error: int,
        depth: int,
        ok: int,
    ) -> bool:
        try:
            if depth == 0:
                _check_leaf(shown.to_cryptography(), self._pin)
            if (error or not ok) and (self._own or (error, depth) != (_SELF_SIGNED, 0)):
                raise BadServerCertificate(_WORDS.get(error, f"error {error}"))
        except ProtocolError as problem:
            calling.transport.failVerification(Failure(problem))
            return False
        except Exception:  # noqa: BLE001 - whatever goes wrong in here: refuse
            _log.failure("judging a server's certificate")
            return False
        calling.pinned = calling.pinned or depth == 0
        return True


def _insist(calling: SSL.Connection, where: int, _: int) -> None:
    """Refuse a handshake that ended without the key having been compared."""
    if not isinstance(calling, _Outbound) or not where & SSL.SSL_CB_HANDSHAKE_DONE:
        return
    if not calling.pinned:
        problem = BadServerCertificate("its key was never compared")
        calling.transport.failVerification(Failure(problem))


def _check_leaf(leaf: x509.Certificate, pin: NodeID) -> None:
    """Compare a server certificate's key with a node id, then its name."""
    actual = NodeID.of_spki(spki(leaf.public_key()))
    if actual != pin:
        raise WrongKey(pin, actual)
    try:
        verify_service_identity(extract_patterns(leaf), [DNS_ID(server_name(pin))], [])
    except (VerificationError, CertificateError) as problem:
        raise BadServerCertificate(
            "its certificate does not carry its node id as a name"
        ) from problem
