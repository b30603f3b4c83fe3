"""How fast photos are checked, hashed and put into shards: ``python tests/benchmarks/bench_ingest.py``.

JPEGs of 500 × 375 pixels, cut from the real photographs where they are here, else painted noise, are ingested from a
folder with a table; beside it, in the same run, what reading the files, decoding them in full and decoding them as
ingest does take alone. Before that, the peak memory of ``geoloc ingest`` with more and more tiny photos in the layouts
of ``--corpora``; ``--rows 10000 100000 1000000 --photos 0`` is that alone.
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

import memory
import numpy as np
from PIL import Image
from report import machine, row

from geoloc_core.corpora import manifest
from geoloc_core.corpora.decode import Decoder
from geoloc_core.corpora.ingest import write
from geoloc_core.corpora.photo import Photo
from geoloc_core.corpora.simulated import Plan, Shot, Simulation
from geoloc_core.corpora.sources import photos
from geoloc_core.params import any_corpus
from geoloc_core.pictures import quiet_pillow
from geoloc_core.plugins import module_of

IMAGES = Path(__file__).resolve().parents[3] / "shared/data/images"
SIZE = (500, 375)
ROOT = Path(__file__).resolve().parents[2]
MEASURED = Path(memory.__file__).resolve()


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


def tiny(count: int, plan: Plan) -> Iterator[Shot]:
    """So many photos of 32 × 24 pixels, each the same picture and bytes of its own."""
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)).save(stream, "JPEG")
    south, west, north, east = plan.within
    for n in range(count):
        spot, view = divmod(n, len(plan.headings) or 1)
        part = spot / count
        yield Shot(
            index=n,
            spot=spot,
            author=f"{n // 20:08}@N00",
            latitude=round(max(south, -60) + part * (min(north, 70) - max(south, -60)), 6),
            longitude=round(west + (spot * 0.618 % 1) * (east - west), 6),
            country="FR",
            country_name="France",
            city=f"City{spot % 100}",
            heading=plan.headings[view] if plan.headings else None,
            taken="2019-07-14T12:00:00",
            labels=(1, 2, 3),
            probabilities=(0.1, 0.7, 0.2),
            caption=f"photo {n} of a street",
            number=1_000_000_000 + n,
            secret=f"{n:010x}",
            server=7,
            jpeg=stream.getvalue() + n.to_bytes(8),  # what follows a JPEG's end is ignored
            mask=None,
        )


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


def of_command(corpora: list[str], sizes: list[int]) -> None:
    """Peak memory of the command, as the system tells it."""
    row("corpus", "rows", "kept", "time", "rows/s", "peak memory")
    row("---", "---:", "---:", "---:", "---:", "---:")
    for name in corpora:
        source = any_corpus(ROOT / "params.yaml", name).source
        layout = module_of("geoloc_core.corpora.sources", source.kind)
        for size in sizes:
            with tempfile.TemporaryDirectory() as made:
                raw, out = Path(made, "raw"), Path(made, "out")
                raw.mkdir()
                layout.write(Simulation(tiny(size, layout.PLAN)), raw, source)
                started = time.perf_counter()
                command = [sys.executable, MEASURED, "ingest", name, "--raw", raw, "--out", out]
                said = subprocess.check_output(command, cwd=ROOT, stderr=subprocess.DEVNULL, text=True)
                taken = time.perf_counter() - started
                kept = manifest.count(out / "manifest.parquet")
            peak = int(said.split()[-1])
            row(name, f"{size:,}", f"{kept:,}", f"{taken:.0f} s", f"{size / taken:,.0f}", f"{peak / 1e6:,.0f} MB")


def main(count: int, corpora: list[str], rows: list[int]) -> None:
    print(machine(), "\n")
    of_command(corpora, rows)
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
    parser.add_argument("--corpora", nargs="*", default=["mp16"], help="of params.yaml, for the peak memory")
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000], help="of tiny photos")
    chosen = parser.parse_args()
    main(chosen.photos, chosen.corpora, chosen.rows)
