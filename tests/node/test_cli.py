"""Tests of node.cli and node.commands, without a running node."""

import json
import os
import pty
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

from attrs import frozen
from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from node.cli import ROOMS, main
from node.directory import NodeDirectory
from node.errors import Failed
from override.override import parse_override
from protocols.card import Card
from protocols.certificates import load_chain, load_key
from protocols.nodeid import NodeID

COMMAND = (sys.executable, "-P", "-m", "node")


@frozen
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its one document."""
        return json.loads(self.out)


def wherry(*arguments: str | Path) -> Outcome:
    """Run a command in this process."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main(map(str, arguments))
        except SystemExit as ended:
            code = ended.code
    assert isinstance(code, int)
    return Outcome(code, out.getvalue(), err.getvalue())


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set variables for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class CommandTestCase(SynchronousTestCase):
    """Tests with node directories."""

    def setUp(self) -> None:
        """Have a place for them."""
        self.root = Path(self.mktemp()).absolute()
        self.root.mkdir()

    def make(self, name: str) -> Path:
        """Make a node."""
        listen = f"tcp:{20000 + len(name)}:interface=127.0.0.1"
        done = wherry(
            "init", "--dir", self.root / name, "--nickname", name, "--listen", listen
        )
        self.assertEqual(done.code, 0, done.err)
        return self.root / name

    def enrol(self) -> tuple[Path, Path]:
        """Make two nodes that know each other."""
        desk, laptop = self.make("desk"), self.make("laptop")
        request, bundle = self.root / "request", self.root / "bundle"
        request.write_text(wherry("device", "request", "--dir", laptop).out)
        admitted = wherry("device", "admit", "--yes", request, "--dir", desk)
        bundle.write_text(admitted.out)
        accepted = wherry("device", "accept", "--yes", bundle, "--dir", laptop)
        self.assertEqual((admitted.code, accepted.code), (0, 0), admitted.err)
        return desk, laptop

    def assertFails(self, done: Outcome, code: int, *said: str) -> None:
        """Check that it failed with one line that says something."""
        self.assertEqual(done.code, code, done.err)
        self.assertTrue(done.err.startswith("wherry: "), done.err)
        self.assertEqual(done.err.count("\n"), 1, done.err)
        self.assertEqual(done.out, "")
        for each in said:
            self.assertIn(each, done.err)


