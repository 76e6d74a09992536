"""The servers that are compared, each started on loopback for one run."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import frozen

NAME = "bench.test"


@frozen
class Served:
    """A server that runs.

    Attributes:
        name: for the table.
        pids: gives its processes.
        curl: arguments with which curl fetches the file from it.
    """

    name: str
    pids: Callable[[], list[int]]
    curl: list[str]


def free_port() -> int:
    """A port of loopback that nobody has just now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    """Wait until something listens."""
    for _ in range(500):
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port)),
        ):
            return
        time.sleep(0.02)
    raise SystemExit(f"nothing listens on port {port}")


class Wherry:
    """A node, through its own commands."""

    @staticmethod
    @contextlib.contextmanager
    def up(folder: Path, file: Path) -> Iterator[Served]:
        """Run a node that shares the file."""
        port = free_port()
        home, leaf = folder / "node", folder / "leaf"

        def wherry(*arguments: str) -> str:
            command = [sys.executable, "-m", "node", *arguments, "--dir", str(home)]
            return subprocess.run(
                command, check=True, capture_output=True, text=True
            ).stdout

        endpoint = f"tcp:{port}:interface=127.0.0.1"
        wherry("init", "--nickname", "bench", "--listen", endpoint, "--name", NAME)
        wherry("identity", "leaf", "--out", str(leaf))
        shared = json.loads(wherry("share", "--json", str(file)))
        (identity,) = (each["id"] for each in shared["files"])
        command = [sys.executable, "-m", "node", "run", "--dir", str(home)]
        log = (folder / "node.log").open("wb")
        with log, subprocess.Popen(command, stdout=log, stderr=log) as process:
            try:
                wait_for(port)
                yield Served(
                    "wherry",
                    lambda: [process.pid],
                    [
                        *("--tlsv1.3", "--cert", str(leaf / "leaf.pem")),
                        *("--key", str(leaf / "leaf.key")),
                        *("--cacert", str(leaf / "user-ca.pem")),
                        *("--resolve", f"{NAME}:{port}:127.0.0.1"),
                        f"https://{NAME}:{port}/files/{identity}",
                    ],
                )
            finally:
                process.terminate()


class Nginx:
    """Debian's nginx, one worker, sendfile on, mutual TLS 1.3."""

    CONFIG = """
    daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
    events {{ worker_connections 64; }}
    http {{
      access_log off; sendfile on; client_body_temp_path {folder}/t1;
      proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
      uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
      server {{
        listen 127.0.0.1:{port} ssl; server_name {name}; root {root};
        ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
        ssl_client_certificate {folder}/cert.pem; ssl_verify_client on;
        ssl_protocols TLSv1.3; ssl_session_tickets off;
      }}
    }}
    """

    @classmethod
    @contextlib.contextmanager
    def up(cls, folder: Path, file: Path) -> Iterator[Served]:
        """Run nginx on the file's folder."""
        binary = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
        if binary is None:
            raise SystemExit("nginx is missing: apt-get install nginx-light")
        home = folder / "nginx"
        home.mkdir(mode=0o755)
        folder.chmod(0o755)  # the worker is another user when we are root
        port = free_port()
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-nodes"),
                *("-pkeyopt", "ec_paramgen_curve:P-256", "-days", "2"),
                *("-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"),
                *("-keyout", str(home / "key.pem"), "-out", str(home / "cert.pem")),
            ],
            check=True,
            capture_output=True,
        )
        config = home / "nginx.conf"
        config.write_text(
            cls.CONFIG.format(folder=home, port=port, name=NAME, root=file.parent)
        )
        with subprocess.Popen([binary, "-p", str(home), "-c", str(config)]) as process:
            try:
                wait_for(port)
                certificate = ("--cert", str(home / "cert.pem"))
                yield Served(
                    "nginx",
                    lambda: [process.pid, *_children(process.pid)],
                    [
                        *("--tlsv1.3", *certificate, "--key", str(home / "key.pem")),
                        *("--cacert", str(home / "cert.pem")),
                        *("--resolve", f"{NAME}:{port}:127.0.0.1"),
                        f"https://{NAME}:{port}/{file.name}",
                    ],
                )
            finally:
                process.terminate()


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(each) for each in text.split()]
