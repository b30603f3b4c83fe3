"""What a variant reads, as typed values.

Everything else about its inputs follows from them: the checks of ``params.yaml``, what is encoded at all, what a stage
depends on, loading, photos that lack an input, fingerprints, scoring, and what is served with the model.
"""

from typing import Annotated, Literal

from pydantic import Field

from geoloc_core.contracts.facts import Fact
from geoloc_core.plugins import Strict

MOST = 6
"""Things that a training or an answer reads, at most: as many templates are in ``dvc.yaml``."""


class ImageFeatures(Strict):
    """A vector per photo, from an image encoder."""

    kind: Literal["image"] = "image"
    encoder: str


class Tokens(Strict):
    """The tokens of each photo that enter the last block of an image encoder, and the weights of that block.

    They are encoded once, or ``live``, whenever a photo is looked at: from the photos, by the encoder's own weights.
    Without ``weights`` the block is another variant's, which is trained already.
    """

    kind: Literal["tokens"] = "tokens"
    encoder: str
    live: bool = False
    weights: bool = True


class Facts(Strict):
    """What is known of the place and the moment of each photo, to be learned and never to be answered from."""

    kind: Literal["facts"] = "facts"
    names: tuple[Fact, ...]


class TextFeatures(Strict):
    """A vector per sentence, from a text encoder: what a model learns from and keeps, such as clues."""

    kind: Literal["text"] = "text"
    encoder: str
    texts: str


class Answers(Strict):
    """What another variant answers."""

    kind: Literal["answers"] = "answers"
    variant: str


class Photos(Strict):
    """The photos themselves."""

    kind: Literal["photos"] = "photos"


class Pieces(Strict):
    """Pictures that a segmenter cuts from the photos: any number of each."""

    kind: Literal["pieces"] = "pieces"
    encoder: str


class Tower(Strict):
    """The weights of an image encoder, from which a network of one's own starts."""

    kind: Literal["tower"] = "tower"
    encoder: str


class TextTower(Strict):
    """The text tower of a CLIP, to embed sentences of one's own in the space of its photos' features."""

    kind: Literal["text_tower"] = "text_tower"
    encoder: str


class Model(Strict):
    """Another variant's trained model, to be made a part of this one."""

    kind: Literal["model"] = "model"
    variant: str


Input = Annotated[
    ImageFeatures | Tokens | Facts | TextFeatures | Answers | Photos | Pieces | Tower | TextTower | Model,
    Field(discriminator="kind"),
]


class Needs(Strict):
    """All that a variant reads beside the labels of its corpus.

    Attributes:
        inputs: In the order in which the family joins them.
        labels: Name of the label space that it learns: ``country``, ``subdivision``, or one of ``cells`` or
            ``attributes``.
        unit: What it answers: a photo, or a place with all its photos, in the order of their headings.
    """

    inputs: tuple[Input, ...]
    labels: str
    unit: Literal["photo", "place"] = "photo"

    @property
    def encoders(self) -> list[str]:
        """Names of the image encoders whose features or tokens it reads, in order."""
        return [
            need.encoder
            for need in self.inputs
            if isinstance(need, ImageFeatures) or (isinstance(need, Tokens) and not need.live)
        ]

    @property
    def facts(self) -> list[Fact]:
        """Names of the facts that it learns, in order."""
        return [name for need in self.inputs if isinstance(need, Facts) for name in need.names]

    @property
    def texts(self) -> list[tuple[str, str]]:
        """Text encoder and sentences of each text input."""
        return [(need.encoder, need.texts) for need in self.inputs if isinstance(need, TextFeatures)]

    @property
    def photos(self) -> bool:
        """Whether it looks at the photos themselves."""
        return any(isinstance(need, Photos) or (isinstance(need, Tokens) and need.live) for need in self.inputs)

    @property
    def segmenters(self) -> list[str]:
        """Names of the encoders that cut pieces, in order."""
        return [need.encoder for need in self.inputs if isinstance(need, Pieces)]

    @property
    def encoded(self) -> list[str]:
        """Names of all encoders of which a corpus has to be encoded: for features, and for pieces."""
        return [*self.encoders, *self.segmenters]

    @property
    def towers(self) -> list[str]:
        """Names of the encoders that networks, or their last blocks, start from, in order."""
        return [
            need.encoder
            for need in self.inputs
            if isinstance(need, Tower) or (isinstance(need, Tokens) and need.weights)
        ]

    @property
    def text_towers(self) -> list[str]:
        """Names of the encoders whose text towers embed sentences, in order."""
        return [need.encoder for need in self.inputs if isinstance(need, TextTower)]

    @property
    def models(self) -> list[str]:
        """Names of the variants whose models become a part of it, in order."""
        return [need.variant for need in self.inputs if isinstance(need, Model)]

    @property
    def members(self) -> list[str]:
        """Names of the variants whose answers it reads, in order."""
        return [need.variant for need in self.inputs if isinstance(need, Answers)]
