"""Talking to the running node: HTTP and JSON over ``control.sock``.

Nothing here or below imports Twisted, so that a command starts quickly.
"""

import json
import socket
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, Protocol
from urllib.parse import urlencode

from node.errors import Failed, NotRunning, TimedOut, from_code

ANSWER_LIMIT = 256 * 1024 * 1024
ANSWER_SECONDS = 10.0

Document = dict[str, Any]


class HasSocket(Protocol):
    """Where the control socket is; a ``NodeDirectory`` is one."""

    def socket_address(self) -> str:
        """Give an address that fits ``AF_UNIX``, however long the path is."""
        ...


def not_running() -> NotRunning:
    """Say that nobody answers at the control socket."""
    return NotRunning("the node is not running. Start it with: wherry up")


class _UnixConnection(HTTPConnection):
    """HTTP over one Unix socket; the host name means nothing."""

    def __init__(self, address: str, timeout: float | None) -> None:
        super().__init__("wherry", timeout=timeout)
        self._address = address

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._address)
        except BaseException:
            self.sock.close()
            raise


class ControlClient:
    """The commands' way to the node of one directory.

    Each call opens a connection of its own, so a client holds nothing open
    between calls and needs no closing.

    Args:
        directory: whose node to talk to.
        timeout: how long to wait for an answer, in seconds. Work that takes
            longer is asked for with `stream` or with a timeout of its own.
    """

    def __init__(self, directory: HasSocket, timeout: float = ANSWER_SECONDS) -> None:
        self._directory = directory
        self._timeout = timeout

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Document:
        """Ask for one document.

        Raises:
            NotRunning: nobody answers.
            WherryError: what the node said went wrong, with its exit code.
        """
        # What is no text names nobody, and the node says so.
        asked = urlencode(query or {}, errors="backslashreplace")
        target = f"{path}?{asked}" if asked else path
        return self._document("GET", target, None, self._timeout)

    def post(self, path: str, body: Document, timeout: float | None = None) -> Document:
        """Have the node do something short; raises as `get` does."""
        return self._document("POST", path, body, timeout or self._timeout)

    def stream(self, path: str, body: Document) -> Generator[Document, None, None]:
        """Have the node do something long, and follow it.

        Closing the generator closes the connection, on which the node cancels
        the work.

        Yields:
            The progress documents, and last the one that says it is done
            (``{"done": ...}``).

        Raises:
            NotRunning: nobody answers, or the node went away half way.
            WherryError: what the node said went wrong, with its exit code.
        """
        with self._asked("POST", path, body, None) as answer:
            while line := answer.readline(ANSWER_LIMIT + 1):
                document = _parsed(line)
                if "error" in document:
                    raise _said(document)
                yield document
                if "done" in document:
                    return
        raise _gone()

    def answers(self) -> bool:
        """Tell whether a node is at the other end of the socket."""
        connection = _UnixConnection(self._directory.socket_address(), self._timeout)
        try:
            connection.connect()
        except OSError:
            return False
        finally:
            connection.close()
        return True

    def _document(
        self, method: str, target: str, body: Document | None, timeout: float
    ) -> Document:
        with self._asked(method, target, body, timeout) as answer:
            return _parsed(answer.read(ANSWER_LIMIT + 1))

    @contextmanager
    def _asked(
        self, method: str, target: str, body: Document | None, timeout: float | None
    ) -> Iterator[HTTPResponse]:
        """Ask, and give the answer while its connection is open."""
        connection = _UnixConnection(self._directory.socket_address(), timeout)
        sent = None if body is None else json.dumps(body).encode("utf-8")
        headers = {} if sent is None else {"Content-Type": "application/json"}
        try:
            connection.connect()
            connection.request(method, target, sent, headers)
            answer = connection.getresponse()
            if answer.status != 200:
                raise _said(_parsed(answer.read(ANSWER_LIMIT + 1)))
            yield answer
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise not_running() from error
        except TimeoutError as error:
            raise TimedOut(
                f"the node did not answer within {timeout:g} s",
                do="See its log, or restart it: wherry down, then wherry up",
            ) from error
        except (HTTPException, OSError) as error:
            raise _gone() from error
        finally:
            connection.close()


def _parsed(data: bytes) -> Document:
    if len(data) > ANSWER_LIMIT:
        raise Failed(
            "the node's answer is too long", f"it is over {ANSWER_LIMIT >> 20} MiB"
        )
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Failed("the node sent something that is not JSON") from error
    if not isinstance(document, dict):
        raise Failed("the node sent something that is not a JSON object")
    return document


def _said(document: Document) -> Exception:
    error = document.get("error")
    if not isinstance(error, dict):
        return Failed("the node refused, and did not say why")
    return from_code(str(error.get("message")), int(error.get("code", 1)))


def _gone() -> NotRunning:
    return NotRunning(
        "the node went away while it worked",
        do='Start it again with "wherry up" and repeat the command',
    )
