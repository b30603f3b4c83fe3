"""What a variant of this family may be told."""

from typing import Literal

from pydantic import Field, field_validator

from geoloc_core.contracts.needs import ImageFeatures, Needs
from geoloc_core.contracts.options import Variant
from geoloc_core.plugins import Strict
from geoloc_core.training import heads
from geoloc_core.training.optimisers import AdamW, Optimiser
from geoloc_core.training.schedules import Cosine, Schedule


class Recipe(Strict):
    """How the network is trained; published are LAMB at 8e-4, a million steps of 1,024 photos, and averaged weights."""

    batch: int = Field(1024, gt=0)
    """Photos a step."""
    noises: int = Field(4, gt=0)
    """Noise points, each with a time of its own, that are drawn for each photo of a step; published: 1."""
    epochs: int = Field(30, gt=0)
    """How often all training photos are seen, at most."""
    optimiser: Optimiser = AdamW(lr=8e-4, weight_decay=0.05)
    """What changes the weights."""
    schedule: Schedule = Cosine()
    """How the learning rate changes."""
    stop_patience: int | None = Field(None, gt=0)
    """Epochs without a lower validation loss before training ends; null trains them all."""


class Sampling(Strict):
    """How places are drawn from the flow.

    Attributes:
        draws: How many places are drawn of each photo's density.
        steps: Runge–Kutta steps from noise to a place; each evaluates the network four times.
        guidance: How much farther draws follow the photo than the flow does (classifier-free guidance, Ho and Salimans
            2022); 0: as it does. More of it draws places that lie closer together.
        background: The share of the density that is spread over the whole sphere, so that no place is impossible.
    """

    draws: int = Field(64, ge=8)
    steps: int = Field(8, gt=0)
    guidance: float = Field(0.0, ge=0)
    background: float = Field(0.001, gt=0, lt=1)


class Options(Variant):
    """A variant of this family."""

    kind: Literal["flow_matching"]
    encoder: str
    """Of the photos."""
    labels: str
    """Whose classes are the candidates; the flow itself knows none."""
    width: int = Field(512, ge=2, multiple_of=2)
    """Of the network."""
    depth: int = Field(12, gt=0)
    """Residual blocks."""
    expansion: int = Field(4, gt=0)
    """How many times wider each block is inside."""
    dropped: float = Field(0.1, gt=0, lt=1)
    """Share of the photos in training of which the network sees nothing, so that it learns where photos are at all."""
    sampling: Sampling = Sampling()
    recipe: Recipe = Recipe()

    @field_validator("recipe")
    @classmethod
    def _of_its_parts(cls, recipe: Recipe) -> Recipe:
        heads.check_rates(recipe, ())
        return recipe

    def needs(self) -> Needs:
        """A vector per photo."""
        return Needs(inputs=(ImageFeatures(encoder=self.encoder),), labels=self.labels)
