"""Names of shared files: relative paths that can't lead anywhere else."""

import unicodedata

from protocols.errors import Malformed, excerpt

MAX_NAME_BYTES = 4096
MAX_PART_BYTES = 255

# Characters that turn the reading direction: "photo<turn>gpj.exe" reads as a
# picture. The harmless marks U+200E and U+200F are left alone.
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})


def check_name(name: str) -> str:
    """Refuse a name that is not a plain relative path joined by ``/``.

    A name that passes has no empty, ``.`` or ``..`` part, no backslash and no
    character that a terminal acts on; each part fits a Linux file name.

    Args:
        name: what a peer, or a folder on disk, calls a file.

    Returns:
        The name, unchanged.

    Raises:
        Malformed: with the reason in words for the user.
        TypeError: ``name`` is not a str.
    """
    if not isinstance(name, str):
        raise TypeError(f"a file name must be str, not {type(name).__name__}")
    if len(name) > MAX_NAME_BYTES:
        raise _malformed(name, "is too long")
    for character in name:
        if unicodedata.category(character) == "Cs":
            raise _malformed(name, "is not UTF-8")
        if unicodedata.category(character) in _UNPRINTABLE:
            raise _malformed(name, f"contains the character U+{ord(character):04X}")
        if character in _TURNING:
            raise _malformed(name, "turns the reading direction")
    if "\\" in name:
        raise _malformed(name, "contains a backslash")
    if len(name.encode("utf-8")) > MAX_NAME_BYTES:
        raise _malformed(name, "is too long")
    for part in name.split("/"):
        if part in {"", ".", ".."}:
            raise _malformed(name, "is not a plain relative path")
        if len(part.encode("utf-8")) > MAX_PART_BYTES:
            raise _malformed(name, f"has a part of over {MAX_PART_BYTES} bytes")
    return name


def _malformed(name: str, why: str) -> Malformed:
    return Malformed("file name", f"{excerpt(name)} {why}")
