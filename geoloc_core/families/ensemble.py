"""An ensemble of variants: a weighted mean of their probabilities, the weights chosen on validation.

Weights come from ensemble selection on the validation split, by accuracy: see :mod:`geoloc_core.training.selection`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from geoloc_core.contracts.batch import Batch, Data, Fitted, Run, counted
from geoloc_core.contracts.geolocator import check_classes, check_shapes, read_tensors, width_of, write_tensors
from geoloc_core.contracts.needs import Answers, Needs
from geoloc_core.contracts.options import Variant
from geoloc_core.contracts.prediction import Evidence, Prediction
from geoloc_core.geo.labelspace import LabelSpace
from geoloc_core.training import selection

if TYPE_CHECKING:
    from geoloc_core.params import Profile


class Options(Variant):
    """A variant of this family."""

    kind: Literal["ensemble"]
    members: Annotated[tuple[str, ...], Field(min_length=2)]
    """Variants of the same corpus and the same label space."""
    labels: str
    """The label space that it learns."""
    rounds: int = Field(50, gt=0)
    """How often a member is added while the weights are chosen."""

    def needs(self) -> Needs:
        """The members' answers."""
        return Needs(inputs=tuple(Answers(variant=name) for name in self.members), labels=self.labels)

    def flaws(self, profile: "Profile") -> list[str]:
        """What is wrong with the members."""
        found = []
        for name in self.members:
            member = profile.variants.get(name)
            if member is None:
                continue
            if member.needs().members:
                found.append(f"members: {name!r} reads other variants itself; expected one that looks at photos")
            if (member.corpus, member.needs().labels) != (self.corpus, self.labels):
                found.append(
                    f"members: {name!r} learns {member.needs().labels} from {member.corpus}; "
                    f"expected {self.labels} from {self.corpus}, as the ensemble"
                )
        return found


@dataclass(frozen=True)
class Ensemble:
    """Members with weights.

    Attributes:
        labelspace: Its C classes.
        members: Names of the M members.
        weights: (M,) float64, their sum is 1.
        classes: Of each member, the class (C_m,) that each of its own is here; −1 where it is none.
    """

    labelspace: LabelSpace
    members: list[str]
    weights: np.ndarray
    classes: list[np.ndarray]

    def predict(self, batch: Batch, k: int = 5, truth: np.ndarray | None = None) -> Prediction:
        """The k classes of the greatest weighted mean; the evidence is what each member gave to the first."""
        answers = [batch.answers[name] for name in self.members]
        parts = [
            weight * spread(answer, classes, len(self.labelspace))
            for answer, weight, classes in zip(answers, self.weights, self.classes, strict=True)
        ]
        total: np.ndarray = np.sum(parts, axis=0)
        first = np.argmax(total, axis=1)[:, None]
        shares = np.concatenate([np.take_along_axis(part, first, axis=1) for part in parts], axis=1)
        order = np.argsort(-shares, kind="stable")
        names = np.array(self.members, dtype=object)
        evidence = Evidence("variant", names[order], np.take_along_axis(shares, order, axis=1))
        return Prediction.of_probabilities(total, self.labelspace, k, truth, evidence)

    def save(self, folder: Path) -> None:
        """Write its weights into an existing folder."""
        classes = {f"classes.{n}": values for n, values in enumerate(self.classes)}
        write_tensors(folder, {"weights": self.weights, **classes})


def spread(answer: Prediction, classes: np.ndarray, count: int) -> np.ndarray:
    """Probabilities (N, C) of a member's candidates; what it did not name has none.

    Args:
        answer: Of the member.
        classes: (C_m,) what each of the member's classes is; −1 where it is none.
        count: C.
    """
    total = np.zeros((len(answer), count + 1))
    rows = np.arange(len(answer))[:, None]
    total[rows, classes[answer.classes]] = answer.probabilities  # −1 is the last column, which is left out
    return total[:, :count]


def fit(data: Data, options: Options, run: Run) -> Fitted:
    """Choose the weights on the validation rows that all members answer."""
    answered = [data.answers[name] for name in options.members]
    classes = [data.space.index(member.space.ids) for member in answered]
    rows = data.validation
    for member in answered:
        rows = np.intersect1d(rows, member.rows)
    parts = [
        spread(member.prediction.rows(np.searchsorted(member.rows, rows)), known, len(data.space))
        for member, known in zip(answered, classes, strict=True)
    ]
    counts, accuracies, best = select(parts, data.targets[rows], options.rounds)
    history = [{"validation_accuracy": 100 * accuracy} for accuracy in accuracies]
    for number, metrics in enumerate(history):
        run.log(metrics, number)
    weights = counts / counts.sum()
    model = Ensemble(data.space, list(options.members), weights, classes)
    shares = {name: round(float(weight), 4) for name, weight in zip(options.members, weights, strict=True)}
    size = counted(len(weights), [member.parameters for member in answered])
    return Fitted(model, history, best, {"weights": shares, **size})


def select(parts: list[np.ndarray], truth: np.ndarray, rounds: int) -> tuple[np.ndarray, list[float], int]:
    """How often each member counts, the accuracy after each round, and the best round; the first is the best member.

    Args:
        parts: Of each of M members, probabilities (N, C).
        truth: (N,) true classes; −1, unknown, is a miss for all.
        rounds: How often a member is added.
    """

    def merit(total: np.ndarray) -> tuple[float, float]:
        known = np.flatnonzero(truth >= 0)
        right = np.count_nonzero(total.argmax(axis=1)[known] == truth[known]) / max(len(truth), 1)
        share = total[known, truth[known]] / np.maximum(total[known].sum(axis=1), 1e-12)
        return right, float(share.mean()) if len(known) else 0.0  # a tie goes to who gives the truth more

    counts, merits, best = selection.select(parts, merit, rounds)
    return counts, [right for right, _ in merits], best


def load(folder: Path, needs: Needs, space: LabelSpace, remedy: str) -> Ensemble:
    """Read what :meth:`Ensemble.save` wrote.

    Raises:
        UserError: The weights are missing, damaged, or do not fit the members.
    """
    tensors = read_tensors(folder, remedy)
    names = [f"classes.{n}" for n in range(len(needs.members))]
    expected: dict[str, tuple[int, ...]] = {"weights": (len(names),)}
    expected |= {name: (width_of(tensors, name),) for name in names}
    check_shapes(folder, remedy, tensors, expected)
    check_classes(folder, remedy, tensors, names, len(space))
    return Ensemble(space, needs.members, tensors["weights"], [tensors[name] for name in names])
