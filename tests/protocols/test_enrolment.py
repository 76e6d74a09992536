"""Tests of what two devices of one user say to each other."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protocols import certificates
from protocols.card import Card
from protocols.enrolment import (
    BUNDLE_LIMIT,
    CARDS,
    REQUEST_LIMIT,
    DeviceBundle,
    DeviceRequest,
)
from protocols.errors import Malformed, ProtocolError
from protocols.hint import Hint
from protocols.nodeid import NodeID
from protocols.signed import BadSignature, Signed, seal

NOW = 1_790_000_000.0
SERVER, DEVICE, USER, OTHER = (certificates.new_key() for _ in range(4))
NODE = NodeID.of_key(SERVER.public_key())
CARD = Card(NODE, (Hint.parse("tcp:10.0.0.1:8443"),), b"d" * 16, "laptop")
USER_CA = certificates.user_ca(USER, NOW)
DEVICE_CA = certificates.device_ca(DEVICE.public_key(), NODE, [], USER_CA, USER, NOW)


def requested() -> DeviceRequest:
    """Make a request that is in order."""
    return DeviceRequest.make(CARD, ["a.test"], SERVER, DEVICE, NOW)


def bundled() -> DeviceBundle:
    """Make a bundle that is in order."""
    cards = [("desk", Card(NodeID.of_spki(b"desk"), name="Desk"))]
    return DeviceBundle.make(requested(), DEVICE_CA, USER_CA, cards, USER)


def resealed(signed: Signed, key: certificates.Key, **changes: Any) -> str:
    """Change a statement's payload and sign it anew."""
    stated = json.loads(signed.payload) | changes
    return seal(signed.kind, json.dumps(stated).encode(), key).text()


class DeviceRequestTests(SynchronousTestCase):
    """The new device's request."""

    def test_round_trip(self) -> None:
        """What was made is read, with white space that carrying it adds."""
        made = requested()
        read = DeviceRequest.parse(f"\n {made.signed.text()}\r\n")
        self.assertEqual((read.card, read.names), (CARD, ("a.test",)))
        self.assertEqual(read.device_key, DEVICE.public_key())
        self.assertEqual(read.signed.digest, made.signed.digest)

    def test_same(self) -> None:
        """Two requests for the same are recognised, others told apart."""
        one = requested()
        later = DeviceRequest.make(CARD, ["a.test"], SERVER, DEVICE, NOW + 60)
        self.assertTrue(one.asks_for_the_same_as(later))
        self.assertNotEqual(one.signed.digest, later.signed.digest)
        for other in (
            DeviceRequest.make(CARD, [], SERVER, DEVICE, NOW),
            DeviceRequest.make(CARD, ["a.test"], SERVER, OTHER, NOW),
            DeviceRequest.make(Card(NODE), ["a.test"], SERVER, DEVICE, NOW),
        ):
            self.assertFalse(one.asks_for_the_same_as(other))

    def test_for_another_node(self) -> None:
        """Nobody asks in the name of a card that is not theirs."""
        made = requested().signed
        self.assertRaises(BadSignature, DeviceRequest.parse, resealed(made, OTHER))

    def test_without_the_device_key(self) -> None:
        """The proof of the device key is for this node alone."""
        made = requested().signed
        foreign = seal("device key", b"x" * 32, DEVICE).text()
        for text in (foreign, seal("other", NODE.digest, DEVICE).text()):
            self.assertRaises(
                ProtocolError, DeviceRequest.parse, resealed(made, SERVER, device=text)
            )
        again = seal("device key", NODE.digest, DEVICE).text()
        DeviceRequest.parse(resealed(made, SERVER, device=again))

    def test_wrong(self) -> None:
        """Each field has one shape."""
        made = requested().signed
        wrong: list[dict[str, Any]] = [
            {"card": 5},
            {"card": "wherry://x@"},
            {"device": None},
            {"device": "{}"},
            {"names": "a.test"},
            {"names": [1]},
            {"names": ["*.a"]},
            {"names": ["A.test"]},
            {"names": ["x.wherry.internal"]},
            {"names": ["a.test"] * 17},
            {"made": "now"},
            {"made": True},
            {"more": 1},
        ]
        for changes in wrong:
            self.assertRaises(
                Malformed, DeviceRequest.parse, resealed(made, SERVER, **changes)
            )
        DeviceRequest.parse(resealed(made, SERVER))

    def test_too_long(self) -> None:
        """A long text is refused before it is read."""
        text = "[" * (REQUEST_LIMIT + 1)
        self.assertRaises(Malformed, DeviceRequest.parse, text)

    @settings(max_examples=60, deadline=None)
    @given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
    def test_anything(self, text: str) -> None:
        """Any text is refused with a typed error."""
        self.assertRaises(ProtocolError, DeviceRequest.parse, text)
        self.assertRaises(ProtocolError, DeviceBundle.parse, text)

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_any_payload(self, data: st.DataObject) -> None:
        """Whatever a signer signs, it is read or refused with a typed error."""
        made = data.draw(st.sampled_from([requested().signed, bundled().signed]))
        key = SERVER if made.kind == "device request" else USER
        field = data.draw(st.sampled_from(sorted(json.loads(made.payload))))
        value = data.draw(
            st.recursive(
                st.none() | st.integers() | st.text(max_size=9),
                lambda inner: st.lists(inner, max_size=3),
                max_leaves=5,
            )
        )
        text = resealed(made, key, **{field: value})
        for parse in (DeviceRequest.parse, DeviceBundle.parse):
            try:
                parse(text)
            except ProtocolError:
                continue
            self.assertIn(field, ("made", "request", "names", "cards"))


