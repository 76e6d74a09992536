"""What the connected peers hold: asked for page by page, believed by halves."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Protocol
from urllib.parse import quote

from attrs import define, evolve, field, frozen
from twisted.internet.defer import CancelledError, Deferred, FirstError, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IResponse

from broker.errors import NoAnswer
from broker.http import read_body
from node.errors import Failed, Integrity
from node.faults import BadAnswer, Fault, check_status, fault_of
from protocols.deferreds import starting
from protocols.errors import Malformed, excerpt
from protocols.fileid import MAX_SIZE, FileID
from protocols.filename import check_name
from protocols.nodeid import NodeID
from protocols.strictjson import read_object

_WHAT = "list of files"
_PAGE = 1000  # entries, the most that a peer gives at once
_PAGE_BYTES = 5 << 20  # a page has 1 MiB of names, or 1000 that are long
_BAD_ENTRIES = 3  # that are told of each peer
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
        holders: in the order in which they were asked, with the size that each
            of them says; those who don't lie say the same.
    """

    id: FileID
    name: str
    size: int
    media_type: str
    holders: Mapping[NodeID, int]


@frozen
class Listing:
    """What was found.

    Attributes:
        files: sorted by name.
        faults: of the peers whose list is missing or not whole.
    """

    files: tuple[RemoteFile, ...]
    faults: tuple[Fault, ...] = ()


@frozen
class Limits:
    """How much of one peer's list is taken, each limit for all of it.

    Attributes:
        seconds: how long it may take.
        entries: how many are looked at, good or bad.
        pages: how many are asked for.
        size: how many bytes the answers have.
    """

    seconds: float = 30.0
    entries: int = 100_000
    pages: int = 1000
    size: int = 16 << 20


_LIMITS = Limits()


@starting
async def remote_listing(
    peers: Sequence[Source],
    *,
    clock: IReactorTime,
    wanted: str | None = None,
    held: Sequence[tuple[NodeID, Sequence[Offer]]] = (),
    limits: Limits = _LIMITS,
) -> Listing:
    """Ask peers what they hold, all at the same time.

    Args:
        peers: whom to ask.
        clock: for the time limit.
        wanted: only this id; or this name, and what is in the folder of this name.
        held: what is known already; comes first.
        limits: for each peer.

    Returns:
        A Deferred that fires with the listing. A peer that fails, or goes
        beyond a limit, only adds a fault to it; what it told before is in it.
        Cancelling it ends all requests.
    """
    queries = _queries(wanted)
    told = [_Told(peer, limits) for peer in peers]
    try:
        await gatherResults(
            [each.ask(queries, clock) for each in told], consumeErrors=True
        )
    except FirstError as first:  # cancelled, or a mistake of ours
        first.subFailure.raiseException()
    files = join([*held, *((each.peer.node, each.offers) for each in told)])
    return Listing(tuple(files), tuple(chain(*(each.faults for each in told))))


def is_id(text: str) -> bool:
    """Say whether a user means an id and not a name."""
    try:
        FileID(text)
    except Malformed:
        return False
    return True


def _queries(wanted: str | None) -> list[str]:
    if wanted is None:
        return [""]
    if is_id(wanted):
        return [f"&id={wanted}"]
    plain = quote(wanted.rstrip("/"), safe="")
    return [f"&name={plain}", f"&under={plain}"]


def join(offers: Iterable[tuple[NodeID, Iterable[Offer]]]) -> list[RemoteFile]:
    """Make one list, sorted by name, of what several nodes hold."""
    found: dict[tuple[str, FileID], tuple[Offer, dict[NodeID, int]]] = {}
    for node, held in offers:
        for offer in held:
            _, holders = found.setdefault((offer.name, offer.id), (offer, {}))
            holders.setdefault(node, offer.size)
    return [
        RemoteFile(id, name, first.size, first.media_type, holders)
        for (name, id), (first, holders) in sorted(found.items(), key=itemgetter(0))
    ]


