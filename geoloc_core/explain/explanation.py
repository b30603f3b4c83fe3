"""Explanations of photos: every method that applies to a model, each map with its checks."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from geoloc_core.encoders.preprocess import decode
from geoloc_core.errors import UserError
from geoloc_core.explain import attention, gradients, lime, occlusion, regions
from geoloc_core.explain import neighbours as near_photos
from geoloc_core.explain import pieces as cut
from geoloc_core.explain.asked import Target, score_of, target_of
from geoloc_core.explain.faithfulness import Chance, Check, deletion, insertion, likeness
from geoloc_core.explain.network import Network, network_of
from geoloc_core.explain.randomised import with_random_heads
from geoloc_core.pictures import MAX_MEGAPIXELS, encoded
from geoloc_core.progress import track
from geoloc_core.project import Project
from geoloc_core.serving.answer import evidence, rows
from geoloc_core.serving.bundle import Bundle

MAPS = {
    "occlusion": "Occlusion",
    "lime": "LIME over superpixels",
    "attention": "Attention × gradient",
    "gradients": "Integrated gradients",
}
LISTS = {"evidence": "Evidence", "pieces": "Pieces and their votes", "neighbours": "Nearest training photos"}
METHODS = MAPS | LISTS
"""Every method, as people call it."""
EDGE = 384
"""Shorter edge of the photo that maps are made of, pixels: no tower here looks at more."""
GREY = np.full((32, 32, 3), 128, np.uint8)
"""A photo that shows nothing: what a model says of any photo, it says of this one."""
GRID = 14
"""Rows and columns of the cells that curves take away and put back."""


@dataclass(frozen=True)
class Question:
    """A photo that is to be explained.

    Attributes:
        name: For people.
        photo: Encoded.
        place: Its true latitude and longitude, degrees; None where unknown.
        note: Why it was chosen.
    """

    name: str
    photo: bytes
    place: tuple[float, float] | None = None
    note: str = ""


@dataclass(frozen=True)
class Map:
    """A map and what is known of it.

    Attributes:
        method: One of :data:`MAPS`.
        values: (H, W) float64 over the photo: what speaks for the answer is positive.
        check: Its faithfulness.
        told: What else there is to say, such as the error of an integral.
    """

    method: str
    values: np.ndarray
    check: Check
    told: str = ""


@dataclass(frozen=True)
class Explanation:
    """What was found of a photo.

    Attributes:
        question: The photo.
        pixels: (H, W, 3) uint8, upright, as maps were made of it.
        size: Width and height of the whole photo, pixels.
        places: A row per candidate, as :func:`geoloc_core.serving.answer.rows` gives them.
        target: The answer that is explained.
        maps: In the order of :data:`MAPS`.
        evidence: As :func:`geoloc_core.serving.answer.evidence` gives it.
        pieces: With their votes; None where they were not asked for.
        neighbours: The most alike first; None where they were not asked for.
    """

    question: Question
    pixels: np.ndarray
    size: tuple[int, int]
    places: list[dict[str, Any]]
    target: Target
    maps: list[Map]
    evidence: list[dict[str, Any]] = field(default_factory=list)
    pieces: list[cut.Piece] | None = None
    neighbours: list[near_photos.Neighbour] | None = None


@dataclass(frozen=True)
class Subject:
    """A model, opened in every way that the methods ask it.

    Attributes:
        project: Whose training photos are searched.
        bundle: The model.
        shuffled: The same with random heads; None where it has none.
        network: The model with gradients, or why it has none.
        names_evidence: Whether its answers say what they rest on, such as clues.
        seed: Of all that is drawn.
        samples: Of LIME.
    """

    project: Project
    bundle: Bundle
    shuffled: Bundle | None
    network: Network | str
    names_evidence: bool
    seed: int = 0
    samples: int = 300

    def lacking(self, method: str) -> str | None:
        """Why a method does not apply to the model; None where it does, as far as can be told without a photo."""
        match method:
            case "attention" | "gradients" if isinstance(self.network, str):
                return self.network
            case "attention":
                assert isinstance(self.network, Network)
                return attention.lacking(self.network)
            case "evidence" if not self.names_evidence:
                family = self.bundle.models[self.bundle.variant].card.family
                return f"{self.bundle.variant}: the family {family} names no evidence"
            case "pieces":
                return cut.lacking(self.bundle)
            case "neighbours":
                return near_photos.lacking(self.project, self.bundle)
        return None


@contextmanager
def opened(project: Project, bundle: Bundle, samples: int = 300) -> Iterator[Subject]:
    """A model to be explained within the block."""
    seed = project.profile.seed
    with tempfile.TemporaryDirectory(prefix="geoloc-explain-") as folder:
        shuffled = with_random_heads(bundle, Path(folder), seed)
        names_evidence = bundle.predict([encoded(GREY)], 1).evidence is not None
        yield Subject(project, bundle, shuffled, network_of(bundle), names_evidence, seed, samples)


def chosen(subject: Subject, asked: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The methods that are run, and why others are not: those asked for, or all that apply.

    Raises:
        UserError: One that was asked for does not apply.
    """
    reasons = {method: reason for method in METHODS if (reason := subject.lacking(method))}
    apply = [method for method in METHODS if method not in reasons]
    for method in asked:
        if method in reasons:
            raise UserError(f"--method {method}: {reasons[method]}; expected one of: {', '.join(apply)}")
    return [method for method in apply if method in (asked or apply)], {} if asked else reasons


