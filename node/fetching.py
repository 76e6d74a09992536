"""Fetching a file from whoever has it, believing nobody.

First come the leaf hashes, which prove themselves by the file's id, then every
leaf, which proves itself by its hash. So a holder can be anybody; one that
sends something wrong is dropped, and the next one goes on where it stopped.
"""

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import UNKNOWN_LENGTH, IResponse

from broker.http import discard
from node.body import Pieces
from node.errors import Integrity, TimedOut, Unreachable, WherryError
from node.faults import BadAnswer, Fault, check_status, fault_of, worst
from node.landing import Landing, Target
from node.listing import RemoteFile, Source, called
from protocols.deferreds import starting
from protocols.fileid import Leaves
from protocols.ranges import Part

T = TypeVar("T")

_LOOKED_AT_ONCE = 64  # leaves that one trip to a thread verifies on disk


class InThread(Protocol):
    """Runs a function in a thread, such as ``deferToThreadPool`` partly applied."""

    def __call__(
        self, function: Callable[..., T], *args: Any, **kwargs: Any
    ) -> Deferred[T]:
        """Give a Deferred of its result."""


@frozen
class Progress:
    """How far one file has come.

    Attributes:
        name: the file.
        size: in bytes.
        done: bytes that are verified.
        resumed: how many of them were there before.
        source: who sends it; "" while what is there is looked through.
        phase: what is going on.
    """

    name: str
    size: int
    done: int
    resumed: int
    source: str
    phase: Literal["checking", "fetching"]


@frozen
class Fetched:
    """A whole, verified file.

    Attributes:
        path: where it stands.
        size: in bytes.
        kept: it stood there before.
        resumed: bytes that were there from an earlier attempt.
        sources: who sent the rest, in order.
    """

    path: Path
    size: int
    kept: bool
    resumed: int
    sources: tuple[str, ...]


@starting
async def fetch(
    what: RemoteFile,
    sources: Sequence[Source],
    target: Target,
    *,
    in_thread: InThread,
    clock: IReactorTime,
    progress: Callable[[Progress], None],
    force: bool = False,
    umask: int = 0o022,
    stall_s: float = 60.0,
) -> Fetched:
    """Fetch one file, asking one holder at a time.

    Args:
        what: the file. Its id is relied on, and each holder is held to the
            size that it told.
        sources: the holders to ask, best first.
        target: where it goes.
        in_thread: runs what blocks; its jobs are short.
        clock: for the time limits.
        progress: called in the reactor's thread after each leaf.
        force: replace another file that stands there.
        umask: of the user who wants the file.
        stall_s: seconds after which a holder is given up that sends nothing, or
            less than `node.body.SLOWEST` on the average.

    Returns:
        A Deferred that fires when the file stands there, durably. It fails with
        a `WherryError`: what `Landing` raises, or why no holder could give it.
        After a failure, or when it is cancelled, what came is kept and the
        next fetch to the same target goes on from there.
    """
    fetching = _Fetching(what, target, in_thread, clock, progress, stall_s)
    try:
        return await fetching.run(sources, force, umask)
    finally:
        fetching.close()


