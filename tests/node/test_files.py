"""Tests of node.stores.files and what it is made of."""

import os
import random
import sqlite3
import stat
import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from node.errors import Failed
from node.stores.durable import settle
from node.stores.files import FileStore
from node.stores.incoming import NotShareable, SourceChanged
from node.stores.index import StoreDamaged, StoreFull
from node.stores.leaffile import LeafReader, read_at
from protocols.errors import Malformed
from protocols.fileid import LEAF_SIZE, FileID
from tests.node.crashing import killed_after, killed_at, on_tiny_disk
from tests.protocols.test_fileid import leaves_of


class StoreCase(SynchronousTestCase):
    """A store in a folder of its own, and files beside it."""

    def setUp(self) -> None:
        self.base = Path(self.mktemp()).absolute()
        self.root = self.base / "node"
        self.root.mkdir(parents=True)
        self.store = self.reopened()

    def reopened(self) -> FileStore:
        """Open the store (again)."""
        store = FileStore(self.root)
        self.addCleanup(store.close)
        return store

    def file(self, name: str, content: bytes) -> Path:
        """Make a file outside of the store."""
        path = self.base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def on_disk(self) -> set[str]:
        """The ids of all content files, and the names of all unfinished ones."""
        files = self.root / "files"
        return {
            path.parent.name + path.name
            for path in files.glob("*/*")
            if path.parent.name != "incoming"
        } | {path.name for path in (files / "incoming").iterdir()}


