"""Tests of node.listing: what peers say that they hold."""

import json
from collections.abc import Callable, Mapping
from itertools import repeat
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import UNKNOWN_LENGTH, IResponse

from broker.errors import NotConnected, PeerRefusedUs, RequestFailed
from node.errors import Failed, Integrity, TimedOut, Unreachable, Untrusted
from node.listing import (
    Limits,
    Listing,
    NotFound,
    RemoteFile,
    remote_listing,
    select,
)
from protocols.filename import check_name
from protocols.nodeid import NodeID
from tests.node.sources import CHUNK, Answer, MemorySource, answer
from tests.protocols.test_fileid import leaves_of

ONE, TWO = NodeID("a" * 52), NodeID("b" * 51 + "a")
ID = leaves_of(b"x").id


def entry(**changes: Any) -> dict[str, Any]:
    """A proper entry of a list, with changes."""
    proper = {"id": ID.text, "name": "film", "size": 1, "media_type": "text/plain"}
    return proper | changes


class ListingTests(SynchronousTestCase):
    """Peers are asked, and believed only so far."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.addCleanup(lambda: self.assertEqual(self.clock.getDelayedCalls(), []))

    def listing(self, *peers: MemorySource, name: str | None = None) -> Listing:
        """Ask and wait."""
        asking = remote_listing(peers, clock=self.clock, wanted=name)
        return self.successResultOf(asking)

    def says(self, make: Callable[[], IResponse | BaseException]) -> Listing:
        """Ask a peer that always gives this answer."""
        peer = MemorySource({}, fault=lambda path, headers: make())
        limits = Limits(entries=1000, pages=20, size=1 << 20)
        asking = remote_listing([peer], clock=self.clock, limits=limits)
        return self.successResultOf(asking)

    def problems(self, listing: Listing) -> list[str]:
        """The faults, in words."""
        return [fault.text for fault in listing.faults]

    def names(self, listing: Listing) -> list[str]:
        """The names of all files."""
        return [file.name for file in listing.files]

    def test_joined(self) -> None:
        """The same file of several peers is one file with several holders."""
        one = MemorySource({"b": b"same", "a": b"1"}, node=ONE)
        two = MemorySource({"b": b"same", "a": b"2"}, "nas", TWO)
        listing = self.listing(one, two)
        self.assertEqual(self.names(listing), ["a", "a", "b"])
        self.assertEqual(listing.files[2].holders, {ONE: 4, TWO: 4})
        self.assertEqual(listing.files[2].id, leaves_of(b"same").id)
        self.assertEqual((listing.files[2].size, listing.faults), (4, ()))

    def test_id_is_no_name(self) -> None:
        """Content that is only called like an id is not what was asked for."""
        id = leaves_of(b"wanted").id.text
        (evil,) = self.listing(MemorySource({id: b"evil"})).files
        self.assertEqual(evil.name, id)
        self.assertRaises(NotFound, select, [evil], id)

    def test_names_of_an_id(self) -> None:
        """Whatever others call it, all holders count, and our name wins."""
        id = leaves_of(b"x").id.text
        mine = MemorySource({"mine": b"x"}, node=ONE)
        theirs = MemorySource({"!.bashrc": b"x"}, "nas", TWO)
        files = self.listing(theirs, mine).files
        (chosen,) = select(files, id, ONE)
        self.assertEqual(chosen.name, "mine")
        self.assertEqual(list(chosen.holders), [ONE, TWO])

    def test_wanted(self) -> None:
        """Only what may be meant is asked for: an id, or a name with a slash or none."""
        source = MemorySource({"top/a": b"1", "top": b"2", "b": b"1"})
        for wanted, names in (
            (leaves_of(b"1").id.text, ["b", "top/a"]),
            ("top/", ["top", "top/a"]),
            ("b", ["b"]),
        ):
            self.assertEqual(self.names(self.listing(source, name=wanted)), names)

    def test_sizes(self) -> None:
        """Each holder is remembered with its own word for the size."""
        lie = {"files": [entry(size=7), entry(size=8)], "next": None}
        liar = MemorySource(
            {}, fault=lambda path, headers: answer(200, json.dumps(lie).encode())
        )
        (file,) = self.listing(liar, MemorySource({"film": b"x"}, "nas", TWO)).files
        self.assertEqual((file.size, file.holders), (7, {ONE: 7, TWO: 1}))
        self.assertEqual(list(file.holders), [ONE, TWO])

    def test_pages(self) -> None:
        """Long lists come page by page, whole."""
        files = {f"top/{number:04}": b"" for number in range(2020)}
        source = MemorySource(files)
        self.assertEqual(self.names(self.listing(source)), list(files))
        self.assertEqual(len(source.asked), 3)

    def test_name(self) -> None:
        """Only the name and what is below it are asked for, safely spelled."""
        names = ["t", "t/a", "tt", "ü &=?#%/x"]
        source = MemorySource(dict.fromkeys(names, b""))
        self.assertEqual(self.names(self.listing(source, name="t")), ["t", "t/a"])
        self.assertEqual(self.names(self.listing(source, name=names[3])), [names[3]])
        self.assertEqual(self.names(self.listing(source, name="ü &=?#%")), [names[3]])

    def test_bad_entries(self) -> None:
        """Entries that can't be are left out and told, good ones stay."""
        bad: list[object] = [
            entry(name="../film"),
            entry(name="/etc/passwd"),
            entry(name="a\u0000b"),
            entry(name="a\ud800b"),
            entry(name=7),
            entry(id="x"),
            entry(id=None),
            entry(size=-1),
            entry(size=True),
            entry(size=1.5),
            entry(size=1 << 70),
            {},
            [],
            None,
        ]
        document = {"files": [*bad, entry()], "next": None}
        listing = self.says(lambda: answer(200, json.dumps(document).encode()))
        self.assertEqual(self.names(listing), ["film"])
        self.assertEqual(len(listing.faults), 3)
        self.assertIn("laptop: a file was left out", listing.faults[0].text)
        self.assertIs(listing.faults[0].kind, Integrity)

    def test_media_type(self) -> None:
        """A strange media type is not passed on."""
        for strange in ("text/plain\r\nX: y", "text", 7, None, "a/" + "b" * 500):
            document = {"files": [entry(media_type=strange)], "next": None}
            listing = self.says(lambda d=document: answer(200, json.dumps(d).encode()))  # type: ignore[misc]
            self.assertEqual(listing.files[0].media_type, "application/octet-stream")

    def test_no_list(self) -> None:
        """What is not a list of files is a problem of that peer alone."""
        for data in (
            b"",
            b"[]",
            b"{",
            b"\xff",
            b"[" * 200_000,
            b'{"files": 7}',
            b'{"files": [], "files": []}',
            b'{"files": [null], "next": "1"}',
            b'{"files": [null], "next": true}',
            b'{"files": [null], "next": 0}',
            b'{"files": [null], "next": -5}',
            b'{"files": [null], "next": 1' + b"0" * 30 + b"}",
            b'{"files": [null], "next": 1' + b"0" * 5000 + b"}",
            json.dumps({"files": [entry()] * 1001, "next": None}).encode(),
        ):
            good = MemorySource({"a": b""}, "nas", TWO)
            bad = MemorySource(
                {},
                fault=lambda path, headers, data=data: answer(200, data),  # type: ignore[misc]
            )
            listing = self.listing(bad, good)
            self.assertEqual(self.names(listing), ["a"])
            self.assertIn("laptop: list of files: ", listing.faults[-1].text)
            self.assertIs(listing.faults[-1].kind, Integrity)
            self.assertEqual(len(bad.asked), 1)

    def endless(self, files: list[Any]) -> tuple[int, Listing]:
        """Ask a peer that goes on with such a page; give how many were asked for."""
        pages = 0

        def page() -> Answer:
            nonlocal pages
            pages += 1
            return answer(200, json.dumps({"files": files, "next": pages}).encode())

        listing = self.says(page)
        return pages, listing

    def test_endless_pages(self) -> None:
        """A list that never ends, ends, and what it held until then stays."""
        for files, most in (
            ([entry()] * 250, 4),  # so many entries
            ([1] * 250, 4),  # bad ones count as well
            ([1], 20),  # so many pages
            ([entry(name="/".join(["n" * 250] * 16))] * 100, 3),  # so many bytes
        ):
            pages, listing = self.endless(files)
            self.assertEqual(pages, most)
            told = f"only {most * len(files)} of its files are listed"
            self.assertEqual(
                self.problems(listing)[-1], f"laptop has a long list: {told}"
            )
            self.assertEqual(len(listing.files), 0 if files[0] == 1 else 1)

    def test_empty_endless_pages(self) -> None:
        """So does one whose pages hold nothing."""
        row = 0

        def page() -> Answer:
            nonlocal row
            row += 1
            return answer(200, json.dumps({"files": [], "next": row}).encode())

        listing = self.says(page)
        self.assertEqual(row, 1)
        self.assertEqual(len(listing.faults), 1)

    def test_endless_body(self) -> None:
        """A body without end is not collected."""
        for length in (UNKNOWN_LENGTH, 1 << 60):
            made = Answer(200, repeat(b"x" * CHUNK), length)
            listing = self.says(lambda made=made: made)  # type: ignore[misc]
            self.assertIn("laptop: the answer is longer than", listing.faults[0].text)
            assert made.flow is not None
            self.assertTrue(made.flow.stopped)
            self.assertLess(made.flow.given, 6 << 20)

    def test_kinds(self) -> None:
        """Each fault names its peer once, and has the exit code that fits."""
        for made, kind, text in (
            (answer(403, b"{}"), Untrusted, "laptop does not let us have its list"),
            (answer(404, b"{}"), Failed, "laptop does not have its list of files"),
            (answer(500, b"{}"), Unreachable, "laptop answered 500"),
            (NotConnected("laptop", "is away"), Unreachable, "laptop is away"),
            (RequestFailed("laptop: no answer"), Unreachable, "laptop: no answer"),
            (PeerRefusedUs("laptop", "refused us"), Untrusted, "laptop refused us"),
        ):
            (fault,) = self.says(lambda made=made: made).faults  # type: ignore[misc]
            self.assertTrue(fault.text.startswith(text), fault.text)
            self.assertEqual(fault.text.count("laptop"), 1)
            self.assertIs(fault.kind, kind)

    def test_slow(self) -> None:
        """A list that doesn't come doesn't hold up the others for ever."""
        slow = MemorySource(
            {}, fault=lambda path, headers: Answer(200, iter([]), 5, end=None)
        )
        good = MemorySource({"a": b""}, "nas", TWO)
        asking = remote_listing([slow, good], clock=self.clock)
        self.clock.advance(29)
        self.assertNoResult(asking)
        self.clock.advance(1)
        listing = self.successResultOf(asking)
        self.assertEqual(self.names(listing), ["a"])
        self.assertEqual(
            self.problems(listing),
            ["laptop did not send all of its list of files in 30 s"],
        )
        self.assertIs(listing.faults[0].kind, TimedOut)

    def test_slow_pages(self) -> None:
        """The time is for all pages, and those that came count."""
        waiting: list[Deferred[IResponse]] = []

        class Slow(MemorySource):
            def request(self, *args: Any, **kwargs: Any) -> Deferred[IResponse]:
                waiting.append(Deferred())
                return waiting[-1]

        asking = remote_listing([Slow({})], clock=self.clock)
        for row in range(1, 4):
            self.clock.advance(9)
            document = {"files": [entry(name=f"{row}")], "next": row}
            waiting[-1].callback(answer(200, json.dumps(document).encode()))
        self.assertNoResult(asking)
        self.clock.advance(3)
        listing = self.successResultOf(asking)
        self.assertEqual(self.names(listing), ["1", "2", "3"])
        self.assertIn("in 30 s", self.problems(listing)[0])

    def test_cancel(self) -> None:
        """Cancelling ends all requests."""
        slow = MemorySource(
            {}, fault=lambda path, headers: Answer(200, iter([]), 5, end=None)
        )
        asking = remote_listing([slow, slow], clock=self.clock)
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        for made in slow.answers:
            self.assertTrue(made.flow and made.flow.stopped)

    @settings(deadline=None, max_examples=100)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(
                    st.sampled_from(
                        ["files", "next", "id", "name", "size", "media_type"]
                    ),
                    inner,
                    max_size=5,
                )
            ),
            max_leaves=20,
        )
    )
    def test_any_json(self, document: object) -> None:
        """Whatever a peer says, the answer is a listing with safe names."""
        given = iter([answer(200, json.dumps(document).encode())])

        def fault(path: str, headers: Mapping[str, str]) -> IResponse | BaseException:
            return next(given, None) or NotConnected("laptop", "is gone")

        for file in self.listing(MemorySource({}, fault=fault)).files:
            check_name(file.name)


