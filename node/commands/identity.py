"""``wherry identity leaf``: a certificate for programs that are not Wherry."""

import os
from pathlib import Path

import click

from node.commands.common import now, say, with_directory
from node.directory import NodeDirectory
from node.errors import Failed


@click.group()
def identity() -> None:
    """Certificates of this device, for curl and debugging."""


@identity.command()
@click.option(
    "--out",
    required=True,
    metavar="DIR",
    help="Where leaf.pem, leaf.key and user-ca.pem go; made if it is missing.",
)
@with_directory
def leaf(directory: NodeDirectory, out: str) -> None:
    """Write a short-lived client certificate for debugging.

    leaf.pem holds the certificate and its chain, leaf.key its key, user-ca.pem
    what vouches for your nodes. It is good until the day after tomorrow, and
    whoever has leaf.key is taken for this device by your nodes until then:
    delete it after use. Nodes never use it for their own calls.

    \b
    Example:
      wherry identity leaf --out /tmp/leaf
      curl --tlsv1.3 --cert /tmp/leaf/leaf.pem --key /tmp/leaf/leaf.key \\
           --cacert /tmp/leaf/user-ca.pem https://NAME:8443/files/
    NAME is one that was given to "wherry init --name" on the node called.
    """
    from node.identity import Identity
    from protocols.certificates import key_pem, pem
    from protocols.tub import mint

    own = Identity.load(directory)
    tub = mint(own.device_ca, own.device_key, now())
    folder = Path(out)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(folder / "leaf.key", key_pem(tub.key))
        _write(folder / "leaf.pem", pem(tub.chain))
        _write(folder / "user-ca.pem", pem([own.user_ca]))
    except OSError as error:
        raise Failed(f"cannot write to {out}", os.strerror(error.errno or 0)) from error
    say(f"{folder / 'leaf.pem'}, leaf.key and user-ca.pem: good until the day after")
    say("tomorrow. Whoever has leaf.key is taken for this device: delete it after use.")


def _write(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, in place of an older one."""
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with open(os.open(path, flags, 0o600), "wb") as opened:
        opened.write(data)
