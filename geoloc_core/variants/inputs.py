"""Where the inputs of a variant are: what its stages depend on, and what they load."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from geoloc_core.contracts.batch import Answered, Batch, Pieces, Sentences, TextTower, Tower, Units
from geoloc_core.contracts.geolocator import LABELS, Card, Trained, load
from geoloc_core.contracts.needs import MOST, Needs
from geoloc_core.contracts.prediction import Prediction
from geoloc_core.corpora import facts as known_facts
from geoloc_core.corpora import manifest
from geoloc_core.corpora.stored import Stored
from geoloc_core.encoders import instances, store
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
        *(project.features(encoder, block.corpus) for encoder in needs.encoded),
        *(project.text_features(encoder, texts) for encoder, texts in needs.texts),
        *([project.corpus(block.corpus)] if needs.photos else []),
        *(project.weights(encoder) for encoder in (*needs.towers, *needs.text_towers)),
        *([project.facts(block.corpus)] if needs.facts else []),
        *(project.model(variant) for variant in needs.models),
        *(project.answers(member) for member in needs.members),
        *_cells(project, needs.labels, block.corpus),
    ]


def read_by_answering(project: "Project", block: Any, benchmarks: list[str]) -> list[Path]:
    """What ``geoloc answer`` reads beside the model and the truth; of an encoder, the features of all corpora."""
    needs = block.needs()
    return [
        *(project.features(encoder, block.corpus).parent for encoder in needs.encoded),
        *(_photos(project, [block.corpus, *benchmarks]) if needs.photos else []),
        *([project.facts(block.corpus).parent] if needs.facts else []),
        *(project.answers(member) for member in needs.members),
        *_cells(project, needs.labels, block.corpus),
    ]


def _photos(project: "Project", corpora: list[str]) -> list[Path]:
    """The photos of some corpora; the folder of all where they are many, since a stage reads few things."""
    folders = [project.corpus(corpus) for corpus in dict.fromkeys(corpora)]
    return folders if len(folders) <= MOST // 2 else [folders[0].parent]


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


def photos(project: "Project", corpus: str, rows: int) -> Stored:
    """The photos of a corpus.

    Raises:
        UserError: It has not been ingested, or is not the one whose truth is known.
    """
    found = Stored.photos(project.corpus(corpus))
    if len(found) != rows:
        raise UserError(
            f"{project.corpus(corpus)}: {len(found):,} photos, but the truth is of {rows:,}; "
            f"run `geoloc truth {corpus}` again"
        )
    return found


def pieces(project: "Project", segmenter: str, corpus: str) -> Pieces:
    """What a segmenter cut from the photos of a corpus, row by row of its manifest.

    Raises:
        UserError: They have not been made, or are of other photos.
    """
    folder = project.features(segmenter, corpus)
    table = instances.read(folder)
    ids = manifest.read_manifest(project.corpus(corpus), ["image_id"])["image_id"].to_pandas()
    at = pd.Index(ids).get_indexer(table["image_id"].to_pandas())
    if (at < 0).any() or (np.diff(at) < 0).any():
        raise UserError(f"{folder}: not cut from the photos of {corpus} as they are; {store.remedy(folder)} again")
    starts = np.concatenate([[0], np.cumsum(np.bincount(at, minlength=len(ids)))])
    classes, groups = (np.array(table[name].to_pylist(), dtype=object) for name in ("class", "group"))
    return Pieces(starts, classes, groups, table["score"].to_numpy(), table["area"].to_numpy(), Stored.all_of(folder))


def towers(project: "Project", encoders: list[str]) -> dict[str, Tower]:
    """The weights that networks start from, by encoder.

    Raises:
        UserError: They have not been made.
    """
    _check_weights(project, encoders)
    return {name: Tower(project.profile.encoders[name], project.weights(name)) for name in encoders}


def text_towers(project: "Project", encoders: list[str]) -> dict[str, TextTower]:
    """What embeds sentences, by encoder, and which countries its pre-training held out.

    Raises:
        UserError: Their weights have not been made.
    """
    _check_weights(project, encoders)
    profile = project.profile
    trained = profile.pretrain | profile.pretrain_from
    unseen = {name: tuple(getattr(trained.get(name), "hold_out", ())) for name in encoders}
    return {name: TextTower(profile.text_encoders[name], project.weights(name), unseen[name]) for name in encoders}


def _check_weights(project: "Project", encoders: list[str]) -> None:
    for name in encoders:
        if not project.weights(name).is_dir():
            raise UserError(f"{project.weights(name)}: no weights; run `{project.maker(project.weights(name))}` first")


def facts(project: "Project", needs: Needs, corpus: str, rows: int) -> dict[str, np.ndarray]:
    """What is known of the places of a corpus (N,), by fact that a variant learns.

    Raises:
        UserError: It has not been gathered, or is of another manifest.
    """
    return known_facts.read(project, corpus, needs.facts, rows) if needs.facts else {}


def models(project: "Project", variants: list[str], corpus: str) -> dict[str, Trained]:
    """Trained models, by variant.

    Raises:
        UserError: One has not been trained, or not on the features that the corpus has now.
    """
    found = {name: load(project.model(name)) for name in variants}
    for name, trained in found.items():
        for encoder, fingerprint in fingerprints(project, trained.card.needs.encoded, corpus).items():
            if fingerprint != trained.card.fingerprints[encoder]:
                raise UserError(
                    f"{project.model(name)}: trained on other features of {encoder} than {corpus} has; "
                    f"run `geoloc train {name}` again"
                )
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
    """Rows of a corpus whose photo one of the encoders or segmenters could not read."""
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
    return Answered(space, rows, prediction, answers.note(project, member).parameters)


def looks_with(project: "Project", needs: Needs) -> list[str]:
    """Names of the encoders that a variant looks at photos with: its networks' own, those of features, segmenters.

    Those of the variants that are a part of it count too.
    """
    of_parts = (name for part in needs.models for name in looks_with(project, project.profile.variant(part).needs()))
    return list(dict.fromkeys([*needs.towers, *of_parts, *needs.encoded]))


@dataclass(frozen=True)
class Readable:
    """What a trained model reads of a corpus, opened and not yet read.

    Attributes:
        needs: Of the model.
        images: Features (N, D) by encoder, memory-mapped.
        answers: By variant, what it answers to the rows ``ready``.
        photos: The N photos; None where the model does not look at them.
        pieces: Pieces of the N photos, by segmenter.
        ready: (M,) rows that have all inputs, ascending.
    """

    needs: Needs
    images: dict[str, np.ndarray]
    answers: dict[str, Prediction]
    photos: Stored | None
    pieces: dict[str, Pieces]
    ready: np.ndarray

    def of(self, units: Units) -> Batch:
        """The inputs of some units; other variants' answers are to the first photo of each."""
        at = np.searchsorted(self.ready, units.first)
        return Batch(
            images={encoder: values[units.rows] for encoder, values in self.images.items()},
            answers={member: values.rows(at) for member, values in self.answers.items()},
            photos=None if self.photos is None else self.photos.take(units.rows).read(),
            pieces={name: pieces.of(units.rows).read() for name, pieces in self.pieces.items()},
            starts=None if self.needs.unit == "photo" else units.starts,
        )


