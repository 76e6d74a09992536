"""Lower-case base32 without padding (RFC 4648), in its one canonical spelling."""

import base64
import binascii

from protocols.errors import Malformed, excerpt


def encode(data: bytes) -> str:
    """Spell bytes as lower-case base32 without padding."""
    return base64.b32encode(data).decode("ascii").rstrip("=").lower()


def length(size: int) -> int:
    """Count the characters that ``size`` bytes take."""
    return (size * 8 + 4) // 5


def decode(text: str, size: int, what: str = "base32 text") -> bytes:
    """Read exactly ``size`` bytes back; only the canonical spelling is taken.

    Python's decoder ignores the unused low bits of the last character, so the
    result is spelled again and compared.

    Args:
        text: the spelling.
        size: how many bytes it must stand for.
        what: what to call it in an error.

    Raises:
        Malformed: wrong length, alphabet, case or spare bits.
        TypeError: ``text`` is not a str.
    """
    if not isinstance(text, str):
        raise TypeError(f"{what} must be str, not {type(text).__name__}")
    if len(text) != length(size):
        raise Malformed(what, f"{length(size)} characters expected, not {len(text)}")
    try:
        data = base64.b32decode(text.upper() + "=" * (-len(text) % 8))
    except (binascii.Error, ValueError):
        raise Malformed(what, f"{excerpt(text)} is not lower-case base32") from None
    if encode(data) != text:
        raise Malformed(what, f"{excerpt(text)} is not spelled canonically")
    return data
