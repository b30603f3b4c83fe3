"""The stage ``geoloc fit-cells NAME CORPUS``: geocells of any scheme, fitted to the training photos of a corpus."""

import numpy as np

from geoloc_core import files
from geoloc_core.corpora import truth
from geoloc_core.errors import UserError
from geoloc_core.params import entry
from geoloc_core.progress import say
from geoloc_core.project import Project
from geoloc_core.sets import Split


def fit_cells(project: Project, name: str, corpus: str) -> None:
    """Build cells from where the training photos of a corpus were taken.

    Raises:
        UserError: There are no such cells or no such corpus, or no training photo has coordinates.
    """
    from geoloc_core.geo import geocells, maps

    options = entry(project.profile.cells, name, "cells")
    entry(project.profile.corpora, corpus, "corpus")
    files.check_folder(project.cells(name, corpus), "cells")
    known = truth.read(project, corpus, ["latitude", "longitude", "split"])
    latitudes, longitudes = (known[axis].to_numpy() for axis in ("latitude", "longitude"))
    train = np.array(known["split"].to_pylist()) == Split.TRAIN
    placed = train & np.isfinite(latitudes) & np.isfinite(longitudes)
    if not placed.any():
        raise UserError(
            f"{project.truth(corpus)}: no training photo with coordinates; expected some to build cells from"
        )
    made = geocells.build(options, latitudes[placed], longitudes[placed], project.boundaries)
    made.save(project.cells(name, corpus))
    figures = {
        "cells": len(made),
        "photos": int(made.counts.sum()),
        "in_no_cell": int(placed.sum() - made.counts.sum()),
        "median_photos": float(np.median(made.counts)),
        "largest": int(made.counts.max()),
    }
    files.write_json(project.summary("cells", f"{name}-{corpus}"), figures)
    maps.draw(made.space, project.plot("cells", f"{name}-{corpus}"), shapes=made.shapes(), counts=made.counts)
    say(
        f"cells {name}: {len(made):,} from {figures['photos']:,} photos of {corpus}, the largest {figures['largest']:,}"
    )
