"""``wherry demo``: the main job on two throw-away nodes, narrated.

Everything happens through the ``wherry`` command itself, in processes of their
own on loopback; what it claims is checked here by other means: SHA-256 instead
of file ids, Python's own TLS instead of Wherry's.
"""

import hashlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import IO, Any, NoReturn

from attrs import define, field

from node.control_client import ControlClient
from node.directory import NodeDirectory
from node.errors import Failed, WherryError
from node.units import size, span
from protocols import callname, certificates
from protocols.nodeid import NodeID

MEBIBYTE = 1 << 20
FILE_BYTES = 64 * MEBIBYTE
CUT_BYTES = 128 * MEBIBYTE
CUT_AFTER = 16 * MEBIBYTE
SMALL_FILES = {"notes.txt": 2_000, "photos/harbour.jpg": 300_000, "photos/empty": 0}
COMMAND_SECONDS = 60.0
START_SECONDS = 15.0
POLL_SECONDS = 0.005
ALERT = "a TLS alert"

Say = Callable[[str], None]
Document = dict[str, Any]


def run(say: Say) -> None:
    """Do all of it, and leave nothing behind, however it ends.

    Args:
        say: gets each line of the story.

    Raises:
        Failed: a step went wrong, or what it claims could not be verified.
    """
    began = monotonic()
    with _signals_raise(), ExitStack() as leaving:
        root = Path(tempfile.mkdtemp(prefix="wherry-demo-"))
        leaving.callback(shutil.rmtree, root)
        demo = Demo(root, say, leaving)
        leaving.callback(_deaf_to_signals)
        for step in (
            demo.make_nodes,
            demo.enrol,
            demo.start,
            demo.share,
            demo.fetch,
            demo.cut_and_resume,
            demo.refuse_strangers,
            demo.stop,
        ):
            start = monotonic()
            try:
                told = step()
            except WherryError:
                say(f"{monotonic() - start:6.2f} s  FAILED: {step.__doc__}")
                raise
            say(f"{monotonic() - start:6.2f} s  {told}")
    if root.exists():
        raise Failed("the demo left something behind", str(root))
    say(
        f"{monotonic() - began:6.2f} s  in all; every step verified, nothing left behind"
    )


