"""A peer: a node that we call, held connected whatever the network does.

Which Tub and which route are in use is nobody else's business. Each reconnect
is a new `Generation` with a Tub of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from math import inf
from random import Random
from types import MappingProxyType
from typing import Final, Literal

from attrs import define, frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IResponse

from broker.calling import Calling, Phase, make_machine
from broker.errors import Mistrusted, NotConnected, PeerRefusedUs, TooLate
from broker.generation import Generation, Issuer
from broker.handlers import Handlers
from broker.merge import PeerRecord
from broker.routes import Policy, Route
from protocols.deferreds import starting
from protocols.nodeid import NodeID

State = Literal["connected", "connecting", "waiting", "refused", "ignored"]

_STATES: Final[Mapping[Phase, State]] = {
    "ignored": "ignored",
    "connecting": "connecting",
    "connected": "connected",
}

NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})

WAIT_S: Final = 10.0
"""How long a request waits for a connection, in seconds."""

SPREAD_S: Final = 10.0
"""The first calls to others than own devices spread over this time, in seconds,
so that no two of them can tell from the moment that one node called both."""


@frozen
class PeerStatus:
    """A snapshot for the user.

    Attributes:
        node: the peer.
        nickname: what the user calls it, if anything.
        state: ``refused`` is a waiting after somebody refused, or because no
            route may be dialled.
        route: the one in use, or None.
        last_error: why there is no connection, or None.
        next_attempt_s: how long until the next attempt, in seconds, or None.
        credentials: the label of the outbound Tub in use, or None.
        last_seen: when it was last connected, in seconds since the epoch.
    """

    node: NodeID
    nickname: str | None
    state: State
    route: Route | None
    last_error: str | None
    next_attempt_s: float | None
    credentials: str | None
    last_seen: float | None


@define(eq=False)
class _Waiter:
    """Somebody who waits for a connection, until so many attempts have failed."""

    connected: Deferred[None]
    attempts: float


class Peer:
    """A node that we call.

    Owner: the `Broker`, which starts it and closes it.

    Args:
        record: whom to call and how.
        issuer: mints an outbound Tub for each connection generation.
        handlers: for the routes.
        clock: for every time.
        policy: gives what this machine allows, asked before each attempt.
        draw: the randomness of this peer alone.
    """

    def __init__(
        self,
        record: PeerRecord,
        issuer: Issuer,
        handlers: Handlers,
        clock: IReactorTime,
        policy: Callable[[], Policy],
        draw: Random,
    ) -> None:
        self._clock = clock
        self._waiters: list[_Waiter] = []
        self._calling = Calling(
            record, issuer, handlers, clock, policy, draw, self._settled
        )
        self._machine = make_machine(self._calling)

    @property
    def record(self) -> PeerRecord:
        """What decides how the peer is called."""
        return self._calling.record

    @property
    def node(self) -> NodeID:
        """The peer's node id."""
        return self.record.node

    @property
    def nickname(self) -> str:
        """What to call the peer in a message: its nickname, else a short id."""
        return self.record.name

    @property
    def connected(self) -> bool:
        """Whether the lifeline is up."""
        return self._calling.phase == "connected"

    def start(self) -> None:
        """Begin to call: an own device at once, others after a random while."""
        calling = self._calling
        own = self.record.own
        calling.delay = 0.0 if own else calling.draw.uniform(0.0, SPREAD_S)
        if self.record.ignored:
            self._machine.hold()
        else:
            self._machine.begin()

    def update(self, record: PeerRecord) -> None:
        """Take a new record of the same node.

        A connection is kept if its route is still allowed and the Tub would be
        certified as before; otherwise a new attempt begins at once.
        """
        old, self._calling.record = self.record, record
        if record == old or self._calling.phase == "idle":
            return
        self._calling.failures = 0
        self._calling.delay = 0.0
        self._calling.error = None
        if record.ignored:
            self._machine.hold()
            self._release(self._waiters, self._unreachable())
        elif self._calling.phase == "ignored":
            self._machine.begin()
        elif not (self.connected and self._still_good(old)):
            self._machine.renew()

    def _still_good(self, old: PeerRecord) -> bool:
        generation = self._calling.generation
        if generation is None or generation.route is None:
            return False
        allowed = {r.hint for r in self._calling.plan() if r.verdict == "allowed"}
        same = (old.own, old.local.identity) == (
            self.record.own,
            self.record.local.identity,
        )
        return same and generation.route.hint in allowed

    def nudge(self) -> None:
        """Call now if the peer isn't connected, and forget earlier failures."""
        self._calling.failures = 0
        self._machine.hurry()

    def when_connected(
        self, timeout: float = WAIT_S, attempts: int | None = None
    ) -> Deferred[None]:
        """Wait for the lifeline.

        Args:
            timeout: how long to wait, in seconds.
            attempts: give up after so many failed attempts, even before; None
                to wait through them.

        Returns:
            A Deferred that fires with None when (or if) the peer is connected.
            It fails with `NotConnected`: a `WrongKey`, `Mistrusted` or
            `PeerRefusedUs` if that was why.
        """
        if self.connected:
            return succeed(None)
        if self._calling.phase in ("idle", "ignored"):
            return fail(self._unreachable())
        waiting: Deferred[None] = Deferred(lambda _: self._forget(waiting))
        self._waiters.append(_Waiter(waiting, attempts or inf))
        return waiting.addTimeout(timeout, self._clock, self._too_late)

    def _too_late(self, _: object, timeout: float) -> None:
        raise self._calling.error or TooLate(
            self.nickname, f"can't be reached: no connection within {timeout:g} s"
        )

    def _forget(self, waiting: Deferred[None]) -> None:
        self._waiters = [w for w in self._waiters if w.connected is not waiting]

    def _unreachable(self) -> NotConnected:
        ignored = self.record.ignored
        why = f"is not called: {ignored} says to ignore it" if ignored else ""
        return NotConnected(
            self.nickname, why or "is not called: the node is not running"
        )

    @starting
    async def request(
        self,
        method: bytes,
        path: str,
        headers: Mapping[str, str] = NO_HEADERS,
        timeout: float = WAIT_S,
    ) -> IResponse:
        """Send a request without a body to the peer.

        Args:
            method: such as ``b"GET"``.
            path: the target with its query, percent-encoded, from the ``/`` on.
            headers: of `broker.http.PASSED` alone.
            timeout: how long to wait for a connection, in seconds.

        Returns:
            A Deferred that fires with the head of the answer, whatever its
            status; redirects are not followed. Its body is unbuffered and must
            be read (`broker.http.read_body`) or given up
            (`broker.http.discard`). It fails with `NotConnected`, with
            `RequestFailed` if no answer came, or with ValueError for a path or
            header that must not be sent; cancelling it closes its connection.
        """
        await self.when_connected(timeout)
        generation: Generation | None = self._calling.generation
        if generation is None:
            raise self._unreachable()
        return await generation.request(method, path, headers)

    def status(self) -> PeerStatus:
        """Give a snapshot of how things stand."""
        calling, ignored = self._calling, self.record.ignored
        generation = calling.generation if self.connected else None
        error = f"{ignored} says to ignore it" if ignored else calling.error
        left = None
        if calling.timer is not None and calling.timer.active():
            left = max(0.0, calling.timer.getTime() - self._clock.seconds())
        tub = generation.credentials if generation else None
        return PeerStatus(
            self.node,
            self.record.nickname,
            self._state(),
            generation.route if generation else None,
            str(error) if error else None,
            left,
            tub.label if tub else None,
            self._clock.seconds() if self.connected else calling.last_seen,
        )

    def _state(self) -> State:
        calling = self._calling
        if calling.phase in ("idle", "waiting"):
            barred = calling.routes and calling.routes[0].verdict == "refused"
            refused = isinstance(calling.error, Mistrusted | PeerRefusedUs)
            return "refused" if refused or barred else "waiting"
        return _STATES[calling.phase]

    def routes_report(self) -> list[tuple[Route, str | None]]:
        """Give every route with how the last attempt on it went, if there was one."""
        results = self._calling.results
        return [(route, results.get(route.hint)) for route in self._calling.plan()]

    def close(self) -> Deferred[None]:
        """Cut every connection and call no more.

        Returns:
            A Deferred that fires when they are gone; never fails.
        """
        self._machine.stop()
        self._release(self._waiters, self._unreachable())
        return self._calling.gone()

    def _settled(self, error: NotConnected | None) -> None:
        """Tell those who wait for the end of an attempt."""
        if error is None:
            self._release(self._waiters, None)
            return
        for waiter in self._waiters:
            waiter.attempts -= 1
        self._release([w for w in self._waiters if w.attempts <= 0], error)

    def _release(self, released: Sequence[_Waiter], error: NotConnected | None) -> None:
        self._waiters = [w for w in self._waiters if w not in released]
        for waiter in released:
            if error is None:
                waiter.connected.callback(None)
            else:
                waiter.connected.errback(error)
