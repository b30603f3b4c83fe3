"""What a variant reads, as typed values.

Everything else about its inputs follows from them: the checks of ``params.yaml``, what is encoded at all, what a stage
depends on, loading, photos that lack an input, fingerprints, scoring, and what is served with the model.
"""

from typing import Annotated, Literal

from pydantic import Field

from geoloc_core.plugins import Strict

MOST = 6
"""Things that a training or an answer reads, at most: as many templates are in ``dvc.yaml``."""


class ImageFeatures(Strict):
    """A vector per photo, from an image encoder."""

    kind: Literal["image"] = "image"
    encoder: str


class TextFeatures(Strict):
    """A vector per sentence, from a text encoder: what a model learns from and keeps, such as clues."""

    kind: Literal["text"] = "text"
    encoder: str
    texts: str


class Answers(Strict):
    """What another variant answers."""

    kind: Literal["answers"] = "answers"
    variant: str


Input = Annotated[ImageFeatures | TextFeatures | Answers, Field(discriminator="kind")]


class Needs(Strict):
    """All that a variant reads beside the labels of its corpus.

    Attributes:
        inputs: In the order in which the family joins them.
        labels: Name of the label space that it learns: ``country``, ``subdivision``, or one of ``cells``.
        unit: What it answers: a photo, or a place with all its photos, in the order of their headings.
    """

    inputs: tuple[Input, ...]
    labels: str
    unit: Literal["photo", "place"] = "photo"

    @property
    def encoders(self) -> list[str]:
        """Names of the image encoders, in order."""
        return [need.encoder for need in self.inputs if isinstance(need, ImageFeatures)]

    @property
    def texts(self) -> list[tuple[str, str]]:
        """Text encoder and sentences of each text input."""
        return [(need.encoder, need.texts) for need in self.inputs if isinstance(need, TextFeatures)]

    @property
    def members(self) -> list[str]:
        """Names of the variants whose answers it reads, in order."""
        return [need.variant for need in self.inputs if isinstance(need, Answers)]
