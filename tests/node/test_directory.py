"""Tests of the node directory."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from node.directory import MARKER, Locked, NodeDirectory, NoNode, resolve
from node.errors import Failed, Untrusted, WherryError
from tests.node.powercut import run_until


class ResolveTests(SynchronousTestCase):
    """Which directory is meant."""

    def test_order(self) -> None:
        """The option, $WHERRY_DIR, $XDG_DATA_HOME, ~/.local/share."""
        everything = {"WHERRY_DIR": "/w", "XDG_DATA_HOME": "/x", "HOME": "/h"}
        without = {"WHERRY_DIR": "", "XDG_DATA_HOME": "/x", "HOME": "/h"}
        for option, env, path in [
            ("/o", everything, "/o"),
            (None, everything, "/w"),
            (None, without, "/x/wherry"),
            (None, {"XDG_DATA_HOME": "x", "HOME": "/h"}, "/h/.local/share/wherry"),
            (None, {"HOME": "/h"}, "/h/.local/share/wherry"),
            ("rel/../a", {}, str(Path.cwd() / "a")),
        ]:
            self.assertEqual(resolve(option, env), Path(path))


class DirectoryTestCase(SynchronousTestCase):
    """Gives each test a directory of its own."""

    def setUp(self) -> None:
        """Make it."""
        self.root = Path(self.mktemp()).absolute()
        self.directory = NodeDirectory(self.root / "node")
        self.directory.make()
        self.directory.make_folder("private")
        self.addCleanup(self.directory.close)


class CheckTests(DirectoryTestCase):
    """Who may look into it."""

    def refused(self, kind: type[WherryError] = Untrusted) -> str:
        """Check what must be refused; give the message."""
        return str(self.assertRaises(kind, self.directory.check))

    def test_made(self) -> None:
        """What is made is 0700, whatever the umask is."""
        old = os.umask(0)
        try:
            NodeDirectory(self.root / "deep" / "node").make()
        finally:
            os.umask(old)
        mode = (self.root / "deep" / "node").stat().st_mode
        self.assertEqual(mode & 0o777, 0o700)
        self.directory.check()

    def test_missing(self) -> None:
        """No directory is no node; the error says how to make one."""
        self.directory = NodeDirectory(self.root / "no ne")
        self.assertIn("wherry init --dir '/", self.refused(NoNode))

    def test_readable_by_others(self) -> None:
        """A directory, or private/, that others can enter or read is refused."""
        for folder in (self.directory.path, self.directory.private):
            for mode in (0o750, 0o705, 0o701, 0o770):
                folder.chmod(mode)
                self.assertIn(f"chmod go-rwx {folder}", self.refused())
            folder.chmod(0o700)
        self.directory.check()

    def test_make_does_not_take_over(self) -> None:
        """A directory that was there and is open to others is refused, not changed."""
        self.directory.path.chmod(0o755)
        self.assertRaises(Untrusted, self.directory.make)
        self.assertEqual(self.directory.path.stat().st_mode & 0o777, 0o755)

    def test_no_directory(self) -> None:
        """A file in its place, and a link in the place of private/, are refused."""
        self.directory.private.rename(self.root / "elsewhere")
        self.directory.private.symlink_to(self.root / "elsewhere")
        self.assertIn("not a directory", self.refused())
        file = self.root / "file"
        file.touch()
        self.directory = NodeDirectory(file)
        self.assertIn("not a directory", self.refused())
        self.assertRaises(Untrusted, self.directory.make)

    def test_foreign(self) -> None:
        """Another user's directory is refused."""
        _as_root()
        os.chown(self.directory.path, 12345, -1)
        self.assertIn("belongs to user 12345", self.refused())


class LockTests(DirectoryTestCase):
    """One writer at a time."""

    def test_other_object(self) -> None:
        """A second holder is refused and told who the first is."""
        other = NodeDirectory(self.directory.path)
        with self.directory.lock():
            error = self.assertRaises(Locked, other.lock().__enter__)
            self.assertEqual(error.pid, os.getpid())
            self.assertIn(f"by process {os.getpid()}", str(error))
        with other.lock():
            pass

    def test_again(self) -> None:
        """One object may take it again, and gives it back once."""
        other = NodeDirectory(self.directory.path)
        with self.directory.lock():
            with self.directory.lock():
                pass
            self.assertRaises(Locked, other.lock().__enter__)
        with other.lock():
            pass

    def test_dies_with_the_process(self) -> None:
        """A holder that was killed holds nothing."""
        program = (
            "import sys, os; from pathlib import Path\n"
            "from node.directory import NodeDirectory\n"
            "NodeDirectory(Path(sys.argv[1])).lock().__enter__()\n"
            "os.kill(os.getpid(), 9)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(self.directory.path)],
            cwd=Path(__file__).parents[2],
            check=False,
        )
        self.assertEqual(done.returncode, -9)
        self.assertTrue(self.directory.lock_file.read_text().strip().isdigit())
        with self.directory.lock():
            pass

    def test_sweeps(self) -> None:
        """The next holder removes what a crash left half-written."""
        litter = [
            self.directory.path / ".node.yaml.00.wherry-new",
            self.directory.private / ".server.key.00.wherry-new",
        ]
        for each in litter:
            each.write_text("half")
        kept = self.directory.path / ".hidden"
        kept.touch()
        with self.directory.lock():
            self.assertEqual([each.exists() for each in litter], [False, False])
        self.assertTrue(kept.exists())

    def test_sweeps_files_alone(self) -> None:
        """What only has the name of a leftover stays, and blocks nobody."""
        folder, link = (self.directory.path / f".{n}.wherry-new" for n in "xy")
        folder.mkdir()
        link.symlink_to(folder)
        with self.directory.lock():
            self.assertTrue(folder.is_dir())
            self.assertTrue(link.is_symlink())

    def test_marker(self) -> None:
        """The marker of an init goes once there is a node, and not before."""
        marker = self.directory.path / MARKER
        marker.touch()
        with self.directory.lock():
            self.assertTrue(marker.exists())
        self.directory.settings.touch()
        with self.directory.lock():
            self.assertFalse(marker.exists())

    def test_link(self) -> None:
        """A link in the place of the lock is not followed."""
        victim = self.root / "victim"
        victim.write_text("keep me")
        self.directory.lock_file.symlink_to(victim)
        self.assertRaises(Untrusted, self.directory.lock().__enter__)
        self.assertEqual(victim.read_text(), "keep me")


