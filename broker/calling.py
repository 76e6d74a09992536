"""The state machine of calling one peer: wait, connect, hold, and again.

::

    idle -> waiting -> connecting -> connected
              ^------------'  (failed)    |
              ^---------------------------'  (lost)

and from everywhere to ``ignored``, on the user's word, and back to ``idle``.
"""

from collections.abc import Callable, Mapping
from functools import partial
from random import Random
from typing import Final, Literal, Protocol

from attrs import define, field
from automat import TypeMachineBuilder
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from broker.errors import NotConnected, RaceFailed, explain, is_expected, summarize
from broker.generation import Generation, Issuer
from broker.handlers import Handlers
from broker.merge import PeerRecord
from broker.routes import Policy, Route, plan_routes
from protocols.hint import Hint

_log = Logger()

MAX_DELAY_S: Final = 60.0
"""The longest time between two attempts, in seconds."""

STEADY_S: Final = 60.0
"""A connection that lived as long as this is called again at once, in seconds.

A shorter one is too, but only once: a peer that takes us in and drops us every
time must not be called in a loop.
"""

Phase = Literal["idle", "ignored", "waiting", "connecting", "connected"]


def backoff(failures: int, draw: Random) -> float:
    """Give the time to wait after the n-th failure in a row, in seconds.

    It doubles from 1 s to at most 60 s, and is drawn from the upper half of
    that, so that no two peers are called in one rhythm.
    """
    longest = min(MAX_DELAY_S, 2.0 ** min(failures - 1, 10))
    return draw.uniform(longest / 2, longest)


class Inputs(Protocol):
    """What can happen to a peer. Nothing here may fail or return anything."""

    def begin(self) -> None:
        """Start to call, after the calling's ``delay``."""

    def hold(self) -> None:
        """Never call, since the user says so."""

    def stop(self) -> None:
        """Cut everything and call no more."""

    def hurry(self) -> None:
        """Call now, instead of at the end of the waiting."""

    def renew(self) -> None:
        """Give the present connection up, if any, and call again."""

    def due(self) -> None:
        """The waiting is over."""

    def connected(self) -> None:
        """The peer has let us in."""

    def failed(self) -> None:
        """The attempt has failed."""

    def lost(self) -> None:
        """The connection is gone."""


@define(eq=False)
class Calling:
    """What the machine of one peer works with.

    Owner: its peer. Every peer has a source of randomness of its own, so that
    what one does never moves the dial times of another.

    Attributes:
        record: whom to call and how.
        phase: where the machine is.
        delay: how long the next waiting lasts, in seconds.
        failures: attempts that failed in a row.
        timer: the end of the waiting.
        generation: the connection, or the attempt at one.
        routes: the plan of the last attempt.
        results: how the last attempt at each place went.
        error: why there is no connection; None if there is one or none was tried.
        last_seen: when the peer was last connected, in seconds since the epoch.
        settled: called with None when connected, or with why an attempt failed.
    """

    record: PeerRecord
    issuer: Issuer
    handlers: Handlers
    clock: IReactorTime
    policy: Callable[[], Policy]
    draw: Random
    settled: Callable[[NotConnected | None], None]
    phase: Phase = "idle"
    delay: float = 0.0
    failures: int = 0
    timer: IDelayedCall | None = None
    generation: Generation | None = None
    routes: list[Route] = field(factory=list)
    results: dict[Hint, str] = field(factory=dict)
    error: NotConnected | None = None
    last_seen: float | None = None
    _connected_at: float = 0.0
    _brief: int = 0
    _closing: int = 0
    _gone: list[Deferred[None]] = field(factory=list)

    def plan(self) -> list[Route]:
        """Plan the routes anew."""
        self.routes = plan_routes(self.record, self.policy())
        results = self.results
        self.results = {
            r.hint: results[r.hint] for r in self.routes if r.hint in results
        }
        return self.routes

    def attempt(self, machine: Inputs) -> None:
        """Open a new generation, and tell the machine how that goes."""
        generation = Generation(
            self.record,
            self.issuer,
            self.handlers,
            self.clock,
            lambda problem: self._lost(machine, problem),
            lambda route, how: self.results.update({route.hint: how}),
        )
        self.generation = generation

        def opening() -> Deferred[None]:
            return generation.open([r for r in self.plan() if r.verdict == "allowed"])

        maybeDeferred(opening).addCallbacks(
            lambda _: self._connected(machine, generation),
            lambda failure: self._failed(machine, generation, failure),
        ).addErrback(partial(_log.failure, "calling a peer"))

    def _connected(self, machine: Inputs, generation: Generation) -> None:
        if generation is not self.generation:
            return
        self.failures, self.error = 0, None
        self._connected_at = self.last_seen = self.clock.seconds()
        if generation.route is not None:
            self.results[generation.route.hint] = "connected"
        machine.connected()
        self.settled(None)

    def _failed(
        self, machine: Inputs, generation: Generation, failure: Failure
    ) -> None:
        if generation is not self.generation:
            return
        problem = failure.value or RuntimeError("a failure without a cause")
        if not is_expected(problem):
            _log.failure("calling {peer}", failure, peer=self.record.name)
        if generation.route is not None:
            self.results[generation.route.hint] = explain(problem)
            problem = RaceFailed([(generation.route, problem)])
        self.error = summarize(self.record.name, problem, self.routes)
        self.failures += 1
        self.delay = backoff(self.failures, self.draw)
        _log.info("{error}; again in {delay:.1f} s", error=self.error, delay=self.delay)
        machine.failed()
        self.settled(self.error)

    def _lost(self, machine: Inputs, problem: BaseException) -> None:
        why = f"went away: {explain(problem)}"
        self.error = NotConnected(self.record.name, why)
        self.last_seen = self.clock.seconds()
        lived = self.last_seen - self._connected_at
        self._brief = 0 if lived >= STEADY_S else self._brief + 1
        self.delay = 0.0 if self._brief < 2 else backoff(self._brief - 1, self.draw)
        _log.info("{error}; again in {delay:.1f} s", error=self.error, delay=self.delay)
        machine.lost()

    def enter(self, phase: Phase) -> None:
        """Leave what there was, and note where the machine is now."""
        if self.timer is not None and self.timer.active():
            self.timer.cancel()
        self.timer = None
        generation, self.generation = self.generation, None
        self.phase = phase
        if generation is not None:
            self._closing += 1
            generation.close().addCallback(self._closed)
        self._tell_gone()

    def gone(self) -> Deferred[None]:
        """Fire once the machine is idle and no connection is left."""
        waiting: Deferred[None] = Deferred()
        self._gone.append(waiting)
        self._tell_gone()
        return waiting

    def _closed(self, _: None) -> None:
        self._closing -= 1
        self._tell_gone()

    def _tell_gone(self) -> None:
        if self.phase == "idle" and not self._closing:
            waiting, self._gone = self._gone, []
            for each in waiting:
                each.callback(None)


