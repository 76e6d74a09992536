"""The settings of a node: ``node.yaml``, commented, made by ``wherry init``."""

import errno
import socket
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, Final

from attrs import field, fields, frozen

from node.directory import MARKER, NodeDirectory, NoNode
from node.errors import Failed, Usage
from node.hints import is_port
from override.document import DocumentError, Node, check_version, dump, parse
from protocols.card import HINTS, readable
from protocols.dnsname import NAMES, check_name
from protocols.errors import Malformed, excerpt
from protocols.hint import Hint
from protocols.limits import Limits
from protocols.nodeid import NodeID

FILE: Final = "node.yaml"
PORT: Final = 8443


def check_nickname(text: str) -> str:
    """Give a nickname back if it can be one.

    It is typed on command lines, stands in paths of URLs, and must not be
    taken for a node id or for a name that a peer claims (``~nas``).

    Raises:
        Malformed: it can't.
    """
    readable(text, "nickname")
    if text.startswith(("~", "-", ".")) or "/" in text:
        raise Malformed("nickname", "must not begin with ~ - . nor have a /")
    try:
        NodeID(text)
    except Malformed:
        return text
    raise Malformed("nickname", "looks like a node id")


def default_nickname(hostname: str) -> str:
    """Make a nickname of this machine's name."""
    try:
        return check_nickname(hostname.partition(".")[0][:64].strip())
    except Malformed:
        return "node"


@frozen
class Settings:
    """What ``node.yaml`` says.

    Attributes:
        nickname: what the user calls this node.
        listen: Twisted endpoint strings.
        names: plain DNS names for programs that are not Wherry.
        hints: what the card says, instead of what the endpoints tell.
        limits: of the open port.
    """

    nickname: str
    listen: tuple[str, ...]
    names: tuple[str, ...] = ()
    hints: tuple[Hint, ...] | None = None
    limits: Limits = field(factory=Limits)

    def text(self) -> str:
        """Write the commented file."""
        limits = [
            f"  {name + ':':24}{getattr(self.limits, name)!s:<7} # {told}\n"
            for name, told in _LIMITS.items()
        ]
        told = None if self.hints is None else [hint.text for hint in self.hints]
        return _TEMPLATE.format(
            nickname=dump({"nickname": self.nickname}),
            listen=dump({"listen": list(self.listen)}),
            names=dump({"names": list(self.names)}),
            hints="" if told is None else dump({"hints": told}),
            limits="".join(limits),
        )


_LIMITS: Final = {
    "handshake_s": "a TLS handshake must be over",
    "headers_s": "the head of a request must be there",
    "idle_s": "a connection without a request is closed",
    "stall_s": "a caller that takes nothing of an answer is cut",
    "connections": "of all callers together",
    "per_principal": "of them, of one device or person",
    "handshakes_per_address": "unfinished ones of one address; the oldest goes",
}

_TEMPLATE: Final = """\
# Settings of this Wherry node. A change applies when the node starts again.
version: 1

# What you call this node.
{nickname}
# Where it listens: Twisted endpoint strings. tcp6:PORT takes IPv4 callers too,
# on every interface, link-local addresses included.
{listen}
# Plain DNS names for programs that are not Wherry, such as curl; they get a
# certificate of their own. For a name that is added later, a device that does not
# hold the user CA needs a new certificate: wherry device request, admit, accept.
{names}
# Where others can call this node, for its card. Left out, the addresses of the
# interfaces stand there. Needed behind a router that forwards a port:
# hints: ["tcp:home.example.org:8443", "tcp:192.168.1.20:8443"]
{hints}
# What callers may take of the open port: seconds (_s) and numbers, the defaults.
limits:
{limits}"""


def parse_settings(text: str | bytes, filename: str = FILE) -> Settings:
    """Read the file.

    Raises:
        DocumentError: anything unknown, missing or out of range; says where.
    """
    root = parse(text, filename)
    known = ("version", *(each.name for each in fields(Settings)))
    found = root.fields("the settings", known)
    check_version(found, root)
    for needed in ("nickname", "listen"):
        if needed not in found:
            raise root.error(f"{needed} is missing")
    nickname = found["nickname"]
    hints = found.get("hints")
    return Settings(
        _checked(check_nickname, nickname, "nickname"),
        _endpoints(found["listen"]),
        _names(found["names"]) if "names" in found else (),
        None if hints is None else _hints(hints),
        _limits(found["limits"]) if "limits" in found else Limits(),
    )


