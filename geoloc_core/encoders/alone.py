"""One corpus and one encoder by themselves, outside the project's stages."""

import hashlib
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from geoloc_core.corpora import manifest
from geoloc_core.encoders import checkpoints
from geoloc_core.encoders.extraction import encode
from geoloc_core.errors import UserError
from geoloc_core.files import check_folder, remove, replacing_folder
from geoloc_core.params import NamedEncoder, entry
from geoloc_core.project import Project


def encode_alone(
    project: Project, corpus: str, name: str, encoder: NamedEncoder, checkpoint: Path | None, out: Path | None
) -> None:
    """Extract the features of one corpus with one encoder, from whichever profile each comes.

    Args:
        project: Where what is not given is taken from and put.
        corpus: A corpus of the profile in use, or an ingested folder.
        name: What the features say made them, and the place of the weights in the project.
        encoder: What the name means.
        checkpoint: Weights in their published format, to be used instead of the project's.
        out: The folder to write; left out, the project's own.

    Raises:
        UserError: The corpus, the weights or the place to write to is not as it should be; nothing is written then.
    """
    if encoder.image is None:
        raise UserError(f"encoder {name!r}: encodes texts; name an encoder of photos, or run `geoloc encode-text`")
    folder = _folder(project, corpus)
    known = corpus if corpus in project.profile.corpora else _name(folder)
    target = out or project.features(name, known)
    check_folder(target, "features")
    weights = project.weights(name)
    if checkpoint is None and not weights.is_dir():
        how = checkpoints.remedy(project, name, encoder)
        raise UserError(f"{weights}: no weights of {name}; {how} first, or give --checkpoint")
    with checkpoints.of_your_own(encoder, checkpoint) if checkpoint else nullcontext(weights) as opened:
        _of_links(project, known, name, encoder.image, folder, opened, target)


def _folder(project: Project, corpus: str) -> Path:
    """Where a corpus lies: in the project, or where its name says."""
    if corpus not in project.profile.corpora and (Path(corpus) / "manifest.parquet").is_file():
        return Path(corpus).absolute()
    entry(project.profile.corpora, corpus, "corpus")
    return project.corpus(corpus)


def _name(folder: Path) -> str:
    """What the manifest of an ingested folder calls the corpus."""
    names = manifest.read_manifest(folder, ["corpus"])["corpus"]
    if not len(names):
        raise UserError(f"{folder}: the manifest is empty; expected at least one photo")
    return str(names[0].as_py())


def _of_links(
    project: Project, corpus: str, name: str, options: Any, folder: Path, weights: Path, target: Path
) -> None:
    """Run the stage in a project that holds this pair alone; a later run with the same target goes on with it."""
    place = hashlib.sha256(str(target.absolute()).encode()).hexdigest()[:16]
    root = project.partial("encode_alone", place)
    pair = project.profile.model_copy(update={"encoders": {name: options}, "corpora": {corpus: None}})
    own = replace(project, root=root, profile=pair)
    for link, real in ((own.corpus(corpus), folder), (own.weights(name), weights)):
        link.parent.mkdir(parents=True, exist_ok=True)
        remove(link)
        link.symlink_to(real)
    encode(own, corpus, name)
    with replacing_folder(target, "features") as aside:
        shutil.move(own.features(name, corpus), aside)  # maybe to another disk
    remove(root)
