"""What a model is asked with, and what it learns from."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from geoloc_core.contracts.prediction import Prediction
from geoloc_core.geo.labelspace import LabelSpace

Metrics = dict[str, float]


@dataclass(frozen=True)
class Batch:
    """N units to be answered.

    Attributes:
        images: By image encoder, (N, D) features; may be memory-mapped.
        answers: By variant, what it answers to the N units.
    """

    images: dict[str, np.ndarray] = field(default_factory=dict)
    answers: dict[str, Prediction] = field(default_factory=dict)

    def __len__(self) -> int:
        sizes = [*map(len, self.images.values()), *map(len, self.answers.values())]
        return sizes[0] if sizes else 0

    def rows(self, where: slice | np.ndarray) -> "Batch":
        """Some of the units."""
        return Batch(
            {name: values[where] for name, values in self.images.items()},
            {name: answer.rows(where) for name, answer in self.answers.items()},
        )


@dataclass(frozen=True)
class Sentences:
    """M sentences with their features.

    Attributes:
        ids: (M,) strings.
        texts: (M,) strings.
        countries: (M,) tuples of the countries that each is about, alpha-3 codes; empty where nothing is known.
        features: (M, D) float32.
    """

    ids: list[str]
    texts: list[str]
    countries: list[tuple[str, ...]]
    features: np.ndarray


@dataclass(frozen=True)
class Answered:
    """What another variant answers to the rows of the corpus that it was not trained on.

    Attributes:
        space: Its label space.
        rows: (M,) ascending positions in the corpus' manifest.
        prediction: Of the M rows.
    """

    space: LabelSpace
    rows: np.ndarray
    prediction: Prediction


@dataclass(frozen=True)
class Data:
    """A corpus to learn from: N rows, of which some are for training and some for validation.

    Attributes:
        images: By image encoder, (N, D) float16, memory-mapped.
        texts: By text encoder and name of the sentences.
        answers: By variant.
        space: The C classes of the training rows.
        targets: (N,) int64 classes; −1 where a row has none.
        training: Rows to learn from, ascending; each has a class and all inputs.
        validation: Rows to choose by, ascending, of other groups; each has all inputs, and a class somewhere.
    """

    images: dict[str, np.ndarray]
    texts: dict[tuple[str, str], Sentences]
    answers: dict[str, Answered]
    space: LabelSpace
    targets: np.ndarray
    training: np.ndarray
    validation: np.ndarray


@dataclass(frozen=True)
class Run:
    """What goes with a training.

    Attributes:
        seed: Of all that is random.
        checkpoint: The file that survives a kill.
        depends: All that the training depends on, as plain values: another one never resumes from the checkpoint.
        log: Called with the metrics and the number of each epoch.
    """

    seed: int
    checkpoint: Path
    depends: Any
    log: Callable[[Metrics, int], None]


@dataclass(frozen=True)
class Fitted:
    """A trained model and how it came about.

    Attributes:
        model: A :class:`~geoloc_core.contracts.geolocator.Geolocator`.
        history: Metrics of every epoch; empty where there are none.
        best: Number of the epoch that was kept.
        figures: What else is worth telling, for the stage's summary.
    """

    model: Any
    history: list[Metrics] = field(default_factory=list)
    best: int = 0
    figures: dict[str, Any] = field(default_factory=dict)