class _Fetching:
    """One file on its way, from its first holder to its last."""

    def __init__(
        self,
        what: RemoteFile,
        target: Target,
        in_thread: InThread,
        clock: IReactorTime,
        progress: Callable[[Progress], None],
        stall_s: float,
    ) -> None:
        self._what = what
        self._target = target
        self._in_thread = in_thread
        self._clock = clock
        self._progress = progress
        self._stall_s = stall_s
        self._landing: Landing | None = None
        self._resumed = 0
        self._sent: list[str] = []
        self._faults: list[Fault] = []

    def close(self) -> None:
        if self._landing is not None:
            self._landing.close()

    async def run(self, sources: Sequence[Source], force: bool, umask: int) -> Fetched:
        """Go from holder to holder. One whose connection breaks gets another
        turn as long as each turn brings something; one that lies gets none."""
        waiting = deque(sources)
        while waiting:
            source = waiting.popleft()
            before = self._done
            try:
                if self._landing is None:
                    leaves = await self._leaves(source)
                    await self._land(leaves, force, umask)
                await self._content(source)
                return await self._finish()
            except CancelledError:
                raise
            except Exception as problem:
                fault = fault_of(called(source), problem)
                if fault is None:
                    raise
                self._faults.append(fault)
                if fault.kind in {Unreachable, TimedOut} and self._done > before:
                    waiting.append(source)
        raise self._failure()

    @property
    def _done(self) -> int:
        return 0 if self._landing is None else self._landing.have

    async def _leaves(self, source: Source) -> Leaves:
        path = f"/files/{self._what.id}/leaves"
        response = await source.request(b"GET", path, {})
        length = _checked(response, 200, None)
        if length != Leaves.length(self._what.holders[source.node]):
            discard(response)
            raise BadAnswer(Integrity, "listed it with another size than it has there")
        pieces = Pieces([length], self._clock, self._stall_s)
        response.deliverBody(pieces)
        try:
            data = await pieces.piece()
        finally:
            pieces.stop()
        return await self._in_thread(Leaves.parse, data, self._what.id)

    async def _land(self, leaves: Leaves, force: bool, umask: int) -> None:
        """Find out what is there already."""
        self._landing = landing = Landing(
            self._target, self._what.id, leaves, force=force, umask=umask
        )
        await self._in_thread(landing.begin)
        while await self._in_thread(landing.look, _LOOKED_AT_ONCE):
            self._report("checking", "")
        self._resumed = landing.found

    async def _content(self, source: Source) -> None:
        """Get all leaves that are missing from one holder."""
        landing = self._begun()
        for run in landing.missing():
            pieces = await self._run(source, run)
            try:
                for index in run:
                    leaf = await pieces.piece()
                    await self._in_thread(landing.write, index, leaf)
                    if self._sent[-1:] != [called(source)]:
                        self._sent.append(called(source))
                    self._report("fetching", called(source))
            finally:
                pieces.stop()

    async def _run(self, source: Source, run: range) -> Pieces:
        """Ask for neighbouring leaves."""
        leaves = self._begun().leaves
        part = Part(leaves.span(run[0])[0], leaves.span(run[-1])[1])
        headers: dict[str, str] = {}
        if part.length < leaves.size:
            headers["Range"] = f"bytes={part.start}-{part.stop - 1}"
        response = await source.request(b"GET", f"/files/{self._what.id}", headers)
        wanted = part.content_range(leaves.size) if headers else None
        length = _checked(response, 206 if headers else 200, wanted)
        if length != part.length:
            discard(response)
            raise BadAnswer(
                Integrity, f"would send {length} bytes instead of {part.length}"
            )
        spans = map(leaves.span, run)
        lengths = (stop - start for start, stop in spans)
        pieces = Pieces(lengths, self._clock, self._stall_s)
        response.deliverBody(pieces)
        return pieces

    async def _finish(self) -> Fetched:
        landing = self._begun()
        await self._in_thread(landing.finish)
        return Fetched(
            self._target.path,
            landing.leaves.size,
            landing.kept,
            0 if landing.kept else self._resumed,
            tuple(self._sent),
        )

    def _begun(self) -> Landing:
        if self._landing is None:
            raise RuntimeError("content before leaf hashes")
        return self._landing

    def _report(self, phase: Literal["checking", "fetching"], source: str) -> None:
        landing = self._begun()
        resumed = landing.found if phase == "checking" else self._resumed
        self._progress(
            Progress(
                self._what.name,
                landing.leaves.size,
                landing.have,
                resumed,
                source,
                phase,
            )
        )

    def _failure(self) -> WherryError:
        """Sum up why nobody could give the file."""
        what = f"{self._what.name} could not be fetched"
        if not self._faults:
            return Unreachable(what, "no peer that has it is connected")
        kept = "What has come is kept; run it again to go on." if self._done else ""
        return worst(self._faults, what, kept)


def _checked(response: IResponse, status: int, content_range: str | None) -> int:
    """Give the length of an answer, or raise why it is not the one asked for."""
    check_status(response, status, "it")
    given = response.headers.getRawHeaders(b"Content-Range") or [b""]
    try:
        if response.length is UNKNOWN_LENGTH:
            raise BadAnswer(Unreachable, "does not say how much it sends")
        if content_range is not None and given != [content_range.encode("ascii")]:
            raise BadAnswer(Integrity, "would send another part than asked for")
    except BadAnswer:
        discard(response)
        raise
    return int(response.length)
