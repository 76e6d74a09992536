"""Tests of the override file."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from override.document import DocumentError
from override.override import (
    NOTHING,
    TEMPLATE,
    Local,
    Override,
    parse_override,
)
from protocols.nodeid import NodeID

LAPTOP = NodeID.of_spki(b"laptop")
NAS = NodeID.of_spki(b"nas")
NICKNAMES = {"laptop": LAPTOP, "nas": NAS}

KEYS = ("version", "peers", "defaults", "mode", "announcement", "hints", "local")
LOCAL = ("routes", "prefer", "identity", "tcp", "tor", "laptop", "nas")
VALUES = ("extend", "replace", "ignore", "device", "off", "direct", "lan", "1", "2")
WORDS = st.sampled_from(KEYS + LOCAL + VALUES)


def read(text: str) -> Override:
    """Read a file in which two peers are known."""
    return parse_override(text, "override.yaml", NICKNAMES)


class ParseOverrideTests(SynchronousTestCase):
    """The meaning of a right file."""

    def test_sample(self) -> None:
        """A cable first for one peer, direct TCP for another."""
        override = read(
            "version: 1\n"
            "peers:\n"
            "  laptop:\n"
            "    mode: replace\n"
            "    announcement: {hints: ['tcp:[fe80::5c1%enp3s0]:8443',"
            " 'tcp:192.168.1.20:8443']}\n"
            "    local: {identity: device, prefer: [link-local, lan]}\n"
            "  nas: {mode: extend, local: {routes: {tcp: direct}}}\n"
        )
        laptop = override.clause(LAPTOP)
        assert laptop is not None
        self.assertEqual(laptop.mode, "replace")
        self.assertEqual(
            [(each.hint.text, each.source) for each in laptop.hints],
            [
                ("tcp:[fe80::5c1%enp3s0]:8443", "override.yaml:5"),
                ("tcp:192.168.1.20:8443", "override.yaml:5"),
            ],
        )
        self.assertEqual(laptop.local, Local("device", None, ("link-local", "lan")))
        self.assertEqual(laptop.source, "override.yaml:3")
        self.assertEqual(override.local(NAS), Local(tcp="direct"))

    def test_block_hints(self) -> None:
        """Hints as a block need no quotes, and each has its line."""
        override = read(
            "version: 1\npeers:\n  laptop:\n    announcement:\n      hints:\n"
            "      - tcp:[fe80::1%*]:8443\n      - tcp:nas.local:8443\n"
        )
        clause = override.clause(LAPTOP)
        assert clause is not None
        self.assertEqual(
            [(each.hint.scope, each.source) for each in clause.hints],
            [("*", "override.yaml:6"), (None, "override.yaml:7")],
        )
        self.assertEqual(clause.mode, "extend")

    def test_by_node_id(self) -> None:
        """A peer may be named by its node id, known or not."""
        other = NodeID.of_spki(b"other")
        override = read(f"version: 1\npeers: {{{other}: {{mode: ignore}}}}\n")
        clause = override.clause(other)
        assert clause is not None
        self.assertEqual(clause.mode, "ignore")

    def test_defaults(self) -> None:
        """Defaults fill in what a clause leaves open and hold for all others."""
        override = read(
            "version: 1\n"
            "defaults: {local: {routes: {tcp: off, tor: off}, prefer: [public]}}\n"
            "peers: {laptop: {local: {routes: {tcp: direct}}}}\n"
        )
        self.assertEqual(override.local(LAPTOP), Local(None, "direct", ("public",)))
        self.assertEqual(override.local(NAS), Local(None, "off", ("public",)))
        self.assertIsNone(override.clause(NAS))

    def test_template(self) -> None:
        """The file that init makes says nothing, also with its examples read."""
        self.assertEqual(read(TEMPLATE), NOTHING)
        lines = TEMPLATE.splitlines()
        start = lines.index("# defaults:")
        example = "\n".join(
            line.removeprefix("#")[1:]
            for line in lines[start:]
            if not line.startswith("# For one")
        )
        override = read(f"version: 1\n{example}\n")
        clause = override.clause(LAPTOP)
        assert clause is not None
        self.assertEqual(len(clause.hints), 3)


class RefusedOverrideTests(SynchronousTestCase):
    """Whatever is not understood stops the reading, with its place."""

    def refused(self, text: str) -> str:
        """Read a file that must be refused; give the message."""
        return str(self.assertRaises(DocumentError, read, text))

    def test_empty(self) -> None:
        """A file that an editor cut to nothing doesn't turn the clauses off."""
        for text in ("", "# was here\n", "---\n"):
            self.assertIn("begin it with version: 1", self.refused(text))

    def test_link_local_without_interface(self) -> None:
        """A link-local hint must name an interface; the error shows how."""
        message = self.refused(
            "version: 1\npeers:\n  laptop:\n    mode: extend\n    announcement:\n"
            "      hints:\n         - tcp:[fe80::5c1]:8443\n"
        )
        self.assertTrue(
            message.startswith(
                'override.yaml:7:12: "tcp:[fe80::5c1]:8443" needs an interface:'
                " write tcp:[fe80::5c1%eth0]:8443"
            ),
            message,
        )

    def test_later_values(self) -> None:
        """Values of a later version are told from typing errors."""
        for local in [
            "{routes: {tcp: socks}}",
            "{routes: {tor: socks}}",
            "{routes: {via: on}}",
            "{identity: pairwise}",
            "{identity: anonymous}",
        ]:
            message = self.refused(f"version: 1\npeers:\n  nas: {{local: {local}}}\n")
            self.assertIn("not available in this version", message)
            self.assertTrue(message.startswith("override.yaml:3:"), message)

    def test_wrong(self) -> None:
        """Unknown keys, values, peers and kinds, doubled clauses."""
        for text, start in [
            ("", "1:1: the version"),
            ("peers: {nsa: {}}", "2:9: 'nsa' is neither"),
            ("peers: {nas: {moed: ignore}}", "2:15: unknown key 'moed'"),
            ("peers: {nas: {mode: replce}}", "2:21: mode must be one of"),
            ("peers: {nas: {mode: off}}", "2:21: mode must be one of"),
            ("peers: {nas: {mode: replace}}", "2:14: mode: replace needs"),
            ("peers: {nas: }", "2:13: a clause must be a mapping"),
            ("peers: [nas]", "2:8: peers must be a mapping"),
            ("peer: {}", "2:1: unknown key 'peer'"),
            (f"peers: {{nas: {{}}, {NAS}: {{}}}}", "2:18: "),
            ("peers: {nas: {announcement: {hint: []}}}", "2:30: unknown key"),
            ("peers: {nas: {announcement: {hints: [5]}}}", "2:38: a hint must be"),
            ("peers: {nas: {announcement: {hints: [x]}}}", "2:38: hint: "),
            ("peers: {nas: {announcement: {hints: ['q:x']}}}", "2:38: unknown kind"),
            ("peers: {nas: {local: {prefer: [lan, lan]}}}", "2:37: lan stands"),
            ("peers: {nas: {local: {prefer: [wifi]}}}", "2:32: a kind in prefer"),
            ("peers: {nas: {local: {routes: {udp: off}}}}", "2:32: unknown key"),
            ("peers: {nas: {local: {routes: {tcp: on}}}}", "2:37: tcp must be"),
            ("peers: {nas: {local: {routes: {tcp: false}}}}", "2:37: tcp must be"),
            ("peers: {nas: {local: {identity: me}}}", "2:33: identity must be"),
            ("defaults: {mode: ignore}", "2:12: unknown key"),
            ("defaults: {local: {identity: device}}", "2:19: identity: device"),
        ]:
            message = self.refused(f"version: 1\n{text}\n" if text else "peers: {}")
            self.assertTrue(message.startswith(f"override.yaml:{start}"), message)

    def test_too_many_hints(self) -> None:
        """At most 16 hints a node; the same one twice counts once."""
        hints = [f"'tcp:10.0.0.{n}:1'" for n in range(1, 18)]
        text = "version: 1\npeers: {nas: {announcement: {hints: [%s]}}}\n"
        self.assertIn("more than 16", self.refused(text % ", ".join(hints)))
        read(text % ", ".join([*hints[:16], hints[0]]))

    def test_identity_of_a_person(self) -> None:
        """``identity: device`` is refused for what is no own device."""
        text = "version: 1\npeers: {nas: {local: {identity: device}}}\n"
        parse_override(text, "override.yaml", NICKNAMES, own={NAS})
        error = self.assertRaises(
            DocumentError,
            parse_override,
            text,
            "override.yaml",
            NICKNAMES,
            own={LAPTOP},
        )
        self.assertIn("own devices", str(error))

    @settings(max_examples=150, deadline=None)
    @given(
        st.recursive(
            WORDS | st.none() | st.integers(0, 3),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4)
            ),
            max_leaves=12,
        )
    )
    def test_anything(self, value: object) -> None:
        """Any document is an override or an error with a place."""
        document = {"version": 1, "peers": {"nas": value}}
        for text in (repr(document), repr(value)):
            try:
                found = read(text.replace("None", "null"))
            except DocumentError as error:
                self.assertGreaterEqual(error.column, 1)
            else:
                self.assertLessEqual(set(found.clauses), {NAS, LAPTOP})
