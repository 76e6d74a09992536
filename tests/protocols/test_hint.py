"""Tests for protocols.hint."""

import ipaddress

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protocols.errors import Malformed
from protocols.hint import LIMIT, Hint, tcp
from protocols.nodeid import NodeID
from tests.protocols.values import hints

NODE = NodeID.of_spki(b"key")

# Text that comes near to a hint, so that the deep branches are reached.
_near = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["tcp:", "tor:", "via:", "tcp:[", "quic:", "TCP:", ""]),
    st.one_of(
        st.text("0123456789abcdefx.:%[]*-_ ", max_size=30),
        st.ip_addresses().map(str),
    ),
    st.sampled_from(["", "]", "%eth0]", "%*]", ".onion"]),
    st.one_of(st.just(""), st.integers(-1, 70000).map(":{}".format)),
)


class ParseTests(SynchronousTestCase):
    """Reading the grammar."""

    def test_tcp_name(self) -> None:
        """A name is kept, in lower case."""
        hint = Hint.parse("tcp:Desk.Example.org:8443")
        self.assertEqual(
            hint,
            Hint("tcp:desk.example.org:8443", "tcp", "desk.example.org", 8443),
        )

    def test_tcp_ipv6(self) -> None:
        """An address comes out in the spelling of RFC 5952, out of its brackets."""
        hint = Hint.parse("tcp:[2001:DB8:0:0::1]:8443")
        self.assertEqual(hint.text, "tcp:[2001:db8::1]:8443")
        self.assertEqual(hint.host, "2001:db8::1")

    def test_scope(self) -> None:
        """A link-local address carries its interface, or any."""
        for scope in ("eth0", "enp3s0", "*", "br-lan.7", "2"):
            with self.subTest(scope):
                hint = Hint.parse(f"tcp:[fe80::1%{scope}]:8443")
                self.assertEqual((hint.host, hint.scope), ("fe80::1", scope))
                self.assertFalse(hint.needs_scope)

    def test_link_local_without_scope(self) -> None:
        """It is a hint all the same, and says what it lacks."""
        hint = Hint.parse("tcp:[fe80::5c1]:8443")
        self.assertTrue(hint.needs_scope)
        self.assertEqual(
            hint.with_scope("eth0"), Hint.parse("tcp:[fe80::5c1%eth0]:8443")
        )

    def test_only_ipv6_needs_a_scope(self) -> None:
        """Nothing else has an interface in its address."""
        for text in ("tcp:169.254.1.1:1", "tcp:nas:1", "tcp:[fd00::1]:1", "quic:x"):
            with self.subTest(text):
                self.assertFalse(Hint.parse(text).needs_scope)
                with self.assertRaises(Malformed):
                    Hint.parse(text).with_scope("eth0")

    def test_with_other_scope(self) -> None:
        """The interface can be exchanged."""
        hint = tcp("fe80::1", 8443, "*")
        self.assertEqual(hint.with_scope("eth1"), tcp("fe80::1", 8443, "eth1"))

    def test_tor_and_via(self) -> None:
        """The two kinds that hide where the node is."""
        self.assertEqual(
            Hint.parse("tor:Abc.onion:8443"),
            Hint("tor:abc.onion:8443", "tor", "abc.onion", 8443),
        )
        self.assertEqual(
            Hint.parse(f"via:{NODE}"), Hint(f"via:{NODE}", "via", node=NODE)
        )

    def test_unknown_kind(self) -> None:
        """A kind of a later version is kept to the letter."""
        text = "wifi-direct:Some/Thing%20[else]"
        self.assertEqual(Hint.parse(text), Hint(text, "wifi-direct"))

    def test_mapped_address(self) -> None:
        """IPv4 mapped into IPv6 is that IPv4 address, for all that judge it."""
        self.assertEqual(
            Hint.parse("tcp:[::ffff:127.0.0.1]:80"), Hint.parse("tcp:127.0.0.1:80")
        )

    def test_refused(self) -> None:
        """What can't be called, or could be read in two ways, is refused."""
        for text in (
            "",
            "tcp",
            "tcp:",
            ":x",
            "TCP:h:1",
            "tcp:h",
            "tcp:h:",
            "tcp::1",
            "tcp:h:0",
            "tcp:h:65536",
            "tcp:h:99999999",
            "tcp:h:080",
            "tcp:h:+80",
            "tcp:h:8_0",
            "tcp:h:٨٠",
            "tcp:999.1.1.1:80",
            "tcp:127.1:80",
            "tcp:0177.0.0.1:80",
            "tcp:0x7f000001:80",
            "tcp:2130706433:80",
            "tcp:-h:80",
            "tcp:a..b:80",
            "tcp:a.:80",
            f"tcp:{'a' * 64}:80",
            "tcp:" + "a." * 127 + "ab:80",
            "tcp:u@h:80",
            "tcp:h/p:80",
            "tcp:fe80::1:80",
            "tcp:[::1]",
            "tcp:[::1]80",
            "tcp:[::1:80",
            "tcp:[1.2.3.4]:80",
            "tcp:[h]:80",
            "tcp:[fe80::1%]:80",
            "tcp:[fe80::1%a/b]:80",
            "tcp:[fe80::1%sixteen-letters!]:80",
            "tcp:[fe80::1%eth0%eth1]:80",
            "tcp:[fd00::1%eth0]:80",
            "tcp:[::ffff:169.254.1.1%eth0]:80",
            "tcp:169.254.1.1%eth0:80",
            "tor:example.org:80",
            "tor:onion:80",
            "tor:1.2.3.4:80",
            "via:abc",
            f"via:{NODE.text.upper()}",
            f"via:{NODE}:80",
            "quic:a b",
            "quic:a,b",
            "quic:a?b",
            "quic:a&b",
            "quic:a#b",
            "quic:a\n",
            "quic:ä",
            "quic:" + "a" * LIMIT,
        ):
            with self.subTest(text), self.assertRaises(Malformed):
                Hint.parse(text)

    def test_uncallable_addresses(self) -> None:
        """Unspecified, multicast and reserved addresses are no place to call."""
        for text, why in {
            "tcp:0.0.0.0:80": "unspecified",
            "tcp:0.1.2.3:80": "unspecified",
            "tcp:[::]:80": "unspecified",
            "tcp:[::ffff:0.0.0.0]:80": "unspecified",
            "tcp:224.0.0.251:80": "multicast",
            "tcp:[ff02::1]:80": "multicast",
            "tcp:[ff02::1%eth0]:80": "multicast",
            "tcp:[::ffff:224.0.0.1]:80": "multicast",
            "tcp:255.255.255.255:80": "reserved",
            "tcp:[::7f00:1]:80": "reserved",
        }.items():
            with self.subTest(text), self.assertRaisesRegex(Malformed, why):
                Hint.parse(text)

    def test_onion_over_tcp(self) -> None:
        """A .onion name never gets where the local resolver would see it."""
        for text in ("tcp:abc.onion:80", "tcp:ABC.ONION:80", "tcp:onion:80"):
            with self.subTest(text), self.assertRaisesRegex(Malformed, "write tor:"):
                Hint.parse(text)
        self.assertEqual(Hint.parse("tcp:abc.onion.example:80").route_kind, "public")

    def test_bytes(self) -> None:
        """Bytes are a mistake of the program, not of a peer."""
        with self.assertRaises(TypeError):
            Hint.parse(b"tcp:h:1")  # type: ignore[arg-type]

    def test_no_secret_in_error(self) -> None:
        """A card that lost its question mark doesn't spill into an error."""
        with self.assertRaises(Malformed) as caught:
            Hint.parse("tcp:h:1&cap=hunter2")
        self.assertNotIn("hunter2", str(caught.exception))

    @settings(max_examples=150, deadline=None)
    @given(hints)
    def test_round_trip(self, hint: Hint) -> None:
        """A hint's text is read back as the same hint."""
        self.assertEqual(Hint.parse(hint.text), hint)
        self.assertEqual(str(hint), hint.text)

    @settings(max_examples=300, deadline=None)
    @given(st.one_of(st.text(max_size=80), _near))
    @example("tcp:[fe80::1%*]:8443")
    def test_any_text(self, text: str) -> None:
        """Any text is Malformed, or a hint whose canonical text stays as it is."""
        try:
            hint = Hint.parse(text)
        except Malformed as error:
            self.assertTrue(str(error).isprintable())
            return
        self.assertEqual(Hint.parse(hint.text), hint)
        self.assertTrue(hint.route_kind)
        self.assertLessEqual(len(hint.text), LIMIT)


