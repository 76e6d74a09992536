"""Tests of node.hints."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from node.hints import (
    Place,
    hints_of,
    interfaces,
    is_port,
    own_addresses,
    place_of_endpoint,
)

ADDRESSES = [
    "127.0.0.1",
    "::1",
    "fe80::1",
    "192.168.1.20",
    "fd00::20",
    "203.0.113.5",
    "2001:db8:7::5",
]


class EndpointTests(SynchronousTestCase):
    """Reading endpoint strings."""

    def test_spellings(self) -> None:
        """The forms that Twisted takes."""
        for text, place in (
            ("tcp6:8443", Place("::", 8443)),
            ("tcp:8443", Place("0.0.0.0", 8443)),
            ("tcp4:port=8443", Place("0.0.0.0", 8443)),
            ("tcp:8443:interface=127.0.0.1", Place("127.0.0.1", 8443)),
            ("tcp6:8443:interface=\\:\\:1:backlog=5", Place("::1", 8443)),
            ("tcp6:port=1:interface=", Place("::", 1)),
        ):
            self.assertEqual(place_of_endpoint(text), place, text)

    def test_nothing_to_tell(self) -> None:
        """Other kinds, free ports and nonsense tell no place."""
        for text in (
            "unix:/run/wherry",
            "onion:8443",
            "tcp6:0",
            "tcp6:",
            "tcp:http",
            "tcp:70000",
            "tcp:²",
            "8443",
            "",
        ):
            self.assertIsNone(place_of_endpoint(text), text)

    def test_ports(self) -> None:
        """Only TCP has ports, and they end at 65535."""
        for text, good in (
            ("tcp6:0", True),
            ("tcp:port=65535:interface=127.0.0.1", True),
            ("unix:/run/wherry", True),
            ("tcp:65536", False),
            ("tcp:http", False),
            ("tcp", False),
        ):
            self.assertEqual(is_port(text), good, text)

    @given(st.text(max_size=40))
    def test_any_text(self, text: str) -> None:
        """Any text gives a place or None."""
        for each in (text, f"tcp6:{text}", f"tcp:1:interface={text}"):
            place_of_endpoint(each)
            is_port(each)


class HintsTests(SynchronousTestCase):
    """Hints from ports and addresses."""

    def hints(self, *places: Place) -> list[str]:
        """The hints as text."""
        return [each.text for each in hints_of(places, ADDRESSES)]

    def test_wildcard(self) -> None:
        """A wildcard stands for all interfaces, nearest first, no loopback."""
        self.assertEqual(
            self.hints(Place("::", 8443)),
            [
                "tcp:192.168.1.20:8443",
                "tcp:[fd00::20]:8443",
                "tcp:203.0.113.5:8443",
                "tcp:[2001:db8:7::5]:8443",
                "tcp:[fe80::1%*]:8443",
            ],
        )

    def test_wildcard_of_ipv4(self) -> None:
        """The wildcard of IPv4 stands for IPv4 alone."""
        self.assertEqual(
            self.hints(Place("0.0.0.0", 1)), ["tcp:192.168.1.20:1", "tcp:203.0.113.5:1"]
        )

    def test_one_address(self) -> None:
        """One address stands for itself; a scope is the listener's own affair."""
        self.assertEqual(self.hints(Place("fe80::9%eth0", 5)), ["tcp:[fe80::9%*]:5"])

    def test_loopback_only(self) -> None:
        """Loopback is a hint only where there is nothing else."""
        local, other = Place("127.0.0.1", 5), Place("192.168.1.20", 6)
        self.assertEqual(self.hints(local), ["tcp:127.0.0.1:5"])
        self.assertEqual(self.hints(local, other), ["tcp:192.168.1.20:6"])
        self.assertEqual(
            [each.text for each in hints_of([Place("::", 5)], ["127.0.0.1", "::1"])],
            ["tcp:127.0.0.1:5", "tcp:[::1]:5"],
        )

    def test_many(self) -> None:
        """A card takes sixteen; the same one twice is one."""
        places = [Place("10.0.0.1", port) for port in range(1, 40)]
        self.assertEqual(len(hints_of(places * 2, [])), 16)

    def test_real(self) -> None:
        """This machine has loopback, and addresses that make hints."""
        addresses = own_addresses()
        self.assertIn("127.0.0.1", addresses)
        self.assertTrue(hints_of([Place("::", 8443)], addresses))
        self.assertNotIn("lo", interfaces())
