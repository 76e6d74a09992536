"""Every certificate that Wherry makes, from one page of templates (RFC 5280).

All keys are P-256. Every certificate carries a subjectAltName or is a CA, has
critical basic constraints and key usage, key identifiers, and a validity in
whole UTC days: a start to the second would join two leaves of one caller.
"""

import datetime
import hashlib
import secrets
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID as Usage
from cryptography.x509.oid import NameOID

from protocols.errors import Malformed
from protocols.nodeid import NodeID, spki

Key = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey

DOMAIN = "wherry.internal"
CALLER = f"caller.{DOMAIN}"

USER_CA_DAYS = 3652
DEVICE_CA_DAYS = 398
SERVER_DAYS = 30
CALLER_DAYS = 2

_PEM_LIMIT = 64 * 1024
_DAY = datetime.timedelta(days=1)


def server_name(node: NodeID) -> str:
    """The name in the server certificates of a node: ``NODEID.wherry.internal``."""
    return f"{node}.{DOMAIN}"


def new_key() -> Key:
    """Make a P-256 key (about 20 microseconds)."""
    return ec.generate_private_key(ec.SECP256R1())


def key_id(certificate: x509.Certificate) -> bytes:
    """The SHA-256 of a certificate's SubjectPublicKeyInfo, 32 bytes."""
    key = certificate.public_key()
    return hashlib.sha256(spki(key)).digest()


def user_ca(key: Key, now: float) -> x509.Certificate:
    """The root of one person's devices: path length 1, ten years."""
    return _authority(
        _subject("Wherry user CA"), key.public_key(), None, key, now, USER_CA_DAYS, 1
    )


def device_ca(
    public: PublicKey,
    node: NodeID,
    names: Sequence[str],
    issuer: x509.Certificate,
    issuer_key: Key,
    now: float,
) -> x509.Certificate:
    """One device's own authority: path length 0, subject = its node id.

    Name constraints permit ``wherry.internal`` and the device's plain names
    alone, so a stolen device can't speak for another name.
    """
    return _authority(
        _subject(node.text),
        public,
        issuer,
        issuer_key,
        now,
        DEVICE_CA_DAYS,
        0,
        permitted=(DOMAIN, *names),
    )


def pairwise_ca(key: Key, now: float) -> x509.Certificate:
    """What certifies the callers of one device to one person; constant subject."""
    return _authority(
        _subject("Wherry pairwise CA"),
        key.public_key(),
        None,
        key,
        now,
        USER_CA_DAYS,
        0,
        permitted=(DOMAIN,),
    )


def device_server(
    public: PublicKey,
    node: NodeID,
    issuer: x509.Certificate,
    issuer_key: Key,
    now: float,
) -> x509.Certificate:
    """The server certificate that own devices are shown."""
    return _leaf(
        "server",
        [server_name(node)],
        public,
        issuer,
        issuer_key,
        now,
        SERVER_DAYS,
        Usage.SERVER_AUTH,
    )


def named_server(
    public: PublicKey,
    names: Sequence[str],
    issuer: x509.Certificate,
    issuer_key: Key,
    now: float,
) -> x509.Certificate:
    """The server certificate for programs that call by a plain name."""
    return _leaf(
        "server",
        names,
        public,
        issuer,
        issuer_key,
        now,
        SERVER_DAYS,
        Usage.SERVER_AUTH,
    )


def self_signed_server(key: Key, node: NodeID, now: float) -> x509.Certificate:
    """The server certificate for everybody else: tells nothing but the node id."""
    return _leaf(
        "server",
        [server_name(node)],
        key.public_key(),
        None,
        key,
        now,
        SERVER_DAYS,
        Usage.SERVER_AUTH,
    )


def caller_leaf(
    public: PublicKey, issuer: x509.Certificate | None, issuer_key: Key, now: float
) -> x509.Certificate:
    """A caller's one-time certificate; self-signed where ``issuer`` is None.

    One template for every peer, device and time of day: valid from 00:00 UTC
    yesterday to 00:00 UTC in two days, constant subject and name.
    """
    return _leaf(
        "caller",
        [CALLER],
        public,
        issuer,
        issuer_key,
        now,
        CALLER_DAYS,
        Usage.CLIENT_AUTH,
    )


