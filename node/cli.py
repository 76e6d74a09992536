"""The ``wherry`` command.

Each command lives in a room of its own that is imported when it is called:
``wherry status`` must not wait for what only ``wherry init`` needs, and nothing
but ``wherry run`` ever imports Twisted in this process.
"""

import importlib
import os
import sys
from collections.abc import Iterable
from typing import Final, NoReturn

import click

from node.commands.common import Interrupted, directory_option
from node.errors import Usage, WherryError, one_line
from protocols.errors import Malformed

SECTIONS: Final = {
    "A node": {
        "init": "life",
        "up": "life",
        "down": "life",
        "run": "life",
        "status": "looking",
        "card": "life",
        "demo": "demo",
    },
    "Files": {"share": "files", "ls": "files", "get": "files"},
    "Devices and peers": {
        "device": "device",
        "peers": "looking",
        "ping": "looking",
        "explain": "looking",
        "override": "override",
        "identity": "identity",
    },
}
ROOMS: Final = {name: room for each in SECTIONS.values() for name, room in each.items()}


class Commands(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name all commands."""
        return list(ROOMS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in ROOMS:
            return None
        room = importlib.import_module(f"node.commands.{ROOMS[cmd_name]}")
        command = getattr(room, cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """List the commands by what they are for."""
        for section, names in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl(
                    [(name, _summary(self.get_command(ctx, name))) for name in names]
                )


def _summary(command: click.Command | None) -> str:
    return command.get_short_help_str(limit=66) if command else ""


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 88},
)
@click.version_option(package_name="wherry", message="wherry %(version)s")
@directory_option
def wherry() -> None:
    """Share files between your own devices, over mutual TLS, with no server.

    Every device runs a node with one lasting identity for being called, and
    takes a fresh one for every call that it makes.

    \b
    Examples:
      wherry up                     make a node if there is none, and start it
      wherry share film.mkv         offer a file to your other devices
      wherry get film.mkv           fetch it there, verified, resumed if cut
      wherry explain laptop         why is it (not) connected?
      wherry demo                   see all of it work on this computer

    \b
    Exit codes:
      0 done, 1 failed, 2 wrong usage, 3 the node is not running,
      4 peer unreachable, 5 refused or not trusted, 6 timed out, 7 integrity
    """


def main(arguments: Iterable[str] | None = None) -> NoReturn:
    """Run a command and exit; a failure is one line on standard error."""
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks must not end a command.
        getattr(stream, "reconfigure", lambda **_: None)(errors="backslashreplace")
    sys.exit(_run(None if arguments is None else list(arguments)))


def _run(arguments: list[str] | None) -> int:
    try:
        result = wherry.main(arguments, prog_name="wherry", standalone_mode=False)
        sys.stdout.flush()
    except WherryError as error:
        return _fail(str(error), error.code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "wherry"
        return _fail(f"{error.format_message()} See: {command} --help", Usage.code)
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)
    except Malformed as error:
        return _fail(str(error), 1)
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", Interrupted.code)
    except BrokenPipeError:
        # Who read our output has enough. Python would complain once more
        # when it flushes, so let it flush into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", 1)
    return result if isinstance(result, int) else 0


def _fail(message: str, code: int) -> int:
    click.echo(f"wherry: {one_line(message)}", err=True)
    return code
