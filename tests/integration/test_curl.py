"""Tests with curl and Python's TLS: a node as programs that aren't Wherry see it."""

import json
import random
import secrets
import ssl

from tests.integration.machines import (
    MEBIBYTE,
    NAME,
    Leaf,
    Machine,
    MachineTests,
    Said,
    keep_alive,
    sha256,
)

HOSTILE = (
    b"/../node.yaml",
    b"/files/../../private/server.key",
    b"/files/%2e%2e/%2e%2e/private/server.key",
    b"/files/%2E%2E%2Findex.sqlite",
    b"/files//index.sqlite",
    b"//etc/passwd",
    b"//" + NAME.encode() + b"/files/",
    b"/files/index.sqlite",
    b"/files/\0",
    b"/files/%00",
    b"/files/..%2f..%2fprivate%2fserver.key",
    b"/files/..\\..\\private\\server.key",
    b"/files/%5c..%5cprivate",
    b"https://" + NAME.encode() + b"/files/",
    b"http://127.0.0.1/",
    b"file:///etc/passwd",
    b"*",
    b"etc/passwd",
    b"/files/" + b"a" * 9000,
    b"/" + b"a/" * 100_000,
    b"/files/%zz",
    b"/files/%",
    b"/files/?after=../../",
    b"/files/?name=a&name=b",
    b"/files/?unknown=1",
    b"/files/\xff",
    b"/files/#x",
)


class CurlTests(MachineTests):
    """By a plain name, with a certificate of ours."""

    def curl(self, machine: Machine, leaf: Leaf, target: str, *more: str) -> Said:
        """Run curl as the documentation says."""
        return self.run_program(
            "curl",
            "--silent",
            "--show-error",
            "--tlsv1.3",
            "--http1.1",
            "--cacert",
            str(leaf.user_ca),
            "--pinnedpubkey",
            machine.pin,
            "--resolve",
            f"{NAME}:{machine.port}:127.0.0.1",
            *more,
            f"https://{NAME}:{machine.port}{target}",
        )

    def test_fetches(self) -> None:
        """With the leaf of ``wherry identity leaf`` a file comes byte for byte."""
        desk = self.machine("desk")
        file_id = desk.share("photo.jpg", secrets.token_bytes(3 * MEBIBYTE + 7))
        desk.start()
        folder = desk.root / "out"
        desk.wherry("identity", "leaf", "--out", str(folder))
        self.assertEqual(
            {each.name: each.stat().st_mode & 0o777 for each in folder.iterdir()},
            {"leaf.pem": 0o600, "leaf.key": 0o600, "user-ca.pem": 0o600},
        )
        leaf = Leaf(folder / "leaf.pem", folder / "leaf.key", folder / "user-ca.pem")
        target, got = f"/files/{file_id}", desk.root / "got"
        ours = ("--cert", str(leaf.chain), "--key", str(leaf.key))
        said = self.curl(desk, leaf, target, *ours, "-o", str(got), "-D", "-")
        self.assertEqual((said.code, said.err), (0, ""))
        self.assertEqual(sha256(got), sha256(desk.home / "photo.jpg"))
        head = said.out.lower()
        self.assertIn(f'etag: "{file_id}"', head)
        self.assertIn("immutable", head)
        self.assertIn("x-content-type-options: nosniff", head)
        self.assertNotIn("server:", head)

        listed = self.curl(desk, leaf, "/files/", *ours)
        self.assertEqual(json.loads(listed.out)["files"][0]["id"], file_id)
        # The control for --pinnedpubkey: another key is refused by curl.
        other = self.curl(
            desk, leaf, target, *ours, "--pinnedpubkey", f"sha256//{'A' * 43}="
        )
        self.assertEqual((other.code, other.out), (90, ""))

        without = self.curl(desk, leaf, target, "-D", "-")
        self.assertEqual(without.out, "")
        self.assertIn("alert", without.err)
        self.assertEqual(without.code, 56)

    def test_only_an_alert(self) -> None:
        """Without a certificate nothing but an alert comes back, whatever is asked."""
        desk = self.machine("desk")
        desk.start()
        for name in (NAME, desk.one_use_name("own"), desk.one_use_name("others")):
            got = b""
            with self.assertRaisesRegex(ssl.SSLError, "ALERT_CERTIFICATE_REQUIRED"):
                caller = self.call(desk, None, name)
                caller.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                got = caller.recv(1)
            self.assertEqual(got, b"")


class RangeTests(MachineTests):
    """Parts of a large file."""

    def test_random_ranges(self) -> None:
        """200 random ranges of 100 MiB are exact, over one connection."""
        seed = secrets.randbits(32)
        draw = random.Random(seed)
        desk = self.machine("desk")
        data = draw.randbytes(100 * MEBIBYTE)
        target = f"/files/{desk.share('big', data)}"
        desk.start()
        http = keep_alive(self.call(desk, desk.leaf()))
        for number in range(200):
            length = int(2 ** draw.uniform(0, 22))
            start = draw.randrange(len(data))
            stop = min(start + length, len(data))
            header = f"bytes={start}-{start + length - 1}"
            if number % 10 == 0:
                start, stop, header = len(data) - length, len(data), f"bytes=-{length}"
            elif number % 10 == 1:
                start, stop = len(data) - length, len(data)
                header = f"bytes={start}-"
            http.request("GET", target, headers={"Range": header})
            answer = http.getresponse()
            body = answer.read()
            told = (answer.status, answer.headers["Content-Range"])
            wanted = (206, f"bytes {start}-{stop - 1}/{len(data)}")
            self.assertEqual(told, wanted, f"{header}, seed {seed}")
            # Not assertEqual: it would print megabytes.
            self.assertTrue(body == data[start:stop], f"{header}, seed {seed}")
        http.request("GET", target, headers={"Range": f"bytes={len(data)}-"})
        answer = http.getresponse()
        answer.read()
        self.assertEqual(answer.status, 416)
        http.request("GET", target)
        self.assertTrue(http.getresponse().read() == data)
        http.close()


class HostileTests(MachineTests):
    """Targets that try to leave the store."""

    def test_hostile_targets(self) -> None:
        """Each is answered 400 or 404, or cut; none with anything that we have."""
        desk = self.machine("desk")
        desk.share("shared", b"may be seen")
        desk.start()
        leaf = desk.leaf()
        for target in HOSTILE:
            caller = self.call(desk, leaf)
            caller.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = keep_alive(caller)
            response = answer.response_class(caller)
            response.begin()
            body = response.read()
            self.assertIn(response.status, (400, 404, 414), target[:60])
            self.assertEqual(set(json.loads(body)), {"error", "reason"})
            for secret in (b"root:", b"PRIVATE KEY", b"SQLite", b"may be seen"):
                self.assertNotIn(secret, body)
            response.close()
            caller.close()
        # The control: a good target on such a connection is answered.
        http = keep_alive(self.call(desk, leaf))
        http.request("GET", "/files/")
        self.assertEqual(http.getresponse().status, 200)
        http.close()
