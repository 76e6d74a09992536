"""Tests for protocols.strictjson."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protocols.errors import Malformed
from protocols.strictjson import read_object


class ReadObjectTests(SynchronousTestCase):
    """One JSON object from a stranger."""

    def test_object(self) -> None:
        """An object is read."""
        self.assertEqual(
            read_object(b'{"a": [1, "x", null]}', 100, "x"), {"a": [1, "x", None]}
        )

    def test_refused(self) -> None:
        """What is no object, or what two readers would take differently."""
        for data, why in {
            b"": "not JSON",
            b"[]": "not a JSON object",
            b"1": "not a JSON object",
            b"{}{}": "not JSON",
            b"\xff{}": "not JSON",
            b"\xef\xbb\xbf{}": "not JSON",
            '{"a": 1}'.encode("utf-16"): "not JSON",
            b'{"a": 1, "a": 2}': "a key twice",
            b'{"a": {"b": 1, "b": 1}}': "a key twice",
            b'{"a": NaN}': "a number that JSON does not know",
            b'{"a": -Infinity}': "a number that JSON does not know",
            b'{"a": ' + b"9" * 5000 + b"}": "not JSON",
            b"[" * 9999: "nested too deep",
            b'{"a":' * 1999: "nested too deep",
        }.items():
            with self.subTest(data[:20]), self.assertRaisesRegex(Malformed, why):
                read_object(data, 10_000, "document")

    def test_limit(self) -> None:
        """The size is looked at before anything else."""
        self.assertEqual(read_object(b"{}" + b" " * 8, 10, "x"), {})
        with self.assertRaisesRegex(Malformed, "longer than 10 bytes"):
            read_object(b"[" * 11, 10, "x")

    def test_str(self) -> None:
        """Text is a mistake of the program, not of a peer."""
        with self.assertRaises(TypeError):
            read_object("{}", 10, "x")  # type: ignore[arg-type]

    @settings(max_examples=150, deadline=None)
    @given(st.one_of(st.binary(max_size=60), st.text('{}[]":,a1e\\u \n', max_size=40)))
    def test_anything(self, data: bytes | str) -> None:
        """Anything is Malformed or what the standard library reads."""
        raw = data.encode("utf-8") if isinstance(data, str) else data
        try:
            document = read_object(raw, 1000, "x")
        except Malformed:
            return
        self.assertEqual(document, json.loads(raw))
