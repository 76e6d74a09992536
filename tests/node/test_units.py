"""Tests of node.units."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from node.units import size, span, table


class UnitsTests(SynchronousTestCase):
    """Sizes, spans and tables as people read them."""

    def test_sizes(self) -> None:
        """Decimal units, with two digits or more."""
        for count, text in (
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (99_949, "99.9 kB"),
            (100_000, "100 kB"),
            (999_499, "999 kB"),
            (999_500, "1.0 MB"),
            (4_000_000_000, "4.0 GB"),
            (1_200_000_000_000, "1.2 TB"),
            (5_000_000_000_000_000, "5000 TB"),
        ):
            self.assertEqual(size(count), text)

    def test_spans(self) -> None:
        """The largest unit that fits."""
        for seconds, text in (
            (0.0003, "0.3 ms"),
            (0.0121, "12 ms"),
            (0.9999, "1.0 s"),
            (1.23, "1.2 s"),
            (41, "41 s"),
            (150, "2 min"),
            (7300, "2 h"),
            (86400 * 12, "12 d"),
        ):
            self.assertEqual(span(seconds), text)

    @given(st.floats(0, 1e17), st.floats(0, 1e9))
    def test_short(self, count: float, seconds: float) -> None:
        """No number becomes wider than its column."""
        self.assertLessEqual(len(size(count)), 9)
        self.assertLessEqual(len(span(seconds)), 8)

    def test_table(self) -> None:
        """Columns line up; the last one is not padded."""
        self.assertEqual(table([["A", "BB"], ["ccc", "d"]]), "A    BB\nccc  d")
        self.assertEqual(table([]), "")
