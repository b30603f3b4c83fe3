"""The command ``geoloc explain``: photos, or those of a benchmark, explained in a folder of pictures and one page."""

import re
from collections.abc import Sequence
from pathlib import Path

from geoloc_core.errors import UserError
from geoloc_core.evaluation import answered
from geoloc_core.evaluation.examples import examples
from geoloc_core.explain import explanation, overlay, page
from geoloc_core.explain.explanation import Explanation, Question
from geoloc_core.files import check_folder, replacing_folder
from geoloc_core.params import entry
from geoloc_core.plots import save
from geoloc_core.progress import say
from geoloc_core.project import Project
from geoloc_core.serving import bundle as bundles
from geoloc_core.serving.answer import read_photos
from geoloc_core.serving.bundle import Bundle
from geoloc_core.variants import answers

CHAMPION = "champion"
PAGE = "explanations.html"


def explain(
    project: Project,
    paths: Sequence[Path],
    benchmark: str | None,
    each: int,
    variant: str,
    methods: Sequence[str],
    samples: int,
    of: str | None,
    out: Path,
) -> Path:
    """Explain photos, or the best, median and worst of a benchmark, and return the page.

    Args:
        project: The project.
        paths: Of the photos; none where a benchmark is named.
        benchmark: Whose photos are explained.
        each: How many of the best, of the median and of the worst.
        variant: Its name, or :data:`CHAMPION`.
        methods: That are asked for; none for all that apply.
        samples: Of LIME.
        of: The id of the class to explain; left out, each photo's answer.
        out: The folder to write: the page, and a PNG per photo and map.

    Raises:
        UserError: No photo is named or cannot be read; the variant has not been trained or has not answered the
            benchmark; a method does not apply; or the folder cannot be written.
    """
    if bool(paths) == (benchmark is not None):
        raise UserError("expected photos or --benchmark, one of both: `geoloc explain PHOTO…`")
    check_folder(out, "explanations")
    encoded = read_photos(paths)
    bundle, model = _opened(project, variant)
    if benchmark is None:
        questions = [Question(path.name, photo) for path, photo in zip(paths, encoded, strict=True)]
    else:
        questions = of_benchmark(project, bundle.variant, benchmark, each)
    with explanation.opened(project, bundle, samples) as subject:
        wanted, lacking = explanation.chosen(subject, methods)
        found = explanation.explain(subject, questions, wanted, of)
    with replacing_folder(out, "explanations") as aside:
        aside.mkdir()
        (aside / PAGE).write_text(page.html(bundle, model, found, lacking), encoding="utf-8")
        for number, one in enumerate(found, start=1):
            _save_maps(one, number, aside)
    for method, reason in lacking.items():
        say(f"explain: no {explanation.METHODS[method]}: {reason}")
    for one in found:
        for of_method in one.maps:
            say(f"explain: {one.question.name}: {explanation.MAPS[of_method.method]}: {of_method.check.verdict}")
    return out / PAGE


def _opened(project: Project, variant: str) -> tuple[Bundle, str]:
    """A model, and what it is called."""
    if variant != CHAMPION:
        project.profile.variant(variant)
        return bundles.of_project(project, variant), variant
    from geoloc_core.registry import promotion

    version, folder = promotion.champion(project)
    found = bundles.load(folder)
    return found, f"{project.profile.registry.model} version {version}: {found.variant}"


def of_benchmark(project: Project, variant: str, benchmark: str, each: int) -> list[Question]:
    """The photos of a benchmark that a variant answered best, in the middle and worst, by distance.

    Raises:
        UserError: It has not answered the benchmark, or no photo of it has a place.
    """
    asked = entry(answers.note(project, variant).benchmarks, benchmark, "benchmark", f"the answers of {variant}")
    found = examples(project, variant, asked.corpus, answered.read(project, variant, benchmark), each)
    return [Question(one.image_id, one.photo, one.place, f"{one.why}: {one.km:,.0f} km") for one in found]


def _save_maps(found: Explanation, number: int, folder: Path) -> None:
    photo = overlay.shown(found.pixels)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(found.question.name).stem)[:40].strip("-.") or "photo"
    for one in found.maps:
        picture = overlay.beside(photo, overlay.heated(photo, one.values))
        save(picture, folder / f"{number:02d}-{name}-{one.method}.png")
