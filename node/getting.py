"""``wherry get``: from what the user typed to verified files where they belong."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from twisted.internet.defer import gatherResults
from twisted.internet.interfaces import IReactorTime

from broker.errors import NotConnected
from broker.peer import Peer, PeerStatus
from node import documents
from node.control import Document, GetRequest, Report
from node.errors import Failed, Unreachable
from node.faults import Fault, worst
from node.fetching import Fetched, InThread, Progress, fetch
from node.landing import Landing, Target
from node.listing import (
    Listing,
    NotFound,
    Offer,
    RemoteFile,
    is_id,
    remote_listing,
    select,
)
from node.stores.files import Entry, FileStore
from protocols.deferreds import starting
from protocols.fileid import FileID
from protocols.nodeid import NodeID

_CONNECT_S = 5.0
"""How long peers that are not connected yet are waited for, in seconds."""


def plan_targets(
    files: Sequence[RemoteFile], request: GetRequest
) -> list[tuple[RemoteFile, Target]]:
    """Say where each file goes. Looks at the disk only for ``-o`` that is a folder.

    One file keeps the last part of its name. A folder keeps its whole tree
    below its own name, or below the new one that the user gives it.
    """
    wanted = request.what.rstrip("/")
    whole = any(file.name != wanted and file.id.text != wanted for file in files)
    output = None if request.output is None else Path(request.output)
    into = output is not None and (
        (request.output or "").endswith("/") or os.path.isdir(output)
    )
    planned = []
    for file in files:
        name = file.name if whole else file.name.rpartition("/")[2]
        if output is None:
            target = Target(request.directory, name)
        elif into:
            target = Target(output, name)
        elif whole:
            target = Target(output.parent, output.name + name[len(wanted) :])
        else:
            target = Target(output.parent, output.name)
        planned.append((file, target))
    return planned


@starting
async def get(
    request: GetRequest,
    own: NodeID,
    store: FileStore,
    peers: Sequence[Peer],
    clock: IReactorTime,
    in_thread: InThread,
    report: Report,
) -> Document:
    """Fetch what the user wants, from this node's own store or from its peers.

    Args:
        request: what, and where to.
        own: this node.
        store: what this node holds.
        peers: whom to ask.
        clock: for every time limit.
        in_thread: runs what blocks.
        report: told how far it is.

    Returns:
        A Deferred that fires with the document of what was fetched; it fails
        with a `WherryError`. After a failure, or when it is cancelled, asking
        for the same again goes on from there.
    """
    held: Sequence[Offer] = ()
    if request.from_peer is None:
        held = await in_thread(matching, store, request.what)
    if request.from_peer is not None and not peers[0].connected:
        peers[0].nudge()
        await peers[0].when_connected(_CONNECT_S, attempts=1)
    files = await _find(request.what, peers, clock, (own, held))
    chosen = plan_targets(files, request)
    _make_output(request)
    sources = {peer.node: peer for peer in peers}
    total, before, done = sum(file.size for file, _ in chosen), 0, []
    for file, target in chosen:

        def progress(sofar: Progress, before: int = before) -> None:
            overall = {"done": before + sofar.done, "total": total}
            report(documents.fetch_progress(sofar) | overall)

        if own in file.holders:
            fetched = await _copy(store, file, target, request, in_thread, progress)
        else:
            fetched = await fetch(
                file,
                [sources[node] for node in file.holders],
                target,
                in_thread=in_thread,
                clock=clock,
                progress=progress,
                force=request.force,
                umask=request.umask,
            )
        before += file.size
        done.append(documents.fetched(file, fetched))
    return {"schema": 1, "files": done}


@starting
async def _find(
    wanted: str,
    peers: Sequence[Peer],
    clock: IReactorTime,
    held: tuple[NodeID, Sequence[Offer]],
) -> list[RemoteFile]:
    """Ask who is connected; only if nobody has it, wait for the others and ask them."""
    near = [peer for peer in peers if peer.connected]
    listing = await look(near, clock, held, wanted)
    try:
        return select(listing.files, wanted, held[0])
    except NotFound:
        asked = {peer.node for peer in near}
        far = [peer for peer in peers if peer.node not in asked]
        await settle(far, retry=True)
        late = await look(far, clock, held, wanted)
    try:
        return select(late.files, wanted, held[0])
    except NotFound as error:
        if faults := (*late.faults, *listing.faults):
            raise worst(faults, error.what) from None
        if not peers:
            raise Failed(error.what, "this node has no peers yet") from None
        raise


def matching(store: FileStore, wanted: str | None = None) -> list[Offer]:
    """List what the store holds: all of it, or what may be meant by a name or id."""
    if wanted is None:
        entries = _pages(store, None)
    elif is_id(wanted):
        entries = store.find(FileID(wanted))
    else:
        wanted = wanted.rstrip("/")
        entries = [*store.entries(name=wanted), *_pages(store, wanted)]
    return [Offer(each.id, each.name, each.size, each.media_type) for each in entries]


def _pages(store: FileStore, under: str | None) -> list[Entry]:
    entries: list[Entry] = []
    while page := store.entries(after=entries[-1].row if entries else 0, under=under):
        entries += page
    return entries


@starting
async def settle(peers: Sequence[Peer], *, retry: bool = False) -> None:
    """Give peers that are called for the first time a moment to connect.

    Args:
        peers: whom to wait for.
        retry: whether those that failed before get another try, now.
    """
    waiting = []
    for peer in peers:
        status = peer.status()
        first = status.state == "connecting" and status.last_error is None
        if retry and status.state in ("waiting", "refused"):
            peer.nudge()
        elif not first and not (retry and status.state == "connecting"):
            continue
        waiting.append(peer.when_connected(_CONNECT_S, attempts=1))
    for each in waiting:
        each.addErrback(lambda failure: failure.trap(NotConnected))
    await gatherResults(waiting)


@starting
async def look(
    peers: Sequence[Peer],
    clock: IReactorTime,
    held: tuple[NodeID, Sequence[Offer]],
    wanted: str | None = None,
) -> Listing:
    """List what this node and its connected peers hold.

    Args:
        peers: whom to ask; each that isn't connected makes a fault.
        clock: for the time limits.
        held: this node, and what it holds.
        wanted: only this id; or this name, and what is in the folder of this name.

    Returns:
        A Deferred that fires with the listing.
    """
    # Whoever gets lost while it is asked makes another fault.
    absent = [_absence(peer.status()) for peer in peers if not peer.connected]
    asked = [peer for peer in peers if peer.connected]
    listing = await remote_listing(asked, clock=clock, wanted=wanted, held=[held])
    return Listing(listing.files, (*absent, *listing.faults))


def _absence(status: PeerStatus) -> Fault:
    """Say why a peer isn't connected."""
    name = status.nickname or status.node.short
    why = status.last_error or "not connected"
    return Fault(Unreachable, why if why.startswith(name) else f"{name}: {why}")


