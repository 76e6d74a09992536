"""Tests of broker.race."""

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from broker.errors import RaceFailed
from broker.race import race
from broker.routes import Route
from protocols.hint import Hint


def routes(count: int) -> list[Route]:
    """So many routes."""
    hints = [Hint.parse(f"tcp:10.0.0.{n}:1") for n in range(1, count + 1)]
    return [Route(h, "lan", "allowed", "", "card", n) for n, h in enumerate(hints, 1)]


class RaceTests(SynchronousTestCase):
    """Who starts when, who wins, and what is left behind."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.started: list[tuple[float, int | None]] = []
        self.cancelled: list[int | None] = []
        self.attempts: dict[int | None, Deferred[str]] = {}
        self.addCleanup(lambda: self.assertEqual(self.clock.getDelayedCalls(), []))

    def attempt(self, route: Route) -> Deferred[str]:
        """Start an attempt that the test ends."""
        self.started.append((self.clock.seconds(), route.rank))
        made: Deferred[str] = Deferred(lambda _: self.cancelled.append(route.rank))
        self.attempts[route.rank] = made
        return made

    def race(self, count: int) -> Deferred[tuple[Route, str]]:
        """Start a race."""
        return race(routes(count), self.attempt, self.clock)

    def test_staggered(self) -> None:
        """Each route starts 250 ms after the one before."""
        result = self.race(3)
        for _ in range(8):
            self.clock.advance(0.125)
        self.assertEqual(self.started, [(0.0, 1), (0.25, 2), (0.5, 3)])
        result.cancel()
        self.failureResultOf(result, CancelledError)

    def test_first_wins(self) -> None:
        """The first to arrive wins, in whatever order they started; others are cancelled."""
        result = self.race(4)
        self.clock.advance(0.25)
        self.clock.advance(0.25)
        self.attempts[2].callback("prize")
        route, prize = self.successResultOf(result)
        self.assertEqual((route.rank, prize), (2, "prize"))
        self.assertEqual(sorted(self.cancelled, key=str), [1, 3])
        self.clock.advance(10)
        self.assertEqual(len(self.started), 3)

    def test_failure_starts_the_next(self) -> None:
        """Nobody waits for a route that has failed already."""
        result = self.race(3)
        self.attempts[1].errback(ConnectionRefusedError())
        self.assertEqual(self.started, [(0.0, 1), (0.0, 2)])
        self.clock.advance(0.25)
        self.assertEqual(self.started[-1], (0.25, 3))
        self.attempts[3].callback("prize")
        self.assertEqual(self.successResultOf(result)[0].rank, 3)

    def test_all_failures_are_kept(self) -> None:
        """A lost race says what went wrong on each route, in that order."""
        result = self.race(2)
        self.clock.advance(0.25)
        self.attempts[2].errback(ValueError("two"))
        self.assertNoResult(result)
        self.attempts[1].errback(ConnectionRefusedError())
        error: Any = self.failureResultOf(result, RaceFailed).value
        self.assertEqual(
            [(route.rank, type(each)) for route, each in error.failures],
            [(2, ValueError), (1, ConnectionRefusedError)],
        )

    def test_at_once(self) -> None:
        """Attempts that end while they start are no special case."""
        ends: list[Deferred[str]] = [fail(ValueError()), succeed("prize")]
        result = race(routes(3), lambda _: ends.pop(0), self.clock)
        self.assertEqual(self.successResultOf(result)[0].rank, 2)

    def test_nobody_starts(self) -> None:
        """A race without routes is lost."""
        self.failureResultOf(self.race(0), RaceFailed)

    def test_cancel(self) -> None:
        """Cancelling the race cancels all that run, and no other starts."""
        result = self.race(3)
        self.clock.advance(0.25)
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertEqual(sorted(self.cancelled, key=str), [1, 2])
        self.clock.advance(10)
        self.assertEqual(len(self.started), 2)
