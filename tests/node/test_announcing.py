"""Tests of node.announcing, node.problems and node.configuration."""

from pathlib import Path

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from node.announcing import FILE, Herald, card_of, hints_now
from node.configuration import Configuration
from node.directory import NodeDirectory
from node.errors import Failed
from node.hints import Place
from node.identity import Identity
from node.peersfile import KnownPeer, Peers, save_peers
from node.problems import find_problems
from node.settings import new_settings
from override.override import FILE as OVERRIDE
from protocols.announcement import LIFETIME, Announcement
from protocols.card import Card
from protocols.hint import Hint
from tests.kit import DAY, House, today


class NodeTests(SynchronousTestCase):
    """A node at rest, to begin with."""

    def setUp(self) -> None:
        self.now = today()
        self.directory = NodeDirectory(Path(self.mktemp()))
        self.settings = new_settings("desk", ["tcp:8443:interface=127.0.0.1"])
        self.identity = Identity.create(self.directory, self.settings, self.now)
        lock = self.directory.lock()
        lock.__enter__()
        self.addCleanup(lock.__exit__, None, None, None)


class HeraldTests(NodeTests):
    """The signed announcement."""

    def setUp(self) -> None:
        super().setUp()
        self.hints = [Hint.parse("tcp:203.0.113.5:1"), Hint.parse("tcp:10.0.0.1:1")]

    def herald(self) -> Herald:
        """One, as at a start of the node."""
        return Herald(
            self.directory, self.identity, lambda: self.hints, lambda: self.now
        )

    def read(self, herald: Herald) -> Announcement:
        """Read what it says as a peer would."""
        return Announcement.parse(herald.text(), self.now)

    def test_content(self) -> None:
        """It is our own, with public hints alone, and no name."""
        said = self.read(self.herald())
        self.assertEqual(said.node, self.identity.node)
        self.assertEqual([str(each) for each in said.hints], ["tcp:203.0.113.5:1"])
        self.assertIsNone(said.name)

    def test_sequence(self) -> None:
        """The number grows over restarts, also when the clock goes back."""
        first = self.read(self.herald()).sequence
        self.now -= DAY / 2
        second = self.read(self.herald()).sequence
        self.assertEqual(second, first + 1)

    def test_kept_while_true(self) -> None:
        """The same bytes are told until something changes or half its life is over."""
        herald = self.herald()
        text = herald.text()
        self.now += LIFETIME / 3
        self.assertEqual(herald.text(), text)
        self.now += LIFETIME / 3
        renewed = herald.text()
        self.assertNotEqual(renewed, text)
        self.hints = self.hints[1:]
        self.assertNotEqual(herald.text(), renewed)

    def test_damaged_number(self) -> None:
        """A damaged number is an error, not a fresh start."""
        self.directory.write_file(FILE, b"x")
        with self.assertRaisesRegex(Failed, "not a number"):
            self.herald().text()


class CardTests(NodeTests):
    """The card."""

    def test_hints(self) -> None:
        """Settings win, then open ports, then endpoint strings."""
        told = (Hint.parse("tcp:home.example.org:1"),)
        places = [Place("127.0.0.1", 7)]
        for settings, open_places, hints in (
            (evolve(self.settings, hints=told), places, "tcp:home.example.org:1"),
            (self.settings, places, "tcp:127.0.0.1:7"),
            (self.settings, None, "tcp:127.0.0.1:8443"),
        ):
            (hint,) = hints_now(settings, open_places)
            self.assertEqual(hint.text, hints)

    def test_round_trip(self) -> None:
        """What is printed can be read."""
        card = card_of(self.identity, self.settings, ())
        self.assertEqual(Card.parse(card.text()), card)
        self.assertNotIn("d=", repr(card))


class ConfigurationTests(NodeTests):
    """What a node starts from, and what is wrong with it."""

    def setUp(self) -> None:
        super().setUp()
        self.other = House.new(self.now).device().node
        card = Card(self.other, (Hint.parse("tcp:10.0.0.1:1"),))
        peers = Peers((KnownPeer("nas", "device", card, 0),))
        save_peers(self.directory, peers)

    def override(self, text: str) -> Configuration:
        """Load with this ``override.yaml``."""
        self.directory.write_file(OVERRIDE, text.encode())
        return Configuration.load(self.directory)

    def test_records(self) -> None:
        """Peers come with the hints of their cards."""
        (record,) = Configuration.load(self.directory).records()
        self.assertEqual(
            (record.node, record.nickname, record.own), (self.other, "nas", True)
        )
        self.assertEqual([str(each.hint) for each in record.hints], ["tcp:10.0.0.1:1"])

    def test_override(self) -> None:
        """The override has the last word, also on nodes that are no peers."""
        stranger = House.new(self.now).device().node
        loaded = self.override(
            f"version: 1\npeers:\n  nas: {{mode: ignore}}\n"
            f"  {stranger}: {{mode: extend}}\n"
        )
        nas, other = loaded.records()
        self.assertEqual(nas.ignored, "override.yaml:3")
        self.assertEqual((other.node, other.own), (stranger, False))
        (problem,) = find_problems(loaded, [], None, self.now)
        self.assertIn("override.yaml:4 names", problem.what)

    def test_broken_override(self) -> None:
        """A broken override stops the node: it never dials as announced."""
        with self.assertRaisesRegex(Failed, r"override\.yaml:2:"):
            self.override("version: 1\nnonsense: 2\n")

    def test_changed(self) -> None:
        """The user's files are compared with what was read of them."""
        loaded = Configuration.load(self.directory)
        self.assertEqual(loaded.changed(self.directory), [])
        self.directory.write_file(OVERRIDE, b"nonsense")
        (changed,) = loaded.changed(self.directory)
        (problem,) = find_problems(loaded, [changed], None, self.now)
        self.assertIn("override.yaml has changed", problem.what)
        loaded.with_new_peers(self.directory)  # a wrong override is no hindrance
        (self.directory.path / OVERRIDE).chmod(0o666)
        self.assertEqual(loaded.changed(self.directory), [OVERRIDE])

    def test_problems(self) -> None:
        """A certificate that ends soon, and names that can't be kept."""
        loaded = Configuration.load(self.directory)
        self.assertEqual(find_problems(loaded, [], None, self.now), [])
        (ending,) = find_problems(loaded, [], None, loaded.identity.end - DAY)
        self.assertIn("ends on", ending.what)
        (full,) = find_problems(loaded, [], "No space left on device", self.now)
        self.assertIn("No space left", full.what)
