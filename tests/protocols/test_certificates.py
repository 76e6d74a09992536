"""Tests of protocols.certificates and protocols.tub."""

import datetime
import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protocols import certificates
from protocols.errors import Malformed
from protocols.tub import mint
from tests.kit import House

NOW = 1_790_000_000.0


class StrictTests(SynchronousTestCase):
    """What the openssl command says of every chain, as strict as it can be."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.house = House.new(NOW)
        self.device = self.house.device(("nas.home",))

    def verify(
        self, chain: list[x509.Certificate], anchor: x509.Certificate, purpose: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``openssl verify -x509_strict`` on one chain."""
        for name, certs in (
            ("anchor", [anchor]),
            ("leaf", chain[:1]),
            ("rest", chain[1:] or [anchor]),
        ):
            (self.folder / name).write_bytes(certificates.pem(certs))
        return subprocess.run(
            [
                "openssl",
                "verify",
                "-x509_strict",
                "-attime",
                str(int(NOW)),
                "-purpose",
                purpose,
                "-CAfile",
                str(self.folder / "anchor"),
                "-untrusted",
                str(self.folder / "rest"),
                str(self.folder / "leaf"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )

    def assert_good(
        self, chain: list[x509.Certificate], anchor: x509.Certificate, purpose: str
    ) -> None:
        """The chain passes."""
        result = self.verify(chain, anchor, purpose)
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_servers(self) -> None:
        """Both server certificates chain to the user CA."""
        faces = self.device.faces()
        for kind in ("own", "named"):
            self.assert_good(list(faces[kind].tub.chain), self.house.ca, "sslserver")

    def test_self_signed(self) -> None:
        """The certificate for everybody else stands for itself."""
        (leaf,) = self.device.faces()["others"].tub.chain
        self.assert_good([leaf], leaf, "sslserver")

    def test_callers(self) -> None:
        """Leaves of own devices, of people, and anonymous ones."""
        self.assert_good(list(self.device.leaf().chain), self.house.ca, "sslclient")
        key = certificates.new_key()
        pairwise = certificates.pairwise_ca(key, NOW)
        self.assert_good(list(mint(pairwise, key, NOW).chain), pairwise, "sslclient")
        (leaf,) = mint(None, None, NOW).chain
        self.assert_good([leaf], leaf, "sslclient")

    def test_authorities(self) -> None:
        """The CAs themselves."""
        self.assert_good([self.device.ca], self.house.ca, "any")
        self.assert_good([self.house.ca], self.house.ca, "any")

    def test_wrong_purpose(self) -> None:
        """A caller's leaf is no server, and the other way round."""
        leaf, server = self.device.leaf().chain, self.device.faces()["own"].tub.chain
        self.assertIn(
            "error 26", self.verify(list(leaf), self.house.ca, "sslserver").stderr
        )
        self.assertIn(
            "error 26", self.verify(list(server), self.house.ca, "sslclient").stderr
        )

    def test_constrained_names(self) -> None:
        """A device CA can't certify a name that isn't the device's."""
        device = self.device
        for name in ("bank.example", "other.home"):
            leaf = certificates.named_server(
                device.server.public_key(), [name], device.ca, device.key, NOW
            )
            result = self.verify([leaf, device.ca], self.house.ca, "sslserver")
            self.assertIn("error 47", result.stderr)

    def test_path_length(self) -> None:
        """A device CA can't make another authority."""
        device = self.device
        key = certificates.new_key()
        other = self.house.device().node
        rogue = certificates.device_ca(
            key.public_key(), other, (), device.ca, device.key, NOW
        )
        leaf = mint(rogue, key, NOW).chain[0]
        result = self.verify([leaf, rogue, device.ca], self.house.ca, "sslclient")
        self.assertIn("error 25", result.stderr)


class TemplateTests(SynchronousTestCase):
    """What a caller's leaf gives away: nothing."""

    def setUp(self) -> None:
        self.device = House.new(NOW).device()

    def test_whole_days(self) -> None:
        """Validity is yesterday's midnight to that in two days, in UTC."""
        leaf = self.device.leaf().chain[0]
        today = datetime.datetime.fromtimestamp(NOW, datetime.UTC).date()
        for moment, days in (
            (leaf.not_valid_before_utc, -1),
            (leaf.not_valid_after_utc, 2),
        ):
            self.assertEqual(moment.time(), datetime.time(0, 0))
            self.assertEqual(moment.date() - today, datetime.timedelta(days))

    def test_one_template(self) -> None:
        """Two leaves share no value but constants, under whatever issuer."""
        key = certificates.new_key()
        pairwise = certificates.pairwise_ca(key, NOW)
        first, second = self.device.leaf(), mint(pairwise, key, NOW)
        one, two = first.chain[0], second.chain[0]
        self.assertEqual(one.subject, two.subject)
        self.assertNotEqual(one.serial_number, two.serial_number)
        self.assertNotEqual(certificates.key_id(one), certificates.key_id(two))
        self.assertEqual(
            [(each.oid, each.critical) for each in one.extensions],
            [(each.oid, each.critical) for each in two.extensions],
        )
        self.assertEqual(
            len(one.tbs_certificate_bytes) - len(one.issuer.public_bytes()),
            len(two.tbs_certificate_bytes) - len(two.issuer.public_bytes()),
        )

    def test_serials(self) -> None:
        """Serial numbers are random and always of one length."""
        serials = {self.device.leaf().chain[0].serial_number for _ in range(50)}
        self.assertEqual(len(serials), 50)
        self.assertEqual({each.bit_length() for each in serials}, {127})

    def test_secret_key(self) -> None:
        """A Tub's repr has neither its key nor its certificates."""
        tub = self.device.leaf()
        self.assertEqual(repr(tub), "Tub()")
        self.assertRegex(tub.label, "^[0-9a-f]{8}$")

    def test_anonymous_sends_only_itself(self) -> None:
        """Own leaves bring the device CA, the others come alone."""
        key = certificates.new_key()
        self.assertEqual(len(self.device.leaf().chain), 2)
        self.assertEqual(
            len(mint(certificates.pairwise_ca(key, NOW), key, NOW).chain), 1
        )


class LoadTests(SynchronousTestCase):
    """Reading keys and certificates back."""

    def test_round_trip(self) -> None:
        """What was written is read."""
        device = House.new(NOW).device()
        chain = [device.ca, device.house.ca]
        self.assertEqual(certificates.load_chain(certificates.pem(chain)), chain)
        key = certificates.load_key(certificates.key_pem(device.key))
        self.assertEqual(key.private_numbers(), device.key.private_numbers())

    def test_passphrase(self) -> None:
        """A key at rest can have a passphrase, and each mistake is named."""
        key = certificates.new_key()
        closed = certificates.key_pem(key, b"secret")
        self.assertIsNotNone(certificates.load_key(closed, b"secret"))
        with self.assertRaisesRegex(Malformed, "needs its passphrase"):
            certificates.load_key(closed)
        with self.assertRaisesRegex(Malformed, "wrong passphrase"):
            certificates.load_key(closed, b"other")
        with self.assertRaisesRegex(Malformed, "needs no passphrase"):
            certificates.load_key(certificates.key_pem(key), b"secret")

    def test_other_curves(self) -> None:
        """Only P-256 keys are taken."""
        for key in (
            ec.generate_private_key(ec.SECP384R1()),
            rsa.generate_private_key(65537, 1024),
        ):
            text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            with self.assertRaisesRegex(Malformed, "P-256"):
                certificates.load_key(text)

    def test_too_large(self) -> None:
        """Size is looked at first."""
        for load in (certificates.load_chain, certificates.load_key):
            with self.assertRaisesRegex(Malformed, "larger"):
                load(b"x" * 100_000)

    @given(st.binary(max_size=300))
    @settings(deadline=None, max_examples=100)
    def test_hostile(self, data: bytes) -> None:
        """Anything else is Malformed, and nothing worse."""
        for load in (certificates.load_chain, certificates.load_key):
            for text in (
                data,
                b"-----BEGIN CERTIFICATE-----\n" + data,
                b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            ):
                with self.assertRaises(Malformed):
                    load(text)
