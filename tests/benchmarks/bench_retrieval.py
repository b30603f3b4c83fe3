"""Retrieval through a gate at the size of MP-16: ``python tests/benchmarks/bench_retrieval.py [photos [asked]]``.

Five million photos with 1,024 numbers lie in 2,203 cells about as even as semantic cells are; the gate lets about
twenty of them through. The plain loop that it is compared with takes photo by photo and cell by cell, as the recipe is
written down. Both read the same vectors from the same file.
"""

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from report import machine, row

from geoloc_core.contracts import mapped
from geoloc_core.contracts.batch import Batch
from geoloc_core.contracts.geolocator import Card, Trained
from geoloc_core.contracts.layers import Names
from geoloc_core.contracts.needs import Needs
from geoloc_core.contracts.prediction import Prediction
from geoloc_core.families.retrieval import Options, Retrieval
from geoloc_core.families.retrieval.comparison import Comparison, unit
from geoloc_core.families.retrieval.gallery import Gallery, rounded
from geoloc_core.families.retrieval.options import Settings
from geoloc_core.geo.labelspace import LabelSpace

CELLS, WIDTH, GATE, MOST = 2203, 1024, 20, 60
BLOCK = 2**15
OPTIONS = {"kind": "retrieval", "corpus": "c", "variant": "cells", "encoder": "e", "labels": "cells", "readout": None,
           "gate": {"mass": 0.95, "most": MOST}, "bands": None, "whitening": None, "csls": None}  # fmt: skip


@dataclass(frozen=True)
class Told:
    """A model of cells that has answered already."""

    labelspace: LabelSpace
    said: Prediction

    def predict(self, batch: Batch, k: int = 5, truth: np.ndarray | None = None) -> Prediction:
        return self.said.rows(batch.images["row"])

    def save(self, folder: Path) -> None:
        """It has nothing of its own."""


def made(count: int, precision: str, folder: Path, rng: np.random.Generator) -> Gallery:
    """Photos whose vectors are on disk, block by block; the blocks repeat."""
    share = rng.uniform(0.5, 1.5, CELLS)
    starts = np.concatenate([[0], np.cumsum(rng.multinomial(count, share / share.sum()))])
    pool, of_pool = rounded(unit(rng.standard_normal((BLOCK, WIDTH), np.float32)), precision)
    scale = np.resize(of_pool, count)
    blocks = (pool[: count - at] for at in range(0, count, BLOCK))
    mapped.write_rows(folder / "v", "vectors", np.dtype(precision), (count, WIDTH), blocks)
    vectors = mapped.read(folder / "v", "make it again")["vectors"]
    names = Names.of(pa.array([f"{at:07d}" for at in range(count)]), np.arange(count))
    places = rng.uniform(-80, 80, count), rng.uniform(-170, 170, count)
    return Gallery(starts, vectors, scale, np.zeros(count, np.float32), *places, rng.integers(1, 99, count), names)


def asked(count: int, gallery: Gallery, rng: np.random.Generator) -> tuple[Batch, Prediction]:
    """Photos that look like those of the gallery, and a first answer to each whose mass lies in about twenty cells."""
    like = np.sort(rng.integers(0, len(gallery), count))
    features = gallery.take(like) + rng.standard_normal((count, WIDTH), np.float32) * np.float32(0.02)
    own = np.searchsorted(gallery.cells, like, side="right") - 1
    keys = rng.gumbel(size=(count, CELLS))
    keys[np.arange(count), own] += 8
    classes = np.argsort(-keys, axis=1)[:, :MOST]
    falling = np.exp(-np.arange(MOST) * 3 / GATE)[None] * rng.uniform(0.9, 1.1, (count, 1))
    probabilities = (falling / falling.sum(axis=1, keepdims=True)).astype(np.float32)
    mixed = rng.permutation(count)
    zeros = np.zeros((count, MOST))
    said = Prediction(classes[mixed], probabilities, zeros, zeros, zeros[:, 0], zeros[:, 0])
    return Batch(
        {"e": features[mixed].astype(np.float16), "row": np.arange(count)}, groups=rng.integers(1, 99, count)
    ), said


