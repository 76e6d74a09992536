"""What is going on: status, peers, explain, ping."""

from typing import Any

import click

from node.commands.common import (
    as_json,
    called,
    now,
    print_json,
    say,
    short,
    shown,
    with_directory,
)
from node.control_client import ControlClient
from node.directory import NodeDirectory
from node.errors import NotRunning
from node.units import span, table

Document = dict[str, Any]
WIDE = 100
"""How many characters of an error the status shows."""


@click.command()
@as_json
@with_directory
def status(directory: NodeDirectory, as_json: bool) -> None:
    """Show the running node: listeners, peers, problems.

    For each peer: the route in use, or what went wrong last and when the next
    attempt is. "wherry explain PEER" tells more.

    \b
    Examples:
      wherry status
      wherry status --json | jq '.peers[] | select(.state != "connected")'
    """
    document = ControlClient(directory).get("/status")
    if as_json:
        print_json(document)
        return
    peers = document["peers"]
    connected = sum(peer["state"] == "connected" for peer in peers)
    problems = document["problems"]
    head = [f"{shown(document['nickname'])}  {short(document['node'])}"]
    if isinstance(document.get("up_s"), int | float):
        head.append(f"up {span(document['up_s'])}")
    if peers:
        head.append(f"{connected} of {_count(len(peers), 'peer')} connected")
    else:
        head.append("no peers yet: see wherry device --help")
    if problems:
        head.append(_count(len(problems), "problem"))
    say("   ".join(head))
    for endpoint in document["listening"]:
        say(f"  port  {shown(endpoint)}")
    if peers:
        rows = [[called(peer), peer["state"], _where(peer)] for peer in peers]
        say(table([["PEER", "STATE", "ROUTE"], *rows]))
    for problem in problems:
        say(f"! {_problem(problem)}")


@click.command()
@as_json
@with_directory
def peers(directory: NodeDirectory, as_json: bool) -> None:
    """List the devices and people that this node knows.

    Without a running node the list comes from peers.yaml.

    \b
    Examples:
      wherry peers
      wherry peers --json
    """
    try:
        document = ControlClient(directory).get("/peers")
    except NotRunning:
        from node.commands.offline import known_peers

        document = {"peers": known_peers(directory)}
    if as_json:
        print_json(document)
    elif not document["peers"]:
        say("no peers yet: see wherry device --help")
    else:
        rows = [
            [called(peer), str(peer.get("kind") or "-"), peer["state"], peer["node"]]
            for peer in document["peers"]
        ]
        say(table([["PEER", "KIND", "STATE", "NODE ID"], *rows]))


@click.command()
@click.argument("peer")
@as_json
@with_directory
def explain(directory: NodeDirectory, peer: str, as_json: bool) -> None:
    """Show every route to a PEER: its source, the verdict, and why.

    Allowed routes come in the order in which they are dialled. With a running
    node, what each last led to stands beside it; without one the plan is made
    from peers.yaml and override.yaml alone.

    \b
    Examples:
      wherry explain laptop
      wherry explain laptop --json
    """
    running = True
    try:
        document = ControlClient(directory).get("/explain", {"peer": peer})
    except NotRunning:
        from node.commands.offline import explained

        running = False
        document = explained(directory, peer)
    if as_json:
        print_json(document)
        return
    routes = document["routes"]
    head = f"{called(document)}  {short(document['node'])}"
    if running and document.get("state"):
        head = f"{head}  {document['state']}"
        if document.get("last_error"):
            head = f"{head}; {shown(document['last_error'])}"
    say(head)
    if routes:
        say(
            table(
                [
                    ["RANK", "ROUTE", "SOURCE", "VERDICT", "REASON, LAST RESULT"],
                    *map(_explained, routes),
                ]
            )
        )
    say(_advice(routes, str(document.get("state") or ""), running=running))


@click.command()
@click.argument("peer")
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 3600),
    default=10.0,
    show_default=True,
    help="Give up after so many seconds.",
)
@as_json
@with_directory
def ping(directory: NodeDirectory, peer: str, timeout: float, as_json: bool) -> None:
    """Ask a PEER to answer: by which route, and how fast.

    Shows the one-time identity that it was called with, too. A peer that is not
    connected is dialled at once.

    \b
    Examples:
      wherry ping laptop
      wherry ping laptop --timeout 3
    """
    body = {"peer": peer, "timeout": timeout}
    document = ControlClient(directory).post("/ping", body, timeout + 5)
    if as_json:
        print_json(document)
        return
    route = document["route"]
    via = f"via {_route(route, source=False)} " if route else ""
    say(
        f"reply from {called(document)} {via}in {span(document['rtt_s'])} ({shown(document['tls'])}, outbound identity "
        f"{shown(document['identity'])}…, used once)"
    )
    if document.get("also"):
        others = [_route(route, source=False) for route in document["also"]]
        say(f"also allowed: {', '.join(others)}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _route(route: Document, *, source: bool = True) -> str:
    place = shown(route["hint"]).removeprefix("tcp:")
    text = f"{route['kind']} {place}"
    return f"{text} ({shown(route['source'])})" if source else text


def _where(peer: Document) -> str:
    if peer.get("route"):
        return _route(peer["route"])
    parts = []
    if peer.get("last_seen") is not None:
        parts.append(f"last seen {span(max(now() - peer['last_seen'], 0))} ago")
    if peer.get("last_error"):
        parts.append(_cut(shown(peer["last_error"]), called(peer)))
    if peer.get("next_attempt_s") is not None:
        parts.append(f"next attempt in {span(peer['next_attempt_s'])}")
    return "; ".join(parts) or "-"


def _cut(why: str, name: str) -> str:
    """Keep a line of the status a line."""
    return why if len(why) <= WIDE else f"{why[:WIDE]}… (wherry explain {name})"


def _problem(problem: Document) -> str:
    where = f" ({shown(problem['where'])})" if problem.get("where") else ""
    do = f": {shown(problem['do'])}" if problem.get("do") else ""
    return f"{shown(problem['what'])}{where}{do}"


def _explained(route: Document) -> list[str]:
    why = [shown(route[key]) for key in ("reason", "last") if route.get(key)]
    return [
        "-" if route["rank"] is None else str(route["rank"]),
        f"{route['kind']}  {shown(route['hint'])}",
        shown(route["source"]),
        route["verdict"],
        "; ".join(why) or "-",
    ]


def _advice(routes: list[Document], state: str, *, running: bool) -> str:
    """Say in one line what is most likely, and what to do."""
    allowed = [route for route in routes if route["verdict"] == "allowed"]
    if not routes:
        return (
            "No place to call is known. Exchange new cards, or write one into "
            "override.yaml: wherry override edit"
        )
    if not allowed:
        return "Every route is refused, for the reasons above."
    if not running:
        return "Nothing was tried: the node is not running. Start it with: wherry up"
    if state == "connected":
        return "It is connected."
    return (
        "If nothing answers: is the peer on, does Wherry run on it (wherry up), and "
        "does a firewall let its port through?"
    )
