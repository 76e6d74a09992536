"""Tests of broker.peer, and of the generations below it."""

from collections.abc import Callable
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionRefusedError

from broker.errors import (
    NotConnected,
    RequestFailed,
)
from broker.http import read_body
from broker.merge import SourcedHint
from broker.routes import Policy
from override.override import Local
from protocols import certificates
from protocols.hint import Hint
from tests.broker.harbour import (
    COMMENT,
    EVENTS,
    lifeline,
    record,
)
from tests.broker.peertests import CABLE, LAN, OTHER, PeerTests


class ConnectingTests(PeerTests):
    """From the first dial to the first byte."""

    def test_connected(self) -> None:
        """The lifeline is up, over the won connection: one dial, one Tub."""
        peer = self.start()
        status = peer.status()
        self.assertEqual((status.state, status.last_error), ("connected", None))
        assert status.route is not None
        self.assertEqual((status.route.hint.text, status.route.source), (LAN, "card"))
        self.assertEqual(len(self.net.dials), 1)
        self.assertEqual(status.credentials, self.harbour.tubs[0].label)
        self.assertEqual(len(self.harbour.tubs), 1)
        self.assertEqual(len(self.nas.calls), 1)
        self.assertTrue(
            self.nas.calls[0].heads[0].startswith(b"GET /events HTTP/1.1\r\n")
        )
        self.assertEqual([last for _, last in peer.routes_report()], ["connected"])

    def test_not_before_the_first_byte(self) -> None:
        """Neither the handshake nor the answer's head means connected."""
        self.nas.answers = lambda _: EVENTS
        peer = self.start()
        waiting = peer.when_connected()
        self.assertEqual(peer.status().state, "connecting")
        self.assertNoResult(waiting)
        self.nas.calls[0].say(COMMENT)
        self.net.flush()
        self.successResultOf(waiting)
        self.assertEqual(peer.status().state, "connected")

    def test_no_first_byte(self) -> None:
        """A peer that never lets us in is given up and called again."""
        for text in (EVENTS, b""):
            self.nas.answers = lambda _, t=text: t  # type: ignore[misc]
            peer = self.start()
            self.net.advance(15)
            self.assertEqual(peer.status().state, "waiting")
            self.assertIn("gave no answer in 15 s", peer.status().last_error or "")
            self.assert_stops()

    def test_race(self) -> None:
        """A route that is never answered costs 250 ms, and is cancelled."""
        peer = self.start(LAN, CABLE)
        self.net.advance(1)
        self.assertEqual(self.net.dials, [(0.0, CABLE), (0.25, LAN)])
        self.assertEqual(self.net.cancelled, [CABLE])
        report = {route.hint.text: last for route, last in peer.routes_report()}
        self.assertEqual(report, {CABLE: "abandoned", LAN: "connected"})

    def test_wrong_pin_does_not_win(self) -> None:
        """Somebody else who is nearer is refused, and the right one is found."""
        foe = self.harbour.berth(CABLE)
        foe.shows_itself = True
        peer = self.start(LAN, CABLE)
        self.net.advance(1)
        self.assertTrue(peer.connected)
        report = {route.hint.text: last or "" for route, last in peer.routes_report()}
        self.assertEqual(report[LAN], "connected")
        self.assertIn("answered with another key", report[CABLE])
        self.assertEqual([call.leaf for call in foe.calls], [None])

    def test_slow_handshake_loses(self) -> None:
        """Who takes the connection and says nothing doesn't win, and is cut."""
        silent = self.harbour.berth(CABLE)
        silent.speaks_tls = False
        peer = self.start(LAN, CABLE)
        self.net.advance(0.5)
        self.assertTrue(peer.connected)
        self.assertEqual([call.over for call in silent.calls], [True])

    def test_no_handshake(self) -> None:
        """Without any other route it is given up after 10 s."""
        self.nas.speaks_tls = False
        peer = self.start()
        self.net.advance(9.5)
        self.assertEqual(peer.status().state, "connecting")
        self.net.advance(0.5)
        self.assertIn("no TLS handshake in 10 s", peer.status().last_error or "")
        self.assertEqual(self.nas.live, [])