@define
class Box:
    """One throw-away node.

    Attributes:
        name: its nickname.
        directory: its node directory.
        node: its id, once it was made.
        port: where it listens on loopback.
        home: the folder in which its commands are called.
        process: ``wherry run``, while it runs.
    """

    name: str
    directory: Path
    home: Path
    port: int = 0
    node: str = ""
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What ``wherry run`` printed."""
        return self.directory.with_suffix(".log")


@define
class Demo:
    """The steps; each checks what it did and gives the line that tells it."""

    root: Path
    say: Say
    leaving: ExitStack
    desk: Box = field(init=False)
    laptop: Box = field(init=False)
    offered: dict[str, str] = field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self.desk, self.laptop = self._box("desk"), self._box("laptop")

    def make_nodes(self) -> str:
        """``wherry init`` for both."""
        for box in (self.desk, self.laptop):
            box.port = _free_port()
            listen = f"tcp:{box.port}:interface=127.0.0.1"
            made = self._json(
                box, "init", "--nickname", box.name, "--listen", listen, "--json"
            )
            box.node = made["node"]
        return (
            f"two nodes made: desk {self.desk.node[:7]}… and laptop "
            f"{self.laptop.node[:7]}…, each with a key that stays"
        )

    def enrol(self) -> str:
        """The offline path, by two small files and three words."""
        request, bundle = self.root / "request.txt", self.root / "bundle.txt"
        text, said = self._wherry(self.laptop, "device", "request")
        request.write_text(text)
        asked = _words(said, "request")
        text, said = self._wherry(self.desk, "device", "admit", "--yes", str(request))
        bundle.write_text(text)
        shown, user = _words(said, "request"), _words(said, "user CA")
        _, said = self._wherry(self.laptop, "device", "accept", "--yes", str(bundle))
        _check(asked == shown, "the two sides show other words of the request")
        _check(user == _words(said, "user CA"), "they show other words of the user CA")
        return f'laptop enrolled by two small files; both sides showed "{asked}"'

    def start(self) -> str:
        """Both nodes as processes, and the lifeline between them."""
        for box in (self.desk, self.laptop):
            self._start(box)
        reply = self._json(self.laptop, "ping", "desk", "--json")
        _check(reply["node"] == self.desk.node, "another node answered")
        return (
            f"both run; laptop reached desk via {reply['route']['kind']} in "
            f"{span(reply['rtt_s'])} with the one-time identity {reply['identity']}…"
        )

    def share(self) -> str:
        """A large file and a small folder go into the store of the first node."""
        _fill(self.desk.home / "film.bin", FILE_BYTES)
        for name, length in SMALL_FILES.items():
            _fill(self.desk.home / "folder" / name, length)
        self._wherry(self.desk, "share", "film.bin", "folder")
        listed = self._json(self.laptop, "ls", "--json")["files"]
        expected = {"film.bin", *(f"folder/{name}" for name in SMALL_FILES)}
        _check({each["name"] for each in listed} == expected, "laptop's list differs")
        return (
            f"desk shares film.bin ({size(FILE_BYTES)} of random data) and a folder "
            f"of {len(SMALL_FILES)} files; laptop lists them"
        )

    def fetch(self) -> str:
        """Both are fetched by the other node, and compared by SHA-256."""
        began = monotonic()
        self._wherry(self.laptop, "get", "film.bin")
        took = monotonic() - began
        self._wherry(self.laptop, "get", "folder")
        for name in ("film.bin", *(f"folder/{name}" for name in SMALL_FILES)):
            self._compare(name)
        _check(not self._partials(), "a partial file was left")
        return (
            f"laptop fetched both ({size(FILE_BYTES / took)}/s, the command included); "
            f"SHA-256 of film.bin equal: {_sha256(self.laptop.home / 'film.bin')[:12]}…"
        )

    def cut_and_resume(self) -> str:
        """The fetching node is killed in the middle, started again, and resumes."""
        _fill(self.desk.home / "cut.bin", CUT_BYTES)
        self._wherry(self.desk, "share", "cut.bin")
        had = self._kill_in_the_middle()
        _check(not (self.laptop.home / "cut.bin").exists(), "there is a final name")
        self._start(self.laptop)
        done = self._json(self.laptop, "get", "cut.bin", "--json")
        resumed = sum(each["resumed"] for each in done["files"])
        _check(0 < resumed < CUT_BYTES, "it was not resumed")
        self._compare("cut.bin")
        _check(not self._partials(), "a partial file was left")
        return (
            f"laptop's node killed (kill -9) at {size(had)} of {size(CUT_BYTES)}: "
            f"nothing under the final name; resumed at {size(resumed)}, SHA-256 equal"
        )

    def refuse_strangers(self) -> str:
        """Real TLS from outside: who has no certificate of ours gets an alert."""
        leaf = self.root / "leaf"
        self._wherry(self.desk, "identity", "leaf", "--out", str(leaf))
        ours = leaf / "leaf.pem", leaf / "leaf.key"
        foreign = self._foreign_certificate()
        node = NodeID(self.desk.node)
        user_ca = certificates.load_chain((leaf / "user-ca.pem").read_bytes())[0]
        own = callname.own_secret(node, certificates.key_id(user_ca))
        public = callname.public_secret(node)
        for what, secret, certificate in (
            ("a wrong server name", os.urandom(32), None),
            ("no certificate", public, None),
            ("no certificate", own, None),
            ("a foreign certificate", public, foreign),
            ("a foreign certificate", own, foreign),
        ):
            seen = _call(self.desk.port, _one_use_name(secret), certificate)
            _check(seen == ALERT, f"{what} was answered with {seen}")
        # The control: the same code with a certificate of ours is let in.
        seen = _call(self.desk.port, _one_use_name(own), ours)
        _check(seen == "HTTP/1.1 200 OK", f"our certificate was answered with {seen}")
        return (
            "strangers refused: a wrong server name, no certificate and a foreign "
            "certificate get a TLS alert and no byte more; one of ours is let in"
        )

    def stop(self) -> str:
        """SIGTERM ends both nodes, with no traceback in what they said."""
        began = monotonic()
        for box in (self.desk, self.laptop):
            _stop(box)
        took = monotonic() - began
        for box in (self.desk, self.laptop):
            _check("Traceback" not in box.log.read_text(), f"{box.name} had an error")
        return f"both nodes ended within {span(took)} of SIGTERM"

    def _box(self, name: str) -> Box:
        box = Box(name, self.root / name, self.root / f"{name}-home")
        box.home.mkdir()
        self.leaving.callback(_stop, box)
        return box

    def _start(self, box: Box) -> None:
        with box.log.open("ab") as log:
            box.process = _spawn(box, ["run"], log)
        client = ControlClient(NodeDirectory(box.directory))
        deadline = monotonic() + START_SECONDS
        while not client.answers():
            if _ended(box.process, 0.02) or monotonic() > deadline:
                raise Failed(f"{box.name} did not start", _last_line(box.log))

    def _kill_in_the_middle(self) -> int:
        """Kill the fetching node; give how much it had by then."""
        getting = _spawn(self.laptop, ["get", "cut.bin"], subprocess.DEVNULL)
        try:
            while (had := self._partial_bytes()) < CUT_AFTER:
                _check(not _ended(getting, POLL_SECONDS), "it was over too soon")
            process = self.laptop.process
            assert process is not None
            process.kill()
            process.wait()
            _check(getting.wait(COMMAND_SECONDS) != 0, "get claims success")
            return max(had, self._partial_bytes())
        finally:
            getting.kill()
            getting.wait()

    def _partials(self) -> list[Path]:
        return list(self.laptop.home.rglob(".*.wherry-part"))

    def _partial_bytes(self) -> int:
        return sum(each.stat().st_blocks * 512 for each in self._partials())

    def _foreign_certificate(self) -> tuple[Path, Path]:
        """Somebody else's user CA, device CA and leaf, made just as ours are."""
        now = datetime.now(UTC).timestamp()
        keys = [certificates.new_key() for _ in range(3)]
        node = NodeID.of_key(keys[1].public_key())
        root = certificates.user_ca(keys[0], now)
        device = certificates.device_ca(
            keys[1].public_key(), node, (), root, keys[0], now
        )
        leaf = certificates.caller_leaf(keys[2].public_key(), device, keys[1], now)
        chain_file, key_file = self.root / "foreign.pem", self.root / "foreign.key"
        chain_file.write_bytes(certificates.pem([leaf, device, root]))
        key_file.write_bytes(certificates.key_pem(keys[2]))
        return chain_file, key_file

    def _wherry(self, box: Box, *arguments: str) -> tuple[str, str]:
        """Run a command; give what it printed on standard output and error."""
        files = [self.root / f"{box.name}.{name}" for name in ("stdout", "stderr")]
        with files[0].open("wb") as stdout, files[1].open("wb") as stderr:
            process = _spawn(box, arguments, stdout, stderr)
        try:
            ended = _ended(process, COMMAND_SECONDS)
        finally:
            process.kill()
            process.wait()
        out, err = (each.read_text() for each in files)
        if not ended or process.returncode != 0:
            said = err.strip().rpartition("\n")[2] if ended else "no end in sight"
            raise Failed(f'"wherry {arguments[0]}" failed on {box.name}', said)
        return out, err

    def _json(self, box: Box, *arguments: str) -> Document:
        document = json.loads(self._wherry(box, *arguments)[0])
        assert isinstance(document, dict)
        return document

    def _compare(self, name: str) -> None:
        sent, got = self.desk.home / name, self.laptop.home / name
        _check(got.is_file() and _sha256(sent) == _sha256(got), f"{name} differs")


