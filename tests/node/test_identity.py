"""Tests of a node's keys and certificates at rest."""

import os
import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store
from twisted.trial.unittest import SynchronousTestCase

from node.directory import NodeDirectory, NoNode
from node.errors import Failed, Untrusted
from node.identity import (
    CHAIN,
    DEVICE_KEY,
    DISCOVERY,
    SERVER_KEY,
    USER_KEY,
    Identity,
    permitted_names,
)
from node.settings import Settings, load_settings
from override.override import NOTHING, parse_override
from protocols import certificates
from protocols.errors import Malformed
from protocols.hint import Hint
from protocols.nodeid import NodeID
from tests.node.powercut import run_until

NOW = 1_790_000_000.0
DAY = 86400.0
SETTINGS = Settings(
    "desk", ("tcp6:8443",), ("desk.test",), (Hint.parse("tcp:10.0.0.1:8443"),)
)


class IdentityTestCase(SynchronousTestCase):
    """Gives each test a place for a node."""

    def setUp(self) -> None:
        """Name it."""
        self.directory = NodeDirectory(Path(self.mktemp()))


class CreateTests(IdentityTestCase):
    """Making a node."""

    def test_files(self) -> None:
        """A whole node: keys 0600, directories 0700, settings and override read."""
        made = Identity.create(self.directory, SETTINGS, NOW)
        found = {
            str(path.relative_to(self.directory.path)): path.stat().st_mode & 0o777
            for path in self.directory.path.rglob("*")
        }
        files = [SERVER_KEY, DEVICE_KEY, USER_KEY, CHAIN, DISCOVERY]
        files += ["node.yaml", "override.yaml", "lock"]
        wanted = dict.fromkeys(files, 0o600)
        self.assertEqual(found, wanted | {"private": 0o700})
        self.assertEqual(load_settings(self.directory), SETTINGS)
        text = self.directory.override.read_bytes()
        self.assertEqual(parse_override(text, "override.yaml", {}), NOTHING)
        self.assertEqual(made.names, ("desk.test",))

    def test_load(self) -> None:
        """What was made is loaded."""
        made = Identity.create(self.directory, SETTINGS, NOW)
        again = Identity.load(NodeDirectory(self.directory.path))
        self.assertEqual(
            (again.node, again.server, again.device_ca, again.user_ca),
            (made.node, made.server, made.device_ca, made.user_ca),
        )
        self.assertEqual(again.discovery, made.discovery)
        self.assertEqual(len(again.discovery), 16)
        self.assertTrue(again.holds_user_ca)
        self.assertEqual(
            again.user_key(self.directory).public_key(), made.user_ca.public_key()
        )

    def test_chain_verifies(self) -> None:
        """The chain that own devices are shown is good for the node's name."""
        made = Identity.create(self.directory, SETTINGS, NOW)
        folder = Path(self.mktemp())
        folder.mkdir()
        parts = {"leaf": made.server, "device": made.device_ca, "user": made.user_ca}
        for name, certificate in parts.items():
            (folder / name).write_bytes(certificates.pem([certificate]))
        options = ["-x509_strict", "-purpose", "sslserver", "-attime", str(int(NOW))]
        name = certificates.server_name(made.node)
        files = ["-CAfile", "user", "-untrusted", "device", "leaf"]
        done = subprocess.run(
            ["openssl", "verify", *options, "-verify_hostname", name, *files],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_again(self) -> None:
        """On a directory that is a node nothing is changed."""
        Identity.create(self.directory, SETTINGS, NOW)
        before = _contents(self.directory)
        error = self.assertRaises(
            Failed, Identity.create, self.directory, SETTINGS, NOW
        )
        self.assertIn("already", str(error))
        self.assertEqual(_contents(self.directory), before)

    def test_other_files(self) -> None:
        """A directory with something else in it is refused and not touched."""
        self.directory.make()
        self.directory.write_file("thesis.tex", b"...")
        error = self.assertRaises(
            Failed, Identity.create, self.directory, SETTINGS, NOW
        )
        self.assertIn("thesis.tex", str(error))
        self.assertEqual(self.directory.names(), ["thesis.tex"])

    def test_open_directory(self) -> None:
        """A directory that others can read gets no keys."""
        self.directory.path.mkdir(mode=0o755)
        self.directory.path.chmod(0o755)
        self.assertRaises(Untrusted, Identity.create, self.directory, SETTINGS, NOW)
        self.assertEqual(self.directory.names(), [])

    def test_no_secret_in_repr(self) -> None:
        """A repr shows the node id and nothing that is secret."""
        made = Identity.create(self.directory, SETTINGS, NOW)
        self.assertEqual(
            repr(made), f"Identity(node={made.node!r}, holds_user_ca=True)"
        )


class CrashTests(IdentityTestCase):
    """An init that is stopped at any moment."""

    def each_step(self, expected: type[Exception] | None) -> int:
        """Stop an init at each change of the disk in turn; give their number."""
        step = 0
        while True:
            directory = NodeDirectory(Path(self.mktemp()))

            def work(directory: NodeDirectory = directory) -> None:
                Identity.create(directory, SETTINGS, NOW)

            stopped = run_until(step, work, expected)
            fresh = NodeDirectory(directory.path)
            if fresh.exists():
                before = _contents(fresh)
                Identity.load(fresh)
                self.assertRaises(Failed, Identity.create, fresh, SETTINGS, NOW)
                self.assertEqual(_contents(fresh), before)
            else:
                self.assertTrue(stopped)
                self.assertRaises(NoNode, Identity.load, fresh)
                made = Identity.create(fresh, SETTINGS, NOW)
                self.assertEqual(Identity.load(fresh).node, made.node)
            with fresh.lock():
                litter = [name for name in fresh.names() if name.startswith(".")]
                self.assertEqual(litter, [])
            if not stopped:
                return step
            step += 1

    def test_killed(self) -> None:
        """Afterwards there is no node or a whole one, and init can be repeated."""
        self.assertGreater(self.each_step(None), 15)

    def test_full_disk(self) -> None:
        """The same for a disk that fills up, with an error for the user."""
        self.assertGreater(self.each_step(Failed), 15)


class LoadTests(IdentityTestCase):
    """What is wrong with the files is found before they are used."""

    def setUp(self) -> None:
        """Make a node, and another to take files from."""
        super().setUp()
        self.made = Identity.create(self.directory, SETTINGS, NOW)
        self.other = NodeDirectory(Path(self.mktemp()))
        Identity.create(self.other, SETTINGS, NOW)

    def test_missing(self) -> None:
        """A missing file is named."""
        for name in (SERVER_KEY, DEVICE_KEY, CHAIN, DISCOVERY):
            data = self.directory.read_file(name)
            self.directory.remove(name)
            error = self.assertRaises(Failed, Identity.load, self.directory)
            self.assertIn(f"{name}: it is missing", str(error))
            self.directory.write_file(name, data or b"")
        Identity.load(self.directory)

    def test_of_another_node(self) -> None:
        """A file of another node does not fit the others."""
        for name in (SERVER_KEY, DEVICE_KEY, CHAIN):
            data = self.directory.read_file(name)
            self.directory.write_file(name, self.other.read_file(name) or b"")
            self.assertRaises(Failed, Identity.load, self.directory)
            self.directory.write_file(name, data or b"")
        Identity.load(self.directory)

    def test_broken(self) -> None:
        """Files that hold something else."""
        for name in (SERVER_KEY, DEVICE_KEY, CHAIN, DISCOVERY):
            data = self.directory.read_file(name)
            for junk in (b"", b"\xff\x00", (data or b"")[:-9]):
                self.directory.write_file(name, junk)
                error = self.assertRaises(Failed, Identity.load, self.directory)
                self.assertNotIn("PRIVATE", str(error))
            self.directory.write_file(name, data or b"")
        Identity.load(self.directory)

    def test_open_to_others(self) -> None:
        """Keys that others can read, and links to keys, are refused."""
        path = self.directory.path / SERVER_KEY
        path.chmod(0o640)
        self.assertRaises(Untrusted, Identity.load, self.directory)
        path.chmod(0o600)
        path.rename(path.with_name("moved"))
        path.symlink_to("moved")
        self.assertRaises(Untrusted, Identity.load, self.directory)

    def test_foreign_certificates(self) -> None:
        """Certificates that fit by name but not by signature are refused."""
        made, key = self.made, certificates.new_key()
        user = certificates.user_ca(key, NOW)
        device = certificates.device_ca(
            made.device_key.public_key(), made.node, [], user, key, NOW
        )
        for chain in (
            (made.server, made.device_ca, user),
            (made.server, device, made.user_ca),
        ):
            self.directory.write_file(CHAIN, certificates.pem(chain))
            self.assertRaises(Failed, Identity.load, self.directory)
        # The control: one whole foreign chain over our keys does fit.
        self.directory.write_file(CHAIN, certificates.pem((made.server, device, user)))
        self.assertEqual(Identity.load(self.directory).user_ca, user)

    def test_not_an_authority(self) -> None:
        """A leaf in the place of an authority is refused, whoever signed it."""
        made = self.made
        user_key = made.user_key(self.directory)
        device = certificates.caller_leaf(
            made.device_key.public_key(), made.user_ca, user_key, NOW
        )
        self.assertRaises(Malformed, made.under, device, made.user_ca, NOW)
        wrong = certificates.device_ca(
            made.device_key.public_key(),
            NodeID.of_spki(b"x"),
            [],
            made.user_ca,
            user_key,
            NOW,
        )
        self.assertRaises(Malformed, made.under, wrong, made.user_ca, NOW)

    def test_user_key(self) -> None:
        """Another CA's key, and none, are told apart."""
        self.directory.write_file(USER_KEY, self.other.read_file(USER_KEY) or b"")
        loaded = Identity.load(self.directory)
        error = self.assertRaises(Failed, loaded.user_key, self.directory)
        self.assertIn("another user CA", str(error))
        self.directory.remove(USER_KEY)
        loaded = Identity.load(self.directory)
        self.assertFalse(loaded.holds_user_ca)
        error = self.assertRaises(Failed, loaded.user_key, self.directory)
        self.assertIn("does not hold the user CA", str(error))

    def test_passphrase(self) -> None:
        """The user CA's key may have one, which loading the node doesn't need."""
        key = self.made.user_key(self.directory)
        self.directory.write_file(USER_KEY, certificates.key_pem(key, b"open"))
        loaded = Identity.load(self.directory)
        self.assertRaises(Failed, loaded.user_key, self.directory)
        self.assertRaises(Failed, loaded.user_key, self.directory, b"shut")
        again = loaded.user_key(self.directory, b"open")
        self.assertEqual(again.public_key(), key.public_key())


class RenewTests(IdentityTestCase):
    """What is past half its life is renewed."""

    def setUp(self) -> None:
        """Make a node."""
        super().setUp()
        self.made = Identity.create(self.directory, SETTINGS, NOW)

    def test_young(self) -> None:
        """Nothing is written while everything is young."""
        before = _contents(self.directory)
        same = self.made.renewed(self.directory, SETTINGS, NOW + 10 * DAY)
        self.assertIs(same, self.made)
        self.assertEqual(_contents(self.directory), before)

    def test_server(self) -> None:
        """The server certificate is renewed over the same key."""
        fresh = self.made.renewed(self.directory, SETTINGS, NOW + 16 * DAY)
        self.assertEqual(fresh.device_ca, self.made.device_ca)
        self.assertGreater(
            fresh.server.not_valid_after_utc, self.made.server.not_valid_after_utc
        )
        loaded = Identity.load(self.directory)
        self.assertEqual((loaded.server, loaded.node), (fresh.server, self.made.node))

    def test_device(self) -> None:
        """With the user CA's key the device CA is renewed, and the rest with it."""
        fresh = self.made.renewed(self.directory, SETTINGS, NOW + 200 * DAY)
        self.assertGreater(fresh.end, self.made.end)
        self.assertEqual(fresh.names, self.made.names)
        self.assertEqual(Identity.load(self.directory).device_ca, fresh.device_ca)

    def test_device_elsewhere(self) -> None:
        """Without that key the device CA stays until somebody renews it."""
        self.directory.remove(USER_KEY)
        loaded = Identity.load(self.directory)
        fresh = loaded.renewed(self.directory, SETTINGS, NOW + 200 * DAY)
        self.assertEqual(fresh.device_ca, loaded.device_ca)
        self.assertNotEqual(fresh.server, loaded.server)

    def test_new_name(self) -> None:
        """A new name needs a new device CA, and so the user CA's key."""
        settings = Settings("desk", ("tcp6:8443",), ("desk.test", "nas.test"))
        fresh = self.made.renewed(self.directory, settings, NOW)
        self.assertEqual(permitted_names(fresh.device_ca), ("desk.test", "nas.test"))
        self.directory.remove(USER_KEY)
        loaded = Identity.load(self.directory)
        settings = Settings("desk", ("tcp6:8443",), ("tv.test",))
        error = self.assertRaises(Failed, loaded.renewed, self.directory, settings, NOW)
        self.assertIn("wherry device request", str(error))

    def test_by_cryptography(self) -> None:
        """A renewed chain verifies with a second verifier too."""
        fresh = self.made.renewed(self.directory, SETTINGS, NOW + 200 * DAY)
        moment = fresh.server.not_valid_after_utc.replace(hour=0)
        verifier = (
            PolicyBuilder()
            .store(Store([fresh.user_ca]))
            .time(moment)
            .build_server_verifier(x509.DNSName(certificates.server_name(fresh.node)))
        )
        chain = verifier.verify(fresh.server, [fresh.device_ca])
        self.assertEqual(len(chain), 3)


def _contents(directory: NodeDirectory) -> dict[str, bytes]:
    """Read all of a directory but the lock, which names its last holder."""
    return {
        os.path.relpath(path, directory.path): path.read_bytes()
        for path in directory.path.rglob("*")
        if path.is_file() and path != directory.lock_file
    }