class RequestTests(PeerTests):
    """Requests through a peer."""

    def test_request(self) -> None:
        """A request uses the Tub and the route of the lifeline."""
        peer = self.start()
        asking = peer.request(b"GET", "/files/", {"Range": "bytes=0-"})
        self.net.flush()
        body = read_body(self.successResultOf(asking), 100)
        self.net.flush()
        self.assertEqual(self.successResultOf(body), b"/files/")
        keys = {certificates.key_id(call.leaf) for call in self.nas.calls}
        self.assertEqual((len(self.nas.calls), len(keys)), (2, 1))
        names = {call.server_name for call in self.nas.calls}
        self.assertEqual(len(names), 2)

    def test_waits(self) -> None:
        """A request waits for the connection."""
        self.net.places[LAN] = ConnectionRefusedError()
        peer = self.start()
        asking = peer.request(b"GET", "/")
        self.net.places[LAN] = self.nas
        self.net.advance(2)
        self.assertEqual(self.successResultOf(asking).code, 200)

    def test_waits_no_longer_than_told(self) -> None:
        """It fails with the reason after that."""
        self.net.places[LAN] = ConnectionRefusedError()
        peer = self.start()
        asking = peer.request(b"GET", "/", timeout=3.0)
        self.net.advance(2)
        self.assertNoResult(asking)
        self.net.advance(1)
        error = self.failureResultOf(asking, NotConnected).value
        self.assertIn("connection refused", str(error))

    def test_no_answer_yet(self) -> None:
        """Without any failure it says so."""
        self.net.places[LAN] = None
        peer = self.start()
        waiting = peer.when_connected(timeout=3.0)
        self.net.advance(3)
        error = self.failureResultOf(waiting, NotConnected).value
        self.assertIn("no connection within 3 s", str(error))

    def test_cancel(self) -> None:
        """Who gives up before there is a connection is forgotten."""
        self.net.places[LAN] = ConnectionRefusedError()
        peer = self.start()
        asking = peer.request(b"GET", "/")
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.net.places[LAN] = self.nas
        self.net.advance(2)
        self.assertEqual(len(self.nas.calls), 1)

    def test_cancel_under_way(self) -> None:
        """Giving a request up closes its connection, and the lifeline stays."""
        self.nas.answers = lambda t: lifeline(t) if t == b"/events" else b""
        peer = self.start()
        asking = peer.request(b"GET", "/slow")
        self.net.flush()
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.net.flush()
        self.assertEqual([call.over for call in self.nas.calls], [False, True])
        self.assertTrue(peer.connected)

    def test_lost_under_way(self) -> None:
        """A request fails in words when the peer goes away."""
        self.nas.answers = lambda t: lifeline(t) if t == b"/events" else b""
        peer = self.start()
        asking = peer.request(b"GET", "/slow")
        self.net.flush()
        self.nas.calls[0].say(b"0\r\n\r\n")
        self.net.flush()
        error = self.failureResultOf(asking, RequestFailed).value
        self.assertIn("nas", str(error))

    def test_stopping_under_way(self) -> None:
        """Stopping ends all requests, and whoever waits."""
        self.nas.answers = lambda t: lifeline(t) if t == b"/events" else b""
        peer = self.start()
        asking = peer.request(b"GET", "/slow")
        self.net.flush()
        closed = peer.close()
        self.net.flush()
        self.successResultOf(closed)
        self.failureResultOf(asking, RequestFailed)
        self.failureResultOf(peer.when_connected(), NotConnected)

    def test_stopping_while_dialling(self) -> None:
        """So it does where the request still waits for a connection of its own."""
        peer = self.start()
        self.net.places[LAN] = None
        asking = peer.request(b"GET", "/")
        self.net.flush()
        self.assertNoResult(asking)
        closed = peer.close()
        self.net.flush()
        self.successResultOf(closed)
        error = self.failureResultOf(asking, RequestFailed).value
        self.assertEqual(str(error), "nas: the connection was lost")

    def test_closing_while_connecting(self) -> None:
        """Whatever is under way when we stop is cut, in any phase."""
        stages: list[Callable[[], None]] = [
            lambda: self.net.places.update({LAN: None}),
            lambda: setattr(self.nas, "answers", lambda _: b""),
            lambda: setattr(self.nas, "answers", lambda _: EVENTS),
        ]
        for stage in stages:
            stage()
            peer = self.start()
            waiting = peer.when_connected()
            closed = peer.close()
            self.net.flush()
            self.successResultOf(closed)
            self.failureResultOf(waiting, NotConnected)
            self.assertEqual(self.nas.live, [])
            self.assertEqual(self.net.clock.getDelayedCalls(), [])
            self.net.places[LAN] = self.nas
            self.assert_stops()

    def test_slow_answer(self) -> None:
        """A connected peer that never answers a request doesn't hold it for ever."""
        self.nas.answers = lambda t: lifeline(t) if t == b"/events" else b""
        peer = self.start()
        asking = peer.request(b"GET", "/slow")
        for _ in range(3):
            self.nas.calls[0].say(COMMENT)
            self.net.advance(20)
        error = self.failureResultOf(asking, RequestFailed).value
        self.assertIn("no answer in 60 s", str(error))
        self.assertTrue(peer.connected)


