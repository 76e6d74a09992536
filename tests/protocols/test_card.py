"""Tests for protocols.card."""

import traceback

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protocols import base32
from protocols.card import HINTS, LIMIT, Card, distinct, readable
from protocols.errors import Malformed
from protocols.hint import Hint, tcp
from protocols.nodeid import NodeID
from tests.protocols.values import hints, node_ids, readable_names

NODE = NodeID.of_spki(b"key")
SECRET = bytes(range(16))

cards = st.builds(
    Card,
    node_ids,
    st.lists(hints, max_size=5).map(tuple),
    st.none() | st.binary(min_size=16, max_size=16),
    st.none() | readable_names,
    st.none() | st.from_regex(r"[A-Za-z0-9._~-]{1,128}", fullmatch=True),
    st.lists(
        st.tuples(
            st.from_regex(r"x[a-z0-9_-]{0,9}", fullmatch=True),
            st.from_regex(r"[A-Za-z0-9=%?,:/.]{0,20}", fullmatch=True),
        ),
        max_size=3,
        unique_by=lambda pair: pair[0],
    ).map(tuple),
)


class CardTests(SynchronousTestCase):
    """One line that lets others call a node."""

    def test_whole(self) -> None:
        """All parts stand where the format says."""
        card = Card(
            NODE,
            (Hint.parse("tcp:[fe80::1%*]:8443"), tcp("192.168.1.20", 8443)),
            SECRET,
            "Désk & co",
            "open-sesame",
            (("v", "2"),),
        )
        text = (
            f"wherry://{NODE}@tcp:[fe80::1%*]:8443,tcp:192.168.1.20:8443"
            f"?d={base32.encode(SECRET)}&name=D%C3%A9sk%20%26%20co&cap=open-sesame&v=2"
        )
        self.assertEqual(card.text(), text)
        self.assertEqual(Card.parse(text), card)

    def test_bare(self) -> None:
        """A node that can't be called still has a card."""
        self.assertEqual(Card(NODE).text(), f"wherry://{NODE}@")
        self.assertEqual(Card.parse(f"wherry://{NODE}@"), Card(NODE))

    def test_pasted(self) -> None:
        """White space around a card that was copied does no harm."""
        self.assertEqual(Card.parse(f"  wherry://{NODE}@ \r\n"), Card(NODE))

    def test_order_of_parameters(self) -> None:
        """They are read in any order and written in one."""
        parsed = Card.parse(f"wherry://{NODE}@?z=1&cap=c&a=2&name=n")
        self.assertEqual(parsed.extra, (("z", "1"), ("a", "2")))
        self.assertEqual(parsed.text(), f"wherry://{NODE}@?name=n&cap=c&z=1&a=2")

    def test_repeated_hints(self) -> None:
        """A place stands in a card once, however it was spelled."""
        card = Card.parse(f"wherry://{NODE}@tcp:NAS:1,tcp:nas:1,tcp:b:1")
        self.assertEqual(card.hints, (tcp("nas", 1), tcp("b", 1)))

    def test_refused(self) -> None:
        """What is not a card, or could be read in two ways."""
        good = f"wherry://{NODE}@"
        d = base32.encode(SECRET)
        for text in (
            "",
            NODE.text,
            f"https://{NODE}@",
            f"WHERRY://{NODE}@",
            f"wherry://{NODE}",
            f"wherry://{NODE}?name=n",
            f"wherry://{NODE.text.upper()}@",
            f"wherry://{NODE}@tcp:nas:1,",
            f"wherry://{NODE}@,",
            f"wherry://{NODE}@tcp:nas:1 ,tcp:b:1",
            f"wherry://{NODE}@tcp:0.0.0.0:1",
            f"{good}?",
            f"{good}?name",
            f"{good}?=x",
            f"{good}?Name=x",
            f"{good}?name=a&name=a",
            f"{good}?d={d}&d={d}",
            f"{good}?x=1&x=2",
            f"{good}?name=a&",
            f"{good}?d=",
            f"{good}?d={d.upper()}",
            f"{good}?d={d}a",
            f"{good}?d={d[:-1]}b",
            f"{good}?name=",
            f"{good}?name=%4",
            f"{good}?name=%zz",
            f"{good}?name=%ff",
            f"{good}?name=%00",
            f"{good}?name=a%0Ab",
            f"{good}?name=a%E2%80%AEb",
            f"{good}?name={'n' * 65}",
            f"{good}?cap=",
            f"{good}?cap=a%20b",
            f"{good}?cap={'c' * 129}",
            f"{good}?x=a#b",
            f"{good}?x=ä",
            f"{good}?x=a\nb",
            f"{good}?x={'x' * LIMIT}",
        ):
            with self.subTest(text), self.assertRaises(Malformed):
                Card.parse(text)

    def test_many_hints(self) -> None:
        """Sixteen hints pass, seventeen don't."""
        some = [f"tcp:h{number}:1" for number in range(HINTS + 1)]
        self.assertEqual(
            len(Card.parse(f"wherry://{NODE}@{','.join(some[:-1])}").hints), HINTS
        )
        with self.assertRaisesRegex(Malformed, "more than 16"):
            Card.parse(f"wherry://{NODE}@{','.join(some)}")

    def test_made_too_long(self) -> None:
        """A card that nobody could read is not made either."""
        long = tuple(Hint.parse(f"x{n}:" + "a" * 290) for n in range(16))
        with self.assertRaisesRegex(Malformed, "longer than 4096"):
            Card(NODE, long)

    def test_made_wrong(self) -> None:
        """The class itself holds the rules."""
        for make in (
            lambda: Card(NODE, discovery=b"short"),
            lambda: Card(NODE, name="a\nb"),
            lambda: Card(NODE, cap="a&b"),
            lambda: Card(NODE, extra=(("d", "x"),)),
            lambda: Card(NODE, extra=(("x", "1"), ("x", "2"))),
            lambda: Card(NODE, extra=(("X", "1"),)),
            lambda: Card(NODE, extra=(("x", "1&y=2"),)),
        ):
            with self.assertRaises(Malformed):
                make()

    def test_bytes(self) -> None:
        """Bytes are a mistake of the program, not of a peer."""
        with self.assertRaises(TypeError):
            Card.parse(b"wherry://")  # type: ignore[arg-type]

    @settings(max_examples=150, deadline=None)
    @given(cards)
    def test_round_trip(self, card: Card) -> None:
        """A card's text is read back as the same card."""
        self.assertEqual(Card.parse(card.text()), card)

    @settings(max_examples=200, deadline=None)
    @given(
        st.one_of(
            st.text(max_size=80),
            st.builds(
                "wherry://{}@{}{}".format,
                node_ids,
                st.one_of(st.text(max_size=20), hints.map(str)),
                st.one_of(
                    st.just(""),
                    st.text("?&=%dnamecap41\x00é", max_size=30).map("?{}".format),
                ),
            ),
        )
    )
    def test_any_text(self, text: str) -> None:
        """Any text is Malformed, or a card whose own text is stable."""
        try:
            card = Card.parse(text)
        except Malformed as error:
            self.assertTrue(str(error).isprintable())
            return
        self.assertEqual(Card.parse(card.text()), card)


