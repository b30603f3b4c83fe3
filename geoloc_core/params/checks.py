"""What no single record can see: names that point from one block of a profile to another."""

from collections import Counter
from typing import Any

from geoloc_core.contracts.metrics import names as metric_names
from geoloc_core.contracts.needs import (
    MOST,
    Answers,
    Facts,
    ImageFeatures,
    Input,
    Model,
    Needs,
    Photos,
    Pieces,
    TextFeatures,
    TextTower,
    Tokens,
    Tower,
)
from geoloc_core.contracts.truth import UNITS
from geoloc_core.corpora.countries import continents
from geoloc_core.encoders.options import MANY, PENULTIMATE
from geoloc_core.params.schema import HOMES, VALIDATION, Profile
from geoloc_core.sets import leak_parts, splits_of

UNKNOWN = "unknown; expected one of `encoders`"


def flaws(profile: Profile, block: dict[str, Any]) -> list[str]:
    """All that is wrong with a profile whose records are right each by itself.

    Args:
        profile: The profile.
        block: The same as ``params.yaml`` has it.
    """
    found = [*_check_encoders(profile), *_check_pretraining(profile)]
    if (profile.pretrain or profile.pretrain_from) and "threads" not in block:
        found.append("threads: missing; expected their number, which pre-training depends on, or null for all cores")
    shares = (profile.labels.test_share, *profile.labels.test_shares.values())
    held_out = splits_of("train", max(shares))[1:]
    found += [f"corpora.{name}: the name is taken by a held-out split" for name in held_out if name in profile.corpora]
    found += [
        f"labels.test_shares.{name}: not a corpus with role: train"
        for name in profile.labels.test_shares
        if name not in profile.corpora or profile.corpora[name].role != "train"
    ]
    found += [f"expect.{name}: no corpus of that name" for name in profile.expect if name not in profile.corpora]
    found += [f"about.{name}: no checkpoint of that name" for name in profile.about if name not in profile.checkpoints]
    found += [f"cells.{name}: the name is taken by the boundaries' units" for name in profile.cells if name in UNITS]
    found += [
        f"attributes: {name!r}: the name is taken by {'cells' if name in profile.cells else 'the units of boundaries'}"
        for name in profile.attributes
        if name in (*UNITS, *profile.cells)
    ]
    found += [
        f"leaks.allow: {allowed!r}: {name!r} is not a set of photos; expected one of: {', '.join(profile.sets)}"
        for allowed in profile.leaks.allow
        for name in leak_parts(allowed)[1:]
        if name not in profile.sets
    ]
    return [*found, *_check_variants(profile), *_check_evaluation(profile)]


def _check_variants(profile: Profile) -> list[str]:
    """What variants read that is not there; a family adds what it knows itself."""
    found = []
    for name, block in profile.variants.items():
        here = f"variants.{name}"
        needs = block.needs()
        found += [f"{here}: {wrong}" for need in needs.inputs if (wrong := _wrong(profile, need))]
        found += [f"{here}: {_called(need)} is there twice" for need, n in Counter(needs.inputs).items() if n > 1]
        if (reads := reads_of(needs) + (needs.labels in profile.cells)) > MOST:
            found.append(
                f"{here}: reads {reads} things, cells among them; expected at most {MOST}: dvc.yaml has no more"
            )
        found += [
            f"{here}.benchmarks: {benchmark!r}: {member!r}, whose answers it reads, is not scored on it"
            for member in needs.members
            if member in profile.variants
            for benchmark in profile.scored_on(name)
            if benchmark not in profile.scored_on(member)
        ]
        if needs.labels not in (known := [*UNITS, *profile.cells, *profile.attributes]):
            found.append(f"{here}.labels: {needs.labels!r}; expected one of: {', '.join(known)}")
        corpus = profile.corpora.get(block.corpus)
        if corpus is None or corpus.role != "train":
            found.append(f"{here}.corpus: {block.corpus!r} is not a corpus with role: train")
        found += [
            f"{here}.benchmarks: {benchmark!r} is not a corpus with role: benchmark"
            for benchmark in block.benchmarks or ()
            if not _is_benchmark(profile, benchmark)
        ]
        if hasattr(block, "flaws"):
            found += [f"{here}.{flaw}" for flaw in block.flaws(profile)]
    return found


