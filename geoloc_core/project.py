"""Where everything lives: one project folder with its parameters."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from geoloc_core.params import Profile, load
from geoloc_core.params.using import used

STAGES = {
    "raw": "fetch",
    "corpora": "ingest",
    "labels": "label",
    "datasheets": "label",
    "texts": "texts",
    "models": "train",
    "truth": "truth",
    "facts": "facts",
    "answers": "answer",
    "scores": "score",
}
"""By folder of ``data/``, the stage that writes what is named like its one argument."""
ENCODED = {"encode": "features", "encode_text": "text_features", "cells": "cells"}
"""By stage whose summary is named ``<encoder or cells>-<of what>``, the folder that it writes."""
ALONE = ("boundaries", "leaks", "leaderboard", "report")
"""Stages without an argument, which write the folder of their name."""


def maker(path: Path) -> str | None:
    """The command whose stage writes a file of a project, told from where it lies; None where that does not tell.

    Of weights it does not: see :meth:`Project.maker`.
    """
    parts = path.parts
    found = (_maker(parts[at + 1 :]) for at, part in enumerate(parts) if part == "data")
    return next(filter(None, found), None)


def _maker(parts: tuple[str, ...]) -> str | None:
    """The command of a path below ``data/``."""
    if any(part.startswith(".") for part in parts):  # unfinished work, of whose name nothing can be told
        return None
    match (*parts[:-1], Path(parts[-1]).stem) if parts else ():
        case ("summaries", stage, name):
            if stage in ALONE:
                return f"geoloc {stage}"
            encoder, _, of = name.rpartition("-")
            return _maker((ENCODED[stage], encoder, of)) if stage in ENCODED else f"geoloc {stage} {name}"
        case ("features", encoder, corpus, *_):
            return f"geoloc encode {corpus} --encoder {encoder}"
        case ("text_features", encoder, texts, *_):
            return f"geoloc encode-text {texts} --encoder {encoder}"
        case ("cells", name, corpus, *_):
            return f"geoloc fit-cells {name} {corpus}"
        case (room, *_) if room in ALONE:
            return f"geoloc {room}"
        case (room, name, *_) if room in STAGES:
            return f"geoloc {STAGES[room]} {name}"
    return None


@dataclass(frozen=True)
class Project:
    """A project folder: ``params.yaml``, ``data/`` (tracked by DVC) and ``.state/`` (this machine's own).

    Attributes:
        root: The folder that holds ``params.yaml``.
        profile: The validated profile in use.
    """

    root: Path
    profile: Profile

    @classmethod
    def open(cls, params: Path) -> "Project":
        """Open the project of a ``params.yaml``.

        Raises:
            UserError: The file is missing or wrong.
        """
        return cls(params.resolve().parent, load(params))

    @property
    def chosen(self) -> str:
        """The name of the profile in use."""
        path = self.root / "params.yaml"
        return used(path) if path.is_file() else "run"

    @cached_property
    def data(self) -> Path:
        """What DVC tracks."""
        return self.root / "data"

    @cached_property
    def state(self) -> Path:
        """What belongs to this machine: MLflow's and Dagster's databases, checkpoints, unfinished work."""
        return self.root / ".state"

    def raw(self, corpus: str) -> Path:
        """A corpus as published."""
        return self.data / "raw" / corpus

    def corpus(self, corpus: str) -> Path:
        """A corpus as this project keeps it: manifest, rejects, attributes and shards."""
        return self.data / "corpora" / corpus

    @property
    def boundaries(self) -> Path:
        """The administrative units: ``boundaries.gpkg``, ``units.parquet`` and the index of their shapes."""
        return self.data / "boundaries"

    def labels(self, corpus: str) -> Path:
        """The units and split of every row of a corpus' manifest."""
        return self.data / "labels" / f"{corpus}.parquet"

    def datasheet(self, corpus: str) -> Path:
        """What is in a corpus, in Markdown; a map lies beside it."""
        return self.data / "datasheets" / f"{corpus}.md"

    @property
    def leaks(self) -> Path:
        """What the sets of photos share, and which of that blocks training."""
        return self.data / "leaks"

    def weights(self, encoder: str) -> Path:
        """A tower in its library's published folder format."""
        return self.data / "weights" / encoder

    def features(self, encoder: str, corpus: str) -> Path:
        """Features of a corpus, row-aligned with its manifest."""
        return self.data / "features" / encoder / corpus

    def texts(self, name: str) -> Path:
        """Sentences, a row each: ``id`` and ``text``."""
        return self.data / "texts" / f"{name}.parquet"

    def text_features(self, encoder: str, texts: str) -> Path:
        """Features of sentences, row-aligned with :meth:`texts`."""
        return self.data / "text_features" / encoder / texts

    def truth(self, corpus: str) -> Path:
        """What is true of a corpus that is learned from or scored on, row-aligned with its manifest."""
        return self.data / "truth" / f"{corpus}.parquet"

    def facts(self, corpus: str) -> Path:
        """What rasters say about the places of a corpus, row-aligned with its manifest."""
        return self.data / "facts" / f"{corpus}.parquet"

    def model(self, variant: str) -> Path:
        """A trained variant: self-contained but for its encoders."""
        return self.data / "models" / variant

    def cells(self, name: str, corpus: str) -> Path:
        """Geocells that were fitted to the training photos of a corpus."""
        return self.data / "cells" / name / corpus

    def answers(self, variant: str) -> Path:
        """What a variant answers to every benchmark, with what is true of the photos."""
        return self.data / "answers" / variant

    def scores(self, variant: str) -> Path:
        """A variant's scores."""
        return self.data / "scores" / variant

    @property
    def leaderboard(self) -> Path:
        """The leaderboard in Markdown, HTML and JSON."""
        return self.data / "leaderboard"

    @property
    def report(self) -> Path:
        """Everything that is known of all variants, in HTML and Markdown."""
        return self.data / "report"

    def summary(self, stage: str, name: str) -> Path:
        """The few figures of one stage that DVC shows as metrics and Dagster as metadata."""
        return self.data / "summaries" / stage / f"{name}.json"

    def plot(self, stage: str, name: str) -> Path:
        """The picture that goes with :meth:`summary`."""
        return self.data / "summaries" / stage / f"{name}.png"

    def maker(self, path: Path) -> str | None:
        """The command whose stage writes a file under :attr:`data`; None of a file that no stage writes."""
        match path.relative_to(self.data).parts:
            case ("weights", encoder, *_):
                trained = encoder in self.profile.pretrain | self.profile.pretrain_from
                return f"geoloc {'pretrain' if trained else 'download'} {encoder}"
            case parts:
                return _maker(parts)

    def pace(self, variant: str) -> Path:
        """How fast a variant was trained on this machine: no output, since it differs from run to run."""
        return self.state / "pace" / self.chosen / f"{variant}.json"

    def partial(self, stage: str, name: str) -> Path:
        """Unfinished work of a stage: outside ``data/``, since DVC empties a stage's outputs before it runs."""
        return self.state / "partial" / stage / name

    def versions(self, table: str, corpus: str) -> Path:
        """What is known of the versions of a corpus' ``manifest`` or ``labels`` that were found good here.

        Another profile's corpus of the same name is another corpus: the rendered ones of `demo` and `papers` are of
        different sizes, and neither is a version of the photographed one.
        """
        return self.state / "versions" / self.chosen / table / f"{corpus}.json"
