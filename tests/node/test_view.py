"""Tests of node.view."""

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from node.view import View
from protocols.nodeid import NodeID


class _Nobody:
    """A broker without peers."""

    def peers(self) -> list[Any]:
        """Give none."""
        return []


class StatusTests(SynchronousTestCase):
    """What ``wherry status`` is told."""

    def test_clock_set_back(self) -> None:
        """A node is never up for less than no time, whatever is done to the clock."""
        clock, no, none = Clock(), Any, list
        clock.advance(1000)
        view: Any = View
        made = view(
            clock,
            no,
            NodeID.of_spki(b"desk"),
            "desk",
            clock.seconds(),
            _Nobody(),
            *[no, none, none, str, none, no, no, no],
        )
        self.assertEqual(made.status()["up_s"], 0)
        clock.advance(5)
        self.assertEqual(made.status()["up_s"], 5)
        clock.rightNow -= 500
        self.assertEqual(made.status()["up_s"], 0)
