"""What a raster of the world says at points: climate class, elevation, population density, temperature, rain.

Any file that GDAL reads will do (GeoTIFF, ``.asc``, NetCDF) as long as it is north-up in degrees; longitudes may run
from 0 to 360. A point has the value of the pixel that holds it. Where that pixel is empty (the sea, for most), it has
the value of the nearest pixel that is not, by great-circle distance to its centre.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from geoloc_core.errors import UserError
from geoloc_core.geo import sphere

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

STRIP = 1 << 27
"""Pixels in memory at once. A larger raster is read in strips in each call, so it likes calls with many points."""
EDGE = 1e-3
"""Part of a pixel by which a point may lie beyond the file's edge: files round their extent."""
MANY = 200_000
"""Points without a value from which on it pays to look at the whole world first."""
HALF_DIAGONAL_KM = 79.0
"""Of a square degree at the equator."""
WITHOUT_SYSTEM = ("AAIGrid", "netCDF")
"""Formats with no place for a coordinate system: degrees if their extent is that of the world."""
Summary = Literal["mean", "range"]

# fmt: off
KOPPEN_BECK = [
    "Af", "Am", "Aw", "BWh", "BWk", "BSh", "BSk", "Csa", "Csb", "Csc", "Cwa", "Cwb", "Cwc", "Cfa", "Cfb", "Cfc",
    "Dsa", "Dsb", "Dsc", "Dsd", "Dwa", "Dwb", "Dwc", "Dwd", "Dfa", "Dfb", "Dfc", "Dfd", "ET", "EF",
]
"""Köppen–Geiger classes 1 … 30 of Beck et al. 2018 (``Beck_KG_V1_present``), where 0 is the sea."""
KOPPEN_RUBEL = [
    "Af", "Am", "As", "Aw", "BSh", "BSk", "BWh", "BWk", "Cfa", "Cfb", "Cfc", "Csa", "Csb", "Csc", "Cwa", "Cwb", "Cwc",
    "Dfa", "Dfb", "Dfc", "Dfd", "Dsa", "Dsb", "Dsc", "Dsd", "Dwa", "Dwb", "Dwc", "Dwd", "EF", "ET",
]
"""Köppen–Geiger classes 1 … 31 of Rubel et al. 2017, where 32 is the sea."""
# fmt: on


