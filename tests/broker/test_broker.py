"""Tests of broker.broker: many peers, and nothing between them."""

from collections.abc import Callable
from itertools import combinations
from typing import Any

from cryptography import x509
from twisted.application.service import IService
from twisted.internet.error import ConnectionRefusedError
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from broker.broker import Broker
from broker.errors import UnknownPeer
from broker.generation import Credentials
from broker.http import read_body
from broker.merge import PeerRecord
from protocols import certificates
from protocols.hint import Hint
from protocols.nodeid import NodeID
from tests.broker.harbour import (
    COMMENT,
    EVENTS,
    Berth,
    Call,
    Endpoint,
    Harbour,
    answer,
    record,
)

A = "tcp:192.168.1.1:8443"
B = "tcp:192.168.1.2:8443"


class BrokerTests(SynchronousTestCase):
    """Which peers there are, and finding them."""

    def setUp(self) -> None:
        self.harbour = Harbour()
        self.net = self.harbour.net
        self.a, self.b = self.harbour.berth(A), self.harbour.berth(B)
        self.broker = self.harbour.broker()
        self.records = [
            record(self.a.node, A, nickname="a"),
            record(self.b.node, B, nickname="b"),
        ]

    def stop(self) -> None:
        """Stop, and see that nothing is left."""
        stopped = self.broker.stopService()
        self.net.flush()
        self.successResultOf(stopped)
        self.assertEqual(self.net.clock.getDelayedCalls(), [])
        self.assertEqual(self.a.live + self.b.live, [])

    def test_service(self) -> None:
        """It is a Twisted service."""
        verifyObject(IService, self.broker)

    def test_names(self) -> None:
        """Peers are found by nickname or whole node id, by nothing less."""
        self.broker.update(self.records)
        self.assertEqual(self.broker.peer("a").node, self.a.node)
        self.assertEqual(self.broker.peer(self.b.node.text).nickname, "b")
        self.assertEqual([peer.nickname for peer in self.broker.peers()], ["a", "b"])
        for name in ("c", "", "A", self.a.node.text[:51], self.a.node.text.upper()):
            with self.assertRaises(UnknownPeer):
                self.broker.peer(name)

    def test_nothing_before_the_start(self) -> None:
        """Nobody is called by a broker that doesn't run."""
        self.broker.update(self.records)
        self.net.advance(1)
        self.assertEqual(self.net.dials, [])
        self.broker.startService()
        self.net.advance(1)
        self.assertEqual(len(self.net.dials), 2)
        self.stop()
        self.net.advance(100)
        self.assertEqual(len(self.net.dials), 2)

    def test_come_and_go(self) -> None:
        """A new peer is called, one that is dropped is cut."""
        self.broker.startService()
        self.broker.update(self.records[:1])
        self.net.flush()
        self.assertEqual((len(self.a.live), len(self.b.live)), (1, 0))
        self.broker.update(self.records[1:])
        self.net.flush()
        self.assertEqual((len(self.a.live), len(self.b.live)), (0, 1))
        with self.assertRaises(UnknownPeer):
            self.broker.peer("a")
        self.stop()

    def test_stop_waits_for_the_dropped(self) -> None:
        """Stopping isn't over before a peer that was dropped before is gone."""
        self.broker.startService()
        self.broker.update(self.records[:1])
        self.net.flush()
        self.broker.update([])
        stopped = self.broker.stopService()
        self.assertNoResult(stopped)
        self.net.flush()
        self.successResultOf(stopped)

    def test_twice(self) -> None:
        """Starting twice is starting once; a stopped broker can start again."""
        self.broker.update(self.records)
        self.broker.startService()
        self.broker.startService()
        self.net.flush()
        self.assertEqual(len(self.net.dials), 2)
        self.stop()
        self.broker.startService()
        self.net.flush()
        self.assertTrue(all(peer.connected for peer in self.broker.peers()))
        self.stop()


