"""Tests of node.landing."""

import os
import random
import socket
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from node.errors import Failed, Usage
from node.landing import (
    PART_SUFFIX,
    Landing,
    Target,
    TargetBusy,
    TargetExists,
    TargetFull,
    TargetRefused,
    WrongLeaf,
    part_name,
)
from protocols.fileid import LEAF_SIZE, FileID
from protocols.filename import MAX_PART_BYTES
from tests.node.crashing import killed_after, killed_at, on_tiny_disk
from tests.protocols.test_fileid import leaves_of


def look(landing: Landing) -> None:
    """Begin, and look through what is there."""
    landing.begin()
    while landing.look():
        pass


def receive(landing: Landing, content: bytes) -> None:
    """Take all that is missing, and finish."""
    for run in landing.missing():
        for index in run:
            start, stop = landing.leaves.span(index)
            landing.write(index, content[start:stop])
    landing.finish()


class LandingCase(SynchronousTestCase):
    """A folder to land in."""

    def setUp(self) -> None:
        self.base = Path(self.mktemp()).absolute()
        self.folder = self.base / "target"
        self.folder.mkdir(parents=True)

    def landing(
        self,
        content: bytes,
        name: str = "film",
        *,
        force: bool = False,
        umask: int = 0o022,
    ) -> Landing:
        """A landing for this content."""
        leaves = leaves_of(content)
        landing = Landing(
            Target(self.folder, name), leaves.id, leaves, force=force, umask=umask
        )
        self.addCleanup(landing.close)
        return landing

    def there(self) -> list[str]:
        """All names below the folder."""
        return sorted(
            str(path.relative_to(self.folder)) for path in self.folder.rglob("*")
        )


class LandingTests(LandingCase):
    """A file comes in."""

    def test_sizes(self) -> None:
        """Empty, one byte, around and at exact multiples of a leaf."""
        draw = random.Random(1)
        for size in (0, 1, LEAF_SIZE - 1, LEAF_SIZE, LEAF_SIZE + 1, 2 * LEAF_SIZE):
            content = draw.randbytes(size)
            landing = self.landing(content, f"f{size}")
            look(landing)
            receive(landing, content)
            self.assertEqual((self.folder / f"f{size}").read_bytes(), content)
            self.assertEqual((landing.have, landing.kept), (size, False))
        self.assertFalse([name for name in self.there() if PART_SUFFIX in name])

    def test_mode(self) -> None:
        """The mode follows the umask of who wants the file, folders too."""
        for umask, file, folder in ((0o022, 0o644, 0o755), (0o077, 0o600, 0o700)):
            landing = self.landing(b"x", f"{umask}/f", umask=umask)
            look(landing)
            receive(landing, b"x")
            path = self.folder / f"{umask}" / "f"
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), file)
            self.assertEqual(stat.S_IMODE(path.parent.stat().st_mode), folder)

    def test_nothing_early(self) -> None:
        """Before the last leaf there is only a private part."""
        content = random.Random(2).randbytes(2 * LEAF_SIZE)
        landing = self.landing(content)
        look(landing)
        landing.write(0, content[:LEAF_SIZE])
        self.assertRaises(ValueError, landing.finish)
        (name,) = self.there()
        self.assertEqual(name, part_name("film", leaves_of(content).id))
        self.assertEqual(stat.S_IMODE((self.folder / name).stat().st_mode), 0o600)

    def test_wrong_leaf(self) -> None:
        """A leaf with a wrong bit, or a wrong length, is never written."""
        content = random.Random(3).randbytes(LEAF_SIZE + 10)
        landing = self.landing(content)
        look(landing)
        for index, data in (
            (0, b"\0" + content[1:LEAF_SIZE]),
            (0, content[: LEAF_SIZE - 1]),
            (0, content[: LEAF_SIZE + 1]),
            (1, content[LEAF_SIZE:] + b"x"),
            (1, b""),
        ):
            self.assertRaises(WrongLeaf, landing.write, index, data)
        self.assertEqual(landing.missing(), [range(2)])
        (name,) = self.there()
        self.assertEqual((self.folder / name).stat().st_size, 0)

    def test_resume(self) -> None:
        """What came is found again; what is damaged has to come again."""
        content = random.Random(4).randbytes(5 * LEAF_SIZE + 10)
        first = self.landing(content)
        look(first)
        for index in (0, 1, 3):
            start, stop = first.leaves.span(index)
            first.write(index, content[start:stop])
        first.close()
        (name,) = self.there()
        with (self.folder / name).open("r+b") as part:
            part.seek(LEAF_SIZE + 77)
            part.write(b"damage")
        second = self.landing(content)
        look(second)
        self.assertEqual(second.missing(), [range(1, 3), range(4, 6)])
        self.assertEqual(second.have, 2 * LEAF_SIZE)
        receive(second, content)
        self.assertEqual((self.folder / "film").read_bytes(), content)
        self.assertEqual(self.there(), ["film"])

    def test_garbage_part(self) -> None:
        """A part that is too long and all wrong does no harm."""
        content = random.Random(5).randbytes(LEAF_SIZE + 10)
        part = self.folder / part_name("film", leaves_of(content).id)
        part.write_bytes(b"x" * (3 * LEAF_SIZE))
        landing = self.landing(content)
        look(landing)
        receive(landing, content)
        self.assertEqual((self.folder / "film").read_bytes(), content)

    def test_zeros(self) -> None:
        """Leaves of zeros need no transfer and take no room."""
        content = bytes(4 * LEAF_SIZE) + b"data" + bytes(LEAF_SIZE)
        landing = self.landing(content)
        look(landing)
        self.assertEqual(landing.missing(), [range(4, 5)])
        receive(landing, content)
        path = self.folder / "film"
        self.assertEqual(path.read_bytes(), content)
        self.assertLess(path.stat().st_blocks * 512, 2 * LEAF_SIZE)

    def test_zeros_over_garbage(self) -> None:
        """Where the part holds something else, zeros are a leaf like any other."""
        content = bytes(LEAF_SIZE) + b"data"
        part = self.folder / part_name("film", leaves_of(content).id)
        part.write_bytes(b"garbage")
        landing = self.landing(content)
        look(landing)
        self.assertEqual(landing.missing(), [range(2)])
        receive(landing, content)
        self.assertEqual((self.folder / "film").read_bytes(), content)

    def test_nothing_came(self) -> None:
        """A transfer that brought nothing leaves nothing."""
        landing = self.landing(b"x")
        look(landing)
        landing.close()
        landing.close()
        self.assertEqual(self.there(), [])

    def test_given_up(self) -> None:
        """After ``close`` nothing is written any more."""
        landing = self.landing(b"x")
        look(landing)
        landing.close()
        self.assertRaises(Failed, landing.write, 0, b"x")

    def test_busy(self) -> None:
        """Two at a time to one place would tread on each other."""
        first, second = self.landing(b"x"), self.landing(b"x")
        look(first)
        self.assertRaises(TargetBusy, second.begin)
        second.close()
        receive(first, b"x")
        self.assertEqual(self.there(), ["film"])

    def test_long_name(self) -> None:
        """The longest of names still gets a part beside it."""
        name = "ö" * 127
        landing = self.landing(b"x", name)
        look(landing)
        receive(landing, b"x")
        self.assertEqual(self.there(), [name])


