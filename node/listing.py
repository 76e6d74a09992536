"""What the connected peers hold: asked for page by page, believed by halves."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol
from urllib.parse import quote

from attrs import field, frozen
from twisted.internet.defer import CancelledError, Deferred, FirstError, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IResponse

from broker.errors import NoAnswer, explain, is_expected
from broker.http import discard, read_body
from node.errors import Failed
from protocols.deferreds import starting
from protocols.errors import Malformed, excerpt
from protocols.fileid import MAX_SIZE, FileID
from protocols.filename import check_name
from protocols.nodeid import NodeID
from protocols.strictjson import read_object

_PAGE = 250  # entries; with names of full length they fit into the next limit
_PAGE_BYTES = 4 << 20
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,100}/[A-Za-z0-9!#$&^_.+-]{1,100}")


class Source(Protocol):
    """A peer that can be asked for files; ``broker.peer.Peer`` is one."""

    @property
    def nickname(self) -> str | None:
        """What the user calls it, if anything."""

    @property
    def node(self) -> NodeID:
        """Which node it is."""

    def request(
        self, method: bytes, path: str, headers: Mapping[str, str] = ...
    ) -> Deferred[IResponse]:
        """Ask; fires with the answer's head, or fails in bounded time."""


def called(source: Source) -> str:
    """Name a source for the user."""
    return source.nickname or source.node.short


class NotFound(Failed):
    """Nothing of that name or id is on the list."""


@frozen
class Offer:
    """One file as one peer tells of it. Nothing of it is proven but the id's shape."""

    id: FileID
    name: str = field(validator=lambda _, __, name: check_name(name))
    size: int
    media_type: str


@frozen
class RemoteFile:
    """A file, by id and name, and who holds it.

    Attributes:
        id: what its content must prove to be.
        name: safe to join to a folder, but chosen by a peer.
        size: in bytes; what the first holder says.
        media_type: what the first holder says.
        holders: in the order in which they were asked.
    """

    id: FileID
    name: str
    size: int
    media_type: str
    holders: tuple[NodeID, ...]


@frozen
class Listing:
    """What was found.

    Attributes:
        files: sorted by name.
        problems: a line for each peer whose list is missing or not whole.
    """

    files: tuple[RemoteFile, ...]
    problems: tuple[str, ...] = ()


@starting
async def remote_listing(
    peers: Sequence[Source],
    *,
    clock: IReactorTime,
    name: str | None = None,
    held: Sequence[tuple[NodeID, Sequence[Offer]]] = (),
    timeout_s: float = 20.0,
    most_files: int = 200_000,
) -> Listing:
    """Ask peers what they hold, all at the same time.

    Args:
        peers: whom to ask.
        clock: for the time limit.
        name: only files of this name, and those in the folder of this name.
        held: what is known already; comes first.
        timeout_s: how long one peer may take for one page, in seconds.
        most_files: how many entries of one peer are looked at.

    Returns:
        A Deferred that fires with the listing. A peer that fails only adds a
        problem to it. Cancelling it ends all requests.
    """
    queries = [""]
    if name is not None:
        plain = quote(name, safe="")
        queries = [f"&name={plain}", f"&under={plain}"]
    asked = [_ask(peer, queries, clock, timeout_s, most_files) for peer in peers]
    try:
        answers = await gatherResults(asked, consumeErrors=True)
    except FirstError as first:  # cancelled, or a mistake of ours
        first.subFailure.raiseException()
    offers: list[tuple[NodeID, Sequence[Offer]]] = list(held)
    problems: list[str] = []
    for peer, (offered, faults) in zip(peers, answers, strict=True):
        offers.append((peer.node, offered))
        problems += [_named(called(peer), fault) for fault in faults]
    return Listing(tuple(join(offers)), tuple(problems))


def _named(name: str, fault: str) -> str:
    """Say whose fault it is; the errors of the broker name the peer already."""
    return fault if fault.startswith(name) else f"{name}: {fault}"


def join(offers: Iterable[tuple[NodeID, Iterable[Offer]]]) -> list[RemoteFile]:
    """Make one list, sorted by name, of what several nodes hold."""
    found: dict[tuple[str, FileID], RemoteFile] = {}
    for node, held in offers:
        for offer in held:
            key = (offer.name, offer.id)
            known = found.get(key)
            holders = known.holders if known else ()
            if node not in holders:
                holders += (node,)
            first = known or offer
            found[key] = RemoteFile(
                offer.id, offer.name, first.size, first.media_type, holders
            )
    return [found[key] for key in sorted(found)]