class SelectTests(SynchronousTestCase):
    """What the user means."""

    def files(self, *names: str) -> list[RemoteFile]:
        """Files of these names, all with different content."""
        return [
            RemoteFile(leaves_of(b"%d" % number).id, name, 1, "text/plain", {ONE: 1})
            for number, name in enumerate(names)
        ]

    def test_file(self) -> None:
        """A name, a full path or an id."""
        files = self.files("a", "top/a", "b")
        self.assertEqual(select(files, "a"), files[:1])
        self.assertEqual(select(files, "top/a"), files[1:2])
        self.assertEqual(select(files, files[2].id.text), files[2:])

    def test_folder(self) -> None:
        """A folder is all below it, at any depth."""
        files = self.files("top/a", "top/in/b", "topping/c", "top.txt")
        for wanted in ("top", "top/"):
            self.assertEqual(select(files, wanted), files[:2])
        self.assertEqual(select(files, "top/in"), files[1:2])

    def test_nothing(self) -> None:
        """A name that nobody has."""
        self.assertRaises(Failed, select, self.files("a"), "b")

    def test_equal_names(self) -> None:
        """Equal names are an error that lists the ids."""
        files = self.files("a", "a", "top/x", "top/x")
        for wanted, pair in (("a", files[:2]), ("top", files[2:])):
            error = self.assertRaises(Failed, select, files, wanted)
            for file in pair:
                self.assertIn(file.id.text, str(error))

    def test_file_and_folder(self) -> None:
        """A name of both is an error too."""
        self.assertRaises(Failed, select, self.files("top", "top/a"), "top")

    def test_several_names(self) -> None:
        """An id with several names is one file."""
        files = [*self.files("a"), *self.files("b")]
        self.assertEqual(select(files, files[0].id.text), files[:1])
