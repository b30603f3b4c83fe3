"""Reading ``params.yaml``: every profile is checked, and all mistakes are listed at once."""

from pathlib import Path
from typing import Any

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
    checked, errors = {}, unknown
    for where, block in blocks.items():
        profile, found = _check(block, where)
        checked[where] = (block, profile)
        errors += found
    if errors:
        count = f"{len(errors)} error" + ("s" if len(errors) > 1 else "")
        raise UserError(f"{path}: {count}", *(f"  {line}" for line in errors))
    return next(profile for block, profile in checked.values() if block == raw["run"] and profile)


def _check(block: Any, where: str) -> tuple[Profile | None, list[str]]:
    if isinstance(block, dict) and (former := _former(block)):
        return None, [f"{where}.variants.{former}: variants are no longer grouped by family; "
                      "expected `<variant>: {kind: classifier, encoders: […], …}` directly under variants"]  # fmt: skip
    try:
        profile = Profile.model_validate(block)
    except ValidationError as error:
        return None, [f"{'.'.join(map(str, (where, *e['loc'])))}: {_say(e)}" for e in error.errors()]
    return profile, [f"{where}.{flaw}" for flaw in flaws(profile, block)]


def _former(block: dict[str, Any]) -> str | None:
    """The group of a family, as former versions had it."""
    variants = block.get("variants")
    found = variants.items() if isinstance(variants, dict) else ()
    return next((name for name, group in found if name in FORMER_FAMILIES and "kind" not in _keys(group)), None)


def _keys(group: Any) -> set[Any]:
    return set(group) if isinstance(group, dict) else set()


def _say(error: Any) -> str:
    if error["type"] == "missing":
        return "missing; expected a value"
    if error["type"] == "extra_forbidden":
        *_, block, key = ("", *map(str, error["loc"]))
        return MOVED.get(f"{block}.{key}") or MOVED.get(key, "unknown key")
    if error["type"] == "union_tag_not_found":
        return "expected a mapping with `kind`"
    if error["type"] == "union_tag_invalid":
        return f"unknown kind {error['ctx']['tag']!r}; expected one of {error['ctx']['expected_tags']}"
    value = error.get("input")
    shown = "" if isinstance(value, dict | list | Strict) else f" (got {value!r})"
    quote = "; put it in quotes if it is text" if shown and error["type"] == "string_type" else ""
    return f"{error['msg'].removeprefix('Value error, ')}{shown}{quote}"