def _spawn(
    box: Box,
    arguments: Sequence[str],
    stdout: IO[bytes] | int,
    stderr: IO[bytes] | int = subprocess.STDOUT,
) -> subprocess.Popen[bytes]:
    """Start a ``wherry`` command, in a session that Ctrl-C does not reach."""
    # -P: a folder named "node" where the demo is called is none of ours.
    wherry = [sys.executable, "-P", "-m", "node", "--dir", str(box.directory)]
    return subprocess.Popen(  # noqa: S603 - our own interpreter, and no shell
        [*wherry, *arguments],
        cwd=box.home,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )


def _check(holds: bool, why_not: str) -> None:
    if not holds:
        raise Failed("the demo failed", why_not)


def _words(said: str, what: str) -> str:
    """Find the three words that a command showed."""
    for line in said.splitlines():
        label, _, words = line.partition(": ")
        if label == f"Words of the {what}" and len(words.split()) == 3:
            return words
    raise Failed("the demo failed", f"no words of the {what} were shown")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port


def _fill(path: Path, length: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as opened:
        while length > 0:
            opened.write(os.urandom(min(length, 8 * MEBIBYTE)))
            length -= 8 * MEBIBYTE


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _one_use_name(secret: bytes) -> str:
    return callname.make(secret, datetime.now(UTC).timestamp(), os.urandom(8))


def _call(port: int, name: str, certificate: tuple[Path, Path] | None) -> str:
    """Ask for ``/`` over TLS; give the status line, or the alert's name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # The stranger is the one who is judged here.
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    if certificate is not None:
        context.load_cert_chain(*certificate)
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=name) as secured,
        ):
            secured.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            return secured.recv(4096).partition(b"\r\n")[0].decode("ascii", "replace")
    except ssl.SSLError as error:
        reason = error.reason or ""
        return ALERT if "ALERT" in reason else reason
    except OSError as error:
        return type(error).__name__


def _ended(process: subprocess.Popen[bytes], within: float) -> bool:
    """Wait a little; tell whether a process is over."""
    try:
        process.wait(within)
    except subprocess.TimeoutExpired:
        return False
    return True


def _stop(box: Box) -> None:
    """End a node, and make sure of it."""
    process = box.process
    if process is None or process.poll() is not None:
        return
    process.terminate()
    if not _ended(process, 5):
        process.kill()
        process.wait()


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Let the signals that end a process unwind it instead, as Ctrl-C does."""

    def unwind(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, unwind) for number in _SIGNALS}
    before[signal.SIGINT] = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _deaf_to_signals() -> None:
    """Let nothing interrupt the tidying-up."""
    for number in (*_SIGNALS, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
