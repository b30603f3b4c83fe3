"""Where the inputs of a variant are: what its stages depend on, and what they load."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from geoloc_core.contracts.batch import Answered, Batch, Sentences, Units
from geoloc_core.contracts.geolocator import LABELS, Card
from geoloc_core.encoders import store
from geoloc_core.errors import UserError
from geoloc_core.files import digest
from geoloc_core.variants import answers

if TYPE_CHECKING:
    from geoloc_core.geo.geocells import Geocells
    from geoloc_core.project import Project


def read_by_training(project: "Project", block: Any) -> list[Path]:
    """What ``geoloc train`` reads beside labels, units and the verdict on leaks."""
    needs = block.needs()
    return [
        *(project.features(encoder, block.corpus) for encoder in needs.encoders),
        *(project.text_features(encoder, texts) for encoder, texts in needs.texts),
        *(project.answers(member) for member in needs.members),
        *_cells(project, needs.labels, block.corpus),
    ]


def read_by_answering(project: "Project", block: Any) -> list[Path]:
    """What ``geoloc answer`` reads beside the model and the truth; of an encoder, the features of all corpora."""
    needs = block.needs()
    return [
        *(project.features(encoder, block.corpus).parent for encoder in needs.encoders),
        *(project.answers(member) for member in needs.members),
        *_cells(project, needs.labels, block.corpus),
    ]


def _cells(project: "Project", labels: str, corpus: str) -> list[Path]:
    return [project.cells(labels, corpus)] if labels in project.profile.cells else []


def cells(project: "Project", labels: str, corpus: str) -> "Geocells | None":
    """The cells of a label space; None where it is one of administrative units.

    Raises:
        UserError: They have not been made.
    """
    from geoloc_core.geo import geocells

    if labels not in project.profile.cells:
        return None
    folder = project.cells(labels, corpus)
    if not folder.is_dir():
        raise UserError(f"{folder}: no cells; run `geoloc fit-cells {labels} {corpus}` first")
    return geocells.load(folder, project.boundaries)


def images(project: "Project", encoders: list[str], corpus: str, rows: int) -> dict[str, np.ndarray]:
    """Features (N, D) of a corpus by encoder, memory-mapped.

    Raises:
        UserError: They have not been made, or are not of these rows.
    """
    found = {name: store.read(project.features(name, corpus)) for name in encoders}
    for name, features in found.items():
        if len(features) != rows:
            folder = project.features(name, corpus)
            raise UserError(f"{folder}: {len(features):,} rows, the corpus has {rows:,}; {store.remedy(folder)} again")
    return found


def places(known: pa.Table) -> dict[str, np.ndarray]:
    """``places`` and ``headings`` (N,) of all rows of a corpus, for :class:`~geoloc_core.contracts.batch.Data`.

    Args:
        known: Columns ``place_id`` and ``heading``.
    """
    ids = np.array(known["place_id"].to_pylist(), dtype=object)
    return {"places": ids, "headings": known["heading"].to_numpy().astype(np.float64)}


def units(known: pa.Table, rows: np.ndarray, unit: str) -> Units:
    """Some rows of a corpus as units to be answered.

    Args:
        known: Columns ``place_id`` and ``heading`` of all its rows.
        rows: Ascending.
        unit: ``photo`` or ``place``.
    """
    return Units.of_photos(rows) if unit == "photo" else Units.of_places(rows, *places(known.take(rows)).values())


def missing(project: "Project", encoders: list[str], corpus: str) -> np.ndarray:
    """Rows of a corpus whose photo one of the encoders could not read."""
    return store.missing(project.features(encoder, corpus) for encoder in encoders)


def fingerprints(project: "Project", encoders: list[str], corpus: str) -> dict[str, str]:
    """What made the features of a corpus, by encoder."""
    return {name: store.note(project.features(name, corpus))["fingerprint"] for name in encoders}


def classes_of(project: "Project", members: list[str]) -> dict[str, str]:
    """A digest of the classes that other variants answer with, by variant.

    Raises:
        UserError: One has not answered yet.
    """
    for name in members:
        answers.space(project, name)  # it has answered, and they are whole
    return {name: digest(project.answers(name) / LABELS) for name in members}


def sentences(project: "Project", encoder: str, texts: str) -> Sentences:
    """Sentences with their features.

    Raises:
        UserError: They have not been made, or do not fit each other.
    """
    from geoloc_core.encoders.text.sentences import read

    features = store.read(project.text_features(encoder, texts))
    table = read(project, texts)
    if len(table) != len(features):
        again = store.remedy(project.text_features(encoder, texts))
        raise UserError(f"{project.texts(texts)}: {len(table):,} sentences, {len(features):,} have features; {again}")
    countries = [tuple(named) for named in table["countries"].to_pylist()]
    return Sentences(table["id"].to_pylist(), table["text"].to_pylist(), countries, np.asarray(features, np.float32))


def answered(project: "Project", member: str) -> Answered:
    """What another variant answers to the validation rows of its corpus.

    Raises:
        UserError: It has not answered yet.
    """
    space = answers.space(project, member)
    rows, prediction = answers.read(project, member, answers.VALIDATION, space)
    return Answered(space, rows, prediction)


def batch(project: "Project", card: Card, name: str, corpus: str, rows: int) -> tuple[Batch, np.ndarray]:
    """What a trained model reads of a corpus, and the rows (M,) that have all of it.

    Args:
        project: The project.
        card: Of the model.
        name: Of the benchmark.
        corpus: Whose photos it has.
        rows: N, of the corpus.

    Returns:
        Inputs of all N rows where they are features, of the M rows where they are answers.

    Raises:
        UserError: An input has not been made, or not by what the model was trained on.
    """
    needs = card.needs
    found = images(project, needs.encoders, corpus, rows)
    for encoder, fingerprint in fingerprints(project, needs.encoders, corpus).items():
        if fingerprint != card.fingerprints[encoder]:
            folder = project.features(encoder, corpus)
            raise UserError(
                f"{folder}: made by another encoder than the model learned from; {store.remedy(folder)}, then train"
            )
    known = np.setdiff1d(np.arange(rows), missing(project, needs.encoders, corpus))
    for member, classes in classes_of(project, needs.members).items():
        if classes != card.members.get(member):
            raise UserError(f"{project.answers(member)}: of other classes than the model learned from; train it again")
    given = {member: answers.read(project, member, name, answers.space(project, member)) for member in needs.members}
    for member_rows, _ in given.values():
        known = np.intersect1d(known, member_rows)
    return Batch(found, {m: p.rows(np.searchsorted(r, known)) for m, (r, p) in given.items()}), known
