"""``params.yaml`` as typed, validated records: the only reader of that file."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, StringConstraints, ValidationError, model_validator

from geoloc_core.errors import UserError
from geoloc_core.models.paper import Paper
from geoloc_core.pictures import MAX_MEGAPIXELS
from geoloc_core.pins import Sha256
from geoloc_core.plugins import Strict, options
from geoloc_core.sets import LeakKind, Split, leak_parts, set_name, splits_of
from geoloc_core.yamls import read_yaml

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
    fetch: options("geoloc_core.corpora.fetch")  # type: ignore[valid-type]
    source: options("geoloc_core.corpora.sources")  # type: ignore[valid-type]
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
    blocks_km: float | None = Field(None, gt=0)
    """Edge of the spatial blocks that must not straddle a split either; left out, groups alone count."""

    @model_validator(mode="after")
    def _leaves_some_to_train_on(self) -> Self:
        if self.validation_share + self.test_share >= 1:
            raise ValueError(
                f"validation_share {self.validation_share:g} and test_share {self.test_share:g} leave nothing to "
                "train on; expected less than 1 together"
            )
        return self


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
    paper: str | None = None
    used_by: str | None = None


class Checkpoint(Strict):
    """Where published weights come from: one of ``hub``, ``url``, ``tag``, ``file`` and ``parts``."""

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
    parts: dict[Name, "Checkpoint"] | None = None
    """Of an encoder of several networks, the checkpoint of each."""
    sha256: Sha256 | None = None
    """Checksum of the file of weights as published: anything else is refused."""

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        given = [name for name in ("hub", "url", "tag", "file", "parts") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"expected one of hub, url, tag, file and parts, got {' and '.join(given) or 'none'}")
        if self.hub and not self.revision:
            raise ValueError(f"no revision; expected the commit of {self.hub}, which never moves")
        if self.url and not self.sha256:
            raise ValueError(f"no sha256; expected the checksum of {self.url}, which makes it reproducible")
        if self.parts and self.sha256:
            raise ValueError("sha256: of several networks; expected a checksum with each of the parts")
        if self.tag and not self.model:
            raise ValueError(f"no model; expected the open_clip architecture that {self.tag} belongs to")
        return self


class Texts(Strict):
    """Where sentences come from: one column of a table."""

    path: Path
    """A CSV, a Parquet file, or a JSON list of objects, from the project's root."""
    text: str
    """Column of the sentence."""
    id: str | None = None
    """Column that names the row; left out, rows are numbered."""


class Evaluation(Strict):
    """How predictions are scored (the thesis' and the field's tables)."""

    thresholds_km: tuple[PositiveFloat, ...] = (1, 25, 200, 750, 2500)
    top_k: tuple[PositiveInt, ...] = (1, 5, 10)


class Registry(Strict):
    """What the champion is called and what makes a candidate better."""

    model: str
    benchmark: str
    metric: str


class Profile(Strict):
    """Everything one run of the graph needs."""

    seed: int = Field(ge=0)
    description: str
    demo: bool
    """Whether the photos are rendered: such results are never shown as results on real photos."""
    threads: int | None = Field(None, gt=0)
    """Threads of a stage on the CPU; null or left out, all cores, which suits stages that run one at a time.

    What is pre-trained on a CPU depends on their number, in its last digits and so in all that follows: with null it is
    the same on machines of as many cores only. DVC needs the key wherever something is pre-trained.
    """
    boundaries: options("geoloc_core.geo.sources")  # type: ignore[valid-type]
    labels: Labels
    leaks: Leaks = Leaks()
    corpora: dict[Name, Corpus]
    encoded: tuple[Name, ...]
    """The corpora whose features are extracted: those that variants are trained on, and benchmarks to score."""
    expect: dict[Name, Expect] = Field(default_factory=dict)
    """What the corpora promise beyond what all of them do."""
    pretrain: dict[EncoderName, options("geoloc_core.training.pretrain")]  # type: ignore[valid-type]
    """Towers that are trained from scratch."""
    pretrain_from: dict[EncoderName, options("geoloc_core.training.pretrain")]  # type: ignore[valid-type]
    """Towers that go on from the weights of the encoder that ``start`` names."""
    checkpoints: dict[EncoderName, Checkpoint]
    encoders: dict[EncoderName, options("geoloc_core.encoders.towers")]  # type: ignore[valid-type]
    texts: dict[Name, Texts]
    text_encoders: dict[EncoderName, options("geoloc_core.encoders.text.towers")]  # type: ignore[valid-type]
    """Each reads the weights of its name: a CLIP is the image encoder and the text encoder of one checkpoint."""
    about: dict[EncoderName, About] = Field(default_factory=dict)
    """What is published about the weights of encoders."""
    variants: dict[str, dict[Name, Any]]
    papers: dict[Name, Paper] = Field(default_factory=dict)
    """The published rows that variants stand for: apart from them, so that a corrected figure trains nothing again."""
    evaluation: Evaluation
    registry: Registry

    @property
    def sets(self) -> list[str]:
        """Names of the sets of photos that must not leak into each other: benchmarks, and the splits of the others."""
        splits = {name: splits_of(corpus.role, self.labels.test_share) for name, corpus in self.corpora.items()}
        return [set_name(name, split) for name, known in splits.items() for split in known]

    @property
    def benchmarks(self) -> list[str]:
        """Names of the corpora that are scored and never trained on: the benchmarks that are encoded."""
        return [name for name in self.encoded if name in self.corpora and self.corpora[name].role == "benchmark"]

    def variant(self, name: str) -> Any:
        """One variant, whatever its family.

        Raises:
            UserError: No family has it.
        """
        found = {key: block for family in self.variants.values() for key, block in family.items()}
        return entry(found, name, "variant")