def explain(
    subject: Subject, questions: Sequence[Question], methods: Sequence[str], of: str | None = None
) -> list[Explanation]:
    """Explain the answers to photos.

    Args:
        subject: The model.
        questions: The photos.
        methods: That apply to the model.
        of: The id of the class to explain; left out, each photo's answer.

    Raises:
        UserError: A photo cannot be read, or the model has no such class.
    """
    near: Sequence[list[near_photos.Neighbour] | None] = [None] * len(questions)
    if "neighbours" in methods:
        near = near_photos.neighbours(subject.project, subject.bundle, [question.photo for question in questions])
    tracked = track(questions, f"explain {subject.bundle.variant}", len(questions), "photos")
    return [_explained(subject, one, methods, found, of) for one, found in zip(tracked, near, strict=True)]


def _explained(
    subject: Subject,
    question: Question,
    methods: Sequence[str],
    near: list[near_photos.Neighbour] | None,
    of: str | None,
) -> Explanation:
    bundle = subject.bundle
    whole = decode(question.photo, MAX_MEGAPIXELS * 1e6)
    pixels = _shrunk(whole)
    prediction, target = target_of(bundle, question.photo, of)
    wanted = [method for method in MAPS if method in methods]
    return Explanation(
        question,
        pixels,
        whole.size,
        rows(prediction, bundle.labelspace),
        target,
        _maps(subject, pixels, target, wanted) if wanted else [],
        evidence(prediction, bundle.explain) if "evidence" in methods else [],
        cut.votes(bundle, question.photo) if "pieces" in methods else None,
        near,
    )


def _shrunk(photo: Image.Image) -> np.ndarray:
    scale = min(1.0, EDGE / min(photo.size))
    width, height = (max(1, round(edge * scale)) for edge in photo.size)
    return np.asarray(photo.resize((width, height), Image.Resampling.BICUBIC) if scale < 1 else photo)


def _maps(subject: Subject, photo: np.ndarray, target: Target, methods: Sequence[str]) -> list[Map]:
    score = score_of(subject.bundle, target)
    height, width = photo.shape[:2]
    grid = regions.cells(height, width, GRID)
    chance = Chance.of(score, photo, grid, subject.seed)
    superpixels = lime.superpixels(photo) if "lime" in methods else grid
    found = []
    for method in methods:
        values, told = _map(subject, subject.bundle, photo, target, method, superpixels)
        of_cells = regions.means(values, grid)
        order = regions.order(of_cells, subject.seed)
        alike = None
        if subject.shuffled is not None:
            other, _ = _map(subject, subject.shuffled, photo, target, method, superpixels)
            alike = likeness(of_cells, regions.means(other, grid))
        curves = deletion(score, photo, grid, order), insertion(score, photo, grid, order)
        found.append(Map(method, values, Check(*curves, chance, alike), told))
    return found


def _map(
    subject: Subject, bundle: Bundle, photo: np.ndarray, target: Target, method: str, superpixels: np.ndarray
) -> tuple[np.ndarray, str]:
    """A map (H, W) of a method, and what else it has to say.

    Args:
        subject: What is explained.
        bundle: Its model, or that with random heads.
        photo: (H, W, 3) uint8.
        target: The answer.
        method: One of :data:`MAPS`.
        superpixels: (H, W) for LIME.
    """
    if method == "occlusion":
        return occlusion.occlusion(score_of(bundle, target), photo, GRID), ""
    if method == "lime":
        return lime.lime(score_of(bundle, target), photo, superpixels, subject.samples, subject.seed), ""
    network = subject.network
    assert isinstance(network, Network)
    assert target.place is not None
    if bundle is not subject.bundle:
        network = network.with_head(bundle)
    if method == "attention":
        told = f"{network.about} {attention.left_out(network)}".strip()
        return attention.attention_map(network, photo, target.place), told
    found = gradients.integrated(network, photo, target.place)
    told = f"{network.about} The pixels add up to the logit's gain of {found.gain:.3g} but for {found.gap:.1%}."
    return gradients.gradient_map(network, photo, found), told.lstrip()
