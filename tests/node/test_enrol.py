"""Tests of a second device, offline."""

import json
from pathlib import Path

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from node.announcing import card_of, hints_now
from node.directory import Locked, NodeDirectory
from node.enrol import ADMITTED, PENDING, accept, admit, request
from node.errors import Failed, Untrusted, WherryError
from node.identity import USER_KEY, Identity
from node.peersfile import KnownPeer, Peers, load_peers, save_peers
from node.settings import Settings, load_settings
from protocols import certificates
from protocols.card import Card
from protocols.enrolment import DeviceBundle, DeviceRequest
from protocols.hint import Hint
from protocols.nodeid import NodeID
from protocols.signed import seal
from protocols.words import three_words
from tests.node.powercut import run_until

NOW = 1_790_000_000.0
DAY = 86400.0


def own_card(directory: NodeDirectory) -> Card:
    """Make the card of the node in a directory."""
    settings = load_settings(directory)
    return card_of(Identity.load(directory), settings, hints_now(settings, None))


class EnrolTestCase(SynchronousTestCase):
    """Gives each test two nodes that know nobody."""

    def setUp(self) -> None:
        """Make them."""
        self.first = self.make("desk")
        self.second = self.make("laptop")

    def make(self, nickname: str, names: tuple[str, ...] = ()) -> NodeDirectory:
        """Make a node with a user CA of its own."""
        directory = NodeDirectory(Path(self.mktemp()))
        hints = (Hint.parse(f"tcp:{nickname}.example.org:8443"),)
        settings = Settings(nickname, ("tcp6:8443",), names, hints)
        Identity.create(directory, settings, NOW)
        return directory

    def enrol(self, new: NodeDirectory, holder: NodeDirectory, now: float = NOW) -> str:
        """Make one a device of the other's user; give the bundle."""
        asked = request(new, now)
        bundle = admit(holder, asked.text(), now).commit()
        accept(new, bundle, now).commit()
        return bundle

    def assert_joined(self, new: NodeDirectory, holder: NodeDirectory) -> None:
        """Check that one is a device of the other's user and both know it."""
        theirs, ours = Identity.load(holder), Identity.load(new)
        self.assertEqual(ours.user_ca, theirs.user_ca)
        self.assertFalse(ours.holds_user_ca)
        self.assertFalse(new.has(USER_KEY))
        self.assertFalse(new.has(PENDING))
        for directory, other in ((new, holder), (holder, new)):
            identity = Identity.load(other)
            peer = load_peers(directory).get(identity.node)
            assert peer is not None
            self.assertEqual(peer.kind, "device")
            self.assertEqual(peer.card, own_card(other))


