"""The running node as the commands see it: questions answered from its parts."""

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event

from attrs import asdict, frozen
from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime

from broker.broker import Broker
from broker.errors import (
    Barred,
    BrokerError,
    Mistrusted,
    PeerRefusedUs,
    TooLate,
    UnknownPeer,
)
from broker.http import read_body
from broker.peer import Peer
from node import documents, enrol
from node.control import Document, GetRequest, Report
from node.directory import NodeDirectory
from node.errors import Failed, TimedOut, Unreachable, Untrusted, WherryError
from node.fetching import InThread
from node.getting import get, look, matching, settle
from node.hints import Place
from node.problems import Problem
from node.sharing import ShareProgress, share
from node.stores.files import FileStore
from protocols.deferreds import starting
from protocols.nodeid import NodeID

_ROOT_LIMIT = 64 * 1024


@frozen
class View:
    """Answers for the control socket. Owner: the node.

    Attributes:
        clock: measures.
        directory: where the node lives.
        node: who it is.
        nickname: what the user calls it.
        since: when it came up, in seconds since the epoch.
        broker: has the peers.
        store: has the files.
        listening: gives the endpoints that are open.
        places: gives the TCP ports among them.
        own_card: gives the card.
        problems: gives what the user should know of.
        reload: takes up changed peers.
        in_thread: runs what blocks.
        from_thread: calls a function in the reactor's thread.
    """

    clock: IReactorTime
    directory: NodeDirectory
    node: NodeID
    nickname: str
    since: float
    broker: Broker
    store: FileStore
    listening: Callable[[], Sequence[str]]
    places: Callable[[], Sequence[Place]]
    own_card: Callable[[], str]
    problems: Callable[[], Sequence[Problem]]
    reload: Callable[[], None]
    in_thread: InThread
    from_thread: Callable[..., object]

    def status(self) -> Document:
        """Give the document of ``wherry status``."""
        return {
            "schema": 1,
            "node": self.node.text,
            "nickname": self.nickname,
            # The clock may have been set back meanwhile.
            "up_s": max(0.0, self.clock.seconds() - self.since),
            "listening": list(self.listening()),
            "peers": self.peers(),
            "problems": [asdict(each) for each in self.problems()],
        }

    def card(self) -> str:
        """Give the card that lets others call this node now."""
        return self.own_card()

    def peers(self) -> list[Document]:
        """Give one document for each peer."""
        return [
            documents.peer(each.record, each.status()) for each in self.broker.peers()
        ]

    def explain(self, name: str) -> Document:
        """Give every route to one peer with its verdict."""
        peer = self._peer(name)
        report = peer.routes_report()
        last = {route.hint: went for route, went in report if went is not None}
        explained = documents.explained(
            peer.record, [route for route, _ in report], last
        )
        status = peer.status()
        return explained | {"state": status.state, "last_error": status.last_error}

    @starting
    async def ping(self, name: str, timeout: float) -> Document:
        """Ask a peer for ``/``, dialling it at once if need be."""
        peer = self._peer(name)
        try:
            rtt = await self._measure(peer, timeout).addTimeout(timeout, self.clock)
        except BrokerError as error:
            raise _for_user(error) from error
        except defer.TimeoutError:
            raise TimedOut(
                f"{peer.nickname} did not answer", f"not within {timeout:g} s"
            ) from None
        routes = [route for route, _ in peer.routes_report()]
        return documents.ping(peer.record, peer.status(), routes, rtt)

    @starting
    async def _measure(self, peer: Peer, timeout: float) -> float:
        """Ask twice, since the first time may have to dial; time the second."""
        if not peer.connected:
            peer.nudge()
            await peer.when_connected(timeout, attempts=1)
        start = 0.0
        for _ in range(2):
            start = self.clock.seconds()
            answer = await peer.request(b"GET", "/", timeout=timeout)
            await read_body(answer, _ROOT_LIMIT)
        return self.clock.seconds() - start

    @starting
    async def share(self, paths: list[str], report: Report) -> Document:
        """Copy files into the store."""
        stopped = Event()

        def progress(sofar: ShareProgress) -> None:
            if stopped.is_set():
                raise Failed("sharing was cut short")
            self.from_thread(report, documents.share_progress(sofar))

        try:
            return documents.shared(
                await self.in_thread(
                    share, self.store, list(map(Path, paths)), progress
                )
            )
        except defer.CancelledError:
            stopped.set()
            raise

    @starting
    async def files(self) -> Document:
        """Give the document of ``wherry ls``."""
        peers = self.broker.peers()
        await settle(peers)
        held = (self.node, await self.in_thread(matching, self.store))
        return documents.listed(await look(peers, self.clock, held))

    @starting
    async def get(self, request: GetRequest, report: Report) -> Document:
        """Fetch and verify; cancelling keeps what is needed to resume."""
        only = None if request.from_peer is None else self._peer(request.from_peer)
        try:
            return await get(
                request,
                self.node,
                self.store,
                self.broker.peers() if only is None else [only],
                self.clock,
                self.in_thread,
                report,
            )
        except BrokerError as error:
            raise _for_user(error) from error

    @starting
    async def admit(self, request: str, words: str | None) -> Document:
        """Admit a new device, or without ``words`` only look at its request."""
        admission = await self.in_thread(
            enrol.admit, self.directory, request, self.clock.seconds(), self.places()
        )
        # Words are made slowly on purpose: not in the reactor's thread.
        found: Document = await self.in_thread(documents.admission, admission)
        if words is None:
            return found
        if words != found["words"]:
            raise Untrusted("the request is refused", "its words were not compared")
        bundle = admission.commit()
        self.reload()
        return found | {"bundle": bundle}

    def _peer(self, name: str) -> Peer:
        try:
            return self.broker.peer(name)
        except UnknownPeer as error:
            raise Failed(str(error), do="See: wherry peers") from None


def _for_user(error: BrokerError) -> WherryError:
    """Give what went wrong with a peer its exit code."""
    kind: type[WherryError] = Unreachable
    if isinstance(error, Barred | Mistrusted | PeerRefusedUs):
        kind = Untrusted
    elif isinstance(error, TooLate):
        kind = TimedOut
    return kind(str(error))
