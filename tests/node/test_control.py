"""Tests of node.control and node.control_client."""

import json
import os
import socket
import stat
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor  # noqa: TID251 - real sockets
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web import http

from node import control_client
from node.control import (
    BODY_LIMIT,
    Control,
    Document,
    GetRequest,
    Report,
    control_site,
)
from node.control_client import ControlClient
from node.directory import NodeDirectory
from node.errors import Failed, NotRunning, TimedOut, Unreachable, Usage
from protocols.deferreds import starting
from protocols.errors import Malformed


class FakeView:
    """A node that answers what a test tells it to."""

    def __init__(self) -> None:
        self.work: Deferred[Document] = Deferred(self._cancelled)
        self.cancelled = False
        self.report: Report | None = None
        self.request: GetRequest | None = None
        self.paths: list[str] = []
        self.admitted: list[tuple[str, str | None]] = []

    def _cancelled(self, work: Deferred[Document]) -> None:
        self.cancelled = True

    def status(self) -> Document:
        """Say little."""
        return {"schema": 1, "nickname": "desk"}

    def card(self) -> str:
        """Give something."""
        return "wherry://x"

    def peers(self) -> list[Document]:
        """Know one."""
        return [{"node": "x"}]

    def explain(self, name: str) -> Document:
        """Know nobody but laptop."""
        if name != "laptop":
            raise Failed(f"no peer is called {name}")
        return {"nickname": name}

    def ping(self, name: str, timeout: float) -> Deferred[Document]:
        """Fail later."""
        self.work.addCallback(lambda _: {"rtt_s": timeout})
        return self.work

    def share(self, paths: list[str], report: Report) -> Deferred[Document]:
        """Do as the test says."""
        self.paths, self.report = paths, report
        return self.work

    def files(self) -> Deferred[Document]:
        """Have a bug."""
        return succeed({"files": 1 // 0})

    def get(self, request: GetRequest, report: Report) -> Deferred[Document]:
        """Do as the test says."""
        self.request, self.report = request, report
        return self.work

    def admit(self, request: str, words: str | None) -> Deferred[Document]:
        """Note it."""
        self.admitted.append((request, words))
        return succeed({"words": "a b c"})


GET = {
    "what": "film.mkv",
    "directory": "/home/me",
    "output": None,
    "from_peer": None,
    "force": False,
    "umask": 0o022,
}


class ResourceTests(SynchronousTestCase):
    """What is answered to what, in memory."""

    def setUp(self) -> None:
        """Have a site."""
        self.clock = Clock()
        self.view = FakeView()
        self.site = control_site(self.view, self.clock)
        self.addCleanup(lambda: self.assertEqual(self.clock.getDelayedCalls(), []))

    def ask(self, method: str, target: str, body: object = None) -> StringTransport:
        """Send a request on a connection of its own."""
        data = b"" if body is None else json.dumps(body).encode()
        return self.send(method, target, data)

    def send(self, method: str, target: str, data: bytes) -> StringTransport:
        """Send a request with any body."""
        head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        transport = self.begin(f"{head}Content-Length: {len(data)}\r\n\r\n")
        self.channel.dataReceived(data)
        return transport

    def begin(self, head: str) -> StringTransport:
        """Send the head of a request on a connection of its own."""
        transport = StringTransport()
        channel = self.site.buildProtocol(None)
        assert channel is not None
        self.channel = channel
        channel.makeConnection(transport)
        channel.dataReceived(head.encode())
        return transport

    def read(self, transport: StringTransport) -> tuple[int, list[Document]]:
        """Take an answer apart: its status, and its documents."""
        head, _, body = transport.value().partition(b"\r\n\r\n")
        lines = [line for line in body.split(b"\n") if line.startswith(b"{")]
        return int(head.split()[1]), [json.loads(line) for line in lines]

    def error(self, transport: StringTransport) -> tuple[str, int]:
        """Give the last document's error."""
        _, documents = self.read(transport)
        said = documents[-1]["error"]
        return said["message"], said["code"]

    def test_short_answers(self) -> None:
        """Each question has its document."""
        for target, document in (
            ("/status", {"schema": 1, "nickname": "desk"}),
            ("/card", {"card": "wherry://x"}),
            ("/peers", {"peers": [{"node": "x"}]}),
            ("/explain?peer=laptop", {"nickname": "laptop"}),
        ):
            answer = self.read(self.ask("GET", target))
            self.assertEqual(answer, (200, [document]), target)

    def test_errors_keep_their_code(self) -> None:
        """What fails says what and with which exit code, at once or later."""
        self.assertEqual(
            self.error(self.ask("GET", "/explain?peer=nas")),
            ("no peer is called nas", 1),
        )
        transport = self.ask("POST", "/ping", {"peer": "laptop", "timeout": 3})
        self.assertEqual(transport.value(), b"")
        self.view.work.errback(Unreachable("laptop can't be reached"))
        self.assertEqual(self.error(transport), ("laptop can't be reached", 4))

    def test_bug(self) -> None:
        """A bug in the node is said and logged, and tells no more than its name."""
        message, code = self.error(self.ask("GET", "/files"))
        self.assertIn("ZeroDivisionError", message)
        self.assertEqual(code, 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_unknown(self) -> None:
        """Other methods and paths are refused."""
        for method, target in (("GET", "/"), ("POST", "/status"), ("GET", "/share")):
            self.assertIn("does not know", self.error(self.ask(method, target))[0])

    def test_wrong_requests(self) -> None:
        """What is missing or of a wrong type is a usage error, never a bug."""
        for target, body in (
            ("/ping", {"peer": "laptop"}),
            ("/ping", {"peer": "laptop", "timeout": "3"}),
            ("/ping", {"peer": "laptop", "timeout": True}),
            ("/ping", {"peer": "laptop", "timeout": -1}),
            ("/ping", {"peer": "", "timeout": 3}),
            ("/share", {"paths": []}),
            ("/share", {"paths": [1]}),
            ("/share", {"paths": "x"}),
            ("/get", GET | {"what": None}),
            ("/get", GET | {"directory": "relative"}),
            ("/get", GET | {"umask": 0o1000}),
            ("/get", GET | {"output": 1}),
            ("/get", [1]),
            ("/device/admit", {}),
            ("/share", {"paths": ["/a\0b"]}),
            ("/share", {"paths": ["/a\ud800"]}),
            ("/get", GET | {"what": "a\0b"}),
            ("/get", GET | {"what": "\udcff"}),
            ("/get", GET | {"output": "/a\0b"}),
            ("/get", GET | {"output": "/a\ud800"}),
            ("/get", GET | {"directory": "/a\0b"}),
            ("/get", GET | {"from_peer": "\udcff"}),
            ("/ping", {"peer": "\udcff", "timeout": 3}),
            ("/device/admit", {"request": "\udcff"}),
        ):
            _, code = self.error(self.ask("POST", target, body))
            self.assertEqual(code, Usage.code, (target, body))

    def test_strange_paths(self) -> None:
        """A path may be any bytes that a file system takes."""
        strange = os.fsdecode(b"/a\xff\\\n")
        self.ask("POST", "/share", {"paths": [strange]})
        self.assertEqual(self.view.paths, [strange])
        self.ask("POST", "/get", GET | {"output": strange})
        assert self.view.request is not None
        self.assertEqual(self.view.request.output, strange)

    def test_too_large(self) -> None:
        """A body that is too large is refused at once, and none of it is kept."""
        spooled: list[int | None] = []

        def content_file(length: int | None) -> BytesIO:
            spooled.append(length)
            return BytesIO()

        self.patch(http, "_getContentFile", content_file)
        length = f"Content-Length: {BODY_LIMIT + 1}"
        for header in (length, "Transfer-Encoding: chunked"):
            head = f"POST /share HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n"
            transport = self.begin(head)
            message, code = self.error(transport)
            self.assertIn("too large", message)
            self.assertEqual(code, Usage.code)
            self.assertTrue(transport.disconnecting)
            self.channel.dataReceived(b"x" * 1000)
        self.assertEqual(self.view.paths, [])
        self.assertEqual(spooled, [0, 0])

    def test_malformed(self) -> None:
        """What the node finds malformed is said as it is, and is no bug."""
        transport = self.ask("POST", "/get", GET)
        self.view.work.errback(Malformed("device bundle", "has too much"))
        self.assertEqual(self.error(transport), ("device bundle: has too much", 1))

    @given(st.binary(max_size=200))
    @settings(max_examples=50)
    def test_any_body(self, body: bytes) -> None:
        """No body is a bug."""
        _, code = self.error(self.send("POST", "/get", body))
        self.assertEqual(code, Usage.code)

    def test_get(self) -> None:
        """A get is handed on as it was asked for."""
        body = GET | {"output": "/tmp/x/", "from_peer": "desk", "force": True}
        self.ask("POST", "/get", body)
        self.assertEqual(
            self.view.request,
            GetRequest("film.mkv", Path("/home/me"), "/tmp/x/", "desk", True, 0o022),
        )

    def test_stream(self) -> None:
        """A stream begins at once, reports at most ten times a second, and ends."""
        transport = self.ask("POST", "/share", {"paths": ["/a"]})
        self.assertIn(b"200 OK", transport.value())
        report = self.view.report
        assert report is not None
        for done in range(5):
            report({"done": done})
            self.clock.advance(0.04)
        self.view.work.callback({"files": []})
        self.assertEqual(
            self.read(transport)[1],
            [
                {"progress": {"done": 0}},
                {"progress": {"done": 3}},
                {"done": {"files": []}},
            ],
        )

    def test_stream_error(self) -> None:
        """A stream that fails ends with the error."""
        transport = self.ask("POST", "/get", GET)
        self.view.work.errback(TimedOut("too slow"))
        self.assertEqual(self.error(transport), ("too slow", 6))

    def test_slow_reader(self) -> None:
        """Who doesn't read gets no progress, but the end."""
        transport = self.ask("POST", "/share", {"paths": ["/a"]})
        report = self.view.report
        assert report is not None
        assert transport.producer is not None
        transport.producer.pauseProducing()
        report({"done": 1})
        transport.producer.resumeProducing()
        self.clock.advance(1)
        report({"done": 2})
        self.view.work.callback({})
        self.assertEqual(
            self.read(transport)[1], [{"progress": {"done": 2}}, {"done": {}}]
        )

    def test_gone(self) -> None:
        """When who asked goes away, the work is cancelled and nothing is written."""
        for target, body in (
            ("/get", GET),
            ("/ping", {"peer": "laptop", "timeout": 1}),
        ):
            self.view.__init__()  # type: ignore[misc]
            transport = self.ask("POST", target, body)
            sofar = transport.value()
            self.channel.connectionLost(Failure(ConnectionDone()))
            self.assertTrue(self.view.cancelled)
            if self.view.report is not None:
                self.view.report({"done": 1})
            self.assertEqual(transport.value(), sofar)

    def test_admit(self) -> None:
        """A request is first looked at and then, with its words, admitted."""
        self.ask("POST", "/device/admit", {"request": "r"})
        self.ask("POST", "/device/admit", {"request": "r", "words": "a b c"})
        self.assertEqual(self.view.admitted, [("r", None), ("r", "a b c")])


class SocketTests(TestCase):
    """Both ends over a real Unix socket."""

    def setUp(self) -> None:
        """Run a control socket in a directory with a path that is too long."""
        self.directory = NodeDirectory(Path(self.mktemp()).absolute() / ("x" * 120))
        self.addCleanup(self.directory.close)
        self.directory.make()
        self.view = FakeView()
        self.client = ControlClient(self.directory)
        self.control = self.make()
        self.control.startService()
        self.addCleanup(lambda: self.control.stopService())

    def make(self) -> Control:
        """Make the service."""
        real: Any = reactor
        return Control(real, real, self.directory.socket_address(), self.view)

    def in_thread(self, function: Callable[[], Any]) -> Deferred[Any]:
        """Do what blocks."""
        return deferToThread(function)

    @starting
    async def test_answers(self) -> None:
        """Documents and errors come through."""
        document = await self.in_thread(lambda: self.client.get("/status"))
        self.assertEqual(document["nickname"], "desk")
        asking = self.in_thread(lambda: self.client.get("/explain", {"peer": "a&b=c"}))
        error = await self.assertFailure(asking, Failed)
        self.assertEqual(str(error), "no peer is called a&b=c")
        self.assertTrue(await self.in_thread(self.client.answers))

    @starting
    async def test_stream(self) -> None:
        """Progress is followed, and the end is the last document."""
        asking = self.in_thread(lambda: list(self.client.stream("/get", GET)))
        self.view.work.addCallback(lambda _: {"files": []})
        real: Any = reactor
        real.callLater(0, self.started, asking)
        self.assertEqual(
            await asking, [{"progress": {"done": 1}}, {"done": {"files": []}}]
        )

    @starting
    async def test_long_answers(self) -> None:
        """A long answer comes through; one beyond all bounds is told as that."""
        files = [f"{'n' * 40}{number}" for number in range(200_000)]
        done = {"files": files}
        self.view.files = lambda: succeed(done)  # type: ignore[method-assign]
        self.view.get = lambda request, report: succeed(done)  # type: ignore[method-assign]

        def ls() -> Document:
            return self.client.get("/files")

        def get() -> list[Document]:
            return list(self.client.stream("/get", GET))

        self.assertEqual((await self.in_thread(ls))["files"], files)
        self.assertEqual((await self.in_thread(get))[-1]["done"]["files"], files)
        self.patch(control_client, "ANSWER_LIMIT", 1 << 20)
        for ask in (ls, get):
            error = await self.assertFailure(self.in_thread(ask), Failed)
            self.assertEqual(
                str(error), "the node's answer is too long: it is over 1 MiB"
            )

    def started(self, asking: Deferred[Any]) -> None:
        """Report and end, once the request has come."""
        real: Any = reactor
        if self.view.report is None:
            real.callLater(0.005, self.started, asking)
            return
        self.view.report({"done": 1})
        self.view.work.callback({})

    @starting
    async def test_reader_goes_away(self) -> None:
        """Closing the stream cancels the work."""
        cancelled: Deferred[None] = Deferred()
        self.view.work = Deferred(lambda _: cancelled.callback(None))

        def begin() -> None:
            stream = self.client.stream("/share", {"paths": ["/a"]})
            real: Any = reactor
            real.callFromThread(self.report_soon)
            next(stream)
            stream.close()

        await self.in_thread(begin)
        await cancelled

    def report_soon(self) -> None:
        """Report once, when the request has come."""
        real: Any = reactor
        if self.view.report is None:
            real.callLater(0.005, self.report_soon)
        else:
            self.view.report({"done": 1})

    @starting
    async def test_stop(self) -> None:
        """Stopping cuts who still waits, and takes the socket away."""
        stream = self.client.stream("/share", {"paths": ["/a"]})
        self.view.report = None
        asking = self.in_thread(lambda: list(stream))
        stopped: Deferred[None] = Deferred()

        def stop_when_asked() -> None:
            real: Any = reactor
            if self.view.report is None:
                real.callLater(0.005, stop_when_asked)
            else:
                self.control.stopService().chainDeferred(stopped)

        stop_when_asked()
        await stopped
        await self.assertFailure(asking, NotRunning)
        self.assertTrue(self.view.cancelled)
        self.assertFalse(self.directory.control_socket.exists())
        await self.assertFailure(
            self.in_thread(lambda: self.client.get("/status")), NotRunning
        )

    @starting
    async def test_name_that_is_no_text(self) -> None:
        """Bytes that are no UTF-8 name nobody, which is said in words."""
        asking = self.in_thread(lambda: self.client.get("/explain", {"peer": "\udcff"}))
        error = await self.assertFailure(asking, Failed)
        self.assertIn("no peer is called", str(error))

    def test_owner_alone(self) -> None:
        """Nobody else may open the socket."""
        mode = os.stat(self.directory.control_socket).st_mode
        self.assertTrue(stat.S_ISSOCK(mode))
        self.assertEqual(stat.S_IMODE(mode), 0o600)

    @starting
    async def test_left_by_a_crash(self) -> None:
        """A socket that nobody listens on is not a running node, and is replaced."""
        await self.control.stopService()
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(self.directory.socket_address())
        self.assertFalse(self.client.answers())
        self.control = self.make()
        self.control.startService()
        document = await self.in_thread(lambda: self.client.get("/status"))
        self.assertEqual(document["nickname"], "desk")
