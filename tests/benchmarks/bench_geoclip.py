"""How fast does GeoCLIP answer, and does it find the best place? ``python tests/benchmarks/bench_geoclip.py``

Places lie around GeoNames' towns, as photos do. Four kinds of photos: `near`, turned away from a place by so much
that the cosine is ``--cosine``; `vague`, likewise from the mean of three places; `random` directions, which look like
nowhere; and, with ``--package``, `untaught`: random features through the released image head, which all look like the
same few regions. The family's search is compared with an exact one, which streams all places through the same
compiled loop; recall@1 is the share of photos for which both name the same place, or places whose cosines differ by
less than 1e-6. Milliseconds are those of the clock for one photo alone (mean and most), of the clock for each of many
at once, and of CPU time for each of these.

With ``--package FOLDER``, the folder of the package ``geoclip``, places are embedded with its weights, and `released`
is what its ``predict`` does for one photo beside the image tower: embed the gallery, compare, softmax. Without, the
location encoder has the published frequencies and narrow layers of random weights. The released encoder embeds 3,000
places in a second of CPU time. So with ``--anchors N`` it embeds N places alone, and each place of the gallery gets a
mean of those of the two nearest, by inverse distance: ``--points 10000000 --precision float16 --anchors 200000
--package FOLDER`` takes 11 GB of memory.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from report import machine, row
from scipy.spatial import cKDTree

from geoloc_core.families.geoclip import kernels, network
from geoloc_core.families.geoclip.gallery import EXACT, MOST, PROBES, Embed, Gallery, Precision
from geoloc_core.geo import sphere
from geoloc_core.geo.towns import Towns

SCATTER_KM = 15.0
"""Mean distance of a place from its town."""
CLASSES = 200
BLOCK = 2**14
"""Places at a time."""


def places(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Latitudes, longitudes and classes of places around towns; large towns have more."""
    towns = Towns.load()
    share = np.sqrt(np.maximum(towns.populations, 1))
    at = rng.choice(len(towns), count, p=share / share.sum())
    km, angle = rng.exponential(SCATTER_KM, count), rng.uniform(0, 2 * np.pi, count)
    degrees = np.degrees(km / sphere.EARTH_KM)
    latitudes = np.clip(towns.latitudes[at] + degrees * np.sin(angle), -89, 89)
    longitudes = sphere.wrap(towns.longitudes[at] + degrees * np.cos(angle) / np.cos(np.radians(latitudes)))
    _, classes = np.unique(towns.countries[at], return_inverse=True)
    return latitudes, longitudes, classes % CLASSES


def seen(vectors: np.ndarray, cosine: float, rng: np.random.Generator) -> np.ndarray:
    """Photos of places: vectors (N, D) turned away from them at random."""
    noise = rng.normal(size=vectors.shape)
    noise -= (noise * vectors).sum(axis=1, keepdims=True) * vectors
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    found: np.ndarray = (cosine * vectors + np.sqrt(1 - cosine**2) * noise).astype(np.float32)
    return found