def entry(table: dict[str, Any], name: str, what: str, where: str = "the profile in use") -> Any:
    """``table[name]``, or one clear line that lists what there is.

    Raises:
        UserError: There is no such entry.
    """
    if name not in table:
        known = ", ".join(table) or "none"
        raise UserError(f"{what} {name!r}: not in {where}; expected one of: {known}")
    return table[name]


def load(path: Path) -> Profile:
    """Read and check a whole ``params.yaml`` and return the profile under ``run``.

    Every profile is checked, so that a mistake in the one not in use is found too.

    Raises:
        UserError: The file is missing or wrong; all its errors are listed with their keys.
    """
    raw = read_yaml(path)
    if not isinstance(raw, dict) or "run" not in raw:
        raise UserError(f"{path}: no key `run`; expected `run: *<profile>`, the profile to use")
    profiles = raw.get("profiles") or {}
    if not isinstance(profiles, dict):
        raise UserError(f"{path}: profiles: expected a mapping of names to profiles")
    unknown = [f"{key}: unknown key; expected `profiles` and `run`" for key in raw if key not in ("profiles", "run")]
    blocks = {f"profiles.{name}": block for name, block in profiles.items()}
    if raw["run"] not in profiles.values():
        blocks["run"] = raw["run"]
    checked, errors = {}, unknown
    for where, block in blocks.items():
        profile, found = _check(block, where)
        checked[where] = (block, profile)
        errors += found
    if errors:
        count = f"{len(errors)} error" + ("s" if len(errors) > 1 else "")
        raise UserError(f"{path}: {count}", *(f"  {line}" for line in errors))
    return next(profile for block, profile in checked.values() if block == raw["run"] and profile)


def any_corpus(path: Path, name: str) -> Corpus:
    """A corpus of the profile in use or, where that has none of the name, of any other.

    Raises:
        UserError: The file is wrong, or no profile has the corpus.
    """
    known = dict(load(path).corpora)
    for block in (read_yaml(path).get("profiles") or {}).values():
        for key, corpus in block["corpora"].items():
            known.setdefault(key, Corpus.model_validate(corpus))
    found: Corpus = entry(known, name, "corpus", "params.yaml")
    return found


@dataclass(frozen=True)
class NamedEncoder:
    """What an encoder's name means.

    Attributes:
        profile: The profile that names it.
        image: Options of its image tower, where it has one.
        text: Options of its text tower, where it has one.
        checkpoint: Where its weights are published; None where they are trained here.
        about: What is published about them.
    """

    profile: str
    image: Any
    text: Any
    checkpoint: Checkpoint | None
    about: About

    @classmethod
    def of(cls, profile: str, block: Profile, name: str) -> "NamedEncoder":
        """What a profile means by a name."""
        image, text = block.encoders.get(name), block.text_encoders.get(name)
        return cls(profile, image, text, block.checkpoints.get(name), block.about.get(name, About()))


def encoders(path: Path) -> list[tuple[str, NamedEncoder]]:
    """Every encoder of every profile by name, those of the profile in use first.

    Raises:
        UserError: The file is wrong.
    """
    used, raw = load(path), read_yaml(path)
    blocks = raw.get("profiles") or {}
    current = next((name for name, block in blocks.items() if block == raw["run"]), "run")
    profiles = {current: used} | {
        name: Profile.model_validate(block) for name, block in blocks.items() if block != raw["run"]
    }
    return [
        (name, NamedEncoder.of(profile, block, name))
        for profile, block in profiles.items()
        for name in dict.fromkeys((*block.encoders, *block.text_encoders))
    ]


