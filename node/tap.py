"""``twistd wherry``: the one place that touches the global reactor."""

import os
import resource
from random import SystemRandom
from typing import Any, ClassVar

from twisted.application.service import IService
from twisted.python import usage

from node.configuration import Configuration
from node.directory import NodeDirectory, resolve
from node.errors import WherryError
from node.service import Node


class Options(usage.Options):
    """The options of ``twistd wherry``.

    Attributes:
        node: what was made of them, for who wants to know how it ended.
    """

    node: Node | None = None

    synopsis = "[--dir DIR]"
    longdesc = "Run a Wherry node. Make it first with: wherry init"
    optParameters: ClassVar[list[list[Any]]] = [
        [
            "dir",
            "d",
            None,
            "The node directory (default: $WHERRY_DIR, else ~/.local/share/wherry).",
        ],
    ]


def makeService(options: Options, reactor: Any = None) -> IService:
    """Compose the node of a directory. It starts with the service tree.

    Args:
        options: as parsed by twistd.
        reactor: to run on; None takes the global one.

    Raises:
        SystemExit: there is no node that could start; says why in one line.
    """
    if reactor is None:
        from twisted.internet import reactor
    directory = NodeDirectory(resolve(options["dir"], os.environ))
    try:
        Configuration.load(directory)
    except WherryError as error:
        raise SystemExit(f"wherry: {error}") from None
    _allow_many_files()
    options.node = Node(reactor, directory, SystemRandom())
    return options.node


def _allow_many_files() -> None:
    """Let the process have as many sockets and files as it may.

    The usual soft limit of 1024 is for programs that use ``select``.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
