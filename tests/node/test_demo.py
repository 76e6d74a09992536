"""Tests of node.demo; that it succeeds is for ``make demo``."""

import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from node.demo import ALERT, Demo, _call, _words
from node.errors import Failed


class DemoTests(SynchronousTestCase):
    """What it claims, and what it leaves."""

    def setUp(self) -> None:
        """Have a place for it."""
        self.root = Path(self.mktemp()).absolute()
        self.root.mkdir()

    def test_cut_short(self) -> None:
        """However it is ended, no file and no process is left behind."""
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "node", "demo"],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "TMPDIR": str(self.root), "PYTHONUNBUFFERED": "1"},
            )
            assert process.stdout is not None
            with process.stdout as told:
                for line in told:
                    if b"both run" in line:
                        process.send_signal(number)
            self.assertEqual(process.wait(), code)
            self.assertEqual(list(self.root.iterdir()), [])
            self.assertEqual(self.processes(), [])

    def processes(self) -> list[str]:
        """Find the processes that have to do with it."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = path.read_bytes()
            except OSError:
                continue  # it has ended
            if os.fsencode(self.root) in command:
                found.append(repr(command))
        return found

    def test_other_content(self) -> None:
        """Files that differ by one bit are noticed."""
        with ExitStack() as leaving:
            demo = Demo(self.root, lambda line: None, leaving)
            (demo.desk.home / "a").write_bytes(b"\x00" * 1000)
            (demo.laptop.home / "a").write_bytes(b"\x00" * 1000)
            demo._compare("a")
            (demo.laptop.home / "a").write_bytes(b"\x00" * 999 + b"\x01")
            self.assertRaises(Failed, demo._compare, "a")
            (demo.laptop.home / "a").unlink()
            self.assertRaises(Failed, demo._compare, "a")

    def test_no_alert(self) -> None:
        """A server that hangs up, or talks something else, gave no TLS alert."""
        for answer in (b"", b"HTTP/1.1 200 OK\r\n\r\n"):
            with socket.create_server(("127.0.0.1", 0)) as server:

                def serve(
                    server: socket.socket = server, answer: bytes = answer
                ) -> None:
                    with server.accept()[0] as accepted:
                        accepted.recv(4096)
                        accepted.sendall(answer)

                thread = threading.Thread(target=serve)
                thread.start()
                seen = _call(server.getsockname()[1], "x.wherry.internal", None)
                thread.join()
            self.assertNotEqual(seen, ALERT)

    def test_words(self) -> None:
        """Missing words are an error, not an equality of nothing with nothing."""
        self.assertEqual(_words("x\nWords of the request: a b c\n", "request"), "a b c")
        for said in ("", "Words of the request: a b\n", "Words of the user CA: a b c"):
            self.assertRaises(Failed, _words, said, "request")
