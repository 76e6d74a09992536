"""Plan the routes of a peer: which may be dialled, in which order, and why. Pure."""

from collections.abc import Iterator
from typing import Final, Literal

from attrs import evolve, frozen

from broker.merge import PeerRecord, SourcedHint
from protocols.hint import ANY_INTERFACE, Hint, RouteKind

ORDER: Final[tuple[RouteKind, ...]] = (
    "loopback",
    "link-local",
    "lan",
    "public",
    "tor",
    "via",
    "unknown",
)
"""Kinds of routes, best first, where the user says nothing."""

NO_INTERFACE: Final = "no interface is up"
"""Why a link-local hint can't be dialled just now; nobody forbids it."""

_PRIVATE: Final = ("loopback", "link-local", "lan")


@frozen
class Policy:
    """What this machine allows.

    Attributes:
        interfaces: names of the interfaces that are up, for link-local hints
            that are to be tried on every one.
        loopback: whether this very machine may be called on the word of others:
            only if our own card has nothing better either.
        handled: the kinds of hints for which there are handlers.
    """

    interfaces: tuple[str, ...] = ()
    loopback: bool = False
    handled: frozenset[str] = frozenset({"tcp"})


@frozen
class Route:
    """One way to a peer, or why it is none.

    Attributes:
        hint: where to call; its interface is filled in.
        kind: how far away that is.
        verdict: whether it may be dialled.
        reason: why not, for the user; ``""`` if it may.
        source: where the hint came from.
        rank: 1 for the first to be dialled; None if refused.
    """

    hint: Hint
    kind: RouteKind
    verdict: Literal["allowed", "refused"]
    reason: str
    source: str
    rank: int | None = None


def plan_routes(record: PeerRecord, policy: Policy) -> list[Route]:
    """Decide on every hint of a peer.

    Returns:
        The allowed routes in the order in which to dial them, ranked from 1,
        then the refused ones. The order is that of the user's ``prefer``, then
        `ORDER`; within one kind the user's own hints come first.
    """
    routes: dict[Hint, Route] = {}
    for sourced in record.hints:
        for route in _routes(sourced, record, policy):
            known = routes.get(route.hint)
            if known is None or known.verdict == "refused":
                routes[route.hint] = route
    preference = [*record.local.prefer, *ORDER]
    ordered = sorted(routes.values(), key=lambda r: preference.index(r.kind))
    allowed = [r for r in ordered if r.verdict == "allowed"]
    refused = [r for r in ordered if r.verdict == "refused"]
    return [evolve(r, rank=n) for n, r in enumerate(allowed, 1)] + refused


def _routes(
    sourced: SourcedHint, record: PeerRecord, policy: Policy
) -> Iterator[Route]:
    """Make a hint's routes: one, or one an interface."""
    hint, kind = sourced.hint, sourced.hint.route_kind
    why_not = _why_not(sourced, record, policy)
    if hint.scope != ANY_INTERFACE or why_not:
        verdict: Literal["allowed", "refused"] = "refused" if why_not else "allowed"
        yield Route(hint, kind, verdict, why_not, sourced.source)
        return
    for interface in policy.interfaces:
        scoped = hint.with_scope(interface)
        yield Route(scoped, kind, "allowed", "", sourced.source)


def _why_not(sourced: SourcedHint, record: PeerRecord, policy: Policy) -> str:
    """Say why a hint must not be dialled; ``""`` if it may."""
    hint, kind = sourced.hint, sourced.hint.route_kind
    if record.ignored:
        return f"{record.ignored} says to ignore this peer"
    if kind == "unknown":
        return f"{hint.kind}: is no kind of hint that this version knows"
    if hint.kind == "tcp" and record.local.tcp == "off":
        return f"{record.local_source} has tcp: off"
    if hint.kind not in policy.handled:
        return f"nothing handles {hint.kind}: in this version"
    if sourced.origin == "announced" and kind in _PRIVATE:
        return f"{kind} places count only from a card or override.yaml"
    if kind == "loopback" and sourced.origin != "override" and not policy.loopback:
        return "it is this machine itself"
    if hint.needs_scope:
        return "no interface is named: write the hint with % and one in override.yaml"
    if hint.scope == ANY_INTERFACE and not policy.interfaces:
        return NO_INTERFACE
    return ""