def plain(model: Retrieval, batch: Batch, said: Prediction) -> tuple[np.ndarray, float]:
    """The best photo (N,) of each, photo by photo and cell by cell, and photos per second."""
    gallery, found = model.gallery, []
    started = time.perf_counter()
    for number in range(len(said)):
        query = unit(batch.images["e"][number : number + 1].astype(np.float32))[0]
        best, photo, held = -np.inf, -1, 0.0
        for cell, probability in zip(said.classes[number], said.probabilities[number], strict=True):
            if held >= 0.95:
                break
            held += float(probability)
            start, stop = gallery.cells[cell], gallery.cells[cell + 1]
            scores = gallery.vectors[start:stop].astype(np.float32) @ query * gallery.scale[start:stop]
            scores[gallery.groups[start:stop] == batch.groups[number]] = -np.inf
            at = int(scores.argmax())
            score = scores[at] + 0.05 * np.log(probability)
            if score > best:
                best, photo = score, start + at
        found.append(photo)
    return np.array(found), len(said) / (time.perf_counter() - started)


def main(count: int = 5_000_000, answered: int = 8192) -> None:
    rng = np.random.default_rng(7)
    print(f"{machine()}; {count:,} photos with {WIDTH:,} numbers in {CELLS:,} cells\n")
    row("vectors", "GB", "cells searched", "photos compared", "photos/s, first", "photos/s",
        "photos per CPU second", "one alone, ms",
        "100 re-ranked, photos/s", "plain loop, photos/s", "ratio", "same photo")  # fmt: skip
    print("|" + "---|" * 12, flush=True)
    ids = [str(cell) for cell in range(CELLS)]
    space = LabelSpace("geocell", ids, ids, [""] * CELLS, np.zeros(CELLS), np.zeros(CELLS))
    for precision in ("int8", "float16") if count <= 1_000_000 else ("int8",):
        with tempfile.TemporaryDirectory(prefix="bench-retrieval-") as temporary:
            gallery = made(count, precision, Path(temporary), rng)
            batch, said = asked(answered, gallery, rng)
            under = Trained(
                Card(family="told", needs=Needs(inputs=(), labels="cells"), fingerprints={}), Told(space, said)
            )
            block = Options.model_validate(OPTIONS | {"precision": precision})
            kept = Settings.of(block)
            compared = Comparison(1.0, None, ())
            model = Retrieval(kept.model_copy(update={"rerank": None}), under, compared, gallery)
            few = Batch({key: values[:64] for key, values in batch.images.items()}, groups=batch.groups[:64])
            model.predict(few, 10)  # which compiles
            took = []
            for _ in range(2):  # the second time, what was mapped is in memory
                started, spent = time.perf_counter(), time.process_time()
                answer = model.predict(batch, 10)
                took.append(answered / (time.perf_counter() - started))
                spent = time.process_time() - spent  # of all cores
            started = time.perf_counter()
            for number in range(10):
                one = slice(number, number + 1)
                model.predict(Batch({k: v[one] for k, v in batch.images.items()}, groups=batch.groups[one]), 10)
            alone = 1e3 * (time.perf_counter() - started) / 10
            some = min(256, answered)
            again = Retrieval(kept, under, compared, gallery)
            queries, first = again.query(batch)[:some], said.rows(slice(0, some))
            started = time.perf_counter()
            found = again.search(queries, first, again.gated(first), batch.groups[:some])
            again.numbers(queries, first, found)
            ranked = some / (time.perf_counter() - started)
            counts = model.gated(said)
            sizes = np.diff(gallery.cells)[said.classes]
            compare = (sizes * (np.arange(MOST) < counts[:, None])).sum(axis=1).mean()
            loop = np.arange(min(50, answered))
            photos, rate = plain(model, batch.rows(loop), said.rows(loop))
            same = answer.evidence.ids[loop, 0] == gallery.names[photos]
            row(precision, f"{gallery.vectors.nbytes / 1e9:.1f}", f"{counts.mean():.1f}", f"{compare:,.0f}",
                f"{took[0]:,.0f}", f"{took[1]:,.0f}",
                f"{answered / spent:,.0f}", f"{alone:.0f}", f"{ranked:,.0f}", f"{rate:.1f}",
                f"{took[1] / rate:.0f}×", f"{100 * same.mean():.0f} %")  # fmt: skip


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
