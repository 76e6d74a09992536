"""What commands do without a running node, from the files of its directory.

Only imported when needed: reading keys and certificates takes its time.
"""

import platform
from collections.abc import Sequence
from typing import Any

from broker.merge import PeerRecord
from broker.routes import Policy, plan_routes
from node import announcing, documents
from node.configuration import Configuration, load_override
from node.directory import NodeDirectory
from node.errors import Failed
from node.hints import interfaces
from node.identity import Identity
from node.peersfile import load_peers
from node.settings import default_nickname, load_settings, new_settings
from override.document import DocumentError, dump
from override.override import FILE, Local, Override, parse_override
from protocols.card import Card
from protocols.errors import excerpt
from protocols.hint import ANY_INTERFACE


def make(
    directory: NodeDirectory,
    nickname: str | None,
    listen: Sequence[str],
    names: Sequence[str],
    now: float,
) -> bool:
    """Make a node unless there is one; say whether it was made."""
    if directory.exists():
        return False
    chosen = default_nickname(platform.node()) if nickname is None else nickname
    Identity.create(directory, new_settings(chosen, listen, names), now)
    return True


def card_of(directory: NodeDirectory) -> Card:
    """Make the card of a node that need not run."""
    settings = load_settings(directory)
    hints = announcing.hints_now(settings, None)
    return announcing.card_of(Identity.load(directory), settings, hints)


def known_peers(directory: NodeDirectory) -> list[dict[str, Any]]:
    """List peers.yaml; nobody is connected, since no node runs."""
    directory.require()
    return [
        {
            "node": peer.node.text,
            "nickname": peer.nickname,
            "kind": peer.kind,
            "state": "waiting",
            "route": None,
            "last_error": "the node is not running",
            "next_attempt_s": None,
            "last_seen": None,
        }
        for peer in load_peers(directory).known
    ]


def checked_override(directory: NodeDirectory, text: bytes | None = None) -> Override:
    """Read override.yaml strictly, or check what is to become it.

    Raises:
        Failed: it is wrong; says where.
    """
    directory.require()
    peers = load_peers(directory)
    if text is None:
        return load_override(directory, peers)
    try:
        return parse_override(text, FILE, peers.nicknames, peers.devices)
    except DocumentError as error:
        raise Failed(str(error)) from None


def explained(directory: NodeDirectory, name: str) -> dict[str, Any]:
    """Plan the routes to a peer as a node would, without one."""
    record = _record(Configuration.load(directory), name)
    own = card_of(directory).hints
    alone = all(hint.route_kind == "loopback" for hint in own)
    policy = Policy(interfaces(), loopback=alone)
    return documents.explained(record, plan_routes(record, policy), {})


def clause_of(directory: NodeDirectory, name: str) -> str:
    """Write what holds for a peer as a clause of override.yaml."""
    configuration = Configuration.load(directory)
    record = _record(configuration, name)
    clause = configuration.override.clause(record.node)
    # What override.yaml itself would refuse can't be in a clause.
    hints = [
        (hint.with_scope(ANY_INTERFACE) if hint.needs_scope else hint).text
        for hint in (sourced.hint for sourced in record.hints)
        if hint.route_kind != "unknown"
    ]
    said: dict[str, Any] = {"mode": clause.mode if clause else "extend"}
    if hints:
        said["announcement"] = {"hints": hints}
    if local := _local(record.local):
        said["local"] = local
    return dump({"peers": {record.nickname or record.node.text: said}}).rstrip()


def _local(local: Local) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if local.identity:
        said["identity"] = local.identity
    if local.tcp:
        said["routes"] = {"tcp": local.tcp}
    if local.prefer:
        said["prefer"] = list(local.prefer)
    return said


def _record(configuration: Configuration, name: str) -> PeerRecord:
    for record in configuration.records():
        if name in (record.nickname, record.node.text):
            return record
    raise Failed(f"no peer is called {excerpt(name)}", do="See: wherry peers")