class SecrecyTests(SynchronousTestCase):
    """A card's secrets are shown only by ``text``."""

    def test_shown(self) -> None:
        """Neither str nor repr has a secret, nor what may be one later."""
        card = Card(NODE, (), SECRET, "desk", "open-sesame", (("k", "hunter2"),))
        for shown in (str(card), repr(card), f"{card}"):
            for secret in (
                "open-sesame",
                base32.encode(SECRET),
                repr(SECRET),
                "hunter2",
            ):
                self.assertNotIn(secret, shown)
            self.assertIn("desk", shown)
        # The check can fail: what may show them does.
        self.assertIn("open-sesame", card.text())
        self.assertIn(base32.encode(SECRET), card.text())

    def test_errors(self) -> None:
        """A secret with a typing error stays out of the message and its cause."""
        for query in (
            f"d=hunter2{'-' * 19}",
            "cap=hunter2%",
            "x=hunter2é",
            "d=hunter2&d=hunter2",
        ):
            with self.subTest(query):
                with self.assertRaises(Malformed) as caught:
                    Card.parse(f"wherry://{NODE}@?{query}")
                shown = "".join(traceback.format_exception(caught.exception))
                self.assertIn("Malformed", shown)
                self.assertNotIn("hunter2", shown)
        # The check can fail: the error below it quotes what it was given.
        with self.assertRaisesRegex(Malformed, "hunter2"):
            base32.decode("hunter2" + "-" * 19, 16)


class ReadableTests(SynchronousTestCase):
    """Names that people see."""

    def test_taken(self) -> None:
        """Names in any script."""
        for name in ("desk", "Ümläut's NAS", "机", "नमस्ते", "a b", "🚣", "x" * 64):
            with self.subTest(name):
                self.assertEqual(readable(name), name)

    def test_refused(self) -> None:
        """Names that would break a line, turn it around, or not be seen."""
        for name in (
            "",
            "x" * 65,
            " a",
            "a ",
            "a\n",
            "a\x1b[31m",
            "a\u202eb",
            "a\u2066b",
            "a\u200bb",
            "a\u2028b",
            "\ufeffa",
            "\u0301",
            "\ud800",
            "\ue000",
        ):
            with self.subTest(ascii(name)), self.assertRaises(Malformed) as caught:
                readable(name)
            self.assertTrue(str(caught.exception).isprintable())

    def test_bytes(self) -> None:
        """Bytes are a mistake of the program, not of a peer."""
        with self.assertRaises(TypeError):
            readable(b"desk")  # type: ignore[arg-type]


class DistinctTests(SynchronousTestCase):
    """Each hint once."""

    def test_order(self) -> None:
        """The first of equal ones keeps its place."""
        a, b = tcp("a", 1), tcp("b", 1)
        self.assertEqual(distinct([b, a, b], "card"), (b, a))
