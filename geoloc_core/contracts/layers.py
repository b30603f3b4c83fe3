"""What families share that lie over another variant's model of cells."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from geoloc_core.contracts.needs import Answers, ImageFeatures, Input, Model, Needs, Photos, Pieces, Tokens
from geoloc_core.contracts.prediction import OfTruth, Prediction

if TYPE_CHECKING:
    from geoloc_core.params import Profile


def over(options: Any, variants: Mapping[str, Any]) -> Any:
    """The options of a layer once they know what the variant under it reads and answers.

    Args:
        options: Of the layer, with ``kind``, ``variant``, and room for both under ``_reads`` and ``_unit``.
        variants: All variants by name; the same options come back if it is not there, or of the layer's own kind.
    """
    below = variants.get(options.variant)
    if below is None or below.kind == options.kind:
        return options
    known, found = below.needs(), options.model_copy()
    found._reads = tuple(read for need in known.inputs if (read := _to_answer(need)) is not None)
    found._unit = known.unit
    return found


def _to_answer(need: Input) -> Input | None:
    """What of an input a trained model still reads; None where that is only learned from."""
    match need:
        case Tokens(live=True):  # its own tower makes them
            return Photos()
        case Tokens():
            return need.model_copy(update={"weights": False})
        case ImageFeatures() | Answers() | Photos() | Pieces():
            return need
    return None


def needs(options: Any) -> Needs:
    """The model under a layer and what that reads to answer, and the features that the layer compares."""
    inputs = (Model(variant=options.variant), *options._reads, ImageFeatures(encoder=options.encoder))
    return Needs(inputs=tuple(dict.fromkeys(inputs)), labels=options.labels, unit=options._unit)


def flaws(profile: "Profile", options: Any, what: str) -> list[str]:
    """What is wrong with the variant that a layer lies over.

    Args:
        profile: With all variants and cells.
        options: Of the layer, with ``kind``, ``variant``, ``corpus`` and ``labels``.
        what: The layer does to its variant, such as ``refined``.
    """
    below: Any = profile.variants.get(options.variant)
    if below is None:
        return []
    if below.kind == options.kind:
        return [f"variant: {options.variant!r} is {what} already; expected the model of cells under it"]
    labels = below.needs().labels
    if labels not in profile.cells:
        known = ", ".join(profile.cells) or "none yet"
        return [f"variant: {options.variant!r} learns {labels}; expected a variant over one of `cells`: {known}"]
    if (below.corpus, labels) != (options.corpus, options.labels):
        return [
            f"variant: {options.variant!r} learns {labels} from {below.corpus}; "
            f"expected {options.labels} from {options.corpus}, as the layer over it"
        ]
    return []


def embeddings(features: np.ndarray, starts: np.ndarray | None) -> np.ndarray:
    """Features (N, D) float32 of N units: those of a place are the mean of its photos'."""
    values = np.asarray(features, np.float32)
    if starts is None:
        return values
    sums: np.ndarray = np.add.reduceat(values, starts[:-1], axis=0)
    return sums / np.diff(starts)[:, None].astype(np.float32)


@dataclass(frozen=True)
class Names:
    """M ids, one after the other.

    Attributes:
        text: All of them, UTF-8.
        ends: (M + 1,) where each begins, and where the last one ends.
    """

    text: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, ids: Any, rows: np.ndarray) -> "Names":
        """Some ids of a column of strings."""
        import pyarrow as pa

        taken = ids.take(pa.array(rows)).cast(pa.large_string())
        whole = pa.concat_arrays(taken.chunks) if isinstance(taken, pa.ChunkedArray) else taken
        _, ends, text = whole.buffers()
        bounds = np.frombuffer(ends, np.int64)[: len(whole) + 1]
        return cls(np.frombuffer(text, np.uint8)[: bounds[-1]], bounds)

    def __getitem__(self, at: np.ndarray) -> np.ndarray:
        """(n,) ids of n positions."""
        bounds = zip(self.ends[at].tolist(), self.ends[at + 1].tolist(), strict=True)
        return np.array([self.text[a:b].tobytes().decode() for a, b in bounds], dtype=object)


def of_truth(before: OfTruth, classes: np.ndarray, probabilities: np.ndarray, truth: np.ndarray) -> OfTruth:
    """What is thought of the true class once the first K (N, K) have changed places; of any other nothing changes."""
    here = (classes == truth[:, None]) & (truth >= 0)[:, None]
    among, at = here.any(axis=1), here.argmax(axis=1)
    rows = np.arange(len(classes))
    mass = np.cumsum(probabilities, axis=1, dtype=np.float64) - probabilities
    return OfTruth(
        np.where(among, at, before.rank).astype(np.int32),
        np.where(among, probabilities[rows, at], before.probability).astype(np.float32),
        np.where(among, mass[rows, at], before.before).astype(np.float32),
    )


def cut(found: Prediction, k: int) -> Prediction:
    """The first k candidates alone."""
    lists = ("classes", "probabilities", "latitudes", "longitudes")
    return replace(found, **{name: getattr(found, name)[:, :k] for name in lists})
