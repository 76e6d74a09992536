"""Hints: where to call a node, in the one spelling that others compare."""

import ipaddress
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, Literal, NoReturn

from attrs import frozen

from protocols.errors import Malformed, excerpt
from protocols.nodeid import NodeID

RouteKind = Literal["loopback", "link-local", "lan", "public", "tor", "via", "unknown"]

LIMIT: Final = 300
ANY_INTERFACE: Final = "*"

# All but printable ASCII, and what separates hints in a card.
_FOREIGN = re.compile(r"[^!-~]|[,?&#]")
_KIND = re.compile(r"[a-z][a-z0-9+.-]{0,31}")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
# inet_aton, and with it getaddrinfo, reads 127.1, 0177.0.0.1 and 0x7f000001 as
# addresses. They all end in a label like this, and no top-level domain does.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_INTERFACE = re.compile(r"[A-Za-z0-9_.@~+-]{1,15}")

_LAN: Final[tuple[IPv4Network | IPv6Network, ...]] = (
    IPv4Network("10.0.0.0/8"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv4Network("100.64.0.0/10"),
    IPv6Network("fc00::/7"),
    IPv6Network("fec0::/10"),
)
_THIS_NETWORK = IPv4Network("0.0.0.0/8")
_FUTURE_USE = IPv4Network("240.0.0.0/4")
_IPV4_COMPATIBLE = IPv6Network("::/96")


@frozen
class Hint:
    """One place where a node may be called; made by ``parse`` or ``tcp``.

    Attributes:
        text: the canonical spelling.
        kind: ``"tcp"``, ``"tor"``, ``"via"``, or one that this version does not
            know and keeps for those that do.
        host: name in lower case or address without brackets and scope, for tcp
            and tor.
        port: 1 to 65535, for tcp and tor.
        scope: the interface of an IPv6 link-local address; ``"*"`` stands for
            every interface.
        node: the peer in between, for via.
    """

    text: str
    kind: str
    host: str | None = None
    port: int | None = None
    scope: str | None = None
    node: NodeID | None = None

    @classmethod
    def parse(cls, text: str) -> "Hint":
        """Read ``tcp:HOST:PORT``, ``tor:NAME.onion:PORT``, ``via:NODEID``.

        Hosts and addresses may be spelled in any way and come out in one; an
        IPv4 address mapped into IPv6 comes out as the IPv4 address that a
        socket would use. Of an unknown kind everything is kept as it is.

        Raises:
            Malformed: not a hint, or one that can never be called.
            TypeError: ``text`` is not a str.
        """
        if not isinstance(text, str):
            raise TypeError(f"a hint must be str, not {type(text).__name__}")
        if len(text) > LIMIT:
            raise Malformed("hint", f"longer than {LIMIT} characters")
        if foreign := _FOREIGN.search(text):
            # Not the whole text: if it is a card with a typing error, what
            # follows is a secret.
            raise Malformed("hint", f"has {excerpt(foreign[0])}, which no hint has")
        kind, colon, rest = text.partition(":")
        if not colon or not rest or not _KIND.fullmatch(kind):
            _refuse(text, "is not of the form KIND:PLACE, such as tcp:HOST:PORT")
        if kind == "tcp":
            return _parse_tcp(text, rest)
        if kind == "tor":
            return _parse_tor(text, rest)
        if kind == "via":
            return cls(text, kind, node=NodeID(rest))
        return cls(text, kind)

    @property
    def route_kind(self) -> RouteKind:
        """How far away the place is, judged from the spelling alone."""
        if self.kind == "tor":
            return "tor"
        if self.kind == "via":
            return "via"
        if self.host is None:
            return "unknown"
        address = _address(self.host)
        return _name_kind(self.host) if address is None else _address_kind(address)

    @property
    def needs_scope(self) -> bool:
        """Whether it can't be called until somebody names an interface."""
        return self.scope is None and _is_scoped(self.host)

    def with_scope(self, scope: str) -> "Hint":
        """Give the same IPv6 link-local place on another interface.

        Raises:
            Malformed: no such interface name, or not a link-local address.
        """
        if self.host is None or self.port is None:
            _refuse(self.text, "has no address that could take an interface")
        return tcp(self.host, self.port, scope)

    def __str__(self) -> str:
        return self.text


def tcp(host: str, port: int, scope: str | None = None) -> Hint:
    """Make the hint for a TCP port at a name or an IPv4 or IPv6 address.

    Raises:
        Malformed: they make no hint that can be called.
    """
    place = host if scope is None else f"{host}%{scope}"
    return Hint.parse(f"tcp:[{place}]:{port}" if ":" in host else f"tcp:{place}:{port}")


def _refuse(text: str, why: str) -> NoReturn:
    raise Malformed("hint", f"{excerpt(text, 90)} {why}")


def _port(text: str, digits: str) -> int:
    if not _PORT.fullmatch(digits) or int(digits) > 65535:
        _refuse(text, "has no port from 1 to 65535 at its end")
    return int(digits)


def _name(text: str, host: str) -> str:
    name = host.lower()
    labels = name.split(".")
    if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)):
        _refuse(text, "has neither a host name nor an address as its host")
    if _NUMBER.fullmatch(labels[-1]):
        _refuse(text, "has a host that is not quite an IPv4 address")
    return name


