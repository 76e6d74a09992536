"""How long and how many: what one caller may cost a node."""

from collections.abc import Callable, Hashable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address

from attrs import frozen

_EVERYBODY = ("everybody",)


@frozen
class Limits:
    """The limits of the called side. Times are in seconds.

    Attributes:
        handshake_s: from the TCP connection to the end of the TLS handshake.
        headers_s: from the first byte of a request to its last one.
        idle_s: between two requests.
        stall_s: how long a caller may take nothing of what is sent to it.
        connections: at once, after the handshake.
        per_principal: of those, how many of one device or person.
        handshakes_per_address: unfinished handshakes of one address at once.
    """

    handshake_s: float = 10
    headers_s: float = 20
    idle_s: float = 120
    stall_s: float = 60
    connections: int = 512
    per_principal: int = 64
    handshakes_per_address: int = 16

    def waiting(self, host: str) -> dict[Hashable, int]:
        """Name what a handshake from ``host`` counts against, and how many may.

        A network that gives its hosts IPv6 gives each of them 2**64 addresses,
        so the address alone holds nobody back there.
        """
        most = self.handshakes_per_address
        address = _address(host)
        shares: dict[Hashable, int] = {address: most}
        if isinstance(address, IPv6Address) and not address.is_link_local:
            shares["network", address.packed[:8]] = 4 * most
        shares[_EVERYBODY] = max(4 * most, self.connections // 4)
        return shares

    def inside(self, principal: Hashable) -> dict[Hashable, int]:
        """Name what a connection of ``principal`` counts against."""
        return {_EVERYBODY: self.connections, principal: self.per_principal}


def _address(host: str) -> IPv4Address | IPv6Address | str:
    """Read an address, so that one written in two ways counts as one."""
    try:
        address = ip_address(host)
    except ValueError:
        return host  # the path of a Unix socket, say
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


class Places:
    """Counts the callers of one site, and says if there is room for one more."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._waiting: _Crowd = {}
        self._inside: _Crowd = {}

    def arrive(self, host: str, go: Callable[[], object]) -> "Place | None":
        """Take a place for a handshake.

        Where there is none left the oldest one has to go: a handshake takes
        milliseconds, so who has waited longest is the least likely to be honest,
        and nobody can keep others out by waiting.

        Args:
            host: who comes.
            go: called when this one has to go; its place is gone by then.
        """
        shares = self._limits.waiting(host)
        self._make_room(shares)
        place = Place(self._limits, self._inside, go)
        return place if place.take(self._waiting, shares) else None

    def _make_room(self, shares: Mapping[Hashable, int]) -> None:
        for key, most in shares.items():
            if len(there := self._waiting.get(key, {})) >= most:
                next(iter(there)).clear()


class Place:
    """One connection's place: first among the unfinished handshakes, then inside.

    Owner: the connection. It must `leave` in the end.
    """

    def __init__(
        self, limits: Limits, inside: "_Crowd", go: Callable[[], object]
    ) -> None:
        self._limits = limits
        self._inside = inside
        self._go = go
        self._crowd: _Crowd = {}
        self._keys: tuple[Hashable, ...] = ()

    def enter(self, principal: Hashable) -> bool:
        """Take a place inside, now that it is known who is calling.

        Returns:
            Whether there is one. If not, the place among the unfinished
            handshakes is kept, so that turning callers away is bounded too.
        """
        return self.take(self._inside, self._limits.inside(principal))

    def take(self, crowd: "_Crowd", shares: Mapping[Hashable, int]) -> bool:
        """Move to another crowd, unless one of the shares there is used up."""
        if any(len(crowd.get(key, ())) >= most for key, most in shares.items()):
            return False
        self.leave()
        self._crowd, self._keys = crowd, tuple(shares)
        for key in self._keys:
            crowd.setdefault(key, {})[self] = None
        return True

    def clear(self) -> None:
        """Give the place back because somebody else needs it."""
        self.leave()
        self._go()

    def leave(self) -> None:
        """Give the place back; a second time changes nothing."""
        for key in self._keys:
            del self._crowd[key][self]
            if not self._crowd[key]:
                del self._crowd[key]  # strangers' addresses must not pile up
        self._keys = ()


# Who is there for each of the shares, the oldest first (a dict keeps the order).
_Crowd = dict[Hashable, dict[Place, None]]
