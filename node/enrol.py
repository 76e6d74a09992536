"""A second device, offline: a request on the new one, a bundle from the first.

    new device                              device with the user CA's key
    request ── device request, 3 words ──>  admit: the same words
    accept  <── device bundle ────────────  the user CA's words

Both texts are signed, and the bundle names the request that it answers. What
can't be seen from a signature alone, whether the text came from the right
device, is what the words are for. Nothing here asks anybody: whoever calls
shows the words first and then commits.
"""

import datetime
from collections.abc import Sequence
from functools import cached_property
from typing import Final

from attrs import field, frozen
from cryptography import x509

from node.announcing import card_of, hints_now
from node.directory import NodeDirectory
from node.errors import Failed, Untrusted
from node.hints import Place
from node.identity import USER_KEY, Identity, check_device, permitted_names
from node.peersfile import KnownPeer, Peers, load_peers, save_peers, suggested
from node.settings import check_nickname, load_settings
from protocols.card import Card
from protocols.certificates import device_ca, key_id, load_key
from protocols.enrolment import DeviceBundle, DeviceRequest
from protocols.errors import Malformed
from protocols.nodeid import NodeID
from protocols.signed import BadSignature, Signed
from protocols.words import three_words

PENDING: Final = "private/request"
"""The request that waits for its bundle; its end is what accepts a bundle once."""

ADMITTED: Final = "private/admitted"
"""Node id, key id and time of every device that our user CA has certified."""


@frozen
class Admission:
    """A request that is in order; nothing has happened yet.

    Attributes:
        node: who asks.
        nickname: what it calls itself.
        called: what it will be called here: another name if that one is taken.
        others: nicknames of the own devices that will not know of it.
    """

    node: NodeID
    nickname: str
    called: str
    others: tuple[str, ...]
    _request: bytes = field(repr=False)
    _user_ca: bytes = field(repr=False)
    _directory: NodeDirectory = field(repr=False)
    _text: str = field(repr=False)
    _now: float = field(repr=False)
    _places: Sequence[Place] | None = field(repr=False)

    @cached_property
    def words(self) -> str:
        """Three words of the request (0.1 s); the new device shows the same."""
        return three_words(self._request)

    @cached_property
    def user_words(self) -> str:
        """Three words of our user CA (0.1 s); the new device will show the same."""
        return three_words(self._user_ca)

    def commit(self) -> str:
        """Admit the device.

        Repeating it gives another bundle for the same request, so a crash at
        any moment costs nothing.

        Returns:
            The bundle, one line. It holds the discovery secrets of the cards.

        Raises:
            Failed, Untrusted: as `admit`.
        """
        with self._directory.lock():
            return _admit(self._directory, self._text, self._now, self._places)


@frozen
class Acceptance:
    """A bundle that is in order; nothing has happened yet.

    Attributes:
        devices: the nicknames of the devices that it tells of.
        discards: whether our own user CA is given up for it.
    """

    devices: tuple[str, ...]
    discards: bool
    _user_ca: bytes = field(repr=False)
    _directory: NodeDirectory = field(repr=False)
    _text: str = field(repr=False)
    _now: float = field(repr=False)

    @cached_property
    def words(self) -> str:
        """Three words of the user CA (0.1 s); the admitting device showed the same."""
        return three_words(self._user_ca)

    def commit(self) -> None:
        """Become a device of that user; after a crash, it can be repeated.

        Raises:
            Failed, Untrusted: as `accept`.
        """
        with self._directory.lock():
            _accept(self._directory, self._text, self._now)


def request(directory: NodeDirectory, now: float) -> Signed:
    """Ask to be admitted by the device that holds the user CA.

    Asking again gives the same request while nothing in it has changed, so the
    text that was carried away first stays good.

    Args:
        directory: the new device's; no node runs in it.
        now: Unix time in seconds.

    Returns:
        The request: its ``text()``, and a ``digest`` to make words of.

    Raises:
        Failed: this device's own user CA is in use already.
    """
    with directory.lock():
        identity = Identity.load(directory)
        settings = load_settings(directory)
        if identity.holds_user_ca and _is_key_of(directory, identity.user_ca):
            _check_discardable(directory)
        asked = DeviceRequest.make(
            card_of(identity, settings, hints_now(settings, None)),
            settings.names,
            identity.server_key,
            identity.device_key,
            now,
        )
        pending = _pending(directory)
        if pending is not None and asked.asks_for_the_same_as(pending):
            return pending.signed
        directory.write_file(PENDING, asked.signed.text().encode("ascii"))
        return asked.signed