@dataclass(frozen=True)
class Grid:
    """Where the pixels of a raster are: row 0 and column 0 begin at ``latitude`` and ``longitude``.

    Attributes:
        height: Rows.
        width: Columns.
        latitude: Outer edge of row 0, degrees.
        longitude: Western edge of column 0, degrees.
        row_step: Degrees from a row to the next: negative where row 0 is the northernmost.
        column_step: Degrees from a column to the next.
    """

    height: int
    width: int
    latitude: float
    longitude: float
    row_step: float
    column_step: float

    def pixels(self, latitudes: np.ndarray, longitudes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns (N,) of the pixels that hold points (N,); −1 both where none does."""
        row = (latitudes - self.latitude) / self.row_step
        column = (longitudes - self.longitude) % 360 / self.column_step
        # Just west of a part of the world is almost once around it.
        column[column > 360 / self.column_step - EDGE] -= 0 if self.whole else 360 / self.column_step
        inside = (np.abs(row - self.height / 2) <= self.height / 2 + EDGE) & (column <= self.width + EDGE)
        rows, columns = (np.clip(v, 0, n - 1).astype(np.int64) for v, n in ((row, self.height), (column, self.width)))
        return np.where(inside, rows, -1), np.where(inside, columns, -1)

    @property
    def whole(self) -> bool:
        """Whether the columns go all around the world."""
        return self.width * self.column_step >= 360 * (1 - EDGE / self.width)

    def centres(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Latitudes and longitudes (N,) of the centres of pixels (N,)."""
        latitudes = self.latitude + (rows + 0.5) * self.row_step
        # A grid with a row of pixels centred on the pole says what lies beyond it too.
        return np.clip(latitudes, -90, 90), sphere.wrap(self.longitude + (columns + 0.5) * self.column_step)


@dataclass(frozen=True)
class Strip:
    """Some rows of a raster in memory.

    Attributes:
        values: (rows, columns).
        none: What a pixel without a value holds: NaN, or a number that no other has; None where all have one.
        first: The row of the raster that is row 0 here.
        grid: Of the whole raster.
    """

    values: np.ndarray
    none: float | None
    first: int
    grid: Grid

    def sample(self, latitudes: np.ndarray, longitudes: np.ndarray, limit_km: float) -> np.ndarray:
        """Values (N,) float64 at points (N,), NaN where no pixel within the limit has one."""
        rows, columns = self.grid.pixels(latitudes, longitudes)
        flat = np.where(rows < 0, 0, (rows - self.first) * self.grid.width + columns)
        # One look per point into the large array, in its own type: that is what takes the time.
        values = self.values.ravel().take(flat)
        found = np.where((rows >= 0) & self._there(values), values, np.nan).astype(np.float64)
        empty = np.flatnonzero(np.isnan(found))
        if len(empty) and limit_km > 0 and len(self._rim[0]):
            if len(empty) > MANY:
                empty = empty[self._near(latitudes[empty], longitudes[empty], limit_km)]
            points = sphere.unit_vectors(latitudes[empty], longitudes[empty])
            _, near = self._tree.query(points, distance_upper_bound=float(sphere.chord(limit_km)))
            there = near < len(self._rim[0])
            at = near[there]
            found[empty[there]] = self.values[self._rim[0][at], self._rim[1][at]]
        return found

    def _there(self, values: np.ndarray) -> np.ndarray:
        """Which values are values."""
        if self.none is None:
            return np.ones(values.shape, dtype=bool)
        there: np.ndarray = ~np.isnan(values) if np.isnan(self.none) else values != self.none
        return there

    def _near(self, latitudes: np.ndarray, longitudes: np.ndarray, limit_km: float) -> np.ndarray:
        """Which points (N,) share a square degree with a point within the limit: the high seas are soon dealt with."""
        south, west = np.divmod(np.arange(180 * 360), 360)
        centres = sphere.unit_vectors(south - 89.5, west - 179.5)
        reach = float(sphere.chord(limit_km + HALF_DIAGONAL_KM))
        far, _ = self._tree.query(centres, distance_upper_bound=reach)
        row, column = (
            np.minimum(latitudes + 90, 179).astype(np.int64),
            np.minimum(longitudes + 180, 359).astype(np.int64),
        )
        return np.isfinite(far)[row * 360 + column]

    @cached_property
    def _rim(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the pixels with a value beside one without: the nearest to any empty pixel are here."""
        valid = self._there(self.values)
        padded = np.pad(valid, ((0, 0), (1, 1)), mode="wrap" if self.grid.whole else "constant")
        padded = np.pad(padded, ((1, 1), (0, 0)))
        inner = valid.copy()
        height, width = valid.shape
        for down in range(3):
            for across in range(3):
                inner &= padded[down : down + height, across : across + width]
        rows, columns = np.nonzero(valid & ~inner)
        return rows, columns

    @cached_property
    def _tree(self) -> "cKDTree":
        from scipy.spatial import cKDTree

        rows, columns = self._rim
        return cKDTree(sphere.unit_vectors(*self.grid.centres(rows + self.first, columns)))


@dataclass(frozen=True)
class Raster:
    """A quantity over the world, as one file has it or as a summary of several bands (months, as a rule).

    Attributes:
        names: What GDAL opens, one per file; the bands of all are one after the other.
        bands: How many bands they have together.
        band: Which one to read, from 1, or how to bring all into one: their ``mean``, or the ``range`` from the
            smallest to the largest. A pixel that one of them lacks is empty.
        empty: Values that mean there is none, beside the file's own.
        grid: Where the pixels are.
    """

    names: tuple[str, ...]
    bands: int
    band: int | Summary
    empty: tuple[float, ...]
    grid: Grid

    @classmethod
    def open(
        cls,
        path: Path | Sequence[Path],
        band: int | Summary = 1,
        variable: str | None = None,
        empty: Sequence[float] = (),
    ) -> "Raster":
        """Look at a raster; its values are read when points ask for them.

        Args:
            path: The file, or several with one band each (a month each, as WorldClim has them).
            band: See the attribute.
            variable: Of a NetCDF file, which may have many.
            empty: See the attribute.

        Raises:
            UserError: A file is missing, broken, not in degrees, or lacks the band or the variable.
        """
        paths = [path] if isinstance(path, Path) else list(path)
        opened = [_look(one, variable) for one in paths]
        for (_, grid, _), one in zip(opened, paths, strict=True):
            if grid != opened[0][1]:
                raise UserError(f"{one}: its grid is not that of {paths[0]}; expected files with the same grid")
        bands = sum(count for _, _, count in opened)
        if isinstance(band, int) and not 1 <= band <= bands:
            raise UserError(f"{paths[0]}: no band {band}; expected one of 1 … {bands}")
        return cls(tuple(name for name, _, _ in opened), bands, band, tuple(empty), opened[0][1])

    def sample(self, latitudes: ArrayLike, longitudes: ArrayLike, limit_km: float = 25.0) -> np.ndarray:
        """The raster at N points.

        Args:
            latitudes: (N,) degrees.
            longitudes: (N,) degrees, −180 … 180.
            limit_km: How far to look for a value where the point's own pixel has none.

        Returns:
            (N,) float64, NaN where there is no value within the limit.

        Raises:
            UserError: A coordinate is wrong (its row is named), or the file is broken.
        """
        lat, lon = sphere.check(latitudes, longitudes)
        grid = self.grid
        rows = max(1, STRIP // grid.width)
        if rows >= grid.height:
            return self._whole.sample(lat, lon, limit_km)
        margin = int(np.ceil(np.degrees(limit_km / sphere.EARTH_KM) / abs(grid.row_step))) + 1
        row = np.clip((lat - grid.latitude) / grid.row_step, 0, grid.height - 1).astype(np.int64) // rows
        found = np.full(len(lat), np.nan)
        for number in np.unique(row):
            here = np.flatnonzero(row == number)
            strip = _read(self, max(0, number * rows - margin), min(grid.height, (number + 1) * rows + margin))
            found[here] = strip.sample(lat[here], lon[here], limit_km)
        return found

    @cached_property
    def _whole(self) -> Strip:
        return _read(self, 0, self.grid.height)


def _look(path: Path, variable: str | None) -> tuple[str, Grid, int]:
    """GDAL's name, grid and number of bands of a file."""
    import rasterio

    if not path.exists():
        raise UserError(f"{path}: no such file; expected a raster (GeoTIFF, .asc or NetCDF)")
    try:
        with _quiet(), rasterio.open(path) as file:
            driver, inside = file.driver, {name.rsplit(":", 1)[-1]: name for name in file.subdatasets}
            if file.count and "NETCDF_VARNAME" in file.tags(1):
                inside = {file.tags(1)["NETCDF_VARNAME"]: str(path)}
        if variable is None and len(inside) < 2:
            name = next(iter(inside.values()), str(path))
        elif variable in inside:
            name = inside[variable]
        else:
            raise UserError(f"{path}: no variable {variable or ''}; expected one of: {', '.join(inside) or 'none'}")
        with _quiet(), rasterio.open(name) as file:
            _check(path, file, driver)
            step = file.transform
            return name, Grid(file.height, file.width, step.f, step.c, step.e, step.a), file.count
    except rasterio.errors.RasterioError as error:
        raise _broken(path, error) from None


def _check(path: Path, file: Any, driver: str) -> None:
    """Refuse a raster if degrees do not lead to its pixels."""
    step = file.transform
    if file.count == 0:
        raise UserError(f"{path}: no band; expected a raster of numbers")
    if file.crs is None and (driver not in WITHOUT_SYSTEM or step.is_identity):
        raise UserError(f"{path}: no coordinate system; expected degrees (EPSG:4326): gdal_edit -a_srs EPSG:4326 FILE")
    if file.crs is not None and not file.crs.is_geographic:
        name = file.crs.to_wkt().split('"')[1]
        raise UserError(f"{path}: coordinates are in {name}; expected degrees: gdalwarp -t_srs EPSG:4326 FILE OUT")
    bounds = file.bounds
    low, high = sorted((bounds.bottom, bounds.top))
    slack = max(abs(step.a), abs(step.e)) * (0.5 + EDGE)
    turned = step.b or step.d or step.a <= 0
    if turned or low < -90 - slack or high > 90 + slack or bounds.right - bounds.left > 360 + 2 * slack:
        raise UserError(
            f"{path}: longitudes {bounds.left:g} … {bounds.right:g}, latitudes {low:g} … {high:g}; "
            "expected an unrotated grid within the world, in degrees"
        )


def _read(raster: Raster, start: int, stop: int) -> Strip:
    """Rows of a raster, its bands brought into one."""
    import rasterio
    from rasterio.windows import Window

    least: Any = None
    most: Any = None
    total: Any = None
    number = 0
    for name in raster.names:
        try:
            with _quiet(), rasterio.open(name) as file:
                for index in file.indexes:
                    number += 1
                    if isinstance(raster.band, int) and number != raster.band:
                        continue
                    values, none = _band(file, index, Window(0, start, raster.grid.width, stop - start), raster.empty)
                    if isinstance(raster.band, int):
                        return Strip(values, none, start, raster.grid)
                    values = np.where(values == none, np.nan, values).astype(np.float64, copy=False)
                    total = values if total is None else total + values
                    least = values if least is None else np.minimum(least, values)
                    most = values if most is None else np.maximum(most, values)
        except rasterio.errors.RasterioError as error:
            raise _broken(Path(name), error) from None
    return Strip(total / number if raster.band == "mean" else most - least, np.nan, start, raster.grid)


def _band(file: Any, index: int, window: Any, empty: tuple[float, ...]) -> tuple[np.ndarray, float | None]:
    """Values (rows, columns) in their unit, and what those that are none hold."""
    values = file.read(index, window=window)
    scale, offset = file.scales[index - 1], file.offsets[index - 1]
    none = [value for value in (file.nodatavals[index - 1], *empty) if value is not None and not np.isnan(value)]
    if values.dtype.kind != "f" and (scale, offset) == (1, 0):
        for value in none[1:]:
            values[values == value] = none[0]
        return values, none[0] if none else None
    found = values.astype(np.float64) if values.dtype.kind != "f" else values
    for value in none:
        # Text keeps fewer digits of −3.4e38 than the pixels do.
        found[np.abs(found - value) <= abs(value) * 1e-6] = np.nan
    found[np.isinf(found)] = np.nan
    return (found if (scale, offset) == (1, 0) else found * scale + offset), np.nan


@contextmanager
def _quiet() -> Iterator[None]:
    """GDAL reports through exceptions; a file without coordinates is for :func:`_check` to say."""
    import rasterio

    with warnings.catch_warnings(), rasterio.Env(CPL_LOG_ERRORS="OFF"):
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        yield


def _broken(path: Path, error: Exception) -> UserError:
    detail = " ".join(str(error.__cause__ or error).split())
    return UserError(f"{path}: not a raster that can be read ({detail}); fetch it again")


def koppen(values: np.ndarray, legend: Sequence[str]) -> np.ndarray:
    """Names (N,) of Köppen–Geiger classes, such as ``Cfb``, from a raster's values (N,); None where there is none."""
    table = np.array([*legend, None], dtype=object)
    known = (values >= 1) & (values <= len(legend))
    names: np.ndarray = table[np.where(known, np.nan_to_num(values) - 1, len(legend)).astype(np.int64)]
    return names
