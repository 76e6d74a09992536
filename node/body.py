"""Reading a long answer in pieces, no faster than they are used."""

from collections import deque
from collections.abc import Iterable
from typing import Final, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone

from broker.errors import BrokerError

# With the piece that is filling and the one that is being written this makes
# four in memory.
_WAITING = 2

SLOWEST: Final = 16 * 1024
"""How many bytes a second an answer must bring on the average, so that nobody is
held for ever by a trickle."""


class Stalled(BrokerError):
    """An answer stopped coming, or comes too slowly."""


class WrongLength(BrokerError):
    """An answer is shorter or longer than it said."""


class Pieces(Protocol):
    """Cuts a body into pieces of known lengths.

    Hand it to ``IResponse.deliverBody`` and call ``stop`` in the end. The
    connection is told to pause while enough pieces wait.

    Args:
        lengths: of the pieces, in bytes, none of them 0.
        clock: for the time limit.
        stall_s: the answer is given up if in so many seconds less came than
            `SLOWEST` demands; time in which we paused it doesn't count.
    """

    def __init__(
        self, lengths: Iterable[int], clock: IReactorTime, stall_s: float
    ) -> None:
        self._lengths = iter(lengths)
        self._clock = clock
        self._stall_s = stall_s
        self._enough = round(SLOWEST * stall_s)  # for a sign of life
        self._ready: deque[bytearray] = deque()
        self._wanted: Deferred[bytearray] | None = None
        self._problem: BaseException | None = None
        self._stopped = self._paused = False
        self._fresh = 0
        self._next_piece()

    # For the reader

    def piece(self) -> Deferred[bytearray]:
        """Wait for the next piece; ask for no more of them than there are.

        Returns:
            A Deferred that fires with it. It fails with `Stalled`,
            `WrongLength`, or what broke the answer off.
        """
        if self._ready:
            piece = self._ready.popleft()
            self._regulate()
            return succeed(piece)
        if self._problem is not None:
            return fail(self._problem)
        self._wanted = Deferred()
        return self._wanted

    def stop(self) -> None:
        """Let go; an answer that isn't whole ends, and its connection with it."""
        self._stopped = True
        self._ready.clear()
        if self._problem is None and self._piece is not None:
            self._end(WrongLength("the answer was not wanted any more"))

    # For the connection

    def connectionMade(self) -> None:
        self._heard = self._clock.seconds()
        self._timer = self._clock.callLater(self._stall_s, self._check_life)

    def dataReceived(self, data: bytes) -> None:
        if self._problem is not None:
            return
        self._fresh += len(data)
        if self._fresh >= self._enough:
            self._sign_of_life()
        rest = memoryview(data)
        while rest:
            if self._piece is None:
                self._end(WrongLength("sent more than was asked for"))
                return
            taken = min(len(rest), len(self._piece) - self._filled)
            self._piece[self._filled : self._filled + taken] = rest[:taken]
            self._filled += taken
            rest = rest[taken:]
            if self._filled == len(self._piece):
                self._sign_of_life()
                self._ready.append(self._piece)
                self._next_piece()
        self._deliver()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._timer.active():
            self._timer.cancel()
        if self._piece is not None and self._problem is None:
            short = reason.check(ResponseDone)
            self._problem = (
                WrongLength("sent less than was asked for") if short else reason.value
            )
            self._deliver()

    # Inside

    def _next_piece(self) -> None:
        length = next(self._lengths, None)
        self._piece = None if length is None else bytearray(length)
        self._filled = 0
        if length is None and self.connected and self._timer.active():
            self._timer.cancel()

    def _deliver(self) -> None:
        if self._wanted is not None and (self._ready or self._problem is not None):
            wanted, self._wanted = self._wanted, None
            if self._ready:
                wanted.callback(self._ready.popleft())
            elif self._problem is not None:
                wanted.errback(self._problem)
        self._regulate()

    def _regulate(self) -> None:
        full = len(self._ready) >= _WAITING
        if full == self._paused or self._problem is not None or self._piece is None:
            return
        self._paused = full
        producer = cast(IPushProducer, self.transport)
        if full:
            producer.pauseProducing()
        else:
            self._sign_of_life()
            producer.resumeProducing()

    def _sign_of_life(self) -> None:
        self._heard, self._fresh = self._clock.seconds(), 0

    def _check_life(self) -> None:
        if self._paused:
            self._sign_of_life()
        left = self._heard + self._stall_s - self._clock.seconds()
        if left <= 0:
            least = f"{self._enough / 1024:g} KiB"
            self._end(
                Stalled(f"was too slow: less than {least} came in {self._stall_s:g} s")
            )
        else:
            self._timer = self._clock.callLater(left, self._check_life)

    def _end(self, problem: BaseException) -> None:
        self._problem = problem
        if self._timer.active():
            self._timer.cancel()
        cast(IPushProducer, self.transport).stopProducing()
        if not self._stopped:
            self._deliver()
