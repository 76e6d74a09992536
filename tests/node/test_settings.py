"""Tests of node.yaml."""

import errno
import socket
from pathlib import Path

from attrs import fields
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from node.directory import NodeDirectory, NoNode
from node.errors import Failed, Usage
from node.settings import (
    Settings,
    check_nickname,
    choose_endpoint,
    default_nickname,
    load_settings,
    new_settings,
    parse_settings,
)
from override.document import DocumentError
from protocols.errors import Malformed
from protocols.hint import Hint
from protocols.limits import Limits
from protocols.nodeid import NodeID

LEAST = "version: 1\nnickname: desk\nlisten: [tcp6:8443]\n"


class SettingsTests(SynchronousTestCase):
    """Reading and writing."""

    def test_least(self) -> None:
        """What is left out has its default."""
        self.assertEqual(parse_settings(LEAST), Settings("desk", ("tcp6:8443",)))

    def test_all(self) -> None:
        """Everything that can be said is read, and written so that it is read."""
        found = parse_settings(
            "version: 1\nnickname: Böri's desk\nlisten:\n- tcp6:8443\n"
            "- tcp:port=1:interface=127.0.0.1\nnames: [Files.Example.org]\n"
            "hints: ['tcp:[fe80::1%*]:8443']\n"
            "limits: {idle_s: 7, stall_s: 2.5, connections: 9}\n"
        )
        wanted = Settings(
            "Böri's desk",
            ("tcp6:8443", "tcp:port=1:interface=127.0.0.1"),
            ("files.example.org",),
            (Hint.parse("tcp:[fe80::1%*]:8443"),),
            Limits(idle_s=7.0, stall_s=2.5, connections=9),
        )
        self.assertEqual(found, wanted)
        self.assertEqual(parse_settings(wanted.text()), wanted)

    def test_no_hints(self) -> None:
        """An empty list of hints is not the same as none said."""
        told = parse_settings(f"{LEAST}hints: []\n")
        self.assertEqual(told.hints, ())
        self.assertEqual(parse_settings(told.text()), told)

    def test_every_limit(self) -> None:
        """The file shows each limit that there is."""
        shown = Settings("desk", ("tcp6:8443",)).text().partition("\nlimits:\n")[2]
        names = [line.split(":")[0].strip() for line in shown.splitlines()]
        self.assertEqual(names, [each.name for each in fields(Limits)])

    def test_wrong(self) -> None:
        """Each mistake is named with its place."""
        for text, start in [
            ("", "1:1: the settings must be a mapping"),
            ("version: 2\n", "1:10: version 2 was written by a newer Wherry"),
            ("version: 1\nlisten: [x:1]\n", "1:1: nickname is missing"),
            ("version: 1\nnickname: x\n", "1:1: listen is missing"),
            (f"{LEAST}nmaes: []\n", "4:1: unknown key 'nmaes'"),
            (f"{LEAST}names: [10.0.0.1]\n", "4:9: name: "),
            (f"{LEAST}names: x\n", "4:8: names must be a list"),
            (f"{LEAST}hints: [tcp:x]\n", "4:9: hint: "),
            (f"{LEAST}limits: {{idle: 1}}\n", "4:10: unknown key"),
            (f"{LEAST}limits: {{idle_s: 0}}\n", "4:18: idle_s must be"),
            (f"{LEAST}limits: {{connections: 1.5}}\n", "4:23: connections"),
            ("version: 1\nnickname: ~x\nlisten: [t:1]\n", "2:11: nickname"),
            ("version: 1\nnickname: x\nlisten: []\n", "3:9: listen needs"),
            ("version: 1\nnickname: x\nlisten: [8443]\n", "3:10: an endpoint"),
            ("version: 1\nnickname: x\nlisten: [here]\n", "3:10: 'here' is not"),
        ]:
            error = self.assertRaises(DocumentError, parse_settings, text)
            self.assertTrue(str(error).startswith(f"node.yaml:{start}"), str(error))

    def test_load(self) -> None:
        """A missing file is no node; a wrong one names its place."""
        directory = NodeDirectory(Path(self.mktemp()))
        directory.make()
        self.assertRaises(NoNode, load_settings, directory)
        directory.write_file("node.yaml", LEAST.encode())
        self.assertEqual(load_settings(directory).nickname, "desk")
        directory.write_file("node.yaml", b"version: 1\nx: 1\n")
        error = self.assertRaises(Failed, load_settings, directory)
        self.assertTrue(str(error).startswith("node.yaml:2:1: "))

    @settings(max_examples=100, deadline=None)
    @given(st.text(max_size=70))
    def test_nicknames(self, text: str) -> None:
        """Any nickname that is taken survives the file."""
        try:
            check_nickname(text)
        except Malformed:
            return
        made = Settings(text, ("tcp6:1",))
        self.assertEqual(parse_settings(made.text()), made)


class NicknameTests(SynchronousTestCase):
    """What a nickname may be."""

    def test_refused(self) -> None:
        """Not what a peer claims, an option, a path, or a node id."""
        for text in ["", "~nas", "-x", "a/b", "..", "x" * 65, "a\x1b", " a"]:
            self.assertRaises(Malformed, check_nickname, text)
        node = NodeID.of_spki(b"x").text
        self.assertRaises(Malformed, check_nickname, node)
        self.assertEqual(check_nickname(node[1:]), node[1:])

    def test_default(self) -> None:
        """The machine's name without its domain, or something harmless."""
        self.assertEqual(default_nickname("desk.example.org"), "desk")
        self.assertEqual(default_nickname(""), "node")
        self.assertEqual(default_nickname("~~~"), "node")


class NewSettingsTests(SynchronousTestCase):
    """Settings from a command line."""

    def test_mistakes(self) -> None:
        """What can't be taken is a usage error."""
        for arguments in [
            ("~x", ["tcp6:1"], []),
            ("x", ["nonsense"], []),
            ("x", ["tcp:99999"], []),
            ("x", ["tcp6:port=65536"], []),
            ("x", ["tcp:http"], []),
            ("x", ["tcp6:1"], ["*.example.org"]),
            ("x", ["tcp6:1"], ["a.wherry.internal"]),
        ]:
            self.assertRaises(Usage, new_settings, *arguments)

    def test_doubled(self) -> None:
        """The same thing twice counts once."""
        made = new_settings("x", ["tcp6:1", "tcp6:1"], ["A.test", "a.test"])
        self.assertEqual((made.listen, made.names), (("tcp6:1",), ("a.test",)))

    def test_port(self) -> None:
        """A port that is taken is not chosen; a free one is found."""
        with socket.socket(socket.AF_INET) as holder:
            holder.bind(("127.0.0.1", 0))
            holder.listen()
            taken = holder.getsockname()[1]
            kind, _, port = choose_endpoint(taken).partition(":")
            self.assertIn(kind, ("tcp6", "tcp"))
            self.assertNotEqual(int(port), taken)
        with socket.socket(socket.AF_INET) as probe:
            try:
                probe.bind(("127.0.0.1", int(port)))
            except OSError as error:  # somebody was faster than we
                self.assertEqual(error.errno, errno.EADDRINUSE)
