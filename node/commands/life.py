"""A node's life: init, up, down, run, card."""

import click

from node.commands.common import (
    as_json,
    now,
    print_json,
    say,
    short,
    shown,
    with_directory,
)
from node.control_client import ControlClient
from node.directory import NodeDirectory
from node.errors import NotRunning, Usage

making = (
    click.option(
        "--nickname",
        metavar="TEXT",
        help="What you call this node (default: hostname).",
    ),
    click.option(
        "--listen",
        metavar="ENDPOINT",
        multiple=True,
        help="A Twisted endpoint string; several times for several. "
        "Default: tcp6:8443, or a free port if that one is taken.",
    ),
    click.option(
        "--name",
        "names",
        metavar="DNSNAME",
        multiple=True,
        help="A plain name for programs that are not Wherry, such as curl.",
    ),
)


@click.command()
@making[0]
@making[1]
@making[2]
@as_json
@with_directory
def init(
    directory: NodeDirectory,
    nickname: str | None,
    listen: tuple[str, ...],
    names: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make a node: its keys, certificates and settings.

    Prints the node id and the card, one line by which others can call it. On a
    directory that is a node already nothing is changed.

    \b
    Examples:
      wherry init
      wherry init --nickname desk --listen tcp6:9443
      wherry init --name files.home.example    for curl; see docs
    """
    from node.commands.offline import card_of, make

    made = make(directory, nickname, listen, names, now())
    card = card_of(directory)
    if as_json:
        print_json({"node": card.node.text, "card": card.text(), "created": made})
        return
    if not made:
        say(f"There is a node in {directory.path} already; nothing was changed.")
    say(f"Node id  {card.node}")
    say(f"Card     {card.text()}")
    if made:
        say("Next: wherry up")


@click.command()
@as_json
@with_directory
def card(directory: NodeDirectory, as_json: bool) -> None:
    """Print the card: one line that lets others call this node.

    Give it only to those who may know of the node. It says where to call, and
    holds a secret by which it is found on the local network.

    \b
    Examples:
      wherry card
      wherry card > desk.card
    """
    try:
        text = str(ControlClient(directory).get("/card")["card"])
    except NotRunning:
        from node.commands.offline import card_of

        text = card_of(directory).text()
    if as_json:
        print_json({"card": text})
    else:
        say(text)


@click.command()
@making[0]
@making[1]
@making[2]
@with_directory
def up(
    directory: NodeDirectory,
    nickname: str | None,
    listen: tuple[str, ...],
    names: tuple[str, ...],
) -> None:
    """Start the node in the background; make it first if there is none.

    It goes on until "wherry down" or the machine's end, and logs to
    log/wherry.log in its directory, which is rotated. The options are for
    making it, and are those of "wherry init".

    \b
    Examples:
      wherry up
      wherry up --nickname desk
    """
    from node import background

    if directory.exists():
        if nickname is not None or listen or names:
            raise Usage(
                f"there is a node in {directory.path} already. Change its settings in "
                "node.yaml, and start it again"
            )
    else:
        from node.commands.offline import make

        make(directory, nickname, listen, names, now())
    started = background.up(directory)
    document = ControlClient(directory).get("/status")
    pid = background.holder(directory)
    already = "" if started else "already "
    say(
        f'Node "{shown(document["nickname"])}" is {already}running (pid {pid}). '
        f"Node id {short(document['node'])}"
    )
    for endpoint in document["listening"]:
        say(f"  port  {shown(endpoint)}")
    if document["peers"]:
        say("  next  wherry status, wherry share PATH, wherry ls")
    else:
        say(
            "  next  to add another device: wherry up there, then wherry device request"
        )


@click.command()
@with_directory
def down(directory: NodeDirectory) -> None:
    """End the node of this directory, however it was started.

    Transfers are cut cleanly and resume when it runs again.

    \b
    Example:
      wherry down
    """
    from node import background

    pid = background.down(directory)
    say(f"The node has ended (pid {pid}).")


@click.command()
@with_directory
def run(directory: NodeDirectory) -> None:
    """Run the node in the foreground, logging to standard output.

    The same as: twistd --nodaemon --pidfile= wherry --dir DIR. For service
    managers; SIGTERM and Ctrl-C end it.

    \b
    Example:
      wherry run --dir /srv/wherry
    """
    # The one command that is the node, and so imports Twisted in this process.
    from node import background

    background.run(directory)
