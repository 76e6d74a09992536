"""Tubs: TLS identities that are ready for use."""

from attrs import field, frozen
from cryptography import x509

from protocols import certificates
from protocols.certificates import Key


@frozen
class Tub:
    """A private key and the certificate chain that goes out with it.

    The server Tub persists with its node; an outbound Tub lives in memory for
    one connection generation to one peer (Tahoe-LAFS ticket 2759).

    Attributes:
        key: the leaf's private key; never in a repr.
        chain: leaf first, then what certifies it, without the anchor.
    """

    key: Key = field(repr=False)
    chain: tuple[x509.Certificate, ...] = field(repr=False)

    @property
    def label(self) -> str:
        """Eight hex digits of the leaf key's id, enough to tell Tubs apart."""
        return certificates.key_id(self.chain[0]).hex()[:8]


def mint(issuer: x509.Certificate | None, issuer_key: Key | None, now: float) -> Tub:
    """Make a fresh outbound Tub.

    Args:
        issuer: the device CA or pairwise CA that certifies it; None for a
            self-signed, anonymous one.
        issuer_key: the issuer's key; None with an anonymous one.
        now: seconds since the epoch; only its UTC day is used.
    """
    key = certificates.new_key()
    leaf = certificates.caller_leaf(key.public_key(), issuer, issuer_key or key, now)
    intermediate = () if issuer is None or _is_root(issuer) else (issuer,)
    return Tub(key, (leaf, *intermediate))


def _is_root(certificate: x509.Certificate) -> bool:
    """A self-signed issuer is the other side's anchor: sending it adds nothing."""
    return certificate.subject == certificate.issuer
