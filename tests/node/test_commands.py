"""Tests of node.commands with running nodes: two of them, on loopback."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

from node import background
from node.commands.offline import make
from node.directory import NodeDirectory
from node.errors import NotRunning
from tests.kit import today
from tests.node.test_cli import COMMAND, CommandTestCase, wherry


class RunningTests(CommandTestCase):
    """One story, since starting nodes takes its time."""

    def up(self, name: str) -> Path:
        """Make a node and start it."""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        directory = NodeDirectory(self.root / name)
        self.addCleanup(directory.close)
        make(directory, name, [f"tcp:{port}:interface=127.0.0.1"], [], today())

        def end() -> None:
            with contextlib.suppress(NotRunning):
                background.down(directory)

        self.addCleanup(end)
        done = wherry("up", "--dir", directory.path)
        self.assertIn(f'Node "{name}" is running', done.out, done.err)
        return directory.path

    def ok(self, *arguments: str | Path) -> str:
        """Run a command that must succeed; give its output."""
        done = wherry(*arguments)
        self.assertEqual(done.code, 0, done.err)
        return done.out

    def test_story(self) -> None:
        """Enrolled, connected, shared, fetched, cut, resumed, and told about."""
        desk, laptop = self.up("desk"), self.up("laptop")
        self.assertIn("no peers yet", self.ok("status", "--dir", desk))
        self.enrol_running(desk, laptop)
        self.look(desk, laptop)
        self.move_files(desk, laptop)
        self.cut(desk, laptop)
        self.ok("down", "--dir", desk)
        error = wherry("ping", "desk", "--timeout", "5", "--dir", laptop)
        self.assertFails(error, 4, "desk", "connection refused")
        self.assertRegex(wherry("ls", "--dir", laptop).err, "^incomplete: desk can't")

    def enrol_running(self, desk: Path, laptop: Path) -> None:
        """The whole enrolment works while both nodes run."""
        request, bundle = self.root / "request", self.root / "bundle"
        request.write_text(self.ok("device", "request", "--dir", laptop))
        before = background.holder(NodeDirectory(desk))
        bundle.write_text(self.ok("device", "admit", "--yes", request, "--dir", desk))
        self.assertEqual(background.holder(NodeDirectory(desk)), before)
        self.ok("device", "accept", "--yes", bundle, "--dir", laptop)

    def look(self, desk: Path, laptop: Path) -> None:
        """Status, peers, ping and explain agree on what is going on."""
        reply = self.ok("ping", "desk", "--dir", laptop)
        self.assertRegex(
            reply,
            r"^reply from desk via loopback 127\.0\.0\.1:\d+ in [\d.]+ m?s "
            r"\(TLS 1\.3, outbound identity [0-9a-f]{8}…, used once\)\n",
        )
        document = wherry("status", "--dir", laptop, "--json").json
        (peer,) = document["peers"]
        self.assertEqual((document["schema"], peer["state"]), (1, "connected"))
        self.assertEqual(set(peer["route"]), {"hint", "kind", "source"})
        self.assertIn("1 of 1 peer connected", self.ok("status", "--dir", laptop))
        self.assertIn("connected", self.ok("peers", "--dir", laptop))
        explained = self.ok("explain", "desk", "--dir", laptop)
        self.assertIn("allowed", explained)
        self.assertIn("It is connected.", explained)
        self.assertFails(wherry("explain", "nas", "--dir", laptop), 1, "nas")
        made = wherry("init", "--dir", desk, "--json").json
        self.assertEqual(self.ok("card", "--dir", desk), made["card"] + "\n")
        self.fast(desk)

    def fast(self, desk: Path) -> None:
        """``wherry status`` takes less than 0.3 s; in CPU time, to be stable."""

        def spent() -> float:
            usage = resource.getrusage(resource.RUSAGE_CHILDREN)
            return usage.ru_utime + usage.ru_stime

        took: list[float] = []
        for _ in range(3):
            before = spent()
            subprocess.run([*COMMAND, "status", "--dir", desk], capture_output=True)
            took.append(spent() - before)
        self.assertLess(min(took), 0.3)

    def move_files(self, desk: Path, laptop: Path) -> None:
        """A folder is shared, listed and fetched; what is wrong is said."""
        folder = self.root / "photos" / "sea"
        folder.mkdir(parents=True)
        (folder / "a.jpg").write_bytes(b"a" * 3_000_000)
        self.ok("share", folder.parent, "--dir", desk)
        self.assertRegex(
            self.ok("ls", "--dir", laptop),
            r"photos/sea/a\.jpg  3\.0 MB  desk +\w{52}\n",
        )
        out = self.root / "out"
        out.mkdir()
        self.ok("get", "photos", "-o", out, "--dir", laptop)
        fetched = out / "photos" / "sea" / "a.jpg"
        self.assertEqual(fetched.read_bytes(), b"a" * 3_000_000)
        again = self.ok("get", "photos", "-o", out, "--from", "desk", "--dir", laptop)
        self.assertIn("was there already", again)
        fetched.write_bytes(b"mine")
        refused = wherry("get", "photos", "-o", out, "--dir", laptop)
        self.assertFails(refused, 1, "--force")
        self.assertEqual(fetched.read_bytes(), b"mine")
        self.ok("get", "photos", "-o", out, "--force", "--dir", laptop)
        self.assertEqual(fetched.stat().st_size, 3_000_000)
        self.assertFails(wherry("get", "film.mkv", "--dir", laptop), 1, "film.mkv")

    def cut(self, desk: Path, laptop: Path) -> None:
        """Ctrl-C leaves nothing under the final name, and the next get resumes."""
        content = os.urandom(1 << 20) * 300
        (self.root / "big").write_bytes(content)
        self.ok("share", self.root / "big", "--dir", desk)
        out = self.root / "big.out"
        process = subprocess.Popen(
            [*COMMAND, "--dir", laptop, "get", "big", "-o", out],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while not any(self.root.glob(".big.out.*")) and process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.005)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
        self.assertEqual(process.returncode, 130, said)
        self.assertIn("the same command goes on", said)
        self.assertFalse(out.exists())
        done: Any = wherry("get", "big", "-o", out, "--dir", laptop, "--json").json
        self.assertEqual(done["files"][0]["from"], ["desk"])
        self.assertEqual(out.read_bytes(), content)
