"""A running node in one line, for a test or a script.

    async with running_node(reactor, nickname="desk") as desk:
        async with running_node(reactor, nickname="laptop", sister_of=desk) as laptop:
            await desk.share("photo.jpg")
            await laptop.get("photo.jpg", to="/tmp")

It lives in a temporary directory, listens on a free port of loopback, and is
gone at the end of the block.
"""

import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred

from broker.peer import Peer
from node import enrol
from node.control import Document, GetRequest
from node.directory import NodeDirectory
from node.identity import Identity
from node.peersfile import KnownPeer, load_peers, save_peers
from node.service import Node
from node.settings import new_settings
from protocols.card import Card
from protocols.nodeid import NodeID

LOOPBACK = "tcp:0:interface=127.0.0.1"


@frozen
class RunningNode:
    """A node that runs inside of this process.

    Attributes:
        service: all of its parts.
        directory: its node directory, gone with it.
    """

    service: Node
    directory: NodeDirectory

    @property
    def id(self) -> NodeID:
        """Its node id."""
        return self.service.identity.node

    @property
    def card(self) -> Card:
        """What lets others call it."""
        return self.service.card

    def peer(self, name: str) -> Peer:
        """Give a peer by nickname or node id, to send requests to.

        Raises:
            UnknownPeer: it has no such peer.
        """
        return self.service.broker.peer(name)

    def status(self) -> Document:
        """Give what ``wherry status --json`` prints."""
        return self.service.view.status()

    def ping(self, peer: str, timeout: float = 10.0) -> Deferred[Document]:
        """Give what ``wherry ping --json`` prints; ``timeout`` in seconds."""
        return self.service.view.ping(peer, timeout)

    def share(self, *paths: str | Path) -> Deferred[Document]:
        """Share files and folders; gives what ``wherry share --json`` prints."""
        absolute = [os.path.abspath(path) for path in paths]
        return self.service.view.share(absolute, _quietly)

    def files(self) -> Deferred[Document]:
        """Give what ``wherry ls --json`` prints."""
        return self.service.view.files()

    def get(
        self, what: str, to: str | Path, *, force: bool = False
    ) -> Deferred[Document]:
        """Fetch a file or folder into the folder ``to``, which exists."""
        request = GetRequest(what, Path(to).absolute(), None, None, force, 0o077)
        return self.service.view.get(request, _quietly)


@asynccontextmanager
async def running_node(
    reactor: Any,
    *,
    nickname: str = "node",
    listen: Sequence[str] = (LOOPBACK,),
    names: Sequence[str] = (),
    sister_of: RunningNode | None = None,
    draw: Random | None = None,
) -> AsyncIterator[RunningNode]:
    """Run a node for the time of a block.

    Args:
        reactor: to run on; the block must run on it too.
        nickname: what it calls itself.
        listen: Twisted endpoint strings; a free port of loopback by default.
        names: plain DNS names, for programs such as curl.
        sister_of: another running node; this one is admitted as a device of the
            same user, and the two call each other.
        draw: the randomness of its timing.

    Raises:
        WherryError: it can't start.
    """
    with (
        tempfile.TemporaryDirectory(prefix="wherry-") as folder,
        closing(NodeDirectory(Path(folder) / "node")) as directory,
    ):
        now = reactor.seconds()
        Identity.create(directory, new_settings(nickname, listen, names), now)
        if sister_of is not None:
            request = enrol.request(directory, now).text()
            view = sister_of.service.view
            words = (await view.admit(request, None))["words"]
            bundle = (await view.admit(request, words))["bundle"]
            enrol.accept(directory, bundle, now).commit()
        service = Node(reactor, directory, draw or SystemRandom())
        running = RunningNode(service, directory)
        await service.start()
        try:
            if sister_of is not None:
                _learn(sister_of, running, now)
            yield running
        finally:
            await service.stopService()


def _learn(node: RunningNode, sister: RunningNode, now: float) -> None:
    """Tell a node on which port its new sister has come to listen."""
    with node.directory.lock():
        nickname = sister.service.configuration.settings.nickname
        peer = KnownPeer(nickname, "device", sister.card, int(now))
        save_peers(node.directory, load_peers(node.directory).add(peer))
    node.service.reload()


def _quietly(progress: Document) -> None:
    """Report to nobody."""
