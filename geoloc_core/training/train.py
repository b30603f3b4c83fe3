"""From features and labels to a trained variant."""

from typing import Any

import numpy as np

from geoloc_core.corpora import manifest
from geoloc_core.encoders import store
from geoloc_core.errors import UserError
from geoloc_core.files import check_folder, digest, remove, replacing_folder, write_json
from geoloc_core.geo.labelspace import LabelSpace, from_units
from geoloc_core.geo.units import read_units
from geoloc_core.models.classifier import Classifier
from geoloc_core.plots import picture
from geoloc_core.progress import say
from geoloc_core.project import Project
from geoloc_core.training import heads, tracking
from geoloc_core.training.features import Features
from geoloc_core.training.guard import guard

COLUMN = {"country": "gid_0", "subdivision": "gid_1"}
"""The column of the labels that holds a row's class."""


def train(project: Project, variant: str) -> None:
    """Train one variant: the stage ``geoloc train VARIANT``.

    Raises:
        UserError: There is no such variant, its features or labels are not ready or do not fit together, or its
            training photos leak into what it is scored on.
    """
    options = project.profile.variant(variant)
    check_folder(project.model(variant), "model")
    guard(project, options.corpus)
    family = next(family for family, names in project.profile.variants.items() if variant in names)
    labels = _labels(project, options.corpus)
    features = _features(project, options)
    if len(labels) != len(features):
        raise UserError(
            f"{project.labels(options.corpus)}: {len(labels)} rows, but the features have {len(features)}; "
            f"run `geoloc label {options.corpus}` and `geoloc encode` again"
        )
    usable = np.ones(len(features), bool)
    usable[store.missing(project.features(encoder, options.corpus) for encoder in options.inputs())] = False
    ids = labels[COLUMN[options.labels]].to_numpy(dtype=object)
    located = np.array([gid is not None and gid == gid for gid in ids])
    training = np.flatnonzero((labels["split"] == "train").to_numpy() & located & usable)
    validation = np.flatnonzero((labels["split"] == "validation").to_numpy() & located & usable)
    if not len(training) or not len(validation):
        raise UserError(f"{project.labels(options.corpus)}: no labelled rows to train and validate on")
    space = from_units(options.labels, read_units(project.boundaries), ids[training])
    targets = space.index(ids)
    say(
        f"train {variant}: {len(training):,} photos, {features.dim} features, {len(space)} classes "
        f"({options.labels}), {len(validation):,} for validation"
    )
    depends = [options.model_dump(), project.profile.seed, _inputs(project, options)]
    checkpoint = project.partial("train", variant) / "checkpoint.pt"
    reads = [project.labels(options.corpus), *(project.features(e, options.corpus) for e in options.inputs())]
    with tracking.run(project, "train", variant, {"family": family, **options.model_dump()}, reads) as log:
        fitted = heads.fit(
            features,
            targets,
            training,
            validation,
            len(space),
            options.hidden,
            options.recipe,
            project.profile.seed,
            checkpoint,
            depends,
            log,
        )
        model = Classifier(
            family,
            options.inputs(),
            {e: store.note(project.features(e, options.corpus))["fingerprint"] for e in options.inputs()},
            space,
            fitted.mean.numpy(),
            fitted.std.numpy(),
            heads.linear_layers(fitted.net),
        )
        with replacing_folder(project.model(variant), "model") as aside:
            aside.mkdir()
            model.save(aside)
        log.model(project.model(variant))
        _summarise(project, variant, fitted, space, len(training), len(validation))
    remove(checkpoint.parent)


def _labels(project: Project, corpus: str) -> Any:
    return manifest.read_table(project.labels(corpus), manifest.LABELS, ["gid_0", "gid_1", "split"]).to_pandas()


def _features(project: Project, options: Any) -> Features:
    """Features of all the variant's encoders."""
    parts = tuple(store.read(project.features(encoder, options.corpus)) for encoder in options.inputs())
    if len({len(part) for part in parts}) != 1:
        raise UserError(f"features of {options.inputs()} have {[len(p) for p in parts]} rows; encode them again")
    return Features(parts)


def _inputs(project: Project, options: Any) -> list[str]:
    notes = [store.note(project.features(encoder, options.corpus))["fingerprint"] for encoder in options.inputs()]
    return [*notes, digest(project.labels(options.corpus))]


def _summarise(
    project: Project, variant: str, fitted: heads.Fitted, space: LabelSpace, training: int, validation: int
) -> None:
    kept = fitted.history[fitted.best]
    figures = {
        "validation_accuracy": round(kept["validation_accuracy"], 2),
        "validation_loss": round(kept["validation_loss"], 4),
        "best_epoch": fitted.best + 1,
        "epochs": len(fitted.history),
        "classes": len(space),
        "training_photos": training,
        "validation_photos": validation,
    }
    write_json(project.summary("train", variant), figures)
    with picture(project.plot("train", variant)) as axes:
        epochs = range(1, len(fitted.history) + 1)
        axes.plot(epochs, [e["loss"] for e in fitted.history], label="training loss (weighted)")
        axes.plot(epochs, [e["validation_loss"] for e in fitted.history], label="validation loss")
        axes.set(title=variant, xlabel="epoch", ylabel="cross entropy")
        right = axes.twinx()
        right.plot(epochs, [e["validation_accuracy"] for e in fitted.history], color="#3d405b", ls=":")
        right.axvline(fitted.best + 1, color="#999999", lw=0.8)
        right.set_ylabel("validation accuracy, % (dotted)")
        right.grid(visible=False)
        axes.legend(frameon=False, loc="upper center")
    say(
        f"train {variant}: {figures['validation_accuracy']} % of {validation:,} validation photos right "
        f"at epoch {figures['best_epoch']} of {figures['epochs']}"
    )