def admit(
    directory: NodeDirectory,
    text: str,
    now: float,
    places: Sequence[Place] | None = None,
) -> Admission:
    """Look at a request, on the device that holds the user CA.

    Args:
        directory: of that device.
        text: the request.
        now: Unix time in seconds.
        places: the open ports of the node that runs there, if one does.

    Raises:
        Failed: no request, our own one, or the user CA is on another device.
        Untrusted: a signature in it does not match.
    """
    with directory.lock():
        asked, identity, peers = _check_admission(directory, text)
        own = load_settings(directory).nickname
    after = _with_device(peers, asked, own, now)
    return Admission(
        asked.card.node,
        suggested(asked.card),
        after.nicknames_of([asked.card.node])[0],
        after.nicknames_of(after.devices - {asked.card.node}),
        asked.signed.digest,
        key_id(identity.user_ca),
        directory,
        text,
        now,
        places,
    )


def accept(directory: NodeDirectory, text: str, now: float) -> Acceptance:
    """Look at a bundle, on the new device.

    Args:
        directory: of that device; no node runs in it.
        text: the bundle.
        now: Unix time in seconds.

    Raises:
        Failed: no bundle, or our own user CA is in use and can't be given up.
        Untrusted: it is for another device or key, answers another request or
            none, was accepted before, or a signature in it does not match.
    """
    with directory.lock():
        bundle, identity = _check_acceptance(directory, text, now)
    return Acceptance(
        tuple(nickname for nickname, _ in bundle.cards),
        key_id(identity.user_ca) != key_id(bundle.user_ca),
        key_id(bundle.user_ca),
        directory,
        text,
        now,
    )


def _admit(
    directory: NodeDirectory, text: str, now: float, places: Sequence[Place] | None
) -> str:
    asked, identity, peers = _check_admission(directory, text)
    settings = load_settings(directory)
    user_key = identity.user_key(directory)
    node = asked.card.node
    device = device_ca(
        asked.device_key, node, asked.names, identity.user_ca, user_key, now
    )
    # Written down before the certificate leaves: a user CA that has certified
    # anybody is never discarded, whatever becomes of peers.yaml.
    _record_admission(directory, node, device, now)
    peers = _with_device(peers, asked, settings.nickname, now)
    save_peers(directory, peers)
    own = card_of(identity, settings, hints_now(settings, places))
    cards = [(settings.nickname, own)]
    cards += [
        (each.nickname, each.card)
        for each in peers.known
        if each.kind == "device" and each.node != node
    ]
    bundle = DeviceBundle.make(asked, device, identity.user_ca, cards, user_key)
    return bundle.signed.text()


def _with_device(peers: Peers, asked: DeviceRequest, own: str, now: float) -> Peers:
    peer = KnownPeer(suggested(asked.card), "device", asked.card, int(now))
    return peers.add(peer, reserved=[own])


def _check_admission(
    directory: NodeDirectory, text: str
) -> tuple[DeviceRequest, Identity, Peers]:
    identity = Identity.load(directory)
    identity.user_key(directory)
    asked = _read_request(text)
    peers = load_peers(directory)
    if asked.card.node == identity.node:
        raise Failed(
            "this request was made by this very device",
            do="Make it on the new device and bring the file here",
        )
    known = peers.get(asked.card.node)
    if known is not None and known.kind != "device":
        raise Untrusted(
            "the request is refused",
            f"its node is known as the person {known.nickname}",
            "Take it out of peers.yaml first, while no node runs",
        )
    return asked, identity, peers


def _record_admission(
    directory: NodeDirectory, node: NodeID, certificate: x509.Certificate, now: float
) -> None:
    recorded = directory.read_file(ADMITTED) or b""
    line = f"{node} {key_id(certificate).hex()} {int(now)}\n"
    directory.write_file(ADMITTED, recorded + line.encode("ascii"))