class FileTests(DirectoryTestCase):
    """Reading and writing whole files."""

    def test_round_trip(self) -> None:
        """What was written is read; the mode is 0600 whatever the umask is."""
        old = os.umask(0o777)
        try:
            self.directory.write_file("private/key", b"one")
            self.directory.write_file("open", b"two", mode=0o644)
        finally:
            os.umask(old)
        self.assertEqual(self.directory.read_file("private/key"), b"one")
        self.assertEqual((self.directory.private / "key").stat().st_mode & 0o777, 0o600)
        self.assertEqual((self.directory.path / "open").stat().st_mode & 0o777, 0o644)
        self.assertIsNone(self.directory.read_file("none"))
        self.directory.remove("open")
        self.directory.remove("open")
        self.assertFalse(self.directory.has("open"))

    def test_too_large(self) -> None:
        """A file beyond the limit is not taken into memory."""
        self.directory.write_file("big", b"x" * 11)
        self.assertRaises(Failed, self.directory.read_file, "big", limit=10)

    def test_chunks(self) -> None:
        """A file of any size is read piece by piece; the same files are refused."""
        self.directory.write_file("a", b"abcdefgh")
        self.assertEqual(
            list(self.directory.read_chunks("a", 3)), [b"abc", b"def", b"gh"]
        )
        self.assertEqual(list(self.directory.read_chunks("missing", 3)), [])
        (self.directory.path / "folder").mkdir()
        (self.directory.path / "link").symlink_to("a")
        for name in ("folder", "link"):
            self.assertRaises(Untrusted, list, self.directory.read_chunks(name, 3))

    def test_refused(self) -> None:
        """Links, folders, pipes and files open to others are refused."""
        private = self.directory.private
        target = private / "target"
        target.write_bytes(b"")
        target.chmod(0o600)
        (private / "link").symlink_to(target)
        (private / "folder").mkdir()
        os.mkfifo(private / "pipe", 0o600)
        for name in ("link", "folder", "pipe"):
            self.assertRaises(WherryError, self.directory.read_file, f"private/{name}")
        for mode in (0o640, 0o604, 0o620):
            target.chmod(mode)
            self.assertRaises(Untrusted, self.directory.read_file, "private/target")
        settings = self.directory.settings
        settings.touch(mode=0o644)
        self.assertEqual(self.directory.read_file("node.yaml"), b"")
        settings.chmod(0o666)
        self.assertRaises(Untrusted, self.directory.read_file, "node.yaml")

    def test_foreign(self) -> None:
        """Another user's file is refused."""
        _as_root()
        self.directory.write_file("peers.yaml", b"")
        os.chown(self.directory.peers, 12345, -1)
        self.assertRaises(Untrusted, self.directory.read_file, "peers.yaml")

    def test_replaces_a_link(self) -> None:
        """Writing replaces a link and leaves alone what it points to."""
        victim = self.root / "victim"
        victim.write_text("keep me")
        self.directory.override.symlink_to(victim)
        self.directory.write_file("override.yaml", b"new")
        self.assertEqual(victim.read_text(), "keep me")
        self.assertEqual(self.directory.read_file("override.yaml"), b"new")

    def test_full_disk(self) -> None:
        """A write that fails is a typed error and leaves the old file alone."""
        self.directory.write_file("peers.yaml", b"old")

        def work() -> None:
            self.directory.write_file("peers.yaml", b"new")

        step = 0
        while run_until(step, work, expected=Failed):
            self.assertEqual(self.directory.read_file("peers.yaml"), b"old")
            self.assertEqual(self.directory.names(), ["peers.yaml", "private"])
            step += 1
        self.assertEqual(step, 2)
        self.assertEqual(self.directory.read_file("peers.yaml"), b"new")


class SocketAddressTests(SynchronousTestCase):
    """The control socket has an address wherever the directory is."""

    def test_short(self) -> None:
        """A short path is its own address."""
        directory = NodeDirectory(Path("/x"))
        self.assertEqual(directory.socket_address(), "/x/control.sock")

    def test_long(self) -> None:
        """Beyond 107 bytes the address goes through a descriptor, both ways."""
        path = Path(self.mktemp()).absolute() / ("ü" * 60) / "node"
        directory = NodeDirectory(path)
        directory.make()
        self.addCleanup(directory.close)
        address = directory.socket_address()
        self.assertLess(len(address), 60)
        self.assertEqual(address, directory.socket_address())
        with (
            socket.socket(socket.AF_UNIX) as server,
            socket.socket(socket.AF_UNIX) as client,
        ):
            server.bind(address)
            server.listen()
            other = NodeDirectory(path)
            self.addCleanup(other.close)
            client.connect(other.socket_address())
        self.assertTrue(directory.control_socket.exists())


def _as_root() -> None:
    if os.geteuid() != 0:
        raise SkipTest("only root can give files away")
