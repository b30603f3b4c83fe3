"""``params.yaml`` as typed records: what may stand in it."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, PrivateAttr, StringConstraints, model_validator

from geoloc_core.engines.local import Options as Local
from geoloc_core.errors import UserError
from geoloc_core.geo.facts import Sources as Facts
from geoloc_core.pictures import MAX_MEGAPIXELS
from geoloc_core.pins import Sha256
from geoloc_core.plugins import Strict, options
from geoloc_core.sets import LeakKind, Split, leak_parts, set_name, splits_of

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
"""A name that becomes a folder, a DVC stage and a Dagster asset."""
EncoderName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*(-[a-z0-9_]+)*$")]
"""Such a name that may have dashes: ``<encoder>-<corpus>`` stays unambiguous, since a corpus has none."""

HOMES = ("pretrain", "pretrain_from", "checkpoints")
"""Where the weights of an encoder may come from."""
VALIDATION = Split.VALIDATION
"""Name under which the held-out split of a variant's own corpus is scored."""


class Corpus(Strict):
    """A set of photos: how it gets here, how it is read, what it is for."""

    role: Literal["train", "benchmark"]
    """Whether variants learn from it or are scored on it."""
    fetch: options("geoloc_core.corpora.fetch")  # type: ignore[valid-type]
    """How its files get here."""
    source: options("geoloc_core.corpora.sources")  # type: ignore[valid-type]
    """How they are read."""
    max_megapixels: float = Field(MAX_MEGAPIXELS, gt=0)
    """A photo with more pixels is refused: decoding it could exhaust the memory."""
    licences: tuple[str, ...] | None = None
    """The licences, as published, of photos that are taken; left out, any and none."""
    same_place_km: float = Field(1.0, ge=0)
    """Photos of the very same bytes farther apart contradict each other, and none is taken; else the first one is.

    A benchmark keeps them all: each of its published rows is scored.
    """


CountryCode = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9]{3}$")]
"""ISO 3166-1 alpha-3, such as GBR, or what the boundaries call a territory that has none."""


class Drift(Strict):
    """How far a corpus may move from its last version before what reads it stops."""

    photos: float = Field(0.25, ge=0)
    """How many more or fewer photos, as a share of the smaller number."""
    refused: float = Field(0.05, ge=0)
    """Difference between the shares of photos that were refused."""
    sizes: float = Field(0.25, ge=0)
    """How much larger or smaller photos are on average, in pixels."""
    countries: float = Field(0.2, ge=0)
    """Share of photos that would have to change country: the total variation distance."""


class Expect(Strict):
    """What a corpus promises; a check stops what reads one that does not keep it.

    It stands apart from the corpora, so that a change here makes no stage stale.
    """

    countries: Annotated[tuple[CountryCode, ...], Field(min_length=1)] | None = None
    """The countries in which the photos lie."""
    elsewhere_share: float = Field(0.01, ge=0, lt=1)
    """Share of photos that may lie in others: borders are drawn coarsely, and cameras err."""
    min_countries: int | None = Field(None, ge=1)
    """Countries that must occur."""
    max_refused_share: float | None = Field(None, ge=0, le=1)
    """Share of what was seen that may be refused."""
    drift: Drift = Drift()


class Labels(Strict):
    """How points become administrative units, and rows become splits."""

    limit_km: float = Field(100.0, ge=0)
    """A point outside every unit takes the nearest one within this great-circle distance."""
    validation_share: float = Field(0.2, gt=0, lt=1)
    """Share of the groups held out of training to choose on (thesis: 80/20)."""
    test_share: float = Field(0.0, ge=0, lt=1)
    """Share of the groups held out of training and of all choices, only to be reported; 0 for none (thesis)."""
    test_shares: dict[Name, Annotated[float, Field(ge=0, lt=1)]] = Field(default_factory=dict)
    """The same of single corpora, by name, where it is another one."""
    blocks_km: float | None = Field(None, gt=0)
    """Edge of the spatial blocks that must not straddle a split either; left out, groups alone count."""

    @model_validator(mode="after")
    def _leaves_some_to_train_on(self) -> Self:
        for name, share in {"test_share": self.test_share, **self._named()}.items():
            if self.validation_share + share >= 1:
                raise ValueError(
                    f"validation_share {self.validation_share:g} and {name} {share:g} leave nothing to "
                    "train on; expected less than 1 together"
                )
        return self

    def _named(self) -> dict[str, float]:
        return {f"test_shares.{name}": share for name, share in self.test_shares.items()}

    def test_share_of(self, corpus: str) -> float:
        """The share of a corpus' groups that is for test."""
        return self.test_shares.get(corpus, self.test_share)


