"""Tests of the places that callers take."""

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from protocols.limits import Limits, Place, Places

LIMITS = Limits(connections=8, per_principal=3, handshakes_per_address=2)


class PlacesTests(SynchronousTestCase):
    """`Places` counts by address, by principal and in all."""

    def setUp(self) -> None:
        """Nobody was sent away yet."""
        self.sent_away: list[str] = []

    def arrive(self, places: Places, host: str, name: str = "") -> Place:
        """Arrive where there is room, or where somebody makes room."""
        place = places.arrive(host, self.going(name or host))
        if place is None:
            self.fail(f"no place for {host}")
        return place

    def going(self, name: str) -> Callable[[], None]:
        """What a caller does who has to make room."""
        return lambda: self.sent_away.append(name)

    def test_one_address(self) -> None:
        """The oldest unfinished handshake of an address makes room; others don't."""
        places = Places(LIMITS)
        self.arrive(places, "192.0.2.2", "other")
        for name in ("first", "second"):
            self.arrive(places, "192.0.2.1", name)
        self.assertEqual(self.sent_away, [])
        self.arrive(places, "192.0.2.1", "third")
        self.assertEqual(self.sent_away, ["first"])
        self.arrive(places, "::ffff:192.0.2.1", "fourth")
        self.assertEqual(self.sent_away, ["first", "second"])

    def test_who_left_or_entered_need_not_make_room(self) -> None:
        """A place that was given back, or one inside, is nobody's to clear."""
        places = Places(LIMITS)
        left, entered = (self.arrive(places, "192.0.2.1") for _ in range(2))
        left.leave()
        left.leave()
        self.assertTrue(entered.enter("anna"))
        for _ in range(2):
            self.arrive(places, "192.0.2.1")
        self.assertEqual(self.sent_away, [])

    def test_nobody_makes_room(self) -> None:
        """The control: where nobody makes room, silent callers keep others out."""
        self.patch(Places, "_make_room", lambda *_: None)
        places = Places(LIMITS)
        for _ in range(2):
            self.arrive(places, "192.0.2.1")
        self.assertIsNone(places.arrive("192.0.2.1", self.going("honest")))

    def test_one_network(self) -> None:
        """One IPv6 network can't take every place, and link-local is no network."""
        places = Places(Limits(handshakes_per_address=2, connections=1000))
        self.arrive(places, "2001:db8:0:1::1")
        for number in range(20):
            self.arrive(places, f"2001:db8::{number:x}")
        oldest = [f"2001:db8::{number:x}" for number in range(12)]
        self.assertEqual(self.sent_away, oldest)
        for number in range(1, 20):
            self.arrive(places, f"fe80::{number:x}%eth0")
        self.assertEqual(self.sent_away, oldest)

    def test_all_addresses(self) -> None:
        """Unfinished handshakes of all addresses together are bounded."""
        places = Places(LIMITS)
        for number in range(20):
            self.arrive(places, f"192.0.2.{number}")
        self.assertEqual(self.sent_away, [f"192.0.2.{number}" for number in range(12)])

    def test_principals(self) -> None:
        """A principal has so many connections; who is turned away may come again."""
        places = Places(LIMITS)
        inside = [self.arrive(places, "192.0.2.1") for _ in range(2)]
        self.assertTrue(all(place.enter("anna") for place in inside))
        self.assertTrue(self.arrive(places, "192.0.2.1").enter("anna"))
        fourth = self.arrive(places, "192.0.2.1")
        self.assertFalse(fourth.enter("anna"))
        self.assertTrue(self.arrive(places, "192.0.2.1").enter("bert"))
        inside[0].leave()
        self.assertTrue(fourth.enter("anna"))

    def test_turned_away_callers_count_as_handshakes(self) -> None:
        """Turning away is bounded as well, and keeps nobody out."""
        places = Places(LIMITS)
        for _ in range(3):
            self.arrive(places, "192.0.2.1").enter("anna")
        for number in range(5):
            place = self.arrive(places, "192.0.2.1", f"{number}")
            self.assertFalse(place.enter("anna"))
        self.assertEqual(self.sent_away, ["0", "1", "2"])
        self.assertTrue(self.arrive(places, "192.0.2.1").enter("bert"))

    def test_all_connections(self) -> None:
        """The connections of all principals together are bounded."""
        places = Places(LIMITS)
        entered = [
            self.arrive(places, f"192.0.2.{number}").enter(number)
            for number in range(12)
        ]
        self.assertEqual(entered, [True] * 8 + [False] * 4)

    def test_nothing_is_kept_of_who_left(self) -> None:
        """The counts don't grow with every address that ever called."""
        places = Places(LIMITS)
        for number in range(1000):
            place = self.arrive(places, f"2001:db8:{number:x}::1")
            place.enter(number)
            place.leave()
        for number in range(1000):
            self.arrive(places, f"2001:db8:{number:x}::1")
        self.assertEqual(len(places._waiting), 2 * 8 + 1)
        self.assertFalse(places._inside)
