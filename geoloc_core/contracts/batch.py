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
class Units:
    """U units, each of one or more photos.

    Attributes:
        rows: (M,) the photos, unit by unit; those of a place in the order of their headings.
        starts: (U + 1,) where each unit begins in ``rows``, and where the last one ends.
    """

    rows: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def first(self) -> np.ndarray:
        """(U,) the least row of each unit, which stands for it."""
        least: np.ndarray = np.minimum.reduceat(self.rows, self.starts[:-1]) if len(self) else self.rows
        return least

    def take(self, some: np.ndarray) -> "Units":
        """Some of the units, in the order given."""
        counts = np.diff(self.starts)[some]
        starts = np.concatenate([[0], np.cumsum(counts)])
        at = np.arange(starts[-1]) - np.repeat(starts[:-1] - self.starts[:-1][some], counts)
        return Units(self.rows[at], starts)

    @classmethod
    def of_photos(cls, rows: np.ndarray) -> "Units":
        """A unit for each photo."""
        return cls(rows, np.arange(len(rows) + 1))

    @classmethod
    def of_places(cls, rows: np.ndarray, places: np.ndarray, headings: np.ndarray) -> "Units":
        """A unit for each place, in the order of their first photos; a photo of no place is a unit of its own.

        Args:
            rows: (M,) the photos, ascending.
            places: (M,) ids of places, None where a photo stands alone.
            headings: (M,) degrees, NaN where unknown: such photos come last, in the order of their rows.
        """
        alone = np.array([place is None for place in places], bool)
        keys = np.where(alone, np.arange(len(rows)).astype(object), places)
        number = {key: at for at, key in enumerate(dict.fromkeys(keys.tolist()))}
        unit = np.array([number[key] for key in keys.tolist()], np.int64)
        order = np.lexsort((rows, headings, unit))
        return cls(rows[order], np.concatenate([[0], np.cumsum(np.bincount(unit, minlength=len(number)))]))


@dataclass(frozen=True)
class Batch:
    """N units to be answered.

    Attributes:
        images: By image encoder, features (N, D), or (M, D) of the M photos of all units; may be memory-mapped.
        answers: By variant, what it answers to the N units.
        starts: Where the unit is a place: (N + 1,) where the photos of each begin among the M; None where each photo is
            a unit.
    """

    images: dict[str, np.ndarray] = field(default_factory=dict)
    answers: dict[str, Prediction] = field(default_factory=dict)
    starts: np.ndarray | None = None

    def __len__(self) -> int:
        if self.starts is not None:
            return len(self.starts) - 1
        sizes = [*map(len, self.images.values()), *map(len, self.answers.values())]
        return sizes[0] if sizes else 0

    def rows(self, where: slice | np.ndarray) -> "Batch":
        """Some of the units, where each is a photo."""
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
        places: (N,) ids of places, None where a photo stands alone; left out where the unit is a photo.
        headings: (N,) degrees, NaN where unknown; beside the places.
    """

    images: dict[str, np.ndarray]
    texts: dict[tuple[str, str], Sentences]
    answers: dict[str, Answered]
    space: LabelSpace
    targets: np.ndarray
    training: np.ndarray
    validation: np.ndarray
    places: np.ndarray | None = None
    headings: np.ndarray | None = None

    def units(self, rows: np.ndarray) -> Units:
        """Some rows, ascending, as units; the class of a place is that of any of its rows."""
        if self.places is None or self.headings is None:
            return Units.of_photos(rows)
        return Units.of_places(rows, self.places[rows], self.headings[rows])


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