class Leaks(Strict):
    """What training photos may share with those that a model is scored on."""

    near_bits: int = Field(4, ge=0, le=8)
    """Bits of 64 in which the perceptual hashes of near-duplicates differ at most."""
    neighbour_km: float = Field(1.0, gt=0)
    """Great-circle distance within which photos are neighbours."""
    block: tuple[LeakKind, ...] = (LeakKind.PHOTOGRAPHERS, LeakKind.NEAR_DUPLICATES)
    """The kinds of leaks that training refuses; all kinds are reported."""
    allow: tuple[str, ...] = ()
    """Leaks that are known and accepted, such as ``near_duplicates: mp16/train + im2gps``."""

    @model_validator(mode="after")
    def _named_leaks(self) -> Self:
        for allowed in self.allow:
            kind, *sets = leak_parts(allowed)
            if kind not in list(LeakKind) or not all(sets):
                raise ValueError(
                    f"allow: {allowed!r}; expected a kind ({', '.join(LeakKind)}) and two sets, "
                    "such as 'near_duplicates: mp16/train + im2gps'"
                )
        return self


class About(Strict):
    """What is published about weights, for those who do not have them; what is measured counts more."""

    dim: PositiveInt | None = None
    """Length of the feature, as the encoder of this name pools it."""
    parameters: PositiveFloat | None = None
    """Millions, of the tower that is used."""
    licence: str | None = None
    """Of the weights."""
    paper: str | None = None
    """Where they are published."""
    used_by: str | None = None
    """What is known to use them."""


class Checkpoint(Strict):
    """Where weights come from: one of ``hub``, ``url``, ``tag``, ``file``, ``trained`` and ``parts``."""

    hub: str | None = None
    """Repository of the Hugging Face hub."""
    revision: str | None = None
    """Commit of that repository: a branch name would not be reproducible."""
    url: str | None = None
    """Address of one file of weights; ``sha256`` pins it."""
    model: str | None = None
    """open_clip architecture, with ``tag``, ``url`` or ``file``."""
    tag: str | None = None
    """open_clip pretrained tag."""
    file: Path | None = None
    """A local file or folder of weights, or an ONNX network."""
    trained: EncoderName | None = None
    """An encoder under ``pretrain`` or ``pretrain_from``, whose weights these are."""
    parts: dict[Name, "Checkpoint"] | None = None
    """Of an encoder of several networks, the checkpoint of each."""
    sha256: Sha256 | None = None
    """Checksum of the file of weights as published: anything else is refused."""

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        sources = ("hub", "url", "tag", "file", "trained", "parts")
        given = [name for name in sources if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"expected one of hub, url, tag, file, trained and parts, got {' and '.join(given) or 'none'}"
            )
        if self.hub and not self.revision:
            raise ValueError(f"no revision; expected the commit of {self.hub}, which never moves")
        if self.url and not self.sha256:
            raise ValueError(f"no sha256; expected the checksum of {self.url}, which makes it reproducible")
        if self.parts and self.sha256:
            raise ValueError("sha256: of several networks; expected a checksum with each of the parts")
        if self.tag and not self.model:
            raise ValueError(f"no model; expected the open_clip architecture that {self.tag} belongs to")
        return self

    @property
    def made_of(self) -> tuple[str, ...]:
        """The encoders trained here whose weights it is made of, each once."""
        parts = (self.parts or {}).values()
        return (self.trained,) if self.trained else tuple(dict.fromkeys(n for part in parts for n in part.made_of))


class Texts(Strict):
    """Where sentences come from: one column of a table."""

    path: Path
    """A CSV, a Parquet file, or a JSON list of objects, from the project's root."""
    text: str
    """Column of the sentence."""
    id: str | None = None
    """Column that names the row; left out, rows are numbered."""
    country: str | None = None
    """Column of the country that a sentence is about: its name or ISO 3166-1 code, several separated by ``;``."""


