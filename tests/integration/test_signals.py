"""Tests of the end of a node: asked for by SIGTERM, or forced by SIGKILL."""

import json
import os
import random
import secrets
import signal
import socket
import ssl
import subprocess
from functools import partial
from pathlib import Path
from time import monotonic

from node.stores.files import FileStore
from node.stores.leaffile import LeafReader
from protocols.fileid import FileID, Leaves
from tests.integration.machines import (
    MEBIBYTE,
    Machine,
    MachineTests,
    keep_alive,
    sha256,
    until,
)

END_S = 2.0
ENDED = (0, -signal.SIGTERM)
"""twistd ends itself by the signal that it was sent, once all is done."""


def parts(machine: Machine) -> list[Path]:
    """Unfinished downloads."""
    return list(machine.home.glob(".*.wherry-part"))


def arrived(machine: Machine) -> int:
    """How much of a download is there."""
    return sum(each.stat().st_size for each in parts(machine))


class TermTests(MachineTests):
    """SIGTERM."""

    def end(self, machine: Machine) -> None:
        """End a node in time."""
        began = monotonic()
        self.assertIn(machine.stop(), ENDED)
        self.assertLess(monotonic() - began, END_S)

    def test_serving(self) -> None:
        """A node ends in 2 s with transfers, idle callers and strangers on the line."""
        desk, laptop = self.pair()
        with (desk.home / "hole").open("wb") as hole:
            hole.truncate(1 << 33)
        target = f"/files/{desk.share_file('hole')}"
        desk.start()
        laptop.start()
        laptop.ping("desk")
        leaf = laptop.leaf()
        stranger = self.connect(desk)
        idle = keep_alive(self.call(desk, leaf))
        idle.request("GET", "/")
        idle.getresponse().read()
        downloads = [self.call(desk, leaf) for _ in range(2)]
        for each in downloads:
            each.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            self.assertTrue(each.recv(100_000).startswith(b"HTTP/1.1 200"))
        self.end(desk)
        for each in downloads:
            self.assertLess(self.drain(each), 1 << 30)
        self.assertEqual(self.drain(stranger), 0)
        assert isinstance(idle.sock, ssl.SSLSocket)
        self.assertEqual(self.drain(idle.sock), 0)
        idle.close()
        # Its peer has noticed, and ends as quickly.
        self.end(laptop)

    def drain(self, connection: socket.socket) -> int:
        """Read a connection to its end, and count."""
        count = 0
        try:
            while data := connection.recv(MEBIBYTE):
                count += len(data)
        except (ssl.SSLError, ConnectionResetError):
            pass  # a cut is one
        return count

    def test_fetching(self) -> None:
        """A node that fetches ends in 2 s, its command fails, and resumes later."""
        desk, laptop = self.pair()
        desk.share("film", secrets.token_bytes(96 * MEBIBYTE))
        for each in (desk, laptop):
            each.start()
        laptop.ping("desk")
        get = laptop.spawn("get", "film")
        until(lambda: arrived(laptop) > 4 * MEBIBYTE, 20, get)
        self.end(laptop)
        self.assertIn(get.wait(END_S), (1, 3))
        self.assertRegex(laptop.log.read_text(), r"(?m)^wherry: .*went away|stopping")
        self.assertFalse((laptop.home / "film").exists())
        laptop.start()
        done = json.loads(laptop.wherry("get", "film", "--json").out)
        self.assertGreater(done["files"][0]["resumed"], MEBIBYTE)
        self.assertEqual(sha256(laptop.home / "film"), sha256(desk.home / "film"))
        self.assertEqual(parts(laptop), [])
        for each in (laptop, desk):
            self.end(each)


