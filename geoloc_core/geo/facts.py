"""Where facts about places come from: rasters that the user names, sampled at the photos."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field, PositiveInt

from geoloc_core.contracts.facts import QUANTITIES, Fact
from geoloc_core.errors import UserError
from geoloc_core.plugins import Strict

if TYPE_CHECKING:
    from geoloc_core.geo.rasters import Raster


class Source(Strict):
    """A raster, in degrees: see :mod:`geoloc_core.geo.rasters`."""

    file: str
    """Its name within the folder; a pattern such as ``wc2.1_30s_tavg_*.tif`` names one file per month."""
    band: PositiveInt | Literal["mean", "range"] = 1
    """From 1; or what becomes of all bands, of all files together."""
    variable: str | None = None
    """Of a NetCDF file that has many."""
    empty: tuple[Annotated[float, Field(allow_inf_nan=True)], ...] = ()
    """Values that mean there is none, beside the file's own."""
    factor: float = Field(1.0, gt=0)
    """From the file's unit to the fact's: 0.0328542 from mm a month to mm a day."""
    limit_km: float = Field(25.0, ge=0)
    """How far to look where the pixel of a place has no value."""
    otherwise: float | None = None
    """What holds where there is none, such as 0 people; left out, nothing is known there."""

    def open(self, folder: Path) -> "Raster":
        """The raster.

        Raises:
            UserError: No file has such a name, or see :meth:`geoloc_core.geo.rasters.Raster.open`.
        """
        from geoloc_core.geo.rasters import Raster

        files = sorted(folder.glob(self.file))
        if not files:
            raise UserError(f"{folder}: no file {self.file}; expected a raster (GeoTIFF, .asc or NetCDF)")
        return Raster.open(files, self.band, self.variable, self.empty)

    def sample(self, folder: Path, latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
        """Values (N,) float64 in the fact's unit at places (N,), NaN where nothing is known.

        Raises:
            UserError: See :meth:`open`.
        """
        found = np.full(len(latitudes), np.nan)
        there = np.isfinite(latitudes) & np.isfinite(longitudes)
        raster = self.open(folder)
        if there.any():
            values = raster.sample(latitudes[there], longitudes[there], self.limit_km) * self.factor
            found[there] = values if self.otherwise is None else np.where(np.isnan(values), self.otherwise, values)
        return found


class Zones(Source):
    """A raster of Köppen–Geiger zones."""

    legend: Literal["beck", "rubel"] = "beck"
    """What its numbers mean: Beck et al. 2018 (PIGEON's) or Rubel et al. 2017."""

    def sample(self, folder: Path, latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
        """Zones (N,) in the order of Beck et al., from 0; Rubel's ``As`` is their ``Aw``."""
        from geoloc_core.geo.rasters import KOPPEN_BECK, KOPPEN_RUBEL, koppen

        numbers = super().sample(folder, latitudes, longitudes)
        if self.legend == "beck":
            known = (numbers >= 1) & (numbers <= len(KOPPEN_BECK))
            return np.where(known, np.rint(numbers) - 1, np.nan)
        order = {name: at for at, name in enumerate(KOPPEN_BECK)} | {"As": KOPPEN_BECK.index("Aw"), None: np.nan}
        return np.array([order[name] for name in koppen(numbers, KOPPEN_RUBEL)], np.float64)


class Sources(Strict):
    """What each fact is read from; the month comes from when a photo was taken."""

    path: str
    """The folder of the rasters, from the project's root."""
    elevation: Source | None = None
    """Metres."""
    population: Source | None = None
    """People per km²."""
    temperature_mean: Source | None = None
    """°C."""
    temperature_range: Source | None = None
    """°C."""
    precipitation_mean: Source | None = None
    """mm a day."""
    precipitation_range: Source | None = None
    """mm a day."""
    climate: Zones | None = None
    """Köppen–Geiger zones."""

    def tells(self, fact: Fact) -> bool:
        """Whether there is a source of a fact."""
        return fact == "month" or getattr(self, fact) is not None

    def sample(
        self, root: Path, latitudes: np.ndarray, longitudes: np.ndarray, months: np.ndarray
    ) -> dict[Fact, np.ndarray]:
        """All facts (N,) float64 of N photos, NaN where nothing is known.

        Args:
            root: Of the project.
            latitudes: (N,) degrees, NaN where unknown.
            longitudes: (N,) degrees, NaN where unknown.
            months: (N,) from 1, NaN where unknown.

        Raises:
            UserError: The folder or a raster is missing or wrong.
        """
        folder = root / self.path
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; expected the rasters that params.yaml names under `facts`")
        found: dict[Fact, np.ndarray] = {"month": months.astype(np.float64)}
        for name in (*QUANTITIES, "climate"):
            source: Source | None = getattr(self, name)
            nothing = np.full(len(latitudes), np.nan)
            found[name] = nothing if source is None else source.sample(folder, latitudes, longitudes)  # type: ignore[index]
        return found
