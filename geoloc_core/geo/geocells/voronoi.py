"""The Delaunay graph of places within a region of the sphere, and the borders between labelled Voronoi cells."""

from dataclasses import dataclass

import numpy as np

from geoloc_core.geo import sphere


@dataclass(frozen=True)
class Graph:
    """Which of V places are neighbours.

    Attributes:
        starts: (V + 1,) where each place's neighbours start.
        neighbours: (E,) places, ascending for each place.
    """

    starts: np.ndarray
    neighbours: np.ndarray

    @classmethod
    def of(cls, pairs: np.ndarray, count: int) -> "Graph":
        """The graph of edges (E, 2) among ``count`` places, in whatever order and number."""
        both = np.concatenate([pairs, pairs[:, ::-1]])
        codes = np.unique(both[:, 0] * count + both[:, 1])
        first, second = codes // count, codes % count
        keep = first != second
        starts = np.concatenate([[0], np.cumsum(np.bincount(first[keep], minlength=count))])
        return cls(starts.astype(np.int64), second[keep].astype(np.int64))


def flatten(vectors: np.ndarray) -> np.ndarray:
    """Stereographic projection (V, 2) of unit vectors (V, 3) about their middle, scaled to about one.

    It maps circles to circles, so the Delaunay triangles of the plane are those of the sphere.
    """
    middle = vectors.mean(axis=0)
    latitude, longitude = sphere.coordinates(middle)
    east, north = sphere.tangents(latitude, longitude)
    up = middle / max(float(np.linalg.norm(middle)), 1e-12)
    plane = np.stack([vectors @ east, vectors @ north], axis=1) / np.maximum(1 + vectors @ up, 1e-9)[:, None]
    return plane / max(float(np.abs(plane).max()), 1e-12)


