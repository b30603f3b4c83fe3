"""The stage ``geoloc answer VARIANT``: a trained model answers its validation split and every benchmark."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from geoloc_core import files, parquet
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

NUMBERS = 2**24
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
            known = truth.read(project, corpus, COLUMNS, trained.card.needs.labels)
            counts[name] = _answer(project, trained, name, corpus, known, aside, variant)
            benchmarks[name] = Asked(corpus=corpus, published=int(known.schema.metadata[truth.PUBLISHED]))
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
        files.write_json(aside / answers.NOTE, note.model_dump(mode="json"))
    files.write_json(project.summary("answer", variant), {"photos": counts})
    say(f"answer {variant}: {', '.join(f'{name} {count:,}' for name, count in counts.items())}")


def _answer(project: Project, trained: Trained, name: str, corpus: str, known: Any, folder: Path, variant: str) -> int:
    """Answer one benchmark, batch by batch, and return how many of its rows have been."""
    found = inputs.readable(project, trained.card, name, corpus, len(known))
    rows = np.intersect1d(found.ready, _wanted(known, name, trained.labelspace, project.profile.variant(variant)))
    if not len(rows):
        raise UserError(
            f"{name}: none of its photos can be answered; run `geoloc ingest {corpus}` and `geoloc encode` again"
        )
    needs, space = trained.card.needs, trained.labelspace
    cells = inputs.cells(project, needs.labels, project.profile.variant(variant).corpus)
    units = inputs.units(known, rows, needs.unit)
    facts = inputs.facts(project, needs, corpus, len(known))
    size = min(PHOTOS if needs.photos or needs.segmenters else ROWS, max(1, NUMBERS // len(space)), _held(found, units))
    starts = range(0, len(units), size)
    with ExitStack() as stack:
        out = stack.enter_context(parquet.writer(folder / f"{name}.parquet", answers.ANSWERS))
        beside = answers.auxiliary_path(folder, name)
        told = stack.enter_context(parquet.writer(beside, answers.AUXILIARY)) if facts else None
        for start in track(starts, f"answer {variant}/{name}", len(starts), "batches"):
            part = units.take(np.arange(start, min(start + size, len(units))))
            first = part.first
            table = known.take(first)
            ids = class_ids(table.drop_columns(NO_CLASS).to_pandas(), needs.labels, cells)
            batch = replace(found.of(part), groups=hashed(table["group_id"]))
            prediction = trained.model.predict(batch, project.profile.evaluation.candidates, space.index(ids))
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
            out.write_table(answers.table(prediction, space, first, true))
            if told:
                of_these = {fact: values[first] for fact, values in facts.items()}
                told.write_table(answers.auxiliary_table(prediction, first, of_these))
    return len(units)


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