def _rest(_: Inputs, calling: Calling) -> None:
    calling.enter("idle")


def _ignore(_: Inputs, calling: Calling) -> None:
    calling.enter("ignored")


def _wait(machine: Inputs, calling: Calling) -> None:
    calling.enter("waiting")
    calling.timer = calling.clock.callLater(calling.delay, machine.due)


def _attempt(machine: Inputs, calling: Calling) -> None:
    calling.enter("connecting")
    calling.attempt(machine)


def _hold(_: Inputs, calling: Calling) -> None:
    calling.phase = "connected"


# What each input leads to; what is in neither table for a state is an error.
_TABLE: Final[Mapping[Phase, Mapping[Callable[[Inputs], None], Phase]]] = {
    "idle": {Inputs.begin: "waiting", Inputs.hold: "ignored"},
    "ignored": {Inputs.begin: "waiting", Inputs.stop: "idle"},
    "waiting": {
        Inputs.due: "connecting",
        Inputs.hurry: "connecting",
        Inputs.renew: "connecting",
        Inputs.hold: "ignored",
        Inputs.stop: "idle",
    },
    "connecting": {
        Inputs.connected: "connected",
        Inputs.failed: "waiting",
        Inputs.renew: "waiting",
        Inputs.hold: "ignored",
        Inputs.stop: "idle",
    },
    "connected": {
        Inputs.lost: "waiting",
        Inputs.renew: "waiting",
        Inputs.hold: "ignored",
        Inputs.stop: "idle",
    },
}
_NOTHING_TO_DO: Final[Mapping[Phase, tuple[Callable[[Inputs], None], ...]]] = {
    "idle": (Inputs.stop, Inputs.hurry, Inputs.renew),
    "ignored": (Inputs.hold, Inputs.hurry, Inputs.renew),
    "waiting": (Inputs.begin,),
    "connecting": (Inputs.begin, Inputs.hurry),
    "connected": (Inputs.begin, Inputs.hurry),
}


def _build() -> Callable[[Calling], Inputs]:
    builder = TypeMachineBuilder(Inputs, Calling)
    states = {phase: builder.state(phase) for phase in _TABLE}
    actions: Mapping[Phase, Callable[[Inputs, Calling], None]] = {
        "idle": _rest,
        "ignored": _ignore,
        "waiting": _wait,
        "connecting": _attempt,
        "connected": _hold,
    }
    for phase, state in states.items():
        for event, after in _TABLE[phase].items():
            state.upon(event).to(states[after])(actions[after])
        for event in _NOTHING_TO_DO[phase]:
            state.upon(event).loop().returns(None)
    return builder.build()


make_machine: Final = _build()
"""Makes the machine of one peer, at first idle."""
