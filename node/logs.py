"""The log of a node in the background: bounded, and readable by its owner alone.

``twistd --logger node.logs.rotated`` calls `rotated` with no arguments, so the
directory comes from the environment as it does for every command.
"""

import os
from pathlib import Path
from typing import Any, cast

from twisted.logger import FileLogObserver, LogEvent, formatEventAsClassicLogText
from twisted.python.logfile import LogFile

from node.directory import resolve

FOLDER = "log"
NAME = "wherry.log"
FILE_BYTES = 4 * 1024 * 1024
FILES_KEPT = 4


def printable(event: LogEvent) -> str | None:
    """Format an event so that no peer can move the cursor of who reads it."""
    text = formatEventAsClassicLogText(event)
    if text is None:
        return None
    return "".join(
        char
        if char.isprintable() or char in "\n\t"
        else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def observer(folder: Path) -> FileLogObserver:
    """Log to a file in this folder, which is made if need be.

    At four mebibytes the file is renamed and a new one begun; the four newest
    are kept beside it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    log_file = LogFile(
        NAME,
        str(folder),
        rotateLength=FILE_BYTES,
        maxRotatedFiles=FILES_KEPT,
        defaultMode=0o600,
    )
    return FileLogObserver(cast(Any, log_file), printable)


def rotated() -> FileLogObserver:
    """Give the observer for the node that is being started."""
    return observer(resolve(None, os.environ) / FOLDER)
