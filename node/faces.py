"""What this node shows to whom: its certificates, and the names they answer to."""

from collections.abc import Callable, Iterable

from cryptography import x509

from node.identity import Identity
from node.peersfile import Peers
from protocols import callname
from protocols.callname import CallNames
from protocols.certificates import key_id, named_server, self_signed_server
from protocols.principal import Trust
from protocols.tls import Face
from protocols.tub import Tub

OWN, OTHERS, NAMED = "own", "others", "named"


def make_faces(
    identity: Identity, names: Iterable[str], peers: Peers, now: float
) -> dict[str, Face]:
    """Make what each class of server names is shown, and whom it lets in.

    Own devices see the chain to the user CA. Everybody else sees a self-signed
    certificate that tells the node id alone. Programs that call by a plain name
    see one with these names alone.

    Args:
        identity: this node's.
        names: the plain names of the settings.
        peers: the people are taken from here.
        now: seconds since the epoch.
    """
    key = identity.server_key
    people = tuple(
        (x509.load_der_x509_certificate(peer.ca), peer.nickname)
        for peer in peers.known
        if peer.kind == "person" and peer.ca is not None
    )
    bare = self_signed_server(key, identity.node, now)
    devices = Trust(user_ca=identity.user_ca)
    faces = {
        OWN: Face(Tub(key, (identity.server, identity.device_ca)), devices),
        OTHERS: Face(Tub(key, (bare,)), Trust(people=people)),
    }
    if plain := tuple(names):
        leaf = named_server(
            key.public_key(), plain, identity.device_ca, identity.device_key, now
        )
        faces[NAMED] = Face(Tub(key, (leaf, identity.device_ca)), devices)
    return faces


def make_choice(
    identity: Identity,
    names: Iterable[str],
    used: Iterable[bytes],
    use: Callable[[bytes], None],
    seconds: Callable[[], float],
) -> Callable[[str], str | None]:
    """Make what gives the class of a server name, or None to show nothing.

    Args:
        identity: this node's.
        names: the plain names of the settings.
        used: records of one-use names that are used up.
        use: keeps the record of another one.
        seconds: gives the time since the epoch.
    """
    plain = frozenset(names)
    one_use = CallNames(
        {
            OWN: callname.own_secret(identity.node, key_id(identity.user_ca)),
            OTHERS: callname.public_secret(identity.node),
        },
        used,
        use,
    )

    def choose(name: str) -> str | None:
        return NAMED if name in plain else one_use.take(name, seconds())

    return choose