class EnrolTests(EnrolTestCase):
    """What goes right."""

    def test_joined(self) -> None:
        """Afterwards each knows the other; keys and node id have stayed."""
        before = Identity.load(self.second)
        self.enrol(self.second, self.first)
        self.assert_joined(self.second, self.first)
        after = Identity.load(self.second)
        self.assertEqual(
            (after.node, after.device_ca.public_key(), after.discovery),
            (before.node, before.device_ca.public_key(), before.discovery),
        )
        self.assertEqual(list(load_peers(self.first).nicknames), ["laptop"])
        self.assertEqual(list(load_peers(self.second).nicknames), ["desk"])

    def test_words(self) -> None:
        """Both sides show the request's words, then the user CA's."""
        asked = request(self.second, NOW)
        admission = admit(self.first, asked.text(), NOW)
        self.assertEqual(admission.words, three_words(asked.digest))
        self.assertEqual(admission.nickname, "laptop")
        self.assertEqual(admission.node, Identity.load(self.second).node)
        acceptance = accept(self.second, admission.commit(), NOW)
        self.assertEqual(acceptance.words, admission.user_words)
        self.assertNotEqual(acceptance.words, admission.words)
        self.assertEqual(acceptance.devices, ("desk",))
        self.assertTrue(acceptance.discards)

    def test_nothing_before_commit(self) -> None:
        """Looking at a request or a bundle changes nothing."""
        asked = request(self.second, NOW).text()
        before = _files(self.first)
        admission = admit(self.first, asked, NOW)
        self.assertEqual(_files(self.first), before)
        bundle = admission.commit()
        before = _files(self.second)
        accept(self.second, bundle, NOW)
        self.assertEqual(_files(self.second), before)

    def test_third_device(self) -> None:
        """A later device learns of all earlier ones."""
        third = self.make("desk")
        self.enrol(self.second, self.first)
        self.enrol(third, self.first)
        self.assert_joined(third, self.first)
        self.assertEqual(list(load_peers(third).nicknames), ["desk-2", "laptop"])
        self.assertEqual(list(load_peers(self.first).nicknames), ["laptop", "desk-2"])

    def test_request_again(self) -> None:
        """Asking again gives the same text, unless something has changed."""
        one = request(self.second, NOW)
        self.assertEqual(request(self.second, NOW + 60).text(), one.text())
        settings = evolve(load_settings(self.second), hints=())
        self.second.write_file("node.yaml", settings.text().encode())
        other = request(self.second, NOW + 60)
        self.assertNotEqual(other.digest, one.digest)
        bundle = admit(self.first, one.text(), NOW).commit()
        error = self.assertRaises(Untrusted, accept, self.second, bundle, NOW)
        self.assertIn("another request", str(error))

    def test_admit_again(self) -> None:
        """A bundle that was lost is made again; either one is good, once."""
        asked = request(self.second, NOW).text()
        lost = admit(self.first, asked, NOW).commit()
        bundle = admit(self.first, asked, NOW + DAY).commit()
        self.assertEqual(len(load_peers(self.first).known), 1)
        accept(self.second, bundle, NOW + DAY).commit()
        self.assert_joined(self.second, self.first)
        self.assertRaises(Untrusted, accept, self.second, lost, NOW + DAY)

    def test_renewal(self) -> None:
        """A device that has joined asks again: for more time, or for a name."""
        self.enrol(self.second, self.first)
        before = Identity.load(self.second)
        settings = evolve(load_settings(self.second), names=("tv.test",))
        self.second.write_file("node.yaml", settings.text().encode())
        self.enrol(self.second, self.first, NOW + 300 * DAY)
        self.assert_joined(self.second, self.first)
        after = Identity.load(self.second)
        self.assertEqual(after.names, ("tv.test",))
        self.assertGreater(after.end, before.end)
        self.assertEqual(list(load_peers(self.second).nicknames), ["desk"])

    def test_odd_name(self) -> None:
        """A name that can't be a nickname does no harm."""
        identity = Identity.load(self.second)
        card = own_card(self.second)
        asked = DeviceRequest.make(
            evolve(card, name="~../x"),
            (),
            identity.server_key,
            identity.device_key,
            NOW,
        )
        admission = admit(self.first, asked.signed.text(), NOW)
        self.assertEqual(admission.nickname, identity.node.text[:7])
        admission.commit()
        self.assertEqual(
            list(load_peers(self.first).nicknames), [identity.node.text[:7]]
        )

    def test_locked(self) -> None:
        """While a node runs in the directory nothing is read or written."""
        asked = request(self.second, NOW).text()
        for directory in (self.first, self.second):
            with NodeDirectory(directory.path).lock():
                self.assertRaises(Locked, request, directory, NOW)
                self.assertRaises(Locked, admit, directory, asked, NOW)
                self.assertRaises(Locked, accept, directory, "", NOW)


