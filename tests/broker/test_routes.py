"""Tests of broker.routes."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from broker.merge import Origin, PeerRecord, SourcedHint
from broker.routes import Policy, Route, plan_routes
from override.override import PREFERENCES, Local
from protocols.hint import Hint
from protocols.nodeid import NodeID

NAS = NodeID.of_spki(b"nas")
POLICY = Policy(interfaces=("eth0", "wlan0"))
PLACES = (
    "tcp:127.0.0.1:1",
    "tcp:[fe80::1%eth0]:1",
    "tcp:[fe80::1%*]:1",
    "tcp:[fe80::1]:1",
    "tcp:192.168.1.9:1",
    "tcp:nas.example.org:1",
    f"tor:{'a' * 56}.onion:1",
    f"via:{NAS}",
    "pigeon:roof",
)
ORIGINS: tuple[Origin, ...] = ("override", "told", "announced")


def plan(
    *hints: str,
    origin: Origin = "told",
    local: Local | None = None,
    ignored: str | None = None,
    policy: Policy = POLICY,
) -> list[Route]:
    """Plan for a peer with these hints."""
    sourced = tuple(SourcedHint(Hint.parse(h), "card", origin) for h in hints)
    record = PeerRecord(
        NAS, "nas", True, sourced, ignored, local or Local(), "override.yaml:3"
    )
    return plan_routes(record, policy)


def shown(routes: list[Route]) -> list[tuple[int | None, str]]:
    """Ranks and hints."""
    return [(route.rank, route.hint.text) for route in routes]


class PlanRoutesTests(SynchronousTestCase):
    """Which routes there are, in which order, and why not."""

    def test_order(self) -> None:
        """The nearest kind comes first; what is refused has no rank."""
        routes = plan(
            "tcp:nas.example.org:1",
            "tcp:[fe80::1%eth0]:1",
            "tcp:10.0.0.1:1",
            "pigeon:roof",
        )
        self.assertEqual(
            shown(routes),
            [
                (1, "tcp:[fe80::1%eth0]:1"),
                (2, "tcp:10.0.0.1:1"),
                (3, "tcp:nas.example.org:1"),
                (None, "pigeon:roof"),
            ],
        )
        self.assertEqual([r.kind for r in routes[:3]], ["link-local", "lan", "public"])
        self.assertEqual({r.source for r in routes}, {"card"})

    def test_prefer(self) -> None:
        """The user's order comes first, the other kinds after it."""
        routes = plan(
            "tcp:[fe80::1%eth0]:1",
            "tcp:10.0.0.1:1",
            "tcp:nas.example.org:1",
            local=Local(prefer=("public",)),
        )
        self.assertEqual([r.kind for r in routes], ["public", "link-local", "lan"])

    def test_order_within_a_kind(self) -> None:
        """Order is priority: it is kept within one kind."""
        hints = ("tcp:10.0.0.2:1", "tcp:10.0.0.1:1", "tcp:10.0.0.3:1")
        self.assertEqual([h for _, h in shown(plan(*hints))], list(hints))

    def test_every_interface(self) -> None:
        """A star stands for every interface that is up, and none is doubled."""
        routes = plan("tcp:[fe80::1%*]:1", "tcp:[fe80::1%eth0]:1")
        self.assertEqual(
            shown(routes),
            [(1, "tcp:[fe80::1%eth0]:1"), (2, "tcp:[fe80::1%wlan0]:1")],
        )
        (route,) = plan("tcp:[fe80::1%*]:1", policy=Policy())
        self.assertEqual(
            (route.verdict, route.reason), ("refused", "no interface is up")
        )

    def test_no_interface(self) -> None:
        """A link-local hint without an interface says what to do."""
        (route,) = plan("tcp:[fe80::1]:1")
        self.assertEqual(route.verdict, "refused")
        self.assertIn("interface", route.reason)

    def test_tcp_off(self) -> None:
        """What the user turned off is refused, with the line."""
        routes = plan("tcp:10.0.0.1:1", local=Local(tcp="off"))
        self.assertEqual(routes[0].verdict, "refused")
        self.assertEqual(routes[0].reason, "override.yaml:3 has tcp: off")

    def test_ignored(self) -> None:
        """Nothing of an ignored peer is dialled, not even the user's hints."""
        for origin in ORIGINS:
            for route in plan(*PLACES, origin=origin, ignored="override.yaml:3"):
                self.assertEqual(route.verdict, "refused")
                self.assertIn("override.yaml:3", route.reason)

    def test_loopback(self) -> None:
        """This machine is called only if we can be called nowhere else, or by the user."""
        self.assertEqual(plan("tcp:127.0.0.1:1")[0].verdict, "refused")
        self.assertEqual(
            plan("tcp:127.0.0.1:1", policy=Policy(loopback=True))[0].verdict, "allowed"
        )
        self.assertEqual(
            plan("tcp:127.0.0.1:1", origin="override")[0].verdict, "allowed"
        )

    def test_announced_private_places(self) -> None:
        """The world can't make us call into our own network."""
        hints = (
            "tcp:127.0.0.1:1",
            "tcp:[fe80::1%eth0]:1",
            "tcp:10.0.0.1:1",
            "tcp:router:1",
        )
        routes = plan(*hints, origin="announced", policy=Policy(loopback=True))
        self.assertEqual({r.verdict for r in routes}, {"refused"})
        # The negative control: told to us alone, they are called.
        routes = plan(*hints, policy=Policy(loopback=True))
        self.assertEqual({r.verdict for r in routes}, {"allowed"})

    def test_later_kinds(self) -> None:
        """Kinds that nothing handles are kept and say so."""
        reasons = [r.reason for r in plan(*PLACES[-3:])]
        self.assertEqual(
            reasons,
            [
                "nothing handles tor: in this version",
                "nothing handles via: in this version",
                "pigeon: is no kind of hint that this version knows",
            ],
        )

    @settings(deadline=None, max_examples=100)
    @given(
        st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from(ORIGINS))),
        st.lists(st.sampled_from(PREFERENCES), unique=True),
        st.booleans(),
        st.booleans(),
    )
    def test_whatever_comes(
        self,
        hints: list[tuple[str, Origin]],
        prefer: list[str],
        off: bool,
        loopback: bool,
    ) -> None:
        """Ranks count the allowed routes, which can all be dialled as they stand."""
        local = Local(tcp="off" if off else None, prefer=tuple(prefer))  # type: ignore[arg-type]
        sourced = tuple(SourcedHint(Hint.parse(h), "card", o) for h, o in hints)
        record = PeerRecord(NAS, None, False, sourced, local=local)
        routes = plan_routes(record, Policy(("eth0",), loopback))
        allowed = [r for r in routes if r.verdict == "allowed"]
        self.assertEqual([r.rank for r in allowed], list(range(1, len(allowed) + 1)))
        self.assertEqual(routes[: len(allowed)], allowed)
        self.assertEqual(len({r.hint for r in routes}), len(routes))
        for route in allowed:
            self.assertEqual((route.hint.kind, off), ("tcp", False))
            self.assertFalse(route.hint.needs_scope or route.hint.scope == "*")
        self.assertTrue(all(r.reason for r in routes if r.verdict == "refused"))
