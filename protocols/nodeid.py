"""Node ids: names that prove themselves."""

import hashlib
from typing import ClassVar

from attrs import frozen
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from protocols import base32
from protocols.base32 import DigestID


def spki(key: PublicKeyTypes) -> bytes:
    """Give a public key's SubjectPublicKeyInfo as DER (RFC 5280, 4.1.2.7)."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@frozen(order=True)
class NodeID(DigestID):
    """Unpadded lower-case base32 of the SHA-256 of a server key's SPKI."""

    WHAT: ClassVar = "node id"

    @classmethod
    def of_spki(cls, der: bytes) -> "NodeID":
        """Name the node whose server key has this SubjectPublicKeyInfo."""
        return cls(base32.encode(hashlib.sha256(der).digest()))

    @classmethod
    def of_key(cls, key: PublicKeyTypes) -> "NodeID":
        """Name the node that holds this server key."""
        return cls.of_spki(spki(key))
