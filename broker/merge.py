"""Merge what is said about a peer with the user's override into one record. Pure."""

from collections.abc import Sequence
from typing import Final, Literal

from attrs import field, frozen

from override.override import Local, Override
from protocols.hint import Hint
from protocols.nodeid import NodeID

Origin = Literal["override", "told", "announced"]
"""Who gave a hint: the user, somebody who told us alone (a card), or the world."""

DEFAULTS: Final = "override.yaml: defaults"


@frozen
class Statement:
    """What one source says about a node.

    Attributes:
        node: whom it is about.
        hints: where to call it.
        source: what to call the source, such as ``"card"``.
        sequence: the number of a verified announcement; None for what was told
            to us alone, which has no versions.
    """

    node: NodeID
    hints: tuple[Hint, ...]
    source: str
    sequence: int | None = None


@frozen
class SourcedHint:
    """A hint with where it came from.

    Attributes:
        hint: where to call.
        source: for the user, such as ``"card"`` or ``"override.yaml:7"``.
        origin: how far the source is trusted with private addresses.
    """

    hint: Hint
    source: str
    origin: Origin = "told"


@frozen
class PeerRecord:
    """Everything that decides whether and how a peer is called.

    Attributes:
        node: the peer.
        nickname: what the user calls it; None if it has no entry in peers.yaml.
        own: whether it is a device of the same user.
        hints: the user's first, then the newest announcement's, then the others';
            each place once.
        ignored: the line of the override that says never to call it, or None.
        local: how the user wants it called.
        local_source: where that stands, or None if nothing was said.
    """

    node: NodeID
    nickname: str | None
    own: bool
    hints: tuple[SourcedHint, ...] = ()
    ignored: str | None = None
    local: Local = field(factory=Local)
    local_source: str | None = None

    @property
    def name(self) -> str:
        """What to call the peer in a message."""
        return self.nickname or self.node.short


def merge(
    node: NodeID,
    nickname: str | None,
    own: bool,
    statements: Sequence[Statement],
    override: Override,
) -> PeerRecord:
    """Make the record of one peer.

    Of the announcements only the newest counts, by its sequence number and
    whatever its source. The override's clause extends the hints, replaces them
    or has the peer ignored; its hints come first.

    Args:
        node: the peer.
        nickname: what the user calls it, if anything.
        own: whether it is a device of the same user.
        statements: what is known; those about other nodes don't count.
        override: the user's last word.
    """
    clause = override.clause(node)
    local = override.local(node)
    hints: list[SourcedHint] = []
    if clause is not None:
        hints += [SourcedHint(h.hint, h.source, "override") for h in clause.hints]
    if clause is None or clause.mode != "replace":
        for statement in _newest_first([s for s in statements if s.node == node]):
            origin: Origin = "told" if statement.sequence is None else "announced"
            hints += [SourcedHint(h, statement.source, origin) for h in statement.hints]
    ignored = clause is not None and clause.mode == "ignore"
    said = clause.source if clause is not None else DEFAULTS
    return PeerRecord(
        node,
        nickname,
        own,
        _distinct(hints),
        clause.source if clause is not None and ignored else None,
        local,
        said if local != Local() else None,
    )


def _newest_first(statements: Sequence[Statement]) -> list[Statement]:
    """Keep the newest announcement, and after it what has no versions."""
    announced = [s for s in statements if s.sequence is not None]
    newest = max(announced, key=lambda s: s.sequence or 0, default=None)
    told = [s for s in statements if s.sequence is None]
    return told if newest is None else [newest, *told]


def _distinct(hints: Sequence[SourcedHint]) -> tuple[SourcedHint, ...]:
    """Keep one entry a place: the user's before a told one before an announced one.

    A place that was told to us stays callable when it is announced as well.
    """
    order = ("override", "told", "announced")
    best: dict[Hint, SourcedHint] = {}
    for each in hints:
        known = best.get(each.hint)
        if known is None or order.index(each.origin) < order.index(known.origin):
            best[each.hint] = each
    return tuple(best.values())