def between(embed: Embed, count: int, rng: np.random.Generator) -> Embed:
    """An embedding of any place by those of the nearest two of so many."""
    latitudes, longitudes, _ = places(count, rng)
    known = embed(latitudes, longitudes).astype(np.float16)
    tree = cKDTree(sphere.unit_vectors(latitudes, longitudes))

    def found(latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
        distance, near = tree.query(sphere.unit_vectors(latitudes, longitudes), 2, workers=2)
        share = distance[:, 1] / np.maximum(distance.sum(axis=1), 1e-12)
        first, second = known[near[:, 0]].astype(np.float32), known[near[:, 1]].astype(np.float32)
        second += (first - second) * share[:, None].astype(np.float32)
        second /= np.linalg.norm(second, axis=1, keepdims=True)
        return second

    return found


def unit(vectors: np.ndarray) -> np.ndarray:
    found: np.ndarray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return found


def exact(gallery: Gallery, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and point (N,) of the best place of all, of many photos."""
    cosines, points = np.full(len(images), -1, np.float32), np.zeros(len(images), np.int64)
    for start in range(0, len(gallery), BLOCK):
        found = images @ np.asarray(gallery.embeddings[start : start + BLOCK], np.float32).T
        at = found.argmax(axis=1)
        best = found[np.arange(len(images)), at]
        points = np.where(best > cosines, start + at, points)
        cosines = np.maximum(best, cosines)
    return cosines, points


def streamed(gallery: Gallery, image: np.ndarray) -> float:
    """Cosine of the best place of all, of one photo, by the compiled loop."""
    starts = range(0, len(gallery), BLOCK)
    blocks = (np.arange(start, min(start + BLOCK, len(gallery))) for start in starts)
    return max(float(kernels.cosines(gallery.embeddings, block, image).max()) for block in blocks)


def best_of(found: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    cosines, points = found
    first = cosines.argmax(axis=1)[:, None]
    return np.take_along_axis(cosines, first, axis=1)[:, 0], np.take_along_axis(points, first, axis=1)[:, 0]


def seconds(work: Callable[[], object], rounds: int) -> float:
    """The least of some rounds."""
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return min(took)


def main(
    points: int, photos: int, probes: int, most: int, cosine: float, precision: Precision, anchors: int,
    package: Path | None,
) -> None:  # fmt: skip
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    sizes = network.Sizes() if package else network.Sizes(capsule=(64, 64, 64))
    net = network.network(768, sizes, torch.empty(0, 2)).eval()
    if package:
        network.fill_released(net, package / "model" / "weights")

    def embed(latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
        return network.embed(net, latitudes, longitudes)

    began = time.process_time()
    of_places = between(embed, anchors, rng) if anchors else embed
    gallery = Gallery.build(of_places, *places(points, rng), CLASSES, precision)
    print(f"{machine()}, {torch.get_num_threads()} threads; {len(gallery):,} places in {len(gallery.means):,} leaves")
    print(f"embedded in {time.process_time() - began:.0f} s of CPU time; ", end="")
    print(f"{gallery.embeddings.nbytes / 1e9:.2f} GB of {precision}\n")
    own = of_places(*places(photos, rng)[:2])
    kinds = {
        "near": seen(own, cosine, rng),
        "vague": seen(unit(own + np.roll(own, 1, axis=0) + np.roll(own, 2, axis=0)), cosine, rng),
        "random": unit(rng.normal(size=own.shape)),
    }
    features = torch.from_numpy(rng.normal(0, 0.4, (photos, 768)).astype(np.float32))
    if package:
        with torch.inference_mode():
            kinds["untaught"] = net.images(features).numpy()
    images = np.concatenate(list(kinds.values()))
    whole, best = exact(gallery, images)
    gallery.best(images[:1], 0, probes, most)  # which compiles
    streaming, cpu = spent(lambda: streamed(gallery, images[0]))
    print(f"exact: {1000 * streaming:,.1f} ms a photo, {1000 * cpu:,.1f} ms of CPU time\n")
    row("photos", "best cosine", "one, ms", "at most, ms", "many, ms each", "CPU ms each", "exact / CPU", "recall@1")
    row("---", *["---:"] * 7)
    for number, name in enumerate(kinds):
        mine = slice(number * photos, (number + 1) * photos)
        took = [_alone(gallery, image[None], probes, most) for image in images[mine]]
        began, began_cpu = time.perf_counter(), time.process_time()
        some, found = best_of(gallery.best(images[mine], 0, probes, most))
        each, of_cpu = (time.perf_counter() - began) / photos, (time.process_time() - began_cpu) / photos
        recall = np.mean((best[mine] == found) | (np.abs(whole[mine] - some) < 1e-6))
        figures = (f"{1000 * t:,.1f}" for t in (np.mean(took), max(took), each, of_cpu))
        row(name, f"{whole[mine].mean():.2f}", *figures, f"{cpu / of_cpu:.0f}", f"{recall:.3f}")
    if package and points <= EXACT:
        known = network.points_of(gallery.latitudes, gallery.longitudes)

        def released() -> object:
            with torch.inference_mode():
                scores = net.images(features[:1]) @ net.points(known).T
                return scores.mul(net.logit_scale.exp()).softmax(dim=-1).topk(5)

        ours = seconds(lambda: gallery.best(kinds["near"][:1]), 3)
        theirs = seconds(released, 1)
        print(f"\none photo alone: {1000 * ours:.1f} ms; released: {1000 * theirs:,.0f} ms, {theirs / ours:,.0f} ×")


def _alone(gallery: Gallery, image: np.ndarray, probes: int, most: int) -> float:
    """Seconds that one photo (1, D) takes."""
    return seconds(lambda: gallery.best(image, 0, probes, most), 1)


def spent(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the clock and of CPU time."""
    began, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - cpu


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=200_000)
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--probes", type=int, default=PROBES, help="leaves at a time")
    parser.add_argument("--most", type=int, default=MOST, help="leaves at most")
    parser.add_argument("--cosine", type=float, default=0.3)
    parser.add_argument("--precision", choices=["float32", "float16"], default="float32")
    parser.add_argument("--anchors", type=int, default=0)
    parser.add_argument("--package", type=Path)
    main(**vars(parser.parse_args()))
