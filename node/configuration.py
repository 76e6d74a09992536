"""Everything in a node directory that a node starts from, read and checked."""

from collections.abc import Mapping

from attrs import evolve, field, frozen

from broker.merge import PeerRecord, Statement, merge
from node.directory import NodeDirectory
from node.errors import Failed, WherryError
from node.identity import Identity
from node.peersfile import Peers, load_peers
from node.settings import FILE as SETTINGS
from node.settings import Settings, load_settings
from override.document import DocumentError
from override.override import FILE as OVERRIDE
from override.override import NOTHING, Override, parse_override


@frozen
class Configuration:
    """What the files of a node directory say."""

    settings: Settings
    identity: Identity
    peers: Peers
    override: Override
    _read: Mapping[str, bytes | None] = field(repr=False)

    @classmethod
    def load(cls, directory: NodeDirectory) -> "Configuration":
        """Read them all.

        Raises:
            WherryError: something is missing, wrong, or open to others.
        """
        directory.require()
        read = {name: directory.read_file(name) for name in (SETTINGS, OVERRIDE)}
        settings = load_settings(directory)
        identity = Identity.load(directory)
        peers = load_peers(directory)
        return cls(settings, identity, peers, load_override(directory, peers), read)

    def with_new_peers(self, directory: NodeDirectory) -> "Configuration":
        """Take up the peers and the identity; all else counts from the next start."""
        return evolve(
            self, identity=Identity.load(directory), peers=load_peers(directory)
        )

    def changed(self, directory: NodeDirectory) -> list[str]:
        """List the user's files that are not any more what was read."""
        return [
            name for name, data in self._read.items() if _now(directory, name) != data
        ]

    def renewed(self, directory: NodeDirectory, now: float) -> "Configuration":
        """Renew the certificates that need it; call it with the lock held."""
        identity = self.identity.renewed(directory, self.settings, now)
        return evolve(self, identity=identity)

    def records(self) -> list[PeerRecord]:
        """Merge what is known of each peer, and of whom the override names."""
        known = {peer.node: peer for peer in self.peers.known}
        nodes = [*known, *sorted(set(self.override.clauses) - known.keys())]
        return [
            merge(
                node,
                known[node].nickname if node in known else None,
                node in self.peers.devices,
                [Statement(node, known[node].card.hints, "card")]
                if node in known
                else [],
                self.override,
            )
            for node in nodes
        ]


def _now(directory: NodeDirectory, name: str) -> bytes | None:
    try:
        return directory.read_file(name)
    except WherryError:
        return b""  # what can't be read is not what was read


def load_override(directory: NodeDirectory, peers: Peers) -> Override:
    """Read ``override.yaml``, which has the last word: a broken one stops all.

    Raises:
        Failed: it is wrong; says where.
    """
    data = directory.read_file(OVERRIDE)
    if data is None:
        return NOTHING
    try:
        return parse_override(data, OVERRIDE, peers.nicknames, peers.devices)
    except DocumentError as error:
        raise Failed(str(error)) from None
