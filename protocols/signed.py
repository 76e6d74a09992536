"""Signed statements: a payload, whose it is, and the proof."""

import base64
import binascii
import hashlib
import json
import re
from typing import Final

from attrs import field, frozen
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from protocols.errors import Malformed, ProtocolError
from protocols.nodeid import NodeID, spki
from protocols.strictjson import read_object

# The SubjectPublicKeyInfo of every P-256 key: this, then the uncompressed point.
_P256: Final = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
_POINT_SIZE: Final = 65
_KEY_SIZE: Final = len(_P256) + _POINT_SIZE
# An ECDSA signature over P-256 as DER takes 72 bytes at most.
_SIGNATURE_LIMIT: Final = 72
_KIND = re.compile(r"[a-z]+( [a-z]+)*")


class BadSignature(ProtocolError):
    """A statement that its signer did not sign as it stands.

    Attributes:
        what: the kind of statement.
    """

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"{self.what}: the signature does not match"


def context(kind: str) -> bytes:
    """Give what every signature of this kind covers first.

    It ends in NUL, which no kind holds: no kind's context begins another's.
    """
    return f"wherry {kind} 1".encode("ascii") + b"\0"


@frozen
class Signed:
    """A statement whose signature is right: a wrong one can't be made.

    Attributes:
        kind: what it states, such as ``"announcement"``.
        payload: the signed bytes, in whatever form the kind says.
        spki: the signer's P-256 key as DER.
        signature: ECDSA with SHA-256 over context and payload. Not a name for
            the statement: anybody can turn it into a second valid one.
    """

    kind: str
    payload: bytes
    spki: bytes
    signature: bytes = field(repr=False)

    def __attrs_post_init__(self) -> None:
        if not _KIND.fullmatch(self.kind):
            raise Malformed("signed statement", "its kind must be words of a to z")
        public = _public_key(self.kind, self.spki)
        try:
            public.verify(
                self.signature, context(self.kind) + self.payload, ec.ECDSA(SHA256())
            )
        except InvalidSignature:
            raise BadSignature(self.kind) from None

    @classmethod
    def parse(cls, data: bytes | str, kind: str, limit: int) -> "Signed":
        """Read what ``text`` wrote and check the signature.

        Args:
            data: from a stranger.
            kind: the one kind that is expected.
            limit: the most bytes that are looked at.

        Raises:
            Malformed: too long, or not such a statement.
            BadSignature: the signature is not by that key over that payload.
            TypeError: ``data`` is neither bytes nor str.
        """
        if isinstance(data, str):
            if len(data) > limit:
                raise Malformed(kind, f"longer than {limit} bytes")
            try:
                data = data.encode("utf-8")
            except UnicodeError:
                raise Malformed(kind, "is not Unicode text") from None
        document = read_object(data, limit, kind)
        if set(document) != {"wherry", "payload", "key", "signature"}:
            raise Malformed(
                kind, "must have exactly wherry, payload, key and signature"
            )
        if document["wherry"] != f"{kind} 1":
            raise Malformed(kind, f'is something else: wherry is not "{kind} 1"')
        return cls(
            kind,
            _unbase64(kind, document["payload"], limit),
            _unbase64(kind, document["key"], _KEY_SIZE),
            _unbase64(kind, document["signature"], _SIGNATURE_LIMIT),
        )

    def text(self) -> str:
        """Write the statement as one line of JSON."""
        return json.dumps(
            {
                "wherry": f"{self.kind} 1",
                "payload": base64.b64encode(self.payload).decode("ascii"),
                "key": base64.b64encode(self.spki).decode("ascii"),
                "signature": base64.b64encode(self.signature).decode("ascii"),
            }
        )

    @property
    def digest(self) -> bytes:
        """SHA-256 that names the statement: kind, signer and payload.

        The key has one fixed length, so the three can't run into each other.
        """
        covered = context(self.kind) + self.spki + self.payload
        return hashlib.sha256(covered).digest()

    @property
    def signer(self) -> NodeID:
        """The node whose server key signed it."""
        return NodeID.of_spki(self.spki)


def seal(kind: str, payload: bytes, key: ec.EllipticCurvePrivateKey) -> Signed:
    """Sign a payload as a statement of this kind.

    Args:
        kind: words of lower-case letters.
        payload: what is stated.
        key: a P-256 key.

    Raises:
        Malformed: no such kind, or another curve.
    """
    signature = key.sign(context(kind) + payload, ec.ECDSA(SHA256()))
    return Signed(kind, payload, spki(key.public_key()), signature)


def _public_key(kind: str, der: bytes) -> ec.EllipticCurvePublicKey:
    # Loaders take compressed points and spelled-out curves too; a key must have
    # one spelling, or one signer would have several node ids.
    if len(der) != _KEY_SIZE or not der.startswith(_P256 + b"\x04"):
        raise Malformed(kind, "its key is not an uncompressed P-256 key")
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(
            ec.SECP256R1(), der[-_POINT_SIZE:]
        )
    except ValueError:
        raise Malformed(kind, "its key is not a point of P-256") from None


def _unbase64(kind: str, text: object, limit: int) -> bytes:
    if not isinstance(text, str):
        raise Malformed(kind, "payload, key and signature must be text")
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeError):
        raise Malformed(kind, "payload, key and signature must be base64") from None
    if base64.b64encode(data).decode("ascii") != text:
        raise Malformed(kind, "its base64 is not spelled canonically")
    if len(data) > limit:
        raise Malformed(kind, "its key or signature is too long")
    return data