class UsageTests(CommandTestCase):
    """What is the same for all commands."""

    def test_help(self) -> None:
        """Every command explains itself, with an example, and takes --dir."""
        for name in ROOMS:
            shown = wherry(name, "--help")
            self.assertEqual(shown.code, 0, name)
            if name in ("device", "override", "identity"):
                continue
            self.assertIn("Example", shown.out, name)
            if name != "demo":
                self.assertIn("--dir DIR", shown.out, name)

    def test_overview(self) -> None:
        """The overview lists every command with a summary that fits."""
        shown = wherry("--help")
        for name in ROOMS:
            self.assertRegex(shown.out, rf"\n  {name} +\w")
        self.assertNotIn("...\n", shown.out.partition("A node:")[2])

    def test_wrong_usage(self) -> None:
        """Wrong usage is one line and exit code 2."""
        for arguments in (
            ("sharre",),
            ("share",),
            ("get",),
            ("get", "a", "b"),
            ("status", "--jsn"),
            ("ping", "laptop", "--timeout", "soon"),
            ("device", "admitt"),
        ):
            self.assertFails(wherry(*arguments), 2, "--help")

    def test_nothing_said(self) -> None:
        """Without a command the overview is shown, as wrong usage."""
        self.assertEqual(wherry().code, 2)

    def test_not_running(self) -> None:
        """What needs the node says how to start it, with exit code 3."""
        desk = self.make("desk")
        for arguments in (("status",), ("ping", "x"), ("get", "x"), ("down",)):
            done = wherry(*arguments, "--dir", desk)
            self.assertFails(done, 3, "the node is not running", "wherry up")

    def test_directory(self) -> None:
        """--dir counts before or after the command, and before $WHERRY_DIR."""
        desk, laptop = self.make("desk"), self.make("laptop")
        with environment(WHERRY_DIR=str(laptop)):
            self.assertIn("name=laptop", wherry("card").out)
            self.assertIn("name=desk", wherry("card", "--dir", desk).out)
            self.assertIn("name=desk", wherry("--dir", desk, "card").out)
            self.assertIn(
                "name=desk", wherry("--dir", laptop, "card", "--dir", desk).out
            )

    def test_readable_by_others(self) -> None:
        """A directory that others can read is refused."""
        desk = self.make("desk")
        desk.chmod(0o755)
        for name in ("card", "peers"):
            self.assertFails(wherry(name, "--dir", desk), 5, "chmod")

    def test_no_twisted(self) -> None:
        """No command but run imports Twisted into its process."""
        desk, _ = self.enrol()
        script = """
import contextlib, io, json, sys
from node.cli import main
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            main(["--dir", sys.argv[2], *arguments])
        except SystemExit:
            pass
    if "twisted" in sys.modules:
        sys.exit(f"{arguments} imports Twisted")
import node.demo
if "twisted" in sys.modules:
    sys.exit("the demo imports Twisted")
"""
        commands = [
            ["status"],
            ["init"],
            ["card"],
            ["peers"],
            ["explain", "laptop"],
            ["ping", "laptop"],
            ["share", str(self.root / "request")],
            ["ls"],
            ["get", "request"],
            ["override", "check"],
            ["override", "show", "laptop"],
            ["device", "request"],
            ["device", "admit", "--yes", str(self.root / "request")],
            ["device", "accept", "--yes", str(self.root / "bundle")],
            ["identity", "leaf", "--out", str(self.root / "leaf")],
            ["down"],
        ]
        done = subprocess.run(
            [sys.executable, "-c", script, json.dumps(commands), str(desk)],
            capture_output=True,
            text=True,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_closed_pipe(self) -> None:
        """A reader that has enough is no reason for a traceback."""
        command = f"{sys.executable} -P -m node --help | head -c 1"
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
        self.assertEqual(done.stderr, "")


class InitTests(CommandTestCase):
    """``wherry init`` and ``wherry card``."""

    def test_init(self) -> None:
        """It prints node id and card, and does nothing a second time."""
        made = wherry("init", "--dir", self.root / "n", "--nickname", "desk", "--json")
        card = Card.parse(made.json["card"])
        self.assertEqual(made.json["schema"], 1)
        self.assertEqual(made.json["node"], card.node.text)
        self.assertTrue(made.json["created"])
        before = (self.root / "n/node.yaml").read_bytes()
        again = wherry("init", "--dir", self.root / "n", "--nickname", "other")
        self.assertEqual(again.code, 0)
        self.assertIn("already; nothing was changed", again.out)
        self.assertIn(card.node.text, again.out)
        self.assertEqual((self.root / "n/node.yaml").read_bytes(), before)

    def test_card(self) -> None:
        """It stands alone on its line, or in a document."""
        desk = self.make("desk")
        plain = wherry("card", "--dir", desk)
        Card.parse(plain.out.removesuffix("\n"))
        document = wherry("card", "--dir", desk, "--json").json
        self.assertEqual(document, {"schema": 1, "card": plain.out.strip()})

    def test_refused(self) -> None:
        """A wrong name or nickname is wrong usage, and makes nothing."""
        for option in (("--name", "not a name"), ("--nickname", "~x")):
            done = wherry("init", "--dir", self.root / "n", *option)
            self.assertFails(done, 2)
            self.assertFalse((self.root / "n").exists())


class DeviceTests(CommandTestCase):
    """A second device, offline."""

    WORDS: ClassVar = r"^Words of the request: \w+ \w+ \w+$"

    def test_words(self) -> None:
        """Both sides show the same words, on standard error alone."""
        desk, laptop = self.make("desk"), self.make("laptop")
        asked = wherry("device", "request", "--dir", laptop)
        (self.root / "request").write_text(asked.out)
        self.assertEqual(asked.out.count("\n"), 1)
        words = asked.err.splitlines()[0]
        self.assertRegex(words, self.WORDS)
        admitted = wherry(
            "device", "admit", "--yes", self.root / "request", "--dir", desk
        )
        self.assertIn(words, admitted.err.splitlines())
        (self.root / "bundle").write_text(admitted.out)
        accepted = wherry(
            "device", "accept", "--yes", self.root / "bundle", "--dir", laptop
        )
        user = next(line for line in admitted.err.splitlines() if "user CA" in line)
        self.assertIn(user, accepted.err.splitlines())
        known = wherry("peers", "--dir", laptop, "--json").json["peers"]
        self.assertEqual([each["nickname"] for each in known], ["desk"])

    def test_no_terminal(self) -> None:
        """Without a terminal and without --yes nothing is decided."""
        desk, laptop = self.make("desk"), self.make("laptop")
        (self.root / "request").write_text(
            wherry("device", "request", "--dir", laptop).out
        )
        with (self.root / "request").open() as stdin:
            before, sys.stdin = sys.stdin, stdin
            try:
                done = wherry("device", "admit", self.root / "request", "--dir", desk)
            finally:
                sys.stdin = before
        self.assertEqual((done.code, done.out), (2, ""))
        self.assertIn("--yes", done.err.splitlines()[-1])
        self.assertEqual(wherry("peers", "--dir", desk, "--json").json["peers"], [])

    def test_terminal(self) -> None:
        """On a terminal it asks; only a yes admits."""
        desk, laptop = self.make("desk"), self.make("laptop")
        (self.root / "request").write_text(
            wherry("device", "request", "--dir", laptop).out
        )
        for answer, code in ((b"n\n", 1), (b"y\n", 0)):
            ours, theirs = pty.openpty()
            try:
                os.write(ours, answer)
                done = subprocess.run(
                    [*COMMAND, "--dir", desk, "device", "admit", self.root / "request"],
                    stdin=theirs,
                    capture_output=True,
                    text=True,
                )
            finally:
                os.close(ours)
                os.close(theirs)
            self.assertEqual(done.returncode, code, done.stderr)
            self.assertEqual(bool(done.stdout), answer == b"y\n")

    def test_files(self) -> None:
        """A file that isn't there, isn't text or is something else is named."""
        desk = self.make("desk")
        noise = self.root / "noise"
        noise.write_bytes(b"\xff\xfe")
        for path in (self.root / "missing", noise, desk / "node.yaml", self.root):
            self.assertFails(wherry("device", "admit", "--yes", path, "--dir", desk), 1)


class LookingTests(CommandTestCase):
    """Commands that look into files while no node runs."""

    def test_explain(self) -> None:
        """The plan is made of the card and the override, each with its source."""
        desk, _ = self.enrol()
        (desk / "override.yaml").write_text(
            "version: 1\npeers:\n  laptop:\n    announcement:\n      hints:\n"
            '        - "tcp:[fe80::5c1%eth9]:8443"\n    local: {prefer: [lan]}\n'
        )
        document = wherry("explain", "laptop", "--dir", desk, "--json").json
        routes = {each["hint"]: each for each in document["routes"]}
        self.assertEqual(document["schema"], 1)
        self.assertEqual(document["nickname"], "laptop")
        self.assertEqual(
            routes["tcp:[fe80::5c1%eth9]:8443"]["source"], "override.yaml:6"
        )
        self.assertEqual(routes["tcp:127.0.0.1:20006"]["source"], "card")
        for each in document["routes"]:
            self.assertEqual(
                set(each),
                {"hint", "kind", "source", "verdict", "reason", "rank", "last"},
            )
        text = wherry("explain", "laptop", "--dir", desk).out
        self.assertIn("override.yaml:6", text)
        self.assertIn("wherry up", text)

    def test_unknown(self) -> None:
        """A name that nobody has is an error."""
        desk = self.make("desk")
        self.assertFails(wherry("explain", "nas", "--dir", desk), 1, "nas")

    def test_override_check(self) -> None:
        """A mistake is told with file, line and column."""
        desk, _ = self.enrol()
        self.assertEqual(wherry("override", "check", "--dir", desk).code, 0)
        (desk / "override.yaml").write_text(
            "version: 1\npeers:\n  laptop: {announcement: {hints: ["
            '"tcp:[fe80::5c1]:8443"]}}\n'
        )
        done = wherry("override", "check", "--dir", desk)
        self.assertFails(done, 1, "override.yaml:3:", "needs an interface")
        self.assertFails(
            wherry("explain", "laptop", "--dir", desk), 1, "override.yaml:3:"
        )

    def test_override_show(self) -> None:
        """What is shown can be pasted, and then says what held before."""
        desk, laptop = self.enrol()
        shown = wherry("override", "show", "laptop", "--dir", desk).out
        node = Card.parse(wherry("card", "--dir", laptop).out.strip()).node
        override = parse_override(f"version: 1\n{shown}", "x", {"laptop": node})
        clause = override.clause(node)
        assert clause is not None
        self.assertEqual(clause.mode, "extend")
        self.assertEqual(
            [each.hint.text for each in clause.hints], ["tcp:127.0.0.1:20006"]
        )

    def test_override_edit(self) -> None:
        """Only what is right gets into place."""
        desk, _ = self.enrol()
        before = (desk / "override.yaml").read_bytes()
        new = self.root / "new.yaml"
        for text, code, after in (
            ("version: 2\n", 1, before),
            ("version: 1\n", 0, b"version: 1\n"),
        ):
            new.write_text(text)
            with environment(EDITOR=f"cp {new}", VISUAL=""):
                done = subprocess.run(
                    [*COMMAND, "--dir", desk, "override", "edit"],
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                )
            self.assertEqual(done.returncode, code, done.stderr)
            self.assertEqual((desk / "override.yaml").read_bytes(), after)

    def test_override_not_written(self) -> None:
        """What was written by hand is kept if it can't get into place."""
        desk, _ = self.enrol()
        new = self.root / "new.yaml"
        new.write_text("version: 1\n")
        full = Failed("cannot write override.yaml", "No space left on device")
        with (
            environment(EDITOR=f"cp {new}", VISUAL=""),
            patch.object(NodeDirectory, "write_file", side_effect=full),
        ):
            done = wherry("override", "edit", "--dir", desk)
        self.assertEqual(done.code, 1)
        _, found, kept = done.err.strip().partition("What you wrote is in ")
        self.assertTrue(found, done.err)
        self.addCleanup(shutil.rmtree, Path(kept).parent)
        self.assertEqual(Path(kept).read_text(), "version: 1\n")


class FileTests(CommandTestCase):
    """share and ls while no node runs."""

    def test_share_and_ls(self) -> None:
        """A folder is shared whole; links are named and left out."""
        desk = self.make("desk")
        folder = self.root / "photos"
        (folder / "sea").mkdir(parents=True)
        (folder / "sea" / "a.jpg").write_bytes(b"a" * 2000)
        (folder / "link").symlink_to("sea")
        done = wherry("share", folder, "--dir", desk)
        self.assertEqual(done.code, 0, done.err)
        self.assertIn("photos/sea/a.jpg  2.0 kB", done.out)
        self.assertIn("not shared", done.err)
        listed = wherry("ls", "--dir", desk, "--json").json
        self.assertEqual(listed["schema"], 1)
        (entry,) = listed["files"]
        node = wherry("init", "--dir", desk, "--json").json["node"]
        self.assertEqual(entry["name"], "photos/sea/a.jpg")
        self.assertEqual(entry["holders"], [node])
        self.assertIn("here", wherry("ls", "--dir", desk).out)

    def test_busy(self) -> None:
        """While another command holds the directory, it is not written to."""
        desk = self.make("desk")
        with NodeDirectory(desk).lock():
            done = wherry("share", desk / "node.yaml", "--dir", desk)
        self.assertFails(done, 1, "in use")

    def test_missing(self) -> None:
        """A path that isn't there is named."""
        desk = self.make("desk")
        self.assertFails(wherry("share", self.root / "x", "--dir", desk), 1, "/x")


class LeafTests(CommandTestCase):
    """``wherry identity leaf``."""

    def test_leaf(self) -> None:
        """It writes a chain, its key for us alone, and the user CA."""
        desk = self.make("desk")
        out = self.root / "leaf"
        for _ in range(2):
            done = wherry("identity", "leaf", "--out", out, "--dir", desk)
            self.assertEqual(done.code, 0, done.err)
        leaf, device = load_chain((out / "leaf.pem").read_bytes())
        (user,) = load_chain((out / "user-ca.pem").read_bytes())
        device.verify_directly_issued_by(user)
        leaf.verify_directly_issued_by(device)
        key = load_key((out / "leaf.key").read_bytes())
        self.assertEqual(leaf.public_key(), key.public_key())
        mode = stat.S_IMODE((out / "leaf.key").stat().st_mode)
        self.assertEqual(mode, 0o600)
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
        self.assertEqual(list(usage.value), [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH])
        node = NodeID(wherry("init", "--dir", desk, "--json").json["node"])
        self.assertNotEqual(NodeID.of_key(key.public_key()), node)
