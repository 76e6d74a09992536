"""Tests of strict YAML."""

import time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from override.document import (
    DEPTH,
    LIMIT,
    DocumentError,
    Node,
    check_version,
    dump,
    parse,
)


def plain(node: Node) -> Any:
    """Give a document's values without their places."""
    if isinstance(node.value, tuple):
        return [plain(item) for item in node.value]
    if isinstance(node.value, dict):
        return {key: plain(value) for key, (_, value) in node.value.items()}
    return node.value


class ParseTests(SynchronousTestCase):
    """What is read, and what is refused with which place."""

    def refused(self, text: str | bytes) -> str:
        """Parse what must be refused; give the message."""
        error = self.assertRaises(DocumentError, parse, text, "f.yaml")
        return str(error)

    def test_values(self) -> None:
        """Words of YAML 1.1 that surprise people stay words."""
        text = (
            "a: off\nb: no\nc: 12:34\nd: 0o17\ne: 017\nf: 1_000\ng: 2026-01-01\n"
            "h: 12\ni: -3\nj: 2.5\nk: true\nl: null\nm:\nn: '12'\no: Yes\np: 1e3\n"
        )
        self.assertEqual(
            plain(parse(text, "f.yaml")),
            {
                "a": "off",
                "b": "no",
                "c": "12:34",
                "d": "0o17",
                "e": "017",
                "f": "1_000",
                "g": "2026-01-01",
                "h": 12,
                "i": -3,
                "j": 2.5,
                "k": True,
                "l": None,
                "m": None,
                "n": "12",
                "o": "Yes",
                "p": "1e3",
            },
        )

    def test_places(self) -> None:
        """Every node knows where it begins, counted from 1."""
        root = parse("a: 1\nb:\n  - x\n  -  yy\n", "f.yaml")
        second = root.fields("it", ("a", "b"))["b"].items("b")[1]
        self.assertEqual((second.line, second.column), (4, 6))
        self.assertEqual(second.source, "f.yaml:4")
        self.assertEqual(str(second.error("why")), "f.yaml:4:6: why")

    def test_empty(self) -> None:
        """An empty file is one value: nothing."""
        for text in ("", "# only a comment\n", "---\n", "\ufeff"):
            self.assertIsNone(parse(text, "f.yaml").value)

    def test_refused(self) -> None:
        """Whatever two readers may read in two ways is refused, with its place."""
        for text, start, part in [
            ("a: 1\nb: 2\na: 3\n", "f.yaml:3:1: ", "first in line 1"),
            ("1: x\n'1': y\n", "f.yaml:2:1: ", "second time"),
            ("a: &x 1\n", "f.yaml:1:4: ", "anchors"),
            ("a: *x\n", "f.yaml:1:4: ", "aliases"),
            ("a: !!python/object:os.system 1\n", "f.yaml:1:4: ", "tags"),
            ("a: !!str 1\n", "f.yaml:1:4: ", "tags"),
            ("a: 1\n---\nb: 2\n", "f.yaml:2:1: ", "second document"),
            ("? [a]\n: 1\n", "f.yaml:1:3: ", "key"),
            ("a: [tcp:[fe80::1%eth0]:8443]\n", "f.yaml:1:", "quotes"),
            ("a:\n\tb: 1\n", "f.yaml:2:1: ", ""),
            ("a: 'x\n", "f.yaml:2:1: ", ""),
            ('a: "\\UFFFFFFFF"\n', "f.yaml:1:", "escape"),
            (f"%YAML 1.{'9' * 5000}\n--- a\n", "f.yaml:1:", ""),
            ("a: \x00\n", "f.yaml:1:4: ", "'\\x00'"),
            ("b: 1\na: \x1b[31m\n", "f.yaml:2:4: ", "'\\x1b'"),
        ]:
            message = self.refused(text)
            self.assertTrue(message.startswith(start), message)
            self.assertIn(part, message)

    def test_not_utf8(self) -> None:
        """Bytes that are no UTF-8 have a place too."""
        self.assertEqual(
            self.refused(b"a: 1\nb: \xff\n"), "f.yaml:2:4: this is not UTF-8 text"
        )

    def test_limits(self) -> None:
        """Size and depth are bounded; deep nesting is neither slow nor recursive."""
        self.refused(b" " * (LIMIT + 1))
        parse("[" * DEPTH + "]" * DEPTH, "f.yaml")
        started = time.process_time()
        for opening in ("[", "{", "- ", "? "):
            count = LIMIT // len(opening)
            self.assertIn("deep", self.refused(opening * count))
        self.assertLess(time.process_time() - started, 5)

    @settings(max_examples=150, deadline=None)
    @given(
        st.one_of(
            st.text(),
            st.binary(),
            st.text(alphabet="ab:-?[]{}#&*!|>'\"%@` \n,01~<=\\U\t\x85\ufeff"),
        )
    )
    def test_anything(self, text: str | bytes) -> None:
        """Whatever the text is, it is read, or refused with a place inside it."""
        try:
            parse(text, "f.yaml")
        except DocumentError as error:
            self.assertGreaterEqual(error.line, 1)
            self.assertGreaterEqual(error.column, 1)
            self.assertTrue(str(error).isprintable())

    values = st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(10**17), 10**17)
        | st.text(
            alphabet=st.characters(
                exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"
            )
        )
        | st.sampled_from(
            ["off", "null", "~", "12:34", "1.5", "-", "0x1F", "1e3", "="]
        ),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(["a", "off", "1", "null", "x y"]), inner)
        ),
        max_leaves=12,
    )

    @settings(max_examples=100, deadline=None)
    @given(st.dictionaries(st.sampled_from(["k", "no", "7"]), values, min_size=1))
    def test_dump(self, value: dict[str, Any]) -> None:
        """What was written is read back as it was."""
        self.assertEqual(plain(parse(dump(value), "f.yaml")), value)

    def test_dump_shared(self) -> None:
        """The same list twice is written twice: no aliases."""
        shared = ["x"]
        text = dump({"a": shared, "b": shared})
        self.assertEqual(plain(parse(text, "f.yaml")), {"a": ["x"], "b": ["x"]})


