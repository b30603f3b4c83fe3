"""Reading ``params.yaml``: every profile is checked, and all mistakes are listed at once."""

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from geoloc_core.errors import UserError
from geoloc_core.params.checks import flaws
from geoloc_core.params.schema import Profile
from geoloc_core.plugins import Strict
from geoloc_core.yamls import read_yaml

PAPERS = "unknown key; the papers' tables, and the variants that stand for their rows, are now in published.yaml"
MOVED = {
    "paper": PAPERS,
    "papers": PAPERS,
    "about": "unknown key; what is published about weights is now in the profile, under about.<encoder>",
    "encoded": "unknown key; what is encoded now follows from the variants and from evaluation.benchmarks",
    "encoder": "unknown key; a classifier now lists its encoders: `encoders: [<encoder>]`",
    "recipe.lr": "unknown key; it is now part of the optimiser: `optimiser: {kind: sgd, lr: …}`",
    "recipe.momentum": "unknown key; it is now part of the optimiser: `optimiser: {kind: sgd, lr: …, momentum: …}`",
    "recipe.weight_decay": "unknown key; it is now part of the optimiser: `optimiser: {kind: sgd, lr: …, "
                           "weight_decay: …}`",
    "recipe.weight_power": "unknown key; it is now `weights: {kind: inverse_frequency, power: …}`",
    "recipe.plateau_factor": "unknown key; it is now `schedule: {kind: plateau, factor: …}`",
    "recipe.plateau_patience": "unknown key; it is now `schedule: {kind: plateau, patience: …}`",
    "recipe.seed": "unknown key; it is now `seeds: [<seed>]`, beside the recipe",
    "recipe.standardise": "unknown key; it is now `normalise: standardise` or `normalise: none`, beside the recipe",
}  # fmt: skip
"""Keys of former versions, some with the block they were in, and where they went."""
FORMER_FAMILIES = ("head", "hybrid")


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
    checked: dict[str, tuple[Any, Profile | None]] = {}
    places: dict[str, list[str]] = {}
    for where, block in blocks.items():
        profile, found = _check(block)
        checked[where] = (block, profile)
        for flaw in found:
            places.setdefault(flaw, []).append(where)
    errors = [*unknown, *(_placed(flaw, where) for flaw, where in places.items())]
    if errors:
        count = f"{len(errors)} error" + ("s" if len(errors) > 1 else "")
        raise UserError(f"{path}: {count}", *(f"  {line}" for line in errors))
    return next(profile for block, profile in checked.values() if block == raw["run"] and profile)


def _placed(flaw: str, where: list[str]) -> str:
    """A mistake with the profile it is in; profiles that share a block share its mistakes."""
    first, *others = where
    also = f" (also in {', '.join(others)})" if others else ""
    return f"{first}.{flaw}{also}"


def _check(block: Any) -> tuple[Profile | None, list[str]]:
    if isinstance(block, dict) and (former := _former(block)):
        return None, [f"variants.{former}: variants are no longer grouped by family; "
                      "expected `<variant>: {kind: classifier, encoders: […], …}` directly under variants"]  # fmt: skip
    try:
        profile = Profile.model_validate(block)
    except ValidationError as error:
        return None, [f"{'.'.join(map(str, e['loc']))}: {_say(e, block)}" for e in error.errors()]
    return profile, flaws(profile, block)


def _former(block: dict[str, Any]) -> str | None:
    """The group of a family, as former versions had it."""
    variants = block.get("variants")
    found = variants.items() if isinstance(variants, dict) else ()
    return next((name for name, group in found if name in FORMER_FAMILIES and "kind" not in _keys(group)), None)


def _keys(group: Any) -> set[Any]:
    return set(group) if isinstance(group, dict) else set()


def _did_you_mean(key: str, block: Any, path: tuple[Any, ...]) -> str:
    """The key that may have been meant: of the record that fits the block best, one that is like it."""
    for part in path:
        block = block[part] if isinstance(block, dict) and part in block else {}
    given = _keys(block) - {key}
    fields = [
        set(record.model_fields)
        for record in _records(Strict)
        if _fits(record, block) and key not in record.model_fields
    ]
    most = max((len(known & given) for known in fields), default=0)
    likely = sorted({name for known in fields if len(known & given) == most for name in known - given})
    close = get_close_matches(key, likely, n=1, cutoff=0.7)
    return f"; did you mean {close[0]!r}?" if close else ""


def _fits(record: type[Strict], block: Any) -> bool:
    kind = record.model_fields.get("kind")
    return (kind is None) == ("kind" not in block) and (kind is None or block["kind"] in get_args(kind.annotation))


def _records(base: type[Strict]) -> Iterator[type[Strict]]:
    for record in base.__subclasses__():
        yield record
        yield from _records(record)


def _say(error: Any, whole: Any) -> str:
    if error["type"] == "missing":
        return "missing; expected a value"
    if error["type"] == "extra_forbidden":
        *_, block, key = ("", *map(str, error["loc"]))
        moved = MOVED.get(f"{block}.{key}") or MOVED.get(key)
        return moved or f"unknown key{_did_you_mean(key, whole, error['loc'][:-1])}"
    if error["type"] == "union_tag_not_found":
        return "expected a mapping with `kind`"
    if error["type"] == "union_tag_invalid":
        return f"unknown kind {error['ctx']['tag']!r}; expected one of {error['ctx']['expected_tags']}"
    value = error.get("input")
    shown = "" if isinstance(value, dict | list | Strict) else f" (got {value!r})"
    quote = "; put it in quotes if it is text" if shown and error["type"] == "string_type" else ""
    return f"{error['msg'].removeprefix('Value error, ')}{shown}{quote}"
