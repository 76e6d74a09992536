"""The node in the background: started through twistd, ended by a signal.

The lock of the directory decides whether a node runs, never the pid file: that
survives a crash, and its number may be somebody else's by then.
"""

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import BinaryIO, NoReturn

from node.control_client import ControlClient, not_running
from node.directory import Locked, NodeDirectory
from node.errors import Failed, TimedOut, Usage, WherryError, from_code

PID_FILE = "wherry.pid"
LOG_FILE = "log/wherry.log"
START_SECONDS = 20.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.03
# -P keeps the folder in which the command is called out of the module path.
PYTHON = (sys.executable, "-P", "-c")


def run_twistd(arguments: Sequence[str]) -> None:
    """Become ``twistd`` in this process; comes back when the node has ended.

    Raises:
        WherryError: the node can't start.
    """
    from twisted.python.usage import UsageError
    from twisted.scripts.twistd import ServerOptions, runApp  # type: ignore[attr-defined]

    config = ServerOptions()
    try:
        config.parseOptions(list(arguments))
    except UsageError as error:
        raise Usage(str(error)) from error
    streams = sys.stdout, sys.stderr
    try:
        runApp(config)
    finally:
        # twistd has turned them into its log.
        sys.stdout, sys.stderr = streams
    node = config.subOptions.node
    if node is not None and node.failure is not None:
        node.failure.raiseException()  # it ended by itself


def run(directory: NodeDirectory) -> None:
    """Be the node, in the foreground.

    Raises:
        WherryError: it can't start; says why.
    """
    _check(directory)
    run_twistd(["--nodaemon", "--pidfile=", "wherry", f"--dir={directory.path}"])


def _check(directory: NodeDirectory) -> None:
    """Find what is wrong in the files while there is a terminal to say it on."""
    from node.configuration import Configuration

    Configuration.load(directory)


def serve(report: int) -> NoReturn:
    """Be the process that `up` starts.

    Args:
        report: a pipe to say why the node can't start. In the background there
            is no standard error any more, and twistd passes on 100 bytes.
    """
    try:
        _run_unseen(sys.argv[1:])
    except WherryError as error:
        os.write(report, json.dumps([str(error), error.code]).encode("ascii"))
        sys.exit(error.code)
    sys.exit(0)


def _run_unseen(arguments: Sequence[str]) -> None:
    """Run twistd; whatever goes wrong is one line, and the log has the rest."""
    from twisted.logger import Logger

    try:
        run_twistd(arguments)
    except WherryError:
        raise
    except Exception as error:
        Logger().failure("the node can't start")
        why = f"{type(error).__name__}: {error}"
        raise Failed("the node can't start", why) from error


def up(directory: NodeDirectory) -> bool:
    """Start the node and wait until it answers.

    Returns:
        Whether it was started; ``False`` means that it ran already.

    Raises:
        WherryError: it can't start; says why.
        Locked: another command is at work in the directory.
        TimedOut: it started and does not answer.
    """
    if ControlClient(directory).answers():
        return False
    with _turn(directory):
        return _start(directory)