def _accept(directory: NodeDirectory, text: str, now: float) -> None:
    bundle, identity = _check_acceptance(directory, text, now)
    settings = load_settings(directory)
    peers = load_peers(directory)
    for nickname, card in bundle.cards:
        if card.node != identity.node:
            peer = KnownPeer(_nickname(nickname, card), "device", card, int(now))
            peers = peers.add(peer, reserved=[settings.nickname])
    discard = identity.holds_user_ca and not _is_key_of(directory, bundle.user_ca)
    # The certificates first: once they stand, the user CA is no longer ours,
    # and a repetition does not ask again whether ours may be discarded. The
    # request last: while it waits, the bundle can be accepted.
    fresh = identity.under(bundle.device_ca, bundle.user_ca, now)
    fresh.write_chain(directory)
    save_peers(directory, peers)
    if discard:
        directory.remove(USER_KEY)
    directory.remove(PENDING)


def _check_acceptance(
    directory: NodeDirectory, text: str, now: float
) -> tuple[DeviceBundle, Identity]:
    identity = Identity.load(directory)
    bundle = _read_bundle(text)
    try:
        check_device(
            bundle.device_ca, bundle.user_ca, identity.node, identity.device_key
        )
    except Malformed as error:
        raise _refused(error.why) from None
    asked = _pending(directory)
    if asked is None:
        if bundle.device_ca == identity.device_ca:
            raise _refused("it was accepted before", "Nothing is left to do")
        raise _refused(
            "this device waits for none", "Begin with: wherry device request"
        )
    if bundle.request != asked.signed.digest:
        raise _refused(
            "it answers another request",
            'Admit the last request that "wherry device request" printed',
        )
    _check_time(bundle, now)
    for name in load_settings(directory).names:
        if name not in permitted_names(bundle.device_ca):
            raise _refused(
                f"it does not permit the name {name} of node.yaml",
                "Begin anew with: wherry device request",
            )
    if key_id(identity.user_ca) != key_id(bundle.user_ca):
        if not identity.holds_user_ca:
            raise _refused(
                "this device belongs to another user's devices already",
                "Make a new node in another directory",
            )
        _check_discardable(directory)
    return bundle, identity


def _check_time(bundle: DeviceBundle, now: float) -> None:
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    for certificate in (bundle.device_ca, bundle.user_ca):
        if moment >= certificate.not_valid_after_utc:
            raise _refused("it has expired", "Admit the request once more")
        if moment < certificate.not_valid_before_utc:
            raise _refused("it is from the future", "Set the clock right")


def _check_discardable(directory: NodeDirectory) -> None:
    """Refuse to give up a user CA on which anybody relies."""
    peers = load_peers(directory)
    if peers.known or directory.has(ADMITTED):
        why = (
            f"it knows {peers.known[0].nickname}"
            if peers.known
            else "it has admitted a device"
        )
        raise Failed(
            "the user CA of this device is in use",
            why,
            "Join the other way round, or make a new node in another directory",
        )


def _is_key_of(directory: NodeDirectory, user: x509.Certificate) -> bool:
    """Say whether the user CA's key that lies here is this user CA's.

    It is not, if accepting was interrupted before the old key was removed.
    """
    try:
        key = load_key(directory.read_file(USER_KEY) or b"")
    except Malformed as error:
        raise Failed(f"{directory.path / USER_KEY}: {error.why}") from None
    return key.public_key() == user.public_key()


def _pending(directory: NodeDirectory) -> DeviceRequest | None:
    """Read the request that waits for its bundle, if there is one."""
    data = directory.read_file(PENDING)
    return None if data is None else _read_request(data.decode("ascii", "replace"))


def _read_request(text: str) -> DeviceRequest:
    try:
        return DeviceRequest.parse(text)
    except Malformed as error:
        raise Failed(
            "this is no device request",
            f"it {error.why}",
            "Make one on the new device: wherry device request > request.txt",
        ) from None
    except BadSignature as error:
        raise Untrusted(
            "the request is refused",
            str(error),
            "Make it again on the new device: wherry device request",
        ) from None


def _read_bundle(text: str) -> DeviceBundle:
    try:
        return DeviceBundle.parse(text)
    except Malformed as error:
        raise Failed(
            "this is no device bundle",
            f"it {error.why}",
            "Make one on the other device: wherry device admit FILE > bundle.txt",
        ) from None
    except BadSignature as error:
        raise _refused(str(error), "Admit the request once more") from None


def _nickname(nickname: str, card: Card) -> str:
    try:
        return check_nickname(nickname)
    except Malformed:
        return suggested(card)


def _refused(why: str, do: str = "") -> Untrusted:
    return Untrusted("the bundle is refused", why, do)
