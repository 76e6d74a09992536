"""Tests of ``/files/``: the list, content and its leaf hashes."""

import json
import os
import random
from collections.abc import Iterator

from attrs import define, frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from protocols.fileid import LEAF_SIZE, FileID, Leaves, leaf_hash
from protocols.files import PAGE_BYTES, files
from protocols.limits import Limits
from protocols.principal import Person, Principal, Stranger
from protocols.sending import CHUNK
from tests.protocols.calling import DEVICE, Answer, Caller, make_site


@frozen
class FakeEntry:
    """One name of one content."""

    row: int
    id: FileID
    name: str
    size: int
    media_type: str


@define
class FakeFile:
    """An open file, whose descriptor is counted."""

    source: "FakeSource"
    fd: int
    size: int
    leaves: Leaves
    media_type: str = "text/plain"

    def close(self) -> None:
        """Close it, once."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            self.source.open_files -= 1
            if not self.source.closed.called:
                self.source.closed.callback(None)


class FakeSource:
    """Holds files; a person sees only those that begin with their name.

    Attributes:
        open_files: how many are open now.
        closed: fires when the first one is closed.
    """

    def __init__(self) -> None:
        self.paths: dict[FileID, tuple[str, Leaves]] = {}
        self.rows: list[FakeEntry] = []
        self.open_files = 0
        self.closed: Deferred[None] = Deferred()

    def add(self, path: str, name: str, leaves: Leaves) -> FileID:
        """Take a file in."""
        self.paths[leaves.id] = (path, leaves)
        row = len(self.rows) + 1
        self.rows.append(FakeEntry(row, leaves.id, name, leaves.size, "text/plain"))
        return leaves.id

    def entries(
        self,
        caller: Principal,
        after: int,
        limit: int,
        name: str | None,
        under: str | None,
    ) -> list[FakeEntry]:
        """List what a caller sees."""
        found = [
            each
            for each in self.rows
            if each.row > after
            and name in (None, each.name)
            and (under is None or each.name.startswith(under + "/"))
            and self._seen(caller, each)
        ]
        return found[:limit]

    def named(self, caller: Principal, id: FileID) -> list[FakeEntry]:
        """List the names of one content."""
        found = (each for each in self.rows if each.id == id)
        return [each for each in found if self._seen(caller, each)]

    def open(self, caller: Principal, id: FileID) -> FakeFile | None:
        """Open what a caller sees."""
        if not any(self._seen(caller, each) for each in self.rows if each.id == id):
            return None
        path, leaves = self.paths[id]
        self.open_files += 1
        return FakeFile(self, os.open(path, os.O_RDONLY), leaves.size, leaves)

    def _seen(self, caller: Principal, entry: FakeEntry) -> bool:
        return not isinstance(caller, Person) or entry.name.startswith(caller.nickname)


def leaves_of(data: bytes) -> Leaves:
    """Hash content."""
    starts = range(0, len(data), LEAF_SIZE)
    hashes = (leaf_hash(data[at : at + LEAF_SIZE]) for at in starts)
    return Leaves(len(data), b"".join(hashes))


class FilesCase(SynchronousTestCase):
    """A source with some files behind a site."""

    def setUp(self) -> None:
        """Make the site."""
        self.clock = Clock()
        self.source = FakeSource()
        self.who: Principal = DEVICE
        self.site = make_site(
            self.clock,
            files(self.source),
            limits=Limits(per_principal=500),
            principal_of=lambda _: self.who,
        )
        self.caller = self.call()
        self.addCleanup(self.check_closed)

    def check_closed(self) -> None:
        """Every file was closed, whatever happened to its caller."""
        self.site.close()
        self.clock.advance(0)
        self.assertEqual(self.source.open_files, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def call(self) -> Caller:
        """Call the site."""
        return Caller(self.site, self.clock)

    def add(self, data: bytes, name: str = "name") -> str:
        """Share content; give the target that names it."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(data)
        return f"/files/{self.source.add(path, name, leaves_of(data))}"


