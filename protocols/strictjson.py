"""JSON from strangers: one object, and nothing that two readers take differently."""

import json

from protocols.errors import Malformed


def read_object(data: bytes, limit: int, what: str) -> dict[str, object]:
    """Read one JSON object in UTF-8.

    Args:
        data: the bytes as they came.
        limit: how many of them are too many to look at, plus one.
        what: what to call it in an error.

    Raises:
        Malformed: too long, not JSON, not an object, nested too deep, or with
            a doubled key, of which the usual readers silently keep the last.
        TypeError: ``data`` is not bytes.
    """
    if not isinstance(data, bytes):
        raise TypeError(f"{what} must be bytes, not {type(data).__name__}")
    if len(data) > limit:
        raise Malformed(what, f"longer than {limit} bytes")

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        members = dict(pairs)
        if len(members) != len(pairs):
            raise Malformed(what, "has a key twice")
        return members

    def constant(_: str) -> object:
        raise Malformed(what, "has a number that JSON does not know")

    try:
        document = json.loads(
            data.decode("utf-8"), object_pairs_hook=unique, parse_constant=constant
        )
    except Malformed:
        raise
    except RecursionError:
        raise Malformed(what, "is nested too deep") from None
    except ValueError:  # not UTF-8, not JSON, or a number with thousands of digits
        raise Malformed(what, "is not JSON") from None
    if not isinstance(document, dict):
        raise Malformed(what, "is not a JSON object")
    return document
