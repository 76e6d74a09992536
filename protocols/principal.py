"""Who is calling us: decided once per connection, from what OpenSSL verified."""

from collections.abc import Mapping, Sequence

from attrs import field, frozen
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from protocols import certificates
from protocols.errors import Malformed, ProtocolError
from protocols.nodeid import NodeID


class Refused(ProtocolError):
    """A caller whose certificate says nothing that we take."""


@frozen
class OwnDevice:
    """A device of the same user, by its device CA under our user CA.

    Attributes:
        node: the device's node id, the subject of its device CA.
        device_key: SHA-256 of the device CA's SPKI; what a block list names.
    """

    node: NodeID
    device_key: bytes = field(repr=False)


@frozen
class Person:
    """Somebody else, by the pairwise CA that they use with us alone."""

    nickname: str


@frozen
class Stranger:
    """Anybody else, where the node lets strangers in at all."""


Principal = OwnDevice | Person | Stranger


@frozen
class Trust:
    """Whom one server certificate's callers may be; None and empty: nobody.

    Attributes:
        user_ca: the anchor of own devices.
        people: pairwise CA of each person, with the nickname.
        allowed: leaf key ids (SHA-256 of SPKI) taken as a person whatever
            certifies them.
        strangers: whether everybody else comes in as a `Stranger`.
    """

    user_ca: x509.Certificate | None = None
    people: tuple[tuple[x509.Certificate, str], ...] = ()
    allowed: Mapping[bytes, str] = field(factory=dict)
    strangers: bool = False

    @property
    def anchors(self) -> list[x509.Certificate]:
        """What goes into OpenSSL's trust store."""
        own = [self.user_ca] if self.user_ca else []
        return own + [certificate for certificate, _ in self.people]


def identify(
    trust: Trust,
    chain: Sequence[x509.Certificate] | None,
    leaf: x509.Certificate | None,
    *,
    clean: bool,
) -> Principal:
    """Name the caller of one connection. Pure.

    Args:
        trust: whom the certificate that we showed lets in.
        chain: OpenSSL's verified chain, leaf first; never what the caller sent.
        leaf: the caller's certificate, whose key TLS has proved.
        clean: whether the verify callback saw no error at all. With one error
            the chain proves nothing, whatever it looks like.

    Raises:
        Refused: nobody whom ``trust`` lets in.
    """
    if leaf is None or chain is None:
        raise Refused("no verified certificate")
    if clean and (known := _known(trust, chain)):
        return known
    if nickname := trust.allowed.get(certificates.key_id(leaf)):
        return Person(nickname)
    if trust.strangers:
        return Stranger()
    raise Refused("not a certificate of anybody known here")


def _known(
    trust: Trust, chain: Sequence[x509.Certificate]
) -> OwnDevice | Person | None:
    """Read a verified chain; only the two known shapes mean anything."""
    if not _for_clients(chain[0]):
        return None
    anchor = certificates.key_id(chain[-1])
    if trust.user_ca and len(chain) == 3:
        if anchor == certificates.key_id(trust.user_ca):
            return _device(chain[1])
    elif len(chain) == 2:
        for certificate, nickname in trust.people:
            if anchor == certificates.key_id(certificate):
                return Person(nickname)
    return None


def _device(authority: x509.Certificate) -> OwnDevice | None:
    subject = authority.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(subject) != 1 or not isinstance(subject[0].value, str):
        return None
    try:
        node = NodeID(subject[0].value)
    except Malformed:
        return None
    return OwnDevice(node, certificates.key_id(authority))


def _for_clients(leaf: x509.Certificate) -> bool:
    """A leaf without any extended key usage passes OpenSSL: ask by name."""
    try:
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except (x509.ExtensionNotFound, ValueError):
        return False
    return ExtendedKeyUsageOID.CLIENT_AUTH in usage.value
