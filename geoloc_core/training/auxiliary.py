"""Auxiliary tasks learned beside the class of a photo (PIGEON, Haas et al. 2024, section 3.3).

Six regressions, of the logarithm of each quantity but the mean temperature, standardised; the climate zone; and the
month. The loss is their sum, each with a weight of its own. A fact that is not known of a photo says nothing there.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field, field_validator

from geoloc_core.contracts.facts import CATEGORIES, CLASSES, FACTS, FIRST, QUANTITIES, Category, Fact, Quantity
from geoloc_core.errors import UserError
from geoloc_core.plugins import Strict

if TYPE_CHECKING:
    import torch

OFFSETS: dict[Quantity, float | None] = {
    "elevation": 408.0,  # Street View's lowest place, 416 in Flickr's
    "population": 1.0,
    "temperature_mean": None,
    "temperature_range": 1.0,
    "precipitation_mean": 1.0,
    "precipitation_range": 1.0,
}
"""What is added to a quantity before its logarithm is taken, in its unit; None where none is taken."""


class Tasks(Strict):
    """What is learned beside the class; the numbers are those of PIGEON's code."""

    facts: Annotated[tuple[Fact, ...], Field(min_length=1)] = FACTS
    quantities_weight: float = Field(8.0, ge=0)
    """Of the mean squared error of all quantities together."""
    climate_weight: float = Field(2.0, ge=0)
    month_weight: float = Field(1.0, ge=0)
    month_smoothing: float = Field(0.3, ge=0, lt=1)
    """Share of a month's target that is spread evenly over all months."""

    @field_validator("facts")
    @classmethod
    def _each_once(cls, facts: tuple[Fact, ...]) -> tuple[Fact, ...]:
        if twice := sorted({name for name in facts if facts.count(name) > 1}):
            raise ValueError(f"facts: {twice[0]!r} is there twice")
        return facts

    @property
    def quantities(self) -> list[Quantity]:
        """Those of the facts that are numbers, in the order of their outputs."""
        return [name for name in QUANTITIES if name in self.facts]

    @property
    def categories(self) -> list[Category]:
        """Those of the facts that are classes, in the order of their outputs."""
        return [name for name in CATEGORIES if name in self.facts]

    @property
    def width(self) -> int:
        """Outputs of all tasks together: one per quantity, one per class."""
        return len(self.quantities) + sum(CLASSES[name] for name in self.categories)


@dataclass(frozen=True)
class Scale:
    """How quantities, a column each, become what is learned, and back.

    Attributes:
        names: Of the Q quantities.
        mean: (Q,) float64, after the logarithm.
        std: (Q,) float64.
    """

    names: list[Quantity]
    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def of(cls, names: list[Quantity], values: np.ndarray) -> "Scale":
        """The scale of values (n, Q), NaN where unknown.

        Raises:
            UserError: Nothing is known of a quantity.
        """
        for name, column in zip(names, values.T, strict=True):
            if not np.isfinite(column).any():
                raise UserError(
                    f"tasks.facts: {name}: not known of any training photo; expected a raster that covers them"
                )
        logs = _logs(names, values)
        std = np.nanstd(logs, axis=0)
        return cls(names, np.nanmean(logs, axis=0), np.where(std < 1e-6, 1.0, std))

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Values (N, Q) in their units, standardised; NaN stays."""
        found: np.ndarray = (_logs(self.names, values) - self.mean) / self.std
        return found

    def undo(self, outputs: np.ndarray) -> np.ndarray:
        """Standardised values (N, Q) in their units."""
        found = np.asarray(outputs, np.float64) * self.std + self.mean
        for at, name in enumerate(self.names):
            if (offset := OFFSETS[name]) is not None:
                found[:, at] = np.exp(np.minimum(found[:, at], 700)) - offset
        return found


def _logs(names: list[Quantity], values: np.ndarray) -> np.ndarray:
    found = np.array(values, np.float64)
    for at, name in enumerate(names):
        if (offset := OFFSETS[name]) is not None:  # what lies below the lowest place counts as that
            found[:, at] = np.log(np.maximum(found[:, at] + offset, 1.0))
    return found


@dataclass(frozen=True)
class Targets:
    """What is to be learned of all rows of a corpus, on the device.

    Attributes:
        tasks: Which, and how much each counts.
        quantities: (N, Q) float32, standardised; NaN where unknown.
        categories: By name, (N,) int64 classes from 0; −1 where unknown.
    """

    tasks: Tasks
    quantities: "torch.Tensor"
    categories: "dict[Category, torch.Tensor]"

    @classmethod
    def of(cls, tasks: Tasks, facts: dict[str, np.ndarray], scale: Scale, device: "torch.device") -> "Targets":
        """Of the facts (N,) of all rows."""
        import torch

        columns = [facts[name] for name in tasks.quantities]
        quantities = scale.apply(np.stack(columns, axis=1)) if columns else np.empty((len(_any(facts)), 0))
        categories = {name: torch.from_numpy(classes_of(name, facts[name])).to(device) for name in tasks.categories}
        return cls(tasks, torch.from_numpy(quantities.astype(np.float32)).to(device), categories)

    def loss(self, outputs: "torch.Tensor", rows: "torch.Tensor") -> "torch.Tensor":
        """8 · MSE + 2 · CE of the climate + CE of the month, each the mean over what is known.

        Args:
            outputs: (B, width) of the tasks.
            rows: (B,) which rows they are of.
        """
        from torch.nn.functional import cross_entropy

        count = self.quantities.shape[1]
        total = outputs.new_zeros(())
        if count:
            right = self.quantities[rows]
            known = right.isfinite()
            apart = (outputs[:, :count] - right.nan_to_num()).square() * known
            total = total + self.tasks.quantities_weight * apart.sum() / known.sum().clamp(min=1)
        start = count
        for name, classes in self.categories.items():
            logits, truth = outputs[:, start : start + CLASSES[name]], classes[rows]
            start += CLASSES[name]
            weight, smoothing = self._of_category(name)
            summed = cross_entropy(logits, truth, ignore_index=-1, label_smoothing=smoothing, reduction="sum")
            total = total + weight * summed / (truth >= 0).sum().clamp(min=1)
        return total

    def _of_category(self, name: Category) -> tuple[float, float]:
        if name == "climate":
            return self.tasks.climate_weight, 0.0
        return self.tasks.month_weight, self.tasks.month_smoothing


def _any(facts: dict[str, np.ndarray]) -> np.ndarray:
    return next(iter(facts.values()))


def classes_of(name: Category, values: np.ndarray) -> np.ndarray:
    """Classes (N,) int64 from 0 of a category's values (N,); −1 where they are NaN."""
    known = np.isfinite(values)
    return np.where(known, np.nan_to_num(values) - FIRST[name], -1).astype(np.int64)


def read(tasks: Tasks, scale: Scale, outputs: np.ndarray) -> dict[str, np.ndarray]:
    """What outputs (N, width) say: by fact (N,), a number in its unit, or the most probable class."""
    count = len(tasks.quantities)
    quantities = scale.undo(outputs[:, :count])
    found: dict[str, np.ndarray] = {name: quantities[:, at] for at, name in enumerate(tasks.quantities)}
    start = count
    for category in tasks.categories:
        logits = outputs[:, start : start + CLASSES[category]]
        start += CLASSES[category]
        found[category] = (logits.argmax(axis=1) + FIRST[category]).astype(np.float64)
    return found
