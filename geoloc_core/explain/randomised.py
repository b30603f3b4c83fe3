"""A model with a head that has forgotten what it learned: its weights are shuffled."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from geoloc_core.contracts import geolocator
from geoloc_core.contracts.geolocator import CARD, WEIGHTS, Trained, read_tensors, write_tensors
from geoloc_core.serving.bundle import Bundle

REMEDY = "explain again"


def with_random_heads(bundle: Bundle, folder: Path, seed: int) -> Bundle | None:
    """The same bundle with every head in it shuffled, its towers as they are; None where no head has weights.

    Args:
        bundle: What is explained.
        folder: Where the models may lie as long as they are used: those with towers of their own read from there.
        seed: Of the shuffling.
    """
    rng, shuffled = np.random.default_rng(seed), 0
    models: dict[str, Trained] = {}
    for name, trained in bundle.models.items():
        place = Path(tempfile.mkdtemp(dir=folder))
        trained.save(place)
        shuffled += sum(_shuffle(card.parent, rng) for card in sorted(place.rglob(CARD)))
        models[name] = geolocator.load(place, REMEDY)
    return replace(bundle, models=models) if shuffled else None


def _shuffle(folder: Path, rng: np.random.Generator) -> int:
    """Shuffle each matrix of a saved model among its rows, column by column, and say how many there were.

    So each input keeps the weights it had, but none belongs to its output any longer. A tower of the model's own has
    no card of a model beside it, and stays as it is.
    """
    if not (folder / WEIGHTS).is_file():
        return 0
    tensors = read_tensors(folder, REMEDY)
    # a file of tensors is read in any order, and each of them draws
    matrices = {
        name: rng.permuted(tensor, axis=0)
        for name, tensor in sorted(tensors.items())
        if tensor.ndim >= 2 and len(tensor) > 1 and np.issubdtype(tensor.dtype, np.floating)
    }
    write_tensors(folder, tensors | matrices)
    return len(matrices)
