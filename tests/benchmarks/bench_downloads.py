"""How many small files a second come from a server of this machine, and in how much memory.

``python tests/benchmarks/bench_downloads.py``: the server is another process; files go through the whole way: journal,
parts and sealed shards. The peer is the plainest use of the same library, one client and a pool. With
``--list 1000000`` one long list of files of ``--kilobytes`` (try 0) is brought instead, and what that takes is printed
as it goes on.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import httpx
from memory import peak
from report import machine, row

from geoloc_core.corpora.answers import Address
from geoloc_core.corpora.downloads import Limits, download
from geoloc_core.corpora.journal import SHARD, Parts
from geoloc_core.web import Fault

SERVER = """
import asyncio, sys
body = b"\\xff\\xd8\\xff\\xe0" + bytes(int(sys.argv[1]))
reply = b"HTTP/1.1 200 OK\\r\\nContent-Type: image/jpeg\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body
class Talk(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.read = transport, b""
    def data_received(self, data):
        self.read += data
        while b"\\r\\n\\r\\n" in self.read:
            self.read = self.read.partition(b"\\r\\n\\r\\n")[2]
            self.transport.write(reply)
async def main():
    server = await asyncio.get_running_loop().create_server(Talk, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


def addresses(url: str, files: int) -> Iterator[Address]:
    for n in range(files):
        yield Address(f"{n % 256:02x}/{n}.jpg", f"{url}/{n}.jpg", n)


def ours(url: str, files: int, limits: Limits) -> float:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        with Parts(Path(folder) / "parts") as parts:
            counts = download(parts.missing(addresses(url, files)), parts.settle, limits)
        parts.seal_rest(addresses(url, files))
        taken = time.perf_counter() - started
        assert counts == {"ok": files}
        assert not parts.summary()
    return files / taken


def plain(url: str, files: int, connections: int) -> float:
    """Files a second of ``httpx.AsyncClient``, which throws them away."""

    async def run() -> None:
        wanted = iter(range(files))
        async with httpx.AsyncClient(limits=httpx.Limits(max_connections=connections)) as client:

            async def work() -> None:
                for n in wanted:
                    (await client.get(f"{url}/{n}.jpg")).raise_for_status()

            await asyncio.gather(*(work() for _ in range(connections)))

    started = time.perf_counter()
    asyncio.run(run())
    return files / (time.perf_counter() - started)


@contextmanager
def served(kilobytes: int) -> Iterator[str]:
    """The address of a server in another process."""
    command = [sys.executable, "-c", SERVER, str(kilobytes * 1000)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.terminate()


def side_by_side(url: str, files: int) -> None:
    ours(url, 500, Limits())
    row("connections", "files/s, journal and shards", "peak RSS", "files/s, plain client, thrown away", "ratio")
    row(*["--:"] * 5)
    for connections in (8, 64):
        fast = ours(url, files, Limits(per_host=connections, connections=connections))
        held = peak()
        slow = plain(url, files // 10, connections)
        row(connections, f"{fast:,.0f}", f"{held / 1e6:,.0f} MB", f"{slow:,.0f}", f"{fast / slow:.1f}")


def one_list(url: str, files: int) -> None:
    row("files", "files/s so far", "peak RSS")
    row(*["--:"] * 3)
    started, settled = time.perf_counter(), count(1)

    with tempfile.TemporaryDirectory() as folder:
        with Parts(Path(folder) / "parts") as parts:

            def settle(address: Address, result: bytes | Fault) -> None:
                parts.settle(address, result)
                done = next(settled)
                if done % max(1, files // 10) == 0:
                    row(f"{done:,}", f"{done / (time.perf_counter() - started):,.0f}", f"{peak() / 1e6:,.0f} MB")

            counts = download(parts.missing(addresses(url, files)), settle, Limits(per_host=64))
        assert counts == {"ok": files}
        assert len(parts.sealed()) == -(-files // SHARD)
        assert not parts.summary()
    row(f"{files:,}, sealed", f"{files / (time.perf_counter() - started):,.0f}", f"{peak() / 1e6:,.0f} MB")


def main(files: int, kilobytes: int, listed: int | None) -> None:
    print(f"{machine()}, {listed or files:,} files of {kilobytes} kB, loopback\n")
    with served(kilobytes) as url:
        if listed:
            one_list(url, listed)
        else:
            side_by_side(url, files)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--kilobytes", type=int, default=20)
    parser.add_argument("--list", type=int, dest="listed", metavar="FILES", help="bring so many in one run instead")
    chosen = parser.parse_args()
    main(chosen.files, chosen.kilobytes, chosen.listed)
