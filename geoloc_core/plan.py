"""What there is to do for a profile: ``plan.yaml``, the lists that the stages of ``dvc.yaml`` go through.

They follow from what the variants need: which corpus goes through which encoder, which sentences, which cells, and what
each training and each answer reads. DVC cannot template a list of dependencies, so trainings and answers are grouped by
how much they read: ``train_3`` are those that read three things.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from geoloc_core.contracts.needs import MOST
from geoloc_core.files import replacing
from geoloc_core.params import Profile
from geoloc_core.project import Project
from geoloc_core.variants import inputs

FILE = "plan.yaml"
MOST_PARTS = 4
"""Encoders trained here that another one is made of, at most: as many templates are in ``dvc.yaml``."""
HEAD = "# Written by `geoloc plan` from params.yaml: the lists that the stages of dvc.yaml go through.\n"


def write(project: Project) -> bool:
    """Write ``plan.yaml`` if anything in it has changed.

    Returns:
        Whether it has.
    """
    import yaml

    text = HEAD + yaml.safe_dump({"plan": plan(project)}, sort_keys=False, allow_unicode=True, width=1000)
    path = project.root / FILE
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8")
    return True


def plan(project: Project) -> dict[str, Any]:
    """The lists, by stage."""
    profile = project.profile
    pairs = encoded(profile)
    needs = {name: block.needs() for name, block in profile.variants.items()}
    texts = dict.fromkeys(pair for known in needs.values() for pair in known.texts)
    cells = dict.fromkeys(
        (n.labels, profile.variants[name].corpus) for name, n in needs.items() if n.labels in profile.cells
    )
    composed = {name: checkpoint.made_of for name, checkpoint in profile.checkpoints.items() if checkpoint.made_of}
    weights = {name: {"reads": _paths(project, map(project.weights, of))} for name, of in composed.items()}
    return {
        "benchmarks": profile.benchmarks,
        "download": [name for name in profile.checkpoints if name not in composed],
        **_grouped("compose", weights, MOST_PARTS),
        "encode": {f"{encoder}-{corpus}": {"encoder": encoder, "corpus": corpus} for encoder, corpus in pairs},
        "encode_text": {f"{encoder}-{name}": {"encoder": encoder, "texts": name} for encoder, name in texts},
        "cells": {f"{name}-{corpus}": {"cells": name, "corpus": corpus} for name, corpus in cells},
        "truth": {name: {"attributes": profile.attributes_of(name)} for name in answered(profile)},
        "facts": {name: {"rasters": profile.facts.path} for name in told(profile)} if profile.facts else {},
        **_grouped("train", {name: _train(project, name) for name in profile.variants}, MOST),
        **_grouped("answer", {name: _answer(project, name) for name in profile.variants}, MOST),
    }


def encoded(profile: Profile) -> list[tuple[str, str]]:
    """The pairs of image encoder and corpus that variants need."""
    return list(
        dict.fromkeys(
            (encoder, corpus)
            for name, block in profile.variants.items()
            for encoder in block.needs().encoded
            for corpus in (block.corpus, *profile.scored_on(name))
        )
    )


def answered(profile: Profile) -> list[str]:
    """The corpora that any variant learns from or is scored on."""
    trained = (block.corpus for block in profile.variants.values())
    return list(dict.fromkeys((*trained, *profile.benchmarks)))


def told(profile: Profile) -> list[str]:
    """The corpora about whose places a variant learns more, or is scored on it."""
    return list(
        dict.fromkeys(
            corpus
            for name, block in profile.variants.items()
            if block.needs().facts
            for corpus in (block.corpus, *profile.scored_on(name))
        )
    )


def _train(project: Project, name: str) -> dict[str, Any]:
    block = project.profile.variants[name]
    reads = inputs.read_by_training(project, block)
    return {
        "family": block.kind,
        "corpus": block.corpus,
        "labels": block.needs().labels,
        "reads": _paths(project, reads),
    }


def _answer(project: Project, name: str) -> dict[str, Any]:
    benchmarks = project.profile.scored_on(name)
    reads = inputs.read_by_answering(project, project.profile.variants[name], benchmarks)
    return {"benchmarks": benchmarks, "reads": _paths(project, reads)}


def _paths(project: Project, reads: Iterable[Path]) -> list[str]:
    return [path.relative_to(project.root).as_posix() for path in reads]


def _grouped(stage: str, items: dict[str, dict[str, Any]], most: int) -> dict[str, dict[str, Any]]:
    """The items by how much they read."""
    return {
        f"{stage}_{count}": {name: item for name, item in items.items() if len(item["reads"]) == count}
        for count in range(1, most + 1)
    }
