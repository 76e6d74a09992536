"""The override file: the user's last word on how each peer is called.

It is read strictly or not at all: whoever turned a route off must never find
that a typing error turned it on again.
"""

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Final, Literal, cast, get_args

from attrs import evolve, frozen

from override.document import Node, check_version, parse
from protocols.card import HINTS
from protocols.errors import Malformed, excerpt
from protocols.hint import Hint
from protocols.nodeid import NodeID

FILE: Final = "override.yaml"

Mode = Literal["extend", "replace", "ignore"]
Preference = Literal["loopback", "link-local", "lan", "public", "tor", "via"]
TcpRoute = Literal["direct", "off"]

MODES: Final[tuple[Mode, ...]] = get_args(Mode)
PREFERENCES: Final[tuple[Preference, ...]] = get_args(Preference)

# What the file may say one day, each with the words that mean something today.
_ROUTES: Final = {"tcp": ("direct", "off"), "tor": ("off",), "via": ("off",)}
_LATER: Final = {"tcp": ("socks",), "tor": ("socks",), "via": ("on",)}
_IDENTITIES: Final = ("device",)
_LATER_IDENTITIES: Final = ("pairwise", "anonymous")

TEMPLATE: Final = """\
# How peers are called: this file has the last word. A change counts from the
# next start of the node. "wherry override check" says whether it is right; with a
# wrong one the node does not start.
version: 1

# For all peers that have no clause of their own, or whose clause is silent:
#
# defaults:
#   local:
#     prefer: [link-local, lan, public]   # the order is the priority
#
# For one peer, by its nickname in peers.yaml or its node id:
#
# peers:
#   laptop:
#     mode: extend       # call these places too ("replace": these alone,
#                        # "ignore": never call this peer)
#     announcement:
#       hints:
#         - tcp:[fe80::5c1%eth0]:8443     # link-local: name your interface,
#         - tcp:[fe80::5c1%*]:8443        # or * for every one
#         - tcp:192.168.1.20:8443
#     local:
#       identity: device                  # which certificate we call with
#       prefer: [link-local, lan]
#       routes: {tcp: direct}             # "off": never by direct TCP
"""


@frozen
class Local:
    """How calls are made; None and empty mean that nothing was said.

    Attributes:
        identity: who certifies the outbound Tub; ``device`` is for own devices.
        tcp: whether plain TCP may be dialled.
        prefer: kinds of routes, first ones first; the kinds left out come last.
    """

    identity: Literal["device"] | None = None
    tcp: TcpRoute | None = None
    prefer: tuple[Preference, ...] = ()

    def or_else(self, defaults: "Local") -> "Local":
        """Fill in from the defaults where nothing was said."""
        return Local(
            self.identity or defaults.identity,
            self.tcp or defaults.tcp,
            self.prefer or defaults.prefer,
        )


@frozen
class ClauseHint:
    """A hint and the line it stands in, as ``override.yaml:LINE``."""

    hint: Hint
    source: str


@frozen
class Clause:
    """What the file says about one peer.

    Attributes:
        node: the peer.
        mode: ``extend`` the known hints, ``replace`` them, or ``ignore`` the peer.
        hints: where to call it, in the order of the file.
        local: how; the defaults are filled in.
        source: the line where the clause begins, as ``override.yaml:LINE``.
    """

    node: NodeID
    mode: Mode
    hints: tuple[ClauseHint, ...]
    local: Local
    source: str


@frozen
class Override:
    """The whole file.

    Attributes:
        defaults: for peers that have no clause.
        clauses: the others', by node id.
    """

    defaults: Local
    clauses: Mapping[NodeID, Clause]

    def clause(self, node: NodeID) -> Clause | None:
        """Give what is said about a node, or None if only the defaults hold."""
        return self.clauses.get(node)

    def local(self, node: NodeID) -> Local:
        """Give how a node is called, by its clause or the defaults."""
        clause = self.clauses.get(node)
        return self.defaults if clause is None else clause.local


NOTHING: Final = Override(Local(), {})
"""What holds if there is no file."""


def parse_override(
    text: str | bytes,
    filename: str,
    nicknames: Mapping[str, NodeID],
    own: Collection[NodeID] | None = None,
) -> Override:
    """Read the file.

    An empty file is an error: it is what an editor leaves behind that was
    stopped while writing, and would silently turn every clause off.

    Args:
        text: what stands in it.
        filename: what to call it in errors and sources.
        nicknames: of the peers that are known.
        own: the own devices, if ``identity: device`` is to be refused for all
            others here.

    Raises:
        DocumentError: anything unknown, doubled, misplaced or not available.
    """
    root = parse(text, filename)
    if root.value is None:
        raise root.error("this file says nothing: begin it with version: 1")
    fields = root.fields("the override file", ("version", "defaults", "peers"))
    check_version(fields, root)
    defaults = Local()
    if (node := fields.get("defaults")) is not None:
        defaults = _defaults(node)
    clauses: dict[NodeID, Clause] = {}
    if (node := fields.get("peers")) is not None and node.value is not None:
        for key, value in node.pairs("peers"):
            peer = _peer(key, nicknames)
            if peer in clauses:
                raise key.error(
                    f"{excerpt(key.text)} is a peer that has a clause already,"
                    f" in line {clauses[peer].source.rpartition(':')[2]}"
                )
            clause = _clause(key, value, peer, own)
            clauses[peer] = evolve(clause, local=clause.local.or_else(defaults))
    return Override(defaults, clauses)


