"""Sharing files and folders: what is found under a path goes into the store."""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import Factory, define, evolve, frozen

from node.beneath import descend, open_file, open_folder
from node.errors import Failed
from node.landing import PART_SUFFIX
from node.stores.files import Batch, Entry, FileStore
from node.stores.incoming import NotShareable, SourceChanged
from protocols.errors import Malformed
from protocols.filename import check_name

_NODE = frozenset({"node.yaml", "private"})
"""What a folder with the private keys of a node has in it."""


@frozen
class Found:
    """A regular file that was found.

    Attributes:
        folder: the folder that holds the path which the user gave.
        name: what the file will be called; also where it lies in ``folder``.
        size: in bytes, when it was found.
    """

    folder: Path
    name: str
    size: int

    @contextmanager
    def opened(self) -> Iterator[int]:
        """Open it for reading, going through no link below ``folder``."""
        *parents, name = self.name.split("/")
        top = open_folder(self.folder)
        try:
            folder = descend(top, parents)
        finally:
            os.close(top)
        try:
            fd = open_file(folder, name)
        finally:
            os.close(folder)
        try:
            yield fd
        finally:
            os.close(fd)


@frozen
class Skipped:
    """Something under a path that is not shared, and why."""

    path: str
    why: str


@define
class Plan:
    """What a share will take, and what it won't."""

    files: list[Found] = Factory(list)
    skipped: list[Skipped] = Factory(list)


@frozen
class ShareProgress:
    """How far a share has come.

    Attributes:
        name: the file, or while looking around the folder, that is read now.
        done: bytes of all files so far.
        total: bytes that were found; 0 while still looking around.
        files_done: files so far.
        files: how many were found; 0 while still looking around.
    """

    name: str
    done: int = 0
    total: int = 0
    files_done: int = 0
    files: int = 0


@frozen
class Shared:
    """What a share came to.

    Attributes:
        entries: all that is shared now, also what was before.
        skipped: what was left out.
        new_bytes: how much of it the store did not hold before.
    """

    entries: tuple[Entry, ...]
    skipped: tuple[Skipped, ...]
    new_bytes: int


def share(
    store: FileStore,
    paths: Sequence[Path],
    progress: Callable[[ShareProgress], None],
) -> Shared:
    """Share files and whole folders.

    Blocks; call it in a thread.

    Args:
        store: where they go.
        paths: files or folders; relative ones are taken from this process's
            working directory.
        progress: called often (after each leaf), in this thread. Whatever it
            raises ends the share; what is visible by then stays.

    Raises:
        Failed: there is nothing to share, with the reason.
        StoreFull: the disk is full; nothing of this share was kept.
    """
    plan = walk(paths, store.root, lambda folder: progress(ShareProgress(folder)))
    skipped = list(plan.skipped)
    total = sum(found.size for found in plan.files)
    done = 0
    with store.batch() as batch:
        for number, found in enumerate(plan.files):
            sofar = ShareProgress(found.name, done, total, number, len(plan.files))
            progress(sofar)
            try:
                _take(batch, found, sofar, progress)
            except (SourceChanged, NotShareable) as error:
                skipped.append(_skipped(found.folder / found.name, str(error)))
            except OSError as error:
                skipped.append(_skipped(found.folder / found.name, _reason(error)))
            done += found.size
    if not batch.entries:
        why = "; ".join(f"{each.path}: {each.why}" for each in skipped[:3])
        raise Failed("nothing was shared", why or "there is no regular file in it")
    last = batch.entries[-1].name
    progress(ShareProgress(last, total, total, len(plan.files), len(plan.files)))
    return Shared(tuple(batch.entries), tuple(skipped), batch.new_bytes)


def _take(
    batch: Batch,
    found: Found,
    sofar: ShareProgress,
    progress: Callable[[ShareProgress], None],
) -> None:
    def report(bytes_read: int) -> None:
        progress(evolve(sofar, done=sofar.done + bytes_read))

    with found.opened() as fd:
        batch.add(fd, found.name, progress=report)


def walk(
    paths: Sequence[Path],
    avoid: Path,
    visit: Callable[[str], None] = lambda folder: None,
) -> Plan:
    """Find all regular files at and below some paths.

    Args:
        paths: files or folders.
        avoid: a folder that is never shared: the node directory, which holds
            the private keys.
        visit: called with each folder that is looked into.

    Raises:
        Failed: a path doesn't exist, or two would get the same name.
    """
    plan = Plan()
    tops: dict[str, Path] = {}
    for path in paths:
        top = _top(path)
        if tops.setdefault(top.name, top) != top:
            raise Failed(
                f"{top} and {tops[top.name]} would have the same name",
                do="Share them one at a time, or rename one.",
            )
    private = os.stat(avoid)
    for top in tops.values():
        if any(os.path.samestat(os.stat(up), private) for up in top.parents):
            plan.skipped.append(_skipped(top, "it belongs to the node itself"))
        else:
            _look(plan, top, private, visit)
    return plan


def _top(path: Path) -> Path:
    """Give the full path of what the user means; a link at its end stays one."""
    try:
        if path.name in {"", ".."}:
            full = path.resolve(strict=True)
        else:
            full = path.parent.resolve(strict=True) / path.name
        os.lstat(full)
    except OSError as error:
        raise Failed(f"{path} can't be shared", _reason(error)) from None
    if not full.name:
        raise Failed(f"{path} can't be shared", "it has no name")
    return full


def _look(
    plan: Plan, top: Path, private: os.stat_result, visit: Callable[[str], None]
) -> None:
    """Add what is at and below one path, in the order of the names."""
    waiting = [top.name]
    while waiting:
        name = waiting.pop()
        path = top.parent / name
        try:
            check_name(name)
            there = os.lstat(path)
            if stat.S_ISDIR(there.st_mode):
                if os.path.samestat(there, private):
                    plan.skipped.append(_skipped(path, "it belongs to the node itself"))
                    continue
                below = sorted(os.listdir(path), reverse=True)
                if set(below) >= _NODE:
                    plan.skipped.append(_skipped(path, "it is a node directory"))
                    continue
                visit(_shown(path))
                waiting += [f"{name}/{each}" for each in below]
            elif name.endswith(PART_SUFFIX):
                plan.skipped.append(_skipped(path, "it is an unfinished download"))
            elif stat.S_ISREG(there.st_mode):
                plan.files.append(Found(top.parent, name, there.st_size))
            else:
                plan.skipped.append(_skipped(path, _kind(there.st_mode)))
        except Malformed as error:
            plan.skipped.append(_skipped(path, error.why))
        except OSError as error:
            plan.skipped.append(_skipped(path, _reason(error)))


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "it is a link; share what it points to"
    return "it is not a regular file"


def _skipped(path: Path, why: str) -> Skipped:
    return Skipped(_shown(path), why)


def _shown(path: Path) -> str:
    """Spell a path in characters that can be written as UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
