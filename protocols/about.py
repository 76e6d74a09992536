"""What a node says about itself: who it is, and its signed announcement."""

from collections.abc import Callable, Sequence

from protocols.nodeid import NodeID
from protocols.principal import Principal, Stranger
from protocols.request import JSON, PeerRequest, Resource, anyone, not_found


def about(
    version: str,
    node: NodeID,
    services: Callable[[Principal], Sequence[str]],
    announcement: Callable[[], bytes | None],
) -> list[Resource]:
    """Make ``/`` and ``/announcement``.

    Args:
        version: of Wherry.
        node: who we are.
        services: what we offer to a caller; strangers are not told.
        announcement: gives our signed announcement, if there is one.
    """

    def root(request: PeerRequest) -> None:
        told: dict[str, object] = {"wherry": version, "node": node.text}
        if not isinstance(request.caller, Stranger):
            told["services"] = list(services(request.caller))
        request.send_json(told)

    def announced(request: PeerRequest) -> None:
        signed = announcement()
        if signed is None:
            raise not_found()
        request.send(signed, JSON)

    return [
        Resource("/", "GET HEAD", anyone, root),
        Resource("/announcement", "GET HEAD", anyone, announced),
    ]
