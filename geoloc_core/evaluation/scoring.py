"""From predictions and truth to scores: what happened to every row, then the figures."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from geoloc_core.errors import UserError
from geoloc_core.evaluation import metrics
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.models.prediction import Prediction

if TYPE_CHECKING:
    import pandas as pd

VALIDATION = "validation"
"""Name of the held-out rows of a training corpus, both as a split and as a benchmark."""

UNIT_OF = {"country": "gid_0", "subdivision": "gid_1"}
"""Which column of the labels holds the true class, by kind of label space."""


def unit_column(kind: str) -> str:
    """The column of the labels that holds the true class.

    Raises:
        UserError: Classes of this kind have no truth in the labels.
    """
    if kind not in UNIT_OF:
        raise UserError(f"label space {kind!r}: no true classes; expected one of: {', '.join(UNIT_OF)}")
    return UNIT_OF[kind]


@dataclass(frozen=True)
class Countries:
    """The country of every class, as numbers: a subdivision may be wrong and its country right.

    Attributes:
        ids: The countries of a label space.
        of_class: (C,) position in ``ids`` of each class' country.
    """

    ids: "pd.Index[Any]"
    of_class: np.ndarray

    @classmethod
    def of(cls, labelspace: LabelSpace) -> "Countries":
        """The countries of a label space: its classes, or their parents."""
        import pandas as pd

        names = labelspace.ids if labelspace.kind == "country" else labelspace.parents
        codes, ids = pd.factorize(np.asarray(names, dtype=object))
        return cls(pd.Index(ids), codes.astype(np.int64))

    def index(self, ids: Any) -> np.ndarray:
        """Positions (N,) of N country ids; −1 where null or not a country of the label space."""
        import pandas as pd

        return self.ids.get_indexer(pd.Index(ids)).astype(np.int64)


@dataclass(frozen=True)
class Truth:
    """What is known about N rows.

    Attributes:
        latitudes: (N,) degrees.
        longitudes: (N,) degrees.
        classes: (N,) positions in the label space; −1 where the model does not know the class.
        countries: (N,) positions in :class:`Countries`; −1 where unknown.
    """

    latitudes: np.ndarray
    longitudes: np.ndarray
    classes: np.ndarray
    countries: np.ndarray

    def __len__(self) -> int:
        return len(self.classes)

    def rows(self, where: slice | np.ndarray) -> "Truth":
        """Some of the rows."""
        return Truth(**{field.name: getattr(self, field.name)[where] for field in fields(self)})


@dataclass(frozen=True)
class Outcomes:
    """What became of N rows: all that the scores need, some 13 bytes a row.

    Attributes:
        ranks: (N,) where the truth stands among the k answers; k or more where it does not.
        countries: (N,) whether the country of the first answer is right.
        errors_km: (N,) distance between answer and truth.
    """

    ranks: np.ndarray
    countries: np.ndarray
    errors_km: np.ndarray

    def __len__(self) -> int:
        return len(self.ranks)

    @classmethod
    def join(cls, parts: Sequence["Outcomes"]) -> "Outcomes":
        """One after the other."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


def outcomes(
    prediction: Prediction,
    truth: Truth,
    countries: Countries,
    convention: metrics.Convention = metrics.DEFAULT,
) -> Outcomes:
    """Compare the answers to N rows with the truth."""
    answered = countries.of_class[prediction.classes[:, 0]]
    return Outcomes(
        ranks=metrics.truth_ranks(prediction.classes, truth.classes),
        countries=(answered == truth.countries) & (truth.countries >= 0),
        errors_km=convention.errors_km(prediction.latitude, prediction.longitude, truth.latitudes, truth.longitudes),
    )


def top_name(k: int) -> str:
    """The name of the top-k score."""
    return "accuracy" if k == 1 else f"top_{k}"


def within_name(km: float) -> str:
    """The name of the share within so many kilometres."""
    return f"within_{km:g}km"


def score(
    found: Outcomes,
    k: int,
    ks: Sequence[int],
    thresholds_km: Sequence[float],
    convention: metrics.Convention = metrics.DEFAULT,
) -> dict[str, float]:
    """The figures of a table's row.

    Args:
        found: What became of the N rows, N > 0.
        k: How many answers each row got.
        ks: The k of top-k.
        thresholds_km: The km of "% @ km".
        convention: What counts as within.
    """
    tops = {top_name(n): metrics.percent(found.ranks < min(n, k)) for n in sorted({1, *ks})}
    within = metrics.within_km(found.errors_km, thresholds_km, convention)
    return {
        **tops,
        "country_accuracy": metrics.percent(found.countries),
        **{within_name(km): share for km, share in within.items()},
        "mean_km": float(np.mean(found.errors_km)),
        "median_km": float(np.median(found.errors_km)),
        "geoguessr": float(np.mean(metrics.geoguessr_score(found.errors_km, convention))),
    }


def rounded(name: str, value: float) -> float | int:
    """A score as people read it: counts whole, percent to two decimals, kilometres and points to one."""
    if name in ("n", "published"):
        return int(value)
    return round(value, 1 if name.endswith(("mean_km", "median_km", "geoguessr")) else 2)


def lower_is_better(name: str) -> bool:
    """Whether a smaller score wins: errors do, shares and points do not."""
    return name.endswith(("mean_km", "median_km"))
