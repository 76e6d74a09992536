"""Who this node is: its keys and certificates at rest.

    private/server.key       names the node; never changes
    private/device-ca.key    certifies the outbound Tubs of this device
    private/user-ca.key      only where the user CA was made
    private/server.pem       server certificate, device CA, user CA
    private/discovery        by which paired nodes recognise it on a local network

The three certificates stand in one file, so that they change together.
"""

import datetime
import secrets
from typing import Final

from attrs import evolve, field, frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import NameOID

from node.directory import MARKER, NodeDirectory
from node.errors import Failed
from node.settings import FILE as SETTINGS
from node.settings import Settings
from override.override import FILE as OVERRIDE
from override.override import TEMPLATE
from protocols import base32
from protocols.card import DISCOVERY_SIZE
from protocols.certificates import (
    DOMAIN,
    Key,
    device_ca,
    device_server,
    key_pem,
    load_chain,
    load_key,
    new_key,
    pem,
    user_ca,
)
from protocols.errors import Malformed
from protocols.nodeid import NodeID

SERVER_KEY: Final = "private/server.key"
DEVICE_KEY: Final = "private/device-ca.key"
USER_KEY: Final = "private/user-ca.key"
CHAIN: Final = "private/server.pem"
DISCOVERY: Final = "private/discovery"


@frozen
class Identity:
    """The keys and certificates of one node; no secret is in its repr.

    Attributes:
        node: the node id: the server key's.
        server_key: for being called.
        device_key: for certifying outbound Tubs.
        server: the server certificate for own devices.
        device_ca: this device's authority.
        user_ca: the anchor of all devices of this user.
        discovery: 16 bytes.
        holds_user_ca: whether the user CA's key is on this device.
    """

    node: NodeID
    server_key: Key = field(repr=False)
    device_key: Key = field(repr=False)
    server: x509.Certificate = field(repr=False)
    device_ca: x509.Certificate = field(repr=False)
    user_ca: x509.Certificate = field(repr=False)
    discovery: bytes = field(repr=False)
    holds_user_ca: bool

    def __attrs_post_init__(self) -> None:
        if self.node != NodeID.of_key(self.server_key.public_key()):
            raise Malformed("identity", "the node id is not the server key's")
        check_device(self.device_ca, self.user_ca, self.node, self.device_key)
        if self.server.public_key() != self.server_key.public_key():
            raise Malformed("identity", "the server certificate is for another key")
        _check_issued(self.server, self.device_ca, "server certificate")

    @property
    def names(self) -> tuple[str, ...]:
        """The plain DNS names that the device CA may certify."""
        return permitted_names(self.device_ca)

    @property
    def end(self) -> float:
        """Unix time in seconds at which the device CA expires."""
        return self.device_ca.not_valid_after_utc.timestamp()

    @classmethod
    def load(cls, directory: NodeDirectory) -> "Identity":
        """Read the identity of the node in a directory.

        Raises:
            NoNode: there is none.
            Untrusted: the directory or a file of it is open to others.
            Failed: a file is missing, broken, or does not fit the others.
        """
        directory.require()
        try:
            chain = load_chain(_read(directory, CHAIN))
            if len(chain) != 3:
                raise Malformed(CHAIN, "three certificates expected")
            server, device, user = chain
            server_key = load_key(_read(directory, SERVER_KEY))
            return cls(
                NodeID.of_key(server_key.public_key()),
                server_key,
                load_key(_read(directory, DEVICE_KEY)),
                server,
                device,
                user,
                base32.decode(
                    _read(directory, DISCOVERY).decode("ascii", "replace").strip(),
                    DISCOVERY_SIZE,
                    DISCOVERY,
                ),
                directory.has(USER_KEY),
            )
        except Malformed as error:
            raise _broken(directory, str(error)) from None

    @classmethod
    def create(
        cls, directory: NodeDirectory, settings: Settings, now: float
    ) -> "Identity":
        """Make a node in a directory, with a user CA of its own.

        A crash at any moment leaves no node or a whole one: ``node.yaml`` comes
        last, and an init that was interrupted is begun anew.

        Args:
            directory: need not exist; else it must be empty.
            settings: become ``node.yaml``.
            now: Unix time in seconds.

        Raises:
            Failed: there is a node already, or there are other files.
            Untrusted: the directory is open to others.
        """
        directory.make()
        _check_free(directory)
        with directory.lock():
            _check_free(directory)
            identity, user_key = _new(settings, now)
            directory.write_file(MARKER, b"")
            directory.make_folder("private")
            directory.write_file(SERVER_KEY, key_pem(identity.server_key))
            directory.write_file(DEVICE_KEY, key_pem(identity.device_key))
            directory.write_file(USER_KEY, key_pem(user_key))
            discovery = base32.encode(identity.discovery) + "\n"
            directory.write_file(DISCOVERY, discovery.encode("ascii"))
            identity.write_chain(directory)
            directory.write_file(OVERRIDE, TEMPLATE.encode("utf-8"))
            directory.write_file(SETTINGS, settings.text().encode("utf-8"))
            directory.remove(MARKER)
        return identity

    def write_chain(self, directory: NodeDirectory) -> None:
        """Write the certificates; call it with the lock held."""
        chain = (self.server, self.device_ca, self.user_ca)
        directory.write_file(CHAIN, pem(chain))

    def under(
        self, device: x509.Certificate, user: x509.Certificate, now: float
    ) -> "Identity":
        """Give the same node under another device CA certificate or user CA.

        Raises:
            Malformed: the certificates don't fit each other or this device.
        """
        server = device_server(
            self.server_key.public_key(), self.node, device, self.device_key, now
        )
        return evolve(self, server=server, device_ca=device, user_ca=user)

    def renewed(
        self, directory: NodeDirectory, settings: Settings, now: float
    ) -> "Identity":
        """Renew what is past half its life and can be renewed here.

        That is the server certificate and, with the user CA's key, the device
        CA, which is also made anew for names that it does not permit yet. Call
        it with the lock held.

        Raises:
            Failed: node.yaml has a name that the device CA does not permit, and
                the user CA's key is on another device.
        """
        device = self.device_ca
        missing = [name for name in settings.names if name not in self.names]
        if missing and not self.holds_user_ca:
            raise Failed(
                f"node.yaml has the name {missing[0]}",
                "the certificate of this device does not permit it",
                "Ask for a new one with: wherry device request",
            )
        if self.holds_user_ca and (missing or _is_half_over(device, now)):
            device = device_ca(
                self.device_key.public_key(),
                self.node,
                settings.names,
                self.user_ca,
                self.user_key(directory),
                now,
            )
        if device is self.device_ca and not _is_half_over(self.server, now):
            return self
        fresh = self.under(device, self.user_ca, now)
        fresh.write_chain(directory)
        return fresh

    def user_key(self, directory: NodeDirectory, password: bytes | None = None) -> Key:
        """Read the user CA's key, for admitting and renewing and nothing else.

        Raises:
            Failed: it is not on this device, is another CA's, or the password
                is wrong.
        """
        if not self.holds_user_ca:
            raise Failed(
                "this device does not hold the user CA",
                "its key stays on the device that made it",
                "Run this command there",
            )
        try:
            key = load_key(_read(directory, USER_KEY), password)
        except Malformed as error:
            raise Failed(f"{directory.path / USER_KEY}: {error.why}") from None
        if key.public_key() != self.user_ca.public_key():
            raise Failed(
                f"{directory.path / USER_KEY} is the key of another user CA",
                "accepting a bundle was interrupted",
                "Repeat it: wherry device accept FILE",
            )
        return key


