"""The stage ``geoloc answer VARIANT``: a trained model answers its validation split and every benchmark."""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from geoloc_core import engines, files, parquet
from geoloc_core.contracts.batch import Units
from geoloc_core.contracts.density import HasDensity
from geoloc_core.contracts.geolocator import LABELS, Trained, load
from geoloc_core.contracts.groups import hashed
from geoloc_core.contracts.truth import class_ids
from geoloc_core.corpora import truth
from geoloc_core.errors import UserError
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.progress import say, track
from geoloc_core.project import Project
from geoloc_core.sets import Split, splits_of
from geoloc_core.variants import answers, inputs
from geoloc_core.variants.answers import Asked, Note

if TYPE_CHECKING:
    from geoloc_core.geo.geocells import Geocells

BLOCK = 2**24
"""Probabilities that are worked on at a time, at most."""
ROWS = 8192
"""Rows answered at a time, at most."""
BYTES = 2**28
"""Of features that are read at a time, at most."""
PHOTOS = 256
"""Rows answered at a time where the model looks at the photos themselves, at most."""
COLUMNS = ["image_id", "latitude", "longitude", "gid_0", "gid_1", "split", "place_id", "heading", "group_id"]
NO_CLASS = ["image_id", "split", "place_id", "heading", "group_id"]
"""Those of them that say nothing of the class of a row."""
Answers = tuple[pa.Table, pa.Table | None]
"""Of a batch :data:`~geoloc_core.variants.answers.ANSWERS`, and what else is told, if anything is."""


def answer(project: Project, variant: str) -> None:
    """Answer everything that a variant is scored on.

    Raises:
        UserError: The variant, its model or an input is missing or does not fit.
    """
    block = project.profile.variant(variant)
    files.check_folder(project.answers(variant), "answers")
    trained = load(project.model(variant))
    held_out = splits_of("train", project.profile.labels.test_share_of(block.corpus))[1:]
    asked = {split.value: block.corpus for split in held_out}
    asked |= {name: name for name in project.profile.scored_on(variant)}
    benchmarks, counts = {}, {}
    with files.replacing_folder(project.answers(variant), "answers") as aside:
        aside.mkdir()
        for name, corpus in asked.items():
            question = Question.open(project, variant, trained, name, corpus)
            counts[name] = _answer(question, aside)
            benchmarks[name] = Asked(corpus=corpus, published=int(question.known.schema.metadata[truth.PUBLISHED]))
        trained.labelspace.save(aside / LABELS)
        note = Note(
            variant=variant,
            family=trained.card.family,
            encoders=inputs.looks_with(project, trained.card.needs),
            members=trained.card.needs.members,
            corpus=block.corpus,
            labels=trained.card.needs.labels,
            frequencies=_frequencies(project, trained, block.corpus),
            benchmarks=benchmarks,
            demo=project.profile.demo,
            trained_on=project.profile.learned_from(variant),
            parameters=trained.card.parameters,
        )
        files.write_json(aside / answers.NOTE, note)
    files.write_json(project.summary("answer", variant), {"photos": counts})
    say(f"answer {variant}: {', '.join(f'{name} {count:,}' for name, count in counts.items())}")


def _answer(question: "Question", folder: Path) -> int:
    """Answer one benchmark, batch by batch, and return how many of its units have been."""
    name, what = question.name, f"answer {question.variant}/{question.name}"
    job = engines.Job(question.project, question.answer, question.reopened)
    starts = range(0, len(question.units), question.size)
    with ExitStack() as stack:
        out = stack.enter_context(parquet.writer(folder / f"{name}.parquet", answers.ANSWERS))
        beside = answers.auxiliary_path(folder, name)
        told = stack.enter_context(parquet.writer(beside, answers.AUXILIARY)) if question.facts else None
        for table, auxiliary in track(job.results(starts), what, len(starts), "batches"):
            out.write_table(table)
            if told:
                told.write_table(auxiliary)
    return len(question.units)


