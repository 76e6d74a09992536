"""Run every test with trial, and fail on what trial alone lets pass.

That is a test skipped without a reason in ``SKIPS``, and a comparison of bytes
with text in our own code (Twisted has some of its own, so ``-bb`` is too much).
"""

import os
import re
import subprocess
import sys

_ROOT = "only root can give a file to another user"
_MOUNT = "some kernels let plain users mount nothing, not even in a namespace"
SKIPS: dict[str, str] = {
    "tests.node.test_directory.CheckTests.test_foreign": _ROOT,
    "tests.node.test_directory.FileTests.test_foreign": _ROOT,
    "tests.node.test_files.FullDiskTests.test_full": _MOUNT,
    "tests.node.test_landing.FullDiskTests.test_full": _MOUNT,
}
"""Tests that plain users may skip; as root, as in CI, nothing is skipped."""

_SECTION = re.compile(r"^\[SKIPPED\]$.*?(?=^={5,}$|^-{5,}$)", re.MULTILINE | re.DOTALL)
_TEST = re.compile(r"^tests\.[\w.]+$", re.MULTILINE)


def unexplained(output: str) -> set[str]:
    """Give the ids of the tests that trial skipped without a listed reason."""
    sections = _SECTION.findall(output)
    skipped = {test for each in sections for test in _TEST.findall(each)}
    count = re.search(r"skips=(\d+)", output)
    if count and not skipped:
        return {f"{count[1]} tests that could not be named"}
    return skipped - (SKIPS.keys() if os.geteuid() else set())


def mixed(output: str) -> set[str]:
    """Give the places in our own code where bytes are compared with text."""
    warned = (line for line in output.splitlines() if ": BytesWarning: " in line)
    return {line for line in warned if "/site-packages/" not in line}


def main() -> int:
    """Run trial, passing on its output as it comes."""
    command = [
        sys.executable,
        "-b",
        "-m",
        "twisted.trial",
        *(sys.argv[1:] or ["tests"]),
    ]
    lines = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as trial:
        assert trial.stdout is not None
        for line in trial.stdout:
            lines.append(line)
            if mixed(line) or ": BytesWarning: " not in line:
                sys.stdout.write(line)
                sys.stdout.flush()
    hidden, comparisons = unexplained("".join(lines)), mixed("".join(lines))
    for test in sorted(hidden):
        sys.stderr.write(f"skipped without a reason in tests/__main__.py: {test}\n")
    for place in sorted(comparisons):
        sys.stderr.write(f"{place}\n")
    return trial.returncode or bool(hidden or comparisons)


if __name__ == "__main__":
    sys.exit(main())
