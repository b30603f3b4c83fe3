"""The stage ``geoloc train VARIANT``: from what a variant needs to a trained model, whatever its family."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from geoloc_core.contracts.batch import Data, Fitted, Metrics, Run
from geoloc_core.contracts.geolocator import FAMILIES, Card, Trained
from geoloc_core.contracts.groups import hashed
from geoloc_core.contracts.truth import UNITS, class_ids
from geoloc_core.corpora import truth
from geoloc_core.corpora.guard import guard
from geoloc_core.errors import UserError
from geoloc_core.files import CHECKSUMS, check_folder, digest, remove, replacing_folder, sha256_of, write_json
from geoloc_core.geo.labelspace import LabelSpace, from_photos, from_units
from geoloc_core.geo.units import read_units
from geoloc_core.plots import picture
from geoloc_core.plugins import module_of
from geoloc_core.progress import say
from geoloc_core.project import Project
from geoloc_core.registry import tracking
from geoloc_core.sets import Split
from geoloc_core.training import processes
from geoloc_core.variants import inputs

PACE = ("seconds_per_epoch", "photos_per_second")
"""Figures that differ from run to run: MLflow has them, this machine keeps them, and what DVC keeps has them not."""


def train(project: Project, variant: str) -> None:
    """Train one variant.

    Of several processes that ``torchrun`` started, the first does all but train a whole network, in which the others
    take part.

    Raises:
        UserError: There is no such variant, what it needs is not ready or does not fit together, or its training photos
            leak into what it is scored on.
    """
    block = project.profile.variant(variant)
    needs = block.needs()
    if needs.towers and (needs.photos or needs.segmenters):  # heads on cached features are trained by one process
        processes.join()
    elif not processes.is_first():
        return
    check_folder(project.model(variant), "model")
    guard(project, block.corpus)
    data = gather(project, block)
    say(
        f"train {variant}: {len(data.training):,} photos, {len(data.space)} classes ({needs.labels}), "
        f"{len(data.validation):,} for validation"
    )
    card = Card(
        family=block.kind,
        needs=needs,
        fingerprints=inputs.fingerprints(project, needs.encoded, block.corpus),
        members=inputs.classes_of(project, needs.members),
    )
    checkpoint = project.partial("train", variant) / "checkpoint.pt"
    depends = [
        block.model_dump(mode="json", exclude={"benchmarks"}),
        block.seed_or(project.profile.seed),
        _identity(project, block, card),
    ]
    fit = partial(module_of(FAMILIES, block.kind).fit, data, block)
    run = partial(Run, block.seed_or(project.profile.seed), checkpoint, depends, root=project.root)
    if not processes.is_first():
        fit(run(lambda metrics, epoch: None))
        return
    reads = [project.truth(block.corpus), *inputs.read_by_training(project, block)]
    with tracking.run(project, "train", variant, block.model_dump(), reads) as log:
        fitted: Fitted = fit(run(log))
        with replacing_folder(project.model(variant), "model") as aside:
            aside.mkdir()
            size = {"parameters": fitted.figures.get("parameters")}
            Trained(card.model_copy(update=size), fitted.model).save(aside)
        log.model(project.model(variant))
        pace = {name: fitted.figures[name] for name in PACE if fitted.figures.get(name)}
        log(pace, fitted.best)
        write_json(project.pace(variant), {"model": sha256_of(project.model(variant) / CHECKSUMS), **pace})
        if fitted.history:  # beside the curves, whose last point is not that of the epoch that is kept
            log({f"best/{name}": value for name, value in fitted.history[fitted.best].items()}, fitted.best)
        _summarise(project, variant, fitted, data)
    remove(checkpoint.parent)


def gather(project: Project, block: Any) -> Data:
    """All that a variant learns from.

    Raises:
        UserError: Something has not been made, or nothing is left to train or validate on.
    """
    needs = block.needs()
    columns = ["image_id", *UNITS.values(), "latitude", "longitude", "split", "group_id", "place_id", "heading"]
    table = truth.read(project, block.corpus, columns, needs.labels)
    known = table.drop_columns(["image_id"]).to_pandas()
    split = known["split"].to_numpy()
    cells = inputs.cells(project, needs.labels, block.corpus)
    ids = class_ids(known, needs.labels, cells)
    usable = np.ones(len(known), bool)
    usable[inputs.missing(project, needs.encoded, block.corpus)] = False
    usable &= _of_countries(known["gid_0"].to_numpy(dtype=object), split == Split.TRAIN, block.countries)
    located = np.array([name is not None for name in ids], bool)
    training = np.flatnonzero((split == Split.TRAIN) & located & usable)
    validation = np.flatnonzero((split == Split.VALIDATION) & located & usable)
    if not len(training) or not len(validation):
        raise UserError(f"{project.truth(block.corpus)}: no labelled rows to train and validate on")
    space = _space(project, needs.labels, ids, known, training) if cells is None else _used(cells.space, ids[training])
    return Data(
        images=inputs.images(project, needs.encoders, block.corpus, len(known)),
        texts={pair: inputs.sentences(project, *pair) for pair in needs.texts},
        answers={member: inputs.answered(project, member) for member in needs.members},
        photos=inputs.photos(project, block.corpus, len(known)) if needs.photos else None,
        pieces={segmenter: inputs.pieces(project, segmenter, block.corpus) for segmenter in needs.segmenters},
        towers=inputs.towers(project, needs.towers),
        text_towers=inputs.text_towers(project, needs.text_towers),
        facts=inputs.facts(project, needs, block.corpus, len(known)),
        models=inputs.models(project, needs.models, block.corpus),
        space=space,
        targets=space.index(ids),
        training=training,
        validation=validation,
        latitudes=known["latitude"].to_numpy(np.float64),
        longitudes=known["longitude"].to_numpy(np.float64),
        groups=hashed(table["group_id"]),
        ids=table["image_id"],
        boundaries=project.boundaries,
        cells=cells,
        **(inputs.places(table) if needs.unit == "place" else {}),
    )


def _of_countries(codes: np.ndarray, training: np.ndarray, wanted: tuple[str, ...] | int | None) -> np.ndarray:
    """Whether each row (N,) is of the countries that a variant learns; of equally frequent ones the first by code."""
    if wanted is None:
        return np.ones(len(codes), bool)
    named = np.array([str(code) for code in codes])
    if isinstance(wanted, int):
        known = np.array([code is not None and code == code for code in codes], bool)
        found, counts = np.unique(named[training & known], return_counts=True)
        return np.isin(named, found[np.argsort(-counts, kind="stable")[:wanted]])
    return np.isin(named, wanted)


def _space(project: Project, labels: str, ids: np.ndarray, known: Any, training: np.ndarray) -> LabelSpace:
    """The classes of the training rows: administrative units, or an attribute of the corpus."""
    if labels in UNITS:
        return from_units(labels, read_units(project.boundaries), ids[training])
    rows = known.iloc[training]
    latitudes, longitudes = (rows[axis].to_numpy(np.float64) for axis in ("latitude", "longitude"))
    return from_photos(labels, ids[training], latitudes, longitudes, rows["gid_0"].to_numpy(dtype=object))


def _used(space: LabelSpace, ids: np.ndarray) -> LabelSpace:
    """The classes of a label space that occur."""
    return space.take(np.unique(space.index(ids)))


def _identity(project: Project, block: Any, card: Card) -> list[Any]:
    """What a training depends on beside its options: what made its features, and the very files of the rest."""
    needs = block.needs()
    others = [project.answers(member) for member in needs.members]
    others += [project.text_features(*pair) for pair in needs.texts]
    others += [project.weights(encoder) for encoder in (*needs.towers, *needs.text_towers)]
    others += [project.model(name) for name in needs.models]
    others += [project.corpus(block.corpus) / "manifest.parquet"] if needs.photos else []
    others += [project.facts(block.corpus)] if needs.facts else []
    return [card.fingerprints, digest(project.truth(block.corpus)), *(digest(path) for path in others)]


@dataclass
class _Told:
    """What a summary says, rounded."""

    figures: dict[str, Any] = field(default_factory=dict)

    def add(self, metrics: Metrics, names: dict[str, int]) -> None:
        self.figures |= {name: round(metrics[name], digits) for name, digits in names.items() if name in metrics}


def _summarise(project: Project, variant: str, fitted: Fitted, data: Data) -> None:
    told = _Told()
    if fitted.history:
        told.add(fitted.history[fitted.best], {"validation_accuracy": 2, "validation_loss": 4})
        told.figures |= {"best_epoch": fitted.best + 1, "epochs": len(fitted.history)}
    counts = {
        "classes": len(data.space),
        "training_photos": len(data.training),
        "validation_photos": len(data.validation),
    }
    figures = told.figures | counts | {name: known for name, known in fitted.figures.items() if name not in PACE}
    write_json(project.summary("train", variant), figures)
    _plot(project, variant, fitted)
    if fitted.history:
        what = "pieces" if "validation_pieces" in figures else "photos"
        say(
            f"train {variant}: {figures.get('validation_accuracy', '–')} % of {figures[f'validation_{what}']:,} "
            f"validation {what} right at epoch {figures['best_epoch']} of {figures['epochs']}"
        )


def _plot(project: Project, variant: str, fitted: Fitted) -> None:
    """The losses over the epochs, and on an axis of its own the validation accuracy."""
    epochs = range(1, len(fitted.history) + 1)
    lines = {"loss": "training loss", "validation_loss": "validation loss"}
    with picture(project.plot("train", variant)) as axes:
        for name, label in lines.items():
            if fitted.history and name in fitted.history[0]:
                axes.plot(epochs, [epoch[name] for epoch in fitted.history], label=label)
        axes.set(title=variant, xlabel="epoch", ylabel="loss")
        right = axes.twinx()
        accuracies = [epoch.get("validation_accuracy", np.nan) for epoch in fitted.history]
        right.plot(epochs, accuracies, color="#3d405b", ls=":")
        right.axvline(fitted.best + 1, color="#999999", lw=0.8)
        right.set_ylabel("validation accuracy, % (dotted)")
        right.grid(visible=False)
        if axes.lines:
            axes.legend(frameon=False, loc="upper center")
