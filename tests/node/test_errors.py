"""Tests of the errors that users see."""

from twisted.trial.unittest import SynchronousTestCase

from node import errors


class WherryErrorTests(SynchronousTestCase):
    """One line: what, why, what to do."""

    def test_one_line(self) -> None:
        """The parts are joined as a sentence; missing ones leave no trace."""
        for error, text in [
            (errors.Failed("it broke"), "it broke"),
            (errors.Failed("it broke", "it was old"), "it broke: it was old"),
            (errors.Failed("it broke", do="Buy one"), "it broke. Buy one"),
            (errors.Failed("it", "why?", "Do"), "it: why? Do"),
        ]:
            self.assertEqual(str(error), text)

    def test_hostile_text(self) -> None:
        """Text of a peer can neither add lines nor steer the terminal."""
        text = str(errors.Failed("a\nb\x1b[2J", "\u202egpj.exe", "\udcff\x85"))
        self.assertEqual(text, "a\\nb\\x1b[2J: \\u202egpj.exe. \\udcff\\x85")

    def test_codes(self) -> None:
        """The exit codes are those that other programs rely on."""
        kinds = [
            errors.Failed,
            errors.Usage,
            errors.NotRunning,
            errors.Unreachable,
            errors.Untrusted,
            errors.TimedOut,
            errors.Integrity,
        ]
        self.assertEqual([kind.code for kind in kinds], [1, 2, 3, 4, 5, 6, 7])
        for kind in kinds:
            again = errors.from_code("text: why", kind.code)
            self.assertIs(type(again), kind)
            self.assertEqual(str(again), "text: why")
        self.assertIs(type(errors.from_code("x", 99)), errors.Failed)
