"""What two devices of one user say to each other when the second one joins.

The new device's *request* is signed by its server key and holds a proof that
its device key is its own. The *bundle* that answers it is signed by the user
CA and names the request by its digest.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Final

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key

from protocols.card import Card, readable
from protocols.certificates import Key, PublicKey, is_p256
from protocols.dnsname import NAMES, check_name
from protocols.errors import Malformed
from protocols.nodeid import spki
from protocols.signed import BadSignature, Signed, seal
from protocols.strictjson import read_object

REQUEST_LIMIT: Final = 32 * 1024
BUNDLE_LIMIT: Final = 1 << 20
CARDS: Final = 100
"""How many cards a bundle may have; the new device will call each of them."""

_REQUEST: Final = "device request"
_BUNDLE: Final = "device bundle"
_KEY: Final = "device key"


@frozen
class DeviceRequest:
    """A verified request.

    Attributes:
        card: of the new device; the signer is the card's node.
        device_key: what its device CA is to certify.
        names: plain DNS names that the device CA is to permit.
        signed: the statement; its ``digest`` names the request.
    """

    card: Card
    device_key: PublicKey
    names: tuple[str, ...]
    signed: Signed

    @classmethod
    def make(
        cls,
        card: Card,
        names: Sequence[str],
        server_key: Key,
        device_key: Key,
        now: float,
    ) -> "DeviceRequest":
        """Ask for a device CA, at ``now`` in Unix seconds."""
        stated = {
            "card": card.text(),
            "device": seal(_KEY, card.node.digest, device_key).text(),
            "names": list(names),
            "made": int(now),
        }
        return cls._of(seal(_REQUEST, _json(stated), server_key))

    @classmethod
    def parse(cls, text: str) -> "DeviceRequest":
        """Read and verify a request.

        Raises:
            Malformed: not a request.
            BadSignature: altered, or not by the keys that it names.
        """
        return cls._of(Signed.parse(text.strip(), _REQUEST, REQUEST_LIMIT))

    @classmethod
    def _of(cls, signed: Signed) -> "DeviceRequest":
        stated = read_object(signed.payload, REQUEST_LIMIT, _REQUEST)
        _exactly(_REQUEST, stated, {"card", "device", "names", "made"})
        card = Card.parse(_text(_REQUEST, stated["card"]))
        if card.node != signed.signer:
            raise BadSignature(_REQUEST)
        proof = Signed.parse(_text(_REQUEST, stated["device"]), _KEY, REQUEST_LIMIT)
        if proof.payload != card.node.digest:
            raise BadSignature(_KEY)
        key = load_der_public_key(proof.spki)
        assert isinstance(key, ec.EllipticCurvePublicKey)  # Signed takes no other
        if type(stated["made"]) is not int:
            raise Malformed(_REQUEST, "made must be a whole number")
        names = stated["names"]
        if not isinstance(names, list) or len(names) > NAMES:
            raise Malformed(_REQUEST, f"names must be a list of at most {NAMES}")
        for name in names:
            if check_name(_text(_REQUEST, name)) != name:
                raise Malformed(_REQUEST, "names must be in lower case")
        return cls(card, key, tuple(names), signed)

    def asks_for_the_same_as(self, other: "DeviceRequest") -> bool:
        """Say whether two requests differ in their times and signatures alone."""
        return (
            self.card == other.card
            and self.names == other.names
            and spki(self.device_key) == spki(other.device_key)
        )


@frozen
class DeviceBundle:
    """A bundle that the user CA in it has signed; the rest is to be checked.

    Attributes:
        request: the digest of the request that it answers.
        device_ca: the new device's certificate.
        user_ca: the user's.
        cards: the user's devices, each with the nickname that the user gave it.
        signed: the statement.
    """

    request: bytes
    device_ca: x509.Certificate
    user_ca: x509.Certificate
    cards: tuple[tuple[str, Card], ...]
    signed: Signed

    @classmethod
    def make(
        cls,
        request: DeviceRequest,
        device_ca: x509.Certificate,
        user_ca: x509.Certificate,
        cards: Sequence[tuple[str, Card]],
        user_key: Key,
    ) -> "DeviceBundle":
        """Answer a request; ``user_key`` is the user CA's."""
        stated = {
            "request": _base64(request.signed.digest),
            "device": _base64(device_ca.public_bytes(Encoding.DER)),
            "user": _base64(user_ca.public_bytes(Encoding.DER)),
            "cards": [[nickname, card.text()] for nickname, card in cards],
        }
        return cls._of(seal(_BUNDLE, _json(stated), user_key))

    @classmethod
    def parse(cls, text: str) -> "DeviceBundle":
        """Read a bundle and verify who signed it.

        Raises:
            Malformed: not a bundle.
            BadSignature: altered, or not by the user CA in it.
        """
        return cls._of(Signed.parse(text.strip(), _BUNDLE, BUNDLE_LIMIT))

    @classmethod
    def _of(cls, signed: Signed) -> "DeviceBundle":
        stated = read_object(signed.payload, BUNDLE_LIMIT, _BUNDLE)
        _exactly(_BUNDLE, stated, {"request", "device", "user", "cards"})
        user_ca = _certificate(stated["user"])
        if spki(user_ca.public_key()) != signed.spki:
            raise BadSignature(_BUNDLE)
        cards = stated["cards"]
        if not isinstance(cards, list):
            raise Malformed(_BUNDLE, "cards must be a list")
        if len(cards) > CARDS:
            raise Malformed(_BUNDLE, f"has more than {CARDS} cards")
        return cls(
            _bytes(stated["request"]),
            _certificate(stated["device"]),
            user_ca,
            tuple(map(_named_card, cards)),
            signed,
        )


def _named_card(pair: object) -> tuple[str, Card]:
    if not isinstance(pair, list) or len(pair) != 2:
        raise Malformed(_BUNDLE, "a card must be a list of nickname and card")
    nickname, card = (_text(_BUNDLE, each) for each in pair)
    return readable(nickname, "nickname in a bundle"), Card.parse(card)


def _certificate(text: object) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(_bytes(text))
        key = certificate.public_key()
    except ValueError:
        raise Malformed(_BUNDLE, "a certificate in it is broken") from None
    if not is_p256(key):
        raise Malformed(_BUNDLE, "a certificate's key in it is not P-256")
    return certificate


def _exactly(what: str, stated: dict[str, object], keys: set[str]) -> None:
    if set(stated) != keys:
        raise Malformed(what, f"must have exactly {', '.join(sorted(keys))}")


def _text(what: str, value: object) -> str:
    if not isinstance(value, str):
        raise Malformed(what, "has something else where text must be")
    return value


def _bytes(value: object) -> bytes:
    try:
        return base64.b64decode(_text(_BUNDLE, value).encode("ascii"), validate=True)
    except (binascii.Error, UnicodeError):
        raise Malformed(_BUNDLE, "has something else where base64 must be") from None


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _json(stated: Mapping[str, object]) -> bytes:
    return json.dumps(stated, separators=(",", ":")).encode("ascii")
