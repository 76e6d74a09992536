"""Tests of plain DNS names."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protocols.dnsname import check_name
from protocols.errors import Malformed


class CheckNameTests(SynchronousTestCase):
    """Which names a certificate may carry."""

    def test_taken(self) -> None:
        """Names come out in lower case."""
        for text, name in [
            ("files.example.org", "files.example.org"),
            ("NAS", "nas"),
            ("a-1.b", "a-1.b"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("notwherry.internal", "notwherry.internal"),
        ]:
            self.assertEqual(check_name(text), name)

    def test_refused(self) -> None:
        """No wildcards, addresses, or names that Wherry uses itself."""
        for text in [
            "",
            ".",
            "a..b",
            "a.",
            "*.example.org",
            "-a.b",
            "a-.b",
            "bücher.example",
            "a_b",
            "10.0.0.1",
            "::1",
            "a" * 64,
            ".".join(["a" * 60] * 5),
            "wherry.internal",
            "X.Wherry.Internal",
            "a\n",
        ]:
            self.assertRaises(Malformed, check_name, text)

    @settings(max_examples=100, deadline=None)
    @given(st.text(alphabet="aZ0.-_*ü\n ", max_size=20))
    def test_anything(self, text: str) -> None:
        """What is taken once is taken again as it came out."""
        try:
            name = check_name(text)
        except Malformed:
            return
        self.assertEqual(check_name(name), name)
