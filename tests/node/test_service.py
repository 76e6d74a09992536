"""Tests of node.service: starts that fail, and stops that come early."""

from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from twisted.internet import reactor  # noqa: TID251 - over real sockets
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    serverFromString,
)
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from node.directory import Locked, NodeDirectory
from node.embedded import LOOPBACK
from node.errors import Failed
from node.identity import Identity
from node.service import Node
from node.settings import new_settings
from tests.kit import today


class StartTests(TestCase):
    """A node that can't start leaves nothing behind; trial sees to the sockets."""

    def setUp(self) -> None:
        self.directory = NodeDirectory(Path(self.mktemp()).absolute())
        self.addCleanup(self.directory.close)
        settings = new_settings("desk", [LOOPBACK])
        Identity.create(self.directory, settings, today())
        self.node = Node(reactor, self.directory, Random(1))

    def assert_free(self) -> None:
        """The lock is free again, and a node can start."""
        self.try_lock()
        self.assertFalse(self.node.running)

    async def test_control_fails(self) -> None:
        """The port is closed again if the control socket can't be had."""
        self.directory.control_socket.mkdir()
        with self.assertRaisesRegex(Failed, "can't start"):
            await self.node.start()
        self.assertEqual(self.node.port.listening, [])
        self.assert_free()
        self.directory.control_socket.rmdir()
        await self.node.start()
        await self.node.stopService()

    async def test_port_fails(self) -> None:
        """The store and the lock are given back if a port is taken."""
        other = Node(reactor, self.directory, Random(1))
        await self.node.start()
        (taken,) = self.node.port.listening
        await self.node.stopService()
        self.assert_free()
        port: Any = await serverFromString(reactor, taken).listen(Factory())
        self.addCleanup(port.stopListening)
        settings = new_settings("desk", [taken])
        self.directory.write_file("node.yaml", settings.text().encode())
        with self.assertRaisesRegex(Failed, "cannot listen on"):
            await other.start()
        self.assert_free()

    def test_service_raises(self) -> None:
        """As a part of twistd, a failing start is an exception."""
        (self.directory.path / "override.yaml").write_text("nonsense")
        self.assertRaises(Failed, self.node.startService)
        self.assert_free()

    async def assert_closed(self, port: int) -> None:
        """Nobody listens on a port of loopback any more."""
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        with self.assertRaises(ConnectionRefusedError):
            await endpoint.connect(Factory.forProtocol(Protocol))

    async def test_stopped_while_starting(self) -> None:
        """A stop ends a start that would take for ever, and what it has opened."""
        listen = TCP4ServerEndpoint.listen
        opened: list[int] = []

        def once(endpoint: TCP4ServerEndpoint, factory: Any) -> Deferred[Any]:
            if opened:
                return Deferred()
            listening: Deferred[Any] = listen(endpoint, factory)

            def note(port: Any) -> Any:
                opened.append(port.getHost().port)
                return port

            return listening.addCallback(note)

        settings = new_settings("desk", [LOOPBACK, "tcp:0:interface=127.0.0.2"])
        self.directory.write_file("node.yaml", settings.text().encode())
        with patch.object(TCP4ServerEndpoint, "listen", once):
            starting = self.node.start()
            await self.node.stopService()
        self.assert_free()
        await self.assert_closed(opened[0])
        await starting

    async def test_stopped_twice(self) -> None:
        """A second stop waits for the first; the lock is given back last."""
        await self.node.start()
        first = self.node.stopService()
        second = self.node.stopService()
        self.assertFalse(second.called)
        self.assertRaises(Locked, self.try_lock)
        await second
        await first
        self.assert_free()

    def try_lock(self) -> None:
        """Take the lock."""
        with NodeDirectory(self.directory.path).lock():
            pass

    async def test_part_that_fails_to_end(self) -> None:
        """It is logged, and keeps the lock from nobody."""
        await self.node.start()
        self.node._closing.append(lambda: fail(ZeroDivisionError()))
        await self.node.stopService()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assert_free()

    async def test_late_failure(self) -> None:
        """An endpoint that fails later ends the process, and says why."""
        opening: Deferred[Any] = Deferred()
        with (
            patch.object(TCP4ServerEndpoint, "listen", lambda *_: opening),
            patch.object(reactor, "stop") as stop,
        ):
            self.node.startService()
            opening.errback(OSError(98, "in use"))
        stop.assert_called_once_with()
        self.assertEqual(len(self.flushLoggedErrors(Failed)), 1)
        self.assert_free()
