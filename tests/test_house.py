"""Tests of the house itself: floors, names and what CI lets pass."""

import ast
import importlib.metadata
import os
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.__main__ import SKIPS, mixed, unexplained

ROOT = Path(__file__).parent.parent
FLOORS = ("protocols", "override", "broker", "node")  # from the ground up
PLUGINS = ROOT / "twisted" / "plugins"


def imports(source: str) -> set[str]:
    """The top-level packages that a module imports, wherever in it."""
    found = set()
    for each in ast.walk(ast.parse(source)):
        if isinstance(each, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in each.names}
        elif isinstance(each, ast.ImportFrom) and each.module:
            found.add(each.module.partition(".")[0])
    return found


def upward(package: str, source: str) -> set[str]:
    """The packages above ``package`` that a module of it imports."""
    above = set(FLOORS[FLOORS.index(package) + 1 :]) | {"tests", "benchmarks"}
    return imports(source) & above


class FloorTests(SynchronousTestCase):
    """Imports only go down."""

    def test_direction(self) -> None:
        """No module imports from a floor above its own."""
        for package in FLOORS:
            modules = list((ROOT / package).rglob("*.py"))
            self.assertGreater(len(modules), 1, package)
            for module in modules:
                self.assertEqual(upward(package, module.read_text()), set(), module)

    def test_control(self) -> None:
        """Negative control: the check sees an upward import of each form."""
        for source in (
            "import node.cli",
            "from node import cli",
            "def f():\n    from node.cli import main",
        ):
            self.assertEqual(upward("protocols", source), {"node"})
        self.assertEqual(upward("node", "import protocols.card"), set())

    def test_reactor(self) -> None:
        """The global reactor is imported in node/tap.py alone."""
        for package in FLOORS:
            for module in (ROOT / package).rglob("*.py"):
                if module != ROOT / "node" / "tap.py":
                    self.assertNotRegex(
                        module.read_text(),
                        r"internet import (\w+, )*reactor|internet\.reactor",
                        module,
                    )


class NameTests(SynchronousTestCase):
    """Our top-level names are ours, and Twisted's are Twisted's."""

    def test_owner(self) -> None:
        """No other distribution owns, or hides, one of our packages."""
        owners = importlib.metadata.packages_distributions()
        for package in (*FLOORS, "tests"):
            self.assertLessEqual(set(owners.get(package, [])), {"wherry"}, package)
            module = __import__(package)
            self.assertEqual(Path(str(module.__file__)).parent, ROOT / package)

    def test_drop_in_folder(self) -> None:
        """An __init__.py there would hide Twisted or the plugin."""
        self.assertTrue((PLUGINS / "wherry_plugin.py").is_file())
        self.assertEqual(list((ROOT / "twisted").rglob("__init__.py")), [])

    def test_top_level(self) -> None:
        """Nothing lies at the top that has no place in the plan."""
        listed = subprocess.run(
            ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        top = {name.partition("/")[0] for name in listed.stdout.splitlines()}
        plan = {*FLOORS, "tests", "twisted", "docs", "benchmarks", "pyproject.toml"}
        plan |= {"README.md", "LICENSE", "CHANGES.md", "Makefile"}
        self.assertEqual({each for each in top - plan if each[0] != "."}, set())


class SkipTests(SynchronousTestCase):
    """What the runner says of skipped tests."""

    OUTPUT = (
        "===============\n[SKIPPED]\nno tool\n\ntests.a.BTests.test_c\n"
        "tests.a.BTests.test_d\n---------------\nRan 3\n\nPASSED (skips=2)\n"
    )

    def test_unexplained(self) -> None:
        """A skip with no reason on the list is named."""
        self.assertEqual(
            unexplained(self.OUTPUT), {"tests.a.BTests.test_c", "tests.a.BTests.test_d"}
        )

    def test_unreadable(self) -> None:
        """Skips that can't be found in the output are no less unexplained."""
        self.assertEqual(len(unexplained("PASSED (skips=1)")), 1)

    def test_explained(self) -> None:
        """A reason on the list is enough; no skip needs none."""
        self.assertEqual(unexplained("PASSED (successes=3)"), set())
        SKIPS["tests.a.BTests.test_c"] = "why"
        self.addCleanup(SKIPS.pop, "tests.a.BTests.test_c")
        self.patch(os, "geteuid", lambda: 1000)
        self.assertEqual(unexplained(self.OUTPUT), {"tests.a.BTests.test_d"})
        self.patch(os, "geteuid", lambda: 0)
        self.assertEqual(len(unexplained(self.OUTPUT)), 2)

    def test_bytes_and_text(self) -> None:
        """A comparison in our own code is named, one in a library isn't."""
        ours = "/src/node/a.py:4: BytesWarning: Comparison between bytes and string"
        theirs = ours.replace("node/", "lib/site-packages/")
        self.assertEqual(mixed(f"{theirs}\n{ours}\n"), {ours})
