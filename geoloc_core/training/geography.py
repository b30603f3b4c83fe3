"""What is known about the places of a corpus' photos, gathered for captions."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from geoloc_core.corpora import manifest
from geoloc_core.errors import UserError
from geoloc_core.geo import rasters
from geoloc_core.geo.driving import driving_sides
from geoloc_core.geo.towns import Towns
from geoloc_core.geo.units import read_units
from geoloc_core.pins import Sha256
from geoloc_core.plugins import Strict
from geoloc_core.training.captions import MONTHS, Facts, facing

if TYPE_CHECKING:
    from pandas import DataFrame

    from geoloc_core.project import Project

LEGENDS = {"beck": rasters.KOPPEN_BECK, "rubel": rasters.KOPPEN_RUBEL}


class Sources(Strict):
    """Where facts come from beside labels and manifest; without a file, its sentence is never told."""

    climate: Path | None = None
    """A raster of Köppen–Geiger classes, in degrees."""
    legend: Literal["beck", "rubel"] = "beck"
    """What its numbers mean: Beck et al. 2018 (PIGEON's) or Rubel et al. 2017."""
    driving_sides: Path | None = None
    """A JSON list of countries and sides."""
    min_population: Literal[500, 1000, 5000, 15000] = 15000
    """Of a town, among GeoNames' places."""
    town_km: float = Field(50.0, ge=0)
    """How far a photo may be from the town that its caption calls close."""
    sha256: Sha256 | None = None
    """Checksum of the files, so that others make the stage stale: the stage asks for it, and says which it is."""

    def files(self, root: Path) -> list[Path]:
        """The files that are read."""
        return [root / path for path in (self.climate, self.driving_sides) if path]


def gather(project: "Project", corpus: str, sources: Sources) -> Facts:
    """The facts of all photos of a corpus, row-aligned with its manifest.

    Raises:
        UserError: The corpus has no labels, or a file is missing or broken.
    """
    labels = read_labels(project, corpus, ["gid_0", "name_0", "name_1"])
    photos = manifest.read_manifest(project.corpus(corpus), ["latitude", "longitude", "heading", "captured_at"])
    frame = photos.to_pandas()
    codes = labels["gid_0"]
    if len(frame) != len(codes):
        raise UserError(
            f"{project.labels(corpus)}: {len(codes)} rows, but the manifest has {len(frame)}; "
            f"run `geoloc label {corpus}` again"
        )
    places = frame[["latitude", "longitude"]].to_numpy(np.float64)
    month = frame["captured_at"].dt.month.to_numpy(np.float64)
    return Facts(
        codes=codes,
        countries=labels["name_0"],
        regions=labels["name_1"],
        towns=_towns(places, codes, read_countries(project), sources),
        climates=_climates(places, sources, project.root),
        sides=_sides(codes, sources, project.root),
        directions=facing(frame["heading"].to_numpy(np.float64)),
        months=np.array([None, *MONTHS], dtype=object)[np.nan_to_num(month).astype(np.int64)],
    )


def read_labels(project: "Project", corpus: str, columns: list[str]) -> dict[str, np.ndarray]:
    """Columns (N,) of a corpus' labels, None where they are empty.

    Raises:
        UserError: It has none yet.
    """
    table = manifest.read_table(project.labels(corpus), manifest.LABELS, columns)
    return {name: np.array(table[name].to_pylist(), dtype=object) for name in columns}


def read_countries(project: "Project") -> "DataFrame":
    """The countries among the boundaries' units, by alpha-3 code.

    Raises:
        UserError: The boundaries have not been made.
    """
    units = read_units(project.boundaries)
    return units[units["level"] == 0].set_index("gid")


def _towns(places: np.ndarray, codes: np.ndarray, countries: "DataFrame", sources: Sources) -> np.ndarray:
    """The nearest town (N,) in a photo's own country: a caption must not put it across the border."""
    towns = Towns.load(sources.min_population)
    found = np.full(len(places), None, dtype=object)
    there = np.isfinite(places).all(axis=1)
    for code, two in countries["iso_3166"].items():
        rows, own = np.flatnonzero((codes == code) & there), towns.of_country(two)
        if len(rows) and len(own):
            at, _ = own.nearest(places[rows, 0], places[rows, 1], sources.town_km)
            found[rows[at >= 0]] = own.names[at[at >= 0]]
    return found


def _climates(places: np.ndarray, sources: Sources, root: Path) -> np.ndarray:
    found = np.full(len(places), None, dtype=object)
    there = np.isfinite(places).all(axis=1)
    if sources.climate and there.any():
        values = rasters.Raster.open(root / sources.climate).sample(*places[there].T)
        found[there] = rasters.koppen(values, LEGENDS[sources.legend])
    return found


def _sides(codes: np.ndarray, sources: Sources, root: Path) -> np.ndarray:
    sides = driving_sides(root / sources.driving_sides) if sources.driving_sides else {}
    return np.array([sides.get(code) for code in codes], dtype=object)
