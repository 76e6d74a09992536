"""Children that die at a chosen moment, or live on a tiny disk."""

import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest

_HERE = Path(__file__).absolute().parents[2]  # trial changes the working directory

# What changes a disk, one call at a time. (SQLite's own calls are not among
# them: for these there is ``killed_after``.)
_STEPS = ("pwrite", "rename", "fsync", "unlink", "ftruncate", "mkdir", "fchmod")


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Do the work in a child that kills itself before its n-th change of the disk.

    A write is killed half-way.

    Returns:
        Whether it was killed; else it got through with fewer steps.
    """

    def count_down() -> None:
        left = step

        def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    if name == "pwrite":
                        fd, data, offset = args
                        real(fd, data[: len(data) // 2], offset)
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **kwargs)

            return call

        for name in _STEPS:
            setattr(os, name, counted(name, getattr(os, name)))
        work()

    pid = _fork(count_down)
    return _killed(pid)


def killed_after(seconds: float, work: Callable[[], object]) -> bool:
    """Do the work in a child that is killed after some time.

    Returns:
        Whether it was killed; else it was done before.
    """
    reading, writing = os.pipe()
    pid = _fork(work, closing=reading)
    os.close(writing)
    # The pipe closes when the child ends, in whatever way.
    select.select([reading], [], [], seconds)
    os.close(reading)
    os.kill(pid, signal.SIGKILL)
    return _killed(pid)


def _fork(work: Callable[[], object], closing: int = -1) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        if closing >= 0:
            os.close(closing)
        work()
    except BaseException:  # noqa: BLE001 - a forked child must not return
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _killed(pid: int) -> bool:
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status):
        raise AssertionError("the child failed; its traceback is above")
    return False


def on_tiny_disk(script: str, folder: Path, megabytes: int) -> str:
    """Run a Python script with a small, separate disk mounted on a folder.

    Args:
        script: its ``sys.argv[1]`` is the folder.
        folder: seen as the disk by this script alone.
        megabytes: the disk's size.

    Returns:
        What the script printed.
    """
    mount = f'mount -t tmpfs -o size={megabytes}m none "$2" && exec "$0" -c "$1" "$2"'
    plain = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    try:
        able = subprocess.run(
            [*plain, "mount", "-t", "tmpfs", "none", str(folder)], capture_output=True
        )
    except FileNotFoundError:
        raise SkipTest("there is no unshare") from None
    if able.returncode:
        raise SkipTest("mount namespaces are not allowed here")
    done = subprocess.run(
        [*plain, "sh", "-c", mount, sys.executable, script, str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(_HERE)},
    )
    if done.returncode:
        raise AssertionError(done.stderr)
    return done.stdout