class RefusedRequestTests(EnrolTestCase):
    """Requests that the device with the user CA refuses."""

    def refused(self, text: str, kind: type[WherryError]) -> str:
        """Show a request that must be refused; give the message."""
        before = _files(self.first)
        error = self.assertRaises(kind, admit, self.first, text, NOW)
        self.assertEqual(_files(self.first), before)
        return str(error)

    def test_altered(self) -> None:
        """A request that was altered has a wrong signature."""
        document = json.loads(request(self.second, NOW).text())
        admit(self.first, json.dumps(document), NOW)
        document["signature"] = json.loads(request(self.first, NOW).text())["signature"]
        self.assertIn(
            "signature does not match", self.refused(json.dumps(document), Untrusted)
        )

    def test_in_the_name_of_another(self) -> None:
        """A card that is not the signer's is refused."""
        identity = Identity.load(self.second)
        card = own_card(self.second)
        stranger = certificates.new_key()
        stated = DeviceRequest.make(
            card, (), identity.server_key, identity.device_key, NOW
        ).signed
        forged = seal(stated.kind, stated.payload, stranger).text()
        self.refused(forged, Untrusted)

    def test_no_request(self) -> None:
        """Other texts are no request: empty, a card, a bundle, too long."""
        asked = request(self.second, NOW).text()
        bundle = admit(self.first, asked, NOW).commit()
        card = own_card(self.second)
        for text in ("", card.text(), bundle, "[" * 100_000, "\udcff"):
            message = self.refused(text, Failed)
            self.assertIn("no device request", message)
            self.assertNotIn("d=", message)

    def test_own(self) -> None:
        """The device's own request is a mix-up."""
        text = request(self.first, NOW).text()
        self.assertIn("this very device", self.refused(text, Failed))

    def test_no_user_ca(self) -> None:
        """A device without the user CA's key admits nobody."""
        third = self.make("phone")
        self.enrol(self.second, self.first)
        asked = request(third, NOW).text()
        error = self.assertRaises(Failed, admit, self.second, asked, NOW)
        self.assertIn("does not hold the user CA", str(error))

    def test_person(self) -> None:
        """A node that is known as a person doesn't become an own device."""
        identity = Identity.load(self.second)
        person = KnownPeer("bob", "person", Card(identity.node), int(NOW))
        save_peers(self.first, Peers((person,)))
        text = request(self.second, NOW).text()
        self.assertIn("the person bob", self.refused(text, Untrusted))


