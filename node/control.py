"""The control socket: what the commands may ask of the running node.

HTTP and JSON on a Unix socket that only its owner can open, so there is no
password. Nothing is decided here; every answer comes from a `NodeView`.
"""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import (
    IListeningPort,
    IPushProducer,
    IReactorTime,
    IReactorUNIX,
)
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from zope.interface import implementer

from node.errors import Failed, Usage, WherryError
from protocols.deferreds import starting
from protocols.errors import Malformed, excerpt
from protocols.strictjson import read_object

BODY_LIMIT = 8 * 1024 * 1024
REPORT_SECONDS = 0.1
IDLE_SECONDS = 60.0

_log = Logger()

Document = dict[str, Any]
Report = Callable[[Document], None]


@frozen
class GetRequest:
    """What to fetch, and where to.

    Attributes:
        what: a name, the top of a folder, or a file id.
        directory: where the command was called, an absolute path.
        output: where the user wants it, an absolute path, or None: under its
            own name in `directory`. A folder that exists, or a path that ends
            in ``/``, receives it under its own name.
        from_peer: the only peer to ask, or None.
        force: whether another file of that name may be replaced.
        umask: the caller's, for the files that are made.
    """

    what: str
    directory: Path
    output: str | None
    from_peer: str | None
    force: bool
    umask: int


class NodeView(Protocol):
    """The running node as the commands see it.

    Deferreds fail with a `WherryError`; cancelling one stops the work. A
    report is called on the reactor's thread, as often as convenient.
    """

    def status(self) -> Document:
        """Give the document of ``wherry status``."""
        ...

    def card(self) -> str:
        """Give the card that lets others call this node now."""
        ...

    def peers(self) -> list[Document]:
        """Give one document for each peer."""
        ...

    def explain(self, name: str) -> Document:
        """Give every route to one peer with its verdict."""
        ...

    def ping(self, name: str, timeout: float) -> Deferred[Document]:
        """Ask a peer something small, dialling if need be."""
        ...

    def share(self, paths: list[str], report: Report) -> Deferred[Document]:
        """Copy files into the store."""
        ...

    def files(self) -> Deferred[Document]:
        """Give the document of ``wherry ls``."""
        ...

    def get(self, request: GetRequest, report: Report) -> Deferred[Document]:
        """Fetch and verify; cancelling keeps what is needed to resume."""
        ...

    def admit(self, request: str, words: str | None) -> Deferred[Document]:
        """Admit a new device, or without ``words`` only look at its request.

        Args:
            request: what ``wherry device request`` printed.
            words: those of the request, once somebody has compared them.

        Returns:
            The document of `node.documents.admission`; with words also the
            ``bundle``.
        """
        ...


class Control(Service):
    """Listens on the control socket while it runs.

    Args:
        reactor: where to listen.
        clock: paces the progress that is reported.
        address: of the socket. Whatever is left there from a node that
            crashed is removed: only the holder of the directory's lock may
            start this.
        view: answers the questions.
    """

    def __init__(
        self,
        reactor: IReactorUNIX,
        clock: IReactorTime,
        address: str,
        view: NodeView,
    ) -> None:
        self._reactor = reactor
        self._address = address
        self._connections = _Connections(control_site(view, clock))
        self._port: IListeningPort | None = None

    def startService(self) -> None:
        """Take the address over and listen, for the owner alone."""
        Path(self._address).unlink(missing_ok=True)
        self._port = self._reactor.listenUNIX(
            self._address,
            self._connections,  # type: ignore[arg-type]  # a type variable left open
            mode=0o600,
        )
        super().startService()

    @starting
    async def stopService(self) -> None:
        """Stop listening and cut whoever still asks; fires when all are gone."""
        await maybeDeferred(super().stopService)
        port, self._port = self._port, None
        if port is not None:
            await maybeDeferred(port.stopListening)
        await self._connections.cut()


def control_site(view: NodeView, clock: IReactorTime) -> Site:
    """Make what answers on each connection."""
    site = Site(
        ControlResource(view, clock), _Request, timeout=IDLE_SECONDS, reactor=clock
    )
    site.noisy = False
    # Questions of the owner are nobody's business: no access log.
    site.log = lambda request: None  # type: ignore[method-assign]
    return site


