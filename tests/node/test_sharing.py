"""Tests of node.sharing."""

import os
import shutil
import socket
from pathlib import Path

from node.errors import Failed
from node.sharing import Plan, Shared, ShareProgress, share, walk
from tests.node.test_files import StoreCase


class ShareTests(StoreCase):
    """Paths of the user become entries of the store."""

    def share(self, *paths: Path) -> Shared:
        """Share without looking at the progress."""
        return share(self.store, paths, lambda progress: None)

    def names(self, shared: Shared) -> list[str]:
        """The names of all entries."""
        return [entry.name for entry in shared.entries]

    def skipped(self, shared: Shared | Plan) -> dict[str, str]:
        """What was left out, by its name."""
        return {os.path.basename(each.path): each.why for each in shared.skipped}

    def test_file(self) -> None:
        """A single file is called by its own name."""
        shared = self.share(self.file("deep/down/a.txt", b"hello"))
        self.assertEqual(self.names(shared), ["a.txt"])
        self.assertEqual((shared.new_bytes, shared.skipped), (5, ()))

    def test_folder(self) -> None:
        """A folder gives TOP/relative/path for each regular file below it."""
        for name in ("top/b", "top/a/z", "top/a/.hidden", "top/ö"):
            self.file(name, name.encode())
        (self.base / "top" / "nothing in it").mkdir()
        shared = self.share(self.base / "top")
        self.assertEqual(
            self.names(shared), ["top/a/.hidden", "top/a/z", "top/b", "top/ö"]
        )
        self.assertEqual(self.share(self.base / "top").new_bytes, 0)
        self.assertEqual(len(self.store.entries()), 4)

    def test_spellings_of_a_folder(self) -> None:
        """``.``, ``..`` and a trailing slash mean the folder by its real name."""
        self.file("top/in/a", b"x")
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.base / "top" / "in")
        self.assertEqual(self.names(self.share(Path("."))), ["in/a"])
        self.assertEqual(self.names(self.share(Path(".."))), ["top/in/a"])
        os.chdir(before)
        self.assertEqual(self.names(self.share(Path(f"{self.base}/top/in/"))), ["in/a"])

    def test_links_and_special_files(self) -> None:
        """They are reported and not followed, wherever they lead."""
        self.file("secret/key", b"private")
        top = self.file("top/a", b"x").parent
        (top / "file link").symlink_to(self.base / "secret" / "key")
        (top / "folder link").symlink_to(self.base / "secret")
        (top / "loop").symlink_to(top)
        (top / "dangling").symlink_to("nowhere")
        os.mkfifo(top / "pipe")
        listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(listening.close)
        before = os.getcwd()
        os.chdir(top)
        listening.bind("socket")
        os.chdir(before)
        shared = self.share(top)
        self.assertEqual(self.names(shared), ["top/a"])
        skipped = self.skipped(shared)
        for name in ("file link", "folder link", "loop", "dangling"):
            self.assertIn("is a link", skipped.pop(name))
        for name in ("pipe", "socket"):
            self.assertIn("not a regular file", skipped.pop(name))
        self.assertEqual(skipped, {})

    def test_link_given(self) -> None:
        """A link that the user names is reported too; one on the way is fine."""
        self.file("real/a", b"x")
        link = self.base / "link"
        link.symlink_to(self.base / "real")
        error = self.assertRaises(Failed, self.share, link)
        self.assertIn("is a link", str(error))
        self.assertEqual(self.names(self.share(link / "a")), ["a"])

    def test_swapped_for_a_link(self) -> None:
        """A file or folder that becomes a link after it was seen isn't read."""
        self.file("secret/a", b"private")
        self.file("top/in/a", b"x")
        self.file("top/z", b"z")
        inner = self.base / "top" / "in"

        def swap(progress: ShareProgress) -> None:
            if progress.files and not inner.is_symlink():
                inner.rename(self.base / "away")
                inner.symlink_to(self.base / "secret")

        shared = share(self.store, [self.base / "top"], swap)
        self.assertEqual(self.names(shared), ["top/z"])
        self.assertEqual(list(self.skipped(shared)), ["a"])

    def test_file_swapped_for_a_link(self) -> None:
        """The same goes for the file itself."""
        self.file("secret", b"private")
        file = self.file("top/a", b"x")
        self.file("top/z", b"z")

        def swap(progress: ShareProgress) -> None:
            if progress.files and not file.is_symlink():
                file.unlink()
                file.symlink_to(self.base / "secret")

        shared = share(self.store, [self.base / "top"], swap)
        self.assertEqual(self.names(shared), ["top/z"])
        self.assertEqual(list(self.skipped(shared)), ["a"])

    def test_node_directory(self) -> None:
        """The node's keys are never shared, by whatever path they are reached."""
        self.file("node/private/server.key", b"secret")
        self.file("a", b"x")
        shared = self.share(self.base)
        self.assertEqual(self.names(shared), [f"{self.base.name}/a"])
        self.assertIn("node itself", self.skipped(shared)["node"])
        other = self.base / "other name"
        other.symlink_to(self.root)
        for path in (
            self.root,
            self.root / "private",
            self.root / "private" / "server.key",
            other / "private" / "server.key",
        ):
            error = self.assertRaises(Failed, self.share, path)
            self.assertIn("node itself", str(error))

    def test_other_node_directory(self) -> None:
        """Nor are the keys of another node that lies on the way."""
        self.file("a/other/node.yaml", b"version: 1")
        self.file("a/other/private/server.key", b"secret")
        self.file("a/b", b"x")
        shared = self.share(self.base / "a")
        self.assertEqual(self.names(shared), ["a/b"])
        self.assertIn("node directory", self.skipped(shared)["other"])

    def test_names_that_cannot_be(self) -> None:
        """Names that no peer would take are reported, in printable characters."""
        self.file("top/good", b"x")
        for name in (b"new\nline", b"not\xffutf8", b"back\\slash"):
            Path(
                os.fsdecode(os.path.join(os.fsencode(self.base), b"top", name))
            ).touch()
        shared = self.share(self.base / "top")
        self.assertEqual(self.names(shared), ["top/good"])
        self.assertEqual(len(shared.skipped), 3)
        for each in shared.skipped:
            each.path.encode("utf-8")

    def test_unfinished_downloads(self) -> None:
        """The parts that ``get`` leaves aren't files yet."""
        self.file("top/.film.abcdefgh.wherry-part", b"half")
        self.file("top/a", b"x")
        self.assertEqual(self.names(self.share(self.base / "top")), ["top/a"])

    def test_unreadable(self) -> None:
        """A file that vanishes meanwhile is reported, the others are shared."""
        for name in ("top/a", "top/b", "top/c"):
            self.file(name, name.encode())

        def vanish(progress: ShareProgress) -> None:
            if progress.files:
                (self.base / "top" / "b").unlink(missing_ok=True)

        shared = share(self.store, [self.base / "top"], vanish)
        self.assertEqual(self.names(shared), ["top/a", "top/c"])
        self.assertEqual(list(self.skipped(shared)), ["b"])

    def test_nothing(self) -> None:
        """Nothing to share is a failure that says why."""
        empty = self.base / "empty"
        empty.mkdir()
        self.assertRaises(Failed, self.share, empty)
        error = self.assertRaises(Failed, self.share, self.base / "none")
        self.assertIn("No such file", str(error))

    def test_equal_names(self) -> None:
        """Two paths that would get one name are refused; one path twice isn't."""
        one, two = self.file("x/top/a", b"1"), self.file("y/top/a", b"2")
        self.assertRaises(Failed, self.share, one, two)
        self.assertRaises(Failed, self.share, one.parent, two.parent)
        self.assertEqual(self.store.entries(), [])
        self.assertEqual(self.names(self.share(one, one)), ["a"])

    def test_progress(self) -> None:
        """It counts to the end, over all files."""
        self.file("top/a", b"12345")
        self.file("top/b", b"123")
        seen: list[ShareProgress] = []
        share(self.store, [self.base / "top"], seen.append)
        self.assertEqual(seen[0].total, 0)
        self.assertEqual({each.total for each in seen[1:]}, {8})
        done = [(each.done, each.files_done) for each in seen]
        self.assertEqual(done, sorted(done))
        self.assertEqual(done[-1], (8, 2))

    def test_stopped(self) -> None:
        """What progress raises ends a share at the next leaf."""

        class Stop(Exception):
            pass

        def stop(progress: ShareProgress) -> None:
            if progress.files_done == 1:
                raise Stop

        self.file("top/a", b"12345")
        self.file("top/b", b"123")
        self.assertRaises(Stop, share, self.store, [self.base / "top"], stop)
        self.assertEqual(self.on_disk(), set())

    def test_deep(self) -> None:
        """A tree deeper than any name may be is reported, not crashed on."""
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.base)
        os.mkdir("top")
        os.chdir("top")
        # Trial can't remove a tree this deep.
        self.addCleanup(shutil.rmtree, self.base / "top")
        for _ in range(30):
            os.mkdir("d" * 200)
            os.chdir("d" * 200)
        os.chdir(before)
        plan = walk([self.base / "top"], self.root)
        self.assertEqual((plan.files, len(plan.skipped)), ([], 1))