class ListTests(FilesCase):
    """The list of files comes in pages."""

    def page(self, target: str) -> tuple[list[str], int | None]:
        """Get a page: names, and where the next one begins."""
        answer = self.caller.answer(target)
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.headers["cache-control"], "no-store")
        document = json.loads(answer.body)
        self.assertEqual(document["schema"], 1)
        return [each["name"] for each in document["files"]], document["next"]

    def test_entry(self) -> None:
        """An entry has id, name, size and media type."""
        target = self.add(b"hello", "a/é")
        document = json.loads(self.caller.answer("/files/").body)
        expected = {
            "id": target.rpartition("/")[2],
            "name": "a/é",
            "size": 5,
            "media_type": "text/plain",
        }
        self.assertEqual(document["files"], [expected])

    def test_pages(self) -> None:
        """Pages follow each other to the end."""
        self.assertEqual(self.page("/files/"), ([], None))
        for name in "abcde":
            self.add(name.encode(), name)
        self.assertEqual(self.page("/files/"), (list("abcde"), None))
        self.assertEqual(self.page("/files/?limit=2"), (["a", "b"], 2))
        self.assertEqual(self.page("/files/?limit=2&after=2"), (["c", "d"], 4))
        self.assertEqual(self.page("/files/?limit=2&after=4"), (["e"], None))
        self.assertEqual(self.page("/files/?after=5"), ([], None))

    def test_filters(self) -> None:
        """The list can be narrowed to a name, or to a folder."""
        for name in ("top/a", "top/b c", "top"):
            self.add(name.encode(), name)
        self.assertEqual(self.page("/files/?name=top"), (["top"], None))
        id = leaves_of(b"top/a").id
        self.assertEqual(self.page(f"/files/?id={id}"), (["top/a"], None))
        self.assertEqual(self.page(f"/files/?id={id}&after=99"), ([], None))
        self.assertEqual(self.page("/files/?under=top"), (["top/a", "top/b c"], None))
        self.assertEqual(self.page("/files/?name=top/b+c"), (["top/b c"], None))

    def test_long_names(self) -> None:
        """A page is bounded in bytes too, and nothing is left out."""
        leaves = leaves_of(b"")
        for number in range(600):
            self.source.add("/dev/null", f"{number}/" + "n" * 4000, leaves)
        seen: list[str] = []
        after: int | None = 0
        while after is not None:
            answer = self.caller.answer(f"/files/?after={after}")
            self.assertLess(len(answer.body), PAGE_BYTES * 1.2)
            document = json.loads(answer.body)
            seen += [each["name"] for each in document["files"]]
            after = document["next"]
        self.assertEqual(seen, [each.name for each in self.source.rows])

    def test_bad_queries(self) -> None:
        """A query must make sense."""
        for query in (
            "limit=0",
            "limit=1001",
            "limit=-1",
            "limit=x",
            "limit=",
            "limit=%D9%A1",
            "after=-1",
            "after=99999999999999999999",
            "after=" + "9" * 5000,
            "after=1&after=2",
            "other=1",
            "name",
        ):
            answer = self.caller.answer(f"/files/?{query}")
            self.assertEqual(answer.status, 400, query)

    def test_who_sees_what(self) -> None:
        """The source decides what a person sees; strangers see nothing."""
        self.add(b"1", "anna")
        target = self.add(b"2", "bert")
        self.who = Person("anna")
        self.caller = self.call()
        self.assertEqual(self.page("/files/"), (["anna"], None))
        for path in (target, target + "/leaves"):
            self.assertEqual(self.caller.answer(path).status, 404)
        self.who = Stranger()
        self.caller = self.call()
        for path in ("/files/", target, target + "/leaves"):
            self.assertEqual(self.caller.answer(path).status, 403)


