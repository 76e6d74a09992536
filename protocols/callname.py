"""One-use server names: a node shows its certificate only to who knows it.

A caller asks for ``X.wherry.internal`` where X is the base32 of an 8-byte nonce
and the first 16 bytes of an HMAC-SHA256 over the UTC day and the nonce. The
HMAC's key is what the caller knows: the node id, or for own devices that and
the user CA. A name is good for yesterday, today and tomorrow, and once.
"""

import datetime
import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping

from attrs import frozen

from protocols import base32
from protocols.certificates import DOMAIN
from protocols.errors import Malformed
from protocols.nodeid import NodeID

_NONCE = 8
_TAG = 16
RECORD = 1 + 4 + _NONCE
"""How many bytes a kept record has: class of callers, day, nonce."""
_CONTEXT = b"wherry sni 1"


def public_secret(node: NodeID) -> bytes:
    """What everybody who holds a node's card knows."""
    return node.text.encode("ascii")


def own_secret(node: NodeID, user_ca_key_id: bytes) -> bytes:
    """What only a node's sister devices know."""
    return hashlib.sha256(public_secret(node) + user_ca_key_id).digest()


def make(secret: bytes, now: float, nonce: bytes) -> str:
    """Spell the name for one call.

    Args:
        secret: `public_secret` or `own_secret` of the node that is called.
        now: seconds since the epoch; only its UTC day is used.
        nonce: 8 fresh random bytes.
    """
    tag = _tag(secret, _ordinal(now), nonce)
    return f"{base32.encode(nonce + tag)}.{DOMAIN}"


def _ordinal(now: float) -> int:
    return datetime.datetime.fromtimestamp(now, datetime.UTC).toordinal()


def _tag(secret: bytes, day: int, nonce: bytes) -> bytes:
    date = datetime.date.fromordinal(day).isoformat().encode("ascii")
    return hmac.digest(secret, _CONTEXT + date + nonce, "sha256")[:_TAG]


@frozen
class _Used:
    """The nonces of one class of callers, by the day they were made for."""

    days: dict[int, set[bytes]]

    def count(self) -> int:
        return sum(len(nonces) for nonces in self.days.values())


class CallNames:
    """Checks the one-use names of one node, and uses them up.

    Used names outlive a restart: each is handed to ``keep`` as a record, and
    the records come back in ``kept``. Without that, somebody who watched the
    network could replay a name after a restart and see the certificate.

    Each class of callers has a limit of its own (`LIMIT` names in three days),
    so that strangers who know the node id can't use up the room of own devices.
    """

    LIMIT = 200_000

    def __init__(
        self,
        secrets: Mapping[str, bytes],
        kept: Iterable[bytes] = (),
        keep: Callable[[bytes], None] = lambda record: None,
    ) -> None:
        self._secrets = dict(secrets)
        self._used = {kind: _Used({}) for kind in self._secrets}
        self._keep = keep
        kinds = sorted(self._secrets)
        self._numbers = {kind: number for number, kind in enumerate(kinds)}
        for record in kept:
            if record[0] < len(kinds):
                days = self._used[kinds[record[0]]].days
                days.setdefault(_record_day(record), set()).add(record[5:])

    def take(self, name: str, now: float) -> str | None:
        """Use a name up; give its class of callers, or None to refuse it."""
        label, _, domain = name.partition(".")
        if domain != DOMAIN:
            return None
        try:
            data = base32.decode(label, _NONCE + _TAG, "server name")
        except Malformed:
            return None
        nonce, tag = data[:_NONCE], data[_NONCE:]
        today = _ordinal(now)
        for kind, secret in self._secrets.items():
            for day in (today, today - 1, today + 1):
                if hmac.compare_digest(tag, _tag(secret, day, nonce)):
                    return kind if self._burn(kind, day, nonce, today) else None
        return None

    def _burn(self, kind: str, day: int, nonce: bytes, today: int) -> bool:
        used = self._used[kind]
        for past in [each for each in used.days if each < today - 1]:
            del used.days[past]
        nonces = used.days.setdefault(day, set())
        if nonce in nonces or used.count() >= self.LIMIT:
            return False
        nonces.add(nonce)
        self._keep(bytes([self._numbers[kind]]) + day.to_bytes(4, "big") + nonce)
        return True


def _record_day(record: bytes) -> int:
    return int.from_bytes(record[1:5], "big")


def split_records(data: bytes, now: float) -> list[bytes]:
    """Cut kept bytes into records, dropping old days and a torn last record."""
    today = _ordinal(now)
    whole = len(data) - len(data) % RECORD
    records = (data[at : at + RECORD] for at in range(0, whole, RECORD))
    return [each for each in records if abs(_record_day(each) - today) <= 1]