class Evaluation(Strict):
    """How predictions are scored (the thesis' and the field's tables)."""

    thresholds_km: tuple[Annotated[float, Field(gt=0)], ...] = (1, 25, 200, 750, 2500)
    """An answer within one of these distances counts as right at it."""
    top_k: tuple[PositiveInt, ...] = (1, 5, 10)
    """The right class counts among so many of the first."""
    benchmarks: tuple[str, ...] | None = None
    """Corpora with ``role: benchmark`` that variants are scored on; left out, all of them."""
    candidates: PositiveInt = 10
    """Candidates that are kept of each answer."""


Bound = Annotated[float, Field(ge=0)]
"""How much may be lost."""


class GuardsElsewhere(Strict):
    """What a new champion must not lose on a benchmark beside the selection set; null switches a guard off.

    Attributes:
        metric: Of ``registry.metric``, in its unit: points, kilometres or nats.
        continents: As of the selection set.
        calibration: As of the selection set.
    """

    metric: Bound | None = 5
    continents: Bound | dict[str, Bound] | None = None
    calibration: Bound | None = None


class Guards(Strict):
    """What a new champion must not lose, in percentage points on the selection set; null switches a guard off.

    A guard is broken where the loss is larger and its 95 % interval excludes zero.

    Attributes:
        continents: On any continent, of the photos whose country is right; or of some continents, each by its name.
        calibration: By which the calibration error (ECE) may rise.
        benchmarks: What it must not lose on further benchmarks, by name.
    """

    continents: Bound | dict[str, Bound] | None = 5
    calibration: Bound | None = 5
    benchmarks: dict[str, GuardsElsewhere] = Field(default_factory=dict)


class Registry(Strict):
    """What the champion is called and what makes a candidate better.

    Attributes:
        model: Name of the registered model.
        benchmark: The selection set: ``validation``, or a corpus with ``role: benchmark``, best one that
            ``evaluation.benchmarks`` does not name, since a figure that was selected on is too good to be reported.
        metric: What decides there.
        min_gain: The least gain that a new champion has to bring, in the metric's unit, beside one that is no chance.
        guards: What it must not lose.
    """

    model: str
    benchmark: str
    metric: str
    min_gain: float = Field(0, ge=0)
    guards: Guards = Field(default_factory=Guards)


class Explained(Strict):
    """Which photos the report explains. Each is answered some 350 times over, with parts of it hidden.

    Attributes:
        each: So many of the best, of the median and of the worst photos of a variant; 0 for none.
        variants: So many variants, from the best on the selection set; null for all.
    """

    each: int = Field(1, ge=0)
    variants: PositiveInt | None = 6
    """The models: a family each, with its options."""


class Report(Strict):
    """What the report shows.

    Attributes:
        photos_of: Benchmarks whose photos are shown for each variant; left out, the one that the variant is shown by.
        explained: Which of them are explained.
    """

    photos_of: tuple[str, ...] | None = None
    explained: Explained = Explained()


class Limits(Strict):
    """How far features and answers may move from the champion's before a check warns; it never stops anything.

    Attributes:
        features: Energy coefficient of what is learned from now and what the champion learned from: 0 to 1.
        answers: Jensen–Shannon divergence of the shares of countries answered now and before, in bits: 0 to 1.
    """

    features: float = Field(0.05, ge=0, le=1)
    answers: float = Field(0.05, ge=0, le=1)


class Operations(Strict):
    """How retraining is looked after; nothing that is trained depends on it.

    Attributes:
        hook: A command and its arguments; it is told of failures, recoveries and promotions, as JSON on its input.
        look_minutes: How often the sensor looks for changes; files must be at rest from one look to the next.
        hours_per_week: The schedule and the sensor ask for no run once those of the last seven days took so long.
        champion_days: The champion must be confirmed or replaced every so many days; left out, it need not.
        corpora_days: Likewise each corpus: fetched, or found as it was.
        warn_shift: From when on to warn that features or answers have moved.
    """

    hook: tuple[Annotated[str, Field(min_length=1)], ...] | None = Field(None, min_length=1)
    look_minutes: float = Field(1, gt=0, le=10_000)
    hours_per_week: float | None = Field(None, gt=0)
    champion_days: float | None = Field(None, gt=0, le=10_000)
    corpora_days: float | None = Field(None, gt=0, le=10_000)
    warn_shift: Limits = Limits()


