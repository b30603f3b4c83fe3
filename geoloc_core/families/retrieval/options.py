"""What is said of a variant of this family, and what its model keeps of that."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, PrivateAttr, model_validator

from geoloc_core.contracts import layers
from geoloc_core.contracts.needs import Input, Needs
from geoloc_core.contracts.options import Variant
from geoloc_core.families.retrieval.bands import Bands
from geoloc_core.families.retrieval.gallery import Precision
from geoloc_core.plugins import Strict

if TYPE_CHECKING:
    from geoloc_core.params import Profile


class Readout(Strict):
    """The answer of the model of cells alone: the mean of its best cells, where they are near each other."""

    cells: PositiveInt = 10
    """How many are looked at."""
    temperature: PositiveFloat = 0.5
    """That sharpens their probabilities first, which weigh the mean."""
    within_km: float = Field(1000.0, ge=0)
    """Of the first; farther ones do not count."""


class Gate(Strict):
    """Which cells are searched: the fewest that hold so much probability."""

    mass: float = Field(0.95, gt=0, le=1)
    """The probability that they hold together."""
    most: PositiveInt = 400
    """So many cells at most."""


class Neighbours(Strict):
    """The photos that look most alike."""

    count: PositiveInt = 10
    """How many are named, and of how many the answer is the mean where it is not that of the best alone."""
    within_km: float = Field(1000.0, ge=0)
    """Of the best; farther ones do not count in the mean."""


class WhiteningOptions(Strict):
    """PCA whitening of the encoder's own vectors."""

    dims: PositiveInt | None = None
    """Directions with the greatest variance that are kept; left out, all that have any."""


class Blend(Strict):
    """The encoder's own vectors beside the learned heads."""

    own: float = Field(0.34, gt=0, lt=1)
    """Their share; the heads have the rest, all alike."""


class CSLS(Strict):
    """Photos of the gallery that look like everything count less: twice the similarity, less a photo's usual one."""

    neighbours: PositiveInt = 10
    """The usual similarity is the mean of that to so many of the most alike."""
    sample: PositiveInt = 5000
    """Of so many training photos."""


class Rerank(Strict):
    """Logistic regression on the best candidates."""

    candidates: int = Field(100, gt=1)
    km: PositiveFloat = 25.0
    """A candidate within it is right."""
    weight: PositiveFloat = 2.0
    """Of the logit beside the score over its standard deviation."""


class Options(Variant):
    """A variant of this family. Each step is left out with ``null``."""

    kind: Literal["retrieval"]
    variant: str
    """The model of cells that it lies over, of the same corpus."""
    encoder: str
    """Whose features are compared."""
    labels: str
    """The cells, those of the variant."""
    readout: Readout | None = Readout()
    gate: Gate | None = Gate()
    """Null searches all cells."""
    neighbours: Neighbours | None = Neighbours()
    """Null retrieves nothing: the answer is the read-out's."""
    snap: bool = True
    """The answer is the place of the best photo; else the mean of the neighbours."""
    prior: float = Field(0.05, ge=0)
    """Of the logarithm of a cell's probability in the score of its photos."""
    bands: Bands | None = Bands()
    whitening: WhiteningOptions | None = WhiteningOptions()
    blend: Blend | None = Blend()
    """Null compares by the heads alone."""
    csls: CSLS | None = CSLS()
    rerank: Rerank | None = Rerank()
    precision: Precision = "int8"
    """Of the vectors that are kept."""
    _reads: tuple[Input, ...] = PrivateAttr(())
    _unit: Literal["photo", "place"] = PrivateAttr("photo")

    @model_validator(mode="after")
    def _steps_fit(self) -> Self:
        stated = self.model_fields_set
        if self.neighbours is None:
            idle = {"gate", "snap", "prior", "bands", "whitening", "blend", "csls", "rerank", "precision"} & stated
            idle = {name for name in idle if getattr(self, name) is not None}
            if idle:
                raise ValueError(f"{', '.join(sorted(idle))}: nothing is retrieved without neighbours; leave out")
        elif self.bands is None and self.blend is not None and "blend" in stated:
            raise ValueError("blend: without bands there are no heads to blend with; leave out one of them")
        elif self.bands is not None and self.blend is None and self.whitening is not None and "whitening" in stated:
            raise ValueError("whitening: without blend the encoder's own vectors are not compared; leave it out")
        return self

    def over(self, variants: Mapping[str, Any]) -> "Options":
        """The same once it knows what the variant that it lies over reads and answers."""
        found: Options = layers.over(self, variants)
        return found

    def needs(self) -> Needs:
        """The model of cells and what it reads to answer, and the features that are compared."""
        return layers.needs(self)

    def flaws(self, profile: "Profile") -> list[str]:
        """What is wrong with the variant that it lies over."""
        return layers.flaws(profile, self, "searched")


class Settings(Strict):
    """What is said of a model beside its arrays.

    Attributes:
        variant: Name of the variant that it lies over.
        encoder: Whose features are compared.
        readout: See :class:`Options`, as of all that follow.
        gate: Which cells are searched.
        neighbours: How many are named.
        snap: Whether the best photo is the answer.
        prior: Of a cell's probability.
        own: The share of the encoder's own vectors.
        whitened: Whether these are.
        heads: How many heads there are.
        heads_whitened: Whether they start from whitened vectors.
        csls: Whether similarities count twice, less what is usual.
        rerank: Whether, and how, candidates are ranked anew.
    """

    variant: str
    encoder: str
    readout: Readout | None
    gate: Gate | None
    neighbours: Neighbours | None
    snap: bool
    prior: float = Field(ge=0)
    own: float = Field(ge=0, le=1)
    whitened: bool
    heads: int = Field(ge=0)
    heads_whitened: bool
    csls: bool
    rerank: Rerank | None

    @classmethod
    def of(cls, options: Options) -> "Settings":
        """Of a variant's options."""
        heads = 0 if options.bands is None else len(options.bands.km)
        from_white = options.bands is not None and options.bands.whitened and options.whitening is not None
        own = 1.0 if not heads else options.blend.own if options.blend else 0.0
        return cls(
            variant=options.variant,
            encoder=options.encoder,
            readout=options.readout,
            gate=options.gate,
            neighbours=options.neighbours,
            snap=options.snap,
            prior=options.prior,
            own=own,
            whitened=options.whitening is not None and (own > 0 or from_white),
            heads=heads,
            heads_whitened=from_white,
            csls=options.csls is not None,
            rerank=options.rerank,
        )

    @property
    def gain(self) -> float:
        """What similarities are multiplied by."""
        return 2.0 if self.csls else 1.0

    @property
    def length(self) -> int:
        """How many of the best photos are listed."""
        assert self.neighbours is not None
        return max(self.neighbours.count, self.rerank.candidates if self.rerank else 1)