class TimingTests(SynchronousTestCase):
    """What happens with A never shows in when B is called."""

    def dials_of_b(self, happens: Callable[[Harbour, Berth], None], seed: int) -> Any:
        """Let things happen to A for some minutes in which B is down."""
        harbour = Harbour()
        a = harbour.berth(A)
        harbour.net.places[B] = ConnectionRefusedError()
        b = NodeID.of_spki(b"b")
        harbour.devices[b] = harbour.house.device()
        broker = harbour.broker(seed)
        records = [record(b, B, nickname="b", own=False)]
        records.append(record(a.node, A, nickname="a", own=False))
        broker.update(records)
        broker.startService()
        for _ in range(8):
            happens(harbour, a)
            harbour.net.advance(25, step=0.5)
        broker.stopService()
        harbour.net.flush()
        return [time for time, place in harbour.net.dials if place == B]

    def test_independent(self) -> None:
        """B's dial times are the same whether A flaps, hangs, is down or is up."""

        def drop(_: Harbour, a: Berth) -> None:
            a.drop()

        def hang(harbour: Harbour, _: Berth) -> None:
            harbour.net.places[A] = None

        def down(harbour: Harbour, a: Berth) -> None:
            harbour.net.places[A] = ConnectionRefusedError()
            a.drop()

        def up(_: Harbour, a: Berth) -> None:
            for call in a.live:
                call.say(COMMENT)

        dials = [self.dials_of_b(happens, seed=7) for happens in (drop, hang, down, up)]
        self.assertGreater(len(dials[0]), 6)
        for other in dials[1:]:
            self.assertEqual(dials[0], other)

    def test_drawn(self) -> None:
        """Another draw gives other times, so the test above compares something."""
        first, second = (
            self.dials_of_b(lambda _, __: None, seed=seed) for seed in (1, 2)
        )
        self.assertNotEqual(first, second)

    def test_phases(self) -> None:
        """Many peers that are down share neither their first dial nor a rhythm."""
        harbour = Harbour()
        nodes = [NodeID.of_spki(bytes([n])) for n in range(40)]
        device = harbour.house.device()
        records = []
        for number, node in enumerate(nodes):
            place = f"tcp:10.0.0.{number + 1}:1"
            harbour.devices[node] = device
            harbour.net.places[place] = ConnectionRefusedError()
            records.append(record(node, place, nickname=None, own=False))
        broker = harbour.broker()
        broker.update(records)
        broker.startService()
        clock = harbour.net.clock
        while clock.seconds() < 120:
            due = min(call.getTime() for call in clock.getDelayedCalls())
            clock.advance(max(0.0, due - clock.seconds()))
        times = [time for time, _ in harbour.net.dials]
        self.assertGreater(len(times), 200)
        self.assertEqual(len(set(times)), len(times))
        first = {place: time for time, place in reversed(harbour.net.dials)}
        self.assertGreater(max(first.values()) - min(first.values()), 5)
        broker.stopService()
        self.assertEqual(clock.getDelayedCalls(), [])


