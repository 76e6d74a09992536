"""What peers do wrong: in words that name them once, and with an exit code."""

from collections.abc import Iterable

from attrs import frozen
from twisted.web.iweb import IResponse

from broker.errors import (
    BrokerError,
    Denied,
    Mistrusted,
    NoAnswer,
    NotConnected,
    NotHTTP,
    PeerRefusedUs,
    RequestFailed,
    ResponseTooLarge,
    explain,
    is_expected,
    judged,
)
from broker.http import discard
from node.body import Stalled, WrongLength
from node.errors import (
    Failed,
    Integrity,
    TimedOut,
    Unreachable,
    Untrusted,
    WherryError,
)
from node.landing import WrongLeaf
from protocols.errors import ProtocolError
from protocols.tls import BadServerCertificate, WrongKey

_WORST_FIRST = (Integrity, Untrusted, TimedOut, Unreachable, Failed)
_REFUSED = (Denied, Mistrusted, PeerRefusedUs, WrongKey, BadServerCertificate)
_LIED = (WrongLeaf, WrongLength, NotHTTP, ResponseTooLarge, ProtocolError)


class BadAnswer(BrokerError):
    """A peer answered, but not with what it was asked for.

    Attributes:
        kind: the error of the user, if nobody else does better.
    """

    def __init__(self, kind: type[WherryError], why: str) -> None:
        super().__init__(why)
        self.kind = kind


@frozen
class Fault:
    """Why a peer did not give what it was, or should have been, asked for.

    Attributes:
        kind: the error of the user, if nobody else does better.
        text: a line that begins with the peer's name.
    """

    kind: type[WherryError]
    text: str


def fault_of(who: str, problem: Exception) -> Fault | None:
    """Tell a peer's fault from others.

    Args:
        who: the peer, as the user calls it.
        problem: what asking it ended in.

    Returns:
        The fault, or None if it is not the peer's.
    """
    kind = _kind(problem)
    return None if kind is None else Fault(kind, _text(who, problem))


def worst(faults: Iterable[Fault], what: str, do: str = "") -> WherryError:
    """Make one error of several faults: the worst says which, all are told.

    Args:
        faults: one or more.
        what: what did not work because of them.
        do: what to do about it.
    """
    told = list(dict.fromkeys(faults))
    kind = min((fault.kind for fault in told), key=_WORST_FIRST.index)
    return kind(what, "; ".join(fault.text for fault in told), do)


def check_status(response: IResponse, status: int, what: str) -> None:
    """Give an answer up that has another status than the one it should have.

    Args:
        response: the answer.
        status: what it should be.
        what: what was asked for, in words.

    Raises:
        BadAnswer: why it was given up.
    """
    if response.code == status:
        return
    discard(response)
    if response.code == 404:
        raise BadAnswer(Failed, f"does not have {what} (any more)")
    if response.code in {401, 403}:
        raise BadAnswer(Untrusted, f"does not let us have {what}")
    raise BadAnswer(Unreachable, f"answered {response.code}")


def _kind(problem: Exception) -> type[WherryError] | None:
    if isinstance(problem, BadAnswer):
        return problem.kind
    failed = isinstance(problem, RequestFailed) and problem.__cause__
    cause = judged(failed or problem)
    if isinstance(cause, _REFUSED):
        return Untrusted
    if isinstance(cause, _LIED):
        return Integrity
    if isinstance(cause, Stalled | NoAnswer):
        return TimedOut
    if not isinstance(problem, WherryError) and is_expected(problem):
        return Unreachable
    return None


def _text(who: str, problem: Exception) -> str:
    if isinstance(problem, NotConnected | RequestFailed):
        return str(problem)  # it names the peer already
    if isinstance(problem, BadAnswer | Stalled | NoAnswer | WrongLength | WrongLeaf):
        return f"{who} {problem}"
    return f"{who}: {explain(problem)}"