class ExistingTests(LandingCase):
    """Something stands there already."""

    def test_same(self) -> None:
        """The same file is kept and not touched."""
        content = random.Random(6).randbytes(LEAF_SIZE + 5)
        path = self.folder / "film"
        path.write_bytes(content)
        path.chmod(0o640)
        before = path.stat()
        landing = self.landing(content, force=True)
        look(landing)
        self.assertTrue(landing.kept)
        self.assertEqual(landing.missing(), [])
        landing.finish()
        after = path.stat()
        self.assertEqual(
            (after.st_ino, after.st_mtime_ns, after.st_mode),
            (before.st_ino, before.st_mtime_ns, before.st_mode),
        )
        self.assertEqual(self.there(), ["film"])

    def test_other(self) -> None:
        """Another file, of the same size or not, is refused and stays."""
        for old in (b"other", b"other size"):
            (self.folder / "film").write_bytes(old)
            error = self.assertRaises(TargetExists, look, self.landing(b"films"))
            self.assertIn("--force", str(error))
            self.assertEqual((self.folder / "film").read_bytes(), old)
            self.assertEqual(self.there(), ["film"])

    def test_force(self) -> None:
        """With force it is replaced, but not before the new one is whole."""
        for old in (b"other", b"other size"):
            (self.folder / "film").write_bytes(old)
            landing = self.landing(b"films", force=True)
            look(landing)
            landing.write(0, b"films")
            self.assertEqual((self.folder / "film").read_bytes(), old)
            landing.finish()
            self.assertEqual((self.folder / "film").read_bytes(), b"films")
            self.assertEqual(self.there(), ["film"])

    def test_appeared(self) -> None:
        """A file that takes the name meanwhile is not overwritten."""
        landing = self.landing(b"films")
        look(landing)
        landing.write(0, b"films")
        (self.folder / "film").write_bytes(b"mine")
        self.assertRaises(TargetExists, landing.finish)
        self.assertEqual((self.folder / "film").read_bytes(), b"mine")

    def test_link(self) -> None:
        """A link under the final name is never replaced, wherever it leads."""
        outside = self.base / "outside"
        outside.write_bytes(b"films")
        for leads_to in (outside, self.base / "nowhere"):
            (self.folder / "film").symlink_to(leads_to)
            self.assert_never_replaced("is a link")
            (self.folder / "film").unlink()
        self.assertEqual(outside.read_bytes(), b"films")

    def test_folder(self) -> None:
        """A folder under the final name is never replaced."""
        (self.folder / "film").mkdir()
        self.assert_never_replaced("is a folder")

    def test_pipe(self) -> None:
        """Neither is a pipe; a device would be refused in the same way."""
        os.mkfifo(self.folder / "film")
        self.assert_never_replaced("is no regular file")

    def test_socket(self) -> None:
        """Neither is a socket, whose owner would lose it."""
        here = os.open(self.folder, os.O_PATH)
        self.addCleanup(os.close, here)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(f"/proc/self/fd/{here}/film")
        self.assert_never_replaced("is no regular file")

    def test_pipe_appeared(self) -> None:
        """What takes the name during the transfer is not replaced either."""
        landing = self.landing(b"films", force=True)
        look(landing)
        landing.write(0, b"films")
        os.mkfifo(self.folder / "film")
        self.assertRaises(TargetExists, landing.finish)

    def assert_never_replaced(self, why: str) -> None:
        """What has the final name stays, with force and without."""
        before = os.lstat(self.folder / "film")
        for force in (False, True):
            landing = self.landing(b"films", force=force)
            error = self.assertRaises(TargetExists, look, landing)
            self.assertIn(why, str(error))
            self.assertNotIn("--force", str(error))
        self.assertTrue(os.path.samestat(before, os.lstat(self.folder / "film")))
        self.assertEqual(self.there(), ["film"])


