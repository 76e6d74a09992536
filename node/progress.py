"""A progress bar for people who wait, and nothing for programs."""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from time import monotonic
from types import TracebackType
from typing import TextIO

from node.errors import one_line
from node.units import size, span

# Nobody wants to see a bar flash by for something short.
PATIENCE_SECONDS = 1.0
REDRAW_SECONDS = 0.1
BAR_CELLS = 10
EIGHTHS = " ▏▎▍▌▋▊▉█"


class Progress(AbstractContextManager["Progress"]):
    """One line that is drawn over and over while work goes on.

    Nothing is drawn during the first second, nor unless the stream is a
    terminal. Leaving the context wipes the line.

    Args:
        stream: where to draw, usually standard error.
        now: the time in seconds, only ever compared with itself.
    """

    def __init__(self, stream: TextIO, now: Callable[[], float] = monotonic) -> None:
        self._stream = stream
        self._now = now
        self._visible = stream.isatty()
        self._since = self._drawn = now()
        self._first: tuple[float, int] | None = None
        self._wipe = False

    def update(self, label: str, done: int, total: int, note: str = "") -> None:
        """Show how far it is, with rate and time left since the first update."""
        now = self._now()
        if self._first is None:
            self._first = (now, done)
        if (
            not self._visible
            or now - self._since < PATIENCE_SECONDS
            or now - self._drawn < REDRAW_SECONDS
        ):
            return
        self._drawn = now
        began, already = self._first
        rate = (done - already) / (now - began) if now > began else 0.0
        columns = shutil.get_terminal_size().columns
        line = _line(one_line(label), done, total, rate, one_line(note), columns)
        self._stream.write("\r\x1b[K" + line)
        self._stream.flush()
        self._wipe = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._wipe:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def _line(
    label: str, done: int, total: int, rate: float, note: str, columns: int
) -> str:
    share = min(done / total, 1.0) if total else 1.0
    parts = [label, size(total), f"{share:4.0%}", _bar(share)]
    if rate > 0:
        parts += [f"{size(rate)}/s", f"{span(max(total - done, 0) / rate)} left"]
    if note:
        parts.append(note)
    line = "  ".join(parts)
    # The last column stays free: writing there wraps on some terminals.
    return line if len(line) < columns else line[: columns - 2] + "…"


def _bar(share: float) -> str:
    eighths = round(share * BAR_CELLS * 8)
    full, rest = divmod(eighths, 8)
    drawn = EIGHTHS[8] * full + (EIGHTHS[rest] if rest else "")
    return drawn.ljust(BAR_CELLS)