class AddTests(StoreCase):
    """What goes in comes out."""

    def test_sizes(self) -> None:
        """Empty, one byte, around and at exact multiples of a leaf."""
        draw = random.Random(1)
        for size in (0, 1, LEAF_SIZE - 1, LEAF_SIZE, LEAF_SIZE + 1, 2 * LEAF_SIZE):
            content = draw.randbytes(size)
            entry = self.store.add(self.file(f"f{size}", content), f"f{size}")
            self.assertEqual(entry.id, leaves_of(content).id)
            self.assertEqual((entry.name, entry.size), (f"f{size}", size))
            opened = self.store.open(entry.id)
            assert opened is not None
            self.assertEqual(read_at(opened.fd, 0, size + 1), content)
            self.assertEqual(opened.leaves, leaves_of(content))
            self.assertEqual((opened.size, opened.name), (size, f"f{size}"))
            opened.close()
            opened.close()

    def test_layout(self) -> None:
        """Content lies at files/XX/REST, for the owner alone."""
        entry = self.store.add(self.file("a", b"hello"), "a.txt")
        path = self.root / "files" / entry.id.text[:2] / entry.id.text[2:]
        self.assertEqual(path.read_bytes(), b"hello")
        for each in (path, self.root / "files" / "index.sqlite"):
            self.assertEqual(stat.S_IMODE(each.stat().st_mode), 0o600)
        for folder in (path.parent, path.parent.parent):
            self.assertEqual(stat.S_IMODE(folder.stat().st_mode), 0o700)
        self.assertEqual(entry.media_type, "text/plain")

    def test_again(self) -> None:
        """The same content again costs nothing, and the same name no entry."""
        content = random.Random(2).randbytes(3 * LEAF_SIZE + 7)
        path = self.file("a", content)
        first = self.store.add(path, "a")
        before = self.on_disk()
        self.assertEqual(self.store.add(path, "a"), first)
        second = self.store.add(path, "b")
        self.assertEqual(second.id, first.id)
        self.assertNotEqual(second.row, first.row)
        self.assertEqual(self.on_disk(), before)
        self.assertEqual(self.store.find(first.id), [first, second])

    def test_nearly_the_same(self) -> None:
        """Same size and first leaf, but another file: both are kept."""
        one = bytes(2 * LEAF_SIZE)
        two = one[:-1] + b"x"
        first = self.store.add(self.file("a", one), "x")
        second = self.store.add(self.file("b", two), "x")
        self.assertNotEqual(first.id, second.id)
        self.assertEqual(second.id, leaves_of(two).id)
        self.assertEqual(self.store.entries(name="x"), [first, second])

    def test_twice_in_a_batch(self) -> None:
        """Equal files that come together are stored once."""
        paths = [self.file(name, b"same") for name in "abc"]
        with self.store.batch() as batch:
            for path in paths:
                with path.open("rb") as file:
                    batch.add(file.fileno(), path.name)
        self.assertEqual([entry.name for entry in batch.entries], ["a", "b", "c"])
        self.assertEqual(batch.new_bytes, 4)
        self.assertEqual(self.on_disk(), {batch.entries[0].id.text})

    def test_many(self) -> None:
        """More than a group at once: all become durable and visible, in order."""
        with self.store.batch() as batch:
            for number in range(600):
                path = self.file("one", b"%d" % number)
                with path.open("rb") as file:
                    batch.add(file.fileno(), f"top/{number}")
        names = [entry.name for entry in self.reopened().entries(limit=1000)]
        self.assertEqual(names, [f"top/{number}" for number in range(600)])
        self.assertEqual(len(self.on_disk()), 600)

    def test_sparse(self) -> None:
        """Holes stay holes, and are hashed as zeros without being read."""
        path = self.base / "sparse"
        size = 300 * LEAF_SIZE + 3
        with path.open("wb") as file:
            file.truncate(size)
            file.seek(100 * LEAF_SIZE + 5)
            file.write(b"data")
        entry = self.store.add(path, "sparse")
        stored = self.store.path(entry.id)
        self.assertEqual(stored.stat().st_size, size)
        self.assertLess(stored.stat().st_blocks * 512, 2 * LEAF_SIZE)
        self.assertEqual(entry.id, leaves_of(path.read_bytes()).id)

    def test_written_zeros(self) -> None:
        """Zeros that lie on the disk give the same id, and a hole in the store."""
        entry = self.store.add(self.file("zeros", bytes(2 * LEAF_SIZE)), "zeros")
        self.assertEqual(entry.id, leaves_of(bytes(2 * LEAF_SIZE)).id)
        self.assertEqual(self.store.path(entry.id).stat().st_blocks, 0)

    def test_progress(self) -> None:
        """It counts the bytes of the file, leaf by leaf."""
        path = self.file("a", random.Random(3).randbytes(2 * LEAF_SIZE + 1))
        seen: list[int] = []
        self.store.add(path, "a", progress=seen.append)
        self.assertEqual(seen, [LEAF_SIZE, 2 * LEAF_SIZE, 2 * LEAF_SIZE + 1])

    def test_given_up(self) -> None:
        """What progress raises ends the work, and nothing is left of it."""

        def stop(done: int) -> None:
            raise KeyboardInterrupt

        path = self.file("a", b"content")
        self.assertRaises(KeyboardInterrupt, self.store.add, path, "a", progress=stop)
        self.assertEqual(self.on_disk(), set())
        self.assertEqual(self.store.entries(), [])

    def test_changing_file(self) -> None:
        """A file that is written to meanwhile is refused, longer or shorter."""
        path = self.file("a", bytes(range(256)) * 8192)

        def grow(done: int) -> None:
            with path.open("ab") as file:
                file.write(b"more")

        def shrink(done: int) -> None:
            os.truncate(path, LEAF_SIZE + 1)

        for change in (grow, shrink):
            with self.assertRaises(SourceChanged):
                self.store.add(path, "a", progress=change)
        self.assertEqual(self.on_disk(), set())

    def test_special(self) -> None:
        """Links, folders, pipes and devices are refused without waiting."""
        link = self.base / "link"
        link.symlink_to(self.file("a", b"x"))
        pipe = self.base / "pipe"
        os.mkfifo(pipe)
        self.assertRaises(OSError, self.store.add, link, "a")
        for path in (pipe, self.base, Path("/dev/zero")):
            self.assertRaises(NotShareable, self.store.add, path, "a")

    def test_bad_name(self) -> None:
        """A name that would lead elsewhere never gets in."""
        path = self.file("a", b"x")
        self.assertRaises(Malformed, self.store.add, path, "../a")
        self.assertEqual(self.on_disk(), set())


