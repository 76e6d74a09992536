"""What can go wrong between us and a peer, in words for the user."""

import os
import socket
from collections.abc import Sequence

from OpenSSL import SSL
from twisted.internet import defer, error
from twisted.web.client import ResponseFailed, ResponseNeverReceived
from twisted.web.http import PotentialDataLoss

from broker.routes import NO_INTERFACE, Route
from protocols import tls
from protocols.errors import ProtocolError, excerpt
from protocols.nodeid import NodeID


class BrokerError(Exception):
    """Base of every error of this package."""


class UnknownPeer(BrokerError):
    """No peer has this nickname or node id.

    Attributes:
        name: what was asked for.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"no peer is called {excerpt(name)}")
        self.name = name


class RouteRefused(BrokerError):
    """A route that must not be dialled reached the dial point, or none may be."""


class NoTub(BrokerError):
    """An issuer's word that it has no identity for calling this peer."""


class HandshakeTimeout(BrokerError):
    """The other end took the connection and then did not speak TLS in time."""


class NoAnswer(BrokerError):
    """A connected peer took too long to answer."""


class NotEvents(BrokerError):
    """The peer answered ``/events`` with something else than a stream of events."""


class Silent(BrokerError):
    """Nothing came from the peer for longer than a live link is ever silent."""


class NotHTTP(BrokerError):
    """What came is no HTTP answer."""


class RequestFailed(BrokerError):
    """A request got no answer, or its answer broke off."""


class ResponseTooLarge(BrokerError):
    """A body is longer than its reader takes.

    Attributes:
        limit: how many bytes the reader takes.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"the answer is longer than {limit} bytes")
        self.limit = limit


class RaceFailed(BrokerError):
    """No route won.

    Attributes:
        failures: each route that was tried with what went wrong there, in the
            order of the failures.
    """

    def __init__(self, failures: Sequence[tuple[Route, BaseException]]) -> None:
        super().__init__("no route led to the peer")
        self.failures = tuple(failures)


class NotConnected(BrokerError):
    """There is no connection to a peer.

    Attributes:
        who: the peer, as the user calls it.
        reasons: each route with what went wrong there.
    """

    def __init__(
        self, who: str, why: str, reasons: Sequence[tuple[str, str]] = ()
    ) -> None:
        super().__init__(f"{who} {why}")
        self.who = who
        self.why = why
        self.reasons = tuple(reasons)


class Mistrusted(NotConnected):
    """Who answered has the peer's key, but a certificate that proves nothing."""