def reads_of(needs: Needs) -> int:
    """How many things a training reads: of tokens, the features and the weights."""
    return len(needs.inputs) + sum(isinstance(need, Tokens) and need.weights for need in needs.inputs)


def _wrong(profile: Profile, need: Input) -> str | None:
    """Why an input cannot be read; None where it can."""
    match need:
        case ImageFeatures():
            wrong = _no_vector(profile.encoders.get(need.encoder))
            return wrong and f"encoder {need.encoder!r}: {wrong}"
        case Tokens():
            wrong = _no_tokens(profile.encoders.get(need.encoder))
            return wrong and f"encoder {need.encoder!r}: {wrong}"
        case Facts():
            return _no_source(profile, need)
        case TextFeatures() if need.encoder not in profile.text_encoders:
            return f"text encoder {need.encoder!r}: unknown; expected one of `text_encoders`"
        case TextFeatures() if need.texts not in profile.texts:
            return f"texts {need.texts!r}: unknown; expected one of `texts`"
        case Pieces():
            tower = profile.encoders.get(need.encoder)
            if tower is None or not tower.pictures:
                wrong = UNKNOWN if tower is None else "cuts no pieces; expected a segmenter"
                return f"pieces: encoder {need.encoder!r}: {wrong}"
        case Tower():
            tower = profile.encoders.get(need.encoder)
            wrong = UNKNOWN if tower is None else _untrained(tower)
            return wrong and f"tower: encoder {need.encoder!r}: {wrong}"
        case TextTower() if need.encoder not in profile.text_encoders:
            return f"text encoder {need.encoder!r}: unknown; expected one of `text_encoders`, of the photos' encoder"
        case Answers() | Model() if need.variant not in profile.variants:
            return f"variant {need.variant!r}: unknown; expected one of `variants`"
    return None


def _untrained(tower: Any) -> str | None:
    """Why no network can start from an encoder; None where one can."""
    from geoloc_core.encoders.trainable import trains  # which reads parameters itself

    return trains(tower)


def _called(need: Input) -> str:
    """What an input is called in messages."""
    match need:
        case ImageFeatures() | Tokens():
            return f"encoder {need.encoder!r}"
        case Facts():
            return "facts"
        case TextFeatures():
            return f"text encoder {need.encoder!r} with texts {need.texts!r}"
        case Answers() | Model():
            return f"variant {need.variant!r}"
        case Photos():
            return "the photo"
        case Pieces():
            return f"pieces of {need.encoder!r}"
        case Tower():
            return f"tower {need.encoder!r}"
        case TextTower():
            return f"text tower {need.encoder!r}"


def _is_benchmark(profile: Profile, name: str) -> bool:
    return name in profile.corpora and profile.corpora[name].role == "benchmark"


def _scored(profile: Profile) -> list[str]:
    """The benchmarks and held-out splits that any variant is scored on."""
    shares = (profile.labels.test_share, *profile.labels.test_shares.values())
    return [*profile.benchmarks, *splits_of("train", max(shares))[1:]]


