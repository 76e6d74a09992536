"""Tests of node.getting: what a command ends in when peers fail."""

from pathlib import Path
from typing import Any

from attrs import Factory, define, evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from broker.errors import NotConnected, RequestFailed
from broker.peer import PeerStatus
from node import documents
from node.control import Document, GetRequest
from node.errors import Failed, Integrity, TimedOut, Unreachable, WherryError
from node.getting import get, look
from node.listing import NotFound
from node.stores.files import FileStore
from protocols.nodeid import NodeID
from tests.node.sources import Answer, Fault, MemorySource, answer, at_once

OWN, OTHER = NodeID("c" * 51 + "a"), NodeID("b" * 51 + "a")


@define
class FakePeer(MemorySource):
    """A peer in memory that can be away.

    Attributes:
        away: why it isn't connected.
    """

    away: str | None = None

    @property
    def connected(self) -> bool:
        """Whether it can be asked."""
        return self.away is None

    def status(self) -> PeerStatus:
        """A snapshot."""
        nothing: Any = None
        return PeerStatus(
            self.node, self.nickname, "ignored", nothing, self.away, None, None, None
        )


@define
class Sleeper(FakePeer):
    """A peer that is away and comes when it is called."""

    coming: Deferred[None] = Factory(Deferred)
    nudges: int = 0

    def status(self) -> PeerStatus:
        """It waits for its next attempt."""
        return evolve(super().status(), state="waiting")

    def nudge(self) -> None:
        """Call it."""
        self.nudges += 1

    def when_connected(self, timeout: float, attempts: int) -> Deferred[None]:
        """Wait for it."""
        return self.coming

    def come(self) -> None:
        """It is there."""
        self.away = None
        self.coming.callback(None)


class GettingTests(SynchronousTestCase):
    """One node with an empty store, and peers."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.store = FileStore(self.folder)
        self.addCleanup(self.store.close)
        self.clock = Clock()

    def get(self, *peers: Any) -> Deferred[Document]:
        """Fetch the film from them."""
        request = GetRequest("film", self.folder, None, None, False, 0o022)
        return get(request, OWN, self.store, peers, self.clock, at_once, lambda _: None)

    def failure(self, *peers: FakePeer) -> WherryError:
        """Fetching from them fails so; all the time that it takes passes."""
        getting = self.get(*peers)
        self.clock.advance(30)
        problem = self.failureResultOf(getting).value
        assert isinstance(problem, WherryError)
        return problem

    def peer(self, fault: Fault, **more: Any) -> FakePeer:
        """A peer that has the film, but does this."""
        return FakePeer({"film": b"film"}, fault=fault, **more)

    def test_exit_codes(self) -> None:
        """When the only holder fails in its list, what it did gives the code."""
        for fault, kind in (
            (lambda path, headers: answer(200, b"no list"), Integrity),
            (lambda path, headers: answer(200, b'{"files": [1]}'), Integrity),
            (lambda path, headers: Answer(200, iter([]), 5, end=None), TimedOut),
            (lambda path, headers: RequestFailed("laptop: cut"), Unreachable),
            (lambda path, headers: answer(200, b'{"files": []}'), NotFound),
        ):
            problem = self.failure(self.peer(fault))
            self.assertIs(type(problem), kind)
            self.assertIn("'film'", str(problem))
            self.assertLessEqual(str(problem).count("laptop"), 1)

    def test_away(self) -> None:
        """A peer that could not be asked makes it unreachable."""
        problem = self.failure(FakePeer({}, away="laptop is asleep"))
        self.assertEqual(str(problem), "no connected peer has 'film': laptop is asleep")
        self.assertEqual(problem.code, Unreachable.code)

    def test_another_has_it(self) -> None:
        """Nobody who fails keeps others from giving it."""
        slow = self.peer(lambda path, headers: Answer(200, iter([]), 5, end=None))
        good = FakePeer({"film": b"film"}, "nas", OTHER)
        getting = self.get(slow, FakePeer({}, away="it is asleep"), good)
        self.clock.advance(30)
        (done,) = self.successResultOf(getting)["files"]
        self.assertEqual(done["from"], ["nas"])

    def test_nobody_is_waited_for(self) -> None:
        """Who is away keeps nobody waiting who gets it from another."""
        sleeper = Sleeper({}, "nas", OTHER, away="nas is asleep")
        self.successResultOf(self.get(FakePeer({"film": b"film"}), sleeper))
        self.assertEqual(sleeper.nudges, 0)

    def test_waited_for(self) -> None:
        """Who is away is called if nobody else has it."""
        sleeper = Sleeper({"film": b"film"}, "nas", OTHER, away="nas is asleep")
        getting = self.get(FakePeer({"other": b""}), sleeper)
        self.assertNoResult(getting)
        self.assertEqual(sleeper.nudges, 1)
        sleeper.come()
        (done,) = self.successResultOf(getting)["files"]
        self.assertEqual(done["from"], ["nas"])

    def test_lost_while_asked(self) -> None:
        """Who was asked and got lost is told once, and not as one that is away."""

        def lose(path: str, headers: object) -> NotConnected:
            peer.away = "laptop can't be reached: no answer"
            return NotConnected("laptop", "is gone")

        peer = self.peer(lose)
        peers: Any = [peer, FakePeer({}, "nas", OTHER, away="nas is asleep")]
        looking = look(peers, self.clock, (OWN, []))
        listed = documents.listed(self.successResultOf(looking))
        self.assertEqual(listed["problems"], ["nas is asleep", "laptop is gone"])

    def test_nobody(self) -> None:
        """Without peers it is simply not there."""
        self.assertIsInstance(self.failure(), Failed)
