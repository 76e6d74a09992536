"""Tests of protocols.filename."""

import os

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from protocols.errors import Malformed
from protocols.filename import check_name


class CheckNameTests(SynchronousTestCase):
    """Names from peers and disks."""

    def test_good(self) -> None:
        """Ordinary names pass unchanged, in any script."""
        for name in (
            "a",
            "film.mkv",
            "photos/2024/ö 写真 👩‍👩‍👧.jpg",
            "...",
            "..a/b..",
            ".hidden",
            "~",
            "-rf",
            "C:",
            "a%2fb",
            "\u200eWhatsApp Image.jpg",
            "x" * 255,
            "/".join(["x" * 255] * 16),
        ):
            self.assertEqual(check_name(name), name)

    def test_bad(self) -> None:
        """What leaves a folder, or fools a terminal, is refused."""
        for name in (
            "",
            ".",
            "..",
            "/",
            "/etc/passwd",
            "a/",
            "a//b",
            "a/./b",
            "../a",
            "a/../../b",
            "a/..",
            "a\\..\\b",
            "a\0",
            "a\nb",
            "\x1b[2J",
            "a\x7f",
            "a\x85b",
            "a\u2028b",
            "photo\u202egpj.exe",
            "a\udc80",
            "x" * 256,
            "ö" * 128,
            "/".join(["x" * 255] * 17),
        ):
            self.assertRaises(Malformed, check_name, name)

    def test_type(self) -> None:
        """Bytes are a mistake of the caller's."""
        self.assertRaises(TypeError, check_name, b"a")

    @settings(deadline=None, max_examples=300)
    @given(st.text(st.characters() | st.sampled_from("./\\\0"), max_size=30))
    def test_stays_below(self, name: str) -> None:
        """A name that passes leads to somewhere below any folder."""
        try:
            check_name(name)
        except Malformed:
            return
        path = os.path.normpath(os.path.join("/top/folder", name))
        self.assertEqual(path, "/top/folder/" + name)
