"""Tests of deciding requests."""

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from protocols.principal import Person, Stranger
from protocols.request import (
    PeerRequest,
    Refusal,
    Resource,
    acquaintances,
    anyone,
    decide,
    own_devices,
)
from tests.protocols.calling import DEVICE, Caller, make_site


def _nothing(_: PeerRequest) -> None:
    raise AssertionError("deciding must not answer")


RESOURCES = [
    Resource("/", "GET HEAD", anyone, _nothing),
    Resource("/files/", "GET HEAD", acquaintances, _nothing, frozenset({"after"})),
    Resource("/files/{}", "GET HEAD", acquaintances, _nothing),
    Resource("/files/{}/leaves", "GET", acquaintances, _nothing),
    Resource("/own/renew", "POST", own_devices, _nothing, body=100),
    Resource("/db/{}/{*}", "GET PUT", own_devices, _nothing),
]


class DecideTests(SynchronousTestCase):
    """`decide` is the one place where a request is allowed or refused."""

    def test_chosen(self) -> None:
        """The resource is found, with what stands for the braces in its pattern."""
        for target, pattern, parts in (
            (b"/", "/", ()),
            (b"/files/", "/files/", ()),
            (b"/files/x", "/files/{}", ("x",)),
            (b"/files/a%20b", "/files/{}", ("a b",)),
            (b"/files/x/leaves", "/files/{}/leaves", ("x",)),
            (b"/db/x/y", "/db/{}/{*}", ("x", "y")),
            (b"/db/x/y/z/", "/db/{}/{*}", ("x", "y", "z", "")),
        ):
            decision = decide(RESOURCES, DEVICE, b"GET", target)
            self.assertEqual(decision.resource.pattern, pattern)
            self.assertEqual(decision.parts, parts)

    def test_query(self) -> None:
        """A query is for the keys that the resource takes."""
        decision = decide(RESOURCES, DEVICE, b"GET", b"/files/?after=7")
        self.assertEqual(decision.query, {"after": "7"})

    def test_refused(self) -> None:
        """Everything else is refused with the right status."""
        for method, target, status in (
            (b"GET", b"/nothing", 404),
            (b"GET", b"/files", 404),
            (b"GET", b"/files/x/", 404),
            (b"GET", b"/files/x/leaves/", 404),
            (b"GET", b"/db/x", 404),
            (b"GET", b"/FILES/", 404),
            (b"POST", b"/nothing", 404),
            (b"POST", b"/files/x", 405),
            (b"get", b"/", 405),
            (b"HEAD", b"/files/x/leaves", 405),
            (b"GET", b"/own/renew", 405),
            (b"GET", b"/?x=1", 400),
            (b"GET", b"/files/?after=1&before=2", 400),
            (b"GET", b"/files/%2e%2e", 400),
            (b"OPTIONS", b"*", 400),
            (b"CONNECT", b"peer:443", 400),
            (b"GET", b"http://peer/", 400),
        ):
            refusal = self.assertRaises(
                Refusal, decide, RESOURCES, DEVICE, method, target
            )
            self.assertEqual(refusal.status, status, (method, target))

    def test_allow(self) -> None:
        """405 says what may be asked."""
        refusal = self.assertRaises(Refusal, decide, RESOURCES, DEVICE, b"PUT", b"/")
        self.assertEqual(refusal.headers, {"Allow": "GET, HEAD"})

    def test_who(self) -> None:
        """Each resource has its rule, looked at before anything else of it."""
        person, stranger = Person("anna"), Stranger()
        for caller, target, good in (
            (stranger, b"/", True),
            (stranger, b"/files/", False),
            (stranger, b"/files/x", False),
            (person, b"/files/x", True),
            (person, b"/db/x/y", False),
            (person, b"/own/renew", False),
            (DEVICE, b"/db/x/y", True),
        ):
            if good:
                decide(RESOURCES, caller, b"GET", target)
                continue
            for method in (b"GET", b"POST", b"BREW"):
                refusal = self.assertRaises(
                    Refusal, decide, RESOURCES, caller, method, target
                )
                self.assertEqual(refusal.status, 403)
                self.assertEqual(refusal.error, "forbidden")


