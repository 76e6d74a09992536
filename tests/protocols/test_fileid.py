"""Tests of protocols.fileid."""

from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protocols import base32
from protocols.errors import Malformed
from protocols.fileid import (
    HASH_SIZE,
    LEAF_SIZE,
    MAX_SIZE,
    FileID,
    Leaves,
    WrongLeaves,
    leaf_hash,
    zero_leaf_hash,
)


def leaves_of(content: bytes) -> Leaves:
    """Hash content the plain way."""
    starts = range(0, len(content), LEAF_SIZE)
    hashes = [leaf_hash(content[start : start + LEAF_SIZE]) for start in starts]
    return Leaves(len(content), b"".join(hashes))


class FileIDTests(SynchronousTestCase):
    """Ids have one spelling and say what content is."""

    def test_definition(self) -> None:
        """The id is the root hash over size and leaf hashes, spelled in base32."""
        content = b"x" * (LEAF_SIZE + 1)
        leaf = blake3(derive_key_context="wherry file leaf 1")
        first, second = leaf.copy(), leaf.copy()
        first.update(content[:LEAF_SIZE])
        second.update(b"x")
        root = blake3(derive_key_context="wherry file root 1")
        root.update(len(content).to_bytes(8, "big"))
        root.update(first.digest() + second.digest())
        expected = base32.encode(root.digest())
        self.assertEqual(leaves_of(content).id.text, expected)
        self.assertEqual(len(expected), 52)

    def test_frozen_vectors(self) -> None:
        """Ids never change: these were written down once."""
        known = {
            b"": "37suofr4dudlnumq53dsi3m2iirlr2ex5fieqvbvgkhz254bipbq",
            b"a": "jyctav3ltncl4fopbpzijepvmph6l27uoskr4hcmod4lf6o2dg3q",
            bytes(LEAF_SIZE): "63s2b52nvjh2sgzbkgnvqe2xaz7ooqygxkp6pqw4o53lusuqbazq",
        }
        for content, text in known.items():
            self.assertEqual(leaves_of(content).id.text, text)

    def test_round_trip(self) -> None:
        """Digest to text and back."""
        id = FileID.of_digest(bytes(range(32)))
        self.assertEqual(FileID(id.text).digest, bytes(range(32)))
        self.assertEqual(str(id), id.text)
        self.assertTrue(id.text.startswith(id.short[:-1]))

    def test_other_spellings_refused(self) -> None:
        """Upper case, padding and spare bits are other spellings."""
        text = FileID.of_digest(bytes(32)).text
        for wrong in (text.upper(), text + "=", text[:-1] + "b", text[:-1], ""):
            self.assertRaises(Malformed, FileID, wrong)

    def test_zero_leaf(self) -> None:
        """The hash of a hole is the hash of its zeros."""
        for length in (1, 4096, LEAF_SIZE):
            self.assertEqual(zero_leaf_hash(length), leaf_hash(bytes(length)))


class LeavesTests(SynchronousTestCase):
    """Lists of leaf hashes prove themselves by the id."""

    def test_round_trip(self) -> None:
        """What is encoded is parsed again, for all interesting sizes."""
        for size in (0, 1, LEAF_SIZE - 1, LEAF_SIZE, LEAF_SIZE + 1, 3 * LEAF_SIZE):
            leaves = leaves_of(b"q" * size)
            self.assertEqual(Leaves.parse(leaves.encode(), leaves.id), leaves)

    def test_spans(self) -> None:
        """Each leaf has its place, the last one is short."""
        leaves = leaves_of(b"q" * (2 * LEAF_SIZE + 5))
        self.assertEqual(leaves.count, 3)
        self.assertEqual(leaves.span(0), (0, LEAF_SIZE))
        self.assertEqual(leaves.span(2), (2 * LEAF_SIZE, 2 * LEAF_SIZE + 5))
        self.assertEqual(leaves.leaf(2), leaf_hash(b"q" * 5))
        for outside in (-1, 3):
            self.assertRaises(IndexError, leaves.leaf, outside)
            self.assertRaises(IndexError, leaves.span, outside)

    def test_empty(self) -> None:
        """An empty file has no leaf and is a file all the same."""
        leaves = leaves_of(b"")
        self.assertEqual((leaves.count, leaves.encode()), (0, bytes(8)))

    def test_other_file(self) -> None:
        """A well-formed list of another file is refused."""
        wrong = leaves_of(b"other").encode()
        self.assertRaises(WrongLeaves, Leaves.parse, wrong, leaves_of(b"this").id)

    def test_one_bit(self) -> None:
        """One wrong bit anywhere is noticed, in the size too."""
        leaves = leaves_of(b"q" * (LEAF_SIZE + 5))
        good = leaves.encode()
        for bit in range(0, len(good) * 8, 7):
            bad = bytearray(good)
            bad[bit // 8] ^= 1 << bit % 8
            with self.assertRaises((Malformed, WrongLeaves)):
                Leaves.parse(bytes(bad), leaves.id)

    def test_shape(self) -> None:
        """Sizes and numbers of hashes that don't fit are refused at once."""
        for size, hashes in (
            (-1, b""),
            (0, bytes(HASH_SIZE)),
            (1, b""),
            (LEAF_SIZE, bytes(2 * HASH_SIZE)),
            (1, bytes(HASH_SIZE - 1)),
            (MAX_SIZE + 1, b""),
            ((1 << 64) - 1, b""),
        ):
            self.assertRaises(Malformed, Leaves, size, hashes)

    @settings(deadline=None, max_examples=200)
    @given(st.binary(max_size=200))
    def test_any_bytes(self, data: bytes) -> None:
        """Nothing but its own list passes for an id, and nothing else is raised."""
        id = leaves_of(b"this").id
        try:
            leaves = Leaves.parse(data, id)
        except (Malformed, WrongLeaves):
            return
        self.assertEqual(leaves.id, id)
