"""Maps of label spaces: a picture, or one page that works offline, to zoom, move and ask in."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoloc_core import files, plots
from geoloc_core.errors import UserError
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.report import render

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ["#7fb3c8", "#efb29e", "#a3cbb5", "#f5dfa8", "#b9adc6", "#9aa3b8", "#d8c3a5", "#c7d98f", "#e5a9bd", "#8fc9c0"]
"""Neighbours get different ones; the first are used most."""
FINE, VERTICES = 0.01, 400_000
"""Degrees that shapes are simplified by, doubled until no more vertices remain: about 4 MB of page."""
SHOWN = 0.001
"""Classes with a smaller part of the highest target are left out of its picture."""
SCALE = 1000
"""Coordinates in the page are thousandths of a degree."""


def draw(space: LabelSpace, path: Path, shapes: np.ndarray | None = None, counts: np.ndarray | None = None) -> None:
    """Draw a label space.

    Args:
        space: C classes.
        path: The ``.png`` or ``.html`` to write.
        shapes: (C,) polygons in degrees; without them, or where one is None, a class is a point.
        counts: (C,) training points of each class.

    Raises:
        UserError: The file is to be of another kind.
    """
    ways = {".png": picture, ".html": page}
    if path.suffix.lower() not in ways:
        raise UserError(f"{path}: expected a name that ends in .png or .html")
    none = np.full(len(space), None, dtype=object)
    ways[path.suffix.lower()](space, path, none if shapes is None else simplified(shapes), counts)


def simplified(shapes: np.ndarray) -> np.ndarray:
    """Polygons (C,) with fewer vertices; borders that polygons share stay shared."""
    import shapely

    there = np.flatnonzero(~(shapely.is_missing(shapes) | shapely.is_empty(shapes)))
    found: np.ndarray = np.full(len(shapes), None, dtype=object)
    found[there] = _polygonal(shapely.set_precision(shapes[there], 1 / SCALE))
    tolerance = FINE
    while shapely.get_num_coordinates(found[there]).sum() > VERTICES and tolerance < 1:
        found[there] = shapely.coverage_simplify(found[there], tolerance)
        tolerance *= 2
    lost = there[shapely.is_empty(found[there])]
    found[lost] = shapely.envelope(shapes[lost])
    return found


def _polygonal(shapes: np.ndarray) -> np.ndarray:
    """What of shapes (C,) has an area, as multipolygons."""
    import shapely

    parts, shape = shapely.get_parts(shapes, return_index=True)
    parts, part = shapely.get_parts(parts, return_index=True)
    solid = shapely.get_dimensions(parts) == 2
    found: np.ndarray = np.full(len(shapes), shapely.MultiPolygon(), dtype=object)
    return shapely.multipolygons(parts[solid], indices=shape[part[solid]], out=found)


def colours(shapes: np.ndarray) -> np.ndarray:
    """Numbers (C,) into :data:`COLOURS`: neighbours differ as long as the colours suffice."""
    import shapely

    from geoloc_core.geo.geocells.voronoi import Graph

    there = np.flatnonzero(~shapely.is_missing(shapes))
    chosen = np.arange(len(shapes)) % len(COLOURS)
    if not len(there):
        return chosen
    first, second = shapely.STRtree(shapes[there]).query(shapes[there], predicate="intersects")
    graph = Graph.of(np.stack([first, second], axis=1), len(there))
    colour = np.full(len(there), -1)
    for cell in np.argsort(-np.diff(graph.starts), kind="stable"):
        near = colour[graph.neighbours[graph.starts[cell] : graph.starts[cell + 1]]]
        colour[cell] = np.bincount(near[near >= 0], minlength=len(COLOURS))[: len(COLOURS)].argmin()
    chosen[there] = colour
    return chosen


def summary(counts: np.ndarray) -> str:
    """How large C classes are, in a line."""
    low, middle, high = (f"{value:,.0f}" for value in (counts.min(), np.median(counts), counts.max()))
    return f"{counts.sum():,} points; per cell {low} to {high}, median {middle}"


def picture(space: LabelSpace, path: Path, shapes: np.ndarray, counts: np.ndarray | None) -> None:
    """The map as PNG, with how the sizes are spread."""
    chosen = colours(shapes)
    with plots.picture(path, 13, 7.2) as axes:
        _fill(axes, shapes, np.array(COLOURS)[chosen])
        bare = np.array([shape is None for shape in shapes])
        plots.world_map(axes, space.latitudes[bare], space.longitudes[bare], c=np.array(COLOURS)[chosen[bare]])
        axes.set(aspect="equal", xlabel="", ylabel="")
        _frame(axes, space, shapes)
        axes.set_title(f"{len(space):,} {space.kind}s" + (f"   {summary(counts)}" if counts is not None else ""))
        if counts is not None and counts.max() > 0:
            _sizes(axes, counts)


def targets(
    space: LabelSpace, path: Path, shapes: np.ndarray, shares: np.ndarray, latitude: float, longitude: float
) -> None:
    """How right each class around a place is, as a picture: figure 2 of PIGEON's poster (Haas et al. 2022).

    Args:
        space: C classes.
        path: The ``.png`` to write.
        shapes: (C,) polygons in degrees, or None.
        shares: (C,) from 0 to 1.
        latitude: Of the place, degrees.
        longitude: Of the place, degrees.
    """
    import matplotlib as mpl

    near = np.flatnonzero(shares >= SHOWN * shares.max())
    drawn = simplified(shapes[near])
    colour = mpl.colormaps["viridis_r"](shares[near] / shares.max())
    with plots.picture(path, 8, 6.5) as axes:
        _fill(axes, drawn, colour)
        bare = np.array([shape is None for shape in drawn], bool)
        axes.scatter(space.longitudes[near][bare], space.latitudes[near][bare], c=colour[bare], s=60)
        axes.plot(longitude, latitude, marker="*", ms=14, color="#d1495b", mec="white")
        axes.set(aspect=1 / max(0.1, np.cos(np.radians(latitude))), xlabel="longitude", ylabel="latitude")
        axes.autoscale_view()
        scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, shares.max()), "viridis_r")
        axes.figure.colorbar(scale, ax=axes, label="target")
        axes.set_title(f"{len(near):,} of {len(space):,} {space.kind}s around {latitude:.3f}, {longitude:.3f}")


def _frame(axes: "Axes", space: LabelSpace, shapes: np.ndarray) -> None:
    """Look at where the classes are, when they are in one part of the world."""
    import shapely

    west, south, east, north = shapely.total_bounds(shapes) if any(s is not None for s in shapes) else [np.nan] * 4
    if not np.isfinite(west):
        west, east = space.longitudes.min(), space.longitudes.max()
        south, north = space.latitudes.min(), space.latitudes.max()
    pad = 0.03 * max(east - west, north - south, 1)
    if east - west < 120:
        axes.set(xlim=(west - pad, east + pad), ylim=(south - pad, north + pad))
        axes.set_xticks(_ticks(west, east), minor=False)
        axes.set_yticks(_ticks(south, north), minor=False)


def _ticks(low: float, high: float) -> np.ndarray:
    from matplotlib.ticker import MaxNLocator

    return np.asarray(MaxNLocator(6).tick_values(low, high))


def _fill(axes: "Axes", shapes: np.ndarray, colour: np.ndarray) -> None:
    """Polygons (C,) filled, with thin white borders."""
    import shapely
    from matplotlib.collections import PathCollection
    from matplotlib.path import Path as Outline

    there = np.flatnonzero(~shapely.is_missing(shapes))
    outlines = []
    for shape in shapes[there]:
        rings = shapely.get_rings(shapely.get_parts(shape))
        xy, ring = shapely.get_coordinates(rings, return_index=True)
        codes = np.full(len(xy), Outline.LINETO)
        codes[np.flatnonzero(np.diff(ring, prepend=-1))] = Outline.MOVETO
        outlines.append(Outline(xy, codes))
    width = 0.25 if len(there) > 500 else 0.6
    axes.add_collection(PathCollection(outlines, facecolors=colour[there], edgecolors="white", linewidths=width))


def _sizes(axes: "Axes", counts: np.ndarray) -> None:
    """A small histogram of the classes' sizes in the empty Pacific; empty classes are not in it."""
    inset = axes.inset_axes((0.035, 0.09, 0.17, 0.24))
    inset.patch.set_alpha(0.9)
    edges = np.unique(np.round(np.geomspace(1, counts.max() + 1, 24)))
    inset.hist(counts, bins=edges.tolist())
    inset.set_xscale("log")
    inset.grid(visible=False)
    inset.tick_params(labelsize=7)
    inset.set_title("cells by points", fontsize=8, fontweight="normal")