def select(files: Sequence[RemoteFile], wanted: str) -> list[RemoteFile]:
    """Choose what the user means by a name, a folder's name or an id.

    Args:
        files: of a listing.
        wanted: what the user typed.

    Returns:
        One file, or all below one folder.

    Raises:
        Failed: nothing fits, or names are not unique, with their ids.
    """
    wanted = wanted.rstrip("/")
    by_id = [file for file in files if file.id.text == wanted]
    if by_id:
        return by_id[:1]
    exact = [file for file in files if file.name == wanted]
    below = [file for file in files if file.name.startswith(wanted + "/")]
    if not exact and not below:
        raise NotFound(
            f"no connected peer has {excerpt(wanted)}",
            do="See what there is: wherry ls",
        )
    if exact and below:
        raise Failed(
            f"{wanted} is both a file and a folder",
            f"the file is {exact[0].id}",
            "Say which by the file's id, or fetch the folder's files one by one.",
        )
    names: dict[str, list[FileID]] = {}
    for file in exact or below:
        names.setdefault(file.name, []).append(file.id)
    for name, ids in names.items():
        if len(ids) > 1:
            raise Failed(
                f"{len(ids)} files are called {name}",
                ", ".join(id.text for id in ids),
                "Fetch the one you mean by its id.",
            )
    return exact or below


@starting
async def _ask(
    peer: Source,
    queries: Sequence[str],
    clock: IReactorTime,
    timeout_s: float,
    most_files: int,
) -> tuple[list[Offer], list[str]]:
    """Get all that one peer offers, and what was wrong with it."""
    offers: list[Offer] = []
    faults: list[str] = []
    for query in queries:
        after: int | None = 0
        while after is not None:
            try:
                document = await _page(peer, after, query, clock, timeout_s)
                after = _read_page(document, after, offers, faults)
            except CancelledError:
                raise
            except Exception as problem:
                if not is_expected(problem):
                    raise
                return offers, [*faults, explain(problem)]
            if len(offers) > most_files:
                return offers, [*faults, f"only {most_files} of its files are listed"]
    return offers, faults


@starting
async def _page(
    peer: Source, after: int, query: str, clock: IReactorTime, timeout_s: float
) -> dict[str, object]:
    path = f"/files/?after={after}&limit={_PAGE}{query}"
    response = await peer.request(b"GET", path, {"Accept": "application/json"})
    if response.code != 200:
        discard(response)
        raise Malformed("list of files", f"the answer is {response.code}")
    reading = read_body(response, _PAGE_BYTES)
    reading.addTimeout(timeout_s, clock, _too_slow)
    return read_object(await reading, _PAGE_BYTES, "list of files")


def _too_slow(_: object, seconds: float) -> None:
    raise NoAnswer(f"did not send its list of files in {seconds:g} s")


def _read_page(
    document: Mapping[str, object], after: int, offers: list[Offer], faults: list[str]
) -> int | None:
    """Take a page's entries; give the number to go on after, if there are more."""
    files, following = document.get("files"), document.get("next")
    if not isinstance(files, list) or len(files) > _PAGE:
        raise Malformed("list of files", "a page holds no list, or too long a one")
    for member in files:
        try:
            offers.append(_offer(member))
        except Malformed as problem:
            if len(faults) < 3:
                faults.append(f"a file was left out: {problem.why}")
    if following is None:
        return None
    if type(following) is not int or not files or not after < following < 1 << 63:
        raise Malformed("list of files", "its pages don't go forward")
    return following


def _offer(member: object) -> Offer:
    if not isinstance(member, dict):
        raise Malformed("list of files", "an entry is not an object")
    id, name, size = member.get("id"), member.get("name"), member.get("size")
    media_type = member.get("media_type")
    if not isinstance(id, str) or not isinstance(name, str):
        raise Malformed("list of files", "an entry has no id or no name")
    if type(size) is not int or not 0 <= size <= MAX_SIZE:
        raise Malformed("list of files", "an entry has no proper size")
    if not isinstance(media_type, str) or not _MEDIA_TYPE.fullmatch(media_type):
        media_type = "application/octet-stream"
    return Offer(FileID(id), name, size, media_type)
