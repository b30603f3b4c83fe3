"""The one look of all pictures: small, quiet, the same bytes for the same data."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoloc_core.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLE = {
    "figure.dpi": 110,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.prop_cycle": "cycler('color', ['#1f6f8b', '#e07a5f', '#3d405b', '#81b29a', '#f2cc8f', '#7b6d8d'])",
}


@contextmanager
def picture(path: Path, width: float = 6, height: float = 3.2) -> Iterator["Axes"]:
    """Draw on the axes and save them as PNG when the block ends.

    Args:
        path: The PNG to write.
        width: Inches.
        height: Inches.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure.subplots()
        with replacing(path) as aside:
            figure.savefig(aside, format="png", metadata={"Software": None})


def world_map(axes: "Axes", latitudes: Any, longitudes: Any, **style: Any) -> None:
    """Points on a plain longitude–latitude frame.

    Args:
        axes: Where to draw.
        latitudes: (N,) degrees.
        longitudes: (N,) degrees.
        style: Passed on to ``scatter``.
    """
    axes.scatter(longitudes, latitudes, **{"s": 3, "alpha": 0.5, "linewidths": 0, **style})
    axes.set(xlim=(-180, 180), ylim=(-90, 90), xticks=range(-180, 181, 60), yticks=range(-90, 91, 30))
