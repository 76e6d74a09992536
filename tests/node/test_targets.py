"""Tests of node.getting.plan_targets: where files go."""

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from node.control import GetRequest
from node.errors import Usage
from node.getting import plan_targets
from node.listing import RemoteFile
from protocols.nodeid import NodeID
from tests.protocols.test_fileid import leaves_of

ID = leaves_of(b"x").id
HOLDERS = {NodeID.of_spki(b"desk"): 1}


class PlanTests(SynchronousTestCase):
    """What ``-o`` means."""

    def setUp(self) -> None:
        """Have a folder."""
        self.here = Path(self.mktemp()).absolute()
        self.here.mkdir()

    def plan(self, what: str, names: list[str], output: str | None) -> list[str]:
        """Plan to get files of these names; give where they go, from here."""
        full = None if output is None else os.path.join(self.here, output)
        request = GetRequest(what, self.here, full, None, False, 0o022)
        files = [RemoteFile(ID, name, 1, "x/y", HOLDERS) for name in names]
        return [
            os.path.relpath(target.path, self.here)
            for _, target in plan_targets(files, request)
        ]

    def test_places(self) -> None:
        """A file gets its own name or the new one; a folder keeps its tree."""
        (self.here / "in").mkdir()
        tree = ["top/a", "top/b/c"]
        for what, names, output, places in (
            ("top/a", ["top/a"], None, ["a"]),
            ("top/a", ["top/a"], "new", ["new"]),
            ("top/a", ["top/a"], "in", ["in/a"]),
            ("top/a", ["top/a"], "missing/", ["missing/a"]),
            ("top", tree, None, tree),
            ("top/", tree, "in", ["in/top/a", "in/top/b/c"]),
            ("top", tree, "new", ["new/a", "new/b/c"]),
        ):
            self.assertEqual(self.plan(what, names, output), places)

    def test_strange_output(self) -> None:
        """What the user chooses may be whatever a file can be called."""
        for output in ("a\\b", "a\x1bb", os.fsdecode(b"\xff"), "\u202eb", "x" * 255):
            self.assertEqual(self.plan("f", ["f"], output), [output])
            self.assertEqual(self.plan("t", ["t/f"], output), [f"{output}/f"])

    def test_no_file_name(self) -> None:
        """What no file can be called is wrong usage."""
        for output in ("missing/..", "x" * 300, "ö" * 128, "a\0b"):
            for what, name in (("f", "f"), ("t", "t/f")):
                self.assertRaises(Usage, self.plan, what, [name], output)
