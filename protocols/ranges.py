"""The Range header of a request, as RFC 9110, section 14, reads it."""

import re

from attrs import frozen


@frozen
class Whole:
    """No range, or one that is to be ignored: send everything."""


@frozen
class Part:
    """Send the bytes from ``start`` up to, not including, ``stop``."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """How many bytes that is; never 0."""
        return self.stop - self.start

    def content_range(self, size: int) -> str:
        """Spell the Content-Range header of the answer."""
        return f"bytes {self.start}-{self.stop - 1}/{size}"


@frozen
class Unsatisfiable:
    """A well-formed range with nothing in it: 416."""


# Twenty digits count far beyond any file; more is nobody's honest request.
_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,20})-([0-9]{0,20})[ \t]*", re.IGNORECASE)


def parse_range(header: str | None, size: int) -> Whole | Part | Unsatisfiable:
    """Decide what to send of a representation of ``size`` bytes.

    Several ranges and malformed ones are ignored, which RFC 9110, 14.2, allows:
    the answer is the whole.

    Args:
        header: the value of the Range header, if there was one.
        size: bytes in the representation.
    """
    match = _RANGE.fullmatch(header) if header is not None else None
    if match is None or match[1] == match[2] == "":
        return Whole()
    first, last = match[1], match[2]
    if not first:
        if int(last) == 0:
            return Unsatisfiable()
        # The last bytes of nothing are nothing, which no 206 can express.
        return Part(max(0, size - int(last)), size) if size else Whole()
    start = int(first)
    if last and int(last) < start:
        return Whole()
    if start >= size:
        return Unsatisfiable()
    return Part(start, min(int(last) + 1, size) if last else size)
