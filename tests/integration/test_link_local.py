"""Tests over a cable: two network namespaces, and nothing between them but a veth
pair with link-local addresses. Loopback is down in both.

A namespace lives as long as the process that holds it, so that nothing is left
behind however the tests end.
"""

import json
import os
import secrets
import subprocess
from functools import partial

from tests.integration.machines import START_S, Machine, MachineTests, sha256, until

# Whoever is not root becomes it in a user namespace of their own.
OUTER = () if os.geteuid() == 0 else ("--user", "--map-root-user")
INNER = () if os.geteuid() == 0 else ("--user", "--preserve-credentials")


class LinkLocalTests(MachineTests):
    """Two machines at the two ends of a cable."""

    def hold(self, *command: str) -> int:
        """Hold namespaces until the test is over; give whose they are."""
        holder = subprocess.Popen(
            (*command, "cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert holder.stdin is not None
        assert holder.stdout is not None
        self.addCleanup(holder.wait, 5)
        self.addCleanup(holder.stdout.close)
        self.addCleanup(holder.stdin.close)
        # What it echoes says that it is inside.
        holder.stdin.write(b"\n")
        holder.stdin.flush()
        holder.stdout.read(1)
        return holder.pid

    def enter(self, holder: int) -> tuple[str, ...]:
        """What to put before a command, to run it in there."""
        return ("nsenter", "--target", str(holder), "--net", *INNER)

    def inside(self, prefix: tuple[str, ...], *command: str) -> str:
        """Run a program in there."""
        said = self.run_program(*prefix, *command)
        self.assertEqual((said.code, said.err), (0, ""), command)
        return said.out

    def cable(self) -> list[tuple[str, ...]]:
        """Join two new namespaces; gives how to enter each."""
        first = self.hold("unshare", "--net", *OUTER)
        join = (
            (*self.enter(first), "unshare", "--net") if INNER else ("unshare", "--net")
        )
        second = self.hold(*join)
        ends = [self.enter(first), self.enter(second)]
        pair = ("type", "veth", "peer", "name", "cable1", "netns", str(second))
        self.inside(ends[0], "ip", "link", "add", "cable0", *pair)
        for number, prefix in enumerate(ends):
            # Nobody else is on this cable: the check for doubles takes 2 s.
            settings = f"/proc/sys/net/ipv6/conf/cable{number}/accept_dad"
            self.inside(prefix, "sh", "-c", f"echo 0 > {settings}")
            self.inside(prefix, "ip", "link", "set", f"cable{number}", "up")
        for prefix in ends:
            until(partial(self.ready, prefix), START_S)
        return ends

    def ready(self, prefix: tuple[str, ...]) -> bool:
        """Whether the end of the cable has an address that can be used."""
        shown = self.inside(prefix, "ip", "-6", "-json", "address", "show")
        found = [
            address
            for interface in json.loads(shown)
            for address in interface.get("addr_info", ())
        ]
        self.assertLessEqual(len(found), 1)
        return any(
            each["scope"] == "link" and not each.get("tentative") for each in found
        )

    def init(self, nickname: str, prefix: tuple[str, ...]) -> Machine:
        """Make a node there, listening where a node does by default."""
        machine = self.bare(nickname, prefix)
        machine.wherry("init", "--nickname", nickname)
        self.assertIn(
            "- tcp6:8443\n", machine.directory.joinpath("node.yaml").read_text()
        )
        return machine

    def test_cable(self) -> None:
        """The other end is called by its link-local address, found by ``%*``."""
        ends = self.cable()
        desk, laptop = (
            self.init(name, end)
            for name, end in zip(("desk", "laptop"), ends, strict=True)
        )
        card = desk.wherry("card").out
        self.assertRegex(card, r"@tcp:\[fe80::[0-9a-f:]+%\*\]:8443\?")
        request, bundle = self.root / "request.txt", self.root / "bundle.txt"
        request.write_text(laptop.wherry("device", "request").out)
        admitted = desk.wherry("device", "admit", "--yes", str(request))
        bundle.write_text(admitted.out)
        laptop.wherry("device", "accept", "--yes", str(bundle))
        for each in (desk, laptop):
            each.start()

        said = laptop.wherry("ping", "desk").out
        self.assertRegex(
            said,
            r"^reply from desk via link-local \[fe80::[0-9a-f:]+%cable1\]:8443 in ",
        )
        reply = json.loads(desk.wherry("ping", "laptop", "--json").out)
        self.assertEqual(reply["route"]["kind"], "link-local")
        self.assertIn("%cable0]", reply["route"]["hint"])
        explained = json.loads(laptop.wherry("explain", "desk", "--json").out)
        (route,) = explained["routes"]
        self.assertEqual((route["verdict"], route["source"]), ("allowed", "card"))

        desk.share("photo", secrets.token_bytes(3_000_000))
        laptop.wherry("get", "photo")
        self.assertEqual(sha256(laptop.home / "photo"), sha256(desk.home / "photo"))
        for each in (desk, laptop):
            each.stop()
