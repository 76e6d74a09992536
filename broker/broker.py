"""The broker: all peers that are held connected."""

import hashlib
from collections.abc import Callable, Iterable
from random import Random
from typing import Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime

from broker.errors import UnknownPeer
from broker.generation import Issuer
from broker.handlers import Handlers
from broker.merge import PeerRecord
from broker.peer import Peer
from broker.routes import Policy
from protocols.nodeid import NodeID

_SEED_BITS: Final = 256


class Broker(Service):
    """Holds the peers, calls them while it runs, and finds them by name.

    Owner: the node's service tree. Nothing that one peer does or fails to do
    changes when or how another is called.

    Args:
        clock: for every time.
        issuer: mints an outbound Tub for each connection generation.
        handlers: for the routes.
        policy: gives what this machine allows, asked before each attempt.
        draw: unpredictable; the peers' own sources of randomness are drawn
            from it.
    """

    def __init__(
        self,
        clock: IReactorTime,
        issuer: Issuer,
        handlers: Handlers,
        policy: Callable[[], Policy],
        draw: Random,
    ) -> None:
        self._clock = clock
        self._issuer = issuer
        self._handlers = handlers
        self._policy = policy
        self._seed = draw.getrandbits(_SEED_BITS).to_bytes(_SEED_BITS // 8, "big")
        self._peers: dict[NodeID, Peer] = {}
        self._leaving: set[Deferred[None]] = set()

    def update(self, records: Iterable[PeerRecord]) -> None:
        """Take the records of all peers; who is not among them is dropped.

        A peer of which the record did not change is not touched.
        """
        wanted = {record.node: record for record in records}
        for node in [node for node in self._peers if node not in wanted]:
            self._drop(self._peers.pop(node))
        for node, record in wanted.items():
            if node in self._peers:
                self._peers[node].update(record)
            else:
                self._add(record)

    def _add(self, record: PeerRecord) -> None:
        # Seeded by the node id, so that it does not matter who else is there.
        seed = hashlib.sha256(self._seed + record.node.digest).digest()
        peer = Peer(
            record,
            self._issuer,
            self._handlers,
            self._clock,
            self._policy,
            Random(seed),  # noqa: S311 - for timing; the seed can't be guessed
        )
        self._peers[record.node] = peer
        if self.running:
            peer.start()

    def _drop(self, peer: Peer) -> None:
        leaving = peer.close()
        self._leaving.add(leaving)
        leaving.addCallback(lambda _: self._leaving.discard(leaving))

    def peer(self, name: str) -> Peer:
        """Find a peer by its nickname or its whole node id.

        Raises:
            UnknownPeer: there is none.
        """
        for peer in self._peers.values():
            if name in (peer.record.nickname, peer.node.text):
                return peer
        raise UnknownPeer(name)

    def peers(self) -> list[Peer]:
        """Give all peers, ordered by what the user calls them."""
        return sorted(self._peers.values(), key=lambda p: (p.nickname, p.node))

    def startService(self) -> None:
        """Begin to call the peers."""
        if self.running:
            return
        super().startService()
        for peer in self._peers.values():
            peer.start()

    def stopService(self) -> Deferred[None]:
        """Cut every connection and call nobody any more.

        Returns:
            A Deferred that fires when no connection is left; never fails.
        """
        super().stopService()
        closing = [peer.close() for peer in self._peers.values()]
        closing += [_after(leaving) for leaving in self._leaving]
        return gatherResults(closing).addCallback(lambda _: None)


def _after(other: Deferred[None]) -> Deferred[None]:
    """Fire after another Deferred, without taking its result."""
    waiting: Deferred[None] = Deferred()

    def tell(result: None) -> None:
        waiting.callback(None)
        return result

    other.addCallback(tell)
    return waiting