class ReadTests(StoreCase):
    """Listing and opening."""

    def test_closed(self) -> None:
        """Work that outlives the node isn't told that the index is damaged."""
        self.store.close()
        for work in (self.store.entries, lambda: self.store.remove([1])):
            error = self.assertRaises(Failed, work)
            self.assertIn("the node has stopped", str(error))

    def test_pages(self) -> None:
        """Pages go by row; a name, or a folder, narrows them."""
        for name in ("t/a", "t/b/c", "t", "tt/x", "t0", "t/"[:1] + "!"):
            self.store.add(self.file("f", name.encode()), name)

        def names(**query: object) -> list[str]:
            return [e.name for e in self.store.entries(**query)]  # type: ignore[arg-type]

        self.assertEqual(names(limit=2), ["t/a", "t/b/c"])
        after = self.store.entries(limit=2)[-1].row
        self.assertEqual(names(after=after, limit=2), ["t", "tt/x"])
        self.assertEqual(names(under="t"), ["t/a", "t/b/c"])
        self.assertEqual(names(name="t"), ["t"])
        self.assertEqual(names(name="t'; DROP TABLE entries; --"), [])

    def test_unknown(self) -> None:
        """What isn't held is None, without an error."""
        id = FileID.of_digest(bytes(32))
        self.assertIsNone(self.store.open(id))
        self.assertEqual(self.store.find(id), [])
        self.assertRaises(KeyError, self.store.leaves, id)

    def test_damage(self) -> None:
        """Content that was tampered with on the disk is never opened."""
        entry = self.store.add(self.file("a", b"hello"), "a")
        path = self.store.path(entry.id)
        path.write_bytes(b"longer than hello")
        self.assertRaises(StoreDamaged, self.store.open, entry.id)
        path.unlink()
        self.assertRaises(StoreDamaged, self.store.open, entry.id)

    def test_broken_index(self) -> None:
        """An index that is no database is an error for the user."""
        self.store.close()
        (self.root / "files" / "index.sqlite").write_bytes(b"x" * 8192)
        self.assertRaises(StoreDamaged, FileStore, self.root)

    def test_newer_index(self) -> None:
        """The index of a newer Wherry is refused, not misread."""
        self.store.close()
        index = sqlite3.connect(self.root / "files" / "index.sqlite")
        index.execute("PRAGMA user_version = 99")
        index.close()
        self.assertRaises(StoreDamaged, FileStore, self.root)

    def test_remove(self) -> None:
        """Content goes with its last name."""
        path = self.file("a", b"hello")
        one, two = self.store.add(path, "one"), self.store.add(path, "two")
        self.store.remove([one.row])
        self.assertEqual(self.on_disk(), {one.id.text})
        self.store.remove([two.row])
        self.assertEqual(self.on_disk(), set())
        self.assertIsNone(self.store.open(one.id))
        self.assertEqual(self.store.add(path, "one").id, one.id)

    def test_beside_writing(self) -> None:
        """A reader doesn't wait for a share that is under way."""
        entry = self.store.add(self.file("a", b"hello"), "a")
        seen: list[int] = []
        with self.store._index.transaction():
            reader = threading.Thread(
                target=lambda: seen.append(len(self.store.find(entry.id)))
            )
            reader.start()
            reader.join(5)
        self.assertEqual(seen, [1])


class LeafReaderTests(StoreCase):
    """Files are read leaf by leaf."""

    def test_ends_early(self) -> None:
        """A file shorter than it was said to be gives fewer bytes, no zeros."""
        path = self.file("a", b"\0\0\0")
        with path.open("rb") as file:
            reader = LeafReader(file.fileno(), LEAF_SIZE + 5)
            self.assertEqual(reader.read(0), b"\0\0\0")
            self.assertEqual(reader.read(1), b"")

    def test_settle_many(self) -> None:
        """Many paths are settled at once, and an error is one."""
        paths = [self.file(f"{number}", b"x") for number in range(40)]
        settle(paths)
        self.assertRaises(OSError, settle, [self.base / "none"] * 40)


