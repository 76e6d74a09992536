"""Tests for protocols.signed."""

import base64
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protocols.errors import Malformed
from protocols.nodeid import NodeID, spki
from protocols.signed import BadSignature, Signed, context, seal

KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
KIND = "device request"
LIMIT = 4096
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def _document(signed: Signed, **changes: object) -> bytes:
    """Write a statement with members exchanged; None takes one out."""
    document: dict[str, Any] = json.loads(signed.text()) | changes
    return json.dumps({k: v for k, v in document.items() if v is not None}).encode()


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


class SealTests(SynchronousTestCase):
    """Statements of our own."""

    @settings(max_examples=40, deadline=None)
    @given(st.binary(max_size=200))
    def test_round_trip(self, payload: bytes) -> None:
        """What was sealed is read back, from text and from bytes."""
        signed = seal(KIND, payload, KEY)
        self.assertEqual(Signed.parse(signed.text(), KIND, LIMIT), signed)
        self.assertEqual(Signed.parse(signed.text().encode(), KIND, LIMIT), signed)
        self.assertEqual(signed.signer, NodeID.of_key(KEY.public_key()))

    def test_one_line(self) -> None:
        """The text is one line of ASCII."""
        text = seal(KIND, b"\n\xff", KEY).text()
        self.assertTrue(text.isascii() and text.isprintable())

    def test_signature_covers_context(self) -> None:
        """What is signed begins with the context, as every signature here does."""
        signed = seal(KIND, b"payload", KEY)
        KEY.public_key().verify(
            signed.signature,
            b"wherry device request 1\0payload",
            ec.ECDSA(SHA256()),
        )

    def test_other_curve(self) -> None:
        """Only P-256 keys sign."""
        with self.assertRaisesRegex(Malformed, "P-256"):
            seal(KIND, b"", ec.generate_private_key(ec.SECP384R1()))
        with self.assertRaisesRegex(Malformed, "P-256"):
            seal(KIND, b"", ec.generate_private_key(ec.SECP256K1()))

    def test_kinds(self) -> None:
        """A kind is words, so that no context can begin another."""
        for kind in ("", " ", "a ", "A", "a\0", "a  b", "a1", "ä"):
            with self.subTest(kind), self.assertRaises(Malformed):
                Signed(kind, b"", spki(KEY.public_key()), b"")


