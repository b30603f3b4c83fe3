"""Data to learn from, of a few classes."""

from pathlib import Path

import numpy as np

from geoloc_core.contracts.batch import Data, Run, Sentences

from .made_models import space


def data(features, targets, classes, clues=None, answers=None, validation_share=0.25) -> Data:
    """The last rows are for validation."""
    n = len(targets)
    first = int(n * (1 - validation_share))
    known, at = space(classes), np.asarray(targets, np.int64)
    return Data(
        images={"a": np.asarray(features, np.float16)},
        texts={("t", "clues"): clues} if clues else {},
        answers=answers or {},
        space=known,
        targets=at,
        training=np.arange(first),
        validation=np.arange(first, n),
        latitudes=np.where(at < 0, np.nan, known.latitudes[at]),
        longitudes=np.where(at < 0, np.nan, known.longitudes[at]),
    )


def clues(features, countries) -> Sentences:
    """Sentences about countries."""
    n = len(countries)
    ids, texts = ([f"{word}{i}" for i in range(n)] for word in ("c", "clue "))
    return Sentences(ids, texts, countries, np.asarray(features, np.float32))


def run(folder: Path, log=lambda metrics, step: None, seed=5) -> Run:
    """A training that is told to nobody."""
    return Run(seed, folder / "checkpoint.pt", "what it depends on", log)
