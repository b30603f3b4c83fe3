"""From shards of photos to features: resumable by shard, since a shard may take an hour."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from geoloc_core.corpora import manifest
from geoloc_core.encoders import store
from geoloc_core.encoders.encoder import Encoder, load
from geoloc_core.errors import UserError
from geoloc_core.files import digest, remove, replacing, write_json
from geoloc_core.params import entry
from geoloc_core.progress import say, track
from geoloc_core.project import Project


def encode(project: Project, corpus: str, encoder: str) -> None:
    """Extract the features of one corpus with one encoder: the stage ``geoloc encode CORPUS --encoder ENCODER``.

    Raises:
        UserError: The encoder has no weights yet, or the corpus has not been ingested.
    """
    options = entry(project.profile.encoders, encoder, "encoder")
    entry(project.profile.corpora, corpus, "corpus")
    folder = project.corpus(corpus)
    rows = len(manifest.read_manifest(folder, ["row"]))
    tower = load(options, project.weights(encoder))
    # unfinished work is of these photos and of this tower, or it is of no use
    photos_are = digest(folder / "manifest.parquet")[:16]
    partial = project.partial("encode", f"{encoder}-{corpus}-{tower.fingerprint}-{photos_are}")
    partial.mkdir(parents=True, exist_ok=True)
    what = f"encode {corpus} with {encoder}"
    photos = track(_parts(tower, manifest.shards(folder), partial), what, rows, "photos", manifest.ROW_GROUP)
    for _ in photos:
        pass
    parts = [_part(partial, shard) for shard in manifest.shards(folder)]
    with replacing(project.features(encoder, corpus)) as aside:
        aside.mkdir()
        made_by = {"encoder": encoder, "corpus": corpus, "fingerprint": tower.fingerprint, **tower.identity}
        store.write(aside, parts, tower.shape, made_by)
    features = store.read(project.features(encoder, corpus))
    if len(features) != rows:
        raise UserError(f"{folder}: the shards hold {len(features)} photos, the manifest {rows}; ingest it again")
    _summarise(project, f"{encoder}-{corpus}", features, tower)
    remove(partial)
    say(f"{what}: {rows:,} × {' × '.join(map(str, tower.shape))} features, encoder {tower.fingerprint}")


def _part(partial: Path, shard: Path) -> Path:
    return partial / f"{shard.stem}.npy"


def _parts(tower: Encoder, shards: list[Path], partial: Path) -> Iterator[None]:
    """Encode every shard that has no part yet; one item per row group of photos."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for shard in shards:
            part = _part(partial, shard)
            if part.is_file() and len(np.load(part, mmap_mode="r")) == pq.read_metadata(shard).num_rows:
                continue
            features = []
            for photos in manifest.read_photos(shard):
                features.append(tower(photos, pool).astype(np.float16))
                yield
            with replacing(part) as aside, aside.open("wb") as stream:
                np.save(stream, np.concatenate(features))


def _summarise(project: Project, name: str, features: np.ndarray, tower: Encoder) -> None:
    sample = np.asarray(features[:: max(1, len(features) // 5000)], np.float32)
    sample = sample.reshape(-1, tower.shape[-1])
    norms = np.linalg.norm(sample, axis=1)
    figures = {
        "rows": len(features),
        "fingerprint": tower.fingerprint,
        "features": {
            "dim": tower.shape[-1],
            "mean_norm": round(float(norms.mean()), 3),
            "mean_spread": round(float(sample.std(axis=0).mean()), 4),
            "constant_dims": int((sample.std(axis=0) == 0).sum()),
        },
    }
    write_json(project.summary("encode", name), figures)
