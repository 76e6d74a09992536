"""Tests of the called side's connections: who gets in, and what is cut."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http import HTTPChannel

from protocols.limits import Limits, Places
from protocols.principal import Person, Principal, Refused, Stranger
from protocols.request import PeerRequest, Resource, anyone
from protocols.site import PeerChannel, PeerSite
from tests.protocols.calling import DEVICE, Caller, make_site

LIMITS = Limits(
    handshake_s=10,
    headers_s=20,
    idle_s=120,
    stall_s=60,
    connections=6,
    per_principal=3,
    handshakes_per_address=2,
)
GET = b"GET / HTTP/1.1\r\nHost: peer\r\n\r\n"


class SiteCase(SynchronousTestCase):
    """A site with a few resources, and a clock."""

    def setUp(self) -> None:
        """Make the site."""
        self.clock = Clock()
        self.asked: list[bytes] = []
        self.sites: list[PeerSite] = []
        self.later: Deferred[None] = Deferred()
        self.addCleanup(self.check_clean)

    def check_clean(self) -> None:
        """No timer outlives its connection."""
        for each in self.sites:
            each.close()
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def site(self, **options: Any) -> PeerSite:
        """Make a site."""

        def answer(request: PeerRequest) -> None:
            self.asked.append(request.uri)
            request.send(b"x", "text/plain")

        def large(request: PeerRequest) -> None:
            self.asked.append(request.uri)
            request.send(bytes(100_000), "text/plain")

        resources = [
            Resource("/", "GET HEAD", anyone, answer),
            Resource("/later", "GET", anyone, lambda _: self.later),
            Resource("/large", "GET", anyone, large),
        ]
        options = {"limits": LIMITS} | options
        made = make_site(self.clock, resources, **options)
        self.sites.append(made)
        return made

    def caller(self, site: PeerSite | None = None, **options: Any) -> Caller:
        """Call."""
        return Caller(site or self.site(), self.clock, **options)


class PrincipalTests(SiteCase):
    """Who is calling is decided once, at the end of the handshake."""

    def test_nothing_before_the_handshake(self) -> None:
        """Bytes before the handshake (a plaintext port, say) end the connection."""
        caller = self.caller(let_in=False)
        caller.say(GET)
        self.assertTrue(caller.lost)
        self.assertEqual((caller.take(), self.asked), (b"", []))

    def test_refused(self) -> None:
        """Nobody whom the certificates don't name gets an answer."""

        def nobody(_: object) -> Principal:
            raise Refused("who?")

        caller = self.caller(self.site(principal_of=nobody))
        caller.say(GET)
        self.assertTrue(caller.lost)
        self.assertEqual((caller.take(), self.asked), (b"", []))

    def test_undecided(self) -> None:
        """An error while deciding refuses, and is logged."""

        def broken(_: object) -> Principal:
            raise KeyError

        for options in ({"principal_of": broken}, {"chain_end": broken}):
            caller = self.caller(self.site(**options))
            caller.say(GET)
            self.assertTrue(caller.lost)
            self.assertEqual(self.asked, [])
            self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_once(self) -> None:
        """A second handshake changes nothing."""
        principals: list[Principal] = [Stranger(), DEVICE]
        site = self.site(principal_of=lambda _: principals.pop(0))
        caller = self.caller(site)
        caller.channel.handshakeCompleted()
        self.assertEqual(site.callers, [Stranger()])

    def test_told_of_calls(self) -> None:
        """The node is told who came in; what goes wrong there harms no caller."""
        told: list[Principal] = []

        def on_call(caller: Principal) -> None:
            told.append(caller)
            raise KeyError

        caller = self.caller(self.site(on_call=on_call))
        self.assertEqual(caller.answer("/").status, 200)
        self.assertEqual(told, [DEVICE])
        self.flushLoggedErrors(KeyError)

    def test_chain_ends(self) -> None:
        """A connection ends when a certificate of the caller's expires."""
        caller = self.caller(self.site(chain_end=lambda _: 100.0))
        caller.ask("/later")
        self.clock.advance(99)
        self.assertFalse(caller.lost)
        self.clock.advance(1)
        self.assertTrue(caller.lost)
        self.assertTrue(self.caller(self.site(chain_end=lambda _: 100.0)).lost)


