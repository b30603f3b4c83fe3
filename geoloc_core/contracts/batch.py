"""What a model is asked with, and what it learns from."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from geoloc_core.contracts.prediction import Prediction
from geoloc_core.corpora.stored import Stored
from geoloc_core.errors import UserError
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

    def padded(self, most: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions (U, T) of the first photos of each unit among all, and how many it has (U,) int64.

        T is the greatest number there is, and at most ``most``. Where a unit has fewer, its last one is repeated.
        """
        counts = np.minimum(np.diff(self.starts), most).astype(np.int64)
        within = np.minimum(np.arange(counts.max(initial=1)), counts[:, None] - 1)
        return self.starts[:-1, None] + within, counts

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
class Pieces:
    """P pictures cut from N photos, photo by photo; a photo may have none.

    Attributes:
        starts: (N + 1,) where the pieces of each photo begin, and where the last ones end.
        classes: (P,) what each shows, as the segmenter names it.
        groups: (P,) such as ``vegetation``; None where a piece is of no group.
        scores: (P,) the segmenter's confidence, 0 to 1.
        areas: (P,) pixels of the photo that each covers.
        pictures: The P pictures, encoded; or where they are stored.
    """

    starts: np.ndarray
    classes: np.ndarray
    groups: np.ndarray
    scores: np.ndarray
    areas: np.ndarray
    pictures: Sequence[bytes] | Stored

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def photos(self) -> np.ndarray:
        """(P,) the photo of each piece, from 0."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    def only(self, keep: np.ndarray) -> "Pieces":
        """The pieces for which ``keep`` (P,) holds, of the same photos."""
        which = np.flatnonzero(keep)
        counts = np.bincount(self.photos[which], minlength=len(self.starts) - 1)
        return self._of(which, counts)

    def of(self, photos: np.ndarray) -> "Pieces":
        """The pieces of some photos, in the order given."""
        counts = np.diff(self.starts)[photos]
        ends = np.cumsum(counts)
        which = np.arange(ends[-1] if len(ends) else 0)
        return self._of(which + np.repeat(self.starts[:-1][photos] - (ends - counts), counts), counts)

    def _of(self, which: np.ndarray, counts: np.ndarray) -> "Pieces":
        held = self.pictures
        pictures = held.take(which) if isinstance(held, Stored) else [held[at] for at in which]
        starts = np.concatenate([[0], np.cumsum(counts)])
        classes, groups, scores, areas = (
            values[which] for values in (self.classes, self.groups, self.scores, self.areas)
        )
        return Pieces(starts, classes, groups, scores, areas, pictures)

    def read(self) -> "Pieces":
        """The same with the pictures at hand."""
        held = self.pictures.read() if isinstance(self.pictures, Stored) else self.pictures
        return replace(self, pictures=held)


@dataclass(frozen=True)
class Tower:
    """The weights from which a network starts.

    Attributes:
        options: The encoder's block of ``params.yaml``.
        weights: Their folder, in the published format.
    """

    options: Any
    weights: Path


@dataclass(frozen=True)
class TextTower:
    """The text tower of a CLIP.

    Attributes:
        options: The text encoder's block of ``params.yaml``.
        weights: Their folder, in the published format.
        unseen: Countries that were held out of its training here, alpha-3 codes.
    """

    options: Any
    weights: Path
    unseen: tuple[str, ...] = ()


@dataclass(frozen=True)
class Batch:
    """N units to be answered.

    Attributes:
        images: By image encoder, features (N, D), or (M, D) of the M photos of all units; may be memory-mapped.
        answers: By variant, what it answers to the N units.
        photos: The N photos, encoded, or the M of all units; None where the model does not look at them.
        pieces: By segmenter, what it cut from the N photos, or from the M of all units.
        starts: Where the unit is a place: (N + 1,) where the photos of each begin among the M; None where each photo is
            a unit.
        groups: (N,) int64 whose each unit is, such as the photographer's, as
            :func:`~geoloc_core.contracts.groups.hashed` gives it; None where that is not known of any.
    """

    images: dict[str, np.ndarray] = field(default_factory=dict)
    answers: dict[str, Prediction] = field(default_factory=dict)
    photos: Sequence[bytes] | None = None
    pieces: dict[str, Pieces] = field(default_factory=dict)
    starts: np.ndarray | None = None
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        if self.starts is not None:
            return len(self.starts) - 1
        sizes = [*map(len, self.images.values()), *map(len, self.answers.values())]
        sizes += [] if self.photos is None else [len(self.photos)]
        sizes += [len(pieces.starts) - 1 for pieces in self.pieces.values()]
        return sizes[0] if sizes else 0

    def rows(self, which: np.ndarray) -> "Batch":
        """Some of the units, where each is a photo."""
        return Batch(
            images={name: values[which] for name, values in self.images.items()},
            answers={name: answer.rows(which) for name, answer in self.answers.items()},
            photos=None if self.photos is None else [self.photos[at] for at in which],
            pieces={name: pieces.of(which) for name, pieces in self.pieces.items()},
            groups=None if self.groups is None else self.groups[which],
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
        parameters: How many its model has; None where that was not noted.
    """

    space: LabelSpace
    rows: np.ndarray
    prediction: Prediction
    parameters: int | None = None