def any_encoder(path: Path, name: str) -> NamedEncoder:
    """An encoder of the profile in use or, where that has none of the name, of any other.

    Raises:
        UserError: The file is wrong, or no profile has the encoder.
    """
    known: dict[str, NamedEncoder] = {}
    for key, encoder in encoders(path):
        known.setdefault(key, encoder)
    found: NamedEncoder = entry(known, name, "encoder", "params.yaml")
    return found


def _check(block: Any, where: str) -> tuple[Profile | None, list[str]]:
    errors: list[str] = []
    profile = None
    try:
        profile = Profile.model_validate(block)
    except ValidationError as error:
        errors = [f"{'.'.join(map(str, (where, *e['loc'])))}: {_say(e)}" for e in error.errors()]
    if isinstance(block, dict):
        errors += [f"{where}.{line}" for line in _check_variants(block)]
        if profile:
            errors += [f"{where}.{line}" for line in _check_references(profile, block)]
    if profile and not errors:
        profile = profile.model_copy(update={"variants": _variants(block)})
    return profile, errors


def _say(error: Any) -> str:
    if error["type"] == "missing":
        return "missing; expected a value"
    if error["type"] == "extra_forbidden":
        return MOVED.get(error["loc"][-1], "unknown key")
    value = error.get("input")
    shown = "" if isinstance(value, dict | list | Strict) else f" (got {value!r})"
    quote = "; put it in quotes if it is text" if shown and error["type"] == "string_type" else ""
    return f"{error['msg'].removeprefix('Value error, ')}{shown}{quote}"


MOVED = {
    "paper": "unknown key; a variant's published figures now stand in the profile, under papers.<variant>",
    "about": "unknown key; what is published about weights now stands in the profile, under about.<encoder>",
}
"""Keys of former versions, and where they went."""


