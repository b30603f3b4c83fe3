"""The training photos that a model's encoders find most alike, with whom they are by and under which licence."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geoloc_core.blocks import blocks
from geoloc_core.corpora import manifest, truth
from geoloc_core.corpora.stored import Stored
from geoloc_core.encoders import store
from geoloc_core.encoders.encoder import Encoder
from geoloc_core.project import Project
from geoloc_core.serving.bundle import Bundle
from geoloc_core.sets import Split

NEAREST = 5
ROWS = 65_536
"""Features in memory at a time."""
COLUMNS = ["image_id", "latitude", "longitude", "author", "licence", "source_url"]


@dataclass(frozen=True)
class Neighbour:
    """A training photo.

    Attributes:
        image_id: As in the manifest.
        likeness: Cosine of its features and the photo's, the mean over the encoders; 1 is the same.
        latitude: Degrees, NaN where unknown.
        longitude: Degrees, NaN where unknown.
        author: Who took it; None where unknown, as the following.
        licence: Of the photo.
        source_url: Where it was published.
        photo: Encoded.
    """

    image_id: str
    likeness: float
    latitude: float
    longitude: float
    author: str | None
    licence: str | None
    source_url: str | None
    photo: bytes


def _encoders(bundle: Bundle) -> dict[str, Encoder]:
    return {
        name: encoder
        for name, encoder in bundle.encoders.items()
        if isinstance(encoder, Encoder) and len(encoder.shape) == 1
    }


def lacking(project: Project, bundle: Bundle) -> str | None:
    """Why there are no neighbours to show; None where there are."""
    encoders = _encoders(bundle)
    if not encoders:
        return f"{bundle.variant}: reads no features of photos to search with"
    if bundle.variant not in project.profile.variants:
        return f"{bundle.variant}: not in the profile in use, so that its training photos are not known"
    corpus = project.profile.variant(bundle.variant).corpus
    for name, encoder in encoders.items():
        folder = project.features(name, corpus)
        if not (folder / store.NOTE).is_file():
            return f"{corpus}: no features of {name}; {store.remedy(folder)}"
        if store.note(folder)["fingerprint"] != encoder.fingerprint:
            return f"{corpus}: features of other weights of {name}; {store.remedy(folder)} again"
    return None


def neighbours(
    project: Project, bundle: Bundle, photos: Sequence[bytes], count: int = NEAREST
) -> list[list[Neighbour]]:
    """The nearest training photos of each of N encoded photos, the most alike first.

    Args:
        project: Of which :func:`lacking` says nothing.
        bundle: The model.
        photos: Encoded.
        count: How many of each.
    """
    corpus = project.profile.variant(bundle.variant).corpus
    encoders = _encoders(bundle)
    split = truth.read(project, corpus, ["split"])["split"].to_pandas()
    rows = np.flatnonzero((split == Split.TRAIN).to_numpy())
    asked = [encoder(photos) for encoder in encoders.values()]
    known = [store.read(project.features(name, corpus)) for name in encoders]
    found, likeness = nearest(asked, known, rows, count)
    folder = project.corpus(corpus)
    wanted, place = np.unique(found, return_inverse=True)
    lines = manifest.read_manifest(folder, COLUMNS).take(wanted).to_pandas()
    pictures = Stored.photos(folder).take(wanted).read()
    place = place.reshape(found.shape)
    return [
        [
            Neighbour(
                image_id=str(lines["image_id"].iloc[at]),
                author=_text(lines["author"].iloc[at]),
                licence=_text(lines["licence"].iloc[at]),
                source_url=_text(lines["source_url"].iloc[at]),
                latitude=float(lines["latitude"].iloc[at]),
                longitude=float(lines["longitude"].iloc[at]),
                likeness=float(alike),
                photo=pictures[at],
            )
            for at, alike in zip(of_photo, of_likeness, strict=True)
        ]
        for of_photo, of_likeness in zip(place, likeness, strict=True)
    ]


def nearest(
    asked: Sequence[np.ndarray], known: Sequence[np.ndarray], rows: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows (N, k) of the most alike features and their mean cosine (N, k), best first; k is at most ``len(rows)``.

    Args:
        asked: Of each encoder, features (N, D).
        known: Of each encoder, features (M, D), which may be memory-mapped.
        rows: (R,) of these that are searched; those that are not numbers are never found.
        count: How many.
    """
    queries = [_unit(np.asarray(values, np.float32)) for values in asked]
    n = len(queries[0])
    best, at = np.full((n, 0), -np.inf, np.float32), np.empty((n, 0), np.int64)
    for part in blocks(len(rows), ROWS):
        some = rows[part]
        parts = [
            query @ _unit(np.asarray(values[some], np.float32)).T for query, values in zip(queries, known, strict=True)
        ]
        cosine = np.mean(parts, axis=0)
        best = np.concatenate([best, np.where(np.isfinite(cosine), cosine, -np.inf)], axis=1)
        at = np.concatenate([at, np.broadcast_to(some, cosine.shape)], axis=1)
        order = np.argsort(-best, axis=1, kind="stable")[:, :count]
        best, at = np.take_along_axis(best, order, axis=1), np.take_along_axis(at, order, axis=1)
    return at, best


def _unit(values: np.ndarray) -> np.ndarray:
    """Vectors (N, D) of length one; a vector of length 0 stays one."""
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    found: np.ndarray = values / np.where(lengths == 0, 1, lengths)
    return found


def _text(value: object) -> str | None:
    """Text, or None for what stands where nothing is known."""
    return value if isinstance(value, str) else None
