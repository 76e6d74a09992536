"""``/files/``: what a node holds, as far as the caller may see it."""

import os
from collections.abc import Callable, Sequence
from typing import Protocol

from protocols.errors import Malformed
from protocols.fileid import FileID, Leaves
from protocols.principal import Principal
from protocols.ranges import Part, Unsatisfiable, parse_range
from protocols.request import (
    PeerRequest,
    Refusal,
    Resource,
    acquaintances,
    bad_request,
    not_found,
)
from protocols.sending import Sending

PAGE = 1000
"""The most entries on a page of the list."""

PAGE_BYTES = 1 << 20
"""About how many bytes of names a page of the list has at most."""

_BINARY = "application/octet-stream"

# Content is named by its own hash: it never changes, and since anybody may have
# made it, no browser may take it for a page of ours.
_CONTENT = {
    "Accept-Ranges": "bytes",
    "Cache-Control": "private, max-age=31536000, immutable",
    "Content-Disposition": "attachment",
    "Content-Security-Policy": "sandbox; default-src 'none'",
}


class Entry(Protocol):
    """One name of one content, in a list."""

    @property
    def row(self) -> int:
        """A number that grows from entry to entry."""

    @property
    def id(self) -> FileID:
        """The content."""

    @property
    def name(self) -> str:
        """Its name: parts joined by slashes."""

    @property
    def size(self) -> int:
        """In bytes."""

    @property
    def media_type(self) -> str:
        """Such as ``text/plain``."""


class OpenFile(Protocol):
    """Content that is being read."""

    @property
    def fd(self) -> int:
        """A descriptor for ``os.pread``."""

    @property
    def size(self) -> int:
        """In bytes."""

    @property
    def media_type(self) -> str:
        """Such as ``text/plain``."""

    @property
    def leaves(self) -> Leaves:
        """The leaf hashes."""

    def close(self) -> None:
        """Give the descriptor back; more than once does no harm."""


class FileSource(Protocol):
    """Who holds the files, and knows who may see which."""

    def entries(
        self,
        caller: Principal,
        after: int,
        limit: int,
        name: str | None,
        under: str | None,
    ) -> Sequence[Entry]:
        """List what a caller may see, by row, beyond the row ``after``."""

    def named(self, caller: Principal, id: FileID) -> Sequence[Entry]:
        """List the names that a caller may see of one content."""

    def open(self, caller: Principal, id: FileID) -> OpenFile | None:
        """Open content; None if it isn't there, or not for this caller."""


def files(source: FileSource) -> list[Resource]:
    """Make ``/files/`` and all below it."""

    def listing(request: PeerRequest) -> None:
        query = request.decision.query
        after = _number(query.get("after", "0"), 0, (1 << 63) - 1)
        limit = _number(query.get("limit", str(PAGE)), 1, PAGE)
        if "id" in query:
            named = source.named(request.caller, _id(query["id"]))
            found = [each for each in named if each.row > after][:limit]
        else:
            found = list(
                source.entries(
                    request.caller, after, limit, query.get("name"), query.get("under")
                )
            )
        page = _page(found)
        more = len(found) == limit or len(page) < len(found)
        shown = [
            {
                "id": each.id.text,
                "name": each.name,
                "size": each.size,
                "media_type": each.media_type,
            }
            for each in page
        ]
        last = page[-1].row if more else None
        request.send_json({"schema": 1, "files": shown, "next": last})

    def content(request: PeerRequest) -> None:
        id, file = _opened(source, request)

        def read(offset: int, size: int) -> bytes:
            return os.pread(file.fd, size, offset)

        try:
            _send(request, id.text, file.media_type, file.size, read, file.close)
        except BaseException:
            file.close()
            raise

    def leaves(request: PeerRequest) -> None:
        id, file = _opened(source, request)
        try:
            data = file.leaves.encode()
        finally:
            file.close()

        def read(offset: int, size: int) -> bytes:
            return data[offset : offset + size]

        _send(request, f"{id}/leaves", _BINARY, len(data), read, lambda: None)

    keys = frozenset({"after", "limit", "id", "name", "under"})
    return [
        Resource("/files/", "GET HEAD", acquaintances, listing, keys),
        Resource("/files/{}", "GET HEAD", acquaintances, content),
        Resource("/files/{}/leaves", "GET HEAD", acquaintances, leaves),
    ]


def _number(text: str, least: int, most: int) -> int:
    """Read a number of a query."""
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise bad_request("a number was expected in the query")
    number = int(text)
    if not least <= number <= most:
        raise bad_request(f"a number from {least} to {most} was expected in the query")
    return number


def _page(entries: Sequence[Entry]) -> Sequence[Entry]:
    """Take as many entries as fit a page, but at least one."""
    total = 0
    for count, each in enumerate(entries):
        total += len(each.name)
        if total > PAGE_BYTES and count:
            return entries[:count]
    return entries


def _id(text: str) -> FileID:
    try:
        return FileID(text)
    except Malformed:
        raise not_found() from None


def _opened(source: FileSource, request: PeerRequest) -> tuple[FileID, OpenFile]:
    id = _id(request.decision.parts[0])
    file = source.open(request.caller, id)
    if file is None:
        raise not_found()
    return id, file


def _send(
    request: PeerRequest,
    tag: str,
    media_type: str,
    size: int,
    read: Callable[[int, int], bytes],
    done: Callable[[], object],
) -> None:
    """Answer with something immutable, or with a part of it.

    Args:
        request: what to answer.
        tag: names these bytes for ever.
        media_type: of these bytes.
        size: how many there are.
        read: gives them: an offset, and how many at most.
        done: called when they are not needed any more.
    """
    etag = f'"{tag}"'
    head = _CONTENT | {"ETag": etag}
    if _matches(request.header("If-None-Match"), etag):
        request.begin(304, head)
        done()
        request.finish()
        return
    part = None
    if request.method == b"GET" and request.header("If-Range") in (None, etag):
        part = parse_range(request.header("Range"), size)
    if isinstance(part, Unsatisfiable):
        where = {"Content-Range": f"bytes */{size}", "ETag": etag}
        reason = f"there are {size} bytes"
        raise Refusal(416, "range_not_satisfiable", reason, where)
    start, stop, status = 0, size, 200
    if isinstance(part, Part):
        start, stop, status = part.start, part.stop, 206
        head["Content-Range"] = part.content_range(size)
    head["Content-Type"] = media_type
    head["Content-Length"] = str(stop - start)
    request.begin(status, head)
    if request.method == b"HEAD":
        done()
        request.finish()
    else:
        Sending(request, read, start, stop, done)


def _matches(header: str | None, etag: str) -> bool:
    """Compare an If-None-Match header weakly (RFC 9110, 13.1.2)."""
    tags = [each.strip().removeprefix("W/") for each in (header or "").split(",")]
    return etag in tags or tags == ["*"]