class DeadlineTests(SiteCase):
    """Slow, idle and half-open callers are cut."""

    def test_handshake(self) -> None:
        """A handshake has ten seconds."""
        caller = self.caller(let_in=False)
        self.clock.advance(9)
        self.assertFalse(caller.lost)
        self.clock.advance(1)
        self.assertTrue(caller.lost)

    def test_headers(self) -> None:
        """A header that drips in has a deadline for the whole of it."""
        caller = self.caller()
        self.clock.advance(100)
        for byte in range(19):
            caller.say(GET[byte : byte + 1])
            self.clock.advance(1)
        self.assertFalse(caller.wire.disconnecting)
        caller.say(GET[19:20])
        self.clock.advance(1)
        (answer,) = caller.answers()
        self.assertEqual((answer.status, answer.headers["connection"]), (408, "close"))
        self.assertTrue(caller.lost)

    def test_header_without_end(self) -> None:
        """Whole lines without end are no way around it."""
        caller = self.caller()
        caller.say(b"GET / HTTP/1.1\r\n")
        for number in range(25):
            caller.say(b"X-%d: x\r\n" % number)
            self.clock.advance(1)
        self.assertEqual([each.status for each in caller.answers()], [408])
        self.assertTrue(caller.lost)

    def test_idle(self) -> None:
        """An idle connection is closed, and a request makes it wait anew."""
        caller = self.caller()
        for _ in range(3):
            self.clock.advance(119)
            self.assertEqual(caller.answer("/").status, 200)
        self.clock.advance(119)
        self.assertFalse(caller.wire.disconnecting)
        self.clock.advance(1)
        self.assertTrue(caller.wire.disconnecting)
        self.assertEqual(caller.take(), b"")
        self.assertTrue(caller.lost)

    def test_empty_lines_are_no_request(self) -> None:
        """A caller can't stay by sending empty lines."""
        caller = self.caller()
        for _ in range(25):
            caller.say(b"\r\n")
            self.clock.advance(1)
        self.assertTrue(caller.wire.disconnecting)

    def test_half_open(self) -> None:
        """A caller who doesn't answer a goodbye is dropped."""
        caller = self.caller()
        self.clock.advance(120)
        self.clock.advance(59)
        self.assertFalse(caller.lost)
        self.clock.advance(1)
        self.assertTrue(caller.wire.aborted)

    def test_long_answers_have_time(self) -> None:
        """While it is our turn, no deadline runs."""
        caller = self.caller()
        caller.ask("/later")
        self.clock.advance(100_000)
        self.assertFalse(caller.lost)

    def test_stalled(self) -> None:
        """A caller who takes nothing of an answer is dropped after a minute."""
        caller = self.caller()
        caller.ask("/large")
        self.clock.advance(59)
        self.assertFalse(caller.lost)
        self.clock.advance(1)
        self.assertTrue(caller.wire.aborted)

    def test_stalled_while_more_is_written(self) -> None:
        """What is written on top gives a caller who takes nothing no more time."""
        caller = self.caller()
        caller.ask("/later")
        request: PeerRequest = caller.channel.requests[0]
        for _ in range(4):
            request.write(bytes(70_000))
            self.clock.advance(20)
        self.assertTrue(caller.lost)
        self.later.addErrback(lambda _: None)

    def test_slow_is_not_stalled(self) -> None:
        """A caller who takes what was sent, however late, stays."""
        caller = self.caller()
        for _ in range(5):
            caller.ask("/large")
            self.clock.advance(59)
            self.assertEqual(len(caller.answers()), 1)
        self.assertFalse(caller.lost)