class NodeTests(SynchronousTestCase):
    """The typed readers."""

    def setUp(self) -> None:
        """Read a document of all kinds."""
        root = parse("t: x\nn: 5\nl: [1]\nm: {a: b}\nz: true\nf: 1.5\ne:\n", "f")
        self.root = root
        self.at = root.fields("it", tuple("tnlmzfe"))

    def test_right(self) -> None:
        """Each reader gives its kind."""
        at = self.at
        self.assertEqual(at["t"].string("t"), "x")
        self.assertEqual(at["n"].integer("n", 5, 5), 5)
        self.assertEqual(at["f"].number("f", 0, 2), 1.5)
        self.assertEqual(at["n"].number("n", 0, 9), 5.0)
        self.assertEqual(at["t"].choice("t", ("x", "y")), "x")
        self.assertEqual(len(at["l"].items("l")), 1)
        self.assertEqual(at["m"].pairs("m")[0][0].text, "a")

    def test_wrong(self) -> None:
        """Each reader refuses the others' kinds; true is no number."""
        at = self.at
        for name, reader in [
            ("n", lambda node: node.string("it")),
            ("z", lambda node: node.integer("it", 0, 9)),
            ("z", lambda node: node.number("it", 0, 9)),
            ("n", lambda node: node.integer("it", 6, 9)),
            ("f", lambda node: node.integer("it", 0, 9)),
            ("f", lambda node: node.number("it", 0, 1)),
            ("n", lambda node: node.choice("it", ("5",))),
            ("l", lambda node: node.choice("it", ("x",))),
            ("t", lambda node: node.items("it")),
            ("e", lambda node: node.items("it")),
            ("l", lambda node: node.pairs("it")),
            ("m", lambda node: node.string("it")),
        ]:
            error = self.assertRaises(DocumentError, reader, at[name])
            self.assertIn("it must be", str(error))

    def test_unknown_key(self) -> None:
        """An unknown key is named, with the known one that is near."""
        error = self.assertRaises(
            DocumentError, self.at["m"].fields, "the thing", ("ab",)
        )
        self.assertEqual(
            str(error), "f:4:5: unknown key 'a' in the thing: did you mean ab"
        )

    def test_version(self) -> None:
        """No version, an odd one and a later one are refused."""
        for text, part in [
            ("a: 1", "missing"),
            ("version: x", "whole number"),
            ("version: 0", "whole number"),
            ("version: true", "whole number"),
            ("version: 2", "newer Wherry"),
        ]:
            root = parse(text, "f")
            fields = root.fields("it", ("a", "version"))
            error = self.assertRaises(DocumentError, check_version, fields, root)
            self.assertIn(part, str(error))
        root = parse("version: 1", "f")
        check_version(root.fields("it", ("version",)), root)
