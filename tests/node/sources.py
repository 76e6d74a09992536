"""Peers that hold files, made of memory, and ways in which they misbehave."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, cast
from urllib.parse import parse_qs, urlsplit

from attrs import define, field
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IProtocol, IPushProducer, ITransport
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse
from zope.interface import implementer

from protocols.fileid import FileID, Leaves
from protocols.nodeid import NodeID
from protocols.ranges import Part, parse_range
from tests.protocols.test_fileid import leaves_of

T = TypeVar("T")
DONE = ResponseDone("done")
CHUNK = 1 << 16


def at_once(function: Callable[..., T], *args: Any, **kwargs: Any) -> Deferred[T]:
    """Stand in for a thread."""
    return maybeDeferred(function, *args, **kwargs)


@implementer(IPushProducer)
class Flow:
    """The connection below one answer: gives chunks as long as it may.

    Attributes:
        stopped: the reader has ended it.
        given: bytes so far.
    """

    def __init__(
        self, chunks: Iterator[bytes], end: BaseException | None, protocol: IProtocol
    ) -> None:
        self._chunks = chunks
        self._end = end
        self._protocol = protocol
        self._paused = self._running = self.stopped = False
        self.given = 0

    def resumeProducing(self) -> None:
        """Give what there is, until paused; then end, or hang if there's no end."""
        self._paused = False
        if self._running:
            return
        self._running = True
        while not self._paused and not self.stopped:
            chunk = next(self._chunks, None)
            if chunk is None:
                if self._end is not None:
                    self.stopped = True
                    self._protocol.connectionLost(Failure(self._end))
                break
            self.given += len(chunk)
            self._protocol.dataReceived(chunk)
        self._running = False

    def pauseProducing(self) -> None:
        """Wait."""
        self._paused = True

    def stopProducing(self) -> None:
        """End it; as with a real connection, nothing is called back at once."""
        self.stopped = True


@implementer(IResponse)
class Answer:
    """One answer with a body of chunks.

    Args:
        code: the status.
        chunks: of the body.
        length: what it says that the body's length is.
        headers: such as Content-Range.
        end: what ends the body; None: it hangs.
    """

    version = (b"HTTP", 1, 1)
    phrase = b""
    request = previousResponse = cast(Any, None)

    def __init__(
        self,
        code: int,
        chunks: Iterator[bytes],
        length: Any,
        headers: Mapping[str, str] | None = None,
        end: BaseException | None = DONE,
    ) -> None:
        self.code = code
        self.headers = Headers({key: [value] for key, value in (headers or {}).items()})
        self.length = length
        self.flow: Flow | None = None
        self._chunks = chunks
        self._end = end

    def deliverBody(self, protocol: IProtocol) -> None:
        """Begin to give the body."""
        self.flow = Flow(self._chunks, self._end, protocol)
        protocol.makeConnection(cast(ITransport, self.flow))
        self.flow.resumeProducing()

    def setPreviousResponse(self, response: IResponse) -> None:
        """Redirects are never followed."""
        raise AssertionError("a redirect was followed")


def pieces(data: bytes) -> Iterator[bytes]:
    """Cut a body as a network does."""
    return (data[at : at + CHUNK] for at in range(0, len(data), CHUNK))


def answer(code: int, data: bytes, **more: Any) -> Answer:
    """An answer that says the truth about its length."""
    return Answer(code, pieces(data), len(data), **more)


Fault = Callable[[str, Mapping[str, str]], IResponse | BaseException | None]


@define
class MemorySource:
    """A peer that serves files as the real site does, or as a fault says.

    Attributes:
        files: content by name.
        fault: looks at each request first; may answer or fail instead.
        asked: all requests, as path and Range header.
        answers: all answers that were given.
    """

    files: dict[str, bytes]
    nickname: str | None = "laptop"
    node: NodeID = field(factory=lambda: NodeID("a" * 52))
    fault: Fault = lambda path, headers: None
    asked: list[tuple[str, str | None]] = field(factory=list)
    answers: list[Answer] = field(factory=list)

    def request(
        self, method: bytes, path: str, headers: Mapping[str, str] = {}
    ) -> Deferred[IResponse]:
        """Answer from memory."""
        self.asked.append((path, headers.get("Range")))
        if method != b"GET":
            raise AssertionError(method)
        given = self.fault(path, headers) or self._serve(path, headers)
        if isinstance(given, BaseException):
            return fail(given)
        if isinstance(given, Answer):
            self.answers.append(given)
        return succeed(given)

    def _serve(self, path: str, headers: Mapping[str, str]) -> Answer:
        parts = urlsplit(path)
        if parts.path == "/files/":
            return answer(200, self._list(parse_qs(parts.query)))
        for content in self.files.values():
            leaves = leaves_of(content)
            if path == f"/files/{leaves.id}/leaves":
                return answer(200, leaves.encode())
            if path == f"/files/{leaves.id}":
                part = parse_range(headers.get("Range"), len(content))
                if isinstance(part, Part):
                    given = {"Content-Range": part.content_range(len(content))}
                    data = content[part.start : part.stop]
                    return answer(206, data, headers=given)
                return answer(200, content)
        return answer(404, b"{}")

    def _list(self, query: Mapping[str, list[str]]) -> bytes:
        after, limit = int(query["after"][0]), int(query["limit"][0])
        name, under, id = query.get("name"), query.get("under"), query.get("id")
        rows = [
            (row, each)
            for row, each in enumerate(self.files, 1)
            if row > after
            and (name is None or each == name[0])
            and (under is None or each.startswith(under[0] + "/"))
            and (id is None or leaves_of(self.files[each]).id.text == id[0])
        ]
        page = rows[:limit]
        files = [
            {
                "id": leaves_of(self.files[each]).id.text,
                "name": each,
                "size": len(self.files[each]),
                "media_type": "text/plain",
            }
            for _, each in page
        ]
        following = page[-1][0] if len(rows) > limit else None
        return json.dumps({"schema": 1, "files": files, "next": following}).encode()


def leaves_path(id: FileID) -> str:
    """Where leaf hashes are."""
    return f"/files/{id}/leaves"


def content_path(leaves: Leaves) -> str:
    """Where content is."""
    return f"/files/{leaves.id}"
