"""The commands of this room: ``geoloc locate`` and the group ``geoloc cells``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geoloc_core.errors import UserError

if TYPE_CHECKING:
    import numpy as np

PATH = click.Path(path_type=Path)


@click.command(
    epilog="\b\nExamples:\n  geoloc locate photos.csv --boundaries data/boundaries --out units.csv\n"
    "  geoloc locate points.parquet --boundaries gadm_410-levels.gpkg --index gadm.index --out units.parquet"
)
@click.argument("points", type=PATH)
@click.option(
    "--boundaries",
    type=PATH,
    required=True,
    help="A folder written by `geoloc boundaries`, or a GeoPackage or GeoJSON in GADM's schema.",
)
@click.option("--out", type=PATH, required=True, help="The table to write, .csv or .parquet.")
@click.option(
    "--limit-km",
    default=100.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Maximum distance from a point to its unit; 0 accepts only points inside a unit.",
)
@click.option("--index", type=PATH, help="Folder to keep the index of a boundaries file in, for the next call.")
def locate(points: Path, boundaries: Path, out: Path, limit_km: float, index: Path | None) -> None:
    """Find the administrative units of POINTS.

    POINTS is a CSV or Parquet table with columns latitude and longitude. The rows keep their order and get the columns
    gid_0, gid_1, gid_2, name_0, name_1, name_2 and distance_km: 0 inside the unit, otherwise the distance to the
    nearest one, and empty if none is within the limit.
    """
    from geoloc_core.geo.locating import locate_file

    locate_file(points, boundaries, out, limit_km, index)


@click.group(
    epilog="\b\nExamples:\n  geoloc cells build my.csv --scheme semantic --boundaries gadm --out cells\n"
    "  geoloc cells assign photos.csv --cells cells --out with_cells.csv\n"
    "  geoloc cells map cells --out cells.html"
)
def cells() -> None:
    """Divide the world into cells, and find those of points."""


@cells.command(
    epilog="\b\nExamples:\n  geoloc cells build my.csv --scheme semantic --boundaries gadm --out cells\n"
    "  geoloc cells build photos.parquet --scheme s2 --set tau_max=2000 --boundaries data/boundaries --out s2"
)
@click.argument("points", type=PATH)
@click.option("--scheme", required=True, help="admin, grid, quadtree, s2 or semantic.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="A parameter of the scheme; the value is YAML."
)
@click.option("--boundaries", required=True, type=PATH, help="Folder from `geoloc boundaries`.")
@click.option("--out", required=True, type=PATH, help="Folder to write.")
def build(points: Path, scheme: str, settings: tuple[str, ...], boundaries: Path, out: Path) -> None:
    """Build cells from POINTS.

    POINTS is a CSV or Parquet file with the columns `latitude` and `longitude`.
    """
    from geoloc_core import files, progress
    from geoloc_core.geo import geocells
    from geoloc_core.geo import points as tables

    options = geocells.check({"kind": scheme, **dict(map(_setting, settings))})
    files.check_folder(out, "cells")
    latitudes, longitudes = tables.read(points, "read")
    made = geocells.build(options, latitudes, longitudes, boundaries)
    made.save(out)
    inside = int(made.counts.sum())
    outside = f"; {len(latitudes) - inside:,} points in no cell" if inside < len(latitudes) else ""
    progress.say(f"cells: {len(made):,} from {inside:,} points, the largest {made.counts.max():,}{outside}; {out}")


def _setting(text: str) -> tuple[str, Any]:
    import yaml

    from geoloc_core.yamls import parse_yaml, said

    key, sign, value = text.partition("=")
    if not sign or not key:
        raise UserError(f"--set {text}: expected KEY=VALUE, such as min_points=30")
    try:
        return key, parse_yaml(value)
    except yaml.YAMLError as error:
        raise UserError(
            f"--set {text}: the value is not YAML ({said(error)}); expected a value such as rounds=[[8, 0.05]]"
        ) from None


@cells.command(epilog="\b\nExample:\n  geoloc cells assign photos.csv --cells cells --out with_cells.csv")
@click.argument("points", type=PATH)
@click.option("--cells", "folder", required=True, type=PATH, help="Folder from `geoloc cells build`.")
@click.option("--boundaries", type=PATH, help="The boundaries folder, if it has moved.")
@click.option("--out", required=True, type=PATH, help="CSV or Parquet file to write.")
def assign(points: Path, folder: Path, boundaries: Path | None, out: Path) -> None:
    """Find the cells of POINTS.

    It adds the columns `cell` (a number, −1 outside), `cell_id` and `cell_name`.
    """
    import pyarrow as pa

    from geoloc_core import progress
    from geoloc_core.geo import geocells
    from geoloc_core.geo import points as tables

    added = pa.schema([("cell", pa.int64()), ("cell_id", pa.string()), ("cell_name", pa.string())])
    tables.check(points, out, added)
    made = geocells.load(folder, boundaries)
    ids, names = (pa.array([*texts, ""]) for texts in (made.space.ids, made.space.names))
    rows = inside = 0

    def find(latitudes: "np.ndarray", longitudes: "np.ndarray") -> list[pa.Array]:
        nonlocal rows, inside
        cells = made.assign(latitudes, longitudes)
        rows, inside = rows + len(cells), inside + int((cells >= 0).sum())
        at = pa.array(cells % len(ids))  # −1 takes the last one, which is empty
        return [pa.array(cells), ids.take(at), names.take(at)]

    tables.annotate(points, out, added, find, "assign")
    progress.say(f"cells: {inside:,} of {rows:,} points are in a cell; {out}")


@cells.command(
    name="map",
    epilog="\b\nExamples:\n  geoloc cells map cells --out cells.html\n  geoloc cells map cells --out cells.png",
)
@click.argument("folder", metavar="CELLS", type=PATH)
@click.option("--boundaries", type=PATH, help="The boundaries folder, if it has moved.")
@click.option("--out", required=True, type=PATH, help="File to write, .png or .html; the page works offline.")
def draw(folder: Path, boundaries: Path | None, out: Path) -> None:
    """Draw a map of CELLS: a picture, or a web page that can be zoomed."""
    from geoloc_core import files, progress
    from geoloc_core.geo import geocells, maps

    if out.suffix.lower() not in (".png", ".html"):
        raise UserError(f"{out}: expected a name that ends in .png or .html")
    files.check_file(out)
    made = geocells.load(folder, boundaries)
    maps.draw(made.space, out, shapes=made.shapes(), counts=made.counts)
    progress.say(f"cells: map of {len(made):,} cells; {out}")


@cells.command(epilog="\b\nExample:\n  geoloc cells targets cells --place 61.5 23.8 --out targets.png")
@click.argument("folder", metavar="CELLS", type=PATH)
@click.option("--boundaries", type=PATH, help="The boundaries folder, if it has moved.")
@click.option("--place", required=True, nargs=2, type=float, metavar="LATITUDE LONGITUDE", help="Degrees.")
@click.option("--tau", default=75.0, show_default=True, type=click.FloatRange(min=0, min_open=True), help="Kilometres.")
@click.option("--out", required=True, type=PATH, help="PNG file to write.")
def targets(folder: Path, boundaries: Path | None, place: tuple[float, float], tau: float, out: Path) -> None:
    """Draw how right each of CELLS is for a photo at one place.

    The targets are smoothed by distance.
    """
    from geoloc_core import files, progress
    from geoloc_core.geo import geocells, maps, sphere
    from geoloc_core.geo.smoothing import smoothing

    if out.suffix.lower() != ".png":
        raise UserError(f"{out}: expected a name that ends in .png")
    files.check_file(out)
    latitude, longitude = (axis.tolist() for axis in sphere.check([place[0]], [place[1]]))
    made = geocells.load(folder, boundaries)
    shares = smoothing(made.space.latitudes, made.space.longitudes, tau_km=tau).targets(latitude, longitude)[0].numpy()
    maps.targets(made.space, out, made.shapes(), shares, *place)
    progress.say(
        f"cells: {int((shares >= 0.5).sum()):,} cells are at least half right at {place[0]:g}, {place[1]:g}; {out}"
    )


@cells.command(epilog="\b\nExample:\n  geoloc cells export s2 --out cells_50_5000.csv")
@click.argument("folder", metavar="CELLS", type=PATH)
@click.option("--boundaries", type=PATH, help="The boundaries folder, if it has moved.")
@click.option("--out", required=True, type=PATH, help="CSV file to write.")
def export(folder: Path, boundaries: Path | None, out: Path) -> None:
    """Write S2 CELLS as a CSV in the published format."""
    from geoloc_core import progress
    from geoloc_core.geo import geocells
    from geoloc_core.geo.geocells.schemes import s2

    made = geocells.load(folder, boundaries)
    if not isinstance(made.partition, s2.S2Cells):
        raise UserError(f"{folder}: not S2 cells; expected a folder built with --scheme s2")
    table = s2.published(made.partition.cells, made.counts, made.space.latitudes, made.space.longitudes)
    s2.write_published(table, out)
    progress.say(f"cells: {len(made):,} cells; {out}")
