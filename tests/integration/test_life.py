"""Tests of a node's life: run, twistd, up, down, status."""

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from tests.integration.machines import (
    START_S,
    WHERRY,
    Machine,
    MachineTests,
    keep_alive,
    until,
)

TWISTD = str(Path(sys.executable).with_name("twistd"))

# Exits with what the command would, or with 99 if Twisted was imported by then.
WITHOUT_TWISTED = """
import sys
from node.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    sys.exit(99 if "twisted" in sys.modules else end.code)
"""


class RunTests(MachineTests):
    """The two ways to be a node in the foreground."""

    def test_twistd(self) -> None:
        """``twistd wherry`` starts what ``wherry run`` starts."""
        desk = self.machine("desk")
        ways = (
            (*WHERRY, "--dir", str(desk.directory), "run"),
            (
                TWISTD,
                "--nodaemon",
                "--pidfile=",
                "wherry",
                "--dir",
                str(desk.directory),
            ),
        )
        seen = []
        for command in ways:
            desk.process = desk.spawn_program(*command)
            desk.wait_for_node()
            http = keep_alive(self.call(desk, desk.leaf()))
            http.request("GET", "/")
            document = json.loads(http.getresponse().read())
            http.close()
            self.assertEqual(document["node"], desk.node.text)
            status = json.loads(desk.wherry("status", "--json").out)
            self.assertEqual(status.pop("problems"), [])
            status.pop("up_s")
            seen.append((document, status, sorted(os.listdir(desk.directory))))
            self.assertIn(desk.stop(), (0, -signal.SIGTERM))
            # What is left behind keeps nobody from starting again.
            desk.wherry("status", code=3)
        self.assertEqual(seen[0], seen[1])

    def test_one_at_a_time(self) -> None:
        """A second node in the same directory says who is there, and ends."""
        desk = self.machine("desk")
        desk.start()
        said = desk.wherry("run", code=1)
        self.assertIn(f"process {desk.running.pid}", said.err)
        self.assertNotIn("Traceback", said.err + said.out)
        self.assertEqual(desk.control.get("/status")["node"], desk.node.text)

    def test_quick_commands(self) -> None:
        """``status`` imports no Twisted, whether the node runs or not."""
        desk = self.machine("desk")
        command = (sys.executable, "-P", "-c", WITHOUT_TWISTED)
        ask = (*command, "--dir", str(desk.directory), "status")
        said = self.run_program(*ask)
        self.assertEqual((said.code, said.out), (3, ""))
        self.assertEqual(
            said.err, "wherry: the node is not running. Start it with: wherry up\n"
        )
        desk.start()
        said = self.run_program(*ask)
        self.assertEqual((said.code, said.err), (0, ""))
        self.assertIn("desk", said.out)
        # The control: where Twisted is imported, this is seen.
        guilty = "import twisted\n" + WITHOUT_TWISTED
        said = self.run_program(*command[:3], guilty, *ask[4:])
        self.assertEqual(said.code, 99)


class BackgroundTests(MachineTests):
    """``wherry up`` and ``wherry down``."""

    def test_up_and_down(self) -> None:
        """From nothing to a node in the background and back, twice."""
        desk = self.bare("desk")
        self.addCleanup(self.end_background, desk)
        desk.wherry("status", code=3)
        listen = f"tcp:{desk.port}:interface=127.0.0.1"
        said = desk.wherry("up", "--nickname", "desk", "--listen", listen)
        pid = self.pid(desk)
        self.assertIn(f'Node "desk" is running (pid {pid})', said.out)
        again = desk.wherry("up")
        self.assertIn(f"already running (pid {pid})", again.out)
        self.assertEqual(self.pid(desk), pid)
        status = json.loads(desk.wherry("status", "--json").out)
        self.assertEqual((status["schema"], status["nickname"]), (1, "desk"))
        self.assertEqual(status["listening"], [listen])
        self.assertEqual((status["peers"], status["problems"]), ([], []))
        watched = os.pidfd_open(pid)
        self.addCleanup(os.close, watched)
        self.assertFalse(gone(watched))
        self.assertIn(str(pid), desk.wherry("down").out)
        self.assertTrue(gone(watched))
        desk.wherry("status", code=3)

    def test_stale_pid_file(self) -> None:
        """After SIGKILL the pid file is left, and ``up`` starts all the same."""
        desk = self.machine("desk")
        self.addCleanup(self.end_background, desk)
        desk.wherry("up")
        pid = self.pid(desk)
        watched = os.pidfd_open(pid)
        self.addCleanup(os.close, watched)
        signal.pidfd_send_signal(watched, signal.SIGKILL)
        until(lambda: gone(watched), START_S)
        self.assertEqual(self.pid(desk), pid)
        desk.wherry("status", code=3)
        desk.wherry("down", code=3)
        # The number may be another process's by now; that one is let live.
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
            (desk.directory / "wherry.pid").write_text(str(other.pid))
            self.assertIn("is running", desk.wherry("up").out)
            self.assertNotIn(self.pid(desk), (pid, other.pid))
            desk.wherry("down")
            self.assertIsNone(other.poll())
        log = (desk.directory / "log" / "wherry.log").read_text()
        self.assertEqual(log.count(f"node {desk.node} is up"), 2)
        self.assertNotIn("Traceback", log)

    def pid(self, machine: Machine) -> int:
        """What the pid file says."""
        return int((machine.directory / "wherry.pid").read_text())

    def end_background(self, machine: Machine) -> None:
        """Leave no node behind, whatever a test came to."""
        self.run_program(*WHERRY, "--dir", str(machine.directory), "down")


def gone(process: int) -> bool:
    """Whether the process of a descriptor has ended."""
    ended = select.poll()
    ended.register(process, select.POLLIN)
    return bool(ended.poll(0))
