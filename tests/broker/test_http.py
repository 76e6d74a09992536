"""Tests of broker.http: what goes out to a peer, and what is taken from it."""

import gzip
from collections.abc import Mapping
from typing import Any, cast

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import URI, Agent
from twisted.web.error import SchemeNotSupported
from twisted.web.iweb import IAgentEndpointFactory, IResponse
from zope.interface.verify import verifyObject

from broker.errors import NotHTTP, RequestFailed, ResponseTooLarge, explain, judged
from broker.generation import _Endpoint
from broker.http import Requests, _OnlyPeer, discard, read_body
from broker.link import HEAD_LIMIT, Link, connect
from protocols.deferreds import starting
from protocols.hint import Hint
from tests.broker.harbour import Harbour, answer

PLACE = "tcp:192.168.1.9:1"


class RequestTests(SynchronousTestCase):
    """Requests over TLS in memory."""

    def setUp(self) -> None:
        self.harbour = Harbour()
        self.net = self.harbour.net
        self.nas = self.harbour.berth(PLACE)
        connections = self.harbour.caller.caller(self.nas.device)
        endpoint = self.net.handler(Hint.parse(PLACE))
        self.endpoint = wrapClientTLS(connections, endpoint, self.net.clock)
        self.requests = Requests(self.endpoint, self.net.clock)

    def ask(
        self, path: str = "/", headers: Mapping[str, str] | None = None
    ) -> Deferred[IResponse]:
        """Ask the nas."""
        asking = self.requests.request(b"GET", path, headers or {})
        self.net.flush()
        return asking

    def test_what_is_sent(self) -> None:
        """Nothing but the host, and what the caller says, in one order."""
        self.ask("/files/?name=a%2Fb")
        self.ask("/", {"Range": "bytes=0-9", "accept": "*/*"})
        self.ask("/", {"accept": "*/*", "range": "bytes=0-9"})
        heads = [head for call in self.nas.calls for head in call.heads]
        self.assertEqual(
            heads[0],
            b"GET /files/?name=a%2Fb HTTP/1.1\r\nHost: peer.wherry.internal",
        )
        self.assertEqual(heads[1], heads[2])
        self.assertEqual(
            heads[1],
            b"GET / HTTP/1.1\r\nHost: peer.wherry.internal\r\n"
            b"Accept: */*\r\nRange: bytes=0-9",
        )

    def test_negative_control(self) -> None:
        """A treq client as it comes does ask for gzip."""
        agent = Agent.usingEndpointFactory(self.net.clock, _OnlyPeer(self.endpoint))
        client = HTTPClient(agent)
        url = "https://peer.wherry.internal/"
        client.get(url, reactor=cast(Any, self.net.clock)).addErrback(lambda _: None)
        self.net.flush()
        self.assertIn(b"Accept-Encoding: gzip", self.nas.calls[0].heads[0])

    def test_what_is_never_sent(self) -> None:
        """Whatever could tell two callers apart, or one again, is refused."""
        for name in (
            "User-Agent",
            "Cookie",
            "Referer",
            "Date",
            "If-None-Match",
            "Host",
            "Last-Event-ID",
            "Accept-Encoding",
        ):
            with self.assertRaises(ValueError):
                self.requests.request(b"GET", "/", {name: "x"})
        for path in ("", "files", "http://elsewhere/", "/ü", "/#a"):
            with self.assertRaises(ValueError):
                self.requests.request(b"GET", path, {})
        self.assertEqual(self.net.dials, [])

    def test_path_as_it_stands(self) -> None:
        """The target reaches the peer as it was written, whatever is in it."""
        for path in ("/a//b/../%2e%2e/c;d", "/%2f%00?a&b=", "/?q=a+b%20c"):
            self.ask(path)
            head = self.nas.calls[-1].heads[-1]
            self.assertEqual(head.split(b" ")[1], path.encode("ascii"))

    def test_cookies(self) -> None:
        """No cookie is kept."""
        self.nas.answers = lambda _: answer(b"", b"Set-Cookie: id=7; Path=/")
        self.successResultOf(self.ask())
        self.successResultOf(self.ask())
        heads = [head for call in self.nas.calls for head in call.heads]
        self.assertEqual(len(heads), 2)
        self.assertFalse(any(b"ookie" in head for head in heads))

    def test_redirect(self) -> None:
        """A redirect is an answer like any other."""
        self.nas.answers = lambda _: answer(
            b"", b"Location: /elsewhere", status=b"302 Go"
        )
        response = self.successResultOf(self.ask())
        self.assertEqual(response.code, 302)
        self.assertEqual(len(self.nas.calls[0].heads), 1)

    def test_compressed(self) -> None:
        """Nothing is inflated: what claims to be compressed is refused."""
        bomb = gzip.compress(bytes(1 << 20))
        for coding in (b"gzip", b"identity, gzip", b"x"):
            self.nas.answers = lambda _, c=coding: answer(
                bomb, b"Content-Encoding: " + c
            )  # type: ignore[misc]
            self.failureResultOf(self.ask(), RequestFailed)

    def test_one_connection(self) -> None:
        """A connection carries one request after another."""
        for _ in range(3):
            body = read_body(self.successResultOf(self.ask("/x")), 10)
            self.net.flush()
            self.assertEqual(self.successResultOf(body), b"/x")
        self.assertEqual(len(self.nas.calls), 1)
        self.requests.close()
        self.net.flush()
        self.assertEqual(self.net.clock.getDelayedCalls(), [])
        self.assertTrue(self.nas.calls[0].over)

    def test_only_the_peer(self) -> None:
        """No URL leads anywhere else."""
        factory = _OnlyPeer(self.endpoint)
        verifyObject(IAgentEndpointFactory, factory)
        for url in (
            b"http://peer.wherry.internal/",
            b"https://peer.wherry.internal:444/",
            b"https://b.example/",
        ):
            with self.assertRaises(SchemeNotSupported):
                factory.endpointForURI(URI.fromBytes(url))

    def test_read_body(self) -> None:
        """A body is read whole up to the limit."""
        self.nas.answers = lambda _: answer(b"x" * 10)
        body = read_body(self.successResultOf(self.ask()), 10)
        self.assertEqual(self.successResultOf(body), b"x" * 10)

    def test_read_body_too_long(self) -> None:
        """A longer one is cut, whether or not it says its length."""
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        for text in (answer(b"x" * 11), chunked + b"b\r\n" + b"x" * 11 + b"\r\n"):
            self.nas.answers = lambda _, t=text: t  # type: ignore[misc]
            response = self.successResultOf(self.ask())
            self.failureResultOf(read_body(response, 10), ResponseTooLarge)

    def test_read_body_broken_off(self) -> None:
        """Half a body is no body."""
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"
        self.nas.answers = lambda _: head
        body = read_body(self.successResultOf(self.ask()), 10)
        self.assertNoResult(body)
        self.nas.drop()
        self.net.flush()
        self.failureResultOf(body)

    def test_read_body_cancelled(self) -> None:
        """Giving up closes the connection."""
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"
        self.nas.answers = lambda _: head
        body = read_body(self.successResultOf(self.ask()), 10)
        body.cancel()
        self.failureResultOf(body, CancelledError)
        self.net.flush()
        self.assertTrue(self.nas.calls[0].over)

    def test_discard(self) -> None:
        """An answer that nobody reads ends with its connection."""
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"
        self.nas.answers = lambda _: head
        discard(self.successResultOf(self.ask()))
        self.net.flush()
        self.assertTrue(self.nas.calls[0].over)