def pem(certificates: Iterable[x509.Certificate]) -> bytes:
    """Certificates as concatenated PEM, in the order given."""
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


def load_chain(data: bytes) -> list[x509.Certificate]:
    """Read concatenated PEM certificates, at most 64 KiB.

    Raises:
        Malformed: too large, not PEM, or not certificates over P-256 keys.
    """
    if len(data) > _PEM_LIMIT:
        raise Malformed("certificates", f"larger than {_PEM_LIMIT} bytes")
    try:
        chain = x509.load_pem_x509_certificates(data)
        keys = [each.public_key() for each in chain]
    except ValueError:
        raise Malformed("certificates", "not PEM certificates") from None
    for key in keys:
        if not is_p256(key):
            raise Malformed("certificates", "a key that is not P-256")
    return chain


def is_p256(key: object) -> bool:
    """Say whether a public or private key is on the one curve in use."""
    return isinstance(key, PublicKey | Key) and isinstance(key.curve, ec.SECP256R1)


def key_pem(key: Key, password: bytes | None = None) -> bytes:
    """A private key as PKCS#8 PEM, encrypted where a password is given."""
    return key.private_bytes(
        Encoding.PEM,
        PrivateFormat.PKCS8,
        BestAvailableEncryption(password) if password else NoEncryption(),
    )


def load_key(data: bytes, password: bytes | None = None) -> Key:
    """Read a P-256 private key.

    Raises:
        Malformed: not PEM, not P-256, or the password is wrong or missing.
    """
    if len(data) > _PEM_LIMIT:
        raise Malformed("private key", f"larger than {_PEM_LIMIT} bytes")
    try:
        key = load_pem_private_key(data, password)
    except TypeError:
        why = "needs no passphrase" if password else "needs its passphrase"
        raise Malformed("private key", why) from None
    except ValueError:
        raise Malformed("private key", "not PEM, or a wrong passphrase") from None
    if not (isinstance(key, Key) and is_p256(key)):
        raise Malformed("private key", "not a P-256 key")
    return key


def _midnight(now: float) -> datetime.datetime:
    """00:00 UTC of the day of ``now`` (seconds since the epoch)."""
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def _serial() -> int:
    """128 bits that always take 16 bytes of DER: 126 random ones below 01."""
    return secrets.randbits(126) | 1 << 126


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name,
    public: PublicKey,
    issuer: x509.Certificate | None,
    issuer_public: PublicKey,
    now: float,
    days: int,
) -> x509.CertificateBuilder:
    """What authorities and leaves have in common."""
    start = _midnight(now)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(public)
        .serial_number(_serial())
        .not_valid_before(start - _DAY)
        .not_valid_after(start + days * _DAY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_public), False
        )
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    """Key usage of an authority (``signs``) or of a leaf."""
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority(
    subject: x509.Name,
    public: PublicKey,
    issuer: x509.Certificate | None,
    issuer_key: Key,
    now: float,
    days: int,
    path_length: int,
    permitted: Sequence[str] = (),
) -> x509.Certificate:
    builder = (
        _builder(subject, public, issuer, issuer_key.public_key(), now, days)
        .add_extension(x509.BasicConstraints(True, path_length), True)
        .add_extension(_usage(signs=True), True)
    )
    if permitted:
        # A DNS constraint says nothing of addresses: they are shut out by name.
        everywhere = (
            x509.IPAddress(IPv4Network("0.0.0.0/0")),
            x509.IPAddress(IPv6Network("::/0")),
        )
        constraints = x509.NameConstraints(
            [x509.DNSName(name) for name in permitted], everywhere
        )
        builder = builder.add_extension(constraints, True)
    return builder.sign(issuer_key, hashes.SHA256())


def _leaf(
    subject: str,
    names: Sequence[str],
    public: PublicKey,
    issuer: x509.Certificate | None,
    issuer_key: Key,
    now: float,
    days: int,
    usage: x509.ObjectIdentifier,
) -> x509.Certificate:
    return (
        _builder(_subject(subject), public, issuer, issuer_key.public_key(), now, days)
        .add_extension(x509.BasicConstraints(False, None), True)
        .add_extension(_usage(signs=False), True)
        .add_extension(x509.ExtendedKeyUsage([usage]), False)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False
        )
        .sign(issuer_key, hashes.SHA256())
    )