def _peer(key: Node, nicknames: Mapping[str, NodeID]) -> NodeID:
    if key.text in nicknames:
        return nicknames[key.text]
    try:
        return NodeID(key.text)
    except Malformed:
        near = get_close_matches(key.text, nicknames, n=1)
        tail = f": did you mean {near[0]}?" if near else ""
        raise key.error(
            f"{excerpt(key.text)} is neither a nickname in peers.yaml nor a node id{tail}"
        ) from None


def _defaults(node: Node) -> Local:
    fields = node.fields("defaults", ("local",))
    if (local := fields.get("local")) is None:
        return Local()
    found = _local(local)
    if found.identity is not None:
        raise local.error(
            "identity: device can't be a default, since not every peer is an own device"
        )
    return found


def _clause(
    key: Node, node: Node, peer: NodeID, own: Collection[NodeID] | None
) -> Clause:
    fields = node.fields("a clause", ("mode", "announcement", "local"))
    mode: Mode = "extend"
    if "mode" in fields:
        mode = cast(Mode, fields["mode"].choice("mode", MODES))
    hints: tuple[ClauseHint, ...] = ()
    if "announcement" in fields:
        stated = fields["announcement"].fields("announcement", ("hints",))
        if "hints" in stated:
            hints = _hints(stated["hints"])
    if mode == "replace" and not hints:
        raise node.error(
            "mode: replace needs announcement: {hints: [...]};"
            " to never call this peer write mode: ignore"
        )
    local = Local()
    if "local" in fields:
        local = _local(fields["local"])
        if local.identity == "device" and own is not None and peer not in own:
            raise fields["local"].error(
                f"identity: device is for own devices, and {excerpt(key.text)} is none"
            )
    return Clause(peer, mode, hints, local, key.source)


def _hints(node: Node) -> tuple[ClauseHint, ...]:
    found: dict[Hint, ClauseHint] = {}
    for item in node.items("hints"):
        text = item.string("a hint")
        try:
            hint = Hint.parse(text)
        except Malformed as error:
            raise item.error(str(error)) from None
        if hint.kind not in _ROUTES:
            known = ", ".join(f"{kind}:" for kind in _ROUTES)
            raise item.error(
                f"unknown kind of hint {excerpt(hint.kind)}: known are {known}"
            )
        if hint.needs_scope:
            raise item.error(
                f'"{hint.text}" needs an interface: write {hint.with_scope("eth0").text}'
                " with the name of yours, or %* for every one"
            )
        found.setdefault(hint, ClauseHint(hint, item.source))
    if len(found) > HINTS:
        raise node.error(f"more than {HINTS} hints")
    return tuple(found.values())


def _local(node: Node) -> Local:
    fields = node.fields("local", ("identity", "routes", "prefer"))
    identity: Literal["device"] | None = None
    tcp: TcpRoute | None = None
    if "identity" in fields:
        word = _word(fields["identity"], "identity", _IDENTITIES, _LATER_IDENTITIES)
        identity = cast(Literal["device"], word)
    if "routes" in fields:
        for kind, value in fields["routes"].fields("routes", _ROUTES).items():
            word = _word(value, kind, _ROUTES[kind], _LATER[kind])
            if kind == "tcp":
                tcp = cast(TcpRoute, word)
    prefer = _prefer(fields["prefer"]) if "prefer" in fields else ()
    return Local(identity, tcp, prefer)


def _prefer(node: Node) -> tuple[Preference, ...]:
    kinds: list[Preference] = []
    for item in node.items("prefer"):
        kind = cast(Preference, item.choice("a kind in prefer", PREFERENCES))
        if kind in kinds:
            raise item.error(f"{kind} stands in prefer a second time")
        kinds.append(kind)
    return tuple(kinds)


def _word(node: Node, what: str, known: tuple[str, ...], later: tuple[str, ...]) -> str:
    """Read a word, and tell the ones of a later version from typing errors."""
    if node.value in later:
        raise node.error(
            f"{what}: {node.text} is not available in this version;"
            f" it knows {' and '.join(known)}"
        )
    return node.choice(what, known)
