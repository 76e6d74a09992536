"""The JSON documents that commands print, made of our own values.

The running node and the commands that work without one both make them here, so
that a program can't tell which it was.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from node.units import size
from protocols.nodeid import NodeID

if TYPE_CHECKING:  # only names of types: a command needs one of these rooms, or none
    from broker.merge import PeerRecord
    from broker.peer import PeerStatus
    from broker.routes import Route
    from node.enrol import Admission
    from node.fetching import Fetched
    from node.fetching import Progress as FetchProgress
    from node.listing import Listing, RemoteFile
    from node.sharing import Shared, ShareProgress
    from node.stores.files import Entry
    from protocols.hint import Hint

Document = dict[str, Any]


def file_entry(entry: "Entry | RemoteFile") -> Document:
    """One name in a store."""
    return {
        "id": entry.id.text,
        "name": entry.name,
        "size": entry.size,
        "media_type": entry.media_type,
    }


def files(entries: Iterable["Entry"], node: NodeID) -> Document:
    """What one node holds, as ``wherry ls`` prints it."""
    held = [file_entry(entry) | {"holders": [node.text]} for entry in entries]
    return {"schema": 1, "files": held, "problems": []}


def share_progress(progress: "ShareProgress") -> Document:
    """How far a share is."""
    return {"name": progress.name, "done": progress.done, "total": progress.total}


def shared(outcome: "Shared") -> Document:
    """What a share came to."""
    return {
        "schema": 1,
        "files": [file_entry(entry) for entry in outcome.entries],
        "skipped": [{"path": each.path, "why": each.why} for each in outcome.skipped],
        "new_bytes": outcome.new_bytes,
    }


def fetch_progress(progress: "FetchProgress") -> Document:
    """How far one file is."""
    if progress.phase == "checking":
        note = "looking through what is there"
    else:
        note = f"from {progress.source}" if progress.source else ""
        if progress.resumed:
            note = f"{note}, resumed at {size(progress.resumed)}".removeprefix(", ")
    return {
        "name": progress.name,
        "done": progress.done,
        "total": progress.size,
        "note": note,
    }


def fetched(file: "RemoteFile", outcome: "Fetched") -> Document:
    """One file that stands, verified, where it was wanted."""
    return {
        "id": file.id.text,
        "name": file.name,
        "size": outcome.size,
        "path": str(outcome.path),
        "kept": outcome.kept,
        "resumed": outcome.resumed,
        "from": list(outcome.sources),
    }


def used(route: "Route") -> Document:
    """A route in use, or one that could be."""
    return {"hint": route.hint.text, "kind": route.kind, "source": route.source}


def explained(
    record: "PeerRecord", routes: Sequence["Route"], last: Mapping["Hint", str]
) -> Document:
    """What was decided about every hint of a peer.

    Args:
        record: the peer.
        routes: its plan.
        last: what calling each place last led to, where it was called.
    """
    return {
        "schema": 1,
        "node": record.node.text,
        "nickname": record.nickname,
        "routes": [
            {
                **used(each),
                "verdict": each.verdict,
                "reason": each.reason,
                "rank": each.rank,
                "last": last.get(each.hint),
            }
            for each in routes
        ],
    }


def admission(asked: "Admission") -> Document:
    """A device that asks to be admitted, with the words to compare."""
    return {
        "node": asked.node.text,
        "nickname": asked.nickname,
        "called": asked.called,
        "others": list(asked.others),
        "words": asked.words,
        "user_words": asked.user_words,
    }


def peer(record: "PeerRecord", status: "PeerStatus") -> Document:
    """A peer in the status."""
    return {
        "node": status.node.text,
        "nickname": status.nickname,
        "kind": "device" if record.own else "person" if record.nickname else None,
        "state": status.state,
        "route": used(status.route) if status.route else None,
        "last_error": status.last_error,
        "next_attempt_s": status.next_attempt_s,
        "last_seen": status.last_seen,
    }


def ping(
    record: "PeerRecord", status: "PeerStatus", routes: Sequence["Route"], rtt: float
) -> Document:
    """An answer of a peer.

    Args:
        record: the peer.
        status: by which route it answered, with which Tub.
        routes: its plan.
        rtt: how long it took, in seconds.
    """
    return {
        "schema": 1,
        "node": record.node.text,
        "nickname": record.nickname,
        "route": used(status.route) if status.route else None,
        "rtt_s": rtt,
        "identity": status.credentials,
        "tls": "TLS 1.3",
        "also": [
            used(each)
            for each in routes
            if each.verdict == "allowed"
            and (status.route is None or each.hint != status.route.hint)
        ],
    }


def listed(listing: "Listing") -> Document:
    """What several nodes hold, as ``wherry ls`` prints it."""
    held = [
        file_entry(each) | {"holders": [node.text for node in each.holders]}
        for each in listing.files
    ]
    problems = [fault.text for fault in listing.faults]
    return {"schema": 1, "files": held, "problems": problems}