class WrongKey(Mistrusted):
    """Somebody else answered.

    Attributes:
        expected: whom we called.
        actual: who answered.
    """

    def __init__(
        self,
        who: str,
        problem: tls.WrongKey,
        reasons: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(who, explain(problem), reasons)
        self.expected: NodeID = problem.expected
        self.actual: NodeID = problem.actual


class PeerRefusedUs(NotConnected):
    """The peer answered and doesn't let us in."""


class TooLate(NotConnected):
    """There was no connection in time, and no failure either."""


class Barred(NotConnected):
    """This node itself may dial none of the routes that are known."""


class Denied(BrokerError):
    """The peer judged us and refused, in TLS or in HTTP."""


# Alerts by which a server that has seen our certificate says that it doesn't
# take it; OpenSSL puts "tlsv13 alert ", "ssl/tls alert " or the like before.
_ALERTS = {
    "unknown ca": "it does not know who certified us",
    "bad certificate": "it does not take our certificate",
    "certificate required": "it wants another certificate than ours",
    "certificate expired": "it takes our certificate for expired (compare the clocks)",
    "certificate unknown": "it does not take our certificate",
    "certificate revoked": "our certificate is revoked",
    "unsupported certificate": "it does not take our kind of certificate",
    "access denied": "it does not let us in",
    "decrypt error": "it does not take our certificate's signature",
    "handshake failure": "it does not take the name that we called it by "
    "(has it accepted its bundle? do the clocks agree?)",
    "unrecognized name": "it does not take the name that we called it by",
}


def alert(problem: SSL.Error) -> str | None:
    """Give the name of the TLS alert that ended a connection, if one did."""
    queue = problem.args[0] if problem.args else None
    if not isinstance(queue, list):
        return None
    for entry in queue:
        reason = str(entry[-1])
        if " alert " in reason:
            return reason.rpartition(" alert ")[2]
    return None


def unwrap(problem: BaseException) -> BaseException:
    """Find the cause inside of the wrappers that Twisted's HTTP client makes."""
    while reasons := getattr(problem, "reasons", None):
        inner = getattr(reasons[0], "value", None)
        if not isinstance(inner, BaseException):
            break
        problem = inner
    return problem


_WORDS: tuple[tuple[type[BaseException], str], ...] = (
    (error.ConnectionRefusedError, "connection refused"),
    (error.NoRouteError, "no route to host"),
    (error.DNSLookupError, "the name was not found"),
    (error.UnknownHostError, "the name was not found"),
    (socket.gaierror, "there is no such interface or name"),
    (error.ConnectBindError, "no local address to call from"),
    (error.TCPTimedOutError, "no answer"),
    (error.TimeoutError, "no answer"),
    (defer.CancelledError, "abandoned"),
    (error.ConnectingCancelledError, "abandoned"),
    (ResponseNeverReceived, "closed the connection without an answer"),
    (PotentialDataLoss, "the answer broke off"),
    (error.ConnectionDone, "closed the connection"),
    (error.ConnectionAborted, "the connection was cut"),
    (error.ConnectionLost, "the connection was lost"),
)


_EXPECTED: tuple[type[BaseException], ...] = (
    BrokerError,
    ProtocolError,
    SSL.Error,
    error.ConnectError,
    OSError,
    *(kind for kind, _ in _WORDS),
)


def judged(problem: BaseException) -> BaseException:
    """Unwrap, and recognise refusals in TLS and what is no HTTP."""
    cause = unwrap(problem)
    if isinstance(cause, SSL.Error) and alert(cause) in _ALERTS:
        return Denied(_ALERTS[alert(cause) or ""])
    if isinstance(problem, ResponseFailed) and not isinstance(cause, _EXPECTED):
        return NotHTTP("answered with something else than HTTP")
    return cause


def explain(problem: BaseException) -> str:
    """Say in a few words for the user what a failure means.

    No text of the peer's gets into it, except bounded and escaped.
    """
    problem = judged(problem)
    if isinstance(problem, tls.WrongKey):
        return (
            f"answered with another key (node id was {problem.expected.short}, "
            f"now {problem.actual.short})"
        )
    if isinstance(problem, RaceFailed):
        return "; ".join(explain(each) for _, each in problem.failures)
    if isinstance(problem, BrokerError | ProtocolError):
        return str(problem)
    for kind, words in _WORDS:
        if isinstance(problem, kind):
            return words
    if isinstance(problem, SSL.Error):
        return f"TLS failed ({excerpt(alert(problem) or _reason(problem))})"
    if isinstance(problem, error.ConnectError | OSError):
        return _system_words(problem)
    return f"failed unexpectedly ({type(problem).__name__})"


def is_expected(problem: BaseException) -> bool:
    """Whether a failure is one of a network or a peer, and none of ours."""
    if isinstance(problem, RaceFailed):
        return all(is_expected(each) for _, each in problem.failures)
    return isinstance(judged(problem), _EXPECTED)


def _reason(problem: SSL.Error) -> str:
    queue = problem.args[0] if problem.args else None
    return str(queue[-1][-1]) if isinstance(queue, list) and queue else "no reason"


def _system_words(problem: BaseException) -> str:
    """Give the system's words for an errno, wherever Twisted has put it."""
    number = getattr(problem, "osError", None) or getattr(problem, "errno", None)
    if isinstance(number, int):
        return os.strerror(number).lower()
    return f"can't connect ({excerpt(str(problem))})"


def summarize(
    who: str, problem: BaseException, routes: Sequence[Route]
) -> NotConnected:
    """Make the one error that a user sees of a failed attempt.

    Args:
        who: the peer, as the user calls it.
        problem: what the attempt ended in.
        routes: the plan; its refused routes are among the reasons.
    """
    failures: Sequence[tuple[Route, BaseException]] = ()
    if isinstance(problem, RaceFailed):
        failures = problem.failures
    reasons = [(str(route.hint), explain(each)) for route, each in failures]
    reasons += [(str(r.hint), r.reason) for r in routes if r.verdict == "refused"]
    causes = [judged(each) for _, each in failures] or [judged(problem)]
    for cause in causes:
        if isinstance(cause, tls.WrongKey):
            return WrongKey(who, cause, reasons)
    for cause in causes:
        if isinstance(cause, tls.BadServerCertificate):
            return Mistrusted(who, f"can't be trusted: {explain(cause)}", reasons)
    for cause in causes:
        if isinstance(cause, Denied):
            return PeerRefusedUs(who, f"refused us: {explain(cause)}", reasons)
    if reasons:
        why = "; ".join(f"{route}: {reason}" for route, reason in reasons)
        forbidden = all(reason != NO_INTERFACE for _, reason in reasons)
        if not failures and isinstance(problem, RaceFailed) and forbidden:
            return Barred(who, f"must not be called: {why}", reasons)
    elif isinstance(problem, RaceFailed):
        why = "nobody has said where it is"
    else:
        why = explain(problem)
    return NotConnected(who, f"can't be reached: {why}", reasons)
