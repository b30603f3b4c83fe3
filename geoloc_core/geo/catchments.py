"""The part of the sphere that is nearest to each of many places, cut off at a distance."""

import numpy as np

from geoloc_core.geo import sphere

CLOSEST_KM = 0.1
"""Places nearer than this count as one: their border would drown in rounding."""
GRID = 1e-6
"""Degrees that vertices snap to (0.1 m), so that neighbours share theirs exactly."""


def distinct(latitudes: np.ndarray, longitudes: np.ndarray) -> np.ndarray:
    """Which of N places to keep so that no two coincide: (N,) bool, the earlier of two is kept."""
    from scipy.spatial import cKDTree

    tree = cKDTree(sphere.unit_vectors(latitudes, longitudes))
    pairs = tree.query_pairs(float(sphere.chord(CLOSEST_KM)), output_type="ndarray")
    keep = np.ones(len(latitudes), dtype=bool)
    keep[pairs.max(axis=1)] = False
    return keep


def catchments(latitudes: np.ndarray, longitudes: np.ndarray, reach_km: np.ndarray) -> np.ndarray:
    """The polygons nearer to each place than to any other, within its reach.

    Args:
        latitudes: (N,) degrees, no two places the same (:func:`distinct`).
        longitudes: (N,) degrees.
        reach_km: (N,) great-circle distances, up to 1,500 km. No pole may be within reach.

    Returns:
        (N,) shapely polygons in degrees (x longitude, y latitude), valid, in two parts where they cross the
        antimeridian.
    """
    import shapely

    places = sphere.unit_vectors(latitudes, longitudes)
    east, north = sphere.tangents(latitudes, longitudes)
    vertices, owner = _voronoi(places, float(reach_km.max()))
    # In the gnomonic plane around its place a cell is a plain convex polygon and a cap of the sphere a disc.
    # The planes are scaled so that the disc of every place's reach is the unit disc.
    scale = np.tan(reach_km / sphere.EARTH_KM)[:, None]
    depth = np.einsum("vk,vk->v", vertices, places[owner])[:, None]
    flat = np.stack([np.einsum("vk,vk->v", vertices, axis[owner]) for axis in (east, north)], axis=1)
    cells = shapely.polygons(shapely.linearrings(flat / depth / scale[owner], indices=owner))
    cells = shapely.intersection(shapely.make_valid(cells), shapely.Point(0, 0).buffer(1, quad_segs=16))
    flat, owner = shapely.get_coordinates(cells, return_index=True)
    x, y = (flat * scale[owner]).T[..., None]
    lat, lon = sphere.coordinates(places[owner] + x * east[owner] + y * north[owner])
    lon = longitudes[owner] + sphere.wrap(lon - longitudes[owner])
    return shapely.set_precision(fold(shapely.set_coordinates(cells, np.stack([lon, lat], axis=1))), GRID)


def fold(polygons: np.ndarray) -> np.ndarray:
    """Polygons (N,) that reach beyond ±180° cut there, what was beyond moved to the other side."""
    import shapely

    west, _, east, _ = shapely.bounds(polygons).T
    across = (west < -180) | (east > 180)
    folded = polygons.copy()
    folded[across] = shapely.union_all([_turn(polygons[across], turn) for turn in (-360, 0, 360)], axis=0)
    return folded


def _turn(polygons: np.ndarray, degrees: float) -> np.ndarray:
    """What polygons have between ±180° once they are turned eastwards."""
    import shapely

    part = shapely.intersection(polygons, shapely.box(-180 - degrees, -90, 180 - degrees, 90))
    return shapely.transform(part, lambda xy: xy + np.array([degrees, 0]))


def _voronoi(places: np.ndarray, reach_km: float) -> tuple[np.ndarray, np.ndarray]:
    """Corners (V, 3) of the places' cells, in order around each, and the place (V,) of each corner."""
    from scipy.spatial import SphericalVoronoi, cKDTree

    # Fillers in the empty oceans keep every cell within a hemisphere. More than twice the reach from all
    # places, they change nothing within reach.
    fillers = sphere.lattice(2 * reach_km)
    distance, _ = cKDTree(places).query(fillers)
    fillers = fillers[distance > sphere.chord(2.01 * reach_km)]
    voronoi = SphericalVoronoi(np.concatenate([places, fillers]), threshold=1e-9)
    voronoi.sort_vertices_of_regions()
    regions = voronoi.regions[: len(places)]
    owner = np.repeat(np.arange(len(places)), [len(region) for region in regions])
    return voronoi.vertices[np.concatenate(regions)], owner