@dataclass(frozen=True)
class Data:
    """A corpus to learn from: N rows, of which some are for training and some for validation.

    Attributes:
        images: By image encoder, (N, D) float16, memory-mapped; (N, T, D) where its tokens are read.
        texts: By text encoder and name of the sentences.
        answers: By variant.
        photos: Where the N photos are stored.
        pieces: By segmenter, what it cut from the N photos.
        towers: By image encoder, the weights that a network may start from.
        facts: By name, (N,) float64 of what is known of each place and moment, NaN where it is not; see
            :mod:`geoloc_core.contracts.facts`.
        text_towers: By encoder, what embeds sentences in the space of its features.
        models: By variant, its trained model, a :class:`~geoloc_core.contracts.geolocator.Trained`.
        space: The C classes of the training rows.
        targets: (N,) int64 classes; −1 where a row has none.
        training: Rows to learn from, ascending; each has a class and all inputs.
        validation: Rows to choose by, ascending, of other groups; each has all inputs, and a class somewhere.
        latitudes: (N,) degrees, NaN where unknown.
        longitudes: (N,) degrees, NaN where unknown.
        groups: (N,) int64, equal for photos that no split may part, as :func:`~geoloc_core.contracts.groups.hashed`
            gives them; left out where each photo is a group of its own.
        places: (N,) ids of places, None where a photo stands alone; left out where the unit is a photo.
        headings: (N,) degrees, NaN where unknown; beside the places.
        ids: (N,) strings of pyarrow, what the manifest calls the photos.
        boundaries: The folder of the administrative units, for the classes of further places.
        cells: The :class:`~geoloc_core.geo.geocells.Geocells` where the classes are cells.
    """

    images: dict[str, np.ndarray]
    texts: dict[tuple[str, str], Sentences]
    answers: dict[str, Answered]
    space: LabelSpace
    targets: np.ndarray
    training: np.ndarray
    validation: np.ndarray
    latitudes: np.ndarray
    longitudes: np.ndarray
    groups: np.ndarray | None = None
    places: np.ndarray | None = None
    headings: np.ndarray | None = None
    photos: Stored | None = None
    pieces: dict[str, Pieces] = field(default_factory=dict)
    towers: dict[str, Tower] = field(default_factory=dict)
    facts: dict[str, np.ndarray] = field(default_factory=dict)
    text_towers: dict[str, TextTower] = field(default_factory=dict)
    models: dict[str, Any] = field(default_factory=dict)
    ids: Any = None
    boundaries: Path | None = None
    cells: Any = None

    def groups_of(self, rows: np.ndarray) -> np.ndarray:
        """The group (n,) of each of some rows."""
        return rows if self.groups is None else self.groups[rows]

    def located(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows for training, and those for validation, of which the coordinates are known.

        Raises:
            UserError: There are none for either.
        """
        known = np.isfinite(self.latitudes) & np.isfinite(self.longitudes)
        found = self.training[known[self.training]], self.validation[known[self.validation]]
        for rows, what in zip(found, ("training", "validation"), strict=True):
            if not len(rows):
                raise UserError(
                    f"none of the {what} photos has coordinates; this family needs some: choose another corpus"
                )
        return found

    def units(self, rows: np.ndarray) -> Units:
        """Some rows, ascending, as units; the class of a place is that of any of its rows."""
        if self.places is None or self.headings is None:
            return Units.of_photos(rows)
        return Units.of_places(rows, self.places[rows], self.headings[rows])

    def batch(self, units: Units) -> Batch:
        """The inputs of some units, as a model would be asked with them; all variants have answered their first rows.

        Raises:
            UserError: A shard of photos is missing or damaged.
        """
        of_units = {
            name: found.prediction.rows(np.searchsorted(found.rows, units.first))
            for name, found in self.answers.items()
        }
        return Batch(
            images={name: values[units.rows] for name, values in self.images.items()},
            answers=of_units,
            photos=None if self.photos is None else self.photos.take(units.rows).read(),
            pieces={name: pieces.of(units.rows).read() for name, pieces in self.pieces.items()},
            starts=None if self.places is None else units.starts,
            groups=None if self.groups is None else self.groups[units.first],
        )


@dataclass(frozen=True)
class Run:
    """What goes with a training.

    Attributes:
        seed: Of all that is random.
        checkpoint: The file that survives a kill.
        depends: All that the training depends on, as plain values: another one never resumes from the checkpoint.
        log: Called with the metrics and the number of each epoch.
        root: The project's folder, from which parameters name files.
    """

    seed: int
    checkpoint: Path
    depends: Any
    log: Callable[[Metrics, int], None]
    root: Path = Path()


@dataclass(frozen=True)
class Fitted:
    """A trained model and how it came about.

    Attributes:
        model: A :class:`~geoloc_core.contracts.geolocator.Geolocator`.
        history: Metrics of every epoch; empty where there are none.
        best: Number of the epoch that was kept.
        figures: What else is worth telling, for the stage's summary; see :func:`counted`.
    """

    model: Any
    history: list[Metrics] = field(default_factory=list)
    best: int = 0
    figures: dict[str, Any] = field(default_factory=dict)


def counted(trained: int, others: Iterable[int | None] = ()) -> dict[str, int]:
    """The parameters of a model as every family's figures have them.

    Args:
        trained: How many were trained.
        others: How many each part has that was trained before; where one is not known, neither is their sum.
    """
    known = list(others)
    total = {} if None in known else {"parameters": trained + sum(filter(None, known))}
    return {"trainable_parameters": trained, **total}
