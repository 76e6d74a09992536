"""Tests of the documentation: its examples run, and what it names is there."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from twisted.internet import reactor  # noqa: TID251 - over real sockets
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from node.cli import wherry
from override.document import DocumentError
from override.override import parse_override
from protocols.nodeid import NodeID

ROOT = Path(__file__).parent.parent
PAGES = {
    str(page.relative_to(ROOT)): page.read_text("utf-8")
    for page in (ROOT / "README.md", ROOT / "CHANGES.md", *(ROOT / "docs").glob("*.md"))
}
LAPTOP = {"laptop": NodeID("a" * 52)}

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")
_CONTEXT = re.compile(r"wherry file (leaf|root) 1")  # of a hash, and no command


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of one language on a page."""
    return [code for kind, code in _BLOCK.findall(PAGES[page]) if kind == language]


def calls(text: str) -> Iterator[str]:
    """What follows the command's name wherever a page's code names it."""
    code = [line for _, block in _BLOCK.findall(text) for line in block.splitlines()]
    code += [" ".join(span.split()) for span in _SPAN.findall(_BLOCK.sub("", text))]
    for line in code:
        if not _CONTEXT.search(line):
            for rest in re.split(r"(?<![\w/.-])wherry (?=[a-z-])", line)[1:]:
                yield re.split(r" [|>#] ", rest)[0]


def resolve(call: str) -> tuple[click.Command, list[str]]:
    """The command that is called, and the options that it is given.

    Raises:
        LookupError: there is no such command.
    """
    command: click.Command = wherry
    for word in call.split():
        if not isinstance(command, click.Group):
            break
        name = word.strip(",.:;\"'")
        found = command.commands.get(name) or command.get_command(
            click.Context(command), name
        )
        if found is None:
            # A group may stand alone; "device PEER" and options may follow it.
            if name.isalpha() and name.islower():
                raise LookupError(call)
            break
        command = found
    return command, _OPTION.findall(call)


def known(command: click.Command) -> set[str]:
    """The options that a command takes, with those of every command."""
    spelled = {"-h", "--help", "--dir", "--version"}
    for each in command.params:
        spelled |= set(each.opts) if isinstance(each, click.Option) else set()
    return spelled


def commands() -> Iterator[tuple[str, click.Command]]:
    """All commands that do something, by their whole names."""
    for name in wherry.list_commands(click.Context(wherry)):
        command = wherry.get_command(click.Context(wherry), name)
        if isinstance(command, click.Group):
            yield from (
                (f"{name} {sub}", each) for sub, each in command.commands.items()
            )
        elif command is not None:
            yield name, command


def slug(heading: str) -> str:
    """The anchor that GitHub makes of a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.lower())
    return kept.replace(" ", "-")


class SnippetTests(TestCase):
    """The Python examples are whole programs that end well."""

    timeout = 60

    def run_snippet(self, code: str) -> "Deferred[None] | None":
        """Run one; its ``main`` runs on trial's reactor."""
        namespace: dict[str, Any] = {"__name__": "docs"}
        exec(compile(code, "docs/api.md", "exec"), namespace)
        if "main" not in namespace:
            return None
        return Deferred.fromCoroutine(namespace["main"](reactor))

    async def test_python(self) -> None:
        """Every Python block of the library page runs, in its order."""
        snippets = blocks("docs/api.md", "python")
        self.assertGreater(len(snippets), 3)
        for code in snippets:
            if (running := self.run_snippet(code)) is not None:
                await running

    def test_control(self) -> None:
        """Negative control: an example that is wrong fails."""
        self.assertRaises(AssertionError, self.run_snippet, "assert 1 == 2")


class OverrideTests(SynchronousTestCase):
    """The page of the override file agrees with its reader."""

    def test_examples(self) -> None:
        """Every YAML block is taken."""
        examples = blocks("docs/override.md", "yaml")
        self.assertGreater(len(examples), 4)
        for text in examples:
            override = parse_override(text, "override.yaml", LAPTOP)
            self.assertEqual(set(override.clauses), set(LAPTOP.values()))

    def test_errors(self) -> None:
        """The errors that it lists are those that are given."""
        head = "version: 1\npeers:\n  laptop:\n"
        clauses = (
            "    anouncement: {}\n",
            '    announcement: {hints: ["tcp:[fe80::5c1]:8443"]}\n',
            '    announcement: {hints: ["tcp:10.0.0.1"]}\n',
            '    announcement: {hints: ["udp:1.2.3.4:5"]}\n',
            "    local: {routes: {tcp: of}}\n",
            "    local: {routes: {tcp: socks}}\n",
            "    local: {identity: pairwise}\n",
            "    mode: replace\n",
            "    mode: extend\n    mode: ignore\n",
            "    announcement: {hints: [tcp:[fe80::1%eth0]:8443]}\n",
        )
        files = [
            "peers: {}\n",
            "",
            "version: 2\n",
            "version: 1\npeers:\n  latop: {}\n",
            *(head + clause for clause in clauses),
        ]
        table = [
            line
            for line in PAGES["docs/override.md"].splitlines()
            if re.match(r"\| `\d+:\d+: ", line)
        ]
        self.assertEqual(len(table), len(files))
        for text in files:
            error = self.assertRaises(
                DocumentError, parse_override, text, "override.yaml", LAPTOP
            )
            told = str(error).removeprefix("override.yaml:")
            self.assertTrue(any(f"| `{told}` |" in line for line in table), told)


class CommandTests(SynchronousTestCase):
    """What the pages call is there, and what is there is on a page."""

    def test_calls(self) -> None:
        """Every command and option that a page names exists."""
        count = 0
        for page, text in PAGES.items():
            for call in calls(text):
                command, options = resolve(call)
                for option in options:
                    self.assertIn(option, known(command), f"{page}: wherry {call}")
                count += 1
        self.assertGreater(count, 50)

    def test_control(self) -> None:
        """Negative control: a command or option that isn't there is found."""
        wrong = "`wherry frob`, `wherry device frob`, `wherry get X --frob`"
        call, sub, option = calls(wrong)
        self.assertRaises(LookupError, resolve, call)
        self.assertRaises(LookupError, resolve, sub)
        command, options = resolve(option)
        self.assertFalse(set(options) <= known(command))

    def test_reference(self) -> None:
        """The reference has every command with all its options."""
        lines = PAGES["docs/commands.md"].splitlines()
        for name, command in commands():
            rows = [line for line in lines if re.match(rf"\| `wherry {name}[` ]", line)]
            self.assertEqual(len(rows), 1, name)
            told = set(_OPTION.findall(rows[0]))
            for each in command.params:
                if isinstance(each, click.Option) and "--dir" not in each.opts:
                    self.assertTrue(told & set(each.opts), f"{name} {each.opts}")


class LinkTests(SynchronousTestCase):
    """Links within the project lead somewhere."""

    def test_links(self) -> None:
        """The file exists, and so does the heading."""
        count = 0
        for page, text in PAGES.items():
            for link in _LINK.findall(_BLOCK.sub("", text)):
                if link.startswith("https://"):
                    continue
                path, _, anchor = link.partition("#")
                target = (ROOT / page).parent / path if path else ROOT / page
                self.assertTrue(target.is_file(), f"{page}: {link}")
                if anchor:
                    headings = _HEADING.findall(_BLOCK.sub("", target.read_text()))
                    self.assertIn(anchor, map(slug, headings), f"{page}: {link}")
                count += 1
        self.assertGreater(count, 15)