class DeviceBundleTests(SynchronousTestCase):
    """The answer of the device with the user CA."""

    def test_round_trip(self) -> None:
        """What was made is read."""
        made = bundled()
        read = DeviceBundle.parse(made.signed.text() + "\n")
        self.assertEqual(
            (read.device_ca, read.user_ca, read.cards),
            (DEVICE_CA, USER_CA, made.cards),
        )
        self.assertEqual(read.cards[0][0], "desk")

    def test_not_by_the_user_ca(self) -> None:
        """Only the user CA in it may sign it."""
        made = bundled().signed
        self.assertRaises(BadSignature, DeviceBundle.parse, resealed(made, OTHER))

    def test_altered(self) -> None:
        """One changed byte of the payload breaks the signature."""
        document = json.loads(bundled().signed.text())
        payload = document["payload"]
        document["payload"] = payload[:40] + ("A" if payload[40] != "A" else "B")
        document["payload"] += payload[41:]
        self.assertRaises(BadSignature, DeviceBundle.parse, json.dumps(document))

    def test_request_is_no_bundle(self) -> None:
        """A statement of another kind is refused, whoever signed it."""
        text = requested().signed.text()
        self.assertRaises(Malformed, DeviceBundle.parse, text)

    def test_wrong(self) -> None:
        """Each field has one shape."""
        made = bundled().signed
        wrong: list[dict[str, Any]] = [
            {"request": 5},
            {"request": "ä"},
            {"device": "AAAA"},
            {"user": None},
            {"cards": {}},
            {"cards": [["desk"]]},
            {"cards": [["desk", 5]]},
            {"cards": [["\x1b", CARD.text()]]},
            {"more": 1},
        ]
        for changes in wrong:
            self.assertRaises(
                Malformed, DeviceBundle.parse, resealed(made, USER, **changes)
            )

    def test_too_many_cards(self) -> None:
        """A bundle has so many cards and no more: each of them will be called."""
        made = bundled().signed
        cards = [[f"d{n}", Card(NodeID.of_spki(b"%d" % n)).text()] for n in range(101)]
        read = DeviceBundle.parse(resealed(made, USER, cards=cards[:CARDS]))
        self.assertEqual(len(read.cards), 100)
        text = resealed(made, USER, cards=cards)
        error = self.assertRaises(Malformed, DeviceBundle.parse, text)
        self.assertIn("more than 100 cards", str(error))

    def test_too_long(self) -> None:
        """A long text is refused before it is read."""
        self.assertRaises(Malformed, DeviceBundle.parse, "x" * (BUNDLE_LIMIT + 1))
