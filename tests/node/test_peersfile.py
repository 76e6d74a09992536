"""Tests of peers.yaml."""

from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from node.directory import NodeDirectory
from node.errors import Failed
from node.peersfile import (
    KnownPeer,
    Peers,
    load_peers,
    parse_peers,
    save_peers,
    suggested,
)
from override.document import DocumentError
from protocols.card import Card
from protocols.certificates import new_key, pairwise_ca
from protocols.errors import Malformed
from protocols.hint import Hint
from protocols.nodeid import NodeID

NOW = 1_790_000_000
SECRET = b"0123456789abcdef"
PAIRWISE = pairwise_ca(new_key(), NOW).public_bytes(Encoding.DER)


def peer(name: str, nickname: str | None = None, kind: str = "device") -> KnownPeer:
    """Make a peer whose keys nobody has."""
    node = NodeID.of_spki(name.encode())
    card = Card(node, (Hint.parse("tcp:10.0.0.1:8443"),), SECRET, name)
    assert kind in ("device", "person")
    if kind == "person":
        return KnownPeer(nickname or name, "person", card, NOW, PAIRWISE)
    return KnownPeer(nickname or name, "device", card, NOW)


class PeersTests(SynchronousTestCase):
    """The known peers as a value."""

    def test_round_trip(self) -> None:
        """What was written is read, secrets and order included."""
        peers = Peers().add(peer("nas")).add(peer("Älice 12:34", kind="person"))
        self.assertEqual(parse_peers(peers.text()), peers)

    def test_file(self) -> None:
        """Without a file nobody is known; the file is the owner's alone."""
        directory = NodeDirectory(Path(self.mktemp()))
        directory.make()
        self.assertEqual(load_peers(directory), Peers())
        peers = Peers().add(peer("nas"))
        save_peers(directory, peers)
        self.assertEqual(load_peers(directory), peers)
        self.assertEqual(directory.peers.stat().st_mode & 0o777, 0o600)
        directory.write_file("peers.yaml", b"version: 1\npeers: [x]\n")
        error = self.assertRaises(Failed, load_peers, directory)
        self.assertTrue(str(error).startswith("peers.yaml:2:8: "))

    def test_find(self) -> None:
        """A peer goes by its nickname, never by what it calls itself."""
        peers = Peers().add(peer("nas", "attic"))
        nas = peers.known[0]
        self.assertEqual(peers.nicknames, {"attic": nas.node})
        self.assertEqual(peers.devices, {nas.node})

    def test_unique(self) -> None:
        """A nickname that is taken, in whatever case, gets a number."""
        peers = Peers()
        for name in ("a", "b", "c"):
            peers = peers.add(peer(name, "Desk"), reserved=["desk"])
        self.assertEqual(list(peers.nicknames), ["Desk-2", "Desk-3", "Desk-4"])
        long = Peers().add(peer("a", "x" * 64)).add(peer("b", "x" * 64))
        self.assertEqual(long.known[1].nickname, "x" * 62 + "-2")

    def test_again(self) -> None:
        """A known peer keeps its nickname and date and takes its new card."""
        peers = Peers().add(peer("nas", "attic")).add(peer("desk"))
        fresh = KnownPeer(
            "other", "device", Card(peers.known[0].node), NOW + 5, b"\x30\x00"
        )
        again = peers.add(fresh).known[0]
        self.assertEqual(
            (again.nickname, again.since, again.card.hints), ("attic", NOW, ())
        )
        self.assertEqual(len(peers.add(fresh).known), 2)

    def test_kind_stays(self) -> None:
        """A person never becomes an own device by being added."""
        peers = Peers().add(peer("nas", kind="person"))
        self.assertRaises(Failed, peers.add, peer("nas"))

    def test_suggested(self) -> None:
        """What a card calls itself is taken only if it can be a nickname."""
        node = NodeID.of_spki(b"x")
        self.assertEqual(suggested(Card(node, name="nas")), "nas")
        for name in (None, "~nas", "../x"):
            self.assertEqual(suggested(Card(node, name=name)), node.text[:7])
        self.assertRaises(Malformed, KnownPeer, "~x", "device", Card(node), NOW)

    def test_no_secret_in_repr(self) -> None:
        """The discovery secret stays out of reprs."""
        shown = repr(Peers().add(peer("nas")))
        self.assertNotIn(repr(SECRET)[2:-1], shown)
        self.assertNotIn("wherry:", shown)


class ParsePeersTests(SynchronousTestCase):
    """Mistakes are named with their place."""

    def test_wrong(self) -> None:
        """Missing, unknown, doubled and contradictory things."""
        good = peer("nas")
        other = peer("desk")
        least = f"{{nickname: nas, kind: device, since: X, card: '{good.card.text()}'}}"
        least = least.replace("X", "2026-01-31T12:00:00Z")
        head = "version: 1\npeers:\n"
        parse_peers(f"{head}  {good.node}: {least}\n")
        for text, start in [
            (f"  {other.node}: {least}", "3:"),
            (f"  nas: {least}", "3:3: node id"),
            (f"  {good.node}: {{}}", "3:3: this peer has no nickname"),
            (f"  {good.node}: {least[:-1]}, grants: []}}", "3:"),
            (f"  {good.node}: {least.replace('device', 'robot')}", "3:"),
            (f"  {good.node}: {least.replace('2026-', '26-')}", "3:"),
            (f"  {good.node}: {least.replace('00Z', '00')}", "3:"),
            (f"  {good.node}: {least.replace('wherry:', 'wherr:')}", "3:"),
            (f"  {good.node}: {least.replace('name: nas', 'name: ~nas')}", "3:"),
            (f"  {good.node}: {least[:-1]}, ca: 'ä'}}", "3:"),
            (f"  {good.node}: {least[:-1]}, ca: AAAA}}", "3:"),
            (
                f"  {good.node}: {least}\n  {other.node}: "
                + least.replace("nas,", "NAS,").replace(
                    good.node.text, other.node.text
                ),
                "4:3: the nickname 'NAS' is taken by the peer in line 3",
            ),
        ]:
            error = self.assertRaises(DocumentError, parse_peers, f"{head}{text}\n")
            self.assertTrue(str(error).startswith(f"peers.yaml:{start}"), str(error))
            self.assertNotIn("d=", str(error))

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(
            st.tuples(st.text(max_size=20), st.booleans(), st.integers(0, 2**32)),
            max_size=4,
        )
    )
    def test_any_peers(self, people: list[tuple[str, bool, int]]) -> None:
        """Whoever could be added survives the file."""
        peers = Peers()
        for number, (nickname, device, since) in enumerate(people):
            card = Card(NodeID.of_spki(bytes([number])), (), SECRET)
            try:
                made = KnownPeer(
                    nickname, "device" if device else "person", card, since
                )
            except Malformed:
                continue
            peers = peers.add(made)
        self.assertEqual(parse_peers(peers.text()), peers)
