"""Tests of the benchmarks: that they run, not what they measure."""

import json
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase


class BenchmarkTests(SynchronousTestCase):
    """One small run."""

    def test_small(self) -> None:
        """Every server serves every byte, and figures come out."""
        report = Path(self.mktemp()).absolute()
        done = subprocess.run(
            [
                *(sys.executable, "-m", "benchmarks", "--json", str(report)),
                *("--mib", "4", "--rounds", "1"),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=Path(__file__).parents[2],
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        found = json.loads(report.read_text())
        self.assertEqual(found["servers"].keys(), {"wherry", "nginx"})
        self.assertGreater(found["mint_s"], 0)
        self.assertIn("beside nginx", done.stdout)
