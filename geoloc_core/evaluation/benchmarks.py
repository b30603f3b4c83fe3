"""The rows that are scored: which they are, what is true of them, how many were published."""

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from geoloc_core.errors import UserError
from geoloc_core.evaluation import truth
from geoloc_core.evaluation.scoring import VALIDATION, Countries, Truth, unit_column
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.project import Project


@dataclass(frozen=True)
class Benchmark:
    """N rows of a corpus with what is true of them.

    Attributes:
        name: The name in the tables.
        corpus: The corpus they come from.
        rows: (N,) positions in the corpus' manifest, ascending.
        published: How many rows the corpus was published with: kept and refused ones.
        image_ids: (N,) strings.
        units: (N,) true class ids, null where the labels have none.
        truth: The same in the model's terms.
    """

    name: str
    corpus: str
    rows: np.ndarray
    published: int
    image_ids: pa.ChunkedArray
    units: pa.ChunkedArray
    truth: Truth

    def __len__(self) -> int:
        return len(self.rows)

    def without(self, missing: np.ndarray) -> "Benchmark":
        """The same but for some rows of the corpus, which nothing can be answered about: they are not scored."""
        kept = ~np.isin(self.rows, missing)
        if kept.all():
            return self
        if not kept.any():
            raise UserError(f"{self.name}: none of its photos could be read; run geoloc ingest {self.corpus} again")
        return replace(
            self,
            rows=self.rows[kept],
            image_ids=self.image_ids.filter(pa.array(kept)),
            units=self.units.filter(pa.array(kept)),
            truth=self.truth.rows(kept),
        )

    def sha256(self) -> str:
        """What the scores stand on: the same photos at the same places, whatever the label space."""
        total = hashlib.sha256()
        for name in self.image_ids:
            total.update(f"{name}\0".encode())
        for degrees in (self.truth.latitudes, self.truth.longitudes):
            total.update(degrees.astype("<f8").tobytes())
        return total.hexdigest()


def read(project: Project, name: str, corpus: str, labelspace: LabelSpace) -> Benchmark:
    """The rows of a benchmark: a whole corpus, or the validation split of a training corpus.

    A row without coordinates cannot be scored and is left out; a row without unit is scored and missed.

    Raises:
        UserError: What is true of the corpus has not been written, or no row is left.
    """
    column = unit_column(labelspace.kind)
    known = truth.read(project, corpus, list(dict.fromkeys([*truth.COLUMNS["manifest"], "gid_0", column, "split"])))
    latitudes, longitudes = (known[key].to_numpy() for key in ("latitude", "longitude"))
    wanted = np.isfinite(latitudes) & np.isfinite(longitudes)
    if name == VALIDATION:
        wanted &= known["split"].to_numpy() == VALIDATION
    rows = np.flatnonzero(wanted)
    if not len(rows):
        raise UserError(f"{project.corpus(corpus)}: no row to score in {name}; expected photos with coordinates")
    known = known.take(rows)
    return Benchmark(
        name=name,
        corpus=corpus,
        rows=rows,
        published=int(known.schema.metadata[truth.PUBLISHED]),
        image_ids=known["image_id"],
        units=known[column],
        truth=Truth(
            latitudes=latitudes[rows],
            longitudes=longitudes[rows],
            classes=labelspace.index(known[column].to_pandas()),
            countries=Countries.of(labelspace).index(known["gid_0"].to_pandas()),
        ),
    )


def train_classes(project: Project, corpus: str, labelspace: LabelSpace) -> np.ndarray:
    """Classes (M,) of the training rows of a corpus; −1 where a row has none."""
    column = unit_column(labelspace.kind)
    known = truth.read(project, corpus, [column, "split"])
    return labelspace.index(known[column].to_pandas()[known["split"].to_numpy() == "train"])
