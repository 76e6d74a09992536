"""Files: share, ls, get."""

import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from node.commands.common import (
    Interrupted,
    as_json,
    note,
    print_json,
    say,
    short,
    shown,
    with_directory,
)
from node.control_client import ControlClient
from node.directory import NodeDirectory
from node.errors import NotRunning, Usage
from node.progress import Progress
from node.units import size, table

Document = dict[str, Any]
LINES = 20
LS_SECONDS = 60.0  # longer than the node gives those whom it asks


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@as_json
@with_directory
def share(directory: NodeDirectory, paths: tuple[str, ...], as_json: bool) -> None:
    """Offer files and folders to your other devices.

    What is shared is copied: change or delete the original as you like. A
    folder is shared with everything below it; links are named and left out.
    Sharing the same content again costs no room. Works without a running node.

    \b
    Examples:
      wherry share film.mkv
      wherry share photos/ notes.txt
    """
    if "" in paths:
        raise Usage("a path is empty")
    # Not os.path.abspath: that takes "link/.." for nothing.
    here = [os.path.join(os.getcwd(), path) for path in paths]
    try:
        done = _follow(directory, "/share", {"paths": here})
    except NotRunning:
        done = _share_alone(directory, here)
    if as_json:
        print_json(done)
    else:
        rows = [
            [shown(each["name"]), size(each["size"]), each["id"]]
            for each in done["files"]
        ]
        most = _lines()
        say(table(rows[:most]))
        if len(rows) > most:
            say(f"and {len(rows) - most} more; see: wherry ls")
    for each in done["skipped"]:
        note(f"not shared: {shown(each['path'])}: {shown(each['why'])}")


@click.command()
@as_json
@with_directory
def ls(directory: NodeDirectory, as_json: bool) -> None:
    """List the files of all connected devices, and who holds them.

    Without a running node only those of this device are listed.

    \b
    Examples:
      wherry ls
      wherry ls --json | jq -r '.files[].name'
    """
    client = ControlClient(directory, LS_SECONDS)
    alone = False
    try:
        document = client.get("/files")
    except NotRunning:
        document, alone = _held_here(directory), True
    if as_json:
        print_json(document)
        return
    names = {} if alone else _nicknames(client.get("/status"))
    if document["files"]:
        rows = [
            [
                shown(each["name"]),
                size(each["size"]),
                ", ".join(names.get(node, "here") for node in each["holders"]),
                each["id"],
            ]
            for each in document["files"]
        ]
        say(table([["NAME", "SIZE", "HELD BY", "ID"], *rows]))
    elif document.get("problems"):
        say("no files that can be listed now")
    else:
        say("no files yet: wherry share PATH")
    for problem in document.get("problems", []):
        note(f"incomplete: {shown(problem)}")
    if alone:
        note("The node is not running, so these are the files of this device alone.")


@click.command()
@click.argument("what", metavar="NAME|ID")
@click.option(
    "-o", "--output", metavar="PATH", help="Where to put it: a folder, or a new name."
)
@click.option("--from", "from_peer", metavar="PEER", help="Ask this peer alone.")
@click.option("--force", is_flag=True, help="Replace another file of that name.")
@as_json
@with_directory
def get(
    directory: NodeDirectory,
    what: str,
    output: str | None,
    from_peer: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Fetch a file or a folder from whoever holds it, and verify it.

    Nothing stands under the final name before all of it is verified. If it is
    cut, the same command goes on where it was. A file that is there already is
    kept if it is the same, else refused without --force. If several files have
    the name, their ids are listed: get the one that you want by its id.

    \b
    Examples:
      wherry get film.mkv
      wherry get photos -o ~/Pictures/
      wherry get film.mkv --from desk
    """
    if not what or output == "":
        raise Usage("a name or a path is empty")
    umask = os.umask(0o077)
    os.umask(umask)
    here = os.getcwd()
    body = {
        "what": what,
        "directory": here,
        "output": None if output is None else os.path.join(here, output),
        "from_peer": from_peer,
        "force": force,
        "umask": umask,
    }
    try:
        done = _follow(directory, "/get", body)
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted. What has come so far is kept: the same command goes on there"
        ) from None
    if as_json:
        print_json(done)
        return
    most = _lines()
    for each in done["files"][:most]:
        say(_fetched(each))
    if len(done["files"]) > most:
        say(f"and {len(done['files']) - most} more")


def _lines() -> int:
    """Give how many files are named: in a pipe all of them."""
    return LINES if sys.stdout.isatty() else sys.maxsize


def _follow(directory: NodeDirectory, path: str, body: Document) -> Document:
    """Have the node do something long, with a bar; give what it came to."""
    with (
        Progress(sys.stderr) as bar,
        closing(ControlClient(directory).stream(path, body)) as documents,
    ):
        for document in documents:
            if "done" in document:
                done = document["done"]
                assert isinstance(done, dict)
                return done
            progress = document.get("progress", {})
            bar.update(
                progress.get("name", ""),
                progress.get("done", 0),
                progress.get("total", 0),
                progress.get("note", ""),
            )
    raise NotRunning("the node went away while it worked")


def _share_alone(directory: NodeDirectory, paths: list[str]) -> Document:
    """Share into the store while no node runs; the lock keeps one from starting."""
    from node import documents, sharing
    from node.stores.files import FileStore

    directory.require()
    with (
        directory.lock(),
        closing(FileStore(directory.path)) as store,
        Progress(sys.stderr) as bar,
    ):

        def report(progress: sharing.ShareProgress) -> None:
            bar.update(progress.name, progress.done, progress.total)

        outcome = sharing.share(store, [Path(path) for path in paths], report)
        return documents.shared(outcome)


def _held_here(directory: NodeDirectory) -> Document:
    from node import documents
    from node.identity import Identity
    from node.stores.files import Entry, FileStore

    identity = Identity.load(directory)
    with directory.lock(), closing(FileStore(directory.path)) as store:
        entries: list[Entry] = []
        while page := store.entries(after=entries[-1].row if entries else 0):
            entries += page
    return documents.files(entries, identity.node)


def _nicknames(status: Document) -> dict[str, str]:
    names = {
        peer["node"]: shown(peer.get("nickname") or short(peer["node"]))
        for peer in status["peers"]
    }
    return names | {status["node"]: "here"}


def _fetched(each: Document) -> str:
    parts = [shown(each["path"]), size(each["size"])]
    if each.get("kept"):
        parts.append("was there already, the same")
    else:
        givers = ", ".join(shown(name) for name in each.get("from", []))
        parts.append(f"verified, from {givers}" if givers else "verified")
        if each.get("resumed"):
            parts.append(f"resumed at {size(each['resumed'])}")
    return "  ".join(parts)
