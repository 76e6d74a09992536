"""Tests of node.fetching: one file, from peers that may do anything."""

import random
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseFailed
from twisted.web.iweb import UNKNOWN_LENGTH, IResponse

from broker.errors import NotConnected, NotHTTP, PeerRefusedUs, RequestFailed
from node.errors import (
    Failed,
    Integrity,
    TimedOut,
    Unreachable,
    Untrusted,
    WherryError,
)
from node.fetching import Fetched, Progress, fetch
from node.landing import Target, TargetExists, part_name
from node.listing import RemoteFile
from protocols.fileid import LEAF_SIZE, MAX_LEAVES_BYTES, MAX_SIZE, Leaves
from protocols.nodeid import NodeID
from tests.node.sources import (
    CHUNK,
    Answer,
    Fault,
    MemorySource,
    answer,
    at_once,
    content_path,
    leaves_path,
    pieces,
)
from tests.protocols.test_fileid import leaves_of

ONE = NodeID("a" * 52)
CONTENT = random.Random(1).randbytes(4 * LEAF_SIZE + 77)
LEAVES = leaves_of(CONTENT)
WRONG = CONTENT[: 2 * LEAF_SIZE] + b"!" + CONTENT[2 * LEAF_SIZE + 1 :]


@define
class Threads:
    """Jobs that wait until they are let go."""

    waiting: list[Callable[[], None]] = field(factory=list)

    def __call__(self, function: Any, *args: Any, **kwargs: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()

        def run() -> None:
            maybeDeferred(function, *args, **kwargs).chainDeferred(done)

        self.waiting.append(run)
        return done

    def step(self) -> None:
        """Run the oldest job."""
        self.waiting.pop(0)()


class FetchCase(SynchronousTestCase):
    """A folder to fetch into, a clock, and sources."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.clock = Clock()
        self.seen: list[Progress] = []
        self.addCleanup(lambda: self.assertEqual(self.clock.getDelayedCalls(), []))

    def source(
        self,
        content: bytes = CONTENT,
        nickname: str = "laptop",
        fault: Fault = lambda path, headers: None,
    ) -> MemorySource:
        """A peer with this file."""
        return MemorySource({"film": content}, nickname, fault=fault)

    def fetch(
        self,
        *sources: MemorySource,
        content: bytes = CONTENT,
        name: str = "film",
        in_thread: Any = at_once,
        force: bool = False,
        listed: dict[NodeID, int] | None = None,
    ) -> Deferred[Fetched]:
        """Fetch it from them, some of whom listed it with another size."""
        id = leaves_of(content).id
        holders = {source.node: len(content) for source in sources} | (listed or {})
        what = RemoteFile(id, name, len(content), "text/plain", holders)
        return fetch(
            what,
            sources,
            Target(self.folder, name),
            in_thread=in_thread,
            clock=self.clock,
            progress=self.seen.append,
            force=force,
        )

    def there(self) -> list[str]:
        """The names in the folder."""
        return sorted(path.name for path in self.folder.iterdir())

    def film(self) -> bytes:
        """What came."""
        return (self.folder / "film").read_bytes()

    def failure(
        self, kind: type[WherryError], fetching: Deferred[Fetched]
    ) -> WherryError:
        """The fetch has failed so, and there is no file."""
        problem = self.failureResultOf(fetching).value
        assert isinstance(problem, kind), repr(problem)
        self.assertNotIn("film", self.there())
        return problem


def instead(
    path: str, make: Callable[[], IResponse | BaseException], times: int = 1 << 30
) -> Fault:
    """Answer requests for one path in another way, so many times."""
    left = iter(range(times))

    def fault(
        asked: str, headers: Mapping[str, str]
    ) -> IResponse | BaseException | None:
        if asked == path and next(left, None) is not None:
            return make()
        return None

    return fault


def no_http() -> RequestFailed:
    """What a request fails with when something else than HTTP comes."""
    failed = RequestFailed("laptop: answered with something else than HTTP")
    failed.__cause__ = ResponseFailed([Failure(NotHTTP("something else"))])
    return failed


class WholeTests(FetchCase):
    """Honest peers."""

    def test_sizes(self) -> None:
        """Empty, one byte, around and at exact multiples of a leaf, and sparse."""
        for content in (
            b"",
            b"x",
            CONTENT[: LEAF_SIZE - 1],
            CONTENT[:LEAF_SIZE],
            CONTENT[: LEAF_SIZE + 1],
            CONTENT[: 3 * LEAF_SIZE],
            bytes(2 * LEAF_SIZE) + b"data" + bytes(3 * LEAF_SIZE),
        ):
            (self.folder / "film").unlink(missing_ok=True)
            fetching = self.fetch(self.source(content), content=content)
            fetched = self.successResultOf(fetching)
            self.assertEqual(self.film(), content)
            self.assertEqual(self.there(), ["film"])
            self.assertEqual((fetched.size, fetched.kept), (len(content), False))
            self.assertEqual(fetched.path, self.folder / "film")

    def test_leaves_first(self) -> None:
        """The leaf hashes are asked for before the content."""
        source = self.source()
        self.successResultOf(self.fetch(source))
        self.assertEqual(
            source.asked, [(leaves_path(LEAVES.id), None), (content_path(LEAVES), None)]
        )

    def test_zeros_are_known(self) -> None:
        """Leaves of zeros are not asked for."""
        content = bytes(2 * LEAF_SIZE) + b"data" + bytes(LEAF_SIZE)
        source = self.source(content)
        fetched = self.successResultOf(self.fetch(source, content=content))
        wanted = f"bytes={2 * LEAF_SIZE}-{3 * LEAF_SIZE - 1}"
        self.assertEqual([asked for _, asked in source.asked], [None, wanted])
        self.assertEqual(fetched.resumed, 0)

    def test_progress(self) -> None:
        """It tells of each leaf and of who sends it."""
        fetched = self.successResultOf(self.fetch(self.source()))
        done = [each.done for each in self.seen if each.phase == "fetching"]
        spans = [LEAVES.span(index)[1] for index in range(LEAVES.count)]
        self.assertEqual(done, spans)
        self.assertEqual({each.size for each in self.seen}, {LEAVES.size})
        self.assertEqual(fetched.sources, ("laptop",))

    def test_kept(self) -> None:
        """A file that is there already costs only its leaf hashes."""
        (self.folder / "film").write_bytes(CONTENT)
        source = self.source()
        fetched = self.successResultOf(self.fetch(source))
        self.assertTrue(fetched.kept)
        self.assertEqual(source.asked, [(leaves_path(LEAVES.id), None)])

    def test_other_is_there(self) -> None:
        """Another file is refused at once, or replaced with force."""
        (self.folder / "film").write_bytes(b"mine")
        source = self.source()
        self.failureResultOf(self.fetch(source, source), TargetExists)
        self.assertEqual(len(source.asked), 1)
        self.assertEqual(self.film(), b"mine")
        self.successResultOf(self.fetch(source, force=True))
        self.assertEqual(self.film(), CONTENT)

    def test_resume(self) -> None:
        """Only what is missing is asked for, from the resume point on."""
        part = self.folder / part_name("film", LEAVES.id)
        part.write_bytes(CONTENT[: 2 * LEAF_SIZE + 1000])
        source = self.source()
        fetched = self.successResultOf(self.fetch(source))
        wanted = f"bytes={2 * LEAF_SIZE}-{len(CONTENT) - 1}"
        self.assertEqual(source.asked[1:], [(content_path(LEAVES), wanted)])
        self.assertEqual(fetched.resumed, 2 * LEAF_SIZE)
        self.assertEqual(self.film(), CONTENT)

    def test_resume_holes(self) -> None:
        """Several missing stretches are asked for one by one."""
        damaged = bytearray(CONTENT)
        damaged[0], damaged[2 * LEAF_SIZE] = damaged[0] ^ 1, damaged[2 * LEAF_SIZE] ^ 1
        (self.folder / part_name("film", LEAVES.id)).write_bytes(damaged)
        source = self.source()
        self.successResultOf(self.fetch(source))
        self.assertEqual(self.film(), CONTENT)
        self.assertEqual(len(source.asked), 3)

    def test_no_holder(self) -> None:
        """Nobody to ask is a failure of its own."""
        self.failure(Unreachable, self.fetch())

    def test_mistakes_of_ours(self) -> None:
        """A bug is not taken for a peer's fault."""
        source = self.source(fault=instead(content_path(LEAVES), lambda: KeyError("x")))
        self.failureResultOf(self.fetch(source, self.source()), KeyError)


class BadPeerTests(FetchCase):
    """Peers that send something wrong lose their turn, and nothing else is lost."""

    def replaced_by_next(
        self, kind: type[WherryError], fault: Fault, rest: Sequence[str | None]
    ) -> str:
        """The peer alone fails; with another one behind it, the file comes.

        Args:
            kind: the failure of the peer alone.
            fault: what it does.
            rest: the ranges that the other one is asked for.

        Returns:
            The failure in words.
        """
        problem = self.failure(kind, self.fetch(self.source(fault=fault)))
        for path in self.folder.iterdir():
            path.unlink()
        bad, good = self.source(fault=fault), self.source(nickname="nas")
        fetched = self.successResultOf(self.fetch(bad, good))
        self.assertEqual(self.film(), CONTENT)
        self.assertEqual(self.there(), ["film"])
        self.assertEqual(fetched.sources[-1], "nas")
        asked = [given for path, given in good.asked if path == content_path(LEAVES)]
        self.assertEqual(asked, rest)
        return str(problem)

    def test_bad_leaf(self) -> None:
        """The next holder goes on where the bad leaf stood."""
        text = self.replaced_by_next(
            Integrity,
            instead(content_path(LEAVES), lambda: answer(200, WRONG)),
            [f"bytes={2 * LEAF_SIZE}-{len(CONTENT) - 1}"],
        )
        self.assertIn("laptop", text)
        self.assertIn("leaf 2", text)

    def test_bad_leaf_once_is_enough(self) -> None:
        """Who sent a bad leaf is not asked again, though it would be good now."""
        fault = instead(content_path(LEAVES), lambda: answer(200, WRONG), 1)
        source = self.source(fault=fault)
        self.failure(Integrity, self.fetch(source))
        self.assertEqual(len(source.asked), 2)
        self.assertTrue(source.answers[-1].flow and source.answers[-1].flow.stopped)

    def test_wrong_leaves(self) -> None:
        """Leaf hashes of another file, or none at all."""
        other = leaves_of(WRONG).encode()
        good = LEAVES.encode()
        for data in (other, good[:-32], good + bytes(32), good[:-1], b"", b"{}"):
            fault = instead(leaves_path(LEAVES.id), lambda data=data: answer(200, data))  # type: ignore[misc]
            (self.folder / "film").unlink(missing_ok=True)
            self.replaced_by_next(Integrity, fault, [None])

    def test_endless_leaves(self) -> None:
        """A list of leaf hashes without an end, or a proper length, isn't read."""
        for length in (MAX_LEAVES_BYTES + 32, 1 << 60):
            made: list[Answer] = []

            def make(length: int = length, made: list[Answer] = made) -> Answer:
                made.append(Answer(200, repeat(bytes(CHUNK)), length))
                return made[-1]

            fault = instead(leaves_path(LEAVES.id), make)
            (self.folder / "film").unlink(missing_ok=True)
            self.replaced_by_next(Integrity, fault, [None])
            self.assertEqual([each.flow and each.flow.given for each in made], [0, 0])

    def test_other_size_than_listed(self) -> None:
        """Leaf hashes of another number than the listed size has aren't read."""
        made: list[Answer] = []

        def make() -> Answer:
            made.append(Answer(200, repeat(bytes(CHUNK)), MAX_LEAVES_BYTES))
            return made[-1]

        bad = self.source(fault=instead(leaves_path(LEAVES.id), make))
        problem = self.failure(Integrity, self.fetch(bad))
        self.assertIn("laptop listed it with another size", str(problem))
        self.assertEqual([each.flow and each.flow.given for each in made], [0])

    def test_listed_size_of_another(self) -> None:
        """A peer that lied in its list harms no other holder."""
        liar = MemorySource({"film": CONTENT}, "laptop", NodeID("b" * 51 + "a"))
        good = self.source(nickname="nas")
        fetching = self.fetch(liar, good, listed={liar.node: 1 << 40})
        self.assertEqual(self.successResultOf(fetching).sources, ("nas",))

    def test_leaf_hashes_in_memory(self) -> None:
        """Two copies of the leaf hashes at most are in memory."""
        leaves = Leaves(MAX_SIZE >> 4, bytes(MAX_LEAVES_BYTES >> 4 & ~31))
        encoded = leaves.encode()
        what = RemoteFile(leaves.id, "film", leaves.size, "a/b", {ONE: leaves.size})
        source = MemorySource(
            {},
            node=ONE,
            fault=lambda path, headers: (
                answer(404, b"")
                if path == content_path(leaves)
                else answer(200, encoded)
            ),
        )
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before, _ = tracemalloc.get_traced_memory()
        fetching = fetch(
            what,
            [source],
            Target(self.folder, "film"),
            in_thread=at_once,
            clock=self.clock,
            progress=self.seen.append,
        )
        self.failureResultOf(fetching, WherryError)
        _, most = tracemalloc.get_traced_memory()
        self.assertLess(most - before, 2.2 * len(encoded))

    def test_unknown_length(self) -> None:
        """An answer that doesn't say how long it is isn't read."""
        for path in (leaves_path(LEAVES.id), content_path(LEAVES)):
            endless = instead(
                path, lambda: Answer(200, repeat(bytes(CHUNK)), UNKNOWN_LENGTH)
            )
            (self.folder / "film").unlink(missing_ok=True)
            self.replaced_by_next(Unreachable, endless, [None])

    def test_lies_about_length(self) -> None:
        """A length that doesn't fit is noticed before the first byte."""
        for length in (0, len(CONTENT) - 1, len(CONTENT) + 1, 1 << 62):
            fault = instead(
                content_path(LEAVES),
                lambda length=length: Answer(200, pieces(CONTENT), length),  # type: ignore[misc]
            )
            (self.folder / "film").unlink(missing_ok=True)
            self.replaced_by_next(Integrity, fault, [None])

    def test_sends_more(self) -> None:
        """More than it said: what was good is kept, the peer is dropped."""

        def more() -> Iterator[bytes]:
            yield from pieces(CONTENT[: 3 * LEAF_SIZE])
            yield CONTENT[3 * LEAF_SIZE :] + b"and more"
            raise AssertionError("read on")

        fault = instead(content_path(LEAVES), lambda: Answer(200, more(), len(CONTENT)))
        source = self.source(fault=fault)
        self.successResultOf(self.fetch(source))
        self.assertEqual(self.film(), CONTENT)
        self.assertTrue(source.answers[-1].flow and source.answers[-1].flow.stopped)

    def test_sends_less(self) -> None:
        """Less than it said: the next holder goes on."""
        self.replaced_by_next(
            Integrity,
            instead(
                content_path(LEAVES),
                lambda: Answer(200, pieces(CONTENT[: LEAF_SIZE + 5]), len(CONTENT)),
            ),
            [f"bytes={LEAF_SIZE}-{len(CONTENT) - 1}"],
        )

    def test_other_part(self) -> None:
        """Another part than the one asked for, or the whole, isn't read."""
        part = self.folder / part_name("film", LEAVES.id)
        rest = CONTENT[LEAF_SIZE:]
        wrong = f"bytes 0-{len(rest) - 1}/{len(CONTENT)}"
        for make in (
            lambda: answer(206, rest, headers={"Content-Range": wrong}),
            lambda: answer(206, rest),
        ):
            part.write_bytes(CONTENT[:LEAF_SIZE])
            fault = instead(content_path(LEAVES), make)
            self.failure(Integrity, self.fetch(self.source(fault=fault)))
        fault = instead(content_path(LEAVES), lambda: answer(200, CONTENT))
        self.failure(Unreachable, self.fetch(self.source(fault=fault)))

    def test_refusals(self) -> None:
        """Each status has its error."""
        for code, kind in ((404, Failed), (403, Untrusted), (500, Unreachable)):
            fault = instead(
                content_path(LEAVES),
                lambda code=code: answer(code, b"no"),  # type: ignore[misc]
            )
            (self.folder / "film").unlink(missing_ok=True)
            self.replaced_by_next(kind, fault, [None])

    def test_errors_of_the_broker(self) -> None:
        """Peers that can't be asked at all."""
        for problem, kind in (
            (NotConnected("laptop", "is not connected"), Unreachable),
            (RequestFailed("laptop: no answer"), Unreachable),
            (PeerRefusedUs("laptop", "refused us"), Untrusted),
            (no_http(), Integrity),
        ):
            fault = instead(leaves_path(LEAVES.id), lambda problem=problem: problem)  # type: ignore[misc]
            (self.folder / "film").unlink(missing_ok=True)
            text = self.replaced_by_next(kind, fault, [None])
            self.assertIn(str(problem), text)

    def test_worst_wins(self) -> None:
        """With several failures the worst gives the exit code, all are told."""
        gone = self.source(
            nickname="phone",
            fault=instead(leaves_path(LEAVES.id), lambda: answer(404, b"")),
        )
        bad = self.source(
            fault=instead(content_path(LEAVES), lambda: answer(200, WRONG))
        )
        problem = self.failure(Integrity, self.fetch(gone, bad))
        self.assertIn("phone does not have it", str(problem))
        self.assertIn("run it again", str(problem))


class BrokenConnectionTests(FetchCase):
    """Connections that break, stall, or are given up."""

    def broken(self, size: int, end: BaseException | None) -> Answer:
        """An answer that ends early."""
        return Answer(200, pieces(CONTENT[:size]), len(CONTENT), end=end)

    def test_another_turn(self) -> None:
        """Who has brought something gets another turn after a broken connection."""
        broken = lambda: self.broken(2 * LEAF_SIZE, ConnectionLost())  # noqa: E731
        source = self.source(fault=instead(content_path(LEAVES), broken, 1))
        self.successResultOf(self.fetch(source))
        self.assertEqual(self.film(), CONTENT)
        wanted = f"bytes={2 * LEAF_SIZE}-{len(CONTENT) - 1}"
        self.assertEqual(source.asked[-1], (content_path(LEAVES), wanted))

    def test_no_endless_turns(self) -> None:
        """Who brings nothing doesn't."""
        broken = lambda: self.broken(1000, ConnectionLost())  # noqa: E731
        source = self.source(fault=instead(content_path(LEAVES), broken))
        problem = self.failure(Unreachable, self.fetch(source))
        self.assertIn("laptop: the connection was lost", str(problem))
        self.assertEqual(len(source.asked), 2)
        self.assertEqual(self.there(), [])

    def test_stall(self) -> None:
        """A silent peer is given up after a while, and its connection ended."""
        stalled = lambda: self.broken(LEAF_SIZE + 5, None)  # noqa: E731
        source = self.source(fault=instead(content_path(LEAVES), stalled))
        fetching = self.fetch(source)
        self.clock.advance(59)
        self.assertNoResult(fetching)
        self.clock.advance(2)
        problem = self.failure(TimedOut, fetching)
        self.assertIn(
            "laptop was too slow: less than 960 KiB came in 60 s", str(problem)
        )
        self.assertTrue(source.answers[1].flow and source.answers[1].flow.stopped)

    def test_stall_in_leaves(self) -> None:
        """The same goes for the leaf hashes."""
        encoded = LEAVES.encode()
        stalled = Answer(200, iter([encoded[:9]]), len(encoded), end=None)
        source = self.source(fault=instead(leaves_path(LEAVES.id), lambda: stalled))
        fetching = self.fetch(source)
        self.clock.advance(61)
        self.failure(TimedOut, fetching)

    def drip(self, rate: int, seconds: int) -> Deferred[Fetched]:
        """Fetch from a peer that sends so many bytes a second, for so long."""
        source = self.source(
            fault=instead(content_path(LEAVES), lambda: self.broken(0, None))
        )
        fetching = self.fetch(source)
        flow = source.answers[-1].flow
        assert flow is not None
        for second in range(seconds):
            if not fetching.called:
                data = CONTENT[second * rate : (second + 1) * rate]
                flow._protocol.dataReceived(data)
            self.clock.advance(1)
        return fetching

    def test_drip(self) -> None:
        """A byte now and then doesn't hold us for ever."""
        self.failure(TimedOut, self.drip(1, 100))

    def test_thin_stream(self) -> None:
        """Nor do a thousand bytes a second, all the time."""
        self.failure(TimedOut, self.drip(1000, 61))

    def test_slow_line(self) -> None:
        """A slow line is fast enough."""
        rate = 17_000
        fetched = self.successResultOf(self.drip(rate, LEAVES.size // rate + 1))
        self.assertEqual(fetched.size, LEAVES.size)

    def test_cancel(self) -> None:
        """Cancelling ends the connection and keeps what came."""
        stalled = lambda: self.broken(2 * LEAF_SIZE + 5, None)  # noqa: E731
        source = self.source(fault=instead(content_path(LEAVES), stalled))
        fetching = self.fetch(source)
        fetching.cancel()
        self.failureResultOf(fetching, CancelledError)
        self.assertTrue(source.answers[1].flow and source.answers[1].flow.stopped)
        self.assertEqual(self.there(), [part_name("film", LEAVES.id)])
        fetched = self.successResultOf(self.fetch(self.source()))
        self.assertEqual(fetched.resumed, 2 * LEAF_SIZE)

    def test_cancel_while_a_thread_works(self) -> None:
        """Nothing is closed below the hands of a thread; it ends by itself."""
        threads = Threads()
        fetching = self.fetch(self.source(), in_thread=threads)
        for _ in range(5):
            threads.step()
        fetching.cancel()
        self.failureResultOf(fetching, CancelledError)
        (late,) = threads.waiting
        late()
        self.assertEqual(len(self.there()), 1)
        self.assertNotIn("film", self.there())

    def test_back_pressure(self) -> None:
        """A slow disk slows the peer down; four leaves at most are in memory."""
        threads = Threads()
        source = self.source()
        fetching = self.fetch(source, in_thread=threads)
        written = 0
        most = 0
        while threads.waiting:
            threads.step()
            flow = source.answers[-1].flow if len(source.answers) > 1 else None
            if flow is not None:
                written = self.seen[-1].done if self.seen else 0
                most = max(most, flow.given - written)
        self.successResultOf(fetching)
        self.assertGreater(most, LEAF_SIZE)
        self.assertLessEqual(most, 4 * LEAF_SIZE)

    def test_slow_disk_is_no_stall(self) -> None:
        """Time in which we paused the peer doesn't count against it."""
        threads = Threads()
        fetching = self.fetch(self.source(), in_thread=threads)
        while threads.waiting:
            self.clock.advance(100)
            threads.step()
        self.successResultOf(fetching)
