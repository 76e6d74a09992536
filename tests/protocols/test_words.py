"""Tests for protocols.words."""

import hashlib
from unittest.mock import patch

from mnemonic import Mnemonic
from twisted.trial.unittest import SynchronousTestCase

from protocols.words import three_words


class ThreeWordsTests(SynchronousTestCase):
    """Words for two people to compare."""

    def test_fixed(self) -> None:
        """Two versions of Wherry must show the same words for one hash."""
        self.assertEqual(three_words(b"x" * 32), "play wild simple")
        self.assertEqual(three_words(b"y" * 32), "mind credit music")

    def test_thirty_three_bits(self) -> None:
        """Each of the first 33 bits of the stretched hash counts, no other does."""
        words = Mnemonic("english").wordlist
        seen = set()
        for bit in range(40):
            stretched = (1 << 39 - bit).to_bytes(5, "big")
            with patch.object(hashlib, "scrypt", return_value=stretched):
                seen.add(three_words(b""))
        self.assertEqual(len(seen), 34)
        self.assertIn(" ".join([words[0]] * 3), seen)
        self.assertIn(f"{words[1024]} {words[0]} {words[0]}", seen)
        self.assertIn(f"{words[0]} {words[0]} {words[1]}", seen)

    def test_stretched(self) -> None:
        """A try costs 32 MiB: a cheaper call would make other words."""
        calls = []
        scrypt = hashlib.scrypt

        def spy(digest: bytes, **options: int) -> bytes:
            calls.append(options)
            return scrypt(digest, **options)  # type: ignore[arg-type]

        with patch.object(hashlib, "scrypt", spy):
            three_words(b"x" * 32)
        (options,) = calls
        self.assertEqual(128 * options["n"] * options["r"], 32 * 2**20)