_FULL = """
import os, sys
from pathlib import Path
from node.errors import WherryError
from node.sharing import share
from node.stores.files import FileStore, StoreFull

disk = Path(sys.argv[1])
(disk / "node").mkdir()
store = FileStore(disk / "node")
source = disk.parent / "sources"
kept = store.add(source / "small", "small")

def left():
    return sorted(str(p.relative_to(disk)) for p in disk.rglob("*") if p.is_file()
                  and not p.name.startswith("index.sqlite"))

before = left(), store.entries()
for attempt in range(2):
    try:
        store.add(source / "large", "large")
    except StoreFull as error:
        print(f"full: {error}")
    assert (left(), store.entries()) == before, left()
# A folder: the files that fit are taken back together with the one that doesn't.
try:
    share(store, [source], lambda progress: None)
except StoreFull as error:
    print(f"full: {error.code}")
assert (left(), store.entries()) == before, left()
# The same for files of it that were visible already.
try:
    with store.batch() as batch:
        for name in ("between", "large"):
            batch.add(os.open(source / name, os.O_RDONLY), name)
            batch.publish()
except StoreFull:
    assert [entry.name for entry in batch.entries] == ["between"]
assert (left(), store.entries()) == before, left()
again = FileStore(disk / "node")
assert again.entries() == before[1]
assert again.add(source / "small", "again").id == kept.id
"""


class FullDiskTests(StoreCase):
    """A full disk is a clear error that leaves nothing behind."""

    def test_full(self) -> None:
        """On a real disk of 4 MiB: one file, a folder, and content that is held."""
        draw = random.Random(4)
        self.file("sources/small", draw.randbytes(1_500_000))
        self.file("sources/large", draw.randbytes(9_000_000))
        self.file("sources/between", draw.randbytes(100_000))
        disk = self.base / "disk"
        disk.mkdir()
        out = on_tiny_disk(_FULL, disk, 4).splitlines()
        self.assertEqual(len(out), 3)
        for line in out[:2]:
            self.assertIn("the disk is full", line)
        self.assertEqual(out[2], f"full: {StoreFull.code}")


class CrashTests(StoreCase):
    """A kill at any moment leaves whole files that are shared, or nothing."""

    def check(self, contents: dict[str, bytes]) -> None:
        """Everything that is listed is whole, and nothing else is on the disk."""
        store = FileStore(self.root)
        try:
            entries = store.entries()
            self.assertEqual(self.on_disk(), {entry.id.text for entry in entries})
            for entry in entries:
                self.assertEqual(
                    store.path(entry.id).read_bytes(), contents[entry.name]
                )
                self.assertEqual(store.leaves(entry.id).id, entry.id)
        finally:
            store.close()

    def contents(self) -> dict[str, bytes]:
        """Files of the interesting sizes."""
        draw = random.Random(5)
        sizes = {"empty": 0, "one": 1, "leaf": LEAF_SIZE, "more": 2 * LEAF_SIZE + 9}
        contents = {name: draw.randbytes(size) for name, size in sizes.items()}
        for name, content in contents.items():
            self.file(name, content)
        return contents

    def add_all(self, contents: dict[str, bytes]) -> None:
        """Open the store, as a node does, and share."""
        store = FileStore(self.root)
        for name in contents:
            store.add(self.base / name, name)
        store.remove([entry.row for entry in store.entries(name="leaf")])
        with store.batch() as batch:
            for name in contents:
                fd = os.open(self.base / name, os.O_RDONLY)
                batch.add(fd, name)
                os.close(fd)
        store.close()

    def test_every_step(self) -> None:
        """Killed before each change of the disk in turn, and half-way in writes."""
        contents = self.contents()
        self.store.close()
        step = 0
        while killed_at(step, lambda: self.add_all(contents)):
            self.check(contents)
            step += 1
            for entry in (store := FileStore(self.root)).entries():
                store.remove([entry.row])
            store.close()
        self.assertGreater(step, 20)
        self.check(contents)

    def test_random_moments(self) -> None:
        """Killed from outside, whatever it was doing."""
        contents = self.contents()
        self.store.close()
        draw = random.Random(6)
        kills = 0
        for _ in range(10):
            kills += killed_after(draw.uniform(0, 0.06), lambda: self.add_all(contents))
            self.check(contents)
        self.assertGreater(kills, 0)
