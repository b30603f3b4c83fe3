"""How fast photos are checked, hashed and put into shards: ``python tests/benchmarks/bench_ingest.py``.

JPEGs of 500 × 375 pixels, cut from the real photographs where they are here, else painted noise, are ingested from a
folder with a table; beside it, in the same run, what reading the files, decoding them in full and decoding them as
ingest does take alone. Before that, the peak memory of ingesting more and more tiny photos in MP-16's layout, each in a
process of its own; ``--rows 10000 100000 1000000 --photos 0`` is that alone. What its table takes is told apart.
"""

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgpack
import numpy as np
from PIL import Image
from report import machine, row

from geoloc_core.corpora import ingest as ingest_module
from geoloc_core.corpora.decode import Decoder, quiet_pillow
from geoloc_core.corpora.ingest import write
from geoloc_core.corpora.photo import Photo
from geoloc_core.corpora.sources import photos, places365

IMAGES = Path(__file__).resolve().parents[3] / "shared/data/images"
SIZE = (500, 375)
MEMORY = """
import resource, sys
from bench_ingest import ingest_tiny
for peak in ingest_tiny(sys.argv[1]):
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def pictures(random: np.random.Generator) -> list[Image.Image]:
    paths = sorted(IMAGES.rglob("*.jpg"))
    if paths:
        return [Image.open(path).convert("RGB") for path in paths]
    return [Image.fromarray(random.integers(0, 256, (90, 120, 3), np.uint8)).resize((1000, 750)) for _ in range(20)]


def make(folder: Path, count: int) -> None:
    """Distinct photos, each a cut of its own, and the table that names them."""
    random = np.random.default_rng(0)
    known = pictures(random)
    lines = ["path,latitude,longitude"]
    for number in range(count):
        picture = known[number % len(known)]
        width, height = picture.size
        zoom = 0.6 + 0.4 * random.random()
        w, h = int(zoom * min(width, height * 4 / 3)), int(zoom * min(height, width * 3 / 4))
        left, top = random.integers(width - w + 1), random.integers(height - h + 1)
        cut = picture.resize(SIZE, box=(left, top, left + w, top + h), reducing_gap=2)
        path = folder / f"{number // 1000:03}/{number:06}.jpg"
        path.parent.mkdir(exist_ok=True, parents=True)
        cut.save(path, quality=88)
        with path.open("ab") as stream:
            stream.write(number.to_bytes(4))  # what follows a JPEG's end is ignored, and makes it another file
        lines.append(f"{path.relative_to(folder)},{number % 90 + 0.5},{number % 180 + 0.5}")
    (folder / "t.csv").write_text("\n".join(lines))


def make_tiny(count: int, raw: Path) -> None:
    """So many photos of 32 × 24 pixels in MP-16's layout, each the same picture and bytes of its own."""
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)).save(stream, "JPEG")
    raw.mkdir()
    with (raw / "m.csv").open("w") as table:
        table.write(",".join(places365.COLUMNS) + "\n")
        for start in range(0, count, 4096):
            names = [f"{n % 256:02x}/{n // 256 % 256:02x}/{n}.jpg" for n in range(start, min(start + 4096, count))]
            with (raw / f"shard_{start // 4096}.msg").open("wb") as shard:
                for n, name in enumerate(names, start):
                    shard.write(msgpack.packb({"image": stream.getvalue() + n.to_bytes(8), "id": name}))
                    table.write(f"{name},u{n // 20},{1 + n % 80},{n % 170},1,2,3,0.1,0.7,0.2\n")


def ingest_tiny(folder: str) -> Iterator[None]:
    """Read the table, and ingest; each step ends with a pause, to be asked what it took."""
    options = places365.Options(kind="places365", metadata="m.csv", shards="shard_*.msg")
    source, out = places365.read(options, Path(folder, "raw")), Path(folder, "out")
    yield
    out.mkdir()
    ingest_module._summary(out, write(source, out, "c", 1e6))
    ingest_module._map(out, Path(folder, "map.png"), "c")
    yield


def timed(work: Callable[[], object], times: int = 3) -> float:
    """The shortest of some runs, seconds."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return min(taken)


def fully(path: Path) -> None:
    Image.open(io.BytesIO(path.read_bytes())).load()


def memory(sizes: list[int]) -> None:
    row("rows", "time", "rows/s", "peak memory, the table read", "peak memory at the end")
    row("---", "---:", "---:", "---:", "---:")
    for size in sizes:
        with tempfile.TemporaryDirectory() as made:
            make_tiny(size, Path(made, "raw"))
            started = time.perf_counter()
            run = subprocess.run(
                [sys.executable, "-c", MEMORY, made],
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
                capture_output=True,
                text=True,
                check=True,
            )
            taken = time.perf_counter() - started
        peaks = [f"{int(peak) / 1024:,.0f} MB" for peak in run.stdout.split()]
        row(f"{size:,}", f"{taken:.0f} s", f"{size / taken:,.0f}", *peaks)


def main(count: int, rows: list[int]) -> None:
    print(machine(), "\n")
    memory(rows)  # first: a process counts what its parent held when it was started
    print()
    if not count:
        return
    with tempfile.TemporaryDirectory() as made:
        raw = Path(made, "raw")
        make(raw, count)
        paths = sorted(raw.rglob("*.jpg"))
        size = sum(path.stat().st_size for path in paths)
        print(f"{count:,} photos of {SIZE[0]} × {SIZE[1]} pixels, {size / count / 1000:.0f} kB each\n")
        threads = (os.cpu_count() or 1) + 1  # as ingest
        decoder, runs = Decoder(1e9), iter(range(100))

        def ingest() -> None:
            folder = Path(made, f"out{next(runs)}")
            folder.mkdir()
            tally = write(photos.read(photos.Options(kind="photos", table="t.csv"), raw), folder, "c", 1e9)
            assert (tally.seen, tally.refused) == (count, 0), tally

        with ThreadPoolExecutor(threads) as pool, quiet_pillow():
            ways = {
                "ingest: read, decode, hash, shard": ingest,
                "read the files alone": lambda: [path.read_bytes() for path in paths],
                "decode in full alone": lambda: list(pool.map(fully, paths)),
                "check alone: decode at 1/8, hash": lambda: list(
                    pool.map(lambda p: decoder.check(Photo(p.name, p.read_bytes(), p.name, "g")), paths)
                ),
            }
            taken = {name: timed(work) for name, work in ways.items()}
        whole = next(iter(taken.values()))
        row("what", "time", "photos/s", "of ingest")
        row("---", "---:", "---:", "---:")
        for name, seconds in taken.items():
            row(name, f"{seconds:.2f} s", f"{count / seconds:,.0f}", f"{seconds / whole:.0%}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=3000)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000], help="of tiny photos")
    chosen = parser.parse_args()
    main(chosen.photos, chosen.rows)
