"""Tests for protocols.nodeid."""

import hashlib

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protocols import base32
from protocols.errors import Malformed
from protocols.nodeid import NodeID, spki


class NodeIDTests(SynchronousTestCase):
    """Names that prove themselves."""

    def test_of_key(self) -> None:
        """The id is the SHA-256 of the key's SubjectPublicKeyInfo."""
        public = ec.generate_private_key(ec.SECP256R1()).public_key()
        der = spki(public)
        node = NodeID.of_key(public)
        self.assertEqual(node, NodeID.of_spki(der))
        self.assertEqual(node.digest, hashlib.sha256(der).digest())
        self.assertEqual(load_der_public_key(der), public)

    def test_text(self) -> None:
        """It has 52 characters, and a short form for people."""
        node = NodeID.of_spki(b"key")
        self.assertEqual(len(node.text), 52)
        self.assertEqual(str(node), node.text)
        self.assertEqual(node.short, node.text[:7] + "…")

    @settings(max_examples=100, deadline=None)
    @given(st.binary(min_size=32, max_size=32))
    def test_round_trip(self, digest: bytes) -> None:
        """Any digest has an id, and equal ids are equal texts."""
        node = NodeID(base32.encode(digest))
        self.assertEqual(node.digest, digest)
        self.assertEqual(node, NodeID(node.text))
        self.assertEqual(hash(node), hash(NodeID(node.text)))

    @settings(max_examples=200, deadline=None)
    @given(
        st.one_of(
            st.text(max_size=60),
            st.text("abcdefghijklmnopqrstuvwxyz234567A=0", min_size=52, max_size=52),
        )
    )
    def test_any_text(self, text: str) -> None:
        """Any text is refused as Malformed or is the one spelling."""
        try:
            node = NodeID(text)
        except Malformed:
            return
        self.assertEqual(base32.encode(node.digest), text)

    def test_other_spellings(self) -> None:
        """Upper case, padding and spare bits make no second name for a node."""
        text = base32.encode(bytes(32))
        for other in (text.upper(), text + "====", text[:-1] + "b", " " + text):
            with self.subTest(other), self.assertRaises(Malformed):
                NodeID(other)

    def test_bytes(self) -> None:
        """Bytes are a mistake of the program, not of a peer."""
        with self.assertRaises(TypeError):
            NodeID(b"a" * 52)  # type: ignore[arg-type]
