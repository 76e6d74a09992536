"""Tests for protocols.announcement."""

import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protocols.announcement import (
    DAY,
    LIFETIME,
    LIMIT,
    Announcement,
    announce,
    next_sequence,
)
from protocols.errors import Malformed
from protocols.hint import Hint, tcp
from protocols.nodeid import NodeID
from protocols.signed import BadSignature, seal
from tests.protocols.values import hints, readable_names

KEY = ec.generate_private_key(ec.SECP256R1())
NODE = NodeID.of_key(KEY.public_key())
NOW = 1_800_000_000.5
SEQUENCE = int(NOW)
END = int(NOW) + 30 * DAY


def _sealed(**changes: object) -> bytes:
    """Sign what ``announce`` would never state; None takes a member out."""
    stated: dict[str, Any] = {
        "hints": ["tcp:example.org:8443"],
        "services": ["files"],
        "sequence": SEQUENCE,
        "end": END,
    } | changes
    payload = json.dumps({k: v for k, v in stated.items() if v is not None})
    return seal("announcement", payload.encode(), KEY).text().encode()


class AnnounceTests(SynchronousTestCase):
    """A node's own statement."""

    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(hints, max_size=8),
        st.lists(st.sampled_from(["files", "couch", "introducer"]), unique=True),
        st.none() | readable_names,
    )
    def test_round_trip(
        self, places: list[Hint], services: list[str], name: str | None
    ) -> None:
        """What a node states is what others read."""
        stated = announce(KEY, places, services, SEQUENCE, END, name)
        read = Announcement.parse(stated.signed.text().encode(), NOW)
        self.assertEqual(read, stated)
        self.assertEqual(read.node, NODE)
        self.assertEqual((read.services, read.name), (tuple(services), name))

    def test_only_open_places(self) -> None:
        """The network at home is nobody's business."""
        kept = [
            tcp("example.org", 1),
            tcp("2001:db8::1", 1),
            Hint.parse("tor:abc.onion:1"),
            Hint.parse(f"via:{NODE}"),
        ]
        closed = [
            tcp("10.0.0.1", 1),
            tcp("nas", 1),
            tcp("::1", 1),
            tcp("fe80::1", 1, "*"),
            Hint.parse("quic:10.0.0.1:1"),
        ]
        stated = announce(KEY, [*closed, *kept], [], SEQUENCE, END)
        self.assertEqual(stated.hints, tuple(kept))
        for hint in closed:
            self.assertNotIn(hint.text.encode(), stated.signed.payload)

    def test_no_name(self) -> None:
        """A name is stated only if there is one to publish."""
        stated = announce(KEY, [], [], SEQUENCE, END)
        self.assertNotIn(b"name", stated.signed.payload)

    def test_bad_name(self) -> None:
        """A name that others would refuse is not signed for them."""
        with self.assertRaisesRegex(Malformed, "can't be shown"):
            announce(KEY, [], [], SEQUENCE, END, "a\u202eb")


