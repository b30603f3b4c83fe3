"""How fast are features made? ``python tests/benchmarks/bench_encode.py [--model ViT-L-14] [--size 336]``

Side by side, in one process and in turns: decoding and scaling 500 × 375 JPEGs against the usual DataLoader of Pillow
and torchvision, and against decoding alone; a CLIP tower of random weights against open_clip's own fp32 loop, with the
cosine between their features; and extraction end to end, from shards to features. On a GPU also the card's measured
bf16 matrix rate, and which share of it the tower uses.
"""

import argparse
import io
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bench_ingest import SIZE, pictures
from PIL import Image
from report import machine, row

from geoloc_core.corpora import manifest
from geoloc_core.encoders import extraction
from geoloc_core.encoders.compute import on_device
from geoloc_core.encoders.encoder import Encoder
from geoloc_core.encoders.memory import Halving
from geoloc_core.encoders.preprocess import Preprocess

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
GFLOP = {"ViT-B-32": 8.82, "ViT-B-16": 35.13, "ViT-L-14": 162.03, "ViT-L-14-336": 381.92}
"""Of the image tower and one photo: open_clip's docs/model_profile.csv."""


def photos(count: int) -> list[bytes]:
    """Distinct photos of 500 × 375, cut from real ones where there are any."""
    random, known, found = np.random.default_rng(0), pictures(np.random.default_rng(0)), []
    for number in range(count):
        picture = known[number % len(known)]
        w = int((0.6 + 0.4 * random.random()) * min(picture.width, picture.height * 4 / 3))
        left, top = random.integers(picture.width - w + 1), random.integers(picture.height - w * 3 // 4 + 1)
        stream = io.BytesIO()
        picture.resize(SIZE, box=(left, top, left + w, top + w * 3 // 4), reducing_gap=2).save(
            stream, "JPEG", quality=90
        )
        found.append(stream.getvalue())
    return found


def rates(ways: dict[str, Callable[[], Any]], count: int, times: int = 3) -> dict[str, float]:
    """Photos per second of several ways, the best of some turns each, taken in turns: the machine is shared."""
    best = dict.fromkeys(ways, 0.0)
    for _ in range(times):
        for name, work in ways.items():
            started = time.perf_counter()
            work()
            best[name] = max(best[name], count / (time.perf_counter() - started))
    return best


def table(found: dict[str, float]) -> None:
    first = next(iter(found.values()))
    row("what", "photos/s", "of the first")
    row("---", "---:", "---:")
    for name, rate in found.items():
        row(name, f"{rate:,.1f}" if rate < 100 else f"{rate:,.0f}", f"{rate / first:.2f}")
    print()


class Jpegs:
    """What a user writes: Pillow and torchvision, photo by photo, for torch's DataLoader."""

    def __init__(self, encoded: list[bytes], size: int) -> None:
        from open_clip import image_transform

        self.encoded, self.transform = encoded, image_transform(size, is_train=False, mean=MEAN, std=STD)

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> Any:
        return self.transform(Image.open(io.BytesIO(self.encoded[index])).convert("RGB"))


def decoding(encoded: list[bytes], preprocess: Preprocess) -> None:
    from torch.utils.data import DataLoader

    threads = os.cpu_count() or 1
    usual = Jpegs(encoded, preprocess.size)
    ours, theirs = preprocess(encoded[:50]), np.stack([usual[index].numpy() for index in range(50)])
    print(f"largest difference to torchvision's input: {np.abs(preprocess.normalised(ours) - theirs).max():.0e}\n")
    with ThreadPoolExecutor(threads) as pool:
        ways = {
            f"DataLoader of Pillow, {threads} workers": lambda: list(DataLoader(usual, 64, num_workers=threads)),
            f"geoloc, {threads} threads": lambda: preprocess(encoded, pool),
            f"Pillow decodes alone, {threads} threads": lambda: list(
                pool.map(lambda data: Image.open(io.BytesIO(data)).load(), encoded)
            ),
        }
        table(rates(ways, len(encoded)))


def tower(name: str, size: int) -> Any:
    import open_clip
    import torch

    torch.manual_seed(0)
    return open_clip.create_model(name, force_image_size=size).visual.eval().requires_grad_(False)


def computing(name: str, pixels: np.ndarray, preprocess: Preprocess, batch: int) -> Any:
    """The table of one tower; returns the forward that extraction would use."""
    import torch
    from torch.nn.functional import cosine_similarity

    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = tower(name, preprocess.size).to(where)
    images = torch.from_numpy(preprocess.normalised(pixels)).contiguous()

    def theirs() -> torch.Tensor:
        with torch.inference_mode():
            return torch.cat([network(piece.to(where)).cpu() for piece in images.split(batch)])

    forwards = {p: on_device(tower(name, preprocess.size), preprocess, p) for p in ("fp32", "auto")}
    ways: dict[str, Callable[[], Any]] = {"open_clip's loop, fp32": theirs}
    expected = theirs()
    for forward in forwards.values():
        cosine = cosine_similarity(expected, torch.from_numpy(in_batches(forward, pixels, batch)), dim=1).min()
        ways[f"geoloc, {forward.precision} (cosine ≥ {cosine:.5f})"] = lambda f=forward: in_batches(f, pixels, batch)
    found = rates(ways, len(pixels))
    table(found)
    if where.type == "cuda" and name in GFLOP:
        peak = matrix_rate()
        used = max(found.values()) * GFLOP[name] / 1000
        print(
            f"{torch.cuda.get_device_name()}: {peak:.0f} TFLOP/s of bf16 products; the tower uses {used / peak:.0%}\n"
        )
    return forwards["auto"]


def in_batches(forward: Any, pixels: np.ndarray, batch: int) -> np.ndarray:
    """Features of photos that are decoded already, each batch begun before the last one is waited for."""
    waiting, found = [], []
    for start in range(0, len(pixels), batch):
        waiting.append(forward.start(pixels[start : start + batch]))
        if len(waiting) > 1:
            found.append(waiting.pop(0)())
    return np.concatenate([*found, *(wait() for wait in waiting)])


def matrix_rate(edge: int = 8192, times: int = 30) -> float:
    """The best rate of large bf16 products on the GPU, TFLOP/s."""
    import torch

    a, b = (torch.randn(edge, edge, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    best = 0.0
    for _ in range(3):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(times):
            a @ b
        torch.cuda.synchronize()
        best = max(best, times * 2 * edge**3 / (time.perf_counter() - started) / 1e12)
    return best


def end_to_end(encoded: list[bytes], encoder: Encoder, folder: Path) -> None:
    images = [{"bytes": data, "path": "x.jpg"} for data in encoded]
    shard = folder / "00000.parquet"
    ids = [str(number) for number in range(len(encoded))]
    pq.write_table(
        pa.table({"image_id": ids, "image": images}, manifest.SHARD), shard, row_group_size=manifest.ROW_GROUP
    )
    runs = iter(range(100))

    def extract() -> None:
        parts = folder / str(next(runs))
        parts.mkdir()
        assert sum(extraction.extract(encoder, [shard], parts)) == len(encoded)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pixels = encoder.preprocess(encoded, pool)
        ways = {
            "extraction: read, decode, compute, write": extract,
            "compute alone": lambda: in_batches(encoder.forward, pixels, encoder.batch),
            "decode and scale alone": lambda: encoder.preprocess(encoded, pool),
        }
        table(rates(ways, len(encoded), 2))


def main(count: int, computed: int, model: str, size: int, batch: int) -> None:
    print(machine(), "\n")
    encoded = photos(count)
    preprocess = Preprocess(size, "crop", "bicubic", MEAN, STD)
    print(
        f"{count:,} photos of {SIZE[0]} × {SIZE[1]} pixels, {sum(map(len, encoded)) / count / 1000:.0f} kB → {size}\n"
    )
    decoding(encoded, preprocess)
    print(f"{model} at {size} pixels, {computed:,} photos, batches of {batch}\n")
    forward = computing(model, preprocess(encoded[:computed]), preprocess, batch)
    encoder = Encoder(forward(preprocess(encoded[:1])).shape[1:], batch, preprocess, Halving(forward), {})
    with tempfile.TemporaryDirectory() as folder:
        end_to_end(encoded[:computed], encoder, Path(folder))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=2000, help="that are decoded")
    parser.add_argument("--computed", type=int, default=192, help="of them, that towers compute")
    parser.add_argument("--model", default="ViT-B-32", help="an architecture of open_clip")
    parser.add_argument("--size", type=int, default=224, help="of its input, pixels")
    parser.add_argument("--batch", type=int, default=64)
    chosen = parser.parse_args()
    main(chosen.photos, chosen.computed, chosen.model, chosen.size, chosen.batch)