class RouteKindTests(SynchronousTestCase):
    """How far away a place is."""

    def test_kinds(self) -> None:
        """The edges of each range, from both sides."""
        for text, kind in {
            "tcp:127.0.0.1:1": "loopback",
            "tcp:127.255.255.255:1": "loopback",
            "tcp:[::1]:1": "loopback",
            "tcp:[::ffff:127.0.0.1]:1": "loopback",
            "tcp:localhost:1": "loopback",
            "tcp:x.localhost:1": "loopback",
            "tcp:169.254.9.9:1": "link-local",
            "tcp:[fe80::1%eth0]:1": "link-local",
            "tcp:[febf::1%eth0]:1": "link-local",
            "tcp:[fec0::1]:1": "lan",
            "tcp:10.255.0.1:1": "lan",
            "tcp:172.15.0.1:1": "public",
            "tcp:172.16.0.1:1": "lan",
            "tcp:172.31.0.1:1": "lan",
            "tcp:172.32.0.1:1": "public",
            "tcp:192.168.1.20:1": "lan",
            "tcp:100.63.255.255:1": "public",
            "tcp:100.64.0.1:1": "lan",
            "tcp:100.128.0.1:1": "public",
            "tcp:[::ffff:192.168.0.1]:1": "lan",
            "tcp:[fd00::1]:1": "lan",
            "tcp:[fc00::1]:1": "lan",
            "tcp:[2001:db8::1]:1": "public",
            "tcp:nas:1": "lan",
            "tcp:nas.local:1": "lan",
            "tcp:example.org:1": "public",
            "tcp:notlocal.org:1": "public",
            "tor:abc.onion:1": "tor",
            f"via:{NODE}": "via",
            "quic:anything": "unknown",
        }.items():
            with self.subTest(text):
                self.assertEqual(Hint.parse(text).route_kind, kind)

    @settings(max_examples=200, deadline=None)
    @given(
        st.ip_addresses(v=4),
        st.sampled_from(["tcp:{}:1", "tcp:[::ffff:{}]:1"]),
    )
    def test_as_the_standard_library(
        self, address: ipaddress.IPv4Address, form: str
    ) -> None:
        """Nothing that the standard library calls near is called public.

        An IPv4 address mapped into IPv6 is judged in the same way.
        """
        try:
            kind = Hint.parse(form.format(address)).route_kind
        except Malformed:
            self.assertFalse(address.is_global and not address.is_multicast)
            return
        self.assertEqual(kind == "loopback", address.is_loopback)
        self.assertEqual(kind == "link-local", address.is_link_local)
        if address.is_global:
            self.assertEqual(kind, "public")


class TcpTests(SynchronousTestCase):
    """Making hints from parts."""

    def test_parts(self) -> None:
        """Brackets stand where they are needed."""
        self.assertEqual(tcp("nas", 1).text, "tcp:nas:1")
        self.assertEqual(tcp("10.0.0.1", 2).text, "tcp:10.0.0.1:2")
        self.assertEqual(tcp("::1", 3).text, "tcp:[::1]:3")
        self.assertEqual(tcp("fe80::1", 4, "eth0").text, "tcp:[fe80::1%eth0]:4")
        self.assertEqual(tcp("fe80::1%eth0", 4), tcp("fe80::1", 4, "eth0"))

    def test_impossible(self) -> None:
        """Parts that make no hint are refused as text would be."""
        for host, port in (("0.0.0.0", 1), ("nas", 0), ("a]b", 1), ("", 1)):
            with self.subTest(host), self.assertRaises(Malformed):
                tcp(host, port)
