"""What the report is made of: scores, their details, answers and what training wrote down, of every variant."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from geoloc_core import parquet
from geoloc_core.errors import UserError
from geoloc_core.evaluation import answered, leaderboard
from geoloc_core.evaluation.answered import Answered
from geoloc_core.evaluation.board import Board, Report, Row
from geoloc_core.evaluation.conformal import Covered
from geoloc_core.evaluation.details import Details, Restated
from geoloc_core.evaluation.report.charts import Curve, shares
from geoloc_core.evaluation.score import DETAILS
from geoloc_core.files import CHECKSUMS, read_json, sha256_of
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.plugins import Strict
from geoloc_core.project import Project
from geoloc_core.variants import answers, inputs
from geoloc_core.variants.answers import Note

LEVELS = {"country": "gid_0", "subdivision": "gid_1"}
"""Columns of the labels."""


class Pace(Strict):
    """How fast a model was trained.

    Attributes:
        model: SHA-256 of the list of its files' checksums.
        seconds_per_epoch: Validation included; None where there were no epochs.
        photos_per_second: Likewise.
    """

    model: str
    seconds_per_epoch: float | None = None
    photos_per_second: float | None = None


class Known(Details):
    """What ``geoloc score`` writes down of a variant on one benchmark.

    Attributes:
        promised: Percent of the rows whose truth a set is to hold.
        sets: What sets come to, of classes and of caps, where one was promised.
    """

    promised: float
    sets: dict[str, Covered]


@dataclass(frozen=True)
class Gathered:
    """Everything that the report shows.

    Attributes:
        project: Whose it is.
        board: The leaderboard.
        reports: By variant; of one with several seeds, that of the first.
    """

    project: Project
    board: Board
    reports: dict[str, Report]
    _kept: dict[Any, Any] = field(default_factory=dict)

    @property
    def mark(self) -> str:
        """What every table and picture says where photos are rendered; nothing where they are real."""
        return "Rendered world, not real photos" if self.board.banner else ""

    @cached_property
    def details(self) -> dict[str, dict[str, Known]]:
        """By variant and benchmark.

        Raises:
            UserError: They are missing or damaged.
        """
        found = {}
        for name, report in self.reports.items():
            path, remedy = self.project.scores(name) / DETAILS, f"run `geoloc score {name}`"
            found[name] = read_json(path, remedy, dict[str, Known])
            if missing := report.benchmarks.keys() - found[name]:
                raise UserError(f"{path}: nothing of {min(missing)}; {remedy}")
        return found

    @cached_property
    def notes(self) -> dict[str, Note]:
        """What is said of the answers, by variant.

        Raises:
            UserError: There are none, or they are damaged.
        """
        return {name: answers.note(self.project, name) for name in self.reports}

    @cached_property
    def restatements(self) -> dict[str, dict[str, Restated]]:
        """By variant and benchmark, distances as other projects' code measures them.

        Raises:
            UserError: They are missing or damaged.
        """
        return leaderboard.restatements(self.project)

    def under(self, convention: str) -> "Gathered":
        """The same with the distances of leaderboard and reports as another project's code measures them.

        Raises:
            UserError: The scores are damaged.
        """

        def other(name: str, report: Report) -> Report:
            known = {place: both.ours.get(convention, {}) for place, both in self.restatements[name].items()}
            figures = {
                place: of | {metric: found.value for metric, found in known.get(place, {}).items()}
                for place, of in report.benchmarks.items()
            }
            return report.model_copy(update={"benchmarks": figures})

        return replace(
            self,
            board=leaderboard.restated(self.project, self.board, convention),
            reports={name: other(name, report) for name, report in self.reports.items()},
            _kept={},
        )

    def training(self, variant: str) -> dict[str, Any]:
        """What training wrote down of itself; nothing where it did not."""
        path = self.project.summary("train", variant)
        if not path.is_file():
            return {}
        found: dict[str, Any] = read_json(path, f"run `geoloc train {variant}`", dict[str, Any])
        return found

    def seconds_per_epoch(self, variant: str) -> float | None:
        """How long an epoch of the training of this very model took on this machine; None where that is not known."""
        path, model = self.project.pace(variant), self.project.model(variant) / CHECKSUMS
        if not path.is_file() or not model.is_file():
            return None
        kept = read_json(path, f"delete it, or run `geoloc train {variant}`", Pace)
        return kept.seconds_per_epoch if kept.model == sha256_of(model) else None

    def answered(self, variant: str, benchmark: str) -> Answered:
        """What a variant answers to a benchmark.

        Raises:
            UserError: The answers are damaged.
        """
        return answered.read(self.project, variant, benchmark)

    def curve(self, variant: str, benchmark: str) -> Curve | None:
        """The share of photos within each distance; None where no photo has a place.

        Raises:
            UserError: The answers are damaged.
        """
        key = ("curve", variant, benchmark)
        if key not in self._kept:
            self._kept[key] = shares(self.answered(variant, benchmark).errors_km)
        found: Curve | None = self._kept[key]
        return found

    def cells(self, variant: str) -> tuple[LabelSpace, np.ndarray] | None:
        """The cells (C,) that a variant answers with, and their polygons; None where its classes are no cells.

        Raises:
            UserError: They are missing or damaged.
        """
        block = self.project.profile.variants[variant]
        key = ("cells", labels := block.needs().labels, block.corpus)
        if key not in self._kept:
            made = inputs.cells(self.project, labels, block.corpus)
            self._kept[key] = None if made is None else (made.space, made.shapes())
        found: tuple[LabelSpace, np.ndarray] | None = self._kept[key]
        return found

    def row(self, variant: str, benchmark: str) -> Row:
        """A variant's line of the leaderboard."""
        return next(
            row
            for section in self.board.sections
            for row in section.rows
            if section.name == benchmark and row.name == variant and not row.baseline
        )

    def first(self, variant: str) -> str:
        """The benchmark by which a variant is shown: what decides, or else the first that it is scored on."""
        known = self.reports[variant].benchmarks
        wanted = [self.project.profile.registry.benchmark, *self.project.profile.benchmarks, *known]
        return next(name for name in wanted if name in known)

    def units(self, corpus: str, level: str) -> dict[str, int]:
        """Photos of each country or subdivision of a corpus; nothing where the profile has no such labels.

        Raises:
            UserError: The labels are damaged.
        """
        key = ("units", corpus, level)
        if key not in self._kept:
            self._kept[key] = self._counted(corpus, LEVELS[level])
        found: dict[str, int] = self._kept[key]
        return found

    def _counted(self, corpus: str, column: str) -> dict[str, int]:
        path = self.project.labels(corpus)
        if corpus not in self.project.profile.corpora or not path.is_file():
            return {}
        known = parquet.read(path, f"run `geoloc label {corpus}`", [column])[column].drop_null()
        return {item["values"]: item["counts"] for item in known.value_counts().to_pylist()}


def gather(project: Project) -> Gathered:
    """Everything that the report shows, as far as it is small.

    Raises:
        UserError: Something is missing or damaged, or the leaderboard is of other variants.
    """
    board = leaderboard.load(project)
    again = {other for others in project.profile.repeats.values() for other in others}
    reports = {
        name: Report.model_validate(found) for name, found in leaderboard.gather(project).items() if name not in again
    }
    ranked = {row.name for section in board.sections for row in section.rows if not row.baseline}
    if ranked != set(reports):
        path = project.leaderboard / "leaderboard.json"
        raise UserError(f"{path}: not of the variants of params.yaml; run `geoloc leaderboard` first")
    return Gathered(project, board, reports)