def _parse_tcp(text: str, rest: str) -> Hint:
    if rest.startswith("["):
        place, bracket, digits = rest[1:].partition("]:")
        if not bracket:
            _refuse(text, "is not of the form tcp:[ADDRESS]:PORT")
        return _parse_ipv6(text, place, _port(text, digits))
    place, _, digits = rest.rpartition(":")
    if ":" in place:
        _refuse(text, "needs brackets around its IPv6 address")
    port = _port(text, digits)
    address = _address(place)
    if address is None:
        host = _name(text, place)
        if host == "onion" or host.endswith(".onion"):
            # A resolver must never see such a name (RFC 7686).
            _refuse(text, "names an onion service: write tor: instead of tcp:")
    else:
        _check_callable(text, address)
        host = str(address)
    return Hint(f"tcp:{host}:{port}", "tcp", host, port)


def _parse_ipv6(text: str, place: str, port: int) -> Hint:
    literal, percent, scope = place.partition("%")
    try:
        address: IPv4Address | IPv6Address = IPv6Address(literal)
    except ValueError:
        _refuse(text, "has no IPv6 address between the brackets")
    address = _unmapped(address)
    _check_callable(text, address)
    host = str(address)
    if not percent:
        shown = f"[{host}]" if ":" in host else host
        return Hint(f"tcp:{shown}:{port}", "tcp", host, port)
    if not _is_scoped(host):
        _refuse(text, "has an interface, but is not an IPv6 link-local address")
    if scope != ANY_INTERFACE and not _INTERFACE.fullmatch(scope):
        _refuse(text, "has no interface name after the %")
    return Hint(f"tcp:[{host}%{scope}]:{port}", "tcp", host, port, scope)


def _parse_tor(text: str, rest: str) -> Hint:
    place, _, digits = rest.rpartition(":")
    port = _port(text, digits)
    host = _name(text, place)
    if not host.endswith(".onion"):
        _refuse(text, "has no name that ends in .onion")
    return Hint(f"tor:{host}:{port}", "tor", host, port)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _unmapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _is_scoped(host: str | None) -> bool:
    address = None if host is None else _address(host)
    return isinstance(address, IPv6Address) and address.is_link_local


def _check_callable(text: str, address: IPv4Address | IPv6Address) -> None:
    if address.is_unspecified or address in _THIS_NETWORK:
        _refuse(text, "has the unspecified address, which nobody can call")
    if address.is_multicast:
        _refuse(text, "has a multicast address, which nobody can call")
    compatible = address in _IPV4_COMPATIBLE and not address.is_loopback
    if compatible or address in _FUTURE_USE:
        _refuse(text, "has a reserved address, which nobody can call")


def _address_kind(address: IPv4Address | IPv6Address) -> RouteKind:
    if address.is_loopback:
        return "loopback"
    if address.is_link_local:
        return "link-local"
    return "lan" if any(address in network for network in _LAN) else "public"


def _name_kind(name: str) -> RouteKind:
    if name == "localhost" or name.endswith(".localhost"):
        return "loopback"
    return "lan" if "." not in name or name.endswith(".local") else "public"
