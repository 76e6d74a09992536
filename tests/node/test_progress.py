"""Tests of node.progress."""

from io import StringIO

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from node.progress import Progress


class Terminal(StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """It is."""
        return True


class ProgressTests(SynchronousTestCase):
    """The bar."""

    def setUp(self) -> None:
        """Have a terminal and a time."""
        self.clock = Clock()
        self.stream = Terminal()

    def bar(self) -> Progress:
        """Make a bar."""
        return Progress(self.stream, self.clock.seconds)

    def test_patience(self) -> None:
        """Nothing is drawn during the first second."""
        with self.bar() as bar:
            bar.update("film.mkv", 10, 100)
            self.clock.advance(0.99)
            bar.update("film.mkv", 50, 100)
        self.assertEqual(self.stream.getvalue(), "")

    def test_drawn_and_wiped(self) -> None:
        """Afterwards name, size, share, bar, rate, time left and note."""
        with self.bar() as bar:
            bar.update("film.mkv", 0, 4_000_000_000)
            self.clock.advance(20)
            bar.update("film.mkv", 2_000_000_000, 4_000_000_000, "from desk")
            drawn = self.stream.getvalue()
        self.assertEqual(
            drawn,
            "\r\x1b[Kfilm.mkv  4.0 GB   50%  █████       100 MB/s  20 s left  from desk",
        )
        self.assertEqual(self.stream.getvalue(), drawn + "\r\x1b[K")

    def test_no_terminal(self) -> None:
        """A pipe sees nothing."""
        pipe = StringIO()
        with Progress(pipe, self.clock.seconds) as bar:
            self.clock.advance(5)
            bar.update("film.mkv", 1, 2)
        self.assertEqual(pipe.getvalue(), "")

    def test_resumed_part_is_no_rate(self) -> None:
        """What was there at the start does not count as transferred."""
        with self.bar() as bar:
            bar.update("f", 900_000, 1_000_000)
            self.clock.advance(10)
            bar.update("f", 950_000, 1_000_000)
            self.assertIn("5.0 kB/s", self.stream.getvalue())

    def test_hostile_name(self) -> None:
        """A name can't move the cursor."""
        with self.bar() as bar:
            self.clock.advance(2)
            bar.update("\x1b[2Jevil", 1, 2)
            self.assertNotIn("\x1b[2J", self.stream.getvalue())

    @given(st.integers(0, 10**13), st.integers(0, 10**13), st.text(max_size=200))
    @settings(max_examples=50)
    def test_fits(self, done: int, total: int, label: str) -> None:
        """Whatever the numbers, one line that fits the terminal is drawn."""
        stream = Terminal()
        clock = Clock()
        with Progress(stream, clock.seconds) as bar:
            bar.update(label, 0, total)
            clock.advance(3)
            bar.update(label, done, total)
            line = stream.getvalue().removeprefix("\r\x1b[K")
        self.assertNotIn("\n", line)
        self.assertLess(len(line), 80)
