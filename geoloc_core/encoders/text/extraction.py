"""From sentences to features: resumable by part, row-aligned with the sentences."""

from pathlib import Path

import numpy as np

from geoloc_core import parquet
from geoloc_core.blocks import blocks
from geoloc_core.encoders import store
from geoloc_core.encoders.text.encoder import TextEncoder, load
from geoloc_core.errors import UserError
from geoloc_core.files import check_folder, digest, remove, replacing, replacing_folder, write_json
from geoloc_core.params import NamedEncoder, entry
from geoloc_core.progress import say, track
from geoloc_core.project import Project

PART = 16384
"""Texts that are encoded together and kept when the work is stopped."""


def encode_text(project: Project, texts: str, name: str, encoder: NamedEncoder) -> None:
    """Extract the features of sentences: the stage ``geoloc encode-text TEXTS --encoder ENCODER``.

    Args:
        project: Where everything lies.
        texts: Sentences of the profile in use.
        name: What the features say made them, and the place of the weights in the project.
        encoder: What the name means, whatever profile it is of.

    Raises:
        UserError: The encoder is of photos or has no weights yet, or the sentences have not been gathered.
    """
    if encoder.text is None:
        raise UserError(f"encoder {name!r}: encodes photos; name an encoder of texts, or run `geoloc encode`")
    entry(project.profile.texts, texts, "texts")
    source = project.texts(texts)
    check_folder(project.text_features(name, texts), "features")
    sentences = parquet.read(source, f"run `geoloc texts {texts}`", ["text"])["text"].to_pylist()
    if not sentences:
        raise UserError(f"{source}: no sentences; expected at least one")
    tower = load(encoder.text, project.weights(name))
    # unfinished work is of these sentences and of this tower, or it is of no use
    partial = project.partial("encode_text", f"{name}-{texts}-{tower.fingerprint}-{digest(source)[:16]}")
    partial.mkdir(parents=True, exist_ok=True)
    parts, cut = _parts(tower, sentences, partial, f"encode texts {texts} with {name}")
    with replacing_folder(project.text_features(name, texts), "features") as aside:
        aside.mkdir()
        made_by = {"encoder": name, "texts": texts, "fingerprint": tower.fingerprint, **tower.identity}
        store.write(aside, parts, (tower.dim,), made_by)
        figures = store.figures(aside)
    found = {"fingerprint": tower.fingerprint, "texts_at_the_limit": cut, **figures}
    write_json(project.summary("encode_text", f"{name}-{texts}"), found)
    remove(partial)
    say(f"encode texts {texts} with {name}: {len(sentences):,} × {tower.dim} features, {cut:,} texts at the limit")


def _parts(tower: TextEncoder, sentences: list[str], partial: Path, what: str) -> tuple[list[Path], int]:
    """Encode the parts that are not there yet; the parts, and how many texts have as many tokens as can be."""
    paths, cut = [], 0
    for some in track(blocks(len(sentences), PART), what, len(sentences), "texts", PART):
        path = partial / f"{some.start:09}.npy"
        tokens = tower.tokenize(sentences[some])
        cut += sum(len(text) >= tower.longest for text in tokens)
        if not store.whole(path, len(tokens)):
            features = tower.encode(tokens).astype(np.float16)
            with replacing(path) as aside, aside.open("wb") as stream:
                np.save(stream, features)
        paths.append(path)
    return paths, cut
