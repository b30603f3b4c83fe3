"""How fast does GeoCLIP answer, and does it find the best place? ``python tests/benchmarks/bench_geoclip.py``

Places lie around GeoNames' towns, as photos do. Photos look like places of the same kind, with so much noise that the
cosine to their own place is that of ``--cosine``. `exact` compares each photo with each place, `leaves` looks into the
most similar leaves alone; recall@1 is the share of photos for which both name the same place, or places whose cosines
differ by less than 1e-6. With ``--package FOLDER``, the folder of the package ``geoclip``, places are embedded with its
weights, and `released` is what its ``predict`` does for one photo beside the image tower: embed the gallery, compare,
softmax. Without, the location encoder has the published frequencies and narrow layers of random weights, so that ten
million places are embedded in minutes: ``--points 10000000 --precision float16`` takes 11 GB.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from report import machine, row

from geoloc_core.families.geoclip import network
from geoloc_core.families.geoclip.gallery import EXACT, PROBES, Gallery, Precision
from geoloc_core.geo import sphere
from geoloc_core.geo.towns import Towns

SCATTER_KM = 15.0
"""Mean distance of a place from its town."""
CLASSES = 200


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


def main(points: int, photos: int, probes: int, cosine: float, precision: Precision, package: Path | None) -> None:
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    sizes = network.Sizes() if package else network.Sizes(capsule=(64, 64, 64))
    net = network.network(768, sizes, torch.empty(0, 2)).eval()
    if package:
        network.fill_released(net, package / "model" / "weights")

    def embed(latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
        return network.embed(net, latitudes, longitudes)

    began = time.perf_counter()
    gallery = Gallery.build(embed, *places(points, rng), CLASSES, precision)
    print(f"{machine()}, {torch.get_num_threads()} threads; {len(gallery):,} places in {len(gallery.means):,} leaves")
    print(f"embedded in {time.perf_counter() - began:.0f} s; {gallery.embeddings.nbytes / 1e9:.2f} GB of {precision}\n")
    images = seen(embed(*places(photos, rng)[:2]), cosine, rng)
    whole, exact = best_of(gallery.best(images, exact=len(gallery)))
    some, found = best_of(gallery.best(images, exact=0, probes=probes))
    recall = np.mean((exact == found) | (np.abs(whole - some) < 1e-6))
    one = images[:1]
    ways = {
        "exact": lambda: gallery.best(one, exact=len(gallery)),
        f"leaves, {probes} of them": lambda: gallery.best(one, exact=0, probes=probes),
    }
    took = {name: seconds(way, 3) for name, way in ways.items()}
    took[f"leaves, {photos} photos at once"] = seconds(lambda: gallery.best(images, exact=0, probes=probes), 1) / photos
    if package:
        features = torch.from_numpy(rng.normal(size=(1, 768)).astype(np.float32))
        known = network.points_of(gallery.latitudes, gallery.longitudes)

        def released() -> object:
            with torch.inference_mode():
                return (net.images(features) @ net.points(known).T).mul(net.logit_scale.exp()).softmax(dim=-1).topk(5)

        took["released"] = seconds(released, 1)
    row("way", "ms a photo", "recall@1")
    row("---", "---:", "---:")
    for name, each in took.items():
        row(name, f"{1000 * each:,.1f}", f"{recall:.3f}" if name.startswith("leaves") else "1.000")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--probes", type=int, default=PROBES, help=f"leaves, above {EXACT:,} places")
    parser.add_argument("--cosine", type=float, default=0.4)
    parser.add_argument("--precision", choices=["float32", "float16"], default="float32")
    parser.add_argument("--package", type=Path)
    main(**vars(parser.parse_args()))
