"""Real nodes for tests: ``wherry`` processes in directories that are thrown away."""

import base64
import hashlib
import os
import random
import select
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

from attrs import define, evolve, field, frozen
from twisted.trial.unittest import SynchronousTestCase

from node import enrol
from node.control_client import ControlClient
from node.directory import NodeDirectory
from node.identity import Identity
from node.settings import new_settings
from protocols import callname
from protocols.certificates import key_id, key_pem, pem
from protocols.limits import Limits
from protocols.nodeid import NodeID
from protocols.tub import mint
from tests.kit import today

T = TypeVar("T")

MEBIBYTE = 1 << 20
NAME = "files.test"
"""A plain name that every node here answers to; unlike others it is not used up."""

COMMAND_S = 60.0
START_S = 20.0
STOP_S = 10.0
_LOOK_S = 0.005

# -P: what lies in the folder where a command is called is none of ours.
WHERRY = (sys.executable, "-P", "-m", "node")


@frozen
class Said:
    """What a command came to."""

    code: int
    out: str
    err: str


@frozen
class Leaf:
    """A client certificate in files, for programs that are not Wherry."""

    chain: Path
    key: Path
    user_ca: Path


@define
class Machine:
    """One computer with one node, as far as its node can tell.

    Attributes:
        nickname: of its node.
        root: of everything that it has; its node directory is below.
        port: where the node listens.
        prefix: what stands before its commands, to run them elsewhere.
        process: ``wherry run``, once it was started.
    """

    nickname: str
    root: Path
    port: int
    prefix: tuple[str, ...] = ()
    process: "subprocess.Popen[bytes] | None" = None
    _helpers: list["subprocess.Popen[bytes]"] = field(factory=list)

    @property
    def directory(self) -> Path:
        """The node directory."""
        return self.root / "node"

    @property
    def home(self) -> Path:
        """The folder in which its commands are called."""
        return self.root / "home"

    @property
    def log(self) -> Path:
        """What its processes printed."""
        return self.root / "log"

    @property
    def identity(self) -> Identity:
        """Who its node is."""
        return Identity.load(NodeDirectory(self.directory))

    @property
    def node(self) -> NodeID:
        """The node id."""
        return self.identity.node

    @property
    def pin(self) -> str:
        """The node id as curl wants it."""
        digest = base64.b32decode(self.node.text.upper() + "====")
        return "sha256//" + base64.b64encode(digest).decode("ascii")

    @property
    def control(self) -> ControlClient:
        """The way to the running node."""
        return ControlClient(NodeDirectory(self.directory))

    def one_use_name(self, kind: str = "own") -> str:
        """A fresh server name of this class."""
        own = self.identity
        secret = (
            callname.own_secret(own.node, key_id(own.user_ca))
            if kind == "own"
            else callname.public_secret(own.node)
        )
        return callname.make(secret, today(), os.urandom(8))

    def leaf(self) -> Leaf:
        """A client certificate of this device."""
        own, folder = self.identity, self.root
        tub = mint(own.device_ca, own.device_key, today())
        leaf = Leaf(folder / "leaf.pem", folder / "leaf.key", folder / "user-ca.pem")
        leaf.chain.write_bytes(pem(tub.chain))
        leaf.key.write_bytes(key_pem(tub.key))
        leaf.user_ca.write_bytes(pem([own.user_ca]))
        return leaf

    def wherry(self, *arguments: str, code: int = 0, input: str = "") -> Said:
        """Run a command to its end, which must be this exit code."""
        done = subprocess.run(
            self._command(arguments),
            cwd=self.home,
            input=input.encode(),
            capture_output=True,
            timeout=COMMAND_S,
            check=False,
        )
        said = Said(done.returncode, done.stdout.decode(), done.stderr.decode())
        if said.code != code:
            raise AssertionError(f"wherry {arguments} ended with {said}")
        return said

    def spawn(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start a command; what it prints goes to the log."""
        return self.spawn_program(*self._command(arguments))

    def spawn_program(self, *command: str) -> "subprocess.Popen[bytes]":
        """Start another program, as `spawn` does."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._helpers.append(process)
        return process

    def start(self) -> None:
        """Run the node, and wait until it answers."""
        self.begin()
        self.wait_for_node()

    def begin(self) -> None:
        """Run the node."""
        self.process = self.spawn("run")

    def wait_for_node(self) -> None:
        """Wait until the node answers."""
        control = self.control
        until(control.answers, START_S, self.running)

    @property
    def running(self) -> "subprocess.Popen[bytes]":
        """The process of the node."""
        if self.process is None:
            raise AssertionError(f"{self.nickname} was not started")
        return self.process

    def ping(self, peer: str) -> dict[str, Any]:
        """Reach a peer, and say how."""
        return self.control.post("/ping", {"peer": peer, "timeout": 20.0}, 30.0)

    def share(self, name: str, data: bytes) -> str:
        """Share content; give its id."""
        (self.home / name).write_bytes(data)
        return self.share_file(name)

    def share_file(self, name: str) -> str:
        """Share a file of the home folder; give its id."""
        return self.wherry("share", name).out.split()[-1]

    def anonymous_memory(self) -> int:
        """RssAnon of the node's process, in bytes."""
        status = Path(f"/proc/{self.running.pid}/status").read_text()
        (line,) = (each for each in status.splitlines() if each.startswith("RssAnon:"))
        return int(line.split()[1]) * 1024

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the node by a signal, and give its exit code."""
        self.running.send_signal(number)
        return self.running.wait(STOP_S)

    def end(self) -> None:
        """End every process that it has."""
        for each in self._helpers:
            if each.poll() is None:
                each.kill()
            each.wait()

    def _command(self, arguments: Sequence[str]) -> list[str]:
        return [*self.prefix, *WHERRY, "--dir", str(self.directory), *arguments]


class MachineTests(SynchronousTestCase):
    """Tests with machines; nothing of them is left behind."""

    def setUp(self) -> None:
        """Make a folder for all of it."""
        self.root = Path(tempfile.mkdtemp(prefix="wherry-test-"))
        self.machines: list[Machine] = []
        self.addCleanup(self._leave)

    def _leave(self) -> None:
        for machine in self.machines:
            machine.end()
        said = [each.log.read_text(errors="replace") for each in self.machines]
        subprocess.run(["rm", "-rf", str(self.root)], check=True)
        for text in said:
            self.assertNotIn("Traceback", text)
            self.assertNotIn("Unhandled", text)

    def bare(self, nickname: str, prefix: tuple[str, ...] = ()) -> Machine:
        """Have a machine on which Wherry was never used."""
        machine = Machine(nickname, self.root / nickname, free_port(), prefix)
        machine.home.mkdir(parents=True)
        machine.log.touch()
        self.machines.append(machine)
        return machine

    def machine(self, nickname: str, limits: Limits | None = None) -> Machine:
        """Have a machine with a node, which is not running."""
        machine = self.bare(nickname)
        listen = f"tcp:{machine.port}:interface=127.0.0.1"
        settings = new_settings(nickname, [listen], [NAME])
        if limits is not None:
            settings = evolve(settings, limits=limits)
        Identity.create(NodeDirectory(machine.directory), settings, today())
        return machine

    def enrol(self, holder: Machine, new: Machine) -> None:
        """Make a second machine's node a device of the first one's user."""
        first, second = NodeDirectory(holder.directory), NodeDirectory(new.directory)
        asked = enrol.request(second, today()).text()
        bundle = enrol.admit(first, asked, today()).commit()
        enrol.accept(second, bundle, today()).commit()

    def pair(self) -> tuple[Machine, Machine]:
        """Have two machines of one user."""
        desk, laptop = self.machine("desk"), self.machine("laptop")
        self.enrol(desk, laptop)
        return desk, laptop

    def running_pair(self) -> tuple[Machine, Machine]:
        """Have two machines of one user, connected both ways."""
        desk, laptop = self.pair()
        for each in (desk, laptop):
            each.begin()
        for each in (desk, laptop):
            each.wait_for_node()
        laptop.ping("desk")
        desk.ping("laptop")
        return desk, laptop

    def run_program(self, *command: str, input: bytes = b"") -> Said:
        """Run another program to its end."""
        done = subprocess.run(
            command, input=input, capture_output=True, timeout=COMMAND_S, check=False
        )
        out, err = done.stdout.decode("latin-1"), done.stderr.decode("latin-1")
        return Said(done.returncode, out, err)

    def call(
        self,
        machine: Machine,
        leaf: Leaf | None,
        name: str = NAME,
        source: str = "127.0.0.1",
    ) -> ssl.SSLSocket:
        """Call a node with Python's own TLS."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if leaf is not None:
            context.load_cert_chain(leaf.chain, leaf.key)
        plain = self.connect(machine, source)
        secured = context.wrap_socket(plain, server_hostname=name)
        self.addCleanup(secured.close)
        return secured

    def connect(self, machine: Machine, source: str = "127.0.0.1") -> socket.socket:
        """Open a TCP connection to a node."""
        address = ("127.0.0.1", machine.port)
        plain = socket.create_connection(address, STOP_S, (source, 0))
        self.addCleanup(plain.close)
        return plain


def until(
    holds: Callable[[], T],
    within: float,
    process: "subprocess.Popen[bytes] | None" = None,
) -> T:
    """Look until something holds, and give it.

    Args:
        holds: what is looked at.
        within: seconds after which it is too late.
        process: whose end is the end of waiting too.
    """
    deadline = monotonic() + within
    with suppress(ProcessLookupError):
        pid = os.getpid() if process is None else process.pid
        watched = os.pidfd_open(pid)
        try:
            ended = select.poll()
            ended.register(watched, select.POLLIN)
            while not (found := holds()):
                if ended.poll(_LOOK_S * 1000):
                    break
                if monotonic() > deadline:
                    raise AssertionError(f"not within {within:g} s")
            else:
                return found
        finally:
            os.close(watched)
    if found := holds():
        return found
    raise AssertionError("the process has ended before")


def free_port() -> int:
    """Find a free port that the system gives to no outgoing connection."""
    draw = random.SystemRandom()
    while True:
        port = draw.randrange(10_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def keep_alive(secured: ssl.SSLSocket) -> HTTPConnection:
    """Speak HTTP on a connection, and never on another one."""
    http = HTTPConnection("peer", timeout=STOP_S)
    http.auto_open = 0
    http.sock = secured
    return http


def sha256(path: Path) -> str:
    """Hash a file by something else than Wherry."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def on_disk(path: Path) -> int:
    """How many bytes of a file, or of all below a folder, are really stored."""
    found = [path, *path.rglob("*")] if path.is_dir() else [path]
    return sum(each.stat().st_blocks * 512 for each in found if each.is_file())