def permitted_names(authority: x509.Certificate) -> tuple[str, ...]:
    """List the plain DNS names that a device CA's name constraints permit."""
    try:
        constraints = authority.extensions.get_extension_for_class(x509.NameConstraints)
    except (x509.ExtensionNotFound, ValueError):
        return ()
    trees = constraints.value.permitted_subtrees or ()
    names = (tree.value for tree in trees if isinstance(tree, x509.DNSName))
    return tuple(name for name in names if name != DOMAIN)


def check_device(
    device: x509.Certificate, user: x509.Certificate, node: NodeID, key: Key
) -> None:
    """Check that a user CA made a device CA for a node that holds a key.

    Raises:
        Malformed: it did not; says what is wrong.
    """
    _check_authority(user, 1, "user CA")
    _check_issued(user, user, "user CA")
    _check_authority(device, 0, "device CA")
    _check_issued(device, user, "device CA")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node.text)])
    if device.subject != subject:
        raise Malformed("device CA", "it is for another node")
    if device.public_key() != key.public_key():
        raise Malformed("device CA", "it is for another key")


def _check_authority(certificate: x509.Certificate, length: int, what: str) -> None:
    try:
        constraints = certificate.extensions.get_extension_for_class(
            x509.BasicConstraints
        )
    except (x509.ExtensionNotFound, ValueError):
        raise Malformed(what, "it has no basic constraints") from None
    if not constraints.value.ca or constraints.value.path_length != length:
        raise Malformed(what, f"it is not a CA of path length {length}")


def _check_issued(
    certificate: x509.Certificate, issuer: x509.Certificate, what: str
) -> None:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        raise Malformed(what, "it was not issued by the CA above it") from None


def _is_half_over(certificate: x509.Certificate, now: float) -> bool:
    start = certificate.not_valid_before_utc
    half = start + (certificate.not_valid_after_utc - start) / 2
    return datetime.datetime.fromtimestamp(now, datetime.UTC) >= half


def _new(settings: Settings, now: float) -> tuple[Identity, Key]:
    """Make everything in memory first: a failure here has written nothing."""
    server_key, device_key, user_key = new_key(), new_key(), new_key()
    node = NodeID.of_key(server_key.public_key())
    root = user_ca(user_key, now)
    device = device_ca(
        device_key.public_key(), node, settings.names, root, user_key, now
    )
    server = device_server(server_key.public_key(), node, device, device_key, now)
    discovery = secrets.token_bytes(DISCOVERY_SIZE)
    identity = Identity(
        node, server_key, device_key, server, device, root, discovery, True
    )
    return identity, user_key


def _check_free(directory: NodeDirectory) -> None:
    if directory.exists():
        raise Failed(f"there is a node in {directory.path} already")
    others = [name for name in directory.names() if not directory.is_own_litter(name)]
    if others and not directory.has(MARKER):
        raise Failed(
            f"{directory.path} is not empty and no node",
            f"it holds {', '.join(others[:3])}",
            "Name an empty or a new directory",
        )


def _read(directory: NodeDirectory, relative: str) -> bytes:
    data = directory.read_file(relative, limit=1 << 16)
    if data is None:
        raise Malformed(relative, "it is missing")
    return data


def _broken(directory: NodeDirectory, why: str) -> Failed:
    return Failed(
        f"the identity in {directory.path} is broken",
        why,
        "Restore private/ from a backup, or make a new node in another directory",
    )
