"""Announcements: what a node states about itself, for anybody to hand on."""

import json
import re
from collections.abc import Sequence
from typing import Final

from attrs import frozen
from cryptography.hazmat.primitives.asymmetric import ec

from protocols.card import HINTS, distinct, readable
from protocols.errors import Malformed, excerpt
from protocols.hint import Hint
from protocols.nodeid import NodeID
from protocols.signed import Signed, seal
from protocols.strictjson import read_object

LIMIT: Final = 64 * 1024
SERVICES: Final = 32
DAY: Final = 86400
LIFETIME: Final = 30 * DAY
# How far a caller's clock may be wrong, in seconds.
SLACK: Final = DAY

_KIND = "announcement"
_SERVICE = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
# The kinds of routes that may be told to everybody.
_OPEN = ("public", "tor", "via")


@frozen
class Announcement:
    """A verified statement of a node about itself.

    Attributes:
        node: whose it is: the signer.
        hints: where it says that it can be called, at most 16, each once.
        services: what it says that it serves.
        sequence: grows with each announcement of this node.
        end: Unix time in whole seconds from which it no longer holds.
        name: what the node calls itself; decides nothing.
        signed: the statement as it was signed, with whatever a later version
            put into it.
    """

    node: NodeID
    hints: tuple[Hint, ...]
    services: tuple[str, ...]
    sequence: int
    end: int
    name: str | None
    signed: Signed

    @classmethod
    def parse(cls, data: bytes, now: float) -> "Announcement":
        """Read and verify an announcement from anywhere.

        Which hints of a stranger are worth dialling is not decided here.

        Args:
            data: one line of JSON, at most 64 KiB.
            now: Unix time in seconds.

        Raises:
            Malformed: not an announcement, or one that does not hold now.
            BadSignature: altered, or not by that key.
            TypeError: ``data`` is not bytes.
        """
        if not isinstance(data, bytes):
            raise TypeError(f"data must be bytes, not {type(data).__name__}")
        announcement = _of(Signed.parse(data, _KIND, LIMIT))
        if announcement.end <= now:
            raise Malformed(_KIND, "it has expired")
        if announcement.end > now + LIFETIME + SLACK:
            raise Malformed(_KIND, "it ends more than 30 days ahead")
        if announcement.sequence > now + DAY:
            raise Malformed(_KIND, "its sequence number is more than a day ahead")
        return announcement


def announceable(hint: Hint) -> bool:
    """Say whether a hint may stand in one's own announcement.

    Addresses of the local network are for cards and discovery: to everybody
    else they are useless and tell how the network at home looks.
    """
    return hint.route_kind in _OPEN


def announce(
    key: ec.EllipticCurvePrivateKey,
    hints: Sequence[Hint],
    services: Sequence[str],
    sequence: int,
    end: int,
    name: str | None = None,
) -> Announcement:
    """State something about the node that holds a key.

    Args:
        key: the node's server key.
        hints: where to call it; those that are not ``announceable`` are left
            out.
        services: what it serves.
        sequence: from ``next_sequence``.
        end: Unix time in seconds, at most 30 days from now.
        name: only if the user publishes one.

    Raises:
        Malformed: too many hints or services, or a name that can't be shown.
    """
    stated: dict[str, object] = {
        "hints": [hint.text for hint in distinct(hints, _KIND) if announceable(hint)],
        "services": list(services),
        "sequence": sequence,
        "end": end,
    }
    if name is not None:
        stated["name"] = name
    payload = json.dumps(stated, separators=(",", ":")).encode("ascii")
    return _of(seal(_KIND, payload, key))


def next_sequence(stored: int | None, now: float) -> int:
    """Give the number of a node's next announcement.

    The clock keeps it growing for a node that lost what it had stored.

    Args:
        stored: the last one's number, if known.
        now: Unix time in seconds.
    """
    return int(now) if stored is None else max(stored + 1, int(now))


def _of(signed: Signed) -> Announcement:
    """Read the payload; members that this version doesn't know are left alone."""
    stated = read_object(signed.payload, LIMIT, _KIND)
    hints = _texts(stated, "hints", HINTS)
    services = _texts(stated, "services", SERVICES)
    for service in services:
        if not _SERVICE.fullmatch(service):
            raise Malformed(_KIND, f"{excerpt(service)} is not a service's name")
    name = stated.get("name")
    if name is not None and not isinstance(name, str):
        raise Malformed(_KIND, "name must be text")
    return Announcement(
        signed.signer,
        distinct([Hint.parse(hint) for hint in hints], _KIND),
        tuple(dict.fromkeys(services)),
        _number(stated, "sequence"),
        _number(stated, "end"),
        None if name is None else readable(name, "name in an announcement"),
        signed,
    )


def _texts(stated: dict[str, object], key: str, limit: int) -> list[str]:
    items = stated.get(key)
    if not isinstance(items, list):
        raise Malformed(_KIND, f"{key} must be a list")
    if len(items) > limit:
        raise Malformed(_KIND, f"more than {limit} {key}")
    texts = [item for item in items if isinstance(item, str)]
    if len(texts) != len(items):
        raise Malformed(_KIND, f"{key} must be texts")
    return texts


def _number(stated: dict[str, object], key: str) -> int:
    number = stated.get(key)
    # bool is an int to Python, and JSON readers agree on integers up to 2**53.
    if type(number) is not int or not 0 <= number <= 2**53:
        raise Malformed(_KIND, f"{key} must be a whole number")
    return number
