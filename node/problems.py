"""What the user should know of and can mend: the problems of ``wherry status``."""

import datetime
from collections.abc import Sequence

from attrs import frozen

from node.configuration import Configuration
from node.usednames import FILE as USED_NAMES

_SOON_S = 30 * 86_400.0


@frozen
class Problem:
    """One of them: what is wrong, where, and what to do."""

    what: str
    where: str
    do: str


def find_problems(
    configuration: Configuration,
    changed: Sequence[str],
    names_failing: str | None,
    now: float,
) -> list[Problem]:
    """Look for what needs the user. Pure.

    Args:
        configuration: what the node runs with.
        changed: the user's files that have changed since the start.
        names_failing: why used server names can't be kept, if they can't.
        now: seconds since the epoch.
    """
    found = []
    identity = configuration.identity
    if identity.end - now < _SOON_S:
        day = datetime.datetime.fromtimestamp(identity.end, datetime.UTC).date()
        found.append(
            Problem(
                f"the certificate of this device ends on {day}",
                "private/server.pem",
                "renew it offline: wherry device request, admit, accept",
            )
        )
    if names_failing:
        found.append(
            Problem(
                f"used server names can't be kept: {names_failing}",
                USED_NAMES,
                "free some space",
            )
        )
    found += [
        Problem(
            f"{name} has changed since the start, and counts from the next one",
            name,
            "start again: wherry down, then wherry up",
        )
        for name in changed
    ]
    known = {peer.node for peer in configuration.peers.known}
    found += [
        Problem(
            f"{clause.source} names {node.short}, which is no peer of this node",
            clause.source,
            "take it out, or admit that device",
        )
        for node, clause in configuration.override.clauses.items()
        if node not in known
    ]
    return found
