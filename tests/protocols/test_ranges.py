"""Tests of protocols.ranges."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protocols.ranges import Part, Unsatisfiable, Whole, parse_range


class ParseRangeTests(SynchronousTestCase):
    """RFC 9110, section 14."""

    def test_parts(self) -> None:
        """Single and suffix ranges of 1000 bytes."""
        for header, start, stop in (
            ("bytes=0-0", 0, 1),
            ("bytes=0-499", 0, 500),
            ("bytes=500-999", 500, 1000),
            ("bytes=999-", 999, 1000),
            ("bytes=0-", 0, 1000),
            ("bytes=500-123456", 500, 1000),
            ("bytes=-1", 999, 1000),
            ("bytes=-1000", 0, 1000),
            ("bytes=-5000", 0, 1000),
            ("Bytes= 1-2\t", 1, 3),
        ):
            self.assertEqual(parse_range(header, 1000), Part(start, stop), header)

    def test_unsatisfiable(self) -> None:
        """Well-formed, but with nothing in it."""
        for header in ("bytes=1000-", "bytes=1000-2000", "bytes=-0"):
            self.assertEqual(parse_range(header, 1000), Unsatisfiable(), header)
        self.assertEqual(parse_range("bytes=0-", 0), Unsatisfiable())

    def test_ignored(self) -> None:
        """No range, several ones, other units and nonsense: the whole."""
        for header in (
            None,
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=--1",
            "bytes=5-4",
            "bytes=0-1,3-4",
            "bytes=0-1,",
            "bytes=+1-2",
            "bytes=1_0-20",
            "bytes=٣-٤",
            "bytes=0x1-2",
            "bytes=1 - 2",
            "bytes=1-2\n",
            "bytes =1-2",
            "lines=1-2",
            "bytes=" + "9" * 5000 + "-",
        ):
            self.assertEqual(parse_range(header, 1000), Whole(), header)
        self.assertEqual(parse_range("bytes=-5", 0), Whole())

    def test_content_range(self) -> None:
        """The header of the answer counts the last byte in."""
        self.assertEqual(Part(10, 20).content_range(1000), "bytes 10-19/1000")
        self.assertEqual(Part(10, 20).length, 10)

    @settings(deadline=None, max_examples=300)
    @given(
        st.one_of(
            st.text(max_size=40),
            st.from_regex(r"bytes=[0-9]{0,22}-[0-9]{0,22}", fullmatch=True),
        ),
        st.integers(0, 1 << 41),
    )
    def test_anything(self, header: str, size: int) -> None:
        """Whatever comes, a part lies inside the file and isn't empty."""
        decided = parse_range(header, size)
        if isinstance(decided, Part):
            self.assertTrue(0 <= decided.start < decided.stop <= size)
