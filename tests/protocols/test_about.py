"""Tests of what a node says about itself, and of the lifeline."""

import json
from random import Random

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from protocols.about import about
from protocols.events import PERIOD_S, events
from protocols.nodeid import NodeID
from protocols.principal import Person, Principal, Stranger
from tests.protocols.calling import DEVICE, Caller, make_site

NODE = NodeID.of_spki(b"called")


class AboutTests(SynchronousTestCase):
    """``/`` and ``/announcement``."""

    def call(self, who: Principal, announcement: bytes | None = b"{}") -> Caller:
        """Call a node."""
        clock = Clock()

        def services(caller: Principal) -> list[str]:
            return ["files"] if caller == DEVICE else []

        resources = about("1.2", NODE, services, lambda: announcement)
        return Caller(make_site(clock, resources, principal_of=lambda _: who), clock)

    def test_root(self) -> None:
        """A caller learns who we are; a stranger not what we offer."""
        base = {"wherry": "1.2", "node": NODE.text}
        callers: list[tuple[Principal, dict[str, object]]] = [
            (DEVICE, {**base, "services": ["files"]}),
            (Person("anna"), {**base, "services": []}),
            (Stranger(), dict(base)),
        ]
        for who, expected in callers:
            answer = self.call(who).answer("/")
            self.assertEqual(answer.status, 200)
            self.assertEqual(json.loads(answer.body), expected)

    def test_announcement(self) -> None:
        """The announcement comes as it was signed, if there is one."""
        answer = self.call(Stranger(), b'{"signed": true}').answer("/announcement")
        self.assertEqual((answer.status, answer.body), (200, b'{"signed": true}'))
        self.assertEqual(answer.headers["content-type"], "application/json")
        self.assertEqual(self.call(DEVICE, None).answer("/announcement").status, 404)


class EventsTests(SynchronousTestCase):
    """``/events`` speaks at once, and is never silent for long."""

    def setUp(self) -> None:
        """Call the lifeline."""
        self.clock = Clock()
        self.site = make_site(self.clock, events(self.clock, Random(5)))
        self.caller = Caller(self.site, self.clock)
        self.addCleanup(self.check_clean)

    def check_clean(self) -> None:
        """No timer outlives its connection."""
        self.site.close()
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def silences(self, count: int) -> list[float]:
        """Measure the time between comments, in tenths of a second."""
        found: list[float] = []
        last = self.clock.seconds()
        while len(found) < count:
            self.clock.advance(0.1)
            if self.caller.wire.take(2**20):
                found.append(self.clock.seconds() - last)
                last = self.clock.seconds()
        return found

    def test_first_byte(self) -> None:
        """Headers and a first comment go out at once."""
        self.caller.ask("/events")
        head, _, body = self.caller.take().partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertIn(b"Content-Type: text/event-stream", head)
        self.assertIn(b"Cache-Control: no-store", head)
        self.assertEqual(body, b"a\r\n: wherry\n\n\r\n")

    def test_beat(self) -> None:
        """Comments come at most every 25 s, and not with a steady beat."""
        self.caller.ask("/events")
        self.caller.take()
        silences = self.silences(30)
        self.assertLess(max(silences), PERIOD_S + 0.2)
        self.assertGreater(min(silences), PERIOD_S * 0.79)
        self.assertGreater(max(silences) - min(silences), 1)
        self.assertFalse(self.caller.lost)

    def test_two_streams(self) -> None:
        """No two streams share their beat."""
        other = Caller(self.site, self.clock)
        for each in (self.caller, other):
            each.ask("/events")
            each.take()
        moments: list[set[float]] = [set(), set()]
        while self.clock.seconds() < 400:
            self.clock.advance(0.1)
            for each, when in zip((self.caller, other), moments, strict=True):
                if each.wire.take(2**20):
                    when.add(round(self.clock.seconds(), 1))
        self.assertLess(len(moments[0] & moments[1]), 3)

    def test_caller_leaves(self) -> None:
        """A caller who goes leaves nothing behind."""
        self.caller.ask("/events")
        self.caller.wire.lose(ConnectionError())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_caller_takes_nothing(self) -> None:
        """A paused stream says nothing more, and is cut after a minute."""
        self.caller.ask("/events")
        self.caller.take()
        self.caller.channel.pauseProducing()
        self.clock.pump([1] * 59)
        self.assertFalse(self.caller.wire.waiting)
        self.caller.channel.resumeProducing()
        self.silences(1)
        self.caller.channel.pauseProducing()
        self.clock.pump([1] * 60)
        self.assertTrue(self.caller.lost)

    def test_head(self) -> None:
        """HEAD gets the headers, and the connection goes on."""
        answer = self.caller.answer("/events", method="HEAD")
        self.assertEqual(answer.headers["content-type"], "text/event-stream")
        self.assertEqual(self.caller.answer("/events", method="HEAD").status, 200)

    def test_old_http(self) -> None:
        """HTTP/1.0 gets the stream without chunks."""
        self.caller.say(b"GET /events HTTP/1.0\r\n\r\n")
        self.assertTrue(self.caller.take().endswith(b"\r\n\r\n: wherry\n\n"))
        self.assertFalse(self.caller.lost)
