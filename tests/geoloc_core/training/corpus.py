"""A small corpus of plain photos, a colour per country, as the stages before training leave it."""

import io
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

from geoloc_core.corpora import manifest
from geoloc_core.geo.units import write_units
from geoloc_core.project import Project

from ...conftest import PHOTOS

PLACES = {
    "FRA": ("France", "FR", "Aube", 48.3, 4.085, (200, 40, 40)),
    "JPN": ("Japan", "JP", "Hokkaido", 45.409, 141.674, (40, 200, 40)),
    "NLD": ("Netherlands", "NL", "Utrecht", 52.09, 5.12, (40, 40, 200)),
}
"""Name, alpha-2 code, region, latitude, longitude (of a town) and colour of each country."""


def make_project(
    root: Path, photos: int = 60, pretrain: dict | None = None, pretrain_from: dict | None = None
) -> Project:
    """A project with the corpus ``photos``; every fifth photo is for validation, the last has no country."""
    towers = {**(pretrain or {}), **(pretrain_from or {})}
    profile = {**PHOTOS, "checkpoints": {**PHOTOS["checkpoints"]}}
    profile["encoders"] = {**PHOTOS["encoders"], **{name: {"kind": "open_clip"} for name in towers}}
    profile |= {"pretrain": pretrain or {}, "pretrain_from": pretrain_from or {}, "threads": 1}
    root.mkdir(parents=True, exist_ok=True)
    (root / "params.yaml").write_text(yaml.safe_dump({"run": profile}))
    project = Project.open(root / "params.yaml")
    codes = np.array(list(PLACES))[np.arange(photos) % 3].astype(object)
    codes[-1] = None
    _write_corpus(project.corpus("photos"), codes)
    _write_labels(project, codes)
    _write_units(project)
    return project


def encoded(colour: tuple[int, int, int], seed: int) -> bytes:
    """A colour with some noise, as a JPEG."""
    noise = np.random.default_rng(seed).integers(-40, 40, (40, 48, 3))
    stream = io.BytesIO()
    Image.fromarray(np.clip(noise + colour, 0, 255).astype(np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def _write_corpus(folder: Path, codes: np.ndarray) -> None:
    folder.mkdir(parents=True)
    writer = manifest.ShardWriter(folder, limit=len(codes) * 800)
    rows = []
    for number, code in enumerate(codes):
        _, _, _, latitude, longitude, colour = PLACES[code or "FRA"]
        shard, row = writer.add(f"{number:03d}", encoded(colour, number), f"{number}.jpg")
        rows.append(
            {
                "image_id": f"{number:03d}",
                "corpus": "photos",
                "shard": shard,
                "row": row,
                "latitude": latitude + number * 1e-4 if code else None,
                "longitude": longitude if code else None,
                "group_id": str(number),
                "heading": float(number * 10 % 360) if number % 2 else None,
                "captured_at": datetime(2020, 1 + number % 12, 3) if number % 3 else None,
                "width": 48,
                "height": 40,
                "sha256": f"{number}",
                "phash": None,
            }
        )
    writer.close()
    with manifest.TableWriter(folder / "manifest.parquet", manifest.MANIFEST) as table:
        for row in rows:
            table.add(row)
    titles = [f"a day in {PLACES[code][0]}" if code else None for code in codes]
    published = pa.table({"image_id": [row["image_id"] for row in rows], "caption": titles})
    pq.write_table(published, folder / "attributes.parquet")


def _write_labels(project: Project, codes: np.ndarray) -> None:
    labels = pd.DataFrame(
        {
            "image_id": [f"{number:03d}" for number in range(len(codes))],
            "gid_0": codes,
            "gid_1": [code and f"{code}.1_1" for code in codes],
            "gid_2": None,
            "name_0": [code and PLACES[code][0] for code in codes],
            "name_1": [code and PLACES[code][2] for code in codes],
            "name_2": None,
            "distance_km": 0.0,
            "split": ["validation" if number % 5 == 0 else "train" for number in range(len(codes))],
        }
    )
    project.labels("photos").parent.mkdir(parents=True)
    table = pa.Table.from_pandas(labels, manifest.LABELS, preserve_index=False)
    manifest.write_table(table, project.labels("photos"), manifest.LABELS)


def _write_units(project: Project) -> None:
    project.boundaries.mkdir(parents=True)
    units = [
        {"gid": gid, "name": name, "parent": "", "gid_0": gid, "iso_3166": two, "continent": ""}
        | {"level": 0, "latitude": latitude, "longitude": longitude, "area_km2": 1.0}
        for gid, (name, two, _, latitude, longitude, _) in PLACES.items()
    ]
    write_units(pd.DataFrame(units), project.boundaries)