class Profile(Strict):
    """Everything one run of the graph needs."""

    seed: int = Field(ge=0)
    """Of all that is random."""
    description: str
    """What the profile is for."""
    demo: bool
    """Whether the photos are rendered: such results are never shown as results on real photos."""
    threads: int | None = Field(None, gt=0)
    """Threads of a stage on the CPU; null or left out, all cores, which suits stages that run one at a time.

    What is pre-trained on a CPU depends on their number, in its last digits and so in all that follows: with null it is
    the same on machines of as many cores only. DVC needs the key wherever something is pre-trained.
    """
    boundaries: options("geoloc_core.geo.sources")  # type: ignore[valid-type]
    """Where countries and their units come from."""
    labels: Labels
    leaks: Leaks = Leaks()
    corpora: dict[Name, Corpus]
    """The sets of photos, to train on and to be scored on."""
    expect: dict[Name, Expect] = Field(default_factory=dict)
    """What the corpora promise beyond what all of them do."""
    pretrain: dict[EncoderName, options("geoloc_core.training.pretrain")]  # type: ignore[valid-type]
    """Towers that are trained from scratch."""
    pretrain_from: dict[EncoderName, options("geoloc_core.training.pretrain")]  # type: ignore[valid-type]
    """Towers that go on from the weights of the encoder that ``start`` names."""
    checkpoints: dict[EncoderName, Checkpoint]
    """Where the weights of encoders come from."""
    encoders: dict[EncoderName, options("geoloc_core.encoders.towers")]  # type: ignore[valid-type]
    """How photos become features."""
    texts: dict[Name, Texts]
    """Sentences, such as the clues of a guidebook."""
    text_encoders: dict[EncoderName, options("geoloc_core.encoders.text.towers")]  # type: ignore[valid-type]
    """Each reads the weights of its name: a CLIP is the image encoder and the text encoder of one checkpoint."""
    about: dict[EncoderName, About] = Field(default_factory=dict)
    """What is published about the weights of encoders."""
    cells: dict[Name, options("geoloc_core.geo.geocells.schemes")] = Field(default_factory=dict)  # type: ignore[valid-type]
    """Label spaces of geocells, beside the countries and subdivisions that the boundaries give."""
    facts: Facts | None = None
    """What auxiliary tasks learn: elevation, climate and the like; left out, none of these can be learned."""
    attributes: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Label spaces that corpora state themselves: columns of ``attributes.parquet``, such as ``city``."""
    variants: dict[Name, options("geoloc_core.families")]  # type: ignore[valid-type]
    """The models: a family each, with its options."""
    evaluation: Evaluation
    registry: Registry
    report: Report = Report()
    operations: Operations = Operations()
    engine: options("geoloc_core.engines") = Local()  # type: ignore[valid-type]
    """Where photos are encoded and answered: in the stage's process, or on the machines of a cluster."""
    _repeats: dict[str, tuple[str, ...]] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _layers_know_what_they_lie_over(self) -> Self:
        """A variant that lies over another one reads what that reads, which its own block does not repeat."""
        for name, block in self.variants.items():
            if hasattr(block, "over"):
                self.variants[name] = block.over(self.variants)
        return self

    @model_validator(mode="after")
    def _each_seed_is_a_training(self) -> Self:
        """A variant with several seeds keeps the first; each of the others is a variant with a name of its own."""
        for name, block in list(self.variants.items()):
            if block.seeds is None or len(block.seeds) == 1:
                continue
            others = {f"{name}_seed_{seed}": seed for seed in block.seeds[1:]}
            if taken := self.variants.keys() & others:
                raise ValueError(f"variants.{name}.seeds: {min(taken)!r} is there already; rename it")
            for other, seed in others.items():
                self.variants[other] = block.model_copy(update={"seeds": (seed,)})
            self.variants[name] = block.model_copy(update={"seeds": block.seeds[:1]})
            self._repeats[name] = tuple(others)
        return self

    @property
    def repeats(self) -> dict[str, tuple[str, ...]]:
        """The variants that are others trained again with another seed, by the name of the first."""
        return dict(self._repeats)

    @property
    def sets(self) -> list[str]:
        """Names of the sets of photos that must not leak into each other: benchmarks, and the splits of the others."""
        splits = {
            name: splits_of(corpus.role, self.labels.test_share_of(name)) for name, corpus in self.corpora.items()
        }
        return [set_name(name, split) for name, known in splits.items() for split in known]

    def learned_labels(self, corpus: str) -> set[str]:
        """The label spaces that variants learn from a corpus."""
        return {block.needs().labels for block in self.variants.values() if block.corpus == corpus}

    def unit(self, name: str) -> str:
        """What a variant answers: ``photo`` or ``place``."""
        unit: str = self.variants[name].needs().unit
        return unit

    def variant(self, name: str) -> Any:
        """The block of one variant.

        Raises:
            UserError: There is none of the name.
        """
        return entry(self.variants, name, "variant")

    def scored_on(self, name: str) -> list[str]:
        """The benchmarks that a variant is asked about.

        A model of one country is not asked about the planet: where the training corpus promises to be in some countries
        alone (``expect``), so must the benchmark, and in none but those.
        """
        block = self.variants[name]
        return (
            list(block.benchmarks)
            if block.benchmarks is not None
            else [benchmark for benchmark in self._offered() if self._covers(block.corpus, benchmark)]
        )

    def learned_from(self, name: str) -> list[str]:
        """The corpora that a variant has learned from: its own, those of its members, and of encoders trained here."""
        needs = self.variants[name].needs()
        found = [self.variants[name].corpus]
        for part in (*needs.members, *needs.models):
            found += self.learned_from(part)
        for encoder in (*needs.encoded, *(encoder for encoder, _ in needs.texts), *needs.towers):
            found += self._encoder_learned_from(encoder)
        return list(dict.fromkeys(found))

    def _encoder_learned_from(self, name: str) -> list[str]:
        trained = self.pretrain | self.pretrain_from
        made_of = self.checkpoints[name].made_of if name in self.checkpoints else ()
        start = getattr(trained.get(name), "start", None)
        corpora = [trained[name].corpus] if name in trained else []
        for part in (*made_of, *([start] if start else [])):
            corpora += self._encoder_learned_from(part)
        return corpora

    def attributes_of(self, corpus: str) -> list[str]:
        """The attributes of a corpus that variants learn which learn from it, or are scored on it."""
        asked = (name for name, block in self.variants.items() if corpus in (block.corpus, *self.scored_on(name)))
        learned = {self.variants[name].needs().labels for name in asked}
        return [name for name in self.attributes if name in learned]

    @property
    def benchmarks(self) -> list[str]:
        """The benchmarks that any variant is scored on, in the order of the profile."""
        wanted = {benchmark for name in self.variants for benchmark in self.scored_on(name)}
        return [name for name in dict.fromkeys((*self._offered(), *self.corpora)) if name in wanted]

    def _offered(self) -> list[str]:
        """The benchmarks that are named, or all; and the one that variants are selected on, if it is one."""
        known = [name for name, corpus in self.corpora.items() if corpus.role == "benchmark"]
        named = self.evaluation.benchmarks
        chosen = [name for name in known if name == self.registry.benchmark]
        return known if named is None else list(dict.fromkeys((*named, *chosen)))

    def _covers(self, corpus: str, benchmark: str) -> bool:
        known, asked = (self.expect.get(name, Expect()).countries for name in (corpus, benchmark))
        return known is None or (asked is not None and set(asked) <= set(known))


def entry(table: dict[str, Any], name: str, what: str, where: str = "the profile in use") -> Any:
    """``table[name]``, or one clear line that lists what there is.

    Raises:
        UserError: There is no such entry.
    """
    if name not in table:
        known = ", ".join(table) or "none"
        raise UserError(f"{what} {name!r}: not in {where}; expected one of: {known}")
    return table[name]
