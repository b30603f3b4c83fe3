"""Where everything lives: one project folder with its parameters."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from geoloc_core.params import Profile, load


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
        """What evaluation reads of an encoded corpus, row-aligned with its manifest."""
        return self.data / "truth" / f"{corpus}.parquet"

    def model(self, variant: str) -> Path:
        """A trained variant: self-contained but for its encoders."""
        return self.data / "models" / variant

    def scores(self, variant: str) -> Path:
        """A variant's scores and its predictions on every benchmark."""
        return self.data / "scores" / variant

    @property
    def leaderboard(self) -> Path:
        """The leaderboard in Markdown, HTML and JSON."""
        return self.data / "leaderboard"

    def summary(self, stage: str, name: str) -> Path:
        """The few figures of one stage that DVC shows as metrics and Dagster as metadata."""
        return self.data / "summaries" / stage / f"{name}.json"

    def plot(self, stage: str, name: str) -> Path:
        """The picture that goes with :meth:`summary`."""
        return self.data / "summaries" / stage / f"{name}.png"

    def maker(self, path: Path) -> str:
        """The command whose stage writes a file under :attr:`data`."""
        room, *rest = path.relative_to(self.data).parts
        names = [Path(part).stem if part == rest[-1] else part for part in rest] or [""]
        stages = {"raw": "fetch", "corpora": "ingest", "labels": "label", "datasheets": "label", "models": "train"}
        match room, names:
            case ("features", [encoder, corpus, *_]):
                return f"geoloc encode {corpus} --encoder {encoder}"
            case ("text_features", [encoder, texts, *_]):
                return f"geoloc encode-text {texts} --encoder {encoder}"
            case ("weights", [encoder, *_]):
                trained = encoder in self.profile.pretrain | self.profile.pretrain_from
                return f"geoloc {'pretrain' if trained else 'download'} {encoder}"
            case ("summaries", [stage, name, *_]):
                return f"geoloc {stage}" if stage == name else f"geoloc {stage} {name}"
            case ("boundaries" | "leaks" | "leaderboard", _):
                return f"geoloc {room}"
            case ("scores", [variant, *_]):
                return f"geoloc evaluate {variant}"
        return f"geoloc {stages.get(room, room)} {names[0]}"

    def partial(self, stage: str, name: str) -> Path:
        """Unfinished work of a stage: outside ``data/``, since DVC empties a stage's outputs before it runs."""
        return self.state / "partial" / stage / name

    def versions(self, table: str, corpus: str) -> Path:
        """What is known of the versions of a corpus' ``manifest`` or ``labels`` that were found good here.

        Rendered photos are no version of the corpus whose layout they have.
        """
        return (
            self.state / "versions" / ("rendered" if self.profile.demo else "photographed") / table / f"{corpus}.json"
        )