class RefusedTests(LandingCase):
    """Names and links that lead out of the target."""

    def test_names(self) -> None:
        """No name leads out, and none is that of an unfinished download."""
        for name in ("../film", "/etc/film", "a/../../film", "a\0", "", ".", "ö" * 128):
            self.assertRaises(Usage, Target, self.folder, name)
        self.assertRaises(TargetRefused, Target, self.folder, f".x{PART_SUFFIX}")

    def test_strange_names(self) -> None:
        """A name that the user chose may be whatever a file can be called."""
        for name in ("a\\b", "a\x1bb", "a\nb", os.fsdecode(b"a\xff"), "\u202eb"):
            for chosen in (name, name + "x" * (MAX_PART_BYTES - 5)):
                landing = self.landing(b"films", chosen)
                look(landing)
                receive(landing, b"films")
                self.assertEqual((self.folder / chosen).read_bytes(), b"films")
                self.assertEqual(self.there(), [chosen])
                (self.folder / chosen).unlink()

    def test_part_replaced(self) -> None:
        """What took the place of the part meanwhile does not get the name."""
        outside = self.base / "outside"
        outside.write_bytes(b"secret")
        part = self.folder / part_name("film", leaves_of(b"x").id)
        for replace in (
            lambda: part.symlink_to(outside),
            lambda: part.write_bytes(b"other"),
        ):
            landing = self.landing(b"x")
            look(landing)
            landing.write(0, b"x")
            part.unlink()
            replace()
            self.assertRaises(TargetRefused, landing.finish)
            landing.close()
            part.unlink(missing_ok=True)
            self.assertEqual(self.there(), [])
        self.assertEqual(outside.read_bytes(), b"secret")

    def test_linked_folder(self) -> None:
        """A link inside of the target is not followed, at any depth."""
        outside = self.base / "outside"
        (outside / "in").mkdir(parents=True)
        (self.folder / "top").symlink_to(outside)
        (self.folder / "real").mkdir()
        (self.folder / "real" / "top").symlink_to(outside)
        for name in ("top/film", "top/in/film", "real/top/film", "real/top/new/film"):
            landing = self.landing(b"x", name, force=True)
            self.assertRaises(TargetRefused, look, landing)
            landing.close()
        self.assertEqual([path.name for path in outside.rglob("*")], ["in"])

    def test_control(self) -> None:
        """The same landing in a real folder works: it is the link that counts."""
        (self.folder / "top").mkdir()
        landing = self.landing(b"x", "top/film", force=True)
        look(landing)
        receive(landing, b"x")
        self.assertEqual(self.there(), ["top", "top/film"])

    def test_file_as_folder(self) -> None:
        """A file where a folder should be is an error, not overwritten."""
        (self.folder / "top").write_bytes(b"mine")
        self.assertRaises(TargetRefused, look, self.landing(b"x", "top/film"))
        self.assertEqual((self.folder / "top").read_bytes(), b"mine")

    def test_prepared_part(self) -> None:
        """A part that somebody prepared as a link, or linked twice, is refused."""
        outside = self.base / "outside"
        outside.write_bytes(b"precious")
        part = self.folder / part_name("film", leaves_of(b"x").id)
        for prepare in (part.symlink_to, part.hardlink_to):
            prepare(outside)
            self.assertRaises(TargetRefused, look, self.landing(b"x"))
            self.assertEqual(outside.read_bytes(), b"precious")
            part.unlink()
        os.mkfifo(part)
        self.assertRaises(TargetRefused, look, self.landing(b"x"))

    def test_missing_folder(self) -> None:
        """A target folder that isn't there is an error for the user."""
        self.folder.rmdir()
        self.assertRaises(Failed, look, self.landing(b"x"))


