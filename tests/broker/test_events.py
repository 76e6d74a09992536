"""Tests of broker.events."""

from typing import Any

from attrs import define
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers

from broker.errors import Denied, NotEvents, Silent
from broker.events import Lifeline, check_answer


@define
class Answer:
    """The head of an answer."""

    code: int
    headers: Headers
    stopped: bool = False

    def deliverBody(self, protocol: Any) -> None:
        """Take who stops the answer."""
        protocol.makeConnection(self)

    def stopProducing(self) -> None:
        """Note it."""
        self.stopped = True


def answered(code: int, media_type: bytes = b"text/event-stream") -> Any:
    """Make an answer."""
    return Answer(code, Headers({b"Content-Type": [media_type]}))


class CheckAnswerTests(SynchronousTestCase):
    """What a peer may answer to /events."""

    def test_events(self) -> None:
        """A stream of events, whatever its parameters."""
        for media_type in (b"text/event-stream", b"Text/Event-Stream; charset=utf-8"):
            response = answered(200, media_type)
            check_answer(response)
            self.assertFalse(response.stopped)

    def test_refused(self) -> None:
        """Anything else ends the connection and says why."""
        for code, kind in (
            (401, Denied),
            (403, Denied),
            (503, NotEvents),
            (404, NotEvents),
            (301, NotEvents),
        ):
            response = answered(code)
            with self.assertRaises(kind):
                check_answer(response)
            self.assertTrue(response.stopped)
        with self.assertRaises(NotEvents):
            check_answer(answered(200, b"text/html"))
        with self.assertRaises(NotEvents):
            check_answer(Answer(200, Headers()))  # type: ignore[arg-type]


class LifelineTests(SynchronousTestCase):
    """The stream's beginning, its silence and its end."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.ends: list[BaseException] = []
        self.lifeline = Lifeline(self.clock, self.ends.append)

    def test_first_byte(self) -> None:
        """Connected is the first byte, and nothing before it."""
        self.assertNoResult(self.lifeline.first)
        self.lifeline.dataReceived(b":")
        self.successResultOf(self.lifeline.first)
        self.lifeline.dataReceived(b" more")

    def test_silence(self) -> None:
        """A half-open link is noticed after 30 s without a byte."""
        self.lifeline.dataReceived(b":")
        for _ in range(4):
            self.clock.advance(25)
            self.lifeline.dataReceived(b":")
        self.assertEqual(self.ends, [])
        self.clock.advance(29)
        self.assertEqual(self.ends, [])
        self.clock.advance(1)
        self.assertIsInstance(self.ends[0], Silent)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_life_elsewhere(self) -> None:
        """A byte on another connection to the peer is a sign of life too."""
        self.lifeline.dataReceived(b":")
        for _ in range(10):
            self.clock.advance(20)
            self.lifeline.heard()
        self.assertEqual(self.ends, [])
        self.clock.advance(20)
        self.clock.advance(10)
        self.assertEqual(len(self.ends), 1)

    def test_end(self) -> None:
        """The end is told once, with its reason."""
        self.lifeline.dataReceived(b":")
        self.lifeline.connectionLost(Failure(ConnectionLost()))
        self.lifeline.connectionLost(Failure(ConnectionLost()))
        self.clock.advance(100)
        self.assertEqual([type(end) for end in self.ends], [ConnectionLost])

    def test_end_before_the_first_byte(self) -> None:
        """Who hangs up at once has not let us in."""
        self.lifeline.connectionLost(Failure(ResponseDone()))
        self.failureResultOf(self.lifeline.first, NotEvents)
        self.assertEqual(self.ends, [])

    def test_stop(self) -> None:
        """A stopped lifeline leaves nothing and tells nobody."""
        self.lifeline.dataReceived(b":")
        self.lifeline.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.lifeline.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(self.ends, [])

    def test_cancel(self) -> None:
        """Who waits for the first byte may give up."""
        self.lifeline.first.cancel()
        self.failureResultOf(self.lifeline.first, CancelledError)
        self.lifeline.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(self.ends, [])
