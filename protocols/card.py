"""Cards: one line that lets others call a node."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from attrs import field, frozen

from protocols import base32
from protocols.errors import Malformed, excerpt
from protocols.hint import Hint
from protocols.nodeid import NodeID

LIMIT: Final = 4096
HINTS: Final = 16
NAME_LENGTH: Final = 64
DISCOVERY_SIZE: Final = 16

_SCHEME = "wherry://"
_KNOWN = ("d", "name", "cap")
_KEY = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_VALUE = re.compile(r"[!-~]*")
_SEPARATORS = re.compile(r"[&#]")
_CAP = re.compile(r"[A-Za-z0-9._~-]{1,128}")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
# What RFC 3986 lets stand in a query, without what separates in a card.
_SAFE_IN_NAME = "!$'()*/:;@"


def readable(name: str, what: str = "name") -> str:
    """Give a name back if people can read what it says.

    Control characters, and the invisible ones that turn the direction of text
    around or hide in it, would let a name look like something else.

    Args:
        name: what a person or a peer typed.
        what: what to call it in an error.

    Raises:
        Malformed: empty, over 64 characters, or not printable.
        TypeError: ``name`` is not a str.
    """
    if not isinstance(name, str):
        raise TypeError(f"{what} must be str, not {type(name).__name__}")
    if not 1 <= len(name) <= NAME_LENGTH:
        raise Malformed(what, f"must have 1 to {NAME_LENGTH} characters")
    if not name.isprintable():
        bad = next(c for c in name if not c.isprintable())
        raise Malformed(what, f"has a character that can't be shown: {excerpt(bad)}")
    if name != name.strip() or all(unicodedata.category(c)[0] == "M" for c in name):
        raise Malformed(what, "must begin and end with something that can be seen")
    return name


def distinct(hints: Sequence[Hint], what: str) -> tuple[Hint, ...]:
    """Drop repeated hints, keep the order.

    Raises:
        Malformed: more than 16 are left.
    """
    kept = tuple(dict.fromkeys(hints))
    if len(kept) > HINTS:
        raise Malformed(what, f"more than {HINTS} hints")
    return kept


def _few(hints: Sequence[Hint]) -> tuple[Hint, ...]:
    return distinct(hints, "card")


@frozen
class Card:
    """What others need to call a node.

    Its ``text`` holds secrets; ``str`` and ``repr`` don't show them.

    Attributes:
        node: whom it calls.
        hints: where, at most 16, each once.
        discovery: the 16 bytes by which the local network recognises the node.
        name: what the node calls itself.
        cap: what an introducer asks for before it takes or gives announcements.
        extra: parameters that a later version added, as they were spelled.
    """

    node: NodeID
    hints: tuple[Hint, ...] = field(converter=_few, default=())
    discovery: bytes | None = field(repr=False, default=None)
    name: str | None = None
    cap: str | None = field(repr=False, default=None)
    extra: tuple[tuple[str, str], ...] = field(repr=False, default=())

    def __attrs_post_init__(self) -> None:
        # No message here quotes a value: it may be a secret with a typing error.
        if self.discovery is not None and len(self.discovery) != DISCOVERY_SIZE:
            raise Malformed("card", f"d must stand for {DISCOVERY_SIZE} bytes")
        if self.name is not None:
            readable(self.name, "name in a card")
        if self.cap is not None and not _CAP.fullmatch(self.cap):
            raise Malformed("card", "cap must be 1 to 128 of A-Z a-z 0-9 . _ ~ -")
        keys = [key for key, _ in self.extra]
        if len({*keys, *_KNOWN}) != len(keys) + len(_KNOWN):
            raise Malformed("card", "a parameter stands in it twice")
        for key, value in self.extra:
            if not _KEY.fullmatch(key):
                raise Malformed("card", f"{excerpt(key)} is not a parameter's name")
            if not _VALUE.fullmatch(value) or _SEPARATORS.search(value):
                raise Malformed("card", f"{key} has characters that no card has")
        if len(self.text()) > LIMIT:
            raise Malformed("card", f"longer than {LIMIT} characters")

    @classmethod
    def parse(cls, text: str) -> "Card":
        """Read ``wherry://NODEID@HINT,HINT?d=DISCOVERY&name=NAME&cap=SECRET``.

        White space around it is taken off, as copying adds it.

        Raises:
            Malformed: not a card.
            TypeError: ``text`` is not a str.
        """
        if not isinstance(text, str):
            raise TypeError(f"a card must be str, not {type(text).__name__}")
        line = text.strip()
        if len(line) > LIMIT:
            raise Malformed("card", f"longer than {LIMIT} characters")
        if not line.startswith(_SCHEME):
            raise Malformed("card", f"does not begin with {_SCHEME}")
        place, question, query = line.removeprefix(_SCHEME).partition("?")
        node, at, hints = place.partition("@")
        if not at:
            raise Malformed("card", "has no @ after the node id")
        values = _parameters(query) if question else {}
        discovery, name, cap = (values.pop(key, None) for key in _KNOWN)
        return cls(
            NodeID(node),
            tuple(map(Hint.parse, hints.split(","))) if hints else (),
            None if discovery is None else _discovery(discovery),
            None if name is None else _unquoted(name),
            cap,
            tuple(values.items()),
        )

    def text(self) -> str:
        """Spell the card, secrets included."""
        parameters: list[tuple[str, str]] = []
        if self.discovery is not None:
            parameters.append(("d", base32.encode(self.discovery)))
        if self.name is not None:
            parameters.append(("name", quote(self.name, safe=_SAFE_IN_NAME)))
        if self.cap is not None:
            parameters.append(("cap", self.cap))
        query = "&".join(f"{k}={v}" for k, v in (*parameters, *self.extra))
        hints = ",".join(hint.text for hint in self.hints)
        return f"{_SCHEME}{self.node}@{hints}" + (f"?{query}" if query else "")


def _parameters(query: str) -> dict[str, str]:
    """Split a query; values stay as they are spelled."""
    values: dict[str, str] = {}
    for part in query.split("&"):
        key, equals, value = part.partition("=")
        if not equals or not _KEY.fullmatch(key):
            raise Malformed("card", "has a parameter that is not of the form KEY=VALUE")
        if key in values:
            raise Malformed("card", f"has {key} twice")
        values[key] = value
    return values


def _discovery(text: str) -> bytes:
    try:
        return base32.decode(text, DISCOVERY_SIZE)
    except Malformed:
        # The cause quotes the secret, so it must not be chained to this error.
        raise Malformed("card", "d is not 26 characters of base32") from None


def _unquoted(text: str) -> str:
    if _BAD_PERCENT.search(text):
        raise Malformed("name in a card", "has a % without two hexadecimal digits")
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeError:
        raise Malformed("name in a card", "is not UTF-8") from None