class _Request(Request):
    """Reads no body that is too large: Twisted would write all of it to the disk."""

    too_large = False

    def gotLength(self, length: int | None) -> None:
        """Decide that before any of the body is read; None is any length."""
        if length is None or length > BODY_LIMIT:
            self.too_large = True
            self.channel.length = length = 0
            self.channel.persistent = False
        super().gotLength(length)


class _Connections(WrappingFactory):
    """Knows the live connections, so that they can be ended."""

    noisy = False

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._waiting: list[Deferred[None]] = []

    def cut(self) -> "Deferred[None]":
        """End every connection; fires when none is left."""
        if not self.protocols:
            return succeed(None)
        empty: Deferred[None] = Deferred()
        self._waiting.append(empty)
        for protocol in list(self.protocols):
            protocol.abortConnection()
        return empty

    def unregisterProtocol(self, p: ProtocolWrapper) -> None:
        """Called as each connection ends."""
        super().unregisterProtocol(p)
        if not self.protocols:
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.callback(None)


@frozen
class _Asked:
    """One request, taken apart."""

    query: Mapping[str, str]
    body: Document

    def text(self, key: str) -> str:
        """Give a string that has to be there."""
        return _string(key, self.query.get(key, self.body.get(key)))

    def optional(self, key: str) -> str | None:
        """Give a string that may be missing."""
        return None if self.body.get(key) is None else self.text(key)

    def path(self, key: str) -> str:
        """Give a path that has to be there, of whatever bytes."""
        return _string(key, self.body.get(key), os.fsencode)

    def paths(self, key: str) -> list[str]:
        """Give a list of paths, not empty."""
        value = self.body.get(key)
        if not isinstance(value, list) or not value:
            raise Usage(f'the control socket was sent no list of "{key}"')
        return [_string(key, each, os.fsencode) for each in value]

    def number(self, key: str, low: float, high: float) -> float:
        """Give a number within bounds."""
        value = self.body.get(key)
        if (
            not isinstance(value, int | float)
            or isinstance(value, bool)
            or not low <= value <= high
        ):
            raise Usage(
                f'"{key}" on the control socket must be a number '
                f"from {low:g} to {high:g}"
            )
        return value


def _string(
    key: str, value: object, encode: Callable[[str], bytes] = str.encode
) -> str:
    """Take a string that ``encode`` can write down, for paths and names."""
    if not isinstance(value, str) or not value:
        raise Usage(f'the control socket was sent no "{key}"')
    with suppress(UnicodeEncodeError):
        if b"\0" not in encode(value):
            return value
    raise Usage(
        f"{excerpt(value)} can't be used", "it is not UTF-8, or has a NUL in it"
    )


# What is done for a request: gives a document, or a Deferred of one.
_Work = Callable[[_Asked, Report], Any]


class ControlResource(Resource):
    """Maps methods and paths to a `NodeView`.

    Short answers are one JSON document. ``POST /share`` and ``POST /get``
    answer with one document a line: ``{"progress": ...}`` as often as useful,
    then ``{"done": ...}`` or ``{"error": ...}``. When the asking side goes
    away, its work is cancelled.
    """

    isLeaf = True

    def __init__(self, view: NodeView, clock: IReactorTime) -> None:
        super().__init__()
        self._clock = clock
        self._answers: dict[tuple[bytes, bytes], _Work] = {
            (b"GET", b"/status"): lambda asked, report: view.status(),
            (b"GET", b"/card"): lambda asked, report: {"card": view.card()},
            (b"GET", b"/peers"): lambda asked, report: {"peers": view.peers()},
            (b"GET", b"/explain"): lambda asked, report: view.explain(
                asked.text("peer")
            ),
            (b"GET", b"/files"): lambda asked, report: view.files(),
            (b"POST", b"/ping"): lambda asked, report: view.ping(
                asked.text("peer"), asked.number("timeout", 0, 3600)
            ),
            (b"POST", b"/device/admit"): lambda asked, report: view.admit(
                asked.text("request"), asked.optional("words")
            ),
        }
        self._streams: dict[tuple[bytes, bytes], _Work] = {
            (b"POST", b"/share"): lambda asked, report: view.share(
                asked.paths("paths"), report
            ),
            (b"POST", b"/get"): lambda asked, report: view.get(
                _get_request(asked), report
            ),
        }

    def render(self, request: _Request) -> int:
        """Answer now or later; failures become documents too."""
        key = (request.method, request.path)
        if (work := self._streams.get(key)) is not None:
            _Exchange(request, self._clock, streaming=True).run(work)
        else:
            work = self._answers.get(key, _unknown)
            _Exchange(request, self._clock, streaming=False).run(work)
        return NOT_DONE_YET