class ParseTests(SynchronousTestCase):
    """Statements of others."""

    def test_control(self) -> None:
        """What the other tests change is right before they do."""
        self.assertEqual(
            Announcement.parse(_sealed(), NOW).hints, (tcp("example.org", 8443),)
        )

    def test_reasons(self) -> None:
        """Each thing that can be wrong has a reason of its own."""
        seventeen = [f"tcp:h{n}.example:1" for n in range(17)]
        for changes, why in (
            ({"end": int(NOW)}, "it has expired"),
            ({"end": int(NOW + LIFETIME + DAY) + 1}, "more than 30 days ahead"),
            ({"sequence": int(NOW + DAY) + 1}, "more than a day ahead"),
            ({"hints": seventeen}, "more than 16 hints"),
            ({"hints": ["tcp:h:0"]}, "no port"),
            ({"hints": ["tcp:0.0.0.0:1"]}, "unspecified"),
            ({"hints": [1]}, "hints must be texts"),
            ({"hints": "tcp:h:1"}, "hints must be a list"),
            ({"hints": None}, "hints must be a list"),
            ({"services": ["a b"]}, "not a service"),
            ({"services": ["s"] * 33}, "more than 32 services"),
            ({"services": {}}, "services must be a list"),
            ({"sequence": -1}, "sequence must be"),
            ({"sequence": True}, "sequence must be"),
            ({"sequence": 1.5}, "sequence must be"),
            ({"sequence": None}, "sequence must be"),
            ({"end": "soon"}, "end must be"),
            ({"end": 2**60}, "end must be"),
            ({"name": 1}, "name must be text"),
            ({"name": ""}, "1 to 64"),
            ({"name": "a\nb"}, "can't be shown"),
            ({"name": "\ud800"}, "can't be shown"),
        ):
            with self.subTest(changes), self.assertRaisesRegex(Malformed, why):
                Announcement.parse(_sealed(**changes), NOW)

    def test_edges_of_time(self) -> None:
        """One second inside each limit is inside."""
        for changes in (
            {"end": int(NOW) + 1},
            {"end": int(NOW + LIFETIME + DAY)},
            {"sequence": int(NOW + DAY)},
            {"sequence": 0},
        ):
            with self.subTest(changes):
                Announcement.parse(_sealed(**changes), NOW)

    def test_later_version(self) -> None:
        """Members and kinds of hints to come are kept in the signed bytes."""
        data = _sealed(colour="blue", hints=["quic:x:1", "tcp:h.example:1"])
        read = Announcement.parse(data, NOW)
        self.assertEqual([hint.kind for hint in read.hints], ["quic", "tcp"])
        self.assertIn(b'"colour": "blue"', read.signed.payload)
        self.assertEqual(read.signed.text().encode(), data)

    def test_private_places_are_told(self) -> None:
        """They are read, so that whoever decides on them can say so."""
        read = Announcement.parse(_sealed(hints=["tcp:10.0.0.1:1"]), NOW)
        self.assertEqual(read.hints[0].route_kind, "lan")

    def test_repeated(self) -> None:
        """A place or service that is named twice counts once."""
        read = Announcement.parse(
            _sealed(hints=["tcp:A.example:1", "tcp:a.example:1"], services=["f", "f"]),
            NOW,
        )
        self.assertEqual(len(read.hints), 1)
        self.assertEqual(read.services, ("f",))

    def test_forged(self) -> None:
        """A statement in another node's name."""
        document = json.loads(_sealed())
        other = ec.generate_private_key(ec.SECP256R1())
        document["signature"] = json.loads(
            announce(other, [], [], SEQUENCE, END).signed.text()
        )["signature"]
        with self.assertRaises(BadSignature):
            Announcement.parse(json.dumps(document).encode(), NOW)

    def test_payloads(self) -> None:
        """A signed payload is no safer to read than one that is not signed."""
        for payload in (b"", b"[]", b"\xff", b"[" * 40_000, b'{"end":1,"end":2}'):
            with self.subTest(payload[:9]), self.assertRaises(Malformed):
                Announcement.parse(
                    seal("announcement", payload, KEY).text().encode(), NOW
                )

    def test_size(self) -> None:
        """More than 64 KiB is not looked at."""
        with self.assertRaisesRegex(Malformed, "longer than 65536"):
            Announcement.parse(_sealed(colour="b" * LIMIT), NOW)

    def test_str(self) -> None:
        """Text is a mistake of the program, not of a peer."""
        with self.assertRaises(TypeError):
            Announcement.parse("{}", NOW)  # type: ignore[arg-type]

    @settings(max_examples=60, deadline=None)
    @given(
        st.dictionaries(
            st.sampled_from(["hints", "services", "sequence", "end", "name", "x"]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
                max_leaves=5,
            ),
        )
    )
    def test_any_payload(self, changes: dict[str, object]) -> None:
        """Any signed JSON is an announcement or Malformed."""
        try:
            read = Announcement.parse(_sealed(**changes), NOW)
        except Malformed:
            return
        self.assertEqual(read.node, NODE)

    @settings(max_examples=60, deadline=None)
    @given(st.binary(max_size=80))
    def test_anything(self, data: bytes) -> None:
        """Any bytes are refused with one of two errors."""
        with self.assertRaises((Malformed, BadSignature)):
            Announcement.parse(data, NOW)


class NextSequenceTests(SynchronousTestCase):
    """Numbers that only grow."""

    def test_grows(self) -> None:
        """By one at least, and with the clock."""
        self.assertEqual(next_sequence(None, 1000.9), 1000)
        self.assertEqual(next_sequence(10, 1000.9), 1000)
        self.assertEqual(next_sequence(1000, 1000.9), 1001)
        self.assertEqual(next_sequence(5000, 1000.9), 5001)
