"""Tests for protocols.base32."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protocols import base32
from protocols.errors import Malformed


class Base32Tests(SynchronousTestCase):
    """One spelling for each string of bytes."""

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=64))
    def test_round_trip(self, data: bytes) -> None:
        """What was spelled is read back, and has the length foretold."""
        text = base32.encode(data)
        self.assertEqual(len(text), base32.length(len(data)))
        self.assertEqual(base32.decode(text, len(data)), data)

    @settings(max_examples=200, deadline=None)
    @given(
        st.one_of(
            st.text(max_size=60),
            st.text("abcdefghijklmnopqrstuvwxyz234567A=018 ", min_size=26, max_size=26),
        )
    )
    def test_any_text(self, text: str) -> None:
        """Any text is refused as Malformed or is the one spelling of its bytes."""
        try:
            data = base32.decode(text, 16)
        except Malformed:
            return
        self.assertEqual(base32.encode(data), text)

    def test_spare_bits(self) -> None:
        """The unused low bits of the last character must be zero."""
        self.assertEqual(base32.decode("a" * 26, 16), bytes(16))
        with self.assertRaisesRegex(Malformed, "canonically"):
            base32.decode("a" * 25 + "b", 16)

    def test_upper_case(self) -> None:
        """The other case is another spelling."""
        with self.assertRaises(Malformed):
            base32.decode("A" * 26, 16)

    def test_bytes(self) -> None:
        """Bytes are a mistake of the program, not of a peer."""
        with self.assertRaises(TypeError):
            base32.decode(b"a" * 26, 16)  # type: ignore[arg-type]
