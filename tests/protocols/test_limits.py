"""Tests of the places that callers take."""

from twisted.trial.unittest import SynchronousTestCase

from protocols.limits import Limits, Place, Places

LIMITS = Limits(connections=8, per_principal=3, handshakes_per_address=2)


class PlacesTests(SynchronousTestCase):
    """`Places` counts by address, by principal and in all."""

    def arrive(self, places: Places, host: str) -> Place:
        """Arrive where there is room."""
        place = places.arrive(host)
        if place is None:
            self.fail(f"no place for {host}")
        return place

    def test_one_address(self) -> None:
        """An address has so many unfinished handshakes; others are unharmed."""
        places = Places(LIMITS)
        first = self.arrive(places, "192.0.2.1")
        self.arrive(places, "192.0.2.1")
        self.assertIsNone(places.arrive("192.0.2.1"))
        self.assertIsNone(places.arrive("::ffff:192.0.2.1"))
        self.arrive(places, "192.0.2.2")
        first.leave()
        first.leave()
        self.arrive(places, "192.0.2.1")
        self.assertIsNone(places.arrive("192.0.2.1"))

    def test_one_network(self) -> None:
        """One IPv6 network can't take every place, and link-local is no network."""
        places = Places(Limits(handshakes_per_address=2, connections=1000))
        taken = [places.arrive(f"2001:db8::{number:x}") for number in range(20)]
        self.assertEqual(sum(place is not None for place in taken), 8)
        self.arrive(places, "2001:db8:0:1::1")
        for number in range(1, 20):
            self.arrive(places, f"fe80::{number:x}%eth0")

    def test_all_addresses(self) -> None:
        """Unfinished handshakes of all addresses together are bounded."""
        places = Places(LIMITS)
        taken = [places.arrive(f"192.0.2.{number}") for number in range(20)]
        self.assertEqual(sum(place is not None for place in taken), 8)

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
        """Turning away is bounded as well."""
        places = Places(LIMITS)
        for _ in range(3):
            self.arrive(places, "192.0.2.1").enter("anna")
        for _ in range(2):
            self.assertFalse(self.arrive(places, "192.0.2.1").enter("anna"))
        self.assertIsNone(places.arrive("192.0.2.1"))

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
        self.assertFalse(places._waiting)
        self.assertFalse(places._inside)