@dataclass(frozen=True)
class Question:
    """A benchmark, as a trained variant is asked about it.

    Attributes:
        project: The project.
        variant: Name of the variant.
        trained: Its model.
        name: Of the benchmark.
        corpus: Whose photos it has.
        known: What is true of the N photos of its corpus, :data:`COLUMNS` and the classes.
        found: What the model reads of them.
        units: The U units that can be answered.
        facts: By name, (N,) of what else is true of them; empty where the model tells of nothing else.
        cells: Those that the classes are; None where these are administrative units.
        size: Units that are answered at a time.
    """

    project: Project
    variant: str
    trained: Trained
    name: str
    corpus: str
    known: pa.Table
    found: inputs.Readable
    units: Units
    facts: dict[str, np.ndarray]
    cells: "Geocells | None"
    size: int

    @classmethod
    def open(cls, project: Project, variant: str, trained: Trained, name: str, corpus: str) -> "Question":
        """Open what a model reads of a benchmark.

        Raises:
            UserError: Something is missing or does not fit, or none of the photos can be answered.
        """
        block = project.profile.variant(variant)
        known = truth.read(project, corpus, COLUMNS, trained.card.needs.labels)
        found = inputs.readable(project, trained.card, name, corpus, len(known))
        rows = np.intersect1d(found.ready, _wanted(known, name, trained.labelspace, block))
        if not len(rows):
            raise UserError(
                f"{name}: none of its photos can be answered; run `geoloc ingest {corpus}` and `geoloc encode` again"
            )
        needs, space = trained.card.needs, trained.labelspace
        units = inputs.units(known, rows, needs.unit)
        most = PHOTOS if needs.photos or needs.segmenters else ROWS
        size = min(most, max(1, BLOCK // len(space)), _held(found, units))
        facts = inputs.facts(project, needs, corpus, len(known))
        cells = inputs.cells(project, needs.labels, block.corpus)
        return cls(project, variant, trained, name, corpus, known, found, units, facts, cells, size)

    @property
    def reopened(self) -> Callable[[], engines.Work[int, Answers]]:
        """Opens it in another process, to answer batches there."""
        return functools.partial(_reopened, self.project, self.variant, self.name, self.corpus, self.size)

    def answer(self, starts: Sequence[int]) -> Iterator[Answers]:
        """Answer the batches that begin with some units."""
        trained, space = self.trained, self.trained.labelspace
        for start in starts:
            part = self.units.take(np.arange(start, min(start + self.size, len(self.units))))
            first = part.first
            table = self.known.take(first)
            ids = class_ids(table.drop_columns(NO_CLASS).to_pandas(), trained.card.needs.labels, self.cells)
            batch = replace(self.found.of(part), groups=hashed(table["group_id"]))
            candidates = self.project.profile.evaluation.candidates
            prediction = trained.model.predict(batch, candidates, space.index(ids))
            if isinstance(trained.model, HasDensity):
                places = (table[axis].to_numpy() for axis in ("latitude", "longitude"))
                prediction = replace(prediction, log_density=trained.model.log_density(batch, *places))
            true = {
                "image_id": table["image_id"],
                "group_id": table["group_id"],
                "true_latitude": table["latitude"],
                "true_longitude": table["longitude"],
                "true_class": list(ids),
                "true_country": table["gid_0"],
                "true_subdivision": table["gid_1"],
            }
            of_these = {fact: values[first] for fact, values in self.facts.items()}
            told = answers.auxiliary_table(prediction, first, of_these) if of_these else None
            yield answers.table(prediction, space, first, true), told


def _reopened(project: Project, variant: str, name: str, corpus: str, size: int) -> engines.Work[int, Answers]:
    """Work on batches in another process."""
    question = Question.open(project, variant, load(project.model(variant)), name, corpus)
    return replace(question, size=size).answer


def _held(found: inputs.Readable, units: Units) -> int:
    """Units whose features may be read at a time: tokens of the views of a place are many."""
    views = -(-len(units.rows) // len(units))
    bytes_each = views * sum(values.nbytes // max(1, len(values)) for values in found.images.values())
    return max(1, BYTES // max(1, bytes_each))


def _wanted(known: Any, name: str, space: LabelSpace, block: Any) -> np.ndarray:
    """Rows of a benchmark of which something is known: where they are, or in which country.

    Of its own corpus, a model that was made for some countries alone is asked about those.
    """
    latitudes, longitudes = (known[key].to_numpy() for key in ("latitude", "longitude"))
    placed = np.isfinite(latitudes) & np.isfinite(longitudes)
    named = np.array([country is not None for country in known["gid_0"].to_pylist()], bool)
    wanted = placed | named
    if name in list(Split):
        wanted &= np.array(known["split"].to_pylist()) == name
        if block.countries is not None:
            wanted &= np.isin(np.array(known["gid_0"].to_pylist(), dtype=object).astype(str), space.countries)
    return np.flatnonzero(wanted)


def _frequencies(project: Project, trained: Trained, corpus: str) -> list[int]:
    """Training rows of each class."""
    known = truth.read(project, corpus, COLUMNS, trained.card.needs.labels).to_pandas()
    known = known[known["split"] == Split.TRAIN]
    cells = inputs.cells(project, trained.card.needs.labels, corpus)
    found = trained.labelspace.index(class_ids(known, trained.card.needs.labels, cells))
    counts: list[int] = np.bincount(found[found >= 0], minlength=len(trained.labelspace)).tolist()
    return counts