class UpdateTests(PeerTests):
    """A new record of a peer that is being called."""

    def update(self, *hints: str, **changes: Any) -> None:
        """Give the broker a new record."""
        self.broker.update([evolve(record(self.nas.node, *hints), **changes)])
        self.net.flush()

    def test_unchanged(self) -> None:
        """The same record again changes nothing."""
        self.start()
        self.update(LAN)
        self.assertEqual(len(self.net.dials), 1)

    def test_route_still_there(self) -> None:
        """A connection outlives a new announcement that keeps its route."""
        peer = self.start()
        self.update(OTHER, LAN, nickname="box")
        self.assertTrue(peer.connected)
        self.assertEqual(len(self.net.dials), 1)
        self.assertIs(self.broker.peer("box"), peer)

    def test_route_gone(self) -> None:
        """A connection over a route that is refused now is cut."""
        peer = self.start()
        self.net.places[OTHER] = self.nas
        self.update(OTHER)
        self.net.advance(0.25)
        self.assertTrue(peer.connected)
        self.assertEqual([text for _, text in self.net.dials], [LAN, OTHER])
        self.assertEqual([call.over for call in self.nas.calls], [True, False])
        self.update(OTHER, local=Local(tcp="off"), local_source="override.yaml:3")
        self.assertEqual(self.nas.live, [])
        self.assertFalse(peer.connected)

    def test_identity_changed(self) -> None:
        """A connection whose Tub would be certified otherwise is made anew."""
        self.start()
        self.update(LAN, own=False)
        self.net.advance(0.25)
        self.assertEqual(len(self.harbour.tubs), 2)

    def test_new_place(self) -> None:
        """A new announcement is dialled at once, whatever the backoff was."""
        self.net.places[LAN] = ConnectionRefusedError()
        peer = self.start()
        self.net.advance(300)
        self.net.places[OTHER] = self.nas
        self.update(OTHER, LAN)
        self.assertTrue(peer.connected)

    def test_new_place_while_connecting(self) -> None:
        """An attempt at old places is given up for new ones."""
        self.net.places[LAN] = None
        peer = self.start()
        self.net.places[OTHER] = self.nas
        self.update(OTHER)
        self.net.advance(0.25)
        self.assertEqual(self.net.cancelled, [LAN])
        self.assertTrue(peer.connected)

    def test_ignored(self) -> None:
        """An ignored peer is cut and never called, until it is no longer ignored."""
        peer = self.start()
        waiting_for_nothing = self.broker.peer("nas").when_connected()
        self.successResultOf(waiting_for_nothing)
        self.update(LAN, ignored="override.yaml:3")
        self.assertEqual(self.nas.live, [])
        status = peer.status()
        self.assertEqual(status.state, "ignored")
        self.assertEqual(status.last_error, "override.yaml:3 says to ignore it")
        self.net.advance(120)
        self.assertEqual(len(self.net.dials), 1)
        self.failureResultOf(peer.request(b"GET", "/"), NotConnected)
        self.update(LAN)
        self.assertTrue(peer.connected)

    def test_told_by_the_user(self) -> None:
        """A hint of the user's own is dialled like any other."""
        hint = SourcedHint(Hint.parse(OTHER), "override.yaml:5", "override")
        self.net.places[OTHER] = self.nas
        peer = self.start(hints=(hint,))
        route = peer.status().route
        assert route is not None
        self.assertEqual(route.source, "override.yaml:5")

    def test_new_interface(self) -> None:
        """What this machine allows is asked before each attempt."""
        self.harbour.policy = Policy()
        cable = CABLE.replace("eth0", "*")
        self.net.places[CABLE] = self.nas
        peer = self.start(cable)
        self.assertEqual(peer.status().state, "refused")
        self.harbour.policy = Policy(interfaces=("eth0",))
        self.net.advance(1)
        self.assertTrue(peer.connected)