class RefusedBundleTests(EnrolTestCase):
    """Bundles that the new device refuses, leaving it as it was."""

    def refused(
        self, text: str, kind: type[WherryError] = Untrusted, now: float = NOW
    ) -> str:
        """Show a bundle that must be refused; give the message."""
        before = _files(self.second)
        error = self.assertRaises(kind, accept, self.second, text, now)
        self.assertEqual(_files(self.second), before)
        return str(error)

    def bundle(self) -> str:
        """Let the first admit the second."""
        return admit(self.first, request(self.second, NOW).text(), NOW).commit()

    def test_altered(self) -> None:
        """A bundle that was altered has a wrong signature."""
        document = json.loads(self.bundle())
        other = json.loads(self.bundle())
        self.assertNotEqual(document, other)
        document["signature"] = other["signature"]
        message = self.refused(json.dumps(document))
        self.assertIn("signature does not match", message)

    def test_not_signed_by_the_user_ca(self) -> None:
        """Somebody else can't put other cards around the same certificates."""
        real = DeviceBundle.parse(self.bundle())
        forged = seal(
            real.signed.kind, real.signed.payload, certificates.new_key()
        ).text()
        self.assertIn("signature does not match", self.refused(forged))

    def test_for_another_device(self) -> None:
        """The bundle of another new device is refused."""
        third = self.make("phone")
        request(self.second, NOW)
        bundle = admit(self.first, request(third, NOW).text(), NOW).commit()
        self.assertIn("for another node", self.refused(bundle))

    def test_for_another_key(self) -> None:
        """A bundle over a device key that is not ours is refused."""
        asked = DeviceRequest.parse(request(self.second, NOW).text())
        self.assertIn(
            "for another key",
            self.refused(self.forged(asked, certificates.new_key().public_key())),
        )
        # The control: the same over our own key is taken.
        accept(self.second, self.forged(asked, asked.device_key), NOW)

    def forged(self, asked: DeviceRequest, key: certificates.PublicKey) -> str:
        """Answer a request as a user CA that nobody knows, over any key."""
        user_key = certificates.new_key()
        user = certificates.user_ca(user_key, NOW)
        device = certificates.device_ca(key, asked.card.node, [], user, user_key, NOW)
        return DeviceBundle.make(asked, device, user, [], user_key).signed.text()

    def test_device_ca_of_another_user(self) -> None:
        """The two certificates must belong together."""
        asked = DeviceRequest.parse(request(self.second, NOW).text())
        keys = certificates.new_key(), certificates.new_key()
        users = [certificates.user_ca(key, NOW) for key in keys]
        node = asked.card.node
        device = certificates.device_ca(
            asked.device_key, node, [], users[1], keys[1], NOW
        )
        made = DeviceBundle.make(asked, device, users[0], [], keys[0])
        self.assertIn("not issued by", self.refused(made.signed.text()))

    def test_user_ca_that_is_none(self) -> None:
        """A user CA of the wrong shape is refused."""
        asked = DeviceRequest.parse(request(self.second, NOW).text())
        key = certificates.new_key()
        user = certificates.pairwise_ca(key, NOW)
        device = certificates.device_ca(
            asked.device_key, asked.card.node, [], user, key, NOW
        )
        made = DeviceBundle.make(asked, device, user, [], key)
        self.assertIn("path length 1", self.refused(made.signed.text()))

    def test_another_request(self) -> None:
        """A bundle for a request that this device never made is refused."""
        identity = Identity.load(self.second)
        card = own_card(self.second)
        other = DeviceRequest.make(
            card, (), identity.server_key, identity.device_key, NOW - 5
        )
        request(self.second, NOW)
        bundle = admit(self.first, other.signed.text(), NOW).commit()
        self.assertIn("another request", self.refused(bundle))

    def test_without_a_request(self) -> None:
        """A device that asked for nothing accepts nothing."""
        identity = Identity.load(self.second)
        card = own_card(self.second)
        other = DeviceRequest.make(
            card, (), identity.server_key, identity.device_key, NOW
        )
        bundle = admit(self.first, other.signed.text(), NOW).commit()
        self.assertIn("waits for none", self.refused(bundle))

    def test_twice(self) -> None:
        """A bundle is accepted once."""
        bundle = self.enrol(self.second, self.first)
        self.assertIn("accepted before", self.refused(bundle))

    def test_replayed(self) -> None:
        """An old bundle doesn't answer a new request."""
        bundle = self.enrol(self.second, self.first)
        request(self.second, NOW + DAY)
        self.assertIn("another request", self.refused(bundle, now=NOW + DAY))

    def test_times(self) -> None:
        """A bundle that has expired, or is from the future, is refused."""
        bundle = self.bundle()
        self.assertIn("expired", self.refused(bundle, now=NOW + 400 * DAY))
        self.assertIn("future", self.refused(bundle, now=NOW - 3 * DAY))
        accept(self.second, bundle, NOW)

    def test_no_bundle(self) -> None:
        """Other texts are no bundle."""
        asked = request(self.second, NOW).text()
        for text in ("", asked, "{" * 100_000, "\udcff"):
            self.assertIn("no device bundle", self.refused(text, Failed))

    def test_names(self) -> None:
        """A bundle that leaves out a name of node.yaml would break the node."""
        bundle = self.bundle()
        settings = evolve(load_settings(self.second), names=("tv.test",))
        self.second.write_file("node.yaml", settings.text().encode())
        self.assertIn("tv.test", self.refused(bundle))