def select(
    files: Sequence[RemoteFile], wanted: str, own: NodeID | None = None
) -> list[RemoteFile]:
    """Choose what the user means by a name, a folder's name or an id.

    What looks like an id is never taken for a name, which any peer could give to
    any content. All who hold it count, by whatever name; of several names ours
    wins, then the one that most holders give it.

    Args:
        files: of a listing.
        wanted: what the user typed.
        own: this node.

    Returns:
        One file, or all below one folder.

    Raises:
        Failed: nothing fits, or names are not unique, with their ids.
    """
    wanted = wanted.rstrip("/")
    if is_id(wanted):
        return [_by_id(files, wanted, own)]
    exact = [file for file in files if file.name == wanted]
    below = [file for file in files if file.name.startswith(wanted + "/")]
    if not exact and not below:
        raise _not_found(wanted)
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


def _by_id(files: Sequence[RemoteFile], id: str, own: NodeID | None) -> RemoteFile:
    named = [file for file in files if file.id.text == id]
    if not named:
        raise _not_found(id)
    named.sort(key=lambda each: (own not in each.holders, -len(each.holders)))
    holders: dict[NodeID, int] = {}
    for each in named:
        holders |= {
            node: size for node, size in each.holders.items() if node not in holders
        }
    return evolve(named[0], holders=holders)


def _not_found(wanted: str) -> NotFound:
    return NotFound(
        f"no connected peer has {excerpt(wanted)}", do="See what there is: wherry ls"
    )


@define
class _Told:
    """What one peer has told so far, and what was wrong with it."""

    peer: Source
    limits: Limits
    offers: list[Offer] = field(factory=list)
    faults: list[Fault] = field(factory=list)
    entries: int = 0
    pages: int = 0
    size: int = 0

    @starting
    async def ask(self, queries: Sequence[str], clock: IReactorTime) -> None:
        """Hear the peer out, within the limits."""
        hearing = self._hear(queries)
        hearing.addTimeout(self.limits.seconds, clock, _too_slow)
        try:
            await hearing
        except CancelledError:
            raise
        except Exception as problem:
            fault = fault_of(called(self.peer), problem)
            if fault is None:
                raise
            self.faults.append(fault)

    @starting
    async def _hear(self, queries: Sequence[str]) -> None:
        for query in queries:
            after: int | None = 0
            while after is not None:
                self._check_limits()
                after = self._take(await self._page(after, query), after)

    def _check_limits(self) -> None:
        limits = self.limits
        if (
            self.entries >= limits.entries
            or self.pages >= limits.pages
            or self.size >= limits.size
        ):
            many = f"has a long list: only {self.entries} of its files are listed"
            raise BadAnswer(Failed, many)

    async def _page(self, after: int, query: str) -> dict[str, object]:
        path = f"/files/?after={after}&limit={_PAGE}{query}"
        accept = {"Accept": "application/json"}
        response = await self.peer.request(b"GET", path, accept)
        check_status(response, 200, "its list of files")
        data = await read_body(response, _PAGE_BYTES)
        self.pages += 1
        self.size += len(data)
        return read_object(data, _PAGE_BYTES, _WHAT)

    def _take(self, document: Mapping[str, object], after: int) -> int | None:
        """Take a page's entries; give the number to go on after, if it does."""
        files, following = document.get("files"), document.get("next")
        if not isinstance(files, list) or len(files) > _PAGE:
            raise Malformed(_WHAT, "a page holds no list, or too long a one")
        self.entries += len(files)
        for member in files:
            try:
                self.offers.append(_offer(member))
            except Malformed as problem:
                if len(self.faults) < _BAD_ENTRIES:
                    what = f"{called(self.peer)}: a file was left out: {problem.why}"
                    self.faults.append(Fault(Integrity, what))
        if following is None:
            return None
        if type(following) is not int or not files or not after < following < 1 << 63:
            raise Malformed(_WHAT, "its pages don't go forward")
        return following


def _too_slow(_: object, seconds: float) -> None:
    raise NoAnswer(f"did not send all of its list of files in {seconds:g} s")


def _offer(member: object) -> Offer:
    if not isinstance(member, dict):
        raise Malformed(_WHAT, "an entry is not an object")
    id, name, size = member.get("id"), member.get("name"), member.get("size")
    media_type = member.get("media_type")
    if not isinstance(id, str) or not isinstance(name, str):
        raise Malformed(_WHAT, "an entry has no id or no name")
    if type(size) is not int or not 0 <= size <= MAX_SIZE:
        raise Malformed(_WHAT, "an entry has no proper size")
    if not isinstance(media_type, str) or not _MEDIA_TYPE.fullmatch(media_type):
        media_type = "application/octet-stream"
    return Offer(FileID(id), name, size, media_type)