def readable(project: "Project", card: Card, name: str, corpus: str, rows: int) -> Readable:
    """What a trained model reads of a corpus.

    Args:
        project: The project.
        card: Of the model.
        name: Of the benchmark.
        corpus: Whose photos it has.
        rows: N, of the corpus.

    Raises:
        UserError: An input has not been made, or not by what the model was trained on.
    """
    needs = card.needs
    for encoder, fingerprint in fingerprints(project, needs.encoded, corpus).items():
        if fingerprint != card.fingerprints[encoder]:
            folder = project.features(encoder, corpus)
            raise UserError(
                f"{folder}: made by another encoder than the model learned from; {store.remedy(folder)}, then train"
            )
    ready = np.setdiff1d(np.arange(rows), missing(project, needs.encoded, corpus))
    for member, classes in classes_of(project, needs.members).items():
        if classes != card.members.get(member):
            raise UserError(f"{project.answers(member)}: of other classes than the model learned from; train it again")
    given = {member: answers.read(project, member, name, answers.space(project, member)) for member in needs.members}
    for member_rows, _ in given.values():
        ready = np.intersect1d(ready, member_rows)
    return Readable(
        needs,
        images(project, needs.encoders, corpus, rows),
        {member: answer.rows(np.searchsorted(at, ready)) for member, (at, answer) in given.items()},
        photos(project, corpus, rows) if needs.photos else None,
        {segmenter: pieces(project, segmenter, corpus) for segmenter in needs.segmenters},
        ready,
    )