class KillTests(MachineTests):
    """SIGKILL, at moments that are drawn."""

    moments = 10  # of each of two kinds

    def setUp(self) -> None:
        """Draw the moments."""
        super().setUp()
        self.seed = secrets.randbits(32)
        self.draw = random.Random(self.seed)

    def cut(
        self, process: "subprocess.Popen[bytes]", kill_after: float | None
    ) -> float:
        """Kill a process after so many seconds, or let it end; give how long it was."""
        began = monotonic()
        try:
            process.wait(20 if kill_after is None else kill_after)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return monotonic() - began

    def test_share(self) -> None:
        """Killed while it shares: what the store holds is right, and all ends well."""
        desk = self.machine("desk")
        names = [f"tree/{number}" for number in range(6)]
        (desk.home / "tree").mkdir()
        for name in names:
            size = self.draw.randrange(12 * MEBIBYTE)
            (desk.home / name).write_bytes(self.draw.randbytes(size))
        store = desk.directory / "files"
        takes = self.share(desk, None)
        for number in range(self.moments):
            if self.draw.random() < 0.5:
                subprocess.run(["rm", "-rf", store], check=True)
            self.share(desk, self.draw.uniform(0, takes))
            self.check_store(desk, f"seed {self.seed}, number {number}")
        desk.wherry("share", "tree")
        listed = json.loads(desk.wherry("ls", "--json").out)["files"]
        self.assertEqual(sorted(each["name"] for each in listed), names)
        self.check_store(desk, f"seed {self.seed}, at the end")
        self.assertEqual(len(list(store.glob("??/*"))), len(names))

    def share(self, machine: Machine, kill_after: float | None) -> float:
        """Share all of it, or kill who does so many seconds after it has begun.

        Gives how long it took from then on.
        """
        share = machine.spawn("share", "tree")
        incoming = machine.directory / "files" / "incoming"
        until(
            lambda: ended(share) or (incoming.exists() and any(incoming.iterdir())), 20
        )
        return self.cut(share, kill_after)

    def check_store(self, machine: Machine, when: str) -> None:
        """Every file in the store is what its name says, before it is opened too."""
        files = machine.directory / "files"
        for path in files.glob("??/*"):
            self.assertEqual(id_of(path).text, path.parent.name + path.name, when)
        if not files.exists():
            return
        store = FileStore(machine.directory)
        try:
            for entry in store.entries():
                found = store.path(entry.id)
                self.assertEqual((id_of(found), entry.size), (entry.id, size_of(found)))
                source = machine.home / entry.name
                self.assertEqual(sha256(found), sha256(source), when)
        finally:
            store.close()

    def test_get(self) -> None:
        """Killed while it fetches: no wrong final name, and the next get ends well."""
        desk, laptop = self.pair()
        nas = self.machine("nas")
        self.enrol(desk, nas)
        desk.share("film", self.draw.randbytes(64 * MEBIBYTE + 5))
        wanted = sha256(desk.home / "film")
        for each in (desk, laptop, nas):
            each.begin()
        desk.wait_for_node()
        takes = self.fetch(laptop, None)
        self.check_fetched(laptop, wanted, "uncut")
        resumed = 0
        for number in range(self.moments):
            # The two take turns, so that one starts while the other is killed.
            machine = (laptop, nas)[number % 2]
            when = f"seed {self.seed}, number {number}"
            self.fetch(machine, self.draw.uniform(0, takes))
            if (machine.home / "film").exists():
                self.check_fetched(machine, wanted, when)
            resumed += bool(parts(machine))
            machine.begin()
            if self.draw.random() < 0.3:
                self.fetch(machine, None)
                self.check_fetched(machine, wanted, when)
        for machine in (laptop, nas):
            self.fetch(machine, None)
            self.check_fetched(machine, wanted, f"seed {self.seed}, at the end")
        self.assertGreater(resumed, 0, f"seed {self.seed}: no kill was in the middle")

    def fetch(self, machine: Machine, kill_after: float | None) -> float:
        """Fetch, or kill the node so many seconds after something has come.

        Gives how long it took from then on.
        """
        machine.wait_for_node()
        machine.ping("desk")
        get = machine.spawn("get", "film")
        until(partial(self.begun, get, machine), 20)
        began = monotonic()
        if kill_after is not None:
            self.cut(machine.running, kill_after)
        code = get.wait(20)
        if kill_after is None:
            self.assertEqual(code, 0, f"seed {self.seed}")
        return monotonic() - began

    def check_fetched(self, machine: Machine, wanted: str, when: str) -> None:
        """The final name holds all of it; begin from nothing again."""
        target = machine.home / "film"
        self.assertEqual(sha256(target), wanted, when)
        self.assertEqual(parts(machine), [], when)
        target.unlink()

    def begun(self, get: "subprocess.Popen[bytes]", machine: Machine) -> bool:
        """Whether a file has begun to come, or never will."""
        return ended(get) or bool(parts(machine))


def ended(process: "subprocess.Popen[bytes]") -> bool:
    """Whether a process is over."""
    return process.poll() is not None


def size_of(path: Path) -> int:
    """How long a file is."""
    return path.stat().st_size


def id_of(path: Path) -> FileID:
    """Give the id of what a file holds."""
    with path.open("rb") as opened:
        size = os.fstat(opened.fileno()).st_size
        reader = LeafReader(opened.fileno(), size)
        hashes = b"".join(reader.hash(index) for index in range(reader.count))
    return Leaves(size, hashes).id
