"""Tests of broker.calling: what follows a failure or a loss, and what is told."""

from itertools import pairwise
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionRefusedError
from twisted.trial.unittest import SynchronousTestCase

from broker.calling import MAX_DELAY_S, STEADY_S, backoff
from broker.errors import (
    Mistrusted,
    NotConnected,
    PeerRefusedUs,
    WrongKey,
)
from broker.generation import Credentials
from broker.http import read_body
from broker.merge import PeerRecord
from broker.peer import Peer
from override.override import Local
from protocols import certificates
from protocols.tls import CallerConnections
from protocols.tub import mint
from tests.broker.harbour import (
    COMMENT,
    EVENTS,
    answer,
    lifeline,
    record,
)
from tests.broker.peertests import LAN, OTHER, PeerTests
from tests.kit import DAY, House, today


class BackoffTests(SynchronousTestCase):
    """How long to wait after a failure."""

    @settings(deadline=None, max_examples=100)
    @given(st.integers(1, 10_000), st.integers())
    def test_bounds(self, failures: int, seed: int) -> None:
        """It grows to a minute and never beyond, and is never nothing."""
        delay = backoff(failures, Random(seed))
        self.assertLessEqual(delay, min(MAX_DELAY_S, 2.0 ** min(failures - 1, 99)))
        self.assertGreaterEqual(delay, 0.5)

    def test_jitter(self) -> None:
        """Two peers don't share a rhythm."""
        delays = {backoff(7, Random(seed)) for seed in range(100)}
        self.assertEqual(len(delays), 100)
        self.assertGreater(max(delays) - min(delays), 20)