@starting
async def _copy(
    store: FileStore,
    file: RemoteFile,
    target: Target,
    request: GetRequest,
    in_thread: InThread,
    progress: Callable[[Progress], None],
) -> Fetched:
    """Take a file from this node's own store, verified like any other."""
    opened = store.open(file.id)
    if opened is None:
        raise Failed(f"{file.name} is not in the store any more")
    landing = Landing(
        target, file.id, opened.leaves, force=request.force, umask=request.umask
    )
    try:
        await in_thread(landing.begin)
        while await in_thread(landing.look):
            pass
        for run in landing.missing():
            for index in run:
                await in_thread(_copy_leaf, landing, opened.fd, index)
                progress(
                    Progress(file.name, file.size, landing.have, 0, "", "fetching")
                )
        await in_thread(landing.finish)
    finally:
        landing.close()
        opened.close()
    return Fetched(target.path, file.size, landing.kept, 0, ())


def _copy_leaf(landing: Landing, fd: int, index: int) -> None:
    start, stop = landing.leaves.span(index)
    landing.write(index, os.pread(fd, stop - start, start))


def _make_output(request: GetRequest) -> None:
    """Make the folder that the user means by ``-o FOLDER/``."""
    if request.output is None or not request.output.endswith("/"):
        return
    folder = Path(request.output)
    try:
        folder.mkdir(mode=0o777 & ~request.umask, parents=True, exist_ok=True)
    except OSError as error:
        raise Failed(f"cannot make {folder}", os.strerror(error.errno or 0)) from None