def load_settings(directory: NodeDirectory) -> Settings:
    """Read the settings of the node in a directory.

    Raises:
        NoNode: there is none.
        Failed: its ``node.yaml`` is wrong; says where.
    """
    data = directory.read_file(FILE)
    if data is None:
        raise NoNode(directory.path, interrupted=directory.has(MARKER))
    try:
        return parse_settings(data)
    except DocumentError as error:
        raise Failed(str(error)) from None


def new_settings(
    nickname: str, listen: Sequence[str] = (), names: Sequence[str] = ()
) -> Settings:
    """Make the settings of a new node from what a command line says.

    Args:
        nickname: what the user calls it.
        listen: endpoint strings; without any, `choose_endpoint` finds one.
        names: plain DNS names.

    Raises:
        Usage: one of them can't be taken.
    """
    try:
        settings = Settings(
            check_nickname(nickname),
            tuple(dict.fromkeys(listen)) or (choose_endpoint(),),
            tuple(dict.fromkeys(map(check_name, names))),
        )
        return parse_settings(settings.text(), "command line")
    except Malformed as error:
        raise Usage(str(error)) from None
    except DocumentError as error:
        raise Usage(error.why) from None


def choose_endpoint(preferred: int = PORT) -> str:
    """Find a port to listen on: the usual one or, if it is taken, a free one.

    Returns:
        A ``tcp6:`` endpoint string, which stands for IPv4 as well; ``tcp:``
        where the machine has no IPv6.

    Raises:
        Failed: there is no free port.
    """
    family, kind, host = socket.AF_INET6, "tcp6", "::"
    try:
        socket.socket(family, socket.SOCK_STREAM).close()
    except OSError:
        family, kind, host = socket.AF_INET, "tcp", "0.0.0.0"  # noqa: S104 (a node is to be called)
    for port in (preferred, 0):
        with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                probe.listen(1)
            except OSError as error:
                if error.errno in (errno.EADDRINUSE, errno.EACCES):
                    continue
                raise Failed("cannot look for a free port", str(error)) from None
            return f"{kind}:{probe.getsockname()[1]}"
    raise Failed("there is no free port to listen on")


def _checked(check: Callable[[str], str], node: Node, what: str) -> str:
    try:
        return check(node.string(what))
    except Malformed as error:
        raise node.error(str(error)) from None


def _endpoints(node: Node) -> tuple[str, ...]:
    items = node.items("listen")
    if not items:
        raise node.error("listen needs an endpoint, such as tcp6:8443")
    for item in items:
        text = item.string("an endpoint")
        if ":" not in text or not text.isprintable():
            raise item.error(
                f"{excerpt(text)} is not a Twisted endpoint, such as tcp6:8443"
            )
        if not is_port(text):
            raise item.error(f"{excerpt(text)} has no port from 0 to 65535")
    return tuple(item.text for item in items)


def _names(node: Node) -> tuple[str, ...]:
    items = node.items("names")
    if len(items) > NAMES:
        raise node.error(f"more than {NAMES} names")
    return tuple(_checked(check_name, item, "a name") for item in items)


def _hints(node: Node) -> tuple[Hint, ...]:
    items = node.items("hints")
    if len(items) > HINTS:
        raise node.error(f"more than {HINTS} hints")
    found = []
    for item in items:
        try:
            found.append(Hint.parse(item.string("a hint")))
        except Malformed as error:
            raise item.error(str(error)) from None
    return tuple(found)


def _limits(node: Node) -> Limits:
    found = node.fields("limits", [each.name for each in fields(Limits)])
    chosen: dict[str, Any] = {
        name: value.number(name, 0.1, 86400)
        if name.endswith("_s")
        else value.integer(name, 1, 100_000)
        for name, value in found.items()
    }
    return Limits(**chosen)
