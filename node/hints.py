"""Where this node can be called: its endpoints and interfaces as hints."""

import re
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

import ifaddr
from attrs import frozen

from protocols import hint
from protocols.card import HINTS
from protocols.errors import Malformed
from protocols.hint import ANY_INTERFACE, Hint

_ANY_IPV4 = IPv4Address(0)
_ANY_IPV6 = IPv6Address(0)
_NEAREST_FIRST = ("lan", "public", "link-local", "loopback")
_TCP = ("tcp", "tcp4", "tcp6")
_FIELD = re.compile(r"(?:[^:\\]|\\.)*")


@frozen
class Place:
    """A TCP port that listens.

    Attributes:
        host: an address; ``"0.0.0.0"`` and ``"::"`` stand for all of the
            interfaces, ``"::"`` for their IPv4 addresses too.
        port: 1 to 65535.
    """

    host: str
    port: int


def place_of_endpoint(text: str) -> Place | None:
    """Read a ``tcp:`` or ``tcp6:`` endpoint string (twisted.internet.endpoints).

    Returns:
        None for other kinds and for port 0, which tell nothing before they
        listen.
    """
    kind, named = _taken_apart(text)
    port = named.get("port", "")
    if kind not in _TCP or not is_port(text) or not port or int(port) == 0:
        return None
    anywhere = _ANY_IPV6 if kind == "tcp6" else _ANY_IPV4
    return Place(named.get("interface") or str(anywhere), int(port))


def is_port(text: str) -> bool:
    """Say whether an endpoint string, if it is one of TCP, has a port that can be."""
    kind, named = _taken_apart(text)
    port = named.get("port", "")
    return kind not in _TCP or (
        port.isascii() and port.isdigit() and len(port) < 6 and int(port) < 65536
    )


def _taken_apart(text: str) -> tuple[str, dict[str, str]]:
    """Give the kind of an endpoint string and its arguments by name."""
    kind, _, rest = text.partition(":")
    plain: list[str] = []
    named: dict[str, str] = {}
    for part in _fields(rest):
        key, equals, value = part.partition("=")
        if equals and key.isidentifier():
            named[key] = _unescape(value)
        else:
            plain.append(_unescape(part))
    if plain:
        named.setdefault("port", plain[0])
    return kind, named


def _fields(text: str) -> Iterator[str]:
    """Split at colons that no backslash precedes."""
    at = 0
    while at <= len(text):
        match = _FIELD.match(text, at)
        if match is None:
            return
        yield match[0]
        at = match.end() + 1


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def own_addresses() -> list[str]:
    """Ask the operating system for the addresses of all interfaces."""
    return [
        address.ip if isinstance(address.ip, str) else address.ip[0]
        for adapter in ifaddr.get_adapters()
        for address in adapter.ips
    ]


def interfaces() -> tuple[str, ...]:
    """The interfaces on which a link-local address can be called, by name."""
    found = {
        adapter.name: None
        for adapter in ifaddr.get_adapters()
        for address in adapter.ips
        if not isinstance(address.ip, str) and IPv6Address(address.ip[0]).is_link_local
    }
    return tuple(found)


def hints_of(places: Iterable[Place], addresses: Sequence[str]) -> tuple[Hint, ...]:
    """Say where listening ports can be called. Pure.

    A wildcard stands for the addresses of the interfaces, a link-local one for
    whatever interface the caller has; loopback appears only if there is
    nothing else. At most as many as a card takes, the nearest first.
    """
    found: dict[Hint, None] = {}
    for place in places:
        for address in _addresses(place, addresses):
            scoped = isinstance(address, IPv6Address) and address.is_link_local
            try:
                made = hint.tcp(
                    str(address), place.port, ANY_INTERFACE if scoped else None
                )
            except Malformed:
                continue  # an address that nobody could call
            found[made] = None
    ranked = sorted(found, key=lambda each: _NEAREST_FIRST.index(each.route_kind))
    away = [each for each in ranked if each.route_kind != "loopback"]
    return tuple((away or ranked)[:HINTS])


def _addresses(place: Place, own: Sequence[str]) -> Iterator[IPv4Address | IPv6Address]:
    try:
        host = ip_address(place.host.partition("%")[0])
    except ValueError:
        return
    if host == _ANY_IPV6:
        yield from map(ip_address, own)
    elif host == _ANY_IPV4:
        yield from (each for each in map(ip_address, own) if each.version == 4)
    else:
        yield host