class RefusalTests(PeerTests):
    """What the user is told when somebody refuses."""

    def error(self, connections: Any) -> NotConnected:
        """Call the nas with this TLS, and give the error."""
        self.broker._issuer = lambda _: Credentials(connections, "label")
        peer = self.start()
        failed = peer.when_connected(attempts=1)
        peer.nudge()
        self.net.flush()
        error = self.failureResultOf(failed, NotConnected).value
        assert isinstance(error, NotConnected)
        self.assertEqual(peer.status().state, "refused")
        self.assertEqual(peer.status().last_error, str(error))
        return error

    def test_wrong_key(self) -> None:
        """Another key is named, and nothing of ours was shown to it."""
        stranger = self.harbour.house.device()
        error = self.error(
            CallerConnections(
                self.harbour.caller.leaf(),
                stranger.node,
                lambda: self.nas.device.name("own"),
                self.harbour.house.ca,
            )
        )
        assert isinstance(error, WrongKey)
        self.assertEqual((error.expected, error.actual), (stranger.node, self.nas.node))
        self.assertIn("answered with another key", str(error))
        self.assertIn(self.nas.node.short, str(error))
        self.assertEqual([call.leaf for call in self.nas.calls], [None, None])

    def test_other_house(self) -> None:
        """The right key under another user's CA is not trusted."""
        error = self.error(
            CallerConnections(
                self.harbour.caller.leaf(),
                self.nas.node,
                lambda: self.nas.device.name("own"),
                House.new(today()).ca,
            )
        )
        self.assertIsInstance(error, Mistrusted)
        self.assertNotIsInstance(error, WrongKey)

    def test_our_certificate(self) -> None:
        """A refusal that comes after our handshake is told as what it is."""
        caller = self.harbour.caller
        for tub in (
            House.new(today()).device().leaf(),
            mint(None, None, today()),
            mint(caller.ca, caller.key, today() - 5 * DAY),
        ):
            error = self.error(caller.caller(self.nas.device, tub=tub))
            self.assertIsInstance(error, PeerRefusedUs)
            self.assertIn("refused us", str(error))
            self.assert_stops()

    def test_our_name_for_it(self) -> None:
        """A server name that it doesn't take is a refusal too."""
        error = self.error(
            CallerConnections(
                self.harbour.caller.leaf(),
                self.nas.node,
                lambda: "x.wherry.internal",
                self.harbour.house.ca,
            )
        )
        self.assertIsInstance(error, PeerRefusedUs)
        self.assertIn("clocks", str(error))

    def test_forbidden(self) -> None:
        """So is an HTTP status."""
        self.nas.answers = lambda _: answer(b"{}", status=b"403 Forbidden")
        error = self.error(self.harbour.caller.caller(self.nas.device))
        self.assertIsInstance(error, PeerRefusedUs)

    def test_reasons(self) -> None:
        """All failures are kept, and the refused routes with them."""
        self.net.places[OTHER] = ConnectionRefusedError()
        self.net.places[LAN] = None
        peer = self.start(LAN, OTHER, "tcp:127.0.0.1:1")
        failed = peer.when_connected(timeout=60, attempts=1)
        self.net.advance(10)
        self.assertNoResult(failed)
        self.net.places[LAN] = ConnectionRefusedError()
        self.net.advance(1)
        peer.update(
            record(self.nas.node, LAN, OTHER, "tcp:127.0.0.1:1", nickname="box")
        )
        self.net.advance(0.5)
        error = self.failureResultOf(failed, NotConnected).value
        assert isinstance(error, NotConnected)
        self.assertEqual(
            error.reasons,
            (
                (LAN, "connection refused"),
                (OTHER, "connection refused"),
                ("tcp:127.0.0.1:1", "it is this machine itself"),
            ),
        )
        self.assertIn("box can't be reached: tcp:192.168.1.9:1: connection", str(error))

    def test_nothing_allowed(self) -> None:
        """A peer that must not be called is refused, without a dial."""
        peer = self.start(local=Local(tcp="off"), local_source="override.yaml:7")
        self.net.advance(3)
        self.assertEqual(self.net.dials, [])
        self.assertEqual(peer.status().state, "refused")
        self.assertIn("override.yaml:7", peer.status().last_error or "")

    def test_issuer_fails(self) -> None:
        """No Tub, no call; the reason is logged once for us to mend."""

        def fail(_: PeerRecord) -> Credentials:
            raise ZeroDivisionError

        self.broker._issuer = fail
        peer = self.start()
        self.assertEqual(self.net.dials, [])
        self.assertIn("ZeroDivisionError", peer.status().last_error or "")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class ReconnectingTests(PeerTests):
    """Loss, backoff, and what resets it."""

    def down(self) -> None:
        """Nobody listens at the nas's place any more."""
        self.net.places[LAN] = ConnectionRefusedError()

    def test_at_once_with_a_fresh_tub(self) -> None:
        """A lost lifeline means a new generation at once, with a Tub of its own."""
        peer = self.start()
        first = self.harbour.tubs[0]
        self.keep(100)
        self.nas.drop()
        self.net.flush()
        self.assertTrue(peer.connected)
        self.assertEqual(len(self.net.dials), 2)
        self.assertEqual(len(self.harbour.tubs), 2)
        self.assertNotEqual(self.harbour.tubs[1].key, first.key)
        self.assertNotEqual(peer.status().credentials, first.label)
        leaves = [call.leaf for call in self.nas.calls]
        self.assertNotEqual(
            certificates.key_id(leaves[0]), certificates.key_id(leaves[1])
        )

    def keep(self, seconds: float) -> None:
        """Let time pass while the nas comments on its stream."""
        for _ in range(round(seconds / 25)):
            for call in self.nas.live:
                call.say(COMMENT)
            self.net.advance(25)

    def test_everything_goes_with_the_generation(self) -> None:
        """With the lifeline all connections of its Tub go, idle ones too."""
        peer = self.start()
        for _ in range(2):
            body = read_body(self.ask(peer), 100)
            self.net.flush()
            self.successResultOf(body)
        self.assertEqual(len(self.nas.live), 2)
        lifeline_call = self.nas.calls[0]
        assert lifeline_call.transport is not None
        lifeline_call.transport.loseConnection()
        self.net.flush()
        self.assertTrue(peer.connected)
        self.assertEqual([call.over for call in self.nas.calls], [True, True, False])
        keys = {certificates.key_id(call.leaf) for call in self.nas.calls}
        self.assertEqual(len(keys), 2)

    def ask(self, peer: Peer, path: str = "/x") -> Any:
        """Ask the nas, and give the answer's head."""
        asking = peer.request(b"GET", path)
        self.net.flush()
        return self.successResultOf(asking)

    def test_half_open(self) -> None:
        """A link on which nothing comes any more is given up within 30 s."""
        peer = self.start()
        self.net.cut = True
        self.net.advance(29)
        self.assertTrue(peer.connected)
        self.net.advance(1.5)
        self.assertFalse(peer.connected)
        self.assertIn("sent nothing for 30 s", peer.status().last_error or "")

    def test_backoff(self) -> None:
        """Attempts are made at growing intervals, to at most a minute, all different."""
        self.down()
        self.start()
        self.net.advance(600)
        times = [time for time, _ in self.net.dials]
        waits = [after - before for before, after in pairwise(times)]
        self.assertEqual(times[0], 0.0)
        for number, wait in enumerate(waits):
            self.assertLessEqual(wait, min(60.0, 2.0**number) + 0.25)
            self.assertGreaterEqual(wait, min(60.0, 2.0**number) / 2)
        self.assertGreater(len({round(w, 3) for w in waits[6:]}), 3)

    def test_next_attempt(self) -> None:
        """The status says when."""
        self.down()
        peer = self.start()
        left = peer.status().next_attempt_s
        assert left is not None
        self.assertEqual(peer.status().state, "waiting")
        self.net.advance(left + 0.25)
        self.assertEqual(len(self.net.dials), 2)

    def test_reset_by_success(self) -> None:
        """After a success the backoff begins anew."""
        self.down()
        peer = self.start()
        self.net.advance(120)
        self.net.places[LAN] = self.nas
        self.keep(75)
        self.assertTrue(peer.connected)
        self.down()
        count = len(self.net.dials)
        self.nas.drop()
        self.net.advance(1.5)
        self.assertGreaterEqual(len(self.net.dials), count + 2)

    def test_no_loop(self) -> None:
        """A peer that takes us in and drops us every time is not called in a loop."""
        self.nas.answers = lambda _: EVENTS + COMMENT + b"0\r\n\r\n"
        self.start()
        self.net.advance(60)
        self.assertLess(len(self.net.dials), 10)
        self.assertGreater(len(self.net.dials), 5)
        self.nas.answers = lifeline
        self.keep(60 + STEADY_S + 25)
        count = len(self.net.dials)
        self.nas.drop()
        self.net.flush()
        self.assertEqual(len(self.net.dials), count + 1)

    def test_nudge(self) -> None:
        """A call from the peer, or the user, has it called now and resets the backoff."""
        self.down()
        peer = self.start()
        self.net.advance(120)
        count = len(self.net.dials)
        peer.nudge()
        self.net.flush()
        self.assertEqual(len(self.net.dials), count + 1)
        left = peer.status().next_attempt_s
        assert left is not None
        self.assertLessEqual(left, 1.0)
        self.net.places[LAN] = self.nas
        peer.nudge()
        self.net.flush()
        self.assertTrue(peer.connected)
        count = len(self.net.dials)
        peer.nudge()
        self.net.flush()
        self.assertEqual(len(self.net.dials), count)

    def test_nudge_out_of_place(self) -> None:
        """Nudging a peer that isn't called does nothing."""
        peer = self.start(ignored="override.yaml:3")
        peer.nudge()
        self.net.advance(5)
        self.assertEqual(self.net.dials, [])

    def test_others_don_t_start_at_once(self) -> None:
        """The first call to a peer that is no own device waits a random while."""
        self.start(own=False)
        self.assertEqual(self.net.dials, [])
        self.net.advance(10)
        self.assertEqual(len(self.net.dials), 1)
        self.assertGreater(self.net.dials[0][0], 0.0)

    def test_policy_fails(self) -> None:
        """A policy that can't be asked is a failure like others, and is asked again."""
        peer = self.start()
        real, self.harbour.policy = self.harbour.policy, None  # type: ignore[assignment]
        self.nas.drop()
        self.net.flush()
        self.assertFalse(peer.connected)
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)
        self.harbour.policy = real
        self.net.advance(2)
        self.assertTrue(peer.connected)