class CrowdTests(SiteCase):
    """Too many are turned away, and those who are in are not harmed."""

    def test_handshakes_of_one_address(self) -> None:
        """One address has so many unfinished handshakes; the oldest ones go."""
        site = self.site()
        inside = self.caller(site)
        waiting = [self.caller(site, let_in=False) for _ in range(5)]
        self.assertEqual([each.lost for each in waiting], [True] * 3 + [False] * 2)
        for late in (waiting[0], waiting[4]):
            late.channel.handshakeCompleted()
        self.assertEqual(waiting[4].answer("/").status, 200)
        self.assertEqual(site.callers, [DEVICE] * 2)
        self.assertEqual(inside.answer("/").status, 200)

    def test_silent_callers(self) -> None:
        """Silent callers without end, near or far, keep nobody out."""
        site = self.site()
        for number in range(200):
            self.caller(site, let_in=False)
            self.caller(site, let_in=False, host=f"198.51.100.{number}")
        self.assertEqual(self.caller(site).answer("/").status, 200)
        self.assertLess(len(site._channels), 10)

    def test_silent_callers_who_need_not_go(self) -> None:
        """The control: if they could stay, they would keep others out."""
        self.patch(Places, "_make_room", lambda *_: None)
        site = self.site()
        for _ in range(2):
            self.caller(site, let_in=False)
        self.assertTrue(self.caller(site).lost)

    def test_one_principal(self) -> None:
        """A principal over the limit is told so, once; the others stay."""
        site = self.site()
        inside = [self.caller(site) for _ in range(3)]
        over = self.caller(site)
        over.say(GET * 2)
        (answer,) = over.answers()
        self.assertEqual((answer.status, answer.headers["connection"]), (503, "close"))
        self.assertIn(b'"too_many_connections"', answer.body)
        self.assertTrue(over.lost)
        self.assertEqual(self.asked, [])
        for each in inside:
            self.assertEqual(each.answer("/").status, 200)
        inside[0].wire.lose(ConnectionError())
        self.assertEqual(self.caller(site).answer("/").status, 200)

    def test_turned_away_and_silent(self) -> None:
        """Who is turned away does not stay by saying nothing."""
        site = self.site()
        for _ in range(3):
            self.caller(site)
        over = self.caller(site)
        self.clock.advance(20)
        self.assertTrue(over.wire.disconnecting)

    def test_turned_away_and_chatty(self) -> None:
        """Who is turned away and goes on sending keeps nobody out."""
        anna, bert = Person("anna"), Person("bert")
        people: list[Principal] = [bert, *[anna] * 10]
        site = self.site(principal_of=lambda _: people.pop())
        for _ in range(3):
            self.caller(site)
        over = [self.caller(site) for _ in range(7)]
        for each in over:
            each.say(GET[:10])
        self.assertEqual(self.caller(site).answer("/").status, 200)
        self.assertEqual(sum(not each.lost for each in over), 1)

    def test_all(self) -> None:
        """The connections of everybody together are bounded."""
        people = [Person(str(number)) for number in range(10)]
        site = self.site(principal_of=lambda _: people.pop())
        status = [self.caller(site).answer("/").status for _ in range(9)]
        self.assertEqual(status, [200] * 6 + [503] * 3)

    def test_cut(self) -> None:
        """The connections of one principal can be ended at once."""
        people: list[Principal] = [Person("anna"), Person("bert"), Person("anna")]
        site = self.site(principal_of=lambda _: people.pop())
        callers = [self.caller(site) for _ in range(3)]
        self.assertEqual(site.cut(lambda whom: whom == Person("anna")), 2)
        self.assertEqual([each.lost for each in callers], [True, False, True])
        self.assertEqual(site.callers, [Person("bert")])

    def test_close(self) -> None:
        """Closing ends every connection, tells when they are gone, lets nobody in."""
        site = self.site()
        callers = [self.caller(site), self.caller(site), self.caller(site)]
        callers[0].ask("/later")
        callers.append(self.caller(site, let_in=False))
        closed, again = site.close(), site.close()
        self.assertNoResult(closed)
        self.clock.advance(0)
        self.successResultOf(closed)
        self.successResultOf(again)
        self.assertTrue(all(each.lost for each in callers))
        self.assertTrue(self.caller(site).lost)
        self.clock.advance(0)
        self.successResultOf(site.close())


