"""Tests of memory: what serving and fetching large files takes."""

import json
import os
import secrets
import subprocess

from tests.integration.machines import (
    MEBIBYTE,
    NAME,
    Machine,
    MachineTests,
    on_disk,
    sha256,
    until,
)

FULL = bool(os.environ.get("WHERRY_FULL"))
HOLE = 8192 * MEBIBYTE
DENSE = (8192 if FULL else 256) * MEBIBYTE
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

        A hole is not sent at all between two nodes, so the transfer itself is
        watched with curl, and with a file that has something in every leaf.
        """
        desk, laptop = self.pair()
        with (desk.home / "hole").open("wb") as hole:
            hole.truncate(HOLE)
        (desk.home / "dense").write_bytes(secrets.token_bytes(MEBIBYTE) * 64)
        with (desk.home / "dense").open("r+b") as dense:
            block = dense.read(64 * MEBIBYTE)
            dense.truncate(0)
            for number in range(DENSE // len(block)):
                dense.seek(number * len(block))
                dense.write(number.to_bytes(8, "big") + block[8:])
        desk.start()
        laptop.start()
        for name in ("hole", "dense"):
            self.watch(desk.spawn("share", name), desk)
        self.assertLess(on_disk(desk.directory / "files"), DENSE + 4 * HARDLY)

        files = json.loads(desk.wherry("ls", "--json").out)["files"]
        ids = {each["name"]: each["id"] for each in files}
        leaf, laptop_get = desk.leaf(), laptop.spawn("get", "hole")
        self.watch(laptop_get, desk, laptop)
        self.assertEqual((laptop.home / "hole").stat().st_size, HOLE)
        self.assertLess(on_disk(laptop.home / "hole"), HARDLY)

        count = desk.root / "count"
        with count.open("wb") as counted:
            curl = subprocess.Popen(
                (
                    *("curl", "--silent", "--show-error", "--tlsv1.3", "--http1.1"),
                    *("--cert", str(leaf.chain), "--key", str(leaf.key)),
                    *("--cacert", str(leaf.user_ca), "--output", "/dev/null"),
                    *("--resolve", f"{NAME}:{desk.port}:127.0.0.1"),
                    *("--write-out", "%{size_download}"),
                    f"https://{NAME}:{desk.port}/files/{ids['hole']}",
                ),
                stdout=counted,
            )
        self.addCleanup(curl.wait)
        self.addCleanup(curl.kill)
        get = laptop.spawn("get", "dense")
        self.watch(get, desk, laptop)
        self.watch(curl, desk, laptop)
        self.assertEqual(count.read_text(), str(HOLE))
        self.assertEqual(sha256(laptop.home / "dense"), sha256(desk.home / "dense"))
        # The control: what is measured is the memory of something at work.
        self.assertGreater(desk.anonymous_memory(), 10 * MEBIBYTE)
