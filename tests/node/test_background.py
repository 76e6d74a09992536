"""Tests of node.background: real nodes in the background, on loopback."""

import contextlib
import os
import select
import signal
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from node import background
from node.background import LOG_FILE, PID_FILE
from node.commands.offline import make
from node.control_client import ControlClient
from node.directory import Locked, NodeDirectory
from node.errors import Failed, NotRunning
from tests.kit import today


class BackgroundTests(SynchronousTestCase):
    """up, down, and what crashes leave behind."""

    def setUp(self) -> None:
        """Make a node on a free port."""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.directory = NodeDirectory(Path(self.mktemp()))
        self.addCleanup(self.directory.close)
        listen = [f"tcp:{self.port}:interface=127.0.0.1"]
        make(self.directory, "desk", listen, [], today())
        self.pid_file = self.directory.path / PID_FILE
        self.addCleanup(self.end)

    def end(self) -> None:
        """Leave no node running."""
        with contextlib.suppress(NotRunning, Failed):
            background.down(self.directory)

    def pid(self) -> int:
        """Give the process that holds the directory."""
        pid = background.holder(self.directory)
        assert pid is not None
        return pid

    def test_life(self) -> None:
        """It starts once, answers, survives a crash's leftovers, pauses, ends."""
        self.assertTrue(background.up(self.directory))
        self.assertFalse(background.up(self.directory))
        self.assertEqual(
            ControlClient(self.directory).get("/status")["nickname"], "desk"
        )
        first = self.pid()
        self.assertEqual(int(self.pid_file.read_text()), first)
        self.assertIn("is up", (self.directory.path / LOG_FILE).read_text())

        crashing = os.pidfd_open(first)
        self.addCleanup(os.close, crashing)
        signal.pidfd_send_signal(crashing, signal.SIGKILL)
        select.select([crashing], [], [])
        other = subprocess.Popen(["sleep", "60"])
        self.addCleanup(other.wait)
        self.addCleanup(other.kill)
        # The number in the file is somebody else's by now.
        self.pid_file.write_text(f"{other.pid}\n")
        self.assertTrue(background.up(self.directory))
        second = self.pid()
        self.assertEqual(int(self.pid_file.read_text()), second)
        self.assertNotIn(second, (first, other.pid))

        with background.paused(self.directory):
            self.assertFalse(ControlClient(self.directory).answers())
        third = self.pid()
        self.assertNotEqual(third, second)

        self.assertEqual(background.down(self.directory), third)
        self.assertFalse(self.pid_file.exists())
        self.assertIsNone(other.poll())
        self.assertRaises(NotRunning, background.down, self.directory)

    def test_port_taken(self) -> None:
        """A node that can't start says why, in full, and leaves nothing running."""
        with socket.create_server(("127.0.0.1", self.port)):
            error = self.assertRaises(Failed, background.up, self.directory)
        self.assertIn(f"cannot listen on tcp:{self.port}", str(error))
        self.assertIn("in use", str(error))
        self.assertIsNone(background.holder(self.directory))

    def test_wrong_files(self) -> None:
        """A broken file stops it before anything is started."""
        (self.directory.path / "override.yaml").write_text("version: 1\nx: 1\n")
        error = self.assertRaises(Failed, background.up, self.directory)
        self.assertIn("override.yaml:2:1", str(error))
        self.assertFalse((self.directory.path / LOG_FILE).exists())

    def test_at_once(self) -> None:
        """Of several who start it at once one does, and the others find it running."""
        directories = [NodeDirectory(self.directory.path) for _ in range(4)]
        for each in directories:
            self.addCleanup(each.close)
        with ThreadPoolExecutor(len(directories)) as threads:
            started = list(threads.map(background.up, directories))
        self.assertEqual(sorted(started), [False, False, False, True])

    def test_other_errors(self) -> None:
        """What the node stumbles over is told, of whatever kind it is."""
        for name in ("files/index.sqlite", "control.sock"):
            stone = self.directory.path / name
            stone.mkdir(parents=True)
            error = self.assertRaises(Failed, background.up, self.directory)
            self.assertIn("the node can't start", str(error))
            self.assertNotIn("log file", str(error))
            self.assertIsNone(background.holder(self.directory))
            stone.rmdir()
        self.assertTrue(background.up(self.directory))

    def test_other_holder(self) -> None:
        """A command that is at work is neither taken for a node nor ended."""
        holder = NodeDirectory(self.directory.path)
        with holder.lock():
            self.assertRaises(Locked, background.up, self.directory)
            error = self.assertRaises(Failed, background.down, self.directory)
        self.assertIn(f"process {os.getpid()}", str(error))

    def test_nonsense_in_pid_file(self) -> None:
        """Whatever a crash left in the pid file, down believes the lock."""
        for text in ("", "x", "-1", str(os.getpid())):
            self.pid_file.write_text(text)
            self.assertRaises(NotRunning, background.down, self.directory)