def triangles(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Delaunay triangles (T, 3) of V distinct places, and pairs (P, 2) that tie in what triangles leave out.

    Places on one line, or as good as coincident, have no triangle: pairs join them to the nearest ones.
    """
    from scipy.spatial import Delaunay, QhullError

    plane = flatten(vectors)
    if len(vectors) > 2:
        try:
            made = Delaunay(plane)
        except QhullError:
            pass
        else:
            return made.simplices.astype(np.int64), made.coplanar[:, [0, 2]].astype(np.int64)
    along = np.argsort(plane @ _main_axis(plane), kind="stable")
    return np.empty((0, 3), dtype=np.int64), np.stack([along[:-1], along[1:]], axis=1)


def _main_axis(plane: np.ndarray) -> np.ndarray:
    _, _, axes = np.linalg.svd(plane - plane.mean(axis=0), full_matrices=False)
    return axes[0]


def graph(vectors: np.ndarray) -> Graph:
    """The Delaunay graph of distinct places (V, 3) within a hemisphere; it is connected."""
    corners, pairs = triangles(vectors)
    edges = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]], pairs])
    return Graph.of(edges, len(vectors))


def cut_up(outline: object, latitudes: np.ndarray, longitudes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A polygon divided among labels by the nearest of their places.

    Args:
        outline: A polygon in degrees.
        latitudes: (V,) degrees, distinct places.
        longitudes: (V,) degrees.
        labels: (V,) 0 … L − 1.

    Returns:
        (L,) polygons in degrees that together are the outline.
    """
    import shapely
    from scipy.spatial import cKDTree

    vectors = sphere.unit_vectors(latitudes, longitudes)
    lines = np.concatenate([np.atleast_1d(shapely.boundary(outline)), _borders(vectors, labels)])
    faces = shapely.get_parts(shapely.polygonize([shapely.union_all(lines, grid_size=GRID)]))
    inside = shapely.point_on_surface(faces)
    kept = shapely.intersects(outline, inside)
    faces, inside = faces[kept], inside[kept]
    _, nearest = cKDTree(vectors).query(sphere.unit_vectors(shapely.get_y(inside), shapely.get_x(inside)))
    owner = labels[nearest]
    return np.array([shapely.union_all(faces[owner == label]) for label in range(labels.max() + 1)], dtype=object)


GRID = 1e-7
"""Degrees (1 cm) that lines snap to, so that those that should meet do."""
STEP_KM = 10.0
"""Great circles become straight lines in degrees that are no longer than this."""
FAR_KM = 4000.0
"""How far the borders between the outermost places are drawn."""


def _borders(vectors: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The lines in degrees along which the Voronoi cells (V, 3) of different labels (V,) meet."""
    corners, _ = triangles(vectors)
    centres = _circumcentres(vectors, corners)
    edges = np.sort(np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]]), axis=1)
    face, third = np.tile(np.arange(len(corners)), 3), np.concatenate([corners[:, 2], corners[:, 0], corners[:, 1]])
    order = np.lexsort([edges[:, 1], edges[:, 0]])
    edges, face, third = edges[order], face[order], third[order]
    twin = np.append((edges[1:] == edges[:-1]).all(axis=1), False)
    first = twin | ~np.append(False, twin[:-1]) if len(edges) else twin
    meet = labels[edges[:, 0]] != labels[edges[:, 1]]
    both, outer = np.flatnonzero(first & twin & meet), np.flatnonzero(first & ~twin & meet)
    ends = _outwards(vectors, edges[outer], third[outer], centres[face[outer]])
    starts = np.concatenate([centres[face[both]], centres[face[outer]]])
    ends = np.concatenate([centres[face[both + 1]], ends])
    if not len(corners):
        starts, ends = _bisectors(vectors, labels)
    return _arcs(starts, ends) if len(starts) else np.empty(0, dtype=object)


def _circumcentres(vectors: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Points (T, 3) as far from each corner of triangles (T, 3), on the triangles' side of the sphere."""
    a, b, c = vectors[corners].transpose(1, 0, 2)
    normal = np.cross(b - a, c - a)
    normal *= np.sign(np.einsum("tk,tk->t", normal, vectors.mean(axis=0)[None]))[:, None]
    return normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-300)


def _outwards(vectors: np.ndarray, edges: np.ndarray, third: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Where the borders between outermost neighbours (E, 2) end, away from their triangles' third corners."""
    across = vectors[edges[:, 1]] - vectors[edges[:, 0]]
    middle = vectors[edges].mean(axis=1)
    middle /= np.linalg.norm(middle, axis=1, keepdims=True)
    sense = np.sign(np.einsum("ek,ek->e", np.cross(middle, across), middle - vectors[third]))
    along = np.cross(centres, across)
    along *= (sense / np.maximum(np.linalg.norm(along, axis=1), 1e-300))[:, None]
    # The centre of a flat triangle may lie far off, on either side. A border drawn too far does no harm.
    there = np.arccos(np.clip(np.einsum("ek,ek->e", centres, middle), -1, 1))
    angle = np.minimum(there + FAR_KM / sphere.EARTH_KM, 3.0)[:, None]
    return np.cos(angle) * centres + np.sin(angle) * along


def _bisectors(vectors: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of the borders between places on one line."""
    _, pairs = triangles(vectors)
    pairs = pairs[labels[pairs[:, 0]] != labels[pairs[:, 1]]]
    middle = vectors[pairs].mean(axis=1)
    middle /= np.linalg.norm(middle, axis=1, keepdims=True)
    along = np.cross(middle, vectors[pairs[:, 1]] - vectors[pairs[:, 0]])
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    angle = FAR_KM / sphere.EARTH_KM
    return tuple(np.cos(angle) * middle + sign * np.sin(angle) * along for sign in (-1, 1))


def _arcs(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Great circles (A, 3) → (A, 3) as lines (L,) in degrees.

    One across the antimeridian goes on beyond ±180°, and comes a second time, turned to the other side.
    """
    import shapely

    angle = 2 * np.arcsin(np.clip(np.linalg.norm(ends - starts, axis=1) / 2, 0, 1))
    steps = np.maximum(1, np.ceil(angle * sphere.EARTH_KM / STEP_KM)).astype(np.int64)
    line = np.repeat(np.arange(len(starts)), steps + 1)
    first = np.cumsum(steps + 1) - (steps + 1)
    share = ((np.arange(len(line)) - first[line]) / steps[line])[:, None]
    full = np.maximum(angle, 1e-12)[line][:, None]
    points = np.sin((1 - share) * full) * starts[line] + np.sin(share * full) * ends[line]
    latitudes, longitudes = sphere.coordinates(points)
    step = np.diff(longitudes, prepend=0)
    step[first] = 0
    turns = np.cumsum(np.round(step / 360)) * 360
    longitudes = longitudes - (turns - turns[first][line])
    lines = shapely.linestrings(np.column_stack([longitudes, latitudes]), indices=line)
    west, _, east, _ = shapely.bounds(lines).T
    copies = [(lines[west < -180], 360.0), (lines[east > 180], -360.0)]
    turned = [shapely.transform(some, lambda xy, by=by: xy + np.array([by, 0])) for some, by in copies]
    return np.concatenate([lines, *turned])