def _unknown(asked: _Asked, report: Report) -> Document:
    raise Failed(
        "the running node does not know this command",
        do="If Wherry was updated, restart it: wherry down, then wherry up",
    )


@implementer(IPushProducer)
class _Exchange:
    """One request and what is done for it.

    Progress is sent at most every tenth of a second, and not at all while the
    reader is behind: a stopped command must not fill the node's memory.
    """

    def __init__(
        self, request: _Request, clock: IReactorTime, *, streaming: bool
    ) -> None:
        self._request = request
        self._clock = clock
        self._streaming = streaming
        self._last_report = -REPORT_SECONDS
        self._behind = False
        self._gone = False

    def run(self, work: _Work) -> None:
        """Do the work, and answer with how it ended unless nobody listens."""
        self._request.setHeader(b"Content-Type", b"application/json")
        if self._streaming:
            self._request.registerProducer(self, True)
            self._request.write(b"")  # the headers: we have been heard
        done = maybeDeferred(lambda: work(_taken_apart(self._request), self.report))

        def gone(reason: Failure) -> None:
            self._gone = True
            done.cancel()

        self._request.notifyFinish().addErrback(gone)
        done.addCallbacks(self._done, self._failed)
        done.addErrback(lambda failure: _log.failure("while answering", failure))

    def _done(self, document: Document) -> None:
        self._end(200, {"done": document} if self._streaming else document)

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, Malformed):
            error = Failed(str(error))
        if isinstance(error, WherryError):
            status = 409
        elif isinstance(error, CancelledError):
            status, error = 503, Failed("cut short: the node is stopping")
        else:
            _log.failure("a command failed inside the node", failure)
            status, name = 500, type(error).__name__
            error = Failed(
                f"an error inside the node ({name})",
                do="Please report it with what the log says",
            )
        self._end(status, {"error": {"message": str(error), "code": error.code}})

    def report(self, progress: Document) -> None:
        """Send progress, or not."""
        now = self._clock.seconds()
        if self._behind or self._gone or now - self._last_report < REPORT_SECONDS:
            return
        self._last_report = now
        self._request.write(_line({"progress": progress}))

    def _end(self, status: int, document: Document) -> None:
        if self._gone:
            return
        if self._streaming:
            self._request.unregisterProducer()
        else:
            self._request.setResponseCode(status)
        self._request.write(_line(document))
        self._request.finish()

    def pauseProducing(self) -> None:
        """The reader is behind."""
        self._behind = True

    def resumeProducing(self) -> None:
        """The reader has caught up."""
        self._behind = False

    def stopProducing(self) -> None:
        """The reader is gone."""
        self._behind = True


def _taken_apart(request: _Request) -> _Asked:
    if request.too_large:
        raise Usage("what was asked is too large", f"over {BODY_LIMIT} bytes")
    data = b"" if request.content is None else request.content.read()
    try:
        query = {
            key.decode("utf-8"): values[-1].decode("utf-8")
            for key, values in request.args.items()
        }
        body = read_object(data, BODY_LIMIT, "what was asked") if data else {}
    except (Malformed, UnicodeDecodeError) as error:
        raise Usage("the control socket was sent nonsense", str(error)) from error
    return _Asked(query, body)


def _get_request(asked: _Asked) -> GetRequest:
    directory = Path(asked.path("directory"))
    if not directory.is_absolute():
        raise Usage("the control socket was sent a relative directory")
    return GetRequest(
        what=asked.text("what"),
        directory=directory,
        output=None if asked.body.get("output") is None else asked.path("output"),
        from_peer=asked.optional("from_peer"),
        force=asked.body.get("force") is True,
        umask=int(asked.number("umask", 0, 0o777)),
    )


def _line(document: Document) -> bytes:
    return json.dumps(document).encode("utf-8") + b"\n"
