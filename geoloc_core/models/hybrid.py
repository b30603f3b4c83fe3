"""A head on the joined features of a semantic and a visual encoder: the thesis' hybrid of CLIP and ViT."""

from typing import Literal

from pydantic import PositiveInt

from geoloc_core.models.classifier import Classifier, Recipe, load
from geoloc_core.plugins import Strict

__all__ = ["Classifier", "Options", "load"]


class Options(Strict):
    """A variant of this family."""

    corpus: str
    semantic: str
    """The encoder trained with text, such as CLIP."""
    visual: str
    """The encoder trained on classes, such as ViT."""
    labels: Literal["country", "subdivision"]
    hidden: tuple[PositiveInt, ...] = ()
    recipe: Recipe = Recipe()

    def inputs(self) -> list[str]:
        """Names of the encoders it reads, in order."""
        return [self.semantic, self.visual]
