"""What can be wrong with a value or with the other end of a wire."""

from attrs import frozen


class ProtocolError(Exception):
    """Base of every error of this package."""


@frozen
class Malformed(ProtocolError, ValueError):
    """Bytes or text that are not what they should be.

    Attributes:
        what: the thing that was parsed, such as ``"card"``.
        why: what is wrong with it, in words for the user. Never holds more
            of the input than is safe to print on one line.
    """

    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


def excerpt(text: object, limit: int = 60) -> str:
    """Give a printable, bounded rendering of hostile input for a message."""
    shown = ascii(text)
    return shown if len(shown) <= limit else shown[: limit - 4] + "..." + shown[0]
