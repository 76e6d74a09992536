"""A request to a node: decided in one place, answered by one resource, or refused.

`decide` is that place. It takes the raw target, so that nothing is looked up,
allowed or answered by another reading of it, and it asks every resource's own
rule who may have it: a resource can't be made without one.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import cast

from attrs import field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.iweb import INonQueuedRequestFactory
from zope.interface import provider

from protocols.deferreds import starting
from protocols.errors import Malformed, ProtocolError
from protocols.principal import OwnDevice, Principal, Stranger
from protocols.target import parse_target

_log = Logger()

JSON = "application/json"


@frozen
class Refusal(ProtocolError):
    """An answer that says no. Raise it anywhere while answering.

    Attributes:
        status: the HTTP status.
        error: one word for programs.
        reason: for people; never more of the request than is safe to show.
        headers: what else the answer says.
    """

    status: int
    error: str
    reason: str
    headers: Mapping[str, str] = field(factory=dict)

    @property
    def body(self) -> bytes:
        """The JSON that is sent."""
        return _json({"error": self.error, "reason": self.reason})


def not_found() -> Refusal:
    """There is no such thing, or the caller must not know that there is."""
    return Refusal(404, "not_found", "there is nothing here by this name")


def bad_request(reason: str) -> Refusal:
    """The request itself is wrong."""
    return Refusal(400, "bad_request", reason)


def anyone(_: Principal) -> bool:
    """Let everybody in whom TLS let in."""
    return True


def acquaintances(caller: Principal) -> bool:
    """Let own devices and people in."""
    return not isinstance(caller, Stranger)


def own_devices(caller: Principal) -> bool:
    """Let own devices in."""
    return isinstance(caller, OwnDevice)


@frozen
class Resource:
    """Something to ask for.

    Attributes:
        pattern: its path. ``{}`` stands for one segment that is not empty, a
            ``{*}`` at the end for one or more of any kind.
        methods: what may be asked of it, such as ``"GET HEAD"``.
        who: the rule for who may ask.
        answer: answers a request that was decided to be for it; at the end of
            the Deferred, if it gives one, the request is over or in the care
            of a producer. What it raises becomes the answer.
        keys: the keys that a query may have.
        body: how many bytes the body of a request may have.
    """

    pattern: str
    methods: str
    who: Callable[[Principal], bool]
    answer: Callable[["PeerRequest"], Deferred[None] | None]
    keys: frozenset[str] = frozenset()
    body: int = 0

    def match(self, segments: Sequence[str]) -> tuple[str, ...] | None:
        """Give what stands for the braces, or None if this isn't the path."""
        wanted = self.pattern[1:].split("/")
        rest: tuple[str, ...] = ()
        if wanted[-1] == "{*}":
            wanted = wanted[:-1]
            rest = tuple(segments[len(wanted) :])
            if not rest:
                return None
            segments = segments[: len(wanted)]
        if len(wanted) != len(segments):
            return None
        pairs = list(zip(wanted, segments, strict=True))
        if all(given if want == "{}" else want == given for want, given in pairs):
            return (*(given for want, given in pairs if want == "{}"), *rest)
        return None


@frozen
class Decision:
    """What is asked of whom, in decoded parts.

    Attributes:
        resource: what answers.
        parts: what stands for the braces in its pattern.
        query: the query; only keys that the resource takes.
    """

    resource: Resource
    parts: tuple[str, ...]
    query: Mapping[str, str]


def decide(
    resources: Sequence[Resource], caller: Principal, method: bytes, target: bytes
) -> Decision:
    """Decide a request by its raw target and who is calling. Pure.

    Raises:
        Refusal: 400, 403, 404 or 405.
    """
    try:
        parsed = parse_target(target)
    except Malformed as error:
        raise bad_request(str(error)) from None
    for resource in resources:
        parts = resource.match(parsed.segments)
        if parts is None:
            continue
        if not resource.who(caller):
            raise Refusal(403, "forbidden", "this is not for you")
        methods = resource.methods.split()
        if method.decode("latin-1") not in methods:
            allowed = {"Allow": ", ".join(methods)}
            raise Refusal(
                405, "method_not_allowed", "ask in another way", headers=allowed
            )
        query = dict(parsed.query)
        if not query.keys() <= resource.keys:
            raise bad_request("the query has a key that means nothing here")
        return Decision(resource, parts, query)
    raise not_found()