def _families(block: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = block.get("variants")
    return found if isinstance(found, dict) else {}


def _check_variants(block: dict[str, Any]) -> list[str]:
    from geoloc_core.models import options_of

    errors = []
    for family, variants in _families(block).items():
        model = options_of(family)
        if model is None:
            errors.append(f"variants.{family}: unknown model family; expected a module of geoloc_core.models")
            continue
        if not isinstance(variants or {}, dict):
            errors.append(f"variants.{family}: expected a mapping of names to variants")
            continue
        for name, values in (variants or {}).items():
            try:
                model.model_validate(values)
            except ValidationError as error:
                errors += [
                    f"{'.'.join(map(str, ('variants', family, name, *e['loc'])))}: {_say(e)}" for e in error.errors()
                ]
    return errors


def _variants(block: dict[str, Any]) -> dict[str, dict[str, Any]]:
    from geoloc_core.models import options_of

    found = {}
    for family, variants in _families(block).items():
        model = options_of(family)
        assert model is not None
        found[family] = {name: model.model_validate(values) for name, values in (variants or {}).items()}
    return found


def _metrics(evaluation: Evaluation) -> list[str]:
    """What a champion can be chosen by."""
    shares = [f"within_{km:g}km" for km in evaluation.thresholds_km]
    return ["accuracy", *(f"top_{k}" for k in evaluation.top_k if k > 1), *shares, "mean_km", "median_km"]


def _check_pretraining(profile: Profile) -> list[str]:
    """Corpora and starts that are not there. Where weights come from decides what a stage waits for."""
    errors = []
    for where in ("pretrain", "pretrain_from"):
        for name, tower in getattr(profile, where).items():
            corpus = profile.corpora.get(tower.corpus)
            if corpus is None or corpus.role != "train":
                errors.append(f"{where}.{name}.corpus: {tower.corpus!r} is no corpus with role: train")
            start = getattr(tower, "start", None)
            for role, encoder, expected in (("", name, WRITES[tower.kind]), (".start", start, "open_clip")):
                found = profile.encoders.get(str(encoder))
                if found and found.kind != expected:
                    errors.append(f"{where}.{name}{role}: encoder {encoder!r} is {found.kind!r}; expected {expected!r}")
            if where == "pretrain" and start is not None:
                errors.append(f"pretrain.{name}.start: belongs under pretrain_from; here towers start from scratch")
            if where == "pretrain_from" and (start is None or start == name or start not in profile.encoders):
                others = ", ".join(other for other in profile.encoders if other != name)
                errors.append(f"pretrain_from.{name}.start: {start!r}; expected another encoder, one of: {others}")
    return errors


WRITES = {"clip": "open_clip", "vit": "vit"}
"""The kind of tower that reads what a kind of pre-training writes."""


def _no_vector(tower: Any) -> str | None:
    """Why a head cannot be trained on an encoder; None where it gives a vector per photo."""
    if tower is None:
        return "unknown; expected one of `encoders`"
    if tower.kind == "mask2former":
        return "gives pictures; expected one that gives a vector per photo"
    if getattr(tower, "pooling", None) == "tokens":
        return "gives many tokens per photo; expected another pooling"
    return None


def _check_encoders(profile: Profile) -> list[str]:
    """Encoders without weights, weights without an encoder, and names that only look different."""
    errors = []
    sides = {"encoders": profile.encoders, "text_encoders": profile.text_encoders}
    names = list(dict.fromkeys(name for side in sides.values() for name in side))
    for where, side in sides.items():
        for name in side:
            homes = [home for home in HOMES if name in getattr(profile, home)]
            if len(homes) != 1:
                errors.append(f"{where}.{name}: needs its weights from exactly one of {' and '.join(HOMES)}")
    for home in HOMES:
        errors += [f"{home}.{name}: no encoder of that name" for name in getattr(profile, home) if name not in names]
    errors += [
        f"text_encoders.{name}.kind: {tower.kind!r}; expected {profile.encoders[name].kind!r}: the weights are the same"
        for name, tower in profile.text_encoders.items()
        if name in profile.encoders and profile.encoders[name].kind != tower.kind
    ]
    plain = {name.replace("-", "_"): name for name in names}  # which is how Dagster names its steps
    errors += [
        f"encoders.{name}: too like {plain[name.replace('-', '_')]!r}; expected names that differ in more than a dash"
        for name in names
        if plain[name.replace("-", "_")] != name
    ]
    return errors


def _check_references(profile: Profile, block: dict[str, Any]) -> list[str]:
    """What pydantic cannot see: names that point from one block to another."""
    from geoloc_core.models import options_of

    errors = [*_check_encoders(profile), *_check_pretraining(profile)]
    if (profile.pretrain or profile.pretrain_from) and "threads" not in block:
        errors.append("threads: missing; expected their number, which pre-training depends on, or null for all cores")
    errors += [f"encoded: {name!r} is no corpus" for name in profile.encoded if name not in profile.corpora]
    errors += [f"encoded: {name!r} is there twice" for name, n in Counter(profile.encoded).items() if n > 1]
    held_out = splits_of("train", profile.labels.test_share)[1:]
    errors += [f"corpora.{name}: the name is taken by a held-out split" for name in held_out if name in profile.corpora]
    errors += [f"expect.{name}: no corpus of that name" for name in profile.expect if name not in profile.corpora]
    errors += [f"about.{name}: no checkpoint of that name" for name in profile.about if name not in profile.checkpoints]
    variants = [name for names in _families(block).values() if isinstance(names, dict) for name in names]
    errors += [f"papers.{name}: no variant of that name" for name in profile.papers if name not in variants]
    errors += [
        f"leaks.allow: {allowed!r}: {name!r} is no set; expected one of: {', '.join(profile.sets)}"
        for allowed in profile.leaks.allow
        for name in leak_parts(allowed)[1:]
        if name not in profile.sets
    ]
    metrics = _metrics(profile.evaluation)
    if profile.registry.metric not in metrics:
        errors.append(f"registry.metric: {profile.registry.metric!r}; expected one of: {', '.join(metrics)}")
    seen: dict[str, str] = {}
    for family, found in _families(block).items():
        model = options_of(family)
        for name, values in found.items() if isinstance(found, dict) else ():
            if name in seen:
                errors.append(f"variants.{family}.{name}: the name is taken by family {seen[name]}")
            seen[name] = family
            try:
                variant = model.model_validate(values) if model else None
            except ValidationError:
                continue
            if variant is None:
                continue
            errors += [
                f"variants.{family}.{name}: encoder {encoder!r}: {wrong}"
                for encoder in variant.inputs()
                if (wrong := _no_vector(profile.encoders.get(encoder)))
            ]
            corpus = profile.corpora.get(variant.corpus)
            if corpus is None or corpus.role != "train":
                errors.append(f"variants.{family}.{name}.corpus: {variant.corpus!r} is no corpus with role: train")
            elif variant.corpus not in profile.encoded:
                errors.append(f"variants.{family}.{name}.corpus: {variant.corpus!r} is not in encoded; add it there")
    if profile.registry.benchmark not in (*profile.benchmarks, VALIDATION):
        errors.append(
            f"registry.benchmark: {profile.registry.benchmark!r} is neither {VALIDATION} nor a corpus "
            "with role: benchmark that is encoded"
        )
    return errors
