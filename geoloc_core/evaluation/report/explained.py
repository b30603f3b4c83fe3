"""Why a variant answered the photos of its page as it did: a map with its checks, and what else its family can tell."""

from collections.abc import Sequence
from dataclasses import dataclass

from geoloc_core.evaluation.examples import Example
from geoloc_core.explain import explanation, overlay, page
from geoloc_core.explain.explanation import Explanation, Question, Subject
from geoloc_core.explain.faithfulness import Check
from geoloc_core.explain.page import Neighbour, ShownMap
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.project import Project
from geoloc_core.serving import bundle as bundles

LONGEST = 240
"""Longer edge of a photo and of its map, pixels."""
NEAR_LONGEST = 80
"""Longer edge of a training photo, pixels."""
NEAREST = 3
"""Training photos that are shown."""
LINES = 4
"""Pieces of evidence, and of a photo, that are told."""
ONE_VIEW = "Of this photo alone; of a place with several views, the variant was asked about all of them."


@dataclass(frozen=True)
class Why:
    """Why a photo was answered so.

    Attributes:
        answer: What is explained.
        picture: The photo as large as its map.
        map: The map with its checks.
        check: What its checks came to.
        notes: What else is to be known of the map.
        evidence: What the answer rests on, as the model names it, most first.
        pieces: The pieces that have a vote, and for what, the largest first.
        neighbours: The nearest training photos.
    """

    answer: str
    picture: str
    map: ShownMap
    check: Check
    notes: tuple[str, ...]
    evidence: tuple[str, ...]
    pieces: tuple[str, ...]
    neighbours: tuple[Neighbour, ...]


def is_here(project: Project, variant: str) -> bool:
    """Whether a model, the models that it reads and their encoders are on this machine."""
    needs = project.profile.variants[variant].needs()
    weights = (project.weights(name) for name in needs.encoded)
    whole = project.model(variant).is_dir() and all(path.is_dir() for path in weights)
    return whole and all(is_here(project, member) for member in needs.members)


def explained(project: Project, variant: str, photos: Sequence[Example]) -> list[Why]:
    """Explain the answers to photos, each by the one map that fits the variant best.

    Raises:
        UserError: The model, its encoders or a photo are damaged, or do not fit each other.
    """
    if not photos:
        return []
    bundle = bundles.of_project(project, variant)
    with explanation.opened(project, bundle) as subject:
        questions = [Question(one.image_id, one.photo, one.place) for one in photos]
        found = explanation.explain(subject, questions, methods(subject))
    told = ONE_VIEW if project.profile.unit(variant) == "place" else ""
    return [why(one, bundle.labelspace, told) for one in found]


def methods(subject: Subject) -> list[str]:
    """Attention × gradient where the model has it, else occlusion; and every list that the model has."""
    best = "occlusion" if subject.lacking("attention") else "attention"
    return [best, *(name for name in explanation.LISTS if subject.lacking(name) is None)]


def why(found: Explanation, space: LabelSpace, told: str = "") -> Why:
    """An explanation as the report shows it.

    Args:
        found: Of one map.
        space: The model's classes.
        told: What else is to be known of the map.
    """
    photo = overlay.thumbnail(found.pixels, LONGEST)
    [drawn] = found.maps
    shown = page.shown_map(drawn, photo, found.target.place is not None)
    return Why(
        answer=_answer(found, space),
        picture=overlay.address(photo),
        map=shown,
        check=drawn.check,
        notes=tuple(filter(None, (shown.told, told))),
        evidence=tuple(f"{row['text']} ({row['weight']:.3f})" for row in found.evidence[:LINES]),
        pieces=tuple(
            f"{piece.label} ({piece.group}): {space.names[piece.place]}, {piece.probability:.0%}"
            for piece in (found.pieces or ())[:LINES]
        ),
        neighbours=page.neighbours(found, NEAR_LONGEST)[:NEAREST],
    )


def _answer(found: Explanation, space: LabelSpace) -> str:
    place = found.target.place
    if place is None:
        return f"{found.target.latitude:.2f}°, {found.target.longitude:.2f}°"
    return f"{space.names[place]}, {found.places[0]['probability']:.1%}"
