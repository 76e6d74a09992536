"""What Wherry costs beside nginx: CPU seconds of the server per GiB served.

Both serve the same file over mutual TLS 1.3 to the same curl, in turns, on this
computer. Beside that, the time that it takes to mint an outbound Tub.

    python -m benchmarks [--mib 1024] [--rounds 5] [--json FILE]
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import frozen

from benchmarks.peers import Nginx, Served, Wherry
from protocols import certificates
from protocols.nodeid import NodeID
from protocols.tls import CallerConnections
from protocols.tub import mint

TICKS = os.sysconf("SC_CLK_TCK")


@frozen
class Run:
    """One download: seconds of CPU of the server, and of the clock."""

    cpu: float
    wall: float


def cpu_seconds(pids: list[int]) -> float:
    """User and system time that these processes have used."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def download(served: Served, expected: Path) -> Run:
    """Fetch once with curl, compare every byte, and count."""
    before, start = cpu_seconds(served.pids()), time.perf_counter()
    command = ["curl", "--silent", "--show-error", "--fail", "--http1.1", *served.curl]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as curl:
        assert curl.stdout is not None
        size = 0
        same = True
        with expected.open("rb") as wanted:
            while chunk := curl.stdout.read(1 << 20):
                size += len(chunk)
                same = same and chunk == wanted.read(len(chunk))
    wall = time.perf_counter() - start
    if curl.returncode or not same or size != expected.stat().st_size:
        raise SystemExit(f"{served.name}: curl got {size} bytes, equal: {same}")
    return Run(cpu_seconds(served.pids()) - before, wall)


def mint_seconds(times: int) -> float:
    """Median time to make a key, its certificate and a TLS context with both."""
    now = time.time()
    key = certificates.new_key()
    ca = certificates.user_ca(key, now)
    node = NodeID.of_key(key.public_key())
    spent = []
    for _ in range(times):
        start = time.perf_counter()
        CallerConnections(mint(ca, key, now), node, lambda: "x", ca)
        spent.append(time.perf_counter() - start)
    return statistics.median(spent)


@contextlib.contextmanager
def scratch(mib: int) -> Iterator[tuple[Path, Path]]:
    """A folder in memory, if there is one, with a file of random bytes."""
    memory = Path("/dev/shm")
    place = memory if memory.is_dir() and _room(memory, 4 * mib) else None
    with tempfile.TemporaryDirectory(prefix="wherry-bench-", dir=place) as name:
        folder = Path(name)
        file = folder / "data"
        with file.open("wb") as out:
            for _ in range(mib):
                out.write(os.urandom(1 << 20))
        yield folder, file


def _room(path: Path, mib: int) -> bool:
    return shutil.disk_usage(path).free > mib << 20


def compare(
    folder: Path, file: Path, rounds: int, say: Callable[[str], None]
) -> dict[str, list[Run]]:
    """Serve the file by each in turn: A B A B."""
    found: dict[str, list[Run]] = {}
    with contextlib.ExitStack() as stack:
        served = [
            stack.enter_context(peer(folder, file)) for peer in (Wherry.up, Nginx.up)
        ]
        for number in range(rounds + 1):
            for each in served:
                run = download(each, file)
                if number:  # the first one warms up
                    found.setdefault(each.name, []).append(run)
            say(f"round {number} of {rounds}")
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--mib", type=int, default=1024, help="size of the file")
    parser.add_argument("--rounds", type=int, default=5, help="downloads of each")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    options = parser.parse_args()

    def say(text: str) -> None:
        sys.stderr.write(text + "\n")

    with scratch(options.mib) as (folder, file):
        runs = compare(folder, file, options.rounds, say)
    gib = options.mib / 1024
    table = {
        name: {
            "cpu_s_per_gib": statistics.median(run.cpu for run in each) / gib,
            "least": min(run.cpu for run in each) / gib,
            "most": max(run.cpu for run in each) / gib,
            "wall_s_per_gib": statistics.median(run.wall for run in each) / gib,
        }
        for name, each in runs.items()
    }
    nginx = table["nginx"]["cpu_s_per_gib"]
    print(f"{'server':8}  CPU s/GiB  (least..most)  wall s/GiB  beside nginx")
    for name, row in table.items():
        ratio = row["cpu_s_per_gib"] / nginx if nginx else float("nan")
        print(
            f"{name:8}  {row['cpu_s_per_gib']:9.2f}  "
            f"({row['least']:.2f}..{row['most']:.2f})  "
            f"{row['wall_s_per_gib']:10.2f}  {ratio:12.2f}"
        )
    mint = mint_seconds(300)
    print(f"outbound Tub: {mint * 1e3:.2f} ms (key, certificate and TLS context)")
    if options.json:
        document = {"mib": options.mib, "servers": table, "mint_s": mint}
        options.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
