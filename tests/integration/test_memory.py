"""Tests of memory: what serving and fetching large files takes."""

import json
import os
import secrets
import subprocess
from pathlib import Path

from tests.integration.machines import (
    MEBIBYTE,
    NAME,
    Machine,
    MachineTests,
    on_disk,
    sha256,
    until,
)

HOLE = 8192 * MEBIBYTE
DENSE = (8192 if os.environ.get("WHERRY_FULL") else 128) * MEBIBYTE
BLOCK = 16 * MEBIBYTE
LIMIT = 120 * MEBIBYTE
HARDLY = MEBIBYTE


class MemoryTests(MachineTests):
    """Two nodes and large files."""

    def watch(self, process: "subprocess.Popen[bytes]", *machines: Machine) -> None:
        """Look at the nodes' anonymous memory until a command has ended well."""

        def ended() -> bool:
            for each in machines:
                self.assertLess(each.anonymous_memory(), LIMIT, each.nickname)
            return process.poll() is not None

        until(ended, 600)
        self.assertEqual(process.returncode, 0)

    def test_large_files(self) -> None:
        """A sparse file of 8 GiB is shared, served and fetched in little memory.

        A hole is not sent at all between two nodes, so what they send is watched
        with a file that has something in every leaf, and with curl, which gets
        all of the hole.
        """
        desk, laptop = self.pair()
        with (desk.home / "hole").open("wb") as hole:
            hole.truncate(HOLE)
        with (desk.home / "dense").open("wb") as dense:
            for _ in range(DENSE // BLOCK):
                dense.write(secrets.token_bytes(BLOCK))
        desk.start()
        laptop.start()
        self.watch(desk.spawn("share", "hole"), desk)
        stored = on_disk(desk.directory / "files")
        self.assertLess(stored, HARDLY)
        self.watch(laptop.spawn("get", "hole"), desk, laptop)
        self.assertEqual((laptop.home / "hole").stat().st_size, HOLE)
        self.assertLess(on_disk(laptop.home / "hole"), HARDLY)

        curl, count = self.download(desk)
        self.watch(desk.spawn("share", "dense"), desk)
        self.watch(laptop.spawn("get", "dense"), desk, laptop)
        self.assertEqual(sha256(laptop.home / "dense"), sha256(desk.home / "dense"))
        self.watch(curl, desk)
        self.assertEqual(count.read_text(), str(HOLE))
        # The control: what is measured is the memory of something at work.
        self.assertGreater(desk.anonymous_memory(), 10 * MEBIBYTE)

    def download(self, machine: Machine) -> "tuple[subprocess.Popen[bytes], Path]":
        """Begin to fetch the hole with curl; it writes down how much came."""
        (file,) = json.loads(machine.wherry("ls", "--json").out)["files"]
        leaf, count = machine.leaf(), machine.root / "count"
        with count.open("wb") as counted:
            curl = subprocess.Popen(
                (
                    *("curl", "--silent", "--show-error", "--tlsv1.3", "--http1.1"),
                    *("--cert", str(leaf.chain), "--key", str(leaf.key)),
                    *("--cacert", str(leaf.user_ca), "--output", "/dev/null"),
                    *("--resolve", f"{NAME}:{machine.port}:127.0.0.1"),
                    *("--write-out", "%{size_download}"),
                    f"https://{NAME}:{machine.port}/files/{file['id']}",
                ),
                stdout=counted,
            )
        self.addCleanup(curl.wait)
        self.addCleanup(curl.kill)
        return curl, count