class SharedNothingTests(SynchronousTestCase):
    """Two peers compare notes, and one compares today's with yesterday's."""

    def setUp(self) -> None:
        self.harbour = Harbour()
        self.net = self.harbour.net
        # Both are at one address and port: it is the record that tells them
        # apart, so a pool that is keyed by host and port would mix them up.
        self.a, self.b = self.harbour.berth(), self.harbour.berth()
        for berth, name in ((self.a, b"/a"), (self.b, b"/b")):
            berth.answers = self.answers(name)

    def answers(self, name: bytes) -> Callable[[bytes], bytes | None]:
        """Answer as a peer does that tries to mark and to steer its caller."""

        def answers(target: bytes) -> bytes | None:
            if target == b"/events":
                return EVENTS + COMMENT
            return answer(
                name,
                b"Set-Cookie: mark=" + name + b"; Path=/",
                b'ETag: "mark-' + name + b'"',
                b"Location: https://peer.wherry.internal/steered" + name,
                status=b"302 Found",
            )

        return answers

    def run_against(self, issue: Callable[[PeerRecord], Credentials]) -> list[Call]:
        """Call both, again after a reconnect, and again after a restart."""
        place = "tcp:192.168.1.1:8443"
        owner: list[NodeID] = []

        def issuer(known: PeerRecord) -> Credentials:
            # Dials of one generation follow its Tub at once in this network.
            owner.append(known.node)
            return issue(known)

        def handler(hint: Hint) -> Endpoint:
            where = {self.a.node: self.a, self.b.node: self.b}[owner[-1]]
            self.net.places[hint.text] = where
            return Endpoint(self.net, hint)

        for run in range(2):
            broker = self.harbour.broker(run)
            broker._issuer, broker._handlers = issuer, {"tcp": handler}
            for berth, nickname in ((self.a, "alice"), (self.b, "bob")):
                broker.update(
                    [p.record for p in broker.peers()]
                    + [record(berth.node, place, nickname=nickname)]
                )
            broker.startService()
            self.net.flush()
            for _ in range(2):
                for peer in broker.peers():
                    owner.append(peer.node)
                    for path in ("/files/", "/files/"):
                        asking = peer.request(b"GET", path, {"Range": "bytes=0-"})
                        self.net.flush()
                        response = self.successResultOf(asking)
                        self.assertEqual(response.code, 302)
                        body = read_body(response, 100)
                        self.net.flush()
                        self.successResultOf(body)
                self.a.drop()
                self.net.flush()
                self.b.drop()
                self.net.flush()
            stopped = broker.stopService()
            self.net.flush()
            self.successResultOf(stopped)
        calls = self.a.calls + self.b.calls
        self.assertGreaterEqual(len(calls), 12)
        return calls

    def names(self, call: Call) -> list[list[bytes]]:
        """The header names of each request, in their order."""
        return [
            [line.partition(b":")[0] for line in head.split(b"\r\n")[1:]]
            for head in call.heads
        ]

    def assert_headers(self, calls: list[Call]) -> None:
        """The same few headers, to whom and whenever it may be."""
        shapes = {tuple(names) for call in calls for names in self.names(call)}
        self.assertEqual(shapes, {(b"Host", b"Accept"), (b"Host", b"Range")})
        hosts = {
            line
            for c in calls
            for h in c.heads
            for line in h.split(b"\r\n")
            if line.startswith(b"Host")
        }
        self.assertEqual(hosts, {b"Host: peer.wherry.internal"})

    def generations(self, calls: list[Call]) -> list[x509.Certificate]:
        """One leaf of each generation: connections of one share theirs."""
        leaves = {certificates.key_id(call.leaf): call.leaf for call in calls}
        return list(leaves.values())

    def assert_leaves(self, calls: list[Call]) -> None:
        """No two generations have a value of their certificate in common."""
        leaves = self.generations(calls)
        # Two peers, two runs, two generations each: before and after a loss.
        self.assertEqual(len(leaves), 8)
        for one, other in combinations(leaves, 2):
            self.assertNotEqual(certificates.key_id(one), certificates.key_id(other))
            self.assertNotEqual(one.serial_number, other.serial_number)
            self.assertEqual(one.subject, other.subject)
            self.assertEqual(one.not_valid_before_utc, other.not_valid_before_utc)
        for berth, other_berth in ((self.a, self.b), (self.b, self.a)):
            mine = {certificates.key_id(call.leaf) for call in berth.calls}
            theirs = {certificates.key_id(call.leaf) for call in other_berth.calls}
            self.assertFalse(mine & theirs)

    def test_nothing_in_common(self) -> None:
        """Neither certificates nor headers, marks, or words about the other one."""
        calls = self.run_against(self.harbour.issue)
        self.assert_leaves(calls)
        self.assert_headers(calls)
        names = [call.server_name for call in calls]
        self.assertEqual(len(set(names)), len(names))
        for call in calls:
            for text in (b"mark", b"alice", b"bob", b"steered", b"192.168"):
                self.assertNotIn(text, call.received)
            for berth in (self.a, self.b):
                self.assertNotIn(berth.node.text.encode("ascii"), call.received)

    def test_no_connection_is_shared(self) -> None:
        """Peers at one address and port still have their own connections."""
        self.run_against(self.harbour.issue)
        for berth, name in ((self.a, b"/a"), (self.b, b"/b")):
            self.assertTrue(berth.calls)
            self.assertTrue(all(call.berth is berth for call in berth.calls), name)

    def test_negative_control(self) -> None:
        """With one Tub for all, the comparison of the notes does find them."""
        tub = self.harbour.caller.leaf()

        def issue(known: PeerRecord) -> Credentials:
            device = self.harbour.devices[known.node]
            return Credentials(self.harbour.caller.caller(device, tub=tub), tub.label)

        calls = self.run_against(issue)
        with self.assertRaises(self.failureException):
            self.assert_leaves(calls)


class ManyTests(SynchronousTestCase):
    """Own devices, all of them."""

    def test_all_at_once(self) -> None:
        """Ten peers are connected, lost and stopped together."""
        harbour = Harbour()
        places = [f"tcp:10.0.0.{n}:1" for n in range(1, 11)]
        berths = [harbour.berth(place) for place in places]
        broker: Broker = harbour.broker()
        broker.update(
            record(berth.node, place, nickname=place)
            for berth, place in zip(berths, places, strict=True)
        )
        broker.startService()
        harbour.net.flush()
        self.assertTrue(all(peer.connected for peer in broker.peers()))
        for berth in berths:
            berth.drop()
        harbour.net.flush()
        self.assertTrue(all(peer.connected for peer in broker.peers()))
        self.assertEqual(len(harbour.net.dials), 20)
        stopped = broker.stopService()
        harbour.net.flush()
        self.successResultOf(stopped)
        self.assertEqual(harbour.net.clock.getDelayedCalls(), [])
