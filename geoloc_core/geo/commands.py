"""The command group ``geoloc cells``."""

from pathlib import Path
from typing import Any

import click

from geoloc_core.errors import UserError

PATH = click.Path(path_type=Path)


@click.group(
    epilog="\b\nExamples:\n  geoloc cells build photos.csv --scheme semantic --boundaries data/boundaries --out cells\n"
    "  geoloc cells assign photos.csv --cells cells --out with_cells.csv\n"
    "  geoloc cells map cells --out cells.html"
)
def cells() -> None:
    """Divide the world into cells: build them from points, find the cells of points, draw them."""


@cells.command(
    epilog="\b\nExamples:\n  geoloc cells build photos.csv --scheme semantic --boundaries data/boundaries --out cells\n"
    "  geoloc cells build photos.parquet --scheme s2 --set tau_max=2000 --boundaries data/boundaries --out s2"
)
@click.argument("points", type=PATH)
@click.option("--scheme", required=True, help="admin, grid, quadtree, s2 or semantic.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A parameter of the scheme; YAML.")
@click.option("--boundaries", required=True, type=PATH, help="Folder of units, from `geoloc boundaries`.")
@click.option("--out", required=True, type=PATH, help="Folder to write.")
def build(points: Path, scheme: str, settings: tuple[str, ...], boundaries: Path, out: Path) -> None:
    """Build cells from POINTS, a CSV or Parquet file with `latitude` and `longitude`."""
    from geoloc_core import progress
    from geoloc_core.geo import geocells
    from geoloc_core.geo.geocells import points as tables

    options = geocells.check({"kind": scheme, **dict(map(_setting, settings))})
    table = tables.read(points)
    made = geocells.build(options, table["latitude"], table["longitude"], boundaries)
    made.save(out)
    inside = int(made.counts.sum())
    outside = f"; {len(table) - inside:,} points in no cell" if inside < len(table) else ""
    progress.say(f"cells: {len(made):,} from {inside:,} points, the largest {made.counts.max():,}{outside}; {out}")


def _setting(text: str) -> tuple[str, Any]:
    import yaml

    key, sign, value = text.partition("=")
    if not sign or not key:
        raise UserError(f"--set {text}: expected KEY=VALUE, such as min_points=30")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError:
        raise UserError(f"--set {text}: the value is not YAML; expected such as rounds=[[8, 0.05]]") from None


@cells.command(epilog="\b\nExample:\n  geoloc cells assign photos.csv --cells cells --out with_cells.csv")
@click.argument("points", type=PATH)
@click.option("--cells", "folder", required=True, type=PATH, help="Folder from `geoloc cells build`.")
@click.option("--boundaries", type=PATH, help="Folder of units, if it has moved.")
@click.option("--out", required=True, type=PATH, help="CSV or Parquet file to write.")
def assign(points: Path, folder: Path, boundaries: Path | None, out: Path) -> None:
    """Find the cells of POINTS: adds `cell` (a number, −1 outside), `cell_id` and `cell_name`; rows stay in order."""
    import numpy as np

    from geoloc_core import progress
    from geoloc_core.geo import geocells
    from geoloc_core.geo.geocells import points as tables

    made = geocells.load(folder, boundaries)
    table = tables.read(points)
    found = made.assign(table["latitude"], table["longitude"])
    ids, names = (np.array([*texts, ""], dtype=object) for texts in (made.space.ids, made.space.names))
    tables.write(table.assign(cell=found, cell_id=ids[found], cell_name=names[found]), out)
    progress.say(f"cells: {int((found >= 0).sum()):,} of {len(table):,} points are in a cell; {out}")


@cells.command(
    name="map",
    epilog="\b\nExamples:\n  geoloc cells map cells --out cells.html\n  geoloc cells map cells --out cells.png",
)
@click.argument("folder", metavar="CELLS", type=PATH)
@click.option("--boundaries", type=PATH, help="Folder of units, if it has moved.")
@click.option("--out", required=True, type=PATH, help="File to write, .png or .html; the page works offline.")
def draw(folder: Path, boundaries: Path | None, out: Path) -> None:
    """Draw CELLS as a picture or as a page to zoom in."""
    from geoloc_core import progress
    from geoloc_core.geo import geocells, maps

    if out.suffix.lower() not in (".png", ".html"):
        raise UserError(f"{out}: expected a name that ends in .png or .html")
    made = geocells.load(folder, boundaries)
    maps.draw(made.space, out, shapes=made.shapes(), counts=made.counts)
    progress.say(f"cells: map of {len(made):,} cells; {out}")


@cells.command(epilog="\b\nExample:\n  geoloc cells export s2 --out cells_50_5000.csv")
@click.argument("folder", metavar="CELLS", type=PATH)
@click.option("--boundaries", type=PATH, help="Folder of units, if it has moved.")
@click.option("--out", required=True, type=PATH, help="CSV file to write.")
def export(folder: Path, boundaries: Path | None, out: Path) -> None:
    """Write S2 CELLS as the CSV in which such partitions are published."""
    from geoloc_core import progress
    from geoloc_core.geo import geocells
    from geoloc_core.geo.geocells.schemes import s2

    made = geocells.load(folder, boundaries)
    if not isinstance(made.partition, s2.S2Cells):
        raise UserError(f"{folder}: not S2 cells; expected a folder built with --scheme s2")
    table = s2.published(made.partition.cells, made.counts, made.space.latitudes, made.space.longitudes)
    s2.write_published(table, out)
    progress.say(f"cells: {len(made):,} cells; {out}")
