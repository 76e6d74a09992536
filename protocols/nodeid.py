"""Node ids: names that prove themselves."""

import hashlib

from attrs import field, frozen
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from protocols import base32

SIZE = 32


def spki(key: PublicKeyTypes) -> bytes:
    """Give a public key's SubjectPublicKeyInfo as DER (RFC 5280, 4.1.2.7)."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _check(_: object, __: object, text: str) -> None:
    base32.decode(text, SIZE, "node id")


@frozen(order=True)
class NodeID:
    """Unpadded lower-case base32 of the SHA-256 of a server key's SPKI.

    Attributes:
        text: the 52 characters; there is only one spelling.
    """

    text: str = field(validator=_check)

    @classmethod
    def of_spki(cls, der: bytes) -> "NodeID":
        """Name the node whose server key has this SubjectPublicKeyInfo."""
        return cls(base32.encode(hashlib.sha256(der).digest()))

    @classmethod
    def of_key(cls, key: PublicKeyTypes) -> "NodeID":
        """Name the node that holds this server key."""
        return cls.of_spki(spki(key))

    @property
    def digest(self) -> bytes:
        """The SHA-256 itself, 32 bytes."""
        return base32.decode(self.text, SIZE, "node id")

    @property
    def short(self) -> str:
        """The first seven characters and an ellipsis, for people to read."""
        return self.text[:7] + "…"

    def __str__(self) -> str:
        return self.text
