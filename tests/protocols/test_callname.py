"""Tests of protocols.callname."""

import os

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protocols import callname
from protocols.callname import CallNames, split_records
from tests.kit import DAY, House

NOW = 1_790_000_000.0


class CallNameTests(SynchronousTestCase):
    """One-use server names."""

    def setUp(self) -> None:
        self.device = House.new(NOW).device()
        self.secrets = {kind: self.device.secret(kind) for kind in ("own", "others")}
        self.kept: list[bytes] = []
        self.names = CallNames(self.secrets, keep=self.kept.append)

    def name(self, kind: str = "own", now: float = NOW) -> str:
        """A fresh name."""
        return callname.make(self.secrets[kind], now, os.urandom(8))

    def test_classes(self) -> None:
        """A name tells which of the two secrets its caller knows."""
        for kind in self.secrets:
            self.assertEqual(self.names.take(self.name(kind), NOW), kind)

    def test_once(self) -> None:
        """A name is good once, on every day that it is good for."""
        name = self.name()
        self.assertEqual(self.names.take(name, NOW), "own")
        for now in (NOW, NOW + DAY, NOW - DAY):
            self.assertIsNone(self.names.take(name, now))

    def test_days(self) -> None:
        """Clocks may be a day apart, and no more."""
        for days, kind in ((-2, None), (-1, "own"), (0, "own"), (1, "own"), (2, None)):
            self.assertEqual(
                self.names.take(self.name(now=NOW + days * DAY), NOW), kind
            )

    def test_other_secret(self) -> None:
        """A sister of another house is not let in."""
        other = House.new(NOW).device()
        for kind in ("own", "others"):
            self.assertIsNone(self.names.take(other.name(kind), NOW))

    def test_spelling(self) -> None:
        """Nothing but the canonical spelling, under our domain."""
        name = self.name()
        label = name.partition(".")[0]
        for wrong in (
            name.upper(),
            name + ".",
            label,
            label + ".wherry.example",
            "x." + name,
            label[:-1] + chr(ord(label[-1]) ^ 1) + ".wherry.internal",
            "",
            ".wherry.internal",
        ):
            self.assertIsNone(self.names.take(wrong, NOW), wrong)
        self.assertEqual(self.names.take(name, NOW), "own")

    def test_restart(self) -> None:
        """A used name stays used after a restart; without its record it isn't."""
        name = self.name()
        self.names.take(name, NOW)
        records = split_records(b"".join(self.kept) + b"torn", NOW)
        self.assertIsNone(CallNames(self.secrets, records).take(name, NOW))
        self.assertEqual(CallNames(self.secrets).take(name, NOW), "own")

    def test_old_records(self) -> None:
        """Records of days that are over are dropped."""
        self.names.take(self.name(), NOW)
        data = b"".join(self.kept)
        self.assertEqual(len(split_records(data, NOW + DAY)), 1)
        self.assertEqual(split_records(data, NOW + 2 * DAY), [])

    def test_limit(self) -> None:
        """Names are refused past a limit, for that class alone, until days pass."""
        self.patch(CallNames, "LIMIT", 3)
        for _ in range(3):
            self.assertEqual(self.names.take(self.name("others"), NOW), "others")
        self.assertIsNone(self.names.take(self.name("others"), NOW))
        self.assertEqual(self.names.take(self.name("own"), NOW), "own")
        later = NOW + 2 * DAY
        self.assertEqual(self.names.take(self.name("others", later), later), "others")

    @given(st.text(max_size=80))
    @settings(deadline=None, max_examples=100)
    def test_hostile(self, text: str) -> None:
        """Any other text is just refused."""
        self.assertIsNone(self.names.take(text, NOW))
        self.assertIsNone(self.names.take(text + ".wherry.internal", NOW))