_FULL = """
import os, random, sys
from pathlib import Path
from node.landing import Landing, Target, TargetFull
from tests.node.test_landing import look, receive
from tests.protocols.test_fileid import leaves_of

disk = Path(sys.argv[1])
content = random.Random(7).randbytes(9_000_000)
leaves = leaves_of(content)

def landing():
    return Landing(Target(disk, "film"), leaves.id, leaves, force=False, umask=0o22)

first = landing()
try:
    look(first)
except TargetFull as error:
    print(f"early: {error}")
first.close()
assert not list(disk.iterdir())

# The disk gets full while the file comes in.
small = content[: 3 << 20]
leaves = leaves_of(small)
second = landing()
look(second)
(disk / "other").write_bytes(bytes(2_500_000))
try:
    receive(second, small)
except TargetFull as error:
    print(f"late: {error.code}")
second.close()
(disk / "other").unlink()
third = landing()
look(third)
print(third.have)
receive(third, small)
assert (disk / "film").read_bytes() == small
assert [path.name for path in disk.iterdir()] == ["film"]
"""


class FullDiskTests(LandingCase):
    """A full disk is told early if it can be, and never ends in a wrong file."""

    def test_full(self) -> None:
        """On a real disk of 4 MiB."""
        early, late, have = on_tiny_disk(_FULL, self.folder, 4).splitlines()
        self.assertIn("early: the disk is full", early)
        self.assertEqual(late, f"late: {TargetFull.code}")
        self.assertEqual(have, str(LEAF_SIZE))


class CrashTests(LandingCase):
    """A kill at any moment leaves no file, or the whole one; and it resumes."""

    def setUp(self) -> None:
        super().setUp()
        draw = random.Random(8)
        self.content = draw.randbytes(LEAF_SIZE) + bytes(LEAF_SIZE) + draw.randbytes(99)

    def fetch(self) -> None:
        """Go on with the landing as far as it gets."""
        landing = self.landing(self.content, "top/film")
        look(landing)
        if not landing.kept:
            receive(landing, self.content)

    def check(self) -> bool:
        """The final name has the whole file or nothing; say which."""
        path = self.folder / "top" / "film"
        if not path.exists():
            return False
        self.assertEqual(path.read_bytes(), self.content)
        return True

    def test_every_step(self) -> None:
        """Killed before each change of the disk in turn, each time from scratch."""
        step = 0
        while killed_at(step, self.fetch):
            self.check()
            self.fetch()
            self.assertEqual(self.there(), ["top", "top/film"])
            (self.folder / "top" / "film").unlink()
            (self.folder / "top").rmdir()
            step += 1
        self.assertGreater(step, 8)
        self.assertTrue(self.check())

    def test_resumes_in_the_end(self) -> None:
        """Killed again and again, it goes on each time until it is whole."""
        draw = random.Random(9)
        self.content = draw.randbytes(24 * LEAF_SIZE + 1)
        for _ in range(10):
            killed_after(draw.uniform(0.005, 0.05), self.fetch)
            self.check()
        self.fetch()
        self.assertTrue(self.check())
        self.assertEqual(self.there(), ["top", "top/film"])


class PartNameTests(SynchronousTestCase):
    """The name of the unfinished file."""

    def test_names(self) -> None:
        """It shows the file and the beginning of its id, and always fits."""
        id = FileID("a" * 52)
        self.assertEqual(part_name("film.mkv", id), ".film.mkv.aaaaaaaa.wherry-part")
        for name in ("x" * 255, "ö" * 127):
            part = part_name(name, id)
            self.assertLessEqual(len(part.encode("utf-8")), 255)
            self.assertTrue(part.endswith(".aaaaaaaa.wherry-part"))
