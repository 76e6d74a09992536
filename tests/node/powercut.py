"""Power cuts and full disks for tests: the k-th change to the disk doesn't happen.

The work runs in a child process in which an audit hook counts every system
call that changes the disk. Nothing of the code under test is replaced.
"""

import errno
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink"}

CRASHED = 9
FAILED = 10
BROKEN = 11


def run_until(
    step: int,
    work: Callable[[], object],
    expected: type[Exception] | None = None,
) -> bool:
    """Run ``work`` in a child up to, and without, its change number ``step``.

    Args:
        step: counted from 0.
        work: changes files and nothing else.
        expected: None for a crash: the process is gone at once. Else this and
            every later change but a removal fails with ENOSPC, and ``work``
            must raise this.

    Returns:
        Whether it came to that step; False means that it ended before.
    """
    child = os.fork()
    if child == 0:
        os._exit(_in_child(step, work, expected))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, CRASHED, FAILED):
        raise AssertionError(f"step {step}: the child ended with {code}")
    return code != 0


def _changes(event: str, arguments: tuple[Any, ...]) -> bool:
    if event == "open":
        path, _, flags = arguments
        writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT
        return not isinstance(path, int) and bool(flags & writes)
    return event in CHANGES


def _in_child(
    step: int, work: Callable[[], object], expected: type[Exception] | None
) -> int:
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if not _changes(event, arguments):
            return
        count += 1
        if count <= step:
            return
        if expected is None:
            os._exit(CRASHED)
        if event != "os.remove":  # a full disk lets go of files
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    sys.addaudithook(hook)
    try:
        work()
    except BaseException as error:  # noqa: BLE001 (must not return into the test runner)
        if expected is not None and isinstance(error, expected):
            return FAILED
        traceback.print_exception(error)
        return BROKEN
    return 0