class WireTests(SiteCase):
    """What comes over the wire is read strictly, and refused in JSON."""

    def status(self, data: bytes, *, closed: bool = True) -> int:
        """Send bytes, and give the status of the one answer that comes."""
        caller = self.caller()
        caller.say(data)
        answers = caller.answers()
        self.assertEqual(len(answers), 1, data)
        self.assertEqual(caller.lost, closed, data)
        if answers[0].status >= 400:
            self.assertTrue(answers[0].body.startswith(b'{"error":"'))
            self.assertEqual(answers[0].headers["content-type"], "application/json")
        return answers[0].status

    def test_pipelined(self) -> None:
        """Requests that come together are answered in their order, however cut up."""
        targets = [b"/", b"/x", b"/large", b"/", b"/../", b"/"]
        data = b"".join(GET.replace(b" / ", b" %s " % each) for each in targets)
        for step in (1, 7, len(data)):
            caller = self.caller()
            for at in range(0, len(data), step):
                caller.say(data[at : at + step])
            status = [each.status for each in caller.answers()]
            self.assertEqual(status, [200, 404, 200, 200, 400, 200])
            self.assertFalse(caller.lost)

    def test_an_answer_waits_for_the_one_before(self) -> None:
        """Many small requests can't make us hold many large answers."""
        caller = self.caller()
        large = GET.replace(b"/ ", b"/large ", 1)
        caller.say(large.replace(b"Host", b"X: " + b"y" * 1000 + b"\r\nHost") * 40)
        self.assertEqual(len(self.asked), 1)
        self.assertLess(caller.wire.peak, 110_000)
        self.assertFalse(caller.wire.reading)
        self.assertEqual(len(caller.answers()), 40)
        self.assertLess(caller.wire.peak, 220_000)
        self.assertTrue(caller.wire.reading)
        self.assertEqual(caller.answer("/").status, 200)

    def test_http_1_0(self) -> None:
        """HTTP/1.0 needs no Host; one answer, then the end."""
        self.assertEqual(self.status(b"GET / HTTP/1.0\r\n\r\n"), 200)

    def test_close_when_asked(self) -> None:
        """Connection: close is obeyed, and said back."""
        caller = self.caller()
        answer = caller.answer("/", "Connection: close")
        self.assertEqual(answer.headers["connection"], "close")
        self.assertTrue(caller.lost)

    def test_head(self) -> None:
        """HEAD has the headers of GET and no body, errors too."""
        caller = self.caller()
        answer = caller.answer("/", method="HEAD")
        self.assertEqual(answer.headers["content-length"], "1")
        self.assertEqual(caller.answer("/none", method="HEAD").status, 404)
        self.assertEqual(caller.answer("/").status, 200)

    def test_not_http(self) -> None:
        """What is not HTTP/1 is refused, and the connection closed."""
        for data in (
            b"hello\r\n\r\n",
            b"GET /\r\n\r\n",
            b"GET  / HTTP/1.1\r\nHost: peer\r\n\r\n",
            b"GET / HTTP/2.0\r\nHost: peer\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET /caf\xc3\xa9 HTTP/1.1\r\nHost: peer\r\n\r\n",
            b"G\x00T / HTTP/1.1\r\nHost: peer\r\n\r\n",
            GET.replace(b"Host", b" Host"),
            GET.replace(b"Host:", b"Host :"),
            GET.replace(b"Host: peer", b"Host"),
            GET.replace(b"peer", b"pe\x00er"),
            GET.replace(b"peer", b"pe\rer"),
            GET.replace(b"peer", b"pe\ner"),
        ):
            self.assertEqual(self.status(data), 400, data)
        self.assertEqual(self.asked, [])

    def test_host(self) -> None:
        """HTTP/1.1 has one Host header (RFC 9112, 3.2); without one, the form is right."""
        for data in (
            GET.replace(b"Host: peer\r\n", b""),
            GET.replace(b"\r\n\r\n", b"\r\nHost: other\r\n\r\n"),
        ):
            self.assertEqual(self.status(data, closed=False), 400)
        self.assertEqual(self.asked, [])

    def test_huge(self) -> None:
        """Lines, headers and targets without measure are refused."""
        for data in (
            GET.replace(b"/ ", b"/" + b"a" * 20_000 + b" ", 1),
            b"GET /" + b"a" * 100_000,
            GET.replace(b"peer", b"peer" * 5000),
            GET.replace(b"\r\n\r\n", b"\r\nX: y" * 200 + b"\r\n\r\n"),
            GET.replace(b"\r\n\r\n", (b"\r\nX: " + b"y" * 1000) * 20 + b"\r\n\r\n"),
        ):
            self.assertEqual(self.status(data), 400)
        data = GET.replace(b"/ ", b"/" + b"a" * 9000 + b" ", 1)
        self.assertEqual(self.status(data, closed=False), 400)
        self.assertEqual(self.asked, [])

    def test_smuggling(self) -> None:
        """Bodies whose length can be read in two ways never hide a request."""
        for headers in (
            b"Content-Length: 30\r\nContent-Length: 0",
            b"Content-Length: 0\r\nContent-Length: 30",
            b"Content-Length: 30\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nContent-Length: 30",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked, identity",
            b"Transfer-Encoding: xchunked",
            b"Transfer-Encoding:\x0bchunked",
            b"Content-Length: +30",
            b"Content-Length: -1",
            b"Content-Length: 0x1e",
            b"Content-Length: 30, 30",
            b"Content-Length: \xb2",
            b"Content-Length:",
            b"Content-Length: " + b"9" * 5000,
            b"Content-Length : 30",
            b"Content-Length\x00: 30",
        ):
            head = GET.replace(b"\r\n\r\n", b"\r\n" + headers + b"\r\n\r\n")
            self.assertEqual(self.status(head + GET * 2), 400, headers)
            split = self.caller()
            for line in (head + GET * 2).splitlines(keepends=True):
                split.say(line)
            self.assertEqual([each.status for each in split.answers()], [400], headers)
        self.assertEqual(self.asked, [])

    def test_unwanted_body(self) -> None:
        """A body that nobody wants is not waited for, and nothing in it is read."""
        for headers, method, status in (
            ("Content-Length: 1000000000000", "GET", 413),
            ("Content-Length: 90", "GET", 413),
            ("Transfer-Encoding: chunked", "GET", 413),
            ("Transfer-Encoding: Chunked", "HEAD", 413),
            ("Content-Length: 90", "POST", 405),
            ("Content-Length: 90", "PUT", 405),
        ):
            caller = self.caller()
            caller.ask("/", headers, "Expect: 100-continue", method=method)
            caller.say(GET * 3)
            (answer,) = caller.answers(method)
            self.assertEqual(answer.status, status)
            self.assertEqual(answer.headers["connection"], "close")
            self.assertTrue(caller.lost)
        self.assertEqual(self.asked, [])

    def test_empty_body(self) -> None:
        """A body of no bytes is none."""
        caller = self.caller()
        self.assertEqual(caller.answer("/", "Content-Length: 0").status, 200)
        self.assertEqual(caller.answer("/").status, 200)

    def test_flood_after_goodbye(self) -> None:
        """What comes after goodbye is thrown away, up to a point."""
        caller = self.caller()
        caller.ask("/", "Content-Length: 1000000000000", method="PUT")
        for _ in range(16):
            caller.say(bytes(65536))
        self.assertFalse(caller.wire.aborted)
        caller.say(bytes(1))
        self.assertTrue(caller.wire.aborted)

    def test_tls_over_without_goodbye(self) -> None:
        """Nothing is written into a transport that swallows it for ever."""
        caller = self.caller()
        caller.ask("/later")
        caller.wire.disconnecting = True
        request: PeerRequest = caller.channel.requests[0]
        request.begin(200, {"Content-Length": "10"})
        request.write(b"x")
        self.assertTrue(caller.wire.aborted)
        self.later.addErrback(lambda _: None)

    @settings(deadline=None, max_examples=150)
    @given(
        st.lists(
            st.sampled_from(
                [
                    GET,
                    b"GET ",
                    b"/",
                    b"/later",
                    b" HTTP/1.1",
                    b"\r\n",
                    b"\n",
                    b"Host: peer\r\n",
                    b"Content-Length: 5\r\n",
                    b"Transfer-Encoding: chunked\r\n",
                    b"Connection: close\r\n",
                    b"Expect: 100-continue\r\n",
                    b"0\r\n\r\n",
                    b":",
                    b"\x00",
                ]
            )
            | st.binary(max_size=20)
        )
    )
    def test_any_bytes(self, pieces: list[bytes]) -> None:
        """Whatever is sent: no exception, and the connection comes to an end."""
        self.later = Deferred()
        caller = self.caller()
        for piece in pieces:
            caller.say(piece)
            caller.take()
        for _ in range(3):
            if not self.later.called:
                self.later.callback(None)
            self.clock.advance(200)
            caller.take()
            for request in list(caller.channel.requests):
                if request.uri == b"/later" and not request.finished:
                    request.send(b"", "text/plain")
        self.clock.advance(400)
        self.assertTrue(caller.lost)


