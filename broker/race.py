"""Racing routes: staggered starts, the first to arrive wins, the rest is cancelled."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from broker.errors import RaceFailed
from broker.routes import Route

STAGGER_S = 0.25
"""How long the next route waits for the one before it, in seconds."""

T = TypeVar("T")


def race(
    routes: Sequence[Route],
    attempt: Callable[[Route], Deferred[T]],
    clock: IReactorTime,
    stagger: float = STAGGER_S,
) -> Deferred[tuple[Route, T]]:
    """Try routes in their order until one arrives.

    The next route starts after ``stagger`` seconds, or at once when the one
    before it fails.

    Args:
        routes: in order of preference.
        attempt: starts on a route; cancelling its Deferred must leave nothing
            behind.
        clock: for the staggering.
        stagger: in seconds.

    Returns:
        A Deferred that fires with the winner and what its attempt gave, after
        all others were cancelled. It fails with `RaceFailed` when the last
        route has failed. Cancelling it cancels every attempt.
    """
    return _Race(routes, attempt, clock, stagger).result


class _Race(Generic[T]):
    """One race; lives as long as its result is awaited."""

    def __init__(
        self,
        routes: Sequence[Route],
        attempt: Callable[[Route], Deferred[T]],
        clock: IReactorTime,
        stagger: float,
    ) -> None:
        self.result: Deferred[tuple[Route, T]] = Deferred(lambda _: self._end())
        self._waiting = list(routes)
        self._attempt = attempt
        self._clock = clock
        self._stagger = stagger
        self._running: set[Deferred[T]] = set()
        self._failures: list[tuple[Route, BaseException]] = []
        self._timer: IDelayedCall | None = None
        self._over = False
        self._go_on()

    def _go_on(self) -> None:
        """Start the next route, or end a race in which nobody is left."""
        self._stop_timer()
        if self._waiting:
            route = self._waiting.pop(0)
            if self._waiting:
                self._timer = self._clock.callLater(self._stagger, self._next)
            self._start(route)
        elif not self._running:
            self._over = True
            self.result.errback(RaceFailed(self._failures))

    def _next(self) -> None:
        self._timer = None
        self._go_on()

    def _start(self, route: Route) -> None:
        attempt = self._attempt(route)
        self._running.add(attempt)
        attempt.addCallbacks(
            self._arrived,
            self._failed,
            callbackArgs=(route, attempt),
            errbackArgs=(route, attempt),
        )

    def _arrived(self, prize: T, route: Route, attempt: "Deferred[T]") -> None:
        self._running.discard(attempt)
        self._end()
        self.result.callback((route, prize))

    def _failed(self, failure: Failure, route: Route, attempt: "Deferred[T]") -> None:
        self._running.discard(attempt)
        if self._over:
            return
        problem = failure.value or RuntimeError("a failure without a cause")
        self._failures.append((route, problem))
        self._go_on()

    def _end(self) -> None:
        """Cancel whatever runs."""
        self._over = True
        self._waiting.clear()
        self._stop_timer()
        for running in list(self._running):
            running.cancel()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