def page(space: LabelSpace, path: Path, shapes: np.ndarray, counts: np.ndarray | None) -> None:
    """The map as one HTML file without any reference to the network."""
    levels = {level: ids for level, ids in space.levels.items() if level != "country"}
    data: dict[str, Any] = {
        "kind": space.kind,
        "ids": space.ids,
        "names": space.names,
        "levels": {"country": space.parents, **levels},
        "counts": None if counts is None else counts.tolist(),
        "summary": "" if counts is None else summary(counts),
        "places": np.round(np.column_stack([space.longitudes, space.latitudes]), 4).tolist(),
        "colours": colours(shapes).tolist(),
        "palette": COLOURS,
        "scale": SCALE,
        "rings": [_rings(shape) for shape in shapes],
    }
    with files.replacing(path) as aside:
        aside.write_text(render.document("geo/maps.html", data=data), encoding="utf-8")


def _rings(shape: Any) -> list[list[int]]:
    """Rings as steps from vertex to vertex, x and y in turn, in thousandths of a degree; the first from (0, 0)."""
    import shapely

    if shape is None:
        return []
    xy, ring = shapely.get_coordinates(shapely.get_rings(shapely.get_parts(shape)), return_index=True)
    parts = np.split(np.round(xy * SCALE).astype(np.int64), np.flatnonzero(np.diff(ring)) + 1)
    return [np.diff(part[:-1], axis=0, prepend=[[0, 0]]).ravel().tolist() for part in parts]