class ControlTests(SiteCase):
    """Twisted alone would not do: without ours, the tests above would fail."""

    def test_early_requests(self) -> None:
        """Twisted goes on reading while a caller takes nothing."""
        self.patch(PeerChannel, "rawDataReceived", HTTPChannel.rawDataReceived)
        caller = self.caller()
        caller.ask("/large")
        for _ in range(100):
            caller.say(GET * 100)
        self.assertTrue(caller.wire.reading)

    def test_bad_header_in_pieces(self) -> None:
        """Twisted answers a request whose headers it has refused."""
        for data_received, asked in (
            (PeerChannel.dataReceived, []),
            (HTTPChannel.dataReceived, [b"/"]),
        ):
            self.patch(PeerChannel, "dataReceived", data_received)
            caller = self.caller()
            for line in (b"GET / HTTP/1.1", b"Bad", b"Host: peer", b""):
                caller.say(line + b"\r\n")
            self.assertEqual(self.asked, asked)

    def test_long_length(self) -> None:
        """Twisted lets an exception out for a Content-Length of many digits."""
        self.patch(PeerChannel, "headerReceived", HTTPChannel.headerReceived)
        caller = self.caller()
        long = "Content-Length: " + "9" * 5000
        self.assertRaises(ValueError, caller.ask, "/", long)

    def test_no_rule_no_resource(self) -> None:
        """A resource can't be made without a rule for who may have it."""
        self.assertRaises(TypeError, Resource, pattern="/", methods="GET", answer=print)
