"""Run every test with trial, and fail on a skip that nobody owned up to.

A test may be skipped only if ``SKIPS`` gives its id and the reason.
"""

import re
import subprocess
import sys

SKIPS: dict[str, str] = {}

_SECTION = re.compile(r"^\[SKIPPED\]$.*?(?=^={5,}$|^-{5,}$)", re.MULTILINE | re.DOTALL)
_TEST = re.compile(r"^tests\.[\w.]+$", re.MULTILINE)


def unexplained(output: str) -> set[str]:
    """Give the ids of the tests that trial skipped without a listed reason."""
    sections = _SECTION.findall(output)
    skipped = {test for each in sections for test in _TEST.findall(each)}
    count = re.search(r"skips=(\d+)", output)
    if count and not skipped:
        return {f"{count[1]} tests that could not be named"}
    return skipped - SKIPS.keys()


def main() -> int:
    """Run trial, passing on its output as it comes."""
    command = [
        sys.executable,
        "-bb",
        "-m",
        "twisted.trial",
        *(sys.argv[1:] or ["tests"]),
    ]
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as trial:
        assert trial.stdout is not None
        for line in trial.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            lines.append(line)
    hidden = unexplained("".join(lines))
    for test in sorted(hidden):
        sys.stderr.write(f"skipped without a reason in tests/__main__.py: {test}\n")
    return trial.returncode or bool(hidden)


if __name__ == "__main__":
    sys.exit(main())
