"""What the tests of one peer have in common."""

from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from broker.peer import Peer
from tests.broker.harbour import (
    Harbour,
    record,
)

LAN = "tcp:192.168.1.9:1"
OTHER = "tcp:192.168.1.10:1"
CABLE = "tcp:[fe80::1%eth0]:1"


class PeerTests(SynchronousTestCase):
    """What the tests below have in common: one peer, the nas."""

    def setUp(self) -> None:
        self.harbour = Harbour()
        self.net = self.harbour.net
        self.nas = self.harbour.berth(LAN)
        self.broker = self.harbour.broker()

    def start(self, *hints: str, **changes: Any) -> Peer:
        """Call the nas; stopping leaves nothing behind."""
        known = record(self.nas.node, *(hints or (LAN,)), own=True)
        self.broker.update([evolve(known, **changes)])
        self.broker.startService()
        self.addCleanup(self.assert_stops)
        self.net.flush()
        return self.broker.peer("nas")

    def assert_stops(self) -> None:
        """Stopping the broker leaves no connection and no timer."""
        self.net.cut = False
        stopped = self.broker.stopService()
        self.net.flush()
        self.successResultOf(stopped)
        self.assertEqual(self.nas.live, [])
        self.assertEqual(self.net.clock.getDelayedCalls(), [])
        self.broker.startService()
        stopped = self.broker.stopService()
        self.net.flush()
        self.successResultOf(stopped)
        self.assertEqual(self.net.clock.getDelayedCalls(), [])
