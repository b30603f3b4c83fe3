"""Single maps of the report, asked for: ``geoloc map-cells`` and ``geoloc map-clusters``."""

from pathlib import Path

import numpy as np

from geoloc_core.contracts import geolocator
from geoloc_core.errors import UserError
from geoloc_core.evaluation import answered
from geoloc_core.evaluation.report import around, world
from geoloc_core.evaluation.report.around import Around, Window
from geoloc_core.evaluation.report.variants import of_classes
from geoloc_core.files import check_file, replacing
from geoloc_core.geo import sphere
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.params import entry
from geoloc_core.progress import say
from geoloc_core.project import Project
from geoloc_core.report import render
from geoloc_core.variants import answers, inputs

TEMPLATE = "evaluation/report/drawn.html"


def map_cells(project: Project, variant: str, benchmark: str | None, photo: str | None, out: Path) -> None:
    """Write a map of the cells around a photo's true place.

    Raises:
        UserError: The variant answers with no cells, has not answered, or there is no such photo with a place.
    """
    _check(out)
    space, shapes = _cells(project, variant)
    known = list(answers.note(project, variant).benchmarks)
    wanted = [project.profile.registry.benchmark, *project.profile.benchmarks, *known]
    benchmark = benchmark or next(name for name in wanted if name in known)
    if benchmark not in known:
        raise UserError(f"benchmark {benchmark!r}: not answered by {variant}; expected one of: {', '.join(known)}")
    told = answered.read(project, variant, benchmark)
    placed = np.flatnonzero(np.isfinite(told.errors_km))
    if photo is not None:
        placed = placed[told.ids[placed] == photo]
        if not len(placed):
            raise UserError(f"photo {photo!r}: not among the photos of {benchmark} with a known place")
    elif not len(placed):
        raise UserError(f"{benchmark}: none of its photos has a known place")
    row = placed[np.argsort(told.errors_km[placed], kind="stable")[(len(placed) - 1) // 2]]
    classes, shares = (
        answers.column(project, variant, benchmark, name)[int(row)].as_py() for name in ("classes", "probabilities")
    )
    title = f"Probabilities of cells around the true place, {told.ids[row]} of {benchmark}"
    place, answer = ((float(axes[0][row]), float(axes[1][row])) for axes in (told.true, told.answer))
    drawn = around.probabilities(title, space, shapes, classes, np.array(shares, np.float64), place, answer)
    _write(project, variant, drawn, out)


def map_clusters(project: Project, variant: str, place: tuple[float, float] | None, km: float, out: Path) -> None:
    """Write a map of the clusters of training photos of a region.

    Raises:
        UserError: The variant has not been trained or has no clusters, or the place is none.
    """
    _check(out)
    window = None
    if place is not None:
        latitude, longitude = (axis.tolist()[0] for axis in sphere.check([place[0]], [place[1]]))
        window = Window(latitude, longitude, km)
    space, shapes = _cells(project, variant)
    folder = project.model(variant)
    if (found := geolocator.clusters(folder, f"run `geoloc train {variant}` first")) is None:
        kind = project.profile.variants[variant].kind
        raise UserError(f"variant {variant}: a {kind} has no clusters; expected one such as a protonet_refinement")
    drawn = around.clusters(f"Prototype clusters of {variant}", *of_classes(folder, space, shapes), found, window)
    _write(project, variant, drawn, out)


def _check(out: Path) -> None:
    if out.suffix.lower() != ".html":
        raise UserError(f"{out}: expected a name that ends in .html")
    check_file(out)


def _cells(project: Project, variant: str) -> tuple[LabelSpace, np.ndarray]:
    block = entry(project.profile.variants, variant, "variant")
    labels = block.needs().labels
    made = inputs.cells(project, labels, block.corpus)
    if made is None:
        raise UserError(f"variant {variant}: answers with {labels}; expected one that answers with cells")
    return made.space, made.shapes()


def _write(project: Project, variant: str, drawn: Around, out: Path) -> None:
    mark = "Rendered world, not real photos" if project.profile.demo else ""
    known = world.outlines()
    text = render.document(TEMPLATE, map=drawn, mark=mark, outlines=known, made_of=known.made_of, variant=variant)
    with replacing(out) as aside:
        aside.write_text(text, encoding="utf-8")
    say(f"{variant}: {drawn.about}; {out}")
