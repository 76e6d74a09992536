"""Tests of node.usednames and node.faces."""

import errno
import os
from pathlib import Path
from unittest.mock import patch

from cryptography.hazmat.primitives.serialization import Encoding
from twisted.trial.unittest import SynchronousTestCase

from node import usednames
from node.directory import NodeDirectory
from node.errors import Failed
from node.faces import NAMED, OTHERS, OWN, make_choice, make_faces
from node.identity import Identity
from node.peersfile import KnownPeer, Peers
from node.settings import new_settings
from node.usednames import FILE, UsedNames
from protocols import callname, certificates
from protocols.callname import RECORD
from protocols.card import Card
from protocols.principal import Trust
from tests.kit import DAY, NONCES, House, today


class NodeTests(SynchronousTestCase):
    """A node at rest, to begin with."""

    def setUp(self) -> None:
        self.now = today()
        self.directory = NodeDirectory(Path(self.mktemp()))
        settings = new_settings("desk", ["tcp:1"], ["desk.home"])
        self.identity = Identity.create(self.directory, settings, self.now)
        lock = self.directory.lock()
        lock.__enter__()
        self.addCleanup(lock.__exit__, None, None, None)

    def used(self, now: float | None = None) -> UsedNames:
        """Open the file, as at a start of the node."""
        used = UsedNames(self.directory, lambda: now or self.now)
        self.addCleanup(used.close)
        return used

    def name(self) -> str:
        """A fresh name of an own device."""
        secret = callname.own_secret(
            self.identity.node, certificates.key_id(self.identity.user_ca)
        )
        return callname.make(secret, self.now, next(NONCES))

    def take(self, used: UsedNames, name: str) -> str | None:
        """Ask for a name, after a start of the node."""
        choose = make_choice(
            self.identity, ["desk.home"], used.records, used.keep, lambda: self.now
        )
        return choose(name)


class UsedNamesTests(NodeTests):
    """Names stay used over a restart."""

    def test_restart(self) -> None:
        """A name is good once, whatever happens to the node in between."""
        name = self.name()
        self.assertEqual(self.take(self.used(), name), OWN)
        for _ in range(2):
            self.assertIsNone(self.take(self.used(), name))

    def test_torn(self) -> None:
        """A record that a crash has cut costs itself alone."""
        first, second = self.name(), self.name()
        self.take(self.used(), first)
        with (self.directory.path / FILE).open("ab") as file:
            file.write(b"torn")
        self.assertEqual(self.take(self.used(), second), OWN)
        for name in (first, second):
            self.assertIsNone(self.take(self.used(), name))

    def test_full_disk(self) -> None:
        """On a full disk the node goes on, and says what is wrong."""
        used = self.used()
        full = OSError(errno.ENOSPC, "No space left on device")
        with patch.object(os, "write", side_effect=full):
            self.assertEqual(self.take(used, self.name()), OWN)
        self.assertEqual(used.failing, "No space left on device")
        self.assertEqual(self.take(used, self.name()), OWN)
        self.assertIsNone(used.failing)

    def test_half_a_record(self) -> None:
        """Half a record is taken back, so that the next ones are whole."""
        used, name = self.used(), self.name()
        write = os.write
        with patch.object(os, "write", lambda fd, data: write(fd, data[:5])):
            self.take(used, self.name())
        self.assertIsNotNone(used.failing)
        self.take(used, name)
        self.assertIsNone(self.take(self.used(), name))

    def test_old_days(self) -> None:
        """Old days are dropped at a start."""
        self.take(self.used(), self.name())
        self.assertEqual(len(self.used(self.now + 2 * DAY).records), 0)
        self.assertEqual(self.size(), 0)

    def test_old_days_while_running(self) -> None:
        """A node that runs for years keeps three days, and what it used up in them."""
        used, begin = self.used(), self.now
        largest = 0
        names: list[str] = []
        for day in range(10):
            self.now = begin + day * DAY
            names = [*names[-10:], *(self.name() for _ in range(10))]
            for name in names[-10:]:
                self.assertEqual(self.take(used, name), OWN)
            largest = max(largest, self.size())
        self.assertLessEqual(largest, 3 * 10 * RECORD)
        again = self.used()
        for name in names:
            self.assertIsNone(self.take(again, name))

    def test_full_disk_at_midnight(self) -> None:
        """If old days can't be dropped, names are kept all the same."""
        used, name = self.used(), self.name()
        self.take(used, name)
        self.now += DAY
        full = Failed("cannot write", "No space left on device")
        second = self.name()
        with patch.object(NodeDirectory, "write_file", side_effect=full):
            self.assertEqual(self.take(used, second), OWN)
        self.assertEqual(len(self.flushLoggedErrors(Failed)), 1)
        for each in (name, second):
            self.assertIsNone(self.take(self.used(), each))

    def test_far_too_large(self) -> None:
        """A file of any size is read, in bounded memory, and cut down at a start."""
        name = self.name()
        self.take(self.used(), name)
        path = self.directory.path / FILE
        good = path.read_bytes()
        old = (1 << 24) // RECORD * RECORD
        with path.open("wb") as file:
            file.truncate(old)  # records of day 0
            file.seek(old)
            file.write(good)
        self.assertIsNone(self.take(self.used(), name))
        self.assertEqual(self.size(), len(good))

    def test_too_many_good_ones(self) -> None:
        """More names than can be good come from no node; the newest are kept."""
        self.patch(usednames, "MOST", 3)
        used, names = self.used(), [self.name() for _ in range(5)]
        for name in names:
            self.take(used, name)
        self.assertEqual(len(self.used().records), 3)
        self.assertIsNone(self.take(self.used(), names[-1]))

    def size(self) -> int:
        """The size of the file."""
        return (self.directory.path / FILE).stat().st_size


class FacesTests(NodeTests):
    """What is shown to whom."""

    def test_plain_name(self) -> None:
        """Plain names can be asked for again and again."""
        used = self.used()
        for _ in range(2):
            self.assertEqual(self.take(used, "desk.home"), NAMED)
        self.assertIsNone(self.take(used, "other.home"))

    def test_faces(self) -> None:
        """Outsiders see neither the user CA nor any sister."""
        key = certificates.new_key()
        friend = certificates.pairwise_ca(key, self.now)
        other = House.new(self.now).device()
        der = friend.public_bytes(Encoding.DER)
        bob = KnownPeer("bob", "person", Card(other.node), 0, der)
        faces = make_faces(self.identity, ["desk.home"], Peers((bob,)), self.now)
        mine = Trust(user_ca=self.identity.user_ca)
        self.assertEqual(
            {kind: face.trust for kind, face in faces.items()},
            {OWN: mine, NAMED: mine, OTHERS: Trust(people=((friend, "bob"),))},
        )
        (bare,) = faces[OTHERS].tub.chain
        self.assertEqual(bare.issuer, bare.subject)

    def test_no_names(self) -> None:
        """Without plain names there is no certificate for them."""
        faces = make_faces(self.identity, [], Peers(), self.now)
        self.assertEqual(faces.keys(), {OWN, OTHERS})
