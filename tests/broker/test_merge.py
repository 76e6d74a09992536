"""Tests of broker.merge."""

from twisted.trial.unittest import SynchronousTestCase

from broker.merge import PeerRecord, Statement, merge
from override.override import NOTHING, Override, parse_override
from protocols.hint import Hint
from protocols.nodeid import NodeID

NAS = NodeID.of_spki(b"nas")
PHONE = NodeID.of_spki(b"phone")


def said(source: str, *hints: str, sequence: int | None = None) -> Statement:
    """A statement about the nas."""
    return Statement(NAS, tuple(map(Hint.parse, hints)), source, sequence)


def clause(text: str) -> Override:
    """An override file with one clause for the nas."""
    return parse_override(
        f"version: 1\npeers:\n  nas: {text}\n", "override.yaml", {"nas": NAS}
    )


class MergeTests(SynchronousTestCase):
    """What a record is made of."""

    def merge(self, *statements: Statement, override: Override = NOTHING) -> PeerRecord:
        """Merge statements about the nas."""
        return merge(NAS, "nas", True, statements, override)

    def hints(self, record: PeerRecord) -> list[tuple[str, str, str]]:
        """The hints of a record, spelled out."""
        return [(h.hint.text, h.source, h.origin) for h in record.hints]

    def test_card(self) -> None:
        """A card's hints are told to us alone."""
        record = self.merge(said("card", "tcp:192.168.1.9:1"))
        self.assertEqual(self.hints(record), [("tcp:192.168.1.9:1", "card", "told")])
        self.assertEqual(
            (record.nickname, record.own, record.ignored), ("nas", True, None)
        )

    def test_newest_announcement_only(self) -> None:
        """The largest sequence number wins whatever its source; the rest stays."""
        record = self.merge(
            said("home", "tcp:1.1.1.1:1", sequence=7),
            said("card", "tcp:2.2.2.2:1"),
            said("work", "tcp:3.3.3.3:1", sequence=9),
            said("home", "tcp:4.4.4.4:1", sequence=8),
        )
        self.assertEqual(
            self.hints(record),
            [("tcp:3.3.3.3:1", "work", "announced"), ("tcp:2.2.2.2:1", "card", "told")],
        )

    def test_foreign_statement(self) -> None:
        """A statement about another node does not count."""
        other = Statement(PHONE, (Hint.parse("tcp:9.9.9.9:1"),), "card")
        self.assertEqual(self.merge(other).hints, ())

    def test_extend(self) -> None:
        """The user's hints come first, each with its line."""
        record = self.merge(
            said("card", "tcp:192.168.1.9:1"),
            override=clause("{announcement: {hints: ['tcp:10.0.0.1:1']}}"),
        )
        self.assertEqual(
            self.hints(record),
            [
                ("tcp:10.0.0.1:1", "override.yaml:3", "override"),
                ("tcp:192.168.1.9:1", "card", "told"),
            ],
        )

    def test_replace(self) -> None:
        """Nothing but the user's hints is left."""
        text = "{mode: replace, announcement: {hints: ['tcp:10.0.0.1:1']}}"
        record = self.merge(said("card", "tcp:192.168.1.9:1"), override=clause(text))
        self.assertEqual(
            [text for text, _, _ in self.hints(record)], ["tcp:10.0.0.1:1"]
        )

    def test_ignore(self) -> None:
        """An ignored peer says where that stands, and keeps its hints for show."""
        record = self.merge(
            said("card", "tcp:192.168.1.9:1"), override=clause("{mode: ignore}")
        )
        self.assertEqual(record.ignored, "override.yaml:3")
        self.assertEqual(len(record.hints), 1)

    def test_same_place_twice(self) -> None:
        """A place keeps the source that is trusted most with it."""
        record = self.merge(
            said("home", "tcp:192.168.1.9:1", sequence=1),
            said("card", "tcp:192.168.1.9:1"),
        )
        self.assertEqual(self.hints(record), [("tcp:192.168.1.9:1", "card", "told")])

    def test_local(self) -> None:
        """How to call comes from the clause, else from the defaults."""
        record = self.merge(override=clause("{local: {routes: {tcp: off}}}"))
        self.assertEqual(
            (record.local.tcp, record.local_source), ("off", "override.yaml:3")
        )
        defaults = parse_override(
            "version: 1\ndefaults: {local: {prefer: [lan]}}\n", "override.yaml", {}
        )
        record = self.merge(override=defaults)
        self.assertEqual(record.local.prefer, ("lan",))
        self.assertEqual(record.local_source, "override.yaml: defaults")
        self.assertIsNone(self.merge().local_source)

    def test_name(self) -> None:
        """Without a nickname a peer is called by its short id."""
        self.assertEqual(self.merge().name, "nas")
        self.assertEqual(merge(NAS, None, False, [], NOTHING).name, NAS.short)
