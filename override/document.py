"""YAML read strictly, every value with its place in the file.

Users write these files by hand, and a misread line may call a peer by a route
that was meant to be off. So the reading is narrower than YAML 1.1: ``off`` and
``no`` are words, ``12:34`` is text, a doubled key is an error, and anchors,
aliases, tags and a second document are refused. Events are taken one by one
instead of composing a tree, so that no depth of nesting recurses.
"""

import math
import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, NoReturn

import yaml
from attrs import frozen

from protocols.errors import excerpt

LIMIT = 1 << 20
"""The largest document that is read, in bytes."""

DEPTH = 16
"""How deep mappings and lists may nest."""

_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})\Z")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,17})\.[0-9]{1,17}\Z")


@frozen
class DocumentError(Exception):
    """A file that says something it may not say.

    Attributes:
        file: the name of the file, for the user.
        line: counted from 1.
        column: counted from 1.
        why: what is wrong there, in words for the user.
    """

    file: str
    line: int
    column: int
    why: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.why}"


@frozen
class Node:
    """One value of a document; the readers below raise `DocumentError`.

    Attributes:
        value: text, number, truth value, None, a tuple of nodes, or a mapping
            from each key's text to its (key, value) nodes.
        file: the name of the file.
        line: where the value begins, counted from 1.
        column: where the value begins, counted from 1.
        text: a scalar as it was written, without its quotes; else ``""``.
    """

    value: "Scalar | tuple[Node, ...] | Mapping[str, tuple[Node, Node]]"
    file: str
    line: int
    column: int
    text: str = ""

    @property
    def source(self) -> str:
        """Where it stands, as ``FILE:LINE``."""
        return f"{self.file}:{self.line}"

    def error(self, why: str) -> DocumentError:
        """Make the error that points here."""
        return DocumentError(self.file, self.line, self.column, why)

    def pairs(self, what: str) -> list[tuple["Node", "Node"]]:
        """Read a mapping with free keys as (key, value) nodes, in order."""
        if not isinstance(self.value, Mapping):
            raise self._unlike(f"{what} must be a mapping (NAME: VALUE)")
        return list(self.value.values())

    def fields(self, what: str, known: Collection[str]) -> dict[str, "Node"]:
        """Read a mapping of which the keys are ``known``; each may be absent."""
        found = {}
        for key, value in self.pairs(what):
            if key.text not in known:
                near = get_close_matches(key.text, known, n=1)
                hint = near[0] if near else ", ".join(sorted(known))
                label = "did you mean" if near else "known are"
                raise key.error(
                    f"unknown key {excerpt(key.text)} in {what}: {label} {hint}"
                )
            found[key.text] = value
        return found

    def items(self, what: str) -> tuple["Node", ...]:
        """Read a list."""
        if not isinstance(self.value, tuple):
            raise self._unlike(f"{what} must be a list")
        return self.value

    def string(self, what: str) -> str:
        """Read text; numbers and truth values must be quoted to be text."""
        if not isinstance(self.value, str):
            raise self._unlike(f"{what} must be text")
        return self.value

    def choice(self, what: str, known: Collection[str]) -> str:
        """Read one of the known words."""
        if not isinstance(self.value, str) or self.value not in known:
            raise self._unlike(f"{what} must be one of {', '.join(known)}")
        return self.value

    def integer(self, what: str, low: int, high: int) -> int:
        """Read a whole number from ``low`` to ``high``, both included."""
        number = self.value
        if type(number) is not int or not low <= number <= high:
            raise self._unlike(f"{what} must be a whole number from {low} to {high}")
        return number

    def number(self, what: str, low: float, high: float) -> float:
        """Read a number from ``low`` to ``high``, both included."""
        number = self.value
        if type(number) not in (int, float) or not low <= number <= high:  # type: ignore[operator]
            raise self._unlike(f"{what} must be a number from {low:g} to {high:g}")
        return float(number)  # type: ignore[arg-type]

    def _unlike(self, wanted: str) -> DocumentError:
        if isinstance(self.value, Mapping):
            got = "a mapping"
        elif isinstance(self.value, tuple):
            got = "a list"
        else:
            got = excerpt(self.text) if self.text else "nothing"
        return self.error(f"{wanted}, not {got}")


Scalar = None | bool | int | float | str


def check_version(fields: Mapping[str, Node], root: Node, version: int = 1) -> None:
    """Refuse a document without a version, and one of a later Wherry."""
    node = fields.get("version")
    if node is None:
        raise root.error(
            f"the version is missing: begin the file with version: {version}"
        )
    found = node.integer("version", 1, 10**9)
    if found > version:
        raise node.error(
            f"version {found} was written by a newer Wherry; this one reads {version}"
        )


