"""A head on the features of one frozen encoder: the thesis' baseline, and its network with hidden layers."""

from typing import Literal

from pydantic import PositiveInt

from geoloc_core.models.classifier import Classifier, Recipe, load
from geoloc_core.plugins import Strict

__all__ = ["Classifier", "Options", "load"]


class Options(Strict):
    """A variant of this family."""

    corpus: str
    encoder: str
    labels: Literal["country", "subdivision"]
    hidden: tuple[PositiveInt, ...] = ()
    recipe: Recipe = Recipe()

    def inputs(self) -> list[str]:
        """Names of the encoders it reads, in order."""
        return [self.encoder]
