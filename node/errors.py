"""Errors for the user: what happened, why, what to do; each with its exit code.

Every command ends in one of these or succeeds. The exit codes are part of what
other programs may rely on.
"""

from typing import ClassVar


def one_line(text: str) -> str:
    """Make text safe to print on one line of a terminal.

    Text of peers and of files ends up in errors, so control characters and
    those that turn the writing direction are escaped.
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


class WherryError(Exception):
    """Base of all errors that a user sees; ``str()`` is the one line.

    Attributes:
        code: the exit code of a command that ends in this error.
        what: what happened.
        why: the likely cause, or ``""``.
        do: one thing to do about it, or ``""``.
    """

    code: ClassVar[int] = 1

    def __init__(self, what: str, why: str = "", do: str = "") -> None:
        super().__init__(what, why, do)
        self.what = what
        self.why = why
        self.do = do

    def __str__(self) -> str:
        text = f"{self.what}: {self.why}" if self.why else self.what
        if self.do:
            end = "" if text.endswith((".", "?", "!")) else "."
            text = f"{text}{end} {self.do}"
        return one_line(text)


class Failed(WherryError):
    """The command could not do its work (exit code 1)."""

    code = 1


class Usage(WherryError):
    """The command was called in a wrong way (exit code 2)."""

    code = 2


class NotRunning(WherryError):
    """The command needs a running node and there is none (exit code 3)."""

    code = 3


class Unreachable(WherryError):
    """No route led to the peer (exit code 4)."""

    code = 4


class Untrusted(WherryError):
    """Somebody was refused: a peer, a signature, a file's owner (exit code 5)."""

    code = 5


class TimedOut(WherryError):
    """It took too long (exit code 6)."""

    code = 6


class Integrity(WherryError):
    """Bytes are not the bytes that were promised (exit code 7)."""

    code = 7


KINDS: dict[int, type[WherryError]] = {
    kind.code: kind
    for kind in (Failed, Usage, NotRunning, Unreachable, Untrusted, TimedOut, Integrity)
}


def from_code(message: str, code: int) -> WherryError:
    """Give the error again that crossed a wire as message and exit code."""
    return KINDS.get(code, Failed)(message)
