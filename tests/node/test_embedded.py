"""Tests of node.embedded: two nodes in one process, over real sockets."""

import os
from pathlib import Path

from twisted.internet import reactor  # noqa: TID251 - over real sockets
from twisted.trial.unittest import TestCase

from node.embedded import running_node
from node.errors import Unreachable
from node.listing import NotFound


class EmbeddedTests(TestCase):
    """The one line for tests and scripts."""

    timeout = 60

    async def test_alone(self) -> None:
        """A node runs for the time of its block and leaves nothing behind."""
        async with running_node(reactor, nickname="desk") as desk:
            status = desk.status()
            self.assertEqual(status["nickname"], "desk")
            self.assertEqual(len(status["listening"]), 1)
            self.assertEqual(status["problems"], [])
            folder = desk.directory.path
            self.assertTrue(folder.is_dir())
        self.assertFalse(folder.parent.exists())

    async def test_sisters(self) -> None:
        """Two devices of one user call each other and fetch a file."""
        home = Path(self.mktemp()).absolute()
        home.mkdir()
        photo = home / "photo.jpg"
        photo.write_bytes(os.urandom(3_000_000))
        async with (
            running_node(reactor, nickname="desk") as desk,
            running_node(reactor, nickname="laptop", sister_of=desk) as laptop,
        ):
            pong = await laptop.ping("desk")
            self.assertEqual(pong["node"], desk.id.text)
            self.assertEqual((await desk.ping("laptop"))["node"], laptop.id.text)
            await desk.share(photo)
            (listed,) = (await laptop.files())["files"]
            self.assertEqual(listed["holders"], [desk.id.text])
            target = home / "there"
            target.mkdir()
            await laptop.get("photo.jpg", to=target)
            self.assertEqual((target / "photo.jpg").read_bytes(), photo.read_bytes())

    async def test_away(self) -> None:
        """What is missing is told apart from who is missing."""
        async with (
            running_node(reactor, nickname="desk") as desk,
            running_node(reactor, nickname="laptop", sister_of=desk) as laptop,
        ):
            await desk.ping("laptop")
            with self.assertRaisesRegex(NotFound, "has 'film.mkv'"):
                await desk.get("film.mkv", to="/tmp")
            await laptop.service.stopService()
            with self.assertRaisesRegex(Unreachable, "film.mkv': laptop"):
                await desk.get("film.mkv", to="/tmp")
            listed = await desk.files()
            self.assertEqual(listed["files"], [])
            self.assertIn("laptop", listed["problems"][0])

    async def test_three(self) -> None:
        """A third device knows the other two."""
        async with (
            running_node(reactor, nickname="desk") as desk,
            running_node(reactor, nickname="laptop", sister_of=desk),
            running_node(reactor, nickname="nas", sister_of=desk) as nas,
        ):
            for name in ("desk", "laptop"):
                self.assertEqual((await nas.ping(name))["nickname"], name)
