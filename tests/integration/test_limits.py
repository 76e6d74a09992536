"""Tests of the limits of the open port: who costs too much is cut, others go on."""

import contextlib
import http.client
import json
import select
import socket
from time import monotonic

from protocols.limits import Limits
from tests.integration.machines import MachineTests, keep_alive

SLACK_S = 3.0
PROLOGUE = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"  # of a ClientHello
ASK = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class LimitTests(MachineTests):
    """One node with a short limit in its node.yaml, the others as they are."""

    def open(self, limits: Limits) -> None:
        """Start it."""
        self.desk = self.machine("desk", limits)
        with (self.desk.home / "hole").open("wb") as hole:
            hole.truncate(1 << 33)
        self.hole = f"/files/{self.desk.share_file('hole')}"
        sister = self.machine("laptop")
        self.enrol(self.desk, sister)
        self.leaf, self.other = self.desk.leaf(), sister.leaf()
        self.desk.start()

    def assert_served(self, caller: http.client.HTTPConnection) -> None:
        """Ask for something small."""
        caller.request("GET", "/")
        answer = caller.getresponse()
        document = json.loads(answer.read())
        self.assertEqual((answer.status, document["wherry"] != ""), (200, True))

    def seconds_to_end(self, connection: socket.socket) -> float:
        """Wait until the node has ended a connection, reading nothing of it."""
        began = monotonic()
        watched = select.poll()
        watched.register(connection, select.POLLRDHUP | select.POLLHUP)
        self.assertTrue(watched.poll(SLACK_S * 1000), "it was not cut")
        return monotonic() - began

    def test_half_open(self) -> None:
        """Who begins no handshake, or doesn't end it, is cut; others go on."""
        self.open(Limits(handshake_s=0.5))
        good = keep_alive(self.call(self.desk, self.leaf))
        silent, slow = self.connect(self.desk), self.connect(self.desk)
        slow.sendall(PROLOGUE)
        self.assert_served(good)
        for each in (silent, slow):
            self.assertLess(self.seconds_to_end(each), 0.5 + SLACK_S)
        good.close()

    def test_slow_request(self) -> None:
        """Who sends a request byte by byte is told so and cut."""
        self.open(Limits(headers_s=0.5))
        caller = self.call(self.desk, self.leaf)
        caller.settimeout(0.05)
        began = monotonic()
        answer, sent = b"", 0
        while not answer:
            caller.send(ASK[sent : sent + 1])
            sent += 1
            with contextlib.suppress(TimeoutError):
                answer = caller.recv(4096)
        self.assertTrue(answer.startswith(b"HTTP/1.1 408 "))
        self.assertLess(monotonic() - began, 0.5 + SLACK_S)
        self.assertLess(sent, len(ASK))

    def test_idle(self) -> None:
        """Who asks nothing more is cut without a word; who asks on is not."""
        self.open(Limits(idle_s=1))
        idle, busy = (self.call(self.desk, self.leaf) for _ in range(2))
        asking = keep_alive(busy)
        self.assert_served(keep_alive(idle))
        began = monotonic()
        watched = select.poll()
        watched.register(idle, select.POLLIN)
        while not watched.poll(100):
            self.assert_served(asking)
        self.assertGreater(monotonic() - began, 0.5)
        self.assertLess(monotonic() - began, 1 + SLACK_S)
        self.assertEqual(idle.recv(1), b"")
        self.assert_served(asking)
        asking.close()

    def test_stalled(self) -> None:
        """Who takes nothing of what they asked for is cut; others go on."""
        self.open(Limits(stall_s=0.7))
        stalled = self.call(self.desk, self.leaf)
        stalled.sendall(f"GET {self.hole} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        good = keep_alive(self.call(self.desk, self.leaf))
        watched = select.poll()
        watched.register(stalled, select.POLLHUP | select.POLLERR)
        began = monotonic()
        while not watched.poll(100):
            self.assert_served(good)
            self.assertLess(monotonic() - began, 0.7 + SLACK_S)
        self.assert_served(good)
        good.close()

    def test_too_many_connections(self) -> None:
        """One caller too many is told so; those before, and others, go on."""
        self.open(Limits(per_principal=3, connections=6))
        before = [keep_alive(self.call(self.desk, self.leaf)) for _ in range(3)]
        for each in before:
            self.assert_served(each)
        extra = keep_alive(self.call(self.desk, self.leaf))
        extra.request("GET", "/")
        answer = extra.getresponse()
        self.assertEqual(answer.status, 503)
        self.assertEqual(json.loads(answer.read())["error"], "too_many_connections")
        self.assertEqual(answer.headers["Connection"], "close")
        other = keep_alive(self.call(self.desk, self.other))
        for each in (*before, other):
            self.assert_served(each)
        # A place that is given back is somebody else's.
        before.pop().close()
        again = keep_alive(self.call(self.desk, self.leaf))
        self.assert_served(again)
        for each in (*before, other, again, extra):
            each.close()

    def test_too_many_handshakes(self) -> None:
        """Silent callers of an address harm neither others of it nor other ones."""
        self.open(Limits(handshake_s=60, handshakes_per_address=4))
        held = [self.connect(self.desk) for _ in range(5)]
        self.assertLess(self.seconds_to_end(held.pop(0)), 1)
        same = keep_alive(self.call(self.desk, self.leaf))
        self.assertLess(self.seconds_to_end(held.pop(0)), 1)
        other = keep_alive(self.call(self.desk, self.leaf, source="127.0.0.2"))
        for each in (same, other):
            self.assert_served(each)
            each.close()
