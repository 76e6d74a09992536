"""Tests of broker.errors: what the user is told."""

import errno
import socket
from typing import Any

from OpenSSL import SSL
from twisted.internet import defer, error
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseFailed, ResponseNeverReceived

from broker.errors import (
    Denied,
    Mistrusted,
    NoAnswer,
    NotConnected,
    PeerRefusedUs,
    RaceFailed,
    UnknownPeer,
    WrongKey,
    explain,
    is_expected,
    judged,
    summarize,
)
from broker.routes import Route
from protocols import tls
from protocols.hint import Hint
from protocols.nodeid import NodeID

ONE, TWO = NodeID.of_spki(b"1"), NodeID.of_spki(b"2")


def route(number: int, verdict: Any = "allowed", reason: str = "") -> Route:
    """A route."""
    hint = Hint.parse(f"tcp:10.0.0.{number}:1")
    return Route(hint, "lan", verdict, reason, "card", number)


def alerted(reason: str) -> SSL.Error:
    """What OpenSSL says of an alert."""
    return SSL.Error([("SSL routines", "", reason)])


def wrapped(problem: Exception) -> ResponseNeverReceived:
    """What Twisted's HTTP client makes of it."""
    return ResponseNeverReceived([Failure(problem)])


class ExplainTests(SynchronousTestCase):
    """One failure in words."""

    def test_words(self) -> None:
        """Every failure that a network makes has words of its own."""
        for problem, words in (
            (error.ConnectionRefusedError(), "connection refused"),
            (error.NoRouteError(), "no route to host"),
            (error.getConnectError((errno.EHOSTUNREACH, "x")), "no route to host"),
            (socket.gaierror(-2, "x"), "there is no such interface or name"),
            (OSError("x"), "can't connect ('x')"),
            (error.TimeoutError(), "no answer"),
            (error.DNSLookupError("peer.example"), "the name was not found"),
            (error.ConnectionLost(), "the connection was lost"),
            (wrapped(error.ConnectionDone()), "closed the connection"),
            (defer.CancelledError(), "abandoned"),
            (NoAnswer("gave no answer in 3 s"), "gave no answer in 3 s"),
            (
                OSError(errno.ENODEV, "No such device"),
                "no such device",
            ),
            (
                ResponseFailed([Failure(ValueError("x"))]),
                "answered with something else than HTTP",
            ),
            (alerted("internal error"), "TLS failed ('internal error')"),
            (SSL.Error(), "TLS failed ('no reason')"),
        ):
            self.assertEqual(explain(problem), words)
            self.assertTrue(is_expected(problem), problem)

    def test_unexpected(self) -> None:
        """What is our own fault says so, and is logged by who asks."""
        self.assertIn("KeyError", explain(KeyError("secret")))
        self.assertNotIn("secret", explain(KeyError("secret")))
        self.assertFalse(is_expected(KeyError()))
        self.assertFalse(is_expected(RaceFailed([(route(1), KeyError())])))

    def test_alerts(self) -> None:
        """A refusal by an alert is one, in whatever words OpenSSL has for it."""
        for reason in (
            "tlsv1 alert unknown ca",
            "tlsv13 alert certificate required",
            "ssl/tls alert handshake failure",
        ):
            self.assertIsInstance(judged(wrapped(alerted(reason))), Denied)

    def test_peer_text(self) -> None:
        """Nothing that comes from outside breaks the line or is endless."""
        shown = explain(alerted("x\n\x1b[31m" + "y" * 1000))
        self.assertTrue(shown.isprintable())
        self.assertLess(len(shown), 100)
        self.assertTrue(str(UnknownPeer("a\nb" * 1000)).isprintable())

    def test_another_key(self) -> None:
        """Both node ids are named, shortly."""
        self.assertEqual(
            explain(tls.WrongKey(ONE, TWO)),
            f"answered with another key (node id was {ONE.short}, now {TWO.short})",
        )


class SummarizeTests(SynchronousTestCase):
    """A whole attempt in one error."""

    def summarize(self, *problems: Exception) -> NotConnected:
        """An attempt in which the routes failed so."""
        failures = [(route(n), problem) for n, problem in enumerate(problems, 1)]
        refused = route(9, "refused", "override.yaml:7 has tcp: off")
        routes = [*(r for r, _ in failures), refused]
        return summarize("nas", RaceFailed(failures), routes)

    def test_reasons(self) -> None:
        """Each route has its reason, the refused ones too."""
        summary = self.summarize(error.ConnectionRefusedError(), error.TimeoutError())
        self.assertIs(type(summary), NotConnected)
        self.assertEqual(
            str(summary),
            "nas can't be reached: tcp:10.0.0.1:1: connection refused; "
            "tcp:10.0.0.2:1: no answer; "
            "tcp:10.0.0.9:1: override.yaml:7 has tcp: off",
        )

    def test_gravest_first(self) -> None:
        """Another key outweighs a bad certificate, that a refusal, that no answer."""
        refused = error.ConnectionRefusedError()
        denied = alerted("tlsv1 alert unknown ca")
        bad = tls.BadServerCertificate("its certificate has expired")
        wrong = tls.WrongKey(ONE, TWO)
        self.assertIs(type(self.summarize(refused, denied)), PeerRefusedUs)
        self.assertIs(type(self.summarize(refused, denied, bad)), Mistrusted)
        summary = self.summarize(refused, denied, bad, wrong)
        assert isinstance(summary, WrongKey)
        self.assertEqual((summary.expected, summary.actual), (ONE, TWO))
        self.assertEqual(len(summary.reasons), 5)

    def test_no_route(self) -> None:
        """A peer without any hint has a reason too."""
        summary = summarize("nas", RaceFailed([]), [])
        self.assertIn("nobody has said where", str(summary))
