"""Lower-case base32 without padding (RFC 4648), in its one canonical spelling."""

import base64
import binascii
from typing import Any, ClassVar

from attrs import field, frozen

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


def _canonical(id: "DigestID", _: Any, text: str) -> None:
    decode(text, DigestID.SIZE, id.WHAT)


@frozen(order=True)
class DigestID:
    """A name that is a digest of 32 bytes, and so proves itself.

    Attributes:
        text: the 52 characters; there is only one spelling.
    """

    SIZE: ClassVar = 32
    WHAT: ClassVar = "id"

    text: str = field(validator=_canonical)

    @property
    def digest(self) -> bytes:
        """The digest itself."""
        return decode(self.text, self.SIZE, self.WHAT)

    @property
    def short(self) -> str:
        """The first seven characters and an ellipsis, for people to read."""
        return self.text[:7] + "…"

    def __str__(self) -> str:
        return self.text