def parse(data: bytes | str, file: str) -> Node:
    """Read a document.

    Args:
        data: its UTF-8 bytes or its text.
        file: what to call it in errors.

    Raises:
        DocumentError: it is no strict document; says where and why.
    """
    if len(data) > LIMIT:
        raise DocumentError(file, 1, 1, f"larger than {LIMIT >> 20} MiB")
    if isinstance(data, bytes):
        data = _decoded(data, file)
    try:
        return _Reading(file, data).document()
    except yaml.reader.ReaderError as error:
        line, column = _place(data, error.position)
        why = f"the character {excerpt(chr(error.character))} may not stand here"
        raise DocumentError(file, line, column, why) from None


def dump(value: Any) -> str:
    """Write plain values (dict, list, text, number, None) so that `parse` reads them.

    Text that `parse` would take for something else is quoted.
    """
    return yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        width=math.inf,
    )


class _Dumper(yaml.SafeDumper):
    """PyYAML's writer without aliases, which `parse` refuses."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class _Reading:
    """Turns the events of one document into nodes."""

    def __init__(self, file: str, text: str) -> None:
        self._file = file
        self._text = text
        self._loader = yaml.SafeLoader(text)

    def document(self) -> Node:
        """Read the one document."""
        events = self._events()
        root: Node | None = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    self._refuse(event, "a second document: one file holds one")
                root = self._node(next(events), events, 0)
        if root is None:
            return Node(None, self._file, 1, 1)
        return root

    def _node(
        self, event: yaml.Event, events: Iterator[yaml.Event], depth: int
    ) -> Node:
        if isinstance(event, yaml.AliasEvent):
            self._refuse(event, "aliases (*NAME) are not used here: write it out")
        if not isinstance(event, yaml.NodeEvent):
            raise TypeError(f"unexpected {event}")
        if event.anchor is not None:
            self._refuse(event, "anchors (&NAME) are not used here")
        if getattr(event, "tag", None) is not None:
            self._refuse(event, "tags (!NAME) are not used here")
        if depth > DEPTH:
            self._refuse(event, f"nested more than {DEPTH} deep")
        value: Any
        text = ""
        if isinstance(event, yaml.ScalarEvent):
            text = event.value
            value = _resolve(text) if event.style is None else text
        elif isinstance(event, yaml.SequenceStartEvent):
            value = tuple(self._list(events, depth + 1))
        else:
            value = self._mapping(events, depth + 1)
        line, column = _start(event)
        return Node(value, self._file, line, column, text)

    def _list(self, events: Iterator[yaml.Event], depth: int) -> Iterator[Node]:
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            yield self._node(event, events, depth)

    def _mapping(
        self, events: Iterator[yaml.Event], depth: int
    ) -> dict[str, tuple[Node, Node]]:
        pairs: dict[str, tuple[Node, Node]] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            key = self._node(event, events, depth)
            if not isinstance(event, yaml.ScalarEvent):
                raise key.error("a key must be a single word or text")
            if key.text in pairs:
                first = pairs[key.text][0].line
                raise key.error(
                    f"the key {excerpt(key.text)} stands here a second time (first in line {first})"
                )
            pairs[key.text] = (key, self._node(next(events), events, depth))
        return pairs

    def _events(self) -> Iterator[yaml.Event]:
        try:
            while self._loader.check_event():
                yield self._loader.get_event()
        except yaml.reader.ReaderError:
            raise
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            why = error.problem or "this is not YAML"
            if "[" in _line(self._text, line):
                why += " (text that holds brackets needs quotes)"
            raise DocumentError(self._file, line, column, excerpt_words(why)) from None
        except (ValueError, OverflowError):
            # PyYAML converts numbers of escapes and directives unchecked.
            place = _place(self._text, self._loader.index)
            why = "this escape or directive stands for nothing"
            raise DocumentError(self._file, *place, why) from None

    def _refuse(self, event: yaml.Event, why: str) -> NoReturn:
        line, column = _start(event)
        raise DocumentError(self._file, line, column, why)


def excerpt_words(text: str, limit: int = 200) -> str:
    """Bound a message of PyYAML's, which may quote the file, to printable words."""
    shown = "".join(char if char.isprintable() else "?" for char in text)
    return shown if len(shown) <= limit else shown[:limit] + "..."


def _resolve(text: str) -> Scalar:
    """Give an unquoted scalar its meaning."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.match(text):
        return int(text)
    if _DECIMAL.match(text):
        return float(text)
    return text


def _start(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _decoded(data: bytes, file: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        line, column = _place(before, len(before))
        raise DocumentError(file, line, column, "this is not UTF-8 text") from None


def _place(text: str, index: int) -> tuple[int, int]:
    before = text[:index]
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _line(text: str, number: int) -> str:
    lines = text.splitlines()
    return lines[number - 1] if number <= len(lines) else ""
