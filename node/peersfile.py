"""The people and devices that this node knows: ``peers.yaml``."""

import base64
import datetime
from collections.abc import Collection, Mapping
from typing import Final, Literal, cast, get_args

from attrs import evolve, field, frozen
from cryptography import x509

from node.directory import NodeDirectory
from node.errors import Failed
from node.settings import check_nickname
from override.document import DocumentError, Node, check_version, dump, parse
from protocols.card import NAME_LENGTH, Card
from protocols.certificates import is_p256
from protocols.errors import Malformed, excerpt
from protocols.nodeid import NodeID

FILE: Final = "peers.yaml"

Kind = Literal["device", "person"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

_HEADING: Final = """\
# Paired devices and people. A nickname may be changed here while the node is
# stopped; it must be the only one of its kind.
"""


def suggested(card: Card) -> str:
    """Make a nickname of what a card's node calls itself."""
    try:
        return check_nickname(card.name or "")
    except Malformed:
        return card.node.text[:7]


def _check(_: object, __: object, nickname: str) -> None:
    check_nickname(nickname)


@frozen
class KnownPeer:
    """One of them.

    Attributes:
        nickname: what this user calls it; no other peer has it.
        kind: an own ``device``, or another ``person``.
        card: how to call it; holds its discovery secret.
        since: Unix time in seconds at which it came to be known.
        ca: a person's pairwise CA certificate as DER.
    """

    nickname: str = field(validator=_check)
    kind: Kind
    card: Card
    since: int
    ca: bytes | None = field(default=None, repr=False)

    @property
    def node(self) -> NodeID:
        """Its node id."""
        return self.card.node


@frozen
class Peers:
    """All of them, in the order in which they came to be known."""

    known: tuple[KnownPeer, ...] = ()

    def get(self, node: NodeID) -> KnownPeer | None:
        """Find a peer by its node id."""
        return next((peer for peer in self.known if peer.node == node), None)

    @property
    def nicknames(self) -> Mapping[str, NodeID]:
        """Who is meant by each nickname."""
        return {peer.nickname: peer.node for peer in self.known}

    def nicknames_of(self, nodes: Collection[NodeID]) -> tuple[str, ...]:
        """What these nodes are called, in the order in which they came to be known."""
        return tuple(peer.nickname for peer in self.known if peer.node in nodes)

    @property
    def devices(self) -> frozenset[NodeID]:
        """The own devices."""
        return frozenset(peer.node for peer in self.known if peer.kind == "device")

    def add(self, peer: KnownPeer, reserved: Collection[str] = ()) -> "Peers":
        """Take a peer in, or take what is new about one that is known.

        A known peer keeps its nickname, its kind and its place. A new one whose
        nickname is another's gets a number after it: ``desk-2``.

        Args:
            peer: its nickname may be another's.
            reserved: nicknames that no peer may have, such as our own.

        Raises:
            Failed: it is known as the other kind.
        """
        known = self.get(peer.node)
        if known is None:
            taken = {_folded(each) for each in (*self.nicknames, *reserved)}
            fresh = evolve(peer, nickname=_unique(peer.nickname, taken))
            return Peers((*self.known, fresh))
        if known.kind != peer.kind:
            raise Failed(
                f"{known.nickname} is known as a {known.kind}, not as a {peer.kind}",
                do="Take it out of peers.yaml first, while no node runs",
            )
        news = evolve(
            peer, nickname=known.nickname, since=known.since, ca=peer.ca or known.ca
        )
        return Peers(
            tuple(news if each.node == peer.node else each for each in self.known)
        )

    def text(self) -> str:
        """Write the file; it holds secrets."""
        return _HEADING + dump(
            {
                "version": 1,
                "peers": {each.node.text: _plain(each) for each in self.known},
            }
        )


def parse_peers(text: str | bytes, filename: str = FILE) -> Peers:
    """Read the file.

    Raises:
        DocumentError: it is wrong; says where.
    """
    root = parse(text, filename)
    fields = root.fields("the peers file", ("version", "peers"))
    check_version(fields, root)
    found: list[KnownPeer] = []
    lines: dict[str, int] = {}
    node = fields.get("peers")
    if node is not None and node.value is not None:
        for key, value in node.pairs("peers"):
            peer = _peer(key, value)
            name = _folded(peer.nickname)
            if name in lines:
                raise key.error(
                    f"the nickname {excerpt(peer.nickname)} is taken by the peer"
                    f" in line {lines[name]}"
                )
            lines[name] = key.line
            found.append(peer)
    return Peers(tuple(found))


def load_peers(directory: NodeDirectory) -> Peers:
    """Read the peers of a node; without a file nobody is known.

    Raises:
        Failed: the file is wrong; says where.
    """
    data = directory.read_file(FILE)
    if data is None:
        return Peers()
    try:
        return parse_peers(data)
    except DocumentError as error:
        raise Failed(str(error)) from None


def save_peers(directory: NodeDirectory, peers: Peers) -> None:
    """Write the peers of a node; call it with the lock held."""
    directory.write_file(FILE, peers.text().encode("utf-8"))


def _folded(nickname: str) -> str:
    """Nicknames that differ in case alone would be taken for each other."""
    return nickname.casefold()


def _unique(nickname: str, taken: Collection[str]) -> str:
    chosen, number = nickname, 1
    while _folded(chosen) in taken:
        number += 1
        tail = f"-{number}"
        chosen = nickname[: NAME_LENGTH - len(tail)].rstrip() + tail
    return chosen


def _plain(peer: KnownPeer) -> dict[str, str]:
    since = datetime.datetime.fromtimestamp(peer.since, datetime.UTC)
    plain = {
        "nickname": peer.nickname,
        "kind": peer.kind,
        "since": since.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "card": peer.card.text(),
    }
    if peer.ca is not None:
        plain["ca"] = base64.b64encode(peer.ca).decode("ascii")
    return plain


def _peer(key: Node, value: Node) -> KnownPeer:
    fields = value.fields("a peer", ("nickname", "kind", "since", "card", "ca"))
    for needed in ("nickname", "kind", "since", "card"):
        if needed not in fields:
            raise key.error(f"this peer has no {needed}")
    try:
        nickname = check_nickname(fields["nickname"].string("nickname"))
    except Malformed as error:
        raise fields["nickname"].error(str(error)) from None
    try:
        node = NodeID(key.text)
    except Malformed as error:
        raise key.error(str(error)) from None
    try:
        card = Card.parse(fields["card"].string("card"))
    except Malformed as error:
        raise fields["card"].error(str(error)) from None
    if card.node != node:
        raise fields["card"].error("this is the card of another node")
    kind = cast(Kind, fields["kind"].choice("kind", KINDS))
    ca = _ca(fields["ca"]) if "ca" in fields else None
    return KnownPeer(nickname, kind, card, _since(fields["since"]), ca)


def _since(node: Node) -> int:
    try:
        moment = datetime.datetime.fromisoformat(node.string("since"))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or moment.year < 1970:
        raise node.error("since must be a time such as 2026-01-31T12:00:00Z")
    return int(moment.timestamp())


def _ca(node: Node) -> bytes:
    try:
        data = base64.b64decode(node.string("ca").encode("ascii"), validate=True)
        key = x509.load_der_x509_certificate(data).public_key()
    except ValueError:  # bad base64 and what is not ASCII, too
        raise node.error("ca must be a certificate in base64") from None
    if not is_p256(key):
        raise node.error("ca must be a certificate over a P-256 key")
    return data