class ParseTests(SynchronousTestCase):
    """Statements of strangers."""

    def setUp(self) -> None:
        """Seal a statement."""
        self.signed = seal(KIND, b"payload", KEY)

    def test_control(self) -> None:
        """The statement that the other tests change is right before they do."""
        self.assertEqual(Signed.parse(_document(self.signed), KIND, LIMIT), self.signed)

    def test_other_payload(self) -> None:
        """A payload that was not signed."""
        with self.assertRaisesRegex(BadSignature, "device request: the signature"):
            Signed.parse(_document(self.signed, payload=_b64(b"other")), KIND, LIMIT)

    def test_other_key(self) -> None:
        """Somebody else's key beside the signature."""
        with self.assertRaises(BadSignature):
            Signed.parse(
                _document(self.signed, key=_b64(spki(OTHER.public_key()))), KIND, LIMIT
            )

    def test_no_signature(self) -> None:
        """Garbage for a signature, of any length that is looked at."""
        for signature in (b"", b"\0" * 72, self.signed.signature[:-1]):
            with self.subTest(signature), self.assertRaises(BadSignature):
                Signed.parse(
                    _document(self.signed, signature=_b64(signature)), KIND, LIMIT
                )

    def test_other_kind(self) -> None:
        """A statement of one kind is never taken for another."""
        with self.assertRaisesRegex(Malformed, "something else"):
            Signed.parse(self.signed.text(), "device bundle", LIMIT)
        with self.assertRaises(BadSignature):
            Signed.parse(
                _document(self.signed, wherry="device bundle 1"), "device bundle", LIMIT
            )

    def test_without_context(self) -> None:
        """A signature of the bare payload, made for another purpose, is no use."""
        bare = KEY.sign(b"payload", ec.ECDSA(SHA256()))
        with self.assertRaises(BadSignature):
            Signed(KIND, b"payload", spki(KEY.public_key()), bare)

    def test_shape(self) -> None:
        """Members that are missing, added, or no canonical base64."""
        for changes in (
            {"payload": None},
            {"key": None},
            {"signature": None},
            {"wherry": None},
            {"wherry": 1},
            {"wherry": "device request 2"},
            {"more": "x"},
            {"payload": 1},
            {"payload": ["x"]},
            {"payload": "é"},
            {"payload": "!"},
            {"payload": "YQ"},
            {"payload": "YR=="},
            {"payload": "Y Q=="},
            {"payload": "YQ==\n"},
            {"key": ""},
            {"key": _b64(b"x" * 500)},
            {"signature": _b64(b"x" * 73)},
        ):
            with self.subTest(changes), self.assertRaises(Malformed):
                Signed.parse(_document(self.signed, **changes), KIND, LIMIT)

    def test_spellings_of_a_key(self) -> None:
        """One key has one spelling, or a node would have two names."""
        public = KEY.public_key()
        der = spki(public)
        compressed = der[:26] + public.public_bytes(
            Encoding.X962, PublicFormat.CompressedPoint
        )
        nowhere = der[:27] + bytes(64)
        for key in (compressed, der + b"\0", der[:-1], nowhere):
            with self.subTest(len(key)), self.assertRaisesRegex(Malformed, "P-256"):
                Signed(KIND, b"payload", key, self.signed.signature)

    def test_limit(self) -> None:
        """The size is looked at first, in text and in bytes."""
        text = self.signed.text()
        self.assertEqual(Signed.parse(text, KIND, len(text)), self.signed)
        for data in (text, text.encode()):
            with self.assertRaisesRegex(Malformed, "longer than"):
                Signed.parse(data, KIND, len(text) - 1)

    def test_deep(self) -> None:
        """Nesting ends in an error, not in the end of the stack."""
        with self.assertRaisesRegex(Malformed, "nested too deep"):
            Signed.parse("[" * 200_000, KIND, 200_000)

    def test_surrogate(self) -> None:
        """Text that has no UTF-8 form."""
        with self.assertRaisesRegex(Malformed, "not Unicode"):
            Signed.parse("\udc80", KIND, LIMIT)

    def test_wrong_type(self) -> None:
        """Neither bytes nor text is a mistake of the program."""
        with self.assertRaises(TypeError):
            Signed.parse(None, KIND, LIMIT)  # type: ignore[arg-type]

    @settings(max_examples=150, deadline=None)
    @given(st.one_of(st.binary(max_size=100), st.text(max_size=100)))
    def test_anything(self, data: bytes | str) -> None:
        """Anything is refused with one of two errors."""
        with self.assertRaises((Malformed, BadSignature)):
            Signed.parse(data, KIND, LIMIT)

    @settings(max_examples=150, deadline=None)
    @given(st.data())
    def test_one_byte_changed(self, data: st.DataObject) -> None:
        """No single changed byte leaves a statement that is still taken."""
        good = _document(SIGNED)
        place = data.draw(st.integers(0, len(good) - 1))
        byte = data.draw(st.integers(0, 255).filter(lambda b: b != good[place]))
        bad = good[:place] + bytes([byte]) + good[place + 1 :]
        try:
            taken = Signed.parse(bad, KIND, LIMIT)
        except (Malformed, BadSignature):
            return
        # White space between members is not signed and says nothing.
        self.assertEqual(taken, SIGNED)


SIGNED = seal(KIND, b"payload", KEY)


class DigestTests(SynchronousTestCase):
    """The name of a statement."""

    def test_malleable_signature(self) -> None:
        """The second valid signature that anybody can make changes no name."""
        r, s = decode_dss_signature(SIGNED.signature)
        twin = Signed(
            KIND,
            SIGNED.payload,
            SIGNED.spki,
            encode_dss_signature(r, P256_ORDER - s),
        )
        self.assertNotEqual(twin.signature, SIGNED.signature)
        self.assertEqual(twin.digest, SIGNED.digest)

    def test_differs(self) -> None:
        """Kind, payload and signer each change it."""
        digests = {
            SIGNED.digest,
            seal("device bundle", b"payload", KEY).digest,
            seal(KIND, b"other", KEY).digest,
            seal(KIND, b"payload", OTHER).digest,
        }
        self.assertEqual(len(digests), 4)

    def test_context(self) -> None:
        """The context ends where no kind can go on."""
        self.assertEqual(context("announcement"), b"wherry announcement 1\0")
