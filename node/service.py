"""The node: composes its parts, starts them in order and ends them together."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from random import Random
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, DeferredLock
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from broker.broker import Broker
from broker.handlers import tcp_handler
from broker.routes import Policy
from node.announcing import SERVICES, Herald, card_of, hints_now
from node.configuration import Configuration
from node.control import Control
from node.directory import NodeDirectory
from node.errors import Failed
from node.faces import make_choice, make_faces
from node.hints import interfaces
from node.identity import Identity
from node.issuer import device_issuer
from node.listening import OpenPort
from node.problems import Problem, find_problems
from node.shelf import Shelf
from node.stores.files import FileStore
from node.usednames import UsedNames
from node.view import View
from protocols.about import about
from protocols.card import Card
from protocols.deferreds import starting
from protocols.events import events
from protocols.files import files
from protocols.principal import OwnDevice, Principal
from protocols.site import PeerSite
from protocols.tls import CalledConnections, Face, chain_end, principal_of

_log = Logger()

_RENEW_S = 6 * 3600.0


class Node(Service):
    """One running Wherry.

    Owner: the service tree of twistd, or `node.embedded`. From start to stop it
    holds the lock of its directory.

    Args:
        reactor: listens, calls, has threads, and is the clock.
        directory: where it lives.
        draw: unpredictable, for everything that is jittered.

    Attributes:
        failure: why it ended by itself, if it did.
    """

    def __init__(self, reactor: Any, directory: NodeDirectory, draw: Random) -> None:
        self._reactor = reactor
        self._directory = directory
        self._draw = draw
        self._turn = DeferredLock()  # a start and a stop never overlap
        self._starting: Deferred[None] | None = None
        self._held = ExitStack()
        self._closing: list[Callable[[], Deferred[None]]] = []
        self._renewal: IDelayedCall | None = None
        self.failure: Failure | None = None

    def startService(self) -> None:
        """Start as a part of twistd.

        What fails later (an endpoint may take its time) ends the process, and
        is in ``failure``.

        Raises:
            WherryError: the node can't start.
        """
        if self.running:
            return
        returned = False

        def failed(failure: Failure) -> None:
            self.failure = failure
            if returned:
                _log.failure("the node can't start", failure)
                self._reactor.stop()

        self.start().addErrback(failed)
        returned = True
        if self.failure is not None:
            self.failure.raiseException()

    def start(self) -> Deferred[None]:
        """Take the lock, open the port, and begin to call.

        The Deferred fires when the node can be called and asked, or was stopped
        before that. If it fails, nothing is left running.
        """
        super().startService()
        self._starting = self._turn.run(self._start)
        return self._starting

    @starting
    async def _start(self) -> None:
        try:
            self._hold()
            self._compose()
            await self.port.open(self.configuration.settings.listen)
            self._closing.append(self.port.close)
            self._begin()
        except BaseException as error:
            stopped = not self.running
            super().stopService()
            await self._close()
            if stopped:
                return
            if isinstance(error, OSError):
                raise Failed("the node can't start", str(error)) from error
            raise

    def _begin(self) -> None:
        """Let commands ask, and call the peers."""
        self.control.startService()
        self._closing.append(self.control.stopService)
        self.broker.update(self.configuration.records())
        self.broker.startService()
        self._closing.append(self.broker.stopService)
        self._renewal = self._reactor.callLater(_RENEW_S, self._renew)
        _log.info("node {node} is up", node=self.identity.node)

    def stopService(self) -> Deferred[None]:
        """End everything at once, also a start that is under way.

        Returns:
            A Deferred that fires when nothing is left; never fails.
        """
        super().stopService()
        if self._starting is not None:
            self._starting.cancel()
        return self._turn.run(self._close)

    @starting
    async def _close(self) -> None:
        """Close what is open, the last of it the lock."""
        if self._renewal is not None and self._renewal.active():
            self._renewal.cancel()
        closing, self._closing = self._closing, []
        ends = DeferredList([close() for close in closing], consumeErrors=True)
        for ended, result in await ends:
            if not ended:
                _log.failure("ending a part of the node", result)
        self._held.close()

    @property
    def identity(self) -> Identity:
        """Who this node is."""
        return self.configuration.identity

    @property
    def card(self) -> Card:
        """What lets others call this node now."""
        settings = self.configuration.settings
        return card_of(self.identity, settings, hints_now(settings, self.port.places))

    def _hold(self) -> None:
        """Take what one node alone may have."""
        directory, now = self._directory, self._reactor.seconds()
        self._held.enter_context(directory.lock())
        self.configuration = Configuration.load(directory).renewed(directory, now)
        self.store = FileStore(directory.path)
        self._held.callback(self.store.close)
        self._used = UsedNames(directory, self._reactor.seconds)
        self._held.callback(self._used.close)

    def _compose(self) -> None:
        """Make the parts; each gets what it needs, and none of them the node."""
        reactor, directory = self._reactor, self._directory
        settings, identity = self.configuration.settings, self.identity
        in_thread = partial(deferToThreadPool, reactor, reactor.getThreadPool())
        herald = Herald(directory, identity, lambda: self.card.hints, reactor.seconds)
        resources = [
            *about(version("wherry"), identity.node, lambda _: SERVICES, herald.text),
            *events(reactor, self._draw),
            *files(Shelf(self.store)),
        ]
        choose = make_choice(
            identity,
            settings.names,
            self._used.records,
            self._used.keep,
            reactor.seconds,
        )
        self._connections = CalledConnections(choose, self._faces())
        self.site = PeerSite(
            reactor, resources, principal_of, chain_end, settings.limits, self._called
        )
        self._closing.append(self.site.close)
        self.port = OpenPort(reactor, reactor, self._connections, self.site)
        self.broker = Broker(
            reactor,
            device_issuer(lambda: self.identity, reactor),
            {"tcp": tcp_handler(reactor)},
            self._policy,
            self._draw,
        )
        self.view = View(
            reactor,
            directory,
            identity.node,
            settings.nickname,
            reactor.seconds(),
            self.broker,
            self.store,
            lambda: self.port.listening,
            lambda: self.port.places,
            lambda: self.card.text(),
            self._problems,
            self.reload,
            in_thread,
            reactor.callFromThread,
        )
        self.control = Control(reactor, reactor, directory.socket_address(), self.view)

    def _faces(self) -> dict[str, Face]:
        settings, peers = self.configuration.settings, self.configuration.peers
        return make_faces(self.identity, settings.names, peers, self._reactor.seconds())

    def _policy(self) -> Policy:
        """What this machine allows now."""
        alone = all(hint.route_kind == "loopback" for hint in self.card.hints)
        return Policy(interfaces(), alone)

    def _problems(self) -> list[Problem]:
        return find_problems(
            self.configuration,
            self.configuration.changed(self._directory),
            self._used.failing,
            self._reactor.seconds(),
        )

    def _called(self, caller: Principal) -> None:
        """Call an own device back at once: it is on the line, so it is up."""
        if isinstance(caller, OwnDevice):
            for peer in self.broker.peers():
                if peer.node == caller.node and not peer.connected:
                    peer.nudge()

    def reload(self) -> None:
        """Take up the peers that came to be known."""
        self.configuration = self.configuration.with_new_peers(self._directory)
        self._connections.show(self._faces())
        self.broker.update(self.configuration.records())

    def _renew(self) -> None:
        """Renew certificates long before they end; a failure is tried again."""
        self._renewal = self._reactor.callLater(_RENEW_S, self._renew)
        with _log.failuresHandled("renewing certificates"):
            self.configuration = self.configuration.renewed(
                self._directory, self._reactor.seconds()
            )
            self._connections.show(self._faces())
