"""Tests of request targets."""

from urllib.parse import quote, urlencode

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protocols.errors import Malformed
from protocols.target import LIMIT, Target, parse_target

_PLAIN = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\"),
    min_size=1,
    max_size=20,
).filter(lambda text: text not in (".", ".."))


class TargetTests(SynchronousTestCase):
    """`parse_target` gives decoded parts, or refuses."""

    def test_good(self) -> None:
        """Paths and queries come apart and are decoded once."""
        for raw, segments, query in (
            (b"/", ("",), ()),
            (b"/files/", ("files", ""), ()),
            (b"/files/abc/leaves", ("files", "abc", "leaves"), ()),
            (b"/%66iles/a%20b", ("files", "a b"), ()),
            (b"/a+b", ("a+b",), ()),
            (b"/%2561", ("%61",), ()),
            (b"/...", ("...",), ()),
            (b"/caf%C3%A9", ("café",), ()),
            (b"/?", ("",), ()),
            (
                b"/f/?name=a%2Fb/c&x=1+2%2B",
                ("f", ""),
                (("name", "a/b/c"), ("x", "1 2+")),
            ),
            (b"/?a=", ("",), (("a", ""),)),
            (b"/?a=b=c?d", ("",), (("a", "b=c?d"),)),
        ):
            self.assertEqual(parse_target(raw), Target(segments, query), raw)

    def test_bad(self) -> None:
        """Whatever could mean another place is refused."""
        for raw in (
            b"",
            b"*",
            b"files/",
            b"http://peer/files/",
            b"peer:443",
            b"//",
            b"//files/",
            b"/files//x",
            b"/files/../x",
            b"/..",
            b"/.",
            b"/files/.",
            b"/%2e%2e/x",
            b"/%2E./x",
            b"/.%2e",
            b"/a%2fb",
            b"/a%5Cb",
            b"/a\\b",
            b"/a%00",
            b"/a\x00",
            b"/a%0d%0a",
            b"/a%7f",
            b"/a%C2%85",
            b"/a b",
            b"/a%",
            b"/a%4",
            b"/a%zz",
            b"/a%u0041",
            b"/%ff",
            b"/%c0%ae%c0%ae/",
            b"/%ed%a0%80",
            b"/caf\xc3\xa9",
            b"/a#b",
            b"/?a=1&a=2",
            b"/?a=1&%61=2",
            b"/?a",
            b"/?=a",
            b"/?a=1&",
            b"/?a=%00",
            b"/?a=%ff",
            b"/?a=%",
            b"/?a=1#b",
            b"/" + b"a" * LIMIT,
        ):
            error = self.assertRaises(Malformed, parse_target, raw)
            self.assertLess(len(str(error)), 100)

    @settings(deadline=None, max_examples=150)
    @given(
        st.lists(_PLAIN, max_size=4),
        _PLAIN | st.just(""),
        st.dictionaries(_PLAIN, _PLAIN | st.just(""), max_size=3),
    )
    def test_what_was_encoded_comes_back(
        self, inner: list[str], last: str, query: dict[str, str]
    ) -> None:
        """Parts that were encoded in the usual ways are what is decided on."""
        path = "/" + "/".join(quote(part, safe="") for part in [*inner, last])
        raw = f"{path}?{urlencode(query)}" if query else path
        expected = Target((*inner, last), tuple(query.items()))
        self.assertEqual(parse_target(raw.encode()), expected)

    @settings(deadline=None, max_examples=300)
    @given(
        st.binary(max_size=60).map(lambda data: b"/" + data)
        | st.lists(
            st.sampled_from(
                [b"/", b".", b"%2e", b"%2f", b"%", b"a", b"?", b"&", b"=", b"%00"]
            )
        ).map(b"".join)
    )
    def test_nothing_else_comes_out(self, raw: bytes) -> None:
        """Any bytes give safe parts or `Malformed`."""
        try:
            target = parse_target(raw)
        except Malformed:
            return
        self.assertNotIn("", target.segments[:-1])
        for segment in target.segments:
            self.assertNotIn(segment, (".", ".."))
            self.assertFalse(set(segment) & set("/\\\0\r\n"))
        keys = [key for key, _ in target.query]
        self.assertEqual(len(keys), len(set(keys)))