class DiscardTests(EnrolTestCase):
    """The user CA that a device's own init made."""

    def refused(self) -> None:
        """Check that the second device neither asks for nor accepts another's."""
        before = _files(self.second)
        error = self.assertRaises(Failed, request, self.second, NOW)
        self.assertIn("in use", str(error))
        for text in (self.admitted,):
            error = self.assertRaises(Failed, accept, self.second, text, NOW)
            self.assertIn("in use", str(error))
        self.assertEqual(_files(self.second), before)

    def setUp(self) -> None:
        """Have a bundle that would be accepted."""
        super().setUp()
        asked = request(self.second, NOW).text()
        self.admitted = admit(self.first, asked, NOW).commit()

    def test_has_admitted(self) -> None:
        """It is kept if it has admitted a device."""
        third = self.make("phone")
        admit(self.second, request(third, NOW).text(), NOW).commit()
        self.refused()

    def test_has_admitted_and_forgotten(self) -> None:
        """Also if peers.yaml no longer tells of that device."""
        third = self.make("phone")
        admit(self.second, request(third, NOW).text(), NOW).commit()
        save_peers(self.second, Peers())
        self.refused()
        self.second.remove(ADMITTED)  # the control
        accept(self.second, self.admitted, NOW).commit()
        self.assert_joined(self.second, self.first)

    def test_knows_people(self) -> None:
        """It is kept if it knows people."""
        person = KnownPeer("bob", "person", Card(NodeID.of_spki(b"bob")), int(NOW))
        save_peers(self.second, Peers((person,)))
        self.refused()

    def test_between_looking_and_committing(self) -> None:
        """What happens while the words are compared counts too."""
        acceptance = accept(self.second, self.admitted, NOW)
        third = self.make("phone")
        admit(self.second, request(third, NOW).text(), NOW).commit()
        before = _files(self.second)
        self.assertRaises(Failed, acceptance.commit)
        self.assertEqual(_files(self.second), before)

    def test_belongs_to_another_user(self) -> None:
        """A device that has joined one user does not change over."""
        accept(self.second, self.admitted, NOW).commit()
        other = self.make("stranger")
        asked = request(self.second, NOW).text()
        bundle = admit(other, asked, NOW).commit()
        error = self.assertRaises(Untrusted, accept, self.second, bundle, NOW)
        self.assertIn("another user", str(error))


class CrashTests(EnrolTestCase):
    """Stopped at any moment, each step can be repeated."""

    def test_request(self) -> None:
        """A request that was stopped leaves none or a whole one."""
        for expected in (None, Failed):
            step = 0
            while run_until(step, lambda: request(self.second, NOW), expected):
                Identity.load(self.second)
                step += 1
            self.assertGreater(step, 1)
            self.second.remove(PENDING)
        self.enrol(self.second, self.first)

    def test_admit(self) -> None:
        """The user CA's record is never behind, and repeating gives a bundle."""
        for expected in (None, Failed):
            step, stopped = 0, True
            while stopped:
                first, second = self.make("desk"), self.make("laptop")
                asked = request(second, NOW).text()
                commit = admit(first, asked, NOW).commit
                stopped = run_until(step, commit, expected)
                Identity.load(first)
                if load_peers(first).known:
                    self.assertTrue(first.has(ADMITTED))
                bundle = admit(first, asked, NOW).commit()
                accept(second, bundle, NOW).commit()
                self.assert_joined(second, first)
                step += 1
            self.assertGreater(step, 4)

    def test_accept(self) -> None:
        """The device belongs to the old user CA or the new one, never to none."""
        for expected in (None, Failed):
            step, stopped = 0, True
            while stopped:
                second = self.make("laptop")
                old = Identity.load(second).user_ca
                asked = request(second, NOW).text()
                bundle = admit(self.first, asked, NOW).commit()
                commit = accept(second, bundle, NOW).commit
                stopped = run_until(step, commit, expected)
                found = Identity.load(second)
                if found.user_ca == old:
                    found.user_key(second)
                if second.has(PENDING):
                    accept(second, bundle, NOW).commit()
                self.assert_joined(second, self.first)
                self.assertRaises(Untrusted, accept, second, bundle, NOW)
                step += 1
            self.assertGreater(step, 6)


def _files(directory: NodeDirectory) -> dict[str, bytes]:
    """Read all of a directory but the lock, which names its last holder."""
    return {
        str(path): path.read_bytes()
        for path in directory.path.rglob("*")
        if path.is_file() and path != directory.lock_file
    }
