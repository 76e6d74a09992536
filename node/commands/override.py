"""The override file: check, edit, show."""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from node.commands.common import confirm, note, say, with_directory
from node.directory import NodeDirectory
from node.errors import Failed, Usage


@click.group()
def override() -> None:
    """Check, edit or show override.yaml, which has the last word."""


@override.command()
@with_directory
def check(directory: NodeDirectory) -> None:
    """Check override.yaml: every key, value and hint.

    A mistake is named with its file, line and column, and the exit code is 1.

    \b
    Example:
      wherry override check
    """
    from node.commands.offline import checked_override

    count = len(checked_override(directory).clauses)
    say(f"{directory.override}: right, with {count} clause{'' if count == 1 else 's'}")


@override.command()
@with_directory
def edit(directory: NodeDirectory) -> None:
    """Open override.yaml in $EDITOR, and check it before it counts.

    What is wrong is shown, and you can go back to it; the old file stays in
    place until the new one is right.

    \b
    Example:
      EDITOR=nano wherry override edit
    """
    from node.commands.offline import checked_override
    from override.override import FILE, TEMPLATE

    directory.require()
    before = directory.read_file(FILE) or TEMPLATE.encode("utf-8")
    with tempfile.TemporaryDirectory(prefix="wherry-") as folder:
        draft = Path(folder) / FILE
        draft.write_bytes(before)
        while True:
            _open_editor(draft)
            after = draft.read_bytes()
            if after == before:
                say("Nothing was changed.")
                return
            try:
                checked_override(directory, after)
            except Failed as error:
                if not sys.stdin.isatty():
                    raise
                note(f"wherry: {error}")
                confirm("Edit it again? (No throws the changes away)", yes=False)
            else:
                break
    # The file is the user's, whose editor takes no lock either.
    try:
        directory.write_file(FILE, after)
    except Failed as error:
        kept = Path(tempfile.mkdtemp(prefix="wherry-")) / FILE
        kept.write_bytes(after)
        raise Failed(str(error), do=f"What you wrote is in {kept}") from None
    say(f"{directory.override} is right, and in place.")
    say("It counts from the next start of the node: wherry down, then wherry up")


@override.command()
@click.argument("peer")
@with_directory
def show(directory: NodeDirectory, peer: str) -> None:
    """Print a clause for PEER, ready to paste into override.yaml.

    It says what holds now; edit what should be otherwise.

    \b
    Example:
      wherry override show laptop
    """
    from node.commands.offline import clause_of

    say(clause_of(directory, peer))


def _open_editor(draft: Path) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    command = [*shlex.split(editor), str(draft)]
    try:
        # The user's own editor, by the user's own wish.
        code = subprocess.run(command, check=False).returncode  # noqa: S603
    except OSError as error:
        raise Usage(f"cannot start {editor}: set EDITOR to your editor") from error
    if code != 0:
        raise Failed(f"{editor} ended with code {code}", "nothing was changed")