@provider(INonQueuedRequestFactory)
class PeerRequest(http.Request):
    """One request, decided as soon as its headers are in.

    Owner: its channel. Resources answer it with `send` or `send_json`, or with
    `begin` and a producer. What Twisted would do with a request of its own
    accord (cookies, forms, bodies in temporary files) is switched off.

    Attributes:
        caller: who asks.
        decision: what is asked, unless it was refused.
    """

    caller: Principal
    decision: Decision
    _refusal: Refusal | None = None
    _answering: Deferred[None] | None = None

    def decide(
        self,
        resources: Sequence[Resource],
        caller: Principal,
        line: tuple[bytes, bytes, bytes],
    ) -> int:
        """Decide the request, whose headers are in.

        Args:
            resources: what there is to ask for.
            caller: who asks.
            line: method, target and version.

        Returns:
            How many bytes of body may follow.
        """
        method, target, version = line
        self.caller = caller
        hosts = self.requestHeaders.getRawHeaders(b"Host", [])
        try:
            if len(hosts) > 1 or (version == b"HTTP/1.1" and not hosts):
                raise bad_request("there must be one Host header")
            self.decision = decide(resources, caller, method, target)
        except Refusal as refusal:
            self.refuse(refusal)
            return 0
        return self.decision.resource.body

    def refuse(self, refusal: Refusal) -> None:
        """Settle on this answer, unless the request is refused already."""
        self._refusal = self._refusal or refusal

    def gotLength(self, length: int | None) -> None:
        """Make room for a body whose length was found to be fair."""
        self.content = BytesIO()

    def parseCookies(self) -> None:
        """Leave cookies alone: nothing here knows any."""

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Take note that all is in; the channel says when to answer."""
        self.method, self.uri, self.clientproto = command, path, version

    def process(self) -> None:
        """Answer."""
        self._answering = self._answer().addErrback(self._failed)

    @starting
    async def _answer(self) -> None:
        if self._refusal is not None:
            raise self._refusal
        answering = self.decision.resource.answer(self)
        if answering is not None:
            await answering

    def _failed(self, failure: Failure) -> None:
        refusal = failure.value
        if not isinstance(refusal, Refusal):
            if not (self._disconnected and failure.check(CancelledError)):
                where = self.decision.resource.pattern
                _log.failure("answering {where}", failure, where=where)
            refusal = Refusal(500, "internal_server_error", "an error of this node")
        if self.startedWriting:
            self.cut()  # half an answer must not look like a whole one
        elif not self._disconnected:
            self.send(refusal.body, JSON, refusal.status, refusal.headers)

    def connectionLost(self, reason: Failure) -> None:
        """End what was answering: nobody is there any more."""
        super().connectionLost(reason)
        if self.producer is not None:
            self.producer.stopProducing()
        if self._answering is not None:
            self._answering.cancel()

    def cut(self) -> None:
        """Abort the connection, if there still is one."""
        if self.channel is not None:
            self.channel.forceAbortClient()

    # -- for resources

    def header(self, name: str) -> str | None:
        """Give the value of a request header; None if there isn't exactly one."""
        values = self.requestHeaders.getRawHeaders(name.encode(), [])
        return values[0].decode("latin-1") if len(values) == 1 else None

    def body(self) -> bytes:
        """Give the body, which is as short as the resource wanted it."""
        return cast(BytesIO, self.content).getvalue()

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Settle status and headers; they go out with what is written first."""
        self.setResponseCode(status)
        for name, value in (_COMMON | dict(headers)).items():
            self.responseHeaders.setRawHeaders(name.encode(), [value.encode()])

    def send(
        self,
        body: bytes,
        media_type: str,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send a whole answer, without its body if only the head was wanted."""
        length = {"Content-Type": media_type, "Content-Length": str(len(body))}
        self.begin(status, length | dict(headers or {}))
        self.write(body)
        self.finish()

    def send_json(self, document: Mapping[str, object]) -> None:
        """Send a whole answer in JSON."""
        self.send(_json(document), JSON)


_COMMON = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def _json(document: Mapping[str, object]) -> bytes:
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return text.encode() + b"\n"
