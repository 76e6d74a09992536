"""What this node says about itself: its card, and its signed announcement."""

from collections.abc import Callable, Sequence

from node.directory import NodeDirectory
from node.errors import Failed
from node.hints import Place, hints_of, own_addresses, place_of_endpoint
from node.identity import Identity
from node.settings import Settings
from protocols.announcement import LIFETIME, Announcement, announce, next_sequence
from protocols.card import Card
from protocols.hint import Hint

FILE = "private/sequence"

SERVICES = ("files",)


def hints_now(settings: Settings, places: Sequence[Place] | None) -> tuple[Hint, ...]:
    """Say where this node can be called.

    Args:
        settings: their ``hints`` win over what the endpoints tell.
        places: the ports that are open; None while the node isn't running, when
            the endpoint strings must do.
    """
    if settings.hints is not None:
        return settings.hints
    if places is None:
        told = map(place_of_endpoint, settings.listen)
        places = [place for place in told if place is not None]
    return hints_of(places, own_addresses())


def card_of(identity: Identity, settings: Settings, hints: Sequence[Hint]) -> Card:
    """Make the line that lets others call this node; it holds a secret."""
    return Card(
        identity.node,
        hints=tuple(hints),
        discovery=identity.discovery,
        name=settings.nickname,
    )


class Herald:
    """Keeps a signed announcement that is never past half of its life.

    Its sequence number outlives a restart. Owner: the node, which holds the
    directory's lock.

    Args:
        directory: where the number is kept.
        identity: signs.
        hints: gives where the node can be called.
        seconds: gives the time since the epoch.
    """

    def __init__(
        self,
        directory: NodeDirectory,
        identity: Identity,
        hints: Callable[[], Sequence[Hint]],
        seconds: Callable[[], float],
    ) -> None:
        self._directory = directory
        self._key = identity.server_key
        self._hints = hints
        self._seconds = seconds
        self._current: Announcement | None = None
        self._told: tuple[Hint, ...] = ()

    def text(self) -> bytes:
        """Give the announcement; a new one if the old one is no longer true."""
        now, hints = self._seconds(), tuple(self._hints())
        current = self._current
        stale = current is None or current.end - now < LIFETIME / 2
        if current is None or stale or hints != self._told:
            current = self._current = self._announce(hints, now)
            self._told = hints
        return current.signed.text().encode("ascii")

    def _announce(self, hints: Sequence[Hint], now: float) -> Announcement:
        sequence = next_sequence(self._stored(), now)
        self._directory.write_file(FILE, b"%d\n" % sequence)
        return announce(self._key, hints, SERVICES, sequence, int(now + LIFETIME))

    def _stored(self) -> int | None:
        data = self._directory.read_file(FILE, 64)
        if data is None:
            return None
        try:
            return int(data)
        except ValueError:
            raise Failed(f"{self._directory.path / FILE} is not a number") from None