def noop() -> None:
    """Do nothing."""


class HeadTests(SynchronousTestCase):
    """The head of an answer is bounded, its body is not."""

    def setUp(self) -> None:
        self.harbour = Harbour()
        self.nas = self.harbour.berth(PLACE)

    def ask(self) -> tuple[Deferred[IResponse], Requests]:
        """Ask over a link, as a generation does."""
        net = self.harbour.net
        connections = self.harbour.caller.caller(self.nas.device)
        place = net.handler(Hint.parse(PLACE))

        @starting
        async def adopt(factory: IProtocolFactory) -> Any:
            made = connect(
                place, connections, lambda: Link(noop, lambda _: None), net.clock
            )
            return (await made).adopt(factory)

        endpoint = _Endpoint(adopt)
        requests = Requests(endpoint, net.clock)
        asking = requests.request(b"GET", "/", {})
        net.flush()
        return asking, requests

    def test_endless_head(self) -> None:
        """A head that does not end is cut before it fills the memory."""
        line = b"X: " + b"y" * 1000 + b"\r\n"
        self.nas.answers = lambda _: b"HTTP/1.1 200 OK\r\n" + line * 70
        asking, _ = self.ask()
        problem = self.failureResultOf(asking).value
        self.assertIn("longer than 64 KiB", explain(problem or KeyError()))

    def test_endless_head_of_the_next_answer(self) -> None:
        """Nor does one on a connection that is asked again at once."""
        endless = b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * HEAD_LIMIT
        answers = iter([answer(b"first"), endless])
        self.nas.answers = lambda _: next(answers)
        asking, requests = self.ask()
        body = read_body(self.successResultOf(asking), 10)
        body.addCallback(lambda _: requests.request(b"GET", "/", {}))
        self.harbour.net.flush()
        self.assertEqual(len(self.nas.calls), 1)
        problem = self.failureResultOf(body).value
        self.assertIn("longer than 64 KiB", explain(problem or KeyError()))

    def test_interim_answers(self) -> None:
        """We expect none, so the first one ends it: neither memory nor log fill."""
        logged: list[LogEvent] = []
        observer = cast(ILogObserver, logged.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        for interim in (
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP/1.1 102 P\r\n\r\n" * 1000,
            b"HTTP/1.1 199\n\n",
        ):
            self.nas.answers = lambda _, i=interim: i + b"X: y\r\n" * HEAD_LIMIT  # type: ignore[misc]
            asking, _ = self.ask()
            problem = self.failureResultOf(asking).value
            self.assertIn("interim answer", explain(problem or KeyError()))
            self.assertTrue(self.nas.calls[-1].over)
        self.assertEqual([each for each in logged if "code" in each], [])

    def test_odd_status_lines(self) -> None:
        """Nor do those get through that Twisted would take for interim answers."""
        for line in (b"H/1.1 100", b"HTTP/1.1 1_0_0", b"HTTP/1.1 +100", b"HTTP/1.1 1"):
            self.nas.answers = lambda _, line=line: line + b"\n\n"  # type: ignore[misc]
            asking, _ = self.ask()
            problem = self.failureResultOf(asking).value
            self.assertIsInstance(judged(problem or KeyError()), NotHTTP)

    def test_slow_head(self) -> None:
        """A proper head may come byte by byte."""
        self.nas.answers = lambda _: b""
        asking, _ = self.ask()
        for byte in answer(b"hello"):
            self.nas.calls[0].say(bytes([byte]))
            self.harbour.net.flush()
        self.assertEqual(self.successResultOf(asking).code, 200)

    def test_long_body(self) -> None:
        """A body much longer than a head may be is fine, and so is another answer."""
        self.nas.answers = lambda _: answer(bytes(3 * HEAD_LIMIT))
        asking, requests = self.ask()
        for _ in range(3):
            body = read_body(self.successResultOf(asking), 1 << 20)
            self.harbour.net.flush()
            self.assertEqual(len(self.successResultOf(body)), 3 * HEAD_LIMIT)
            asking = requests.request(b"GET", "/", {})
            self.harbour.net.flush()
        self.assertEqual(len(self.nas.calls), 1)