def _check_evaluation(profile: Profile) -> list[str]:
    found = [
        f"evaluation.benchmarks: {name!r} is not a corpus with role: benchmark"
        for name in profile.evaluation.benchmarks or ()
        if not _is_benchmark(profile, name)
    ]
    known = metric_names(profile.evaluation.top_k, profile.evaluation.thresholds_km)
    if profile.registry.metric not in known:
        found.append(f"registry.metric: {profile.registry.metric!r}; expected one of: {', '.join(known)}")
    if profile.registry.benchmark not in (
        *(name for name in profile.corpora if _is_benchmark(profile, name)),
        VALIDATION,
    ):
        found.append(f"registry.benchmark: {profile.registry.benchmark!r} is neither {VALIDATION} nor a benchmark")
    elif profile.variants and profile.registry.benchmark not in (*profile.benchmarks, VALIDATION):
        found.append(f"registry.benchmark: {profile.registry.benchmark!r}: no variant is scored on it")
    scored = _scored(profile)
    found += _check_guards(profile, scored)
    found += [
        f"report.photos_of: {name!r}: no variant is scored on it; expected some of: {', '.join(scored)}"
        for name in profile.report.photos_of or ()
        if profile.variants and name not in scored
    ]
    return found


def _check_guards(profile: Profile, scored: list[str]) -> list[str]:
    """Benchmarks that nobody answers, and continents that there are not."""
    guards, where, found = profile.registry.guards, "registry.guards", list[str]()
    for name in guards.benchmarks:
        if name == profile.registry.benchmark:
            found.append(f"{where}.benchmarks.{name}: the selection set, whose guards stand in {where} itself")
        elif profile.variants and name not in scored:
            found.append(
                f"{where}.benchmarks.{name}: no variant is scored on it; expected some of: {', '.join(scored)}"
            )
    known = sorted({*continents().values()} - {""})
    asked = {where: guards.continents}
    asked |= {f"{where}.benchmarks.{name}": block.continents for name, block in guards.benchmarks.items()}
    return found + [
        f"{at}.continents.{name}: no continent; expected some of: {', '.join(known)}"
        for at, bounds in asked.items()
        for name in (bounds if isinstance(bounds, dict) else ())
        if name not in known
    ]


def _check_pretraining(profile: Profile) -> list[str]:
    """Corpora and starts that are not there. Where weights come from decides what a stage waits for."""
    errors = []
    for where in ("pretrain", "pretrain_from"):
        for name, tower in getattr(profile, where).items():
            corpus = profile.corpora.get(tower.corpus)
            if corpus is None or corpus.role != "train":
                errors.append(f"{where}.{name}.corpus: {tower.corpus!r} is not a corpus with role: train")
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


WRITES = {"clip": "open_clip", "vit": "vit", "segformer": "segformer"}
"""The kind of tower that reads what a kind of pre-training writes."""


def _no_vector(tower: Any) -> str | None:
    """Why a head cannot be trained on an encoder; None where it gives a vector per photo."""
    if tower is None:
        return "unknown; expected one of `encoders`"
    if tower.pictures:
        return "gives pictures; expected one that gives a vector per photo"
    if getattr(tower, "pooling", None) in MANY:
        return "gives many tokens per photo; expected another pooling"
    return None


def _no_source(profile: Profile, need: Facts) -> str | None:
    """Why facts cannot be learned; None where the profile has a source of each."""
    sources = profile.facts
    if sources is None:
        return f"facts: {need.names[0]!r}; expected `facts` in the profile, with the rasters that say it"
    wrong = next((name for name in need.names if not sources.tells(name)), None)
    return wrong and f"facts: {wrong!r}: no source; expected `facts.{wrong}` in the profile, a raster"


def _no_tokens(tower: Any) -> str | None:
    """Why the last block of an encoder cannot be trained; None where its pooling gives the tokens that enter it."""
    if tower is None:
        return UNKNOWN
    pooling = getattr(tower, "pooling", None)
    if pooling != PENULTIMATE:
        return f"pooling {pooling}; expected {PENULTIMATE}, which gives the tokens that enter the last block"
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
    trained = profile.pretrain | profile.pretrain_from
    errors += [
        f"checkpoints.{name}: trained: {other!r}; expected one of `pretrain` and `pretrain_from`: {', '.join(trained)}"
        for name, checkpoint in profile.checkpoints.items()
        for other in checkpoint.made_of
        if other not in trained
    ]
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
