"""How many small files a second come from a server of this machine, and in how much memory.

``python tests/benchmarks/bench_downloads.py [files] [kilobytes]``: the server is another process; files go through the
whole way: journal, parts and sealed shards. The peer is the plainest use of the same library, one client and a pool.
"""

import asyncio
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from geoloc_core.corpora.answers import Address
from geoloc_core.corpora.downloads import Limits, download
from geoloc_core.corpora.journal import Parts

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


def rss_mb() -> float:
    """The most memory this process has held so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


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


def main(files: int = 10_000, kilobytes: int = 20) -> None:
    command = [sys.executable, "-c", SERVER, str(kilobytes * 1000)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        ours(url, 500, Limits())
        print(f"{files:,} files of {kilobytes} kB, {platform.processor() or platform.machine()}, loopback\n")
        print(
            "| connections | files/s, journal and shards | peak RSS, MB | files/s, plain client, thrown away | ratio |"
        )
        print("|--:|--:|--:|--:|--:|")
        for connections in (8, 64):
            fast = ours(url, files, Limits(per_host=connections, connections=connections))
            peak = rss_mb()
            slow = plain(url, files // 10, connections)
            print(f"| {connections} | {fast:,.0f} | {peak:,.0f} | {slow:,.0f} | {fast / slow:.1f} |", flush=True)
        server.terminate()


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