class ContentTests(FilesCase):
    """Content goes out exactly, whole or in part."""

    def test_whole(self) -> None:
        """The whole file, with the headers that keep browsers off."""
        data = random.Random(1).randbytes(3 * CHUNK + 17)
        target = self.add(data)
        answer = self.caller.answer(target)
        self.assertEqual((answer.status, answer.body), (200, data))
        tag = target.rpartition("/")[2]
        expected = {
            "accept-ranges": "bytes",
            "cache-control": "private, max-age=31536000, immutable",
            "content-disposition": "attachment",
            "content-length": str(len(data)),
            "content-security-policy": "sandbox; default-src 'none'",
            "content-type": "text/plain",
            "date": answer.headers["date"],
            "etag": f'"{tag}"',
            "x-content-type-options": "nosniff",
        }
        self.assertEqual(answer.headers, expected)
        head = self.caller.answer(target, method="HEAD")
        self.assertEqual((head.status, head.headers), (200, expected))

    def test_empty(self) -> None:
        """An empty file is a file."""
        target = self.add(b"")
        answer = self.caller.answer(target)
        self.assertEqual((answer.status, answer.body), (200, b""))
        self.assertEqual(answer.headers["content-length"], "0")
        self.assertEqual(self.caller.answer(target, "Range: bytes=0-").status, 416)

    def test_random_ranges(self) -> None:
        """200 random ranges are exact."""
        draw = random.Random(2)
        data = draw.randbytes(5 * LEAF_SIZE + 12345)
        target = self.add(data)
        size = len(data)
        for _ in range(200):
            start = draw.randrange(size)
            last = min(start + int(size ** draw.random()), size - 1)
            spelled, expected = draw.choice(
                [
                    (f"{start}-{last}", data[start : last + 1]),
                    (f"{start}-{size + last}", data[start:]),
                    (f"{size - 1 - last // 9}-", data[size - 1 - last // 9 :]),
                    (f"-{last % 9999 + 1}", data[-(last % 9999 + 1) :]),
                ]
            )
            answer = self.caller.answer(target, f"Range: bytes={spelled}")
            self.assertEqual(answer.status, 206)
            self.assertTrue(answer.body == expected, spelled)
            where = answer.headers["content-range"]
            begin = int(where.removeprefix("bytes ").partition("-")[0])
            stop = begin + len(expected)
            self.assertEqual(where, f"bytes {begin}-{stop - 1}/{size}")
            self.assertTrue(data[begin:stop] == expected)

    @settings(deadline=None, max_examples=100)
    @given(
        st.integers(0, 40),
        st.from_regex(r"bytes=[0-9]{0,2}-[0-9]{0,2}", fullmatch=True)
        | st.text(st.characters(min_codepoint=32, max_codepoint=126)),
    )
    def test_any_range(self, size: int, spelled: str) -> None:
        """Any Range header gives a part, the whole, or 416; all of them true."""
        data = bytes(range(size))
        answer = self.caller.answer(self.add(data), f"Range: {spelled}")
        if answer.status == 206:
            where = answer.headers["content-range"].removeprefix("bytes ")
            span, _, whole = where.partition("/")
            start, _, last = span.partition("-")
            self.assertEqual(answer.body, data[int(start) : int(last) + 1])
            self.assertEqual((int(whole), bool(answer.body)), (size, True))
        elif answer.status == 416:
            self.assertEqual(answer.headers["content-range"], f"bytes */{size}")
        else:
            self.assertEqual((answer.status, answer.body), (200, data))

    def test_several_ranges(self) -> None:
        """Several ranges, and malformed ones, are answered by the whole file."""
        target = self.add(b"0123456789")
        for spelled in ("bytes=0-1,3-4", "bytes=3-1", "lines=1-2", "bytes=x-"):
            answer = self.caller.answer(target, f"Range: {spelled}")
            self.assertEqual((answer.status, answer.body), (200, b"0123456789"))
        answer = self.caller.answer(target, "Range: bytes=0-1", "Range: bytes=3-4")
        self.assertEqual((answer.status, answer.body), (200, b"0123456789"))

    def test_unsatisfiable(self) -> None:
        """A range beyond the end is 416, in JSON, and says the size."""
        target = self.add(b"0123456789")
        for spelled in ("10-", "10-20", "99999999999999999999-", "-0"):
            answer = self.caller.answer(target, f"Range: bytes={spelled}")
            self.assertEqual(answer.status, 416)
            self.assertEqual(answer.headers["content-range"], "bytes */10")
            self.assertIn(b'"range_not_satisfiable"', answer.body)
            self.assertEqual(answer.headers["cache-control"], "no-store")

    def test_head_knows_no_range(self) -> None:
        """Range is for GET (RFC 9110, 14.2)."""
        answer = self.caller.answer(
            self.add(b"0123456789"), "Range: bytes=2-3", method="HEAD"
        )
        self.assertEqual((answer.status, answer.headers["content-length"]), (200, "10"))

    def test_not_modified(self) -> None:
        """Who has it need not get it again."""
        target = self.add(b"0123456789")
        tag = f'"{target.rpartition("/")[2]}"'
        for spelled, status in (
            (tag, 304),
            (f"W/{tag}", 304),
            (f'"x", {tag} ,"y"', 304),
            ("*", 304),
            ('"x"', 200),
            (tag[1:-1], 200),
        ):
            for method in ("GET", "HEAD"):
                answer = self.caller.answer(
                    target,
                    f"If-None-Match: {spelled}",
                    "Range: bytes=1-",
                    method=method,
                )
                wanted = 206 if status == 200 and method == "GET" else status
                self.assertEqual(answer.status, wanted, spelled)
                self.assertEqual(answer.headers["etag"], tag)
                self.assertIn("immutable", answer.headers["cache-control"])
                if status == 304:
                    self.assertNotIn("content-length", answer.headers)

    def test_if_range(self) -> None:
        """A part is for who has the rest of the same; others get the whole."""
        target = self.add(b"0123456789")
        tag = f'"{target.rpartition("/")[2]}"'
        for spelled, body in (
            (tag, b"23"),
            ('"x"', b"0123456789"),
            (f"W/{tag}", b"0123456789"),
            ("Thu, 01 Jan 1970 00:00:00 GMT", b"0123456789"),
        ):
            answer = self.caller.answer(
                target, f"If-Range: {spelled}", "Range: bytes=2-3"
            )
            self.assertEqual(answer.body, body)

    def test_leaves(self) -> None:
        """The leaf hashes are exactly what the id is the hash of."""
        data = random.Random(3).randbytes(2 * LEAF_SIZE + 1)
        target = self.add(data)
        answer = self.caller.answer(target + "/leaves")
        self.assertEqual(answer.headers["content-type"], "application/octet-stream")
        self.assertIn("immutable", answer.headers["cache-control"])
        id = FileID(target.rpartition("/")[2])
        self.assertEqual(Leaves.parse(answer.body, id), leaves_of(data))
        tag = answer.headers["etag"]
        self.assertNotEqual(tag, self.caller.answer(target).headers["etag"])
        again = self.caller.answer(target + "/leaves", f"If-None-Match: {tag}")
        self.assertEqual(again.status, 304)

    def test_not_there(self) -> None:
        """What isn't a file here is 404, and nothing outside is ever opened."""
        target = self.add(b"x")
        id = target.rpartition("/")[2]
        other = str(FileID.of_digest(bytes(32)))
        for path in (id.upper(), id[:-1], id + "a", other, "x", id + "%20"):
            self.assertEqual(self.caller.answer(f"/files/{path}").status, 404)
            self.assertEqual(self.caller.answer(f"/files/{path}/leaves").status, 404)
        for path in (
            "/files/../files/" + id,
            "/files//" + id,
            "/files/%2e%2e/" + id,
            "/files/..%2f..%2fetc%2fpasswd",
            "/files/" + id + "%00",
            "http://peer/files/" + id,
            "//files/" + id,
            "/files/" + "../" * 500 + "etc/passwd",
        ):
            self.assertIn(self.caller.answer(path).status, (400, 404), path)
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"):
            answer = self.caller.answer(target, method=method)
            self.assertEqual(answer.status, 405)
            self.assertEqual(answer.headers["allow"], "GET, HEAD")


class FlowTests(FilesCase):
    """A transfer holds little memory, and ends with its caller."""

    def sparse(self, size: int) -> str:
        """Share a hole; its leaf hashes are not looked at here."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.truncate(size)
        hashes = bytes(32 * -(-size // LEAF_SIZE))
        return f"/files/{self.source.add(path, 'hole', Leaves(size, hashes))}"

    def drain(self, caller: Caller, step: int) -> Iterator[int]:
        """Take an answer in steps; give the sizes of what came."""
        while caller.wire.waiting:
            yield len(caller.wire.take(step))

    def test_bounded_memory(self) -> None:
        """However long the file, no more than two chunks wait to be taken."""
        size = 1 << 28
        self.caller.ask(self.sparse(size))
        self.assertLess(sum(self.drain(self.caller, 2**20)) - size, 1000)
        self.assertLess(self.caller.wire.peak, 2 * CHUNK + 1000)

    def test_slow_caller_in_small_steps(self) -> None:
        """A caller in small steps gets it all, and nothing is read ahead."""
        data = random.Random(4).randbytes(2 * CHUNK + 5)
        self.caller.ask(self.add(data))
        got = b""
        while self.caller.wire.waiting:
            self.assertLess(len(self.caller.wire.waiting), CHUNK + 1000)
            got += self.caller.wire.take(10_007)
        self.assertTrue(got.endswith(data))

    def test_caller_leaves(self) -> None:
        """The file is closed at once when the caller goes in the middle."""
        self.caller.ask(self.sparse(1 << 30))
        self.caller.take(10_000)
        self.assertEqual(self.source.open_files, 1)
        self.caller.wire.lose(ConnectionError())
        self.assertEqual(self.source.open_files, 0)

    def test_caller_stalls(self) -> None:
        """A caller who takes nothing is cut, and the file closed."""
        self.caller.ask(self.sparse(1 << 30))
        self.clock.advance(59)
        self.assertEqual(self.source.open_files, 1)
        self.clock.advance(1)
        self.assertTrue(self.caller.lost)
        self.assertEqual(self.source.open_files, 0)

    def test_site_closes(self) -> None:
        """Closing the site ends transfers."""
        self.caller.ask(self.sparse(1 << 30))
        self.site.close()
        self.assertTrue(self.caller.lost)
        self.assertEqual(self.source.open_files, 0)

    def test_tls_ends_first(self) -> None:
        """A caller who ends TLS but not TCP doesn't make us read on for nothing."""
        self.caller.ask(self.sparse(1 << 30))
        reads, pread = [], os.pread

        def counted(fd: int, size: int, offset: int) -> bytes:
            reads.append(size)
            return pread(fd, size, offset)

        self.patch(os, "pread", counted)
        self.caller.wire.disconnecting = True
        self.caller.wire.take(CHUNK * 2)  # it wants more, and will swallow it
        self.assertTrue(self.caller.wire.aborted)
        self.assertTrue(self.caller.lost)
        self.assertEqual(self.source.open_files, 0)
        self.assertEqual(len(reads), 1)

    def test_goodbye_in_the_middle(self) -> None:
        """The file is closed too when the connection was closing already."""
        self.caller.ask(self.sparse(1 << 30))
        self.caller.channel.loseConnection()
        self.caller.wire.lose(ConnectionError())
        self.assertEqual(self.source.open_files, 0)

    def test_a_transport_that_takes_at_once(self) -> None:
        """A transport may ask for more from within a write, a thousand times."""
        wire = self.caller.wire
        write, taken = wire.write, []

        def take(data: bytes) -> None:
            write(data)
            taken.append(len(wire.take(1 << 20)))

        self.patch(wire, "write", take)
        self.caller.ask(self.sparse(1 << 28))
        self.assertLess(sum(taken) - (1 << 28), 1000)

    def test_file_gets_shorter(self) -> None:
        """A file that fails in the middle cuts the connection: no false end."""
        target = self.sparse(4 * CHUNK)
        path, _ = self.source.paths[FileID(target.rpartition("/")[2])]
        self.caller.ask(target)
        os.truncate(path, CHUNK)
        for _ in self.drain(self.caller, CHUNK):
            pass
        self.assertTrue(self.caller.wire.aborted)
        self.assertEqual(self.source.open_files, 0)

    def test_reading_fails(self) -> None:
        """A disk that fails is logged, and cuts the connection."""
        target = self.sparse(4 * CHUNK)
        self.source.paths[FileID(target.rpartition("/")[2])] = (
            os.path.dirname(os.path.abspath(__file__)),
            Leaves(4 * CHUNK, bytes(32)),
        )
        self.caller.ask(target)
        self.assertTrue(self.caller.wire.aborted)
        self.assertEqual(len(self.flushLoggedErrors(IsADirectoryError)), 1)

    def test_keep_alive_and_pipelining(self) -> None:
        """Files asked for together come one after the other, each whole."""
        contents = [random.Random(n).randbytes(n * 100_000) for n in range(6)]
        targets = [self.add(data, str(len(data))) for data in contents]
        for target in targets:
            self.caller.ask(target)
        answers: list[Answer] = self.caller.answers()
        self.assertTrue([each.body for each in answers] == contents)
        self.assertLess(self.caller.wire.peak, 2 * CHUNK + 2000)
        self.assertEqual(self.source.open_files, 0)

    def test_old_http(self) -> None:
        """HTTP/1.0 gets the file, then the end of the connection."""
        target = self.add(b"0123456789")
        self.caller.say(f"GET {target} HTTP/1.0\r\n\r\n".encode())
        (answer,) = self.caller.answers()
        self.assertEqual((answer.status, answer.body), (200, b"0123456789"))
        self.assertTrue(self.caller.lost)
