"""A second device, offline, by two small files and three words."""

import click

from node.commands.common import (
    as_json,
    assume_yes,
    confirm,
    note,
    now,
    print_json,
    read_text,
    say,
    short,
    shown,
    with_directory,
)
from node.control_client import ControlClient
from node.directory import NodeDirectory
from node.errors import NotRunning

REQUEST_WORDS = "Words of the request"
USER_WORDS = "Words of the user CA"


@click.group()
def device() -> None:
    """Make a second device yours: request, admit, accept.

    \b
    On the new device:    wherry init
                          wherry device request > request.txt
    Carry request.txt to a device that holds your user CA, the first of yours:
                          wherry device admit request.txt > bundle.txt
    Carry bundle.txt back to the new one:
                          wherry device accept bundle.txt
    Each step shows three words; compare them on both screens. Delete
    bundle.txt afterwards: it holds what finds your devices on a network.
    """


@device.command()
@as_json
@with_directory
def request(directory: NodeDirectory, as_json: bool) -> None:
    """Print a request to be admitted, on the new device.

    The three words on standard error are those that "wherry device admit" must
    show. A node that runs in the background is stopped for a moment.

    \b
    Example:
      wherry device request > request.txt
    """
    from node import background, enrol
    from protocols.words import three_words

    with background.paused(directory):
        signed = enrol.request(directory, now())
    words = three_words(signed.digest)
    if as_json:
        print_json({"request": signed.text(), "words": words})
        return
    say(signed.text())
    note(f"{REQUEST_WORDS}: {words}")
    note("Next, on a device that holds your user CA: wherry device admit FILE")


@device.command()
@click.argument("file")
@assume_yes
@as_json
@with_directory
def admit(directory: NodeDirectory, file: str, yes: bool, as_json: bool) -> None:
    """Admit the device whose request is in FILE.

    Shows three words, asks whether the new device shows the same, and prints
    the bundle for it. Works while the node runs and without it.

    \b
    Examples:
      wherry device admit request.txt > bundle.txt
      wherry device admit --yes request.txt > bundle.txt    the words were compared
    """
    text = read_text(file, "a request")
    client = ControlClient(directory)
    admission = None
    try:
        asked = client.post("/device/admit", {"request": text})
    except NotRunning:
        from node import documents, enrol

        admission = enrol.admit(directory, text, now())
        asked = documents.admission(admission)
    note(f"{shown(asked['nickname'])} ({short(asked['node'])}) asks to be your device.")
    if asked["called"] != asked["nickname"]:
        note(
            f"It will be called {shown(asked['called'])} here: the other name is taken."
        )
    note(f"{REQUEST_WORDS}: {asked['words']}")
    confirm("Does the new device show the same three words?", yes=yes)
    if admission is None:
        body = {"request": text, "words": asked["words"]}
        bundle = client.post("/device/admit", body)["bundle"]
    else:
        bundle = admission.commit()
    if as_json:
        print_json(asked | {"bundle": bundle})
        return
    say(bundle)
    note(f"{USER_WORDS}: {asked['user_words']}")
    note(
        "Next, on the new device, which will show these words: wherry device accept FILE"
    )
    if others := ", ".join(map(shown, asked["others"])):
        note(
            f"{others} can be called by it, and will not call it before they are told "
            "of it: repeat request, admit and accept for each of them"
        )


@device.command()
@click.argument("file")
@assume_yes
@as_json
@with_directory
def accept(directory: NodeDirectory, file: str, yes: bool, as_json: bool) -> None:
    """Become a device of the user whose bundle is in FILE.

    Shows the three words of the user CA and asks whether the admitting device
    showed the same. The user CA that "wherry init" made here is given up. A
    node that runs in the background is started anew.

    \b
    Examples:
      wherry device accept bundle.txt
      wherry device accept --yes bundle.txt    the words were compared
    """
    from node import background, enrol

    text = read_text(file, "a bundle")
    with background.paused(directory) as runs:
        acceptance = enrol.accept(directory, text, now())
        note(f"{USER_WORDS}: {acceptance.words}")
        confirm("Did the admitting device show the same three words?", yes=yes)
        acceptance.commit()
    devices = ", ".join(shown(nickname) for nickname in acceptance.devices)
    if as_json:
        print_json({"words": acceptance.words, "devices": list(acceptance.devices)})
        return
    say(f"This is one of your devices now, with {devices}.")
    say("Next: wherry status" if runs else "Next: wherry up, then wherry status")
