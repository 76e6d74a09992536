"""Which of the files that this node holds a caller may see."""

from collections.abc import Sequence

from node.stores.files import Entry, FileStore, OpenFile
from protocols.fileid import FileID
from protocols.principal import OwnDevice, Principal


class Shelf:
    """The store as callers see it: own devices see all of it, others nothing.

    Args:
        store: what is held.
    """

    def __init__(self, store: FileStore) -> None:
        self._store = store

    def entries(
        self,
        caller: Principal,
        after: int,
        limit: int,
        name: str | None,
        under: str | None,
    ) -> Sequence[Entry]:
        """List what a caller may see, by row, beyond the row ``after``."""
        if not isinstance(caller, OwnDevice):
            return ()
        return self._store.entries(after, limit, name, under)

    def named(self, caller: Principal, id: FileID) -> Sequence[Entry]:
        """List the names that a caller may see of one content."""
        return self._store.find(id) if isinstance(caller, OwnDevice) else ()

    def open(self, caller: Principal, id: FileID) -> OpenFile | None:
        """Open content; None if it isn't there, or not for this caller."""
        return self._store.open(id) if isinstance(caller, OwnDevice) else None
