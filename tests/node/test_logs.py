"""Tests of node.logs."""

import stat
from pathlib import Path

from twisted.logger import Logger, LogLevel
from twisted.trial.unittest import SynchronousTestCase

from node.logs import FILE_BYTES, FILES_KEPT, NAME, observer, printable


class LogTests(SynchronousTestCase):
    """The log of a node in the background."""

    def setUp(self) -> None:
        """Log to a folder."""
        self.folder = Path(self.mktemp()) / "log"
        self.observer = observer(self.folder)
        self.log = Logger("test", observer=self.observer)

    def test_private(self) -> None:
        """Folder and file are for their owner alone."""
        self.log.info("hello")
        for path, mode in ((self.folder, 0o700), (self.folder / NAME, 0o600)):
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), mode)
        self.assertIn("hello", (self.folder / NAME).read_text())

    def test_rotated(self) -> None:
        """It never takes more than its share of the disk."""
        line = "x" * (FILE_BYTES // 4)
        for number in range(4 * (FILES_KEPT + 3)):
            self.log.info("{number} {line}", number=number, line=line)
        files = list(self.folder.iterdir())
        self.assertEqual(len(files), FILES_KEPT + 1)
        for path in files:
            self.assertLess(path.stat().st_size, FILE_BYTES * 2)

    def test_control_characters(self) -> None:
        """What a peer calls itself moves no cursor, and writes whatever it is."""
        for name in ("\x1b[2J", "\r", "\u202e", "\ud800", "\x00"):
            event = {
                "log_format": "{name}",
                "name": name,
                "log_level": LogLevel.info,
                "log_namespace": "test",
                "log_time": 0.0,
            }
            text = printable(event)
            assert text is not None
            self.assertNotIn(name, text)
            self.observer(event)

    def test_nothing_to_say(self) -> None:
        """An event without text is no line."""
        self.assertIsNone(printable({}))