@contextmanager
def _turn(directory: NodeDirectory) -> Iterator[None]:
    """Wait until nobody else starts the node of this directory.

    The lock is another one than `NodeDirectory.lock`, which the node takes.
    """
    directory.check()
    descriptor = os.open(directory.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _start(directory: NodeDirectory) -> bool:
    client = ControlClient(directory)
    if client.answers():
        return False
    log = directory.path / LOG_FILE
    _check(directory)
    with directory.lock():
        # We hold the lock, so no node runs here, whatever the file says.
        (directory.path / PID_FILE).unlink(missing_ok=True)
    with _pipe() as (reader, writer):
        started = subprocess.run(  # noqa: S603 - our own interpreter, and no shell
            [
                *PYTHON,
                f"from node.background import serve; serve({writer.fileno()})",
                f"--pidfile={directory.path / PID_FILE}",
                "--logger=node.logs.rotated",
                f"--rundir={directory.path}",
                "wherry",
                f"--dir={directory.path}",
            ],
            env={**os.environ, "WHERRY_DIR": str(directory.path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            pass_fds=[writer.fileno()],
            check=False,
        )
        writer.close()  # so that the reader sees the end
        if started.returncode != 0:
            raise _did_not_start(reader, log, started.stderr)
        process = _open_process(_pid_in_file(directory))
        if process is None:
            raise _did_not_start(reader, log)
        deadline = monotonic() + START_SECONDS
        try:
            while not client.answers():
                if _ends_within(process, POLL_SECONDS):
                    raise _did_not_start(reader, log)
                if monotonic() > deadline:
                    raise TimedOut(
                        f"the node does not answer {START_SECONDS:g} s after its start",
                        do=f"See {log}",
                    )
        finally:
            os.close(process)
    return True


def down(directory: NodeDirectory) -> int:
    """End the node, however it was started, and wait until it is gone.

    Returns:
        The id of the process that ended.

    Raises:
        NotRunning: there is none.
        Failed: the directory is in use by something else than a node.
    """
    pid = holder(directory)
    if pid is None:
        raise not_running()
    if not ControlClient(directory).answers() and _pid_in_file(directory) != pid:
        raise Failed(
            f"{directory.path} is in use by process {pid}, which is not a node",
            do="Wait until that command is done",
        )
    process = _open_process(pid)
    if process is not None:
        try:
            # The process of the descriptor is the holder only if it still is.
            if holder(directory) == pid:
                _end(process)
        finally:
            os.close(process)
    (directory.path / PID_FILE).unlink(missing_ok=True)
    return pid


@contextmanager
def paused(directory: NodeDirectory) -> Iterator[bool]:
    """Stop a node that `up` has started for a while, and start it again.

    Gives whether there is one.

    Raises:
        Failed: a node runs that was started otherwise; who did that would
            start it again too early, or not at all.
    """
    if not ControlClient(directory).answers():
        yield False
        return
    pid = holder(directory)
    if pid is None or _pid_in_file(directory) != pid:
        raise Failed(
            f"the node (process {pid}) runs, and this command needs it stopped",
            do='Stop it where it was started, or with "wherry down"',
        )
    down(directory)
    try:
        yield True
    finally:
        up(directory)


def holder(directory: NodeDirectory) -> int | None:
    """Give the id of the process that holds the directory's lock, if one does.

    Raises:
        Locked: somebody holds it, and it is not known who.
    """
    try:
        with directory.lock():
            return None
    except Locked as error:
        if error.pid is None:
            raise
        return error.pid


def _end(process: int) -> None:
    """Ask a process to end; make it, if it doesn't. Files survive either."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            signal.pidfd_send_signal(process, number)
        except ProcessLookupError:
            return
        if _ends_within(process, STOP_SECONDS):
            return


def _open_process(pid: int | None) -> int | None:
    """Give a descriptor that means this process and no later one of its number."""
    try:
        return None if pid is None else os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _ends_within(process: int, seconds: float) -> bool:
    ended = select.poll()
    ended.register(process, select.POLLIN)
    return bool(ended.poll(seconds * 1000))


def _pid_in_file(directory: NodeDirectory) -> int | None:
    try:
        return int((directory.path / PID_FILE).read_text("ascii"))
    except (FileNotFoundError, ValueError):
        return None


@contextmanager
def _pipe() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0) as ours, open(writer, "wb") as theirs:
        yield ours, theirs


def _did_not_start(reader: BinaryIO, log: Path, said: str = "") -> WherryError:
    """Give what the process said in `serve` before it ended, if it did."""
    try:
        message, code = json.loads(reader.read(65536))
    except ValueError:
        return Failed(
            "the node did not start",
            said.strip().rpartition("\n")[2],
            f"See {log}, or start it in the foreground: wherry run",
        )
    return from_code(message, code)