class AnsweringTests(SynchronousTestCase):
    """What a resource does becomes an answer, whatever it does."""

    def setUp(self) -> None:
        """Make a clock."""
        self.clock = Clock()

    def caller(self, *resources: Resource) -> Caller:
        """Call a site with these resources."""
        return Caller(make_site(self.clock, resources), self.clock)

    def test_json(self) -> None:
        """JSON goes out as UTF-8, with its length, and is kept by nobody."""

        def answer(request: PeerRequest) -> None:
            request.send_json({"name": "café"})

        got = self.caller(Resource("/", "GET HEAD", anyone, answer)).answer("/")
        self.assertEqual(got.status, 200)
        self.assertEqual(got.body, '{"name":"café"}\n'.encode())
        self.assertEqual(got.headers["content-type"], "application/json")
        self.assertEqual(got.headers["cache-control"], "no-store")
        self.assertEqual(got.headers["x-content-type-options"], "nosniff")
        self.assertEqual(got.headers["date"], "Thu, 01 Jan 1970 00:00:00 GMT")
        self.assertNotIn("server", got.headers)

    def test_refusal(self) -> None:
        """A refusal, raised at once or later, becomes its JSON."""
        later: Deferred[None] = Deferred()
        refusal = Refusal(418, "teapot", "short and stout", {"X-Tea": "yes"})

        def at_once(_: PeerRequest) -> None:
            raise refusal

        caller = self.caller(
            Resource("/now", "GET", anyone, at_once),
            Resource("/later", "GET", anyone, lambda _: later),
        )
        caller.ask("/now")
        caller.ask("/later")
        later.errback(refusal)
        for got in caller.answers():
            self.assertEqual((got.status, got.headers["x-tea"]), (418, "yes"))
            self.assertEqual(
                got.body, b'{"error":"teapot","reason":"short and stout"}\n'
            )

    def test_unexpected(self) -> None:
        """An unexpected exception is logged, and the caller learns nothing of it."""

        def answer(_: PeerRequest) -> None:
            raise KeyError("secret")

        caller = self.caller(Resource("/", "GET", anyone, answer))
        got = caller.answer("/")
        self.assertEqual(got.status, 500)
        self.assertNotIn(b"secret", got.body)
        self.assertIn(b'"internal_server_error"', got.body)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assertEqual(caller.answer("/").status, 500)
        self.flushLoggedErrors(KeyError)

    def test_unexpected_in_the_middle(self) -> None:
        """Half an answer is cut, so that it doesn't look whole."""

        def answer(request: PeerRequest) -> None:
            request.begin(200, {})
            request.write(b"half")
            raise KeyError("oops")

        caller = self.caller(Resource("/", "GET", anyone, answer))
        caller.ask("/")
        self.assertTrue(caller.lost)
        self.assertTrue(caller.wire.aborted)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_caller_leaves_meanwhile(self) -> None:
        """What was answering is cancelled, without a word in the log."""
        later: Deferred[None] = Deferred()
        caller = self.caller(Resource("/", "GET", anyone, lambda _: later))
        caller.ask("/")
        caller.wire.lose(ConnectionError())
        self.assertTrue(later.called)

    def test_caller_and_parts(self) -> None:
        """A resource sees who asks, and the decoded parts alone."""
        seen = []

        def answer(request: PeerRequest) -> None:
            decision = request.decision
            seen.append((request.caller, decision.parts, dict(decision.query)))
            request.send_json({})

        caller = self.caller(
            Resource("/x/{}", "GET", own_devices, answer, frozenset({"k"}))
        )
        self.assertEqual(caller.answer("/x/a%20b?k=v%26").status, 200)
        self.assertEqual(seen, [(DEVICE, ("a b",), {"k": "v&"})])

    def test_body(self) -> None:
        """A resource that takes a body gets it whole, and no more than it takes."""

        def answer(request: PeerRequest) -> None:
            request.send(request.body()[::-1], "text/plain")

        caller = self.caller(Resource("/", "POST", own_devices, answer, body=5))
        caller.ask("/", "Content-Length: 5", method="POST")
        caller.say(b"he")
        self.assertEqual(caller.take(), b"")
        caller.say(b"llo")
        self.assertEqual([each.body for each in caller.answers()], [b"olleh"])
        caller.ask("/", "Content-Length: 5", "Expect: 100-continue", method="POST")
        self.assertEqual(caller.take(), b"HTTP/1.1 100 Continue\r\n\r\n")
        caller.got.clear()
        caller.say(b"12345")
        self.assertEqual([each.body for each in caller.answers()], [b"54321"])
        for headers, status in (
            (["Content-Length: 6"], 413),
            (["Transfer-Encoding: chunked"], 411),
        ):
            other = self.caller(Resource("/", "POST", own_devices, answer, body=5))
            other.ask("/", *headers, "Expect: 100-continue", method="POST")
            (got,) = other.answers()
            self.assertEqual((got.status, got.headers["connection"]), (status, "close"))
            self.assertTrue(other.lost)
