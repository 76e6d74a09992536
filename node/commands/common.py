"""What the commands share: their options, printing, and asking."""

import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import click

from node.directory import NodeDirectory, resolve
from node.errors import Failed, Usage, WherryError, one_line

_DIRECTORY = "wherry.directory"

P = ParamSpec("P")
T = TypeVar("T")

as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document."
)
assume_yes = click.option(
    "--yes", is_flag=True, help="Don't ask: the words were compared (for scripts)."
)


class Interrupted(WherryError):
    """Ctrl-C ended the command; the exit code is the one that shells give."""

    code = 130


def _remember(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> None:
    if value is not None:
        context.meta[_DIRECTORY] = value


directory_option = click.option(
    "--dir",
    metavar="DIR",
    callback=_remember,
    expose_value=False,
    help="The node directory (default: $WHERRY_DIR, else ~/.local/share/wherry).",
)


def with_directory(
    command: Callable[Concatenate[NodeDirectory, P], T],
) -> Callable[P, T]:
    """Give a command ``--dir``, and the node directory as its first argument."""

    @directory_option
    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        chosen = click.get_current_context().meta.get(_DIRECTORY)
        directory = NodeDirectory(resolve(chosen, os.environ))
        try:
            return command(directory, *args, **kwargs)
        finally:
            directory.close()

    return wrapped


def now() -> float:
    """Give the wall-clock time in Unix seconds; commands are the edge."""
    return datetime.now(UTC).timestamp()


def say(text: str = "") -> None:
    """Print for a person, on standard output."""
    click.echo(text)


def note(text: str) -> None:
    """Print beside the output, on standard error."""
    click.echo(text, err=True)


def print_json(document: dict[str, Any]) -> None:
    """Print the one document that a program asked for."""
    click.echo(json.dumps({"schema": 1} | document, ensure_ascii=True))


def shown(value: object) -> str:
    """Make text that somebody else chose safe to print."""
    return one_line(str(value))


def short(node: str) -> str:
    """Abbreviate a node id for people."""
    return node[:7] + "…"


def called(peer: dict[str, Any]) -> str:
    """Give what a person knows a peer by."""
    nickname = peer.get("nickname")
    return shown(nickname) if nickname else short(str(peer.get("node", "")))


def confirm(question: str, *, yes: bool) -> None:
    """Ask a person, and go on only if the answer is yes.

    Raises:
        Usage: nobody is there to be asked, and ``--yes`` was not given.
        Failed: the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise Usage(
            "this command asks a question, and standard input is no terminal. "
            "In a script, compare the words and add --yes"
        )
    if not click.confirm(question, err=True):
        raise Failed("not done", "you said no; nothing was changed")


def read_text(path: str, what: str, limit: int = 1 << 20) -> str:
    """Read a small text file that the user named; ``-`` is standard input."""
    try:
        if path == "-":
            data = sys.stdin.buffer.read(limit + 1)
        else:
            with Path(path).open("rb") as opened:
                data = opened.read(limit + 1)
    except OSError as error:
        raise Failed(f"cannot read {path}", os.strerror(error.errno or 0)) from error
    if len(data) > limit:
        raise Failed(f"{path} is too large for {what}", f"over {limit} bytes")
    if not data.strip():
        raise Failed(
            f"{path} is empty", "the command that should have written it failed"
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Failed(f"{path} is not {what}", "it is not text") from error
