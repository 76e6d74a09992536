"""The target of a request line: split and decoded once, and decided from that."""

import re
from urllib.parse import unquote_to_bytes

from attrs import frozen

from protocols.errors import Malformed

LIMIT = 8192
"""How many bytes a target may have."""

# Printable ASCII, and every percent sign begins two hex digits.
_SPELLED = re.compile(rb"(?:[!-$&-~]|%[0-9A-Fa-f]{2})*")


@frozen
class Target:
    """A request target in decoded parts; nothing looks at its raw form again.

    Attributes:
        segments: what stands between the slashes of the path. The last one is
            empty if the path ends in a slash; no other one ever is, and none
            is a dot segment or holds a slash or a control character.
        query: the pairs after the question mark, in their order; no key twice.
    """

    segments: tuple[str, ...]
    query: tuple[tuple[str, str], ...] = ()


def parse_target(raw: bytes) -> Target:
    """Read a request target in origin form (RFC 9112, 3.2.1).

    Raises:
        Malformed: too long, not in origin form, or it holds what could mean
            another place than it says: dot segments, empty segments, encoded
            slashes, control characters, wrong percent-encoding, not UTF-8.
    """
    if len(raw) > LIMIT:
        raise Malformed("target", f"longer than {LIMIT} bytes")
    if not raw.startswith(b"/"):
        raise Malformed("target", "it must begin with a slash")
    if b"#" in raw:
        raise Malformed("target", "a fragment has no place in it")
    path, _, query = raw.partition(b"?")
    *inner, last = (_segment(part) for part in path[1:].split(b"/"))
    if "" in inner:
        raise Malformed("target", "an empty path segment")
    return Target((*inner, last), _pairs(query))


def _segment(raw: bytes) -> str:
    text = _decode(raw)
    if text in (".", ".."):
        raise Malformed("target", "a dot segment")
    if "/" in text or "\\" in text:
        raise Malformed("target", "an encoded slash, or a backslash")
    return text


def _pairs(raw: bytes) -> tuple[tuple[str, str], ...]:
    pairs: dict[str, str] = {}
    for part in raw.split(b"&") if raw else ():
        key, equals, value = part.partition(b"=")
        if not key or not equals:
            raise Malformed("target", "the query is not KEY=VALUE&...")
        name = _decode(key, plus=b" ")
        if name in pairs:
            raise Malformed("target", "a query key stands there twice")
        pairs[name] = _decode(value, plus=b" ")
    return tuple(pairs.items())


def _decode(raw: bytes, plus: bytes = b"+") -> str:
    """Decode once; in a query a plus sign stands for a space."""
    if not _SPELLED.fullmatch(raw):
        raise Malformed("target", "bytes that must be percent-encoded, or a bad %")
    try:
        text = unquote_to_bytes(raw.replace(b"+", plus)).decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("target", "not UTF-8 once decoded") from None
    if any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in text):
        raise Malformed("target", "a control character")
    return text
